"""config.json: the shape that it describes, and the refusal of all that minibert does not do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minibert.config import ModelConfig
from minibert.errors import UserError
from minibert.files import read_json
from minibert.hub.kinds import KINDS, Kind, kind_of
from minibert.hub.tables import blaming

CONFIG = "config.json"


def read_config(folder: Path) -> tuple[ModelConfig, list[str]]:
    """The shape that a folder's config.json describes, and the names in it that mean nothing to minibert.

    Raises:
        UserError: no such folder or file, a value that makes no sense, or one that asks for what minibert does not do.
    """
    file = folder / CONFIG
    is_unfinished = (folder / "checkpoints").is_dir()
    advice = "pass a folder written by train_mlm.py or train_nli.py, or any BERT's"
    values = read_json(file, "its run is not finished: go on with it by --resume" if is_unfinished else advice)
    kind = _kind(file, values)
    with blaming(file):
        values = kind.translated(values)
    unknown = kind.table.check(file, values)
    for name, other in kind.same.items():
        wanted = values.get(other, kind.defaults.get(other))
        if values.get(name, wanted) != wanted:
            raise UserError(f"{file} asks for {name} {values[name]!r}: minibert knows only that of {other}, {wanted!r}")
    asked = {field: values[name] for name, field in kind.settings.items() if name in values}
    _check_types(file, {name: values[name] for name in kind.settings if name in values}, kind)
    defaults = {kind.settings[name]: value for name, value in kind.defaults.items()}
    with blaming(file):
        config = kind.config(**{**defaults, **asked})
    return config, unknown


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
        **{name: fine[0] for name, fine in kind.only.items()},
        **settings,
        **{name: settings[other] for name, other in kind.same.items()},
        **kind.written,
        "dtype": "float32",
    }
