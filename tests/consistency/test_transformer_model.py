"""The transformer: what is padding, absent or hidden never changes what it says."""

import numpy as np
import pytest
import torch
from consistency.synthetic import SMALL, random_evidence, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcm_nerfstudio.consistency.encoder import positional_encoding
from mtcm_nerfstudio.consistency.evidence_encoder import evidence_input
from mtcm_nerfstudio.consistency.transformer_model import (
    ConsistencyTransformer,
    ModelConfig,
    ModelOutput,
    last_true,
)
from mtcm_nerfstudio.evidence.frame_numbers import Evidence
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS, PAIR_NUMBERS
from mtcm_nerfstudio.evidence.pair_table import CELLS
from mtcm_nerfstudio.tokens.tokens import PART_OF_ENTRY, POSE


@pytest.fixture(scope="module")
def model() -> ConsistencyTransformer:
    torch.manual_seed(0)
    made = ConsistencyTransformer(SMALL)
    for parameter in (*made.step_to_next_pose.parameters(), *made.reconstruct[-1].parameters()):
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def assert_same(a: ModelOutput, b: ModelOutput, frames: int) -> None:
    for name in ModelOutput._fields:
        left, right = getattr(a, name), getattr(b, name)
        if name != "next_pose":
            left, right = left[:, :frames], right[:, :frames]
        torch.testing.assert_close(left, right, atol=2e-5, rtol=1e-4, msg=name)


@settings(max_examples=10)
@given(extra=st.integers(1, 9), content=st.floats(-1e4, 1e4), seed=st.integers(0, 99))
def test_padding_never_changes_what_is_said_of_real_frames(
    model: ConsistencyTransformer, extra: int, content: float, seed: int
) -> None:
    tokens, present, padding, masked = random_inputs(seed=seed)
    longer = [torch.nn.functional.pad(t, (0, 0, 0, extra)) for t in (tokens, present, masked)]
    longer[0][:, 7:] = content
    longer[1][:, 7:] = True
    more_padding = torch.nn.functional.pad(padding, (0, extra))
    assert_same(model(tokens, present, padding, masked), model(longer[0], longer[1], more_padding, longer[2]), 7)


def test_padding_gets_zeros_and_a_row_without_frames_no_nan(model: ConsistencyTransformer) -> None:
    tokens, present, padding, masked = random_inputs()
    padding[0] = False
    output = model(tokens, present, padding, masked)
    assert all(torch.isfinite(value).all() for value in output)
    assert not output.states[0].any() and not output.inconsistency_logit[0].any()
    weights = model.attention_weights(tokens, present, padding, masked)
    assert torch.isfinite(weights).all()


def test_everything_hidden_or_absent_gives_finite_outputs_and_gradients(model: ConsistencyTransformer) -> None:
    tokens, present, padding, masked = random_inputs()
    for hidden, there in ((True, True), (False, False)):
        output = model(tokens, torch.full_like(present, there), padding, torch.full_like(masked, hidden))
        assert all(torch.isfinite(value).all() for value in output)
        output.inconsistency_logit.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    model.zero_grad()


@pytest.mark.parametrize("absent", [True, False])
def test_what_is_hidden_or_absent_never_changes_an_output(model: ConsistencyTransformer, absent: bool) -> None:
    tokens, present, padding, masked = random_inputs(seed=3)
    unseen = (~present if absent else masked & present)[..., torch.as_tensor(PART_OF_ENTRY)]
    changed = torch.where(unseen, 1e3 * torch.randn_like(tokens), tokens)
    assert unseen.any()
    for a, b in zip(model(tokens, present, padding, masked), model(changed, present, padding, masked)):
        assert torch.equal(a, b)


def test_what_is_visible_does(model: ConsistencyTransformer) -> None:
    tokens, present, padding, masked = random_inputs()
    present[:], masked[:] = True, False
    changed = tokens.clone()
    changed[0, 3, POSE] += 0.1
    before, after = model(tokens, present, padding, masked), model(changed, present, padding, masked)
    assert (before.inconsistency_logit[0] != after.inconsistency_logit[0]).any()
    assert torch.equal(before.inconsistency_logit[1], after.inconsistency_logit[1])


