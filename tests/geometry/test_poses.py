import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation
from tiny_capture import orbit, random_similarity

from mtcm_nerfstudio.geometry import poses

seeds = st.integers(0, 2**32 - 1)


def rotations(seed: int, count: int = 8) -> np.ndarray:
    return Rotation.random(count, random_state=seed).as_matrix()


@given(seeds)
def test_quaternions_agree_with_scipy_and_come_back(seed):
    matrices = rotations(seed)
    wxyz = poses.wxyz_from_matrix(matrices)
    theirs = np.roll(Rotation.from_matrix(matrices).as_quat(), 1, axis=1)
    np.testing.assert_allclose(wxyz, theirs * np.sign(theirs[:, :1]), atol=1e-12)
    np.testing.assert_allclose(poses.matrix_from_wxyz(wxyz), matrices, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_turns_have_quaternions_too(axis):
    matrix = Rotation.from_rotvec(np.pi * np.eye(3)[axis]).as_matrix()[None]
    np.testing.assert_allclose(poses.matrix_from_wxyz(poses.wxyz_from_matrix(matrix)), matrix, atol=1e-12)


@given(seeds)
def test_colmap_poses_come_back(seed):
    rng = np.random.default_rng(seed)
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = rotations(seed, 1)[0], rng.normal(size=3)
    np.testing.assert_allclose(poses.c2w_from_colmap(*poses.colmap_from_c2w(c2w)), c2w, atol=1e-12)


def test_colmap_convention_against_its_own_definition():
    """COLMAP: x_camera = R x_world + t with z forward; the camera's centre is −Rᵀt."""
    rotation, translation = rotations(3, 1)[0], np.array([0.1, -0.4, 2.0])
    wxyz = np.roll(Rotation.from_matrix(rotation).as_quat(), 1)
    c2w = poses.c2w_from_colmap(wxyz, translation)
    np.testing.assert_allclose(c2w[:3, 3], -rotation.T @ translation, atol=1e-12)
    np.testing.assert_allclose(-c2w[:3, 2], rotation.T @ [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(-c2w[:3, 1], rotation.T @ [0, 1, 0], atol=1e-12)


@given(seeds, st.floats(1e-7, 179.9))
def test_rotation_angles_agree_with_scipy(seed, angle):
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    a = rotations(seed, 1)
    b = a @ Rotation.from_rotvec(np.radians(angle) * axis / np.linalg.norm(axis)).as_matrix()
    np.testing.assert_allclose(poses.rotation_angle_degrees(a, b), angle, rtol=1e-5, atol=1e-9)


def test_nearest_rotation_undoes_scale_and_never_mirrors():
    matrices = rotations(0)
    np.testing.assert_allclose(poses.nearest_rotation(2.5 * matrices), matrices, atol=1e-12)
    mirrored = matrices * np.array([1.0, 1.0, -1.0])
    assert np.all(np.linalg.det(poses.nearest_rotation(mirrored)) > 0.99)


def test_geometric_median_is_the_minimum():
    points = np.random.default_rng(0).normal(size=(15, 3)) ** 3
    best = minimize(lambda x: np.linalg.norm(points - x, axis=1).sum(), points.mean(axis=0), tol=1e-12).x
    np.testing.assert_allclose(poses.geometric_median(points), best, atol=1e-4)


def test_geometric_median_stays_with_the_majority():
    points = np.concatenate([np.random.default_rng(0).normal(size=(6, 3)), np.full((5, 3), 1e6)])
    assert np.linalg.norm(poses.geometric_median(points)) < 10


@given(seeds)
@settings(max_examples=30)
def test_the_capture_frame_moves_with_the_world(seed):
    c2w = orbit(15, turn=np.random.default_rng(seed).uniform(0.3, 6.3))
    moved = random_similarity(seed).move(c2w)
    there, here = poses.canonical_frame(moved), poses.canonical_frame(c2w)
    np.testing.assert_allclose(there.to_capture(moved), here.to_capture(c2w), atol=1e-4)
    np.testing.assert_allclose(here.to_world(here.to_capture(c2w)), c2w, atol=1e-9)
    assert np.linalg.det(here.rotation) == pytest.approx(1.0)


@given(st.integers(0, 19), seeds)
@settings(max_examples=30)
def test_one_wrong_pose_hardly_moves_the_capture_frame(index, seed):
    c2w = orbit(20)
    spoiled = c2w.copy()
    spoiled[index, :3, :3] = rotations(seed, 1)[0]
    spoiled[index, :3, 3] += 5 * np.random.default_rng(seed).normal(size=3)
    right, wrong = poses.canonical_frame(c2w), poses.canonical_frame(spoiled)
    assert np.linalg.norm(right.origin - wrong.origin) < 0.3 * right.unit
    assert abs(np.log(right.unit / wrong.unit)) < 0.2
    assert poses.rotation_angle_degrees(right.rotation[None], wrong.rotation[None])[0] < 15


def test_cameras_that_look_straight_down_have_an_up():
    """From the air, turned any way about the vertical: up is opposite to the view."""
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    c2w = np.tile(np.eye(4), (12, 1, 1))
    c2w[:, :3, :3] = Rotation.from_rotvec(np.outer(angles, [0.0, 0.0, 1.0])).as_matrix()
    c2w[:, :2, 3] = np.random.default_rng(0).normal(size=(12, 2))
    np.testing.assert_allclose(poses.canonical_frame(c2w).rotation[1], [0, 0, 1], atol=1e-6)


def test_cameras_in_one_place_have_a_unit():
    c2w = orbit(6)
    c2w[:, :3, 3] = [5.0, 6.0, 7.0]
    found = poses.canonical_frame(c2w)
    assert found.unit == 1.0
    assert np.isfinite(found.to_capture(c2w)).all()
    assert poses.canonical_frame(c2w[:0]).unit == 1.0


def test_a_place_that_most_cameras_share_is_no_reason_to_drop_the_others():
    positions = np.concatenate([np.random.default_rng(0).normal(size=(32, 3)) * 0.003, orbit(8)[:, :3, 3]])
    assert not poses.far_away(positions).any()
    positions[:32] = 0.0
    assert not poses.far_away(positions).any()


def test_a_panorama_far_from_the_origin_has_no_places():
    c2w = orbit(12)
    c2w[:, :3, 3] = [1.3, 2.7, 0.51]
    placed = poses.canonical_frame(c2w).to_capture(c2w)
    assert np.abs(placed[:, :3, 3]).max() < 1e-9


def test_quaternion_signs_do_not_jump_and_survive_an_outlier():
    turn = Rotation.from_rotvec(np.outer(np.linspace(0, 3 * np.pi, 40), [0, 0, 1.0])).as_matrix()
    smooth = poses.with_continuous_signs(poses.wxyz_from_matrix(turn))
    assert np.all((smooth[1:] * smooth[:-1]).sum(axis=1) > 0.9)
    turn[20] = Rotation.from_rotvec([np.pi, 0.3, 0.0]).as_matrix()
    spoiled = poses.with_continuous_signs(poses.wxyz_from_matrix(turn))
    others = np.arange(40) != 20
    np.testing.assert_allclose(spoiled[others], smooth[others], atol=1e-12)


def test_far_away_finds_the_diverged_pose_alone():
    positions = orbit(20)[:, :3, 3]
    positions[7] *= 1000
    assert np.flatnonzero(poses.far_away(positions)).tolist() == [7]
    assert not poses.far_away(orbit(20)[:, :3, 3]).any()
    assert not poses.far_away(np.array([[0.0, 0, 0], [1, 0, 0], [1e9, 0, 0]])).any()
