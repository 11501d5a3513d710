"""nerfstudio's checkpoints load with torch's safe loader, and nothing that carries code does."""

import pickle

import numpy as np
import pytest
import torch

import mtcm_nerfstudio.nerf.register_methods  # noqa: F401  (nerfstudio imports it before any checkpoint)


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.int64(3), np.int32(3), np.bool_(True)])
def test_numpy_scalars_load(tmp_path, number):
    torch.save({"lr": number}, tmp_path / "x.ckpt")
    assert torch.load(tmp_path / "x.ckpt", weights_only=True)["lr"] == number


@pytest.mark.parametrize("package", ["numpy.core", "numpy._core"])
def test_scalars_written_under_either_name_of_numpys_core_load(tmp_path, package):
    written = np.float64(0.5).__reduce__()[0].__module__.removesuffix(".multiarray")
    legacy = tmp_path / "y.ckpt"
    torch.save({"lr": np.float64(0.5)}, legacy, _use_new_zipfile_serialization=False)
    renamed = (f"c{name}.multiarray".encode() for name in (written, package))
    legacy.write_bytes(legacy.read_bytes().replace(*renamed))
    assert torch.load(legacy, weights_only=True)["lr"] == 0.5


def test_code_in_a_checkpoint_is_still_refused(tmp_path):
    torch.save({"run": print}, tmp_path / "x.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "x.ckpt", weights_only=True)
