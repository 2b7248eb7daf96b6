"""In: a folder, a zip of one, or a name on the Hub, as a model ready to use."""

from __future__ import annotations

import logging
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from minibert.bert import Bert, BertForMaskedLM
from minibert.config import ModelConfig, checked_labels
from minibert.errors import UserError, printable
from minibert.files import CHECKSUMS, MOST_TEXT, check_folder, is_file, read_json
from minibert.hub.names import Names, check_complete, encoder_names, has_mlm_head, import_weights, mlm_names
from minibert.hub.remote import fetched
from minibert.hub.sentences import SentenceSettings, encoder_folder, read_sentence_settings
from minibert.hub.settings import read_config
from minibert.hub.tables import Table, blaming, check_inside
from minibert.hub.tokenization import load_tokenizer
from minibert.inference import TrainedModel
from minibert.modern import make_bert, make_masked_lm
from minibert.sbert import FEATURES, PRODUCT, NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer

WEIGHTS, SHARDS, CLASSIFIER = "model.safetensors", "model.safetensors.index.json", "classifier.json"

# Tokenizers may have a few tokens fewer than the model has rows: some round the matrix up to a multiple of 64 or 128.
MOST_SPARE_ROWS = 127

# What a zip may unpack to: thrice a BERT-large.
MOST_UNPACKED = 4 * 2**30

# Where networks are made with shapes and no numbers: `import_weights` brings those, once it has compared the shapes. So
# a configuration that asks for more than its file holds costs nothing.
NOWHERE = torch.device("meta")

Network = TypeVar("Network", Bert, BertForMaskedLM)

