"""A user's mistake is one line and exit code 2; a bug keeps its traceback."""

from pathlib import Path

import pytest

from mtcm_nerfstudio.cli.errors import SHOW_TRACEBACK, clear_errors


def test_a_mistake_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, clear_errors():
        raise ValueError("frame_1.jpg: the pose\n is not a matrix")
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: frame_1.jpg: the pose is not a matrix\n"


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left, clear_errors():
        (tmp_path / "nowhere.json").read_text()
    assert left.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'nowhere.json'}: no such file or directory\n"


def test_own_file_errors_keep_their_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), clear_errors():
        raise FileNotFoundError("images/1.jpg is listed but not there")
    assert capsys.readouterr().err == "error: images/1.jpg is listed but not there\n"


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(KeyError), clear_errors():
        {}["key"]


def test_the_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHOW_TRACEBACK, "1")
    with pytest.raises(ValueError), clear_errors():
        raise ValueError("broken")


def test_ctrl_c_has_the_code_of_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, clear_errors():
        raise KeyboardInterrupt
    assert left.value.code == 130
    assert "Traceback" not in capsys.readouterr().err
