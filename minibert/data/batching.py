"""Token ids and the batches made of them: texts one by one, blocks, padding, and the order of an epoch.

The notebook pads every sequence to the maximum; here a batch is as long as its longest sequence. Padding is invisible
to the model (tests/layers checks that), so the results are the same, for less work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from minibert.errors import UserError
from minibert.tokenizer import WordPieceTokenizer

CHUNK = 1_000  # texts handled at once: enough to keep the tokenizer's threads busy, little to hold in memory
POOL = 16  # batches sorted together by length: enough to leave little padding, few enough to keep examples mixed

Ids = NDArray[np.unsignedinteger]
Chunk = tuple[NDArray[np.integer], Ids]


class TokenisedTexts:
    """A sequence of texts, each an array of token ids, in memory (`tokenise`) or in a mapped file.

    Two bytes a token are enough for a vocabulary of up to 65,536, so the notebook's 30,000 articles take about 7 MB.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = chunks  # each is (texts + 1,) where its texts begin and the last one ends, and (N,) their ids
        self.firsts = np.cumsum([0, *(len(starts) - 1 for starts, _ in chunks)])  # each chunk's first text

    @classmethod
    def mapped(cls, file: Path) -> TokenisedTexts:
        """The column `input_ids` of an Arrow file that `datasets` has written; read on demand."""
        import datasets  # it takes a second, and encoding a sentence does not need it

        column = datasets.Dataset.from_file(str(file)).data.column("input_ids")
        return cls([(chunk.offsets.to_numpy(), chunk.values.to_numpy()) for chunk in column.chunks])

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def __getitem__(self, index: int) -> Ids:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self.firsts, index, side="right")) - 1
        starts, ids = self.chunks[number]
        row = index - self.firsts[number]
        return ids[starts[row] : starts[row + 1]]

    def __iter__(self) -> Iterator[Ids]:
        return map(self.__getitem__, range(len(self)))

    def take(self, rows: Iterable[int]) -> list[Ids]:
        """The ids of some texts."""
        return [self[row] for row in rows]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(texts,) how many tokens each has."""
        return np.concatenate([np.zeros(0, np.int64), *(np.diff(starts) for starts, _ in self.chunks)])

    @property
    def tokens(self) -> int:
        """How many tokens the texts have together."""
        return int(self.lengths.sum())

    def counts(self, vocab_size: int) -> NDArray[np.int64]:
        """(V,) how often each token occurs in the texts."""
        counts = np.zeros(vocab_size, dtype=np.int64)
        for starts, ids in self.chunks:
            counts += np.bincount(ids[starts[0] : starts[-1]], minlength=vocab_size)
        return counts


class Blocks:
    """A sequence of texts as one stream of tokens, cut into blocks of T tokens.

    So every position of a batch is a real token, and nothing is cut off a text; a block may hold the end of one and
    the beginning of the next, with [SEP] and [CLS] between them. The last tokens, less than a block, are left out.

    Source: Liu et al. 2019, "RoBERTa", section 4.2 (FULL-SENTENCES).
    """

    def __init__(self, texts: TokenisedTexts, length: int) -> None:
        self.texts, self.length, self.counts = texts, length, texts.counts
        self.ends = np.cumsum(texts.lengths)  # (texts,) where each text ends in the stream

    def __len__(self) -> int:
        return int(self.ends[-1]) // self.length if len(self.ends) else 0

    def take(self, rows: Iterable[int]) -> list[Ids]:
        """The ids of some blocks."""
        return [self._block(int(row) * self.length) for row in rows]

    def _block(self, start: int) -> Ids:
        end = start + self.length
        first, last = np.searchsorted(self.ends, [start, end - 1], side="right")  # the texts where it begins and ends
        stream = np.concatenate(self.texts.take(range(first, last + 1)))
        skipped = start - (int(self.ends[first - 1]) if first else 0)
        return stream[skipped : skipped + self.length]


def tokenise(texts: Sequence[str], tokenizer: WordPieceTokenizer, max_length: int) -> TokenisedTexts:
    """Turn texts into ids in memory, [CLS] and [SEP] included, each cut to `max_length` tokens."""
    chunks: list[Chunk] = []
    # A bar only on a terminal, and only for many texts.
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
    """The share of [UNK] among the tokens that carry text; `UserError` if they are all [UNK], or there are none."""
    counts = texts.counts(tokenizer.vocab_size)
    unknown = int(counts[tokenizer.unk_id])
    known = int(counts[~tokenizer.special().numpy()].sum())
    if known:
        return unknown / (known + unknown)
    if not unknown:
        raise UserError(f"the texts of {name} have no tokens: they hold only white space or control characters")
    raise UserError(
        f"the vocabulary does not fit the text of {name}: every token is [UNK]; pass a --vocab (or an --encoder) of"
        " its language, or let train_mlm.py --vocab train learn one"
    )


@dataclass(frozen=True)
class Batch:
    """What a training step is given."""

    input_ids: Tensor  # (B, T) int64
    attention_mask: Tensor  # (B, T) bool, True = a real token
    labels: Tensor  # (N,) int64, the N answers to predict; none is ignored
    positions: Tensor | None = None  # (N,) int64, their places among the B * T flattened tokens (MLM only)
    tokens: int = 0  # how many of the B * T are real
    sequences: int = 1  # rows per example: the first rows of all examples come first, then their second ones
    prior: Tensor | None = None  # (N, C) float32, what is added to the logits in training

    @property
    def count(self) -> int:
        """N, the number of predictions."""
        return len(self.labels)

    def part(self, index: int, parts: int) -> Batch:
        """One of `parts` slices of the examples, as equal as can be, padded to its own longest sequence.

        Each rank of a distributed run makes the whole batch of a step and takes its own parts, so that neither
        examples nor masks depend on how many ranks there are. With fewer examples than parts, some parts are empty.
        """
        if parts == 1:
            return self
        B, T = len(self.input_ids) // self.sequences, self.input_ids.shape[1]
        first, end = B * index // parts, B * (index + 1) // parts
        input_ids, attention_mask = (
            rows.view(self.sequences, B, T)[:, first:end].flatten(0, 1)
            for rows in (self.input_ids, self.attention_mask)
        )
        length = int(attention_mask.any(dim=0).sum())
        labels, positions = self.labels[first:end], None
        if self.positions is not None:
            inside = (self.positions >= first * T) & (self.positions < end * T)
            row, column = (self.positions[inside] - first * T).div(T, rounding_mode="floor"), self.positions[inside] % T
            labels, positions = self.labels[inside], row * length + column
        return replace(
            self,
            input_ids=input_ids[:, :length],
            attention_mask=attention_mask[:, :length],
            labels=labels,
            positions=positions,
            tokens=int(attention_mask.sum()),
            prior=None if self.prior is None else self.prior[first:end],
        )

    @property
    def padded(self) -> bool:
        """Whether there is padding: known without asking the device."""
        return self.tokens < self.input_ids.numel()

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device; CUDA copies it while the host goes on, which needs pinned memory."""
        if device.type == "cpu":
            return self
        tensors: dict[str, Any] = {
            name: (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


def pad(sequences: Sequence[NDArray[np.integer] | Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Put B lists of token ids into one rectangle, filled up with `pad_id`.

    Returns:
        input_ids (B, T) int64 and attention_mask (B, T) bool, True = a real token, T the longest length.
    """
    if not sequences:
        raise ValueError("a batch needs at least one sequence")
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    input_ids = np.full((len(sequences), int(lengths.max())), pad_id, dtype=np.int64)
    for row, sequence in zip(input_ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    attention_mask = torch.arange(input_ids.shape[1]) < lengths.unsqueeze(1)  # (B, T)
    return torch.from_numpy(input_ids), attention_mask


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits its examples: a permutation that depends on (seed, epoch) alone.

    So the 900th batch of epoch 2 is known without replaying anything, and an interrupted run is cheap to continue.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def batch_generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """The randomness of one batch (its masks), decided by its place in the run alone, for the same reason."""
    state = np.random.SeedSequence([seed, epoch, step]).generate_state(1, dtype=np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def epoch_batches(
    count: int, batch_size: int, seed: int, epoch: int, start: int, lengths: NDArray[np.int64] | None = None
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The number and the rows of each batch of an epoch, from batch `start` on; (seed, epoch) decide the order.

    If the (count,) `lengths` of the examples are given, those of similar length share a batch: `POOL` batches' worth of
    the epoch's order at a time is sorted and cut, then the batches are shuffled.
    """
    order = epoch_order(count, seed, epoch)
    if lengths is None:
        batches: Iterable[NDArray[np.int64]] = (order[i : i + batch_size] for i in range(0, count, batch_size))
    else:
        pools = np.split(order, range(POOL * batch_size, count, POOL * batch_size))
        alike = [pool[rows] for pool in pools for rows in batches_of_like_length(lengths[pool], batch_size)]
        batches = [alike[number] for number in epoch_order(len(alike), seed, epoch)]
    return islice(enumerate(batches), start, None)


def batches_of_like_length(
    lengths: NDArray[np.int64], batch_size: int, tokens: int | None = None
) -> Iterator[NDArray[np.int64]]:
    """Put N sequences of similar length together, so that there is little padding; yields each batch's rows.

    The longest come first: if memory is too small, the first batch shows it. A batch has at most `tokens` places,
    padding included, unless it is a single longer sequence.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = batch_size if tokens is None else min(batch_size, max(1, tokens // int(lengths[order[start]])))
        yield order[start : start + size]
        start += size
