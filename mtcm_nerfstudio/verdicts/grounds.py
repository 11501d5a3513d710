"""The grounds of a verdict: numbers a person can read, and the frame that shows best what is wrong."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from mtcm_nerfstudio.consistency.score import ModelReason
from mtcm_nerfstudio.evidence.number_names import PAIR_NUMBERS
from mtcm_nerfstudio.evidence.numbers import Evidence
from mtcm_nerfstudio.verdicts.neighbours import Neighbourhood


@dataclass(frozen=True, eq=False)
class Grounds:
    """What embeddings and poses of neighbours say, and what matches say where they were looked at."""

    neighbourhood: Neighbourhood
    evidence: Evidence | None

    def numbers(self, i: int) -> dict[str, float]:
        """Return a frame's numbers by name, without those that are not known."""
        found = {
            "image_difference_from_pose_neighbours": float(self.neighbourhood.image_difference[i]),
            "pose_distance_from_lookalikes": float(self.neighbourhood.pose_difference[i]),
        }
        if self.evidence is not None:
            found |= _readable_numbers(self.evidence, i)
            found |= {name: float(values[i]) for name, values in self.of_photographers.items()}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    @cached_property
    def of_photographers(self) -> dict[str, Float[np.ndarray, " frame"]]:
        """Return what photographers look for first, for every frame; nothing where there is no evidence."""
        return {} if self.evidence is None else sharpness_and_exposure(self.evidence)

    def most_at_odds(self, i: int, reason: ModelReason) -> int | None:
        """Return the frame beside which the fault shows best, None where there is none."""
        if self.evidence is not None and (partner := _odd_partner(self.evidence, i, reason)) is not None:
            return partner
        odd = self.neighbourhood.odd_pose[i] if reason == "pose" else self.neighbourhood.odd_image[i]
        return int(odd) if odd >= 0 else None


def sharpness_and_exposure(evidence: Evidence) -> dict[str, Float[np.ndarray, " frame"]]:
    """Return how sharp and how bright every frame shows what the others show.

    Returns:
        ``blur_px``: see ``Evidence``; ``relative_sharpness``: of the sharpest views of the same points, in (0, 1];
        ``exposure_stops``: brightness of the same points above the capture's usual, where the brightness drifts slowly
        above that of frames near by. The last two are NaN where a frame has no matches to compare with.
    """
    blur, read = evidence.number("blur"), evidence.frames.any(axis=1)
    sharpest = np.quantile(blur[read], _SHARPEST) if read.any() else 0.0
    compared = read & (evidence.number("log pair weight") > 0)
    return {
        "blur_px": evidence.blur_px,
        "relative_sharpness": np.where(compared, np.exp(-np.maximum(blur - sharpest, 0.0)), np.nan),
        "exposure_stops": np.where(compared, evidence.number("gain"), np.nan),
    }


_SHARPEST = 0.1
"""Share of a capture's frames that count as its sharpest."""


def _readable_numbers(evidence: Evidence, i: int) -> dict[str, float]:
    """Turn the network's numbers back into such that a person understands."""
    return {
        "most_verified_matches": float(round(math.expm1(5.0 * float(evidence.number("most matches")[i])))),
        "matches_that_obey_pose": float(evidence.number("inlier ratio of supported")[i]),
        "trust_of_pose": float(evidence.number("support")[i]),
        "turn_that_would_help_degrees": 0.2 * math.expm1(3.0 * float(evidence.number("correction angle")[i])),
        "log_sharpness_over_partners": 0.0 - float(evidence.number("blur above pairs")[i]),
        "log_brightness_over_partners": math.log(2.0) * float(evidence.number("gain above partners")[i]),
        "share_not_seen_as_by_partners": float(evidence.number("hidden share")[i]),
    }


def _odd_partner(evidence: Evidence, i: int, reason: ModelReason) -> int | None:
    """Return the partner that contradicts a frame most: one that can be relied upon, by what the reason is about."""
    partners, numbers = _partners(evidence, i)
    if not len(partners):
        return None
    column = {name: numbers[:, place] for place, name in enumerate(PAIR_NUMBERS)}
    support, matches = column["support of partner"], column["matches"]
    match reason:
        case "pose":
            odd = matches * column["tested"] * (1.0 - column["inlier ratio"]) * support
        case "blur":
            odd = column["blur difference"] * column["verified"]
        case "exposure":
            odd = np.abs(column["light difference"]) * support
        case "occlusion":
            odd = matches * support
        case "foreign":
            odd = (1.0 - column["verified"]) / (1.0 + column["angle"] + column["baseline"])
    best = int(np.argmax(np.round(odd, 6)))
    return int(partners[best]) if odd[best] > 0 else None


def _partners(evidence: Evidence, i: int) -> tuple[Int[np.ndarray, " partner"], Float[np.ndarray, "partner number"]]:
    """Return who a frame was compared with, and the numbers as the frame sees them."""
    first, second = (np.flatnonzero(evidence.pairs[:, side] == i) for side in range(2))
    partners = np.concatenate([evidence.pairs[first, 1], evidence.pairs[second, 0]])
    return partners, np.concatenate([evidence.of_pairs[first, 0], evidence.of_pairs[second, 1]])
