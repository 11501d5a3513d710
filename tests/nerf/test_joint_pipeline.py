"""Joint fine-tuning in nerfstudio: off is stock to the last bit; on, the transformer learns, alone or in several
processes, beside nerfacto and beside splats."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from deciding import decide
from joint_run import COUNT, FILES, stock_pipeline, tiny_config, train
from nerfstudio_commands import SMALL, nerfstudio, run_folder
from tiny_capture import edit_transforms, orbit, write_colmap, write_transforms

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.nerf.dataparser.parser import MTCMDataParserConfig

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return decide(tmp_path / "kept.json", FILES)


def same(first, second) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_off_it_is_stock_training_to_the_last_bit(capture, kept):
    config = tiny_config(capture, kept, enabled=False)
    ours, _ = train(config, 4)
    stock, _ = train(config, 4, stock_pipeline(config))
    assert ours.joint is None and ours.state_dict().keys() == stock.state_dict().keys()
    assert same(ours.state_dict(), stock.state_dict())


def test_on_and_before_it_begins_only_the_weights_of_the_filter_count(capture, kept):
    ours, _ = train(tiny_config(capture, kept, weights=False, start=100), 3)
    config = tiny_config(capture, kept, enabled=False)
    stock, _ = train(config, 3)
    torch.testing.assert_close(ours.model.state_dict(), stock.model.state_dict())
    draws = []
    for settings in (config, tiny_config(capture, kept)):
        torch.manual_seed(3)
        settings.pipeline.setup(device="cpu", test_mode="val")
        draws.append(torch.rand(1))
    assert torch.equal(*draws), "the transformer takes nothing from the NeRF's random numbers"


def test_the_loss_of_the_nerf_reaches_every_part_of_the_transformer(capture, kept):
    config = tiny_config(capture, kept, start=2, every=2)
    pipeline, logged = train(config, 7)
    joint = pipeline.joint
    assert int(joint.refreshes) == 3 and [("mtcm_free_energy" in one) for one in logged] == [
        False, False, True, False, True, False, True,
    ]  # fmt: skip
    assert joint.twist.abs().max() > 0 and (joint.losses.times > 0).any()
    fresh = config.pipeline.setup(device="cpu", test_mode="test").joint
    for name, before in fresh.transformer.named_parameters():
        if name.startswith(("layers", "embed", "judge")):
            assert not torch.equal(before, joint.transformer.get_parameter(name)), name


def test_the_words_of_the_transformer_travel_in_the_checkpoint(capture, kept):
    config = tiny_config(capture, kept, start=1, every=2)
    pipeline, _ = train(config, 4)
    state = pipeline.state_dict()
    again = config.pipeline.setup(device="cpu", test_mode="inference")
    again.load_pipeline(state, 4)
    assert same(again.joint.state_dict(), pipeline.joint.state_dict())


def test_splats_are_trained_by_whole_images(capture, kept, monkeypatch):
    import nerfstudio.models.splatfacto as splatfacto
    from splat_stand_in import rasterize

    monkeypatch.setattr(splatfacto, "rasterization", rasterize)
    for to_the_gpu in ("cuda", "pin_memory"):
        monkeypatch.setattr(torch.Tensor, to_the_gpu, lambda self: self)
    config = tiny_config(capture, kept, method="mtcm-splatfacto", start=2, every=3)
    config.pipeline.datamanager.cache_images = "cpu"
    config.pipeline.model.num_random, config.pipeline.model.random_init = 60, True
    config.pipeline.model.use_absgrad = False
    pipeline, logged = train(config, 18)
    joint = pipeline.joint
    assert joint.twist.abs().max() > 0 and (joint.losses.times > 0).sum() > 6
    assert float(logged[-1]["main_loss"]) < float(logged[0]["main_loss"])
    assert any("mtcm_correction" in one for one in logged)
    pipeline._trains_in = kept.parent
    assert np.isfinite(pipeline.get_average_eval_image_metrics()["psnr"])
    rows = list(csv.DictReader((kept.parent / "eval_images.csv").open()))
    assert [row["image"] for row in rows] == [path.name for path in pipeline.datamanager.eval_dataset.image_filenames]


def test_frames_are_known_however_the_capture_spells_them(capture, tmp_path):
    spelled = [f"./{name}" for name in FILES]

    def respell(meta):
        for frame, name in zip(meta["frames"], spelled, strict=True):
            frame["file_path"] = name

    edit_transforms(capture, respell)
    decisions = decide(tmp_path / "given.json", [frame.file_path for frame in read_capture(capture).frames])
    pipeline, _ = train(tiny_config(capture, decisions, start=1, every=1), 2)
    assert set(pipeline.datamanager.dataparser.training_frames().names) < set(spelled)
    assert int(pipeline.joint.refreshes) == 1


@pytest.mark.parametrize("write", [write_transforms, write_colmap])
def test_poses_of_the_scene_are_found_again_in_the_capture(tmp_path, write):
    c2w = orbit(COUNT)
    folder = write(tmp_path / "capture", c2w)
    listed = [frame.file_path for frame in read_capture(folder).frames]
    repaired, dropped = {listed[2]: c2w[5]}, {listed[7]: "pose", listed[9]: "blur"}
    decisions = decide(tmp_path / "given.json", listed, dropped=dropped, repaired=repaired)
    parser = MTCMDataParserConfig(data=folder, decisions=decisions, on_trial=True).setup()
    outputs = parser.get_dataparser_outputs("train")
    frames = parser.training_frames()
    assert [path.name for path in outputs.image_filenames] == [Path(name).name for name in frames.names]
    assert set(frames.names[-len(outputs.image_filenames) + len(parser._kept.image_filenames) :]) <= dropped.keys()
    scene = torch.eye(4).repeat(len(frames.names), 1, 1)
    scene[:, :3] = outputs.cameras.camera_to_worlds
    claimed = {frame.file_path: frame.c2w for frame in read_capture(folder).frames} | repaired
    wanted = np.stack([claimed[name] for name in frames.names])
    np.testing.assert_allclose(frames.capture_from_scene(scene).numpy(), wanted, atol=1e-4)
    without = MTCMDataParserConfig(data=folder, decisions=decisions).setup().get_dataparser_outputs("train")
    assert without.dataparser_scale == outputs.dataparser_scale
    kept = len(without.image_filenames)
    torch.testing.assert_close(without.cameras.camera_to_worlds, outputs.cameras.camera_to_worlds[:kept])


SPAWNED = """
import sys, pathlib, torch, torch.distributed as dist
sys.path[:0] = {paths!r}
import nerfstudio.pipelines.base_pipeline as base
from torch.nn.parallel import DistributedDataParallel
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://{store}", rank=rank, world_size=2)

