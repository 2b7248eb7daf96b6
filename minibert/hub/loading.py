"""Loading: a folder, a zip of one, or a name on the Hub becomes a model ready to use."""

from __future__ import annotations

import logging
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from minibert.bert import Bert, BertForMaskedLM
from minibert.config import checked_labels
from minibert.errors import UserError, hub_reason, printable
from minibert.files import CHECKSUMS, MOST_TEXT, check_folder, is_file, read_json
from minibert.hub.names import check_complete, encoder_names, has_mlm_head, import_weights, left_out, mlm_names
from minibert.hub.sentences import SentenceSettings, encoder_folder, modules_after, read_sentence_settings
from minibert.hub.settings import ADVICE, WEIGHTS, Table, blaming, check_inside, read_config
from minibert.hub.tokenization import FILES as TOKENIZER_FILES
from minibert.hub.tokenization import read_tokenizer
from minibert.inference import TrainedModel
from minibert.modern import make_bert, make_masked_lm
from minibert.sbert import FEATURES, NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer

SHARDS, CLASSIFIER = "model.safetensors.index.json", "classifier.json"

# Tokenizers may have a few tokens less than the model has rows: some round the matrix up to a multiple of 64 or 128.
MOST_SPARE_ROWS = 127

# Where networks are made with shapes but no numbers: `import_weights` brings these after comparing the shapes. So
# a configuration that asks for more than its file holds costs nothing.
NOWHERE = torch.device("meta")

# What is fetched from the Hub and unpacked from a zip: never a pickle, never code.
FILES = ("*.json", "*.safetensors", "vocab.txt", CHECKSUMS)
MOST_UNPACKED = 4 * 2**30  # bytes, three times a BERT-large
MOST_ENTRIES = 10_000  # that a zip may have, of any kind

# A name on the Hub: USER/MODEL, or one of the old models that have no user.
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)

# Where our own scripts write: whoever has that name on the Hub must not replace a folder that does not exist yet.
OUTPUTS = "models"

CLASSIFIER_TABLE = Table(used="labels features max_length dropout hypothesis_only", strict=True)


def from_pretrained(name: str | Path) -> TrainedModel:
    """Load a BERT, with those of its heads that minibert knows, on the CPU and in evaluation mode.

    Args:
        name: a folder in Hugging Face's layout, a zip of one, or a name on the Hugging Face Hub. Folders of
            train_mlm.py, train_nli.py, `transformers` and `sentence-transformers` all have this layout.
    Returns:
        the model; its `ignored`, and a line of the log "minibert", name what was not used of the folder.
    Raises:
        UserError: there is no such name, something is missing or damaged, or it asks for what minibert does not do.
    """
    with _opened(name) as folder:
        network, tokenizer, ignored = _read_network(encoder_folder(folder), with_head=None)
        masked_lm = network if isinstance(network, BertForMaskedLM) else None
        encoder = network if masked_lm is None else masked_lm.bert
        settings = read_sentence_settings(folder, encoder.config.max_position_embeddings, encoder.config.hidden_size)
        if settings.lowercase and not tokenizer.lowercase:
            raise UserError(
                f"{folder} asks for do_lower_case, but its tokenizer keeps case: minibert does not mix the two"
            )
        with NOWHERE:
            sentence_encoder = SentenceEncoder(encoder, settings.pooling, settings.width)
        if sentence_encoder.projection is not None:
            _fill_linear(sentence_encoder.projection, folder / settings.dense / WEIGHTS, "linear.")
        parts = _read_classifier(folder, sentence_encoder, settings)
    ignored += map(printable, settings.ignored)
    if ignored:
        logging.getLogger("minibert").warning("%s has more than is used here: %s", name, printable(left_out(ignored)))
    model = TrainedModel(
        sentence_encoder, tokenizer, settings.max_length, settings.normalize, masked_lm, ignored=tuple(ignored), **parts
    )
    for each in model.networks:
        each.eval()
    return model


def load_classifier(name: str | Path) -> TrainedModel:
    """Load a model that has to have a classifier; a UserError if it has none."""
    model = from_pretrained(name)
    if model.classifier is None:
        raise UserError(f"{name} has no classifier: train one with train_nli.py")
    return model


def load_encoder(name: str | Path) -> tuple[Bert, WordPieceTokenizer, list[str]]:
    """The encoder alone, for further training, its tokenizer, and the names of what was not used."""
    with _opened(name) as folder:
        encoder, tokenizer, unused = _read_network(encoder_folder(folder), with_head=False)
        classifier = ["classifier"] if is_file(folder / CLASSIFIER) else []
        return encoder, tokenizer, [*unused, *(module.lower() for module in modules_after(folder)), *classifier]


def load_mlm(name: str | Path, dropout: float | None = None) -> tuple[BertForMaskedLM, WordPieceTokenizer, list[str]]:
    """Likewise, an encoder with its MLM head; `dropout` is the rate within the encoder, None = the folder's."""
    with _opened(name) as folder:
        return _read_network(encoder_folder(folder), with_head=True, dropout=dropout)


def load_tokenizer(name: str | Path) -> WordPieceTokenizer:
    """Read a vocab.txt, a tokenizer.json, or a folder with either; or fetch one from the Hub by its name."""
    path = Path(name)
    if not path.is_dir() and not is_file(path):
        advice = "pass --vocab the path of a vocab.txt, or --vocab train to learn one from the data"
        path = _fetched(str(name), TOKENIZER_FILES, "file", advice)
    if path.is_dir():
        check_folder(path, TOKENIZER_FILES)
    return read_tokenizer(path)


