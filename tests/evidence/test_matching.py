"""Matches of two images: mutual, clear and verified; of perspective images and of fisheyes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from evidence_walk import INTRINSICS
from textured_corner import render, walk

from mtcm_nerfstudio.evidence.keypoints import NO_KEYPOINTS, keypoints_of
from mtcm_nerfstudio.evidence.match_capture import FrameFeatures
from mtcm_nerfstudio.evidence.matching import (
    FEWEST,
    NO_MATCHES,
    MatchInput,
    PairMatches,
    match_pair,
    mutual_nearest,
    unit_descriptors,
)
from mtcm_nerfstudio.geometry.bearings import pixels_from_bearings
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics

FISHEYE = Intrinsics("OPENCV_FISHEYE", 1000, 1000, 300.0, 300.0, 500.0, 500.0)
PERSPECTIVE = Intrinsics("PINHOLE", 1000, 1000, 450.0, 450.0, 500.0, 500.0)


def random_descriptors(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 120, (count, 128), dtype=np.uint8)


@pytest.fixture(scope="module")
def corner() -> list[FrameFeatures]:
    """Three images of one walk."""
    return [FrameFeatures(keypoints_of(render(pose)), INTRINSICS, "") for pose in walk(12)[:3]]


def input_of(one: FrameFeatures) -> MatchInput:
    return one.match_input(one.keypoints.descriptors)


def test_images_of_one_walk_match_and_the_matches_are_verified(corner):
    found = match_pair(input_of(corner[0]), input_of(corner[1]))
    assert len(found) > 60 and found.tentative >= len(found)
    assert (np.diff(found.indices[:, 0]) > 0).all(), "in the order of the first image's keypoints"
    assert len(set(found.indices[:, 1].tolist())) == len(found), "one to one"


def test_swapped_twice_matches_are_the_same(corner):
    found = match_pair(input_of(corner[0]), input_of(corner[2]))
    assert found.swapped().tentative == found.tentative
    np.testing.assert_array_equal(found.swapped().indices, found.indices[:, ::-1])
    np.testing.assert_array_equal(found.swapped().swapped().indices, found.indices)


def test_images_of_different_places_do_not_match(corner):
    rng = np.random.default_rng(0)
    other = MatchInput(unit_descriptors(random_descriptors(rng, 400)), rng.uniform(0, 1000, (400, 2)))
    found = match_pair(input_of(corner[0]), other)
    assert len(found) == 0 and found.indices.shape == (0, 2)


def test_descriptors_become_unit_vectors_whatever_their_contrast():
    rng = np.random.default_rng(0)
    values = random_descriptors(rng, 20)
    units = unit_descriptors(values)
    torch.testing.assert_close(units.norm(dim=1), torch.ones(20))
    torch.testing.assert_close(unit_descriptors(values // 2 * 2), unit_descriptors(values // 2), atol=1e-6, rtol=1e-5)
    assert torch.isfinite(unit_descriptors(np.zeros((2, 128), dtype=np.uint8))).all()


def test_mutual_nearest_agrees_with_brute_force():
    rng = np.random.default_rng(1)
    first = random_descriptors(rng, 60)
    second = np.concatenate([first[:40] // 2 + random_descriptors(rng, 40) // 3, random_descriptors(rng, 30)])
    a, b = (unit_descriptors(one) for one in (first, second))
    found = set(zip(*(one.tolist() for one in mutual_nearest(a, b))))
    similarity = (a @ b.T).numpy().astype(np.float64)
    distance = np.sqrt(2.0 - 2.0 * similarity)
    expected = set()
    for i in range(len(a)):
        j = int(distance[i].argmin())
        row, column = np.sort(distance[i]), np.sort(distance[:, j])
        if distance[:, j].argmin() == i and row[0] < 0.85 * row[1] and column[0] < 0.85 * column[1]:
            expected.add((i, j))
    assert found == expected and len(found) > 10
    back = set(zip(*(one.tolist() for one in mutual_nearest(b, a))))
    assert {(j, i) for i, j in back} == found
    assert len(mutual_nearest(a[:1], b)[0]) == 0 and len(mutual_nearest(a, b[:0])[0]) == 0


def scene(camera: Intrinsics, turn_degrees: float, seed: int = 0) -> tuple[MatchInput, MatchInput, np.ndarray]:
    """A cloud of points that two cameras beside each other see at an angle from their axes, some mismatched."""
    rng = np.random.default_rng(seed)
    angle = np.radians(turn_degrees)
    cloud = rng.normal(0, 0.6, (240, 3)) + 4.0 * np.array([np.sin(angle), 0.0, np.cos(angle)])
    descriptors = random_descriptors(rng, 240)
    wrong = np.flatnonzero(rng.random(240) < 0.2)
    order = np.arange(240)
    order[wrong] = np.roll(wrong, 1)
    inputs = []
    for shift, chosen in ((0.0, np.arange(240)), (0.8, order)):
        pixels = pixels_from_bearings(cloud[chosen] - [0.0, shift, 0.0], camera) + rng.normal(0, 0.5, (240, 2))
        rest = {"log_blur": np.zeros((240, 2), dtype=np.float32), "log_light": np.zeros(240, dtype=np.float32)}
        keypoints = replace(NO_KEYPOINTS, points=pixels.astype(np.float32), descriptors=descriptors, **rest)
        inputs.append(input_of(FrameFeatures(keypoints, camera, "")))
    return (*inputs, ~np.isin(np.arange(240), wrong))


@pytest.mark.parametrize(("camera", "turn"), [(PERSPECTIVE, 0.0), (FISHEYE, 0.0), (FISHEYE, 60.0), (FISHEYE, 85.0)])
def test_wrong_matches_are_left_out_by_what_the_camera_can_see(camera, turn):
    first, second, right = scene(camera, turn)
    assert (first.bearings is not None) == (camera is FISHEYE)
    found = match_pair(first, second)
    inlier = np.isin(np.arange(240), found.indices[:, 0])
    assert found.tentative == 240
    assert inlier[right].mean() > 0.95 and inlier[~right].mean() < 0.15
    np.testing.assert_array_equal(found.indices[:, 0], found.indices[:, 1])


def test_a_capture_of_both_kinds_of_camera_is_matched_in_the_plane_where_one_has_no_bearings():
    first, _, _ = scene(FISHEYE, 0.0)
    _, second, right = scene(PERSPECTIVE, 0.0)
    found = match_pair(first, second)
    assert found.tentative == 240 and len(found) <= right.sum() + 20


def test_too_few_or_too_poor_matches_count_as_none():
    first, second, _ = scene(PERSPECTIVE, 0.0)
    few = slice(0, FEWEST - 1)
    cut = [MatchInput(one.descriptors[few], one.points[few]) for one in (first, second)]
    assert len(match_pair(*cut)) == 0 and match_pair(*cut).tentative <= FEWEST - 1
    rng = np.random.default_rng(0)
    poor = MatchInput(second.descriptors, rng.uniform(-900, 900, (240, 2)))
    found = match_pair(first, poor)
    assert len(found) == 0 and found.tentative == 240
    assert len(NO_MATCHES) == 0 and isinstance(found, PairMatches)
