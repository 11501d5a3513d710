"""Between a NeRF's loss and its frames: rays and cameras moved by corrections, losses weighted and known by frame."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.lie_groups import exp_map_SE3
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor, nn

RGB_LOSS = "rgb_loss"
"""Name that models which sample rays have for the module that compares colours."""
IMAGE_LOSSES = ("main_loss", "rgb_loss")
"""Names, in a model's loss dict, of the loss that compares a whole image."""


class FrameLosses(nn.Module):
    """What is known of the photometric loss of every training frame."""

    total: Tensor
    """Sum of the losses of a frame's rays (or of its images) since the last refresh."""
    count: Tensor
    """How many these are."""
    average: Tensor
    """Moving average of the loss over refreshes, NaN for frames not seen yet."""
    last: Tensor
    """Loss of the frame when it was last seen."""
    times: Tensor
    """Steps in which the frame was seen."""

    def __init__(self, frames: int, memory: float) -> None:
        """Start without losses; ``memory``, in [0, 1), is the decay of the moving average."""
        super().__init__()
        self.memory = memory
        for name in ("total", "count", "times"):
            self.register_buffer(name, torch.zeros(frames))
        for name in ("average", "last"):
            self.register_buffer(name, torch.full((frames,), torch.nan))

    def add(self, frames: Int[Tensor, " ray"], losses: Float[Tensor, " ray"]) -> None:
        """Take note of the losses of rays."""
        losses = losses.detach().to(self.total.dtype)
        total = torch.zeros_like(self.total).index_add_(0, frames, losses)
        count = torch.zeros_like(self.count).index_add_(0, frames, torch.ones_like(losses))
        seen = count > 0
        self.last = torch.where(seen, total / count.clamp(min=1.0), self.last)
        self.times += seen
        self.total += total
        self.count += count

    def settle(self) -> None:
        """Let what was seen since the last time enter the average."""
        mean = self.total / self.count.clamp(min=1.0)
        average = torch.where(self.average.isnan(), mean, self.memory * self.average + (1.0 - self.memory) * mean)
        self.average = torch.where(self.count > 0, average, self.average)
        self.total.zero_()
        self.count.zero_()


def frames_of(given: RayBundle | Cameras) -> Int[Tensor, " ray"]:
    """Return the training frame of each ray of a batch, or that of the one camera whose image is the batch."""
    if isinstance(given, Cameras):
        assert given.metadata is not None, "a camera of the training set knows its number"
        return torch.tensor([int(given.metadata["cam_idx"])])
    assert given.camera_indices is not None, "rays of a training batch know their cameras"
    return given.camera_indices[..., 0]


def moved_rays(rays: RayBundle, twist: Float[Tensor, "ray 6"]) -> RayBundle:
    """Move each ray's camera by exp(ξ) about its own centre, ξ being (shift, turn) along the world's axes."""
    motion = exp_map_SE3(twist)
    return replace(
        rays,
        origins=rays.origins + motion[:, :3, 3],
        directions=(motion[:, :3, :3] @ rays.directions[..., None])[..., 0],
    )


def moved_camera(camera: Cameras, twist: Float[Tensor, "one 6"]) -> Cameras:
    """Move a camera in the same way."""
    c2w = camera.camera_to_worlds
    motion = exp_map_SE3(twist).to(c2w)
    moved = copy(camera)
    moved.camera_to_worlds = torch.cat([motion[:, :3, :3] @ c2w[:, :3, :3], c2w[:, :3, 3:] + motion[:, :3, 3:]], dim=-1)
    return moved


def moved_c2w(c2w: Float[Tensor, "frame 3 4"], twist: Float[Tensor, "frame 6"]) -> Float[Tensor, "frame 3 4"]:
    """Move camera-to-world matrices in the same way."""
    motion = exp_map_SE3(twist).to(c2w)
    return torch.cat([motion[:, :3, :3] @ c2w[:, :, :3], c2w[:, :, 3:] + motion[:, :3, 3:]], dim=-1)


class WeightedLoss(nn.Module):
    """A model's loss between colours, each ray counting as much as its frame."""

    def __init__(
        self, inner: nn.Module, frames: Int[Tensor, " ray"], weights: Float[Tensor, " ray"], losses: FrameLosses
    ) -> None:
        """Stand in for ``inner``, an element-wise loss with a ``reduction``, for rays of known frames."""
        super().__init__()
        self.each: Any = copy(inner)
        self.each.reduction = "none"
        self.frames, self.weights, self.losses = frames, weights, losses

    def forward(self, first: Float[Tensor, "ray 3"], second: Float[Tensor, "ray 3"]) -> Float[Tensor, ""]:
        """Return the weighted mean over the rays."""
        of_rays = self.each(first, second).mean(dim=-1)
        self.losses.add(self.frames, of_rays)
        return (self.weights * of_rays).mean()


@contextmanager
def weighted(
    model: nn.Module, frames: Int[Tensor, " ray"], weights: Float[Tensor, " ray"], losses: FrameLosses
) -> Iterator[None]:
    """Weight a model's loss between colours while this lasts.

    Raises:
        ValueError: the model has no such loss that could be weighted ray by ray.
    """
    inner = getattr(model, RGB_LOSS, None)
    if not isinstance(inner, nn.Module) or not hasattr(inner, "reduction"):
        raise ValueError(
            f"{type(model).__name__} has no {RGB_LOSS} that could be weighted by frame: "
            "leave --pipeline.joint.enabled out"
        )
    setattr(model, RGB_LOSS, WeightedLoss(inner, frames, weights, losses))
    try:
        yield
    finally:
        setattr(model, RGB_LOSS, inner)


def weight_image_loss(loss_dict: dict[str, Tensor], frame: int, weight: Float[Tensor, ""], losses: FrameLosses) -> None:
    """Weight the loss of a whole image, in place, and take note of it.

    Raises:
        ValueError: the model has no such loss.
    """
    name = next((name for name in IMAGE_LOSSES if name in loss_dict), None)
    if name is None:
        raise ValueError(
            f"none of the model's losses ({', '.join(loss_dict)}) is that of the image: "
            "leave --pipeline.joint.enabled out"
        )
    losses.add(torch.tensor([frame], device=losses.total.device), loss_dict[name].detach().reshape(1))
    loss_dict[name] = weight * loss_dict[name]
