"""The judge of blur beside the transformer and the forest: fitted to few numbers, and combined with them."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mtcm_nerfstudio.consistency.blur_judge import (
    BLUR_NUMBERS,
    NO_BLUR_JUDGE,
    BlurJudge,
    either,
    fit_blur_judge,
    fit_scale,
)
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, card_from_json, card_to_json
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS

KEYPOINTS = FRAME_NUMBERS.index("log10 keypoints")
CARD = CheckpointCard("test", "efficientnet-lite0", "1")


def examples(count: int = 600, share: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Frames in whose other numbers nothing tells, a share of them blurred (label 2), a few with another fault."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(count, len(FRAME_NUMBERS)))
    label = np.where(rng.random(count) < share, 2, np.where(rng.random(count) < 0.1, 1, 0))
    for name in BLUR_NUMBERS:
        numbers[:, FRAME_NUMBERS.index(name)] += 1.5 * (label == 2)
    numbers[:, KEYPOINTS] = 2.5
    return numbers, label


def test_it_ranks_blurred_frames_that_it_never_saw():
    judge = fit_blur_judge(*examples(), np.ones(600), blurred=2)
    numbers, label = examples(seed=1)
    counts = label != 1
    assert roc_auc_score(label[counts] == 2, judge.probability(numbers)[counts]) > 0.97
    assert min(judge.weights) > 0, "wider edges are never a sign of sharpness"


def test_its_probability_is_that_of_few_blurred_frames_whatever_the_examples_hold():
    for share in (0.1, 0.5):
        judge = fit_blur_judge(*examples(4000, share), np.ones(4000), blurred=2)
        numbers, label = examples(4000, share, seed=2)
        good, blurred = (judge.probability(numbers)[label == kind].mean() for kind in (0, 2))
        assert 0.97 * good + 0.03 * blurred == pytest.approx(0.03, abs=0.006)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_without_both_kinds_there_is_no_judge(label):
    numbers, _ = examples(20)
    judge = fit_blur_judge(numbers, np.full(20, label), np.ones(20), blurred=2)
    assert judge == NO_BLUR_JUDGE and not judge.probability(numbers).any()


def test_a_wall_without_keypoints_is_not_blurred():
    judge = fit_blur_judge(*examples(), np.ones(600), blurred=2)
    numbers, label = examples(seed=1)
    numbers[::2, KEYPOINTS] = np.log10(1.0 + 4)
    found = judge.probability(numbers)
    assert not found[::2].any() and found[1::2][label[1::2] == 2].mean() > 0.4


def test_softness_that_all_frames_share_is_no_frames_fault():
    judge = BlurJudge((5.0, 8.0, 6.0), -3.0)
    rng = np.random.default_rng(0)
    numbers = np.zeros((40, len(FRAME_NUMBERS)))
    numbers[:, KEYPOINTS] = 2.5
    numbers[:, FRAME_NUMBERS.index("log blur")] = 1.0 + rng.normal(0, 0.02, 40)
    numbers[7, FRAME_NUMBERS.index("log blur")] += 1.0
    found = judge.probability(numbers)
    assert found[7] > 0.25 and np.delete(found, 7).max() < 0.01
    numbers[:, FRAME_NUMBERS.index("log blur")] -= 2.0
    sharper = judge.probability(numbers)
    assert (sharper < found).all(), "a sharp capture is judged by its absolute width"


def test_a_judge_that_is_too_sure_is_put_right_by_frames_that_it_never_saw():
    judge = fit_blur_judge(*examples(4000), np.ones(4000), blurred=2)
    too_sure = judge.rescaled(4.0, 3.0)
    numbers, label = examples(4000, 0.03, seed=3)
    counts = label != 1
    found = too_sure.rescaled(*fit_scale(too_sure.probability(numbers)[counts], label[counts] == 2))
    numbers, label = examples(4000, 0.03, seed=4)
    probability = found.probability(numbers)[label != 1]
    assert probability.mean() == pytest.approx(0.03, abs=0.01)
    assert np.corrcoef(probability, judge.probability(numbers)[label != 1])[0, 1] > 0.95
    assert fit_scale(np.array([0.2, 0.4]), np.array([False, False])) == (1.0, 0.0)


def test_either_is_the_chance_that_one_of_two_independent_judges_is_right():
    found = either(np.array([0.0, 0.3, 0.5, 1.0]), np.array([0.2, 0.0, 0.5, 0.1]))
    np.testing.assert_allclose(found, [0.2, 0.3, 0.75, 1.0])


def test_it_travels_in_the_card_and_a_card_without_it_opens(tmp_path):
    card = replace(CARD, blur_weights=(1.0, 2.0, 3.0), blur_offset=-5.0)
    again = card_from_json(card_to_json(card), tmp_path / "card.json")
    assert again == card and again.blur_judge == BlurJudge((1.0, 2.0, 3.0), -5.0)
    assert CARD.blur_judge == NO_BLUR_JUDGE
    with pytest.raises(ValueError, match="the blur judge has 3 weights, got 2"):
        replace(CARD, blur_weights=(1.0, 2.0))
