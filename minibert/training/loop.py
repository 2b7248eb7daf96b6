"""The one training loop: forward, backward, clip, step; log, validate, checkpoint.

It knows a task only as something that gives batches and a loss, so both trainings run through it:

    loss(batch) -> (sum, extras)

`sum` is the loss summed over the batch's `count` predictions, `extras` are further sums to be averaged and logged. The
gradient of a step is that of sum / count over the whole batch, in however many parts it is computed: `accumulate` parts
one after another on each rank of a distributed run. A mean of the parts' means would weigh a prediction by how few
others happen to be in its part.

Nothing here waits for the device at each step: sums stay where they are until a line of progress is due.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from minibert.config import TrainingOptions
from minibert.errors import Interrupted, UserError
from minibert.training.averaging import averaged
from minibert.training.checkpoint import list_checkpoints, save_best, save_checkpoint
from minibert.training.distributed import distribute, gather, hold_gradients, largest, once, rank, together, world_size
from minibert.training.optim import Schedule
from minibert.training.progress import Progress

VANISHED = 1e-6  # a gradient norm that float32 hardly tells from none; with BERTs it is mostly between 0.1 and 10


class Batch(Protocol):
    """What the loop has to know of a batch."""

    tokens: int  # how many real tokens it has, for the rate that is shown

    @property
    def count(self) -> int:
        """How many predictions its loss is summed over."""

    def part(self, index: int, parts: int) -> Any:
        """One of `parts` slices of it, which may have no prediction; the batch itself if `parts` is 1."""

    def to(self, device: torch.device) -> Any:
        """The same batch on another device."""


class Task(Protocol):
    """What the loop has to know of a task."""

    steps_per_epoch: int

    @property
    def score(self) -> str | None:
        """The validation figure, higher is better, that picks the best epoch; None keeps the last one."""

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """The batches of an epoch from batch `start` on, one a step; the same ones at every call and on every rank."""

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss summed over the predictions of a batch or a part of one, and further sums by name."""

    def validate(self) -> dict[str, float]:
        """Figures on held-out data, equal on all ranks. The loop sets evaluation mode before, training mode after."""

    def warnings(self, figures: Mapping[str, float], /) -> list[str]:
        """What in a validation's figures shows that training has gone wrong, a sentence each."""


class Loss(nn.Module):
    """A task's loss as a module, which is what can be distributed over ranks."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch on the model's device; 0 if it predicts nothing.

        That 0 depends on all parameters, so that a rank with nothing to do still has gradients to exchange.
        """
        if batch.count:
            return self.task.loss(batch)
        return torch.stack([parameter.sum() for parameter in self.model.parameters()]).sum() * 0, {}


