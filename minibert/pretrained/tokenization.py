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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from minibert.data.tokenizer import CLS, MASK, PAD, SEP, SPECIAL_TOKENS, UNK, WordPieceTokenizer, bert_backend
from minibert.errors import UserError
from minibert.files import MOST_TEXT, check_folder, is_file, read_json
from minibert.pretrained.remote import fetched
from minibert.pretrained.tables import Table, blaming, read_optional

WHOLE, VOCABULARY, SETTINGS = "tokenizer.json", "vocab.txt", "tokenizer_config.json"
SPECIAL_MAP, ADDED = "special_tokens_map.json", "added_tokens.json"
FILES = (WHOLE, VOCABULARY, SETTINGS, SPECIAL_MAP, ADDED)

# What transformers builds of the vocabulary and the settings, and what it takes as tokenizer.json has it.
BUILT = ("BertTokenizer", "BertTokenizerFast", None)
TAKEN = ("PreTrainedTokenizerFast", "TokenizersBackend")

# The names of special tokens in the settings, in the order in which transformers adds them; then lists of further ones.
NAMES = {"bos_token": None, "eos_token": None, "unk_token": UNK, "sep_token": SEP, "pad_token": PAD, "cls_token": CLS,
         "mask_token": MASK}  # fmt: skip
LISTS = ("additional_special_tokens", "extra_special_tokens")
_TOKENS = {
    **dict.fromkeys(NAMES, "an added token; one of BERT's five has to have its usual name"),
    **dict.fromkeys(LISTS, "added tokens"),
}

