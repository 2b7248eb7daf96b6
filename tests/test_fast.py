"""Proves that the fast path gives the textbook's values and gradients, and that it leaves others' layers alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minibert import fast, modern
from minibert.bert import Bert, BertForMaskedLM, Embeddings, EncoderBlock, MLMHead, SelfAttention
from minibert.config import IGNORED, ModelConfig
from minibert.data.batching import tokenise
from minibert.data.pairs import Pairs
from minibert.finetuning import NLITask
from minibert.modern import PreNormBlock, RotaryAttention, make_bert, make_masked_lm
from minibert.options import MLMOptions, NLIOptions
from minibert.pretraining import MLMTask
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer
from tests.conftest import TEXTS
from tests.layers import oracles
from tests.layers.oracles import CONFIG, MASK, MODERN, agree, noise, same, scatter, some_ids

RAGGED = torch.arange(7) < torch.tensor([7, 4, 1, 5]).unsqueeze(1)
SHORT = torch.arange(7).expand(4, 7) < 3  # all end before the rectangle does
MASKS = {"none": None, "ones": torch.ones_like(MASK), "ragged": RAGGED, "short": SHORT, "holes": MASK}

NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONFIGS = {"bert": CONFIG, "modernbert": MODERN, "modernbert without biases": replace(MODERN, bias=False)}


def some_positions(real: Tensor, which: str = "some") -> Tensor:
    """Of the flattened batch: all real ones; a third, in any order; the same, but none in the second row."""
    if which == "none in a row":
        real = real.index_fill(0, torch.tensor(1), False)
    places = real.flatten().nonzero().flatten()
    if which == "all":
        return places
    return places[torch.randperm(len(places), generator=oracles.generator())[: len(places) // 3 + 1]]


# ------------------------------------------------------------------------------------------ the same numbers


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("which", ["all", "some", "none in a row"])
def test_values_and_gradients_are_the_textbooks(config: ModelConfig, mask: Tensor | None, which: str) -> None:
    model = scatter(make_masked_lm(replace(config, **NO_DROPOUT))).train()
    encoder = scatter(SentenceEncoder(model.bert, "max", 11), seed=1).train()
    real = torch.ones_like(MASK) if mask is None else mask
    ids, positions = some_ids(), some_positions(real, which)
    labels = torch.full((ids.numel(),), IGNORED)
    labels[positions] = some_ids(1).flatten()[positions]
    # So that some answers are right: the first two labels are what the model says.
    textbook = model(ids, mask).flatten(0, 1)
    labels[positions[:2]] = textbook[positions[:2]].argmax(dim=-1)

    loss, correct = fast.mlm_loss(model, ids, mask, positions, labels[positions])
    assert correct == (textbook.argmax(dim=-1) == labels).sum() >= 1
    mean = model.loss(ids, mask, labels.view_as(ids))
    selected = model.bert(ids, mask).flatten(0, 1)[positions]
    for what, got, expected in (
        ("encode", fast.encode(model.bert, ids, mask)[real], model.bert(ids, mask)[real]),
        ("encode at positions", fast.encode(model.bert, ids, mask, positions), selected),
        ("mlm_loss", loss, mean * len(positions)),
        ("sentence_vectors", fast.sentence_vectors(encoder, ids, real), encoder(ids, real)),
    ):  # fmt: skip
        agree(got, expected, f"the textbook's {what}", nn.ModuleList([model, encoder]))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_dropout_stands_where_the_textbook_has_it(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a function in dropout's place that commutes with nothing and knows its rate, both still agree."""

    def instead(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return x + p * x.abs() if training else x

    def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout_p: float) -> Tensor:
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        scores = scores if attn_mask is None else scores.masked_fill(~attn_mask, -math.inf)
        return instead(scores.softmax(dim=-1), dropout_p) @ value

    monkeypatch.setattr(fast, "drop", instead)
    monkeypatch.setattr(F, "dropout", instead)
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    model = scatter(make_masked_lm(config))
    classifier = scatter(NLIClassifier(SentenceEncoder(model.bert, "mean", 11), dropout=0.3), seed=1)
    features, ids = noise(5, 33), some_ids()
    for training in (True, False):
        classifier.train(training)  # and the encoder in it
        for mask, real in oracles.MASKS:
            got, expected = fast.encode(model.bert, ids, mask)[real], model.bert(ids, mask)[real]
            agree(got, expected, "dropout in the same places", model.bert, rtol=1e-4)
        same(fast.score(classifier, features), classifier.score(features), "dropout of the features")
    trained = fast.encode(model.bert.train(), ids)
    assert not torch.allclose(trained, fast.encode(model.bert.eval(), ids), atol=1e-3)


