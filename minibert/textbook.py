"""Whether a model is the textbook's: made of layers of bert.py, sbert.py and modern.py, and these as they were written.

Only then may fast.py do their work. A class that somebody has changed, a layer that has been given a hook or a
function, and a layer of one's own are run as they are written.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

import minibert.bert
import minibert.modern
import minibert.sbert
from minibert.bert import Bert, MLMHead, SelfAttention


def _functions(kind: type[nn.Module]) -> dict[str, Any]:
    """A class's own functions, properties, and whatever else Python binds to an object."""
    return {name: value for name, value in vars(kind).items() if hasattr(value, "__get__")}


# The classes whose work fast.py can do, and their functions as they were when this file was imported.
_MODULES = (minibert.bert, minibert.modern, minibert.sbert)
_REPLACEABLE = [
    kind
    for module in _MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, nn.Module)
]
_TORCH_LAYERS = [nn.Embedding, nn.Linear, nn.LayerNorm, nn.Dropout, nn.Identity, nn.ModuleList]
_TEXTBOOK = {kind: _functions(kind) for kind in (*_REPLACEABLE, *_TORCH_LAYERS)}


def is_textbook(model: nn.Module) -> bool:
    """Whether all layers are the textbook's own, so that fast.py can do their work."""
    layers = [*model.modules()]
    return all(map(is_as_written, set(map(type, layers)))) and all(map(_fits, layers)) and not is_changed(*layers)


def is_as_written(kind: type[nn.Module]) -> bool:
    """Whether a class is one of the textbook's, and all that it has and inherits is as it was written there."""
    above = kind.__mro__[: kind.__mro__.index(nn.Module)]
    return kind in _TEXTBOOK and all(each not in _TEXTBOOK or _functions(each) == _TEXTBOOK[each] for each in above)


def _fits(layer: nn.Module) -> bool:
    """Whether a layer is made of what `encode`, `attention` and `vocabulary_loss` can take."""
    if isinstance(layer, Bert):
        return len(layer.layers) > 0
    if isinstance(layer, SelfAttention):
        projections = (layer.query, layer.key, layer.value)
        return all(type(each) is nn.Linear for each in projections) and (
            len({each.bias is None for each in projections}) == 1
        )
    return not isinstance(layer, MLMHead) or isinstance(layer.bias, Tensor)


def is_own(layer: nn.Module, kind: type[nn.Module], name: str = "forward") -> bool:
    """Whether a layer of a class, or of a subclass, overrides one of the class's functions."""
    written = _TEXTBOOK[kind][name] if kind in _TEXTBOOK else getattr(kind, name)  # the latter is a student's class
    return getattr(type(layer), name) is not written or name in vars(layer)


def is_changed(*layers: nn.Module) -> bool:
    """Whether one of these layers, or all layers, have been given hooks or functions, which run only in a call."""
    return _has_hooks_of_all() or any(has_hooks(each) or any(map(callable, vars(each).values())) for each in layers)


def has_hooks(layer: nn.Module) -> bool:
    """Whether a layer has hooks of its own."""
    kinds = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return any(kinds)


def _has_hooks_of_all() -> bool:
    """Whether there are hooks on all layers; torch's own, such as its FLOP counter's, only look on."""
    kinds = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    hooks = (hook for kind in kinds for hook in getattr(nn.modules.module, f"_global_{kind}").values())
    return any(not str(getattr(hook, "__module__", "")).startswith("torch.") for hook in hooks)
