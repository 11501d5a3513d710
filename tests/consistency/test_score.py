import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_capture import names, orbit

from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard
from mtcm_nerfstudio.consistency.score import MODEL_REASONS, read_tokens, score_frames, windows
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer, ModelConfig
from mtcm_nerfstudio.tokens.evidence.assess import FRAME_NUMBERS, PAIR_NUMBERS, Evidence
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


def test_a_stranger_is_inconsistent_by_its_image_and_foreign(model):
    raw = features(9)
    raw.embeddings[4] = 5.0 * raw.embeddings[4]
    numbers = np.zeros((9, len(FRAME_NUMBERS)))
    numbers[np.arange(9) != 4, FRAME_NUMBERS.index("trust")] = 1.0
    plain = Evidence(numbers, np.zeros((0, 2), int), np.zeros((0, 2, len(PAIR_NUMBERS))))
    before, after = (score_frames(model, card(calibration_stranger=weight), raw, plain) for weight in (0.0, 30.0))
    rest = np.arange(9) != 4
    for name in ("inconsistency", "modality", "reasons"):
        np.testing.assert_array_equal(getattr(after, name)[rest], getattr(before, name)[rest])
    assert after.inconsistency[4] > 0.99 > before.inconsistency[4] and after.modality[4, 0] > before.modality[4, 0]
    assert after.reasons[4].argmax() == MODEL_REASONS.index("foreign")
    without = [score_frames(model, card(calibration_stranger=weight), raw).inconsistency for weight in (0.0, 30.0)]
    np.testing.assert_array_equal(*without)


def test_long_captures_are_read_in_windows_of_the_trained_length(model):
    raw = features(30)
    scores = score_frames(model, card(window=20), raw)
    left = score_frames(model, card(window=20), raw.subset(np.arange(20)))
    np.testing.assert_allclose(scores.inconsistency[:10], left.inconsistency[:10], atol=1e-9)
    assert np.isfinite(scores.states).all() and len(scores) == 30


def test_no_frames_no_scores(model):
    scores = score_frames(model, card(), features(0))
    assert len(scores) == 0 and scores.states.shape == (0, 256)
