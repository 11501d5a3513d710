"""nerfacto that can do without LPIPS, for machines that cannot fetch its weights."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from nerfstudio.models.nerfacto import NerfactoModel, NerfactoModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn

_PATIENCE_SECONDS = 5.0
"""How long to wait for an answer from where torchvision keeps its weights."""


@dataclass
class MTCMNerfactoModelConfig(NerfactoModelConfig):
    """nerfacto, which reports LPIPS where the weights of its network are there or can be fetched."""

    _target: type = field(default_factory=lambda: MTCMNerfactoModel)
    """target class to instantiate"""


class MTCMNerfactoModel(NerfactoModel):
    """nerfacto; without the weights that LPIPS needs it trains all the same, and says so in one line."""

    def populate_modules(self) -> None:
        """Build the model. LPIPS comes last there, so all else is in place when its weights are not to be had."""
        try:
            with _short_patience():
                super().populate_modules()
        except OSError as error:
            if not hasattr(self, "ssim"):
                raise
            CONSOLE.print(f"LPIPS is absent: its AlexNet weights cannot be fetched ({error}).", markup=False)
            self.lpips = AbsentLpips()

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Return nerfacto's metrics and images, LPIPS left out where it is absent."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        if isinstance(self.lpips, AbsentLpips):
            del metrics["lpips"]
        return metrics, images


class AbsentLpips(nn.Module):
    """Stands where nerfacto calls LPIPS, and knows no distance between images."""

    def forward(self, image: Tensor, rendered: Tensor) -> Tensor:
        """Return NaN."""
        return torch.full((), torch.nan, device=image.device)


@contextmanager
def _short_patience() -> Iterator[None]:
    """Give up on a server that does not answer: a machine without internet must not hang before its first step."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
