"""Many cameras as one mesh, and the one that a ray meets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from looked_at import camera_at
from tiny_capture import orbit, random_similarity

from mtcm_nerfstudio.viewer.frusta import (
    frusta,
    nearest_along,
    on_screen,
    picked,
    ray_through,
    seeing,
    segments,
    usual_size,
)

SIZE = 0.3
VERDICTS = ("kept", "repaired", "dropped", "suggested")


def tangents(count: int) -> np.ndarray:
    return np.tile([0.6, 0.4], (count, 1))


@given(st.integers(0, 10_000))
def test_a_ray_through_a_picture_from_behind_meets_that_camera(seed):
    rng = np.random.default_rng(seed)
    c2w = orbit(20)
    i = int(rng.integers(20))
    x, y = rng.uniform(-0.9, 0.9, 2) * [0.6, 0.4]
    target = c2w[i, :3, 3] + SIZE * c2w[i, :3, :3] @ np.array([x, y, -1.0])
    origin = c2w[i, :3, 3] + 1.2 * SIZE * c2w[i, :3, :3] @ np.array([x, y, -1.0])  # from before the picture
    assert picked(origin, target - origin, c2w, tangents(20), SIZE) == i


def test_the_nearest_of_several_is_met_whatever_their_order():
    c2w = np.stack([camera_at(np.array([0.0, 0.0, z])) for z in (-4.0, -2.0, -6.0)])
    ray = np.array([0.01, 0.02, 1.0]), np.array([0.0, 0.0, -1.0])
    assert picked(*ray, c2w, tangents(3), SIZE) == 1
    assert picked(*ray, c2w[::-1], tangents(3), SIZE) == 1
    assert picked(ray[0], -ray[1], c2w, tangents(3), SIZE) is None
    assert picked(*ray, c2w[:0], tangents(0), SIZE) is None


def test_cameras_without_a_pose_are_never_met():
    c2w = np.stack([np.full((4, 4), np.nan), camera_at(np.array([0.0, 0.0, -2.0]))])
    assert picked(np.zeros(3), np.array([0.0, 0.0, -1.0]), c2w, tangents(2), SIZE) == 1


def test_a_place_on_screen_is_where_its_ray_goes():
    wxyz, eye, fov, aspect = np.array([0.9, 0.1, -0.3, 0.2]), np.array([1.0, 2.0, 3.0]), 1.1, 1.6
    wxyz /= np.linalg.norm(wxyz)
    places = np.array([[0.5, 0.5], [0.1, 0.8], [0.95, 0.02]])
    points = np.stack([eye + 3.0 * ray_through(wxyz, fov, aspect, (x, y)) for x, y in places])
    np.testing.assert_allclose(on_screen(points, wxyz, eye, fov, aspect), places, atol=1e-9)
    behind = eye - ray_through(wxyz, fov, aspect, (0.5, 0.5))
    assert np.isnan(on_screen(behind[None], wxyz, eye, fov, aspect)).all()


def test_who_sees_a_place_has_it_before_the_camera_and_in_the_picture():
    poses = np.stack(
        [camera_at(np.array(place)) for place in ([0, 0, 2.0], [0, 0, -2.0], [3.0, 0, 2.0], [0.5, 0, 2.0])]
    )
    poses = np.concatenate([poses, np.full((1, 4, 4), np.nan)])
    assert seeing(np.zeros(3), poses, tangents(5)).tolist() == [True, False, False, True, False]


def test_the_point_that_is_clicked_is_the_nearest_that_the_ray_passes():
    points = np.array([[0.0, 0.0, -5.0], [0.01, 0.0, -2.0], [1.0, 0.0, -1.0], [0.0, 0.0, 1.0]])
    ahead = np.array([0.0, 0.0, -1.0])
    assert nearest_along(points, np.zeros(3), ahead).tolist() == [0.01, 0.0, -2.0]
    assert nearest_along(points, np.zeros(3), np.array([0.0, 1.0, 0.0])) is None


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_mesh_moves_with_its_cameras(verdict):
    c2w, move = orbit(5), random_similarity(3)
    mesh = frusta(c2w, tangents(5), SIZE, verdict)
    moved = frusta(move.move(c2w), tangents(5), SIZE * move.scale, verdict)
    expected = move.scale * mesh.vertices @ move.rotation.T + move.shift
    np.testing.assert_allclose(moved.vertices, expected, rtol=1e-4, atol=1e-4)
    assert (mesh.faces == moved.faces).all() and mesh.faces.max() < len(mesh.vertices)


def test_verdicts_have_shapes_of_their_own():
    assert len({str(frusta(orbit(1), tangents(1), SIZE, verdict).faces.tolist()) for verdict in VERDICTS}) == 4


def test_lines_have_their_two_ends():
    mesh = segments(np.zeros((2, 3)), np.ones((2, 3)))
    assert mesh.vertices[mesh.faces[1]].tolist() == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]


def test_the_size_scales_with_the_world_and_is_never_nothing():
    move = random_similarity(1)
    assert usual_size(move.move(orbit(9))) == pytest.approx(move.scale * usual_size(orbit(9)), rel=1e-6)
    assert usual_size(np.full((3, 4, 4), np.nan)) > 0
    assert usual_size(np.tile(np.eye(4), (3, 1, 1))) > 0
