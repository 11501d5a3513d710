"""One session for everybody who looks: what is written, what is taken back, what somebody else wrote."""

import json
from dataclasses import replace

import pytest
from looked_at import COUNT, DROPPED, FILES, REPAIRED, looked_at, on_disk

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.viewer.session import Session, worst_first


@pytest.fixture
def result(tmp_path):
    return looked_at(tmp_path)


@pytest.fixture
def session(result):
    return Session(result.output_dir / decisions_file.FILE_NAME)


def test_verdicts_are_those_of_the_file(session):
    verdicts = session.state.verdicts
    assert [FILES[i] for i, verdict in enumerate(verdicts) if verdict == "dropped"] == list(DROPPED)
    assert [i for i, verdict in enumerate(verdicts) if verdict == "repaired"] == [REPAIRED]
    assert verdicts.count("kept") == COUNT - 3


def test_a_decision_is_on_disk_at_once_and_in_a_persons_name(session, result):
    session.decide(False, 0)
    assert on_disk(result, 0) == (False, "person")
    session.decide(True, 3)
    assert on_disk(result, 3) == (True, "person")
    assert session.state.verdicts[3] == "kept" and session.state.selected == 3


def test_undo_goes_back_step_by_step_to_what_the_model_said(session, result):
    path = result.output_dir / decisions_file.FILE_NAME
    before = path.read_text()
    session.decide(False, REPAIRED)
    session.decide(False, 0)
    session.decide(True, 0)
    for expected in ((False, "person"), (True, "model")):
        session.undo()
        assert on_disk(result, 0) == expected
    session.undo()
    assert path.read_text() == before  # the repaired pose, too
    session.undo()
    assert session.state.message == "Nothing to undo."


def test_a_threshold_that_is_tried_out_writes_nothing_and_leaves_persons_alone(session, result):
    session.decide(True, 3)
    before = (result.output_dir / decisions_file.FILE_NAME).read_text()
    session.preview_threshold(0.05)
    verdicts = session.state.verdicts
    assert verdicts.count("dropped") == COUNT - 2  # all but the person's and the repaired one
    assert verdicts[3] == "kept" and verdicts[REPAIRED] == "repaired" and session.state.is_preview
    session.preview_threshold(1.0)
    assert session.state.verdicts.count("kept") == COUNT
    session.preview_threshold(session.state.decisions.threshold)
    assert session.state.verdicts.count("dropped") == 1 and not session.state.is_preview
    assert (result.output_dir / decisions_file.FILE_NAME).read_text() == before


def test_what_another_program_writes_is_taken_up_and_not_overwritten(session, result):
    path = result.output_dir / decisions_file.FILE_NAME
    decisions_file.write(decisions_file.read(path).override(FILES[7], False), path)
    session.decide(False, 0)  # without having looked again
    assert on_disk(result, 7) == (False, "person") and on_disk(result, 0) == (False, "person")
    decisions_file.write(decisions_file.read(path).override(FILES[8], False), path)
    assert session.look_again() and session.state.verdicts[8] == "dropped"
    assert not session.look_again()


def test_a_file_that_is_damaged_meanwhile_is_said_and_not_overwritten(session, result):
    path = result.output_dir / decisions_file.FILE_NAME
    session.decide(False, 0)
    path.write_text("{")
    session.look_again()
    assert str(path) in session.state.message and len(session.state.verdicts) == COUNT
    for act in (lambda: session.decide(True, 3), session.undo):
        act()
        assert str(path) in session.state.message and path.read_text() == "{"


def test_a_file_that_lists_other_frames_now_is_not_overwritten(session, result):
    path = result.output_dir / decisions_file.FILE_NAME
    record = json.loads(path.read_text())
    record["frames"].append({**record["frames"][0], "file_path": "images/new.png"})
    path.write_text(json.dumps(record))
    before = path.read_text()
    session.decide(True, 3)
    assert "other frames" in session.state.message and path.read_text() == before


def test_what_stood_before_another_run_of_the_filter_cannot_come_back(session, result):
    path = result.output_dir / decisions_file.FILE_NAME
    session.decide(True, 3)
    decisions_file.write(replace(decisions_file.read(path), threshold=0.95), path)
    session.undo()
    assert session.state.message == "Nothing to undo." and on_disk(result, 3) == (True, "person")


