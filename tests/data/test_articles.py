"""Proves that articles are the notebook's sample, and that ids are used again where they are right, and never half."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
import tracemalloc
from collections.abc import Callable
from functools import cache
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import datasets
import numpy as np
import pytest
from filelock import FileLock

from minibert.data import articles, sources
from minibert.data.articles import ABOUT, HELD_OUT, LOCK, TRAIN, WORK, Articles, TextColumn, TokenisedArticles
from minibert.errors import UserError
from minibert.hub import load_tokenizer
from minibert.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from tests.data.rows import write
from tests.processes import PATIENCE, SERVER, start

WORDS = ["cat", "dog", "mat", "log", "animal", "sleeping", "on", "the"]
LETTERS = "abcdefgh"
# No two alike: a number in letters, and some words.
TEXTS = [
    f"{LETTERS[i % 8]} {LETTERS[i // 8 % 8]} {LETTERS[i // 64]} the dog on the mat {'cat ' * (i % 13)}"
    for i in range(90)
]
OPTIONS: dict[str, Any] = {"max_articles": 30, "held_out": 8, "min_characters": 16, "seed": 42}


def put(path: Path, texts: list[Any]) -> Path:
    return write(path, [{"text": text} for text in texts])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return put(tmp_path / "articles.jsonl", TEXTS)


def sample(data: Path | str, **changes: Any) -> tuple[list[str], list[str], int]:
    with Articles(str(data), **{**OPTIONS, **changes}) as found:
        texts = found.texts
        return texts.train["text"][:], texts.held_out["text"][:], texts.repeated


def make(source: Path | str, tokenizer: WordPieceTokenizer, max_length: int = 12, **changes: Any) -> TokenisedArticles:
    cache = changes.pop("cache", str(Path(source).parent / "cache"))
    with Articles(str(source), **{**OPTIONS, "cache": cache, **changes}) as found:
        return found.tokenised(tokenizer, max_length)


def ids(result: TokenisedArticles) -> list[list[list[int]]]:
    return [[row.tolist() for row in part] for part in (result.train, result.held_out)]


def expected(tokenizer: WordPieceTokenizer, maximum: int = 30) -> list[list[list[int]]]:
    """The notebook's sample of the texts in memory, each encoded."""
    chosen = tokenizer.encode(_shuffled(), 12)
    train = min(maximum or len(chosen), len(chosen) - OPTIONS["held_out"])
    return [chosen[:train], chosen[train : train + OPTIONS["held_out"]]]


@cache
def _shuffled() -> list[str]:
    rows = datasets.Dataset.from_dict({"text": [text for text in TEXTS if len(text) > OPTIONS["min_characters"]]})
    return list(rows.shuffle(seed=OPTIONS["seed"])["text"])


@pytest.mark.parametrize(
    "names", [["a.parquet"], ["a.csv"], ["b.jsonl.gz", "a.jsonl"], ["b_train.csv", "a-train.parquet"]]
)
@pytest.mark.parametrize(("maximum", "held_out", "seed"), [(20, 5, 42), (0, 1, 42), (7, 12, 0), (1000, 3, 1)])
def test_the_sample_is_the_notebooks(tmp_path: Path, names: list[str], maximum: int, held_out: int, seed: int) -> None:
    """The whole data set in memory, filtered, shuffled, cut, as the notebook has it; files in their names' order."""
    rows = [TEXTS[:40], [f"another {text}" for text in TEXTS[7:30]]]
    parts = dict(zip(names, rows, strict=False))
    for name, texts in parts.items():
        put(tmp_path / "x" / name, texts)
    raw = datasets.Dataset.from_dict({"text": [text for name in sorted(parts) for text in parts[name]]})
    raw = raw.filter(lambda x: x["text"] is not None and len(x["text"]) > 30).shuffle(seed=seed)
    train = min(maximum or len(raw), len(raw) - held_out)
    found = sample(tmp_path / "x", max_articles=maximum, held_out=held_out, seed=seed, min_characters=30)
    assert found == (raw.select(range(train))["text"][:], raw.select(range(train, train + held_out))["text"][:], 0)


