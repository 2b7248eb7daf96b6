"""Proves that the three scripts do the notebook's job in a row, resume, and evaluate anywhere: tiny, but for real."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import evaluate
import train_mlm
import train_nli
from minibert.card import write_card
from minibert.cli import parse_options
from minibert.config import LABELS
from minibert.errors import UserError
from minibert.options import EvaluateOptions, MLMOptions, NLIOptions
from minibert.progress import Progress
from tests.conftest import touch_picture
from tests.data.rows import write
from tests.metrics import records

pytestmark = pytest.mark.usefixtures("no_picture", "undrawn")  # but for `models`, which come before them

ROOT = Path(__file__).parent.parent
SHAPE = {"hidden-size": 32, "num-hidden-layers": 2, "num-attention-heads": 2, "intermediate-size": 64}
SMALL = [word for name, size in SHAPE.items() for word in (f"--{name}", str(size))]
MLM = ["--data", "toy", *SMALL, "--max-articles", "300", "--held-out", "40", "--vocab-size", "600", "--epochs", "2"]
NLI = ["--data", "toy", "--max-train", "400", "--max-validation", "100", "--epochs", "2", "--learning-rate", "1e-3"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder and a classifier, trained for seconds."""
    folder = tmp_path_factory.mktemp("models")
    train_mlm.main([*MLM, "--output", str(folder / "mlm"), "--log-every", "5"])
    train_nli.main([*NLI, "--encoder", str(folder / "mlm"), "--output", str(folder / "nli"), "--zip"])
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation's picture is an empty file, half a second sooner."""
    monkeypatch.setattr("minibert.plots.plot_answers", touch_picture)


def report(model: Path, file: Path, *flags: str) -> dict[str, Any]:
    """What evaluate.py finds in the toy world."""
    evaluate.main(["--model", str(model), "--data", "toy", "--json", str(file), *flags])
    return json.loads(file.read_text())


def test_pretraining_learns_and_says_how_much(models: Path) -> None:
    (start,), validations = records(models / "mlm", "start"), records(models / "mlm", "validation")
    assert [record["epoch"] for record in validations] == [1, 2]
    assert validations[1]["held_out_loss"] < validations[0]["held_out_loss"] < 6.4  # ln 600
    assert {"held_out_accuracy", "pseudo_perplexity"} <= set(validations[0])
    assert {"unigram_loss", "unigram_accuracy", "parameters"} <= set(start)


@pytest.mark.parametrize(("name", "more"), [("mlm", set()), ("nli", {"classifier.json", "classifier.safetensors"})])
def test_a_run_leaves_the_model_its_options_its_metrics_and_its_picture(
    models: Path, name: str, more: set[str]
) -> None:
    files = {path.name for path in (models / name).iterdir()}
    assert files >= more | {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
        "options.json", "metrics.jsonl", "training.png", "README.md",
    }  # fmt: skip
    assert "checkpoints" not in files
    assert not [file for file in files if file.startswith(".")]
    options = json.loads((models / name / "options.json").read_text())
    assert options["epochs"] == 2
    assert options["seed"] == 42
    assert options["device"] != "auto"  # what was chosen, not what was asked for
    assert options.get("vocab", "train") == "train"


@pytest.mark.parametrize(("name", "options"), [("mlm", MLMOptions), ("nli", NLIOptions)])
def test_a_cards_command_is_the_run(models: Path, name: str, options: type[MLMOptions] | type[NLIOptions]) -> None:
    """What the card says to type has the options of the run, but for where and on what it was made."""
    card = (models / name / "README.md").read_text()
    command = shlex.split(card.split("`python ")[1].split("`")[0])
    assert command[0] == f"train_{name}.py"
    said = asdict(parse_options(options, command[1:], ""))
    done = json.loads((models / name / "options.json").read_text())
    for option in said:
        if option not in ("output", "device", "cache", "overwrite", "save_every", "log_every", "zip"):
            assert said[option] == done[option], option
    validations = records(models / name, "validation")
    for record in validations:
        assert all(f"{value:.4f}" in card for value in record.values() if isinstance(value, float))


def test_an_evaluation_is_added_to_the_card(models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "nli", tmp_path / "nli"))
    (folder / "evaluation.json").unlink(missing_ok=True)  # of another test
    write_card(folder)
    assert "## Evaluation" not in (folder / "README.md").read_text()
    found = report(folder, tmp_path / "r.json", "--split", "validation")
    assert json.loads((folder / "evaluation.json").read_text()) == [found]
    card = (folder / "README.md").read_text()
    assert f"| toy | validation | 1,000 | {found['accuracy']:.4f} |" in card
    (folder / "metrics.jsonl").write_text('{"kind": "start"}\n')
    with pytest.raises(UserError, match="records are damaged"):
        write_card(folder)
    assert (folder / "README.md").read_text() == card


