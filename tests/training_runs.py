"""Small runs of the training example."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
if str(EXAMPLES) not in sys.path:
    sys.path.append(str(EXAMPLES))

import train_policy  # noqa: E402

# 3 episodes of 60 frames, batches of 8: an epoch has 22 steps.
TINY = {
    "form": "lerobot_v2.1", "episodes": 3, "seconds": 0.6, "features": 6, "batch": 8, "samples": 20, "tokens": 10,
    "chunk": 4, "width": 16, "heads": 2, "layers": 1, "feedforward": 32, "workers": 1, "warmup": 2,
}  # fmt: skip


def arguments(out: Path, *more: object, **changes: Any) -> list[str]:
    """The command line of a tiny run."""
    options = {**TINY, "device": "cpu", "out": out, **changes}
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return [*words, "--no-progress", *map(str, more)]


def train(out: Path, *more: object, **changes: Any) -> int:
    """A run in this process."""
    return train_policy.main(arguments(out, *more, **changes))


def torchrun(out: Path, *more: object, processes: int = 2, **changes: Any) -> subprocess.CompletedProcess[str]:
    """A run of several processes."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               str(EXAMPLES / "train_policy.py"), *arguments(out, *more, **changes)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def saved(path: Path) -> dict[str, Any]:
    """What a checkpoint holds."""
    return torch.load(path, weights_only=True)