TOKENIZER_CONFIG = Table(
    used={
        "do_lower_case": "true if it is missing",
        "strip_accents": "as `do_lower_case` if it is missing or null",
        "tokenize_chinese_chars": "true if it is missing",
        "added_tokens_decoder": "added tokens, all of them if it is there",
        "model_max_length": "tokens kept of each text",
        "max_len": "the same, in older folders",
        **_TOKENS,
    },
    only={
        "tokenizer_class": (*BUILT, *TAKEN),
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

SPECIAL_TOKENS_MAP = Table(used=_TOKENS)

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
    with blaming(file):
        backend = _whole(file, values, settings) if file.suffix == ".json" else _of_vocabulary(file, settings)
        _add_tokens(backend, file, values.get("added_tokens") or [], settings)
        return WordPieceTokenizer(backend)


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
    TOKENIZER.check(file, values)
    for part in TYPES:
        _check_types(part, values.get(part))
    for part in ("truncation", "padding"):
        if isinstance(values.get(part), dict) and values[part].get("direction", "Right") != "Right":
            raise UserError(f"the {part} is at the {values[part]['direction']!r:.20}: minibert knows only 'Right'")
    MODEL.check(file, values["model"])
    # A folder without settings is BERT's to transformers, a file by itself is what it says.
    is_a_models = is_file(file.with_name(SETTINGS)) or is_file(file.with_name("config.json"))
    if is_a_models and settings.get("tokenizer_class") in BUILT:
        _check_built(values, settings)
    try:
        backend = Tokenizer.from_str(json.dumps({"added_tokens": [], **values, "truncation": None, "padding": None}))
    except Exception as error:  # the library raises bare Exception for what it can't read
        raise UserError(f"not a WordPiece vocabulary: {error}") from error
    _check_post_processor(values["post_processor"], backend)
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
    if normalizer.get("strip_accents") is None:
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
    if value is not None and value["type"] == "BertProcessing":
        right = (value.get("cls"), value.get("sep")) == ([CLS, ids[CLS]], [SEP, ids[SEP]])
    else:
        shown = [{"SpecialToken": {"id": CLS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                 {"SpecialToken": {"id": SEP, "type_id": 0}}]  # fmt: skip
        named = (value or {}).get("special_tokens", {})
        right = value is not None and value.get("single") == shown
        right = right and all(named[token]["ids"] == [index] for token, index in ids.items())
    if not right:
        raise UserError(f"its post_processor does not make {CLS} text {SEP} of a text: minibert knows only that")


# --- added tokens ---


FLAGS = ("single_word", "lstrip", "rstrip", "normalized")  # the fifth, "special", changes no ids


@dataclass(frozen=True)
class _Token:
    """An added token as one place has it: with an id or without, with all of its flags or some."""

    place: str
    content: str
    index: int | None
    flags: Mapping[str, bool]


def _token(place: str, value: Any, index: Any = None) -> _Token:
    """A token that is written as its text, or as an object with its flags."""
    values = {"content": value} if isinstance(value, str) else value
    content = values.get("content") if isinstance(values, dict) else None
    if not isinstance(content, str) or not content:
        raise UserError(f"{place} has {value!r:.60} among its added tokens, which is no token")
    flags: dict[str, Any] = {flag: values[flag] for flag in FLAGS if flag in values}
    if not all(isinstance(flag, bool) for flag in flags.values()) or type(index) not in (int, type(None)):
        raise UserError(f"{place} has an id or a flag of {content!r:.40} that makes no sense")
    return _Token(place, content, index, flags)


def _tokens_by_id(place: str, values: Any) -> list[_Token]:
    """`added_tokens_decoder`: an object of ids and tokens."""
    if not isinstance(values, dict) or not all(name.isdecimal() for name in values):
        raise UserError(f"{place} has an added_tokens_decoder that is not an object of ids and tokens")
    return [_token(place, values[index], int(index)) for index in sorted(values, key=int)]


def _tokens_by_name(place: str, values: Mapping[str, Any]) -> list[_Token]:
    """Special tokens, `cls_token` and the like, and lists of further ones."""
    for name, known in NAMES.items():
        if known and name in values and _token(place, values[name] or "null").content != known:
            raise UserError(f"{place} asks for {name} {values[name]!r:.60}: minibert knows only {known!r}")
    further = [name for name in values if name.endswith("_token") and isinstance(values[name], str | dict)]
    tokens = [values[name] for name in dict.fromkeys([*NAMES, *further]) if values.get(name) is not None]
    for name in LISTS:
        listed = values.get(name) or []
        tokens += listed.values() if isinstance(listed, dict) else listed
    return [_token(place, token) for token in tokens]


def _special_to_old(settings: Mapping[str, Any], names: Mapping[str, Any]) -> set[str]:
    """The tokens that transformers knows to be special when it reads added_tokens.json; it learns of others later."""
    merged = {**settings, **names}
    told = {name: merged[name] for name in NAMES if name in merged}
    told |= {name: settings[name] for name in LISTS if isinstance(settings.get(name), list)}
    told |= {name: names[name] for name in LISTS[1:] if isinstance(names.get(name), list)}
    return {token.content for token in _tokens_by_name(SETTINGS, told)} | set(SPECIAL_TOKENS)


def _add_tokens(backend: Tokenizer, file: Path, own: list[Any], settings: Mapping[str, Any]) -> None:
    """Give a tokenizer the added tokens of all the places where transformers keeps them, in its order.

    Raises:
        UserError: a place contradicts another one, or lacks a token that it would have to have.
    """
    names, unknown = read_optional(file.with_name(SPECIAL_MAP), SPECIAL_TOKENS_MAP)
    if strange := [name for name in unknown if not name.endswith("_token")]:
        raise UserError(f"{SPECIAL_MAP} has {strange[0]!r:.40}, which is no special token: it belongs into {SETTINGS}")
    old = read_json(file.with_name(ADDED), "") if is_file(file.with_name(ADDED)) else {}
    usual = {name: token for name, token in NAMES.items() if token} if settings.get("tokenizer_class") in BUILT else {}
    if any(names.get(name, settings.get(name)) != settings.get(name, names.get(name)) for name in LISTS):
        raise UserError(f"{SETTINGS} and {SPECIAL_MAP} have other special tokens")

    listed = _tokens_by_id(SETTINGS, settings.get("added_tokens_decoder") or {})
    named = _tokens_by_name(SETTINGS, {**usual, **settings})
    mapped = _tokens_by_name(SPECIAL_MAP, names)
    added = [_token(ADDED, content, index) for content, index in old.items()]
    added.sort(key=lambda token: -1 if token.index is None else token.index)
    whole = [_token(WHOLE, value, value.get("id") if isinstance(value, dict) else None) for value in own]

    ordered = [*listed, *added, *_tokens_by_name(SPECIAL_MAP, {**usual, **settings, **names})]
    special = {token.content for token in (*named, *mapped)}
    complete = "added_tokens_decoder" in settings  # all of them, so that others do not read the older places
    normalized = {token.content for token in added if not complete} - _special_to_old(settings, names)
    there = {token.content for token in backend.get_added_tokens_decoder().values()}
    missing: dict[str, AddedToken] = {}
    for token in ordered:
        content = token.content
        if content not in there:
            flags = {"normalized": content not in special or content in normalized, **token.flags}
            missing.setdefault(content, AddedToken(content, **flags, special=content in special))
    backend.add_tokens(list(missing.values()))

    known = backend.get_added_tokens_decoder()
    for token in (*whole, *ordered, *mapped, *named):
        index = backend.token_to_id(token.content)
        if index not in known or token.index not in (None, index):
            raise UserError(f"{token.place} has {token.content!r:.40} as token {token.index}, but it is {index}")
        for flag, value in token.flags.items():
            if getattr(known[index], flag) is not value:
                raise UserError(f"{token.place} has {flag} {value} for {token.content!r:.40}, another place has not")
    if complete:
        known_there = {token.content for token in (*listed, *named)}
        plain = known_there - {token.content for token in listed}  # added as any special token is
        for token in (*whole, *added, *mapped):
            if token.content not in known_there or (token.content in plain and any(token.flags.values())):
                raise UserError(f"{token.place} has the added token {token.content!r:.40}, {SETTINGS} has not")
    for content in SPECIAL_TOKENS:
        if backend.token_to_id(content) not in known:
            raise UserError(f"{content} is not among the added tokens: it would be split in texts")
