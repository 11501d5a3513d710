"""What pairs of frames have in common, whatever poses are claimed: computed once for a pair of images."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from mtcm_nerfstudio.tokens.evidence.features import GRID, OVERALL, LocalFeatures
from mtcm_nerfstudio.tokens.evidence.matches import NO_MATCHES, PairMatches

SAMPLED = 64
"""Matches of a pair that are kept for geometry, evenly taken from those of large and of small scale."""


@dataclass(frozen=True, eq=False)
class MatchBank:
    """Everything about pairs of frames that does not depend on their claimed poses."""

    row: Int[np.ndarray, "frame frame"]
    """Where a pair's numbers are in the arrays below (the earlier frame first); row 0 stands for all pairs that have
    nothing in common, −1 for pairs that were never compared."""
    rays: Float[np.ndarray, "pair two match 2"]
    """x/z and y/z of the sampled matches as the two frames see them; NaN where the lens is not known."""
    there: Bool[np.ndarray, "pair match"]
    verified: Int[np.ndarray, " pair"]
    """Matches that fit one fundamental matrix."""
    tentative: Int[np.ndarray, " pair"]
    """Matches before that."""
    sharper: Float[np.ndarray, " pair"]
    """Median over matches of how much sharper the first frame is (a logarithm)."""
    brighter: Float[np.ndarray, " pair"]
    cells: Bool[np.ndarray, "pair two cell"]
    """Cells of the frame's grid that hold a verified match."""
    across: Int[np.ndarray, "pair two cell"]
    """For each cell of either frame, the cell of the other frame in which the same is to be seen; −1 where that lies
    outside its image."""
    unlike: Float[np.ndarray, "pair two cell"]
    """How much each cell's colour differs from that of the cell across, the pair's overall difference taken out;
    NaN where there is none across."""
    likeness: Float[np.ndarray, "frame frame"]
    """Matches among few points, for every two frames."""
    overall: Float[np.ndarray, "frame 6"]
    """See ``features.OVERALL``; NaN for frames without an image."""
    focal: Float[np.ndarray, " frame"]
    """Pixels at a longer side of 1000; NaN where it is not known."""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.overall)

    def subset(self, index: Int[np.ndarray, " frame"] | Bool[np.ndarray, " frame"]) -> "MatchBank":
        """Return the bank of some frames, in the order of ``index``; pairs whose order turns are turned."""
        places = np.arange(len(self))[index]
        row = self.row[np.ix_(places, places)]
        first, second = np.nonzero(np.triu(row > 0, 1))
        old = np.concatenate([[0], row[first, second]])
        turned = np.concatenate([[False], places[first] > places[second]])
        side = np.where(turned[:, None], [1, 0], [0, 1])
        rows = np.arange(len(old))[:, None]
        sign = np.where(turned, -1.0, 1.0)
        new = np.minimum(row, 0)
        new[first, second] = new[second, first] = np.arange(1, len(old))
        return replace(
            self,
            row=new,
            rays=self.rays[old][rows, side],
            there=self.there[old],
            verified=self.verified[old],
            tentative=self.tentative[old],
            sharper=sign * self.sharper[old],
            brighter=sign * self.brighter[old],
            cells=self.cells[old][rows, side],
            across=self.across[old][rows, side],
            unlike=self.unlike[old][rows, side],
            likeness=self.likeness[np.ix_(places, places)],
            overall=self.overall[places],
            focal=self.focal[places],
        )

    def mirrored(self) -> "MatchBank":
        """Return what the mirrored images would have in common, as far as it bears on geometry."""
        return replace(self, rays=self.rays * np.array([-1.0, 1.0]))

    def with_frames(self, other: "MatchBank", frames: Int[np.ndarray, " frame"]) -> "MatchBank":
        """Return the bank in which everything about some frames is as another bank has it.

        A pair that the other bank did not compare, and this one did, has nothing in common.
        """
        mine, theirs = self.row.copy(), other.row
        touched = np.zeros(len(self), dtype=bool)
        touched[frames] = True
        changed = touched[:, None] | touched[None, :]
        mine[changed] = np.minimum(mine[changed], 0)
        used = np.unique(mine[mine > 0])
        new = np.zeros(len(self.there) + 1, dtype=int)
        new[used] = 1 + np.arange(len(used))
        row = np.where(mine > 0, new[mine], mine)
        from_other = changed & (theirs > 0)
        row[from_other] = theirs[from_other] + len(used)
        np.fill_diagonal(row, -1)
        kept = np.concatenate([[0], used])
        overall = np.where(touched[:, None], other.overall, self.overall)
        stacked = {name: np.concatenate([getattr(self, name)[kept], getattr(other, name)[1:]]) for name in _OF_PAIRS}
        return replace(self, row=row, likeness=other.likeness, overall=overall, **stacked)


_OF_PAIRS = ("rays", "there", "verified", "tentative", "sharper", "brighter", "cells", "across", "unlike")


@dataclass(frozen=True, eq=False)
class PairSummary:
    """One pair's numbers in a bank."""

    rays: Float[np.ndarray, "two match 2"]
    there: Bool[np.ndarray, " match"]
    verified: int
    tentative: int
    sharper: float
    brighter: float
    cells: Bool[np.ndarray, "two cell"]
    across: Int[np.ndarray, "two cell"]
    unlike: Float[np.ndarray, "two cell"]


