"""From logits to probabilities, and the threshold above which a frame is dropped."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize

from mtcm_nerfstudio.consistency.training.capture import TrainingCapture
from mtcm_nerfstudio.consistency.transformer_dataset import DatasetConfig, make_batch
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer

CLEAN_FRAMES_LOST = 0.01
"""Share of clean frames that the threshold may cost."""

_SMALLEST_SCALE = 1e-3
_LOWEST, _HIGHEST = 0.2, 0.99
"""Bounds of the threshold: what is all but certain goes, and what is hardly in doubt stays."""
_HEAVIEST = 60.0
"""Bound of the weight of strangeness: a tenth of it is then worth a logit of six."""


@torch.no_grad()
def held_out_logits(
    model: ConsistencyTransformer, captures: Sequence[TrainingCapture], config: DatasetConfig, seed: int, batches: int
) -> tuple[Float[np.ndarray, " frame"], Bool[np.ndarray, " frame"]]:
    """Score variants that training never drew, nothing hidden: logits, and which frames had a fault."""
    model.eval()
    logits, faulty = [], []
    for step in range(batches):
        batch = make_batch(captures, config, seed, step, "calibration").to(next(model.parameters()).device)
        output = model(batch.tokens, batch.present, batch.padding, torch.zeros_like(batch.masked), batch.evidence)
        counts = batch.verdict_counts
        logits.append(output.inconsistency_logit[counts].cpu().numpy())
        faulty.append(batch.inconsistent[counts].cpu().numpy())
    return np.concatenate(logits).astype(np.float64), np.concatenate(faulty)


def platt(logits: Float[np.ndarray, " frame"], faulty: Bool[np.ndarray, " frame"]) -> tuple[float, float]:
    """Fit p = sigmoid(scale · logit + offset) by maximum likelihood (Platt, 1999); (1, 0) where one class is absent."""
    scale, offset, _ = platt_with_strangers(logits, np.zeros_like(logits), faulty)
    return scale, offset


def platt_with_strangers(
    logits: Float[np.ndarray, " frame"], strange: Float[np.ndarray, " frame"], faulty: Bool[np.ndarray, " frame"]
) -> tuple[float, float, float]:
    """Fit p = sigmoid(scale · logit + offset + stranger · strange), stranger ≥ 0; (1, 0, 0) where one class is absent.

    Platt's smoothed targets keep the fit finite where the classes do not overlap.
    """
    positive, negative = int(faulty.sum()), int((~faulty).sum())
    if not positive or not negative:
        return 1.0, 0.0, 0.0
    target = np.where(faulty, (positive + 1.0) / (positive + 2.0), 1.0 / (negative + 2.0))
    numbers = np.stack([logits, np.ones_like(logits), strange])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        z = parameters @ numbers
        slope = 1.0 / (1.0 + np.exp(-z)) - target
        return float((np.logaddexp(0.0, z) - target * z).mean()), (numbers * slope).mean(axis=1)

    bounds = [(_SMALLEST_SCALE, None), (None, None), (0.0, _HEAVIEST)]
    found = minimize(loss, np.array([1.0, 0.0, 0.0]), jac=True, bounds=bounds)
    return float(found.x[0]), float(found.x[1]), float(found.x[2])


def threshold(clean: Float[np.ndarray, " frame"], lost: float = CLEAN_FRAMES_LOST) -> float:
    """Return the probability that all but a share ``lost`` of the clean frames stay below, within [0.2, 0.99]."""
    if len(clean) == 0:
        return 0.5
    return float(np.clip(np.quantile(clean, 1.0 - lost, method="higher") + 1e-6, _LOWEST, _HIGHEST))


def probabilities(logits: Float[np.ndarray, " frame"], scale: float, offset: float) -> Float[np.ndarray, " frame"]:
    """Apply a calibration."""
    return 1.0 / (1.0 + np.exp(-np.clip(scale * logits + offset, -60.0, 60.0)))
