"""What becomes of the consistent frames when fewer are wanted."""

import numpy as np
import pytest
from layouts import walk

from mtcm_nerfstudio.views.select_views import CandidateFrames, SelectionSettings, select_views


def standing(places: int, frames: int = 60) -> CandidateFrames:
    """A walk that stands still at as many places, so that all frames of one show the same."""
    at = np.arange(frames) * places // frames
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(places, 384))[at]
    nothing = np.zeros(frames, dtype=bool)
    names = tuple(f"{i}.jpg" for i in range(frames))
    states = rng.normal(size=(places, 256))[at]
    return CandidateFrames(
        names, walk(places)[at], ~nothing, nothing, states, looks, np.full(frames, 0.1), ({},) * frames
    )


@pytest.mark.parametrize(("places", "left"), [(12, 12), (9, 9), (8, 8), (7, 8), (3, 8)])
def test_duplicates_come_back_only_until_as_many_frames_are_left_as_must_be(places, left):
    known = standing(places)
    arranged = select_views(known, SelectionSettings(max_frames=40, min_frames=8))
    kept = ~arranged.redundant
    assert kept.sum() == left
    assert len({tuple(pose[:3, 3]) for pose in known.c2w[kept]}) == places, "every place is still there"
    assert (~select_views(known, SelectionSettings(max_frames=2, min_frames=8)).redundant).sum() == 2
