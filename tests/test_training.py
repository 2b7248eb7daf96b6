"""Proves that the loop is the notebook's loop (by a hand-written one), logs honest means, and stops when it should."""

import json
import math
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm

from minibert.cli import parse_options
from minibert.errors import Interrupted, UserError
from minibert.options import NLIOptions
from minibert.run import Run
from minibert.training import Trainer
from tests.metrics import records
from tests.toy_task import Line, LineTask, at, options, train

ROOT = Path(__file__).parent.parent


def by_hand(epochs: int, steps: int, dropout: float = 0.2) -> tuple[list[float], list[int], Line]:
    """The notebook's loop: forward, mean loss, backward, clip, step, schedule."""
    torch.manual_seed(42)
    task = LineTask(model := Line(dropout))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    warmup = int(steps * 0.2)
    sums: list[float] = []
    counts: list[int] = []
    for epoch in range(epochs):
        for step in range(7):
            taken = len(sums)
            if taken == steps:
                break
            factor = taken / warmup if taken < warmup else (steps - taken) / (steps - warmup)
            optimizer.param_groups[0]["lr"] = 0.05 * factor
            batch = task.batch(epoch, step)
            loss = (model(batch.x) - batch.y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.7)
            optimizer.step()
            sums.append(loss.item() * len(batch.y))
            counts.append(len(batch.y))
    return sums, counts, model


@pytest.mark.parametrize("max_steps", [0, 10])
def test_is_the_notebooks_loop(tmp_path: Path, max_steps: int) -> None:
    task = train(LineTask(), options(tmp_path, max_steps=max_steps))
    _, _, expected = by_hand(3, max_steps or 21)
    torch.testing.assert_close(task.model.weight, expected.weight)
    assert all(task.modes)
    assert task.model.training


def test_a_step_without_a_prediction_is_no_error(tmp_path: Path) -> None:
    """As of a short text in which no token happens to be masked. For AdamW, its gradient is one of zeros, which is not
    said to have vanished."""

    class Empty(LineTask):
        def batch(self, epoch: int, step: int) -> Any:
            points = super().batch(epoch, step)
            return points.part(0, 2).part(1, 2) if step == 3 else points

    task = train(Empty(), options(tmp_path, log_every=1))
    assert task.batch(0, 3).count == 0
    losses = [record["loss"] for record in records(tmp_path, "train")]
    assert (len(losses), losses.count(0)) == (21, 3)
    assert not records(tmp_path, "warning")

    trainer = Trainer(task, Run(options(tmp_path, schedule="constant", warmup_ratio=0)))
    trainer.step(task.batch(0, 0))
    expected, weights = deepcopy(trainer.optimizer.state_dict()), task.model.weight.detach().clone()
    trainer.step(task.batch(0, 3))
    by_hand = torch.optim.AdamW([weights.requires_grad_()], lr=0.05, weight_decay=0.1)
    by_hand.load_state_dict(expected)
    weights.grad = torch.zeros(2)
    by_hand.step()
    torch.testing.assert_close(task.model.weight, weights)


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_accumulated_is_the_whole_batch_at_once(tmp_path: Path, parts: int) -> None:
    """Parts of one point each but the last, which is empty if 5 are made of 3 points. The gradient is that of the mean
    over all points, its norm is clipped once, and what is logged is the same, too."""
    task = train(LineTask(Line(dropout=0)), options(tmp_path, accumulate=parts, log_every=1))
    sums, counts, expected = by_hand(3, 21, dropout=0)
    torch.testing.assert_close(task.model.weight, expected.weight)
    logged = [record["loss"] for record in records(tmp_path, "train")]
    assert logged == pytest.approx([a / b for a, b in zip(sums, counts, strict=True)], rel=1e-5)


