"""Rotary positions: where a token stands, told by turning its queries and keys.

The K numbers of a head are taken as K/2 pairs, each a point in a plane. A token at position p has its points turned by
p times an angle, a large one for the first pair and ever smaller ones for the next. The product of a query and a key
then depends on how far apart the two stand and no longer on where, so "the word before" is one and the same pattern at
every place, and is learned once instead of 128 times.

    q, k at positions m, n:    (turn(m) q) . (turn(n) k)  =  q . turn(n - m) k

Values are not turned: what a token says does not depend on its place.

That also makes it easy to point a head somewhere before it has learned anything. If all queries and all keys have one
point in common, their bias, then the product is largest where the two turned points meet: at distance 0 if the biases
are equal, and at distance d if the key's is turned back by d places (`pointing`).

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


# How a head is pointed: with how many pairs, the fastest ones, and how long its biases are in each of their planes. The
# weight it gives to the place it points at is then about 0.3, and most of the rest is next to it.
PAIRS, LENGTH = 8, 2.0


def pointing(head_size: int, theta: float, distance: int) -> tuple[Tensor, Tensor]:
    """Biases with which a head looks at the token that stands `distance` places further on, or back if negative.

    Args:
        head_size: K.
        theta: the base of the angles, as in `rotate`.
        distance: in tokens.
    Returns:
        (K,) of its queries and (K,) of its keys.
    """
    pairs = min(PAIRS, head_size // 2)
    query = torch.zeros(2, head_size // 2)  # the x of all pairs, then the y, as `rotate` has them
    key = torch.zeros_like(query)
    query[0, :pairs] = LENGTH
    back = -distance * theta ** (torch.arange(0, head_size, 2) / -head_size)[:pairs]
    key[0, :pairs], key[1, :pairs] = LENGTH * back.cos(), LENGTH * back.sin()
    return query.flatten(), key.flatten()
