"""Proves that a released model gives here the numbers it gives in transformers and sentence-transformers."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
from transformers import AutoTokenizer, BertModel

import minibert
from minibert.data.pairs import ScoredPairs
from minibert.inference import TrainedModel
from minibert.metrics import similarity, word_overlap
from tests.parity.conftest import near
from tests.parity.text import PARAGRAPHS, SENTENCES, WORLD

pytestmark = pytest.mark.slow

# Mixed on purpose: from nothing at all to more than the model reads, and one odd line among the ordinary ones.
CHOICE = np.random.default_rng(0).permutation(len(SENTENCES))[:100]
MIXED = [*(SENTENCES[index] for index in CHOICE), *sorted(PARAGRAPHS, key=len)[-4:], *WORLD]


@pytest.fixture(scope="module")
def model(minilm: Path) -> TrainedModel:
    return minibert.from_pretrained(minilm)


@pytest.fixture(scope="module")
def theirs(minilm: Path) -> SentenceTransformer:
    return SentenceTransformer(str(minilm), device="cpu")


@pytest.fixture(scope="module")
def expected(theirs: SentenceTransformer) -> np.ndarray:
    return theirs.encode(MIXED)


@pytest.fixture(scope="module")
def reference(minilm: Path) -> BertModel:
    return BertModel.from_pretrained(minilm).eval()


def test_what_is_ignored_is_named(model: TrainedModel) -> None:
    assert model.ignored == ("embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight")


def test_last_hidden_states(minilm: Path, model: TrainedModel, reference: BertModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    worst = 0.0
    for start in range(0, len(MIXED), 4):
        batch = tokenizer(MIXED[start : start + 4], padding=True, truncation=True, max_length=512, return_tensors="pt")
        mask = batch["attention_mask"].bool()
        with torch.no_grad():
            theirs, ours = reference(**batch).last_hidden_state, model.encoder(batch["input_ids"], mask)
        worst = max(worst, (ours - theirs)[mask].abs().max().item())
    near(f"last hidden states of {len(MIXED)} sentences", worst, 1e-5)


def test_segments_reach_the_same_numbers(minilm: Path, model: TrainedModel, reference: BertModel) -> None:
    """Two sentences in one sequence, the second as segment 1."""
    batch = AutoTokenizer.from_pretrained(minilm)(SENTENCES[100], SENTENCES[200], return_tensors="pt")
    assert batch["token_type_ids"].any()
    with torch.no_grad():
        theirs = reference(**batch).last_hidden_state
        ours = model.encoder(batch["input_ids"], batch["attention_mask"].bool(), batch["token_type_ids"])
    near("last hidden states of two segments", (ours - theirs).abs().max().item(), 1e-5)


@pytest.mark.parametrize("size", [1, 7, 32, 128])
def test_sentence_embeddings_at_any_batch_size(model: TrainedModel, expected: np.ndarray, size: int) -> None:
    vectors = model.encode(MIXED, batch_size=size)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    near(f"sentence embeddings at batch size {size}", abs(vectors - expected).max(), 1e-5)


@pytest.mark.parametrize(("mode", "width"), [("cls", 0), ("max", 0), ("mean", 700), ("max", 700)])
def test_other_steps(minilm: Path, tmp_path: Path, mode: str, width: int) -> None:
    """A folder of sentence-transformers' own: another pooling, without normalising, and a Dense of tokens' vectors."""
    steps = [Transformer(str(minilm)), Pooling(width or 384, pooling_mode=mode)]
    if width:
        steps.insert(1, Dense(384, width, activation_function=None, module_input_name="token_embeddings"))
    theirs = SentenceTransformer(modules=steps, device="cpu")
    theirs.save(str(tmp_path))
    model = minibert.from_pretrained(tmp_path)
    ours = model.encode(SENTENCES[:50])
    assert ours.shape == (50, width or 384) == (50, model.embedding_size)
    near(f"sentence embeddings by {mode}, projected to {width}", abs(ours - theirs.encode(SENTENCES[:50])).max(), 1e-5)


@pytest.fixture(scope="module")
def twenty(model: TrainedModel) -> np.ndarray:
    return model.encode(SENTENCES[:20])


@pytest.mark.parametrize("spelling", ["bert. prefix", "gamma and beta", "no pooler", "shards", "half precision"])
def test_the_same_weights_in_other_clothes(
    minilm: Path, reference: BertModel, twenty: np.ndarray, tmp_path: Path, spelling: str
) -> None:
    (tmp_path / "1_Pooling").mkdir()
    for name in ("config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"):
        (tmp_path / name).write_bytes((minilm / name).read_bytes())
    weights = load_file(minilm / "model.safetensors")
    if spelling == "bert. prefix":
        weights = {f"bert.{name}": tensor for name, tensor in weights.items()}
    elif spelling == "gamma and beta":
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        weights = {re.sub("|".join(old), lambda found: old[found[0]], name): tensor for name, tensor in weights.items()}
    elif spelling == "no pooler":
        weights = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    elif spelling == "half precision":
        weights = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    if spelling == "shards":
        reference.save_pretrained(tmp_path, max_shard_size="20MB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
    else:
        save_file(weights, tmp_path / "model.safetensors")
    difference = abs(minibert.from_pretrained(tmp_path).encode(SENTENCES[:20]) - twenty).max()
    if spelling == "half precision":
        assert 0 < difference < 1e-2
    else:
        assert difference == 0


def test_correlations_are_those_of_their_evaluator(model: TrainedModel, theirs: SentenceTransformer) -> None:
    """On pairs whose scores have ties, and do not follow from either library."""
    first, second = SENTENCES[:60], SENTENCES[1:61]
    scores = np.round(word_overlap(first, second) * 5 + np.random.default_rng(0).random(60), 1)
    expected = EmbeddingSimilarityEvaluator(first, second, scores.tolist(), write_csv=False)(theirs)
    ours = similarity(model, ScoredPairs(first, second, scores, "some pairs"))
    near("Spearman of cosines", abs(ours["spearman"] - expected["spearman_cosine"]), 1e-5)
    near("Pearson of cosines", abs(ours["pearson"] - expected["pearson_cosine"]), 1e-5)
    assert ours["pairs"] == 60
    assert 0.1 < ours["spearman"] < 0.99
    assert ours["untrained_encoder"]["spearman"] != ours["spearman"]
