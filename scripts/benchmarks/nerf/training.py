"""Trains one small NeRF and measures it on the evaluation frames; run as a program, in a process of its own.

Usage:
    python -m benchmarks.nerf.training SETTINGS.json RESULT.json      (from scripts/)
"""

import copy
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_CURVE_BATCHES = 4


@dataclass(frozen=True)
class Training:
    """What to train on, and how long."""

    capture: str
    decisions: str
    """The filtered_views.json to go by."""
    output_dir: str
    steps: int
    longest_side: int
    rays: int
    seed: int
    joint: bool = False
    on_trial: bool = False
    checkpoint: str | None = None
    camera_optimizer: bool = False
    trimmed: bool = False
    far_plane: float | None = None
    """None: nerfacto's own."""


@dataclass(frozen=True)
class Trained:
    """How well a NeRF shows the evaluation frames."""

    psnr: float
    ssim: float
    curve: dict[str, float]
    """PSNR of rays of evaluation frames, by step."""
    of_images: dict[str, float]
    """PSNR by evaluation frame."""
    seconds_per_step: float
    train_frames: int
    weights: dict[str, float]
    """Weight of every training frame at the end, by name; joint training only."""


class TrimmedLoss(nn.Module):
    """Mean squared error of the rays that fit best, as RobustNeRF (Sabour et al., CVPR 2023) trims, ray by ray."""

    def __init__(self, kept: float = 0.8) -> None:
        super().__init__()
        self.kept = kept

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        of_rays = (first - second).square().mean(dim=-1)
        return of_rays[of_rays <= of_rays.detach().quantile(self.kept)].mean()


def configured(training: Training) -> Any:
    """Return the tiny method's configuration as this training wants it."""
    from nerfstudio.configs.method_configs import all_methods

    config = copy.deepcopy(all_methods["mtcm-nerfacto-tiny"])
    config.data = Path(training.capture)
    config.output_dir = Path(training.output_dir)
    config.max_num_iterations = training.steps
    config.steps_per_save = training.steps
    config.steps_per_eval_batch = 0
    config.machine.seed = training.seed
    config.vis = "tensorboard"
    config.timestamp = "run"
    datamanager = config.pipeline.datamanager
    datamanager.data = Path(training.capture)
    datamanager.longest_side = training.longest_side
    datamanager.train_num_rays_per_batch = datamanager.eval_num_rays_per_batch = training.rays
    parser = datamanager.dataparser
    parser.data, parser.decisions = Path(training.capture), Path(training.decisions)
    joint = config.pipeline.joint
    joint.enabled = training.joint
    joint.start = training.steps // 4
    joint.on_trial = training.on_trial
    if training.checkpoint is not None:
        parser.filter = type(parser.filter)(checkpoint=Path(training.checkpoint))
    if training.far_plane is not None:
        config.pipeline.model.far_plane = training.far_plane
    if training.camera_optimizer:
        config.pipeline.model.camera_optimizer.mode = "SO3xR3"
        from nerfstudio.engine.optimizers import AdamOptimizerConfig
        from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig

        config.optimizers["camera_opt"] = {
            "optimizer": AdamOptimizerConfig(lr=1e-3, eps=1e-15),
            "scheduler": ExponentialDecaySchedulerConfig(lr_final=1e-4, max_steps=training.steps),
        }
    for group in config.optimizers.values():
        if group["scheduler"] is not None:
            group["scheduler"].max_steps = training.steps
    return config


def train(training: Training) -> Trained:
    """Train and measure."""
    from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
    from nerfstudio.scripts.train import _set_random_seed

    config = configured(training)
    _set_random_seed(training.seed)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    pipeline, curve = trainer.pipeline, {}
    if training.trimmed:
        pipeline.model.rgb_loss = TrimmedLoss()

    def measure(step: int) -> None:
        with torch.no_grad():
            found = [float(pipeline.get_eval_loss_dict(step)[2]["psnr"]) for _ in range(_CURVE_BATCHES)]
        curve[str(step + 1)] = sum(found) / len(found)

    marks = tuple(training.steps * k // 5 - 1 for k in range(1, 6))
    where = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION]
    trainer.callbacks.append(TrainingCallback(where, measure, iters=marks))
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    means = pipeline.get_average_eval_image_metrics(output_path=Path(training.output_dir) / "renders")
    rows = (trainer.base_dir / "eval_images.csv").read_text().splitlines()
    columns = rows[0].split(",")
    psnr = columns.index("psnr")
    joint = pipeline.joint
    weights = {}
    if joint is not None:
        names = pipeline.datamanager.dataparser.training_frames().names
        weights = dict(zip(names, joint.weight.tolist(), strict=True))
    return Trained(
        psnr=means["psnr"],
        ssim=means["ssim"],
        curve=curve,
        of_images={row.split(",")[0]: float(row.split(",")[psnr]) for row in rows[1:]},
        seconds_per_step=seconds / training.steps,
        train_frames=len(pipeline.datamanager.train_dataset),
        weights=weights,
    )


if __name__ == "__main__":
    given = Training(**json.loads(Path(sys.argv[1]).read_text()))
    torch.set_num_threads(1)
    Path(sys.argv[2]).write_text(json.dumps(asdict(train(given))))
