"""The corruptions that the benchmarks judge with: laws of their plan, their poses and their images."""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
IMAGE_KINDS = ("motion_blur", "defocus", "exposure", "occluder", "foreign")


@pytest.fixture(scope="module")
def corruptions() -> Iterator[ModuleType]:
    pytest.importorskip("skimage")
    sys.path.insert(0, str(SCRIPTS))
    from benchmarks import corruptions

    yield corruptions
    sys.path.remove(str(SCRIPTS))


def random_poses(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    c2w[:, :3, 3] = rng.normal(size=(count, 3))
    return c2w


def textured(size: tuple[int, int], seed: int) -> Image.Image:
    """Smooth colours, mid-grey on average, with fine texture on them."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(60, 190, (5, 7, 3)).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    fine = rng.normal(0.0, 25.0, (size[1], size[0], 1))
    return Image.fromarray(np.clip(coarse + fine, 0, 255).astype(np.uint8))


def gradient_energy(image: Image.Image) -> float:
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    return float(np.square(np.diff(grey, axis=0)).mean() + np.square(np.diff(grey, axis=1)).mean())


IMAGE, DONOR = textured((240, 160), 1), textured((300, 310), 2)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.35, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_the_share_is_respected_and_kinds_are_even(corruptions: ModuleType, share: float, seed: int) -> None:
    kinds = corruptions.KINDS
    planned = corruptions.plan_corruptions(60, random_poses(60), kinds, share, np.random.default_rng(seed))
    frames = [one.frame for one in planned]
    assert len(frames) == round(60 * share) and frames == sorted(set(frames))
    counts = Counter(one.kind for one in planned)
    assert counts["swap"] % 2 == 0
    sizes = [counts[kind] for kind in kinds]
    assert max(sizes) - min(sizes) <= 2


def test_a_plan_is_the_same_for_the_same_seed(corruptions: ModuleType) -> None:
    plans = [
        corruptions.plan_corruptions(50, random_poses(50), corruptions.KINDS, 0.3, np.random.default_rng(seed))
        for seed in (3, 3, 4)
    ]
    assert plans[0] == plans[1] != plans[2]


def test_frames_without_a_pose_get_no_pose_corruption(corruptions: ModuleType) -> None:
    c2w = random_poses(30)
    c2w[::2] = np.nan
    planned = corruptions.plan_corruptions(30, c2w, corruptions.KINDS, 0.9, np.random.default_rng(0))
    assert all(one.frame % 2 for one in planned if one.reason == "pose")
    assert np.array_equal(np.isnan(corruptions.corrupt_poses(c2w, planned)), np.isnan(c2w))


def test_wrong_requests_are_refused(corruptions: ModuleType) -> None:
    rng, c2w = np.random.default_rng(0), random_poses(10)
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5"):
        corruptions.plan_corruptions(10, c2w, ("swap",), 1.5, rng)
    with pytest.raises(ValueError, match="no kind"):
        corruptions.plan_corruptions(10, c2w, (), 0.5, rng)
    with pytest.raises(ValueError, match="moved_run is drawn alone"):
        corruptions.plan_corruptions(10, c2w, ("swap", "moved_run"), 0.5, rng)
    with pytest.raises(ValueError, match="4 consecutive frames"):
        corruptions.plan_corruptions(3, c2w[:3], ("moved_run",), 0.5, rng)
    with pytest.raises(ValueError, match="not an image"):
        corruptions.corrupt_image(IMAGE, corruptions.Corruption(0, "swap", 0), None)
    with pytest.raises(ValueError, match="no donor"):
        corruptions.corrupt_image(IMAGE, corruptions.Corruption(4, "foreign", 0), None)


@pytest.mark.parametrize("seed", range(4))
def test_other_frames_keep_their_poses(corruptions: ModuleType, seed: int) -> None:
    c2w = random_poses(40, seed)
    planned = corruptions.plan_corruptions(40, c2w, corruptions.KINDS, 0.5, np.random.default_rng(seed))
    out = corruptions.corrupt_poses(c2w, planned)
    wrong = [one.frame for one in planned if one.reason == "pose"]
    right = np.setdiff1d(np.arange(40), wrong)
    assert np.array_equal(out[right], c2w[right])
    assert (np.abs(out[wrong] - c2w[wrong]).max(axis=(1, 2)) > 1e-3).all()
    assert np.allclose(out[:, :3, :3] @ out[:, :3, :3].transpose(0, 2, 1), np.eye(3))
    assert np.array_equal(out, corruptions.corrupt_poses(c2w, planned))


def test_a_swap_is_a_permutation_of_far_frames(corruptions: ModuleType) -> None:
    c2w = random_poses(30)
    planned = corruptions.plan_corruptions(30, c2w, ("swap",), 0.4, np.random.default_rng(1))
    out = corruptions.corrupt_poses(c2w, planned)
    source = [int(np.flatnonzero((c2w == pose).all(axis=(1, 2)))[0]) for pose in out]
    assert len(planned) == 12 and sorted(source) == list(range(30))
    assert all(source[source[i]] == i for i in range(30))
    assert {i for i in range(30) if source[i] != i} == {one.frame for one in planned}


@pytest.mark.parametrize(("kind", "degrees", "shift"), [("pose_1", 1, 0.02), ("pose_3", 3, 0.05), ("pose_10", 10, 0.1)])
def test_single_poses_move_by_their_size(corruptions: ModuleType, kind: str, degrees: float, shift: float) -> None:
    c2w = random_poses(40)
    out = corruptions.corrupt_poses(c2w, [corruptions.Corruption(i, kind, 100 + i) for i in range(40)])
    turned = Rotation.from_matrix(out[:, :3, :3] @ c2w[:, :3, :3].transpose(0, 2, 1)).magnitude()
    moved = np.linalg.norm(out[:, :3, 3] - c2w[:, :3, 3], axis=1) / corruptions.spread_of(c2w)
    for sizes, mean in ((np.degrees(turned), degrees), (moved, shift)):
        assert (
            (sizes >= 0.75 * mean - 1e-6).all() and (sizes <= 1.25 * mean + 1e-6).all() and np.ptp(sizes) > 0.2 * mean
        )


@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_a_moved_run_moves_rigidly(corruptions: ModuleType, share: float) -> None:
    c2w = random_poses(40)
    planned = corruptions.plan_corruptions(40, c2w, ("moved_run",), share, np.random.default_rng(2))
    frames = np.array([one.frame for one in planned])
    assert len(frames) == np.clip(round(40 * share), 4, 12) and (np.diff(frames) == 1).all()
    out = corruptions.corrupt_poses(c2w, planned)
    motions = out[frames] @ np.linalg.inv(c2w[frames])
    assert np.allclose(motions, motions[0])
    assert 8.0 <= np.degrees(Rotation.from_matrix(motions[0, :3, :3]).magnitude()) <= 60.0


@pytest.mark.parametrize("kind", IMAGE_KINDS)
@pytest.mark.parametrize("size", [(240, 160), (90, 200), (33, 32)])
def test_images_keep_their_size_and_are_the_same_for_the_same_seed(
    corruptions: ModuleType, kind: str, size: tuple[int, int]
) -> None:
    image = textured(size, 5)
    first, again, other = (
        np.asarray(corruptions.corrupt_image(image, corruptions.Corruption(0, kind, seed), DONOR)) for seed in (8, 8, 9)
    )
    assert first.shape == np.asarray(image).shape and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("kind", ["motion_blur", "defocus"])
def test_blur_lowers_gradients_and_keeps_brightness(corruptions: ModuleType, kind: str) -> None:
    image = textured((480, 320), 3)
    for seed in range(8):
        out = corruptions.corrupt_image(image, corruptions.Corruption(0, kind, seed), None)
        assert gradient_energy(out) < 0.75 * gradient_energy(image)
        assert abs(np.asarray(out, dtype=float).mean() - np.asarray(image, dtype=float).mean()) < 8.0


def test_kernels_are_normalised_and_as_large_as_asked(corruptions: ModuleType) -> None:
    for seed in range(10):
        for extent_px in (3.0, 11.0, 40.0):
            kernel = corruptions.shake_kernel(extent_px, np.random.default_rng(seed))
            y, x = np.nonzero(kernel > 1e-6)
            diameter = max(np.hypot(y[:, None] - y, x[:, None] - x).ravel())
            assert np.isclose(kernel.sum(), 1.0, atol=1e-4) and extent_px - 2 <= diameter <= extent_px + 4
        aperture = corruptions.aperture_kernel(9.0, np.random.default_rng(seed))
        assert np.isclose(aperture.sum(), 1.0, atol=1e-4)
        assert 0.5 * np.pi * 81 < (aperture > 0.3 * aperture.max()).sum() < 1.1 * np.pi * 81


def test_exposure_changes_brightness_in_the_right_sense(corruptions: ModuleType) -> None:
    light = (np.asarray(IMAGE, dtype=np.float32) / 255.0) ** 2
    for seed in range(5):
        dark, darker, bright = (
            float(corruptions.expose(light, stops, np.random.default_rng(seed)).mean()) for stops in (-0.9, -3.0, 0.8)
        )
        assert darker < 0.6 * dark < 0.6 * 0.85 * light.mean() and bright > 1.15 * light.mean()
    means = [
        np.asarray(corruptions.corrupt_image(IMAGE, corruptions.Corruption(0, "exposure", seed), None)).mean()
        for seed in range(12)
    ]
    before = np.asarray(IMAGE).mean()
    assert min(means) < before - 15 and max(means) > before + 15 and np.abs(np.array(means) - before).min() > 8


def test_occluders_cover_8_to_45_percent(corruptions: ModuleType) -> None:
    image = textured((320, 240), 4)
    for seed in range(40):
        out = corruptions.corrupt_image(image, corruptions.Corruption(0, "occluder", seed), None)
        changed = np.abs(np.asarray(out, dtype=int) - np.asarray(image)).max(axis=2) > 12
        assert 0.06 < changed.mean() < 0.55, seed


def test_a_foreign_image_shows_the_donor(corruptions: ModuleType) -> None:
    donor = Image.new("RGB", (64, 48), (200, 40, 40))
    for seed in range(6):
        out = corruptions.corrupt_image(IMAGE, corruptions.Corruption(0, "foreign", seed), donor)
        red, green, blue = np.asarray(out, dtype=float).mean(axis=(0, 1))
        assert out.size == IMAGE.size and red > 2 * green and red > 2 * blue


def test_nothing_is_shared_with_the_training_injector(corruptions: ModuleType) -> None:
    files = [SCRIPTS / "benchmarks" / f"{name}.py" for name in ("corruptions", "occluders", "linear_light")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    assert modules and not any(module.startswith("mtcm_nerfstudio") for module in modules)
    assert set(corruptions.REASON_OF) == {*corruptions.KINDS, "moved_run"}
