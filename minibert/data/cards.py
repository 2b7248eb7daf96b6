"""What a data set's card says of its files, where that is something else than their names say.

The Hub keeps splits and names of classes in the head of README.md, and once did in dataset_infos.json. Here the files
and their names decide: a card that contradicts them is refused, and not followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from huggingface_hub.repocard import metadata_load

from minibert.config import LABELS
from minibert.data.files import ending, some, split_of
from minibert.errors import UserError
from minibert.files import MOST_TEXT, is_file, read_json


def check_cards(folder: Path, files: Sequence[Path]) -> None:
    """Compare the cards in a folder, and in those below it, with the files that are read of it.

    Raises:
        UserError: a card says other splits, several configurations, or other classes.
    """
    for place in sorted({folder, *(above for file in files for above in file.parents if folder in above.parents)}):
        its = [file for file in files if place in file.parents]
        card = next((entry for entry in sorted(place.iterdir()) if entry.name.lower() == "readme.md"), None)
        said = _head(card) if card else {}
        if card:
            _check_splits(card, said, its)
        infos = place / "dataset_infos.json"
        for source, names in [*_names(card or place, said), *_old_names(infos)]:
            _check_names(source, names, its)


def _head(card: Path) -> dict[str, Any]:
    try:
        return metadata_load(card) or {} if is_file(card, MOST_TEXT) else {}
    except Exception:  # no YAML, no text: a person's notes
        return {}


def _check_splits(card: Path, said: dict[str, Any], files: Sequence[Path]) -> None:
    read: dict[str, None] = {}
    for number, configuration in enumerate(_dicts(said.get("configs"))):
        for split, pattern in _patterns(configuration.get("data_files")):
            for file in files:
                name = file.relative_to(card.parent).as_posix()
                if not fnmatch(name, pattern.removeprefix("./").removeprefix("**/")):
                    continue
                read[str(configuration.get("config_name", number))] = None
                if split is not None and (split_of(split) or split) != split_of(name):
                    raise UserError(
                        f"{card} says that {name} is of the split {split}, which its name does not say: rename it, or"
                        " give the path of the file itself"
                    )
    if len(read) > 1:
        raise UserError(f"{card} has several configurations ({some(list(read))}): give the path of the files of one")


def _patterns(said: Any) -> Iterator[tuple[str | None, str]]:
    """Splits, None where none is named, and patterns of their files: the card has four ways to write them."""
    if isinstance(said, dict):
        said = [{"split": split, "path": paths} for split, paths in said.items()]
    for each in said if isinstance(said, list) else [said]:
        split, paths = (each.get("split"), each.get("path")) if isinstance(each, dict) else (None, each)
        for path in paths if isinstance(paths, list) else [paths]:
            if isinstance(path, str):
                yield split if split is None else str(split), path


def _names(card: Path, said: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    for info in _dicts(said.get("dataset_info")):
        for feature in _dicts(info.get("features")):
            kind = feature.get("dtype")
            if feature.get("name") in ("label", "gold_label") and isinstance(kind, dict):
                yield card, next(iter(_dicts(kind.get("class_label"))), {}).get("names")


def _old_names(infos: Path) -> Iterator[tuple[Path, Any]]:
    try:
        said = read_json(infos, "").values()
    except UserError:  # none, or another program's
        return
    for info in said:
        features = info.get("features") if isinstance(info, dict) else None
        for name in ("label", "gold_label"):
            for feature in _dicts(features.get(name) if isinstance(features, dict) else None):
                yield infos, feature.get("names")


def _check_names(source: Path, names: Any, files: Sequence[Path]) -> None:
    """Numbers mean `LABELS`, unless a file says itself what they mean."""
    listed = [str(name).strip().lower() for name in (names.values() if isinstance(names, dict) else names or [])]
    if not set(listed) & set(LABELS) or tuple(listed[: len(LABELS)]) == tuple(LABELS):
        return
    if unnamed := [file for file in files if not _has_own_names(file)]:
        raise UserError(
            f"{source} says that labels are the numbers of {', '.join(listed)}, but {unnamed[0].name} is read as"
            f" {', '.join(LABELS)}: write the labels as words, and take these names away"
        )


def _has_own_names(file: Path) -> bool:
    if ending(file) == ".arrow":  # by `datasets`, which always writes them
        return True
    try:
        return file.suffix == ".parquet" and b"huggingface" in (pq.read_schema(file).metadata or {})
    except (OSError, ValueError):  # damaged: its reader says so
        return True


def _dicts(value: Any) -> list[dict[str, Any]]:
    """The objects of a list, or the only one."""
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]
