"""Tokenizers as others save them: what their files mean, and the refusal of what would give other ids than was meant.

    tokenizer.json           all of a tokenizer, as the library `tokenizers` writes it; or
    vocab.txt                a vocabulary, a token a line
    tokenizer_config.json    settings; of a BertTokenizer's, transformers builds the tokenizer anew, so that
                             tokenizer.json has to say the same
    special_tokens_map.json, added_tokens.json    older places of added tokens

Ids are those of transformers' `AutoTokenizer`, or loading ends with a line that says why not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from minibert.errors import UserError
from minibert.files import MOST_TEXT, check_folder, is_file, read_json
from minibert.hub.added_tokens import (
    ADDED,
    BUILT,
    SETTINGS,
    SPECIAL_MAP,
    SPECIAL_TOKENS_MAP,
    WHOLE,
    read_added_tokens,
)
from minibert.hub.kinds import MODERNBERT
from minibert.hub.remote import fetched
from minibert.hub.settings import CONFIG
from minibert.hub.tables import Table, blaming, read_optional
from minibert.tokenizer import CLS, SEP, UNK, WordPieceTokenizer, bert_backend, has_capitals

VOCABULARY = "vocab.txt"
FILES = (WHOLE, VOCABULARY, SETTINGS, SPECIAL_MAP, ADDED, CONFIG)

# The classes that transformers takes as tokenizer.json has them; others it builds of the vocabulary and the settings.
TAKEN = ("PreTrainedTokenizerFast", "TokenizersBackend")

TOKENIZER_CONFIG = Table(
    used={
        "do_lower_case": "true if it is missing",
        "strip_accents": "as `do_lower_case` if it is missing or null",
        "tokenize_chinese_chars": "true if it is missing",
        "added_tokens_decoder": "added tokens, all of them if it is there",
        "model_max_length": "tokens kept of each text",
        "max_len": "the same, in older folders",
        **SPECIAL_TOKENS_MAP.used,
    },
    only={
        "tokenizer_class": (*BUILT, None, *TAKEN),
        "auto_map": (None,),
        "truncation_side": ("right",),
        "padding_side": ("right",),
        "do_basic_tokenize": (True,),
        "never_split": (None, []),
        "clean_text": (True,),
        "wordpieces_prefix": ("##",),
        "split_special_tokens": (False,),
        "add_special_tokens": (True,),
        "add_bos_token": (False, None),
        "add_eos_token": (False, None),
        "add_prefix_space": (False,),
        "init_inputs": ([],),
        "model_input_names": (
            ["input_ids", "token_type_ids", "attention_mask"], ["input_ids", "attention_mask"],
            ["input_ids", "attention_mask", "token_type_ids"],
        ),
    },
    harmless={
        "backend": "who wrote the file",
        "is_local": "where the folder came from",
        "local_files_only": "where the folder came from",
        "name_or_path": "where the folder came from",
        "special_tokens_map_file": "where the folder came from",
        "tokenizer_file": "where the folder came from",
        "processor_class": "for other kinds of input",
        "chat_template": "for models that chat",
        "clean_up_tokenization_spaces": "of text from ids",
        "max_length": "texts are cut to `model_max_length`",
        "stride": "of texts that are cut into several",
        "truncation_strategy": "for pairs of texts",
        "pad_to_multiple_of": "padding is invisible to the model",
        "pad_token_type_id": "padding is invisible to the model",
    },
)  # fmt: skip

TOKENIZER = Table(
    used={
        "model": "a WordPiece",
        "normalizer": "one of those below, or null",
        "pre_tokenizer": "one of those below, or null",
        "post_processor": "has to give [CLS] text [SEP]",
        "decoder": "a WordPiece's, or null",
        "added_tokens": "tokens that are found before anything else is done",
        "truncation": "texts are cut to `model_max_length`; refused if at the left",
        "padding": "refused if at the left",
    },
    harmless={"version": "the format's"},
)

# The types that a part of tokenizer.json may have.
TYPES = {
    "model": ("WordPiece",),
    "normalizer": ("BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD", "Sequence"),
    "pre_tokenizer": ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "Sequence"),
    "post_processor": ("TemplateProcessing", "BertProcessing"),
    "decoder": ("WordPiece",),
}
STEPS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}  # what a Sequence calls its parts
MOST_STEPS = 20

MODEL = Table(
    used={"type": "WordPiece", "vocab": "tokens and their ids", "max_input_chars_per_word": "longer words are [UNK]"},
    only={"unk_token": (UNK,), "continuing_subword_prefix": ("##",)},
)


def load_tokenizer(name: str | Path) -> WordPieceTokenizer:
    """Read a vocab.txt, a tokenizer.json, or a folder with either; or fetch one from the Hub by its name.

    Raises:
        UserError: there is no such path and no such name, the files are not a WordPiece tokenizer's, or would give
            other ids than was meant; or the folder's SHA256SUMS says that one of them is damaged. What else is in a
            folder does not matter.
    """
    path = Path(name)
    if not path.is_dir():
        if is_file(path):
            return _read(path)
        advice = "pass --vocab the path of a vocab.txt, or --vocab train to learn one from the data"
        path = fetched(str(name), FILES, "file", advice)
    check_folder(path, FILES)
    for file in (WHOLE, VOCABULARY):
        if is_file(path / file):
            return _read(path / file)
    raise UserError(f"{path} has neither a {WHOLE} nor a {VOCABULARY}")


def _read(file: Path) -> WordPieceTokenizer:
    """A tokenizer from its vocabulary and what lies beside it."""
    settings, _ = read_optional(file.with_name(SETTINGS), TOKENIZER_CONFIG)
    values = read_json(file, "") if file.suffix == ".json" else {}
    is_file(file, MOST_TEXT)
    if file.suffix == ".json":
        settings["tokenizer_class"] = _class(file, settings)
    with blaming(file):
        tokens = read_added_tokens(file, values.get("added_tokens") or [], settings)
        backend = _whole(file, values, settings) if file.suffix == ".json" else _of_vocabulary(file, settings)
        tokens.add_to(backend)
        tokens.compare_with(backend)
        return WordPieceTokenizer(backend)


def _class(file: Path, settings: Mapping[str, Any]) -> str:
    """The class that transformers makes of a tokenizer.json; a ModernBERT's is the same whatever a file says."""
    config = file.with_name(CONFIG)
    values = read_json(config, "") if is_file(config) else {}
    name = settings.get("tokenizer_class") or values.get("tokenizer_class") or BUILT[0]
    if name not in (*BUILT, *TAKEN):
        raise UserError(
            f"{config} asks for tokenizer_class {name!r:.60}: minibert knows only {', '.join(BUILT + TAKEN)}"
        )
    return TAKEN[-1] if values.get("model_type") == MODERNBERT.model_type else str(name)


