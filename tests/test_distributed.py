"""Proves that ranks change no figure, that rank 0 alone speaks and writes, and that no rank is waited for in vain.

One pretraining and a killed rank are run by torchrun itself. The others are pairs of forked processes with torchrun's
variables in their environment.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed
from safetensors.torch import load_file
from torch import nn

import train_mlm
import train_nli
from minibert.cli import run
from minibert.config import ModelConfig
from minibert.distributed import rank, ranks
from minibert.errors import UserError
from minibert.hub import save_mlm
from minibert.modern import make_masked_lm
from minibert.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from tests.data.rows import write
from tests.metrics import records
from tests.processes import PATIENCE, start
from tests.toy_task import Line, LineTask, Points, options, train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# 145 articles: with 16 in a step, the last step of an epoch has a single one, and a rank or a part that has none.
MLM = [
    "--data", "toy", "--hidden-size", "16", "--num-hidden-layers", "1", "--num-attention-heads", "2",
    "--intermediate-size", "32", "--max-articles", "145", "--held-out", "25", "--vocab-size", "300",
    "--max-length", "48", "--epochs", "8", "--learning-rate", "3e-3", "--log-every", "1",
]  # fmt: skip
NLI = ["--data", "toy", "--max-train", "145", "--max-validation", "50", "--epochs", "8", "--learning-rate", "3e-3",
       "--log-every", "1"]  # fmt: skip
# 144 articles, all of the greatest length: ranks draw equally many random numbers for dropout.
DROPPING = [*MLM, "--batch-size", "8", "--max-articles", "144", "--max-steps", "50", "--dropout", "0.3",
            "--warmup-ratio", "0.5"]  # fmt: skip
EXACT = ["--max-steps", "50", "--dropout", "0"]
PLAIN, HALF, ACCUMULATED, QUARTER = (
    ["--batch-size", str(size), "--accumulate", str(parts)] for size, parts in ((16, 1), (8, 1), (8, 2), (4, 2))
)


def torchrun(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, str(ROOT / script), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@dataclass
class Job:
    """Two ranks that have ended."""

    statuses: list[int | None]
    out: list[str]
    err: list[str]


def without_picture() -> AbstractContextManager[object]:
    """An empty file in its place, and half a second less."""
    return patch("minibert.run.plot_training", lambda folder: (folder / "training.png").touch())


def as_rank(script: str, arguments: list[str]) -> None:
    """The main function of a rank that torchrun would have started."""
    with without_picture():
        run(lambda: importlib.import_module(script).main(arguments))


class Forks:
    """Starts pairs of ranks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs = folder, 0

    def start(self, script: str, *arguments: str, others: Sequence[str] = ()) -> list[ForkServerProcess]:
        """Of a script, with `others` as further arguments of rank 1."""
        return self.start_calls(as_rank, *((script, [*arguments, *more]) for more in ([], others)))

    def start_calls(self, call: Callable[..., object], *arguments: tuple[Any, ...]) -> list[ForkServerProcess]:
        """Of a function, with each rank's arguments."""
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.jobs += 1
        master = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        return [
            start(call, *arguments[number], out=self.out(number),
                  environment={"RANK": str(number), "LOCAL_RANK": str(number), **master})
            for number in (0, 1)
        ]  # fmt: skip

    def out(self, number: int) -> Path:
        return self.folder / f"job{self.jobs}-{number}"

    def end(self, processes: list[ForkServerProcess]) -> Job:
        for process in processes:
            process.join(PATIENCE)
            if process.exitcode is None:
                process.kill()
        texts = [[Path(f"{self.out(number)}.{name}").read_text() for number in (0, 1)] for name in ("out", "err")]
        return Job([process.exitcode for process in processes], *texts)

    def run(self, script: str, *arguments: str, others: Sequence[str] = ()) -> Job:
        return self.end(self.start(script, *arguments, others=others))


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Forks:
    return Forks(tmp_path_factory.mktemp("forks"))