# What is fetched from the Hub and unpacked from a zip: never a pickle, never code.
FILES = ("*.json", "*.safetensors", "vocab.txt", CHECKSUMS)
MOST_ENTRIES = 10_000  # that a zip may have, whatever they are


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
        encoder_files = encoder_folder(folder)
        config, ignored = read_config(encoder_files)
        tensors = _read_weights(encoder_files)
        with blaming(encoder_files):
            with_head = has_mlm_head(tensors, config)
        masked_lm = None
        if with_head:
            masked_lm, unused = _filled(BertForMaskedLM, config, tensors, encoder_files)
            encoder = masked_lm.bert
        else:
            encoder, unused = _filled(Bert, config, tensors, encoder_files)
        settings = read_sentence_settings(folder, config.max_position_embeddings, config.hidden_size)
        tokenizer = _read_tokenizer(encoder_files, config)
        if settings.lowercase and not tokenizer.lowercase:
            raise UserError(
                f"{folder} asks for do_lower_case, but its tokenizer keeps case: minibert does not mix the two"
            )
        ignored = [printable(name) for name in [*ignored, *unused, *settings.ignored]]
        with NOWHERE:
            sentence_encoder = SentenceEncoder(encoder, settings.pooling, settings.width)
        if sentence_encoder.projection is not None:
            _fill_linear(sentence_encoder.projection, folder / settings.dense / WEIGHTS, "linear.")
        parts = _read_classifier(folder, sentence_encoder, settings)
    if ignored:
        logging.getLogger("minibert").warning("%s has more than is used here: %s", name, printable(", ".join(ignored)))
    model = TrainedModel(
        sentence_encoder,
        tokenizer,
        settings.max_length,
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
    with _opened(name) as whole:
        folder = encoder_folder(whole)
        config, ignored = read_config(folder)
        if dropout is not None:
            config = replace(config, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
        network, unused = _filled(kind, config, _read_weights(folder), folder)
        return network, _read_tokenizer(folder, config), [printable(name) for name in ignored + unused]


def _filled(
    kind: type[Network], config: ModelConfig, tensors: dict[str, Tensor], folder: Path
) -> tuple[Network, list[str]]:
    """A network with a folder's weights, and the names of those that it has no place for."""
    with blaming(folder), NOWHERE:
        names = mlm_names(config) if kind is BertForMaskedLM else encoder_names(config)
        check_complete(tensors, names)  # first, since making a thousand layers takes seconds, if no memory
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
        advice = "pass a folder written by train_mlm.py or train_nli.py, or any BERT's"
        yield fetched(str(name), FILES, "folder", advice)


def _extract(path: Path, target: Path) -> None:
    """Unpack the files of a model, whose names are known, and nothing else that a zip may hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            for place, entry in _entries(archive).items():
                file = target / place
                file.parent.mkdir(exist_ok=True)
                with archive.open(entry) as packed, file.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    except UserError:
        raise
    except Exception as error:  # damaged, encrypted, or of an unknown compression: each is an error of another family
        raise UserError(f"damaged, or a zip that can't be read: {error}") from error


def _entries(archive: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The entries to unpack, and where to: a model's files, or a folder with a model's files."""
    if len(archive.infolist()) > MOST_ENTRIES:
        raise UserError(f"more than {MOST_ENTRIES:,} entries: it is not a model's folder")
    found = [(_place(entry.filename), entry) for entry in archive.infolist()]
    named = [(place, entry) for place, entry in found if place is not None]
    tops = {place.parts[0] for place, _ in named if len(place.parts) > 1}
    if len(tops) == 1 and all(len(place.parts) > 1 for place, _ in named):
        named = [(place.relative_to(*tops), entry) for place, entry in named]
    entries = {place: entry for place, entry in named if len(place.parts) <= 2}
    if len(entries) < sum(len(place.parts) <= 2 for place, _ in named):
        raise UserError("two entries have the same name")
    for place, entry in entries.items():
        if place.suffix != ".safetensors" and entry.file_size > MOST_TEXT:
            raise UserError(f"{place} has more than {MOST_TEXT:,} bytes, which make no sense there")
    if sum(entry.file_size for entry in entries.values()) > MOST_UNPACKED:
        raise UserError(f"more than {MOST_UNPACKED:,} bytes unpacked: unpack it yourself and pass the folder")
    return entries


def _place(name: str) -> PurePosixPath | None:
    """Where an entry of a zip belongs; None, if it is no file of a model, or points elsewhere."""
    place = PurePosixPath(name)
    strange = place.is_absolute() or "\\" in name or any(part.startswith((".", "__MACOSX")) for part in place.parts)
    known = any(place.match(pattern) for pattern in FILES) and not name.endswith("/")
    return place if known and not strange else None


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder, from one file or from the shards that an index names."""
    if is_file(folder / WEIGHTS) or not is_file(folder / SHARDS):
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
    if not is_file(path):
        pickle = path.with_name("pytorch_model.bin")
        hint = f": {pickle.name} is a pickle, which can run code and is never read" if pickle.exists() else ""
        raise UserError(f"no weights at {path}{hint}")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file: {str(error).splitlines()[0]}") from error


def _read_tokenizer(folder: Path, config: ModelConfig) -> WordPieceTokenizer:
    tokenizer = load_tokenizer(folder)
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


CLASSIFIER_SETTINGS = Table(
    used={
        "labels": "the names of the outputs, in their order",
        "features": "what the classifier sees",
        "max_length": "tokens kept of each sentence",
        "dropout": "of the features in training",
        "hypothesis_only": "whether it is the control, which is used on emptied premises",
    },
)


def _read_classifier(folder: Path, encoder: SentenceEncoder, sentences: SentenceSettings) -> dict[str, Any]:
    """What `TrainedModel` wants to know of the classifier beside an encoder; nothing, if there is none."""
    file = folder / CLASSIFIER
    if not is_file(file):
        return {}
    settings = read_json(file, "")
    CLASSIFIER_SETTINGS.check_all(file, settings)
    if not isinstance(labels := settings.get("labels"), list):
        raise UserError(f"{file} has the labels {labels!r:.100}, not a list of names")
    labels = checked_labels(labels, str(file))
    if settings.get("features") not in (fine := ([*FEATURES], [*FEATURES, PRODUCT])):
        known = " or ".join(map(str, fine))
        raise UserError(f"{file} has the features {settings.get('features')!r:.100}, not {known}")
    length, dropout, control = (settings.get(name) for name in ("max_length", "dropout", "hypothesis_only"))
    if type(length) is not int or length != sentences.max_length:
        raise UserError(f"{file} has the max_length {length!r:.40}, but other files {sentences.max_length}")
    if type(dropout) not in (int, float) or not 0 <= dropout < 1 or type(control) is not bool:
        raise UserError(f"{file} has a dropout outside [0, 1), or a hypothesis_only that is not true or false")
    with NOWHERE:
        network = NLIClassifier(encoder, dropout, PRODUCT in settings["features"], labels)
    _fill_linear(network.classifier, folder / "classifier.safetensors")
    return {"classifier": network, "hypothesis_only": control}
