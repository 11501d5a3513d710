"""A capture made ready for training: its features, the same frames with spoiled images, and what it lacks."""

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mtcm_nerfstudio.capture.faults import IMAGE_FAULTS, ImageFaultKind, apply_image_fault
from mtcm_nerfstudio.capture.images import UnreadableImageError, read_rgb
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import Embedder, EmbedderName, load_embedder
from mtcm_nerfstudio.tokens.tokenise import TokenisedCapture
from mtcm_nerfstudio.tokens.tokens import EMBEDDING_DIM, RawFeatures

SEVERITIES = (0.2, 0.5, 0.9)
"""How strongly images are spoiled, from hardly visible (0) to gross (1)."""

_VARIANTS_VERSION = "1"
"""Changes when the same image would be spoiled differently."""
_WORKING_SIDE = 448
"""Images are shrunk to this many pixels before they are spoiled: faults are relative to the image's size."""

Variants = Mapping[ImageFaultKind, Float[np.ndarray, "severity frame 384"]]


@dataclass(frozen=True, eq=False)
class TrainingCapture:
    """What training needs of one capture; row i of every array belongs to frame i."""

    name: str
    """The identity."""
    raw: RawFeatures
    trusted: Bool[np.ndarray, " frame"]
    """Frames that may be taken for faultless."""
    variants: Variants = field(default_factory=dict)
    """Embeddings of the spoiled images by fault, NaN where there was no image to spoil."""
    licence: str = "unknown"

    def subset(self, index: Int[np.ndarray, " kept"]) -> "TrainingCapture":
        """Return some frames, in the order of ``index``."""
        return replace(
            self,
            raw=self.raw.subset(index),
            trusted=self.trusted[index],
            variants={fault: embeddings[:, index] for fault, embeddings in self.variants.items()},
        )

    def with_raw(self, raw: RawFeatures) -> "TrainingCapture":
        """Return the same frames with other features."""
        return replace(self, raw=raw)


def training_capture(
    tokenised: TokenisedCapture,
    cache: Cache,
    licence: str = "unknown",
    progress: bool = True,
    every: int = 1,
) -> TrainingCapture:
    """Prepare a capture for training: embed its frames with spoiled images as well (once; then from the cache).

    Args:
        tokenised: the capture.
        cache: where embeddings are kept.
        licence: of the capture.
        progress: show a progress bar on standard error.
        every: spoil the image of every so many frames only, since each takes as long as embedding twelve.
    """
    return TrainingCapture(
        name=tokenised.capture.name,
        raw=tokenised.raw,
        trusted=np.ones(len(tokenised.raw), dtype=bool),
        variants=image_variants(tokenised, cache, progress, every),
        licence=licence,
    )


def image_variants(tokenised: TokenisedCapture, cache: Cache, progress: bool = True, every: int = 1) -> Variants:
    """Embed every (or every second, third …) readable image under every image fault and severity.

    With ``precomputed`` embeddings there is no network that could embed a spoiled image: there are no variants.
    """
    if tokenised.raw.embedder == "precomputed":
        return {}
    embedder = load_embedder(_network_name(tokenised.raw.embedder))
    readable = [i for i, status in enumerate(tokenised.image_status) if status == "ok" and i % every == 0]
    found: dict[ImageFaultKind, np.ndarray] = {
        fault: np.full((len(SEVERITIES), len(tokenised.raw), EMBEDDING_DIM), np.nan) for fault in IMAGE_FAULTS
    }
    for i in _tracked(readable, f"Spoiling images of {tokenised.capture.name}", progress):
        vectors = _variants_of(tokenised.capture.frames[i].image_path, embedder, cache)
        if vectors is not None:
            for fault, of_fault in zip(IMAGE_FAULTS, vectors, strict=True):
                found[fault][:, i] = of_fault
    return found


def completeness(tokenised: TokenisedCapture) -> Table:
    """Return the table that says what a capture has, what it lacks, and what stands in for it."""
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


def _variants_of(path: Any, embedder: Embedder, cache: Cache) -> Float[np.ndarray, "fault severity 384"] | None:
    """Return one image's embeddings under all faults, or None where it cannot be read after all."""
    digest = cache.content_digest(path)
    kind = f"spoiled:{_VARIANTS_VERSION}:{_WORKING_SIDE}:{SEVERITIES}:{embedder.name}:{embedder.version}"
    known = cache.get(kind, digest)
    if known is not None:
        return known
    try:
        image = read_rgb(path)
    except UnreadableImageError:
        return None
    image.thumbnail((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    spoiled = [
        apply_image_fault(image, fault, severity, _generator(digest, fault, severity))
        for fault in IMAGE_FAULTS
        for severity in SEVERITIES
    ]
    vectors = embedder.embed(spoiled).reshape(len(IMAGE_FAULTS), len(SEVERITIES), EMBEDDING_DIM)
    cache.put(kind, digest, vectors)
    return vectors


def _generator(digest: str, fault: str, severity: float) -> np.random.Generator:
    """Return random numbers that depend on the image and the fault, not on which images came before."""
    seed = hashlib.sha256(f"{digest}:{fault}:{severity}".encode()).digest()
    return np.random.default_rng(list(seed))


def _network_name(name: str) -> EmbedderName:
    for known in ("efficientnet-lite0", "dinov2-vits14", "clip-vit-b32"):
        if name == known:
            return known
    raise ValueError(f"no embedder is called {name!r}")


def _tracked(items: Sequence[int], description: str, progress: bool) -> Iterable[int]:
    if not progress or not items:
        return items
    return track(items, description, console=Console(file=sys.stderr), transient=True)
