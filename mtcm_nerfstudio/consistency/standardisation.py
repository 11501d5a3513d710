"""From tokens as design §2 has them to numbers that a network can compare, and back for poses."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mtcm_nerfstudio.tokens.tokens import (
    EMBEDDING,
    FOCAL,
    MASK_AREA,
    PART_OF_ENTRY,
    POSE,
    TIMESTAMP,
    TOKEN_DIM,
)

_POSE_SCALE = 0.25
"""A quarter of the capture's unit, and a quaternion's quarter, become 1: errors of a few per cent must show."""
_SCALAR_SCALE = 0.25
_SPARE_EMBEDDING_SCALE = 0.05
"""Floor of a learned scale: a dimension that hardly varies must not be blown up (embeddings have RMS 1)."""
_MIDDLE_OF_TIME = 0.5


class Standardisation(nn.Module):
    """Subtracts what is typical for the capture and divides by what is typical for all captures.

    Embeddings, mask areas and focal lengths lose the capture's own median over the parts that may be seen, so that
    the network learns what differs from the rest of a capture and not what captures are of. Poses are in the
    capture's own frame already; positions are limited softly, so that a far pose can not drown everything else.
    """

    scale: Tensor
    part_of_entry: Tensor

    def __init__(self, position_limit: float) -> None:
        """Start with scale 1 for every dimension of the embedding."""
        super().__init__()
        self.position_limit = position_limit
        scale = torch.ones(TOKEN_DIM)
        scale[POSE] = _POSE_SCALE
        scale[TIMESTAMP : FOCAL + 1] = _SCALAR_SCALE
        self.register_buffer("scale", scale)
        self.register_buffer("part_of_entry", torch.as_tensor(PART_OF_ENTRY).long(), persistent=False)

    def learn_scale(self, embeddings: Float[Tensor, "frame 384"]) -> None:
        """Set the scale of each dimension of the embedding: the spread of the training captures about their medians.

        Args:
            embeddings: embeddings of all training captures, each minus its own capture's median.
        """
        self.scale[EMBEDDING] = embeddings.std(dim=0).clamp(min=_SPARE_EMBEDDING_SCALE)

    def centre(
        self, tokens: Float[Tensor, "capture frame 394"], visible: Bool[Tensor, "capture frame 5"]
    ) -> Float[Tensor, "capture 394"]:
        """Return what is subtracted: medians over the visible frames, 0 for the pose, 0.5 for the timestamp."""
        entries = visible[:, :, self.part_of_entry]
        median = tokens.masked_fill(~entries, torch.nan).nanmedian(dim=1).values.nan_to_num(0.0)
        centre = torch.zeros_like(median)
        centre[:, EMBEDDING] = median[:, EMBEDDING]
        centre[:, MASK_AREA : FOCAL + 1] = median[:, MASK_AREA : FOCAL + 1]
        centre[:, TIMESTAMP] = _MIDDLE_OF_TIME
        return centre

    def forward(
        self, tokens: Float[Tensor, "capture frame 394"], centre: Float[Tensor, "capture 394"]
    ) -> Float[Tensor, "capture frame 394"]:
        """Standardise tokens; entries that are absent give meaningless numbers that the caller replaces."""
        limited = tokens.clone()
        limited[..., POSE] = self.limit_positions(tokens[..., POSE])
        return (limited - centre[:, None]) / self.scale

    def limit_positions(self, pose: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 7"]:
        """Pull far positions towards the limit (in the capture's units); near ones hardly change.

        The distance from the origin d becomes limit·tanh(d / limit).
        """
        distance = pose[..., :3].norm(dim=-1, keepdim=True).clamp(min=1e-9)
        factor = self.position_limit * torch.tanh(distance / self.position_limit) / distance
        return torch.cat([pose[..., :3] * factor, pose[..., 3:]], dim=-1)

    def pose_from(self, standardised: Float[Tensor, "*batch 394"]) -> Float[Tensor, "*batch 7"]:
        """Return the poses (positions still limited, quaternions of length 1) of standardised tokens."""
        pose = standardised[..., POSE] * self.scale[POSE]
        return torch.cat([pose[..., :3], nn.functional.normalize(pose[..., 3:], dim=-1)], dim=-1)
