import hashlib
import itertools
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import ExifTags, Image
from red_subject import RedIsTheSubject
from textured_corner import FOCAL, HEIGHT, WIDTH, render, walk, write_photos

from mtcm_nerfstudio.capture.process.input_images import InputImage, find_input_images
from mtcm_nerfstudio.capture.process.process_data import ProcessResult, ProcessSettings, chosen_matching, process
from mtcm_nerfstudio.capture.process.process_summary import summary
from mtcm_nerfstudio.capture.process.sfm import (
    Job,
    MappingResult,
    camera_groups,
    number_of_pairs,
    reconstruct,
    sequential_pairings,
)
from mtcm_nerfstudio.capture.process.subprocess_runner import count_rows, reconstruct_in_subprocess
from mtcm_nerfstudio.capture.process.workspace import InputImages
from mtcm_nerfstudio.capture.read import read_capture
from mtcm_nerfstudio.capture.writing.files import link_or_copy
from mtcm_nerfstudio.geometry.sim3 import agree, estimate_sim3

QUICK = ProcessSettings(max_features=300, camera_model="SIMPLE_PINHOLE", threads=2)
NAMES = [f"Küche 1/bild {i}.jpg" for i in (1, 2, 9, 10, 11)]


def nothing(*progress: object) -> None:
    """Nobody is told."""


def exif(second: int, orientation: int = 1) -> Image.Exif:
    block = Image.Exif()
    block[ExifTags.Base.Orientation] = orientation
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"2024:05:31 12:00:{second:02d}"
    return block


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good photos with times, one of another place, one cut short, one hidden, and a note."""
    folder = tmp_path_factory.mktemp("Fotos") / "Ausflug ü"
    for number, (name, pose) in enumerate(zip(NAMES, walk(len(NAMES)), strict=True)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        render(pose).save(folder / name, quality=95, exif=exif(number, orientation=6 if number == 1 else 1))
    noise = np.random.default_rng(5).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "elsewhere.jpg")
    whole = (folder / NAMES[0]).read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "._bild 1.jpg").write_bytes(b"not a photo")
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture(scope="module")
def posed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ProcessResult, list[tuple], str]:
    """The photos posed once, what was reported, and a digest of the originals before."""
    before = digest_of(photos)
    told: list[tuple] = []
    out = tmp_path_factory.mktemp("out") / "posed ö"
    return process(photos, out, QUICK, lambda *progress: told.append(progress)), told, before


def digest_of(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    facts = [(str(p), p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files]
    return repr(facts)


def test_the_poses_are_those_of_the_walk(posed) -> None:
    """Against the poses that the pictures were drawn from, up to the world's similarity transform."""
    capture = read_capture(posed[0].output_dir)
    poses = np.array([frame.c2w for frame in capture.frames])
    sim3 = estimate_sim3(walk(len(NAMES)), poses)
    assert sim3 is not None
    assert agree(sim3.to_capture(walk(len(NAMES))), poses, degrees=1.0, share=0.03).all()
    intrinsics = capture.frames[0].intrinsics
    assert intrinsics is not None
    assert intrinsics.fl_x == pytest.approx(FOCAL, rel=0.03)


def test_what_has_no_pose_is_named(posed) -> None:
    processed = posed[0]
    assert processed.mapped.registered == tuple(sorted(NAMES))
    assert processed.unregistered == ("elsewhere.jpg",)
    assert processed.input_images.unreadable == ("broken.jpg",)
    text = "\n".join(summary(processed))
    assert "COLMAP posed 5 of 6 images" in text
    assert "Unreadable, left out: broken.jpg." in text
    assert "No pose for 1 of 6: elsewhere.jpg." in text
    meta = json.loads((processed.output_dir / "transforms.json").read_text())
    assert meta["unregistered_images"] == ["images/elsewhere.jpg"]


def test_pixels_are_as_they_were_and_originals_untouched(photos: Path, posed) -> None:
    processed, _, before = posed
    assert digest_of(photos) == before
    for name in NAMES:
        placed = processed.output_dir / "images" / name
        assert placed.read_bytes() == (photos / name).read_bytes()
        assert not placed.is_symlink()
    sizes = {(frame.intrinsics.width, frame.intrinsics.height) for frame in read_capture(processed.output_dir).frames}
    assert sizes == {(WIDTH, HEIGHT)}, "EXIF orientation is not applied"


