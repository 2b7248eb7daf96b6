"""Proves that the loop is the notebook's loop (by a hand-written one), logs honest means, and stops when it should."""

import json
import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from minibert.errors import Interrupted, UserError
from tests.training.toy_task import Line, LineTask, options, train


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


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
    task = LineTask(Line())
    train(task, options(tmp_path, max_steps=max_steps))
    _, _, expected = by_hand(3, max_steps or 21)
    torch.testing.assert_close(task.model.weight, expected.weight)
    assert all(task.modes)
    assert task.model.training


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_accumulated_is_the_whole_batch_at_once(tmp_path: Path, parts: int) -> None:
    """Parts of one point each but the last, which is empty if 5 are made of 3 points. The gradient is that of the mean
    over all points, its norm is clipped once, and what is logged is the same, too."""
    task = LineTask(Line(dropout=0))
    train(task, options(tmp_path, accumulate=parts, log_every=1))
    sums, counts, expected = by_hand(3, 21, dropout=0)
    torch.testing.assert_close(task.model.weight, expected.weight)
    logged = [record["loss"] for record in records(tmp_path, "train")]
    assert logged == pytest.approx([a / b for a, b in zip(sums, counts, strict=True)], rel=1e-5)


def test_logged_means_are_over_predictions_and_never_mix_epochs(tmp_path: Path) -> None:
    """Windows of two steps; epochs have seven, so the last window of each has one. Dropout draws are replayed."""
    train(LineTask(Line()), options(tmp_path))
    sums, counts, _ = by_hand(3, 21)
    windows = []
    for epoch in range(3):
        edges = sorted({7 * epoch, *(step for step in range(7 * epoch, 7 * epoch + 8) if step % 2 == 0), 7 * epoch + 7})
        edges = [edge for edge in edges if edge <= 7 * epoch + 7]
        windows += list(pairwise(edges))
    logged = records(tmp_path, "train")
    assert [record["step"] for record in logged] == [end for _, end in windows]
    for record, (start, end) in zip(logged, windows, strict=True):
        assert record["loss"] == pytest.approx(sum(sums[start:end]) / sum(counts[start:end]), rel=1e-5)
        assert record["epoch"] == start // 7 + 1


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    weights = []

    class Watched(LineTask):
        def validate(self) -> dict[str, float]:
            weights.append(self.model.weight.detach().clone())
            return super().validate()

    task = Watched(Line(), scores=[0.3, 0.9, 0.9])  # the first of equals
    train(task, options(tmp_path))
    assert torch.equal(task.model.weight, weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert records(tmp_path, "end")[0]["best_epoch"] == 2


@pytest.mark.parametrize("bad_step", [0, 3, 6, 12])
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tmp_path: Path, bad_step: int) -> None:
    with pytest.raises(UserError, match=rf"not a number any more at step {bad_step + 1}:"):
        train(LineTask(Line(), bad_step=bad_step), options(tmp_path))
    for checkpoint in tmp_path.glob("checkpoints/*"):
        from safetensors.torch import load_file

        assert all(tensor.isfinite().all() for tensor in load_file(checkpoint).values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(tmp_path: Path, number: int) -> None:
    class Interrupting(LineTask):
        def loss(self, batch: Any) -> Any:
            if len(self.modes) == 9:
                os.kill(os.getpid(), number)
            return super().loss(batch)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="stopped at step 10") as stop:
        train(Interrupting(Line()), options(tmp_path))
    assert stop.value.signal == number
    assert signal.getsignal(number) is before
    resumed = LineTask(Line())
    train(resumed, options(tmp_path, resume=True))
    _, _, expected = by_hand(3, 21)
    torch.testing.assert_close(resumed.model.weight, expected.weight)
