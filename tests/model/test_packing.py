"""Proves that leaving padding out changes nothing: not values, not gradients, in no part of the network."""

import pytest
import torch

from minibert.bert import Bert
from minibert.config import ModelConfig
from minibert.fast import Packing

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 0, 1, 0]]).bool()  # a hole in the last row


def test_by_hand() -> None:
    packing = Packing.of(MASK)
    assert packing is not None
    assert packing.places.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 12, 14]
    x = torch.arange(32.0).view(4, 4, 2) + 1
    packed = packing.pack(x)
    assert packed.tolist() == [x[b, t].tolist() for b in range(4) for t in range(4) if MASK[b, t]]
    assert torch.equal(packing.unpack(packed), x * MASK.unsqueeze(-1))


def test_there_is_none_where_there_is_nothing_to_leave_out() -> None:
    assert Packing.of(None) is None
    assert Packing.of(torch.ones(2, 3, dtype=torch.bool)) is None
    assert Packing.of(MASK.to("meta")) is None  # an accelerator is not asked


def test_gradients_return_to_their_places() -> None:
    packing = Packing.of(MASK)
    assert packing is not None
    x = torch.randn(4, 4, 2, requires_grad=True)
    weight = torch.randn(4, 4, 2)
    (packing.unpack(packing.pack(x)) * weight).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, weight * MASK.unsqueeze(-1))


@pytest.mark.parametrize("mask", [MASK, MASK[:3], MASK[2:3]])
def test_the_encoder_gives_what_it_gives_in_a_rectangle(config: ModelConfig, mask: torch.Tensor) -> None:
    """Values at real tokens, and gradients of all weights, with packing and, block by block, without."""
    model = Bert(config).eval()
    ids = torch.randint(5, 61, mask.shape)
    packed = model(ids, mask)
    hidden = model.embeddings(ids)
    for block in model.layers:
        hidden = block(hidden, mask)
    torch.testing.assert_close(packed[mask], hidden[mask])
    assert (packed[~mask] == 0).all()
    weight = torch.randn_like(hidden[mask])
    gradients = [
        torch.autograd.grad((out[mask] * weight).sum(), list(model.parameters()), allow_unused=True)
        for out in (packed, hidden)
    ]
    for (name, _), ours, expected in zip(model.named_parameters(), *gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5, msg=name)


def test_rows_by_hand() -> None:
    packing = Packing.of(MASK)
    assert packing is not None
    assert packing.rows(torch.tensor([14, 0, 5, 8, 5])).tolist() == [9, 0, 4, 7, 4]
    for padding in (3, 9, 15):  # between two rows of tokens, and behind the last
        with pytest.raises(ValueError, match="padding"):
            packing.rows(torch.tensor([0, padding]))


@pytest.mark.parametrize("mask", [MASK, None])
def test_wanted_positions_are_those_of_all_positions(config: ModelConfig, mask: torch.Tensor | None) -> None:
    """Values and all weights' gradients of five tokens: computed alone in the last block, and picked from all."""
    model = Bert(config).eval()
    ids, positions = torch.randint(5, 61, (4, 4)), torch.tensor([12, 0, 5, 8, 14])
    alone = model(ids, mask, positions=positions)
    picked = model(ids, mask).flatten(0, 1)[positions]
    assert alone.shape == (5, 24)
    torch.testing.assert_close(alone, picked)
    weight = torch.randn(5, 24)
    gradients = [
        torch.autograd.grad((out * weight).sum(), list(model.parameters()), allow_unused=True)
        for out in (alone, picked)
    ]
    for (name, _), ours, expected in zip(model.named_parameters(), *gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5, msg=name)


def test_the_last_block_computes_wanted_positions_only(config: ModelConfig) -> None:
    model = Bert(config).eval()
    sizes: list[int] = []
    model.layers[-1].get_submodule("feed_forward").register_forward_hook(
        lambda _, __, out: sizes.append(out.numel() // 24)
    )
    model(torch.randint(5, 61, (4, 4)), MASK, positions=torch.tensor([0, 5, 8]))
    assert sizes == [3]
