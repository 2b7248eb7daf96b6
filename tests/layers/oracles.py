"""What each layer has to do, as functions of a candidate: the package's own layer, or one that you have written.

A candidate is made and called as the class or function of the package whose place it takes, and its parameters have the
same names. An oracle says nothing if the candidate is right, and raises AssertionError with what it expected if not.

Expected values come from formulas written out one number at a time, from torch's own layers, or from arithmetic that
can be done by hand. Nothing is neutral: all parameters are random, norms and biases too (`scatter`), no two sizes are
equal, the norms' epsilon is large, and the mask has padding of several lengths and holes. Random numbers come from
generators of their own, so that an oracle's verdict is the same every time.

Needs torch and `minibert.config` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minibert.config import IGNORED, LABELS, ModelConfig, ModernBertConfig

Layer = Callable[..., Any]  # a class that takes a configuration, and whose objects are nn.Modules
Oracle = Callable[[Any], None]

CONFIG = ModelConfig(
    vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
    max_position_embeddings=19, type_vocab_size=5, hidden_dropout_prob=0.25, attention_probs_dropout_prob=0.4,
    initializer_range=0.3, layer_norm_eps=0.05, pad_token_id=6,
)  # fmt: skip
MODERN = ModernBertConfig(**{**vars(CONFIG), "type_vocab_size": 0, "rope_theta": 50.0})

MASK = torch.tensor(
    [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 1, 0], [0, 1, 0, 0, 1, 1, 0]]
).bool()  # (B, T) = (4, 7): nothing to leave out, padding, holes, and a first token that is none
MASKS = ((None, torch.ones_like(MASK)), (MASK, MASK))  # what a layer is given, and which tokens are real then


def generator(seed: int = 0) -> torch.Generator:
    """A source of random numbers that no one else draws from."""
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=generator(seed))


def some_ids(seed: int = 0) -> Tensor:
    """Token ids of MASK's shape, all those of the vocabulary being possible."""
    return torch.randint(CONFIG.vocab_size, MASK.shape, generator=generator(seed))


def some_words() -> Tensor:
    """The same, but that the padding's id, whose row is a question of its own, is another one."""
    return some_ids().masked_fill(some_ids() == CONFIG.pad_token_id, 1)


def some_segments() -> Tensor:
    """Of MASK's shape, too, and all of them."""
    return torch.randint(CONFIG.type_vocab_size, MASK.shape, generator=generator(1))


def some_vectors(config: ModelConfig = CONFIG) -> Tensor:
    """What goes into a block for each token."""
    return noise(*MASK.shape, config.hidden_size)


@torch.no_grad()
def scatter(module: Any, seed: int = 0) -> Any:
    """Give every parameter random values, norms and biases and the padding row too, and leave training mode."""
    draws = generator(seed)
    for parameter in module.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draws) * 0.3)
    return module.eval()


def same(got: Tensor, expected: Tensor, what: str, *, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    """Equal but for rounding, in shape and dtype too."""
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol, msg=lambda text: f"expected {what}\n{text}")


def same_gradients(got: Tensor, expected: Tensor, inputs: Mapping[str, Tensor], what: str) -> None:
    """Two computations from the same tensors pass the same gradients back to each of them."""
    assert got.requires_grad, f"expected gradients: {what}"
    slopes = noise(*got.shape, seed=99).to(got.dtype)
    ours, theirs = (
        torch.autograd.grad((out * slopes).sum(), list(inputs.values()), retain_graph=True, materialize_grads=True)
        for out in (got, expected)
    )
    for name, mine, other in zip(inputs, ours, theirs, strict=True):
        same(mine, other, f"the gradient of {name} that goes with {what}", rtol=1e-4, atol=1e-4)


def agree(
    got: Tensor, expected: Tensor, what: str, layer: nn.Module | None = None, *, rtol: float = 1e-5, **inputs: Tensor
) -> None:
    """The same values, and the same gradients of all of a layer's parameters and of the inputs that are named."""
    same(got, expected, what, rtol=rtol)
    parameters = dict(layer.named_parameters()) if layer is not None else {}
    same_gradients(got, expected, parameters | inputs, what)


def within(count: float, trials: int, rate: float, what: str) -> None:
    """Five standard deviations of a binomial: a right implementation fails once in two million seeds."""
    deviation = math.sqrt(trials * rate * (1 - rate))
    assert abs(count - trials * rate) <= 5 * deviation, f"expected {what}: {rate} of {trials}, not {count / trials:.4f}"


def dropped(got: Tensor, whole: Tensor, p: float, what: str) -> None:
    """Each element is 0 with probability p, by itself, and 1 / (1 - p) times what it was otherwise."""
    kept = got != 0
    expected = torch.where(kept, whole / (1 - p), torch.zeros(()))
    same(got, expected, f"{what}: what is kept is divided by 1 - {p}", rtol=1e-4)
    there = whole != 0
    within(int(kept[there].sum()), int(there.sum()), 1 - p, f"{what}: a share is kept")
    for dimension in range(got.dim()):  # neighbours are kept independently of each other
        size = got.shape[dimension] - 1
        if size == 0:
            continue
        both_kept, both_there = (x.narrow(dimension, 0, size) & x.narrow(dimension, 1, size) for x in (kept, there))
        within(int(both_kept.sum()), int(both_there.sum()), (1 - p) ** 2, f"{what}: neighbours, each by itself")


def refuses(call: Callable[[], object], what: str, words: str = "") -> None:
    """It raises ValueError, and says why: in words of its own, unless they are given."""
    said = None
    try:
        call()
    except ValueError as error:
        said = str(error)
    assert said is not None, f"expected a ValueError: {what}"
    assert words in said, f"expected a ValueError that says {words!r}, not {said!r}"


# --------------------------------------------------------------------------------------------- formulas, written out


def linear(layer: Any, x: Tensor) -> Tensor:
    """x W^T + b, b being optional."""
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def normalised(norm: Any, x: Tensor, eps: float = CONFIG.layer_norm_eps) -> Tensor:
    """Layer norm: mean 0 and variance 1 over the last dimension, then the layer's own scale and shift."""
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + eps).sqrt()
    return scaled * norm.weight + (0 if norm.bias is None else norm.bias)


