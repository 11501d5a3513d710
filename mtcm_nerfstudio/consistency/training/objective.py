"""What the transformer is trained for: all losses of a batch."""

from collections.abc import Sequence

import torch

from mtcm_nerfstudio.consistency.losses import (
    Losses,
    detection_loss,
    next_pose_loss,
    reason_loss,
    reconstruction_loss,
)
from mtcm_nerfstudio.consistency.training.batch import Batch
from mtcm_nerfstudio.consistency.training.identities import IdentityMoments
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer, ModelOutput


def compute_losses(
    model: ConsistencyTransformer, output: ModelOutput, batch: Batch, moments: IdentityMoments | None = None
) -> Losses:
    """Return all losses of a batch.

    Args:
        model: the transformer itself, for the space that tokens are reconstructed in.
        output: what it said.
        batch: what it was asked.
        moments: statistics of the identities that are trained together.
    """
    target = model.targets(batch.wanted, batch.tokens, batch.present, batch.padding, batch.masked)
    hidden = (batch.present & batch.masked & batch.padding[..., None])[..., model.standardisation.part_of_entry]
    last = model.standardisation.limit_positions(batch.last_pose)
    clean = batch.padding & ~batch.replaced.any(dim=-1) & ~batch.masked.any(dim=-1)
    several = moments is not None and len(moments.identities) > 1
    return Losses(
        reconstruction=reconstruction_loss(output.reconstruction, target, hidden),
        pose=next_pose_loss(output.next_pose, last, batch.last_pose_known),
        consistency=detection_loss(output.inconsistency_logit, batch.inconsistent, batch.verdict_counts),
        modality=detection_loss(output.modality_logits, batch.replaced, batch.judged),
        reason=reason_loss(output.reason_logits, batch.reason),
        identity=moments.loss(batch.identity, output.states, clean) if moments and several else target.new_zeros(()),
    )


def mean_losses(losses: Sequence[Losses]) -> Losses:
    """Return the mean of each loss."""
    return Losses(*(torch.stack(values).mean() for values in zip(*losses, strict=True)))
