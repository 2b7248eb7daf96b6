"""Proves that a damaged folder is a line of error or does no harm: truncated, flipped, swapped, rewritten."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minibert
from minibert.bert import Bert, EncoderBlock
from minibert.config import ModelConfig
from minibert.errors import UserError
from minibert.files import CHECKSUMS
from minibert.hub import load_encoder, save_classifier, zip_classifier
from minibert.hub.saving import MODEL_FILES
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer
from tests.toy_task import LineTask, options, train

# Of a model with a projection; without one, the pooling's place is another.
FILES = [name for name in MODEL_FILES if name != "1_Pooling/config.json"]

CASES = 100  # of each kind of damage, for each file
UNCHECKED = 40  # the same without checksums, where more is read before something is wrong
PAIRS = (["The cat sat on the mat.", "a dog"], ["A dog is an animal!", ""])

Damage = Callable[[bytes, random.Random], bytes]


def truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def flip(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def scramble(data: bytes, chance: random.Random) -> bytes:
    """Up to 40 bytes of noise, inserted or written over what was there."""
    place, noise = chance.randrange(len(data)), chance.randbytes(chance.randrange(1, 40))
    return data[:place] + noise + data[place + chance.choice([0, len(noise)]) :]


DAMAGES = [truncate, flip, scramble]


def save(folder: Path, config: ModelConfig, tokenizer: WordPieceTokenizer) -> Path:
    classifier = NLIClassifier(SentenceEncoder(Bert(config), projection=40))
    save_classifier(folder, classifier, tokenizer, max_length=16, hypothesis_only=False)
    return folder


@pytest.fixture
def config(config: ModelConfig) -> ModelConfig:
    """One layer: a second one would be damaged alike."""
    return dataclasses.replace(config, num_hidden_layers=1)


@pytest.fixture
def folder(tmp_path: Path, config: ModelConfig, tokenizer: WordPieceTokenizer) -> Path:
    return save(tmp_path / "model", config, tokenizer)


def answers(path: Path) -> np.ndarray | None:
    """What a model says of two pairs; None if it is refused, which takes one line."""
    try:
        model = minibert.from_pretrained(path)
        assert model.classifier is not None
        return model.predict(*PAIRS).probabilities
    except UserError as error:
        assert len(str(error).splitlines()) == 1, error
        assert str(path) in str(error) or "numbers overflow" in str(error)
        return None


def same(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    return first is not None and second is not None and np.array_equal(first, second)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_or_does_none(folder: Path, name: str, damage: Damage) -> None:
    right, chance = answers(folder), random.Random(name)
    file = folder / name
    data = file.read_bytes()
    refused = 0
    for _ in range(CASES):
        file.write_bytes(damage(data, chance))
        given = answers(folder)
        refused += given is None
        assert given is None or same(given, right)
    assert refused > CASES / 2
    file.write_bytes(data)
    assert same(answers(folder), right)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_a_swapped_file_is_told(
    folder: Path, tmp_path: Path, config: ModelConfig, tokenizer: WordPieceTokenizer, name: str
) -> None:
    """Swapped with each other file of the folder, and with the same file of another model."""
    right, data = answers(folder), (folder / name).read_bytes()
    torch.manual_seed(1)
    other = save(tmp_path / "other", config, tokenizer)
    for strange in [*(folder / each for each in FILES), other / name]:
        (folder / name).write_bytes(strange.read_bytes())
        given = answers(folder)
        assert given is None or same(given, right), strange
        (folder / name).write_bytes(data)
    (folder / name).unlink()
    given = answers(folder)
    assert given is None or (name == CHECKSUMS and same(given, right))


@pytest.mark.parametrize("name", [name for name in FILES if name != CHECKSUMS])
@pytest.mark.parametrize("damage", DAMAGES)
def test_without_checksums_damage_is_at_least_no_traceback(folder: Path, name: str, damage: Damage) -> None:
    """A folder of someone else's has none, and a number that has become another can't be told then."""
    (folder / CHECKSUMS).unlink()
    data, chance = (folder / name).read_bytes(), random.Random(name)
    for _ in range(UNCHECKED):
        (folder / name).write_bytes(damage(data, chance))
        answers(folder)


NAN, INFINITY = float("nan"), float("inf")
STRANGE: list[Any] = [None, True, -1, 0, 1, 0.5, 10**9, 10**30, NAN, INFINITY, "", "x", "../x", [], [1], {}]


def rewritten(value: Any, chance: random.Random) -> Any:
    """A JSON value with something strange at one place of it."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(sorted(value))
        if chance.random() < 0.2:
            return {name: item for name, item in value.items() if name != key}
        return value | {key: rewritten(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return [*value[:place], rewritten(value[place], chance), *value[place + 1 :]]
    return chance.choice(STRANGE)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_settings_that_make_no_sense_are_refused_or_harmless(folder: Path, name: str) -> None:
    """What a stranger may write: well-formed JSON, with a wrong type, a huge or a missing value at any place."""
    (folder / CHECKSUMS).unlink()
    values, chance = json.loads((folder / name).read_text()), random.Random(name)
    for _ in range(2 * UNCHECKED):
        changed = rewritten(values, chance)
        (folder / name).write_text(json.dumps(changed))
        answers(folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_zip(folder: Path, damage: Damage) -> None:
    right, path, chance = answers(folder), zip_classifier(folder), random.Random(0)
    data = path.read_bytes()
    for _ in range(CASES):
        path.write_bytes(damage(data, chance))
        given = answers(path)
        assert given is None or same(given, right)


def test_a_zip_with_paths_outside_and_more_than_fits(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in FILES:
            archive.write(folder / name, name)
        archive.writestr("../outside.txt", "x")
        archive.writestr("/tmp/outside-minibert.txt", "x")
    assert answers(tmp_path / "evil.zip") is not None
    assert not (tmp_path / "outside.txt").exists()
    assert not Path("/tmp/outside-minibert.txt").exists()
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.safetensors", b"")
        archive.getinfo("model.safetensors").file_size = 4 * 2**30 + 1  # what a real one would have written there
    with pytest.raises(UserError, match=r"bomb\.zip: more than 4,294,967,296 bytes unpacked"):
        minibert.from_pretrained(bomb)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000: it has to be at most 1,000"),
        ({"hidden_size": 3 * 10**9}, "hidden_size is 3000000000: it has to be at most 1,048,576"),
        ({"num_hidden_layers": 1000}, "weights are missing"),
        ({"hidden_size": 3 * 2**18, "intermediate_size": 2**20, "vocab_size": 2**24}, "but by the configuration"),
    ],
)
def test_a_configuration_that_asks_for_too_much_is_refused_before_any_allocation(
    folder: Path, change: dict[str, int], message: str
) -> None:
    """The last one would take more than 50 TB."""
    (folder / CHECKSUMS).unlink()
    configure(folder, **change)
    with pytest.raises(UserError, match=message):
        minibert.from_pretrained(folder)


def configure(folder: Path, **change: int) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | change))


@pytest.mark.parametrize("load", [minibert.from_pretrained, load_encoder])
def test_layers_that_the_file_lacks_are_missed_before_one_is_made(
    folder: Path, load: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / CHECKSUMS).unlink()
    configure(folder, num_hidden_layers=1000)
    monkeypatch.setattr(EncoderBlock, "__init__", None)
    with pytest.raises(UserError, match=r"15984 of 16005 weights are missing, encoder\.layer\.1\..* the first"):
        load(folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint(tmp_path: Path, damage: Damage) -> None:
    whole = LineTask(scores=[0.5, 0.8, 0.6])

    def stop(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(whole, options(tmp_path / "run", save_every=4), stop)
    chance, name = random.Random(0), "checkpoints/step-00000021.safetensors"
    data = (tmp_path / "run" / name).read_bytes()
    for _ in range(CASES):
        copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
        (copy / name).write_bytes(damage(data, chance))
        try:
            resumed = train(LineTask(scores=[0.5, 0.8, 0.6]), options(copy, save_every=4, resume=True))
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            assert "damaged" in str(error)
        else:
            assert torch.equal(resumed.model.weight, whole.model.weight)
        shutil.rmtree(copy)
