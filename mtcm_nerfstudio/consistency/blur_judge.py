"""A logistic regression on how wide a frame's edges are, beside the transformer and the forest.

Blur as people's hands make it is milder than what is put into training, and comes in runs. Among 120 numbers a forest
hardly weighs the few that show it, and the transformer no more; these few alone rank it well.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression

from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS

BLUR_NUMBERS = ("log blur", "blur above in time", "blur", "log keypoint scale in this capture")
"""Of ``FRAME_NUMBERS``: the width of edges, above that of the frames before and after, and at the same points above
that of other frames; the scale of keypoints beside the capture's."""
BLURRED_SHARE = 0.03
"""Share of blurred frames at which the probability is fitted."""
_COLUMNS = [FRAME_NUMBERS.index(name) for name in BLUR_NUMBERS]


class BlurJudge(NamedTuple):
    """p = sigmoid(weights · numbers + offset)."""

    weights: tuple[float, ...]
    """Of ``BLUR_NUMBERS``; none where there is no such judge."""
    offset: float

    def probability(self, frames: Float[np.ndarray, "frame frame_number"]) -> Float[np.ndarray, " frame"]:
        """Return the probability that each frame is blurred, 0 without a judge.

        Args:
            frames: see ``Evidence.frames``.
        """
        if not self.weights:
            return np.zeros(len(frames))
        total = frames[:, _COLUMNS] @ np.array(self.weights) + self.offset
        return 1.0 / (1.0 + np.exp(-np.clip(total, -60.0, 60.0)))


NO_BLUR_JUDGE = BlurJudge((), 0.0)


def fit_blur_judge(
    frames: Float[np.ndarray, "frame frame_number"],
    label: Int[np.ndarray, " frame"],
    weight: Float[np.ndarray, " frame"],
    blurred: int,
) -> BlurJudge:
    """Fit the judge on good and on blurred frames; ``NO_BLUR_JUDGE`` where one of them is absent.

    Args:
        frames: numbers of example frames, see ``Evidence.frames``.
        label: 0 for good frames, else what is wrong with them.
        weight: how much each counts.
        blurred: label of blurred frames.
    """
    counts = (label == 0) | (label == blurred)
    numbers, faulty, weight = frames[counts][:, _COLUMNS], label[counts] == blurred, weight[counts]
    if not faulty.any() or faulty.all():
        return NO_BLUR_JUDGE
    share = np.where(faulty, BLURRED_SHARE / weight[faulty].sum(), (1.0 - BLURRED_SHARE) / weight[~faulty].sum())
    found = LogisticRegression(C=10.0, max_iter=500).fit(numbers, faulty, sample_weight=weight * share * len(weight))
    return BlurJudge(tuple(round(float(w), 4) for w in found.coef_[0]), round(float(found.intercept_[0]), 4))


def either(first: Float[np.ndarray, " frame"], second: Float[np.ndarray, " frame"]) -> Float[np.ndarray, " frame"]:
    """Return the probability that one of two independent judges is right to find a fault."""
    return 1.0 - (1.0 - first) * (1.0 - second)
