"""Proves that the average has the weights of its source's formula, and that training does not notice it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from minibert.optimizer import Average
from tests.metrics import records
from tests.toy_task import Line, LineTask, options, train


def shares(steps: int) -> np.ndarray:
    """(steps,) what each step counts for: i (i + 1) ... (i + 7), as a share of all of it."""
    rising = np.array([np.prod(np.arange(i, i + 8, dtype=np.float64)) for i in range(1, steps + 1)])
    return rising / rising.sum()


def test_a_hand_computed_average() -> None:
    """After two steps the first one counts 8! / (8! + 9! / 1!) = 1 / 10; after three, 1 / 55, 9 / 55 and 45 / 55."""
    line = Line()
    average = Average(line)
    for step, (value, expected) in enumerate(((5.0, 5.0), (15.0, 14.0), (-7.0, (5 + 9 * 15 - 45 * 7) / 55))):
        line.weight.data.fill_(value)
        average.update(step)
        torch.testing.assert_close(average.means["weight"], torch.full((2,), expected))


@pytest.mark.parametrize("steps", [1, 20, 300])
def test_later_weights_count_for_more(steps: int) -> None:
    line = Line()
    average = Average(line)
    weights = torch.randn(steps, 2, generator=torch.Generator().manual_seed(0))
    for step, weight in enumerate(weights):
        line.weight.data.copy_(weight)
        average.update(step)
    torch.testing.assert_close(average.means["weight"].double(), torch.from_numpy(shares(steps)) @ weights.double())


def test_the_model_and_the_average_exchange_their_weights() -> None:
    line = Line()
    average = Average(line)
    average.means["weight"].fill_(9.0)
    for mean, own in (([1.0, -1.0], [9.0, 9.0]), ([9.0, 9.0], [1.0, -1.0])):
        average.exchange()
        assert line.weight.tolist() == own
        assert average.means["weight"].tolist() == mean
    line.weight.data.add_(1)  # they share no memory
    assert average.means["weight"].tolist() == [9.0, 9.0]


class Watched(LineTask):
    """Remembers the weights that are validated."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__(Line(), scores)
        self.validated: list[torch.Tensor] = []

    def validate(self) -> dict[str, float]:
        self.validated.append(self.model.weight.detach().clone())
        return super().validate()


@pytest.mark.parametrize("scores", [[], [0.3, 0.9, 0.5]])
def test_the_average_is_validated_and_kept(tmp_path: Path, scores: list[float]) -> None:
    """With a constant rate, runs that end after one step, after two and so on have the weights of each step."""
    after_each = []
    for steps in range(1, 22):
        train(task := Watched([]), options(tmp_path / f"{steps}", max_steps=steps, schedule="constant", warmup_ratio=0))
        after_each.append(task.model.weight.detach().double())
    train(task := Watched(scores), options(tmp_path / "average", schedule="constant", warmup_ratio=0, average=True))
    for epoch in (1, 2, 3):
        expected = torch.from_numpy(shares(7 * epoch)) @ torch.stack(after_each[: 7 * epoch])
        torch.testing.assert_close(task.validated[epoch - 1].double(), expected)
    assert torch.equal(task.model.weight, task.validated[1 if scores else 2])


def test_training_does_not_notice(tmp_path: Path) -> None:
    losses = []
    for average in (False, True):
        train(LineTask(Line()), options(tmp_path / f"{average}", average=average, log_every=1))
        losses.append([line["loss"] for line in records(tmp_path / f"{average}", "train")])
    assert losses[0] == losses[1]
