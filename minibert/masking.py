"""The 80/10/10 rule: which tokens the model has to guess, and what it sees in their place.

Of the tokens that carry text, 15 % are chosen. Of those, 80 % become [MASK], 10 % become a random token, 10 % stay as
they are; all of them are predicted. The model can't tell which of the tokens that it sees were chosen, so it has to
keep a representation of every one.

There are deliberate deviations. Each token is chosen independently, as in the notebook, where BERT's own code picks a
fixed number per sequence. And special tokens are neither chosen nor drawn: BERT's code and the notebook's collator draw
from the whole vocabulary, including [CLS], [PAD] and [MASK], and BERT's code may choose [UNK].

Source: Devlin et al. 2019, section 3.1 "Task #1" and appendix A.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minibert.config import IGNORED

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1


def mask_tokens(
    input_ids: Tensor, special: Tensor, mask_id: int, generator: torch.Generator, rate: float = 0.15
) -> tuple[Tensor, Tensor]:
    """Hide some tokens and say what they were.

    Args:
        input_ids: (B, T) integers; not changed.
        special: (V,) bool, True = a special token ([PAD], [UNK], [CLS], [SEP], [MASK]): never chosen, never drawn.
        mask_id: the id of [MASK].
        generator: the source of randomness: equal states give equal masks.
        rate: the probability with which a token is chosen.
    Returns:
        masked ids (B, T), and labels (B, T): the original id where a token was chosen, -100 elsewhere.
    Raises:
        ValueError: every token of the vocabulary is special.
    Source: Devlin et al. 2019, section 3.1.
    """
    ordinary_ids = (~special).nonzero().flatten()
    if not len(ordinary_ids):
        raise ValueError("every token of the vocabulary is special: there is nothing to draw from")

    chosen = (torch.rand(input_ids.shape, generator=generator) < rate) & ~special[input_ids]  # (B, T)
    labels = input_ids.masked_fill(~chosen, IGNORED)

    fate = torch.rand(input_ids.shape, generator=generator)  # one draw decides among the three
    draws = torch.randint(len(ordinary_ids), input_ids.shape, generator=generator)
    masked = input_ids.masked_fill(chosen & (fate < MASK_SHARE), mask_id)
    replaced = chosen & (fate >= MASK_SHARE) & (fate < MASK_SHARE + RANDOM_SHARE)
    return torch.where(replaced, ordinary_ids[draws].to(input_ids.dtype), masked), labels
