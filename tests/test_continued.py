"""Proves that scripts go on only with the very things they began with, under whatever names, and replace each other.

Runs are stopped after a few steps, as if the power had failed, and what they read is changed, moved or spelt anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import evaluate
import minibert
import train_mlm
import train_nli
from minibert.config import ModelConfig
from minibert.errors import UserError
from minibert.hub import save_classifier, save_mlm
from minibert.inference import TrainedModel
from minibert.modern import make_bert, make_masked_lm
from minibert.progress import Progress
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from tests.conftest import touch_picture
from tests.data.rows import write
from tests.metrics import untimed

SMALL = ["--batch-size", "4", "--epochs", "2", "--save-every", "3", "--log-every", "2", "--max-length", "10"]
NLI = ["--data", "in/pairs", "--encoder", "in/mlm", "--output", "out/nli", "--debias", "in/control", *SMALL]
SHAPE = ["--hidden-size", "8", "--num-hidden-layers", "1", "--num-attention-heads", "2", "--intermediate-size", "8"]
MLM = ["--data", "in/articles.txt", "--vocab", "in/mlm", "--held-out", "5", "--min-characters", "0", "--cache", "cache",
       "--output", "out/mlm", *SMALL, *SHAPE]  # fmt: skip
ON = ["--data", "in/articles.txt", "--start-from", "in/mlm", "--held-out", "5", "--min-characters", "0", "--cache",
      "cache", "--output", "out/on", *SMALL]  # fmt: skip
TRAIN, VALIDATION, ARTICLES = "in/pairs/train.jsonl", "in/pairs/validation.jsonl", "in/articles.txt"
WORDS = ["the", "cat", "dog", "mat", "sat", "on", "a", "##s", ".", *"0123456789", *(f"##{i}" for i in range(10))]
TOKENIZER = WordPieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *WORDS])
CONFIG = ModelConfig(TOKENIZER.vocab_size, 8, 1, 2, 8, 12)


class PowerFailure(Exception):
    pass


def script_of(arguments: list[str]) -> Callable[[list[str]], None]:
    return train_nli.main if arguments is NLI else train_mlm.main


def output_of(arguments: list[str]) -> str:
    return arguments[arguments.index("--output") + 1]


def fill(folder: Path) -> None:
    """A model, a vocabulary, pairs and articles."""
    save_model(folder / "mlm", seed=5)
    save_control(folder / "control", seed=5)
    (folder / "pairs").mkdir()
    for split, count in (("train", 24), ("validation", 9), ("test", 9)):
        rows = [{"premise": f"the cat {i}", "hypothesis": f"a dog {i % 7}", "label": i % 3} for i in range(count)]
        write(folder / "pairs" / f"{split}.jsonl", rows)
    (folder / "articles.txt").write_text("\n\n".join(f"the cat {i} sat on a mat. the dog {i}." for i in range(33)))


def save_model(folder: Path, seed: int) -> None:
    """Each seed has other weights."""
    torch.manual_seed(seed)
    save_mlm(folder, make_masked_lm(CONFIG), TOKENIZER)


def save_control(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    control = NLIClassifier(SentenceEncoder(make_bert(CONFIG)))
    torch.nn.init.normal_(control.classifier.weight)
    save_classifier(folder, control, TOKENIZER, 10, hypothesis_only=True)


def save_time(patch: pytest.MonkeyPatch) -> None:
    """Draw nothing, half a second a picture, and force nothing onto the disk: no test here would see that."""
    patch.setattr("minibert.files.os.fsync", lambda _: None)
    patch.setattr("minibert.run.plot_training", lambda folder: (folder / "training.png").touch())
    patch.setattr("minibert.plots.plot_answers", touch_picture)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that is needed, with runs that were not stopped, and with some that were."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        save_time(patch)
        torch.set_num_threads(1)
        fill(folder / "in")
        for arguments in (NLI, MLM, ON):
            script_of(arguments)(arguments)
        (folder / "out").rename(folder / "finished")
        patch.setattr(Progress, "advance", failing)
        for arguments in (NLI, MLM, ON):
            with pytest.raises(PowerFailure):
                script_of(arguments)(arguments)
    return folder


def failing(self: Progress, advance: Callable[[Progress], None] = Progress.advance) -> None:
    advance(self)
    if self.step == 8:
        raise PowerFailure


@pytest.fixture
def place(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to work in."""
    shutil.copytree(whole, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    save_time(monkeypatch)
    return tmp_path / "place"


def edited(file: str, change: Callable[[list[str]], list[str]]) -> Callable[[], None]:
    """Makes other lines of those of a file."""

    def edit() -> None:
        lines = Path(file).read_text().splitlines(keepends=True)
        Path(file).write_text("".join(change(lines)))

    return edit


half_of_the_pairs = edited(TRAIN, lambda lines: lines[:12])
another_label = edited(TRAIN, lambda lines: [*lines[:-1], lines[-1].replace('"label": 2', '"label": 0')])
another_word = edited(TRAIN, lambda lines: [line.replace("the cat 3", "the dog 3") for line in lines])
another_order = edited(TRAIN, lambda lines: lines[::-1])
another_validation = edited(VALIDATION, lambda lines: lines[1:])
another_article = edited(ARTICLES, lambda lines: [line.replace("the cat 7 sat", "the dog 7 sat") for line in lines])
fewer_articles = edited(ARTICLES, lambda lines: lines[:-2])


def another_model() -> None:
    """Of the same shape, written as any other is, with new checksums."""
    save_model(Path("in/mlm"), seed=6)


def another_control() -> None:
    """Which was trained otherwise, and knows something else."""
    save_control(Path("in/control"), seed=6)


def another_epsilon() -> None:
    """The same weights, and another network all the same."""
    file = Path("in/mlm/config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "layer_norm_eps": 1e-3}))
    Path("in/mlm/SHA256SUMS").unlink()


def another_vocabulary() -> None:
    """Two words have changed places; the weights are the same."""
    model = minibert.from_pretrained("in/mlm").masked_lm
    assert model is not None
    words = [*WORDS]
    words[1], words[2] = words[2], words[1]
    save_mlm(Path("in/mlm"), model, WordPieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *words]))


