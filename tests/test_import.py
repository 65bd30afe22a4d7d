"""What importing does, in processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import robocache

PACKAGE = Path(robocache.__file__).parent


def run(code: str, path: Path | None = None, **environment: str) -> str:
    """Output of `code` in a new interpreter; its errors are in the failure's message."""
    where = str(path or PACKAGE.parent)
    env = {**os.environ, "PYTHONPATH": where, **environment}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=where, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_numpy_door_does_not_import_torch() -> None:
    run(
        "import sys, numpy as np\n"
        "import robocache.numpy as rc\n"
        "out = rc.resample_trajectories(np.zeros((1, 2, 1)), np.arange(2.0), np.array([0.5]))\n"
        "rc.fuse_multimodal([rc.Stream(np.zeros((1, 2, 1)), np.arange(2.0))], np.array([0.5]))\n"
        "assert out.shape == (1, 1, 1)\n"
        "import robocache\n"
        "robocache.Stream, robocache.fused_columns, robocache.DataError, robocache.__version__\n"
        "assert 'torch' not in sys.modules\n"
    )


USE = (
    "x = torch.ops.robocache.resample_trajectories(torch.zeros(1, 2, 1), torch.arange(2.0), torch.tensor([0.5]))\n"
    "assert x.shape == (1, 1, 1)\n"
    "from robocache import _ops\n"
    "assert _ops.LOAD_ERROR is None\n"
)


@pytest.mark.parametrize("first", ["import torch, robocache\n", "import robocache, torch\n"])
def test_operators_are_there_in_either_order(first: str) -> None:
    run(first + USE)


@pytest.mark.parametrize(
    "first", ["from torch import nn\nimport torch\n", "import torch.nn.functional\nimport torch\n"]
)
def test_operators_are_there_after_a_submodule_is_imported(first: str) -> None:
    run("import robocache\n" + first + USE)


def test_torch_keeps_its_loader() -> None:
    run(
        "import robocache, torch, importlib.machinery as m\n"
        "assert isinstance(torch.__loader__, m.SourceFileLoader), torch.__loader__\n"
        "assert torch.__spec__.loader is torch.__loader__\n"
    )


def test_importing_starts_no_cuda() -> None:
    run("import torch, robocache\nrobocache.resample_trajectories\nassert not torch.cuda.is_initialized()\n")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A copy of the package whose torch library is no library."""
    shutil.copytree(PACKAGE, tmp_path / "robocache", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "robocache" / "_torch.so").write_bytes(b"not a library")
    return tmp_path


CALL = "robocache.resample_trajectories(torch.tensor([[[0.0], [2.0]]]), torch.arange(2.0), torch.tensor([0.5])"


def test_a_library_that_does_not_load_warns_once_with_its_own_error(broken: Path) -> None:
    run(
        "import warnings, torch, robocache\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        f"    out = {CALL})\n"
        f"    {CALL})\n"
        "assert out.item() == 1.0\n"
        "assert len(caught) == 1, caught\n"
        "assert 'plain torch reference' in str(caught[0].message)\n"
        "assert '_torch.so did not load' in str(caught[0].message)\n"
        "assert 'file too short' in str(caught[0].message) or 'invalid ELF' in str(caught[0].message)\n"
        "assert robocache.show_config()['backends'] == ['torch']\n",
        broken,
    )


def test_a_named_backend_that_did_not_load_raises_with_its_own_error(broken: Path) -> None:
    out = run(
        f"import torch, robocache\ntry:\n    {CALL}, backend='cpu')\nexcept RuntimeError as error:\n    print(error)\n",
        broken,
    )
    assert "backend='cpu' cannot run" in out
    assert "_torch.so did not load" in out


def test_a_library_that_is_not_built_says_so(broken: Path) -> None:
    (broken / "robocache" / "_torch.so").unlink()
    out = run("import torch, robocache\nprint(robocache.show_config()['torch_ops_error'])\n", broken)
    assert "does not exist: the native libraries are not built" in out


def test_the_fast_path_does_without_the_exchange_table() -> None:
    run(
        "import torch\n"
        "del torch.Tensor.__dlpack_c_exchange_api__\n"
        "import robocache\n"
        "from robocache import _fast\n"
        "import robocache.align\n"
        "assert not _fast.ENABLED\n"
        f"assert {CALL}).item() == 1.0\n"
        "assert robocache.launch_counts()['align_cpu'] == 1\n"
        "assert robocache.voxelize_point_cloud(\n"
        "    torch.zeros(1, 3), voxel_size=1.0, grid_min=0.0, grid_size=1\n"
        ").all()\n"
        "assert robocache.launch_counts()['voxelize_cpu'] == 1\n"
    )


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'resample'"):
        _ = robocache.resample
    assert set(robocache.__all__) <= set(dir(robocache))
