"""Training losses as functions of tensors; zero for an empty selection."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

IGNORED = -1
"""Reason of a frame that is not at odds with the capture."""


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts; 0 turns it off."""

    reconstruction: float = 0.002
    """Of L_recon, a sum over up to 394 standardised numbers a token."""
    pose: float = 0.2
    """Of L_pose, a sum over seven numbers: units of the capture and quaternion."""
    consistency: float = 1.0
    """Of the verdict on each frame."""
    modality: float = 0.5
    """Of the verdicts on image, pose and time."""
    reason: float = 0.25
    """Of the reason of frames that are at odds."""
    identity: float = 0.05
    """Of the regulariser across identities (with one identity there is none)."""

    def __post_init__(self) -> None:
        """Check that no loss is rewarded for growing."""
        for name, value in vars(self).items():
            if not value >= 0.0:
                raise ValueError(f"the weight of the {name} loss must not be negative, got {value}")


class Losses(NamedTuple):
    """Every loss of a step, unweighted."""

    reconstruction: Float[Tensor, ""]
    pose: Float[Tensor, ""]
    consistency: Float[Tensor, ""]
    modality: Float[Tensor, ""]
    reason: Float[Tensor, ""]
    identity: Float[Tensor, ""]

    def total(self, weights: LossWeights) -> Float[Tensor, ""]:
        """Return the weighted sum."""
        total = torch.zeros_like(self.reconstruction)
        for name, value in self._asdict().items():
            total = total + getattr(weights, name) * value
        return total


def reconstruction_loss(
    reconstruction: Float[Tensor, "capture frame 394"],
    target: Float[Tensor, "capture frame 394"],
    hidden: Bool[Tensor, "capture frame 394"],
) -> Float[Tensor, ""]:
    """L_recon = 1/|M| Σ_{i ∈ M} ‖t̂_i − t_i‖², the norm over the entries of token i that were hidden.

    Args:
        reconstruction: predicted tokens, standardised.
        target: real tokens, standardised; any value where not hidden.
        hidden: entries that are present in the capture and were hidden from the network. M are the tokens with any.
    """
    error = (reconstruction - target).masked_fill(~hidden, 0.0).square().sum(dim=-1)
    return error.sum() / hidden.any(dim=-1).sum().clamp(min=1)


def next_pose_loss(
    predicted: Float[Tensor, "capture 7"], last: Float[Tensor, "capture 7"], known: Bool[Tensor, " capture"]
) -> Float[Tensor, ""]:
    """L_pose = ‖p̂ − p_last‖₁, averaged over the sequences whose last pose is known.

    A quaternion and its negative are one rotation: the nearer of the two counts.
    """
    position = (predicted[:, :3] - last[:, :3]).abs().sum(dim=1)
    rotation = torch.minimum(
        (predicted[:, 3:] - last[:, 3:]).abs().sum(dim=1), (predicted[:, 3:] + last[:, 3:]).abs().sum(dim=1)
    )
    return mean_where(position + rotation, known)


def detection_loss(
    logits: Float[Tensor, "*batch"], replaced: Bool[Tensor, "*batch"], counts: Bool[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """Binary cross-entropy of replaced-token detection, averaged over what counts."""
    entropy = functional.binary_cross_entropy_with_logits(logits, replaced.to(logits.dtype), reduction="none")
    return mean_where(entropy, counts)


def reason_loss(logits: Float[Tensor, "capture frame 5"], reason: Int[Tensor, "capture frame"]) -> Float[Tensor, ""]:
    """Cross-entropy over the reasons of the frames that have one (the others hold ``IGNORED``)."""
    entropy = functional.cross_entropy(logits.flatten(0, 1), reason.flatten(), ignore_index=IGNORED, reduction="sum")
    return entropy / (reason != IGNORED).sum().clamp(min=1)


def identity_loss(
    states: Float[Tensor, "frame dim"], others_mean: Float[Tensor, " dim"], others_deviation: Float[Tensor, " dim"]
) -> Float[Tensor, ""]:
    """Mean squared difference of first and second moments between one identity's states and those of the others.

    A diagonal form of CORAL (Sun and Saenko, 2016) with the means added: states that differ by identity in where
    they lie or how far they spread carry who or what a capture shows, which a verdict must not depend on.
    """
    mean, deviation = state_moments(states)
    return (mean - others_mean).square().mean() + (deviation - others_deviation).square().mean()


def state_moments(states: Float[Tensor, "frame dim"]) -> tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]]:
    """Return mean and standard deviation of every dimension over the frames."""
    mean = states.mean(dim=0)
    return mean, ((states - mean).square().mean(dim=0) + 1e-8).sqrt()


def mean_where(values: Float[Tensor, "*batch"], counts: Bool[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Return the mean over what counts, zero where nothing does."""
    return values.masked_fill(~counts, 0.0).sum() / counts.sum().clamp(min=1)
