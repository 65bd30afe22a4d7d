"""torch.ops.robocache: registration, schemas, fakes, and what direct callers meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import robocache
from robocache import _fast, _ops

OPS = torch.ops.robocache


def stream(
    batch: int = 2, samples: int = 9, columns: int = 4, targets: int = 5, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    values = torch.randn(batch, samples, columns, dtype=dtype)
    times = torch.rand(batch, samples, dtype=torch.float64).sort(-1).values * samples
    return values, times, torch.rand(batch, targets, dtype=torch.float64) * samples


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(7)


def test_everything_is_registered() -> None:
    assert _ops.LOAD_ERROR is None
    assert _ops.unregistered() == []


def test_the_check_for_registration_finds_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ops, "OPS", (*_ops.OPS, "no_such_operator"))
    assert _ops.unregistered() == ["robocache::no_such_operator"]


def test_the_fast_path_is_configured() -> None:
    assert _fast.ENABLED


def test_arguments_are_numbers_never_strings() -> None:
    for name in _ops.OPS:
        schema = getattr(OPS, name).default._schema
        assert "str" not in {str(argument.type) for argument in schema.arguments}, name


# ---- opcheck ---------------------------------------------------------------------------------------------------------

RESAMPLE = ("resample_trajectories", "resample_trajectories_valid")
FUSE = ("fuse_multimodal", "fuse_multimodal_valid")
RESAMPLE_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all": {
        "kind": 4,
        "extrapolate": 2,
        "max_gap": 3.0,
        "tolerance": 1.5,
        "time_offset": 0.25,
        "lengths": torch.tensor([9, 6]),
        "rows": torch.tensor([1, 0]),
        "row_offsets": torch.tensor([0.5, -0.5], dtype=torch.float64),
        "out_dtype": torch.float64,
    },
    "columns": {"column_kinds": [0, 1, 1, 1, 4, 0]},
}


def leaves(tensors: tuple[Tensor, ...], with_grad: bool) -> list[Tensor]:
    return [tensor.clone().requires_grad_(with_grad) for tensor in tensors]


@pytest.mark.parametrize("with_grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("options", RESAMPLE_OPTIONS)
@pytest.mark.parametrize("name", RESAMPLE)
def test_opcheck_resample(name: str, options: str, with_grad: bool) -> None:
    values, times, targets = stream()
    values, targets = leaves((values, targets), with_grad)
    torch.library.opcheck(getattr(OPS, name).default, (values, times, targets), RESAMPLE_OPTIONS[options])


@pytest.mark.parametrize("with_grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("options", ["plain", "all"])
@pytest.mark.parametrize("name", FUSE)
def test_opcheck_fuse(name: str, options: str, with_grad: bool) -> None:
    values, times, targets = stream()
    first, second, targets = leaves((values, values[:, :, :2] * 2, targets), with_grad)
    more: dict[str, Any] = {}
    if options == "all":
        none = torch.empty(0, dtype=torch.int64)
        more = {
            "kinds": [0, 4],
            "extrapolate": [0, 2],
            "max_gap": [-1.0, 2.0],
            "lengths": [torch.tensor([9, 6]), none],
            "rows": [none, torch.tensor([1, 1])],
            "column_kinds": [1, 0, 1, 0, 1, 1, 2, 1],
            "out_dtype": torch.float64,
        }
    torch.library.opcheck(getattr(OPS, name).default, ([first, second], [times, times + 0.5], targets), more)


def test_opcheck_packed() -> None:
    values, times, targets = stream(1, 12)
    options = {"row_splits": torch.tensor([0, 4, 4, 12]), "rows": torch.tensor([2, 0, 2])}
    targets = targets.expand(3, -1).contiguous()
    torch.library.opcheck(OPS.resample_trajectories.default, (values[0], times[0], targets), options)


def test_opcheck_out() -> None:
    values, times, targets = stream()
    out, valid = torch.empty(2, 5, 4), torch.empty(2, 5, dtype=torch.bool)
    torch.library.opcheck(OPS.resample_trajectories_out.default, (values, times, targets), {"out": out})
    both = {"out": out, "valid": valid}
    torch.library.opcheck(OPS.resample_trajectories_valid_out.default, (values, times, targets), both)
    lists = ([values, values], [times, times], targets)
    out, valid = torch.empty(2, 5, 8), torch.empty(2, 5, 2, dtype=torch.bool)
    torch.library.opcheck(OPS.fuse_multimodal_out.default, lists, {"out": out})
    torch.library.opcheck(OPS.fuse_multimodal_valid_out.default, lists, {"out": out, "valid": valid})


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)])
def test_opcheck_backward(needs: tuple[bool, bool]) -> None:
    values, times, targets = stream()
    options = {"need_values": needs[0], "need_targets": needs[1]}
    grad = torch.randn(2, 5, 4)
    torch.library.opcheck(OPS.resample_trajectories_backward.default, (grad, values, times, targets), options)


# ---- Direct callers --------------------------------------------------------------------------------------------------


def test_operators_and_functions_agree() -> None:
    values, times, targets = stream()
    expected, mask = robocache.resample_trajectories(values, times, targets, kind="pchip", return_valid=True)
    out, valid = OPS.resample_trajectories_valid(values, times, targets, kind=4)
    assert torch.equal(out, expected)
    assert torch.equal(valid, mask)
    assert torch.equal(OPS.resample_trajectories(values, times, targets, kind=4), expected)
    filled = torch.empty(5, 2, 4).transpose(0, 1)
    assert OPS.resample_trajectories_out(values, times, targets, kind=4, out=filled) is None
    assert torch.equal(filled, expected)


def test_fuse_is_the_concatenation() -> None:
    values, times, targets = stream()
    other, clock, _ = stream(samples=6, columns=3)
    fused, mask = OPS.fuse_multimodal_valid([values, other], [times, clock], targets, kinds=[0, 2])
    first, first_mask = OPS.resample_trajectories_valid(values, times, targets)
    second, second_mask = OPS.resample_trajectories_valid(other, clock, targets, kind=2)
    assert torch.equal(fused, torch.cat([first, second], -1))
    assert torch.equal(mask, torch.stack([first_mask, second_mask], -1))


def test_one_launch_for_many_streams() -> None:
    values, times, targets = stream()
    before = robocache.launch_counts()["align_cpu"]
    OPS.fuse_multimodal([values] * 16, [times] * 16, targets)
    assert robocache.launch_counts()["align_cpu"] == before + 1


def test_out_bumps_the_version() -> None:
    values, times, targets = stream()
    out = torch.zeros(2, 5, 4)
    version = out._version
    OPS.resample_trajectories_out(values, times, targets, out=out)
    assert out._version > version
    version = out._version
    robocache.resample_trajectories(values, times, targets, out=out)
    assert out._version > version


def test_a_saved_output_that_is_overwritten_is_noticed() -> None:
    values, times, targets = stream()
    out = torch.ones(2, 5, 4)
    result = out * torch.ones(2, 5, 4, requires_grad=True)
    robocache.resample_trajectories(values, times, targets, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": torch.zeros(2, 8, dtype=torch.float64)}, r"times: expected \[B, S\] = \[2, 9\] or \[S\] = \[9\]"),
        ({"times": torch.zeros(2, 9)}, "times: expected the dtype of target_times, float64, got float32"),
        ({"values": torch.zeros(2, 9)}, r"values: expected \[B, S, D\], got \[2, 9\]"),
        ({"target_times": torch.zeros(3, 5, dtype=torch.float64)}, r"target_times: expected \[B, T\] = \[2, 5\]"),
        ({"lengths": torch.tensor([1, 2, 3])}, r"lengths: expected \[B\] = \[2\], got \[3\]"),
        ({"lengths": torch.tensor([1.0, 2.0])}, "lengths: expected int64, got float32"),
        ({"kind": 9}, "kind: expected 0 to 7, got 9"),
        ({"kind": 2**32}, "kind: expected 0 to 7"),
        ({"column_kinds": [0, 4]}, "column_kinds: expected entries of 3 numbers"),
        ({"column_kinds": [0, 3, 0]}, "expected to cover all 4 columns"),
        ({"out_dtype": torch.complex64}, "out_dtype: expected float16"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(change: dict[str, Any], message: str) -> None:
    values, times, targets = stream()
    arguments = {"values": values, "times": times, "target_times": targets, **change}
    with pytest.raises(RuntimeError, match=message):
        OPS.resample_trajectories(**arguments)


def test_a_wrong_stream_is_named() -> None:
    values, times, targets = stream()
    with pytest.raises(RuntimeError, match=r"streams\[1\].times: expected \[B, S\] = \[2, 9\]"):
        OPS.fuse_multimodal([values, values], [times, times[:, :3]], targets)
    with pytest.raises(RuntimeError, match="times: expected one entry for each of the 2 streams, got 1"):
        OPS.fuse_multimodal([values, values], [times], targets)


def test_strided_vectors_are_read_right() -> None:
    values, times, targets = stream()
    lengths = torch.tensor([9, 0, 4, 0])[::2]
    expected = OPS.resample_trajectories(values, times, targets, lengths=lengths.contiguous())
    assert torch.equal(OPS.resample_trajectories(values, times, targets, lengths=lengths), expected)


# ---- The fast path and everything that must turn it off --------------------------------------------------------------


def fast(values: Any, times: Any, targets: Any, **options: Any) -> Any:
    defaults = {
        "kind": "linear",
        "lengths": None,
        "row_splits": None,
        "rows": None,
        "extrapolate": "clamp",
        "max_gap": None,
        "tolerance": None,
        "invalid": "keep",
        "time_offset": None,
        "return_valid": False,
        "out_dtype": None,
        "out": None,
        "backend": "auto",
    }
    return _fast.resample(values, times, targets, *{**defaults, **options}.values())


def test_the_fast_path_takes_plain_tensors() -> None:
    values, times, targets = stream()
    expected = OPS.resample_trajectories(values, times, targets)
    assert torch.equal(fast(values, times, targets), expected)
    assert torch.equal(fast(values, times, targets, out_dtype=torch.float64), expected.double())
    with torch.no_grad():
        assert torch.equal(fast(values.requires_grad_(), times, targets), expected)
    with torch.inference_mode():
        assert fast(values, times, targets).is_inference()


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "cubic"},
        {"kind": [(0, "linear")]},
        {"max_gap": -1},
        {"max_gap": "3"},
        {"max_gap": float("nan")},
        {"tolerance": True},
        {"time_offset": True},
        {"time_offset": float("inf")},
        {"lengths": torch.tensor([1])},
        {"lengths": [1, 2]},
        {"rows": torch.tensor([0, 1], dtype=torch.int32)},
        {"out": torch.zeros(2, 4, 4)},
        {"out": torch.zeros(2, 5, 4, dtype=torch.int32)},
        {"out_dtype": torch.int32},
        {"out_dtype": "float32"},
        {"backend": "cuda"},
        {"backend": "torch"},
        {"return_valid": 1},
    ],
    ids=str,
)
def test_the_fast_path_leaves_unusual_calls_alone(options: dict[str, Any]) -> None:
    assert fast(*stream(), **options) is NotImplemented


def test_the_fast_path_leaves_unusual_tensors_alone() -> None:
    values, times, targets = stream()
    negated = torch.randn(2, 9, 4, dtype=torch.complex64).conj().imag
    others = [
        values.clone().requires_grad_(),
        torch.nn.Parameter(values),
        values.to("meta"),
        values.to_sparse(),
        values.to(torch.complex64),
        values[0],
        values.numpy(),
        negated,
    ]
    for other in others:
        assert fast(other, times, targets) is NotImplemented
    expected = robocache.resample_trajectories(negated.resolve_neg(), times, targets)
    assert torch.equal(robocache.resample_trajectories(negated, times, targets), expected)


def test_modes_see_the_operator() -> None:
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: list[str] = []

    class Functions(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    class Dispatches(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    values, times, targets = stream()
    for mode in (Functions(), Dispatches()):
        seen.clear()
        with mode:
            robocache.resample_trajectories(values, times, targets)
        assert any("resample_trajectories" in name for name in seen), mode


def test_a_subclass_sees_the_operator() -> None:
    seen: list[str] = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return super().__torch_function__(func, types, args, kwargs or {})

    values, times, targets = stream()
    robocache.resample_trajectories(values.as_subclass(Watched), times, targets)
    assert any("resample_trajectories" in name for name in seen)


def test_meta_tensors_give_shapes() -> None:
    values, times, targets = (tensor.to("meta") for tensor in stream())
    out, valid = robocache.resample_trajectories(values, times, targets, return_valid=True, out_dtype=torch.float16)
    assert out.is_meta
    assert out.shape == (2, 5, 4)
    assert out.dtype == torch.float16
    assert valid.shape == (2, 5)


def test_calls_do_not_leak() -> None:
    import gc
    import resource

    values, times, targets = stream()
    streams = [robocache.Stream(values, times, lengths=torch.tensor([9, 6])), robocache.Stream(values, times)]

    def work() -> None:
        robocache.resample_trajectories(values, times, targets, return_valid=True, kind=[(0, "linear"), (..., "next")])
        robocache.fuse_multimodal(streams, targets)
        OPS.resample_trajectories(values, times, targets, lengths=torch.tensor([9, 9]), column_kinds=[0, 4, 1])
        OPS.fuse_multimodal([values, values], [times, times], targets, kinds=[0, 1])
        with pytest.raises(RuntimeError):
            OPS.fuse_multimodal([values, values], [times, times[:, :3]], targets)

    for _ in range(500):
        work()
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3000):
        work()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2048  # KiB
