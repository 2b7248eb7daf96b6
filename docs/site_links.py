"""What the site needs of files that stand outside docs/: hooks of mkdocs, which mkdocs.yml names.

In the repository a page links to files of the repository, and there most people follow it. On the site README.md is the
first page, and a file of the package is its place in the reference.
"""

from __future__ import annotations

import os.path
import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent

# Files of the repository that the site has as well, and where.
ADDED = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "LICENSE": "LICENSE",
    "constraints.txt": "constraints.txt",
}

LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<target>(?![a-z]+:|#)[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
MODULE = re.compile(r"^::: (minibert[\w.]*)$", re.MULTILINE)


def on_files(files: Any, config: Any) -> Any:
    """Add the files that are wanted from outside."""
    for name, place in ADDED.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let a page's links lead to where their targets are on the site."""
    here = page.file.src_uri
    inside = {place: name for name, place in ADDED.items()}.get(here, f"docs/{here}")  # the repository's name for it
    return LINK.sub(lambda link: relocated(link, inside, here), markdown)


def relocated(link: re.Match[str], source: str, page: str) -> str:
    """A link as the site has it. What the site has not got is named, not linked; what nobody has, mkdocs complains of.

    Args:
        link: a match of `LINK`.
        source: the file it stands in, seen from the repository's root.
        page: that file's place on the site.
    """
    name = os.path.normpath(PurePosixPath(source).parent / link["target"])
    place = ADDED.get(name) or modules().get(name)
    if not place and name.startswith("docs/"):
        place = name.removeprefix("docs/")
    if not place:
        return link["text"] if (ROOT / name).exists() else link[0]
    return f"[{link['text']}]({os.path.relpath(place, PurePosixPath(page).parent)}{link['anchor'] or ''})"


@cache
def modules() -> dict[str, str]:
    """Files of the package, and where the reference has them."""
    found = {}
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        for name in MODULE.findall(page.read_text(encoding="utf-8")):
            found[name.replace(".", "/") + ".py"] = f"reference/{page.name}#{name}"
    return found
