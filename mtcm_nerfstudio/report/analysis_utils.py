"""Pictures of what the transformer made of a capture: attention, pose and reconstruction deltas, similarity.

Every function takes arrays in the capture's temporal order and returns a figure; ``save_figure`` writes it. ``kept``
(True: the frame stays) and ``inconsistency`` (probability in [0, 1] of not belonging) are optional everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtcm_nerfstudio.geometry.poses import nearest_rotation, rotation_angle_degrees
from mtcm_nerfstudio.report.frame_axis import (
    axis_inches,
    checked,
    inconsistency_panel,
    name_frames,
    name_inches,
    share_frames,
    verdict_legend,
)
from mtcm_nerfstudio.report.panels import (
    ATTENTION,
    ERROR,
    SIMILARITY,
    delta_panel,
    layer_panels,
    matrix_figure,
    strip_figure,
)
from mtcm_nerfstudio.report.plot_style import explanation, headline, new_figure, save_figure

__all__ = [
    "PoseDeltas",
    "plot_attention_heatmap",
    "plot_pose_deltas",
    "plot_recon_deltas",
    "plot_similarity_matrix",
    "pose_deltas",
    "reconstruction_deltas",
    "save_figure",
    "similarity_matrix",
]


@dataclass(frozen=True, eq=False)
class PoseDeltas:
    """How far the transformer's reconstruction of each pose lies from the pose that the capture claims."""

    position: Float[np.ndarray, " n"]
    """Distance of the camera centres, in the units of the poses; NaN where either pose is absent."""
    rotation_degrees: Float[np.ndarray, " n"]
    """Angle between the orientations, in [0, 180]; NaN where either pose is absent."""


def pose_deltas(claimed: Float[np.ndarray, "n 4 4"], reconstructed: Float[np.ndarray, "n 4 4"]) -> PoseDeltas:
    """Compare camera-to-world matrices in the same frame of reference, absent ones NaN.

    In the capture's own frame (``CanonicalFrame.to_capture``) positions are in units of the capture: the median
    distance of its cameras from their middle.
    """
    present = np.isfinite(claimed).all(axis=(1, 2)) & np.isfinite(reconstructed).all(axis=(1, 2))
    position, rotation = np.full((2, len(claimed)), np.nan)
    a, b = claimed[present].astype(np.float64), reconstructed[present].astype(np.float64)
    position[present] = np.linalg.norm(a[:, :3, 3] - b[:, :3, 3], axis=1)
    rotation[present] = rotation_angle_degrees(nearest_rotation(a[:, :3, :3]), nearest_rotation(b[:, :3, :3]))
    return PoseDeltas(position, rotation)


def reconstruction_deltas(
    tokens: Float[np.ndarray, "n d"],
    reconstruction: Float[np.ndarray, "n d"],
    part_of_entry: Int[np.ndarray, " d"],
    present: Bool[np.ndarray, "n p"],
) -> Float[np.ndarray, "n p"]:
    """Return the root mean square difference of each part of each frame's token, NaN where the part is absent.

    Args:
        tokens: standardised tokens.
        reconstruction: what the model made of them, in the same space.
        part_of_entry: to which part each entry of a token belongs (``tokens.PART_OF_ENTRY``).
        present: which parts each frame has.
    """
    squares = (tokens.astype(np.float64) - reconstruction) ** 2
    deltas = [np.sqrt(squares[:, part_of_entry == part].mean(axis=1)) for part in range(present.shape[1])]
    return np.where(present, np.stack(deltas, axis=1), np.nan)


