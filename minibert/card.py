"""The model card: README.md of a trained folder, with what it is, how it was made, what it reaches, and its limits.

It is put together from what the scripts have written there: options.json, metrics.jsonl, and evaluation.json if
evaluate.py has been run on it. So it can be made anew at any time, and says nothing that is not in them.

Source: Mitchell et al. 2019, "Model cards for model reporting", section 4.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

import minibert
from minibert.errors import UserError
from minibert.files import read_json, read_records, write_file
from minibert.options import MLMOptions, NLIOptions, listed

CARD, EVALUATION = "README.md", "evaluation.json"

# Options that say where and with what a run was made, and not what was made.
_CIRCUMSTANCES = {"output", "device", "threads", "cache", "resume", "overwrite", "log_every", "save_every", "zip"}

_LIMITS = {
    MLMOptions: (
        "It guesses hidden words of texts like those it was trained on, and says what stood in them, true or not. It is"
        " small: a model to learn with and to try things on."
    ),
    NLIOptions: (
        "It sees each sentence by itself, as one vector, so it misses what only a look at both together shows."
        " Such data sets give answers away in the hypothesis alone: judge an accuracy beside that of the control"
        " (`train_nli.py --hypothesis-only`), and do not use the model where a wrong answer does harm."
    ),
}


def write_card(folder: Path) -> None:
    """Write the card of a folder in which a training is finished.

    Raises:
        UserError: the run's records are missing or damaged, or the card can't be written.
    """
    try:
        text = _card(folder)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder}: the run's records are damaged, or another version's ({error!r})") from error
    write_file(folder / CARD, lambda partial: partial.write_text(text, encoding="utf-8", errors="backslashreplace"))


def _card(folder: Path) -> str:
    options = read_json(folder / "options.json", "")
    records = read_records(folder / "metrics.jsonl")
    kind = NLIOptions if "encoder" in options else MLMOptions
    script = "train_nli.py" if kind is NLIOptions else "train_mlm.py"
    flags = shlex.join(_flags(options, kind))
    report = read_json(folder / EVALUATION, "") if (folder / EVALUATION).exists() else None
    name = folder.resolve().name
    header = ModelCardData(
        pipeline_tag="sentence-similarity" if kind is NLIOptions else "fill-mask",
        tags=["minibert", "bert"],
        model_name=name,
        eval_results=None if report is None else [_result(report)],
    )
    parts = [
        f"---\n{header.to_yaml()}\n---",
        f"# {name}",
        f"Trained by minibert {minibert.__version__}: `python {script} {flags}`.",
        "## Data",
        _data(options, records[0]),
        "## Metrics",
        *_metrics(records),
        *([] if report is None else _evaluation(report)),
        "## Limits",
        _LIMITS[kind],
    ]
    return "\n\n".join(parts) + "\n"


def _flags(options: dict[str, Any], kind: type[MLMOptions] | type[NLIOptions]) -> list[str]:
    """The shortest command line that gives these options: the recipe, and what differs from it."""
    recipe = kind.of(options["recipe"])
    flags = ["--recipe", options["recipe"]]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if name in _CIRCUMSTANCES or name == "recipe" or value == getattr(recipe, name):
            continue
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-"))
        else:
            flags += [flag, str(value)]
    return flags


def _data(options: dict[str, Any], start: dict[str, Any]) -> str:
    if "pairs" in start:
        labels = f", labelled {', '.join(listed(options['labels']))}" if options.get("labels") else ""
        return (
            f"{start['pairs']:,} sentence pairs from {options['data']}{labels}, on the encoder in {options['encoder']}."
        )
    return f"{start['articles']:,} texts, {start['tokens']:,} tokens, from {options['data']}."


def _metrics(records: list[dict[str, Any]]) -> list[str]:
    """What was measured before, during and after training."""
    start, end = records[0], records[-1]
    validations = [record for record in records if record["kind"] == "validation"]
    names = [name for name, value in validations[-1].items() if isinstance(value, float)]
    rows = [[str(record["epoch"]), f"{record['step']:,}", *(f"{record[name]:.4f}" for name in names)]
            for record in validations]  # fmt: skip
    seconds = f"{end['seconds']:,.0f} s of training"
    baselines = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in start.items() if isinstance(value, float)]
    return [
        _table(["epoch", "step", *(name.replace("_", " ") for name in names)], rows),
        f"To compare with: {', '.join(baselines)}. {start['parameters']:,} parameters, {seconds}.",
    ]


def _result(report: dict[str, Any]) -> EvalResult:
    """What the Hub shows of an evaluation."""
    return EvalResult(
        task_type="text-classification",
        dataset_type=report["data"],
        dataset_name=report["data"],
        dataset_split=report["split"],
        metric_type="accuracy",
        metric_value=report["accuracy"],
    )


def _evaluation(report: dict[str, Any]) -> list[str]:
    names = ("accuracy", "majority_baseline", "calibration_error", "mean_cosine")
    rows = [[name.replace("_", " "), f"{report[name]:.4f}"] for name in names]
    return [f"On the {report['split']} split of {report['data']}, {report['pairs']:,} pairs:", _table(["", ""], rows)]


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
