"""Proves that attention is softmax(Q K^T / sqrt(K)) V, head by head, with padding out of sight."""

import pytest
import torch

from minibert.bert import SelfAttention
from tests.layers import oracles


@pytest.mark.parametrize("oracle", oracles.ATTENTION)
def test_attention(oracle: oracles.Oracle) -> None:
    oracle(SelfAttention)


def test_without_positions_nobody_could_tell_the_order() -> None:
    attention, words = oracles.scatter(SelfAttention(oracles.CONFIG)), oracles.noise(1, 4, 24)
    torch.testing.assert_close(attention(words.flip(1)).flip(1), attention(words))
