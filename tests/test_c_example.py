"""The C door: the header alone, the exported names, the example program, and the words of a wrong descriptor."""

from __future__ import annotations

import ctypes
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import robocache

from . import capi
from .backends import assert_same_bits

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(robocache.__file__).parent
INCLUDE, LIB = PACKAGE / "include", PACKAGE / "lib"
EXAMPLE = ROOT / "examples" / "c" / "align.c"
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic"]


def compile_and_run(source: Path, program: Path, *flags: str, compiler: str = "cc") -> str:
    """Builds against the installed header and library as a user would; returns what the program printed."""
    command = [compiler, *flags, "-I", str(INCLUDE), str(source), "-o", str(program)]
    command += ["-L", str(LIB), "-lrobocache", f"-Wl,-rpath,{LIB}", "-lm"]
    built = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_program(tmp_path: Path) -> None:
    """It aligns an IMU that turns at 1 rad/s and joints with a dropout at camera frames; the answer is known."""
    printed = compile_and_run(EXAMPLE, tmp_path / "align", "-std=c11", *STRICT)
    rows = [line.split() for line in printed.splitlines() if re.match(r"\s+\d+ ", line)]
    assert [int(row[0]) for row in rows] == list(range(15))
    for _, ms, qz, qw, elbow, wrist, closed, imu, joints in rows:
        seconds = float(ms) / 1e3
        at = seconds + 0.002  # the joints' stamps are 2 ms late
        assert float(qz) == pytest.approx(math.sin(seconds / 2), abs=2e-4)
        assert float(qw) == pytest.approx(math.cos(seconds / 2), abs=2e-4)
        assert imu == "yes"
        in_hole, past_end = 0.160 < at < 0.260, at > 0.460
        assert joints == ("no" if in_hole or past_end else "yes"), ms
        if not past_end:
            assert float(elbow) == pytest.approx(math.sin(4 * at), abs=0.02)
            assert float(wrist) == pytest.approx(math.remainder(2.8 + 2 * at, 2 * math.pi), abs=2e-4)
            assert int(closed) == (at >= 0.300)
    assert "bad data" in printed and "is earlier than the sample before it" in printed
    assert "invalid argument" in printed and "streams[0].groups[1]" in printed


def test_the_header_is_installed_as_it_stands() -> None:
    assert (INCLUDE / "robocache.h").read_text() == (ROOT / "csrc" / "include" / "robocache.h").read_text()


