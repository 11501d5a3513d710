"""Sums over the graph whose nodes are frames and whose edges are compared pairs; how well each frame is tied to it."""

import heapq
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg

_OFFSET_ROUNDS = 6
_DAMPING = 0.02
_DENSE = 400
"""Frames up to which a dense solver is quicker."""
_TINY = 1e-9


class PairGraph:
    """Aggregates numbers that pairs hold, as each of their two frames sees them: arrays are (pair, two)."""

    def __init__(self, pairs: Int[np.ndarray, "pair 2"], frames: int) -> None:
        """Remember which frames belong to which pair."""
        self.pairs, self.frames = pairs, frames
        self._own = pairs.T.reshape(-1)

    def of_other(self, values: Float[np.ndarray, " frame"]) -> Float[np.ndarray, "pair 2"]:
        """Return the partner's value for each end of every pair."""
        return np.stack([values[self.pairs[:, 1]], values[self.pairs[:, 0]]], axis=1)

    def minus_other(self, values: Float[np.ndarray, " frame"]) -> Float[np.ndarray, "pair 2"]:
        """Return each end's own value minus its partner's."""
        return values[self.pairs] - self.of_other(values)

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


class Support(NamedTuple):
    """How well each frame is tied to the rest of the capture."""

    support: Float[np.ndarray, " frame"]
    """Agreement with the frame's own cluster and the main one over agreement and conflict, times the share of the
    capture that its cluster reaches; in [0, 1]."""
    conflict: Float[np.ndarray, " frame"]
    """Share of the weight of its pairs with the main cluster that disagrees, in [0, 1]; 0 without such pairs."""
    cluster_share: Float[np.ndarray, " frame"]
    """Frames of its cluster over those of the largest one, in [0, 1]."""
    cluster: Int[np.ndarray, " frame"]
    """Number of its cluster."""
    component_share: Float[np.ndarray, " frame"]
    """Frames that agreeing pairs reach from it, whatever disagrees, over those of the largest such component."""


def pair_graph_support(
    pairs: Int[np.ndarray, "pair 2"],
    weight: Float[np.ndarray, " pair"],
    agreement: Float[np.ndarray, " pair"],
    frames: int,
) -> Support:
    """Measure how well each frame is tied to the main cluster of agreeing pairs.

    Frames are clustered so that pairs within a cluster agree and pairs between clusters do not (``cluster_frames``):
    along a chain nothing fades, and a run of frames that were moved together is cut off by the pairs that disagree
    even where one or two at its ends agree by chance.

    Args:
        pairs: of frames.
        weight: how much each pair counts, in [0, 1].
        agreement: of each pair, in [0, 1].
        frames: number of frames.
    """
    i, j = pairs.T
    for_it, against = weight * agreement, weight * (1.0 - agreement)
    cluster = cluster_frames(pairs, for_it - against, frames)
    size = np.bincount(cluster, minlength=1)
    main = cluster == int(np.argmax(size))
    share = size[cluster] / max(int(size.max(initial=1)), 1)
    same = cluster[i] == cluster[j]

    def total(values: np.ndarray, chosen_i: np.ndarray, chosen_j: np.ndarray) -> np.ndarray:
        return np.bincount(i, values * chosen_i, frames) + np.bincount(j, values * chosen_j, frames)

    agreeing = total(for_it, same | main[j], same | main[i])
    disagreeing = total(against, same | main[j], same | main[i])
    conflict = total(against, main[j], main[i]) / np.maximum(total(weight, main[j], main[i]), _TINY)
    reached = _component_size(pairs[agreement * (weight > 0.2) > 0.5], frames)
    support = agreeing / (agreeing + disagreeing + 0.3) * np.sqrt(share)
    return Support(support, conflict, share, cluster, reached / max(int(reached.max(initial=1)), 1))


