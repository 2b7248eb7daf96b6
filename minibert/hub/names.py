"""The names of weights: ours on one side, BERT's or ModernBERT's on the other, and the way there and back.

Source: the layouts of `transformers.BertForPreTraining`, which in turn keeps that of Devlin et al. 2019's code, and of
`transformers.ModernBertForMaskedLM`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from minibert.config import ModelConfig, ModernBertConfig
from minibert.errors import UserError

# From the name of a weight in a file to ours: one, or several that lie there one below the other (ModernBERT's Wqkv).
Names = dict[str, tuple[str, ...]]

# Ours, BERT's and ModernBERT's. `N` is the number of a block, `*` stands for weight and bias; `head.` is the MLM head.
TABLE = {
    "embeddings.word_embeddings.weight": ("embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight"),
    "embeddings.position_embeddings.weight": ("embeddings.position_embeddings.weight", None),
    "embeddings.token_type_embeddings.weight": ("embeddings.token_type_embeddings.weight", None),
    "embeddings.norm.*": ("embeddings.LayerNorm.*", "embeddings.norm.*"),
    "layers.N.attention.query.*": ("encoder.layer.N.attention.self.query.*", "layers.N.attn.Wqkv.*"),
    "layers.N.attention.key.*": ("encoder.layer.N.attention.self.key.*", "layers.N.attn.Wqkv.*"),
    "layers.N.attention.value.*": ("encoder.layer.N.attention.self.value.*", "layers.N.attn.Wqkv.*"),
    "layers.N.attention.output.*": ("encoder.layer.N.attention.output.dense.*", "layers.N.attn.Wo.*"),
    "layers.N.attention_norm.*": ("encoder.layer.N.attention.output.LayerNorm.*", "layers.N.attn_norm.*"),
    "layers.N.feed_forward.intermediate.*": ("encoder.layer.N.intermediate.dense.*", "layers.N.mlp.Wi.*"),
    "layers.N.feed_forward.output.*": ("encoder.layer.N.output.dense.*", "layers.N.mlp.Wo.*"),
    "layers.N.feed_forward_norm.*": ("encoder.layer.N.output.LayerNorm.*", "layers.N.mlp_norm.*"),
    "final_norm.*": (None, "final_norm.*"),
    "head.dense.*": ("cls.predictions.transform.dense.*", "head.dense.*"),
    "head.norm.*": ("cls.predictions.transform.LayerNorm.*", "head.norm.*"),
    "head.bias": ("cls.predictions.bias", "decoder.bias"),
}

# What the encoder's names begin with in a file that also has the head; in the order of the table's columns.
PREFIXES = {ModelConfig: "bert.", ModernBertConfig: "model."}

# Weights that a file may hold but no network here has a place for: next-sentence prediction, its layer over [CLS], and
# 0, 1, 2 ..., which old versions of transformers saved.
UNUSED = ("cls.seq_relationship.weight", "cls.seq_relationship.bias", "pooler.dense.weight", "pooler.dense.bias",
          "embeddings.position_ids")  # fmt: skip

# Weights that repeat another one. They are left out if they do, and refused if they don't.
TIED = {
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "decoder.weight": "embeddings.tok_embeddings.weight",
}

# What a message calls weights that are left out, by how their names begin; the last match counts.
LEFT_OUT = {
    "cls.predictions.": "MLM head", "head.": "MLM head", "decoder.": "MLM head", "pooler.": "pooler",
    "cls.predictions.decoder.": "tied decoder", "decoder.weight": "tied decoder",
    "cls.seq_relationship.": "next-sentence head", "embeddings.position_ids": "position numbers",
}  # fmt: skip

# What any weight's name may begin with: one of these, or what training or a sentence-transformer (`0.`) has put around
# a model. BERT's own blocks begin with `encoder.layer.`.
PREFIX = re.compile(r"^(bert\.|model\.|module\.|0\.|auto_model\.|encoder\.(?!layer\.))+")

# What training may have put around any part of a model: torch.compile, FSDP, activation checkpointing.
WRAPPERS = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")

OLD_SPELLING = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def encoder_names(config: ModelConfig) -> Names:
    """The weights of a `Bert`, without the prefix of its kind, which some files have and some lack."""
    return _names(config, head=False)


def mlm_names(config: ModelConfig) -> Names:
    """The weights of a `BertForMaskedLM`: the encoder, which is its `bert`, and the head."""
    encoder = {stored: tuple(f"bert.{name}" for name in parts) for stored, parts in encoder_names(config).items()}
    return encoder | _names(config, head=True)


def _names(config: ModelConfig, head: bool) -> Names:
    column, bias = list(PREFIXES).index(type(config)), getattr(config, "bias", True)
    names: Names = {}
    for pattern, columns in TABLE.items():
        stored_pattern = columns[column]
        if stored_pattern is None or pattern.startswith("head.") != head:
            continue
        for block in range(config.num_hidden_layers if "N." in pattern else 1):
            for end in ("weight", "bias") if bias and "*" in pattern else ("weight",):
                stored, name = (p.replace("N.", f"{block}.").replace("*", end) for p in (stored_pattern, pattern))
                if stored.startswith("layers.0.attn_norm."):  # in a ModernBERT, the first block's attention has none
                    continue
                names[stored] = (*names.get(stored, ()), name)
    return names


def has_mlm_head(tensors: Mapping[str, Tensor], config: ModelConfig) -> bool:
    """Whether a file's weights, however spelled, include those of the MLM head, or at least one of them."""
    return not canonical(tensors).keys().isdisjoint(_names(config, head=True))


