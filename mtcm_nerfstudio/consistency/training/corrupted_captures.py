"""Corrupted captures: a capture as it would be if some of its images were faulty, with everything computed from them.

Faulty images have to be made, embedded and matched, which is slow; wrong poses only change what is claimed. So a few
corrupted captures are made beforehand, each with other faulty images, and poses are made wrong anew at every step.
"""

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.corruptions import (
    FAULT_KINDS,
    IMAGE_FAULTS,
    POSE_FAULTS,
    Fault,
    FaultKind,
    faulty_image,
    foreign_frame,
    plan_faults,
)
from mtcm_nerfstudio.capture.corruptions.augment import augment_image
from mtcm_nerfstudio.capture.images import UnreadableImageError, read_mask, read_rgb
from mtcm_nerfstudio.evidence import keypoints, matching
from mtcm_nerfstudio.evidence.keypoints import TRAINED_AT, FrameKeypoints, keypoints_of
from mtcm_nerfstudio.evidence.match_capture import FrameFeatures, find_features, match_pairs
from mtcm_nerfstudio.evidence.pair_table import FrameTable, PairTable
from mtcm_nerfstudio.evidence.pairs import PairSettings, select_pairs
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import EmbedderName, load_embedder
from mtcm_nerfstudio.tokens.progress import Track, progress_bars

PLAN: tuple[tuple[FaultKind, ...], ...] = (
    (*IMAGE_FAULTS, "foreign"),
    ("occluder", "motion_blur"),
    ("foreign",),
    ("defocus", "exposure"),
)
"""Faults of the corrupted copies that are made of a capture, one copy after the other and round again."""
TRAINING_PAIRS = PairSettings(in_time=6, in_pose=12, in_embedding=10)
"""Pairs that are compared once, so that those of any stretch of the capture, every second frame or some left out, are
among them."""

_VERSION = "4"
"""Changes whenever the same capture gives other corrupted ones."""
_KIND = "corrupted_capture"
_LEAST_SHARE, _LARGEST_SHARE = 0.06, 0.3
_HARMLESS_SHARE = 0.12
"""Share of a copy's valid frames that are augmented and keep the label valid."""


@dataclass(frozen=True, eq=False)
class CorruptedCapture:
    """A capture with some of its images faulty; row i of every array belongs to frame i."""

    embeddings: Float[np.ndarray, "frame 384"]
    table: PairTable
    faults: tuple[Fault, ...]

    def subset(self, index: Int[np.ndarray, " frame"] | Bool[np.ndarray, " frame"]) -> "CorruptedCapture":
        """Return some frames, in the order of ``index``."""
        places = np.arange(len(self.embeddings))[index]
        new = {int(old): place for place, old in enumerate(places)}
        faults = tuple(
            Fault(new[fault.frame], fault.kind, fault.severity, fault.seed)
            for fault in self.faults
            if fault.frame in new
        )
        return CorruptedCapture(self.embeddings[places], self.table.subset(places), faults)


@dataclass(frozen=True, eq=False)
class OriginalCapture:
    """An original capture with its features and poses, from which corrupted copies are made."""

    capture: Capture
    copy: CorruptedCapture
    """The capture as it came, without faults."""
    features: tuple[FrameFeatures, ...]
    c2w: Float[np.ndarray, "frame 4 4"]
    """Poses in the capture's own frame of reference and unit; NaN where there is none."""

    @property
    def readable(self) -> Bool[np.ndarray, " frame"]:
        """Frames that have an image."""
        return np.array([one.keypoints.width > 0 for one in self.features], dtype=bool)


def original_capture(
    capture: Capture,
    embeddings: Float[np.ndarray, "frame 384"],
    c2w: Float[np.ndarray, "frame 4 4"],
    cache: Cache,
    track: Track,
) -> OriginalCapture:
    """Compare all frames of a capture that may have something in common, as it came."""
    features = tuple(find_features(capture.frames, cache, track))
    readable = np.array([one.keypoints.width > 0 for one in features], dtype=bool)
    pairs = select_pairs(embeddings, c2w, readable, TRAINING_PAIRS)
    matched = match_pairs(features, pairs, cache, track)
    return OriginalCapture(capture, CorruptedCapture(embeddings, matched.table, ()), features, c2w)


