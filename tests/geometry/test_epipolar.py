"""Errors of matches at claimed poses: as large as the noise, for narrow, wide and mixed cameras, at any place."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_walk import PINHOLE, matched_points
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from tiny_capture import look_at, orbit

from mtcm_nerfstudio.evidence.matching import _inliers_of_bearings
from mtcm_nerfstudio.geometry.epipolar import (
    EPIPOLAR_INLIER_THRESHOLD,
    MatchedBearings,
    _signed_errors,
    cross_matrix,
    epipolar_errors,
    epipolar_errors_when_moved,
    opencv_from_opengl,
    pose_corrections,
    small_motion,
    triangulate_midpoints,
)
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics

FISHEYE = Intrinsics("OPENCV_FISHEYE", 1000, 1000, 300.0, 300.0, 500.0, 500.0, (("k1", 0.02), ("k2", -0.004)))


def ring(count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Poses around the origin, and pairs of frames that are near each other."""
    pairs = np.array([(i, j) for i in range(count) for j in range(i + 1, count) if min(j - i, count - j + i) <= 2])
    return orbit(count), pairs


def turned_aside(c2w: np.ndarray, degrees: float) -> np.ndarray:
    """Cameras turned about their own vertical axes: the origin is seen at an angle from the optical axis."""
    turn = small_motion(np.tile([0.0, np.radians(degrees), 0.0, 0.0, 0.0, 0.0], (len(c2w), 1)))
    return c2w @ turn


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([PINHOLE, FISHEYE]))
def test_exact_matches_have_no_error_at_the_right_poses(seed, camera):
    c2w, pairs = ring()
    matched = matched_points(c2w, pairs, seed=seed, cameras=camera)
    assert epipolar_errors(matched, opencv_from_opengl(c2w)).max() < 0.05


@pytest.mark.parametrize("noise", [0.2, 1.0, 2.0])
@pytest.mark.parametrize("camera", [PINHOLE, FISHEYE])
def test_errors_are_as_large_as_the_noise(noise, camera):
    c2w, pairs = ring()
    matched = matched_points(c2w, pairs, 200, noise, cameras=camera)
    error = epipolar_errors(matched, opencv_from_opengl(c2w))
    assert 0.75 * noise < np.sqrt(np.mean(error**2)) < 1.05 * noise


def test_the_noise_of_a_narrow_camera_counts_in_its_own_pixels():
    """Focal lengths of 450 and of 2000 pixels in one capture, each at a distance that fills the image."""
    wide, narrow = replace(PINHOLE, fl_x=450.0, fl_y=450.0), replace(PINHOLE, fl_x=2000.0, fl_y=2000.0)
    angles = np.radians(np.arange(0, 120, 15.0))
    radius = np.where(np.arange(8) % 2, 8.0, 3.0)
    places = np.stack([radius * np.cos(angles), radius * np.sin(angles), np.full(8, 1.0)], axis=1)
    c2w = np.array([look_at(place, np.zeros(3)) for place in places])
    pairs = np.array([(i, j) for i in range(8) for j in range(i + 1, 8)])
    matched = matched_points(c2w, pairs, 200, 1.0, cameras=[wide, narrow] * 4)
    error = epipolar_errors(matched, opencv_from_opengl(c2w))
    assert (error < EPIPOLAR_INLIER_THRESHOLD).mean() >= 0.97
    assert (error < EPIPOLAR_INLIER_THRESHOLD).mean(axis=1).min() >= 0.94, "of every pair"
    wrong = c2w.copy()
    wrong[1::2] = wrong[1::2] @ small_motion(np.tile(np.radians([0.5, 0.5, 0, 0, 0, 0]), (4, 1)))
    mixed = (pairs % 2).sum(axis=1) == 1
    errors = epipolar_errors(matched, opencv_from_opengl(wrong))[mixed]
    assert (errors < EPIPOLAR_INLIER_THRESHOLD).mean() < 0.5, "half a degree is 17 pixels of the narrow camera"


def edge_of_a_fisheye(noise: float) -> tuple[MatchedBearings, np.ndarray]:
    """Matches between 75° and 90° from the axis of two fisheyes, and their OpenCV poses."""
    c2w = turned_aside(orbit(8), 82.0)
    pairs = np.array([(i, i + 1) for i in range(7)])
    matched = matched_points(c2w, pairs, 600, noise, cameras=FISHEYE)
    angle = np.degrees(np.arccos(np.clip(matched.bearings[..., 2], -1, 1)))
    at_edge = ((angle > 75) & (angle < 90)).all(axis=1)
    assert at_edge.sum(axis=1).min() > 100
    return replace(matched, valid=matched.valid & at_edge), opencv_from_opengl(c2w)


