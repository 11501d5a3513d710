from typing import NamedTuple

import pytest
from evidence_walk import frames_of, matched

from mtcm_nerfstudio.capture.capture import Frame
from mtcm_nerfstudio.evidence.match_capture import MatchedCapture
from mtcm_nerfstudio.tokens.cache import Cache

COUNT = 12


class Walk(NamedTuple):
    """Frames of the corner, their cache, and their matches."""

    frames: list[Frame]
    cache: Cache
    found: MatchedCapture


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    folder = tmp_path_factory.mktemp("corner")
    cache = Cache(folder / "cache.sqlite")
    frames = frames_of(folder, COUNT)
    return Walk(frames, cache, matched(frames, cache))
