"""Proves that the differences of docs/changing.md run as they stand, print what they show, and are what they say.

Each is written to a file and started as a user's own; what it defines is then held to its formula.
"""

import contextlib
import io
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from docs.make_notebook import Cell, cells
from minibert import fast
from minibert.bert import BertForMaskedLM
from minibert.config import IGNORED
from minibert.errors import UserError
from minibert.hub import save_classifier, save_mlm
from minibert.sbert import NLIClassifier, mean_pooling
from minibert.tokenizer import WordPieceTokenizer
from tests.test_tour import compare

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parent.parent / "docs" / "changing.md").read_text(encoding="utf-8")
CODE = {cell.source.split(".py:")[0].strip('"'): cell for cell in cells(PAGE) if cell.kind == "code"}
MASK = torch.arange(7) < torch.tensor([[7], [4], [1]])  # (B, T), the rows of unequal length

Example = tuple[dict[str, Any], str, Cell]  # what it defines, what it prints, how it stands in the document


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Example]:
    @cache
    def run(name: str) -> Example:
        file = tmp_path_factory.mktemp("own") / f"{name}.py"
        file.write_text(CODE[name].source)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            names = runpy.run_path(str(file), run_name="__main__")
        return names, printed.getvalue(), CODE[name]

    return run


def randomised(model: Any) -> Any:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_there_are_three() -> None:
    assert list(CODE) == ["alibi", "weighted", "cosine"]


@pytest.mark.parametrize("name", CODE)
def test_it_prints_what_it_shows(example: Callable[[str], Example], name: str) -> None:
    _, printed, cell = example(name)
    compare(printed, cell.output, certain=name != "weighted")  # which tokens count is learned, and any may count more


def test_linear_biases(example: Callable[[str], Example]) -> None:
    names, printed, _ = example("alibi")
    config = names["AlibiConfig"](61, 24, num_attention_heads=3)
    attention = randomised(names["AlibiAttention"](config))
    hidden = torch.randn(3, 7, 24)
    query, key, value = attention.heads(hidden)  # (B, H, T, K) each
    weights, attended = torch.zeros(3, 3, 7, 7), torch.zeros(3, 7, 24)
    for row, length in enumerate(MASK.sum(dim=1).tolist()):
        for head, slope in enumerate((2 ** (-8 / 3), 2 ** (-16 / 3), 2**-8)):
            for t in range(7):
                scores = [query[row, head, t] @ key[row, head, s] / 8**0.5 - slope * abs(s - t) for s in range(length)]
                weights[row, head, t, :length] = torch.stack(scores).softmax(dim=0)
                attended[row, t, 8 * head : 8 * head + 8] = weights[row, head, t] @ value[row, head]
    torch.testing.assert_close(attention.weights(hidden, MASK), weights)
    torch.testing.assert_close(attention(hidden, MASK), attention.output(attended))
    torch.testing.assert_close(attention(hidden[:1]), attention(hidden[:1], MASK[:1]))
    eight = names["AlibiAttention"](names["AlibiConfig"](61, 24, num_attention_heads=8))
    assert (-eight.bias(hidden, None)[:, 0, 1]).tolist() == [2.0**-n for n in range(1, 9)]  # the paper's own
    table, alibi = (float(line.split()[-1]) for line in printed.splitlines()[:2])
    assert alibi < table - 0.3  # at places that were never trained


def test_fast_runs_a_layer_that_it_does_not_know_as_it_is_written(example: Callable[[str], Example]) -> None:
    names, _, _ = example("alibi")
    config = names["AlibiConfig"](61, 24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)
    model = randomised(BertForMaskedLM(names["AlibiBert"](config)))
    input_ids = torch.randint(1, 61, MASK.shape)
    labels = input_ids.where(MASK & (torch.rand(MASK.shape) < 0.5), IGNORED)
    labels[0, 0] = input_ids[0, 0]
    positions = (labels.flatten() != IGNORED).nonzero().flatten()
    by_textbook = model.loss(input_ids, MASK, labels)
    by_fast = fast.mlm_loss(model, input_ids, MASK, positions, labels.flatten()[positions])[0] / len(positions)
    torch.testing.assert_close(by_fast, by_textbook)
    of_textbook, of_fast = (torch.autograd.grad(loss, [*model.parameters()]) for loss in (by_textbook, by_fast))
    torch.testing.assert_close(of_fast, of_textbook)
    encoded = fast.encode(model.bert, input_ids, MASK)
    torch.testing.assert_close(encoded[MASK], model.bert(input_ids, MASK)[MASK])


def test_a_mean_with_learned_weights(example: Callable[[str], Example]) -> None:
    names, printed, _ = example("weighted")
    encoder = names["WeightedEncoder"](randomised(names["bert"].__class__(names["bert"].config)))
    input_ids = torch.randint(1, 61, MASK.shape)
    hidden = encoder.bert(input_ids, MASK)
    torch.testing.assert_close(encoder(input_ids, MASK), mean_pooling(hidden, MASK))  # before training
    nn.init.normal_(encoder.weight.weight)
    rows = []
    for row, length in enumerate(MASK.sum(dim=1).tolist()):
        shares = torch.exp(hidden[row, :length] @ encoder.weight.weight[0])
        rows.append(sum(share / shares.sum() * vector for share, vector in zip(shares, hidden[row], strict=False)))
    by_hand = torch.stack(rows)
    torch.testing.assert_close(encoder(input_ids, MASK), by_hand, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.sentence_vectors(encoder, input_ids, MASK), by_hand, rtol=1e-4, atol=1e-5)
    right, weights = printed.splitlines()
    assert float(right.split()[1]) > 0.6  # chance is a third
    share = {token: float(weight) for token, weight in zip(weights.split()[::2], weights.split()[1::2], strict=True)}
    assert share["sleeping"] > 5 * share["is"]


def test_a_cosine_for_each_label(example: Callable[[str], Example]) -> None:
    names, printed, _ = example("cosine")
    u = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 4.0]])
    v = torch.tensor([[5.0, 0.0], [0.0, 1.0], [4.0, 3.0]])  # cosines 1, 0 and 24/25

    def loss(*labels: int) -> Tensor:
        return names["cosine_loss"](u, v, torch.tensor(labels))

    assert loss(0, 1, 2).item() == pytest.approx((0 + 0.5**2 + 0.96**2) / 3)
    assert loss(2, 0, 1).item() == pytest.approx((1 + 1 + 0.46**2) / 3)
    entailment, neutral, contradiction = (float(part.split()[-1]) for part in printed.splitlines()[1].split(","))
    assert entailment > neutral + 0.1 > contradiction + 0.2


def test_no_folder_of_it_is_taken_for_a_berts(
    example: Callable[[str], Example], tokenizer: WordPieceTokenizer, tmp_path: Path
) -> None:
    names, _, _ = example("alibi")
    with pytest.raises(UserError, match="AlibiConfig has no name in the folder format"):
        save_mlm(tmp_path / "alibi", names["model"], tokenizer)
    encoder = example("weighted")[0]["model"].encoder
    with pytest.raises(UserError, match=r"the pooling .weighted. has no name in the folder format"):
        save_classifier(tmp_path / "weighted", NLIClassifier(encoder), tokenizer, 24, False)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
