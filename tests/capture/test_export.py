import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_capture import (
    edit_transforms,
    names,
    orbit,
    random_similarity,
    write_colmap,
    write_identity,
    write_images,
    write_transforms,
)

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.colmap import model_c2w
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.capture.writing.export import export_capture, exported_names
from mtcm_nerfstudio.capture.writing.files import colmap_camera
from mtcm_nerfstudio.decisions import Decisions, FrameDecision
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics
from mtcm_nerfstudio.geometry.poses import rotation_angle_degrees
from mtcm_nerfstudio.geometry.sim3 import estimate_sim3, sim3_from_meta

COUNT = 6


def decisions_for(capture: Capture, dropped: tuple[str, ...] = (), repaired: dict[str, np.ndarray] | None = None):
    repaired = repaired or {}
    frames = tuple(
        FrameDecision(
            frame.file_path,
            inconsistency=0.9 if frame.file_path in dropped else 0.1,
            kept=frame.file_path not in dropped,
            reason="blur" if frame.file_path in dropped else "pose" if frame.file_path in repaired else None,
            repaired_transform_matrix=tuple(map(tuple, repaired[frame.file_path].tolist()))
            if frame.file_path in repaired
            else None,
        )
        for frame in capture.frames
    )
    return Decisions("digest", {}, "checkpoint", "efficientnet-lite0", 0.5, frames)


def write_tracked(root: Path) -> pycolmap.Reconstruction:
    """A capture with a COLMAP model of real tracks and images of its cameras' size."""
    pycolmap.set_random_seed(3)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, COUNT
    options.num_points3D, options.camera_width, options.camera_height = 60, 64, 48
    options.camera_params = [60.0, 32.0, 24.0, 0.01]
    model = pycolmap.synthesize_dataset(options)
    for image, name in zip(sorted(model.images.values(), key=lambda image: image.name), names(COUNT), strict=True):
        image.name = name
    for number, point in enumerate(list(model.point3D_ids())):
        seen = [(element.image_id, element.point2D_idx) for element in model.point3D(point).track.elements]
        for image_id, index in seen[2 + number % (COUNT - 1) :]:
            model.delete_observation(image_id, index)
    write_images(root / "images", COUNT)
    (root / "sparse" / "0").mkdir(parents=True)
    model.write_binary(str(root / "sparse" / "0"))
    return model


def tracks(model: pycolmap.Reconstruction) -> set[tuple[tuple[float, ...], frozenset[tuple[str, int]]]]:
    return {
        (
            tuple(point.xyz.tolist()),
            frozenset((model.images[e.image_id].name, e.point2D_idx) for e in point.track.elements),
        )
        for point in model.points3D.values()
    }


def test_a_colmap_capture_keeps_the_tracks_of_the_kept_images(tmp_path: Path) -> None:
    original = write_tracked(tmp_path / "capture")
    capture = read_capture(tmp_path / "capture")
    gone = "images/frame_2.jpg"
    exported = export_capture(capture, decisions_for(capture, dropped=(gone,)), tmp_path / "out")

    model = pycolmap.Reconstruction(str(tmp_path / "out" / "sparse" / "0"))
    expected = {(xyz, frozenset(t for t in track if t[0] != "frame_2.jpg")) for xyz, track in tracks(original)}
    assert tracks(model) == {(xyz, track) for xyz, track in expected if len(track) >= 2}
    assert len(tracks(model)) < len(tracks(original)), "some point must lose its second observation"
    assert model.num_reg_images() == COUNT - 1 == exported.frames
    assert exported.points == model.num_points3D()
    assert model.compute_mean_reprojection_error() < 1e-6
    by_name = {image.name: image for image in original.images.values()}
    for image in model.images.values():
        np.testing.assert_allclose(
            image.cam_from_world().matrix(), by_name[image.name].cam_from_world().matrix(), atol=1e-12
        )
        np.testing.assert_array_equal(
            [point.xy for point in image.points2D], [point.xy for point in by_name[image.name].points2D]
        )


