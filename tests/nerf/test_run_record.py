"""What a training run keeps, and that the run is opened by it whatever happens to the capture afterwards."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from deciding import decide, frame_names, open_ours
from nerfstudio.cameras.camera_paths import get_path_from_json
from tiny_capture import FOCAL, HEIGHT, WIDTH, edit_transforms, names, orbit, write_colmap, write_transforms

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.nerf.dataparser.run_record import read_training_views, resumed_decisions
from mtcm_nerfstudio.nerf.register_methods import mtcm_nerfacto_tiny

COUNT = 24
IN_TRANSFORMS = [f"images/{name}" for name in names(COUNT)]
RUN_FILES = {"filtered_views.json", "training_views.json", "dataparser_transforms.json"}


@pytest.fixture
def capture(tmp_path):
    return write_transforms(tmp_path / "capture", orbit(COUNT))


def start_run(parser, run: Path):
    """What nerfstudio does with a dataparser between its making and the first step of training."""
    outputs = {split: parser.get_dataparser_outputs(split) for split in ("train", "val")}
    outputs["train"].save_dataparser_transform(run / "dataparser_transforms.json")
    return outputs


def same_views(one, other):
    assert one.image_filenames == other.image_filenames
    assert torch.equal(one.cameras.camera_to_worlds, other.cameras.camera_to_worlds)
    assert one.dataparser_scale == other.dataparser_scale


@pytest.mark.parametrize("layout", ["transforms", "colmap"])
def test_a_run_is_opened_with_the_decisions_it_was_trained_on(tmp_path, layout):
    write = write_transforms if layout == "transforms" else write_colmap
    capture = write(tmp_path / "capture", orbit(COUNT))
    decisions = decide(tmp_path / "d.json", IN_TRANSFORMS, {IN_TRANSFORMS[3]: "blur"})
    trained = start_run(open_ours(capture, decisions), tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES
    assert (tmp_path / "run" / "filtered_views.json").read_text() == decisions.read_text()

    decide(decisions, IN_TRANSFORMS, dict.fromkeys(IN_TRANSFORMS[:12], "manual"))
    (capture / IN_TRANSFORMS[5]).unlink()
    reopened = open_ours(capture, tmp_path / "run" / "filtered_views.json")
    for split in ("train", "val"):
        same_views(reopened.get_dataparser_outputs(split), trained[split])
    assert frame_names(reopened.get_dataparser_outputs("test")) == frame_names(trained["val"])


def test_frames_that_the_capture_gains_after_training_change_nothing(capture, tmp_path):
    decisions = decide(tmp_path / "d.json", IN_TRANSFORMS)
    trained = start_run(open_ours(capture, decisions), tmp_path / "run")
    edit_transforms(capture, lambda meta: meta["frames"].append({**meta["frames"][0], "file_path": "images/new.jpg"}))
    reopened = open_ours(capture, tmp_path / "run" / "filtered_views.json")
    for split in ("train", "val"):
        same_views(reopened.get_dataparser_outputs(split), trained[split])


def test_rendering_opens_no_image(capture, tmp_path):
    """nerfstudio renders with ``downscale_factor`` 1; the images may be gone by then."""
    trained = start_run(open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS)), tmp_path / "run")
    for path in (capture / "images").iterdir():
        path.unlink()
    reopened = open_ours(capture, tmp_path / "run" / "filtered_views.json")
    reopened.downscale_factor = 1
    same_views(reopened.get_dataparser_outputs("train"), trained["train"])


def test_the_config_of_a_run_names_its_own_decisions(capture, tmp_path):
    decisions = decide(tmp_path / "d.json", IN_TRANSFORMS)
    config = replace(mtcm_nerfacto_tiny.config, data=capture, output_dir=tmp_path / "out", timestamp="now")
    config.pipeline = replace(config.pipeline, datamanager=replace(config.pipeline.datamanager, data=capture))
    config.save_config()
    run = config.get_base_dir()
    before = (run / "config.yml").read_text()
    start_run(open_ours(capture, decisions), run)
    loaded = yaml.load((run / "config.yml").read_text(), Loader=yaml.Loader)
    assert loaded.pipeline.datamanager.dataparser.decisions == run / "filtered_views.json"
    loaded.pipeline.datamanager.dataparser.decisions = None
    loaded.pipeline.datamanager.decisions = None
    assert yaml.dump(loaded) == before, "nothing else changes"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--load-dir", "run/nerfstudio_models"],
        ["nerfacto", "--load-dir=run/nerfstudio_models", "mtcm"],
        ["--load_dir", "run/nerfstudio_models"],
        ["--load-checkpoint", "run/nerfstudio_models/step-000000009.ckpt", "--data", "x"],
    ],
    ids=" ".join,
)
def test_resuming_finds_the_decisions_of_the_run(capture, tmp_path, monkeypatch, arguments):
    decisions = decide(tmp_path / "d.json", IN_TRANSFORMS, {IN_TRANSFORMS[3]: "blur"})
    trained = start_run(open_ours(capture, decisions), tmp_path / "run")
    decide(capture / "mtcm" / "filtered_views.json", IN_TRANSFORMS, dict.fromkeys(IN_TRANSFORMS[:12], "manual"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ns-train", *arguments])
    same_views(open_ours(capture).get_dataparser_outputs("train"), trained["train"])


@pytest.mark.parametrize("arguments", [[], ["--load-dir"], ["--load-dir", "nowhere"], ["--load-direct", "run"]])
def test_a_command_that_resumes_nothing_of_ours_finds_nothing(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resumed_decisions(arguments) is None


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "training_views.json").write_text('{"schema_version": 7, "splits": {}}')
    with pytest.raises(ValueError, match=r"training_views\.json: .*schema_version is 7"):
        read_training_views(tmp_path)


@pytest.mark.parametrize("layout", ["transforms", "colmap"])
def test_suggested_views_are_cameras_and_a_camera_path_in_the_scene(tmp_path, layout):
    """A view suggested where a training frame stands must come out where that frame's camera does."""
    write = write_transforms if layout == "transforms" else write_colmap
    capture = write(tmp_path / "capture", orbit(COUNT))
    if layout == "transforms":
        applied = {"applied_transform": [[0, 1, 0, 0], [1, 0, 0, 0.5], [0, 0, -1, 0]], "applied_scale": 0.5}
        edit_transforms(capture, lambda meta: meta.update(applied))
    suggested = orbit(COUNT)[[0, 10]]
    decisions = decide(tmp_path / "d.json", IN_TRANSFORMS, suggested=suggested)
    train = start_run(open_ours(capture, decisions, eval_mode="all"), tmp_path / "run")["train"]
    at = [frame_names(train).index(names(COUNT)[i]) for i in (0, 10)]
    cameras = train.metadata["suggested_cameras"]
    assert torch.allclose(cameras.camera_to_worlds, train.cameras.camera_to_worlds[at], atol=1e-5)
    path = json.loads((tmp_path / "run" / "suggested_poses.json").read_text())
    rendered = get_path_from_json(path)
    assert torch.allclose(rendered.camera_to_worlds, cameras.camera_to_worlds, atol=1e-6)
    np.testing.assert_allclose(rendered.fx, FOCAL, rtol=1e-5)
    assert (path["render_width"], path["render_height"], path["seconds"]) == (WIDTH, HEIGHT, 2.0)


def test_without_suggestions_there_is_no_camera_path(capture, tmp_path):
    outputs = start_run(open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS)), tmp_path / "run")
    assert not (tmp_path / "run" / "suggested_poses.json").exists()
    assert "suggested_cameras" not in outputs["train"].metadata


def test_a_decisions_file_alone_is_used_as_it_is(capture, tmp_path):
    decisions = decide(tmp_path / "d.json", IN_TRANSFORMS, {IN_TRANSFORMS[3]: "manual"})
    assert "frame_4.jpg" not in frame_names(open_ours(capture, decisions).get_dataparser_outputs("train"))
    assert decisions_file.read(decisions).dropped
    assert not (capture / "mtcm").exists()
