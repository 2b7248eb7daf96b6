"""Added tokens: found in a text before it is split into pieces, and kept by transformers in many places.

    tokenizer.json             `added_tokens`, ids and flags
    tokenizer_config.json      `added_tokens_decoder`, ids and flags; special tokens by name (`cls_token`) and in lists
    special_tokens_map.json    special tokens by name and in lists; older
    added_tokens.json          tokens and their ids; older

A token has the id and the flags of the first place that has it, in transformers' order; places that contradict each
other are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from minibert.errors import UserError
from minibert.files import is_file, read_json
from minibert.hub.settings import BUILT, Table, Values
from minibert.tokenizer import CLS, MASK, PAD, SEP, SPECIAL_TOKENS, UNK

WHOLE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
MAP, ADDED = "special_tokens_map.json", "added_tokens.json"

# The names of special tokens, in the order in which transformers adds them, and what BERT's are, which a `BUILT`
# tokenizer has whether a file names them or not; then the names of lists.
NAMES = {"bos_token": None, "eos_token": None, "unk_token": UNK, "sep_token": SEP, "pad_token": PAD, "cls_token": CLS,
         "mask_token": MASK}  # fmt: skip
BERTS = {name: token for name, token in NAMES.items() if token}
LISTS = OLD_LIST, NEW_LIST = ("additional_special_tokens", "extra_special_tokens")

SPECIAL_TOKENS_MAP = Table(used=" ".join([*NAMES, *LISTS]))  # and any other NAME_token

MOST_ID = 2**31
MOST_ADDED = 10_000  # in one place: with more, the library takes seconds; BERT's own folders have up to 1,000

TYPE = {"__type": "AddedToken"}  # what an object needs in order to be a token
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")  # the fifth, "special", changes no ids


@dataclass(frozen=True)
class Token:
    """An added token as one place has it: with an id or without, with all of its flags or with none."""

    place: str
    content: str
    index: int | None
    flags: Mapping[str, bool]


def add_tokens(backend: Tokenizer, own: list[Token], file: Path, settings: Values) -> None:
    """Add the tokens that the backend has not, and hold every place to what has become of its tokens.

    Args:
        backend: of the tokenizer.json or vocab.txt.
        own: the former's tokens, which the backend has.
        file: the path of either.
        settings: the tokenizer_config.json beside it.
    Raises:
        UserError: an entry is no token; a place contradicts another one, or lacks a token; one of BERT's is called
            otherwise, or is not among them; or what they find in a text is not settled.
    """
    names = _read_map(file.with_name(MAP), settings)
    others = [name for name in settings if name.endswith("_token") and name not in NAMES]
    said = {name: value for name, value in settings.items() if name not in others or not _is_no_token(value)}
    settings = BERTS | said if said.get("tokenizer_class") in (*BUILT, None) else said
    decoder = settings.get("added_tokens_decoder")
    listed = None if decoder is None else _by_id(decoder)  # if there is one, transformers reads no older place
    old = _read_old(file.with_name(ADDED))
    named, mapped, either = (
        _by_name(place, values)
        for place, values in ((SETTINGS, settings), (MAP, names), (MAP, names | settings | names))
    )
    special = {token.content: token for token in either}
    if any(token.flags != special[token.content].flags for token in either):
        raise UserError(f"{SETTINGS} and {MAP} have one special token under two names, with other flags")

    # If no place says `normalized`, a special token is looked for as it is written, any other one in the normalised
    # text; and when transformers reads ADDED, it knows only these special ones. The order decides ids that none says.
    known = _by_name(MAP, names | {OLD_LIST: None}, usual=True) + [
        token
        for token in _by_name(SETTINGS, {name: said[name] for name in said if name in LISTS or name not in names}, True)
        if not token.flags
    ]
    as_written = special.keys() - (set() if listed is not None else _contents(old) - _contents(known))
    missing: dict[str, AddedToken] = {}
    for token in (*(old if listed is None else listed), *either):
        flags = {"normalized": token.content not in as_written, **token.flags}
        missing.setdefault(token.content, AddedToken(token.content, **flags, special=token.content in special))
    for present in backend.get_added_tokens_decoder().values():
        missing.pop(present.content, None)
    backend.add_tokens(list(missing.values()))

    _check_settled(backend)
    if listed is not None:
        _check_listed(listed, named, [*own, *old, *mapped])
    _check_agreement(backend, [*own, *(listed or []), *old, *mapped, *named])


def read_own(values: Any) -> list[Token]:
    """The `added_tokens` of tokenizer.json."""
    return [_token(WHOLE, value, value.get("id") if isinstance(value, dict) else None) for value in _few(WHOLE, values)]


def _read_map(file: Path, settings: Values) -> Values:
    """special_tokens_map.json."""
    names, unknown = SPECIAL_TOKENS_MAP.read(file)
    if strange := [name for name in unknown if not name.endswith("_token")]:
        raise UserError(f"{MAP} has {strange[0]!r:.40}, which is no special token: it belongs into {SETTINGS}")
    if any(names.get(name, settings.get(name)) != settings.get(name, names.get(name)) for name in LISTS):
        raise UserError(f"{SETTINGS} and {MAP} have other special tokens")
    old, new = ((settings | names).get(name) for name in LISTS)
    if old and NEW_LIST in settings | names and (new or NEW_LIST in names or OLD_LIST not in settings):
        raise UserError(f"{SETTINGS} and {MAP} have {OLD_LIST} and {NEW_LIST}, of which others read only one")
    return {
        name: TYPE | value if isinstance(value, dict) and name not in LISTS else value for name, value in names.items()
    }


def _read_old(file: Path) -> list[Token]:
    """added_tokens.json."""
    values = read_json(file, "") if is_file(file) else {}
    tokens = [_token(ADDED, content, values[content]) for content in _few(ADDED, list(values))]
    return sorted(tokens, key=lambda token: token.index or 0)


def _by_id(values: Any) -> list[Token]:
    """`added_tokens_decoder`: an object of ids and tokens."""
    is_one = isinstance(values, dict) and all(isinstance(token, dict) for token in values.values())
    if not is_one or not all(name.isdecimal() and len(name) <= len(str(MOST_ID)) for name in values):
        raise UserError(f"{SETTINGS} has an added_tokens_decoder that is not an object of ids and tokens")
    return [_token(SETTINGS, values[index], int(index)) for index in sorted(_few(SETTINGS, list(values)), key=int)]


def _by_name(place: str, values: Values, usual: bool = False) -> list[Token]:
    """Special tokens, `cls_token` and the like, and lists of further ones; `usual` leaves out names of their own."""
    for name, known in BERTS.items():
        if name in values and _token(place, values[name] or "null").content != known:
            raise UserError(f"{place} asks for {name} {values[name]!r:.60}: minibert knows only {known!r}")
    further = [name for name in values if name.endswith("_token") and isinstance(values[name], str | dict)]
    names = dict.fromkeys([*NAMES, *([] if usual else _few(place, further))])
    tokens = [values[name] for name in names if values.get(name) is not None]
    for name in LISTS:
        listed = values.get(name) or []
        if isinstance(listed, dict) and name == NEW_LIST:
            listed = [] if usual else list(listed.values())
        tokens += _few(place, listed)
    if any(_is_no_token(token) for token in tokens):
        raise UserError(f"{place} has an object among its special tokens, which is no token without a __type")
    return [_token(place, token) for token in tokens]


def _is_no_token(value: Any) -> bool:
    """Whether transformers takes an object for something else than a token."""
    return isinstance(value, dict) and value.get("__type") != TYPE["__type"]


def _few(place: str, tokens: Any) -> list[Any]:
    """A place's list of tokens, of which there may not be more than anybody needs."""
    if not isinstance(tokens, list):
        raise UserError(f"{place} has {tokens!r:.60}, which is not a list of tokens")
    if len(tokens) > MOST_ADDED:
        raise UserError(f"{place} has {len(tokens):,} added tokens: more than {MOST_ADDED:,} make no sense there")
    return tokens


