"""The figures of pretraining against independent ones, and the script as anyone runs it, on a small scale."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from consistency.synthetic import SMALL, capture
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mtcm_nerfstudio.consistency.checkpoint import load_checkpoint
from mtcm_nerfstudio.consistency.train_consistency import fresh_model

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture(scope="module")
def held_out():
    sys.path.insert(0, str(SCRIPTS))
    import held_out

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


def test_measuring_covers_clean_captures_and_every_kind_and_comes_back_from_disk(held_out, tmp_path: Path) -> None:
    captures = [capture("a", 20), capture("b", 12, 1)]
    torch.manual_seed(0)
    model = fresh_model(captures, SMALL).eval()
    measured = held_out.measure(model, captures[:1], captures[1:], draws=2)
    kinds = set(measured.kind)
    assert {"clean", "swap", "pose_1", "far", "defocus", "occluder", "foreign"} <= kinds
    assert not measured.faulty[measured.kind == "clean"].any() and (measured.kind == "clean").sum() == 20
    assert 0 < measured.faulty.mean() < 0.3
    held_out.save_measured(measured, tmp_path / "m.npz")
    again = held_out.load_measured(tmp_path / "m.npz")
    assert held_out.auroc_by_kind(again) == held_out.auroc_by_kind(measured)


@pytest.mark.slow
@pytest.mark.real
def test_the_script_leaves_out_calibrates_and_writes_a_checkpoint(tmp_path: Path, shared_captures: Path) -> None:
    (tmp_path / "real").mkdir()
    for name in ("banana", "boruszyn_kap"):
        (tmp_path / "real" / name).symlink_to(shared_captures / name)
    base = ["--out", tmp_path / "out", "--real", tmp_path / "real", "--rendered", "0"]
    quick = ["--train.epochs", "1", "--train.steps-per-epoch", "2", "--train.validation-batches", "1"]

    def run(*more: str) -> str:
        command = [sys.executable, SCRIPTS / "pretrain.py", *base, *quick, *more]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "not there, left out" in run("--leave-out", "banana")
    _, left_out = load_checkpoint(tmp_path / "out" / "without_banana")
    assert [source.name for source in left_out.trained_on] == ["boruszyn_kap"]
    run()
    _, card = load_checkpoint(tmp_path / "out" / "all" / "mtcm-efficientnet-lite0")
    assert [(source.name, source.licence) for source in card.trained_on] == [
        ("boruszyn_kap", "CC BY 3.0"),
        ("banana", "MIT"),
    ]
    assert 0.0 <= card.figures["auroc_all"] <= 1.0 and card.figures["share_of_clean_frames_dropped"] <= 0.1
