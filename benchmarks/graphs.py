"""A training step as one CUDA graph: forward, backward, clipping and AdamW, launched as a whole.

A step of a small BERT is some hundreds of kernels of a few microseconds each, and launching them one by one takes the
host longer than the GPU needs to run them. A graph records them once and launches them together. For that, every shape
has to be the same at each step, and every tensor to stay in its place: inputs are copied into fixed buffers, the
learning rate is a tensor, and masked positions are filled up to a fixed number (`Masked`).

Without CUDA the same function is called each time, so that tests hold on a CPU what a graph would record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from minibert.config import IGNORED
from minibert.masking import MASK_SHARE, RANDOM_SHARE

WARM_UP = 3  # calls before the first recording: kernels are chosen, and compiled; one is enough for further shapes


@dataclass
class GraphedStep:
    """One update of a model's weights, recorded once for each shape of its inputs.

    Attributes:
        model: trained in place.
        loss: the mean loss of the inputs.
        groups: of parameters, as AdamW takes them.
        beta2, clip: as in the scripts' options.
        dtype: of the products, by autocast; None = as the weights are.
        graphs: by the inputs' shapes: the graph, the buffers that it reads, and the loss that it writes.
    """

    model: nn.Module
    loss: Callable[..., Tensor]
    groups: Sequence[dict[str, Any]]
    beta2: float = 0.999
    clip: float = 1.0
    dtype: torch.dtype | None = None
    graphs: dict[tuple[Any, ...], tuple[Any, list[Tensor], Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parameters: list[Tensor] = list(self.model.parameters())
        self.device = self.parameters[0].device
        on_gpu = self.device.type == "cuda"
        self.rate = torch.zeros((), device=self.device)
        groups = [{name: group[name] for name in ("params", "weight_decay")} for group in self.groups]
        self.optimizer = torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, self.beta2), fused=True, capturable=on_gpu)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate  # each has been given a copy
        self.pool = torch.cuda.graph_pool_handle() if on_gpu else None
        # Of its own: graphs recorded on one stream share cuBLAS's workspace, and could not be replayed side by side.
        self.stream = torch.cuda.Stream() if on_gpu else None  # type: ignore[no-untyped-call]

    def __call__(self, learning_rate: float, *inputs: Tensor) -> Tensor:
        """One step; returns the loss, in a tensor that the next step of this shape overwrites."""
        self.rate.fill_(learning_rate)
        if self.device.type != "cuda":
            return self._step(*inputs)
        shapes = tuple((tuple(tensor.shape), tensor.dtype) for tensor in inputs)
        if shapes not in self.graphs:
            self.graphs[shapes] = self._record(inputs)
        graph, buffers, loss = self.graphs[shapes]
        for buffer, tensor in zip(buffers, inputs, strict=True):
            buffer.copy_(tensor, non_blocking=True)
        graph.replay()
        return loss

    def _step(self, *inputs: Tensor) -> Tensor:
        """What is recorded."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None, cache_enabled=True):
            loss = self.loss(*inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _record(self, inputs: Sequence[Tensor]) -> tuple[Any, list[Tensor], Tensor]:
        """Record the step for inputs of this shape, and leave everything as it was."""
        buffers = [tensor.detach().clone() for tensor in inputs]
        before = [tensor.detach().clone() for tensor in self.state()]
        rate = self.rate.clone()
        assert self.stream is not None
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(1 if self.graphs else WARM_UP):
                self._step(*buffers)
        torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            loss = self._step(*buffers)
        new = len(before) < len(list(self.state()))  # the optimiser's sums are made at its first step
        with torch.no_grad():
            for tensor in self.optimizer_state():
                if new:
                    tensor.zero_()
            for tensor, value in zip(self.state(), before, strict=False):
                tensor.copy_(value)
            self.rate.copy_(rate)
        return graph, buffers, loss

    def optimizer_state(self) -> Iterator[Tensor]:
        """Its sums and step counts."""
        for state in self.optimizer.state.values():
            yield from state.values()

    def state(self) -> Iterator[Tensor]:
        """All that a step changes; the optimiser's part, which is there from the first step on, comes last."""
        yield from self.parameters
        yield from self.optimizer_state()

    @torch.no_grad()
    def reset(self, weights: dict[str, Tensor]) -> None:
        """Begin anew from other weights, with the same graphs."""
        own = dict(self.model.named_parameters())
        for name, weight in weights.items():
            own[name].copy_(weight)
        for tensor in self.optimizer_state():
            tensor.zero_()


@dataclass(frozen=True)
class Masked:
    """Masked batches of equal shape, on the device of their texts.

    Attributes:
        input_ids: (S, B, T) for S steps, some of their tokens hidden.
        attention_mask: (S, B, T) bool, True = a real token; None = all are.
        positions: (S, M) where in the B * T flattened positions the hidden tokens stand; what is left of M points at 0.
        labels: (S, M) what stood there; -100 for what is left of M.
        dropped: hidden tokens for which M was too few.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    positions: Tensor
    labels: Tensor
    dropped: int

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """The inputs of one step."""
        mask = () if self.attention_mask is None else (self.attention_mask[step],)
        return (self.input_ids[step], self.positions[step], self.labels[step], *mask)


def most_masked(tokens: int, rate: float) -> int:
    """M for a batch: its mean and five standard deviations, so that a batch in three million has more; by the 64."""
    most = tokens * rate + 5 * (tokens * rate * (1 - rate)) ** 0.5
    return min(tokens, -(-int(most + 1) // 64) * 64)


def mask_batches(
    input_ids: Tensor, attention_mask: Tensor | None, special: Tensor, mask_id: int, rate: float, generator: Any
) -> Masked:
    """`minibert.masking.mask_tokens` for many batches at once, where they are: (S, B, T) ids, and (V,) special."""
    S, B, T = input_ids.shape
    device, M = input_ids.device, most_masked(B * T, rate)
    ordinary = (~special).nonzero().flatten()
    chosen = (torch.rand(input_ids.shape, device=device, generator=generator) < rate) & ~special[input_ids]
    fate = torch.rand(input_ids.shape, device=device, generator=generator)
    draws = torch.randint(len(ordinary), input_ids.shape, device=device, generator=generator)
    masked = input_ids.masked_fill(chosen & (fate < MASK_SHARE), mask_id)
    replaced = chosen & (fate >= MASK_SHARE) & (fate < MASK_SHARE + RANDOM_SHARE)
    masked = torch.where(replaced, ordinary[draws], masked)
    flat = chosen.view(S, B * T)
    positions = flat.byte().sort(dim=1, descending=True, stable=True).indices[:, :M]  # (S, M), hidden ones first
    found = flat.gather(1, positions)
    labels = input_ids.view(S, B * T).gather(1, positions).masked_fill(~found, IGNORED)
    dropped = int(flat.sum() - found.sum())
    return Masked(masked, attention_mask, positions.masked_fill(~found, 0), labels, dropped)
