"""Proves that weights find their place under any spelling, and that a wrong set of them is an error that names one."""

import functools
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForPreTraining

from minibert.bert import Bert
from minibert.config import ModelConfig
from minibert.errors import UserError
from minibert.hub.names import encoder_names, export_weights, has_mlm_head, import_weights, left_out, mlm_names
from minibert.hub.settings import config_values
from minibert.modern import make_bert, make_masked_lm

Weights = dict[str, Tensor]


@pytest.fixture
def theirs(config: ModelConfig) -> Weights:
    """Every weight that a BERT can have: pooler, next-sentence prediction and a decoder saved beside the embeddings."""
    model = BertForPreTraining(BertConfig(**config_values(config, with_head=True)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return dict(model.state_dict())


def old(weights: Weights) -> Weights:
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in weights.items()
    }


def bare(weights: Weights) -> Weights:
    return {name.removeprefix("bert."): tensor for name, tensor in weights.items()}


def without_heads(weights: Weights) -> Weights:
    return {name: tensor for name, tensor in weights.items() if name.startswith("bert.") and "pooler" not in name}


def with_positions(weights: Weights) -> Weights:
    return {**weights, "bert.embeddings.position_ids": torch.arange(19).unsqueeze(0)}


def under(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: tensor for name, tensor in weights.items()}


def around_blocks(wrapper: str) -> Callable[[Weights], Weights]:
    return lambda weights: {re.sub(r"(layer\.\d+)", rf"\1.{wrapper}", name): tensor for name, tensor in weights.items()}


def half_under(prefix: str) -> Callable[[Weights], Weights]:
    """Every second weight: two files may have been merged."""
    return lambda weights: {prefix * (i % 2) + name: tensor for i, (name, tensor) in enumerate(weights.items())}


def compose(*steps: Callable[[Weights], Weights]) -> Callable[[Weights], Weights]:
    return lambda weights: functools.reduce(lambda result, step: step(result), steps, weights)


SPELLINGS: dict[str, Callable[[Weights], Weights]] = {
    "new": dict,
    "gamma and beta": old,
    "no prefix": bare,
    "no heads": without_heads,
    "position ids": with_positions,
    "old, bare, headless": compose(without_heads, bare, old),
    "compiled in module": under("module._orig_mod."),
    "module in compiled": under("_orig_mod.module."),
    "module in model": under("model.module."),
    "sentence-transformer": under("0.auto_model."),
    "sentence-transformer, bare": compose(bare, under("0.auto_model.")),
    "encoder, bare": compose(bare, under("encoder.")),
    "encoder in module, headless": compose(without_heads, bare, under("module.encoder.")),
    "module, bare": compose(bare, under("module.")),
    "old in module": compose(under("module."), old),
    "blocks compiled": around_blocks("_orig_mod"),
    "blocks checkpointed": around_blocks("_checkpoint_wrapped_module"),
    "half in module": half_under("module."),
    "half compiled": half_under("_orig_mod."),
    **{
        f"in {name}": under(f"{name}.")
        for name in (
            "module", "_orig_mod", "model", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "auto_model"
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_every_spelling_fills_encoder_and_head_with_the_same_weights(
    config: ModelConfig, theirs: Weights, spelling: Callable[[Weights], Weights]
) -> None:
    weights = spelling(theirs)
    encoder, head = Bert(config), any("predictions" in name for name in weights)
    unused = import_weights(encoder, weights, encoder_names(config))
    for name, tensor in export_weights(encoder, encoder_names(config)).items():
        assert torch.equal(tensor, theirs[f"bert.{name}"]), name
    assert len(unused) == len(weights) - len(without_heads(theirs))
    assert has_mlm_head(weights, config) == head
    if head:
        model = make_masked_lm(config)
        import_weights(model, weights, mlm_names(config))
        for name, tensor in export_weights(model, mlm_names(config)).items():
            assert torch.equal(tensor, theirs[name if name.startswith("cls.") else f"bert.{name}"]), name


@pytest.mark.parametrize("prefix", ["tower.", "student.bert.", "x.encoder."])
def test_a_prefix_that_nobody_knows_is_named(config: ModelConfig, theirs: Weights, prefix: str) -> None:
    with pytest.raises(UserError, match=rf"37 of 37 weights are missing, .* the file has '{prefix}bert\.embeddings"):
        import_weights(Bert(config), under(prefix)(theirs), encoder_names(config))


def test_either_of_two_tied_weights_is_enough(config: ModelConfig, theirs: Weights) -> None:
    """Writers that leave out what is shared keep the one or the other."""
    theirs["cls.predictions.decoder.weight"] = theirs["bert.embeddings.word_embeddings.weight"]
    theirs["cls.predictions.decoder.bias"] = theirs["cls.predictions.bias"]
    expected = make_masked_lm(config)
    import_weights(expected, theirs, mlm_names(config))
    for absent in (
        ("bert.embeddings.word_embeddings.weight",), ("cls.predictions.bias",), ("cls.predictions.decoder.bias",),
        ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"),
        ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"),
    ):  # fmt: skip
        weights = under("module.")({name: tensor for name, tensor in theirs.items() if name not in absent})
        model = make_masked_lm(config)
        assert has_mlm_head(weights, config)
        unused = import_weights(model, weights, mlm_names(config))
        assert all(
            torch.equal(ours, right) for ours, right in zip(model.parameters(), expected.parameters(), strict=True)
        )
        assert not set(absent) & set(unused)
        encoder = Bert(config)
        import_weights(encoder, weights, encoder_names(config))
        assert torch.equal(encoder.embeddings.word_embeddings.weight, expected.bert.embeddings.word_embeddings.weight)


def test_a_decoder_of_another_kind_of_network_is_not_taken_for_the_embeddings(
    config: ModelConfig, theirs: Weights
) -> None:
    theirs["decoder.weight"] = torch.zeros(61, 24)
    with pytest.raises(UserError, match=r"1 weights belong to no network .* embeddings\.tok_embeddings\.weight the"):
        import_weights(Bert(config), theirs, encoder_names(config))


def test_what_a_masked_language_model_leaves_out(config: ModelConfig, theirs: Weights) -> None:
    assert has_mlm_head({"cls.predictions.transform.LayerNorm.gamma": torch.zeros(1)}, config)
    assert import_weights(make_masked_lm(config), theirs, mlm_names(config)) == [
        "cls.predictions.decoder.bias", "cls.predictions.decoder.weight", "cls.seq_relationship.bias",
        "cls.seq_relationship.weight", "pooler.dense.bias", "pooler.dense.weight",
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(config: ModelConfig, theirs: Weights, dtype: torch.dtype) -> None:
    encoder = Bert(config)
    import_weights(encoder, {name: tensor.to(dtype) for name, tensor in theirs.items()}, encoder_names(config))
    expected = theirs["bert.embeddings.word_embeddings.weight"].to(dtype).float()
    assert encoder.embeddings.word_embeddings.weight.dtype == torch.float32
    assert torch.equal(encoder.embeddings.word_embeddings.weight, expected)


KEY = "bert.encoder.layer.1.attention.self.key.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({KEY: None}, r"1 of 37 weights are missing, encoder\.layer\.1\.attention\.self\.key\.bias the first"),
        ({KEY: torch.zeros(25)}, r"key\.bias is \(25,\), but by the configuration \(24,\)"),
        ({KEY: torch.zeros(24, 1)}, r"key\.bias is \(24, 1\)"),
        ({KEY: torch.zeros(())}, r"key\.bias is \(\)"),
        ({KEY: torch.zeros(24, dtype=torch.int8)}, "key.bias holds int8, not floating-point"),
        ({"bert.encoder.layer.2.output.dense.bias": torch.zeros(24)}, r"no network .* encoder\.layer\.2\.output"),
        ({"classifier.weight": torch.zeros(3, 24)}, r"1 weights belong to no network .* classifier\.weight the first"),
        ({"cls.predictions.decoder.weight": torch.zeros(61, 24)}, "minibert knows only tied decoders"),
        ({KEY.removeprefix("bert."): torch.zeros(24)}, "is there twice"),
        ({f"module.{KEY}": torch.zeros(24)}, "is there twice"),
        ({f"{KEY}._orig_mod.x": torch.zeros(24)}, "belong to no network"),
        ({f"other.{KEY}": torch.zeros(24)}, "belong to no network"),
    ],
)
def test_a_wrong_set_of_weights_is_refused_and_changes_nothing(
    config: ModelConfig, theirs: Weights, change: dict[str, Tensor | None], message: str
) -> None:
    encoder = Bert(config)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    weights = {name: tensor for name, tensor in (theirs | change).items() if tensor is not None}
    with pytest.raises(UserError, match=message):
        import_weights(encoder, weights, encoder_names(config))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_what_is_left_out_is_counted_and_called_by_what_it_is(theirs: Weights, config: ModelConfig) -> None:
    """The head's transform has 4 weights and a bias, the decoder 2 that repeat others; two layers have 2 each."""
    unused = import_weights(make_bert(config), theirs, encoder_names(config))
    assert left_out(unused) == "11 weights (MLM head, tied decoder, next-sentence head, pooler)"
    unused = import_weights(make_masked_lm(config), theirs, mlm_names(config))
    unused.append("directionality")
    assert left_out(unused) == "6 weights (tied decoder, next-sentence head, pooler), directionality"
    assert left_out(["pooler.dense.bias"]) == "1 weight (pooler)"
    assert left_out(["decoder.bias", "decoder.weight", "head.norm.weight"]) == "3 weights (MLM head, tied decoder)"
    assert left_out(["a", "b"]) == "a, b"
