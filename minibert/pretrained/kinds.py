"""The kinds of network that a config.json may describe, and what its settings are called in each.

A setting is used, or has to have a value that is fine, or changes no answer (minibert.pretrained.tables).

    bert          BERT itself
    modernbert    the same with rotary positions, pre-norm and gated feed-forward layers (Warner et al. 2024)
    minibert      any other combination of these parts, which nobody else reads; settings and weights have our own names
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from minibert.config import ModelConfig
from minibert.errors import UserError
from minibert.pretrained.tables import Table


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
        parts: fields of `ModelConfig` that each network of this kind has.
        settings: names in config.json that are used, and the field of `ModelConfig` that each one is.
        same: names that repeat one of `settings`, and have to agree with it.
        immaterial: fields of `ModelConfig` that make no difference to a network of this kind; nothing says them.
        only: what has to be so, because minibert does nothing else: the values that are fine. The first is written into
            our own folders.
        only_if_present: the same for names that are not written, since most folders have none of them.
        written: harmless names that are written into our own folders.
        harmless: what changes no answer of an encoder, and why.
        defaults: of settings that are missing, where they are not those of `ModelConfig`.
        spelled: newer names that say some of `settings` in another way.
        translated: config.json's values with these replaced by those of `settings`.
    """

    model_type: str
    encoder: str
    masked_lm: str
    prefix: str
    settings: Mapping[str, str]
    parts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    immaterial: frozenset[str] = frozenset()
    other_architectures: tuple[str, ...] = ()
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

    def describes(self, config: ModelConfig) -> bool:
        """Whether a network of this shape is of this kind, with nothing that config.json could not say of it."""
        said = {*self.settings.values(), *self.immaterial}
        return all(
            field.name in said or getattr(config, field.name) == self.parts.get(field.name, field.default)
            for field in dataclasses.fields(ModelConfig)
        )


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
    parts={"rotary": False, "norm_first": False, "gated": False, "bias": True, "global_attn_every_n_layers": 1},
    immaterial=frozenset({"local_attention", "global_rope_theta", "local_rope_theta"}),
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


def _older_spelling(values: dict[str, Any]) -> dict[str, Any]:
    """ModernBERT's configuration without `layer_types` and `rope_parameters`, which say in full what two rules say.

    Raises:
        UserError: they say what no such rule can.
    """
    values = dict(_with_padding(values))
    kinds, angles = values.pop("layer_types", None), values.pop("rope_parameters", None)
    if kinds is not None:
        count = len(kinds) if isinstance(kinds, list) else 0
        rules = (every for every in range(1, count + 1) if kinds == layer_types(every, count))
        if (every := next(rules, None)) is None:
            raise UserError(f"layer_types {kinds!r:.60}: minibert knows only full_attention in every nth layer")
        values["global_attn_every_n_layers"] = every
    for layers, name in (("full_attention", "global_rope_theta"), ("sliding_attention", "local_rope_theta")):
        of_layers = angles.get(layers) if isinstance(angles, dict) else angles
        if of_layers is None:
            continue
        if not isinstance(of_layers, dict) or of_layers.get("rope_type", "default") != "default":
            raise UserError(f"rope_parameters {of_layers!r:.60}: minibert knows only the rope_type 'default'")
        if "rope_theta" in of_layers:
            values[name] = of_layers["rope_theta"]
    return values


def layer_types(every: int, count: int) -> list[str]:
    """What ModernBERT calls each of `count` layers, of which every nth sees the whole sequence."""
    return ["sliding_attention" if layer % every else "full_attention" for layer in range(count)]


MODERNBERT = Kind(
    model_type="modernbert",
    encoder="ModernBertModel",
    masked_lm="ModernBertForMaskedLM",
    prefix="model.",
    parts={"rotary": True, "norm_first": True, "gated": True, "type_vocab_size": 0},
    settings={
        **_same_names(
            "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "max_position_embeddings", "initializer_range", "pad_token_id", "global_rope_theta", "local_rope_theta",
            "global_attn_every_n_layers", "local_attention",
        ),
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
    # Their defaults are those of a larger vocabulary.
    written={"bos_token_id": None, "eos_token_id": None, "cls_token_id": None, "sep_token_id": None},
    harmless={
        **_HARMLESS,
        "cls_token_id": "the tokenizer's affair",
        "sep_token_id": "the tokenizer's affair",
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
        "local_rope_theta": 10_000.0, "global_attn_every_n_layers": 3,
    },
    spelled=("layer_types", "rope_parameters"),
    translated=_older_spelling,
)  # fmt: skip

MINIBERT = Kind(
    model_type="minibert",
    encoder="Bert",
    masked_lm="MaskedLanguageModel",
    prefix="bert.",
    settings=_same_names(*(field.name for field in dataclasses.fields(ModelConfig))),
    only_if_present={"auto_map": (None,)},
    harmless={"dtype": "the precision of the file; minibert computes in float32"},
)

KINDS = {kind.model_type: kind for kind in (BERT, MODERNBERT, MINIBERT)}


def kind_of(config: ModelConfig) -> Kind:
    """The first kind that a network of this shape is."""
    if BERT.describes(config) and config.type_vocab_size:
        return BERT
    return MODERNBERT if MODERNBERT.describes(config) else MINIBERT
