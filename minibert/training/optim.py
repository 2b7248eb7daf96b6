"""The optimiser, and the learning rate as a pure function of the step.

Source: Loshchilov & Hutter 2019 (AdamW); Devlin et al. 2019, appendix A.2 (linear warm-up and decay).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from minibert.config import SCHEDULES, TrainingOptions

Schedule = Callable[[int], float]


def adamw(model: nn.Module, options: TrainingOptions) -> torch.optim.AdamW:
    """AdamW as the options have it; beta1 0.9 and epsilon 1e-8 are torch's and the notebook's own.

    By default all parameters are decayed, biases and norms included, as in the notebook. With `decayed` "matrices" only
    those of two dimensions are, the embeddings among them, which is BERT's own rule.

    The fused kernel reads and writes each parameter once a step instead of a dozen times; the arithmetic is the same.
    """
    parameters = list(model.parameters())
    free = [parameter for parameter in parameters if options.decayed == "matrices" and parameter.ndim < 2]
    decayed = [parameter for parameter in parameters if options.decayed == "all" or parameter.ndim >= 2]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=options.learning_rate,
        betas=(0.9, options.beta2),
        fused=parameters[0].device.type in ("cpu", "cuda"),
    )


def schedule(name: str, total_steps: int, warmup_ratio: float, final_rate: float = 0.0) -> Schedule:
    """The factor on the peak learning rate, by the number of steps already taken.

    Both rise linearly over the first `int(total_steps * warmup_ratio)` steps, from a factor of 0 at the very first, as
    the notebook's scheduler does.

    Args:
        name: one of `SCHEDULES`: after these steps, "linear" falls from 1 to `final_rate`, "constant" stays at 1.
        total_steps: of the run.
        warmup_ratio: the share of them in which the rate rises.
        final_rate: the factor that "linear" comes to with the last step taken.
    Raises:
        ValueError: another name.
    """
    warmup = int(total_steps * warmup_ratio)

    def linear(step: int) -> float:
        if step < warmup:
            return step / warmup
        left = max(0.0, (total_steps - step) / max(1, total_steps - warmup))  # 1 at the peak, 0 at the end
        return final_rate + (1 - final_rate) * left

    def constant(step: int) -> float:
        return step / warmup if step < warmup else 1.0

    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r} is none of {', '.join(SCHEDULES)}")
    return linear if name == "linear" else constant
