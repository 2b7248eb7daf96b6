"""Proves that folders are whole and honest: they reload to the same outputs, here and elsewhere, or say why not."""

import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertModel

import evaluate
import minibert
from minibert.bert import Bert, BertForMaskedLM, SelfAttention
from minibert.config import LABELS, ModelConfig
from minibert.data.batching import pad
from minibert.errors import UserError
from minibert.files import CHECKSUMS
from minibert.hub import from_pretrained, load_encoder, load_tokenizer, save_classifier, save_mlm, zip_classifier
from minibert.inference import TrainedModel
from minibert.modern import make_masked_lm
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from tests.conftest import TEXTS


@pytest.fixture
def mlm(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BertForMaskedLM, Path]:
    """A model and its folder, which is written once and copied for each test."""
    model = make_masked_lm(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    first = tmp_path_factory.getbasetemp() / "mlm"
    if not first.exists():
        save_mlm(first, model, tokenizer)
    return model, shutil.copytree(first, tmp_path / "mlm")


@pytest.fixture
def nli(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainedModel, Path]:
    """The same of a classifier."""
    network = NLIClassifier(SentenceEncoder(Bert(config)), dropout=0.3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    first = tmp_path_factory.getbasetemp() / "nli"
    if not first.exists():
        save_classifier(first, network, tokenizer, 10, hypothesis_only=False)
    return TrainedModel(network.encoder, tokenizer, 10, classifier=network), shutil.copytree(first, tmp_path / "nli")


@pytest.fixture
def unchecked(nli: tuple[TrainedModel, Path]) -> Path:
    """A classifier's folder without checksums: what is refused in it is to be refused without them."""
    (nli[1] / CHECKSUMS).unlink()
    return nli[1]


def load_mlm(folder: Path) -> tuple[BertForMaskedLM, WordPieceTokenizer]:
    model = from_pretrained(folder)
    assert model.masked_lm is not None
    assert model.encoder is model.masked_lm.bert
    assert not model.masked_lm.training
    return model.masked_lm, model.tokenizer


def edit(file: Path, **changes: Any) -> None:
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, **changes}))
    (file.parent / CHECKSUMS).unlink(missing_ok=True)


def refused(name: Path, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_pretrained(name)


def same_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    for (name, tensor), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(tensor, other), name


def test_a_masked_language_model_comes_back(mlm: tuple[BertForMaskedLM, Path]) -> None:
    model, folder = mlm
    loaded, tokenizer = load_mlm(folder)
    ids, mask = pad(tokenizer.encode(TEXTS, 19), 0)
    torch.testing.assert_close(loaded.eval()(ids, mask), model(ids, mask), rtol=0, atol=0)
    assert loaded.bert.config == model.bert.config
    encoder, _, unused = load_encoder(folder)
    assert len(unused) == 5
    assert all(name.startswith("cls.predictions.") for name in unused)
    torch.testing.assert_close(encoder.eval()(ids, mask), model.bert(ids, mask), rtol=0, atol=0)


def test_transformers_reads_it_with_nothing_missing_or_unexpected(mlm: tuple[BertForMaskedLM, Path]) -> None:
    model, folder = mlm
    reference, report = transformers.BertForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = AutoTokenizer.from_pretrained(folder)(
        TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=19
    )
    mask = batch["attention_mask"].bool()
    expected = reference.eval()(**batch).logits
    torch.testing.assert_close(model(batch["input_ids"], mask)[mask], expected[mask], rtol=1e-5, atol=1e-5)


def test_what_transformers_writes_is_read(mlm: tuple[BertForMaskedLM, Path], tmp_path: Path) -> None:
    model, folder = mlm
    transformers.BertForMaskedLM.from_pretrained(folder).save_pretrained(tmp_path / "theirs")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "theirs")
    loaded, tokenizer = load_mlm(tmp_path / "theirs")
    ids, mask = pad(tokenizer.encode(TEXTS, 19), 0)
    torch.testing.assert_close(loaded.eval()(ids, mask), model(ids, mask), rtol=0, atol=0)
    BertModel.from_pretrained(folder).save_pretrained(tmp_path / "bare")  # no bert. prefix, a pooler, no head
    shutil.copy(folder / "vocab.txt", tmp_path / "bare")
    bare = from_pretrained(tmp_path / "bare")
    torch.testing.assert_close(bare.encoder(ids, mask), model.bert(ids, mask), rtol=0, atol=0)
    assert bare.ignored == ("pooler.dense.bias", "pooler.dense.weight")
    assert bare.masked_lm is None


