"""Tokenizers as others save them: what their files mean; what would give other ids than they intend is refused.

    tokenizer.json           all of a tokenizer, as the library `tokenizers` writes it; or
    vocab.txt                a vocabulary, a token a line
    tokenizer_config.json    settings; from a BertTokenizer's, transformers builds the tokenizer anew, so that
                             tokenizer.json has to agree
    special_tokens_map.json, added_tokens.json    older places of added tokens (minibert.hub.added_tokens)

Ids are those of transformers' `AutoTokenizer`, or loading fails with a line that says why.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from minibert.errors import UserError
from minibert.files import MOST_TEXT, is_file, read_json
from minibert.hub.added_tokens import (
    ADDED_TOKENS,
    SPECIAL_TOKENS_MAP,
    SPECIAL_TOKENS_MAP_TABLE,
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
    check_added,
)
from minibert.hub.settings import BUILT, CONFIG, MODERNBERT, TAKEN, TOKENIZERS, Table, Values, blaming
from minibert.tokenizer import CLS, SEP, SPECIAL_TOKENS, UNK, WordPieceTokenizer, bert_backend, has_capitals

VOCABULARY = "vocab.txt"
FILES = (TOKENIZER_JSON, VOCABULARY, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS, CONFIG)

TOKENIZER_CONFIG_TABLE = Table(
    used=f"""
        do_lower_case strip_accents tokenize_chinese_chars added_tokens_decoder model_max_length max_len
        {SPECIAL_TOKENS_MAP_TABLE.used} """,
    only={
        "tokenizer_class": (None, *TOKENIZERS), "auto_map": (None,), "truncation_side": ("right",),
        "padding_side": ("right",), "do_basic_tokenize": (True,), "never_split": (None, []), "clean_text": (True,),
        "wordpieces_prefix": ("##",), "split_special_tokens": (False,), "add_special_tokens": (True,),
        "add_bos_token": (False, None), "add_eos_token": (False, None), "add_prefix_space": (False,),
        "init_inputs": ([],), "model_input_names": (
            ["input_ids", "token_type_ids", "attention_mask"], ["input_ids", "attention_mask"],
            ["input_ids", "attention_mask", "token_type_ids"],
        ),
    },
    harmless="""
        backend is_local local_files_only name_or_path special_tokens_map_file tokenizer_file processor_class
        chat_template clean_up_tokenization_spaces max_length stride truncation_strategy pad_to_multiple_of
        pad_token_type_id """,
)  # fmt: skip
TOKENIZER_TABLE = Table(
    used="model normalizer pre_tokenizer post_processor decoder added_tokens truncation padding",
    harmless="version",
    strict=True,
)
MODEL_TABLE = Table(
    used="type vocab max_input_chars_per_word",
    only={"unk_token": (UNK,), "continuing_subword_prefix": ("##",)},
    strict=True,
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
MOST_ADDED = 10_000  # with more, the library takes seconds; BERT's own folders have up to 1,000


def read_tokenizer(path: Path) -> WordPieceTokenizer:
    """Read a vocab.txt, a tokenizer.json, or a folder with either; and the settings beside it."""
    files = [path / name for name in (TOKENIZER_JSON, VOCABULARY) if is_file(path / name)] if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} has neither a {TOKENIZER_JSON} nor a {VOCABULARY}")
    file = files[0]
    settings, _ = TOKENIZER_CONFIG_TABLE.read(file.with_name(TOKENIZER_CONFIG))
    values: Values = {}
    if is_json := file.suffix == ".json":
        values = read_json(file, "")
        settings["tokenizer_class"] = _class(file.with_name(CONFIG), settings)
    with blaming(file):
        backend = _of_json(file, values, settings) if is_json else _of_vocabulary(file, settings)
        check_added(backend, values.get("added_tokens", []), file, settings)
        return WordPieceTokenizer(backend)


def _of_vocabulary(file: Path, settings: Values) -> Tokenizer:
    """BERT's tokenizer over a vocab.txt."""
    if settings.get("tokenizer_class") in TAKEN:
        raise UserError(
            f"{TOKENIZER_CONFIG} has the tokenizer_class {settings['tokenizer_class']}, which needs a {TOKENIZER_JSON}"
        )
    is_file(file, MOST_TEXT)
    try:
        text = file.read_text(encoding="utf-8-sig")  # Windows' editors put a mark before the first token
    except (OSError, ValueError) as error:
        raise UserError(f"not a WordPiece vocabulary: {error}") from error
    tokens = [line.rstrip() for line in text.rstrip().split("\n")]
    if "" in tokens:
        raise UserError(f"line {tokens.index('') + 1} is blank: a token's id is the number of its line")
    if is_file(file.with_name(TOKENIZER_CONFIG)) and settings.get("do_lower_case") is None and has_capitals(tokens):
        raise UserError(f"it has capital letters, which others would drop: set do_lower_case in {TOKENIZER_CONFIG}")
    lowercase, strip_accents = _flag(settings, "do_lower_case", None), _flag(settings, "strip_accents", None)
    return bert_backend(tokens, lowercase, strip_accents, bool(_flag(settings, "tokenize_chinese_chars", True)))


