"""A logistic regression on how wide a frame's edges are, beside the transformer and the forest.

Natural motion blur is milder than the corruptions of training, and comes in runs. Among 144 numbers the forest and the
transformer hardly weigh the few that show it; these few alone rank it well.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression

from mtcm_nerfstudio.evidence.keypoints import has_known_blur
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS

BLUR_NUMBERS = ("log blur", "blur above in time", "blur")
"""Of ``FRAME_NUMBERS``: the width of edges, above that of the frames before and after, and at the same points above
that of other frames."""
BLURRED_SHARE = 0.03
"""Share of blurred frames at which the probability is fitted."""
_SHARP_CAPTURE = -0.6
"""Logarithm of the edge width, in pixels, that the sharpest tenth of a capture's frames has at the most, as people take
them. Where even these are softer (an old lens, upscaled video), softness is the capture's and no frame's fault."""
_KEYPOINTS = FRAME_NUMBERS.index("log10 keypoints")
_COLUMNS = [FRAME_NUMBERS.index(name) for name in BLUR_NUMBERS]


class BlurJudge(NamedTuple):
    """p = sigmoid(weights · numbers + offset)."""

    weights: tuple[float, ...]
    """Of ``BLUR_NUMBERS``; none where there is no such judge."""
    offset: float

    def probability(self, frames: Float[np.ndarray, "frame frame_number"]) -> Float[np.ndarray, " frame"]:
        """Return the probability that each frame is blurred; 0 without a judge, and without keypoints to measure it at.

        Args:
            frames: of a whole capture, see ``Evidence.frames``.
        """
        known = has_known_blur(frames[:, _KEYPOINTS])
        if not self.weights or not known.any():
            return np.zeros(len(frames))
        numbers = frames[:, _COLUMNS].copy()
        numbers[:, 0] -= max(float(np.quantile(numbers[known, 0], 0.1)) - _SHARP_CAPTURE, 0.0)
        total = numbers @ np.array(self.weights) + self.offset
        return np.where(known, 1.0 / (1.0 + np.exp(-np.clip(total, -30.0, 30.0))), 0.0)

    def rescaled(self, slope: float, shift: float) -> "BlurJudge":
        """Return the judge whose logits are ``slope`` times these plus ``shift``; see ``fit_scale``."""
        return BlurJudge(tuple(round(slope * w, 4) for w in self.weights), round(slope * self.offset + shift, 4))


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
    counts = ((label == 0) | (label == blurred)) & has_known_blur(frames[:, _KEYPOINTS])
    numbers, faulty, weight = frames[counts][:, _COLUMNS], label[counts] == blurred, weight[counts]
    if not faulty.any() or faulty.all():
        return NO_BLUR_JUDGE
    found = LogisticRegression(C=10.0, max_iter=500).fit(numbers, faulty, sample_weight=_weights(faulty, weight))
    return BlurJudge(tuple(round(float(w), 4) for w in found.coef_[0]), round(float(found.intercept_[0]), 4))


def fit_scale(probability: Float[np.ndarray, " frame"], blurred: Bool[np.ndarray, " frame"]) -> tuple[float, float]:
    """Fit slope and shift of a judge's logits to frames that it never saw (Platt, 1999).

    Where good or blurred frames are absent there is nothing to fit: 1 and 0.

    Args:
        probability: what the judge gave these frames; 0 where it could not be measured.
        blurred: what is true of them.
    """
    measured = probability > 0
    logit, blurred = np.log(probability[measured]) - np.log1p(-probability[measured]), blurred[measured]
    if not blurred.any() or blurred.all():
        return 1.0, 0.0
    # A few blurred frames are separated too easily: Platt's soft targets keep the slope finite. Every frame counts as
    # blurred and as good, in the proportion of its target.
    target = np.where(blurred, (blurred.sum() + 1.0) / (blurred.sum() + 2.0), 1.0 / ((~blurred).sum() + 2.0))
    weight = _weights(blurred)
    found = LogisticRegression(C=100.0).fit(
        np.tile(logit, 2)[:, None],
        np.repeat([True, False], len(logit)),
        sample_weight=np.concatenate([weight * target, weight * (1.0 - target)]),
    )
    return float(found.coef_[0, 0]), float(found.intercept_[0])


def _weights(
    blurred: Bool[np.ndarray, " frame"], weight: Float[np.ndarray, " frame"] | float = 1.0
) -> Float[np.ndarray, " frame"]:
    """Return weights of mean 1 with which blurred frames have the share that they have in use."""
    weight = weight * np.ones(len(blurred))
    share = np.where(blurred, BLURRED_SHARE / weight[blurred].sum(), (1.0 - BLURRED_SHARE) / weight[~blurred].sum())
    return weight * share * len(blurred)


def either(first: Float[np.ndarray, " frame"], second: Float[np.ndarray, " frame"]) -> Float[np.ndarray, " frame"]:
    """Return the probability that one of two independent judges is right to find a fault."""
    return 1.0 - (1.0 - first) * (1.0 - second)
