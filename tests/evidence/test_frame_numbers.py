"""Numbers about frames and pairs of a real walk: a fault shows in the numbers of its own frame."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from evidence_walk import (
    evidence_of_walk,
    in_own_unit,
    matched,
    poses_of,
    with_image,
)
from PIL import Image

from mtcm_nerfstudio.capture.corruptions import turned_and_shifted
from mtcm_nerfstudio.evidence.embedding_outlier import embedding_outlier_score
from mtcm_nerfstudio.evidence.frame_numbers import Evidence, compute_evidence
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS, PAIR_NUMBERS
from mtcm_nerfstudio.evidence.pair_table import CELLS, pair_table
from mtcm_nerfstudio.geometry.epipolar import small_motion
from mtcm_nerfstudio.tokens.cache import Cache
from mtcm_nerfstudio.tokens.embedders import EMBEDDING_DIM

COUNT, FAULTY = 12, 5
BY_GEOMETRY = ("inlier ratio", "support", "conflict", "correction angle", "blur", "gain", "hidden share")


@pytest.fixture(scope="module")
def plain(walk) -> Evidence:
    return evidence_of_walk(walk.found, walk.frames)


def with_pose(frames, i: int, degrees: float, shift: float = 0.0) -> np.ndarray:
    """Claimed poses, one of them turned and shifted."""
    c2w = poses_of(frames)
    c2w[i : i + 1] = turned_and_shifted(c2w[i : i + 1], degrees, shift, np.random.default_rng(3))
    return c2w


def with_faulty_image(walk, folder, change) -> Evidence:
    """Evidence about the walk with the image of one frame changed."""
    values = np.asarray(Image.open(walk.frames[FAULTY].image_path)).copy()
    Image.fromarray(change(values)).save(folder / "image.png")
    frames = list(walk.frames)
    frames[FAULTY] = with_image(frames[FAULTY], folder / "image.png")
    return evidence_of_walk(matched(frames, walk.cache), frames)


def assert_stands_out(evidence: Evidence, name: str, share: float = 0.5) -> None:
    """The faulty frame has the largest number of all, and the others' are smaller by far."""
    numbers = evidence.number(name)
    assert numbers.argmax() == FAULTY, name
    assert np.delete(numbers, FAULTY).max() < share * numbers[FAULTY], name


def test_names_are_unique_and_every_number_has_one(plain):
    assert len(set(FRAME_NUMBERS)) == len(FRAME_NUMBERS) and len(set(PAIR_NUMBERS)) == len(PAIR_NUMBERS)
    assert plain.frames.shape == (COUNT, len(FRAME_NUMBERS))
    assert plain.of_pairs.shape == (len(plain.pairs), 2, len(PAIR_NUMBERS))
    assert plain.hidden_cells.shape == (COUNT, CELLS)


def test_the_images_of_one_walk_match_and_obey_its_poses(plain):
    assert np.isfinite(plain.frames).all() and np.isfinite(plain.of_pairs).all()
    assert (plain.number("inlier ratio") > 0.95).all() and (plain.number("support") > 0.6).all()
    assert (plain.number("conflict") < 0.1).all() and (plain.number("correction angle") < 0.2).all()
    assert plain.number("verified share in time").min() > 0.9
    assert np.abs(plain.number("gain")).max() < 0.1 and plain.number("hidden block").max() < 0.5


@pytest.mark.parametrize("degrees", [1.5, 5.0, 20.0])
def test_a_wrong_pose_differs_from_the_good_ones_beside_it(walk, degrees):
    evidence = evidence_of_walk(walk.found, walk.frames, with_pose(walk.frames, FAULTY, degrees))
    support = evidence.number("support")
    assert support.argmin() == FAULTY and support[FAULTY] < 0.5 * np.delete(support, FAULTY).min()
    assert evidence.number("inlier ratio of supported").argmin() == FAULTY
    assert evidence.number("conflict").argmax() == FAULTY
    if degrees < 10:
        assert evidence.number("correction angle").argmax() == FAULTY
        assert evidence.number("gain of moving").argmax() == FAULTY


def test_a_shifted_camera_is_found_by_the_shift_that_would_correct_it(walk):
    evidence = evidence_of_walk(walk.found, walk.frames, with_pose(walk.frames, FAULTY, 0.0, shift=0.3))
    assert evidence.number("support").argmin() == FAULTY
    assert evidence.number("correction shift").argmax() == FAULTY


def test_a_cluster_that_was_moved_together_has_little_support(walk):
    c2w = poses_of(walk.frames)
    c2w[3:6] = turned_and_shifted(c2w[3:6], 25.0, 0.6, np.random.default_rng(0))
    evidence = evidence_of_walk(walk.found, walk.frames, c2w)
    moved = np.isin(np.arange(COUNT), [3, 4, 5])
    assert evidence.number("support")[moved].max() < evidence.number("support")[~moved].min()
    assert evidence.number("best inlier ratio")[4] > 0.9, "the cluster agrees with itself"
    assert evidence.number("cluster share")[moved].max() < 0.5