def test_tied_weights_are_saved_once_and_stay_tied(mlm: tuple[BertForMaskedLM, Path]) -> None:
    _, folder = mlm
    assert not [name for name in load_file(folder / "model.safetensors") if "decoder" in name]
    loaded, _ = load_mlm(folder)
    before = loaded.eval()(torch.tensor([[5]]))[0, 0, 50].item()
    with torch.no_grad():
        loaded.bert.embeddings.word_embeddings.weight[50] += 1
    assert loaded(torch.tensor([[5]]))[0, 0, 50].item() != before


def test_a_classifier_comes_back_from_folder_copy_and_zip(
    nli: tuple[TrainedModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = nli
    expected = model.predict(TEXTS, TEXTS[::-1])
    archive = zip_classifier(folder)
    assert archive == folder.with_name("nli.zip")
    monkeypatch.chdir(folder)
    assert zip_classifier(Path()) == archive
    monkeypatch.undo()
    moved = shutil.move(folder, tmp_path / "elsewhere" / "moved")
    for path in (Path(moved), archive):
        loaded = from_pretrained(path)
        again = loaded.predict(TEXTS, TEXTS[::-1])
        np.testing.assert_array_equal(again.probabilities, expected.probabilities)
        np.testing.assert_array_equal(again.embeddings, expected.embeddings)
        assert loaded.classifier is not None
        assert (loaded.max_length, loaded.hypothesis_only, loaded.classifier.dropout.p) == (10, False, 0.3)
        assert loaded.sentence_encoder is loaded.classifier.encoder
        assert not loaded.classifier.training


def test_a_classifier_with_a_projection_comes_back_from_folder_and_zip(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path
) -> None:
    network = NLIClassifier(SentenceEncoder(Bert(config), "max", 40)).eval()
    save_classifier(tmp_path / "wide", network, tokenizer, 10, hypothesis_only=False)
    ids, mask = pad(tokenizer.encode(TEXTS + TEXTS[::-1], 10), tokenizer.pad_id)
    with torch.no_grad():
        expected = network(ids, mask).softmax(dim=-1).numpy()
    for path in (tmp_path / "wide", zip_classifier(tmp_path / "wide")):
        loaded = from_pretrained(path)
        assert loaded.embedding_size == 40
        assert loaded.classifier is not None
        assert loaded.sentence_encoder is loaded.classifier.encoder
        assert not loaded.sentence_encoder.training
        np.testing.assert_allclose(loaded.predict(TEXTS, TEXTS[::-1]).probabilities, expected, atol=1e-6)


def test_a_projection_that_is_damaged_is_refused(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path
) -> None:
    network = NLIClassifier(SentenceEncoder(Bert(config), projection=40))
    save_classifier(tmp_path / "wide", network, tokenizer, 10, hypothesis_only=False)
    (tmp_path / "wide" / CHECKSUMS).unlink()
    settings, weights = (tmp_path / "wide" / "1_Dense" / name for name in ("config.json", "model.safetensors"))
    edit(settings, out_features=41)
    refused(tmp_path / "wide", r"1_Dense.* linear\.weight is")
    edit(settings, out_features=40)
    save_file({**load_file(weights), "linear.bias": torch.full((40,), float("nan"))}, weights)
    refused(tmp_path / "wide", r"1_Dense.* linear\.bias holds")
    weights.unlink()
    refused(tmp_path / "wide", "no weights at .*1_Dense")


def test_the_control_is_remembered(nli: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    model, _ = nli
    assert model.classifier is not None
    save_classifier(tmp_path / "control", model.classifier, model.tokenizer, 10, hypothesis_only=True)
    assert from_pretrained(tmp_path / "control").hypothesis_only


def test_labels_are_the_folders_own(nli: tuple[TrainedModel, Path]) -> None:
    """In whatever order: an answer goes by its name."""
    model, folder = nli
    assert json.loads((folder / "classifier.json").read_text())["labels"] == list(LABELS)
    edit(folder / "classifier.json", labels=["contradiction", "neutral", "entailment"])
    again = from_pretrained(folder)
    assert again.labels == again.predict(["a"], ["b"]).names == ("contradiction", "neutral", "entailment")
    np.testing.assert_array_equal(again.predict(["a"], ["b"]).probabilities, model.predict(["a"], ["b"]).probabilities)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({"labels": labels}, "not a list of names") for labels in (None, "abc")),
        *(({"labels": labels}, "two or more different names") for labels in (
            [], ["a"], ["a", "A ", "b"], ["a", 1, "b"], ["a", " ", "b"], ["a", "b\x1b[2J", "c"], ["a"] * 2_000,
            ["a", "b" * 101, "c"], ["1", "1.0", "2"],
        )),
        *(({"labels": labels}, r"classifier\.safetensors") for labels in (["a", "b"], ["a", "b", "c", "d"])),
        ({"max_length": 2}, "max_length 2, but other files 10"),
        ({"max_length": 20}, "max_length 20"),
        ({"max_length": "10"}, "max_length '10'"),
        ({"dropout": 1}, "dropout outside"),
        ({"hypothesis_only": 0}, "hypothesis_only that is not true or false"),
        ({"features": ["u", "v"]}, "has the features"),
        ({"features": ["u", "v", "|u - v|", "u * v"]}, r"not \['u', 'v', '\|u - v\|'\]"),  # an earlier version's
    ],
)  # fmt: skip
def test_a_classifier_with_senseless_settings_is_refused(unchecked: Path, change: dict[str, Any], message: str) -> None:
    edit(unchecked / "classifier.json", **change)
    refused(unchecked, message)


