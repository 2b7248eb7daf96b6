"""What a layer does with some inputs, as named tensors: a wrong one does what a typical mistake does.

`minibert.exercises` compares a student's layer, the package's own and its mutants by these. Values are compared number
by number; what is drawn at random, by shares and sizes over many draws ("in training", "shares"), which no order of
drawing changes. Only real tokens are looked at, unless a name says otherwise.

Needs torch, `minibert.config` and `minibert.bert` alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from minibert.bert import Bert
from minibert.config import IGNORED
from tests.layers import oracles
from tests.layers.oracles import CONFIG, MASK, MASK_ID, generator, noise, some_ids, some_segments, some_vectors

Look = Callable[[SimpleNamespace], Any]  # from fresh copies of the inputs to a tensor
Looks = tuple[Mapping[str, Tensor], Mapping[str, Look]]

RANDOM = ("in training", "shares")  # at the end of the names of what is a statistic
BESIDE = ("at padding",)  # where a right layer may do as it likes: these tell mistakes apart, and right from wrong not

D = CONFIG.hidden_size
HOLES = MASK.flip(0)  # the first sentence has padding


@torch.no_grad()
def made(layer: Any) -> Any:
    """A layer with parameters that follow from their names, in evaluation mode."""
    for name, parameter in layer.named_parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator(zlib.crc32(name.encode()))) * 0.3)
    return layer.eval()


def slopes(out: Tensor, *inputs: Tensor) -> Tensor:
    """The gradients of a number made of `out`, all in a row."""
    weighed = (out * noise(*out.shape, seed=99)).sum()
    found = torch.autograd.grad(weighed, inputs, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


def tables(layer: nn.Module) -> list[Tensor]:
    """All parameters, in the order of their names."""
    return [parameter for _, parameter in sorted(layer.named_parameters())]


def spread(layer: nn.Module, call: Callable[[], Tensor]) -> Tensor:
    """Of what comes out in training, over many draws: the share of zeros, how much of the usual output, how large."""
    with torch.no_grad():
        whole = call()
        torch.manual_seed(0)
        layer.train()
        out = call()
        layer.eval()
    parts = (out == 0).float().mean(), (out * whole).mean() / whole.square().mean(), (out - whole).std() / whole.std()
    return torch.stack(parts)


def embeddings(its: Any) -> Looks:
    """Of `Embeddings`."""
    layer, types = made(its.Embeddings(CONFIG)), some_segments()
    ids = some_ids().masked_fill(~MASK, CONFIG.pad_token_id)
    many = ids.repeat(4, 1)  # as many sentences as there are positions, at most
    return {"ids": ids, "types": types}, {
        "ids and segments": lambda x: layer(x.ids, x.types),
        "ids alone": lambda x: layer(x.ids),
        "one token": lambda x: layer(x.ids[:1, :1], x.types[:1, :1]),
        "more tokens than positions": lambda _: layer(torch.ones(1, 20, dtype=torch.long)),
        "gradients": lambda x: slopes(layer(x.ids.clamp(min=7), x.types), *tables(layer)),
        "the same twice": lambda x: (layer(x.ids) == layer(x.ids)).all(),
        "in training": lambda _: spread(layer, lambda: layer(many)),
    }


def attention(its: Any) -> Looks:
    """Of `SelfAttention`."""
    layer, hidden = made(its.SelfAttention(CONFIG)), some_vectors()
    many, shown = hidden[:1].expand(200, 7, D), made(its.SelfAttention(CONFIG))
    with torch.no_grad():  # a layer whose output shows each weight twice, if there are four tokens
        shown.value.weight.copy_(torch.eye(4).repeat(6, 6))
        shown.output.weight.copy_(torch.eye(D))
        for bias in (shown.value.bias, shown.output.bias):
            bias.zero_()
    large = hidden * 1_000, (hidden * 1_000).masked_fill(~HOLES.unsqueeze(-1), 3_000.0)
    return {"hidden": hidden, "mask": HOLES}, {
        "weights": lambda x: layer.weights(x.hidden),
        "weights over padding and holes": lambda x: layer.weights(x.hidden, x.mask),
        "weights, in training": lambda _: spread(layer, lambda: layer.weights(many)),
        "output": lambda x: layer(x.hidden),
        "output over padding and holes": lambda x: layer(x.hidden, x.mask)[HOLES],
        "gradients": lambda x: slopes(layer(x.hidden, x.mask)[HOLES], *tables(layer)),
        "what padding changes if scores are large": lambda x: (layer(large[0], x.mask) - layer(large[1], x.mask))[
            x.mask
        ].nan_to_num(0.0),  # some softmaxes overflow
        "numbers at padding": lambda x: layer(x.hidden, x.mask).isfinite().all(),
        "output at padding": lambda x: layer(x.hidden, x.mask)[~HOLES],
        "the same twice": lambda x: (layer(x.hidden) == layer(x.hidden)).all(),
        "in training": lambda _: spread(layer, lambda: layer(many)),
        "what is dropped together, in training": lambda _: twins(shown.train()(torch.eye(4, D).expand(100, 4, D))),
    }


def twins(out: Tensor) -> Tensor:
    """(B, 4, D): the share of a head's numbers that are equal in both halves of it."""
    first, second = out.detach().unflatten(-1, (CONFIG.num_attention_heads, 2, 4)).unbind(-2)
    return (first - second).abs().lt(1e-4).float().mean()


