"""Proves the features' order by hand, the classifier by its formula, and that the two sentences are not mixed up."""

import pytest
import torch

from minibert.bert import Bert
from minibert.sbert import NLIClassifier, SentenceEncoder, pair_features
from tests.layers import oracles
from tests.layers.oracles import CONFIG, MASK


def test_features() -> None:
    oracles.features_are_u_v_and_their_distance(pair_features)


@pytest.mark.parametrize("oracle", oracles.CLASSIFIER)
def test_the_classifier(oracle: oracles.Oracle) -> None:
    oracle(NLIClassifier)


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
        hidden = oracles.linear(model.encoder.projection, hidden) if projection else hidden
        vectors.append({"mean": hidden.mean(dim=0), "cls": hidden[0], "max": hidden.amax(dim=0)}[pooling])
    for pair in range(2):
        u, v = vectors[pair], vectors[pair + 2]
        features = torch.cat([u, v, (u - v).abs()])
        torch.testing.assert_close(logits[pair], oracles.linear(model.classifier, features), rtol=1e-4, atol=1e-5)


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
