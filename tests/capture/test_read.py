import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_capture import (
    FOCAL,
    HEIGHT,
    WIDTH,
    edit_transforms,
    names,
    orbit,
    picture,
    write_colmap,
    write_identity,
    write_images,
    write_transforms,
)

from mtcm_nerfstudio.capture.capture import Capture, Frame, in_temporal_order, natural_key
from mtcm_nerfstudio.capture.colmap import find_model, read_model
from mtcm_nerfstudio.capture.images import read_rgb
from mtcm_nerfstudio.capture.read import read_capture

COUNT = 12


def poses_of(capture: Capture) -> np.ndarray:
    return np.stack([frame.c2w for frame in capture.frames])


@pytest.fixture
def layouts(tmp_path):
    c2w = orbit(COUNT)
    return {
        "transforms": write_transforms(tmp_path / "a", c2w),
        "colmap": write_colmap(tmp_path / "b", c2w),
        "colmap text": write_colmap(tmp_path / "c", c2w, text=True, model="colmap/sparse/0"),
        "identity": write_identity(tmp_path / "d", "Zoë Quill", c2w),
    }


@pytest.mark.parametrize("layout", ["transforms", "colmap", "colmap text", "identity"])
def test_every_layout_gives_the_same_capture(layouts, layout):
    capture = read_capture(layouts[layout])
    assert capture.source == layout.split()[0]
    assert [frame.image_path.name for frame in capture.frames] == names(COUNT)
    np.testing.assert_allclose(poses_of(capture), orbit(COUNT), atol=1e-12)
    for frame in capture.frames:
        assert frame.image_path.is_file()
        assert frame.intrinsics is not None
        assert frame.intrinsics.focal_over_diagonal == pytest.approx(FOCAL / np.hypot(WIDTH, HEIGHT))
    prefix = "" if layout == "identity" else "images/"
    assert capture.frames[1].file_path == f"{prefix}frame_2.jpg"


def test_transforms_json_wins_and_source_overrules(layouts, tmp_path):
    shutil.copy(layouts["transforms"] / "transforms.json", layouts["colmap"])
    assert read_capture(layouts["colmap"]).source == "transforms"
    assert read_capture(layouts["colmap"], "colmap").source == "colmap"
    assert read_capture(layouts["colmap"], "photos").frames[0].c2w is None
    assert read_capture(layouts["transforms"] / "transforms.json").source == "transforms"


def test_the_model_with_most_images_is_taken(tmp_path):
    write_colmap(tmp_path, orbit(3), model="sparse/0")
    write_colmap(tmp_path, orbit(7), model="sparse/1", text=True)
    assert find_model(tmp_path) == tmp_path / "sparse/1"
    assert len(read_capture(tmp_path)) == 7


def test_images_without_a_pose_are_noted(tmp_path):
    root = write_colmap(tmp_path, orbit(4))
    picture(9).save(root / "images" / "extra.jpg")
    assert read_capture(root).notes == ("COLMAP gave no pose to 1 of 5 images: extra.jpg.",)


def test_frames_come_in_natural_order_however_they_are_listed(tmp_path):
    root = write_transforms(tmp_path, orbit(COUNT))
    edit_transforms(root, lambda meta: meta["frames"].reverse())
    assert [frame.image_path.name for frame in read_capture(root).frames] == names(COUNT)


def test_time_comes_before_the_name(tmp_path):
    root = write_transforms(tmp_path, orbit(4))

    def edit(meta):
        for seconds, frame in zip([3.0, 1.0, 2.0, 0.5], meta["frames"]):
            frame["timestamp"] = seconds

    edit_transforms(root, edit)
    assert [f.image_path.name for f in read_capture(root).frames] == [f"frame_{i}.jpg" for i in (4, 2, 3, 1)]


