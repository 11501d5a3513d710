"""Worlds: a capture as it would be if some of its images were spoiled, with everything that was computed from them.

Spoiled images have to be made, embedded and matched, which is slow; wrong poses only change what is claimed. So a few
worlds are made beforehand, each with other images spoiled in other ways, and poses are made wrong anew at every step.
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
from mtcm_nerfstudio.capture.faults import (
    FAULT_KINDS,
    IMAGE_FAULTS,
    POSE_FAULTS,
    Fault,
    FaultKind,
    faulty_image,
    foreign_frame,
    plan_faults,
)
from mtcm_nerfstudio.capture.images import UnreadableImageError, read_mask, read_rgb
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import EmbedderName, load_embedder
from mtcm_nerfstudio.tokens.evidence import features, matches
from mtcm_nerfstudio.tokens.evidence.bank import MatchBank
from mtcm_nerfstudio.tokens.evidence.collect import Seen, bank_of, compare, every_pair, likeness_of, see_frames
from mtcm_nerfstudio.tokens.evidence.features import LONGER_SIDE, LocalFeatures, features_of
from mtcm_nerfstudio.tokens.evidence.matches import NO_MATCHES, match_pair, unit_descriptors
from mtcm_nerfstudio.tokens.progress import Track

PLAN: tuple[tuple[FaultKind, ...], ...] = (
    *((kind,) for kind in IMAGE_FAULTS),
    ("foreign",),
    (*IMAGE_FAULTS, "foreign"),
    (*IMAGE_FAULTS, "foreign"),
)
"""Faults of the worlds that are made of a capture, one world after the other and round again."""

_VERSION = "3"
"""Changes whenever the same capture gives other worlds."""
_WORLD = "world"
_LEAST_SHARE, _LARGEST_SHARE = 0.06, 0.35


@dataclass(frozen=True, eq=False)
class World:
    """A capture with some of its images spoiled; row i of every array belongs to frame i."""

    embeddings: Float[np.ndarray, "frame 384"]
    bank: MatchBank
    faults: tuple[Fault, ...]

    def subset(self, index: Int[np.ndarray, " frame"] | Bool[np.ndarray, " frame"]) -> "World":
        """Return some frames, in the order of ``index``."""
        places = np.arange(len(self.embeddings))[index]
        new = {int(old): place for place, old in enumerate(places)}
        faults = tuple(
            Fault(new[fault.frame], fault.kind, fault.severity, fault.seed)
            for fault in self.faults
            if fault.frame in new
        )
        return World(self.embeddings[places], self.bank.subset(places), faults)


@dataclass(frozen=True, eq=False)
class CleanWorld:
    """A capture as it came, with what is needed to make worlds of it."""

    capture: Capture
    world: World
    seen: tuple[Seen, ...]


def clean_world(capture: Capture, embeddings: Float[np.ndarray, "frame 384"], cache: Cache, track: Track) -> CleanWorld:
    """Compare all frames of a capture that may have something in common, as it came."""
    seen = tuple(see_frames(capture.frames, cache, track))
    digest = _digest([one.key for one in seen])
    known = cache.get(_WORLD, digest)
    if known is not None:
        return CleanWorld(capture, World(embeddings, _unpacked(known).bank, ()), seen)
    likeness = likeness_of(seen)
    likely, unlike = every_pair(likeness)
    matched = compare(seen, likeness, likely, cache, track)
    bank = bank_of(seen, likeness, {**matched.matches, **dict.fromkeys(unlike, NO_MATCHES)})
    world = World(embeddings, bank, ())
    cache.put(_WORLD, digest, _packed(world))
    return CleanWorld(capture, world, seen)


def make_worlds(
    clean: CleanWorld,
    donors: Sequence[Capture],
    count: int,
    embedder: EmbedderName,
    cache: Cache,
    track: Track,
) -> tuple[World, ...]:
    """Make a capture's worlds, the same for the same capture and donors; those made before come from the cache.

    Args:
        clean: the capture as it came.
        donors: captures that lend foreign frames.
        count: number of worlds beside the one as it came, which is the first of them.
        embedder: network that embeds the spoiled images.
        cache: where worlds are kept.
        track: shows progress.
    """
    images = [one.key for one in clean.seen]
    lent = [
        cache.content_digest(frame.image_path)
        for donor in donors
        for frame in donor.frames
        if frame.image_path.is_file()
    ]
    digest = _digest(load_embedder(embedder).version, images, lent)
    worlds = [clean.world]
    for number in track(range(count), f"Spoiling images of {clean.capture.name}", count):
        known = cache.get(_WORLD, f"{digest}:{number}")
        if known is None:
            rng = np.random.default_rng([int(digest[:8], 16), number])
            share = float(rng.uniform(_LEAST_SHARE, _LARGEST_SHARE))
            world = spoiled_world(clean, donors, PLAN[number % len(PLAN)], share, rng, embedder)
            cache.put(_WORLD, f"{digest}:{number}", _packed(world))
        else:
            world = _unpacked(known)
        worlds.append(world)
    return tuple(worlds)


def spoiled_world(
    clean: CleanWorld,
    donors: Sequence[Capture],
    kinds: Sequence[FaultKind],
    share: float,
    rng: np.random.Generator,
    embedder: EmbedderName,
) -> World:
    """Spoil a share of a capture's images.

    Args:
        clean: the capture as it came.
        donors: captures that lend foreign frames.
        kinds: faults to draw from; those of poses are left to be drawn at every step.
        share: of the frames that get a fault, in [0, 1].
        rng: decides everything.
        embedder: network that embeds the spoiled images.
    """
    wanted: list[FaultKind] = [kind for kind in kinds if kind not in POSE_FAULTS and (kind != "foreign" or donors)]
    if not wanted:
        return clean.world
    frames = clean.capture.frames
    planned = plan_faults(len(frames), wanted, share, rng)
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda fault: _spoil(clean, fault, donors), planned))
    kept = [(fault, one) for fault, one in zip(planned, made, strict=True) if one is not None]
    if not kept:
        return clean.world
    embeddings = clean.world.embeddings.copy()
    network = load_embedder(embedder)
    places = [fault.frame for fault, _ in kept]
    embeddings[places] = network.embed([image for _, (image, _) in kept])
    seen = list(clean.seen)
    for fault, (_, found) in kept:
        seen[fault.frame] = Seen(found, frames[fault.frame].intrinsics, "")
    bank = _rematched(
        clean, seen, {fault.frame for fault, _ in kept}, {f.frame for f, _ in kept if f.kind == "foreign"}
    )
    return World(embeddings, bank, tuple(fault for fault, _ in kept))


def _rematched(clean: CleanWorld, seen: Sequence[Seen], spoiled: set[int], foreign: set[int]) -> MatchBank:
    """Match spoiled frames anew with those that they had something in common with, foreign ones among themselves."""
    row, count = clean.world.bank.row, len(seen)
    likeness = likeness_of(seen)
    pairs = [
        (i, j)
        for i in range(count)
        for j in range(i + 1, count)
        if (i in spoiled or j in spoiled) and (row[i, j] > 0 or (i in foreign and j in foreign) or j - i <= 2)
    ]
    units = {i: unit_descriptors(seen[i].features.descriptors) for pair in pairs for i in pair}
    places = {i: seen[i].places for i in units}
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda p: match_pair(units[p[0]], units[p[1]], places[p[0]], places[p[1]]), pairs)
        fresh = bank_of(seen, likeness, dict(zip(pairs, found, strict=True)))
    return clean.world.bank.with_frames(fresh, np.array(sorted(spoiled)))


def _spoil(clean: CleanWorld, fault: Fault, donors: Sequence[Capture]) -> tuple[Image.Image, LocalFeatures] | None:
    frame = clean.capture.frames[fault.frame]
    rng = np.random.default_rng([fault.seed, 1])
    try:
        image = read_rgb(frame.image_path)
        image.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
        if fault.kind == "foreign":
            others = [donor for donor in donors if foreign_frame(donor, fault).image_path != frame.image_path]
            if not others:
                return None
            image = faulty_image(image, fault, others[int(rng.integers(len(others)))])
        else:
            image = faulty_image(image, fault, None)
        mask = read_mask(frame.mask_path) if frame.mask_path is not None and frame.mask_path.is_file() else None
    except (UnreadableImageError, FileNotFoundError):
        return None
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(80, 98)))
    image = Image.open(stream).convert("RGB")
    return image, features_of(image, mask)


def _digest(*made_of: object) -> str:
    """Return what to know a world by again."""
    about = ":".join(map(str, (_VERSION, features.VERSION, matches.VERSION, *made_of)))
    return hashlib.sha256(about.encode()).hexdigest()


def _packed(world: World) -> UInt8[np.ndarray, " byte"]:
    """Put a world into one array of bytes (a NumPy archive) for the cache."""
    faults = [[fault.frame, FAULT_KINDS.index(fault.kind), fault.severity, fault.seed] for fault in world.faults]
    arrays = {field.name: getattr(world.bank, field.name) for field in fields(MatchBank)}
    stream = io.BytesIO()
    np.savez_compressed(stream, embeddings=world.embeddings, faults=np.array(faults).reshape(-1, 4), **arrays)
    return np.frombuffer(stream.getvalue(), dtype=np.uint8)


def _unpacked(packed: UInt8[np.ndarray, " byte"]) -> World:
    with np.load(io.BytesIO(packed.tobytes()), allow_pickle=False) as file:
        bank = MatchBank(**{field.name: file[field.name] for field in fields(MatchBank)})
        faults = tuple(
            Fault(int(row[0]), FAULT_KINDS[int(row[1])], float(row[2]), int(row[3])) for row in file["faults"]
        )
        return World(file["embeddings"], bank, faults)
