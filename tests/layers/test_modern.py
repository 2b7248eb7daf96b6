"""Proves ModernBERT's parts by their formulas, and that heads can start out pointed at neighbours."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from minibert.bert import Bert
from minibert.config import ModelConfig, ModernBertConfig
from minibert.modern import (
    GatedFeedForward,
    ModernBert,
    ModernBlock,
    PreNormBlock,
    RotaryAttention,
    WordEmbeddings,
    make_bert,
    make_masked_lm,
    point_at_neighbours,
    pointing,
    rotate,
)
from tests.layers import oracles
from tests.layers.oracles import MODERN

BIASES = [MODERN, replace(MODERN, bias=False)]


@pytest.mark.parametrize("theta", [10_000.0, 160_000.0])
def test_rotation_is_transformers_own(theta: float) -> None:
    theirs = pytest.importorskip("transformers.models.modernbert.modeling_modernbert")
    query, key = torch.randn(2, 3, 4, 128, 64)
    frequencies = 1 / theta ** (torch.arange(0, 64, 2) / 64)
    angles = torch.outer(torch.arange(128.0), frequencies).repeat(1, 2)[None]
    expected = theirs.apply_rotary_pos_emb(query, key, angles.cos(), angles.sin())
    torch.testing.assert_close((rotate(query, theta), rotate(key, theta)), tuple(expected))


@pytest.mark.parametrize(
    "oracle",
    [
        oracles.attention_is_the_formula,
        oracles.attention_sees_no_padding,
        oracles.attention_with_a_mask_of_ones_has_none,
        oracles.attention_weights_are_the_formulas,
        oracles.attention_drops_weights_in_training_only,
    ],
)
def test_rotary_attention(oracle: Callable[..., None]) -> None:
    oracle(RotaryAttention, MODERN)


def test_rotary_attention_sees_distances_and_no_places() -> None:
    """Moved along the sequence, with nothing else in sight, words have the same outputs; in reverse, others."""
    attention, words = oracles.scatter(RotaryAttention(MODERN)), oracles.noise(1, 4, 24)
    padded = torch.cat([oracles.noise(1, 3, 24, seed=1), words, oracles.noise(1, 2, 24, seed=2)], dim=1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 0, 0]]).bool()
    torch.testing.assert_close(attention(padded, mask)[:, 3:7], attention(words), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(attention(words.flip(1)).flip(1), attention(words), atol=1e-3)


def test_gated_feed_forward() -> None:
    oracles.gated_feed_forward_is_the_formula(GatedFeedForward)
    oracles.feed_forward_takes_each_token_by_itself(GatedFeedForward, MODERN)


def test_pre_norm_block() -> None:
    oracles.block_is_torchs(PreNormBlock, norm_first=True)
    oracles.block_drops_what_each_part_adds(PreNormBlock, norm_first=True)
    oracles.block_has_its_attentions_weights(PreNormBlock, norm_first=True)


def test_modern_block() -> None:
    oracles.block_drops_what_each_part_adds(ModernBlock, MODERN, norm_first=True)
    oracles.block_has_its_attentions_weights(ModernBlock, MODERN, norm_first=True)


def test_embeddings() -> None:
    oracles.modern_embeddings_are_the_normalised_row(WordEmbeddings)
    oracles.embeddings_drop_in_training_only(lambda _: WordEmbeddings(MODERN))
    oracles.padding_learns_nothing(lambda _: WordEmbeddings(MODERN))


@pytest.mark.parametrize("config", BIASES, ids=["biases", "no biases"])
def test_the_stack(config: ModernBertConfig) -> None:
    oracles.modern_bert_is_the_formula(ModernBert, config)
    oracles.bert_sees_no_padding(ModernBert, config)
    oracles.bert_follows_its_batch(ModernBert, config)
    oracles.bert_knows_the_order_of_words(ModernBert, config)
    oracles.bert_has_the_maps_of_its_blocks(ModernBert, config)
    oracles.starts_as_bert_does(ModernBert, config)


def test_every_field_reaches_its_layer() -> None:
    bert = ModernBert(MODERN)
    assert {module.p for module in bert.modules() if isinstance(module, nn.Dropout)} == {MODERN.hidden_dropout_prob}
    assert {module.eps for module in bert.modules() if isinstance(module, nn.LayerNorm)} == {MODERN.layer_norm_eps}
    assert bert.embeddings.word_embeddings.padding_idx == MODERN.pad_token_id
    norms = [name for name, module in bert.named_modules() if isinstance(module, nn.LayerNorm)]
    assert norms == [
        "embeddings.norm", "layers.0.feed_forward_norm", "layers.1.attention_norm", "layers.1.feed_forward_norm",
        "final_norm",
    ]  # fmt: skip
    # Counted by hand: 4 square matrices, three of F x D, and their biases; two norms in a block, but for one.
    block = 4 * (24 * 24 + 24) + (24 * 80 + 80) + (40 * 24 + 24) + 4 * 24
    assert sum(p.numel() for p in bert.parameters()) == 61 * 24 + 2 * block - 2 * 24 + 4 * 24


def test_without_biases_there_is_none_but_the_decoders() -> None:
    with_biases, without = (make_masked_lm(config) for config in BIASES)
    assert [name for name, _ in without.named_parameters() if name.endswith("bias")] == ["head.bias"]
    weights = {name for name, _ in with_biases.named_parameters() if not name.endswith(".bias")}
    assert {name for name, _ in without.named_parameters()} == weights | {"head.bias"}
    oracles.starts_as_bert_does(lambda config: make_masked_lm(config).head, BIASES[1])
    for config in BIASES:
        assert type(make_bert(config)) is ModernBert
    assert type(make_bert(oracles.CONFIG)) is Bert
    assert "head.dense.bias" in dict(make_masked_lm(oracles.CONFIG).named_parameters())
    oracles.starts_as_bert_does(lambda config: make_masked_lm(config).head)
    ids = oracles.some_ids()
    model = oracles.scatter(make_masked_lm(MODERN))
    expected = oracles.scores(model.head, model.bert(ids), model.bert.embeddings.word_embeddings.weight)
    torch.testing.assert_close(model(ids), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("distance", [-3, -1, 0, 1, 2])
@pytest.mark.parametrize("size", [64, 6])
def test_a_pointed_head_scores_highest_at_its_distance(distance: int, size: int) -> None:
    """The same biases at every position, rotated: the score is the sum of cosines of the distance from the target."""
    theta = 10_000.0 if size == 64 else 500.0
    query, key = pointing(size, theta, distance)
    queries, keys = (rotate(bias.expand(20, size), theta) for bias in (query, key))
    scores = queries @ keys.T  # (20, 20)
    for place in range(5, 15):
        assert scores[place].argmax() == place + distance
    angles = [theta ** (-2 * i / size) for i in range(min(8, size // 2))]
    for place, other in ((10, 10), (10, 12), (4, 9)):
        expected = 4 * sum(math.cos(angle * (other - place - distance)) for angle in angles)
        assert scores[place, other].item() == pytest.approx(expected, abs=1e-4)


def test_heads_start_at_neighbours_if_asked() -> None:
    """A model of the usual size, untrained: each head gives most to the place that it is pointed at, and only there."""
    config = ModernBertConfig(vocab_size=500, type_vocab_size=0, num_attention_heads=8, hidden_size=512)
    model = ModernBert(config).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    point_at_neighbours(model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"layers.{layer}.attention.{part}.bias" for layer in range(4) for part in ("query", "key")}
    maps = model.attention_maps(torch.randint(5, 500, (4, 40))).mean(dim=1)  # (L, H, T, T)
    for head, distance in enumerate((-1, 1, -2, 2) * 2):
        at = maps[:, head].diagonal(distance, dim1=1, dim2=2)[:, 5:-5].mean(dim=1)
        assert (at > 0.2).all(), head  # of 40 places
        assert at.min() > maps[:, head].diagonal(-distance, dim1=1, dim2=2).max()


def test_heads_are_pointed_with_the_models_own_angles() -> None:
    """Base 50 and three heads: each has the biases that the test above holds to the formula."""
    model, K = ModernBert(MODERN), MODERN.head_size
    point_at_neighbours(model)
    biases = model.state_dict()
    for layer in range(MODERN.num_hidden_layers):
        its = {part: biases[f"layers.{layer}.attention.{part}.bias"] for part in ("query", "key", "value")}
        for head, distance in enumerate((-1, 1, -2)):
            part = slice(head * K, (head + 1) * K)
            query, key = pointing(K, 50.0, distance)
            assert torch.equal(its["query"][part], query)
            assert torch.equal(its["key"][part], key)
        assert (its["value"] == 0).all()


@pytest.mark.parametrize(
    ("model", "words"),
    [(Bert(ModelConfig(vocab_size=9)), "only with rotary positions"), (ModernBert(BIASES[1]), "only by biases")],
)
def test_heads_that_cannot_be_pointed_are_refused(model: Bert, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        point_at_neighbours(model)
