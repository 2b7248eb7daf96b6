"""A run and its folder: what is in it before the first step, where an interrupted one goes on, what is left at the end.

models/bert_mlm_small/
    config.json, model.safetensors, tokenizer.json ...   the model, written at the end (minibert.hub)
    options.json      every option, as resolved
    metrics.jsonl     every measurement, a line each
    training.png      the same as a picture
    README.md         the model card (minibert.card)
    checkpoints/      only while the run is unfinished
        step-00001000.safetensors    all that is needed to go on (minibert.checkpoint)

Each line of metrics.jsonl is an object with a `kind`: "start" (sizes and baselines), "train" (means over the steps
since the line before, never across two epochs), "validation" (at each epoch's end and after the last step), "warning"
and "end".
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
from torch import Tensor, nn
from torch.optim import Optimizer

from minibert.card import CARD, CIRCUMSTANCES, EVALUATION
from minibert.checkpoint import Checkpoint, State, random_state, read_checkpoint, save_checkpoint
from minibert.device import compile_blocks, has_bfloat16, pick_device, pick_precision
from minibert.distributed import gather, local_rank, rank, together, world_size
from minibert.errors import UserError
from minibert.files import CHECKPOINTS, STAGING, claimed, is_part_of, remove_partial, write_json, zip_path
from minibert.hub.saving import FOREIGN_FILES, MODEL_FILES
from minibert.hub.settings import WEIGHTS
from minibert.options import METRICS, NO_PATHS, OPTIONS, EvaluateOptions, TrainingOptions, flag
from minibert.plots import MATRIX, plot_training
from minibert.progress import heading, warning

Options = TypeVar("Options", bound=TrainingOptions)

STEP = "step-*.safetensors"
RUN_FILES = (METRICS, "training.png", CARD, EVALUATION, MATRIX, OPTIONS)

KEPT = 2  # if a failing disk loses the newest, there is one before it

_READ = ("data", "encoder", "start_from", "vocab", "debias")  # options that may name a path to read from
# Options that may differ between a run and its continuation: they don't change what is computed, or they name places
# of things that the run's identity knows by their content.
_FREE = {*CIRCUMSTANCES, *_READ, "compile", "mine"}


@dataclass
class Run(Generic[Options]):
    """A training and its output folder. All ranks have one; rank 0 alone writes."""

    options: Options  # as resolved
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - never changed in place
    resumed: Checkpoint | None = None  # where it goes on
    identity: dict[str, Any] = field(default_factory=dict)  # what it is trained on, see `minibert.training.train`
    claim: Callable[[], Path] | None = None  # gives the folder as long as it is this run's

    @property
    def folder(self) -> Path:
        """The output folder; an error if its path no longer leads to this run's folder (`minibert.files.claimed`).

        Ask for it here just before each write.
        """
        return self.claim() if self.claim is not None else Path(self.options.output)

    def begin(self, model: nn.Module) -> None:
        """Clear away what an earlier run has left (nothing else is removed), and write the options."""
        if rank():
            return
        folder = self.folder
        old, archive = left_by_a_run(folder), zip_path(folder)
        if self.options.overwrite and _is_packed_model(archive):
            old.insert(0, archive)
        _check_room(folder, model, sum(file.stat().st_size for file in old))
        for file in old:
            file.unlink()
        for inner in {file.parent for file in old} - {folder, folder.parent}:
            _remove_if_empty(inner)
        write_json(folder / OPTIONS, asdict(self.options))

    def resume(self, model: nn.Module, optimizer: Optimizer) -> tuple[State, dict[str, Tensor]]:
        """Put everything back, if all that the run depends on is the same; returns the best epoch's weights, too."""
        if self.resumed is None:
            raise ValueError("the run has no checkpoint")
        before, now, state = self.resumed.about["identity"], self.identity, State(**self.resumed.about["state"])
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                verb, those = ("are", "those") if name.endswith("s") else ("is", "that")
                difference = f"the {name} {verb} not {those} of the run to be resumed"
                raise UserError(f"{difference}: give it what it had, or start anew with --overwrite")
        best, self.resumed = self.resumed.restore(model, optimizer), None  # it is not kept in memory
        if rank() == 0:
            _check_room(self.folder, model, 0)
            write_json(self.folder / OPTIONS, asdict(self.options))
            os.truncate(self.folder / METRICS, state.metrics_bytes)
        heading("resuming", f"after step {state.step:,}")
        return state, best

    def record(self, kind: str, values: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl; if that fails, all ranks end. All ranks call it."""
        with together():
            if rank() == 0:
                with (self.folder / METRICS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"kind": kind, **values}, allow_nan=False) + "\n")

    def save(self, state: State, model: nn.Module, optimizer: Optimizer, best: Mapping[str, Tensor]) -> None:
        """Write a checkpoint, and once it is there drop all but the last two. All ranks call it."""
        random = gather(random_state())
        with together():
            if rank():
                return
            records = (self.folder / METRICS).read_bytes()
            state.metrics_bytes, state.metrics_sha256 = len(records), hashlib.sha256(records).hexdigest()
            about = {
                "script": self.options.SCRIPT, "options": asdict(self.options), "ranks": world_size(),
                "identity": self.identity, "state": asdict(state),
            }  # fmt: skip
            path = self.folder / CHECKPOINTS / STEP.replace("*", f"{state.step:08d}")
            save_checkpoint(path, about, random, model, optimizer, best)
            for old in list_checkpoints(self.folder)[:-KEPT]:
                old.unlink()

    def finish(self) -> None:
        """The model is saved: draw the picture, and remove the checkpoints.

        The last of them goes last: killed before, the run can be finished again.
        """
        try:
            plot_training(self.folder)
        except Exception as error:  # whatever the picture fails with, the model is whole
            print(warning(f"training.png can't be drawn: {error}"), flush=True)
        for file in list_checkpoints(self.folder):
            file.unlink()
        _remove_if_empty(self.folder / CHECKPOINTS)
        heading("saved", str(self.folder))


@contextmanager
def open_run(options: Options) -> Iterator[Run[Options]]:
    """Prepare a training: choose the device, claim the output folder, set the seed."""
    with ExitStack() as claims:
        with together():
            device = pick_device(options.device, options.threads, local_rank())
            precision = pick_precision(options.precision, device)
            if precision == "bfloat16" and not has_bfloat16(device):
                no_units = f"torch finds no units for bfloat16 in this {device.type}: float32 is faster"
                print(warning(no_units), flush=True)
            device_name = str(device) if world_size() == 1 else device.type  # each of several ranks has its own GPU
            options = dataclasses.replace(options, device=device_name, precision=precision)
            if options.compile:
                compile_blocks(device)
            folder, claim = Path(options.output), None
            if rank() == 0:
                claim = claims.enter_context(claimed(folder))
                # What a dead run was about to write or to remove, the zip beside the folder included.
                remove_partial(folder, *RUN_FILES, STAGING)
                remove_partial(folder / CHECKPOINTS, STEP)
                remove_partial(zip_path(folder).parent, glob.escape(zip_path(folder).name))
                _remove_if_empty(folder / CHECKPOINTS)
            run = Run(options, device, check_output(options), claim=claim)
            torch.manual_seed(options.seed)
        yield run


def check_output(options: TrainingOptions) -> Checkpoint | None:
    """Refuse an output folder that a run would spoil, before any time is spent; returns the checkpoint to resume."""
    folder = Path(options.output)
    if options.resume and options.overwrite:
        raise UserError("--resume and --overwrite contradict each other: give one")
    if options.resume:
        return _resumable(folder, options)
    _check_place(folder)
    if not options.overwrite:
        _check_free(folder, with_zip=getattr(options, "zip", False))
    _check_read(folder, options)
    return None


def _check_free(folder: Path, with_zip: bool) -> None:
    """Refuse a folder with something in it that the run would replace."""
    if list_checkpoints(folder):
        raise UserError(f"{folder} has an unfinished run: --resume continues it, --overwrite starts anew")
    if (folder / WEIGHTS).exists():
        raise UserError(f"{folder} has a finished model: choose another --output, or replace it with --overwrite")
    left, archive = left_by_a_run(folder), zip_path(folder)
    aborted = {folder / METRICS, folder / OPTIONS} if folder / OPTIONS in left else set()  # came to nothing
    foreign = [file for file in left if file not in aborted]
    if with_zip and archive.exists() and not _is_packed_model(archive):
        foreign.append(archive)
    if foreign:
        raise UserError(
            f"{foreign[0]} is in the way: the run would replace it; choose another --output, or give --overwrite"
        )


def _check_read(folder: Path, options: TrainingOptions) -> None:
    """Refuse to write into the data, and to replace what is to be read."""
    data = Path(options.data)
    if options.data not in NO_PATHS["data"] and data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
        raise UserError(
            f"--output {folder} is in --data, so what a run writes would be data, too: choose another --output"
        )
    cache = getattr(options, "cache", "")
    path = Path(cache or os.devnull).resolve()
    if path == folder.resolve() or (options.data not in NO_PATHS["data"] and path.is_relative_to(data.resolve())):
        raise UserError(f"--cache {cache} is --output itself, or in --data: choose another folder")
    replaced = {path.resolve() for path in (folder, zip_path(folder), *left_by_a_run(folder))}
    for name in _READ:
        text = getattr(options, name, "")
        if text and text not in NO_PATHS.get(name, ()) and Path(text).resolve() in replaced:
            raise UserError(f"{flag(name)} {text} is in --output, which the run replaces: choose another --output")


def check_written(options: EvaluateOptions) -> None:
    """Refuse outputs of evaluate.py that would replace what it reads, a run's files, or one another."""
    model, data = Path(options.model), Path(options.similarity or options.data)
    kept = {path.resolve() for path in left_by_a_run(model) if path.name != MATRIX}
    for name in ("predictions", "json", "figure"):
        text = getattr(options, name)
        path = Path(text)
        if not text:
            continue
        if path.is_dir() or path.is_symlink():
            raise UserError(f"{flag(name)} {path} is a {'link' if path.is_symlink() else 'folder'}: name a file")
        if path.resolve() in kept:
            raise UserError(f"{flag(name)} {path} is a file of the model or of another option: name another one")
        if is_part_of(path, data) and name != "figure":
            raise UserError(f"{flag(name)} {path} is, or lies in, what is to be read: name another file")
        kept.add(path.resolve())


def _check_place(folder: Path) -> None:
    """Refuse a folder where other files would change the model, or it could not be written."""
    for file in (folder / name for name in FOREIGN_FILES):
        if file.exists():
            raise UserError(f"{file} would be read as a part of the new model: choose another --output, or remove it")
    for file in (*_all_files(folder), folder / CHECKPOINTS / STEP):
        if file.is_dir() or file.parent.is_file():
            obstacle = file if file.is_dir() else file.parent
            raise UserError(f"{obstacle} is in the way of what the run writes: move it, or choose another --output")
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"--output {folder}: its name is not UTF-8, which a model's file needs") from error


