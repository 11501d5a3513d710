"""What the matches say about each frame and each pair, given the poses that are claimed: numbers for the transformer.

The matches of a pair show that one of two frames is wrong, not which. Three things tell them apart: trust, spread over
the graph of frames; what a frame could put right by moving on its own; and signs (a blurred frame is less sharp than
its partners, they are not less sharp than theirs).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mtcm_nerfstudio.tokens.evidence.bank import MatchBank
from mtcm_nerfstudio.tokens.evidence.features import GRID, OVERALL
from mtcm_nerfstudio.tokens.evidence.geometry import (
    OBEYS,
    SeenByTwo,
    opencv_from_opengl,
    own_corrections,
    residuals,
    residuals_when_moved,
)
from mtcm_nerfstudio.tokens.evidence.graph import Graph, potentials, sides
from mtcm_nerfstudio.tokens.evidence.partners import choose_partners, pose_distances

_LINKS = (
    "compared",
    "verified share",
    "most matches",
    "third most",
    "above partners' third",
    "inliers",
    "near and seen",
)
_GEOMETRY = (
    "obeys",
    "obeys trusted",
    "obeys best",
    "off by",
    "trust",
    "side",
    "own turn",
    "own shift",
    "after",
    "gain",
    "tested",
)
_TONE = ("sharper", "sharper on the mean", "sharpest", "brighter", "brightest", "unlike in brightness", "exposure")
_COVER = (
    "coverage",
    "coverage above",
    "missing",
    "hole",
    "missing above",
    "odd",
    "odd block",
    "odd above",
    "block above",
)
_BASE = (*_LINKS, *_GEOMETRY, *_TONE, *_COVER, *(f"{name} above" for name in OVERALL), *OVERALL)
FRAME_NUMBERS: tuple[str, ...] = (*_BASE, *(f"{name} in this capture" for name in _BASE))
"""What ``Evidence.frames`` holds: numbers, then the same as robust deviations from the capture's median."""
PAIR_NUMBERS: tuple[str, ...] = (
    "matches", "verified", "tested", "obeys", "off by", "after moving", "after moving partner", "angle", "baseline",
    "sharper", "brighter", "covered", "partner covered", "trust of partner", "own trust", "points above", "same side",
)  # fmt: skip
"""What ``Evidence.of_pairs`` holds."""

_ENOUGH = 40.0
"""Verified matches of which a pair counts half as much as one with very many."""
_FEWEST_TO_TEST = 8
_NEAR = 0.35
"""Radians between two cameras that ought to see the same."""
_PIXELS = 50.0
"""How much a pair's geometry counts against the prior on a frame's own correction."""
_DISTRUSTED = 0.02
_HALF_A_SIDE = 0.2
"""How firmly a frame stands on a side that half counts."""
_ODD = 0.25
"""Difference of a cell's colour (a logarithm) at which it is half odd."""
_BLOCK = 3
_LARGEST = 5.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """Numbers about frames and pairs, all of order one; zero where there is nothing to tell."""

    frames: Float[np.ndarray, "frame frame_number"]
    """See ``FRAME_NUMBERS``."""
    pairs: Int[np.ndarray, "pair 2"]
    """The frames of each pair that was compared, each pair once."""
    of_pairs: Float[np.ndarray, "pair two pair_number"]
    """About each pair, as the first and as the second of its frames sees it; see ``PAIR_NUMBERS``."""

    def subset(self, index: Int[np.ndarray, " frame"]) -> "Evidence":
        """Return the evidence about some frames, in the order of ``index``; pairs with other frames are left out."""
        place = np.full(len(self.frames), -1)
        place[index] = np.arange(len(index))
        inside = (place[self.pairs] >= 0).all(axis=1)
        return Evidence(self.frames[index], place[self.pairs[inside]], self.of_pairs[inside])

    def number(self, name: str) -> Float[np.ndarray, " frame"]:
        """Return one of ``FRAME_NUMBERS``."""
        return self.frames[:, FRAME_NUMBERS.index(name)]


