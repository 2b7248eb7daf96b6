"""Each picture, from its options to its file: what `python -m minibert.plots` does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minibert import evaluation
from minibert.config import AnswersOptions
from minibert.data.sources import load_pairs
from minibert.data.topics import load_topics
from minibert.device import pick_device
from minibert.errors import UserError
from minibert.inference import Predictions
from minibert.plots import plot_attention, plot_confusion, plot_embeddings, plot_reliability, plot_training
from minibert.plots.options import (
    AttentionPicture,
    ConfusionPicture,
    EmbeddingsPicture,
    ReliabilityPicture,
    TrainingPicture,
)
from minibert.pretrained import from_pretrained, load_classifier


def training(options: TrainingPicture) -> None:
    """Loss, accuracy and learning rate over a run's steps.

    Raises:
        UserError: the folder has no metrics.jsonl, or the file is damaged.
    """
    metrics = Path(options.run) / "metrics.jsonl"
    if not metrics.is_file():
        raise UserError(f"there is no {metrics}: --run is a folder that train_mlm.py or train_nli.py has written")
    try:
        plot_training(metrics.parent, Path(options.output) if options.output else None)
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{metrics} is damaged: {error}") from error


def confusion(options: ConfusionPicture) -> None:
    """Which labels a classifier takes for which; errors as in evaluate.py."""
    labels, predictions = _answers(options)
    plot_confusion(evaluation.figures(labels, predictions)["confusion_matrix"], Path(options.output))


def reliability(options: ReliabilityPicture) -> None:
    """How often a classifier is right when it is so sure; errors as in evaluate.py."""
    labels, predictions = _answers(options)
    bins = evaluation.reliability(labels, predictions.probabilities)
    plot_reliability(bins.counts, bins.accuracy, bins.error, Path(options.output))


def attention(options: AttentionPicture) -> None:
    """What every head looks at in a sentence.

    Raises:
        UserError: the model can't be read, or does not have this layer.
    """
    model = from_pretrained(options.model)
    depth = model.encoder.config.num_hidden_layers
    if options.layer > depth:
        raise UserError(f"--layer {options.layer}: {options.model} has {depth}")
    tokens, maps = model.attention(options.text)
    plot_attention(tokens, maps, Path(options.output), [options.layer - 1] if options.layer else ())


def embeddings(options: EmbeddingsPicture) -> None:
    """Sentences' vectors in two dimensions, by topic.

    Raises:
        UserError: the device, the model or the sentences can't be had, or all sentences have the same vector.
    """
    model = from_pretrained(options.model).to(pick_device(options.device))
    topical = load_topics(options.data, options.max_sentences)
    vectors = model.encode([sentence for _, sentence in topical])
    if len(vectors) < 2 or (vectors == vectors[0]).all():
        raise UserError(f"{options.data}: a picture needs at least two sentences with vectors that differ")
    plot_embeddings(vectors, [topic for topic, _ in topical], Path(options.output))


def _answers(options: AnswersOptions) -> tuple[NDArray[np.int64], Predictions]:
    """The true labels of some pairs, and what the classifier says of them."""
    model = load_classifier(options.model).to(pick_device(options.device))
    pairs = load_pairs(options.data, options.split, max_pairs=options.max_pairs, seed=options.seed)
    return pairs.labels, model.predict(pairs.premises, pairs.hypotheses)
