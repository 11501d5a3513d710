from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from tiny_capture import names, orbit, random_similarity

from mtcm_nerfstudio.geometry.poses import rotation_angle_degrees
from mtcm_nerfstudio.tokens import tokens as t

seeds = st.integers(0, 2**32 - 1)


def features(count: int = 12, seed: int = 0) -> t.RawFeatures:
    rng = np.random.default_rng(seed)
    return t.RawFeatures(
        embeddings=rng.normal(size=(count, 384)),
        c2w=orbit(count),
        timestamps=np.sort(rng.uniform(100, 200, count)),
        mask_areas=rng.uniform(size=count),
        focals=np.full(count, 0.7),
        file_paths=tuple(names(count)),
        embedder="efficientnet-lite0",
    )


def test_a_token_is_394_numbers_in_the_order_of_the_brief():
    raw = features()
    found = t.assemble_tokens(raw)
    assert found.tokens.shape == (12, t.TOKEN_DIM) == (12, 384 + 7 + 3)
    np.testing.assert_array_equal(found.tokens[:, :384], raw.embeddings.astype(np.float32))
    assert np.linalg.norm(found.tokens[:, 387:391], axis=1) == pytest.approx(np.ones(12), abs=1e-6)
    assert found.tokens[0, 391] == 0.0 and found.tokens[-1, 391] == 1.0
    np.testing.assert_allclose(found.tokens[:, 392], raw.mask_areas, rtol=1e-6)
    np.testing.assert_allclose(found.tokens[:, 393], 0.7, rtol=1e-6)
    assert found.present.all()


def test_the_pose_of_a_token_leads_back_to_the_world():
    raw = features()
    found = t.assemble_tokens(raw)
    back = found.canonical_frame.to_world(t.c2w_from_pose7(found.tokens[:, t.POSE]))
    np.testing.assert_allclose(back[:, :3, 3], raw.c2w[:, :3, 3], atol=1e-5)
    assert rotation_angle_degrees(back[:, :3, :3], raw.c2w[:, :3, :3]).max() < 1e-3


@given(seeds)
@settings(max_examples=25)
def test_no_similarity_transform_of_the_world_changes_a_token(seed):
    raw = features()
    moved = replace(raw, c2w=random_similarity(seed).move(raw.c2w), timestamps=3.0 * raw.timestamps - 7.0)
    np.testing.assert_allclose(t.assemble_tokens(moved).tokens, t.assemble_tokens(raw).tokens, atol=1e-4)


def test_a_pose_a_thousand_times_too_far_moves_no_other_token():
    raw = features(20)
    far = raw.c2w.copy()
    far[5, :3, 3] *= 1000
    spoiled = t.assemble_tokens(replace(raw, c2w=far))
    left_out = raw.c2w.copy()
    left_out[5] = np.nan
    others = np.arange(20) != 5
    expected = t.assemble_tokens(replace(raw, c2w=left_out))
    np.testing.assert_allclose(spoiled.tokens[others], expected.tokens[others], atol=1e-5)


@given(seeds)
def test_what_is_missing_is_absent_and_zero(seed):
    rng = np.random.default_rng(seed)
    raw = features()
    gone = rng.random((12, 5)) < 0.4
    fields = ("embeddings", "c2w", "timestamps", "mask_areas", "focals")
    holed = {}
    for k, name in enumerate(fields):
        values = getattr(raw, name).copy()
        values[gone[:, k]] = np.nan
        holed[name] = values
    found = t.assemble_tokens(replace(raw, **holed))
    expected = ~gone
    if len(np.unique(holed["timestamps"][expected[:, 2]])) < 2:
        expected[:, 2] = False
    np.testing.assert_array_equal(found.present, expected)
    assert np.isfinite(found.tokens).all()
    assert not found.tokens[~found.present[:, t.PART_OF_ENTRY]].any()


def test_times_that_are_all_the_same_say_nothing():
    found = t.assemble_tokens(replace(features(), timestamps=np.full(12, 5.0)))
    assert not found.present[:, t.PARTS.index("timestamp")].any()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_smallest_captures_have_tokens(count):
    found = t.assemble_tokens(features(count))
    assert found.tokens.shape == (count, 394) and np.isfinite(found.tokens).all()


def test_a_subset_keeps_rows_together():
    raw = features()
    part = raw.subset(np.array([7, 2]))
    assert part.file_paths == (raw.file_paths[7], raw.file_paths[2])
    np.testing.assert_array_equal(part.c2w, raw.c2w[[7, 2]])
    assert len(raw.subset(raw.mask_areas > 2)) == 0


def test_shapes_are_enforced():
    with pytest.raises(TypeCheckError):
        t.pose7(np.zeros((3, 4)))
