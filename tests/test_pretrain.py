"""The figures of pretraining against independent ones, and the script as anyone runs it, on a small scale."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from consistency.synthetic import SMALL, capture
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mtcm_nerfstudio.consistency.blur_judge import BlurJudge
from mtcm_nerfstudio.consistency.checkpoint import SHIPPED, card_file, load_checkpoint
from mtcm_nerfstudio.consistency.train_consistency import fresh_model

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture(scope="module")
def held_out():
    sys.path.insert(0, str(SCRIPTS))
    from pretraining import held_out

    yield held_out
    sys.path.remove(str(SCRIPTS))


@given(scores=st.lists(st.integers(0, 5), min_size=2, max_size=40), seed=st.integers(0, 999))
def test_auroc_is_sklearns_ties_included(held_out, scores: list[int], seed: int) -> None:
    faulty = np.random.default_rng(seed).random(len(scores)) < 0.4
    found = held_out.auroc(np.array(scores, dtype=np.float64), faulty)
    if faulty.all() or not faulty.any():
        assert np.isnan(found)
    else:
        np.testing.assert_allclose(found, roc_auc_score(faulty, scores))


def test_measuring_covers_captures_as_they_came_and_every_kind_and_comes_back_from_disk(held_out, tmp_path) -> None:
    torch.manual_seed(0)
    one = replace(capture("a", 20), natural=(*[None] * 19, "blur"))
    model = fresh_model([one], SMALL).eval()
    measured = held_out.measure(model, BlurJudge((1.0, 0.0, 0.0), -3.0), [one])
    as_it_came = measured.variant == held_out.AS_IT_CAME
    assert {held_out.AS_IT_CAME, held_out.CORRUPTED, "swap", "pose_1", "far"} <= set(measured.variant)
    assert as_it_came.sum() == 20 and measured.faulty[as_it_came].sum() == 1, "the natural fault counts as one"
    assert measured.natural[as_it_came].tolist() == [*[""] * 19, "blur"]
    assert 0 < measured.faulty.mean() < 0.4
    held_out.save_measured(measured, tmp_path / "m.npz")
    again = held_out.load_measured(tmp_path / "m.npz")
    score = measured.logit
    assert held_out.auroc_by_variant(again, again.logit) == held_out.auroc_by_variant(measured, score)


@pytest.mark.slow
@pytest.mark.real
def test_the_script_leaves_groups_out_calibrates_and_writes_checkpoints(tmp_path: Path, shared_captures: Path) -> None:
    (tmp_path / "real").mkdir()
    for name in ("banana", "boruszyn_kap", "chair_walk"):  # of the groups B, C and D
        (tmp_path / "real" / name).symlink_to(shared_captures / name)
    command = [
        sys.executable, SCRIPTS / "pretrain.py", "--out", tmp_path / "out", "--real", tmp_path / "real",
        "--rendered", "0", "--larger", "0", "--sessions", "0", "--batches", "2", "--runs", "B", "C",
        "--train.epochs", "1", "--train.steps-per-epoch", "2", "--train.validation-batches", "1",
    ]  # fmt: skip
    environment = {**os.environ, "MTCM_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "not there, left out" in done.stdout
    for group, names in (("B", ["boruszyn_kap", "chair_walk"]), ("C", ["banana", "chair_walk"])):
        model, card = load_checkpoint(tmp_path / "out" / f"without_{group}" / "checkpoint")
        assert [source.name for source in card.trained_on] == names and model.config.forest_trees > 0
    shipped = card_file(SHIPPED).read_bytes()
    again = subprocess.run(
        [sys.executable, str(SCRIPTS / "pretrain.py"), "--out", str(tmp_path / "out"), "--recalibrate", "--no-ship"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    _, card = load_checkpoint(tmp_path / "out" / "without_B" / "checkpoint")
    assert 0.0 <= card.figures["auroc_all"] <= 1.0 and card.figures["bound_on_good_frames_dropped"] > 0.0
    assert card_file(SHIPPED).read_bytes() == shipped