@pytest.mark.parametrize("name", ["mlm", "nli"])
def test_a_cards_snippet_works_as_it_is(models: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    card = (models / name / "README.md").read_text()
    exec(card.split("```python\n")[1].split("```")[0], {})
    assert {"mlm": "token_str", "nli": "[["}[name] in capsys.readouterr().out


def test_evaluation_reports(models: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = report(models / "nli", tmp_path / "r.json", "--max-pairs", "200")
    out = capsys.readouterr().out
    for word in ("precision", *LABELS, "majority baseline", "mean cosine", "confusion matrix"):
        assert word in out
    assert sum(map(sum, result["confusion_matrix"])) == result["pairs"] == 200
    assert f"accuracy {result['accuracy']:.4f}" in out
    assert (models / "nli" / "confusion_matrix.png").is_file()


def test_validation_says_what_evaluation_says(models: Path, tmp_path: Path) -> None:
    """The best epoch is the one saved: evaluating the folder on the validation split gives its figure."""
    best = max(record["validation_accuracy"] for record in records(models / "nli", "validation"))
    found = report(models / "nli", tmp_path / "r.json", "--split", "validation", "--max-pairs", "100")
    assert found["accuracy"] == pytest.approx(best)


def test_one_pair_from_folder_and_zip_anywhere(
    models: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pair = ["--premise", "A dog is sleeping in the park.", "--hypothesis", "An animal is outdoors."]
    answers = []
    for path in (models / "nli", models / "nli.zip"):
        evaluate.main(["--model", str(path), *pair])
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    lines = dict(line.split() for line in answers[0].splitlines())
    assert tuple(lines) == LABELS
    assert sum(map(float, lines.values())) == pytest.approx(1, abs=2e-4)


def test_the_same_command_gives_the_same_weights(models: Path, tmp_path: Path) -> None:
    train_nli.main([*NLI, "--encoder", str(models / "mlm"), "--output", str(tmp_path / "again")])
    for name in ("model.safetensors", "classifier.safetensors"):
        first, again = load_file(models / "nli" / name), load_file(tmp_path / "again" / name)
        assert all((first[key] == again[key]).all() for key in first), name


def test_an_interrupted_pretraining_resumes_to_the_same_weights(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power fails in the second epoch, after a checkpoint; dropout is on; the token ids are made once more."""

    def fail(self: Progress, advance: Callable[[Progress], None] = Progress.advance) -> None:
        advance(self)
        assert self.step < 30, "power"

    arguments = [*MLM, "--output", str(tmp_path / "mlm"), "--log-every", "5", "--save-every", "8"]
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", fail)
        with pytest.raises(AssertionError, match="power"):
            train_mlm.main(arguments)
    train_mlm.main([*arguments, "--resume", "--cache", str(tmp_path / "cache")])
    first, again = (load_file(folder / "mlm" / "model.safetensors") for folder in (models, tmp_path))
    assert all((first[key] == again[key]).all() for key in first)


def following(said: str) -> list[str]:
    """The command that a training's last line has, from the script's name on."""
    name, python, *words = shlex.split(said.splitlines()[-1])
    assert (name, Path(python).name[:6]) == ("next", "python")
    return words


def test_a_training_says_what_to_do_next(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that can be typed as it is, also where names have blanks in them."""
    monkeypatch.chdir(ROOT)
    few, encoder, output = ["--max-steps", "1", "--epochs", "1"], str(tmp_path / "an encoder"), str(tmp_path / "it's")
    train_mlm.main([*MLM, *few, "--output", encoder])
    script, *words = following(capsys.readouterr().out)
    assert script == "train_nli.py"
    assert parse_options(NLIOptions, words, "") == NLIOptions(encoder=encoder, data="toy")
    train_nli.main([*words, *NLI, *few, "--output", output])
    script, *words = following(capsys.readouterr().out)
    assert script == "evaluate.py"
    assert parse_options(EvaluateOptions, words, "") == EvaluateOptions(model=output, data="toy")
    evaluate.main([*words, "--max-pairs", "30"])
    rows = [{"premise": f"the cat {i}", "hypothesis": "a dog", "label": i % 3} for i in range(30)]
    file = write(tmp_path / "pairs" / "train.jsonl", rows)
    for data in (file.parent, file):
        flags = ["--data", str(data), "--validation-share", "0.3", *few, "--output", output, "--overwrite"]
        train_nli.main(["--encoder", encoder, *flags])
        script, *words = following(capsys.readouterr().out)
        evaluate.main(words)  # a pair, as no part of the data is left for a test
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*LABELS]


def test_the_control_is_trained_and_evaluated_without_premises(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "control")
    train_nli.main([*NLI, "--encoder", str(models / "mlm"), "--output", output, "--hypothesis-only"])
    evaluate.main(["--model", output, "--data", "toy", "--max-pairs", "100"])
    out = capsys.readouterr().out
    assert "the premises are emptied" in out
    assert "hypothesis only" in out
