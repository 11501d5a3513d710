"""Missing views are found where they are missing."""

import numpy as np
import pytest
from layouts import rings, walk
from tiny_capture import orbit

from mtcm_nerfstudio.geometry.poses import rotation_angle_degrees
from mtcm_nerfstudio.views.suggestion.candidate_poses import Views, path_gap_poses
from mtcm_nerfstudio.views.suggestion.suggest_views import _Candidates as Places
from mtcm_nerfstudio.views.suggestion.suggest_views import is_valid_viewpoint, suggest


def found(missing, c2w, suggestions):
    """Share of the missing views that have a suggestion within 15° and a quarter of the cameras' spread."""
    spread = Views.of(c2w).spread
    poses = np.stack([one.c2w for one in suggestions])
    shift = np.linalg.norm(missing[:, None, :3, 3] - poses[None, :, :3, 3], axis=2) / spread
    pairs = np.broadcast_arrays(missing[:, None, :3, :3], poses[None, :, :3, :3])
    turn = rotation_angle_degrees(*pairs)
    return ((shift < 0.25) & (turn < 15.0)).any(axis=1).mean()


@pytest.mark.parametrize("hidden", [slice(5, 10), slice(27, 34), [*range(6, 11), *range(30, 35)]])
def test_a_hole_in_rings_is_filled(hidden):
    c2w = rings()
    rest = np.delete(c2w, hidden, axis=0)
    suggestions = suggest(rest, len(c2w) - len(rest))
    assert found(c2w[hidden], rest, suggestions) >= 0.8


def test_a_hole_of_a_tilted_turntable_is_filled_too():
    tilt = np.eye(4)
    tilt[:3, :3] = [[1, 0, 0], [0, np.cos(1.2), -np.sin(1.2)], [0, np.sin(1.2), np.cos(1.2)]]
    c2w = tilt @ rings(levels=(20.0,))
    rest = np.delete(c2w, slice(8, 13), axis=0)
    assert found(c2w[8:13], rest, suggest(rest, 5)) >= 0.8


def test_a_gap_in_a_walk_is_filled():
    c2w = walk()
    rest = np.delete(c2w, slice(12, 18), axis=0)
    assert found(c2w[12:18], rest, suggest(rest, 6)) >= 0.8


def test_the_biggest_hole_comes_first_and_gains_add_up_to_a_share():
    c2w = np.delete(rings(levels=(0.0,)), [3, *range(12, 18)], axis=0)
    suggestions = suggest(c2w, 8)
    gains = [one.gain for one in suggestions]
    assert gains == sorted(gains, reverse=True) and 0.0 < sum(gains) <= 1.0
    middle = np.degrees(np.arctan2(suggestions[0].c2w[1, 3], suggestions[0].c2w[0, 3])) % 360.0
    assert 12 * 15.0 <= middle <= 17 * 15.0
    assert set(suggestions[0].seen_best_by[:2]) <= set(range(8, 15))


def test_turning_moving_and_scaling_the_world_takes_the_suggestions_along():
    c2w = np.delete(rings()[:40], slice(5, 10), axis=0)  # not the same from all sides
    c2w[:, :3, 3] *= 1.0 + 0.02 * np.sin(np.arange(len(c2w)))[:, None]
    turn = np.eye(4)
    turn[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    moved = turn @ c2w
    moved[:, :3, 3] = 5.0 * moved[:, :3, 3] + [1.0, 2.0, 3.0]
    for one, other in zip(suggest(c2w, 4), suggest(moved, 4), strict=True):
        expected = turn @ one.c2w
        expected[:3, 3] = 5.0 * expected[:3, 3] + [1.0, 2.0, 3.0]
        np.testing.assert_allclose(other.c2w, expected, atol=1e-5)


def test_a_full_ring_lacks_nothing_along_its_path():
    views = Views.of(rings(levels=(0.0,)))
    assert len(path_gap_poses(views, 5)) == 0


@pytest.mark.parametrize("views", [6, 8, 11])
def test_the_side_of_an_arc_that_nobody_went_to_is_not_suggested(views):
    assert suggest(rings(levels=(20.0,))[:views], 8) == ()


def test_a_walk_is_not_carried_on_around_the_corner():
    c2w = walk(12)
    corner = rings(levels=(0.0,))[:5]
    corner[:, :3, 3] += c2w[-1, :3, 3]
    views = np.concatenate([c2w, corner])
    ahead = c2w[-1, :3, 3] - c2w[-2, :3, 3]  # nobody walked on: past the corner nothing is suggested
    furthest = (views[:, :3, 3] @ ahead).max() + 0.5 * ahead @ ahead
    assert all(one.c2w[:3, 3] @ ahead < furthest for one in suggest(views, 8))


def test_too_few_views_or_no_wish_give_nothing():
    assert suggest(orbit(3), 5) == () and suggest(rings(), 0) == ()


def test_all_in_one_place_is_no_crash():
    assert len(suggest(np.tile(np.eye(4), (6, 1, 1)), 3)) <= 3


def test_poses_inside_things_or_turned_away_are_refused():
    c2w = rings()
    views = Views.of(c2w)
    inside, away = c2w[:1].copy(), c2w[:1].copy()
    inside[0, :3, 3] *= 0.1
    away[0, :3, :3] = away[0, :3, :3] @ np.diag([-1.0, 1.0, -1.0])
    some = np.concatenate([c2w[:2], inside, away])
    assert is_valid_viewpoint(some, views).tolist() == [True, True, False, False]
    points = np.random.default_rng(0).normal(size=(500, 3)) * 0.3
    assert is_valid_viewpoint(some, views, points).tolist() == [True, True, False, False]
    wall = c2w[:1].copy()
    wall[0, :3, 3] = [0.0, 0.0, 9.0]  # looks past all points from afar
    assert not is_valid_viewpoint(wall, views, points)[0]


def test_what_the_transformer_imagines_is_taken_where_it_covers_others_best():
    views, places = Views.of(walk(12)), np.tile(np.eye(4), (3, 1, 1))
    places[:, 0, 3] = [100.0, 102.0, 101.0]  # two that should be covered, and one between them that is imagined
    infilled = Places(places, on_path=np.array([0.5, 0.5, 0.0]), in_space=np.zeros(3))
    assert infilled.select_greedily(views, 1, 1.0)[0] == [2]
    assert infilled.only(np.array([True, True, False])).select_greedily(views, 1, 1.0)[0] == [0]
    wavy, gone = walk(24), [8, 9, 10]
    wavy[:, 1, 3], wavy[:, 2, 3] = np.sin(np.arange(24) * 0.7), 0.3 * np.cos(np.arange(24) * 0.5)
    rest = np.delete(wavy, gone, axis=0)
    guesses, without = suggest(rest, 3, infilled=wavy[gone]), suggest(rest, 3)
    assert sum(np.allclose(one.c2w, pose) for one in guesses for pose in wavy[gone]) == 2
    assert not any(np.allclose(one.c2w, pose) for one in without for pose in wavy[gone])
    with_it = suggest(walk(12), 5, infilled=places[:1])
    assert not any(np.allclose(one.c2w, places[0]) for one in with_it), "nothing wants covering there"
