"""The page in a real browser: what is clicked is done, what is done is seen, and two pages agree."""

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import viser
from browser import click_until, needs_browser, pages
from looked_at import COUNT, FILES, looked_at, on_disk
from tiny_capture import orbit, write_colmap

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.viewer.capture_scene import build_scene
from mtcm_nerfstudio.viewer.capture_viewer import CaptureViewer
from mtcm_nerfstudio.viewer.serve import first_eye, serve_viewer
from mtcm_nerfstudio.viewer.session import Session
from mtcm_nerfstudio.viewer.thumbnail_cache import ThumbnailCache

pytestmark = [pytest.mark.slow, needs_browser]
PATIENCE = 60_000  # ms: tests run side by side, and WebGL in software


@pytest.fixture
def result(tmp_path):
    return looked_at(tmp_path)


@contextmanager
def opened(result, count=1, **size):
    with serve_viewer(result, port=7420) as viewer, pages(count, **size) as found:
        for page in found:
            page.set_default_timeout(PATIENCE)
            page.goto(viewer.page)
            page.wait_for_selector("tr[data-frame]")
            page.wait_for_function("document.querySelector('[data-count=kept]')")
        yield viewer, *found
        for page in found:
            assert page.complaints == []


def count(page, verdict: str) -> int:
    return int(re.search(r"\d+", page.inner_text(f"[data-count={verdict}]"))[0])


def wait_for_count(page, verdict: str, expected: int) -> None:
    page.wait_for_function(
        f"document.querySelector('[data-count={verdict}]').textContent.match(/\\d+/)[0] === '{expected}'"
    )


def test_a_decision_by_keyboard_and_by_button_is_on_disk_and_in_every_page(result):
    with opened(result, 2) as (_, one, other):
        assert count(one, "dropped") == 2 and count(one, "repaired") == 1
        one.keyboard.press("n")
        one.wait_for_selector("tr[data-frame='3'][aria-selected=true]")
        other.wait_for_selector("tr[data-frame='3'][aria-selected=true]")
        one.keyboard.press("k")
        wait_for_count(other, "dropped", 1)
        assert on_disk(result, 3) == (True, "person")
        other.click("button[data-action=undo]")
        wait_for_count(one, "dropped", 2)
        assert on_disk(result, 3) == (False, "model")
        other.click("tr[data-frame='9']")
        one.wait_for_selector("tr[data-frame='9'][aria-selected=true]")
        one.keyboard.press("d")
        one.wait_for_function("document.getElementById('message').textContent.includes('dropped, written')")
        assert on_disk(result, 9) == (False, "person")
        assert "foreign" not in (result.output_dir / "filtered_images.txt").read_text()


def test_keys_that_follow_each_other_fast_are_about_the_frame_that_they_led_to(result):
    with opened(result) as (viewer, page):
        for key in "npndd":  # the worst, round to the least, the worst again, which is dropped already
            page.keyboard.press(key)
        page.keyboard.press("n")
        page.keyboard.press("k")
        wait_until(lambda: on_disk(result, 9) == (True, "person"))
        assert on_disk(result, 3) == (False, "person")
        assert len(decisions_file.read(viewer.session.path).manual_decisions) == 2


def test_the_threshold_recolours_and_writes_nothing(result):
    before = (result.output_dir / decisions_file.FILE_NAME).read_text()
    with opened(result) as (viewer, page):
        page.focus("#threshold")
        page.keyboard.press("Home")
        wait_for_count(page, "dropped", COUNT - 1)  # all but the repaired one
        assert "tried out" in page.inner_text("#value")
        assert viewer.session.state.verdicts.count("dropped") == COUNT - 1
        page.keyboard.press("End")
        wait_for_count(page, "dropped", 0)
    assert (result.output_dir / decisions_file.FILE_NAME).read_text() == before


def test_the_panel_in_another_programs_viewer_decides_as_often_as_it_is_pressed(result):
    """As in ns-train, which has no page of ours around the scene."""
    session = Session(result.output_dir / decisions_file.FILE_NAME)
    what = build_scene(result.capture)
    server = viser.ViserServer(port=7620, verbose=False)
    viewing = CaptureViewer(server, session, what, ThumbnailCache(what.images), table="http://localhost:1")
    try:
        with pages(1) as (page,):
            page.set_default_timeout(PATIENCE)
            page.goto(f"http://localhost:{server.get_port()}")
            for index in (5, 6):
                session.select(index)
                page.get_by_text(FILES[index].rsplit("/")[-1]).first.wait_for()
                page.get_by_role("button", name="Drop").click()
                wait_until(lambda index=index: on_disk(result, index) == (False, "person"))
            for index in (6, 5):
                page.get_by_role("button", name="Undo").click()
                wait_until(lambda index=index: on_disk(result, index) == (True, "model"))
            assert page.complaints == []
    finally:
        viewing.stop()
        server.stop()


def wait_until(holds) -> None:
    end = time.monotonic() + PATIENCE / 1000
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_is_drawn_sends_no_threshold_back(result):
    with opened(result) as (viewer, page):
        for threshold in np.linspace(0.1, 0.9, 30).round(2).tolist():
            viewer.session.preview_threshold(threshold)
            page.wait_for_timeout(20)
        page.wait_for_timeout(1500)
        assert viewer.session.state.threshold == threshold


def listed(page, expected: list[int]) -> None:
    """Wait until the table begins with these frames (an exact list where it is shorter than the screen)."""
    page.wait_for_function(
        """expected => JSON.stringify([...document.querySelectorAll("tr[data-frame]")].slice(0, expected.length || 1)
             .map(row => Number(row.dataset.frame))) === JSON.stringify(expected)""",
        arg=expected,
    )


