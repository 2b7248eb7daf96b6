"""Proves that an answer does not depend on its neighbours in the call, and that the model's mode is left as it was."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from datasets import Dataset
from tqdm import tqdm

from minibert import inference
from minibert.bert import BertForMaskedLM
from minibert.errors import UserError
from minibert.inference import Guess, Predictions, TrainedModel
from minibert.sbert import NLIClassifier, SentenceEncoder

PREMISES = ["the cat sat on the mat", "dogs", "", "an animal is sleeping. the log", "emoji 🙂 \ud800"]
HYPOTHESES = ["a cat", "the dog sat on the mat and the log", "x", "", "\x00 \u202e"]


def heads(model: TrainedModel) -> tuple[BertForMaskedLM, NLIClassifier]:
    """Of the model of these tests, which has both."""
    assert model.masked_lm is not None
    assert model.classifier is not None
    return model.masked_lm, model.classifier


def alone(model: TrainedModel, sentence: str) -> np.ndarray:
    """The definition: this sentence's token vectors, by itself and unpadded, averaged."""
    model.encoder.eval()
    ids = torch.tensor(model.tokenizer.encode([sentence], model.max_length))
    with torch.no_grad():
        return model.encoder(ids)[0].mean(dim=0).numpy()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
def test_a_vector_is_that_of_its_sentence_alone(model: TrainedModel, size: int) -> None:
    sentences = [*PREMISES, *HYPOTHESES] * 2
    vectors = model.encode(sentences, batch_size=size)
    assert vectors.shape == (20, 24)
    assert vectors.dtype == np.float32
    for vector, sentence in zip(vectors, sentences, strict=True):
        np.testing.assert_allclose(vector, alone(model, sentence), atol=1e-6)


def test_vectors_are_scaled_when_asked_or_when_the_folder_says_so(model: TrainedModel) -> None:
    plain = model.encode(PREMISES)
    unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode(PREMISES, normalize=True), unit, atol=1e-6)
    scaling = TrainedModel(model.sentence_encoder, model.tokenizer, 10, normalize=True)
    np.testing.assert_allclose(scaling.encode(PREMISES), unit, atol=1e-6)
    np.testing.assert_array_equal(scaling.encode(PREMISES, normalize=False), plain)


def test_the_pooling_is_the_folders(model: TrainedModel) -> None:
    ids = torch.tensor(model.tokenizer.encode(PREMISES[:1], 10))
    hidden = model.encoder.eval()(ids)[0].detach()
    for pooling, expected in (("cls", hidden[0]), ("max", hidden.amax(dim=0))):
        pooled = TrainedModel(SentenceEncoder(model.encoder, pooling), model.tokenizer, 10).encode(PREMISES)
        np.testing.assert_allclose(pooled[0], expected.numpy(), atol=1e-6)


def test_a_projection_is_a_part_of_the_model(model: TrainedModel) -> None:
    """Without a classifier, too: it is used by `encode` and moved with the rest."""
    wide = TrainedModel(SentenceEncoder(model.encoder, projection=40), model.tokenizer, 10)
    projection = wide.sentence_encoder.projection
    assert projection is not None
    ids = torch.tensor(model.tokenizer.encode(PREMISES[:1], 10))
    expected = projection(model.encoder.eval()(ids)[0]).mean(dim=0)
    np.testing.assert_allclose(wide.encode(PREMISES)[0], expected.detach().numpy(), atol=1e-6)
    assert wide.to("meta").device.type == "meta"
    assert projection.weight.is_meta


def test_one_string_is_one_sentence(model: TrainedModel) -> None:
    vector = model.encode("the cat sat", normalize=True)
    assert vector.shape == (24,)
    np.testing.assert_array_equal(vector, model.encode(["the cat sat"], normalize=True)[0])
    assert np.linalg.norm(vector) == pytest.approx(1)


def test_similarity_is_the_cosine_of_each_with_each(model: TrainedModel) -> None:
    cosines = model.similarity(PREMISES, HYPOTHESES[:3])
    assert cosines.shape == (5, 3)
    for i, premise in enumerate(PREMISES):
        for j, hypothesis in enumerate(HYPOTHESES[:3]):
            u, v = alone(model, premise), alone(model, hypothesis)
            assert cosines[i, j] == pytest.approx(u @ v / np.linalg.norm(u) / np.linalg.norm(v), abs=1e-5)
    assert model.similarity("the cat", ["the cat", "dogs"]).shape == (1, 2)
    assert model.similarity("the cat", "the cat") == pytest.approx(1, abs=1e-6)


