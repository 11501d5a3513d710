"""Sums, medians and potentials over the graph whose nodes are frames and whose edges are compared pairs."""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_ROUNDS_OF_TRUST = 200
"""Trust spreads by one edge a round: enough to cross a long walk and come to rest."""
_ROUNDS_OF_POTENTIAL = 6
_FIRMEST = 3.0
_TINY = 1e-9


class Graph:
    """Aggregates numbers that pairs hold, as each of their two frames sees them: arrays are (pair, two)."""

    def __init__(self, pairs: Int[np.ndarray, "pair 2"], frames: int) -> None:
        """Remember who belongs to which pair."""
        self.pairs, self.frames = pairs, frames
        self._own = pairs.T.reshape(-1)

    def of_partner(self, values: Float[np.ndarray, " frame"]) -> Float[np.ndarray, "pair 2"]:
        """Return the partner's value for each end of every pair."""
        return np.stack([values[self.pairs[:, 1]], values[self.pairs[:, 0]]], axis=1)

    def above_partner(self, values: Float[np.ndarray, " frame"]) -> Float[np.ndarray, "pair 2"]:
        """Return each end's own value minus its partner's."""
        return values[self.pairs] - self.of_partner(values)

    def total(self, values: Float[np.ndarray, "pair 2"]) -> Float[np.ndarray, " frame"]:
        """Return the sum over every frame's pairs."""
        return np.bincount(self._own, values.T.reshape(-1), self.frames).astype(np.float64)  # whole numbers, of none

    def mean(
        self, values: Float[np.ndarray, "pair 2"], weight: Float[np.ndarray, "pair 2"]
    ) -> Float[np.ndarray, " frame"]:
        """Return the weighted mean over every frame's pairs; 0 where nothing has weight."""
        return self.total(values * weight) / np.maximum(self.total(weight), 1e-6)

    def largest(self, values: Float[np.ndarray, "pair 2"], place: int = 1) -> Float[np.ndarray, " frame"]:
        """Return the largest value of every frame's pairs, or the one at ``place`` (or the smallest that it has)."""
        if not len(values):
            return np.zeros(self.frames)
        flat = values.T.reshape(-1)
        order = np.lexsort((-flat, self._own))
        count = np.bincount(self._own, minlength=self.frames)
        first = np.concatenate([[0], np.cumsum(count)[:-1]])
        at = np.minimum(first + np.clip(count, 1, place) - 1, len(flat) - 1)
        return np.where(count > 0, flat[order][at], 0.0)

    def median(
        self, values: Float[np.ndarray, "pair 2"], weight: Float[np.ndarray, "pair 2"]
    ) -> Float[np.ndarray, " frame"]:
        """Return the weighted median over every frame's pairs; 0 for frames without one."""
        if not len(values):
            return np.zeros(self.frames)
        flat = values.T.reshape(-1)
        order = np.lexsort((flat, self._own))
        running = np.cumsum(weight.T.reshape(-1)[order] + _TINY)
        last = np.cumsum(np.bincount(self._own, minlength=self.frames)) - 1
        end = np.where(last >= 0, running[np.maximum(last, 0)], 0.0)
        begin = np.concatenate([[0.0], end[:-1]])
        at = np.clip(np.searchsorted(running, begin + 0.5 * (end - begin)), 0, len(flat) - 1)
        return np.where(end > begin, flat[order][at], 0.0)


def sides(
    pairs: Int[np.ndarray, "pair 2"],
    weight: Float[np.ndarray, " pair"],
    agreement: Float[np.ndarray, " pair"],
    frames: int,
) -> Float[np.ndarray, " frame"]:
    """Return on which side of the capture each frame stands, and how firmly: positive with the many, 1 as they do.

    Power iteration, from everybody alike, of the signed graph D^-1/2 S D^-1/2 with S = weight · (2 agreement − 1):
    its leading eigenvector splits frames into two sides that agree within and disagree across (Kunegis et al., 2010).
    The larger side is positive. A cluster moved together is on the other one, a frame with a wrong pose of its own on
    that one or, as a frame without pairs, on none (0). A fixed number of rounds from a fixed start depends
    continuously on its input. Parts of the capture that share no pair have an eigenvector each, and count less the
    smaller they are.
    """
    i, j = pairs.T
    degree = np.bincount(i, weight, frames) + np.bincount(j, weight, frames) + 0.3
    coupling = weight * (2.0 * agreement - 1.0) / np.sqrt(degree[i] * degree[j])
    part, size = _parts(pairs[weight > 0], frames)
    side = np.ones(frames)
    for _ in range(_ROUNDS_OF_TRUST):
        side = side + np.bincount(i, coupling * side[j], frames) + np.bincount(j, coupling * side[i], frames)
        side /= np.sqrt(np.bincount(part, side * side) / size)[part] + _TINY
    side = side / np.sqrt(degree)
    for number in range(len(size)):
        of_part = side[part == number]
        turn = 1.0 if np.median(of_part) >= 0 else -1.0
        side[part == number] = turn * of_part / (np.median(np.abs(of_part)) + _TINY)
    counts = np.where(size > 1, np.sqrt(size / size.max(initial=1)), 0.0)
    return np.clip(side, -_FIRMEST, _FIRMEST) * counts[part]


def _parts(pairs: Int[np.ndarray, "pair 2"], frames: int) -> tuple[Int[np.ndarray, " frame"], Int[np.ndarray, " part"]]:
    """Return the connected part of the graph that each frame belongs to, and how many frames each part has."""
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(frames, frames))
    _, part = connected_components(graph, directed=False)
    return part, np.bincount(part)


def potentials(
    pairs: Int[np.ndarray, "pair 2"],
    difference: Float[np.ndarray, " pair"],
    weight: Float[np.ndarray, " pair"],
    frames: int,
) -> Float[np.ndarray, " frame"]:
    """Return values with median 0 whose differences are closest to those of the pairs, by least absolute deviations.

    Iteratively reweighted least squares. The differences of a spoiled frame to all of its partners go into its own
    value; its partners' values stay what they are.
    """
    values = np.zeros(frames)
    if not len(pairs):
        return values
    i, j = pairs.T
    current = weight
    for _ in range(_ROUNDS_OF_POTENTIAL):
        normal = 0.02 * np.eye(frames)
        for row, column, sign in ((i, i, 1.0), (j, j, 1.0), (i, j, -1.0), (j, i, -1.0)):
            np.add.at(normal, (row, column), sign * current)
        right = np.bincount(i, current * difference, frames) - np.bincount(j, current * difference, frames)
        values = np.linalg.solve(normal, right)
        values -= np.median(values)
        current = weight / (1.0 + np.abs(values[i] - values[j] - difference) / 0.05)
    return values
