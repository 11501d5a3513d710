"""How others choose a few views out of many."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from benchmarks.detection.quality import laplacian_variance
from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.images import read_rgb
from mtcm_nerfstudio.filter_settings import FilterSettings
from mtcm_nerfstudio.filtering import Filtered, filter_capture
from mtcm_nerfstudio.geometry.poses import geometric_median
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.views.facility_location import facility_location, view_points, view_quality

Chooser = Callable[[Capture, Int[np.ndarray, " n"], int, int], Int[np.ndarray, " k"]]
"""From a capture, the frames that may be chosen, how many, and a seed, to the chosen frames."""


def choosers(checkpoint: Path | None) -> dict[str, Chooser]:
    """Return every way of choosing by name; MTCM's comes first.

    Args:
        checkpoint: of MTCM's transformer; None is the shipped one.
    """

    @cache
    def filtered_of(capture: Capture) -> Filtered:
        return filter_capture(capture, FilterSettings(checkpoint=checkpoint, suggest=0), Cache(), progress=False)

    def mtcm(capture: Capture, frames: Int[np.ndarray, " n"], count: int, seed: int) -> Int[np.ndarray, " k"]:
        filtered = filtered_of(capture)
        decided = filtered.decisions.frames
        kept = np.array([i for i in frames if decided[i].kept])
        c2w = np.stack([frame.c2w for frame in capture.frames if frame.c2w is not None])
        inconsistency = np.array([frame.inconsistency for frame in decided])
        quality = view_quality(inconsistency, tuple(frame.evidence for frame in decided), c2w)
        return kept[facility_location(view_points(c2w, filtered.states)[kept], quality[kept], most=count).chosen]

    return {"MTCM": mtcm, "random": _random, "stride": _stride, "farthest view": _farthest, "sharpest": _sharpest}


def _random(capture: Capture, frames: Int[np.ndarray, " n"], count: int, seed: int) -> Int[np.ndarray, " k"]:
    return np.random.default_rng([2, seed]).choice(frames, count, replace=False)


def _stride(capture: Capture, frames: Int[np.ndarray, " n"], count: int, seed: int) -> Int[np.ndarray, " k"]:
    """Return frames evenly spread over the order, beginning somewhere in the first step."""
    step = len(frames) / count
    start = np.random.default_rng([3, seed]).uniform(0.0, step)
    return frames[(start + step * np.arange(count)).astype(int)]


def _farthest(capture: Capture, frames: Int[np.ndarray, " n"], count: int, seed: int) -> Int[np.ndarray, " k"]:
    """Return frames each of which is the farthest from those before it, as NeRF Director's FVS chooses.

    Distance is that of the places over the cameras' spread, plus the angle between lines of sight in radians.
    """
    c2w = np.stack([capture.frames[i].c2w for i in frames if capture.frames[i].c2w is not None])
    middle = geometric_median(c2w[:, :3, 3])
    spread = np.median(np.linalg.norm(c2w[:, :3, 3] - middle, axis=1))

    def far(i: int) -> Float[np.ndarray, " n"]:
        shift = np.linalg.norm(c2w[:, :3, 3] - c2w[i, :3, 3], axis=1) / spread
        return shift + np.arccos(np.clip(c2w[:, :3, 2] @ c2w[i, :3, 2], -1.0, 1.0))

    chosen = [int(np.random.default_rng([4, seed]).integers(len(frames)))]
    nearest = far(chosen[0])
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, far(chosen[-1]))
    return frames[chosen]


def _sharpest(capture: Capture, frames: Int[np.ndarray, " n"], count: int, seed: int) -> Int[np.ndarray, " k"]:
    sharp = np.array([laplacian_variance(read_rgb(capture.frames[i].image_path)) for i in frames])
    return frames[np.argsort(-sharp, kind="stable")[:count]]
