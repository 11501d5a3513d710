"""Differences between neighbours: against brute force, and blind to what is not visible."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcm_nerfstudio.consistency import neighbours
from mtcm_nerfstudio.tokens.tokens import POSE


def flags(bits: list[bool]) -> torch.Tensor:
    return torch.tensor([bits])


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_previous_and_next_visible_are_brute_force(bits: list[bool]) -> None:
    before, after = neighbours.previous_visible(flags(bits))[0], neighbours.next_visible(flags(bits))[0]
    for i in range(len(bits)):
        assert before[i] == max((j for j in range(i) if bits[j]), default=-1)
        assert after[i] == min((j for j in range(i + 1, len(bits)) if bits[j]), default=-1)


def test_a_cubic_path_has_no_smooth_residual() -> None:
    t = torch.arange(9.0, dtype=torch.float64)
    pose = torch.zeros(1, 9, 7, dtype=torch.float64)
    pose[0, :, :3] = torch.stack([t**3, 2 * t**2, -t], dim=1)
    pose[0, :, 3] = 1.0
    residual, known = neighbours.pose_against_time(pose, flags([True] * 9))
    assert known.all()
    torch.testing.assert_close(residual[0, 2:-2, 1], torch.zeros(5, 7, dtype=torch.float64))
    assert residual[0, 2:-2, 0].abs().max() > 1


def test_the_sign_of_a_quaternion_means_nothing() -> None:
    standardised = torch.randn(1, 8, 394)
    turned = standardised.clone()
    turned[0, 3, POSE.start + 3 : POSE.stop] *= -1
    visible = torch.ones(1, 8, 5, dtype=torch.bool)
    a, b = (neighbours.compare(x, visible, 3) for x in (standardised, turned))
    torch.testing.assert_close(a.sizes, b.sizes, atol=1e-5, rtol=1e-5)


@settings(max_examples=20)
@given(seed=st.integers(0, 999))
def test_nearest_is_brute_force(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(1, 9, 3, generator=generator)
    visible = torch.rand(1, 9, generator=generator) > 0.3
    distance = neighbours.distances(points, points)
    index, known = neighbours.nearest(distance, visible, 2)
    for i in np.flatnonzero(visible[0]):
        others = [j for j in np.flatnonzero(visible[0]) if j != i]
        found = [int(j) for j, use in zip(index[0, i], known[0, i]) if use]
        expected = sorted(others, key=lambda j: float((points[0, i] - points[0, j]).norm()))[:2]
        # Frames whose distances differ by less than can be told apart may stand for each other.
        np.testing.assert_allclose(distance[0, i, found], distance[0, i, expected], atol=1e-3)
        assert set(found) <= set(others) and len(set(found)) == len(found)
    assert not known[0, ~visible[0]].any()


def test_one_frame_has_no_neighbours() -> None:
    comparison = neighbours.compare(torch.randn(1, 1, 394), torch.ones(1, 1, 5, dtype=torch.bool), 3)
    assert not comparison.known.any() and not comparison.sizes.any() and not comparison.image.any()


def test_typical_size_is_the_lower_quartile_of_what_is_known() -> None:
    sizes = torch.arange(9.0).flip(0)[None, :, None]
    known = torch.ones(1, 9, 1, dtype=torch.bool)
    assert neighbours.typical_size(sizes, known).item() == 2.0
    assert neighbours.typical_size(sizes, ~known).item() == 0.0


def test_a_turned_camera_stands_out_against_time() -> None:
    angle = torch.linspace(0, 2, 20, dtype=torch.float64) / 2
    pose = torch.zeros(1, 20, 7, dtype=torch.float64)
    pose[0, :, 3], pose[0, :, 5] = angle.cos(), angle.sin()
    pose[0, 9, 3:] = torch.tensor([np.cos(angle[9] + 0.026), 0, np.sin(angle[9] + 0.026), 0])  # 3 degrees
    residual, _ = neighbours.pose_against_time(pose, flags([True] * 20))
    size = neighbours.position_and_rotation(residual)[0, :, 1, 1]
    assert size.argmax() == 9