def test_what_is_padding_is_neither_computed_nor_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = scatter(Bert(CONFIG))
    weights = [model.get_parameter(f"layers.{number}.feed_forward_norm.weight") for number in (0, 1)]
    sizes = {}

    def layer_norm(hidden: Tensor, shape: Any, weight: Tensor, *rest: Any) -> Tensor:  # no layer's: it would be run
        sizes[weight] = hidden.shape[:-1].numel()
        return plain(hidden, shape, weight, *rest)

    plain = F.layer_norm
    monkeypatch.setattr(F, "layer_norm", layer_norm)
    fast.encode(model, some_ids(), MASK, torch.tensor([0, 5, 7]))
    assert [sizes[weight] for weight in weights] == [int(MASK.sum()), 3]
    with pytest.raises(ValueError, match="padding"):
        fast.encode(model, some_ids(), MASK, torch.tensor([0, 12]))
    for call in (fast.encode, Bert.__call__):
        with pytest.raises(ValueError, match="20 tokens, but the model has 19 positions"):
            call(model, torch.ones(1, 20, dtype=torch.long))


# ------------------------------------------------------------------------------ the oracles of layers, run on its parts


class FastAttention(SelfAttention):
    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return fast.attention(self, hidden, attention_mask, None, None)


class FastRotaryAttention(RotaryAttention):
    forward = FastAttention.forward


class FastBlock(EncoderBlock):
    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return fast.block(self, hidden, attention_mask)


class FastPreNormBlock(PreNormBlock):
    forward = FastBlock.forward


@pytest.mark.parametrize("oracle", oracles.ATTENTION)
def test_its_attention_by_the_oracles(oracle: oracles.Oracle) -> None:
    oracle(FastAttention)


def test_its_other_parts_by_the_oracles() -> None:
    oracles.attention_is_the_formula(FastRotaryAttention, MODERN)
    oracles.attention_drops_weights_in_training_only(FastRotaryAttention, MODERN)
    oracles.block_is_torchs(FastBlock)
    oracles.block_drops_what_each_part_adds(FastBlock)
    oracles.block_is_torchs(FastPreNormBlock, norm_first=True)
    oracles.block_drops_what_each_part_adds(FastPreNormBlock, norm_first=True)


# ------------------------------------------------------------------------------------- layers of someone else's making


class Alibi(SelfAttention):
    """Press et al. 2022: the farther away, the less; and no positions are needed."""

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        query, key, value = self.heads(hidden)
        place = torch.arange(hidden.shape[1])
        bias = -0.5 * (place - place.unsqueeze(1)).abs().to(hidden.dtype)
        if attention_mask is not None:
            bias = bias.masked_fill(~attention_mask[:, None, None, :], -math.inf)
        return self.output(self.merge(F.scaled_dot_product_attention(query, key, value, attn_mask=bias)))


class Window(SelfAttention):
    def allowed(self, attention_mask: Tensor | None) -> Tensor | None:
        place = torch.arange(7)
        near = (place - place.unsqueeze(1)).abs() <= 1
        return near if attention_mask is None else near & (attention_mask[:, None, None, :] | torch.eye(7).bool())


