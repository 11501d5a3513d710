"""What surrounds training: corrupted copies, completeness, calibration, and the report."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from consistency.synthetic import SMALL, capture, raw_features
from evidence_walk import QUIET, embeddings_of, frames_of, in_own_unit, poses_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from tiny_capture import edit_transforms, orbit, write_transforms

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.consistency.losses import IGNORED
from mtcm_nerfstudio.consistency.train_consistency import fresh_model
from mtcm_nerfstudio.consistency.training.calibration import (
    FAULTY_SHARE,
    Calibration,
    control_risk,
    fit_calibration,
    held_out_frames,
)
from mtcm_nerfstudio.consistency.training.corrupt_sequence import IMAGE, POSE, FaultConfig, corrupt_sequence
from mtcm_nerfstudio.consistency.training.corrupted_captures import (
    PLAN,
    CorruptedCapture,
    OriginalCapture,
    corrupted_copy,
    original_capture,
)
from mtcm_nerfstudio.consistency.training.training_capture import completeness, missing_names, training_capture
from mtcm_nerfstudio.consistency.training.training_plots import read_capture_once, shown_frames, write_report
from mtcm_nerfstudio.consistency.transformer_dataset import DatasetConfig
from mtcm_nerfstudio.consistency.transformer_model import REASONS
from mtcm_nerfstudio.decisions import Decisions, FrameDecision
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.tokenise import tokens_of
from mtcm_nerfstudio.tokens.tokens import assemble_tokens


def text_of(table) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def verified(copy: CorruptedCapture) -> dict[tuple[int, int], int]:
    """Verified matches of each pair in the copy's table."""
    return {(i, j): int(count) for (i, j), count in zip(copy.table.pairs.tolist(), copy.table.verified, strict=True)}


