"""The torch integration on a GPU: operators, gradients, compiled graphs and vmap with CUDA kernels behind them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import robocache
from robocache import _fast

from . import test_autograd, test_compile

pytestmark = pytest.mark.gpu
OPS = torch.ops.robocache


def on_gpu(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.cuda() for tensor in tensors)


def stream(batch: int = 2, samples: int = 9, targets: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(7)
    times = torch.rand(batch, samples, dtype=torch.float64).sort(-1).values * samples
    values = torch.randn(batch, samples, 4)
    values, times, at = on_gpu(values, times, torch.rand(batch, targets, dtype=torch.float64) * samples)
    return values, times, at


def launches(name: str = "align_cuda") -> int:
    return robocache.launch_counts()[name]


@pytest.mark.parametrize("with_grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize("name", ["resample_trajectories", "resample_trajectories_valid"])
def test_opcheck_resample(name: str, with_grad: bool) -> None:
    values, times, targets = stream()
    given = (values.requires_grad_(with_grad), times, targets.requires_grad_(with_grad))
    torch.library.opcheck(getattr(OPS, name).default, given, {"rows": torch.tensor([1, 0]).cuda(), "kind": 4})


@pytest.mark.parametrize("with_grad", [False, True], ids=["plain", "grad"])
def test_opcheck_fuse(with_grad: bool) -> None:
    values, times, targets = stream()
    other = (values[:, :, :2] * 2).requires_grad_(with_grad)
    values.requires_grad_(with_grad)
    torch.library.opcheck(OPS.fuse_multimodal.default, ([values, other], [times, times], targets), {"kinds": [0, 4]})


def test_opcheck_backward() -> None:
    given = (torch.randn(2, 5, 4).cuda(), *stream())
    torch.library.opcheck(OPS.resample_trajectories_backward.default, given, {"need_targets": True})


def test_every_way_in_reaches_the_kernel() -> None:
    values, times, targets = stream()
    expected = robocache.resample_trajectories(values.cpu(), times.cpu(), targets.cpu())
    assert _fast.ENABLED
    before = launches()
    results = [robocache.resample_trajectories(values, times, targets)]
    results.append(OPS.resample_trajectories(values, times, targets))
    results.append(robocache.resample_trajectories(values.clone().requires_grad_(), times, targets).detach())
    out = torch.empty(2, 5, 4, device="cuda")
    results.append(robocache.resample_trajectories(values, times, targets, out=out))
    assert launches() == before + 4
    for result in results:
        assert torch.equal(result.cpu(), expected)


def test_outputs_belong_to_the_caching_allocator() -> None:
    values, times, targets = stream()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    out = robocache.resample_trajectories(values, times, targets)
    assert torch.cuda.memory_allocated() > before
    out.record_stream(torch.cuda.Stream())
    del out
    torch.cuda.synchronize()


def test_a_mix_of_devices_is_refused() -> None:
    values, times, targets = stream()
    with pytest.raises(ValueError, match="times: expected device cuda:0"):
        robocache.resample_trajectories(values, times.cpu(), targets)
    with pytest.raises(RuntimeError, match="device"):
        OPS.resample_trajectories(values, times.cpu(), targets)


def test_synchronous_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, times, targets = stream()
    backwards = times.flip(-1).contiguous()
    monkeypatch.setenv("ROBOCACHE_CHECK", "sync")
    with pytest.raises(robocache.DataError, match="earlier than the sample before it") as caught:
        robocache.resample_trajectories(values, backwards, targets)
    assert caught.value.fault == "time_backwards"
    robocache.resample_trajectories(values, times, targets)


@pytest.mark.parametrize("form", test_autograd.FORMS)
@pytest.mark.parametrize("kind", test_autograd.KINDS)
def test_gradcheck(kind: str, form: str) -> None:
    torch.manual_seed(11)
    values, times, targets, options = test_autograd.problem(form)
    values, times, targets = on_gpu(values, times, targets)
    moved = {key: value.cuda() for key, value in options.items()}
    chosen = test_autograd.KINDS[kind]
    test_autograd.check(lambda v: test_autograd.resample(v, times, targets, kind=chosen, **moved), values)
    if kind in ("linear", "pchip"):
        test_autograd.check(lambda t: test_autograd.resample(values, times, t, kind=chosen, **moved), targets)


@pytest.mark.parametrize("form", test_autograd.FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gradients_equal_those_of_the_cpu(dtype: torch.dtype, form: str) -> None:
    torch.manual_seed(11)
    values, times, targets, options = test_autograd.problem(form)
    grads = []
    for device in ("cpu", "cuda"):
        leaf = values.detach().to(device, dtype).clone().requires_grad_()
        moved = {key: value.to(device) for key, value in options.items()}
        out = test_autograd.resample(leaf, times.to(device), targets.to(device), **moved)
        out.square().sum().backward()
        assert leaf.grad is not None
        grads.append(leaf.grad.cpu())
    torch.testing.assert_close(*grads)


def test_backward_repeats_bit_for_bit() -> None:
    torch.manual_seed(0)
    values, rows = torch.randn(3, 50, 16).cuda(), torch.randint(0, 3, (64,)).cuda()
    times, targets = on_gpu(torch.arange(50.0), torch.rand(64, 200) * 50)
    grads = []
    before = launches("align_backward_cuda")
    for _ in range(3):
        leaf = values.clone().requires_grad_()
        robocache.resample_trajectories(leaf, times, targets, rows=rows).square().sum().backward()
        grads.append(leaf.grad)
    assert launches("align_backward_cuda") == before + 3
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


@pytest.mark.parametrize("name", test_compile.FUNCTIONS)
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled(name: str, mode: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(3)

    function = test_compile.FUNCTIONS[name]
    compiled = torch.compile(function, fullgraph=True, mode=mode)
    given = on_gpu(*test_compile.inputs(2, 11, 5))
    expected = function(*given)
    for _ in range(3):  # the third call replays the graph that reduce-overhead captured
        test_compile.same(compiled(*given), expected)
    other = on_gpu(*test_compile.inputs(2, 11, 5))
    test_compile.same(compiled(*other), function(*other))


def test_vmap() -> None:
    torch.manual_seed(5)
    values, times, targets = on_gpu(torch.randn(3, 2, 8, 4), torch.arange(8.0), torch.rand(3, 5) * 8)
    out = torch.vmap(lambda v, t: robocache.resample_trajectories(v, times, t))(values, targets)
    for k in range(3):
        assert torch.equal(out[k], robocache.resample_trajectories(values[k], times, targets[k]))
