"""Proves the bookkeeping of masking, pooling, packing and parts for any shape of batch, by counting and by hand."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minibert.config import IGNORED
from minibert.data.batching import Batch, pad
from minibert.fast import Packing
from minibert.masking import mask_tokens
from minibert.sbert import cls_pooling, max_pooling, mean_pooling

SIZE = st.integers(1, 40)


@given(B=SIZE, T=SIZE, V=st.integers(2, 50), seed=st.integers(0, 2**32), rate=st.floats(0, 0.999), data=st.data())
def test_every_token_has_one_of_four_fates(B: int, T: int, V: int, seed: int, rate: float, data: st.DataObject) -> None:
    """Left alone, hidden, replaced or kept; and which, by three draws that are made here again."""
    special = torch.tensor(data.draw(st.lists(st.booleans(), min_size=V, max_size=V).filter(lambda row: not all(row))))
    mask_id = data.draw(st.integers(0, V - 1))
    ids = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))
    before = ids.clone()
    masked, labels = mask_tokens(ids, special, mask_id, torch.Generator().manual_seed(seed), rate)
    assert torch.equal(ids, before)

    generator = torch.Generator().manual_seed(seed)
    chance, fate = torch.rand(B, T, generator=generator), torch.rand(B, T, generator=generator)
    draws = torch.randint(int((~special).sum()), (B, T), generator=generator)
    ordinary = [index for index in range(V) if not special[index]]
    fates = (ids, masked, labels, special[ids] | (chance >= rate), fate < 0.8, fate < 0.9, draws)
    for old, new, label, alone, hidden, replaced, draw in zip(*(its.flatten().tolist() for its in fates), strict=True):
        assert label == (IGNORED if alone else old)
        assert new == (old if alone else mask_id if hidden else ordinary[draw] if replaced else old)


@st.composite
def sequences(draw: st.DrawFn) -> list[list[int]]:
    return draw(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=9))


@given(rows=sequences(), D=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_pooling_sees_the_real_tokens_alone(rows: list[list[int]], D: int, seed: int) -> None:
    ids, mask = pad(rows, 0)
    hidden = torch.randn(*ids.shape, D, generator=torch.Generator().manual_seed(seed))
    for index, row in enumerate(rows):
        real = hidden[index, : len(row)]
        assert torch.allclose(mean_pooling(hidden, mask)[index], real.mean(dim=0), atol=1e-6)
        assert torch.equal(max_pooling(hidden, mask)[index], real.max(dim=0).values)
        assert torch.equal(cls_pooling(hidden, mask)[index], real[0])


@given(rows=sequences(), seed=st.integers(0, 2**32))
def test_packing_and_unpacking_loses_nothing(rows: list[list[int]], seed: int) -> None:
    ids, mask = pad(rows, 0)
    packing = Packing.of(mask)
    assert (packing is None) == bool(mask.all())
    if packing is None:
        return
    hidden = torch.randn(*ids.shape, 3, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(packing.pack(ids.unsqueeze(-1)).flatten(), torch.tensor([i for row in rows for i in row]))
    assert torch.equal(packing.unpack(packing.pack(hidden)), hidden * mask.unsqueeze(-1))


@given(rows=sequences(), parts=st.integers(1, 12), data=st.data())
def test_the_parts_of_a_batch_are_the_batch(rows: list[list[int]], parts: int, data: st.DataObject) -> None:
    ids, mask = pad(rows, 0)
    where = mask.flatten().nonzero().flatten()
    chosen = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(where), max_size=len(where))))
    positions = where[chosen]
    batch = Batch(ids, mask, ids.flatten()[positions], positions, tokens=int(mask.sum()))
    found: list[Tensor] = []
    for index in range(parts):
        part = batch.part(index, parts)
        assert part.positions is not None
        assert torch.equal(part.input_ids.flatten()[part.positions], part.labels)
        found += [row[real] for row, real in zip(part.input_ids, part.attention_mask, strict=True)]
    assert [row.tolist() for row in found] == rows
    assert sum(batch.part(index, parts).count for index in range(parts)) == batch.count
