"""DINOv2 ViT-S/14 (Oquab et al., arXiv 2304.07193): the class token, 384 numbers. Needs the extra ``dinov2``."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from mtcm_nerfstudio.tokens.embedders.base import EMBEDDING_DIM
from mtcm_nerfstudio.tokens.embedders.hub import chosen_model, load_vision_network
from mtcm_nerfstudio.tokens.embedders.network import NetworkEmbedder, torch_device

MODEL_VARIABLE = "MTCM_DINOV2_MODEL"
"""Environment variable: a local folder, or another name on the model hub, to load instead of ``HUB_MODEL``."""

HUB_MODEL = "facebook/dinov2-small"

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class ClassToken(nn.Module):
    """A vision transformer reduced to its normalised class token."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap a ``Dinov2Model``."""
        super().__init__()
        self.network = network

    def forward(self, pixels: Float[Tensor, "frame 3 h w"]) -> Float[Tensor, "frame dim"]:
        """Return the class token after the last layer norm."""
        return self.network(pixel_values=pixels).last_hidden_state[:, 0]


def load_dinov2(device: str = "auto", model: str | Path | None = None) -> NetworkEmbedder:
    """Load DINOv2 ViT-S/14 from the model hub, or from a local folder.

    Args:
        device: where to run it.
        model: a folder or hub name; default: ``$MTCM_DINOV2_MODEL``, else ``facebook/dinov2-small``.

    Raises:
        ValueError: ``transformers`` or the network cannot be had, or its class token is not 384 wide.
    """
    source = chosen_model(model, MODEL_VARIABLE, HUB_MODEL)
    network = load_vision_network("dinov2-vits14", "dinov2", "Dinov2Model", source, MODEL_VARIABLE)
    width = network.config.hidden_size
    if width != EMBEDDING_DIM:
        raise ValueError(f"embedder dinov2-vits14: {source} has a class token of {width} numbers, not {EMBEDDING_DIM}")
    token = ClassToken(network).eval().to(torch_device(device))
    return NetworkEmbedder("dinov2-vits14", token, 224, _MEAN, _STD, "stretch-1")
