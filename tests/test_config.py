"""Proves that the defaults are the notebook's, that options reach what they name, and that nonsense is refused."""

from typing import Any

import pytest

from minibert.config import ModelConfig, ModernBertConfig
from minibert.errors import UserError
from minibert.options import EvaluateOptions, MLMOptions, NLIOptions


def test_the_defaults_are_the_notebooks() -> None:
    """Each number stands in the notebook's cells."""
    mlm, nli, evaluate = MLMOptions(), NLIOptions(), EvaluateOptions()
    assert (mlm.max_articles, mlm.min_characters, mlm.max_length, mlm.seed) == (30_000, 200, 128, 42)
    assert (mlm.hidden_size, mlm.num_hidden_layers, mlm.num_attention_heads, mlm.intermediate_size) == (256, 4, 4, 1024)
    assert (mlm.batch_size, mlm.epochs, mlm.learning_rate, mlm.warmup_ratio) == (16, 3, 5e-4, 0.06)
    assert (mlm.weight_decay, mlm.mask_rate, mlm.clip, mlm.output) == (0.01, 0.15, 1.0, "models/bert_mlm_small")
    assert (nli.max_train, nli.max_validation, evaluate.max_pairs, nli.max_length) == (30_000, 3_000, 6_000, 16)
    assert (nli.epochs, nli.learning_rate, nli.clip, nli.batch_size, nli.dropout) == (3, 2e-5, 1.0, 16, 0.1)
    assert (nli.weight_decay, nli.schedule, nli.encoder) == (0.01, "constant", mlm.output)  # AdamW's own decay
    assert evaluate.model == nli.output == "models/sbert_nli_small"


def test_every_shape_option_reaches_the_model() -> None:
    options = MLMOptions(
        hidden_size=12, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20, max_length=9, dropout=0.3
    )
    assert options.model_config(50, 7) == ModelConfig(
        vocab_size=50, hidden_size=12, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20,
        max_position_embeddings=9, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3, pad_token_id=7,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (MLMOptions, {"epochs": 0}, "--epochs 0: it has to be at least 1"),
        (MLMOptions, {"batch_size": -1}, "--batch-size -1: it has to be at least 1"),
        (MLMOptions, {"max_length": 2}, r"--max-length 2: \[CLS\], one token and \[SEP\] need 3"),
        (MLMOptions, {"mask_rate": 1.5}, r"--mask-rate 1\.5: it has to be in \(0, 1\)"),
        (MLMOptions, {"mask_rate": 0.0}, r"--mask-rate 0\.0: it has to be in \(0, 1\)"),
        (MLMOptions, {"dropout": 1.0}, r"--dropout 1\.0: it has to be in \[0, 1\)"),
        (NLIOptions, {"mixup": 0.005}, "--mixup 0.005: it has to be 0, or from 0.01 to 1,000"),
        (NLIOptions, {"labels": "fluent,accuracy"}, "--labels has the label accuracy, the report's name for a mean"),
        (NLIOptions, {"output": ""}, "--output is empty"),
        (MLMOptions, {"data": ""}, "--data is empty"),
        (EvaluateOptions, {"model": ""}, "--model is empty"),
        (EvaluateOptions, {"similarity": "a", "max_pairs": 3}, "--max-pairs is for the report .*: --similarity asks"),
        (EvaluateOptions, {"premise": "a", "hypothesis": "b", "columns": "a,b,c"}, "--columns is for the report"),
        (MLMOptions, {"held_out": 0}, "--held-out 0: it has to be at least 1"),
        (MLMOptions, {"seed": -1}, "--seed -1: it has to be from 0 to 2"),
        (MLMOptions, {"max_articles": -1}, "--max-articles -1: it has to be 0 or more"),
        (MLMOptions, {"neighbour_heads": True}, "--neighbour-heads needs --architecture modernbert"),
        (NLIOptions, {"learning_rate": 0.0}, "above 0"),
        (NLIOptions, {"clip": 0.0}, "above 0"),
        (NLIOptions, {"dropout": 1.0}, "--dropout"),
        (EvaluateOptions, {"premise": "a"}, "give both, or neither"),
        (EvaluateOptions, {"batch_size": 0}, "--batch-size"),
        (ModelConfig, {"hidden_size": 10, "num_attention_heads": 4}, "not divisible"),
        (ModelConfig, {"hidden_dropout_prob": -0.1}, "hidden_dropout_prob"),
        (ModelConfig, {"pad_token_id": 30_522}, "pad_token_id"),
        (ModelConfig, {"type_vocab_size": -1}, "type_vocab_size is -1"),
        (ModelConfig, {"type_vocab_size": 0}, "type_vocab_size is 0: it has to be at least 1"),
        (ModernBertConfig, {"hidden_size": 12, "num_attention_heads": 4}, "heads of 3 numbers"),
        (ModernBertConfig, {"rope_theta": 0.0}, "rope_theta is 0.0"),
        (ModernBertConfig, {"type_vocab_size": 2}, "no segments"),
        (ModernBertConfig, {"type_vocab_size": -1}, "type_vocab_size is -1: it has to be at least 0"),
        (NLIOptions, {"compile": True, "textbook": True}, "--compile is for the fast path: leave out --textbook"),
        (NLIOptions, {"pooling": "sum"}, "--pooling sum: choose from mean, cls, max"),
        (MLMOptions, {"architecture": "ModernBERT"}, "--architecture ModernBERT: choose from bert, modernbert"),
        (NLIOptions, {"labels": "a," + "b" * 101}, "each of 1 to 100 printable characters"),
        (NLIOptions, {"labels": ",".join(map(str, range(1_001)))}, "at most 1,000, each"),
    ],
)
def test_nonsense_is_refused_by_name(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        kind(**settings)