@pytest.mark.parametrize(
    ("arguments", "change", "what"),
    [
        (NLI, half_of_the_pairs, "training pairs are not those"),
        (NLI, another_label, "training pairs are not those"),
        (NLI, another_word, "training pairs are not those"),
        (NLI, another_order, "training pairs are not those"),
        (NLI, another_validation, "validation pairs are not those"),
        (NLI, another_model, "encoder is not that"),
        (NLI, another_vocabulary, "vocabulary is not that"),
        (NLI, another_control, "control is not that"),
        (MLM, another_article, "articles are not those"),
        (MLM, fewer_articles, "articles are not those"),
        (MLM, another_vocabulary, "vocabulary is not that"),
        (ON, another_model, "start model is not that"),
        (ON, another_epsilon, "start model is not that"),
        (NLI, another_epsilon, "encoder is not that"),
        (ON, another_vocabulary, "vocabulary is not that"),
        (ON, another_article, "articles are not those"),
    ],
)
def test_what_has_changed_is_refused_by_name(
    place: Path, arguments: list[str], change: Callable[[], None], what: str
) -> None:
    change()
    output = Path(output_of(arguments))
    before = {file: file.read_bytes() for file in output.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=f"the {what} of the run to be resumed") as error:
        script_of(arguments)([*arguments, "--resume"])
    assert "\n" not in str(error.value)
    assert {file: file.read_bytes() for file in output.rglob("*") if file.is_file()} == before


def moved(old: str, new: str) -> Callable[[], None]:
    return lambda: (Path(new).parent.mkdir(parents=True, exist_ok=True), Path(old).rename(new))[0]  # type: ignore[func-returns-value]


def zipped() -> None:
    shutil.make_archive("mlm", "zip", "in/mlm")


def newer() -> None:
    """Copied anew, as by `cp -r`: other inodes, other times."""
    shutil.copytree("in", "again")
    shutil.rmtree("in")
    Path("again").rename("in")


