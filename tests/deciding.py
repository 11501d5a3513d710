"""Decisions written by hand, and both ways into a capture: nerfstudio's own and ours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.decisions import Decisions, FrameDecision, SuggestedView
from mtcm_nerfstudio.filter_settings import FilterSettings
from mtcm_nerfstudio.nerf.dataparser.flags import StockFlags
from mtcm_nerfstudio.nerf.dataparser.parser import MTCMDataParser, MTCMDataParserConfig


def as_matrix(c2w: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(number) for number in row) for row in c2w)


def decide(path: Path, file_paths, dropped=None, repaired=None, suggested=(), by="model") -> Path:
    """Write a filtered_views.json: ``dropped`` maps frames to reasons, ``repaired`` frames to poses."""
    dropped, repaired = dropped or {}, repaired or {}
    frames = tuple(
        FrameDecision(
            file_path=name,
            inconsistency=0.9 if name in dropped else 0.1,
            kept=name not in dropped,
            reason=dropped.get(name, "pose" if name in repaired else None),
            decided_by=by,
            repaired_transform_matrix=as_matrix(repaired[name]) if name in repaired else None,
        )
        for name in file_paths
    )
    views = tuple(SuggestedView(as_matrix(pose), "left side", 0.1) for pose in suggested)
    decisions_file.write(Decisions("digest", {}, "checkpoint", "embedder", 0.5, frames, views), path)
    return path


def open_ours(data: Path, decisions: Path | None = None, filter=None, output_dir=None, **stock) -> MTCMDataParser:
    return MTCMDataParserConfig(
        data=data,
        decisions=decisions,
        output_dir=output_dir,
        filter=filter or FilterSettings(),
        stock=StockFlags(**stock),
    ).setup()


def stock_transforms(data: Path, split: str = "train", **flags) -> DataparserOutputs:
    return NerfstudioDataParserConfig(data=data, **flags).setup().get_dataparser_outputs(split)


def stock_colmap(data: Path, split: str = "train", **flags) -> DataparserOutputs:
    flags.setdefault("colmap_path", Path("sparse/0"))
    return ColmapDataParserConfig(data=data, **flags).setup().get_dataparser_outputs(split)


def frame_names(outputs: DataparserOutputs) -> list[str]:
    return [path.name for path in outputs.image_filenames]


def same_outputs(ours: DataparserOutputs, stock: DataparserOutputs) -> None:
    assert ours.image_filenames == stock.image_filenames
    assert ours.mask_filenames == stock.mask_filenames
    assert ours.dataparser_scale == pytest.approx(stock.dataparser_scale)
    assert torch.allclose(ours.dataparser_transform, stock.dataparser_transform, atol=1e-5)
    for field in ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "camera_type", "distortion_params"):
        assert torch.allclose(getattr(ours.cameras, field), getattr(stock.cameras, field), atol=1e-5), field
