"""A run and its folder: what is in it before the first step, where an interrupted one goes on, what is left at the end.

models/bert_mlm_small/
    config.json, model.safetensors, tokenizer.json ...   the model, written at the end (minibert.hub)
    options.json      every option, as resolved
    metrics.jsonl     every measurement, a line each
    training.png      the same as a picture
    README.md         the model card (minibert.card)
    checkpoints/      only while the run is unfinished
        step-00001000.safetensors    weights, their average, the optimiser's moments, random states
        epoch-00002.safetensors      the weights of the epoch that was the best by then

Each line of metrics.jsonl is an object with a `kind`: "start" (sizes and baselines), "train" (means over the steps
since the line before, never across two epochs), "validation" (at each epoch's end), "warning" and "end".
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from minibert.card import CARD, EVALUATION
from minibert.checkpoint import (
    State,
    load_checkpoint,
    load_weights,
    random_state,
    read_about,
    read_weights,
    save_checkpoint,
    save_weights,
)
from minibert.device import pick_device, pick_precision
from minibert.distributed import gather, local_rank, rank, together, world_size
from minibert.errors import UserError
from minibert.files import claimed, remove_partial, remove_staged, write_json, zip_path
from minibert.hub.saving import FOREIGN_FILES, MODEL_FILES
from minibert.options import TrainingOptions
from minibert.plots import plot_training
from minibert.progress import heading

Options = TypeVar("Options", bound=TrainingOptions)

WEIGHTS, CHECKPOINTS, METRICS, OPTIONS = "model.safetensors", "checkpoints", "metrics.jsonl", "options.json"
STEP, EPOCH = "step-*.safetensors", "epoch-*.safetensors"
RUN_FILES = (METRICS, "training.png", CARD, EVALUATION, "confusion_matrix.png", OPTIONS)

KEPT = 2  # should the newest be lost to a failing disk, there is one before it

# Options that may differ between a run and its continuation: they don't change what is computed, or they say where
# things are, which the run's identity knows by what they hold.
_FREE = {
    "device", "threads", "compile", "cache", "log_every", "save_every", "resume", "overwrite", "zip", "recipe",
    "output", "data", "encoder", "start_from", "vocab", "mine",
}  # fmt: skip


@dataclass
class Run(Generic[Options]):
    """A training and its output folder. All ranks have one; rank 0 alone writes.

    Attributes:
        options: as resolved.
        device: where it computes.
        resumed: the checkpoint that it goes on from; None begins anew.
        identity: what it is trained on, by name, as JSON values that follow from the content alone.
        claim: gives the folder as long as it is this run's (see `minibert.files.claimed`).
    """

    options: Options
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - never changed in place
    resumed: Path | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    claim: Callable[[], Path] | None = None

    @property
    def folder(self) -> Path:
        """The output folder. Whatever is written, its path is asked for here, just before.

        Raises:
            UserError: the folder at this path is not this run's any more.
        """
        return self.claim() if self.claim is not None else Path(self.options.output)

    @property
    def checkpoints(self) -> Path:
        """Its checkpoints' folder."""
        return self.folder / CHECKPOINTS

    def begin(self, model: nn.Module, start: Mapping[str, Any]) -> State:
        """Clear away what an earlier run has left (nothing else is removed), and write the first records.

        Raises:
            UserError: there is no room for a checkpoint; nothing has been removed then.
        """
        if rank() == 0:
            left = left_by_a_run(self.folder)
            if self.options.overwrite and _is_ours(zip_path(self.folder)):
                left.insert(0, zip_path(self.folder))
            _check_room(self.folder, model, sum(file.stat().st_size for file in left))
            _remove(self.folder, left)
            write_json(self.folder / OPTIONS, asdict(self.options))
            self.record("start", start)
        return State()

    def resume(self, model: nn.Module, optimizer: Optimizer, average: nn.Module | None) -> State:
        """Put everything back as it was at the checkpoint, and cut off later records.

        Raises:
            UserError: something that the run needs has changed, is damaged, or does not fit the model.
        """
        if self.resumed is None:
            raise ValueError("the run has no checkpoint")
        about = read_about(self.resumed)
        _check_identity(about["identity"], self.identity)
        state = State(**about["state"])
        if state.best_epoch:
            read_weights(self._best(state), model)
        load_checkpoint(self.resumed, model, optimizer, average)
        if rank() == 0:
            _check_room(self.folder, model, 0)
            os.truncate(self.folder / METRICS, state.metrics_bytes)
        heading("resuming", f"after step {state.step:,}")
        return state

    def record(self, kind: str, values: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        if rank() == 0:
            with (self.folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, **values}, allow_nan=False) + "\n")

    def save(self, state: State, model: nn.Module, optimizer: Optimizer, average: nn.Module | None = None) -> None:
        """Write a checkpoint and drop all but the last two. All ranks call it.

        Raises:
            UserError: it can't be written; the older checkpoints are untouched.
        """
        random = gather(random_state())
        with together():
            if rank():
                return
            records = (self.folder / METRICS).read_bytes()
            state.metrics_bytes, state.metrics_sha256 = len(records), hashlib.sha256(records).hexdigest()
            about = {
                "script": type(self.options).__name__, "options": asdict(self.options), "ranks": world_size(),
                "identity": self.identity, "state": asdict(state),
            }  # fmt: skip
            path = self.checkpoints / STEP.replace("*", f"{state.step:08d}")
            save_checkpoint(path, about, random, model, optimizer, average)
            for kind in (STEP, EPOCH):
                for old in sorted(self.checkpoints.glob(kind))[:-KEPT]:
                    old.unlink()

    def save_best(self, state: State, model: nn.Module) -> None:
        """Keep the weights of the best epoch so far. All ranks call it."""
        with together():
            if rank() == 0:
                save_weights(self._best(state), model)

    def load_best(self, state: State, model: nn.Module) -> None:
        """Give the model the weights of the best epoch."""
        load_weights(self._best(state), model)

    def finish(self) -> None:
        """The model is saved: draw the picture, and remove the checkpoints.

        The last of them goes last, and only then the best epoch: killed in between, the run can be finished again.
        """
        try:
            plot_training(self.folder)
        except Exception as error:  # whatever a picture fails of, the model is whole
            print(f"warning: training.png can't be drawn: {error}", flush=True)
        for file in [*list_checkpoints(self.checkpoints), *self.checkpoints.glob(EPOCH)]:
            file.unlink()
        with suppress(OSError):
            self.checkpoints.rmdir()
        heading("saved", str(self.folder))

    def _best(self, state: State) -> Path:
        return self.checkpoints / EPOCH.replace("*", f"{state.best_epoch:05d}")


