"""In: a folder, a zip of one, or a name on the Hub, as a model ready to use."""

from __future__ import annotations

import logging
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from minibert.bert import Bert, BertForMaskedLM
from minibert.config import LABELS, ModelConfig
from minibert.data.tokenizer import WordPieceTokenizer
from minibert.errors import UserError
from minibert.files import check_folder, read_json
from minibert.inference import TrainedModel
from minibert.modern import make_bert, make_masked_lm
from minibert.pretrained.names import Names, check_complete, encoder_names, has_mlm_head, import_weights, mlm_names
from minibert.pretrained.saving import MODEL_FILES
from minibert.pretrained.settings import blaming, check_inside, read_config, read_sentence_settings
from minibert.sbert import FEATURES, PRODUCT, NLIClassifier, SentenceEncoder

WEIGHTS, SHARDS, CLASSIFIER = "model.safetensors", "model.safetensors.index.json", "classifier.json"

# Tokenizers may have a few tokens fewer than the model has rows: some round the matrix up to a multiple of 64 or 128.
MOST_SPARE_ROWS = 127

# What a zip may unpack to: thrice a BERT-large.
MOST_UNPACKED = 4 * 2**30

# Where networks are made with shapes and no numbers: `import_weights` brings those, once it has compared the shapes. So
# a configuration that asks for more than its file holds costs nothing.
NOWHERE = torch.device("meta")

Network = TypeVar("Network", Bert, BertForMaskedLM)

# What is fetched from the Hub: the JSON files, the weights, the vocabulary; never a pickle, never code.
HUB_FILES = ("*.json", "*.safetensors", "vocab.txt")


def from_pretrained(name: str | Path) -> TrainedModel:
    """Load a BERT, with whatever heads it has that minibert knows.

    Args:
        name: a folder in Hugging Face's layout, a zip of one, or a name on the Hugging Face Hub. Folders of
            train_mlm.py, train_nli.py, `transformers` and `sentence-transformers` all have this layout.
    Returns:
        the model, on the CPU and in evaluation mode. `ignored` names what is in the folder and was not used; one line
        of the log "minibert" says so, too.
    Raises:
        UserError: there is nothing of that name, something is missing or damaged, or it asks for what minibert does not
            do.
    """
    with _opened(name) as folder:
        config, ignored = read_config(folder)
        tensors = _read_weights(folder)
        with blaming(folder):
            with_head = has_mlm_head(tensors, config)
        masked_lm = None
        if with_head:
            masked_lm, unused = _filled(BertForMaskedLM, config, tensors, folder)
            encoder = masked_lm.bert
        else:
            encoder, unused = _filled(Bert, config, tensors, folder)
        ignored += unused
        tokenizer = _read_tokenizer(folder, config)
        settings = read_sentence_settings(folder, config.max_position_embeddings)
        with NOWHERE:
            sentence_encoder = SentenceEncoder(encoder, settings.pooling, settings.width)
        if sentence_encoder.projection is not None:
            _fill_linear(sentence_encoder.projection, folder / settings.dense / WEIGHTS, "linear.")
        parts = _read_classifier(folder, sentence_encoder)
    if ignored:
        logging.getLogger("minibert").warning("%s has more than is used here: %s", name, ", ".join(ignored))
    parts = {"max_length": settings.max_length, **parts}
    model = TrainedModel(
        sentence_encoder,
        tokenizer,
        normalize=settings.normalize,
        masked_lm=masked_lm,
        ignored=tuple(ignored),
        **parts,
    )
    for network in model.networks:
        network.eval()
    return model


def load_classifier(name: str | Path) -> TrainedModel:
    """The same of a folder that has to have a classifier; without one, it is a UserError that says so."""
    model = from_pretrained(name)
    if model.classifier is None:
        raise UserError(f"{name} has no classifier: write one with train_nli.py")
    return model


def load_encoder(name: str | Path, dropout: float | None = None) -> tuple[Bert, WordPieceTokenizer, list[str]]:
    """Read the encoder alone, to train it further, its tokenizer, and the names of what else there is.

    Args:
        name: see `from_pretrained`, whose errors are raised here, too.
        dropout: the rate within the encoder; None = what the folder says.
    """
    return _load(Bert, name, dropout)


def load_mlm(name: str | Path, dropout: float | None = None) -> tuple[BertForMaskedLM, WordPieceTokenizer, list[str]]:
    """The same of an encoder with its MLM head."""
    return _load(BertForMaskedLM, name, dropout)


