"""How much a frame looks like a stranger: unlike the capture, and tied to it by no matches.

The transformer sees each embedding beside its neighbours. Of a photo from another place it often says no more than
that it is odd, for such photos come in numbers and look like each other. Here it is asked how far an image is from
half of the capture, where they cannot outnumber the rest.
"""

import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio.tokens.evidence.assess import Evidence

_USUAL = 0.2
"""Up to this logarithm farther from half of the capture than others, frames of one place are all the time."""
_HELD_TOGETHER = 0.25
"""Median trust from which on a capture is held together by its matches, so that one without any is odd."""
_SAME_IMAGE = 0.1
"""Added to distances of embeddings (of length √384): the same image twice is no sign of anything."""


def strangeness(embeddings: Float[np.ndarray, "frame 384"], evidence: Evidence | None) -> Float[np.ndarray, " frame"]:
    """Return how strange each frame is, 0 and up; 0 where that cannot be told.

    What an image is farther from half of the capture than usual counts as far as matches vouch less for the frame
    (``trust``, in [0, 1]) than for the median one: a walk through a house has rooms that look like no other and still
    belong to it, and where pictures do not match at all, that nobody vouches for one of them means nothing.

    Args:
        embeddings: of the images, NaN rows where there is none.
        evidence: what matches say. Without it nobody could vouch for a frame, so none is strange.
    """
    if evidence is None:
        return np.zeros(len(embeddings))
    excess = np.maximum(unlikeness(embeddings) - _USUAL, 0.0)
    trust = np.clip(evidence.number("trust"), 0.0, 1.0)
    usual = float(np.median(trust)) if len(trust) else 0.0
    if usual <= 0.0:
        return np.zeros(len(embeddings))
    return excess * np.maximum(1.0 - trust / usual, 0.0) * min(1.0, usual / _HELD_TOGETHER)


def unlikeness(embeddings: Float[np.ndarray, "frame 384"]) -> Float[np.ndarray, " frame"]:
    """Return the logarithm of each frame's distance from half of the capture over the usual one.

    The distance is that of its embedding to the one that is in the middle of all others, nearest first. Zero where a
    frame has no embedding, and in captures of less than three that have.
    """
    out = np.zeros(len(embeddings))
    there = np.isfinite(embeddings).all(axis=1)
    count = int(there.sum())
    if count < 3:
        return out
    half = (count - 1) // 2
    apart = np.partition(_distances(embeddings[there]), half, axis=1)[:, half] + _SAME_IMAGE
    out[there] = np.log(apart / np.median(apart))
    return out


def _distances(points: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    """Return distances between all points; infinite from each to itself."""
    points = points - points.mean(axis=0)
    squares = np.square(points).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2.0 * points @ points.T, 0.0))
    np.fill_diagonal(apart, np.inf)
    return apart
