"""Examples of one capture, and a batch of them padded to one length."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from mtcm_nerfstudio.consistency.evidence_encoder import EvidenceInput, evidence_input
from mtcm_nerfstudio.consistency.losses import IGNORED
from mtcm_nerfstudio.evidence.frame_numbers import Evidence


@dataclass(frozen=True, eq=False)
class Example:
    """One variant of a capture, with what is true of it."""

    tokens: Float32[np.ndarray, "frame 394"]
    present: Bool[np.ndarray, "frame 5"]
    masked: Bool[np.ndarray, "frame 5"]
    wanted: Float32[np.ndarray, "frame 394"]
    """The tokens without faults, in the frame of reference of those with them."""
    replaced: Bool[np.ndarray, "frame 3"]
    """Whether image, pose and time are wrong."""
    judged: Bool[np.ndarray, "frame 3"]
    """Whether that can be asked: the part is there, is not hidden, and its truth is known."""
    reason: Int[np.ndarray, " frame"]
    """Index of the reason, ``IGNORED`` for frames without a fault that can be seen."""
    last_pose: Float[np.ndarray, "7"]
    """Pose of the frame after the last one, without faults; zeros where it is not known."""
    last_pose_known: bool
    evidence: Evidence | None = None
    """Evidence at the claimed poses; None without images."""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.tokens)


@dataclass(frozen=True, eq=False)
class Batch:
    """Variants of one capture, padded to one length; the axes are (capture variant, frame, …)."""

    identity: str
    """The one capture or identity that all variants are of."""
    tokens: Float[Tensor, "capture frame 394"]
    present: Bool[Tensor, "capture frame 5"]
    padding: Bool[Tensor, "capture frame"]
    """True where there is a real frame."""
    masked: Bool[Tensor, "capture frame 5"]
    wanted: Float[Tensor, "capture frame 394"]
    replaced: Bool[Tensor, "capture frame 3"]
    judged: Bool[Tensor, "capture frame 3"]
    reason: Int[Tensor, "capture frame"]
    last_pose: Float[Tensor, "capture 7"]
    last_pose_known: Bool[Tensor, " capture"]
    evidence: EvidenceInput | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on another device."""
        evidence = None if self.evidence is None else self.evidence.to(device)
        moved = Batch(self.identity, *(getattr(self, name).to(device) for name in _TENSORS))
        return replace(moved, evidence=evidence)

    @property
    def inconsistent(self) -> Bool[Tensor, "capture frame"]:
        """Frames with a wrong image or pose. A frame that is only out of order spoils no reconstruction."""
        return (self.replaced & self.judged)[..., :2].any(dim=-1)

    @property
    def verdict_counts(self) -> Bool[Tensor, "capture frame"]:
        """Frames of which it is known, and can be seen, whether they are inconsistent."""
        return self.judged[..., :2].any(dim=-1)


_TENSORS = (
    "tokens", "present", "padding", "masked", "wanted", "replaced", "judged", "reason", "last_pose", "last_pose_known",
)  # fmt: skip


def collate(identity: str, examples: Sequence[Example]) -> Batch:
    """Pad examples to one length and stack them."""
    length = max(len(example) for example in examples)

    def stacked(name: str, fill: int = 0) -> Tensor:
        rows = []
        for example in examples:
            array = getattr(example, name)
            widths = [(0, length - len(example))] + [(0, 0)] * (array.ndim - 1)
            rows.append(np.pad(array, widths, constant_values=fill))
        return torch.from_numpy(np.stack(rows))

    return Batch(
        identity=identity,
        tokens=stacked("tokens"),
        present=stacked("present"),
        padding=torch.tensor([[i < len(example) for i in range(length)] for example in examples]),
        masked=stacked("masked"),
        wanted=stacked("wanted"),
        replaced=stacked("replaced"),
        judged=stacked("judged"),
        reason=stacked("reason", IGNORED),
        last_pose=torch.tensor(np.stack([example.last_pose for example in examples]), dtype=torch.float32),
        last_pose_known=torch.tensor([example.last_pose_known for example in examples]),
        evidence=evidence_input([example.evidence for example in examples], length),
    )
