"""Proves that the embeddings are the normalised sum of three rows, and that positions end with their table."""

import pytest
import torch

from minibert.bert import Embeddings
from tests.layers import oracles


@pytest.mark.parametrize("oracle", oracles.EMBEDDINGS)
def test_embeddings(oracle: oracles.Oracle) -> None:
    oracle(Embeddings)


def test_the_error_has_both_numbers() -> None:
    most = oracles.CONFIG.max_position_embeddings
    with pytest.raises(ValueError, match=f"{most + 1} tokens, but the model has {most} positions"):
        Embeddings(oracles.CONFIG)(torch.ones(1, most + 1, dtype=torch.long))
