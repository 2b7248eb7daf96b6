r"""Where attention's look at neighbours forms: maps of one sentence as training goes on, from runs of ablation.py.

    python benchmarks/ablation.py mlm --data wikipedia/ --vocab vocab.txt --output ablation --rows 0 9 \
        --snapshots 200 1000
    python benchmarks/plateau.py --runs ablation/mlm-0-all-42 ablation/mlm-9-all-42 --steps 200 1000

Each run has a row of maps: at the snapshots, and at the end. A map is that of the one head, of all layers, which gives
its neighbours most, that is the two tokens before each token and the two after it, on average over the sentence's
tokens. A head that looks everywhere alike gives them 4 of T.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that it also runs from another folder

from minibert import plots
from minibert.hub import from_pretrained
from minibert.inference import TrainedModel

SENTENCE = "The king of the small island lived in a castle near the sea ."


@dataclass(frozen=True)
class Look:
    """What the head that looks most at neighbours looks at.

    Attributes:
        tokens: T of them.
        shares: (T, T) probabilities, a row looks.
        layer, head: which it is, from 0.
        neighbours: the share of its attention that neighbours get.
    """

    tokens: list[str]
    shares: NDArray[np.float32]
    layer: int
    head: int
    neighbours: float


def main() -> None:
    """Read the flags, look at each model, print the shares, draw the maps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of ablation.py's runs")
    parser.add_argument("--names", nargs="+", default=[], help="what to call them in the picture")
    parser.add_argument("--steps", type=int, nargs="+", default=[200, 1000], help="the snapshots to look at")
    parser.add_argument("--text", default=SENTENCE, help="the sentence")
    parser.add_argument("--output", type=Path, default=Path("plateau.png"), help="where the picture goes")
    options = parser.parse_args()

    names = options.names or [run.name for run in options.runs]
    looks = {}
    print("| run | step | head | looks at neighbours |\n| --- | --- | --- | --- |")
    for name, run in zip(names, options.runs, strict=True):
        for step in [*options.steps, 0]:
            look = look_of(at_step(run, step), options.text)
            looks[name, step] = look
            where = f"layer {look.layer + 1}, head {look.head + 1}"
            print(f"| {name} | {step or 'the last'} | {where} | {look.neighbours:.0%} |", flush=True)
    draw(looks, names, [*options.steps, 0], options.output)


def at_step(run: Path, step: int) -> TrainedModel:
    """A run's model as it was at a snapshot, or for step 0 as it is at the end."""
    model = from_pretrained(run)
    if step and model.masked_lm is not None:
        tensors = load_file(run / f"step-{step:08d}.safetensors")
        states = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
        model.masked_lm.load_state_dict(states)
    return model


def look_of(model: TrainedModel, text: str) -> Look:
    """The head that gives a sentence's neighbours most."""
    tokens, maps = model.attention(text)  # (L, H, T, T)
    distance = np.abs(np.subtract.outer(np.arange(len(tokens)), np.arange(len(tokens))))
    near = (distance > 0) & (distance <= 2)
    shares = (maps * near).sum(axis=-1)[:, :, 1:-1].mean(axis=-1)  # (L, H): without [CLS] and [SEP]
    layer, head = np.unravel_index(shares.argmax(), shares.shape)
    return Look(tokens, maps[layer, head], int(layer), int(head), float(shares[layer, head]))


@plots.optional()
def draw(looks: dict[tuple[str, int], Look], names: list[str], steps: list[int], path: Path) -> None:
    """A row of maps for each run, a column for each step."""
    figure = plots.new_figure(3.1 * len(steps) + 0.8, 3.3 * len(names) + 0.6)
    figure.set_layout_engine("compressed")
    grid = figure.subplots(len(names), len(steps), squeeze=False, sharex=True, sharey=True)
    for row, name in zip(grid, names, strict=True):
        for axes, step in zip(row, steps, strict=True):
            look = looks[name, step]
            axes.imshow(look.shares, cmap=plots.SHADES, vmin=0, vmax=1)
            when = f"step {step:,}" if step else "the last step"
            axes.set_title(f"{plots.legible(name)}, {when}\nneighbours get {look.neighbours:.0%}", fontsize=9)
            axes.tick_params(length=0, labelsize=8)
            axes.tick_params(axis="x", labelrotation=90)
    tokens = [plots.legible(token) for token in look.tokens]
    grid[0, 0].set_xticks(range(len(tokens)), tokens)
    grid[0, 0].set_yticks(range(len(tokens)), tokens)
    plots.save(figure, path)


if __name__ == "__main__":
    main()
