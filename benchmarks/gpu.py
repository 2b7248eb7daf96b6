"""minibert on a GPU, in one go: is it right there, how fast is it beside the notebook's loop, and where does time go.

    python benchmarks/gpu.py --minutes 8 --json gpu.json --wikipedia wikipedia/ --snli snli/ --vocab vocab.txt

Sections, in the order in which they are run (`--only` chooses some and their order):

    machine   rates of matrix products and of memory, by which shares are told
    steps     a pretraining step of 16 x 128: the notebook's loop as written and made faster, train_mlm.py's, one graph
    profile   what a step's time is made of, as text beside the JSON
    tests     tests/test_cuda.py
    graphs    both recipes from start to end with every step a graph, in this process: seconds, losses, accuracies
    batches   growing batches, until the device is busy
    encode    sentences a second, beside sentence-transformers
    compiled  the rows of `steps` that torch.compile takes long for
    scripts   both recipes as a user starts them

Each figure is written to the file as soon as it is known. A section that fails leaves its error there, and the next one
is run; none begins when there is less time left than it takes. `--device cpu --tiny` runs all of it in a minute or two,
on toy text and tiny models, to see that it runs. It needs the extra `dev`, and nothing else at work on the device.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that it also runs from another folder
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.graphs import GraphedStep, mask_batches
from minibert import fast
from minibert.bert import BertForMaskedLM
from minibert.config import ModelConfig
from minibert.data.articles import Articles
from minibert.data.batching import Batch, Blocks, Chunk, TokenisedTexts, epoch_batches, epoch_order, pad
from minibert.data.pairs import Pairs, load_pairs
from minibert.device import compile_blocks, pick_precision
from minibert.files import read_records, write_json
from minibert.finetuning import NLITask
from minibert.hub import from_pretrained, load_tokenizer
from minibert.modern import make_masked_lm
from minibert.optimizer import adamw, schedule
from minibert.options import MLMOptions, NLIOptions
from minibert.pretraining import MLMTask, prepare
from minibert.run import Run
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer
from minibert.training import Metrics, Trainer

# What touches the package: options, data, networks, and the steps of its own loop. The rest of this file knows tensors.

BF16 = torch.bfloat16
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@dataclass
class World:
    """The text, and the networks made for it.

    Attributes:
        options: the command line.
        folder: for everything that is written.
        device: where it is computed.
    """

    options: argparse.Namespace
    folder: Path
    device: torch.device

    def mlm_options(self, recipe: str, **changes: Any) -> MLMOptions:
        """Pretraining by a recipe."""
        tiny: dict[str, Any] = {**TINY, "max_steps": 4, "held_out": 20, "max_length": 16} if self.options.tiny else {}
        paths = {"data": self.options.wikipedia, "vocab": self.options.vocab, "output": str(self.folder / "mlm")}
        return MLMOptions.of(recipe, **{**paths, **tiny, **changes})

    def nli_options(self, recipe: str, **changes: Any) -> NLIOptions:
        """Fine-tuning by a recipe."""
        tiny: dict[str, Any] = (
            {"max_train": 200, "max_validation": 50, "epochs": 1, "max_length": 16} if self.options.tiny else {}
        )
        return NLIOptions.of(
            recipe, **{"data": self.options.snli, "output": str(self.folder / "nli"), **tiny, **changes}
        )

    @property
    def length(self) -> int:
        """T of pretraining."""
        return self.mlm_options("notebook").max_length

    @cached_property
    def tokenizer(self) -> WordPieceTokenizer:
        """The vocabulary."""
        if self.options.vocab == "train":
            return WordPieceTokenizer.train(self.texts, 1_000)
        return load_tokenizer(self.options.vocab)

    @cached_property
    def tokenizer_folder(self) -> Path:
        """The tokenizer for others."""
        (self.folder / "tokenizer").mkdir()
        self.tokenizer.save(self.folder / "tokenizer", 256)
        return self.folder / "tokenizer"

    @cached_property
    def texts(self) -> list[str]:
        """Some articles as they are."""
        count = 300 if self.options.tiny else 2_048
        with self.articles(self.options.wikipedia, max_articles=count, held_out=1, min_characters=200) as found:
            return list(found.texts.train["text"])

    def articles(self, data: str, **sample: Any) -> Articles:
        """A sample of a source, in a cache that is forgotten at the end."""
        return Articles(data, **sample, seed=42, cache=str(self.folder / "ids"))

    @cached_property
    def ids(self) -> dict[str, TokenisedTexts]:
        """All articles and all captions as token ids, and what of each is held out; from `--ids` if it exists."""
        file = Path(self.options.ids) if self.options.ids else None
        if file and file.exists():
            arrays = np.load(file)
            return {name: TokenisedTexts([(arrays[f"{name}.starts"], arrays[f"{name}.ids"])]) for name in IDS}
        stores: dict[str, TokenisedTexts] = {}
        options = self.mlm_options("notebook")
        count = 300 if self.options.tiny else options.max_articles
        for name, data, least in (("articles", self.options.wikipedia, 200), ("captions", self.options.snli, 0)):
            sample = {"max_articles": count, "held_out": options.held_out, "min_characters": least}
            with self.articles(data, **sample) as found:
                whole = found.tokenised(self.tokenizer, None)
            stores |= {f"{name}_train": whole.train, f"{name}_held_out": whole.held_out}
        if file:
            flat = {name: joined(store) for name, store in stores.items()}
            arrays = {f"{name}.starts": starts for name, (starts, _) in flat.items()}
            arrays |= {f"{name}.ids": ids for name, (_, ids) in flat.items()}
            np.savez_compressed(file, **arrays)
        return stores

    @cached_property
    def beginnings(self) -> TokenisedTexts:
        """The first tokens of each article, as many as are read."""
        T = self.length
        cut = (text if len(text) <= T else np.append(text[: T - 1], text[-1:]) for text in self.ids["articles_train"])
        return TokenisedTexts([joined(cut)])

    @cached_property
    def pairs(self) -> dict[str, Pairs]:
        """Training, validation and test pairs."""
        options = self.nli_options("notebook")
        sizes = {"train": options.max_train, "validation": options.max_validation, "test": 0}
        return {
            split: load_pairs(
                options.data, split, max_pairs=min(size or 10**9, 200) if self.options.tiny else size, seed=42
            )
            for split, size in sizes.items()
        }

    def mlm_network(self, options: MLMOptions) -> BertForMaskedLM:
        """A new network, on the device, in training mode."""
        pick_precision("auto", self.device)  # sets what the scripts set
        torch.manual_seed(options.seed)
        return make_masked_lm(self.config(options)).to(self.device).train()

    def config(self, options: MLMOptions) -> ModelConfig:
        """The network's shape."""
        return options.model_config(self.tokenizer.vocab_size, self.tokenizer.pad_id)

    def mlm_task(self, network: BertForMaskedLM, options: MLMOptions, captions: bool = False) -> MLMTask:
        """Pretraining as the package's loop has it, given a head start if the options ask for one."""
        name = "captions" if captions else "articles"
        train = self.ids[f"{name}_train"] if options.blocks else self.beginnings
        return MLMTask(network, train, self.ids[f"{name}_held_out"], self.tokenizer, options)

    def nli_network(self, encoder: nn.Module, options: NLIOptions) -> NLIClassifier:
        """A classifier on an encoder, on the device, in training mode."""
        torch.manual_seed(options.seed)
        network = NLIClassifier(
            SentenceEncoder(encoder, options.pooling, options.projection), options.dropout  # type: ignore[arg-type]
        )  # fmt: skip
        return network.to(self.device).train()

    def nli_task(self, network: NLIClassifier, options: NLIOptions, split: str = "validation") -> NLITask:
        """Fine-tuning as the package's loop has it, validated on a split."""
        return NLITask(network, self.tokenizer, self.pairs["train"], self.pairs[split], options)

    def loop(self, task: Any, batches: Iterator[Any]) -> Callable[[int], None]:
        """So many steps of the package's own loop."""
        trainer = Trainer(task, Run(task.options))

        def run(steps: int) -> None:
            for batch in islice(batches, steps):
                trainer.step(batch)
            trainer.metrics.means()  # as a line of progress does
            trainer.metrics = Metrics()

        return run