def export_weights(model: nn.Module, names: Names) -> dict[str, Tensor]:
    """A model's weights under the names in files; a UserError if `names` does not have exactly the same weights."""
    state = model.state_dict()
    named = [name for parts in names.values() for name in parts]
    if sorted(named) != sorted(state):
        first, *_ = sorted(state.keys() ^ set(named))
        raise UserError(f"the folder format has other weights than the model, {first} the first: it can't be saved")
    return {stored: torch.cat([state[name] for name in parts]).cpu() for stored, parts in names.items()}


def import_weights(model: nn.Module, tensors: Mapping[str, Tensor], names: Names) -> list[str]:
    """Fill a model with the weights of a file, whatever their spelling and precision.

    The model's own tensors are replaced, not written to, so it may be one without numbers, on the device "meta".

    Returns:
        the names that were not used, all of them known to be needless.
    Raises:
        UserError: a weight does not fit, by its name; the model is left as it was.
    """
    check_complete(tensors, names)
    tensors, state = canonical(tensors), model.state_dict()
    unused = sorted(tensors.keys() - names.keys())
    _check_needless(unused, tensors)
    for stored, parts in names.items():
        tensor, (rows, *columns) = tensors[stored], state[parts[0]].shape
        shape = (rows * len(parts), *columns)
        if tuple(tensor.shape) != shape:
            raise UserError(f"{stored} is {tuple(tensor.shape)}, but by the configuration {shape}")
        if not tensor.is_floating_point():
            raise UserError(f"{stored} holds {str(tensor.dtype).removeprefix('torch.')}, not floating-point numbers")
        if not tensor.float().isfinite().all():
            raise UserError(f"{stored} holds numbers that are not finite")
        for name, values in zip(parts, tensor.float().chunk(len(parts)), strict=True):
            state[name] = values.clone()
    model.load_state_dict(state, assign=True)
    return unused


def check_complete(tensors: Mapping[str, Tensor], names: Names) -> None:
    """Refuse a file that lacks one of the names; this takes no model."""
    present = canonical(tensors).keys()
    if missing := [name for name in names if name not in present]:
        alike = next((name for name in tensors if name.endswith(f".{missing[0]}")), "")
        hint = f": the file has {alike!r:.80}, under a prefix that minibert does not know" if alike else ""
        raise UserError(f"{len(missing)} of {len(names)} weights are missing, {missing[0]} the first{hint}")


def _check_needless(unused: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Refuse unused weights without which the network would not be the one that was saved."""
    heads = {name for kind in PREFIXES for name in _names(kind(), head=True)}
    if strange := [name for name in unused if name not in {*UNUSED, *TIED, *heads}]:
        raise UserError(f"{len(strange)} weights belong to no network that minibert knows, {strange[0]} the first")
    for name in TIED.keys() & tensors.keys():
        if TIED[name] in tensors and not torch.equal(tensors[name], tensors[TIED[name]]):
            raise UserError(f"{name} differs from {TIED[name]}: minibert knows only tied decoders")


def canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's weights under today's names and without prefixes; of two tied ones, a file may have either."""
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        modern = PREFIX.sub("", WRAPPERS.sub("", name))
        for old, new in OLD_SPELLING.items():
            modern = modern.replace(old, new)
        if modern in result:
            raise UserError(f"the weight {modern} is there twice, under two spellings")
        result[modern] = tensor
    for name, original in TIED.items():
        if name in result and original not in result:
            result[original] = result.pop(name)
    return result


def left_out(names: Sequence[str]) -> str:
    """What was not used, in a phrase: weights by number and kind, anything else by name."""
    kinds = {name: kind for name in names for start, kind in LEFT_OUT.items() if name.startswith(start)}
    weights = f"{len(kinds)} weight{'s' * (len(kinds) > 1)} ({', '.join(dict.fromkeys(kinds.values()))})"
    return ", ".join([weights] * bool(kinds) + [name for name in names if name not in kinds])
