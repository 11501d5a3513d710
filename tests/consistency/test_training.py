"""What surrounds training: worlds of spoiled images, completeness, calibration, and the report."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from consistency.synthetic import SMALL, capture, raw_features
from evidence_walk import QUIET, frames_of
from PIL import Image
from rich.console import Console
from tiny_capture import edit_transforms, orbit, write_transforms

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.consistency.train_consistency import fresh_model
from mtcm_nerfstudio.consistency.training.calibration import (
    held_out_frames,
    platt_with_strangers,
    probabilities,
    threshold,
)
from mtcm_nerfstudio.consistency.training.capture import completeness, missing_names, training_capture
from mtcm_nerfstudio.consistency.training.report import read_capture_once, shown_frames, write_report
from mtcm_nerfstudio.consistency.training.worlds import PLAN, clean_world, spoiled_world
from mtcm_nerfstudio.consistency.transformer_dataset import DatasetConfig
from mtcm_nerfstudio.decisions import Decisions, FrameDecision
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.tokenise import tokens_of
from mtcm_nerfstudio.tokens.tokens import assemble_tokens


def text_of(table) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_worlds_are_made_once_and_their_spoiled_frames_differ_from_the_clean_ones(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache.sqlite")
    other = read_capture(write_transforms(tmp_path / "other", orbit(3)))
    tokenised = tokens_of(read_capture(write_transforms(tmp_path / "c", orbit(8))), cache=cache, progress=False)
    ready = training_capture(tokenised, cache, progress=False, donors=[other])
    assert len(ready.worlds) == 1 + len(PLAN) and ready.worlds[0].faults == ()
    kinds = [{fault.kind for fault in world.faults} for world in ready.worlds[1:]]
    assert [found <= set(plan) and bool(found) for found, plan in zip(kinds, PLAN, strict=True)] == [True] * len(PLAN)
    for world in ready.worlds:
        changed = (world.embeddings != tokenised.raw.embeddings).any(axis=1)
        assert set(np.flatnonzero(changed)) == {fault.frame for fault in world.faults}
        assert len(world.bank) == 8
    for path in (tmp_path / "c" / "images").iterdir():
        path.touch()  # known by content, so nothing is computed again
    again = training_capture(tokenised, cache, progress=False, donors=[other])
    for one, same in zip(ready.worlds, again.worlds, strict=True):
        assert np.array_equal(one.embeddings, same.embeddings) and one.faults == same.faults
        np.testing.assert_array_equal(one.bank.row, same.bank.row)
        np.testing.assert_array_equal(one.bank.sharper, same.bank.sharper)
    alone = training_capture(tokenised, cache, progress=False)
    assert not any(fault.kind == "foreign" for world in alone.worlds for fault in world.faults)


def test_matches_of_spoiled_pictures_are_those_of_the_spoiled_pictures(tmp_path: Path) -> None:
    """A world's bank is what comparing the spoiled capture from scratch gives, up to the pairs left untried."""
    cache = Cache(tmp_path / "cache.sqlite")
    read = Capture(tmp_path, "corner", "transforms", tuple(frames_of(tmp_path, 8)))
    clean = clean_world(read, np.zeros((8, 384)), cache, QUIET)
    rng = np.random.default_rng(4)
    world = spoiled_world(clean, [], ("defocus", "exposure"), 0.3, rng, "efficientnet-lite0")
    spoiled = {fault.frame for fault in world.faults}
    assert 0 < len(spoiled) < 8
    before, after = clean.world.bank, world.bank
    for i in range(8):
        for j in range(i + 1, 8):
            same = before.verified[before.row[i, j]] == after.verified[after.row[i, j]]
            assert same or i in spoiled or j in spoiled
    for fault in world.faults:
        i = fault.frame
        j = next(k for k in (i + 1, i - 1, i + 2, i - 2) if 0 <= k < 8 and k not in spoiled)
        row, sign = after.row[i, j], 1 if i < j else -1
        if fault.kind == "defocus" and row > 0:
            assert sign * after.sharper[row] < sign * before.sharper[before.row[i, j]] - 0.1
        assert after.overall[i].tolist() != before.overall[i].tolist()
    shuffled = rng.permutation(8)
    turned = world.subset(shuffled)
    for fault in turned.faults:
        assert int(shuffled[fault.frame]) in spoiled
    a, b = int(np.argmin(shuffled)), int(np.argmax(shuffled == 1))
    assert turned.bank.verified[turned.bank.row[a, b]] == after.verified[after.row[0, 1]]
    sign = 1.0 if a < b else -1.0
    assert turned.bank.sharper[turned.bank.row[a, b]] == pytest.approx(sign * after.sharper[after.row[0, 1]])


