"""The model card: README.md of a trained folder, with what it is, how it was made, what it reaches, and its limits.

It is put together from what the scripts have written there: options.json, metrics.jsonl, and evaluation.json, which has
what evaluate.py found, for each data set and split. So it can be made anew at any time, and says nothing else.

Source: Mitchell et al. 2019, "Model cards for model reporting", section 4.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

import minibert
from minibert.config import REPORTED
from minibert.errors import UserError, printable
from minibert.files import read_json, read_records, write_file, write_json
from minibert.options import METRICS, OPTIONS, MLMOptions, NLIOptions, flag, listed

CARD, EVALUATION = "README.md", "evaluation.json"
SIMILAR = "spearman"  # only a report on vectors has it, not one on answers

# Options that say where and with what a run was made, and not what was made.
CIRCUMSTANCES = {
    "recipe", "output", "device", "threads", "cache", "resume", "overwrite", "log_every", "save_every", "zip",
}  # fmt: skip
# Licences that are known.
_LICENCES = {"wikimedia/wikipedia": "CC BY-SA", "stanfordnlp/snli": "CC BY-SA 4.0", "toy": "Apache-2.0, as minibert"}

_USE = {
    MLMOptions: 'print(model.fill_mask("A poodle is a kind of [MASK].")[0])',
    NLIOptions: 'print(model.predict(["A poodle is sleeping in the park."], ["An animal is resting."]).probabilities)',
}
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


def write_card(folder: Path, report: dict[str, Any] | None = None) -> None:
    """Write the card of a folder in which a training is finished.

    A `report`, which evaluate.py has made, replaces the one on the same data and split in evaluation.json, if any.

    Raises:
        UserError: the run's records are missing or damaged, or a file can't be written.
    """
    try:
        reports = read_json(folder / EVALUATION, "", object) if (folder / EVALUATION).exists() else []
        reports = [reports] if isinstance(reports, dict) else reports  # an older version kept only one
        if report is not None:
            latest = {(os.path.normpath(one["data"]), one["split"], SIMILAR in one): one for one in [*reports, report]}
            reports = [*latest.values()]
            write_json(folder / EVALUATION, reports)
        text = _card(folder, reports)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder}: the run's records are damaged, or another version's ({error!r})") from error
    write_file(folder / CARD, lambda partial: partial.write_text(text, encoding="utf-8", errors="backslashreplace"))


def add_evaluation(folder: Path, report: dict[str, Any]) -> None:
    """Write the card anew with what evaluate.py found, if the folder has a card and is writable."""
    is_run = SIMILAR not in report or (folder / OPTIONS).exists()  # any encoder has vectors, and its author's card
    if is_run and (folder / CARD).exists() and os.access(folder, os.W_OK):
        write_card(folder, report)


def was_trained_on(folder: Path, files: Iterable[Path]) -> bool:
    """Whether the run that left a folder read the content of one of these files, wherever it was then."""
    from minibert.data.files import digest  # which loads `datasets`

    try:
        read = set(read_records(folder / METRICS)[0]["files"])
    except (OSError, ValueError, LookupError, TypeError):  # it is not a run's folder, or an older version's
        return False
    return any(digest([file]) in read for file in files)


def _card(folder: Path, reports: list[dict[str, Any]]) -> str:
    options, records = read_json(folder / OPTIONS, ""), read_records(folder / METRICS)
    start, end, name = records[0], records[-1], folder.resolve().name
    pairs = "encoder" in options
    kind: type[MLMOptions] | type[NLIOptions] = NLIOptions if pairs else MLMOptions
    steps = [{"epoch": str(each["epoch"]), "step": f"{each['step']:,}", **_numbers(each)}
             for each in records if each["kind"] == "validation"]  # fmt: skip
    kept = f"epoch {end['best_epoch']}, the best on validation" if end["best_epoch"] else "the last epoch"
    data, path = _dataset(options["data"], pairs), json.dumps(str(folder), ensure_ascii=False)
    named = printable(", ".join(listed(options.get("labels", ""))))
    labelled = f", labelled {named}" if named else ""
    labels = "  # " + printable(", ".join(read_json(folder / "classifier.json", "")["labels"])) if pairs else ""
    header = ModelCardData(
        library_name="sentence-transformers" if pairs else "transformers",  # they read the folder, too
        pipeline_tag="sentence-similarity" if pairs else "fill-mask",
        tags=["minibert", read_json(folder / "config.json", "")["model_type"]],
        license="unknown",  # the model's, which nobody has stated
        model_name=name,
        eval_results=[result for each in reports for result in _results(each)] or None,
    )
    parts = [
        f"---\n{header.to_yaml()}\n---",
        f"# {name}",
        f"Trained by minibert {minibert.__version__}{' on ' + end['date'] if 'date' in end else ''}:"
        f" `python {kind.SCRIPT} {shlex.join(_flags(options, kind))}`.",
        "## Use",
        f"```python\nimport minibert\n\nmodel = minibert.from_pretrained({path})\n{_USE[kind]}{labels}\n```",
        "## Data",
        (f"{start['pairs']:,} sentence pairs from {data}{labelled}, on the encoder in {options['encoder']}." if pairs
         else f"{start['articles']:,} texts, {start['tokens']:,} tokens, from {data}.")
        + f" Licence of the data: {_LICENCES.get(data, 'unknown')}.",
        "## Training",
        _table(steps),
        f"The weights are those of {kept}. To compare with: "
        f"{', '.join(f'{name} {value}' for name, value in _numbers(start).items())}."
        f" {start['parameters']:,} parameters, {end['seconds']:,.0f} s of training.",
        *(["## Evaluation"] if reports else []),
        *(_table(rows) for similar in (False, True) if (rows := [_row(each) for each in reports
                                                                  if (SIMILAR in each) is similar])),
        "## Limits",
        _LIMITS[kind],
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _flags(options: dict[str, Any], kind: type[MLMOptions] | type[NLIOptions]) -> list[str]:
    """The shortest command line that gives these options: the recipe, and what differs from it."""
    recipe = kind.of(options["recipe"])
    flags = ["--recipe", options["recipe"]]
    for name, value in options.items():
        if name not in CIRCUMSTANCES and value != getattr(recipe, name, None):  # an older version's has other names
            named = flag(name) if value is not False else flag(f"no_{name}")
            text = str(value)
            flags += [named] if isinstance(value, bool) else [f"{named}={text}"] if text[:1] == "-" else [named, text]
    return flags


def _dataset(data: str, pairs: bool) -> str:
    """What `--data` is called on the Hub, if that is known."""
    return data if data != "hub" else "stanfordnlp/snli" if pairs else "wikimedia/wikipedia"


def _numbers(record: dict[str, Any]) -> dict[str, str]:
    return {name.replace("_", " "): f"{value:.4f}" for name, value in record.items() if isinstance(value, float)}


def _row(report: dict[str, Any]) -> dict[str, str]:
    """An evaluation as a row of the table of its kind: of answers, or of vectors."""
    about = {"data": report["data"], "split": report["split"], "pairs": f"{report['pairs']:,}"}
    date = {"date": report.get("date", "")}
    if SIMILAR in report:
        baselines = {name.replace("_", " "): report[name][SIMILAR] for name in ("untrained_encoder", "word_overlap")}
        return {**about, **_numbers({SIMILAR: report[SIMILAR], "pearson": report["pearson"], **baselines}), **date}
    f1 = {f"F1 {label}": scores["f1-score"] for label, scores in report["report"].items() if label not in REPORTED}
    return {**about, **_numbers({**report, **f1}), **date}


def _results(report: dict[str, Any]) -> list[EvalResult]:
    """What the Hub shows of an evaluation."""
    data, split = report["data"], report["split"]
    if SIMILAR in report:
        task, found = "semantic-similarity", [(SIMILAR, "Spearman of the cosine", report[SIMILAR])]
    else:
        f1 = report["report"]["macro avg"]["f1-score"]
        task, found = "text-classification", [("accuracy", "accuracy", report["accuracy"]), ("f1", "macro F1", f1)]
    return [
        EvalResult(task, _dataset(data, True), data, kind, value, dataset_split=split, metric_name=name)
        for kind, name, value in found
    ]


def _table(rows: list[dict[str, str]]) -> str:
    """Rows as a table, with a column for every name in them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([row.get(name, "") for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
