"""Which frame shows best what is wrong with another one: the numbers and the name beside a verdict."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mtcm_nerfstudio.tokens.tokens import EMBEDDING, PARTS, POSE, FrameTokens

_NEIGHBOURS = 5


@dataclass(frozen=True, eq=False)
class NeighbourDifferences:
    """How each frame compares with the frames nearest to it; NaN and −1 where it lacks what is compared."""

    image_difference: Float[np.ndarray, " frame"]
    """Mean of 1 − cosine of the embeddings, over the frames at the nearest poses (in time where there are none)."""
    pose_difference: Float[np.ndarray, " frame"]
    """Mean pose distance to the frames that look most alike: units of the capture plus radians."""
    least_similar_image: Int[np.ndarray, " frame"]
    """The frame nearest by pose that looks least alike."""
    farthest_pose: Int[np.ndarray, " frame"]
    """The frame that looks most alike whose pose is farthest."""


def compare_neighbours(tokens: FrameTokens, chunk: int = 512) -> NeighbourDifferences:
    """Compare every frame with its nearest neighbours, a chunk of rows at a time to bound the memory."""
    count = len(tokens)
    looks = _centred_directions(tokens)
    difference, distance = np.full(count, np.nan), np.full(count, np.nan)
    least_similar_image, farthest_pose = np.full(count, -1), np.full(count, -1)
    for start in range(0, count, chunk):
        rows = np.arange(start, min(start + chunk, count))
        unlike = 1.0 - looks[rows] @ looks.T
        apart = _pose_distance(tokens, rows)
        unlike[np.arange(len(rows)), rows] = np.nan
        apart[np.arange(len(rows)), rows] = np.nan
        difference[rows], least_similar_image[rows] = _over_nearest(
            np.where(np.isnan(apart), _ranks(rows, count), apart), unlike
        )
        distance[rows], farthest_pose[rows] = _over_nearest(unlike, apart)
    return NeighbourDifferences(difference, distance, least_similar_image, farthest_pose)


def _centred_directions(tokens: FrameTokens) -> Float[np.ndarray, "frame 384"]:
    """Return unit embeddings about the capture's median; NaN rows for frames without one."""
    known = tokens.present[:, PARTS.index("embedding")]
    vectors = np.where(known[:, None], tokens.tokens[:, EMBEDDING], np.nan).astype(np.float64)
    if not known.any():
        return vectors
    centred = vectors - np.nanmedian(vectors, axis=0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def _pose_distance(tokens: FrameTokens, rows: Int[np.ndarray, " row"]) -> Float[np.ndarray, "row frame"]:
    """Return distances in units of the capture plus radians; NaN where either frame has no pose."""
    known = tokens.present[:, PARTS.index("pose")]
    pose = np.where(known[:, None], tokens.tokens[:, POSE], np.nan).astype(np.float64)
    apart = np.linalg.norm(pose[rows, None, :3] - pose[None, :, :3], axis=-1)
    cosine = np.clip(np.abs(pose[rows, 3:] @ pose[:, 3:].T), 0.0, 1.0)
    return apart + 2.0 * np.arccos(cosine)


def _ranks(rows: Int[np.ndarray, " row"], count: int) -> Float[np.ndarray, "row frame"]:
    """Return how many frames lie between, past any pose distance, so that poses go first; NaN for the frame itself."""
    steps = np.abs(rows[:, None] - np.arange(count)[None]).astype(np.float64)
    return np.where(steps == 0, np.nan, 1e6 + steps)


def _over_nearest(
    nearness: Float[np.ndarray, "row frame"], value: Float[np.ndarray, "row frame"]
) -> tuple[Float[np.ndarray, " row"], Int[np.ndarray, " row"]]:
    """Return the mean of ``value`` over each row's nearest frames where it is known, and the frame of the largest."""
    # Rounded, so that of frames equally near the last bits, which turn with the world, do not choose.
    ranked = np.where(np.isnan(nearness) | np.isnan(value), np.inf, np.round(nearness, 4))
    nearest = np.argsort(ranked, axis=1, kind="stable")[:, :_NEIGHBOURS]
    near = np.take_along_axis(ranked, nearest, axis=1)
    values = np.where(np.isfinite(near), np.take_along_axis(value, nearest, axis=1), np.nan)
    known = np.isfinite(values)
    mean = np.where(known, values, 0.0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)
    largest = np.argmax(np.where(known, np.round(values, 4), -np.inf), axis=1)
    name = nearest[np.arange(len(nearest)), largest]
    return mean, np.where(known.any(axis=1), name, -1)
