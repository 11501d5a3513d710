"""Losses against plain numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcm_nerfstudio.consistency import losses
from mtcm_nerfstudio.consistency.losses import IGNORED, Losses, LossWeights


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@settings(max_examples=20)
@given(seed=st.integers(0, 999), share=st.sampled_from([0.0, 0.3, 1.0]))
def test_reconstruction_is_the_briefs_formula(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    predicted, target = rng.normal(size=(2, 3, 4, 394))
    hidden = rng.random((3, 4, 394)) < share
    masked_tokens = [(c, f) for c in range(3) for f in range(4) if hidden[c, f].any()]
    squares = [((predicted[c, f] - target[c, f])[hidden[c, f]] ** 2).sum() for c, f in masked_tokens]
    expected = np.mean(squares) if squares else 0.0
    found = losses.reconstruction_loss(torch.tensor(predicted), torch.tensor(target), torch.tensor(hidden))
    np.testing.assert_allclose(float(found), expected)


def test_reconstruction_never_reads_what_was_not_hidden() -> None:
    target = torch.full((1, 2, 394), torch.nan)
    target[0, 0, :5] = 1.0
    hidden = torch.zeros(1, 2, 394, dtype=torch.bool)
    hidden[0, 0, :5] = True
    assert float(losses.reconstruction_loss(torch.zeros(1, 2, 394), target, hidden)) == 5.0


def test_pose_is_l1_to_the_last_pose_with_either_sign_of_the_quaternion() -> None:
    rng = np.random.default_rng(0)
    predicted, last = rng.normal(size=(2, 4, 7))
    known = np.array([True, True, False, True])
    each = np.abs(predicted[:, :3] - last[:, :3]).sum(1) + np.minimum(
        np.abs(predicted[:, 3:] - last[:, 3:]).sum(1), np.abs(predicted[:, 3:] + last[:, 3:]).sum(1)
    )
    found = losses.next_pose_loss(torch.tensor(predicted), torch.tensor(last), torch.tensor(known))
    np.testing.assert_allclose(float(found), each[known].mean())


def test_detection_is_cross_entropy_over_what_counts() -> None:
    rng = np.random.default_rng(1)
    logits, replaced, counts = rng.normal(size=(2, 5)), rng.random((2, 5)) < 0.4, rng.random((2, 5)) < 0.7
    p = sigmoid(logits)
    entropy = -np.where(replaced, np.log(p), np.log(1 - p))
    found = losses.detection_loss(torch.tensor(logits), torch.tensor(replaced), torch.tensor(counts))
    np.testing.assert_allclose(float(found), entropy[counts].mean())


def test_reason_counts_frames_with_a_reason_only() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(2, 3, 5))
    reason = np.array([[0, IGNORED, 4], [IGNORED, 2, IGNORED]])
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.mean([log_p[0, 0, 0], log_p[0, 2, 4], log_p[1, 1, 2]])
    np.testing.assert_allclose(float(losses.reason_loss(torch.tensor(logits), torch.tensor(reason))), expected)


def test_nothing_that_counts_is_zero_and_not_nan() -> None:
    none = torch.zeros(2, 3, dtype=torch.bool)
    assert float(losses.detection_loss(torch.randn(2, 3), none, none)) == 0.0
    assert float(losses.reason_loss(torch.randn(2, 3, 5), torch.full((2, 3), IGNORED))) == 0.0
    assert float(losses.next_pose_loss(torch.randn(2, 7), torch.randn(2, 7), none[:, 0])) == 0.0


def test_identity_is_zero_for_the_same_moments_and_grows_with_a_shift() -> None:
    states = torch.randn(50, 8, dtype=torch.float64)
    mean, deviation = losses.state_moments(states)
    assert float(losses.identity_loss(states, mean, deviation)) == pytest.approx(0.0, abs=1e-12)
    assert float(losses.identity_loss(states + 2.0, mean, deviation)) == pytest.approx(4.0)
    np.testing.assert_allclose(deviation, states.numpy().std(0), atol=1e-6)


def test_total_is_the_weighted_sum() -> None:
    values = Losses(*(torch.tensor(float(i)) for i in range(1, 7)))
    weights = LossWeights(reconstruction=1.0, pose=10.0, consistency=100.0, modality=1e3, reason=0.0, identity=0.5)
    assert float(values.total(weights)) == 1 + 20 + 300 + 4000 + 0 + 3


@pytest.mark.parametrize("name", ["reconstruction", "identity"])
def test_a_negative_weight_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"the weight of the {name} loss must not be negative, got -1"):
        LossWeights(**{name: -1.0})


def test_gradients_are_those_of_finite_differences() -> None:
    hidden, known = torch.rand(1, 2, 394) < 0.02, torch.tensor([True])
    target, last = torch.randn(1, 2, 394, dtype=torch.float64), torch.randn(1, 7, dtype=torch.float64)
    predicted = torch.randn(1, 2, 394, dtype=torch.float64, requires_grad=True)
    pose = torch.randn(1, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: losses.reconstruction_loss(x, target, hidden), (predicted,))
    assert torch.autograd.gradcheck(lambda x: losses.next_pose_loss(x, last, known), (pose,))
