"""Prints the CUDA targets of the GPUs in this machine ("90"), for ROBOCACHE_CUDA_ARCHS; fails where there is none."""

from __future__ import annotations

import subprocess
import sys


def present_targets() -> list[str]:
    """Compute capabilities of the visible GPUs without the point, sorted: ["90"]. Empty where no driver answers."""
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
    except (FileNotFoundError, subprocess.SubprocessError):
        shown = ""
    found = {line.strip().replace(".", "") for line in shown.splitlines()}
    found = {word for word in found if word.isdigit()}
    if not found:  # an nvidia-smi that is missing or does not know the query: torch asks the driver itself
        try:
            import torch

            count = torch.cuda.device_count()
            found = {"{}{}".format(*torch.cuda.get_device_capability(i)) for i in range(count)}
        except ImportError:
            pass
    return sorted(found, key=int)


if __name__ == "__main__":
    targets = present_targets()
    if not targets:
        print("error: no GPU is visible on this machine (nvidia-smi and torch see none)", file=sys.stderr)
        raise SystemExit(1)
    print(";".join(targets))
