"""Proves that a block is torch's own layer, that padding and batch order don't matter, and how it starts."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from minibert.bert import Bert, EncoderBlock, FeedForward, GatedFeedForward, PreNormBlock, point_at_neighbours
from minibert.config import MODERN, ModelConfig


def test_feed_forward_is_the_formula_written_out(config: ModelConfig) -> None:
    layer = FeedForward(config)
    x = torch.randn(3, 24)
    inner = x @ layer.intermediate.weight.T + layer.intermediate.bias
    gelu = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))  # exact, not the tanh approximation
    torch.testing.assert_close(layer(x), gelu @ layer.output.weight.T + layer.output.bias)


def test_gated_feed_forward_is_the_formula_written_out(config: ModelConfig) -> None:
    """GEGLU(x) = (GELU(x W) * (x V)) W2, W and V being the halves of the first matrix."""
    layer = GatedFeedForward(replace(config, bias=False))
    assert sorted(dict(layer.named_parameters())) == ["down.weight", "up.weight"]
    x = torch.randn(3, 24)
    inner, gate = x @ layer.intermediate.weight[:40].T, x @ layer.intermediate.weight[40:].T
    gelu = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    torch.testing.assert_close(layer(x), (gelu * gate) @ layer.output.weight.T)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_block_is_torchs_encoder_layer(config: ModelConfig, norm_first: bool, bias: bool) -> None:
    """Post-norm, and pre-norm in any layer but the first, where attention has no norm."""
    config = replace(config, bias=bias)
    ours = (PreNormBlock if norm_first else EncoderBlock)(config, layer=1).eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs = nn.TransformerEncoderLayer(
        24, 3, 40, activation="gelu", batch_first=True, norm_first=norm_first, layer_norm_eps=config.layer_norm_eps,
        bias=bias,
    ).eval()  # fmt: skip
    names = {
        "attention.qkv.weight": "self_attn.in_proj_weight",
        "attention.qkv.bias": "self_attn.in_proj_bias",
        "attention.output": "self_attn.out_proj",
        "attention_norm": "norm1",
        "feed_forward.intermediate": "linear1",
        "feed_forward.output": "linear2",
        "feed_forward_norm": "norm2",
    }
    state = {}
    for name, tensor in ours.state_dict().items():
        module, kind = name.rsplit(".", 1)
        state[names.get(name) or f"{names[module]}.{kind}"] = tensor
    theirs.load_state_dict(state, strict=True)
    hidden = torch.randn(3, 6, 24)
    mask = torch.arange(6) < torch.tensor([6, 4, 2]).unsqueeze(1)
    expected = theirs(hidden, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(hidden, mask)[mask], expected[mask])


def test_the_first_pre_norm_block_has_no_norm_before_its_attention(config: ModelConfig) -> None:
    """Worked out by hand: x + A(x), then + F(norm(x + A(x))); and the last thing of all is one more norm."""
    model = Bert(replace(config, norm_first=True, num_hidden_layers=1)).eval()
    (block,) = model.layers
    assert isinstance(block, PreNormBlock)
    ids = torch.randint(5, 61, (2, 7))
    hidden = model.embeddings(ids)
    hidden = hidden + block.attention(hidden)
    hidden = hidden + block.feed_forward(block.feed_forward_norm(hidden))
    torch.testing.assert_close(model(ids), nn.functional.layer_norm(hidden, (24,), eps=config.layer_norm_eps))
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]
    assert norms == ["embeddings.norm", "blocks.0.feed_forward_norm", "final_norm"]


@pytest.mark.parametrize("parts", [{}, MODERN, MODERN | {"global_attn_every_n_layers": 2, "local_attention": 4}])
def test_appended_padding_changes_nothing(config: ModelConfig, parts: dict[str, Any]) -> None:
    model = Bert(replace(config, **parts)).eval()
    ids = torch.randint(5, 61, (3, 7))
    padded = torch.cat([ids, torch.zeros(3, 6, dtype=torch.long)], dim=1)
    mask = torch.arange(13).expand(3, 13) < 7
    torch.testing.assert_close(model(padded, mask)[:, :7], model(ids))


def test_permuting_a_batch_permutes_the_outputs(config: ModelConfig) -> None:
    model = Bert(config).eval()
    ids, order = torch.randint(5, 61, (5, 7)), torch.tensor([3, 0, 4, 1, 2])
    mask = torch.arange(7) < torch.tensor([7, 3, 5, 2, 6]).unsqueeze(1)
    torch.testing.assert_close(model(ids[order], mask[order]), model(ids, mask)[order])


@pytest.mark.parametrize("rotary", [False, True])
def test_order_of_words_matters(config: ModelConfig, rotary: bool) -> None:
    """Without positions a transformer would give permuted vectors for permuted words."""
    model = Bert(replace(config, rotary=rotary, initializer_range=0.2)).eval()
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.allclose(model(ids)[0, 0], model(ids.flip(1))[0, 2], atol=1e-3)


@pytest.mark.parametrize("std", [0.02, 0.1])
def test_starts_as_bert_does(std: float) -> None:
    model = Bert(ModelConfig(vocab_size=2000, hidden_size=64, initializer_range=std, num_hidden_layers=2))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            values = parameter[1:] if name == "embeddings.word_embeddings.weight" else parameter
            count = values.numel()
            assert abs(values.mean().item()) < 5 * std / math.sqrt(count), name
            assert values.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * count)), name
    assert (model.embeddings.word_embeddings.weight[0] == 0).all()


def test_every_field_of_the_configuration_reaches_its_layer() -> None:
    config = ModelConfig(
        vocab_size=50, hidden_size=12, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20,
        max_position_embeddings=9, type_vocab_size=4, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3,
        layer_norm_eps=1e-3, pad_token_id=7,
    )  # fmt: skip
    model = Bert(config)
    assert len(model.layers) == 3
    assert model.embeddings.position_embeddings is not None
    assert model.embeddings.token_type_embeddings is not None
    assert model.embeddings.word_embeddings.weight.shape == (50, 12)
    assert model.embeddings.word_embeddings.padding_idx == 7
    assert model.embeddings.position_embeddings.weight.shape == (9, 12)
    assert model.embeddings.token_type_embeddings.weight.shape == (4, 12)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.2}
    assert {module.eps for module in model.modules() if isinstance(module, nn.LayerNorm)} == {1e-3}
    for block in model.layers:
        assert isinstance(block, EncoderBlock)
        assert (block.attention.num_heads, block.attention.head_size, block.attention.dropout) == (2, 6, 0.3)
        assert block.feed_forward.intermediate.weight.shape == (20, 12)


def test_the_notebooks_model_has_the_notebooks_number_of_parameters() -> None:
    """Counted by hand: 11.1 M with the MLM head (the notebook's figure), less the head's 96,826."""
    V, D, F, L, P = 30_522, 256, 1_024, 4, 128
    embeddings = V * D + P * D + 2 * D + 2 * D
    block = 4 * (D * D + D) + (D * F + F) + (F * D + D) + 4 * D
    assert sum(p.numel() for p in Bert(ModelConfig()).parameters()) == embeddings + L * block


def test_every_exchanged_part_reaches_its_layer(config: ModelConfig) -> None:
    model = Bert(replace(config, **MODERN, global_attn_every_n_layers=2, local_attention=6))
    assert not any("bias" in name or "position" in name or "segment" in name for name in model.state_dict())
    assert isinstance(model.final_norm, nn.LayerNorm)
    for block, window in zip(model.layers, (None, 3), strict=True):
        assert isinstance(block, PreNormBlock)
        assert isinstance(block.feed_forward, GatedFeedForward)
        assert (block.attention.rotary, block.attention.window) == (True, window)


@pytest.mark.parametrize("parts", [{}, MODERN])
def test_attention_maps_are_those_of_each_layers_own_input(config: ModelConfig, parts: dict[str, Any]) -> None:
    """The second layer's attention is caught in the act, with the unit matrix for values."""
    model = Bert(replace(config, **parts)).eval()
    ids, mask = torch.randint(5, 61, (2, 7)), torch.arange(7) < torch.tensor([7, 4]).unsqueeze(1)
    maps = model.attention_maps(ids, mask)  # (L, B, H, T, T)
    assert maps.shape == (2, 2, 3, 7, 7)
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 2, 3, 7))
    caught: list[torch.Tensor] = []
    attention = model.get_submodule("blocks.1.attention")
    attention.register_forward_pre_hook(lambda module, inputs: caught.append(module.probabilities(inputs[0][:1])))
    model(ids[:1])  # no padding in this one
    torch.testing.assert_close(maps[1, :1], caught[0])


def test_heads_start_at_neighbours_if_asked() -> None:
    """A model of the usual size, untrained: each head gives most to the place that it is pointed at, and only there."""
    config = ModelConfig(**MODERN | {"bias": True}, vocab_size=500, hidden_dropout_prob=0.0)
    model = Bert(config).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    point_at_neighbours(model)
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == [f"blocks.{layer}.attention.qkv.bias" for layer in range(4)]
    assert not model.state_dict()["blocks.0.attention.qkv.bias"][512:].any()  # values have none
    maps = model.attention_maps(torch.randint(5, 500, (8, 40))).mean(dim=1)  # (L, H, T, T)
    for head, distance in enumerate((-1, 1, -2, 2)):
        at = maps[:, head].diagonal(distance, dim1=1, dim2=2)[:, 5:-5].mean(dim=1)
        assert (at > 0.2).all(), head  # of 40 places
        assert at.min() > maps[:, head].diagonal(-distance, dim1=1, dim2=2).max()
    with pytest.raises(ValueError, match="only with rotary positions"):
        point_at_neighbours(Bert(ModelConfig(vocab_size=9)))
    with pytest.raises(ValueError, match="only by biases"):
        point_at_neighbours(Bert(ModelConfig(**MODERN, vocab_size=9)))
