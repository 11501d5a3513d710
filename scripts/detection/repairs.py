"""How well wrong poses are put right."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from detection.judgement import Outcome
from mtcm_nerfstudio.capture.faults import POSE_FAULTS, FaultKind, faulted_poses, spread
from mtcm_nerfstudio.capture.poses import rotation_angle_degrees

NOT_REPAIRED: tuple[FaultKind, ...] = ("far",)
"""Pose faults that a rule drops the frame for while they are few, so that nothing is repaired."""


@dataclass(frozen=True)
class RepairFigures:
    """What became of the poses in some trials, all of them together; None where there is nothing to tell."""

    name: str
    pose_faults: int
    repaired: float | None
    """Share of the pose faults whose frame was given another pose."""
    degrees_before: float | None
    degrees_after: float | None
    """Median over the repaired ones of the angle to the true pose."""
    shift_before: float | None
    shift_after: float | None
    """Median of the distance to the true place, as a share of the scene's spread."""
    largest_degrees_after: float | None
    good_moved: float | None
    """Share of the good frames that were given another pose."""
    image_faults_moved: float | None
    """Share of the frames with a spoiled image that were given another pose."""


@dataclass(frozen=True)
class _Off:
    """How far a pose is from the true one."""

    degrees: float
    shift: float


def repair_rows(method: str, outcomes: Sequence[Outcome]) -> list[RepairFigures]:
    """Return figures for each kind of trial, and for all together; far poses only by kind."""
    kinds = dict.fromkeys(outcome.case.kind for outcome in outcomes)
    rows = [_figures(kind, method, [outcome for outcome in outcomes if outcome.case.kind == kind]) for kind in kinds]
    repairable: tuple[FaultKind, ...] = tuple(kind for kind in POSE_FAULTS if kind not in NOT_REPAIRED)
    return [*rows, _figures("all", method, outcomes, repairable)]


def _figures(
    name: str, method: str, outcomes: Iterable[Outcome], kinds: Sequence[FaultKind] = POSE_FAULTS
) -> RepairFigures:
    faults, before, after, good, spoiled = 0, [], [], [], []
    for case, said in ((outcome.case, outcome.said[method]) for outcome in outcomes if method in outcome.said):
        claimed, unit = faulted_poses(case.true_c2w, case.faults), spread(case.true_c2w)
        moved = np.isin(np.arange(len(case.natural)), list(said.repaired))
        good.append(moved[case.good])
        spoiled.append(moved[[fault.frame for fault in case.faults if fault.kind not in POSE_FAULTS]])
        wrong = [fault.frame for fault in case.faults if fault.kind in kinds]
        faults += len(wrong)
        for i in (i for i in wrong if i in said.repaired):
            before.append(_off(claimed[i], case.true_c2w[i], unit))
            after.append(_off(said.repaired[i], case.true_c2w[i], unit))
    return RepairFigures(
        name=name,
        pose_faults=faults,
        repaired=len(after) / faults if faults else None,
        degrees_before=_median(one.degrees for one in before),
        degrees_after=_median(one.degrees for one in after),
        shift_before=_median(one.shift for one in before),
        shift_after=_median(one.shift for one in after),
        largest_degrees_after=max((one.degrees for one in after), default=None),
        good_moved=_mean(good),
        image_faults_moved=_mean(spoiled),
    )


def _off(pose: np.ndarray, true: np.ndarray, unit: float) -> _Off:
    (degrees,) = rotation_angle_degrees(pose[None, :3, :3], true[None, :3, :3])
    return _Off(float(degrees), float(np.linalg.norm(pose[:3, 3] - true[:3, 3])) / unit)


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return float(np.median(known)) if known else None


def _mean(flags: Sequence[np.ndarray]) -> float | None:
    every = np.concatenate([*flags, np.zeros(0, dtype=bool)])
    return float(every.mean()) if len(every) else None
