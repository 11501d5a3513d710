import subprocess
import sys
from pathlib import Path

import pytest
from textured_corner import write_photos

from mtcm_nerfstudio.cli import process

SMALL = ("--max-features", "300", "--camera-model", "SIMPLE_PINHOLE", "--threads", "2")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command's exit code."""
    monkeypatch.setattr(sys, "argv", ["ns-mtcm-process", *arguments])
    try:
        process.entrypoint()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def test_photos_become_a_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "photos", [f"{i}.jpg" for i in range(4)])
    out = tmp_path / "my capture"
    assert run(monkeypatch, "--data", str(tmp_path / "photos"), "--output-dir", str(out), *SMALL) == 0
    printed = capsys.readouterr()
    assert "COLMAP posed 4 of 4 images" in printed.out
    assert str(out) in printed.out
    assert "COLMAP: mapping" in printed.err
    assert {path.name for path in out.iterdir()} == {"images", "sparse", "colmap", "transforms.json", "sparse_pc.ply"}


@pytest.mark.parametrize("case", ["nothing there", "no photos", "one photo", "no video", "one image file", "flag"])
def test_a_mistake_is_one_line_and_exit_code_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    expected = {
        "nothing there": "no such file or folder",
        "no photos": "no photos in it",
        "one photo": "1 usable picture(s)",
        "no video": "is not a video that can be read",
        "one image file": "is one photo",
        "flag": "--max-frames must be at least 2, got 1",
    }[case]
    flags = ["--max-frames", "1"] if case == "flag" else []
    if case in ("no photos", "one photo", "flag"):
        data.mkdir()
    if case in ("one photo", "flag"):
        write_photos(data, ["a.jpg"])
    if case == "no video":
        data.write_bytes(b"words, no video")
    if case == "one image file":
        data = tmp_path / "a.jpg"
        write_photos(tmp_path, ["a.jpg"])
    assert run(monkeypatch, "--data", str(data), "--output-dir", str(tmp_path / "out"), *flags) == 2
    printed = capsys.readouterr()
    assert expected in " ".join(printed.err.split())
    assert "Traceback" not in printed.err
    if case != "flag":
        assert len([line for line in printed.err.splitlines() if line.startswith("error: ")]) == 1


def test_help_shows_how_to_use_it() -> None:
    command = [sys.executable, "-m", "mtcm_nerfstudio.cli.process", "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "ns-mtcm-process --data PHOTOS --output-dir CAPTURE" in printed
    for flag in ("--max-frames", "--fps", "--matching", "--masks", "--camera-model"):
        assert flag in printed
