"""Proves each figure of the report by numbers worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minibert.data.pairs import ScoredPairs
from minibert.inference import Predictions, TrainedModel
from minibert.metrics import (
    calibration_error,
    correlations,
    figures,
    mean_cosine,
    report_text,
    similarity,
    temperature,
    untrained,
    word_overlap,
)
from minibert.sbert import SentenceEncoder

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = [0, 0, 1, 1, 2, 2]
PREDICTIONS = Predictions(np.eye(3, dtype=np.float32)[PREDICTED], np.eye(12, 4, dtype=np.float32) + 0.1)


def test_figures_by_hand() -> None:
    result = figures(LABELS, PREDICTIONS)
    assert result["pairs"] == 6
    assert result["accuracy"] == pytest.approx(4 / 6)
    assert result["majority_baseline"] == pytest.approx(3 / 6)
    assert result["confusion_matrix"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    entailment, contradiction = result["report"]["entailment"], result["report"]["contradiction"]
    assert (entailment["precision"], entailment["recall"]) == (1.0, pytest.approx(2 / 3))
    assert (contradiction["precision"], contradiction["recall"]) == (0.5, 1.0)
    assert contradiction["f1-score"] == pytest.approx(2 / 3)


def test_the_loss_is_that_of_the_probabilities() -> None:
    """Mean cross-entropy in nats; where only some of the labels are true, too."""
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], dtype=np.float32)
    result = figures(np.array([0, 0, 1]), Predictions(probabilities, np.ones((6, 3), dtype=np.float32)))
    assert result["loss"] == pytest.approx(-(np.log(0.5) + np.log(0.1) + np.log(0.3)) / 3, rel=1e-5)


def test_a_sure_answer_that_is_wrong_costs_more_than_sixteen_nats() -> None:
    """To the least number that float32 has, 1.4e-45: 103 nats."""
    probabilities = np.array([[1.0, 1e-30, 0.0]] * 2, dtype=np.float32)
    result = figures(np.array([1, 2]), Predictions(probabilities, np.ones((4, 3), dtype=np.float32)))
    assert result["loss"] == pytest.approx((30 * np.log(10) + 103.28) / 2, rel=1e-4)


def test_the_report_is_in_the_labels_order_with_two_digits() -> None:
    text = report_text(figures(LABELS, PREDICTIONS))
    rows = [line.split() for line in text.splitlines() if line.strip()]
    assert [row[0] for row in rows[1:4]] == ["entailment", "neutral", "contradiction"]
    assert rows[1] == ["entailment", "1.00", "0.67", "0.80", "3"]
    assert "majority baseline 0.5000" in text
    assert rows[-3:] == [["entailment", "2", "1", "0"], ["neutral", "0", "1", "1"], ["contradiction", "0", "0", "1"]]


def test_a_class_that_is_never_predicted_or_never_true_is_no_warning() -> None:
    predictions = Predictions(np.eye(3, dtype=np.float32)[[0, 0]], np.ones((4, 3), dtype=np.float32))
    result = figures(np.array([0, 1]), predictions)
    assert result["report"]["contradiction"]["f1-score"] == 0
    assert result["confusion_matrix"][1] == [1, 0, 0]


def test_mean_cosine_is_the_mean_over_all_pairs() -> None:
    """Taken one by one, a sentence never with itself; of a collapsed encoder it is 1, of two opposite sentences -1."""
    vectors = F.normalize(torch.randn(30, 8, generator=torch.Generator().manual_seed(0)) + 0.5, dim=-1)
    one_by_one = [float(vectors[i] @ vectors[j]) for i in range(30) for j in range(30) if i != j]
    assert mean_cosine(vectors.sum(dim=0), 30) == pytest.approx(np.mean(one_by_one), abs=1e-6)
    assert mean_cosine(torch.tensor([50.0, 0.0]), 50) == pytest.approx(1)
    assert mean_cosine(torch.tensor([0.0, 0.0]), 2) == pytest.approx(-1)
    assert mean_cosine(torch.tensor([1.0, 0.0]), 1) == 0


def test_the_report_has_the_mean_cosine_of_the_hypotheses() -> None:
    """The premises are of one direction here, as the control's are, which says nothing about the encoder."""
    premises, hypotheses = np.ones((6, 4), dtype=np.float32), np.eye(6, 4, dtype=np.float32) + 0.1
    cosines = F.cosine_similarity(torch.from_numpy(hypotheses)[:, None], torch.from_numpy(hypotheses)[None], dim=-1)
    predictions = Predictions(PREDICTIONS.probabilities, np.concatenate([premises, hypotheses]))
    by_hand = (cosines.sum() - 6) / (6 * 5)
    assert figures(LABELS, predictions)["mean_cosine"] == pytest.approx(by_hand.item(), abs=1e-6)


