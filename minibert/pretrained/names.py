"""The names of weights: ours on one side, BERT's or ModernBERT's on the other, and the way there and back.

Source: the layouts of `transformers.BertForPreTraining`, which in turn keeps that of Devlin et al. 2019's code, and of
`transformers.ModernBertForMaskedLM`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from minibert.config import ModelConfig
from minibert.errors import UserError
from minibert.model.encoder import Bert
from minibert.pretrained.kinds import BERT, MINIBERT, MODERNBERT, kind_of

# One of our weights is one of theirs, or three of BERT's: three lie in ours on top of one another.
Names = dict[str, tuple[str, ...]]

# Weights that a file may hold and no network here has a place for.
UNUSED = {
    "embeddings.position_ids": "0, 1, 2 ...: old versions of transformers saved them",
    "pooler.dense.weight": "the layer over [CLS] for next-sentence prediction",
    "pooler.dense.bias": "the same",
    "cls.seq_relationship.weight": "next-sentence prediction",
    "cls.seq_relationship.bias": "the same",
}

# Weights that repeat another one. They are left out if they do, and refused if they don't.
TIED = {
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "decoder.weight": "embeddings.tok_embeddings.weight",
}

# The MLM head of each kind: its dense layer, its norm, and the decoder's bias.
HEADS = {
    BERT.model_type: (
        "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias",
    ),
    MODERNBERT.model_type: ("head.dense", "head.norm", "decoder.bias"),
    MINIBERT.model_type: ("head.dense", "head.norm", "head.bias"),
}  # fmt: skip

# What a weight's name may begin with: the encoder within a model with heads, or what training has put around a model.
PREFIX = re.compile(r"^(bert\.|model\.|module\.)+")
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.")  # these are around parts of a model, too

# What TensorFlow called the scale and the shift of a norm, and old files still do.
OLD_SPELLING = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def encoder_names(config: ModelConfig) -> Names:
    """The weights of a `Bert`, without the prefix of its kind, which some files have and some have not."""
    names_of = {"bert": _bert_names, "modernbert": _modernbert_names, "minibert": _own_names}
    return names_of[kind_of(config).model_type](config)


def head_names(config: ModelConfig) -> Names:
    """The weights of an `MLMHead`, as parts of a `MaskedLanguageModel`."""
    dense, norm, bias = HEADS[kind_of(config).model_type]
    return {**_modules({"head.dense": (dense,), "head.norm": (norm,)}, config.bias), "head.bias": (bias,)}


def mlm_names(config: ModelConfig) -> Names:
    """The weights of a `MaskedLanguageModel`: the encoder, which is its `bert`, and the head."""
    return {f"bert.{ours}": theirs for ours, theirs in encoder_names(config).items()} | head_names(config)


def _bert_names(config: ModelConfig) -> Names:
    modules: Names = {"embeddings.norm": ("embeddings.LayerNorm",)}
    for index in range(config.num_hidden_layers):
        ours, theirs = f"blocks.{index}", f"encoder.layer.{index}"
        modules |= {
            f"{ours}.attention.qkv": tuple(f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")),
            f"{ours}.attention.output": (f"{theirs}.attention.output.dense",),
            f"{ours}.attention_norm": (f"{theirs}.attention.output.LayerNorm",),
            f"{ours}.feed_forward.up": (f"{theirs}.intermediate.dense",),
            f"{ours}.feed_forward.down": (f"{theirs}.output.dense",),
            f"{ours}.feed_forward_norm": (f"{theirs}.output.LayerNorm",),
        }
    return {
        "embeddings.token.weight": ("embeddings.word_embeddings.weight",),
        "embeddings.position.weight": ("embeddings.position_embeddings.weight",),
        "embeddings.segment.weight": ("embeddings.token_type_embeddings.weight",),
        **_modules(modules, bias=True),
    }


def _modernbert_names(config: ModelConfig) -> Names:
    modules: Names = {"embeddings.norm": ("embeddings.norm",), "final_norm": ("final_norm",)}
    for index in range(config.num_hidden_layers):
        ours, theirs = f"blocks.{index}", f"layers.{index}"
        modules |= {
            f"{ours}.attention.qkv": (f"{theirs}.attn.Wqkv",),
            f"{ours}.attention.output": (f"{theirs}.attn.Wo",),
            f"{ours}.attention_norm": (f"{theirs}.attn_norm",),
            f"{ours}.feed_forward.up": (f"{theirs}.mlp.Wi",),
            f"{ours}.feed_forward.down": (f"{theirs}.mlp.Wo",),
            f"{ours}.feed_forward_norm": (f"{theirs}.mlp_norm",),
        }
    del modules["blocks.0.attention_norm"]  # the first block's attention has none
    return {"embeddings.token.weight": ("embeddings.tok_embeddings.weight",), **_modules(modules, config.bias)}


def _modules(modules: Names, bias: bool) -> Names:
    """The names of modules' weights, and of their biases if they have them."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return {
        f"{ours}.{kind}": tuple(f"{name}.{kind}" for name in theirs)
        for ours, theirs in modules.items()
        for kind in kinds
    }


