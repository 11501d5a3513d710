from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_capture import names, orbit

from mtcm_nerfstudio.capture.capture import Capture
from mtcm_nerfstudio.consistency.score import MODEL_REASONS, Scores
from mtcm_nerfstudio.evidence.frame_numbers import Evidence
from mtcm_nerfstudio.evidence.number_names import FRAME_NUMBERS, PAIR_NUMBERS
from mtcm_nerfstudio.evidence.pair_table import CELLS
from mtcm_nerfstudio.tokens.tokenise import TokenisedCapture
from mtcm_nerfstudio.tokens.tokens import RawFeatures, assemble_tokens
from mtcm_nerfstudio.verdicts.decide import NEAR_CERTAINTY, GuardRails, VerdictSettings, decide, is_contradicted
from mtcm_nerfstudio.verdicts.exclude_unusable import exclude_unusable_frames
from mtcm_nerfstudio.verdicts.nearest_neighbours import compare_neighbours
from mtcm_nerfstudio.verdicts.score_capture import Scored


def features(count: int = 20) -> RawFeatures:
    """Embeddings that turn slowly along the path, so that neighbours look alike."""
    t = np.linspace(0, 2, count)[:, None]
    phase = np.random.default_rng(0).uniform(0, 6, 384)
    absent = np.full(count, np.nan)
    return RawFeatures(
        np.sin(t + phase), orbit(count), absent, absent, absent, tuple(names(count)), "efficientnet-lite0"
    )


def tokenised(raw: RawFeatures, status: dict[int, str] | None = None) -> TokenisedCapture:
    capture = Capture(Path(), "test", "transforms", ())
    statuses = tuple((status or {}).get(i, "ok") for i in range(len(raw)))
    return TokenisedCapture(capture, raw, assemble_tokens(raw), statuses)


def scores(inconsistency) -> Scores:
    values = np.asarray(inconsistency, dtype=np.float64)
    count = len(values)
    reasons = np.tile([0.1, 0.6, 0.1, 0.1, 0.1], (count, 1))
    return Scores(values, np.full((count, 3), 0.5), reasons, np.zeros(count), np.zeros((count, 256)))


def verdicts_of(raw, inconsistency, status=None, rails=None, evidence=None, reason="blur", **ruling):
    excluded = exclude_unusable_frames(tokenised(raw, status))
    found = scores(inconsistency)
    found.reasons[:] = 0.1 + 0.5 * (np.array(MODEL_REASONS) == reason)
    rules = VerdictSettings(0.5, rails or GuardRails(0, 1.0), **ruling)
    return decide(excluded, assemble_tokens(excluded.raw), Scored(found, evidence, None), rules)


def test_rules_name_what_cannot_be_trained_on():
    raw = features()
    c2w = raw.c2w.copy()
    c2w[2], c2w[3, :3, 3] = np.nan, 1000 * c2w[3, :3, 3]
    excluded = exclude_unusable_frames(tokenised(replace(raw, c2w=c2w), {0: "missing image", 1: "unreadable image"}))
    assert excluded.reasons[:5] == ("missing image", "unreadable image", "invalid pose", "pose", None)
    assert not excluded.raw.posed[3]
    assert excluded.readable.tolist() == [False, False, False] + [True] * 17


def test_photos_without_any_pose_are_not_ruled_out():
    raw = features()
    assert set(exclude_unusable_frames(tokenised(replace(raw, c2w=np.full_like(raw.c2w, np.nan)))).reasons) == {None}


def test_frames_at_or_above_the_threshold_go_with_the_likeliest_reason():
    inconsistency = np.full(20, 0.1)
    inconsistency[[4, 9]] = 0.5, 0.9
    found = verdicts_of(features(), inconsistency)
    assert [i for i, verdict in enumerate(found) if not verdict.kept] == [4, 9]
    assert {found[4].reason, found[9].reason} == {"blur"}
    assert found[0].reason is None and found[0].most_at_odds_with is None
    assert found[4].most_at_odds_with in range(20) and found[4].most_at_odds_with != 4
    assert found[4].modality.image == 0.5 and found[4].modality.time is None


