"""Checks what a built wheel holds: the three libraries, the C header, the type marker, and no path of this machine.

Run as: python -m build_tools.check_wheel dist/*.whl
"""

from __future__ import annotations

import re
import struct
import sys
import tempfile
import zipfile
from pathlib import Path

from . import cuda, fatbin, native
from .compile import BuildError

WANTED = (
    r"robocache/__init__\.py",
    r"robocache/py\.typed",
    r"robocache/include/robocache\.h",
    r"robocache/lib/librobocache\.so",
    r"robocache/_torch\.so",
    r"robocache/_native\.[^/]+\.so",
    r"robocache-[^/]+\.dist-info/licenses/LICENSE",
)
# Every file of a wheel is in one of these places: tests, build tools or stray objects are not.
ALLOWED = re.compile(r"robocache/.+\.(py|so|h|typed)|robocache-[^/]+\.dist-info/.+")


def run_paths(library: Path) -> list[str]:
    """DT_RPATH and DT_RUNPATH entries of a shared library."""
    image = library.read_bytes()
    dynamic, strings = fatbin.elf_section(image, ".dynamic"), fatbin.elf_section(image, ".dynstr")
    if dynamic is None or strings is None:
        raise BuildError(f"{library.name}: not a shared library")
    paths = []
    for tag, value in struct.iter_unpack("<QQ", dynamic):
        if tag in (15, 29):  # DT_RPATH, DT_RUNPATH
            paths += strings[value : strings.index(b"\0", value)].decode().split(":")
    return paths


def check(wheel: Path) -> None:
    """Raises BuildError naming the first thing that is wrong with `wheel`."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        for pattern in WANTED:
            if not any(re.fullmatch(pattern, name) for name in names):
                raise BuildError(f"{wheel.name}: holds no {pattern}")
        for name in names:
            if not ALLOWED.fullmatch(name):
                raise BuildError(f"{wheel.name}: {name} does not belong in it")
        version = f"robocache-{native.package_version()}.dist-info/METADATA"
        if version not in names:
            raise BuildError(f"{wheel.name}: expected {version}")
        archive.extractall(folder)
        for library in sorted(Path(folder).rglob("*.so")):
            for path in run_paths(library):
                if not path.startswith("$ORIGIN"):
                    raise BuildError(f"{wheel.name}: {library.name} looks for libraries in {path}")
        core = Path(folder) / "robocache" / "lib" / "librobocache.so"
        if cuda.find_toolkit() is not None:
            fatbin.check_targets(core, cuda.targets(release=True))
        found = fatbin.describe([pair for entries in fatbin.embedded_targets(core) for pair in entries])
    print(f"{wheel.name}: {len(names)} files, CUDA targets: {found or 'none'}")


def main(arguments: list[str]) -> int:
    wheels = [Path(name) for name in arguments]
    if not wheels or not all(wheel.exists() for wheel in wheels):
        print("error: no wheel to check", file=sys.stderr)
        return 1
    try:
        for wheel in wheels:
            check(wheel)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