def test_both_files_of_the_export_read_back_as_the_kept_frames(tmp_path: Path) -> None:
    write_tracked(tmp_path / "capture")
    capture = read_capture(tmp_path / "capture")
    export_capture(capture, decisions_for(capture, dropped=("images/frame_1.jpg",)), tmp_path / "out")
    for source in ("transforms", "colmap"):
        back = read_capture(tmp_path / "out", source=source)
        assert [frame.file_path for frame in back.frames] == [frame.file_path for frame in capture.frames[1:]]
        for frame, old in zip(back.frames, capture.frames[1:], strict=True):
            np.testing.assert_allclose(frame.c2w, old.c2w, atol=1e-9)
            assert frame.intrinsics is not None and old.intrinsics is not None
            assert frame.intrinsics.fl_x == pytest.approx(old.intrinsics.fl_x)
            assert dict(frame.intrinsics.distortion)["k1"] == pytest.approx(0.01)
            assert frame.image_path.read_bytes() == old.image_path.read_bytes()


def test_transforms_keep_what_they_say_beside_the_frames(tmp_path: Path) -> None:
    root = write_transforms(
        tmp_path / "capture",
        orbit(COUNT),
        aabb_scale=16,
        ply_file_path="cloud.ply",
        train_filenames=["images/frame_1.jpg", "images/frame_2.jpg"],
        val_filenames=["images/frame_3.jpg"],
        test_filenames=["images/frame_3.jpg"],
    )
    (root / "cloud.ply").write_text("ply")
    edit_transforms(root, lambda meta: meta["frames"][3].update(exposure=0.25))
    capture = read_capture(root)
    export_capture(capture, decisions_for(capture, dropped=("images/frame_1.jpg",)), tmp_path / "out")

    before = json.loads((root / "transforms.json").read_text())
    after = json.loads((tmp_path / "out" / "transforms.json").read_text())
    assert after["frames"] == before["frames"][1:], "matrices and per-frame keys stay to the last digit"
    assert after["train_filenames"] == ["images/frame_2.jpg"]
    assert (tmp_path / "out" / after["ply_file_path"]).read_text() == "ply"
    for key in before.keys() - {"frames", "train_filenames"}:
        assert after[key] == before[key]


def test_a_capture_without_a_model_gets_a_valid_one_without_points(tmp_path: Path) -> None:
    capture = read_capture(write_transforms(tmp_path / "capture", orbit(COUNT)))
    exported = export_capture(capture, decisions_for(capture), tmp_path / "out")
    back = read_capture(tmp_path / "out", source="colmap")
    assert exported.points == 0
    for frame, old in zip(back.frames, capture.frames, strict=True):
        np.testing.assert_allclose(frame.c2w, old.c2w, atol=1e-9)


@pytest.mark.parametrize("applied", [False, True])
def test_a_repaired_pose_reaches_both_files(tmp_path: Path, applied: bool) -> None:
    """Also where transforms.json is in another world than the COLMAP model, as ns-process-data writes it."""
    root = tmp_path / "capture"
    original = write_tracked(root)
    turned = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]]) if applied else np.eye(4)
    colmap = read_capture(root)
    poses = turned @ np.array([frame.c2w for frame in colmap.frames])
    write_transforms(root, poses, images=False, **({"applied_transform": turned[:3].tolist()} if applied else {}))
    capture = read_capture(root)
    true = capture.frames[2].c2w
    assert true is not None
    moved = true.copy()
    moved[:3, 3] += 0.5
    export_capture(capture, decisions_for(capture, repaired={"images/frame_3.jpg": moved}), tmp_path / "out")

    exported = json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"]
    assert exported[2]["transform_matrix"] == moved.tolist()
    model = pycolmap.Reconstruction(str(tmp_path / "out" / "sparse" / "0"))
    by_name = {image.name: model_c2w(image) for image in model.images.values()}
    np.testing.assert_allclose(turned @ by_name["frame_3.jpg"], moved, atol=1e-6)
    np.testing.assert_allclose(turned @ by_name["frame_4.jpg"], poses[3], atol=1e-9)
    of_others = {track for xyz, track in tracks(original)}
    for _, track in tracks(model):
        assert any(track <= old for old in of_others)
    seen = sum(name == "frame_3.jpg" for _, track in tracks(model) for name, _ in track)
    claimed = sum(name == "frame_3.jpg" for _, track in tracks(original) for name, _ in track)
    assert seen < claimed / 2, "observations that the new pose does not explain go"
    assert model.compute_mean_reprojection_error() < 4.0