def gelu(x: Tensor) -> Tensor:
    """x Phi(x), exactly."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def summed(embeddings: Any, ids: Tensor, segments: Tensor | None = None) -> Tensor:
    """The three rows of each token, added one token at a time."""
    rows = []
    for row in range(len(ids)):
        for place in range(ids.shape[1]):
            segment = 0 if segments is None else int(segments[row, place])
            rows.append(
                embeddings.word_embeddings.weight[int(ids[row, place])]
                + embeddings.position_embeddings.weight[place]
                + embeddings.token_type_embeddings.weight[segment]
            )
    return torch.stack(rows).view(*ids.shape, -1)


def turned(vector: Tensor, place: int, theta: float) -> Tensor:
    """(K,): its pairs as complex numbers, each multiplied by exp(i place theta^(-2j/K))."""
    half = len(vector) // 2
    angles = torch.tensor([place * theta ** (-2 * j / len(vector)) for j in range(half)])
    points = torch.complex(vector[:half], vector[half:]) * torch.polar(torch.ones(half), angles)
    return torch.cat([points.real, points.imag])


def attended(
    attention: Any, hidden: Tensor, mask: Tensor | None, config: ModelConfig = CONFIG
) -> tuple[Tensor, Tensor]:
    """Vaswani et al. 2017, section 3.2, one sentence, one head, one query at a time: weights, and what comes out."""
    H, K, T = config.num_attention_heads, config.hidden_size // config.num_attention_heads, hidden.shape[1]
    theta = getattr(config, "rope_theta", None)
    all_weights, contexts = [], []
    for b, sentence in enumerate(hidden):
        query, key, value = (linear(layer, sentence) for layer in (attention.query, attention.key, attention.value))
        seen = [s for s in range(T) if mask is None or mask[b, s]]
        for h in range(H):
            part = slice(h * K, (h + 1) * K)
            queries, keys = [row[part] for row in query], [row[part] for row in key]
            if theta is not None:
                queries, keys = ([turned(x, place, theta) for place, x in enumerate(rows)] for rows in (queries, keys))
            for t in range(T):
                odds = torch.stack([(queries[t] @ keys[s] / math.sqrt(K)).exp() for s in seen])
                weights = odds / odds.sum()
                all_weights.append(torch.zeros(T).index_put((torch.tensor(seen),), weights))
                contexts.append(torch.stack([w * value[s, part] for w, s in zip(weights, seen, strict=True)]).sum(0))
    B = len(hidden)
    context = torch.stack(contexts).view(B, H, T, K).transpose(1, 2).reshape(B, T, H * K)
    return torch.stack(all_weights).view(B, H, T, T), linear(attention.output, context)


# ------------------------------------------------------------------------------------------------------- embeddings


def embeddings_are_the_normalised_sum_of_three_rows(candidate: Layer) -> None:
    """Word, place and segment, each token by itself; and every table gets its gradient."""
    embeddings = scatter(candidate(CONFIG))
    ids, segments = some_words(), some_segments()
    ids[:, 2] = CONFIG.pad_token_id + 1
    expected = normalised(embeddings.norm, summed(embeddings, ids, segments))
    agree(embeddings(ids, segments), expected, "the sum of three rows, normalised", embeddings)


def embeddings_without_segments_are_of_the_first(candidate: Layer) -> None:
    """None means zeros, which is not the same as ones."""
    embeddings, ids = scatter(candidate(CONFIG)), some_ids()
    same(embeddings(ids), embeddings(ids, torch.zeros_like(ids)), "no segments to be the first segment")
    assert not torch.allclose(embeddings(ids), embeddings(ids, torch.ones_like(ids)))


def embeddings_end_with_the_positions(candidate: Layer) -> None:
    """As many tokens as there are positions, and not one more."""
    embeddings, most = candidate(CONFIG), CONFIG.max_position_embeddings
    assert embeddings(torch.ones(1, most, dtype=torch.long)).shape == (1, most, CONFIG.hidden_size)
    refuses(lambda: embeddings(torch.ones(1, most + 1, dtype=torch.long)), f"{most + 1} tokens, but {most} positions")


def embeddings_drop_in_training_only(candidate: Layer) -> None:
    """What comes out last is dropped, at the rate of hidden vectors."""
    embeddings = scatter(candidate(CONFIG))
    ids = torch.randint(CONFIG.vocab_size, (40, 19), generator=generator())
    whole = embeddings(ids)
    same(embeddings(ids), whole, "no dropout outside training")
    torch.manual_seed(0)
    dropped(embeddings.train()(ids), whole, CONFIG.hidden_dropout_prob, "dropout of the embeddings")


def padding_learns_nothing(candidate: Layer) -> None:
    """Its row gets no gradient when it is looked up; others do."""
    embeddings = scatter(candidate(CONFIG))
    embeddings(torch.tensor([[CONFIG.pad_token_id, 5]])).square().sum().backward()
    gradient = embeddings.word_embeddings.weight.grad
    assert (gradient[CONFIG.pad_token_id] == 0).all(), "expected no gradient for the padding row"
    assert (gradient[5] != 0).any(), "expected a gradient for a word's row"


EMBEDDINGS: tuple[Oracle, ...] = (
    embeddings_are_the_normalised_sum_of_three_rows,
    embeddings_without_segments_are_of_the_first,
    embeddings_end_with_the_positions,
    embeddings_drop_in_training_only,
    padding_learns_nothing,
)


# -------------------------------------------------------------------------------------------------------- attention


def attention_is_the_formula(candidate: Layer, config: ModelConfig = CONFIG) -> None:
    """softmax(Q K^T / sqrt(K)) V in values and gradients, with no mask and with holes."""
    attention = scatter(candidate(config))
    hidden = some_vectors(config).requires_grad_()
    for mask, real in MASKS:
        got, (_, expected) = attention(hidden, mask), attended(attention, hidden, mask, config)
        what = "softmax(Q K^T / sqrt(K)) V, then the output layer" + ", over real tokens only" * (mask is not None)
        agree(got[real], expected[real], what, attention, input=hidden)


def attention_is_torchs(candidate: Layer) -> None:
    """`nn.MultiheadAttention` with the same weights."""
    ours, hidden = scatter(candidate(CONFIG)), some_vectors()
    theirs = nn.MultiheadAttention(CONFIG.hidden_size, CONFIG.num_attention_heads, batch_first=True).eval()
    theirs.load_state_dict(torchs_attention(ours))
    expected, _ = theirs(hidden, hidden, hidden, key_padding_mask=~MASK)  # True = padding there, a real token here
    same(ours(hidden, MASK)[MASK], expected[MASK], "the output of nn.MultiheadAttention")


def torchs_attention(ours: Any) -> dict[str, Tensor]:
    """Our weights under the names of `nn.MultiheadAttention`, which keeps three layers as one."""
    three = (ours.query, ours.key, ours.value)
    return {
        "in_proj_weight": torch.cat([layer.weight for layer in three]),
        "in_proj_bias": torch.cat([layer.bias for layer in three]),
        "out_proj.weight": ours.output.weight,
        "out_proj.bias": ours.output.bias,
    }


def attention_sees_no_padding(candidate: Layer, config: ModelConfig = CONFIG) -> None:
    """Whatever stands in padding, nobody notices; and without it the sequence is just shorter."""
    attention, hidden = scatter(candidate(config)), some_vectors(config)
    changed = hidden.masked_fill(~MASK.unsqueeze(-1), 100.0)
    same(attention(changed, MASK)[MASK], attention(hidden, MASK)[MASK], "padding to be seen by no one", rtol=0, atol=0)
    same(attention(hidden, MASK)[1:2, :4], attention(hidden[1:2, :4]), "what the sequence gives without its padding")


def attention_gives_numbers_at_padding(candidate: Layer) -> None:
    """They mean nothing, but NaN times a weight of 0 is NaN, and the next block would pass it on to all tokens."""
    attention, hidden = scatter(candidate(CONFIG)), some_vectors()
    assert attention(hidden, MASK).isfinite().all(), "expected numbers at padding, too, not NaN"


def attention_sees_no_padding_at_large_scores(candidate: Layer) -> None:
    """With scores in the millions -10,000 is no small number: a weight of 0 takes -inf, or something near it.

    Where such scores overflow, nothing is compared: see `attention_stands_large_scores`.
    """
    attention, hidden = scatter(candidate(CONFIG)), some_vectors() * 1_000
    for content in (1_000.0, -3_000.0):
        changed = hidden.masked_fill(~MASK.unsqueeze(-1), content)
        got, expected = attention(changed, MASK)[MASK], attention(hidden, MASK)[MASK]
        numbers = got.isfinite() & expected.isfinite()
        same(got[numbers], expected[numbers], "padding to be seen by no one, however large the scores")


def attention_stands_large_scores(candidate: Layer) -> None:
    """e^100 is no float32: a softmax takes the largest score off first."""
    attention, hidden = scatter(candidate(CONFIG)), some_vectors() * 100
    assert attention(hidden, MASK)[MASK].isfinite().all(), "expected numbers, however large the scores"


def attention_with_a_mask_of_ones_has_none(candidate: Layer, config: ModelConfig = CONFIG) -> None:
    """All tokens are real, said or not."""
    attention, hidden = scatter(candidate(config)), some_vectors(config)
    same(attention(hidden, torch.ones_like(MASK)), attention(hidden), "a mask of ones to change nothing")


def attention_weights_are_the_formulas(candidate: Layer, config: ModelConfig = CONFIG) -> None:
    """`weights` is the softmax, and what the layer's own output is made with."""
    attention, hidden = scatter(candidate(config)), some_vectors(config)
    (B, T), H, K = MASK.shape, config.num_attention_heads, config.head_size
    for mask, real in MASKS:
        weights = attention.weights(hidden, mask)
        same(weights, attended(attention, hidden, mask, config)[0], "softmax(Q K^T / sqrt(K)), zero at padding")
        same(weights.sum(dim=-1), torch.ones(B, H, T), "weights that sum to 1")
        value = linear(attention.value, hidden).view(B, T, H, K).transpose(1, 2)
        context = (weights @ value).transpose(1, 2).reshape(B, T, H * K)
        same(attention(hidden, mask)[real], linear(attention.output, context)[real], "the mean of values by `weights`")


