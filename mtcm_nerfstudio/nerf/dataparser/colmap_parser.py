"""Driving nerfstudio's parser of COLMAP models over a chosen part of the images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.colmap_dataparser import (
    MAX_AUTO_RESOLUTION,
    ColmapDataParser,
    ColmapDataParserConfig,
)
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from torch import Tensor

from mtcm_nerfstudio.capture.colmap import image_folder
from mtcm_nerfstudio.capture.images import image_size
from mtcm_nerfstudio.nerf.dataparser.frame_subset_parser import UNORIENTED, FramePoses, Split, frame_name, square

_ROUNDINGS: dict[str, Callable[[float], float]] = {"floor": np.floor, "round": np.round, "ceil": np.ceil}


class ColmapParser(ColmapDataParser):
    """nerfstudio's parser of COLMAP models over the images it is told to read.

    Above 1,600 px the stock parser asks whether to write ``images_N/`` into the capture. This one asks nothing and
    leaves the capture alone: it takes ``images_N/`` where it is there, and scales what is missing into a folder of
    its own.
    """

    def __init__(self, config: ColmapDataParserConfig, derived: Path, find_images: bool = True) -> None:
        """Read the model, all of it.

        Args:
            config: the stock parser's settings; paths in it are relative to the capture.
            derived: where to write downscaled images.
            find_images: whether to look for the images where captures have them (``images/``, ``input/`` …), and
                not only in ``config.images_path``.
        """
        super().__init__(config)
        self._derived = derived
        self._chosen: FramePoses = {}
        self._made_from: dict[Path, Path] = {}
        self._model: dict[str, Any] = super()._get_all_images_and_cameras(config.data / config.colmap_path)
        listed = [Path(frame["file_path"]) for frame in self._model["frames"]]
        names = [path.relative_to(config.data / config.images_path).as_posix() for path in listed]
        folder = image_folder(config.data, names)
        if find_images:
            self.config = replace(config, images_path=Path(folder))
        images = self.config.data / self.config.images_path
        self._frames: dict[str, dict[str, Any]] = {
            frame_name((folder / name).as_posix()): {**frame, "file_path": (images / name).as_posix()}
            for name, frame in zip(names, self._model["frames"], strict=True)
        }

    def file_paths(self) -> tuple[str, ...]:
        """Return the model's images, by the names that decisions have for them."""
        return tuple(self._frames)

    def split(self, split: Split) -> frozenset[str]:
        """Return the images that the stock parser would choose for a split, over all of the model."""
        paths = [Path(frame["file_path"]) for frame in self._frames.values()]
        names = self.file_paths()
        return frozenset(names[i] for i in super()._get_image_indices(paths, split))

    def image_path(self, file_path: str) -> Path:
        """Return the image that a training run starts from: downscaled ones are made from it where there are none."""
        return Path(self._frames[file_path]["file_path"])

    def frames_of(self, images: Sequence[Path]) -> tuple[str, ...]:
        """Return the frames that images in the outputs of ``parse`` are of."""
        by_path = {self.image_path(name): name for name in self._frames}
        return tuple(by_path[self._made_from.get(image, image)] for image in images)

    def has_usable_pose(self, file_path: str) -> bool:
        """Tell whether every number of an image's pose is finite."""
        return bool(np.isfinite(self._frames[file_path]["transform_matrix"]).all())

    def parse(self, chosen: FramePoses, oriented: bool = True) -> DataparserOutputs:
        """Read the chosen images through the stock parser (see ``FrameSubsetParser``)."""
        settings, self._chosen = self.config, chosen
        if not oriented:
            self.config = replace(settings, **UNORIENTED)
        try:
            return super()._generate_dataparser_outputs("train")
        finally:
            self.config = settings

    def saved_from_capture(self) -> Float[Tensor, "4 4"]:
        """Return the turn of COLMAP's world (in which decisions are written) that the stock parser begins with."""
        return self.applied()[0]

    def applied(self) -> tuple[Float[Tensor, "4 4"], float]:
        """Return that turn, and no scale."""
        return square(self._model.get("applied_transform")), 1.0

    def _get_all_images_and_cameras(self, recon_dir: Path) -> dict[str, Any]:
        """Return the chosen images alone; the stock parser calls this before it orients."""
        turn = self.saved_from_capture().numpy()
        frames = [
            frame if self._chosen[name] is None else {**frame, "transform_matrix": turn @ np.array(self._chosen[name])}
            for name, frame in self._frames.items()
            if name in self._chosen
        ]
        return {**self._model, "frames": frames}

    def _get_image_indices(self, image_filenames: Sequence[Path], split: str) -> np.ndarray:
        """Return all of them: what the stock parser is shown has been chosen already."""
        return np.arange(len(image_filenames))

    def _load_3D_points(  # noqa: N802 (nerfstudio's name)
        self, colmap_path: Path, transform_matrix: Float[Tensor, "3 4"], scale_factor: float
    ) -> dict[str, Any]:
        """Load the model's points; a model without any has none, where the stock parser stops."""
        return super()._load_3D_points(colmap_path, transform_matrix, scale_factor) if _has_points(colmap_path) else {}

    def _setup_downscale_factor(
        self, image_filenames: list[Path], mask_filenames: list[Path], depth_filenames: list[Path]
    ) -> tuple[list[Path], list[Path], list[Path], int]:
        """Choose the downscale factor as the stock parser does, and make what is missing without asking."""
        if self._downscale_factor is None:
            self._downscale_factor = self.config.downscale_factor or self._auto_factor()
        if self._downscale_factor == 1:
            return image_filenames, mask_filenames, depth_filenames, 1
        return (
            self._downscaled(image_filenames, self.config.images_path, Image.Resampling.LANCZOS),
            self._downscaled(mask_filenames, self.config.masks_path, Image.Resampling.NEAREST),
            self._downscaled(depth_filenames, self.config.depths_path, Image.Resampling.NEAREST),
            self._downscale_factor,
        )

    def _auto_factor(self) -> int:
        """Return the power of two that brings the first image that opens to at most 1,600 px, as stock does."""
        sizes = (image_size(Path(frame["file_path"])) for frame in self._frames.values())
        size = next((size for size in sizes if size), (1, 1))
        factor = 1
        while max(size) / factor > MAX_AUTO_RESOLUTION:
            factor *= 2
        return factor

    def _downscaled(self, paths: list[Path], folder: Path | None, resampling: Image.Resampling) -> list[Path]:
        """Return the downscaled files: the capture's own where they are there, else ours, made now if need be."""
        if folder is None:
            return paths
        name = f"{folder.name or 'images'}_{self._downscale_factor}"
        within = [path.relative_to(self.config.data / folder) for path in paths]
        own = [self.config.data / folder.parent / name / path for path in within]
        ours = [self._derived / name / path for path in within]
        missing = [(path, out) for path, there, out in zip(paths, own, ours, strict=True) if not there.exists()]
        fresh = [(path, out) for path, out in missing if path.exists() and not _is_newer(out, path)]
        if fresh:
            CONSOLE.print(f"Writing {len(fresh)} images at 1/{self._downscale_factor} into {self._derived / name}")
        for path, out in fresh:
            self._downscale(path, out, resampling)
        used = [there if there.exists() else out for there, out in zip(own, ours, strict=True)]
        self._made_from.update(zip(used, paths, strict=True))
        return used

    def _downscale(self, path: Path, out: Path, resampling: Image.Resampling) -> None:
        """Write one image at a whole fraction of its size, its EXIF orientation left as it is: not applied."""
        rounding = _ROUNDINGS[self.config.downscale_rounding_mode]
        out.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            size = (int(rounding(side / self._downscale_factor)) for side in image.size)
            scaled = image.resize(tuple(size), resampling)
        partial = out.with_name(f".{out.name}")
        scaled.save(partial, format=image.format, **({"quality": 95} if image.format == "JPEG" else {}))
        partial.replace(out)


def _has_points(model: Path) -> bool:
    binary, text = model / "points3D.bin", model / "points3D.txt"
    if binary.is_file():
        with binary.open("rb") as file:
            return int.from_bytes(file.read(8), "little") > 0
    return text.is_file() and any(line.strip() and line[0] != "#" for line in text.read_text("utf8").splitlines())


def _is_newer(path: Path, source: Path) -> bool:
    return path.exists() and path.stat().st_mtime_ns >= source.stat().st_mtime_ns
