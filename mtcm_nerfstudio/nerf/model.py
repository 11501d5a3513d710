"""nerfacto and splatfacto for machines that cannot fetch the weights of LPIPS, and that have no GPU."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torchmetrics.image.lpip
from nerfstudio.models.nerfacto import NerfactoModel, NerfactoModelConfig
from nerfstudio.models.splatfacto import SplatfactoModel, SplatfactoModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn

from mtcm_nerfstudio.nerf.hash_grid import quicken

_PATIENCE_SECONDS = 5.0
"""How long to wait for an answer from where torchvision keeps its weights."""


class OptionalLpips:
    """One of nerfstudio's models; without the weights that LPIPS needs it trains all the same, and says so."""

    def populate_modules(self) -> None:
        """Build the model; replace LPIPS by a metric that is NaN if its weights cannot be loaded.

        Hash grids that are to run in torch run the quick way.
        """
        with _lpips_or_none():
            super().populate_modules()  # type: ignore[misc]  (nerfstudio's model, beside which this stands)
        if getattr(self.config, "implementation", None) == "torch":  # type: ignore[attr-defined]
            quicken(self)  # type: ignore[arg-type]

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Return the model's metrics and images, LPIPS left out where it is absent."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)  # type: ignore[misc]
        if isinstance(getattr(self, "lpips", None), AbsentLpips):
            metrics = {name: value for name, value in metrics.items() if not name.endswith("lpips")}
        return metrics, images


@dataclass
class MTCMNerfactoModelConfig(NerfactoModelConfig):
    """nerfacto, which reports LPIPS where the weights of its network are there or can be fetched."""

    _target: type = field(default_factory=lambda: MTCMNerfactoModel)
    """target class to instantiate"""


class MTCMNerfactoModel(OptionalLpips, NerfactoModel):  # pyright: ignore[reportIncompatibleMethodOverride]
    """nerfacto, with LPIPS or without."""


@dataclass
class MTCMSplatfactoModelConfig(SplatfactoModelConfig):
    """splatfacto, which reports LPIPS where the weights of its network are there or can be fetched."""

    _target: type = field(default_factory=lambda: MTCMSplatfactoModel)
    """target class to instantiate"""


class MTCMSplatfactoModel(OptionalLpips, SplatfactoModel):  # pyright: ignore[reportIncompatibleMethodOverride]
    """splatfacto, with LPIPS or without."""


class AbsentLpips(nn.Module):
    """Placeholder for LPIPS; returns NaN."""

    def forward(self, image: Tensor, rendered: Tensor) -> Tensor:
        """Return NaN."""
        return torch.full((), torch.nan, device=image.device)


@contextmanager
def _lpips_or_none() -> Iterator[None]:
    """Let what asks torchmetrics for LPIPS meanwhile get one that knows nothing where its weights are not there."""
    lpips: Any = torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity

    def make(*arguments: Any, **options: Any) -> nn.Module:
        try:
            with _short_patience():
                return lpips(*arguments, **options)
        except OSError as error:
            CONSOLE.print(f"LPIPS is absent: its AlexNet weights cannot be fetched ({error}).", markup=False)
            return AbsentLpips()

    torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity = make  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity = lpips


@contextmanager
def _short_patience() -> Iterator[None]:
    """Give up on a server that does not answer: a machine without internet must not hang before its first step."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
