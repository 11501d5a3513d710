"""The table of pairs: parts of it, other frames in it, mirrored images, and the summary of one pair's matches."""

from dataclasses import fields, replace

import numpy as np
import pytest
from evidence_walk import PINHOLE
from hypothesis import given
from hypothesis import strategies as st

from mtcm_nerfstudio.evidence.keypoints import GLOBAL_STATISTICS, GRID, NO_KEYPOINTS, FrameKeypoints
from mtcm_nerfstudio.evidence.matching import NO_MATCHES, PairMatches
from mtcm_nerfstudio.evidence.pair_table import (
    CELLS,
    SAMPLED,
    PairTable,
    frame_table,
    pair_table,
    resolution_of,
    summarise_pair,
)
from mtcm_nerfstudio.geometry.bearings import bearings_from_pixels
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics

COUNT = 8
OF_PAIRS = [field.name for field in fields(PairTable) if field.name not in ("frames", "pairs")]
DISTORTED = replace(
    PINHOLE, camera_model="OPENCV", cx=480.0, distortion=(("k1", -0.1), ("k2", 0.01), ("p1", 0.002), ("p2", -0.003))
)

PRISM = replace(
    DISTORTED, camera_model="THIN_PRISM_FISHEYE", distortion=(*DISTORTED.distortion, ("sx1", 0.002), ("sy1", -0.001))
)


def keypoints(rng: np.random.Generator, count: int = 90) -> FrameKeypoints:
    """Keypoints at random places of an image of 1000 × 800."""
    return replace(
        NO_KEYPOINTS,
        points=rng.uniform(0, [1000, 800], (count, 2)).astype(np.float32),
        log_blur=rng.normal(size=(count, 2)).astype(np.float32),
        log_light=rng.normal(size=count).astype(np.float32),
        statistics=rng.normal(size=len(GLOBAL_STATISTICS)).astype(np.float32),
        thumbnail=rng.integers(0, 256, (51, 64, 4), dtype=np.uint8),
        width=1000.0,
        height=800.0,
    )


def matches(rng: np.random.Generator, count: int = 40, points: int = 90) -> PairMatches:
    """Some matches between two images, in the order of the first one's keypoints."""
    a, b = np.sort(rng.permutation(points)[:count]), rng.permutation(points)[:count]
    return PairMatches(np.stack([a, b], axis=1).astype(np.int16), count + 10)


def random_table(seed: int = 0, camera: Intrinsics = PINHOLE) -> PairTable:
    rng = np.random.default_rng(seed)
    every = [keypoints(rng) for _ in range(COUNT)]
    bearings = [bearings_from_pixels(one.points.astype(np.float64), camera) for one in every]
    summaries = {
        (i, j): summarise_pair(every[i], every[j], matches(rng), bearings[i], bearings[j])
        for i in range(COUNT)
        for j in range(i + 1, min(i + 4, COUNT))
    }
    return pair_table(frame_table(every, [camera] * COUNT), summaries)


def assert_same(one: PairTable, other: PairTable) -> None:
    for name in ("pairs", *OF_PAIRS):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("statistics", "thumbnails", "size"):
        np.testing.assert_array_equal(getattr(one.frames, name), getattr(other.frames, name), err_msg=name)
    assert one.frames.intrinsics == other.frames.intrinsics


def row_of(table: PairTable, i: int, j: int) -> int:
    return int(np.flatnonzero((table.pairs == [i, j]).all(axis=1))[0])


@given(st.permutations(range(COUNT)), st.integers(2, COUNT), st.data())
def test_a_subset_of_a_subset_is_a_subset(order, size, data):
    table, first = random_table(), np.array(order[:size])
    second = np.array(data.draw(st.permutations(range(size)))[: max(1, size - 1)])
    assert_same(table.subset(first).subset(second), table.subset(first[second]))


