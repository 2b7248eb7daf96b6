"""Proves that a continued run is the uninterrupted one bit for bit, and that no folder is spoilt by mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from minibert.checkpoint import random_state, read_about, save_checkpoint
from minibert.errors import UserError
from minibert.run import check_output
from tests.metrics import records, untimed
from tests.toy_task import Line, LineTask, options, train


class Stop(Exception):
    """The power fails."""


class Failing(LineTask):
    """Stops dead before a step, or within a validation, as a kill would."""

    def __init__(self, model: Line, at: int, scores: list[float]) -> None:
        super().__init__(model, scores)
        self.at = at

    def loss(self, batch: Any) -> Any:
        if len(self.modes) == self.at:
            raise Stop
        return super().loss(batch)


SCORES = [0.5, 0.8, 0.6]


def fail(folder: Path, at: int, **changes: Any) -> None:
    """A run that stops dead after `at` losses."""
    with pytest.raises(Stop):
        train(Failing(Line(), at, SCORES), options(folder, **changes))


@pytest.mark.parametrize(("accumulate", "average"), [(1, False), (2, False), (1, True)])
@pytest.mark.parametrize("at", [3, 4, 7, 8, 13, 14, 20])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, at: int, accumulate: int, average: bool) -> None:
    """Checkpoints at every third step and at each epoch's end; killed after `at` steps; dropout on."""
    settings = {"save_every": 3, "accumulate": accumulate, "average": average}
    whole = LineTask(Line(), SCORES)
    train(whole, options(tmp_path / "whole", **settings))
    fail(tmp_path / "part", at * accumulate, **settings)
    resumed = LineTask(Line(), SCORES)
    resumed.validations = at // 7  # the scores are a list here; a real task computes them
    train(resumed, options(tmp_path / "part", **settings, resume=True))
    assert torch.equal(whole.model.weight, resumed.model.weight)
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "part")


@pytest.mark.parametrize("at", [10, 11])
def test_resumed_at_the_last_step_trains_no_further(tmp_path: Path, at: int) -> None:
    """Ten steps are asked for, three of them in the second epoch; the power fails after them, in the validation."""

    class FailingValidation(LineTask):
        def validate(self) -> dict[str, float]:
            if len(self.modes) == 10:
                raise Stop
            return super().validate()

    settings = {"max_steps": 10, "save_every": 5 if at == 10 else 3}
    whole = LineTask(Line(), SCORES)
    train(whole, options(tmp_path / "whole", **settings))
    with pytest.raises(Stop):
        train(FailingValidation(Line(), SCORES), options(tmp_path / "part", **settings))
    resumed = LineTask(Line(), SCORES)
    resumed.validations = 1
    train(resumed, options(tmp_path / "part", **settings, resume=True))
    assert torch.equal(whole.model.weight, resumed.model.weight)
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "part")
    assert len(resumed.modes) == (0 if at == 10 else 1)