@dataclass
class Place:
    """Where a run is: the part of a checkpoint that is not tensors.

    Attributes:
        step: steps taken in all.
        epoch: epochs completed.
        batch: batches done in the current epoch.
        best_epoch, best_score: the best validation so far.
        metrics_bytes: the length of metrics.jsonl at this place.
        seconds: spent so far, interruptions left out.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    metrics_bytes: int = 0
    seconds: float = 0.0


@dataclass
class Window:
    """Sums since the last line of progress, kept on the device.

    Attributes:
        losses: each step's sum over its predictions, of this rank's parts.
        norms: each step's gradient norm before clipping.
        count, tokens: predictions and tokens, of all ranks.
        extras: further sums by name, of this rank's parts.
        started: when, on the clock `time.perf_counter`.
    """

    losses: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    count: int = 0
    tokens: int = 0
    extras: dict[str, Tensor] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def add(self, batch: Batch, losses: Sequence[Tensor], extras: Sequence[Mapping[str, Tensor]], norm: Tensor) -> None:
        """Take in one step: its whole batch, what each of this rank's parts of it gave, and the gradient's norm."""
        self.losses.append(torch.stack([loss.detach() for loss in losses]).sum())
        self.norms.append(norm)
        self.count += batch.count
        self.tokens += batch.tokens
        for sums in extras:
            for name, value in sums.items():
                self.extras[name] = self.extras.get(name, 0) + value.detach()

    def of_all_ranks(self) -> Window:
        """The window with the other ranks' sums added."""
        if world_size() == 1:
            return self
        extras = {name: value.cpu() for name, value in self.extras.items()}
        total = Window(norms=self.norms, count=self.count, tokens=self.tokens, started=self.started)
        for losses, sums in gather((torch.stack(self.losses).cpu(), extras)):
            total.losses = [a + b for a, b in zip(total.losses, losses, strict=True)] if total.losses else list(losses)
            for name, value in sums.items():
                total.extras[name] = total.extras.get(name, 0) + value
        return total

    def means(self) -> dict[str, float]:
        """Averages over all predictions of the window."""
        loss, count = torch.stack(self.losses).sum().item(), max(self.count, 1)  # a short text may have no masked token
        seconds = time.perf_counter() - self.started
        return {
            "loss": loss / count,
            **{name: value.item() / count for name, value in self.extras.items()},
            "gradient_norm": torch.stack(self.norms).mean().item(),
            "tokens_per_second": self.tokens / seconds,
        }

    def first_bad_step(self) -> int | None:
        """How many steps into the window the loss or its gradient stopped being a number, if they did."""
        good = torch.stack(self.losses).isfinite() & torch.stack(self.norms).to(self.losses[0].device).isfinite()
        bad = (~good).nonzero()
        return int(bad[0]) if len(bad) else None