def test_what_rules_say_stands_whatever_the_model_thinks():
    raw = features()
    c2w = raw.c2w.copy()
    c2w[3, :3, 3] *= 1000
    found = verdicts_of(replace(raw, c2w=c2w), np.zeros(20), {0: "missing image"})
    assert (found[0].kept, found[0].reason, found[0].decided_by, found[0].inconsistency) == (
        *(False, "missing image", "rule", 1.0),
    )
    assert (found[3].reason, found[3].decided_by, found[3].modality.pose) == ("pose", "rule", 1.0)
    assert found[0].modality.image is not None or not np.isfinite(raw.embeddings[0]).all()


def test_a_repaired_frame_stays_and_says_why():
    inconsistency = np.full(20, 0.1)
    inconsistency[[4, 9]] = 0.9
    found = verdicts_of(features(), inconsistency, reason="pose", repaired=frozenset({4}))
    assert (found[4].kept, found[4].reason, found[4].inconsistency, found[4].spared) == (True, "pose", 0.9, False)
    assert found[4].most_at_odds_with is not None
    assert (found[9].kept, found[9].reason) == (False, "pose")


def test_frames_that_are_only_dark_stay_on_request():
    inconsistency = np.full(20, 0.1)
    inconsistency[4] = 0.9
    kept = verdicts_of(features(), inconsistency, reason="exposure", keep_exposure=True)[4]
    assert (kept.kept, kept.reason, kept.spared) == (True, None, False)
    assert not verdicts_of(features(), inconsistency, reason="exposure")[4].kept
    assert not verdicts_of(features(), inconsistency, reason="blur", keep_exposure=True)[4].kept


def evidence_with(about: dict[tuple[int, int], dict[str, float]]) -> Evidence:
    """Evidence about pairs, the same from both ends; what is not named is zero."""
    pairs = np.array(sorted(about))
    numbers = np.zeros((len(pairs), 2, len(PAIR_NUMBERS)))
    for row, pair in enumerate(sorted(about)):
        for name, value in about[pair].items():
            numbers[row, :, PAIR_NUMBERS.index(name)] = value
    return Evidence(np.zeros((20, len(FRAME_NUMBERS))), pairs, numbers, np.zeros((20, CELLS)), np.full(20, np.nan))


@pytest.mark.parametrize(
    ("reason", "telling"),
    [
        ("pose", {"matches": 1.0, "tested": 1.0, "inlier ratio": 0.0, "support of partner": 1.0}),
        ("blur", {"blur difference": 1.0, "verified": 1.0}),
        ("exposure", {"light difference": -0.7, "support of partner": 1.0}),
        ("occlusion", {"matches": 1.5, "support of partner": 1.0}),
        ("foreign", {"verified": 0.0, "angle": 0.05}),
    ],
)
def test_the_frame_most_at_odds_is_the_one_that_shows_the_fault_best(reason, telling):
    harmless = {"matches": 0.9, "tested": 1.0, "inlier ratio": 1.0, "verified": 1.0}
    harmless |= {"support of partner": 1.0, "angle": 0.3}
    evidence = evidence_with({(4, 11): telling, (3, 4): harmless, (4, 5): harmless, (0, 1): telling})
    inconsistency = np.full(20, 0.1)
    inconsistency[4] = 0.9
    found = verdicts_of(features(), inconsistency, reason=reason, evidence=evidence)
    assert found[4].most_at_odds_with == 11 and found[3].most_at_odds_with is None
    assert found[4].evidence["most_verified_matches"] == 0
    assert set(found[4].evidence) > set(verdicts_of(features(), inconsistency)[4].evidence)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.integers(0, 25),
    st.floats(0, 1),
)
def test_guard_rails_hold_whatever_the_scores(values, min_frames, share):
    rails = GuardRails(min_frames, share)
    found = verdicts_of(features(len(values)), values, rails=rails)
    kept = sum(verdict.kept for verdict in found)
    assert kept >= min(min_frames, len(values))
    assert len(values) - kept <= share * len(values)
    worst_kept = max((v.inconsistency for v in found if v.kept), default=0.0)
    assert all(v.inconsistency >= worst_kept for v in found if not v.kept) or worst_kept < 0.5
    assert all(v.spared == (v.kept and v.inconsistency >= 0.5) for v in found)


