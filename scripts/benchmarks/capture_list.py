"""The public captures that the benchmarks and the training use, read from ``data/captures.json``: facts, no image.

Where each one comes from, under which licence, how its images are made from a clone of that repository, and which of
its frames are faulty as they came.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

FILE = Path(__file__).resolve().parents[2] / "data" / "captures.json"
SCHEMA_VERSION = 1

Reason = Literal["blur", "exposure", "occlusion", "foreign", "mask", "pose"]
Grade = Literal["clear", "mild"]
Group = Literal["A", "B", "C", "D", "evaluation"]
Method = Literal["jpeg", "lossless", "video", "mjpeg"]
Resampling = Literal["nearest", "bilinear"]

_T = TypeVar("_T", "NaturalFault", "Layout", "CaptureEntry")


@dataclass(frozen=True)
class NaturalFault:
    """A frame that is faulty as it came."""

    file_path: str
    """Below the capture's folder, for instance ``images/0001.jpg``."""
    reason: Reason
    grade: Grade
    """``clear``: anybody drops the frame; ``mild``: visible when looked for, harmless or nearly so."""

    def __post_init__(self) -> None:
        _one_of("reason", self.reason, get_args(Reason))
        _one_of("grade", self.grade, get_args(Grade))
        if not self.file_path.startswith("images/"):
            raise ValueError("file_path must begin with images/")


@dataclass(frozen=True)
class Layout:
    """How the images of a capture are made from the files of its repository."""

    method: Method
    """``jpeg``: resized and encoded anew; ``lossless``: the same JPEG data with fewer EXIF tags; ``video``: decoded
    frames, encoded as JPEG; ``mjpeg``: the JPEG files that a stream is made of."""
    files: tuple[str, ...]
    """Glob patterns below the repository's root."""
    skip: tuple[str, ...] = ()
    """File names that the patterns match and that are no part of the capture."""
    quality: int | Literal["keep"] = 88
    """JPEG quality of Pillow; ``keep``: the source's own quantization tables."""
    full_chroma: bool = False
    """Whether colour is stored at full resolution (4:4:4)."""
    draft: bool = False
    """Whether the JPEG decoder halves the image as far as it can before Pillow resizes it (Pillow's draft mode)."""
    every: int = 1
    """Every how many-th frame of a video is taken."""
    masks: str | None = None
    """Glob pattern of the masks, None where there are none."""
    mask_resampling: Resampling = "nearest"
    """``nearest``: grey values as they are; ``bilinear``: with a threshold at 127."""

    def __post_init__(self) -> None:
        _one_of("method", self.method, get_args(Method))
        _one_of("mask_resampling", self.mask_resampling, get_args(Resampling))
        if not self.files:
            raise ValueError("files must name at least one pattern")
        if self.quality != "keep" and not (isinstance(self.quality, int) and 1 <= self.quality <= 100):
            raise ValueError(f"quality must be in 1..100 or keep, not {self.quality!r}")
        if self.every < 1:
            raise ValueError(f"every must be at least 1, not {self.every!r}")


@dataclass(frozen=True)
class CaptureEntry:
    """What is known of one public capture."""

    name: str
    repository: str
    """``owner/name`` on GitHub."""
    commit: str
    path: str
    """Where its images or its video lie in the repository, for readers; ``layout`` has the patterns."""
    licence: str
    attribution: str
    """Whom the licence wants named; empty where nobody."""
    may_train: bool
    """Whether the shipped checkpoint may be trained on it; if not, it only serves evaluation."""
    frames: int
    size: tuple[int, int]
    """Width and height in pixels as laid out, EXIF orientation not applied."""
    posed_by: str | None
    """Where its poses come from; None where it has none."""
    group: Group
    """Captures of one group are left out together in cross-validation."""
    image_sha256: str
    """First 16 hex digits of the SHA-256 of the decoded images (``lay_out_captures.image_digest``)."""
    layout: Layout
    natural_faults: tuple[NaturalFault, ...]

    def __post_init__(self) -> None:
        _one_of("group", self.group, get_args(Group))
        _matches("repository", self.repository, r"[\w.-]+/[\w.-]+")
        _matches("commit", self.commit, "[0-9a-f]{40}")
        _matches("image_sha256", self.image_sha256, "[0-9a-f]{16}")
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, not {self.frames}")
        if len(self.size) != 2 or not all(isinstance(side, int) and side > 0 for side in self.size):
            raise ValueError(f"size must be two positive integers, not {self.size!r}")
        if self.may_train == (self.group == "evaluation"):
            raise ValueError("a capture is in the group evaluation if and only if it may not train")
        if len(self.natural_faults) > self.frames:
            raise ValueError(f"{len(self.natural_faults)} natural faults in {self.frames} frames")

    def faulty_files(self, grade: Grade) -> tuple[str, ...]:
        """Return the ``file_path`` of the frames that are faulty to this grade."""
        return tuple(fault.file_path for fault in self.natural_faults if fault.grade == grade)


def read_capture_list(path: Path = FILE) -> dict[str, CaptureEntry]:
    """Return the captures by their names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no list of captures; the message names the file, the capture and the field.
    """
    text = path.read_text(encoding="utf-8")
    try:
        record = _mapping(json.loads(text))
        if record.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {record.get('schema_version')!r}, this program reads {SCHEMA_VERSION}")
        return {name: _entry(name, each) for name, each in _mapping(record.get("captures")).items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a list of captures ({error})") from error


def _entry(name: str, record: object) -> CaptureEntry:
    try:
        values = dict(_mapping(record))
        faults = _mapping(values.pop("natural_faults", None))
        values["natural_faults"] = tuple(_fault(file_path, each) for file_path, each in faults.items())
        values["layout"] = _build(Layout, _with_tuples(_mapping(values.pop("layout", None))))
        return _build(CaptureEntry, {"name": name, **_with_tuples(values)})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _fault(file_path: str, record: object) -> NaturalFault:
    try:
        return _build(NaturalFault, {"file_path": file_path, **_mapping(record)})
    except ValueError as error:
        raise ValueError(f"{file_path}: {error}") from error


def _build(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """Return the dataclass with these values; unknown, missing and wrongly typed fields are a ValueError."""
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(values.keys() - known.keys()):
        raise ValueError(f"unknown field {unknown[0]!r}")
    needed = {name for name, field in known.items() if field.default is MISSING}
    if missing := sorted(needed - values.keys()):
        raise ValueError(f"field {missing[0]!r} is missing")
    for name, value in values.items():
        expected = known[name].type
        if isinstance(expected, type) and expected in (str, int, bool) and type(value) is not expected:
            raise ValueError(f"{name} is {value!r}, not of type {expected.__name__}")
    return kind(**values)


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"an object is expected, not {type(value).__name__}")
    return value


def _one_of(field: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field} is {value!r}, none of {', '.join(allowed)}")


def _matches(field: str, value: object, pattern: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ValueError(f"{field} is {value!r}, which does not match {pattern}")
