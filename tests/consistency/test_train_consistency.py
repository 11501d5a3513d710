"""Training: a stopped run ends as one that was not, and nothing is trained that cannot be."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from consistency.synthetic import SMALL, capture

from mtcm_nerfstudio.consistency.losses import LossWeights
from mtcm_nerfstudio.consistency.train_consistency import (
    EpochResult,
    TrainConfig,
    drawing,
    fresh_model,
    learning_rate,
    train,
    validate,
)
from mtcm_nerfstudio.consistency.training.batch import Batch
from mtcm_nerfstudio.consistency.training.identities import IdentityMoments
from mtcm_nerfstudio.consistency.training.objective import compute_losses
from mtcm_nerfstudio.consistency.training.state import changed_flags
from mtcm_nerfstudio.consistency.transformer_dataset import DatasetConfig, make_batch
from mtcm_nerfstudio.consistency.transformer_model import ConsistencyTransformer, ModelOutput

CAPTURES = [capture("a", 24, 0), capture("b b", 12, 1)]
CONFIG = TrainConfig(
    epochs=6,
    steps_per_epoch=1,
    warmup_steps=2,
    patience=0,
    validation_batches=1,
    accelerator="cpu",
    model=SMALL,
    dataset=DatasetConfig(longest=10, batch_tokens=20),
)


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def stop_after(epoch: int):
    def on_epoch(result: EpochResult, model: ConsistencyTransformer) -> None:
        if result.epoch == epoch:
            raise StoppedError

    return on_epoch


def tensors(model: ConsistencyTransformer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole: list[dict] = []
    train(CAPTURES, CONFIG, tmp_path / "whole", on_epoch=lambda r, m: whole.append({"r": r, **tensors(m)}))
    with pytest.raises(StoppedError):
        train(CAPTURES, CONFIG, tmp_path / "parts", on_epoch=stop_after(3))
    torch.rand(7)  # the state of torch's own generator is no part of a run
    parts: list[dict] = []
    train(CAPTURES, CONFIG, tmp_path / "parts", resume=True, on_epoch=lambda r, m: parts.append({"r": r, **tensors(m)}))
    assert [entry["r"].epoch for entry in parts] == [3, 4, 5, 6]
    for before, after in zip(whole[2:], parts):
        assert before.pop("r") == after.pop("r")
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_stopped_within_an_epoch_ends_the_same(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=2, steps_per_epoch=3)

    def stop(step: int, loss: float) -> None:
        if step == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(CAPTURES, config, tmp_path / "parts", on_step=stop)
    parts = train(CAPTURES, config, tmp_path / "parts", resume=True)
    whole = train(CAPTURES, config, tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(parts.state_dict().values(), whole.state_dict().values()))


def test_batches_come_round_again_in_another_order_and_are_drawn_once(tmp_path: Path, monkeypatch) -> None:
    config = replace(CONFIG, drawings=5, steps_per_epoch=3)
    rounds = [[drawing(step, config) for step in range(5 * k, 5 * k + 5)] for k in range(3)]
    assert [sorted(numbers) for numbers in rounds] == [[0, 1, 2, 3, 4]] * 3 and rounds[0] != rounds[1]
    assert [drawing(step, CONFIG) for step in (0, 7)] == [0, 7]
    drawn = []

    def counted(captures, dataset, seed, step, purpose="training"):
        if purpose == "training":
            drawn.append(step)
        return make_batch(captures, dataset, seed, step, purpose)

    monkeypatch.setattr("mtcm_nerfstudio.consistency.train_consistency.make_batch", counted)
    whole = tensors(train(CAPTURES, config, tmp_path / "whole"))
    assert sorted(drawn) == [0, 1, 2, 3, 4]
    with pytest.raises(StoppedError):
        train(CAPTURES, config, tmp_path / "parts", on_epoch=stop_after(3))
    parts = tensors(train(CAPTURES, config, tmp_path / "parts", resume=True))
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    first = tensors(train(CAPTURES, config, tmp_path))
    again = train(CAPTURES, config, tmp_path, resume=True)
    assert all(torch.equal(first[name], tensor) for name, tensor in again.state_dict().items())


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    train(CAPTURES, config, tmp_path)
    with pytest.raises(ValueError, match="holds a run already; go on with it by --resume"):
        train(CAPTURES, config, tmp_path)
    other = replace(config, weights=LossWeights(pose=0.5))
    with pytest.raises(ValueError, match=r"other settings \(weights.pose: 0.2 → 0.5\); --resume needs the same ones"):
        train(CAPTURES, other, tmp_path, resume=True)
    moved = CAPTURES[1].with_raw(replace(CAPTURES[1].raw, c2w=2.0 * CAPTURES[1].raw.c2w))
    with pytest.raises(ValueError, match=r"other settings \(contents of b b: "):
        train([CAPTURES[0], moved], config, tmp_path, resume=True)
    (tmp_path / "state.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot be read as the state of a run"):
        train(CAPTURES, config, tmp_path, resume=True)


def test_early_stopping_returns_the_best_epoch(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=50, learning_rate=0.5, warmup_steps=0, patience=2)
    results, states = [], []
    best = train(CAPTURES, config, tmp_path, on_epoch=lambda r, m: (results.append(r), states.append(tensors(m))))
    losses = [result.validation["total"] for result in results]
    assert len(results) < 50 and results[-1].is_last and not any(result.is_last for result in results[:-1])
    assert len(results) - 1 - int(np.argmin(losses)) == 2
    assert all(torch.equal(states[int(np.argmin(losses))][n], t) for n, t in best.state_dict().items())


@pytest.mark.slow
def test_losses_fall(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=2, steps_per_epoch=40, learning_rate=3e-3)
    before = float(validate(fresh_model(CAPTURES, SMALL), CAPTURES, config).total(config.weights))
    results: list[EpochResult] = []
    train(CAPTURES, config, tmp_path, on_epoch=lambda r, m: results.append(r))
    assert results[-1].validation["total"] < 0.9 * before


def test_scalars_are_written_for_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(CAPTURES, replace(CONFIG, epochs=2), tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"training/total", "validation/consistency", "training/identity", "learning_rate"} <= tags
    assert [event.step for event in events.Scalars("validation/total")] == [1, 2]


def _read(model: ConsistencyTransformer, batch: Batch) -> ModelOutput:
    return model(batch.tokens, batch.present, batch.padding, batch.masked, batch.evidence)


def test_every_loss_reaches_the_weights() -> None:
    torch.manual_seed(0)
    model = fresh_model(CAPTURES, SMALL).train()
    moments = IdentityMoments(["a", "b b"], SMALL.d_model, torch.device("cpu"))
    for step in range(4):
        batch = make_batch(CAPTURES, replace(CONFIG.dataset, masked_share=1.0), 0, step)
        losses = compute_losses(model, _read(model, batch), batch, moments)
    for name, loss in losses._asdict().items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        reached = sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None)
        assert np.isfinite(reached) and reached > 0, name


def test_the_identity_loss_compares_with_the_others_only() -> None:
    moments = IdentityMoments(["a", "b"], 4, torch.device("cpu"))
    counts = torch.ones(1, 6, dtype=torch.bool)
    states = torch.randn(1, 6, 4)
    assert float(moments.loss("a", states, counts)) == 0.0
    assert float(moments.loss("a", states + 9.0, counts)) == 0.0
    assert float(moments.loss("b", states, counts)) > 0.1
    copy = IdentityMoments(["a", "b"], 4, torch.device("cpu"))
    copy.load({name: tensor.clone() for name, tensor in moments.state().items()})
    assert float(copy.loss("b", states, counts)) == float(moments.loss("b", states, counts))


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    config = replace(CONFIG, epochs=10, steps_per_epoch=10, warmup_steps=10)
    rates = [learning_rate(step, config) for step in range(101)]
    assert np.argmax(rates) in (9, 10) and rates[10] == pytest.approx(config.learning_rate)
    assert (np.diff(rates[:10]) > 0).all() and (np.diff(rates[10:]) < 0).all() and rates[100] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("captures", "message"),
    [
        ([], "there is no capture to train on"),
        ([CAPTURES[0], capture("a", 12)], "two captures are called 'a'"),
        ([capture("short", 3)], "short: 3 frames are too few, 4 are needed"),
        ([replace(c, raw=replace(c.raw, embedder=e)) for c, e in zip(CAPTURES, ("x", "y"))], "share one embedder"),
        (
            [replace(c, raw=replace(c.raw, embeddings=c.raw.embeddings * np.nan)) for c in CAPTURES],
            "a: not one frame has an embedding",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_refused(captures: list, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        train(captures, CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"epochs": 0}, "epochs must be at least 1, got 0"), ({"learning_rate": 0.0}, "learning_rate must be positive")],
)
def test_impossible_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)


@pytest.mark.parametrize("frames", [4, 10])
def test_captures_without_poses_masks_or_times_train(tmp_path: Path, frames: int) -> None:
    bare = capture("photos", frames)
    raw = bare.raw
    nothing = np.full(frames, np.nan)
    bare = bare.with_raw(replace(raw, c2w=raw.c2w * np.nan, timestamps=nothing, mask_areas=nothing, focals=nothing))
    results: list[EpochResult] = []
    train([bare], replace(CONFIG, epochs=2), tmp_path, on_epoch=lambda r, m: results.append(r))
    assert np.isfinite([result.training["total"] for result in results]).all()


def test_changed_flags_are_named_in_full() -> None:
    before = {"a": 1, "b": {"c": 2, "d": [1]}}
    assert changed_flags(before, before) == []
    assert changed_flags(before, json.loads('{"a": 1, "b": {"c": 3, "d": [1]}}')) == ["b.c: 2 → 3"]
