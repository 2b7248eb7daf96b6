"""The same numbers with less work: what training and `encode` run instead of the textbook's forward passes.

The modules and parameters are those of `minibert.bert` and `minibert.modern`; values and gradients are the same
(tests/test_fast.py checks it). Four kinds of work are saved:

    padding         linear layers, norms and feed-forward act on one token at a time, so they take the N real tokens
                    (N, D) as well as the rectangle (B, T, D); only attention needs the rectangle (`Packing`)
    positions       the last block's output is computed only at the M tokens that are predicted
    logits          (M, V) logits do not fit a cache: the loss is computed one slice of the vocabulary at a time
    random bits     dropout draws 16 bits per element where torch draws 53 (on a CPU)

On a GPU packing would make every step wait for the device, and torch's own kernels are fast, so only the positions are
saved there.

Sources: Zeng et al. 2022, "Boosting Distributed Training Performance of the Unpadded BERT Model" (packing); Milakov &
Gimelshein 2018, "Online normalizer calculation for softmax", section 3 (a softmax in one pass).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert import modern
from minibert.bert import Bert, BertForMaskedLM, EncoderBlock, SelfAttention
from minibert.losses import summed_loss
from minibert.modern import ModernBert, PreNormBlock, RotaryAttention
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.textbook import is_as_written, is_changed, is_own, is_textbook


def encode(
    bert: Bert, input_ids: Tensor, attention_mask: Tensor | None = None, positions: Tensor | None = None
) -> Tensor:
    """What `bert(input_ids, attention_mask)` gives, at some positions or at all of them.

    An encoder with a layer from any other file is run as it is written, since nothing is known about it here.

    Args:
        input_ids, attention_mask: (B, T), as for `Bert`.
        positions: (M,) int64, which of the B * T flattened positions to compute, none of them padding.
    Returns:
        (B, T, D), or (M, D) with `positions`. The numbers at padding mean nothing.
    Raises:
        ValueError: the mask is not bool or has another shape, T is more than the model has positions, or (on a CPU) one
            of `positions` is padding.
    """
    if attention_mask is not None and (attention_mask.shape, attention_mask.dtype) != (input_ids.shape, torch.bool):
        raise ValueError(f"attention_mask has to be bool and {tuple(input_ids.shape)}, like input_ids")
    if not is_textbook(bert):
        return select(bert(input_ids, attention_mask), positions)
    packing = Packing.of(attention_mask)
    hidden = dropout(bert.embeddings.norm(bert.embeddings.sum(input_ids)), bert.embeddings.dropout)  # (B, T, D)
    if packing is not None:
        hidden = packing.pack(hidden)  # (N, D)
        positions = None if positions is None else packing.rows(positions)
    elif hidden.device.type == "cpu":
        attention_mask = None  # there is no padding, and attention is fastest without a mask
    *lower, last = cast("Iterable[EncoderBlock]", bert.layers)
    for each in lower:
        hidden = block(each, hidden, attention_mask, packing)  # the same shape
    hidden = block(last, hidden, attention_mask, packing, positions)  # the same shape, or (M, D)
    if isinstance(bert, ModernBert):
        hidden = bert.final_norm(hidden)
    return hidden if packing is None or positions is not None else packing.unpack(hidden)


def sentence_vectors(encoder: SentenceEncoder, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """What `encoder(input_ids, attention_mask)` gives: (B, T) to (B, W)."""
    if is_own(encoder, SentenceEncoder) or is_changed(encoder):
        return encoder(input_ids, attention_mask)
    return encoder.pool(encode(encoder.bert, input_ids, attention_mask), attention_mask)


def score(classifier: NLIClassifier, features: Tensor) -> Tensor:
    """What `classifier.score(features)` gives: (B, 3W) to (B, C)."""
    if is_own(classifier, NLIClassifier, "score") or is_changed(classifier) or not is_as_written(nn.Dropout):
        return classifier.score(features)
    return classifier.classifier(dropout(features, classifier.dropout))


def mlm_loss(
    model: BertForMaskedLM, input_ids: Tensor, attention_mask: Tensor | None, positions: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """The cross-entropy of `BertForMaskedLM.loss`, summed instead of averaged, and how many predictions are right.

    Args:
        input_ids, attention_mask: (B, T).
        positions: (M,) int64, which of the B * T flattened positions are predicted; none is padding.
        labels: (M,) int64, the tokens that were there.
    """
    if not is_textbook(model):
        logits = select(model(input_ids, attention_mask), positions)  # (M, V)
        return summed_loss(logits, labels)
    hidden = model.head.transform(encode(model.bert, input_ids, attention_mask, positions))  # (M, D)
    return vocabulary_loss(hidden, model.bert.embeddings.word_embeddings.weight, model.head.bias, labels)


def block(
    layer: EncoderBlock,
    hidden: Tensor,
    attention_mask: Tensor | None = None,
    packing: Packing | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """An encoder block, post-norm or pre-norm: (N, D) or (B, T, D) to the same shape, or to (M, D) with `rows`."""
    if isinstance(layer, PreNormBlock):
        attended = attention(layer.attention, layer.attention_norm(hidden), attention_mask, packing, rows)
        hidden = select(hidden, rows) + dropout(attended, layer.dropout)
        return hidden + dropout(layer.feed_forward(layer.feed_forward_norm(hidden)), layer.dropout)
    attended = attention(layer.attention, hidden, attention_mask, packing, rows)
    hidden = layer.attention_norm(select(hidden, rows) + dropout(attended, layer.dropout))
    return layer.feed_forward_norm(hidden + dropout(layer.feed_forward(hidden), layer.dropout))


def attention(
    layer: SelfAttention,
    hidden: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None,
    rows: Tensor | None,
) -> Tensor:
    """Self-attention with its three projections as one product; shapes as in `block`."""
    projections = (layer.query, layer.key, layer.value)
    biases = None if layer.query.bias is None else torch.cat([each.bias for each in projections])
    qkv = F.linear(hidden, torch.cat([each.weight for each in projections]), biases)  # (N, 3D) or (B, T, 3D)
    if packing is not None:
        qkv = packing.unpack(qkv)
    query, key, value = (layer.split(part) for part in qkv.chunk(3, dim=-1))  # (B, H, T, K) each
    if isinstance(layer, RotaryAttention):
        query, key = modern.rotate(query, layer.theta), modern.rotate(key, layer.theta)
    dropout_p = layer.dropout_p if layer.training else 0.0
    context = layer.merge(attend(query, key, value, layer.allowed(attention_mask), dropout_p))  # (B, T, D)
    return layer.output(select(context if packing is None else packing.pack(context), rows))


def attend(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, dropout_p: float) -> Tensor:
    """`scaled_dot_product_attention` of (B, H, T, K); with dropout on a CPU in separate steps, as in torch.

    Args:
        allowed: (B, 1, 1, T) bool, which keys may be attended to; None = all.
    """
    if dropout_p == 0 or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout_p)
    B, H, T, K = query.shape
    bias = query.new_zeros(B, 1, 1, T)  # added to the scores: 0 where a key may be attended to, -inf elsewhere
    if allowed is not None:
        bias = bias.masked_fill(~allowed, -math.inf)
    bias = bias.expand(B, H, 1, T).flatten(0, 1)  # (B * H, 1, T)
    query, key, value = (part.flatten(0, 1) for part in (query, key, value))  # (B * H, T, K)
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=1 / math.sqrt(K))  # (B * H, T, T)
    return (drop(scores.softmax(dim=-1), dropout_p) @ value).view(B, H, T, K)


def select(hidden: Tensor, rows: Tensor | None) -> Tensor:
    """Some tokens of a batch: (..., D), flattened except for the last dimension, to (M, D); None = all, as they are."""
    return hidden if rows is None else hidden.flatten(0, -2).index_select(0, rows)


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a batch are.

    Attributes:
        places: (N,) int64, their positions among the B * T flattened ones.
        shape: (B, T).
    """

    places: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, attention_mask: Tensor | None) -> Packing | None:
        """From a mask (B, T); None if there is no padding, or on an accelerator, where looking would mean waiting."""
        if attention_mask is None or attention_mask.device.type != "cpu" or bool(attention_mask.all()):
            return None
        B, T = attention_mask.shape
        return cls(attention_mask.flatten().nonzero().squeeze(1), (B, T))

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, C) to (N, C)."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, C) to (B, T, C), with zeros at padding."""
        B, T = self.shape
        padded = packed.new_zeros(B * T, packed.shape[-1])
        return padded.index_copy_(0, self.places, packed).view(B, T, -1)

    def rows(self, positions: Tensor) -> Tensor:
        """Where in (N, C) some of the B * T flattened positions are: (M,) to (M,).

        Raises:
            ValueError: one of them is padding.
        """
        rows = torch.searchsorted(self.places, positions).clamp_(max=len(self.places) - 1)
        if not torch.equal(self.places[rows], positions):
            raise ValueError("one of the positions asked for is padding, where nothing is computed")
        return rows


