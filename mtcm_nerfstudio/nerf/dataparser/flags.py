"""The flags of nerfstudio's own parsers, passed on to whichever of them reads the capture."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeVar

from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig

Config = TypeVar("Config", bound=DataParserConfig)


@dataclass(frozen=True)
class StockFlags:
    """Flags of nerfstudio's own parsers. One that is left out is as the parser that reads the capture has it."""

    scale_factor: float | None = None
    """How much to scale the camera origins by."""
    downscale_factor: int | None = None
    """How much to downscale images. If not set, images are chosen such that the longest side is at most 1600 px."""
    scene_scale: float | None = None
    """How much to scale the region of interest by."""
    orientation_method: Literal["pca", "up", "vertical", "none"] | None = None
    """How to orient the poses (the kept training frames alone decide)."""
    center_method: Literal["poses", "focus", "none"] | None = None
    """How to centre the poses (the kept training frames alone decide)."""
    auto_scale_poses: bool | None = None
    """Whether to scale the poses to fit in a ±1 box (the kept training frames alone decide)."""
    eval_mode: Literal["fraction", "filename", "interval", "all"] | None = None
    """How frames are split for training and evaluation. Unset: fraction for transforms.json and identities,
    interval for COLMAP models."""
    train_split_fraction: float | None = None
    """The share of the frames to train on, where eval_mode is fraction."""
    eval_interval: int | None = None
    """The interval between evaluation frames, where eval_mode is interval."""
    depth_unit_scale_factor: float | None = None
    """Scales depth values to metres."""
    mask_color: tuple[float, float, float] | None = None
    """Replace the unknown pixels by this colour (transforms.json and identities)."""
    load_3D_points: bool | None = None  # noqa: N815 (nerfstudio's name)
    """Whether to load the 3D points. Unset: False for transforms.json and identities, True for COLMAP models; set
    it for splatfacto on a transforms.json."""
    downscale_rounding_mode: Literal["floor", "round", "ceil"] | None = None
    """How to round the size of downscaled images (COLMAP models)."""
    assume_colmap_world_coordinate_convention: bool | None = None
    """Whether COLMAP's −y is taken for up when orientation_method is none (COLMAP models)."""
    images_path: Path | None = None
    """Folder of the images, relative to the capture (COLMAP models)."""
    masks_path: Path | None = None
    """Folder of the masks, relative to the capture; without it, masks are not loaded (COLMAP models)."""
    depths_path: Path | None = None
    """Folder of the depth maps, relative to the capture; without it, they are not loaded (COLMAP models)."""
    colmap_path: Path | None = None
    """Folder of the COLMAP model, relative to the capture. Unset: the largest in colmap/sparse or sparse."""
    max_2D_matches_per_3D_point: int | None = None  # noqa: N815 (nerfstudio's name)
    """How many 2D matches to load with each 3D point: 0 for none, -1 for all (COLMAP models)."""


def with_flags(config: Config, flags: StockFlags) -> Config:
    """Set the flags that were given on a stock parser's config; the others stay as they are there.

    Raises:
        ValueError: a flag was given that this parser does not have.
    """
    given = {field.name: value for field in fields(flags) if (value := getattr(flags, field.name)) is not None}
    known = {field.name for field in fields(config)}
    for name in given.keys() - known:
        raise ValueError(
            f"--{name.replace('_', '-')} is no flag of nerfstudio's {type(config).__name__}, which reads this capture. "
            "Leave it out, or choose the other layout with --source."
        )
    for name, value in given.items():
        setattr(config, name, value)
    return config
