"""Runs an embedding network over images in batches; the backends differ in the network they put in."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image
from torch import nn

from mtcm_nerfstudio.tokens.embedders.base import EMBEDDING_DIM, NetworkName, network_input, with_unit_rms

_BATCH = 16


@dataclass(frozen=True, eq=False)
class NetworkEmbedder:
    """An embedder that is a torch network from normalised pixels to 384 numbers."""

    name: NetworkName
    network: nn.Module
    """Maps (frame 3 size size) to (frame 384); in evaluation mode."""
    input_size: int
    """Side of the network's square input, in pixels."""
    mean: tuple[float, ...]
    """Mean colour of the network's training images, each channel in [0, 1]."""
    std: tuple[float, ...]
    preprocessing: str
    """Names the way from file to network input; another name is another version."""

    @property
    def version(self) -> str:
        """The way the input is made, its size, and a digest of the weights."""
        return f"{self.preprocessing}-{self.input_size}-{weights_digest(self.network)}"

    def embed(self, images: Sequence[Image.Image]) -> Float32[np.ndarray, "frame 384"]:
        """Embed images in batches of 16; each row has the norm √384.

        Raises:
            ValueError: the network gave zeros or non-finite numbers.
        """
        if not images:
            return np.zeros((0, EMBEDDING_DIM), dtype=np.float32)
        batches = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
        return with_unit_rms(np.concatenate([self._embed_batch(batch) for batch in batches]))

    def _embed_batch(self, images: Sequence[Image.Image]) -> Float32[np.ndarray, "frame 384"]:
        device = next(self.network.parameters()).device
        pixels = torch.from_numpy(network_input(images, self.input_size, self.mean, self.std)).to(device)
        with torch.inference_mode():
            return self.network(pixels).float().cpu().numpy()


def torch_device(device: str) -> torch.device:
    """Resolve ``auto`` to the GPU where there is one, else to the CPU; other names are torch's own."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def weights_digest(network: nn.Module) -> str:
    """Return the first twelve hex digits of the SHA-256 over names, shapes and bytes of a network's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