def test_matches_at_the_edge_of_a_fisheye_obey_the_right_poses():
    matched, camera = edge_of_a_fisheye(1.0)
    inlier = epipolar_errors(matched, camera) < EPIPOLAR_INLIER_THRESHOLD
    assert inlier[matched.valid].mean() >= 0.95


def test_matches_at_the_edge_of_a_fisheye_are_verified_and_wrong_ones_are_not():
    matched, _ = edge_of_a_fisheye(1.0)
    rng = np.random.default_rng(0)
    for (x, y), valid, resolution in zip(matched.bearings, matched.valid, matched.resolution):
        x, y = x[valid], y[valid]
        assert _inliers_of_bearings(x, y, resolution).mean() >= 0.95
        wrong = np.flatnonzero(rng.random(len(x)) < 0.25)
        mixed = y.copy()
        mixed[wrong] = y[rng.permutation(wrong)]
        inlier = _inliers_of_bearings(x, mixed, resolution)
        assert inlier[np.setdiff1d(np.arange(len(x)), wrong)].mean() >= 0.93 and inlier[wrong].mean() < 0.35


def test_fewer_bearings_than_an_essential_matrix_needs_are_not_verified():
    x = np.tile([0.0, 0.0, 1.0], (10, 1))
    assert not _inliers_of_bearings(x, x, np.array([800.0, 800.0])).any()
    assert not _inliers_of_bearings(np.full((30, 3), np.nan), np.tile(x, (3, 1)), np.array([800.0, 800.0])).any()


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([PINHOLE, FISHEYE]))
def test_slopes_are_those_of_the_errors(seed, camera):
    c2w, pairs = ring(5)
    matched = matched_points(c2w, pairs, 30, seed=seed, cameras=camera)
    first, second = opencv_from_opengl(c2w)[pairs.T]
    _, slope = _signed_errors(matched, first, second, with_slope=True)
    step = 1e-6
    for axis in range(6):
        motion = small_motion(np.tile(step * np.eye(6)[axis], (len(pairs), 1)))
        back = small_motion(np.tile(-step * np.eye(6)[axis], (len(pairs), 1)))
        ahead, behind = (_signed_errors(matched, first @ m, second)[0] for m in (motion, back))
        numeric = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(slope[..., axis], numeric, rtol=0.02, atol=0.5)


def test_errors_know_no_order_of_frames_and_no_invalid_matches():
    c2w, pairs = ring()
    matched = matched_points(c2w, pairs, noise_px=3.0)
    camera = opencv_from_opengl(c2w)
    error = epipolar_errors(matched, camera)
    np.testing.assert_allclose(epipolar_errors(matched.swapped(), camera), error, atol=1e-9)
    np.testing.assert_array_equal(matched.swapped().swapped().bearings, matched.bearings)
    valid = np.random.default_rng(0).random(error.shape) < 0.5
    np.testing.assert_allclose(epipolar_errors(replace(matched, valid=valid), camera), error * valid, atol=1e-9)
    np.testing.assert_allclose(epipolar_errors_when_moved(matched, camera, camera), error, atol=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.01, 100.0))
def test_errors_do_not_change_with_a_similarity_transform_of_the_world(seed, scale):
    c2w, pairs = ring()
    matched = matched_points(c2w, pairs, noise_px=2.0)
    rng = np.random.default_rng(seed)
    other = small_motion(rng.normal(size=(1, 6))) @ c2w
    other[:, :3, 3] *= scale
    here, there = (epipolar_errors(matched, opencv_from_opengl(poses)) for poses in (c2w, other))
    np.testing.assert_allclose(there, here, atol=1e-5)


