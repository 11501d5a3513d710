"""Captures with known faults, as features: the same as if the faulted capture lay on disk, but quicker.

Images are spoiled at full size, as ``capture.faults.inject`` does, and embedded once; the cache keeps the result.
Poses are made wrong before tokens are assembled.
"""

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from rich.console import Console
from rich.progress import track

from mtcm_nerfstudio.capture.capture import Capture, Frame
from mtcm_nerfstudio.capture.faults import (
    POSE_FAULTS,
    Fault,
    FaultKind,
    faulted_poses,
    faulty_image,
    foreign_frame,
    plan_faults,
)
from mtcm_nerfstudio.capture.images import read_rgb
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import EMBEDDING_DIM, Embedder, NetworkName, load_embedder
from mtcm_nerfstudio.tokens.tokenise import tokens_of
from mtcm_nerfstudio.tokens.tokens import RawFeatures

TrialKind = FaultKind | Literal["mixed", "clean"]
"""One kind of fault alone, all of them mixed, or none."""

FIRST_SEED = 7_000_000
"""Trials draw from here on, far from the small numbers that training runs are seeded with."""

_BATCH = 16
_SHARPNESS = "laplacian_variance:1"
_FAULTED = "benchmark_fault:1"


@dataclass(frozen=True, eq=False)
class Subject:
    """A capture as it came: the frames with a readable image and a finite pose, in temporal order."""

    capture: Capture
    raw: RawFeatures
    sharpness: Float[np.ndarray, " frame"]
    """Variance of the image's Laplacian, grey levels of 0 to 255."""

    @property
    def name(self) -> str:
        """The capture's name."""
        return self.capture.name


@dataclass(frozen=True, eq=False)
class Trial:
    """A capture with known faults, and what all methods may look at."""

    capture: str
    kind: TrialKind
    share: float
    """Of the frames that were to be made faulty, in [0, 1]."""
    seed: int
    faults: tuple[Fault, ...]
    raw: RawFeatures
    sharpness: Float[np.ndarray, " frame"]

    @property
    def truth(self) -> Bool[np.ndarray, " frame"]:
        """Which frames are faulty."""
        faulty = np.zeros(len(self.raw), dtype=bool)
        faulty[[fault.frame for fault in self.faults]] = True
        return faulty


@dataclass(frozen=True, eq=False)
class SpoiledImage:
    """A faulty frame's image, before it is made: enough to know it again in the cache."""

    frame: Frame
    fault: Fault
    foreign: Capture | None
    """The capture that lends the image of a foreign frame."""


class FeatureBank:
    """Computes the features of clean and faulty images once, and keeps them."""

    def __init__(self, embedder: NetworkName = "efficientnet-lite0", cache: Cache | None = None) -> None:
        """Load the embedder; ``cache`` is the usual one if it is not given."""
        self.embedder: Embedder = load_embedder(embedder)
        self.cache = cache or Cache()

    def subject(self, capture: Capture) -> Subject:
        """Compute a capture's features as they are, without the frames that no method could judge."""
        tokenised = tokens_of(capture, self.embedder.name, self.cache)
        usable = tokenised.raw.posed & np.array([status == "ok" for status in tokenised.image_status])
        frames = tuple(frame for frame, good in zip(capture.frames, usable, strict=True) if good)
        sharpness = np.array([self._sharpness(frame) for frame in frames])
        return Subject(replace(capture, frames=frames), tokenised.raw.subset(usable), sharpness)

    def features(self, spoiled: SpoiledImage) -> Float[np.ndarray, "385"]:
        """Return a faulty image's embedding (384) and sharpness (1)."""
        known = self.cache.get(self._kind, self._key(spoiled))
        if known is None:
            self.prepare([spoiled])
            known = self.cache.get(self._kind, self._key(spoiled))
        assert known is not None, "prepare() keeps what it computes"
        return known

    def prepare(self, images: Sequence[SpoiledImage]) -> None:
        """Make and embed all faulty images that are not in the cache yet, in batches, with a progress bar."""
        wanted = {self._key(image): image for image in images}
        unknown = [(key, image) for key, image in wanted.items() if self.cache.get(self._kind, key) is None]
        batches = [unknown[start : start + _BATCH] for start in range(0, len(unknown), _BATCH)]
        with ThreadPoolExecutor() as threads:
            for batch in _tracked(batches, f"Spoiling {len(unknown)} images"):
                faulty = list(threads.map(_make, [image for _, image in batch]))
                rows = np.column_stack([self.embedder.embed(faulty), [laplacian_variance(image) for image in faulty]])
                self.cache.put_many(self._kind, {key: row for (key, _), row in zip(batch, rows, strict=True)})

    @property
    def _kind(self) -> str:
        return f"{_FAULTED}:{self.embedder.name}:{self.embedder.version}"

    def _key(self, spoiled: SpoiledImage) -> str:
        fault, digest = spoiled.fault, self.cache.content_digest(spoiled.frame.image_path)
        lender = spoiled.foreign
        borrowed = "" if lender is None else self.cache.content_digest(foreign_frame(lender, fault).image_path)
        return f"{digest}:{fault.kind}:{fault.severity!r}:{fault.seed}:{borrowed}"

    def _sharpness(self, frame: Frame) -> float:
        digest = self.cache.content_digest(frame.image_path)
        known = self.cache.get(_SHARPNESS, digest)
        if known is None:
            known = np.array([laplacian_variance(read_rgb(frame.image_path))])
            self.cache.put(_SHARPNESS, digest, known)
        return float(known[0])


