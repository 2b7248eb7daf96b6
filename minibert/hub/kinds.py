"""The kinds of network that a config.json may describe, and what its settings are called in each.

A setting is used, or has to have a value that is fine, or changes no answer (minibert.hub.tables).

    bert          BERT itself
    modernbert    the same with rotary positions, pre-norm and gated feed-forward layers (Warner et al. 2024)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from minibert.config import ModelConfig, ModernBertConfig
from minibert.errors import UserError
from minibert.hub.tables import Table


def _as_it_is(values: dict[str, Any]) -> dict[str, Any]:
    return values


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of network.

    Attributes:
        model_type: its name in config.json.
        encoder, masked_lm: what the encoder, and the encoder with the MLM head, are called in `architectures`.
        other_architectures: further ones whose weights are an encoder's, with heads that are read or not needed.
        prefix: of the encoder's weights in a file with a head.
        config: the class of its configurations.
        settings: names in config.json that are used, and the field of `config` that each one is.
        same: names that repeat one of `settings`, and have to agree with it.
        fixed: fields of `config` that have one value only.
        only: what has to be so, because minibert does nothing else: the values that are fine. The first is written into
            our own folders.
        only_if_present: the same for names that are not written, since most folders have none of them.
        written: harmless names that are written into our own folders.
        harmless: what changes no answer of an encoder, and why.
        defaults: of settings that are missing, where they are not those of `config`.
        spelled: names that say some of `settings` in another way, or what has to be so.
        translated: config.json's values with these replaced by those of `settings`.
    """

    model_type: str
    encoder: str
    masked_lm: str
    prefix: str
    config: type[ModelConfig]
    settings: Mapping[str, str]
    other_architectures: tuple[str, ...] = ()
    fixed: frozenset[str] = frozenset()
    same: Mapping[str, str] = dataclasses.field(default_factory=dict)
    only: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    only_if_present: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    written: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    harmless: Mapping[str, str] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    spelled: tuple[str, ...] = ()
    translated: Callable[[dict[str, Any]], dict[str, Any]] = _as_it_is

    @property
    def architectures(self) -> tuple[str, ...]:
        """All whose weights can be read."""
        return (self.encoder, self.masked_lm, *self.other_architectures)

    @property
    def table(self) -> Table:
        """What becomes of each name in config.json."""
        used = dict.fromkeys([*self.settings, *self.same, *self.spelled, "model_type", "architectures"], "")
        return Table(used, {**self.only, **self.only_if_present}, self.harmless)


# Names that any configuration may have.
_NO_OTHER_NETWORK: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "auto_map": (None,),
    "tokenizer_class": (None, "BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"),
}
_HARMLESS = {
    "_name_or_path": "where the folder came from",
    "transformers_version": "who wrote the folder",
    "dtype": "the precision of the file; minibert computes in float32",
    "torch_dtype": "the same, in older folders",
    "use_cache": "for decoders",
    "bos_token_id": "for decoders",
    "eos_token_id": "for decoders",
    "classifier_dropout": "of a classification head, which is not loaded",
    "id2label": "of a classification head, which is not loaded",
    "label2id": "of a classification head, which is not loaded",
    "problem_type": "of a classification head, which is not loaded",
    "chunk_size_feed_forward": "saves memory, gives the same numbers",
    "gradient_checkpointing": "saves memory, gives the same numbers",
    "output_attentions": "what transformers returns beside the last hidden states",
    "output_hidden_states": "what transformers returns beside the last hidden states",
    "return_dict": "how transformers returns it",
}