def test_copies_are_made_once_and_their_faulty_images_differ_from_the_original_ones(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache.sqlite")
    other = read_capture(write_transforms(tmp_path / "other", orbit(3)))
    tokenised = tokens_of(read_capture(write_transforms(tmp_path / "c", orbit(8))), cache=cache, progress=False)
    ready = training_capture(tokenised, cache, progress=False, donors=[other])
    assert len(ready.copies) == 1 + len(PLAN) and ready.copies[0].faults == ()
    kinds = [{fault.kind for fault in copy.faults} for copy in ready.copies[1:]]
    assert [found <= set(plan) and bool(found) for found, plan in zip(kinds, PLAN, strict=True)] == [True] * len(PLAN)
    for copy in ready.copies:
        changed = (copy.embeddings != tokenised.raw.embeddings).any(axis=1)
        assert set(np.flatnonzero(changed)) >= {fault.frame for fault in copy.faults}
        assert len(copy.table) == 8
    for path in (tmp_path / "c" / "images").iterdir():
        path.touch()  # known by content, so nothing is computed again
    again = training_capture(tokenised, cache, progress=False, donors=[other])
    for one, same in zip(ready.copies, again.copies, strict=True):
        assert np.array_equal(one.embeddings, same.embeddings) and one.faults == same.faults
        np.testing.assert_array_equal(one.table.pairs, same.table.pairs)
        np.testing.assert_array_equal(one.table.blur_difference, same.table.blur_difference)
        np.testing.assert_array_equal(one.table.frames.thumbnails, same.table.frames.thumbnails)
        assert one.table.frames.intrinsics == same.table.frames.intrinsics
    alone = training_capture(tokenised, cache, progress=False, copies=2)
    assert len(alone.copies) == 3
    assert not any(fault.kind == "foreign" for copy in alone.copies for fault in copy.faults)


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> OriginalCapture:
    """The textured corner as it came."""
    folder = tmp_path_factory.mktemp("corner")
    frames = frames_of(folder, 10)
    read = Capture(folder, "corner", "transforms", tuple(frames))
    c2w = in_own_unit(poses_of(frames))
    return original_capture(read, embeddings_of(frames), c2w, Cache(folder / "cache.sqlite"), QUIET)


def test_matches_of_corrupted_images_are_those_of_the_corrupted_images(corner: OriginalCapture) -> None:
    """A copy's table is what comparing the corrupted capture from scratch gives, up to the pairs left untried."""
    rng = np.random.default_rng(4)
    copy = corrupted_copy(corner, [], ("defocus", "exposure"), 0.3, rng, "efficientnet-lite0")
    faulty = {fault.frame for fault in copy.faults}
    changed = set(np.flatnonzero((copy.embeddings != corner.copy.embeddings).any(axis=1)).tolist())
    assert 0 < len(faulty) < 6 and faulty <= changed
    before, after = verified(corner.copy), verified(copy)
    for (i, j), count in after.items():
        assert count == before.get((i, j)) or i in changed or j in changed
    blur = copy.table.frames.statistics[:, 0] - corner.copy.table.frames.statistics[:, 0]
    for fault in copy.faults:
        if fault.kind == "defocus":
            assert blur[fault.frame] > 0.2
        assert (copy.table.frames.thumbnails[fault.frame] != corner.copy.table.frames.thumbnails[fault.frame]).any()
    same = np.setdiff1d(np.arange(10), list(changed))
    np.testing.assert_array_equal(copy.table.frames.statistics[same], corner.copy.table.frames.statistics[same])


def test_faults_go_with_their_frames_into_a_part_of_a_copy(corner: OriginalCapture) -> None:
    copy = corrupted_copy(corner, [], ("defocus",), 0.3, np.random.default_rng(4), "efficientnet-lite0")
    order = np.random.default_rng(0).permutation(10)[:7]
    part = copy.subset(order)
    kept = {fault.frame for fault in copy.faults} & set(order.tolist())
    assert {int(order[fault.frame]) for fault in part.faults} == kept
    np.testing.assert_array_equal(part.embeddings, copy.embeddings[order])
    there = verified(copy)
    for (i, j), count in verified(part).items():
        assert count == there[tuple(sorted((int(order[i]), int(order[j]))))]


def test_some_good_frames_of_a_copy_are_changed_without_harm(corner: OriginalCapture) -> None:
    """A little darker, softer or warmer, and still an example of a good frame."""
    copies = [
        corrupted_copy(corner, [], ("defocus",), 0.1, np.random.default_rng(seed), "efficientnet-lite0")
        for seed in range(4)
    ]
    harmless = 0
    for copy in copies:
        changed = np.flatnonzero((copy.embeddings != corner.copy.embeddings).any(axis=1))
        harmless += len(set(changed.tolist()) - {fault.frame for fault in copy.faults})
    assert 0 < harmless < 20


def test_without_any_fault_that_can_be_made_a_copy_may_be_the_original(corner: OriginalCapture) -> None:
    copy = corrupted_copy(corner, [], ("foreign", "pose_10"), 0.3, np.random.default_rng(1), "efficientnet-lite0")
    assert copy.faults == (), "no capture lends foreign frames, and poses are left to every step"


def test_foreign_frames_come_from_the_donors(corner: OriginalCapture, tmp_path: Path) -> None:
    donor = read_capture(write_transforms(tmp_path / "donor", orbit(6)))
    copy = corrupted_copy(corner, [donor], ("foreign",), 0.3, np.random.default_rng(1), "efficientnet-lite0")
    foreign = {fault.frame for fault in copy.faults}
    assert foreign and {fault.kind for fault in copy.faults} == {"foreign"}
    across = [count for pair, count in verified(copy).items() if len(foreign & set(pair)) == 1]
    assert max(across, default=0) < 20, "it has nothing in common with the corner"


def test_frames_that_are_faulty_as_they_came_are_labelled_in_every_variant() -> None:
    plain = capture("a", 12)
    natural = tuple("blur" if i == 3 else "pose" if i == 7 else None for i in range(12))
    known = replace(plain, natural=natural)
    for faulty in (False, True):
        config = FaultConfig(kinds=("pose_10",), largest_share=0.0, moved_in_time=0.0)
        corrupted = corrupt_sequence(known.with_copy(0), [], config, np.random.default_rng(0), faulty=faulty)
        assert np.flatnonzero(corrupted.replaced[:, IMAGE]).tolist() == [3]
        assert 7 in np.flatnonzero(corrupted.replaced[:, POSE]) and corrupted.reason[3] == REASONS.index("blur")
        assert corrupted.reason[7] == REASONS.index("pose") and corrupted.reason[0] in (IGNORED, REASONS.index("pose"))
    part = known.subset(np.array([7, 0, 3]))
    assert part.natural == ("pose", None, "blur") and len(part.copies) == len(plain.copies)
    assert not plain.subset(np.array([1, 2])).natural
    assert [len(known.with_copy(n).copies) for n in (0, 2)] == [1, 1] and known.with_copy(2).copies[0].faults


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
    missing = np.isnan(ready.copies[0].table.frames.statistics).all(axis=1)
    assert missing.tolist() == [False, True, True, False, False, False]
    assert not {fault.frame for copy in ready.copies for fault in copy.faults} & {1, 2}


def drawn_frames(calibration: Calibration, count: int = 60_000, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Logits of two judges, and labels drawn with the calibrated probability."""
    rng = np.random.default_rng(seed)
    logit, forest = rng.normal(-1, 2, count), rng.normal(-2, 2, count)
    return logit, forest, rng.random(count) < calibration.probability(logit, forest)


def test_calibration_recovers_the_weights_that_made_the_labels() -> None:
    true = Calibration(0.7, 0.4, -1.0)
    logit, forest, faulty = drawn_frames(true)
    found = fit_calibration(logit, forest, faulty, faulty_share=float(faulty.mean()))
    np.testing.assert_allclose(found, true, rtol=0.08)


@pytest.mark.parametrize("share", [0.01, FAULTY_SHARE, 0.2])
def test_calibrated_probabilities_have_the_rate_of_faults_in_use(share: float) -> None:
    logit, forest, faulty = drawn_frames(Calibration(0.7, 0.4, -1.0))
    found = fit_calibration(logit, forest, faulty, faulty_share=share)
    weight = np.where(faulty, share / faulty.sum(), (1.0 - share) / (~faulty).sum())
    assert (weight * found.probability(logit, forest)).sum() == pytest.approx(share, rel=0.03)
    assert found.scale == pytest.approx(0.7, rel=0.1), "the rate changes the offset, not the weights"


def test_calibration_stays_finite_where_the_classes_do_not_overlap_or_one_is_absent() -> None:
    logit, nothing = np.array([-2.0, -1.0, 1.0, 2.0]), np.zeros(4)
    found = fit_calibration(logit, nothing, logit > 0)
    assert np.isfinite(found).all() and found.scale > 0 and found.forest >= 0
    assert fit_calibration(logit, nothing, np.zeros(4, dtype=bool)) == (0.5, 0.5, 0.0)
    assert fit_calibration(logit, nothing, np.ones(4, dtype=bool)) == (0.5, 0.5, 0.0)
    assert np.isfinite(found.probability(np.array([-1e9, 1e9]), np.zeros(2))).all()


def test_a_judge_that_is_wrong_has_no_weight() -> None:
    logit, forest, faulty = drawn_frames(Calibration(0.7, 0.4, -1.0))
    found = fit_calibration(logit, -forest, faulty)
    assert found.forest == pytest.approx(0.0, abs=1e-6) and found.scale > 0.5
    assert fit_calibration(-logit, forest, faulty).scale == pytest.approx(1e-3)


def brute_bound(probability: np.ndarray, capture: np.ndarray, most: float, threshold: float) -> float:
    """The bound of conformal risk control, capture by capture."""
    names = sorted(set(capture.tolist()))
    losses = [min(float(np.mean(probability[capture == name] >= threshold)), most) for name in names]
    return (sum(losses) + most) / (len(names) + 1)


@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.1, 0.3]), st.sampled_from([0.01, 0.02, 0.05]))
def test_the_threshold_is_the_smallest_that_keeps_the_bound(seed: int, most: float, lost: float) -> None:
    rng = np.random.default_rng(seed)
    capture = rng.integers(0, 40, 400)
    probability = rng.beta(2, 3, 400)
    found = control_risk(probability, capture, most, lost)
    assert 0.5 <= found.threshold <= 0.95, "what is more likely good than faulty stays"
    assert found.bound == pytest.approx(brute_bound(probability, capture, most, found.threshold))
    if found.threshold < 0.95:
        assert found.bound <= lost
    lower = [float(p) for p in np.linspace(0.5, found.threshold, 30) if p < found.threshold - 2e-6]
    assert all(brute_bound(probability, capture, most, threshold) > lost for threshold in lower)


def test_less_that_may_be_lost_asks_for_a_higher_threshold() -> None:
    rng = np.random.default_rng(0)
    capture, probability = np.repeat(np.arange(60), 30), rng.beta(1, 6, 1800)
    thresholds = [control_risk(probability, capture, 0.1, lost).threshold for lost in (0.05, 0.02, 0.01, 0.001)]
    assert (np.diff(thresholds) >= 0).all() and thresholds[0] < thresholds[-2]
    assert thresholds[-1] == 0.95, "with sixty captures nothing below a tenth over sixty-one can be shown"


def test_a_capture_counts_as_one_draw_however_long_it_is() -> None:
    rng = np.random.default_rng(1)
    capture, probability = np.repeat(np.arange(50), 20), rng.beta(1, 6, 1000)
    once = control_risk(probability, capture, 0.1, 0.02)
    longer = (
        np.concatenate([capture, np.tile(capture[:20], 99)]),
        np.concatenate([probability, np.tile(probability[:20], 99)]),
    )
    assert control_risk(longer[1], longer[0], 0.1, 0.02) == pytest.approx(once)
    renamed = control_risk(probability, 1000 - 7 * capture, 0.1, 0.02)
    assert renamed == pytest.approx(once)


def test_without_captures_the_bound_is_all_that_may_be_dropped() -> None:
    found = control_risk(np.zeros(0), np.zeros(0, dtype=int), 0.3)
    assert found == (0.95, 0.3)


def test_held_out_scores_belong_to_frames_that_count() -> None:
    captures = [capture("a", 20), capture("b", 12, 1)]
    torch.manual_seed(0)
    model = fresh_model(captures, SMALL)
    config = DatasetConfig(longest=12, batch_tokens=48)
    found = held_out_frames(model, captures, config, 0, 3)
    assert found.logit.shape == found.faulty.shape == found.forest_logit.shape and np.isfinite(found.logit).all()
    assert 0 < found.faulty.mean() < 0.5
    np.testing.assert_array_equal(found.forest_logit, found.logit)  # there is no forest
    assert np.array_equal(found.logit, held_out_frames(model, captures, config, 0, 3).logit)


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
