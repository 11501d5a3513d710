"""The pipeline and the datamanagers of the mtcm methods: nerfstudio's own, with the mtcm dataparser built in."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.data.datamanagers.parallel_datamanager import ParallelDataManagerConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.models.base_model import ModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils import comms
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.cuda.amp.grad_scaler import GradScaler
from torch.nn import Parameter
from tyro.constructors import PrimitiveConstructorSpec

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, load_checkpoint
from mtcm_nerfstudio.decisions import write_text_atomically
from mtcm_nerfstudio.filtering import FilterSettings
from mtcm_nerfstudio.nerf.dataparser.flags import StockFlags
from mtcm_nerfstudio.nerf.dataparser.parser import MTCMDataParser, MTCMDataParserConfig
from mtcm_nerfstudio.nerf.dataparser.run_record import TRAINING_VIEWS
from mtcm_nerfstudio.nerf.dataparser.scene import SUGGESTED_CAMERAS
from mtcm_nerfstudio.nerf.joint.hook import JointHook
from mtcm_nerfstudio.nerf.joint.photometric import moved_c2w, weight_image_loss, weighted
from mtcm_nerfstudio.nerf.joint.reading import Reading, read_training_frames
from mtcm_nerfstudio.nerf.joint.results import joint_decisions, metrics_table, write_result
from mtcm_nerfstudio.nerf.joint.settings import JointSettings
from mtcm_nerfstudio.nerf.joint.transformer import JointTransformer, joint_result
from mtcm_nerfstudio.nerf.joint.unseen import UnseenRays, of_photos
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.views.write import write_decision_exports

PARSER_NAME = "mtcm"


def _parser_from_word(words: list[str]) -> MTCMDataParserConfig:
    if words != [PARSER_NAME]:
        raise ValueError(f"the mtcm methods read captures through the dataparser {PARSER_NAME}, not {' '.join(words)}")
    return MTCMDataParserConfig()


BuiltInParser = Annotated[
    MTCMDataParserConfig,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + PARSER_NAME + "}",
        instance_from_str=_parser_from_word,
        is_instance=lambda instance: isinstance(instance, MTCMDataParserConfig),
        str_from_instance=lambda instance: [PARSER_NAME],
        choices=(PARSER_NAME,),
    ),
]
"""A dataparser field that is read as one word, ``--pipeline.datamanager.dataparser mtcm``, with its flags beside it."""


@dataclass
class BuiltInParserFields:
    """The fields that the datamanagers of the mtcm methods have in common."""

    dataparser: BuiltInParser = field(default_factory=MTCMDataParserConfig)
    """The dataparser: mtcm. Its settings are those below."""
    filter: FilterSettings = field(default_factory=FilterSettings)
    """How the capture is filtered."""
    parser: StockFlags = field(default_factory=StockFlags)
    """Flags of nerfstudio's own parsers."""
    decisions: Path | None = None
    """Use this filtered_views.json as it is, current or not."""
    output_dir: Path | None = None
    """Where the filter's files are, or go. Default: mtcm/ in the capture."""

    def __post_init__(self) -> None:
        """Hand the settings on to the dataparser."""
        of_nerfstudio = getattr(super(), "__post_init__", None)  # not every datamanager's config has one
        if of_nerfstudio is not None:
            of_nerfstudio()
        self.dataparser = replace(
            self.dataparser,
            filter=self.filter,
            stock=self.parser,
            decisions=self.decisions,
            output_dir=self.output_dir,
        )


@dataclass
class MTCMParallelDataManagerConfig(  # pyright: ignore[reportIncompatibleVariableOverride]
    BuiltInParserFields, ParallelDataManagerConfig
):
    """nerfacto's own datamanager, with the mtcm dataparser built in."""


@dataclass
class MTCMFullImageDataManagerConfig(  # pyright: ignore[reportIncompatibleVariableOverride]
    BuiltInParserFields, FullImageDatamanagerConfig
):
    """splatfacto's own datamanager, with the mtcm dataparser built in."""


@dataclass
class MTCMDataManagerConfig(  # pyright: ignore[reportIncompatibleVariableOverride]
    BuiltInParserFields, VanillaDataManagerConfig
):
    """Samples rays from images that are scaled to a size that a CPU can train on."""

    _target: type = field(default_factory=lambda: MTCMDataManager)
    """target class to instantiate"""
    longest_side: int | None = 320
    """Images are scaled down to this many pixels on their longest side. None: they stay as they are."""


class MTCMDataManager(VanillaDataManager[InputDataset]):
    """nerfstudio's datamanager, which scales images by what the capture's size asks for."""

    config: MTCMDataManagerConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def create_train_dataset(self) -> InputDataset:
        """Make the training set; this comes before the evaluation set, so both have the scale that is set here."""
        if self.config.longest_side is not None:
            cameras = self.train_dataparser_outputs.cameras
            sizes = torch.cat([cameras.width, cameras.height], dim=-1).reshape(-1, 2).unique(dim=0).tolist()
            self.config.camera_res_scale_factor = scale_to_fit(sizes, self.config.longest_side)
        return super().create_train_dataset()


