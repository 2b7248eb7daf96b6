"""Proves the losses by their formulas, by hand, and by sentence-transformers' own."""

import pytest
import torch

from minibert.losses import TEMPERATURE, contrastive_loss, mix, summed_loss
from tests.layers import oracles


def test_summed_loss() -> None:
    oracles.summed_loss_is_the_formula(summed_loss)


@pytest.mark.parametrize("oracle", oracles.CONTRAST)
def test_contrastive_loss(oracle: oracles.Oracle) -> None:
    oracle(contrastive_loss)


def test_all_positive_the_contrastive_loss_is_that_of_sentence_transformers() -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    u, v = oracles.noise(6, 16), oracles.noise(6, 16, seed=1)
    theirs = losses.MultipleNegativesRankingLoss(
        model=torch.nn.Identity(),
        scale=1 / TEMPERATURE,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    expected = theirs.compute_loss_from_embeddings([u, v], None)
    torch.testing.assert_close(contrastive_loss(u, v, torch.ones(6, dtype=torch.bool)) / 6, expected)


@pytest.mark.parametrize("oracle", oracles.MIXTURES)
def test_mixtures(oracle: oracles.Oracle) -> None:
    oracle(mix)
