"""From lists of token ids to batches: padding, and the order of an epoch.

The notebook pads every sequence to the maximum; here a batch is as long as its longest sequence. Padding is invisible
to the model (tests/layers holds that), so the results are the same and the work is less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What a training step is given.

    Attributes:
        input_ids: (B, T) int64.
        attention_mask: (B, T) bool, True = a real token.
        labels: (N,) int64, the N answers to be predicted, none of them to be ignored.
        positions: (N,) int64, where in the B * T flattened positions they belong (masked language modelling only).
        tokens: how many real tokens there are.
        sequences: how many rows an example has. The first rows of all examples come first, then their second ones.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    positions: Tensor | None = None
    tokens: int = 0
    sequences: int = 1

    @property
    def count(self) -> int:
        """N, the number of predictions."""
        return len(self.labels)

    def part(self, index: int, parts: int) -> Batch:
        """One of `parts` slices of the examples, as equal as can be, padded to its own longest sequence.

        Each rank of a distributed run makes the whole batch of a step and takes its parts of it, so that neither
        examples nor masks depend on how many ranks there are. The price is that each rank makes all of it: token ids
        alone, on the CPU, 6 ms for 1,024 rows of up to 128 tokens. With many hundreds of ranks that would be felt, and
        masks would have to be drawn for each text by itself. Of fewer examples than parts, some parts have none.
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
        )

    @property
    def padded(self) -> bool:
        """Whether there is padding: known without asking the device."""
        return self.tokens < self.input_ids.numel()

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device; CUDA copies it while the host goes on, which takes pinned memory."""
        if device.type == "cpu":
            return self
        tensors: dict[str, Any] = {
            name: (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


def pad(sequences: Sequence[NDArray[np.integer] | Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Put sequences of unequal length into one rectangle.

    Args:
        sequences: B lists of token ids.
        pad_id: what fills the rows up.
    Returns:
        input_ids (B, T) int64 and attention_mask (B, T) bool, True = a real token, T the longest length.
    Raises:
        ValueError: there is no sequence.
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
    """The order in which an epoch visits its examples: a permutation that (seed, epoch) alone decide.

    Nothing has to be replayed to find out what the 900th batch of epoch 2 is, which is what makes an interrupted run
    cheap to continue.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def batch_generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """The randomness of one batch (its masks), decided by its place in the run alone, for the same reason."""
    state = np.random.SeedSequence([seed, epoch, step]).generate_state(1, dtype=np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def batches_per_epoch(count: int, batch_size: int) -> int:
    """How many batches an epoch has; the last one may be smaller."""
    return -(-count // batch_size)


POOL = 16  # batches sorted together by length: enough to leave little padding, few enough to keep examples mixed


def epoch_batches(
    count: int, batch_size: int, seed: int, epoch: int, start: int, lengths: NDArray[np.int64] | None = None
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The number and the rows of each batch of an epoch, from batch `start` on.

    Args:
        count: examples there are.
        batch_size: examples in a batch; one may have fewer.
        seed, epoch: decide the order, and nothing else does.
        start: the first batch wanted.
        lengths: (count,) of the examples. If given, those of like length share a batch: `POOL` batches' worth of the
            epoch's order at a time is sorted and cut, then the batches are shuffled.
    """
    order = epoch_order(count, seed, epoch)
    if lengths is None:
        for step in range(start, batches_per_epoch(count, batch_size)):
            yield step, order[step * batch_size : (step + 1) * batch_size]
        return
    pools = np.split(order, range(POOL * batch_size, count, POOL * batch_size))
    batches = [pool[rows] for pool in pools for rows in batches_of_like_length(lengths[pool], batch_size)]
    shuffled = epoch_order(len(batches), seed, epoch)
    for step in range(start, len(batches)):
        yield step, batches[shuffled[step]]


def batches_of_like_length(
    lengths: NDArray[np.int64], batch_size: int, tokens: int | None = None
) -> Iterator[NDArray[np.int64]]:
    """Put sequences of like length together, so that there is little padding; the longest come first.

    (So if memory is too short, that shows at the first batch.)

    Args:
        lengths: (N,) of each sequence.
        batch_size: the most sequences in a batch.
        tokens: the most places in a batch, padding included, though one sequence may be longer; None = no limit.
    Returns:
        for each batch, which sequences are in it.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = batch_size if tokens is None else min(batch_size, max(1, tokens // int(lengths[order[start]])))
        yield order[start : start + size]
        start += size
