"""Pairs to compare: few, enough, the same in any order of the frames and in any world."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_capture import orbit

from mtcm_nerfstudio.evidence.pairs import DEFAULT_PAIRS, PairSettings, select_pairs
from mtcm_nerfstudio.geometry.epipolar import small_motion
from mtcm_nerfstudio.geometry.poses import canonical_frame
from mtcm_nerfstudio.tokens.embedders import EMBEDDING_DIM

ONLY_TIME = PairSettings(in_time=3, in_pose=0, in_embedding=0)


def embeddings_of(c2w: np.ndarray, seed: int = 0) -> np.ndarray:
    """Embeddings that change smoothly with the place."""
    rng = np.random.default_rng(seed)
    content = c2w[:, :3, 3] @ rng.normal(size=(3, EMBEDDING_DIM))
    return content + 0.3 * rng.normal(size=content.shape)


def as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in pairs}


def every(count: int) -> np.ndarray:
    return np.ones(count, dtype=bool)


def in_own_unit(c2w: np.ndarray) -> np.ndarray:
    return canonical_frame(c2w).to_capture(c2w)


def test_pairs_are_sorted_and_each_comes_once_the_earlier_frame_first():
    c2w = in_own_unit(orbit(40))
    pairs = select_pairs(embeddings_of(c2w), c2w, every(40))
    assert (pairs[:, 0] < pairs[:, 1]).all() and len(as_set(pairs)) == len(pairs)
    np.testing.assert_array_equal(pairs, pairs[np.lexsort(pairs.T[::-1])])


def test_neighbours_in_time_in_pose_and_in_embedding_are_compared():
    count = 40
    c2w = orbit(count, turn=2 * np.pi)
    embeddings = np.random.default_rng(0).normal(size=(count, EMBEDDING_DIM))
    embeddings[7] = embeddings[29] + 0.1
    pairs = as_set(select_pairs(embeddings, in_own_unit(c2w), every(count)))
    assert all({(i, i + 1), (i, i + 2), (i, i + 3)} <= pairs for i in range(count - 3))
    assert (7, 29) in pairs, "alike"
    assert any(i < 4 and j > count - 5 for i, j in pairs), "the end of the walk lies beside its beginning"
    assert not any(18 < j - i < 22 and (i, j) != (7, 29) for i, j in as_set(select_pairs(
        embeddings * np.nan, in_own_unit(c2w), every(count)
    )))  # fmt: skip


@pytest.mark.parametrize("equal", ["poses", "embeddings", "both"])
def test_the_number_of_pairs_is_linear_whatever_is_equal(equal):
    count = 400
    rng = np.random.default_rng(0)
    c2w, embeddings = in_own_unit(orbit(count)), rng.normal(size=(count, EMBEDDING_DIM))
    if equal != "embeddings":
        c2w[:] = c2w[0]
    if equal != "poses":
        embeddings[:] = embeddings[0]
    pairs = select_pairs(embeddings, c2w, every(count))
    settings = DEFAULT_PAIRS
    assert len(pairs) <= count * (settings.in_time + settings.in_pose + settings.in_embedding)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert set(pairs.ravel().tolist()) == set(range(count))


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(2, 60),
    k=st.tuples(st.integers(0, 4), st.integers(0, 8), st.integers(0, 8)),
)
def test_no_list_is_longer_than_asked_for(seed, count, k):
    """Few distinct poses and embeddings, so that many distances are equal."""
    rng = np.random.default_rng(seed)
    c2w = in_own_unit(orbit(3)[rng.integers(0, 3, count)])
    embeddings = rng.normal(size=(3, EMBEDDING_DIM))[rng.integers(0, 3, count)]
    in_time, in_pose, in_embedding = k
    pairs = select_pairs(embeddings, c2w, every(count), PairSettings(in_time, in_pose, in_embedding))
    assert len(pairs) <= count * (in_time + in_pose + in_embedding)


def test_unlike_frames_are_not_compared():
    count = 60
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(count, EMBEDDING_DIM))
    settings = PairSettings(in_time=0, in_pose=0, in_embedding=6, least_similarity=0.3)
    embeddings[::10] += 5.0 * rng.normal(size=EMBEDDING_DIM)
    pairs = select_pairs(embeddings, np.full((count, 4, 4), np.nan), every(count), settings)
    centred = embeddings - embeddings.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert len(pairs) and ((centred[pairs[:, 0]] * centred[pairs[:, 1]]).sum(axis=1) > 0.2999).all()
    assert (0, 10) in as_set(pairs)


def test_the_nearest_by_embedding_are_those_of_brute_force():
    count = 50
    embeddings = np.random.default_rng(3).normal(size=(count, EMBEDDING_DIM))
    settings = PairSettings(in_time=0, in_pose=0, in_embedding=4, least_similarity=-1.0)
    found = as_set(select_pairs(embeddings, np.full((count, 4, 4), np.nan), every(count), settings))
    centred = embeddings - embeddings.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    similarity = centred @ centred.T
    np.fill_diagonal(similarity, -np.inf)
    near = np.argsort(-similarity, axis=1)[:, :4]
    assert found == {(min(i, int(j)), max(i, int(j))) for i in range(count) for j in near[i]}


def test_unreadable_frames_take_no_part_and_the_others_close_up():
    count = 30
    c2w = in_own_unit(orbit(count))
    readable = every(count)
    readable[[3, 4]] = False
    pairs = as_set(select_pairs(embeddings_of(c2w), c2w, readable))
    assert not any(3 in pair or 4 in pair for pair in pairs)
    assert (2, 5) in as_set(select_pairs(embeddings_of(c2w), c2w, readable, ONLY_TIME))


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0))
def test_a_similarity_transform_of_the_world_changes_nothing(seed, scale):
    """The caller gives poses in the capture's own frame of reference, which goes with the world."""
    c2w = orbit(30)
    embeddings = embeddings_of(c2w)
    other = small_motion(np.random.default_rng(seed).normal(size=(1, 6))) @ c2w
    other[:, :3, 3] *= scale
    here, there = (select_pairs(embeddings, in_own_unit(poses), every(30)) for poses in (c2w, other))
    np.testing.assert_array_equal(here, there)


def test_reading_backwards_gives_the_same_pairs():
    c2w = in_own_unit(orbit(30))
    embeddings = embeddings_of(c2w)
    here = as_set(select_pairs(embeddings, c2w, every(30)))
    there = as_set(select_pairs(embeddings[::-1], c2w[::-1], every(30)))
    assert here == {(29 - j, 29 - i) for i, j in there}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_next_to_no_frames_have_next_to_no_pairs(count):
    c2w, embeddings = orbit(count), np.zeros((count, EMBEDDING_DIM))
    assert select_pairs(embeddings, c2w, every(count)).shape == (max(count - 1, 0), 2)


def test_without_poses_and_embeddings_time_is_left():
    nothing = np.full((20, 4, 4), np.nan), np.full((20, EMBEDDING_DIM), np.nan)
    pairs = select_pairs(nothing[1], nothing[0], every(20))
    np.testing.assert_array_equal(pairs, select_pairs(nothing[1], nothing[0], every(20), ONLY_TIME))
    assert (np.diff(pairs, axis=1) <= 3).all()
