"""Proves that training is the notebook's: from the same weights and batches, the same losses and weights, step by step.

The reference is the notebook's own loop over transformers' models: every sequence padded to the maximum, each side of a
pair encoded by itself, logits at all positions, torch's plain AdamW. minibert's is the one its scripts run: batches as
long as their longest sequence, both sides at once, logits at masked positions only, the fused AdamW. Dropout is 0, for
random numbers can't be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import BertTokenizerFast, get_linear_schedule_with_warmup

from benchmarks.notebook import Siamese, mlm_step, nli_step
from minibert.bert import Bert, SelfAttention
from minibert.config import IGNORED, ModelConfig
from minibert.data.batching import Batch, epoch_batches, tokenise
from minibert.data.pairs import load_pairs
from minibert.finetuning import NLITask
from minibert.hub import save_classifier, save_mlm
from minibert.hub.loading import load_encoder
from minibert.hub.names import encoder_names, export_weights, mlm_names
from minibert.modern import make_masked_lm
from minibert.options import MLMOptions, NLIOptions
from minibert.pretraining import MLMTask
from minibert.run import open_run
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer
from minibert.training import Task, train
from tests.metrics import records
from tests.parity.conftest import near
from tests.parity.text import ARTICLES

pytestmark = pytest.mark.slow

STEPS, MLM_BATCH, NLI_BATCH = 50, 2, 4  # a part of the notebook's 16 takes a part of the time and computes the same way
NOTEBOOK = ModelConfig(hidden_dropout_prob=0, attention_probs_dropout_prob=0)


def compare_losses(what: str, task: Task, options: MLMOptions | NLIOptions, expected: list[float]) -> None:
    """Train, and compare what the run has written down, one loss a step."""
    with open_run(options) as run:
        train(task, run, identity={}, start={})
    ours = [record["loss"] for record in records(Path(options.output), "train")]
    assert len(ours) == len(expected) == STEPS
    near(f"{what}, loss at any of {STEPS} steps", np.abs(np.subtract(ours, expected)).max(), 1e-4)


def compare_weights(what: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    worst = max((tensor - theirs[name]).abs().max().item() for name, tensor in ours.items())
    near(f"{what}, weights after {STEPS} steps", worst, 1e-5)


def padded(batch: Batch, length: int) -> dict[str, Tensor]:
    """A masked batch as the notebook's collator gives it: padded to the maximum, -100 where nothing is asked."""
    assert batch.positions is not None
    labels = torch.full((batch.input_ids.numel(),), IGNORED)
    labels[batch.positions] = batch.labels
    parts = {
        "input_ids": (batch.input_ids, 0),
        "attention_mask": (batch.attention_mask.long(), 0),
        "labels": (labels.view_as(batch.input_ids), IGNORED),
    }
    more = length - batch.input_ids.shape[1]
    return {name: nn.functional.pad(tensor, (0, more), value=fill) for name, (tensor, fill) in parts.items()}


def test_50_steps_of_masked_language_modelling(vocabulary: WordPieceTokenizer, tmp_path: Path) -> None:
    options = MLMOptions(
        output=str(tmp_path / "run"), dropout=0, max_steps=STEPS, batch_size=MLM_BATCH, log_every=1, save_every=0
    )
    model = make_masked_lm(NOTEBOOK)
    save_mlm(tmp_path / "start", model, vocabulary)
    store = tokenise(ARTICLES, vocabulary, options.max_length)
    task = MLMTask(model, store, tokenise(ARTICLES[:2], vocabulary, options.max_length), vocabulary, options)

    reference = transformers.BertForMaskedLM.from_pretrained(tmp_path / "start").train()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    warmup = int(STEPS * options.warmup_ratio)
    scheduler = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=warmup, num_training_steps=STEPS)
    expected = [
        mlm_step(reference, padded(batch, options.max_length), optimizer, scheduler, options.clip)
        for batch in islice(task.batches(0, 0), STEPS)
    ]
    assert expected[-1] < expected[0] - 1  # something has been learned
    compare_losses("masked language modelling", task, options, expected)
    theirs = {name.removeprefix("bert."): tensor for name, tensor in reference.state_dict().items()}
    compare_weights("masked language modelling", export_weights(model, mlm_names(NOTEBOOK)), theirs)


def compare_siamese(what: str, model: NLIClassifier, vocabulary: WordPieceTokenizer, folder: Path) -> None:
    options = NLIOptions(
        output=str(folder / "run"), dropout=0, max_steps=STEPS, batch_size=NLI_BATCH, log_every=1, save_every=0
    )
    pairs = load_pairs("toy", "train", max_pairs=STEPS * options.batch_size, seed=1)
    task = NLITask(model, vocabulary, pairs, load_pairs("toy", "validation", max_pairs=10, seed=1), options)
    save_classifier(folder / "start", model, vocabulary, options.max_length, hypothesis_only=False)

    reference = Siamese(folder / "start", dropout=0.0).train()
    reference.fc.load_state_dict(model.classifier.state_dict())
    optimizer = torch.optim.AdamW(reference.parameters(), lr=options.learning_rate)
    tokenizer = BertTokenizerFast.from_pretrained(folder / "start")

    def padded_pairs(rows: np.ndarray) -> dict[str, Tensor]:
        batch = {"labels": torch.from_numpy(pairs.labels[rows])}
        for side, texts in (("a", pairs.premises), ("b", pairs.hypotheses)):
            encoded = tokenizer(
                [texts[row] for row in rows],
                truncation=True, max_length=options.max_length, padding="max_length", return_tensors="pt",
            )  # fmt: skip
            batch |= {f"{side}_{name}": tensor for name, tensor in encoded.items()}
        return batch

    before = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    expected = [
        nli_step(reference, padded_pairs(rows), optimizer, options.clip)
        for _, rows in epoch_batches(len(pairs), options.batch_size, options.seed, epoch=0, start=0)
    ]
    moved = max((tensor - before[name]).abs().max().item() for name, tensor in reference.state_dict().items())
    assert moved > 5e-4  # something has been learned, and fifty times what the weights may differ by

    compare_losses(what, task, options, expected)
    ours = export_weights(model.encoder.bert, encoder_names(model.encoder.bert.config))
    compare_weights(what, ours, reference.encoder.state_dict())
    compare_weights(f"{what}, classifier", model.classifier.state_dict(), reference.fc.state_dict())


def test_50_steps_of_the_notebooks_siamese_training(vocabulary: WordPieceTokenizer, tmp_path: Path) -> None:
    compare_siamese("Siamese training", NLIClassifier(SentenceEncoder(Bert(NOTEBOOK)), dropout=0), vocabulary, tmp_path)


def test_50_steps_of_siamese_training_from_released_weights(
    minilm: Path, vocabulary: WordPieceTokenizer, tmp_path: Path
) -> None:
    encoder, _, _ = load_encoder(minilm)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, SelfAttention):
            module.dropout_p = 0.0
    model = NLIClassifier(SentenceEncoder(encoder), dropout=0)
    compare_siamese("Siamese training of MiniLM", model, vocabulary, tmp_path)
