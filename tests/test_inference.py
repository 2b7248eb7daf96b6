"""Proves that an answer does not depend on its neighbours in the batch, and that the model's mode is left as it was."""

import numpy as np
import pytest

from minibert.config import ModelConfig
from minibert.data.tokenizer import WordPieceTokenizer
from minibert.inference import NLIModel, predict
from minibert.model.encoder import Bert
from minibert.model.siamese import SiameseClassifier

PREMISES = ["the cat sat on the mat", "dogs", "", "an animal is sleeping. the log", "emoji 🙂 \ud800"]
HYPOTHESES = ["a cat", "the dog sat on the mat and the log", "x", "", "\x00 \u202e"]


@pytest.fixture
def model(config: ModelConfig, tokenizer: WordPieceTokenizer) -> NLIModel:
    return NLIModel(SiameseClassifier(Bert(config)), tokenizer, 10)


def test_batch_size_does_not_change_the_answers(model: NLIModel) -> None:
    whole = predict(model, PREMISES, HYPOTHESES)
    for size in (1, 2, 3):
        part = predict(model, PREMISES, HYPOTHESES, batch_size=size)
        np.testing.assert_allclose(part.probabilities, whole.probabilities, atol=1e-6)
        np.testing.assert_allclose(part.embeddings, whole.embeddings, atol=1e-5)


def test_answers_follow_their_pairs(model: NLIModel) -> None:
    order = [3, 0, 4, 2, 1]
    moved = predict(model, [PREMISES[i] for i in order], [HYPOTHESES[i] for i in order])
    whole = predict(model, PREMISES, HYPOTHESES)
    np.testing.assert_allclose(moved.probabilities, whole.probabilities[order], atol=1e-6)
    np.testing.assert_allclose(moved.embeddings[:5], whole.embeddings[:5][order], atol=1e-5)
    np.testing.assert_allclose(moved.embeddings[5:], whole.embeddings[5:][order], atol=1e-5)


def test_probabilities_are_a_distribution(model: NLIModel) -> None:
    probabilities = predict(model, PREMISES, HYPOTHESES).probabilities
    assert probabilities.shape == (5, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_left_as_it_was_and_dropout_is_off(model: NLIModel, training: bool) -> None:
    model.classifier.train(training)
    first, again = (predict(model, PREMISES, HYPOTHESES).probabilities for _ in range(2))
    assert (first == again).all()
    assert model.classifier.training is training


def test_lists_that_do_not_fit_are_refused(model: NLIModel) -> None:
    for premises in (["a"], list[str]()):
        with pytest.raises(ValueError, match="need as many"):
            predict(model, premises, [])
