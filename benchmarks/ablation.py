"""What each part of the strong recipe is for: pretraining step by step, and fine-tuning without one part at a time.

Each row is a run of train_mlm.py or train_nli.py in a process of its own. In pretraining, it has the flags that the
rows up to it have gathered, and the last one kept is `--recipe strong`; in fine-tuning, each row is the strong recipe
without one of its parts. Networks that are neither BERT nor ModernBERT are trained by benchmarks/half_modern.py. A row
that is there in the output folder is not run again.

    python benchmarks/ablation.py mlm --data wikipedia/ --vocab vocab.txt --output ablation [--rows 0 9] [--steps 1000]
    python benchmarks/ablation.py nli --data snli/ --encoder models/bert_mlm_captions --output ablation [--seeds 42 1]

Without --steps each row has all the steps of its recipe. The losses of the rows asked for are drawn together, in
mlm.png or nli.png of the output folder. --snapshots 200 1000 keeps the model at these steps, too, for a look at its
attention (benchmarks/plateau.py).
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that it also runs from another folder

from minibert import plots
from minibert.files import read_records, write_json


@dataclass(frozen=True)
class Row:
    """One change.

    Attributes:
        name: what is changed, as the table has it.
        flags: what it adds to the flags of the rows before it.
        kept: whether the rows after it have it, too; otherwise it is tried by itself on top of those before it.
        network: one of half_modern.py's, for this row alone; none = the one that its flags ask for.
    """

    name: str
    flags: tuple[str, ...] = ()
    kept: bool = True
    network: str = ""


MLM = (
    Row("the notebook's recipe"),
    Row("whole articles in full blocks", ("--blocks", "--max-steps", "4400")),
    Row("no dropout", ("--dropout", "0")),
    Row("norms before each part, and one at the end", network="pre-norm"),
    Row("gated feed-forward layers, no segments", ("--intermediate-size", "688"), network="gated"),
    Row("rotary positions", ("--architecture", "modernbert")),
    Row("decoder's bias at the log frequencies", ("--unigram-bias",)),
    Row("beta2 0.98, only matrices decayed", ("--beta2", "0.98", "--decayed", "matrices")),
    Row("learning rate 2e-3", ("--learning-rate", "2e-3")),
    Row("heads pointed at neighbours", ("--neighbour-heads",)),
    Row("and no biases, so no pointed heads", ("--no-neighbour-heads",), kept=False, network="no-biases"),
    Row("and batches of 8, twice the steps", ("--batch-size", "8", "--max-steps", "8800"), kept=False),
    Row("and the decoder's bias at 0", ("--no-unigram-bias",), kept=False),
    Row("30 % of tokens masked, and fewer steps", ("--mask-rate", "0.3", "--max-steps", "3000")),
    Row("and 40 % of tokens masked", ("--mask-rate", "0.4"), kept=False),
)

# From the strong recipe, each without one of its parts.
NLI = (
    Row("the strong recipe", ("--recipe", "strong")),
    Row("without the contrastive loss", ("--contrast", "0"), kept=False),
    Row("the mean of 2,048 numbers, not the largest", ("--pooling", "mean"), kept=False),
    Row("without mixtures", ("--mixup", "0"), kept=False),
    Row("weight decay 0.01", ("--weight-decay", "0.01"), kept=False),
    Row("without premises: the control", ("--hypothesis-only",), kept=False),
)

LADDERS = {"mlm": MLM, "nli": NLI}
ROW = "row.json"
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def main() -> None:
    """Read the flags, run the rows, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladder", choices=LADDERS, help="pretraining or fine-tuning")
    parser.add_argument("--data", required=True, help="as for the script")
    parser.add_argument("--vocab", default="", help="as for train_mlm.py")
    parser.add_argument("--encoder", default="", help="as for train_nli.py")
    parser.add_argument("--output", type=Path, required=True, help="folder for all runs and for the table's figures")
    parser.add_argument("--rows", type=int, nargs="+", help="which rows, by number from 0; all without it")
    parser.add_argument("--steps", type=int, help="stop every row after so many steps, its schedule fitted to them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--snapshots", type=int, nargs="+", default=[], help="steps at which to keep the model")
    parser.add_argument("--threads", type=int, default=0, help="as for the scripts")
    options = parser.parse_args()

    ladder = LADDERS[options.ladder]
    options.rows = options.rows or list(range(len(ladder)))
    print("| change | held-out loss or validation accuracy | seconds a step |\n| --- | --- | --- |", flush=True)
    for number in options.rows:
        runs = [run(ladder, number, seed, options) for seed in options.seeds]
        scores = [score for score, _ in runs]
        spread = f" ({min(scores):.4f} to {max(scores):.4f})" if len(scores) > 1 else ""
        seconds = statistics.median(seconds for _, seconds in runs)
        print(f"| {ladder[number].name} | {statistics.mean(scores):.4f}{spread} | {seconds:.3f} |", flush=True)
    draw(ladder, options)


