"""What every embedding backend promises, and the two steps that all of them share: input pixels, output scale."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from PIL import Image

EMBEDDING_DIM = 384
"""Numbers in an embedding, whatever the backend."""

NetworkName = Literal["efficientnet-lite0", "dinov2-vits14", "clip-vit-b32"]
"""Backends that compute an embedding from an image."""

EmbedderName = Literal["efficientnet-lite0", "dinov2-vits14", "clip-vit-b32", "precomputed"]
"""All backends; ``precomputed`` reads embeddings from a capture's ``.npy`` files."""


@runtime_checkable
class Embedder(Protocol):
    """A network that turns images into embeddings."""

    @property
    def name(self) -> NetworkName:
        """The backend's name."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the same image would get another embedding: weights, input pixels or output scale."""
        ...

    @property
    def input_size(self) -> int:
        """Side of the square that images are resized to, in pixels."""
        ...

    def embed(self, images: Sequence[Image.Image]) -> Float32[np.ndarray, "frame 384"]:
        """Embed images; each row is finite, has the norm √384, and does not depend on the other images."""
        ...


def network_input(
    images: Sequence[Image.Image], size: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float32[np.ndarray, "frame 3 size size"]:
    """Resize images to a square and normalise their colours, as (value / 255 − mean) / std.

    The whole image is stretched to the square: a crop would not see an occluder at the border, and bars beside the
    image would be features of their own. Images of one capture share their aspect ratio, so the distortion is the
    same for all of them and cancels where frames are compared. Pillow's resampling widens its kernel when it
    shrinks, so fine texture does not alias.
    """
    squares = [
        np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
        for image in images
    ]
    pixels = np.stack(squares) / np.float32(255.0)
    normalised = (pixels - np.array(mean, dtype=np.float32)) / np.array(std, dtype=np.float32)
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))


def with_unit_rms(vectors: Float32[np.ndarray, "frame dim"]) -> Float32[np.ndarray, "frame dim"]:
    """Scale each row to root-mean-square 1, that is to the norm √dim, so that backends share one scale.

    Raises:
        ValueError: a row holds NaN or infinity, or nothing but zeros; the message gives its index.
    """
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0.0))
    if len(bad):
        raise ValueError(f"embedding {bad[0]} is all zeros or not finite")
    return (vectors * (np.sqrt(vectors.shape[1]) / norms)).astype(np.float32)
