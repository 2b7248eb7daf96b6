"""Proves that a continued run is the uninterrupted one bit for bit, and that no folder is spoilt by mistake."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from minibert.checkpoint import tensors_hash
from minibert.errors import UserError
from minibert.hub import zip_classifier
from minibert.options import EvaluateOptions, MLMOptions, NLIOptions
from minibert.run import check_output, check_written, open_run
from tests.metrics import records, untimed
from tests.toy_task import Line, LineTask, at, options, train

METRICS, SEVENTH = "metrics.jsonl", "checkpoints/step-00000007.safetensors"
SCORES = [0.5, 0.8, 0.6]
Outcome = tuple[list[float], list[dict[str, Any]]]


class Stop(Exception):
    """The power fails."""


def stop(*_: object) -> None:
    raise Stop


def run(
    folder: Path,
    task: LineTask | None = None,
    *,
    save: Callable[[Path], object] = lambda folder: None,
    identity: dict[str, Any] | None = None,
    **changes: Any,
) -> Outcome:
    """A run to its end; returns what equal runs have in common, bit for bit: weights, and records without times."""
    task = train(task or LineTask(scores=SCORES), options(folder, **changes), save, identity)
    return task.model.weight.tolist(), untimed(folder)


def fail(folder: Path, losses: int, *, identity: dict[str, Any] | None = None, **changes: Any) -> None:
    """A run that stops dead, as if it was killed, after so many losses."""
    with pytest.raises(Stop):
        run(folder, LineTask(scores=SCORES, on_loss=at(losses, stop)), identity=identity, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Of a run that was left in peace."""
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("steps", [3, 4, 7, 8, 13, 14, 20])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, steps: int, accumulate: int) -> None:
    """Checkpoints at every third step and at each epoch's end; killed after so many steps; dropout on."""
    settings: dict[str, Any] = {"save_every": 3, "accumulate": accumulate}
    fail(tmp_path / "part", steps * accumulate, **settings)
    assert run(tmp_path / "part", resume=True, **settings) == run(tmp_path / "whole", **settings)


@pytest.mark.parametrize(("save_every", "left"), [(5, 0), (3, 1)])
def test_resumed_at_the_last_step_trains_no_further(tmp_path: Path, save_every: int, left: int) -> None:
    """Ten steps are asked for, three of them in the second epoch; the power fails after them, in the validation."""
    settings: dict[str, Any] = {"max_steps": 10, "save_every": save_every}
    with pytest.raises(Stop):
        run(tmp_path / "part", LineTask(scores=SCORES, on_validation=at(10, stop)), **settings)
    resumed = LineTask(scores=SCORES)
    assert run(tmp_path / "part", resumed, resume=True, **settings) == run(tmp_path / "whole", **settings)
    assert len(resumed.modes) == left


