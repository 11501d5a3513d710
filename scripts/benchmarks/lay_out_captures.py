"""Lays out the public captures of data/captures.json from local clones of their repositories.

A clone is looked for at CLONES/owner/name and at CLONES/name. For each capture one line is printed: laid out, already
there, clone missing (with the git command that fetches it at the right commit), or digest differs. Images are resized
and encoded as the originals were, so that their pixels are the same with the same Pillow and OpenCV; of the EXIF only
time, camera, focal length, exposure and orientation are kept. Poses are not laid out.

Usage:
    python scripts/benchmarks/lay_out_captures.py --clones CLONES --out CAPTURES
    python scripts/benchmarks/lay_out_captures.py --clones CLONES --out CAPTURES --captures stitch rooms_walk
"""

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import tyro
from PIL import ExifTags, Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.capture_list import FILE, CaptureEntry, read_capture_list
from mtcm_nerfstudio.cli.errors import clear_errors, in_one_line

_KEPT_TAGS = (ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Orientation)
_KEPT_EXPOSURE_TAGS = (
    ExifTags.Base.DateTimeOriginal,
    ExifTags.Base.SubsecTimeOriginal,
    ExifTags.Base.ExposureTime,
    ExifTags.Base.FNumber,
    ExifTags.Base.ISOSpeedRatings,
    ExifTags.Base.FocalLength,
    ExifTags.Base.FocalLengthIn35mmFilm,
)
_START_OF_SCAN, _COMMENT, _ADOBE = 0xDA, 0xFE, 0xEE
_APPLICATION_DATA = range(0xE1, 0xF0)
_MASK_THRESHOLD = 127


@dataclass(frozen=True)
class LayOut:
    """What to lay out, from where, to where."""

    clones: Path
    """Folder with the clones: owner/name or name below it."""
    out: Path
    """Folder that gets one folder a capture."""
    captures: tuple[str, ...] = ()
    """Names of captures; none means all."""
    list_file: Path = FILE
    """The list of captures."""


def main(settings: LayOut) -> None:
    """Lay out the captures and print one line for each."""
    entries = read_capture_list(settings.list_file)
    if unknown := [name for name in settings.captures if name not in entries]:
        raise ValueError(f"--captures {unknown[0]}: no such capture in {settings.list_file}: {', '.join(entries)}")
    for name in settings.captures or entries:
        print(f"{name}: {lay_out(entries[name], settings.clones, settings.out)}", flush=True)


def lay_out(entry: CaptureEntry, clones: Path, out: Path) -> str:
    """Write a capture's images and masks to ``out/name`` and return what has happened, in one line."""
    images = out / entry.name / "images"
    if images.is_dir():
        same = image_digest(images.iterdir()) == entry.image_sha256
        return "already there" if same else f"digest differs; remove {images.parent} to lay it out anew"
    clone = find_clone(entry, clones)
    if clone is None:
        return f"clone missing: {fetch_command(entry, clones)}"
    try:
        write_images(entry, clone, images)
        write_masks(entry, clone, images.parent / "masks")
    except (OSError, ValueError) as error:
        return f"not laid out: {in_one_line(error)}; {fetch_command(entry, clones)}"
    digest = image_digest(images.iterdir())
    if digest != entry.image_sha256:
        return f"digest differs: {digest}, not {entry.image_sha256} (another commit, Pillow or OpenCV); {_poses(entry)}"
    return f"laid out, {entry.frames} images; {_poses(entry)}"


def find_clone(entry: CaptureEntry, clones: Path) -> Path | None:
    """Return the folder of a capture's repository, None where there is none."""
    folders = (clones / entry.repository, clones / entry.repository.split("/")[1])
    return next((folder for folder in folders if folder.is_dir()), None)


def fetch_command(entry: CaptureEntry, clones: Path) -> str:
    """Return the command that clones a capture's repository at its commit."""
    folder = clones / entry.repository
    url = f"https://github.com/{entry.repository}"
    return f"git clone {url} {folder} && git -C {folder} checkout {entry.commit}"


def write_images(entry: CaptureEntry, clone: Path, folder: Path) -> None:
    """Write a capture's images, named as in the list's ``file_path``.

    Raises:
        ValueError: the repository has another number of images than the capture.
    """
    images = list(_source_images(entry, clone))
    if len(images) != entry.frames:
        raise ValueError(f"{clone} has {len(images)} of {entry.frames} images at {entry.path}")
    folder.mkdir(parents=True)
    for name, source in images:
        if isinstance(source, bytes):
            (folder / name).write_bytes(source)
        elif isinstance(source, Image.Image):
            source.save(folder / name, "JPEG", quality=entry.layout.quality)
        elif entry.layout.method == "lossless":
            (folder / name).write_bytes(reduce_metadata(source))
        else:
            encode(entry, source, folder / name)