def _same_names(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _with_padding(values: dict[str, Any]) -> dict[str, Any]:
    """Where no embedding is padding's, the first one may be called so: padding is never attended to."""
    return {**values, "pad_token_id": 0} if values.get("pad_token_id", 0) is None else values


BERT = Kind(
    model_type="bert",
    encoder="BertModel",
    masked_lm="BertForMaskedLM",
    other_architectures=("BertForPreTraining", "BertForNextSentencePrediction"),
    prefix="bert.",
    config=ModelConfig,
    settings=_same_names(
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "max_position_embeddings", "type_vocab_size", "hidden_dropout_prob", "attention_probs_dropout_prob",
        "initializer_range", "layer_norm_eps", "pad_token_id",
    ),
    only={
        "hidden_act": ("gelu", "gelu_python"),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    },
    only_if_present=_NO_OTHER_NETWORK,
    harmless=_HARMLESS,
    translated=_with_padding,
)  # fmt: skip


def _without_windows(values: dict[str, Any]) -> dict[str, Any]:
    """ModernBERT's configuration in the fewest words, if every layer attends to the whole sequence.

    That is said by `layer_types` and `rope_parameters`, or by the rules of older versions of transformers.

    Raises:
        UserError: a layer attends to a window only, or the angles follow another rule.
    """
    values = dict(_with_padding(values))
    layers, every = values.get("num_hidden_layers", 22), values.pop("global_attn_every_n_layers", 3)
    kinds, angles = values.pop("layer_types", None), values.pop("rope_parameters", None)
    for of_windows in ("local_attention", "local_rope_theta"):
        values.pop(of_windows, None)
    if kinds is None and every != 1 and layers != 1:
        raise UserError(f"global_attn_every_n_layers {every!r}: minibert knows only 1, no layer with a local window")
    if kinds is not None and not (isinstance(kinds, list) and kinds and kinds == ["full_attention"] * len(kinds)):
        raise UserError(f"layer_types {kinds!r:.60}: minibert knows only full_attention in every layer")
    if angles is not None:
        full = angles.get("full_attention", angles) if isinstance(angles, dict) else angles
        if not isinstance(full, dict) or full.get("rope_type", "default") != "default":
            raise UserError(f"rope_parameters {full!r:.60}: minibert knows only the rope_type 'default'")
        if "rope_theta" in full:
            values["global_rope_theta"] = full["rope_theta"]
    return values


MODERNBERT = Kind(
    model_type="modernbert",
    encoder="ModernBertModel",
    masked_lm="ModernBertForMaskedLM",
    prefix="model.",
    config=ModernBertConfig,
    fixed=frozenset({"type_vocab_size"}),
    settings={
        **_same_names(
            "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "max_position_embeddings", "initializer_range", "pad_token_id",
        ),
        "global_rope_theta": "rope_theta",
        "norm_eps": "layer_norm_eps",
        "attention_bias": "bias",
        "attention_dropout": "attention_probs_dropout_prob",
        "mlp_dropout": "hidden_dropout_prob",
    },
    same={
        "mlp_bias": "attention_bias",
        "norm_bias": "attention_bias",
        "classifier_bias": "attention_bias",
        "embedding_dropout": "mlp_dropout",
    },
    only={
        "hidden_activation": ("gelu", "gelu_python"),
        "classifier_activation": ("gelu", "gelu_python"),
        "decoder_bias": (True,),
        "tie_word_embeddings": (True,),
    },
    only_if_present={**_NO_OTHER_NETWORK, "rope_scaling": (None,)},
    # Their defaults have windows, and are those of a larger vocabulary.
    written={
        "global_attn_every_n_layers": 1, "bos_token_id": None, "eos_token_id": None, "cls_token_id": None,
        "sep_token_id": None,
    },
    harmless={
        **_HARMLESS,
        "cls_token_id": "for the tokenizer, which has its own",
        "sep_token_id": "for the tokenizer, which has its own",
        "classifier_pooling": "of a classification head, which is not loaded",
        "initializer_cutoff_factor": "of weights that are not loaded",
        "layer_norm_eps": "a leftover in released folders; norm_eps counts",
        "position_embedding_type": "a leftover in released folders; positions are rotary",
        "deterministic_flash_attn": "the same numbers, by another kernel",
        "reference_compile": "the same numbers, compiled",
        "repad_logits_with_grad": "the form of what transformers returns",
        "sparse_prediction": "which positions transformers returns",
        "sparse_pred_ignore_index": "which positions transformers returns",
    },
    defaults={
        "vocab_size": 50_368, "hidden_size": 768, "intermediate_size": 1_152, "num_hidden_layers": 22,
        "num_attention_heads": 12, "max_position_embeddings": 8_192, "pad_token_id": 50_283, "norm_eps": 1e-5,
        "attention_bias": False, "attention_dropout": 0.0, "mlp_dropout": 0.0, "global_rope_theta": 160_000.0,
    },
    spelled=("layer_types", "rope_parameters", "global_attn_every_n_layers", "local_attention", "local_rope_theta"),
    translated=_without_windows,
)  # fmt: skip

KINDS = {kind.model_type: kind for kind in (BERT, MODERNBERT)}


def kind_of(config: ModelConfig) -> Kind:
    """The kind of network of a configuration.

    Raises:
        UserError: the folder format has no name for it, or for one of its fields.
    """
    kind = next((kind for kind in KINDS.values() if kind.config is type(config)), None)
    if kind is None:
        raise UserError(f"a {type(config).__name__} has no name in the folder format: it can't be saved or loaded")
    nameless = {field.name for field in dataclasses.fields(config)} - set(kind.settings.values()) - kind.fixed
    if nameless:
        raise UserError(f"{sorted(nameless)[0]} of a {type(config).__name__} has no name in the folder format")
    return kind
