"""Proves that the encoder is its parts in a row, how it starts, and that padding and batches don't matter."""

import pytest

from minibert.bert import Bert
from minibert.config import ModelConfig
from tests.layers import oracles


@pytest.mark.parametrize("oracle", oracles.BERT)
def test_bert(oracle: oracles.Oracle) -> None:
    oracle(Bert)


def test_it_starts_as_bert_does() -> None:
    oracles.starts_as_bert_does(Bert)


def test_the_notebooks_model_has_the_notebooks_number_of_parameters() -> None:
    """Counted by hand: 11.1 M with the MLM head (the notebook's figure), less the head's 96,826."""
    V, D, F, L, P = 30_522, 256, 1_024, 4, 128
    embeddings = V * D + P * D + 2 * D + 2 * D
    block = 4 * (D * D + D) + (D * F + F) + (F * D + D) + 4 * D
    assert sum(p.numel() for p in Bert(ModelConfig()).parameters()) == embeddings + L * block
