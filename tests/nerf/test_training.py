"""Real nerfstudio commands, from a capture that stock nerfstudio dies of to a trained, evaluated, rendered model."""

import json
import os
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch
import torchvision
from nerfstudio_commands import SMALL, nerfstudio, run_folder
from tiny_capture import edit_transforms, names, orbit, write_transforms

from mtcm_nerfstudio import decisions as decisions_file

pytestmark = pytest.mark.slow

COUNT = 24
SPOILED = {
    f"images/{names(COUNT)[0]}": "unreadable image",
    f"images/{names(COUNT)[5]}": "missing image",
    f"images/{names(COUNT)[10]}": "invalid pose",
}
FAR = f"images/{names(COUNT)[14]}"


@pytest.fixture
def spoiled_capture(tmp_path):
    """An absent image, a broken one (the first), a pose that is not a number, and one a thousand times too far."""
    capture = write_transforms(tmp_path / "capture", orbit(COUNT))
    (capture / f"images/{names(COUNT)[0]}").write_bytes(b"\xff\xd8\xff broken")
    (capture / f"images/{names(COUNT)[5]}").unlink()

    def spoil(meta):
        meta["frames"][10]["transform_matrix"][0][0] = float("nan")
        for axis in range(3):
            meta["frames"][14]["transform_matrix"][axis][3] *= 1000.0

    edit_transforms(capture, spoil)
    return capture


def scale_of(run: Path) -> float:
    return json.loads((run / "dataparser_transforms.json").read_text())["scale"]


def test_the_main_job_on_a_spoiled_capture(spoiled_capture, tmp_path):
    train = ["mtcm-nerfacto-tiny", "--pipeline.datamanager.dataparser", "mtcm", "--data", "capture", *SMALL.split()]
    output = tmp_path / "out"
    said = nerfstudio("train", *train, "--output-dir", str(output), "--timestamp", "A", folder=tmp_path)
    run = run_folder(output, "mtcm-nerfacto-tiny", "A")
    for name, reason in {**SPOILED, FAR: "pose"}.items():
        assert any(name in line and reason in line for line in said.splitlines()), (name, reason)
    own = (run / "filtered_views.json").read_text()
    assert own == (spoiled_capture / "mtcm" / "filtered_views.json").read_text()
    assert 0.1 < scale_of(run) < 1.0, "the far pose does not change the scale of the scene"

    decisions = decisions_file.read(spoiled_capture / "mtcm" / "filtered_views.json")
    for frame in decisions.kept[::2]:
        decisions = decisions.override(frame.file_path, kept=False)
    decisions_file.write(decisions, spoiled_capture / "mtcm" / "filtered_views.json")

    nerfstudio("eval", "--load-config", str(run / "config.yml"), "--output-path", "eval.json", folder=tmp_path)
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert results["psnr"] > 0 and results["ssim"] is not None

    resume = ["--load-dir", str(run / "nerfstudio_models"), "--output-dir", str(output), "--timestamp", "B"]
    assert "Done loading Nerfstudio checkpoint" in nerfstudio("train", *train, *resume, folder=tmp_path)
    resumed = run_folder(output, "mtcm-nerfacto-tiny", "B")
    for file in ("filtered_views.json", "training_views.json", "dataparser_transforms.json"):
        assert (resumed / file).read_text() == (run / file).read_text(), file

    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    view = {"camera_to_world": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0.5, 0, 0, 0, 1], "fov": 50}
    path = {"seconds": 1, "render_width": 16, "render_height": 12, "camera_path": [view]}
    (tmp_path / "path.json").write_text(json.dumps(path))
    render = ["camera-path", "--load-config", str(run / "config.yml"), "--camera-path-filename", "path.json"]
    render += ["--output-format", "images", "--output-path", "renders"]
    nerfstudio("render", *render, folder=tmp_path, PATH=f"{binaries}:{os.environ['PATH']}")
    assert list((tmp_path / "renders").iterdir())


def test_a_stock_method_over_the_mtcm_parser(spoiled_capture, tmp_path):
    weights = tmp_path / "torch" / "hub" / "checkpoints"
    weights.mkdir(parents=True)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), weights / "alexnet-owt-7be5be79.pth")
    tiny = "--machine.device-type cpu --mixed-precision False --pipeline.model.implementation torch"
    tiny += " --pipeline.model.log2-hashmap-size 10 --pipeline.model.num-nerf-samples-per-ray 8"
    tiny += " --pipeline.model.num-proposal-samples-per-ray 8 8"
    train = ["nerfacto", "--data", "capture", *SMALL.split(), *tiny.split(), "--output-dir", "out", "--timestamp", "A"]
    home = {"TORCH_HOME": str(tmp_path / "torch")}
    nerfstudio("train", *train, "mtcm", "--eval-mode", "interval", folder=tmp_path, **home)
    run = run_folder(tmp_path / "out", "nerfacto", "A")
    views = json.loads((run / "training_views.json").read_text())["splits"]
    assert FAR not in views["train"] and not SPOILED.keys() & set(views["train"] + views["val"])
    nerfstudio("eval", "--load-config", str(run / "config.yml"), "--output-path", "eval.json", folder=tmp_path, **home)
    assert "lpips" in json.loads((tmp_path / "eval.json").read_text())["results"]