def test_files_that_are_missing_or_damaged(mlm: tuple[BertForMaskedLM, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*nowhere: pass a folder"):
        load_encoder(tmp_path / "nowhere")
    (tmp_path / "model.bin").write_bytes(b"x")
    refused(tmp_path / "model.bin", "neither a folder nor a zip")
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    refused(tmp_path / "unfinished", r"no config.json in .*unfinished: its run is not finished: .* --resume")
    folder, weights = mlm[1], mlm[1] / "model.safetensors"
    (folder / CHECKSUMS).unlink()
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(folder, "damaged or not a safetensors file")
    weights.unlink()
    refused(folder, r"no weights at [^:]*$")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    refused(folder, r"pytorch_model\.bin is a pickle, .* never read")


def test_shards_are_put_together(mlm: tuple[BertForMaskedLM, Path], tmp_path: Path) -> None:
    """In a folder and in a zip."""
    model, folder = mlm
    sharded = tmp_path / "sharded"
    transformers.BertForMaskedLM.from_pretrained(folder).save_pretrained(sharded, max_shard_size="20KB")
    shutil.copy(folder / "tokenizer.json", sharded)
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    assert not (sharded / "model.safetensors").exists()
    same_weights(load_mlm(sharded)[0], model)
    same_weights(load_mlm(zipped(tmp_path / "a.zip", sharded, "top/"))[0], model)
    file = sharded / "model.safetensors.index.json"
    index = json.loads(file.read_text())["weight_map"]
    for weight_map, message in (
        (index | {"bert.extra": next(iter(index.values()))}, r"1 weights are missing from their shards, bert\.extra"),
        (index | {"bert.extra": "../mlm/model.safetensors"}, "points outside its folder"),
        ([1], "no weight_map"),
    ):
        edit(file, weight_map=weight_map)
        refused(sharded, message)
    edit(file, weight_map=index)
    next(sharded.glob("model-00002*")).unlink()
    refused(sharded, r"no weights at .*model-00002")


def test_a_name_on_the_hub_is_read_from_its_cache(nli: tuple[TrainedModel, Path]) -> None:
    """A cache as the Hub's client keeps it, so that what is tested is the client itself and not a stand-in for it."""
    model, folder = nli
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = Path(HF_HUB_CACHE) / "models--someone--tiny"  # in the tests' own HF_HOME
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    loaded = minibert.from_pretrained("someone/tiny")
    np.testing.assert_array_equal(loaded.encode(TEXTS), model.encode(TEXTS))
    with pytest.raises(UserError, match="no folder someone/else, and the Hugging Face Hub gave no model of that name"):
        minibert.from_pretrained("someone/else")


def test_what_is_not_used_is_named_in_the_log(
    mlm: tuple[BertForMaskedLM, Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = mlm[1]
    assert from_pretrained(folder).ignored == ()
    assert not caplog.records
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "bert.pooler.dense.bias": torch.zeros(24)}, folder / "model.safetensors")
    edit(folder / "config.json", directionality="bidi")
    assert from_pretrained(folder).ignored == ("directionality", "pooler.dense.bias")
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder} has more than is used here: 1 weight (pooler), directionality"
    ]


def test_a_vocabulary_of_another_model_is_refused(unchecked: Path) -> None:
    (unchecked / "tokenizer.json").unlink()
    (unchecked / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *(f"w{i}" for i in range(300))]))
    refused(unchecked, "the vocabulary has 305 tokens, but the model 61")