class OnCpu(DistributedDataParallel):  # nerfstudio names CUDA devices, which gloo does not have
    def __init__(self, module, device_ids, **rest):
        super().__init__(module, **rest)

base.DDP = OnCpu
barrier = dist.barrier
dist.barrier = lambda device_ids=None, **rest: barrier(**rest)
from joint_run import tiny_config, train
config = tiny_config(pathlib.Path({capture!r}), pathlib.Path({kept!r}), start=2, every=2)
pipeline, _ = train(config, 6, world_size=2, rank=rank)
torch.save({{name: value for name, value in pipeline.joint.state_dict().items()}}, {out!r} + str(rank))
"""


@pytest.mark.slow
def test_two_processes_train_one_transformer(capture, kept, tmp_path):
    fill = {"paths": [str(Path(__file__).parents[1])], "store": tmp_path / "store", "out": str(tmp_path / "state")}
    script = SPAWNED.format(capture=str(capture), kept=str(kept), **fill)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-W", "ignore", "-c", script]
    running = [subprocess.Popen([*line, str(rank)], env=env, stderr=subprocess.PIPE) for rank in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-3000:]
    first, second = (torch.load(tmp_path / f"state{rank}", weights_only=True) for rank in range(2))
    for name in first:
        if not name.startswith("losses."):
            torch.testing.assert_close(first[name], second[name], msg=name)
    torch.testing.assert_close(first["losses.average"], second["losses.average"], equal_nan=True)
    assert not torch.equal(first["losses.last"], second["losses.last"]), "each has rays of its own"
    alone, _ = train(tiny_config(capture, kept, start=2, every=2), 6)
    assert not torch.equal(alone.joint.transformer.state_dict()["embed.weight"], first["transformer.embed.weight"])


@pytest.mark.slow
def test_a_run_leaves_its_verdicts_poses_and_tables_and_goes_on_from_them(capture, tmp_path):
    dropped = {FILES[3]: "blur", FILES[8]: "pose"}
    decisions = decide(tmp_path / "given.json", FILES, dropped=dropped)
    joint = "--pipeline.joint.start 2 --pipeline.joint.every 1 --pipeline.joint.on-trial True"
    joint += " --pipeline.joint.write-back True --pipeline.joint.enabled True"
    train_it = ["mtcm-nerfacto-tiny", "--data", "capture", "--pipeline.datamanager.decisions", str(decisions)]
    train_it += [*SMALL.split(), *joint.split(), "--pipeline.datamanager.filter.evidence", "False"]
    train_it += ["--output-dir", "out", "--steps-per-eval-all-images", "3"]
    said = nerfstudio("train", *train_it, "--timestamp", "A", folder=tmp_path)
    assert "MTCM:" in said
    run = run_folder(tmp_path / "out", "mtcm-nerfacto-tiny", "A")
    views = json.loads((run / "training_views.json").read_text())
    assert set(views["on_trial"]) <= dropped.keys() and views["on_trial"]
    rows = list(csv.DictReader((run / "frame_losses.csv").read_text().splitlines()))
    assert {row["file_path"] for row in rows} == {*views["splits"]["train"], *views["on_trial"]}
    assert all(0.0 <= float(row["weight"]) <= 1.0 for row in rows)
    verdicts = decisions_file.read(run / "filtered_views.json")
    refined = decisions_file.read(run / "joint_views.json")
    assert [frame.file_path for frame in verdicts.frames] == FILES
    weight_of = {row["file_path"]: float(row["weight"]) for row in rows}
    for frame in (*verdicts.frames, *refined.frames):
        if frame.file_path in weight_of:
            assert frame.kept == (weight_of[frame.file_path] >= 0.5)
            assert frame.inconsistency == pytest.approx(1.0 - weight_of[frame.file_path], abs=1e-4)
    assert decisions_file.read(capture / "mtcm" / "filtered_views.json") == refined
    embeddings = np.load(run / "pose_embeddings.npy")
    assert embeddings.shape == (COUNT, 256)
    assert np.isfinite(embeddings).all(axis=1).sum() == len(rows)
    assert [row["image"] for row in csv.DictReader((run / "eval_images.csv").read_text().splitlines())]
    nerfstudio("eval", "--load-config", str(run / "config.yml"), "--output-path", "eval.json", folder=tmp_path)
    assert json.loads((tmp_path / "eval.json").read_text())["results"]["psnr"] > 0
    resume = ["--load-dir", str(run / "nerfstudio_models"), "--timestamp", "B"]
    assert "Done loading" in nerfstudio("train", *train_it, *resume, folder=tmp_path)
    resumed = run_folder(tmp_path / "out", "mtcm-nerfacto-tiny", "B")
    assert json.loads((resumed / "training_views.json").read_text()) == views
