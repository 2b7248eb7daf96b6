"""Proves that the embeddings are the normalised sum of three rows, and that positions end with their table."""

import pytest

from minibert.bert import Embeddings
from tests.layers import oracles


@pytest.mark.parametrize("oracle", oracles.EMBEDDINGS)
def test_embeddings(oracle: oracles.Oracle) -> None:
    oracle(Embeddings)
