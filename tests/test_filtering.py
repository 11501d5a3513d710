"""The filter as a whole, with the shipped checkpoint, on tiny captures."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_capture import (
    edit_transforms,
    names,
    orbit,
    random_similarity,
    write_colmap,
    write_identity,
    write_transforms,
)

from mtcm_nerfstudio import decision_files
from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.decision_files import current_decisions, summary
from mtcm_nerfstudio.decisions import to_json
from mtcm_nerfstudio.filter_settings import FilterSettings
from mtcm_nerfstudio.views.load import load_views

COUNT = 16
FILES = {
    *("filtered_views.json", "filtered_images.txt", "filtered_views.csv", "pose_embeddings.npy"),
    *("suggested_poses.npy", "suggested_views.csv", "kept_poses.npy"),
}


def run(data, settings=None, **flags):
    return current_decisions(data, settings, progress=False, **flags)


def scores(result) -> dict[str, float]:
    return {frame.file_path.split("/")[-1]: frame.inconsistency for frame in result.decisions.frames}


def as_written(result) -> decisions_file.Decisions:
    return decisions_file.from_json(decisions_file.to_json(result.decisions))


def verdicts(result) -> dict[str, tuple]:
    return {frame.file_path.split("/")[-1]: (frame.kept, frame.reason) for frame in result.decisions.frames}


@pytest.fixture
def capture(tmp_path):
    return write_transforms(tmp_path / "capture", orbit(COUNT))


def test_every_frame_has_an_entry_and_every_file_is_there(capture):
    result = run(capture)
    assert [frame.file_path for frame in result.decisions.frames] == [f"images/{name}" for name in names(COUNT)]
    assert {path.name for path in (capture / "mtcm").iterdir()} == FILES
    assert np.load(capture / "mtcm" / "pose_embeddings.npy").shape == (COUNT, 256)
    kept = (capture / "mtcm" / "filtered_images.txt").read_text().splitlines()
    assert kept == [frame.file_path for frame in result.decisions.kept]


def test_a_rerun_computes_nothing_and_gives_the_same_bytes(capture, tmp_path, monkeypatch):
    run(capture)
    before = {path.name: path.read_bytes() for path in (capture / "mtcm").iterdir()}
    run(capture, output_dir=tmp_path / "other")
    assert {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()} == before
    monkeypatch.setattr("mtcm_nerfstudio.decision_files.filter_capture", lambda *args: pytest.fail("filtered again"))
    again = run(capture)
    assert again.reused
    assert {path.name: path.read_bytes() for path in (capture / "mtcm").iterdir()} == before


def test_all_layouts_give_the_same_decisions(tmp_path):
    c2w = orbit(COUNT)
    results = [
        run(write_transforms(tmp_path / "a", c2w)),
        run(write_colmap(tmp_path / "b", c2w)),
        run(write_colmap(tmp_path / "c", c2w, text=True)),
        run(write_identity(tmp_path / "d", "Zoë Quill", c2w)),
    ]
    for result in results[1:]:
        assert verdicts(result) == verdicts(results[0])
        assert scores(result) == pytest.approx(scores(results[0]), abs=1e-4)
    assert results[3].output_dir == tmp_path / "d" / "mtcm" / "Zoë Quill"


@pytest.mark.parametrize("seed", range(3))
def test_neither_the_order_in_the_file_nor_the_world_changes_a_decision(capture, tmp_path, seed):
    expected = run(capture)
    moved = tmp_path / "moved"
    shutil.copytree(capture, moved, ignore=shutil.ignore_patterns("mtcm"))
    similarity = random_similarity(seed)

    def edit(meta):
        for frame in meta["frames"]:
            frame["transform_matrix"] = similarity.move(np.array([frame["transform_matrix"]]))[0].tolist()
        np.random.default_rng(seed).shuffle(meta["frames"])

    edit_transforms(moved, edit)
    found = run(moved)
    assert verdicts(found) == verdicts(expected)
    assert scores(found) == pytest.approx(scores(expected), abs=1e-3)


def test_broken_frames_are_named_and_dropped(capture):
    (capture / "images" / "frame_3.jpg").unlink()
    (capture / "images" / "frame_5.jpg").write_bytes((capture / "images" / "frame_5.jpg").read_bytes()[:300])

    def edit(meta):
        meta["frames"][6]["transform_matrix"][1][3] = float("nan")
        for row in range(3):
            meta["frames"][8]["transform_matrix"][row][3] *= 1000

    edit_transforms(capture, edit)
    result = run(capture)
    found = result.decisions.by_file_path()
    reasons = {i: found[f"images/frame_{i}.jpg"].reason for i in (3, 5, 7, 9)}
    assert reasons == {3: "missing image", 5: "unreadable image", 7: "invalid pose", 9: "pose"}
    assert all(found[f"images/frame_{i}.jpg"].decided_by == "rule" for i in (3, 5, 7, 9))
    assert all(f"images/frame_{i}.jpg: {reasons[i]} (by rule)" in "\n".join(summary(result)) for i in reasons)
    embeddings = np.load(result.output_dir / "pose_embeddings.npy")
    assert np.flatnonzero(np.isnan(embeddings).any(axis=1)).tolist() == [2, 4, 6]


def test_a_persons_decision_survives_a_change_of_the_capture(capture):
    path = run(capture).output_dir / decisions_file.FILE_NAME
    decided = decisions_file.read(path).override("images/frame_4.jpg", kept=False)
    decisions_file.write(decided, path)
    again = run(capture)
    assert again.reused
    assert "images/frame_4.jpg" not in (capture / "mtcm" / "filtered_images.txt").read_text().splitlines()
    edit_transforms(capture, lambda meta: meta["frames"].pop())
    rerun = run(capture)
    frame = rerun.decisions.by_file_path()["images/frame_4.jpg"]
    assert not rerun.reused and len(rerun.decisions.frames) == COUNT - 1
    assert (frame.kept, frame.reason, frame.decided_by) == (False, "manual", "person")
    forgotten = run(capture, reset=True).decisions.by_file_path()["images/frame_4.jpg"]
    assert forgotten.decided_by == "model"


@pytest.mark.parametrize("change", ["threshold", "pose", "image", "file gone"])
def test_decisions_are_made_again_when_what_they_depend_on_changes(capture, change):
    run(capture)
    settings = FilterSettings()
    if change == "threshold":
        settings = replace(settings, threshold=0.123)
    elif change == "pose":
        edit_transforms(capture, lambda meta: meta["frames"][0]["transform_matrix"][0].__setitem__(3, 7.0))
    elif change == "image":
        shutil.copy(capture / "images" / "frame_1.jpg", capture / "images" / "frame_2.jpg")
    else:
        (capture / "mtcm" / "pose_embeddings.npy").unlink()
    assert not run(capture, settings).reused
    assert run(capture, settings).reused


def test_what_a_person_says_while_it_filters_is_not_lost(capture, monkeypatch):
    path = run(capture).output_dir / decisions_file.FILE_NAME
    name = f"images/{names(COUNT)[4]}"
    real = decision_files.filter_capture

    def slow(*arguments):
        decisions_file.write(decisions_file.read(path).override(name, False), path)
        return real(*arguments)

    monkeypatch.setattr(decision_files, "filter_capture", slow)
    result = run(capture, FilterSettings(threshold=0.99))
    assert (
        not result.reused
        and result.decisions.manual_decisions == {name: False} == decisions_file.read(path).manual_decisions
    )


def test_decisions_are_looked_at_as_they_are_however_they_were_made(capture):
    assert decision_files.existing_decisions(capture) is None
    before = run(capture, FilterSettings(threshold=0.99))
    found = decision_files.existing_decisions(capture)
    assert to_json(found.decisions) == to_json(before.decisions) and found.warnings == before.warnings
    edit_transforms(capture, lambda meta: meta["frames"][2]["transform_matrix"][0].__setitem__(3, 9.0))
    assert "ns-mtcm-filter decides anew" in decision_files.existing_decisions(capture).warnings[-1]
    edit_transforms(capture, lambda meta: meta["frames"].pop())
    assert decision_files.existing_decisions(capture) is None


def test_a_dry_run_writes_nothing(capture, tmp_path, monkeypatch):
    monkeypatch.setenv("MTCM_CACHE", str(tmp_path / "cache"))
    before = sorted(path for path in tmp_path.rglob("*"))
    dry = run(capture, dry_run=True)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert summary(dry) == summary(run(capture))


def test_the_threshold_and_the_guard_rails_are_obeyed(capture):
    everything = run(capture, FilterSettings(threshold=0.0, min_frames=0, max_drop_share=1.0), dry_run=True)
    assert not everything.decisions.kept
    for reused in (False, True):
        held = run(capture, FilterSettings(threshold=0.0, max_drop_share=0.25))
        assert len(held.decisions.dropped) == COUNT // 4
        assert held.reused == reused
        assert "12 more frames look inconsistent and stay" in "\n".join(summary(held))
    assert not run(capture, FilterSettings(threshold=1.0), dry_run=True).decisions.dropped


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_smallest_captures_come_through(tmp_path, count):
    assert len(run(write_transforms(tmp_path, orbit(count))).decisions.kept) == count


def test_photos_without_poses_are_filtered_by_their_images(tmp_path):
    shutil.copytree(write_transforms(tmp_path / "a", orbit(9)) / "images", tmp_path / "b")
    result = run(tmp_path / "b")
    assert len(result.decisions.frames) == 9
    assert all(frame.modality.pose is None for frame in result.decisions.frames)
    assert "Pose them with ns-mtcm-process" in "\n".join(summary(result))


def test_another_embedder_than_the_checkpoints_is_refused(capture):
    with pytest.raises(ValueError, match="trained on efficientnet-lite0 embeddings, these are dinov2-vits14"):
        run(capture, FilterSettings(embedder="dinov2-vits14"))


def test_another_version_of_the_embedder_is_refused(capture, monkeypatch):
    monkeypatch.setattr("mtcm_nerfstudio.tokens.embedders.network.NetworkEmbedder.version", "other")
    with pytest.raises(ValueError, match=r"trained on efficientnet-lite0 version .*, this is version other"):
        run(capture)


def test_a_damaged_decisions_file_is_not_overwritten(capture):
    path = run(capture).output_dir / decisions_file.FILE_NAME
    path.write_text("{")
    with pytest.raises(ValueError, match="--reset"):
        run(capture)
    assert path.read_text() == "{"
    assert not run(capture, reset=True).reused


def test_the_file_holds_no_path_of_the_machine(capture, tmp_path):
    text = (run(capture).output_dir / decisions_file.FILE_NAME).read_text()
    assert str(tmp_path) not in text and set(json.loads(text)["settings"]) == {
        *(
            "checkpoint",
            "calibration",
            "embedder",
            "threshold",
            "min_frames",
            "max_drop_share",
            "evidence",
            "repair",
            "min_sharpness",
            "keep_exposure",
        ),
        *("max_frames", "coverage", "keep_labels", "front", "suggest", "words"),
    }


def test_originals_are_not_touched(capture):
    before = {path: path.read_bytes() for path in capture.rglob("*") if path.is_file()}
    run(capture)
    assert {path: path.read_bytes() for path in before} == before


def test_it_starts_from_poses_that_are_given_and_hands_them_on(capture, tmp_path):
    right = orbit(COUNT)
    claimed = run(capture).decisions
    refined = tuple(tuple(float(number) for number in row) for row in right[4] @ np.diag([1.0, 1.0, 1.0, 1.0]))

    def spoil(meta):
        meta["frames"][4]["transform_matrix"] = right[11].tolist()

    edit_transforms(capture, spoil)
    frames = tuple(
        replace(frame, kept=True, reason="pose", repaired_transform_matrix=refined) if i == 4 else frame
        for i, frame in enumerate(claimed.frames)
    )
    path = tmp_path / "joint_views.json"
    decisions_file.write(replace(claimed, frames=frames), path)
    settings = FilterSettings(poses=path, repair=False)
    result = run(capture, settings)
    assert scores(result) == pytest.approx(
        {f.file_path.split("/")[-1]: f.inconsistency for f in claimed.frames}, abs=1e-4
    )
    assert result.decisions.frames[4].repaired_transform_matrix == refined
    assert result.decisions.frames[4].reason == "pose"
    assert run(capture, settings).reused
    followed = run(capture, follow=True)
    assert followed.reused and followed.decisions == as_written(result)
    assert "Decided with --no-repair --poses;" in "\n".join(followed.warnings)
    assert not run(capture).reused
    with pytest.raises(FileNotFoundError):
        run(capture, FilterSettings(poses=tmp_path / "none.json"))


def test_a_budget_is_kept_and_others_are_called_redundant(capture):
    result = run(capture, FilterSettings(max_frames=8))
    dropped = [frame for frame in result.decisions.frames if frame.reason == "redundant"]
    assert len(result.decisions.kept) == 8 and len(dropped) == COUNT - 8
    assert {frame.decided_by for frame in dropped} == {"rule"}
    assert len(run(capture, FilterSettings(coverage=0.8)).decisions.kept) < COUNT
    assert len(run(capture, FilterSettings(max_frames=COUNT + 9)).decisions.kept) == COUNT


def test_decisions_with_other_flags_are_followed_where_none_are_given(capture, tmp_path):
    made = run(capture, FilterSettings(max_frames=9, keep_labels=("front", "three-quarter left"), min_frames=1))
    followed = run(capture, follow=True)
    assert followed.reused and followed.decisions == as_written(made)
    said = "\n".join(followed.warnings)
    assert "Decided with --min-frames 1 --max-frames 9 --keep-labels front 'three-quarter left'" in said
    assert not run(capture, FilterSettings(threshold=0.9), follow=True).reused, "a flag is given"
    made = run(capture, FilterSettings(max_frames=9))
    path = made.output_dir / decisions_file.FILE_NAME
    record = json.loads(path.read_text())
    record["settings"]["calibration"][0] += 0.1
    path.write_text(json.dumps(record))
    assert not run(capture, follow=True).reused, "made by the package's checkpoint as it was once"
    run(capture, FilterSettings(max_frames=9))
    edit_transforms(capture, lambda meta: meta["frames"].pop())
    anew = run(capture, follow=True)
    assert not anew.reused, "another capture"
    assert "Decided anew, without --max-frames 9" in "\n".join(anew.warnings)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "checkpoint": "mine.safetensors abc"}))
    followed = run(capture, follow=True)
    assert followed.reused and "Decided with --checkpoint mine.safetensors" in "\n".join(followed.warnings)


def test_no_budget_leaves_fewer_than_the_least_and_labels_that_do_are_named(capture):
    assert len(run(capture, FilterSettings(coverage=0.05)).decisions.kept) == 8
    assert len(run(capture, FilterSettings(coverage=0.05, min_frames=3)).decisions.kept) == 3
    result = run(capture, FilterSettings(keep_labels=("front",)))
    kept = len(result.decisions.kept)
    assert kept < 8 and f"Only {kept} frames are left, fewer than the 8 of --min-frames" in "\n".join(summary(result))


def test_what_a_person_keeps_counts_towards_the_budget(capture):
    first = run(capture, FilterSettings(max_frames=8))
    wanted = next(frame.file_path for frame in first.decisions.dropped)
    unwanted = first.decisions.kept[0].file_path
    decided = first.decisions.override(wanted, kept=True).override(unwanted, kept=False)
    decisions_file.write(decided, first.output_dir / decisions_file.FILE_NAME)
    again = run(capture, FilterSettings(max_frames=9)).decisions
    kept = {frame.file_path for frame in again.kept}
    assert len(kept) == 9 and wanted in kept and unwanted not in kept


def test_labels_choose_and_the_front_is_the_users(capture):
    names = [frame.file_path for frame in run(capture).decisions.frames]
    front = run(capture, FilterSettings(front=names[5].rsplit("/", 1)[-1])).decisions
    assert front.frames[5].label.split(", ")[0] == "front"
    wanted = front.frames[5].label.split(", ")[0]
    some = run(capture, FilterSettings(front=names[5], keep_labels=(wanted.upper(),), min_frames=0)).decisions
    assert 0 < len(some.kept) < COUNT and all(wanted in (frame.label or "") for frame in some.kept)
    assert {frame.reason for frame in some.dropped} == {"manual"}
    with pytest.raises(ValueError, match="--keep-labels: no frame is nowhere; there are: "):
        run(capture, FilterSettings(keep_labels=("nowhere",)))
    with pytest.raises(ValueError, match=r"--front: none\.jpg is not one of the frames"):
        run(capture, FilterSettings(front="none.jpg"))


def test_suggestions_fill_what_is_missing_and_are_exported(tmp_path):
    c2w = orbit(24)
    rest = [i for i in range(24) if i not in range(8, 14)]
    folder = write_transforms(tmp_path / "holed", c2w[rest])
    result = run(folder, FilterSettings(suggest=6))
    suggested = result.decisions.suggested
    places = np.array([view.transform_matrix for view in suggested])[:, :3, 3]
    nearest = np.linalg.norm(places[:, None] - c2w[None, 8:14, :3, 3], axis=2).min(axis=0)
    assert (nearest < 0.25 * np.linalg.norm(c2w[:, :3, 3], axis=1).mean()).mean() >= 0.8
    known = {frame.file_path for frame in result.decisions.kept}
    assert all(view.label and 0.0 < view.gain <= 1.0 and set(view.seen_best_by) <= known for view in suggested)
    loaded = load_views(result.output_dir)
    np.testing.assert_allclose(loaded.suggested_poses[:, :3, 3], places)
    assert loaded.pose_embeddings[loaded.kept].shape == (len(known), 256)
    np.testing.assert_allclose(loaded.kept_poses, c2w[rest], atol=1e-6)
    assert run(folder, FilterSettings(suggest=0)).decisions.suggested == ()


def test_exports_that_do_not_belong_together_are_refused(capture):
    folder = run(capture).output_dir
    np.save(folder / "pose_embeddings.npy", np.zeros((3, 256), dtype=np.float32))
    with pytest.raises(ValueError, match=r"pose_embeddings.npy: has 3 rows, the decisions have \d+"):
        load_views(folder)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_frames": 3}, "--max-frames must not be below --min-frames"),
        ({"coverage": 0.0}, "--coverage must lie in"),
        ({"suggest": -1}, "--suggest must not be negative"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        FilterSettings(**given)
