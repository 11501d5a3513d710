"""Which frames are compared with which: the k nearest in time, in claimed pose and in embedding.

A wrong pose selects the wrong neighbours, so poses alone must not select. Each list holds at most k frames, whatever
is equal, so the number of pairs is linear in the number of frames.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree


@dataclass(frozen=True)
class PairSettings:
    """How many neighbours of each frame are compared with it."""

    in_time: int = 3
    """Frames before and as many after."""
    in_pose: int = 6
    in_embedding: int = 6
    least_similarity: float = 0.0
    """Cosine of two embeddings about the capture's mean, in [-1, 1], from which on they count as similar."""


DEFAULT_PAIRS = PairSettings()
_CHUNK = 2048
_SAME = 1e-4
"""Distances and similarities are rounded to this: the last bits, which turn with the world, must not select."""


def select_pairs(
    embeddings: Float[np.ndarray, "frame 384"],
    c2w: Float[np.ndarray, "frame 4 4"],
    readable: Bool[np.ndarray, " frame"],
    settings: PairSettings = DEFAULT_PAIRS,
) -> Int[np.ndarray, "pair 2"]:
    """Return the pairs of frames to compare, each once, sorted, the earlier frame first.

    Args:
        embeddings: NaN rows for frames without one.
        c2w: claimed poses, positions in units of the capture; NaN for frames without a pose.
        readable: frames that take part.
        settings: how many of each kind.
    """
    found = [
        _near_in_time(readable, settings.in_time),
        _near_in_pose(c2w, readable, settings.in_pose),
        _near_in_embedding(embeddings, readable, settings),
    ]
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0).reshape(-1, 2)


def _near_in_time(readable: Bool[np.ndarray, " frame"], steps: int) -> Int[np.ndarray, "pair 2"]:
    order = np.flatnonzero(readable)
    pairs = [np.stack([order[:-step], order[step:]], axis=1) for step in range(1, min(steps, len(order) - 1) + 1)]
    return np.concatenate([np.zeros((0, 2), dtype=int), *pairs])


def _near_in_pose(
    c2w: Float[np.ndarray, "frame 4 4"], readable: Bool[np.ndarray, " frame"], count: int
) -> Int[np.ndarray, "pair 2"]:
    """Return nearest frames by position (units of the capture) and viewing direction (as a chord, about radians)."""
    index = np.flatnonzero(readable & np.isfinite(c2w).all(axis=(1, 2)))
    if len(index) < 2:
        return np.zeros((0, 2), dtype=int)
    # Frobenius distance of rotations is √8 sin(angle / 2): over √2 it is the angle, for small ones.
    places = np.concatenate([c2w[index, :3, 3], c2w[index, :3, :3].reshape(-1, 9) / np.sqrt(2.0)], axis=1)
    _, nearest = KDTree(np.round(places / _SAME) * _SAME).query(places, k=min(count + 1, len(index)))
    return _without_self(index, nearest.reshape(len(index), -1), count)


def _near_in_embedding(
    embeddings: Float[np.ndarray, "frame 384"], readable: Bool[np.ndarray, " frame"], settings: PairSettings
) -> Int[np.ndarray, "pair 2"]:
    index = np.flatnonzero(readable & np.isfinite(embeddings).all(axis=1))
    if len(index) < 2:
        return np.zeros((0, 2), dtype=int)
    values = embeddings[index] - embeddings[index].mean(axis=0)
    values = (values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)).astype(np.float32)
    found = []
    for start in range(0, len(index), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(index)))
        similarity = np.round(values[rows] @ values.T / _SAME) * _SAME
        similarity[np.arange(len(rows)), rows] = -np.inf
        count = min(settings.in_embedding, len(index) - 1)
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        enough = np.take_along_axis(similarity, nearest, axis=1) >= settings.least_similarity
        row, place = np.nonzero(enough)
        found.append(np.stack([index[rows[row]], index[nearest[row, place]]], axis=1))
    return np.concatenate(found)


def _without_self(
    index: Int[np.ndarray, " frame"], nearest: Int[np.ndarray, "frame near"], count: int
) -> Int[np.ndarray, "pair 2"]:
    """Pair every frame with its nearest ones; of equal poses the frame itself need not be the first that is found."""
    own = np.arange(len(index))[:, None]
    other = nearest != own
    rank = np.cumsum(other, axis=1)
    row, place = np.nonzero(other & (rank <= count))
    return np.stack([index[row], index[nearest[row, place]]], axis=1)