@dataclass
class Trainer:
    """Trains a model on a task. In a distributed run, each rank has one, and what they do is done by all of them.

    Attributes:
        model: its parameters are trained in place.
        task: gives batches, losses and validation figures.
        optimizer: its learning rate is set before each step.
        schedule: the factor on `options.learning_rate`, by steps taken.
        options: epochs, steps, clipping, and how often to log and to save; a checkpoint remembers them.
        checkpoints: the folder of checkpoints.
        progress: where figures go.
        place: where to begin; a new `Place()` or that of a checkpoint.
        average: of the model's weights, if there is to be one; it is what is validated then.
    """

    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    options: TrainingOptions
    checkpoints: Path
    progress: Progress
    place: Place
    average: AveragedModel | None = None

    def __post_init__(self) -> None:
        self.loss = distribute(Loss(self.model, self.task))
        self.began = time.monotonic() - self.place.seconds

    def run(self) -> Place:
        """Train to the end of the last epoch or to the last step, whichever comes first.

        Raises:
            UserError: the loss is no longer a number.
            Interrupted: SIGINT or SIGTERM came; a checkpoint has been written.
        """
        last_step = self.progress.total_steps
        try:
            with _stop_signals() as signals:
                while self.place.step < last_step or self.place.batch:
                    self._epoch(last_step, signals)
        finally:
            self.progress.close()
        return self.place

    def _epoch(self, last_step: int, signals: list[int]) -> None:
        """The rest of the current epoch, its validation and its checkpoint."""
        place = self.place
        self.model.train()
        window = Window()
        # None is left of a run that was stopped at its last step, before the validation.
        for batch in islice(self.task.batches(place.epoch, place.batch), last_step - place.step):
            self.step(batch, window)
            place.step += 1
            place.batch += 1
            self.progress.advance()
            stop = largest(signals[0] if signals else 0)  # a signal need not reach all ranks before the same step
            save = bool(self.options.save_every) and place.step % self.options.save_every == 0
            if save or stop or place.step % self.options.log_every == 0:
                window = self._log(window)
            if save or stop:
                self._checkpoint()
            if stop:
                raise once(
                    Interrupted(
                        f"stopped at step {place.step:,}, which is saved: the same command with --resume continues",
                        stop,
                    )
                )
        self._log(window)
        with averaged(self.model, self.average):
            self._validate()
        place.epoch, place.batch = place.epoch + 1, 0
        self._checkpoint()

    def step(self, batch: Batch, window: Window) -> None:
        """One update of the weights, from this rank's parts of the batch, one after another."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * self.schedule(self.place.step)
        device = next(self.model.parameters()).device
        count = max(batch.count, 1) / world_size()  # gradients are averaged over ranks, and are to be summed
        losses, extras = [], []
        for index in range(accumulate := self.options.accumulate):
            part = batch.part(rank() * accumulate + index, accumulate * world_size()).to(device)
            with nullcontext() if index == accumulate - 1 else hold_gradients(self.loss):
                with self._precision(device):
                    loss, sums = self.loss(part)
                (loss / count).backward()
            losses.append(loss.detach())
            extras.append(sums)
        norm = self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)
        window.add(batch, losses, extras, norm)

    def _precision(self, device: torch.device) -> AbstractContextManager[None]:
        """Within it, products are computed as `options.precision` says (see `minibert.device.pick_precision`)."""
        if self.options.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def _clip(self) -> Tensor:
        """Scale the gradients down to a norm of `options.clip`, if theirs is greater; returns what it was.

        As `clip_grad_norm_` does; but where looking at the norm costs no waiting, gradients that are small enough are
        not multiplied by 1, which takes as long as a fifth of the optimiser's step.
        """
        parameters = list(self.model.parameters())
        norm = nn.utils.get_total_norm(parameter.grad for parameter in parameters if parameter.grad is not None)
        if norm.device.type != "cpu" or not norm <= self.options.clip:
            nn.utils.clip_grads_with_norm_(parameters, self.options.clip, norm)
        return norm

    def _log(self, window: Window) -> Window:
        """Show the window's means and begin a new one.

        No checkpoint is written without this, so none holds what comes after a bad step.

        Raises:
            UserError: a loss in it, or a gradient, is not a number.
        """
        if not window.losses:
            return window
        place, window = self.place, window.of_all_ranks()
        bad = window.first_bad_step()
        if bad is not None:
            back = len(window.losses) - bad - 1
            raise once(
                UserError(
                    f"the loss or its gradient is not a number any more at step {place.step - back:,}, batch"
                    f" {place.batch - back:,} of epoch {place.epoch + 1}: a lower --learning-rate, a longer"
                    f" --warmup-ratio or a smaller --clip usually helps{_last_good(self.checkpoints)}"
                )
            )
        means = window.means()
        figures = {"step": place.step, "epoch": place.epoch + 1, **means}
        self.progress.train({**figures, "learning_rate": self.optimizer.param_groups[0]["lr"]})
        if means["gradient_norm"] < VANISHED:
            self.progress.warn(
                place.step, f"gradients have vanished (mean norm {means['gradient_norm']:.1e}): nothing is learned now"
            )
        return Window()

    def _validate(self) -> None:
        """Figures on held-out data, and the best epoch kept."""
        self.model.eval()
        with torch.no_grad(), self._precision(next(self.model.parameters()).device):
            figures = self.task.validate()
        self.model.train()
        place = self.place
        self.progress.validation({"step": place.step, "epoch": place.epoch + 1, **figures})
        for sentence in self.task.warnings(figures):
            self.progress.warn(place.step, sentence)
        score = figures[self.task.score] if self.task.score is not None else None
        if score is not None and (place.best_score is None or score > place.best_score):
            place.best_epoch, place.best_score = place.epoch + 1, score
            with together():
                save_best(self.checkpoints, self.model)

    def _checkpoint(self) -> None:
        self.place.seconds = time.monotonic() - self.began
        self.place.metrics_bytes = self.progress.metrics.stat().st_size
        saved = {**asdict(self.place), "options": asdict(self.options), "ranks": world_size()}
        with together():
            save_checkpoint(self.checkpoints, self.model, self.optimizer, saved, self.average)


def _last_good(checkpoints: Path) -> str:
    """Where a run that has gone wrong was still right."""
    good = list_checkpoints(checkpoints)
    return f"; {good[-1]} is from before" if good else ""


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Catch SIGINT and SIGTERM: the list holds the signal once one has come. A second SIGINT interrupts at once.

    Not in a distributed run: there Ctrl-C may come twice, from the terminal and from torchrun, which passes it on.
    """
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if received and number == signal.SIGINT and world_size() == 1:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
