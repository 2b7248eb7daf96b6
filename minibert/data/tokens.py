"""Tokenise once: a data set as one flat array of ids and the places where its texts begin.

Two bytes a token are enough for a vocabulary of up to 65,536, so the notebook's 30,000 articles take about 7 MB.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from minibert.data.tokenizer import WordPieceTokenizer

CHUNK = 1_000  # texts handed to the tokenizer at once: enough to keep its threads busy, little to hold in memory


class TokenStore:
    """A sequence of token-id arrays, kept as one.

    Attributes:
        ids: (N,) unsigned integers, all texts one after another.
        starts: (texts + 1,) int64: text i is ids[starts[i] : starts[i + 1]].
    """

    def __init__(self, ids: NDArray[np.unsignedinteger], starts: NDArray[np.int64]) -> None:
        self.ids = ids
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> NDArray[np.unsignedinteger]:
        return self.ids[self.starts[index] : self.starts[index + 1]]


def tokenise(texts: Sequence[str], tokenizer: WordPieceTokenizer, max_length: int) -> TokenStore:
    """Turn texts into ids, [CLS] and [SEP] included, each cut to `max_length` tokens.

    Args:
        texts: any sequence of strings; a column of a `datasets.Dataset` is read a chunk at a time.
        tokenizer: decides the ids.
        max_length: the most tokens a text may have, the two special ones included.
    """
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    pieces: list[NDArray[np.unsignedinteger]] = []
    lengths: list[int] = []
    for start in tqdm(
        range(0, len(texts), CHUNK), desc="tokenising", unit="k texts", disable=None
    ):  # on a terminal only
        chunk = list(texts[start : start + CHUNK])
        encoded = tokenizer.encode(chunk, max_length)
        pieces.extend(np.array(ids, dtype=dtype) for ids in encoded)
        lengths.extend(len(ids) for ids in encoded)
    ids = np.concatenate([np.empty(0, dtype=dtype), *pieces])
    return TokenStore(ids, np.cumsum([0, *lengths], dtype=np.int64))
