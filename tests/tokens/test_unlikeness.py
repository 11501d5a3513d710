"""Photos of another place stand apart."""

import numpy as np
import pytest

from mtcm_nerfstudio.tokens.embedders import EMBEDDING_DIM
from mtcm_nerfstudio.tokens.unlikeness import unlikeness


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_photos_of_another_place_stand_apart_from_half_of_the_capture_however_many_they_are(share):
    rng = np.random.default_rng(7)
    place, elsewhere = rng.normal(size=(2, EMBEDDING_DIM))
    foreign = np.arange(40) < round(40 * share)
    about = np.where(foreign[:, None], elsewhere, place)
    looks = unlikeness(about + 0.3 * rng.normal(size=about.shape))[:, 0]
    assert looks[foreign].min() > 1.0 > 0.2 > np.abs(looks[~foreign]).max()


def test_unlikeness_knows_no_order_and_passes_over_frames_without_an_embedding():
    embeddings = np.random.default_rng(5).normal(size=(12, EMBEDDING_DIM))
    embeddings[4] = np.nan
    looks = unlikeness(embeddings)
    assert not looks[4].any() and np.isfinite(looks).all() and np.abs(looks).max() > 0
    turned = np.random.default_rng(1).permutation(12)
    np.testing.assert_allclose(unlikeness(embeddings[turned]), looks[turned], atol=1e-12)
    assert not unlikeness(embeddings[:2]).any(), "two frames cannot tell which of them is odd"
    same = unlikeness(np.ones((5, EMBEDDING_DIM)))
    assert not same.any(), "the same image again and again"


def test_the_three_distances_are_those_that_sorting_gives():
    embeddings = np.random.default_rng(6).normal(size=(21, EMBEDDING_DIM))
    apart = np.sort(np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2), axis=1)[:, 1:]
    sizes = np.stack([apart[:, 10], apart[:, :8].mean(axis=1), apart[:, 0]], axis=1) + 0.1
    np.testing.assert_allclose(unlikeness(embeddings), np.log(sizes / np.median(sizes, axis=0)), atol=1e-9)
