"""Repair of poses on numbers: cameras on a ring around a ball of points, some of them at a wrong pose."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from tiny_capture import look_at

from mtcm_nerfstudio.capture.corruptions import faulted_poses, plan_faults, spread, turned_and_shifted
from mtcm_nerfstudio.evidence.keypoints import NO_KEYPOINTS, FrameKeypoints
from mtcm_nerfstudio.evidence.match_capture import FrameFeatures, MatchedCapture, table_of
from mtcm_nerfstudio.evidence.matching import PairMatches
from mtcm_nerfstudio.geometry.intrinsics import Intrinsics
from mtcm_nerfstudio.geometry.poses import rotation_angle_degrees
from mtcm_nerfstudio.verdicts.repair import repair_poses

COUNT = 24
CAMERA = Intrinsics("PINHOLE", 1000, 800, 900.0, 900.0, 500.0, 400.0)
NOISE_PX, WRONG_SHARE = 0.4, 0.08


def ring() -> np.ndarray:
    """Poses once around the ball, at two heights."""
    angles = 2 * np.pi * np.arange(COUNT) / COUNT
    places = np.stack([4 * np.cos(angles), 4 * np.sin(angles), 1 + 0.5 * np.sin(3 * angles)], axis=1)
    return np.array([look_at(place, np.zeros(3)) for place in places])


def keypoints_at(points: np.ndarray) -> FrameKeypoints:
    return replace(
        NO_KEYPOINTS,
        points=points.astype(np.float32),
        descriptors=np.zeros((len(points), 128), dtype=np.uint8),
        log_blur=np.zeros((len(points), 2), dtype=np.float32),
        log_light=np.zeros(len(points), dtype=np.float32),
        width=1000.0,
        height=800.0,
    )


def matched(reach: int = 4, seed: int = 0, cameras: dict[int, Intrinsics | None] | None = None) -> MatchedCapture:
    """What the frames of the ring would have in common: points of the near side, with noise, some of them mismatched.

    Args:
        reach: how far apart on the ring frames are compared.
        seed: of points, noise and mismatches.
        cameras: other intrinsics than ``CAMERA``, by frame.
    """
    rng = np.random.default_rng(seed)
    ball = rng.standard_normal((700, 3))
    ball /= np.linalg.norm(ball, axis=1)[:, None] * rng.uniform(1.0, 1.3, (700, 1))
    orders, features = [], []
    for i, c2w in enumerate(ring()):
        towards = c2w[:3, 3] / np.linalg.norm(c2w[:3, 3])
        order = rng.permutation(np.flatnonzero(ball @ towards > 0.25))
        local = (ball[order] - c2w[:3, 3]) @ c2w[:3, :3] * [1.0, -1.0, -1.0]
        pixels = 900.0 * local[:, :2] / local[:, 2:] + [500.0, 400.0] + rng.normal(0.0, NOISE_PX, (len(order), 2))
        orders.append(order)
        features.append(FrameFeatures(keypoints_at(pixels), CAMERA if cameras is None else cameras.get(i, CAMERA), ""))
    pairs = {}
    for i in range(COUNT):
        for j in range(i + 1, COUNT):
            if min(j - i, COUNT - j + i) <= reach:
                _, a, b = np.intersect1d(orders[i], orders[j], return_indices=True)
                wrong = rng.random(len(a)) < WRONG_SHARE
                b[wrong] = rng.permutation(b[wrong])
                pairs[i, j] = PairMatches(np.stack([a, b], axis=1).astype(np.int16), len(a))
    return with_matches(features, pairs)


def with_matches(features, pairs) -> MatchedCapture:
    return MatchedCapture(table_of(features, pairs), tuple(features), pairs)


def marked(frames) -> np.ndarray:
    return np.isin(np.arange(COUNT), list(frames))


def moved(frames, degrees: float = 8.0, shift: float = 0.3, seed: int = 1) -> np.ndarray:
    """The ring with each of some frames turned and shifted on its own."""
    c2w, rng = ring(), np.random.default_rng(seed)
    for i in frames:
        c2w[i : i + 1] = turned_and_shifted(c2w[i : i + 1], degrees, shift, rng)
    return c2w


def repaired(found: MatchedCapture, c2w: np.ndarray, frames) -> dict[int, np.ndarray]:
    suspects = marked(frames)
    return repair_poses(found, c2w, suspects, ~suspects)


def assert_right(poses: dict[int, np.ndarray], frames, degrees: float = 0.15, share: float = 0.005):
    """These frames were repaired, no others, and all are where they belong."""
    truth = ring()
    assert sorted(poses) == sorted(frames)
    for i, pose in poses.items():
        assert rotation_angle_degrees(pose[None, :3, :3], truth[i : i + 1, :3, :3])[0] < degrees
        assert np.linalg.norm(pose[:3, 3] - truth[i, :3, 3]) < share * spread(truth)
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
        np.testing.assert_array_equal(pose[3], [0, 0, 0, 1])


@pytest.fixture(scope="module")
def found() -> MatchedCapture:
    return matched()


@pytest.mark.parametrize("degrees, shift", [(1.0, 0.08), (10.0, 0.4), (120.0, 5.0)])
def test_frames_at_a_wrong_pose_are_put_where_they_belong(found, degrees, shift):
    frames = [2, 9, 10, 17]
    assert_right(repaired(found, moved(frames, degrees, shift), frames), frames)


@pytest.mark.parametrize("kind", ["swap", "cluster", "far"])
def test_swapped_thrown_and_displaced_frames_are_put_where_they_belong(found, kind):
    faults = plan_faults(COUNT, [kind], 0.17, np.random.default_rng(4), ring())
    frames = [fault.frame for fault in faults]
    assert len(frames) == 4
    assert_right(repaired(found, faulted_poses(ring(), faults), frames), frames)


def test_a_run_of_frames_is_repaired_from_its_ends_inwards():
    narrow = matched(reach=2)
    frames = list(range(5, 12))  # 7, 8 and 9 have nothing in common with any frame that is right
    c2w = ring()
    c2w[frames] = turned_and_shifted(c2w[frames], 30.0, 2.0, np.random.default_rng(0))
    assert_right(repaired(narrow, c2w, frames), frames, degrees=0.4, share=0.01)


def test_a_run_without_any_trusted_frame_beside_it_stays():
    narrow = matched(reach=2)
    frames = range(5, 12)
    c2w = ring()
    c2w[5:12] = turned_and_shifted(c2w[5:12], 30.0, 2.0, np.random.default_rng(0))
    beside = marked([3, 4, 12, 13])
    assert repair_poses(narrow, c2w, marked(frames), ~marked(frames) & ~beside) == {}


def test_a_suspect_whose_pose_is_right_is_not_moved(found):
    assert_right(repaired(found, moved([6]), [6, 12, 13]), [6])


def test_only_suspects_are_moved_and_nothing_is_overwritten(found):
    c2w = moved([6, 15])
    before = c2w.copy()
    suspects = marked([6])
    poses = repair_poses(found, c2w, suspects, ~suspects & ~marked([15]))
    assert_right(poses, [6])
    np.testing.assert_array_equal(c2w, before)


def test_frames_that_are_wrongly_trusted_are_not_believed():
    near = matched(reach=3)
    c2w = moved([5, 6, 7])  # 6 has most in common with 5 and 7
    assert_right(repaired(near, c2w, [6]), [6])


def test_points_are_linked_through_trusted_frames(found):
    """Frame 6 shares some points with 5 and others with 7, none with both: only who else sees them says where."""
    pairs = {pair: match for pair, match in found.matches.items() if 6 not in pair}
    left, right = found.matches[5, 6].indices, found.matches[6, 7].indices
    pairs[5, 6] = PairMatches(left[left[:, 1] % 2 == 0], len(left))
    pairs[6, 7] = PairMatches(right[right[:, 0] % 2 == 1], len(right))
    assert_right(repaired(with_matches(found.features, pairs), moved([6]), [6]), [6], degrees=0.4, share=0.01)


def test_nothing_is_made_of_matches_that_mean_nothing(found):
    rng = np.random.default_rng(0)
    pairs = dict(found.matches)
    for (i, j), pair in found.matches.items():
        if 6 in (i, j):
            shuffled = np.stack([pair.indices[:, 0], rng.permutation(pair.indices[:, 1])], axis=1)
            pairs[i, j] = PairMatches(shuffled, pair.tentative)
    assert repaired(with_matches(found.features, pairs), moved([6]), [6]) == {}


def test_a_frame_that_only_half_agrees_stays(found):
    """Whatever is wrong with two fifths of its image, it is not the pose."""
    features = list(found.features)
    points = features[6].keypoints.points.copy()
    points[::5], points[1::5] = points[::5][::-1], points[1::5][::-1]
    features[6] = replace(features[6], keypoints=keypoints_at(points))
    assert repaired(with_matches(features, found.matches), moved([6]), [6]) == {}


def test_a_mirrored_photo_stays(found):
    """It has as many matches with the others as it ever had, and no pose from which it could have been taken."""
    features = list(found.features)
    points = features[6].keypoints.points * [-1.0, 1.0] + [1000.0, 0.0]
    features[6] = replace(features[6], keypoints=keypoints_at(points))
    assert repaired(with_matches(features, found.matches), moved([6]), [6]) == {}


def test_one_witness_is_not_enough(found):
    pairs = {pair: match for pair, match in found.matches.items() if 6 not in pair or pair == (5, 6)}
    assert repaired(with_matches(found.features, pairs), moved([6]), [6]) == {}


def test_frames_without_pose_or_intrinsics_are_left_alone():
    without = matched(cameras={6: None, 8: None, 20: replace(CAMERA, camera_model="DIVISION")})
    c2w = moved([6, 7, 13])
    c2w[[13, 14]] = np.nan
    assert_right(repaired(without, c2w, [6, 7, 13, 20]), [7])


def test_without_suspects_or_trusted_frames_there_is_nothing_to_do(found):
    none, every = np.zeros(COUNT, dtype=bool), np.ones(COUNT, dtype=bool)
    assert repair_poses(found, ring(), none, every) == {}
    assert repair_poses(found, ring(), every, none) == {}
    assert repair_poses(found, ring(), every, every) == {}
    assert repair_poses(found, np.full((COUNT, 4, 4), np.nan), marked([1]), ~marked([1])) == {}
    assert repaired(with_matches(found.features, {}), moved([6]), [6]) == {}


def test_a_frame_without_an_image_does_no_harm(found):
    features = list(found.features)
    features[3] = FrameFeatures(NO_KEYPOINTS, None, "")
    pairs = {pair: match for pair, match in found.matches.items() if 3 not in pair}
    assert_right(repaired(with_matches(features, pairs), moved([4, 3]), [3, 4]), [4])


def test_the_same_comes_out_every_time(found):
    frames = [2, 9, 10, 17]
    first, second = (repaired(found, moved(frames), frames) for _ in range(2))
    assert all(np.array_equal(first[i], second[i]) for i in frames)


@pytest.mark.parametrize("scale", [1e-3, 500.0])
def test_poses_turn_and_scale_with_the_world(found, scale):
    frames = [2, 9, 10, 17]
    c2w = moved(frames)
    turn = look_at(np.array([1.0, 2.0, 3.0]), np.zeros(3))[:3, :3]

    def in_other_world(poses: np.ndarray) -> np.ndarray:
        out = poses.copy()
        out[..., :3, :3] = turn @ poses[..., :3, :3]
        out[..., :3, 3] = scale * (poses[..., :3, 3] @ turn.T + [7.0, -3.0, 11.0])
        return out

    here, there = repaired(found, c2w, frames), repaired(found, in_other_world(c2w), frames)
    assert sorted(here) == sorted(there) == frames
    for i in frames:
        np.testing.assert_allclose(there[i][:3, :3], in_other_world(here[i])[:3, :3], atol=1e-4)
        np.testing.assert_allclose(there[i][:3, 3] / scale, in_other_world(here[i])[:3, 3] / scale, atol=1e-3)


def test_the_order_of_the_frames_changes_nothing(found):
    frames = [2, 9, 10, 17]
    c2w = moved(frames)
    last = COUNT - 1
    turned = {(last - j, last - i): PairMatches(m.indices[:, ::-1], m.tentative) for (i, j), m in found.matches.items()}
    here = repaired(found, c2w, frames)
    there = repaired(with_matches(found.features[::-1], turned), c2w[::-1].copy(), [last - i for i in frames])
    assert sorted(last - i for i in there) == frames
    for i in frames:
        np.testing.assert_allclose(there[last - i], here[i], atol=2e-3)


def test_importing_it_leaves_signals_alone():
    code = "import sys, mtcm_nerfstudio.verdicts.repair; assert 'pycolmap' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
