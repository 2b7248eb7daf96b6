"""Models as folders, in Hugging Face's format: the one place that knows the names which others give to our weights.

    config.json, model.safetensors       BERT's configuration and weights
    tokenizer.json, tokenizer_config.json, vocab.txt

and, for a classifier, beside them:

    classifier.json, classifier.safetensors    labels, max length and features; the weights of the last layer
    modules.json, 1_Pooling/config.json, sentence_bert_config.json    what sentence-transformers wants to know

A folder needs nothing outside itself, so it can be moved or zipped. Weights are safetensors only: a pickle can run code
while it loads, and is never read. Loading is strict: what is missing or has another shape is an error.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minibert.config import LABELS, ModelConfig
from minibert.data.tokenizer import WordPieceTokenizer
from minibert.errors import UserError
from minibert.files import write_file, write_folder
from minibert.inference import NLIModel
from minibert.model.encoder import Bert
from minibert.model.mlm import MaskedLanguageModel
from minibert.model.siamese import SiameseClassifier

FEATURES = ["u", "v", "|u - v|"]

# What BERT's config.json can ask for and minibert does not do. The value is the one that is fine.
ONLY = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}

# Tokenizers may have a few tokens fewer than the model has rows: some round the matrix up to a multiple of 64 or 128.
MOST_SPARE_ROWS = 127


def encoder_names(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Our name of each encoder weight, and BERT's; three names mean that ours is theirs on top of one another."""
    names: dict[str, tuple[str, ...]] = {
        "embeddings.token.weight": ("embeddings.word_embeddings.weight",),
        "embeddings.position.weight": ("embeddings.position_embeddings.weight",),
        "embeddings.segment.weight": ("embeddings.token_type_embeddings.weight",),
    }
    modules: dict[str, tuple[str, ...]] = {"embeddings.norm": ("embeddings.LayerNorm",)}
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


HEAD_NAMES: dict[str, tuple[str, ...]] = {
    "head.dense.weight": ("cls.predictions.transform.dense.weight",),
    "head.dense.bias": ("cls.predictions.transform.dense.bias",),
    "head.norm.weight": ("cls.predictions.transform.LayerNorm.weight",),
    "head.norm.bias": ("cls.predictions.transform.LayerNorm.bias",),
    "head.bias": ("cls.predictions.bias",),
}


