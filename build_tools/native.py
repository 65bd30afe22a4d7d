"""What RoboCache's three libraries are made of, and by which commands.

    robocache/lib/librobocache.so   C11 kernels, and CUDA kernels where nvcc is found; no torch, no Python
    robocache/_torch.so             schemas and kernels for torch, on its stable ABI; no Python
    robocache/_native.*.so          the pybind11 extension; no torch

Environment: ROBOCACHE_CUDA (auto, 0, 1), ROBOCACHE_CUDA_ARCHS ("80;90;120+ptx"), ROBOCACHE_WERROR (1: warnings are
errors), ROBOCACHE_BUILD_JOBS (commands at once; default: one a core), CC, CXX, CFLAGS, CXXFLAGS, LDFLAGS, CUDA_HOME.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shlex
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import cuda, fatbin
from .compile import BuildError, Job, exclusive, run_jobs

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
WARNINGS = ("-Wall", "-Wextra")
# Both ends of "the same bits everywhere": products and sums are rounded one by one.
ARITHMETIC = ("-fno-fast-math", "-ffp-contract=off")
CODE = ("-O3", "-fPIC", "-fvisibility=hidden")
LINK = ("-shared", "-Wl,--as-needed", "-Wl,--exclude-libs,ALL")
# --allow-shlib-undefined: what torch's own libraries need (CUDA, say) need not be on the machine that builds.
COMPLETE = ("-Wl,--no-undefined", "-Wl,--allow-shlib-undefined")
# The oldest torch whose stable ABI the library asks for: 2.10.
TORCH_TARGET_VERSION = "0x020a000000000000ULL"


@dataclass(frozen=True)
class Settings:
    """Where the libraries go and how they are built."""

    package: Path  # the package directory that receives them
    release: bool  # release or development default for ROBOCACHE_CUDA_ARCHS
    work: Path = ROOT / "build" / "native"

    @property
    def core_library(self) -> Path:
        return self.package / "lib" / "librobocache.so"

    @property
    def torch_library(self) -> Path:
        return self.package / "_torch.so"

    @property
    def python_extension(self) -> Path:
        return self.package / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"

    @property
    def header(self) -> Path:
        return self.package / "include" / "robocache.h"


def package_version() -> str:
    names: dict[str, str] = {}
    exec((ROOT / "robocache" / "_version.py").read_text(), names)
    return names["__version__"]


def _environment_words(name: str, default: str = "") -> tuple[str, ...]:
    return tuple(shlex.split(os.environ.get(name, default)))


def _werror() -> tuple[str, ...]:
    return ("-Werror",) if os.environ.get("ROBOCACHE_WERROR", "0") == "1" else ()


def _compiler(variable: str, default: str) -> tuple[str, ...]:
    words = _environment_words(variable, default)
    if shutil.which(words[0]) is None:
        raise BuildError(f"no compiler: {words[0]!r} is not on PATH; install a C and C++ compiler or set {variable}")
    return words


def _includes(*directories: Path) -> tuple[str, ...]:
    return tuple(f"-I{directory}" for directory in (CSRC / "include", CSRC / "core", CSRC, *directories))


def _object(settings: Settings, group: str, source: Path, suffix: str = "") -> Path:
    name = source.relative_to(CSRC).as_posix().replace("/", ".")
    return settings.work / group / f"{name}{suffix}.o"


def _compile(command: tuple[str, ...], source: Path, output: Path) -> Job:
    words = (*command, "-MMD", "-MF", "{depfile}", "-c", str(source), "-o", "{output}")
    return Job(output, words, (source,), f"compiling {output.stem}", output.parent)


def _link(settings: Settings, output: Path, words: list[str], inputs: list[Path]) -> Job:
    return Job(output, tuple(words), tuple(inputs), f"linking {output.name}", settings.work / "links")


def c_sources() -> list[dict[str, Any]]:
    """C files of the library, with the flags each is compiled with on this machine.

    csrc/sources.json lists them under "common" and "cpu" as {source, object_suffix, defines, flags, arch}. A source may
    occur several times, once for each instruction set; `arch` limits an entry to one machine (platform.machine()).
    Every C file in those folders must be listed: one that was forgotten is an error here, not a missing symbol later.
    """
    table = json.loads((CSRC / "sources.json").read_text())
    entries = [{**entry, "path": ROOT / entry["source"]} for part in ("common", "cpu") for entry in table[part]]
    listed = {entry["path"] for entry in entries}
    present = {path for part in ("common", "cpu") for path in (CSRC / part).glob("*.c")}
    for path in sorted(listed ^ present):
        what = "is listed but does not exist" if path in listed else "is not listed"
        raise BuildError(f"csrc/sources.json: {path.relative_to(ROOT)} {what}")
    return [entry for entry in entries if entry.get("arch", platform.machine()) == platform.machine()]


def define_words(defines: Any) -> tuple[str, ...]:
    """-D options for {"NAME": value}, or for names alone."""
    pairs = defines.items() if isinstance(defines, dict) else [(d, None) for d in defines or ()]
    return tuple(f"-D{name}" if value in (None, "") else f"-D{name}={value}" for name, value in pairs)


def c_flags() -> tuple[str, ...]:
    """Flags of every C file of the library; a sanitizer build uses the same but for CODE."""
    return (*WARNINGS, "-Wconversion", "-std=c11", *_werror(), *ARITHMETIC, *_includes())


def core_jobs(settings: Settings, toolkit: cuda.Toolkit | None, archs: str) -> tuple[list[Job], Job]:
    """Objects of librobocache.so and the link that joins them."""
    cc = (*_compiler("CC", "cc"), *_environment_words("CFLAGS"))
    # Only these sources speak of the build: CPU kernels are not compiled anew when it is for other targets.
    about = (f'-DRC_VERSION_STRING="{package_version()}"', f'-DRC_CUDA_ARCHS="{archs.replace(";", " ")}"')
    jobs = []
    for entry in c_sources():
        told = about if entry["path"].parent.name == "common" else ()
        command = (*cc, *CODE, *c_flags(), *told, *define_words(entry.get("defines")))
        output = _object(settings, "c", entry["path"], entry.get("object_suffix", ""))
        jobs.append(_compile((*command, *entry.get("flags", ())), entry["path"], output))
    if toolkit is None:
        source = CSRC / "cuda" / "none.c"
        jobs.append(_compile((*cc, *CODE, *c_flags(), *about), source, _object(settings, "c", source)))
    else:
        command = toolkit.compile_command(archs, bool(_werror()), (*_includes(), *about))
        group = f"cuda-{archs.replace(';', '-')}"
        sources = sorted((CSRC / "cuda").glob("*.cu"))
        jobs += [_compile(command, source, _object(settings, group, source)) for source in sources]
    link = [*_compiler("CXX", "c++"), *_environment_words("LDFLAGS"), *LINK, *COMPLETE]
    link += ["-Wl,-soname,librobocache.so"]
    link += ["-o", "{output}", *(str(job.output) for job in jobs)]
    link += toolkit.link_words() if toolkit else []
    link += ["-lm", "-lpthread"]
    return jobs, _link(settings, settings.core_library, link, [job.output for job in jobs])


def _shared_cxx(
    settings: Settings, group: str, sources: list[Path], flags: tuple[str, ...], output: Path, libs: list[str]
) -> tuple[list[Job], Job]:
    cxx = (*_compiler("CXX", "c++"), *_environment_words("CXXFLAGS"))
    command = (*cxx, *CODE, *WARNINGS, "-std=c++17", *_werror(), *ARITHMETIC, *flags)
    jobs = [_compile(command, source, _object(settings, group, source)) for source in sources]
    link = [*_compiler("CXX", "c++"), *_environment_words("LDFLAGS"), *LINK, "-Wl,-rpath,$ORIGIN/lib"]
    link += ["-o", "{output}", *(str(job.output) for job in jobs), f"-L{settings.core_library.parent}", "-lrobocache"]
    link += libs
    return jobs, _link(settings, output, link, [*(job.output for job in jobs), settings.core_library])


def torch_directory() -> Path:
    """The folder of the torch whose headers are compiled against. torch itself is not imported."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise BuildError("torch is not installed in the Python that builds; `pip install torch` (2.10 or newer) first")
    return Path(next(iter(spec.submodule_search_locations)))


