"""Proves what the scripts do with the data that they are given: what they say of it, refuse, and agree on."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import train_mlm
import train_nli
from minibert.cli import run
from minibert.config import ModelConfig
from minibert.errors import UserError
from minibert.hub import save_mlm
from minibert.modern import make_masked_lm
from minibert.tokenizer import WordPieceTokenizer
from tests.data.rows import write
from tests.metrics import records
from tests.processes import PATIENCE, start

pytestmark = pytest.mark.usefixtures("no_picture")

TINY = [
    "--hidden-size", "16", "--num-hidden-layers", "1", "--num-attention-heads", "2", "--intermediate-size", "32",
    "--max-length", "12", "--held-out", "8", "--max-articles", "0", "--min-characters", "0", "--max-steps", "1",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, tokenizer: WordPieceTokenizer, config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An encoder, and a place to work in."""
    save_mlm(tmp_path / "encoder", make_masked_lm(config), tokenizer)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def articles(path: Path, texts: list[str]) -> str:
    return str(write(path, [{"text": text} for text in texts]))


def pairs(premises: list[str], hypothesis: str) -> list[dict[str, Any]]:
    return [{"premise": text, "hypothesis": hypothesis, "label": i % 3} for i, text in enumerate(premises)]


def mlm(data: str, *more: str) -> list[str]:
    return [*TINY, "--data", data, "--vocab", "encoder", "--output", "out", "--cache", "cache", *more]


def nli(data: str, *more: str) -> list[str]:
    return ["--data", data, "--encoder", "encoder", "--max-length", "10", "--max-steps", "1", "--output", "out", *more]


def test_pretraining_leaves_out_of_training_what_is_held_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = articles(folder / "a.jsonl", [f"the cat sat on {chr(97 + i % 20)}" for i in range(60)])
    train_mlm.main(mlm(data))
    out = capsys.readouterr().out
    (repeated,) = [int(line.split()[1]) for line in out.splitlines() if line.startswith("repeated")]
    (first,) = records(folder / "out", "start")
    assert first["articles"] == 52 - repeated
    assert repeated >= 8


def test_a_text_in_another_language_than_the_vocabulary(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = articles(folder / "zh.jsonl", [f"我们的猫坐在 {'垫子 ' * (i + 2)}" for i in range(30)])
    message = r"vocabulary does not fit the text of .*zh\.jsonl: every token is \[UNK\]; pass a --vocab"
    with pytest.raises(UserError, match=message):
        train_mlm.main(mlm(foreign))
    assert not (folder / "out").exists()
    train_mlm.main(mlm(articles(folder / "half.jsonl", [f"the cat 垫 {'垫 ' * (i % 9)}" for i in range(300)])))
    assert "% [UNK]" in capsys.readouterr().out
    write(folder / "pairs" / "a.csv", pairs([f"{i} 猫" for i in range(20)], "垫子"))
    message = r"does not fit the text of pairs: every token is \[UNK\]; pass a --vocab \(or an --enc"
    with pytest.raises(UserError, match=message):
        train_nli.main(nli("pairs", "--validation-share", "0.3", "--overwrite"))


def test_fine_tuning_on_pairs_without_a_split(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "pairs.csv", pairs([f"the cat {'abcdefghij'[i % 10]}" for i in range(60)], "a dog"))
    message = r"pairs\.csv has pairs to train on, but none for validation: --validation-share 0\.1"
    with pytest.raises(UserError, match=message):
        train_nli.main(nli("pairs.csv"))
    train_nli.main(nli("pairs.csv", "--validation-share", "0.2"))
    assert "48 to train on, 12 for validation" in capsys.readouterr().out
    with pytest.raises(UserError, match="--validation-share 1"):
        train_nli.main(nli("pairs.csv", "--validation-share", "1"))


def test_fine_tuning_says_how_many_pairs_are_in_both_parts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pairs([f"cat {i}" for i in range(30)], "a dog")
    write(folder / "pairs" / "train.jsonl", rows)
    write(folder / "pairs" / "dev.jsonl", rows[25:])
    train_nli.main(nli("pairs"))
    assert "5 of the pairs for validation are in training, too" in capsys.readouterr().out


def as_rank(arguments: list[str]) -> None:
    run(lambda: train_mlm.main(arguments))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [lambda texts: texts[:-4], lambda texts: [*texts[:-1], "the dog"]], ids=["fewer", "other"]
)
def test_ranks_that_read_other_files_end_before_the_first_step(
    folder: Path, change: Callable[[list[str]], list[str]]
) -> None:
    texts = [f"the cat sat on {chr(97 + i % 26)} {chr(97 + i // 26)}" for i in range(60)]
    paths = [articles(folder / str(number) / "a.jsonl", its) for number, its in enumerate((texts, change(texts)))]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    master = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    common = ["--output", str(folder / "out"), "--vocab", str(folder / "encoder"), "--cache", str(folder / "cache")]
    ranks = []
    for number, path in enumerate(paths):
        own = {"RANK": str(number), "LOCAL_RANK": str(number), **master}
        ranks.append(start(as_rank, mlm(path, *common), out=folder / f"rank{number}", environment=own))
    for process in ranks:
        process.join(PATIENCE)
    assert [process.exitcode for process in ranks] == [2, 2]
    err = [(folder / f"rank{number}.err").read_text() for number in (0, 1)]
    assert err == ["error: rank 1 has other articles than rank 0: all ranks have to read the same\n", ""]
    assert not (folder / "out").exists()
