"""From images to a pair table: keypoints of every frame and matches of every selected pair, from the cache where they
were computed before, else on all cores."""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mtcm_nerfstudio.capture.capture import Frame
from mtcm_nerfstudio.capture.images import UnreadableImageError
from mtcm_nerfstudio.evidence import keypoints as keypoints_module
from mtcm_nerfstudio.evidence import matching as matching_module
from mtcm_nerfstudio.evidence.keypoints import (
    LONGER_SIDE,
    NO_KEYPOINTS,
    FrameKeypoints,
    find_keypoints,
    unpack_keypoints,
)
from mtcm_nerfstudio.evidence.matching import MatchInput, PairMatches, match_pair, unit_descriptors
from mtcm_nerfstudio.evidence.pair_table import (
    PairSummary,
    PairTable,
    frame_table,
    pair_table,
    resolution_of,
    summarise_pair,
)
from mtcm_nerfstudio.evidence.pairs import DEFAULT_PAIRS, PairSettings, select_pairs
from mtcm_nerfstudio.geometry.bearings import bearings_from_pixels, has_bearings, is_wide
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.progress import Track

Pair = tuple[int, int]
_KEYPOINTS = f"keypoints:{keypoints_module.VERSION}"
_MATCHES = f"matches:{keypoints_module.VERSION}:{matching_module.VERSION}"


@dataclass(frozen=True, eq=False)
class FrameFeatures:
    """A frame's keypoints, its camera, and what to know them by again."""

    keypoints: FrameKeypoints
    intrinsics: Intrinsics | None
    key: str
    """Digest of the image, its mask and its intrinsics; empty for what is not to be kept."""
    again: Callable[[], FrameKeypoints] | None = None
    """Finds the keypoints again, where they come from the cache without descriptors."""

    @cached_property
    def bearings(self) -> Float[np.ndarray, "point 3"] | None:
        """The bearing of each keypoint; None where the camera model has none."""
        if self.intrinsics is None or not has_bearings(self.intrinsics):
            return None
        scale = max(self.intrinsics.width, self.intrinsics.height) / LONGER_SIDE
        return bearings_from_pixels(self.keypoints.points.astype(np.float64) * scale, self.intrinsics)

    def match_input(self, descriptors: UInt8[np.ndarray, "point 128"]) -> MatchInput:
        """Return what matching needs to know."""
        units, bearings, resolution = unit_descriptors(descriptors), self.bearings, resolution_of(self.intrinsics)
        if bearings is None or self.intrinsics is None:
            return MatchInput(units, self.keypoints.points)
        if is_wide(self.intrinsics):
            return MatchInput(units, self.keypoints.points, bearings, resolution)
        with np.errstate(invalid="ignore", divide="ignore"):
            plane = bearings[:, :2] / bearings[:, 2:] * resolution
        return MatchInput(units, np.nan_to_num(plane, nan=1e6))


@dataclass(frozen=True, eq=False)
class MatchedCapture:
    """A capture's matches in full, and their summary."""

    table: PairTable
    features: tuple[FrameFeatures, ...]
    matches: dict[Pair, PairMatches]


def match_capture(
    frames: Sequence[Frame],
    embeddings: Float[np.ndarray, "frame 384"],
    c2w: Float[np.ndarray, "frame 4 4"],
    readable: Bool[np.ndarray, " frame"],
    cache: Cache | None,
    track: Track,
) -> MatchedCapture:
    """Find keypoints of all frames and match the pairs that ``select_pairs`` names.

    Args:
        frames: of a capture.
        embeddings: of the frames, NaN where there is none.
        c2w: claimed poses, positions in units of the capture.
        readable: frames that take part.
        cache: where keypoints and matches are kept.
        track: shows progress.
    """
    features = find_features(frames, cache, track)
    return match_features(features, embeddings, c2w, readable, cache, track)


def match_features(
    features: Sequence[FrameFeatures],
    embeddings: Float[np.ndarray, "frame 384"],
    c2w: Float[np.ndarray, "frame 4 4"],
    readable: Bool[np.ndarray, " frame"],
    cache: Cache | None,
    track: Track,
    settings: PairSettings = DEFAULT_PAIRS,
) -> MatchedCapture:
    """Match the pairs of frames that ``select_pairs`` names; arguments as for ``match_capture``."""
    pairs = select_pairs(embeddings, np.where(readable[:, None, None], c2w, np.nan), readable, settings)
    return match_pairs(features, pairs, cache, track)


def find_features(frames: Sequence[Frame], cache: Cache | None, track: Track) -> list[FrameFeatures]:
    """Find the keypoints of every frame that has an image."""
    keys = [""] * len(frames) if cache is None else [_key(frame, cache) for frame in frames]
    known = [None if cache is None or not key else cached_keypoints(key, cache) for key in keys]
    unknown = [i for i, one in enumerate(known) if one is None and frames[i].image_path.is_file()]
    with ThreadPoolExecutor() as pool:
        found = track(pool.map(lambda i: _find(frames[i]), unknown), "Finding keypoints", len(unknown))
        for i, one in zip(unknown, found, strict=True):
            known[i] = one
            if cache is not None and keys[i]:
                cache_keypoints(keys[i], one, cache)
    return [
        FrameFeatures(NO_KEYPOINTS if one is None else one, frame.intrinsics, key, partial(_find, frame))
        for one, frame, key in zip(known, frames, keys, strict=True)
    ]