@given(st.permutations(range(COUNT)))
def test_shuffled_and_put_back_nothing_has_changed(order):
    table, order = random_table(), np.array(order)
    assert_same(table.subset(order).subset(np.argsort(order)), table)


def test_pairs_whose_order_changes_have_their_ends_swapped_and_their_signs_turned():
    table = random_table()
    backwards = table.subset(np.arange(COUNT)[::-1])
    here, there = row_of(table, 1, 3), row_of(backwards, COUNT - 4, COUNT - 2)
    np.testing.assert_array_equal(backwards.bearings[there], table.bearings[here][::-1])
    np.testing.assert_array_equal(backwards.keypoints[there], table.keypoints[here][::-1])
    np.testing.assert_array_equal(backwards.covered[there], table.covered[here][::-1])
    np.testing.assert_allclose(backwards.blur_difference[there], -table.blur_difference[here])
    assert backwards.light_difference[there] == -table.light_difference[here]
    assert backwards.verified[there] == table.verified[here] and backwards.tentative[there] == table.tentative[here]
    assert (backwards.pairs[:, 0] < backwards.pairs[:, 1]).all()
    np.testing.assert_array_equal(backwards.pairs, backwards.pairs[np.lexsort(backwards.pairs.T[::-1])])


def test_flags_take_the_same_frames_as_places():
    table, flags = random_table(), np.arange(COUNT) % 3 != 0
    assert_same(table.subset(flags), table.subset(np.flatnonzero(flags)))


def test_rows_of_known_pairs_are_theirs_and_those_of_unknown_pairs_are_empty():
    table = random_table()
    asked = np.array([[0, 1], [0, 7], [2, 4], [3, 7]])
    found = table.rows(asked)
    np.testing.assert_array_equal(found.pairs, asked)
    for place, pair in ((0, (0, 1)), (2, (2, 4))):
        for name in OF_PAIRS:
            np.testing.assert_array_equal(getattr(found, name)[place], getattr(table, name)[row_of(table, *pair)])
    assert found.verified[[1, 3]].tolist() == [0, 0] and not found.covered[[1, 3]].any()
    assert (found.keypoints[[1, 3]] == -1).all() and not found.valid[[1, 3]].any()
    assert_same(table.rows(table.pairs), table)
    empty = pair_table(table.frames, {}).rows(asked)
    assert not empty.valid.any() and (empty.keypoints == -1).all() and not empty.verified.any()
    assert len(table.rows(asked[:0]).pairs) == 0


def test_with_frames_everything_about_them_comes_from_the_other_table():
    table, other, changed = random_table(0), random_table(1), np.array([2, 5])
    mixed = table.with_frames(other, changed)
    np.testing.assert_array_equal(mixed.pairs, table.pairs)
    touched = np.isin(mixed.pairs, changed).any(axis=1)
    for name in OF_PAIRS:
        np.testing.assert_array_equal(getattr(mixed, name)[touched], getattr(other, name)[touched])
        np.testing.assert_array_equal(getattr(mixed, name)[~touched], getattr(table, name)[~touched])
    assert_same(table.with_frames(table, changed), table)
    fewer = table.with_frames(other.subset(np.arange(COUNT)).rows(np.array([[1, 2]])), changed)
    assert np.isin(fewer.pairs, changed).any(axis=1).sum() == 1, "pairs that the other table lacks are gone"


@pytest.mark.parametrize("camera", [PINHOLE, DISTORTED])
def test_mirrored_twice_nothing_has_changed(camera):
    table = random_table(camera=camera)
    assert_same(table.mirrored().mirrored(), table)
    np.testing.assert_array_equal(table.mirrored().verified, table.verified)


