"""Proves the features' order by hand, the classifier by its formula, and that the two sentences are not mixed up."""

import math

import pytest
import torch

from minibert.config import LABELS, ModelConfig
from minibert.model.encoder import Bert
from minibert.model.siamese import SiameseClassifier, pair_features


def test_features_are_u_v_and_their_distance() -> None:
    u, v = torch.tensor([[1.0, -2.0]]), torch.tensor([[4.0, 3.0]])
    torch.testing.assert_close(pair_features(u, v), torch.tensor([[1.0, -2.0, 4.0, 3.0, 3.0, 5.0]]))
    with_product = torch.tensor([[1.0, -2.0, 4.0, 3.0, 3.0, 5.0, 4.0, -6.0]])
    torch.testing.assert_close(pair_features(u, v, product=True), with_product)


def test_logits_are_the_formula_written_out(config: ModelConfig) -> None:
    model = SiameseClassifier(Bert(config)).eval()
    torch.nn.init.normal_(model.classifier.bias)
    ids, lengths = torch.randint(5, 61, (6, 7)), [7, 3, 5, 2, 6, 4]
    mask = torch.arange(7) < torch.tensor(lengths).unsqueeze(1)
    logits = model(ids, mask)
    assert logits.shape == (3, len(LABELS))
    for pair in range(3):  # each sentence alone, unpadded, through the encoder by itself
        u, v = (model.encoder(ids[row : row + 1, : lengths[row]])[0].mean(dim=0) for row in (pair, pair + 3))
        features = torch.cat([u, v, (u - v).abs()])
        torch.testing.assert_close(logits[pair], model.classifier.weight @ features + model.classifier.bias)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_other_features_and_poolings_by_the_formula(config: ModelConfig, pooling: str) -> None:
    model = SiameseClassifier(Bert(config), pooling=pooling, product=True).eval()
    assert model.features == ["u", "v", "|u - v|", "u * v"]
    ids, lengths = torch.randint(5, 61, (4, 7)), [7, 3, 5, 2]
    logits = model(ids, torch.arange(7) < torch.tensor(lengths).unsqueeze(1))
    pool = {"mean": lambda h: h.mean(dim=0), "cls": lambda h: h[0], "max": lambda h: h.max(dim=0).values}[pooling]
    for pair in range(2):
        u, v = (pool(model.encoder(ids[row : row + 1, : lengths[row]])[0]) for row in (pair, pair + 2))
        features = torch.cat([u, v, (u - v).abs(), u * v])
        torch.testing.assert_close(logits[pair], model.classifier.weight @ features + model.classifier.bias)


def test_premise_and_hypothesis_are_not_interchangeable(config: ModelConfig) -> None:
    model = SiameseClassifier(Bert(config)).eval()
    ids, mask = torch.randint(5, 61, (2, 7)), torch.ones(2, 7, dtype=torch.bool)
    assert not torch.allclose(model(ids, mask), model(ids.flip(0), mask), atol=1e-4)


def test_a_sentence_paired_with_itself_has_no_distance(config: ModelConfig) -> None:
    """Both sides go through one encoder: equal sentences give u = v, and the weights of |u - v| do not matter."""
    model = SiameseClassifier(Bert(config)).eval()
    ids, mask = torch.randint(5, 61, (1, 7)).expand(2, 7), torch.ones(2, 7, dtype=torch.bool)
    before = model(ids, mask)
    with torch.no_grad():
        model.classifier.weight[:, 48:] = 1e6
    torch.testing.assert_close(model(ids, mask), before)


def test_dropout_is_on_the_features(config: ModelConfig) -> None:
    model = SiameseClassifier(Bert(config), dropout=0.25)
    assert model.dropout.p == 0.25
    with torch.no_grad():
        model.classifier.weight.fill_(1)
    u = torch.ones(400, 24)
    logits = model.train().classify(u, torch.zeros(400, 24))[:, 0]  # 48 features are 1, 24 are 0
    kept = logits * 0.75
    assert (kept - kept.round()).abs().max() < 1e-3
    assert kept.mean().item() == pytest.approx(48 * 0.75, abs=5 * math.sqrt(48 * 0.75 * 0.25 / 400))


def test_the_classifier_starts_as_berts_layers_do() -> None:
    weight = SiameseClassifier(Bert(ModelConfig(vocab_size=9, num_hidden_layers=1))).classifier.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
