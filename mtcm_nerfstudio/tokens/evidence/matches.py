"""Verified matches of two images: do they see the same thing? The claimed poses have no say in it."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

VERSION = "1"
"""Changes whenever the same features give other matches."""
FEWEST = 15
"""Matches that a fundamental matrix needs to count (COLMAP asks for as many)."""

_RATIO = 0.85
"""Largest distance to the best match over that to the second best (Lowe, 2004)."""
_BAND = 1.5
"""Distance from the epipolar line, in pixels at a longer side of 1000, up to which a match obeys a fundamental matrix
(where its parameters are not known)."""
_LEAST_SHARE = 0.25
"""Share of the tentative matches that must obey it."""
_CONFIDENCE, _ROUNDS = 0.999, 2000


@dataclass(frozen=True, eq=False)
class PairMatches:
    """What two images have in common."""

    indices: Int[np.ndarray, "match 2"]
    """Point of the first and of the second image, for each verified match; in the order of the first's points."""
    tentative: int
    """Matches before they were verified."""

    def __len__(self) -> int:
        """Return the number of verified matches."""
        return len(self.indices)


NO_MATCHES = PairMatches(np.zeros((0, 2), dtype=np.int16), 0)


def unit_descriptors(descriptors: UInt8[np.ndarray, "point 128"]) -> Float[Tensor, "point 128"]:
    """Return RootSIFT descriptors (Arandjelović and Zisserman, 2012): unit vectors whose products tell likeness."""
    values = torch.from_numpy(descriptors).float()
    return (values / values.sum(dim=1, keepdim=True).clamp(min=1.0)).sqrt()


def match_pair(
    first: Float[Tensor, "point 128"],
    second: Float[Tensor, "other 128"],
    first_points: Float[np.ndarray, "point 2"],
    second_points: Float[np.ndarray, "other 2"],
) -> PairMatches:
    """Match two images' descriptors and verify the matches by a fundamental matrix (MAGSAC++, Barath et al., 2020).

    Args:
        first: unit descriptors.
        second: unit descriptors.
        first_points: their places in pixels at a longer side of 1000, lens distortion taken out where it is known.
        second_points: the same of the second image.
    """
    a, b = mutual_best(first, second)
    if len(a) < FEWEST:
        return PairMatches(NO_MATCHES.indices, len(a))
    good = _verified(first_points[a].astype(np.float64), second_points[b].astype(np.float64))
    if good.sum() < max(FEWEST, _LEAST_SHARE * len(a)):
        return PairMatches(NO_MATCHES.indices, len(a))
    return PairMatches(np.stack([a[good], b[good]], axis=1).astype(np.int16), len(a))


def _verified(first: Float[np.ndarray, "match 2"], second: Float[np.ndarray, "match 2"]) -> Bool[np.ndarray, " match"]:
    """Tell which matches obey the fundamental matrix that fits them best."""
    for method in (cv2.USAC_MAGSAC, cv2.FM_RANSAC):
        try:
            _, obeys = cv2.findFundamentalMat(first, second, method, _BAND, _CONFIDENCE, _ROUNDS)
        except cv2.error:  # OpenCV's MAGSAC fails now and then where no model fits at all
            continue
        return np.zeros(len(first), dtype=bool) if obeys is None else obeys.ravel().astype(bool)
    return np.zeros(len(first), dtype=bool)


def mutual_best(
    first: Float[Tensor, "point 128"], second: Float[Tensor, "other 128"]
) -> tuple[Int[np.ndarray, " match"], Int[np.ndarray, " match"]]:
    """Return the pairs of points that are each other's best match, and from both sides clearly better than the next."""
    if len(first) < 2 or len(second) < 2:
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    likeness = first @ second.T
    to, clear = _clear_best_of_rows(likeness)
    a = torch.nonzero(clear)[:, 0]
    # Only points that somebody is clearly best for are asked in their turn.
    back, back_clear = _clear_best_of_rows(likeness.T[to[a]].contiguous())
    a = a[back_clear & (back == a)]
    return a.cpu().numpy(), to[a].cpu().numpy()


def coarse_likeness(coarse: Float[Tensor, "image point 128"]) -> Float[np.ndarray, "image image"]:
    """Count, for every two images, the clear mutual matches among their few points of the largest scales.

    Preemptive matching (Wu, 2013): most pairs that would match can be told by these few, at a hundredth of the cost.

    Args:
        coarse: unit descriptors, zeros where an image has fewer points than there is room for.
    """
    count, room = coarse.shape[:2]
    there = coarse.abs().sum(dim=-1) > 0
    every = coarse.flatten(0, 1).T
    here = torch.arange(room, device=coarse.device)[:, None]
    found = np.zeros((count, count))
    for i in range(count):
        likeness = (coarse[i] @ every).unflatten(1, (count, room))  # point image point
        to, forth = _clear_best(likeness)  # point image
        back, back_clear = _clear_best(likeness.permute(2, 1, 0))  # their point, image
        mutual = forth & back_clear.gather(0, to) & (back.gather(0, to) == here)
        mutual &= there[i][:, None] & there.T.gather(0, to)
        found[i] = mutual.sum(dim=0).cpu().numpy()
    return found


def _clear_best(likeness: Float[Tensor, "point *image other"]) -> tuple[Tensor, Tensor]:
    """Return the index of the best match along the last axis, and whether it is clearly better than the second."""
    best, to = likeness.topk(2, dim=-1)
    distance = 2.0 - 2.0 * best
    return to[..., 0], distance[..., 0] < _RATIO**2 * distance[..., 1]


def _clear_best_of_rows(likeness: Float[Tensor, "point other"]) -> tuple[Tensor, Tensor]:
    """Return what ``_clear_best`` does; in NumPy on a CPU, which is several times quicker there."""
    if likeness.device.type != "cpu":
        return _clear_best(likeness)
    values = likeness.numpy()
    rows, to = np.arange(len(values)), values.argmax(axis=1)
    best = values[rows, to]
    values[rows, to] = -np.inf
    second = values.max(axis=1, initial=-np.inf)
    values[rows, to] = best
    return torch.from_numpy(to), torch.from_numpy(2.0 - 2.0 * best < _RATIO**2 * (2.0 - 2.0 * second))
