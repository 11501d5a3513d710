"""Evidence of a verdict: readable numbers and the most contradicting frame."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from mtcm_nerfstudio.consistency.score import ModelReason
from mtcm_nerfstudio.evidence.frame_numbers import Evidence
from mtcm_nerfstudio.evidence.number_names import PAIR_NUMBERS
from mtcm_nerfstudio.verdicts.nearest_neighbours import NeighbourDifferences


@dataclass(frozen=True, eq=False)
class VerdictEvidence:
    """Neighbour differences and match evidence of a capture."""

    neighbour_differences: NeighbourDifferences
    evidence: Evidence | None

    def numbers(self, i: int) -> dict[str, float]:
        """Return a frame's numbers by name, without those that are not known."""
        found = {
            "image_difference_from_pose_neighbours": float(self.neighbour_differences.image_difference[i]),
            "pose_distance_from_lookalikes": float(self.neighbour_differences.pose_difference[i]),
        }
        if self.evidence is not None:
            found |= _readable_numbers(self.evidence, i)
            found |= {name: float(values[i]) for name, values in self.image_quality.items()}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    @cached_property
    def image_quality(self) -> dict[str, Float[np.ndarray, " frame"]]:
        """Return sharpness and exposure per frame; empty without evidence."""
        return {} if self.evidence is None else sharpness_and_exposure(self.evidence)

    def most_contradicting(self, i: int, reason: ModelReason) -> int | None:
        """Return the frame beside which the fault shows best, None where there is none."""
        if self.evidence is not None and (partner := _most_contradicting_frame(self.evidence, i, reason)) is not None:
            return partner
        contradiction = (
            self.neighbour_differences.farthest_pose[i]
            if reason == "pose"
            else self.neighbour_differences.least_similar_image[i]
        )
        return int(contradiction) if contradiction >= 0 else None


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
    """Return the evidence numbers in readable units."""
    return {
        "most_verified_matches": float(round(math.expm1(5.0 * float(evidence.number("most matches")[i])))),
        "matches_that_obey_pose": float(evidence.number("inlier ratio of supported")[i]),
        "trust_of_pose": float(evidence.number("support")[i]),
        "turn_that_would_help_degrees": 0.2 * math.expm1(3.0 * float(evidence.number("correction angle")[i])),
        "log_sharpness_over_partners": 0.0 - float(evidence.number("blur above pairs")[i]),
        "log_brightness_over_partners": math.log(2.0) * float(evidence.number("gain above partners")[i]),
        "share_not_seen_as_by_partners": float(evidence.number("hidden share")[i]),
    }


def _most_contradicting_frame(evidence: Evidence, i: int, reason: ModelReason) -> int | None:
    """Return the paired frame that contradicts most, weighted by support, by the number that belongs to the reason."""
    compared, numbers = _compared_frames(evidence, i)
    if not len(compared):
        return None
    column = {name: numbers[:, place] for place, name in enumerate(PAIR_NUMBERS)}
    support, matches = column["support of partner"], column["matches"]
    match reason:
        case "pose":
            contradiction = matches * column["tested"] * (1.0 - column["inlier ratio"]) * support
        case "blur":
            contradiction = column["blur difference"] * column["verified"]
        case "exposure":
            contradiction = np.abs(column["light difference"]) * support
        case "occlusion":
            contradiction = matches * support
        case "foreign":
            contradiction = (1.0 - column["verified"]) / (1.0 + column["angle"] + column["baseline"])
    best = int(np.argmax(np.round(contradiction, 6)))
    return int(compared[best]) if contradiction[best] > 0 else None


def _compared_frames(
    evidence: Evidence, i: int
) -> tuple[Int[np.ndarray, " partner"], Float[np.ndarray, "partner number"]]:
    """Return who a frame was compared with, and the numbers as the frame sees them."""
    first, second = (np.flatnonzero(evidence.pairs[:, side] == i) for side in range(2))
    compared = np.concatenate([evidence.pairs[first, 1], evidence.pairs[second, 0]])
    return compared, np.concatenate([evidence.of_pairs[first, 0], evidence.of_pairs[second, 1]])