def test_the_time_of_a_resumed_run_is_that_of_all_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a second a step, and by an hour while nothing runs."""
    now = [0.0]
    monkeypatch.setattr("minibert.training.time.monotonic", lambda: now[0])

    def tick(losses: int) -> None:
        if resumed or losses < 12:
            now[0] += 1
        else:
            now[0] += 3_600
            raise Stop

    for resumed in (False, True):
        with nullcontext() if resumed else pytest.raises(Stop):
            run(tmp_path, LineTask(scores=SCORES, on_loss=tick), save_every=3, resume=resumed)
    assert untimed(tmp_path)[-1]["kind"] == "end"
    assert records(tmp_path, "end")[0]["seconds"] == 21


def test_a_run_killed_while_it_saves_its_model_resumes_to_the_same_model(tmp_path: Path, whole: Outcome) -> None:
    with pytest.raises(Stop):
        run(tmp_path, save=stop)
    resumed = LineTask(scores=SCORES)
    assert run(tmp_path, resumed, resume=True) == whole
    assert [record["kind"] for record in untimed(tmp_path)].count("end") == 1
    assert resumed.starts == []


def test_resuming_starts_in_the_middle_of_the_epoch(tmp_path: Path) -> None:
    fail(tmp_path, 12, save_every=3)
    resumed = LineTask(scores=SCORES)
    run(tmp_path, resumed, save_every=3, resume=True)
    assert resumed.starts == [(1, 5), (2, 0)]


def test_the_last_two_checkpoints_are_kept_until_the_model_is_saved(tmp_path: Path) -> None:
    at_the_end: list[str] = []
    run(tmp_path, save=lambda folder: at_the_end.extend(contents(folder / "checkpoints")), save_every=2)
    assert sorted(at_the_end) == ["step-00000020.safetensors", "step-00000021.safetensors"]
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("removed", range(3))
def test_a_run_killed_while_it_removes_its_checkpoints_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: int, whole: Outcome
) -> None:
    """There are two files, and death comes after so many of them."""
    left, unlink = [removed], Path.unlink

    def die(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "checkpoints" and path.exists():
            if not left[0]:
                raise Stop
            left[0] -= 1
        unlink(path, missing_ok)

    def save(folder: Path) -> None:
        (folder / "model.safetensors").write_text("the model")
        monkeypatch.setattr(Path, "unlink", die)

    with pytest.raises(Stop) if removed < 2 else nullcontext():
        run(tmp_path, save=save, save_every=3)
    monkeypatch.undo()
    if removed < 2:  # there is a checkpoint
        assert run(tmp_path, save_every=3, resume=True)[0] == whole[0]
    else:
        with pytest.raises(UserError, match="the run in it is finished"), open_run(options(tmp_path, resume=True)):
            pass
    assert (tmp_path / "model.safetensors").read_text() == "the model"
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": 0.9}, r"--clip 0\.9 contradicts the run to be resumed, which has 0\.7"),
        ({"accumulate": 2}, "--accumulate 2 contradicts the run to be resumed, which has 1"),
        ({"dropout": 0.2}, r"--dropout 0\.2 contradicts the run to be resumed, which has 0\.1"),
        ({"precision": "bfloat16"}, "--precision bfloat16 contradicts the run to be resumed, which has float32"),
        ({"beta2": 0.98}, "--beta2 0.98 contradicts the run to be resumed, which has 0.999"),
        ({"calibrate": True}, "--calibrate True contradicts the run to be resumed, which has False"),
        ({"decayed": "matrices"}, "--decayed matrices contradicts"),
        ({"seed": 7}, "--seed 7 contradicts"),
        ({"max_steps": 9}, "--max-steps 9 contradicts"),
        ({"hypothesis_only": True}, "--hypothesis-only True contradicts"),
    ],
    ids=str,
)
def test_options_that_change_what_is_computed_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    fail(tmp_path, 12)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=message):
        run(tmp_path, **{"resume": True, **change})
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"save_every": 5, "log_every": 3},
        {"data": "toy"},
        {"encoder": "elsewhere"},
        {"recipe": "strong"},
        {"threads": 1},
    ],
    ids=str,
)
def test_options_that_do_not_may_change(tmp_path: Path, change: dict[str, Any], whole: Outcome) -> None:
    """Where data and encoder are is one of them: what they hold is in the run's identity."""
    fail(tmp_path, 12)
    assert run(tmp_path, resume=True, **change)[0] == whole[0]


