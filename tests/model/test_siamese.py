"""Proves the features' order by hand, the classifier by its formula, and that the two sentences are not mixed up."""

import math

import pytest
import torch

from minibert.bert import Bert
from minibert.config import LABELS, ModelConfig
from minibert.sbert import NLIClassifier, SentenceEncoder, pair_features


def test_features_are_u_v_and_their_distance() -> None:
    u, v = torch.tensor([[1.0, -2.0]]), torch.tensor([[4.0, 3.0]])
    torch.testing.assert_close(pair_features(u, v), torch.tensor([[1.0, -2.0, 4.0, 3.0, 3.0, 5.0]]))
    with_product = torch.tensor([[1.0, -2.0, 4.0, 3.0, 3.0, 5.0, 4.0, -6.0]])
    torch.testing.assert_close(pair_features(u, v, product=True), with_product)


def test_logits_are_the_formula_written_out(config: ModelConfig) -> None:
    model = NLIClassifier(SentenceEncoder(Bert(config))).eval()
    torch.nn.init.normal_(model.classifier.bias)
    ids, lengths = torch.randint(5, 61, (6, 7)), [7, 3, 5, 2, 6, 4]
    mask = torch.arange(7) < torch.tensor(lengths).unsqueeze(1)
    logits = model(ids, mask)
    assert logits.shape == (3, len(LABELS))
    for pair in range(3):  # each sentence alone, unpadded, through the encoder by itself
        u, v = (model.encoder.bert(ids[row : row + 1, : lengths[row]])[0].mean(dim=0) for row in (pair, pair + 3))
        features = torch.cat([u, v, (u - v).abs()])
        torch.testing.assert_close(logits[pair], model.classifier.weight @ features + model.classifier.bias)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_other_features_and_poolings_by_the_formula(config: ModelConfig, pooling: str) -> None:
    model = NLIClassifier(SentenceEncoder(Bert(config), pooling), product=True).eval()
    assert model.features == ["u", "v", "|u - v|", "u * v"]
    ids, lengths = torch.randint(5, 61, (4, 7)), [7, 3, 5, 2]
    logits = model(ids, torch.arange(7) < torch.tensor(lengths).unsqueeze(1))
    pool = {"mean": lambda h: h.mean(dim=0), "cls": lambda h: h[0], "max": lambda h: h.max(dim=0).values}[pooling]
    for pair in range(2):
        u, v = (pool(model.encoder.bert(ids[row : row + 1, : lengths[row]])[0]) for row in (pair, pair + 2))
        features = torch.cat([u, v, (u - v).abs(), u * v])
        torch.testing.assert_close(logits[pair], model.classifier.weight @ features + model.classifier.bias)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_projection_by_the_formula(config: ModelConfig, pooling: str) -> None:
    """Each token's vector is projected, then they are pooled: for the largest values the order matters."""
    model = NLIClassifier(SentenceEncoder(Bert(config), pooling, 40)).eval()
    assert model.encoder.projection is not None
    assert model.classifier.weight.shape == (3, 120)
    ids, lengths = torch.randint(5, 61, (4, 7)), [7, 3, 5, 2]
    mask = torch.arange(7) < torch.tensor(lengths).unsqueeze(1)
    logits, vectors = model(ids, mask), model.encoder(ids, mask)
    pool = {"mean": lambda h: h.mean(dim=0), "max": lambda h: h.max(dim=0).values}[pooling]
    expected = [
        pool(
            model.encoder.bert(ids[row : row + 1, : lengths[row]])[0] @ model.encoder.projection.weight.T
            + model.encoder.projection.bias
        )
        for row in range(4)
    ]
    torch.testing.assert_close(vectors, torch.stack(expected))
    for pair in range(2):
        u, v = expected[pair], expected[pair + 2]
        features = torch.cat([u, v, (u - v).abs()])
        torch.testing.assert_close(logits[pair], model.classifier.weight @ features + model.classifier.bias)


def test_a_projection_keeps_the_size_of_numbers() -> None:
    """With torch's own beginning they have a standard deviation of 1 / sqrt(3) of what goes in, whatever the width."""
    model = NLIClassifier(SentenceEncoder(Bert(ModelConfig(vocab_size=9, num_hidden_layers=1)), projection=1_024))
    assert model.encoder.projection is not None
    projected = model.encoder.projection(torch.randn(100, 256))
    assert projected.std().item() == pytest.approx(3**-0.5, rel=0.05)


def test_projected_vectors_are_pooled_in_the_precision_of_the_hidden_ones(config: ModelConfig) -> None:
    model = NLIClassifier(SentenceEncoder(Bert(config), projection=40))
    ids = torch.randint(5, 61, (4, 7))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.encoder(ids, torch.ones(4, 7, dtype=torch.bool)).dtype == torch.float32


def test_premise_and_hypothesis_are_not_interchangeable(config: ModelConfig) -> None:
    model = NLIClassifier(SentenceEncoder(Bert(config))).eval()
    ids, mask = torch.randint(5, 61, (2, 7)), torch.ones(2, 7, dtype=torch.bool)
    assert not torch.allclose(model(ids, mask), model(ids.flip(0), mask), atol=1e-4)


def test_a_sentence_paired_with_itself_has_no_distance(config: ModelConfig) -> None:
    """Both sides go through one encoder: equal sentences give u = v, and the weights of |u - v| do not matter."""
    model = NLIClassifier(SentenceEncoder(Bert(config))).eval()
    ids, mask = torch.randint(5, 61, (1, 7)).expand(2, 7), torch.ones(2, 7, dtype=torch.bool)
    before = model(ids, mask)
    with torch.no_grad():
        model.classifier.weight[:, 48:] = 1e6
    torch.testing.assert_close(model(ids, mask), before)


def test_dropout_is_on_the_features(config: ModelConfig) -> None:
    model = NLIClassifier(SentenceEncoder(Bert(config)), dropout=0.25)
    assert model.dropout.p == 0.25
    with torch.no_grad():
        model.classifier.weight.fill_(1)
    u = torch.ones(400, 24)
    logits = model.train().score(pair_features(u, torch.zeros(400, 24)))[:, 0]  # 48 features are 1, 24 are 0
    kept = logits * 0.75
    assert (kept - kept.round()).abs().max() < 1e-3
    assert kept.mean().item() == pytest.approx(48 * 0.75, abs=5 * math.sqrt(48 * 0.75 * 0.25 / 400))


def test_the_classifier_starts_as_berts_layers_do() -> None:
    weight = NLIClassifier(SentenceEncoder(Bert(ModelConfig(vocab_size=9, num_hidden_layers=1)))).classifier.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
