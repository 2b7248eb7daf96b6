"""Saving: a trained model becomes a folder that needs nothing outside itself."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from minibert.bert import BertForMaskedLM
from minibert.config import ModelConfig
from minibert.errors import UserError
from minibert.files import CHECKSUMS, write_file, write_folder, write_json, zip_path
from minibert.hub.added_tokens import ADDED_TOKENS, SPECIAL_TOKENS_MAP
from minibert.hub.loading import from_pretrained
from minibert.hub.names import PREFIXES, encoder_names, export_weights, mlm_names
from minibert.hub.sentences import DENSE, ENCODER_FILES, POOLING_FLAGS, SENTENCE_TRANSFORMERS
from minibert.hub.settings import CONFIG, WEIGHTS, config_values, kind_of
from minibert.modern import make_bert, make_masked_lm
from minibert.sbert import FEATURES, NLIClassifier, SentenceEncoder
from minibert.textbook import has_hooks
from minibert.tokenizer import WordPieceTokenizer

MODEL_FILES = (
    CONFIG, WEIGHTS, "tokenizer.json", "tokenizer_config.json", "vocab.txt", "classifier.json",
    "classifier.safetensors", "modules.json", "1_Pooling/config.json", "1_Dense/config.json",
    "1_Dense/model.safetensors", "2_Pooling/config.json", "sentence_bert_config.json", CHECKSUMS,
)  # fmt: skip

# Files that loading reads but nothing here writes: whoever put them there, they change the model beside them.
FOREIGN_FILES = (SPECIAL_TOKENS_MAP, ADDED_TOKENS, SENTENCE_TRANSFORMERS, *ENCODER_FILES[1:])


def save_mlm(folder: str | Path, model: BertForMaskedLM, tokenizer: WordPieceTokenizer) -> None:
    """Write what `transformers.BertForMaskedLM`, or `ModernBertForMaskedLM`, and `AutoTokenizer` read.

    If the folder can't be written (a `UserError`), nothing in it has changed.
    """
    config = model.bert.config
    _check_sayable(model, make_masked_lm, config)
    encoder = encoder_names(config)
    tensors = {
        PREFIXES[type(config)] + name if name in encoder else name: tensor
        for name, tensor in export_weights(model, mlm_names(config)).items()
    }

    def write(staging: Path) -> None:
        _write_model(staging, tensors, config, tokenizer, with_head=True)
        _check_readable(staging, folder)

    write_folder(Path(folder), write)


def save_classifier(
    folder: str | Path, model: NLIClassifier, tokenizer: WordPieceTokenizer, max_length: int, hypothesis_only: bool
) -> None:
    """Write what `SentenceTransformer` reads, with the classifier beside it; see `save_mlm`.

    Args:
        max_length: tokens kept of each sentence, in training and so in use.
        hypothesis_only: whether it is the control, which is used on emptied premises.
    """
    encoder, config = model.encoder, model.encoder.bert.config
    if encoder.pooling not in POOLING_FLAGS:
        raise UserError(f"the pooling {encoder.pooling!r} has no name in the folder format: it can't be saved")
    width = 0 if encoder.projection is None else encoder.size

    def usual(config: ModelConfig) -> NLIClassifier:
        return NLIClassifier(SentenceEncoder(make_bert(config), encoder.pooling, width), labels=model.labels)

    _check_sayable(model, usual, config)
    settings = {
        "labels": list(model.labels), "features": list(FEATURES), "max_length": max_length, "dropout": model.dropout.p,
        "hypothesis_only": hypothesis_only,
    }  # fmt: skip

    def write(staging: Path) -> None:
        tensors = export_weights(encoder.bert, encoder_names(config))
        _write_model(staging, tensors, config, tokenizer, with_head=False)
        _save_linear(model.classifier, staging / "classifier.safetensors")
        write_json(staging / "classifier.json", settings)
        _write_modules(staging, encoder)
        write_json(staging / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
        _check_readable(staging, folder)

    write_folder(Path(folder), write)


def zip_classifier(folder: Path) -> Path:
    """Put a classifier's files into FOLDER.zip, without the run's own records; returns its path."""
    target = zip_path(folder)

    def write(partial: Path) -> None:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in MODEL_FILES:
                if (folder / name).exists():
                    archive.write(folder / name, name)

    write_file(target, write)
    return target


def _check_sayable(model: nn.Module, make: Callable[[ModelConfig], nn.Module], config: ModelConfig) -> None:
    """Refuse a layer of somebody's own: a reader of the folder would `make` the usual one in its place."""
    kind_of(config)
    with torch.device("meta"):
        usual = dict(make(config).named_modules())
    for name, layer in model.named_modules():
        problem, expected = name or "the model", usual.get(name)
        if expected is None or type(expected) is not type(layer):
            problem += f" is a {type(layer).__name__}, which"
        elif has_hooks(layer):
            problem += " has a hook, which"
        elif changed := {name for name, _ in _settings(layer) ^ _settings(expected)}:
            problem += f" has another {min(changed)} than its configuration gives it, which"
        else:
            continue
        raise UserError(f"{problem} has no name in the folder format: it can't be saved")


def _settings(layer: nn.Module) -> set[tuple[str, Any]]:
    """What decides a layer's answers besides its weights: its plain values and functions, except dropout's."""
    values = ((name, value) for name, value in vars(layer).items() if name not in ("training", "p", "dropout_p"))
    return {(name, value) for name, value in values if isinstance(value, int | float | str | tuple) or callable(value)}


def _check_readable(staging: Path, folder: str | Path) -> None:
    """Read a model before its files replace others: an error now is better than later."""
    try:
        from_pretrained(staging)
    except UserError as error:
        raise UserError(f"what was to be saved can't be read: {error}".replace(str(staging), str(folder))) from error


def _write_model(
    folder: Path, tensors: dict[str, Tensor], config: ModelConfig, tokenizer: WordPieceTokenizer, *, with_head: bool
) -> None:
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, config_values(config, with_head))
    tokenizer.save(folder, config.max_position_embeddings)


def _write_modules(folder: Path, encoder: SentenceEncoder) -> None:
    """The steps from a text to its vector, in the words of sentence-transformers."""
    kinds = ["Transformer", "Pooling"] if encoder.projection is None else ["Transformer", "Dense", "Pooling"]
    paths = ["", *(f"{index}_{kind}" for index, kind in enumerate(kinds) if index)]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    write_json(folder / "modules.json", modules)
    if encoder.projection is not None:
        sizes = {"in_features": encoder.bert.config.hidden_size, "out_features": encoder.size}
        write_json(folder / paths[1] / "config.json", sizes | DENSE)
        _save_linear(encoder.projection, folder / paths[1] / WEIGHTS, "linear.")
    pooling = {"word_embedding_dimension": encoder.size, POOLING_FLAGS[encoder.pooling]: True}
    write_json(folder / paths[-1] / "config.json", pooling)


def _save_linear(layer: nn.Linear, path: Path, prefix: str = "") -> None:
    save_file({prefix + name: tensor.contiguous().cpu() for name, tensor in layer.state_dict().items()}, path)
