import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from red_subject import RedIsTheSubject

from mtcm_nerfstudio.capture.images import mask_area, read_mask
from mtcm_nerfstudio.capture.process.masks import names_of_masks, open_session, subject_mask, write_masks


def red_square(size: tuple[int, int] = (40, 30), box: tuple[int, int, int, int] = (10, 5, 30, 20)) -> Image.Image:
    image = Image.new("RGB", size, (60, 90, 60))
    image.paste((250, 20, 20), box)
    return image


def quiet(done: int) -> None:
    """Nobody is told."""


def test_the_mask_is_the_subject_black_and_white() -> None:
    mask = np.asarray(subject_mask(RedIsTheSubject(), red_square()))
    expected = np.zeros((30, 40), np.uint8)
    expected[5:20, 10:30] = 255
    np.testing.assert_array_equal(mask, expected)


def test_no_subject_is_an_empty_mask_not_an_error() -> None:
    class Nothing:
        def predict(self, img: Image.Image, *args, **kwargs) -> list[Image.Image]:
            return []

    assert np.asarray(subject_mask(Nothing(), red_square())).max() == 0


def test_masks_are_written_once_and_told_of(tmp_path: Path) -> None:
    names = ["a/ü 1.jpg", "a/2.png"]
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        red_square().save(tmp_path / "images" / name)
    session, told = RedIsTheSubject(), []
    written = write_masks(session, tmp_path / "images", names, tmp_path / "masks", told.append)
    assert written == ["a/ü 1.png", "a/2.png"]
    assert told == [1, 2]
    for name in written:
        assert mask_area(tmp_path / "masks" / name) == pytest.approx(0.25, abs=0.02)
        assert read_mask(tmp_path / "masks" / name)[10, 15]
    (tmp_path / "masks" / written[0]).unlink()
    write_masks(session, tmp_path / "images", names, tmp_path / "masks", quiet)
    assert session.seen == 3, "only the missing one is made again"
    assert sorted(path.name for path in (tmp_path / "masks" / "a").iterdir()) == ["2.png", "ü 1.png"]


def test_images_that_share_a_stem_get_masks_of_their_own() -> None:
    assert names_of_masks(["x/1.jpg", "x/1.png", "y/1.jpg"]) == ["x/1.jpg.png", "x/1.png.png", "y/1.png"]


def test_without_rembg_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(ValueError, match=r"pip install 'mtcm_nerfstudio\[masks\]'"):
        open_session()


def test_a_network_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        open_session(str(tmp_path / "nothing.onnx"))


@pytest.mark.slow
def test_a_network_that_cannot_be_fetched_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is closed, so the download fails on every machine."""
    pytest.importorskip("rembg")
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="mask network 'u2netp' cannot be loaded") as error:
        open_session("u2netp")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_network_that_rembg_does_not_know() -> None:
    pytest.importorskip("rembg")
    with pytest.raises(ValueError, match="mask network 'no-such-network' cannot be loaded"):
        open_session("no-such-network")


@pytest.mark.slow
def test_rembg_itself_with_a_small_local_network(tmp_path: Path) -> None:
    """A network of one layer (red minus green), written here in ONNX's format, through rembg's own session class."""
    pytest.importorskip("rembg")
    network = tmp_path / "red minus green.onnx"
    network.write_bytes(red_minus_green())
    mask = np.asarray(subject_mask(open_session(str(network)), red_square((320, 320), (80, 80, 240, 200)))) > 127
    expected = np.zeros((320, 320), bool)
    expected[80:200, 80:240] = True
    assert (mask & expected).sum() / (mask | expected).sum() > 0.95


def red_minus_green() -> bytes:
    """An ONNX model: a 1×1 convolution from 1×3×320×320 to 1×1×320×320 with weights (1, −1, 0)."""
    weights = field(1, 1) + field(1, 3) + field(1, 1) + field(1, 1) + field(2, 1)
    weights += field(8, b"weights") + field(9, struct.pack("<3f", 1.0, -1.0, 0.0))
    node = field(1, b"image") + field(1, b"weights") + field(2, b"mask") + field(4, b"Conv")
    graph = field(1, node) + field(2, b"red minus green") + field(5, weights)
    graph += field(11, tensor(b"image", 3)) + field(12, tensor(b"mask", 1))
    return field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 13))


def tensor(name: bytes, channels: int) -> bytes:
    """ONNX's ValueInfoProto of a float tensor 1 × channels × 320 × 320."""
    shape = b"".join(field(1, field(1, size)) for size in (1, channels, 320, 320))
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def field(number: int, value: int | bytes) -> bytes:
    """One field of a protocol buffer: a varint or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])