def corrupted_copies(
    original: OriginalCapture,
    donors: Sequence[Capture],
    count: int,
    embedder: EmbedderName,
    cache: Cache,
    track: Track,
) -> tuple[CorruptedCapture, ...]:
    """Make a capture's corrupted copies, the same for the same capture and donors; those made before are in the cache.

    Args:
        original: the capture as it came.
        donors: captures that lend foreign frames.
        count: number of copies beside the one as it came, which is the first of them.
        embedder: network that embeds the faulty images.
        cache: where copies are kept.
        track: shows progress.
    """
    images = [one.key for one in original.features]
    lent = [
        cache.content_digest(frame.image_path)
        for donor in donors
        for frame in donor.frames
        if frame.image_path.is_file()
    ]
    digest = _digest(load_embedder(embedder).version, images, lent)
    copies = [original.copy]
    for number in track(range(count), f"Corrupting images of {original.capture.name}", count):
        packed = cache.get(_KIND, f"{digest}:{number}")
        if packed is None:
            rng = np.random.default_rng([int(digest[:8], 16), number])
            share = float(rng.uniform(_LEAST_SHARE, _LARGEST_SHARE))
            copy = corrupted_copy(original, donors, PLAN[number % len(PLAN)], share, rng, embedder)
            cache.put(_KIND, f"{digest}:{number}", _packed(copy))
        else:
            copy = _unpacked(packed, original)
        copies.append(copy)
    return tuple(copies)


def corrupted_copy(
    original: OriginalCapture,
    donors: Sequence[Capture],
    kinds: Sequence[FaultKind],
    share: float,
    rng: np.random.Generator,
    embedder: EmbedderName,
) -> CorruptedCapture:
    """Corrupt a share of a capture's images, and change some others in a way that harms nothing.

    Args:
        original: the capture as it came.
        donors: captures that lend foreign frames.
        kinds: faults to draw from; those of poses are left to be drawn at every step.
        share: of the frames that get a fault, in [0, 1].
        rng: decides everything.
        embedder: network that embeds the changed images.
    """
    wanted: list[FaultKind] = [kind for kind in kinds if kind not in POSE_FAULTS and (kind != "foreign" or donors)]
    frames = original.capture.frames
    planned = plan_faults(len(frames), wanted, share, rng) if wanted else ()
    faulty = {fault.frame for fault in planned}
    harmless = [i for i in range(len(frames)) if i not in faulty and rng.random() < _HARMLESS_SHARE]
    seeds = rng.integers(2**31, size=len(harmless)).tolist()
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda fault: _faulty(original, fault, donors), planned))
        changed = list(pool.map(lambda item: _harmless(original, *item), zip(harmless, seeds, strict=True)))
    images = {fault.frame: one for fault, one in zip(planned, made, strict=True) if one is not None}
    faults = tuple(fault for fault in planned if fault.frame in images)
    images |= {i: one for i, one in zip(harmless, changed, strict=True) if one is not None}
    if not images:
        return original.copy
    embeddings, places = original.copy.embeddings.copy(), sorted(images)
    embeddings[places] = load_embedder(embedder).embed([images[i][0] for i in places])
    features = list(original.features)
    for i in places:
        features[i] = FrameFeatures(images[i][1], frames[i].intrinsics, "")
    foreign = {fault.frame for fault in faults if fault.kind == "foreign"}
    table = _matched_again(original, features, embeddings, np.array(places), foreign)
    return CorruptedCapture(embeddings, table, faults)


