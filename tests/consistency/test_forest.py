"""A forest as arrays: the same probabilities as scikit-learn's, before and after a checkpoint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from consistency.synthetic import SMALL, capture, random_evidence, random_inputs
from sklearn.ensemble import ExtraTreesClassifier

from mtcm_nerfstudio.consistency.checkpoint import CheckpointCard, load_checkpoint, save_checkpoint
from mtcm_nerfstudio.consistency.evidence_encoder import EvidenceInput
from mtcm_nerfstudio.consistency.forest import LARGEST_LOGIT, Forest, ForestConfig, _as_arrays, fit_forest
from mtcm_nerfstudio.consistency.losses import IGNORED
from mtcm_nerfstudio.consistency.training.batch import Example
from mtcm_nerfstudio.consistency.training.forest_examples import forest_from_examples, labelled_numbers
from mtcm_nerfstudio.consistency.transformer_dataset import DatasetConfig, draw_examples
from mtcm_nerfstudio.consistency.transformer_model import REASONS, ConsistencyTransformer
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS

CLASSES = 1 + len(REASONS)
FEW = ForestConfig(trees=20, min_samples_leaf=2)
NUMBERS = len(FRAME_NUMBERS)


def examples(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of frames and labels that the first two decide; two of the classes never occur."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(count, NUMBERS)).astype(np.float32)
    label = np.where(numbers[:, 0] > 0.5, 1, np.where(numbers[:, 1] > 1.0, 3, 0))
    return numbers.astype(np.float64), np.where(numbers[:, 2] > 1.5, 5, label)


@pytest.fixture(scope="module")
def forest() -> Forest:
    return fit_forest(*examples(), CLASSES, FEW)


def probabilities(forest: Forest, numbers: np.ndarray) -> np.ndarray:
    return forest(torch.from_numpy(numbers).float()).numpy()


@pytest.mark.parametrize("depth", [None, 1, 3])
def test_arrays_give_the_probabilities_of_scikit_learn(depth: int | None) -> None:
    numbers, label = examples()
    found = ExtraTreesClassifier(30, max_depth=depth, min_samples_leaf=3, random_state=0).fit(numbers, label)
    new, _ = examples(200, seed=1)
    arrays = probabilities(_as_arrays(found, CLASSES), new)
    expected = np.zeros((len(new), CLASSES))
    expected[:, found.classes_] = found.predict_proba(new)
    np.testing.assert_allclose(arrays, expected, atol=1e-3)
    assert not arrays[:, [2, 4]].any(), "classes that never occurred"


def test_a_tree_that_is_one_leaf_gives_the_shares_of_its_classes() -> None:
    numbers, label = examples(40)
    found = ExtraTreesClassifier(3, min_samples_leaf=40, random_state=0).fit(numbers, label)
    shares = np.bincount(label, minlength=CLASSES) / len(label)
    arrays = probabilities(_as_arrays(found, CLASSES), numbers)
    np.testing.assert_allclose(arrays, np.broadcast_to(shares, arrays.shape), atol=1e-3)


def test_probabilities_sum_to_one_for_any_shape(forest: Forest) -> None:
    numbers = torch.randn(2, 5, NUMBERS)
    probability = forest(numbers)
    assert probability.shape == (2, 5, CLASSES)
    torch.testing.assert_close(probability.sum(-1), torch.ones(2, 5), atol=5e-3, rtol=0.0)
    torch.testing.assert_close(probability[1, 3], forest(numbers[1, 3:4])[0])
    assert forest(numbers[:, :0]).shape == (2, 0, CLASSES)


def test_faulty_frames_have_higher_logits_within_the_limit(forest: Forest) -> None:
    numbers, label = examples(300, seed=2)
    logit = forest.logit(forest(torch.from_numpy(numbers).float())).numpy()
    assert np.median(logit[label > 0]) > np.median(logit[label == 0]) + 1.0
    assert np.abs(logit).max() <= LARGEST_LOGIT
    certain = torch.zeros(2, CLASSES)
    certain[0, 0] = certain[1, 1] = 1.0
    assert forest.logit(certain).tolist() == [-LARGEST_LOGIT, LARGEST_LOGIT]


def test_the_same_seed_gives_the_same_forest_and_weights_count() -> None:
    numbers, label = examples()
    one, again, other = (fit_forest(numbers, label, CLASSES, FEW, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), again.buffers(), strict=True))
    assert not torch.equal(one(torch.zeros(1, NUMBERS)), other(torch.zeros(1, NUMBERS)))
    weight = np.where(label == 5, 0.0, 1.0)
    without = fit_forest(numbers, label, CLASSES, FEW, weight)
    assert probabilities(without, numbers)[:, 5].max() < 0.01


def with_forest(forest: Forest) -> ConsistencyTransformer:
    torch.manual_seed(0)
    model = ConsistencyTransformer(SMALL).eval()
    model.set_forest(forest)
    return model


def test_a_checkpoint_keeps_the_forest_to_the_last_bit(forest: Forest, tmp_path: Path) -> None:
    model = with_forest(forest)
    inputs, evidence = random_inputs(), random_evidence()
    before = model(*inputs, evidence)
    for half in (False, True):
        stem = tmp_path / f"half_{half}"
        card = save_checkpoint(model, CheckpointCard("test", "efficientnet-lite0", "1"), stem, half)
        loaded, loaded_card = load_checkpoint(stem)
        assert loaded_card == card and card.model.forest_trees == FEW.trees
        for (name, tensor), (other, same) in zip(model.forest.named_buffers(), loaded.forest.named_buffers()):
            assert name == other and tensor.dtype == same.dtype and torch.equal(tensor, same)
        after = loaded(*inputs, evidence)
        assert torch.equal(before.forest_logit, after.forest_logit)
        assert torch.equal(before.forest_reasons, after.forest_reasons)


def test_the_model_gives_the_forests_logit_and_reasons_by_the_evidence(forest: Forest) -> None:
    evidence = random_evidence()
    output = with_forest(forest)(*random_inputs(), evidence)
    probability = forest(evidence.frames)
    torch.testing.assert_close(output.forest_logit, forest.logit(probability))
    torch.testing.assert_close(output.forest_reasons.sum(-1), torch.ones(2, 7), atol=1e-3, rtol=0.0)
    most = probability[..., 1:].argmax(-1)
    assert torch.equal(output.forest_reasons.argmax(-1), most)


def test_without_evidence_or_forest_the_logit_is_that_of_the_transformer(forest: Forest) -> None:
    model, evidence = with_forest(forest), random_evidence()
    output = model(*random_inputs())
    assert torch.equal(output.forest_logit, output.inconsistency_logit) and not output.forest_reasons.any()
    unknown = evidence.known.clone()
    unknown[0, 3] = False
    output = model(*random_inputs(), EvidenceInput(evidence.frames, unknown, evidence.pairs, evidence.compared))
    assert output.forest_logit[0, 3] == output.inconsistency_logit[0, 3] and not output.forest_reasons[0, 3].any()
    assert output.forest_logit[0, 2] != output.inconsistency_logit[0, 2]
    none = ConsistencyTransformer(SMALL).eval()(*random_inputs(), evidence)
    assert torch.equal(none.forest_logit, none.inconsistency_logit) and not none.forest_reasons.any()


def test_the_forest_does_not_change_what_the_transformer_says(forest: Forest) -> None:
    torch.manual_seed(0)
    plain, inputs, evidence = ConsistencyTransformer(SMALL).eval(), random_inputs(), random_evidence()
    one, other = plain(*inputs, evidence), with_forest(forest)(*inputs, evidence)
    assert torch.equal(one.states, other.states) and torch.equal(one.inconsistency_logit, other.inconsistency_logit)
    assert not list(forest.parameters()), "nothing of it is trained by gradients"


DATASET = DatasetConfig(longest=20, batch_tokens=60, without_evidence=0.0)


def test_examples_are_the_frames_whose_truth_is_known() -> None:
    name, drawn = draw_examples([capture("a", 24)], DATASET, 0, 3, "forest")
    numbers, label = labelled_numbers(drawn)
    assert name == "a" and numbers.shape == (len(label), NUMBERS) and len(label)
    assert set(label.tolist()) <= set(range(CLASSES))
    expected = 0
    for example in drawn:
        seen = example.judged[:, :2]
        expected += int(seen.any(axis=1).sum())
        faulty = (example.replaced[:, :2] & seen).any(axis=1)
        assert (example.reason[faulty] != IGNORED).all()
    assert len(label) == expected
    assert labelled_numbers([replace(one, evidence=None) for one in drawn])[0].shape == (0, 0)


def test_a_forest_is_fitted_on_variants_of_captures() -> None:
    captures = [capture("a", 24, 0), capture("b", 16, 1)]
    forest = forest_from_examples(captures, DATASET, 0, drawings=6, config=FEW)
    assert forest is not None and forest.trees == FEW.trees
    held_out: list[Example] = []
    for step in range(6, 9):
        held_out += draw_examples(captures, DATASET, 0, step, "forest")[1]
    numbers, label = labelled_numbers(held_out)
    logit = forest.logit(forest(torch.from_numpy(numbers).float())).numpy()
    pose = label == 1 + REASONS.index("pose")
    assert pose.sum() > 5 and np.median(logit[pose]) > np.median(logit[label == 0]) + 1.0


def test_without_evidence_there_is_no_forest() -> None:
    bare = replace(capture("a", 12), copies=())
    assert forest_from_examples([bare], DATASET, 0, drawings=2, config=FEW) is None
