"""Proves of the way to CUDA what can be proved without one.

The device "meta" has shapes and no numbers: whoever asks it for a number, or for a shape that depends on numbers, gets
an error. A step that runs there makes the host wait for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from minibert import fast
from minibert.bert import Bert
from minibert.config import LABELS, ModelConfig
from minibert.data.batching import tokenise
from minibert.data.pairs import Pairs
from minibert.device import compile_blocks, has_bfloat16, pick_precision
from minibert.errors import UserError
from minibert.finetuning import NLITask
from minibert.modern import make_masked_lm
from minibert.options import MLMOptions, NLIOptions
from minibert.pretraining import MLMTask
from minibert.run import Run
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer
from minibert.training import Trainer
from tests.conftest import TEXTS

CPU, META = torch.device("cpu"), torch.device("meta")
STRONG = {**NLIOptions.STRONG, "batch_size": 4, "max_length": 8}


def mlm(config: ModelConfig, tokenizer: WordPieceTokenizer, device: torch.device, **changes: Any) -> MLMTask:
    options = MLMOptions(**{"batch_size": 4, "max_length": 19, **changes})
    store = tokenise(TEXTS, tokenizer, options.max_length)
    return MLMTask(make_masked_lm(config).to(device), store, store, tokenizer, options)


def nli(config: ModelConfig, tokenizer: WordPieceTokenizer, device: torch.device, **changes: Any) -> NLITask:
    options = NLIOptions(**{"batch_size": 4, "max_length": 8, **changes})
    pairs = Pairs(TEXTS, TEXTS[::-1], np.arange(len(TEXTS)) % len(LABELS))
    task = NLITask(NLIClassifier(SentenceEncoder(Bert(config))).to(device), tokenizer, pairs, pairs, options)
    task.priors = torch.zeros(len(pairs), 3) if options.debias else None  # no control answers on "meta"
    return task


def trainer(task: MLMTask | NLITask) -> Trainer:
    return Trainer(task, Run(task.options))


class NoWaitingCopy(TorchDispatchMode):
    """Fails where the host copies a tensor to the device and waits for that, which "meta" by itself does not mind."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].device == CPU and kwargs.get("device") == META:
            assert kwargs.get("non_blocking"), "a copy to the device that the host waits for"
        return func(*args, **kwargs)


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (mlm, {}),
        (mlm, {"accumulate": 2}),
        (mlm, {"blocks": True, "accumulate": 2}),
        (nli, {}),
        (nli, {"accumulate": 2}),
        (nli, {"mixup": 0.4}),
        (nli, STRONG),
        (nli, {**STRONG, "debias": "control"}),
    ],
    ids=["mlm", "mlm in parts", "mlm in blocks", "nli", "nli in parts", "mixed", "strong", "debiased"],
)
def test_a_step_waits_for_no_device(
    config: ModelConfig,
    tokenizer: WordPieceTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., Any],
    changes: dict[str, Any],
) -> None:
    """Neither for a number, nor for a copy."""
    monkeypatch.setattr(torch, "_sample_dirichlet", torch.empty_like)  # which torch can't do on "meta"
    task = make(config, tokenizer, META, **changes)
    training, batches = trainer(task), list(task.batches(0, 0))
    assert len(batches) > 1
    with NoWaitingCopy():
        for batch in batches:
            training.step(batch)
        with pytest.raises(AssertionError, match="host waits"):  # so a step that copied would have failed
            torch.ones(1).to(META)
    assert [loss.device for loss in training.metrics.losses] == [META] * task.steps_per_epoch
    with pytest.raises(RuntimeError, match="meta"):  # so a step that asked would have failed
        training.metrics.means()


