"""Builds the test programs in tests/c with the library's C sources under AddressSanitizer and UBSan, and runs them.

A program passes when it exits 0 and neither sanitizer reports. Every finding ends the program.

Run as: python -m build_tools.sanitize [name ...]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from . import native
from .compile import BuildError, Job, run_jobs

SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def _cc() -> list[str]:
    return os.environ.get("CC", "cc").split()


def _compile(source: Path, suffix: str, flags: tuple[str, ...], work: Path) -> Job:
    name = source.relative_to(native.ROOT).as_posix().replace("/", ".")
    output = work / f"{name}{suffix}.o"
    words = (*_cc(), *SANITIZE, *native.c_flags(), *flags, "-MMD", "-MF", "{depfile}")
    return Job(output, (*words, "-c", str(source), "-o", "{output}"), (source,), f"compiling {output.stem}", work)


def build(names: list[str]) -> list[Path]:
    """Builds the programs (all, or those named); returns their paths."""
    work = native.ROOT / "build" / "sanitize"
    about = (f'-DRC_VERSION_STRING="{native.package_version()}"', '-DRC_CUDA_ARCHS=""')
    library = [
        _compile(
            entry["path"],
            entry.get("object_suffix", ""),
            (*about, *native.define_words(entry.get("defines")), *entry.get("flags", ())),
            work,
        )
        for entry in [*native.c_sources(), {"path": native.CSRC / "cuda" / "none.c"}]
    ]
    sources = [path for path in sorted((native.ROOT / "tests" / "c").glob("*.c")) if not names or path.stem in names]
    if not sources:
        raise BuildError(f"no test programs {' '.join(names)} in tests/c")
    mains = [_compile(path, "", about, work) for path in sources]
    run_jobs([*library, *mains])
    programs = []
    for path, main_object in zip(sources, mains, strict=True):
        objects = [job.output for job in (main_object, *library)]
        words = (*_cc(), *SANITIZE, "-o", "{output}", *map(str, objects), "-lm", "-lpthread")
        programs.append(Job(work / f"{path.stem}.program", words, tuple(objects), f"linking {path.stem}", work))
    run_jobs(programs)
    for job in programs:
        job.output.chmod(0o755)
    return [job.output for job in programs]


def main(arguments: list[str]) -> int:
    try:
        programs = build(arguments)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    failed = []
    for program in programs:
        status = subprocess.run([str(program)], env={**os.environ, **OPTIONS}).returncode
        print(f"{program.stem}: {'ok' if status == 0 else f'FAILED with status {status}'}", flush=True)
        if status != 0:
            failed.append(program.stem)
    print(f"sanitizers: {len(programs) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