@pytest.mark.parametrize(
    ("arguments", "change", "flags"),
    [
        (NLI, None, ["--data", "in/pairs/"]),
        (NLI, None, ["--data", "./in/pairs", "--encoder", "./in/mlm/"]),
        (NLI, None, ["--data", "in/../in/pairs", "--output", "./out/../out/nli/"]),
        (NLI, "absolute", ["--data", "in/pairs", "--encoder", "in/mlm", "--output", "out/nli"]),
        (NLI, moved("in/pairs", "data/snli"), ["--data", "data/snli"]),
        (NLI, moved("in/mlm", "models/encoder"), ["--encoder", "models/encoder"]),
        (NLI, moved("out/nli", "runs/1"), ["--output", "runs/1"]),
        (NLI, zipped, ["--encoder", "mlm.zip"]),
        (NLI, moved("in/control", "models/blind"), ["--debias", "models/blind"]),
        (NLI, newer, []),
        (MLM, None, ["--data", "./in/articles.txt", "--vocab", "in/mlm/"]),
        (MLM, moved("in/articles.txt", "texts.txt"), ["--data", "texts.txt"]),
        (MLM, None, ["--vocab", "in/mlm/tokenizer.json"]),
        (MLM, moved("out/mlm", "runs/2"), ["--output", "runs/2", "--cache", "other"]),
        (ON, moved("in/mlm", "start"), ["--start-from", "start"]),
        (ON, newer, ["--data", "in/articles.txt"]),
    ],
)
def test_the_same_under_another_name_goes_on_to_the_same_model(
    place: Path, arguments: list[str], change: Callable[[], None] | str | None, flags: list[str]
) -> None:
    if callable(change):
        change()
    elif change == "absolute":
        flags = [flag if flag.startswith("-") else str(place / flag) for flag in flags]
    script_of(arguments)([*arguments, *flags, "--resume"])
    check_finished(output_of([*flags, *arguments]), Path(output_of(arguments)).name)


def check_finished(there: str, name: str) -> None:
    """That a run has ended as the one that was not stopped."""
    finished = Path("finished", name)
    assert untimed(Path(there)) == untimed(finished)
    first, again = (load_file(folder / "model.safetensors") for folder in (finished, Path(there)))
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("arguments", [NLI, MLM, ON], ids=["nli", "mlm", "on"])
def test_the_folder_knows_the_options_of_its_run(place: Path, arguments: list[str]) -> None:
    output = output_of(arguments)
    script_of(arguments)(["--output", output, "--resume"])
    check_finished(output, Path(output).name)


def test_what_has_moved_since_is_said_beside_it(place: Path) -> None:
    Path("in/mlm").rename("start")
    train_mlm.main(["--output", "out/on", "--resume", "--start-from", "start", "--cache", "other", "--log-every", "2"])
    check_finished("out/on", "on")


@pytest.mark.parametrize(
    ("arguments", "flags", "message"),
    [
        (NLI, ["--batch-size", "8"], "--batch-size 8 contradicts the run to be resumed, which has 4"),
        (NLI, ["--calibrate"], "--calibrate True contradicts the run to be resumed, which has False"),
        (NLI, ["--recipe", "strong"], "--recipe strong contradicts the run to be resumed, which has notebook"),
        (NLI, ["--overwrite"], "--resume and --overwrite contradict each other"),
        (MLM, ["--mask-rate", "0.2"], r"--mask-rate 0\.2 contradicts the run to be resumed, which has 0\.15"),
        (MLM, ["--epochs", "3"], "--epochs 3 contradicts the run to be resumed, which has 2"),
    ],
)
def test_an_option_that_contradicts_those_of_the_folder_is_refused(
    place: Path, arguments: list[str], flags: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        script_of(arguments)(["--output", output_of(arguments), "--resume", *flags])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"clip": 1.0', '"clip": "much"'), r"options\.json is damaged \(clip is 'much'\)"),
        (lambda text: text.replace('"clip": 1.0', '"clip": 2.0'), r"--clip 2\.0 contradicts the run to be resumed"),
        (lambda text: text.replace('"clip": 1.0', '"clip": -1.0'), r"--clip -1\.0: it has to be a number above 0"),
        (lambda text: text[:-9], r"options\.json is not valid JSON"),
        (lambda text: "{}", "contradicts the run to be resumed"),
        (lambda text: "", r"options\.json is not valid JSON"),
    ],
)
def test_options_of_a_folder_that_are_damaged_are_one_line(
    place: Path, change: Callable[[str], str], message: str
) -> None:
    file = Path("out/nli/options.json")
    file.write_text(change(file.read_text()))
    with pytest.raises(UserError, match=message) as error:
        train_nli.main(["--output", "out/nli", "--resume"])
    assert "\n" not in str(error.value)


def test_without_them_the_whole_command_goes_on(place: Path) -> None:
    Path("out/nli/options.json").unlink()
    train_nli.main([*NLI, "--resume"])
    check_finished("out/nli", "nli")