def test_the_table_sorts_searches_and_filters(result):
    with opened(result) as (_, page):
        listed(page, [3, 9])
        page.click("th:has-text('frame')")
        listed(page, list(range(10)))  # frame_2 comes before frame_10
        page.fill("#search", "frame_12")
        listed(page, [11])
        assert page.inner_text("#shown") == f"1 of {COUNT}"
        page.fill("#search", "")
        page.select_option("#reason", "foreign")
        listed(page, [9])
        page.select_option("#reason", "=repaired")
        listed(page, [15])
        page.fill("#search", "no such frame")
        listed(page, [])


def test_a_click_on_a_camera_in_the_scene_looks_at_its_frame(result):
    with opened(result, width=1400, height=800) as (viewer, page):
        canvas = page.frame_locator("#scene").locator("canvas").nth(1)  # the first one is behind the scene
        canvas.wait_for()
        page.wait_for_timeout(5000)
        box = canvas.bounding_box()
        what = build_scene(result.capture)
        for index in (20, 2):
            x, y = on_screen(what, result, index, box["width"] / box["height"])
            at = box["x"] + x * box["width"], box["y"] + y * box["height"]
            click_until(page, at, f"tr[data-frame='{index}'][aria-selected=true]", PATIENCE)
            assert viewer.session.state.selected == index
            page.keyboard.press("d")  # the keyboard is the table's again
            wait_until(lambda index=index: on_disk(result, index) == (False, "person"))


def test_frames_are_marked_by_a_rectangle_and_by_what_they_see_and_decided_together(result):
    root = result.capture.root
    write_colmap(root, orbit(COUNT), text=True)
    around = np.random.default_rng(0).normal(0, 0.02, (60, 3))  # where the cameras look
    lines = [f"{i + 1} {x} {y} {z} 0 0 0 1.0 1 0 2 0\n" for i, (x, y, z) in enumerate(around)]
    (root / "sparse/0/points3D.txt").write_text("".join(lines))
    what = build_scene(result.capture)
    with opened(result, width=1400, height=800) as (viewer, page):
        canvas = page.frame_locator("#scene").locator("canvas").nth(1)
        canvas.wait_for()
        page.wait_for_timeout(5000)
        box = canvas.bounding_box()
        aspect = box["width"] / box["height"]
        places = np.array([of_page(what, pose[:3, 3], aspect) for pose in what.used(result.decisions)])
        corner, across = np.array([box["x"], box["y"]]), np.array([box["width"], box["height"]])
        page.keyboard.press("b")
        page.wait_for_function("document.getElementById('message').textContent.includes('rectangle')")
        wait_for_pointing(page)
        low, high = places[2] - 0.03, places[2] + 0.03
        inside = [i for i, place in enumerate(places) if (place >= low).all() and (place <= high).all()]
        page.mouse.move(*(corner + low * across))
        page.mouse.down()
        page.mouse.move(*(corner + high * across), steps=5)
        page.mouse.up()
        page.wait_for_selector("#marked:not([hidden])")
        listed(page, sorted(inside, key=lambda i: -result.decisions.frames[i].inconsistency))
        page.click("button[data-action='drop marked']")
        wait_until(lambda: all(on_disk(result, i) == (False, "person") for i in inside))
        assert [i for i in range(COUNT) if on_disk(result, i)[1] == "person"] == inside
        page.wait_for_selector("#marked", state="hidden")
        page.keyboard.press("u")
        wait_until(lambda: on_disk(result, 2) == (True, "model"))
        page.keyboard.press("s")
        page.wait_for_function("document.getElementById('message').textContent.includes('who sees')")
        wait_for_pointing(page)
        middle = of_page(what, what.points.mean(axis=0), aspect)
        page.mouse.click(*(corner + middle * across))
        page.wait_for_selector("#marked:not([hidden])")
        assert viewer.session.state.marked == tuple(range(COUNT))
        page.keyboard.press("Escape")
        page.wait_for_selector("#marked", state="hidden")


def wait_for_pointing(page) -> None:
    """Wait until the scene has heard, on a wire of its own, that it is pointed at; before, a drag turns the camera."""
    canvas = page.frame_locator("#scene").locator("canvas").nth(1)
    wait_until(lambda: canvas.evaluate("canvas => canvas.style.cursor") == "pointer")


def on_screen(what, result, index: int, aspect: float) -> np.ndarray:
    """Where the middle of a frame's picture is for a page that has just been opened."""
    pose = what.used(result.decisions)[index]
    return of_page(what, pose[:3, 3] - 0.9 * what.size * pose[:3, 2], aspect)


def of_page(what, point: np.ndarray, aspect: float, fov: float = np.radians(75.0)) -> np.ndarray:
    """Where a point is for a page that has just been opened (viser's own field of view)."""
    eye = first_eye(what)
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    away = point - eye
    depth = away @ forward * np.tan(0.5 * fov)
    return 0.5 + 0.5 * np.array([away @ right / depth / aspect, away @ np.cross(right, forward) / depth * -1.0])


def test_the_command_prints_its_address_and_stops_cleanly(result):
    line = [sys.executable, "-m", "mtcm_nerfstudio.cli.view", "--data", str(result.capture.root), "--port", "7520"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        while "Ctrl-C" not in said:
            said += process.stdout.readline()
            assert process.poll() is None, process.stderr.read()
        address = re.search(r"page: (http://127\.0\.0\.1:\d+)", said)[1]
        with pages() as (page,):
            page.goto(address, timeout=PATIENCE)
            page.wait_for_selector("tr[data-frame]", timeout=PATIENCE)
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0
            assert time.monotonic() - start < 15
    finally:
        process.kill()
    rest, errors = process.communicate()
    assert rest.strip().endswith("stopped") and "Traceback" not in errors
