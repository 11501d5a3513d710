"""Hidden or changed content is found in its cells, and nothing is claimed where nothing can be known."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_walk import in_own_unit, matched, poses_of, with_image
from PIL import Image

from mtcm_nerfstudio.evidence.content import Content, compare_content, largest_block
from mtcm_nerfstudio.evidence.keypoints import GRID
from mtcm_nerfstudio.evidence.match_capture import MatchedCapture
from mtcm_nerfstudio.evidence.pair_table import CELLS, pair_table
from mtcm_nerfstudio.geometry.epipolar import (
    EPIPOLAR_INLIER_THRESHOLD,
    MatchedBearings,
    epipolar_errors,
    opencv_from_opengl,
    small_motion,
)

MIDDLE = 5
BLOCK = (slice(60, 200), slice(90, 240))
"""Rows and columns of the images (320 × 240) that are covered."""


def content_of(found: MatchedCapture, c2w: np.ndarray) -> Content:
    """Compare contents at the claimed poses."""
    table, camera = found.table, opencv_from_opengl(c2w)
    resolution = np.nan_to_num(table.frames.resolution, nan=1.0)[table.pairs].reshape(-1, 2)
    bearings = MatchedBearings(table.pairs, table.bearings.astype(np.float64), table.valid, resolution)
    inlier = table.valid & (epipolar_errors(bearings, camera) < EPIPOLAR_INLIER_THRESHOLD)
    weight = table.verified / (table.verified + 40.0)
    return compare_content(table, bearings, inlier, camera, weight)


def changed_middle(walk, folder, change) -> MatchedCapture:
    """The walk with the image of the middle frame changed."""
    values = np.asarray(Image.open(walk.frames[MIDDLE].image_path)).copy()
    Image.fromarray(change(values)).save(folder / "changed.png")
    frames = list(walk.frames)
    frames[MIDDLE] = with_image(frames[MIDDLE], folder / "changed.png")
    return matched(frames, walk.cache)


def covered(values: np.ndarray) -> np.ndarray:
    values[BLOCK] = [200, 60, 30]
    return values


def cells_inside() -> np.ndarray:
    """Cells that lie wholly in the covered block; a cell is 40 pixels wide."""
    inside = np.zeros((GRID, GRID), dtype=bool)
    inside[2:5, 3:6] = True
    return inside.ravel()


@pytest.fixture(scope="module")
def poses(walk) -> np.ndarray:
    return in_own_unit(poses_of(walk.frames))


@pytest.fixture(scope="module")
def plain(walk, poses) -> Content:
    return content_of(walk.found, poses)


def test_where_nothing_is_hidden_little_differs(plain):
    assert plain.difference.min() >= 0.0 and plain.difference.max() < 0.6
    well = plain.expected >= 5
    assert well.sum() > 50 and plain.difference[well].mean() < 0.15
    assert np.abs(plain.log_gain).max() < 0.1
    assert plain.pair_difference[plain.pair_points > 20].max() < 0.35


def test_at_the_ends_of_a_path_nothing_is_claimed(plain):
    assert not plain.expected[[0, -1]].any() and not plain.difference[[0, -1]].any()
    assert (plain.expected[2:-2].sum(axis=1) > 50).all()


def test_a_covered_block_is_found_in_its_cells_and_in_no_other_frame(walk, poses, plain, tmp_path):
    content = content_of(changed_middle(walk, tmp_path, covered), poses)
    inside = cells_inside() & (content.expected[MIDDLE] >= 2)
    assert inside.sum() >= 5
    outside = ~cells_inside() & (content.expected[MIDDLE] >= 5)
    assert content.difference[MIDDLE, inside].mean() > 0.6
    # A thumbnail's pixel is five of the image: cells beside the block may hold some of it.
    assert np.median(content.difference[MIDDLE, outside]) < 0.2
    blocks = largest_block(content.difference)
    assert blocks.argmax() == MIDDLE and np.delete(blocks, MIDDLE).max() < 0.5 * blocks[MIDDLE]
    others = np.delete(content.difference - plain.difference, MIDDLE, axis=0)
    assert np.abs(others).mean() < 0.05


def test_nothing_is_claimed_of_what_a_mask_leaves_out(walk, poses, plain, tmp_path):
    """A passer-by whom the mask leaves out does no harm."""
    allowed = np.full((240, 320), 255, dtype=np.uint8)
    allowed[BLOCK] = 0
    Image.fromarray(allowed).save(tmp_path / "mask.png")
    values = covered(np.asarray(Image.open(walk.frames[MIDDLE].image_path)).copy())
    Image.fromarray(values).save(tmp_path / "covered.png")
    frames = list(walk.frames)
    frames[MIDDLE] = replace(with_image(frames[MIDDLE], tmp_path / "covered.png"), mask_path=tmp_path / "mask.png")
    content = content_of(matched(frames, walk.cache), poses)
    assert plain.expected[MIDDLE, cells_inside()].sum() > 20
    assert not content.expected[MIDDLE, cells_inside()].any()
    assert largest_block(content.difference)[MIDDLE] < largest_block(plain.difference).max() + 0.1
    assert largest_block(content.unmatched)[MIDDLE] < largest_block(plain.unmatched).max() + 0.1


def test_pairs_with_the_covered_frame_differ(walk, poses, tmp_path):
    found = changed_middle(walk, tmp_path, covered)
    content = content_of(found, poses)
    own = (found.table.pairs == MIDDLE).any(axis=1)
    known = content.pair_points > 10
    assert (own & known).sum() >= 3
    assert np.median(content.pair_difference[own & known]) > 2 * np.median(content.pair_difference[~own & known])


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("darker", np.full(3, 2.0 ** (-0.5 / 2.2))),
        ("brighter", np.full(3, 2.0 ** (0.5 / 2.2))),
        ("warmer", np.array([1.12, 1.0, 0.88])),
    ],
)
def test_gains_are_taken_out(walk, poses, plain, tmp_path, name, factors):
    """Half a stop, or another white balance, hides nothing."""

    def change(values: np.ndarray) -> np.ndarray:
        return np.clip(values * factors, 0, 255).astype(np.uint8)

    content = content_of(changed_middle(walk, tmp_path, change), poses)
    well = (content.expected >= 5) & (plain.expected >= 5)
    assert content.difference[well].mean() < plain.difference[well].mean() + 0.03
    assert largest_block(content.difference)[MIDDLE] < largest_block(plain.difference).max() + 0.1
    np.testing.assert_allclose(content.log_gain[MIDDLE], np.log(factors), atol=0.06)
    assert np.abs(np.delete(content.log_gain, MIDDLE, axis=0)).max() < 0.06


def test_a_similarity_transform_of_the_world_changes_nothing(walk, poses, plain):
    other = small_motion(np.array([[0.4, -1.0, 0.3, 0.0, 0.0, 0.0]])) @ poses
    other[:, :3, 3] = 7.0 * other[:, :3, 3] + [3.0, -2.0, 9.0]
    content = content_of(walk.found, other)
    np.testing.assert_allclose(content.difference, plain.difference, atol=1e-3)
    np.testing.assert_allclose(content.expected.sum(), plain.expected.sum(), rtol=0.01)


def test_reading_backwards_changes_nothing(walk, poses, plain):
    backwards = np.arange(len(poses))[::-1]
    turned = replace(walk.found, table=walk.found.table.subset(backwards))
    content = content_of(turned, poses[backwards])
    np.testing.assert_allclose(content.difference[::-1], plain.difference, atol=1e-6)
    np.testing.assert_allclose(content.log_gain[::-1], plain.log_gain, atol=1e-4)


def test_matches_that_do_not_obey_the_poses_claim_nothing(walk, poses):
    table, camera = walk.found.table, opencv_from_opengl(poses)
    resolution = table.frames.resolution[table.pairs].reshape(-1, 2)
    bearings = MatchedBearings(table.pairs, table.bearings.astype(np.float64), table.valid, resolution)
    content = compare_content(table, bearings, np.zeros_like(table.valid), camera, np.ones(len(table.pairs)))
    assert not content.expected.any() and not content.difference.any() and not content.pair_points.any()


def test_without_pairs_nothing_is_known(walk, poses):
    empty = replace(walk.found, table=pair_table(walk.found.table.frames, {}))
    content = content_of(empty, poses)
    assert content.difference.shape == (len(poses), CELLS) and not content.difference.any()
    assert not content.log_gain.any() and content.pair_difference.shape == (0,)


def test_the_largest_block_is_that_of_brute_force():
    cells = np.random.default_rng(0).random((3, CELLS))
    grid = cells.reshape(3, GRID, GRID)
    expected = [
        max(grid[i, r : r + 3, c : c + 3].mean() for r in range(GRID - 2) for c in range(GRID - 2)) for i in range(3)
    ]
    np.testing.assert_allclose(largest_block(cells), expected)
    assert largest_block(np.zeros((0, CELLS))).shape == (0,)
