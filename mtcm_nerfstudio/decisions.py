"""The record that crosses from the filter into nerfstudio, the viewer, the reports and the exports.

It is one JSON file, ``filtered_views.json``, that a person can read and edit. The file holds no clock time
and no machine path, so the same input gives the same bytes.
"""

import json
import math
import os
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

SCHEMA_VERSION = 1
FILE_NAME = "filtered_views.json"

Reason = Literal[
    "pose",
    "blur",
    "exposure",
    "occlusion",
    "foreign",
    "missing image",
    "unreadable image",
    "invalid pose",
    "redundant",
    "manual",
]
"""Why a frame was dropped (``pose`` also marks a frame that was kept at a repaired pose)."""

UNUSABLE: frozenset[Reason] = frozenset({"missing image", "unreadable image", "invalid pose"})
"""Reasons that no manual decision overrides: nerfstudio cannot train on such a frame."""

DecidedBy = Literal["model", "rule", "person"]

VerdictName = Literal["kept", "repaired", "dropped"]

Matrix = tuple[tuple[float, ...], ...]
"""A 4×4 OpenGL camera-to-world matrix in the capture's own world, row by row, as in ``transforms.json``."""

_SCORE_DECIMALS = 6


@dataclass(frozen=True)
class ModalityScores:
    """How strongly each part of a frame disagrees with the capture, each in [0, 1]; None where it is absent."""

    image: float | None = None
    pose: float | None = None
    time: float | None = None


@dataclass(frozen=True)
class FrameDecision:
    """What was decided for one frame, by whom and why."""

    file_path: str
    """The frame's image as the capture names it (POSIX, relative to the capture's folder)."""
    inconsistency: float
    """Calibrated probability in [0, 1] that the frame does not agree with the capture; higher is worse."""
    kept: bool
    reason: Reason | None = None
    decided_by: DecidedBy = "model"
    label: str | None = None
    """Where the frame was taken from, in words."""
    words: str | None = None
    """What its picture shows, by the likeliest of phrases that were asked for."""
    modality: ModalityScores = field(default_factory=ModalityScores)
    evidence: Mapping[str, float] = field(default_factory=dict)
    most_at_odds_with: str | None = None
    repaired_transform_matrix: Matrix | None = None
    """The pose at which the frame is used, where the claimed one is wrong; of a dropped frame, in case somebody keeps
    it after all."""
    spared: bool = False
    """Whether the model would have dropped the frame, and only a limit on how many it may drop has kept it."""

    def __post_init__(self) -> None:
        """Check the ranges that the file format promises."""
        if not 0.0 <= self.inconsistency <= 1.0:
            raise ValueError(f"{self.file_path}: inconsistency must lie in [0, 1], got {self.inconsistency}")
        if self.reason is not None and self.reason not in get_args(Reason):
            raise ValueError(f"{self.file_path}: reason {self.reason!r} is none of {', '.join(get_args(Reason))}")
        if self.decided_by not in get_args(DecidedBy):
            raise ValueError(
                f"{self.file_path}: decided_by {self.decided_by!r} is none of {', '.join(get_args(DecidedBy))}"
            )
        if not self.kept and self.reason is None:
            raise ValueError(f"{self.file_path}: a dropped frame needs a reason")

    @property
    def verdict(self) -> VerdictName:
        """What becomes of the frame, in a word; a repaired frame is kept at another pose than the capture claims."""
        if not self.kept:
            return "dropped"
        return "repaired" if self.repaired_transform_matrix is not None else "kept"


@dataclass(frozen=True)
class SuggestedView:
    """A pose from which the capture should have been photographed as well."""

    transform_matrix: Matrix
    label: str | None
    gain: float
    """Share of what the kept frames leave uncovered that a frame at this pose would cover, in [0, 1]."""
    seen_best_by: tuple[str, ...] = ()
    """``file_path`` of the kept frames that see the place best, nearest first."""


@dataclass(frozen=True)
class Decisions:
    """Every frame's decision, and what they were computed from."""

    capture_digest: str
    """SHA-256 over the frames' names, poses and image contents."""
    settings: Mapping[str, Any]
    """The flags that the decisions depend on, as plain JSON values."""
    checkpoint: str
    """Name and digest of the checkpoint that scored the frames."""
    embedder: str
    threshold: float
    """Frames whose inconsistency is at or above this were dropped by the model."""
    frames: tuple[FrameDecision, ...]
    suggested: tuple[SuggestedView, ...] = ()
    front: str | None = None
    """``file_path`` of the frame that sees the subject's front, by the user's word or by its face; None: the middle of
    where the cameras stand."""

    @property
    def kept(self) -> tuple[FrameDecision, ...]:
        """The frames that training may use, in the capture's order."""
        return tuple(frame for frame in self.frames if frame.kept)

    @property
    def dropped(self) -> tuple[FrameDecision, ...]:
        """The frames that training must not use, in the capture's order."""
        return tuple(frame for frame in self.frames if not frame.kept)

    @property
    def manual_decisions(self) -> dict[str, bool]:
        """The frames that a person has decided about, and whether they are to be kept."""
        return {frame.file_path: frame.kept for frame in self.frames if frame.decided_by == "person"}

    @property
    def repaired(self) -> tuple[FrameDecision, ...]:
        """The frames that are kept at another pose than the capture claims."""
        return tuple(frame for frame in self.kept if frame.repaired_transform_matrix is not None)

    def by_file_path(self) -> dict[str, FrameDecision]:
        """Return the decisions keyed by the frame's ``file_path``."""
        return {frame.file_path: frame for frame in self.frames}

    def is_current(self, capture_digest: str, settings: Mapping[str, Any]) -> bool:
        """Tell whether these decisions are those of the given capture under the given settings."""
        return self.capture_digest == capture_digest and dict(self.settings) == dict(settings)

    def override(self, file_path: str | Collection[str], kept: bool) -> "Decisions":
        """Return a copy in which a person has kept or dropped one frame or several.

        Raises:
            ValueError: no frame has this ``file_path``, or it is to be kept and cannot be trained on.
        """
        names, frames = {file_path} if isinstance(file_path, str) else set(file_path), self.by_file_path()
        for name in names:
            if name not in frames:
                raise ValueError(f"no frame {name!r} among the {len(self.frames)} decisions")
            if kept and frames[name].reason in UNUSABLE:
                raise ValueError(f"{name} cannot be kept: {frames[name].reason}")
        said = (_apply_override(frame, kept) if frame.file_path in names else frame for frame in self.frames)
        return replace(self, frames=tuple(said))

    def carrying_over(self, previous: "Decisions") -> "Decisions":
        """Return a copy in which a person's decisions are those of ``previous``: taken there, or taken back there.

        A frame that has become unusable since stays dropped.
        """
        before = previous.by_file_path()
        return replace(self, frames=tuple(_carried(frame, before.get(frame.file_path)) for frame in self.frames))


