"""Proves the three poolings by hand-computed vectors, and that none of them looks at padding."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from minibert.sbert import POOLINGS, cls_pooling, max_pooling, mean_pooling

HIDDEN = torch.tensor([[[1.0, -2.0], [3.0, -6.0], [100.0, 100.0]], [[5.0, -5.0], [7.0, -9.0], [0.0, -1.0]]])
MASK = torch.tensor([[True, True, False], [True, True, True]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (mean_pooling, [[2.0, -4.0], [4.0, -5.0]]),
        (max_pooling, [[3.0, -2.0], [7.0, -1.0]]),
        (cls_pooling, [[1.0, -2.0], [5.0, -5.0]]),
    ],
)
def test_by_hand(pooling: Callable[[Tensor, Tensor], Tensor], expected: list[list[float]]) -> None:
    torch.testing.assert_close(pooling(HIDDEN, MASK), torch.tensor(expected))


@pytest.mark.parametrize("pooling", POOLINGS.values())
def test_the_dtype_is_kept(pooling: Callable[[Tensor, Tensor], Tensor]) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        assert pooling(HIDDEN.to(dtype), MASK).dtype == dtype


@pytest.mark.parametrize("pooling", POOLINGS.values())
def test_a_sentence_without_a_token_is_refused(pooling: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match="no real token"):
        pooling(torch.ones(2, 3, 4), torch.tensor([[True, False, False], [False, False, False]]))


@pytest.mark.parametrize("pooling", POOLINGS.values())
def test_shapes_that_do_not_fit_are_refused(pooling: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        pooling(torch.ones(2, 3, 4), torch.ones(3, 2, dtype=torch.bool))
