"""The one training loop: forward, backward, clip, step; log, validate, save. And its optimiser and learning rate.

It knows a task only as something that gives batches and a loss, so both trainings run through it:

    loss(batch) -> (sum, extras)

`sum` is the loss summed over the batch's `count` predictions, `extras` are further sums to be averaged and logged. The
gradient of a step is that of sum / count over the whole batch, in however many micro-batches it is computed:
`accumulate` of them one after another on each rank of a distributed run. A mean of their means would weigh a
prediction by how few others happen to be in its micro-batch.

Nothing here waits for the device at each step: sums stay where they are until a line of progress is due.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from minibert.checkpoint import State
from minibert.distributed import (
    all_reduce_max,
    check_same,
    distribute,
    gather,
    hold_gradients,
    once,
    rank,
    together,
    world_size,
)
from minibert.errors import Interrupted, UserError
from minibert.options import SCHEDULES, TrainingOptions
from minibert.progress import Progress, duration, heading
from minibert.run import Run, list_checkpoints

VANISHED = 1e-6  # a gradient norm that float32 hardly tells from none; with BERTs it is mostly between 0.1 and 10

Schedule = Callable[[int], float]


class Batch(Protocol):
    """What the loop has to know of a batch."""

    tokens: int  # how many real tokens it has, for the rate that is shown

    @property
    def count(self) -> int:
        """How many predictions its loss is summed over."""

    def part(self, index: int, parts: int) -> Any:
        """One of so many micro-batches of it, which may have no prediction; the batch itself if it is the only one."""

    def to(self, device: torch.device) -> Any:
        """The same batch on another device."""


class Task(Protocol):
    """What the loop has to know of a task."""

    steps_per_epoch: int

    @property
    def score(self) -> str | None:
        """The validation metric, higher is better, that picks the best epoch; None keeps the last one."""

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """The batches of an epoch from batch `start` on, one a step; the same ones at every call and on every rank."""

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss summed over the predictions of a batch or a micro-batch, and further sums by name."""

    def validate(self) -> dict[str, float]:
        """Metrics on held-out data, equal on all ranks. The loop sets evaluation mode before, training mode after."""

    def warnings(self, metrics: Mapping[str, float], /) -> list[str]:
        """What in a validation's metrics shows that training has gone wrong, a sentence each."""


def train(model: nn.Module, task: Task, run: Run[Any], *, identity: dict[str, Any], start: Mapping[str, Any]) -> None:
    """Train to the end of the last epoch or to the last step, from the beginning or from the last checkpoint.

    All ranks call it, with equal models.

    Args:
        model: trained in place; it ends (on rank 0) with the weights of the best epoch, or of the last if the task has
            no score.
        task: what it is trained on.
        run: its options, and the folder that its records and checkpoints go to.
        identity: what the run depends on besides its options, by name: whatever changes what is computed, as JSON
            values that follow from the content alone. A run is resumed only with the same.
        start: what is known before the first step, recorded as metrics.jsonl's first line.
    Raises:
        UserError: the run can't be resumed, ranks have read different things, or the loss has diverged.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; a checkpoint has been written.
    """
    trainer = Trainer(model, task, run)
    options, state, steps = run.options, trainer.begin(identity, start), trainer.steps
    with closing(trainer.progress) as progress, _stop_signals() as signals:
        while state.step < steps or state.batch:  # none is left of a run that was stopped before its last validation
            for batch in islice(task.batches(state.epoch, state.batch), steps - state.step):
                trainer.step(batch)
                state.step += 1
                state.batch += 1
                progress.advance()
                stop = all_reduce_max(signals[0] if signals else 0)  # it need not reach all ranks before the same step
                save = bool(stop) or (bool(options.save_every) and state.step % options.save_every == 0)
                if save or state.step % options.log_every == 0:
                    trainer.log()
                if save:
                    trainer.save()
                if stop:
                    raise once(_interrupted(state, options, stop))
            trainer.log()
            trainer.validate()
            state.epoch, state.batch = state.epoch + 1, 0
            trainer.save()
    if rank() == 0:
        trainer.finish()


