"""The one training loop: forward, backward, clip, step; log, validate, save.

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
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NoReturn

import torch
from torch import Tensor

from minibert.checkpoint import State, tensors_hash
from minibert.device import describe, products
from minibert.distributed import add_gradients, all_reduce_max, check_same, gather, once, rank, together, world_size
from minibert.errors import Interrupted, UserError, say_at_once
from minibert.optimizer import adamw, clip_gradients, schedule
from minibert.options import TrainingOptions
from minibert.progress import Progress, duration, heading, warning
from minibert.run import Run, list_checkpoints

FEW_STEPS = 200  # after so few, what looks like failure may be a beginning
VANISHED = 1e-6  # a gradient norm that float32 hardly tells from 0; a BERT's is mostly between 0.1 and 10


class Task:
    """What is trained on. To the loop, a batch is like `minibert.data.batching.Batch`: it has a `count` of predictions,
    `tokens`, `part` and `to`.

    Attributes:
        score: the validation metric, higher is better, that picks the best epoch; None keeps the last one.
        step_size: examples of a step, over all micro-batches and ranks.
        steps_per_epoch: enough for every one of `examples` to be seen once; the last step may have fewer.
    """

    score: str | None = None
    steps_per_epoch: int

    def __init__(self, model: Any, options: Any, examples: int) -> None:
        self.model, self.options = model, options
        self.step_size = options.batch_size * options.accumulate * world_size()
        self.steps_per_epoch = -(-examples // self.step_size)

    def announce(self, run: Run[Any], examples: str) -> None:
        """Print how many steps there will be, of what, and where."""
        place = describe(run.device, world_size())
        heading("training", f"{total_steps(self, run.options):,} steps of {self.step_size} {examples} on {place}")

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """The batches of an epoch from batch `start` on, one per step; the same at every call and on every rank."""
        raise NotImplementedError

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss summed over the predictions of a batch or a micro-batch, and further sums by name."""
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        """Metrics on held-out data, equal on all ranks; without gradients, and in evaluation mode."""
        raise NotImplementedError

    def warnings(self, metrics: Mapping[str, float], step: int) -> list[str]:
        """Signs in the metrics of a validation after `step` steps that training has gone wrong, a sentence each."""
        raise NotImplementedError


def train(task: Task, run: Run[Any], *, identity: dict[str, Any], start: Mapping[str, Any]) -> None:
    """Train to the end of the last epoch or to the last step, from the beginning or from the last checkpoint.

    All ranks call it, with equal models. It ends with the weights of the best epoch, or of the last if the task has no
    score.

    Args:
        identity: what the run depends on besides its options, by name: whatever changes what is computed, as JSON
            values that follow from the content alone. A run is resumed only with the same.
        start: what is known before the first step, recorded as metrics.jsonl's first line.
    Raises:
        UserError: the run can't be resumed, ranks have read different things, or the loss has diverged.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; a checkpoint has been written.
    """
    trainer = Trainer(task, run)
    trainer.begin(identity, start)
    state, steps, save_every = trainer.state, trainer.steps, run.options.save_every or math.inf
    with closing(trainer.progress) as progress, stop_signals() as signalled:
        while state.step < steps or state.batch:  # with no step left, the last epoch's validation may still be due
            for batch in islice(task.batches(state.epoch, state.batch), steps - state.step):
                trainer.step(batch)
                state.step += 1
                state.batch += 1
                progress.advance()
                stop = signalled()
                save = stop or state.step % save_every == 0
                if save or state.step % trainer.log_every == 0:
                    trainer.log()
                if save:
                    trainer.save()
                if stop:
                    raise trainer.stopped(stop)
            trainer.log()
            trainer.validate()
            state.epoch, state.batch = state.epoch + 1, 0
            trainer.save()
            if stop := signalled():  # in the validation
                raise trainer.stopped(stop)
    trainer.finish()


