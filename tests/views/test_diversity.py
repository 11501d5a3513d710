"""The numbers of diversity are those of known layouts."""

import numpy as np
import pytest
from layouts import rings, walk

from mtcm_nerfstudio.views.diversity import diversity, table

NONE = np.zeros((0, 4, 4))


def measured(c2w, kept=None, suggested=NONE):
    everybody = np.ones(len(c2w), dtype=bool)
    return diversity(c2w, everybody if kept is None else kept, suggested, everybody)


def test_a_ring_in_numbers():
    ring = measured(rings(24, (0.0,)))["all"]
    assert ring.views == 24 and ring.coverage == 1.0
    assert ring.azimuth_entropy > 0.95 and ring.elevation_entropy == 0.0
    assert ring.mean_gap_degrees == pytest.approx(15.0) and ring.largest_gap_degrees < 30.0
    assert ring.nearest_baseline == pytest.approx(2.0 * np.sin(np.radians(7.5)), rel=1e-6)
    assert ring.jerk == pytest.approx((2.0 * np.sin(np.radians(7.5))) ** 2, rel=1e-3)


def test_views_all_alike_count_as_one_and_all_different_as_many():
    alike = np.repeat(rings(3, (0.0,)), 4, axis=0)
    assert measured(alike)["all"].effective_views == pytest.approx(3.0, rel=0.02)
    assert measured(rings(6, (0.0,)))["all"].effective_views == pytest.approx(6.0, rel=0.02)


def test_dropping_half_a_ring_shows_and_suggestions_mend_it():
    c2w = rings(24, (0.0,))
    kept = np.arange(24) < 12
    found = measured(c2w, kept, c2w[12::2])
    assert found["kept"].coverage < 0.7 < found["kept + suggested"].coverage
    assert found["kept"].largest_gap_degrees > 150.0 > 40.0 > found["kept + suggested"].largest_gap_degrees
    rows = table(found)
    assert rows[0] == ["", "all", "kept", "kept + suggested"] and rows[1] == ["views", "24", "12", "18"]
    assert all(len(row) == 4 and all(row) for row in rows[1:])


def test_a_walk_and_frames_without_a_pose_are_measured_too():
    c2w = walk()
    c2w[4] = np.nan
    found = measured(c2w)["all"]
    assert found.views == 29 and found.coverage > 0.0 and np.isfinite(found.effective_views)


def test_nothing_to_measure_is_said_by_nothing():
    assert measured(np.full((3, 4, 4), np.nan)) == {}
    assert len(table({})) >= 1
    one = measured(rings(), np.arange(48) < 1)
    assert one["kept"].views == 1 and np.isnan(one["kept"].coverage)
