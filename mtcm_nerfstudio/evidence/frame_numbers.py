"""Evidence numbers per frame and per pair: matches, geometry, blur, exposure, content.

The matches of a pair show that one of two frames is wrong, not which. What tells them apart: the pair graph (support),
what a frame could put right by moving on its own, and differences that are solved over the whole graph, so that those
between a faulty frame and all of its partners become its own.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import percentile_filter

from mtcm_nerfstudio.evidence.content import Content, compare_content, largest_block
from mtcm_nerfstudio.evidence.embedding_outlier import embedding_outlier_score
from mtcm_nerfstudio.evidence.keypoints import GLOBAL_STATISTICS
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS
from mtcm_nerfstudio.evidence.pair_graph import PairGraph, pair_graph_support, solve_pairwise_offsets
from mtcm_nerfstudio.evidence.pair_table import PairTable
from mtcm_nerfstudio.evidence.pairs import select_pairs
from mtcm_nerfstudio.evidence.robust import (
    median_of_matches,
    relative_angles,
    robust_deviation,
    share_of_matches,
    with_known_blur,
)
from mtcm_nerfstudio.geometry.epipolar import (
    EPIPOLAR_INLIER_THRESHOLD,
    MatchedBearings,
    epipolar_errors,
    epipolar_errors_when_moved,
    opencv_from_opengl,
    pose_corrections,
)

_HALF_WEIGHT = 40.0
"""Verified matches at which a pair counts half as much as one with very many."""
_FEWEST_TO_TEST = 8
_NEAR = 0.35
"""Radians between two cameras that ought to see the same."""
_PAIR_WEIGHT = 50.0
"""How much a pair's geometry counts against the prior on a frame's own correction."""
_LEAST_WEIGHT = 0.02
_TIME_WINDOW, _BLUR_WINDOW = 15, 5
"""Frames before and after that a frame's sharpness, and the width of its edges, are compared with."""
_CONTENT_HALF = 10.0
"""Points at which a pair's content counts half."""
_LARGEST = 5.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """Numbers about frames and pairs, all of order one; zero where nothing is known."""

    frames: Float[np.ndarray, "frame frame_number"]
    """See ``FRAME_NUMBERS``."""
    pairs: Int[np.ndarray, "pair 2"]
    """The frames of each pair that was compared, each pair once."""
    of_pairs: Float[np.ndarray, "pair two pair_number"]
    """About each pair, as the first and as the second of its frames sees it; see ``PAIR_NUMBERS``."""
    hidden_cells: Float[np.ndarray, "frame cell"]
    """How different each cell of a frame is from what views on both sides show there, in [0, 1]."""
    blur_px: Float[np.ndarray, " frame"]
    """Width of edges (standard deviation) in pixels of the image that a NeRF trains on; NaN where it is not known."""

    def subset(self, index: Int[np.ndarray, " frame"]) -> "Evidence":
        """Return the evidence about some frames, in the order of ``index``; pairs with other frames are left out."""
        place = np.full(len(self.frames), -1)
        place[index] = np.arange(len(index))
        inside = (place[self.pairs] >= 0).all(axis=1)
        return Evidence(
            self.frames[index],
            place[self.pairs[inside]],
            self.of_pairs[inside],
            self.hidden_cells[index],
            self.blur_px[index],
        )

    def number(self, name: str) -> Float[np.ndarray, " frame"]:
        """Return one of ``FRAME_NUMBERS``."""
        return self.frames[:, FRAME_NUMBERS.index(name)]


def compute_evidence(
    table: PairTable,
    embeddings: Float[np.ndarray, "frame 384"],
    c2w: Float[np.ndarray, "frame 4 4"],
    readable: Bool[np.ndarray, " frame"],
) -> Evidence:
    """Return the evidence about a capture at its claimed poses.

    Args:
        table: what pairs have in common; pairs that are not in it have nothing in common.
        embeddings: of the images, NaN where there is none.
        c2w: OpenGL camera-to-world matrices in the capture's own frame of reference and unit; NaN rows without a pose.
        readable: frames that have an image and take part.
    """
    known = np.where(readable[:, None, None], c2w, np.nan)
    pairs = select_pairs(embeddings, known, readable)
    return _Computation(table.rows(pairs), embeddings, known, readable).evidence()


