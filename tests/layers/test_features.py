"""Proves of the classifier, with a real encoder, that the two sentences are not mixed up."""

import pytest
import torch

from minibert.bert import Bert
from minibert.sbert import NLIClassifier, SentenceEncoder
from tests.layers import oracles
from tests.layers.oracles import CONFIG, MASK


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("projection", [0, 40])
def test_a_pair_is_classified_by_its_own_two_sentences(pooling: str, projection: int) -> None:
    """From ids to logits with a real encoder: each sentence alone, and without its padding."""
    model = oracles.scatter(NLIClassifier(SentenceEncoder(Bert(CONFIG), pooling, projection)))
    ids, lengths = oracles.some_ids(), (7, 4, 2, 5)
    logits = model(ids, torch.arange(7) < torch.tensor(lengths).unsqueeze(1))
    vectors = []
    for row, length in zip(ids, lengths, strict=True):
        hidden = model.encoder.bert(row[:length].unsqueeze(0))[0]
        vectors.append(
            oracles.POOLS[pooling](oracles.linear(model.encoder.projection, hidden) if projection else hidden)
        )
    for got, u, v in zip(logits, vectors[:2], vectors[2:], strict=True):
        expected = oracles.linear(model.classifier, torch.cat([u, v, (u - v).abs()]))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_premise_and_hypothesis_are_not_interchangeable() -> None:
    model, ids = oracles.scatter(NLIClassifier(SentenceEncoder(Bert(CONFIG)))), oracles.some_ids()
    assert not torch.allclose(model(ids[:2], MASK[:2]), model(ids[:2].flip(0), MASK[:2].flip(0)), atol=1e-4)


def test_a_sentence_paired_with_itself_has_no_distance() -> None:
    """Both sides go through one encoder: equal sentences give u = v, and the weights of |u - v| do not matter."""
    model = oracles.scatter(NLIClassifier(SentenceEncoder(Bert(CONFIG))))
    ids, mask = oracles.some_ids()[:1].expand(2, 7), MASK[:1].expand(2, 7)
    before = model(ids, mask)
    with torch.no_grad():
        model.classifier.weight[:, 2 * CONFIG.hidden_size :] = 1e6
    torch.testing.assert_close(model(ids, mask), before)