def test_a_rank_writes_no_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since `--resume` reads it on all ranks, and each takes its own again."""
    monkeypatch.setattr("minibert.run.pick_device", lambda *_: torch.device("cuda:1"))
    monkeypatch.setattr("minibert.run.pick_precision", lambda *_: "float32")
    for size, name in ((1, "cuda:1"), (2, "cuda")):
        monkeypatch.setattr("minibert.run.world_size", lambda size=size: size)
        with open_run(options(tmp_path)) as run:
            assert (run.options.device, run.device) == (name, torch.device("cuda:1"))


@pytest.mark.parametrize("has", [True, False])
def test_a_precision_that_only_takes_time_is_warned_of(
    has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("minibert.run.has_bfloat16", lambda _: has)
    for precision in ("float32", "bfloat16"):
        with open_run(options(tmp_path, precision=precision)):
            pass
        warned = "torch finds no units for bfloat16 in this cpu: float32 is faster" in capsys.readouterr().out
        assert warned == (precision == "bfloat16" and not has)


def test_options_are_written_as_resolved(tmp_path: Path) -> None:
    fail(tmp_path, 12)
    written = json.loads((tmp_path / "options.json").read_text())
    assert (written["learning_rate"], written["seed"], written["clip"]) == (0.05, 42, 0.7)
    assert (written["device"], written["precision"]) == ("cpu", "float32")


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ({"training pairs": "a"}, {"training pairs": "b"}, "the training pairs are not those of the run to be resumed"),
        ({"encoder": "a"}, {"encoder": "b"}, "the encoder is not that of the run to be resumed: give it what it had"),
        ({"articles": {"files": 3, "ids": [1]}}, {"articles": {"files": 4, "ids": [1]}}, "the articles are not those"),
        ({}, {"start model": "a"}, "the start model is not that of the run to be resumed"),
        ({"vocabulary": "a", "articles": "x"}, {"articles": "x"}, "the vocabulary is not that"),
    ],
)
def test_another_identity_is_refused_by_name(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any], message: str
) -> None:
    fail(tmp_path, 12, identity=before)
    files = contents(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        run(tmp_path, resume=True, identity=now)
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == files
    run(tmp_path, resume=True, identity=before)


def test_an_identity_is_compared_as_json(tmp_path: Path) -> None:
    """A tuple is a list, a key a string."""
    in_python: dict[str, Any] = {"articles": {"rows": (1, 2), 3: None}}
    for name, again in (("a", in_python), ("b", {"articles": {"rows": [1, 2], "3": None}})):
        fail(tmp_path / name, 12, identity=in_python)
        run(tmp_path / name, identity=again, resume=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (METRICS, lambda data: None, "metrics.jsonl is missing, damaged or shorter than at step-00000007"),
        (METRICS, lambda data: data[:40], "metrics.jsonl is missing, damaged or shorter than"),
        (METRICS, lambda data: data.replace(b"8", b"9", 1), "metrics.jsonl is missing, damaged or shorter than"),
        (METRICS, lambda data: b"", "metrics.jsonl is missing, damaged or shorter than"),
        (SEVENTH, lambda data: data[: len(data) // 2], "is damaged or not a checkpoint"),
        (SEVENTH, lambda data: b"", "is damaged or not a checkpoint"),
        (SEVENTH, lambda data: data[:-3] + b"abc", "is damaged or not a checkpoint"),
    ],
)
def test_what_a_resumed_run_needs_is_checked_before_its_first_step(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes | None], message: str
) -> None:
    fail(tmp_path, 9)
    data = change((tmp_path / name).read_bytes())
    (tmp_path / name).unlink()
    if data is not None:
        (tmp_path / name).write_bytes(data)
    before, task = contents(tmp_path), LineTask(scores=SCORES)
    with pytest.raises(UserError, match=message) as error:
        run(tmp_path, task, resume=True)
    assert "\n" not in str(error.value)
    assert task.starts == []
    assert contents(tmp_path) == before


def test_what_came_after_the_checkpoint_may_be_anything(tmp_path: Path, whole: Outcome) -> None:
    """Half a line, as of a disk that was full."""
    fail(tmp_path, 12)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"kind": "tr')
    assert run(tmp_path, resume=True) == whole


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> None:
    """Change what is in a checkpoint, checksum and all."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    tensors = load_file(path)
    change(tensors, about)
    text = json.dumps(about)
    save_file(tensors, path, {"about": text, "sha256": tensors_hash(tensors, text)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, about: about.update(format=99, version="9.0"), r"a checkpoint of minibert 9\.0, which minib"),
        (lambda tensors, about: about.update(script="MLMOptions"), "is of the other script's run"),
        (lambda tensors, about: about.update(ranks=2), "ranks: 1 contradicts the run to be resumed, which has 2"),
        (lambda tensors, about: about["options"].pop("contrast"), "--contrast 0.0 contradicts .*, which has None"),
        (lambda tensors, about: about["options"].update(new=1), "--new None contradicts the run to be resumed, which"),
        (lambda tensors, about: tensors.update({"model.weight": torch.ones(3)}), r"not fit the model: weight is \[3\]"),
        (lambda tensors, about: tensors.pop("model.weight"), "not fit the model: weight is missing"),
        (lambda tensors, about: tensors.update({"model.bias": torch.ones(2)}), "not fit the model: bias is"),
        (lambda tensors, about: tensors.pop("optimizer.weight.exp_avg"), "not fit the model: exp_avg is missing"),
        (lambda tensors, about: tensors.update({"optimizer.weight.exp_avg_sq": torch.ones(1)}), "exp_avg_sq is .1., n"),
        (lambda tensors, about: tensors.update({"optimizer.weight.step": torch.ones(2)}), "fit the model: step is"),
        (lambda tensors, about: tensors.update({"best.weight": torch.ones(5, 1)}), r"not fit the model: weight is \[5"),
        (lambda tensors, about: tensors.update({"best.bias": torch.ones(2)}), "not fit the model: bias is"),
        (lambda tensors, about: tensors.pop("random.0.cpu"), "its random state is not one of torch"),
        (lambda tensors, about: tensors.update({"random.0.cpu": torch.ones(3, dtype=torch.uint8)}), "its random state"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line(
    tmp_path: Path, change: Callable[[Any, Any], None], message: str
) -> None:
    fail(tmp_path, 12)
    rewrite(tmp_path / SEVENTH, change)
    task = LineTask(scores=SCORES)
    with pytest.raises(UserError, match=message) as error:
        run(tmp_path, task, resume=True)
    assert "\n" not in str(error.value)
    assert task.starts == []


def test_a_checkpoint_of_the_first_version_is_said_to_be_one(tmp_path: Path) -> None:
    fail(tmp_path, 12)
    save_file({"model.weight": torch.ones(2)}, tmp_path / SEVENTH, {"progress": '{"step": 7}', "sha256": "0"})
    with pytest.raises(UserError, match=r"is a checkpoint of an older minibert, which minibert .* can't continue"):
        run(tmp_path, resume=True)


def test_the_best_epoch_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    """A dead run has got further and found another best epoch, which this time (on a GPU, say) is not the best."""
    expected, _ = run(tmp_path / "whole", LineTask(scores=[0.5, 0.4, 0.3]))
    fail(tmp_path / "run", 15)
    (tmp_path / "run" / "checkpoints" / "step-00000014.safetensors").unlink()
    weights, lines = run(tmp_path / "run", LineTask(scores=[0.5, 0.4, 0.3]), resume=True)
    assert weights == expected
    assert lines[-1]["best_epoch"] == 1


def test_folders_that_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    check_output(options(folder))
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        check_output(options(folder, resume=True))
    fail(folder, 12)
    with pytest.raises(UserError, match="has an unfinished run"):
        check_output(options(folder))
    check_output(options(folder, overwrite=True))
    run(folder, overwrite=True)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="has a finished model"):
        check_output(options(folder))
    with pytest.raises(UserError, match="the run in it is finished"):
        check_output(options(folder, resume=True))
    with pytest.raises(UserError, match="contradict each other"):
        check_output(options(folder, resume=True, overwrite=True))


@pytest.mark.parametrize("name", ["README.md", "vocab.txt", "config.json", "1_Pooling/config.json", "metrics.jsonl"])
def test_a_file_that_no_run_has_left_is_not_replaced_unasked(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(UserError, match=f"{name} is in the way: the run would replace it"):
        run(tmp_path)
    assert file.read_text() == "mine"
    run(tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("README.md", True), ("1_Pooling", False), ("checkpoints", False), ("model.safetensors", True),
     ("confusion_matrix.png", True)],
)  # fmt: skip
def test_what_the_run_could_not_write_in_the_end_is_said_at_the_beginning(
    tmp_path: Path, name: str, folder: bool
) -> None:
    if folder:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=f"{name} is in the way of what the run writes: move it"):
        run(tmp_path, overwrite=True)


