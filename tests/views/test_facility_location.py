"""Choosing a few frames that stand for all."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_capture import orbit

from mtcm_nerfstudio.views import facility_location as select_module
from mtcm_nerfstudio.views.facility_location import best_of_duplicates, facility_location, view_points, view_quality


def cloud(count, seed=0, dimensions=4):
    return np.random.default_rng(seed).normal(size=(count, dimensions))


def served(points, quality, chosen, most):
    """F by its definition, no shortcuts; the tree by Prim's algorithm."""
    radius = 2.0 * np.quantile(np.linalg.norm(points - np.median(points, axis=0), axis=1), 0.95)
    inside, tree = {0}, []
    while len(inside) < len(points):
        _, i, j = min(
            (np.linalg.norm(points[i] - points[j]), i, j) for i in inside for j in set(range(len(points))) - inside
        )
        inside.add(j)
        tree.append((i, j))
    places, weight = [], []
    for edges in ([(i, i + 1) for i in range(len(points) - 1)], tree):
        length = np.array([np.linalg.norm(points[i] - points[j]) for i, j in edges])
        length = np.minimum(length, 3.0 * np.median(length))
        weight += (length / length.sum()).tolist()
        places += [(points[i] + points[j]) / 2.0 for i, j in edges]
    weight = np.array(weight)
    far = np.linalg.norm(points[:, None] - np.array(places)[None], axis=2)
    unit = (
        far[np.unique(np.linspace(0, len(points) - 1, min(most, len(points))).round().astype(int))].min(axis=0).mean()
    )
    worth = np.maximum(1.0 - (far - 0.25 * unit * np.log(quality)[:, None]) / radius, 0.0)
    return float(worth[list(chosen)].max(axis=0) @ weight / weight.sum())


