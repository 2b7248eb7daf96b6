"""Proves on a GPU what the other tests prove on a CPU: the same numbers, and no step that waits for the device.

Without CUDA all of it is skipped. `python benchmarks/gpu.py` runs it where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.graphs import GraphedStep, mask_batches
from minibert import fast
from minibert.bert import Bert, BertForMaskedLM
from minibert.checkpoint import random_state, read_checkpoint, save_checkpoint
from minibert.config import LABELS, ModelConfig, ModernBertConfig
from minibert.data.batching import tokenise
from minibert.data.pairs import Pairs
from minibert.device import compile_blocks, pick_precision
from minibert.finetuning import NLITask
from minibert.inference import TrainedModel
from minibert.modern import make_bert, make_masked_lm
from minibert.optimizer import adamw
from minibert.options import MLMOptions, NLIOptions
from minibert.pretraining import MLMTask
from minibert.run import Run
from minibert.sbert import NLIClassifier, SentenceEncoder, pair_features
from minibert.tokenizer import WordPieceTokenizer
from minibert.training import Trainer
from tests.conftest import TEXTS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
VARIANTS: dict[str, dict[str, Any]] = {
    "bert": {},
    "modern": {"architecture": "modernbert"},
    "without biases": {"architecture": "modernbert", "bias": False},
}
NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """Products of float32 as they are, unless a test asks for less."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def shaped(config: ModelConfig, **changes: Any) -> ModelConfig:
    """A shape of either architecture."""
    if changes.pop("architecture", "bert") == "bert":
        return replace(config, **changes)
    return ModernBertConfig(**{**vars(config), "type_vocab_size": 0, **changes})


Network = TypeVar("Network", bound=nn.Module)


def enlarged(network: Network) -> Network:
    """With weights large enough that answers differ."""
    torch.manual_seed(3)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
        elif "norm" not in name:
            nn.init.normal_(parameter, std=0.1)
    return network


def mlm_inputs(padded: bool) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """(5, 16) ids and mask, places to predict and what stands there."""
    generator = torch.Generator().manual_seed(7)
    input_ids = torch.randint(5, 61, (5, 16), generator=generator)
    mask = torch.arange(16) < torch.tensor([16, 3, 9, 12, 1]).unsqueeze(1) if padded else None
    positions = torch.tensor([0, 2, 15, 17, 18, 33, 40, 48, 59, 64])
    return input_ids, mask, positions, torch.randint(5, 61, (10,), generator=generator)


def mlm_loss(network: BertForMaskedLM, padded: bool, device: torch.device) -> Tensor:
    input_ids, mask, positions, labels = (
        None if tensor is None else tensor.to(device) for tensor in mlm_inputs(padded)
    )
    return fast.mlm_loss(network, input_ids, mask, positions, labels)[0]  # type: ignore[arg-type]


def nli_loss(network: NLIClassifier, padded: bool, device: torch.device) -> Tensor:
    input_ids, mask, _, _ = (None if tensor is None else tensor.to(device) for tensor in mlm_inputs(padded))
    assert input_ids is not None
    mask = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask
    u, v = fast.sentence_vectors(network.encoder, input_ids[:4], mask[:4]).chunk(2)
    logits = fast.score(network, pair_features(u, v))
    return F.cross_entropy(logits, torch.tensor([0, 2], device=device))


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(parameter).cpu() if parameter.grad is None else parameter.grad.float().cpu()
        for name, parameter in network.named_parameters()
    }


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("kind", ["mlm", "mean", "max"])
def test_loss_and_gradients_are_those_of_the_cpu(
    config: ModelConfig, changes: dict[str, Any], padded: bool, kind: str
) -> None:
    """float32 to 1e-4. bfloat16 has 3 digits, and so another token may have the largest number of a dimension."""
    shape = shaped(config, **NO_DROPOUT, **changes)
    network: BertForMaskedLM | NLIClassifier = (
        make_masked_lm(shape)
        if kind == "mlm"
        else NLIClassifier(SentenceEncoder(make_bert(shape), kind, 35 * (kind == "max")), dropout=0)
    )
    loss_of: Callable[..., Tensor] = mlm_loss if kind == "mlm" else nli_loss
    network = enlarged(network)
    expected = loss_of(network, padded, CPU)
    expected.backward()
    on_cpu = gradients(network)

    for dtype in (None, torch.bfloat16):
        there = deepcopy(network).to(CUDA)
        there.zero_grad()
        with torch.autocast("cuda", dtype, enabled=dtype is not None):
            loss = loss_of(there, padded, CUDA)
        loss.backward()
        torch.testing.assert_close(loss.float().cpu(), expected.detach(), rtol=5e-2 if dtype else 1e-4, atol=0)
        on_gpu = gradients(there)
        for name, gradient in on_gpu.items():
            assert gradient.isfinite().all(), name
            if dtype is None and on_cpu[name].norm() > 1e-5:
                assert (gradient - on_cpu[name]).norm() / on_cpu[name].norm() < 1e-3, name
        whole = [torch.cat([gradient.flatten() for gradient in side.values()]) for side in (on_gpu, on_cpu)]
        assert F.cosine_similarity(whole[0], whole[1], dim=0) > (0.95 if dtype else 0.999999)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_answers_are_those_of_the_cpu(
    config: ModelConfig, tokenizer: WordPieceTokenizer, changes: dict[str, Any]
) -> None:
    network = enlarged(make_masked_lm(shaped(config, **changes)))
    encoder = SentenceEncoder(network.bert)
    model = TrainedModel(encoder, tokenizer, 10, masked_lm=network, classifier=NLIClassifier(encoder))
    text = "the cat [MASK] on the mat"
    here = model.encode(TEXTS), model.predict(TEXTS, TEXTS[::-1]).probabilities, model.attention(text)[1]
    words = model.fill_mask(text)
    model.to("cuda")
    there = model.encode(TEXTS), model.predict(TEXTS, TEXTS[::-1]).probabilities, model.attention(text)[1]
    for ours, theirs in zip(here, there, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4)
    assert [word["token"] for word in model.fill_mask(text)] == [word["token"] for word in words]  # type: ignore[call-overload]


