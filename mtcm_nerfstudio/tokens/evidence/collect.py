"""From images to matches: features of every frame and matches of every pair that is to be compared, from the cache
where they were computed before."""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from mtcm_nerfstudio.capture.capture import Frame, Intrinsics
from mtcm_nerfstudio.capture.images import UnreadableImageError
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.evidence import features as features_module
from mtcm_nerfstudio.tokens.evidence import matches as matches_module
from mtcm_nerfstudio.tokens.evidence.bank import (
    NO_FEATURES,
    NOTHING,
    MatchBank,
    make_bank,
    summarise_pair,
)
from mtcm_nerfstudio.tokens.evidence.features import COARSE, LocalFeatures, extract_features, unpacked
from mtcm_nerfstudio.tokens.evidence.matches import (
    PairMatches,
    coarse_likeness,
    match_pair,
    unit_descriptors,
)
from mtcm_nerfstudio.tokens.evidence.partners import choose_partners, pose_distances
from mtcm_nerfstudio.tokens.evidence.rays import focal_px, rays_of
from mtcm_nerfstudio.tokens.progress import Track

Pair = tuple[int, int]
_FEATURES, _DESCRIPTORS = (f"{what}:{features_module.VERSION}" for what in ("local_features", "descriptors"))
_SIMILAR = 3
_SOON = 4
"""Pairs that share fewer matches among their largest points than this have nothing in common, unless they were taken
within so many frames of each other."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A frame's local features, and what to know them by again."""

    features: LocalFeatures
    intrinsics: Intrinsics | None
    key: str
    """Digest of the image, its mask and its calibration; empty for what is not to be kept."""
    again: Callable[[], LocalFeatures] | None = None
    """Finds the features again, where they come from the cache without all descriptors."""

    @property
    def rays(self) -> Float[np.ndarray, "point 2"] | None:
        """x/z and y/z of the direction in which each point is seen."""
        return rays_of(self.features.points, self.intrinsics)

    @property
    def places(self) -> Float[np.ndarray, "point 2"]:
        """Points in pixels at a longer side of 1000, lens distortion taken out where it is known."""
        rays = self.rays
        if rays is None:
            return self.features.points
        return np.nan_to_num(rays * focal_px(self.intrinsics), nan=1e6)


@dataclass(frozen=True, eq=False)
class Matched:
    """A capture's matches in full, and their summary."""

    bank: MatchBank
    seen: tuple[Seen, ...]
    matches: dict[Pair, PairMatches]
    """Verified matches of every pair that was compared, the earlier frame first."""


def match_capture(
    frames: Sequence[Frame],
    c2w: Float[np.ndarray, "frame 4 4"],
    readable: Bool[np.ndarray, " frame"],
    cache: Cache,
    track: Track,
) -> Matched:
    """Match every frame with those near it in time and in claimed pose, and with those that look alike.

    Args:
        frames: of a capture, in temporal order.
        c2w: claimed poses in the capture's own frame of reference and unit; NaN rows without one.
        readable: frames that have an image and take part.
        cache: where features and matches are kept.
        track: shows progress.
    """
    seen = see_frames(frames, cache, track, readable)
    return with_poses(seen, likeness_of(seen), c2w, readable, cache, track)


def with_poses(
    seen: Sequence[Seen],
    likeness: Float[np.ndarray, "frame frame"],
    c2w: Float[np.ndarray, "frame 4 4"],
    readable: Bool[np.ndarray, " frame"],
    cache: Cache,
    track: Track,
) -> Matched:
    """Match the pairs that the claimed poses ask for; arguments as those of ``match_capture``."""
    known = np.where(readable[:, None, None], c2w, np.nan)
    return compare(seen, likeness, choose_partners(likeness, pose_distances(known), readable), cache, track)


def see_frames(
    frames: Sequence[Frame], cache: Cache, track: Track, readable: Bool[np.ndarray, " frame"] | None = None
) -> list[Seen]:
    """Find every frame's local features; a frame without a readable image has none."""
    there = np.ones(len(frames), dtype=bool) if readable is None else readable
    keys = [_key(frame, cache) if there[i] else "" for i, frame in enumerate(frames)]
    with ThreadPoolExecutor() as pool:
        known = [known_features(key, cache) for key in keys]
        unknown = [i for i, features in enumerate(known) if features is None and there[i]]
        found = track(pool.map(lambda i: _see(frames[i]), unknown), "Finding local features", len(unknown))
        for i, features in zip(unknown, found, strict=True):
            known[i] = features
            if keys[i]:
                keep_features(keys[i], features, cache)
    return [
        Seen(NO_FEATURES if features is None else features, frame.intrinsics, key, partial(_see, frame))
        for features, frame, key in zip(known, frames, keys, strict=True)
    ]


def likeness_of(seen: Sequence[Seen]) -> Float[np.ndarray, "frame frame"]:
    """Return for every two frames how many of their largest points match."""
    coarse = torch.zeros(len(seen), COARSE, 128)
    for i, one in enumerate(seen):
        values = unit_descriptors(one.features.coarse_descriptors)
        coarse[i, : len(values)] = values
    return coarse_likeness(coarse)