def test_a_repair_of_a_wrong_claim_keeps_the_tracks(tmp_path: Path) -> None:
    """The claimed pose is wrong in transforms.json, right in the model: repaired, it agrees and keeps everything."""
    root = tmp_path / "capture"
    original = write_tracked(root)
    poses = np.array([frame.c2w for frame in read_capture(root).frames])
    right = poses[2].copy()
    poses[2, :3, 3] += 3.0
    write_transforms(root, poses, images=False)
    capture = read_capture(root)
    export_capture(capture, decisions_for(capture, repaired={"images/frame_3.jpg": right}), tmp_path / "out")
    model = pycolmap.Reconstruction(str(tmp_path / "out" / "sparse" / "0"))
    assert tracks(model) == tracks(original)


def test_a_model_of_another_reconstruction_gives_no_points(tmp_path: Path) -> None:
    root = tmp_path / "capture"
    write_tracked(root)
    write_transforms(root, orbit(COUNT), images=False)
    capture = read_capture(root)
    exported = export_capture(capture, decisions_for(capture), tmp_path / "out")
    assert exported.points == 0
    assert "another reconstruction" in exported.notes[0]
    back = read_capture(tmp_path / "out", source="colmap")
    np.testing.assert_allclose([frame.c2w for frame in back.frames], orbit(COUNT), atol=1e-9)


def test_images_of_another_size_than_the_model_scale_its_cameras(tmp_path: Path) -> None:
    root = tmp_path / "capture"
    original = write_tracked(root)
    poses = np.array([frame.c2w for frame in read_capture(root).frames])
    write_transforms(root, poses, images=False)
    half = {"w": 32, "h": 24, "fl_x": 30.0, "fl_y": 30.0, "cx": 16.0, "cy": 12.0}
    edit_transforms(root, lambda meta: meta.update(half))
    capture = read_capture(root)
    export_capture(capture, decisions_for(capture), tmp_path / "out")
    model = pycolmap.Reconstruction(str(tmp_path / "out" / "sparse" / "0"))
    (camera,) = model.cameras.values()
    assert (camera.width, camera.height, camera.focal_length) == (32, 24, 30.0)
    assert model.compute_mean_reprojection_error() < 1e-6
    assert model.num_points3D() == original.num_points3D()


def test_masks_depths_and_smaller_copies_come_along(tmp_path: Path) -> None:
    root = write_transforms(tmp_path / "capture", orbit(3))
    for name in names(3):
        stem = Path(name).stem
        for folder, suffix in (("masks", "png"), ("depth", "png"), ("images_2", "jpg"), ("masks_2", "png")):
            (root / folder).mkdir(exist_ok=True)
            Image.new("L", (8, 6), 255).save(root / folder / f"{stem}.{suffix}")
    edit_transforms(
        root,
        lambda meta: [
            entry.update(
                mask_path=f"masks/{Path(entry['file_path']).stem}.png",
                depth_file_path=f"depth/{Path(entry['file_path']).stem}.png",
            )
            for entry in meta["frames"]
        ],
    )
    capture = read_capture(root)
    export_capture(capture, decisions_for(capture, dropped=("images/frame_1.jpg",)), tmp_path / "out")
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.??g")}
    assert files == {
        f"{folder}/frame_{i}.{'jpg' if 'images' in folder else 'png'}"
        for i in (2, 3)
        for folder in ("images", "images_2", "masks", "masks_2", "depth")
    }
    for entry in json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"]:
        assert (tmp_path / "out" / entry["mask_path"]).is_file()
        assert (tmp_path / "out" / entry["depth_file_path"]).is_file()


