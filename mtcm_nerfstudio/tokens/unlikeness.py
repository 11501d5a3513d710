"""How far a frame's image is from those of the capture: photos of another place stand out, one or many."""

import numpy as np
from jaxtyping import Float

LOOKS = ("unlike half", "unlike its likes", "unlike all")
"""What ``unlikeness`` measures."""
_LIKES = 8
"""Frames with which each is compared by appearance."""
_SAME_IMAGE = 0.1
"""Added to distances of embeddings (of length √384): the same image twice is no sign of anything."""


def unlikeness(embeddings: Float[np.ndarray, "frame 384"]) -> Float[np.ndarray, "frame looks"]:
    """Return how far each frame's embedding is from those of the capture, as logarithms over what is usual there.

    Three distances: to the frame that stands in the middle of all others, nearest first; to the eight most alike, on
    the mean; to the most alike. Photos of another place look like each other, however many there are, but not like
    half of the capture. Zero where a frame has no embedding.
    """
    looks = np.zeros((len(embeddings), len(LOOKS)))
    there = np.isfinite(embeddings).all(axis=1)
    count = int(there.sum())
    if count < 3:
        return looks
    likes, half = min(_LIKES, count - 1), (count - 1) // 2
    apart = np.partition(_distances(embeddings[there]), sorted({0, likes - 1, half}), axis=1)
    sizes = np.column_stack([apart[:, half], apart[:, :likes].mean(axis=1), apart[:, 0]]) + _SAME_IMAGE
    looks[there] = np.log(sizes / np.median(sizes, axis=0))
    return looks


def _distances(points: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    """Return distances between all points; infinite from each to itself."""
    points = points - points.mean(axis=0)
    squares = np.square(points).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2.0 * points @ points.T, 0.0))
    np.fill_diagonal(apart, np.inf)
    return apart