@given(st.integers(5, 16), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_the_shortcut_chooses_what_plain_greedy_chooses(count, most, seed):
    points, quality = cloud(count, seed), np.random.default_rng(seed).uniform(0.3, 1.0, count)
    chosen = []
    for _ in range(min(most, count)):
        left = [i for i in range(count) if i not in chosen]
        chosen.append(max(left, key=lambda i: served(points, quality, [*chosen, i], most)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select_module, "_EXCHANGES", 0)
        got = facility_location(points, quality, most=most)
    assert served(points, quality, got.chosen, most) == pytest.approx(served(points, quality, chosen, most), rel=1e-4)
    assert (np.diff(got.coverage) > -1e-6).all() and got.coverage[-1] <= 1.0 + 1e-3


@given(st.integers(6, 12), st.integers(1, 3), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_no_exchange_of_a_member_makes_the_set_worth_more_and_what_is_fixed_stays(count, most, seed):
    points, quality = cloud(count, seed), np.random.default_rng(seed).uniform(0.3, 1.0, count)
    fixed = np.array([seed % count])
    chosen = facility_location(points, quality, most=most + 1, first=fixed).chosen.tolist()
    assert chosen[0] == fixed[0] and len(set(chosen)) == most + 1
    worth = served(points, quality, chosen, most + 1)
    for k in range(1, most + 1):
        for other in set(range(count)) - set(chosen):
            assert served(points, quality, [*chosen[:k], other, *chosen[k + 1 :]], most + 1) <= worth + 1e-4


def test_on_a_path_no_view_is_far_from_a_kept_one_though_frames_crowd_in_places():
    places = np.concatenate([np.linspace(0.0, 1.0, 60), np.linspace(1.2, 6.0, 25)])
    chosen = facility_location(places[:, None], np.ones(len(places)), most=6).chosen
    assert np.diff(np.sort(places[chosen])).max() < 1.7 and places[chosen].max() > 5.0


def test_coverage_asks_for_as_few_as_do():
    points, quality = cloud(200), np.ones(200)
    got = facility_location(points, quality, coverage=0.9)
    assert got.coverage[-1] >= 0.9 > got.coverage[-2] and 1 < len(got.chosen) < 100
    whole = facility_location(points, quality, coverage=1.0)
    assert whole.coverage[-1] == pytest.approx(1.0) and len(got.chosen) < len(whole.chosen) <= 200


def test_what_is_fixed_comes_first_and_all_come_where_there_is_room():
    points, quality = cloud(30), np.ones(30)
    got = facility_location(points, quality, most=5, first=np.array([7, 3]))
    assert got.chosen[:2].tolist() == [7, 3] and len(got.chosen) == 5
    assert sorted(facility_location(points, quality, most=99).chosen) == list(range(30))


def test_of_two_clusters_both_are_served_and_by_their_good_frames():
    points = np.concatenate([cloud(20, 1) * 0.05, cloud(20, 2) * 0.05 + 5.0])
    quality = np.full(40, 0.02)
    quality[[4, 31]] = 1.0
    assert set(facility_location(points, quality, most=2).chosen.tolist()) == {4, 31}


def test_many_frames_take_little_memory_and_time():
    points = cloud(20_000, dimensions=23)
    tracemalloc.start()
    begun = time.perf_counter()
    got = facility_location(points, np.ones(20_000), most=50)
    seconds, peak = time.perf_counter() - begun, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(got.chosen.tolist())) == 50 and got.coverage[-1] > got.coverage[0]
    # All distances would be 20,000 × 4,096 floats: 330 MB. It takes seconds, on a busy machine too.
    assert peak < 150e6 and seconds < 60


@pytest.mark.parametrize("fewest", (1, 6, 99))
def test_a_coverage_that_little_serves_still_leaves_as_many_as_are_asked_for(fewest):
    points, quality = cloud(12), np.ones(12)
    got = facility_location(points, quality, coverage=0.01, fewest=fewest)
    assert len(got.chosen) == min(fewest, 12)


def test_views_are_as_far_apart_as_their_cameras_wherever_the_world_lies():
    c2w, states = orbit(12), cloud(12, dimensions=256)
    points = view_points(c2w, states)
    moved = c2w.copy()
    moved[:, :3, 3] = 7.0 * moved[:, :3, 3] + [3.0, -2.0, 1.0]
    apart, apart_moved = (np.linalg.norm(p[:, None] - p[None], axis=2) for p in (points, view_points(moved, states)))
    np.testing.assert_allclose(apart, apart_moved, atol=1e-6)
    assert apart[0, 1] < apart[0, 2] < apart[0, 4]


def test_frames_without_a_pose_or_state_have_a_place_all_the_same():
    c2w, states = orbit(8), cloud(8, dimensions=256)
    c2w[3], states[5] = np.nan, np.nan
    assert np.isfinite(view_points(c2w, states)).all()
    nothing = np.full((3, 4, 4), np.nan)
    assert np.isfinite(view_points(nothing, np.full((3, 256), np.nan))).all()


def test_quality_falls_with_doubt_blur_and_jumps():
    c2w = orbit(10)
    c2w[6, :3, 3] += 3.0
    evidence = tuple({"log_sharpness_over_partners": -1.0 if i == 2 else 0.3} for i in range(10))
    inconsistency = np.where(np.arange(10) == 4, 0.6, 0.0)
    quality = view_quality(inconsistency, evidence, c2w)
    assert quality[4] < quality[2] < quality[6] < quality[0] and quality.min() > 0.0
    assert quality[0] == pytest.approx(1.0, abs=0.05)


def test_duplicates_fold_into_the_best_of_them():
    c2w = orbit(10)
    c2w[4] = c2w[5]
    c2w[8] = c2w[9]
    embeddings = cloud(10, dimensions=384)
    embeddings[4] = embeddings[5]  # 8 and 9 stand in one place and show different things
    quality = np.linspace(0.5, 1.0, 10)
    leader = best_of_duplicates(c2w, embeddings, quality, np.ones(10, dtype=bool))
    assert leader.tolist() == [0, 1, 2, 3, 5, 5, 6, 7, 8, 9]
    assert best_of_duplicates(c2w, embeddings, quality, np.arange(10) != 5).tolist() == list(range(10))
