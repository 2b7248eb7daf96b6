"""Proves that attention is softmax(Q K^T / sqrt(K)) V, head by head, with padding out of sight."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from minibert.bert import SelfAttention, attend
from minibert.config import ModelConfig


def by_hand(
    attention: SelfAttention, hidden: torch.Tensor, mask: torch.Tensor | None, window: int | None = None
) -> torch.Tensor:
    """The formula of Vaswani et al. 2017, section 3.2, one sentence, one head, one query at a time."""
    size, heads = attention.head_size, attention.num_heads
    D = size * heads
    rows = []
    for b, sentence in enumerate(hidden):
        projected = sentence @ attention.qkv.weight.T + attention.qkv.bias  # (T, 3D)
        query, key, value = projected[:, :D], projected[:, D : 2 * D], projected[:, 2 * D :]
        context = torch.zeros_like(sentence)
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            for t in range(len(sentence)):
                seen = [s for s in range(len(sentence)) if mask is None or mask[b, s]]
                seen = [s for s in seen if window is None or abs(s - t) <= window]
                scores = torch.stack([query[t, part] @ key[s, part] / math.sqrt(size) for s in seen])
                weights = scores.exp() / scores.exp().sum()
                context[t, part] = sum(w * value[s, part] for w, s in zip(weights, seen, strict=True))
        rows.append(context @ attention.output.weight.T + attention.output.bias)
    return torch.stack(rows)


@pytest.mark.parametrize("masked", [False, True])
def test_is_the_formula_written_out(config: ModelConfig, masked: bool) -> None:
    attention = SelfAttention(config).eval()
    hidden = torch.randn(2, 5, 24)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]]).bool() if masked else None
    torch.testing.assert_close(attention(hidden, mask), by_hand(attention, hidden, mask))


def test_is_torchs_multi_head_attention(config: ModelConfig) -> None:
    ours, theirs = SelfAttention(config).eval(), nn.MultiheadAttention(24, 3, batch_first=True).eval()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )
    hidden = torch.randn(4, 7, 24)
    mask = torch.arange(7) < torch.tensor([7, 5, 1, 3]).unsqueeze(1)
    expected, _ = theirs(hidden, hidden, hidden, key_padding_mask=~mask)  # True = padding there, a real token here
    torch.testing.assert_close(ours(hidden, mask), expected)


def test_padding_reaches_nobody(config: ModelConfig) -> None:
    attention = SelfAttention(config).eval()
    hidden = torch.randn(1, 6, 24)
    mask = torch.tensor([[True, True, True, True, False, False]])
    changed = hidden.clone()
    changed[:, 4:] = 1e3
    torch.testing.assert_close(attention(hidden, mask)[:, :4], attention(changed, mask)[:, :4], rtol=0, atol=0)
    torch.testing.assert_close(attention(hidden, mask)[:, :4], attention(hidden[:, :4]))


def test_a_mask_of_ones_is_no_mask(config: ModelConfig) -> None:
    attention = SelfAttention(config).eval()
    hidden = torch.randn(2, 6, 24)
    torch.testing.assert_close(attention(hidden, torch.ones(2, 6, dtype=torch.bool)), attention(hidden))


def test_dropout_of_probabilities_acts_in_training_only() -> None:
    """With every value 1, a query's output is the sum of its surviving probabilities / (1 - p): its mean stays 1."""
    attention = SelfAttention(
        ModelConfig(hidden_size=8, num_attention_heads=2, attention_probs_dropout_prob=0.4, vocab_size=9)
    )
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.copy_(torch.tensor([0.0] * 16 + [1.0] * 8))
        attention.output.weight.copy_(torch.eye(8))
        attention.output.bias.zero_()
    hidden = torch.randn(50, 20, 8)
    torch.testing.assert_close(attention.eval()(hidden), torch.ones(50, 20, 8))
    out = attention.train()(hidden).detach()
    kept = out.flatten() * 20 * 0.6  # how many of the 20 keys survived
    assert (kept - kept.round()).abs().max() < 1e-3
    assert abs(out.mean().item() - 1) < 0.02
    assert out.std().item() == pytest.approx(math.sqrt(20 * 0.6 * 0.4) / 20 / 0.6, rel=0.1)