def compare(
    seen: Sequence[Seen],
    likeness: Float[np.ndarray, "frame frame"],
    pairs: Int[np.ndarray, "pair 2"],
    cache: Cache | None,
    track: Track,
) -> Matched:
    """Match the given pairs of frames, on all cores."""
    wanted = [(int(i), int(j)) for i, j in pairs]
    kind = f"matches:{features_module.VERSION}:{matches_module.VERSION}"
    known: dict[Pair, PairMatches] = {}
    if cache is not None:
        for i, j in wanted:
            array = cache.get(kind, _pair_key(seen[i], seen[j])) if seen[i].key and seen[j].key else None
            if array is not None:
                known[i, j] = _unpacked(array, seen[i].key > seen[j].key)
    missing = [pair for pair in wanted if pair not in known]
    with ThreadPoolExecutor() as pool:
        described = sorted(set(itertools.chain.from_iterable(missing)))
        lacking = [i for i in described if not seen[i].features.whole]
        found = track(pool.map(_descriptors, [seen[i] for i in lacking]), "Finding local features", len(lacking))
        descriptors = dict(zip(lacking, found, strict=True))
    units = {i: unit_descriptors(descriptors.get(i, seen[i].features.descriptors)) for i in described}
    places = {i: seen[i].places for i in units}

    def match(pair: Pair) -> PairMatches:
        i, j = pair
        # The same way round whatever the order of the frames, so that a capture read backwards gives the same.
        if seen[i].key > seen[j].key:
            return _turned(match_pair(units[j], units[i], places[j], places[i]))
        return match_pair(units[i], units[j], places[i], places[j])

    with ThreadPoolExecutor() as pool:
        fresh = dict(zip(missing, track(pool.map(match, missing), "Matching frames", len(missing)), strict=True))
    if cache is not None:
        cache.put_many(
            kind,
            {
                _pair_key(seen[i], seen[j]): _packed(found, seen[i].key > seen[j].key)
                for (i, j), found in fresh.items()
                if seen[i].key and seen[j].key
            },
        )
    matches = {**known, **fresh}
    return Matched(bank_of(seen, likeness, matches), tuple(seen), matches)


def bank_of(
    seen: Sequence[Seen], likeness: Float[np.ndarray, "frame frame"], matches: dict[Pair, PairMatches]
) -> MatchBank:
    """Sum up the matches of every pair."""
    rays = [one.rays for one in seen]
    summaries = {
        (i, j): summarise_pair(seen[i].features, seen[j].features, found, rays[i], rays[j]) if len(found) else NOTHING
        for (i, j), found in matches.items()
    }
    overall = np.stack([one.features.overall for one in seen]).astype(np.float64)
    return make_bank(overall, np.array([focal_px(one.intrinsics) for one in seen]), likeness, summaries)


def every_pair(
    likeness: Float[np.ndarray, "frame frame"],
) -> tuple[Int[np.ndarray, "pair 2"], list[Pair]]:
    """Return the pairs that may have something in common, and all the others."""
    count = len(likeness)
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    upper = np.triu(np.ones_like(likeness, dtype=bool), 1)
    likely = ((likeness >= _SIMILAR) | (apart <= _SOON)) & upper
    return np.argwhere(likely), [(int(i), int(j)) for i, j in np.argwhere(upper & ~likely)]


def known_features(key: str, cache: Cache) -> LocalFeatures | None:
    """Return features from the cache, with the descriptors of the largest points only."""
    rows, descriptors = (cache.get(kind, key) if key else None for kind in (_FEATURES, _DESCRIPTORS))
    return None if rows is None or descriptors is None else unpacked(rows, descriptors)


def keep_features(key: str, features: LocalFeatures, cache: Cache) -> None:
    """Put features into the cache."""
    cache.put(_FEATURES, key, features.packed())
    cache.put(_DESCRIPTORS, key, features.coarse_descriptors)


def _descriptors(one: Seen) -> UInt8[np.ndarray, "point 128"]:
    return one.features.descriptors if one.again is None else one.again().descriptors


def _see(frame: Frame) -> LocalFeatures:
    try:
        return extract_features(frame.image_path, frame.mask_path)
    except (UnreadableImageError, FileNotFoundError):
        return NO_FEATURES


def _key(frame: Frame, cache: Cache) -> str:
    if not frame.image_path.is_file():
        return ""
    mask = frame.mask_path
    digests = [cache.content_digest(path) for path in (frame.image_path, mask) if path is not None and path.is_file()]
    return f"{':'.join(digests)}:{frame.intrinsics!r}"


def _pair_key(first: Seen, second: Seen) -> str:
    return "|".join(sorted((first.key, second.key)))


def _turned(matches: PairMatches) -> PairMatches:
    return PairMatches(matches.indices[:, ::-1], matches.tentative)


def _packed(matches: PairMatches, turned: bool) -> np.ndarray:
    """Put matches and their tentative number into one array, for the pair in the order of its keys."""
    indices = matches.indices[:, ::-1] if turned else matches.indices
    return np.concatenate([[[matches.tentative, 0]], indices]).astype(np.int16)


def _unpacked(array: np.ndarray, turned: bool) -> PairMatches:
    matches = PairMatches(array[1:], int(array[0, 0]))
    return _turned(matches) if turned else matches
