"""Driving nerfstudio's parser of transforms.json over a chosen part of the frames."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import Nerfstudio, NerfstudioDataParserConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from mtcm_nerfstudio.capture.images import image_size
from mtcm_nerfstudio.nerf.dataparser.frame_subset_parser import UNORIENTED, FramePoses, Split, frame_name, square

_SPLIT_KEYS = ("train_filenames", "val_filenames", "test_filenames")
_LEGACY_APPLIED_TRANSFORM = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]]
"""What nerfstudio assumes beside a ``colmap/sparse/0`` when transforms.json is too old to say."""

NO_FILE = "no such mask"
"""Stands for the mask of a frame that lists none, where others list theirs."""


class TransformsParser(Nerfstudio):
    """nerfstudio's parser of transforms.json over the frames it is told to read.

    The stock parser reads a derived JSON that lists the chosen frames alone, and every path in it is resolved
    against the capture. Nothing is written into the capture.
    """

    config: NerfstudioDataParserConfig

    def __init__(self, config: NerfstudioDataParserConfig, meta: Mapping[str, Any], root: Path) -> None:
        """Take the content of a transforms.json, and the folder that its paths are relative to."""
        super().__init__(config)
        self._root = root
        self._meta = _completed(meta, root)
        self._frames: dict[str, dict[str, Any]] = {frame_name(frame["file_path"]): frame for frame in meta["frames"]}

    def file_paths(self) -> tuple[str, ...]:
        """Return the frames that the file lists, in its order."""
        return tuple(self._frames)

    def split(self, split: Split) -> frozenset[str]:
        """Return the frames that the stock parser would choose for a split, over all that the file lists.

        It is asked itself: every frame goes in with its number for a pose, and the poses that come out say which
        frames were chosen. So neither a broken pose nor a way of splitting that is new to us matters.
        """
        numbered = [
            {"file_path": frame["file_path"], "transform_matrix": _translation(number)}
            for number, frame in enumerate(self._frames.values())
        ]
        camera = {"fl_x": 1.0, "fl_y": 1.0, "cx": 1.0, "cy": 1.0, "w": 2, "h": 2}
        named = {key: self._meta[key] for key in _SPLIT_KEYS if key in self._meta}
        outputs = self._read({**camera, **named, "frames": numbered}, split, **UNORIENTED)
        names = self.file_paths()
        return frozenset(names[round(float(x))] for x in outputs.cameras.camera_to_worlds[:, 0, 3])

    def image_path(self, file_path: str) -> Path:
        """Return the image that nerfstudio would open for a frame."""
        return self._get_fname(Path(self._frames[file_path]["file_path"]), self._root)

    def frames_of(self, images: Sequence[Path]) -> tuple[str, ...]:
        """Return the frames that images in the outputs of ``parse`` are of."""
        by_path = {self.image_path(name): name for name in self._frames}
        return tuple(by_path[image] for image in images)

    def has_usable_pose(self, file_path: str) -> bool:
        """Tell whether a frame has a 4×4 (or 3×4) matrix of finite numbers."""
        try:
            matrix = np.array(self._frames[file_path].get("transform_matrix"), dtype=np.float64)
        except (TypeError, ValueError):
            return False
        return matrix.shape in ((4, 4), (3, 4)) and bool(np.isfinite(matrix).all())

    def parse(self, chosen: FramePoses, oriented: bool = True) -> DataparserOutputs:
        """Read the chosen frames through the stock parser (see ``FrameSubsetParser``)."""
        frames = [self._posed(name, matrix) for name, matrix in chosen.items() if name in self._frames]
        meta = {key: value for key, value in self._meta.items() if key not in _SPLIT_KEYS}
        meta["frames"] = _for_all_or_none(frames)
        everything: dict[str, Any] = {"eval_mode": "fraction", "train_split_fraction": 1.0}
        if oriented:
            return self._read(meta, "train", **everything)
        meta.pop("orientation_override", None)
        return self._read(meta, "train", **everything, **UNORIENTED)

    def saved_from_capture(self) -> Float[Tensor, "4 4"]:
        """Return the identity: decisions are written in the world of transforms.json."""
        return torch.eye(4, dtype=torch.float64)

    def applied(self) -> tuple[Float[Tensor, "4 4"], float]:
        """Return ``applied_transform`` and ``applied_scale`` of the file."""
        return square(self._meta.get("applied_transform")), float(self._meta.get("applied_scale", 1.0))

    def _posed(self, name: str, matrix: Any) -> dict[str, Any]:
        frame = dict(self._frames[name])
        rows = frame["transform_matrix"] if matrix is None else [list(row) for row in matrix]
        frame["transform_matrix"] = rows if len(rows) == 4 else [*rows, [0.0, 0.0, 0.0, 1.0]]
        return frame

    def _read(self, meta: Mapping[str, Any], split: Split, **changes: Any) -> DataparserOutputs:
        """Let the stock parser read a JSON of ours under its own settings, some of them changed."""
        settings = self.config
        with TemporaryDirectory(prefix="mtcm_") as folder:
            path = Path(folder) / "transforms.json"
            path.write_text(json.dumps(meta), encoding="utf-8")
            self.config = replace(settings, data=path, **changes)
            try:
                return super()._generate_dataparser_outputs(split)
            finally:
                self.config = settings

    def _get_fname(self, filepath: Path, data_dir: Path, downsample_folder_prefix: str = "images_") -> Path:
        """Resolve a path against the capture, and choose the downscale factor by the first image that opens."""
        if self.downscale_factor is None and self.config.downscale_factor is None:
            listed = (Path(frame["file_path"]) for frame in self._frames.values())
            readable = next((path for path in listed if image_size(self._root / path)), None)
            if readable is None:
                self.downscale_factor = 1
            else:
                super()._get_fname(readable, self._root)
        return super()._get_fname(filepath, self._root, downsample_folder_prefix)


def _completed(meta: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Say outright what the stock parser would find out beside the file, which it will not see."""
    out = dict(meta)
    if "applied_transform" not in meta and (root / "colmap/sparse/0").exists():
        out["applied_transform"] = _LEGACY_APPLIED_TRANSFORM
    if "ply_file_path" in meta:
        out["ply_file_path"] = str((root / meta["ply_file_path"]).resolve())
    return out


def _for_all_or_none(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every frame a mask where one has, and a depth map only where all have: nerfstudio asks for all or none.

    The stand-ins for masks are made later; for a depth map there is none.
    """
    without_mask = [frame for frame in frames if not frame.get("mask_path")]
    without_depth = [frame for frame in frames if not frame.get("depth_file_path")]
    if 0 < len(without_depth) < len(frames):
        named = ", ".join(frame["file_path"] for frame in without_depth[:3])
        CONSOLE.print(f"No depth maps are used: {len(without_depth)} of {len(frames)} frames have none ({named} …).")
    masked = len(without_mask) < len(frames)
    return [_with_attachments(frame, masked, depth=not without_depth) for frame in frames]


def _with_attachments(frame: dict[str, Any], masked: bool, depth: bool) -> dict[str, Any]:
    out = {key: value for key, value in frame.items() if key not in ("mask_path", "depth_file_path")}
    if masked:
        out["mask_path"] = frame.get("mask_path") or NO_FILE
    if depth:
        out["depth_file_path"] = frame["depth_file_path"]
    return out


def _translation(x: int) -> list[list[float]]:
    return [[1.0, 0.0, 0.0, float(x)], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
