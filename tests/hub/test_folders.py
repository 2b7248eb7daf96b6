"""Proves that folders are whole and honest: they reload to the same outputs, here and elsewhere, or say why not."""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

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
def mlm(config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path) -> tuple[BertForMaskedLM, Path]:
    model = make_masked_lm(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_mlm(tmp_path / "mlm", model, tokenizer)
    return model, tmp_path / "mlm"


@pytest.fixture
def nli(config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path) -> tuple[TrainedModel, Path]:
    network = NLIClassifier(SentenceEncoder(Bert(config)), dropout=0.3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_classifier(tmp_path / "nli", network, tokenizer, 10, hypothesis_only=False)
    return TrainedModel(network.encoder, tokenizer, 10, classifier=network), tmp_path / "nli"


def load_mlm(folder: Path) -> tuple[BertForMaskedLM, WordPieceTokenizer]:
    model = from_pretrained(folder)
    assert model.masked_lm is not None
    assert model.encoder is model.masked_lm.bert
    assert not model.masked_lm.training
    return model.masked_lm, model.tokenizer


def edit(file: Path, **changes: Any) -> None:
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, **changes}))
    (file.parent / CHECKSUMS).unlink(missing_ok=True)  # what is refused here is to be refused without them, too


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


def test_old_spelling_of_the_norms_is_read(mlm: tuple[BertForMaskedLM, Path]) -> None:
    model, folder = mlm
    tensors = load_file(folder / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, tensor in tensors.items():
        for new, spelling in old.items():
            name = name.replace(new, spelling)  # noqa: PLW2901
        renamed[name] = tensor
    save_file(renamed, folder / "model.safetensors")
    (folder / CHECKSUMS).unlink()
    loaded, _ = load_mlm(folder)
    for (name, ours), theirs in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


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


@pytest.mark.parametrize("damage", ["no weights", "another width", "not a number"])
def test_a_projection_that_is_damaged_is_refused(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "wide"
    save_classifier(
        folder, NLIClassifier(SentenceEncoder(Bert(config), projection=40)), tokenizer, 10, hypothesis_only=False
    )
    (folder / CHECKSUMS).unlink()
    weights, message = folder / "1_Dense" / "model.safetensors", "no weights at"
    if damage == "no weights":
        weights.unlink()
    elif damage == "another width":
        edit(folder / "1_Dense" / "config.json", out_features=41)
        message = "linear.weight"
    else:
        save_file({**load_file(weights), "linear.bias": torch.full((40,), float("nan"))}, weights)
        message = "linear.bias"
    with pytest.raises(UserError, match=message) as caught:
        from_pretrained(folder)
    assert "1_Dense" in str(caught.value)


def test_the_control_is_remembered(nli: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    model, _ = nli
    assert model.classifier is not None
    save_classifier(tmp_path / "control", model.classifier, model.tokenizer, 10, hypothesis_only=True)
    assert from_pretrained(tmp_path / "control").hypothesis_only


def test_a_zip_writes_nothing_but_the_files_of_a_model(nli: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    archive = zip_classifier(nli[1])
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("../outside.txt", "x")
        file.writestr("/tmp/outside.txt", "x")
        file.writestr("extra.py", "x")
    from_pretrained(archive)
    assert not list(tmp_path.rglob("outside.txt"))


def test_labels_are_the_folders_own(nli: tuple[TrainedModel, Path]) -> None:
    """In whatever order: an answer goes by its name."""
    model, folder = nli
    assert json.loads((folder / "classifier.json").read_text())["labels"] == list(LABELS)
    edit(folder / "classifier.json", labels=["contradiction", "neutral", "entailment"])
    again = from_pretrained(folder)
    assert again.labels == again.predict(["a"], ["b"]).names == ("contradiction", "neutral", "entailment")
    np.testing.assert_array_equal(again.predict(["a"], ["b"]).probabilities, model.predict(["a"], ["b"]).probabilities)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "not a list of names"), ("abc", "not a list of names"), ([], "two or more different names"),
        (["a"], "two or more"), (["a", "A ", "b"], "two or more"), (["a", 1, "b"], "two or more"),
        (["a", " ", "b"], "two or more"), (["a", "b\x1b[2J", "c"], "two or more"), (["a"] * 2_000, "two or more"),
        (["a", "b" * 101, "c"], "two or more"), (["1", "1.0", "2"], "two or more"),
        (["a", "b"], "classifier.safetensors"), (["a", "b", "c", "d"], "classifier.safetensors"),
    ],
)  # fmt: skip
def test_labels_that_make_no_sense_are_refused(nli: tuple[TrainedModel, Path], labels: Any, message: str) -> None:
    edit(nli[1] / "classifier.json", labels=labels)
    with pytest.raises(UserError, match=message):
        from_pretrained(nli[1])


def test_files_that_are_missing_or_damaged(mlm: tuple[BertForMaskedLM, Path], tmp_path: Path) -> None:
    folder = mlm[1]
    with pytest.raises(UserError, match=r"no folder .*nowhere: pass a folder"):
        load_encoder(tmp_path / "nowhere")
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no config.json in .*unfinished: its run is not finished: .* --resume"):
        from_pretrained(tmp_path / "unfinished")
    (folder / CHECKSUMS).unlink()
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no weights at [^:]*$"):
        from_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is a pickle, .* never read"):
        from_pretrained(folder)


def test_a_file_that_is_no_folder_and_no_zip(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="neither a folder nor a zip"):
        from_pretrained(tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_length": 2}, "max_length 2, but other files 10"),
        ({"max_length": 20}, "max_length 20"),
        ({"max_length": "10"}, "max_length '10'"),
        ({"dropout": 1}, "dropout outside"),
        ({"hypothesis_only": 0}, "hypothesis_only that is not true or false"),
        ({"features": ["u", "v"]}, "has the features"),
        ({"features": ["u", "v", "|u - v|", "u * v"]}, r"not \['u', 'v', '\|u - v\|'\]"),  # an earlier version's
    ],
)
def test_a_classifier_with_senseless_settings_is_refused(
    nli: tuple[TrainedModel, Path], change: dict[str, Any], message: str
) -> None:
    edit(nli[1] / "classifier.json", **change)
    with pytest.raises(UserError, match=message):
        from_pretrained(nli[1])


