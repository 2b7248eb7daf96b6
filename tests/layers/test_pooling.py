"""Proves that poolings have their names, what they say of mistakes, and how a projection before them begins."""

from typing import Any

import pytest
import torch

from minibert.bert import Bert
from minibert.sbert import POOLINGS, SentenceEncoder, cls_pooling, max_pooling, mean_pooling
from tests.layers import oracles
from tests.layers.oracles import CONFIG, MASK


def test_names() -> None:
    assert dict(POOLINGS) == {"mean": mean_pooling, "max": max_pooling, "cls": cls_pooling}


def test_a_projection_keeps_the_size_of_numbers() -> None:
    """With torch's own beginning they have a standard deviation of 1 / sqrt(3) of what goes in, whatever the width."""
    projection = SentenceEncoder(Bert(CONFIG), projection=1_024).projection
    assert projection is not None
    assert projection(oracles.noise(500, 24)).std().item() == pytest.approx(3**-0.5, rel=0.05)


def test_projected_vectors_are_pooled_in_the_precision_of_the_hidden_ones() -> None:
    encoder = SentenceEncoder(Bert(CONFIG), projection=40)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(oracles.some_ids(), MASK).dtype == torch.float32


@pytest.mark.parametrize("pooling", POOLINGS.values())
def test_the_errors_say_what_is_wrong(pooling: Any) -> None:
    with pytest.raises(ValueError, match="no real token"):
        pooling(torch.ones(2, 3, 4), torch.tensor([[True, False, False], [False, False, False]]))
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) does not fit attention_mask \(3, 2\)"):
        pooling(torch.ones(2, 3, 4), torch.ones(3, 2, dtype=torch.bool))
