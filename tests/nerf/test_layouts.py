"""COLMAP models and identities through the mtcm dataparser."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from deciding import decide, frame_names, open_ours, same_outputs, stock_colmap, stock_transforms
from PIL import Image
from tiny_capture import names, orbit, write_colmap, write_identity, write_transforms

from mtcm_nerfstudio.filter_settings import FilterSettings

COUNT = 24
IN_TRANSFORMS = [f"images/{name}" for name in names(COUNT)]


def test_transforms_json_wins_over_a_colmap_model_unless_told_otherwise(tmp_path):
    capture = write_transforms(write_colmap(tmp_path / "capture", orbit(COUNT)), orbit(COUNT) * 1.0)
    keep_all = decide(tmp_path / "d.json", IN_TRANSFORMS)
    by_fraction = open_ours(capture, keep_all).get_dataparser_outputs("val")
    by_interval = open_ours(capture, keep_all, filter=FilterSettings(source="colmap")).get_dataparser_outputs("val")
    assert frame_names(by_fraction) == frame_names(stock_transforms(capture, "val"))
    assert frame_names(by_interval) == frame_names(stock_colmap(capture, "val", load_3D_points=False))


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("model", ["sparse/0", "colmap/sparse/0"])
def test_a_colmap_model_is_read_as_nerfstudio_reads_it(tmp_path, text, model):
    capture = write_colmap(tmp_path / "capture", orbit(COUNT), text=text, model=model)
    flags = {"eval_mode": "all", "load_3D_points": text}
    if text:
        (capture / model / "points3D.txt").write_text("1 0.1 0.2 0.3 255 0 10 0.5\n")
    parser = open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS), **flags)
    for split in ("train", "val"):
        ours = parser.get_dataparser_outputs(split)
        stock = stock_colmap(capture, split, colmap_path=Path(model), **flags)
        same_outputs(ours, stock)
        assert ours.metadata.keys() == stock.metadata.keys()
        if text:
            assert torch.allclose(ours.metadata["points3D_xyz"], stock.metadata["points3D_xyz"])


@pytest.mark.parametrize("text", [True, False])
def test_a_colmap_model_without_points_trains_all_the_same(tmp_path, text):
    capture = write_colmap(tmp_path / "capture", orbit(COUNT), text=text)
    with pytest.raises(RuntimeError):
        stock_colmap(capture)
    train = open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS)).get_dataparser_outputs("train")
    assert "points3D_xyz" not in train.metadata


def test_colmap_images_that_cannot_be_used_go_and_the_eval_split_is_stock(tmp_path):
    capture = write_colmap(tmp_path / "capture", orbit(COUNT))
    (capture / IN_TRANSFORMS[1]).unlink()
    dropped = {IN_TRANSFORMS[1]: "missing image", IN_TRANSFORMS[2]: "blur", IN_TRANSFORMS[8]: "blur"}
    parser = open_ours(capture, decide(tmp_path / "d.json", IN_TRANSFORMS, dropped))
    assert frame_names(parser.get_dataparser_outputs("val")) == frame_names(
        stock_colmap(capture, "val", load_3D_points=False)
    )
    wanted = [name for i, name in enumerate(names(COUNT)) if i % 8 and i not in (1, 2)]
    assert frame_names(parser.get_dataparser_outputs("train")) == wanted


def test_large_colmap_images_are_scaled_without_a_question_and_outside_the_images_folder(tmp_path):
    capture = write_colmap(tmp_path / "capture", orbit(9), images=False)
    (capture / "images").mkdir()
    for name in names(9):
        Image.effect_noise((1700, 1275), 50).convert("RGB").save(capture / "images" / name)
    before = {path: path.stat().st_mtime_ns for path in capture.rglob("*") if path.is_file()}
    decisions = decide(tmp_path / "d.json", IN_TRANSFORMS[:9])
    parser = open_ours(capture, decisions)
    train = parser.get_dataparser_outputs("train")
    assert {path.parent for path in train.image_filenames} == {capture / "mtcm" / "images_2"}
    assert parser.training_frames().names == tuple(f"images/{path.name}" for path in train.image_filenames)
    assert {Image.open(path).size for path in train.image_filenames} == {(850, 637)}
    new = {path for path in capture.rglob("*") if path.is_file()} - before.keys()
    assert new and all(path.is_relative_to(capture / "mtcm") for path in new)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    made = {path: path.stat().st_mtime_ns for path in new}
    open_ours(capture, decisions).get_dataparser_outputs("train")
    assert {path: path.stat().st_mtime_ns for path in made} == made, "scaled again"


def test_an_identity_is_read_like_the_transforms_json_it_could_be(tmp_path):
    data = write_identity(tmp_path / "data", "Zoë of the garden", orbit(COUNT))
    metadata = data / "metadata" / "Zoë of the garden" / "poses.json"
    record = json.loads(metadata.read_text())
    del record["images"][names(COUNT)[7]]
    metadata.write_text(json.dumps(record))
    before = {path for path in data.rglob("*") if path.is_file()}
    dropped = {names(COUNT)[7]: "invalid pose", names(COUNT)[9]: "blur"}
    parser = open_ours(data, decide(tmp_path / "d.json", names(COUNT), dropped), eval_mode="interval")
    train, val = (parser.get_dataparser_outputs(split) for split in ("train", "val"))
    assert all(path.is_file() for path in (*train.image_filenames, *val.image_filenames))
    order = sorted(names(COUNT))
    assert frame_names(val) == [name for name in order[::8] if name != names(COUNT)[7]]
    assert frame_names(train) == [name for name in order if name not in order[::8] and name not in dropped]
    world = train.transform_poses_to_original_space(train.cameras.camera_to_worlds, "opengl").numpy()
    poses = dict(zip(names(COUNT), orbit(COUNT), strict=True))
    for name, pose in zip(frame_names(train), world, strict=True):
        np.testing.assert_allclose(pose, poses[name][:3], atol=1e-5)
    assert {path for path in data.rglob("*") if path.is_file()} == before


def test_another_colmap_model_than_the_filter_judged_is_refused(tmp_path):
    capture = write_colmap(write_colmap(tmp_path / "capture", orbit(COUNT)), orbit(COUNT)[:12], model="sparse/1")
    open_ours(capture, colmap_path=Path("sparse/0")).get_dataparser_outputs("train")
    with pytest.raises(ValueError, match="not the model that the filter judged"):
        open_ours(capture, colmap_path=Path("sparse/1")).get_dataparser_outputs("train")
