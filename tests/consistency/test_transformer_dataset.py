"""Training examples: deterministic, of one identity, with labels that say what was done."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from consistency.synthetic import capture
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcm_nerfstudio.capture.corruptions import FAULT_KINDS, POSE_FAULTS, REASON_OF, FaultKind
from mtcm_nerfstudio.consistency.losses import IGNORED
from mtcm_nerfstudio.consistency.training.corrupt_sequence import (
    IMAGE,
    POSE,
    TIME,
    FaultConfig,
    corrupt_sequence,
    draw_copy,
    move_in_time,
)
from mtcm_nerfstudio.consistency.training.training_capture import TrainingCapture
from mtcm_nerfstudio.consistency.transformer_dataset import (
    DatasetConfig,
    draw_masks,
    draw_places,
    evidence_of,
    make_batch,
    make_example,
    mirrored,
)
from mtcm_nerfstudio.consistency.transformer_model import REASONS
from mtcm_nerfstudio.tokens.tokens import PARTS, assemble_tokens
from mtcm_nerfstudio.tokens.tokens import POSE as POSE_ENTRIES

CAPTURES = [capture("a", 24, 0), capture("b b", 12, 1), capture("ü", 9, 2)]
CONFIG = DatasetConfig(longest=20, batch_tokens=60)
PLAIN = DatasetConfig(
    longest=20,
    batch_tokens=60,
    reversed_share=0.0,
    shuffled_share=0.0,
    mirrored_share=0.0,
    drop_share=0.0,
    without_poses=0.0,
)


def test_the_same_arguments_give_the_same_batch_and_others_another() -> None:
    one, again = make_batch(CAPTURES, CONFIG, 3, 7), make_batch(CAPTURES, CONFIG, 3, 7)
    assert one.identity == again.identity
    for name in ("tokens", "masked", "replaced", "last_pose"):
        assert torch.equal(getattr(one, name), getattr(again, name))
    others = [make_batch(CAPTURES, CONFIG, 3, 8), make_batch(CAPTURES, CONFIG, 4, 7)]
    others.append(make_batch(CAPTURES, CONFIG, 3, 7, "validation"))
    for other in others:
        assert other.tokens.shape != one.tokens.shape or not torch.equal(other.tokens, one.tokens)


def test_a_batch_holds_one_identity() -> None:
    marked = [replace(c, raw=replace(c.raw, focals=np.full(len(c.raw), 0.1 * (i + 1)))) for i, c in enumerate(CAPTURES)]
    identities = set()
    for step in range(20):
        batch = make_batch(marked, CONFIG, 0, step)
        focals = batch.tokens[..., 393][batch.padding & batch.present[..., 4]]
        assert len(focals.unique()) <= 1
        identities.add(batch.identity)
    assert identities == {"a", "b b", "ü"}


def test_padding_marks_real_frames_and_fits_the_budget() -> None:
    for step in range(10):
        batch = make_batch(CAPTURES, CONFIG, 1, step)
        assert batch.padding[:, 0].all()
        assert not batch.tokens[~batch.padding].any() and not batch.present[~batch.padding].any()
        assert not batch.verdict_counts[~batch.padding].any()
        assert batch.tokens.shape[0] * batch.tokens.shape[1] <= CONFIG.batch_tokens


def copy_of(capture: TrainingCapture, kind: FaultKind) -> int:
    """The copy in which images have a fault of this kind; the first, as it came, for faults of poses."""
    return next((n for n, copy in enumerate(capture.copies) if kind in {f.kind for f in copy.faults}), 0)


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_labels_say_what_was_done(kind: FaultKind) -> None:
    config = FaultConfig(largest_share=0.4, kinds=(kind,), pose_share=1.0, moved_in_time=0.0)
    real = CAPTURES[0].with_copy(copy_of(CAPTURES[0], kind))
    any_changed = False
    for seed in range(8):
        corrupted = corrupt_sequence(real, CAPTURES[1:], config, np.random.default_rng(seed))
        pose_changed = (corrupted.capture.raw.c2w != real.raw.c2w).any(axis=(1, 2))
        image_changed = (corrupted.capture.raw.embeddings != real.raw.embeddings).any(axis=1)
        assert np.array_equal(corrupted.replaced[:, POSE], pose_changed)
        assert np.array_equal(corrupted.replaced[:, IMAGE], image_changed)
        any_changed |= (pose_changed if kind in POSE_FAULTS else image_changed).any()
        assert not (image_changed if kind in POSE_FAULTS else pose_changed).any()
        changed = pose_changed | image_changed
        assert set(corrupted.reason[changed]) <= {REASONS.index(REASON_OF[kind])}
        assert set(corrupted.reason[~changed]) == {IGNORED}
    assert any_changed


def test_poses_are_made_wrong_in_copies_with_corrupted_images_too() -> None:
    config = FaultConfig(largest_share=0.4, pose_share=1.0, moved_in_time=0.0)
    real = CAPTURES[0].with_copy(copy_of(CAPTURES[0], "defocus"))
    drawn = [corrupt_sequence(real, [], config, np.random.default_rng(seed)) for seed in range(6)]
    assert any(corrupted.replaced[:, POSE].any() for corrupted in drawn)
    assert all(corrupted.replaced[:, IMAGE].any() for corrupted in drawn)
    for corrupted in drawn:
        both = corrupted.replaced[:, POSE] & corrupted.replaced[:, IMAGE]
        assert set(corrupted.reason[both]) <= {REASONS.index("blur")}


def test_foreign_embeddings_come_from_the_others_where_there_are_no_copies() -> None:
    config = FaultConfig(kinds=("foreign",), moved_in_time=0.0)
    lone = replace(CAPTURES[0], copies=())
    corrupted = corrupt_sequence(lone, CAPTURES[1:], config, np.random.default_rng(1))
    lent = np.concatenate([other.raw.embeddings for other in CAPTURES[1:]])
    assert corrupted.replaced[:, IMAGE].any()
    for i in np.flatnonzero(corrupted.replaced[:, IMAGE]):
        assert (lent == corrupted.capture.raw.embeddings[i]).all(axis=1).any()
    assert not corrupt_sequence(lone, [], config, np.random.default_rng(1)).replaced.any()


def test_some_variants_are_clean_and_most_are_of_a_copy_with_corrupted_images() -> None:
    drawn = [draw_copy(CAPTURES[0], FaultConfig(), np.random.default_rng(seed)) for seed in range(200)]
    assert 0.1 < 1 - np.mean([faulty for _, faulty in drawn]) < 0.3
    assert 0.4 < np.mean([number > 0 for number, _ in drawn]) < 0.8
    only = [draw_copy(CAPTURES[0], FaultConfig(kinds=("exposure",)), np.random.default_rng(s))[0] for s in range(50)]
    assert set(only) <= {0, copy_of(CAPTURES[0], "exposure")}
    assert not corrupt_sequence(CAPTURES[0], [], FaultConfig(), np.random.default_rng(0), faulty=False).replaced.any()


def test_evidence_is_that_of_the_poses_as_they_are_claimed() -> None:
    config = FaultConfig(largest_share=0.2, kinds=("pose_10",), pose_share=1.0, moved_in_time=0.0)
    corrupted = corrupt_sequence(CAPTURES[0].with_copy(0), [], config, np.random.default_rng(2))
    wrong = corrupted.replaced[:, POSE]
    evidence = evidence_of(corrupted.capture, assemble_tokens(corrupted.capture.raw))
    assert evidence is not None and wrong.any()
    assert evidence.number("support")[wrong].max() < evidence.number("support")[~wrong].min()
    mirror = replace(corrupted.capture.raw, c2w=mirrored(corrupted.capture.raw.c2w))
    copies = tuple(replace(copy, table=copy.table.mirrored()) for copy in corrupted.capture.copies)
    turned = replace(corrupted.capture, raw=mirror, copies=copies)
    again = evidence_of(turned, assemble_tokens(turned.raw))
    assert again is not None
    np.testing.assert_allclose(again.frames, evidence.frames, atol=1e-5)
    assert evidence_of(replace(corrupted.capture, copies=()), assemble_tokens(corrupted.capture.raw)) is None


def test_frames_moved_in_time_keep_the_times_in_order() -> None:
    moved, flags = move_in_time(CAPTURES[0], 0.5, np.random.default_rng(0))
    assert flags.any()
    assert np.array_equal(moved.raw.timestamps, CAPTURES[0].raw.timestamps)
    assert np.array_equal((moved.raw.c2w != CAPTURES[0].raw.c2w).any(axis=(1, 2)), flags)
    rng = np.random.default_rng(0)
    corrupted = corrupt_sequence(
        CAPTURES[0], [], FaultConfig(clean_share=0.0, kinds=("pose_10",), moved_in_time=0.5), rng
    )
    assert corrupted.replaced[:, TIME].any()


def test_being_out_of_order_alone_is_no_inconsistency() -> None:
    config = replace(PLAIN, faults=FaultConfig(clean_share=0.0, largest_share=0.0, moved_in_time=1.0), masked_share=0.0)
    batch = make_batch(CAPTURES[:1], config, 0, 0)
    only_time = batch.replaced[..., TIME] & ~batch.replaced[..., :2].any(-1)
    assert only_time.any() and not batch.inconsistent[only_time].any()


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_the_last_pose_never_leaks(seed: int) -> None:
    """Whatever the last frame's pose, image and time are, the input is the same, to the last bit."""
    real = CAPTURES[1]
    rng = np.random.default_rng(seed)
    example = make_example(real, CAPTURES[:1], 8, PLAIN, np.random.default_rng(seed))
    places, _ = draw_places(len(real.raw), 8, PLAIN, np.random.default_rng(seed))
    raw = real.raw
    changed = raw.c2w.copy()
    changed[places[-1], :3, 3] += 50 * rng.normal(size=3)
    embeddings, times = raw.embeddings.copy(), raw.timestamps.copy()
    embeddings[places[-1]] += 1.0
    other = make_example(
        real.with_raw(replace(raw, c2w=changed, embeddings=embeddings, timestamps=times)),
        CAPTURES[:1],
        8,
        PLAIN,
        np.random.default_rng(seed),
    )
    assert len(example) == len(places) - 1
    for name in ("tokens", "present", "masked", "wanted", "replaced"):
        assert np.array_equal(getattr(example, name), getattr(other, name)), name
    assert example.last_pose_known
    assert not np.allclose(example.last_pose[:3], other.last_pose[:3])