def test_a_failed_save_leaves_the_old_folder_whole(
    mlm: tuple[BertForMaskedLM, Path], tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = mlm
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(WordPieceTokenizer, "save", Mock(side_effect=OSError(28, "No space left on device")))
    with torch.no_grad():
        model.head.bias.add_(1)
    with pytest.raises(UserError, match="No space left on device"):
        save_mlm(folder, model, tokenizer)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_files_have_the_permissions_of_any_new_file(nli: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    """safetensors makes its files private; a model is to be shared."""
    (tmp_path / "plain").touch()
    files = [zip_classifier(nli[1]), *(path for path in nli[1].rglob("*") if path.is_file())]
    assert {path.stat().st_mode for path in files} == {(tmp_path / "plain").stat().st_mode}


PIPES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
         "added_tokens.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "classifier.json",
         "classifier.safetensors", "config_sentence_transformers.json", CHECKSUMS)  # fmt: skip


@pytest.mark.parametrize("name", PIPES)
def test_what_is_no_file_is_refused_before_it_is_read(unchecked: Path, name: str) -> None:
    """A pipe that nobody writes to would never end, and neither would a device."""
    file = unchecked / name
    makes: list[Callable[[], object]] = [lambda: os.mkfifo(file), lambda: file.symlink_to("/dev/zero"), file.mkdir]
    for make in makes:
        file.unlink(missing_ok=True)
        make()
        refused(unchecked, rf"{name} is not a file")


def test_a_pipe_behind_the_checksums_is_refused(nli: tuple[TrainedModel, Path]) -> None:
    (nli[1] / "model.safetensors").unlink()
    os.mkfifo(nli[1] / "model.safetensors")
    refused(nli[1], r"model\.safetensors is not a file")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.txt", "modules.json", CHECKSUMS])
def test_a_file_of_gigabytes_is_refused_before_it_is_read(unchecked: Path, name: str) -> None:
    if name == "vocab.txt":
        (unchecked / "tokenizer.json").unlink()
    with (unchecked / name).open("wb") as file:
        file.truncate(2**33)  # 8 GiB of holes
    refused(unchecked, rf"{name} has 8,589,934,592 bytes: it may have at most 67,108,864")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_type": "bert", "hidden_size": 24, "hidden_size": 48}', "names 'hidden_size' twice"),
        ('{"model_type": "bert", "layer_norm_eps": NaN}', "NaN is not JSON"),
        ('{"model_type": "bert", "x": [{"y": -Infinity}]}', "-Infinity is not JSON"),
        ("[" * 100_000 + "]" * 100_000, "not valid JSON"),
        ('{"a":' * 50_000, "not valid JSON"),
        ("9" * 5_000, "not valid JSON"),
        ('"\\ud800', "not valid JSON"),
    ],
)
def test_json_that_can_be_read_in_two_ways_or_in_none(unchecked: Path, text: str, message: str) -> None:
    (unchecked / "config.json").write_text(text)
    refused(unchecked, message)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "modules.json"])
def test_json_may_begin_with_a_byte_order_mark(nli: tuple[TrainedModel, Path], unchecked: Path, name: str) -> None:
    (unchecked / name).write_bytes(b"\xef\xbb\xbf" + (unchecked / name).read_bytes())
    assert (from_pretrained(unchecked).encode(["The cat."]) == nli[0].encode(["The cat."])).all()


@pytest.mark.parametrize("text", ["zz\n", "\n", "0" * 64 + "\n", "0" * 63 + "  config.json\n", "x" * 64 + "  a\n"])
def test_a_list_of_checksums_that_is_none(unchecked: Path, text: str) -> None:
    (unchecked / CHECKSUMS).write_text(text)
    refused(unchecked, r"SHA256SUMS can't be checked \(it is not a list of checksums\)")


EVIL = "\x1b]0;owned\x07\x1b[2J\u202egnp\r\n" + "x" * 10_000


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"hidden_act": EVIL}),
        ("config.json", {"architectures": [EVIL]}),
        ("tokenizer_config.json", {"tokenizer_class": EVIL}),
        ("modules.json", [{"type": EVIL, "path": ""}]),
        ("classifier.json", {"labels": EVIL}),
        ("model.safetensors", {EVIL: torch.zeros(1)}),
        ("1_Pooling/config.json", {"pooling_mode": EVIL}),
    ],
)
def test_what_a_stranger_writes_reaches_no_terminal_raw(unchecked: Path, name: str, change: Any) -> None:
    if name == "model.safetensors":
        save_file(load_file(unchecked / name) | change, unchecked / name)
    elif name == "modules.json":
        (unchecked / name).write_text(json.dumps(change))
    else:
        edit(unchecked / name, **change)
    with pytest.raises(UserError) as refusal:
        from_pretrained(unchecked)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 1_100