def test_exif_says_when_and_how(tmp_path):
    root = write_transforms(tmp_path, orbit(2))
    for name, second in zip(names(2), ("09", "07")):
        image = picture(0)
        exif = image.getexif()
        details = exif.get_ifd(0x8769)
        details[36867] = f"2024:05:31 12:00:{second}"
        details[37521] = "250"
        details[41989] = 28
        image.save(root / "images" / name, exif=exif)
    capture = read_capture(root)
    assert [frame.image_path.name for frame in capture.frames] == ["frame_2.jpg", "frame_1.jpg"]
    assert capture.frames[1].timestamp - capture.frames[0].timestamp == pytest.approx(2.0)
    assert capture.frames[0].timestamp % 1 == pytest.approx(0.25)
    assert capture.frames[0].focal_over_diagonal == pytest.approx(28 / np.hypot(36, 24), rel=1e-4)


@given(st.permutations([f"f{i}" for i in range(12)]))
def test_order_does_not_depend_on_the_input(shuffled):
    ordered = in_temporal_order(Frame(file_path=name, image_path=Path(name)) for name in shuffled)
    assert [frame.file_path for frame in ordered] == [f"f{i}" for i in range(12)]


@given(st.lists(st.text(max_size=6), unique=True))
def test_natural_keys_compare_and_tell_all_names_apart(texts):
    keys = [natural_key(text) for text in texts]
    assert len(set(keys)) == len(texts)
    assert sorted(keys) == sorted(keys, key=lambda key: key)


def test_per_frame_intrinsics_overrule_the_files(tmp_path):
    root = write_transforms(tmp_path, orbit(2))
    edit_transforms(root, lambda meta: meta["frames"][1].update(fl_x=90.0, fl_y=90.0))
    focals = [frame.intrinsics.fl_x for frame in read_capture(root).frames]
    assert focals == [FOCAL, 90.0]


def test_a_field_of_view_is_a_focal_length_too(tmp_path):
    root = write_transforms(tmp_path, orbit(2))

    def edit(meta):
        for key in ("fl_x", "fl_y", "w", "h"):
            del meta[key]
        meta["camera_angle_x"] = 2 * np.arctan(0.5 * WIDTH / FOCAL)

    edit_transforms(root, edit)
    found = read_capture(root).frames[0].intrinsics
    assert (found.fl_x, found.fl_y, found.width) == pytest.approx((FOCAL, FOCAL, WIDTH))


def test_broken_poses_are_read_as_broken(tmp_path):
    root = write_transforms(tmp_path, orbit(5))

    def edit(meta):
        meta["frames"][0]["transform_matrix"][0][0] = float("nan")
        meta["frames"][1]["transform_matrix"] = "none"
        meta["frames"][2]["transform_matrix"] = [[1, 2], [3, 4]]
        del meta["frames"][3]["transform_matrix"]

    edit_transforms(root, edit)
    frames = read_capture(root).frames
    assert [frame.has_usable_pose for frame in frames] == [False, False, False, False, True]
    assert [frame.c2w is None for frame in frames] == [False, False, False, True, False]


@pytest.mark.parametrize("name", ["frame_1.png", "frame_1_mask.png", "frame_1.jpg.png"])
def test_masks_are_found_beside_the_images(tmp_path, name):
    root = write_transforms(tmp_path, orbit(2))
    (root / "masks").mkdir()
    Image.new("L", (WIDTH, HEIGHT)).save(root / "masks" / name)
    frames = read_capture(root).frames
    assert frames[0].mask_path == root / "masks" / name
    assert frames[1].mask_path is None


