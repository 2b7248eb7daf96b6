"""Token ids, as training reads them: all texts of a data set one after another, and where each begins.

Two bytes a token are enough for a vocabulary of up to 65,536, so the notebook's 30,000 articles take about 7 MB.
Whether they are in memory (`tokenise`) or in a mapped file (minibert.data.articles) makes no difference here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import datasets
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from minibert.errors import UserError
from minibert.tokenizer import WordPieceTokenizer

CHUNK = 1_000  # texts handled at once: enough to keep the tokenizer's threads busy, little to hold in memory

Chunk = tuple[NDArray[np.integer], NDArray[np.unsignedinteger]]


class TokenisedTexts:
    """A sequence of texts, each an array of token ids.

    Args:
        chunks: of each, (texts + 1,) where its texts begin and the last one ends, and (N,) their ids.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = chunks
        self.firsts = np.cumsum([0, *(len(starts) - 1 for starts, _ in chunks)])  # the chunks' first texts

    @classmethod
    def mapped(cls, file: Path) -> TokenisedTexts:
        """The column `input_ids` of an Arrow file that `datasets` has written; read as it is asked for."""
        column = datasets.Dataset.from_file(str(file)).data.column("input_ids")
        return cls([(chunk.offsets.to_numpy(), chunk.values.to_numpy()) for chunk in column.chunks])

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def __getitem__(self, index: int) -> NDArray[np.unsignedinteger]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self.firsts, index, side="right")) - 1
        starts, ids = self.chunks[number]
        row = index - self.firsts[number]
        return ids[starts[row] : starts[row + 1]]

    def __iter__(self) -> Iterator[NDArray[np.unsignedinteger]]:
        return map(self.__getitem__, range(len(self)))

    def take(self, rows: Iterable[int]) -> list[NDArray[np.unsignedinteger]]:
        """Some texts' ids."""
        return [self[row] for row in rows]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(texts,) how many tokens each has."""
        return np.concatenate([np.zeros(0, np.int64), *(np.diff(starts) for starts, _ in self.chunks)])

    @property
    def tokens(self) -> int:
        """How many tokens the texts have together."""
        return sum(int(starts[-1] - starts[0]) for starts, _ in self.chunks)

    def counts(self, vocab_size: int) -> NDArray[np.int64]:
        """How often each token stands in the texts, (V,)."""
        counts = np.zeros(vocab_size, dtype=np.int64)
        for starts, ids in self.chunks:
            counts += np.bincount(ids[starts[0] : starts[-1]], minlength=vocab_size)
        return counts


class Blocks:
    """A sequence of texts as one stream of tokens, cut into blocks of equal length.

    So every position of a batch is a real token, and nothing is cut off of a text; a block may hold the end of one and
    the beginning of the next, with [SEP] and [CLS] between them. What is left at the very end, less than a block, is
    left out.

    Source: Liu et al. 2019, "RoBERTa", section 4.2 (FULL-SENTENCES).

    Args:
        texts: the stream, in their order.
        length: T, of a block.
    """

    def __init__(self, texts: TokenisedTexts, length: int) -> None:
        self.texts, self.length = texts, length
        self.ends = np.cumsum(texts.lengths)  # (texts,) where each ends in the stream

    def __len__(self) -> int:
        return int(self.ends[-1]) // self.length if len(self.ends) else 0

    def take(self, rows: Iterable[int]) -> list[NDArray[np.unsignedinteger]]:
        """Some blocks' ids."""
        return [self._block(int(row) * self.length) for row in rows]

    def _block(self, start: int) -> NDArray[np.unsignedinteger]:
        text = int(np.searchsorted(self.ends, start, side="right"))  # the one that the block begins in
        skipped = start - (int(self.ends[text - 1]) if text else 0)
        parts: list[NDArray[np.unsignedinteger]] = []
        missing = self.length
        while missing:
            parts.append(self.texts[text][skipped : skipped + missing])
            missing -= len(parts[-1])
            text, skipped = text + 1, 0
        return np.concatenate(parts)

    @property
    def tokens(self) -> int:
        """How many tokens the blocks have together."""
        return len(self) * self.length

    def counts(self, vocab_size: int) -> NDArray[np.int64]:
        """How often each token stands in the texts, (V,), see `TokenisedTexts.counts`."""
        return self.texts.counts(vocab_size)


def tokenise(texts: Sequence[str], tokenizer: WordPieceTokenizer, max_length: int) -> TokenisedTexts:
    """Turn texts into ids in memory, [CLS] and [SEP] included, each cut to `max_length` tokens.

    Args:
        texts: any sequence of strings.
        tokenizer: decides the ids.
        max_length: the most tokens a text may have, the two special ones included.
    """
    chunks: list[Chunk] = []
    # A bar on a terminal only, and for few texts none: it costs a thread, shown or not.
    with tqdm(total=len(texts), desc="tokenising", unit=" texts", disable=len(texts) < CHUNK or None) as bar:
        for first in range(0, len(texts), CHUNK):
            encoded = tokenizer.encode(texts[first : first + CHUNK], max_length)
            starts = np.cumsum([0, *map(len, encoded)])
            chunks.append((starts, np.fromiter(chain.from_iterable(encoded), id_type(tokenizer), count=starts[-1])))
            bar.update(len(encoded))
    return TokenisedTexts(chunks)


def id_type(tokenizer: WordPieceTokenizer) -> type[np.uint16] | type[np.uint32]:
    """The smallest type that holds every id of a vocabulary."""
    return np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32


def unknown_share(texts: TokenisedTexts, tokenizer: WordPieceTokenizer, name: str) -> float:
    """The share of [UNK] among the tokens that carry text.

    Raises:
        UserError: they are all [UNK], or there are none.
    """
    counts = texts.counts(tokenizer.vocab_size)
    unknown = int(counts[tokenizer.unk_id])
    known = int(counts[~tokenizer.special().numpy()].sum())
    if not known and unknown:
        raise UserError(
            f"the vocabulary does not fit the text of {name}: every token is [UNK]; pass a --vocab (or an --encoder) of"
            " its language, or let train_mlm.py --vocab train learn one"
        )
    if not known:
        raise UserError(f"the texts of {name} have no tokens: nothing is in them but white space or control characters")
    return unknown / (known + unknown)
