"""The ``mtcm`` dataparser: nerfstudio's own parsers, over the frames that the filter kept.

Evaluation frames are chosen first, exactly as the stock parser would choose them, so that results with and without
filtering are over the same images. Then frames are dropped, and only then does nerfstudio orient, centre and scale
what is left: a pose that is far out would shrink the whole scene there.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
import tyro
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.capture.capture import Capture, Source
from mtcm_nerfstudio.capture.read import detect_source, read_capture
from mtcm_nerfstudio.decision_files import current_decisions, default_output_dir, summary
from mtcm_nerfstudio.decisions import Decisions, FrameDecision
from mtcm_nerfstudio.filter_settings import FilterSettings
from mtcm_nerfstudio.nerf.dataparser.flags import StockFlags
from mtcm_nerfstudio.nerf.dataparser.frame_subset_parser import FramePoses, FrameSubsetParser, Split, frame_name
from mtcm_nerfstudio.nerf.dataparser.layouts import model_of, open_capture, refuse_another_model
from mtcm_nerfstudio.nerf.dataparser.missing_masks import with_missing_masks
from mtcm_nerfstudio.nerf.dataparser.run_record import TrainingViews, read_training_views, resumed_decisions
from mtcm_nerfstudio.nerf.dataparser.scene_frame import (
    SUGGESTED_CAMERAS,
    MTCMOutputs,
    SceneFrame,
    concat_outputs,
    fix_pca_flip,
    scene_frame_of,
    suggested_cameras,
    to_scene_frame,
    without_frames,
)
from mtcm_nerfstudio.nerf.dataparser.splits import choose_splits
from mtcm_nerfstudio.nerf.dataparser.transforms_parser import TransformsParser


@dataclass
class MTCMDataParserConfig(DataParserConfig):
    """Trains on the frames that MTCM kept; runs its filter first where there are no current decisions."""

    _target: type = field(default_factory=lambda: MTCMDataParser)
    """target class to instantiate"""
    data: Path = Path()
    """The capture: its folder, or a transforms.json in it."""
    decisions: Path | None = None
    """Use this filtered_views.json as it is, current or not. A training run's config.yml names the run's own copy."""
    output_dir: Path | None = None
    """Where the filter's files are, or go. Default: mtcm/ in the capture."""
    filter: tyro.conf.OmitArgPrefixes[FilterSettings] = field(default_factory=FilterSettings)
    """How the capture is filtered."""
    on_trial: tyro.conf.Suppress[bool] = False
    """Whether frames that the model dropped are among the training frames; joint training sets it."""
    stock: tyro.conf.OmitArgPrefixes[StockFlags] = field(default_factory=StockFlags)
    """Flags of nerfstudio's own parsers."""


@dataclass(frozen=True, eq=False)
class _Opened:
    """A capture with the decisions about it and nerfstudio's parser set up to read it."""

    decisions: Decisions
    views: TrainingViews
    parser: FrameSubsetParser

    def frames_of(self, split: Split) -> FramePoses:
        """Return the frames of a split, each with its repaired pose if it has one."""
        if split not in self.views.splits:
            self.parser.split(split)  # nerfstudio's own error says why there is no such split
            raise ValueError(f"the run has no {split} split")
        by_name = _by_name(self.decisions)
        return {
            name: by_name[name].repaired_transform_matrix if name in by_name else None
            for name in self.views.splits[split]
        }


@dataclass(frozen=True, eq=False)
class TrainingFrames:
    """The frames that a NeRF trains on, in the training set's order, and how its scene lies in the capture's world."""

    names: tuple[str, ...]
    """As the decisions spell them."""
    decisions: Decisions
    capture_from_scene: Callable[[Float[Tensor, "n 4 4"]], Float[Tensor, "n 4 4"]]
    """Takes camera-to-world matrices of the trained scene into the capture's own world."""
    scene_from_capture: Callable[[Float[Tensor, "n 4 4"]], Float[Tensor, "n 4 4"]]
    """Undoes that."""


