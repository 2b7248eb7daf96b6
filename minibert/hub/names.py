"""The names of weights: ours on one side, BERT's or ModernBERT's on the other, and the way there and back.

Source: the layouts of `transformers.BertForPreTraining`, which in turn keeps that of Devlin et al. 2019's code, and of
`transformers.ModernBertForMaskedLM`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from minibert.config import ModelConfig
from minibert.errors import UserError
from minibert.hub.kinds import BERT, MODERNBERT, kind_of

# Each of their weights is one of ours, or several that lie in theirs on top of one another.
Names = dict[str, tuple[str, ...]]

# The modules of each kind: theirs, and ours. N is the number of a block.
ENCODERS: Mapping[str, Mapping[str, str]] = {
    BERT.model_type: {
        "embeddings.LayerNorm": "embeddings.norm",
        "encoder.layer.N.attention.self.query": "layers.N.attention.query",
        "encoder.layer.N.attention.self.key": "layers.N.attention.key",
        "encoder.layer.N.attention.self.value": "layers.N.attention.value",
        "encoder.layer.N.attention.output.dense": "layers.N.attention.output",
        "encoder.layer.N.attention.output.LayerNorm": "layers.N.attention_norm",
        "encoder.layer.N.intermediate.dense": "layers.N.feed_forward.intermediate",
        "encoder.layer.N.output.dense": "layers.N.feed_forward.output",
        "encoder.layer.N.output.LayerNorm": "layers.N.feed_forward_norm",
    },
    MODERNBERT.model_type: {
        "embeddings.norm": "embeddings.norm",
        "layers.N.attn.Wqkv": "layers.N.attention.query layers.N.attention.key layers.N.attention.value",
        "layers.N.attn.Wo": "layers.N.attention.output",
        "layers.N.attn_norm": "layers.N.attention_norm",
        "layers.N.mlp.Wi": "layers.N.feed_forward.intermediate",
        "layers.N.mlp.Wo": "layers.N.feed_forward.output",
        "layers.N.mlp_norm": "layers.N.feed_forward_norm",
        "final_norm": "final_norm",
    },
}
TABLES: Mapping[str, Mapping[str, str]] = {
    BERT.model_type: {
        f"embeddings.{name}_embeddings.weight": f"embeddings.{name}_embeddings.weight"
        for name in ("word", "position", "token_type")
    },
    MODERNBERT.model_type: {"embeddings.tok_embeddings.weight": "embeddings.word_embeddings.weight"},
}

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
}  # fmt: skip

# What a message calls weights that are left out, by how their names begin; the last that fits.
LEFT_OUT = {
    "cls.predictions.": "MLM head", "head.": "MLM head", "decoder.": "MLM head", "pooler.": "pooler",
    "cls.predictions.decoder.": "tied decoder", "decoder.weight": "tied decoder",
    "cls.seq_relationship.": "next-sentence head", "embeddings.position_ids": "position numbers",
}  # fmt: skip

# What a weight's name may begin with: the encoder within a model with heads or within a sentence-transformer (`0.`), or
# what training has put around a model. BERT's own blocks begin with `encoder.layer.`.
PREFIX = re.compile(r"^(bert\.|model\.|module\.|0\.|auto_model\.|encoder\.(?!layer\.))+")
WRAPPERS = (
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
)  # these are around parts of a model, too

# What TensorFlow called the scale and the shift of a norm, and old files still do.
OLD_SPELLING = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def encoder_names(config: ModelConfig) -> Names:
    """The weights of a `Bert`, without the prefix of its kind, which some files have and some have not."""
    kind = kind_of(config).model_type
    modules: dict[str, str] = {}
    for theirs, ours in ENCODERS[kind].items():
        if ".N." not in theirs:
            modules[theirs] = ours
            continue
        for layer in range(config.num_hidden_layers):
            modules[theirs.replace(".N.", f".{layer}.")] = ours.replace(".N.", f".{layer}.")
    modules.pop("layers.0.attn_norm", None)  # the first block's attention has none
    tables: Names = {theirs: (ours,) for theirs, ours in TABLES[kind].items()}
    return tables | _of_modules(modules, config)


def head_names(config: ModelConfig) -> Names:
    """The weights of an `MLMHead`, as parts of a `BertForMaskedLM`."""
    dense, norm, bias = HEADS[kind_of(config).model_type]
    return {**_of_modules({dense: "head.dense", norm: "head.norm"}, config), bias: ("head.bias",)}


def mlm_names(config: ModelConfig) -> Names:
    """The weights of a `BertForMaskedLM`: the encoder, which is its `bert`, and the head."""
    encoder: Names = {theirs: tuple(f"bert.{name}" for name in ours) for theirs, ours in encoder_names(config).items()}
    return encoder | head_names(config)


def _of_modules(modules: Mapping[str, str], config: ModelConfig) -> Names:
    """The names of modules' weights, and of their biases if they have them."""
    return {
        f"{theirs}.{part}": tuple(f"{name}.{part}" for name in ours.split())
        for theirs, ours in modules.items()
        for part in ("weight", "bias")
        if part == "weight" or getattr(config, "bias", True)
    }


def has_mlm_head(tensors: Mapping[str, Tensor], config: ModelConfig) -> bool:
    """Whether a file's weights, under whatever spelling, include those of the MLM head, or at least one of them."""
    return not canonical(tensors).keys().isdisjoint(head_names(config))


def export_weights(model: nn.Module, names: Names) -> dict[str, Tensor]:
    """A model's weights under their names.

    Raises:
        KeyError: `names` and the model do not have the very same weights.
    """
    state = model.state_dict()
    named = [name for ours in names.values() for name in ours]
    if sorted(named) != sorted(state):
        raise KeyError(f"no name for {sorted(state.keys() ^ set(named))}")
    return {
        theirs: torch.cat([state[name] for name in ours]).contiguous().cpu() if len(ours) > 1 else state[ours[0]].cpu()
        for theirs, ours in names.items()
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
    unused = sorted(tensors.keys() - names.keys())
    _check_needless(unused, tensors)
    state = model.state_dict()
    for theirs, ours in names.items():
        rows, *rest = state[ours[0]].shape
        _check(theirs, tensors[theirs], (rows * len(ours), *rest))
        for name, part in zip(ours, tensors[theirs].float().chunk(len(ours)), strict=True):
            state[name] = part.clone()
    model.load_state_dict(state, assign=True)
    return unused


def check_complete(tensors: Mapping[str, Tensor], names: Names) -> None:
    """Compare a file's names with those that are wanted, for which no model is needed.

    Raises:
        UserError: a weight is missing.
    """
    present = canonical(tensors).keys()
    missing = [name for name in names if name not in present]
    if missing:
        alike = next((name for name in tensors if name.endswith(f".{missing[0]}")), "")
        hint = f": the file has {alike!r:.80}, under a prefix that minibert does not know" if alike else ""
        raise UserError(f"{len(missing)} of {len(names)} weights are missing, {missing[0]} the first{hint}")


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


def left_out(names: Sequence[str]) -> str:
    """What was not used, in a phrase: of weights how many and of what, of anything else its name."""
    kinds = {name: kind for name in names for start, kind in LEFT_OUT.items() if name.startswith(start)}
    several = f"{len(kinds)} weight{'s' * (len(kinds) > 1)} ({', '.join(dict.fromkeys(kinds.values()))})"
    return ", ".join([several] * bool(kinds) + [name for name in names if name not in kinds])
