"""Proves that a folder's tokenizer gives transformers' ids, or is refused by the name of what it asks for."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from minibert.errors import UserError
from minibert.hub import load_tokenizer
from minibert.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [
    "the", "cat", "new", "york", "New", "York", "café", "cafe", "##ats", "[E0]", "[unused1]", "中", "文", ".", ",", "-",
    "'", "[", "]", "1", "i̇", "é", "a" * 30, *(f"##{letter}" for letter in LETTERS), "##é", "##文", *LETTERS.upper(),
]  # fmt: skip
TOKENS = [*SPECIAL_TOKENS, *LETTERS, *WORDS]
SMALL = [name for name in TOKENS if name in SPECIAL_TOKENS or name == name.lower()]
TEXTS = [
    "The cats of New York, the café.", "new york New  York NEW YORK newyork New Yorkers", "中文 cat中文cat",
    "Café CAFÉ é É", "[E1] [e1] the[E1]cat [E1], x[E0]y [unused1]", "[MASK] a [MASK]. [CLS] [mask] [ MASK ]",
    "don't stop-here 11", "İstanbul ﬁ ½ ①", "a\tb\nc\u00a0d  e", "", "   ", "🙂 the", "a" * 101, "a" * 99,
    "\x00the\u200bcat\ufeff", "the 'cat'", "bert [E1][E2] <x> <X> word<x>word  <x>  end", "cafe\u0301 e\u0301",
]  # fmt: skip


def token(content: str, index: int | None = None, **flags: bool) -> dict[str, Any]:
    """An added token as JSON has it."""
    plain = {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    return ({} if index is None else {"id": index}) | plain | {"special": False} | flags


FIVE = [token(content, index, special=True, normalized=False) for index, content in enumerate(SPECIAL_TOKENS)]
NEXT = len(TOKENS)  # the id of the first token that is added


def whole(cased: bool = False, **changes: Any) -> dict[str, Any]:
    """A tokenizer.json; a change of `model` is one of its parts."""
    backend = Tokenizer(models.WordPiece({name: i for i, name in enumerate(TOKENS)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    values = json.loads(backend.to_str())
    values["model"] |= changes.pop("model", {})
    return {**values, "added_tokens": FIVE, **changes}


def write(folder: Path, **files: Any) -> Path:
    """A model's folder: config.json, and the files named, None for one that is not there."""
    for name, value in {"config": {"model_type": "bert"}, **files}.items():
        if name == "tokenizer_config" and "tokenizer" not in files:
            value = {"do_lower_case": True} | value  # noqa: PLW2901
        if name == "vocab":
            (folder / "vocab.txt").write_bytes(value if isinstance(value, bytes) else value.encode())
        elif value is not None:
            (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def vocabulary(tokens: list[str] = TOKENS) -> str:
    return "".join(f"{name}\n" for name in tokens)


def same(folder: Path) -> WordPieceTokenizer:
    """Compare ids with transformers', of whole texts and of their beginnings."""
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.pad_id == 0  # a mark before it is no part of it, though transformers takes it for one
    for length in (4, 9, 400):
        expected = theirs(TEXTS, truncation=True, max_length=length)["input_ids"]
        for text, ids, right in zip(TEXTS, ours.encode(TEXTS, length), expected, strict=True):
            assert ids == right, (text, ours.tokens(ids), theirs.convert_ids_to_tokens(right))
    ours.save(folder, 99)
    for name in ("special_tokens_map", "added_tokens"):
        (folder / f"{name}.json").unlink(missing_ok=True)
    for again in (load_tokenizer(folder).encode(TEXTS, 400), AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"]):
        assert again == ours.encode(TEXTS, 400)  # what is saved is the same tokenizer, to us and to them
    return ours


def vocab(settings: Any = None, **files: Any) -> dict[str, Any]:
    """A folder with a vocabulary."""
    return {"vocab": vocabulary(), **({} if settings is None else {"tokenizer_config": settings}), **files}


def own(settings: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    """A folder with a tokenizer.json, changed."""
    return {"tokenizer": whole(**changes), "tokenizer_config": settings}


def added(*tokens: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A folder with a tokenizer.json that has these tokens beside BERT's five."""
    return own(settings, added_tokens=[*FIVE, *tokens])


def classed(name: str) -> dict[str, Any]:
    return {"config": {"model_type": "bert", "tokenizer_class": name}}


def without(each: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in each.items() if name not in names}


CASED: dict[str, Any] = {"do_lower_case": False}
LOWER: dict[str, Any] = {"do_lower_case": True}
TAKEN: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    **{f"{content[1:-1].lower()}_token": content for content in SPECIAL_TOKENS},
}
E1 = token("[E1]", NEXT)
SPECIAL_E1 = token("[E1]", NEXT, special=True, normalized=False)


def decoder(*tokens: dict[str, Any]) -> dict[str, Any]:
    return {str(each["id"]): without(each, "id") for each in (*FIVE, *tokens)}


def steps(kind: str, *types: str | dict[str, Any]) -> dict[str, Any]:
    name = "normalizers" if kind == "normalizer" else "pretokenizers"
    parts = [{"type": each} if isinstance(each, str) else each for each in types]
    return {kind: {"type": "Sequence", name: parts}}


BERT_NORMALIZER = whole()["normalizer"]
BERT_PROCESSING = {"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]}
ROBERTA = BERT_PROCESSING | {"type": "RobertaProcessing", "trim_offsets": True, "add_prefix_space": True}
DIGITS = {"type": "Digits", "individual_digits": True}
MASK = without(FIVE[4], "id", "special")  # as in the oldest place
TRUNCATION = {"max_length": 5, "strategy": "LongestFirst", "stride": 0}


def typed(each: dict[str, Any]) -> dict[str, Any]:
    """A token as tokenizer_config.json has it."""
    return {"__type": "AddedToken", **without(each, "id")}


def every(each: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """A folder as transformers 4 writes it: a special token in all five places, and in two of them by its name, too."""
    listed = {"added_tokens_decoder": decoder(each), "additional_special_tokens": [each["content"]]}
    named = {"mask_token": MASK, "cls_token": "[CLS]", "additional_special_tokens": [without(each, "id", "special")]}
    return added(each, **listed, **settings) | {
        "vocab": vocabulary(),
        "special_tokens_map": named,
        "added_tokens": {each["content"]: each["id"]},
    }


# Places that have a token of tokenizer.json again.
AGAIN: dict[str, dict[str, Any]] = {
    "added_tokens_decoder": {"tokenizer_config": {"added_tokens_decoder": decoder(E1)}},
    "added_tokens.json": {"added_tokens": {"[E1]": NEXT}},
    "additional_special_tokens": {"tokenizer_config": {"additional_special_tokens": ["[E1]"]}},
    "extra_special_tokens": {"tokenizer_config": {"extra_special_tokens": [typed(E1)]}},
    "extra_special_tokens by name": {"tokenizer_config": {"extra_special_tokens": {"x_token": "[E1]"}}},
    "model_specific_special_tokens": {"tokenizer_config": {"model_specific_special_tokens": {"x": "[E1]"}}},
    "a usual name": {"tokenizer_config": {"eos_token": "[E1]"}},
    "a name of its own": {"tokenizer_config": {"image_token": "[E1]"}},
    "a name with flags": {"tokenizer_config": {"bos_token": typed(E1)}},
    "an old list": {"special_tokens_map": {"additional_special_tokens": ["[E1]", "[MASK]"]}},
    "an old name": {"special_tokens_map": {"image_token": "[E1]", "eos_token": None}},
}

SAME: dict[str, dict[str, Any]] = {
    "nothing but a vocabulary": {"vocab": vocabulary(SMALL)},
    "settings that say nothing": vocab({"do_lower_case": True}),
    "cased": vocab(CASED),
    "accents kept, lower case": vocab({"strip_accents": False, "do_lower_case": True}),
    "accents dropped, case kept": vocab(CASED | {"strip_accents": True}),
    "Chinese characters in words": vocab({"tokenize_chinese_chars": False, "do_lower_case": True}),
    "a byte order mark": {"vocab": "\ufeff".encode() + vocabulary().encode(), "tokenizer_config": CASED},
    "lines of Windows": {"vocab": vocabulary().replace("\n", "\r\n"), "tokenizer_config": CASED},
    "blank lines at the end": {"vocab": vocabulary() + "\n\n \n", "tokenizer_config": CASED},
    "no newline at the end": {"vocab": vocabulary().rstrip(), "tokenizer_config": CASED},
    "spaces after tokens": {"vocab": vocabulary().replace("cat\n", "cat \t\n"), "tokenizer_config": CASED},
    "tokenizer.json": own({}),
    "tokenizer.json of its own class": own({"tokenizer_class": "BertTokenizer"}),
    "tokenizer.json and a vocabulary": {"tokenizer": whole(), "vocab": "a\nb\n", "tokenizer_config": {}},
    "tokenizer.json alone": {"tokenizer": whole()},
    "tokenizer.json, cased": own(CASED, cased=True),
    "accents as they are by default": own({}, normalizer=BERT_NORMALIZER | {"strip_accents": True}),
    "truncation left in": own({}, truncation=TRUNCATION | {"direction": "Right"}),
    "truncation of old": own({}, truncation=TRUNCATION),
    "padding left in": own(
        {},
        padding={
            "strategy": {"Fixed": 9},
            "direction": "Right",
            "pad_id": 0,
            "pad_to_multiple_of": None,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
    ),
    "BertProcessing": own({}, post_processor=BERT_PROCESSING),
    "a pipeline of small parts": own(TAKEN, **steps("normalizer", "NFD", "Lowercase", "StripAccents")),
    "another pipeline": own(TAKEN, **steps("normalizer", "NFKC", BERT_NORMALIZER)),
    "one part": own(TAKEN, normalizer={"type": "Lowercase"}),
    "no normaliser": own(TAKEN, normalizer=None),
    "no pre-tokeniser": own(TAKEN, pre_tokenizer=None),
    "spaces alone": own(TAKEN, pre_tokenizer={"type": "WhitespaceSplit"}),
    "words": own(TAKEN, pre_tokenizer={"type": "Whitespace"}),
    "punctuation, not spaces": own(TAKEN, pre_tokenizer={"type": "Punctuation", "behavior": "Isolated"}),
    "digits and spaces": own(TAKEN, **steps("pre_tokenizer", DIGITS, "WhitespaceSplit")),
    "longer words": own(TAKEN, model={"max_input_chars_per_word": 200}),
    "control characters kept": own(TAKEN, normalizer=BERT_NORMALIZER | {"clean_text": False}),
    "as it is, whatever the settings": own(TAKEN | {"do_lower_case": True}, cased=True),
    "added in tokenizer.json": added(E1),
    "added in tokenizer.json, as it is": added(E1, **TAKEN),
    "every place has it": every(SPECIAL_E1, {}),
    "every place has it with a flag": every(E1 | {"lstrip": True}, {"tokenizer_class": "BertTokenizer"}),
    "every place has it, as it is": every(SPECIAL_E1, TAKEN),
    "a vocabulary and its five tokens in every place": vocab(
        CASED | {"added_tokens_decoder": decoder()}, special_tokens_map={"cls_token": "[CLS]", "mask_token": MASK}
    ),
    **{f"again in {name}": added(E1) | files for name, files in AGAIN.items()},
    **{
        f"again in {name}, as it is": added(E1)
        | files
        | {"tokenizer_config": TAKEN | files.get("tokenizer_config", {})}
        for name, files in AGAIN.items()
    },
    "a mask with its space in tokenizer.json": own({}, added_tokens=[*FIVE[:4], FIVE[4] | {"lstrip": True}]),
    "a token with a space": added(token("New York", NEXT)),
    "a special one with a space": added(token("New  York", NEXT, normalized=False)),
    "tokens that differ in case alone, cased": own(
        CASED, cased=True, added_tokens=[*FIVE, token("New York", NEXT), token("new york", NEXT + 1)]
    ),
    "tokens that differ in case alone, as they are written": added(
        token("<x>", NEXT, normalized=False), token("<X>", NEXT + 1, normalized=False)
    ),
    "white space that nothing else takes": added(token("  ", NEXT)),
    **{
        f"a ModernBERT's, {'cased' if cased else 'lower case'}, {settings}": own(settings, cased=cased)
        | {"config": {"model_type": "modernbert", **said}}
        for cased in (True, False)
        for said in ({}, {"tokenizer_class": "PreTrainedTokenizerFast"})
        for settings in (None, {}, {"tokenizer_class": "BertTokenizer"})
    },
    **{
        f"the class {name} in config.json": own(settings, cased=True) | classed(name)
        for name, settings in (
            ("PreTrainedTokenizerFast", {}),
            ("TokenizersBackend", None),
            ("BertTokenizer", CASED),
            ("PreTrainedTokenizerFast", CASED | {"tokenizer_class": "BertTokenizer"}),
        )
    },
    "all that is known of settings": vocab(
        CASED
        | {
            "truncation_side": "right",
            "padding_side": "right",
            "never_split": None,
            "do_basic_tokenize": True,
            "tokenizer_class": "BertTokenizerFast",
            "model_max_length": 512,
            "clean_up_tokenization_spaces": True,
            "model_input_names": ["input_ids", "attention_mask"],
            "split_special_tokens": False,
        }
    ),
    **{
        f"{flag} {'normalized' if normalized else 'as it is written'}": added(
            token("<x>", NEXT, normalized=normalized, **{flag: True})
        )
        for flag in ("lstrip", "rstrip", "single_word")
        for normalized in (True, False)
    },
    "all flags": added(token("<x>", NEXT, lstrip=True, rstrip=True, single_word=True)),
}


@pytest.mark.parametrize("files", SAME.values(), ids=SAME.keys())
def test_ids_are_those_of_transformers(tmp_path: Path, files: dict[str, Any]) -> None:
    same(write(tmp_path, **files))


def template(*parts: str, type_id: int = 0, ids: tuple[int, int] = (2, 3)) -> dict[str, Any]:
    """A TemplateProcessing of special tokens and A, the text."""
    single = [
        {"Sequence" if part == "A" else "SpecialToken": {"id": part, "type_id": type_id if part == "A" else 0}}
        for part in parts
    ]
    special = {
        name: {"id": name, "ids": [index], "tokens": [name]}
        for name, index in zip(("[CLS]", "[SEP]"), ids, strict=True)
    }
    return {"type": "TemplateProcessing", "single": single, "pair": [*single, *single], "special_tokens": special}


def asked(value: Any, known: str) -> str:
    return f"{value!r}: minibert knows only {known}"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"{name} {value!r}": (vocab({name: value}), f"asks for {name} ")
        for name, value in {
            "tokenizer_class": "BertJapaneseTokenizer",
            "auto_map": {"AutoTokenizer": ["x.Y", None]},
            "truncation_side": "left",
            "padding_side": "left",
            "do_basic_tokenize": False,
            "never_split": ["cat"],
            "split_special_tokens": True,
            "add_special_tokens": False,
            "clean_text": False,
            "wordpieces_prefix": "@@",
            "model_input_names": ["input_ids"],
            "cls_token": "<s>",
            "unk_token": "<unk>",
            "mask_token": None,
            "pad_token": {"__type": "AddedToken", **token("<pad>")},
            "add_prefix_space": True,
            "init_inputs": ["vocab.txt", False],
        }.items()
    },
    "RoCBert": (vocab({"tokenizer_class": "RoCBertTokenizer"}), "RoCBertTokenizer"),
    "a class that is no name": (vocab({"tokenizer_class": ["a"]}), "tokenizer_class"),
    "a renamed token in the old place": (
        vocab(None, special_tokens_map={"sep_token": "</s>"}),
        "special_tokens_map.json asks for sep_token '</s>': minibert knows only '[SEP]'",
    ),
    "no vocabulary of its own": (vocab(TAKEN), "which needs a tokenizer.json"),
    "case that contradicts": (own({"do_lower_case": True}, cased=True), "its normalizer"),
    "case that nothing else says": (own({}, cased=True), "its normalizer"),
    **{
        f"a ModernBERT's mask that nothing adds {settings}": (
            own(settings, added_tokens=FIVE[:4]) | {"config": {"model_type": "modernbert"}},
            "[MASK] is not among the added tokens",
        )
        for settings in (None, {}, {"tokenizer_class": "BertTokenizer"})
    },
    "a class of others in config.json": (
        {"tokenizer": whole()} | classed("BertJapaneseTokenizer"),
        "config.json asks for tokenizer_class 'BertJapaneseTokenizer'",
    ),
    "case, though config.json has another class": (
        own({"tokenizer_class": "BertTokenizer"}, cased=True) | classed("PreTrainedTokenizerFast"),
        "its normalizer",
    ),
    "case, and no settings": ({"tokenizer": whole(cased=True)}, "its normalizer"),
    "accents that contradict": (own({"strip_accents": False}), "its normalizer"),
    "Chinese that contradicts": (own({"tokenize_chinese_chars": False}), "normalizer"),
    "a normaliser that would be built anew": (own({}, normalizer={"type": "Lowercase"}), "its normalizer"),
    "controls that would be dropped": (own({}, normalizer=BERT_NORMALIZER | {"clean_text": False}), "its normalizer"),
    "a pre-tokeniser to be built anew": (own({}, pre_tokenizer={"type": "WhitespaceSplit"}), "its pre_tokenizer is"),
    "no pre-tokeniser, where one would be built": (own({}, pre_tokenizer=None), "its pre_tokenizer is null"),
    "shorter words": (own({}, model={"max_input_chars_per_word": 20}), "its max_input_chars_per_word is 20"),
    **{
        f"the normaliser {kind}": (own(TAKEN, normalizer=value), f"the normalizer is a {kind}")
        for kind, value in {
            "Replace": {"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
            "Prepend": {"type": "Prepend", "prepend": "x"},
            "Nmt": {"type": "Nmt"},
            "Precompiled": {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
            "None": {"lowercase": True},
            "ByteLevel": {"type": "ByteLevel"},
            "Strip": {"type": "Strip", "strip_left": True, "strip_right": True},
        }.items()
    },
    **{
        f"the pre-tokeniser {kind}": (own(TAKEN, pre_tokenizer=value), f"the pre_tokenizer is a {kind}")
        for kind, value in {
            "Split": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False},
            "Metaspace": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True},
            "ByteLevel": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "UnicodeScripts": {"type": "UnicodeScripts"},
            "FixedLength": {"type": "FixedLength", "length": 0},
        }.items()
    },
    "a normaliser within a sequence": (own(TAKEN, **steps("normalizer", "NFD", "Nmt")), "the normalizer is a Nmt"),
    "a sequence of nothing": (own(TAKEN, normalizer={"type": "Sequence"}), "a Sequence of"),
    "a long sequence": (own(TAKEN, **steps("normalizer", *["NFD"] * 21)), "a Sequence of"),
    "a list for a normaliser": (own(TAKEN, normalizer=[]), "its normalizer is []"),
    "the decoder of others": (own({}, decoder={"type": "ByteLevel"}), "decoder is a Byte"),
    "the model of others": (own({}, model={"type": "WordLevel"}), "model is a WordLevel"),
    "a model without a type": (own({}) | {"tokenizer": whole() | {"model": {"vocab": {}}}}, "the model is a None"),
    "a part that nobody knows": (own({}, extra=1), "has 'extra', which means"),
    "a setting of the model that nobody knows": (own({}, model={"fuse_unk": True}), "has 'fuse_unk', which means"),
    "other marks": (own({}, model={"continuing_subword_prefix": "@@"}), "asks for continuing_subword_prefix '@@'"),
    "another unknown token": (own({}, model={"unk_token": "cat"}), "unk_token 'cat'"),
    "RobertaProcessing": (own({}, post_processor=ROBERTA), "post_processor is a Roberta"),
    "a sequence of processors": (
        own({}, post_processor={"type": "Sequence", "processors": [BERT_PROCESSING]}),
        "the post_processor is a Sequence",
    ),
    **{
        f"a text as {name}, {len(settings)} settings": (
            own(settings, post_processor=value),
            "its post_processor does not turn a text into [CLS] text [SEP]",
        )
        for settings in ({}, TAKEN)
        for name, value in {
            "nothing else": None,
            "no end": template("[CLS]", "A"),
            "itself": template("A"),
            "two ends": template("[CLS]", "A", "[SEP]", "[SEP]"),
            "the other way": template("[SEP]", "A", "[CLS]"),
            "a second segment": template("[CLS]", "A", "[SEP]", type_id=1),
            "other ids": template("[CLS]", "A", "[SEP]", ids=(3, 2)),
            "Bert's with other ids": BERT_PROCESSING | {"sep": ["[SEP]", 4]},
        }.items()
    },
    "truncation at the left": (own({}, truncation=TRUNCATION | {"direction": "Left"}), "truncation is at"),
    "padding at the left": (own({}, padding={"strategy": "BatchLongest", "direction": "Left"}), "the padding is at"),
    "a five of BERT's that is none": (
        own(TAKEN, added_tokens=[FIVE[0] | {"lstrip": True}, *FIVE[:1], *FIVE[1:]]),
        "tokenizer.json has",
    ),
    "an id that the tokenizer does not give": (
        added(E1 | {"id": NEXT + 1}),
        f"tokenizer.json has {NEXT + 1} for the id of '[E1]', an added token, where the tokenizer has {NEXT}",
    ),
    "two flags for one token": (added(E1, E1 | {"lstrip": True}), "for the lstrip of '[E1]'"),
    "ids that contradict": (
        added(E1) | {"added_tokens": {"[E1]": 3}},
        "added_tokens.json has tokens or ids that tokenizer.json lacks",
    ),
    **{
        f"another {flag}": (
            added(E1, added_tokens_decoder=decoder(E1 | {flag: not E1[flag]})),
            f"tokenizer_config.json has {not E1[flag]} for the {flag} of '[E1]', an added token, where the tokenizer",
        )
        for flag in ("single_word", "lstrip", "rstrip", "normalized")
    },
    **{
        f"a list {value!r}": (added(E1, additional_special_tokens=value), "tokenizer_config.json has the added token ")
        for value in (7, True, "[E1]", [7], [["[E1]"]], [{"content": ["[E1]"]}], [None])
    },
    "an id of the decoder that contradicts": (
        added(E1, added_tokens_decoder=decoder(E1 | {"id": 7})),
        "tokenizer_config.json has 7 for the id of '[E1]'",
    ),
    "a flag of the map that contradicts": (
        own({}) | {"special_tokens_map": {"mask_token": MASK | {"lstrip": True}}},
        "special_tokens_map.json has True for the lstrip of '[MASK]'",
    ),
    "a flag of a name that contradicts": (
        added(E1, eos_token=typed(SPECIAL_E1)),
        "tokenizer_config.json has False for the normalized of '[E1]'",
    ),
    "a token that others would lose": (
        added(E1, added_tokens_decoder=decoder()),
        "tokenizer_config.json lacks added tokens of tokenizer.json in its added_tokens_decoder",
    ),
    "a special token that others would lose": (
        vocab({"added_tokens_decoder": without(decoder(), "4")}),
        "tokenizer_config.json lacks added tokens of vocab.txt",
    ),
    "a setting in the wrong file": (
        vocab(None, special_tokens_map={"do_lower_case": False}),
        "'do_lower_case', not a special token",
    ),
    **{
        f"{one!r} and {other!r}": (
            added(token(one, NEXT), token(other, NEXT + 1)),
            f"the added tokens {one!r} and {other!r} are both",
        )
        for one, other in (("New York", "new york"), ("<x>", "<X>"), ("café", "Cafe"))
    },
    **{
        f"the token {content!r} after one that takes its space": (
            own(
                CASED,
                cased=True,
                added_tokens=[*FIVE, token(content, NEXT, lstrip=True), token("<x>", NEXT + 1, rstrip=True)],
            ),
            f"the added token {content!r} begins with white space",
        )
        for content in ("  ", " a")
    },
    "a token that is nothing in texts": (added(token("\u200b", NEXT)), "begins with nothing"),
    "more tokens than anybody adds": (own({}, added_tokens=[E1] * 10_001), "10,001 added tokens: there may be at most"),
    "an object that lacks a flag": (
        added(E1, eos_token={"__type": "AddedToken", "content": "[E1]"}),
        "has None for the single_word of '[E1]'",
    ),
    **{
        f"the tokens {value!r:.20}": (own({}, added_tokens=value), message)
        for value, message in (
            ([*FIVE, {**E1, "content": ""}], "has the added token ''"),
            ([*FIVE, E1 | {"lstrip": "yes"}], "not a WordPiece vocabulary"),
            ([*FIVE, E1 | {"id": -1}], "not a WordPiece vocabulary"),
            ([*FIVE, {"content": "[E1]", "id": NEXT}], "not a WordPiece vocabulary"),
            ([*FIVE, "[E1]"], "not a WordPiece vocabulary"),
            ("[E1]", "not a WordPiece vocabulary"),
            (None, "a value has the wrong type"),
            (7, "a value has the wrong type"),
        )
    },
    **{
        f"the decoder {value!r:.40}": (vocab({"added_tokens_decoder": value}), "is not an object of ids and tokens")
        for value in ({str(NEXT): "[E1]"}, [E1], 7, "[E1]")
    },
    "case that is neither": (vocab({"do_lower_case": "yes"}), "do_lower_case 'yes'"),
    "a doubled line": ({"vocab": vocabulary() + "cat\n"}, f"'cat' is token 33 and token {NEXT + 1}"),
    "a line doubled but for spaces": ({"vocab": vocabulary() + "cat \n"}, "'cat' is token 33 and"),
    "a blank line": ({"vocab": vocabulary().replace("cat\n", "\ncat\n")}, "line 33 is blank"),
    "a line of spaces": ({"vocab": vocabulary().replace("cat\n", " \t\ncat\n")}, "line 33 is blank"),
    "no unknown token": ({"vocab": vocabulary().replace("[UNK]", "[unk]")}, "lacks [UNK]"),
    "no first token": ({"vocab": vocabulary().replace("[CLS]", "[cls]")}, "lacks [CLS]"),
    "an unknown token that is added": (own({}, model={"vocab": {n: i for i, n in enumerate(TOKENS) if i != 1}}), "UNK"),
    "ids with a hole": (own({}, model={"vocab": {n: i + (i > 50) for i, n in enumerate(TOKENS)}}), "not 0, 1, 2"),
    "an id twice": (own({}, model={"vocab": {n: i - (i > 50) for i, n in enumerate(TOKENS)}}), "not 0, 1, 2"),
    "a negative id": (own({}, model={"vocab": {n: i - 1 for i, n in enumerate(TOKENS)}}), "not a WordPiece vocabulary"),
    "another encoding": ({"vocab": vocabulary().encode("utf-16")}, "not a WordPiece vocabulary"),
}


@pytest.mark.parametrize(("files", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_give_other_ids_is_refused_by_name(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        load_tokenizer(write(tmp_path, **files))
    assert message in str(refusal.value)
    assert str(refusal.value).count(str(tmp_path)) == 1
    assert str(refusal.value).isprintable()


UNITED: dict[str, dict[str, Any]] = {
    "no special token in tokenizer.json": own({}, added_tokens=[]),
    "one special token not in tokenizer.json": own({}, added_tokens=FIVE[:4]),
    **{f"a vocabulary and {name}": vocab(CASED | files.get("tokenizer_config", {}), **{
        place: values for place, values in files.items() if place != "tokenizer_config"
    }) for name, files in AGAIN.items()},
    **{f"tokenizer.json without it and {name}": own({}) | files for name, files in AGAIN.items()},
    "added_tokens.json, two of them": vocab(CASED, added_tokens={"[E2]": NEXT + 1, "[E1]": NEXT}),
    "added_tokens.json with a special one": vocab(
        LOWER, added_tokens={"[E1]": NEXT}, special_tokens_map={"additional_special_tokens": ["[E1]"]}
    ),
    "a special token of the vocabulary": vocab(CASED, special_tokens_map={"additional_special_tokens": ["[unused1]"]}),
    "a special token after those that are listed": vocab(
        LOWER | {"added_tokens_decoder": decoder(token("[E2]", NEXT)), "additional_special_tokens": ["[E1]"]}
    ),
    "a mask with its space": vocab(CASED, special_tokens_map={"mask_token": MASK | {"lstrip": True}}),
    "a mask with its space, in the settings": vocab(CASED | {"mask_token": typed(FIVE[4] | {"lstrip": True})}),
    "a mask that is normalised": vocab(LOWER, special_tokens_map={"mask_token": MASK | {"normalized": True}}),
    **{f"{content} by its id, in lower case": vocab(LOWER, added_tokens={content: SPECIAL_TOKENS.index(content)})
       for content in ("[MASK]", "[CLS]")},
    "a mask by its id and by its name": vocab(LOWER | {"mask_token": "[MASK]"}, added_tokens={"[MASK]": 4}),
    "an object of its own name": vocab(CASED | {"image_token": typed(token("<x>"))}),
}  # fmt: skip


@pytest.mark.parametrize("files", UNITED.values(), ids=UNITED.keys())
def test_tokens_that_transformers_unites_are_refused_and_what_is_advised_helps(
    tmp_path: Path, files: dict[str, Any]
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    with pytest.raises(UserError, match="load the folder with transformers' AutoTokenizer and save it to another one"):
        load_tokenizer(write(folder, **files))
    theirs = AutoTokenizer.from_pretrained(folder)
    expected = theirs(TEXTS)["input_ids"]
    theirs.save_pretrained(tmp_path / "saved")
    assert same(write(tmp_path / "saved")).encode(TEXTS, None) == expected


PLACES: dict[str, list[Any]] = {
    "vocab": [vocabulary(), vocabulary([*TOKENS, "[E1]"])],
    "tokenizer": [
        None,
        whole(),
        whole(added_tokens=[*FIVE, E1]),
        whole(added_tokens=[*FIVE, SPECIAL_E1]),
        whole(added_tokens=[*FIVE, SPECIAL_E1, token("[E2]", NEXT + 1)]),
        whole(added_tokens=[*FIVE, E1 | {"rstrip": True}]),
    ],
    "tokenizer_config": [
        {"do_lower_case": True} | kind | more | list
        for kind in ({}, TAKEN)
        for more in ({}, {}, *({"added_tokens_decoder": decoder(*each)} for each in ([], [E1], [SPECIAL_E1])))
        for list in (
            {}, {"additional_special_tokens": ["[E1]"]}, {"eos_token": "[E1]"}, {"image_token": "[E1]"},
            {"extra_special_tokens": ["[E2]", "[E1]"]}, {"eos_token": typed(SPECIAL_E1)},
            {"extra_special_tokens": {"x_token": "[E2]"}}, {"model_specific_special_tokens": {"x_token": "[E1]"}},
        )
    ],
    "special_tokens_map": [
        None,
        {"mask_token": "[MASK]"},
        {"additional_special_tokens": ["[E1]"]},
        {"mask_token": MASK},
        {"extra_special_tokens": ["[E1]"]},
        {"bos_token": "[E1]"},
        {"additional_special_tokens": ["[E1]"], "extra_special_tokens": []},
        {"eos_token": without(SPECIAL_E1, "id")},
    ],
    "added_tokens": [None, None, {"[E1]": NEXT}, {"[E1]": NEXT, "[E2]": NEXT + 1}],
}  # fmt: skip


def test_however_the_places_are_filled_it_is_the_same_or_refused(tmp_path: Path) -> None:
    """Added tokens in any of the places, in agreement and in contradiction."""
    chance, kept = random.Random(0), 0
    for case in range(120):
        folder = tmp_path / str(case)
        folder.mkdir()
        write(folder, **{name: chance.choice(values) for name, values in PLACES.items()})
        try:
            load_tokenizer(folder)
        except UserError:
            continue
        same(folder)
        kept += 1
    assert kept > 10


def test_capital_letters_of_a_vocabulary_are_not_dropped_in_silence(tmp_path: Path) -> None:
    """Without settings they mean a cased model, whatever transformers takes for granted; settings have to say."""
    assert not load_tokenizer(write(tmp_path, vocab=vocabulary())).lowercase
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(UserError, match=r"vocab\.txt: it has capital letters.*set do_lower_case in tokenizer_config"):
        load_tokenizer(tmp_path)
    write(tmp_path, vocab=vocabulary(SMALL))
    assert load_tokenizer(tmp_path).lowercase


def test_a_file_by_itself_is_what_it_says(tmp_path: Path) -> None:
    """In no model's folder, there are no settings to contradict."""
    (tmp_path / "mine.json").write_text(json.dumps(whole(cased=True)))
    (tmp_path / "mine.txt").write_text(vocabulary())
    ours, plain = (load_tokenizer(tmp_path / name) for name in ("mine.json", "mine.txt"))
    assert not ours.lowercase
    assert ours.encode(["New"], None) == plain.encode(["New"], None)