@pytest.mark.parametrize("masked", [False, True])
def test_the_path_with_dropout_is_the_path_without_when_nothing_is_dropped(masked: bool) -> None:
    """A rate below half of 1/65,536 drops nothing, but takes the steps one by one."""
    query, key, value = torch.randn(3, 2, 3, 5, 8)
    allowed = (torch.arange(5) < torch.tensor([3, 5]).unsqueeze(1))[:, None, None, :] if masked else None
    torch.testing.assert_close(attend(query, key, value, allowed, 1e-6), attend(query, key, value, allowed, 0.0))


def test_dropped_probabilities_are_the_formulas() -> None:
    """What survives is softmax(Q K^T / sqrt(K)), element by element, divided by 1 - p; padding stays at zero."""
    query, key = torch.randn(2, 2, 3, 5, 5)
    allowed = (torch.arange(5) < torch.tensor([3, 5]).unsqueeze(1))[:, None, None, :]
    probabilities = attend(query, key, torch.eye(5).expand(2, 3, 5, 5), allowed, 0.5)  # V = I shows them
    scores = torch.einsum("bhqk,bhsk->bhqs", query, key) / math.sqrt(5)
    whole = scores.masked_fill(~allowed, -math.inf).softmax(dim=-1)
    kept = probabilities != 0
    torch.testing.assert_close(probabilities[kept], 2 * whole[kept], rtol=1e-3, atol=1e-5)
    assert 0.3 < kept[whole > 0].float().mean().item() < 0.7
    assert not kept[0, :, :, 3:].any()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 1e-6], ids=["fused", "step by step"])
def test_a_layer_with_a_window_sees_so_far_and_no_farther(config: ModelConfig, masked: bool, dropout: float) -> None:
    """The second of two layers, whose window of 4 is 2 on each side; the first sees everything."""
    config = replace(config, global_attn_every_n_layers=2, local_attention=4, attention_probs_dropout_prob=dropout)
    hidden = torch.randn(2, 9, 24)
    mask = torch.arange(9) < torch.tensor([9, 6]).unsqueeze(1) if masked else None
    real = torch.ones(2, 9, dtype=torch.bool) if mask is None else mask
    for layer, window in ((0, None), (1, 2)):
        attention = SelfAttention(config, layer)  # in training mode, where a rate of 1e-6 drops nothing
        out = attention(hidden, mask)
        assert out.isfinite().all()  # padding too, which no other token may catch a NaN from
        for b, length in enumerate(real.sum(dim=1).tolist()):
            expected = by_hand(attention, hidden[b : b + 1, :length], None, window)
            torch.testing.assert_close(out[b, :length], expected[0])


def test_rotary_attention_sees_distances_and_no_places(config: ModelConfig) -> None:
    """Moved along the sequence, with nothing else in sight, words have the same outputs; turned round, others."""
    attention = SelfAttention(replace(config, rotary=True)).eval()
    words = torch.randn(1, 4, 24)
    padded = torch.cat([torch.randn(1, 3, 24), words, torch.randn(1, 2, 24)], dim=1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 0, 0]]).bool()
    torch.testing.assert_close(attention(padded, mask)[:, 3:7], attention(words))
    assert not torch.allclose(attention(words.flip(1)).flip(1), attention(words), atol=1e-3)
    plain = SelfAttention(config).eval()
    torch.testing.assert_close(plain(words.flip(1)).flip(1), plain(words))  # without positions nobody could tell


def test_each_kind_of_layer_has_its_own_angles(config: ModelConfig) -> None:
    config = replace(
        config,
        rotary=True,
        global_attn_every_n_layers=2,
        global_rope_theta=7.0,
        local_rope_theta=5.0,
        local_attention=4,
    )
    layers = [SelfAttention(config, layer) for layer in range(3)]
    assert [(layer.theta, layer.window) for layer in layers] == [(7.0, None), (5.0, 2), (7.0, None)]


@pytest.mark.parametrize("rotary", [False, True])
def test_probabilities_are_what_the_values_are_weighted_by(config: ModelConfig, rotary: bool) -> None:
    attention = SelfAttention(replace(config, rotary=rotary)).eval()
    hidden = torch.randn(2, 5, 24)
    mask = torch.arange(5) < torch.tensor([5, 3]).unsqueeze(1)
    weights = attention.probabilities(hidden, mask)  # (B, H, T, T)
    assert weights.shape == (2, 3, 5, 5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 5))
    assert not weights[1, :, :, 3:].any()
    _, _, value = attention.heads(hidden)
    torch.testing.assert_close(
        attention.output((weights @ value).transpose(1, 2).reshape(2, 5, 24)), attention(hidden, mask)
    )
