"""Photos of another place are strange, one or many; what matches vouch for is not."""

import numpy as np
import pytest

from mtcm_nerfstudio.tokens.embedders import EMBEDDING_DIM
from mtcm_nerfstudio.tokens.evidence.assess import FRAME_NUMBERS, PAIR_NUMBERS, Evidence
from mtcm_nerfstudio.tokens.strangeness import strangeness, unlikeness


def trusting(trust: np.ndarray) -> Evidence:
    frames = np.zeros((len(trust), len(FRAME_NUMBERS)))
    frames[:, FRAME_NUMBERS.index("trust")] = trust
    return Evidence(frames, np.zeros((0, 2), dtype=int), np.zeros((0, 2, len(PAIR_NUMBERS))))


def two_places(share: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    place, elsewhere = rng.normal(size=(2, EMBEDDING_DIM))
    foreign = np.arange(40) < round(40 * share)
    about = np.where(foreign[:, None], elsewhere, place)
    return about + 0.3 * rng.normal(size=about.shape), foreign


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_photos_of_another_place_are_unlike_half_of_the_capture_however_many_they_are(share):
    embeddings, foreign = two_places(share)
    looks = unlikeness(embeddings)
    assert looks[foreign].min() > 1.0 > 0.2 > np.abs(looks[~foreign]).max()


def test_a_frame_is_as_strange_as_matches_do_not_vouch_for_it():
    embeddings, foreign = two_places(0.2)
    alone, half, vouched = (strangeness(embeddings, trusting(np.where(foreign, t, 1.0))) for t in (0.0, 0.5, 1.0))
    assert alone[foreign].min() > 0.8 and not alone[~foreign].any()
    np.testing.assert_allclose(half, 0.5 * alone)
    assert not vouched.any() and not strangeness(embeddings, None).any()


def test_where_no_pictures_match_nobody_is_strange():
    embeddings, _ = two_places(0.2)
    assert not strangeness(embeddings, trusting(np.zeros(40))).any()


def test_unlikeness_knows_no_order_and_passes_over_frames_without_an_embedding():
    embeddings = np.random.default_rng(5).normal(size=(12, EMBEDDING_DIM))
    embeddings[4] = np.nan
    looks = unlikeness(embeddings)
    assert looks[4] == 0 and np.isfinite(looks).all() and np.abs(looks).max() > 0
    turned = np.random.default_rng(1).permutation(12)
    np.testing.assert_allclose(unlikeness(embeddings[turned]), looks[turned], atol=1e-12)
    assert not unlikeness(embeddings[:2]).any(), "two frames cannot tell which of them is odd"
    assert not unlikeness(np.ones((5, EMBEDDING_DIM))).any(), "the same image again and again"


def test_the_distance_is_that_which_sorting_gives():
    embeddings = np.random.default_rng(6).normal(size=(21, EMBEDDING_DIM))
    apart = np.sort(np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2), axis=1)[:, 1:]
    expected = np.log((apart[:, 10] + 0.1) / np.median(apart[:, 10] + 0.1))
    np.testing.assert_allclose(unlikeness(embeddings), expected, atol=1e-9)
