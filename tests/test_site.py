"""Proves that the reference site works as opened from the disk: search, links, previous and next, folded solutions."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser import opened
from tests.test_page import need_browser

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def test_the_site_from_the_disk(tmp_path: Path) -> None:
    need_browser()
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    subprocess.run(build, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=True)
    asked: list[str] = []
    with opened((tmp_path / "site" / "index.html").as_uri(), asked) as page:
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        for title, chapter in (("minibert", "tour.html"), ("The tour - minibert", "using.html")):
            expect(page).to_have_title(title)
            page.locator(".md-footer__link--next").click()
            expect(page).to_have_url((tmp_path / "site" / chapter).as_uri())
        page.locator(".md-footer__link--prev").click()

        solution = page.locator("details").first
        expect(solution.locator("pre").first).to_be_hidden()
        solution.locator("summary").click()
        expect(solution.locator("pre").first).to_be_visible()

        page.get_by_role("link", name="bert.py", exact=True).first.click()  # to a page in a folder, and from there:
        expect(page).to_have_url((tmp_path / "site" / "reference" / "model.html").as_uri() + "#minibert.bert")
        page.locator(".md-search__input").click()
        page.keyboard.type("Latin square")  # minibert.toy's
        found = page.locator(".md-search-result__link").first
        expect(found).to_be_visible()
        found.click()
        expect(page).to_have_url(re.compile(r"/site/reference/data\.html"))
    assert not errors
    assert {address.partition(":")[0] for address in asked} <= {"file", "data", "blob"}