def test_transforms_and_model_say_the_same(posed) -> None:
    out = posed[0].output_dir
    by_transforms, by_model = read_capture(out), read_capture(out, source="colmap")
    assert by_transforms.source == "transforms"
    assert [frame.file_path for frame in by_transforms.frames] == [f"images/{name}" for name in NAMES]
    for one, other in zip(by_transforms.frames, by_model.frames, strict=True):
        np.testing.assert_array_equal(one.c2w, other.c2w)
        assert one.intrinsics == other.intrinsics
        assert one.timestamp == other.timestamp
    seconds = np.array([frame.timestamp for frame in by_transforms.frames])
    np.testing.assert_array_equal(seconds - seconds[0], range(len(NAMES)))


def test_progress_is_told_stage_by_stage(posed) -> None:
    stages = [stage for stage, _ in itertools.groupby(posed[1], key=lambda progress: progress[0])]
    assert stages == ["reading photos", "COLMAP: features", "COLMAP: matches", "COLMAP: mapping"]
    for stage in stages[:-1]:  # mapping starts over with a new model
        counts = [done for name, done, _ in posed[1] if name == stage]
        assert counts == sorted(counts)
    assert all(0 <= done <= total for _, done, total in posed[1])


def test_a_second_run_reads_the_first_back(photos: Path, posed) -> None:
    processed = posed[0]
    before = digest_of(processed.output_dir / "sparse")
    told: list[tuple] = []
    again = process(photos, processed.output_dir, QUICK, lambda *progress: told.append(progress))
    assert again == processed
    assert told == []
    assert digest_of(processed.output_dir / "sparse") == before


def test_masks_can_be_added_later(photos: Path, posed) -> None:
    """Through rembg's session interface, with a session that goes by colour."""
    out = posed[0].output_dir
    settings = ProcessSettings(max_features=300, camera_model="SIMPLE_PINHOLE", threads=2, masks=True)
    told: list[tuple] = []
    processed = process(photos, out, settings, lambda *p: told.append(p), mask_session=RedIsTheSubject())
    assert processed.masks == len(NAMES)
    assert {stage for stage, _, _ in told} == {"masks"}
    for frame in read_capture(out).frames:
        assert frame.mask_path is not None
        with Image.open(frame.mask_path) as mask:
            assert mask.size == (WIDTH, HEIGHT)
            assert set(np.unique(np.asarray(mask))) <= {0, 255}
    process(photos, out, QUICK)
    assert "mask_path" not in (out / "transforms.json").read_text()


