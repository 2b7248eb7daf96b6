"""AdamW, the learning-rate schedule, and gradient clipping."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from minibert.options import SCHEDULES, TrainingOptions


def adamw(model: nn.Module, options: TrainingOptions) -> torch.optim.AdamW:
    """AdamW as the options have it; beta1 0.9 and epsilon 1e-8 are torch's and the notebook's own.

        m = beta1 m + (1 - beta1) g          v = beta2 v + (1 - beta2) g^2          for a gradient g, at step t
        w = w - rate (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon) + decay w)

    By default all parameters are decayed, biases and norms included, as in the notebook. With `decayed` "matrices" only
    those of two dimensions are, the embeddings among them, which is BERT's own rule.

    The fused kernel reads and writes each parameter once a step instead of a dozen times; the arithmetic is the same.

    Source: Loshchilov & Hutter 2019.
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


def schedule(name: str, total_steps: int, warmup_ratio: float) -> Callable[[int], float]:
    """The factor on the peak learning rate, by the number t of steps already taken, of S in all.

    It is t / W in the first W = `int(total_steps * warmup_ratio)` steps, so 0 at the very first, as with the notebook's
    scheduler. After them "linear" has (S - t) / (S - W), from 1 to 0, and "constant" stays at 1.

    Raises:
        ValueError: the name is not in `SCHEDULES`.
    Source: Devlin et al. 2019, appendix A.2 (linear warm-up and decay).
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r} is none of {', '.join(SCHEDULES)}")
    warmup = int(total_steps * warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        if name == "constant":
            return 1.0
        return max(0.0, (total_steps - step) / max(1, total_steps - warmup))

    return factor


def clip_gradients(model: nn.Module, most: float) -> Tensor:
    """Scale the gradients down to a norm of `most`, if theirs is greater; returns the norm that they had.

    Like `clip_grad_norm_`; but on a CPU, where looking at the norm costs no waiting, gradients that are small enough
    are not multiplied by 1, which takes as long as a fifth of the optimiser's step.
    """
    parameters = list(model.parameters())
    norm = nn.utils.get_total_norm(parameter.grad for parameter in parameters if parameter.grad is not None)
    if norm.device.type != "cpu" or not norm <= most:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm
