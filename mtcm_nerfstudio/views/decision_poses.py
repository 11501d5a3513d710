"""The poses behind decisions, as arrays: what the capture claims, what training uses, what is suggested."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.decisions import Decisions

_NOT_BELIEVED = ("pose", "foreign", "invalid pose")
"""Reasons of frames that were not where they claim to be."""


def claimed_poses(capture: Capture) -> Float[np.ndarray, "n 4 4"]:
    """Return the frames' poses as the capture has them, in its world; NaN where there is none."""
    return _stacked(frame.c2w for frame in capture.frames)


def used_poses(capture: Capture, decisions: Decisions) -> Float[np.ndarray, "n 4 4"]:
    """Return the poses that training uses: the repaired ones, and otherwise those of the capture.

    Args:
        capture: as it was read.
        decisions: current ones of it, whose frames they list in the same order.
    """
    return _stacked(
        frame.c2w if decision.repaired_transform_matrix is None else decision.repaired_transform_matrix
        for frame, decision in zip(capture.frames, decisions.frames, strict=True)
    )


def suggested_poses(decisions: Decisions) -> Float[np.ndarray, "m 4 4"]:
    """Return the poses of the suggested views, in the capture's world."""
    return _stacked(view.transform_matrix for view in decisions.suggested)


def has_plausible_pose(decisions: Decisions) -> Bool[np.ndarray, " n"]:
    """Tell which frames may well be where they claim to be: all but those that were dropped for their place."""
    return np.array([frame.kept or frame.reason not in _NOT_BELIEVED for frame in decisions.frames], dtype=bool)


def _stacked(poses: Iterable[ArrayLike | None]) -> Float[np.ndarray, "n 4 4"]:
    nowhere = np.full((4, 4), np.nan)
    return np.array([nowhere if pose is None else pose for pose in poses], dtype=np.float64).reshape(-1, 4, 4)
