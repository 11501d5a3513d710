"""Names of the numbers about each frame and each pair, in the order in which they are stored."""

import numpy as np
from jaxtyping import Float

from mtcm_nerfstudio.evidence.keypoints import GLOBAL_STATISTICS

_MATCHING = (
    "log pair weight", "verified share", "most matches", "third most matches", "third most above partners",
    "inliers of tentative", "verified share of near poses", "verified share in time", "coverage", "coverage above",
    "embedding outlier", "embedding outlier of nearest", "unmatched outlier",
)  # fmt: skip
_GEOMETRY = (
    "inlier ratio", "inlier ratio of supported", "best inlier ratio", "log median error", "support", "conflict",
    "cluster share", "component share", "correction angle", "correction shift", "inlier ratio when moved",
    "gain of moving", "log tested weight",
)  # fmt: skip
_BLUR = (
    "blur", "blur above pairs", "blur above sharpest views", "blur above in time", "directional blur",
    "log sharpness above in time", "log detail above in time", "log detail above sharpest in time",
    "log10 keypoints above in time", "keypoint scale above in time",
)  # fmt: skip
_EXPOSURE = ("gain", "gain above partners", "unexplained gain", "chroma", "chroma above partners")
_CONTENT = (
    "content difference", "hidden share", "hidden block", "expected cells", "content support", "content conflict",
    "content cluster share", "unmatched colour share", "unmatched colour block", "unmatched colour block above",
    "unmatched colour cells",
)  # fmt: skip
_OWN = (*(f"{name} above partners" for name in GLOBAL_STATISTICS), *GLOBAL_STATISTICS)
_BASE = (*_MATCHING, *_GEOMETRY, *_BLUR, *_EXPOSURE, *_CONTENT, *_OWN)
FRAME_NUMBERS: tuple[str, ...] = (*_BASE, *(f"{name} in this capture" for name in _BASE))
"""What ``Evidence.frames`` holds: numbers, then the same as robust deviations from the capture's median."""
PAIR_NUMBERS: tuple[str, ...] = (
    "matches", "verified", "tested", "inlier ratio", "log median error", "inlier ratio when moved",
    "inlier ratio when partner moved", "angle", "baseline", "blur difference", "light difference", "covered",
    "partner covered", "support of partner", "own support", "keypoints above partner", "same cluster",
    "content difference", "content known",
)  # fmt: skip
"""What ``Evidence.of_pairs`` holds."""

_OF_POSES = (*_GEOMETRY, *_CONTENT, "verified share of near poses", "chroma", "chroma above partners")
_ONE_WITHOUT_POSES = ("cluster share", "component share", "content cluster share")
"""Where no pose is known every frame is a cluster of its own."""


def numbers_without_poses(frames: Float[np.ndarray, "frame frame_number"]) -> Float[np.ndarray, "frame frame_number"]:
    """Return the numbers that frames would have (but for which pairs are selected) if no pose were known."""
    out = frames.copy()
    for name in _OF_POSES:
        out[:, FRAME_NUMBERS.index(name)] = 1.0 if name in _ONE_WITHOUT_POSES else 0.0
        out[:, FRAME_NUMBERS.index(f"{name} in this capture")] = 0.0
    return out