IDS = ("articles_train", "articles_held_out", "captions_train", "captions_held_out")


def joined(texts: Iterable[np.ndarray]) -> Chunk:
    """Texts one after another: where each begins, and the ids."""
    kept = list(texts)
    return np.cumsum([0, *map(len, kept)]), np.concatenate(kept)


def mlm_loss(network: BertForMaskedLM) -> Callable[..., Tensor]:
    """The mean loss over the masked positions, of labels that are -100 where there is nothing to predict."""

    def loss(input_ids: Tensor, positions: Tensor, labels: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        hidden = fast.encode(network.bert, input_ids, attention_mask, positions)
        return F.cross_entropy(network.head(hidden, network.bert.embeddings.word_embeddings.weight), labels)

    return loss


def nli_loss(task: NLITask, premises: Tensor, hypotheses: Tensor, labels: Tensor) -> Callable[..., Tensor]:
    """The mean loss of some rows of the pairs, (N, T) ids on the device, of which only `columns` are looked at."""
    pad_id = task.tokenizer.pad_id

    def loss(rows: Tensor, columns: Tensor) -> Tensor:
        place = (rows.unsqueeze(1), columns)
        input_ids = torch.cat([premises[place], hypotheses[place]])  # (2B, T)
        mask = input_ids != pad_id
        batch = Batch(input_ids, mask, labels[rows], tokens=1, sequences=2)
        return task.loss(batch)[0] / len(rows)

    return loss


def graphed(task: Any, options: Any, loss: Callable[..., Tensor], dtype: torch.dtype | None) -> GraphedStep:
    """The package's step as a graph."""
    groups = adamw(task.model, options).param_groups
    return GraphedStep(task.model, loss, groups, options.beta2, options.clip, dtype)


def masked_rows(
    world: World, rows: Any, options: MLMOptions, order: np.ndarray, generator: torch.Generator
) -> Iterator[tuple[Tensor, ...]]:
    """The inputs of one step after another: rows of ids in an order, padded to `max_length`, masked on the device."""
    special = world.tokenizer.special().to(world.device)
    B, T = options.batch_size, options.max_length
    for first in range(0, len(order) // B * B, 500 * B):  # 500 steps at a time
        part = order[first : first + 500 * B]
        part = part[: len(part) // B * B]
        ids = np.full((len(part), T), world.tokenizer.pad_id, dtype=np.int64)
        for row, text in zip(ids, rows.take(part), strict=True):
            row[: len(text)] = text
        input_ids = torch.from_numpy(ids).to(world.device).view(-1, B, T)
        mask = None if isinstance(rows, Blocks) else input_ids != world.tokenizer.pad_id
        masked = mask_batches(input_ids, mask, special, world.tokenizer.mask_id, options.mask_rate, generator)
        yield from (masked.batch(step) for step in range(len(input_ids)))


# The command.


@dataclass
class Report:
    """What is known so far, and the time that is left.

    Attributes:
        file: where it is written after each change; None = nowhere.
        ends: when time is up, on the clock `time.monotonic`.
    """

    file: Path | None
    ends: float
    figures: dict[str, Any] = field(default_factory=dict)

    def put(self, section: str, name: str, value: Any) -> None:
        """Note a figure, show it, write all of them."""
        self.figures.setdefault(section, {})[name] = value
        print(f"{section:<9} {name:<44} {show(value)}", flush=True)
        if self.file:
            write_json(self.file, self.figures)

    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()


def show(value: Any) -> str:
    """A figure for a person."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {show(part)}" for name, part in value.items())
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:,.0f}" if isinstance(
        value, float) else str(value)  # fmt: skip


def main() -> None:
    """Run the sections."""
    options = read_arguments()
    report = Report(Path(options.json) if options.json else None, time.monotonic() + 60 * options.minutes)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        world = World(options, Path(folder), device)
        for name in options.only:
            section, seconds = SECTIONS[name]
            needed = seconds / 60 if options.tiny else seconds
            if report.left() < needed:
                report.put(name, "skipped", f"{report.left():.0f} s left, {needed:.0f} needed")
                continue
            started = time.monotonic()
            try:
                section(world, report)
            except Exception as error:
                report.put(name, "error", f"{type(error).__name__}: {str(error)[:500]}")
                traceback.print_exc()
            report.put("seconds", name, round(time.monotonic() - started, 1))
            torch.cuda.empty_cache()


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=8, help="begin nothing that would take longer than this in all"
    )
    parser.add_argument("--json", default="", help="also write every figure to this file, and the profile beside it")
    parser.add_argument("--wikipedia", default="toy", help="articles: a path as for train_mlm.py --data")
    parser.add_argument("--snli", default="toy", help="pairs: a path as for train_nli.py --data")
    parser.add_argument("--vocab", default="train", help="vocab.txt of bert-base-uncased")
    parser.add_argument("--ids", default="", help="token ids, an .npz: read if it exists, else made")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny networks and few steps, to see that it runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[*SECTIONS], choices=[*SECTIONS])
    return parser.parse_args()


# Measuring.


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(world: World, run: Callable[[int], Any], tokens: float, flops: float = 0.0) -> dict[str, float]:
    """Steps of something: milliseconds a step, tokens a second, TFLOP/s and peak memory; medians of rounds.

    Args:
        run: does so many steps.
        tokens: in a step, padding included.
        flops: of a step, if it is known.
    """
    seconds, least = (0.0, 1) if world.options.tiny else (0.4, 4)  # of a round
    run(least)
    wait(world.device)
    started = time.perf_counter()
    run(least)
    wait(world.device)
    steps = max(least, int(least * seconds / (time.perf_counter() - started)))
    times = []
    for _ in range(world.options.rounds):
        wait(world.device)
        started = time.perf_counter()
        run(steps)
        wait(world.device)
        times.append((time.perf_counter() - started) / steps)
    middle = statistics.median(times)
    result = {
        "ms": middle * 1e3,
        "least": min(times) * 1e3,
        "greatest": max(times) * 1e3,
        "tokens_per_second": tokens / middle,
    }
    if flops:
        result["tflops"] = flops / middle / 1e12
    if world.device.type == "cuda":
        result["peak_megabytes"] = torch.cuda.max_memory_allocated() / 1e6
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return result


def count_flops(loss: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> float:
    """Of the matrix products and attention of a step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        loss(*inputs).backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops())


def machine(world: World, report: Report) -> None:
    """The device, its versions, and its rates."""
    import tokenizers
    import transformers

    device = world.device
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    report.put("machine", "device", name)
    report.put("machine", "versions", {"python": platform.python_version(), "torch": torch.__version__, **{
        library.__name__: library.__version__ for library in (transformers, tokenizers, np)}})  # fmt: skip
    size = 256 if world.options.tiny else 8_192

    def rate(operation: Callable[[], Any], work: float) -> float:
        times = []
        for _ in range(12):
            wait(device)
            started = time.perf_counter()
            operation()
            wait(device)
            times.append(time.perf_counter() - started)
        return work / statistics.median(times[2:])

    for kind, precision, dtype in (
        ("float32", "highest", torch.float32), ("tf32", "high", torch.float32), ("bfloat16", "high", BF16)
    ):  # fmt: skip
        torch.set_float32_matmul_precision(precision)
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        report.put("machine", f"{kind} TFLOP/s", rate(partial(torch.matmul, a, b), 2 * size**3) / 1e12)
    source = torch.randn(size * size, device=device)
    target = torch.empty_like(source)
    report.put("machine", "memory TB/s", rate(lambda: target.copy_(source), 8 * size**2) / 1e12)
    small = torch.zeros(1, device=device)
    report.put("machine", "launch, microseconds", 1e6 / rate(lambda: [small.add_(1) for _ in range(1_000)], 1_000))


# The notebook's side.


def notebook_mlm(world: World, batch_size: int, ready: bool, dtype: torch.dtype | None, compiled: bool) -> Any:
    """The notebook's loop: so many steps. `ready`: its batches are on the device; else its loader makes them."""
    import datasets
    import transformers
    from transformers import AutoTokenizer, get_linear_schedule_with_warmup

    from benchmarks import notebook

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    options = world.mlm_options("notebook")
    reference = (
        notebook.mlm_model(world.tokenizer.vocab_size, options.max_length, options.dropout).to(world.device).train()
    )
    optimizer = torch.optim.AdamW(reference.parameters(), lr=5e-4, weight_decay=0.01)
    scheduler = get_linear_schedule_with_warmup(optimizer, 300, 5_000)
    torch.set_float32_matmul_precision("highest")  # as it is when nobody sets it
    tokenizer = AutoTokenizer.from_pretrained(world.tokenizer_folder)
    texts = world.texts[: 40 if world.options.tiny else max(800, batch_size)]  # a round's batches and more
    loader = notebook.mlm_loader(texts, tokenizer, options.max_length, batch_size)
    if compiled:
        reference = torch.compile(reference, backend=backend(world))

    def made() -> Iterator[dict[str, Tensor]]:
        while True:
            for batch in loader:
                yield {name: value.to(world.device) for name, value in batch.items() if name != "token_type_ids"}

    batches = made()
    if ready:
        kept = next(batches)
        batches = repeat(kept)

    def run(steps: int) -> None:
        for batch in islice(batches, steps):
            with torch.autocast(world.device.type, dtype, enabled=dtype is not None):
                loss = reference(**batch).loss
            loss.backward()
            nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            loss.item()

    return run


# minibert's side.


def package_mlm(world: World, recipe: str, precision: str, ready: bool = False, compiled: bool = False, **changes: Any
                ) -> Callable[[int], None]:  # fmt: skip
    """Steps as train_mlm.py takes them. `ready`: of a few batches made beforehand."""
    options = world.mlm_options(recipe, precision=precision, **changes)
    network = world.mlm_network(options)
    task = world.mlm_task(network, options)
    if compiled:
        compile_blocks(world.device)
    batches = endless(task)
    if ready:
        kept = list(islice(batches, 8))
        batches = (kept[number % 8] for number in range(10**9))
    return world.loop(task, batches)


def endless(task: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    epoch = 0
    while True:
        yield from task.batches(epoch, 0)
        epoch += 1


def graph_mlm(
    world: World, recipe: str, dtype: torch.dtype | None, compiled: str = "", **changes: Any
) -> tuple[Callable[[int], None], float]:
    """Steps as one graph, and the operations of one. `compiled`: "blocks", as `--compile` does, or "all"."""
    options = world.mlm_options(recipe, **changes)
    network = world.mlm_network(options)
    task = world.mlm_task(network, options)
    generator = torch.Generator(world.device).manual_seed(1)
    order = np.arange(8 * options.batch_size) % len(task.train)
    batches = list(masked_rows(world, task.train, options, order, generator))
    loss = mlm_loss(network)
    with torch.autocast(world.device.type, dtype, enabled=dtype is not None):
        flops = count_flops(loss, batches[0])
    network.zero_grad()
    if compiled == "blocks":
        compile_blocks(world.device)
    elif compiled:
        loss = torch.compile(loss, dynamic=False, backend=backend(world))
    step = graphed(task, options, loss, dtype)

    def run(steps: int) -> None:
        for number in range(steps):
            step(1e-4, *batches[number % len(batches)])

    return run, flops


def backend(world: World) -> str:
    """Of torch.compile: in a tiny run one that makes no kernels, which would take a minute."""
    return "aot_eager" if world.options.tiny else "inductor"


def steps(world: World, report: Report) -> None:
    """A pretraining step of 16 x 128, as everyone does it."""
    tokens = 16.0 * world.length

    def row(name: str, make: Callable[[], Any]) -> None:
        report.put("steps", name, guarded(measure_made, world, make, tokens))

    row("notebook as written", lambda: notebook_mlm(world, 16, False, None, False))
    row("minibert float32", lambda: package_mlm(world, "notebook", "float32"))
    row("minibert bfloat16", lambda: package_mlm(world, "notebook", "bfloat16"))
    row("minibert bfloat16, batches ready", lambda: package_mlm(world, "notebook", "bfloat16", ready=True))
    row("minibert bfloat16, graph", lambda: graph_mlm(world, "notebook", BF16))
    row("strong bfloat16", lambda: package_mlm(world, "strong", "bfloat16"))
    row("strong bfloat16, graph", lambda: graph_mlm(world, "strong", BF16))
    row("notebook, batches ready", lambda: notebook_mlm(world, 16, True, None, False))
    row("notebook, batches ready, bfloat16", lambda: notebook_mlm(world, 16, True, BF16, False))
    row("minibert float32, graph", lambda: graph_mlm(world, "notebook", None))


def compiled(world: World, report: Report) -> None:
    """The rows that take long to compile, the most telling first."""

    def row(name: str, make: Callable[[], Any], batch_size: int = 16) -> None:
        if report.left() > (0 if world.options.tiny else 45):
            started = time.monotonic()
            result = guarded(measure_made, world, make, batch_size * float(world.length))
            report.put("compiled", name, {**result, "seconds": time.monotonic() - started})

    row("strong bfloat16, graph, all compiled", lambda: graph_mlm(world, "strong", BF16, "all"))
    row("minibert bfloat16, graph, all compiled", lambda: graph_mlm(world, "notebook", BF16, "all"))
    if not world.options.tiny:
        row("minibert bfloat16 --compile", lambda: package_mlm(world, "notebook", "bfloat16", compiled=True))
    large = 8 if world.options.tiny else 1_024
    row(f"strong bfloat16, graph, all compiled, {large}",
        lambda: graph_mlm(world, "strong", BF16, "all", batch_size=large), large)  # fmt: skip
    row("notebook, batches ready, bfloat16, compiled", lambda: notebook_mlm(world, 16, True, BF16, True))


def batches(world: World, report: Report) -> None:
    """Larger and larger batches."""
    for size in (8,) if world.options.tiny else (64, 256, 1_024, 2_048):
        rows: dict[str, Callable[[], Any]] = {
            "strong bfloat16, graph": partial(graph_mlm, world, "strong", BF16, batch_size=size),
            "minibert bfloat16, graph": partial(graph_mlm, world, "notebook", BF16, batch_size=size),
            "minibert bfloat16": partial(package_mlm, world, "notebook", "bfloat16", batch_size=size),
            "notebook, batches ready, bfloat16": partial(notebook_mlm, world, size, True, BF16, False),
        }
        for name, make in rows.items():
            if report.left() > 20 or world.options.tiny:
                result = guarded(measure_made, world, make, size * float(world.length))
                report.put("batches", f"{name}, {size}", result)


def measure_made(world: World, make: Callable[[], Any], tokens: float) -> dict[str, float]:
    """`measure` of what is made: steps, or steps and their operations."""
    made = make()
    run, flops = made if isinstance(made, tuple) else (made, 0.0)
    return measure(world, run, tokens, flops)


def guarded(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """A result, or what went wrong."""
    try:
        return function(*arguments)
    except Exception as error:
        traceback.print_exc()
        torch.cuda.empty_cache()
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}


def profile(world: World, report: Report) -> None:
    """What a step is made of: kernels, launches, waits, and how much of the time the device does nothing."""
    file = (report.file or world.folder / "x").with_suffix(".profile.txt")
    nli = world.nli_options("strong", precision="bfloat16")
    encoder = world.mlm_network(world.mlm_options("strong")).bert
    task = world.nli_task(world.nli_network(encoder, nli), nli)
    cases: dict[str, Any] = {
        "minibert bfloat16": lambda: package_mlm(world, "notebook", "bfloat16"),
        "minibert bfloat16, graph": lambda: graph_mlm(world, "notebook", BF16)[0],
        "strong bfloat16": lambda: package_mlm(world, "strong", "bfloat16"),
        "strong bfloat16, graph": lambda: graph_mlm(world, "strong", BF16)[0],
        "strong fine-tuning bfloat16": lambda: world.loop(task, endless(task)),
        "notebook bfloat16": lambda: notebook_mlm(world, 16, False, BF16, False),
    }
    with file.open("w", encoding="utf-8") as text:
        for name, make in cases.items():
            report.put("profile", name, guarded(profiled, world, name, make, text))


def profiled(world: World, name: str, make: Callable[[], Any], text: Any) -> dict[str, float]:
    """Some steps under torch's profiler: the tables go to `text`, the sums are returned, those of one step."""
    run, count = make(), 1 if world.options.tiny else 10
    run(count)
    wait(world.device)
    started = time.perf_counter()
    run(count)
    wait(world.device)
    wall = (time.perf_counter() - started) / count * 1e3
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if world.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profiler:
        run(count)
        wait(world.device)
    kernels = [
        event for event in profiler.events()
        if event.device_type == torch._C._autograd.DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
        and not event.name.startswith("Optimizer")
    ]  # fmt: skip
    busy = sum(event.time_range.elapsed_us() for event in kernels) / count / 1e3
    averages = profiler.key_averages()
    calls = {item.key: item.count for item in averages if item.key.startswith("cuda")}
    waits = sum(number for key, number in calls.items() if "Synchronize" in key)
    launches = sum(number for key, number in calls.items() if "Launch" in key)
    order = "self_device_time_total" if kernels else "self_cpu_time_total"
    print(f"== {name}: {wall:.3f} ms a step, kernels {busy:.3f} ms of it\n", file=text)
    print(averages.table(sort_by=order, row_limit=25, max_name_column_width=70), file=text)
    print(averages.table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=50), file=text, flush=True)
    return {
        "ms": wall, "kernel_ms": busy, "idle": max(0.0, 1 - busy / wall), "kernels": len(kernels) / count,
        "launches": launches / count, "waits": waits / count,
    }  # fmt: skip


def tests(world: World, report: Report) -> None:
    """The tests that need a CUDA device."""
    command = [sys.executable, "-m", "pytest", str(ROOT / "tests" / "test_cuda.py"), "-rfEs", "-W", "default"]
    limit = max(30.0, min(150.0, report.left()))
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=limit)
        output, status = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        output, status = str(late.stdout)[-8_000:], -1
    (report.file or world.folder / "x").with_suffix(".tests.txt").write_text(output, encoding="utf-8")
    report.put("tests", "status", status)
    report.put("tests", "summary", output.strip().splitlines()[-1] if output.strip() else "")
    report.put("tests", "failed", [line[:300] for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))])