def test_shards_are_put_together(mlm: tuple[BertForMaskedLM, Path], tmp_path: Path) -> None:
    model, folder = mlm
    sharded = tmp_path / "sharded"
    transformers.BertForMaskedLM.from_pretrained(folder).save_pretrained(sharded, max_shard_size="20KB")
    shutil.copy(folder / "tokenizer.json", sharded)
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    assert not (sharded / "model.safetensors").exists()
    loaded, _ = load_mlm(sharded)
    for (name, ours), theirs in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    index = json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"]
    edit(sharded / "model.safetensors.index.json", weight_map={**index, "bert.extra": next(iter(index.values()))})
    with pytest.raises(UserError, match=r"1 weights are missing from their shards, bert\.extra"):
        from_pretrained(sharded)
    edit(sharded / "model.safetensors.index.json", weight_map={**index, "bert.extra": "../mlm/model.safetensors"})
    with pytest.raises(UserError, match="points outside its folder"):
        from_pretrained(sharded)
    edit(sharded / "model.safetensors.index.json", weight_map=[1])
    with pytest.raises(UserError, match="no weight_map"):
        from_pretrained(sharded)
    edit(sharded / "model.safetensors.index.json", weight_map=index)
    next(sharded.glob("model-00002*")).unlink()
    with pytest.raises(UserError, match=r"no weights at .*model-00002"):
        from_pretrained(sharded)


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


def test_a_vocabulary_of_another_model_is_refused(mlm: tuple[BertForMaskedLM, Path]) -> None:
    folder = mlm[1]
    (folder / CHECKSUMS).unlink()
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *(f"w{i}" for i in range(300))]))
    with pytest.raises(UserError, match="the vocabulary has 305 tokens, but the model 61"):
        load_mlm(folder)


