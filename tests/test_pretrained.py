"""Proves that folders are whole and honest: they reload to the same outputs, here and elsewhere, or say why not."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertForMaskedLM, BertModel

from minibert.config import LABELS, ModelConfig
from minibert.data.batching import pad
from minibert.data.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from minibert.errors import UserError
from minibert.inference import NLIModel, predict
from minibert.model.encoder import Bert
from minibert.model.mlm import MaskedLanguageModel
from minibert.model.siamese import SiameseClassifier
from minibert.pretrained import (
    load_classifier,
    load_encoder,
    load_mlm,
    read_config,
    save_classifier,
    save_mlm,
    zip_classifier,
)
from tests.conftest import TEXTS


@pytest.fixture
def mlm(config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path) -> tuple[MaskedLanguageModel, Path]:
    model = MaskedLanguageModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_mlm(tmp_path / "mlm", model, tokenizer)
    return model, tmp_path / "mlm"


@pytest.fixture
def nli(config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path) -> tuple[NLIModel, Path]:
    network = SiameseClassifier(Bert(config), dropout=0.3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model = NLIModel(network, tokenizer, 10)
    save_classifier(tmp_path / "nli", model)
    return model, tmp_path / "nli"


def edit(file: Path, **changes: Any) -> None:
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, **changes}))


def test_a_masked_language_model_comes_back(mlm: tuple[MaskedLanguageModel, Path]) -> None:
    model, folder = mlm
    loaded, tokenizer = load_mlm(folder)
    ids, mask = pad(tokenizer.encode(TEXTS, 19), 0)
    torch.testing.assert_close(loaded.eval()(ids, mask), model(ids, mask), rtol=0, atol=0)
    assert loaded.config == model.config
    encoder, _ = load_encoder(folder)
    torch.testing.assert_close(encoder.eval()(ids, mask), model.bert(ids, mask), rtol=0, atol=0)


def test_transformers_reads_it_with_nothing_missing_or_unexpected(mlm: tuple[MaskedLanguageModel, Path]) -> None:
    model, folder = mlm
    reference, report = BertForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = AutoTokenizer.from_pretrained(folder)(
        TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=19
    )
    mask = batch["attention_mask"].bool()
    expected = reference.eval()(**batch).logits
    torch.testing.assert_close(model(batch["input_ids"], mask)[mask], expected[mask], rtol=1e-5, atol=1e-5)


def test_what_transformers_writes_is_read(mlm: tuple[MaskedLanguageModel, Path], tmp_path: Path) -> None:
    model, folder = mlm
    BertForMaskedLM.from_pretrained(folder).save_pretrained(tmp_path / "theirs")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "theirs")
    loaded, tokenizer = load_mlm(tmp_path / "theirs")
    ids, mask = pad(tokenizer.encode(TEXTS, 19), 0)
    torch.testing.assert_close(loaded.eval()(ids, mask), model(ids, mask), rtol=0, atol=0)
    BertModel.from_pretrained(folder).save_pretrained(tmp_path / "bare")  # no bert. prefix, a pooler, no head
    shutil.copy(folder / "vocab.txt", tmp_path / "bare")
    encoder, _ = load_encoder(tmp_path / "bare")
    torch.testing.assert_close(encoder.eval()(ids, mask), model.bert(ids, mask), rtol=0, atol=0)
    with pytest.raises(UserError, match=r"5 of \d+ weights are missing, cls\.predictions"):
        load_mlm(tmp_path / "bare")


def test_old_spelling_of_the_norms_is_read(mlm: tuple[MaskedLanguageModel, Path]) -> None:
    model, folder = mlm
    tensors = load_file(folder / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, tensor in tensors.items():
        for new, spelling in old.items():
            name = name.replace(new, spelling)  # noqa: PLW2901
        renamed[name] = tensor
    save_file(renamed, folder / "model.safetensors")
    loaded, _ = load_mlm(folder)
    for (name, ours), theirs in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_tied_weights_are_saved_once_and_stay_tied(mlm: tuple[MaskedLanguageModel, Path]) -> None:
    _, folder = mlm
    assert not [name for name in load_file(folder / "model.safetensors") if "decoder" in name]
    loaded, _ = load_mlm(folder)
    before = loaded.eval()(torch.tensor([[5]]))[0, 0, 50].item()
    with torch.no_grad():
        loaded.bert.embeddings.token.weight[50] += 1
    assert loaded(torch.tensor([[5]]))[0, 0, 50].item() != before


def test_a_classifier_comes_back_from_folder_copy_and_zip(nli: tuple[NLIModel, Path], tmp_path: Path) -> None:
    model, folder = nli
    expected = predict(model, TEXTS, TEXTS[::-1])
    archive = zip_classifier(folder)
    assert archive == folder.with_name("nli.zip")
    moved = shutil.move(folder, tmp_path / "elsewhere" / "moved")
    for path in (Path(moved), archive):
        loaded = load_classifier(path)
        again = predict(loaded, TEXTS, TEXTS[::-1])
        np.testing.assert_array_equal(again.probabilities, expected.probabilities)
        np.testing.assert_array_equal(again.embeddings, expected.embeddings)
        assert (loaded.max_length, loaded.hypothesis_only, loaded.classifier.dropout.p) == (10, False, 0.3)


def test_the_control_is_remembered(nli: tuple[NLIModel, Path], tmp_path: Path) -> None:
    model, _ = nli
    save_classifier(tmp_path / "control", NLIModel(model.classifier, model.tokenizer, 10, hypothesis_only=True))
    assert load_classifier(tmp_path / "control").hypothesis_only


def test_a_zip_writes_nothing_but_the_files_of_a_model(nli: tuple[NLIModel, Path], tmp_path: Path) -> None:
    archive = zip_classifier(nli[1])
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("../outside.txt", "x")
        file.writestr("/tmp/outside.txt", "x")
        file.writestr("extra.py", "x")
    load_classifier(archive)
    assert not list(tmp_path.rglob("outside.txt"))


def test_labels_in_another_order_are_refused(nli: tuple[NLIModel, Path]) -> None:
    _, folder = nli
    assert json.loads((folder / "classifier.json").read_text())["labels"] == list(LABELS)
    edit(folder / "classifier.json", labels=["contradiction", "neutral", "entailment"])
    with pytest.raises(UserError, match="has the labels"):
        load_classifier(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "asks for model_type 'gpt2': minibert knows only 'bert'"),
        ({"hidden_act": "relu"}, "asks for hidden_act 'relu'"),
        ({"position_embedding_type": "relative_key"}, "asks for position_embedding_type"),
        ({"is_decoder": True}, "asks for is_decoder True"),
        ({"hidden_size": 48}, "by the configuration"),
        ({"hidden_size": "wide"}, "wrong type"),
        ({"num_attention_heads": 7}, "not divisible"),
        ({"num_hidden_layers": 3}, "weights are missing, encoder.layer.2"),
        ({"vocab_size": 0}, "at least 1"),
    ],
)
def test_configurations_that_are_refused(
    mlm: tuple[MaskedLanguageModel, Path], change: dict[str, Any], message: str
) -> None:
    edit(mlm[1] / "config.json", **change)
    with pytest.raises(UserError, match=message):
        load_mlm(mlm[1])


def test_a_missing_weight_is_an_error_and_a_needless_one_is_not(mlm: tuple[MaskedLanguageModel, Path]) -> None:
    file = mlm[1] / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "bert.pooler.dense.bias": torch.zeros(24)}, file)
    load_mlm(mlm[1])
    tensors.pop("bert.encoder.layer.1.attention.self.key.bias")
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"1 of \d+ weights are missing, encoder\.layer\.1\.attention\.self\.key\.bias"):
        load_mlm(mlm[1])


def test_files_that_are_missing_or_damaged(mlm: tuple[MaskedLanguageModel, Path], tmp_path: Path) -> None:
    folder = mlm[1]
    with pytest.raises(UserError, match=r"no config\.json in .*nowhere"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no classifier\.json .* train_nli\.py"):
        load_classifier(folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        load_mlm(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights at"):
        load_mlm(folder)
    (folder / "config.json").write_text("[1")
    with pytest.raises(UserError, match="not valid JSON"):
        read_config(folder)


def test_a_vocabulary_of_another_model_is_refused(mlm: tuple[MaskedLanguageModel, Path]) -> None:
    folder = mlm[1]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *(f"w{i}" for i in range(300))]))
    with pytest.raises(UserError, match="the vocabulary has 305 tokens, but the model 61"):
        load_mlm(folder)


def test_a_failed_save_leaves_the_old_folder_whole(
    mlm: tuple[MaskedLanguageModel, Path], tokenizer: WordPieceTokenizer, monkeypatch: pytest.MonkeyPatch
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


def test_files_have_the_permissions_of_any_new_file(nli: tuple[NLIModel, Path], tmp_path: Path) -> None:
    """safetensors makes its files private; a model is to be shared."""
    (tmp_path / "plain").touch()
    files = [zip_classifier(nli[1]), *(path for path in nli[1].rglob("*") if path.is_file())]
    assert {path.stat().st_mode for path in files} == {(tmp_path / "plain").stat().st_mode}