def test_predictions_print_as_a_table() -> None:
    probabilities = np.tile(np.array([[0.1, 0.7, 0.2]], dtype=np.float32), (12, 1))
    lines = repr(Predictions(probabilities, np.zeros((24, 4), np.float32))).splitlines()
    assert lines[0].split() == ["answer", "entailment", "neutral", "contradiction"]
    assert lines[1].split() == ["neutral", "0.1000", "0.7000", "0.2000"]
    assert len(set(map(len, lines[:11]))) == 1
    assert lines[11:] == ["... and 2 more"]
    texts: dict[str, Any] = {"premises": ["x" * 31] * 12, "hypotheses": ["a\nb\x1b"] * 12}
    lines = repr(Predictions(probabilities, np.zeros((24, 4), np.float32), **texts)).splitlines()
    assert lines[0].split() == ["premise", "hypothesis", "answer", "entailment", "neutral", "contradiction"]
    assert lines[1].split("  ")[:2] == ["x" * 27 + "...", r"a b\x1b"]
    assert len(set(map(len, lines[:11]))) == 1
    assert lines[11:] == ["... and 2 more"]
    two = Predictions(np.array([[0.25, 0.75]], np.float32), np.zeros((2, 4), np.float32), ("different", "same"))
    assert [line.split() for line in repr(two).splitlines()] == [
        ["answer", "different", "same"],
        ["same", "0.2500", "0.7500"],
    ]


def test_predictions_of_some_pairs(model: TrainedModel) -> None:
    whole, rows = model.predict(PREMISES, HYPOTHESES), np.array([3, 1])
    part, again = whole[rows], model.predict([PREMISES[3], PREMISES[1]], [HYPOTHESES[3], HYPOTHESES[1]])
    np.testing.assert_allclose(part.probabilities, again.probabilities, atol=1e-6)
    np.testing.assert_allclose(part.embeddings, again.embeddings, atol=1e-5)
    assert (part.premises, part.hypotheses) == (again.premises, again.hypotheses)


