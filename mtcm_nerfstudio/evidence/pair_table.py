"""Pose-independent data per pair: sampled verified matches, blur and light differences, covered cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from mtcm_nerfstudio.evidence.keypoints import (
    GLOBAL_STATISTICS,
    GRID,
    LONGER_SIDE,
    THUMBNAIL,
    FrameKeypoints,
    cell_of,
    has_known_blur,
)
from mtcm_nerfstudio.evidence.matching import PairMatches
from mtcm_nerfstudio.geometry.bearings import pixels_per_radian
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics

SAMPLED = 64
"""Matches of a pair that are kept for geometry, evenly taken from those of large and of small scale."""
CELLS = GRID * GRID


@dataclass(frozen=True, eq=False)
class FrameTable:
    """Image statistics, thumbnail, size and intrinsics per frame."""

    statistics: Float[np.ndarray, "frame 10"]
    """See ``keypoints.GLOBAL_STATISTICS``; NaN for frames without an image."""
    blur_px: Float[np.ndarray, " frame"]
    """Width of edges (standard deviation) in pixels of the image that a NeRF trains on; NaN where it is not known."""
    thumbnails: UInt8[np.ndarray, "frame 64 64 4"]
    """Colours and mask, padded at the right and at the bottom."""
    size: Int[np.ndarray, "frame 2"]
    """Width and height of the thumbnail in it; zeros for frames without an image."""
    intrinsics: tuple[Intrinsics | None, ...]

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.statistics)

    @property
    def resolution(self) -> Float[np.ndarray, " frame"]:
        """Pixels per radian in the middle of each image, at a longer side of 1000; NaN where it is not known."""
        return np.array([resolution_of(one) for one in self.intrinsics])

    def subset(self, places: Int[np.ndarray, " frame"]) -> "FrameTable":
        """Return some frames, in the order of ``places``."""
        return FrameTable(
            self.statistics[places],
            self.blur_px[places],
            self.thumbnails[places],
            self.size[places],
            tuple(self.intrinsics[place] for place in places),
        )


def frame_table(keypoints: Sequence[FrameKeypoints], intrinsics: Sequence[Intrinsics | None]) -> FrameTable:
    """Stack what is known of each frame."""
    thumbnails = np.zeros((len(keypoints), THUMBNAIL, THUMBNAIL, 4), dtype=np.uint8)
    for row, one in zip(thumbnails, keypoints, strict=True):
        row[: one.thumbnail.shape[0], : one.thumbnail.shape[1]] = one.thumbnail
    size = np.array([one.thumbnail.shape[1::-1] for one in keypoints]).reshape(-1, 2)
    statistics = np.stack([one.statistics for one in keypoints]).astype(np.float64)
    blur, count = (statistics[:, GLOBAL_STATISTICS.index(name)] for name in ("log blur", "log10 keypoints"))
    scale = np.array([one.training_scale for one in keypoints])
    blur_px = np.where(has_known_blur(count), np.exp(blur) * scale, np.nan)
    return FrameTable(statistics, blur_px, thumbnails, size, tuple(intrinsics))


def resolution_of(intrinsics: Intrinsics | None) -> float:
    """Return the pixels per radian in the middle of an image at a longer side of 1000; NaN where it is not known."""
    if intrinsics is None:
        return float("nan")
    return pixels_per_radian(intrinsics) * LONGER_SIDE / max(intrinsics.width, intrinsics.height)


@dataclass(frozen=True, eq=False)
class PairSummary:
    """What one pair of frames has in common."""

    bearings: Float32[np.ndarray, "two match 3"]
    keypoints: Int[np.ndarray, "two match"]
    """Of the sampled matches, in either frame; −1 where there is none."""
    verified: int
    tentative: int
    blur_difference: Float32[np.ndarray, "2"]
    """Median over matches of how much wider edges are in the first frame (a logarithm), along x and along y."""
    light_difference: float
    """Median over matches of how much brighter the first frame is, in stops."""
    covered: Bool[np.ndarray, "two cell"]
    """Cells of the frame's grid that hold a verified match."""


