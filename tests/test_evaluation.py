"""Proves each figure of the report by numbers worked out by hand."""

import numpy as np
import pytest

from minibert.evaluation import figures, random_cosine, report_text
from minibert.inference import Predictions

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = [0, 0, 1, 1, 2, 2]
PREDICTIONS = Predictions(np.eye(3, dtype=np.float32)[PREDICTED], np.eye(12, 4, dtype=np.float32) + 0.1)


def test_figures_by_hand() -> None:
    result = figures(LABELS, PREDICTIONS, seed=0)
    assert result["pairs"] == 6
    assert result["accuracy"] == pytest.approx(4 / 6)
    assert result["majority_baseline"] == pytest.approx(3 / 6)
    assert result["confusion_matrix"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    entailment, contradiction = result["report"]["entailment"], result["report"]["contradiction"]
    assert (entailment["precision"], entailment["recall"]) == (1.0, pytest.approx(2 / 3))
    assert (contradiction["precision"], contradiction["recall"]) == (0.5, 1.0)
    assert contradiction["f1-score"] == pytest.approx(2 / 3)


def test_the_report_is_in_the_labels_order_with_two_digits() -> None:
    text = report_text(figures(LABELS, PREDICTIONS, seed=0))
    rows = [line.split() for line in text.splitlines() if line.strip()]
    assert [row[0] for row in rows[1:4]] == ["entailment", "neutral", "contradiction"]
    assert rows[1] == ["entailment", "1.00", "0.67", "0.80", "3"]
    assert "majority baseline 0.5000" in text
    assert rows[-3:] == [["entailment", "2", "1", "0"], ["neutral", "0", "1", "1"], ["contradiction", "0", "0", "1"]]


def test_a_class_that_is_never_predicted_or_never_true_is_no_warning() -> None:
    predictions = Predictions(np.eye(3, dtype=np.float32)[[0, 0]], np.ones((4, 3), dtype=np.float32))
    result = figures(np.array([0, 1]), predictions, seed=0)
    assert result["report"]["contradiction"]["f1-score"] == 0
    assert result["confusion_matrix"][1] == [1, 0, 0]


def test_cosine_of_a_collapsed_and_of_a_healthy_encoder() -> None:
    generator = np.random.default_rng(0)
    apart = generator.normal(size=(2_000, 64)).astype(np.float32)
    assert random_cosine(np.ones((50, 8), dtype=np.float32) * 3, seed=1) == pytest.approx(1)
    assert abs(random_cosine(apart, seed=1)) < 0.01
    # Two opposite sentences: each is compared with the other, never with itself.
    assert random_cosine(np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32), seed=1) == pytest.approx(-1)
