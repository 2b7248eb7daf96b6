"""Proves that a folder's sentence vectors are those of sentence-transformers, or that it is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

import minibert
from minibert.bert import Bert
from minibert.config import ModelConfig
from minibert.errors import UserError
from minibert.files import CHECKSUMS
from minibert.hub import load_encoder, save_classifier
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer
from tests.conftest import TEXTS

SENTENCES = [*TEXTS[:4], "Cats", "", "the mat " * 9]
MODELS = "sentence_transformers.models"


def modules(*steps: tuple[str, str]) -> list[dict[str, Any]]:
    """A modules.json of types and paths; a bare name is one of sentence-transformers' own of old."""
    return [
        {"idx": place, "name": str(place), "path": path, "type": kind if "." in kind else f"{MODELS}.{kind}"}
        for place, (kind, path) in enumerate(steps)
    ]


ENCODER, POOLING, NORMALIZE = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
PLAIN = modules(ENCODER, POOLING)
MEAN = {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


@pytest.fixture
def folder(config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path) -> Path:
    """An encoder with weights of some size, and nothing that says how it makes vectors of sentences."""
    encoder = Bert(config)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_classifier(tmp_path / "model", NLIClassifier(SentenceEncoder(encoder)), tokenizer, 10, hypothesis_only=False)
    for name in (CHECKSUMS, "classifier.json", "classifier.safetensors", "modules.json", "sentence_bert_config.json"):
        (tmp_path / "model" / name).unlink()
    shutil.rmtree(tmp_path / "model" / "1_Pooling")
    return tmp_path / "model"


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    return folder


OLD = "sentence_bert_config.json"
POOL = "1_Pooling/config.json"
WHOLE = "config_sentence_transformers.json"
NEW = "sentence_transformers.sentence_transformer.modules"
MODERN_STEPS = modules(
    ("sentence_transformers.base.modules.transformer.Transformer", ""), (f"{NEW}.pooling.Pooling", "1_Pooling"),
    ("sentence_transformers.base.modules.normalize.Normalize", "2_Normalize"),
)  # fmt: skip

BASE = {"modules.json": PLAIN, POOL: MEAN}
SHORT = {"max_seq_length": 6, "do_lower_case": False}

SAME: dict[str, dict[str, Any]] = {
    "an encoder alone": {},
    "an encoder alone, with settings of a step": {OLD: {"max_seq_length": 5, "do_lower_case": False}},
    "a mean": BASE,
    "normalised": {"modules.json": modules(ENCODER, POOLING, NORMALIZE), POOL: MEAN},
    "today's names": {"modules.json": MODERN_STEPS, POOL: {"embedding_dimension": 24, "pooling_mode": "mean"}},
    "a normaliser that says what it does": {
        "modules.json": modules(ENCODER, POOLING, NORMALIZE),
        POOL: MEAN,
        "2_Normalize/config.json": {"module_input_name": "sentence_embedding", "module_output_name": None},
    },
    "the first token": {
        "modules.json": PLAIN,
        POOL: {"word_embedding_dimension": 24, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
    },
    "the largest": {"modules.json": PLAIN, POOL: {"embedding_dimension": 24, "pooling_mode": ["max"]}},
    "the new name before the old": {
        "modules.json": PLAIN,
        POOL: {"embedding_dimension": 24, "pooling_mode": "cls", "pooling_mode_mean_tokens": True},
    },
    "no pooling is a mean": {"modules.json": PLAIN, POOL: {"word_embedding_dimension": 24}},
    "short": BASE | {OLD: {"max_seq_length": 6, "do_lower_case": False}},
    **{
        f"short, by the name of {name}": BASE | {f"sentence_{name}_config.json": SHORT}
        for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    },
    "the first of two names": BASE
    | {"sentence_xlnet_config.json": {"max_seq_length": 4}, "sentence_albert_config.json": SHORT},
    "an empty file before the old name": BASE | {OLD: {}, "sentence_distilbert_config.json": SHORT},
    "a name that nobody reads": BASE | {"sentence_electra_config.json": SHORT},
    "no length": BASE | {OLD: {"max_seq_length": None}},
    "lower case, twice": BASE | {OLD: {"max_seq_length": 8, "do_lower_case": True}},
    "today's settings": BASE
    | {
        OLD: {
            "transformer_task": "feature-extraction",
            "module_output_name": "token_embeddings",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        }
    },
    "empty settings": BASE | {OLD: {"model_args": {}, "tokenizer_args": {}, "config_args": {}}},
    "lengths of queries": BASE | {OLD: {"query_length": 4, "document_length": 5}},
    "settings of the whole": BASE
    | {
        WHOLE: {
            "__version__": {"sentence_transformers": "2.0.0"},
            "prompts": {"query": "q: ", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "dot",
            "model_type": "SentenceTransformer",
        }
    },
    "a prompt that is empty": BASE
    | {WHOLE: {"prompts": {"query": "q: ", "document": ""}, "default_prompt_name": "document"}},
    "a prompt that is there by itself": BASE | {WHOLE: {"default_prompt_name": "query"}},
    "keywords of no step": {"modules.json": [{**each, "kwargs": []} for each in PLAIN], POOL: MEAN},
}


@pytest.mark.parametrize("files", SAME.values(), ids=SAME.keys())
def test_vectors_are_those_of_sentence_transformers(folder: Path, files: dict[str, Any]) -> None:
    write(folder, files)
    expected = SentenceTransformer(str(folder), device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(minibert.from_pretrained(folder).encode(SENTENCES), expected, atol=1e-5)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"the type {kind}": (
            {"modules.json": modules(("Transformer", ""), (kind, "1_Pooling")), POOL: MEAN},
            f"asks for the module '{kind}'",
        )
        for kind in (
            "mine.Pooling",
            "sentence_transformers_fork.models.Pooling",
            "x.sentence_transformers.models.Pooling",
            "sentence_transformers.models.pooling_x.Pooling",
            "sentence_transformers.Pooling",
            "sentence_transformers.sparse_encoder.models.Pooling",
            f"{MODELS}.WeightedLayerPooling",
            f"{MODELS}.LSTM",
            f"{MODELS}.LayerNorm",
            f"{MODELS}.Dropout",
        )
    },
    "an encoder of others": (
        {"modules.json": modules(("custom.Transformer", ""), POOLING), POOL: MEAN},
        "'custom.Transformer'",
    ),
    "a type that is none": ({"modules.json": [{"path": "", "type": 3}]}, "the module 3"),
    "steps the other way": (
        {"modules.json": modules(POOLING, ENCODER), POOL: MEAN},
        "asks for 1_Pooling + Transformer",
    ),
    "normalised before": (
        {"modules.json": modules(ENCODER, NORMALIZE, POOLING), POOL: MEAN},
        "2_Normalize + 1_Pooling",
    ),
    "two poolings": ({"modules.json": modules(ENCODER, POOLING, POOLING), POOL: MEAN}, "1_Pooling + 1_Pooling"),
    "no pooling": ({"modules.json": modules(ENCODER)}, "asks for Transformer: "),
    "no steps": ({"modules.json": []}, "asks for : "),
    "one name for two": (
        {"modules.json": [{**each, "name": "a"} for each in PLAIN], POOL: MEAN},
        "two modules of one name",
    ),
    "the pooling in the folder itself": ({"modules.json": modules(ENCODER, ("Pooling", "")), POOL: MEAN}, "asks for"),
    "keywords of a step": (
        {"modules.json": [{**each, "kwargs": ["task"]} for each in PLAIN], POOL: MEAN},
        "asks for kwargs",
    ),
    **{
        f"the path {path!r}": (
            {"modules.json": modules(ENCODER, ("Pooling", path)), POOL: MEAN},
            "points outside its folder",
        )
        for path in (
            "..",
            "../model/1_Pooling",
            "/etc",
            "1_Pooling/",
            "./1_Pooling",
            "a/b",
            "..\\x",
            "1_Pooling\0",
            ".",
        )
    },
    "the path of an encoder": ({"modules.json": modules(("Transformer", ".."), POOLING), POOL: MEAN}, "points outside"),
    "tokens normalised": (
        {
            "modules.json": modules(ENCODER, POOLING, NORMALIZE),
            POOL: MEAN,
            "2_Normalize/config.json": {"module_input_name": "token_embeddings"},
        },
        "asks for module_input_name 'token_embeddings'",
    ),
    "two at once": (
        {"modules.json": PLAIN, POOL: {"pooling_mode": ["mean", "cls"]}},
        "asks for the pooling mean + cls",
    ),
    "no prompt in the mean": (
        {"modules.json": PLAIN, POOL: {**MEAN, "include_prompt": False}},
        "asks for include_prompt False",
    ),
    **{
        f"the setting {name}": (BASE | {OLD: {name: value}}, f"asks for {name} ")
        for name, value in {
            "transformer_task": "fill-mask",
            "module_output_name": "sentence_embedding",
            "tokenizer_name_or_path": "x",
            "modality_config": {"text": {"method": "get_text_features", "method_output_name": "x"}},
            "processing_kwargs": {"text": {"max_length": 3}},
            "model_args": {"output_hidden_states": True},
            "tokenizer_args": {"model_max_length": 3},
            "config_kwargs": {"num_hidden_layers": 1},
            "query_expansion": {"length": 32},
        }.items()
    },
    "a length that is none": (BASE | {OLD: {"max_seq_length": "8"}}, "sentences of '8' tokens"),
    "a length that is half": (BASE | {OLD: {"max_seq_length": 8.5}}, "sentences of 8.5 tokens"),
    "a length that is true": (BASE | {OLD: {"max_seq_length": True}}, "sentences of True tokens"),
    "a prompt": (
        BASE | {WHOLE: {"prompts": {"query": "q: "}, "default_prompt_name": "query"}},
        "default_prompt_name 'query'",
    ),
    "a prompt that is not there": (BASE | {WHOLE: {"default_prompt_name": "x"}}, "prompt_name 'x'"),
    "a prompt that is none": (BASE | {WHOLE: {"default_prompt_name": ["x"]}}, "default_prompt_name"),
    "the beginning of vectors": (BASE | {WHOLE: {"truncate_dim": 8}}, "asks for truncate_dim 8"),
    "another kind of model": (BASE | {WHOLE: {"model_type": "SparseEncoder"}}, "SparseEncoder"),
}


@pytest.mark.parametrize(("files", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_be_another_vector_is_refused_by_name(folder: Path, files: dict[str, Any], message: str) -> None:
    write(folder, files)
    with pytest.raises(UserError) as refusal:
        minibert.from_pretrained(folder)
    assert message in str(refusal.value)
    assert str(folder) in str(refusal.value)


@pytest.mark.parametrize("name", ["0_Transformer", "0_BERT"])
def test_an_encoder_in_a_folder_of_its_own(folder: Path, name: str) -> None:
    """As sentence-transformers wrote them first; the module was named by its architecture, which it no longer reads."""
    shutil.copytree(folder, folder / name)
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / file).unlink()
    write(
        folder,
        {"modules.json": modules(("Transformer", name), POOLING), POOL: MEAN, f"{name}/{OLD}": {"max_seq_length": 7}},
    )
    expected = SentenceTransformer(str(folder), device="cpu").encode(SENTENCES)
    if name == "0_BERT":
        write(folder, {"modules.json": modules(("BERT", name), POOLING)})
    zipped = Path(shutil.make_archive(str(folder), "zip", folder))
    for path in (folder, zipped):
        np.testing.assert_allclose(minibert.from_pretrained(path).encode(SENTENCES), expected, atol=1e-5)
    assert len(load_encoder(folder)[1].encode(["cat"], None)[0]) == 3


def test_lower_case_that_the_tokenizer_does_not_give_is_refused(folder: Path) -> None:
    write(folder, BASE | {OLD: {"do_lower_case": True}})
    for name, change in (("tokenizer.json", '"lowercase":true'), ("tokenizer_config.json", '"do_lower_case": true')):
        text = (folder / name).read_text()
        assert change in text.replace('"lowercase": true', '"lowercase":true')
        (folder / name).write_text(
            text.replace('"lowercase": true', '"lowercase":false').replace(change, change.replace("true", "false"))
        )
    with pytest.raises(UserError, match="asks for do_lower_case, but its tokenizer keeps case"):
        minibert.from_pretrained(folder)
    write(folder, {OLD: {"do_lower_case": False}})
    expected = SentenceTransformer(str(folder), device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(minibert.from_pretrained(folder).encode(SENTENCES), expected, atol=1e-5)


def test_a_projection_is_that_of_sentence_transformers(folder: Path) -> None:
    dense = {
        "in_features": 24,
        "out_features": 5,
        "bias": True,
        "module_input_name": "token_embeddings",
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    steps = modules(ENCODER, ("Dense", "1_Dense"), ("Pooling", "2_Pooling"))
    write(
        folder,
        {"modules.json": steps, "2_Pooling/config.json": {"embedding_dimension": 5}, "1_Dense/config.json": dense},
    )
    save_file(
        {"linear.weight": torch.randn(5, 24), "linear.bias": torch.randn(5)}, folder / "1_Dense" / "model.safetensors"
    )
    expected = SentenceTransformer(str(folder), device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(minibert.from_pretrained(folder).encode(SENTENCES), expected, atol=1e-5)
    write(folder, {"1_Dense/config.json": {**dense, "in_features": 25}})
    with pytest.raises(UserError, match="has the in_features 25: the encoder gives 24"):
        minibert.from_pretrained(folder)


def test_a_classifier_and_its_folder_have_one_length(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path
) -> None:
    """Otherwise `encode` and sentence-transformers would cut the same sentence in two places."""
    save_classifier(
        tmp_path / "nli", NLIClassifier(SentenceEncoder(Bert(config))), tokenizer, 10, hypothesis_only=False
    )
    (tmp_path / "nli" / CHECKSUMS).unlink()
    write(tmp_path / "nli", {OLD: {"max_seq_length": 8}})
    with pytest.raises(UserError, match="max_length 10, but other files 8"):
        minibert.from_pretrained(tmp_path / "nli")


def test_names_that_mean_nothing_are_named_or_refused(folder: Path) -> None:
    """In settings that others extend they are named; where a step or a layer is described, one may be a part of it."""
    named = {"tokenizer_config.json": "a", POOL: "b", OLD: "c", WHOLE: "d", "2_Normalize/config.json": "e"}
    steps = modules(ENCODER, POOLING, NORMALIZE)
    files = {"modules.json": steps, POOL: MEAN}
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write(folder, files | {"tokenizer_config.json": settings | {"x_token": "[CLS]"}})
    for name, strange in named.items():
        values = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        write(folder, {name: values | {strange: 1}})
    assert minibert.from_pretrained(folder).ignored == ("a", "d", "c", "b", "e")
    write(folder, {"modules.json": [each | {"scale": 2} for each in steps]})
    with pytest.raises(UserError, match=r"modules\.json has 'scale', which means nothing to minibert"):
        minibert.from_pretrained(folder)
