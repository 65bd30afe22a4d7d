"""The ways to compute one voxel call: public functions by backend, NumPy and C doors. Results are dicts by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from . import voxel_capi, voxel_oracle, voxel_oracle_rows
from .backends import NUMPY_DTYPES, assert_same_bits

COUNTERS = {"dense": "voxelize", "depth": "voxelize", "sparse": "voxelize_sparse", "devoxelize": "devoxelize"}
CUDA_WAYS = ("shared_bits", "global", "partition", "sort")
DEVICES = {"cpu": "cpu", "c": "cpu", "numpy": "cpu", "cuda": "cuda"}


@dataclass
class Call:
    """One call of the family: `given` as positional arguments, `options` as keyword arguments."""

    op: str  # dense, sparse, depth or devoxelize
    given: tuple[torch.Tensor | None, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def dtypes(self) -> set[Any]:
        asked = self.options.get("out_dtype")
        named = set(asked.values()) if isinstance(asked, dict) else {asked}
        return named | {t.dtype for t in self.given if t is not None}

    def __repr__(self) -> str:
        shapes = [None if t is None else (tuple(t.shape), t.dtype) for t in self.given]
        return f"Call({self.op}, {shapes}, {self.options}, first {self.given[0]})"


def oracle(call: Call) -> dict[str, torch.Tensor]:
    if call.op == "devoxelize":
        return {"out": voxel_oracle_rows.devoxelize(*call.given, **call.options)}
    if call.op == "sparse":
        return held_counts(voxel_oracle_rows.sparse(*call.given, **call.options), call.options)
    return (voxel_oracle.dense if call.op == "dense" else voxel_oracle.depth)(*call.given, **call.options)


def held_counts(results: dict[str, torch.Tensor], options: dict[str, Any]) -> dict[str, torch.Tensor]:
    """As the public functions tell them: points that a hard voxel holds, not all that lie there."""
    if options.get("max_points"):
        results["counts"] = results["counts"].clamp(max=options["max_points"])
    return results


def dense_results(result: Any, options: dict[str, Any]) -> dict[str, Any]:
    """What a dense function returned, by name."""
    extras = [name for name in ("counts", "inverse", "dropped") if options.get(f"return_{name}")]
    assert isinstance(result, tuple) == bool(extras), type(result)
    grid, *rest = result if extras else (result,)
    assert len(rest) == len(extras)
    names = options.get("reduce", "occupancy")
    grids = {names: grid} if isinstance(names, str) else grid
    assert isinstance(grids, dict) and list(grids) == ([names] if isinstance(names, str) else list(names))
    return {**grids, **dict(zip(extras, rest, strict=True))}


def sparse_results(result: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The named tuple by name: features under their reduction's name, or "gathered"."""
    assert result._fields == ("coords", "features", "counts", "num_voxels", "inverse")
    named = {name: getattr(result, name) for name in ("coords", "counts", "num_voxels", "inverse")}
    if isinstance(result.features, dict):
        return {**named, **result.features}
    if result.features is None:
        return named
    return {**named, "gathered" if options.get("max_points") else options.get("reduce") or "mean": result.features}