@dataclass(frozen=True, eq=False)
class PairTable:
    """Everything about pairs of frames that does not depend on their claimed poses; one row a compared pair."""

    frames: FrameTable
    pairs: Int[np.ndarray, "pair 2"]
    """Sorted, the earlier frame first."""
    bearings: Float32[np.ndarray, "pair two match 3"]
    """Of the sampled matches; zeros where the camera has none."""
    keypoints: Int[np.ndarray, "pair two match"]
    verified: Int[np.ndarray, " pair"]
    tentative: Int[np.ndarray, " pair"]
    blur_difference: Float32[np.ndarray, "pair 2"]
    light_difference: Float[np.ndarray, " pair"]
    covered: Bool[np.ndarray, "pair two cell"]

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    @property
    def valid(self) -> Bool[np.ndarray, "pair match"]:
        """Sampled matches that have bearings in both frames."""
        return (self.keypoints >= 0).all(axis=1) & self.bearings.any(axis=(1, 3))

    def rows(self, pairs: Int[np.ndarray, "pair 2"]) -> "PairTable":
        """Return the table of the given pairs; those that were never compared have nothing in common."""
        count = max(len(self), 1)
        known, wanted = (array[:, 0] * count + array[:, 1] for array in (self.pairs, pairs))
        place = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
        found = known[place] == wanted if len(known) else np.zeros(len(wanted), dtype=bool)
        columns = {name: _taken(getattr(self, name), place, found) for name in _OF_PAIRS}
        return replace(self, pairs=pairs, **columns)

    def subset(self, index: Int[np.ndarray, " frame"] | Bool[np.ndarray, " frame"]) -> "PairTable":
        """Return the table of some frames, in the order of ``index``; pairs whose order changes are swapped."""
        places = np.arange(len(self))[index]
        new = np.full(len(self), -1)
        new[places] = np.arange(len(places))
        inside = (new[self.pairs] >= 0).all(axis=1)
        pairs = new[self.pairs[inside]]
        swapped = pairs[:, 0] > pairs[:, 1]
        order = np.lexsort(np.sort(pairs, axis=1).T[::-1])
        rows, sign = np.flatnonzero(inside)[order], np.where(swapped, -1.0, 1.0)[order]
        side = np.where(swapped[order, None], [1, 0], [0, 1])
        row = np.arange(len(rows))[:, None]
        return PairTable(
            frames=self.frames.subset(places),
            pairs=np.sort(pairs, axis=1)[order],
            bearings=self.bearings[rows][row, side],
            keypoints=self.keypoints[rows][row, side],
            verified=self.verified[rows],
            tentative=self.tentative[rows],
            blur_difference=(self.blur_difference[rows] * sign[:, None]).astype(np.float32),
            light_difference=self.light_difference[rows] * sign,
            covered=self.covered[rows][row, side],
        )

    def with_frames(self, other: "PairTable", changed: Int[np.ndarray, " frame"]) -> "PairTable":
        """Return the table in which everything about some frames is as another table has it."""
        touched = np.zeros(len(self), dtype=bool)
        touched[changed] = True
        mine, theirs = ~touched[self.pairs].any(axis=1), touched[other.pairs].any(axis=1)
        pairs = np.concatenate([self.pairs[mine], other.pairs[theirs]])
        order = np.lexsort(pairs.T[::-1])
        columns = {
            name: np.concatenate([getattr(self, name)[mine], getattr(other, name)[theirs]])[order] for name in _OF_PAIRS
        }
        return PairTable(frames=other.frames, pairs=pairs[order], **columns)

    def mirrored(self) -> "PairTable":
        """Return what the mirrored images would have in common, as far as it bears on geometry."""
        mirror = np.array([-1.0, 1.0, 1.0], dtype=np.float32)
        thumbnails = self.frames.thumbnails.copy()
        for width in np.unique(self.frames.size[:, 0]):
            rows = self.frames.size[:, 0] == width
            thumbnails[rows, :, :width] = thumbnails[rows, :, :width][:, :, ::-1]
        intrinsics = tuple(None if one is None else _mirrored(one) for one in self.frames.intrinsics)
        frames = replace(self.frames, thumbnails=thumbnails, intrinsics=intrinsics)
        return replace(self, bearings=self.bearings * mirror, frames=frames)


