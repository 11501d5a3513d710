"""The sample in data/ is one capture in every layout, and the renderer that made it has exact geometry."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
import trimesh
from PIL import ExifTags, Image

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.corruptions import read_truth
from mtcm_nerfstudio.capture.images import read_mask, read_rgb
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.geometry.poses import OPENGL_FROM_OPENCV
from mtcm_nerfstudio.tokens.embedders import load_embedder
from mtcm_nerfstudio.tokens.embedders.precomputed import read_embeddings

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = REPOSITORY / "data"
SAMPLE = DATA / "sample"
BUDGET_BYTES = 6_000_000

sys.path.insert(0, str(REPOSITORY / "scripts"))

import make_sample_capture  # noqa: E402
import rendered_scenes  # noqa: E402
from rendering import gallery, paths, textures  # noqa: E402
from rendering.raycast import Camera, Light, Stage, rays  # noqa: E402
from rendering.shapes import part  # noqa: E402

IDENTITY = make_sample_capture.IDENTITY


@pytest.fixture(scope="module")
def layouts() -> dict[str, Capture]:
    return {
        "transforms": read_capture(SAMPLE),
        "colmap": read_capture(SAMPLE, "colmap"),
        "identity": read_capture(DATA, identity=IDENTITY),
    }


@pytest.fixture(scope="module")
def model() -> pycolmap.Reconstruction:
    return pycolmap.Reconstruction(str(SAMPLE / "sparse" / "0"))


def short_names(capture: Capture) -> list[str]:
    return [Path(frame.file_path).name for frame in capture.frames]


# --- the sample


@pytest.mark.parametrize("layout", ["colmap", "identity"])
def test_every_layout_says_the_same(layouts: dict[str, Capture], layout: str) -> None:
    one, other = layouts["transforms"], layouts[layout]
    assert other.source == layout
    assert short_names(one) == short_names(other)
    for a, b in zip(one.frames, other.frames, strict=True):
        assert a.c2w is not None and b.c2w is not None and a.intrinsics is not None and b.intrinsics is not None
        assert a.mask_path is not None and b.mask_path is not None
        np.testing.assert_allclose(a.c2w, b.c2w, atol=1e-6)
        assert a.intrinsics.focal_over_diagonal == pytest.approx(b.intrinsics.focal_over_diagonal, rel=1e-12)
        assert (a.intrinsics.cx, a.intrinsics.cy) == (b.intrinsics.cx, b.intrinsics.cy)
        assert a.timestamp == b.timestamp is not None
        assert a.image_path.read_bytes() == b.image_path.read_bytes()
        assert a.mask_path.read_bytes() == b.mask_path.read_bytes()


def test_data_holds_one_identity_that_need_not_be_named(layouts: dict[str, Capture]) -> None:
    capture = read_capture(DATA)
    assert (capture.name, capture.embedder) == (IDENTITY, "efficientnet-lite0")
    assert short_names(capture) == short_names(layouts["identity"])


def test_frames_are_in_the_order_they_were_taken_in_and_have_exif(layouts: dict[str, Capture]) -> None:
    frames = layouts["transforms"].frames
    assert 40 <= len(frames) <= 60
    assert short_names(layouts["transforms"]) == sorted(short_names(layouts["transforms"]))
    times = [frame.timestamp for frame in frames]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    for frame in frames:
        with Image.open(frame.image_path) as image:
            tags = image.getexif()
            assert tags[ExifTags.Base.Make] and tags[ExifTags.Base.Model]
            details = tags.get_ifd(ExifTags.IFD.Exif)
            assert details[ExifTags.Base.SubsecTimeOriginal] and details[ExifTags.Base.FocalLength] > 0
        assert frame.intrinsics is not None
        assert frame.focal_over_diagonal == pytest.approx(frame.intrinsics.focal_over_diagonal, rel=0.02)


def test_embeddings_are_those_of_the_images(layouts: dict[str, Capture]) -> None:
    frames = layouts["identity"].frames
    stored = read_embeddings(frames)
    assert np.isfinite(stored).all()
    some = [0, len(frames) // 2, len(frames) - 1]
    computed = load_embedder("efficientnet-lite0", "cpu").embed([read_rgb(frames[i].image_path) for i in some])
    np.testing.assert_allclose(stored[some], computed, atol=1e-2)


def test_faults_are_of_many_kinds_and_on_no_frame_that_is_evaluated_on(layouts: dict[str, Capture]) -> None:
    truth = read_truth(SAMPLE)
    names = [frame.file_path for frame in layouts["transforms"].frames]
    assert {fault.kind for fault in truth.values()} == {
        "swap",
        "motion_blur",
        "defocus",
        "exposure",
        "occluder",
        "foreign",
    }
    assert all(names[fault.frame] == name for name, fault in truth.items())
    trained_on = np.linspace(0, len(names) - 1, int(np.ceil(0.9 * len(names))), dtype=int)
    evaluated_on = {*range(0, len(names), 8), *(set(range(len(names))) - set(trained_on.tolist()))}
    assert evaluated_on.isdisjoint(fault.frame for fault in truth.values())


def test_only_the_swapped_frames_have_wrong_poses(layouts: dict[str, Capture]) -> None:
    claimed = np.stack([frame.c2w for frame in layouts["transforms"].frames])
    true = gallery.gallery_path(make_sample_capture.SEED, len(claimed))
    first, second = (fault.frame for fault in read_truth(SAMPLE).values() if fault.kind == "swap")
    true[[first, second]] = true[[second, first]]
    np.testing.assert_allclose(claimed, true, atol=1e-9)


def test_masks_show_the_subject_and_fit_the_images(layouts: dict[str, Capture]) -> None:
    hidden = [name for name, fault in read_truth(SAMPLE).items() if fault.kind in ("foreign", "occluder")]
    for frame in layouts["transforms"].frames:
        assert frame.mask_path is not None
        mask = read_mask(frame.mask_path)
        assert mask.shape == (make_sample_capture.CAMERA.height, make_sample_capture.CAMERA.width)
        if frame.file_path not in hidden:
            assert 0.08 < mask.mean() < 0.4
            assert mask[100:200, 150:250].mean() > 0.3, f"{frame.file_path}: the subject is not in the middle"


def test_tracks_agree_with_the_poses(model: pycolmap.Reconstruction) -> None:
    """Reprojected here with numpy, not by COLMAP."""
    truth = read_truth(SAMPLE)
    for image in model.images.values():
        seen = [point for point in image.points2D if point.has_point3D()]
        fault = truth.get(f"images/{image.name}")
        if fault is not None and fault.reason in ("pose", "foreign"):
            assert len(seen) < 60, f"{image.name}: a frame in the wrong place has {len(seen)} tracks"
            continue
        assert len(seen) >= (10 if fault else 150), image.name
        world = np.stack([model.points3D[point.point3D_id].xyz for point in seen])
        camera = image.cam_from_world().matrix() @ np.vstack([world.T, np.ones(len(world))])
        projected = (model.cameras[image.camera_id].calibration_matrix() @ camera / camera[2])[:2].T
        error = np.linalg.norm(projected - np.stack([point.xy for point in seen]), axis=1)
        assert np.mean(error) < (2.0 if fault else 0.7), image.name
        assert fault or np.quantile(error, 0.95) < 2.0, image.name


def test_points_are_real_tracks(model: pycolmap.Reconstruction) -> None:
    lengths = [point.track.length() for point in model.points3D.values()]
    assert len(lengths) > 1000
    assert min(lengths) >= 2 and np.mean(lengths) > 3


def test_the_sample_is_small() -> None:
    folders = [SAMPLE, *(DATA / part / IDENTITY for part in ("raw_images", "masks", "metadata", "embeddings"))]
    sizes = [path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert sum(sizes) < BUDGET_BYTES


def test_no_photo_of_a_person_is_used() -> None:
    assert not {"astronaut", "camera", "lfw_subset", "cameraman"} & set(textures.PHOTOS)
    with pytest.raises(ValueError, match=r"astronaut.*is none of"):
        textures.photo("astronaut")


# --- the renderer


def essential_distance(
    first: rendered_scenes.RenderedFrame, second: rendered_scenes.RenderedFrame, camera: Camera
) -> list:
    """Distances in pixels of SIFT matches from the epipolar lines of the true poses."""
    sift = cv2.SIFT_create(1500)
    found = [sift.detectAndCompute(cv2.cvtColor(shot.pixels, cv2.COLOR_RGB2GRAY), None) for shot in (first, second)]
    pairs = cv2.BFMatcher().knnMatch(found[0][1], found[1][1], k=2)
    good = [best for best, runner_up in pairs if best.distance < 0.75 * runner_up.distance]
    # OpenCV counts pixels from the centre of the first one, the cameras from its corner.
    a = np.array([[*found[0][0][match.queryIdx].pt, 0.5] for match in good]) + 0.5
    b = np.array([[*found[1][0][match.trainIdx].pt, 0.5] for match in good]) + 0.5
    poses = [np.linalg.inv(shot.c2w @ OPENGL_FROM_OPENCV) for shot in (first, second)]
    relative = poses[1] @ np.linalg.inv(poses[0])
    inverse_k = np.linalg.inv([[camera.focal, 0, camera.cx], [0, camera.focal, camera.cy], [0, 0, 1]])
    fundamental = inverse_k.T @ np.cross(np.eye(3), relative[:3, 3]).T @ relative[:3, :3] @ inverse_k
    lines = a @ fundamental.T
    return list(np.abs((lines * b).sum(axis=1)) / np.hypot(lines[:, 0], lines[:, 1]))


@pytest.mark.parametrize("seed", [3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 6, 8, 9, 11, 24))])
def test_neighbouring_frames_match_along_the_true_epipolar_lines(seed: int) -> None:
    recipe = rendered_scenes.draw_recipe(seed)
    (camera, first), (_, second) = itertools.islice(rendered_scenes.render_frames(recipe, 50, (320, 240)), 2)
    distances = essential_distance(first, second, camera)
    assert len(distances) >= 40
    assert np.median(distances) < 0.5
    assert 0.0 < first.mask.mean() < 0.8 or recipe.path == "aerial" or recipe.is_journey


def sphere_stage(radius: float) -> Stage:
    ball = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    ground = trimesh.creation.box(bounds=[(-50, -50, -radius - 1), (50, 50, -radius)])
    rng = np.random.default_rng(0)
    plain = np.full((textures.SIDE_PX, textures.SIDE_PX, 3), 0.5, np.float32)
    light = Light(np.array([0.0, 0.0, 1.0]), np.ones(3), np.ones(3), np.ones((2, 3)))
    parts = [part(ball, 0, 1.0, rng, is_subject=True), part(ground, 0, 1.0, rng)]
    return Stage(parts, textures.Atlas([plain]), 0, 0, light)


def test_a_mask_is_the_silhouette_of_the_subject() -> None:
    """Against the formula for a sphere: a ray meets it when it passes the centre within the radius."""
    camera = Camera(160, 120, 150.0, 83.0, 57.0)
    pose = paths.look_at(np.array([[3.0, 1.0, 1.5]]), np.zeros((1, 3)), np.array([0.2]))[0]
    _, mask = sphere_stage(0.7).render(pose, camera)
    directions = rays(pose, camera, supersampling=1).astype(np.float64)
    towards = directions @ -pose[:3, 3]
    passes_at = np.sqrt(pose[:3, 3] @ pose[:3, 3] - towards**2).reshape(120, 160)
    assert mask[passes_at < 0.69].all()
    assert not mask[passes_at > 0.71].any()


def test_the_sun_casts_shadows_and_a_ray_into_the_sky_meets_nothing() -> None:
    stage = sphere_stage(0.7)
    above = paths.look_at(np.array([[6.0, 0.0, 5.0]]), np.array([[0.0, 0.0, -0.7]]), np.zeros(1))[0]
    picture, mask = stage.render(above, Camera(80, 60, 90.0, 40.0, 30.0))
    ground = picture[~mask].mean(axis=1)
    assert ground.min() < 0.6 * np.median(ground)
    up = paths.look_at(np.array([[0.0, 0.0, 5.0]]), np.array([[0.1, 0.0, 9.0]]), np.zeros(1))[0]
    sky, mask = stage.render(up, Camera(8, 6, 8.0, 4.0, 3.0))
    assert np.isfinite(sky).all() and not mask.any()


@pytest.mark.parametrize("kind", paths.PATHS)
def test_a_path_has_proper_poses_and_stays_out_of_the_subject(kind: str) -> None:
    c2w = paths.hand_held(kind, np.random.default_rng(4), 40, np.array([0.0, 0.0, 0.5]))
    rotation, position = c2w[:, :3, :3], c2w[:, :3, 3]
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (40, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0)
    assert (np.hypot(position[:, 0], position[:, 1]) > 1.45).all() or (position[:, 2] > 3.0).all()
    assert (position[:, 2] > 0.1).all()


def test_consecutive_seeds_go_through_all_combinations() -> None:
    recipes = [rendered_scenes.draw_recipe(seed) for seed in range(2 * len(rendered_scenes.COMBINATIONS))]
    for kinds, some in ((rendered_scenes.COMBINATIONS, recipes[::2]), (rendered_scenes.JOURNEYS, recipes[1::2])):
        assert {(recipe.look.surroundings, recipe.path) for recipe in some} == set(kinds)
    assert {recipe.naming for recipe in recipes} == {"padded", "unpadded", "shuffled"}


def test_a_rendered_capture_reads_in_order_and_is_not_rendered_twice(tmp_path: Path) -> None:
    recipe = replace(rendered_scenes.draw_recipe(2), naming="shuffled", has_exif=True)
    rendered_scenes.render_scene(2, tmp_path, frames=4, size=(48, 36), recipe=recipe)
    capture = read_capture(tmp_path)
    assert [Path(frame.file_path).stem for frame in capture.frames] == rendered_scenes.file_stems(recipe, 4)
    true = [shot.c2w for _, shot in rendered_scenes.render_frames(recipe, 4, (48, 36))]
    np.testing.assert_allclose(np.stack([frame.c2w for frame in capture.frames]), true, atol=1e-12)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    rendered_scenes.render_scene(2, tmp_path, frames=4, size=(48, 36), recipe=recipe)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_same_seed_gives_the_same_pictures() -> None:
    recipe = rendered_scenes.draw_recipe(5)
    once, again = ([shot.pixels for _, shot in rendered_scenes.render_frames(recipe, 2, (48, 36))] for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_an_unknown_path_is_refused() -> None:
    with pytest.raises(ValueError, match="path 'flight' is none of orbit, arc"):
        paths.hand_held("flight", np.random.default_rng(0), 4, np.zeros(3))