def test_names_that_mean_nothing_are_shown_as_they_can_be(
    nli: tuple[TrainedModel, Path], caplog: pytest.LogCaptureFixture
) -> None:
    edit(nli[1] / "config.json", **{EVIL: 1, "plain": 2})
    model = from_pretrained(nli[1])
    assert "plain" in model.ignored
    assert all(name.isprintable() and len(name) < 1_100 for name in model.ignored)
    (record,) = caplog.records
    assert record.getMessage().isprintable()


def zipped(path: Path, folder: Path, top: str = "", more: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, top + file.relative_to(folder).as_posix())
        for name, data in (more or {}).items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("top", ["", "nli/", "my model/"])
def test_a_zip_of_a_folder_and_a_zip_of_its_files(nli: tuple[TrainedModel, Path], tmp_path: Path, top: str) -> None:
    """With what the systems that make them put beside."""
    model, folder = nli
    names = f"__MACOSX/{top}._config.json", f"{top}.DS_Store", f"{top}README.md", f"{top}x.py"
    beside = dict.fromkeys(names, b"x")
    loaded = from_pretrained(zipped(tmp_path / "a.zip", folder, top, beside))
    np.testing.assert_array_equal(loaded.encode(TEXTS), model.encode(TEXTS))


def test_a_zip_that_points_outside_or_is_too_large(
    nli: tuple[TrainedModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path, work = nli[1], tmp_path / "a.zip", tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(work))  # where zips are unpacked: outside is not far
    strange = "../config.json", "/tmp/config.json", "/etc/config.json", "..\\config.json", "a/../../config.json"
    needless = "../outside.txt", "/tmp/outside.txt", "extra.py"
    from_pretrained(zipped(path, folder, more=dict.fromkeys((*strange, *needless), b"{")))  # they stay where they are
    assert list(work.iterdir()) == []
    assert sorted(tmp_path.iterdir()) == [path, folder, work]
    with pytest.warns(UserWarning, match="Duplicate name"):
        zipped(path, folder, more={"config.json": b"{}"})
    refused(path, r"a\.zip: two entries have the same name")
    refused(zipped(path, folder, more={f"{i}.txt": b"" for i in range(10_001)}), r"a\.zip: more than 10,000 entries")
    with zipfile.ZipFile(zipped(path, folder, more={"notes.json": b"{}"}), "a") as archive:
        archive.getinfo("notes.json").file_size = 2**26 + 1  # within the limit of all, but not of one
        archive.writestr("x.txt", b"")
    refused(path, r"notes\.json has 67,108,865 bytes, but may have at most 67,108,864")


@pytest.mark.parametrize(
    "name",
    [
        "models/sbert_nli_small", "models/x", "./models/x", "./x", "../x/y", "/x/y", "~/x", "a/b/c", "x/", "x//y",
        "here/x", "model name", "x.zip/y/z", "user/na\0me", ".hidden/x", "-x/y",
    ],
)  # fmt: skip
def test_what_looks_like_a_path_is_not_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whoever has the name `models` there would answer for a folder that is not there yet."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    for load, what in ((from_pretrained, "folder"), (load_tokenizer, "file")):
        with pytest.raises(UserError) as refusal:
            load(name)
        assert str(refusal.value).startswith(f"no {what} ")
        assert "Hub" not in str(refusal.value)


@pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert/bert-base-uncased", "a_b/c.d-1"])
def test_a_name_is_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked: list[Any] = []
    monkeypatch.chdir(tmp_path)

    def answer(name: str, **_: Any) -> str:
        asked.append(name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    for load in (from_pretrained, load_tokenizer):
        with pytest.raises(UserError, match=r"no config\.json in|has neither a tokenizer\.json"):
            load(name)
    assert asked == [name, name]


def test_the_report_does_not_print_what_is_no_number(unchecked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three nan and a status of 0 would be taken for an answer."""
    tensors = load_file(unchecked / "model.safetensors")
    save_file({name: tensor.sign() * 1e30 for name, tensor in tensors.items()}, unchecked / "model.safetensors")
    with pytest.raises(UserError, match="the model's numbers overflow float32"):
        evaluate.main(["--model", str(unchecked), "--premise", "a cat", "--hypothesis", "a dog"])
    assert capsys.readouterr().out == ""


class Louder(SelfAttention):
    """An attention of somebody's own, with the usual configuration."""

    def forward(self, hidden: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        return 2 * super().forward(hidden, attention_mask)


class LastToken(SentenceEncoder):
    """A pooling of somebody's own, under the usual name."""

    def pool(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return hidden[:, -1]


def test_a_layer_of_ones_own_is_never_saved_as_the_usual_one(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path
) -> None:
    louder = make_masked_lm(config)
    louder.bert.layers[1].attention = Louder(config)
    with pytest.raises(UserError, match=r"bert\.layers\.1\.attention is a Louder, which has no name"):
        save_mlm(tmp_path / "mlm", louder, tokenizer)
    softer = make_masked_lm(config)
    softer.head.norm = torch.nn.Identity()  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"head\.norm is a Identity"):
        save_mlm(tmp_path / "mlm", softer, tokenizer)
    unnamed = SentenceEncoder(Bert(config))
    unnamed.pooling = "weighted"
    for network, message in (
        (NLIClassifier(LastToken(Bert(config))), "encoder is a LastToken"),
        (NLIClassifier(SentenceEncoder(louder.bert)), r"encoder\.bert\.layers\.1\.attention is a Louder"),
        (NLIClassifier(unnamed), "the pooling 'weighted' has no name"),
    ):
        with pytest.raises(UserError, match=message):
            save_classifier(tmp_path / "nli", network, tokenizer, 10, hypothesis_only=False)
    assert list(tmp_path.iterdir()) == []


def set_in(path: str, name: str, value: Any) -> Callable[[BertForMaskedLM], None]:
    return lambda model: setattr(model.get_submodule(path), name, value)


ATTENTION, NORM = "bert.layers.0.attention", "bert.layers.1.feed_forward_norm"
UNSAYABLE: dict[str, tuple[Callable[[BertForMaskedLM], object], str]] = {
    "a hook": (lambda m: m.bert.layers[0].register_forward_hook(lambda *_: None), "layers.0 has a hook, which"),
    "an own function": (set_in(ATTENTION, "merge", lambda context: context), "attention has another merge"),
    "another epsilon": (set_in(NORM, "eps", 0.3), "norm has another eps"),
    "another norm": (set_in("bert.layers.1", "feed_forward_norm", torch.nn.LayerNorm(24, 0.1)), "has another eps"),
    "other heads": (lambda m: vars(m.get_submodule(ATTENTION)).update(num_heads=6, head_size=4), "another head_size"),
    "more positions": (
        set_in("bert.embeddings", "position_embeddings", torch.nn.Embedding(40, 24)), "another num_embeddings",
    ),
    "fewer blocks": (lambda m: set_in("bert", "layers", m.bert.layers[:1])(m), "other weights than the model"),
    "no bias": (set_in(ATTENTION, "query", torch.nn.Linear(24, 24, bias=False)), "other weights than"),
    "no number": (lambda m: m.head.bias.data.fill_(torch.nan), "mlm: cls.predictions.bias holds numbers that are not"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), UNSAYABLE.values(), ids=UNSAYABLE)
def test_what_the_format_does_not_say_is_not_saved(
    mlm: tuple[BertForMaskedLM, Path], tokenizer: WordPieceTokenizer, change: Callable[..., object], message: str
) -> None:
    """Nor is what could not be read again; the folder that was there is as it was."""
    model, folder = mlm
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    change(model)
    with pytest.raises(UserError, match=re.escape(message)):
        save_mlm(folder, model, tokenizer)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("length", [2, 0, 10.0, 20])
def test_a_classifier_that_could_not_be_read_is_not_saved(
    nli: tuple[TrainedModel, Path], tokenizer: WordPieceTokenizer, length: Any
) -> None:
    model, folder = nli
    before = (folder / "classifier.json").read_bytes()
    with pytest.raises(UserError, match=r"max_length|nli asks for sentences of . tokens"):
        save_classifier(folder, model.classifier, tokenizer, length, hypothesis_only=False)  # type: ignore[arg-type]
    assert (folder / "classifier.json").read_bytes() == before


def test_what_an_encoder_leaves_behind_is_named(nli: tuple[TrainedModel, Path]) -> None:
    assert load_encoder(nli[1])[2] == ["pooling", "classifier"]