@pytest.mark.parametrize("camera", [DISTORTED, PRISM])
def test_a_mirrored_image_has_the_mirrored_bearings_and_thumbnail(camera):
    table = random_table(camera=camera)
    mirrored = table.mirrored()
    np.testing.assert_array_equal(mirrored.frames.thumbnails[0, :, :64], table.frames.thumbnails[0, :, :64][:, ::-1])
    pixels = np.random.default_rng(0).uniform(100, 700, (30, 2))
    here = bearings_from_pixels(pixels, camera)
    there = bearings_from_pixels([1000, 0] + pixels * [-1, 1], mirrored.frames.intrinsics[0])
    np.testing.assert_allclose(there, here * [-1, 1, 1], atol=2e-5)


def test_a_narrow_thumbnail_is_mirrored_in_its_own_width():
    one = replace(NO_KEYPOINTS, thumbnail=np.arange(64 * 48 * 4, dtype=np.uint8).reshape(64, 48, 4), width=750.0)
    table = pair_table(frame_table([one, NO_KEYPOINTS], [None, None]), {})
    np.testing.assert_array_equal(table.mirrored().frames.thumbnails[0, :, :48], one.thumbnail[:, ::-1])
    assert table.frames.size.tolist() == [[48, 64], [0, 0]] and not table.frames.thumbnails[1].any()
    assert np.isnan(table.frames.statistics[1]).all() and np.isnan(table.frames.resolution).all()


def test_a_summary_holds_what_two_frames_have_in_common():
    rng = np.random.default_rng(0)
    first, second = keypoints(rng), keypoints(rng)
    found = matches(rng)
    bearings = [bearings_from_pixels(one.points.astype(np.float64), PINHOLE) for one in (first, second)]
    summary = summarise_pair(first, second, found, *bearings)
    a, b = found.indices.T
    assert (summary.verified, summary.tentative) == (40, 50)
    np.testing.assert_allclose(summary.blur_difference, np.median(first.log_blur[a] - second.log_blur[b], axis=0))
    assert summary.light_difference == pytest.approx(np.median(first.log_light[a] - second.log_light[b]))
    taken = summary.keypoints[0] >= 0
    assert taken.sum() == 40 and (summary.keypoints[:, ~taken] == -1).all() and not summary.bearings[:, ~taken].any()
    np.testing.assert_allclose(summary.bearings[1, taken], bearings[1][summary.keypoints[1, taken]], atol=1e-6)
    cell = (first.points[a] * GRID / 1000).astype(int)
    assert set(np.flatnonzero(summary.covered[0])) == set((cell[:, 1] * GRID + cell[:, 0]).tolist())
    turned = summarise_pair(second, first, found.swapped(), *bearings[::-1])
    np.testing.assert_allclose(turned.blur_difference, -summary.blur_difference)
    np.testing.assert_array_equal(turned.covered, summary.covered[::-1])


def test_of_many_matches_some_of_every_scale_are_sampled():
    rng = np.random.default_rng(0)
    first, second = keypoints(rng, 500), keypoints(rng, 500)
    found = matches(rng, 400, 500)
    bearings = [bearings_from_pixels(one.points.astype(np.float64), PINHOLE) for one in (first, second)]
    sampled = summarise_pair(first, second, found, *bearings).keypoints
    assert (sampled >= 0).sum() == 2 * SAMPLED and len(set(sampled[0].tolist())) == SAMPLED
    assert sampled[0].min() < 20 and sampled[0].max() > 480


def test_without_bearings_matches_or_light_there_is_no_geometry_and_no_exception():
    rng = np.random.default_rng(0)
    first, second = keypoints(rng), replace(keypoints(rng), log_light=np.full(90, np.nan, dtype=np.float32))
    summary = summarise_pair(first, second, matches(rng), None, None)
    assert summary.verified == 40 and (summary.keypoints == -1).all() and np.isnan(summary.light_difference)
    nothing = summarise_pair(NO_KEYPOINTS, NO_KEYPOINTS, NO_MATCHES, None, None)
    assert nothing.verified == 0 and not nothing.covered.any() and nothing.covered.shape == (2, CELLS)
    assert resolution_of(replace(PINHOLE, width=2000, height=1600)) == 400.0 and np.isnan(resolution_of(None))
