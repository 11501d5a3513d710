"""nerfstudio's pipeline with joint fine-tuning of the consistency transformer."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.models.base_model import ModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils import comms
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.cuda.amp.grad_scaler import GradScaler
from torch.nn import Parameter

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, load_checkpoint
from mtcm_nerfstudio.decision_files import write_exports
from mtcm_nerfstudio.decisions import write_text_atomically
from mtcm_nerfstudio.nerf.dataparser.parser import MTCMDataParser, MTCMDataParserConfig
from mtcm_nerfstudio.nerf.dataparser.run_record import TRAINING_VIEWS
from mtcm_nerfstudio.nerf.joint.hook import JointHook
from mtcm_nerfstudio.nerf.joint.joint_input import JointInput, read_training_frames
from mtcm_nerfstudio.nerf.joint.joint_transformer import JointTransformer, joint_result
from mtcm_nerfstudio.nerf.joint.photometric import FrameLosses, frames_of, moved_c2w, weight_image_loss, weighted
from mtcm_nerfstudio.nerf.joint.results import joint_decisions, metrics_table, write_result
from mtcm_nerfstudio.nerf.joint.settings import JointSettings
from mtcm_nerfstudio.nerf.manual_decisions import ManualDecisions
from mtcm_nerfstudio.nerf.viewer_panel import MTCMPanel
from mtcm_nerfstudio.tokens.cache import Cache


@dataclass
class MTCMPipelineConfig(VanillaPipelineConfig):
    """The pipeline of the mtcm methods."""

    _target: type = field(default_factory=lambda: MTCMPipeline)
    """target class to instantiate"""
    joint: JointSettings = field(default_factory=JointSettings)
    """How the consistency transformer is fine-tuned with the NeRF."""


class MTCMPipeline(VanillaPipeline):
    """nerfstudio's pipeline over the frames that MTCM kept, with the transformer that judged them at its side.

    While the NeRF trains, the transformer sets frame weights and pose corrections and is trained by the photometric
    loss.
    """

    config: MTCMPipelineConfig
    joint: JointTransformer | None
    _hook: JointHook | None
    _trains_in: Path | None
    _manual_decisions: ManualDecisions | None
    panel: MTCMPanel | None
    """nerfstudio's viewer finds it here."""

    def __init__(
        self,
        config: MTCMPipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: GradScaler | None = None,
    ) -> None:
        """Set up as nerfstudio does, and the transformer beside it."""
        if config.joint.enabled:
            config = replace(config, model=_without_camera_optimizer(config.model))
            parser = getattr(config.datamanager, "dataparser", None)
            if isinstance(parser, MTCMDataParserConfig):
                parser.on_trial = config.joint.on_trial
        super().__init__(config, device, test_mode, world_size, local_rank, grad_scaler)
        self.joint, self._hook, self._trains_in = None, None, None
        self._manual_decisions, self.panel = None, None
        parser = getattr(self.datamanager, "dataparser", None)
        if isinstance(parser, MTCMDataParser):
            self.panel = MTCMPanel(parser, self._live)
        if not config.joint.enabled:
            return
        filtering = self._parser.config.filter
        with torch.random.fork_rng():  # the NeRF draws the same rays as without the transformer
            model, card = load_checkpoint(filtering.checkpoint)
            self.joint = JointTransformer(model, card, len(self._train_set), config.joint).to(device)
            if test_mode == "val":
                self.joint.begin(self._joint_input(card).to(torch.device(device)))
                self._hook = JointHook(self.joint, grad_scaler, world_size)

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        """Train on one batch, weighted by frame and seen by corrected cameras."""
        hook, manual_decisions = self._hook, self._poll_manual_decisions()
        if hook is None:
            if manual_decisions is None:
                return super().get_train_loss_dict(step)
            given, batch = self.datamanager.next_train(step)
            weight = manual_decisions.weights(torch.ones(len(manual_decisions.names), device=self.device))
            return self._train_weighted(given, batch, weight, FrameLosses(len(weight), 0.0).to(weight.device))
        hook.manual_decisions = manual_decisions
        logged = hook.before_step(step)
        if logged and self.panel is not None:
            self.panel.refresh()
        given, batch = self.datamanager.next_train(step)
        moved = hook.moved(given, step)
        outputs, losses, metrics = self._train_weighted(moved, batch, hook.weight, hook.joint.losses)
        return outputs, losses, {**metrics, **logged}

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Return the groups of parameters that are optimized alike."""
        groups = super().get_param_groups()
        return groups if self.joint is None else {**groups, **self.joint.groups()}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Return all training callbacks, those of joint fine-tuning last."""
        trainer = training_callback_attributes.trainer
        self._trains_in = None if trainer is None else trainer.base_dir
        callbacks = super().get_training_callbacks(training_callback_attributes)
        if self._hook is None:
            return callbacks
        return [*callbacks, *self._hook.callbacks(training_callback_attributes, self._finish)]

    def get_average_image_metrics(
        self,
        data_loader: Any,
        image_prefix: str,
        step: int | None = None,
        output_path: Path | None = None,
        get_std: bool = False,
    ) -> dict[str, float]:
        """Evaluate all images as nerfstudio does, and write the metrics of each into the run's folder."""
        rows: dict[str, dict[str, float]] = {}
        paths = self._evaluated.image_filenames  # the loader of whole images is a plain list
        folder = os.path.commonpath([path.parent for path in paths])  # two cameras' folders may hold the same names
        names = [path.relative_to(folder).as_posix() for path in paths]
        measure = self.model.get_image_metrics_and_images

        def noting(outputs: Any, batch: Any) -> Any:
            metrics, images = measure(outputs, batch)
            rows[names[int(batch["image_idx"])]] = {name: float(value) for name, value in metrics.items()}
            return metrics, images

        self.model.get_image_metrics_and_images = noting
        try:
            means = super().get_average_image_metrics(data_loader, image_prefix, step, output_path, get_std)
        finally:
            del self.model.get_image_metrics_and_images
        if self._run_folder is not None:
            write_text_atomically(self._run_folder / f"{image_prefix}_images.csv", metrics_table(rows))
        return means

    def _train_weighted(
        self,
        given: RayBundle | Cameras,
        batch: dict[str, Any],
        weight: Float[Tensor, " frame"],
        frame_losses: FrameLosses,
    ) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        """Train on one batch as nerfstudio does, each frame counting as much as its weight says."""
        weight = weight / weight.mean().clamp(min=1e-6)  # taking frames out does not slow the NeRF down
        frames = frames_of(given).to(weight.device)
        if isinstance(given, Cameras):
            outputs = self._model(given)
            metrics = self.model.get_metrics_dict(outputs, batch)
            losses = self.model.get_loss_dict(outputs, batch, metrics)
            weight_image_loss(losses, int(frames[0]), weight[frames[0]], frame_losses)
            return outputs, losses, metrics
        with weighted(self.model, frames, weight[frames], frame_losses):
            outputs = self._model(given)
            metrics = self.model.get_metrics_dict(outputs, batch)
            return outputs, self.model.get_loss_dict(outputs, batch, metrics), metrics

    def _poll_manual_decisions(self) -> ManualDecisions | None:
        """Return the manual decisions about the training frames; None if there are none."""
        if self._trains_in is None or self.panel is None:
            return None
        if self._manual_decisions is None:
            frames = self._parser.training_frames()
            joint = self._hook is not None
            self._manual_decisions = ManualDecisions(
                self._parser.followed_decisions, frames.names, frames.decisions, joint
            )
        for line in self._manual_decisions.poll():
            CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)
        return self._manual_decisions if self._manual_decisions.active else None

    def _live(self) -> dict[str, Tensor]:
        """Return what the transformer and the NeRF say of the training frames, for the viewer's panel."""
        if self.joint is None or not int(self.joint.refreshes):
            return {}
        losses = self.joint.losses
        return {
            "weight": self.joint.weight if self._hook is None else self._hook.weight,
            "residual": losses.average,
            "last": losses.last,
            "seen": losses.times,
        }

    def _joint_input(self, card: CheckpointCard) -> JointInput:
        """Read the training frames as the transformer needs them."""
        frames, settings = self._parser.training_frames(), self._parser.config.filter
        repaired = {frame.file_path: frame.repaired_transform_matrix for frame in frames.decisions.repaired}
        poses = {name: pose for name, pose in repaired.items() if pose is not None}
        return read_training_frames(self._parser.capture, frames.names, poses, card, settings.evidence, Cache())

    def _finish(self, attributes: TrainingCallbackAttributes) -> None:
        """Write what joint training came to, once, when it has ended."""
        trainer, joint = attributes.trainer, self.joint
        if trainer is None or joint is None or not comms.is_main_process():
            return
        if not int(joint.refreshes):
            CONSOLE.print(f"MTCM: the run ended before step {self.config.joint.start}, when joint training begins")
            return
        frames = self._parser.training_frames()
        c2w = torch.eye(4).repeat(joint.frames, 1, 1)
        c2w[:, :3] = moved_c2w(self._train_set.cameras.camera_to_worlds.cpu(), joint.twist.cpu())
        result = joint_result(joint, frames.names, frames.capture_from_scene(c2w).numpy())
        for line in write_result(trainer.base_dir, frames.decisions, result):
            CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)
        if self.config.joint.write_back:
            decisions = joint_decisions(frames.decisions, result, refined=True)
            folder = self._parser.capture_output_dir
            path = folder / decisions_file.FILE_NAME
            if path.is_file():  # somebody may have decided meanwhile
                decisions = decisions.carrying_over(decisions_file.read(path))
            decisions_file.write(decisions, path)
            write_exports(decisions, self._parser.capture, folder)
            CONSOLE.print(f"MTCM: the capture's decisions are those of the joint training now ({folder})")

    @property
    def _parser(self) -> MTCMDataParser:
        parser = getattr(self.datamanager, "dataparser", None)
        if not isinstance(parser, MTCMDataParser):
            raise ValueError("joint training needs the mtcm dataparser: use it, or leave --pipeline.joint.enabled out")
        return parser

    @property
    def _train_set(self) -> InputDataset:
        dataset = self.datamanager.train_dataset
        assert isinstance(dataset, InputDataset)
        return dataset

    @property
    def _evaluated(self) -> InputDataset:
        dataset = self.datamanager.eval_dataset
        assert isinstance(dataset, InputDataset)
        return dataset

    @property
    def _run_folder(self) -> Path | None:
        """The folder of the run: the one that it trains in, or that whose decisions it was opened with."""
        parser = getattr(self.datamanager, "dataparser", None)
        decisions = parser.config.decisions if isinstance(parser, MTCMDataParser) else None
        if self._trains_in is not None or decisions is None or not (decisions.parent / TRAINING_VIEWS).is_file():
            return self._trains_in
        return decisions.parent


def _without_camera_optimizer(model: ModelConfig) -> ModelConfig:
    """Leave poses to the transformer: two that move the same cameras would only drift against each other."""
    optimizer = getattr(model, "camera_optimizer", None)
    return model if optimizer is None else replace(model, camera_optimizer=replace(optimizer, mode="off"))  # pyright: ignore[reportCallIssue]