def test_nerfstudio_reads_the_capture(posed) -> None:
    pytest.importorskip("nerfstudio")
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    config = NerfstudioDataParserConfig(
        data=posed[0].output_dir, eval_mode="all", downscale_factor=1, load_3D_points=True
    )
    outputs = config.setup().get_dataparser_outputs("train")
    assert sorted(path.name for path in outputs.image_filenames) == sorted(Path(name).name for name in NAMES)
    assert all(path.is_file() for path in outputs.image_filenames)
    assert len(outputs.metadata["points3D_xyz"]) == posed[0].mapped.points


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_where_it_was(photos: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "COLMAP: matches":
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        process(photos, out, QUICK, stop)
    assert not multiprocessing.active_children(), "COLMAP does not go on by itself"
    assert not (out / "transforms.json").exists()
    assert not (out / "sparse").exists()
    described = count_rows(out / "colmap" / "database.db", "descriptors")
    assert described == len(NAMES) + 1
    told: list[tuple] = []
    processed = process(photos, out, QUICK, lambda *progress: told.append(progress))
    assert processed.mapped.registered == tuple(sorted(NAMES))
    assert "reading photos" not in {stage for stage, _, _ in told}
    assert "already" in (out / "colmap" / "log.txt").read_text().lower()


@pytest.mark.slow
def test_the_same_photos_give_the_same_model(photos: Path, posed, tmp_path: Path) -> None:
    process(photos, tmp_path / "out", QUICK)
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        one, other = (out / "sparse" / "0" / name for out in (posed[0].output_dir, tmp_path / "out"))
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.slow
def test_new_photos_in_the_folder_are_posed_too(tmp_path: Path) -> None:
    names = [f"p{i}.jpg" for i in range(5)]
    write_photos(tmp_path / "photos", names)
    last = (tmp_path / "photos" / names[-1]).rename(tmp_path / "later.jpg")
    assert len(process(tmp_path / "photos", tmp_path / "out", QUICK).mapped.registered) == 4
    last.rename(tmp_path / "photos" / names[-1])
    processed = process(tmp_path / "photos", tmp_path / "out", QUICK)
    assert processed.mapped.registered == tuple(names)
    assert len(read_capture(tmp_path / "out")) == 5


@pytest.mark.slow
def test_photos_of_two_sizes_get_two_cameras(tmp_path: Path) -> None:
    names = [f"p{i}.jpg" for i in range(6)]
    write_photos(tmp_path / "photos", names)
    for name in names[3:]:
        with Image.open(tmp_path / "photos" / name) as image:
            image.resize((WIDTH * 3 // 4, HEIGHT * 3 // 4)).save(tmp_path / "photos" / name, quality=95)
    process(tmp_path / "photos", tmp_path / "out", QUICK)
    frames = read_capture(tmp_path / "out").frames
    assert len(frames) == 6
    assert {(frame.intrinsics.width, frame.intrinsics.height) for frame in frames if frame.intrinsics} == {
        (WIDTH, HEIGHT),
        (WIDTH * 3 // 4, HEIGHT * 3 // 4),
    }


def job(photos: Path, work: Path, names: tuple[str, ...] = tuple(NAMES)) -> Job:
    return Job(photos, work, (names,), "exhaustive", "SIMPLE_PINHOLE", 320, 300, 0, 2)


def test_colmap_that_dies_is_one_line_with_its_stage_and_log(photos: Path, tmp_path: Path) -> None:
    def kill(stage: str, done: int, total: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(ValueError, match=r"COLMAP failed during features .*log\.txt") as error:
        reconstruct_in_subprocess(job(photos, tmp_path / "work"), kill)
    assert "\n" not in str(error.value)


def test_colmap_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "work" / "database.db").mkdir(parents=True)
    with pytest.raises(ValueError, match="COLMAP failed during features"):
        reconstruct_in_subprocess(job(tmp_path / "nowhere", tmp_path / "work"), nothing)


def test_pictures_with_nothing_in_common_give_no_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ("a.png", "b.png")
    (tmp_path / "photos").mkdir()
    for name in names:
        noise = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((160, 120)).save(tmp_path / "photos" / name)
    assert reconstruct(job(tmp_path / "photos", tmp_path / "work", names), nothing) is None
    with pytest.raises(ValueError, match="COLMAP could pose none of the 2 pictures"):
        process(tmp_path / "photos", tmp_path / "out", QUICK)
    assert not (tmp_path / "out" / "transforms.json").exists()


def test_pairs_are_counted_as_colmap_makes_them(tmp_path: Path) -> None:
    """Against the pairs that COLMAP's own generator yields."""
    database = pycolmap.Database.open(str(tmp_path / "database.db"))
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=8, height=8, params=[8, 4, 4])
    camera_id = database.write_camera(camera)
    for i in range(40):
        database.write_image(pycolmap.Image(name=f"{i:03d}.jpg", camera_id=camera_id))
    generators = [pycolmap.SequentialPairGenerator(pairing, database) for pairing in sequential_pairings()]
    pairs = {tuple(sorted(pair)) for generator in generators for pair in generator.all_pairs()}
    database.close()
    assert number_of_pairs(40, "sequential") == len(pairs)
    assert number_of_pairs(40, "exhaustive") == len(list(itertools.combinations(range(40), 2)))


def test_cameras_are_shared_by_photos_that_can_come_from_one() -> None:
    taken = [
        InputImage("a", 40, 30),
        InputImage("b", 30, 40),
        InputImage("c", 40, 30),
        InputImage("d", 40, 30, focal_over_diagonal=2.0),
    ]
    assert camera_groups([(photo.name, photo.camera_key) for photo in taken]) == (("a", "c"), ("b",), ("d",))


def test_matching_goes_by_the_number_and_the_order_of_names() -> None:
    few, many = [f"{i:04d}.jpg" for i in range(10)], [f"{i:04d}.jpg" for i in range(500)]
    unpadded = [f"frame_{i}.jpg" for i in range(500)]
    assert chosen_matching("auto", few) == "exhaustive"
    assert chosen_matching("auto", many) == "sequential"
    assert chosen_matching("auto", unpadded) == "exhaustive"
    assert chosen_matching("exhaustive", many) == "exhaustive"
    with pytest.raises(ValueError, match="frame_10 before frame_2"):
        chosen_matching("sequential", unpadded)


def test_few_registered_images_are_said_plainly_with_advice(tmp_path: Path) -> None:
    taken = tuple(InputImage(f"{i:02d}.jpg", 8, 8) for i in range(29))
    mapped = MappingResult(("03.jpg", "04.jpg"), 43, 21.5, 0.29, (2, 2), patient=True)
    text = "\n".join(summary(ProcessResult(tmp_path, InputImages(taken), "sequential", mapped)))
    assert "COLMAP posed 2 of 29 images" in text
    assert "No pose for 27 of 29: 00.jpg, 01.jpg, 02.jpg, 05.jpg" in text
    assert "and 7 more" in text
    assert "fell apart into 2 models" in text
    assert "Only 7% of the images are posed" in text
    assert "--matching exhaustive" in text


def test_a_whole_capture_has_no_advice(tmp_path: Path) -> None:
    taken = tuple(InputImage(f"{i}.jpg", 8, 8) for i in range(10))
    mapped = MappingResult(tuple(photo.name for photo in taken), 900, 300.0, 0.5, (10,), patient=False)
    assert len(summary(ProcessResult(tmp_path, InputImages(taken), "exhaustive", mapped))) == 1


@pytest.mark.parametrize(
    ("flag", "value"), [("max_frames", 1), ("max_features", 0), ("max_image_size", 0), ("threads", -1), ("fps", 0.0)]
)
def test_settings_name_the_flag_and_the_value(flag: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"--{flag.replace('_', '-')} must be .*{value}"):
        ProcessSettings(**{flag: value})


def test_the_output_may_not_hold_the_originals(tmp_path: Path) -> None:
    write_photos(tmp_path / "capture" / "images", ["a.jpg", "b.jpg"])
    before = digest_of(tmp_path)
    for data, out in (("capture", "capture"), ("capture/images", "capture"), ("capture", "capture/images")):
        with pytest.raises(ValueError, match="holds the originals"):
            process(tmp_path / data, tmp_path / out)
    assert digest_of(tmp_path) == before


def test_a_folder_of_somebody_elses_is_not_written_to(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.jpg", "b.jpg"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty, and not of ns-mtcm-process"):
        process(tmp_path / "photos", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_output_folder_among_the_photos_is_not_read_as_photos(tmp_path: Path) -> None:
    write_photos(tmp_path, ["b 10.jpg", "b 2.jpg", "posed/images/b 2.jpg"])
    found = find_input_images(tmp_path, leave_out=tmp_path / "posed")
    assert [path.name for path in found] == ["b 2.jpg", "b 10.jpg"]


def test_photos_that_need_a_decoder_are_named(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(b"heic")
    with pytest.raises(FileNotFoundError, match=r"no photos in it .*convert IMG_1\.HEIC"):
        find_input_images(tmp_path, leave_out=tmp_path / "out")


@pytest.mark.parametrize("readable", [0, 1])
def test_too_few_photos(tmp_path: Path, readable: int) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    write_photos(tmp_path / "photos", ["a.jpg"][:readable])
    with pytest.raises(ValueError, match=rf"{readable} usable picture\(s\) \(1 unreadable\)"):
        process(tmp_path / "photos", tmp_path / "out")


def test_a_link_outlives_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "original").write_text("pixels")
    (tmp_path / "short").symlink_to(tmp_path / "original")
    link_or_copy(tmp_path / "short", tmp_path / "sub" / "placed")
    assert not (tmp_path / "sub" / "placed").is_symlink()
    assert (tmp_path / "sub" / "placed").samefile(tmp_path / "original")


@pytest.mark.slow
def test_a_video_becomes_a_capture_with_its_times(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "walk ü.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 8_000_000
        for pose in walk(10):
            container.mux(stream.encode(av.VideoFrame.from_image(render(pose))))
        container.mux(stream.encode(None))
    settings = ProcessSettings(max_features=300, camera_model="SIMPLE_PINHOLE", threads=2, fps=1.0)
    processed = process(tmp_path / "walk ü.mp4", tmp_path / "out", settings)
    capture = read_capture(tmp_path / "out")
    assert [frame.timestamp for frame in capture.frames] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert len(processed.mapped.registered) == 5
    assert process(tmp_path / "walk ü.mp4", tmp_path / "out", settings) == processed


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(("name", "least", "of"), [("banana", 14, 16), ("lund", 25, 29)])
def test_real_photos(tmp_path: Path, shared_captures: Path, name: str, least: int, of: int) -> None:
    """COLMAP's usual settings pose 2 or 3 of lund's 29; the patient ones nearly all."""
    processed = process(shared_captures / name, tmp_path / "out", ProcessSettings(max_image_size=640))
    assert len(processed.input_images.photos) == of
    assert len(processed.mapped.registered) >= least
    assert len(read_capture(tmp_path / "out")) == len(processed.mapped.registered)
