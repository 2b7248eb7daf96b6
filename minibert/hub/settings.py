"""The JSON files of a model's folder: what becomes of each name in them; and config.json, the shape of the network.

A name is used, or has to have a value that minibert knows, or changes no answer. Each kind of file has one `Table`,
beside the code that reads it; docs/format.md shows them all, and a test compares them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minibert.config import ModelConfig, ModernBertConfig
from minibert.errors import UserError
from minibert.files import CHECKPOINTS, read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
ADVICE = "pass a folder written by train_mlm.py or train_nli.py, or any BERT's"  # where there is no model

# The `tokenizer_class` of a BERT's own tokenizer, which transformers builds from vocabulary and settings, and those
# that it takes from tokenizer.json as they are.
BUILT, TAKEN = ("BertTokenizer", "BertTokenizerFast"), ("PreTrainedTokenizerFast", "TokenizersBackend")
TOKENIZERS = BUILT + TAKEN

Values = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Table:
    """The names in a JSON file. A string of several has spaces between them."""

    used: str  # what decides what is computed, and how
    only: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)  # the only values accepted
    harmless: str = ""  # what changes no answer
    strict: bool = False  # whether any other name is refused; otherwise it is reported as unused

    def check(self, file: Path | str, values: Values) -> list[str]:
        """The names that are not in the table; a `UserError` if a value asks for what minibert does not do."""
        for name, fine in self.only.items():
            if name in values and values[name] not in fine:
                known = " and ".join(f"{value!r}" for value in fine)
                raise UserError(f"{file} asks for {name} {values[name]!r:.60}: minibert knows only {known}")
        unknown = sorted(values.keys() - {*self.used.split(), *self.only, *self.harmless.split()})
        if unknown and self.strict:
            raise UserError(f"{file} has {unknown[0]!r:.60}, which means nothing to minibert")
        return unknown

    def read(self, file: Path) -> tuple[Values, list[str]]:
        """The values of a file, which need not exist, and the names that are not in the table."""
        values = read_json(file, None)
        return values, self.check(file, values)


def check_inside(file: Path, name: object) -> None:
    """Refuse a name in a file unless it is of something beside the file, or of its folder ("")."""
    if not isinstance(name, str) or Path(name).name != name or name == ".." or "\\" in name or "\0" in name:
        raise UserError(f"{file} points outside its folder: {name!r:.60}")


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Say in which file an error is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except TypeError as error:
        raise UserError(f"{path}: a value has the wrong type: {error}") from error


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of network that a config.json may describe."""

    model_type: str
    architectures: tuple[str, ...]  # whose weights can be read; the first is the encoder, the second has the MLM head
    settings: Mapping[str, str]  # names that are used, each with its field of the configuration
    defaults: ModelConfig  # what transformers takes for settings that are missing
    only: Mapping[str, tuple[Any, ...]]  # as in `Table`; a first value that is not None is written into our folders
    harmless: str
    same: Mapping[str, str] = dataclasses.field(default_factory=dict)  # names that have to agree with one of `settings`
    written: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # where transformers' defaults differ
    fixed: frozenset[str] = frozenset()  # fields of the configuration that have one value only
    translated: Callable[[Values], Values] = dict  # puts what a file says in other names into those above

    @property
    def table(self) -> Table:
        """What becomes of each name."""
        return Table(" ".join(["model_type", "architectures", *self.settings, *self.same]), self.only, self.harmless)


# What both kinds have in common.
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
          "max_position_embeddings", "initializer_range", "pad_token_id")  # fmt: skip
_GELU = ("gelu", "gelu_python")  # the second is an old name of the same, exact, function
_ONLY: dict[str, tuple[Any, ...]] = {
    "tie_word_embeddings": (True,), "is_encoder_decoder": (False,), "pruned_heads": (None, {}),
    "quantization_config": (None,), "auto_map": (None,), "tokenizer_class": (None, *TOKENIZERS),
}  # fmt: skip
_HARMLESS = """
    _name_or_path transformers_version dtype torch_dtype use_cache bos_token_id eos_token_id classifier_dropout
    id2label label2id problem_type chunk_size_feed_forward gradient_checkpointing output_attentions
    output_hidden_states return_dict """

BERT = Kind(
    model_type="bert",
    architectures=("BertModel", "BertForMaskedLM", "BertForPreTraining", "BertForNextSentencePrediction"),
    settings={name: name for name in (*_SIZES, "type_vocab_size", "hidden_dropout_prob",
                                      "attention_probs_dropout_prob", "layer_norm_eps")},
    defaults=ModelConfig(
        hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3_072,
        max_position_embeddings=512,
    ),
    only={
        "hidden_act": _GELU, "position_embedding_type": ("absolute",), "is_decoder": (False,),
        "add_cross_attention": (False,), **_ONLY,
    },
    harmless=_HARMLESS,
)  # fmt: skip


def _without_windows(values: Values) -> Values:
    """Refuse layers that attend to a window, whichever version's names the file uses; drop these settings."""
    windows = ("layer_types", "rope_parameters", "global_attn_every_n_layers", "local_attention", "local_rope_theta")
    kept = {name: value for name, value in values.items() if name not in windows}
    kinds, angles = values.get("layer_types"), values.get("rope_parameters")
    every = values.get("global_attn_every_n_layers", 3)
    if kinds is None and every != 1 and values.get("num_hidden_layers", 22) != 1:
        raise UserError(f"global_attn_every_n_layers {every!r}: minibert knows only 1, no layer with a local window")
    if kinds is not None and not (isinstance(kinds, list) and kinds and kinds == ["full_attention"] * len(kinds)):
        raise UserError(f"layer_types {kinds!r:.60}: minibert knows only full_attention in every layer")
    if angles is not None:
        full = angles.get("full_attention", angles) if isinstance(angles, dict) else angles
        if not isinstance(full, dict) or full.get("rope_type", "default") != "default":
            raise UserError(f"rope_parameters {full!r:.60}: minibert knows only the rope_type 'default'")
        if "rope_theta" in full:
            kept["global_rope_theta"] = full["rope_theta"]
    return kept