def test_logged_means_are_over_predictions_and_never_mix_epochs(tmp_path: Path) -> None:
    """Windows of two steps; epochs have seven, so the last window of each has one. Dropout draws are replayed."""
    train(LineTask(), options(tmp_path))
    sums, counts, _ = by_hand(3, 21)
    edges = sorted({0, 7, 14, 21, *range(0, 21, 2)})
    windows = list(pairwise(edges))
    logged = records(tmp_path, "train")
    assert [record["step"] for record in logged] == [end for _, end in windows]
    for record, (start, end) in zip(logged, windows, strict=True):
        assert record["loss"] == pytest.approx(sum(sums[start:end]) / sum(counts[start:end]), rel=1e-5)
        assert record["epoch"] == start // 7 + 1


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (3, 1), (39, 1), (40, 2), (410, 20), (2_000, 100), (90_000, 100)])
def test_a_run_has_twenty_points_to_draw_or_all_its_steps(tmp_path: Path, steps: int, every: int) -> None:
    task = LineTask()
    task.steps_per_epoch = steps
    chosen = options(tmp_path, epochs=1, log_every=0)
    assert Trainer(task, Run(chosen)).log_every == every
    assert Trainer(task, Run(replace(chosen, log_every=7))).log_every == 7
    if steps < 50:
        train(task, chosen)
        assert [line["step"] for line in records(tmp_path, "train")] == [*range(every, steps + 1, every)]


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    weights = []
    task = LineTask(scores=[0.3, 0.9, 0.9], on_validation=lambda _: weights.append(task.model.weight.tolist()))
    train(task, options(tmp_path))
    assert task.model.weight.tolist() == weights[1] != weights[2]  # the first of equals
    assert records(tmp_path, "end")[0]["best_epoch"] == 2


@pytest.mark.parametrize("bad_step", [0, 3, 6, 12])
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tmp_path: Path, bad_step: int) -> None:
    """At the very first step, before any update, no learning rate is to blame."""
    place = rf"step {bad_step + 1}, batch {bad_step % 7 + 1} of epoch {bad_step // 7 + 1}"
    said = (
        f"any more at {place}: a lower --learning-rate usually helps, or more than 21"
        if bad_step
        else f"at {place}: suspect the weights"
    )
    with pytest.raises(UserError, match=f"the loss or its gradient is not a number {said}") as error:
        train(LineTask(bad_step=bad_step), options(tmp_path, save_every=1))
    kept = sorted(tmp_path.glob("checkpoints/*"))
    assert [path.name for path in kept] == [
        f"step-{step:08d}.safetensors" for step in range(bad_step - 1, bad_step + 1) if step > 0
    ]
    assert (f"{kept[-1]} is from before" in str(error.value)) if kept else ("before" not in str(error.value))
    assert all(tensor.isfinite().all() for path in kept for tensor in load_file(path).values())


def test_a_gradient_that_is_no_number_stops_the_run_before_a_checkpoint_has_it(tmp_path: Path) -> None:
    """The loss is fine at that step; its gradient is not, and after the step no weight is."""

    class Steep(LineTask):
        def loss(self, batch: Any) -> Any:
            loss, extras = super().loss(batch)
            if len(self.modes) == 5:
                loss = loss + (self.model.weight * 0).sqrt().sum()
                assert loss.isfinite()
            return loss, extras

    with pytest.raises(UserError, match=r"not a number any more at step 5, batch 5 of epoch 1"):
        train(Steep(), options(tmp_path, save_every=1))
    kept = sorted(tmp_path.glob("checkpoints/*"))
    assert [path.name for path in kept] == ["step-00000003.safetensors", "step-00000004.safetensors"]
    assert all(tensor.isfinite().all() for path in kept for tensor in load_file(path).values())


def warnings_of(folder: Path) -> list[tuple[int, str]]:
    return [(record["step"], record["text"]) for record in records(folder, "warning")]


def test_vanished_gradients_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(LineTask(scale=1e-9), options(tmp_path, epochs=1))
    assert [step for step, _ in warnings_of(tmp_path)] == [2, 4, 6, 7]
    assert "warning: gradients have vanished (mean norm " in capsys.readouterr().out
    train(LineTask(), options(tmp_path / "fine", epochs=1))
    assert warnings_of(tmp_path / "fine") == []


def test_what_a_task_finds_wrong_is_said_at_its_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(LineTask(scores=[0.5, -1, 0.2]), options(tmp_path))
    assert warnings_of(tmp_path) == [(14, "no point is on the line")]
    assert "warning: no point is on the line" in capsys.readouterr().out