def test_an_identity_has_everything_beside_its_images(tmp_path):
    data, who = write_identity(tmp_path, "Zoë Quill", orbit(3)), "Zoë Quill"
    for part, suffix in (("masks", "png"), ("embeddings", "npy")):
        (data / part / who).mkdir(parents=True)
        for name in names(3)[:2]:
            path = data / part / who / f"{name[:-4]}.{suffix}"
            if part == "masks":
                Image.new("L", (WIDTH, HEIGHT), 255).save(path)
            else:
                np.save(path, np.ones(384, np.float32))
    (data / "embeddings" / who / "backend.json").write_text('{"backend": "dinov2-vits14"}')
    exif = {
        "frame_1.jpg": {"timestamp": 5.0, "focal_length": 50.0},
        "frame_2.jpg": {"timestamp": "2024:01:01 00:00:00", "focal_length": 28, "focal_length_unit": "mm"},
    }
    (data / "metadata" / who / "exif.json").write_text(json.dumps(exif))
    (data / "raw_images" / who / "frame_3.jpg").unlink()
    capture = read_capture(data)
    assert (capture.name, capture.embedder) == (who, "dinov2-vits14")
    by_name = {frame.file_path: frame for frame in capture.frames}
    assert by_name["frame_1.jpg"].timestamp == 5.0
    assert by_name["frame_1.jpg"].focal_over_diagonal == pytest.approx(50 / np.hypot(WIDTH, HEIGHT))
    assert by_name["frame_2.jpg"].timestamp == 1704067200.0
    assert by_name["frame_2.jpg"].focal_over_diagonal == pytest.approx(28 / np.hypot(36, 24), rel=1e-4)
    assert by_name["frame_2.jpg"].mask_path and by_name["frame_2.jpg"].embedding_path
    gone = by_name["frame_3.jpg"]
    assert not gone.image_path.exists() and gone.c2w is not None and gone.embedding_path is None


def test_one_array_of_embeddings_follows_the_natural_order(tmp_path):
    data = write_identity(tmp_path, "A", orbit(11))
    (data / "embeddings" / "A").mkdir(parents=True)
    np.save(data / "embeddings" / "A" / "all.npy", np.zeros((11, 384), np.float32))
    rows = {frame.file_path: frame.embedding_row for frame in read_capture(data).frames}
    assert rows["frame_2.jpg"] == 1 and rows["frame_10.jpg"] == 9
    np.save(data / "embeddings" / "A" / "all.npy", np.zeros((10, 384), np.float32))
    with pytest.raises(ValueError, match=r"all\.npy: has shape \(10, 384\), wanted 11 × 384"):
        read_capture(data)


def test_an_image_without_a_pose_is_still_a_frame(tmp_path):
    data = write_identity(tmp_path, "A", orbit(3))
    picture(5).save(data / "raw_images" / "A" / "frame_4.jpg")
    assert [frame.c2w is None for frame in read_capture(data).frames] == [False, False, False, True]


def test_embeddings_of_images_in_subfolders_are_told_apart(tmp_path):
    data = write_identity(tmp_path, "A", orbit(2))
    for folder in ("x", "y"):
        (data / "raw_images" / "A" / folder).mkdir()
        picture(1).save(data / "raw_images" / "A" / folder / "same.jpg")
        (data / "embeddings" / "A" / folder).mkdir(parents=True)
        np.save(data / "embeddings" / "A" / folder / "same.npy", np.ones(384, np.float32))
    np.save(data / "embeddings" / "A" / "frame_1.npy", np.ones(384, np.float32))
    found = {frame.file_path: frame.embedding_path for frame in read_capture(data).frames}
    assert found["x/same.jpg"] != found["y/same.jpg"] and found["frame_1.jpg"].name == "frame_1.npy"
    assert found["frame_2.jpg"] is None


def test_entries_of_the_wrong_kind_are_as_good_as_absent(tmp_path):
    data = write_identity(tmp_path / "d", "A", orbit(2))
    (data / "metadata" / "A" / "exif.json").write_text('{"frame_1.jpg": null, "frame_2.jpg": 7}')
    assert all(frame.timestamp is None for frame in read_capture(data).frames)
    root = write_transforms(tmp_path / "t", orbit(2))
    edit_transforms(root, lambda meta: meta["frames"][0].update(mask_path=3))
    assert read_capture(root).frames[0].mask_path is None


def test_names_with_spaces_survive_a_text_model(tmp_path):
    root = write_colmap(tmp_path, orbit(3), text=True)
    path = root / "sparse/0/images.txt"
    path.write_text(path.read_text().replace("frame_", "my frame "))
    assert [frame.file_path for frame in read_capture(root).frames] == [f"images/my frame {i}.jpg" for i in (1, 2, 3)]


def test_a_damaged_second_model_does_not_matter(tmp_path):
    root = write_colmap(tmp_path, orbit(3), model="sparse/0")
    write_colmap(tmp_path, orbit(5), model="sparse/1")
    (root / "sparse/1/images.bin").write_bytes(b"")
    assert len(read_capture(root)) == 3


