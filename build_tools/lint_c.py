"""Runs clang-tidy over the library's C sources, each with the flags it is built with.

Run as: python -m build_tools.lint_c [file.c ...]
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
import sys
from pathlib import Path

from . import native
from .compile import BuildError


def _clang_tidy() -> str:
    beside = Path(sys.executable).parent / "clang-tidy"
    found = str(beside) if beside.exists() else shutil.which("clang-tidy")
    if found is None:
        raise BuildError("clang-tidy is not installed; `pip install clang-tidy`")
    return found


def _commands(only: set[Path]) -> list[tuple[str, list[str]]]:
    entries = [(e["path"], [*native.define_words(e.get("defines")), *e.get("flags", ())]) for e in native.c_sources()]
    entries.append((native.CSRC / "cuda" / "none.c", []))
    for folder in ("tests/c", "examples/c"):
        entries += [(path, []) for path in sorted((native.ROOT / folder).glob("*.c"))]
    about = ['-DRC_VERSION_STRING="0"', '-DRC_CUDA_ARCHS=""']
    commands = []
    for path, flags in entries:
        if not only or path in only:
            words = [_clang_tidy(), "--quiet", str(path), "--", *native.c_flags(), *about, *flags]
            commands.append((" ".join([str(path.relative_to(native.ROOT)), *flags]), words))
    return commands


def main(arguments: list[str]) -> int:
    commands = _commands({Path(name).resolve() for name in arguments})
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        runs = pool.map(lambda c: subprocess.run(c[1], capture_output=True, text=True, cwd=native.ROOT), commands)
        for (label, _), done in zip(commands, runs, strict=True):
            if done.returncode != 0:
                failed += 1
                print(f"{label}:\n{done.stdout}{done.stderr}", file=sys.stderr)
    print(f"clang-tidy: {len(commands)} sources, {failed} with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except BuildError as error:
        raise SystemExit(f"error: {error}") from None
