"""The mtcm methods as nerfstudio finds them: ``mtcm-nerfacto``, ``mtcm-splatfacto`` and ``mtcm-nerfacto-tiny``.

nerfstudio imports this before any of its commands loads a checkpoint.
"""

import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.plugins.types import MethodSpecification

from mtcm_nerfstudio.nerf.datamanagers import (
    MTCMDataManagerConfig,
    MTCMFullImageDataManagerConfig,
    MTCMParallelDataManagerConfig,
)
from mtcm_nerfstudio.nerf.dataparser.flags import StockFlags
from mtcm_nerfstudio.nerf.joint.settings import JointSettings
from mtcm_nerfstudio.nerf.loading import allow_numpy_scalars
from mtcm_nerfstudio.nerf.model import MTCMNerfactoModelConfig, MTCMSplatfactoModelConfig
from mtcm_nerfstudio.nerf.pipeline import MTCMPipelineConfig

allow_numpy_scalars()


def _machine() -> MachineConfig:
    return MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu")


def _adam(lr: float, lr_final: float, max_steps: int) -> dict:
    return {
        "optimizer": AdamOptimizerConfig(lr=lr, eps=1e-15),
        "scheduler": ExponentialDecaySchedulerConfig(lr_final=lr_final, max_steps=max_steps),
    }


def _constant(lr: float) -> dict:
    return {"optimizer": AdamOptimizerConfig(lr=lr, eps=1e-15), "scheduler": None}


def _slow_start(lr: float, lr_final: float) -> dict:
    """Return what splatfacto has for what must not move before the splats have found their places."""
    schedule = ExponentialDecaySchedulerConfig(lr_final=lr_final, max_steps=30_000, warmup_steps=1000, lr_pre_warmup=0)
    return {"optimizer": AdamOptimizerConfig(lr=lr, eps=1e-15), "scheduler": schedule}


def _joint(max_steps: int) -> dict:
    """Return the optimizers of the transformer that is trained beside a NeRF, and of its head that corrects poses."""
    return {"mtcm": _adam(1e-4, 1e-5, max_steps), "mtcm_corrections": _adam(1e-3, 1e-4, max_steps)}


mtcm_nerfacto = MethodSpecification(
    config=TrainerConfig(
        method_name="mtcm-nerfacto",
        steps_per_eval_batch=500,
        steps_per_save=2000,
        max_num_iterations=30000,
        mixed_precision=True,
        machine=_machine(),
        pipeline=MTCMPipelineConfig(
            datamanager=MTCMParallelDataManagerConfig(train_num_rays_per_batch=4096, eval_num_rays_per_batch=4096),
            joint=JointSettings(start=2000, every=25),
            model=MTCMNerfactoModelConfig(
                eval_num_rays_per_chunk=1 << 15,
                average_init_density=0.01,
                camera_optimizer=CameraOptimizerConfig(mode="SO3xR3"),
            ),
        ),
        optimizers={
            "proposal_networks": _adam(1e-2, 1e-4, max_steps=200_000),
            "fields": _adam(1e-2, 1e-4, max_steps=200_000),
            "camera_opt": _adam(1e-3, 1e-4, max_steps=5000),
            **_joint(max_steps=30_000),
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
        vis="viewer",
    ),
    description="nerfacto over the frames that MTCM kept.",
)

mtcm_splatfacto = MethodSpecification(
    config=TrainerConfig(
        method_name="mtcm-splatfacto",
        steps_per_eval_image=100,
        steps_per_eval_batch=0,
        steps_per_save=2000,
        steps_per_eval_all_images=1000,
        max_num_iterations=30000,
        mixed_precision=False,
        machine=_machine(),
        pipeline=MTCMPipelineConfig(
            datamanager=MTCMFullImageDataManagerConfig(
                cache_images_type="uint8", parser=StockFlags(load_3D_points=True)
            ),
            joint=JointSettings(start=3000, every=100, poses_every=1),  # a step sees one frame
            model=MTCMSplatfactoModelConfig(),
        ),
        optimizers={
            "means": _adam(1.6e-4, 1.6e-6, max_steps=30_000),
            "features_dc": _constant(0.0025),
            "features_rest": _constant(0.0025 / 20),
            "opacities": _constant(0.05),
            "scales": _constant(0.005),
            "quats": _constant(0.001),
            "camera_opt": _slow_start(1e-4, 5e-7),
            "bilateral_grid": _slow_start(2e-3, 1e-4),
            **_joint(max_steps=30_000),
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
        vis="viewer",
    ),
    description="splatfacto over the frames that MTCM kept.",
)

_TINY_STEPS = 1000

mtcm_nerfacto_tiny = MethodSpecification(
    config=TrainerConfig(
        method_name="mtcm-nerfacto-tiny",
        steps_per_eval_batch=100,
        steps_per_eval_image=0,  # a whole image takes longer than a hundred steps without a GPU; ns-eval does them all
        steps_per_eval_all_images=0,
        steps_per_save=500,
        max_num_iterations=_TINY_STEPS,
        mixed_precision=False,
        machine=_machine(),
        pipeline=MTCMPipelineConfig(
            datamanager=MTCMDataManagerConfig(train_num_rays_per_batch=1024, eval_num_rays_per_batch=1024),
            model=MTCMNerfactoModelConfig(
                implementation="torch",
                eval_num_rays_per_chunk=1 << 10,  # what stays in the cache of a core
                average_init_density=0.01,
                hidden_dim=32,
                hidden_dim_color=32,
                num_levels=10,
                max_res=512,
                log2_hashmap_size=15,
                num_proposal_samples_per_ray=(48, 24),
                num_nerf_samples_per_ray=24,
                proposal_net_args_list=[
                    {"hidden_dim": 16, "log2_hashmap_size": 13, "num_levels": 5, "max_res": 64, "use_linear": False},
                    {"hidden_dim": 16, "log2_hashmap_size": 13, "num_levels": 5, "max_res": 128, "use_linear": False},
                ],
                use_appearance_embedding=False,  # too few steps to tell an image's look from the scene's
                camera_optimizer=CameraOptimizerConfig(mode="off"),  # likewise
            ),
        ),
        optimizers={
            "proposal_networks": _adam(1e-2, 1e-3, max_steps=_TINY_STEPS),
            "fields": _adam(1e-2, 1e-3, max_steps=_TINY_STEPS),
            **_joint(max_steps=_TINY_STEPS),
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 10, quit_on_train_completion=True),
        vis="tensorboard",
    ),
    description="A small nerfacto in pure torch for machines without a GPU, over the frames that MTCM kept.",
)