def test_the_gradients_norm_is_recorded(tmp_path: Path) -> None:
    """By hand: of the first batch's mean squared error, before it is clipped."""
    task = train(LineTask(Line(dropout=0)), options(tmp_path, log_every=1, max_steps=1))
    batch = task.batch(0, 0)
    by_hand = 2 * batch.x.T @ (batch.x @ torch.tensor([1.0, -1.0]) - batch.y) / batch.count
    (norm,) = [record["gradient_norm"] for record in records(tmp_path, "train")]
    assert norm == pytest.approx(by_hand.norm().item(), rel=1e-5)
    assert norm > options(tmp_path).clip


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """None is ignored, though the suite itself may run under nohup or in a shell's background."""
    usual: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGTERM: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def go_on(chosen: NLIOptions) -> None:
    """With a run that was stopped, to the end of the loop written by hand."""
    torch.testing.assert_close(train(LineTask(), chosen).model.weight, by_hand(3, 21)[2].weight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_stops(tmp_path: Path, number: int, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        send(number)
        assert capfd.readouterr().err == "stopping after this step, with a checkpoint (Ctrl-C again: at once)\n"

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="stopped at step 10") as stop:
        train(LineTask(on_loss=at(9, interrupt)), options(tmp_path))
    assert stop.value.status == 128 + number
    assert signal.getsignal(number) is before
    go_on(options(tmp_path, resume=True))


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_signal_in_a_validation_stops_the_run_too(tmp_path: Path, epoch: int) -> None:
    with pytest.raises(Interrupted, match=f"stopped at step {7 * epoch}, which is saved"):
        train(LineTask(on_validation=at(7 * epoch, partial(send, signal.SIGTERM))), options(tmp_path))
    go_on(options(tmp_path, resume=True))


@pytest.mark.parametrize("change", [{}, {"overwrite": True}], ids=str)
def test_a_stopped_run_says_how_it_goes_on_and_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """From whatever folder: the script is where it is."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Interrupted, match=r"stopped at step 10, which is saved; to continue: ") as stop:
        train(LineTask(on_loss=at(9, partial(send, signal.SIGTERM))), options(tmp_path / "a b", **change))
    python, script, *flags = shlex.split(str(stop.value).split("continue: ")[1])
    assert Path(script).resolve() == ROOT / "train_nli.py"
    assert flags == ["--output", str(tmp_path / "a b"), "--resume"]
    assert Path(shutil.which(python) or "").samefile(sys.executable)
    go_on(parse_options(NLIOptions, flags, ""))


def test_a_second_ctrl_c_stops_in_the_middle_of_a_step(tmp_path: Path) -> None:
    twice = at(9, partial(send, signal.SIGINT, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match="--resume goes on from the last checkpoint, if there is one"):
        train(LineTask(on_loss=twice), options(tmp_path, save_every=4))
    checkpoints = sorted(path.name for path in (tmp_path / "checkpoints").glob("step*"))
    assert checkpoints == ["step-00000007.safetensors", "step-00000008.safetensors"]  # an epoch has 7 steps


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_is_ignored_stays_so(tmp_path: Path, number: int, capfd: pytest.CaptureFixture[str]) -> None:
    """SIGHUP, of a closed terminal, under nohup; SIGINT, of Ctrl-C, in a shell's background."""
    signal.signal(number, signal.SIG_IGN)
    train(LineTask(on_loss=lambda _: send(number)), options(tmp_path))
    assert records(tmp_path, "end")
    assert "stopping" not in capfd.readouterr().err
    assert signal.getsignal(number) is signal.SIG_IGN


def test_the_bar_has_the_loss_from_the_first_step_and_says_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(LineTask(), options(tmp_path / "first", log_every=1, max_steps=1))
    (first,) = records(tmp_path / "first", "train")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("minibert.progress.tqdm", partial(tqdm, mininterval=0))  # every step is shown
    capsys.readouterr()
    train(LineTask(), options(tmp_path / "run", log_every=1_000))
    shown = capsys.readouterr().err.split("\r")
    assert any(re.match(rf"training +5%\|.*\| 1/21, loss {first['loss']:.4f} ", bar) for bar in shown)
    said = [bar.split()[0] for bar in shown if " 7/21" in bar]
    assert list(dict.fromkeys(said)) == ["training", "validating"]
    assert said[-1] == "training"


class Pair(nn.Module):
    """A matrix and a bias: two groups of parameters where matrices alone are decayed."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[1.0, -1.0]]))
        self.bias = nn.Parameter(torch.tensor([0.5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.matrix.T).squeeze(1) + self.bias


def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[float, float]]]:
    """For each step from now on, each group's learning rate and the norm of its gradients."""
    seen = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any) -> Any:
        seen.append([
            (group["lr"], nn.utils.get_total_norm([p.grad for p in group["params"]]).item())
            for group in self.param_groups
        ])  # fmt: skip
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    return seen


