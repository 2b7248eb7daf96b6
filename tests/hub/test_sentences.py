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
OLD, POOL, WHOLE = "sentence_bert_config.json", "1_Pooling/config.json", "config_sentence_transformers.json"
NEW = "sentence_transformers.sentence_transformer.modules"
MODERN_STEPS = modules(
    ("sentence_transformers.base.modules.transformer.Transformer", ""), (f"{NEW}.pooling.Pooling", "1_Pooling"),
    ("sentence_transformers.base.modules.normalize.Normalize", "2_Normalize"),
)  # fmt: skip
MEAN = {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


@pytest.fixture
def folder(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An encoder with weights of some size, and nothing that says how it makes vectors of sentences."""
    first = tmp_path_factory.getbasetemp() / "sentences"  # written once and copied for each test
    if not first.exists():
        encoder = Bert(config)
        for parameter in encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        save_classifier(first, NLIClassifier(SentenceEncoder(encoder)), tokenizer, 10, hypothesis_only=False)
        for name in (CHECKSUMS, "classifier.json", "classifier.safetensors", "modules.json", OLD):
            (first / name).unlink()
        shutil.rmtree(first / "1_Pooling")
    return Path(shutil.copytree(first, tmp_path / "model"))


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    return folder


def steps(*which: tuple[str, str], **pooling: Any) -> dict[str, Any]:
    """A modules.json, and a pooling by the mean or by what is said."""
    return {"modules.json": modules(*which), POOL: pooling or MEAN}


def pooled(**pooling: Any) -> dict[str, Any]:
    return steps(ENCODER, POOLING, **pooling)


BASE = pooled()


def settings(**values: Any) -> dict[str, Any]:
    """Settings of the encoder."""
    return BASE | {OLD: values}


def whole(**values: Any) -> dict[str, Any]:
    """Settings of all steps together."""
    return BASE | {WHOLE: values}


SHORT = {"max_seq_length": 6, "do_lower_case": False}
NORMALIZED = steps(ENCODER, POOLING, NORMALIZE)
TWO_PROMPTS = {"query": "q: ", "document": ""}

SAME: dict[str, dict[str, Any]] = {
    "an encoder alone": {},
    "an encoder alone, with settings of a step": {OLD: {"max_seq_length": 5, "do_lower_case": False}},
    "a mean": BASE,
    "normalised": NORMALIZED,
    "today's names": {"modules.json": MODERN_STEPS, POOL: {"embedding_dimension": 24, "pooling_mode": "mean"}},
    "a normaliser that says what it does": NORMALIZED
    | {"2_Normalize/config.json": {"module_input_name": "sentence_embedding", "module_output_name": None}},
    "the first token": pooled(word_embedding_dimension=24, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False),
    "the largest": pooled(embedding_dimension=24, pooling_mode=["max"]),
    "the new name before the old": pooled(embedding_dimension=24, pooling_mode="cls", pooling_mode_mean_tokens=True),
    "no pooling is a mean": pooled(word_embedding_dimension=24),
    "short": settings(**SHORT),
    **{
        f"short, by the name of {name}": BASE | {f"sentence_{name}_config.json": SHORT}
        for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    },
    "the first of two names": BASE
    | {"sentence_xlnet_config.json": {"max_seq_length": 4}, "sentence_albert_config.json": SHORT},
    "an empty file before the old name": BASE | {OLD: {}, "sentence_distilbert_config.json": SHORT},
    "a name that nobody reads": BASE | {"sentence_electra_config.json": SHORT},
    "no length": settings(max_seq_length=None),
    "lower case, twice": settings(max_seq_length=8, do_lower_case=True),
    "today's settings": settings(
        transformer_task="feature-extraction",
        module_output_name="token_embeddings",
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    ),
    "empty settings": settings(model_args={}, tokenizer_args={}, config_args={}),
    "lengths of queries": settings(query_length=4, document_length=5),
    "settings of the whole": whole(
        __version__={"sentence_transformers": "2.0.0"},
        prompts=TWO_PROMPTS,
        default_prompt_name=None,
        similarity_fn_name="dot",
        model_type="SentenceTransformer",
    ),
    "a prompt that is empty": whole(prompts=TWO_PROMPTS, default_prompt_name="document"),
    "a prompt that is there by itself": whole(default_prompt_name="query"),
    "keywords of no step": BASE | {"modules.json": [each | {"kwargs": []} for each in PLAIN]},
}


def vectors(folder: Path) -> Any:
    return SentenceTransformer(str(folder), device="cpu").encode(SENTENCES)


def same(path: Path, expected: Any) -> None:
    np.testing.assert_allclose(minibert.from_pretrained(path).encode(SENTENCES), expected, atol=1e-5)


@pytest.mark.parametrize("files", SAME.values(), ids=SAME.keys())
def test_vectors_are_those_of_sentence_transformers(folder: Path, files: dict[str, Any]) -> None:
    same(write(folder, files), vectors(folder))


OTHER_TYPES = f"""
    mine.Pooling sentence_transformers_fork.models.Pooling x.sentence_transformers.models.Pooling
    sentence_transformers.models.pooling_x.Pooling sentence_transformers.Pooling
    sentence_transformers.sparse_encoder.models.Pooling {MODELS}.WeightedLayerPooling {MODELS}.LSTM {MODELS}.LayerNorm
    {MODELS}.Dropout """

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"the type {kind}": (steps(ENCODER, (kind, "1_Pooling")), f"asks for the module '{kind}'")
        for kind in OTHER_TYPES.split()
    },
    "an encoder of others": (steps(("custom.Transformer", ""), POOLING), "'custom.Transformer'"),
    "a type that is none": ({"modules.json": [{"path": "", "type": 3}]}, "the module 3"),
    "steps the other way": (steps(POOLING, ENCODER), "asks for 1_Pooling + Transformer"),
    "normalised before": (steps(ENCODER, NORMALIZE, POOLING), "2_Normalize + 1_Pooling"),
    "two poolings": (steps(ENCODER, POOLING, POOLING), "1_Pooling + 1_Pooling"),
    "no pooling": ({"modules.json": modules(ENCODER)}, "asks for Transformer: "),
    "no steps": ({"modules.json": []}, "asks for : "),
    "one name for two": (BASE | {"modules.json": [each | {"name": "a"} for each in PLAIN]}, "two modules of one name"),
    "the pooling in the folder itself": (steps(ENCODER, ("Pooling", "")), "asks for"),
    "keywords of a step": (BASE | {"modules.json": [each | {"kwargs": ["x"]} for each in PLAIN]}, "asks for kwargs"),
    **{
        f"the path {path!r}": (steps(ENCODER, ("Pooling", path)), "points outside its folder")
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
    "the path of an encoder": (steps(("Transformer", ".."), POOLING), "points outside"),
    "tokens normalised": (
        NORMALIZED | {"2_Normalize/config.json": {"module_input_name": "token_embeddings"}},
        "asks for module_input_name 'token_embeddings'",
    ),
    "two at once": (pooled(pooling_mode=["mean", "cls"]), "asks for the pooling mean + cls"),
    "no prompt in the mean": (pooled(**MEAN, include_prompt=False), "asks for include_prompt False"),
    **{
        f"the setting {name}": (settings(**{name: value}), f"asks for {name} ")
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
    "a length that is none": (settings(max_seq_length="8"), "sentences of '8' tokens"),
    "a length that is half": (settings(max_seq_length=8.5), "sentences of 8.5 tokens"),
    "a length that is true": (settings(max_seq_length=True), "sentences of True tokens"),
    "a prompt": (whole(prompts={"query": "q: "}, default_prompt_name="query"), "default_prompt_name 'query'"),
    "a prompt that is not there": (whole(default_prompt_name="x"), "prompt_name 'x'"),
    "a prompt that is none": (whole(default_prompt_name=["x"]), "default_prompt_name"),
    "the beginning of vectors": (whole(truncate_dim=8), "asks for truncate_dim 8"),
    "another kind of model": (whole(model_type="SparseEncoder"), "SparseEncoder"),
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
    write(folder, steps(("Transformer", name), POOLING) | {f"{name}/{OLD}": {"max_seq_length": 7}})
    expected = vectors(folder)
    if name == "0_BERT":
        write(folder, {"modules.json": modules(("BERT", name), POOLING)})
    for path in (folder, Path(shutil.make_archive(str(folder), "zip", folder))):
        same(path, expected)
    assert len(load_encoder(folder)[1].encode(["cat"], None)[0]) == 3


def test_lower_case_that_the_tokenizer_does_not_give_is_refused(folder: Path) -> None:
    write(folder, settings(do_lower_case=True))
    for name, change in (("tokenizer.json", '"lowercase":true'), ("tokenizer_config.json", '"do_lower_case":true')):
        text = (folder / name).read_text().replace(": ", ":")
        assert change in text
        (folder / name).write_text(text.replace(change, change.replace("true", "false")))
    with pytest.raises(UserError, match="asks for do_lower_case, but its tokenizer keeps case"):
        minibert.from_pretrained(folder)
    write(folder, {OLD: {"do_lower_case": False}})
    same(folder, vectors(folder))


def test_a_projection_is_that_of_sentence_transformers(folder: Path) -> None:
    dense = {
        "in_features": 24, "out_features": 5, "bias": True, "module_input_name": "token_embeddings",
        "activation_function": "torch.nn.modules.linear.Identity",
    }  # fmt: skip
    weights = {"linear.weight": torch.randn(5, 24), "linear.bias": torch.randn(5)}
    write(folder, {"modules.json": modules(ENCODER, ("Dense", "1_Dense"), ("Pooling", "2_Pooling"))})
    write(folder, {"2_Pooling/config.json": {"embedding_dimension": 5}, "1_Dense/config.json": dense})
    save_file(weights, folder / "1_Dense" / "model.safetensors")
    same(folder, vectors(folder))
    write(folder, {"1_Dense/config.json": {**dense, "in_features": 25}})
    with pytest.raises(UserError, match="has the in_features 25: the encoder gives 24"):
        minibert.from_pretrained(folder)


def test_a_classifier_and_its_folder_have_one_length(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path
) -> None:
    """Otherwise `encode` and sentence-transformers would cut the same sentence in two places."""
    network = NLIClassifier(SentenceEncoder(Bert(config)))
    save_classifier(tmp_path, network, tokenizer, 10, hypothesis_only=False)
    (tmp_path / CHECKSUMS).unlink()
    with pytest.raises(UserError, match="max_length 10, but other files 8"):
        minibert.from_pretrained(write(tmp_path, {OLD: {"max_seq_length": 8}}))


def test_names_that_mean_nothing_are_named_or_refused(folder: Path) -> None:
    """In settings that others extend they are named; where a step or a layer is described, one may be a part of it."""
    named = {"tokenizer_config.json": "a", POOL: "b", OLD: "c", WHOLE: "d", "2_Normalize/config.json": "e"}
    own = json.loads((folder / "tokenizer_config.json").read_text())
    write(folder, NORMALIZED | {"tokenizer_config.json": own | {"x_token": "[CLS]"}})
    for name, strange in named.items():
        values = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        write(folder, {name: values | {strange: 1}})
    assert minibert.from_pretrained(folder).ignored == ("a", "d", "c", "b", "e")
    write(folder, {"modules.json": [each | {"scale": 2} for each in NORMALIZED["modules.json"]]})
    with pytest.raises(UserError, match=r"modules\.json has 'scale', which means nothing to minibert"):
        minibert.from_pretrained(folder)