def laplacian_variance(image: Image.Image) -> float:
    """Return the usual measure of sharpness: the variance of the Laplacian of the grey image."""
    return float(cv2.Laplacian(np.asarray(image.convert("L")), cv2.CV_64F).var())


@dataclass(frozen=True, eq=False)
class PlannedTrial:
    """A trial whose faults are drawn and whose images are not yet made."""

    subject: Subject
    kind: TrialKind
    share: float
    seed: int
    faults: tuple[Fault, ...]
    others: tuple[Capture, ...]
    """The captures that lend foreign images."""

    @property
    def spoiled_images(self) -> list[SpoiledImage]:
        """The images that the faults spoil; a foreign one comes from a capture drawn among the others."""
        return [
            SpoiledImage(self.subject.capture.frames[fault.frame], fault, self._lender(fault))
            for fault in self.faults
            if fault.kind not in POSE_FAULTS
        ]

    def made(self, bank: FeatureBank) -> Trial:
        """Put the faults into the capture's features."""
        embeddings, sharpness = self.subject.raw.embeddings.copy(), self.subject.sharpness.copy()
        for spoiled in self.spoiled_images:
            features = bank.features(spoiled)
            embeddings[spoiled.fault.frame] = features[:EMBEDDING_DIM]
            sharpness[spoiled.fault.frame] = features[EMBEDDING_DIM]
        c2w = faulted_poses(self.subject.raw.c2w, self.faults)
        raw = replace(self.subject.raw, embeddings=embeddings, c2w=c2w)
        return Trial(self.subject.name, self.kind, self.share, self.seed, self.faults, raw, sharpness)

    def _lender(self, fault: Fault) -> Capture | None:
        return self.others[int(fault.rng().integers(len(self.others)))] if fault.kind == "foreign" else None


def plan_trial(
    subject: Subject, kind: TrialKind, mixed: Sequence[FaultKind], share: float, seed: int, captures: Sequence[Capture]
) -> PlannedTrial:
    """Draw the faults of one trial; the same for the same capture, kind, share and seed.

    Args:
        subject: the capture.
        kind: one kind of fault, ``mixed`` or ``clean``.
        mixed: the kinds that ``mixed`` draws from.
        share: of the frames that get a fault, in [0, 1].
        seed: number of the trial.
        captures: those that lend foreign images; the subject's own is left out.
    """
    kinds: Sequence[FaultKind] = mixed if kind == "mixed" or kind == "clean" else (kind,)
    share = 0.0 if kind == "clean" else share
    rng = np.random.default_rng([FIRST_SEED + seed, *f"{subject.name}:{kind}:{share}".encode()])
    faults = plan_faults(len(subject.raw), kinds, share, rng, subject.raw.c2w)
    others = tuple(capture for capture in captures if capture.name != subject.name)
    return PlannedTrial(subject, kind, share, seed, faults, others)


def _make(spoiled: SpoiledImage) -> Image.Image:
    return faulty_image(read_rgb(spoiled.frame.image_path), spoiled.fault, spoiled.foreign)


def _tracked(items: Sequence, description: str) -> Iterable:
    return track(items, description, console=Console(file=sys.stderr), transient=True) if items else items