def test_a_similarity_transform_of_the_world_changes_nothing(walk):
    c2w = with_pose(walk.frames, FAULTY, 4.0)
    plain = evidence_of_walk(walk.found, walk.frames, c2w)
    other = small_motion(np.array([[0.3, -1.0, 0.4, 0.0, 0.0, 0.0]])) @ c2w
    other[:, :3, 3] = 6.0 * other[:, :3, 3] + [5.0, -2.0, 1.0]
    turned = evidence_of_walk(walk.found, walk.frames, other)
    np.testing.assert_array_equal(turned.pairs, plain.pairs)
    np.testing.assert_allclose(turned.frames, plain.frames, atol=1e-4)
    np.testing.assert_allclose(turned.of_pairs, plain.of_pairs, atol=1e-4)


def test_reading_backwards_changes_nothing(walk):
    c2w, backwards = with_pose(walk.frames, FAULTY, 4.0), np.arange(COUNT)[::-1]
    plain = evidence_of_walk(walk.found, walk.frames, c2w)
    turned = replace(walk.found, table=walk.found.table.subset(backwards))
    other = evidence_of_walk(turned, walk.frames[::-1], c2w[backwards])
    np.testing.assert_allclose(other.frames[backwards], plain.frames, atol=1e-4)
    np.testing.assert_allclose(other.hidden_cells[backwards], plain.hidden_cells, atol=1e-6)


def test_the_files_in_another_order_give_the_same(walk, plain, tmp_path):
    other = matched(walk.frames[::-1], Cache(tmp_path / "other.sqlite"))
    turned = evidence_of_walk(other, walk.frames[::-1])
    np.testing.assert_allclose(turned.frames[::-1], plain.frames, atol=1e-4)


def test_a_blurred_image_is_more_blurred_than_its_partners_and_they_as_sharp_as_theirs(walk, tmp_path):
    evidence = with_faulty_image(walk, tmp_path, lambda values: cv2.GaussianBlur(values, (0, 0), 2.0))
    for name in ("blur", "blur above pairs", "blur above sharpest views", "blur above in time"):
        assert_stands_out(evidence, name)
    assert evidence.number("log sharpness above in time").argmin() == FAULTY
    assert evidence.number("log sharpness above partners").argmin() == FAULTY


def test_motion_blur_has_a_direction(walk, tmp_path):
    kernel = np.full((1, 9), 1.0 / 9.0)
    evidence = with_faulty_image(walk, tmp_path, lambda values: cv2.filter2D(values, -1, kernel))
    assert_stands_out(evidence, "directional blur")
    assert_stands_out(evidence, "blur")


@pytest.mark.parametrize("stops", [-1.5, 1.0])
def test_a_wrong_exposure_is_a_gain_in_stops_that_the_brightness_explains(walk, tmp_path, stops):
    factor = 2.0 ** (stops / 2.2)
    evidence = with_faulty_image(walk, tmp_path, lambda values: np.clip(values * factor * 1.0, 0, 255).astype(np.uint8))
    assert evidence.number("gain")[FAULTY] == pytest.approx(stops, abs=0.3)
    assert evidence.number("gain above partners")[FAULTY] == pytest.approx(stops, abs=0.35)
    assert_stands_out(evidence, "unexplained gain")
    assert np.abs(np.delete(evidence.number("gain"), FAULTY)).max() < 0.2


def test_another_white_balance_is_chroma(walk, tmp_path):
    evidence = with_faulty_image(
        walk, tmp_path, lambda values: np.clip(values * [1.2, 1.0, 0.8], 0, 255).astype(np.uint8)
    )
    assert_stands_out(evidence, "chroma")
    assert_stands_out(evidence, "chroma above partners")


def test_what_stands_before_the_camera_hides_a_block(walk, tmp_path):
    def covered(values: np.ndarray) -> np.ndarray:
        values[60:200, 90:240] = [40, 60, 30]
        return values

    evidence = with_faulty_image(walk, tmp_path, covered)
    assert_stands_out(evidence, "hidden block")
    assert_stands_out(evidence, "hidden share")
    assert evidence.hidden_cells[FAULTY].max() > 0.6
    assert evidence.number("support").min() > 0.4, "its pose is right"


