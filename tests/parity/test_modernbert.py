"""Proves that a network with ModernBERT's parts is transformers' ModernBERT: weights, logits and sentence vectors."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from transformers import ModernBertForMaskedLM

from minibert import from_pretrained
from minibert.config import ModelConfig, ModernBertConfig
from minibert.hub import save_classifier, save_mlm
from minibert.modern import ModernBert, make_masked_lm
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer
from tests.parity.conftest import near

TEXTS = ["the cat sat on the mat.", "dogs", "is the dog an animal, and the cat?"]


def shape(config: ModelConfig, *, bias: bool = False, **changes: Any) -> ModernBertConfig:
    values = {**vars(config), "type_vocab_size": 0, "num_hidden_layers": 4, "initializer_range": 0.2}
    return ModernBertConfig(**{**values, "layer_norm_eps": 1e-5, "bias": bias, **changes})


def scattered(model: torch.nn.Module) -> None:
    """Norms and biases too, which start as if they were not there."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)


@pytest.mark.parametrize("theta", [10_000.0, 160_000.0])
@pytest.mark.parametrize("bias", [False, True])
def test_a_folder_of_train_mlm_is_transformers_modernbert(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, theta: float, bias: bool
) -> None:
    ours = make_masked_lm(shape(config, rope_theta=theta, bias=bias)).eval()
    scattered(ours)
    save_mlm(tmp_path, ours, tokenizer)
    theirs, loading = ModernBertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading
    ids = torch.randint(5, 61, (5, 19))
    mask = torch.arange(19) < torch.tensor([19, 12, 7, 2, 18]).unsqueeze(1)
    with torch.no_grad():
        expected = theirs.eval()(input_ids=ids, attention_mask=mask.long()).logits
        got = ours(ids, mask)
    near(f"ModernBERT logits, base {theta}, biases {bias}", float((got - expected)[mask].abs().max()), 1e-5)
    assert expected[mask].std() > 0.5


@pytest.mark.parametrize("bias", [False, True])
def test_transformers_own_folder_is_read(tmp_path: Path, tokenizer: WordPieceTokenizer, bias: bool) -> None:
    """What it writes itself, whose spelling is another, with the tokenizer's files beside it."""
    theirs = ModernBertForMaskedLM(
        transformers.ModernBertConfig(
            vocab_size=61, hidden_size=24, num_hidden_layers=4, num_attention_heads=3, intermediate_size=40,
            max_position_embeddings=19, pad_token_id=0, bos_token_id=None, eos_token_id=None, cls_token_id=None,
            sep_token_id=None, global_attn_every_n_layers=1, attention_bias=bias, mlp_bias=bias, norm_bias=bias,
            classifier_bias=bias,
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
    near(f"a ModernBERT of transformers', biases {bias}", float(difference), 1e-5)


@pytest.mark.parametrize("encoder", [(), ("max", 40)])
def test_a_folder_of_train_nli_is_a_sentence_transformer(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, encoder: tuple[Any, ...]
) -> None:
    classifier = NLIClassifier(SentenceEncoder(ModernBert(shape(config)), *encoder))
    scattered(classifier)
    save_classifier(tmp_path, classifier, tokenizer, 16, hypothesis_only=False)
    difference = from_pretrained(tmp_path).encode(TEXTS) - SentenceTransformer(str(tmp_path), device="cpu").encode(
        TEXTS
    )
    near("vectors of a ModernBERT's folder", float(abs(difference).max()), 1e-5)
