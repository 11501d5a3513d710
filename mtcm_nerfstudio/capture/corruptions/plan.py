"""Which frames get which fault: drawn at random, the same for the same seed, one fault a frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from mtcm_nerfstudio.capture.corruptions.image import ImageFaultKind
from mtcm_nerfstudio.capture.corruptions.pose import PoseFaultKind, apply_pose_fault, spread
from mtcm_nerfstudio.geometry.poses import rotation_angle_degrees

FaultKind = Literal[ImageFaultKind, PoseFaultKind, "foreign"]
FaultReason = Literal["pose", "blur", "exposure", "occlusion", "foreign"]

IMAGE_FAULTS: tuple[ImageFaultKind, ...] = get_args(ImageFaultKind)
POSE_FAULTS: tuple[PoseFaultKind, ...] = get_args(PoseFaultKind)
FAULT_KINDS: tuple[FaultKind, ...] = (*POSE_FAULTS, *IMAGE_FAULTS, "foreign")

REASON_OF: Mapping[FaultKind, FaultReason] = {
    "swap": "pose",
    "pose_10": "pose",
    "pose_3": "pose",
    "pose_1": "pose",
    "cluster": "pose",
    "far": "pose",
    "motion_blur": "blur",
    "defocus": "blur",
    "exposure": "exposure",
    "occluder": "occlusion",
    "foreign": "foreign",
}
"""What a decision should give as the reason for dropping a frame with this fault."""


@dataclass(frozen=True)
class Fault:
    """One frame's fault."""

    frame: int
    """Index into the capture's frames."""
    kind: FaultKind
    severity: float
    """In [0, 1]."""
    seed: int
    """Decides what severity leaves open. The two frames of a swap share theirs, so do the frames of a cluster."""

    @property
    def reason(self) -> FaultReason:
        """The reason that a decision about the frame should give."""
        return REASON_OF[self.kind]

    def rng(self) -> np.random.Generator:
        """Return the fault's own stream of random numbers."""
        return np.random.default_rng(self.seed)


def plan_faults(
    n_frames: int,
    kinds: Sequence[FaultKind],
    share: float,
    rng: np.random.Generator,
    c2w: Float[np.ndarray, "n 4 4"] | None = None,
) -> tuple[Fault, ...]:
    """Draw faults for a share of a capture's frames, the kinds as evenly as they divide.

    Swaps take frames in pairs that lie far apart; clusters are runs of consecutive frames.

    Args:
        n_frames: frames of the capture.
        kinds: the kinds to draw from.
        share: of the frames that get a fault, in [0, 1].
        rng: decides everything.
        c2w: the capture's poses. With them, frames without a pose get no pose fault, and the frames of a swap are
            far apart in pose; without, they are in time.

    Returns:
        Faults in the order of their frames; fewer than asked for where a swap lacks a second frame, or a cluster a
        free run of frames.

    Raises:
        ValueError: ``share`` lies outside [0, 1], or there is no kind.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    if not kinds:
        raise ValueError("no kind of fault to draw from")
    posed = np.ones(n_frames, dtype=bool) if c2w is None else np.isfinite(c2w).all(axis=(1, 2))
    is_far = _far_in_time(n_frames) if c2w is None else _far_in_pose(c2w)
    free = np.ones(n_frames, dtype=bool)
    faults: list[Fault] = []
    for kind, size in _groups(kinds, round(share * n_frames), rng):
        allowed = free & posed if kind in POSE_FAULTS else free
        frames = _draw_frames(kind, size, allowed, is_far, rng)
        severity, seed = float(rng.uniform()), int(rng.integers(2**31))
        faults.extend(Fault(int(i), kind, severity, seed) for i in frames)
        free[frames] = False
    return tuple(sorted(faults, key=lambda fault: fault.frame))


def faulted_poses(c2w: Float[np.ndarray, "n 4 4"], faults: Sequence[Fault]) -> Float[np.ndarray, "n 4 4"]:
    """Return the poses with all pose faults of a plan applied; faults of images change nothing here."""
    out = c2w.copy()
    groups: dict[tuple[PoseFaultKind, int], list[Fault]] = {}
    for fault in faults:
        for kind in POSE_FAULTS:
            if fault.kind == kind:
                groups.setdefault((kind, fault.seed), []).append(fault)
    for (kind, _), group in groups.items():
        indices = np.array([fault.frame for fault in group])
        # Each group is moved within the clean poses: an earlier far pose must not change what 2% of the spread is.
        out[indices] = apply_pose_fault(c2w, indices, kind, group[0].rng(), group[0].severity)[indices]
    return out


def _groups(kinds: Sequence[FaultKind], count: int, rng: np.random.Generator) -> list[tuple[FaultKind, int]]:
    """Divide ``count`` faults among kinds, as pairs for swaps, one run for a cluster, else one by one; runs first."""
    unique = list(dict.fromkeys(kinds))
    order = [unique[i] for i in rng.permutation(len(unique))]
    total: dict[FaultKind, int] = dict.fromkeys(order, 0)
    left = count
    while left > 0:
        affordable = [kind for kind in order if _step(kind, total[kind]) <= left]
        if not affordable:
            break
        kind = min(affordable, key=lambda kind: total[kind])
        step = _step(kind, total[kind])
        total[kind] += step
        left -= step
    groups: list[tuple[FaultKind, int]] = []
    for kind in order:
        size = total[kind] if kind == "cluster" else _step(kind, 0)
        groups.extend((kind, size) for _ in range(total[kind] // size if size else 0))
    return sorted(groups, key=lambda group: -group[1])


def _step(kind: FaultKind, already: int) -> int:
    """Return by how many frames a kind's share can grow: a swap by pairs, a cluster from three on by one."""
    if kind == "swap":
        return 2
    return 3 if kind == "cluster" and already == 0 else 1


def _draw_frames(
    kind: FaultKind,
    size: int,
    allowed: Bool[np.ndarray, " n"],
    is_far: Bool[np.ndarray, "n n"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " k"]:
    """Draw the frames of one group; none where no free frames are left that would do."""
    if kind == "cluster":
        runs = [start for start in range(len(allowed) - size + 1) if allowed[start : start + size].all()]
        return np.arange(size) + rng.choice(runs) if runs else np.zeros(0, dtype=int)
    candidates = rng.permutation(np.flatnonzero(allowed))
    if kind != "swap":
        return candidates[:1]
    for first in candidates:
        far_frames = candidates[is_far[first, candidates]]
        if len(far_frames):
            return np.array([first, far_frames[0]])
    return np.zeros(0, dtype=int)


def _far_in_time(n_frames: int) -> Bool[np.ndarray, "{n_frames} {n_frames}"]:
    """Tell which frames are at least a quarter of the walk apart, also where the walk is a closed round."""
    apart = np.abs(np.subtract.outer(np.arange(n_frames), np.arange(n_frames)))
    return np.minimum(apart, n_frames - apart) >= max(1.0, n_frames / 4)


def _far_in_pose(c2w: Float[np.ndarray, "n 4 4"]) -> Bool[np.ndarray, "n n"]:
    """Tell which frames are at least as far apart as half of all pairs: spreads and radians added up."""
    away = np.linalg.norm(c2w[:, None, :3, 3] - c2w[None, :, :3, 3], axis=-1) / spread(c2w)
    turned = np.radians(rotation_angle_degrees(*np.broadcast_arrays(c2w[:, None, :3, :3], c2w[None, :, :3, :3])))
    distance = away + turned
    pairs = distance[np.triu_indices(len(c2w), 1)]
    return distance >= (np.nanmedian(pairs) if np.isfinite(pairs).any() else np.inf)
