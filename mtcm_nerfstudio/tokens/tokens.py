"""The token of a frame: t = [e | p | s], 394 numbers, with a mask that says which of them are known.

e: image embedding (384). p: camera-to-world pose x, y, z, qw, qx, qy, qz in the frame of reference that the cameras
themselves define. s: timestamp over the capture in [0, 1], mask area as a share of the image, focal length over the
image's diagonal.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from mtcm_nerfstudio.geometry.poses import (
    CanonicalFrame,
    canonical_frame,
    far_away,
    matrix_from_wxyz,
    nearest_rotation,
    with_continuous_signs,
    wxyz_from_matrix,
)

EMBEDDING_DIM = 384
EMBEDDING = slice(0, 384)
POSE = slice(384, 391)
SCALARS = slice(391, 394)
TIMESTAMP, MASK_AREA, FOCAL = 391, 392, 393
TOKEN_DIM = 394

PARTS = ("embedding", "pose", "timestamp", "mask_area", "focal")
"""The parts of a token that are known or missing as a whole."""
PART_OF_ENTRY: Int[np.ndarray, "394"] = np.repeat(np.arange(5), [384, 7, 1, 1, 1])
"""Index into ``PARTS`` of each of the 394 numbers."""


@dataclass(frozen=True, eq=False)
class RawFeatures:
    """What is known of each frame before it is normalised; NaN stands for what is not."""

    embeddings: Float[np.ndarray, "frame 384"]
    """Of the image, with root mean square 1 (see ``tokens.embedders``)."""
    c2w: Float[np.ndarray, "frame 4 4"]
    """OpenGL camera-to-world in the capture's own world."""
    timestamps: Float[np.ndarray, " frame"]
    """Seconds since any moment."""
    mask_areas: Float[np.ndarray, " frame"]
    """Share of the image that the mask marks, in [0, 1]."""
    focals: Float[np.ndarray, " frame"]
    """Focal length over the image's diagonal."""
    file_paths: tuple[str, ...]
    embedder: str
    """The backend that made the embeddings."""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.file_paths)

    @property
    def posed(self) -> Bool[np.ndarray, " frame"]:
        """Which frames have a pose whose every number is finite."""
        return np.isfinite(self.c2w).all(axis=(1, 2))

    def subset(self, index: Int[np.ndarray, " kept"] | Bool[np.ndarray, " frame"]) -> "RawFeatures":
        """Return the features of some frames, in the order of ``index``."""
        names = np.array(self.file_paths, dtype=object)[index]
        return RawFeatures(
            self.embeddings[index],
            self.c2w[index],
            self.timestamps[index],
            self.mask_areas[index],
            self.focals[index],
            tuple(names),
            self.embedder,
        )


@dataclass(frozen=True, eq=False)
class FrameTokens:
    """The tokens of a capture, one row a frame in temporal order."""

    tokens: Float32[np.ndarray, "frame 394"]
    """Zero wherever the frame lacks the part."""
    present: Bool[np.ndarray, "frame 5"]
    """Which of ``PARTS`` each frame has."""
    canonical_frame: CanonicalFrame
    """Turns poses of tokens back into the world's."""
    file_paths: tuple[str, ...]
    embedder: str

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.file_paths)


def assemble_tokens(raw: RawFeatures) -> FrameTokens:
    """Normalise raw features into tokens.

    The capture's frame of reference is found from the finite poses that are not absurdly far out, so neither a
    similarity transform of the world nor a diverged pose changes the others' tokens.
    """
    posed = raw.posed
    near = posed.copy()
    near[posed] = ~far_away(raw.c2w[posed, :3, 3])
    frame_of_reference = canonical_frame(raw.c2w[near].astype(np.float64))
    present = np.stack(
        [
            np.isfinite(raw.embeddings).all(axis=1),
            posed,
            np.isfinite(raw.timestamps) & (_span(raw.timestamps) > 0),
            np.isfinite(raw.mask_areas),
            np.isfinite(raw.focals),
        ],
        axis=1,
    )
    values = np.zeros((len(raw), TOKEN_DIM), dtype=np.float64)
    values[:, EMBEDDING] = raw.embeddings
    values[posed, POSE] = pose7(frame_of_reference.to_capture(raw.c2w[posed].astype(np.float64)))
    values[:, TIMESTAMP] = unit_time(raw.timestamps)
    values[:, MASK_AREA] = raw.mask_areas
    values[:, FOCAL] = raw.focals
    values[~present[:, PART_OF_ENTRY]] = 0.0
    return FrameTokens(values.astype(np.float32), present, frame_of_reference, raw.file_paths, raw.embedder)


def pose7(c2w: Float[np.ndarray, "frame 4 4"]) -> Float[np.ndarray, "frame 7"]:
    """Turn poses in temporal order into x, y, z, qw, qx, qy, qz, with quaternion signs that do not jump."""
    if len(c2w) == 0:
        return np.zeros((0, 7))
    wxyz = with_continuous_signs(wxyz_from_matrix(nearest_rotation(c2w[:, :3, :3])))
    return np.concatenate([c2w[:, :3, 3], wxyz], axis=1)


def c2w_from_pose7(pose: Float[np.ndarray, "frame 7"]) -> Float[np.ndarray, "frame 4 4"]:
    """Undo ``pose7``; the quaternion may have any length but zero."""
    c2w = np.tile(np.eye(4), (len(pose), 1, 1))
    c2w[:, :3, :3] = matrix_from_wxyz(pose[:, 3:].astype(np.float64))
    c2w[:, :3, 3] = pose[:, :3]
    return c2w


def unit_time(timestamps: Float[np.ndarray, " frame"]) -> Float[np.ndarray, " frame"]:
    """Map times to [0, 1] over the capture; NaN stays NaN, and times that are all the same become 0."""
    span = _span(timestamps)
    first = float(np.nanmin(timestamps)) if np.isfinite(timestamps).any() else 0.0
    return (timestamps - first) / (span or 1.0)


def _span(timestamps: Float[np.ndarray, " frame"]) -> float:
    known = timestamps[np.isfinite(timestamps)]
    return float(known.max() - known.min()) if len(known) else 0.0
