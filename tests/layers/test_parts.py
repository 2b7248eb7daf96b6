"""Proves that each part is what the oracles ask of it; what else is to be said of some has files of its own."""

from typing import Any

import pytest
import torch

from minibert.bert import Bert, BertForMaskedLM, Embeddings, EncoderBlock, FeedForward, MLMHead, SelfAttention
from minibert.config import ModelConfig
from minibert.losses import contrastive_loss, mix, summed_loss
from minibert.masking import mask_tokens
from minibert.modern import rotate
from minibert.sbert import NLIClassifier, SentenceEncoder, cls_pooling, max_pooling, mean_pooling, pair_features
from tests.layers import oracles


def masked_lm(config: ModelConfig) -> BertForMaskedLM:
    return BertForMaskedLM(Bert(config))


EXERCISES = (
    Embeddings, SelfAttention, FeedForward, EncoderBlock, mask_tokens, MLMHead, summed_loss, mean_pooling, max_pooling,
    cls_pooling, pair_features, NLIClassifier,
)  # fmt: skip
ASKED: dict[Any, tuple[Any, ...]] = {part: oracles.BY_PART[part.__name__] for part in EXERCISES} | {
    Bert: (*oracles.BERT, oracles.starts_as_bert_does),
    masked_lm: oracles.MASKED_LM,
    SentenceEncoder: (oracles.sentence_encoder_pools_what_it_projects,),
    contrastive_loss: oracles.CONTRAST,
    mix: oracles.MIXTURES,
    rotate: oracles.ROTATION,
}


@pytest.mark.parametrize(("part", "oracle"), [(part, oracle) for part, those in ASKED.items() for oracle in those])
def test_a_part_is_what_its_oracles_ask(part: Any, oracle: oracles.Oracle) -> None:
    oracle(part)


def test_more_tokens_than_positions_are_an_error_with_both_numbers() -> None:
    most = oracles.CONFIG.max_position_embeddings
    with pytest.raises(ValueError, match=f"{most + 1} tokens, but the model has {most} positions"):
        Embeddings(oracles.CONFIG)(torch.ones(1, most + 1, dtype=torch.long))


def test_without_positions_nobody_could_tell_the_order() -> None:
    attention, words = oracles.scatter(SelfAttention(oracles.CONFIG)), oracles.noise(1, 4, 24)
    torch.testing.assert_close(attention(words.flip(1)).flip(1), attention(words))


def test_the_notebooks_model_has_the_notebooks_number_of_parameters() -> None:
    """Counted by hand: 11.1 M with the MLM head (the notebook's figure), less the head's 96,826."""
    V, D, F, L, P = 30_522, 256, 1_024, 4, 128
    embeddings = V * D + P * D + 2 * D + 2 * D
    block = 4 * (D * D + D) + (D * F + F) + (F * D + D) + 4 * D
    assert sum(p.numel() for p in Bert(ModelConfig()).parameters()) == embeddings + L * block