def attention_drops_weights_in_training_only(candidate: Layer, config: ModelConfig = CONFIG) -> None:
    """If token t's value is the t-th unit vector in both halves of every head, the output shows the weights, twice.

    They are dropped after the softmax, each by itself, and what is left is not made to sum to 1 again. Both halves show
    the same, or something else is dropped than the weights.
    """
    D, H, K = config.hidden_size, config.num_attention_heads, config.head_size
    attention, B, T = scatter(candidate(config)), 600, K // 2
    with torch.no_grad():
        for parameter in (*attention.value.parameters(), *attention.output.parameters()):
            parameter.zero_()
        for h in range(H):
            attention.value.weight[h * K : (h + 1) * K, :T] = torch.eye(T).repeat(2, 1)
        attention.output.weight.copy_(torch.eye(D))
    hidden, mask = torch.eye(T, D).expand(B, T, D), MASK[2, :T].expand(B, T)
    whole = attended(attention, hidden[:1], mask[:1], config)[0].expand(B, H, T, T)

    def shown() -> Tensor:
        first, second = attention(hidden, mask).view(B, T, H, 2, T).transpose(1, 2).detach().unbind(3)  # (B, H, T, T)
        same(second, first, "weights to be dropped, and not what is made with them")
        return first

    same(shown(), whole, "no dropout outside training")
    attention.train()
    torch.manual_seed(0)
    p = config.attention_probs_dropout_prob
    real = MASK[2, :T].nonzero().flatten()
    dropped(shown()[..., real], whole[..., real], p, "dropout of attention weights")
    same(attention.weights(hidden[:2], mask[:2]), whole[:2], "`weights` to be those before dropout")


ATTENTION: tuple[Oracle, ...] = (
    attention_is_the_formula,
    attention_is_torchs,
    attention_sees_no_padding,
    attention_gives_numbers_at_padding,
    attention_sees_no_padding_at_large_scores,
    attention_stands_large_scores,
    attention_with_a_mask_of_ones_has_none,
    attention_weights_are_the_formulas,
    attention_drops_weights_in_training_only,
)


# ----------------------------------------------------------------------------------------------------- feed-forward


def feed_forward_is_the_formula(candidate: Layer) -> None:
    """GELU(x W1 + b1) W2 + b2, with the exact GELU, in training too."""
    layer, hidden = scatter(candidate(CONFIG)), some_vectors().requires_grad_()
    expected = linear(layer.output, gelu(linear(layer.intermediate, hidden)))
    what = "GELU(x W1 + b1) W2 + b2"
    same(layer(hidden), expected, what)
    agree(layer.train()(hidden), expected, f"{what}, without dropout of its own", layer, input=hidden)
    assert layer.intermediate.weight.shape == (CONFIG.intermediate_size, CONFIG.hidden_size)


def feed_forward_takes_each_token_by_itself(candidate: Layer, config: ModelConfig = CONFIG) -> None:
    """What other tokens are changes nothing."""
    layer, hidden = scatter(candidate(config)), some_vectors(config)
    same(layer(hidden)[1:2, 2:3], layer(hidden[1:2, 2:3]), "a token's output to be its own")


FEED_FORWARD: tuple[Oracle, ...] = (feed_forward_is_the_formula, feed_forward_takes_each_token_by_itself)


# ------------------------------------------------------------------------------------------------------------ block


def block_is_torchs(candidate: Layer, *, norm_first: bool = False) -> None:
    """`nn.TransformerEncoderLayer` with the same weights, post-norm (or pre-norm): values, and the input's gradient."""
    ours, hidden = scatter(candidate(CONFIG)), some_vectors().requires_grad_()
    theirs, what = torchs_layer(ours, norm_first), f"the output of nn.TransformerEncoderLayer(norm_first={norm_first})"
    expected = theirs(hidden, src_key_padding_mask=~MASK)
    agree(ours(hidden, MASK)[MASK], expected[MASK], what, input=hidden)
    same(ours(hidden), theirs(hidden), f"{what}, without a mask")


def torchs_layer(block: Any, norm_first: bool) -> nn.TransformerEncoderLayer:
    """Torch's layer with a block's weights."""
    theirs = nn.TransformerEncoderLayer(
        CONFIG.hidden_size, CONFIG.num_attention_heads, CONFIG.intermediate_size, activation="gelu", batch_first=True,
        norm_first=norm_first, layer_norm_eps=CONFIG.layer_norm_eps,
    )  # fmt: skip
    state = {f"self_attn.{name}": tensor for name, tensor in torchs_attention(block.attention).items()}
    parts = {
        "norm1": block.attention_norm,
        "linear1": block.feed_forward.intermediate,
        "linear2": block.feed_forward.output,
        "norm2": block.feed_forward_norm,
    }
    state |= {f"{theirs}.{kind}": getattr(ours, kind) for theirs, ours in parts.items() for kind in ("weight", "bias")}
    theirs.load_state_dict(state, strict=True)
    return theirs.eval()


def block_drops_what_each_part_adds(
    candidate: Layer, config: ModelConfig = CONFIG, *, norm_first: bool = False
) -> None:
    """Both parts' outputs are dropped before they are added, at the rate of hidden vectors; what went in is not.

    One part is silenced, and the other one made to add to half of the numbers only. The other half then tells what a
    norm has done, so that it can be undone, and what was added is seen, however it was computed.
    """
    config = replace(config, attention_probs_dropout_prob=0.0)
    half, p = config.hidden_size // 2, config.hidden_dropout_prob
    hidden = noise(1, 7, config.hidden_size)
    for speaking, silent in (("attention", "feed_forward"), ("feed_forward", "attention")):
        block = scatter(candidate(config))
        with torch.no_grad():
            for norm in (block.attention_norm, block.feed_forward_norm):
                norm.weight.fill_(1.0)
                norm.bias.fill_(0.0)
            outputs = {name: getattr(block, name).output for name in (speaking, silent)}
            for parameter in outputs[silent].parameters():
                parameter.zero_()
            outputs[speaking].bias.add_(3.0)
            for parameter in outputs[speaking].parameters():
                parameter[:half] = 0.0
            going_in = hidden if speaking == "attention" or norm_first else block.attention_norm(hidden)
            normed = getattr(block, f"{speaking}_norm")(going_in) if norm_first else going_in
            whole = getattr(block, speaking)(normed)
            torch.manual_seed(0)
            out = block.train()(hidden.expand(200, 7, -1))
        added = undone(out, going_in.expand_as(out), half) - going_in
        # The sums have been rounded, so that a dropped element's difference is not 0 to the last digit.
        got = added.where(added.abs() > 1e-3, torch.zeros(()))[..., half:]
        dropped(got, whole.expand_as(out)[..., half:], p, f"dropout of {speaking}.output, before it is added")