def test_the_last_pose_is_the_real_one_in_the_inputs_frame() -> None:
    real = CAPTURES[0]
    config = replace(PLAIN, faults=FaultConfig(clean_share=1.0))
    example = make_example(real, [], 10, config, np.random.default_rng(5))
    places, _ = draw_places(len(real.raw), 10, config, np.random.default_rng(5))
    positions = real.raw.c2w[places, :3, 3]
    seen = example.tokens[:, POSE_ENTRIES][:, :3]
    unit = np.linalg.norm(positions[1] - positions[0]) / np.linalg.norm(seen[1] - seen[0])
    expected = np.linalg.norm(positions[-1] - positions[:-1], axis=1) / unit
    np.testing.assert_allclose(np.linalg.norm(example.last_pose[:3] - seen, axis=1), expected, rtol=1e-4)


def test_wanted_is_what_the_token_would_be_without_its_fault() -> None:
    config = replace(PLAIN, faults=FaultConfig(clean_share=0.0, moved_in_time=0.0), masked_share=0.0)
    example = make_example(CAPTURES[0], CAPTURES[1:], 18, config, np.random.default_rng(4))
    right = ~example.replaced.any(axis=1)
    assert right.any() and not right.all()
    np.testing.assert_allclose(example.wanted[right], example.tokens[right], atol=1e-5)
    assert (np.abs(example.wanted - example.tokens).max(axis=1) > 1e-4)[~right].all()


