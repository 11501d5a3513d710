"""Find coverage gaps: runs of dropped frames without a kept frame nearby."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Bool, Float

from mtcm_nerfstudio.geometry.poses import canonical_frame, rotation_angle_degrees

_TIMES_THE_SPACING = 4.0
_SAMPLED = 200
"""Frames whose spacing is measured; more of them would only cost time."""


@dataclass(frozen=True)
class CoverageGap:
    """A run of dropped frames with no kept frame nearby."""

    first: int
    """Index of the run's first frame in the capture."""
    last: int
    """Index of the run's last frame, included."""
    angle_degrees: float
    """How far the worst of them looks away from the nearest kept frame."""


def coverage_gaps(
    c2w: Float[np.ndarray, "frame 4 4"],
    kept: Bool[np.ndarray, " frame"],
    trusted: Bool[np.ndarray, " frame"],
    spacings: float = _TIMES_THE_SPACING,
) -> tuple[CoverageGap, ...]:
    """Find runs of dropped frames whose nearest kept frame is over ``spacings`` times the usual spacing away.

    Nearness is the distance in units of the capture plus the angle in radians.

    Args:
        c2w: poses in temporal order, NaN where there is none.
        kept: frames that training will use.
        trusted: frames whose pose is believed; a frame dropped for its pose leaves no hole where it claims to be.
        spacings: from how many times the usual distance between neighbours on a gap is a hole.
    """
    posed = np.isfinite(c2w).all(axis=(1, 2))
    covering = np.flatnonzero(posed & kept)
    if len(covering) < 2:
        return ()
    in_capture_frame = canonical_frame(c2w[covering]).to_capture(np.nan_to_num(c2w, posinf=0.0, neginf=0.0))
    some = covering[np.linspace(0, len(covering) - 1, min(len(covering), _SAMPLED)).astype(int)]
    spacing = np.median([_nearest(in_capture_frame, i, covering[covering != i])[0] for i in some])
    far = {}
    for i in np.flatnonzero(posed & trusted & ~kept):
        distance, angle = _nearest(in_capture_frame, i, covering)
        if distance > spacings * spacing:
            far[int(i)] = angle
    runs = groupby(enumerate(sorted(far)), key=lambda pair: pair[1] - pair[0])
    return tuple(_hole([i for _, i in run], far) for _, run in runs)


def _hole(run: list[int], angles: dict[int, float]) -> CoverageGap:
    return CoverageGap(run[0], run[-1], max(angles[i] for i in run))


def _nearest(
    in_capture_frame: Float[np.ndarray, "frame 4 4"], i: int | np.integer, others: np.ndarray
) -> tuple[float, float]:
    """Return (distance plus radians, angle in degrees) to the nearest of ``others``."""
    angles = rotation_angle_degrees(
        np.broadcast_to(in_capture_frame[i, :3, :3], (len(others), 3, 3)), in_capture_frame[others, :3, :3]
    )
    distances = np.linalg.norm(in_capture_frame[others, :3, 3] - in_capture_frame[i, :3, 3], axis=1) + np.radians(
        angles
    )
    best = int(np.argmin(distances))
    return float(distances[best]), float(angles[best])