def mlm(config: ModelConfig, tokenizer: WordPieceTokenizer, **changes: Any) -> MLMTask:
    options = MLMOptions(**{"batch_size": 4, "max_length": 19, **changes})
    store = tokenise(TEXTS, tokenizer, options.max_length)
    return MLMTask(make_masked_lm(config).to(CUDA).train(), store, store, tokenizer, options)


def nli(config: ModelConfig, tokenizer: WordPieceTokenizer, **changes: Any) -> NLITask:
    options = NLIOptions(**{"batch_size": 4, "max_length": 8, **changes})
    pairs = Pairs(TEXTS, TEXTS[::-1], np.arange(len(TEXTS)) % len(LABELS))
    network = NLIClassifier(SentenceEncoder(Bert(config), options.pooling, options.projection), options.dropout)
    control = TrainedModel(network.encoder, tokenizer, 8, classifier=network, hypothesis_only=True)
    return NLITask(network.to(CUDA).train(), tokenizer, pairs, pairs, options, control if options.debias else None)


def trainer(task: MLMTask | NLITask) -> Trainer:
    return Trainer(task, Run(task.options))


STRONG_NLI = {**NLIOptions.STRONG, "batch_size": 4, "max_length": 8, "projection": 30, "calibrate": False}
STEPS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "mlm": (mlm, {}),
    "mlm in parts": (mlm, {"accumulate": 2}),
    "mlm in blocks": (mlm, {"blocks": True, "mask_rate": 0.3, "decayed": "matrices"}),
    "nli": (nli, {}),
    "nli mixed": (nli, {"mixup": 0.4}),
    "nli strong": (nli, STRONG_NLI),
    "nli debiased": (nli, {**STRONG_NLI, "debias": "control"}),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("make", "changes"), STEPS.values(), ids=STEPS)
def test_a_step_waits_for_nothing(
    config: ModelConfig,
    tokenizer: WordPieceTokenizer,
    make: Callable[..., Any],
    changes: dict[str, Any],
    precision: str,
) -> None:
    task = make(config, tokenizer, precision=precision, **changes)
    training = trainer(task)
    first, *rest = task.batches(0, 0)
    training.step(first)  # what is made once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in rest:
            training.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(training.metrics.means()["loss"])
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):  # so a step that waited would have failed
            training.metrics.means()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("make", "changes"), [STEPS["mlm"], STEPS["nli strong"]], ids=["mlm", "nli"])
