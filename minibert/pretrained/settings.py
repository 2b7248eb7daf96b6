"""The settings of a folder: what its JSON files ask for, and the refusal of all that minibert does not do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minibert.config import MOST_WIDTH, ModelConfig
from minibert.errors import UserError
from minibert.files import read_json
from minibert.pretrained.kinds import KINDS, Kind, kind_of
from minibert.sbert import POOLINGS

# What all versions of sentence-transformers call a pooling.
POOLING_FLAGS = {mode: f"pooling_mode_{mode}_token{'' if mode == 'cls' else 's'}" for mode in POOLINGS}

# The one Dense that minibert has: a projection of each token's vector, before pooling.
DENSE = {
    "bias": True,
    "activation_function": "torch.nn.modules.linear.Identity",
    "module_input_name": "token_embeddings",
    "module_output_name": "token_embeddings",
}

# From a text to its vector; the second and the last need not be.
STEPS = ("Transformer", "Dense", "Pooling", "Normalize")

CONFIG, MODULES = "config.json", "modules.json"


def read_config(folder: Path) -> tuple[ModelConfig, list[str]]:
    """The shape that a folder's config.json describes, and the names in it that mean nothing to minibert.

    Raises:
        UserError: no such folder or file, a value that makes no sense, or one that asks for what minibert does not do.
    """
    file = folder / CONFIG
    values = read_json(file, "pass a folder written by train_mlm.py, or any BERT's")
    kind = _kind(file, values)
    with blaming(file):
        values = kind.translated(values)
    _check_only(file, values, {**kind.only, **kind.only_if_present})
    for name, other in kind.same.items():
        wanted = values.get(other, kind.defaults.get(other))
        if values.get(name, wanted) != wanted:
            raise UserError(f"{file} asks for {name} {values[name]!r}: minibert knows only that of {other}, {wanted!r}")
    asked = {field: values[name] for name, field in kind.settings.items() if name in values}
    _check_types(file, {name: values[name] for name in kind.settings if name in values}, kind)
    defaults = {kind.settings[name]: value for name, value in kind.defaults.items()}
    with blaming(file):
        config = kind.config(**{**defaults, **asked})
    known = {*kind.settings, *kind.same, *kind.only, *kind.only_if_present, *kind.harmless}
    return config, sorted(values.keys() - known - {"model_type", "architectures"})


def _kind(file: Path, values: Mapping[str, Any]) -> Kind:
    """The kind of network, which has to be one that minibert has."""
    if "model_type" not in values:
        raise UserError(f"{file} has no model_type: it is not a model's configuration")
    name = values["model_type"]
    if not isinstance(name, str) or name not in KINDS:
        raise UserError(f"{file} asks for model_type {name!r}: minibert knows only {', '.join(map(repr, KINDS))}")
    kind, architectures = KINDS[name], values.get("architectures") or []
    if not isinstance(architectures, list):
        raise UserError(f"{file} has no list of architectures, but {architectures!r:.40}")
    for architecture in architectures:
        if architecture not in kind.architectures:
            raise UserError(f"{file} is a {architecture}'s: minibert knows only {', '.join(kind.architectures)}")
    return kind


def _check_types(file: Path, values: Mapping[str, Any], kind: Kind) -> None:
    types = {field.name: type(field.default) for field in dataclasses.fields(kind.config)}
    for name, value in values.items():
        wanted = types[kind.settings[name]]
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise UserError(f"{file}: {name} has the wrong type: {value!r:.40} is not {wanted.__name__}")


def config_values(config: ModelConfig, with_head: bool) -> dict[str, Any]:
    """The contents of config.json, as `transformers` reads it.

    Args:
        config: the shape.
        with_head: whether the weights beside it have the MLM head.
    """
    kind = kind_of(config)
    settings = {name: getattr(config, field) for name, field in kind.settings.items()}
    return {
        "architectures": [kind.masked_lm if with_head else kind.encoder],
        "model_type": kind.model_type,
        **kind.only,
        **settings,
        **{name: settings[other] for name, other in kind.same.items()},
        **kind.written,
        "dtype": "float32",
    }


@dataclasses.dataclass(frozen=True)
class SentenceSettings:
    """How a folder makes one vector of a sentence, in the words of sentence-transformers.

    Attributes:
        max_length: tokens kept of each sentence.
        pooling: one of `POOLINGS`.
        normalize: whether vectors are scaled to length 1.
        dense: the subfolder with the projection of token vectors; "" = there is none.
        width: how many numbers a projected vector has; 0 = there is none.
    """

    max_length: int
    pooling: str = "mean"
    normalize: bool = False
    dense: str = ""
    width: int = 0


def read_sentence_settings(folder: Path, positions: int) -> SentenceSettings:
    """What modules.json and its neighbours say; without them the mean, as sentence-transformers has it.

    Args:
        folder: the model's.
        positions: the longest sequence that the encoder reads.
    Raises:
        UserError: a file is damaged, or asks for what minibert does not do.
    """
    length = _max_length(folder, positions)
    if not (folder / MODULES).exists():
        return SentenceSettings(length)
    file = folder / "config_sentence_transformers.json"
    _check_only(file, _optional(file), {"default_prompt_name": None})
    modules = _modules(folder)
    kinds, paths = [kind for kind, _ in modules], dict(modules)
    known = [kind for kind in STEPS if kind in ("Transformer", "Pooling") or kind in kinds]
    if kinds != known or paths["Transformer"]:
        raise UserError(
            f"{folder / MODULES} asks for {' + '.join(path or kind for kind, path in modules)}: minibert knows only a"
            " Transformer in the folder itself, a Dense of token vectors, Pooling, and Normalize"
        )
    dense = paths.get("Dense", "")
    width = _projection(folder / dense / CONFIG) if dense else 0
    return SentenceSettings(length, _pooling(folder / paths["Pooling"] / CONFIG), "Normalize" in paths, dense, width)


def _max_length(folder: Path, positions: int) -> int:
    file = folder / "sentence_bert_config.json"
    settings = _optional(file)
    _check_only(file, settings, {"do_lower_case": False})
    asked = settings.get("max_seq_length")
    if asked is None:
        asked = _optional(folder / "tokenizer_config.json").get("model_max_length")
    if asked is None:
        return positions
    if not isinstance(asked, int | float) or not asked >= 3:  # so that NaN is refused, too
        raise UserError(f"{folder} asks for sentences of {asked!r} tokens: [CLS], one token and [SEP] need 3")
    return int(min(asked, positions))


def _modules(folder: Path) -> list[tuple[str, str]]:
    """The kind and the subfolder of each step from text to vector."""
    file = folder / MODULES
    modules = read_json(file, "", list)
    try:
        steps = [(module["type"].rsplit(".", 1)[-1], module["path"]) for module in modules]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not a list of modules with type and path") from error
    for _, path in steps:
        check_inside(file, path)
    return steps


def _projection(file: Path) -> int:
    """The width of a Dense before pooling."""
    values = read_json(file, "modules.json asks for it")
    _check_only(file, {"module_input_name": "sentence_embedding", **values}, {**DENSE, "use_residual": False})
    width = values.get("out_features")
    if type(width) is not int or not 1 <= width <= MOST_WIDTH:
        raise UserError(f"{file} has the out_features {width!r}, not a number from 1 to {MOST_WIDTH:,}")
    return width


def _pooling(file: Path) -> str:
    """One of `POOLINGS`, from today's `pooling_mode` or from yesterday's row of yes and no."""
    values = read_json(file, "modules.json asks for it")
    _check_only(file, values, {"include_prompt": True})
    flags = [name for name, chosen in values.items() if name.startswith("pooling_mode_") and chosen]
    short = {flag: mode for mode, flag in POOLING_FLAGS.items()}
    asked = values.get("pooling_mode") or [short.get(name, name) for name in flags] or ["mean"]
    modes = asked if isinstance(asked, list) else [asked]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in POOLINGS:
        raise UserError(
            f"{file} asks for the pooling {' + '.join(map(str, modes))}: minibert knows only {', '.join(POOLINGS)}"
        )
    return modes[0]


def _optional(path: Path) -> dict[str, Any]:
    """What is in a file that need not be there."""
    return read_json(path, "") if path.exists() else {}


def _check_only(file: Path, values: Mapping[str, Any], only: Mapping[str, Any]) -> None:
    for name, fine in only.items():
        if values.get(name, fine) != fine:
            raise UserError(f"{file} asks for {name} {values[name]!r}: minibert knows only {fine!r}")


def check_inside(file: Path, name: object) -> None:
    """Refuse what a file names, unless it is something beside the file itself, or its folder ("")."""
    if not isinstance(name, str) or Path(name).name != name:
        raise UserError(f"{file} points outside its folder: {name!r}")


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Say in which file an error is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except TypeError as error:
        raise UserError(f"{path}: a value has the wrong type: {error}") from error