def flags(ladder: tuple[Row, ...], number: int) -> list[str]:
    """What a row's run is started with: its own flags after those of all kept rows before it."""
    before = [row for row in ladder[:number] if row.kept]
    return [flag for row in [*before, ladder[number]] for flag in row.flags]


def place(number: int, seed: int, options: argparse.Namespace) -> Path:
    """The folder of a row's run with a seed."""
    return Path(options.output / f"{options.ladder}-{number}-{options.steps or 'all'}-{seed}")


def run(ladder: tuple[Row, ...], number: int, seed: int, options: argparse.Namespace) -> tuple[float, float]:
    """Train one row with one seed, unless it is there; its score at the end and its seconds a step."""
    folder, network = place(number, seed, options), ladder[number].network
    if not (folder / ROW).exists():
        script = [ROOT / "benchmarks" / "half_modern.py", network] if network else [ROOT / f"train_{options.ladder}.py"]
        command = [
            sys.executable, *map(str, script), *flags(ladder, number), "--data", options.data,
            "--output", str(folder), "--overwrite", "--seed", str(seed), "--threads", str(options.threads),
            *(["--max-steps", str(options.steps)] if options.steps else []),
            *(["--vocab", options.vocab] if options.vocab else []),
            *(["--encoder", options.encoder] if options.encoder else []),
            *(["--save-every", str(math.gcd(*options.snapshots))] if options.snapshots else []),
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                keep_snapshots(folder, options.snapshots)
                time.sleep(0.5)
        if process.returncode:
            sys.exit(process.returncode)
    return read(folder, ladder[number])


def keep_snapshots(folder: Path, steps: list[int]) -> None:
    """Copy checkpoints that are wanted, since training keeps only the last two of them."""
    for step in steps:
        name = f"step-{step:08d}.safetensors"
        if (folder / "checkpoints" / name).exists() and not (folder / name).exists():
            shutil.copy(folder / "checkpoints" / name, folder / name)


def read(folder: Path, row: Row) -> tuple[float, float]:
    """A finished run's figures, from what it has written; put together in the folder, they say that it is finished."""
    records = read_records(folder / "metrics.jsonl")
    validations = [record for record in records if record["kind"] == "validation"]
    end = records[-1]
    name = "held_out_loss" if "held_out_loss" in validations[-1] else "validation_accuracy"
    best = validations[-1][name] if name == "held_out_loss" else max(record[name] for record in validations)
    seconds = end["seconds"] / end["step"]
    write_json(folder / ROW, {"row": row.name, name: best, "steps": end["step"], "seconds_a_step": seconds})
    return best, seconds


@plots.optional()
@plots.style()
def draw(ladder: tuple[Row, ...], options: argparse.Namespace) -> None:
    """The losses in training of all rows over their steps, of the first seed; dotted, that of a unigram guesser."""
    many = len(options.rows) > 4  # names that need a place of their own
    figure = plots.new_figure(8 if many else 6, 4.5 if many else 3.5)
    axes, strong = figure.subplots(), [row for row in ladder if row.kept][-1]
    for index, number in enumerate(options.rows):
        start, *records = read_records(place(number, options.seeds[0], options) / "metrics.jsonl")
        training = [record for record in records if record["kind"] == "train"]
        colour, style = (
            COLOURS[index % len(COLOURS)],
            ("-", "--", "-.")[index // len(COLOURS) % 3],
        )
        steps, losses = ([record[name] for record in training] for name in ("step", "loss"))
        name = ladder[number].name + (", which is the strong recipe" if ladder[number] == strong else "")
        axes.plot(steps, losses, style, color=colour, linewidth=1.5, label=f"{number}: {name}")
    if "unigram_loss" in start:
        axes.axhline(start["unigram_loss"], color=plots.GREY, linestyle=":", linewidth=1)
        axes.text(axes.get_xlim()[1], start["unigram_loss"], "unigrams", fontsize=7, ha="right", va="bottom")
    axes.set(xlabel="step", ylabel="loss in training")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(fontsize=7, **({"loc": "center left", "bbox_to_anchor": (1, 0.5)} if many else {}))
    plots.save(figure, options.output / f"{options.ladder}.png")


if __name__ == "__main__":
    main()