def test_evaluation_is_deterministic_and_training_is_not(model: ConsistencyTransformer) -> None:
    inputs = random_inputs()
    assert torch.equal(model(*inputs).states, model(*inputs).states)
    model.train()
    assert not torch.equal(model(*inputs).states, model(*inputs).states)
    model.eval()


@settings(max_examples=10)
@given(seed=st.integers(0, 99), real=st.integers(1, 7))
def test_explicit_attention_equals_the_fused_kernel(model: ConsistencyTransformer, seed: int, real: int) -> None:
    tokens, present, padding, masked = random_inputs(seed=seed)
    padding[:, real:] = False
    weights = model.attention_weights(tokens, present, padding, masked)
    assert weights.shape == (2, 2, 4, 7, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 4, 7))
    assert not weights[..., real:].any()
    x = torch.randn(2, 7, 32)
    allowed = torch.zeros(padding.shape).masked_fill(~padding, -torch.inf)[:, None, None]
    for layer in model.layers:
        torch.testing.assert_close(layer(x, allowed), layer.explicit(x, allowed)[0], atol=1e-5, rtol=1e-4)


def test_attention_equals_numpy(model: ConsistencyTransformer) -> None:
    attention = model.layers[0].attention
    x = torch.randn(1, 5, 32)
    q, k, v = np.split((x @ attention.qkv.weight.T + attention.qkv.bias).detach().numpy()[0], 3, axis=1)
    heads = []
    for h in range(4):
        cut = slice(8 * h, 8 * h + 8)
        scores = np.exp(q[:, cut] @ k[:, cut].T / np.sqrt(8))
        heads.append(scores / scores.sum(1, keepdims=True) @ v[:, cut])
    expected = np.concatenate(heads, axis=1) @ attention.out.weight.detach().numpy().T
    expected += attention.out.bias.detach().numpy()
    found = attention(x, torch.zeros(1, 1, 1, 5))
    np.testing.assert_allclose(found.detach().numpy()[0], expected, atol=1e-5)


def test_every_parameter_gets_a_gradient(model: ConsistencyTransformer) -> None:
    evidence = random_evidence()
    with torch.no_grad():
        model.evidence.bias.weight.normal_(std=0.1)  # zero at first, and nothing before it would get a gradient
    output = model(*random_inputs(), evidence)
    sum(value.square().sum() for value in output).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    model.zero_grad()


def test_next_pose_starts_from_the_last_visible_one() -> None:
    fresh = ConsistencyTransformer(SMALL).eval()
    tokens, present, padding, masked = random_inputs()
    present[:], masked[:] = True, False
    tokens[..., POSE.start : POSE.start + 3] *= 0.01
    masked[0, 6, 1] = True
    padding[1, 4:] = False
    predicted = fresh(tokens, present, padding, masked).next_pose
    last = torch.stack([tokens[0, 5, POSE], tokens[1, 3, POSE]])
    torch.testing.assert_close(predicted[:, :3], last[:, :3], atol=1e-4, rtol=0)
    torch.testing.assert_close(predicted[:, 3:], torch.nn.functional.normalize(last[:, 3:], dim=-1))


def test_a_hidden_token_starts_out_between_its_neighbours() -> None:
    fresh = ConsistencyTransformer(SMALL).eval()
    tokens, present, padding, masked = random_inputs()
    present[:], masked[:] = True, False
    masked[:, 3:5] = True
    predicted = fresh(tokens, present, padding, masked).reconstruction
    standardised = fresh.targets(tokens, tokens, present, padding, masked)
    torch.testing.assert_close(predicted[:, 3], (2 * standardised[:, 2] + standardised[:, 5]) / 3)
    torch.testing.assert_close(predicted[:, 4], (standardised[:, 2] + 2 * standardised[:, 5]) / 3)
    torch.testing.assert_close(predicted[:, 0], standardised[:, 1])


def test_the_input_layer_is_the_briefs() -> None:
    embed = ConsistencyTransformer().embed
    assert (embed.in_features, embed.out_features) == (394, 256)


def test_a_far_pose_stays_within_the_limit(model: ConsistencyTransformer) -> None:
    pose = torch.tensor([[1e6, -1e6, 0.0, 1, 0, 0, 0], [0.1, 0.2, 0.0, 1, 0, 0, 0]])
    limited = model.standardisation.limit_positions(pose)
    assert limited[0, :3].norm() <= SMALL.position_limit * 1.0001
    torch.testing.assert_close(limited[1], pose[1], atol=1e-3, rtol=0)


