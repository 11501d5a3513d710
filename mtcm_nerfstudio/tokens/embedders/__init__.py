"""Embedding backends: each turns an image into 384 numbers."""

from typing_extensions import assert_never

from mtcm_nerfstudio.tokens.embedders.base import EMBEDDING_DIM, Embedder, EmbedderName, NetworkName

__all__ = ["EMBEDDING_DIM", "Embedder", "EmbedderName", "NetworkName", "load_embedder"]


def load_embedder(name: EmbedderName, device: str = "auto") -> Embedder:
    """Load an embedding network by name.

    Each backend is imported only when it is asked for, so that the extras stay extras.

    Args:
        name: the backend.
        device: ``auto`` (the GPU where there is one), ``cpu``, ``cuda`` …

    Raises:
        ValueError: the backend cannot be loaded, or is ``precomputed``, which has no network.
    """
    if name == "efficientnet-lite0":
        from mtcm_nerfstudio.tokens.embedders.efficientnet import load_efficientnet

        return load_efficientnet(device)
    if name == "dinov2-vits14":
        from mtcm_nerfstudio.tokens.embedders.dinov2 import load_dinov2

        return load_dinov2(device)
    if name == "clip-vit-b32":
        from mtcm_nerfstudio.tokens.embedders.clip import load_clip

        return load_clip(device)
    if name == "precomputed":
        raise ValueError("precomputed embeddings are read from the capture's .npy files: there is no network to load")
    assert_never(name)