def test_masks_of_some_frames_only_are_carried_but_not_listed(tmp_path: Path) -> None:
    """nerfstudio stops when some frames name a mask and others do not."""
    root = write_transforms(tmp_path / "capture", orbit(3))
    (root / "masks").mkdir()
    Image.new("L", (8, 6), 255).save(root / "masks" / "frame_1.png")
    edit_transforms(root, lambda meta: meta["frames"][0].update(mask_path="masks/frame_1.png"))
    capture = read_capture(root)
    export_capture(capture, decisions_for(capture), tmp_path / "out")
    assert "mask_path" not in (tmp_path / "out" / "transforms.json").read_text()
    assert (tmp_path / "out" / "masks" / "frame_1.png").is_file()


def test_a_capture_from_a_json_of_another_name(tmp_path: Path) -> None:
    root = write_transforms(tmp_path / "capture", orbit(COUNT))
    (root / "transforms.json").rename(root / "transforms_mine.json")
    write_transforms(root, orbit(2)[:1], images=False)
    capture = read_capture(root / "transforms_mine.json")
    export_capture(capture, decisions_for(capture), tmp_path / "out")
    back = read_capture(tmp_path / "out")
    np.testing.assert_allclose([frame.c2w for frame in back.frames], orbit(COUNT), atol=1e-12)


def test_frames_without_image_or_pose_are_left_out(tmp_path: Path) -> None:
    root = write_transforms(tmp_path / "capture", orbit(COUNT))
    (root / "images" / "frame_2.jpg").unlink()
    edit_transforms(root, lambda meta: meta["frames"][3]["transform_matrix"][0].__setitem__(0, float("nan")))
    capture = read_capture(root)
    exported = export_capture(capture, decisions_for(capture), tmp_path / "out")
    assert exported.left_out == ("images/frame_2.jpg", "images/frame_4.jpg")
    assert [frame.file_path for frame in read_capture(tmp_path / "out").frames] == [
        f"images/frame_{i}.jpg" for i in (1, 3, 5, 6)
    ]


def test_an_identity_becomes_an_ordinary_capture(tmp_path: Path) -> None:
    data = write_identity(tmp_path / "data", "Zoë O'Hara Ł", orbit(COUNT))
    capture = read_capture(data)
    export_capture(capture, decisions_for(capture, dropped=("frame_3.jpg",)), tmp_path / "out")
    back = read_capture(tmp_path / "out")
    kept = [frame for frame in capture.frames if frame.file_path != "frame_3.jpg"]
    assert [frame.file_path for frame in back.frames] == [f"images/{frame.file_path}" for frame in kept]
    np.testing.assert_allclose([frame.c2w for frame in back.frames], [frame.c2w for frame in kept], atol=1e-12)


def test_photos_without_poses_become_a_folder_of_photos(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 3)
    capture = read_capture(tmp_path / "photos")
    exported = export_capture(capture, decisions_for(capture, dropped=("frame_1.jpg",)), tmp_path / "out")
    assert exported.points is None
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["frame_2.jpg", "frame_3.jpg"]


def test_the_originals_are_not_touched_and_links_are_hard(tmp_path: Path) -> None:
    root = tmp_path / "capture"
    write_tracked(root)
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}
    capture = read_capture(root)
    export_capture(capture, decisions_for(capture), tmp_path / "out")
    after = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}
    assert before == after
    image = tmp_path / "out" / "images" / "frame_1.jpg"
    assert not image.is_symlink()
    assert image.samefile(root / "images" / "frame_1.jpg")


