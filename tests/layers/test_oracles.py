"""Proves that the oracles refuse what is often written instead, and say what they expected."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from minibert.bert import Bert, BertForMaskedLM, Embeddings, EncoderBlock, FeedForward, MLMHead, SelfAttention
from minibert.masking import mask_tokens
from minibert.sbert import NLIClassifier
from tests.layers import oracles


class ScaledByTheWholeSize(SelfAttention):
    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        query, key, value = self.heads(hidden)
        mask, scale = self.allowed(attention_mask), 1 / math.sqrt(hidden.shape[-1])
        return self.output(self.merge(F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)))


class MaskedUpsideDown(SelfAttention):
    def allowed(self, attention_mask: Tensor | None) -> Tensor | None:
        return None if attention_mask is None else ~attention_mask[:, None, None, :]


class MaskedAfterTheSoftmax(SelfAttention):
    def weights(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        weights = super().weights(hidden)
        return weights if attention_mask is None else weights * attention_mask[:, None, None, :]


class ApproximateGelu(FeedForward):
    def forward(self, hidden: Tensor) -> Tensor:
        return self.output(F.gelu(self.intermediate(hidden), approximate="tanh"))


class NormFirst(EncoderBlock):
    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), attention_mask))
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))


class DropsTheSum(EncoderBlock):
    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        hidden = self.attention_norm(self.dropout(hidden + self.attention(hidden, attention_mask)))
        return self.feed_forward_norm(self.dropout(hidden + self.feed_forward(hidden)))


class WithoutPositions(Embeddings):
    def sum(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        return self.word_embeddings(input_ids)


class ForgetsTheMask(Bert):
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        return super().forward(input_ids, None, token_type_ids)


class WithoutTheWordsBias(MLMHead):
    def forward(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        return F.linear(self.transform(hidden), word_embeddings)


class LossEverywhere(BertForMaskedLM):
    def loss(self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor) -> Tensor:
        return F.cross_entropy(self(input_ids, attention_mask).flatten(0, 1), labels.flatten().clamp(min=0))


class OtherOrder(NLIClassifier):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return super().forward(input_ids.flip(0), attention_mask.flip(0))


def masks_special_tokens_too(ids: Tensor, special: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return mask_tokens(ids, torch.zeros_like(special), *rest)


WRONG: dict[str, tuple[Callable[..., None], tuple[Any, ...], str]] = {
    "scale": (oracles.attention_is_the_formula, (ScaledByTheWholeSize,), r"softmax\(Q K\^T / sqrt\(K\)\) V"),
    "polarity": (oracles.attention_sees_no_padding, (MaskedUpsideDown,), "padding to be seen by no one"),
    "after softmax": (oracles.attention_weights_are_the_formulas, (MaskedAfterTheSoftmax,), "zero at padding"),
    "tanh": (oracles.feed_forward_is_the_formula, (ApproximateGelu,), r"GELU\(x W1 \+ b1\) W2 \+ b2"),
    "pre-norm": (oracles.block_is_torchs, (NormFirst,), "TransformerEncoderLayer"),
    "dropout": (oracles.block_drops_what_each_part_adds, (DropsTheSum,), "dropout of attention.output"),
    "no positions": (oracles.embeddings_are_the_normalised_sum_of_three_rows, (WithoutPositions,), "three rows"),
    "no mask": (oracles.bert_sees_no_padding, (ForgetsTheMask,), "padding to be seen by no one"),
    "no bias": (oracles.mlm_head_is_the_formula, (WithoutTheWordsBias,), "a bias for each word"),
    "labels": (
        oracles.masked_lm_loss_is_the_mean_over_the_masked,
        (lambda config: LossEverywhere(Bert(config)),),
        "over the masked positions",
    ),
    "padding in the mean": (oracles.pooling_is_as_by_hand, (lambda h, _: h.mean(dim=1), "mean"), "the real tokens"),
    "no distance": (
        oracles.features_are_u_v_and_their_distance,
        (lambda u, v: torch.cat([u, v, u - v], dim=-1),),
        r"\[u, v, \|u - v\|\]",
    ),
    "sides": (oracles.classifier_is_the_formula, (OtherOrder,), r"the linear layer over \[u, v"),
    "special tokens": (oracles.masking_keeps_its_books, (masks_special_tokens_too,), "no special token to be chosen"),
}


@pytest.mark.parametrize(("oracle", "arguments", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_layer_is_refused(oracle: Callable[..., None], arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(AssertionError, match=f"expected (.|\n)*{words}"):
        oracle(*arguments)
