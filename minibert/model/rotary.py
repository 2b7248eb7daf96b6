"""Rotary positions: where a token stands, told by turning its queries and keys.

The K numbers of a head are taken as K/2 pairs, each a point in a plane. A token at position p has its points turned by
p times an angle, a large one for the first pair and ever smaller ones for the next. The product of a query and a key
then depends on how far apart the two stand and no longer on where, so "the word before" is one and the same pattern at
every place, and is learned once instead of 128 times.

    q, k at positions m, n:    (turn(m) q) . (turn(n) k)  =  q . turn(n - m) k

Values are not turned: what a token says does not depend on its place.

Source: Su et al. 2021, "RoFormer", section 3.2.2 and 3.4.2. As in most of today's code, pair i is the numbers i and
i + K/2 of a head, where the paper takes neighbours: another order of the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(heads: Tensor, theta: float) -> Tensor:
    """Turn each position's vectors by its angles.

    Args:
        heads: (..., T, K) queries or keys, K even; positions are 0 to T - 1.
        theta: the base: pair i of K/2 turns by theta^(-2i / K) radians a position.
    Returns:
        (..., T, K), the dtype of `heads`.
    """
    T, K = heads.shape[-2:]
    angles = theta ** (torch.arange(0, K, 2, device=heads.device) / -K)  # (K/2,)
    turned = torch.outer(torch.arange(T, device=heads.device), angles)  # (T, K/2)
    cos, sin = turned.cos(), turned.sin()
    x, y = heads.chunk(2, dim=-1)  # (..., T, K/2) each
    return torch.cat([x * cos - y * sin, y * cos + x * sin], dim=-1).to(heads.dtype)