def test_the_same_export_has_the_same_bytes(tmp_path: Path) -> None:
    write_tracked(tmp_path / "capture")
    capture = read_capture(tmp_path / "capture")
    contents = []
    for out in (tmp_path / "a", tmp_path / "b"):
        export_capture(capture, decisions_for(capture), out)
        contents.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert contents[0] == contents[1]


@pytest.mark.parametrize("target", ["capture", ".", "full", "file"])
def test_a_target_that_is_in_use_is_refused(tmp_path: Path, target: str) -> None:
    capture = read_capture(write_transforms(tmp_path / "capture", orbit(3)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"another folder|new folder"):
        export_capture(capture, decisions_for(capture), tmp_path / target)
    assert (tmp_path / "full" / "x").read_text() == "mine"


def test_nothing_kept_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    capture = read_capture(write_transforms(tmp_path / "capture", orbit(3)))
    everything = tuple(frame.file_path for frame in capture.frames)
    with pytest.raises(ValueError, match="none of the 3 frames"):
        export_capture(capture, decisions_for(capture, dropped=everything), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["capture"]


def test_a_failure_on_the_way_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    root = tmp_path / "capture"
    write_tracked(root)
    capture = read_capture(root)
    (root / "sparse" / "0" / "points3D.bin").unlink()
    with pytest.raises(ValueError, match="cannot be read as a COLMAP model"):
        export_capture(capture, decisions_for(capture), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["capture"]


def test_a_camera_that_colmap_has_no_model_for_leaves_only_transforms(tmp_path: Path) -> None:
    capture = read_capture(write_transforms(tmp_path / "capture", orbit(3), camera_model="EQUIRECTANGULAR"))
    exported = export_capture(capture, decisions_for(capture), tmp_path / "out")
    assert exported.points is None
    assert "no camera model" in exported.notes[0]
    assert not (tmp_path / "out" / "sparse").exists()
    assert read_capture(tmp_path / "out").source == "transforms"


@pytest.mark.parametrize("model", ["OPENCV", "OPENCV_FISHEYE"])
def test_distortion_means_the_same_to_colmap(model: str) -> None:
    """Against the formulas of OpenCV's camera models, evaluated here."""
    named = {"k1": 0.1, "k2": -0.05, "k3": 0.02} | ({"p1": 0.01, "p2": -0.02} if model == "OPENCV" else {"k4": 0.01})
    camera = colmap_camera(Intrinsics(model, 640, 480, 500.0, 510.0, 320.0, 240.0, tuple(named.items())))
    assert camera is not None
    x, y = 0.3, -0.2
    r2 = x * x + y * y
    if model == "OPENCV":
        radial = 1 + named["k1"] * r2 + named["k2"] * r2**2 + named["k3"] * r2**3
        u = x * radial + 2 * named["p1"] * x * y + named["p2"] * (r2 + 2 * x * x)
        v = y * radial + named["p1"] * (r2 + 2 * y * y) + 2 * named["p2"] * x * y
    else:
        theta = np.arctan(np.sqrt(r2))
        bent = theta * (1 + sum(named[f"k{i}"] * theta ** (2 * i) for i in (1, 2, 3, 4)))
        u, v = x * bent / np.sqrt(r2), y * bent / np.sqrt(r2)
    np.testing.assert_allclose(camera.img_from_cam(np.array([x, y, 1.0])), [500 * u + 320, 510 * v + 240], atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), spoiled=st.integers(0, 4))
def test_the_world_is_found_whatever_moved_it_and_some_poses_spoiled(seed: int, spoiled: int) -> None:
    similarity = random_similarity(seed)
    poses = orbit(12)
    seen = similarity.move(poses)
    rng = np.random.default_rng(seed)
    seen[:spoiled, :3, 3] += rng.normal(size=(spoiled, 3)) * similarity.scale
    sim3 = estimate_sim3(poses, seen)
    assert sim3 is not None
    np.testing.assert_allclose(sim3.scale, similarity.scale, rtol=1e-6)
    assert rotation_angle_degrees(sim3.rotation[None], similarity.rotation[None])[0] < 1e-5
    moved = similarity.move(poses)
    np.testing.assert_allclose(sim3.to_capture(poses), moved, atol=1e-5 * similarity.scale)
    np.testing.assert_allclose(sim3.to_model(moved[5]), poses[5], atol=1e-5)


def test_unrelated_poses_have_no_common_world() -> None:
    rng = np.random.default_rng(0)
    assert estimate_sim3(orbit(12), random_similarity(1).move(orbit(12))[rng.permutation(12)]) is None


def test_the_noted_transform_is_the_world() -> None:
    applied = np.array([[0, 1, 0, 0.5], [0, 0, 1, 0], [1, 0, 0, 0]])
    sim3 = sim3_from_meta({"applied_transform": applied.tolist(), "applied_scale": 2.0})
    pose = orbit(3)[1]
    expected = np.vstack([applied, [0, 0, 0, 1]]) @ pose
    np.testing.assert_allclose(sim3.to_capture(pose[None])[0, :3, 3], 2.0 * expected[:3, 3])


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["images/a.jpg", "a.jpg", "./images/b.jpg", "../a.jpg", "/x/a.jpg", "sub/a.jpg", "../b/a.jpg"]),
        unique=True,
    )
)
def test_exported_names_are_unique_and_stay_inside(file_paths: list[str]) -> None:
    found = exported_names(file_paths)
    assert list(found) == file_paths
    assert len(set(found.values())) == len(found)
    assert not any(name.startswith("/") or ".." in name.split("/") for name in found.values())