def names(folder: Path) -> set[str]:
    """Of files and folders."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_each_script_replaces_what_the_other_has_left(place: Path) -> None:
    """Evaluation, pictures and zip included, and the folder is what it is in an empty place; notes stay."""
    more = ["--pooling", "max", "--projection", "6", "--zip"]
    folder, notes = place / "out" / "model", {"notes.txt", "1_Pooling/notes.txt"}

    def replace(main: Callable[[list[str]], None], arguments: list[str], name: str) -> TrainedModel:
        main([*arguments, "--output", "out/model", "--overwrite"])
        assert names(folder) == names(place / "finished" / name) | {*notes, "1_Pooling"}
        return minibert.from_pretrained(folder)

    train_nli.main([*NLI, *more, "--output", "out/model"])
    evaluate.main(["--model", "out/model", "--data", "in/pairs"])
    assert {"confusion_matrix.png", "evaluation.json", "classifier.json", "modules.json"} <= names(folder)
    assert Path("out/model.zip").exists()
    for note in notes:
        (folder / note).parent.mkdir(exist_ok=True)
        (folder / note).write_text("mine")

    model = replace(train_mlm.main, MLM, "mlm")
    assert not Path("out/model.zip").exists()
    assert model.masked_lm is not None
    assert model.classifier is None
    first, again = (load_file(f / "model.safetensors") for f in (place / "finished" / "mlm", folder))
    assert all(torch.equal(first[name], again[name]) for name in first)

    model = replace(train_nli.main, NLI, "nli")
    assert model.masked_lm is None
    assert model.classifier is not None
    train_nli.main([*NLI, *more, "--output", "out/model", "--overwrite"])
    replace(train_nli.main, NLI, "nli")  # another pooling's folder is gone, too
    replace(train_mlm.main, MLM, "mlm")


def test_a_run_is_not_resumed_by_the_other_script(place: Path) -> None:
    with pytest.raises(UserError, match="is of the other script's run"):
        train_mlm.main([*MLM, "--output", "out/nli", "--resume"])
    with pytest.raises(UserError, match="is of the other script's run"):
        train_nli.main([*NLI, "--output", "out/mlm", "--resume"])
    train_mlm.main([*MLM, "--output", "out/nli", "--overwrite"])
    assert names(place / "out" / "nli") == names(place / "finished" / "mlm")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hidden-size", "30", "--num-attention-heads", "4"], "hidden_size 30 is not divisible by"),
        (["--num-attention-heads", "3"], "hidden_size 8 is not divisible by"),
        (["--num-attention-heads", "16"], "hidden_size 8 is not divisible by"),
        (["--hidden-size", str(2**21)], "hidden_size is 2097152: it has to be at most"),
        (["--num-hidden-layers", "5000"], "num_hidden_layers is 5000: it has to be at most"),
    ],
)
def test_a_shape_that_makes_no_sense_is_refused_before_anything_is_read(
    place: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], message: str
) -> None:
    monkeypatch.setattr("minibert.pretraining.Articles", pytest.fail)
    with pytest.raises(UserError, match=message):
        train_mlm.main([*MLM, *flags, "--output", "out/new"])
    assert not Path("out/new").exists()


def test_a_start_model_that_reads_too_little_is_refused_before_anything_is_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minibert.pretraining.Articles", pytest.fail)
    with pytest.raises(UserError, match="--max-length 40: the model in in/mlm has 12 positions"):
        train_mlm.main([*ON, "--max-length", "40", "--output", "out/new"])


@pytest.mark.parametrize("rate", ["100", "1e30", "1e38"])
@pytest.mark.parametrize("arguments", [NLI, MLM, ON], ids=["nli", "mlm", "on"])
def test_a_rate_that_is_far_too_high_is_said(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], rate: str
) -> None:
    """In one line of error, or, if all numbers stay finite, in a warning; what is written is JSON in any case."""
    said = ""
    try:
        script_of(arguments)([*arguments, "--learning-rate", rate, "--clip", "1e9", "--output", "out/new"])
    except UserError as error:
        said = str(error)
        assert "\n" not in said
        assert "is not a number any more" in said or "training has diverged" in said
        assert "a lower --learning-rate" in said
        assert "step-0000" in said or not list(Path("out/new/checkpoints").glob("step-*"))
    assert said or "warning: training diverges" in capsys.readouterr().out
    for line in Path("out/new/metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
