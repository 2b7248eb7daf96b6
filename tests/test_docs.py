"""Proves that the reference shows the whole package, and that pages' links lead somewhere, on the site and off it.

That every public module, class, function and method has a docstring is held by `make lint` (ruff's D1 rules), and that
the site can be built without a warning by `make docs`.
"""

import re
import tomllib
from pathlib import Path

import pytest

from docs.site_links import ADDED, LINK, modules, relocated

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def test_every_module_is_in_the_reference() -> None:
    files = {str(file.relative_to(ROOT)) for file in (ROOT / "minibert").rglob("*.py") if file.name != "__init__.py"}
    assert set(modules()) - {"minibert.py"} == files  # and the package itself, for `from_pretrained`


def test_a_missing_docstring_fails_lint() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "D" in rules["select"]
    assert {rule for rule in rules["ignore"] if rule.startswith("D1")} == {"D105", "D107"}  # __magic__, __init__
    assert not any("minibert" in files for files in rules["per-file-ignores"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.finditer(page.read_text(encoding="utf-8")):
        assert (page.parent / link["target"]).exists(), link[0]


def test_every_page_is_on_the_site() -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r"^ +- [^:]+: (\S+\.md)$", settings, re.MULTILINE)) == pages | {
        place for place in ADDED.values() if place.endswith(".md")
    }


@pytest.mark.parametrize(
    ("source", "page", "link", "there"),
    [
        ("README.md", "index.md", "[a](docs/format.md)", "[a](format.md)"),
        ("README.md", "index.md", "[a](LICENSE)", "[a](LICENSE)"),
        ("docs/tour.md", "tour.md", "[a](../README.md#results)", "[a](index.md#results)"),
        ("docs/tour.md", "tour.md", "[a](../minibert/config.py)", "[a](reference/config.md#minibert.config)"),
        ("docs/reference/model.md", "reference/model.md", "[a](../format.md)", "[a](../format.md)"),
        ("docs/log.md", "log.md", "[a](../tests/conftest.py)", "a"),
        ("docs/log.md", "log.md", "[a](../nothing.md)", "[a](../nothing.md)"),
    ],
)
def test_links_on_the_site(source: str, page: str, link: str, there: str) -> None:
    match = LINK.fullmatch(link)
    assert match
    assert relocated(match, source, page) == there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_figure_is_left_to_be_filled_in(page: Path) -> None:
    assert not re.findall(r"@[A-Z]+@|<{7}|>{7}|\bTODO\b", page.read_text(encoding="utf-8"))
