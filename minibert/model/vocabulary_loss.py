"""Cross-entropy over a large vocabulary, a slice of the vocabulary at a time.

The MLM head's last matrix product and its loss go over V = 30,522 columns. As separate steps, each of them writes and
reads (M, V) numbers that no cache holds: logits, log-softmax, the gradients of both. Here a slice of the columns is
worked on while it is in the cache. The numbers are those of `F.linear` and `F.cross_entropy`, which
tests/model/test_vocabulary_loss.py holds, gradients too.

Source: Milakov & Gimelshein 2018, section 3 (softmax in one pass, with a running maximum).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

COLUMNS = 2_048  # in a slice: with 300 rows, 2.4 MB


def vocabulary_loss(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """`F.cross_entropy(F.linear(hidden, weight, bias), labels, reduction="sum")`, and how often it is guessed right.

    Args:
        hidden: (M, D) float.
        weight: (V, D) float.
        bias: (V,) float.
        labels: (M,) int64 in [0, V).
    Returns:
        the loss in nats summed over M; the number of labels whose logit is the highest of their row.
    """
    if hidden.device.type != "cpu":  # there a kernel's launch costs more than a slice saves, and memory is fast
        logits = F.linear(hidden, weight, bias)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        return loss, (logits.detach().argmax(dim=-1) == labels).sum()
    loss, correct = _VocabularyLoss.apply(hidden, weight, bias, labels)  # type: ignore[no-untyped-call]
    return loss, correct


class _VocabularyLoss(torch.autograd.Function):
    """What backward needs is kept as E = exp(logits - reference), (M, C) a slice, the reference being of a row.

    The gradient of the logits is their probability, E times a factor of the row, less 1 at the label. It is not written
    out: the factors are multiplied into the smaller matrix of each product, and the labels are M rows to be taken off.
    """

    @staticmethod
    # Also where bfloat16 is the rule: sums over a vocabulary need the precision.
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        highest = hidden.new_full((len(hidden),), float("-inf"))  # (M,) the highest logit so far
        total = torch.zeros_like(highest)  # (M,) the sum so far of exp(logit - highest)
        at_label = torch.zeros_like(highest)  # (M,) the logit of the label
        exponentials, references = [], []
        for columns in _slices(len(weight)):
            logits = torch.addmm(bias[columns], hidden, weight[columns].t())  # (M, C), C up to COLUMNS
            rows, places = _labels_in(columns, labels)
            at_label[rows] = logits[rows, places]
            higher = torch.maximum(highest, logits.amax(dim=1))
            exponential = logits.sub_(higher.unsqueeze(1)).exp_()
            total = total * (highest - higher).exp() + exponential.sum(dim=1)
            highest = higher
            exponentials.append(exponential)
            references.append(higher)
        log_total = highest + total.log()
        factors = (torch.stack(references) - log_total).exp()  # (slices, M): E times these are probabilities
        ctx.save_for_backward(hidden, weight, labels, factors, *exponentials)
        correct = (at_label == highest).sum()
        ctx.mark_non_differentiable(correct)
        return (log_total - at_label).sum(), correct

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        hidden, weight, labels, factors, *exponentials = ctx.saved_tensors
        of_hidden, of_weight, of_bias = -weight[labels], torch.empty_like(weight), weight.new_empty(len(weight))
        for columns, factor, exponential in zip(_slices(len(weight)), factors, exponentials, strict=True):
            torch.mm(exponential.t(), hidden * (scale * factor).unsqueeze(1), out=of_weight[columns])
            torch.mv(exponential.t(), scale * factor, out=of_bias[columns])
            of_hidden.addcmul_(exponential @ weight[columns], factor.unsqueeze(1))
        of_weight.index_add_(0, labels, hidden * -scale)
        of_bias.index_add_(0, labels, -scale.expand(len(labels)))
        return of_hidden * scale, of_weight, of_bias, None


def _slices(size: int) -> Iterator[slice]:
    for start in range(0, size, COLUMNS):
        yield slice(start, min(start + COLUMNS, size))


def _labels_in(columns: slice, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The rows whose label is in a slice, and its place there."""
    rows = ((labels >= columns.start) & (labels < columns.stop)).nonzero().squeeze(1)
    return rows, labels[rows] - columns.start
