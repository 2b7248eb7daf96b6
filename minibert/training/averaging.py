"""The average of a model's weights over the last steps: what `--average` validates and keeps instead of the last ones.

While the learning rate is high, the weights go around a good place without arriving there. Their average is nearer to
it than any of them, and less bent on the last few batches.

Source: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging"; Izmailov et al. 2018,
"Averaging weights leads to wider optima and better generalization", section 3 (of neural networks). Which step counts
for how much: Shamir & Zhang 2013, "Stochastic gradient descent for non-smooth optimization", section 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

RECENT = 8


def average_of(model: nn.Module) -> AveragedModel:
    """A second model for the average, to be given the first one's weights after each step by `update_parameters`.

    Weights count for the more the later they are: after t steps, those of step i in proportion to
    i (i + 1) ... (i + 7), so that most of it comes from the last ninth of the steps, however many there are. An
    exponential average would have to be told how long it is to remember, and would begin with weights that have
    learned nothing.
    """
    return Average(model)


class Average(AveragedModel):
    """torch's averaged model. Its own update copies the number of steps to the device, which makes the host wait."""

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """One more step of `model`, whose weights move each mean in place."""
        share = (RECENT + 1) / (int(self.n_averaged) + 1 + RECENT)  # 1 at the first step
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), share)
        self.n_averaged += 1


@contextmanager
def averaged(model: nn.Module, average: AveragedModel | None) -> Iterator[None]:
    """Within it the model has the average's weights, if there is one; after it, its own again."""
    if average is None:
        yield
        return
    exchange(model, average)
    try:
        yield
    finally:
        exchange(model, average)


def exchange(model: nn.Module, average: AveragedModel) -> None:
    """Give each of the two the other's weights, without copying any."""
    for own, mean in zip(model.parameters(), average.module.parameters(), strict=True):
        own.data, mean.data = mean.data, own.data
