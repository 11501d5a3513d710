"""A capture: the frames of one walk around a person, an object or a place, in the order they were taken."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from mtcm_nerfstudio.geometry.intrinsics import Intrinsics, Pose

Source = Literal["transforms", "colmap", "identity", "photos"]
"""Where a capture was read from: transforms.json, a COLMAP model, the identity layout, or bare photos."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a capture with everything that is known about it; None stands for what is not."""

    file_path: str
    """The frame's name: POSIX path of the image as the capture has it, unique within the capture."""
    image_path: Path
    """Where the image lies on disk; the file may be missing."""
    c2w: Pose | None = None
    """Claimed pose; may hold NaN or infinity when the capture does."""
    intrinsics: Intrinsics | None = None
    timestamp: float | None = None
    """Seconds since any fixed moment, the same one for the whole capture."""
    mask_path: Path | None = None
    """Mask of the subject: white where the frame shows it."""
    embedding_path: Path | None = None
    """A ``.npy`` file with this frame's precomputed embedding, alone or as one row of an array."""
    embedding_row: int | None = None
    """The row of ``embedding_path`` that is this frame's, or None when the file holds one vector."""
    focal_over_diagonal: float | None = None
    """Focal length over the image's diagonal where it is known from metadata but not from ``intrinsics``."""

    @property
    def has_usable_pose(self) -> bool:
        """Whether the frame has a pose and every number of it is finite."""
        return self.c2w is not None and bool(np.isfinite(self.c2w).all())


@dataclass(frozen=True, eq=False)
class Capture:
    """All frames of one capture in temporal order (see ``in_temporal_order``)."""

    root: Path
    """The folder that ``file_path`` is relative to."""
    name: str
    """The identity's name, else the folder's."""
    source: Source
    frames: tuple[Frame, ...]
    embedder: str | None = None
    """Backend that made the precomputed embeddings, where the capture says so."""
    model_dir: Path | None = None
    """The folder of the COLMAP model that the poses were read from, if they were."""
    notes: tuple[str, ...] = field(default=())
    """What a person should know about how the capture was read, one sentence each."""

    def __post_init__(self) -> None:
        """Check that frames can be told apart by name."""
        names = [frame.file_path for frame in self.frames]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"{self.root}: listed more than once: {', '.join(twice[:5])}. List each image once.")

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)


def natural_key(file_path: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts ``frame_10`` after ``frame_2``.

    Runs of digits compare as numbers, everything else as text without regard to case; the path itself breaks ties.
    """
    parts = re.split(r"(\d+)", file_path)
    key = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts if part)
    return (*key, (2, 0, file_path))


def in_temporal_order(frames: Iterable[Frame]) -> tuple[Frame, ...]:
    """Sort frames by time where every frame has one, else by natural order of their names.

    A time known for some frames only cannot be compared with the others' names, so it takes all of them to count.
    """
    listed = sorted(frames, key=lambda frame: natural_key(frame.file_path))
    times = [frame.timestamp for frame in listed]
    if any(time is None for time in times) or len(set(times)) < 2:
        return tuple(listed)
    order = np.argsort(np.array(times, dtype=np.float64), kind="stable")
    return tuple(listed[i] for i in order)
