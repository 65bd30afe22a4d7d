"""The ways to compute one call (public functions by backend, NumPy and C doors), and comparison to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.align import ulps


@dataclass(frozen=True)
class Backend:
    """`backend` of the public functions (or the door: "c", "numpy"), and the device whose tensors it is given."""

    name: str
    device: str

    @property
    def counter(self) -> str | None:
        """The launch counter that a call must raise, where the kernel is native."""
        return {"cpu": "align_cpu", "c": "align_cpu", "numpy": "align_cpu", "cuda": "align_cuda"}.get(self.name)

    def put(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return _move(value, self.device)
        return value

    def _run(self, function: Any) -> Any:
        import robocache

        before = robocache.launch_counts()
        result = function()
        if self.device == "cuda":
            robocache.check()
        after = robocache.launch_counts()
        out = result[0] if isinstance(result, tuple) else result
        for counter in ("align_cpu", "align_cuda"):
            rose = after[counter] - before[counter]
            expected = 1 if counter == self.counter else 0
            if out.size if isinstance(out, np.ndarray) else out.numel():
                assert rose == expected, f"{self}: {counter} rose by {rose}, expected {expected}"
            else:
                assert rose <= expected, f"{self}: {counter} rose by {rose} for an empty result"
        return result

    def resample(self, values: torch.Tensor, times: torch.Tensor, targets: torch.Tensor, **options: Any) -> Any:
        """The public function on this backend's device; host tensors as they came out of it."""
        if self.name == "c":
            return self._c([{"values": values, "times": times, **options}], targets)
        if self.name == "numpy":
            return self._numpy([{"values": values, "times": times, **options}], targets, single=True)
        import robocache

        given = [self.put(t) for t in (values, times, targets)]
        moved = {key: self.put(value) for key, value in options.items()}
        return self._run(lambda: robocache.resample_trajectories(*given, backend=self.name, **moved))

    def fuse(self, streams: list[dict[str, Any]], targets: torch.Tensor, **options: Any) -> Any:
        """Likewise for several streams, given as keyword arguments of `robocache.Stream`."""
        if self.name == "c":
            return self._c(streams, targets, fused=True, **options)
        if self.name == "numpy":
            return self._numpy(streams, targets, single=False, **options)
        import robocache

        moved = [robocache.Stream(**{key: self.put(value) for key, value in stream.items()}) for stream in streams]
        at = self.put(targets)
        return self._run(lambda: robocache.fuse_multimodal(moved, at, backend=self.name, **options))

    def _c(
        self,
        streams: list[dict[str, Any]],
        targets: torch.Tensor,
        fused: bool = False,
        return_valid: bool = False,
        out_dtype: torch.dtype | None = None,
    ) -> Any:
        from . import capi

        streams = [dict(stream) for stream in streams]
        for stream in streams if not fused else ():
            return_valid = stream.pop("return_valid", return_valid)
            out_dtype = stream.pop("out_dtype", out_dtype)
        out, valid = self._run(lambda: capi.align(streams, targets, out_dtype))
        valid = valid.bool() if fused else valid[..., 0].bool()
        return (out, valid) if return_valid else out

    def _numpy(self, streams: list[dict[str, Any]], targets: torch.Tensor, single: bool, **options: Any) -> Any:
        import robocache.numpy as rn

        def plain(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value.numpy()
            return NUMPY_DTYPES[value] if isinstance(value, torch.dtype) else value

        given = [{key: plain(value) for key, value in stream.items()} for stream in streams]
        options = {key: plain(value) for key, value in options.items()}
        if single:
            values, times = given[0].pop("values"), given[0].pop("times")
            result = self._run(lambda: rn.resample_trajectories(values, times, targets.numpy(), **given[0]))
        else:
            moved = [rn.Stream(**stream) for stream in given]
            result = self._run(lambda: rn.fuse_multimodal(moved, targets.numpy(), **options))
        if isinstance(result, tuple):
            return tuple(torch.from_numpy(array) for array in result)
        return torch.from_numpy(result)

    def needs_torch_dtype(self, *dtypes: torch.dtype) -> bool:
        """True where a dtype is one that this door cannot say (NumPy has no bfloat16)."""
        return self.name == "numpy" and torch.bfloat16 in dtypes


NUMPY_DTYPES = {
    torch.float16: np.float16,
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.bool: np.bool_,
    torch.uint8: np.uint8,
    torch.int8: np.int8,
    torch.int16: np.int16,
    torch.int32: np.int32,
    torch.int64: np.int64,
}


def _move(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """To the device with the strides kept."""
    if device == "cpu" or tensor.device.type == device:
        return tensor
    extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    flat = torch.as_strided(tensor, (extent,), (1,)).to(device)
    return torch.as_strided(flat, tensor.shape, tensor.stride())


CPU = Backend("cpu", "cpu")
TORCH = Backend("torch", "cpu")
CUDA = Backend("cuda", "cuda")
TORCH_ON_CUDA = Backend("torch", "cuda")

C_API = Backend("c", "cpu")
NUMPY = Backend("numpy", "cpu")

HOST = [
    pytest.param(CPU, id="cpu"),
    pytest.param(TORCH, id="torch"),
    pytest.param(C_API, id="c"),
    pytest.param(NUMPY, id="numpy"),
]
DEVICE = [
    pytest.param(CUDA, id="cuda", marks=pytest.mark.gpu),
    pytest.param(TORCH_ON_CUDA, id="torch-on-cuda", marks=pytest.mark.gpu),
]
NATIVE = [HOST[0], DEVICE[0]]

every_backend = pytest.mark.parametrize("backend", [*HOST, *DEVICE])
native_backend = pytest.mark.parametrize("backend", NATIVE)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bit patterns, with every NaN made one."""
    if not tensor.dtype.is_floating_point:
        return tensor
    plain = torch.where(torch.isnan(tensor), torch.full_like(tensor, torch.nan), tensor)
    return plain.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def assert_same_bits(got: torch.Tensor, want: torch.Tensor, what: str = "") -> None:
    """Equal shapes, dtypes and bits; NaN equals NaN."""
    got, want = got.detach().cpu(), want.detach().cpu()
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    assert got.dtype == want.dtype, f"{what}: dtype {got.dtype}, expected {want.dtype}"
    same = bits(got) == bits(want)
    if not bool(same.all()):
        at = tuple(int(i) for i in (~same).nonzero()[0])
        raise AssertionError(
            f"{what}: {int((~same).sum())} of {same.numel()} elements differ, first at {at}: "
            f"got {got[at].item()!r}, expected {want[at].item()!r}"
        )


def assert_within_ulps(got: torch.Tensor, want: torch.Tensor, limit: float, what: str = "") -> None:
    """No further than `limit` units in the last place (of float32, or of a half type)."""
    distance = ulps(got.detach().cpu(), want.detach().cpu())
    assert distance <= limit, f"{what}: {distance} ulp, at most {limit} allowed"
