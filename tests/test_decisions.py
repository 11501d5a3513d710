import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtcm_nerfstudio import decisions as d

EYE = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))


def frame(name: str, **changes) -> d.FrameDecision:
    return replace(d.FrameDecision(file_path=name, inconsistency=0.25, kept=True), **changes)


def decisions(*frames: d.FrameDecision) -> d.Decisions:
    return d.Decisions("digest", {"threshold": None}, "checkpoint", "efficientnet-lite0", 0.5, frames)


any_frame = st.builds(
    d.FrameDecision,
    file_path=st.text(min_size=1),
    inconsistency=st.floats(0, 1).map(lambda x: round(x, 6)),
    kept=st.booleans(),
    reason=st.sampled_from(["pose", "blur", "foreign", "redundant"]),
    decided_by=st.sampled_from(["model", "rule"]),
    label=st.none() | st.text(),
    modality=st.builds(d.ModalityScores, image=st.none() | st.just(0.5), pose=st.just(0.125), time=st.none()),
    evidence=st.dictionaries(st.text(), st.floats(-9, 9).map(lambda x: round(x, 6))),
    most_at_odds_with=st.none() | st.text(),
    repaired_transform_matrix=st.none() | st.just(EYE),
)


@given(st.lists(any_frame, max_size=4))
def test_what_is_written_is_what_is_read(frames):
    written = decisions(*frames)
    assert d.from_json(d.to_json(written)) == written
    assert d.to_json(d.from_json(d.to_json(written))) == d.to_json(written)


def test_the_file_has_the_fields_of_the_contract(tmp_path):
    path = tmp_path / "mtcm" / d.FILE_NAME
    d.write(decisions(frame("a.jpg", kept=False, reason="blur")), path)
    record = json.loads(path.read_text())
    assert record["schema_version"] == 1
    assert set(record) == {
        *("schema_version", "capture_digest", "settings", "checkpoint", "embedder", "threshold", "frames", "suggested"),
        "front",
    }
    assert set(record["frames"][0]) == {
        *("file_path", "inconsistency", "kept", "reason", "decided_by", "label", "words", "modality"),
        "evidence",
        *("most_at_odds_with", "repaired_transform_matrix", "spared"),
    }
    assert [p.name for p in path.parent.iterdir()] == [d.FILE_NAME]


def test_the_front_may_be_missing_from_an_older_file():
    known = replace(decisions(frame("a.jpg")), front="a.jpg")
    assert d.from_json(d.to_json(known)) == known
    record = json.loads(d.to_json(known))
    del record["front"]
    assert d.from_json(json.dumps(record)).front is None


def test_a_persons_word_stands_through_a_rerun():
    before = decisions(frame("a"), frame("b", kept=False, reason="pose"), frame("c"))
    before = before.override("a", kept=False).override("b", kept=True)
    again = decisions(frame("a", inconsistency=0.0), frame("b", kept=False, reason="pose"), frame("c")).carrying_over(
        before
    )
    assert [(f.kept, f.reason, f.decided_by) for f in again.frames] == [
        (False, "manual", "person"),
        (True, None, "person"),
        (True, None, "model"),
    ]
    assert again.frames[0].inconsistency == 0.0


@pytest.mark.parametrize(
    ("edited", "kept", "reason"),
    [
        ({"kept": False, "reason": None}, False, "manual"),
        ({"kept": True, "reason": "blur"}, True, None),
        ({"kept": True, "reason": "missing image"}, False, "missing image"),
    ],
)
def test_an_edit_by_hand_need_not_mind_the_reason(edited, kept, reason):
    record = json.loads(d.to_json(decisions(frame("a"))))
    record["frames"][0].update(edited, decided_by="person")
    (found,) = d.from_json(json.dumps(record)).frames
    assert (found.kept, found.reason, found.decided_by) == (kept, reason, "person")


def test_nobody_keeps_a_frame_that_cannot_be_trained_on():
    broken = frame("a", kept=False, reason="unreadable image", decided_by="rule")
    with pytest.raises(ValueError, match="a cannot be kept: unreadable image"):
        decisions(broken).override("a", kept=True)
    before = decisions(frame("a")).override("a", kept=True)
    assert decisions(broken).carrying_over(before).frames == (broken,)
    dropped = decisions(broken).override("a", kept=False)
    with pytest.raises(ValueError, match="a cannot be kept: unreadable image"):
        dropped.override("a", kept=True)


def test_a_persons_drop_outlasts_a_run_without_the_image():
    broken = frame("a", kept=False, reason="missing image", decided_by="rule")
    before = decisions(frame("a")).override("a", kept=False)
    meanwhile = decisions(broken).carrying_over(before)
    assert meanwhile.frames[0].reason == "missing image" and meanwhile.manual_decisions == {"a": False}
    (after,) = decisions(frame("a")).carrying_over(d.from_json(d.to_json(meanwhile))).frames
    assert (after.kept, after.reason, after.decided_by) == (False, "manual", "person")


def test_what_a_person_took_back_meanwhile_is_not_carried_on():
    begun = decisions(frame("a")).override("a", kept=False)
    now = decisions(frame("a", inconsistency=0.25))
    assert begun.carrying_over(now).frames == now.frames


def test_unknown_frame_is_named():
    with pytest.raises(ValueError, match=r"no frame 'x\.jpg' among the 1 decisions"):
        decisions(frame("a")).override("x.jpg", kept=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ('{"schema_version": 2}', "schema_version is 2, this program reads 1"),
        ('{"schema_version": 1}', "not a decisions file: KeyError 'capture_digest'"),
        ("[]", "not a decisions file"),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, text, message):
    path = tmp_path / d.FILE_NAME
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        d.read(path)
    assert str(path) in str(caught.value) and "--reset" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inconsistency": 1.5}, r"inconsistency must lie in \[0, 1\], got 1.5"),
        ({"kept": False}, "a dropped frame needs a reason"),
    ],
)
def test_records_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        frame("a", **changes)


@pytest.mark.parametrize(("field", "value"), [("reason", "ugly"), ("decided_by", "cat")])
def test_words_that_the_format_does_not_know_are_refused(field, value):
    record = json.loads(d.to_json(decisions(frame("a", kept=False, reason="blur"))))
    record["frames"][0][field] = value
    with pytest.raises(ValueError, match=value):
        d.from_json(json.dumps(record))


def test_repaired_matrices_keep_every_digit():
    third = tuple(tuple(value / 3 for value in row) for row in EYE)
    written = decisions(frame("a", reason="pose", repaired_transform_matrix=third))
    assert d.from_json(d.to_json(written)).repaired[0].repaired_transform_matrix == third


def test_currency_depends_on_capture_and_settings():
    record = decisions(frame("a"))
    assert record.is_current("digest", {"threshold": None})
    assert not record.is_current("other", {"threshold": None})
    assert not record.is_current("digest", {"threshold": 0.4})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    d.write_text_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        d.write_text_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
