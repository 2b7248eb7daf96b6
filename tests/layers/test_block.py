"""Proves that a block is torch's own layer, and that dropout stands where each part's output is added."""

import pytest

from minibert.bert import EncoderBlock
from tests.layers import oracles


@pytest.mark.parametrize("oracle", oracles.BLOCK)
def test_block(oracle: oracles.Oracle) -> None:
    oracle(EncoderBlock)
