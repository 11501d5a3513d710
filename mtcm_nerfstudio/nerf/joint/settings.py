"""Settings of joint fine-tuning."""

from dataclasses import dataclass


@dataclass
class JointSettings:
    """How the consistency transformer is fine-tuned with the NeRF."""

    enabled: bool = False
    """Let the transformer weight frames and correct poses, and the NeRF's loss train the transformer. Without it,
    training on the kept frames is bit for bit nerfstudio's own."""
    start: int = 300
    """First step of joint fine-tuning; before it, photometric losses say little about frames."""
    every: int = 20
    """Steps from one refresh of weights and corrections to the next."""
    poses_every: int = 4
    """Steps between two gradients by poses; such a step takes half as long again. At least one step before each
    refresh has them."""
    stop: int | None = None
    """Step from which weights and corrections stay as they are. None: never."""
    weights: bool = True
    """Weight the loss by frame."""
    corrections: bool = True
    """Correct poses."""
    boundary: float = 3.0
    """Photometric loss, in units of the median frame's, at which a frame is as well explained by not belonging."""
    temperature: float = 0.5
    """Units of that loss that change the logit of a frame's weight by one. Large: the loss changes weights little."""
    memory: float = 0.7
    """Share of a frame's average loss that a refresh keeps, in [0, 1)."""
    reconstruction: float = 0.002
    """How much masked token reconstruction counts, so that the transformer does not forget."""
    mask_ratio: float = 0.3
    """Share of the frames of which something is hidden for it, in [0, 1)."""
    turn_scale: float = 0.002
    """Radians that one unit of the head that corrects poses stands for."""
    shift_scale: float = 0.002
    """The same of shifts, in the scene's unit (nerfstudio scales cameras into a cube of ±1)."""
    correction_penalty: float = 0.01
    """How much the mean squared correction counts."""
    on_trial: bool = False
    """Train on the frames that the filter dropped as well, beginning with the little weight that it gave them, so that
    those which the NeRF explains after all come back."""
    write_back: bool = False
    """At the end, write the joint verdicts and refined poses into the capture's own decisions too."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("start", "reconstruction", "correction_penalty"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("every", "poses_every", "temperature", "boundary", "turn_scale", "shift_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("memory", "mask_ratio"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    def refreshes(self, step: int) -> bool:
        """Tell whether weights and corrections are refreshed at a step."""
        return self.listens(step) and (step - self.start) % self.every == 0

    def needs_pose_gradient(self, step: int) -> bool:
        """Tell whether the gradient by poses is computed at a step."""
        return self.corrections and self.listens(step) and (step - self.start) % min(self.poses_every, self.every) == 0

    def listens(self, step: int) -> bool:
        """Tell whether the transformer is being trained at a step."""
        return step >= self.start and (self.stop is None or step < self.stop)