def test_short_and_missing_texts_are_left_out(tmp_path: Path) -> None:
    texts: list[Any] = [None, "x" * 30, "", *("y" * (31 + i) for i in range(6))]
    train, held_out, _ = sample(put(tmp_path / "a.jsonl", texts), min_characters=30, held_out=2)
    assert sorted(map(len, [*train, *held_out])) == [31, 32, 33, 34, 35, 36]


@pytest.mark.parametrize("text", [7, ["a list"], {"a": "b"}, True, 0, []])
def test_what_is_no_text_is_refused(tmp_path: Path, text: Any) -> None:
    with pytest.raises(UserError, match=r"a\.jsonl, row 2: a text has to be text, not "):
        sample(put(tmp_path / "a.jsonl", ["good", text, "good"]))


@pytest.mark.parametrize("names", [("premise", "hypothesis"), ("sentence1", "sentence2")])
def test_pairs_are_read_as_texts_of_two_sentences(tmp_path: Path, names: tuple[str, str]) -> None:
    """For masked language modelling on the very sentences that are classified later."""
    sentences = [(f"The cat number {i} sat on the long mat.", "A cat sat.") for i in range(9)]
    rows: list[dict[str, Any]] = [dict(zip(names, pair, strict=True)) for pair in sentences]
    rows.append({names[0]: "A premise of a certain length.", names[1]: None})
    train, held_out, _ = sample(write(tmp_path / "train.jsonl", rows))
    assert sorted([*train, *held_out]) == [" ".join(pair) for pair in sentences]


def test_what_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    """A text of many repetitions, spelled in several ways: each article is in one part, and the count is right."""
    texts = [f"{'  ' * (i % 3)}The cat number {i % 25} sat on the mat.{' ' * (i % 2)}" for i in range(100)]
    texts = [text.upper() if i % 7 == 0 else text for i, text in enumerate(texts)]
    train, held_out, repeated = sample(put(tmp_path / "a.jsonl", texts), max_articles=0, held_out=10)
    same = [{" ".join(text.lower().split()) for text in part} for part in (train, held_out)]
    assert not same[0] & same[1]
    assert len(held_out) == 10
    assert repeated == 90 - len(train) == sum(" ".join(text.lower().split()) in same[1] for text in texts) - 10 > 20
    everything = put(tmp_path / "b.jsonl", ["The cat sat on the mat again."] * 60)
    with pytest.raises(UserError, match="repeats itself: all 30 articles to train on are among those held out"):
        sample(everything)


def test_a_vocabulary_is_learned_from_the_training_texts_only(tmp_path: Path) -> None:
    path = put(tmp_path / "a.parquet", [f"{word} " * 40 for word in ("alpha", "beta", "gamma", "delta", "delta")])
    for seed in range(4):
        with Articles(str(path), max_articles=0, held_out=1, min_characters=30, seed=seed) as found:
            learned = WordPieceTokenizer.train(TextColumn(found.texts.train), 60)
            parts = found.texts.train, found.texts.held_out
            trained, held_out = ({text.split()[0] for text in part["text"]} for part in parts)
        assert trained <= set(learned.backend.get_vocab())
        assert not held_out & set(learned.backend.get_vocab())


def test_too_few_articles_say_how_a_txt_is_read(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("\n".join(TEXTS))
    with pytest.raises(UserError, match=r"has 1 articles of more than 16 characters, and 8 .*; --line-by-line takes"):
        sample(path)
    train, held_out, _ = sample(path, line_by_line=True)
    assert (len(train), len(held_out)) == (30, 8)
    assert set(train) <= set(TEXTS)


def test_line_by_line_is_part_of_what_articles_are(tmp_path: Path, tokenizer: WordPieceTokenizer) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(f"{text}\n{text}" for text in TEXTS))
    assert not make(path, tokenizer).reused
    lines = make(path, tokenizer, line_by_line=True)
    assert not lines.reused
    assert lines.identity != make(path, tokenizer).identity


