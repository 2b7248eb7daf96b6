"""Memory and time of a pretraining run, as its text grows: once, three and ten times the same articles.

Each run is train_mlm.py as a user starts it, in a process of its own: all articles, a few steps, the token ids
made and then reused. The peak is the most memory that the process has had resident at any time, mapped files included.
The time is from the start of the process to the line that says that the ids are there, loading of libraries included.

    python benchmarks/memory.py --data articles.parquet --vocab vocab.txt

It needs an otherwise idle machine for the times; the peaks do not depend on that.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that it also runs from another folder

from minibert.data.formats import read_rows
from minibert.files import read_records, write_json


def main() -> None:
    """Read the flags, run, print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a file of articles")
    parser.add_argument("--vocab", required=True, help="as for train_mlm.py")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 3, 10], help="how often the file is repeated")
    parser.add_argument("--steps", type=int, default=20, help="training steps of each run")
    parser.add_argument("--held-out", type=int, default=500, help="articles held out")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    texts = [text for (text,) in read_rows(options.data, [("text",)])]
    figures = []
    print(f"{'copies':>6} {'store':>7} {'articles':>10} {'tokens':>13} {'peak MB':>8} {'seconds':>8}", flush=True)
    for copies in options.copies:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "articles"
            data.mkdir()
            for number in range(copies):
                columns = {"text": texts, "copy": [number] * len(texts)}  # files that are equal would be refused
                pq.write_table(pa.table(columns), data / f"train-{number}.parquet")
            for store in ("built", "reused"):
                run = measure(Path(folder), options)
                figures.append({"copies": copies, "store": store, **run})
                print(
                    f"{copies:>6} {store:>7} {run['articles']:>10,.0f} {run['tokens']:>13,.0f} {run['peak_mb']:>8,.0f}"
                    f" {run['seconds']:>8.1f}",
                    flush=True,
                )
    if options.json:
        write_json(options.json, figures)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """One run on the articles in `folder`: its size, the peak of its memory, and the time until its ids were there."""
    command = [
        sys.executable, str(ROOT / "train_mlm.py"), "--data", str(folder / "articles"), "--vocab", options.vocab,
        "--max-articles", "0", "--held-out", str(options.held_out), "--max-steps", str(options.steps),
        "--cache", str(folder / "cache"), "--output", str(folder / "model"), "--overwrite",
    ]  # fmt: skip
    began, seconds = time.monotonic(), 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout or ():
            if line.startswith("cache"):
                seconds = time.monotonic() - began
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        sys.exit(f"train_mlm.py has failed with status {run.returncode}")
    start = read_records(folder / "model" / "metrics.jsonl")[0]
    return {
        "articles": start["articles"],
        "tokens": start["tokens"],
        "peak_mb": usage.ru_maxrss / 1024,  # Linux counts in kilobytes
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
