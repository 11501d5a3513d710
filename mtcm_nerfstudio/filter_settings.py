"""How a capture is filtered, and the record of what its decisions depend on: settings, checkpoint, content."""

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.read import SourceChoice
from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard
from mtcm_nerfstudio.decisions import Matrix
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders.base import EmbedderName
from mtcm_nerfstudio.verdicts.decide import GuardRails
from mtcm_nerfstudio.views.select_views import SelectionSettings

_IN_THE_DIGESTS = ("source", "identity", "poses")
"""Settings that show in what was read, or whose content is in the record."""
_OF_THE_CHECKPOINT = ("source", "identity", "poses", "checkpoint", "embedder")
"""Fields of the settings whose values in a record differ from those of the flags."""


@dataclass(frozen=True)
class FilterSettings:
    """How a capture is filtered."""

    source: SourceChoice = "auto"
    """Which layout to read. auto: transforms.json, else a COLMAP model, else the identity layout, else bare photos."""
    identity: str | None = None
    """Which identity to read, where the folder holds several."""
    checkpoint: Path | None = None
    """The trained transformer (its .safetensors file). Default: the one that comes with the package."""
    embedder: EmbedderName | None = None
    """Image embedding. Default: the one that the checkpoint was trained on; no other will do."""
    threshold: float | None = None
    """Drop frames whose inconsistency, in [0, 1], is at or above this, unless the evidence contradicts the reason.
    Default: the checkpoint's own."""
    min_frames: int = 8
    """Never leave fewer frames than this (where the capture has as many)."""
    max_drop_share: float = 0.5
    """Never drop more than this share of the frames that can be trained on, in [0, 1]."""

    evidence: bool = True
    """Compare the frames' local features as well: it takes a second or so for every ten frames, and finds wrong poses
    that nothing else shows. Without it, tokens alone are judged."""
    repair: bool = True
    """Keep a frame whose image agrees and whose pose does not, at the pose that its matches give, where they do."""
    min_sharpness: float = 0.0
    """Drop frames that show the same points less sharply than this share of the sharpest views of them, in [0, 1]."""
    keep_exposure: bool = False
    """Keep frames that are only too dark or too bright, for a NeRF that models exposure."""
    max_frames: int | None = None
    """Keep at most this many of the consistent frames: those that serve the whole capture best, by where they look
    from, what they show and how good they are."""
    coverage: float | None = None
    """Keep as few of the consistent frames as serve the whole capture to this share, in (0, 1]."""
    keep_labels: tuple[str, ...] = ()
    """Keep only frames whose label holds one of these words or phrases, for instance front "looking down"."""
    front: str | None = None
    """File name of the image that shows the subject's front. Default: the one that looks into its face; where there is
    no face, the middle of where the cameras stand."""
    words: tuple[str, ...] = ()
    """Phrases, for instance "a face from the front" "the back of a head": say of each frame which of them its picture
    goes with best. Needs the extra clip."""
    suggest: int = 8
    """Suggest at most this many poses from which the capture should have been photographed as well."""

    poses: Path | None = None
    """Start from the poses in this file instead of the capture's where it has any: a filtered_views.json, or the
    joint_views.json that joint training leaves in a run's folder."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"--threshold must lie in [0, 1], got {self.threshold}")
        if not 0.0 <= self.min_sharpness <= 1.0:
            raise ValueError(f"--min-sharpness must lie in [0, 1], got {self.min_sharpness}")
        if self.coverage is not None and not 0.0 < self.coverage <= 1.0:
            raise ValueError(f"--coverage must lie in (0, 1], got {self.coverage}")
        if self.max_frames is not None and self.max_frames < max(self.min_frames, 1):
            raise ValueError(
                f"--max-frames must not be below --min-frames ({self.min_frames}), got {self.max_frames}: lower both"
            )
        if self.suggest < 0:
            raise ValueError(f"--suggest must not be negative, got {self.suggest}")
        _ = self.guard_rails

    @property
    def guard_rails(self) -> GuardRails:
        """The limits on what the model may drop."""
        return GuardRails(self.min_frames, self.max_drop_share)

    @property
    def selection_settings(self) -> SelectionSettings:
        """What is wanted of the views."""
        return SelectionSettings(
            self.max_frames, self.coverage, self.keep_labels, self.front, self.suggest, self.min_frames
        )


def settings_record(
    settings: FilterSettings, card: CheckpointCard, given: Mapping[int, Matrix] | None = None
) -> dict[str, Any]:
    """Return what the decisions depend on beside the capture, as plain JSON without paths.

    Args:
        settings: how to filter.
        card: of the checkpoint.
        given: poses that stand in for the capture's, by the frames' numbers.
    """
    flags = {name: value for name, value in asdict(settings).items() if name not in _IN_THE_DIGESTS}
    as_json = {name: list(value) if isinstance(value, tuple) else value for name, value in flags.items()}
    calibration = [card.calibration_scale, card.calibration_offset, card.calibration_forest, card.threshold]
    calibration += [*card.blur_weights, card.blur_offset]
    record = {**as_json, "checkpoint": card.digest, "calibration": calibration, "embedder": card.embedder}
    if not given:
        return record
    return {**record, "poses": hashlib.sha256(repr(sorted(given.items())).encode()).hexdigest()}


def other_flags(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the command-line flags by which a settings record differs from the default."""
    usual = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(FilterSettings()).items()
    }
    found = []
    for name in (*(name for name in usual if name not in _OF_THE_CHECKPOINT), "poses"):
        value, flag = record.get(name, usual[name]), name.replace("_", "-")
        if value == usual[name]:
            continue
        if isinstance(value, bool):
            found.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            found.append(f"--{flag}" if name == "poses" else f"--{flag} {_typed(value)}")
    return tuple(found)


def _typed(value: Any) -> str:
    return shlex.join(str(one) for one in (value if isinstance(value, list) else [value]))


def capture_digest(capture: Capture, cache: Cache) -> str:
    """Return a SHA-256 over everything about the capture that its tokens are made of."""
    digest = hashlib.sha256()
    for frame in capture.frames:
        facts = (
            frame.file_path,
            None if frame.c2w is None else frame.c2w.tobytes(),
            frame.timestamp,
            frame.intrinsics,
            frame.focal_over_diagonal,
            frame.embedding_row,
            *(_content(path, cache) for path in (frame.image_path, frame.mask_path, frame.embedding_path)),
        )
        digest.update(repr(facts).encode())
    return digest.hexdigest()


def _content(path: Path | None, cache: Cache) -> str | None:
    return cache.content_digest(path) if path is not None and path.is_file() else None