# The recipes, every step a graph.


def pretrain(world: World, recipe: str, network: BertForMaskedLM | None = None, **changes: Any
             ) -> tuple[BertForMaskedLM, dict[str, float]]:  # fmt: skip
    """All of pretraining, in bfloat16; or, given a network, that on the captions."""
    captions = network is not None
    options = world.mlm_options(recipe, **changes)
    network = network or world.mlm_network(options)
    task = world.mlm_task(network, options, captions)
    if not captions:
        prepare(task, options)
    steps_per_epoch = len(task.train) // options.batch_size
    total = min(options.epochs * steps_per_epoch, options.max_steps or 10**9)
    factor = schedule(options.schedule, total, options.warmup_ratio)
    step = graphed(task, options, mlm_loss(network), BF16)
    generator = torch.Generator(world.device).manual_seed(options.seed)

    def inputs() -> Iterator[tuple[Tensor, ...]]:
        for epoch in range(options.epochs):
            order = epoch_order(len(task.train), options.seed, epoch)
            yield from masked_rows(world, task.train, options, order, generator)

    wait(world.device)
    started = time.perf_counter()
    for number, batch in enumerate(islice(inputs(), total)):
        step(options.learning_rate * factor(number), *batch)
    wait(world.device)
    seconds = time.perf_counter() - started
    network.eval()
    with torch.no_grad(), torch.autocast(world.device.type, BF16):
        figures = task.validate()
    return network, {"seconds": seconds, "steps": float(total), **figures}


