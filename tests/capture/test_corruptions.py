"""Faults put into captures: each changes what it says, by as much as it says, and nothing else."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_capture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.capture.corruptions import (
    FAULT_KINDS,
    IMAGE_FAULTS,
    POSE_FAULTS,
    REASON_OF,
    Fault,
    FaultKind,
    ImageFaultKind,
    apply_image_fault,
    apply_pose_fault,
    faulted_poses,
    inject,
    plan_faults,
    read_truth,
    spread,
)
from mtcm_nerfstudio.capture.corruptions.augment import augment_image
from mtcm_nerfstudio.capture.corruptions.image import disc_kernel, line_kernel, occluded
from mtcm_nerfstudio.capture.images import read_rgb
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.geometry.poses import rotation_angle_degrees

SEEDS = st.integers(0, 2**31 - 1)
SEVERITIES = st.floats(0.0, 1.0)
SIZES = st.tuples(st.integers(16, 180), st.integers(16, 180))


def _texture(seed: int = 0, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Random noise: detail at every scale, in the middle of the range so that nothing clips."""
    noise = np.random.default_rng(seed).integers(64, 192, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def _sharpness(image: Image.Image) -> float:
    """Variance of the discrete Laplacian of the grey image, written out as a reference."""
    grey = np.asarray(image.convert("L"), dtype=np.float64)
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return float(laplacian.var())


def _mean(image: Image.Image) -> float:
    return float(np.asarray(image).mean())


# Faults of images


@pytest.mark.parametrize("kind", IMAGE_FAULTS)
@settings(max_examples=15, deadline=None)
@given(size=SIZES, severity=SEVERITIES, seed=SEEDS)
def test_an_image_fault_keeps_the_size_and_is_the_same_for_the_same_seed(
    kind: ImageFaultKind, size: tuple[int, int], severity: float, seed: int
) -> None:
    image = _texture(1, size)
    before = image.tobytes()
    faulty = apply_image_fault(image, kind, severity, np.random.default_rng(seed))
    again = apply_image_fault(image, kind, severity, np.random.default_rng(seed))
    assert faulty.size == image.size and faulty.mode == "RGB"
    assert faulty.tobytes() == again.tobytes()
    assert image.tobytes() == before, "the image given must not change"


@pytest.mark.parametrize("kind", ["motion_blur", "defocus"])
@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_more_blur_is_less_sharp(kind: ImageFaultKind, seed: int) -> None:
    image = _texture(2, (320, 240))
    sharpness = [_sharpness(image)] + [
        _sharpness(apply_image_fault(image, kind, severity, np.random.default_rng(seed)))
        for severity in (0.0, 0.35, 0.7, 1.0)
    ]
    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[1] < 0.8 * sharpness[0], "even the mildest blur shows"


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_blur_keeps_the_light(seed: int) -> None:
    """A blur moves light about; a flat image has none to move."""
    flat = Image.new("RGB", (90, 60), (30, 120, 200))
    for kind in ("motion_blur", "defocus"):
        faulty = np.asarray(apply_image_fault(flat, kind, 1.0, np.random.default_rng(seed)), dtype=int)
        assert np.abs(faulty - np.asarray(flat, dtype=int)).max() <= 1


@given(length=st.floats(0.5, 60.0), angle=st.floats(0.0, np.pi), radius=st.floats(0.3, 30.0))
def test_blur_kernels_are_centred_and_sum_to_one(length: float, angle: float, radius: float) -> None:
    for kernel in (line_kernel(length, angle), disc_kernel(radius)):
        assert kernel.min() >= 0.0
        np.testing.assert_allclose(kernel.sum(), 1.0, rtol=1e-5)
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-5)


def test_a_line_kernel_is_as_long_and_as_steep_as_it_says() -> None:
    """Reference: the second moments of a line of length L at angle a are (L² / 12)·[cos², sin²]."""
    kernel = line_kernel(41.0, 0.5)
    reach = len(kernel) // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    moments = [(kernel * x * x).sum(), (kernel * y * y).sum(), (kernel * x * y).sum()]
    expected = 40.0**2 / 12 * np.array([np.cos(0.5) ** 2, np.sin(0.5) ** 2, np.cos(0.5) * np.sin(0.5)])
    np.testing.assert_allclose(moments, expected, rtol=0.06, atol=0.5)


