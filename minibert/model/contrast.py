"""A second loss for fine-tuning: of all sentences of a batch, a premise is to be nearest to what follows from it.

Cross-entropy over labels learns from one comparison a pair, and half of what it learns are habits of hypotheses that no
premise is needed for. Here each entailed pair is compared with all other sentences of its batch, which are about other
things, and nothing but the comparison can tell them apart. It makes vectors of like meaning near, before any label.

Source: Henderson et al. 2017, "Efficient natural language response suggestion for Smart Reply", section 4.4 (the other
examples of a batch as negatives); Gao et al. 2021, "SimCSE", section 4 (entailed pairs of NLI, and the temperature).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.05  # SimCSE's: cosines from -1 to 1 become logits from -20 to 20


def contrastive_loss(u: Tensor, v: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy of finding a positive pair's other half by its cosine, in both directions, summed over these pairs.

    Args:
        u, v: (B, D) the two sides' vectors.
        positive: (B,) bool, the pairs whose halves belong together. All u and all v of the batch are candidates, those
            of other pairs too.
    Returns:
        a number, in nats: for each positive pair the mean of both directions. 0 if there is none.
    """
    similarities = F.normalize(u, dim=-1) @ F.normalize(v, dim=-1).T / TEMPERATURE  # (B, B): each u with each v
    own = torch.arange(len(u), device=u.device)
    losses = F.cross_entropy(similarities, own, reduction="none") + F.cross_entropy(
        similarities.T, own, reduction="none"
    )  # (B,)
    return (losses * positive).sum() / 2