def mlm_names(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """The same for a `MaskedLanguageModel`: the encoder, which is its `bert`, and the head."""
    return {f"bert.{ours}": theirs for ours, theirs in encoder_names(config).items()} | HEAD_NAMES


def export_weights(model: nn.Module, names: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
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


def import_weights(model: nn.Module, tensors: Mapping[str, Tensor], names: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Fill a model with weights under BERT's names, old or new; returns the names that were not used.

    Raises:
        UserError: a weight is missing, or has another shape than the configuration says.
    """
    tensors = _canonical(tensors)
    wanted = [name for theirs in names.values() for name in theirs]
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise UserError(f"{len(missing)} of {len(wanted)} weights are missing, {missing[0]} the first")
    state = {ours: torch.cat([tensors[name] for name in theirs]).float() for ours, theirs in names.items()}
    for ours, parameter in model.state_dict().items():
        if state[ours].shape != parameter.shape:
            raise UserError(
                f"{names[ours][0]} is {tuple(state[ours].shape)}, but by the configuration {tuple(parameter.shape)}"
            )
    model.load_state_dict(state)
    return sorted(set(tensors) - set(wanted))


def save_mlm(folder: Path, model: MaskedLanguageModel, tokenizer: WordPieceTokenizer) -> None:
    """Write what `transformers.BertForMaskedLM` and `AutoTokenizer` read.

    Raises:
        UserError: the folder can't be written; nothing in it has changed then.
    """
    weights = export_weights(model, mlm_names(model.config))
    tensors = {name if name.startswith("cls.") else f"bert.{name}": tensor for name, tensor in weights.items()}
    write_folder(folder, lambda staging: _write_model(staging, tensors, model.config, "BertForMaskedLM", tokenizer))


def save_classifier(folder: Path, model: NLIModel) -> None:
    """Write what `SentenceTransformer` reads, with the classifier beside it.

    Raises:
        UserError: the folder can't be written; nothing in it has changed then.
    """
    network = model.classifier
    config = network.encoder.config
    settings = {
        "labels": list(LABELS),
        "features": FEATURES,
        "max_length": model.max_length,
        "dropout": network.dropout.p,
        "hypothesis_only": model.hypothesis_only,
    }
    pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": True}
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]

    def write(staging: Path) -> None:
        tensors = export_weights(network.encoder, encoder_names(config))
        _write_model(staging, tensors, config, "BertModel", model.tokenizer)
        head = {name: tensor.contiguous().cpu() for name, tensor in network.classifier.state_dict().items()}
        save_file(head, staging / "classifier.safetensors")
        _write_json(staging / "classifier.json", settings)
        _write_json(staging / "modules.json", modules)
        _write_json(staging / "sentence_bert_config.json", {"max_seq_length": model.max_length, "do_lower_case": False})
        (staging / "1_Pooling").mkdir()
        _write_json(staging / "1_Pooling" / "config.json", pooling)

    write_folder(folder, write)


MODEL_FILES = (
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "classifier.json",
    "classifier.safetensors", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json",
)  # fmt: skip


def zip_classifier(folder: Path) -> Path:
    """Put a classifier's files into FOLDER.zip, without the run's own records; returns its path."""
    target = folder.with_name(folder.name + ".zip")

    def write(partial: Path) -> None:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in MODEL_FILES:
                archive.write(folder / name, name)

    write_file(target, write)
    return target


def load_encoder(folder: Path) -> tuple[Bert, WordPieceTokenizer]:
    """Read the encoder and the tokenizer of a folder; other heads' weights in it are left alone.

    Raises:
        UserError: something is missing, damaged, or not a BERT.
    """
    config = read_config(folder)
    encoder = Bert(config)
    _fill(encoder, folder / "model.safetensors", encoder_names(config))
    return encoder, _read_tokenizer(folder, config)


def load_mlm(folder: Path) -> tuple[MaskedLanguageModel, WordPieceTokenizer]:
    """Read a masked language model and its tokenizer.

    Raises:
        UserError: something is missing, damaged, or not a BERT with its MLM head.
    """
    config = read_config(folder)
    model = MaskedLanguageModel(config)
    _fill(model, folder / "model.safetensors", mlm_names(config))
    return model, _read_tokenizer(folder, config)


def load_classifier(path: Path) -> NLIModel:
    """Read a folder of train_nli.py, or the zip of one.

    Raises:
        UserError: something is missing or damaged, or its labels are not `LABELS` in the same order.
    """
    if path.is_file() and zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(path) as archive:
            for name in set(MODEL_FILES) & set(archive.namelist()):  # no other entry is written anywhere
                archive.extract(name, temporary)
            with _blaming(path):
                return load_classifier(Path(temporary))
    settings = _read_json(path / "classifier.json", "write one with train_nli.py")
    if settings.get("labels") != list(LABELS):
        raise UserError(f"{path}/classifier.json has the labels {settings.get('labels')}, not {list(LABELS)}")
    if settings.get("features") != FEATURES:
        raise UserError(f"{path}/classifier.json has the features {settings.get('features')}, not {FEATURES}")
    encoder, tokenizer = load_encoder(path)
    network = SiameseClassifier(encoder, dropout=settings["dropout"])
    _fill(network.classifier, path / "classifier.safetensors", {"weight": ("weight",), "bias": ("bias",)})
    return NLIModel(network, tokenizer, settings["max_length"], settings["hypothesis_only"])


def read_config(folder: Path) -> ModelConfig:
    """The shape that a folder's config.json describes.

    Raises:
        UserError: no such folder or file, a value that makes no sense, or one that asks for what minibert does not do.
    """
    values = _read_json(folder / "config.json", "pass a folder written by train_mlm.py, or any BERT's")
    for name, fine in ONLY.items():
        if values.get(name, fine) != fine:
            raise UserError(f"{folder}/config.json asks for {name} {values[name]!r}: minibert knows only {fine!r}")
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    with _blaming(folder / "config.json"):
        return ModelConfig(**{name: value for name, value in values.items() if name in known})


def _write_model(
    folder: Path, tensors: dict[str, Tensor], config: ModelConfig, architecture: str, tokenizer: WordPieceTokenizer
) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    values = {"architectures": [architecture], **ONLY, **dataclasses.asdict(config), "dtype": "float32"}
    _write_json(folder / "config.json", values)
    tokenizer.save(folder)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _fill(model: nn.Module, path: Path, names: Mapping[str, tuple[str, ...]]) -> None:
    """Fill a model from a safetensors file."""
    tensors = _read_weights(path)
    with _blaming(path):
        import_weights(model, tensors, names)


def _canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BERT's weights under today's names, whether saved under `bert.` or not, in TensorFlow's old spelling or not."""
    spelling = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    result = {}
    for name, tensor in tensors.items():
        modern = name.removeprefix("bert.")
        for old, new in spelling.items():
            modern = modern.replace(old, new)
        result[modern] = tensor
    return result


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"no weights at {path}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file: {str(error).splitlines()[0]}") from error


def _read_json(path: Path, advice: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"no {path.name} in {path.parent}: {advice}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a JSON object")
    return values


def _read_tokenizer(folder: Path, config: ModelConfig) -> WordPieceTokenizer:
    tokenizer = WordPieceTokenizer.load(str(folder))
    if not config.vocab_size - MOST_SPARE_ROWS <= tokenizer.vocab_size <= config.vocab_size:
        raise UserError(
            f"{folder}: the vocabulary has {tokenizer.vocab_size:,} tokens, but the model {config.vocab_size:,}:"
            " they are not of one training"
        )
    return tokenizer


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Say in which file an error is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except TypeError as error:
        raise UserError(f"{path}: a value has the wrong type: {error}") from error