def test_a_frame_that_was_moved_a_little_finds_back_and_the_others_stay():
    c2w, pairs = ring()
    matched = matched_points(c2w, pairs, noise_px=0.3)
    camera = opencv_from_opengl(c2w)
    wrong = camera.copy()
    motion = np.array([[0.02, -0.03, 0.01, 0.05, 0.02, -0.04]])
    wrong[3] = (camera[3:4] @ small_motion(motion))[0]
    twist, moved = pose_corrections(matched, wrong, np.full(len(pairs), 50.0), np.ones(len(c2w)))
    np.testing.assert_allclose(moved[3], camera[3], atol=0.01)
    turns = np.linalg.norm(twist[:, :3], axis=1)
    assert np.delete(turns, 3).max() < 0.25 * turns[3]
    own = (pairs == 3).any(axis=1)
    for side in (matched, matched.swapped()):
        chosen = own & (side.pairs[:, 0] == 3)
        errors = epipolar_errors_when_moved(side, wrong, moved)[chosen]
        assert (errors < EPIPOLAR_INLIER_THRESHOLD).mean() > 0.95


def test_a_frame_without_matches_stays_where_it_is():
    c2w, pairs = ring()
    matched = matched_points(c2w, pairs, noise_px=1.0)
    matched = replace(matched, valid=matched.valid & ~(pairs == 2).any(axis=1)[:, None])
    twist, moved = pose_corrections(matched, opencv_from_opengl(c2w), np.full(len(pairs), 50.0), np.ones(len(c2w)))
    assert not twist[2].any()
    np.testing.assert_array_equal(moved[2], opencv_from_opengl(c2w)[2])


def test_points_are_triangulated_where_they_are():
    c2w, pairs = ring()
    matched = matched_points(c2w, pairs, seed=5)
    cloud = np.random.default_rng(5).uniform(-1.0, 1.0, (40, 3))
    points, sine = triangulate_midpoints(matched, opencv_from_opengl(c2w))
    np.testing.assert_allclose(points, np.broadcast_to(cloud, points.shape), atol=1e-5)
    first, second = c2w[pairs[0], :3, 3]
    x, y = first - cloud[0], second - cloud[0]
    assert sine[0, 0] == pytest.approx(np.linalg.norm(np.cross(x, y)) / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-6)


def test_parallel_lines_of_sight_and_points_behind_a_camera_give_no_point():
    camera = np.tile(np.eye(4), (2, 1, 1))
    camera[1, 0, 3] = 1.0
    bearings = np.array([[[0.0, 0, 1], [-1, 0, 1], [0.5, 0, 1]], [[0.0, 0, 1], [1, 0, 1], [-0.5, 0, 1]]])
    bearings /= np.linalg.norm(bearings, axis=-1, keepdims=True)
    matched = MatchedBearings(np.array([[0, 1]]), bearings[None], np.ones((1, 3), dtype=bool), np.full((1, 2), 800.0))
    points, _ = triangulate_midpoints(matched, camera)
    assert np.isnan(points[0, :2]).all()
    np.testing.assert_allclose(points[0, 2], [0.5, 0, 1], atol=1e-9)


@given(st.lists(st.floats(-2.0, 2.0), min_size=6, max_size=6))
def test_small_motions_are_rotations_about_a_vector_then_a_shift(twist):
    motion = small_motion(np.array([twist]))[0]
    np.testing.assert_allclose(motion[:3, :3], Rotation.from_rotvec(twist[:3]).as_matrix(), atol=1e-9)
    np.testing.assert_allclose(motion[:, 3], [*twist[3:], 1.0])
    np.testing.assert_allclose(cross_matrix(np.array([twist[:3]]))[0] @ twist[3:], np.cross(twist[:3], twist[3:]))


def test_cameras_in_one_place_must_see_the_same_directions():
    """A tripod, or a tracker that is stuck: without a baseline only the turn is there to obey."""
    points = np.random.default_rng(0).uniform([-1.0, -1.0, 4.0], [1.0, 1.0, 6.0], (60, 3))
    x = points / np.linalg.norm(points, axis=1, keepdims=True)
    turn = small_motion(np.array([[0.0, np.radians(10.0), 0.0, 0.0, 0.0, 0.0]]))[0]
    y = x @ turn[:3, :3]  # as the camera sees them that is turned by 10°
    matched = MatchedBearings(
        np.array([[0, 1]]), np.stack([x, y])[None], np.ones((1, 60), bool), np.full((1, 2), 800.0)
    )
    right, unturned = (
        epipolar_errors(matched, np.stack([np.eye(4), turn])),
        epipolar_errors(matched, np.tile(np.eye(4), (2, 1, 1))),
    )
    assert right.max() < 0.01
    assert np.median(unturned) > 50.0, "poses that are equal, while the images are not, are no agreement"
    motion, _ = pose_corrections(matched, np.tile(np.eye(4), (2, 1, 1)), np.ones(1), np.ones(2))
    assert np.isfinite(motion).all()
