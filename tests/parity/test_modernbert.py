"""Proves that a network with ModernBERT's parts is transformers' ModernBERT: weights, logits and sentence vectors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import ModernBertConfig, ModernBertForMaskedLM

from minibert import from_pretrained
from minibert.bert import Bert, BertForMaskedLM
from minibert.config import MODERN, ModelConfig
from minibert.data.tokenizer import WordPieceTokenizer
from minibert.pretrained import save_classifier, save_mlm
from minibert.pretrained.settings import config_values
from minibert.sbert import NLIClassifier, SentenceEncoder
from tests.parity.conftest import near

WINDOWS: dict[str, Any] = {"global_attn_every_n_layers": 3, "local_attention": 4, "global_rope_theta": 160_000.0}
TEXTS = ["the cat sat on the mat.", "dogs", "is the dog an animal, and the cat?"]


def shape(config: ModelConfig, *, windows: bool, bias: bool) -> ModelConfig:
    changes: dict[str, Any] = {
        **MODERN,
        **(WINDOWS if windows else {}),
        "bias": bias,
        "num_hidden_layers": 4,
        "initializer_range": 0.2,
    }
    return replace(config, layer_norm_eps=1e-5, **changes)


def scattered(model: torch.nn.Module) -> None:
    """Norms and biases too, which start as if they were not there."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_folder_of_train_mlm_is_transformers_modernbert(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, windows: bool, bias: bool
) -> None:
    ours = BertForMaskedLM(shape(config, windows=windows, bias=bias)).eval()
    scattered(ours)
    save_mlm(tmp_path, ours, tokenizer)
    theirs, loading = ModernBertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading
    ids = torch.randint(5, 61, (5, 19))
    mask = torch.arange(19) < torch.tensor([19, 12, 7, 2, 18]).unsqueeze(1)
    with torch.no_grad():
        expected = theirs.eval()(input_ids=ids, attention_mask=mask.long()).logits
        got = ours(ids, mask)
    near(f"ModernBERT logits, windows {windows}, biases {bias}", float((got - expected)[mask].abs().max()), 1e-5)
    assert expected[mask].std() > 0.5


@pytest.mark.parametrize("windows", [False, True])
def test_transformers_own_folder_is_read(tmp_path: Path, tokenizer: WordPieceTokenizer, windows: bool) -> None:
    """What it writes itself, whose spelling is another, with the tokenizer's files beside it."""
    theirs = ModernBertForMaskedLM(
        ModernBertConfig(
            vocab_size=61, hidden_size=24, num_hidden_layers=4, num_attention_heads=3, intermediate_size=40,
            max_position_embeddings=19, pad_token_id=0, bos_token_id=None, eos_token_id=None, cls_token_id=None,
            sep_token_id=None, local_attention=4, global_attn_every_n_layers=3 if windows else 1,
        )
    ).eval()  # fmt: skip
    scattered(theirs)
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path, 19)
    model = from_pretrained(tmp_path)
    assert model.masked_lm is not None
    assert model.ignored == ()
    ids = torch.randint(5, 61, (3, 19))
    with torch.no_grad():
        difference = (model.masked_lm(ids) - theirs(input_ids=ids).logits).abs().max()
    near(f"a ModernBERT of transformers', windows {windows}", float(difference), 1e-5)


@pytest.mark.parametrize("parts", [{}, {"pooling": "max", "projection": 40, "product": True}])
def test_a_folder_of_train_nli_is_a_sentence_transformer(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, parts: dict[str, Any]
) -> None:
    classifier = NLIClassifier(SentenceEncoder(Bert(shape(config, windows=False, bias=False))), **parts)
    scattered(classifier)
    save_classifier(tmp_path, classifier, tokenizer, 16, hypothesis_only=False)
    difference = from_pretrained(tmp_path).encode(TEXTS) - SentenceTransformer(str(tmp_path), device="cpu").encode(
        TEXTS
    )
    near("vectors of a ModernBERT's folder", float(abs(difference).max()), 1e-5)


@pytest.mark.parametrize("parts", [{"rotary": True}, {"norm_first": True, "gated": True}, {"bias": False}])
def test_what_has_no_name_elsewhere_is_read_by_minibert_alone(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, parts: dict[str, bool]
) -> None:
    ours = BertForMaskedLM(replace(config, **parts)).eval()
    scattered(ours)
    save_mlm(tmp_path, ours, tokenizer)
    assert config_values(ours.config, with_head=True)["model_type"] == "minibert"
    model = from_pretrained(tmp_path)
    assert model.masked_lm is not None
    assert model.encoder.config == ours.config
    ids = torch.randint(5, 61, (3, 19))
    assert torch.equal(model.masked_lm(ids), ours(ids))
