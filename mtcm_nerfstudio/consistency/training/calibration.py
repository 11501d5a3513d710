"""From logits to probabilities, and the threshold above which a frame is dropped."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize

from mtcm_nerfstudio.consistency.training.batch import collate
from mtcm_nerfstudio.consistency.training.capture import TrainingCapture
from mtcm_nerfstudio.consistency.transformer_dataset import DatasetConfig, draw_examples
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer
from mtcm_nerfstudio.tokens.strangeness import strangeness
from mtcm_nerfstudio.tokens.tokens import EMBEDDING

CLEAN_FRAMES_LOST = 0.01
"""Share of clean frames that the threshold may cost."""

_SMALLEST_SCALE = 1e-3
_LOWEST, _HIGHEST = 0.2, 0.5
"""Bounds of the threshold: what is more likely wrong than right goes, since a capture or two with good frames at the
edge are no reason to leave faults in all others, and what is hardly in doubt stays."""
_HEAVIEST = 60.0
"""Bound of the weight of strangeness: a tenth of it is then worth a logit of six."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What is said of frames in variants that training never drew, and what is true of them; one row a frame."""

    logit: Float[np.ndarray, " frame"]
    strange: Float[np.ndarray, " frame"]
    """See ``tokens.strangeness``."""
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
        for i, example in enumerate(examples):
            counts = batch.verdict_counts[i].cpu().numpy()[: len(example)]
            logit = output.inconsistency_logit[i].double().cpu().numpy()[: len(example)]
            faulty = batch.inconsistent[i].cpu().numpy()[: len(example)]
            embeddings = np.where(example.present[:, :1], example.tokens[:, EMBEDDING], np.nan)
            strange = strangeness(embeddings, example.evidence)
            parts.append(HeldOut(logit[counts], strange[counts], faulty[counts]))
    return HeldOut(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(HeldOut)))


def platt_with_strangers(
    logits: Float[np.ndarray, " frame"],
    strange: Float[np.ndarray, " frame"],
    faulty: Bool[np.ndarray, " frame"],
    stranger: float | None = None,
) -> tuple[float, float, float]:
    """Fit p = sigmoid(scale · logit + offset + stranger · strange), stranger ≥ 0, by maximum likelihood.

    Platt's smoothed targets (1999) keep the fit finite where the classes do not overlap. Where one class is absent
    there is nothing to fit: scale 1 and offset 0.

    Args:
        logits: the transformer's.
        strange: see ``tokens.strangeness``.
        faulty: what is true.
        stranger: the weight of strangeness, where it is not to be fitted.

    Returns:
        scale, offset and stranger (0 where it is neither given nor fitted).
    """
    positive, negative = int(faulty.sum()), int((~faulty).sum())
    if not positive or not negative:
        return 1.0, 0.0, stranger or 0.0
    target = np.where(faulty, (positive + 1.0) / (positive + 2.0), 1.0 / (negative + 2.0))
    numbers = np.stack([logits, np.ones_like(logits), strange])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        z = parameters @ numbers
        slope = 1.0 / (1.0 + np.exp(-z)) - target
        return float((np.logaddexp(0.0, z) - target * z).mean()), (numbers * slope).mean(axis=1)

    bounds = [(_SMALLEST_SCALE, None), (None, None), (0.0, _HEAVIEST) if stranger is None else (stranger, stranger)]
    found = minimize(loss, np.array([1.0, 0.0, stranger or 0.0]), jac=True, bounds=bounds)
    return float(found.x[0]), float(found.x[1]), float(found.x[2])


def threshold(clean: Float[np.ndarray, " frame"], lost: float = CLEAN_FRAMES_LOST) -> float:
    """Return the probability that all but a share ``lost`` of the clean frames stay below, within [0.2, 0.5]."""
    if len(clean) == 0:
        return 0.5
    return float(np.clip(np.quantile(clean, 1.0 - lost, method="higher") + 1e-6, _LOWEST, _HIGHEST))


def probabilities(logits: Float[np.ndarray, " frame"], scale: float, offset: float) -> Float[np.ndarray, " frame"]:
    """Apply a calibration."""
    return 1.0 / (1.0 + np.exp(-np.clip(scale * logits + offset, -60.0, 60.0)))