@contextmanager
def _opened(name: str | Path) -> Iterator[Path]:
    """The folder that a name stands for."""
    path = Path(name)
    if path.is_dir():
        check_folder(path)
        yield path
    elif path.is_file() and zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory() as temporary, blaming(path):
            folder = _unpacked(path, Path(temporary))
            check_folder(folder)
            yield folder
    elif path.exists():
        raise UserError(f"{path} is neither a folder nor a zip of one")
    else:
        yield _fetched(str(name), FILES, "folder", ADVICE)


def _fetched(name: str, files: Sequence[str], kind: str, advice: str) -> Path:
    """A folder with some of the files that the Hub has under a name, unless it looks like a path."""
    parent = Path(name).parent
    if not HUB_NAME.fullmatch(name) or parent.name == OUTPUTS or (parent.name and parent.is_dir()):
        raise UserError(f"no {kind} {name}: {advice}")
    from huggingface_hub import snapshot_download  # a folder does not need it

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # no network, no such name, or no name at all: each has an error of its own
        raise UserError(
            f"no {kind} {name}, and the Hugging Face Hub gave no model of that name ({hub_reason(error)}): {advice}"
        ) from error


def _unpacked(path: Path, target: Path) -> Path:
    """Unpack only a model's files from a zip; returns where they are: the target, or its one folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(target, _entries(archive.infolist()))
    except UserError:
        raise
    except Exception as error:  # damaged, encrypted, or of an unknown compression: each has an error of its own
        raise UserError(f"damaged, or a zip that can't be read: {error}") from error
    top = list(target.iterdir())
    return top[0] if len(top) == 1 and top[0].is_dir() else target


def _entries(members: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The entries to unpack: files of a model that do not point elsewhere."""
    if len(members) > MOST_ENTRIES:
        raise UserError(f"more than {MOST_ENTRIES:,} entries: it is not a model's folder")
    entries: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in members:
        name, place = entry.filename, PurePosixPath(entry.filename)
        strange = place.is_absolute() or "\\" in name or any(part.startswith((".", "__MACOSX")) for part in place.parts)
        if strange or name.endswith("/") or not any(place.match(pattern) for pattern in FILES):
            continue
        if place in entries:
            raise UserError("two entries have the same name")
        if place.suffix != ".safetensors" and entry.file_size > MOST_TEXT:
            raise UserError(f"{name} has {entry.file_size:,} bytes, but may have at most {MOST_TEXT:,}")
        entries[place] = entry
    if sum(entry.file_size for entry in entries.values()) > MOST_UNPACKED:
        raise UserError(f"more than {MOST_UNPACKED:,} bytes unpacked: unpack it yourself and pass the folder")
    return list(entries.values())


def _read_network(
    folder: Path, with_head: bool | None, dropout: float | None = None
) -> tuple[Any, WordPieceTokenizer, list[str]]:
    """A `Bert` or, `with_head`, a `BertForMaskedLM` (None = if there is one), its tokenizer, and what was not used."""
    config, ignored = read_config(folder)
    if dropout is not None:
        config = replace(config, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    tensors = _read_weights(folder)
    with blaming(folder), NOWHERE:
        if with_head is None:
            with_head = has_mlm_head(tensors, config)
        names = mlm_names(config) if with_head else encoder_names(config)
        check_complete(tensors, names)  # first, since making a thousand layers takes seconds, though no memory
        network = make_masked_lm(config) if with_head else make_bert(config)
        ignored += import_weights(network, tensors, names)
    tokenizer = read_tokenizer(folder)
    if not config.vocab_size - MOST_SPARE_ROWS <= tokenizer.vocab_size <= config.vocab_size:
        raise UserError(
            f"{folder}: the vocabulary has {tokenizer.vocab_size:,} tokens, but the model {config.vocab_size:,}:"
            " they are not from one training"
        )
    return network, tokenizer, [printable(name) for name in ignored]


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


def _fill_linear(layer: nn.Linear, path: Path, prefix: str = "") -> None:
    with blaming(path):
        import_weights(layer, _read_tensors(path), {prefix + name: (name,) for name in ("weight", "bias")})


def _read_classifier(folder: Path, encoder: SentenceEncoder, sentences: SentenceSettings) -> dict[str, Any]:
    """What `TrainedModel` needs to know about the classifier beside an encoder; nothing if there is none."""
    file = folder / CLASSIFIER
    if not is_file(file):
        return {}
    settings: Any = CLASSIFIER_TABLE.read(file)[0]
    if not isinstance(labels := settings.get("labels"), list):
        raise UserError(f"{file} has the labels {labels!r:.100}, not a list of names")
    labels = checked_labels(labels, str(file))
    if settings.get("features") != [*FEATURES]:
        raise UserError(f"{file} has the features {settings.get('features')!r:.100}, not {[*FEATURES]}")
    length, dropout, control = (settings.get(name) for name in ("max_length", "dropout", "hypothesis_only"))
    if type(length) is not int or length != sentences.max_length:
        raise UserError(f"{file} has the max_length {length!r:.40}, but other files {sentences.max_length}")
    if type(dropout) not in (int, float) or not 0 <= dropout < 1 or type(control) is not bool:
        raise UserError(f"{file} has a dropout outside [0, 1), or a hypothesis_only that is not true or false")
    with NOWHERE:
        network = NLIClassifier(encoder, dropout, labels)
    _fill_linear(network.classifier, folder / "classifier.safetensors")
    return {"classifier": network, "hypothesis_only": control}