def test_an_image_of_another_place_has_nothing_in_common_with_the_rest(walk, tmp_path):
    noise = np.random.default_rng(0).uniform(0, 255, (60, 80, 3)).astype(np.float32)
    other = np.clip(cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    evidence = with_faulty_image(walk, tmp_path, lambda _: other)
    share = evidence.number("verified share")
    assert share[FAULTY] == 0 and np.delete(share, FAULTY).min() > 0.6
    assert evidence.number("support").argmin() == FAULTY
    assert evidence.number("most matches")[FAULTY] == 0
    assert_stands_out(evidence, "unmatched outlier")


def test_a_black_image_changes_the_numbers_of_the_others_little(walk, plain, tmp_path):
    evidence = with_faulty_image(walk, tmp_path, np.zeros_like)
    assert np.isfinite(evidence.frames).all() and np.isfinite(evidence.of_pairs).all()
    others = np.arange(COUNT) != FAULTY
    for name in BY_GEOMETRY:
        change = np.abs(evidence.number(name) - plain.number(name))[others]
        assert np.median(change) < 0.05 and change.max() < 0.3, name
    assert evidence.number("most matches")[FAULTY] == 0 and evidence.number("support")[FAULTY] == 0


def test_a_capture_of_black_images_has_finite_numbers(walk, tmp_path):
    Image.new("RGB", (320, 240)).save(tmp_path / "black.png")
    frames = [with_image(frame, tmp_path / "black.png") for frame in walk.frames]
    evidence = evidence_of_walk(matched(frames), frames)
    assert np.isfinite(evidence.frames).all() and np.isfinite(evidence.of_pairs).all()
    assert not evidence.number("support").any() and not evidence.hidden_cells.any()


def test_unreadable_frames_have_zeros_and_change_little(walk, plain, tmp_path):
    frames = list(walk.frames)
    frames[FAULTY] = with_image(frames[FAULTY], tmp_path / "missing.png")
    evidence = evidence_of_walk(matched(frames, walk.cache), frames)
    assert not evidence.frames[FAULTY].any() and not (evidence.pairs == FAULTY).any()
    assert np.isfinite(evidence.frames).all()
    others = np.arange(COUNT) != FAULTY
    for name in BY_GEOMETRY:
        assert np.median(np.abs(evidence.number(name) - plain.number(name))[others]) < 0.05, name


def test_frames_that_are_not_there_do_not_stand_between_others(walk, tmp_path):
    frames = list(walk.frames)
    for i in range(COUNT):
        if i % 3:
            frames[i] = with_image(frames[i], tmp_path / f"missing_{i}.png")
    there = [frame for frame in frames if frame.image_path.is_file()]
    with_gaps, alone = (evidence_of_walk(matched(some, walk.cache), some) for some in (frames, there))
    # The unit of the capture is that of all claimed poses, so the last digits differ.
    np.testing.assert_allclose(with_gaps.frames[::3], alone.frames, atol=0.01)


def test_frames_without_pose_or_intrinsics_have_matches_and_no_geometry(walk):
    frames = list(walk.frames)
    frames[4], frames[7] = replace(frames[4], c2w=None), replace(frames[7], intrinsics=None)
    evidence = evidence_of_walk(matched(frames, walk.cache), frames)
    assert np.isfinite(evidence.frames).all() and np.isfinite(evidence.of_pairs).all()
    assert evidence.number("verified share")[[4, 7]].min() > 0.5, "their images still match"
    assert not evidence.number("inlier ratio")[[4, 7]].any() and not evidence.number("support")[[4, 7]].any()
    assert (np.delete(evidence.number("inlier ratio"), [4, 7]) > 0.9).all()


def test_without_any_pose_images_are_compared_and_nothing_is_said_of_poses(walk):
    frames = [replace(frame, c2w=None) for frame in walk.frames]
    evidence = evidence_of_walk(matched(frames, walk.cache), frames)
    assert np.isfinite(evidence.frames).all() and np.isfinite(evidence.of_pairs).all()
    assert evidence.number("most matches").min() > 0.7
    for name in ("inlier ratio", "support", "conflict", "correction angle", "correction shift", "hidden share"):
        assert not evidence.number(name).any(), name


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_smallest_captures_have_finite_numbers(walk, count):
    frames = walk.frames[:count]
    evidence = evidence_of_walk(matched(frames, walk.cache), frames)
    assert len(evidence.pairs) == count * (count - 1) // 2
    assert np.isfinite(evidence.frames).all() and np.isfinite(evidence.of_pairs).all()


def test_frames_that_nobody_reads_give_zeros_alone(walk):
    embeddings = np.zeros((COUNT, EMBEDDING_DIM))
    evidence = compute_evidence(
        walk.found.table, embeddings, in_own_unit(poses_of(walk.frames)), np.zeros(COUNT, dtype=bool)
    )
    assert not evidence.frames.any() and len(evidence.pairs) == 0


def test_pairs_that_are_not_in_the_table_have_nothing_in_common(walk):
    table = walk.found.table
    empty = pair_table(table.frames, {})
    c2w = in_own_unit(poses_of(walk.frames))
    evidence = compute_evidence(empty, np.zeros((COUNT, EMBEDDING_DIM)), c2w, np.ones(COUNT, dtype=bool))
    assert len(evidence.pairs) and np.isfinite(evidence.frames).all()
    assert not evidence.number("most matches").any() and not evidence.number("support").any()


def test_pairs_that_would_not_be_selected_do_not_count(walk):
    """Of a table with pairs by pose, only those in time are left where no pose is known."""
    nothing, unknown = np.full((COUNT, EMBEDDING_DIM), np.nan), np.full((COUNT, 4, 4), np.nan)
    evidence = compute_evidence(walk.found.table, nothing, unknown, np.ones(COUNT, dtype=bool))
    assert evidence.pairs.tolist() == [[i, j] for i, j in walk.found.table.pairs.tolist() if j - i <= 3]
    assert len(evidence.pairs) < len(walk.found.table.pairs)


def test_a_pair_tells_each_of_its_frames_about_the_other(walk):
    evidence = evidence_of_walk(walk.found, walk.frames, with_pose(walk.frames, FAULTY, 5.0))
    column = {name: evidence.of_pairs[:, :, place] for place, name in enumerate(PAIR_NUMBERS)}
    for own, others in (("covered", "partner covered"), ("own support", "support of partner")):
        np.testing.assert_array_equal(column[own], column[others][:, ::-1])
    for name in ("matches", "inlier ratio", "angle", "baseline", "same cluster"):
        np.testing.assert_array_equal(column[name][:, 0], column[name][:, 1])
    for name in ("blur difference", "light difference", "keypoints above partner"):
        np.testing.assert_array_equal(column[name][:, 0], -column[name][:, 1])
    np.testing.assert_array_equal(column["inlier ratio when moved"], column["inlier ratio when partner moved"][:, ::-1])
    np.testing.assert_allclose(column["own support"], evidence.number("support")[evidence.pairs])


def test_a_part_of_the_evidence_is_that_of_its_frames(plain):
    part = plain.subset(np.array([2, 3, 4, 8]))
    np.testing.assert_array_equal(part.frames, plain.frames[[2, 3, 4, 8]])
    np.testing.assert_array_equal(part.hidden_cells, plain.hidden_cells[[2, 3, 4, 8]])
    assert part.pairs.max() < 4 and [0, 1] in part.pairs.tolist()
    here = part.pairs.tolist().index([1, 2])
    np.testing.assert_array_equal(part.of_pairs[here], plain.of_pairs[plain.pairs.tolist().index([3, 4])])


def two_places(share: float) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of frames of which a share shows another place."""
    rng = np.random.default_rng(7)
    place, elsewhere = rng.normal(size=(2, EMBEDDING_DIM))
    foreign = np.arange(40) < round(40 * share)
    about = np.where(foreign[:, None], elsewhere, place)
    return about + 0.3 * rng.normal(size=about.shape), foreign


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_images_of_another_place_are_outliers_however_many_they_are(share):
    embeddings, foreign = two_places(share)
    score = embedding_outlier_score(embeddings)
    assert score[foreign].min() > 1.0 > 0.2 > np.abs(score[~foreign]).max()


def test_a_lone_outlier_has_no_near_one_and_a_group_has():
    embeddings, foreign = two_places(0.2)
    near = embedding_outlier_score(embeddings, 0.1)
    assert np.abs(near[foreign]).max() < 0.3, "eight frames of another place lie near each other"
    alone, one = two_places(0.025)
    assert embedding_outlier_score(alone, 0.1)[one].min() > 1.0


def test_outlier_scores_know_no_order_and_pass_over_frames_without_an_embedding():
    embeddings = np.random.default_rng(5).normal(size=(12, EMBEDDING_DIM))
    embeddings[4] = np.nan
    score = embedding_outlier_score(embeddings)
    assert score[4] == 0 and np.isfinite(score).all() and np.abs(score).max() > 0
    turned = np.random.default_rng(1).permutation(12)
    np.testing.assert_allclose(embedding_outlier_score(embeddings[turned]), score[turned], atol=1e-12)
    assert not embedding_outlier_score(embeddings[:2]).any(), "of two frames neither is the odd one"
    assert not embedding_outlier_score(np.ones((5, EMBEDDING_DIM))).any(), "the same image again and again"


def test_the_outlier_score_is_that_which_sorting_gives():
    embeddings = np.random.default_rng(6).normal(size=(21, EMBEDDING_DIM))
    distance = np.sort(np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2), axis=1)[:, 1:]
    expected = np.log((distance[:, 9] + 0.1) / np.median(distance[:, 9] + 0.1))
    np.testing.assert_allclose(embedding_outlier_score(embeddings), expected, atol=1e-9)