@contextmanager
def open_run(options: Options) -> Iterator[Run[Options]]:
    """What any training happens in: the device settled, the output folder its own, the seed set.

    Raises:
        UserError: `--device`, `--precision` or `--output` can't be used, another run is at work in the folder, or there
            is something wrong with the run to be resumed.
    """
    with ExitStack() as claims:
        with together():
            device = pick_device(options.device, options.threads, local_rank())
            precision = pick_precision(options.precision, device)
            options = dataclasses.replace(options, device=str(device), precision=precision)
            folder, claim = Path(options.output), None
            if rank() == 0:
                claim = claims.enter_context(claimed(folder))
                _tidy(folder)
            run = Run(options, device, check_output(options), claim=claim)
            torch.manual_seed(options.seed)
        yield run


def _tidy(folder: Path) -> None:
    """Remove what a dead run was about to write or to remove, also as the folder's zip beside it."""
    remove_staged(folder)
    remove_partial(folder, *RUN_FILES)
    remove_partial(folder / CHECKPOINTS, STEP, EPOCH)
    remove_partial(zip_path(folder).parent, glob.escape(zip_path(folder).name))
    if not list_checkpoints(folder / CHECKPOINTS):
        for best in (folder / CHECKPOINTS).glob(EPOCH):
            best.unlink()
        with suppress(OSError):
            (folder / CHECKPOINTS).rmdir()