def undone(out: Tensor, known: Tensor, half: int) -> Tensor:
    """`out` with what norms have done taken back: the shift and the scale that make its first half `known`'s."""
    ours, theirs = out[..., :half], known[..., :half]
    centred, wanted = (x - x.mean(dim=-1, keepdim=True) for x in (ours, theirs))
    scale = (centred * wanted).sum(dim=-1, keepdim=True) / centred.square().sum(dim=-1, keepdim=True)
    return (out - ours.mean(dim=-1, keepdim=True)) * scale + theirs.mean(dim=-1, keepdim=True)


def block_has_its_attentions_weights(
    candidate: Layer, config: ModelConfig = CONFIG, *, norm_first: bool = False
) -> None:
    """`attention_weights` is the attention's own, of what goes into it: the norm of `hidden`, if that comes first."""
    block, hidden = scatter(candidate(config)), some_vectors(config)
    going_in = normalised(block.attention_norm, hidden) if norm_first else hidden
    expected, _ = attended(block.attention, going_in, MASK, config)
    same(block.attention_weights(hidden, MASK), expected, "the weights that the block's attention uses")


BLOCK: tuple[Oracle, ...] = (block_is_torchs, block_drops_what_each_part_adds, block_has_its_attentions_weights)


# ------------------------------------------------------------------------------------------------------------- BERT


def bert_is_torchs_layers_over_the_embeddings(candidate: Layer) -> None:
    """Embeddings by the formula, then torch's own layers with the same weights: values, and the tables' gradients."""
    bert, ids = scatter(candidate(CONFIG)), some_words().masked_fill(~MASK, CONFIG.pad_token_id)
    for given in (None, some_segments()):
        expected = normalised(bert.embeddings.norm, summed(bert.embeddings, ids, given))
        for block in bert.layers:
            expected = torchs_layer(block, norm_first=False)(expected, src_key_padding_mask=~MASK)
        what = "embeddings and nn.TransformerEncoderLayers"
        agree(bert(ids, MASK, given)[MASK], expected[MASK], what, bert.embeddings)


def bert_sees_no_padding(candidate: Layer, config: ModelConfig = CONFIG) -> None:
    """Neither ids in padding nor padding that is appended changes a real token's vector."""
    bert, ids = scatter(candidate(config)), some_ids()
    other = torch.where(MASK, ids, some_ids(1))
    same(bert(other, MASK)[MASK], bert(ids, MASK)[MASK], "padding to be seen by no one", rtol=0, atol=0)
    longer = torch.cat([ids, some_ids(2)], dim=1)
    mask = torch.cat([MASK, torch.zeros_like(MASK)], dim=1)
    same(bert(longer, mask)[:, :7][MASK], bert(ids, MASK)[MASK], "appended padding to change nothing")


def bert_follows_its_batch(candidate: Layer, config: ModelConfig = CONFIG) -> None:
    """Permuting the sequences of a batch permutes the outputs; none depends on another."""
    bert, ids, order = scatter(candidate(config)), some_ids(), torch.tensor([3, 0, 2, 1])
    same(bert(ids[order], MASK[order]), bert(ids, MASK)[order], "the outputs in the order of the sequences")
    same(bert(ids[2:3], MASK[2:3])[0], bert(ids, MASK)[2], "a sequence's outputs not to depend on its batch")


def bert_knows_the_order_of_words(candidate: Layer, config: ModelConfig = CONFIG) -> None:
    """Without positions a transformer would give permuted vectors for permuted words."""
    bert, ids = scatter(candidate(config)), torch.tensor([[5, 7, 8]])
    assert not torch.allclose(bert(ids)[0, 0], bert(ids.flip(1))[0, 2], atol=1e-3), "expected positions to matter"


def bert_has_the_maps_of_its_blocks(candidate: Layer, config: ModelConfig = CONFIG) -> None:
    """(L, B, H, T, T): each block's weights by the formula, of what this block's attention is really given."""
    bert, ids = scatter(candidate(config)), some_ids()
    given: list[Tensor] = []
    for block in bert.layers:
        block.attention.query.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    bert(ids, MASK)
    expected = torch.stack(
        [attended(block.attention, hidden, MASK, config)[0] for block, hidden in zip(bert.layers, given, strict=True)]
    )
    same(bert.attention_maps(ids, MASK), expected, "each block's own attention weights")
    same(bert.attention_maps(ids[:1]), expected[:, :1], "the same without a mask, where nothing is padding")


def bert_has_the_sizes_of_its_configuration(candidate: Layer) -> None:
    """Every field reaches its layer."""
    bert, C = candidate(CONFIG), CONFIG
    assert len(bert.layers) == C.num_hidden_layers
    assert bert.embeddings.word_embeddings.weight.shape == (C.vocab_size, C.hidden_size)
    assert bert.embeddings.word_embeddings.padding_idx == C.pad_token_id
    assert bert.embeddings.position_embeddings.weight.shape == (C.max_position_embeddings, C.hidden_size)
    assert bert.embeddings.token_type_embeddings.weight.shape == (C.type_vocab_size, C.hidden_size)
    assert {module.p for module in bert.modules() if isinstance(module, nn.Dropout)} == {C.hidden_dropout_prob}
    assert {module.eps for module in bert.modules() if isinstance(module, nn.LayerNorm)} == {C.layer_norm_eps}
    for block in bert.layers:
        assert block.feed_forward.intermediate.weight.shape == (C.intermediate_size, C.hidden_size)
    per_block = 4 * (24 * 24 + 24) + (24 * 40 + 40) + (40 * 24 + 24) + 4 * 24
    assert sum(p.numel() for p in bert.parameters()) == (61 + 19 + 5 + 2) * 24 + 2 * per_block


BERT: tuple[Oracle, ...] = (
    bert_is_torchs_layers_over_the_embeddings,
    bert_sees_no_padding,
    bert_follows_its_batch,
    bert_knows_the_order_of_words,
    bert_has_the_maps_of_its_blocks,
    bert_has_the_sizes_of_its_configuration,
)


# --------------------------------------------------------------------------------------------------- initialisation


def starts_as_bert_does(candidate: Layer, config: ModelConfig = CONFIG) -> None:
    """Matrices and tables are normal(0, initializer_range), biases 0, norms 1, the row of padding 0."""
    for std in (0.02, 0.3):
        torch.manual_seed(0)
        module = candidate(type(config)(**{**vars(config), "initializer_range": std}))
        for name, parameter in module.named_parameters():
            if "norm" in name and name.endswith("weight"):
                assert (parameter == 1).all(), f"expected ones: {name}"
            elif name.endswith("bias"):
                assert (parameter == 0).all(), f"expected zeros: {name}"
            else:
                values = parameter.detach()
                if name.endswith("word_embeddings.weight"):
                    assert (values[config.pad_token_id] == 0).all(), "expected zeros: the row of padding"
                    values = torch.cat([values[: config.pad_token_id], values[config.pad_token_id + 1 :]])
                count = values.numel()
                assert abs(values.mean()) < 5 * std / math.sqrt(count), f"expected a mean of 0: {name}"
                deviation = float(values.std())
                assert abs(deviation / std - 1) < 5 / math.sqrt(2 * count), f"expected {std}, not {deviation}: {name}"
                outside = (values.abs() > 2 * std).float().mean()
                assert 0 < outside < 0.1, f"expected a normal distribution: {name}"


# -------------------------------------------------------------------------------------------------------- MLM head


def scores(head: Any, hidden: Tensor, table: Tensor) -> Tensor:
    """The head's formula."""
    return normalised(head.norm, gelu(linear(head.dense, hidden))) @ table.T + head.bias


