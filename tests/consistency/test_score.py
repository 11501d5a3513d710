import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_capture import names, orbit

from mtcm_nerfstudio.consistency.blur_judge import BLUR_NUMBERS
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard
from mtcm_nerfstudio.consistency.forest import ForestConfig, fit_forest
from mtcm_nerfstudio.consistency.score import MODEL_REASONS, read_tokens, score_frames, windows
from mtcm_nerfstudio.consistency.transformer_model import REASONS, ConsistencyTransformer, ModelConfig
from mtcm_nerfstudio.evidence.frame_numbers import Evidence
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS, PAIR_NUMBERS
from mtcm_nerfstudio.evidence.pair_table import CELLS
from mtcm_nerfstudio.tokens.tokens import RawFeatures, assemble_tokens


def features(count: int) -> RawFeatures:
    rng = np.random.default_rng(0)
    absent = np.full(count, np.nan)
    embeddings = rng.normal(size=(count, 384))
    return RawFeatures(embeddings, orbit(count), absent, absent, absent, tuple(names(count)), "efficientnet-lite0")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ConsistencyTransformer(ModelConfig(layers=1, heads=4)).eval()


def card(**changes) -> CheckpointCard:
    return CheckpointCard(name="test", embedder="efficientnet-lite0", embedder_version="1", **changes)


@given(st.integers(1, 400), st.integers(2, 100))
def test_windows_cover_everything_and_overlap_by_half(count, length):
    found = windows(count, length)
    assert np.array_equal(np.unique(np.concatenate(found)), np.arange(count))
    assert all(len(window) == min(length, count) and (np.diff(window) == 1).all() for window in found)
    for before, after in itertools.pairwise(found):
        assert before[-1] - after[0] + 1 >= length // 2


def test_scores_are_calibrated_probabilities(model):
    raw = features(9)
    output = read_tokens(model, assemble_tokens(raw))
    scores = score_frames(model, card(calibration_scale=2.0, calibration_offset=-1.0), raw)
    expected = torch.sigmoid(2.0 * output.inconsistency_logit[0].double() - 1.0).numpy()
    np.testing.assert_allclose(scores.inconsistency, expected, atol=1e-6)
    np.testing.assert_allclose(scores.reasons.sum(axis=1), 1.0)
    np.testing.assert_allclose(scores.states, output.states[0].numpy(), atol=1e-6)
    assert scores.modality.shape == (9, 3)


def evidence_about(count: int) -> Evidence:
    """Evidence about single frames, at random."""
    numbers = np.random.default_rng(1).normal(size=(count, len(FRAME_NUMBERS)))
    pairs = np.zeros((0, 2), dtype=int)
    return Evidence(
        numbers, pairs, np.zeros((0, 2, len(PAIR_NUMBERS))), np.zeros((count, CELLS)), np.full(count, np.nan)
    )


@pytest.fixture(scope="module")
def judges():
    """A transformer and beside it a forest that takes every frame whose first number is large for foreign."""
    torch.manual_seed(0)
    model = ConsistencyTransformer(ModelConfig(layers=1, heads=4)).eval()
    numbers = np.random.default_rng(0).normal(size=(400, len(FRAME_NUMBERS)))
    label = np.where(numbers[:, 0] > 0.5, 1 + REASONS.index("foreign"), 0)
    config = ForestConfig(trees=30, max_features=1.0)
    model.set_forest(fit_forest(numbers, label, 1 + len(REASONS), config))
    return model


def test_both_judges_count_by_their_weights(judges):
    raw, evidence = features(12), evidence_about(12)
    output = read_tokens(judges, assemble_tokens(raw), evidence)
    weights = {"calibration_scale": 0.5, "calibration_forest": 0.8, "calibration_offset": -1.0}
    scores = score_frames(judges, card(**weights), raw, evidence)
    logits = 0.5 * output.inconsistency_logit[0].double() + 0.8 * output.forest_logit[0].double() - 1.0
    np.testing.assert_allclose(scores.inconsistency, torch.sigmoid(logits).numpy(), atol=1e-6)
    assert np.corrcoef(scores.inconsistency, evidence.frames[:, 0] > 0.5)[0, 1] > 0.8


def test_the_reason_is_the_mean_of_what_both_judges_name(judges):
    raw, evidence = features(12), evidence_about(12)
    output = read_tokens(judges, assemble_tokens(raw), evidence)
    scores = score_frames(judges, card(), raw, evidence)
    named, by_forest = output.reason_logits[0].softmax(-1).numpy(), output.forest_reasons[0].numpy()
    certain = by_forest.sum(axis=1) == 0  # no tree takes the frame for faulty, so none names a reason
    np.testing.assert_allclose(scores.reasons, np.where(certain[:, None], named, 0.5 * (named + by_forest)), atol=1e-6)
    faulty = evidence.frames[:, 0] > 0.6
    assert faulty.any() and (scores.reasons[faulty].argmax(axis=1) == MODEL_REASONS.index("foreign")).all()
    without = score_frames(judges, card(), raw)
    np.testing.assert_allclose(
        without.reasons, read_tokens(judges, assemble_tokens(raw)).reason_logits[0].softmax(-1).numpy(), atol=1e-6
    )


def test_a_blurred_frame_is_faulty_whatever_the_others_say_and_its_reason_is_blur(judges):
    raw, evidence = features(12), evidence_about(12)
    evidence.frames[:, [FRAME_NUMBERS.index(name) for name in BLUR_NUMBERS]] = 0.0
    evidence.frames[:, FRAME_NUMBERS.index("log blur")] = -1.0  # as sharp as captures are
    evidence.frames[4, FRAME_NUMBERS.index("log blur")] = 2.0
    evidence.frames[:, FRAME_NUMBERS.index("log10 keypoints")] = 2.5
    without = score_frames(judges, card(calibration_offset=-9.0), raw, evidence)
    scores = score_frames(
        judges, card(calibration_offset=-9.0, blur_weights=(9.0, 0.0, 0.0), blur_offset=-9.0), raw, evidence
    )
    assert without.inconsistency.max() < 0.2 and scores.inconsistency[4] > 0.99
    assert MODEL_REASONS[scores.reasons[4].argmax()] == "blur" and scores.modality[4, 0] > 0.99
    np.testing.assert_array_equal(scores.modality[:, 1:], without.modality[:, 1:])
    others = np.arange(12) != 4
    np.testing.assert_allclose(scores.inconsistency[others], without.inconsistency[others], atol=1e-3)
    np.testing.assert_allclose(scores.reasons.sum(axis=1), 1.0, atol=1e-6)


def test_without_evidence_the_transformers_logit_stands_for_both(judges):
    raw = features(9)
    one = score_frames(judges, card(calibration_scale=0.5, calibration_forest=0.5), raw)
    other = score_frames(judges, card(calibration_scale=1.0, calibration_forest=0.0), raw)
    np.testing.assert_allclose(one.inconsistency, other.inconsistency, atol=1e-9)


def test_long_captures_are_read_in_windows_of_the_trained_length(model):
    raw = features(30)
    scores = score_frames(model, card(window=20), raw)
    left = score_frames(model, card(window=20), raw.subset(np.arange(20)))
    np.testing.assert_allclose(scores.inconsistency[:10], left.inconsistency[:10], atol=1e-9)
    assert np.isfinite(scores.states).all() and len(scores) == 30


def test_no_frames_no_scores(model):
    scores = score_frames(model, card(), features(0))
    assert len(scores) == 0 and scores.states.shape == (0, 256)
