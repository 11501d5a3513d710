"""Infill poses between and after frames by the transformer (masked reconstruction, next-pose head)."""

import numpy as np
import torch
from jaxtyping import Float, Int

from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer
from mtcm_nerfstudio.tokens.tokens import FrameTokens, RawFeatures, assemble_tokens, c2w_from_pose7, pose7

_JUMP = 1.7
"""A step this many times the usual one leaves room for a frame between."""
_MOST_BETWEEN = 8
"""Hidden frames in one gap: more in a row than masking hides in training."""


def infill_poses(model: ConsistencyTransformer, raw: RawFeatures, window: int) -> Float[np.ndarray, "n 4 4"]:
    """Return poses in the capture's world for frames that the transformer thinks missing.

    Tokens of which everything is hidden are put in where the path jumps, and its reconstruction says where they stand;
    its next-pose head says where the capture goes on, and, read backwards, where it came from.

    Args:
        model: the transformer.
        raw: of frames that are believed, all with a pose, in temporal order.
        window: longest sequence that the transformer is shown.
    """
    if len(raw) < 3:
        return np.zeros((0, 4, 4))
    found = [
        _next_pose(model, raw.subset(np.arange(len(raw))[-window:])),
        _next_pose(model, raw.subset(np.arange(len(raw))[:window][::-1])),
    ]
    for start in range(0, len(raw), window // 2):
        part = raw.subset(np.arange(start, min(start + window // 2, len(raw))))
        if len(part) > 2:
            found.append(_between(model, part, window - len(part)))
    return np.concatenate(found)


def _next_pose(model: ConsistencyTransformer, raw: RawFeatures) -> Float[np.ndarray, "1 4 4"]:
    tokens = assemble_tokens(raw)
    hidden = np.zeros(len(raw), dtype=bool)
    pose = _read(model, tokens, hidden).next_pose[0]
    return tokens.canonical_frame.to_world(c2w_from_pose7(pose[None].double().cpu().numpy()))


def _between(model: ConsistencyTransformer, raw: RawFeatures, most: int) -> Float[np.ndarray, "n 4 4"]:
    tokens = assemble_tokens(raw)
    rows = _with_gaps(pose7(tokens.canonical_frame.to_capture(raw.c2w.astype(np.float64))), most)
    hidden = rows < 0
    if not hidden.any():
        return np.zeros((0, 4, 4))
    longer = FrameTokens(
        tokens.tokens[np.maximum(rows, 0)],
        tokens.present[np.maximum(rows, 0)],
        tokens.canonical_frame,
        tuple(tokens.file_paths[max(row, 0)] for row in rows),
        tokens.embedder,
    )
    reconstruction = _read(model, longer, hidden).reconstruction[0, torch.from_numpy(hidden)]
    pose = model.standardisation.pose_from(reconstruction).double().cpu().numpy()
    return tokens.canonical_frame.to_world(c2w_from_pose7(pose))


def _with_gaps(pose: Float[np.ndarray, "n 7"], most: int) -> Int[np.ndarray, " m"]:
    """Return the row of each frame, with as many −1 in every jump of the path as frames would fit, ``most`` in all."""
    turn = 2.0 * np.arccos(np.clip(np.abs((pose[1:, 3:] * pose[:-1, 3:]).sum(axis=1)), 0.0, 1.0))
    step = np.hypot(np.linalg.norm(np.diff(pose[:, :3], axis=0), axis=1), turn)
    usual = max(float(np.median(step)), 1e-9)
    rows = [0]
    for i, size in enumerate(step):
        room = min(round(float(size) / usual) - 1, _MOST_BETWEEN, most) if size > _JUMP * usual else 0
        rows += [-1] * room + [i + 1]
        most -= room
    return np.array(rows)


@torch.inference_mode()
def _read(model: ConsistencyTransformer, tokens: FrameTokens, hidden: np.ndarray):
    device = next(model.parameters()).device
    present = torch.from_numpy(tokens.present).to(device)[None]
    masked = torch.from_numpy(hidden).to(device)[None, :, None].expand_as(present)
    return model(torch.from_numpy(tokens.tokens).to(device)[None], present, torch.ones_like(present[..., 0]), masked)
