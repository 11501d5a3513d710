"""ns-mtcm-train, from the command line to the files in logs/."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_capture import orbit, write_transforms

from mtcm_nerfstudio import decisions
from mtcm_nerfstudio.cli.train import entrypoint
from mtcm_nerfstudio.consistency.checkpoint import load_checkpoint

SMALL = ["--model.d-model", "256", "--model.layers", "1", "--model.feed-forward", "16", "--model.heads", "2"]
QUICK = [
    *("--init", "scratch", "--epochs", "2", "--steps-per-epoch", "1", "--validation-batches", "1"),
    *("--report-every", "1", "--dataset.batch-tokens", "16", "--dataset.longest", "8", "--accelerator", "cpu", *SMALL),
]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    def call(*arguments: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", ["ns-mtcm-train", *map(str, arguments)])
        entrypoint()

    return call


def fails(run, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as left:
        run(*arguments)
    assert left.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1]


@pytest.mark.slow
def test_a_run_writes_every_file_of_the_design(run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = write_transforms(tmp_path / "walk", orbit(10))
    run("--data", capture, "--output-dir", tmp_path / "out", *QUICK)
    out, err = capsys.readouterr()
    logs = tmp_path / "out" / "logs"
    written = {path.name for path in logs.iterdir()}
    for epoch in (1, 2):
        for name in ("attention_heatmap", "pose_deltas", "recon_deltas"):
            assert f"{name}_epoch{epoch}.png" in written
        assert {f"similarity_matrix_epoch{epoch}.npy", f"pose_embeddings_epoch{epoch}.npy"} <= written
        views = decisions.read(logs / f"filtered_views_epoch{epoch}.json")
        assert [frame.file_path for frame in views.frames] == [f"images/frame_{i + 1}.jpg" for i in range(10)]
    assert {"tsne_embeddings.png", "umap_embeddings.png", "config.json", "versions.json"} <= written
    assert any(name.startswith("events.out.tfevents") for name in written)
    assert "walk: 10 frames" in err and "focal length" in err and "epoch 2: loss" in err
    assert str(logs / "checkpoint.safetensors") in out
    model, card = load_checkpoint(logs / "checkpoint")
    assert card.embedder == "efficientnet-lite0" and [source.name for source in card.trained_on] == ["walk"]
    assert np.isfinite([float(p.abs().sum()) for p in model.parameters()]).all()
    assert model.forest.trees == card.model.forest_trees > 0, "a forest judges beside the transformer"
    config = json.loads((logs / "config.json").read_text())
    assert config["train"]["epochs"] == 2 and config["init"] == "scratch"
    assert json.loads((logs / "versions.json").read_text())["torch"] == torch.__version__.split("+")[0]
    assert not (capture / "mtcm").exists()

    again = fails(run, capsys, "--data", capture, "--output-dir", tmp_path / "out", *QUICK)
    assert "holds a run already; go on with it by --resume" in again
    other = fails(run, capsys, "--data", capture, "--output-dir", tmp_path / "out", *QUICK, "--seed", "5", "--resume")
    assert "(seed: 0 → 5); --resume needs the same ones" in other
    run("--data", capture, "--output-dir", tmp_path / "out", *QUICK, "--resume")


@pytest.mark.slow
def test_several_captures_have_a_folder_each(run, tmp_path: Path) -> None:
    walks = [write_transforms(tmp_path / name, orbit(8)) for name in ("Zoë B.", "b")]
    shutil.rmtree(tmp_path / "b" / "images")
    write_transforms(tmp_path / "b", orbit(8, 2.0))
    run("--data", *walks, "--output-dir", tmp_path / "out", *QUICK, "--epochs", "1")
    logs = tmp_path / "out" / "logs"
    for name in ("Zoë B.", "b"):
        assert (logs / name / "attention_heatmap_epoch1.png").is_file()
        assert (logs / name / "filtered_views_epoch1.json").is_file()
    assert not (logs / "attention_heatmap_epoch1.png").exists() and (logs / "checkpoint.json").is_file()


@pytest.mark.slow
def test_the_shipped_checkpoint_can_be_tuned(run, tmp_path: Path) -> None:
    capture = write_transforms(tmp_path / "walk", orbit(8))
    quick = ["--epochs", "1", "--steps-per-epoch", "1", "--validation-batches", "1", "--report-every", "0"]
    run("--data", capture, "--output-dir", tmp_path / "out", *quick, "--dataset.batch-tokens", "128")
    tuned, card = load_checkpoint(tmp_path / "out" / "logs" / "checkpoint")
    shipped, shipped_card = load_checkpoint()
    assert card.model == shipped_card.model
    moved = (tuned.embed.weight - shipped.embed.weight).abs().max()
    assert 0 < float(moved) < 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "error: nowhere: no such file or folder"),
        (["--data"], "error: name at least one capture: --data CAPTURE"),
        (["--data", "walk", "--init", "lost"], "error: lost.json: no such file; a checkpoint is a .safetensors and"),
        (["--data", "walk", "--epochs", "0"], "error: epochs must be at least 1, got 0"),
        (["--data", "walk", "--embedder", "precomputed"], "trained on efficientnet-lite0 embeddings, these are precom"),
        (["--data", "walk", "--identities", "Bob"], "error: walk: no identity 'Bob'; there are none"),
    ],
)
def test_wrong_input_is_one_clear_line(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments, message
) -> None:
    write_transforms(tmp_path / "walk", orbit(4))
    monkeypatch.chdir(tmp_path)
    assert message in fails(run, capsys, *arguments)
    assert not (tmp_path / "outputs").exists()


def test_an_impossible_flag_says_what_it_may_be(run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run("--data", "walk", "--dataset.mask-ratio", "1.5")
    assert left.value.code == 2
    assert "mask_ratio must lie in [0, 1), got 1.5" in capsys.readouterr().err


def test_too_few_frames_are_named(run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = write_transforms(tmp_path / "short", orbit(3))
    said = fails(run, capsys, "--data", capture, "--output-dir", tmp_path / "out", *QUICK)
    assert said.endswith("short: 3 frames are too few, 4 are needed")
