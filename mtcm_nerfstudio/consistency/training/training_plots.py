"""Pictures and arrays that show how far a training run has come, one set a capture and epoch (design §7)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from mtcm_nerfstudio.consistency.evidence_encoder import evidence_input
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer
from mtcm_nerfstudio.decisions import Decisions
from mtcm_nerfstudio.evidence.frame_numbers import Evidence
from mtcm_nerfstudio.report.analysis_utils import (
    plot_attention_heatmap,
    plot_pose_deltas,
    plot_recon_deltas,
    pose_deltas,
    reconstruction_deltas,
    save_figure,
    similarity_matrix,
)
from mtcm_nerfstudio.report.visualize_embeddings import plot_tsne, plot_umap
from mtcm_nerfstudio.tokens.tokens import PART_OF_ENTRY, PARTS, POSE, FrameTokens, c2w_from_pose7

_ROUNDS = 4
"""Every frame is hidden once; a quarter of them at a time, near the share that is hidden in training."""
_MOST_FRAMES = 1000
"""Pictures of longer captures show this many frames of them, evenly spaced."""


@dataclass(frozen=True, eq=False)
class ModelOutputs:
    """Model outputs for one capture; NaN for absent poses."""

    attention: Float[np.ndarray, "layer head frame frame"]
    states: Float[np.ndarray, "frame dim"]
    standardised: Float[np.ndarray, "frame 394"]
    """The tokens."""
    reconstruction: Float[np.ndarray, "frame 394"]
    """The tokens, each as the model expects it when it is hidden, in the same space."""
    expected_pose: Float[np.ndarray, "frame 7"]
    """The poses of the reconstruction, in the capture's frame."""


@torch.no_grad()
def read_capture_once(
    model: ConsistencyTransformer, tokens: FrameTokens, evidence: Evidence | None = None
) -> ModelOutputs:
    """Run the model over a capture: once with everything visible, and once for each quarter of the frames hidden."""
    device = next(model.parameters()).device
    values = torch.from_numpy(tokens.tokens).to(device)[None]
    present = torch.from_numpy(tokens.present).to(device)[None]
    padding, nothing = torch.ones_like(present[..., 0]), torch.zeros_like(present)
    given = evidence_input([evidence])
    told = None if given is None else given.to(device)
    reconstruction = torch.zeros_like(values)
    standardised = torch.zeros_like(values)
    for first in range(_ROUNDS):
        masked = nothing.clone()
        masked[:, first::_ROUNDS] = True
        output = model(values, present, padding, masked, told)
        target = model.targets(values, values, present, padding, masked)
        reconstruction[:, first::_ROUNDS] = output.reconstruction[:, first::_ROUNDS]
        standardised[:, first::_ROUNDS] = target[:, first::_ROUNDS]
    return ModelOutputs(
        attention=model.attention_weights(values, present, padding, nothing, told)[:, 0].cpu().numpy(),
        states=model(values, present, padding, nothing, told).states[0].cpu().numpy(),
        standardised=standardised[0].cpu().numpy(),
        reconstruction=reconstruction[0].cpu().numpy(),
        expected_pose=model.standardisation.pose_from(reconstruction)[0].cpu().numpy(),
    )


def write_report(
    model: ConsistencyTransformer,
    tokens: FrameTokens,
    folder: Path,
    epoch: int,
    decisions: Decisions | None = None,
    evidence: Evidence | None = None,
    images: Sequence[Path] | None = None,
) -> None:
    """Write the pictures and arrays of one capture; the maps of embeddings carry no epoch and are replaced.

    Args:
        model: in evaluation mode.
        tokens: of the capture.
        folder: where the files go.
        epoch: the number in their names.
        decisions: what the filter makes of the frames with this model.
        evidence: what matches say of the frames.
        images: where the frames' images lie.
    """
    shown = shown_frames(len(tokens))
    tokens = _subset(tokens, shown)
    frames = None if decisions is None else [decisions.frames[i] for i in shown]
    kept = None if frames is None else np.array([frame.kept for frame in frames])
    inconsistency = None if frames is None else np.array([frame.inconsistency for frame in frames])
    labels = None if frames is None else [frame.label for frame in frames]
    images = None if images is None else [images[i] for i in shown]
    reading = read_capture_once(model, tokens, None if evidence is None else evidence.subset(shown))
    names, verdict = tokens.file_paths, (kept, inconsistency)
    suffix = f"epoch{epoch}"
    attention = plot_attention_heatmap(reading.attention, names, *verdict)
    save_figure(attention, folder / f"attention_heatmap_{suffix}.png")
    deltas = pose_deltas(_poses(tokens), c2w_from_pose7(reading.expected_pose))
    save_figure(plot_pose_deltas(deltas, names, *verdict), folder / f"pose_deltas_{suffix}.png")
    errors = reconstruction_deltas(reading.standardised, reading.reconstruction, PART_OF_ENTRY, tokens.present)
    parts = [part.replace("_", " ") for part in PARTS]
    save_figure(plot_recon_deltas(errors, parts, names, *verdict), folder / f"recon_deltas_{suffix}.png")
    expected = reading.expected_pose.astype(np.float64)
    save_figure(plot_tsne(reading.states, expected, names, *verdict, labels, images), folder / "tsne_embeddings.png")
    umap = plot_umap(reading.states, expected, names, *verdict, labels, images)
    if umap is not None:
        save_figure(umap, folder / "umap_embeddings.png")
    np.save(folder / f"similarity_matrix_{suffix}.npy", similarity_matrix(reading.states).astype(np.float32))
    np.save(folder / f"pose_embeddings_{suffix}.npy", reading.states)


def shown_frames(count: int) -> np.ndarray:
    """Return the indices of at most a thousand frames, evenly spaced."""
    if count <= _MOST_FRAMES:
        return np.arange(count)
    return np.round(np.linspace(0, count - 1, _MOST_FRAMES)).astype(int)


def _subset(tokens: FrameTokens, index: np.ndarray) -> FrameTokens:
    return FrameTokens(
        tokens.tokens[index],
        tokens.present[index],
        tokens.canonical_frame,
        tuple(tokens.file_paths[i] for i in index),
        tokens.embedder,
    )


def _poses(tokens: FrameTokens) -> Float[np.ndarray, "frame 4 4"]:
    """Return the claimed poses in the capture's frame, NaN where there is none."""
    out = np.full((len(tokens), 4, 4), np.nan)
    posed = tokens.present[:, PARTS.index("pose")]
    out[posed] = c2w_from_pose7(tokens.tokens[posed, POSE].astype(np.float64))
    return out
