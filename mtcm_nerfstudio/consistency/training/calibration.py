"""From the two judges' logits to a probability, and the threshold above which a frame is dropped."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize

from mtcm_nerfstudio.consistency.training.batch import collate
from mtcm_nerfstudio.consistency.training.training_capture import TrainingCapture
from mtcm_nerfstudio.consistency.transformer_dataset import DatasetConfig, draw_examples
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer

GOOD_FRAMES_LOST = 0.005
"""Share of the good frames of a capture that the threshold may cost, on average over captures."""
FAULTY_SHARE = 0.03
"""Share of faulty frames in captures as people take them: about that of the captures with labels in
``data/captures.json``. Probabilities are calibrated at this rate."""

_SMALLEST_SCALE = 1e-3
_LOWEST, _HIGHEST = 0.5, 0.95
"""Bounds of the threshold: what is more likely good than faulty is never dropped."""


class Calibration(NamedTuple):
    """p = sigmoid(scale · transformer's logit + forest · forest's logit + offset)."""

    scale: float
    forest: float
    offset: float

    def probability(
        self, logit: Float[np.ndarray, " frame"], forest_logit: Float[np.ndarray, " frame"]
    ) -> Float[np.ndarray, " frame"]:
        """Return the calibrated probability that each frame is faulty."""
        total = self.scale * logit + self.forest * forest_logit + self.offset
        return 1.0 / (1.0 + np.exp(-np.clip(total, -60.0, 60.0)))


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Logits of frames in variants that training never drew, and what is true of them; one row a frame."""

    logit: Float[np.ndarray, " frame"]
    forest_logit: Float[np.ndarray, " frame"]
    faulty: Bool[np.ndarray, " frame"]


@torch.no_grad()
def held_out_frames(
    model: ConsistencyTransformer, captures: Sequence[TrainingCapture], config: DatasetConfig, seed: int, batches: int
) -> HeldOut:
    """Score variants that training never drew, nothing hidden."""
    model.eval()
    parts: list[HeldOut] = []
    for step in range(batches):
        name, examples = draw_examples(captures, config, seed, step, "calibration")
        batch = collate(name, examples).to(next(model.parameters()).device)
        output = model(batch.tokens, batch.present, batch.padding, torch.zeros_like(batch.masked), batch.evidence)
        counts = batch.verdict_counts.cpu().numpy()
        arrays = (output.inconsistency_logit, output.forest_logit, batch.inconsistent)
        logit, forest_logit, faulty = (array.cpu().numpy()[counts] for array in arrays)
        parts.append(HeldOut(logit.astype(np.float64), forest_logit.astype(np.float64), faulty))
    return HeldOut(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(HeldOut)))


def fit_calibration(
    logit: Float[np.ndarray, " frame"],
    forest_logit: Float[np.ndarray, " frame"],
    faulty: Bool[np.ndarray, " frame"],
    faulty_share: float = FAULTY_SHARE,
) -> Calibration:
    """Fit the weights of the two judges by maximum likelihood, at a given rate of faults (after Platt, 1999).

    Platt's smoothed targets keep the fit finite where the classes do not overlap; frames are weighted so that faulty
    ones have the share that they have in use. Where one class is absent there is nothing to fit: both count half.

    Args:
        logit: the transformer's.
        forest_logit: the forest's.
        faulty: what is true.
        faulty_share: rate of faulty frames in use, in (0, 1).
    """
    positive, negative = int(faulty.sum()), int((~faulty).sum())
    if not positive or not negative:
        return Calibration(0.5, 0.5, 0.0)
    target = np.where(faulty, (positive + 1.0) / (positive + 2.0), 1.0 / (negative + 2.0))
    weight = np.where(faulty, faulty_share / positive, (1.0 - faulty_share) / negative)
    numbers = np.stack([logit, forest_logit, np.ones_like(logit)])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        z = parameters @ numbers
        slope = weight * (1.0 / (1.0 + np.exp(-np.clip(z, -60.0, 60.0))) - target)
        return float((weight * (np.logaddexp(0.0, z) - target * z)).sum()), (numbers * slope).sum(axis=1)

    bounds = [(_SMALLEST_SCALE, None), (0.0, None), (None, None)]
    found = minimize(loss, np.array([0.5, 0.5, -3.0]), jac=True, bounds=bounds, options={"ftol": 1e-12, "maxiter": 500})
    return Calibration(*(float(value) for value in found.x))


class RiskControl(NamedTuple):
    """A threshold and what it is known to cost."""

    threshold: float
    bound: float
    """Bound on the expected share of good frames that are dropped in a new capture like those it was fitted on."""


def control_risk(
    probability: Float[np.ndarray, " frame"],
    capture: Int[np.ndarray, " frame"],
    most_dropped: float,
    lost: float = GOOD_FRAMES_LOST,
) -> RiskControl:
    """Return the smallest threshold whose cost is controlled, by conformal risk control (Angelopoulos et al., 2024).

    A capture is one draw, its loss the share of its good frames that are dropped. With n captures and losses of at most
    B, the expected loss in a new one is at most (Σ losses + B) / (n + 1).

    Args:
        probability: of good frames of captures as they came, judged by networks that never saw them.
        capture: number of each frame's capture.
        most_dropped: B, the largest share of a capture that may be dropped, in [0, 1].
        lost: the bound that is wanted, in [0, 1].

    Returns:
        The smallest threshold within its limits that keeps the bound, or the largest one where none does, with the
        bound that holds.
    """
    names, number = np.unique(capture, return_inverse=True)
    size = np.bincount(number, minlength=max(len(names), 1))

    def bound(threshold: float) -> float:
        loss = np.bincount(number, probability >= threshold, len(size)) / np.maximum(size, 1)
        return float((np.minimum(loss, most_dropped).sum() + most_dropped) / (len(names) + 1))

    candidates = np.unique(np.clip(np.append(probability + 1e-6, [_LOWEST, _HIGHEST]), _LOWEST, _HIGHEST))
    low, high = 0, len(candidates) - 1
    while low < high:  # the bound falls as the threshold rises
        middle = (low + high) // 2
        low, high = (low, middle) if bound(candidates[middle]) <= lost else (middle + 1, high)
    chosen = float(candidates[low])
    return RiskControl(chosen, bound(chosen))
