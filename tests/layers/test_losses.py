"""Proves the contrastive loss by sentence-transformers' own."""

from typing import Any

import pytest
import torch

from minibert.losses import TEMPERATURE, contrastive_loss
from tests.layers import oracles


def test_all_positive_the_contrastive_loss_is_that_of_sentence_transformers() -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    u, v = oracles.noise(6, 16), oracles.noise(6, 16, seed=1)
    both: dict[str, Any] = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    theirs = losses.MultipleNegativesRankingLoss(model=torch.nn.Identity(), scale=1 / TEMPERATURE, **both)
    expected = theirs.compute_loss_from_embeddings([u, v], None)
    torch.testing.assert_close(contrastive_loss(u, v, torch.ones(6, dtype=torch.bool)) / 6, expected)