def test_the_table_says_what_is_missing_and_what_stands_in(tmp_path: Path) -> None:
    root = write_transforms(tmp_path / "c", orbit(6))
    (root / "images" / "frame_2.jpg").unlink()
    (root / "images" / "frame_3.jpg").write_bytes(b"no jpeg")

    def break_pose(meta: dict) -> None:
        meta["frames"][3]["transform_matrix"][0][0] = float("nan")

    edit_transforms(root, break_pose)
    cache = Cache(tmp_path / "cache.sqlite")
    tokenised = tokens_of(read_capture(root), cache=cache, progress=False)
    rows = {line.split("│")[1].strip(): line for line in text_of(completeness(tokenised)).splitlines() if "│" in line}
    assert {name: [int(cell) for cell in row.split("│")[2:4]] for name, row in rows.items()} == {
        "image": [4, 2],
        "embedding": [4, 2],
        "mask": [0, 6],
        "pose": [5, 1],
        "time": [0, 6],
        "focal length": [6, 0],
    }
    assert "the order of the file names" in rows["time"] and "–" in rows["focal length"]
    assert missing_names(tokenised) == (
        "images/frame_2.jpg: missing image",
        "images/frame_3.jpg: unreadable image",
        "images/frame_4.jpg: no usable pose",
    )
    ready = training_capture(tokenised, cache, progress=False)
    missing = np.isnan(ready.worlds[0].bank.overall).all(axis=1)
    assert missing.tolist() == [False, True, True, False, False, False]
    assert not {fault.frame for world in ready.worlds for fault in world.faults} & {1, 2}


def test_platt_recovers_the_probabilities_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 40_000)
    faulty = rng.random(40_000) < probabilities(logits, 0.7, -1.0)
    scale, offset, _ = platt_with_strangers(logits, np.zeros_like(logits), faulty)
    assert scale == pytest.approx(0.7, rel=0.05) and offset == pytest.approx(-1.0, rel=0.05)


def test_platt_stays_finite_where_the_classes_do_not_overlap_or_one_is_absent() -> None:
    logits = np.array([-2.0, -1.0, 1.0, 2.0])
    nothing = np.zeros(4)
    scale, offset, _ = platt_with_strangers(logits, nothing, logits > 0)
    assert np.isfinite([scale, offset]).all() and scale > 0
    assert platt_with_strangers(logits, nothing, np.zeros(4, dtype=bool)) == (1.0, 0.0, 0.0)
    assert platt_with_strangers(-logits, nothing, logits > 0)[0] > 0


def test_strangeness_counts_as_much_as_it_tells() -> None:
    rng = np.random.default_rng(1)
    logits, strange = rng.normal(0, 3, 40_000), np.maximum(rng.normal(-0.1, 0.2, 40_000), 0.0)
    faulty = rng.random(40_000) < probabilities(0.7 * logits + 8.0 * strange, 1.0, -1.0)
    found = platt_with_strangers(logits, strange, faulty)
    assert found == pytest.approx((0.7, -1.0, 8.0), rel=0.1)
    told_nothing = rng.random(40_000) < probabilities(0.7 * logits - 5.0 * strange, 1.0, -1.0)
    assert platt_with_strangers(logits, strange, told_nothing)[2] == 0.0, "strange frames are never the better ones"
    assert platt_with_strangers(logits, strange, np.zeros(40_000, dtype=bool)) == (1.0, 0.0, 0.0)
    given = platt_with_strangers(logits, strange, faulty, stranger=30.0)
    assert given[2] == 30.0 and given[1] < found[1], "the others are fitted beside the weight that is given"


