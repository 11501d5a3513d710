"""Medians, shares and deviations that several of the numbers are made of."""

import numpy as np
from jaxtyping import Bool, Float

from mtcm_nerfstudio.evidence.keypoints import GLOBAL_STATISTICS, has_known_blur


def with_known_blur(
    statistics: Float[np.ndarray, "frame 10"], readable: Bool[np.ndarray, " frame"]
) -> Float[np.ndarray, "frame 10"]:
    """Give frames without enough keypoints to tell their blur that of the capture's median."""
    blur, keypoints = (GLOBAL_STATISTICS.index(name) for name in ("log blur", "log10 keypoints"))
    known = has_known_blur(statistics[:, keypoints])
    if (known & readable).any():
        statistics[~known, blur] = np.median(statistics[known & readable, blur])
    return statistics


def share_of_matches(
    flags: Bool[np.ndarray, "pair match"], valid: Bool[np.ndarray, "pair match"]
) -> Float[np.ndarray, " pair"]:
    """Return the share of every pair's valid matches that are flagged; 0 where there are none."""
    return (flags & valid).sum(axis=1) / np.maximum(valid.sum(axis=1), 1)


def median_of_matches(
    values: Float[np.ndarray, "pair match"], valid: Bool[np.ndarray, "pair match"]
) -> Float[np.ndarray, " pair"]:
    """Return the (lower) median over the valid matches; 0 where there are none."""
    if not len(values):
        return np.zeros(0)
    ordered = np.sort(np.where(valid, values, np.inf), axis=1)
    middle = np.maximum(valid.sum(axis=1) - 1, 0) // 2
    return np.where(valid.any(axis=1), ordered[np.arange(len(ordered)), middle], 0.0)


def relative_angles(
    first: Float[np.ndarray, "pair 4 4"], second: Float[np.ndarray, "pair 4 4"]
) -> Float[np.ndarray, " pair"]:
    """Return the angle, in radians, between the orientations of two poses."""
    cosine = 0.5 * (np.einsum("pij,pij->p", first[:, :3, :3], second[:, :3, :3]) - 1.0)
    return np.arccos(np.clip(cosine, -1.0, 1.0))


def robust_deviation(
    values: Float[np.ndarray, " frame"], counts: Bool[np.ndarray, " frame"]
) -> Float[np.ndarray, " frame"]:
    """Return robust deviations from the median over the frames that count, softly limited to ±2."""
    if not counts.any():
        return np.zeros_like(values)
    middle = np.median(values[counts])
    typical = 1.4826 * np.median(np.abs(values[counts] - middle))
    return 2.0 * np.tanh((values - middle) / (typical + 0.05 + 0.05 * np.abs(middle)) / 4.0)