def check_output(options: TrainingOptions) -> Path | None:
    """Refuse an output folder that a run would spoil, before any time is spent; returns the checkpoint to resume.

    Raises:
        UserError: there is a model, an unfinished run or somebody's file in it and no option says what to do; there is
            nothing to resume; or what is to be resumed is damaged or contradicts the options.
    """
    folder = Path(options.output)
    unfinished = list_checkpoints(folder / CHECKPOINTS)
    if options.resume and options.overwrite:
        raise UserError("--resume and --overwrite contradict each other: give one")
    if options.resume:
        if not unfinished:
            finished = ": the run in it is finished" if (folder / WEIGHTS).exists() else ""
            raise UserError(f"{folder} has no checkpoint to resume from{finished}")
        _check_resumable(unfinished[-1], options)
        return unfinished[-1]
    _check_place(folder)
    left = left_by_a_run(folder)
    if not options.overwrite:
        if unfinished:
            raise UserError(f"{folder} has an unfinished run: --resume continues it, --overwrite starts anew")
        if (folder / WEIGHTS).exists():
            raise UserError(f"{folder} has a finished model: choose another --output, or replace it with --overwrite")
        if left and not (folder / OPTIONS).exists():  # with it, they are of a run that came to nothing
            raise UserError(
                f"{left[0]} is in the way: the run would replace it; choose another --output, or give --overwrite"
            )
    for name in ("encoder", "start_from", "vocab"):
        path, replaced = getattr(options, name, ""), (folder, zip_path(folder), *left)
        if path and Path(path).resolve() in [each.resolve() for each in replaced]:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} {path} is in --output, which the run replaces: choose another --output")
    for file in (*_all_files(folder), folder / CHECKPOINTS / STEP):
        if file.is_dir() or file.parent.is_file():
            odd = file if file.is_dir() else file.parent
            raise UserError(f"{odd} is in the way of what the run writes: move it, or choose another --output")
    return None


def _check_place(folder: Path) -> None:
    """Refuse a folder in which a model would not be what it was trained as, or could not be written.

    Raises:
        UserError: see above.
    """
    for name in FOREIGN_FILES:
        if (folder / name).exists():
            raise UserError(
                f"{folder / name} would be read as a part of the new model: choose another --output, or remove it"
            )
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"--output {folder}: its name is not UTF-8, which a model's file needs") from error


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob(STEP))


def left_by_a_run(folder: Path) -> list[Path]:
    """The files that are there of all that a run of either script, or evaluate.py, writes into its folder."""
    return [file for file in _all_files(folder) if file.is_file()]


def _all_files(folder: Path) -> list[Path]:
    """The same, whether or not they are there: weights first, options.json last (see `check_output`)."""
    checkpoints = folder / CHECKPOINTS
    model = [folder / name for name in (WEIGHTS, *MODEL_FILES)]
    unfinished = [*list_checkpoints(checkpoints), *checkpoints.glob(EPOCH)]
    return list(dict.fromkeys([*model, *unfinished, *(folder / name for name in RUN_FILES)]))


def _is_ours(archive: Path) -> bool:
    """Whether a zip has what `--zip` packs, and nothing else."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return {"config.json", "classifier.json"} <= set(opened.namelist()) <= set(MODEL_FILES)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _remove(folder: Path, files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
    for inner in {file.parent for file in files} - {folder, folder.parent}:
        with suppress(OSError):
            inner.rmdir()


def _check_resumable(checkpoint: Path, options: TrainingOptions) -> None:
    """Compare the options with those of the run to be resumed, and read its records."""
    about = read_about(checkpoint)
    if about["script"] != type(options).__name__:
        raise UserError(f"{checkpoint} is of the other script's run: resume it with that one, or give --overwrite")
    before, now = about["options"], json.loads(json.dumps(asdict(options)))
    for name in sorted((before.keys() | now.keys()) - _FREE):
        if before.get(name) != now.get(name):
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} {now.get(name)} contradicts the run to be resumed, which has {before.get(name)}")
    if about["ranks"] != world_size():
        raise UserError(
            f"ranks: {world_size()} contradicts the run to be resumed, which has {about['ranks']}:"
            " start as many processes as before (torchrun --nproc-per-node)"
        )
    metrics, state = checkpoint.parent.with_name(METRICS), State(**about["state"])
    records = metrics.read_bytes()[: state.metrics_bytes] if metrics.is_file() else b""
    if hashlib.sha256(records).hexdigest() != state.metrics_sha256:
        raise UserError(f"{metrics} is missing, damaged or shorter than at {checkpoint.name}: --overwrite starts anew")


def _check_identity(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            verb, those = ("are", "those") if name.endswith("s") else ("is", "that")
            raise UserError(
                f"the {name} {verb} not {those} of the run to be resumed: {_short(now.get(name))} instead of"
                f" {_short(before.get(name))}; give it what it had, or start anew with --overwrite"
            )


def _short(value: Any) -> str:
    """An identity for a line of error."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_room(folder: Path, model: nn.Module, freed: int) -> None:
    """Refuse a disk that has not even room for one checkpoint (weights and two moments) and the model."""
    needed = 4 * sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    free = shutil.disk_usage(folder).free + freed
    if free < needed:
        raise UserError(
            f"can't write to {folder}: a checkpoint and the model take {needed / 1e6:,.1f} MB, and"
            f" {free / 1e6:,.1f} MB are free"
        )
