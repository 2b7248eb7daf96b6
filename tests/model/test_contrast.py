"""Proves the contrastive loss by its formula, by hand, and by sentence-transformers' own loss."""

import math

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from minibert.losses import TEMPERATURE, contrastive_loss


def test_the_formula_written_out() -> None:
    u, v = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    positive = torch.tensor([True, False, True, False, False])

    def logit(i: int, j: int) -> float:
        return float(u[i] @ v[j] / (u[i].norm() * v[j].norm()) / 0.05)

    expected = 0.0
    for pair in (0, 2):
        forwards = math.log(sum(math.exp(logit(pair, other)) for other in range(5))) - logit(pair, pair)
        backwards = math.log(sum(math.exp(logit(other, pair)) for other in range(5))) - logit(pair, pair)
        expected += (forwards + backwards) / 2
    assert contrastive_loss(u, v, positive).item() == pytest.approx(expected, rel=1e-12)


def test_by_hand() -> None:
    """Two pairs at right angles: a vector has the cosine 1 with its other half, 0 with the other pair's."""
    u, v = torch.tensor([[2.0, 0.0], [0.0, 5.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.1]])
    both = torch.tensor([True, True])
    assert contrastive_loss(u, v, both).item() == pytest.approx(2 * math.log1p(math.exp(-20)), abs=1e-7)
    assert contrastive_loss(u, v.flip(0), both).item() == pytest.approx(2 * math.log1p(math.exp(20)), rel=1e-6)


def test_all_positive_it_is_the_loss_of_sentence_transformers() -> None:
    u, v = torch.randn(6, 16), torch.randn(6, 16)
    theirs = MultipleNegativesRankingLoss(
        model=torch.nn.Identity(),
        scale=1 / TEMPERATURE,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    expected = theirs.compute_loss_from_embeddings([u, v], None)
    torch.testing.assert_close(contrastive_loss(u, v, torch.ones(6, dtype=torch.bool)) / 6, expected)


@pytest.mark.parametrize("pairs", [0, 1, 3])
def test_with_no_positive_pair_it_is_zero_and_has_a_gradient(pairs: int) -> None:
    """A part of a batch may have none, or no pair at all."""
    u, v = torch.randn(pairs, 4, requires_grad=True), torch.randn(pairs, 4)
    loss = contrastive_loss(u, v, torch.zeros(pairs, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert u.grad is not None
    assert (u.grad == 0).all()
