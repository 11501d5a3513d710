"""Keypoints of one image, and how blurred and how bright it is around each."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image
from textured_corner import render, walk

from mtcm_nerfstudio.evidence.keypoints import (
    GLOBAL_STATISTICS,
    GRID,
    MOST_KEYPOINTS,
    NO_KEYPOINTS,
    THUMBNAIL,
    FrameKeypoints,
    cell_of,
    find_keypoints,
    keypoints_of,
    same_keypoints,
    unpack_keypoints,
)

BLURRED = GLOBAL_STATISTICS.index("log blur")


@pytest.fixture(scope="module")
def image() -> Image.Image:
    """A mosaic of 640 × 480 with sharp edges everywhere."""
    colours = np.random.default_rng(0).uniform(40, 210, (30, 40, 3)).astype(np.uint8)
    return Image.fromarray(cv2.resize(colours, (640, 480), interpolation=cv2.INTER_NEAREST))


@pytest.fixture(scope="module")
def found(image) -> FrameKeypoints:
    return keypoints_of(image)


def median_blur(image: Image.Image) -> np.ndarray:
    """Typical logarithm of the edge width along x and along y."""
    return np.median(keypoints_of(image).log_blur, axis=0)


def filtered(image: Image.Image, kernel: np.ndarray) -> Image.Image:
    return Image.fromarray(cv2.filter2D(np.asarray(image), -1, kernel))


def test_every_keypoint_has_its_place_descriptor_blur_and_light(found):
    count = len(found)
    assert 200 < count <= MOST_KEYPOINTS and found.described
    assert found.descriptors.shape == (count, 128) and found.log_blur.shape == (count, 2)
    assert np.isfinite(found.log_blur).all() and found.points.min() >= 0
    assert (found.width, found.height) == (1000.0, 750.0) and (found.points.max(axis=0) <= [1000, 750]).all()
    assert np.isfinite(found.statistics).all() and found.thumbnail.shape == (48, THUMBNAIL, 4)


def test_places_are_the_same_at_every_resolution(image):
    large = Image.fromarray(cv2.GaussianBlur(cv2.resize(np.asarray(image), (1280, 960)), (0, 0), 3.0))
    one, other = keypoints_of(large), keypoints_of(large.resize((640, 480), Image.Resampling.BOX))
    near = np.linalg.norm(one.points[:, None] - other.points[None], axis=2).min(axis=0)
    assert np.median(near) < 1.5
    assert (one.width, one.height) == (other.width, other.height) == (1000.0, 750.0)


def test_packed_and_unpacked_they_are_the_same_but_for_the_descriptors(found):
    again = unpack_keypoints(found.packed())
    assert not again.described and len(again) == len(found)
    assert same_keypoints(replace(again, descriptors=found.descriptors), found)
    clipped = replace(found, log_light=np.where(np.arange(len(found)) % 2, np.nan, found.log_light).astype(np.float32))
    assert same_keypoints(unpack_keypoints(clipped.packed()), replace(clipped, descriptors=again.descriptors))
    assert not same_keypoints(replace(again, width=999.0), again)
    nothing = unpack_keypoints(NO_KEYPOINTS.packed())
    assert len(nothing) == 0 and nothing.width == 0.0 and np.isnan(nothing.statistics).all()
    assert nothing.thumbnail.shape == (0, 0, 4)


@pytest.mark.parametrize("sigma", [0.7, 1.5, 2.5])
def test_the_edge_width_is_the_standard_deviation_of_a_gaussian_blur(image, sigma):
    blurred = Image.fromarray(cv2.GaussianBlur(np.asarray(image), (0, 0), sigma))
    np.testing.assert_allclose(np.exp(median_blur(blurred)), sigma, rtol=0.2)
    assert np.exp(keypoints_of(blurred).statistics[BLURRED]) == pytest.approx(sigma, rel=0.25)


def test_edges_are_the_wider_the_more_an_image_is_blurred(image):
    blurred = [Image.fromarray(cv2.GaussianBlur(np.asarray(image), (0, 0), s)) for s in (0.7, 1.5, 2.5, 4.0)]
    widths = np.array([median_blur(one) for one in (image, *blurred)])
    assert (np.diff(widths, axis=0) > 0.3).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_motion_blur_widens_edges_along_its_direction_only(image, axis):
    length = 11
    kernel = np.zeros((length, length))
    kernel[(length // 2, slice(None)) if axis == 0 else (slice(None), length // 2)] = 1.0 / length
    wider = median_blur(filtered(image, kernel)) - median_blur(image)
    assert wider[axis] > 1.0 and abs(wider[1 - axis]) < 0.2


def test_the_size_of_the_file_decides_the_unit_of_blur(image):
    """The same image at twice the size has edges twice as wide."""
    larger = image.resize((1280, 960), Image.Resampling.BICUBIC)
    wider = median_blur(larger) - median_blur(image)
    np.testing.assert_allclose(wider, np.log(2.0), atol=0.3)


@pytest.mark.parametrize("stops", [-2.0, -1.0, 0.5])
def test_light_follows_the_exposure_in_stops(image, stops):
    values = np.asarray(image).astype(np.float32) * 0.6
    plain = Image.fromarray(values.round().astype(np.uint8))
    changed = Image.fromarray(np.clip(values * 2.0 ** (stops / 2.2), 0, 255).round().astype(np.uint8))
    one, other = keypoints_of(plain), keypoints_of(changed)
    distance = np.linalg.norm(one.points[:, None] - other.points[None], axis=2)
    a = np.flatnonzero(distance.min(axis=1) < 1.0)
    b = distance.argmin(axis=1)[a]
    assert len(a) > 50
    assert np.nanmedian(other.log_light[b] - one.log_light[a]) == pytest.approx(stops, abs=0.15)
    bright = GLOBAL_STATISTICS.index("log2 brightness")
    assert other.statistics[bright] - one.statistics[bright] == pytest.approx(stops, abs=0.2)


def test_light_is_not_known_where_it_is_clipped(image):
    values = np.asarray(image).copy()
    values[:, 320:] = np.clip(values[:, 320:].astype(int) + 200, 0, 255).astype(np.uint8)
    one = keypoints_of(Image.fromarray(values))
    right = one.points[:, 0] > 600
    assert np.isfinite(one.log_light[one.points[:, 0] < 400]).all()
    assert not right.any() or np.isnan(one.log_light[right]).mean() > 0.5


def test_keypoints_lie_inside_the_mask(tmp_path):
    render(walk(3)[1]).save(tmp_path / "image.png")
    mask = np.zeros((240, 320), dtype=np.uint8)
    mask[:, :160] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    whole = find_keypoints(tmp_path / "image.png")
    left = find_keypoints(tmp_path / "image.png", tmp_path / "mask.png")
    assert 20 < len(left) < len(whole) and left.points[:, 0].max() <= 502
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert same_keypoints(find_keypoints(tmp_path / "image.png", tmp_path / "broken.png"), whole)


def image_blur(image: Image.Image, mask: np.ndarray | None = None) -> float:
    return float(keypoints_of(image, mask).statistics[BLURRED])


def half_blurred(image: Image.Image) -> Image.Image:
    """The image with its right half out of focus."""
    values = np.asarray(image).copy()
    values[:, 320:] = cv2.GaussianBlur(values, (0, 0), 4.0)[:, 320:]
    return Image.fromarray(values)


def test_a_soft_background_does_not_make_an_image_blurred(image):
    assert image_blur(half_blurred(image)) == pytest.approx(image_blur(image), abs=0.15)


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("side", [80, 120, 240])
@pytest.mark.parametrize("background", [0, 128, 255])
def test_a_plain_background_says_nothing_about_sharpness(image, noise, side, background):
    """A cut-out is as sharp as its subject, however small, and a blurred one is blurred."""
    rng = np.random.default_rng(1)

    def cut_out(sigma: float) -> Image.Image:
        values = np.full((600, 800, 3), float(background))
        values[200 : 200 + side, 300 : 300 + side] = np.asarray(image)[:side, :side]
        values = cv2.GaussianBlur(values, (0, 0), sigma) if sigma else values
        return Image.fromarray(np.clip(values + rng.normal(0, noise, values.shape), 0, 255).astype(np.uint8))

    assert image_blur(cut_out(0.0)) < -0.5
    assert np.exp(image_blur(cut_out(3.0))) == pytest.approx(3.0, rel=0.45)


def test_the_blur_of_an_image_is_that_inside_its_mask(image):
    right = np.zeros((480, 640), dtype=bool)
    right[:, 360:] = True
    assert image_blur(half_blurred(image), right) > image_blur(half_blurred(image)) + 1.0
    assert np.isfinite(image_blur(image, np.zeros((480, 640), dtype=bool)))


@pytest.mark.parametrize("kernel", [np.eye(9), np.eye(9)[::-1]])
def test_motion_along_a_diagonal_blurs_an_image(image, kernel):
    assert image_blur(filtered(image, kernel / 9.0)) > image_blur(image) + 0.5


@pytest.mark.parametrize(("longer_side", "scale"), [(400, 1.0), (800, 1.0), (1280, 1.6), (3000, 2.0)])
def test_blur_is_measured_at_800_pixels_and_told_in_those_that_train(image, longer_side, scale):
    resized = image.resize((longer_side, longer_side * 3 // 4), Image.Resampling.BICUBIC)
    assert keypoints_of(resized).training_scale == pytest.approx(scale)


def test_the_thumbnail_knows_the_mask(image):
    left = np.zeros((240, 320), dtype=bool)
    left[:, :160] = True
    masked, whole = keypoints_of(image, left).thumbnail, keypoints_of(image).thumbnail
    np.testing.assert_array_equal(masked[..., :3], whole[..., :3])
    assert (whole[..., 3] == 255).all()
    assert (masked[:, :32, 3] == 255).all() and not masked[:, 32:, 3].any()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_image_has_no_keypoints_and_finite_statistics(value):
    blank = keypoints_of(Image.new("RGB", (320, 240), (value,) * 3))
    assert len(blank) == 0 and blank.descriptors.shape == (0, 128) and blank.width == 1000.0
    assert np.isfinite(blank.statistics).all()
    assert blank.statistics[BLURRED] == 0.0, "nothing in it tells whether it is blurred"


def test_cells_are_numbered_row_by_row():
    assert cell_of(np.array([[0.0, 0.0], [999.0, 0.0], [0.0, 130.0], [1000.0, 1000.0]])).tolist() == [
        *(0, GRID - 1, GRID, GRID * GRID - 1),
    ]