def scale_to_fit(sizes: Sequence[Sequence[int]], longest_side: int) -> float:
    """Return the scale, at most 1, that brings all sizes to at most ``longest_side`` px.

    nerfstudio multiplies the sizes of images in double precision and those of cameras in single, and rounds down:
    the scale is chosen such that both give the same size.
    """
    sides = torch.tensor(sizes).flatten()
    scale = min(1.0, longest_side / int(sides.max()))
    while (sides * torch.tensor([scale])).to(torch.int64).tolist() != [int(side * scale) for side in sides.tolist()]:
        scale *= 1.0 - 1e-4
    return scale


@dataclass
class MTCMPipelineConfig(VanillaPipelineConfig):
    """The pipeline of the mtcm methods."""

    _target: type = field(default_factory=lambda: MTCMPipeline)
    """target class to instantiate"""
    joint: JointSettings = field(default_factory=JointSettings)
    """How the consistency transformer is fine-tuned with the NeRF."""


class MTCMPipeline(VanillaPipeline):
    """nerfstudio's pipeline over the frames that MTCM kept, with the transformer that judged them at its side.

    While the NeRF trains, the transformer weights its frames and corrects their poses, and hears of its loss.
    """

    config: MTCMPipelineConfig
    joint: JointTransformer | None
    _hook: JointHook | None
    _unseen: UnseenRays | None
    _trains_in: Path | None

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
        self.joint, self._hook, self._unseen, self._trains_in = None, None, None, None
        if not config.joint.enabled:
            return
        filtering = self._parser.config.filter
        with torch.random.fork_rng():  # the NeRF draws the same rays as without the transformer
            model, card = load_checkpoint(filtering.checkpoint)
            self.joint = JointTransformer(model, card, len(self._train_set), config.joint).to(device)
            if test_mode == "val":
                self.joint.begin(self._reading(card).to(torch.device(device)))
                self._hook = JointHook(self.joint, grad_scaler, world_size)
                self._unseen = self._unseen_rays(config.joint.unseen_rays)

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        """Train on one batch, weighted by frame and seen by corrected cameras."""
        joint, hook = self.joint, self._hook
        if joint is None or hook is None:
            return super().get_train_loss_dict(step)
        logged = hook.before_step(step)
        given, batch = self.datamanager.next_train(step)
        if isinstance(given, Cameras):
            outputs, losses, metrics = self._train_on_image(joint, hook, given, batch, step)
        else:
            outputs, losses, metrics = self._train_on_rays(joint, hook, given, batch, step)
        return outputs, losses, {**metrics, **logged}

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Return the groups of parameters that are optimized alike."""
        groups = super().get_param_groups()
        return groups if self.joint is None else {**groups, **self.joint.groups()}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Return everybody's callbacks, the joint training's last."""
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
        paths = data_loader.dataset.image_filenames
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

    def _train_on_rays(
        self, joint: JointTransformer, hook: JointHook, rays: RayBundle, batch: dict[str, Any], step: int
    ) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        assert rays.camera_indices is not None, "rays of a training batch know their cameras"
        frames = rays.camera_indices[..., 0].to(joint.weight.device)
        moved = hook.moved_rays(rays, frames, step)
        with weighted(self.model, frames, hook.weights_of(frames), joint.losses):
            outputs = self._model(moved if self._unseen is None else self._unseen.beside(moved))
            outputs = of_photos(outputs, len(rays))
            metrics = self.model.get_metrics_dict(outputs, batch)
            return outputs, self.model.get_loss_dict(outputs, batch, metrics), metrics

    def _train_on_image(
        self, joint: JointTransformer, hook: JointHook, camera: Cameras, batch: dict[str, Any], step: int
    ) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        assert camera.metadata is not None, "a camera of the training set knows its number"
        frame = int(camera.metadata["cam_idx"])
        outputs = self._model(hook.moved_camera(camera, frame, step))
        metrics = self.model.get_metrics_dict(outputs, batch)
        losses = self.model.get_loss_dict(outputs, batch, metrics)
        weight = hook.weights_of(torch.tensor([frame], device=joint.weight.device))[0]
        weight_image_loss(losses, frame, weight, joint.losses)
        return outputs, losses, metrics

    def _unseen_rays(self, share: float) -> UnseenRays | None:
        """Return what draws rays from the suggested views, where it is asked for and there are any."""
        outputs = getattr(self.datamanager, "train_dataparser_outputs", None)
        if outputs is None or not share:
            return None
        cameras = outputs.metadata.get(SUGGESTED_CAMERAS)
        if cameras is None:
            CONSOLE.print("MTCM: no views are suggested, so --pipeline.joint.unseen-rays does nothing")
            return None
        if isinstance(self.datamanager, FullImageDatamanager):
            CONSOLE.print("MTCM: this method trains on whole images, so --pipeline.joint.unseen-rays does nothing")
            return None
        return UnseenRays(cameras, share)

    def _reading(self, card: CheckpointCard) -> Reading:
        """Read the training frames as the transformer needs them."""
        parser = self._parser
        frames, settings = parser.training_frames(), parser.config.filter
        capture = read_capture(parser.config.data, settings.source, settings.identity)
        repaired = {frame.file_path: frame.repaired_transform_matrix for frame in frames.decisions.repaired}
        poses = {name: pose for name, pose in repaired.items() if pose is not None}
        return read_training_frames(capture, frames.names, poses, card, settings.evidence, Cache())

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
            decisions_file.write(decisions, folder / decisions_file.FILE_NAME)
            write_decision_exports(decisions, folder)
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