def _flag(settings: Values, name: str, missing: bool | None) -> bool | None:
    value = settings.get(name)
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{TOKENIZER_CONFIG} has the {name} {value!r:.40}, which is neither true nor false")
    return missing if value is None else value


def _class(config: Path, settings: Values) -> str:
    """The class that transformers makes from a tokenizer.json; a ModernBERT's is the same whatever a file says."""
    values = read_json(config, None)
    name = settings.get("tokenizer_class") or values.get("tokenizer_class") or BUILT[0]
    if name not in TOKENIZERS:
        raise UserError(f"{config} asks for tokenizer_class {name!r:.60}: minibert knows only {', '.join(TOKENIZERS)}")
    return TAKEN[-1] if values.get("model_type") == MODERNBERT.model_type else str(name)


def _of_json(file: Path, values: Values, settings: Values) -> Tokenizer:
    """The tokenizer of a tokenizer.json, without its truncation and padding."""
    TOKENIZER_TABLE.check("it", values)
    for part in TYPES:
        _check_types(part, values.get(part))
    for part in ("truncation", "padding"):
        if isinstance(values.get(part), dict) and values[part].get("direction", "Right") != "Right":
            raise UserError(f"the {part} is at the {values[part]['direction']!r:.20}: minibert knows only 'Right'")
    MODEL_TABLE.check("its model", values["model"])
    if len(values.get("added_tokens", [])) > MOST_ADDED:
        raise UserError(f"{len(values['added_tokens']):,} added tokens: there may be at most {MOST_ADDED:,}")
    # To transformers, a folder without settings is BERT's; a file by itself is what it says.
    is_a_models = is_file(file.with_name(TOKENIZER_CONFIG)) or is_file(file.with_name(CONFIG))
    if is_a_models and settings["tokenizer_class"] in BUILT:
        _check_built(values, settings)
    try:
        backend = Tokenizer.from_str(json.dumps({"added_tokens": [], **values, "truncation": None, "padding": None}))
        pieces, text = (backend.encode("a", add_special_tokens=special) for special in (False, True))
    except Exception as error:  # the library raises bare Exception for what it can't read
        raise UserError(f"not a WordPiece vocabulary: {error}") from error
    if text.ids != [backend.token_to_id(CLS), *pieces.ids, backend.token_to_id(SEP)] or any(text.type_ids):
        raise UserError(f"its post_processor does not turn a text into {CLS} text {SEP}: minibert knows only that")
    return backend


def _check_types(part: str, value: Any, left: int = MOST_STEPS) -> None:
    """Refuse unknown types before the library meets them: it may do anything, even panic."""
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
            raise UserError(f"the {part} is not a Sequence of at most {MOST_STEPS} steps")
        for step in steps:
            _check_types(part, step, left - len(steps))


def _check_built(values: Values, settings: Values) -> None:
    """Compare a tokenizer.json with the tokenizer that transformers builds from the settings beside it."""
    lowercase, chinese = (bool(_flag(settings, name, True)) for name in ("do_lower_case", "tokenize_chinese_chars"))
    backend = bert_backend(SPECIAL_TOKENS, lowercase, _flag(settings, "strip_accents", lowercase), chinese)
    built = json.loads(backend.to_str()) | {"max_input_chars_per_word": 100}
    given = {"normalizer": None, "pre_tokenizer": None, "max_input_chars_per_word": 100} | values["model"] | values
    if given["normalizer"] and given["normalizer"].get("strip_accents") is None:
        given["normalizer"] = {**given["normalizer"], "strip_accents": given["normalizer"].get("lowercase")}
    for name in ("normalizer", "pre_tokenizer", "max_input_chars_per_word"):
        if given[name] != built[name]:
            raise UserError(
                f"its {name} is {json.dumps(given[name]):.200}, but by {TOKENIZER_CONFIG} (a {BUILT[0]}'s)"
                f" {json.dumps(built[name])}: make them agree, or set tokenizer_class to {TAKEN[0]} there if this"
                " file is right"
            )