@pytest.mark.parametrize(
    ("rails", "message"),
    [
        ({"min_frames": -1}, "--min-frames must not be negative, got -1"),
        ({"max_drop_share": 1.5}, r"--max-drop-share must lie in \[0, 1\], got 1.5"),
    ],
)
def test_guard_rails_out_of_range_are_refused(rails, message):
    with pytest.raises(ValueError, match=message):
        GuardRails(**rails)


def test_neighbours_agree_with_brute_force():
    raw = features(25)
    tokens = assemble_tokens(raw)
    found = compare_neighbours(tokens, chunk=7)
    looks = tokens.tokens[:, :384].astype(np.float64)
    looks = looks - np.median(looks, axis=0)
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    pose = tokens.tokens[:, 384:391].astype(np.float64)
    for i in range(25):
        apart = [
            np.linalg.norm(pose[i, :3] - pose[j, :3]) + 2 * np.arccos(min(1.0, abs(pose[i, 3:] @ pose[j, 3:])))
            for j in range(25)
        ]
        unlike = [1 - looks[i] @ looks[j] for j in range(25)]
        by_pose = sorted((j for j in range(25) if j != i), key=lambda j: apart[j])[:5]
        by_look = sorted((j for j in range(25) if j != i), key=lambda j: unlike[j])[:5]
        assert found.image_difference[i] == pytest.approx(np.mean([unlike[j] for j in by_pose]))
        assert found.pose_difference[i] == pytest.approx(np.mean([apart[j] for j in by_look]))
        assert found.least_similar_image[i] == max(by_pose, key=lambda j: unlike[j])
        assert found.farthest_pose[i] == max(by_look, key=lambda j: apart[j])


def test_a_frame_from_elsewhere_differs_from_its_neighbours():
    raw = features()
    embeddings = raw.embeddings.copy()
    embeddings[6] = np.random.default_rng(9).normal(size=384)
    c2w = raw.c2w.copy()
    c2w[13] = c2w[2]
    found = compare_neighbours(assemble_tokens(replace(raw, embeddings=embeddings, c2w=c2w)))
    assert np.argmax(found.image_difference) in (6, 13)
    assert found.pose_difference[13] > np.median(found.pose_difference)


def test_frames_without_poses_or_embeddings_compare_with_nothing_or_in_time():
    raw = features()
    no_pose = compare_neighbours(assemble_tokens(replace(raw, c2w=np.full_like(raw.c2w, np.nan))))
    assert np.isfinite(no_pose.image_difference).all() and np.isnan(no_pose.pose_difference).all()
    assert abs(no_pose.least_similar_image[10] - 10) <= 3 and (no_pose.farthest_pose == -1).all()
    blind = compare_neighbours(assemble_tokens(replace(raw, embeddings=np.full_like(raw.embeddings, np.nan))))
    assert np.isnan(blind.image_difference).all()


def test_a_frame_that_alone_sees_a_part_goes_only_at_near_certainty():
    inconsistency = np.full(20, 0.1)
    inconsistency[[4, 5]] = 0.9, NEAR_CERTAINTY
    found = verdicts_of(features(), inconsistency, irreplaceable=frozenset({4, 5}))
    assert (found[4].kept, found[4].spared, found[4].reason) == (True, True, None), "it stays and is marked"
    assert not found[5].kept and not verdicts_of(features(), inconsistency)[4].kept


def test_the_least_sharpness_drops_soft_frames_by_rule_whatever_the_model_says():
    evidence = evidence_of_blur(np.where(np.arange(20) == 7, np.log(3.0), 0.0))
    found = verdicts_of(features(), np.full(20, 0.1), evidence=evidence, min_sharpness=0.5)
    dropped = [i for i, verdict in enumerate(found) if not verdict.kept]
    assert dropped == [7] and (found[7].reason, found[7].decided_by) == ("blur", "rule")
    assert found[7].evidence["relative_sharpness"] == pytest.approx(1.0 / 3.0)
    assert found[7].evidence["blur_px"] == pytest.approx(3.0 * found[6].evidence["blur_px"])
    assert all(verdict.kept for verdict in verdicts_of(features(), np.full(20, 0.1), evidence=evidence))


