"""The machine's own Chromium, driven through Playwright; and, as a program, a screenshot of the page that is open.

python -m tests.browser http://127.0.0.1:7860 docs/images/page.png ["text of an example to click"]
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Page, expect, sync_playwright

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60_000  # milliseconds, of a machine that has much else to do


def chromium() -> str | None:
    """Its path, if it is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def opened(address: str, asked: list[str]) -> Iterator[Page]:
    """A page in a browser that has never been used before; all addresses that are asked for go into `asked`."""
    expect.set_options(timeout=PATIENCE)
    with TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile, sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium(), args=FLAGS, viewport={"width": 1120, "height": 1000}
        )
        browser.on("request", lambda request: asked.append(request.url))
        page = browser.pages[0]
        page.goto(address, timeout=PATIENCE)
        yield page
        browser.close()


def screenshot(page: Page, file: Path) -> None:
    """The whole page, with the pointer over nothing and all that moves come to rest."""
    page.mouse.move(1, 1)
    page.wait_for_timeout(1_000)
    file.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=file, full_page=True, animations="disabled")


def main(address: str, file: str, example: str | None = None) -> None:
    """Open the page, click an example if one is named, wait for the answer, keep what is seen."""
    with opened(address, []) as page:
        picture = page.locator("#attention img")
        expect(picture).to_be_visible()
        if example is not None:
            before = picture.get_attribute("src")
            page.get_by_text(example, exact=True).click()
            expect(picture).not_to_have_attribute("src", before or "")
        screenshot(page, Path(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