MODERNBERT = Kind(
    model_type="modernbert",
    architectures=("ModernBertModel", "ModernBertForMaskedLM"),
    settings={
        **{name: name for name in _SIZES},
        "norm_eps": "layer_norm_eps", "attention_bias": "bias", "attention_dropout": "attention_probs_dropout_prob",
        "mlp_dropout": "hidden_dropout_prob", "global_rope_theta": "rope_theta",
    },
    defaults=ModernBertConfig(
        vocab_size=50_368, hidden_size=768, num_hidden_layers=22, num_attention_heads=12, intermediate_size=1_152,
        max_position_embeddings=8_192, pad_token_id=50_283, layer_norm_eps=1e-5, bias=False,
        attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0, rope_theta=160_000.0,
    ),
    only={
        "hidden_activation": _GELU, "classifier_activation": _GELU, "decoder_bias": (True,), "rope_scaling": (None,),
        **_ONLY,
    },
    same={
        "mlp_bias": "attention_bias", "norm_bias": "attention_bias", "classifier_bias": "attention_bias",
        "embedding_dropout": "mlp_dropout",
    },
    written={
        "global_attn_every_n_layers": 1, "bos_token_id": None, "eos_token_id": None, "cls_token_id": None,
        "sep_token_id": None,
    },
    fixed=frozenset({"type_vocab_size"}),
    harmless=_HARMLESS + """
        cls_token_id sep_token_id classifier_pooling initializer_cutoff_factor layer_norm_eps position_embedding_type
        deterministic_flash_attn reference_compile repad_logits_with_grad sparse_prediction
        sparse_pred_ignore_index """,
    translated=_without_windows,
)  # fmt: skip

KINDS = {kind.model_type: kind for kind in (BERT, MODERNBERT)}


def kind_of(config: ModelConfig) -> Kind:
    """The kind of network of a configuration; a UserError if the folder format has no name for it or a field of it."""
    kind = next((kind for kind in KINDS.values() if type(kind.defaults) is type(config)), None)
    if kind is None:
        raise UserError(f"a {type(config).__name__} has no name in the folder format: it can't be saved or loaded")
    nameless = {field.name for field in dataclasses.fields(config)} - set(kind.settings.values()) - kind.fixed
    if nameless:
        raise UserError(f"{sorted(nameless)[0]} of a {type(config).__name__} has no name in the folder format")
    return kind


def read_config(folder: Path) -> tuple[ModelConfig, list[str]]:
    """The shape that a folder's config.json describes, and the names in it that mean nothing to minibert."""
    file = folder / CONFIG
    is_unfinished = (folder / CHECKPOINTS).is_dir()
    values = read_json(file, "its run is not finished: continue it with --resume" if is_unfinished else ADVICE)
    kind = _read_kind(file, values)
    if values.get("pad_token_id", 0) is None:
        values["pad_token_id"] = 0  # no embedding is padding's, so any will do: padding is never attended to
    with blaming(file):
        values = kind.translated(values)
    unknown = kind.table.check(file, values)
    shape = {field: values.get(name, getattr(kind.defaults, field)) for name, field in kind.settings.items()}
    for name, field in kind.settings.items():
        wanted, value = type(getattr(kind.defaults, field)), shape[field]
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise UserError(f"{file}: {name} has the wrong type: {value!r:.40} is not {wanted.__name__}")
    with blaming(file):
        config = dataclasses.replace(kind.defaults, **shape)
    for name, twin in kind.same.items():
        wanted = getattr(config, kind.settings[twin])
        if values.get(name, wanted) != wanted:
            raise UserError(f"{file} asks for {name} {values[name]!r}: minibert knows only that of {twin}, {wanted!r}")
    return config, unknown


def _read_kind(file: Path, values: Values) -> Kind:
    """The kind of network, which has to be one that minibert has."""
    if "model_type" not in values:
        raise UserError(f"{file} has no model_type: it is not a model's configuration")
    name, architectures = values["model_type"], values.get("architectures") or []
    if not isinstance(name, str) or name not in KINDS:
        raise UserError(f"{file} asks for model_type {name!r}: minibert knows only {', '.join(map(repr, KINDS))}")
    if not isinstance(architectures, list):
        raise UserError(f"{file} has no list of architectures, but {architectures!r:.40}")
    for architecture in architectures:
        if architecture not in KINDS[name].architectures:
            raise UserError(f"{file} is a {architecture}'s: minibert knows only {', '.join(KINDS[name].architectures)}")
    return KINDS[name]


def config_values(config: ModelConfig, with_head: bool) -> Values:
    """The contents of config.json, as `transformers` reads it, for weights with or without the MLM head."""
    kind = kind_of(config)
    settings = {name: getattr(config, field) for name, field in kind.settings.items()}
    return {
        "architectures": [kind.architectures[with_head]],
        "model_type": kind.model_type,
        **{name: fine[0] for name, fine in kind.only.items() if fine[0] is not None},
        **settings,
        **{name: settings[twin] for name, twin in kind.same.items()},
        **kind.written,
        "dtype": "float32",
    }