class Scaled(SelfAttention):
    def heads(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = super().heads(hidden)
        return 3 * query, key, value


class Shifted(Embeddings):
    def sum(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        return super().sum(input_ids, token_type_ids).roll(1, dims=1)


class Louder(Embeddings):
    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        return 2 * super().forward(input_ids, token_type_ids)


class Neighbours(nn.Module):
    """A convolution over three tokens: no function of one token alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(config.hidden_size, config.hidden_size, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.convolution(hidden.transpose(1, 2)).transpose(1, 2)


class Parallel(EncoderBlock):
    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.attention_norm(hidden + self.attention(hidden, attention_mask) + self.feed_forward(hidden))


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Twice(Bert):
    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        return 2 * super().forward(*inputs, **named)


class Flat(MLMHead):
    def forward(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        return F.linear(hidden, word_embeddings, self.bias)


class Bare(MLMHead):
    def transform(self, hidden: Tensor) -> Tensor:
        return self.dense(hidden)


class Cold(BertForMaskedLM):
    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        return super().forward(*inputs, **named) / 2


def without_dropout(kind: type[BertForMaskedLM] = BertForMaskedLM) -> BertForMaskedLM:
    return kind(Bert(replace(CONFIG, **NO_DROPOUT)))


def with_part(path: str, make: Callable[[ModelConfig], nn.Module]) -> Callable[[BertForMaskedLM], None]:
    """Puts another module in the place of one of a model's."""

    def change(model: BertForMaskedLM) -> None:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, make(model.bert.config))

    return change


def with_hook(path: str) -> Callable[[BertForMaskedLM], None]:
    def change(model: BertForMaskedLM) -> None:
        model.get_submodule(path).register_forward_hook(lambda _, __, out: 3 * out)

    return change


def with_pre_hook(model: BertForMaskedLM) -> None:
    block = model.get_submodule("bert.layers.0")
    block.register_forward_pre_hook(lambda _, inputs: (inputs[0].roll(1, dims=1), *inputs[1:]))


def with_own(path: str, name: str) -> Callable[[BertForMaskedLM], None]:
    """One layer is given a function, instead of its class's, that triples what that one gives."""

    def change(model: BertForMaskedLM) -> None:
        layer = model.get_submodule(path)
        before = getattr(layer, name)
        setattr(layer, name, lambda *arguments: 3 * before(*arguments))

    return change


OTHERS: dict[str, Callable[[BertForMaskedLM], None]] = {
    "attention with distances": with_part("bert.layers.1.attention", Alibi),
    "attention in a window": with_part("bert.layers.0.attention", Window),
    "other heads": with_part("bert.layers.0.attention", Scaled),
    "a linear layer in attention": with_part("bert.layers.1.attention.key", lambda c: Doubled(24, 24)),
    "embeddings with another sum": with_part("bert.embeddings", Shifted),
    "embeddings with another forward": with_part("bert.embeddings", Louder),
    "a feed-forward layer of one's own": with_part("bert.layers.0.feed_forward", Neighbours),
    "a feed-forward layer of torch's": with_part(
        "bert.layers.0.feed_forward", lambda c: nn.Sequential(nn.Linear(24, 24), nn.Softmax(dim=1))
    ),
    "another block": with_part("bert.layers.1", Parallel),
    "a norm of torch's": with_part("bert.layers.1.attention_norm", lambda c: nn.Softmax(dim=1)),
    "no dropout": with_part("bert.layers.1.dropout", lambda c: nn.Identity()),
    "another encoder": with_part("bert", Twice),
    "another head": with_part("head", Flat),
    "a head with another transform": with_part("head", Bare),
    "a query without a bias": with_part("bert.layers.1.attention.query", lambda c: nn.Linear(24, 24, bias=False)),
    "a value without a bias": with_part("bert.layers.0.attention.value", lambda c: nn.Linear(24, 24, bias=False)),
    "a query that is no projection": with_part("bert.layers.0.attention.query", lambda c: nn.Identity()),
    "a head without a bias": lambda model: setattr(model.head, "bias", None),
    "no blocks": with_part("bert.layers", lambda c: nn.ModuleList()),
    "a hook on attention": with_hook("bert.layers.1.attention"),
    "a hook on a projection": with_hook("bert.layers.0.attention.query"),
    "a hook on the encoder": with_hook("bert"),
    "a hook on the head": with_hook("head"),
    "a hook before a block": with_pre_hook,
    "a forward of one layer": with_own("bert.layers.0.attention", "forward"),
    "a forward of the encoder": with_own("bert", "forward"),
    "another function of one layer": with_own("bert.layers.1.attention", "merge"),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_another_layer_is_run_as_it_is_written(change: Callable[[BertForMaskedLM], None]) -> None:
    """In training, without dropout but where a layer is another: everything is what the model itself says."""
    model = without_dropout()
    change(model)
    assert_run_as_written(model)


def tripled(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments: 3 * forward(*arguments)


def normalised_heads(layer: SelfAttention, hidden: Tensor) -> tuple[Tensor, ...]:
    projections = (layer.query, layer.key, layer.value)
    return tuple(F.normalize(layer.split(each(hidden)), dim=-1) for each in projections)


@pytest.mark.parametrize(
    ("kind", "name", "other"),
    [
        (SelfAttention, "forward", tripled(SelfAttention.forward)),
        (EncoderBlock, "forward", tripled(EncoderBlock.forward)),
        (SelfAttention, "forward", functools.wraps(SelfAttention.forward)(tripled(SelfAttention.forward))),
        (
            SelfAttention,
            "merge",
            functools.partialmethod(lambda layer, context: context.transpose(1, 2).flatten(2) * 2),
        ),
        (nn.Linear, "forward", lambda layer, x: 2 * F.linear(x, layer.weight, layer.bias)),
        (SelfAttention, "heads", normalised_heads),
        (SelfAttention, "allowed", lambda layer, attention_mask: torch.ones(7, 7, dtype=torch.bool).tril()),
    ],
)
def test_a_class_with_another_function_is_run_as_it_is_written(
    kind: type[nn.Module], name: str, other: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, name, other)
    assert_run_as_written(without_dropout())


def test_a_class_above_with_another_function_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ModernBERT's attention inherits `merge`."""
    monkeypatch.setattr(SelfAttention, "merge", lambda layer, context: context.transpose(1, 2).flatten(2).flip(-1))
    model, ids = scatter(make_bert(MODERN)), some_ids()
    same(fast.encode(model, ids, RAGGED)[RAGGED], model(ids, RAGGED)[RAGGED], "the encoder's own vectors")


def test_hooks_of_all_layers_are_called() -> None:
    def hook(layer: nn.Module, _: object, out: Tensor) -> Tensor | None:
        return 3 * out if isinstance(layer, SelfAttention) else None

    with nn.modules.module.register_module_forward_hook(hook):  # type: ignore[arg-type]
        assert_run_as_written(without_dropout())


def test_a_counter_of_operations_counts_what_is_run() -> None:
    """It sets hooks of all layers, which are torch's own: they do not make the work the textbook's."""
    model, ids, positions = scatter(make_masked_lm(CONFIG)).train(), some_ids(), torch.tensor([1, 2])
    with FlopCounterMode(display=False) as textbook:
        model(ids, RAGGED)
    with FlopCounterMode(display=False) as counter:
        fast.mlm_loss(model, ids, RAGGED, positions, ids.flatten()[positions])
    assert 0 < counter.get_total_flops() < textbook.get_total_flops()


def test_another_rotation_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modern, "rotate", lambda heads, theta: heads.cumsum(dim=-1))
    model = scatter(make_masked_lm(replace(MODERN, **NO_DROPOUT))).train()
    ids, positions = some_ids(), some_positions(RAGGED)
    expected = model.bert(ids, RAGGED).flatten(0, 1)[positions]
    same(fast.encode(model.bert, ids, RAGGED, positions), expected, "the encoder's own vectors")


KINDS = ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # embeddings' inputs have no gradient
@pytest.mark.parametrize("of_all", [False, True], ids=["of one layer", "of all layers"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_of_any_kind_alone_is_called(kind: str, of_all: bool) -> None:
    """On attention, which the fast path does not call."""
    model, seen = scatter(without_dropout()), list[nn.Module]()
    attention = model.get_submodule("bert.layers.0.attention")
    place: Any = nn.modules.module if of_all else attention
    register = getattr(place, f"register_{'module_' * of_all}{kind}")
    with register(lambda layer, *_: seen.append(layer)):
        positions = torch.tensor([1, 2])
        fast.mlm_loss(model, some_ids(), None, positions, some_ids(1).flatten()[positions])[0].backward()
    assert attention in seen


def test_a_hook_that_belongs_to_no_module_is_called() -> None:
    seen: list[Any] = []
    hook = eval("lambda layer, *_: seen.append(layer)", {"seen": seen, "__name__": None})
    with nn.modules.module.register_module_forward_hook(hook):
        fast.encode(scatter(Bert(CONFIG)), some_ids())
    assert seen


def test_another_model_is_run_as_it_is_written() -> None:
    assert_run_as_written(without_dropout(Cold))


def assert_run_as_written(model: BertForMaskedLM) -> None:
    """In training."""
    encoder, ids = scatter(SentenceEncoder(Bert(CONFIG), "max", 11)), some_ids()
    encoder.bert = scatter(model).train().bert
    for mask, real in oracles.MASKS:
        positions = some_positions(real)
        labels = some_ids(1).flatten()[positions]
        hidden, logits = model.bert(ids, mask), model(ids, mask).flatten(0, 1)[positions]
        same(fast.encode(model.bert, ids, mask)[real], hidden[real], "the encoder's own vectors")
        same(fast.encode(model.bert, ids, mask, positions), hidden.flatten(0, 1)[positions], "its own vectors")
        loss, correct = fast.mlm_loss(model, ids, mask, positions, labels)
        same(loss, F.cross_entropy(logits, labels, reduction="sum"), "the loss of the model's own logits")
        assert correct == (logits.argmax(dim=-1) == labels).sum()
        same(fast.sentence_vectors(encoder, ids, real), encoder(ids, real), "the encoder's own sentence vectors")


class FirstAndLast(SentenceEncoder):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.bert(input_ids, attention_mask)[:, [0, -1]].flatten(1)


class Weighted(SentenceEncoder):
    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        weights = attention_mask * torch.arange(1.0, 1 + hidden.shape[1])
        return (hidden * weights.unsqueeze(-1)).sum(dim=1) / weights.sum(dim=1, keepdim=True)


def test_another_sentence_encoder_is_run_as_it_is_written() -> None:
    bert, ids, mask = scatter(Bert(CONFIG)), some_ids(), RAGGED.clone()
    mask[:, -1] = True
    hooked = SentenceEncoder(bert)
    hooked.register_forward_hook(lambda _, __, out: 3 * out)
    plain = SentenceEncoder(bert)
    for encoder in (FirstAndLast(bert), Weighted(bert), hooked):
        expected = encoder(ids, mask)
        same(fast.sentence_vectors(encoder, ids, mask), expected, "the encoder's own vectors")
        assert expected.shape != (4, 24) or not torch.allclose(expected, plain(ids, mask), atol=1e-3)


def test_patched_classes_of_sentences_are_run_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, ids, features = scatter(SentenceEncoder(Bert(CONFIG))), some_ids(), noise(5, 72)
    classifier = scatter(NLIClassifier(encoder)).eval()
    forward, score = SentenceEncoder.forward, NLIClassifier.score
    monkeypatch.setattr(SentenceEncoder, "forward", lambda *given: F.normalize(forward(*given), dim=-1))
    monkeypatch.setattr(NLIClassifier, "score", lambda *given: 3 * score(*given))
    same(fast.sentence_vectors(encoder, ids, RAGGED), encoder(ids, RAGGED), "the encoder's own vectors")
    same(fast.score(classifier, features), classifier.score(features), "the classifier's own logits")


@pytest.mark.parametrize("mask", [RAGGED.float(), RAGGED.long(), RAGGED[:1], RAGGED.T], ids=str)
def test_a_mask_of_another_kind_is_an_error(mask: Tensor) -> None:
    """Torch's kernel would add a float one to the scores, and a row would do for all rows."""
    bert = scatter(Bert(CONFIG))
    with pytest.raises(ValueError, match="attention_mask has to be bool"):
        fast.encode(bert, some_ids(), mask)
    if mask.dtype != torch.bool:
        for call in (bert, bert.attention_maps):
            with pytest.raises(TypeError, match=r"attention_mask is torch\.(float32|int64), and has to be bool"):
                call(some_ids(), mask)


class Halving(nn.Module):
    """Has a rate, like torch's dropout, but does something else with it."""

    p = 0.9

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


class Squared(NLIClassifier):
    def score(self, features: Tensor) -> Tensor:
        return self.classifier(features.square())


def test_another_classifier_is_run_as_it_is_written() -> None:
    encoder, features = SentenceEncoder(Bert(CONFIG)), noise(5, 72)
    halving, without = NLIClassifier(encoder), NLIClassifier(encoder)
    halving.dropout = Halving()  # type: ignore[assignment]
    without.dropout = nn.Identity()  # type: ignore[assignment]
    deep = NLIClassifier(encoder, dropout=0.0)
    deep.classifier = nn.Sequential(nn.Linear(72, 5), nn.Tanh(), nn.Linear(5, 3))  # type: ignore[assignment]
    hooked, own, tripled = (NLIClassifier(encoder, dropout=0.0) for _ in range(3))
    hooked.dropout.register_forward_hook(lambda *_: features.square())
    own.score = lambda features: own.classifier(features.abs())  # type: ignore[method-assign]
    tripled.classifier.forward = lambda input: 3 * input[:, :3]  # type: ignore[method-assign]
    for classifier in (Squared(encoder), halving, without, deep, hooked, own, tripled):
        scatter(classifier).train()
        same(fast.score(classifier, features), classifier.score(features), "the classifier's own logits")


# --------------------------------------------------------------------------------------------------------- its dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_dropout_has_its_rate_and_keeps_the_mean(p: float) -> None:
    count = 1_000_000
    out = fast.drop(torch.ones(count), p)
    kept = out != 0
    rate = 1 - kept.float().mean().item()
    assert rate == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / count) + 2**-17)
    (scale,) = out[kept].unique().tolist()
    assert scale == pytest.approx(1 / (1 - p), rel=1e-3)
    assert scale * (1 - round(p * 2**16) / 2**16) == pytest.approx(1, abs=1e-6)  # means are kept exactly


def test_elements_are_dropped_independently_though_four_share_a_draw() -> None:
    """Each of the sixteen patterns of four neighbours is as frequent as independence wants it, and so across draws."""
    dropped = fast.drop(torch.ones(1_000_000), 0.5) == 0
    for offset in (0, 2):
        fours = dropped[offset : len(dropped) - 4 + offset].view(-1, 4)
        patterns = (fours * torch.tensor([8, 4, 2, 1])).sum(dim=1).bincount(minlength=16) / len(fours)
        assert (patterns - 1 / 16).abs().max() < 5 * math.sqrt(1 / 16 / len(fours))


def test_dropout_repeats_neither_rows_nor_calls_but_follows_torchs_seed() -> None:
    rows = fast.drop(torch.ones(64, 256), 0.5)
    assert len({tuple(row.tolist()) for row in rows}) == 64
    assert not torch.equal(fast.drop(torch.ones(64, 256), 0.5), rows)
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(fast.drop(torch.ones(999), 0.3))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (2, 3, 5), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_keeps_shape_and_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    out = fast.drop(torch.ones(shape, dtype=dtype), 0.2)
    assert out.shape == shape
    assert out.dtype == dtype


def test_dropout_passes_gradients_where_it_passed_values() -> None:
    x = torch.randn(50, 50, requires_grad=True)
    out = fast.drop(x, 0.4)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(out, x * x.grad)
    assert set((x.grad == 0).unique().tolist()) == {False, True}


def test_a_rate_just_below_one_is_no_division_by_zero() -> None:
    assert fast.drop(torch.ones(1_000), 0.999999).isfinite().all()
    few = fast.drop(torch.ones(4_000_000), 1 - 2**-16)  # 61 are to be expected
    assert few.unique().tolist() == [0, 2**16]
    assert 20 < (few > 0).sum() < 120
    assert not fast.drop(torch.ones(4_000_000), 1.0).any()


def test_dropout_acts_as_its_layer_does() -> None:
    layer, x = nn.Dropout(0.5), torch.randn(100)
    assert torch.equal(fast.dropout(x, layer.eval()), x)
    assert (fast.dropout(x, layer.train()) == 0).any()
    assert fast.dropout(x, nn.Dropout(0.0).train()) is x


def test_a_whole_step_drops_at_its_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings that are 1 in every number, through blocks that add nothing and norms that let pass."""
    model = Bert(replace(CONFIG, layer_norm_eps=1e-12)).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embeddings.norm.bias.fill_(1.0)
    seen: dict[nn.Module, Tensor] = {}
    norm, plain = model.get_submodule("layers.0.attention_norm"), nn.LayerNorm.forward

    def forward(layer: nn.LayerNorm, hidden: Tensor) -> Tensor:  # of the class, as above
        seen[layer] = hidden
        return hidden if layer is norm else plain(layer, hidden)

    monkeypatch.setattr(nn.LayerNorm, "forward", forward)
    for mask in (None, MASK):
        fast.encode(model, some_ids(), mask)
        values, p = seen[norm], CONFIG.hidden_dropout_prob
        torch.testing.assert_close(values, (values != 0) / (1 - p), rtol=1e-4, atol=0)
        oracles.within(int((values == 0).sum()), values.numel(), p, "the share of dropped numbers")


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_steps_is_attention_at_once_where_nothing_is_dropped(masked: bool) -> None:
    """A rate below half of 1/65,536 drops nothing, but takes the steps one by one."""
    query, key, value = noise(3, 2, 3, 5, 8)
    allowed = (torch.arange(5) < torch.tensor([3, 5]).unsqueeze(1))[:, None, None, :] if masked else None
    got, expected = (fast.attend(query, key, value, allowed, p) for p in (1e-6, 0.0))
    torch.testing.assert_close(got, expected)


def test_dropped_weights_of_attention_are_the_formulas() -> None:
    """What survives is softmax(Q K^T / sqrt(K)), element by element, divided by 1 - p; padding stays at zero."""
    query, key = noise(2, 2, 3, 5, 5)
    allowed = (torch.arange(5) < torch.tensor([3, 5]).unsqueeze(1))[:, None, None, :]
    weights = fast.attend(query, key, torch.eye(5).expand(2, 3, 5, 5), allowed, 0.5)  # V = I shows them
    scores = torch.einsum("bhqk,bhsk->bhqs", query, key) / math.sqrt(5)
    whole = scores.masked_fill(~allowed, -math.inf).softmax(dim=-1)
    kept = weights != 0
    torch.testing.assert_close(weights[kept], 2 * whole[kept], rtol=1e-3, atol=1e-5)
    assert 0.3 < kept[whole > 0].float().mean().item() < 0.7
    assert not kept[0, :, :, 3:].any()


# ------------------------------------------------------------------------------------------------------------- packing

FOUR = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 0, 1, 0]]).bool()  # a hole in the last row


def packing_of_four() -> fast.Packing:
    packing = fast.Packing.of(FOUR)
    assert packing is not None
    return packing


def test_packing_by_hand() -> None:
    packing = packing_of_four()
    assert packing.places.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 12, 14]
    x = torch.arange(32.0).view(4, 4, 2) + 1
    packed = packing.pack(x)
    assert packed.tolist() == [x[b, t].tolist() for b in range(4) for t in range(4) if FOUR[b, t]]
    assert torch.equal(packing.unpack(packed), x * FOUR.unsqueeze(-1))


def test_there_is_no_packing_where_there_is_nothing_to_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a mask, with which attention is slower."""
    masks: list[Tensor | None] = []
    attend = fast.attend
    monkeypatch.setattr(fast, "attend", lambda *inputs: masks.append(inputs[3]) or attend(*inputs))  # type: ignore[func-returns-value]
    fast.encode(scatter(Bert(CONFIG)), some_ids(), torch.ones_like(MASK))
    assert masks == [None, None]
    assert fast.Packing.of(None) is None
    assert fast.Packing.of(torch.ones(2, 3, dtype=torch.bool)) is None
    assert fast.Packing.of(FOUR.to("meta")) is None  # an accelerator is not asked


def test_packed_gradients_return_to_their_places() -> None:
    packing, x, weight = packing_of_four(), torch.randn(4, 4, 2, requires_grad=True), torch.randn(4, 4, 2)
    (packing.unpack(packing.pack(x)) * weight).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, weight * FOUR.unsqueeze(-1))


def test_packed_rows_by_hand() -> None:
    packing = packing_of_four()
    assert packing.rows(torch.tensor([14, 0, 5, 8, 5])).tolist() == [9, 0, 4, 7, 4]
    for padding in (3, 9, 15):  # between two rows of tokens, and behind the last
        with pytest.raises(ValueError, match="padding"):
            packing.rows(torch.tensor([0, padding]))


def test_the_numbers_at_padding_are_zeros() -> None:
    """They mean nothing, but are never NaN."""
    assert (fast.encode(scatter(Bert(CONFIG)), some_ids(), MASK)[~MASK] == 0).all()


# --------------------------------------------------------------------------------------------- the vocabulary in slices

SIZES = [1, 5, fast.COLUMNS - 1, fast.COLUMNS, fast.COLUMNS + 1, 3 * fast.COLUMNS + 17]


def vocabulary_inputs(size: int, rows: int = 7, scale: float = 1.0) -> tuple[list[Tensor], Tensor]:
    """hidden (M, 12), weight (V, 12) and bias (V,), in double precision; labels (M,)."""
    parameters = [torch.randn(shape) * scale for shape in ((rows, 12), (size, 12), (size,))]
    return [parameter.double().requires_grad_() for parameter in parameters], torch.randint(size, (rows,))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_loss_in_slices_has_value_gradients_and_count(size: int, scale: float) -> None:
    (hidden, weight, bias), labels = vocabulary_inputs(size, scale=scale)
    loss, correct = fast.vocabulary_loss(hidden, weight, bias, labels)
    logits = F.linear(hidden, weight, bias)
    expected = F.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(loss, expected)
    assert correct.item() == (logits.argmax(dim=-1) == labels).sum().item()
    ours = torch.autograd.grad(loss / 3, (hidden, weight, bias))
    for mine, theirs in zip(ours, torch.autograd.grad(expected / 3, (hidden, weight, bias)), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_loss_in_slices_has_torchs_numerical_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "COLUMNS", 4)
    parameters, labels = vocabulary_inputs(11)

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return fast.vocabulary_loss(hidden, weight, bias, labels)[0]

    assert torch.autograd.gradcheck(loss, parameters)


def test_every_label_counts_wherever_its_slice_is() -> None:
    """The label's logit made the highest, for the first and the last column of each slice."""
    size = 2 * fast.COLUMNS + 3
    for label in (0, fast.COLUMNS - 1, fast.COLUMNS, 2 * fast.COLUMNS - 1, 2 * fast.COLUMNS, size - 1):
        bias = torch.zeros(size)
        bias[label] = 50.0
        loss, correct = fast.vocabulary_loss(torch.zeros(1, 12), torch.zeros(size, 12), bias, torch.tensor([label]))
        assert correct.item() == 1
        assert loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [9, fast.COLUMNS + 3, 2 * fast.COLUMNS + 3])
