"""The transformer imagines frames where frames are missing."""

import numpy as np
import pytest
from tiny_capture import orbit

from mtcm_nerfstudio.consistency.checkpoint import load_checkpoint
from mtcm_nerfstudio.consistency.infill_poses import infill_poses
from mtcm_nerfstudio.tokens.tokens import RawFeatures


@pytest.fixture(scope="module")
def model():
    return load_checkpoint(None)[0]


def raw(c2w) -> RawFeatures:
    count = len(c2w)
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(1, 384)) + 0.1 * rng.normal(size=(count, 384))
    nothing, focal = np.full(count, np.nan), np.full(count, 0.9)
    names = tuple(f"{i}.jpg" for i in range(count))
    return RawFeatures(embeddings, c2w, np.arange(count, dtype=float), nothing, focal, names, "efficientnet-lite0")


def test_they_lie_in_the_gap_and_at_both_ends(model):
    c2w = orbit(24)
    rest = np.delete(c2w, slice(10, 13), axis=0)
    found = infill_poses(model, raw(rest), 128)
    assert len(found) == 2 + 3
    axes = found[:, :3, :3]
    np.testing.assert_allclose(axes @ axes.transpose(0, 2, 1), np.tile(np.eye(3), (5, 1, 1)), atol=1e-5)
    step = np.linalg.norm(c2w[1, :3, 3] - c2w[0, :3, 3])
    of_gap = np.linalg.norm(found[2:, None, :3, 3] - c2w[None, 10:13, :3, 3], axis=2).min(axis=1)
    assert of_gap.max() < 2.0 * step
    assert np.linalg.norm(found[0, :3, 3] - c2w[-1, :3, 3]) < 6.0 * step
    assert np.linalg.norm(found[1, :3, 3] - c2w[0, :3, 3]) < 6.0 * step


def test_long_captures_are_read_in_pieces_and_short_ones_not_at_all(model):
    c2w = np.delete(orbit(60), slice(20, 22), axis=0)
    assert len(infill_poses(model, raw(c2w), 32)) == 2 + 2
    assert infill_poses(model, raw(orbit(2)), 128).shape == (0, 4, 4)


def test_moving_the_world_moves_what_is_imagined(model):
    c2w = np.delete(orbit(24), slice(10, 13), axis=0)
    moved = c2w.copy()
    moved[:, :3, 3] = 4.0 * moved[:, :3, 3] + [1.0, -2.0, 3.0]
    there = infill_poses(model, raw(moved), 128)
    expected = 4.0 * infill_poses(model, raw(c2w), 128)[:, :3, 3] + [1.0, -2.0, 3.0]
    np.testing.assert_allclose(there[:, :3, 3], expected, atol=1e-3)