def feed_forward(its: Any) -> Looks:
    """Of `FeedForward`."""
    layer, hidden = made(its.FeedForward(CONFIG)), some_vectors()
    return {"hidden": hidden}, {
        "output": lambda x: layer(x.hidden),
        "gradients": lambda x: slopes(layer(x.hidden), *tables(layer)),
        "in training": lambda _: spread(layer, lambda: layer(hidden.repeat(50, 1, 1))),
    }


def block(its: Any) -> Looks:
    """Of `EncoderBlock`."""
    layer, hidden = made(its.EncoderBlock(replace(CONFIG, attention_probs_dropout_prob=0.0))), some_vectors()
    quiet = made(its.EncoderBlock(replace(CONFIG, attention_probs_dropout_prob=0.0)))  # both parts add little
    with torch.no_grad():
        for parameter in (*quiet.attention.output.parameters(), *quiet.feed_forward.output.parameters()):
            parameter.mul_(0.2)
    many = [(hidden[:1] * scale).expand(200, 7, D) for scale in (0.1, 1, 10)]
    return {"hidden": hidden, "mask": MASK}, {
        "output": lambda x: layer(x.hidden),
        "output over padding and holes": lambda x: layer(x.hidden, x.mask)[MASK],
        "attention weights": lambda x: layer.attention_weights(x.hidden, x.mask),
        "gradients": lambda x: slopes(layer(x.hidden, x.mask)[MASK], *tables(layer)),
        "the same twice": lambda x: (layer(x.hidden) == layer(x.hidden)).all(),
        "in training": lambda _: torch.cat([spread(quiet, partial(quiet, hidden)) for hidden in many]),
    }


def masking(its: Any) -> Looks:
    """Of `mask_tokens`, on long rows, of which one in ten is special."""
    ids = torch.randint(5, oracles.VOCABULARY, (400, 100), generator=generator(1))
    ids[:, ::10] = torch.arange(10) % 5
    other = oracles.SPECIAL | (torch.arange(oracles.VOCABULARY) % 7 == 3)

    def shares(x: SimpleNamespace) -> Tensor:
        masked, labels = its.mask_tokens(x.ids, x.special, MASK_ID, generator(), 0.3)
        chosen, ordinary = labels != IGNORED, ~x.special[ids]
        hidden, kept = chosen & (masked == MASK_ID), chosen & (masked == ids)
        drawn = chosen & ~hidden & ~kept
        both = chosen[:, 1:-1] & chosen[:, 2:]  # two neighbours that are chosen: do they share their fate?
        below = chosen[1:] & chosen[:-1]
        counts = [
            chosen[ordinary], chosen[~ordinary], hidden[chosen], drawn[chosen], x.special[masked[drawn]],
            (hidden[:, 1:-1] & hidden[:, 2:])[both], (hidden[1:] & hidden[:-1])[below],
            (chosen[:, 1:] & chosen[:, :-1])[ordinary[:, 1:] & ordinary[:, :-1]],
            (chosen[1:] & chosen[:-1])[ordinary[1:]],
            masked[:, 1:][drawn[:, 1:] & drawn[:, :-1]] == masked[:, :-1][drawn[:, 1:] & drawn[:, :-1]],
            (labels == ids)[chosen], (labels == masked)[~chosen], labels[~chosen] == IGNORED, (masked == ids)[~chosen],
        ]  # fmt: skip
        return torch.stack([count.float().mean().nan_to_num(-1.0) for count in counts])

    def follows(x: SimpleNamespace) -> Tensor:
        source = generator(3)
        before = torch.get_rng_state()
        first, second = (torch.stack(its.mask_tokens(x.ids, x.special, MASK_ID, source)) for _ in range(2))
        again = torch.stack(its.mask_tokens(x.ids, x.special, MASK_ID, generator(3)))
        left = torch.equal(before, torch.get_rng_state())
        return torch.tensor([torch.equal(first, again), not torch.equal(first, second), left])

    return {"ids": ids, "special": other}, {
        "shares": shares,
        "the share that is chosen unless it is said, shares": lambda x: (
            (its.mask_tokens(x.ids, x.special, MASK_ID, generator())[1] != IGNORED).float().mean()
        ),
        "whether the generator decides": follows,
        "a vocabulary of special tokens": lambda x: its.mask_tokens(x.ids, x.special | True, MASK_ID, generator())[0],
    }