def _resumable(folder: Path, options: TrainingOptions) -> Checkpoint:
    """The last checkpoint; an error if there is none, or it does not match the options or the run's records."""
    if not (unfinished := list_checkpoints(folder)):
        finished = ": the run in it is finished" if (folder / WEIGHTS).exists() else ""
        raise UserError(f"{folder} has no checkpoint to resume from{finished}")
    checkpoint = read_checkpoint(unfinished[-1])
    path, about, state = checkpoint.path, checkpoint.about, State(**checkpoint.about["state"])
    if about["script"] != options.SCRIPT:
        raise UserError(f"{path} is of the other script's run: resume it with that script, or give --overwrite")
    before, now = about["options"], asdict(options)
    changed = [name for name in sorted((before.keys() | now.keys()) - _FREE) if before.get(name) != now.get(name)]
    if changed:  # if the recipe is another one, it is the reason
        name = "recipe" if before.get("recipe") != options.recipe else changed[0]
        asked = f"{flag(name)} {now.get(name)}"
        raise UserError(f"{asked} contradicts the run to be resumed, which has {before.get(name)}: leave it out")
    if about["ranks"] != world_size():
        raise UserError(
            f"ranks: {world_size()} contradicts the run to be resumed, which has {about['ranks']}:"
            " start as many processes as before (torchrun --nproc-per-node)"
        )
    metrics = folder / METRICS
    records = metrics.read_bytes()[: state.metrics_bytes] if metrics.is_file() else b""
    if hashlib.sha256(records).hexdigest() != state.metrics_sha256:
        raise UserError(f"{metrics} is missing, damaged or shorter than at {path.name}: --overwrite starts anew")
    return checkpoint


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest first."""
    return sorted((folder / CHECKPOINTS).glob(STEP))


def left_by_a_run(folder: Path) -> list[Path]:
    """The existing files among those that a run of either script, or evaluate.py, writes into its folder."""
    return [file for file in _all_files(folder) if file.is_file()]


def _all_files(folder: Path) -> list[Path]:
    """All of those, existing or not: weights first, options.json last (see `_check_free`)."""
    names = dict.fromkeys((WEIGHTS, *MODEL_FILES))
    return [*(folder / name for name in names), *list_checkpoints(folder), *(folder / name for name in RUN_FILES)]


def _is_packed_model(archive: Path) -> bool:
    """Whether a zip has what `--zip` packs, and nothing else."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return {"config.json", "classifier.json"} <= set(opened.namelist()) <= set(MODEL_FILES)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _check_room(folder: Path, model: nn.Module, freed: int) -> None:
    """Refuse a disk without room for even one checkpoint (weights, the best, two moments) and the model."""
    needed = 5 * sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    free = shutil.disk_usage(folder).free + freed
    if free < needed:
        raise UserError(
            f"can't write to {folder}: a checkpoint and the model take {needed / 1e6:,.1f} MB, and"
            f" {free / 1e6:,.1f} MB are free"
        )