@pytest.mark.parametrize("maximum", [0, 30, 1000])
def test_the_cache_has_the_samples_ids_in_its_order(source: Path, tokenizer: WordPieceTokenizer, maximum: int) -> None:
    right = expected(tokenizer, maximum)
    for reused in (False, True):
        result = make(source, tokenizer, max_articles=maximum)
        assert result.reused is reused
        assert ids(result) == right
        assert result.train[0].dtype == np.uint16
        assert not result.train[0].flags.writeable
        assert result.train.tokens == sum(map(len, right[0]))
    counted = [sum(row.count(token) for row in right[0]) for token in range(61)]
    assert result.train.counts(61).tolist() == counted
    assert sorted(path.name for path in result.folder.parent.iterdir()) == sorted([LOCK, result.folder.name])


def test_a_large_vocabulary_gets_wider_ids(source: Path) -> None:
    large = WordPieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *(f"w{i}" for i in range(70_000)), *WORDS, *LETTERS])
    make(source, large)
    result = make(source, large)
    assert result.reused
    assert result.train[0].dtype == np.uint32
    assert ids(result) == expected(large)


def test_kept_ids_are_used_without_a_look_at_the_text(
    source: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ids(make(source, tokenizer))
    monkeypatch.setattr(articles, "_write_texts", None)
    monkeypatch.setattr(WordPieceTokenizer, "encode", None)
    again = make(source, tokenizer)
    assert again.reused
    assert ids(again) == first


def test_memory_does_not_grow_with_the_text(
    tmp_path: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times the text, tokenised and counted: the peak of what Python and numpy hold is nearly the same."""
    monkeypatch.setattr(articles, "CHUNK", 100)
    monkeypatch.setattr(articles, "BATCH", 100)
    peaks: list[int] = []
    for run, copies in enumerate((1, 1, 10)):  # the first one is to have everything imported and set up
        for number in range(copies):
            its = [f"{run} {number} {n} " + "the cat sat " * 80 for n in range(200)]
            put(tmp_path / str(run) / f"{number}.jsonl", its)
        tracemalloc.start()
        result = make(tmp_path / str(run), tokenizer, max_length=500, max_articles=0)
        result.train.counts(61)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert result.train.tokens > 1_900 * 230
    assert peaks[2] < 1.25 * peaks[1]  # each has a place in the order


@pytest.mark.parametrize(
    "change",
    [
        {"max_articles": 31},
        {"held_out": 9},
        {"min_characters": 17},
        {"seed": 43},
        {"max_length": 11},
        {"vocabulary": lambda tokens: [*tokens, "##ats"]},
        {"vocabulary": lambda tokens: [*tokens[:-2], *tokens[:-3:-1]]},  # as many tokens, two of them exchanged
        {"file": lambda path: put(path, [*TEXTS, "the cat on the mat"])},
        {"file": lambda path: put(path.with_name("other.jsonl"), TEXTS[:-1])},
        {"file": lambda path: exchange(path, b"cat", b"dog")},
        {"file": lambda path: put(path, [*TEXTS[1:], TEXTS[0]])},
        {"format": 4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_ids_of_anything_else_are_not_used(
    tmp_path: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """The same run once more reuses; with one ingredient changed it makes them anew; and then reuses again."""
    path = put(tmp_path / "text" / "articles.jsonl", TEXTS)
    cache = str(tmp_path / "cache")
    first = make(path.parent, tokenizer, cache=cache)
    assert make(path.parent, tokenizer, cache=cache).reused

    other, options = tokenizer, dict(change)
    if alter := options.pop("vocabulary", None):
        other = WordPieceTokenizer.from_vocabulary(alter(tokenizer.tokens(range(61))))
    if act := options.pop("file", None):
        act(path)
    if number := options.pop("format", None):
        monkeypatch.setattr(articles, "FORMAT", number)
    result = make(path.parent, other, cache=cache, **options)
    assert not result.reused
    assert result.folder != first.folder
    assert result.identity != first.identity
    assert make(path.parent, other, cache=cache, **options).reused


def exchange(path: Path, before: bytes, after: bytes) -> None:
    """Other content of the same length and time."""
    times = path.stat()
    path.write_bytes(path.read_bytes().replace(before, after, 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_moved_renamed_and_touched_text_is_the_same(
    tmp_path: Path, source: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = str(tmp_path / "cache")
    first = make(source, tokenizer, cache=cache)
    assert json.loads(json.dumps(first.identity)) == first.identity
    os.utime(source, ns=(1, 1))
    (tmp_path / "elsewhere").mkdir()
    shutil.move(source, tmp_path / "elsewhere" / "texts.jsonl")
    monkeypatch.chdir(tmp_path)
    for name in ("elsewhere", "./elsewhere/", "elsewhere/texts.jsonl", str(tmp_path / "elsewhere")):
        again = make(name, tokenizer, cache=cache)
        assert again.reused
        assert again.identity == first.identity


def test_the_toy_world_has_ids_of_its_own(
    tmp_path: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = str(tmp_path / "cache")
    assert [make("toy", tokenizer, cache=cache).reused for _ in range(2)] == [False, True]
    monkeypatch.setattr(sources, "toy_articles", lambda: [{"text": text} for text in TEXTS])
    assert not make("toy", tokenizer, cache=cache).reused


def _flip(position: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(position * (len(content) - 1))] ^= 1
        path.write_bytes(bytes(content))

    return damage


@pytest.mark.parametrize("name", [TRAIN, HELD_OUT, ABOUT])
@pytest.mark.parametrize(
    "damage",
    [
        *map(_flip, (0, 0.2, 0.5, 0.7, 0.9, 1)),
        lambda path: os.truncate(path, path.stat().st_size - 2),
        lambda path: os.truncate(path, path.stat().st_size // 8 * 4),
        lambda path: path.write_bytes(path.read_bytes() + bytes(8)),
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"[1, 2]" * 9),
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: path.write_bytes(b'{"recipe": 1, "recipe": 2}'),
    ],
)
def test_damaged_ids_are_made_anew(
    source: Path, tokenizer: WordPieceTokenizer, name: str, damage: Callable[[Path], None]
) -> None:
    folder = make(source, tokenizer).folder
    damage(folder / name)
    result = make(source, tokenizer)
    assert ids(result) == expected(tokenizer)
    assert result.folder == folder
    assert (result.reused, result.repeated) == (False, 0) or name == ABOUT  # white space at its end means nothing
    assert make(source, tokenizer).reused


def test_something_else_under_its_name(source: Path, tokenizer: WordPieceTokenizer) -> None:
    folder = make(source, tokenizer).folder
    other = make(source, tokenizer, seed=1).folder
    shutil.rmtree(folder)
    other.rename(folder)  # whole, but of another sample
    assert not make(source, tokenizer).reused
    shutil.rmtree(folder)
    folder.write_text("a file")
    assert ids(make(source, tokenizer)) == expected(tokenizer)
    (folder / ABOUT).unlink()
    os.mkfifo(folder / ABOUT)  # nobody will ever write to it
    assert not make(source, tokenizer).reused


def test_leftovers_go_and_work_in_progress_stays(source: Path, tokenizer: WordPieceTokenizer) -> None:
    cache = source.parent / "cache"
    for name in ("dead", "stillborn", "alive"):
        (cache / f"{WORK}{name}").mkdir(parents=True)
    (cache / f"{WORK}dead" / "texts.arrow").write_bytes(b"12")
    (cache / f"{WORK}dead" / LOCK).touch()
    with FileLock(cache / f"{WORK}alive" / LOCK):
        make(source, tokenizer)
        assert [path.name for path in cache.glob(f"{WORK}*")] == [f"{WORK}alive"]


def test_a_source_that_changes_while_it_is_read(
    source: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other content, of the same size and time."""
    write_texts = articles._write_texts

    def late(*arguments: Any) -> None:
        write_texts(*arguments)
        exchange(source, b"cat", b"dog")

    monkeypatch.setattr(articles, "_write_texts", late)
    with pytest.raises(UserError, match="has changed while it was read"):
        make(source, tokenizer)
    assert [path.name for path in (source.parent / "cache").iterdir()] == [LOCK]


@pytest.mark.parametrize("at", ["_write_texts", "_write_ids", "_name"])
def test_a_full_disk(source: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    monkeypatch.setattr(articles, at, Mock(side_effect=OSError(28, "No space left on device")))
    message = r"can't keep token ids in .*cache \(No space left on device\): pass --cache a fol"
    with pytest.raises(UserError, match=message):
        make(source, tokenizer)
    assert [path.name for path in (source.parent / "cache").iterdir()] == [LOCK]


def test_a_cache_that_can_not_be_written_to(
    source: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"can't keep token ids in .*jsonl.* pass --cache a folder"):
        make(source, tokenizer, cache=str(source / "below a file"))
    made = make(source, tokenizer)
    monkeypatch.setattr(articles, "_workplace", None)  # what is there is read without writing anything
    assert ids(make(source, tokenizer)) == ids(made)


def test_the_cache_is_the_users_own_unless_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert articles.cache_folder("") == tmp_path / "x" / "minibert"
    assert articles.cache_folder("here") == Path("here")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert articles.cache_folder("") == tmp_path / ".cache" / "minibert"
    # As in some containers, where the system does not know the user.
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("Could not determine home directory.")))
    with pytest.raises(UserError, match="pass --cache a folder"):
        articles.cache_folder("")
    assert articles.cache_folder("here") == Path("here")


@pytest.mark.parametrize("name", ["with blanks", "run[12]*?", "50%", "a:b"])
def test_a_cache_of_any_name(source: Path, tokenizer: WordPieceTokenizer, name: str) -> None:
    for reused in (False, True):
        result = make(source, tokenizer, cache=str(source.parent / name))
        assert result.reused is reused
        assert ids(result) == expected(tokenizer)


def test_a_cache_whose_name_means_something_else_to_datasets(source: Path, tokenizer: WordPieceTokenizer) -> None:
    with pytest.raises(UserError, match="can't have :: in its name"):
        make(source, tokenizer, cache=str(source.parent / "a::b"))


def make_slowly(source: Path, vocabulary: Path, ready: Any, go: Any) -> None:
    """A run of its own: it says when it could begin, and goes slowly, a text at a time."""
    encode = WordPieceTokenizer.encode

    def slow(*arguments: Any) -> Any:
        time.sleep(0.004)
        return encode(*arguments)

    patch.object(articles, "CHUNK", 1).start()
    patch.object(WordPieceTokenizer, "encode", slow).start()
    tokenizer = load_tokenizer(str(vocabulary))
    ready.set()
    go.wait()
    print(make(source, tokenizer).train.tokens)


def makers(source: Path, vocabulary: Path, count: int) -> list[ForkServerProcess]:
    """Runs that begin now, all at once."""
    go, signs = SERVER.Event(), [SERVER.Event() for _ in range(count)]
    runs = [
        start(make_slowly, source, vocabulary, ready, go, out=source.parent / f"run{number}")
        for number, ready in enumerate(signs)
    ]
    assert all(ready.wait(PATIENCE) for ready in signs)
    go.set()
    return runs


@pytest.fixture
def vocabulary(tmp_path: Path, tokenizer: WordPieceTokenizer) -> Path:
    tokenizer.save(tmp_path, 12)
    return tmp_path / "tokenizer.json"


def test_killed_at_any_moment(source: Path, vocabulary: Path) -> None:
    """Killed before, at, and after the first and last byte; the next run finds whole ids or makes them."""
    tokenizer = load_tokenizer(str(vocabulary))
    cache = source.parent / "cache"
    random.seed(0)
    partial = 0
    for _ in range(6):
        (run,) = makers(source, vocabulary, 1)
        time.sleep(random.uniform(0, 0.4))
        run.kill()
        run.join()
        partial += len(list(cache.glob(f"{WORK}*")))
        for named in cache.glob("[!.]*"):  # it was complete
            assert make(source, tokenizer).reused
            shutil.rmtree(named)
    assert partial  # at least one was caught at work
    result = make(source, tokenizer)
    assert not result.reused
    assert ids(result) == expected(tokenizer)
    assert not list(cache.glob(f"{WORK}*"))


def test_makers_side_by_side(source: Path, vocabulary: Path) -> None:
    tokenizer = load_tokenizer(str(vocabulary))
    runs = makers(source, vocabulary, 3)
    right = expected(tokenizer)
    for number, run in enumerate(runs):
        run.join()
        assert run.exitcode == 0
        assert int((source.parent / f"run{number}.out").read_text()) == sum(map(len, right[0]))
    result = make(source, tokenizer)
    assert result.reused
    assert ids(result) == right
    assert len(list((source.parent / "cache").iterdir())) == 2  # the ids and the lock