def test_a_decision_stands_where_the_files_beside_it_cannot_be_written(result):
    def full(decisions):
        raise OSError(28, "No space left on device")

    session = Session(result.output_dir / decisions_file.FILE_NAME, full)
    session.decide(False, 0)
    assert on_disk(result, 0) == (False, "person")
    assert "written to" in session.state.message and "No space left" in session.state.message
    session.undo()
    assert on_disk(result, 0) == (True, "model")


def test_a_frame_that_cannot_be_trained_on_stays_dropped(session, result):
    path = result.output_dir / decisions_file.FILE_NAME
    record = json.loads(path.read_text())
    record["frames"][2] |= {"kept": False, "reason": "missing image", "decided_by": "rule"}
    path.write_text(json.dumps(record))
    session.decide(True, 2)
    assert on_disk(result, 2) == (False, "rule") and "cannot be kept" in session.state.message


def test_next_and_previous_go_through_the_worst_first(session):
    order = worst_first(session.state.decisions).tolist()
    seen = []
    for _ in range(3):
        session.step(1)
        seen.append(session.state.selected)
    assert seen == order[:3] and {FILES[i] for i in seen[:2]} == set(DROPPED)
    session.step(-1)
    assert session.state.selected == order[1]
    session.select(order[0])
    session.step(-1)
    assert session.state.selected == order[-1]


def test_listeners_hear_of_every_change_until_they_go(session):
    heard = []
    end = session.subscribe(lambda: heard.append(session.state.selected))
    session.select(4)
    end()
    session.select(5)
    assert heard == [4]
    with pytest.raises(ValueError, match="no frame 99"):
        session.select(99)


def test_marked_frames_are_decided_together_and_undone_together(session, result):
    session.mark((3, 5, 6), (0.0, 0.0, 0.0), "this place is in the picture")
    assert session.state.marked == (3, 5, 6) and session.state.message.startswith("3 frames marked")
    before = session.path.read_text()
    session.decide_marked(False)
    assert [on_disk(result, i) for i in (3, 5, 6, 7)] == [(False, "person")] * 3 + [(True, "model")]
    assert session.state.marked == () and session.state.place is None
    session.undo()
    assert session.path.read_text() == before and "3 frames" in session.state.message
    session.decide_marked(True)
    assert "Mark frames first" in session.state.message


def test_what_cannot_be_trained_on_is_left_out_of_what_is_kept_together(session, result):
    record = json.loads(session.path.read_text())
    record["frames"][2] |= {"kept": False, "reason": "missing image", "decided_by": "rule"}
    session.path.write_text(json.dumps(record))
    session.look_again()
    session.mark((2, 3))
    session.decide_marked(True)
    assert on_disk(result, 2) == (False, "rule") and on_disk(result, 3) == (True, "person")
    session.mark((2,))
    session.decide_marked(True)
    assert "can be trained on" in session.state.message and on_disk(result, 2) == (False, "rule")


def test_exports_follow_a_decision(result):
    session = Session(result.output_dir / decisions_file.FILE_NAME, lambda decisions: written.append(decisions))
    written = []
    session.decide(False, 0)
    session.undo()
    assert [one.frames[0].kept for one in written] == [False, True]


def test_a_repaired_frame_that_is_dropped_and_kept_again_has_its_repaired_pose(session):
    before = session.state.decisions.frames[REPAIRED]
    session.decide(False, REPAIRED)
    assert session.state.verdicts[REPAIRED] == "dropped"
    session = Session(session.path)  # another day
    session.decide(True, REPAIRED)
    after = session.state.decisions.frames[REPAIRED]
    assert after.repaired_transform_matrix == before.repaired_transform_matrix and after.reason == "pose"
    assert session.state.verdicts[REPAIRED] == "repaired"


def test_where_nothing_can_be_written_that_is_said_and_nothing_changes(session, monkeypatch):
    def full(decisions, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(decisions_file, "write", full)
    session.decide(False, 0)
    assert session.state.verdicts[0] == "kept" and "No space left" in session.state.message
    session.undo()
    assert session.state.message == "Nothing to undo."