def evidence_of_blur(blur: np.ndarray) -> Evidence:
    """Evidence that says nothing but how much wider than usual edges are, as a logarithm."""
    frames = np.zeros((len(blur), len(FRAME_NUMBERS)))
    frames[:, FRAME_NUMBERS.index("log pair weight")] = 1.0
    frames[:, FRAME_NUMBERS.index("blur")] = blur
    frames[:, FRAME_NUMBERS.index("log blur")] = 0.5 + blur
    pairs = np.zeros((0, 2), dtype=int)
    return Evidence(
        frames, pairs, np.zeros((0, 2, len(PAIR_NUMBERS))), np.zeros((len(blur), CELLS)), np.exp(0.5 + blur)
    )


def test_a_black_image_goes_whatever_the_judge_says_and_a_wall_stays():
    evidence = evidence_of_blur(np.zeros(20))
    evidence.frames[[4, 5, 6], FRAME_NUMBERS.index("dark share")] = 0.99, 0.99, 0.3
    evidence.frames[:, FRAME_NUMBERS.index("log10 keypoints")] = 2.5
    evidence.frames[[4, 6], FRAME_NUMBERS.index("log10 keypoints")] = 0.0
    found = verdicts_of(features(), np.full(20, 0.1), evidence=evidence, reason="exposure")
    assert [i for i, verdict in enumerate(found) if not verdict.kept] == [4]
    assert (found[4].reason, found[4].decided_by) == ("exposure", "rule")


def test_matches_that_obey_the_pose_prove_that_a_frame_shows_its_place():
    evidence = evidence_of_blur(np.zeros(20))
    evidence.frames[:, FRAME_NUMBERS.index("most matches")] = np.log1p(90) / 5.0
    evidence.frames[4:6, FRAME_NUMBERS.index("inlier ratio of supported")] = 0.9
    evidence.frames[5, FRAME_NUMBERS.index("most matches")] = np.log1p(16) / 5.0
    inconsistency = np.full(20, 0.1)
    inconsistency[4:7] = 0.9
    shows = {
        reason: [v.shows_its_place for v in verdicts_of(features(), inconsistency, evidence=evidence, reason=reason)]
        for reason in ("blur", "foreign", "pose")
    }
    assert shows["blur"][4:8] == [True, True, True, True]
    assert shows["foreign"][4:8] == [True, False, False, True]
    assert shows["pose"][4:8] == [False, False, False, True]


def test_an_exposure_that_loses_no_detail_is_a_fault_only_when_certain():
    lost = np.zeros(20)
    lost[6] = 0.2
    evidence = evidence_of_blur(np.zeros(20))
    evidence.frames[:, FRAME_NUMBERS.index("bright share above partners")] = lost
    inconsistency = np.full(20, 0.1)
    inconsistency[[4, 5, 6]] = 0.7, 0.95, 0.7
    found = verdicts_of(features(), inconsistency, evidence=evidence, reason="exposure")
    assert [i for i, verdict in enumerate(found) if not verdict.kept] == [5, 6]
    blurred = verdicts_of(features(), inconsistency, evidence=evidence, reason="blur")
    assert not blurred[4].kept, "other reasons are as they were"


def test_a_frame_that_is_measured_to_be_sharp_is_blurred_only_when_certain():
    evidence = evidence_of_blur(np.zeros(20))
    reasons = np.eye(5)[np.full(4, MODEL_REASONS.index("blur"))]
    found = is_contradicted(reasons, np.array([0.001, 0.2, 0.0, np.nan]), evidence.subset(np.arange(4)))
    assert found.tolist() == [True, False, False, False], "what cannot be measured contradicts nothing"
    assert not is_contradicted(reasons, np.full(4, 0.001), None).any()