@pytest.mark.parametrize("encoder", ["run", "run/../run/", "run.zip", "run/model.safetensors"])
def test_what_is_read_is_not_what_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("model.safetensors", "config.json", "classifier.json"):
        (tmp_path / "run" / name).write_text("old")
    zip_classifier(tmp_path / "run")
    with pytest.raises(UserError, match=r"--encoder .* is in --output, which the run replaces"):
        check_output(options(tmp_path / "run", overwrite=True, encoder=encoder))
    with pytest.raises(UserError, match=r"--debias run is in --output"):
        check_output(NLIOptions(output="run", debias="run", overwrite=True))
    (tmp_path / "vocab.txt").write_text("[PAD]")
    with pytest.raises(UserError, match=r"--vocab vocab\.txt is in --output"):
        check_output(MLMOptions(output=".", vocab="vocab.txt", overwrite=True))


def test_overwriting_leaves_other_files_alone(tmp_path: Path) -> None:
    theirs = ["run/notes.txt", "run/1_Pooling/notes.txt", "run/checkpoints/notes.txt", "run/inner/model.safetensors",
              "run/data.jsonl", "run.zip"]  # fmt: skip
    ours = ["run/model.safetensors", "run/classifier.json", "run/1_Pooling/config.json", "run/confusion_matrix.png",
            "run/checkpoints/step-00000003.safetensors"]  # fmt: skip
    for name in (*theirs, *ours):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    run(tmp_path / "run", overwrite=True)
    assert set(contents(tmp_path)) == {*theirs, "run/metrics.jsonl", "run/options.json"}
    assert all((tmp_path / name).read_text() == name for name in theirs)


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        (["config.json", "classifier.json", "model.safetensors"], True),
        (["config.json", "classifier.json", "notes.txt"], False),
        (["vocab.txt"], False),
        ([], False),
    ],
)
def test_a_zip_beside_the_folder_goes_if_a_run_has_packed_it(tmp_path: Path, names: list[str], ours: bool) -> None:
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "old")
    run(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run.zip").exists() != ours


@pytest.mark.parametrize("save_every", [0, 1])
@pytest.mark.parametrize("what", ["moved", "removed", "replaced by a run", "replaced by a file", "parent moved"])
def test_a_run_whose_folder_is_taken_away_stops_and_touches_nothing(
    tmp_path: Path, what: str, save_every: int, whole: Outcome
) -> None:
    folder = tmp_path / "a" / "run"
    theirs: dict[str, bytes] = {}

    def meddle() -> None:
        if what == "removed":
            shutil.rmtree(folder)
        elif what == "parent moved":
            (tmp_path / "a").rename(tmp_path / "moved")
        else:
            folder.rename(tmp_path / "moved")
        if what == "replaced by a run":
            fail(folder, 12)
        if what == "replaced by a file":
            folder.write_text("")
        theirs.update(contents(tmp_path / "a"))

    with pytest.raises(UserError, match="was moved, removed or replaced during the run: nothing more") as error:
        run(folder, LineTask(scores=SCORES, on_loss=at(9, meddle)), save_every=save_every)
    assert "\n" not in str(error.value)
    assert contents(tmp_path / "a") == theirs
    assert what == "replaced by a run" or folder.is_dir() is False
    if what != "removed":  # it can go on where it is now
        moved = tmp_path / "moved" / "run" if what == "parent moved" else tmp_path / "moved"
        assert run(moved, resume=True, save_every=save_every)[0] == whole[0]


def test_each_of_a_dozen_gpus_goes_on_with_its_own_random_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins, whose state is their number. Where there is another number of GPUs, none is set."""
    restored: list[list[int]] = []

    def restore(states: list[torch.Tensor]) -> None:
        restored.append([int(state) for state in states])

    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [torch.tensor(number) for number in range(12)])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restore)
    for count in (12, 11, 0):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 12)
        fail(tmp_path / str(count), 9)
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        run(tmp_path / str(count), resume=True)
    assert restored == [list(range(12))]


@pytest.mark.parametrize("inner", ["inner", "checkpoints", "checkpoints/inner", "1_Pooling", "deep/er"])
def test_runs_in_each_others_folders_leave_each_other_alone(tmp_path: Path, inner: str, whole: Outcome) -> None:
    """In the middle of one, another is begun and ended in a folder above or below, and a third one overwrites it."""
    for mine, other in (("a", f"a/{inner}"), (f"b/{inner}", "b")):

        def another(other: Path = tmp_path / other) -> None:
            state = torch.get_rng_state()
            run(other, save_every=2)
            run(other, save_every=2, overwrite=True)
            torch.set_rng_state(state)

        assert run(tmp_path / mine, LineTask(scores=SCORES, on_loss=at(9, another)), save_every=2) == whole
        assert untimed(tmp_path / other) == whole[1]
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("name", ["special_tokens_map.json", "added_tokens.json", "config_sentence_transformers.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_would_become_part_of_the_model_is_refused_and_kept(
    tmp_path: Path, name: str, overwrite: bool
) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=rf"{name} would be read as a part of the new model"):
        check_output(options(tmp_path, overwrite=overwrite))
    assert (tmp_path / name).read_text() == "{}"


def test_an_output_that_no_file_of_weights_can_be_written_to_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its name is not UTF-8"):
        check_output(options(tmp_path / os.fsdecode(b"caf\xe9")))


def test_what_no_run_has_written_is_not_replaced_unasked(tmp_path: Path) -> None:
    """A run that came to nothing leaves two files; notes beside them are a person's, and so is a zip of that name."""
    chosen = NLIOptions(output=str(tmp_path / "run"), data="toy")
    (tmp_path / "run").mkdir()
    for name in ("options.json", "metrics.jsonl"):
        (tmp_path / "run" / name).write_text("{}\n")
    check_output(chosen)
    (tmp_path / "run.zip").write_text("an archive of one's own")
    check_output(chosen)
    with pytest.raises(UserError, match=r"run\.zip is in the way"):
        check_output(NLIOptions(output=str(tmp_path / "run"), data="toy", zip=True))
    (tmp_path / "run" / "README.md").write_text("notes")
    with pytest.raises(UserError, match=r"README\.md is in the way"):
        check_output(chosen)


def test_token_ids_are_kept_neither_in_the_output_nor_in_the_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for cache in ("out", "data", "data/cache", "data/../out"):
        output, data, folder = (str(tmp_path / name) for name in ("out", "data", cache))
        with pytest.raises(UserError, match=r"--cache .* is --output itself, or in --data"):
            check_output(MLMOptions(output=output, data=data, cache=folder))
    check_output(MLMOptions(output=str(tmp_path / "out"), data="toy", cache=str(tmp_path / "out" / "cache")))


def test_an_evaluation_writes_over_nothing_that_is_read_or_a_runs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nli").mkdir()
    for name in ("config.json", "evaluation.json", "confusion_matrix.png", "notes.json"):
        (tmp_path / "nli" / name).write_text("{}")
    Path("link.json").symlink_to("real.json")
    Path("test.csv").touch()
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"json": "nli/config.json"}, "--json nli/config.json is a file of the model"),
        ({"json": "./nli/../nli/evaluation.json"}, "is a file of the model"),
        ({"json": "a.csv", "predictions": "a.csv"}, "--json a.csv is a file of the model or of another option"),
        ({"figure": "a.png", "json": "b/../a.png"}, "--figure a.png is a file"),
        ({"json": "link.json"}, "--json link.json is a link"),
        ({"json": "/dev/stdout"}, "--json /dev/stdout is a link"),
        ({"predictions": "nli.csv", "json": "nli"}, "--json nli is a folder"),
        ({"predictions": "test.csv"}, "--predictions test.csv is, or lies in, what is to be read"),
    )
    for given, message in refused:
        with pytest.raises(UserError, match=message):
            check_written(EvaluateOptions(model="nli", data="test.csv", **given))
    fine: dict[str, Any] = {"json": "nli/notes.json", "predictions": "a.csv", "figure": "nli/confusion_matrix.png"}
    check_written(EvaluateOptions(model="nli", data="test.csv", **fine))