def test_of_equal_logits_the_first_is_the_answer(size: int) -> None:
    """As `argmax` has it, where all are equal, and in bfloat16, where many are."""
    labels = torch.tensor([0, 1, 5, size - 1])
    for weight in (torch.zeros(size, 12), noise(size, 12).round(decimals=1)):
        hidden = noise(400, 12, seed=1).round(decimals=1)
        many = torch.where(torch.arange(400) % 2 == 0, F.linear(hidden, weight).argmax(dim=-1), labels.repeat(100))
        for autocast in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                expected = (F.linear(hidden, weight, torch.zeros(size)).argmax(dim=-1) == many).sum()
                assert fast.vocabulary_loss(hidden, weight, torch.zeros(size), many)[1] == expected


def test_large_logits_do_not_overflow() -> None:
    """1,000 in one slice and 0 in the others: exp(1000) is infinite, the loss is not."""
    bias = torch.zeros(3 * fast.COLUMNS)
    bias[fast.COLUMNS] = 1_000.0
    labels = torch.tensor([fast.COLUMNS, 0])
    loss, _ = fast.vocabulary_loss(torch.zeros(2, 12), torch.zeros(len(bias), 12), bias, labels)
    assert loss.item() == pytest.approx(1_000.0)


def test_nothing_masked_is_a_loss_of_nothing() -> None:
    (hidden, weight, bias), labels = vocabulary_inputs(9, rows=0)
    loss, correct = fast.vocabulary_loss(hidden, weight, bias, labels)
    assert (loss.item(), correct.item()) == (0, 0)
    loss.backward()
    assert weight.grad is not None
    assert (weight.grad == 0).all()