def torch_jobs(settings: Settings) -> tuple[list[Job], Job]:
    """robocache/_torch.so. It names libtorch_cpu.so only, which is loaded by whoever loads it."""
    torch = torch_directory()
    flags = (*_includes(), "-isystem", str(torch / "include"), f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}")
    libs = [*COMPLETE, f"-L{torch / 'lib'}", "-ltorch_cpu", "-ldl"]
    sources = sorted((CSRC / "torch").glob("*.cpp"))
    return _shared_cxx(settings, "torch", sources, flags, settings.torch_library, libs)


def pybind11_include() -> Path:
    """pybind11's own headers, or the copy that torch brings."""
    spec = importlib.util.find_spec("pybind11")
    if spec is not None and spec.submodule_search_locations:
        include = Path(next(iter(spec.submodule_search_locations))) / "include"
        if (include / "pybind11" / "pybind11.h").exists():
            return include
    bundled = torch_directory() / "include"
    if (bundled / "pybind11" / "pybind11.h").exists():
        return bundled
    raise BuildError("pybind11 is not installed in the Python that builds; `pip install pybind11` first")


def python_jobs(settings: Settings) -> tuple[list[Job], Job]:
    """robocache/_native.*.so. Python's own symbols come from the interpreter that imports it."""
    paths = sysconfig.get_paths()
    headers = [part for name in dict.fromkeys((paths["include"], paths["platinclude"])) for part in ("-isystem", name)]
    if not (Path(paths["include"]) / "Python.h").exists():
        raise BuildError(
            f"Python.h is not in {paths['include']}; install this Python's headers (Debian: apt install python3-dev)"
        )
    # Only the pybind11 folder: torch's bundled copy stands beside torch headers that must not be seen here.
    shim = settings.work / "pybind11-include"
    shim.mkdir(parents=True, exist_ok=True)
    link, target = shim / "pybind11", pybind11_include() / "pybind11"
    if not link.is_symlink() or link.resolve() != target.resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    flags = (*_includes(), "-isystem", str(shim), *headers, f'-DRC_VERSION_STRING="{package_version()}"')
    sources = sorted((CSRC / "python").glob("*.cpp"))
    group = f"python-{sysconfig.get_config_var('SOABI')}"
    return _shared_cxx(settings, group, sources, flags, settings.python_extension, [])