def finetune(world: World, recipe: str, encoder: nn.Module, **changes: Any) -> dict[str, float]:
    """All of fine-tuning, in bfloat16: the last epoch's validation and test accuracy."""
    options = world.nli_options(recipe, **changes)
    network = world.nli_network(encoder, options)
    task = world.nli_task(network, options)
    ids = [pad(side.take(range(len(side))), task.tokenizer.pad_id)[0] for side in task.train]
    widest = -(-max(side.shape[1] for side in ids) // 8) * 8
    premises, hypotheses = (F.pad(side, (0, widest - side.shape[1]), value=task.tokenizer.pad_id) for side in ids)
    premises, hypotheses = premises.to(world.device), hypotheses.to(world.device)
    labels = torch.from_numpy(task.train_labels).to(world.device)
    lengths = np.maximum(*(side.lengths for side in task.train))
    step = graphed(task, options, nli_loss(task, premises, hypotheses, labels), BF16)
    B = options.batch_size
    total = options.epochs * (len(labels) // B)
    factor = schedule(options.schedule, total, options.warmup_ratio)
    columns = torch.arange(widest, device=world.device)
    wait(world.device)
    started, number = time.perf_counter(), 0
    for epoch in range(options.epochs):
        grouped = lengths if options.group_by_length else None
        whole = [rows for _, rows in epoch_batches(len(labels), B, options.seed, epoch, 0, grouped) if len(rows) == B]
        on_device = torch.from_numpy(np.stack(whole)).to(world.device)
        for index, rows in enumerate(whole):
            T = -(-int(lengths[rows].max()) // 8) * 8
            step(options.learning_rate * factor(number), on_device[index], columns[:T])
            number += 1
    wait(world.device)
    seconds = time.perf_counter() - started
    network.eval()
    result = {"seconds": seconds, "steps": float(number), "graphs": float(len(step.graphs))}
    with torch.no_grad(), torch.autocast(world.device.type, BF16):
        for split in ("validation", "test"):
            figures = world.nli_task(network, options, split).validate()
            result[f"{split}_accuracy"] = figures["validation_accuracy"]
    return result


def graphs(world: World, report: Report) -> None:
    """Both recipes."""
    for recipe in ("notebook", "strong"):
        network, figures = pretrain(world, recipe)
        report.put("graphs", f"{recipe} pretraining", figures)
        if recipe == "strong":
            few = 2 if world.options.tiny else 320
            network, figures = pretrain(world, recipe, network, max_steps=few, learning_rate=5e-4)
            report.put("graphs", "strong captions", figures)
        report.put("graphs", f"{recipe} fine-tuning", finetune(world, recipe, network.bert))


def encode(world: World, report: Report) -> None:
    """Sentence vectors of a network of MiniLM's shape, whose weights do not matter here."""
    import transformers
    from sentence_transformers import SentenceTransformer

    transformers.logging.set_verbosity_error()
    folder = world.folder / "minilm"
    shutil.copytree(world.tokenizer_folder, folder)
    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    config = transformers.BertConfig(
        vocab_size=world.tokenizer.vocab_size, **({**TINY} if world.options.tiny else shape)
    )
    transformers.BertModel(config).save_pretrained(folder)
    pairs = world.pairs["train"]
    lines = [line for text in world.texts[:1_000] for line in text.split("\n") if len(line) > 20]
    mixed = list(dict.fromkeys([*pairs.premises, *pairs.hypotheses, *lines]))
    chosen = np.random.default_rng(0).permutation(len(mixed))[: 50 if world.options.tiny else 5_000]
    sentences = [mixed[index] for index in chosen]
    ours = from_pretrained(folder).to(world.device)
    theirs = SentenceTransformer(str(folder), device=str(world.device))
    theirs.max_seq_length = ours.max_length
    reference = theirs.encode(sentences, batch_size=32)

    def rate(name: str, vectors: Callable[[], Any]) -> None:
        vectors()
        times = []
        for _ in range(world.options.rounds):
            started = time.perf_counter()
            result = vectors()
            times.append(len(sentences) / (time.perf_counter() - started))
        cosines = (result * reference).sum(1) / np.linalg.norm(result, axis=1) / np.linalg.norm(reference, axis=1)
        report.put("encode", name, {"sentences_per_second": statistics.median(times), "least": min(times),
                                    "greatest": max(times), "least_cosine": float(cosines.min())})  # fmt: skip

    half = SentenceTransformer(str(folder), device=str(world.device), model_kwargs={"torch_dtype": torch.float16})
    half.max_seq_length = ours.max_length

    def ours_in(dtype: torch.dtype, batch_size: int) -> Any:
        with torch.autocast(world.device.type, dtype):
            return ours.encode(sentences, batch_size)

    def half_in(batch_size: int) -> Any:
        return half.encode(sentences, batch_size=batch_size).astype(np.float32)

    for batch_size in (32, 256):
        rate(f"sentence-transformers float32, {batch_size}", partial(theirs.encode, sentences, batch_size=batch_size))
        rate(f"minibert float32, {batch_size}", partial(ours.encode, sentences, batch_size))
        rate(f"sentence-transformers float16, {batch_size}",
             partial(half_in, batch_size))  # fmt: skip
        rate(f"minibert bfloat16, {batch_size}", partial(ours_in, BF16, batch_size))


def scripts(world: World, report: Report) -> None:
    """Both recipes as a user starts them."""
    options = world.options
    data = ["--vocab", options.vocab, "--data", options.wikipedia, "--cache", str(world.folder / "cache")]
    tiny = [item for name, value in TINY.items() for item in (f"--{name.replace('_', '-')}", str(value))]
    tiny_mlm = [*tiny, "--max-steps", "5", "--held-out", "20", "--max-articles", "300"] if options.tiny else []
    tiny_nli = ["--max-train", "100", "--max-validation", "50", "--epochs", "1"] if options.tiny else []
    common = ["--device", options.device, "--overwrite"]
    for recipe in ("notebook", "strong"):
        names = {part: str(world.folder / f"script-{recipe}-{part}") for part in ("mlm", "captions", "nli")}
        flags = ["--recipe", recipe, *common]
        mlm = ["train_mlm.py", *flags, *data, "--output", names["mlm"], *tiny_mlm]
        captions = ["train_mlm.py", *flags, "--start-from", names["mlm"], "--learning-rate", "5e-4", "--data",
                    options.snli, "--min-characters", "0", "--max-steps", "5" if options.tiny else "320",
                    "--output", names["captions"]]  # fmt: skip
        encoder = names["captions" if recipe == "strong" else "mlm"]
        nli = [
            "train_nli.py",
            *flags,
            "--data",
            options.snli,
            "--encoder",
            encoder,
            "--output",
            names["nli"],
            *tiny_nli,
        ]
        answers = world.folder / f"{recipe}.json"
        evaluate = ["evaluate.py", "--data", options.snli, "--model", names["nli"], "--device", options.device,
                    "--max-pairs", "50" if options.tiny else "0", "--json", str(answers)]  # fmt: skip
        commands = {"mlm": mlm, "captions": captions, "nli": nli, "evaluate": evaluate}
        if recipe == "notebook":
            del commands["captions"]
        for part, command in commands.items():
            started = time.monotonic()
            done = subprocess.run(
                [sys.executable, str(ROOT / command[0]), *command[1:]], capture_output=True, text=True, check=False,
                timeout=max(10.0, report.left() + 30),
            )  # fmt: skip
            result: dict[str, Any] = {"seconds": time.monotonic() - started}
            if done.returncode:
                result["error"] = (done.stdout + done.stderr)[-500:]
            elif command[0] == "evaluate.py":
                result["accuracy"] = json.loads(answers.read_text())["accuracy"]
            else:
                records = read_records(Path(command[command.index("--output") + 1]) / "metrics.jsonl")
                result["training_seconds"] = records[-1]["seconds"]
                result["validation"] = [record for record in records if record["kind"] == "validation"][-1]
            report.put("scripts", f"{recipe} {part}", result)
            if done.returncode:
                break


SECTIONS: dict[str, tuple[Callable[[World, Report], None], float]] = {  # and the seconds that it takes at least
    "machine": (machine, 10),
    "steps": (steps, 30),
    "profile": (profile, 30),
    "tests": (tests, 40),
    "graphs": (graphs, 30),
    "batches": (batches, 30),
    "encode": (encode, 25),
    "compiled": (compiled, 60),
    "scripts": (scripts, 60),
}

if __name__ == "__main__":
    main()
