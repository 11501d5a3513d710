"""A checkpoint comes back as it went, or is refused in words that say what to do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from consistency.synthetic import SMALL, random_inputs

from mtcm_nerfstudio.consistency.checkpoint import (
    CheckpointCard,
    TrainingSource,
    card_from_json,
    card_to_json,
    load_checkpoint,
    read_card,
    save_checkpoint,
)
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer

CARD = CheckpointCard(
    name="test",
    embedder="efficientnet-lite0",
    embedder_version="1",
    calibration_scale=1.5,
    calibration_offset=-0.25,
    calibration_forest=0.4,
    threshold=0.6,
    trained_on=(TrainingSource("Zoë B.", 12, "MIT"),),
    figures={"auroc_swap": 0.9},
)


def saved(folder: Path, half: bool = False) -> tuple[ConsistencyTransformer, CheckpointCard, Path]:
    torch.manual_seed(1)
    model = ConsistencyTransformer(SMALL).eval()
    model.standardisation.learn_scale(torch.randn(20, 384))
    return model, save_checkpoint(model, CARD, folder / "run.1" / "model", half), folder / "run.1" / "model"


@pytest.mark.parametrize("suffix", ["", ".safetensors", ".json"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    model, card, stem = saved(tmp_path)
    loaded, loaded_card = load_checkpoint(stem.with_name(stem.name + suffix))
    assert loaded_card == card == read_card(stem)
    assert loaded_card == replace(CARD, model=SMALL, digest=card.digest)
    assert not loaded.training
    inputs = random_inputs()
    assert torch.equal(model(*inputs).states, loaded(*inputs).states)


def test_half_precision_takes_half_the_room_and_says_nearly_the_same(tmp_path: Path) -> None:
    model, _, full = saved(tmp_path / "full")
    _, _, half = saved(tmp_path / "half", half=True)
    sizes = [path.with_name("model.safetensors").stat().st_size for path in (full, half)]
    assert sizes[1] < 0.55 * sizes[0]
    loaded, _ = load_checkpoint(half)
    assert loaded.embed.weight.dtype == torch.float32
    inputs = random_inputs()
    torch.testing.assert_close(model(*inputs).states, loaded(*inputs).states, atol=0.02, rtol=0.02)


def test_the_same_card_gives_the_same_text() -> None:
    text = card_to_json(CARD)
    assert card_to_json(card_from_json(text, Path("x.json"))) == text
    other_order = replace(CARD, figures=dict(reversed(list({"a": 1.0, "b": 2.0}.items()))))
    assert card_to_json(other_order) == card_to_json(replace(CARD, figures={"a": 1.0, "b": 2.0}))
    assert "Zoë" in text


def test_another_embedder_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"trained on efficientnet-lite0 embeddings, these are clip-vit-b32: use --em"):
        CARD.require_embedder("clip-vit-b32")
    with pytest.raises(ValueError, match="version 1, this is version 2: train again with ns-mtcm-train"):
        CARD.require_embedder("efficientnet-lite0", "2")
    CARD.require_embedder("efficientnet-lite0", "1")


def test_a_checkpoint_of_other_evidence_is_refused_with_what_to_do(tmp_path: Path) -> None:
    older = ConsistencyTransformer(replace(SMALL, frame_numbers=SMALL.frame_numbers - 2))
    save_checkpoint(older, CARD, tmp_path / "older")
    with pytest.raises(ValueError, match=r"older.json: was trained on other numbers of evidence.*ns-mtcm-train"):
        load_checkpoint(tmp_path / "older")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.json: no such file; a checkpoint is a"):
        load_checkpoint(tmp_path / "nothing")
    _, _, stem = saved(tmp_path)
    stem.with_name("model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: no such file"):
        load_checkpoint(stem)


def test_tensors_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    _, _, stem = saved(tmp_path)
    weights = stem.with_name("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"model\.safetensors: not the tensors that model\.json describes"):
        load_checkpoint(stem)


def test_tensors_of_another_size_are_refused(tmp_path: Path) -> None:
    _, card, stem = saved(tmp_path)
    stem.with_name("model.json").write_text(card_to_json(replace(card, model=replace(SMALL, layers=3))))
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read as this model's tensors"):
        load_checkpoint(stem)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "schema version None"),
        ('{"schema_version": 99}', "schema version 99, this program reads 3: train the checkpoint again"),
        ('{"schema_version": 2}', "schema version 2, this program reads 3: train the checkpoint again"),
        ('{"schema_version": 3}', "not a checkpoint's card"),
    ],
)
def test_a_broken_card_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"card.json: {message}"):
        card_from_json(text, Path("card.json"))


def test_an_unknown_entry_is_refused() -> None:
    entries = {**json.loads(card_to_json(CARD)), "pickle": 1}
    with pytest.raises(ValueError, match="unknown entry pickle"):
        card_from_json(json.dumps(entries), Path("card.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 1.0}, r"threshold must lie in \(0, 1\), got 1.0"),
        ({"calibration_scale": 0.0}, "scale must be positive, got 0.0"),
        ({"calibration_forest": -1.0}, "weight of the forest must not be negative, got -1.0"),
        ({"window": 1}, "window must be at least 2 frames, got 1"),
    ],
)
def test_impossible_cards_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CARD, **change)


def test_the_shipped_checkpoint_loads_and_is_small() -> None:
    from mtcm_nerfstudio.consistency.checkpoint import SHIPPED, tensor_file

    model, card = load_checkpoint()
    assert card.embedder == "efficientnet-lite0" and card.model.d_model == 256 and card.model.forest_trees > 0
    assert tensor_file(SHIPPED).stat().st_size <= 12e6
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert "fox" not in {source.name for source in card.trained_on}
