"""How well wrong poses are put right."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from benchmarks.corruptions import POSE_KINDS, PoseKind, corrupt_poses, spread_of
from benchmarks.detection.prediction import Outcome
from mtcm_nerfstudio.geometry.poses import rotation_angle_degrees

ALL = "all"
"""The name of the figures of all kinds together."""


@dataclass(frozen=True)
class RepairFigures:
    """What became of wrong poses of one kind, all trials that hold any together; None where there is nothing to tell.

    Shifts are shares of the capture's spread (``benchmarks.corruptions.spread_of``).
    """

    name: str
    wrong_poses: int
    repaired: float | None
    """Share of the wrong poses whose frame was given another pose."""
    degrees_before: float | None
    degrees_after: float | None
    """Median over the repaired ones of the angle to the true pose."""
    shift_before: float | None
    shift_after: float | None
    """Median of the distance to the true position."""
    largest_degrees_after: float | None
    good_moved: float | None
    """Share of the good frames of these trials that were given another pose."""
    corrupted_images_moved: float | None
    """Share of the frames of these trials with a corrupted image that were given another pose."""


@dataclass(frozen=True)
class _Error:
    """How far a pose is from the true one."""

    degrees: float
    shift: float


def repair_rows(method: str, outcomes: Sequence[Outcome]) -> list[RepairFigures]:
    """Return figures for each kind of wrong pose that was put in, and for all together."""
    predictions = [outcome for outcome in outcomes if method in outcome.said]
    rows = []
    for kind in POSE_KINDS:
        holding = [outcome for outcome in predictions if outcome.case.corrupted(kind).any()]
        if holding:
            rows.append(_figures(kind, method, holding, (kind,)))
    return [*rows, _figures(ALL, method, predictions, POSE_KINDS)]


def _figures(name: str, method: str, outcomes: Sequence[Outcome], kinds: Sequence[PoseKind]) -> RepairFigures:
    count, before, after, good, images = 0, [], [], [], []
    for case, said in ((outcome.case, outcome.said[method]) for outcome in outcomes):
        claimed, spread = corrupt_poses(case.true_c2w, case.faults), spread_of(case.true_c2w)
        moved = np.isin(np.arange(len(case.natural)), list(said.repaired))
        good.append(moved[case.good])
        images.append(moved[[fault.frame for fault in case.faults if fault.kind not in POSE_KINDS]])
        wrong = [fault.frame for fault in case.faults if fault.kind in kinds]
        count += len(wrong)
        for i in (i for i in wrong if i in said.repaired):
            before.append(_error(claimed[i], case.true_c2w[i], spread))
            after.append(_error(said.repaired[i], case.true_c2w[i], spread))
    return RepairFigures(
        name=name,
        wrong_poses=count,
        repaired=len(after) / count if count else None,
        degrees_before=_median(one.degrees for one in before),
        degrees_after=_median(one.degrees for one in after),
        shift_before=_median(one.shift for one in before),
        shift_after=_median(one.shift for one in after),
        largest_degrees_after=max((one.degrees for one in after), default=None),
        good_moved=_mean(good),
        corrupted_images_moved=_mean(images),
    )


def _error(pose: Float[np.ndarray, "4 4"], true: Float[np.ndarray, "4 4"], spread: float) -> _Error:
    (degrees,) = rotation_angle_degrees(pose[None, :3, :3], true[None, :3, :3])
    return _Error(float(degrees), float(np.linalg.norm(pose[:3, 3] - true[:3, 3])) / spread)


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return float(np.median(known)) if known else None


def _mean(flags: Sequence[np.ndarray]) -> float | None:
    every = np.concatenate([*flags, np.zeros(0, dtype=bool)])
    return float(every.mean()) if len(every) else None
