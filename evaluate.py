"""Report how well a trained classifier does, or ask it about one pair.

Example:
    python evaluate.py --data toy --model models/toy_nli
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from minibert.cli import parse_options, run
from minibert.config import LABELS
from minibert.errors import UserError, os_error_text
from minibert.options import EvaluateOptions


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, then report."""
    evaluate(parse_options(EvaluateOptions, arguments, str(__doc__)))


def evaluate(options: EvaluateOptions) -> None:
    """Model, pairs, report.

    Raises:
        UserError: an option, a path or a file is wrong.
    """
    # torch loads only now: --help does not need it.
    from minibert.card import CARD, EVALUATION, write_card
    from minibert.data.pairs import load_pairs
    from minibert.device import pick_device
    from minibert.drawing import need_matplotlib
    from minibert.files import write_json
    from minibert.hub import load_classifier
    from minibert.metrics import figures, report_text
    from minibert.plots import plot_confusion

    if options.figure:
        need_matplotlib()
    device = pick_device(options.device)
    path = Path(options.model)
    model = load_classifier(path).to(device)
    if options.premise is not None and options.hypothesis is not None:
        for side in ("premise", "hypothesis"):
            if not getattr(options, side).strip():
                raise UserError(f"--{side} is empty: give it a sentence")
        probabilities = model.predict([options.premise], [options.hypothesis]).probabilities[0]
        for label, probability in zip(LABELS, probabilities, strict=True):
            print(f"{label:<13} {probability:.4f}")
        return

    pairs = load_pairs(options.data, options.split, max_pairs=options.max_pairs, seed=options.seed)
    predictions = model.predict(pairs.premises, pairs.hypotheses, options.batch_size)
    result = figures(pairs.labels, predictions)
    control = (
        " (hypothesis only: a control, trained and evaluated on emptied premises)" if model.hypothesis_only else ""
    )
    record = {"model": str(path), "data": options.data, "split": options.split, **result}
    default = path / "confusion_matrix.png" if path.is_dir() else path.with_name(path.stem + "_confusion_matrix.png")

    def write_record() -> None:
        if options.json:
            write_json(Path(options.json), record)

    def add_to_card() -> None:
        if (path / CARD).exists() and os.access(path, os.W_OK):  # a folder of train_nli.py, whose card has these, too
            write_json(path / EVALUATION, record)
            write_card(path)

    if was_trained_on(path, Path(options.data)):
        print(f"warning: {path} was trained on {options.data} itself, so this is no test of it\n")
    print(f"{path} on the {options.split} split of {pairs.source}{control}\n\n{report_text(result)}", flush=True)
    all_of(
        write_record,
        lambda: plot_confusion(result["confusion_matrix"], Path(options.figure) if options.figure else default),
        add_to_card,
    )


def was_trained_on(model: Path, data: Path) -> bool:
    """Whether the run that left a folder read this very file, which says no split."""
    from minibert.files import read_json
    from minibert.run import OPTIONS

    if not data.is_file() or not (model / OPTIONS).is_file():
        return False
    trained = Path(str(read_json(model / OPTIONS, "").get("data", "")))
    return trained.is_file() and trained.samefile(data)


def all_of(*actions: Callable[[], object]) -> None:
    """Do each, whether or not another one fails.

    Raises:
        UserError: what has failed, all in one line.
    """
    failures = []
    for action in actions:
        try:
            action()
        except Exception as error:  # of a picture, it may be anything
            text = os_error_text(error) if isinstance(error, OSError) else str(error)
            failures.append(text if isinstance(error, UserError | OSError) else f"{type(error).__name__}: {text}")
    if failures:
        raise UserError("; ".join(failures))


if __name__ == "__main__":
    run(main)
