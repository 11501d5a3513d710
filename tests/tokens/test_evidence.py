"""Pair evidence on real pictures of a textured corner, and its parts on numbers."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from evidence_walk import LENS, frames_of, matched, poses_of, seen_points, with_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_capture import orbit

from mtcm_nerfstudio.capture.capture import Frame, Intrinsics
from mtcm_nerfstudio.capture.faults import turned_and_shifted
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.evidence import collect
from mtcm_nerfstudio.tokens.evidence.assess import FRAME_NUMBERS, PAIR_NUMBERS, Evidence, assess
from mtcm_nerfstudio.tokens.evidence.features import extract_features, unpacked
from mtcm_nerfstudio.tokens.evidence.geometry import (
    opencv_from_opengl,
    own_corrections,
    residuals,
    residuals_when_moved,
    small_motion,
)
from mtcm_nerfstudio.tokens.evidence.graph import Graph, potentials, sides
from mtcm_nerfstudio.tokens.evidence.partners import choose_partners, pose_distances
from mtcm_nerfstudio.tokens.evidence.rays import focal_px, rays_of

COUNT = 10


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """Frames of the corner, their cache, and what they have in common."""
    folder = tmp_path_factory.mktemp("corner")
    cache = Cache(folder / "cache.sqlite")
    frames = frames_of(folder, COUNT)
    return frames, cache, matched(frames, cache)


def weigh(bank, c2w: np.ndarray) -> Evidence:
    return assess(bank, c2w, np.ones(len(c2w), dtype=bool))


def with_pose(frames: list[Frame], i: int, degrees: float, shift: float = 0.0) -> np.ndarray:
    c2w = poses_of(frames)
    c2w[i : i + 1] = turned_and_shifted(c2w[i : i + 1], degrees, shift, np.random.default_rng(3))
    return c2w


def test_the_pictures_of_one_walk_match_and_obey_its_poses(walk):
    frames, _, found = walk
    evidence = weigh(found.bank, poses_of(frames))
    assert evidence.frames.shape == (COUNT, len(FRAME_NUMBERS))
    assert evidence.of_pairs.shape == (len(evidence.pairs), 2, len(PAIR_NUMBERS))
    assert all(len(found.matches[i, i + 1]) >= 40 for i in range(COUNT - 1))
    assert (evidence.number("obeys") > 0.95).all() and (evidence.number("trust") > 0.6).all()
    assert np.isfinite(evidence.frames).all() and np.isfinite(evidence.of_pairs).all()


@pytest.mark.parametrize("degrees", [1.5, 5.0, 20.0])
def test_a_wrong_pose_is_told_from_the_good_ones_beside_it(walk, degrees):
    frames, _, found = walk
    evidence = weigh(found.bank, with_pose(frames, 4, degrees))
    trust, turn = evidence.number("trust"), evidence.number("own turn")
    assert trust.argmin() == 4 and trust[4] < 0.5 * np.delete(trust, 4).min()
    assert evidence.number("obeys trusted").argmin() == 4
    if degrees < 10:
        assert turn.argmax() == 4 and evidence.number("gain").argmax() == 4


def test_a_cluster_that_was_moved_together_is_not_trusted(walk):
    frames, _, found = walk
    c2w = poses_of(frames)
    c2w[3:6] = turned_and_shifted(c2w[3:6], 25.0, 0.6, np.random.default_rng(0))
    evidence = weigh(found.bank, c2w)
    trust = evidence.number("trust")
    assert trust[3:6].max() < trust[[0, 1, 2, 6, 7, 8, 9]].min()
    assert evidence.number("obeys best")[4] > 0.9, "the cluster agrees with itself"


def test_the_world_may_lie_anyhow_and_frames_in_any_order(walk):
    frames, _, found = walk
    c2w = with_pose(frames, 6, 4.0)
    plain = weigh(found.bank, c2w)
    turned = c2w.copy()
    rotation = small_motion(np.array([[0.3, -1.0, 0.4, 0.0, 0.0, 0.0]]))[0]
    turned = rotation @ turned
    turned[:, :3, 3] += [5.0, -2.0, 1.0]
    np.testing.assert_allclose(weigh(found.bank, turned).frames, plain.frames, atol=1e-5)
    backwards = np.arange(COUNT)[::-1]
    np.testing.assert_allclose(
        weigh(found.bank.subset(backwards), c2w[backwards]).frames, plain.frames[backwards], atol=1e-5
    )


def test_read_backwards_the_files_give_the_same(walk, tmp_path):
    frames, _, found = walk
    other = matched(frames[::-1], Cache(tmp_path / "other.sqlite"))
    plain, turned = weigh(found.bank, poses_of(frames)), weigh(other.bank, poses_of(frames)[::-1])
    np.testing.assert_allclose(turned.frames[::-1], plain.frames, atol=1e-6)


def test_a_blurred_picture_is_less_sharp_than_its_partners_and_they_are_as_sharp_as_theirs(walk, tmp_path):
    frames, cache, _ = walk
    picture = cv2.GaussianBlur(np.asarray(Image.open(frames[5].image_path)), (0, 0), 2.0)
    evidence = weigh(_replaced(frames, 5, picture, tmp_path, cache), poses_of(frames))
    for name in ("sharper", "sharpest", "sharpness above"):
        assert evidence.number(name).argmin() == 5
    assert np.abs(np.delete(evidence.number("sharpest"), 5)).max() < 0.3 * abs(evidence.number("sharpest")[5])


def test_a_dark_picture_is_darker_than_its_partners(walk, tmp_path):
    frames, cache, _ = walk
    picture = (np.asarray(Image.open(frames[5].image_path)) * 0.4).astype(np.uint8)
    evidence = weigh(_replaced(frames, 5, picture, tmp_path, cache), poses_of(frames))
    assert evidence.number("brightest")[5] == pytest.approx(np.log(0.4), abs=0.15)
    assert evidence.number("exposure").argmax() == 5


def test_what_stands_before_the_lens_leaves_a_hole(walk, tmp_path):
    frames, cache, _ = walk
    picture = np.asarray(Image.open(frames[5].image_path)).copy()
    picture[60:220, 90:260] = [40, 60, 30]
    evidence = weigh(_replaced(frames, 5, picture, tmp_path, cache), poses_of(frames))
    assert evidence.number("missing").argmax() == 5 and evidence.number("odd block").argmax() == 5


def test_a_picture_of_another_place_has_nothing_in_common_with_the_rest(walk, tmp_path):
    frames, cache, _ = walk
    noise = np.random.default_rng(0).uniform(0, 255, (60, 80, 3)).astype(np.float32)
    picture = np.clip(cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    evidence = weigh(_replaced(frames, 5, picture, tmp_path, cache), poses_of(frames))
    assert evidence.number("verified share")[5] == 0 and (np.delete(evidence.number("verified share"), 5) > 0.6).all()
    assert evidence.number("trust").argmin() == 5


def _replaced(frames, i, picture, folder, cache):
    Image.fromarray(picture).save(folder / "picture.png")
    changed = [with_image(frame, folder / "picture.png") if k == i else frame for k, frame in enumerate(frames)]
    return matched(changed, cache).bank


def test_what_is_known_is_not_computed_again(walk, monkeypatch):
    frames, cache, found = walk

    def never(*_args):
        raise AssertionError("computed again")

    monkeypatch.setattr(collect, "extract_features", never)
    monkeypatch.setattr(collect, "match_pair", never)
    again = matched(frames, cache)
    assert again.matches.keys() == found.matches.keys()
    for pair, of_pair in found.matches.items():
        assert np.array_equal(again.matches[pair].indices, of_pair.indices)
    np.testing.assert_array_equal(again.bank.rays, found.bank.rays)


def test_a_new_frame_is_matched_with_frames_whose_descriptors_were_not_kept(walk, tmp_path):
    frames, cache, _ = walk
    lone = [frames[0], frames[2], frames[5], frames[9]]
    fresh = matched(lone, Cache(tmp_path / "fresh.sqlite"))
    kept = matched(lone, cache)
    assert fresh.matches.keys() == kept.matches.keys()
    for pair, of_pair in fresh.matches.items():
        assert np.array_equal(kept.matches[pair].indices, of_pair.indices)


def test_frames_without_image_pose_or_lens_say_nothing_and_break_nothing(walk, tmp_path):
    frames, cache, _ = walk
    changed = list(frames)
    changed[1] = with_image(frames[1], tmp_path / "gone.png")
    changed[4] = replace(frames[4], c2w=None)
    changed[7] = replace(frames[7], intrinsics=None)
    readable = np.arange(COUNT) != 1
    found = collect.match_capture(changed, poses_of(changed), readable, cache, lambda items, *_: items)
    evidence = assess(found.bank, poses_of(changed), readable)
    assert not evidence.frames[1].any() and np.isfinite(evidence.frames).all()
    assert evidence.number("verified share")[4] > 0.5, "its picture still matches"
    assert evidence.number("obeys")[4] == 0 and evidence.number("obeys")[7] == 0
    assert (evidence.number("obeys")[[0, 2, 3, 5, 6, 8, 9]] > 0.9).all()


def test_a_capture_of_one_frame_has_no_pairs(walk):
    frames, cache, _ = walk
    found = matched(frames[:1], cache)
    evidence = weigh(found.bank, poses_of(frames[:1]))
    assert len(evidence.pairs) == 0 and np.isfinite(evidence.frames).all()


def test_points_lie_inside_the_mask(walk, tmp_path):
    frames, *_ = walk
    mask = np.zeros((240, 320), dtype=np.uint8)
    mask[:, :160] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    whole = extract_features(frames[0].image_path)
    left = extract_features(frames[0].image_path, tmp_path / "mask.png")
    assert 20 < len(left) < len(whole) and left.points[:, 0].max() <= 502
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert len(extract_features(frames[0].image_path, tmp_path / "broken.png")) == len(whole)


def test_features_survive_the_cache(walk):
    features = extract_features(walk[0][0].image_path)
    again = unpacked(features.packed(), features.coarse_descriptors)
    for name in ("points", "sharpness", "brightness", "overall", "tones", "width", "height"):
        np.testing.assert_array_equal(getattr(again, name), getattr(features, name))
    assert features.whole and not again.whole


def test_a_part_of_the_evidence_speaks_of_its_frames_only(walk):
    frames, _, found = walk
    evidence = weigh(found.bank, poses_of(frames))
    part = evidence.subset(np.array([2, 3, 4, 8]))
    np.testing.assert_array_equal(part.frames, evidence.frames[[2, 3, 4, 8]])
    assert part.pairs.max() < 4 and [0, 1] in part.pairs.tolist()


def test_a_lens_bends_rays():
    points = np.array([[500.0, 375.0], [900.0, 700.0], [100.0, 80.0]])
    straight = Intrinsics("PINHOLE", 2000, 1500, 1600.0, 1600.0, 1000.0, 750.0)
    rays = rays_of(points, straight)
    np.testing.assert_allclose(rays, (points * 2 - [1000, 750]) / 1600, atol=1e-9)
    assert focal_px(straight) == 800.0
    barrel = replace(straight, camera_model="OPENCV", distortion=(("k1", -0.2),))
    assert np.linalg.norm(rays_of(points, barrel)[1]) > np.linalg.norm(rays[1])
    fisheye = rays_of(points, replace(straight, camera_model="OPENCV_FISHEYE"))
    assert np.linalg.norm(fisheye[1]) == pytest.approx(np.tan(np.linalg.norm(rays[1])), rel=1e-6)
    assert rays_of(points, replace(straight, camera_model="EQUIRECTANGULAR")) is None
    assert rays_of(points, None) is None and np.isnan(focal_px(None))
    assert LENS.width == 320


def ring(count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array([(i, j) for i in range(count) for j in range(i + 1, count) if min(j - i, count - j + i) <= 2])
    return orbit(count), pairs


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_right_poses_leave_no_residual_and_slopes_are_right(seed):
    c2w, pairs = ring()
    seen = seen_points(c2w, pairs, seed=seed)
    camera = opencv_from_opengl(c2w)
    assert residuals(seen, camera).max() < 1e-6
    rng = np.random.default_rng(seed)
    moved = camera @ small_motion(rng.normal(0, 0.02, (len(c2w), 6)))
    step = 1e-6 * rng.normal(size=(len(c2w), 6))
    there = residuals_when_moved(seen, camera, moved @ small_motion(step), 0)
    here = residuals_when_moved(seen, camera, moved, 0)
    assert np.abs(there - here).max() < 0.1


def test_a_frame_that_is_a_little_off_finds_back_and_the_others_stay():
    c2w, pairs = ring()
    seen = seen_points(c2w, pairs, noise_px=0.3)
    camera = opencv_from_opengl(c2w)
    wrong = camera.copy()
    motion = np.array([[0.02, -0.03, 0.01, 0.05, 0.02, -0.04]])
    wrong[3] = (camera[3:4] @ small_motion(motion))[0]
    twist, moved = own_corrections(seen, wrong, np.full(len(pairs), 50.0), np.ones(len(c2w)))
    np.testing.assert_allclose(moved[3], camera[3], atol=0.01)
    turns = np.linalg.norm(twist[:, :3], axis=1)
    assert np.delete(turns, 3).max() < 0.25 * turns[3]


def test_the_many_stand_on_the_positive_side_and_a_moved_cluster_on_the_other():
    pairs = np.array([(i, j) for i in range(9) for j in range(i + 1, 9) if j - i <= 3])
    inside = np.isin(pairs, [3, 4, 5]).sum(axis=1)
    agreement = np.where(inside == 1, 0.05, 1.0)
    side = sides(pairs, np.ones(len(pairs)), agreement, 9)
    assert side[[3, 4, 5]].max() < -0.5 and side[[0, 1, 2, 6, 7, 8]].min() > 0.5
    assert sides(np.zeros((0, 2), dtype=int), np.zeros(0), np.zeros(0), 3).shape == (3,)


def test_potentials_put_the_difference_where_it_belongs():
    pairs = np.array([(i, j) for i in range(7) for j in range(i + 1, 7) if j - i <= 2])
    true = np.zeros(7)
    true[2] = -1.0
    found = potentials(pairs, true[pairs[:, 0]] - true[pairs[:, 1]], np.ones(len(pairs)), 7)
    np.testing.assert_allclose(found, true, atol=0.1)


def test_graph_sums_up_what_each_end_of_a_pair_sees():
    graph = Graph(np.array([[0, 1], [1, 2]]), 4)
    values = np.array([[1.0, -1.0], [5.0, -5.0]])
    assert graph.total(values).tolist() == [1.0, 4.0, -5.0, 0.0]
    assert graph.mean(values, np.ones((2, 2))).tolist() == [1.0, 2.0, -5.0, 0.0]
    assert graph.largest(values).tolist() == [1.0, 5.0, -5.0, 0.0]
    assert graph.largest(values, 2).tolist() == [1.0, -1.0, -5.0, 0.0]
    assert graph.median(values, np.array([[1.0, 3.0], [1.0, 1.0]])).tolist() == [1.0, -1.0, -5.0, 0.0]
    assert graph.of_partner(np.array([7.0, 8.0, 9.0, 0.0])).tolist() == [[8.0, 7.0], [9.0, 8.0]]


def test_partners_are_near_in_time_in_pose_or_alike():
    count = 30
    c2w = orbit(count)
    alike = np.zeros((count, count))
    alike[0, 15] = alike[15, 0] = 9.0
    readable = np.ones(count, dtype=bool)
    readable[3] = False
    pairs = {tuple(pair) for pair in choose_partners(alike, pose_distances(c2w), readable).tolist()}
    assert {(0, 15), (2, 4), (0, 29), (0, 28)} <= pairs
    assert not any(3 in pair for pair in pairs) and all(i < j for i, j in pairs)
