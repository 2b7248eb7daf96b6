"""A task small enough to compute by hand: a line fitted to points, with batches of unequal size."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from minibert.distributed import rank
from minibert.options import NLIOptions
from minibert.run import open_run
from minibert.training import Task
from minibert.training import train as train_in


@dataclass
class Points:
    x: Tensor
    y: Tensor
    tokens: int = 1

    @property
    def count(self) -> int:
        return len(self.y)

    def part(self, index: int, parts: int) -> "Points":
        """Unequal on purpose: the first part has one point, the last one all that is left."""
        end = len(self.y) if index == parts - 1 else index + 1
        return Points(self.x[index:end], self.y[index:end], self.tokens)

    def to(self, device: torch.device) -> "Points":
        return Points(self.x.to(device), self.y.to(device), self.tokens)


class Line(nn.Module):
    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -1.0]))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x) @ self.weight


class LineTask(Task):
    """Seven batches an epoch.

    Args:
        scores: what the validation of each epoch reports.
        on_loss, on_validation: called before each, with the number of losses there have been.
    """

    steps_per_epoch = 7

    def __init__(
        self,
        model: Any = None,
        scores: Sequence[float] = (),
        *,
        bad_step: int | None = None,
        scale: float = 1,
        on_loss: Callable[[int], object] = lambda losses: None,
        on_validation: Callable[[int], object] = lambda losses: None,
    ) -> None:
        self.model, self.scores, self.bad_step, self.scale = model or Line(), scores, bad_step, scale
        self.on_loss, self.on_validation = on_loss, on_validation
        self.score = "accuracy" if scores else None
        self.modes: list[bool] = []
        self.starts: list[tuple[int, int]] = []

    def batch(self, epoch: int, step: int) -> Points:
        generator = torch.Generator().manual_seed(100 * epoch + step)
        x = torch.randn(3 + step, 2, generator=generator)
        y = x @ torch.tensor([2.0, 3.0])
        if self.bad_step == epoch * self.steps_per_epoch + step:
            y = y * float("nan")
        return Points(x, y)

    def batches(self, epoch: int, start: int) -> Iterator[Points]:
        self.starts.append((epoch, start))
        return (self.batch(epoch, step) for step in range(start, self.steps_per_epoch))

    def loss(self, batch: Points) -> tuple[Tensor, dict[str, Tensor]]:
        self.on_loss(len(self.modes))
        self.modes.append(self.model.training)
        error = self.model(batch.x) - batch.y
        return self.scale * error.square().sum(), {"absolute": error.abs().sum()}

    def validate(self) -> dict[str, float]:
        assert not self.model.training
        assert not torch.is_grad_enabled()
        self.on_validation(len(self.modes))
        return {"accuracy": self.scores[self.starts[-1][0]] if self.scores else 0.0}

    def warnings(self, metrics: Mapping[str, float], step: int) -> list[str]:
        return ["no point is on the line"] if metrics["accuracy"] < 0 else []


def at(number: int, action: Callable[[], object]) -> Callable[[int], object]:
    """Does something once there have been so many losses."""
    return lambda losses: action() if losses == number else None


def options(output: Path, **changes: Any) -> NLIOptions:
    settings = {"learning_rate": 0.05, "schedule": "linear", "warmup_ratio": 0.2, "weight_decay": 0.1, "clip": 0.7,
                "epochs": 3, "log_every": 2, "save_every": 0}  # fmt: skip
    return NLIOptions(output=str(output), **{**settings, **changes})


def train(
    task: LineTask,
    chosen: NLIOptions,
    save: Callable[[Path], object] = lambda folder: None,
    identity: dict[str, Any] | None = None,
) -> LineTask:
    """One run, as the scripts do it, without what takes time and no test here looks at; returns its task."""
    with open_run(chosen) as run, patch("minibert.run.plot_training"), patch("minibert.files.os.fsync"):
        train_in(task, run, identity=identity or {}, start={})
        if rank() == 0:
            save(run.folder)
            run.finish()
    return task