@dataclass
class Trainer:
    """What the loop is made of. In a distributed run, each rank has one, and what they do is done by all of them.

    Attributes:
        model, task, run: see `train`.
        state: where it is.
        metrics: of the steps since the last line of progress.
    """

    model: nn.Module
    task: Task
    run: Run[Any]
    state: State = field(default_factory=State)

    def __post_init__(self) -> None:
        options = self.options = self.run.options
        self.steps = total_steps(self.task, options)
        self.schedule = schedule(options.schedule, self.steps, options.warmup_ratio)
        self.optimizer = adamw(self.model, options)
        self.loss = distribute(Loss(self.model, self.task))
        self.metrics = Metrics()
        self.device = next(self.model.parameters()).device

    def begin(self, identity: dict[str, Any], start: Mapping[str, Any]) -> State:
        """Write the first records, or put everything back as it was at the checkpoint."""
        if rank():
            torch.manual_seed(self.options.seed + rank())  # ranks drop out other elements of other examples
        with together():
            check_same(identity)
            self.run.identity = json.loads(json.dumps(identity))  # lists for tuples, as a checkpoint gives it back
            if self.run.resumed:
                self.state = self.run.resume(self.model, self.optimizer)
            else:
                self.state = self.run.begin(self.model, {"steps": self.steps, **start})
        self.progress = Progress(self.steps, self.state.step)
        self.began = time.monotonic() - self.state.seconds
        self.metrics = Metrics()
        self.model.train()
        return self.state

    def step(self, batch: Batch) -> None:
        """One update of the weights, from this rank's micro-batches, one after another."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * self.schedule(self.state.step)
        count = max(batch.count, 1) / world_size()  # gradients are averaged over ranks, and are to be summed
        losses, extras = [], []
        for index in range(accumulate := self.options.accumulate):
            micro_batch = batch.part(rank() * accumulate + index, accumulate * world_size()).to(self.device)
            with nullcontext() if index == accumulate - 1 else hold_gradients(self.loss):
                with self._precision():
                    loss, sums = self.loss(micro_batch)
                (loss / count).backward()
            losses.append(loss.detach())
            extras.append(sums)
        norm = clip_gradients(self.model, self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.metrics.add(batch, losses, extras, norm)

    def log(self) -> None:
        """Show and record the means over the steps since the last time.

        No checkpoint is written without this, so none holds what comes after a bad step.

        Raises:
            UserError: a loss among them, or a gradient, is not a number.
        """
        if not self.metrics.losses:
            return
        state, metrics, self.metrics = self.state, self.metrics.of_all_ranks(), Metrics()
        bad = metrics.first_bad_step()
        if bad is not None:
            back = len(metrics.losses) - bad - 1
            what = "the loss or its gradient is not a number any more"
            raise self._diverged(what, f"step {state.step - back:,}, batch {state.batch - back:,}")
        means = metrics.means()
        values = {"step": state.step, "epoch": state.epoch + 1, **means}
        values["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        self._record("train", values)
        self.progress.train(values)
        if means["gradient_norm"] < VANISHED:
            self._warn(f"gradients have vanished (mean norm {means['gradient_norm']:.1e}): nothing is learned now")

    def validate(self) -> None:
        """Metrics on held-out data, and the best epoch kept.

        Raises:
            UserError: one of them is not a finite number.
        """
        self.model.eval()
        with torch.no_grad(), self._precision():
            metrics = self.task.validate()
        self.model.train()
        state = self.state
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            what = f"training has diverged: {bad[0].replace('_', ' ')} is {metrics[bad[0]]}"
            raise self._diverged(what, f"step {state.step:,}, the end")
        values = {"step": state.step, "epoch": state.epoch + 1, **metrics}
        self._record("validation", values)
        self.progress.validation(values)
        for sentence in self.task.warnings(metrics):
            self._warn(sentence)
        score = metrics[self.task.score] if self.task.score is not None else None
        if score is not None and (state.best_score is None or score > state.best_score):
            state.best_epoch, state.best_score = state.epoch + 1, score
            self.run.save_best(state, self.model)
        self.metrics = Metrics()  # which has not begun before: this time is not that of the next steps

    def save(self) -> None:
        """Write a checkpoint."""
        self.state.seconds = time.monotonic() - self.began
        self.run.save(self.state, self.model, self.optimizer)

    def finish(self) -> None:
        """Give the model the weights that are to be kept, and record the end."""
        state = self.state
        heading("trained", f"for {duration(state.seconds)}, to step {state.step:,}")
        if self.task.score is not None:
            self.run.load_best(state, self.model)
            score = f"{self.task.score} {state.best_score:.4f}"
            heading("kept", f"epoch {state.best_epoch}, the best on validation: {score}")
        end = {"step": state.step, "seconds": round(state.seconds, 1), "best_epoch": state.best_epoch}
        self.run.record("end", end)

    def _precision(self) -> AbstractContextManager[None]:
        """Within it, products are computed as `options.precision` says (see `minibert.device.pick_precision`)."""
        if self.options.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _warn(self, sentence: str) -> None:
        """Show and record that something has gone wrong; the run goes on."""
        self._record("warning", {"step": self.state.step, "text": sentence})
        self.progress.say(f"warning: {sentence}")

    def _record(self, kind: str, values: Mapping[str, Any]) -> None:
        with together():
            self.run.record(kind, values)

    def _diverged(self, what: str, place: str) -> UserError | Interrupted | SystemExit:
        kept = list_checkpoints(self.run.checkpoints)
        before = f"; {kept[-1]} is from before" if kept else ""
        return once(
            UserError(
                f"{what} at {place} of epoch {self.state.epoch + 1}: a lower --learning-rate, a longer --warmup-ratio"
                f" or a smaller --clip usually helps{before}"
            )
        )


def _interrupted(state: State, options: TrainingOptions, number: int) -> Interrupted:
    how = "with --resume instead of --overwrite" if options.overwrite else "with --resume"
    return Interrupted(f"stopped at step {state.step:,}, which is saved: the same command {how} continues", number)


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
class Metrics:
    """Sums since the last line of progress, kept on the device.

    Attributes:
        losses: each step's sum over its predictions, of this rank's micro-batches.
        norms: each step's gradient norm before clipping.
        count, tokens: predictions and tokens, of all ranks.
        extras: further sums by name, of this rank's micro-batches.
        started: when, on the clock `time.perf_counter`.
    """

    losses: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    count: int = 0
    tokens: int = 0
    extras: dict[str, Tensor] = field(default_factory=dict)
    started: float = field(default_factory=lambda: time.perf_counter())  # noqa: PLW0108 - looked up when it is called

    def add(self, batch: Batch, losses: Sequence[Tensor], extras: Sequence[Mapping[str, Tensor]], norm: Tensor) -> None:
        """Take in one step: its whole batch, what each of this rank's micro-batches gave, and the gradient's norm."""
        self.losses.append(torch.stack([loss.detach() for loss in losses]).sum())
        self.norms.append(norm)
        self.count += batch.count
        self.tokens += batch.tokens
        for sums in extras:
            for name, value in sums.items():
                self.extras[name] = self.extras.get(name, 0) + value.detach()

    def of_all_ranks(self) -> Metrics:
        """The same with the other ranks' sums added."""
        if world_size() == 1:
            return self
        extras = {name: value.cpu() for name, value in self.extras.items()}
        total = Metrics(norms=self.norms, count=self.count, tokens=self.tokens, started=self.started)
        for losses, sums in gather((torch.stack(self.losses).cpu(), extras)):
            total.losses = [a + b for a, b in zip(total.losses, losses, strict=True)] if total.losses else list(losses)
            for name, value in sums.items():
                total.extras[name] = total.extras.get(name, 0) + value
        return total

    def means(self) -> dict[str, float]:
        """Averages over all predictions; of the norms, over all steps."""
        count = max(self.count, 1)  # a short text may have no masked token
        return {
            "loss": sum(torch.stack(self.losses).tolist()) / count,
            **{name: value.item() / count for name, value in self.extras.items()},
            "gradient_norm": sum(torch.stack(self.norms).tolist()) / len(self.norms),
            "tokens_per_second": self.tokens / max(time.perf_counter() - self.started, 1e-9),
        }

    def first_bad_step(self) -> int | None:
        """How many steps after the first one the loss or its gradient stopped being a number, if they did."""
        good = torch.stack(self.losses).isfinite() & torch.stack(self.norms).to(self.losses[0].device).isfinite()
        bad = (~good).nonzero()
        return int(bad[0]) if len(bad) else None