class _Computation:
    """Everything that several of the numbers are made of."""

    def __init__(
        self,
        table: PairTable,
        embeddings: Float[np.ndarray, "frame 384"],
        c2w: Float[np.ndarray, "frame 4 4"],
        readable: Bool[np.ndarray, " frame"],
    ) -> None:
        self.table, self.readable, self.embeddings = table, readable, np.where(readable[:, None], embeddings, np.nan)
        self.graph = PairGraph(table.pairs, len(table))
        self.statistics = with_known_blur(np.nan_to_num(table.frames.statistics), readable)
        self.verified = table.verified.astype(np.float64)
        self.weight = self.verified / (self.verified + _HALF_WEIGHT)
        self._test_poses(c2w)
        self._compare_content()

    def _test_poses(self, c2w: Float[np.ndarray, "frame 4 4"]) -> None:
        """Hold matches against the claimed poses."""
        table = self.table
        first, second = table.pairs.T
        posed = np.isfinite(c2w).all(axis=(1, 2))
        self.camera = opencv_from_opengl(np.where(posed[:, None, None], c2w, np.eye(4)))
        self.both_posed = posed[first] & posed[second]
        resolution = np.nan_to_num(table.frames.resolution, nan=1.0)
        valid = table.valid & self.both_posed[:, None]
        self.matched = MatchedBearings(
            table.pairs, table.bearings.astype(np.float64), valid, resolution[table.pairs].reshape(-1, 2)
        )
        error = epipolar_errors(self.matched, self.camera)
        self.inlier = (error < EPIPOLAR_INLIER_THRESHOLD) & valid
        self.inlier_ratio = share_of_matches(self.inlier, valid)
        self.tested = valid.sum(axis=1) >= _FEWEST_TO_TEST
        median = np.log(np.maximum(median_of_matches(error, valid), 0.05) / 0.5) / 3.0
        self.log_median_error = np.where(self.tested, median, 0.0)
        self.tested_weight = np.where(self.tested, self.weight, 0.0)
        self.support = pair_graph_support(table.pairs, self.tested_weight, self.inlier_ratio, len(table))
        self.correction, moved = pose_corrections(
            self.matched, self.camera, _PAIR_WEIGHT * self.tested_weight, _LEAST_WEIGHT + self.support.support
        )
        self.when_moved = np.stack(
            [
                share_of_matches(
                    (epipolar_errors_when_moved(side, self.camera, moved) < EPIPOLAR_INLIER_THRESHOLD), valid
                )
                for side in (self.matched, self.matched.swapped())
            ],
            axis=1,
        )
        self.angle = np.where(self.both_posed, relative_angles(self.camera[first], self.camera[second]), 0.0)
        shift = np.linalg.norm(self.camera[first, :3, 3] - self.camera[second, :3, 3], axis=1)
        self.baseline = np.where(self.both_posed, shift, 0.0)

    def _compare_content(self) -> None:
        content = compare_content(self.table, self.matched, self.inlier, self.camera, self.weight)
        self.content: Content = content
        known = content.pair_points / (content.pair_points + _CONTENT_HALF)
        usual = np.median(content.pair_difference[known > 0.5]) if (known > 0.5).any() else 0.0
        agreement = 1.0 / (1.0 + (content.pair_difference / max(2.0 * float(usual), 0.1)) ** 2)
        self.content_known = known
        self.content_support = pair_graph_support(self.table.pairs, known, agreement, len(self.table))

    def evidence(self) -> Evidence:
        """Return all numbers."""
        base = np.column_stack(
            [
                *self._matching_numbers(),
                *self._geometry_numbers(),
                *self._blur_numbers(),
                *self._exposure_numbers(),
                *self._content_numbers(),
                *self._own_numbers(),
            ]
        )
        within = np.column_stack([robust_deviation(column, self.readable) for column in base.T])
        frames = np.clip(np.column_stack([base, within]), -_LARGEST, _LARGEST)
        frames = np.where(self.readable[:, None], frames, 0.0)
        blur_px = np.where(self.readable, self.table.frames.blur_px, np.nan)
        return Evidence(frames, self.table.pairs, self._of_pairs(), self.content.difference, blur_px)

    def _matching_numbers(self) -> list[np.ndarray]:
        """Verified matches, covered cells and pair-graph component per frame."""
        graph, every = self.graph, _both(np.ones(len(self.table.pairs)))
        matches = np.log1p(self.verified)
        third = graph.largest(_both(matches), 3)
        found = _both((self.verified > 0).astype(np.float64))
        near = _both((self.both_posed & (self.angle < _NEAR)).astype(np.float64))
        rank = np.cumsum(self.readable)  # frames that take no part stand between no others
        in_time = _both((np.abs(np.diff(rank[self.table.pairs], axis=1)[:, 0]) <= 2).astype(np.float64))
        inliers = self.verified / np.maximum(self.table.tentative, 15)
        covered = np.stack([self._covered_cells(side) for side in range(2)]).any(axis=0).mean(axis=1)
        outlier, nearest = (embedding_outlier_score(self.embeddings, share) for share in (0.5, 0.1))
        total = graph.total(_both(self.weight))
        return [
            np.log1p(total),
            graph.mean(found, every),
            graph.largest(_both(matches)) / 5.0,
            third / 5.0,
            graph.largest(_both(matches) - graph.of_other(third), 3) / 2.0,
            graph.mean(_both(inliers), every),
            graph.mean(found, near),
            graph.mean(found, in_time),
            covered,
            graph.median(graph.minus_other(covered), _both(self.weight)),
            outlier,
            nearest,
            np.maximum(nearest, 0.0) / (1.0 + 4.0 * total),
        ]

    def _covered_cells(self, side: int) -> Bool[np.ndarray, "frame cell"]:
        out = np.zeros((len(self.table), self.table.covered.shape[2]), dtype=bool)
        np.logical_or.at(out, self.table.pairs[:, side], self.table.covered[:, side])
        return out

    def _geometry_numbers(self) -> list[np.ndarray]:
        """Inlier ratios at the claimed pose, before and after the best small pose correction."""
        graph, support = self.graph, self.support
        weight = _both(self.tested_weight)
        of_supported = weight * (_LEAST_WEIGHT + graph.of_other(support.support))
        ratio = _both(self.inlier_ratio)
        return [
            graph.mean(ratio, weight),
            graph.mean(ratio, of_supported),
            graph.largest(np.where(_both(self.tested), ratio, 0.0)),
            graph.mean(_both(self.log_median_error), of_supported),
            support.support,
            support.conflict,
            support.cluster_share,
            support.component_share,
            np.log1p(np.degrees(np.linalg.norm(self.correction[:, :3], axis=1)) / 0.2) / 3.0,
            np.log1p(np.linalg.norm(self.correction[:, 3:], axis=1) / 0.01) / 3.0,
            graph.mean(self.when_moved, of_supported),
            graph.mean(self.when_moved - ratio, of_supported),
            np.log1p(graph.total(of_supported)),
        ]

    def _blur_numbers(self) -> list[np.ndarray]:
        """How wide edges are, against the same points elsewhere and against the frames before and after."""
        graph, weight, difference = self.graph, _both(self.weight), self.table.blur_difference.astype(np.float64)
        along = np.stack(
            [solve_pairwise_offsets(self.table.pairs, column, self.weight, len(self.table)) for column in difference.T]
        )
        widest = np.where(np.abs(difference[:, 0]) > np.abs(difference[:, 1]), *difference.T)
        statistic = {name: self.statistics[:, GLOBAL_STATISTICS.index(name)] for name in GLOBAL_STATISTICS}
        return [
            along.max(axis=0),
            graph.median(_signed(widest), weight),
            graph.largest(_signed(widest) * (weight > 0.3), 3),
            self._above_in_time(statistic["log blur"], window=_BLUR_WINDOW),
            np.abs(along[0] - along[1]),
            self._above_in_time(statistic["log sharpness"]),
            self._above_in_time(statistic["log detail"]),
            self._above_in_time(statistic["log detail"], 90),
            self._above_in_time(statistic["log10 keypoints"]),
            self._above_in_time(statistic["log keypoint scale"]),
        ]

    def _above_in_time(
        self, values: Float[np.ndarray, " frame"], percent: int = 50, window: int = _TIME_WINDOW
    ) -> Float[np.ndarray, " frame"]:
        """Return values minus the median, or another percentile, of the frames before and after."""
        out, index = np.zeros(len(values)), np.flatnonzero(self.readable)
        size = min(2 * window + 1, (len(index) - 1) // 2 * 2 + 1)  # odd: as many before as after
        if len(index):
            out[index] = values[index] - percentile_filter(values[index], percent, size=size, mode="nearest")
        return out

    def _exposure_numbers(self) -> list[np.ndarray]:
        """How much brighter a frame shows the same points, and whether its own brightness explains it.

        Automatic exposure keeps the picture's brightness and so changes the points'; a wrong exposure changes both.
        """
        graph, weight = self.graph, _both(self.weight)
        gain = solve_pairwise_offsets(self.table.pairs, self.table.light_difference, self.weight, len(self.table))
        above = graph.median(graph.minus_other(gain), weight)
        brightness = self.statistics[:, GLOBAL_STATISTICS.index("log2 brightness")]
        bright_above = graph.median(graph.minus_other(brightness), weight)
        unexplained = np.where(above * bright_above > 0, np.minimum(np.abs(above), np.abs(bright_above)), 0.0)
        log_gain = self.content.log_gain
        chroma = log_gain[:, [0, 2]] - log_gain[:, 1:2]
        chroma_above = np.stack([graph.median(graph.minus_other(column), weight) for column in chroma.T], axis=1)
        return [
            gain,
            above,
            unexplained,
            5.0 * np.linalg.norm(chroma, axis=1),
            5.0 * np.linalg.norm(chroma_above, axis=1),
        ]

    def _content_numbers(self) -> list[np.ndarray]:
        """Whether a frame shows what views on both sides of it show."""
        content, support = self.content, self.content_support
        expected = content.expected >= 2
        cells, block = np.maximum(expected.sum(axis=1), 8), largest_block(content.unmatched)
        return [
            self.graph.mean(_both(content.pair_difference), _both(self.content_known)),
            (content.difference * expected).sum(axis=1) / cells,
            largest_block(content.difference),
            expected.mean(axis=1),
            support.support,
            support.conflict,
            support.cluster_share,
            content.unmatched.mean(axis=1),
            block,
            self.graph.median(self.graph.minus_other(block), _both(self.weight)),
            (content.unmatched > 0.5).mean(axis=1),
        ]

    def _own_numbers(self) -> list[np.ndarray]:
        """Global image statistics, absolute and relative to the paired frames."""
        every = _both(np.ones(len(self.table.pairs)))
        above = [self.graph.median(self.graph.minus_other(column), every) for column in self.statistics.T]
        return [*above, *self.statistics.T]

    def _of_pairs(self) -> Float[np.ndarray, "pair two number"]:
        covered = self.table.covered.mean(axis=2)
        keypoints = self.statistics[:, GLOBAL_STATISTICS.index("log10 keypoints")]
        blur, cluster = self.table.blur_difference, self.support.cluster
        same = cluster[self.table.pairs[:, 0]] == cluster[self.table.pairs[:, 1]]
        numbers = [
            _both(np.log1p(self.verified) / 5.0),
            _both((self.verified > 0).astype(np.float64)),
            _both(self.tested.astype(np.float64)),
            _both(self.inlier_ratio),
            _both(self.log_median_error),
            self.when_moved,
            self.when_moved[:, ::-1],
            _both(self.angle),
            _both(self.baseline),
            _signed(np.where(np.abs(blur[:, 0]) > np.abs(blur[:, 1]), blur[:, 0], blur[:, 1]).astype(np.float64)),
            _signed(np.nan_to_num(self.table.light_difference)),
            covered,
            covered[:, ::-1],
            self.graph.of_other(self.support.support),
            self.support.support[self.table.pairs],
            self.graph.minus_other(keypoints),
            _both(same.astype(np.float64)),
            _both(self.content.pair_difference),
            _both(self.content_known),
        ]
        return np.clip(np.stack(numbers, axis=-1), -_LARGEST, _LARGEST)


def _both(values: np.ndarray) -> np.ndarray:
    """Give both ends of every pair the same value."""
    return np.stack([values, values], axis=1)


def _signed(values: Float[np.ndarray, " pair"]) -> Float[np.ndarray, "pair 2"]:
    """Give the ends of every pair values of opposite sign."""
    return np.stack([values, -values], axis=1)
