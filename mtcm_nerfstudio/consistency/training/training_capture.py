"""A capture made ready for training: its features, corrupted copies of it, the faults it came with, what it lacks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int
from rich.table import Table

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.corruptions import FaultReason
from mtcm_nerfstudio.consistency.training.batch import Example
from mtcm_nerfstudio.consistency.training.corrupted_captures import (
    PLAN,
    CorruptedCapture,
    corrupted_copies,
    original_capture,
)
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import EmbedderName
from mtcm_nerfstudio.tokens.progress import progress_bars
from mtcm_nerfstudio.tokens.tokenise import TokenisedCapture
from mtcm_nerfstudio.tokens.tokens import RawFeatures


@dataclass(frozen=True, eq=False)
class TrainingCapture:
    """What training needs of one capture; row i of every array belongs to frame i."""

    name: str
    """The identity."""
    raw: RawFeatures
    trusted: Bool[np.ndarray, " frame"]
    """Frames of which it is known whether they are faulty as they came."""
    natural: tuple[FaultReason | None, ...] = ()
    """Why frames are faulty as they came, None for good ones; empty where all are good."""
    copies: tuple[CorruptedCapture, ...] = ()
    """The capture as it came, then with faulty images; none where it has embeddings only."""
    licence: str = "unknown"
    drawn: tuple[tuple[Example, ...], ...] = ()
    """Variants that were drawn beforehand, a batch each, for captures that several runs train on; where there are none
    each run draws its own."""

    def subset(self, index: Int[np.ndarray, " kept"]) -> "TrainingCapture":
        """Return some frames, in the order of ``index``."""
        return replace(
            self,
            raw=self.raw.subset(index),
            trusted=self.trusted[index],
            natural=tuple(self.natural[i] for i in np.arange(len(self.raw))[index]) if self.natural else (),
            copies=tuple(copy.subset(index) for copy in self.copies),
        )

    def with_raw(self, raw: RawFeatures) -> "TrainingCapture":
        """Return the same frames with other features."""
        return replace(self, raw=raw)

    def with_copy(self, number: int) -> "TrainingCapture":
        """Return the capture with one of its copies only."""
        return replace(self, copies=self.copies[number : number + 1])


def training_capture(
    tokenised: TokenisedCapture,
    cache: Cache,
    licence: str = "unknown",
    progress: bool = True,
    copies: int = len(PLAN),
    donors: Sequence[Capture] = (),
) -> TrainingCapture:
    """Prepare a capture for training: match its frames, corrupt images, and match these again (once; then cached).

    With ``precomputed`` embeddings there is no network that could embed a faulty image: there are no copies.

    Args:
        tokenised: the capture.
        cache: where everything is kept.
        licence: of the capture.
        progress: show progress bars on standard error.
        copies: how many with faulty images.
        donors: captures that lend foreign frames.
    """
    ready = TrainingCapture(
        name=tokenised.capture.name,
        raw=tokenised.raw,
        trusted=np.ones(len(tokenised.raw), dtype=bool),
        licence=licence,
    )
    if tokenised.raw.embedder == "precomputed":
        return ready
    track = progress_bars(progress)
    raw = tokenised.raw
    c2w = tokenised.tokens.canonical_frame.to_capture(raw.c2w.astype(np.float64))
    original = original_capture(tokenised.capture, raw.embeddings, c2w, cache, track)
    made = corrupted_copies(original, donors, copies, _network_name(raw.embedder), cache, track)
    return replace(ready, copies=made)


def completeness(tokenised: TokenisedCapture) -> Table:
    """Return a table of the modalities per capture: frames that have it, frames that lack it, the substitute."""
    raw, frames = tokenised.raw, tokenised.capture.frames
    images = sum(status == "ok" for status in tokenised.image_status)
    rows: Sequence[tuple[str, int, str]] = (
        ("image", images, "the embedding file where there is one, else the frame has no embedding"),
        ("embedding", int(np.isfinite(raw.embeddings).all(axis=1).sum()), "a learned value for a missing image"),
        ("mask", int(np.isfinite(raw.mask_areas).sum()), "a learned value for a missing mask"),
        ("pose", int(raw.posed.sum()), "a learned value for a missing pose"),
        ("time", int(np.isfinite(raw.timestamps).sum()), "the order of the file names"),
        ("focal length", int(np.isfinite(raw.focals).sum()), "a learned value for a missing focal length"),
    )
    table = Table(title=f"{tokenised.capture.name}: {len(raw)} frames, embeddings by {raw.embedder}")
    table.add_column("frames with")
    table.add_column("there", justify="right")
    table.add_column("missing", justify="right")
    table.add_column("what stands in")
    for name, there, stand_in in rows:
        missing = len(frames) - there
        table.add_row(name, str(there), str(missing), stand_in if missing else "–")
    return table


def missing_names(tokenised: TokenisedCapture) -> tuple[str, ...]:
    """Name the frames that lack their image or their pose, one line each, for what a table can not say."""
    lines = []
    for frame, status, posed in zip(tokenised.capture.frames, tokenised.image_status, tokenised.raw.posed, strict=True):
        lacks = ([status] if status != "ok" else []) + ([] if posed else ["no usable pose"])
        if lacks:
            lines.append(f"{frame.file_path}: {', '.join(lacks)}")
    return tuple(lines)


def _network_name(name: str) -> EmbedderName:
    for known in ("efficientnet-lite0", "dinov2-vits14", "clip-vit-b32"):
        if name == known:
            return known
    raise ValueError(f"no embedder is called {name!r}")
