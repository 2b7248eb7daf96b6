"""Added tokens: found in a text before it is split into pieces.

They are those of tokenizer.json or, with a vocab.txt alone, BERT's five special ones. transformers also reads them from
other files, which may repeat them; one that says anything else is refused.

    tokenizer_config.json      `added_tokens_decoder`, ids and flags; special tokens by name (`cls_token`) and in lists
    special_tokens_map.json    special tokens by name and in lists; older
    added_tokens.json          tokens and their ids; older
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from minibert.errors import UserError
from minibert.files import read_json
from minibert.hub.settings import Table, Values
from minibert.tokenizer import SPECIAL_TOKENS

TOKENIZER_JSON, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
SPECIAL_TOKENS_MAP, ADDED_TOKENS = "special_tokens_map.json", "added_tokens.json"

BERTS = {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}  # "cls_token": "[CLS]", ...
LISTS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")  # the fifth, "special", changes no ids

SPECIAL_TOKENS_MAP_TABLE = Table(used=" ".join([*BERTS, "bos_token", "eos_token", *LISTS]))  # and any other NAME_token

ADVICE = (
    "load the folder with transformers' AutoTokenizer and save it to another one, whose tokenizer.json has them all"
)


def check_added(backend: Tokenizer, listed: list[Values], file: Path, settings: Values) -> None:
    """Refuse files whose added tokens are not the backend's, and tokens that can be found in two ways.

    The backend is read from the file, a tokenizer.json or a vocab.txt; `listed` are the former's `added_tokens`.
    """
    tokens = {
        token.content: {"content": token.content, "id": str(index), **{flag: getattr(token, flag) for flag in FLAGS}}
        for index, token in backend.get_added_tokens_decoder().items()
    }
    if lost := [token for token in SPECIAL_TOKENS if token not in tokens]:
        raise UserError(f"{lost[0]} is not among the added tokens, so it would be split in texts: {ADVICE}")
    _check_settled(backend)
    entries = [(TOKENIZER_JSON, {**token, "id": str(token["id"])}) for token in listed]
    for place, entry in [*entries, *_repeated(file, settings)]:
        token = {**dict.fromkeys(FLAGS), **entry} if isinstance(entry, dict) else {"content": entry}
        content = token.get("content")
        if not isinstance(content, str) or content not in tokens:
            raise UserError(f"{place} has the added token {content!r:.40}, which {file.name} lacks: {ADVICE}")
        for name, value in tokens[content].items():
            if token.get(name, value) != value:
                found = f"{token[name]!s:.20} for the {name} of {content!r:.40}"
                raise UserError(f"{place} has {found}, an added token, where the tokenizer has {value}: {ADVICE}")
    decoder, old = settings.get("added_tokens_decoder"), read_json(file.with_name(ADDED_TOKENS), None)
    if decoder is not None and len(decoder) < len(tokens):  # transformers would not know the others
        raise UserError(f"{TOKENIZER_CONFIG} lacks added tokens of {file.name} in its added_tokens_decoder: {ADVICE}")
    if old and (not listed or not old.items() <= {token: int(known["id"]) for token, known in tokens.items()}.items()):
        raise UserError(f"{ADDED_TOKENS} has tokens or ids that {file.name} lacks: {ADVICE}")


def _repeated(file: Path, settings: Values) -> Iterator[tuple[str, Any]]:
    """Every token in tokenizer_config.json and special_tokens_map.json, as its text or as an object."""
    names, unknown = SPECIAL_TOKENS_MAP_TABLE.read(file.with_name(SPECIAL_TOKENS_MAP))
    if strange := [name for name in unknown if not name.endswith("_token")]:
        raise UserError(
            f"{SPECIAL_TOKENS_MAP} has {strange[0]!r:.40}, not a special token: it belongs in {TOKENIZER_CONFIG}"
        )
    for place, values in ((TOKENIZER_CONFIG, settings), (SPECIAL_TOKENS_MAP, names)):
        for name, value in values.items():
            content = value.get("content") if isinstance(value, dict) else value
            if content != BERTS.get(name, content):
                raise UserError(f"{place} asks for {name} {value!r:.60}: minibert knows only {BERTS[name]!r}")
            if name in LISTS and value is not None:
                items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [[value]]
                yield from ((place, token) for token in items)
            elif name.endswith("_token") and isinstance(value, str | dict):
                yield place, value
    decoder = settings.get("added_tokens_decoder")
    if not isinstance(decoder, dict | None) or not all(isinstance(token, dict) for token in (decoder or {}).values()):
        raise UserError(f"{TOKENIZER_CONFIG} has an added_tokens_decoder that is not an object of ids and tokens")
    yield from ((TOKENIZER_CONFIG, {**token, "id": index}) for index, token in (decoder or {}).items())


def _check_settled(backend: Tokenizer) -> None:
    """Refuse tokens among which the library chooses by chance, and those on which it fails.

    It looks for the normalised forms of tokens in the normalised text, and takes any of several equal ones. It panics
    where one token claims the white space that another one begins with.
    """
    normal = backend.normalizer.normalize_str if backend.normalizer else str
    tokens = backend.get_added_tokens_decoder().values()
    takes_space = any(token.rstrip for token in tokens)
    forms: dict[str, str] = {}
    for token in tokens:
        form = normal(token.content) if token.normalized else token.content
        if not form or (form[0].isspace() and takes_space):
            start = "with white space that another one, which has rstrip, would take" if form else "with nothing"
            raise UserError(f"the added token {token.content!r:.40} begins {start}: texts with both can't be read")
        first = forms.setdefault(form, token.content) if token.normalized else token.content
        if first != token.content:
            raise UserError(f"the added tokens {first!r:.40} and {token.content!r:.40} are both {form!r:.40} in texts")