def attention_inputs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `scaled_dot_product_attention` is given from now on."""
    seen = []
    attention = F.scaled_dot_product_attention

    def watched(query: Tensor, key: Tensor, value: Tensor, **more: Any) -> Tensor:
        seen.append({"query": query, "key": key, "value": value, **more})
        return attention(query, key, value, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    return seen


def test_without_padding_the_flash_kernel_could_be_used(
    tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its conditions, by torch's list of them: no mask, half precision, (B, H, T, K) with K at most 256 and a multiple
    of 8, the elements of a vector side by side, all three alike. The notebook's model, texts cut to one length."""
    seen = attention_inputs(monkeypatch)
    config = ModelConfig(vocab_size=61, hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    task = mlm(config, tokenizer, CPU, max_length=8)
    batch = next(task.batches(0, 0))
    with torch.autocast("cpu", torch.bfloat16):
        task.loss(batch)
    assert len(seen) == config.num_hidden_layers
    for inputs in seen:
        assert inputs["attn_mask"] is None
        for tensor in (inputs["query"], inputs["key"], inputs["value"]):
            assert tensor.dtype == torch.bfloat16
            assert tensor.shape == (4, 4, 8, 64)
            assert tensor.stride(-1) == 1
            assert tensor.requires_grad


def test_with_padding_there_is_a_mask(
    config: ModelConfig, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = attention_inputs(monkeypatch)
    task = mlm(config, tokenizer, META)
    batch = next(batch for batch in task.batches(0, 0) if not batch.attention_mask.all())
    task.loss(batch.to(META))
    assert all(inputs["attn_mask"].shape == (4, 1, 1, batch.input_ids.shape[1]) for inputs in seen)


@pytest.mark.parametrize("make", [mlm, nli])
def test_bfloat16_is_used_where_it_is_asked_for_and_is_close(
    config: ModelConfig, tokenizer: WordPieceTokenizer, make: Callable[..., Any]
) -> None:
    """Weights, their gradients and the loss stay float32; products are not, so the loss is near, and not the same."""
    losses = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(1)
        task = make(config, tokenizer, CPU, precision=precision)
        task.model.eval()  # no dropout
        training = trainer(task)
        training.step(next(task.batches(0, 0)))
        losses.append(training.metrics.losses[0])
        assert all(parameter.dtype == torch.float32 for parameter in task.model.parameters())
    assert losses[0].dtype == losses[1].dtype == torch.float32
    assert losses[0] != losses[1]
    torch.testing.assert_close(losses[0], losses[1], rtol=0.01, atol=0)


def test_which_precision_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_precision("auto", CPU) == pick_precision("float32", CPU) == "float32"
    assert pick_precision("bfloat16", CPU) == "bfloat16"
    with pytest.raises(UserError, match="--precision bfloat16 can't be used on meta"):
        pick_precision("bfloat16", META)

    products: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", products.append)
    for has in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has, **_: has)
        assert pick_precision("auto", torch.device("cuda")) == ("bfloat16" if has else "float32")
    assert products == ["high", "high"]  # TF32, on CUDA alone


@pytest.mark.parametrize("units", [(), ("avx512_bf16",), ("amx_tile",)])
def test_a_cpu_is_asked_for_its_units(units: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for unit in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{unit}_supported", lambda unit=unit: unit in units)
    assert has_bfloat16(CPU) == bool(units)
    assert pick_precision("auto", CPU) == "float32"
    assert not has_bfloat16(META)


def test_compiled_blocks_compute_the_same_under_the_same_names(
    config: ModelConfig, tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks by the backend that traces and differentiates without a C++ compiler, which would take a minute."""
    compiled = []
    compile_function, plain_block = torch.compile, fast.block

    def quickly(function: Any, **more: Any) -> Any:
        compiled.append(function)
        return compile_function(function, backend="aot_eager", **more)

    monkeypatch.setattr(torch, "compile", quickly)
    monkeypatch.setattr(fast, "block", plain_block)
    task = mlm(config, tokenizer, CPU)
    task.model.eval()
    batch = next(task.batches(0, 0))
    names = list(task.model.state_dict())
    plain, _ = task.loss(batch)
    compile_blocks(CPU)
    again, _ = task.loss(batch)
    assert compiled == [torch.square, plain_block]
    torch.testing.assert_close(again, plain)
    assert list(task.model.state_dict()) == names


def test_compiling_without_a_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing is found done
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (str(tmp_path / "no-compiler"),))
    with pytest.raises(UserError, match="--compile can't be used here: leave it out, or install a C") as error:
        compile_blocks(CPU)
    assert "\n" not in str(error.value)
