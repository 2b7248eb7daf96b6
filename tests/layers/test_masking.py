"""Proves that masking agrees with the notebook's, and says what is missing."""

import pytest
import torch

from minibert.config import IGNORED
from minibert.masking import mask_tokens
from tests.layers.oracles import MASK_ID, SPECIAL, VOCABULARY, generator, within


def test_agrees_with_the_notebooks_collator() -> None:
    """The same rates from `DataCollatorForLanguageModeling`, but for its draws of special tokens."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(VOCABULARY - 5))]
    theirs = transformers.BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    collate = transformers.DataCollatorForLanguageModeling(tokenizer=theirs, mlm=True, mlm_probability=0.15, seed=0)
    ids = torch.randint(5, VOCABULARY, (1_000, 100), generator=generator(1))
    ids[:, 0], ids[:, 60], ids[:, 61:] = 2, 3, 0  # [CLS] ... [SEP] [PAD] ...
    batch = collate([{"input_ids": row.tolist()} for row in ids])
    masked, labels = mask_tokens(ids, SPECIAL, MASK_ID, generator())
    for seen, asked in ((batch["input_ids"], batch["labels"]), (masked, labels)):
        chosen = asked != IGNORED
        assert not chosen[:, [0, 60, *range(61, 100)]].any()
        within(int(chosen.sum()), 1_000 * 59, 0.15, "the share of chosen tokens")
        within(int((seen[chosen] == MASK_ID).sum()), int(chosen.sum()), 0.8, "the share of [MASK]")


def test_the_error_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="nothing to draw from"):
        mask_tokens(torch.zeros(1, 3, dtype=torch.long), torch.ones(5, dtype=torch.bool), 4, generator())