def cluster_frames(
    pairs: Int[np.ndarray, "pair 2"], affinity: Float[np.ndarray, " pair"], frames: int
) -> Int[np.ndarray, " frame"]:
    """Cluster frames by greedy additive edge contraction (Keuper et al., 2015), a heuristic for correlation clustering.

    The pair of clusters with the largest summed affinity is joined until none is positive.

    Args:
        pairs: of frames.
        affinity: of each pair: positive where it agrees, negative where it disagrees.
        frames: number of frames.

    Returns:
        Number of each frame's cluster, from 0 on.
    """
    near: list[dict[int, float]] = [{} for _ in range(frames)]
    for (i, j), value in zip(pairs.tolist(), np.round(affinity, 9).tolist(), strict=True):
        near[i][j] = near[j][i] = near[i].get(j, 0.0) + value
    parent = np.arange(frames)
    heap = [(-value, i, j) for i in range(frames) for j, value in near[i].items() if i < j and value > 0]
    heapq.heapify(heap)
    while heap:
        negative, i, j = heapq.heappop(heap)
        if parent[i] != i or parent[j] != j or near[i].get(j) != -negative:
            continue  # one of the two has been joined with another one since
        into, gone = (i, j) if len(near[i]) >= len(near[j]) else (j, i)
        parent[gone] = into
        for k, value in _contract(near, into, gone):
            if value > 0:
                heapq.heappush(heap, (-value, min(into, k), max(into, k)))
    while (parent[parent] != parent).any():
        parent = parent[parent]
    return np.unique(parent, return_inverse=True)[1].reshape(-1)


def _contract(near: list[dict[int, float]], into: int, gone: int) -> list[tuple[int, float]]:
    """Join one cluster into another, and return the clusters beside them with their affinities."""
    del near[into][gone]
    changed = []
    for k, value in near[gone].items():
        if k != into:
            joined = near[into].get(k, 0.0) + value
            near[into][k] = near[k][into] = joined
            del near[k][gone]
            changed.append((k, joined))
    near[gone] = {}
    return changed


def _component_size(pairs: Int[np.ndarray, "pair 2"], frames: int) -> Int[np.ndarray, " frame"]:
    """Return the number of frames in each frame's connected component."""
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(frames, frames))
    _, component = connected_components(graph, directed=False)
    return np.bincount(component)[component]


def solve_pairwise_offsets(
    pairs: Int[np.ndarray, "pair 2"],
    difference: Float[np.ndarray, " pair"],
    weight: Float[np.ndarray, " pair"],
    frames: int,
) -> Float[np.ndarray, " frame"]:
    """Return values with median 0 whose differences are closest to those of the pairs, by least absolute deviations.

    Iteratively reweighted least squares on the sparse graph. What differs between a faulty frame and all of its
    partners goes into its own value; theirs stay what they are.
    """
    values = np.zeros(frames)
    if not len(pairs) or not weight.any():
        return values
    i, j = pairs.T
    known: Bool[np.ndarray, " pair"] = np.isfinite(difference)
    difference, current = np.where(known, difference, 0.0), np.where(known, weight, 0.0)
    given = current
    linked = np.bincount(np.concatenate([i, j]), np.tile(current, 2), frames) > 0
    if not linked.any():
        return values
    for _ in range(_OFFSET_ROUNDS):
        right = np.bincount(i, current * difference, frames) - np.bincount(j, current * difference, frames)
        values = _solve_laplacian(pairs, current, right, values)
        values = np.where(linked, values - np.median(values[linked]), 0.0)
        current = given / (1.0 + np.abs(values[i] - values[j] - difference) / 0.05)
    return values


def _solve_laplacian(
    pairs: Int[np.ndarray, "pair 2"],
    weight: Float[np.ndarray, " pair"],
    right: Float[np.ndarray, " frame"],
    start: Float[np.ndarray, " frame"],
) -> Float[np.ndarray, " frame"]:
    """Solve (weighted graph Laplacian + damping) x = right, iteratively where it is large."""
    i, j = pairs.T
    frames = len(right)
    diagonal = np.bincount(i, weight, frames) + np.bincount(j, weight, frames) + _DAMPING
    if frames <= _DENSE:
        normal = np.diag(diagonal)
        np.subtract.at(normal, (np.concatenate([i, j]), np.concatenate([j, i])), np.tile(weight, 2))
        return np.linalg.solve(normal, right)
    links = coo_array((weight, (i, j)), shape=(frames, frames))
    normal = diags_array(diagonal) - csr_array(links) - csr_array(links.T)
    return cg(normal, right, x0=start, rtol=1e-7, M=diags_array(1.0 / diagonal))[0]