@pytest.mark.parametrize("size", SIZES[2:])
def test_under_autocast_products_are_in_bfloat16_and_sums_in_float32(size: int) -> None:
    """Against double precision: errors are those of rounding what is multiplied to 8 bits; gradients are float32."""
    (hidden, weight, bias), labels = vocabulary_inputs(size, rows=40)
    expected = F.cross_entropy(F.linear(hidden, weight, bias), labels, reduction="sum")
    theirs = torch.autograd.grad(expected, (hidden, weight, bias))
    rounded = hidden, weight, bias = [each.detach().float().requires_grad_() for each in (hidden, weight, bias)]
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = fast.vocabulary_loss(hidden, weight, bias, labels)
    assert loss.dtype == torch.float32
    assert abs(loss.item() / expected.item() - 1) < 2**-8
    assert abs(loss.item() / expected.item() - 1) > 1e-7, "the products are not rounded"
    for mine, its in zip(torch.autograd.grad(loss, rounded), theirs, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - its).norm() < 2**-6 * its.norm()


# ------------------------------------------------------------------------------------------------------------ training

PAIRS = Pairs(
    premises=["the cat sat", "the dog sat on the mat", "an animal is on the log", "cats", "dogs sleep", "the log"],
    hypotheses=["a cat", "an animal sat", "the mat is sleeping", "dogs and dogs and dogs", "no", "a mat"],
    labels=np.array([0, 1, 2, 2, 0, 1]),
)


