"""Bearings of every camera model: there and back, and against COLMAP's own cameras."""

from dataclasses import replace

import numpy as np
import pycolmap
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtcm_nerfstudio.geometry.bearings import (
    CAMERA_MODELS,
    bearings_from_pixels,
    has_bearings,
    is_wide,
    pixels_from_bearings,
    pixels_per_radian,
    widest_angle,
)
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics

PLAIN = Intrinsics("PINHOLE", 1200, 900, 850.0, 840.0, 610.0, 445.0)
COEFFICIENTS = {
    "SIMPLE_RADIAL": {"k1": -0.12},
    "RADIAL": {"k1": -0.15, "k2": 0.04},
    "OPENCV": {"k1": -0.15, "k2": 0.04, "p1": 0.002, "p2": -0.003},
    "FULL_OPENCV": {
        **{"k1": -0.15, "k2": 0.04, "p1": 0.002, "p2": -0.003, "k3": 0.01, "k4": 0.02, "k5": -0.01, "k6": 0.005}
    },
    "OPENCV_FISHEYE": {"k1": 0.03, "k2": -0.01, "k3": 0.002, "k4": -0.0005},
    "FISHEYE": {"k1": 0.03},
    "SIMPLE_RADIAL_FISHEYE": {"k1": -0.02},
    "RADIAL_FISHEYE": {"k1": -0.02, "k2": 0.004},
    "THIN_PRISM_FISHEYE": {
        **{"k1": 0.01, "k2": -0.005, "p1": 0.001, "p2": -0.0015, "k3": 0.001, "k4": -0.0002},
        **{"sx1": 0.0008, "sy1": -0.0006},
    },
    "RAD_TAN_THIN_PRISM_FISHEYE": {
        **{"k0": 0.01, "k1": -0.005, "k2": 0.001, "k3": -0.0002, "k4": 0.0001, "k5": -0.00002},
        **{"p0": 0.001, "p1": -0.0015, "s0": 0.0008, "s1": -0.0001, "s2": -0.0006, "s3": 0.0002},
    },
    "FOV": {"omega": 0.9},
}
"""Distortion of each model in the order of COLMAP's parameters, without those it does not have."""
ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
OF_COLMAP = tuple(model for model in CAMERA_MODELS if model not in ("EQUIRECTANGULAR", "FISHEYE", "FISHEYE624"))
FISHEYES = tuple(model for model in CAMERA_MODELS if "FISHEYE" in model)


def camera(model: str) -> Intrinsics:
    """A camera of some model; a wide one has the focal length of a wide one."""
    focal = 450.0 if model in FISHEYES else 850.0
    focal_y = focal if model in ONE_FOCAL else 0.99 * focal
    distortion = tuple(COEFFICIENTS.get(model, {}).items())
    return replace(PLAIN, camera_model=model, fl_x=focal, fl_y=focal_y, distortion=distortion)


def in_colmap(intrinsics: Intrinsics) -> pycolmap.Camera:
    one = intrinsics.camera_model in ONE_FOCAL
    focal = [intrinsics.fl_x] if one else [intrinsics.fl_x, intrinsics.fl_y]
    parameters = [*focal, intrinsics.cx, intrinsics.cy, *dict(intrinsics.distortion).values()]
    size = {"width": intrinsics.width, "height": intrinsics.height}
    return pycolmap.Camera(model=intrinsics.camera_model, params=parameters, **size)


def grid(intrinsics: Intrinsics, count: int = 12) -> np.ndarray:
    """Pixels all over the image, some of them in its corners."""
    x, y = np.linspace(0, intrinsics.width, count), np.linspace(0, intrinsics.height, count)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


@pytest.mark.parametrize("model", CAMERA_MODELS)
def test_pixels_of_the_whole_image_come_back(model):
    pixels = grid(camera(model))
    bearings = bearings_from_pixels(pixels, camera(model))
    np.testing.assert_allclose(np.linalg.norm(bearings, axis=1), 1.0, atol=1e-9)
    inner = (pixels[:, 0] > 0) & (pixels[:, 0] < 1200)  # the seam of a panorama is at either side
    np.testing.assert_allclose(pixels_from_bearings(bearings, camera(model))[inner], pixels[inner], atol=0.02)


@given(
    st.sampled_from(CAMERA_MODELS),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.4, 0.4)).map(np.array),
    st.floats(0.01, 100.0),
)
def test_bearings_come_back_whatever_their_length(model, plane, length):
    bearing = np.array([[*plane, 1.0]])
    again = bearings_from_pixels(pixels_from_bearings(length * bearing, camera(model)), camera(model))
    np.testing.assert_allclose(again, bearing / np.linalg.norm(bearing), atol=3e-5)


@pytest.mark.parametrize("model", OF_COLMAP)
def test_bearings_agree_with_colmap(model):
    """COLMAP's points of the image plane, where it has such; wide directions have none."""
    pixels = grid(camera(model)) if model not in FISHEYES else 200.0 + 0.5 * grid(camera(model))
    bearings = bearings_from_pixels(pixels, camera(model))
    ahead = bearings[:, 2] > 0.15
    assert ahead.mean() > 0.9
    expected = np.asarray(in_colmap(camera(model)).cam_from_img(pixels[ahead]))
    expected = np.column_stack([expected, np.ones(len(expected))])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(bearings[ahead], expected, atol=5e-5)