def match_pairs(
    features: Sequence[FrameFeatures], pairs: Int[np.ndarray, "pair 2"], cache: Cache | None, track: Track
) -> MatchedCapture:
    """Match the given pairs of frames."""
    wanted = [(int(i), int(j)) for i, j in pairs]
    known: dict[Pair, PairMatches] = {}
    if cache is not None:
        for i, j in wanted:
            array = cache.get(_MATCHES, _pair_key(features[i], features[j])) if _is_kept(features, i, j) else None
            if array is not None:
                known[i, j] = _unpacked(array, features[i].key > features[j].key)
    missing = [pair for pair in wanted if pair not in known]
    inputs = _match_inputs(features, sorted(set(itertools.chain.from_iterable(missing))), track)

    def match(pair: Pair) -> PairMatches:
        i, j = pair
        # The same way round whatever the order of the frames, so that a capture read backwards gives the same.
        if features[i].key > features[j].key:
            return match_pair(inputs[j], inputs[i]).swapped()
        return match_pair(inputs[i], inputs[j])

    with ThreadPoolExecutor() as pool:
        fresh = dict(zip(missing, track(pool.map(match, missing), "Matching frames", len(missing)), strict=True))
    if cache is not None:
        packed = {
            _pair_key(features[i], features[j]): _packed(found, features[i].key > features[j].key)
            for (i, j), found in fresh.items()
            if _is_kept(features, i, j)
        }
        cache.put_many(_MATCHES, packed)
    matches = {pair: known[pair] if pair in known else fresh[pair] for pair in wanted}
    return MatchedCapture(table_of(features, matches), tuple(features), matches)


def table_of(features: Sequence[FrameFeatures], matches: dict[Pair, PairMatches]) -> PairTable:
    """Sum up the matches of every pair."""
    summaries: dict[Pair, PairSummary] = {
        (i, j): summarise_pair(
            features[i].keypoints, features[j].keypoints, found, features[i].bearings, features[j].bearings
        )
        for (i, j), found in matches.items()
    }
    frames = frame_table([one.keypoints for one in features], [one.intrinsics for one in features])
    return pair_table(frames, summaries)


def cached_keypoints(key: str, cache: Cache) -> FrameKeypoints | None:
    """Return keypoints from the cache, without descriptors."""
    packed = cache.get(_KEYPOINTS, key)
    return None if packed is None else unpack_keypoints(packed)


def cache_keypoints(key: str, keypoints: FrameKeypoints, cache: Cache) -> None:
    """Put keypoints into the cache."""
    cache.put(_KEYPOINTS, key, keypoints.packed())


def _match_inputs(features: Sequence[FrameFeatures], index: Sequence[int], track: Track) -> dict[int, MatchInput]:
    """Return what matching needs to know of some frames, their descriptors found again where they are missing."""
    lacking = [i for i in index if not features[i].keypoints.described]
    with ThreadPoolExecutor() as pool:
        again = track(pool.map(lambda i: _descriptors(features[i]), lacking), "Finding keypoints", len(lacking))
        descriptors = dict(zip(lacking, again, strict=True))
    return {i: features[i].match_input(descriptors.get(i, features[i].keypoints.descriptors)) for i in index}


def _descriptors(one: FrameFeatures) -> UInt8[np.ndarray, "point 128"]:
    found = one.keypoints if one.again is None else one.again()
    return found.descriptors if len(found) == len(one.keypoints) else NO_KEYPOINTS.descriptors


def _find(frame: Frame) -> FrameKeypoints:
    try:
        return find_keypoints(frame.image_path, frame.mask_path)
    except (UnreadableImageError, FileNotFoundError):
        return NO_KEYPOINTS


def _key(frame: Frame, cache: Cache) -> str:
    if not frame.image_path.is_file():
        return ""
    mask = frame.mask_path
    digests = [cache.content_digest(path) for path in (frame.image_path, mask) if path is not None and path.is_file()]
    return f"{':'.join(digests)}:{frame.intrinsics!r}"


def _pair_key(first: FrameFeatures, second: FrameFeatures) -> str:
    return "|".join(sorted((first.key, second.key)))


def _is_kept(features: Sequence[FrameFeatures], i: int, j: int) -> bool:
    return bool(features[i].key and features[j].key)


def _packed(matches: PairMatches, swapped: bool) -> np.ndarray:
    """Put matches and their tentative number into one array, for the pair in the order of its keys."""
    indices = matches.indices[:, ::-1] if swapped else matches.indices
    return np.concatenate([[[matches.tentative, 0]], indices]).astype(np.int16)


def _unpacked(array: np.ndarray, swapped: bool) -> PairMatches:
    matches = PairMatches(array[1:], int(array[0, 0]))
    return matches.swapped() if swapped else matches
