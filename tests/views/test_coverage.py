import numpy as np
import pytest
from tiny_capture import orbit, random_similarity

from mtcm_nerfstudio.views.coverage import coverage_gaps

COUNT = 40


def everything(value: bool = True) -> np.ndarray:
    return np.full(COUNT, value)


def test_a_long_gap_is_a_hole_and_single_frames_are_not():
    kept = everything()
    kept[[3, 20, 21]] = False
    assert coverage_gaps(orbit(COUNT), kept, everything()) == ()
    kept[10:25] = False
    (hole,) = coverage_gaps(orbit(COUNT), kept, everything())
    assert 10 < hole.first <= 17 <= hole.last < 24
    assert hole.angle_degrees == pytest.approx(270 / 39 * 7.5, abs=10)


def test_a_frame_at_a_wrong_pose_leaves_no_hole():
    kept, trusted = everything(), everything()
    kept[10:25] = trusted[10:25] = False
    assert coverage_gaps(orbit(COUNT), kept, trusted) == ()


def test_holes_do_not_depend_on_the_world_or_on_broken_poses():
    kept = everything()
    kept[10:25] = False
    c2w = orbit(COUNT)
    (here,) = coverage_gaps(c2w, kept, everything())
    (there,) = coverage_gaps(random_similarity(3).move(c2w), kept, everything())
    assert (here.first, here.last) == (there.first, there.last)
    c2w[30] = np.nan
    assert len(coverage_gaps(c2w, kept, everything())) == 1


def test_nothing_kept_is_no_matter_of_holes():
    assert coverage_gaps(orbit(COUNT), everything(False), everything()) == ()