def _own_names(config: ModelConfig) -> Names:
    """As they are called here; all blocks but the first have the same ones."""
    with torch.device("meta"):
        model = Bert(replace(config, num_hidden_layers=2))
    others = list(model.blocks[1].state_dict())
    names = [name for name in model.state_dict() if not name.startswith("blocks.1.")]
    names += [f"blocks.{layer}.{name}" for layer in range(1, config.num_hidden_layers) for name in others]
    return {name: (name,) for name in names}


def has_mlm_head(tensors: Mapping[str, Tensor], config: ModelConfig) -> bool:
    """Whether a file's weights, under whatever spelling, include those of the MLM head, or at least one of them."""
    return not canonical(tensors).keys().isdisjoint(name for theirs in head_names(config).values() for name in theirs)


def export_weights(model: nn.Module, names: Names) -> dict[str, Tensor]:
    """A model's weights under their names.

    Raises:
        KeyError: `names` and the model do not have the very same weights.
    """
    state = model.state_dict()
    if state.keys() != names.keys():
        raise KeyError(f"no name for {sorted(state.keys() ^ names.keys())}")
    return {
        name: part.contiguous().cpu()
        for ours, theirs in names.items()
        for name, part in zip(theirs, state[ours].chunk(len(theirs)), strict=True)
    }


def import_weights(model: nn.Module, tensors: Mapping[str, Tensor], names: Names) -> list[str]:
    """Fill a model with weights under their names, whatever their spelling and precision.

    Returns:
        The names that were not used, all of them known to be needless for this model.
    Raises:
        UserError: a weight is missing, has another shape than the configuration says, is not a floating-point number,
            is not finite, or belongs to no network that minibert knows; or the decoder is not tied to the embeddings.
            The model is left as it was.

    The model's own tensors are replaced, not written to, so it may be one without numbers, on the device "meta".
    """
    check_complete(tensors, names)
    tensors = canonical(tensors)
    unused = sorted(tensors.keys() - {name for theirs in names.values() for name in theirs})
    _check_needless(unused, tensors)
    state = model.state_dict()
    for ours, theirs in names.items():
        rows, *rest = state[ours].shape
        for name in theirs:
            _check(name, tensors[name], (rows // len(theirs), *rest))
        state[ours] = torch.cat([tensors[name].float() for name in theirs])
    model.load_state_dict(state, assign=True)
    return unused


def check_complete(tensors: Mapping[str, Tensor], names: Names) -> None:
    """Compare a file's names with those that are wanted, for which no model is needed.

    Raises:
        UserError: a weight is missing.
    """
    present = canonical(tensors).keys()
    wanted = [name for theirs in names.values() for name in theirs]
    missing = [name for name in wanted if name not in present]
    if missing:
        raise UserError(f"{len(missing)} of {len(wanted)} weights are missing, {missing[0]} the first")


def canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's weights under today's names and without prefixes; of two tied ones, a file may have either.

    Raises:
        UserError: two of its names come to the same.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        modern = name
        for wrapper in WRAPPERS:
            modern = modern.replace(wrapper, "")
        modern = PREFIX.sub("", modern)
        for old, new in OLD_SPELLING.items():
            modern = modern.replace(old, new)
        if modern in result:
            raise UserError(f"the weight {modern} is there twice, under two spellings")
        result[modern] = tensor
    for name, original in TIED.items():
        if name in result and original not in result:
            result[original] = result.pop(name)
    return result


def _check_needless(unused: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that would be missed: without them, the network would not be the one that was saved."""
    heads = {
        name
        for dense, norm, bias in HEADS.values()
        for name in (f"{dense}.weight", f"{dense}.bias", f"{norm}.weight", f"{norm}.bias", bias)
    }
    strange = [name for name in unused if name not in UNUSED.keys() | TIED.keys() | heads]
    if strange:
        raise UserError(f"{len(strange)} weights belong to no network that minibert knows, {strange[0]} the first")
    for name in TIED.keys() & tensors.keys():
        if TIED[name] in tensors and not torch.equal(tensors[name], tensors[TIED[name]]):
            raise UserError(f"{name} differs from {TIED[name]}: minibert knows only tied decoders")


def _check(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise UserError(f"{name} is {tuple(tensor.shape)}, but by the configuration {shape}")
    if not tensor.is_floating_point():
        raise UserError(f"{name} holds {str(tensor.dtype).removeprefix('torch.')}, not floating-point numbers")
    if not tensor.float().isfinite().all():
        raise UserError(f"{name} holds numbers that are not finite")
