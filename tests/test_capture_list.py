"""The list of public captures: every entry is valid, damage gives one clear line, a clone is laid out as it was."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import ExifTags, Image

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
ORIGINAL, LAID_OUT = (96, 64), (48, 32)


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    sys.path.insert(0, str(SCRIPTS))
    from benchmarks import capture_list, lay_out_captures

    yield capture_list, lay_out_captures
    sys.path.remove(str(SCRIPTS))


def photo(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(ORIGINAL, Image.Resampling.BICUBIC)


def write_clone(folder: Path) -> None:
    """A repository of three photos, one of which is no part of the capture, with a place and a name in their EXIF."""
    (folder / "photos").mkdir(parents=True)
    for number in range(3):
        exif = Image.Exif()
        exif[ExifTags.Base.Artist], exif[ExifTags.Base.Model] = "somebody", "a camera"
        exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLength] = 5.0
        photo(number).save(folder / "photos" / f"{number}.JPG", quality=95, exif=exif)


def entry(**changes: object) -> dict[str, object]:
    whole = {
        "repository": "owner/photos",
        "commit": "0" * 40,
        "path": "photos",
        "licence": "MIT",
        "attribution": "",
        "may_train": True,
        "frames": 2,
        "size": list(LAID_OUT),
        "posed_by": None,
        "group": "A",
        "image_sha256": "0" * 16,
        "layout": {"method": "jpeg", "files": ["photos/*.JPG"], "skip": ["2.JPG"]},
        "natural_faults": {"images/1.JPG": {"reason": "blur", "grade": "mild"}},
    }
    return {**whole, **changes}


def write_list(folder: Path, **changes: object) -> Path:
    path = folder / "captures.json"
    path.write_text(json.dumps({"schema_version": 1, "captures": {"toy": entry(**changes)}}))
    return path


def lay_out(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(SCRIPTS / "benchmarks" / "lay_out_captures.py"), *arguments]
    line += ["--clones", str(folder / "clones"), "--out", str(folder / "out")]
    line += ["--list-file", str(folder / "captures.json")]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_every_entry_of_the_list_is_valid(modules: tuple[ModuleType, ModuleType]) -> None:
    entries = modules[0].read_capture_list()
    assert len(entries) == 22
    assert {each.group for each in entries.values()} == {"A", "B", "C", "D", "evaluation"}
    assert all(each.licence != "none stated" for each in entries.values() if each.may_train)
    frames = {group: sum(e.frames for e in entries.values() if e.group == group) for group in "ABCD"}
    assert max(frames.values()) < 1.5 * min(frames.values()), frames
    rooms = entries["rooms_walk"]
    assert "images/frame_00012.jpg" in rooms.faulty_files("clear")
    assert len(rooms.faulty_files("clear")) + len(rooms.faulty_files("mild")) == len(rooms.natural_faults)


@pytest.mark.real
def test_the_list_describes_the_captures_that_are_at_hand(
    modules: tuple[ModuleType, ModuleType], shared_captures: Path
) -> None:
    for name, each in modules[0].read_capture_list().items():
        images = sorted((shared_captures / name / "images").iterdir())
        assert len(images) == each.frames, name
        with Image.open(images[0]) as image:
            assert image.size == each.size, name
        assert all((shared_captures / name / fault.file_path).is_file() for fault in each.natural_faults), name
    smallest = modules[0].read_capture_list()["rooms_walk"]
    assert modules[1].image_digest((shared_captures / "rooms_walk" / "images").iterdir()) == smallest.image_sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": "E"}, "toy: group is 'E', none of A, B, C, D, evaluation"),
        ({"may_train": False}, "toy: a capture is in the group evaluation if and only if it may not train"),
        ({"frames": "2"}, "toy: frames is '2', not of type int"),
        ({"size": [48]}, "toy: size must be two positive integers, not (48,)"),
        ({"commit": "main"}, "toy: commit is 'main', which does not match [0-9a-f]{40}"),
        ({"colour": "red"}, "toy: unknown field 'colour'"),
        ({"layout": {"method": "jpeg"}}, "toy: field 'files' is missing"),
        (
            {"natural_faults": {"images/1.JPG": {"reason": "blur", "grade": "bad"}}},
            "toy: images/1.JPG: grade is 'bad', none of clear, mild",
        ),
        ({"natural_faults": []}, "toy: an object is expected, not list"),
    ],
)
def test_damage_gives_one_clear_line(
    modules: tuple[ModuleType, ModuleType], tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = write_list(tmp_path, **changes)
    with pytest.raises(ValueError) as caught:
        modules[0].read_capture_list(path)
    assert str(caught.value) == f"{path}: not a list of captures ({message})"


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 2, "captures": {}}', '{"schema_version": 1}'])
def test_other_files_are_refused(modules: tuple[ModuleType, ModuleType], tmp_path: Path, text: str) -> None:
    path = tmp_path / "captures.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="not a list of captures") as caught:
        modules[0].read_capture_list(path)
    assert "\n" not in str(caught.value)


def test_a_clone_is_laid_out_and_checked(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    write_clone(tmp_path / "clones" / "photos")
    write_list(tmp_path)
    done = lay_out(tmp_path)
    assert done.returncode == 0, done.stderr
    images = sorted((tmp_path / "out" / "toy" / "images").iterdir())
    digest = modules[1].image_digest(images)
    assert done.stdout.startswith(f"toy: digest differs: {digest}, not {'0' * 16}")
    assert [image.name for image in images] == ["0.JPG", "1.JPG"]
    for image in map(Image.open, images):
        assert image.size == LAID_OUT
        assert dict(image.getexif()).keys() == {ExifTags.Base.Model, ExifTags.IFD.Exif}
        assert image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLength] == 5.0

    write_list(tmp_path, image_sha256=digest)
    assert lay_out(tmp_path).stdout == "toy: already there\n"
    assert (
        modules[1]
        .lay_out(
            modules[0].read_capture_list(tmp_path / "captures.json")["toy"], tmp_path / "clones", tmp_path / "again"
        )
        .startswith("laid out, 2 images; it has no poses")
    )


def test_missing_clones_and_images_are_said(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    write_list(tmp_path, frames=5)
    clone = tmp_path / "clones" / "owner" / "photos"
    fetch = f"git clone https://github.com/owner/photos {clone} && git -C {clone} checkout {'0' * 40}"
    assert lay_out(tmp_path).stdout == f"toy: clone missing: {fetch}\n"
    write_clone(clone)
    assert lay_out(tmp_path).stdout == f"toy: not laid out: {clone} has 2 of 5 images at photos; {fetch}\n"
    assert not (tmp_path / "out").exists()
    unknown = lay_out(tmp_path, "--captures", "other")
    assert unknown.returncode == 2 and unknown.stderr.startswith("error: --captures other: no such capture in")


def test_metadata_goes_and_pixels_stay(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    write_clone(tmp_path)
    source, target = tmp_path / "photos" / "0.JPG", tmp_path / "reduced.jpg"
    target.write_bytes(modules[1].reduce_metadata(source))
    assert modules[1].image_digest([source]) == modules[1].image_digest([target])
    assert b"somebody" in source.read_bytes() and b"somebody" not in target.read_bytes()


def test_a_motion_jpeg_stream_is_taken_apart(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    write_clone(tmp_path)
    files = [(tmp_path / "photos" / f"{number}.JPG").read_bytes() for number in range(3)]
    assert modules[1].split_mjpeg(b"".join(files)) == files


def test_every_second_frame_of_a_video_is_taken(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    video = cv2.VideoWriter(str(tmp_path / "walk.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, ORIGINAL)
    for number in range(5):
        video.write(np.asarray(photo(number)))
    video.release()
    taken = dict(modules[1].video_frames(tmp_path / "walk.avi", 2))
    assert list(taken) == ["frame_00000.jpg", "frame_00002.jpg", "frame_00004.jpg"]
    with pytest.raises(ValueError, match="cannot read this video"):
        list(modules[1].video_frames(tmp_path / "captures.json", 1))