def test_content_that_all_frames_share_is_taken_out(model: ConsistencyTransformer) -> None:
    tokens, present, padding, masked = random_inputs()
    shifted = tokens.clone()
    shifted[..., :384] += torch.randn(384)
    a, b = model(tokens, present, padding, masked), model(shifted, present, padding, masked)
    torch.testing.assert_close(a.inconsistency_logit, b.inconsistency_logit, atol=1e-3, rtol=1e-3)


def test_positional_encoding_is_vaswanis() -> None:
    table = positional_encoding(5, 8, start=2).numpy()
    for frame in range(5):
        for i in range(4):
            angle = (frame + 2) / 10000 ** (2 * i / 8)
            np.testing.assert_allclose(table[frame, [i, i + 4]], [np.sin(angle), np.cos(angle)], atol=1e-6)


def test_last_true() -> None:
    flags = torch.tensor([[True, False, True, False], [False] * 4])
    assert last_true(flags).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"d_model": 30}, "d_model must be a multiple of twice the heads, got d_model 30 and heads 8"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**sizes)


def test_a_wrong_shape_raises(model: ConsistencyTransformer) -> None:
    tokens, present, padding, masked = random_inputs()
    with pytest.raises(Exception, match="tokens"):
        model(tokens[..., :393], present, padding, masked)


def test_with_no_evidence_the_model_is_the_one_that_knows_of_none(model: ConsistencyTransformer) -> None:
    """Evidence about no frame and no pair says exactly nothing, whatever its numbers are."""
    inputs, evidence = random_inputs(), random_evidence()
    nothing = evidence._replace(known=torch.zeros_like(evidence.known), compared=torch.zeros_like(evidence.compared))
    for one, other in zip(model(*inputs), model(*inputs, nothing), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert not torch.equal(model(*inputs).states, model(*inputs, evidence).states)


def test_evidence_about_hidden_frames_reaches_nothing(model: ConsistencyTransformer) -> None:
    tokens, present, padding, masked = random_inputs()
    masked[:] = False
    masked[0, 3, 1] = True
    evidence = random_evidence()
    changed = evidence._replace(frames=evidence.frames.clone(), pairs=evidence.pairs.clone())
    changed.frames[0, 3] += 1.0
    changed.pairs[0, 3] += 1.0
    changed.pairs[0, :, 3] += 1.0
    one, other = (model(tokens, present, padding, masked, e) for e in (evidence, changed))
    assert torch.equal(one.states, other.states) and torch.equal(one.reconstruction, other.reconstruction)
    masked[:] = False
    one, other = (model(tokens, present, padding, masked, e) for e in (evidence, changed))
    assert not torch.equal(one.states, other.states)


def test_evidence_bends_attention_alike_in_both_kernels(model: ConsistencyTransformer) -> None:
    inputs, evidence = random_inputs(), random_evidence()
    with torch.no_grad():
        model.evidence.bias.weight.normal_(std=0.3)
    weights = model.attention_weights(*inputs, evidence)
    assert not torch.allclose(weights, model.attention_weights(*inputs))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 4, 7))


def test_evidence_input_pads_and_sees_each_pair_from_both_ends() -> None:
    rng = np.random.default_rng(0)
    pairs = np.array([[0, 1], [1, 2]])
    of_pairs = rng.normal(size=(2, 2, len(PAIR_NUMBERS)))
    one = Evidence(rng.normal(size=(3, len(FRAME_NUMBERS))), pairs, of_pairs, np.zeros((3, CELLS)), np.full(3, np.nan))
    batch = evidence_input([one, None], length=5)
    assert batch is not None and batch.frames.shape[:2] == (2, 5)
    assert batch.known.sum() == 3 and batch.compared.sum() == 4
    np.testing.assert_allclose(batch.pairs[0, 2, 1].numpy(), one.of_pairs[1, 1], rtol=1e-6)
    np.testing.assert_allclose(batch.pairs[0, 1, 2].numpy(), one.of_pairs[1, 0], rtol=1e-6)
    assert evidence_input([None, None]) is None