def _load(
    kind: type[Network], name: str | Path, dropout: float | None
) -> tuple[Network, WordPieceTokenizer, list[str]]:
    with _opened(name) as folder:
        config, ignored = read_config(folder)
        if dropout is not None:
            config = replace(config, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
        network, unused = _filled(kind, config, _read_weights(folder), folder)
        return network, _read_tokenizer(folder, config), ignored + unused


def _filled(
    kind: type[Network], config: ModelConfig, tensors: dict[str, Tensor], folder: Path
) -> tuple[Network, list[str]]:
    """A network with a folder's weights, and the names of those that it has no place for."""
    with blaming(folder), NOWHERE:
        names = mlm_names(config) if kind is BertForMaskedLM else encoder_names(config)
        check_complete(tensors, names)  # first, for to make a thousand layers takes seconds, if no memory
        network = cast("Network", make_masked_lm(config) if kind is BertForMaskedLM else make_bert(config))
        return network, import_weights(network, tensors, names)


@contextmanager
def _opened(name: str | Path) -> Iterator[Path]:
    """The folder that a name stands for."""
    path = Path(name)
    if path.is_dir():
        check_folder(path)
        yield path
    elif path.is_file() and zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory() as temporary, blaming(path):
            _extract(path, Path(temporary))
            check_folder(Path(temporary))
            yield Path(temporary)
    elif path.exists():
        raise UserError(f"{path} is neither a folder nor a zip of one")
    else:
        yield _from_hub(str(name))


def _extract(path: Path, target: Path) -> None:
    """Unpack the files of a model, whose names are known, and nothing else that a zip may hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in _entries(archive):
                archive.extract(entry, target)
    except UserError:
        raise
    except Exception as error:  # damaged, encrypted, or of an unknown compression: each is an error of another family
        raise UserError(f"damaged, or a zip that can't be read: {error}") from error


def _entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    entries = [entry for entry in archive.infolist() if entry.filename in MODEL_FILES]
    if sum(entry.file_size for entry in entries) > MOST_UNPACKED:
        raise UserError(f"more than {MOST_UNPACKED:,} bytes unpacked: unpack it yourself and pass the folder")
    return entries


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download  # a folder does not need it

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # no network, no such name, or no name at all: each is an error of another family
        raise UserError(
            f"no folder {name}, and the Hugging Face Hub gave no model of that name: pass a folder written by"
            " train_mlm.py or train_nli.py, or any BERT's"
        ) from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder, from one file or from the shards that an index names."""
    if (folder / WEIGHTS).exists() or not (folder / SHARDS).exists():
        return _read_tensors(folder / WEIGHTS)
    index = read_json(folder / SHARDS, "").get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(file, str) for file in index.values()):
        raise UserError(f"{folder / SHARDS} has no weight_map of names to files")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(index.values())):
        check_inside(folder / SHARDS, file)
        tensors |= _read_tensors(folder / file)
    lost = sorted(index.keys() - tensors.keys())
    if lost:
        raise UserError(f"{folder}: {len(lost)} weights are missing from their shards, {lost[0]} the first")
    return tensors


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        pickle = path.with_name("pytorch_model.bin")
        hint = f": {pickle.name} is a pickle, which can run code and is never read" if pickle.exists() else ""
        raise UserError(f"no weights at {path}{hint}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file: {str(error).splitlines()[0]}") from error


def _read_tokenizer(folder: Path, config: ModelConfig) -> WordPieceTokenizer:
    tokenizer = WordPieceTokenizer.load(str(folder))
    if not config.vocab_size - MOST_SPARE_ROWS <= tokenizer.vocab_size <= config.vocab_size:
        raise UserError(
            f"{folder}: the vocabulary has {tokenizer.vocab_size:,} tokens, but the model {config.vocab_size:,}:"
            " they are not of one training"
        )
    return tokenizer


def _fill_linear(layer: nn.Linear, path: Path, prefix: str = "") -> None:
    names: Names = {prefix + "weight": ("weight",), prefix + "bias": ("bias",)}
    with blaming(path):
        import_weights(layer, _read_tensors(path), names)


def _read_classifier(folder: Path, encoder: SentenceEncoder) -> dict[str, Any]:
    """What `TrainedModel` wants to know of the classifier beside an encoder; nothing, if there is none."""
    file = folder / CLASSIFIER
    if not file.exists():
        return {}
    settings = read_json(file, "")
    features = list(FEATURES)
    for name, fine in (("labels", (list(LABELS),)), ("features", (features, [*features, PRODUCT]))):
        if settings.get(name) not in fine:
            raise UserError(f"{file} has the {name} {settings.get(name)}, not {' or '.join(map(str, fine))}")
    length, dropout, control = (settings.get(name) for name in ("max_length", "dropout", "hypothesis_only"))
    positions = encoder.bert.config.max_position_embeddings
    if type(length) is not int or not 3 <= length <= positions:
        raise UserError(f"{file} has the max_length {length!r}, not a number from 3 to {positions}")
    if type(dropout) not in (int, float) or not 0 <= dropout < 1 or type(control) is not bool:
        raise UserError(f"{file} has a dropout outside [0, 1), or a hypothesis_only that is not true or false")
    with NOWHERE:
        network = NLIClassifier(encoder, dropout, PRODUCT in settings["features"])
    _fill_linear(network.classifier, folder / "classifier.safetensors")
    return {"classifier": network, "max_length": length, "hypothesis_only": control}