LEVELS = 2**16


def dropout(x: Tensor, layer: nn.Module) -> Tensor:
    """What a dropout layer does to x, of any shape; a layer that is not torch's own, or was changed, is called."""
    if type(layer) is not nn.Dropout or is_changed(layer):
        return layer(x)
    return drop(x, layer.p) if layer.training and layer.p else x


def drop(x: Tensor, p: float) -> Tensor:
    """`F.dropout` with 16 random bits per element: p to the nearest 1/65,536, the mean kept exactly."""
    if x.device.type != "cpu" or p == 1:
        return F.dropout(x, p)  # a single kernel there, with its own random numbers
    dropped = min(round(p * LEVELS), LEVELS - 1)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)  # 64 bits each, for 4 elements
    sixteen = draws.view(torch.int16)[: x.numel()].view(x.shape)
    kept = (sixteen >= dropped - LEVELS // 2).to(x.dtype)
    return x * kept.mul_(LEVELS / (LEVELS - dropped))


COLUMNS = 2_048  # of the vocabulary in a slice: with 300 rows, 2.4 MB


def vocabulary_loss(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """`F.cross_entropy(F.linear(hidden, weight, bias), labels, reduction="sum")`, and how many are right.

    In separate steps, logits, log-softmax and the gradients of both would each write and read (M, V) numbers. Here each
    slice of the columns is finished while it is in the cache. Under autocast the products are in its dtype, sums and
    exponentials in float32.

    Args:
        hidden: (M, D) float.
        weight: (V, D) float.
        bias: (V,) float.
        labels: (M,) int64 in [0, V).
    Returns:
        the loss in nats, summed over M; the number of labels whose logit is the highest of their row.
    """
    if hidden.device.type != "cpu":  # launching kernels costs more there than slices save, and memory is fast
        return summed_loss(F.linear(hidden, weight, bias), labels)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
    loss, correct = _VocabularyLoss.apply(hidden, weight, bias, labels, dtype)  # type: ignore[no-untyped-call]
    return loss, correct


class _VocabularyLoss(torch.autograd.Function):
    """`vocabulary_loss` on a CPU, a slice of the logits z = h W^T + b at a time.

    Forward (algorithm 3), with m the highest logit of a row so far:

        m' = max(m, max z)     s' = s exp(m - m') + sum exp(z - m')     and at the end     log sum exp(z) = m + log s

    Backward: the gradient of z is the probability minus 1 at the label. E = exp(z - m'), (M, C) for each slice of C
    columns, was kept, so the probability is f E, with a factor f = exp(m' - log sum exp) for each row. The gradient is
    never written out: f goes into the smaller matrix of each product, and the labels are subtracted as M rows.

        dW = E^T (f h) - h at the labels' rows          dh = f (E W) - W[labels]
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        hidden = hidden.to(dtype)
        highest = bias.new_full((len(hidden),), float("-inf"))  # (M,) the highest logit so far
        total = torch.zeros_like(highest)  # (M,) the sum so far of exp(logit - highest)
        at_label = torch.zeros_like(highest)  # (M,) the logit of the label
        right = torch.zeros_like(labels, dtype=torch.bool)  # (M,) whether it is the first of the highest
        exponentials, highests = [], []
        for columns in _slices(len(weight)):
            products = torch.addmm(bias[columns].to(dtype), hidden, weight[columns].to(dtype).t())
            logits = products.to(bias.dtype)  # (M, C), C up to COLUMNS
            higher = torch.maximum(highest, logits.amax(dim=1))
            right &= higher == highest  # in the slices before, there was one as high
            rows, places = _labels_in(columns, labels)
            labelled = logits[rows]  # few: a slice has the labels of few rows
            at_label[rows] = labelled.gather(1, places.unsqueeze(1)).squeeze(1)
            before = torch.arange(labelled.shape[1]) < places.unsqueeze(1)
            is_first = ~((labelled == at_label[rows].unsqueeze(1)) & before).any(dim=1)
            right[rows] = (at_label[rows] > highest[rows]) & (at_label[rows] == higher[rows]) & is_first
            exponential = logits.sub_(higher.unsqueeze(1)).exp_()
            total = total * (highest - higher).exp() + exponential.sum(dim=1)
            highest = higher
            exponentials.append(exponential.to(dtype))
            highests.append(higher)
        log_total = highest + total.log()
        factors = (torch.stack(highests) - log_total).exp()  # (slices, M)
        ctx.save_for_backward(hidden, weight, labels, factors, *exponentials)
        correct = right.sum()
        ctx.mark_non_differentiable(correct)
        return (log_total - at_label).sum(), correct

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        hidden, weight, labels, factors, *exponentials = ctx.saved_tensors
        grad_hidden, grad_weight = -weight[labels], torch.empty_like(weight, dtype=hidden.dtype)
        grad_bias = hidden.new_empty(len(weight))
        for columns, factor, exponential in zip(_slices(len(weight)), factors, exponentials, strict=True):
            scaled = (scale * factor).to(hidden.dtype)
            torch.mm(exponential.t(), hidden * scaled.unsqueeze(1), out=grad_weight[columns])
            torch.mv(exponential.t(), scaled, out=grad_bias[columns])
            grad_hidden.addcmul_(exponential @ weight[columns].to(hidden.dtype), factor.unsqueeze(1))
        grad_weight, grad_bias = grad_weight.to(weight.dtype), grad_bias.to(weight.dtype)
        grad_weight.index_add_(0, labels, hidden.to(weight.dtype) * -scale)
        grad_bias.index_add_(0, labels, -scale.expand(len(labels)))
        return grad_hidden * scale, grad_weight, grad_bias, None, None


def _slices(size: int) -> Iterator[slice]:
    for start in range(0, size, COLUMNS):
        yield slice(start, min(start + COLUMNS, size))


def _labels_in(columns: slice, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The rows whose label is in a slice, and the label's column there."""
    rows = ((labels >= columns.start) & (labels < columns.stop)).nonzero().squeeze(1)
    return rows, labels[rows] - columns.start
