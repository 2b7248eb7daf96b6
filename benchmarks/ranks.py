"""Pretraining by one process and by two, of one thread each, in turns: tokens a second, and the ratio of a round.

    python benchmarks/ranks.py                                  # on toy text, to see that it runs
    python benchmarks/ranks.py --wikipedia PATH --vocab PATH

Both take the same steps on the same batches: one process with batches of 16, or two with 8 each, whose gradients are
added up over gloo. A rate is the median of those in metrics.jsonl, after the first ones. It needs an otherwise idle
machine with at least two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROCESSES = {
    1: [sys.executable],
    2: [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
}
BATCH, EVERY = 16, 5  # sequences of a step, and steps between two rates


def main() -> None:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wikipedia", default="toy", help="articles: a path as for train_mlm.py --data")
    parser.add_argument("--vocab", default="", help="as for train_mlm.py; of toy text it is learned")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="in a round, for each")
    parser.add_argument("--recipe", default="notebook", help="as for train_mlm.py")
    options = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for count in (1, 2) if number % 2 else (2, 1):
                rates[count].append(rate(count, options, Path(folder) / f"{number}-{count}"))
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    for count, values in rates.items():
        print(f"{count} process{'es' * (count > 1)}: {statistics.median(values):,.0f} tokens/s")
    print(f"ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def rate(count: int, options: argparse.Namespace, output: Path) -> float:
    """Tokens a second of a training by so many processes."""
    command = [
        *PROCESSES[count], str(ROOT / "train_mlm.py"), "--recipe", options.recipe, "--data", options.wikipedia,
        "--vocab", options.vocab, "--threads", "1", "--batch-size", str(BATCH // count), "--max-steps",
        str(options.steps), "--max-articles", "2000", "--held-out", "16", "--log-every", str(EVERY),
        "--output", str(output),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    found = [line["tokens_per_second"] for line in lines if line["kind"] == "train"]
    return statistics.median(found[2:] or found)


if __name__ == "__main__":
    main()
