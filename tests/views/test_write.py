import csv

import numpy as np

from mtcm_nerfstudio.decisions import Decisions, FrameDecision, SuggestedView
from mtcm_nerfstudio.views import write

EYE = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))


def decisions() -> Decisions:
    frames = (
        FrameDecision("images/a, b.jpg", 0.125, True, label="front"),
        FrameDecision("images/ü.jpg", 1.0, False, "blur", most_at_odds_with="images/a, b.jpg"),
        FrameDecision("images/c.jpg", 0.5, True, "pose", repaired_transform_matrix=EYE),
    )
    return Decisions("d", {}, "c", "efficientnet-lite0", 0.5, frames, (SuggestedView(EYE, "back", 0.1),))


def test_the_files_say_what_the_decisions_say(tmp_path):
    write.write_decision_exports(decisions(), tmp_path)
    assert (tmp_path / write.KEPT).read_text(encoding="utf-8") == "images/a, b.jpg\nimages/c.jpg\n"
    np.testing.assert_array_equal(np.load(tmp_path / write.SUGGESTED), np.eye(4)[None])
    with (tmp_path / write.TABLE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_path"] for row in rows] == ["images/a, b.jpg", "images/ü.jpg", "images/c.jpg"]
    assert [row["kept"] for row in rows] == ["yes", "no", "yes"]
    assert rows[1]["reason"] == "blur" and rows[1]["image"] == "" and rows[2]["repaired"] == "yes"
    assert {path.name for path in tmp_path.iterdir()} == {
        write.KEPT,
        write.SUGGESTED,
        write.TABLE,
        write.SUGGESTED_TABLE,
    }


def test_no_suggestions_are_an_empty_stack(tmp_path):
    write.write_decision_exports(Decisions("d", {}, "c", "e", 0.5, ()), tmp_path)
    assert np.load(tmp_path / write.SUGGESTED).shape == (0, 4, 4)


def test_embeddings_keep_their_gaps(tmp_path):
    states = np.random.default_rng(0).normal(size=(3, 256))
    states[1] = np.nan
    write.write_embeddings(states, tmp_path)
    found = np.load(tmp_path / write.EMBEDDINGS)
    np.testing.assert_array_equal(found, states.astype(np.float32))