def head(its: Any) -> Looks:
    """Of `MLMHead`."""
    layer, hidden = made(its.MLMHead(CONFIG)), some_vectors()
    table = noise(CONFIG.vocab_size, D, seed=1).requires_grad_()
    return {"hidden": hidden}, {
        "logits": lambda x: layer(x.hidden, table),
        "gradient of the table": lambda x: slopes(layer(x.hidden, table), table),
        "gradients": lambda x: slopes(layer(x.hidden, table), *tables(layer)),
        "in training": lambda _: spread(layer, lambda: layer(hidden, table)),
    }


def masked_lm(its: Any) -> Looks:
    """Of `BertForMaskedLM`, over the package's own encoder."""
    layer, ids, types = made(its.BertForMaskedLM(Bert(CONFIG))), some_ids(), some_segments()
    labels = torch.full(ids.shape, IGNORED)
    labels[0, 0], labels[0, 5], labels[1, 0], labels[3, 4] = 7, 8, 9, 0
    return {"ids": ids, "mask": MASK, "types": types, "labels": labels}, {
        "logits": lambda x: layer(x.ids),
        "logits over padding and holes": lambda x: layer(x.ids, x.mask)[MASK],
        "logits with segments": lambda x: layer(x.ids, x.mask, x.types)[MASK],
        "loss": lambda x: layer.loss(x.ids, x.mask, x.labels),
        "loss without a mask": lambda x: layer.loss(x.ids, None, x.labels),
        "gradients of logits": lambda x: slopes(layer(x.ids, x.mask)[MASK], *tables(layer)),
        "gradients of the loss": lambda x: slopes(layer.loss(x.ids, x.mask, x.labels), *tables(layer)),
    }


def summed(its: Any) -> Looks:
    """Of `summed_loss`."""
    logits, labels = noise(40, 3) * 2, torch.randint(3, (40,), generator=generator(1))
    return {"logits": logits, "labels": labels}, {
        "the loss": lambda x: its.summed_loss(x.logits, x.labels)[0],
        "how many are right": lambda x: its.summed_loss(x.logits, x.labels)[1],
        "gradient": lambda x: slopes(its.summed_loss(x.logits.requires_grad_(), x.labels)[0], x.logits),
    }


def pooling(name: str) -> Callable[[Any], Looks]:
    """Of the poolings."""

    def looks(its: Any) -> Looks:
        pool, mask, width = getattr(its, name), MASK[[0, 1, 2, 1]], 5
        hidden = noise(4, 7, width).masked_fill(~mask.unsqueeze(-1), 3.0) - 1.5  # most real values are negative
        empty = mask & torch.tensor([True, True, False, True]).unsqueeze(1)
        return {"hidden": hidden, "mask": mask}, {
            "vectors": lambda x: pool(x.hidden, x.mask),
            "vectors of sentences without padding": lambda x: pool(x.hidden, x.mask | True),
            "gradient": lambda x: slopes(pool(x.hidden.requires_grad_(), x.mask), x.hidden),
            "a sentence without a token": lambda x: pool(x.hidden, empty),
            "a mask of another shape": lambda x: pool(x.hidden, x.mask[:2]),
            "a mask of another shape that can be stretched": lambda x: pool(x.hidden, x.mask[:1]),
            "whether bfloat16 stays bfloat16": lambda x: torch.tensor(
                pool(x.hidden.bfloat16(), x.mask).dtype == torch.bfloat16
            ),
        }

    return looks


def features(its: Any) -> Looks:
    """Of `pair_features`."""
    return {"u": noise(3, 5), "v": noise(3, 5, seed=1)}, {
        "features": lambda x: its.pair_features(x.u, x.v),
        "gradient": lambda x: slopes(its.pair_features(x.u.requires_grad_(), x.v.requires_grad_()), x.u, x.v),
    }