def _apply_override(frame: FrameDecision, kept: bool) -> FrameDecision:
    """Apply a manual decision to a frame; an unusable frame stays dropped for its own reason.

    That a person dropped it is remembered all the same, should its image come back.
    """
    if frame.reason in UNUSABLE:
        return frame if kept else replace(frame, decided_by="person", spared=False)
    reason: Reason | None = ("pose" if frame.repaired_transform_matrix else None) if kept else "manual"
    return replace(frame, kept=kept, reason=reason, decided_by="person", spared=False)


def _carried(frame: FrameDecision, before: FrameDecision | None) -> FrameDecision:
    if before is None:
        return frame
    if before.decided_by == "person":
        return _apply_override(frame, before.kept)
    return before if frame.decided_by == "person" else frame


def to_json(decisions: Decisions) -> str:
    """Serialise decisions to the text of ``filtered_views.json``."""
    record = {"schema_version": SCHEMA_VERSION, **asdict(decisions)}
    return json.dumps(_rounded(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> Decisions:
    """Parse the text of ``filtered_views.json``.

    Raises:
        ValueError: the text is no JSON, lacks a field, or has another schema version.
    """
    try:
        record = json.loads(text)
        version = record["schema_version"]
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {version!r}, this program reads {SCHEMA_VERSION}")
        return Decisions(
            capture_digest=record["capture_digest"],
            settings=record["settings"],
            checkpoint=record["checkpoint"],
            embedder=record["embedder"],
            threshold=record["threshold"],
            frames=tuple(_frame_from(entry) for entry in record["frames"]),
            suggested=tuple(_suggestion_from(entry) for entry in record["suggested"]),
            front=record.get("front"),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a decisions file: {type(error).__name__} {error}") from error


Stamp = tuple[int, int]
"""What changes whenever a file does: its time of change in nanoseconds, its number on the disk."""


def stamp(path: Path) -> Stamp | None:
    """Return a file's stamp; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def write(decisions: Decisions, path: Path) -> Stamp:
    """Write ``filtered_views.json`` atomically: readers see the old file or the new one, never half of it.

    Returns:
        The stamp of what was written, even if somebody has written again since.
    """
    return write_text_atomically(path, to_json(decisions))


def read(path: Path) -> Decisions:
    """Read ``filtered_views.json``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another schema version; the message names it.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}. Mend it, or run ns-mtcm-filter with --reset.") from error


def write_text_atomically(path: Path, text: str) -> Stamp:
    """Write a text file through a temporary file in the same folder; returns its stamp."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        found = Path(temporary).stat()
        Path(temporary).replace(path)
        return found.st_mtime_ns, found.st_ino
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _rounded(value: Any) -> Any:
    """Round scores so that the last bits of a sum, which differ between machines, do not reach the file.

    Matrices keep all their digits: a repaired pose must not move by being written.
    """
    if isinstance(value, dict):
        return {
            key: entry if key in ("transform_matrix", "repaired_transform_matrix", "settings") else _rounded(entry)
            for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    if isinstance(value, float) and math.isfinite(value):
        return round(value, _SCORE_DECIMALS)
    return value


def _frame_from(entry: Mapping[str, Any]) -> FrameDecision:
    fields = dict(entry)
    fields["modality"] = ModalityScores(**entry["modality"])
    fields["repaired_transform_matrix"] = _matrix_from(entry["repaired_transform_matrix"])
    return FrameDecision(**_as_edited(fields))


def _as_edited(fields: dict[str, Any]) -> dict[str, Any]:
    """Complete what a person who edits the file by hand need not: the reason that goes with ``kept``.

    A frame that cannot be trained on stays dropped, whatever the file says.
    """
    if fields["reason"] in UNUSABLE:
        return {**fields, "kept": False}
    if fields["decided_by"] != "person":
        return fields
    fields = {**fields, "spared": False}
    if not fields["kept"]:
        return {**fields, "reason": fields["reason"] or "manual"}
    return {**fields, "reason": "pose" if fields["repaired_transform_matrix"] else None}


def _suggestion_from(entry: Mapping[str, Any]) -> SuggestedView:
    matrix = _matrix_from(entry["transform_matrix"])
    if matrix is None:
        raise ValueError("a suggested view needs a transform_matrix")
    return SuggestedView(matrix, entry["label"], entry["gain"], tuple(entry.get("seen_best_by", ())))


def _matrix_from(rows: Any) -> Matrix | None:
    return None if rows is None else tuple(tuple(float(number) for number in row) for row in rows)