def mlm_head_is_the_formula(candidate: Layer) -> None:
    """norm(GELU(x W + b)), times the table that is handed in, plus a bias for each word."""
    head, hidden = scatter(candidate(CONFIG)), some_vectors().requires_grad_()
    table = noise(CONFIG.vocab_size, CONFIG.hidden_size, seed=1).requires_grad_()
    what = "norm(GELU(x W + b)) E^T + a bias for each word"
    agree(head(hidden, table), scores(head, hidden, table), what, head, input=hidden, table=table)


def masked_lm_scores_by_its_own_table(candidate: Layer) -> None:
    """The logits are the head's formula over the encoder's vectors, with the encoder's word embeddings as matrix."""
    model, ids, segments = scatter(candidate(CONFIG)), some_ids(), some_segments()
    expected = scores(model.head, model.bert(ids, MASK, segments), model.bert.embeddings.word_embeddings.weight)
    what = "the head's scores of the encoder's vectors, by one table at both ends"
    agree(model(ids, MASK, segments)[MASK], expected[MASK], what, model)
    names = [name for name, _ in model.named_parameters()]
    assert not [name for name in names if "decoder" in name], "expected the word embeddings as decoder"
    sizes = [tensor.numel() for tensor in model.state_dict().values()]
    assert sizes.count(CONFIG.vocab_size * CONFIG.hidden_size) == 1, "expected one matrix of V x D"


def masked_lm_loss_is_the_mean_over_the_masked(candidate: Layer) -> None:
    """-log softmax at the label, averaged over those positions whose label is not -100; padding stays unseen."""
    model, ids = scatter(candidate(CONFIG)), some_ids()
    asked = {(0, 0): 7, (0, 5): 8, (1, 0): 9, (2, 5): 60, (3, 4): 0}
    labels = torch.full(MASK.shape, IGNORED)
    for place, label in asked.items():
        labels[place] = label
    for mask in (MASK, None):
        logits = model(ids, mask)
        odds = [-(logits[place][label] - logits[place].exp().sum().log()) for place, label in asked.items()]
        what = "the mean of -log p(label) over the masked positions"
        agree(model.loss(ids, mask, labels), torch.stack(odds).mean(), what, model)


MASKED_LM: tuple[Oracle, ...] = (masked_lm_scores_by_its_own_table, masked_lm_loss_is_the_mean_over_the_masked)


# --------------------------------------------------------------------------------------------------------- masking

VOCABULARY, MASK_ID = 1_000, 4
SPECIAL = torch.arange(VOCABULARY) < 5


def masking_chooses_at_its_rate(candidate: Any) -> None:
    """Of ordinary tokens `rate` are chosen, and of these 80 % hidden, 10 % replaced, 10 % kept."""
    ids = torch.randint(5, VOCABULARY, (2_000, 100), generator=generator(1))
    for rate in (0.15, 0.4):
        masked, labels = candidate(ids, SPECIAL, MASK_ID, generator(), rate)
        chosen = labels != IGNORED
        count = int(chosen.sum())
        within(count, ids.numel(), rate, "the share of chosen tokens")
        within(int((masked[chosen] == MASK_ID).sum()), count, 0.8, "the share of [MASK] among the chosen")
        # A random draw hits the token itself once in 995: that many more look kept than are.
        kept = int((masked[chosen] == ids[chosen]).sum())
        within(kept, count, 0.1 + 0.1 / (VOCABULARY - 5), "the share of kept tokens among the chosen")
    _, labels = candidate(ids, SPECIAL, MASK_ID, generator())
    within(int((labels != IGNORED).sum()), ids.numel(), 0.15, "the share of chosen tokens unless it is said")


def masking_draws_ordinary_tokens_uniformly(candidate: Any) -> None:
    """A random token is any ordinary one, none more often than others, and never a special one."""
    ids = torch.full((4_000, 100), 7)
    masked, labels = candidate(ids, SPECIAL, MASK_ID, generator(), 0.5)
    drawn = masked[(labels != IGNORED) & (masked != MASK_ID) & (masked != 7)]
    counts = torch.bincount(drawn, minlength=VOCABULARY)
    assert (counts[:5] == 0).all(), "expected no special token among the random ones"
    others = torch.cat([counts[5:7], counts[8:]]).double()
    assert (others > 0).all(), "expected every ordinary token among the random ones"
    expected, degrees = others.sum() / len(others), len(others) - 1
    chi_square = float(((others - expected) ** 2 / expected).sum())
    assert abs(chi_square - degrees) < 5 * math.sqrt(2 * degrees), "expected all ordinary tokens alike"


def masking_chooses_each_place_by_itself(candidate: Any) -> None:
    """All places alike, and two of them together as often as independence has it."""
    _, labels = candidate(torch.full((20_000, 10), 7), SPECIAL, MASK_ID, generator(), 0.15)
    chosen = labels != IGNORED
    for place in range(10):
        within(int(chosen[:, place].sum()), 20_000, 0.15, f"the share of chosen tokens at place {place}")
    within(int((chosen[:, 3] & chosen[:, 4]).sum()), 20_000, 0.15**2, "the share of rows with both places chosen")
    within(int((chosen[1:] & chosen[:-1]).sum()), 199_990, 0.15**2, "the share of places chosen in two rows together")


def masking_decides_each_fate_by_itself(candidate: Any) -> None:
    """Of chosen neighbours, beside or below one another, two are hidden, or get the same random token, by chance."""
    masked, labels = candidate(torch.full((4_000, 10), 7), SPECIAL, MASK_ID, generator(), 0.5)
    chosen, hidden = labels != IGNORED, masked == MASK_ID
    drawn = chosen & ~hidden & (masked != 7)
    for what, first, second in (("row", (slice(None), 3), (slice(None), 4)), ("column", slice(1, None), slice(-1))):
        both = chosen[first] & chosen[second]
        count = int((hidden[first] & hidden[second] & both).sum())
        within(count, int(both.sum()), 0.8**2, f"the share of chosen neighbours in a {what} that are both hidden")
        twice = (drawn[first] & drawn[second]).nonzero(as_tuple=True)
        equal = int((masked[first][twice] == masked[second][twice]).sum())
        assert equal <= 10, f"expected random tokens of neighbours in a {what} to be drawn one by one"


def masking_keeps_its_books(candidate: Any) -> None:
    """For batches of any shape: labels are the chosen tokens, -100 elsewhere; special ones are never chosen."""
    for seed in range(40):
        draws = generator(seed)
        rows, columns = (int(torch.randint(high, (), generator=draws)) for high in (6, 41))
        special = torch.rand(30, generator=draws) < torch.rand((), generator=draws)
        special[29] = False
        ids = torch.randint(30, (rows, columns), generator=draws)
        before, rate = ids.clone(), float(torch.rand((), generator=draws))
        masked, labels = candidate(ids, special, MASK_ID, generator(seed), rate)
        chosen = labels != IGNORED
        assert torch.equal(ids, before), "expected the ids that went in to be left alone"
        assert masked.shape == labels.shape == ids.shape
        assert torch.equal(labels[chosen], ids[chosen]), "expected the chosen tokens as labels"
        assert torch.equal(masked[~chosen], ids[~chosen]), "expected other tokens to be left alone"
        assert not special[ids[chosen]].any(), "expected no special token to be chosen"
        assert (~special[masked[chosen]] | (masked[chosen] == MASK_ID)).all(), "expected no special token in a place"


