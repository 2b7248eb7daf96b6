"""Proves that what the scripts write is at home elsewhere: folders of train_mlm.py and train_nli.py, read by others.

The scripts run with the notebook's shape and the vocabulary of bert-base-uncased, for a few steps.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, BertForMaskedLM, BertModel, pipeline

import minibert
import train_mlm
import train_nli
from minibert.config import LABELS
from minibert.data.batching import pad
from minibert.inference import TrainedModel
from tests.parity.conftest import near
from tests.parity.text import LINES, SENTENCES, WORLD

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def models(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two folders of the notebook, under its own names."""
    folder = tmp_path_factory.mktemp("trained") / "models"
    mlm, nli = folder / "bert_mlm_small", folder / "sbert_nli_small"
    small = ["--data", "toy", "--max-steps", "10", "--learning-rate", "3e-3"]
    articles = ["--max-articles", "100", "--held-out", "10", "--batch-size", "4"]
    pairs = ["--max-train", "160", "--max-validation", "30"]
    with patch("minibert.run.plot_training"):  # pictures take half a second each, and nobody looks at them here
        train_mlm.main([*small, "--vocab", str(minilm / "vocab.txt"), "--output", str(mlm), *articles])
        train_nli.main([*small, "--encoder", str(mlm), "--output", str(nli), *pairs])
    return folder


@pytest.fixture(scope="module")
def mlm(models: Path) -> TrainedModel:
    return minibert.from_pretrained(models / "bert_mlm_small")


@pytest.fixture(scope="module")
def nli(models: Path) -> TrainedModel:
    return minibert.from_pretrained(models / "sbert_nli_small")


@pytest.fixture(scope="module")
def reference(models: Path) -> BertForMaskedLM:
    """The pretrained folder in transformers, with no missing and no unexpected key."""
    model, report = BertForMaskedLM.from_pretrained(models / "bert_mlm_small", output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not report[kind], kind
    return model.eval()


def test_logits(mlm: TrainedModel, reference: BertForMaskedLM) -> None:
    assert mlm.ignored == ()
    assert mlm.masked_lm is not None
    worst = 0.0
    for start in range(0, 40, 10):
        ids, mask = pad(mlm.tokenizer.encode(SENTENCES[start : start + 10], 128), mlm.tokenizer.pad_id)
        with torch.no_grad():
            theirs = reference(input_ids=ids, attention_mask=mask.long()).logits
            ours = mlm.masked_lm(ids, mask)
        worst = max(worst, (ours - theirs)[mask].abs().max().item())
    near("logits of a folder of train_mlm.py in transformers", worst, 1e-5)


def test_the_tokenizer_of_a_folder(models: Path, mlm: TrainedModel, nli: TrainedModel) -> None:
    lines = [*LINES, *WORLD]
    for name, ours in (("bert_mlm_small", mlm), ("sbert_nli_small", nli)):
        theirs = AutoTokenizer.from_pretrained(models / name)
        assert theirs(lines, truncation=True).input_ids == ours.tokenizer.encode(lines, 128)
        print(f"ids of {len(lines):,} lines from {name}")


@pytest.mark.parametrize(
    "text",
    [
        "Paris is the [MASK] of France.",
        "[MASK]",
        "The [MASK] sat on the [MASK], and then it [MASK]!",
        "A poodle is [MASK] in the park.",
        "Straße, ÉCOLE, 日本 [MASK] 🙂 don't",
    ],
)
def test_masks_are_filled_as_by_the_pipeline(
    models: Path, mlm: TrainedModel, reference: BertForMaskedLM, text: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "bert_mlm_small")
    theirs = pipeline("fill-mask", model=reference, tokenizer=tokenizer, device="cpu")(text, top_k=5)
    compare_guesses(mlm.fill_mask(text, top_k=5), theirs)


def compare_guesses(ours: Any, theirs: Any) -> None:
    """Equal in form, words, sequences and, nearly, scores; one list a [MASK] if there are several."""
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        if isinstance(other, list):
            compare_guesses(mine, other)
            continue
        assert {**mine, "score": None} == {**other, "score": None}
        assert mine["score"] == pytest.approx(other["score"], rel=1e-5)


def test_an_encoder_for_transformers(models: Path) -> None:
    """The classifier's folder is a BertModel with nothing unexpected; of the pooler, nothing is ever trained."""
    _, report = BertModel.from_pretrained(models / "sbert_nli_small", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert set(report["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"}


def test_vectors(models: Path, nli: TrainedModel) -> None:
    theirs = SentenceTransformer(str(models / "sbert_nli_small"), device="cpu")
    assert theirs.max_seq_length == nli.max_length == 16
    texts = [*SENTENCES[:300], *WORLD]
    difference = abs(nli.encode(texts) - theirs.encode(texts)).max()
    near(f"vectors of a folder of train_nli.py, {len(texts)} sentences", difference, 1e-5)


def run_block(file: str) -> dict[str, Any]:
    """The Python block of a document, run as it stands; returns its names."""
    text = (ROOT / file).read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n((?!>>>).*?)```", text, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(block, names)
    return names


def test_the_classifier_without_minibert(models: Path, nli: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models.parent)
    logits = run_block("docs/format.md")["logits"]
    assert logits.shape == (len(LABELS),)
    ours = nli.predict(["A man plays."], ["A man sleeps."])
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), ours.probabilities[0], atol=1e-6)


def test_the_library_as_the_document_shows_it(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models.parent)
    names = run_block("docs/using.md")
    assert names["hidden"].shape == (2, 6, 256)
