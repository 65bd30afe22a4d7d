"""Finds nvcc and its static runtime, and says which GPU targets to build for. No GPU is ever looked for here."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .compile import BuildError

RELEASE_TARGETS = "80;86;89;90;100;120+ptx"
DEVELOPMENT_TARGETS = "90"
USUAL_NVCC = Path("/usr/local/cuda/bin/nvcc")
NVCC_FLAGS = ("-std=c++17", "-O3", "-fmad=false", "--expt-relaxed-constexpr", "-lineinfo")


@dataclass(frozen=True)
class Toolkit:
    """An nvcc and the libcudart_static.a that belongs to it."""

    nvcc: Path
    cudart: Path

    def require_targets(self, archs: str) -> None:
        """Raises BuildError where this nvcc does not know a target, naming those it knows."""
        listed = subprocess.run([str(self.nvcc), "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
        known = set(re.findall(r"sm_(\d+[af]?)", listed))
        # Architecture- and family-specific variants (90a, 120f) are not listed; nvcc judges them itself.
        asked = [word.removesuffix("+ptx") for word in archs.split(";")]
        missing = [word for word in asked if word.isdigit() and word not in known]
        if missing:
            usable = ";".join(word for word in asked if word not in missing)
            raise BuildError(
                f"{self.nvcc} does not know {', '.join('sm_' + word for word in missing)}; use a newer CUDA toolkit, "
                f"or set ROBOCACHE_CUDA_ARCHS, for example to {usable or min(known, key=int)!r}"
            )

    def release(self) -> tuple[int, int]:
        """nvcc's own version: (13, 0)."""
        shown = subprocess.run([str(self.nvcc), "--version"], capture_output=True, text=True, check=True).stdout
        match = re.search(r"release (\d+)\.(\d+)", shown)
        return (int(match.group(1)), int(match.group(2))) if match else (0, 0)

    def compile_command(self, archs: str, werror: bool, flags: tuple[str, ...]) -> tuple[str, ...]:
        host = "-fPIC,-Wall,-Wextra,-fvisibility=hidden,-ffp-contract=off" + (",-Werror" if werror else "")
        command = [str(self.nvcc), *NVCC_FLAGS, "-Xcompiler", host, *(("-Werror", "all-warnings") if werror else ())]
        if self.release() >= (13, 0):  # a ninth of the size; every driver that runs CUDA 13 can read it
            command.append("--compress-mode=size")
        for word in archs.split(";"):
            target = word.removesuffix("+ptx")
            command += ["-gencode", f"arch=compute_{target},code=sm_{target}"]
            if word != target:
                command += ["-gencode", f"arch=compute_{target},code=compute_{target}"]
        return (*command, *flags)

    def link_words(self) -> list[str]:
        return [str(self.cudart), "-ldl", "-lrt"]


def normalise_targets(text: str) -> str:
    """ "8.0, 9.0 12.0+PTX" -> "80;90;120+ptx". Raises BuildError for what is no target."""
    words = []
    for word in re.split(r"[;,\s]+", text.strip().lower()):
        match = re.fullmatch(r"(?:sm_|compute_)?(\d{1,2})\.?(\d[af]?)(\+ptx)?", word)
        if not match:
            raise BuildError(f'ROBOCACHE_CUDA_ARCHS: expected a list like "80;90;120+ptx", got {text!r}')
        words.append("".join(part or "" for part in match.groups()))
    return ";".join(dict.fromkeys(words))


def targets(release: bool) -> str:
    """What ROBOCACHE_CUDA_ARCHS asks for, else the default of a release or a development build."""
    asked = os.environ.get("ROBOCACHE_CUDA_ARCHS", "").strip()
    return normalise_targets(asked) if asked else (RELEASE_TARGETS if release else DEVELOPMENT_TARGETS)


def _find_nvcc() -> Path | None:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        home = os.environ.get(variable)
        if home:
            nvcc = Path(home) / "bin" / "nvcc"
            if not nvcc.exists():
                raise BuildError(f"{variable}={home}, but there is no {nvcc}")
            return nvcc
    on_path = shutil.which("nvcc")
    if on_path:
        return Path(on_path)
    return USUAL_NVCC if USUAL_NVCC.exists() else None


def _toolkit_root(nvcc: Path) -> Path:
    """Where nvcc itself says its toolkit stands; nvcc on PATH may be a wrapper script."""
    # --dryrun names its settings (TOP=...) on stderr and compiles nothing.
    shown = subprocess.run([str(nvcc), "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True)
    match = re.search(r"^#\$ TOP=(.+)$", shown.stderr, re.MULTILINE)
    return Path(match.group(1)).resolve() if match else nvcc.resolve().parent.parent


def _find_cudart(nvcc: Path) -> Path:
    root = _toolkit_root(nvcc)
    machine = {"x86_64": ("x86_64-linux",), "aarch64": ("sbsa-linux", "aarch64-linux")}.get(platform.machine(), ())
    places = [root / "targets" / name / "lib" for name in machine] + [root / "lib64", root / "lib"]
    places += [Path(f"/usr/lib/{platform.machine()}-linux-gnu")]
    for place in places:
        if (place / "libcudart_static.a").exists():
            return place / "libcudart_static.a"
    raise BuildError(f"no libcudart_static.a for {nvcc}; looked in {', '.join(map(str, places))}")


def find_toolkit() -> Toolkit | None:
    """The toolkit to build CUDA kernels with, or None for a build without them.

    ROBOCACHE_CUDA=0 builds without, 1 insists, auto (default) builds them where nvcc is found.
    """
    asked = os.environ.get("ROBOCACHE_CUDA", "auto").strip().lower() or "auto"
    if asked not in ("auto", "0", "1"):
        raise BuildError(f"ROBOCACHE_CUDA: expected auto, 0 or 1, got {asked!r}")
    if asked == "0":
        return None
    nvcc = _find_nvcc()
    if nvcc is None:
        if asked == "1":
            raise BuildError("ROBOCACHE_CUDA=1, but no nvcc was found; set CUDA_HOME or put nvcc on PATH")
        return None
    return Toolkit(nvcc, _find_cudart(nvcc))
