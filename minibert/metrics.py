"""How good is it, and compared with what: the report, and the controls that keep an accuracy honest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from minibert.inference import Predictions, TrainedModel
from minibert.modern import make_bert
from minibert.sbert import SentenceEncoder

if TYPE_CHECKING:
    from minibert.data.pairs import ScoredPairs

BINS = 15  # of confidence


def figures(labels: NDArray[np.int64], predictions: Predictions) -> dict[str, Any]:
    """Every figure of the report, ready for JSON, from the true labels, (pairs,), and a model's predictions."""
    from sklearn.metrics import classification_report, confusion_matrix

    predicted, probabilities = predictions.labels, predictions.probabilities
    likelihoods = probabilities[np.arange(len(labels)), labels].clip(np.finfo(np.float32).smallest_subnormal)
    # Of the hypotheses only: a control's premises are all alike.
    hypotheses = torch.from_numpy(predictions.embeddings[len(labels) :]).double()
    names = predictions.names
    naming: dict[str, Any] = {"labels": range(len(names)), "target_names": names, "zero_division": 0}
    return {
        "labels": list(names),
        "pairs": len(labels),
        "accuracy": float((predicted == labels).mean()),
        "majority_baseline": float(np.bincount(labels).max() / len(labels)),
        "loss": float(-np.log(likelihoods.astype(np.float64)).mean()),
        "calibration_error": calibration_error(labels, probabilities),
        "mean_cosine": mean_cosine(F.normalize(hypotheses, dim=-1).sum(dim=0), len(labels)),
        "confusion_matrix": confusion_matrix(labels, predicted, labels=naming["labels"]).tolist(),
        "report": classification_report(labels, predicted, output_dict=True, **naming),
        "table": classification_report(labels, predicted, digits=2, **naming),
    }


def report_text(result: dict[str, Any]) -> str:
    """`figures` for a person: the table, the baseline to compare it with, and where the mistakes are."""
    names, matrix = result["labels"], result["confusion_matrix"]
    width = max(map(len, names))
    cells = [names, *([f"{count:,}" for count in row] for row in matrix)]
    return "\n".join([
        result["table"],
        f"accuracy {result['accuracy']:.4f} over {result['pairs']:,} pairs",
        f"majority baseline {result['majority_baseline']:.4f} (always the most frequent label)",
        f"calibration error {result['calibration_error']:.4f} (how far confidence is from accuracy, on average)",
        f"mean cosine between hypotheses {result['mean_cosine']:.4f} (near 1: the encoder has collapsed)",
        "",
        "confusion matrix: a row is the true label, a column the predicted one",
        *(f"{label:>{width}}" + "".join(f"{cell:>{max(15, width + 2)}}" for cell in row)
          for label, row in zip(["", *names], cells, strict=True)),
    ])  # fmt: skip


def similarity(model: TrainedModel, pairs: ScoredPairs, batch_size: int = 64) -> dict[str, Any]:
    """How well the cosines of a model's vectors agree with people's scores, ready for JSON.

    It also scores what needs no training: an encoder of the same shape with fresh weights, and counting words.

    Source: Reimers & Gurevych 2019, section 4.
    """

    def cosines(model: TrainedModel) -> NDArray[np.float32]:
        u, v = (torch.from_numpy(model.encode(texts, batch_size)) for texts in (pairs.first, pairs.second))
        return F.cosine_similarity(u, v).numpy()

    return {
        "pairs": len(pairs.scores),
        **correlations(cosines(model), pairs.scores),
        "untrained_encoder": correlations(cosines(untrained(model)), pairs.scores),
        "word_overlap": correlations(word_overlap(pairs.first, pairs.second), pairs.scores),
    }


def untrained(model: TrainedModel) -> TrainedModel:
    """A model of the same shape whose encoder has learned nothing, with the mean of its token vectors; seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = SentenceEncoder(make_bert(model.encoder.config)).to(model.device)
    return TrainedModel(encoder.eval(), model.tokenizer, model.max_length)


def correlations(predicted: NDArray[np.floating], scores: NDArray[np.float64]) -> dict[str, float]:
    """Spearman's and Pearson's correlation of two rows of numbers, (pairs,) each; Spearman's looks at their order only.

    Both are between -1 and 1, and 0 where all predictions are alike, which leaves nothing to correlate.
    """
    from scipy.stats import pearsonr, spearmanr

    if np.ptp(predicted) == 0:
        return {"spearman": 0.0, "pearson": 0.0}
    return {
        "spearman": float(spearmanr(predicted, scores).statistic),
        "pearson": float(pearsonr(predicted, scores).statistic),
    }


def word_overlap(first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
    """(pairs,) the words that two sentences share, as a share of all their words; case is ignored."""
    sets = [(set(one.lower().split()), set(other.lower().split())) for one, other in zip(first, second, strict=True)]
    return np.array([len(one & other) / len(one | other) for one, other in sets])


def similarity_text(result: dict[str, Any]) -> str:
    """`similarity` for a person, times 100 as it is usually given."""
    rows = [("the model", result), ("an untrained encoder", result["untrained_encoder"]),
            ("shared words", result["word_overlap"])]  # fmt: skip
    lines = [f"{name:<22}{100 * row['spearman']:>10.2f}{100 * row['pearson']:>10.2f}" for name, row in rows]
    return "\n".join([
        f"{'cosine and scores':<22}{'Spearman':>10}{'Pearson':>10}", *lines,
        f"correlations times 100, over {result['pairs']:,} pairs",
    ])  # fmt: skip


def calibration_error(labels: NDArray[np.int64], probabilities: NDArray[np.floating]) -> float:
    """How far a classifier's confidence is from its accuracy, on average: its expected calibration error.

    Answers are put into `BINS` bins of equal width by the probability of the answer given. In each bin the mean
    probability should be the share of right answers; the differences are averaged, each bin weighted by its answers.
    The true labels are (pairs,), the probabilities (pairs, C).

    Source: Guo et al. 2017, "On calibration of modern neural networks", section 2, with their 15 bins.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
    return float(np.abs(np.bincount(bins, weights=right - confidence)).sum() / len(labels))


def temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float | None:
    """The number to divide logits, (pairs, C), by for the true labels, (pairs,), to be likeliest.

    None if there is no such number between 1/20 and 20: if all answers are right, for instance, none is too sure.

    Source: Guo et al. 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]))

    best = float(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)
    return float(np.exp(best)) if abs(best) < 2.99 else None


def mean_cosine(directions: Tensor, count: int) -> float:
    """Mean cosine over all pairs of different sentences: near 1, they all look alike and the encoder has collapsed.

    The square of the sum of n vectors of length 1, (W,), is the sum of n^2 cosines, n of them of a vector with itself.
    With fewer than two sentences there is no pair, and the mean is 0.
    """
    total = directions.double().square().sum().item()
    return (total - count) / (count * (count - 1)) if count > 1 else 0.0


def log_frequencies(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The log frequencies of tokens, (V,), from their counts, (V,), with one added to each."""
    return np.log(counts + 1) - np.log((counts + 1).sum())


def unigram_baseline(counts: NDArray[np.int64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """The loss and accuracy of a guesser that knows how often each token occurs, and nothing else.

    A masked language model first learns the frequencies and stays near this loss for a while: the plateau.

    From the counts of the training text, (V,), and the held-out labels, (M,): the mean cross-entropy in nats, and the
    share of labels that are the most frequent token.
    """
    return float(-log_frequencies(counts)[labels].mean()), float((labels == counts.argmax()).mean())
