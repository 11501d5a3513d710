import pytest
from tiny_capture import orbit, write_transforms

from mtcm_nerfstudio.cli.filter import entrypoint


@pytest.fixture
def command(monkeypatch):
    def run(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["ns-mtcm-filter", *arguments])
        entrypoint()

    return run


def test_it_prints_what_it_decided_and_where_it_is(command, tmp_path, capsys):
    capture = write_transforms(tmp_path / "capture", orbit(9))
    command("--data", str(capture), "--threshold", "1.0")
    out = capsys.readouterr().out
    assert out.startswith("MTCM: capture: kept 9 of 9 frames, dropped none\n")
    assert str(capture / "mtcm" / "filtered_views.json") in out


def test_a_dry_run_prints_the_same_and_writes_nothing(command, tmp_path, capsys):
    capture = write_transforms(tmp_path / "capture", orbit(9))
    command("--data", str(capture), "--dry-run")
    dry = capsys.readouterr().out
    assert not (capture / "mtcm").exists()
    command("--data", str(capture))
    assert capsys.readouterr().out.startswith(dry)


def test_the_kept_frames_leave_as_a_capture_of_their_own(command, tmp_path):
    capture = write_transforms(tmp_path / "capture", orbit(9))
    command("--data", str(capture), "--threshold", "1.0", "--export-capture", str(tmp_path / "out"))
    assert (tmp_path / "out" / "transforms.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "error: nowhere: no such file or folder"),
        (["--data", ".", "--threshold", "2"], "--threshold must lie in [0, 1], got 2.0"),
    ],
)
def test_wrong_input_is_one_clear_line_and_code_2(command, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_shows_how_it_is_used(command, capsys):
    with pytest.raises(SystemExit) as caught:
        command("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "ns-mtcm-filter --data CAPTURE" in text and "--max-drop-share" in text and "--filter." not in text
