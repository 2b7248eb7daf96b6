"""Proves that a folder belongs to one run at a time, and that a full disk costs nothing but the run's time."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import train_mlm
from minibert import checkpoint
from minibert.cli import run
from minibert.errors import UserError
from minibert.files import claimed, write_file
from minibert.run import open_run
from tests.processes import PATIENCE, SERVER, start
from tests.toy_task import options

ROOT = Path(__file__).parents[2]
TRAIN = [
    "--data", "toy", "--max-articles", "64", "--held-out", "8", "--vocab-size", "300",
    "--hidden-size", "32", "--num-hidden-layers", "1", "--save-every", "1", "--epochs", "1",
]  # fmt: skip


def hold(folder: Path, ready: Any) -> None:
    with claimed(folder):
        ready.set()
        time.sleep(600)


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder, ready = tmp_path / "out", SERVER.Event()
    first = start(hold, folder, ready, out=tmp_path / "first")
    assert ready.wait(PATIENCE)
    with pytest.raises(UserError, match=f"{folder} is in use by another run: wait for its end"):
        train_mlm.main([*TRAIN, "--output", str(folder)])
    first.kill()
    first.join()
    with claimed(folder):  # the claim has died with its process, though that could do nothing about it
        pass


def test_what_a_dead_run_was_writing_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Only names that a run gives: in a folder above or below another run may be at work, or someone else."""
    (tmp_path / "out" / "checkpoints").mkdir(parents=True)
    (tmp_path / "out" / ".partial-34-model").mkdir()
    (tmp_path / "out" / ".partial-x").mkdir()
    (tmp_path / "out" / "inner" / "checkpoints").mkdir(parents=True)
    theirs = [
        "out/.partial-1-notes.txt", "out/.partial-README.md", "out/.mine", "out/checkpoints/.partial-1-options.json",
        "out/.partial-x/notes.txt", "out/checkpoints/step-1", "out/inner/.partial-1-README.md",
        "out/inner/checkpoints/.partial-7-step-00000001.safetensors", "out/.partial-12-inner.zip",
        ".partial-12-my-out.zip", ".partial-my-out.zip", ".partial-12-out.zip.zip", ".partial-1-README.md",
    ]  # fmt: skip
    ours = [
        "out/.partial-1-README.md", "out/.partial-23-options.json", "out/.partial-1-training.png",
        "out/.partial-34-model/config.json", "out/checkpoints/.partial-1-step-00000001.safetensors",
        ".partial-12-out.zip",
    ]  # fmt: skip
    for name in (*theirs, *ours):
        (tmp_path / name).write_text("")
    with open_run(options(tmp_path / "out")):
        pass
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(theirs)
    assert not (tmp_path / "out" / ".partial-34-model").exists()


@pytest.mark.parametrize("name", ["out", "run[1]", "a*", "ün üm"])
def test_a_zip_that_a_dead_run_was_writing_is_removed_and_no_other(tmp_path: Path, name: str) -> None:
    for zipped in (f".partial-12-{name}.zip", ".partial-12-run1.zip", ".partial-12-ab.zip"):
        (tmp_path / zipped).write_text("")
    with open_run(options(tmp_path / name)):
        assert sorted(path.name for path in tmp_path.glob("*.zip")) == [".partial-12-ab.zip", ".partial-12-run1.zip"]


def test_folders_that_were_made_in_vain_are_removed(tmp_path: Path) -> None:
    with claimed(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
    (tmp_path / "empty").mkdir()
    with claimed(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").is_dir()
    with claimed(tmp_path / "c"):
        (tmp_path / "c" / "file").write_text("")
    assert (tmp_path / "c" / "file").exists()


def test_a_claim_on_a_folder_that_was_replaced_leaves_the_new_one_to_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with ExitStack() as other:
        with claimed(folder) as mine:
            assert mine() == folder
            folder.rename(tmp_path / "moved")
            theirs = other.enter_context(claimed(folder))
            with pytest.raises(UserError, match="was moved, removed or replaced during the run"):
                mine()
        assert theirs() == folder
        with pytest.raises(UserError, match="is in use by another run"), claimed(folder):
            pass
    assert not folder.exists()


def test_errors_inside_are_not_taken_for_a_claim(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), claimed(tmp_path):
        raise BlockingIOError
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder"), claimed(tmp_path / "file"):
        pass
    with pytest.raises(UserError, match="can't write to"), claimed(tmp_path / "file" / "below"):
        pass


def train_on_a_disk_that_fills_up(arguments: list[str]) -> None:
    """From the third file of weights on, the system lets no file grow beyond 4 kB."""
    written: list[Path] = []

    def write(path: Path, make: Callable[[Path], object]) -> None:
        if path.suffix == ".safetensors":
            written.append(path)
        if len(written) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        write_file(path, make)

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    patch.object(checkpoint, "write_file", write).start()
    run(lambda: train_mlm.main(arguments))


def test_a_disk_that_fills_up_leaves_the_older_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Then there is room again."""
    arguments = [*TRAIN, "--output", str(tmp_path / "out")]
    process = start(train_on_a_disk_that_fills_up, arguments, out=tmp_path / "said")
    process.join()
    (line,) = (tmp_path / "said.err").read_text().splitlines()
    assert process.exitcode == 2, line
    assert "can't write" in line
    assert "step-00000003.safetensors" in line
    left = sorted(path.name for path in (tmp_path / "out" / "checkpoints").iterdir())
    assert left == ["step-00000001.safetensors", "step-00000002.safetensors"]
    train_mlm.main([*arguments, "--resume"])
    assert "resuming    after step 2" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize(("size", "left"), [("600k", []), ("2900k", ["step-00000001", "step-00000002"])])
def test_a_real_disk_that_is_full(tmp_path: Path, size: str, left: list[str]) -> None:
    """The same on a tmpfs, in a namespace of its own: one line, no partial file, the older checkpoints.

    A checkpoint is of 0.97 MB. If not even one has room, that is said before the first step.
    """
    script = 'mount -t tmpfs -o size=$1 none "$0" && { shift; "$@"; echo "status $?"; find "$0"; }'
    command = ["unshare", "--mount", "sh", "-c", script, str(tmp_path), size, sys.executable, "train_mlm.py", *TRAIN]
    command += ["--output", str(tmp_path / "out"), "--log-every", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert "status 2" in done.stdout, done.stderr + done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: can't write")
    assert ("step 1/" in done.stdout) == bool(left)
    assert [Path(name).stem for name in sorted(done.stdout.split("status 2")[1].split()) if "step-" in name] == left
    assert ".partial-" not in done.stdout
    assert (f"{tmp_path}/out\n" in done.stdout) == bool(left)
