"""The report: one page that opens anywhere, shows every frame, and is read on a phone."""

import re
from dataclasses import replace

import numpy as np
import pytest
from browser import needs_browser, page
from tiny_capture import edit_transforms, orbit, write_transforms

from mtcm_nerfstudio.decision_files import current_decisions
from mtcm_nerfstudio.filter_report import diversity_lines, diversity_of, write_report
from mtcm_nerfstudio.filter_settings import FilterSettings
from mtcm_nerfstudio.report.page import anchor
from mtcm_nerfstudio.report.svg_charts import Scatter, histogram_svg, scatter_svg

COUNT = 16


@pytest.fixture
def result(tmp_path):
    """A capture with a dropped, a repaired and a missing frame, and names that a page must not trip over."""
    folder = write_transforms(tmp_path / "a <b> & “c”", orbit(COUNT))
    strange = "images/<i>“0003”&amp;.png"

    def rename(meta):
        (folder / meta["frames"][3]["file_path"]).rename(folder / strange)
        meta["frames"][3]["file_path"] = strange
        meta["frames"][7]["file_path"] = "images/gone.png"

    edit_transforms(folder, rename)
    found = current_decisions(folder, FilterSettings(suggest=3), progress=False)
    frames = list(found.decisions.frames)
    pose = tuple(tuple(float(number) for number in row) for row in np.eye(4))
    frames[5] = replace(frames[5], kept=False, reason="blur", inconsistency=0.97, most_at_odds_with=frames[6].file_path)
    frames[9] = replace(frames[9], kept=True, reason="pose", inconsistency=0.9, repaired_transform_matrix=pose)
    return replace(found, decisions=replace(found.decisions, frames=tuple(frames)))


def test_it_is_one_file_without_a_word_from_elsewhere(result):
    path = write_report(result, diversity_of(result))
    text = path.read_text(encoding="utf-8")
    assert path.name == "report.html" and not re.search(r'(?:src|href)="(?:https?:)?//', text)
    assert "<i>“0003”" not in text and str(result.capture.root) not in text
    for name in ("filtered_views.json", "filtered_views.csv", "pose_embeddings.npy"):
        assert f'href="{name}"' in text


def test_the_same_result_gives_the_same_bytes(result):
    first = write_report(result, diversity_of(result)).read_bytes()
    assert write_report(result, diversity_of(result)).read_bytes() == first


@needs_browser
def test_in_a_browser_frames_are_sorted_found_and_linked(result):
    path = write_report(result, diversity_of(result))
    with page() as tab:
        tab.goto(path.as_uri())
        assert tab.locator(".card").count() == COUNT
        scores = [float(text.split()[1]) for text in tab.locator(".card .words > small").all_inner_texts()]
        assert scores == sorted(scores, reverse=True)
        tab.select_option("#verdict", "dropped")
        dropped = [frame for frame in result.decisions.frames if not frame.kept]
        assert tab.locator(".card:visible").count() == len(dropped)
        assert tab.locator("#count").inner_text() == f"{len(dropped)} of {COUNT}"
        tab.select_option("#reason", "blur")
        assert tab.locator(".card:visible").count() == 1
        tab.locator(".card:visible .odd").click()  # leads to a kept frame, which the filter hides
        tab.locator(".card:target").wait_for(state="visible")  # the page hears of its new address a moment later
        tab.fill("#search", "“0003”")
        assert tab.locator(".card:visible").count() == 1
        tab.fill("#search", "")
        assert tab.locator(".card > img").count() == COUNT - 1 and tab.locator(".absent").count() == 1
        for image in tab.locator(".card img").all():
            image.scroll_into_view_if_needed()  # pictures load when they come into sight
            image.evaluate("image => image.decode()")  # fails for one that is broken
        assert tab.complaints == []


@needs_browser
def test_on_a_phone_nothing_sticks_out(result):
    path = write_report(result, diversity_of(result))
    with page(width=360, height=740) as tab:
        tab.goto(path.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        assert tab.complaints == []


def test_the_table_says_what_was_lost(result):
    lines = diversity_lines(diversity_of(result))
    assert lines[0].split() == ["all", "kept", "kept", "+", "suggested"]
    assert lines[1].split()[0] == "views"


def test_charts_place_what_they_show():
    verdicts = ("kept", "dropped", "repaired", "suggested", "kept")
    places = np.array([0.0, 1.0, 2.0, 3.0, np.nan])
    scatter = Scatter("t", "x", "y", places, places**2, verdicts, tuple("abcde"), ("l", None, None, None, None))
    drawn = scatter_svg(scatter)
    assert drawn.count("<title>") == 4 and drawn.count("<a href") == 1
    assert scatter_svg(replace(scatter, x=np.full(5, np.nan))) == ""
    one = replace(scatter, x=np.full(5, 2.0), y=np.full(5, 2.0), equal=True)
    assert "nan" not in scatter_svg(one)
    bars = histogram_svg(np.array([0.01, 0.02, 0.99]), 0.5)
    assert bars.count("kept-bar") == 1 and bars.count("dropped-bar") == 1


def test_anchors_are_fit_for_a_page():
    assert re.fullmatch(r"[\w%.~-]+", anchor("images/ü b<c>.jpg"))