@given(frames=st.integers(1, 40), ratio=st.sampled_from([0.0, 0.3, 0.9]), seed=st.integers(0, 99))
def test_the_mask_ratio_is_that_of_frames(frames: int, ratio: float, seed: int) -> None:
    masked = draw_masks(frames, ratio, np.random.default_rng(seed))
    assert masked.any(axis=1).sum() == round(ratio * frames)


def test_whole_tokens_and_single_modalities_are_hidden() -> None:
    masked = draw_masks(400, 0.5, np.random.default_rng(0))
    patterns = {tuple(row) for row in masked[masked.any(axis=1)]}
    whole, image, pose = (True,) * 5, (True, *[False] * 4), (False, True, *[False] * 3)
    assert patterns == {whole, image, pose, (False, False, True, True, True)}


def test_hidden_and_absent_parts_are_not_judged() -> None:
    config = replace(CONFIG, drop_share=1.0)
    for step in range(10):
        batch = make_batch(CAPTURES, config, 0, step)
        visible = batch.present & ~batch.masked
        assert not (batch.judged & ~visible[..., [PARTS.index(n) for n in ("embedding", "pose", "timestamp")]]).any()


def test_frames_that_are_not_trusted_are_never_judged() -> None:
    trusted = np.arange(24) % 3 != 0
    raw = replace(CAPTURES[0].raw, focals=np.where(trusted, 0.8, 0.9))
    doubtful = replace(CAPTURES[0], raw=raw, trusted=trusted)
    for step in range(5):
        batch = make_batch([doubtful], replace(PLAIN, masked_share=0.0), 0, step)
        distrusted = (batch.tokens[..., 393] > 0.85) & batch.padding
        assert (batch.replaced.any(-1) & distrusted).any() or not batch.replaced.any()
        assert not batch.judged[distrusted].any() and (batch.reason[distrusted] == IGNORED).all()
        assert batch.judged[batch.padding & ~distrusted].any()


def test_shuffled_variants_have_no_time_and_no_next_pose() -> None:
    config = replace(PLAIN, shuffled_share=1.0)
    batch = make_batch(CAPTURES[:1], config, 0, 0)
    assert not batch.present[..., PARTS.index("timestamp")].any() and not batch.last_pose_known.any()


def test_reversed_variants_have_times_that_grow() -> None:
    config = replace(PLAIN, reversed_share=1.0, faults=FaultConfig(clean_share=1.0))
    example = make_example(CAPTURES[0], [], 12, config, np.random.default_rng(0))
    assert (np.diff(example.tokens[:, 391]) > 0).all()


def test_mirroring_twice_is_nothing_and_keeps_rotations() -> None:
    c2w = CAPTURES[0].raw.c2w
    np.testing.assert_allclose(mirrored(mirrored(c2w)), c2w)
    np.testing.assert_allclose(np.linalg.det(mirrored(c2w)[:, :3, :3]), 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_ratio": 1.0}, r"mask_ratio must lie in \[0, 1\), got 1.0"),
        ({"drop_share": 2.0}, r"drop_share must lie in \[0, 1\], got 2.0"),
        ({"shortest": 1}, r"shortest must lie in \[2, longest = 128\], got 1"),
        ({"batch_tokens": 3}, "batch_tokens must be at least longest = 128, got 3"),
    ],
)
def test_impossible_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DatasetConfig(**change)
