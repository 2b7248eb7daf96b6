"""Proves that any text is an answer or a line of error, and that what is said of every text holds for odd ones, too."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import evaluate
import minibert
from minibert.bert import Bert, BertForMaskedLM
from minibert.config import LABELS, ModelConfig
from minibert.data.articles import Articles
from minibert.data.pairs import load_pairs
from minibert.errors import UserError
from minibert.hub import save_classifier, save_mlm
from minibert.inference import Guess, TrainedModel
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from tests.data.rows import write

Test = TypeVar("Test", bound=Callable[..., None])

ROOT = Path(__file__).parents[2]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["the", "cat", "dog", "mat", "sat", "##ing", ".", ",", *(f"##{letter}" for letter in LETTERS)]
TOKENIZER = WordPieceTokenizer.from_vocabulary([*SPECIAL_TOKENS, *LETTERS, *WORDS])
CONFIG = ModelConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
    max_position_embeddings=19,
)  # fmt: skip

ANY = st.text(st.characters(exclude_categories=()), max_size=200)  # lone surrogates too
WRITTEN = st.lists(st.sampled_from(["the cat", "dogs", " ", ".", "\n", "[MASK]", "[SEP]", "##s", "xyz" * 40]))
TEXT = ANY | WRITTEN.map("".join)
ODD = ["", "   ", "\ud800", "a\udfffb", "\x00", "a\x00b", "\ufffd", "\u0301", "\U0010ffff"]
ODD += ["\u202eright to left", "שלום", "👩‍👩‍👧 👍🏽"]

EXAMPLES = settings().max_examples
many = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
some = settings(max_examples=EXAMPLES // 5, suppress_health_check=list(HealthCheck))


def odd(name: str) -> Callable[[Test], Test]:
    """Each of the odd texts as one more example."""

    def add(test: Test) -> Test:
        for text in ODD:
            test = example(**{name: text})(test)
        return test

    return add


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    masked_lm = BertForMaskedLM(Bert(CONFIG))
    encoder = SentenceEncoder(masked_lm.bert)
    return TrainedModel(encoder, TOKENIZER, max_length=16, masked_lm=masked_lm, classifier=NLIClassifier(encoder))


@many
@odd("text")
@given(text=TEXT)
def test_a_cut_text_is_the_beginning_of_the_whole(text: str) -> None:
    (whole,) = TOKENIZER.encode([text], max_length=None)
    assert (whole[0], whole[-1]) == (TOKENIZER.cls_id, TOKENIZER.sep_id)
    assert all(0 <= index < TOKENIZER.vocab_size for index in whole)
    for length in (3, 4, 16):
        assert TOKENIZER.encode([text], length)[0] == [*whole[:-1][: length - 1], TOKENIZER.sep_id]


@many
@odd("text")
@given(text=TEXT)
def test_a_texts_vector_does_not_depend_on_its_company(model: TrainedModel, text: str) -> None:
    alone = model.encode([text])
    assert np.isfinite(alone).all()
    assert np.allclose(model.encode(["the cat sat", text, "", "dogs " * 9])[1], alone[0], atol=1e-5)


@many
@given(premise=TEXT, hypothesis=TEXT)
@example(premise="", hypothesis="")
def test_probabilities_are_probabilities(model: TrainedModel, premise: str, hypothesis: str) -> None:
    probabilities = model.predict([premise], [hypothesis]).probabilities
    assert (probabilities >= 0).all()
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)


@many
@odd("text")
@given(text=TEXT)
def test_a_mask_is_filled_or_refused(model: TrainedModel, text: str) -> None:
    count = TOKENIZER.encode([f"{text} [MASK]"], None)[0].count(TOKENIZER.mask_id)
    try:
        guesses = model.fill_mask(f"{text} [MASK]", top_k=3)
    except UserError as error:
        assert "tokens: the model reads 19" in str(error)
        return
    for row in cast("list[list[Guess]]", [guesses] if count == 1 else guesses):
        scores = [guess["score"] for guess in row]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 3


def test_ten_megabytes_on_one_line(model: TrainedModel) -> None:
    spaced, solid = "the cat sat. " * 800_000, "x" * 10_000_000
    for text in (spaced, solid):
        assert np.isfinite(model.encode([text])).all()
        assert len(TOKENIZER.encode([text], 16)[0]) <= 16
    assert np.array_equal(model.encode([spaced]), model.encode([spaced[:1_000]]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place, classifier = tmp_path_factory.mktemp("model"), NLIClassifier(SentenceEncoder(Bert(CONFIG)))
    save_classifier(place, classifier, TOKENIZER, max_length=16, hypothesis_only=False)
    return place


@some
@given(premise=TEXT, hypothesis=TEXT)
def test_evaluate_answers_or_says_what_is_missing(folder: Path, premise: str, hypothesis: str) -> None:
    try:
        # "=" since a text that begins with a dash is a flag to every command line
        evaluate.main(["--model", str(folder), f"--premise={premise}", f"--hypothesis={hypothesis}"])
    except UserError as error:
        assert "is empty: write a sentence there" in str(error)
        assert any(len(ids) == 2 for ids in TOKENIZER.encode([premise, hypothesis], None)), error  # [CLS] and [SEP]


def test_evaluate_with_bytes_that_are_no_text(folder: Path, tmp_path: Path) -> None:
    """As a program, and from another folder than its own."""
    command: list[str | bytes] = [sys.executable, str(ROOT / "evaluate.py"), "--model", str(folder)]
    command += ["--premise", b"a" * 100_000]
    no_text = b"\xff\xfe caf\xe9 \x01"
    done = subprocess.run([*command, "--hypothesis", no_text], capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert all(line.startswith(b"warning: ") for line in done.stderr.splitlines())  # it is long, or not English
    assert len(done.stdout.splitlines()) == len(LABELS)


VALUE = st.none() | st.booleans() | st.integers(-2, 4) | st.floats() | TEXT | st.lists(st.integers(), max_size=2)
ROW = st.dictionaries(st.sampled_from(["premise", "hypothesis", "label", "sentence1", "gold_label", "text"]), VALUE)
GOOD = st.fixed_dictionaries(
    {"premise": TEXT, "hypothesis": TEXT, "label": st.sampled_from([0, 1, 2, -1])}, optional={"text": TEXT}
)


@some
@given(rows=st.lists(GOOD, max_size=4) | st.lists(GOOD | ROW, max_size=4))
def test_rows_of_any_kind_are_read_or_refused(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        file = str(write(Path(place) / "train.jsonl", rows))
        with one_line_if_refused():
            pairs = load_pairs(file, "train", max_pairs=0, seed=1)
            assert 0 < len(pairs) <= len(rows)
            assert all(isinstance(text, str) and text for text in [*pairs.premises, *pairs.hypotheses])
            assert set(pairs.labels.tolist()) <= {0, 1, 2}
        with one_line_if_refused():
            with Articles(file, max_articles=0, held_out=1, min_characters=0, seed=1) as articles:
                texts = [*articles.texts.train["text"], *articles.texts.held_out["text"]]
            assert all(isinstance(text, str) and text for text in texts)


@contextmanager
def one_line_if_refused() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        assert len(str(error).splitlines()) == 1


@some
@given(texts=st.lists(TEXT, min_size=1, max_size=20), size=st.integers(6, 80))
def test_a_vocabulary_learned_from_any_text_is_whole(texts: list[str], size: int) -> None:
    tokenizer = WordPieceTokenizer.train(texts, size)
    ids = tokenizer.encode(texts, None)
    assert all(0 <= index < tokenizer.vocab_size for row in ids for index in row)


def test_the_models_of_these_tests_are_read_back(tmp_path: Path, model: TrainedModel) -> None:
    assert model.masked_lm is not None
    save_mlm(tmp_path, model.masked_lm, TOKENIZER)
    assert minibert.from_pretrained(tmp_path).fill_mask("the [MASK]") == model.fill_mask("the [MASK]")