# --- a vocabulary ---


def _of_vocabulary(file: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """BERT's tokenizer over a vocab.txt."""
    if settings.get("tokenizer_class") in TAKEN:
        raise UserError(f"{SETTINGS} has the tokenizer_class {settings['tokenizer_class']}, which needs a {WHOLE}")
    try:
        text = file.read_text(encoding="utf-8-sig")  # Windows' editors put a mark before the first token
    except (OSError, ValueError) as error:
        raise UserError(f"not a WordPiece vocabulary: {error}") from error
    tokens = [line.rstrip() for line in text.rstrip().split("\n")]
    if "" in tokens:
        raise UserError(f"line {tokens.index('') + 1} is blank: a token's id is the number of its line")
    if is_file(file.with_name(SETTINGS)) and settings.get("do_lower_case") is None and has_capitals(tokens):
        raise UserError(f"it has capital letters, which others would drop: say do_lower_case in {SETTINGS}")
    return bert_backend(
        tokens,
        lowercase=_flag(settings, "do_lower_case", None),
        strip_accents=_flag(settings, "strip_accents", None),
        chinese=bool(_flag(settings, "tokenize_chinese_chars", True)),
    )


def _flag(settings: Mapping[str, Any], name: str, missing: bool | None) -> bool | None:
    value = settings.get(name, missing)
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{SETTINGS} has the {name} {value!r:.40}, which is neither true nor false")
    return missing if value is None else value


# --- tokenizer.json ---


def _whole(file: Path, values: dict[str, Any], settings: Mapping[str, Any]) -> Tokenizer:
    """All that a tokenizer.json says, its truncation and padding left out."""
    TOKENIZER.check_all(file, values)
    for part in TYPES:
        _check_types(part, values.get(part))
    for part in ("truncation", "padding"):
        if isinstance(values.get(part), dict) and values[part].get("direction", "Right") != "Right":
            raise UserError(f"the {part} is at the {values[part]['direction']!r:.20}: minibert knows only 'Right'")
    MODEL.check_all(file, values["model"])
    # A folder without settings is BERT's to transformers, a file by itself is what it says.
    is_a_models = is_file(file.with_name(SETTINGS)) or is_file(file.with_name(CONFIG))
    if is_a_models and settings["tokenizer_class"] in BUILT:
        _check_built(values, settings)
    try:
        backend = Tokenizer.from_str(json.dumps({"added_tokens": [], **values, "truncation": None, "padding": None}))
    except Exception as error:  # the library raises bare Exception for what it can't read
        raise UserError(f"not a WordPiece vocabulary: {error}") from error
    _check_post_processor(values.get("post_processor"), backend)
    return backend


def _check_types(part: str, value: Any, left: int = MOST_STEPS) -> None:
    """Refuse what is not known, before the library meets it: it may do anything, or give up in a panic."""
    if value is None and part != "model":
        return
    if not isinstance(value, dict):
        raise UserError(f"not a WordPiece vocabulary: its {part} is {value!r:.40}")
    kind = value.get("type", "WordPiece" if part == "model" and "continuing_subword_prefix" in value else None)
    if kind not in TYPES[part]:
        raise UserError(f"the {part} is a {kind!s:.40}, not a {' or '.join(TYPES[part])}: minibert knows no other")
    if kind == "Sequence":
        steps = value.get(STEPS[part])
        if not isinstance(steps, list) or len(steps) > left or None in steps:
            raise UserError(f"the {part} is a Sequence of something else than up to {MOST_STEPS} steps")
        for step in steps:
            _check_types(part, step, left - len(steps))


def _check_built(values: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Compare a tokenizer.json with the tokenizer that transformers builds of the settings beside it."""
    lowercase = bool(_flag(settings, "do_lower_case", True))
    built = {
        "clean_text": True,
        "handle_chinese_chars": bool(_flag(settings, "tokenize_chinese_chars", True)),
        "strip_accents": bool(_flag(settings, "strip_accents", lowercase)),
        "lowercase": lowercase,
    }
    normalizer = dict(values.get("normalizer") or {})
    if normalizer and normalizer.get("strip_accents") is None:
        normalizer["strip_accents"] = normalizer.get("lowercase")
    parts = {
        "normalizer": (normalizer, {"type": "BertNormalizer", **built}),
        "pre_tokenizer": (values.get("pre_tokenizer"), {"type": "BertPreTokenizer"}),
        "max_input_chars_per_word": (values["model"].get("max_input_chars_per_word", 100), 100),
    }
    for name, (here, there) in parts.items():
        if here != there:
            raise UserError(
                f"its {name} is {json.dumps(here):.200}, but by {SETTINGS} (a {BUILT[0]}'s) {json.dumps(there)}: make"
                f" them agree, or have the tokenizer_class {TAKEN[0]} there if this file is right"
            )


def _check_post_processor(value: Any, backend: Tokenizer) -> None:
    """Refuse what gives something else than [CLS] text [SEP], or nothing."""
    ids = {token: backend.token_to_id(token) for token in (CLS, SEP)}
    template = [{"SpecialToken": {"id": CLS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": SEP, "type_id": 0}}]  # fmt: skip
    if value is not None and value["type"] == "BertProcessing":
        right = (value["cls"], value["sep"]) == ([CLS, ids[CLS]], [SEP, ids[SEP]])
    else:
        right = value is not None and value["single"] == template
        right = right and all(value["special_tokens"].get(token, {}).get("ids") == [ids[token]] for token in ids)
    if not right:
        raise UserError(f"its post_processor does not make {CLS} text {SEP} of a text: minibert knows only that")