@given(seed=SEEDS, severity=SEVERITIES)
@settings(max_examples=20, deadline=None)
def test_wrong_exposure_changes_the_mean_and_more_so_with_severity(seed: int, severity: float) -> None:
    image = _texture(3)
    mild = _mean(apply_image_fault(image, "exposure", 0.0, np.random.default_rng(seed))) - _mean(image)
    wrong = _mean(apply_image_fault(image, "exposure", severity, np.random.default_rng(seed))) - _mean(image)
    assert abs(mild) > 20
    assert np.sign(wrong) == np.sign(mild) and abs(wrong) >= abs(mild)


def test_exposure_goes_both_ways_and_clips() -> None:
    image = Image.new("RGB", (8, 8), (200, 200, 200))
    means = [_mean(apply_image_fault(image, "exposure", 1.0, np.random.default_rng(seed))) for seed in range(20)]
    assert min(means) < 100 and max(means) == 255.0


@given(share=st.floats(0.1, 0.45), seed=SEEDS, size=SIZES)
@settings(max_examples=40, deadline=None)
def test_an_occluder_covers_the_share_it_says(share: float, seed: int, size: tuple[int, int]) -> None:
    """On black and on white alike: what is no longer black (or white) is covered, up to its soft edge."""
    black = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    on_black = occluded(black, share, np.random.default_rng(seed)).max(axis=-1)
    on_white = occluded(255 - black, share, np.random.default_rng(seed)).min(axis=-1)
    untouched = (on_black == 0) & (on_white == 255)
    assert abs((1.0 - untouched.mean()) - share) < 0.12


@settings(max_examples=40)
@given(seed=SEEDS, size=SIZES)
def test_a_harmless_change_keeps_the_size_and_changes_little(seed: int, size: tuple[int, int]) -> None:
    image = _texture(seed, size)
    changed, again = (augment_image(image, np.random.default_rng(seed)) for _ in range(2))
    assert changed.size == image.size and changed.mode == "RGB" and changed.tobytes() == again.tobytes()
    difference = np.abs(np.asarray(changed, dtype=float) - np.asarray(image, dtype=float))
    assert difference.mean() < 45.0 and _mean(image) * 0.8 < _mean(changed) < _mean(image) * 1.25


def test_severity_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"severity must lie in \[0, 1\], got 1.5"):
        apply_image_fault(_texture(), "defocus", 1.5, np.random.default_rng(0))


# Faults of poses