def assess(bank: MatchBank, c2w: Float[np.ndarray, "frame 4 4"], readable: Bool[np.ndarray, " frame"]) -> Evidence:
    """Weigh the evidence for a capture as it claims to be.

    Args:
        bank: what pairs have in common; pairs that it never compared are left out.
        c2w: OpenGL camera-to-world matrices in the capture's own frame of reference and unit; NaN rows without a pose.
        readable: frames that have an image and take part.
    """
    known = np.where(readable[:, None, None], c2w, np.nan)
    pairs = choose_partners(bank.likeness, pose_distances(known), readable)
    rows = bank.row[pairs[:, 0], pairs[:, 1]]
    pairs, rows = pairs[rows >= 0], rows[rows >= 0]
    return _Assessment(bank, known, pairs, rows).evidence(readable)


class _Assessment:
    """Everything that several of the numbers are made of."""

    def __init__(
        self,
        bank: MatchBank,
        c2w: Float[np.ndarray, "frame 4 4"],
        pairs: Int[np.ndarray, "pair 2"],
        rows: Int[np.ndarray, " pair"],
    ) -> None:
        self.bank, self.pairs, self.rows = bank, pairs, rows
        self.graph = Graph(pairs, len(bank))
        posed = np.isfinite(c2w).all(axis=(1, 2))
        camera = opencv_from_opengl(np.where(posed[:, None, None], c2w, np.eye(4)))
        first, second = pairs.T
        focal = 0.5 * (bank.focal[first] + bank.focal[second])
        self.both_posed = posed[first] & posed[second]
        there = bank.there[rows] & (self.both_posed & np.isfinite(focal))[:, None]
        seen = SeenByTwo(pairs, bank.rays[rows], there, np.nan_to_num(focal))
        residual = residuals(seen, camera)
        self.obeys = _share(residual < OBEYS, there)
        self.tested = there.sum(axis=1) >= _FEWEST_TO_TEST
        self.off_by = np.where(self.tested, np.log(np.maximum(_median(residual, there), 0.05) / 0.5) / 3.0, 0.0)
        self.verified = bank.verified[rows].astype(np.float64)
        self.weight = self.verified / (self.verified + _ENOUGH)
        self.tested_weight = np.where(self.tested, self.weight, 0.0)
        side = sides(pairs, self.tested_weight, self.obeys, len(bank))
        self.trust = np.clip(side, 0.0, 1.0)
        self.side = side / (_HALF_A_SIDE + np.abs(side))
        self.twist, moved = own_corrections(seen, camera, _PIXELS * self.tested_weight, _DISTRUSTED + self.trust)
        self.after = np.stack(
            [_share(residuals_when_moved(seen, camera, moved, side) < OBEYS, there) for side in range(2)], axis=1
        )
        self.angle = np.where(self.both_posed, _angles(camera[first], camera[second]), 0.0)
        self.baseline = np.where(
            self.both_posed, np.linalg.norm(camera[first, :3, 3] - camera[second, :3, 3], axis=1), 0.0
        )
        self.sharper, self.brighter = bank.sharper[rows], bank.brighter[rows]
        self.overall = np.nan_to_num(bank.overall)

    def evidence(self, readable: Bool[np.ndarray, " frame"]) -> Evidence:
        base = np.column_stack(
            [*self._links(), *self._geometry(), *self._tone(), *self._cover(), *self._overall(), *self.overall.T]
        )
        within = np.column_stack([_deviation(column, readable) for column in base.T])
        frames = np.clip(np.column_stack([base, within]), -_LARGEST, _LARGEST)
        return Evidence(np.where(readable[:, None], frames, 0.0), self.pairs, self._of_pairs())

    def _links(self) -> list[np.ndarray]:
        """How much of a frame is seen by others at all."""
        graph, every = self.graph, _both(np.ones(len(self.pairs)))
        matches = np.log1p(self.verified)
        third = graph.largest(_both(matches), 3)
        found = _both((self.verified > 0).astype(np.float64))
        near = _both((self.both_posed & (self.angle < _NEAR)).astype(np.float64))
        inliers = self.verified / np.maximum(self.bank.tentative[self.rows], 15)
        return [
            np.log1p(graph.total(_both(self.weight))),
            graph.mean(found, every),
            graph.largest(_both(matches)) / 5.0,
            third / 5.0,
            graph.largest(_both(matches) - graph.of_partner(third), 3) / 2.0,
            graph.mean(_both(inliers), every),
            graph.mean(found, near),
        ]

    def _geometry(self) -> list[np.ndarray]:
        """How well a frame's matches obey its claimed pose, and what moving it would put right."""
        graph = self.graph
        weight = _both(self.tested_weight)
        trusted = weight * (_DISTRUSTED + graph.of_partner(self.trust))
        obeys = _both(self.obeys)
        return [
            graph.mean(obeys, weight),
            graph.mean(obeys, trusted),
            graph.largest(np.where(_both(self.tested), obeys, 0.0)),
            graph.mean(_both(self.off_by), trusted),
            self.trust,
            self.side,
            np.log1p(np.degrees(np.linalg.norm(self.twist[:, :3], axis=1)) / 0.2) / 3.0,
            np.log1p(np.linalg.norm(self.twist[:, 3:], axis=1) / 0.01) / 3.0,
            graph.mean(self.after, trusted),
            graph.mean(self.after - obeys, trusted),
            np.log1p(graph.total(trusted)),
        ]

    def _tone(self) -> list[np.ndarray]:
        """How sharp and bright a frame is where it sees what others see."""
        graph, weight = self.graph, _both(self.weight)
        sharper, brighter = _signed(self.sharper), _signed(self.brighter)
        sharpness = potentials(self.pairs, self.sharper, self.weight, len(self.bank))
        brightness = potentials(self.pairs, self.brighter, self.weight, len(self.bank))
        return [
            graph.median(sharper, weight),
            graph.mean(sharper, weight),
            sharpness,
            graph.median(brighter, weight),
            brightness,
            graph.mean(np.abs(brighter), weight),
            np.abs(graph.median(graph.above_partner(brightness), weight)),
        ]

    def _cover(self) -> list[np.ndarray]:
        """Which parts of a frame do not show what its partners would have there."""
        graph, weight = self.graph, _both(self.weight)
        cells = self.bank.cells[self.rows].astype(np.float64)
        hits = np.zeros((len(self.bank), GRID * GRID))
        for side in range(2):
            np.add.at(hits, self.pairs[:, side], cells[:, side])
        coverage = (hits > 0).mean(axis=1)
        missing = self._expected(cells, hits) * (hits < 1)
        share = missing.sum(axis=1) / np.maximum(self._expected(cells, hits).sum(axis=1), 1.0)
        oddness = self._odd_cells()
        odd, block = oddness.mean(axis=1), _largest_block(oddness)
        return [
            coverage,
            graph.median(graph.above_partner(coverage), weight),
            share,
            _largest_block(missing),
            graph.median(graph.above_partner(share), weight),
            odd,
            block,
            graph.median(graph.above_partner(odd), weight),
            graph.median(graph.above_partner(block), weight),
        ]

    def _expected(self, cells: np.ndarray, hits: np.ndarray) -> Float[np.ndarray, "frame cell"]:
        """Return where matches are to be expected, in [0, 1]: where partners match others, carried over."""
        expected = np.zeros_like(hits)
        for side in range(2):
            own, other = self.pairs[:, side], self.pairs[:, 1 - side]
            place = self.bank.across[self.rows, 1 - side]
            pair, cell = np.nonzero((hits[other] - cells[:, 1 - side] > 0) & (place >= 0))
            np.add.at(expected, (own[pair], place[pair, cell]), (self.weight * self.trust[other])[pair])
        return expected / (expected + 1.0)

    def _odd_cells(self) -> Float[np.ndarray, "frame cell"]:
        """Return how unlike its partners' colours each cell is, in [0, 1]; 0 where there is nothing to compare."""
        alike, weight = np.zeros((2, len(self.bank), GRID * GRID))
        for side in range(2):
            own, other = self.pairs[:, side], self.pairs[:, 1 - side]
            unlike = self.bank.unlike[self.rows, side].astype(np.float64)
            counts = np.isfinite(unlike) * (self.weight * (0.05 + self.trust[other]))[:, None]
            np.add.at(alike, own, counts / (1.0 + (np.nan_to_num(unlike) / _ODD) ** 2))
            np.add.at(weight, own, counts)
        return np.where(weight > 0.05, 1.0 - alike / np.maximum(weight, 1e-6), 0.0)

    def _overall(self) -> list[np.ndarray]:
        """How the image as a whole compares with its partners', whether or not they match."""
        every = _both(np.ones(len(self.pairs)))
        return [self.graph.median(self.graph.above_partner(column), every) for column in self.overall.T]

    def _of_pairs(self) -> Float[np.ndarray, "pair two number"]:
        covered = self.bank.cells[self.rows].mean(axis=2)
        points = self.overall[:, OVERALL.index("points")]
        numbers = [
            _both(np.log1p(self.verified) / 5.0),
            _both((self.verified > 0).astype(np.float64)),
            _both(self.tested.astype(np.float64)),
            _both(self.obeys),
            _both(self.off_by),
            self.after,
            self.after[:, ::-1],
            _both(self.angle),
            _both(self.baseline),
            _signed(self.sharper),
            _signed(self.brighter),
            covered,
            covered[:, ::-1],
            self.graph.of_partner(self.trust),
            self.trust[self.pairs],
            self.graph.above_partner(points),
            self.side[self.pairs] * self.graph.of_partner(self.side),
        ]
        return np.clip(np.stack(numbers, axis=-1), -_LARGEST, _LARGEST)


