"""Proves that the loss in slices is torch's cross-entropy over all columns at once, in value, gradient and count."""

import pytest
import torch
import torch.nn.functional as F
from minibert.model import vocabulary_loss as module
from torch import Tensor

from minibert.fast import COLUMNS, vocabulary_loss

SIZES = [1, 5, COLUMNS - 1, COLUMNS, COLUMNS + 1, 3 * COLUMNS + 17]


def inputs(size: int, rows: int = 7, scale: float = 1.0) -> tuple[list[Tensor], Tensor]:
    parameters = [torch.randn(shape) * scale for shape in ((rows, 12), (size, 12), (size,))]
    return [parameter.double().requires_grad_() for parameter in parameters], torch.randint(size, (rows,))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_value_gradients_and_count(size: int, scale: float) -> None:
    (hidden, weight, bias), labels = inputs(size, scale=scale)
    loss, correct = vocabulary_loss(hidden, weight, bias, labels)
    logits = F.linear(hidden, weight, bias)
    expected = F.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(loss, expected)
    assert correct.item() == (logits.argmax(dim=-1) == labels).sum().item()
    ours = torch.autograd.grad(loss / 3, (hidden, weight, bias))
    for mine, theirs in zip(ours, torch.autograd.grad(expected / 3, (hidden, weight, bias)), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_it_is_torchs_numerical_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COLUMNS", 4)
    parameters, labels = inputs(11)

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return vocabulary_loss(hidden, weight, bias, labels)[0]

    assert torch.autograd.gradcheck(loss, parameters)


def test_every_label_counts_wherever_its_slice_is() -> None:
    """The label's logit made the highest, for the first and the last column of each slice."""
    size = 2 * COLUMNS + 3
    for label in (0, COLUMNS - 1, COLUMNS, 2 * COLUMNS - 1, 2 * COLUMNS, size - 1):
        bias = torch.zeros(size)
        bias[label] = 50.0
        loss, correct = vocabulary_loss(torch.zeros(1, 12), torch.zeros(size, 12), bias, torch.tensor([label]))
        assert correct.item() == 1
        assert loss.item() == pytest.approx(0, abs=1e-6)


def test_large_logits_do_not_overflow() -> None:
    """1,000 in one slice and 0 in the others: exp(1000) is infinite, the loss is not."""
    bias = torch.zeros(3 * COLUMNS)
    bias[COLUMNS] = 1_000.0
    loss, _ = vocabulary_loss(torch.zeros(2, 12), torch.zeros(len(bias), 12), bias, torch.tensor([COLUMNS, 0]))
    assert loss.item() == pytest.approx(1_000.0)


def test_nothing_masked_is_a_loss_of_nothing() -> None:
    (hidden, weight, bias), labels = inputs(9, rows=0)
    loss, correct = vocabulary_loss(hidden, weight, bias, labels)
    assert (loss.item(), correct.item()) == (0, 0)
    loss.backward()
    assert weight.grad is not None
    assert (weight.grad == 0).all()
