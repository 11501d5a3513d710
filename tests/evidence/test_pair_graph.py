"""Sums over the graph of pairs, clusters of agreeing frames, support, and offsets from differences."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcm_nerfstudio.evidence import pair_graph
from mtcm_nerfstudio.evidence.pair_graph import (
    PairGraph,
    Support,
    cluster_frames,
    pair_graph_support,
    solve_pairwise_offsets,
)


def chain(count: int, reach: int = 3) -> np.ndarray:
    """Pairs of frames that are at most ``reach`` apart."""
    return np.array([(i, j) for i in range(count) for j in range(i + 1, min(i + reach + 1, count))])


def support_of(pairs: np.ndarray, agreement: np.ndarray, count: int, weight: float = 0.6) -> Support:
    return pair_graph_support(pairs, np.full(len(pairs), weight), agreement, count)


def test_each_end_of_a_pair_counts_for_its_own_frame():
    graph = PairGraph(np.array([[0, 1], [1, 2]]), 4)
    values = np.array([[1.0, -1.0], [5.0, -5.0]])
    assert graph.total(values).tolist() == [1.0, 4.0, -5.0, 0.0]
    assert graph.mean(values, np.ones((2, 2))).tolist() == [1.0, 2.0, -5.0, 0.0]
    assert graph.largest(values).tolist() == [1.0, 5.0, -5.0, 0.0]
    assert graph.largest(values, 2).tolist() == [1.0, -1.0, -5.0, 0.0]
    assert graph.median(values, np.array([[1.0, 3.0], [1.0, 1.0]])).tolist() == [1.0, -1.0, -5.0, 0.0]
    assert graph.of_other(np.array([7.0, 8.0, 9.0, 0.0])).tolist() == [[8.0, 7.0], [9.0, 8.0]]
    assert graph.minus_other(np.array([7.0, 8.0, 9.0, 0.0])).tolist() == [[-1.0, 1.0], [-1.0, 1.0]]


@given(st.integers(0, 10_000))
def test_medians_and_largest_values_are_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    pairs = chain(9, 4)[rng.random(len(chain(9, 4))) < 0.6]
    graph, values = PairGraph(pairs, 9), rng.normal(size=(len(pairs), 2))
    for frame in range(9):
        own = np.sort(np.concatenate([values[pairs[:, side] == frame, side] for side in range(2)]))
        assert graph.largest(values)[frame] == (own[-1] if len(own) else 0.0)
        assert graph.largest(values, 3)[frame] == (own[-min(3, len(own))] if len(own) else 0.0)
        found = graph.median(values, np.ones((len(pairs), 2)))[frame]
        assert found == (own[(len(own) - 1) // 2] if len(own) else 0.0) or found == own[len(own) // 2]


def test_no_pairs_give_zeros():
    graph, nothing = PairGraph(np.zeros((0, 2), dtype=int), 3), np.zeros((0, 2))
    for values in (graph.total(nothing), graph.mean(nothing, nothing), graph.largest(nothing)):
        assert values.tolist() == [0.0] * 3
    assert graph.median(nothing, nothing).tolist() == [0.0] * 3
    found = pair_graph_support(np.zeros((0, 2), dtype=int), np.zeros(0), np.zeros(0), 3)
    assert found.support.tolist() == [0.0] * 3 and found.conflict.tolist() == [0.0] * 3
    assert solve_pairwise_offsets(np.zeros((0, 2), dtype=int), np.zeros(0), np.zeros(0), 3).tolist() == [0.0] * 3
    assert cluster_frames(np.zeros((0, 2), dtype=int), np.zeros(0), 0).shape == (0,)


@pytest.mark.parametrize("reach", [1, 3])
def test_support_does_not_fade_along_a_chain(reach):
    pairs = chain(300, reach)
    found = support_of(pairs, np.full(len(pairs), 0.95), 300)
    assert found.support.min() > 0.5
    assert len(set(found.cluster.tolist())) == 1 and found.conflict.max() < 0.1
    np.testing.assert_allclose(found.component_share, 1.0)


@pytest.mark.parametrize("length", [1, 3, 8])
def test_a_run_of_moved_frames_is_cut_off_though_one_pair_agrees_by_chance(length):
    count, run = 60, np.arange(20, 20 + length)
    pairs = np.array([(i, j) for i in range(count) for j in range(i + 1, count) if min(j - i, count - j + i) <= 4])
    across = np.isin(pairs, run).sum(axis=1) == 1
    agreement = np.where(across, 0.05, 0.95)
    if length > 1:
        agreement[np.flatnonzero(across)[0]] = 0.9
    found = support_of(pairs, agreement, count)
    moved = np.isin(np.arange(count), run)
    assert found.support[moved].max() < 0.7 * found.support[~moved].min()
    assert found.conflict[moved][[0, -1]].min() > 0.5, "the ends of the run contradict the frames beside them"
    assert len({*found.cluster[moved].tolist()} & {*found.cluster[~moved].tolist()}) == 0
    assert found.support[~moved].min() > 0.4


def two_rooms(agreement: float) -> tuple[np.ndarray, np.ndarray]:
    """Two rooms of twenty frames each, and one pair that joins them."""
    pairs = np.concatenate([chain(20), chain(20) + 20, [[19, 20]]])
    return pairs, np.append(np.full(len(pairs) - 1, 0.95), agreement)


def test_two_rooms_that_one_weak_pair_joins_both_keep_their_support():
    pairs, agreement = two_rooms(0.8)
    weight = np.append(np.full(len(pairs) - 1, 0.6), 0.25)
    found = pair_graph_support(pairs, weight, agreement, 40)
    assert found.support.min() > 0.5
    np.testing.assert_allclose(found.cluster_share, 1.0)
    np.testing.assert_allclose(found.component_share, 1.0)


def test_the_smaller_of_two_rooms_with_nothing_in_common_has_less_support_and_no_conflict():
    pairs = np.concatenate([chain(30), chain(6) + 30])
    found = support_of(pairs, np.full(len(pairs), 0.95), 36)
    assert found.support[30:].max() < found.support[:30].min()
    assert not found.conflict[30:].any()
    np.testing.assert_allclose(found.cluster_share[30:], 6 / 30)
    np.testing.assert_allclose(found.component_share[30:], 6 / 30)


@given(st.integers(0, 10_000))
def test_support_lies_between_nought_and_one_and_knows_no_order(seed):
    rng = np.random.default_rng(seed)
    pairs = chain(12, 4)
    weight, agreement = rng.random((2, len(pairs)))
    found = pair_graph_support(pairs, weight, agreement, 12)
    for values in (found.support, found.conflict, found.cluster_share, found.component_share):
        assert values.min() >= 0.0 and values.max() <= 1.0 + 1e-9
    backwards = np.sort(11 - pairs, axis=1)
    turned = pair_graph_support(backwards, weight, agreement, 12)
    np.testing.assert_allclose(turned.component_share[::-1], found.component_share, atol=1e-12)


def partitions(count: int):
    """All partitions of ``count`` frames, as numbers of clusters."""
    for labels in itertools.product(range(count), repeat=count):
        if all(label <= max(labels[:i], default=-1) + 1 for i, label in enumerate(labels)):
            yield labels


def inner_affinity(labels, pairs, affinity) -> float:
    return sum(value for (i, j), value in zip(pairs, affinity) if labels[i] == labels[j])


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_clusters_of_tiny_graphs_are_those_of_brute_force(seed):
    """Two planted clusters, with pairs inside that agree and pairs across that do not, some of them only nearly."""
    rng = np.random.default_rng(seed)
    planted = rng.integers(0, 2, 5)
    pairs = np.array(list(itertools.combinations(range(5), 2)))
    inside = planted[pairs[:, 0]] == planted[pairs[:, 1]]
    affinity = np.where(inside, 1.0, -1.0) * rng.uniform(0.3, 1.0, len(pairs))
    best = max(partitions(5), key=lambda labels: inner_affinity(labels, pairs, affinity))
    found = cluster_frames(pairs, affinity, 5)
    together = found[pairs[:, 0]] == found[pairs[:, 1]]
    expected = np.array([best[i] == best[j] for i, j in pairs])
    np.testing.assert_array_equal(together, expected)
    assert inner_affinity(found, pairs, affinity) == pytest.approx(inner_affinity(best, pairs, affinity))


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_clusters_are_never_worse_than_all_frames_alone_and_no_two_of_them_belong_together(seed):
    rng = np.random.default_rng(seed)
    pairs = chain(20, 4)
    affinity = rng.normal(size=len(pairs))
    found = cluster_frames(pairs, affinity, 20)
    assert inner_affinity(found, pairs, affinity) >= 0
    for a, b in itertools.combinations(set(found.tolist()), 2):
        own = found[pairs]
        between = ((own == [a, b]).all(axis=1) | (own == [b, a]).all(axis=1)) * affinity
        assert between.sum() <= 1e-6, "they would have been joined"


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_known_offsets_are_recovered(seed):
    rng = np.random.default_rng(seed)
    pairs = chain(15)
    true = rng.normal(size=15)
    true -= np.median(true)
    found = solve_pairwise_offsets(pairs, true[pairs[:, 0]] - true[pairs[:, 1]], np.ones(len(pairs)), 15)
    np.testing.assert_allclose(found, true, atol=0.3)
    assert np.median(found) == pytest.approx(0.0, abs=1e-9)


def test_large_graphs_are_solved_as_small_ones_are(monkeypatch):
    """Iteratively on a sparse matrix, where the small ones are solved at once."""
    rng = np.random.default_rng(0)
    pairs = chain(60, 4)
    difference, weight = rng.normal(size=len(pairs)), rng.random(len(pairs))
    at_once = solve_pairwise_offsets(pairs, difference, weight, 60)
    monkeypatch.setattr(pair_graph, "_DENSE", 0)
    np.testing.assert_allclose(solve_pairwise_offsets(pairs, difference, weight, 60), at_once, atol=1e-4)


@pytest.mark.parametrize("value", [-1.0, 0.5, 3.0])
def test_the_difference_of_a_faulty_frame_becomes_its_own(value):
    pairs = chain(15, 2)
    true = np.zeros(15)
    true[6] = value
    difference = true[pairs[:, 0]] - true[pairs[:, 1]] + np.random.default_rng(0).normal(0, 0.02, len(pairs))
    found = solve_pairwise_offsets(pairs, difference, np.ones(len(pairs)), 15)
    np.testing.assert_allclose(found, true, atol=0.15)


def test_differences_that_are_not_known_or_without_weight_count_for_nothing():
    pairs = chain(12)
    true = np.linspace(-0.5, 0.5, 12)
    difference = true[pairs[:, 0]] - true[pairs[:, 1]]
    weight = np.ones(len(pairs))
    difference[3], difference[5], weight[5] = np.nan, 40.0, 0.0
    found = solve_pairwise_offsets(pairs, difference, weight, 12)
    assert np.abs((found[pairs[:, 0]] - found[pairs[:, 1]]) - (true[pairs[:, 0]] - true[pairs[:, 1]])).max() < 0.05
    assert not solve_pairwise_offsets(pairs, np.full(len(pairs), np.nan), np.ones(len(pairs)), 12).any()


def test_a_frame_without_pairs_has_no_offset_and_does_not_move_the_median():
    pairs = chain(12)
    true = np.linspace(0.0, 1.0, 12)
    difference = true[pairs[:, 0]] - true[pairs[:, 1]]
    alone = solve_pairwise_offsets(pairs, difference, np.ones(len(pairs)), 40)
    assert not alone[12:].any() and np.median(alone[:12]) == pytest.approx(0.0, abs=1e-9)
