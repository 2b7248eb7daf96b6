"""The names of weights: ours on one side, BERT's on the other, and the way from one to the other and back.

Source: the layout of `transformers.BertForPreTraining`, which in turn keeps that of Devlin et al. 2019's code.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from minibert.config import ModelConfig
from minibert.errors import UserError

# One of our weights is one or three of BERT's: three lie in ours on top of one another.
Names = dict[str, tuple[str, ...]]

# Weights that a BERT's file may hold and no network here has a place for.
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
}

# What TensorFlow called the scale and the shift of a norm, and old files still do.
OLD_SPELLING = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

HEAD_NAMES: Names = {
    "head.dense.weight": ("cls.predictions.transform.dense.weight",),
    "head.dense.bias": ("cls.predictions.transform.dense.bias",),
    "head.norm.weight": ("cls.predictions.transform.LayerNorm.weight",),
    "head.norm.bias": ("cls.predictions.transform.LayerNorm.bias",),
    "head.bias": ("cls.predictions.bias",),
}


def encoder_names(config: ModelConfig) -> Names:
    """The weights of a `Bert`, without BERT's prefix `bert.`, which some files have and some have not."""
    names: Names = {
        "embeddings.token.weight": ("embeddings.word_embeddings.weight",),
        "embeddings.position.weight": ("embeddings.position_embeddings.weight",),
        "embeddings.segment.weight": ("embeddings.token_type_embeddings.weight",),
    }
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
    for module, theirs_of in modules.items():
        for kind in ("weight", "bias"):
            names[f"{module}.{kind}"] = tuple(f"{name}.{kind}" for name in theirs_of)
    return names


def mlm_names(config: ModelConfig) -> Names:
    """The weights of a `MaskedLanguageModel`: the encoder, which is its `bert`, and the head."""
    return {f"bert.{ours}": theirs for ours, theirs in encoder_names(config).items()} | HEAD_NAMES


def has_mlm_head(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file's weights, under whatever spelling, include those of the MLM head, or at least one of them."""
    return not canonical(tensors).keys().isdisjoint(name for theirs in HEAD_NAMES.values() for name in theirs)


def export_weights(model: nn.Module, names: Names) -> dict[str, Tensor]:
    """A model's weights under BERT's names.

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
    """Fill a model with weights under BERT's names, whatever their spelling and precision.

    Returns:
        The names that were not used, all of them known to be needless for this model.
    Raises:
        UserError: a weight is missing, has another shape than the configuration says, is not a floating-point number,
            is not finite, or belongs to no BERT that minibert knows; or the decoder is not tied to the embeddings. The
            model is left as it was.

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
    """A file's weights under today's names and without the prefix `bert.`.

    Raises:
        UserError: two of its names come to the same.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        modern = name.removeprefix("bert.")
        for old, new in OLD_SPELLING.items():
            modern = modern.replace(old, new)
        if modern in result:
            raise UserError(f"the weight {modern} is there twice, under two spellings")
        result[modern] = tensor
    return result


def _check_needless(unused: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that would be missed: without them, the network would not be the one that was saved."""
    heads = {name for theirs in HEAD_NAMES.values() for name in theirs}
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
