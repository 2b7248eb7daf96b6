"""WordPiece: words cut into the longest pieces that the vocabulary knows ("playing" -> "play", "##ing").

The `tokenizers` library does the cutting; this file sets it up as BERT's: control characters dropped, lower case and no
accents for an uncased vocabulary, split at spaces, punctuation and CJK characters, then the longest matching piece.

[CLS], [SEP] and the cut to a maximum length are added here and not by the library: its truncation and padding are
settings of the tokenizer object, and would be saved into tokenizer.json with it.

Source: Devlin et al. 2019, section 3; Wu et al. 2016, section 4.1 (WordPiece).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from minibert.errors import UserError
from minibert.files import valid_unicode, write_json

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# How much of a text is read for each piece that is wanted: English Wikipedia has 4.6 characters a piece.
CHARACTERS_PER_PIECE = 5

# What a learned vocabulary spells words with: as many characters as BERT's own training kept, and more where these are
# too small a part of the text, as in Chinese (sentencepiece's "character coverage": Kudo & Richardson 2018).
ALPHABET, COVERAGE = 1_000, 0.9999


class WordPieceTokenizer:
    """BERT's tokenizer: text to ids and back.

    Attributes:
        vocab_size: V.
        pad_id, unk_id, cls_id, sep_id, mask_id: the ids of the special tokens.
        splits_at_spaces: whether a text may be read in portions that end before a space.

    Raises:
        UserError: it is not a WordPiece, or the vocabulary lacks a special token.
    """

    def __init__(self, backend: Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        if not isinstance(backend.model, models.WordPiece):
            raise UserError(f"the tokenizer is a {type(backend.model).__name__}, not a WordPiece")
        vocabulary = backend.get_vocab()
        self.vocab_size = len(vocabulary)
        if sorted(vocabulary.values()) != list(range(self.vocab_size)):
            raise UserError(f"the vocabulary has {self.vocab_size:,} tokens, but their ids are not 0, 1, 2 ...")
        if backend.model.unk_token != UNK or UNK not in backend.get_vocab(with_added_tokens=False):
            raise UserError(f"the vocabulary lacks {UNK}: it is not a BERT vocabulary")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            _special_id(backend, token) for token in SPECIAL_TOKENS
        )
        self.splits_at_spaces = _splits_at_spaces(backend)

    @classmethod
    def from_vocabulary(cls, tokens: Sequence[str], lowercase: bool | None = None) -> WordPieceTokenizer:
        """BERT's tokenizer over a list of tokens, whose places are their ids.

        Args:
            tokens: including the special ones.
            lowercase: whether to drop case and accents; None decides by the list: with capital letters in ordinary
                tokens, case is kept.
        Raises:
            UserError: a token is in the list twice, or a special token is missing.
        """
        return cls(bert_backend(tokens, lowercase))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, lowercase: bool = True) -> WordPieceTokenizer:
        """Learn a vocabulary of V tokens, `vocab_size`, from text, which is read twice; equal texts give equal ones.

        It is smaller if the text has no more pieces (in BERT each Chinese character is a word by itself), and larger if
        V does not suffice for what is always in it: special tokens, and the text's characters (except for the rarest
        0.01 % of a large text) in the forms that begin a word and that continue one.

        The trainer breaks ties by its own numbering of the characters, which differs from process to process. Naming
        them first, as if they were special tokens, settles the numbers, and with them the ties.
        """
        if iter(texts) is texts:
            raise TypeError("texts are read twice: give a list of them, not a generator")
        backend = _as_bert(Tokenizer(models.WordPiece(unk_token=UNK)), lowercase)
        alphabet = _alphabet(backend, texts)
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=[*SPECIAL_TOKENS, *alphabet, *_inside(backend, alphabet)],
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        vocabulary = backend.get_vocab()
        return cls.from_vocabulary(sorted(vocabulary, key=vocabulary.__getitem__), lowercase)

    def save(self, folder: Path, max_length: int) -> None:
        """Write tokenizer.json, tokenizer_config.json and vocab.txt, as Hugging Face's tools expect them.

        Those tools cut texts to `max_length`, the longest sequence that the model reads.
        """
        self.backend.save(str(folder / "tokenizer.json"))
        (folder / "vocab.txt").write_text("\n".join([*self.tokens(range(self.vocab_size)), ""]), encoding="utf-8")
        parts = json.loads(self.backend.to_str())
        normalizer = parts["normalizer"] or {}
        # What transformers builds from the settings below; anything else it has to take from tokenizer.json as it is.
        is_bert = (parts["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer" and normalizer.get("clean_text")
        is_bert = is_bert and parts["model"]["max_input_chars_per_word"] == 100
        settings = {
            "tokenizer_class": "BertTokenizer" if is_bert else "PreTrainedTokenizerFast",
            "model_max_length": max_length,
            "do_lower_case": bool(normalizer.get("lowercase", False)),
            "strip_accents": normalizer.get("strip_accents"),
            "tokenize_chinese_chars": bool(normalizer.get("handle_chinese_chars", True)),
            **{f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS},  # "pad_token": "[PAD]", ...
        }
        write_json(folder / "tokenizer_config.json", settings)

    def encode(self, texts: Sequence[str], max_length: int | None) -> list[list[int]]:
        """Text to ids: [CLS], at most `max_length` - 2 pieces, [SEP]; None keeps all pieces.

        Raises:
            TypeError: a text is not a string.
            ValueError: `max_length` leaves no room for a single piece.
        """
        if max_length is not None and max_length < 3:
            raise ValueError(f"max_length {max_length}: [CLS], one token and [SEP] need 3")
        if isinstance(texts, str):
            raise TypeError("encode wants a list of texts: for one, [text]")
        if odd := [text for text in texts if not isinstance(text, str)]:
            raise TypeError(f"a text has to be a string, not {odd[0]!r:.40}")
        texts = list(map(valid_unicode, texts))  # U+FFFD, which BERT's cleaning drops
        count = None if max_length is None else max_length - 2
        pieces = self._first_pieces(texts, count) if count and self.splits_at_spaces else self._pieces(texts)
        return [[self.cls_id, *ids[:count], self.sep_id] for ids in pieces]

    def _pieces(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _first_pieces(self, texts: list[str], count: int) -> list[list[int]]:
        """At least the first `count` pieces of each text, or all of them if there are fewer.

        They are in a long text's first characters, so it is read in portions, each about as long as the missing pieces,
        until there are enough. A portion ends before a space, which no piece goes across (`splits_at_spaces`).
        """
        result: list[list[int]] = [[] for _ in texts]
        ends = [0] * len(texts)
        rows = list(range(len(texts)))
        while rows:
            portions = []
            for row in rows:
                start = ends[row]
                ends[row] = _before_a_space(texts[row], start, CHARACTERS_PER_PIECE * (count - len(result[row])))
                portions.append(texts[row][start : ends[row]])
            for row, ids in zip(rows, self._pieces(portions), strict=True):
                result[row] += ids
            rows = [row for row in rows if len(result[row]) < count and ends[row] < len(texts[row])]
        return result

    @property
    def lowercase(self) -> bool:
        """Whether case is dropped."""
        return self.backend.normalizer is not None and self.backend.normalizer.normalize_str("A") == "a"

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The pieces themselves, for a person to read."""
        return [self.backend.id_to_token(index) or UNK for index in ids]

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Ids back to text: pieces joined, spaces before punctuation dropped."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_special)

    def special(self) -> Tensor:
        """(V,) bool, True at the five special tokens: what masking must neither choose nor draw."""
        table = torch.zeros(self.vocab_size, dtype=torch.bool)
        table[[self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id]] = True
        return table

    def fingerprint(self) -> str:
        """A hash of all that tokenizer.json holds, which differs between tokenizers that may give different ids."""
        return hashlib.sha256(self.backend.to_str().encode("utf-8")).hexdigest()


