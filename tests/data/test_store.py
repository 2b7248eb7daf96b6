"""Proves that the store gives the ids of the chosen articles, is used only where they are the same, and never half."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import time
import tracemalloc
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import numpy as np
import pytest

from minibert.data import sources, store, tokens
from minibert.data.sources import load_articles
from minibert.data.store import BUILDING, IDS, STARTS, StoredArticles, stored_articles
from minibert.data.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from minibert.errors import UserError
from minibert.pretrained import load_tokenizer
from tests.processes import SERVER, start

ROOT = Path(__file__).parent.parent.parent
WORDS = ["cat", "dog", "mat", "log", "animal", "sleeping", "on", "the"]
TEXTS = [" ".join(random.Random(number).choices(WORDS, k=1 + number % 17)) for number in range(90)]
OPTIONS: dict[str, Any] = {"max_articles": 30, "held_out": 8, "min_characters": 12, "seed": 42}


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "articles.jsonl", TEXTS)


def build(source: Path | str, tokenizer: WordPieceTokenizer, max_length: int = 12, **changes: Any) -> StoredArticles:
    cache = changes.pop("cache", str(Path(source).parent / "cache"))
    return stored_articles(load_articles(str(source), **{**OPTIONS, **changes}), tokenizer, max_length, cache)


def ids(result: StoredArticles) -> list[list[list[int]]]:
    return [[part[row].tolist() for row in range(len(part))] for part in (result.train, result.held_out)]


def expected(texts: list[str], tokenizer: WordPieceTokenizer, options: dict[str, Any] = OPTIONS) -> Any:
    """The notebook's sample of texts in memory, each encoded."""
    rows = datasets.Dataset.from_dict({"text": [text for text in texts if len(text) > options["min_characters"]]})
    chosen = tokenizer.encode(rows.shuffle(seed=options["seed"])["text"][:], 12)
    train = min(options["max_articles"] or len(rows), len(rows) - options["held_out"])
    return [chosen[:train], chosen[train : train + options["held_out"]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each call of the tokenizer has been given."""
    made: list[int] = []
    encode = WordPieceTokenizer.encode

    def counted(self: WordPieceTokenizer, texts: Any, max_length: int | None) -> list[list[int]]:
        made.append(len(texts))
        return encode(self, texts, max_length)

    monkeypatch.setattr(WordPieceTokenizer, "encode", counted)
    return made


@pytest.mark.parametrize("maximum", [0, 30, 1000])
@pytest.mark.parametrize("chunk", [7, 1000])
def test_the_store_has_the_samples_ids_in_its_order(
    source: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch, maximum: int, chunk: int
) -> None:
    monkeypatch.setattr(tokens, "CHUNK", chunk)
    right = expected(TEXTS, tokenizer, {**OPTIONS, "max_articles": maximum})
    for reused in (False, True):
        result = build(source, tokenizer, max_articles=maximum)
        assert result.reused is reused
        assert ids(result) == right
        assert result.train.ids.dtype == np.uint16
        assert not result.train.ids.flags.writeable
        assert result.train.tokens == sum(map(len, right[0]))
        assert (result.folder / IDS).stat().st_size == 2 * sum(map(len, right[0] + right[1]))
    counted = [sum(row.count(token) for row in right[0]) for token in range(61)]
    assert result.train.counts(61).tolist() == counted


def test_a_large_vocabulary_gets_wider_ids(source: Path) -> None:
    large = WordPieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *(f"w{i}" for i in range(70_000)), *WORDS])
    build(source, large)
    result = build(source, large)
    assert result.reused
    assert result.train.ids.dtype == np.uint32
    assert ids(result) == expected(TEXTS, large)


def test_a_store_is_used_without_a_look_at_the_text(
    source: Path, tokenizer: WordPieceTokenizer, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ids(build(source, tokenizer))
    assert sum(calls) == 38  # the chosen ones and no others, each once
    monkeypatch.setattr(sources, "_stream", None)
    assert ids(build(source, tokenizer)) == first
    assert sum(calls) == 38


def resident(path: Path) -> int:
    """Kilobytes of a mapped file that this process has in memory."""
    blocks = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    mine = [block for block in blocks if str(path) in block]
    assert mine
    return sum(int(kilobytes) for block in mine for kilobytes in re.findall(r"^Rss: +(\d+) kB", block, re.MULTILINE))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="tells what is mapped on Linux only")
def test_nothing_that_was_read_stays_mapped(source: Path, tokenizer: WordPieceTokenizer) -> None:
    result = build(source, tokenizer)
    files = [result.folder / IDS, result.folder / STARTS]
    for use in (lambda: result.train.take([3, 1]), lambda: result.train.tokens, lambda: result.train.counts(61)):
        assert result.train[5].sum() > 2
        assert all(resident(file) for file in files)
        use()
        assert not any(resident(file) for file in files)
    copies = result.train.take([3, 1])
    assert [copy.tolist() for copy in copies] == [result.train[3].tolist(), result.train[1].tolist()]


def test_memory_does_not_grow_with_the_text(
    tmp_path: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times the text, tokenised and counted: the peak of what Python and numpy hold is nearly the same.

    Some bytes an article are its due, for its place in the shuffled order; its text and ids are not.
    """
    monkeypatch.setattr(tokens, "CHUNK", 100)
    monkeypatch.setattr(sources, "BATCH", 100)
    peaks: list[int] = []
    texts = [f"{number} " + "the cat sat " * 150 for number in range(300)]
    for run, copies in enumerate((1, 1, 10)):  # the first one is to have everything imported and set up
        folder = tmp_path / str(run)
        folder.mkdir()
        for number in range(copies):
            write(folder / f"{number}.jsonl", texts)
        tracemalloc.start()
        result = build(folder, tokenizer, max_length=500, max_articles=0)
        result.train.counts(61)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert result.train.tokens > 2_900 * 400
    assert peaks[2] < 1.1 * peaks[1]


def _touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    "change",
    [
        {"max_articles": 31},
        {"held_out": 9},
        {"min_characters": 13},
        {"seed": 43},
        {"max_length": 11},
        {"vocabulary": lambda tokens: [*tokens, "##ats"]},
        {"vocabulary": lambda tokens: [*tokens[:-2], *tokens[:-3:-1]]},  # as many tokens, two of them exchanged
        {"file": _touch},
        {"file": lambda path: write(path, [*TEXTS, "the cat on the mat"])},
        {"file": lambda path: write(path.with_name("train-2.jsonl"), TEXTS)},
        {"file": lambda path: path.rename(path.with_name("other.jsonl"))},
        {"format": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_store_of_anything_else_is_not_used(
    tmp_path: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """The same run once more reuses; with one ingredient changed it builds; and with it put back, it reuses again."""
    folder = tmp_path / "text"
    folder.mkdir()
    path = write(folder / "articles.jsonl", TEXTS)
    cache = str(tmp_path / "cache")
    first = build(folder, tokenizer, cache=cache)
    assert build(folder, tokenizer, cache=cache).reused

    other, options = tokenizer, dict(change)
    if alter := options.pop("vocabulary", None):
        other = WordPieceTokenizer.from_vocabulary(alter(tokenizer.tokens(range(61))))
    if act := options.pop("file", None):
        act(path)
    if number := options.pop("format", None):
        monkeypatch.setattr(store, "FORMAT", number)
    result = build(folder, other, cache=cache, **options)
    assert not result.reused
    assert result.folder != first.folder
    assert build(folder, other, cache=cache, **options).reused


def test_the_toy_world_and_a_local_hub_have_stores_of_their_own(
    tmp_path: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = str(tmp_path / "cache")
    assert [build("toy", tokenizer, cache=cache).reused for _ in range(2)] == [False, True]
    monkeypatch.setattr(sources, "_toy_texts", lambda: tuple(TEXTS))
    assert not build("toy", tokenizer, cache=cache).reused

    (tmp_path / "20231101.en").mkdir()
    for part in range(2):
        rows = datasets.Dataset.from_list([{"text": f"{part} {text}"} for text in TEXTS])
        rows.to_parquet(str(tmp_path / "20231101.en" / f"train-{part:05}-of-00041.parquet"))
    hub: dict[str, Any] = {"hub": str(tmp_path), "cache": cache}
    assert [build("hub", tokenizer, **hub).reused for _ in range(2)] == [False, True]
    assert [build("hub", tokenizer, **hub, max_articles=0).reused for _ in range(2)] == [False, True]
    _touch(tmp_path / "20231101.en" / "train-00001-of-00041.parquet")
    assert build("hub", tokenizer, **hub).reused  # the second file is none of its business
    assert not build("hub", tokenizer, **hub, max_articles=0).reused


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


def _cut_whole_numbers(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 8)


def _all_but_the_ends(path: Path) -> None:
    numbers = np.fromfile(path, dtype=np.int64)
    numbers[[0, -1]].tofile(path)


@pytest.mark.parametrize("name", ["ids.bin", "starts.bin", "store.json"])
@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _cut_whole_numbers,
        _all_but_the_ends,
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"[1, 2]" * 9),
    ],
    ids=["cut", "cut at a number", "all but the ends", "gone", "empty", "foreign"],
)
def test_a_damaged_store_is_made_anew(
    source: Path, tokenizer: WordPieceTokenizer, name: str, damage: Callable[[Path], None]
) -> None:
    folder = build(source, tokenizer).folder
    damage(folder / name)
    result = build(source, tokenizer)
    assert not result.reused
    assert result.folder == folder
    assert ids(result) == expected(TEXTS, tokenizer)
    assert build(source, tokenizer).reused


def test_something_else_under_its_name(source: Path, tokenizer: WordPieceTokenizer) -> None:
    folder = build(source, tokenizer).folder
    other = build(source, tokenizer, seed=1).folder
    store._remove(folder)
    other.rename(folder)  # whole, but of another sample
    assert not build(source, tokenizer).reused
    store._remove(folder)
    folder.write_text("a file")
    assert ids(build(source, tokenizer)) == expected(TEXTS, tokenizer)


def test_leftovers_go_and_work_in_progress_stays(source: Path, tokenizer: WordPieceTokenizer) -> None:
    cache = source.parent / "cache"
    for name in ("dead", "stillborn", "alive"):
        (cache / f"{BUILDING}{name}").mkdir(parents=True)
    (cache / f"{BUILDING}dead" / IDS).write_bytes(b"12")
    with (cache / f"{BUILDING}alive" / IDS).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        build(source, tokenizer)
        assert [path.name for path in cache.glob(f"{BUILDING}*")] == [f"{BUILDING}alive"]


def test_a_source_that_changes_while_it_is_read(
    source: Path, tokenizer: WordPieceTokenizer, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many articles as before, but written to after they were counted."""
    write_ids = store._write

    def late(*arguments: Any) -> None:
        write_ids(*arguments)
        _touch(source)

    monkeypatch.setattr(store, "_write", late)
    with pytest.raises(UserError, match="has changed while it was read"):
        build(source, tokenizer)
    assert [path.name for path in (source.parent / "cache").iterdir()] == [".lock"]


def test_a_cache_that_can_not_be_written_to(
    source: Path, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"can't keep token ids in .*jsonl.* pass --cache a folder"):
        build(source, tokenizer, cache=str(source / "below a file"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write", full)
    with pytest.raises(UserError, match=r"No space left on device\): pass --cache a folder"):
        build(source, tokenizer)
    assert [path.name for path in (source.parent / "cache").iterdir()] == [".lock"]


def test_the_cache_is_the_users_own_unless_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert store.cache_folder("") == tmp_path / "x" / "minibert"
    assert store.cache_folder("here") == Path("here")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.cache_folder("") == tmp_path / ".cache" / "minibert"


def build_slowly(source: Path, vocabulary: Path, ready: Any, go: Any) -> None:
    """A run of its own: it says when it could begin, and goes slowly, a chunk of one text at a time."""
    encode = WordPieceTokenizer.encode

    def slow(*arguments: Any) -> Any:
        time.sleep(0.002)
        return encode(*arguments)

    patch.object(tokens, "CHUNK", 1).start()
    patch.object(WordPieceTokenizer, "encode", slow).start()
    tokenizer = load_tokenizer(str(vocabulary))
    ready.set()
    go.wait()
    print(build(source, tokenizer).train.tokens)


def builders(source: Path, vocabulary: Path, count: int) -> list[ForkServerProcess]:
    """Runs that begin now, all at once."""
    go, signs = SERVER.Event(), [SERVER.Event() for _ in range(count)]
    runs = [
        start(build_slowly, source, vocabulary, ready, go, out=source.parent / f"run{number}")
        for number, ready in enumerate(signs)
    ]
    assert all(ready.wait(60) for ready in signs)
    go.set()
    return runs


@pytest.fixture
def vocabulary(tmp_path: Path, tokenizer: WordPieceTokenizer) -> Path:
    tokenizer.save(tmp_path, 12)
    return tmp_path / "tokenizer.json"


def test_killed_at_any_moment(source: Path, vocabulary: Path) -> None:
    """Killed before, at, and after the first and last byte; the next run finds a whole store or makes one."""
    tokenizer = load_tokenizer(str(vocabulary))
    cache = source.parent / "cache"
    random.seed(0)
    partial = 0
    for _ in range(6):
        (run,) = builders(source, vocabulary, 1)
        time.sleep(random.uniform(0, 0.3))
        run.kill()
        run.join()
        named = [path for path in cache.glob("*") if not path.name.startswith(".")]
        partial += len(list(cache.glob(f"{BUILDING}*")))
        if named:  # it was complete
            assert (named[0] / STARTS).stat().st_size == 8 * 39
            store._remove(named[0])
    assert partial  # at least one was caught at work
    result = build(source, tokenizer)
    assert not result.reused
    assert ids(result) == expected(TEXTS, tokenizer)
    assert not list(cache.glob(f"{BUILDING}*"))


def test_builders_side_by_side(source: Path, vocabulary: Path) -> None:
    tokenizer = load_tokenizer(str(vocabulary))
    runs = builders(source, vocabulary, 3)
    right = expected(TEXTS, tokenizer)
    for number, run in enumerate(runs):
        run.join()
        assert run.exitcode == 0
        assert int((source.parent / f"run{number}.out").read_text()) == sum(map(len, right[0]))
    result = build(source, tokenizer)
    assert result.reused
    assert ids(result) == right
    assert len(list((source.parent / "cache").iterdir())) == 2  # the store and the lock