def test_a_resumed_run_goes_on_as_it_would_have(
    config: ModelConfig,
    tokenizer: WordPieceTokenizer,
    tmp_path: Path,
    make: Callable[..., Any],
    changes: dict[str, Any],
) -> None:
    """With dropout, whose random numbers go on, too. Sums over an embedding's rows have no fixed order, hence 1e-4."""
    options = {**changes, "learning_rate": 1e-3, "schedule": "constant", "warmup_ratio": 0}
    file = tmp_path / "checkpoint.safetensors"
    weights = []
    for stops in (False, True):
        torch.manual_seed(5)
        task = make(config, tokenizer, **options)
        training = trainer(task)
        for batch in islice(task.batches(0, 0), 2):
            training.step(batch)
        if stops:
            save_checkpoint(file, {}, [random_state()], task.model, training.optimizer, training.best)
            torch.manual_seed(99)
            task = make(config, tokenizer, **options)
            training = trainer(task)
            read_checkpoint(file).restore(task.model, training.optimizer)
        for batch in task.batches(0, 2):
            training.step(batch)
        weights.append({name: weight.detach().clone() for name, weight in task.model.named_parameters()})
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_the_choice_where_the_device_has_it() -> None:
    has = torch.cuda.is_bf16_supported(including_emulation=False)
    assert pick_precision("auto", CUDA) == ("bfloat16" if has else "float32")


def test_without_padding_the_flash_kernel_is_used() -> None:
    """It alone is allowed; with padding it can't be used, and torch says so."""
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("flash attention needs an Ampere GPU")
    network = Bert(ModelConfig(vocab_size=61, num_hidden_layers=1)).to(CUDA).train()
    input_ids = torch.randint(5, 61, (4, 128), device=CUDA)
    mask = (torch.arange(128) < 100).expand(4, -1).to(CUDA)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), torch.autocast("cuda", torch.bfloat16):
        network(input_ids).sum().backward()
        with pytest.raises(RuntimeError, match="No available kernel"):
            network(input_ids, mask)


@pytest.mark.parametrize("changes", [VARIANTS["bert"], VARIANTS["modern"]], ids=["bert", "modern"])
def test_compiled_blocks_compute_the_same(config: ModelConfig, changes: dict[str, Any]) -> None:
    network = enlarged(make_masked_lm(shaped(config, **NO_DROPOUT, **changes))).to(CUDA)
    expected = [mlm_loss(network, padded, CUDA).detach() for padded in (False, True)]
    compile_blocks(CUDA)
    for padded, loss in zip((False, True), expected, strict=True):
        torch.testing.assert_close(mlm_loss(network, padded, CUDA).detach(), loss, rtol=1e-4, atol=0)


@pytest.mark.parametrize("changes", [VARIANTS["bert"], VARIANTS["modern"]], ids=["bert", "modern"])
def test_a_graph_is_the_same_step(config: ModelConfig, tokenizer: WordPieceTokenizer, changes: dict[str, Any]) -> None:
    """Eight steps of two shapes, on a graph and as its function is by itself on the CPU."""
    texts = [tokenizer.encode(TEXTS, length) for length in (8, 12)]
    special = tokenizer.special()
    runs = []
    network = make_masked_lm(shaped(config, **NO_DROPOUT, **changes))
    inputs = []
    for ids in texts:
        T = max(map(len, ids))
        padded = torch.tensor([row + [0] * (T - len(row)) for row in ids]).view(4, 4, T)
        generator = torch.Generator().manual_seed(2)
        inputs.append(mask_batches(padded, padded != 0, special, tokenizer.mask_id, 0.3, generator))
    for device in (CPU, CUDA):
        own = deepcopy(network).to(device)

        def loss(ids: Tensor, positions: Tensor, labels: Tensor, mask: Tensor, own: BertForMaskedLM = own) -> Tensor:
            hidden = fast.encode(own.bert, ids, mask, positions)
            return F.cross_entropy(own.head(hidden, own.bert.embeddings.word_embeddings.weight), labels)

        options = MLMOptions()
        step = GraphedStep(own, loss, adamw(own, options).param_groups)
        losses = [
            step(1e-3 * (number + 1), *(tensor.to(device) for tensor in inputs[number % 2].batch(number // 2))).cpu()
            for number in range(8)
        ]
        runs.append((torch.stack(losses), [tensor.detach().cpu() for tensor in step.parameters]))
        if device == CUDA:
            assert len(step.graphs) == 2
    torch.testing.assert_close(runs[1][0], runs[0][0], rtol=1e-4, atol=1e-5)
    for there, here in zip(runs[1][1], runs[0][1], strict=True):
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)


def test_a_graph_drops_out_other_numbers_at_each_step(config: ModelConfig) -> None:
    network = make_masked_lm(config).to(CUDA).train()
    input_ids, _, positions, labels = (None if tensor is None else tensor.to(CUDA) for tensor in mlm_inputs(False))
    step = GraphedStep(
        network, lambda ids, places, asked: fast.mlm_loss(network, ids, None, places, asked)[0],
        adamw(network, MLMOptions()).param_groups,
    )  # fmt: skip
    losses = [float(step(0.0, input_ids, positions, labels)) for _ in range(4)]  # type: ignore[arg-type]
    assert len(set(losses)) == 4
