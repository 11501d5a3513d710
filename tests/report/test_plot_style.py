from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtcm_nerfstudio.report.frame_axis import LONGEST_NAME, axis_inches, frame_names, named_positions
from mtcm_nerfstudio.report.plot_style import headline, new_figure, printable, save_figure, shortened

pytestmark = pytest.mark.filterwarnings("error")


def test_only_png_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"picture\.pdf.*\.png"):
        save_figure(new_figure(2.0, 2.0), tmp_path / "picture.pdf")


def test_a_written_picture_leaves_nothing_else_behind(tmp_path: Path) -> None:
    save_figure(new_figure(2.0, 2.0), tmp_path / "a" / "b" / "picture.png")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["picture.png"]


@pytest.mark.parametrize("name", ["Ñandú Αθηνά Анна", "北京 東京", "$x_1$ and $", "tab\there", "עברית", "😀", "\udce4"])
def test_any_name_can_be_written_without_a_warning(name: str, tmp_path: Path) -> None:
    figure = new_figure(3.0, 2.0)
    headline(figure, f"Frames of {name}")
    save_figure(figure, tmp_path / "picture.png")


def test_what_no_font_has_becomes_a_box_and_the_rest_stays() -> None:
    assert printable("Анна_\ue000\n.jpg") == "Анна_▯▯.jpg"


@given(text=st.text(), longest=st.integers(3, 30))
def test_shortened_texts_keep_their_ends(text: str, longest: int) -> None:
    short = shortened(text, longest)
    assert len(short) <= longest
    assert short == text or (short[0] == text[0] and short[-1] == text[-1] and "…" in short)


def test_names_lose_what_all_frames_share() -> None:
    assert frame_names(["raw/Anna B/1.jpg", "raw/Anna B/2.jpg"]) == ("1", "2")
    assert frame_names(["left/1.jpg", "right/1.jpg"]) == ("left/1", "right/1")
    assert frame_names(["1.jpg", "1.png"]) == ("1.jpg", "1.png")
    assert frame_names(["images/1.jpg"]) == ("1",)


@given(st.lists(st.text("ab/._é北1", min_size=1, max_size=12), max_size=8))
def test_every_frame_has_a_short_name(file_paths: list[str]) -> None:
    names = frame_names(file_paths)
    assert len(names) == len(file_paths)
    assert all(len(name) <= LONGEST_NAME for name in names)


@given(n=st.integers(1, 100_000), inches=st.floats(1, 15), dropped=st.sets(st.integers(0, 99_999), max_size=50))
def test_named_frames_are_bounded_in_order_and_apart(n: int, inches: float, dropped: set[int]) -> None:
    first = np.isin(np.arange(n), list(dropped))
    shown = named_positions(n, inches, first)
    room = inches / 0.135
    assert 1 <= len(shown) <= room + 1
    assert (np.diff(shown) >= min(1, n / room)).all()
    if first.any() and len(shown) < n:
        assert first[shown].any()


def test_axes_grow_with_the_capture_and_end() -> None:
    assert axis_inches(3) == axis_inches(12) < axis_inches(60) < axis_inches(110) <= axis_inches(10_000) == 15.0
