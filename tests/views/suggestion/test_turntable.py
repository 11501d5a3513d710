"""Paths that turn are carried on where they break off."""

import numpy as np
import pytest
from layouts import rings, walk

from mtcm_nerfstudio.views.suggestion.candidate_poses import Views
from mtcm_nerfstudio.views.suggestion.turntable import continue_turntable, fit_turntable_motion


def one_ring(tilt: float = 0.0, shift: float = 0.0) -> np.ndarray:
    """24 views of a turntable whose axis leans by ``tilt`` radians."""
    lean = np.eye(4)
    lean[:3, :3] = [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    c2w = lean @ rings(levels=(20.0,))
    c2w[:, :3, 3] += shift
    return c2w


def distance(c2w: np.ndarray, other: np.ndarray) -> float:
    """Largest distance from a pose of the first to the nearest of the others, all numbers of the matrices."""
    return np.abs(c2w[:, None] - other[None]).max(axis=(2, 3)).min(axis=1).max()


@pytest.mark.parametrize("tilt", [0.0, 0.7, 1.5])
def test_the_turn_of_a_turntable_and_its_axis_are_found(tilt):
    c2w = one_ring(tilt, shift=3.0)
    turning = fit_turntable_motion(c2w[:6])
    assert np.degrees(turning.turn.magnitude()) == pytest.approx(15.0, abs=1e-6)
    np.testing.assert_allclose(turning.on(c2w[0], np.arange(24.0)), c2w, atol=1e-9)


@pytest.mark.parametrize("tilt", [0.0, 1.2])
@pytest.mark.parametrize("missing", [range(8, 19), range(2, 5)])
def test_what_is_missing_of_a_ring_is_found_even_where_it_is_almost_half_of_it(tilt, missing):
    c2w = one_ring(tilt)
    poses, counts = continue_turntable(Views.of(np.delete(c2w, missing, axis=0)), most=20)
    assert distance(c2w[list(missing)], poses[counts > 0]) < 1e-6
    assert len(poses[counts > 0]) <= 4 * len(missing), "from both sides, and from both ends of the capture"


def test_a_ring_that_begins_and_ends_in_its_middle_is_closed():
    c2w = one_ring(0.5)
    poses, counts = continue_turntable(Views.of(c2w[5:17]), most=20)
    assert distance(np.delete(c2w, range(5, 17), axis=0), poses[counts > 0]) < 1e-6


def test_an_arc_counts_for_nothing_where_it_would_have_to_go_all_the_way_round():
    poses, counts = continue_turntable(Views.of(one_ring()[:6]), most=4)
    assert len(poses) == 8 and not counts.any()


def test_a_full_ring_and_a_straight_walk_are_not_carried_on():
    poses, counts = continue_turntable(Views.of(one_ring()), most=20)
    assert len(poses) == len(counts) == 0
    assert fit_turntable_motion(walk()[:8]) is None
    rng = np.random.default_rng(0)
    anyhow = one_ring()
    anyhow[:, :3, 3] += rng.normal(size=(24, 3))
    assert fit_turntable_motion(anyhow[:9]) is None, "no circle fits these"


def test_two_or_three_views_say_nothing():
    for count in (1, 2, 3):
        poses, counts = continue_turntable(Views.of(one_ring()[:count]), most=5)
        assert len(poses) == len(counts) == 0