def test_a_word_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """toy for --data, train for --vocab: a run may go into folders of these names."""
    monkeypatch.chdir(tmp_path)
    assert check_output(MLMOptions(data="toy", vocab="train", output="train")) is None
    assert check_output(MLMOptions(data="toy", vocab="train", output="toy")) is None
    with pytest.raises(UserError, match="--start-from train is in --output"):
        check_output(MLMOptions(data="toy", start_from="train", output="train"))


def test_data_is_neither_replaced_nor_mixed_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run/metrics.jsonl", "toy/options.json"):
        Path(name).parent.mkdir()
        Path(name).write_text("{}\n")
    with pytest.raises(UserError, match=r"--data run/metrics\.jsonl is in --output"):
        check_output(MLMOptions(output="run", data="run/metrics.jsonl", overwrite=True))
    for place in ("run", "run/model", "elsewhere/../run/model"):
        with pytest.raises(UserError, match="is in --data"):
            check_output(MLMOptions(output=place, data="run", overwrite=True))
    check_output(MLMOptions(output="model", data="run"))
    for place in ("toy", "toy/model"):  # the toy world is not this folder
        check_output(MLMOptions(output=place, data="toy", overwrite=True))


def test_layers_that_share_their_weights_can_be_continued(tmp_path: Path) -> None:
    """As ALBERT's do."""

    class Shared(Line):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(2, 2)
            self.second = self.first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(self.second(self.first(x)))

    torch.manual_seed(0)
    model = Shared()
    run(tmp_path / "whole", LineTask(whole := deepcopy(model), SCORES))
    with pytest.raises(Stop):
        run(tmp_path / "part", LineTask(deepcopy(model), SCORES, on_loss=at(9, stop)))
    run(tmp_path / "part", LineTask(model, SCORES), resume=True)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in whole.state_dict().items())