def test_a_failed_save_leaves_the_old_folder_whole(
    mlm: tuple[BertForMaskedLM, Path], tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = mlm
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(WordPieceTokenizer, "save", full)
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
def test_what_is_no_file_is_refused_before_it_is_read(nli: tuple[TrainedModel, Path], name: str) -> None:
    """A pipe that nobody writes to would never end, and neither would a device."""
    folder = nli[1]
    (folder / CHECKSUMS).unlink()
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=rf"{name} is not a file"):
        from_pretrained(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=rf"{name} is not a file"):
        from_pretrained(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(UserError, match=rf"{name} is not a file"):
        from_pretrained(folder)


def test_a_pipe_behind_the_checksums_is_refused(nli: tuple[TrainedModel, Path]) -> None:
    folder = nli[1]
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors is not a file"):
        from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.txt", "modules.json", CHECKSUMS])
def test_a_file_of_gigabytes_is_refused_before_it_is_read(nli: tuple[TrainedModel, Path], name: str) -> None:
    folder = nli[1]
    (folder / CHECKSUMS).unlink()
    if name == "vocab.txt":
        (folder / "tokenizer.json").unlink()
    with (folder / name).open("wb") as file:
        file.truncate(2**33)  # 8 GiB of holes
    with pytest.raises(UserError, match=rf"{name} has 8,589,934,592 bytes: more than 67,108,864 make no sense"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_type": "bert", "hidden_size": 24, "hidden_size": 48}', "names 'hidden_size' twice"),
        ('{"model_type": "bert", "layer_norm_eps": NaN}', "NaN is no JSON"),
        ('{"model_type": "bert", "x": [{"y": -Infinity}]}', "-Infinity is no JSON"),
        ("[" * 100_000 + "]" * 100_000, "not valid JSON"),
        ('{"a":' * 50_000, "not valid JSON"),
        ("9" * 5_000, "not valid JSON"),
        ('"\\ud800', "not valid JSON"),
    ],
)
def test_json_that_can_be_read_in_two_ways_or_in_none(
    mlm: tuple[BertForMaskedLM, Path], text: str, message: str
) -> None:
    (mlm[1] / CHECKSUMS).unlink()
    (mlm[1] / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        from_pretrained(mlm[1])


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "modules.json"])
def test_json_may_begin_with_a_byte_order_mark(nli: tuple[TrainedModel, Path], name: str) -> None:
    model, folder = nli
    (folder / CHECKSUMS).unlink()
    (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert (from_pretrained(folder).encode(["The cat."]) == model.encode(["The cat."])).all()


@pytest.mark.parametrize("text", ["zz\n", "\n", "0" * 64 + "\n", "0" * 63 + "  config.json\n", "x" * 64 + "  a\n"])
def test_a_list_of_checksums_that_is_none(nli: tuple[TrainedModel, Path], text: str) -> None:
    (nli[1] / CHECKSUMS).write_text(text)
    with pytest.raises(UserError, match=r"SHA256SUMS can't be checked \(it is not a list of checksums\)"):
        from_pretrained(nli[1])


EVIL = "\x1b]0;owned\x07\x1b[2J\u202egnp\r\n" + "x" * 10_000


@pytest.mark.parametrize("place", ["setting", "architecture", "class", "module", "label", "weight", "pooling"])
def test_what_a_stranger_writes_reaches_no_terminal_raw(nli: tuple[TrainedModel, Path], place: str) -> None:
    folder = nli[1]
    (folder / CHECKSUMS).unlink()
    if place == "setting":
        edit(folder / "config.json", hidden_act=EVIL)
    elif place == "architecture":
        edit(folder / "config.json", architectures=[EVIL])
    elif place == "class":
        edit(folder / "tokenizer_config.json", tokenizer_class=EVIL)
    elif place == "module":
        (folder / "modules.json").write_text(json.dumps([{"type": EVIL, "path": ""}]))
    elif place == "label":
        edit(folder / "classifier.json", labels=EVIL)
    elif place == "weight":
        tensors = load_file(folder / "model.safetensors")
        save_file({**tensors, EVIL: torch.zeros(1)}, folder / "model.safetensors")
    else:
        edit(folder / "1_Pooling" / "config.json", pooling_mode=EVIL)
    with pytest.raises(UserError) as refusal:
        from_pretrained(folder)
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
    beside = {
        f"__MACOSX/{top}._config.json": b"x",
        f"{top}.DS_Store": b"x",
        f"{top}README.md": b"x",
        f"{top}x.py": b"x",
    }
    loaded = from_pretrained(zipped(tmp_path / "a.zip", folder, top, beside))
    np.testing.assert_array_equal(loaded.encode(TEXTS), model.encode(TEXTS))


def test_a_zip_of_shards(mlm: tuple[BertForMaskedLM, Path], tmp_path: Path) -> None:
    model, folder = mlm
    transformers.BertForMaskedLM.from_pretrained(folder).save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    shutil.copy(folder / "tokenizer.json", tmp_path / "sharded")
    loaded, _ = load_mlm(zipped(tmp_path / "a.zip", tmp_path / "sharded", "top/"))
    for ours, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_zip_that_points_outside_or_is_too_large(nli: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    folder, path = nli[1], tmp_path / "a.zip"
    outside = {"../config.json": b"{", "/etc/config.json": b"{", "..\\config.json": b"{", "a/../../config.json": b"{"}
    from_pretrained(zipped(path, folder, more=outside))  # which are left where they are
    assert not (tmp_path / "config.json").exists()
    with (
        pytest.raises(UserError, match=r"a\.zip: two entries have the same name"),
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        from_pretrained(zipped(path, folder, more={"config.json": b"{}"}))
    with pytest.raises(UserError, match=r"a\.zip: more than 10,000 entries"):
        from_pretrained(zipped(path, folder, more={f"{i}.txt": b"" for i in range(10_001)}))
    with zipfile.ZipFile(zipped(path, folder, more={"notes.json": b"{}"}), "a") as archive:
        archive.getinfo("notes.json").file_size = 2**26 + 1  # within the limit of all, but not of one
        archive.writestr("x.txt", b"")
    with pytest.raises(UserError, match=r"notes\.json has more than 67,108,864 bytes"):
        from_pretrained(path)


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


def test_the_report_does_not_print_what_is_no_number(
    nli: tuple[TrainedModel, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Three nan and a status of 0 would be taken for an answer."""
    folder = nli[1]
    (folder / CHECKSUMS).unlink()
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.sign() * 1e30 for name, tensor in tensors.items()}, folder / "model.safetensors")
    with pytest.raises(UserError, match="the model's numbers overflow float32"):
        evaluate.main(["--model", str(folder), "--premise", "a cat", "--hypothesis", "a dog"])
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