class MTCMDataParser(DataParser):
    """Drives nerfstudio's parser of the capture's layout over the frames that are to be used."""

    config: MTCMDataParserConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    downscale_factor: int | None = None
    """nerfstudio sets this to 1 where it only renders, and opens no images then."""

    def training_frames(self) -> TrainingFrames:
        """Return which frame each row of the training set is."""
        opened = self._opened
        decided = _by_name(opened.decisions)  # which spell a name as the capture does
        names = tuple(decided[name].file_path for name in opened.parser.frames_of(self._train.image_filenames))
        saved_from_capture, scene = opened.parser.saved_from_capture(), self._scene
        capture_from_saved = torch.linalg.inv(saved_from_capture)
        return TrainingFrames(
            names,
            opened.decisions,
            lambda c2w: capture_from_saved @ scene.to_saved(c2w),
            lambda c2w: scene.to_scene(saved_from_capture @ c2w.double()),
        )

    def _generate_dataparser_outputs(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, split: Split = "train", **kwargs: object
    ) -> MTCMOutputs:
        outputs = self._train if split == "train" else self._evaluation(split)
        opened = self._opened
        suggested = suggested_cameras(opened.decisions.suggested, self._train, opened.parser, self._scene)
        metadata = outputs.metadata if suggested is None else {**outputs.metadata, SUGGESTED_CAMERAS: suggested}
        fields = {**vars(outputs), "metadata": metadata}
        return MTCMOutputs(**fields, decisions=opened.decisions, views=opened.views)

    @cached_property
    def _opened(self) -> _Opened:
        """The capture, opened once: what the run has settled before stands, the rest is decided now."""
        path = self.config.decisions or resumed_decisions(sys.argv[1:])
        if path is None:
            result = current_decisions(self.config.data, self.config.filter, self.config.output_dir, follow=True)
            _say(summary(result))
            refuse_another_model(result.capture, self.config.stock.colmap_path)
            return self._open(result.decisions, None)
        _say([f"MTCM: uses the decisions in {path}"])
        # Beside them lies which frames that run trained on; its joint verdicts are for other runs.
        settled = read_training_views(path.parent) if path.name == decisions_file.FILE_NAME else None
        return self._open(decisions_file.read(path), settled)

    def _open(self, decisions: Decisions, settled: TrainingViews | None) -> _Opened:
        data, settings = self.config.data, self.config.filter
        source = settled.source if settled else _source(data, settings)
        model = settled.model if settled else model_of(data, source, self.config.stock.colmap_path)
        parser = open_capture(data, source, self.config.stock, settings.identity, model, self._derived)
        if self.downscale_factor is not None and isinstance(parser, TransformsParser):
            parser.downscale_factor = self.downscale_factor
        if settled is not None:
            return _Opened(decisions, settled, parser)
        chosen = choose_splits(parser, _by_name(decisions))
        _say(f"  not evaluated on {name}: {reason}" for name, reason in chosen.lost_to_evaluation.items())
        on_trial = chosen.on_trial if self.config.on_trial else ()
        return _Opened(decisions, TrainingViews(source, model, chosen.splits, on_trial), parser)

    @cached_property
    def _train(self) -> DataparserOutputs:
        """The training frames: those that were kept and, in the scene that they make, those that are on trial."""
        kept, opened = self._kept, self._opened
        if not opened.views.on_trial:
            return kept
        claimed = dict.fromkeys(opened.views.on_trial)
        outputs = to_scene_frame(opened.parser.parse(claimed, oriented=False), kept, self._scene)
        return concat_outputs(kept, with_missing_masks(outputs, self._derived))

    @cached_property
    def _kept(self) -> DataparserOutputs:
        """The kept training frames as the stock parser reads them; they alone decide orientation and scale."""
        frames = self._opened.frames_of("train")
        if not frames:
            raise ValueError(f"{self.config.data}: no training frame is left; {decisions_file.FILE_NAME} says why")
        parser = self._opened.parser
        train = parser.parse(frames)
        train = fix_pca_flip(train, parser.parse(frames, oriented=False), scene_frame_of(train, parser))
        return with_missing_masks(train, self._derived)

    def _evaluation(self, split: Split) -> DataparserOutputs:
        frames = self._opened.frames_of(split)
        if not frames:
            return without_frames(self._train)
        outputs = to_scene_frame(self._opened.parser.parse(frames, oriented=False), self._kept, self._scene)
        return with_missing_masks(outputs, self._derived)

    @cached_property
    def _scene(self) -> SceneFrame:
        return scene_frame_of(self._kept, self._opened.parser)

    @cached_property
    def capture(self) -> Capture:
        """The capture as MTCM reads it."""
        settings = self.config.filter
        return read_capture(self.config.data, settings.source, settings.identity)

    @property
    def capture_output_dir(self) -> Path:
        """The folder of the capture's own decisions."""
        return self.config.output_dir or default_output_dir(self.config.data, self.capture)

    @property
    def followed_decisions(self) -> Path:
        """The file in which people decide about the frames of a run: the one that was given, or the capture's own.

        A run's own copy is none: a trained model's frames and poses are those that it was trained with.
        """
        given = self.config.decisions
        if given is not None and read_training_views(given.parent) is None:
            return given
        return self.capture_output_dir / decisions_file.FILE_NAME

    @property
    def _derived(self) -> Path:
        """The folder for what is made from the capture's images: masks and smaller images."""
        data = self.config.data
        return self.config.output_dir or (data.parent if data.is_file() else data) / "mtcm"


def _source(data: Path, settings: FilterSettings) -> Source:
    if data.is_file():
        return "transforms"
    return detect_source(data, settings.identity) if settings.source == "auto" else settings.source


def _by_name(decisions: Decisions) -> dict[str, FrameDecision]:
    return {frame_name(frame.file_path): frame for frame in decisions.frames}


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)
