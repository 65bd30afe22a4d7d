"""The native build: what is compiled anew, which CUDA targets are asked for, and what the built libraries hold."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import robocache
from build_tools import check_wheel, cuda, fatbin, native
from build_tools.compile import BuildError, Job, run_jobs

from .conftest import locked

PACKAGE = Path(robocache.__file__).parent
LIBRARY = PACKAGE / "lib" / "librobocache.so"
LIBRARIES = sorted(path for path in PACKAGE.rglob("*.so"))
PTX, CODE = fatbin.KIND_PTX, fatbin.KIND_MACHINE_CODE


def embedded_archs() -> str:
    library = ctypes.CDLL(str(LIBRARY))
    library.rc_cuda_archs.restype = ctypes.c_char_p
    return library.rc_cuda_archs().decode()


def container(*entries: tuple[int, int]) -> bytes:
    """A device code container as nvcc writes it, with 8 bytes of payload in each entry."""
    body = b""
    for kind, target in entries:
        header = struct.pack("<HHIQ", kind, 0x101, 64, 8).ljust(28, b"\0") + struct.pack("<I", target)
        body += header.ljust(64, b"\0") + b"payload!"
    return struct.pack("<IHHQ", fatbin.MAGIC, 1, 16, len(body)) + body


def elf_with(section: bytes, name: bytes = b".nv_fatbin") -> bytes:
    """A minimal ELF file with one section."""
    names = b"\0" + name + b"\0.names\0"
    data_at, names_at = 64, 64 + len(section)
    table_at = (names_at + len(names) + 7) // 8 * 8
    header = b"\x7fELF\x02\x01\x01".ljust(40, b"\0") + struct.pack("<Q10xHHH", table_at, 64, 3, 2)
    rows = [(0, 0, 0, 0), (1, 1, data_at, len(section)), (len(name) + 2, 3, names_at, len(names))]
    table = b"".join(struct.pack("<IIQQQQ", n, kind, 0, 0, at, size).ljust(64, b"\0") for n, kind, at, size in rows)
    return (header.ljust(64, b"\0") + section + names).ljust(table_at, b"\0") + table


# ---- CUDA targets in a built library --------------------------------------------------------------------------------


def test_targets_are_read_from_every_container(tmp_path: Path) -> None:
    library = tmp_path / "library.so"
    library.write_bytes(elf_with(container((CODE, 80), (CODE, 120), (PTX, 120)) + b"\0" * 8 + container((CODE, 90))))
    assert fatbin.embedded_targets(library) == [[(CODE, 80), (CODE, 120), (PTX, 120)], [(CODE, 90)]]


@pytest.mark.parametrize(
    ("asked", "missing"),
    [("80;90+ptx", None), ("80", None), ("80;90;100", "100"), ("80+ptx", r"80 \(PTX only\)"), ("", None)],
)
def test_a_missing_target_is_an_error(tmp_path: Path, asked: str, missing: str | None) -> None:
    library = tmp_path / "library.so"
    library.write_bytes(elf_with(container((CODE, 80), (CODE, 90), (PTX, 90))))
    if missing is None:
        fatbin.check_targets(library, asked)
    else:
        with pytest.raises(BuildError, match=rf"{missing}.* missing; expected CUDA targets {asked.replace('+', '.')}"):
            fatbin.check_targets(library, asked)


def test_a_target_must_be_in_every_translation_unit(tmp_path: Path) -> None:
    library = tmp_path / "library.so"
    library.write_bytes(elf_with(container((CODE, 80), (CODE, 90)) + container((CODE, 80))))
    fatbin.check_targets(library, "80")
    with pytest.raises(BuildError, match="90 missing"):
        fatbin.check_targets(library, "80;90")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (elf_with(b"code", b".text"), "holds no device code"),
        (elf_with(container((CODE, 80))[:-12]), "damaged device code container"),
        (
            elf_with(struct.pack("<IHHQ", fatbin.MAGIC, 1, 16, 40) + struct.pack("<HHIQ", 2, 0, 64, 8) + b"\0" * 24),
            "entry",
        ),
        (elf_with(container((CODE, 80)))[:100], "damaged ELF"),
        (b"#!/bin/sh\n", "not a 64-bit"),
    ],
)
def test_a_library_without_sound_device_code_is_an_error(tmp_path: Path, content: bytes, words: str) -> None:
    library = tmp_path / "library.so"
    library.write_bytes(content)
    with pytest.raises(BuildError, match=words):
        fatbin.check_targets(library, "80")


def test_the_built_library_holds_the_targets_it_claims() -> None:
    claimed = embedded_archs()
    fatbin.check_targets(LIBRARY, claimed)
    found = fatbin.embedded_targets(LIBRARY)
    assert fatbin.describe([pair for entries in found for pair in entries]) == claimed


def test_a_doctored_copy_of_the_built_library_is_found_out(tmp_path: Path) -> None:
    claimed = embedded_archs()
    if not claimed:
        pytest.skip("built without CUDA: there is no device code to doctor")
    image = bytearray(LIBRARY.read_bytes())
    entry = image.index(struct.pack("<IHH", fatbin.MAGIC, 1, 16)) + 16
    (target,) = struct.unpack_from("<I", image, entry + 28)
    assert str(target) in claimed
    struct.pack_into("<I", image, entry + 28, 52)
    doctored = tmp_path / "doctored.so"
    doctored.write_bytes(image)
    with pytest.raises(BuildError, match=f"{target}.* missing"):
        fatbin.check_targets(doctored, claimed)


# ---- Which targets are asked for, and which nvcc --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80;90;120+ptx", "80;90;120+ptx"),
        ("8.0, 9.0 12.0+PTX", "80;90;120+ptx"),
        ("sm_90a", "90a"),
        ("90;90", "90"),
        ("100f", "100f"),
    ],
)
def test_targets_are_normalised(text: str, expected: str) -> None:
    assert cuda.normalise_targets(text) == expected


@pytest.mark.parametrize("text", ["native", "9", "80;;x", "90+sass", "-1"])
def test_what_is_no_target_is_an_error(text: str) -> None:
    with pytest.raises(BuildError, match="ROBOCACHE_CUDA_ARCHS: expected a list like"):
        cuda.normalise_targets(text)


def test_default_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROBOCACHE_CUDA_ARCHS", raising=False)
    assert cuda.targets(release=True) == "80;86;89;90;100;120+ptx"
    assert cuda.targets(release=False) == "90"
    monkeypatch.setenv("ROBOCACHE_CUDA_ARCHS", "8.6")
    assert cuda.targets(release=True) == cuda.targets(release=False) == "86"


@pytest.fixture
def no_nvcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cuda, "USUAL_NVCC", tmp_path / "nvcc")


@pytest.mark.usefixtures("no_nvcc")
def test_cuda_is_built_only_where_nvcc_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked in ("auto", "", "0"):
        monkeypatch.setenv("ROBOCACHE_CUDA", asked)
        assert cuda.find_toolkit() is None
    monkeypatch.setenv("ROBOCACHE_CUDA", "1")
    with pytest.raises(BuildError, match="ROBOCACHE_CUDA=1, but no nvcc was found"):
        cuda.find_toolkit()
    monkeypatch.setenv("ROBOCACHE_CUDA", "yes")
    with pytest.raises(BuildError, match="expected auto, 0 or 1, got 'yes'"):
        cuda.find_toolkit()


@pytest.mark.usefixtures("no_nvcc")
def test_a_wrong_cuda_home_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBOCACHE_CUDA", "auto")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(BuildError, match=r"CUDA_HOME=.*nowhere, but there is no"):
        cuda.find_toolkit()


@pytest.mark.usefixtures("no_nvcc")
def test_a_toolkit_is_an_nvcc_and_its_static_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\nprintf 'sm_80\\nsm_90\\n'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("ROBOCACHE_CUDA", "1")
    if not Path(f"/usr/lib/{os.uname().machine}-linux-gnu/libcudart_static.a").exists():
        with pytest.raises(BuildError, match=r"no libcudart_static\.a"):
            cuda.find_toolkit()
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64" / "libcudart_static.a").touch()
    toolkit = cuda.find_toolkit()
    assert toolkit == cuda.Toolkit(nvcc, tmp_path / "lib64" / "libcudart_static.a")
    toolkit.require_targets("80;90+ptx")
    with pytest.raises(BuildError, match=r"does not know sm_100, sm_120; .*for example to '90'"):
        toolkit.require_targets("90;100;120+ptx")


# ---- What is compiled anew ------------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "part.h").write_text("#define ANSWER 42\n")
    source = tmp_path / "part.c"
    source.write_text('#include "part.h"\nint answer(void) { return ANSWER; }\n')
    command = ("cc", "-MMD", "-MF", "{depfile}", "-c", str(source), "-o", "{output}")
    return Job(tmp_path / "objects" / "part.o", command, (source,), "compiling part", tmp_path / "notes")


def later(path: Path) -> None:
    stamp = path.stat().st_mtime_ns + 10_000_000_000
    os.utime(path, ns=(stamp, stamp))


def test_only_what_changed_is_compiled(job: Job, tmp_path: Path) -> None:
    assert run_jobs([job]) == 1
    assert run_jobs([job]) == 0
    later(tmp_path / "part.h")
    assert run_jobs([job]) == 1, "a header that the source includes changed"
    os.utime(job.output, ns=((tmp_path / "part.h").stat().st_mtime_ns,) * 2)
    assert run_jobs([job]) == 0
    other_flags = Job(job.output, (*job.command, "-O2"), job.inputs, job.label, job.notes)
    assert run_jobs([other_flags]) == 1, "the flags changed"
    job.output.unlink()
    assert run_jobs([other_flags]) == 1, "the object is gone"


def test_a_failed_compilation_shows_its_command_and_leaves_nothing(job: Job) -> None:
    job.inputs[0].write_text("int answer(void) { return nonsense; }\n")
    with pytest.raises(BuildError, match=r"(?s)compiling part failed with status 1:\n  cc -MMD[^\n]*\n.*nonsense"):
        run_jobs([job])
    assert list(job.output.parent.iterdir()) == []


def test_every_c_source_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert {entry["path"].parent.name for entry in native.c_sources()} == {"common", "cpu"}
    copied = tmp_path / "csrc"
    for part in ("common", "cpu"):
        shutil.copytree(native.CSRC / part, copied / part)
    shutil.copy(native.CSRC / "sources.json", copied)
    monkeypatch.setattr(native, "ROOT", tmp_path)
    monkeypatch.setattr(native, "CSRC", copied)
    native.c_sources()
    (copied / "cpu" / "forgotten.c").touch()
    with pytest.raises(BuildError, match=r"csrc/cpu/forgotten\.c is not listed"):
        native.c_sources()


# ---- The built libraries --------------------------------------------------------------------------------------------


def needed(library: Path) -> set[str]:
    shown = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    return {line.split("[")[1].rstrip("]") for line in shown.splitlines() if "(NEEDED)" in line}


def test_the_libraries_need_no_more_than_they_say() -> None:
    assert [path.name.split(".")[0] for path in LIBRARIES] == ["_native", "_torch", "librobocache"]
    system = {
        "libc.so.6",
        "libm.so.6",
        "libstdc++.so.6",
        "libgcc_s.so.1",
        "libpthread.so.0",
        "libdl.so.2",
        "librt.so.1",
    }
    loader = {name for library in LIBRARIES for name in needed(library) if name.startswith("ld-linux")}
    native_module, torch_library, core = LIBRARIES
    assert needed(core) <= system | loader
    assert needed(torch_library) <= system | loader | {"librobocache.so", "libtorch_cpu.so"}
    assert needed(native_module) <= system | loader | {"librobocache.so"}


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name)
def test_libraries_are_looked_for_beside_the_package_only(library: Path) -> None:
    assert check_wheel.run_paths(library) == ([] if library == LIBRARY else ["$ORIGIN/lib"])


def test_one_version_everywhere() -> None:
    library = ctypes.CDLL(str(LIBRARY))
    library.rc_version.restype = ctypes.c_char_p
    assert library.rc_version().decode() == robocache.__version__ == native.package_version()


# ---- Wheels ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(shared_folder: Path) -> Path:
    """A wheel built from a copy of the sources, without CUDA, which `make wheel` covers; once for all workers."""
    folder = shared_folder / "wheel"
    with locked(shared_folder / "wheel.lock"):
        if not (folder / "dist").is_dir():
            build_wheel(folder)
    return next((folder / "dist").glob("*.whl"))


def build_wheel(folder: Path) -> None:
    for name in ("build_tools", "csrc", "robocache"):
        ignore = shutil.ignore_patterns("*.so", "__pycache__", "include" if name == "robocache" else "")
        shutil.copytree(native.ROOT / name, folder / name, ignore=ignore)
    for name in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(native.ROOT / name, folder)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    environment = {**os.environ, "ROBOCACHE_CUDA": "0"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_wheel_holds_all_it_should_and_works(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROBOCACHE_CUDA", "0")
    check_wheel.check(wheel)
    assert "CUDA targets: none" in capsys.readouterr().out
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "import numpy as np, robocache, robocache.numpy as rcn, sys\n"
        "out = rcn.resample_trajectories(np.array([[0.0], [2.0]]), np.array([0.0, 1.0]), np.array([0.5]))\n"
        "assert out.tolist() == [[1.0]] and 'torch' not in sys.modules\n"
        "import torch\n"
        "out = robocache.resample_trajectories(torch.tensor([[0.0], [2.0]]), torch.arange(2.0), torch.tensor([0.5]))\n"
        "print(robocache.__file__, out.tolist(), robocache.launch_counts()['align_cpu'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=1) == [str(tmp_path / "robocache" / "__init__.py"), "[[1.0]] 2\n"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("robocache/py.typed", "holds no robocache/py"),
        ("robocache/lib/librobocache.so", "holds no robocache/lib/librobocache"),
        ("robocache/_torch.so", "holds no robocache/_torch"),
        ("tests/test_build.py", "tests/test_build.py does not belong in it"),
    ],
)
def test_a_doctored_wheel_is_found_out(wheel: Path, tmp_path: Path, name: str, words: str) -> None:
    doctored = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(doctored, "w") as copy:
        for entry in archive.namelist():
            if entry != name:
                copy.writestr(entry, archive.read(entry))
        if name not in archive.namelist():
            copy.writestr(name, "")
    with pytest.raises(BuildError, match=words):
        check_wheel.check(doctored)