def trained(task: MLMTask | NLITask) -> list[dict[str, float]]:
    """Three epochs with a high learning rate: each step's loss and what comes with it, then the held-out figures."""
    torch.manual_seed(0)  # the mixtures' shares
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-2)
    found = []
    for epoch in range(3):
        for batch in task.batches(epoch, 0):
            loss, extras = task.loss(batch)
            optimizer.zero_grad()
            (loss / batch.count).backward()
            optimizer.step()
            found.append({"loss": loss.item()} | {name: value.item() for name, value in extras.items()})
    with torch.no_grad():
        return [*found, dict(task.validate())]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_training_on_the_textbook_has_the_same_losses(
    config: ModelConfig, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both tasks, without dropout; and `--textbook` runs nothing of the fast path."""
    config = replace(config, **NO_DROPOUT, layer_norm_eps=1e-12, initializer_range=0.02)
    articles = tokenise(TEXTS[:10], tokenizer, 19)

    def mlm(textbook: bool) -> MLMTask:
        options = MLMOptions(batch_size=3, max_length=19, mask_rate=0.3, textbook=textbook)
        return MLMTask(make_masked_lm(config), articles, articles, tokenizer, options)

    def nli(textbook: bool, **more: Any) -> NLITask:
        options = NLIOptions(batch_size=2, max_length=8, textbook=textbook, **more)
        encoder = SentenceEncoder(make_bert(config), "max" if more else "mean", 11 if more else 0)
        return NLITask(NLIClassifier(encoder, 0.0), tokenizer, PAIRS, PAIRS, options)

    makers: list[Callable[[bool], MLMTask | NLITask]] = [mlm, nli, partial(nli, contrast=1.0, mixup=0.4)]
    for make in makers:
        first, second = make(False), make(True)
        second.model.load_state_dict(first.model.state_dict())
        expected = trained(first)
        with monkeypatch.context() as patch:
            for name in ("encode", "mlm_loss", "score", "sentence_vectors"):
                patch.delattr(fast, name)
            got = trained(second)
        assert len(got) > 9
        assert got[-2]["loss"] != pytest.approx(got[0]["loss"], rel=0.01)  # it has learned
        for ours, theirs in zip(got, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
