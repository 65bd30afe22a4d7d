"""robocache.numpy: the same functions on arrays, in a process without torch, with the same bits."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import robocache
import robocache.numpy as rn

from .backends import CPU, assert_same_bits

ROOT = Path(__file__).resolve().parent.parent


def arrays(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, 40, 5)).astype(np.float32)
    times = np.cumsum(rng.uniform(0.01, 0.2, (3, 40)), axis=1)
    targets = rng.uniform(0, 4, (3, 25))
    return values, times, targets


def test_no_torch_is_imported() -> None:
    """Not even by a call: the process refuses to import torch."""
    program = """
        import sys
        class NoTorch:
            def find_spec(self, name, path=None, target=None):
                if name == "torch" or name.startswith("torch."):
                    raise ImportError("torch is not for this process")
        sys.meta_path.insert(0, NoTorch())
        import numpy as np
        import robocache.numpy as rn
        values, times = np.array([[0.0], [10.0]], np.float32), np.array([0, 10**9], np.int64)
        out, valid = rn.resample_trajectories(values, times, np.array([250_000_000, 2 * 10**9]), return_valid=True)
        assert out.tolist() == [[2.5], [10.0]] and valid.tolist() == [True, False], (out, valid)
        streams = [rn.Stream(values, times), rn.Stream(values, times, kind="next")]
        fused = rn.fuse_multimodal(streams, np.array([5 * 10**8]))
        assert fused.tolist() == [[5.0, 10.0]], fused
        try:
            rn.resample_trajectories(values, times[::-1].copy(), times)
        except ValueError as error:
            assert "is earlier than the sample before it" in str(error)
        else:
            raise AssertionError("times that go backwards were taken")
        assert "torch" not in sys.modules
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"


def test_results_are_arrays_of_the_right_kind() -> None:
    values, times, targets = arrays()
    out, valid = rn.resample_trajectories(values, times, targets, return_valid=True)
    assert type(out) is np.ndarray and type(valid) is np.ndarray
    assert out.dtype == np.float32 and valid.dtype == np.bool_
    assert out.shape == (3, 25, 5) and valid.shape == (3, 25)
    want = CPU.resample(*(torch.from_numpy(a) for a in (values, times, targets)))
    assert_same_bits(torch.from_numpy(out), want)


def test_one_sequence_alone() -> None:
    values, times, targets = arrays()
    out = rn.resample_trajectories(values[0], times[0], targets[0])
    np.testing.assert_array_equal(out, rn.resample_trajectories(values[:1], times[:1], targets[:1])[0])
    assert out.shape == (25, 5)


@pytest.mark.parametrize(
    "layout",
    [
        lambda a: a[::-1][::-1],
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: np.flip(np.flip(a, -1).copy(), -1),  # a negative stride
    ],
    ids=["reversed twice", "fortran", "every other", "negative stride"],
)
def test_any_strides(layout) -> None:  # type: ignore[no-untyped-def]
    values, times, targets = arrays(1)
    want = rn.resample_trajectories(values, times, targets, kind="pchip")
    got = rn.resample_trajectories(layout(values), layout(times), layout(targets), kind="pchip")
    np.testing.assert_array_equal(got, want)


def test_broadcast_and_read_only_inputs() -> None:
    values, times, targets = arrays(2)
    shared = np.broadcast_to(values[:1], (3, 40, 5))
    values.flags.writeable = False
    want = rn.resample_trajectories(np.ascontiguousarray(shared), times, targets)
    np.testing.assert_array_equal(rn.resample_trajectories(shared, times, targets), want)
    assert rn.resample_trajectories(values, times, targets).shape == (3, 25, 5)


def test_out() -> None:
    values, times, targets = arrays(3)
    want = rn.resample_trajectories(values, times, targets)
    for out in (np.full((3, 25, 5), 7, np.float32), np.full((5, 25, 3), 7, np.float32).T):
        assert rn.resample_trajectories(values, times, targets, out=out) is out
        np.testing.assert_array_equal(out, want)
    locked = np.zeros((3, 25, 5), np.float32)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match=r"^out: "):
        rn.resample_trajectories(values, times, targets, out=locked)
    assert (locked == 0).all()


def test_dtypes_by_name_or_type() -> None:
    values, times, targets = arrays(4)
    for dtype in (np.float64, "float64", np.dtype("f8")):
        out = rn.resample_trajectories(values, times, targets, out_dtype=dtype)
        assert out.dtype == np.float64
        want = CPU.resample(*(torch.from_numpy(a) for a in (values, times, targets)), out_dtype=torch.float64)
        assert_same_bits(torch.from_numpy(out), want)


def test_foreign_byte_order_and_odd_addresses() -> None:
    values, times, targets = arrays(5)
    want = rn.resample_trajectories(values, times, targets)
    swapped = [a.astype(a.dtype.newbyteorder()) for a in (values, times, targets)]
    np.testing.assert_array_equal(rn.resample_trajectories(*swapped), want)
    packets = np.zeros((3, 40), dtype=[("id", "u1"), ("stamp", "f8"), ("reading", "f4", (5,))])
    packets["stamp"], packets["reading"] = times, values
    np.testing.assert_array_equal(rn.resample_trajectories(packets["reading"], packets["stamp"], targets), want)


@pytest.mark.parametrize("name", ["values", "times", "target_times"])
def test_not_an_array(name: str) -> None:
    values, times, targets = arrays(6)
    arguments = {"values": values, "times": times, "target_times": targets, name: object()}
    with pytest.raises(TypeError, match=f"^{name}: "):
        rn.resample_trajectories(**arguments)


def test_data_errors_carry_their_place() -> None:
    values, times, targets = arrays(7)
    times[2, 30] = times[2, 29] - 1
    with pytest.raises(robocache.DataError) as caught:
        rn.resample_trajectories(values, times, targets)
    assert (caught.value.fault, caught.value.row, caught.value.position) == ("time_backwards", 2, 30)


def test_a_dict_of_streams() -> None:
    values, times, targets = arrays(8)
    streams = {"a": rn.Stream(values, times), "b": rn.Stream(values[..., :2].copy(), times, kind="previous")}
    fused, valid = rn.fuse_multimodal(streams, targets, return_valid=True)
    assert fused.shape == (3, 25, 7) and valid.shape == (3, 25, 2)
    columns = robocache.fused_columns(streams)
    np.testing.assert_array_equal(fused[..., columns["a"]], rn.resample_trajectories(values, times, targets))


def test_threads_may_call_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    jobs = [arrays(seed) for seed in range(8)]
    want = [rn.resample_trajectories(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, expected in zip(pool.map(lambda job: rn.resample_trajectories(*job), jobs), want, strict=True):
                np.testing.assert_array_equal(got, expected)