def test_vectors_in_bfloat16_are_near_those_in_float32(model: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of numbers with 8 bits: each vector points the same way to 1 %, and none is the same."""
    monkeypatch.setattr(inference, "has_bfloat16", lambda _: True)
    for normalize in (False, True):
        exact = model.encode(PREMISES, normalize=normalize)
        near = model.encode(PREMISES, normalize=normalize, precision="bfloat16")
        assert near.dtype == np.float32
        np.testing.assert_array_equal(model.encode(PREMISES[0], normalize=normalize, precision="bfloat16"), near[0])
        with torch.autocast("cpu", torch.bfloat16):  # a caller's own is kept
            np.testing.assert_array_equal(model.encode(PREMISES, normalize=normalize), near)
        distance = np.linalg.norm(near - exact, axis=1) / np.linalg.norm(exact, axis=1)
        assert (distance < 0.02).all()
        assert (distance > 1e-5).all()
    np.testing.assert_allclose(np.linalg.norm(near, axis=1), 1, rtol=1e-6)


def test_a_precision_that_gains_nothing_here_is_refused(model: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("float16", "int8", ""):
        with pytest.raises(UserError, match=f"precision '{name}': it has to be float32 or bfloat16"):
            model.encode(PREMISES, precision=name)
    monkeypatch.setattr(inference, "has_bfloat16", lambda _: False)
    with pytest.raises(UserError, match="torch finds no units for it in this cpu; use float32"):
        model.encode(PREMISES[0], precision="bfloat16")


def test_nothing_to_encode(model: TrainedModel) -> None:
    assert model.encode([]).shape == (0, 24)


def test_long_lists_have_a_progress_bar_on_a_terminal(model: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []

    def note(*arguments: Any, **settings: Any) -> tqdm:
        bars.append(settings["disable"])
        return tqdm(*arguments, **settings)

    monkeypatch.setattr(inference, "tqdm", note)
    model.encode(PREMISES)
    model.encode(["the cat"] * inference.LONG, batch_size=500)
    assert bars == [True, None]  # for the long list alone, and there unless stderr is no terminal


def test_batch_size_does_not_change_the_answers(model: TrainedModel) -> None:
    whole = model.predict(PREMISES, HYPOTHESES)
    for size in (1, 2, 3):
        part = model.predict(PREMISES, HYPOTHESES, batch_size=size)
        np.testing.assert_allclose(part.probabilities, whole.probabilities, atol=1e-6)
        np.testing.assert_allclose(part.embeddings, whole.embeddings, atol=1e-5)


def test_answers_follow_their_pairs(model: TrainedModel) -> None:
    order = [3, 0, 4, 2, 1]
    moved = model.predict([PREMISES[i] for i in order], [HYPOTHESES[i] for i in order])
    whole = model.predict(PREMISES, HYPOTHESES)
    np.testing.assert_allclose(moved.probabilities, whole.probabilities[order], atol=1e-6)
    np.testing.assert_allclose(moved.embeddings[:5], whole.embeddings[:5][order], atol=1e-5)
    np.testing.assert_allclose(moved.embeddings[5:], whole.embeddings[5:][order], atol=1e-5)


def test_probabilities_are_the_formula_written_out(model: TrainedModel) -> None:
    predictions = model.predict(PREMISES, HYPOTHESES)
    weight, bias = (tensor.detach().numpy() for tensor in heads(model)[1].classifier.parameters())
    for pair, probabilities in enumerate(predictions.probabilities):
        u, v = alone(model, PREMISES[pair]), alone(model, HYPOTHESES[pair])
        odds = np.exp(weight @ np.concatenate([u, v, abs(u - v)]) + bias)
        np.testing.assert_allclose(probabilities, odds / odds.sum(), atol=1e-6)
        np.testing.assert_allclose(predictions.embeddings[[pair, pair + 5]], [u, v], atol=1e-6)
    assert (predictions.labels == predictions.probabilities.argmax(axis=1)).all()


def test_the_classifier_sees_vectors_as_trained_whatever_the_folder_says_of_their_length(model: TrainedModel) -> None:
    scaling = TrainedModel(model.sentence_encoder, model.tokenizer, 10, normalize=True, classifier=model.classifier)
    expected = model.predict(PREMISES, HYPOTHESES).probabilities
    np.testing.assert_array_equal(scaling.predict(PREMISES, HYPOTHESES).probabilities, expected)


ASKS: dict[str, Callable[[TrainedModel], Any]] = {
    "predict": lambda model: model.predict(PREMISES, HYPOTHESES).probabilities.tolist(),
    "encode": lambda model: model.encode(PREMISES).tolist(),
    "fill_mask": lambda model: model.fill_mask("the [MASK] sat"),
    "attention": lambda model: model.attention("the cat sat")[1].tolist(),
}
each_question = pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)


@pytest.mark.parametrize("training", [True, False])
@each_question
def test_the_mode_is_left_as_it_was_and_dropout_is_off(
    model: TrainedModel, training: bool, ask: Callable[[TrainedModel], Any]
) -> None:
    networks = heads(model)
    for network in networks:
        network.train(training)
    assert ask(model) == ask(model)
    assert all(module.training is training for network in networks for module in network.modules())


def test_guesses_are_the_softmax_at_the_mask(model: TrainedModel) -> None:
    text = "the [MASK] sat on the mat."
    ids = torch.tensor(model.tokenizer.encode([text], 19))
    probabilities = heads(model)[0].eval()(ids)[0, 2].softmax(dim=-1)
    guesses = model.fill_mask(text, top_k=61)
    assert sorted(guess["token"] for guess in guesses) == list(range(61))  # type: ignore[call-overload]
    for guess in guesses:
        assert isinstance(guess, dict)
        assert guess["score"] == pytest.approx(probabilities[guess["token"]].item(), rel=1e-5)
    scores = [guess["score"] for guess in guesses]  # type: ignore[call-overload]
    assert scores == sorted(scores, reverse=True)


def test_attention_is_that_of_every_head_over_the_tokens_of_the_text(model: TrainedModel) -> None:
    tokens, maps = model.attention("the cat sat.")
    assert tokens == ["[CLS]", "the", "cat", "sat", ".", "[SEP]"]
    assert maps.shape == (2, 3, 6, 6)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-6)
    ids = torch.tensor([[model.tokenizer.backend.token_to_id(token) for token in tokens]])
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(maps), model.encoder.eval().attention_maps(ids)[:, 0])


@pytest.mark.parametrize(("text", "length"), [("the cat " * 20, 10), ("", 2), ("emoji \ud800", 3)])
def test_attention_of_odd_texts(model: TrainedModel, text: str, length: int) -> None:
    """What is too long is cut to max_length, here 10."""
    tokens, maps = model.attention(text)
    assert (tokens[0], tokens[-1], len(tokens)) == ("[CLS]", "[SEP]", length)
    assert maps.shape[2:] == (length, length)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_model_in_other_numbers_answers_in_float32(model: TrainedModel, dtype: torch.dtype) -> None:
    texts = ["the cat sat", "a dog is on the mat", "is an animal sleeping"]
    before = model.encode(texts), model.predict(texts, texts[::-1]).probabilities, model.attention(texts[0])[1]
    guess = cast("list[Guess]", model.fill_mask("the [MASK] sat", 61))
    model.to(dtype)  # type: ignore[arg-type]
    after = model.encode(texts), model.predict(texts, texts[::-1]).probabilities, model.attention(texts[0])[1]
    for one, other in zip(before, after, strict=True):
        assert other.dtype == np.float32
        assert other == pytest.approx(one, abs=0.15 if dtype == torch.bfloat16 else 0.02)
    again = {each["token"]: each["score"] for each in cast("list[Guess]", model.fill_mask("the [MASK] sat", 61))}
    assert all(again[each["token"]] == pytest.approx(each["score"], abs=0.1) for each in guess)


def test_what_a_layer_keeps_while_answering_can_be_trained_with(model: TrainedModel) -> None:
    """A table that is made when it is first needed, as rotary positions often are."""

    class Kept(torch.nn.Linear):
        table: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.table = torch.ones(24) if self.table is None else self.table
            return super().forward(x) * self.table

    layer = Kept(24, 24)
    model.encoder.layers[0].attention.output = layer  # type: ignore[union-attr]
    model.encode(["the cat"])
    model.encoder(torch.tensor([[1, 2, 3]])).sum().backward()
    assert layer.weight.grad is not None


def test_of_no_pairs_there_are_no_predictions(model: TrainedModel) -> None:
    found = model.predict(["the cat", "a dog"], ["a dog", "no"])
    for rows in (np.zeros(2, dtype=bool), np.array([], dtype=np.int64), slice(0, 0)):
        none = found[rows]
        assert (len(none), none.probabilities.shape, none.embeddings.shape) == (0, (0, 3), (0, 24))
    assert len(found) == 2
    assert found != model.predict(["the cat", "a dog"], ["a dog", "no"])  # there is no single answer over arrays


def test_a_classifier_with_a_forward_of_its_own_is_not_passed_over(model: TrainedModel) -> None:
    class Product(NLIClassifier):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            u, v = self.encoder(input_ids, attention_mask).chunk(2)
            return self.score(torch.cat([u, v, u * v], dim=-1))

    hooked = NLIClassifier(model.sentence_encoder)
    hooked.register_forward_hook(lambda *_: None)
    for classifier in (Product(model.sentence_encoder), hooked):
        with pytest.raises(TypeError, match="predict goes through a classifier's encoder and score"):
            replace(model, classifier=classifier).predict(["the cat"], ["a dog"])


def test_parts_share_the_encoder(model: TrainedModel) -> None:
    with pytest.raises(ValueError, match="have to share the encoder"):
        replace(model, sentence_encoder=SentenceEncoder(model.encoder))
    other = replace(model, sentence_encoder=SentenceEncoder(model.encoder, "max"), classifier=None)
    assert other.encode("the cat").shape == (24,)


def test_what_has_no_order_is_no_list(model: TrainedModel) -> None:
    for texts in ({"the cat", "a dog"}, {"the cat": 1}, {"the cat": 1}.keys()):
        for call in (model.encode, lambda texts: model.predict(texts, texts)):
            with pytest.raises(TypeError, match="has none"):
                call(texts)  # type: ignore[arg-type]


def test_a_cosine_is_at_most_one(model: TrainedModel) -> None:
    texts = [f"the {letter} cat" for letter in "abcdefghijklmnop"]
    cosines = model.similarity(texts, texts)
    assert cosines.max() <= 1
    assert cosines.diagonal() == pytest.approx(1, abs=1e-6)


def test_questions_that_make_no_sense(model: TrainedModel) -> None:
    for premises in (["a"], list[str]()):
        with pytest.raises(UserError, match="give as many"):
            model.predict(premises, [])
    with pytest.raises(TypeError, match="lists of sentences"):
        model.predict("the cat", "the dog")
    with pytest.raises(TypeError, match="a text has to be a string, not None"):
        model.encode(["the cat", None])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="a text has to be a string"):
        model.attention(["the cat"])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="batch_size 0"):
        model.encode(["the cat"], batch_size=0)
    with pytest.raises(UserError, match=r"no \[MASK\] in the text"):
        model.fill_mask("the cat")
    with pytest.raises(UserError, match="23 tokens: the model reads 19"):
        model.fill_mask("[MASK] " + "cat " * 20)
    for top_k in (0, 62):
        with pytest.raises(UserError, match="from 1 to 61"):
            model.fill_mask("[MASK]", top_k)
    bare = TrainedModel(model.sentence_encoder, model.tokenizer, 10)
    with pytest.raises(UserError, match=r"no MLM head: train_mlm\.py"):
        bare.fill_mask("[MASK]")
    with pytest.raises(UserError, match=r"no classifier: train_nli\.py"):
        bare.predict(PREMISES, HYPOTHESES)


def test_all_parts_move_together(model: TrainedModel) -> None:
    assert model.to("meta") is model
    assert model.device.type == "meta"
    for network in heads(model):
        assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


def test_a_part_that_is_frozen_on_purpose_stays_so(model: TrainedModel) -> None:
    """Fine-tuning a classifier over an encoder in evaluation mode, with a look at its answers in between."""
    for network in heads(model):
        network.train()
    model.encoder.eval()
    list(model.encoder.children())[-1].train()
    before = [module.training for network in model.networks for module in network.modules()]
    for ask in ASKS.values():
        ask(model)
        assert [module.training for network in model.networks for module in network.modules()] == before


@each_question
def test_threads_that_ask_at_once_never_see_dropout(model: TrainedModel, ask: Callable[[TrainedModel], Any]) -> None:
    """Even of a model in training, whose parts go back to it only when the last one has its answer."""
    expected = ask(model)
    for network in heads(model):
        network.train()
    inside, leave, shared = threading.Event(), threading.Event(), heads(model)[0]

    def stay() -> None:
        with inference.evaluating(shared):
            inside.set()
            leave.wait(20)

    with ThreadPoolExecutor() as pool:
        other = pool.submit(stay)
        assert inside.wait(20)
        with inference.evaluating(model.encoder):
            leave.set()
            other.result(20)  # who came first leaves first
            assert not any(module.training for module in model.encoder.modules())
            assert ask(model) == expected
        assert all(given == expected for given in pool.map(lambda _: ask(model), range(8)))
    assert all(module.training for network in model.networks for module in network.modules())


@each_question
@pytest.mark.parametrize("scale", [1e20, 1e30, 3e38])
def test_finite_weights_that_overflow_are_said_to(
    model: TrainedModel, ask: Callable[[TrainedModel], Any], scale: float
) -> None:
    for parameter in model.encoder.parameters():
        parameter.data.clamp_(-1, 1).mul_(scale)
    with pytest.raises(UserError, match="the model's numbers overflow float32"):
        ask(model)


def test_a_classifier_that_overflows_over_a_sound_encoder(model: TrainedModel) -> None:
    weight = heads(model)[1].classifier.weight.data
    weight.fill_(3e38)
    weight[0] *= -1
    model.encode(PREMISES)
    with pytest.raises(UserError, match="the model's numbers overflow float32"):
        model.predict(PREMISES, HYPOTHESES)


def test_one_answer_that_overflows_is_enough(model: TrainedModel) -> None:
    """A single token's vector is too large; sentences without it have good answers."""
    embeddings = next(parameter for parameter in model.encoder.parameters() if parameter.shape == (61, 24))
    embeddings.data[model.tokenizer.backend.token_to_id("cat")] = 3e38
    assert np.isfinite(model.encode(["the dog", "a mat"])).all()
    with pytest.raises(UserError, match="the model's numbers overflow float32"):
        model.encode(["the dog", "the cat", "a mat"])


def test_a_table_is_no_list_of_sentences(model: TrainedModel) -> None:
    """It has a length and gives strings, which are the names of its columns."""
    sentences = [f"the cat {number}" for number in range(4)]
    rows = Dataset.from_dict({"text": sentences})
    for table in (rows, rows.to_pandas()):
        for ask in (model.encode, lambda its: model.predict(its, its), lambda its: model.similarity(its, its)):
            with pytest.raises(TypeError, match="not the table"):
                ask(table)
        np.testing.assert_array_equal(model.encode(table["text"]), model.encode(sentences))


@pytest.mark.parametrize(
    "rows",
    [np.array([False, False, True, True]), [False, False, True, True], slice(2, None), [2, 3], [-2, -1]],
    ids=str,
)
def test_some_answers_by_mask_slice_or_place(rows: Any) -> None:
    texts = [f"the cat {number}" for number in range(4)]
    embeddings = np.arange(32, dtype=np.float32).reshape(8, 4)
    some = Predictions(np.eye(4, 3, dtype=np.float32), embeddings, premises=texts, hypotheses=texts)[rows]
    assert some.premises == some.hypotheses == texts[2:]
    assert some.embeddings.tolist() == embeddings[[2, 3, 6, 7]].tolist()
    assert some.labels.tolist() == [2, 0]
