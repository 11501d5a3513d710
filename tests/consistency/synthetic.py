"""Captures made of numbers alone: a walk on an arc, embeddings that change smoothly with the pose."""

from dataclasses import replace

import numpy as np
import torch
from evidence_walk import PINHOLE, matched_points

from mtcm_nerfstudio.capture.corruptions import IMAGE_FAULTS, Fault, FaultKind
from mtcm_nerfstudio.consistency.evidence_encoder import EvidenceInput
from mtcm_nerfstudio.consistency.training.corrupted_captures import CorruptedCapture
from mtcm_nerfstudio.consistency.training.training_capture import TrainingCapture
from mtcm_nerfstudio.consistency.transformer_model import ModelConfig
from mtcm_nerfstudio.evidence.keypoints import NO_KEYPOINTS
from mtcm_nerfstudio.evidence.matching import NO_MATCHES
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS, PAIR_NUMBERS
from mtcm_nerfstudio.evidence.pair_table import SAMPLED, PairTable, frame_table, pair_table, summarise_pair
from mtcm_nerfstudio.tokens.tokens import EMBEDDING_DIM, PARTS, RawFeatures

SMALL = ModelConfig(d_model=32, layers=2, heads=4, feed_forward=32, dropout=0.1, neighbours=2)


def walk(frames: int, seed: int = 0) -> np.ndarray:
    """Poses on an arc, looking at its centre, with a little shake."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0.0, 4.0, frames) + rng.normal(0, 0.01, frames)
    back = np.stack([np.cos(angle), np.sin(angle), 0.2 + 0.1 * np.sin(3 * angle)], axis=1)
    z = back / np.linalg.norm(back, axis=1, keepdims=True)
    x = np.cross([0.0, 0.0, 1.0], z)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    c2w = np.tile(np.eye(4), (frames, 1, 1))
    c2w[:, :3, 0], c2w[:, :3, 1], c2w[:, :3, 2] = x, np.cross(z, x), z
    c2w[:, :3, 3] = 3.0 * back
    return c2w


def raw_features(frames: int, seed: int = 0) -> RawFeatures:
    rng = np.random.default_rng(seed)
    c2w = walk(frames, seed)
    content = c2w[:, :3, 3] @ rng.normal(size=(3, EMBEDDING_DIM)) / 3 + rng.normal(size=EMBEDDING_DIM)
    return RawFeatures(
        embeddings=content + 0.05 * rng.normal(size=content.shape),
        c2w=c2w,
        timestamps=np.arange(frames) * 0.5,
        mask_areas=0.3 + 0.02 * rng.normal(size=frames),
        focals=np.full(frames, 0.8),
        file_paths=tuple(f"images/{i}.jpg" for i in range(frames)),
        embedder="efficientnet-lite0",
    )


def capture(name: str = "walk", frames: int = 24, seed: int = 0) -> TrainingCapture:
    """A capture with the copy as it came and one with corrupted images for each fault."""
    raw = raw_features(frames, seed)
    rng = np.random.default_rng(seed + 1)
    table = pair_table_of(raw.c2w, seed)
    copies = [CorruptedCapture(raw.embeddings, table, ())]
    kinds: tuple[FaultKind, ...] = (*IMAGE_FAULTS, "foreign")
    for kind in kinds:
        faults = tuple(Fault(i, kind, 0.5, seed) for i in range(1, frames, 4))
        embeddings = raw.embeddings.copy()
        embeddings[[fault.frame for fault in faults]] += 2.0 * rng.normal(size=EMBEDDING_DIM)
        copies.append(CorruptedCapture(embeddings, table, faults))
    return TrainingCapture(name, raw, np.ones(frames, dtype=bool), copies=tuple(copies))


def pair_table_of(c2w: np.ndarray, seed: int = 0, reach: int = 4, noise_px: float = 0.3) -> PairTable:
    """What frames within ``reach`` of each other have in common: random points about the world's origin."""
    frames = len(c2w)
    apart = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames)))
    pairs = np.argwhere(np.triu(apart <= reach, 1))
    matched = matched_points(c2w, pairs, SAMPLED, noise_px=noise_px, seed=seed)
    nothing = summarise_pair(NO_KEYPOINTS, NO_KEYPOINTS, NO_MATCHES, None, None)
    keypoints = np.tile(np.arange(SAMPLED, dtype=np.int16), (2, 1))
    summaries = {
        (int(i), int(j)): replace(
            nothing, bearings=bearings.astype(np.float32), keypoints=keypoints, verified=60, tentative=70
        )
        for (i, j), bearings in zip(pairs, matched.bearings, strict=True)
    }
    return pair_table(frame_table([NO_KEYPOINTS] * frames, [PINHOLE] * frames), summaries)


def random_inputs(captures: int = 2, frames: int = 7, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Tokens, present, padding (all real) and masked, with parts absent and hidden here and there."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(captures, frames, 394, generator=generator)
    present = torch.rand(captures, frames, len(PARTS), generator=generator) > 0.15
    masked = torch.rand(captures, frames, len(PARTS), generator=generator) < 0.2
    padding = torch.ones(captures, frames, dtype=torch.bool)
    return tokens, present, padding, masked


def random_evidence(captures: int = 2, frames: int = 7, seed: int = 0) -> EvidenceInput:
    """Evidence about all frames and about half of the pairs."""
    generator = torch.Generator().manual_seed(seed)
    return EvidenceInput(
        torch.randn(captures, frames, len(FRAME_NUMBERS), generator=generator),
        torch.ones(captures, frames, dtype=torch.bool),
        torch.randn(captures, frames, frames, len(PAIR_NUMBERS), generator=generator),
        torch.rand(captures, frames, frames, generator=generator) < 0.5,
    )
