"""Training hook of joint fine-tuning: gather losses and pose gradients, update weights and corrections at a refresh.

Between two refreshes the NeRF trains with weights and corrections that stand still; its gradients by the corrections
gather on copies of them, its losses by frame. At a refresh both go back through the transformer.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.utils import writer
from torch import Tensor
from torch.cuda.amp.grad_scaler import GradScaler

from mtcm_nerfstudio.nerf.joint.free_energy import relative_cost
from mtcm_nerfstudio.nerf.joint.joint_transformer import JointTransformer, NerfFeedback
from mtcm_nerfstudio.nerf.joint.photometric import frames_of, moved_camera, moved_rays
from mtcm_nerfstudio.nerf.manual_decisions import ManualDecisions

_STEPS_PER_HISTOGRAM = 100
_SEEN_ENOUGH = 3
"""Steps in which a frame must have been seen for its loss to say anything."""


class JointHook:
    """Carries weights and corrections to the NeRF, and its losses and gradients back."""

    def __init__(self, joint: JointTransformer, grad_scaler: GradScaler | None, world_size: int) -> None:
        """Tie a transformer to one training run.

        Args:
            joint: the transformer with what it said last.
            grad_scaler: of the trainer, where it trains in mixed precision.
            world_size: processes that train together.
        """
        self.joint, self.settings = joint, joint.settings
        self.grad_scaler, self.world_size = grad_scaler, world_size
        self.manual_decisions: ManualDecisions | None = None
        """What a person said while the run was under way; the pipeline sets it."""
        self._twist: Tensor | None = None
        self._slope = torch.zeros(joint.frames, 6)
        self._steps = 0
        self._scale = 1.0

    def before_step(self, step: int) -> dict[str, Float[Tensor, ""]]:
        """Refresh weights and corrections if due, and reset the gradients; return scalars to log."""
        logged = self._refresh(step) if self.settings.refreshes(step) else {}
        if logged or self._twist is None:
            self._twist = self.joint.twist.detach().clone()
        self._twist.requires_grad_(self.settings.needs_pose_gradient(step))
        self._scale = 1.0 if self.grad_scaler is None else float(self.grad_scaler.get_scale())
        return logged

    @property
    def weight(self) -> Float[Tensor, " frame"]:
        """How much every frame counts now."""
        return self.joint.weight if self.manual_decisions is None else self.manual_decisions.weights(self.joint.weight)

    def moved(self, given: RayBundle | Cameras, step: int) -> RayBundle | Cameras:
        """Return the rays of corrected cameras, or a corrected camera."""
        if not (self.settings.corrections and step >= self.settings.start):
            return given
        twist = self._now()[frames_of(given).to(self._now().device)]
        return moved_camera(given, twist) if isinstance(given, Cameras) else moved_rays(given, twist)

    def after_step(self, step: int) -> None:
        """Gather the gradient that the step has left on the corrections."""
        gradient = self._now().grad
        if gradient is not None:
            if torch.isfinite(gradient).all():  # mixed precision skips a step now and then
                self._slope = self._slope.to(gradient) + gradient / self._scale
                self._steps += 1
            self._now().grad = None
        if step % _STEPS_PER_HISTOGRAM == 0 and self.settings.listens(step):
            log_histogram("mtcm/weights", self.joint.weight, step)
            log_histogram("mtcm/turns in degrees", turns_degrees(self.joint.twist), step)

    def callbacks(
        self, attributes: TrainingCallbackAttributes, at_end: Callable[[TrainingCallbackAttributes], None]
    ) -> list[TrainingCallback]:
        """Return what nerfstudio's trainer has to call.

        Args:
            attributes: of the run.
            at_end: what to do with the result.
        """

        def after_train(step: int) -> None:
            at_end(attributes)

        return [
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.after_step),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], after_train),
        ]

    def _now(self) -> Float[Tensor, "frame 6"]:
        """Return the corrections that hold at this step: a copy, on which the NeRF's gradients gather."""
        if self._twist is None:
            raise RuntimeError("call before_step() first")
        return self._twist

    def _refresh(self, step: int) -> dict[str, Float[Tensor, ""]]:
        """Back-propagate the collected feedback and update weights and corrections; return the losses."""
        joint = self.joint
        feedback = self._collect_feedback()
        with torch.enable_grad(), torch.autocast(device_type=joint.weight.device.type, enabled=False):
            joint_output = joint.read()
            parts = joint.loss(joint_output, feedback, step)
            total = torch.stack(list(parts.values())).sum()
        scaled = total if self.grad_scaler is None else self.grad_scaler.scale(total)
        scaled.backward()
        if self.world_size > 1:
            self._share_gradients()
        joint.update_weights(joint_output, feedback)
        turns = turns_degrees(joint.twist)
        facts = {"weight_mean": joint.weight.mean(), "weight_min": joint.weight.min(), "turn_max": turns.max()}
        return {f"mtcm_{name}": value.detach() for name, value in {**parts, **facts}.items()}

    def _collect_feedback(self) -> NerfFeedback:
        """Return losses and pose gradients since the last refresh, reduced over all processes."""
        losses = self.joint.losses
        slope, times = self._slope.to(losses.total.device), losses.times.clone()
        steps = slope.new_tensor(float(self._steps))
        if self.world_size > 1:
            for one in (losses.total, losses.count, slope, steps, times):
                dist.all_reduce(one)
        losses.settle()
        known = losses.average.isfinite() & (times >= _SEEN_ENOUGH)
        cost = relative_cost(losses.average.nan_to_num(), known, self.settings.boundary)
        self._slope, self._steps = torch.zeros_like(slope), 0
        return NerfFeedback(cost, slope / steps.clamp(min=1.0))

    def _share_gradients(self) -> None:
        """Give all processes the mean of their gradients, in one message: nerfstudio wraps the NeRF alone in DDP."""
        gradients = [p.grad for group in self.joint.groups().values() for p in group if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world_size
        for gradient, shared in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(shared.view_as(gradient))


def turns_degrees(twist: Float[Tensor, "frame 6"]) -> Float[Tensor, " frame"]:
    """Return by how much corrections turn."""
    return twist[:, 3:].norm(dim=-1).rad2deg()


def log_histogram(name: str, values: Tensor, step: int) -> None:
    """Write a histogram to whichever of nerfstudio's writers can show one."""
    for one in writer.EVENT_WRITERS:
        board: Any = getattr(one, "tb_writer", None)
        if board is not None:
            board.add_histogram(name, values.detach().cpu(), step)
        elif type(one).__name__ == "WandbWriter":
            import wandb  # only where the user trains with it

            wandb.log({name: wandb.Histogram(values.detach().cpu().tolist())}, step=step)