def test_the_threshold_costs_one_clean_frame_in_a_hundred() -> None:
    clean = np.linspace(0.0, 0.45, 1001)
    limit = threshold(clean)
    assert (clean >= limit).mean() <= 0.01
    assert 0.44 < limit < 0.45
    assert threshold(np.full(10, 0.1)) == 0.2 and threshold(np.full(10, 1.0)) == 0.5 and threshold(np.zeros(0)) == 0.5


def test_held_out_scores_belong_to_frames_that_count() -> None:
    captures = [capture("a", 20), capture("b", 12, 1)]
    torch.manual_seed(0)
    model = fresh_model(captures, SMALL)
    config = DatasetConfig(longest=12, batch_tokens=48)
    seen = held_out_frames(model, captures, config, 0, 3)
    assert seen.logit.shape == seen.faulty.shape == seen.strange.shape and np.isfinite(seen.logit).all()
    assert 0 < seen.faulty.mean() < 0.5
    assert np.array_equal(seen.logit, held_out_frames(model, captures, config, 0, 3).logit)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return fresh_model([capture()], SMALL).eval()


def test_a_frame_is_reconstructed_without_being_seen(model) -> None:
    raw = raw_features(14)
    tokens = assemble_tokens(raw)
    changed = tokens.tokens.copy()
    changed[6, 100] += 3.0
    before, after = read_capture_once(model, tokens), read_capture_once(model, replace(tokens, tokens=changed))
    np.testing.assert_array_equal(before.reconstruction[6], after.reconstruction[6])
    assert (before.reconstruction[7] != after.reconstruction[7]).any()
    assert before.attention.shape == (2, 4, 14, 14)
    np.testing.assert_allclose(before.attention.sum(-1), 1.0, atol=1e-5)


def test_an_untrained_model_expects_a_pose_between_its_neighbours(model) -> None:
    tokens = assemble_tokens(raw_features(14))
    reading = read_capture_once(model, tokens)
    claimed = tokens.tokens[:, 384:391]
    assert np.abs(reading.expected_pose - claimed)[1:-1].max() < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("with_poses", [True, False])
def test_the_report_has_every_file_of_the_design(model, tmp_path: Path, with_poses: bool) -> None:
    raw = raw_features(12)
    if not with_poses:
        raw = replace(raw, c2w=raw.c2w * np.nan)
    frames = tuple(
        FrameDecision(name, score, score < 0.9, None if score < 0.9 else "blur", label="front")
        for name, score in zip(raw.file_paths, np.linspace(0, 1, 12).tolist(), strict=True)
    )
    images = [tmp_path.parent / f"{i}.png" for i in range(12)]
    Image.new("RGB", (90, 60)).save(images[3])  # the others are not there
    write_report(model, assemble_tokens(raw), tmp_path, 7, Decisions("", {}, "", "", 0.9, frames), images=images)
    assert {path.name for path in tmp_path.iterdir()} == {
        "attention_heatmap_epoch7.png",
        "pose_deltas_epoch7.png",
        "recon_deltas_epoch7.png",
        "tsne_embeddings.png",
        "umap_embeddings.png",
        "similarity_matrix_epoch7.npy",
        "pose_embeddings_epoch7.npy",
    }
    for picture in tmp_path.glob("*.png"):
        with Image.open(picture) as image:
            assert min(image.size) > 300
    similarity = np.load(tmp_path / "similarity_matrix_epoch7.npy", allow_pickle=False)
    assert similarity.shape == (12, 12)
    np.testing.assert_allclose(np.diag(similarity), 1.0, atol=1e-5)
    assert np.load(tmp_path / "pose_embeddings_epoch7.npy", allow_pickle=False).shape == (12, SMALL.d_model)


def test_pictures_of_long_captures_show_a_thousand_frames() -> None:
    assert np.array_equal(shown_frames(7), np.arange(7))
    shown = shown_frames(2500)
    assert len(np.unique(shown)) == 1000 and shown[0] == 0 and shown[-1] == 2499
