"""A few training steps of a registered method in this process, over a tiny capture."""

import copy
import random
from pathlib import Path

import numpy as np
import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from tiny_capture import names

COUNT = 14
FILES = [f"images/{name}" for name in names(COUNT)]
"""Of the fixture ``capture`` beside the tests of ``nerf/``."""

SMALL_MODEL = {
    "num_levels": 4,
    "max_res": 64,
    "log2_hashmap_size": 10,
    "num_nerf_samples_per_ray": 8,
    "num_proposal_samples_per_ray": (8, 8),
}


def tiny_config(capture: Path, decisions: Path | None, evidence: bool = False, method="mtcm-nerfacto-tiny", **joint):
    """The method's own configuration, with a smaller network, over the decisions that are given."""
    config = copy.deepcopy(all_methods[method])
    datamanager = config.pipeline.datamanager
    parser = datamanager.dataparser
    parser.data, parser.decisions = capture, decisions
    parser.filter = type(parser.filter)(evidence=evidence)
    datamanager.data = capture
    for name, value in {"enabled": True, **joint}.items():
        assert hasattr(config.pipeline.joint, name)
        setattr(config.pipeline.joint, name, value)
    if method == "mtcm-nerfacto-tiny":
        datamanager.train_num_rays_per_batch = datamanager.eval_num_rays_per_batch = 64
        for name, value in SMALL_MODEL.items():
            setattr(config.pipeline.model, name, value)
    return config


def stock_pipeline(config) -> VanillaPipelineConfig:
    """nerfstudio's own pipeline with the same datamanager and model."""
    return VanillaPipelineConfig(datamanager=config.pipeline.datamanager, model=config.pipeline.model)


def train(config, steps: int, pipeline_config=None, world_size: int = 1, rank: int = 0):
    """Do what nerfstudio's trainer does in its loop; returns the pipeline and what it logged."""
    seed(0)
    chosen = pipeline_config or config.pipeline
    pipeline = chosen.setup(device="cpu", test_mode="val", world_size=world_size, local_rank=rank)
    optimizers = Optimizers(config.optimizers.copy(), pipeline.get_param_groups())
    callbacks = pipeline.get_training_callbacks(TrainingCallbackAttributes(optimizers, None, pipeline, None))
    seed(1 + rank)
    logged = []
    for step in range(steps):
        pipeline.train()
        for callback in callbacks:
            callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        optimizers.zero_grad_all()
        _, losses, metrics = pipeline.get_train_loss_dict(step)
        sum(losses.values()).backward()
        optimizers.optimizer_step_all()
        optimizers.scheduler_step_all(step)
        for callback in callbacks:
            callback.run_callback_at_location(step, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)
        logged.append({**losses, **metrics})
    return pipeline, logged


def seed(number: int) -> None:
    """Seed what nerfstudio seeds."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
