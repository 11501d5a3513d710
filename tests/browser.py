"""A real browser for the tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"),
)
OF_VISER = ("computeBoundingSphere",)
"""Errors that viser 0.2.7 logs on any page: the bounds of an empty instanced mesh. It asks for a font, too."""
OURS = ("http://127.0.0.1", "http://localhost")

# Continuous integration sets this: there a test of a page fails without a browser.
needs_browser = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("MTCM_NEEDS_BROWSER"), reason="no Chromium on this machine"
)


@contextmanager
def pages(count: int = 1, width: int = 1280, height: int = 800) -> Iterator[list]:
    """Blank pages that may ask this machine for anything; errors that are not viser's are in ``page.complaints``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield [_listened_to(browser.new_page(viewport={"width": width, "height": height})) for _ in range(count)]
        finally:
            browser.close()


def _listened_to(opened):
    def note(text: str) -> None:
        if not any(known in text for known in OF_VISER):
            opened.complaints.append(text)

    opened.complaints = []
    opened.on("pageerror", lambda error: note(str(error)))
    opened.on("console", lambda said: note(said.text) if said.type == "error" and not _of_elsewhere(said) else None)
    return opened


def _of_elsewhere(said) -> bool:
    """Whether an error is about what another machine did not send."""
    return "net::ERR_" in said.text and not said.location.get("url", "").startswith(OURS)


@contextmanager
def page(width: int = 1280, height: int = 900) -> Iterator:
    """A blank page whose errors are collected in ``page.complaints``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": width, "height": height})
        opened.complaints = []
        opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.on("console", lambda said: opened.complaints.append(said.text) if said.type == "error" else None)
        opened.on("request", lambda asked: _no_network(opened, asked.url))
        try:
            yield opened
        finally:
            browser.close()


def _no_network(opened, url: str) -> None:
    if url.startswith("http"):
        opened.complaints.append(f"asked for {url}")


def click_until(page, at: tuple[float, float], selector: str, patience: int) -> None:
    """Click a place of a scene until that shows: while a scene is drawn, in software, it answers no click.

    ``patience`` is in milliseconds.
    """
    from playwright.sync_api import TimeoutError as StillHidden

    for _ in range(patience // 5000):
        page.mouse.click(*at)
        with suppress(StillHidden):
            page.wait_for_selector(selector, timeout=5000)
            return
    raise AssertionError(f"{selector} did not show after clicks at {at}")