@pytest.mark.parametrize("kind", POSE_FAULTS)
@given(seed=SEEDS, severity=SEVERITIES, count=st.integers(8, 40))
@settings(max_examples=15, deadline=None)
def test_a_pose_fault_changes_exactly_the_planned_frames(kind, seed: int, severity: float, count: int) -> None:
    c2w = tiny_capture.orbit(count)
    indices = np.random.default_rng(seed).permutation(count)[:3]
    before = c2w.copy()
    wrong = apply_pose_fault(c2w, indices, kind, np.random.default_rng(seed), severity)
    np.testing.assert_array_equal(c2w, before)
    others = np.setdiff1d(np.arange(count), indices)
    np.testing.assert_array_equal(wrong[others], c2w[others])
    assert (np.abs(wrong[indices] - c2w[indices]).max(axis=(1, 2)) > 1e-4).all()
    rotation = wrong[:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (count, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-9)
    np.testing.assert_array_equal(wrong[:, 3], c2w[:, 3])
    np.testing.assert_array_equal(wrong, apply_pose_fault(c2w, indices, kind, np.random.default_rng(seed), severity))


@pytest.mark.parametrize(("kind", "angle", "share"), [("pose_10", 10, 0.1), ("pose_3", 3, 0.05), ("pose_1", 1, 0.02)])
@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_a_small_pose_fault_is_of_the_planned_size(kind, angle: float, share: float, seed: int) -> None:
    c2w = tiny_capture.orbit(20)
    indices = np.array([3, 11])
    wrong = apply_pose_fault(c2w, indices, kind, np.random.default_rng(seed))
    turned = rotation_angle_degrees(wrong[indices, :3, :3], c2w[indices, :3, :3])
    moved = np.linalg.norm(wrong[indices, :3, 3] - c2w[indices, :3, 3], axis=1)
    np.testing.assert_allclose(turned, angle, rtol=1e-6)
    np.testing.assert_allclose(moved, share * spread(c2w), rtol=1e-6)
    assert not np.allclose(wrong[3] @ np.linalg.inv(c2w[3]), wrong[11] @ np.linalg.inv(c2w[11])), "each its own"


@given(seed=SEEDS, severity=SEVERITIES)
@settings(max_examples=15, deadline=None)
def test_a_cluster_keeps_its_shape(seed: int, severity: float) -> None:
    """Moved together, the cameras of a cluster keep their poses relative to each other."""
    c2w = tiny_capture.orbit(24)
    run = np.arange(5, 11)
    wrong = apply_pose_fault(c2w, run, "cluster", np.random.default_rng(seed), severity)
    np.testing.assert_allclose(np.linalg.inv(wrong[run]) @ wrong[5], np.linalg.inv(c2w[run]) @ c2w[5], atol=1e-9)
    turned = rotation_angle_degrees(wrong[run, :3, :3], c2w[run, :3, :3])
    np.testing.assert_allclose(turned, 15 + 45 * severity, rtol=1e-6)


def test_swap_and_far() -> None:
    c2w = tiny_capture.orbit(12)
    swapped = apply_pose_fault(c2w, np.array([2, 9]), "swap", np.random.default_rng(0))
    np.testing.assert_array_equal(swapped[[2, 9]], c2w[[9, 2]])
    far = apply_pose_fault(c2w, np.array([4]), "far", np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(far[4, :3, 3] - c2w[4, :3, 3]), 1000 * spread(c2w))


def test_pose_faults_refuse_what_they_cannot_do() -> None:
    c2w = tiny_capture.orbit(6)
    c2w[4] = np.nan
    with pytest.raises(ValueError, match="a pose_3 fault needs frames with a pose, frame 4 has none"):
        apply_pose_fault(c2w, np.array([1, 4]), "pose_3", np.random.default_rng(0))
    with pytest.raises(ValueError, match="a swap needs two frames, got 1"):
        apply_pose_fault(c2w, np.array([1]), "swap", np.random.default_rng(0))


# Plans


@given(
    count=st.integers(4, 120),
    kinds=st.lists(st.sampled_from(FAULT_KINDS), min_size=1, unique=True),
    share=st.floats(0.0, 0.5),
    seed=SEEDS,
)
@settings(max_examples=100, deadline=None)
def test_a_plan_is_one_fault_a_frame_and_the_share_asked_for(count: int, kinds, share: float, seed: int) -> None:
    plan = plan_faults(count, kinds, share, np.random.default_rng(seed))
    frames = [fault.frame for fault in plan]
    assert frames == sorted(set(frames)) and all(0 <= frame < count for frame in frames)
    assert {fault.kind for fault in plan} <= set(kinds)
    assert len(plan) <= round(share * count)
    if not {"swap", "cluster"} & set(kinds):
        assert len(plan) == round(share * count)
        sizes = [sum(fault.kind == kind for fault in plan) for kind in kinds]
        assert max(sizes) - min(sizes) <= 1, "as evenly as the kinds divide"
    assert plan == plan_faults(count, kinds, share, np.random.default_rng(seed))
    runs = [fault.frame for fault in plan if fault.kind == "cluster"]
    assert runs == list(range(runs[0], runs[0] + len(runs))) if runs else True


@given(count=st.integers(12, 60), seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_swaps_are_pairs_of_frames_far_apart(count: int, seed: int) -> None:
    c2w = tiny_capture.orbit(count)
    plan = plan_faults(count, ["swap"], 0.2, np.random.default_rng(seed), c2w)
    pairs: dict[int, list[int]] = {}
    for fault in plan:
        pairs.setdefault(fault.seed, []).append(fault.frame)
    wrong = faulted_poses(c2w, plan)
    typical = np.median(np.linalg.norm(c2w[:, None, :3, 3] - c2w[None, :, :3, 3], axis=-1))
    for first, second in pairs.values():
        np.testing.assert_array_equal(wrong[[first, second]], c2w[[second, first]])
        assert np.linalg.norm(c2w[first, :3, 3] - c2w[second, :3, 3]) > 0.5 * typical


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_frames_without_a_pose_get_no_pose_fault(seed: int) -> None:
    c2w = tiny_capture.orbit(20)
    c2w[::3] = np.nan
    plan = plan_faults(20, FAULT_KINDS, 0.5, np.random.default_rng(seed), c2w)
    assert not [fault for fault in plan if fault.kind in POSE_FAULTS and fault.frame % 3 == 0]
    wrong = faulted_poses(c2w, plan)
    changed = np.flatnonzero((np.nan_to_num(wrong) != np.nan_to_num(c2w)).any(axis=(1, 2)))
    assert set(changed) == {fault.frame for fault in plan if fault.kind in POSE_FAULTS}


def test_an_earlier_far_pose_does_not_widen_the_others_faults() -> None:
    c2w = tiny_capture.orbit(8)
    small = Fault(5, "pose_1", 0.5, 7)
    crowd = [Fault(i, "far", 0.5, i) for i in range(5)]
    np.testing.assert_array_equal(faulted_poses(c2w, [*crowd, small])[5], faulted_poses(c2w, [small])[5])


def test_plans_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 2"):
        plan_faults(10, ["far"], 2.0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no kind of fault"):
        plan_faults(10, [], 0.2, np.random.default_rng(0))


def test_every_kind_has_a_reason() -> None:
    assert set(REASON_OF) == set(FAULT_KINDS)


# Captures on disk


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def clean(tmp_path: Path) -> Capture:
    root = tiny_capture.write_transforms(tmp_path / "clean", tiny_capture.orbit(16))
    (root / "masks").mkdir()
    Image.new("L", (tiny_capture.WIDTH, tiny_capture.HEIGHT), 255).save(root / "masks" / "frame_3.png")
    return read_capture(root)


@pytest.fixture
def foreign(tmp_path: Path) -> Capture:
    root = tmp_path / "elsewhere"
    tiny_capture.write_images(root / "images", 4, seed=99)
    return read_capture(root)


def _one_of_each(capture: Capture) -> tuple[Fault, ...]:
    kinds: list[FaultKind] = ["pose_10", "far", *IMAGE_FAULTS, "foreign"]
    return tuple(Fault(2 * i, kind, 0.8, i) for i, kind in enumerate(kinds))


def test_inject_leaves_the_original_alone_and_gives_a_readable_capture(
    clean: Capture, foreign: Capture, tmp_path: Path
) -> None:
    before = _digests(clean.root)
    faults = _one_of_each(clean)
    faulty = inject(clean, faults, foreign, tmp_path / "faulty")
    assert _digests(clean.root) == before
    assert [frame.file_path for frame in faulty.frames] == [frame.file_path for frame in clean.frames]
    assert read_truth(tmp_path / "faulty") == {clean.frames[fault.frame].file_path: fault for fault in faults}
    fault_of = {fault.frame: fault for fault in faults}
    for i, (old, new) in enumerate(zip(clean.frames, faulty.frames, strict=True)):
        assert old.c2w is not None and new.c2w is not None
        kind = fault_of[i].kind if i in fault_of else None
        assert np.array_equal(old.c2w, new.c2w) == (kind not in POSE_FAULTS)
        same_image = read_rgb(old.image_path).tobytes() == read_rgb(new.image_path).tobytes()
        assert same_image == (kind is None or kind in POSE_FAULTS)
        assert read_rgb(new.image_path).size == read_rgb(old.image_path).size
        assert new.intrinsics == old.intrinsics
        assert (new.mask_path is None) == (old.mask_path is None)
    record = json.loads((tmp_path / "faulty" / "faults.json").read_text())
    assert [entry["reason"] for entry in record["faults"]] == [fault.reason for fault in faults]


def test_inject_gives_the_same_bytes_for_the_same_plan(clean: Capture, foreign: Capture, tmp_path: Path) -> None:
    for name in ("a", "b"):
        inject(clean, _one_of_each(clean), foreign, tmp_path / name)
    assert _digests(tmp_path / "a") == _digests(tmp_path / "b")


def test_inject_reads_a_colmap_capture_too(tmp_path: Path, foreign: Capture) -> None:
    clean = read_capture(tiny_capture.write_colmap(tmp_path / "colmap", tiny_capture.orbit(10)))
    faulty = inject(clean, (Fault(3, "pose_10", 0.5, 1),), None, tmp_path / "faulty")
    assert faulty.source == "transforms"
    for i, (old, new) in enumerate(zip(clean.frames, faulty.frames, strict=True)):
        assert old.c2w is not None and new.c2w is not None
        assert np.allclose(old.c2w, new.c2w, atol=1e-12) == (i != 3)
        assert old.image_path.stat().st_size == new.image_path.stat().st_size


def test_inject_keeps_every_camera(tmp_path: Path, foreign: Capture) -> None:
    def two_cameras(meta: dict) -> None:
        for i, frame in enumerate(meta["frames"]):
            frame.update({"fl_x": 50.0 + i, "fl_y": 50.0 + i, "k1": 0.01 * i})

    root = tiny_capture.write_transforms(tmp_path / "clean", tiny_capture.orbit(5))
    tiny_capture.edit_transforms(root, two_cameras)
    clean = read_capture(root)
    faulty = inject(clean, (), None, tmp_path / "faulty")
    assert [frame.intrinsics for frame in faulty.frames] == [frame.intrinsics for frame in clean.frames]
    assert len({frame.intrinsics for frame in faulty.frames}) == 5


def test_inject_leaves_frames_without_a_pose_out(tmp_path: Path) -> None:
    root = tiny_capture.write_transforms(tmp_path / "clean", tiny_capture.orbit(5))
    tiny_capture.edit_transforms(root, lambda meta: meta["frames"][2].pop("transform_matrix"))
    faults = (Fault(1, "defocus", 0.5, 0), Fault(2, "defocus", 0.5, 0))
    faulty = inject(read_capture(root), faults, None, tmp_path / "faulty")
    assert [frame.file_path for frame in faulty.frames] == [f"images/frame_{i}.jpg" for i in (1, 2, 4, 5)]
    assert read_truth(tmp_path / "faulty") == {"images/frame_2.jpg": faults[0]}


def test_inject_never_writes_outside_its_folder(tmp_path: Path) -> None:
    root = tiny_capture.write_transforms(tmp_path / "deep" / "clean", tiny_capture.orbit(4))
    (root / "images" / "frame_1.jpg").rename(root.parent / "frame_1.jpg")
    tiny_capture.edit_transforms(root, lambda meta: meta["frames"][0].update(file_path="../frame_1.jpg"))
    before = _digests(root.parent)
    clean = read_capture(root)
    outside = next(i for i, frame in enumerate(clean.frames) if frame.file_path.startswith(".."))
    faulty = inject(clean, (Fault(outside, "defocus", 0.5, 0),), None, tmp_path / "out" / "faulty")
    assert _digests(root.parent) == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"faulty"}
    assert all(frame.image_path.is_file() for frame in faulty.frames)


def test_inject_refuses_by_name(clean: Capture, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not empty"):
        inject(clean, (), None, clean.root)
    with pytest.raises(ValueError, match="needs another capture"):
        inject(clean, (Fault(0, "foreign", 0.5, 0),), None, tmp_path / "out")


def test_a_damaged_truth_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "faults.json").write_text('{"schema_version": 2, "faults": []}')
    with pytest.raises(ValueError, match=r"faults\.json: not a file of faults \(schema_version is 2"):
        read_truth(tmp_path)
    (tmp_path / "faults.json").write_text("{")
    with pytest.raises(ValueError, match=r"faults\.json"):
        read_truth(tmp_path)