def _matched_again(
    original: OriginalCapture,
    features: Sequence[FrameFeatures],
    embeddings: Float[np.ndarray, "frame 384"],
    changed: Int[np.ndarray, " changed"],
    foreign: set[int],
) -> PairTable:
    """Match changed frames anew: with those they had something in common with, and with those they now look like."""
    table = original.copy.table
    touched = np.isin(np.arange(len(features)), changed)
    before = table.pairs[touched[table.pairs].any(axis=1) & (table.verified > 0)]
    now = select_pairs(embeddings, original.c2w, original.readable)
    among = np.array([(i, j) for i in sorted(foreign) for j in sorted(foreign) if i < j], dtype=int).reshape(-1, 2)
    pairs = np.unique(np.concatenate([before, now[touched[now].any(axis=1)], among]), axis=0)
    fresh = match_pairs(features, pairs, None, progress_bars(shown=False)).table
    return table.with_frames(fresh, changed)


Made = tuple[Image.Image, FrameKeypoints]


def _faulty(original: OriginalCapture, fault: Fault, donors: Sequence[Capture]) -> Made | None:
    rng = np.random.default_rng([fault.seed, 1])
    donor = None
    frame = original.capture.frames[fault.frame]
    if fault.kind == "foreign":
        others = [donor for donor in donors if foreign_frame(donor, fault).image_path != frame.image_path]
        if not others:
            return None
        donor = others[int(rng.integers(len(others)))]
    return _made(original, fault.frame, rng, lambda image: faulty_image(image, fault, donor))


def _harmless(original: OriginalCapture, frame: int, seed: int) -> Made | None:
    rng = np.random.default_rng([seed, 2])
    return _made(original, frame, rng, lambda image: augment_image(image, rng))


def _made(original: OriginalCapture, index: int, rng: np.random.Generator, change) -> Made | None:
    """Change a frame's image, store it as a camera would, and find its keypoints; None where it cannot be read."""
    frame = original.capture.frames[index]
    try:
        image = read_rgb(frame.image_path)
        image.thumbnail((TRAINED_AT, TRAINED_AT), Image.Resampling.BICUBIC, reducing_gap=2.0)
        image = change(image)
        mask = read_mask(frame.mask_path) if frame.mask_path is not None and frame.mask_path.is_file() else None
    except (UnreadableImageError, FileNotFoundError):
        return None
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(90, 99)))
    image = Image.open(stream).convert("RGB")
    return image, keypoints_of(image, mask)


def _digest(*made_of: object) -> str:
    """Return what to know a corrupted capture by again."""
    about = ":".join(map(str, (_VERSION, keypoints.VERSION, matching.VERSION, PLAN, *made_of)))
    return hashlib.sha256(about.encode()).hexdigest()


_OF_FRAMES = tuple(field.name for field in fields(FrameTable) if field.name != "intrinsics")
_OF_PAIRS = tuple(field.name for field in fields(PairTable) if field.name != "frames")


def _packed(copy: CorruptedCapture) -> UInt8[np.ndarray, " byte"]:
    """Put a corrupted capture into one array of bytes (a NumPy archive) for the cache."""
    faults = [[fault.frame, FAULT_KINDS.index(fault.kind), fault.severity, fault.seed] for fault in copy.faults]
    arrays = {name: getattr(copy.table, name) for name in _OF_PAIRS}
    arrays |= {f"frames.{name}": getattr(copy.table.frames, name) for name in _OF_FRAMES}
    stream = io.BytesIO()
    np.savez(stream, embeddings=copy.embeddings, faults=np.array(faults).reshape(-1, 4), **arrays)
    return np.frombuffer(stream.getvalue(), dtype=np.uint8)


def _unpacked(packed: UInt8[np.ndarray, " byte"], original: OriginalCapture) -> CorruptedCapture:
    intrinsics: tuple[Intrinsics | None, ...] = tuple(frame.intrinsics for frame in original.capture.frames)
    with np.load(io.BytesIO(packed.tobytes()), allow_pickle=False) as file:
        frames = FrameTable(**{name: file[f"frames.{name}"] for name in _OF_FRAMES}, intrinsics=intrinsics)
        table = PairTable(frames=frames, **{name: file[name] for name in _OF_PAIRS})
        faults = tuple(
            Fault(int(row[0]), FAULT_KINDS[int(row[1])], float(row[2]), int(row[3])) for row in file["faults"]
        )
        return CorruptedCapture(file["embeddings"], table, faults)
