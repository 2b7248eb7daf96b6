"""Token ids, as training reads them: all texts of a data set in one flat array, and the places where each begins.

Two bytes a token are enough for a vocabulary of up to 65,536, so the notebook's 30,000 articles take about 7 MB. Where
the arrays are, in memory (`tokenise`) or in mapped files (minibert.data.store), makes no difference here.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from minibert.data.tokenizer import WordPieceTokenizer

CHUNK = 1_000  # texts handled at once: enough to keep the tokenizer's threads busy, little to hold in memory
WORKERS = 2  # chunks worked on at the same time


class TokenStore:
    """A sequence of token-id arrays, kept as one.

    Attributes:
        ids: (N,) unsigned integers, all texts one after another.
        starts: (texts + 1,) int64: text i is ids[starts[i] : starts[i + 1]].
        rows: which of the texts belong to the sequence, in its order; None is all of them as they stand.
    """

    def __init__(
        self,
        ids: NDArray[np.unsignedinteger],
        starts: NDArray[np.int64],
        rows: NDArray[np.integer] | None = None,
    ) -> None:
        self.ids = ids
        self.starts = starts
        self.rows = rows

    def __len__(self) -> int:
        return len(self.starts) - 1 if self.rows is None else len(self.rows)

    def __getitem__(self, index: int) -> NDArray[np.unsignedinteger]:
        row = index if self.rows is None else self.rows[index]
        return self.ids[self.starts[row] : self.starts[row + 1]]

    def select(self, rows: NDArray[np.integer]) -> TokenStore:
        """Some of the texts, in the order of `rows`; the ids are shared."""
        return TokenStore(self.ids, self.starts, rows if self.rows is None else self.rows[rows])

    def take(self, rows: Iterable[int]) -> list[NDArray[np.unsignedinteger]]:
        """Some texts' ids, copied, so that nothing of a mapped file stays in memory for them."""
        texts = [self[row].copy() for row in rows]
        self.release()
        return texts

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(texts,) how many tokens each has."""
        lengths = np.diff(self.starts)
        return lengths if self.rows is None else lengths[self.rows]

    @property
    def tokens(self) -> int:
        """How many tokens the texts have together."""
        rows = np.arange(len(self)) if self.rows is None else self.rows
        parts = (rows[first : first + CHUNK] for first in range(0, len(rows), CHUNK))
        tokens = sum(int((self.starts[part + 1] - self.starts[part]).sum()) for part in parts)
        self.release()
        return tokens

    def counts(self, vocab_size: int) -> NDArray[np.int64]:
        """How often each token stands in the texts, (V,); read in the order of the file, a chunk at a time."""
        texts = len(self.starts) - 1
        chosen = np.full(texts, self.rows is None)
        chosen[slice(0) if self.rows is None else self.rows] = True
        counts = np.zeros(vocab_size, dtype=np.int64)
        for first in range(0, texts, CHUNK):
            starts = self.starts[first : first + CHUNK + 1]
            mine = np.repeat(chosen[first : first + CHUNK], np.diff(starts))
            counts += np.bincount(self.ids[starts[0] : starts[-1]][mine], minlength=vocab_size)
            self.release()
        return counts

    def release(self) -> None:
        """Let go of what has been read of mapped files.

        The system would take it back in need, but until then it counts as memory of this process, and maps more
        around each place than was asked for: an epoch would make the process as large as its files.
        """
        for array in (self.ids, self.starts):
            if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                array.base.madvise(mmap.MADV_DONTNEED)


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

    def __init__(self, texts: TokenStore, length: int) -> None:
        self.texts, self.length = texts, length
        rows = np.arange(len(texts)) if texts.rows is None else texts.rows
        self.ends = np.cumsum(texts.starts[rows + 1] - texts.starts[rows])  # (texts,) where each ends in the stream

    def __len__(self) -> int:
        return int(self.ends[-1]) // self.length if len(self.ends) else 0

    def take(self, rows: Iterable[int]) -> list[NDArray[np.unsignedinteger]]:
        """Some blocks' ids, copied, as `TokenStore.take` has it."""
        blocks = [self._block(int(row) * self.length) for row in rows]
        self.texts.release()
        return blocks

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
        """How often each token stands in the texts, (V,), see `TokenStore.counts`."""
        return self.texts.counts(vocab_size)


def tokenise(texts: Sequence[str], tokenizer: WordPieceTokenizer, max_length: int) -> TokenStore:
    """Turn texts into ids in memory, [CLS] and [SEP] included, each cut to `max_length` tokens.

    Args:
        texts: any sequence of strings.
        tokenizer: decides the ids.
        max_length: the most tokens a text may have, the two special ones included.
    """
    # A bar on a terminal only, and for few texts none: it costs a thread, shown or not.
    shown = texts if len(texts) < CHUNK else tqdm(texts, desc="tokenising", unit=" texts", disable=None)
    chunks = list(encode_chunks(shown, tokenizer, max_length))
    ids = [np.empty(0, dtype=id_type(tokenizer)), *(ids for ids, _ in chunks)]
    lengths = [np.zeros(1, dtype=np.int64), *(lengths for _, lengths in chunks)]
    return TokenStore(np.concatenate(ids), np.cumsum(np.concatenate(lengths)))


def encode_chunks(
    texts: Iterable[str], tokenizer: WordPieceTokenizer, max_length: int | None
) -> Iterator[tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]]:
    """A stream of texts as a stream of chunks: the ids of its texts one after another, and each text's length.

    While one chunk is cut into pieces, which needs no interpreter, another becomes an array and a third is read.
    """
    texts = iter(texts)
    underway: deque[Future[tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        while chunk := list(islice(texts, CHUNK)):
            underway.append(pool.submit(_encode_chunk, chunk, tokenizer, max_length))
            if len(underway) > WORKERS:
                yield underway.popleft().result()
        while underway:
            yield underway.popleft().result()


def _encode_chunk(
    chunk: list[str], tokenizer: WordPieceTokenizer, max_length: int | None
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
    encoded = tokenizer.encode(chunk, max_length)
    lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
    return np.fromiter(chain.from_iterable(encoded), id_type(tokenizer), count=int(lengths.sum())), lengths


def id_type(tokenizer: WordPieceTokenizer) -> type[np.uint16] | type[np.uint32]:
    """The smallest type that holds every id of a vocabulary."""
    return np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