def _special_id(backend: Tokenizer, token: str) -> int:
    index = backend.token_to_id(token)
    if index is None:
        raise UserError(f"the vocabulary lacks {token}: it is not a BERT vocabulary")
    return index


def bert_backend(
    tokens: Sequence[str], lowercase: bool | None = None, strip_accents: bool | None = None, chinese: bool = True
) -> Tokenizer:
    """BERT's tokenizer, as in `WordPieceTokenizer.from_vocabulary`.

    `strip_accents` drops accents (None: if case is dropped), `chinese` makes each Chinese character a word.
    """
    vocabulary = {token: index for index, token in enumerate(tokens)}
    for line, token in enumerate(tokens, start=1):
        if vocabulary[token] != line - 1:
            raise UserError(f"{token!r:.40} is token {line} and token {vocabulary[token] + 1}: its id is ambiguous")
    if lowercase is None:
        lowercase = not has_capitals(tokens)
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=100))
    _as_bert(backend, lowercase, strip_accents, chinese)
    # Not used here (see the head of this file), but whoever loads tokenizer.json expects it to add the two.
    backend.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(token, _special_id(backend, token)) for token in (CLS, SEP)],
    )
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return backend


def has_capitals(tokens: Iterable[str]) -> bool:
    """Whether there are capital letters in ordinary tokens."""
    return any(token != token.lower() for token in tokens if not token.startswith("["))


def _as_bert(backend: Tokenizer, lowercase: bool, strip_accents: bool | None = None, chinese: bool = True) -> Tokenizer:
    """Give a WordPiece model BERT's cleaning, splitting and joining."""
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=chinese
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def _alphabet(backend: Tokenizer, texts: Iterable[str]) -> list[str]:
    """A text's commonest characters, as many as `ALPHABET` and `COVERAGE` say, ties with the last included."""
    normal = backend.normalizer.normalize_str
    counts = Counter(character for text in texts for character in normal(text) if not character.isspace())
    covered, least = 0, 0
    for number, (_, count) in enumerate(counts.most_common()):
        if number >= ALPHABET and covered >= COVERAGE * counts.total() and count < least:
            break
        covered, least = covered + count, count
    return sorted(character for character, count in counts.items() if count >= least)


def _inside(backend: Tokenizer, alphabet: list[str]) -> list[str]:
    """The ##pieces of those characters that can stand inside a word."""
    normal, split = backend.normalizer.normalize_str, backend.pre_tokenizer.pre_tokenize_str
    return [f"##{character}" for character in alphabet if len(split(normal(f"a{character}"))) == 1]


def _splits_at_spaces(backend: Tokenizer) -> bool:
    """Whether no piece and no added token ("New York") goes across a space."""
    if backend.pre_tokenizer is None or len(backend.pre_tokenizer.pre_tokenize_str("a b")) < 2:
        return False
    normal = backend.normalizer.normalize_str if backend.normalizer else str
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    return not any(character.isspace() for token in added for character in token + normal(token))


def _before_a_space(text: str, start: int, characters: int) -> int:
    """Where a portion of about so many characters from `start` on may end: before a space, or at the text's end."""
    if len(text) - start <= characters:
        return len(text)
    end = text.rfind(" ", start + 1, start + characters)
    if end < 0:  # a very long word
        end = text.find(" ", start + characters)
    return end if end > 0 else len(text)
