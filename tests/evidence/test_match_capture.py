"""From images to a table: computed once, the same from the cache, in any order of the files, whatever is missing."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_walk import QUIET, embeddings_of, in_own_unit, matched, poses_of, readable_of, with_image

from mtcm_nerfstudio.evidence.match_capture import (
    cache_keypoints,
    cached_keypoints,
    find_features,
    match_capture,
    match_features,
    match_pairs,
)
from mtcm_nerfstudio.evidence.pairs import PairSettings
from mtcm_nerfstudio.tokens.cache import Cache


def assert_same_matches(one, other) -> None:
    assert one.matches.keys() == other.matches.keys()
    for pair, found in one.matches.items():
        np.testing.assert_array_equal(other.matches[pair].indices, found.indices)
        assert other.matches[pair].tentative == found.tentative


def test_neighbours_of_one_walk_have_verified_matches(walk):
    assert all(len(walk.found.matches[i, i + 1]) >= 40 for i in range(len(walk.frames) - 1))
    pairs = walk.found.table.pairs
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(walk.found.matches)
    np.testing.assert_array_equal(walk.found.table.verified, [len(walk.found.matches[i, j]) for i, j in pairs.tolist()])


def test_what_is_known_is_not_computed_again(walk, monkeypatch):
    def never(*_args):
        raise AssertionError("computed again")

    monkeypatch.setattr("mtcm_nerfstudio.evidence.match_capture.find_keypoints", never)
    monkeypatch.setattr("mtcm_nerfstudio.evidence.match_capture.match_pair", never)
    again = matched(walk.frames, walk.cache)
    assert_same_matches(walk.found, again)
    np.testing.assert_array_equal(again.table.bearings, walk.found.table.bearings)
    np.testing.assert_array_equal(again.table.blur_difference, walk.found.table.blur_difference)


def test_without_a_cache_nothing_is_kept_and_the_matches_are_nearly_the_same(walk):
    """Without a key there is no fixed order of two images, so that the verification may start the other way round."""
    one, other = matched(walk.frames[3:6]), matched(walk.frames[3:6], walk.cache)
    assert one.matches.keys() == other.matches.keys()
    for pair, found in one.matches.items():
        ours, theirs = ({(int(a), int(b)) for a, b in m.indices} for m in (found, other.matches[pair]))
        assert len(ours & theirs) > 0.9 * len(ours | theirs) and found.tentative == other.matches[pair].tentative
    assert {feature.key for feature in one.features} == {""}


def test_a_new_pair_is_matched_though_the_descriptors_were_not_kept(walk, tmp_path):
    few = [walk.frames[i] for i in (0, 2, 5, 9)]
    cache = Cache(tmp_path / "fresh.sqlite")
    fresh = matched(few, cache)
    find_features(walk.frames, walk.cache, QUIET)
    assert_same_matches(fresh, matched(few, walk.cache))
    assert not find_features(few, cache, QUIET)[0].keypoints.described


def test_read_backwards_the_files_give_the_same_matches(walk, tmp_path):
    few, last = walk.frames[2:7], 4
    here = matched(few, walk.cache)
    for cache in (walk.cache, Cache(tmp_path / "other.sqlite")):
        there = matched(few[::-1], cache)
        assert {(last - j, last - i) for i, j in there.matches} == here.matches.keys()
        for (i, j), found in here.matches.items():
            swapped = there.matches[last - j, last - i].swapped()
            assert set(map(tuple, swapped.indices.tolist())) == set(map(tuple, found.indices.tolist()))


def test_other_intrinsics_or_another_mask_are_another_key(walk, tmp_path):
    frame = walk.frames[0]
    other = replace(frame, intrinsics=replace(frame.intrinsics, fl_x=301.0))
    one, again, two = (find_features([f], walk.cache, QUIET)[0] for f in (frame, frame, other))
    assert one.key == again.key != two.key
    assert find_features([frame], None, QUIET)[0].key == ""


def test_keypoints_survive_the_cache(walk, tmp_path):
    cache = Cache(tmp_path / "cache.sqlite")
    assert cached_keypoints("some", cache) is None
    keypoints = find_features(walk.frames[:1], None, QUIET)[0].keypoints
    cache_keypoints("some", keypoints, cache)
    again = cached_keypoints("some", cache)
    assert again is not None and not again.described
    np.testing.assert_array_equal(again.points, keypoints.points)
    np.testing.assert_array_equal(again.log_blur, keypoints.log_blur)


def test_frames_without_image_or_intrinsics_take_part_as_far_as_they_can(walk, tmp_path):
    frames = list(walk.frames)
    frames[1] = with_image(frames[1], tmp_path / "missing.png")
    frames[4] = replace(frames[4], c2w=None)
    frames[7] = replace(frames[7], intrinsics=None)
    (tmp_path / "broken.png").write_bytes(b"no image")
    frames[9] = with_image(frames[9], tmp_path / "broken.png")
    readable = readable_of(frames) & (np.arange(len(frames)) != 9)
    embeddings = embeddings_of([*frames[:9], walk.frames[9], *frames[10:]])
    c2w = in_own_unit(poses_of(frames))
    found = match_capture(frames, embeddings, c2w, readable, walk.cache, QUIET)
    assert not any(i in pair for pair in found.matches for i in (1, 9))
    assert len(found.features[1].keypoints) == len(found.features[9].keypoints) == 0
    assert len(found.matches[3, 4]) > 40, "without a pose its image still matches"
    without = (found.table.pairs == 7).any(axis=1)
    assert found.table.verified[without].max() > 40 and not found.table.valid[without].any()
    assert found.features[7].bearings is None and np.isnan(found.table.frames.resolution[7])


def test_only_the_pairs_that_are_asked_for_are_matched(walk):
    features = find_features(walk.frames, walk.cache, QUIET)
    found = match_pairs(features, np.array([[0, 3], [2, 5]]), walk.cache, QUIET)
    assert set(found.matches) == {(0, 3), (2, 5)}
    assert len(match_pairs(features, np.zeros((0, 2), dtype=int), walk.cache, QUIET).table.pairs) == 0
    settings = PairSettings(in_time=1, in_pose=0, in_embedding=0)
    c2w = in_own_unit(poses_of(walk.frames))
    every = np.ones(len(c2w), dtype=bool)
    chain = match_features(features, embeddings_of(walk.frames), c2w, every, walk.cache, QUIET, settings)
    assert set(chain.matches) == {(i, i + 1) for i in range(len(c2w) - 1)}


@pytest.mark.parametrize("model", ["EQUIRECTANGULAR", "OPENCV_FISHEYE"])
def test_wide_cameras_are_matched_by_their_bearings_and_others_in_the_plane(walk, model):
    one = find_features(walk.frames[:1], walk.cache, QUIET)[0]
    descriptors = np.zeros((len(one.keypoints), 128), dtype=np.uint8)
    assert one.match_input(descriptors).bearings is None
    wide = replace(one, intrinsics=replace(one.intrinsics, camera_model=model)).match_input(descriptors)
    assert wide.bearings is not None and np.isfinite(wide.resolution)
    unknown = replace(one, intrinsics=replace(one.intrinsics, camera_model="DIVISION")).match_input(descriptors)
    assert unknown.bearings is None
    np.testing.assert_array_equal(unknown.points, one.keypoints.points)