def build(settings: Settings) -> list[Path]:
    """Builds what is out of date into `settings.package`; returns every file that belongs there."""
    if not sys.platform.startswith("linux"):
        raise BuildError(f"RoboCache builds on Linux, not on {sys.platform}")
    if sys.maxsize <= 2**32:
        raise BuildError("RoboCache needs a 64-bit Python")
    toolkit = cuda.find_toolkit()
    archs = cuda.targets(settings.release) if toolkit else ""
    if toolkit:
        toolkit.require_targets(archs)
    workers = int(os.environ.get("ROBOCACHE_BUILD_JOBS", "0")) or None
    with exclusive(settings.work):
        plans = [core_jobs(settings, toolkit, archs), torch_jobs(settings), python_jobs(settings)]
        for objects, link in plans:
            if not objects:
                raise BuildError(f"no sources for {link.output.name} under {CSRC}")
        made = run_jobs([job for objects, _ in plans for job in objects], workers)
        made += run_jobs([plans[0][1]], workers)
        made += run_jobs([plans[1][1], plans[2][1]], workers)
        settings.header.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CSRC / "include" / "robocache.h", settings.header)
        fatbin.check_targets(settings.core_library, archs)
    found = fatbin.describe([pair for entries in fatbin.embedded_targets(settings.core_library) for pair in entries])
    print(f"robocache: {made} files made; CUDA targets: {found or 'none (built without CUDA)'}", flush=True)
    return [settings.core_library, settings.torch_library, settings.python_extension, settings.header]