def move(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """To the device with the strides, and as odd an address, kept."""
    if device == "cpu" or tensor.device.type == device:
        return tensor
    extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    odd = tensor.storage_offset() % 16
    flat = torch.empty(odd + extent, dtype=tensor.dtype, device=device)
    flat[odd:].copy_(torch.as_strided(tensor, (extent,), (1,)))
    return torch.as_strided(flat, tensor.shape, tensor.stride(), odd)


@dataclass(frozen=True)
class VoxelBackend:
    """`backend` of the public functions (or the door: "c", "numpy"), and the device whose tensors it is given."""

    name: str
    device: str

    def put(self, value: Any) -> Any:
        return move(value, self.device) if isinstance(value, torch.Tensor) else value

    def run(self, call: Call) -> dict[str, torch.Tensor]:
        """Host tensors by name; the launch counters tell that the kernel ran, once."""
        import robocache

        given, options = self.arguments(call)
        before = robocache.launch_counts()
        if self.name == "c":
            result = self._c(call.op, given, options)
        else:
            result = self._public(call, given, options)
        if self.device == "cuda":
            robocache.check()
        after = robocache.launch_counts()
        plain = {k: torch.from_numpy(v) if isinstance(v, (np.ndarray, np.generic)) else v for k, v in result.items()}
        idle = all(tensor.numel() == 0 for tensor in plain.values())
        self.check_launches(call, {name: after[name] - before[name] for name in after}, idle)
        return {name: tensor.detach().cpu() for name, tensor in plain.items()}

    def arguments(self, call: Call) -> tuple[list[Any], dict[str, Any]]:
        """The call's arguments as this backend takes them."""
        if self.name != "numpy":
            return [self.put(t) for t in call.given], {k: self.put(v) for k, v in call.options.items()}

        def plain(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value.detach().numpy()
            if isinstance(value, dict):
                return {name: plain(one) for name, one in value.items()}
            return NUMPY_DTYPES[value] if isinstance(value, torch.dtype) else value

        return [plain(t) for t in call.given], {k: plain(v) for k, v in call.options.items()}

    def check_launches(self, call: Call, rose: dict[str, int], idle: bool) -> None:
        kernel = COUNTERS[call.op]
        own = f"{kernel}_{DEVICES[self.name]}" if self.name in DEVICES else None
        if self.name == "c" and self.device == "cuda":
            own = f"{kernel}_cuda"
        ways = {f"voxelize_{way}_cuda" for way in CUDA_WAYS}
        others = {name: count for name, count in rose.items() if count and name not in ways and name != own}
        assert not others, f"{self}: {others} ran"
        if own is not None:
            points = call.given[1 if call.op == "devoxelize" else 0]
            assert points is not None
            none = idle or points.numel() == 0  # nothing to read or nothing to write
            assert rose[own] == 1 or (rose[own] == 0 and none), f"{self}: {own} rose by {rose[own]}"
        assert sum(rose[way] for way in ways) == rose["voxelize_cuda"], rose

    def _public(self, call: Call, given: list[Any], options: dict[str, Any]) -> dict[str, Any]:
        if self.name == "numpy":
            import robocache.numpy as door
        else:
            import robocache as door  # type: ignore[no-redef]

            options["backend"] = self.name
        if call.op == "devoxelize":
            return {"out": door.devoxelize(*given, **options)}
        if call.op == "sparse":
            return sparse_results(door.voxelize_point_cloud_sparse(*given, **options), options)
        function = door.voxelize_point_cloud if call.op == "dense" else door.voxelize_depth
        return dense_results(function(*given, **options), options)

    def _c(self, op: str, given: list[Any], options: dict[str, Any]) -> dict[str, Any]:
        if op == "devoxelize":
            return {"out": voxel_capi.devoxelize(*given, **options)}
        if op == "sparse":
            return held_counts(voxel_capi.voxelize_sparse(*given, **options), options)
        options = {"return_inverse": False, "return_dropped": False, **options}
        return (voxel_capi.voxelize if op == "dense" else voxel_capi.voxelize_depth)(*given, **options)

    def takes(self, call: Call) -> bool:
        """False where a dtype is one that this door cannot say (NumPy has no bfloat16)."""
        return self.name != "numpy" or torch.bfloat16 not in call.dtypes


CPU = VoxelBackend("cpu", "cpu")
TORCH = VoxelBackend("torch", "cpu")
CUDA = VoxelBackend("cuda", "cuda")
TORCH_ON_CUDA = VoxelBackend("torch", "cuda")
C_API = VoxelBackend("c", "cpu")
C_ON_CUDA = VoxelBackend("c", "cuda")
NUMPY = VoxelBackend("numpy", "cpu")

HOST = [
    pytest.param(CPU, id="cpu"),
    pytest.param(TORCH, id="torch"),
    pytest.param(C_API, id="c"),
    pytest.param(NUMPY, id="numpy"),
]
DEVICE = [
    pytest.param(CUDA, id="cuda", marks=pytest.mark.gpu),
    pytest.param(C_ON_CUDA, id="c-on-cuda", marks=pytest.mark.gpu),
    pytest.param(TORCH_ON_CUDA, id="torch-on-cuda", marks=pytest.mark.gpu),
]
NATIVE = [HOST[0], DEVICE[0]]
C_DOORS = [HOST[2], DEVICE[1]]
PUBLIC = [HOST[0], HOST[1], DEVICE[0], DEVICE[2]]

every_backend = pytest.mark.parametrize("backend", [*HOST, *DEVICE])
native_backend = pytest.mark.parametrize("backend", NATIVE)
c_backend = pytest.mark.parametrize("backend", C_DOORS)
public_backend = pytest.mark.parametrize("backend", PUBLIC)


def compare(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor], what: str = "") -> None:
    """Everything that came is as expected, to the bit."""
    assert got
    for name, tensor in got.items():
        assert_same_bits(tensor, want[name], f"{what} {name}")


def agrees_with_oracle(backend: VoxelBackend, call: Call) -> dict[str, torch.Tensor]:
    got = backend.run(call)
    compare(got, oracle(call), str(backend))
    return got
