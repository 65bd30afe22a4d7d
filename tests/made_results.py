"""Made-up results for the tests of the ratchet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import compare, timing, verdicts

COLD, WARM = "robocache cold", "robocache warm"


def stats(us: float, seed: int, noise: float = 0.02, tail: float = 1.0, repeats: int = 100) -> dict[str, Any]:
    """Statistics of made-up timings around `us`; a tenth takes `tail` times as long."""
    times = us * np.random.default_rng(seed).normal(1.0, noise, repeats)
    times[: repeats // 10] *= tail
    return timing.summarize(times, 1).as_dict()


def results(seed: int, factor: float = 1.0, **changes: Any) -> dict[str, Any]:
    """Three rows, the first `factor` times as slow as the others would make it."""
    rows = []
    for number, (name, us) in enumerate((("a", 6.2), ("b", 88.0), ("c", 2800.0))):
        slow = factor if number == 0 else 1.0
        variants = {
            "robocache": {"cold": stats(us * slow, seed + number), "warm": stats(0.7 * us, seed + 10 + number)},
            "eager": {"cold": stats(us * 9 * slow, seed + 20 + number)},
        }
        rows.append({"name": name, "batch": 32, "variants": variants, "errors": {}})
    facts = {"gpu": "A GPU", "cpu": "A CPU", "cpu_count": 16, "torch": "2.11", "date": f"2026-01-0{1 + seed % 9}"}
    facts["git"] = {"commit": f"{seed:x}" * 40, "dirty": False}
    made = {"schema": 1, "suite": "align", "device": "cuda", "provenance": facts, "cases": rows, "complete": True}
    return {**made, "plan": {"repeats": 100, "rotate_bytes": 1, "max_sets": 2}, **changes}


def host_costs(factor: float = 1.0, clone: float = 7.5) -> dict[str, Any]:
    """What calls cost the host, that of ours `factor` times as much."""

    def cost(us: float) -> dict[str, float]:
        return {"median": us, "least": 0.98 * us, "most": 1.02 * us}

    return {mode: {"clone": cost(clone), "resample": cost(10.6 * factor)} for mode in ("no_grad", "grad")}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def compared(folder: Path, base: Any, new: Any, *options: str) -> int:
    """The exit status of the command on base.json and new.json of the folder."""
    paths = [str(write(folder / f"{name}.json", content)) for name, content in (("base", base), ("new", new))]
    return compare.main([*paths, *options])


def found(base: Any, new: Any, case: str = "a", what: str = COLD) -> str:
    """The verdict of one measurement."""
    return next(v.verdict for v in verdicts.compare_results(base, new) if (v.case, v.what) == (case, what))
