"""Examples for the forest: the evidence numbers of frames of many variants, with what is true of them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from mtcm_nerfstudio.consistency.forest import Forest, ForestConfig, fit_forest
from mtcm_nerfstudio.consistency.losses import IGNORED
from mtcm_nerfstudio.consistency.training.batch import Example
from mtcm_nerfstudio.consistency.training.training_capture import TrainingCapture
from mtcm_nerfstudio.consistency.transformer_dataset import DatasetConfig, draw_examples
from mtcm_nerfstudio.consistency.transformer_model import REASONS
from mtcm_nerfstudio.evidence.number_names import numbers_without_poses

_DRAWINGS = 24
"""Captures that are drawn, each with several variants."""


def forest_from_examples(
    captures: Sequence[TrainingCapture],
    dataset: DatasetConfig,
    seed: int,
    drawings: int = _DRAWINGS,
    config: ForestConfig | None = None,
) -> Forest | None:
    """Fit a forest on variants of captures that it alone draws; None where there is no evidence to fit it on."""
    numbers, label = draw_labelled_numbers(captures, dataset, seed, drawings)
    if len(np.unique(label)) < 2:
        return None
    numbers, label, weight = with_unposed_copies(numbers, label, np.ones(len(label)))
    return fit_forest(numbers, label, 1 + len(REASONS), config, weight, seed)


def with_unposed_copies(
    numbers: Float[np.ndarray, "frame number"], label: Int[np.ndarray, " frame"], weight: Float[np.ndarray, " frame"]
) -> tuple[Float[np.ndarray, "more number"], Int[np.ndarray, " more"], Float[np.ndarray, " more"]]:
    """Add the same frames as bare photos, without poses, at half the weight; those with a wrong pose are left out."""
    known = label != 1 + REASONS.index("pose")
    return (
        np.concatenate([numbers, numbers_without_poses(numbers[known])]),
        np.concatenate([label, label[known]]),
        np.concatenate([weight, 0.5 * weight[known]]),
    )


def draw_labelled_numbers(
    captures: Sequence[TrainingCapture], dataset: DatasetConfig, seed: int, drawings: int
) -> tuple[Float[np.ndarray, "frame number"], Int[np.ndarray, " frame"]]:
    """Draw variants that only the forest sees, and return their ``labelled_numbers``."""
    examples = [
        example for step in range(drawings) for example in draw_examples(captures, dataset, seed, step, "forest")[1]
    ]
    return labelled_numbers(examples)


def labelled_numbers(
    examples: Sequence[Example],
) -> tuple[Float[np.ndarray, "frame number"], Int[np.ndarray, " frame"]]:
    """Return the evidence numbers of all frames whose truth is known, with 0 for good ones, else 1 + their reason."""
    numbers, labels = [], []
    for example in examples:
        if example.evidence is None:
            continue
        faulty = (example.replaced & example.judged)[:, :2].any(axis=1) & (example.reason != IGNORED)
        known = example.judged[:, :2].any(axis=1) | faulty
        numbers.append(example.evidence.frames[known])
        labels.append(np.where(faulty, 1 + example.reason, 0)[known])
    if not numbers:
        return np.zeros((0, 0)), np.zeros(0, dtype=int)
    return np.concatenate(numbers), np.concatenate(labels)
