"""A person's word while a NeRF trains: heard from the file, counted at once, or said to need another run."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import viser
from deciding import decide
from joint_run import FILES, stock_pipeline, tiny_config, train

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.nerf import pipeline as pipeline_module
from mtcm_nerfstudio.nerf.manual_decisions import ManualDecisions
from mtcm_nerfstudio.nerf.viewer_panel import to_nerfstudio_viewer

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def file(capture: Path) -> Path:
    return decide(capture / "mtcm" / decisions_file.FILE_NAME, FILES, {FILES[2]: "blur"})


def say(file: Path, name: str, kept: bool) -> None:
    decisions_file.write(decisions_file.read(file).override(name, kept), file)


def heard(word: ManualDecisions) -> list[str]:
    word._last = 0.0  # as if a second had passed
    return word.poll()


def test_a_frame_that_a_person_drops_counts_for_nothing_until_it_is_kept_again(file):
    trained = tuple(FILES[i] for i in (0, 1, 3))
    word = ManualDecisions(file, trained, decisions_file.read(file))
    assert heard(word) == [] and not word.active
    say(file, FILES[1], False)
    assert heard(word) == [f"MTCM: {FILES[1]} no longer counts in this training"]
    assert word.weights(torch.tensor([0.5, 0.5, 0.5])).tolist() == [0.5, 0.0, 0.5]
    assert heard(word) == []
    say(file, FILES[1], True)
    assert heard(word) == [f"MTCM: {FILES[1]} counts again in this training"]
    assert word.weights(torch.tensor([0.5, 0.5, 0.5])).tolist() == [0.5, 1.0, 0.5]


def test_what_was_decided_before_the_run_is_no_news(file):
    say(file, FILES[1], True)
    word = ManualDecisions(file, tuple(FILES[:2]), decisions_file.read(file))
    say(file, FILES[0], False)
    heard(word)
    assert word.overrides.isfinite().tolist() == [True, False]


def test_what_was_kept_before_a_weighted_run_counts_in_full_until_it_is_taken_back(file):
    say(file, FILES[1], True)
    word = ManualDecisions(file, tuple(FILES[:2]), decisions_file.read(file), weighted=True)
    assert heard(word) == [] and word.active
    assert word.weights(torch.tensor([0.5, 0.01])).tolist() == [0.5, 1.0]
    say(file, FILES[1], False)
    assert heard(word) == [f"MTCM: {FILES[1]} no longer counts in this training"]
    say(file, FILES[1], True)
    assert heard(word) == [f"MTCM: {FILES[1]} counts again in this training"]
    assert word.weights(torch.tensor([0.5, 0.01])).tolist() == [0.5, 1.0]


def test_a_frame_that_is_not_in_the_run_has_to_wait_and_that_is_said_once(file):
    word = ManualDecisions(file, (FILES[0],), decisions_file.read(file))
    say(file, FILES[2], True)
    assert heard(word) == [f"MTCM: {FILES[2]} is kept from the next run on: start training again to use it"]
    say(file, FILES[3], True)  # an evaluation frame, which the filter kept
    assert heard(word) == []


def test_what_was_said_between_a_run_and_its_resumption_is_heard(file):
    begun = decisions_file.read(file)
    say(file, FILES[0], False)
    word = ManualDecisions(file, tuple(FILES[:2]), begun)
    assert heard(word) == [f"MTCM: {FILES[0]} no longer counts in this training"]


def test_a_word_that_is_taken_back_no_longer_holds(file):
    say(file, FILES[2], True)  # the filter had dropped it
    word = ManualDecisions(file, tuple(FILES[:3]), decisions_file.read(file))
    assert heard(word) == []
    decide(file, FILES, {FILES[2]: "blur"})
    assert heard(word) == [f"MTCM: {FILES[2]} no longer counts in this training"]


def test_a_keep_that_is_taken_back_leaves_the_weight_to_the_transformer(file):
    word = ManualDecisions(file, tuple(FILES[:3]), decisions_file.read(file), weighted=True)
    say(file, FILES[0], True)
    heard(word)
    decide(file, FILES, {FILES[2]: "blur"})
    assert heard(word) == [f"MTCM: {FILES[0]} is for the transformer to weigh again in this training"]


def test_a_file_that_is_gone_or_damaged_changes_nothing(file):
    word = ManualDecisions(file, (FILES[0],), decisions_file.read(file))
    file.write_text("{")
    assert "MTCM:" in heard(word)[0] and not word.active
    file.unlink()
    assert heard(word) == []


@pytest.mark.parametrize("joint", [False, True])
def test_a_run_takes_a_persons_word_up(capture, file, tmp_path, monkeypatch, joint):
    seen = []
    real = pipeline_module.weighted

    def noting(model, frames, weights, losses):
        seen.append((frames, weights))
        return real(model, frames, weights, losses)

    monkeypatch.setattr(pipeline_module, "weighted", noting)
    config = tiny_config(capture, file, enabled=joint, start=100)
    pipeline = config.pipeline.setup(device="cpu", test_mode="val")
    pipeline._trains_in = tmp_path
    pipeline.train()
    pipeline.get_train_loss_dict(0)
    trained = pipeline.datamanager.dataparser.training_frames().names
    say(file, trained[0], False)
    pipeline._manual_decisions._last = 0.0
    seen.clear()
    for step in range(1, 6):
        _, losses, _ = pipeline.get_train_loss_dict(step)
        assert torch.isfinite(sum(losses.values()))
    frames = torch.cat([one for one, _ in seen])
    weights = torch.cat([one for _, one in seen])
    assert (weights[frames == 0] == 0).all() and (frames == 0).any() and (weights[frames != 0] > 0).all()


def test_as_long_as_nobody_says_anything_training_is_stock(capture, file, tmp_path):
    config = tiny_config(capture, file, enabled=False)
    ours, _ = train(config, 1)
    stock, _ = train(config, 1, stock_pipeline(config))
    ours._trains_in = tmp_path
    for step in (1, 2):
        torch.manual_seed(step)
        first = ours.get_train_loss_dict(step)[1]
        torch.manual_seed(step)
        second = stock.get_train_loss_dict(step)[1]
        assert {name: float(value) for name, value in first.items()} == {n: float(v) for n, v in second.items()}


def test_the_panel_stands_the_cameras_where_nerfstudio_trains_them(capture, file):
    config = tiny_config(capture, file, enabled=False)
    pipeline = config.pipeline.setup(device="cpu", test_mode="val")
    parser = pipeline.datamanager.dataparser
    names_of = parser.training_frames().names
    claimed = np.stack([frame.c2w for frame in parser.capture.frames if frame.file_path in names_of])
    placed = to_nerfstudio_viewer(parser)(claimed.astype(np.float64))
    cameras = pipeline.datamanager.train_dataset.cameras.camera_to_worlds.double().numpy()
    order = [names_of.index(frame.file_path) for frame in parser.capture.frames if frame.file_path in names_of]
    np.testing.assert_allclose(placed[:, :3, :3], cameras[order][:, :, :3], atol=1e-5)
    np.testing.assert_allclose(placed[:, :3, 3] / 10.0, cameras[order][:, :, 3], atol=1e-5)


def test_nerfstudios_viewer_finds_the_panel_and_the_panel_says_what_training_does(capture, file, tmp_path):
    from nerfstudio.viewer.utils import parse_object
    from nerfstudio.viewer.viewer_elements import ViewerControl

    pipeline, _ = train(tiny_config(capture, file, start=1, every=1), 4)
    pipeline._trains_in = tmp_path
    assert [found for _, found in parse_object(pipeline, ViewerControl, "elements")] == [pipeline.panel]
    server = viser.ViserServer(port=7930, verbose=False)
    try:
        pipeline.panel._setup(SimpleNamespace(viser_server=server))
        session = pipeline.panel._session
        trained = pipeline.datamanager.dataparser.training_frames().names
        frames = session.state.decisions.frames
        weight = session.state.live["weight"]
        in_training = [frame.file_path in trained for frame in frames]
        assert np.isfinite(weight).tolist() == in_training
        row = [frame.file_path for frame in frames].index(trained[0])
        assert weight[row] == pytest.approx(float(pipeline.joint.weight[0]))
        session.decide(False, row)
        assert not decisions_file.read(file).frames[row].kept
        pipeline.get_train_loss_dict(4)
        pipeline._manual_decisions._last = 0.0
        pipeline.get_train_loss_dict(5)
        pipeline.panel.refresh()
        assert session.state.live["weight"][row] == 0.0
    finally:
        pipeline.panel.stop()
        server.stop()