@pytest.mark.parametrize("decayed", ["all", "matrices"])
def test_every_group_has_the_schedules_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decayed: str) -> None:
    """21 steps, 4 of them of warm-up, then down to 0."""
    seen = steps_taken(monkeypatch)
    train(LineTask(Pair()), options(tmp_path, decayed=decayed))
    assert {len(groups) for groups in seen} == {2 if decayed == "matrices" else 1}
    expected = [0.05 * (step / 4 if step < 4 else (21 - step) / 17) for step in range(21)]
    for groups, rate in zip(seen, expected, strict=True):
        assert [lr for lr, _ in groups] == pytest.approx([rate] * len(groups))


@pytest.mark.parametrize("clip", [0.25, 3.0, 1e9])
def test_gradients_are_clipped_to_the_very_norm_and_recorded_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: float
) -> None:
    """AdamW hardly notices how long a gradient is, so the gradient itself is looked at. Of both groups together."""
    seen = steps_taken(monkeypatch)
    train(LineTask(Pair()), options(tmp_path, decayed="matrices", clip=clip, log_every=1))
    recorded = [record["gradient_norm"] for record in records(tmp_path, "train")]
    assert max(recorded) > 3.5
    assert min(recorded) < 25
    for groups, before in zip(seen, recorded, strict=True):
        after = math.hypot(*(norm for _, norm in groups))
        assert after == pytest.approx(min(before, clip), rel=1e-4)


def test_the_recorded_norm_is_the_mean_over_the_steps(tmp_path: Path) -> None:
    train(LineTask(), options(tmp_path / "each", log_every=1))
    train(LineTask(), options(tmp_path / "three", log_every=3))
    each, three = ([r["gradient_norm"] for r in records(tmp_path / name, "train")] for name in ("each", "three"))
    expected = [np.mean(each[first:end]) for first, end in ((0, 3), (3, 6), (6, 7), (7, 9), (9, 12), (12, 14))]
    assert three[:6] == pytest.approx(expected)
    assert len({round(norm, 3) for norm in each[:3]}) == 3


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(("name", "epoch"), [("held_out_loss", 1), ("accuracy", 2), ("pseudo_perplexity", 3)])
def test_a_metric_that_is_no_number_ends_the_run_and_is_never_written(
    tmp_path: Path, name: str, value: float, epoch: int
) -> None:
    class Diverging(LineTask):
        def validate(self) -> dict[str, float]:
            metrics = {"held_out_loss": 1.0, **super().validate()}
            return metrics | ({name: value} if len(self.modes) == 7 * epoch else {})

    with pytest.raises(UserError, match=f"diverged: {name.replace('_', ' ')} is {value} at step {7 * epoch}") as error:
        train(Diverging(scores=[0.1, 0.2, 0.3]), options(tmp_path))
    assert "a lower --learning-rate" in str(error.value)
    kept = [path.name for path in (tmp_path / "checkpoints").glob("*")]
    assert sorted(kept) == [f"step-{7 * number:08d}.safetensors" for number in range(1, epoch)]
    assert ("is from before" in str(error.value)) == (epoch > 1)
    assert len(records(tmp_path, "validation")) == epoch - 1
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_a_sum_of_finite_losses_that_overflows_is_a_number(tmp_path: Path) -> None:
    """Two steps of 3e38 in one line of progress: more than float32 holds, but each of them can be learned from."""

    class Huge(LineTask):
        def loss(self, batch: Any) -> Any:
            loss, extras = super().loss(batch)
            return loss * 0 + self.model.weight.sum() * 0 + 3e38, extras

    train(Huge(), options(tmp_path, epochs=1, log_every=7))
    (record,) = records(tmp_path, "train")
    assert record["loss"] == pytest.approx(7 * 3e38 / sum(range(3, 10)), rel=1e-6)


def test_a_thread_trains_too(tmp_path: Path) -> None:
    """Where Python lets nobody catch a signal."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(train, LineTask(), options(tmp_path)).result()
    assert records(tmp_path, "end")


def test_the_time_of_validations_and_checkpoints_is_not_that_of_the_next_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes on by a second a step, an hour a validation and a day a checkpoint; a step has one token."""
    now, written = [0.0], Run.save
    monkeypatch.setattr("minibert.training.time.perf_counter", lambda: now[0])

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    def save(self: Run[Any], *arguments: Any) -> None:
        pass_time(86_400)
        written(self, *arguments)

    monkeypatch.setattr(Run, "save", save)
    slow = LineTask(on_loss=lambda _: pass_time(1), on_validation=lambda _: pass_time(3_600))
    train(slow, options(tmp_path, save_every=4))
    assert now[0] > 7 * 86_400  # three epochs of seven steps
    assert {record["tokens_per_second"] for record in records(tmp_path, "train")} == {1.0}
