"""Packing: the real tokens of a batch one after another, so that nothing is computed at padding.

All of a BERT but attention treats each token by itself and needs no rectangle: (N, D) does, N the number of real
tokens. Attention has to know which tokens are of one sequence, and has its rectangle (B, T, ...) while it lasts.

Source: Zeng et al. 2022, "Boosting Distributed Training Performance of the Unpadded BERT Model".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of a batch stand.

    Attributes:
        places: (N,) int64, their positions among the B * T flattened ones.
        shape: (B, T).
    """

    places: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, attention_mask: Tensor | None) -> Packing | None:
        """Of a mask (B, T), True = a real token; None if it pays to compute the rectangle.

        That is so if there is no padding, and on an accelerator, where the very question would make every step wait for
        the device.
        """
        if attention_mask is None or attention_mask.device.type != "cpu" or bool(attention_mask.all()):
            return None
        B, T = attention_mask.shape
        return cls(attention_mask.flatten().nonzero().squeeze(1), (B, T))

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, C) to (N, C)."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def rows(self, positions: Tensor) -> Tensor:
        """Where in (N, C) some of the B * T flattened positions are found: (M,) to (M,).

        Raises:
            ValueError: one of them is padding, of which nothing is computed.
        """
        rows = torch.searchsorted(self.places, positions).clamp_(max=len(self.places) - 1)
        if not torch.equal(self.places[rows], positions):
            raise ValueError("a wanted position is padding: nothing is computed there")
        return rows

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, C) to (B, T, C), with zeros at padding."""
        B, T = self.shape
        padded = packed.new_zeros(B * T, packed.shape[-1])
        return padded.index_copy_(0, self.places, packed).view(B, T, -1)


def only(hidden: Tensor, wanted: Tensor | None) -> Tensor:
    """Some tokens of a batch: (B, T, C) or (N, C) to (M, C).

    Args:
        hidden: a vector for each token.
        wanted: (M,) which rows, all dimensions but the last being flattened; None leaves `hidden` as it is.
    """
    return hidden if wanted is None else hidden.flatten(0, -2).index_select(0, wanted)