@pytest.mark.parametrize("model", OF_COLMAP)
def test_pixels_agree_with_colmap(model):
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-0.5, 0.5, (50, 2)), np.ones(50)])
    expected = np.asarray(in_colmap(camera(model)).img_from_cam(points))
    np.testing.assert_allclose(pixels_from_bearings(points, camera(model)), expected, atol=1e-3)


@pytest.mark.parametrize("model", FISHEYES)
def test_a_fisheye_sees_beside_and_behind_itself(model):
    wide = replace(camera(model), width=2400, height=2400, cx=1200.0, cy=1200.0)
    angle = np.radians([80.0, 90.0, 95.0, 100.0])
    bearings = np.stack([np.sin(angle), np.zeros(4), np.cos(angle)], axis=1)
    pixels = pixels_from_bearings(bearings, wide)
    assert (np.diff(pixels[:, 0]) > 0).all()
    np.testing.assert_allclose(bearings_from_pixels(pixels, wide), bearings, atol=3e-5)


def test_an_equirectangular_image_shows_all_directions():
    panorama = Intrinsics("EQUIRECTANGULAR", 2000, 1000, 1.0, 1.0, 1000.0, 500.0)
    middle, right, behind, up = bearings_from_pixels(
        np.array([[1000.0, 500.0], [1500.0, 500.0], [0.0, 500.0], [1000.0, 0.0]]), panorama
    )
    np.testing.assert_allclose([middle, right, behind, up], [[0, 0, 1], [1, 0, 0], [0, 0, -1], [0, -1, 0]], atol=1e-9)
    rng = np.random.default_rng(0)
    bearings = rng.normal(size=(200, 3))
    bearings /= np.linalg.norm(bearings, axis=1, keepdims=True)
    assert (bearings[:, 2] < 0).sum() > 50
    np.testing.assert_allclose(
        bearings_from_pixels(pixels_from_bearings(bearings, panorama), panorama), bearings, atol=1e-9
    )


@pytest.mark.parametrize("model", ["PINHOLE", "OPENCV", "FULL_OPENCV"])
def test_a_perspective_camera_sees_nothing_behind_itself(model):
    pixels = pixels_from_bearings(np.array([[0.1, 0.2, -1.0], [1.0, 0.0, 0.0], [0.1, 0.2, 1.0]]), camera(model))
    assert np.isnan(pixels[:2]).all() and np.isfinite(pixels[2]).all()


def test_where_a_distortion_has_no_inverse_there_is_no_bearing():
    folded = replace(PLAIN, camera_model="RADIAL", fl_y=850.0, distortion=(("k1", -0.6),))
    bearings = bearings_from_pixels(np.array([[610.0, 445.0], [3000.0, 445.0]]), folded)
    assert np.isfinite(bearings[0]).all() and np.isnan(bearings[1]).all()


def test_one_pixel_turns_a_bearing_by_one_over_the_resolution():
    for model in CAMERA_MODELS:
        one = replace(camera(model), distortion=())
        middle = [one.width / 2, one.height / 2] if model == "EQUIRECTANGULAR" else [one.cx, one.cy]
        a, b = bearings_from_pixels(np.array([middle, np.add(middle, [1.0, 0.0])]), one)
        assert np.arccos(a @ b) * pixels_per_radian(one) == pytest.approx(1.0, rel=0.01)


def test_unknown_cameras_have_no_bearings():
    unknown = replace(PLAIN, camera_model="DIVISION")
    assert not has_bearings(None) and not has_bearings(unknown) and has_bearings(PLAIN)
    assert np.isnan(pixels_per_radian(None)) and np.isnan(pixels_per_radian(unknown))
    for function, width in ((bearings_from_pixels, 2), (pixels_from_bearings, 3)):
        with pytest.raises(ValueError, match="no bearings for the camera model DIVISION: use PINHOLE"):
            function(np.ones((1, width)), unknown)
    assert not is_wide(PLAIN) and is_wide(camera("OPENCV_FISHEYE")) and is_wide(camera("EQUIRECTANGULAR"))
    for model in CAMERA_MODELS:
        assert bearings_from_pixels(np.zeros((0, 2)), camera(model)).shape == (0, 3)
        assert pixels_from_bearings(np.zeros((0, 3)), camera(model)).shape == (0, 2)


@pytest.mark.parametrize("model", [model for model in CAMERA_MODELS if model != "EQUIRECTANGULAR"])
def test_the_widest_angle_is_that_of_a_corner(model):
    corners = grid(camera(model))[[0, 11, -12, -1]]
    expected = np.arccos(bearings_from_pixels(corners, camera(model))[:, 2]).max()
    assert widest_angle(camera(model)) == pytest.approx(expected, abs=0.02)
    assert widest_angle(replace(camera(model), camera_model="EQUIRECTANGULAR")) == pytest.approx(np.pi)