def test_masks_beside_bare_photos_are_no_photos(tmp_path):
    write_images(tmp_path, 3)
    write_images(tmp_path / "masks", 3)
    assert len(read_capture(tmp_path)) == 3


def test_sixteen_bit_grey_is_not_clipped_to_white(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    found = np.asarray(read_rgb(tmp_path / "a.png"))
    assert found.min() == 0 and found.max() == 255 and abs(float(found.mean()) - 127.5) < 1


def test_several_identities_must_be_named(tmp_path):
    write_identity(tmp_path, "A", orbit(3))
    write_identity(tmp_path, "B c", orbit(4))
    with pytest.raises(ValueError, match=r"holds 2 identities \(A, B c\). Name one: --identity"):
        read_capture(tmp_path)
    assert len(read_capture(tmp_path, identity="B c")) == 4
    with pytest.raises(FileNotFoundError, match="no identity 'X'; there are A, B c"):
        read_capture(tmp_path, identity="X")


def test_bare_photos_are_a_capture_and_hidden_files_are_not(tmp_path):
    write_images(tmp_path, 3)
    (tmp_path / "._frame_1.jpg").write_bytes(b"not an image")
    (tmp_path / ".DS_Store").write_bytes(b"")
    capture = read_capture(tmp_path)
    assert capture.source == "photos" and [f.file_path for f in capture.frames] == names(3)


def test_wrong_input_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        read_capture(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no COLMAP model, no identity and no images"):
        read_capture(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="ns-mtcm-process"):
        read_capture(tmp_path / "clip.mp4")
    for source, message in (("transforms", "has no transforms.json"), ("colmap", "has no COLMAP model")):
        with pytest.raises(FileNotFoundError, match=message):
            read_capture(tmp_path, source)
    (tmp_path / "transforms.json").write_text("{")
    with pytest.raises(ValueError, match=r"transforms\.json: is no JSON"):
        read_capture(tmp_path)
    (tmp_path / "transforms.json").write_text('{"frames": []}')
    with pytest.raises(ValueError, match="lists no frames"):
        read_capture(tmp_path)
    (tmp_path / "transforms.json").write_text('{"frames": [{}]}')
    with pytest.raises(ValueError, match="frame 0 has no file_path"):
        read_capture(tmp_path)
    (tmp_path / "transforms.json").write_text('{"frames": [{"file_path": "a.jpg"}, {"file_path": "a.jpg"}]}')
    with pytest.raises(ValueError, match=r"listed more than once: a\.jpg"):
        read_capture(tmp_path)


def test_a_damaged_colmap_model_is_named(tmp_path):
    root = write_colmap(tmp_path, orbit(3))
    (root / "sparse/0/images.bin").write_bytes(b"\x05")
    with pytest.raises(ValueError, match=r"sparse/0: cannot be read as a COLMAP model|no image has a pose"):
        read_capture(root)


@pytest.mark.parametrize("name", ["points3D.bin", "frames.bin"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_colmap_file_that_was_cut_short_is_named(tmp_path, name, share):
    """pycolmap itself would not come back from these."""
    model = tmp_path / "sparse" / "0"
    model.mkdir(parents=True)
    sample = Path(__file__).resolve().parents[2] / "data" / "sample" / "sparse" / "0"
    for file in sample.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    if not (model / name).is_file():
        pytest.skip(f"the sample's model has no {name}")
    content = (model / name).read_bytes()
    (model / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=f"{name}: is cut short"):
        read_model(model)


@pytest.mark.real
@pytest.mark.parametrize("name", ["banana", "boruszyn_kap"])
def test_real_captures_agree_between_layouts(shared_captures, name):
    ours = read_capture(shared_captures / name, "colmap")
    theirs = read_capture(shared_captures / name, "transforms")
    assert [frame.file_path for frame in ours.frames] == [frame.file_path for frame in theirs.frames]
    np.testing.assert_allclose(poses_of(ours), poses_of(theirs), atol=1e-6)
