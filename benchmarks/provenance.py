"""Where a result came from: commit, machine, driver, compilers, clocks, arguments and date. Never a path."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import torch

ROOT = Path(__file__).resolve().parent.parent
_ABSOLUTE = re.compile(r"(?<![\w.])(/[\w.+@-]+)+/?")


def _first_line(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def without_paths(value: Any) -> Any:
    """The same data with every absolute path shortened to its last part."""
    if isinstance(value, str):
        return _ABSOLUTE.sub(lambda m: m.group(0).rstrip("/").rsplit("/", 1)[-1], value)
    if isinstance(value, dict):
        return {k: without_paths(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(v) for v in value]
    return value


def commit() -> dict[str, Any]:
    """The commit and whether the tree was dirty. Where the checkout holds no git data, ROBOCACHE_COMMIT tells
    ("<hash>" or "<hash>-dirty"), and `source` says which of the two it was."""
    top = _first_line("git", "rev-parse", "--show-toplevel")
    head = _first_line("git", "rev-parse", "HEAD")
    if head and top and Path(top).resolve() == ROOT:  # not of a repository around an unpacked source distribution
        status = _first_line("git", "status", "--porcelain", "--", ".", ":!benchmarks/results")
        return {"commit": head, "dirty": bool(status), "source": "git"}
    told = os.environ.get("ROBOCACHE_COMMIT", "")
    if told:
        return {"commit": told.removesuffix("-dirty"), "dirty": told.endswith("-dirty"), "source": "environment"}
    return {"commit": None, "dirty": None, "source": "none"}


def cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def slug(name: str) -> str:
    """`NVIDIA H200` -> `nvidia-h200`."""
    return re.sub(r"-+", "-", re.sub(r"[^a-z0-9]+", "-", name.lower())).strip("-")


def machine_slug(device: str) -> str:
    """The folder of results/ that a device's results go to."""
    if device == "cuda":
        return slug(torch.cuda.get_device_name())
    return slug(f"{cpu_name()} {torch.get_num_threads()} threads")


def clocks() -> dict[str, str] | None:
    """Clocks, temperature and power as nvidia-smi reads them now."""
    fields = "clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,power.draw"
    line = _first_line("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "-i", "0")
    if not line:
        return None
    return dict(zip(fields.split(","), (part.strip() for part in line.splitlines()[0].split(",")), strict=False))


def _compiler() -> dict[str, str | None]:
    nvcc = _first_line("nvcc", "--version")
    cc = _first_line("cc", "--version")
    return {
        "nvcc": nvcc.splitlines()[-1].strip() if nvcc else None,
        "cc": cc.splitlines()[0].strip() if cc else None,
    }


def provenance(device: str, arguments: list[str]) -> dict[str, Any]:
    """Everything that a reader needs to repeat a run."""
    import robocache

    facts: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "git": commit(),
        "arguments": arguments,
        "robocache": robocache.__version__,
        "config": robocache.show_config(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg()[0],  # what else ran: a busy machine makes poor CPU numbers
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "compiler": _compiler(),
    }
    try:
        import triton

        facts["triton"] = triton.__version__
    except ImportError:
        facts["triton"] = None
    if device == "cuda":
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        driver = _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "-i", "0")
        facts |= {
            "gpu": properties.name,
            "gpu_multiprocessors": properties.multi_processor_count,
            "gpu_memory_bytes": properties.total_memory,
            "gpu_l2_bytes": getattr(properties, "L2_cache_size", None),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "driver": driver.splitlines()[0] if driver else None,
            "cuda": torch.version.cuda,
            "clocks_before": clocks(),
        }
    return without_paths(facts)


def evidence_path(name: str, device: str) -> Path:
    """Where the summary of a test run, a soak or a sanitizer run lies: beside the machine's results."""
    return ROOT / "benchmarks" / "results" / machine_slug(device) / f"{name}.json"


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Writes a summary; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary, indent=1) + "\n")


def main() -> None:
    print(json.dumps(provenance("cuda" if torch.cuda.is_available() else "cpu", sys.argv[1:]), indent=2))


if __name__ == "__main__":
    main()
