"""The consistency transformer in joint fine-tuning: frame weights, pose corrections and their losses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard
from mtcm_nerfstudio.consistency.losses import reconstruction_loss
from mtcm_nerfstudio.consistency.transformer_dataset import draw_masks
from mtcm_nerfstudio.consistency.transformer_model import MODALITIES, ConsistencyTransformer
from mtcm_nerfstudio.nerf.joint.free_energy import free_energy, optimal_logit
from mtcm_nerfstudio.nerf.joint.joint_input import JointInput
from mtcm_nerfstudio.nerf.joint.photometric import FrameLosses
from mtcm_nerfstudio.nerf.joint.results import JointResult
from mtcm_nerfstudio.nerf.joint.settings import JointSettings

_SUREST = 6.0
"""Largest logit of a prior: no frame is so sure that the NeRF could not say otherwise."""
_RIDGE = 1e-3
"""How stiff the layer is that reconsiders verdicts, per frame (states have variance 1)."""
_LEAST_DOUBT = 0.02
"""The same for poses: so much of its correction has the frame whose pose is surest."""


class JointOutput(NamedTuple):
    """What the transformer says of the training frames."""

    logit: Float[Tensor, " frame"]
    """Of the probability that a frame belongs to the scene, which is its weight."""
    twist: Float[Tensor, "frame 6"]
    """Correction ξ ∈ se(3) of its pose, about its own centre and along the world's axes: shift, then turn (radians)."""
    pose_logit: Float[Tensor, " frame"]
    """Of the probability that its pose is off."""
    reason_logits: Float[Tensor, "frame 5"]
    """Which of ``REASONS`` it is, if the frame does not belong."""
    states: Float[Tensor, "frame dim"]


@dataclass(frozen=True)
class NerfFeedback:
    """Relative photometric cost and pose gradient per training frame since the last refresh, equal on all processes."""

    cost: Float[Tensor, " frame"]
    """See ``free_energy.relative_cost``."""
    slope: Float[Tensor, "frame 6"]
    """Mean gradient of the NeRF's loss by the frames' corrections."""