def _source_images(entry: CaptureEntry, clone: Path) -> Iterator[tuple[str, Path | bytes | Image.Image]]:
    """Yield the names of a capture's images, with their source files or contents."""
    files = source_files(entry, clone)
    if entry.layout.method == "video":
        yield from video_frames(files[0], entry.layout.every)
    elif entry.layout.method == "mjpeg":
        for number, jpeg in enumerate(split_mjpeg(files[0].read_bytes())):
            yield f"frame_{number:05d}.jpg", jpeg
    else:
        for file in files:
            yield (file.name if file.suffix.lower() == ".jpg" else f"{file.stem}.jpg"), file


def source_files(entry: CaptureEntry, clone: Path) -> list[Path]:
    """Return the files of a clone that a capture is made of, in the order of their names.

    Raises:
        FileNotFoundError: there are none.
    """
    found = {file for pattern in entry.layout.files for file in clone.glob(pattern)}
    files = sorted((file for file in found if file.name not in entry.layout.skip), key=lambda file: file.name)
    if not files:
        raise FileNotFoundError(2, "no image or video here", str(clone / entry.path))
    return files


def encode(entry: CaptureEntry, source: Path, target: Path) -> None:
    """Write an image at the capture's size as JPEG, with few EXIF tags."""
    with Image.open(source) as image:
        exif = reduced_exif(image)
        if entry.layout.draft:
            image.draft("RGB", (max(entry.size),) * 2)
        pixels = image  # as opened, where its own quantization tables are kept
        if entry.layout.quality != "keep":
            pixels = image.convert("RGB")
        if pixels.size != entry.size:
            pixels = pixels.resize(entry.size, Image.Resampling.LANCZOS)
        chroma = {"subsampling": 0} if entry.layout.full_chroma else {}
        pixels.save(target, "JPEG", quality=entry.layout.quality, exif=exif, **chroma)


def video_frames(path: Path, every: int) -> Iterator[tuple[str, Image.Image]]:
    """Yield every how many-th frame of a video, named by its number in the video.

    Raises:
        ValueError: OpenCV cannot read the video.
    """
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise ValueError(f"{path}: OpenCV cannot read this video")
    number = 0
    while True:
        found, bgr = video.read()
        if not found:
            return
        if number % every == 0:
            yield f"frame_{number:05d}.jpg", Image.fromarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
        number += 1


def split_mjpeg(stream: bytes) -> list[bytes]:
    """Return the JPEG files that a motion-JPEG stream consists of."""
    return re.split(rb"(?<=\xff\xd9)(?=\xff\xd8\xff)", stream)


def write_masks(entry: CaptureEntry, clone: Path, folder: Path) -> None:
    """Write the masks of a capture that has any as grey PNG files."""
    if entry.layout.masks is None:
        return
    folder.mkdir(parents=True)
    for file in sorted(clone.glob(entry.layout.masks)):
        if file.name in entry.layout.skip:
            continue
        grey = Image.open(file).convert("L")
        if entry.layout.mask_resampling == "nearest":
            mask = grey.resize(entry.size, Image.Resampling.NEAREST)
        else:
            smooth = grey.resize(entry.size, Image.Resampling.BILINEAR)
            mask = smooth.point([255 * (value > _MASK_THRESHOLD) for value in range(256)])
        mask.save(folder / f"{file.stem}.png")


def image_digest(files: Iterable[Path]) -> str:
    """Return the first 16 hex digits of the SHA-256 of all images' sizes and RGB pixels, in the order of their names.

    Metadata does not count, nor does the EXIF orientation.
    """
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        with Image.open(file) as image:
            digest.update(f"{image.width}x{image.height}".encode())
            digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()[:16]


def reduced_exif(image: Image.Image) -> Image.Exif:
    """Return the few EXIF tags that a capture keeps: no place, no owner, no serial number, no maker's note."""
    full, kept = image.getexif(), Image.Exif()
    kept.update({tag: full[tag] for tag in _KEPT_TAGS if tag in full})
    exposure = full.get_ifd(ExifTags.IFD.Exif)
    kept.get_ifd(ExifTags.IFD.Exif).update({tag: exposure[tag] for tag in _KEPT_EXPOSURE_TAGS if tag in exposure})
    return kept


def reduce_metadata(source: Path) -> bytes:
    """Return a JPEG file's bytes with few EXIF tags and without comments; its pixels stay as they are."""
    with Image.open(source) as image:
        exif = reduced_exif(image).tobytes()
    data = source.read_bytes()
    parts = [data[:2], b"\xff\xe1", (len(exif) + 2).to_bytes(2, "big"), exif]
    at = 2
    while data[at + 1] != _START_OF_SCAN:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _ADOBE or (marker not in _APPLICATION_DATA and marker != _COMMENT):
            parts.append(data[at:end])
        at = end
    return b"".join([*parts, data[at:]])


def _poses(entry: CaptureEntry) -> str:
    """Return how to get the poses that are not laid out."""
    if entry.posed_by is None:
        return "it has no poses"
    if entry.posed_by == "source":
        return "poses are not laid out: convert those of the repository"
    return f"poses are not laid out: {entry.posed_by}; COLMAP does not repeat them exactly"


if __name__ == "__main__":
    with clear_errors():
        main(tyro.cli(LayOut, description=__doc__))
