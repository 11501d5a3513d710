"""How far a frame's embedding lies from the rest of the capture, as an outlier score."""

import numpy as np
from jaxtyping import Float
from sklearn.metrics import pairwise_distances_chunked

_SAME_IMAGE = 0.1
"""Added to distances of embeddings (of length √384): the same image twice is no sign of anything."""


def embedding_outlier_score(
    embeddings: Float[np.ndarray, "frame 384"], share: float = 0.5
) -> Float[np.ndarray, " frame"]:
    """Return the logarithm of each frame's distance from a share of the capture over the median frame's.

    The distance is that of its embedding to the one that is at ``share`` of all others, nearest first. Zero where a
    frame has no embedding, and in captures of less than three that have.
    """
    out = np.zeros(len(embeddings))
    known = np.isfinite(embeddings).all(axis=1)
    count = int(known.sum())
    if count < 3:
        return out
    rank = min(max(1, round(share * (count - 1))), count - 1)  # rank 0 is the frame itself
    chunks = pairwise_distances_chunked(
        embeddings[known].astype(np.float64), reduce_func=lambda rows, _: np.partition(rows, rank, axis=1)[:, rank]
    )
    distance = np.concatenate(list(chunks)) + _SAME_IMAGE
    out[known] = np.log(distance / np.median(distance))
    return out