def test_the_time_of_a_resumed_run_is_that_of_all_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a second a step, and by an hour while nothing runs."""
    now = [0.0]
    monkeypatch.setattr("minibert.training.time.monotonic", lambda: now[0])

    def ticking(task: LineTask) -> LineTask:
        loss = task.loss

        def timed(batch: Any) -> Any:
            result = loss(batch)
            now[0] += 1
            return result

        task.loss = timed  # type: ignore[method-assign]
        return task

    with pytest.raises(Stop):
        train(ticking(Failing(Line(), 12, SCORES)), options(tmp_path, save_every=3))
    now[0] += 3_600
    resumed = LineTask(Line(), SCORES)
    resumed.validations = 1
    train(ticking(resumed), options(tmp_path, save_every=3, resume=True))
    assert untimed(tmp_path)[-1]["kind"] == "end"
    assert records(tmp_path, "end")[0]["seconds"] == 21


def test_a_run_killed_while_it_saves_its_model_resumes_to_the_same_model(tmp_path: Path) -> None:
    def stop(_: Path) -> None:
        raise Stop

    whole, resumed = LineTask(Line(), SCORES), LineTask(Line(), SCORES)
    with pytest.raises(Stop):
        train(whole, options(tmp_path), stop)
    train(resumed, options(tmp_path, resume=True))
    assert torch.equal(whole.model.weight, resumed.model.weight)
    assert [record["kind"] for record in untimed(tmp_path)].count("end") == 1
    assert resumed.starts == []


def test_resuming_starts_in_the_middle_of_the_epoch(tmp_path: Path) -> None:
    fail(tmp_path, 12, save_every=3)
    resumed = LineTask(Line(), SCORES)
    train(resumed, options(tmp_path, save_every=3, resume=True))
    assert resumed.starts == [(1, 5), (2, 0)]


def test_the_last_two_checkpoints_are_kept_until_the_model_is_saved(tmp_path: Path) -> None:
    at_the_end = []

    def look(folder: Path) -> None:
        at_the_end.extend(sorted(path.name for path in (folder / "checkpoints").iterdir()))

    train(LineTask(Line(), SCORES), options(tmp_path, save_every=2), look)
    assert at_the_end == ["best.safetensors", "step-00000020.safetensors", "step-00000021.safetensors"]
    assert not (tmp_path / "checkpoints").exists()


def test_a_run_killed_while_it_removes_its_checkpoints_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Death comes as soon as anything is removed; what is left must not look like a run to be resumed."""

    def die(folder: Path, **_: object) -> None:
        if list(folder.glob("*.safetensors")):
            raise KeyboardInterrupt

    monkeypatch.setattr("minibert.training.run.shutil.rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        train(LineTask(Line(), SCORES), options(tmp_path, save_every=2))
    assert not (tmp_path / "checkpoints").exists()
    assert list(tmp_path.glob(".partial-checkpoints/best.safetensors"))


def test_options_are_written_and_a_contradiction_is_refused(tmp_path: Path) -> None:
    fail(tmp_path, 12)
    written = json.loads((tmp_path / "options.json").read_text())
    assert (written["learning_rate"], written["seed"], written["clip"]) == (0.05, 42, 0.7)
    check_output(options(tmp_path, save_every=5, resume=True))  # does not change what is computed
    with pytest.raises(UserError, match=r"--clip 0\.9 contradicts the run to be resumed, which has 0\.7"):
        check_output(options(tmp_path, clip=0.9, resume=True))
    with pytest.raises(UserError, match=r"--accumulate 2 contradicts the run to be resumed, which has 1"):
        check_output(options(tmp_path, accumulate=2, resume=True))


def test_folders_that_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    check_output(options(folder))
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        check_output(options(folder, resume=True))
    fail(folder, 12)
    with pytest.raises(UserError, match="has an unfinished run"):
        check_output(options(folder))
    check_output(options(folder, overwrite=True))
    train(LineTask(Line(), SCORES), options(folder, overwrite=True))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="has a finished model"):
        check_output(options(folder))
    with pytest.raises(UserError, match="the run in it is finished"):
        check_output(options(folder, resume=True))
    with pytest.raises(UserError, match="contradict each other"):
        check_output(options(folder, resume=True, overwrite=True))


def test_overwriting_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "model.safetensors").write_text("old")
    train(LineTask(Line(), SCORES), options(tmp_path, overwrite=True))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "model.safetensors").exists()


def test_a_damaged_or_foreign_checkpoint_is_one_line(tmp_path: Path) -> None:
    fail(tmp_path, 12)
    last = sorted((tmp_path / "checkpoints").glob("step-*"))[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        check_output(options(tmp_path, resume=True))
    last.write_bytes(whole)
    other = torch.nn.Linear(5, 1)
    save_checkpoint(last, read_about(last), [random_state()], other, torch.optim.AdamW(other.parameters()))
    with pytest.raises(UserError, match="does not fit the model"):
        train(LineTask(Line(), SCORES), options(tmp_path, resume=True))