def classifier(its: Any) -> Looks:
    """Of `NLIClassifier`, over a stand-in for the encoder."""
    layer, ids, given = made(its.NLIClassifier(oracles.Sentences(), 0.3)), some_ids(), noise(300, 30)
    return {"ids": ids, "mask": MASK}, {
        "logits": lambda x: layer(x.ids, x.mask),
        "scores of features": lambda _: layer.score(given),
        "gradients": lambda x: slopes(layer(x.ids, x.mask), *tables(layer)),
        "the same twice": lambda x: (layer(x.ids, x.mask) == layer(x.ids, x.mask)).all(),
        "in training": lambda _: spread(
            layer, lambda: layer(ids[:2].repeat_interleave(500, 0), MASK[:1].expand(1000, 7))
        ),
        "score, in training": lambda _: spread(layer, lambda: layer.score(given)),
    }


def schedule(its: Any) -> Looks:
    """Of `schedule`: the whole curve, and one step beyond it."""

    def curve(*given: Any) -> Look:
        return lambda _: torch.tensor([float(its.schedule(*given)(step)) for step in range(given[1] + 2)])

    return {}, {
        "linear, 20 steps, 5 of them warm-up": curve("linear", 20, 0.29),
        "linear without warm-up": curve("linear", 8, 0.0),
        "linear, a single step": curve("linear", 1, 0.0),
        "constant, 20 steps, 5 of them warm-up": curve("constant", 20, 0.29),
        "constant without warm-up": curve("constant", 8, 0.0),
        "another name": curve("cosine", 8, 0.0),
    }


LOOKS: Mapping[str, Callable[[Any], Looks]] = {
    "Embeddings": embeddings, "SelfAttention": attention, "FeedForward": feed_forward, "EncoderBlock": block,
    "mask_tokens": masking, "MLMHead": head, "BertForMaskedLM": masked_lm, "summed_loss": summed,
    "mean_pooling": pooling("mean_pooling"), "max_pooling": pooling("max_pooling"),
    "cls_pooling": pooling("cls_pooling"), "pair_features": features, "NLIClassifier": classifier,
    "schedule": schedule,
}  # fmt: skip


class Damage(Exception):
    """An input, by name, was written to."""


def see(part: str, module: Any, say: Callable[[str], None] = lambda _: None) -> Iterator[tuple[str, Any]]:
    """All that can be seen of the part in a module, one look after another: a tensor, or the error instead of it."""
    inputs, looks = LOOKS[part](module)
    for name, look in looks.items():
        say(f"{part}: {name}")
        given = SimpleNamespace(**{key: value.clone() for key, value in inputs.items()})
        torch.default_generator.manual_seed(1234)  # another seed than those of generators
        try:
            seen = look(given)
            damaged = [key for key, value in vars(given).items() if value._version or not value.equal(inputs[key])]
            yield name, Damage(damaged[0]) if damaged else seen
        except Exception as error:
            yield name, error


def alike(name: str, one: Any, other: Any) -> bool:
    """Whether two layers show the same."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return type(one) is type(other) and isinstance(one, Exception)
    tolerance = (0.03, 0.015) if name.endswith(RANDOM) else (1e-4, 2e-5)
    same = one.shape == other.shape and one.dtype == other.dtype
    return same and torch.allclose(one.double(), other.double(), *tolerance, equal_nan=True)


def certain(name: str) -> bool:
    """Whether a right layer can only show what the package's own shows."""
    return not name.endswith((*RANDOM, *BESIDE))


def difference(got: Any, expected: Any) -> str:
    """The first one between two layers, in words."""
    if isinstance(got, Damage):
        return f"it writes to its input {got}, which is not its own: is there a +=, or a method with _ at its end?"
    if isinstance(expected, Exception):
        instead = "an answer" if isinstance(got, Tensor) else repr(got)
        return f"a {type(expected).__name__} was expected, and not {instead}"
    if not isinstance(got, Tensor):
        return f"a tensor was expected, not {got!r:.60}" + (": is there a `return`?" if got is None else "")
    if got.shape != expected.shape or got.dtype != expected.dtype:
        was, asked = (f"{tuple(each.shape)} of {str(each.dtype)[6:]}" for each in (got, expected))
        return f"{was} came out, and {asked} was expected"
    off = ~torch.isclose(got.double(), expected.double(), 1e-4, 2e-5, equal_nan=True)
    index = off.nonzero()[0].tolist()
    ours, theirs = (each[tuple(index)].item() for each in (got, expected))
    nan = "; NaN comes of 0 / 0 or of inf - inf" if got[tuple(index)].isnan() else ""
    where = f"at {index} " if index else ""
    return f"{where}{ours:.6g} came out, {theirs:.6g} was expected ({int(off.sum())} of {off.numel()} differ){nan}"