def _both(values: np.ndarray) -> np.ndarray:
    """Give both ends of every pair the same value."""
    return np.stack([values, values], axis=1)


def _signed(values: Float[np.ndarray, " pair"]) -> Float[np.ndarray, "pair 2"]:
    """Give the ends of every pair values of opposite sign."""
    return np.stack([values, -values], axis=1)


def _share(flags: Bool[np.ndarray, "pair match"], there: Bool[np.ndarray, "pair match"]) -> Float[np.ndarray, " pair"]:
    return (flags & there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def _median(
    values: Float[np.ndarray, "pair match"], there: Bool[np.ndarray, "pair match"]
) -> Float[np.ndarray, " pair"]:
    """Return the (lower) median over the matches that are there; 0 where there are none."""
    if not len(values):
        return np.zeros(0)
    ordered = np.sort(np.where(there, values, np.inf), axis=1)
    middle = np.maximum(there.sum(axis=1) - 1, 0) // 2
    return np.where(there.any(axis=1), ordered[np.arange(len(ordered)), middle], 0.0)


def _angles(first: Float[np.ndarray, "pair 4 4"], second: Float[np.ndarray, "pair 4 4"]) -> Float[np.ndarray, " pair"]:
    cosine = 0.5 * (np.einsum("pij,pij->p", first[:, :3, :3], second[:, :3, :3]) - 1.0)
    return np.arccos(np.clip(cosine, -1.0, 1.0))


def _largest_block(cells: Float[np.ndarray, "frame cell"]) -> Float[np.ndarray, " frame"]:
    """Return the largest mean over a block of neighbouring cells."""
    grid = cells.reshape(-1, GRID, GRID)
    starts = range(GRID - _BLOCK + 1)
    corners = [(row, column) for row in starts for column in starts]
    blocks = [grid[:, row : row + _BLOCK, column : column + _BLOCK].mean(axis=(1, 2)) for row, column in corners]
    return np.max(blocks, axis=0)


def _deviation(values: Float[np.ndarray, " frame"], counts: Bool[np.ndarray, " frame"]) -> Float[np.ndarray, " frame"]:
    """Return robust deviations from the median over the frames that count, softly limited to ±2."""
    if not counts.any():
        return np.zeros_like(values)
    middle = np.median(values[counts])
    typical = 1.4826 * np.median(np.abs(values[counts] - middle))
    return 2.0 * np.tanh((values - middle) / (typical + 0.05 + 0.05 * np.abs(middle)) / 4.0)