_OF_PAIRS = tuple(field.name for field in fields(PairTable) if field.name not in ("frames", "pairs"))


def summarise_pair(
    first: FrameKeypoints,
    second: FrameKeypoints,
    matches: PairMatches,
    first_bearings: Float[np.ndarray, "point 3"] | None,
    second_bearings: Float[np.ndarray, "other 3"] | None,
) -> PairSummary:
    """Sum up the verified matches of a pair."""
    a, b = matches.indices[:, 0].astype(int), matches.indices[:, 1].astype(int)
    bearings = np.zeros((2, SAMPLED, 3), dtype=np.float32)
    keypoints = np.full((2, SAMPLED), -1, dtype=np.int16)
    if first_bearings is not None and second_bearings is not None and len(a):
        known = np.flatnonzero(np.isfinite(first_bearings[a]).all(axis=1) & np.isfinite(second_bearings[b]).all(axis=1))
        chosen = known[np.unique(np.linspace(0, len(known) - 1, min(SAMPLED, len(known))).astype(int))]
        bearings[0, : len(chosen)], bearings[1, : len(chosen)] = first_bearings[a[chosen]], second_bearings[b[chosen]]
        keypoints[0, : len(chosen)], keypoints[1, : len(chosen)] = a[chosen], b[chosen]
    covered = np.zeros((2, CELLS), dtype=bool)
    covered[0, cell_of(first.points[a])] = covered[1, cell_of(second.points[b])] = True
    light = first.log_light[a] - second.log_light[b]
    return PairSummary(
        bearings=bearings,
        keypoints=keypoints,
        verified=len(a),
        tentative=matches.tentative,
        blur_difference=_median(first.log_blur[a] - second.log_blur[b]),
        light_difference=float(np.nanmedian(light)) if np.isfinite(light).any() else float("nan"),
        covered=covered,
    )


def pair_table(frames: FrameTable, summaries: Mapping[tuple[int, int], PairSummary]) -> PairTable:
    """Stack the summaries of the pairs that were compared; the earlier frame of each comes first."""
    pairs = sorted(summaries)

    def stacked(name: str, empty: np.ndarray) -> np.ndarray:
        rows = [np.asarray(getattr(summaries[pair], name)) for pair in pairs]
        return np.stack(rows) if rows else empty

    return PairTable(
        frames=frames,
        pairs=np.array(pairs, dtype=int).reshape(-1, 2),
        bearings=stacked("bearings", np.zeros((0, 2, SAMPLED, 3), dtype=np.float32)),
        keypoints=stacked("keypoints", np.zeros((0, 2, SAMPLED), dtype=np.int16)),
        verified=stacked("verified", np.zeros(0, dtype=int)),
        tentative=stacked("tentative", np.zeros(0, dtype=int)),
        blur_difference=stacked("blur_difference", np.zeros((0, 2), dtype=np.float32)),
        light_difference=stacked("light_difference", np.zeros(0)),
        covered=stacked("covered", np.zeros((0, 2, CELLS), dtype=bool)),
    )


def _mirrored(intrinsics: Intrinsics) -> Intrinsics:
    """Return the intrinsics of the camera whose images are the mirrored ones."""
    odd = ("p2", "sx1", "p0", "s0", "s1")  # coefficients of terms that change sign with x
    distortion = tuple((name, -value if name in odd else value) for name, value in intrinsics.distortion)
    return replace(intrinsics, cx=intrinsics.width - intrinsics.cx, distortion=distortion)


def _median(values: Float[np.ndarray, "match 2"]) -> Float32[np.ndarray, "2"]:
    return (np.median(values, axis=0) if len(values) else np.zeros(2)).astype(np.float32)


def _taken(column: np.ndarray, place: Int[np.ndarray, " pair"], found: Bool[np.ndarray, " pair"]) -> np.ndarray:
    """Return rows of a column, those that were not found empty: zeros, no keypoints."""
    empty = -1 if column.ndim == 3 and column.dtype.kind == "i" else 0
    if not len(column):
        return np.full((len(place), *column.shape[1:]), empty, dtype=column.dtype)
    taken = column[place].copy()
    taken[~found] = empty
    return taken
