"""LPIPS where its weights are, and training without it where they are not."""

import socket

import pytest
import torch
import torchvision
from nerfstudio.data.scene_box import SceneBox

from mtcm_nerfstudio.nerf.model import MTCMNerfactoModel
from mtcm_nerfstudio.nerf.register_methods import mtcm_nerfacto_tiny


def build() -> MTCMNerfactoModel:
    box = SceneBox(aabb=torch.tensor([[-1.0, -1, -1], [1, 1, 1]]))
    return mtcm_nerfacto_tiny.config.pipeline.model.setup(scene_box=box, num_train_data=2, metadata={}, device="cpu")


def metrics_of(model: MTCMNerfactoModel) -> dict:
    image = torch.rand(64, 64, 3)
    outputs = {"rgb": torch.rand(64, 64, 3), "accumulation": torch.ones(64, 64, 1), "depth": torch.ones(64, 64, 1)}
    outputs |= {f"prop_depth_{i}": torch.ones(64, 64, 1) for i in range(2)}
    return model.get_image_metrics_and_images(outputs, {"image": image})[0]


def no_internet(*args, **kwargs):
    raise socket.gaierror(-2, "Name or service not known")


def test_without_its_weights_lpips_is_absent_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", no_internet)
    model = build()
    said = [line for line in capsys.readouterr().out.splitlines() if "LPIPS" in line]
    assert len(said) == 1 and said[0].startswith("LPIPS is absent")
    assert metrics_of(model).keys() == {"psnr", "ssim"}
    assert socket.getdefaulttimeout() is None


def test_any_other_failure_to_build_is_not_taken_for_missing_weights(monkeypatch):
    def broken(self):
        raise OSError("disk full")

    monkeypatch.setattr("nerfstudio.models.nerfacto.NerfactoModel.populate_modules", broken)
    with pytest.raises(OSError, match="disk full"):
        build()


@pytest.mark.slow
def test_with_its_weights_lpips_is_reported(random_alexnet):
    assert metrics_of(build()).keys() == {"psnr", "ssim", "lpips"}


@pytest.fixture
def random_alexnet(tmp_path, monkeypatch):
    """Weights under TORCH_HOME, random ones."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), folder / "alexnet-owt-7be5be79.pth")