class JointTransformer(nn.Module):
    """The transformer, a ridge regression on its states, a pose-correction head, and their last outputs as buffers.

    The transformer itself learns slowly, so as not to forget what it knows of other captures. Until it has, a linear
    layer on its last states, solved anew at every refresh, makes up for the difference between what it says and what
    is best for what the NeRF says (``free_energy.optimal_logit``).

    Its words of the last refresh are buffers: they go into the NeRF's checkpoint, and whoever opens it needs neither
    the capture's images nor its matches.
    """

    prior: Tensor
    """Logit, for every training frame, of the weight that the transformer gave it at the beginning."""
    doubt: Tensor
    """Probability, at the beginning, that a frame's pose is off: the scale of its correction. A young NeRF pulls at
    every camera, and moving those that are right costs sharpness; these hold the scene in place for the others."""
    weight: Tensor
    reconsider: Tensor
    """Weights of the layer on the last states that is added to the logits."""
    twist: Tensor
    refreshes: Tensor
    """Number of refreshes."""

    def __init__(
        self, transformer: ConsistencyTransformer, card: CheckpointCard, frames: int, settings: JointSettings
    ) -> None:
        """Start from a trained transformer, poses as they are and all frames trusted."""
        super().__init__()
        self.transformer, self.card, self.frames, self.settings = transformer, card, frames, settings
        self.correct = nn.Linear(transformer.config.d_model, 6, bias=False)
        nn.init.zeros_(self.correct.weight)
        self.register_buffer("reconsider", torch.zeros(transformer.config.d_model))
        self.register_buffer("prior", torch.full((frames,), _SUREST))
        self.register_buffer("doubt", torch.full((frames,), _LEAST_DOUBT))
        self.register_buffer("weight", torch.ones(frames))
        self.register_buffer("twist", torch.zeros(frames, 6))
        self.register_buffer("refreshes", torch.zeros((), dtype=torch.long))
        self.losses = FrameLosses(frames, settings.memory)
        self.joint_input: JointInput | None = None
        self.train(False)

    def train(self, mode: bool = True) -> "JointTransformer":
        """Stay in evaluation mode: dropout would change every refresh."""
        return super().train(False)

    @torch.no_grad()
    def begin(self, joint_input: JointInput) -> None:
        """Read the training frames for the first time; a resumed run reads its own words into the buffers later."""
        self.joint_input = joint_input
        joint_output = self.read()
        self.prior.copy_(joint_output.logit.clamp(-_SUREST, _SUREST))
        self.doubt.copy_(torch.sigmoid(joint_output.pose_logit).clamp(min=_LEAST_DOUBT))
        if self.settings.weights:
            self.weight.copy_(torch.sigmoid(self.prior))

    def read(self) -> JointOutput:
        """Read the training frames as the transformer is now."""
        joint_input = self._joint_input()
        padding = torch.ones_like(joint_input.present[..., 0])
        nothing = torch.zeros_like(joint_input.present)
        output = self.transformer(joint_input.tokens, joint_input.present, padding, nothing, joint_input.evidence)
        inconsistency = joint_input.mean_over_windows(output.inconsistency_logit, self.frames)
        modality = joint_input.mean_over_windows(output.modality_logits, self.frames)
        states = joint_input.mean_over_windows(output.states, self.frames)
        forest_logit = joint_input.mean_over_windows(output.forest_logit, self.frames)
        card = self.card
        inconsistent = card.calibration_scale * inconsistency + card.calibration_offset
        inconsistent = inconsistent + card.calibration_forest * forest_logit
        scale = states.new_tensor([self.settings.shift_scale] * 3 + [self.settings.turn_scale] * 3)
        return JointOutput(
            logit=_logit_of_neither(inconsistent, joint_input.blurred),
            # Less their mean: a motion that all frames share would only carry the scene about.
            twist=self.correct(states - states.mean(dim=0)) * scale * self.doubt[:, None],
            pose_logit=modality[:, MODALITIES.index("pose")],
            reason_logits=joint_input.mean_over_windows(output.reason_logits, self.frames),
            states=states,
        )

    def loss(self, joint_output: JointOutput, feedback: NerfFeedback, step: int) -> dict[str, Float[Tensor, ""]]:
        """Return the parts of what the transformer is trained by at a refresh.

        Args:
            joint_output: what it says now.
            feedback: what the NeRF made of what it said before.
            step: of the run; decides what is hidden for the reconstruction.
        """
        settings = self.settings
        parts = {"reconstruction": settings.reconstruction * self._reconstruction(step)}
        if settings.weights:
            parts["free_energy"] = free_energy(
                joint_output.logit, self.prior, feedback.cost, settings.boundary, settings.temperature
            )
        if settings.corrections:
            # Linear in ξ with the NeRF's own gradient as its slope: the chain rule, one link at a time.
            parts["correction"] = (joint_output.twist * feedback.slope).sum()
            parts["correction_size"] = settings.correction_penalty * joint_output.twist.square().sum(dim=-1).mean()
        return parts

    @torch.no_grad()
    def update_weights(self, joint_output: JointOutput, feedback: NerfFeedback) -> None:
        """Let what the transformer says now hold until the next refresh."""
        self.refreshes += 1
        if self.settings.weights:
            best = optimal_logit(self.prior, feedback.cost, self.settings.boundary, self.settings.temperature)
            self.reconsider.copy_(
                ridge(joint_output.states, best.clamp(-2 * _SUREST, 2 * _SUREST) - joint_output.logit)
            )
            self.weight.copy_(torch.sigmoid(joint_output.logit + joint_output.states @ self.reconsider))
        if self.settings.corrections:
            self.twist.copy_(joint_output.twist)

    def groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return the parameters by optimizer group."""
        return {"mtcm": list(self.transformer.parameters()), "mtcm_corrections": list(self.correct.parameters())}

    def _reconstruction(self, step: int) -> Float[Tensor, ""]:
        """Return the masked reconstruction loss, so that the transformer does not forget what it was trained for."""
        joint_input = self._joint_input()
        rng = np.random.default_rng(step)
        windows, places = joint_input.frame.shape
        masks = np.stack([draw_masks(places, self.settings.mask_ratio, rng) for _ in range(windows)])
        masked = torch.from_numpy(masks).to(joint_input.present.device)
        padding = torch.ones_like(masked[..., 0])
        output = self.transformer(joint_input.tokens, joint_input.present, padding, masked, joint_input.evidence)
        target = self.transformer.targets(joint_input.tokens, joint_input.tokens, joint_input.present, padding, masked)
        hidden = (joint_input.present & masked)[..., self.transformer.standardisation.part_of_entry]
        return reconstruction_loss(output.reconstruction, target, hidden)

    def _joint_input(self) -> JointInput:
        if self.joint_input is None:
            raise RuntimeError("the transformer was not given the training frames: call begin() first")
        return self.joint_input


def _logit_of_neither(
    inconsistent: Float[Tensor, " frame"], blurred: Float[Tensor, " frame"]
) -> Float[Tensor, " frame"]:
    """Return the logit of (1 − p)(1 − q): neither judge is right to find a fault.

    Args:
        inconsistent: logit of p.
        blurred: q itself.
    """
    sharp = torch.log1p(-blurred.clamp(max=1.0 - 1e-6))
    p, not_p = nn.functional.logsigmoid(inconsistent), nn.functional.logsigmoid(-inconsistent)
    return not_p + sharp - torch.logaddexp(p + sharp, torch.log(blurred))


def ridge(states: Float[Tensor, "frame dim"], target: Float[Tensor, " frame"]) -> Float[Tensor, " dim"]:
    """Return the linear layer on the states that comes nearest to the target, by ridge regression."""
    x = states.double()
    stiff = _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return torch.linalg.solve(x.T @ x + stiff, x.T @ target.double()).to(states)


@torch.no_grad()
def joint_result(joint: JointTransformer, names: tuple[str, ...], c2w: Float[np.ndarray, "frame 4 4"]) -> JointResult:
    """Sum up what a run came to.

    Args:
        joint: the transformer at the end.
        names: of the training frames.
        c2w: their refined poses in the capture's world.
    """
    joint_output, losses = joint.read(), joint.losses
    columns = {
        "weight": joint.weight,
        "prior": torch.sigmoid(joint.prior),
        "reasons": joint_output.reason_logits,
        "loss": losses.average,
        "last_loss": losses.last,
        "times_seen": losses.times,
        "turned_degrees": joint.twist[:, 3:].norm(dim=-1).rad2deg(),
        "shifted": joint.twist[:, :3].norm(dim=-1),
        "states": joint_output.states,
    }
    return JointResult(names=names, c2w=c2w, **{key: value.double().cpu().numpy() for key, value in columns.items()})
