"""A run and its folder: what is in it before the first step, where an interrupted one goes on, what is left at the end.

models/bert_mlm_small/
    config.json, model.safetensors, tokenizer.json ...   the model, written at the end (minibert.pretrained)
    options.json      every option, as resolved
    metrics.jsonl     every figure, a line each
    training.png      the same as a picture
    README.md         the model card (minibert.card)
    checkpoints/      only while the run is unfinished
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from minibert.card import CARD, EVALUATION
from minibert.config import TrainingOptions
from minibert.device import pick_device, pick_precision
from minibert.errors import UserError
from minibert.files import PARTIAL, claimed, write_json
from minibert.plots import plot_training
from minibert.training.averaging import average_of, exchange
from minibert.training.checkpoint import list_checkpoints, load_best, load_checkpoint, read_progress
from minibert.training.distributed import local_rank, rank, together, world_size
from minibert.training.loop import Place, Task, Trainer
from minibert.training.optim import adamw, schedule
from minibert.training.progress import Progress, duration, heading

Options = TypeVar("Options", bound=TrainingOptions)

WEIGHTS, CHECKPOINTS, METRICS, OPTIONS = "model.safetensors", "checkpoints", "metrics.jsonl", "options.json"
PICTURE = "training.png"

# Options that may differ between a run and its continuation, because they don't change what is computed.
_FREE = frozenset({"device", "threads", "compile", "cache", "log_every", "save_every", "resume", "overwrite", "zip"})


@contextmanager
def open_run(options: Options) -> Iterator[tuple[Options, torch.device]]:
    """What any training happens in: the device settled, the output folder its own, the seed set.

    Returns:
        the options as resolved, and the device.
    Raises:
        UserError: `--device`, `--precision` or `--output` can't be used, or another run is at work in the folder.
    """
    with ExitStack() as claim:
        with together():
            device = pick_device(options.device, options.threads, local_rank())
            precision = pick_precision(options.precision, device)
            options = dataclasses.replace(options, device=str(device), precision=precision)
            if rank() == 0:
                claim.enter_context(claimed(Path(options.output)))
            check_output(options)
            torch.manual_seed(options.seed)
        yield options, device


def check_output(options: TrainingOptions) -> None:
    """Refuse an output folder that a run would spoil, before any time is spent.

    Raises:
        UserError: there is a finished model or an unfinished run in it and no option says what to do, there is nothing
            to resume, or the options or the number of ranks contradict those of the run to be resumed.
    """
    folder = Path(options.output)
    unfinished = list_checkpoints(folder / CHECKPOINTS)
    if options.resume and options.overwrite:
        raise UserError("--resume and --overwrite contradict each other: give one")
    if options.resume:
        if not unfinished:
            raise UserError(f"{folder} has no checkpoint to resume from" + _finished_hint(folder))
        before = read_progress(unfinished[-1])
        _check_same_options(before["options"], options)
        if before["ranks"] != world_size():
            raise UserError(
                f"ranks: {world_size()} contradicts the run to be resumed, which has {before['ranks']}:"
                " start as many processes as before (torchrun --nproc-per-node)"
            )
    elif unfinished and not options.overwrite:
        raise UserError(f"{folder} has an unfinished run: --resume continues it, --overwrite starts anew")
    elif (folder / WEIGHTS).exists() and not options.overwrite:
        raise UserError(f"{folder} has a finished model: choose another --output, or replace it with --overwrite")


def _finished_hint(folder: Path) -> str:
    return ": the run in it is finished" if (folder / WEIGHTS).exists() else ""


def _check_same_options(before: Mapping[str, Any], options: TrainingOptions) -> None:
    now = dataclasses.asdict(options)
    for name in sorted(set(before) | set(now)):
        if name not in _FREE and before.get(name) != now.get(name):
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} {now.get(name)} contradicts the run to be resumed, which has {before.get(name)}")


def total_steps(task: Task, options: TrainingOptions) -> int:
    """All epochs' steps, or `--max-steps` if that is fewer."""
    every = options.epochs * task.steps_per_epoch
    return min(every, options.max_steps) if options.max_steps else every


def examples_per_step(options: TrainingOptions) -> int:
    """A batch of each rank, times the number that is accumulated."""
    return options.batch_size * options.accumulate * world_size()


def run_training(
    model: nn.Module,
    task: Task,
    options: TrainingOptions,
    start: Mapping[str, Any],
    save: Callable[[Path], None],
) -> None:
    """Train in `options.output`, from the beginning or from the last checkpoint, and leave a finished folder there.

    All ranks call it, with equal models; rank 0 alone writes.

    Args:
        model: trained in place; it ends (on rank 0) with the weights of the best epoch, or of the last if the task has
            no score; with `--average`, with their average at the end of that epoch.
        task: what it is trained on.
        options: all the rest.
        start: figures known before the first step, recorded as metrics.jsonl's first line.
        save: writes the model into a folder.
    Raises:
        UserError, Interrupted: see `Trainer.run`.
    """
    folder, steps = Path(options.output), total_steps(task, options)
    optimizer = adamw(model, options)
    average = average_of(model) if options.average else None
    if rank():
        torch.manual_seed(options.seed + rank())  # ranks drop out other elements of other examples
    with together():
        if options.resume:
            place = _resume(folder, model, optimizer, average)
        else:
            place = _begin(folder, options, {"steps": steps, **start})

    factor = schedule(options.schedule, steps, options.warmup_ratio, options.final_rate)
    progress = Progress(Path(os.devnull) if rank() else folder / METRICS, steps, place.step)
    Trainer(model, task, optimizer, factor, options, folder / CHECKPOINTS, progress, place, average).run()
    if rank():
        return
    heading("trained", f"for {duration(place.seconds)}, to step {place.step:,}")
    if task.score is not None:
        load_best(folder / CHECKPOINTS, model)
        heading("kept", f"epoch {place.best_epoch}, the best on validation: {task.score} {place.best_score:.4f}")
    elif average is not None:
        exchange(model, average)
    progress.record("end", {"step": place.step, "seconds": round(place.seconds, 1), "best_epoch": place.best_epoch})

    save(folder)
    plot_training(folder)
    # Nothing is left to resume. All at once: killed half-way, a run would seem unfinished and lack its best epoch.
    shutil.rmtree((folder / CHECKPOINTS).rename(folder / f"{PARTIAL}{CHECKPOINTS}"))
    heading("saved", str(folder))


def _begin(folder: Path, options: TrainingOptions, start: Mapping[str, Any]) -> Place:
    """A folder without what an earlier run wrote (nothing else is removed), and with this run's first records."""
    if rank():
        return Place()
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, METRICS, OPTIONS, PICTURE, CARD, EVALUATION):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    write_json(folder / OPTIONS, dataclasses.asdict(options))
    Progress(folder / METRICS, 0).record("start", start)
    return Place()


def _resume(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: AveragedModel | None) -> Place:
    """The place of the last checkpoint, with all that is in it put back and later records cut off."""
    checkpoint, metrics = list_checkpoints(folder / CHECKPOINTS)[-1], folder / METRICS
    saved = load_checkpoint(checkpoint, model, optimizer, average)
    place = Place(**{field.name: saved[field.name] for field in dataclasses.fields(Place)})
    if rank() == 0:
        if not metrics.exists() or metrics.stat().st_size < place.metrics_bytes:
            raise UserError(f"{metrics} is missing or shorter than at {checkpoint.name}: --overwrite starts anew")
        os.truncate(metrics, place.metrics_bytes)
    heading("resuming", f"after step {place.step:,}")
    return place