@pytest.fixture(scope="module")
def exact(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both trainings in four arrangements of 16 examples a step: at once, accumulated, on two ranks, on two ranks and
    accumulated."""
    folder = tmp_path_factory.mktemp("exact")
    encoder = str(folder / "encoder")
    torch.set_num_threads(1)
    kinds = {"mlm": (train_mlm, [*MLM, *EXACT]), "nli": (train_nli, [*NLI, *EXACT, "--encoder", encoder])}
    real = torchrun("train_mlm.py", *kinds["mlm"][1], *HALF, "--output", str(folder / "mlm-ranks"))
    with without_picture():
        train_mlm.main([*MLM, *PLAIN, "--max-steps", "1", "--dropout", "0", "--output", encoder])
        for kind, (script, arguments) in kinds.items():
            for name, arrangement in (("plain", PLAIN), ("accumulated", ACCUMULATED)):
                script.main([*arguments, *arrangement, "--output", str(folder / f"{kind}-{name}")])
    for kind, name, arrangement in (("nli", "ranks", HALF), ("nli", "both", QUARTER), ("mlm", "both", QUARTER)):
        job = forks.run(f"train_{kind}", *kinds[kind][1], *arrangement, "--output", str(folder / f"{kind}-{name}"))
        assert job.statuses == [0, 0], job.err
        assert job.out[1] == job.err[0] == job.err[1] == ""
        (folder / f"{kind}-{name}.out").write_text(job.out[0])
    out, err = real.communicate(timeout=PATIENCE)
    assert real.returncode == 0, err
    (folder / "mlm-ranks.out").write_text(out)
    return folder


@pytest.mark.parametrize("arrangement", ["accumulated", "ranks", "both"])
@pytest.mark.parametrize("kind", ["mlm", "nli"])
def test_50_steps_have_the_same_losses_in_all_arrangements(exact: Path, kind: str, arrangement: str) -> None:
    plain, other = exact / f"{kind}-plain", exact / f"{kind}-{arrangement}"
    expected, losses = ([record["loss"] for record in records(folder, "train")] for folder in (plain, other))
    assert len(expected) == 50
    assert max(expected) - min(expected) > 0.1  # something happens
    assert losses == pytest.approx(expected, abs=1e-5)
    for before, after in zip(records(plain, "validation"), records(other, "validation"), strict=True):
        assert {**after, "kind": 0} == pytest.approx({**before, "kind": 0}, rel=1e-5)
    for before, after in zip(records(plain, "train"), records(other, "train"), strict=True):
        assert after["accuracy"] == pytest.approx(before["accuracy"])


@pytest.mark.parametrize("kind", ["mlm", "nli"])
def test_rank_0_alone_speaks_and_writes(exact: Path, kind: str) -> None:
    """What is printed and what is left is that of a plain run, once."""
    out = (exact / f"{kind}-ranks.out").read_text()
    assert out.count("step 7/50") == out.count("validated after 10 steps") == out.count("saved  ") == 1
    assert "50 steps of 16" in out
    assert "2 ranks" in out
    names = [{path.name for path in (exact / f"{kind}-{name}").iterdir()} for name in ("plain", "ranks")]
    assert names[0] == names[1]
    assert [record["step"] for record in records(exact / f"{kind}-ranks", "train")] == list(range(1, 51))


def test_ranks_end_with_the_weights_of_the_plain_run(exact: Path) -> None:
    for kind in ("mlm", "nli"):
        plain, ranks = (load_file(exact / f"{kind}-{name}" / "model.safetensors") for name in ("plain", "ranks"))
        for name, tensor in plain.items():
            torch.testing.assert_close(ranks[name], tensor, rtol=0, atol=2e-4)


@pytest.mark.usefixtures("no_picture")
def test_one_process_does_without_torch_distributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is torchrun that has started it."""
    monkeypatch.setattr(torch.distributed, "init_process_group", None)
    for number, environment in enumerate(({}, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"})):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        train_mlm.main([*MLM, *PLAIN, "--max-steps", "1", "--output", str(tmp_path / str(number))])


def children(process: subprocess.Popen[str]) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def test_a_killed_rank_ends_the_job_and_torchrun_names_it(tmp_path: Path) -> None:
    job = torchrun("train_mlm.py", *MLM, *HALF, "--epochs", "5000", "--output", str(tmp_path / "run"))
    wait_for(tmp_path / "run" / "metrics.jsonl", '"step": 20,')
    os.kill(children(job)[-1], signal.SIGKILL)
    _, err = job.communicate(timeout=PATIENCE)  # raises if it hangs
    assert job.returncode == 1
    assert "Signal 9 (SIGKILL)" in err


def wait_for(file: Path, text: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (file.exists() and text in file.read_text()):
        assert time.monotonic() < deadline, file
        time.sleep(0.01)


@pytest.fixture(scope="module")
def stopped(forks: Forks) -> Job:
    """Ranks that were stopped by a signal to one of them, in `part`; and the same ones, left in peace, in `whole`."""
    whole, part = ([*DROPPING, "--output", str(forks.folder / name)] for name in ("whole", "part"))
    assert forks.run("train_mlm", *whole).statuses == [0, 0]
    processes = forks.start("train_mlm", *part)
    wait_for(forks.folder / "part" / "metrics.jsonl", '"step": 13,')
    processes[1].terminate()
    return forks.end(processes)


def test_a_signal_to_one_rank_stops_all_with_one_checkpoint(forks: Forks, stopped: Job) -> None:
    assert stopped.statuses == [143, 143]
    assert stopped.err[1] == ""
    (line,) = stopped.err[0].splitlines()
    script, *flags = line.split("to continue: torchrun ... ")[1].split()
    assert Path(script).resolve() == ROOT / "train_mlm.py"
    assert flags == ["--output", str(forks.folder / "part"), "--resume"]
    step = int(line.split("stopped at step ")[1].split(",")[0])
    assert step >= 13
    saved = max(path.name for path in (forks.folder / "part" / "checkpoints").glob("step-*"))
    assert saved == f"step-{step:08d}.safetensors"


def test_a_resumed_run_of_two_ranks_is_the_uninterrupted_one_bit_for_bit(
    forks: Forks, stopped: Job, tmp_path: Path
) -> None:
    """Dropout is on, so the random state of each rank matters."""
    folders = forks.folder / "whole", Path(shutil.copytree(forks.folder / "part", tmp_path / "part"))
    job = forks.run("train_mlm", "--output", str(folders[1]), "--resume")
    assert job.statuses == [0, 0], job.err
    whole, part = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(tensor, part[name]) for name, tensor in whole.items())
    losses = [[record["loss"] for record in records(folder, "train")] for folder in folders]
    assert losses[0] == losses[1]


def test_another_number_of_ranks_does_not_continue_a_run(forks: Forks, stopped: Job) -> None:
    with pytest.raises(UserError, match="ranks: 1 contradicts the run to be resumed, which has 2"):
        train_mlm.main([*DROPPING, "--output", str(forks.folder / "part"), "--resume"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch-size", "0"], "error: --batch-size 0: it has to be at least 1"),
        (["--no-such-flag"], "error: unknown option --no-such-flag"),
        (["--data", "/no/where"], "error: no file or folder"),
        (["--output", "/dev/null/below"], "below: Not a directory"),
        (
            ["--learning-rate", "1e38", "--clip", "1e38", "--log-every", "4", "--warmup-ratio", "0"],
            "error: the loss or its gradient is not a number any more at step",
        ),
    ],
)
def test_what_is_wrong_is_said_by_rank_0_alone(forks: Forks, tmp_path: Path, flags: list[str], message: str) -> None:
    job = forks.run("train_mlm", *MLM, "--output", str(tmp_path / "out"), *flags)
    assert job.statuses == [2, 2]
    assert job.err[0].count(message) == 1
    assert "Traceback" not in job.err[0]
    assert job.out[1] == job.err[1] == ""
    assert (tmp_path / "out").exists() == ("--learning-rate" in flags)  # nothing half-written


class Alike(LineTask):
    """The same two points in every step, one for each rank, so that only dropout can make a difference."""

    def batch(self, epoch: int, step: int) -> Points:
        return Points(torch.ones(2, 2), torch.zeros(2))


def watch_dropout(output: Path, seen: str, resume: bool, failing_at: int) -> None:
    """A rank's run, and which elements it has left in each step, in a file."""
    masks: list[list[bool]] = []

    def see(_: nn.Module, inputs: Any, kept: torch.Tensor) -> None:
        if len(masks) == failing_at:
            Path(f"{seen}{rank()}").write_text(json.dumps(masks))
            raise KeyboardInterrupt
        masks.append((kept != 0).flatten().tolist())

    task = Alike(Line(dropout=0.5))
    task.model.dropout.register_forward_hook(see)
    with ranks():
        train(task, options(output, resume=resume))
        Path(f"{seen}{rank()}").write_text(json.dumps(masks))


def test_ranks_drop_out_different_elements_and_go_on_with_their_own(forks: Forks, tmp_path: Path) -> None:
    """Both draw equally many numbers, so their random states differ only if they began with other ones."""

    def masks(output: str, seen: str, resume: bool = False, failing_at: int = -1) -> list[list[list[bool]]]:
        call = (tmp_path / output, str(tmp_path / seen), resume, failing_at)
        forks.end(forks.start_calls(watch_dropout, call, call))
        return [json.loads((tmp_path / f"{seen}{number}").read_text()) for number in (0, 1)]

    whole = masks("whole", "all")
    assert [len(its) for its in whole] == [21, 21]
    assert sum(a != b for a, b in zip(*whole, strict=True)) > 10  # 16 of 21 are to be expected
    assert masks("part", "first", failing_at=9) == [its[:9] for its in whole]
    assert masks("part", "rest", resume=True) == [its[7:] for its in whole]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but there is no RANK: start with torchrun, or unset WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "there is no MASTER_ADDR"),
        (
            {"WORLD_SIZE": "two", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
            "WORLD_SIZE is 'two', which is not a number",
        ),
    ],
)
def test_half_of_torchruns_variables_is_one_line(
    given: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message), ranks():
        pytest.fail("it begins")


def test_what_others_set_is_no_rank(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A scheduler's RANK without WORLD_SIZE, or an empty one: the script trains alone, and says what is wrong."""
    monkeypatch.setenv("RANK", "1")
    for size in ("", "1"):
        monkeypatch.setenv("WORLD_SIZE", size)
        with ranks():
            assert rank() == 0
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(UserError, match="unknown option --epoch: did you mean --epochs"):
        train_mlm.main(["--epoch", "3"])


def train_from(output: Path, weight: float) -> None:
    task = LineTask()
    task.model.weight.data.fill_(weight)

    def main() -> None:
        with ranks():
            train(task, options(output))

    run(main)


def test_ranks_that_begin_with_other_weights_do_not_begin(forks: Forks, tmp_path: Path) -> None:
    job = forks.end(forks.start_calls(train_from, (tmp_path / "out", 1.0), (tmp_path / "out", 2.0)))
    assert job.statuses == [2, 2]
    assert job.err == ["error: rank 1 has other weights than rank 0: all ranks have to read the same\n", ""]
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def two_of_all(forks: Forks) -> Path:
    """Encoders and pairs for train_nli, in two editions each."""
    folder = forks.folder / "two"
    tokenizer = WordPieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, "cat", "dog", "the", *"0123456789"])
    shape = ModelConfig(tokenizer.vocab_size, 8, 1, 1, 8, 16)
    for name in ("encoder", "other-encoder"):
        save_mlm(folder / name, make_masked_lm(shape), tokenizer)
    rows = [{"premise": f"the cat {i}", "hypothesis": f"the dog {i}", "label": i % 3} for i in range(20)]
    changed = [*rows[:7], {**rows[7], "label": 0}, *rows[8:]]
    for name, train_rows, validation in (
        ("pairs", rows, rows), ("other-label", changed, rows), ("fewer", rows[:8], rows), ("validated", rows, rows[1:]),
    ):  # fmt: skip
        write(folder / name / "train.jsonl", train_rows)
        write(folder / name / "validation.jsonl", validation)
    return folder


@pytest.mark.parametrize(
    ("flag", "name", "what"),
    [
        ("--data", "other-label", "training pairs"),
        ("--data", "fewer", "training pairs"),
        ("--data", "validated", "validation pairs"),
        ("--encoder", "other-encoder", "encoder"),
    ],
)
def test_ranks_that_have_read_different_things_do_not_begin(
    forks: Forks, two_of_all: Path, tmp_path: Path, flag: str, name: str, what: str
) -> None:
    arguments = ["--data", str(two_of_all / "pairs"), "--encoder", str(two_of_all / "encoder"), "--output",
                 str(tmp_path / "out")]  # fmt: skip
    job = forks.run("train_nli", *arguments, others=[flag, str(two_of_all / name)])
    assert job.statuses == [2, 2]
    assert job.err == [f"error: rank 1 has other {what} than rank 0: all ranks have to read the same\n", ""]
    assert not (tmp_path / "out").exists()