def similarity_matrix(embeddings: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    """Return the cosine similarity of every pair of frames, in [-1, 1].

    A frame with no direction (NaN, infinite or all zero) has NaN in its row and its column.
    """
    vectors = embeddings.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    usable = np.isfinite(lengths) & (lengths > 0)
    unit = np.divide(vectors, lengths, out=np.full_like(vectors, np.nan), where=usable)
    return np.clip(unit @ unit.T, -1.0, 1.0)


def plot_attention_heatmap(
    attention: Float[np.ndarray, "layer head n n"],
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None = None,
    inconsistency: Float[np.ndarray, " n"] | None = None,
    layers: Literal["mean", "each"] | int = "mean",
    title: str = "Attention between frames",
) -> Figure:
    """Draw who attends to whom, averaged over heads, and above it how much attention each frame receives.

    Colours are in multiples of an even share (weight × number of frames), so pictures of captures of different
    lengths compare; they end at the 99th percentile.

    Args:
        attention: weights after the softmax; each row (the frame that attends) sums to 1.
        file_paths: the frames' names.
        kept: which frames stay.
        inconsistency: probability of not belonging.
        layers: the mean over all layers, a panel for each of them, or one layer by number (from 0).
        title: the headline.

    Raises:
        ValueError: no frames, arrays of different lengths, or a layer that the model does not have.
    """
    n = checked(file_paths, kept=kept, inconsistency=inconsistency, attention=attention[0, 0])
    if isinstance(layers, int) and not 0 <= layers < len(attention):
        raise ValueError(f"layers={layers}: the model has {len(attention)} layers, numbered from 0")
    share = attention.mean(axis=1, dtype=np.float64) * n
    if layers == "each":
        return layer_panels(share, file_paths, kept, ATTENTION, title)
    weights = share.mean(axis=0) if layers == "mean" else share[layers]
    panels = {"attention received\n(1 = even share)": weights.mean(axis=0)}
    which = "mean of all layers and heads" if layers == "mean" else f"layer {layers}, mean of its heads"
    explained = f"{which}; a row shows where one frame looks"
    return matrix_figure(weights, panels, file_paths, kept, inconsistency, ATTENTION, (title, explained))


def plot_similarity_matrix(
    similarity: Float[np.ndarray, "n n"],
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None = None,
    inconsistency: Float[np.ndarray, " n"] | None = None,
    title: str = "Similarity of frames",
) -> Figure:
    """Draw the cosine similarity of every pair of frames, and above it each frame's median over the others.

    Raises:
        ValueError: no frames, or arrays of different lengths.
    """
    n = checked(file_paths, kept=kept, inconsistency=inconsistency, similarity=similarity)
    others = np.where(np.eye(n, dtype=bool), np.nan, similarity.astype(np.float64))
    panels = {"median similarity\nto the others": _over_finite(np.median, others)}
    explained = "cosine of the frames' embeddings; grey: no embedding"
    return matrix_figure(similarity, panels, file_paths, kept, inconsistency, SIMILARITY, (title, explained))


def plot_pose_deltas(
    deltas: PoseDeltas,
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None = None,
    inconsistency: Float[np.ndarray, " n"] | None = None,
    title: str = "Claimed pose against the transformer's reconstruction",
) -> Figure:
    """Draw how far each frame's claimed pose is from the reconstructed one: position, rotation, the worst named.

    Raises:
        ValueError: no frames, or arrays of different lengths.
    """
    n = checked(file_paths, kept=kept, inconsistency=inconsistency, deltas=deltas.position)
    rows = 2 + (inconsistency is not None)
    width = axis_inches(n)
    figure = new_figure(width + 2.2, 1.9 * rows + name_inches(file_paths) + 1.2)
    axes: list[Axes] = list(figure.subplots(rows, 1, squeeze=False)[:, 0])
    headline(figure, title)
    delta_panel(axes[0], deltas.position, file_paths, kept, "position\n(units of the capture)", width)
    delta_panel(axes[1], deltas.rotation_degrees, file_paths, kept, "rotation\n(degrees)", width)
    if inconsistency is not None:
        inconsistency_panel(axes[2], inconsistency, kept)
    explanation(axes[0], "difference per frame; 1 unit is the cameras' median distance from their middle")
    absent = "no pose" if np.isnan(deltas.position).any() else ""
    verdict_legend(axes[0], kept, absent)
    name_frames(axes[-1], file_paths, width, kept)
    share_frames(axes, n)
    return figure


def plot_recon_deltas(
    deltas: Float[np.ndarray, "n p"],
    parts: Sequence[str],
    file_paths: Sequence[str],
    kept: Bool[np.ndarray, " n"] | None = None,
    inconsistency: Float[np.ndarray, " n"] | None = None,
    title: str = "Reconstruction error of each part of the token",
) -> Figure:
    """Draw one row of colours for each part of the token, one column for each frame, grey where the part is absent.

    Args:
        deltas: root mean square in standardised units, from ``reconstruction_deltas``.
        parts: their names.
        file_paths: the frames' names.
        kept: which frames stay.
        inconsistency: probability of not belonging.
        title: the headline.

    Raises:
        ValueError: no frames, or arrays of different lengths.
    """
    checked(file_paths, kept=kept, inconsistency=inconsistency, deltas=deltas)
    explained = "darker is further from what the other frames led the model to expect"
    panels = {"mean over parts\n(standardised)": _over_finite(np.mean, deltas)}
    return strip_figure(deltas, parts, panels, file_paths, kept, inconsistency, ERROR, (title, explained))


def _over_finite(statistic: Callable[[np.ndarray], float], rows: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """Return a statistic of each row's finite numbers, NaN where there is none."""
    finite = np.isfinite(rows)
    return np.array([statistic(row[use]) if use.any() else np.nan for row, use in zip(rows, finite, strict=True)])