def test_calibration_error_by_hand() -> None:
    """Two answers at 0.9, one of them right, and two at 0.6, both right: (2 * |0.5 - 0.9| + 2 * |1 - 0.6|) / 4."""
    probabilities = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.6, 0.2, 0.2], [0.2, 0.2, 0.6]])
    assert calibration_error(np.array([0, 0, 0, 2]), probabilities) == pytest.approx(0.4)
    assert calibration_error(np.array([0, 1]), np.eye(3)[:2]) == 0  # sure and right; 1 belongs into the last bin
    assert calibration_error(np.array([1, 0]), np.eye(3)[:2]) == pytest.approx(1)
    assert figures(LABELS, PREDICTIONS)["calibration_error"] == pytest.approx(2 / 6)
    assert "calibration error 0.3333" in report_text(figures(LABELS, PREDICTIONS))


def test_answers_drawn_by_their_probabilities_are_calibrated() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], 20_000)
    labels = np.array([random.choice(3, p=row) for row in probabilities])
    assert calibration_error(labels, probabilities) < 0.02
    sharper = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    assert calibration_error(labels, sharper) > 0.1
    assert temperature(np.log(probabilities) * 3, labels) == pytest.approx(3, rel=0.05)


def test_temperature_by_hand() -> None:
    """Logits (1, 0), right three times out of four: sigma(1 / T) = 3/4, so T = 1 / ln 3."""
    logits = np.array([[1.0, 0.0]] * 4)
    assert temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(1 / np.log(3), rel=1e-4)
    assert temperature(logits, np.array([0, 0, 0, 0])) is None  # all are right: the surer, the better
    assert temperature(logits, np.array([0, 1, 1, 1])) is None  # most are wrong: the less sure, the better


def test_calibration_error_by_bins() -> None:
    """Five answers: two of 0.5 (bin 7), one of them right; of 0.9 and 0.92 (bin 13), both right; a sure one, wrong."""
    probabilities = np.array([[0.5, 0.3, 0.2], [0.3, 0.5, 0.2], [0.9, 0.1, 0], [0.04, 0.92, 0.04], [0, 0, 1]])
    error = (2 * 0 + 2 * 0.09 + 1 * 1) / 5
    assert calibration_error(np.array([0, 0, 0, 1, 0]), probabilities) == pytest.approx(error)
    edge = np.array([[0.6, 0.4], [0.57, 0.43]])  # 0.6 is the last of bin 8: with 0.57 there, not with what is above it
    assert calibration_error(np.array([0, 1]), edge) == pytest.approx(abs(0.4 - 0.57) / 2)


def test_correlations_by_hand() -> None:
    """Ranks 1 2 4 3 against 1 2 3 4: 1 - 6 * (1 + 1) / (4 * 15) = 0.8; Pearson's from the definition."""
    predicted, scores = np.array([0.1, 0.2, 0.9, 0.5]), np.array([0.0, 1.0, 2.0, 5.0])
    a, b = predicted - predicted.mean(), scores - scores.mean()
    found = correlations(predicted, scores)
    assert found["spearman"] == pytest.approx(0.8)
    assert found["pearson"] == pytest.approx((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
    assert correlations(-predicted, scores)["spearman"] == pytest.approx(-0.8)
    assert correlations(np.full(4, 0.3), scores) == {"spearman": 0.0, "pearson": 0.0}


def test_an_untrained_encoder_has_the_mean_and_draws_nothing_from_others(model: TrainedModel) -> None:
    pairs = ScoredPairs(["the cat", "a dog", "no"], ["a cat", "the mat", "dogs"], np.array([1.0, 2.0, 0.5]), "")
    first = replace(model, sentence_encoder=SentenceEncoder(model.encoder, "max"), classifier=None)
    state = torch.get_rng_state()
    found = [similarity(each, pairs)["untrained_encoder"] for each in (first, model)]
    assert found[0] == found[1]
    assert torch.equal(torch.get_rng_state(), state)
    network = untrained(first).sentence_encoder
    assert (network.pooling, network.training) == ("mean", False)


def test_equal_scores_share_a_rank() -> None:
    """Scores 1 1 2 have the ranks 1.5 1.5 3: with 1 2 3, cov = 1.5 and variances 1.5 and 2."""
    found = correlations(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0]))
    assert found["spearman"] == pytest.approx(1.5 / np.sqrt(1.5 * 2))


def test_word_overlap_by_hand() -> None:
    first, second = ["A man sings .", "a dog", "One two two"], ["a man sleeps .", "the cats", "two ONE"]
    assert word_overlap(first, second).tolist() == [3 / 5, 0, 1]
