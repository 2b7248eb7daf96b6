"""Proves that the feed-forward layer is its formula, with the exact GELU, for each token by itself."""

import pytest

from minibert.bert import FeedForward
from tests.layers import oracles


@pytest.mark.parametrize("oracle", oracles.FEED_FORWARD)
def test_feed_forward(oracle: oracles.Oracle) -> None:
    oracle(FeedForward)