class Trainer:
    """The parts of the loop. Each rank of a distributed run has one, and all of them call each method."""

    def __init__(self, task: Task, run: Run[Any]) -> None:
        self.model, self.task, self.run, self.options = task.model, task, run, run.options
        self.device = next(self.model.parameters()).device
        self.steps = total_steps(task, run.options)
        self.log_every = run.options.log_every or max(1, min(100, self.steps // 20))  # twenty points in the picture
        self.schedule = schedule(run.options.schedule, self.steps, run.options.warmup_ratio)
        self.optimizer = adamw(self.model, run.options)
        self.state, self.metrics = State(), Metrics()
        self.best: dict[str, Tensor] = {}  # the weights of the best epoch

    def begin(self, identity: dict[str, Any], start: Mapping[str, Any]) -> None:
        """Write the first records, or put everything back as it was at the checkpoint."""
        if rank():
            torch.manual_seed((self.options.seed + rank()) % 2**64)  # each rank needs its own dropout
        with together():
            check_same(identity)
            if world_size() > 1:
                check_same({"weights": tensors_hash(self.model.state_dict())})
            self.run.identity = json.loads(json.dumps(identity))  # tuples become lists, as in a checkpoint
            if self.run.resumed:
                self.state, self.best = self.run.resume(self.model, self.optimizer)
            else:
                self.run.begin(self.model)
        if not self.state.step:
            self.run.record("start", {"steps": self.steps, **start})
        loss = (lambda: self.metrics.means()["loss"]) if world_size() == 1 else None  # one rank's is not the run's
        self.progress = Progress(self.steps, self.state.step, loss)
        self.began = time.monotonic() - self.state.seconds
        self.metrics = Metrics()
        self.model.train()

    def step(self, batch: Any) -> None:
        """One update of the weights, from this rank's micro-batches, one after another."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * self.schedule(self.state.step)
        accumulate, loss_sum = self.options.accumulate, torch.zeros((), device=self.device)
        for index in range(rank() * accumulate, (rank() + 1) * accumulate):
            part = batch.part(index, accumulate * world_size()).to(self.device)
            if part.count:
                with products(self.options.precision, self.device):
                    loss, extras = self.task.loss(part)
                (loss / batch.count).backward()
                loss_sum = loss_sum + loss.detach()
                self.metrics.add_extras(extras)
        add_gradients(self.model)
        norm = clip_gradients(self.model, self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.metrics.add_step(batch, loss_sum, norm)

    def log(self) -> None:
        """Show and record the means over the steps since the last time, and end the run if one of them went wrong.

        No checkpoint is written without this, so none holds what comes after a bad step.
        """
        if not self.metrics.losses:
            return
        state, metrics, self.metrics = self.state, self.metrics.of_all_ranks(), Metrics()
        bad = metrics.first_bad_step()
        if bad is not None:
            back = len(metrics.losses) - bad - 1
            self.diverged("the loss or its gradient is not a number any more", state.step - back, state.batch - back)
        values = {"step": state.step, "epoch": state.epoch + 1, **metrics.means()}
        values["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        self.run.record("train", values)
        self.progress.train(values)
        if metrics.count and (norm := values["gradient_norm"]) < VANISHED:
            self.warn(f"gradients have vanished (mean norm {norm:.1e}): nothing is learned now")

    def validate(self) -> None:
        """Show and record the metrics on held-out data, which have to be finite, and keep the best epoch's weights."""
        state, score = self.state, self.task.score
        self.progress.doing("validating")
        self.model.eval()
        with torch.no_grad(), products(self.options.precision, self.device):
            metrics = self.task.validate()
        self.model.train()
        self.progress.doing("training")
        for name, value in metrics.items():
            if not math.isfinite(value):
                self.diverged(f"training has diverged: {name.replace('_', ' ')} is {value}", state.step)
        values = {"step": state.step, "epoch": state.epoch + 1, **metrics}
        self.run.record("validation", values)
        self.progress.validation(values)
        for sentence in self.task.warnings(metrics, state.step):
            self.warn(sentence)
        if score is not None and (state.best_score is None or metrics[score] > state.best_score):
            state.best_epoch, state.best_score = state.epoch + 1, metrics[score]
            self.best = {name: tensor.cpu().clone() for name, tensor in self.model.state_dict().items()}

    def save(self) -> None:
        """Write a checkpoint."""
        self.state.seconds = time.monotonic() - self.began
        self.run.save(self.state, self.model, self.optimizer, self.best)
        self.metrics = Metrics()  # restart the clock: the next steps' time is without validation and checkpoint

    def stopped(self, number: int) -> UserError | Interrupted | SystemExit:
        """The exception that ends the run after a signal, when all is saved."""
        line = self.options.continued_by(world_size())
        return once(Interrupted(f"stopped at step {self.state.step:,}, which is saved; to continue: {line}", number))

    def finish(self) -> None:
        """Give the model the weights that are to be kept, and record the end."""
        state = self.state
        heading("trained", f"for {duration(state.seconds)}, to step {state.step:,}")
        if self.best:
            self.model.load_state_dict(self.best)
            score = f"{str(self.task.score).replace('_', ' ')} {state.best_score:.4f}"
            heading("kept", f"epoch {state.best_epoch}, the best on validation: {score}")
        end = {"step": state.step, "seconds": round(state.seconds, 1), "best_epoch": state.best_epoch}
        self.run.record("end", {**end, "date": time.strftime("%Y-%m-%d")})

    def warn(self, sentence: str) -> None:
        """Show and record that something has gone wrong; the run goes on."""
        self.run.record("warning", {"step": self.state.step, "text": sentence})
        self.progress.say(warning(sentence))

    def diverged(self, finding: str, step: int, batch: int | None = None) -> NoReturn:
        """End the run because of a finding at a step (in a batch, or at an epoch's end), with advice that fits."""
        place = f"step {step:,}, {'the end' if batch is None else f'batch {batch:,}'} of epoch {self.state.epoch + 1}"
        if step == 1 and batch is not None:  # computed before the first update
            finding = finding.removesuffix(" any more")
            advice = "suspect the weights that it begins with, the data or --precision bfloat16, not the learning rate"
        else:
            advice = remedy(self.steps)
        kept = list_checkpoints(self.run.folder)
        raise once(UserError(f"{finding} at {place}: {advice}" + (f"; {kept[-1]} is from before" if kept else "")))


@dataclass
class Metrics:
    """Sums since the last line of progress, kept on the device."""

    losses: list[Tensor] = field(default_factory=list)  # each step's, summed over this rank's predictions
    norms: list[Tensor] = field(default_factory=list)  # each step's, of the gradient before clipping
    count: int = 0  # predictions of all ranks
    tokens: int = 0  # of all ranks
    extras: dict[str, Tensor] = field(default_factory=dict)  # by name, of this rank's predictions
    started: float = field(default_factory=lambda: time.perf_counter())  # noqa: PLW0108 - looked up when it is called

    def add_step(self, batch: Any, loss: Tensor, norm: Tensor) -> None:
        """Take in a step's whole batch, this rank's loss, and the gradient's norm."""
        self.losses.append(loss)
        self.norms.append(norm)
        self.count += batch.count
        self.tokens += batch.tokens

    def add_extras(self, sums: Mapping[str, Tensor]) -> None:
        """Take in what a micro-batch gave beside its loss."""
        for name, value in sums.items():
            self.extras[name] = self.extras.get(name, 0) + value.detach()

    def of_all_ranks(self) -> Metrics:
        """These metrics with the other ranks' sums added."""
        gathered = gather((torch.stack(self.losses).cpu(), {name: value.cpu() for name, value in self.extras.items()}))
        losses = torch.stack([losses for losses, _ in gathered]).sum(dim=0)
        total = Metrics(list(losses), self.norms, self.count, self.tokens, started=self.started)
        for _, extras in gathered:
            total.add_extras(extras)
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
        pairs = zip(torch.stack(self.losses).tolist(), torch.stack(self.norms).tolist(), strict=True)
        return next((step for step, pair in enumerate(pairs) if not all(map(math.isfinite, pair))), None)


def total_steps(task: Task, options: TrainingOptions) -> int:
    """All epochs' steps, or `--max-steps` if that is fewer."""
    all_steps = options.epochs * task.steps_per_epoch
    return min(all_steps, options.max_steps or all_steps)


def remedy(steps: int) -> str:
    """Advice for a run that diverges within `steps` steps."""
    if steps < FEW_STEPS:
        return f"a lower --learning-rate usually helps, or more than {steps:,} steps (--epochs)"
    return "a lower --learning-rate, a longer --warmup-ratio or a smaller --clip usually helps"


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Catch SIGINT, SIGTERM and SIGHUP; yields a function, for all ranks to call: which one came to any rank, or 0.

    A second SIGINT interrupts at once. Not in a distributed run: there Ctrl-C may come twice, from the terminal and
    from torchrun, which passes it on. What is ignored stays so: SIGHUP under nohup, SIGINT in a shell's background.
    """
    received: list[int] = []
    again = " (Ctrl-C again: at once)" if world_size() == 1 else ""

    def note(number: int, _: object) -> None:
        if received and number == signal.SIGINT and world_size() == 1:
            raise KeyboardInterrupt("stopped at once: --resume goes on from the last checkpoint, if there is one")
        if not received and rank() == 0:
            say_at_once(f"stopping after this step, with a checkpoint{again}")
        received.append(number)

    signals = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]  # Windows has no SIGHUP
    if threading.current_thread() is not threading.main_thread():  # only it may catch any
        signals = []
    numbers = [number for number in signals if number and signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: all_reduce_max(received[0] if received else 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