def _token(place: str, value: Any, index: Any = None) -> Token:
    """A token that is written as its text, or as an object with its flags."""
    values = {"content": value} if isinstance(value, str) else value
    content = values.get("content") if isinstance(values, dict) else None
    if not isinstance(content, str) or not content:
        raise UserError(f"{place} has {value!r:.60} among its added tokens, which is no token")
    flags: dict[str, Any] = {} if isinstance(value, str) else {flag: values.get(flag) for flag in FLAGS}
    is_id = index is None or (type(index) is int and 0 <= index < MOST_ID)
    if not is_id or not all(isinstance(flag, bool) for flag in flags.values()):
        raise UserError(f"{place} has an id or a flag of {content!r:.40} that makes no sense, or lacks a flag")
    return Token(place, content, index, flags)


def _contents(tokens: list[Token]) -> set[str]:
    return {token.content for token in tokens}


def _check_settled(backend: Tokenizer) -> None:
    """Refuse tokens between which the library chooses by chance, and those that it fails at.

    It looks for the normalised forms of tokens in the normalised text, and takes any of several equal ones. It panics
    where one token claims the white space that another one begins with.
    """
    normal = backend.normalizer.normalize_str if backend.normalizer else str
    tokens = backend.get_added_tokens_decoder().values()
    forms: dict[str, str] = {}
    for token in tokens:
        form = normal(token.content) if token.normalized else token.content
        if not form or (form[0].isspace() and any(other.rstrip for other in tokens)):
            what = "with white space that another one, which has rstrip, would take" if form else "with nothing"
            raise UserError(f"the added token {token.content!r:.40} begins {what}: texts with both can't be read")
        other = forms.setdefault(form, token.content) if token.normalized else token.content
        if other != token.content:
            raise UserError(f"the added tokens {other!r:.40} and {token.content!r:.40} are both {form!r:.40} in texts")


def _check_agreement(backend: Tokenizer, tokens: list[Token]) -> None:
    """Compare ids and flags of every place with those of the backend, which has to have BERT's five, too."""
    there = backend.get_added_tokens_decoder()
    for token in tokens:
        index = backend.token_to_id(token.content)
        if index not in there or token.index not in (None, index):
            raise UserError(f"{token.place} has {token.content!r:.40} as token {token.index}, but it is {index}")
        for flag, value in token.flags.items():
            if getattr(there[index], flag) is not value:
                raise UserError(f"{token.place} has {flag} {value} for {token.content!r:.40}, another place has not")
    for content in SPECIAL_TOKENS:
        if backend.token_to_id(content) not in there:
            raise UserError(f"{content} is not among the added tokens: it would be split in texts")


def _check_listed(listed: list[Token], named: list[Token], others: list[Token]) -> None:
    """Refuse tokens of other places that `added_tokens_decoder` lacks: transformers would not read them there."""
    for token in others:
        is_named = token.content in _contents(named) and not any(token.flags.values())  # by its name, it has no flags
        if token.content not in _contents(listed) and not is_named:
            raise UserError(f"{token.place} has the added token {token.content!r:.40}, {SETTINGS} has not")
