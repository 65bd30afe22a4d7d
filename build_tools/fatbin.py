"""Reads which CUDA targets a built library really holds, without CUDA's own tools.

nvcc leaves its device code in an ELF section named .nv_fatbin: a run of containers, each a header (magic 0xBA55ED50)
followed by entries. An entry's header names its kind (1 = PTX, 2 = machine code) and its target (90 for sm_90); the
payload may be compressed, the headers are not.

    python -m build_tools.fatbin robocache/lib/librobocache.so            # prints "90 100 120+ptx"
    python -m build_tools.fatbin robocache/lib/librobocache.so "90;120+ptx"   # fails where one is missing
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

from .compile import BuildError

MAGIC = 0xBA55ED50
KIND_PTX = 1
KIND_MACHINE_CODE = 2


def elf_section(image: bytes, name: str) -> bytes | None:
    """A section of a 64-bit little-endian ELF file, or None where it has none of that name."""
    if image[:4] != b"\x7fELF" or image[4:6] != b"\x02\x01":
        raise BuildError("not a 64-bit little-endian ELF file")
    table, entry_size, count, names_index = struct.unpack_from("<Q10xHHH", image, 0x28)
    headers = [struct.unpack_from("<IIQQQQ", image, table + i * entry_size) for i in range(count)]
    names_at = headers[names_index][4]
    for name_offset, _, _, _, offset, size in headers:
        end = image.index(b"\0", names_at + name_offset)
        if image[names_at + name_offset : end].decode() == name:
            return image[offset : offset + size]
    return None


def embedded_targets(library: Path) -> list[list[tuple[int, int]]]:
    """(kind, target) of every entry, one list for each translation unit that holds device code."""
    try:
        section = elf_section(library.read_bytes(), ".nv_fatbin")
    except (struct.error, ValueError, IndexError) as broken:
        raise BuildError(f"{library}: damaged ELF file ({broken})") from broken
    containers = []
    at = 0
    while section is not None and at + 16 <= len(section):
        magic, _, header_size, size = struct.unpack_from("<IHHQ", section, at)
        if magic != MAGIC:  # padding between containers
            at += 8
            continue
        end = at + header_size + size
        if header_size < 16 or end > len(section):
            raise BuildError(f"{library}: damaged device code container at byte {at} of .nv_fatbin")
        at += header_size
        entries = []
        while at + 32 <= end:
            kind, _, entry_header, payload = struct.unpack_from("<HHIQ", section, at)
            (target,) = struct.unpack_from("<I", section, at + 28)
            if entry_header < 32 or at + entry_header + payload > end:
                raise BuildError(f"{library}: damaged device code entry at byte {at} of .nv_fatbin")
            if kind in (KIND_PTX, KIND_MACHINE_CODE):
                entries.append((kind, target))
            at += entry_header + payload
        at = end
        if entries:
            containers.append(entries)
    return containers


def parse_targets(text: str) -> list[tuple[int, int]]:
    """(kind, target) pairs that a list like "80;90;120+ptx" asks for; "+ptx" asks for PTX besides machine code."""
    wanted = []
    for word in text.replace(";", " ").split():
        number = word.removesuffix("+ptx")
        target = int(number.rstrip("af"))
        wanted.append((KIND_MACHINE_CODE, target))
        if word != number:
            wanted.append((KIND_PTX, target))
    return wanted


def describe(pairs: list[tuple[int, int]]) -> str:
    """The pairs as the list that asks for them: "80 90 120+ptx"."""
    machine_code = {target for kind, target in pairs if kind == KIND_MACHINE_CODE}
    ptx = {target for kind, target in pairs if kind == KIND_PTX}
    words = [f"{target}{'+ptx' if target in ptx else ''}" for target in sorted(machine_code)]
    return " ".join(words + [f"{target} (PTX only)" for target in sorted(ptx - machine_code)])


def check_targets(library: Path, asked: str) -> None:
    """Raises BuildError unless every translation unit with device code in `library` holds every asked target."""
    containers = embedded_targets(library)
    wanted = parse_targets(asked)
    if wanted and not containers:
        raise BuildError(f"{library}: holds no device code, expected {asked}")
    for entries in containers:
        missing = [pair for pair in wanted if pair not in entries]
        if missing:
            found = describe(entries)
            raise BuildError(f"{library}: {describe(missing)} missing; expected CUDA targets {asked}, found {found}")


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    library = Path(arguments[0])
    try:
        if len(arguments) == 2:
            check_targets(library, arguments[1])
        print(describe([pair for entries in embedded_targets(library) for pair in entries]) or "no device code")
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