def test_nerfstudio_reads_both_files(tmp_path: Path) -> None:
    pytest.importorskip("nerfstudio")
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    root = tmp_path / "capture"
    write_tracked(root)
    capture = read_capture(root)
    export_capture(capture, decisions_for(capture, dropped=("images/frame_2.jpg",)), tmp_path / "out")
    common = {"data": tmp_path / "out", "eval_mode": "all", "downscale_factor": 1}
    from_transforms = NerfstudioDataParserConfig(**common).setup().get_dataparser_outputs("train")
    config = ColmapDataParserConfig(
        **common, colmap_path=Path("sparse/0"), assume_colmap_world_coordinate_convention=False
    )
    from_colmap = config.setup().get_dataparser_outputs("train")
    expected = [f"frame_{i}.jpg" for i in (1, 3, 4, 5, 6)]
    for outputs in (from_transforms, from_colmap):
        assert [path.name for path in outputs.image_filenames] == expected
        assert float(outputs.cameras.fx[0]) == pytest.approx(60.0)
    np.testing.assert_allclose(
        from_transforms.cameras.camera_to_worlds, from_colmap.cameras.camera_to_worlds, atol=1e-5
    )
    assert len(from_colmap.metadata["points3D_xyz"]) > 0


@pytest.mark.real
def test_the_real_model_with_two_images_less(tmp_path: Path, shared_captures: Path) -> None:
    capture = read_capture(shared_captures / "banana", source="colmap")
    dropped = tuple(frame.file_path for frame in capture.frames[3:5])
    exported = export_capture(capture, decisions_for(capture, dropped=dropped), tmp_path / "out")
    whole = pycolmap.Reconstruction(str(shared_captures / "banana" / "sparse" / "0"))
    model = pycolmap.Reconstruction(str(tmp_path / "out" / "sparse" / "0"))
    assert model.num_reg_images() == len(capture) - 2 == exported.frames
    assert 0.5 * whole.num_points3D() < model.num_points3D() < whole.num_points3D()
    assert model.compute_mean_reprojection_error() == pytest.approx(whole.compute_mean_reprojection_error(), rel=0.1)


def test_text_models_are_read_too(tmp_path: Path) -> None:
    root = write_colmap(tmp_path / "capture", orbit(4), text=True)
    capture = read_capture(root)
    capture = replace(capture, frames=capture.frames[:3])
    exported = export_capture(capture, decisions_for(capture), tmp_path / "out")
    assert (exported.frames, exported.points) == (3, 0)
