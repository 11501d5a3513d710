"""The filter as a whole on pictures that match: wrong poses are found and repaired, with the shipped checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
from textured_corner import FOCAL, HEIGHT, WIDTH, write_photos
from threadpoolctl import threadpool_limits

from mtcm_nerfstudio.capture.corruptions import spread, turned_and_shifted
from mtcm_nerfstudio.decision_files import current_decisions, summary
from mtcm_nerfstudio.filter_settings import FilterSettings
from mtcm_nerfstudio.geometry.poses import rotation_angle_degrees

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
COUNT = 14
WRONG = 6


def write_corner(root: Path, degrees: float = 0.0) -> np.ndarray:
    """A capture of the corner, the pose of one frame turned (and shifted by a share of the spread as large)."""
    files = [f"images/{i:02d}.png" for i in range(COUNT)]
    true = write_photos(root, files)
    claimed = true.copy()
    shift = 0.01 * degrees * spread(true)
    claimed[[WRONG]] = turned_and_shifted(true[[WRONG]], degrees, shift, np.random.default_rng(1))
    frames = [{"file_path": name, "transform_matrix": pose.tolist()} for name, pose in zip(files, claimed, strict=True)]
    lens = {"w": WIDTH, "h": HEIGHT, "fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2}
    (root / "transforms.json").write_text(json.dumps({"camera_model": "PINHOLE", **lens, "frames": frames}))
    return true


def test_a_wrong_pose_is_found_and_put_right(tmp_path):
    true = write_corner(tmp_path, 8.0)
    result = current_decisions(tmp_path, progress=False)
    frame = result.decisions.frames[WRONG]
    assert (frame.kept, frame.reason, frame.decided_by) == (True, "pose", "model")
    assert frame.inconsistency >= result.decisions.threshold
    repaired = np.array(frame.repaired_transform_matrix)
    assert rotation_angle_degrees(repaired[None, :3, :3], true[[WRONG], :3, :3])[0] < 0.5
    assert np.linalg.norm(repaired[:3, 3] - true[WRONG, :3, 3]) < 0.01 * spread(true)
    assert frame.most_at_odds_with is not None and frame.evidence["matches_that_obey_pose"] < 0.5
    others = [frame for i, frame in enumerate(result.decisions.frames) if i != WRONG]
    assert all(other.kept and other.repaired_transform_matrix is None for other in others)
    lines = summary(result)
    named = f"  repaired images/{WRONG:02d}.png: pose"
    assert "repaired 1" in lines[0] and any(line.startswith(named) for line in lines)
    assert not any("more frames look inconsistent" in line for line in lines)


def test_the_file_does_not_depend_on_the_number_of_threads(tmp_path):
    written = []
    for threads in (1, 2):
        folder = tmp_path / f"{threads} threads"
        with threadpool_limits(threads):
            assert current_decisions(SAMPLE, output_dir=folder, progress=False).decisions.repaired
        written.append((folder / "filtered_views.json").read_bytes())
    assert written[0] == written[1]


def test_without_repair_it_is_dropped(tmp_path):
    write_corner(tmp_path, 8.0)
    frame = current_decisions(tmp_path, FilterSettings(repair=False), progress=False).decisions.frames[WRONG]
    assert (frame.kept, frame.reason, frame.repaired_transform_matrix) == (False, "pose", None)


def test_right_poses_come_through_whole_and_untouched(tmp_path):
    write_corner(tmp_path)
    decisions = current_decisions(tmp_path, progress=False).decisions
    assert len(decisions.kept) == COUNT and not decisions.repaired
    assert all(frame.evidence["most_verified_matches"] > 40 for frame in decisions.frames)


def test_without_evidence_nothing_is_matched(tmp_path, monkeypatch):
    write_corner(tmp_path)
    monkeypatch.setattr("mtcm_nerfstudio.verdicts.score_capture.match_capture", lambda *_: pytest.fail("matched"))
    decisions = current_decisions(tmp_path, FilterSettings(evidence=False), progress=False).decisions
    assert "most_verified_matches" not in decisions.frames[0].evidence


@pytest.mark.parametrize("change", [{"evidence": False}, {"repair": False}, {"keep_exposure": True}])
def test_decisions_depend_on_how_they_are_made(tmp_path, change):
    write_corner(tmp_path)
    assert not current_decisions(tmp_path, progress=False).reused
    assert current_decisions(tmp_path, progress=False).reused
    assert not current_decisions(tmp_path, FilterSettings(**change), progress=False).reused


def test_a_repaired_frame_is_not_the_first_to_go_for_a_budget(tmp_path):
    write_corner(tmp_path, 8.0)
    decisions = current_decisions(tmp_path, FilterSettings(max_frames=COUNT - 1), progress=False).decisions
    assert decisions.frames[WRONG].kept and decisions.frames[WRONG].repaired_transform_matrix is not None
    assert [frame.reason for frame in decisions.dropped] == ["redundant"]
