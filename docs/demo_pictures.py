#!/usr/bin/env python3
"""The screenshots of `flexiast demo`: python docs/demo_pictures.py writes docs/demo.png and docs/demo-phone.png.

Take them on a machine that does nothing else: the milliseconds in them are measured then.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
SOUND = ROOT / "notebooks" / "seven.wav"
SETTLED = 3000
"""Milliseconds that the page gets to end its animations."""


def answered(browser: Browser, address: str, **how: Any) -> Page:
    """A page that has answered for the sound at patch size 16. how: its screen, see `Browser.new_context`."""
    page = browser.new_context(**how).new_page()
    page.set_default_timeout(120_000)
    page.goto(address)
    page.wait_for_selector("#answer .fx-hint")
    page.set_input_files("#sound input[type=file]", SOUND)
    page.wait_for_selector("#answer .fx-facts:has-text('patch size 16')")
    return page


def take(page: Page, file: Path, first: str | None, last: str) -> None:
    """Write the page from one element (default: its top) to the end of another as a picture, when it has settled."""
    page.wait_for_function("document.querySelectorAll('#table tr').length > 6")
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(0, 0)
    page.wait_for_timeout(SETTLED)
    above = page.get_by_text(first, exact=True).bounding_box() if first else None
    below = page.locator(last).first.bounding_box()
    assert below is not None
    assert page.viewport_size is not None
    top = above["y"] - 16 if above else 0
    size = {"width": page.viewport_size["width"], "height": below["y"] + below["height"] + 16 - top}
    page.screenshot(path=file, full_page=True, clip={"x": 0, "y": top, **size})


def shoot(address: str, folder: Path) -> None:
    """Both pictures: a desk, light, patch size 12; a phone, dark, a cascade."""
    with sync_playwright() as engine:
        installed = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
        browser = engine.chromium.launch(executable_path=next(installed, None), args=["--no-sandbox"])
        page = answered(browser, address, viewport={"width": 1120, "height": 1100}, color_scheme="light")
        page.focus("#size input[type=range]")
        for _ in range(4):
            page.keyboard.press("ArrowLeft")
        page.wait_for_selector("#answer .fx-facts:has-text('patch size 12')")
        take(page, folder / "demo.png", None, "#pictures")
        phone = {"viewport": {"width": 390, "height": 1300}, "device_scale_factor": 1.3, "color_scheme": "dark"}
        page = answered(browser, address, **phone)
        page.get_by_label("Cascade", exact=True).check()
        page.wait_for_selector("#answer .fx-facts:has-text('patch size 48')")
        take(page, folder / "demo-phone.png", "Choose by", "#pictures figure")
        browser.close()


def main() -> None:
    """Serve the page, take the pictures, end it."""
    command = [sys.executable, "-m", "flexiast.cli", "demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            (address,) = re.findall(r"open (http://127\.0\.0\.1:\d+/)", server.stdout.readline())
            shoot(address, ROOT / "docs")
        finally:
            server.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
