"""The mtcm dataparser against nerfstudio's own, on tiny captures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from deciding import decide, frame_names, open_ours, same_outputs, stock_transforms
from PIL import Image
from tiny_capture import HEIGHT, WIDTH, edit_transforms, names, orbit, write_colmap, write_transforms

COUNT = 24
IN_TRANSFORMS = [f"images/{name}" for name in names(COUNT)]


@pytest.fixture
def capture(tmp_path):
    return write_transforms(tmp_path / "capture", orbit(COUNT))


@pytest.fixture
def keep_all(tmp_path):
    return decide(tmp_path / "keep_all.json", IN_TRANSFORMS)


@pytest.mark.parametrize("orientation", ["up", "vertical", "none"])
@pytest.mark.parametrize("center", ["poses", "focus", "none"])
def test_where_nothing_is_dropped_or_held_out_all_is_as_in_nerfstudio(capture, keep_all, orientation, center):
    flags = {"eval_mode": "all", "orientation_method": orientation, "center_method": center, "scale_factor": 0.7}
    parser = open_ours(capture, keep_all, **flags)
    for split in ("train", "val", "test"):
        same_outputs(parser.get_dataparser_outputs(split), stock_transforms(capture, split, **flags))


@pytest.mark.parametrize(
    "flags",
    [{}, {"eval_mode": "interval"}, {"eval_mode": "interval", "eval_interval": 5}, {"train_split_fraction": 0.6}],
    ids=str,
)
def test_evaluation_is_over_the_stock_frames_whatever_their_verdict(capture, tmp_path, flags):
    every_third = {name: "blur" for name in IN_TRANSFORMS[::3]}
    parser = open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS, every_third), **flags)
    evaluated = stock_transforms(capture, "val", **flags)
    assert parser.get_dataparser_outputs("val").image_filenames == evaluated.image_filenames
    trained = stock_transforms(capture, "train", **flags)
    kept = [path for path in trained.image_filenames if f"images/{path.name}" not in every_third]
    assert parser.get_dataparser_outputs("train").image_filenames == kept


def test_splits_that_the_capture_names_are_kept(capture, keep_all):
    def name_splits(meta):
        meta["train_filenames"] = IN_TRANSFORMS[5:]
        meta["val_filenames"] = IN_TRANSFORMS[:3]
        meta["test_filenames"] = IN_TRANSFORMS[3:5]

    edit_transforms(capture, name_splits)
    parser = open_ours(capture, keep_all)
    for split in ("train", "val", "test"):
        stock = stock_transforms(capture, split)
        assert parser.get_dataparser_outputs(split).image_filenames == stock.image_filenames


def test_a_split_that_the_capture_does_not_name_is_refused_as_in_nerfstudio(capture, keep_all):
    edit_transforms(capture, lambda meta: meta.update(train_filenames=IN_TRANSFORMS[5:], test_filenames=[]))
    parser = open_ours(capture, keep_all)
    parser.get_dataparser_outputs("train")
    with pytest.raises(RuntimeError, match="split val is missing"):
        parser.get_dataparser_outputs("val")


def test_the_scene_is_that_of_the_kept_training_frames_alone(capture, tmp_path):
    """Dropping is as if the frame had never been there, evaluation frames are no part of it, a far pose no harm."""

    def move_away(meta):
        meta["frames"][4]["transform_matrix"][0][3] = 3000.0

    dropped = {IN_TRANSFORMS[4]: "pose"}
    near = open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS, dropped), eval_mode="interval")
    before = near.get_dataparser_outputs("train")
    edit_transforms(capture, move_away)
    far = open_ours(capture, tmp_path / "d.json", eval_mode="interval").get_dataparser_outputs("train")
    same_outputs(far, before)
    kept = {path.name for path in before.image_filenames}
    edit_transforms(
        capture, lambda meta: meta.update(frames=[f for f in meta["frames"] if f["file_path"].split("/")[1] in kept])
    )
    same_outputs(before, stock_transforms(capture, eval_mode="all"))


@pytest.mark.parametrize("orientation", ["up", "pca", "vertical", "none"])  # pca: nerfstudio turns two frames over
def test_evaluation_poses_are_in_the_scene_of_the_training_poses(capture, keep_all, orientation):
    parser = open_ours(capture, keep_all, eval_mode="interval", orientation_method=orientation)
    train, val = (parser.get_dataparser_outputs(split) for split in ("train", "val"))
    assert torch.equal(train.dataparser_transform, val.dataparser_transform)
    assert train.dataparser_scale == val.dataparser_scale
    poses = {f"frame_{i + 1}.jpg": pose for i, pose in enumerate(orbit(COUNT))}
    for outputs in (train, val):
        world = outputs.transform_poses_to_original_space(outputs.cameras.camera_to_worlds, "opengl").numpy()
        for name, pose in zip(frame_names(outputs), world, strict=True):
            np.testing.assert_allclose(pose, poses[name][:3], atol=1e-5)


def test_what_nobody_can_train_on_goes_and_the_rest_trains(capture, tmp_path, capsys):
    """The stock parser, or its data loader, dies of each of these."""
    (capture / IN_TRANSFORMS[0]).write_bytes(b"\xff\xd8\xff no picture")
    (capture / IN_TRANSFORMS[8]).unlink()

    def spoil(meta):
        meta["frames"][16]["transform_matrix"][1][1] = float("nan")
        del meta["frames"][17]["transform_matrix"]

    edit_transforms(capture, spoil)
    reasons = dict(zip([0, 8, 16, 17], ["unreadable image", "missing image", "invalid pose", "invalid pose"]))
    dropped = {IN_TRANSFORMS[i]: reason for i, reason in reasons.items()}
    parser = open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS, dropped, by="rule"), eval_mode="interval")
    train, val = (parser.get_dataparser_outputs(split) for split in ("train", "val"))
    for outputs in (train, val):
        assert not {names(COUNT)[i] for i in reasons} & set(frame_names(outputs))
        assert torch.isfinite(outputs.cameras.camera_to_worlds).all()
    assert len(train.image_filenames) + len(val.image_filenames) == COUNT - 4
    said = capsys.readouterr().out
    lost = [line for line in said.splitlines() if "not evaluated on" in line]
    order = sorted(names(COUNT))  # nerfstudio holds out every 8th of these
    assert {line.split(": ")[0].split("/")[-1] for line in lost} == {names(COUNT)[i] for i in reasons} & set(order[::8])


def test_a_person_cannot_keep_what_cannot_be_read(capture, tmp_path):
    picture = capture / IN_TRANSFORMS[3]
    picture.write_bytes(picture.read_bytes()[:-200])
    edit_transforms(capture, lambda meta: meta["frames"][4].update(transform_matrix=[[float("nan")] * 4] * 4))
    parser = open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS, by="person"), eval_mode="all")
    left = frame_names(parser.get_dataparser_outputs("train"))
    assert {"frame_4.jpg", "frame_5.jpg"}.isdisjoint(left) and len(left) == COUNT - 2


def test_nothing_left_to_train_on_is_said_in_one_line(capture, tmp_path):
    parser = open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS, dict.fromkeys(IN_TRANSFORMS, "manual")))
    with pytest.raises(ValueError, match="no training frame is left"):
        parser.get_dataparser_outputs("train")


def test_a_capture_too_small_to_hold_frames_out_evaluates_on_none(tmp_path):
    capture = write_transforms(tmp_path / "capture", orbit(5))
    parser = open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS[:5]))
    assert len(parser.get_dataparser_outputs("train").image_filenames) == 5
    val = parser.get_dataparser_outputs("val")
    assert val.image_filenames == [] and len(val.cameras) == 0
    assert stock_transforms(capture, "val").image_filenames == []


@pytest.mark.parametrize("layout", ["transforms", "colmap"])
def test_a_repaired_pose_takes_the_place_of_the_claimed_one(tmp_path, layout):
    poses = orbit(COUNT)
    wrong = poses.copy()
    wrong[5, :3, 3] += [1.0, -2.0, 0.5]
    write = write_transforms if layout == "transforms" else write_colmap
    claimed, right = write(tmp_path / "claimed", wrong), write(tmp_path / "right", poses)
    mended = decide(tmp_path / "mended.json", IN_TRANSFORMS, repaired={IN_TRANSFORMS[5]: poses[5]})
    keep_all = decide(tmp_path / "keep.json", IN_TRANSFORMS)
    for split in ("train", "val"):
        ours = open_ours(claimed, mended).get_dataparser_outputs(split)
        wanted = open_ours(right, keep_all).get_dataparser_outputs(split)
        assert torch.allclose(ours.cameras.camera_to_worlds, wanted.cameras.camera_to_worlds, atol=1e-5)
        assert ours.dataparser_scale == pytest.approx(wanted.dataparser_scale)


def test_what_hangs_on_the_frames_passes_through(tmp_path):
    """Masks, depth maps, fisheye, cameras per frame, an applied transform and scale, points."""
    capture = write_transforms(tmp_path / "capture", orbit(COUNT), camera_model="OPENCV_FISHEYE", k1=0.01, k4=0.002)
    for folder in ("masks", "depths"):
        (capture / folder).mkdir()
    for name in names(COUNT):
        Image.new("L", (WIDTH, HEIGHT), 255).save(capture / "masks" / f"{name[:-4]}.png")
        Image.new("I;16", (WIDTH, HEIGHT), 1000).save(capture / "depths" / f"{name[:-4]}.png")
    points = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
    colours = "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n0.1 0.2 0.3 255 0 10\n"
    (capture / "points.ply").write_text(points + colours)

    def attach(meta):
        for i, frame in enumerate(meta["frames"]):
            stem = frame["file_path"].split("/")[1][:-4]
            frame.update(mask_path=f"masks/{stem}.png", depth_file_path=f"depths/{stem}.png", fl_x=50.0 + i)
        del meta["fl_x"]
        meta.update(applied_transform=[[0, 1, 0, 0], [1, 0, 0, 0.5], [0, 0, -1, 0]], applied_scale=2.0)
        meta.update(ply_file_path="points.ply", fisheye_crop_radius=20.0)

    edit_transforms(capture, attach)
    flags = {"eval_mode": "all", "load_3D_points": True}
    keep_all = decide(tmp_path / "d.json", IN_TRANSFORMS)
    parser = open_ours(capture, keep_all, **flags)
    for split in ("train", "val"):
        ours, stock = parser.get_dataparser_outputs(split), stock_transforms(capture, split, **flags)
        same_outputs(ours, stock)
        assert ours.metadata["depth_filenames"] == stock.metadata["depth_filenames"]
        assert torch.allclose(ours.metadata["points3D_xyz"], stock.metadata["points3D_xyz"], atol=1e-5)
        assert ours.cameras.metadata.keys() == stock.cameras.metadata.keys()
    assert len(set(ours.cameras.fx.flatten().tolist())) == COUNT


def test_frames_without_a_mask_count_in_full_and_are_named_in_one_line(capture, keep_all, capsys):
    (capture / "masks").mkdir()
    for i in (0, 1, 2):
        Image.new("L", (WIDTH, HEIGHT), 0).save(capture / "masks" / f"{i}.png")

    def list_masks(meta):
        for i, frame in enumerate(meta["frames"][:4]):
            frame["mask_path"] = f"masks/{i}.png"  # the last of them is not there

    edit_transforms(capture, list_masks)
    with pytest.raises(AssertionError, match="mask_path is specified for every frame"):
        stock_transforms(capture)
    train = open_ours(capture, keep_all, eval_mode="all").get_dataparser_outputs("train")
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("No mask for 21 frames (")]
    masks = dict(zip(frame_names(train), train.mask_filenames, strict=True))
    assert masks["frame_1.jpg"] == capture / "masks" / "0.png"
    for name in ("frame_4.jpg", "frame_5.jpg"):
        assert Image.open(masks[name]).getextrema() == (255, 255)
        assert Image.open(masks[name]).size == (WIDTH, HEIGHT)


def test_downscaled_images_are_found_beside_the_capture(tmp_path):
    capture = write_transforms(tmp_path / "capture", orbit(COUNT), images=False, w=2000, h=1500)
    for folder, size in (("images", (2000, 1500)), ("images_2", (1000, 750))):
        (capture / folder).mkdir()
        for name in names(COUNT):
            Image.new("RGB", size).save(capture / folder / name)
    (capture / IN_TRANSFORMS[0]).write_bytes(b"broken")
    dropped = {IN_TRANSFORMS[0]: "unreadable image"}
    parser = open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS, dropped, by="rule"))
    train = parser.get_dataparser_outputs("train")
    assert {path.parent for path in train.image_filenames} == {capture / "images_2"}
    assert set(train.cameras.width.flatten().tolist()) == {1000}


def test_a_flag_of_the_other_parser_is_refused_by_name(capture, keep_all):
    with pytest.raises(ValueError, match="--masks-path is no flag of nerfstudio's NerfstudioDataParserConfig"):
        open_ours(capture, keep_all, masks_path=Path("masks")).get_dataparser_outputs("train")


def test_photos_without_poses_are_refused(tmp_path):
    capture = write_transforms(tmp_path / "capture", orbit(3))
    (capture / "transforms.json").unlink()
    with pytest.raises(ValueError, match="ns-mtcm-process"):
        open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS[:3])).get_dataparser_outputs("train")


def test_the_filter_runs_where_there_are_no_decisions_and_is_reused_where_there_are(capture, capsys):
    outputs = open_ours(capture).get_dataparser_outputs("train")
    assert "MTCM: capture: kept" in capsys.readouterr().out
    assert (capture / "mtcm" / "filtered_views.json").is_file()
    again = open_ours(capture / "transforms.json").get_dataparser_outputs("train")
    assert "(decided earlier)" in capsys.readouterr().out
    same_outputs(again, outputs)


def test_the_filters_files_go_where_they_are_told(capture, tmp_path):
    open_ours(capture, output_dir=tmp_path / "elsewhere").get_dataparser_outputs("train")
    assert (tmp_path / "elsewhere" / "filtered_views.json").is_file()
    assert not (capture / "mtcm").exists()