@pytest.mark.parametrize(("compiler", "flags", "name"), [("cc", ["-std=c11"], "x.c"), ("c++", ["-std=c++17"], "x.cpp")])
def test_the_header_compiles_alone(tmp_path: Path, compiler: str, flags: list[str], name: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    source = tmp_path / name
    source.write_text(
        '#include <robocache.h>\n#include <stdio.h>\nint main(void) { printf("%s %s", rc_version(), '
        "rc_status_name(RC_BAD_DATA)); return 0; }\n"
    )
    printed = compile_and_run(source, tmp_path / "x", *flags, *STRICT, compiler=compiler)
    assert printed.startswith(robocache.__version__)


def declared() -> set[str]:
    text = (INCLUDE / "robocache.h").read_text()
    return set(re.findall(r"^RC_API [^;(]*?\b(rc_\w+)\(", text, re.MULTILINE))


def test_exported_names_are_those_of_the_header() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm here")
    listed = subprocess.run([nm, "-D", "--defined-only", str(LIB / "librobocache.so")], capture_output=True, text=True)
    exported = {line.split()[-1].split("@")[0] for line in listed.stdout.splitlines()}
    exported -= {"_init", "_fini", "__bss_start", "_edata", "_end"}
    assert len(declared()) >= 18
    assert exported == declared()


def test_struct_layouts_match_the_compiler(tmp_path: Path) -> None:
    """The ctypes mirror that the tests use, against offsetof of a C compiler."""
    structs = {"rc_column_group": capi.ColumnGroup, "rc_stream": capi.Stream, "rc_align_call": capi.AlignCall}
    prints = [
        f'printf("{name} {field[0]} %zu\\n", offsetof({name}, {field[0]}));'
        for name, struct in structs.items()
        for field in struct._fields_
    ]
    prints += [f'printf("{name} size %zu\\n", sizeof({name}));' for name in structs]
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <robocache.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {\n"
        + "\n".join(prints)
        + "\nreturn 0; }\n"
    )
    lines = compile_and_run(source, tmp_path / "layout", "-std=c11").splitlines()
    assert len(lines) == sum(len(s._fields_) + 1 for s in structs.values())
    for line in lines:
        name, field, offset = line.split()
        struct = structs[name]
        mine = ctypes.sizeof(struct) if field == "size" else getattr(struct, field).offset
        assert mine == int(offset), line


def test_names_and_sizes() -> None:
    lib = capi.library()
    lib.rc_status_name.restype = ctypes.c_char_p
    assert lib.rc_version().decode() == robocache.__version__
    header = (INCLUDE / "robocache.h").read_text()
    kernels = {name.lower(): int(number) for name, number in re.findall(r"RC_KERNEL_(\w+) = (\d+)", header)}
    assert sorted(kernels.values()) == list(range(len(kernels)))
    assert {lib.rc_kernel_name(k).decode(): k for k in kernels.values()} == kernels
    assert lib.rc_kernel_name(len(kernels)) is None and lib.rc_kernel_name(-1) is None
    for dtype, number in capi.DTYPES.items():
        assert lib.rc_dtype_size(number) == dtype.itemsize
    assert lib.rc_dtype_size(99) == 0 and lib.rc_dtype_size(-1) == 0
    for status in (*range(7), 99, -1):
        assert lib.rc_status_name(status)


def sound() -> tuple[capi.AlignCall, list[Any]]:
    """A descriptor that works, and what it points to."""
    values, times, targets = torch.arange(8.0).reshape(2, 4, 1), torch.arange(4.0), torch.tensor([0.5, 2.0])
    keep: list[Any] = [values, times, targets, torch.zeros(2, 2, 1)]
    described = (capi.Stream * 1)(capi.make_stream({"values": values, "times": times}, keep, 2))
    call = capi.AlignCall(
        struct_size=ctypes.sizeof(capi.AlignCall), time_dtype=2, out_dtype=2, num_streams=1,
        streams=ctypes.cast(described, ctypes.POINTER(capi.Stream)), targets=targets.data_ptr(), batch=2,
        num_targets=2, out=keep[3].data_ptr(),
    )  # fmt: skip
    call.targets_stride[:] = (0, 1)
    call.out_stride[:] = (2, 1, 1)
    return call, [described, *keep]


def test_a_sound_descriptor() -> None:
    call, keep = sound()
    assert capi.library().rc_align_cpu(ctypes.byref(call)) == 0
    assert_same_bits(keep[4], torch.tensor([[[0.5], [2.0]], [[4.5], [6.0]]]))


def set_call(field: str, value: Any) -> Any:
    return lambda call, stream: setattr(call, field, value)


def set_stream(field: str, value: Any) -> Any:
    return lambda call, stream: setattr(stream, field, value)


WRONG = {
    "struct_size": (set_call("struct_size", 8), 1, "call->struct_size: expected"),
    "time_dtype": (set_call("time_dtype", 0), 1, "time_dtype: expected float32, float64 or int64, got float16"),
    "out_dtype": (set_call("out_dtype", 12), 1, "out_dtype: expected 0 to 9, got 12"),
    "out_dtype integer": (set_call("out_dtype", 9), 1, "out_dtype: expected a type that holds the float32 values"),
    "no streams": (set_call("num_streams", 0), 1, "num_streams: expected 1 to 16, got 0"),
    "many streams": (set_call("num_streams", 17), 2, "num_streams: at most 16 streams a call, got 17"),
    "batch": (set_call("batch", -1), 1, "targets: expected [B, T] of 0 or more, got [-1, 2]"),
    "targets": (set_call("targets", None), 1, "targets: expected [B, T] = [2, 2], got NULL"),
    "out": (set_call("out", None), 1, "out: expected [B, T, D] = [2, 2, 1], got NULL"),
    "reserved": (set_call("reserved", 1), 1, "reserved: expected 0, got 1"),
    "values": (set_stream("values", None), 1, "streams[0].values: expected 8 samples of 1 columns, got NULL"),
    "times": (set_stream("times", None), 1, "streams[0].times: expected 8 samples, got NULL"),
    "sequences": (set_stream("num_sequences", 3), 1, "streams[0].num_sequences: expected the batch size, 2"),
    "samples": (set_stream("num_samples", -4), 1, "streams[0]: expected sizes of 0 or more"),
    "columns": (set_stream("num_columns", 2), 1, "streams[0].groups: expected to cover all 2 columns, got 1"),
    "groups": (set_stream("num_groups", 0), 1, "streams[0].num_groups: expected at least 1 for 1 columns, got 0"),
    "value_dtype": (set_stream("value_dtype", -1), 1, "streams[0].value_dtype: expected 0 to 9, got -1"),
    "extrapolate": (set_stream("extrapolate", 4), 1, "streams[0].extrapolate: expected 0 to 3, got 4"),
    "invalid": (set_stream("invalid", 3), 1, "streams[0].invalid: expected 0 to 2, got 3"),
    "max_gap": (set_stream("max_gap", -1.0), 1, "streams[0].max_gap: expected 0 or more"),
    "tolerance": (set_stream("tolerance", float("nan")), 1, "streams[0].tolerance: expected a number"),
    "time_offset": (set_stream("time_offset", float("inf")), 1, "streams[0].time_offset: expected a finite number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_descriptor(name: str) -> None:
    change, status, words = WRONG[name]
    call, keep = sound()
    change(call, keep[0][0])
    assert capi.library().rc_align_cpu(ctypes.byref(call)) == status
    assert words in capi.library().rc_last_error().decode()
    assert bool((keep[4] == 0).all())  # nothing was written


def test_a_stride_of_zero_in_out() -> None:
    call, keep = sound()
    call.out_stride[:] = (2, 0, 1)
    assert capi.library().rc_align_cpu(ctypes.byref(call)) == 1
    assert bool((keep[4] == 0).all())
    assert "out_stride[1]" in capi.library().rc_last_error().decode()


def test_no_descriptor() -> None:
    assert capi.library().rc_align_cpu(None) == 1
    assert capi.library().rc_last_error().decode() == "call: expected a descriptor, got NULL"


def test_the_last_error_is_per_thread() -> None:
    from concurrent.futures import ThreadPoolExecutor

    capi.library().rc_align_cpu(None)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(capi.library().rc_last_error).result() == b""
    assert capi.library().rc_last_error() != b""


@pytest.mark.skipif(torch.cuda.is_available(), reason="says why there is none where there is none")
def test_without_cuda_the_reason_is_told() -> None:
    lib = capi.library()
    lib.rc_cuda_why_not.restype, lib.rc_cuda_available.restype = ctypes.c_char_p, ctypes.c_bool
    assert not lib.rc_cuda_available()
    assert lib.rc_cuda_why_not()
    call, keep = sound()
    assert lib.rc_align_cuda(ctypes.byref(call)) == 4  # RC_NO_CUDA
    assert lib.rc_last_error() and bool((keep[4] == 0).all())
