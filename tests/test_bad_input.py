"""Proves that what a user can get wrong ends in one line on stderr, status 2, and nothing half-written.

Each case is a script's whole command line with a wrong flag, file or folder; one of each script is started as a user
starts it, which takes seconds.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub.errors as hub
import pytest
from safetensors.torch import load_file, save_file

from minibert.bert import Bert
from minibert.cli import run
from minibert.config import ModelConfig
from minibert.errors import hub_reason
from minibert.files import CHECKSUMS
from minibert.hub import save_classifier, save_mlm
from minibert.modern import make_masked_lm
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from tests.data.rows import write

ROOT = Path(__file__).parent.parent
Fails = Callable[..., str]


@pytest.fixture
def fails(capfd: pytest.CaptureFixture[str]) -> Fails:
    """Run a script that has to fail as a user's mistake fails; returns its one line."""

    def call(script: str, *arguments: str) -> str:
        main = importlib.import_module(script.removesuffix(".py")).main
        with pytest.raises(SystemExit) as leave:
            run(lambda: main(list(arguments)))
        return one_line(leave.value.code, capfd.readouterr().err)

    return call


def one_line(status: object, err: str) -> str:
    assert status == 2, err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture
def folders(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An encoder, a classifier, articles and pairs, all tiny and all good; one works there."""
    save_mlm(tmp_path / "mlm", make_masked_lm(config), tokenizer)
    classifier = NLIClassifier(SentenceEncoder(Bert(config)))
    save_classifier(tmp_path / "nli", classifier, tokenizer, 10, hypothesis_only=False)
    rows = [{"premise": f"the cat {i}", "hypothesis": "a dog", "label": i % 3} for i in range(30)]
    for split in ("train", "validation", "test"):
        write(tmp_path / "pairs" / f"{split}.jsonl", rows)
    (tmp_path / "articles.txt").write_text("\n\n".join(f"The cat number {i} sat on the mat. " * 9 for i in range(60)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def refusal(kind: type[hub.HfHubHTTPError]) -> Exception:
    """An error as the Hub's library makes it of an answer."""
    text = "401 Client Error.\nIf you are trying to access a private or gated repo, make sure you are authenticated."
    return kind(text, response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]


MLM = ("--data", "articles.txt", "--vocab", "mlm", "--held-out", "5", "--max-length", "12", "--output", "out")
NLI = ("--data", "pairs", "--encoder", "mlm", "--max-length", "10", "--output", "out")
EVALUATE = ("--data", "pairs", "--model", "nli")


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train_mlm.py", (*MLM, "--data", "nowhere"), "no file or folder nowhere"),
        ("train_mlm.py", (*MLM, "--data", "hub"), "pass --data the path of a local copy, or --data toy"),
        ("train_mlm.py", (*MLM, "--vocab", "no/such-name"), "pass --vocab the path of a vocab.txt, or --vocab train"),
        ("train_mlm.py", (*MLM, "--data", "pairs"), "pairs has 0 articles of more than 200 characters"),
        ("train_mlm.py", (*MLM, "--start-from", "nli"), "--vocab and --start-from contradict each other"),
        ("train_mlm.py", (*MLM, "--vocab", "", "--start-from", "nli"), "weights are missing, cls.predictions"),
        ("train_mlm.py", (*MLM, "--device", "abacus"), "--device abacus can't be used here"),
        ("train_mlm.py", (*MLM, "--blocks", "--max-length", "99", "--max-articles", "1"), "fewer than the 99 of one"),
        (
            "train_mlm.py",
            (*MLM, "--seed", str(2**64)),
            "--seed 18446744073709551616: it has to be from 0 to 2 ** 64 - 1",
        ),
        ("train_mlm.py", (*MLM, "--threads", "3000000000"), "--threads 3000000000: it has to be from 0 to 1,024"),
        ("train_mlm.py", (*MLM, "--hidden-size", "30"), "not divisible by num_attention_heads"),
        ("train_mlm.py", (*MLM, "--batch-size", "0"), "--batch-size 0"),
        ("train_mlm.py", (*MLM, "--held-out", "60"), "are to be held out"),
        ("train_mlm.py", (*MLM, "--learning-rate", "nan"), "--learning-rate"),
        ("train_mlm.py", (*MLM, "--resume"), "no checkpoint to resume from"),
        ("train_mlm.py", (*MLM, "--output", "articles.txt"), "is a file, not a folder"),
        ("train_mlm.py", (*MLM, "--output", "mlm"), "has a finished model"),
        ("train_mlm.py", (*MLM, "--cache", "articles.txt"), "--cache articles.txt is --output itself, or in --data"),
        ("train_nli.py", (*NLI, "--encoder", "nowhere"), "gave no model of that name (HF_HUB_OFFLINE is set"),
        ("train_nli.py", (*NLI, "--mixup", "1e300"), "--mixup 1e+300: it has to be from 0 to 1,000"),
        ("train_nli.py", (*NLI, "--projection", str(10**30)), "it has to be from 0 to 1,048,576"),
        ("train_nli.py", (*NLI, "--data", "articles.txt"), "pairs need premise, hypothesis, label or sentence1"),
        ("train_nli.py", (*NLI, "--max-length", "20"), "--max-length 20: the encoder in mlm has 19 positions"),
        ("train_nli.py", (*NLI, "--data", "pairs/train.jsonl"), "named as a train file, but the validation split"),
        ("evaluate.py", (*EVALUATE, "--model", "mlm"), "mlm has no classifier: train one with train_nli.py"),
        ("evaluate.py", (*EVALUATE, "--model", "articles.txt"), "articles.txt is neither a folder nor a zip"),
        ("evaluate.py", ("--model", "nli", "--similarity", "nope.tsv"), "nope.tsv: --similarity takes a path, or a "),
        ("evaluate.py", ("--model", "nli", "--similarity", "a/b"), "pass --similarity the path of a local copy"),
        ("evaluate.py", (*EVALUATE, "--data", "hub"), "pass --data the path of a local copy, or --data toy"),
        ("evaluate.py", (*EVALUATE, "--device", "meta"), "--device meta can't be used here"),
        ("evaluate.py", (*EVALUATE, "--premise", "a"), "give both, or neither"),
        ("evaluate.py", ("--model", "nli", "--premise", "a", "--hypothesis", " "), "--hypothesis is empty"),
    ],
)
def test_wrong_flags_and_paths(
    folders: Path, fails: Fails, script: str, arguments: tuple[str, ...], message: str
) -> None:
    before = {path: path.read_bytes() for path in folders.rglob("*") if path.is_file()}
    assert message in fails(script, *arguments)
    assert {path: path.read_bytes() for path in folders.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train_mlm.py", (*MLM, "--data", "nowhere"), "no file or folder nowhere"),
        ("train_nli.py", (*NLI, "--encoder", "nowhere"), "no folder nowhere, and the Hugging Face Hub gave no model"),
        ("evaluate.py", (*EVALUATE, "--premise", "a"), "give both, or neither"),
    ],
)
def test_started_as_a_user_starts_it(folders: Path, script: str, arguments: tuple[str, ...], message: str) -> None:
    command = [sys.executable, str(ROOT / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert message in one_line(done.returncode, done.stderr)
    assert not (folders / "out").exists()


def test_a_label_out_of_range(folders: Path, fails: Fails) -> None:
    (folders / "pairs" / "test.jsonl").write_text('{"premise": "a", "hypothesis": "b", "label": 5}\n')
    line = fails("evaluate.py", *EVALUATE)
    assert "row 1: label 5 is not one of entailment, neutral, contradiction or 0, 1, 2" in line


def test_an_empty_file(folders: Path, fails: Fails) -> None:
    (folders / "pairs" / "test.jsonl").write_text("")
    assert "test.jsonl" in fails("evaluate.py", *EVALUATE)


def test_a_vocabulary_that_does_not_match_the_model(folders: Path, fails: Fails) -> None:
    (folders / "nli" / CHECKSUMS).unlink()
    (folders / "nli" / "tokenizer.json").unlink()
    (folders / "nli" / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *(f"w{i}" for i in range(300))]))
    line = fails("evaluate.py", *EVALUATE)
    assert "the vocabulary has 305 tokens, but the model 61" in line


