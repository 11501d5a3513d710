"""Cells whose colour no matched frame shows: found without any pose, and at the ends of a path, too."""

import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
from evidence_walk import matched, with_image
from PIL import Image

from mtcm_nerfstudio.evidence.cell_colours import unmatched_colour
from mtcm_nerfstudio.evidence.content import largest_block
from mtcm_nerfstudio.evidence.keypoints import GRID, LONGER_SIDE
from mtcm_nerfstudio.evidence.match_capture import MatchedCapture
from mtcm_nerfstudio.evidence.pair_table import CELLS, pair_table

BLOCK = (slice(60, 200), slice(90, 240))
"""Rows and columns of the images (320 × 240) that are covered."""


def colours_of(found: MatchedCapture) -> np.ndarray:
    """Compare the colours of a capture's cells, with warnings as errors."""
    table = found.table
    unit = LONGER_SIDE / 320
    pixels = table.bearings[..., :2] / np.where(table.bearings[..., 2:] == 0, 1.0, table.bearings[..., 2:])
    pixels = (pixels.astype(np.float64) * 300.0 + [160.0, 120.0]) * unit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return unmatched_colour(table, pixels, table.valid)


def with_changed(walk, folder, frame: int, change) -> MatchedCapture:
    values = np.asarray(Image.open(walk.frames[frame].image_path)).copy()
    Image.fromarray(change(values)).save(folder / "changed.png")
    frames = list(walk.frames)
    frames[frame] = with_image(frames[frame], folder / "changed.png")
    return matched(frames, walk.cache)


def covered(values: np.ndarray) -> np.ndarray:
    values[BLOCK] = [200, 60, 230]
    return values


@pytest.fixture(scope="module")
def plain(walk) -> np.ndarray:
    return colours_of(walk.found)


def test_frames_that_show_the_same_have_nothing_of_their_own(plain):
    assert plain.min() >= 0.0 and plain.max() <= 1.0
    assert plain.reshape(-1, GRID, GRID)[:, 1:5, 1:7].mean() < 0.25
    assert not plain.reshape(-1, GRID, GRID)[:, 6:].any(), "outside of an image of 4 : 3"


@pytest.mark.parametrize("frame", [0, 5, 11])
def test_a_covered_block_has_colours_of_its_own_at_any_place_of_the_path(walk, plain, tmp_path, frame):
    found = colours_of(with_changed(walk, tmp_path, frame, covered))
    inside = np.zeros((GRID, GRID), dtype=bool)
    inside[2:5, 3:6] = True
    assert found[frame, inside.ravel()].mean() > 0.7
    blocks = largest_block(found)
    assert blocks.argmax() == frame
    others = np.delete(found - plain, frame, axis=0)
    assert np.abs(others).mean() < 0.05


def test_another_exposure_or_some_blur_is_no_colour_of_its_own(walk, plain, tmp_path):
    changes = [
        lambda values: (values * 0.8).astype(np.uint8),
        lambda values: cv2.GaussianBlur(values, (0, 0), 1.0),
    ]
    for change in changes:
        found = colours_of(with_changed(walk, tmp_path, 5, change))
        assert largest_block(found)[5] < largest_block(plain)[5] + 0.15


def test_without_matches_nothing_is_claimed(walk, tmp_path):
    empty = replace(walk.found, table=pair_table(walk.found.table.frames, {}))
    assert not colours_of(empty).any() and colours_of(empty).shape == (12, CELLS)
    black = colours_of(with_changed(walk, tmp_path, 5, np.zeros_like))
    assert not black[5].any()


def test_matches_that_carry_all_cells_out_of_the_other_image_claim_nothing(walk):
    """Without a warning, too."""
    table, rng = walk.found.table, np.random.default_rng(0)
    own = rng.uniform(0, 30, (len(table.pairs), table.valid.shape[1], 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = unmatched_colour(table, np.stack([own, 950 + 1.6 * own], axis=1), np.ones_like(table.valid))
    assert not found.any()


def test_one_frame_that_sees_a_cell_is_not_enough(walk):
    two = matched(walk.frames[4:6], walk.cache)
    assert not colours_of(two).any()


def test_reading_backwards_changes_nothing(walk, plain):
    backwards = np.arange(len(plain))[::-1]
    turned = replace(walk.found, table=walk.found.table.subset(backwards))
    np.testing.assert_allclose(colours_of(turned)[::-1], plain, atol=1e-5)