def summarise_pair(
    first: LocalFeatures,
    second: LocalFeatures,
    matches: PairMatches,
    first_rays: Float[np.ndarray, "point 2"] | None,
    second_rays: Float[np.ndarray, "other 2"] | None,
) -> PairSummary:
    """Sum up the matches of a pair."""
    a, b = matches.indices[:, 0], matches.indices[:, 1]
    rays, there = np.zeros((2, SAMPLED, 2)), np.zeros(SAMPLED, dtype=bool)
    if first_rays is not None and second_rays is not None and len(matches):
        known = np.flatnonzero(np.isfinite(first_rays[a]).all(axis=1) & np.isfinite(second_rays[b]).all(axis=1))
        chosen = (
            known[np.unique(np.linspace(0, len(known) - 1, min(SAMPLED, len(known))).astype(int))]
            if len(known)
            else known
        )
        rays[0, : len(chosen)], rays[1, : len(chosen)] = first_rays[a[chosen]], second_rays[b[chosen]]
        there[: len(chosen)] = True
    found = len(matches) > 0
    across = np.stack([_across(first, a, second, b), _across(second, b, first, a)])
    return PairSummary(
        rays=rays,
        there=there,
        verified=len(matches),
        tentative=matches.tentative,
        sharper=float(np.median(first.sharpness[a] - second.sharpness[b])) if found else 0.0,
        brighter=float(np.median(first.brightness[a] - second.brightness[b])) if found else 0.0,
        cells=np.stack([_cells(first, a), _cells(second, b)]),
        across=across,
        unlike=np.stack([_unlike(first, second, across[0]), _unlike(second, first, across[1])]),
    )


def make_bank(
    overall: Float[np.ndarray, "frame 6"],
    focal: Float[np.ndarray, " frame"],
    likeness: Float[np.ndarray, "frame frame"],
    pairs: Mapping[tuple[int, int], PairSummary],
) -> MatchBank:
    """Stack the numbers of the pairs that were compared; the earlier frame of each comes first."""
    row = np.full((len(overall), len(overall)), -1)
    parts = [NOTHING]
    for (i, j), summary in sorted(pairs.items()):
        row[i, j] = row[j, i] = len(parts) if summary.verified else 0
        if summary.verified:
            parts.append(summary)

    def stacked(name: str) -> np.ndarray:
        return np.stack([np.asarray(getattr(part, name)) for part in parts])

    return MatchBank(
        row=row,
        rays=stacked("rays"),
        there=stacked("there"),
        verified=stacked("verified"),
        tentative=stacked("tentative"),
        sharper=stacked("sharper"),
        brighter=stacked("brighter"),
        cells=stacked("cells"),
        across=stacked("across"),
        unlike=stacked("unlike"),
        likeness=likeness,
        overall=overall,
        focal=focal,
    )


def _cells(features: LocalFeatures, index: Int[np.ndarray, " match"]) -> Bool[np.ndarray, " cell"]:
    """Mark the cells of the image (GRID to its longer side, GRID × GRID in all, some outside it) with a match."""
    out = np.zeros((GRID, GRID), dtype=bool)
    places = np.clip((features.points[index] * GRID / 1000.0).astype(int), 0, GRID - 1)
    out[places[:, 1], places[:, 0]] = True
    return out.ravel()


def _across(
    own: LocalFeatures, a: Int[np.ndarray, " match"], other: LocalFeatures, b: Int[np.ndarray, " match"]
) -> Int[np.ndarray, " cell"]:
    """Tell in which of the other's cells each of one's own lies, by the affine map that fits the matches best."""
    nowhere = np.full(GRID * GRID, -1, dtype=np.int8)
    if len(a) < 3:
        return nowhere
    points = np.column_stack([own.points[a], np.ones(len(a))]).astype(np.float64)
    affine, *_ = np.linalg.lstsq(points, other.points[b].astype(np.float64), rcond=None)
    side = 1000.0 / GRID
    y, x = (np.mgrid[0:GRID, 0:GRID].reshape(2, -1) + 0.5) * side
    mapped = np.column_stack([x, y, np.ones(len(x))]) @ affine
    inside = ((mapped >= 0) & (mapped < [other.width, other.height])).all(axis=1)
    place = np.clip((mapped / side).astype(int), 0, GRID - 1)
    return np.where(inside, place[:, 1] * GRID + place[:, 0], nowhere).astype(np.int8)


def _unlike(own: LocalFeatures, other: LocalFeatures, across: Int[np.ndarray, " cell"]) -> Float32[np.ndarray, " cell"]:
    """Compare the cells' colours; exposure and white balance differ by the same in all of them."""
    difference = np.where((across >= 0)[:, None], own.tones - other.tones[across], np.nan)
    known = np.isfinite(difference).all(axis=1)
    if known.sum() < 4:
        return np.full(len(across), np.nan, dtype=np.float32)
    difference -= np.median(difference[known], axis=0)
    return np.sqrt((difference**2).mean(axis=1)).astype(np.float32)


NO_FEATURES = LocalFeatures(
    points=np.zeros((0, 2), dtype=np.float32),
    descriptors=np.zeros((0, 128), dtype=np.uint8),
    sharpness=np.zeros(0, dtype=np.float32),
    brightness=np.zeros(0, dtype=np.float32),
    overall=np.full(len(OVERALL), np.nan, dtype=np.float32),
    tones=np.full((GRID * GRID, 3), np.nan, dtype=np.float32),
    width=0.0,
    height=0.0,
)
"""Stands for a frame without an image."""

NOTHING = summarise_pair(NO_FEATURES, NO_FEATURES, NO_MATCHES, None, None)
"""Stands for a pair without verified matches."""
