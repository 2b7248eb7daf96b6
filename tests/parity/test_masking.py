"""Proves that masks fall as those of transformers' collator do: as a distribution, since random numbers differ.

Both mask the same batches many times. Where they must agree, the two samples are compared; where minibert deviates on
purpose (a random replacement is never a special token), each is compared with what it should be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from minibert.config import IGNORED
from minibert.data.batching import pad
from minibert.masking import mask_tokens
from minibert.tokenizer import WordPieceTokenizer
from tests.parity.text import ARTICLES

ROUNDS = 60
UNLIKELY = 1e-4  # seeds are fixed: these tests pass always or never, and wrong rates are far below this


@dataclass
class Counts:
    """What became of the tokens in all rounds."""

    chosen: int = 0
    masked: int = 0
    kept: int = 0
    positions: list[np.ndarray] = field(default_factory=list)
    drawn: list[np.ndarray] = field(default_factory=list)

    def add(self, ids: Tensor, masked: Tensor, labels: Tensor, mask_id: int) -> None:
        chosen = labels != IGNORED
        assert torch.equal(labels[chosen], ids[chosen])
        assert torch.equal(masked[~chosen], ids[~chosen])
        self.chosen += int(chosen.sum())
        self.masked += int((masked[chosen] == mask_id).sum())
        self.kept += int((masked[chosen] == ids[chosen]).sum())
        self.positions.append(chosen.nonzero()[:, 1].numpy())
        self.drawn.append(masked[chosen & (masked != mask_id) & (masked != ids)].numpy())


@pytest.fixture(scope="module")
def counts(minilm: Path, vocabulary: WordPieceTokenizer) -> tuple[Counts, Counts, int]:
    """Ours, theirs, and how many tokens could be chosen."""
    ids, attention_mask = pad(vocabulary.encode(ARTICLES[:256], 128), vocabulary.pad_id)
    special = vocabulary.special()
    collator = DataCollatorForLanguageModeling(AutoTokenizer.from_pretrained(minilm), mlm=True, mlm_probability=0.15)
    ours, theirs = Counts(), Counts()
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    rows = [{"input_ids": row.tolist(), "attention_mask": mask.long().tolist()} for row, mask in
            zip(ids, attention_mask, strict=True)]  # fmt: skip
    for _ in range(ROUNDS):
        ours.add(ids, *mask_tokens(ids, special, vocabulary.mask_id, generator), vocabulary.mask_id)
        batch = collator(rows)
        theirs.add(ids, batch["input_ids"], batch["labels"], vocabulary.mask_id)
    return ours, theirs, ROUNDS * int((~special[ids]).sum())


def same_rate(first: int, of_first: int, second: int, of_second: int) -> float:
    """How likely two shares differ this much by chance (two-proportion z-test)."""
    rate = (first + second) / (of_first + of_second)
    deviation = (rate * (1 - rate) * (1 / of_first + 1 / of_second)) ** 0.5
    return float(2 * stats.norm.sf(abs(first / of_first - second / of_second) / deviation))


def test_as_many_are_chosen_masked_and_kept(counts: tuple[Counts, Counts, int]) -> None:
    ours, theirs, tokens = counts
    print(f"chosen {ours.chosen / tokens:.4f} and {theirs.chosen / tokens:.4f} of {tokens:,} tokens")
    assert same_rate(ours.chosen, tokens, theirs.chosen, tokens) > UNLIKELY
    for name, share in (("masked", 0.8), ("kept", 0.1)):
        mine, other = getattr(ours, name), getattr(theirs, name)
        print(f"{name} {mine / ours.chosen:.4f} and {other / theirs.chosen:.4f} of the chosen")
        assert same_rate(mine, ours.chosen, other, theirs.chosen) > UNLIKELY
        assert stats.binomtest(mine, ours.chosen, share).pvalue > UNLIKELY


def test_they_are_chosen_at_the_same_positions(counts: tuple[Counts, Counts, int]) -> None:
    ours, theirs, _ = counts
    table = [np.bincount(np.concatenate(side.positions), minlength=128)[1:127] for side in (ours, theirs)]
    assert stats.chi2_contingency(table).pvalue > UNLIKELY
    assert not np.bincount(np.concatenate(ours.positions), minlength=128)[0]  # [CLS]


def test_random_tokens_have_the_same_histogram(
    counts: tuple[Counts, Counts, int], vocabulary: WordPieceTokenizer
) -> None:
    """Over the vocabulary in 64 parts. The collator draws special tokens too, where minibert does not."""
    ours, theirs, _ = counts
    special = vocabulary.special().numpy()
    drawn = [np.concatenate(side.drawn) for side in (ours, theirs)]
    print(f"{len(drawn[0]):,} and {len(drawn[1]):,} random tokens")
    edges = np.linspace(0, vocabulary.vocab_size, 65)
    table = [np.histogram(side[~special[side]], edges)[0] for side in drawn]
    assert stats.chi2_contingency(table).pvalue > UNLIKELY
    assert stats.chisquare(table[0]).pvalue > UNLIKELY
    assert not special[drawn[0]].any()
    assert same_rate(len(drawn[0]), ours.chosen, len(drawn[1]), theirs.chosen) > UNLIKELY
