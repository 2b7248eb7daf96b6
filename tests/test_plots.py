"""Proves that the pictures show the run's own numbers, and that a run does without matplotlib."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from minibert import plots

RECORDS = [
    {"kind": "start", "unigram_loss": 7.0, "unigram_accuracy": 0.04},
    {"kind": "train", "step": 1, "loss": 9.0, "accuracy": 0.01, "learning_rate": 1e-4},
    {"kind": "train", "step": 2, "loss": 8.0, "accuracy": 0.02, "learning_rate": 2e-4},
    {"kind": "validation", "step": 2, "held_out_loss": 8.5, "held_out_accuracy": 0.03},
    {"kind": "end", "step": 2},
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures, caught on their way to a file."""
    figures: list[Any] = []
    save = plots._save

    def catch(figure: Any, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", catch)
    return figures


def test_training_curves(tmp_path: Path, drawn: list[Any]) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    plots.plot_training(tmp_path)
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    loss, accuracy, rate = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    assert lines["training"] == [[1, 9], [2, 8]]
    assert lines["held out loss"] == [[2, 8.5]]
    assert lines["unigram guesser"] == [[0, 7], [1, 7]]  # a horizontal line, in shares of the width
    assert [line.get_label() for line in accuracy.lines] == ["training", "held out accuracy", "unigram guesser"]
    assert rate.lines[0].get_ydata().tolist() == [1e-4, 2e-4]


def test_confusion_matrix(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_confusion([[8, 1, 1], [0, 5, 5], [0, 0, 0]], tmp_path / "sub" / "matrix.png")
    assert (tmp_path / "sub" / "matrix.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts[:6]] == ["8\n80%", "1\n10%", "1\n10%", "0\n0%", "5\n50%", "5\n50%"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["entailment", "neutral", "contradiction"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_without_matplotlib_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    plots.plot_confusion([[1, 0, 0]] * 3, tmp_path / "matrix.png")
    assert "minibert[plots]" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
