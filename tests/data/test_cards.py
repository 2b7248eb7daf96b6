"""Proves that a card which contradicts files or their names is refused, and any other is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from minibert.config import LABELS
from minibert.data.pairs import Reading, load_pairs
from minibert.errors import UserError
from tests.data.rows import write

ROWS: list[dict[str, Any]] = [{"premise": f"p{i}", "hypothesis": "h", "label": i % 3} for i in range(6)]


def read(folder: Path, card: Any, *names: str, place: str = "README.md") -> int:
    """How many training pairs are read of files with these names, beside a card."""
    for number, name in enumerate(names):
        write(folder / name, ROWS[number:])
    (folder / place).write_text(card if isinstance(card, str) else f"---\n{json.dumps(card)}\n---\n# Some data\n")
    return len(load_pairs(str(folder), "train", max_pairs=0, seed=1))


def files(said: Any) -> dict[str, Any]:
    return {"configs": [{"config_name": "default", "data_files": said}]}


def classes(*names: str) -> dict[str, Any]:
    named = {"class_label": {"names": {str(number): name for number, name in enumerate(names)}}}
    return {"dataset_info": [{"features": [{"name": "premise", "dtype": "string"}, {"name": "label", "dtype": named}]}]}


@pytest.mark.parametrize(
    "said",
    [
        [{"split": "train", "path": "a.csv"}, {"split": "test", "path": ["b.csv"]}],
        {"test": "b.csv"},
        [{"split": "validation", "path": "*.csv"}],
        [{"split": "hans", "path": "./a.csv"}],
    ],
)
def test_other_splits(tmp_path: Path, said: Any) -> None:
    message = r"README\.md says that [ab]\.csv is of the split \w+, but it is read for train: give"
    with pytest.raises(UserError, match=message):
        read(tmp_path, files(said), "a.csv", "b.csv")


def test_several_configurations(tmp_path: Path) -> None:
    said = {"configs": [{"config_name": name, "data_files": f"{name}/*"} for name in ("en", "fr")]}
    with pytest.raises(UserError, match=r"readme\.md has several configurations \(en, fr\): give the path"):
        read(tmp_path, said, "en/train.csv", "fr/train.csv", place="readme.md")
    assert len(load_pairs(str(tmp_path / "en"), "train", max_pairs=0, seed=1)) == 6
    nameless = {"configs": [{"data_files": "en/*"}, {"data_files": {"train": "fr/*"}}]}
    with pytest.raises(UserError, match=r"README\.md has several configurations \(0, 1\)"):
        read(tmp_path / "nameless", nameless, "en/train.csv", "fr/train.csv")


@pytest.mark.parametrize(
    "names", [["contradiction", "entailment", "neutral"], ["Entailment", "not_entailment"], ["-", *LABELS]]
)
def test_other_classes(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(UserError, match=r"says that labels are the numbers of .*, but train\.csv is read as entail"):
        read(tmp_path / "card", classes(*names), "train.csv")
    old = json.dumps({"default": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})
    with pytest.raises(UserError, match=r"dataset_infos\.json says that labels are the numbers of"):
        read(tmp_path / "old", old, "train.csv", place="dataset_infos.json")
    text = datasets.Value("string")
    features = datasets.Features({"premise": text, "hypothesis": text, "label": datasets.ClassLabel(names=[*LABELS])})
    (tmp_path / "own").mkdir()
    datasets.Dataset.from_list(ROWS, features=features).to_parquet(str(tmp_path / "own" / "train.parquet"))
    assert read(tmp_path / "own", classes(*names)) == 6  # the file says itself what its numbers mean


def test_classes_in_another_order_than_the_labels_that_are_named(tmp_path: Path) -> None:
    """Numbers of labels of one's own, too."""
    rows = [{**row, "label": i % 2} for i, row in enumerate(ROWS)]
    write(tmp_path / "train.csv", rows)
    (tmp_path / "README.md").write_text(f"---\n{json.dumps(classes('different', 'Duplicate'))}\n---\n")
    right, wrong = (Reading(labels=names) for names in (("different", "duplicate"), ("duplicate", "different")))
    with pytest.raises(UserError, match=r"numbers of different, duplicate, but train\.csv is read as duplicate, diff"):
        load_pairs(str(tmp_path), "train", max_pairs=0, seed=1, reading=wrong)
    assert len(load_pairs(str(tmp_path), "train", max_pairs=0, seed=1, reading=right)) == 6


@pytest.mark.parametrize(
    "card",
    [
        "# Notes\n\n---\nconfigs: 7\n---\n",
        "---\n[: no yaml\n---\n",
        "---\n- a list\n---\n",
        files([{"split": "train", "path": "data/train-*"}, {"split": "test", "path": "data/test-*"}]),
        files("data/train-0.csv"),
        files({"train": ["data/train-0.csv"], "dev": "**/test-0.csv"}),
        files(7),
        files([{"split": "test"}]),
        classes(*LABELS),
        classes(*LABELS, "-"),
        {"configs": [7, {"data_files": None}], "dataset_info": "none"},
        {"dataset_info": [{"names": 7}, {"names": "neutral"}, {"names": None}, {"names": [7, None]}]},
    ],
)
def test_cards_that_contradict_nothing(tmp_path: Path, card: Any) -> None:
    assert read(tmp_path, card, "data/train-0.csv", "data/test-0.csv") == 6