def total_steps(task: Task, options: TrainingOptions) -> int:
    """All epochs' steps, or `--max-steps` if that is fewer."""
    every = options.epochs * task.steps_per_epoch
    return min(every, options.max_steps) if options.max_steps else every


def examples_per_step(options: TrainingOptions) -> int:
    """A batch of each rank, times the number that is accumulated."""
    return options.batch_size * options.accumulate * world_size()


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Catch SIGINT, SIGTERM and SIGHUP: the list holds the signal once one has come.

    A second SIGINT interrupts at once. Not in a distributed run: there Ctrl-C may come twice, from the terminal and
    from torchrun, which passes it on. SIGHUP, of a terminal that is closed, stays ignored under nohup.
    """
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if received and number == signal.SIGINT and world_size() == 1:
            raise KeyboardInterrupt
        received.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if getattr(signal, "SIGHUP", None) and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def adamw(model: nn.Module, options: TrainingOptions) -> torch.optim.AdamW:
    """AdamW as the options have it; beta1 0.9 and epsilon 1e-8 are torch's and the notebook's own.

    By default all parameters are decayed, biases and norms included, as in the notebook. With `decayed` "matrices" only
    those of two dimensions are, the embeddings among them, which is BERT's own rule.

    The fused kernel reads and writes each parameter once a step instead of a dozen times; the arithmetic is the same.

    Source: Loshchilov & Hutter 2019.
    """
    parameters = list(model.parameters())
    free = [parameter for parameter in parameters if options.decayed == "matrices" and parameter.ndim < 2]
    decayed = [parameter for parameter in parameters if options.decayed == "all" or parameter.ndim >= 2]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=options.learning_rate,
        betas=(0.9, options.beta2),
        fused=parameters[0].device.type in ("cpu", "cuda"),
    )


def schedule(name: str, total_steps: int, warmup_ratio: float) -> Schedule:
    """The factor on the peak learning rate, by the number of steps already taken.

    Both rise linearly over the first `int(total_steps * warmup_ratio)` steps, from a factor of 0 at the very first, as
    the notebook's scheduler does.

    Args:
        name: one of `SCHEDULES`: after these steps, "linear" falls from 1 to 0, "constant" stays at 1.
        total_steps: of the run.
        warmup_ratio: the share of them in which the rate rises.
    Raises:
        ValueError: another name.
    Source: Devlin et al. 2019, appendix A.2 (linear warm-up and decay).
    """
    warmup = int(total_steps * warmup_ratio)

    def linear(step: int) -> float:
        if step < warmup:
            return step / warmup
        return max(0.0, (total_steps - step) / max(1, total_steps - warmup))

    def constant(step: int) -> float:
        return step / warmup if step < warmup else 1.0

    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r} is none of {', '.join(SCHEDULES)}")
    return linear if name == "linear" else constant


def clip_gradients(model: nn.Module, most: float) -> Tensor:
    """Scale the gradients down to a norm of `most`, if theirs is greater; returns what it was.

    As `clip_grad_norm_` does; but where looking at the norm costs no waiting, gradients that are small enough are not
    multiplied by 1, which takes as long as a fifth of the optimiser's step.
    """
    parameters = list(model.parameters())
    norm = nn.utils.get_total_norm(parameter.grad for parameter in parameters if parameter.grad is not None)
    if norm.device.type != "cpu" or not norm <= most:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm
