"""CLIP ViT-B/32 (Radford et al., arXiv 2103.00020), 512 numbers brought to 384 by a fixed projection.

Needs the extra ``clip``.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from mtcm_nerfstudio.tokens.embedders.base import EMBEDDING_DIM
from mtcm_nerfstudio.tokens.embedders.hub import chosen_model, load_vision_network
from mtcm_nerfstudio.tokens.embedders.network import NetworkEmbedder, torch_device

MODEL_VARIABLE = "MTCM_CLIP_MODEL"
"""Environment variable: a local folder, or another name on the model hub, to load instead of ``HUB_MODEL``."""

HUB_MODEL = "openai/clip-vit-base-patch32"
CLIP_DIM = 512

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_PROJECTION_SEED = 384


class ProjectedImageEmbedding(nn.Module):
    """CLIP's image embedding, projected to 384 numbers."""

    projection: Tensor

    def __init__(self, network: nn.Module, projection: Float32[np.ndarray, "512 384"]) -> None:
        """Wrap a ``CLIPVisionModelWithProjection``; the projection is a buffer, so it is stored with the weights."""
        super().__init__()
        self.network = network
        self.register_buffer("projection", torch.from_numpy(projection))

    def forward(self, pixels: Float[Tensor, "frame 3 h w"]) -> Float[Tensor, "frame 384"]:
        """Return the projected embedding."""
        return self.network(pixel_values=pixels).image_embeds @ self.projection


def orthonormal_projection() -> Float32[np.ndarray, "512 384"]:
    """Return the fixed projection from 512 to 384 numbers: orthonormal columns, the same on every machine.

    A random orthonormal projection keeps distances up to a common factor (Johnson and Lindenstrauss, 1984).
    ``RandomState``'s stream is frozen by NumPy, and a triangular factor with a positive diagonal makes the
    QR decomposition unique.
    """
    gaussian = np.random.RandomState(_PROJECTION_SEED).standard_normal((CLIP_DIM, EMBEDDING_DIM))
    q, r = np.linalg.qr(gaussian)
    return (q * np.sign(np.diag(r))).astype(np.float32)


def load_clip(
    device: str = "auto",
    model: str | Path | None = None,
    projection: Float[np.ndarray, "512 384"] | None = None,
) -> NetworkEmbedder:
    """Load CLIP ViT-B/32 from the model hub, or from a local folder.

    Args:
        device: where to run it.
        model: a folder or hub name; default: ``$MTCM_CLIP_MODEL``, else ``openai/clip-vit-base-patch32``.
        projection: the projection that a checkpoint stored; default: ``orthonormal_projection()``.

    Raises:
        ValueError: ``transformers`` or the network cannot be had, or its embedding is not 512 wide.
    """
    source = chosen_model(model, MODEL_VARIABLE, HUB_MODEL)
    network = load_vision_network("clip-vit-b32", "clip", "CLIPVisionModelWithProjection", source, MODEL_VARIABLE)
    width = network.config.projection_dim
    if width != CLIP_DIM:
        raise ValueError(f"embedder clip-vit-b32: {source} has embeddings of {width} numbers, not {CLIP_DIM}")
    matrix = orthonormal_projection() if projection is None else projection.astype(np.float32)
    projected = ProjectedImageEmbedding(network, matrix).eval().to(torch_device(device))
    return NetworkEmbedder("clip-vit-b32", projected, network.config.image_size, CLIP_MEAN, CLIP_STD, "stretch-1")
