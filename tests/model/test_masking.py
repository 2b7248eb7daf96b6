"""Proves the 80/10/10 rule: who can be chosen, how often, what becomes of them, and that a seed decides it all."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.config import IGNORED
from minibert.masking import hide_tokens, mask_tokens

V, MASK = 1_000, 4
SPECIAL = torch.arange(V) < 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def within(count: int, trials: int, rate: float) -> bool:
    """Five standard deviations of a binomial: a right implementation fails once in two million seeds."""
    return abs(count - trials * rate) < 5 * math.sqrt(trials * rate * (1 - rate))


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_rates(rate: float) -> None:
    ids = torch.randint(5, V, (2_000, 100), generator=generator(1))
    masked, labels = mask_tokens(ids, SPECIAL, MASK, generator(), rate)
    chosen = labels != IGNORED
    count = int(chosen.sum())
    assert within(count, ids.numel(), rate)
    assert within(int((masked[chosen] == MASK).sum()), count, 0.8)
    # A random draw hits the token itself once in 995: that many more look kept than are.
    assert within(int((masked[chosen] == ids[chosen]).sum()), count, 0.1 + 0.1 / (V - 5))


def test_random_tokens_are_uniform_over_ordinary_ones() -> None:
    ids = torch.full((4_000, 100), 7)
    masked, labels = mask_tokens(ids, SPECIAL, MASK, generator(), 0.5)
    drawn = masked[(labels != IGNORED) & (masked != MASK) & (masked != 7)]
    counts = torch.bincount(drawn, minlength=V)
    assert (counts[:5] == 0).all()
    others = torch.cat([counts[5:7], counts[8:]]).double()
    expected = others.sum() / len(others)
    chi_square = float(((others - expected) ** 2 / expected).sum())
    degrees = len(others) - 1
    assert abs(chi_square - degrees) < 5 * math.sqrt(2 * degrees)


def test_choices_are_independent_of_place() -> None:
    ids = torch.full((20_000, 10), 7)
    _, labels = mask_tokens(ids, SPECIAL, MASK, generator(), 0.15)
    chosen = labels != IGNORED
    for place in range(10):
        assert within(int(chosen[:, place].sum()), 20_000, 0.15)
    both = int((chosen[:, 3] & chosen[:, 4]).sum())
    assert within(both, 20_000, 0.15**2)


def test_the_seed_decides() -> None:
    ids = torch.randint(V, (8, 30), generator=generator(1))
    first, again, other = (mask_tokens(ids, SPECIAL, MASK, generator(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])


@settings(deadline=None, max_examples=100)
@given(
    rows=st.integers(0, 5),
    columns=st.integers(0, 40),
    rate=st.floats(0, 1),
    seed=st.integers(0, 2**62),
    special_ids=st.sets(st.integers(0, 29), max_size=29),
)
def test_for_any_batch_the_bookkeeping_is_exact(
    rows: int, columns: int, rate: float, seed: int, special_ids: set[int]
) -> None:
    special = torch.zeros(30, dtype=torch.bool)
    special[list(special_ids)] = True
    ids = torch.randint(30, (rows, columns), generator=generator(seed))
    before = ids.clone()
    masked, labels = mask_tokens(ids, special, 4, generator(seed), rate)
    chosen = labels != IGNORED
    assert torch.equal(ids, before)
    assert masked.shape == labels.shape == ids.shape
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(masked[~chosen], ids[~chosen])
    assert not special[ids[chosen]].any()
    assert (~special[masked[chosen]] | (masked[chosen] == 4)).all()


def test_a_vocabulary_of_special_tokens_only_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw from"):
        mask_tokens(torch.zeros(1, 3, dtype=torch.long), torch.ones(5, dtype=torch.bool), 4, generator())


def test_agrees_with_the_notebooks_collator() -> None:
    """The same rates from `DataCollatorForLanguageModeling`, but for its draws of special tokens."""
    from transformers import BertTokenizerFast, DataCollatorForLanguageModeling

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(V - 5))]
    theirs = BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    collate = DataCollatorForLanguageModeling(tokenizer=theirs, mlm=True, mlm_probability=0.15, seed=0)
    ids = torch.randint(5, V, (1_000, 100), generator=generator(1))
    ids[:, 0], ids[:, 60], ids[:, 61:] = 2, 3, 0  # [CLS] ... [SEP] [PAD] ...
    batch = collate([{"input_ids": row.tolist()} for row in ids])
    masked, labels = mask_tokens(ids, SPECIAL, MASK, generator())
    eligible = 1_000 * 59
    for seen, asked in ((batch["input_ids"], batch["labels"]), (masked, labels)):
        chosen = asked != IGNORED
        assert not chosen[:, [0, 60, *range(61, 100)]].any()
        assert within(int(chosen.sum()), eligible, 0.15)
        assert within(int((seen[chosen] == MASK).sum()), int(chosen.sum()), 0.8)


def test_hidden_tokens_are_as_many_as_asked_and_never_special() -> None:
    """Of 100,000 ordinary tokens a share of 0.2, within five standard deviations; the others untouched."""
    special = torch.zeros(50, dtype=torch.bool)
    special[:5] = True
    ids = torch.randint(50, (1_000, 100), generator=torch.Generator().manual_seed(0))
    hidden = hide_tokens(ids, special, 4, torch.Generator().manual_seed(1), 0.2)
    changed = hidden != ids
    assert (hidden[changed] == 4).all()
    assert not special[ids[changed]].any()
    ordinary = int((~special[ids]).sum())
    assert abs(int(changed.sum()) - 0.2 * ordinary) < 5 * math.sqrt(0.2 * 0.8 * ordinary)
    assert torch.equal(hidden, hide_tokens(ids, special, 4, torch.Generator().manual_seed(1), 0.2))
