"""Proves that versions, the changelog, both continuous integrations and the sdist agree with the code."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import minibert

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
OURS = {"minibert", "tests", "benchmarks", "docs", "train_mlm", "train_nli", "evaluate"}


def imported(file: Path) -> set[str]:
    nodes = [*ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def test_every_library_is_pinned() -> None:
    wanted = [*PROJECT["dependencies"], *chain.from_iterable(PROJECT["optional-dependencies"].values())]
    asked = {re.split(r"[\[><=]", requirement)[0] for requirement in wanted} - {"minibert"}
    assert asked <= PINNED
    files = [*ROOT.glob("*.py"), *(file for name in sorted(OURS) for file in (ROOT / name).rglob("*.py"))]
    libraries = set().union(*map(imported, files)) - sys.stdlib_module_names - OURS
    distributions = packages_distributions()
    found = {distributions[library][0].replace("_", "-").lower() for library in libraries if library in distributions}
    assert len(found) > 20
    assert found <= PINNED


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    newest = next(heading for heading in headings if heading != "Unreleased")
    if minibert.__version__.endswith(".dev0"):  # on the way to it
        assert headings[0] == "Unreleased"
        assert not newest.startswith(minibert.__version__.removesuffix("dev0"))
    else:
        assert re.fullmatch(rf"{re.escape(minibert.__version__)} - \d{{4}}-\d\d-\d\d", newest)


def test_both_continuous_integrations_run_the_same() -> None:
    ours = re.findall(r"^(make .*)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert ours == re.findall(r"- run: (make .*)$", workflow, re.MULTILINE) == ["make test", "make lint", "make docs"]
    versions = re.findall(r'"(3\.\d+)"', workflow)
    assert f">={versions[0]}" == PROJECT["requires-python"]
    assert len(versions) > 1


def test_the_wheel_has_all_files_of_the_package() -> None:
    package = ROOT / "minibert"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["minibert"]
    there = {file for file in package.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert there == {file for pattern in patterns for file in package.glob(pattern)}
    assert len(there) > 2


def test_the_sdist_has_all_that_stands_beside_the_package() -> None:
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
    there = {file.name for file in ROOT.iterdir() if file.is_file() and file.name != ".git"}
    by_itself = {"pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"}  # what setuptools adds unasked
    made = {file.name for file in ROOT.glob("*.png")}  # pictures, which git ignores, too
    included = set(" ".join(re.findall(r"^include (.*)", manifest, re.MULTILINE)).split())
    assert there - by_itself - made == included - {".ci/run", ".github/workflows/ci.yml"}
    folders = {file.relative_to(ROOT).parts[0] for file in ROOT.glob("[a-z]*/*.py")} - {"minibert", "build"}
    assert folders == set(re.findall(r"^graft (.*)", manifest, re.MULTILINE))
