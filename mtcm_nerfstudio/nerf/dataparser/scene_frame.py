"""What the mtcm dataparser hands to nerfstudio, and the frame of reference of the scene that nerfstudio trains."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from torch import Tensor

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.decisions import Decisions, SuggestedView, write_text_atomically
from mtcm_nerfstudio.nerf.dataparser.frame_subset_parser import FrameSubsetParser
from mtcm_nerfstudio.nerf.dataparser.run_record import TrainingViews, point_config_at, write_record

CAMERA_PATH = "suggested_poses.json"
SUGGESTED_CAMERAS = "suggested_cameras"
"""Key of ``DataparserOutputs.metadata``: the suggested views as nerfstudio ``Cameras``, in the scene's frame."""

_POINTS = ("points3D_xyz", "points3D_rgb", "points3D_error", "points3D_num_points2D")
_MATCHES = ("points3D_image_ids", "points3D_points2D_xy")


@dataclass(frozen=True)
class SceneFrame:
    """The world that nerfstudio trains in: oriented, centred and scaled by the kept training frames."""

    from_saved: Float[Tensor, "4 4"]
    """Takes the world that the parser saves poses in to the scene, before scaling (float64)."""
    scale: float
    """What positions are multiplied by after that."""

    def to_scene(self, c2w: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
        """Express saved camera-to-world matrices in the scene."""
        out = self.from_saved @ c2w.double()
        out[:, :3, 3] *= self.scale
        return out.to(c2w.dtype)

    def to_saved(self, c2w: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
        """Undo ``to_scene``, in double precision."""
        out = c2w.double().clone()
        out[:, :3, 3] /= self.scale
        return torch.linalg.inv(self.from_saved) @ out


@dataclass
class MTCMOutputs(DataparserOutputs):
    """Dataparser outputs that leave a copy of the decisions behind where a training run asks for its transform."""

    decisions: Decisions | None = None
    views: TrainingViews | None = None

    def save_dataparser_transform(self, path: Path) -> None:
        """Write the transform, as every dataparser does, and beside it what the run has to remember.

        nerfstudio's trainer calls this once, with the run's folder, before the first step.
        """
        super().save_dataparser_transform(path)
        if self.decisions is None or self.views is None:
            return
        folder = path.parent
        write_record(folder, self.decisions, self.views)
        if self.decisions.suggested:
            text = json.dumps(camera_path(self.metadata[SUGGESTED_CAMERAS]), indent=1)
            write_text_atomically(folder / CAMERA_PATH, text + "\n")
        point_config_at(folder / "config.yml", folder / decisions_file.FILE_NAME)


def scene_frame_of(train: DataparserOutputs, parser: FrameSubsetParser) -> SceneFrame:
    """Recover the scene from what the stock parser made of the kept training frames.

    Its ``dataparser_transform`` and ``dataparser_scale`` start from the capture's original world; the poses that it
    reads start from the saved one, so what lies between the two is undone.
    """
    applied_transform, applied_scale = parser.applied()
    from_original = torch.eye(4, dtype=torch.float64)
    from_original[:3] = train.dataparser_transform.double()
    return SceneFrame(from_original @ torch.linalg.inv(applied_transform), train.dataparser_scale / applied_scale)


def fix_pca_flip(train: DataparserOutputs, saved: DataparserOutputs, scene: SceneFrame) -> DataparserOutputs:
    """Return the training frames with poses that agree with ``dataparser_transform``.

    With ``--orientation-method pca`` nerfstudio 1.1.5 turns a scene that stands on its head by negating rows 1 and 2
    of the transform, and the whole poses of frames 1 and 2 in place of those rows: two poses come out wrong, and all
    others disagree with the transform.

    Args:
        train: the training frames as the stock parser orients them.
        saved: the same frames, read without orienting.
        scene: the scene that the transform of ``train`` stands for.
    """
    meant = to_scene_frame(saved, train, scene)
    agree = torch.allclose(meant.cameras.camera_to_worlds, train.cameras.camera_to_worlds, atol=1e-3)
    return train if agree else meant


def to_scene_frame(saved: DataparserOutputs, train: DataparserOutputs, scene: SceneFrame) -> DataparserOutputs:
    """Put frames that were read without orienting into the scene of the training frames."""
    c2w = torch.eye(4).repeat(len(saved.image_filenames), 1, 1)
    c2w[:, :3] = saved.cameras.camera_to_worlds
    saved.cameras.camera_to_worlds = scene.to_scene(c2w)[:, :3]
    points = {key: train.metadata[key] for key in (*_POINTS, *_MATCHES) if key in train.metadata}
    return replace(
        saved,
        dataparser_transform=train.dataparser_transform,
        dataparser_scale=train.dataparser_scale,
        metadata={**saved.metadata, **points},
    )


def concat_outputs(first: DataparserOutputs, second: DataparserOutputs) -> DataparserOutputs:
    """Return the frames of both, those of ``first`` in front; all else is as ``first`` has it."""
    fields = ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "distortion_params", "camera_type")
    cameras = {}
    for name in fields:
        parts = [getattr(one.cameras, name) for one in (first, second)]
        cameras[name] = torch.cat(parts) if all(part is not None for part in parts) else None
    depths = [one.metadata.get("depth_filenames") or [] for one in (first, second)]
    metadata = {**first.metadata, "depth_filenames": [*depths[0], *depths[1]] if all(depths) else None}
    masks = (first.mask_filenames, second.mask_filenames)
    return replace(
        first,
        image_filenames=[*first.image_filenames, *second.image_filenames],
        cameras=Cameras(**cameras),
        mask_filenames=None if masks[0] is None or masks[1] is None else [*masks[0], *masks[1]],
        metadata=metadata if "depth_filenames" in first.metadata else first.metadata,
    )


def without_frames(train: DataparserOutputs) -> DataparserOutputs:
    """Return the outputs of an empty split, as the stock parser gives them for a capture too small to hold one."""
    metadata = {**train.metadata, "depth_filenames": [] if train.metadata.get("depth_filenames") else None}
    return replace(
        train,
        image_filenames=[],
        cameras=train.cameras[torch.zeros(0, dtype=torch.long)],
        mask_filenames=None if train.mask_filenames is None else [],
        metadata=metadata,
    )


def suggested_cameras(
    suggested: Sequence[SuggestedView], train: DataparserOutputs, parser: FrameSubsetParser, scene: SceneFrame
) -> Cameras | None:
    """Return the suggested views in the scene, seen through the first training camera; None if there are none."""
    if not suggested:
        return None
    in_capture = torch.tensor([view.transform_matrix for view in suggested], dtype=torch.float64)
    c2w = scene.to_scene(parser.saved_from_capture() @ in_capture)
    like: Cameras = train.cameras[:1]
    many = (len(suggested), 1)
    return Cameras(
        camera_to_worlds=c2w[:, :3].float(),
        fx=like.fx.expand(many).clone(),
        fy=like.fy.expand(many).clone(),
        cx=like.cx.expand(many).clone(),
        cy=like.cy.expand(many).clone(),
        width=like.width.expand(many).clone(),
        height=like.height.expand(many).clone(),
        camera_type=like.camera_type.expand(many).clone(),
    )


def camera_path(cameras: Cameras) -> dict[str, Any]:
    """Return cameras as the camera path that ``ns-render camera-path`` reads, one second a view."""
    width, height = int(cameras.width[0]), int(cameras.height[0])
    views = []
    for c2w, fy in zip(cameras.camera_to_worlds, cameras.fy[:, 0], strict=True):
        matrix = [*c2w.flatten().tolist(), 0.0, 0.0, 0.0, 1.0]
        fov_degrees = math.degrees(2.0 * math.atan(0.5 * height / float(fy)))
        views.append({"camera_to_world": matrix, "fov": fov_degrees, "aspect": width / height})
    return {
        "camera_type": "perspective",
        "render_width": width,
        "render_height": height,
        "seconds": float(len(views)),
        "fps": 1,
        "camera_path": views,
    }
