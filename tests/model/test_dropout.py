"""Proves that dropout drops at its rate, independently, keeps means, and passes gradients where it passed values."""

import math

import pytest
import torch

from minibert.fast import Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_the_rate_and_the_scale(p: float) -> None:
    count = 1_000_000
    out = dropout(torch.ones(count), p)
    kept = out != 0
    rate = 1 - kept.float().mean().item()
    assert rate == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / count) + 2**-17)
    scale = out[kept].unique()
    assert len(scale) == 1
    assert scale.item() == pytest.approx(1 / (1 - p), rel=1e-3)
    assert scale.item() * (1 - round(p * 2**16) / 2**16) == pytest.approx(1, abs=1e-6)  # means are kept exactly


def test_elements_are_independent_though_four_share_a_draw() -> None:
    """Each of the sixteen patterns of four neighbours is as frequent as independence wants it, and so across draws."""
    dropped = dropout(torch.ones(1_000_000), 0.5) == 0
    for offset in (0, 2):
        fours = dropped[offset : len(dropped) - 4 + offset].view(-1, 4)
        patterns = (fours * torch.tensor([8, 4, 2, 1])).sum(dim=1).bincount(minlength=16) / len(fours)
        assert (patterns - 1 / 16).abs().max() < 5 * math.sqrt(1 / 16 / len(fours))


def test_neither_rows_nor_calls_repeat() -> None:
    rows = dropout(torch.ones(64, 256), 0.5)
    assert len({tuple(row.tolist()) for row in rows}) == 64
    assert not torch.equal(dropout(torch.ones(64, 256), 0.5), rows)


def test_it_follows_torchs_seed() -> None:
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(dropout(torch.ones(999), 0.3))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (2, 3, 5), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_and_dtype_are_kept(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    out = dropout(torch.ones(shape, dtype=dtype), 0.2)
    assert out.shape == shape
    assert out.dtype == dtype


def test_gradients_go_where_values_went() -> None:
    x = torch.randn(50, 50, requires_grad=True)
    out = dropout(x, 0.4)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(out, x * x.grad)
    assert set((x.grad == 0).unique().tolist()) == {False, True}


def test_a_rate_just_below_one_is_no_division_by_zero() -> None:
    assert dropout(torch.ones(1_000), 0.999999).isfinite().all()


def test_the_layer_acts_in_training_only() -> None:
    layer, x = Dropout(0.5), torch.randn(100)
    assert torch.equal(layer.eval()(x), x)
    assert (layer.train()(x) == 0).any()
    assert Dropout(0.0).train()(x) is x