def masking_follows_its_generator(candidate: Any) -> None:
    """Equal seeds give equal masks, and others give others."""
    ids = torch.randint(VOCABULARY, (8, 30), generator=generator(1))
    first, again, other = (candidate(ids, SPECIAL, MASK_ID, generator(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), "expected the seed to decide"
    assert not torch.equal(first[1], other[1]), "expected another seed to decide otherwise"
    before, source = torch.get_rng_state(), generator(3)
    one, next_one = (candidate(ids, SPECIAL, MASK_ID, source)[1] for _ in range(2))
    assert not torch.equal(one, next_one), "expected the next masks of one generator to be others"
    assert torch.equal(before, torch.get_rng_state()), "expected torch's global generator to be left alone"


def masking_refuses_a_vocabulary_of_special_tokens(candidate: Any) -> None:
    """There is nothing to draw from."""
    everything = torch.ones(5, dtype=torch.bool)
    refuses(lambda: candidate(torch.zeros(1, 3, dtype=torch.long), everything, 4, generator()), "only special tokens")


MASKING: tuple[Oracle, ...] = (
    masking_chooses_at_its_rate,
    masking_draws_ordinary_tokens_uniformly,
    masking_chooses_each_place_by_itself,
    masking_decides_each_fate_by_itself,
    masking_keeps_its_books,
    masking_follows_its_generator,
    masking_refuses_a_vocabulary_of_special_tokens,
)


# --------------------------------------------------------------------------------------------------------- pooling

POOLED: dict[str, list[list[float]]] = {  # of the two sentences below
    "mean": [[2.0, -4.0], [4.0, -5.0], [-3.0, -1.0]],
    "max": [[3.0, -2.0], [7.0, -1.0], [-2.0, 1.0]],
    "cls": [[1.0, -2.0], [5.0, -5.0], [-4.0, -3.0]],
}
POOLS: Mapping[str, Callable[[Tensor], Tensor]] = {  # of a sentence's real tokens, (T, D)
    "mean": lambda rows: rows.sum(dim=0) / len(rows),
    "max": lambda rows: rows.amax(dim=0),
    "cls": lambda rows: rows[0],
}


def pooling_is_as_by_hand(candidate: Any, name: str) -> None:
    """Three sentences: padding at the end, none, and a hole; the padding's numbers are the largest of all."""
    hidden = torch.tensor(
        [
            [[1.0, -2.0], [3.0, -6.0], [100.0, 100.0]],
            [[5.0, -5.0], [7.0, -9.0], [0.0, -1.0]],
            [[-4.0, -3.0], [50.0, 50.0], [-2.0, 1.0]],
        ]
    )
    mask = torch.tensor([[True, True, False], [True, True, True], [True, False, True]])
    before = hidden.clone()
    same(candidate(hidden, mask), torch.tensor(POOLED[name]), f"{name} pooling over the real tokens")
    same(hidden, before, "the vectors that went in to be left alone")
    for dtype in (torch.float64, torch.bfloat16):
        assert candidate(hidden.to(dtype), mask).dtype == dtype, f"expected {dtype} to stay {dtype}"


def pooling_passes_gradients_to_real_tokens(candidate: Any, name: str) -> None:
    """By the formula of each sentence without its padding."""
    hidden, mask = noise(*MASK.shape, 5).requires_grad_(), MASK[[0, 1, 2, 1]]
    expected = torch.stack([POOLS[name](row[real]) for row, real in zip(hidden, mask, strict=True)])
    agree(candidate(hidden, mask), expected, f"{name} pooling over the real tokens", vectors=hidden)


def pooling_refuses_what_has_no_answer(candidate: Any, name: str) -> None:
    """A sentence without a token, and a mask of another shape, whatever the pooling's name."""
    empty = torch.tensor([[True, False, False], [False, False, False]])
    refuses(lambda: candidate(torch.ones(2, 3, 4), empty), "a sentence has no real token")
    for shape in ((3, 2), (1, 3)):
        mask = torch.ones(shape, dtype=torch.bool)
        refuses(partial(candidate, torch.ones(2, 3, 4), mask), "the mask has another shape than the tokens")


POOLING: tuple[Callable[..., None], ...] = (
    pooling_is_as_by_hand,
    pooling_passes_gradients_to_real_tokens,
    pooling_refuses_what_has_no_answer,
)


class Words(nn.Module):
    """Stands in for an encoder: a row of a table for each token, raised by how many real tokens the sentence has."""

    def __init__(self) -> None:
        super().__init__()
        self.config, self.table = CONFIG, nn.Embedding(CONFIG.vocab_size, CONFIG.hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) to (B, T, D)."""
        return self.table(input_ids) + attention_mask.sum(dim=1)[:, None, None]


def sentence_encoder_pools_what_it_projects(candidate: Any) -> None:
    """`candidate(bert, pooling, projection)`: each token's vector is projected, and then they are pooled."""
    ids, mask, W = some_ids(), MASK[[0, 1, 2, 1]], 11
    for pooling, pool in POOLS.items():
        for projection in (0, W):
            encoder = scatter(candidate(Words(), pooling, projection))
            assert encoder.size == (projection or CONFIG.hidden_size), "expected the size of what comes out"
            hidden = encoder.bert(ids, mask)
            if projection:
                hidden = linear(encoder.projection, hidden)
            expected = torch.stack([pool(row[real]) for row, real in zip(hidden, mask, strict=True)])
            what = f"{pooling} pooling of {'projected ' if projection else ''}vectors"
            agree(encoder(ids, mask), expected, what, encoder)
            same(encoder.pool(encoder.bert(ids, mask), mask), expected, what)
    assert candidate(Words()).pooling == "mean", "expected mean pooling unless it is said"
    assert candidate(Words()).size == CONFIG.hidden_size, "expected no projection unless it is said"


# -------------------------------------------------------------------------------------------------------- features


def features_are_u_v_and_their_distance(candidate: Any) -> None:
    """[u, v, |u - v|]."""
    u, v = torch.tensor([[1.0, -2.0], [0.5, 0.0]]), torch.tensor([[4.0, 3.0], [-1.0, 2.0]])
    expected = [[1.0, -2.0, 4.0, 3.0, 3.0, 5.0], [0.5, 0.0, -1.0, 2.0, 1.5, 2.0]]
    same(candidate(u, v), torch.tensor(expected), "[u, v, |u - v|]")


class Sentences(nn.Module):
    """Stands in for a sentence encoder: the mean of a table's rows, W numbers."""

    def __init__(self, size: int = 10) -> None:
        super().__init__()
        self.size, self.bert = size, SimpleNamespace(config=CONFIG)
        self.table = nn.Embedding(CONFIG.vocab_size, size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, T) to (B, W)."""
        return (self.table(input_ids) * attention_mask.unsqueeze(-1)).sum(1) / attention_mask.sum(1, keepdim=True)


def classifier_is_the_formula(candidate: Any) -> None:
    """W [u, v, |u - v|] + b, the first half of the rows being premises, the second their hypotheses."""
    ids, model = some_ids(), scatter(candidate(Sentences()))
    rows = [model.encoder(ids[row : row + 1], MASK[row : row + 1])[0] for row in range(4)]  # each by itself
    features = [torch.cat([u, v, (u - v).abs()]) for u, v in zip(rows[:2], rows[2:], strict=True)]
    expected = torch.stack([model.classifier.weight @ pair + model.classifier.bias for pair in features])
    agree(model(ids, MASK), expected, "the linear layer over [u, v, |u - v|]", model)
    assert model.classifier.weight.shape == (len(LABELS), 3 * 10)


def classifier_drops_features(candidate: Any) -> None:
    """In training, before the linear layer, and at its own rate."""
    features = noise(1_500, 21)
    for rate, model in ((0.3, candidate(Sentences(7), dropout=0.3)), (0.1, candidate(Sentences(7)))):  # 0.1 unless said
        drops_what_it_passes_on(model, partial(model.score, features), features[:, :2], rate)


@torch.no_grad()
def drops_what_it_passes_on(model: Any, logits: Callable[[], Tensor], features: Tensor, rate: float) -> None:
    """The classifier is made to give the first two features as logits, and the first once more."""
    model.classifier.weight.zero_()[[0, 1, 2], [0, 1, 0]] = 1.0
    model.classifier.bias.fill_(0.0)
    model.eval()
    same(logits(), features[:, [0, 1, 0]], "no dropout outside training")
    torch.manual_seed(0)
    model.train()
    got = logits()
    same(got[:, 2], got[:, 0], "features to be dropped, and not logits")
    dropped(got[:, :2], features, rate, "dropout of the features")


def classifier_drops_the_features_of_pairs(candidate: Any) -> None:
    """From ids to logits, too: here the first two features are numbers of u."""
    model = scatter(candidate(Sentences(7), dropout=0.3))
    ids = torch.randint(CONFIG.vocab_size, (2_000, 7), generator=generator())
    mask = torch.ones_like(ids, dtype=torch.bool)
    u = model.encoder(ids[:1_000], mask[:1_000]).detach()
    drops_what_it_passes_on(model, partial(model, ids, mask), u[:, :2], 0.3)


def classifier_starts_as_berts_layers_do(candidate: Any) -> None:
    """The linear layer is normal(0, initializer_range), its bias 0."""
    torch.manual_seed(0)
    layer = candidate(Sentences(500)).classifier.requires_grad_(False)
    assert abs(float(layer.weight.std()) / CONFIG.initializer_range - 1) < 0.06, "expected BERT's initialisation"
    assert (layer.bias == 0).all(), "expected biases of 0"


CLASSIFIER: tuple[Oracle, ...] = (
    classifier_is_the_formula,
    classifier_drops_features,
    classifier_drops_the_features_of_pairs,
    classifier_starts_as_berts_layers_do,
)


# ------------------------------------------------------------------------------------------------------ ModernBERT


def rotation_is_of_complex_numbers(candidate: Any) -> None:
    """z exp(i p theta^(-2j/K)) for each pair, each position; the first position stays."""
    for theta, K in ((50.0, 6), (10_000.0, 8)):
        heads = noise(2, 3, 5, K)
        expected = torch.stack(
            [torch.stack([turned(x, p, theta) for p, x in enumerate(h)]) for h in heads.flatten(0, 1)]
        )
        same(candidate(heads, theta), expected.view_as(heads), "pair j rotated by p theta^(-2j/K) at position p")
    half = heads.bfloat16()
    expected = candidate(half.float(), theta).bfloat16()
    same(candidate(half, theta), expected, "the precision of what came in", rtol=1e-2, atol=1e-2)


def rotated_products_depend_on_the_distance(candidate: Any) -> None:
    """The same two vectors at 20 positions: along each diagonal the products are equal, and lengths are kept."""
    query, key = noise(2, 8)
    at_every_place = torch.stack([query, key]).unsqueeze(1).expand(2, 20, 8)
    queries, keys = candidate(at_every_place, 10_000.0)
    products = queries @ keys.T  # (20, 20)
    for distance in range(-19, 20):
        diagonal = products.diagonal(distance)
        same(diagonal, diagonal[:1].expand_as(diagonal), f"one product for all pairs {distance} apart")
    assert products[0].std() > 0.01, "expected the distance to matter"
    same(queries.norm(dim=-1), query.norm().expand(20), "lengths to be kept")


ROTATION: tuple[Oracle, ...] = (rotation_is_of_complex_numbers, rotated_products_depend_on_the_distance)


def gated(layer: Any, hidden: Tensor) -> Tensor:
    """GeGLU(x) = (GELU(x W) * (x V)) W2, W and V being the halves of the first matrix."""
    both = linear(layer.intermediate, hidden)
    half = both.shape[-1] // 2
    return linear(layer.output, gelu(both[..., :half]) * both[..., half:])


def gated_feed_forward_is_the_formula(candidate: Layer) -> None:
    """GeGLU, in values and gradients."""
    layer, hidden = scatter(candidate(MODERN)), some_vectors(MODERN).requires_grad_()
    agree(layer.train()(hidden), gated(layer, hidden), "(GELU(x W) * (x V)) W2", layer, input=hidden)
    assert layer.intermediate.weight.shape == (2 * MODERN.intermediate_size, MODERN.hidden_size)


def modern_bert_is_the_formula(candidate: Layer, config: ModernBertConfig = MODERN) -> None:
    """x + A(norm(x)), x + F(norm(x)), norm: but the first attention, whose input the embeddings have normalised."""
    bert, ids = scatter(candidate(config)), some_words()
    for mask, real in MASKS:
        expected = normalised(bert.embeddings.norm, bert.embeddings.word_embeddings.weight[ids])
        for index, block in enumerate(bert.layers):
            going_in = normalised(block.attention_norm, expected) if index else expected
            expected = expected + attended(block.attention, going_in, mask, config)[1]
            expected = expected + gated(block.feed_forward, normalised(block.feed_forward_norm, expected))
        expected = normalised(bert.final_norm, expected)
        agree(bert(ids, mask)[real], expected[real], "pre-norm blocks and one more norm", bert, rtol=1e-4)


def modern_embeddings_are_the_normalised_row(candidate: Layer) -> None:
    """The word's vector alone: no places, no segments."""
    embeddings, ids, most = scatter(candidate(MODERN)), some_ids(), MODERN.max_position_embeddings
    names = [name for name, _ in embeddings.named_parameters()]
    assert names == ["word_embeddings.weight", "norm.weight", "norm.bias"], f"expected one table and a norm: {names}"
    same(embeddings(ids), normalised(embeddings.norm, embeddings.word_embeddings.weight[ids]), "the row, normalised")
    refuses(lambda: embeddings(ids, torch.zeros_like(ids)), "segments", "no segment embeddings")
    assert embeddings(torch.ones(1, most, dtype=torch.long)).shape == (1, most, MODERN.hidden_size)
    longer = torch.ones(1, most + 1, dtype=torch.long)
    refuses(lambda: embeddings(longer), "more tokens than positions", f"the model has {most} positions")


# ---------------------------------------------------------------------------------------------------------- losses


def summed_loss_is_the_formula(candidate: Any) -> None:
    """-log softmax at the label, summed; and how many labels have the highest logit."""
    logits = noise(5, 3).requires_grad_()
    labels = (logits.argmax(dim=-1) + torch.tensor([0, 0, 1, 0, 2])) % 3
    each = [row.exp().sum().log() - row[label] for row, label in zip(logits, labels, strict=True)]
    loss, correct = candidate(logits, labels)
    agree(loss, torch.stack(each).sum(), "-log p(label), summed", logits=logits)
    assert int(correct) == 3, f"expected 3 right answers of 5, not {int(correct)}"


def contrastive_loss_is_the_formula(candidate: Any) -> None:
    """Cross-entropy of the cosines over 0.05, both ways, summed over the positive pairs."""
    u, v = (noise(5, 8, seed=seed).double().requires_grad_() for seed in (0, 1))
    cosine = [[(u[i] @ v[j]) / (u[i].norm() * v[j].norm()) / 0.05 for j in range(5)] for i in range(5)]
    for pairs in ((0, 2), (4,), (0, 1, 2, 3, 4)):
        expected = torch.zeros((), dtype=torch.float64)
        for i in pairs:
            there = torch.stack([cosine[i][j].exp() for j in range(5)]).sum().log() - cosine[i][i]
            back = torch.stack([cosine[j][i].exp() for j in range(5)]).sum().log() - cosine[i][i]
            expected = expected + (there + back) / 2
        got = candidate(u, v, torch.tensor([i in pairs for i in range(5)]))
        agree(got, expected, "the mean of both directions, summed over positive pairs", u=u, v=v)


def contrastive_loss_is_as_by_hand(candidate: Any) -> None:
    """Two pairs at right angles: a vector has the cosine 1 with its other half, 0 with the other pair's."""
    u, v = torch.tensor([[2.0, 0.0], [0.0, 5.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.1]])
    both = torch.tensor([True, True])
    same(candidate(u, v, both), torch.tensor(2 * math.log1p(math.exp(-20))), "2 ln(1 + e^-20)", atol=1e-7)
    same(candidate(u, v.flip(0), both), torch.tensor(2 * math.log1p(math.exp(20))), "2 ln(1 + e^20)")


def contrastive_loss_of_no_pair_is_zero(candidate: Any) -> None:
    """A batch may have no positive pair, or no pair at all; a gradient there is, of zeros."""
    for pairs in (0, 1, 3):
        u, v = torch.randn(pairs, 4, requires_grad=True), torch.randn(pairs, 4)
        loss = candidate(u, v, torch.zeros(pairs, dtype=torch.bool))
        loss.backward()
        assert loss.item() == 0, "expected no loss without a positive pair"
        assert u.grad is not None, "expected a gradient all the same"
        assert (u.grad == 0).all(), "expected a gradient of zeros"


CONTRAST: tuple[Oracle, ...] = (
    contrastive_loss_is_the_formula,
    contrastive_loss_is_as_by_hand,
    contrastive_loss_of_no_pair_is_zero,
)


def mixtures_have_one_share_in_features_and_targets(candidate: Any) -> None:
    """Features that are one-hot of the example show who is in a mixture, and with which share."""
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    mixtures, targets = candidate(torch.eye(7, dtype=torch.float64), labels, 3, 1.0)
    same(mixtures.sum(dim=1), torch.ones(7, dtype=torch.float64), "shares that sum to 1")
    assert ((mixtures > 0).sum(dim=1) <= 2).all(), "expected two examples in a mixture"
    assert (mixtures >= 0).all(), "expected no negative share"
    assert (mixtures.diagonal() > 0).all(), "expected an example to be one of the two in its own mixture"
    same(targets, mixtures @ F.one_hot(labels, 3).double(), "the same shares in the targets")


def mixtures_have_each_example_as_partner_once(candidate: Any) -> None:
    """Partners are a random permutation."""
    torch.manual_seed(3)
    mixtures, _ = candidate(torch.eye(50, dtype=torch.float64), torch.zeros(50, dtype=torch.long), 3, 1.0)
    partners = mixtures.fill_diagonal_(0) > 0
    assert (partners.sum(dim=0) <= 1).all(), "expected each example to be a partner once"
    assert partners.sum() >= 45, "expected a permutation, which leaves one of 50 in its place on average"
    assert not torch.equal(partners, partners.roll((1, 1), dims=(0, 1))), "expected not all to be shifted alike"


def mixtures_shares_are_of_a_beta_distribution(candidate: Any) -> None:
    """Its mean is 1/2, its variance 1 / (4 (2 alpha + 1)), and no two examples share a draw."""
    features = torch.cat([torch.ones(20_000, 1), torch.zeros(20_000, 1)])
    for alpha in (0.1, 0.4, 1.0, 5.0):
        torch.manual_seed(0)
        mixtures, _ = candidate(features, torch.zeros(40_000, dtype=torch.long), 3, alpha)
        own = mixtures[:20_000, 0]
        shares = own[own < 1].double()  # the partner has a 0; about half of them
        assert len(shares) > 8_000, "expected a share for each example"
        assert abs(float(shares.mean()) - 0.5) < 0.02, "expected shares of 1/2 on average"
        expected = 1 / (4 * (2 * alpha + 1))
        assert abs(float(shares.var()) / expected - 1) < 0.06, f"expected a variance of {expected}"


def mixtures_pass_gradients_to_both(candidate: Any) -> None:
    """To each example as much as its shares; the targets are no function of the features."""
    features = noise(6, 4).requires_grad_()
    mixtures, targets = candidate(features, torch.arange(6) % 3, 3, 0.4)
    mixtures.sum().backward()
    assert features.grad is not None, "expected a gradient"
    same(features.grad.sum(), torch.tensor(24.0), "gradients whose shares sum to 1 for each mixture")
    assert not targets.requires_grad, "expected targets without gradients"
    one = noise(1, 4)
    mixtures, targets = candidate(one, torch.tensor([2]), 3, 0.4)
    same(mixtures, one, "a single example to be mixed with itself")
    same(targets, torch.tensor([[0.0, 0.0, 1.0]]), "a single example's own label")


MIXTURES: tuple[Oracle, ...] = (
    mixtures_have_one_share_in_features_and_targets,
    mixtures_have_each_example_as_partner_once,
    mixtures_shares_are_of_a_beta_distribution,
    mixtures_pass_gradients_to_both,
)


# -------------------------------------------------------------------------------------------------------- schedule


def schedule_is_as_by_hand(candidate: Any) -> None:
    """10 steps, 2 of them warm-up: up from 0 to 1, then down to 0 in eighths, or level."""
    factors = {
        "linear": [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0],
        "constant": [0, 0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    }
    for name, expected in factors.items():
        for ratio in (0.2, 0.29):  # int(10 * 0.29) is 2, too
            rate = candidate(name, 10, ratio)
            got = torch.tensor([float(rate(step)) for step in range(11)])
            same(got, torch.tensor(expected), f"the factors of steps 0 to 10 of 10, {name}, 2 of them warm-up")


def schedule_needs_no_warm_up(candidate: Any) -> None:
    """Then it begins at 1; and after the last step it is 0, never less."""
    linear, constant = (candidate(name, 4, 0.0) for name in ("linear", "constant"))
    got = torch.tensor([[float(rate(step)) for step in (0, 1, 2, 3, 4, 5, 9)] for rate in (linear, constant)])
    same(got, torch.tensor([[1, 0.75, 0.5, 0.25, 0, 0, 0], [1.0] * 7]), "the factors of steps 0 to 9 of 4")
    got = torch.tensor([float(candidate("linear", total, ratio)(0)) for total, ratio in ((1, 0.0), (1, 0.9), (3, 0.3))])
    same(got, torch.ones(3), "a warm-up of no step to be none")


def schedule_refuses_other_names(candidate: Any) -> None:
    """When it is asked for, and not at the first step."""
    refuses(lambda: candidate("cosine", 10, 0.0), "a schedule that there is not")


SCHEDULE: tuple[Oracle, ...] = (schedule_is_as_by_hand, schedule_needs_no_warm_up, schedule_refuses_other_names)


# --------------------------------------------------------------------------------------------------------- by name

# What holds of each part that an exercise asks for. `BertForMaskedLM` is given as a function of a configuration.
BY_PART: Mapping[str, tuple[Oracle, ...]] = {
    "Embeddings": EMBEDDINGS,
    "SelfAttention": ATTENTION,
    "FeedForward": FEED_FORWARD,
    "EncoderBlock": BLOCK,
    "mask_tokens": MASKING,
    "MLMHead": (mlm_head_is_the_formula, starts_as_bert_does),
    "BertForMaskedLM": MASKED_LM,
    "summed_loss": (summed_loss_is_the_formula,),
    "mean_pooling": tuple(partial(oracle, name="mean") for oracle in POOLING),
    "max_pooling": tuple(partial(oracle, name="max") for oracle in POOLING),
    "cls_pooling": tuple(partial(oracle, name="cls") for oracle in POOLING),
    "pair_features": (features_are_u_v_and_their_distance,),
    "NLIClassifier": CLASSIFIER,
    "schedule": SCHEDULE,
}
