"""Exclude frames that cannot be trained on: no readable image or no finite pose."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from mtcm_nerfstudio.decisions import UNUSABLE, Reason
from mtcm_nerfstudio.geometry.poses import far_away
from mtcm_nerfstudio.tokens.tokenise import ImageStatus, TokenisedCapture
from mtcm_nerfstudio.tokens.tokens import RawFeatures


@dataclass(frozen=True, eq=False)
class ExcludedFrames:
    """The frames that rules take out, and what is left for the transformer to read."""

    reasons: tuple[Reason | None, ...]
    """Why each frame is out; None for those that the transformer judges."""
    readable: Bool[np.ndarray, " frame"]
    """Frames that the transformer reads. One that has no pose where others have one says nothing about them, so that
    an image which COLMAP could not place changes no score, whether or not the layout lists it."""
    raw: RawFeatures
    """All frames, with poses that are absurdly far out taken for absent, so that they say nothing about others."""


def exclude_unusable_frames(tokenised: TokenisedCapture) -> ExcludedFrames:
    """Find the frames without a readable image or a usable pose.

    A frame without any pose is out only where others have one: a folder of bare photos is judged by its images.
    """
    raw = tokenised.raw
    posed = raw.posed
    far = np.zeros(len(raw), dtype=bool)
    far[posed] = far_away(raw.c2w[posed, :3, 3])
    reasons: tuple[Reason | None, ...] = tuple(
        _reason(status, bool(has_pose), bool(is_far), bool(posed.any()))
        for status, has_pose, is_far in zip(tokenised.image_status, posed, far, strict=True)
    )
    return ExcludedFrames(
        reasons=reasons,
        readable=np.array([reason not in UNUSABLE for reason in reasons]),
        raw=replace(raw, c2w=np.where(far[:, None, None], np.nan, raw.c2w)),
    )


def _reason(status: ImageStatus, has_pose: bool, is_far: bool, any_pose: bool) -> Reason | None:
    if status != "ok":
        return status
    if any_pose and not has_pose:
        return "invalid pose"
    return "pose" if is_far else None
