"""Protocol of both parsers: read a subset of the frames of a capture through nerfstudio."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from torch import Tensor

from mtcm_nerfstudio.decisions import Matrix

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

FramePoses = Mapping[str, Matrix | None]
"""The frames to read, by ``file_path``, each with the pose to read it at (None: the one the capture claims)."""


@runtime_checkable
class FrameSubsetParser(Protocol):
    """One of nerfstudio's parsers, over whichever frames it is told to read."""

    def file_paths(self) -> tuple[str, ...]:
        """Return the frames that the capture lists, by the names that decisions have for them."""
        ...

    def split(self, split: Split) -> frozenset[str]:
        """Return the frames that the stock parser would choose for a split, over all that the capture lists.

        Raises:
            RuntimeError: the capture names the frames of other splits but not of this one (as nerfstudio does).
        """
        ...

    def image_path(self, file_path: str) -> Path:
        """Return the image that a frame is read from, or its downscaled image is made from."""
        ...

    def frames_of(self, images: Sequence[Path]) -> tuple[str, ...]:
        """Return the frames that images in the outputs of ``parse``, downscaled or not, are of."""
        ...

    def has_usable_pose(self, file_path: str) -> bool:
        """Tell whether the capture gives a frame a pose, and every number of it is finite."""
        ...

    def parse(self, chosen: FramePoses, oriented: bool = True) -> DataparserOutputs:
        """Read the chosen frames, and nothing else, through the stock parser.

        Args:
            chosen: at least one frame.
            oriented: whether nerfstudio orients, centres and scales the poses; else they stay in the world that
                the parser saves them in.
        """
        ...

    def saved_from_capture(self) -> Float[Tensor, "4 4"]:
        """Return what takes the capture's own world (in which decisions are written) to the parser's saved one."""
        ...

    def applied(self) -> tuple[Float[Tensor, "4 4"], float]:
        """Return the transform and scale that the saved world has over the original one, as the parser knows them."""
        ...


UNORIENTED = {
    "orientation_method": "none",
    "center_method": "none",
    "auto_scale_poses": False,
    "scale_factor": 1.0,
    "load_3D_points": False,
}
"""Settings under which a stock parser leaves poses in the world that it saves them in."""


def square(matrix: Any) -> Float[Tensor, "4 4"]:
    """Return the rows of a 3×4 transform, as a JSON file has them, as 4×4 (None: the identity)."""
    out = torch.eye(4, dtype=torch.float64)
    if matrix is not None:
        out[:3] = torch.tensor(matrix, dtype=torch.float64)[:3]
    return out


def frame_name(file_path: str) -> str:
    """Return a name that two spellings of one ``file_path`` share (``./images/a.jpg``, ``images\\a.jpg``)."""
    parts: list[str] = []
    for part in file_path.replace("\\", "/").split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return ("/" if file_path.startswith("/") else "") + "/".join(parts)