def test_a_loss_that_is_no_number(folders: Path, fails: Fails) -> None:
    """A step a thousand times too far, and the next loss is not a number. No model is left behind."""
    line = fails("train_nli.py", *NLI, "--learning-rate", "1e38")
    assert "the loss or its gradient is not a number any more at step 2, batch 2 of epoch 1: a lower --learning" in line
    assert not (folders / "out" / "model.safetensors").exists()


def test_an_encoder_with_a_weight_that_is_no_number(folders: Path, fails: Fails) -> None:
    tensors = load_file(folders / "mlm" / "model.safetensors")
    tensors["bert.embeddings.LayerNorm.weight"][0] = float("inf")
    save_file(tensors, folders / "mlm" / "model.safetensors")
    assert "model.safetensors is damaged: it does not match SHA256SUMS" in fails("train_nli.py", *NLI)
    (folders / "mlm" / CHECKSUMS).unlink()
    assert "embeddings.LayerNorm.weight holds numbers that are not finite" in fails("train_nli.py", *NLI)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (hub.LocalEntryNotFoundError("Cannot find ..."), "it can't be reached: is there a network?"),
        (ConnectionError("Couldn't reach 'no/such' on the Hub (LocalEntryNotFoundError)"), "it can't be reached"),
        (ConnectionError("Couldn't reach 'no/such' on the Hub (OfflineModeIsEnabled)"), "HF_HUB_OFFLINE is set"),
        (caused(hub.LocalEntryNotFoundError("Cannot ..."), hub.OfflineModeIsEnabled("Cannot ...")), "HF_HUB_OFFLINE"),
        (refusal(hub.RepositoryNotFoundError), "there is none, or it is private"),
        (caused(OSError("no"), refusal(hub.RepositoryNotFoundError)), "there is none, or it is private"),
        (refusal(hub.GatedRepoError), "its owner wants to be asked"),
        (datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist"), "there is none, or it is private"),
        (datasets.exceptions.DatasetNotFoundError("'a' is a gated dataset"), "its owner wants to be asked"),
        (ValueError("BuilderConfig 'x' not found.\nAvailable: y"), "BuilderConfig 'x' not found."),
        (RuntimeError(), "RuntimeError"),
    ],
)  # fmt: skip
def test_why_the_hub_gave_nothing(error: Exception, meaning: str) -> None:
    assert hub_reason(error).startswith(meaning)
