"""Wrong calls: each names the argument, what was expected and what came, before any kernel runs."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

import robocache

V, T, X = torch.zeros(4, 100, 8), torch.arange(100.0).expand(4, 100).contiguous(), torch.zeros(4, 10)
P, PT = torch.zeros(50, 8), torch.arange(50.0)


def like(**changes: Any) -> dict[str, Any]:
    return {"values": V, "times": T, "target_times": X, **changes}


def packed(**changes: Any) -> dict[str, Any]:
    return {
        "values": P, "times": PT, "target_times": torch.zeros(2, 5), "row_splits": torch.tensor([0, 20, 50]), **changes
    }  # fmt: skip


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "times short": (like(times=T[:, :99]), ValueError, "times: expected [B, S] = [4, 100], got [4, 99]"),
    "times batch": (like(times=T[:3]), ValueError, "times: expected [B, S] = [4, 100], got [3, 100]"),
    "times shared": (
        like(times=T[0, :99]), ValueError, "times: expected [B, S] = [4, 100] or [S] = [100], got [99]"
    ),
    "times 3-D": (like(times=V), ValueError, "times: expected [B, S] = [4, 100], got [4, 100, 8]"),
    "values 4-D": (like(values=V[None]), ValueError, "values: expected [B, S, D], got [1, 4, 100, 8]"),
    "values 1-D": (like(values=V[0, 0]), ValueError, "values: expected [B, S, D], got [8]"),
    "targets batch": (like(target_times=X[:3]), ValueError, "target_times: expected [B, T] = [4, 10], got [3, 10]"),
    "targets 3-D": (like(target_times=X[None]), ValueError, "target_times: expected [B, T] or [T], got [1, 4, 10]"),
    "targets dtype": (
        like(target_times=X.half()), TypeError, "target_times: expected float32, float64 or int64, got float16"
    ),
    "times dtype": (
        like(times=T.double()), TypeError, "times: expected the dtype of target_times, float32, got float64"
    ),
    "values dtype": (
        like(values=V.to(torch.complex64)), TypeError,
        "values: expected one of float16, bfloat16, float32, float64, bool, uint8, int8, int16, int32, int64, "
        "got complex64",
    ),
    "kind unknown": (
        like(kind="cubic"), ValueError,
        "kind: expected one of 'linear', 'nearest', 'previous', 'next', 'pchip', 'slerp_xyzw', 'slerp_wxyz', 'angle', "
        "got 'cubic'",
    ),
    "kind integers": (
        like(values=V.to(torch.int32)), ValueError, "kind: int32 values take nearest, previous or next, got linear"
    ),
    "kind quaternions": (
        like(values=V[..., :6], kind="slerp_xyzw"), ValueError,
        "kind: slerp_xyzw takes whole quaternions (a multiple of 4 columns), got 6 columns",
    ),
    "kind column twice": (
        like(kind=[(slice(0, 5), "linear"), (4, "next"), (..., "linear")]), ValueError,
        "kind: column 4 is named twice",
    ),
    "kind column missing": (
        like(kind=[(slice(0, 5), "linear")]), ValueError,
        "kind: column 5 has no kind; name it, or all others by `...`",
    ),
    "kind column range": (
        like(kind=[(8, "linear"), (..., "next")]), ValueError, "kind: expected columns below 8, got 8"
    ),
    "kind type": (like(kind=3), TypeError, "kind: expected a name or a sequence of (columns, name), got int"),
    "extrapolate": (
        like(extrapolate="hold"), ValueError,
        "extrapolate: expected one of 'clamp', 'nan', 'linear', 'raise', got 'hold'",
    ),
    "invalid": (like(invalid="drop"), ValueError, "invalid: expected one of 'keep', 'nan', 'raise', got 'drop'"),
    "max_gap": (like(max_gap=-1.0), ValueError, "max_gap: expected None or a number of 0 or more, got -1.0"),
    "max_gap NaN": (like(max_gap=float("nan")), ValueError, "max_gap: expected None or a number of 0 or more, got nan"),
    "tolerance": (like(tolerance="5"), TypeError, "tolerance: expected None or a number, got str"),
    "time_offset": (like(time_offset=float("inf")), ValueError, "time_offset: expected a finite number, got inf"),
    "time_offset fraction": (
        like(times=T.long(), target_times=X.long(), time_offset=0.5), ValueError,
        "time_offset: expected a whole number that int64 holds beside int64 times, got 0.5",
    ),
    "lengths size": (
        like(lengths=torch.tensor([1, 2, 3])), ValueError, "lengths: expected [B] = [4], got [3]"
    ),
    "lengths dtype": (
        like(lengths=torch.ones(4)), TypeError, "lengths: expected an integer dtype, got float32"
    ),
    "rows 2-D": (
        like(rows=torch.zeros(2, 2, dtype=torch.int64)), ValueError, "rows: expected [B], got [2, 2]"
    ),
    "rows and targets": (
        like(rows=torch.tensor([0, 1])), ValueError, "target_times: expected [B, T] = [2, 10], got [4, 10]"
    ),
    "lengths beside splits": (
        packed(lengths=torch.tensor([20, 30])), ValueError,
        "lengths: expected None beside row_splits, which say it already",
    ),
    "splits empty": (
        packed(row_splits=torch.zeros(0, dtype=torch.int64)), ValueError,
        "row_splits: expected [R + 1], at least one offset, got [0]",
    ),
    "packed values 3-D": (
        packed(values=P[None]), ValueError, "values: expected [N, D] beside row_splits, got [1, 50, 8]"
    ),
    "packed times": (packed(times=PT[:49]), ValueError, "times: expected [N] = [50], got [49]"),
    "out shape": (
        like(out=torch.zeros(4, 10, 7)), ValueError, "out: expected [B, T, D] = [4, 10, 8], got [4, 10, 7]"
    ),
    "out dtype": (
        like(out=torch.zeros(4, 10, 8), out_dtype=torch.float64), TypeError, "out: expected float64, got float32"
    ),
    "out_dtype narrow": (
        like(values=V.to(torch.int32), kind="next", out_dtype=torch.int16), TypeError,
        "out_dtype: expected a type that holds the int32 values of values, got int16",
    ),
    "out_dtype of floats": (
        like(out_dtype=torch.int64), TypeError,
        "out_dtype: expected a type that holds the float32 values of values, got int64",
    ),
    "NaN into integers": (
        like(values=V.to(torch.int32), kind="next", extrapolate="nan"), ValueError,
        "extrapolate: NaN needs a floating out_dtype, got int32",
    ),
    "NaN into integers, invalid": (
        like(values=V.bool(), kind="next", invalid="nan"), ValueError,
        "invalid: NaN needs a floating out_dtype, got bool",
    ),
}  # fmt: skip

wrong = pytest.mark.parametrize("name", WRONG)


def still_right() -> None:
    out = robocache.resample_trajectories(torch.tensor([[0.0], [2.0]]), torch.tensor([0.0, 1.0]), torch.tensor([0.25]))
    assert out.tolist() == [[0.5]]


@wrong
@pytest.mark.parametrize("backend", ["auto", "cpu", "torch"])
def test_wrong_call(name: str, backend: str) -> None:
    arguments, kind, words = WRONG[name]
    words = words.replace("got complex64", "got torch.complex64")
    before = robocache.launch_counts()
    with pytest.raises(kind, match=f"^{re.escape(words)}$"):
        robocache.resample_trajectories(**arguments, backend=backend)
    assert robocache.launch_counts() == before
    still_right()


@wrong
def test_wrong_call_from_numpy(name: str) -> None:
    import robocache.numpy as rn

    arguments, kind, words = WRONG[name]
    converted = {}
    for key, value in arguments.items():
        if isinstance(value, torch.dtype):
            value = np.dtype(str(value).removeprefix("torch."))
        converted[key] = value.numpy() if isinstance(value, torch.Tensor) else value
    with pytest.raises(kind, match=f"^{re.escape(words)}$"):
        rn.resample_trajectories(**converted)


@pytest.mark.parametrize("name", [n for n, (given, _, _) in WRONG.items() if not {"out", "out_dtype"} & set(given)])
def test_wrong_stream_in_a_fusion(name: str) -> None:
    """The same words, with the stream's name before the argument's."""
    arguments, kind, words = WRONG[name]
    words = words.replace("got complex64", "got torch.complex64")
    arguments = dict(arguments)
    targets = arguments.pop("target_times")
    prefix = "" if words.startswith("target_times") else "streams[0]."
    with pytest.raises(kind, match=f"^{re.escape(prefix + words)}$"):
        robocache.fuse_multimodal([robocache.Stream(**arguments)], targets)


def test_a_stream_of_a_dict_is_named() -> None:
    streams = {"arm": robocache.Stream(V, T), "imu": robocache.Stream(V[:3], T[:3])}
    with pytest.raises(ValueError, match="imu") as caught:
        robocache.fuse_multimodal(streams, X)
    assert "expected the batch of the first stream, 4, got 3" in str(caught.value)
    with pytest.raises(TypeError, match="imu.*times: expected the dtype of target_times, float32, got float64"):
        robocache.fuse_multimodal({"arm": streams["arm"], "imu": robocache.Stream(V, T.double())}, X)


def test_how_many_streams() -> None:
    stream = robocache.Stream(V, T)
    with pytest.raises(ValueError, match="streams"):
        robocache.fuse_multimodal([], X)
    with pytest.raises(ValueError, match="streams.*16.*17"):
        robocache.fuse_multimodal([stream] * 17, X)


@pytest.mark.parametrize("name", ["values", "times", "target_times", "lengths", "rows", "row_splits"])
def test_no_tensor_at_all(name: str) -> None:
    arguments = packed() if name == "row_splits" else like()
    with pytest.raises(TypeError, match=f"^{name}: expected a torch.Tensor, got list$"):
        robocache.resample_trajectories(**{**arguments, name: [0, 1]})


@pytest.mark.parametrize("name", ["values", "times"])
def test_wrong_device(name: str) -> None:
    arguments = like(**{name: like()[name].to("meta")})
    with pytest.raises(ValueError, match=f"^{name}: expected device cpu \\(that of target_times\\), got meta$"):
        robocache.resample_trajectories(**arguments)
    still_right()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["values", "times", "lengths", "rows", "time_offset"])
def test_wrong_device_on_a_gpu_machine(name: str) -> None:
    arguments = like(lengths=torch.full((4,), 100), rows=torch.arange(4), time_offset=torch.zeros(4))
    moved = {key: value.cuda() for key, value in arguments.items()}
    moved[name] = arguments[name]
    with pytest.raises(ValueError, match=f"^{name}: expected device cuda:0 \\(that of target_times\\), got cpu$"):
        robocache.resample_trajectories(**moved)


def test_backends_are_strict() -> None:
    with pytest.raises(ValueError, match="^backend: 'cuda' computes cuda tensors, got tensors on cpu$"):
        robocache.resample_trajectories(**like(), backend="cuda")
    with pytest.raises(RuntimeError, match="triton"):
        robocache.resample_trajectories(**like(), backend="triton")
    with pytest.raises(
        ValueError, match="^backend: expected one of 'auto', 'cuda', 'cpu', 'torch', 'triton', got 'gpu'$"
    ):
        robocache.resample_trajectories(**like(), backend="gpu")


def test_out_is_filled_and_returned() -> None:
    values, times, targets = torch.randn(4, 100, 8), T, torch.rand(4, 10) * 99
    want = robocache.resample_trajectories(values, times, targets)
    for out in (
        torch.full((4, 10, 8), 7.0),
        torch.full((8, 10, 4), 7.0).transpose(0, 2),
        torch.zeros(4, 10, 16)[..., ::2],
    ):
        for backend in ("cpu", "torch"):
            out.fill_(7.0)
            got = robocache.resample_trajectories(values, times, targets, out=out, backend=backend)
            assert got is out
            assert torch.equal(out, want)
    fused = torch.full((4, 10, 16), 7.0)
    streams = [robocache.Stream(values, times)] * 2
    assert robocache.fuse_multimodal(streams, targets, out=fused) is fused
    assert torch.equal(fused, torch.cat([want, want], dim=-1))


def test_one_sequence_alone() -> None:
    values, times, targets = torch.randn(20, 3), torch.arange(20.0), torch.rand(7) * 19
    out, valid = robocache.resample_trajectories(values, times, targets, return_valid=True)
    batched = robocache.resample_trajectories(values[None], times, targets)
    assert out.shape == (7, 3) and valid.shape == (7,)
    assert torch.equal(out, batched[0])
    fused, mask = robocache.fuse_multimodal([robocache.Stream(values, times)] * 2, targets, return_valid=True)
    assert fused.shape == (7, 6) and mask.shape == (7, 2)
    assert torch.equal(fused, torch.cat([out, out], dim=-1))


def test_a_dict_of_streams() -> None:
    streams = {"arm": robocache.Stream(torch.randn(2, 9, 3), torch.arange(9.0)),
               "hand": robocache.Stream(torch.randn(2, 5, 4), torch.arange(5.0) * 2)}  # fmt: skip
    targets = torch.rand(2, 6) * 8
    fused = robocache.fuse_multimodal(streams, targets)
    columns = robocache.fused_columns(streams)
    assert columns == {"arm": slice(0, 3), "hand": slice(3, 7)}
    for name, stream in streams.items():
        alone = robocache.resample_trajectories(stream.values, stream.times, targets)
        assert torch.equal(fused[..., columns[name]], alone)
