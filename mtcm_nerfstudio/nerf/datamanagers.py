"""The datamanagers of the mtcm methods: nerfstudio's own, with the mtcm dataparser built in."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanagerConfig
from nerfstudio.data.datamanagers.parallel_datamanager import ParallelDataManagerConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from tyro.constructors import PrimitiveConstructorSpec

from mtcm_nerfstudio.filter_settings import FilterSettings
from mtcm_nerfstudio.nerf.dataparser.flags import StockFlags
from mtcm_nerfstudio.nerf.dataparser.parser import MTCMDataParserConfig

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
