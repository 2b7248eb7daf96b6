"""Proves that pictures show the numbers and names they are given, by reading them back, and what the model says.

Names are drawn letter for letter, whatever is in them; and a run can do without pictures, but not a command for one.
"""

import builtins
import json
import os
import shlex
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager

import evaluate
import minibert
from minibert import plots
from minibert.bert import Bert
from minibert.cli import run
from minibert.config import ModelConfig
from minibert.errors import UserError, install
from minibert.hub import save_classifier
from minibert.plots import main
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer

RECORDS: list[dict[str, Any]] = [
    {"kind": "start", "unigram_loss": 7.0, "unigram_accuracy": 0.04},
    {"kind": "train", "step": 1, "loss": 9.0, "accuracy": 0.01, "learning_rate": 1e-4},
    {"kind": "train", "step": 2, "loss": 8.0, "accuracy": 0.02, "learning_rate": 2e-4},
    {"kind": "validation", "step": 2, "held_out_loss": 8.5, "held_out_accuracy": 0.03},
    {"kind": "end", "step": 2},
]
TOKENS = ["[CLS]", "a", "cat", "[SEP]"]
MAPS = np.random.default_rng(0).dirichlet(np.ones(4), size=(2, 6, 4)).astype(np.float32)  # (L, H, T, T)
SENTENCES = ["the cat sat on the mat", "the dog sat on the log", "cats sleep", "dog"]
PAIRS = [(premise, hypothesis, i % 3) for i, premise in enumerate(SENTENCES) for hypothesis in SENTENCES]

# Each would be mathematics to matplotlib, or is a mistake in it, or looks like one of its own marks.
AS_THEY_ARE = [
    "$x^2_1$", "$5", "5 $ and 7 $", r"\$", r"\\$a$", r"$\alpha", r"$\frac{1}{$", r"\n", "a_b^c", "{}", "{a", "%s",
    "_x", "__", "$$", "$", "\\", "##ß", "<b>&amp;", "naïve “quotes”", "Ελλάδα", "Москва",
]  # fmt: skip
# What no font of matplotlib's own has, or can't be seen: escapes as Python writes them.
ESCAPED = {
    "中文": r"\u4e2d\u6587", "🙂!": r"\U0001f642!", "a\x1b[31mb": r"a\x1b[31mb", "a\u202eb": r"a\u202eb",
    "tab\tnul\0": r"tab\tnul\x00", "x\u2028y\x85": r"x\u2028y\x85", "\ud800": r"\ud800", "한 $": r"\ud55c $",
    "a\u00a0b\u3000c": "a b c", "\u200b": r"\u200b", "\ufeffa": r"\ufeffa",
}  # fmt: skip
NAMES = dict(zip(AS_THEY_ARE, AS_THEY_ARE, strict=True)) | ESCAPED


@pytest.fixture(autouse=True)
def _own_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has besides, pictures have matplotlib's own."""
    monkeypatch.setattr(plots, "FONTS", ())
    plots.fonts.cache_clear()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures, caught on their way to a file, which is a PNG."""
    figures: list[Any] = []
    save = plots.save

    def catch(figure: Any, path: Path) -> None:
        figures.append(figure)
        save(figure, path)
        assert path.read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(plots, "save", catch)
    return figures


@pytest.fixture
def here(config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a text and pairs, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    save_classifier(tmp_path / "model", NLIClassifier(SentenceEncoder(Bert(config))), tokenizer, 10, False)
    (tmp_path / "notes.txt").write_text("the cat")
    rows = [{"premise": premise, "hypothesis": hypothesis, "label": label} for premise, hypothesis, label in PAIRS]
    for name, lines in (("test", rows), ("metrics", RECORDS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def fails(call: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What is said before, and what is wrong, in one line that is safe to be shown."""
    with pytest.raises(SystemExit) as leave:
        run(call)
    out, err = capsys.readouterr()
    assert (leave.value.code, len(err.splitlines())) == (2, 1)
    assert err.startswith("error: ")
    assert "\x1b" not in err
    return out, err


def names(labels: list[Any]) -> list[str]:
    return [label.get_text() for label in labels]


def seen(text: Any) -> str:
    """What matplotlib draws of a text, if it is no mathematics to it."""
    shown, mathematics = text._preprocess_math(text.get_text())
    assert not mathematics
    return str(shown)


# From numbers to figures.


def test_training_curves(here: Path, drawn: list[Any]) -> None:
    plots.plot_training(here)
    loss, accuracy, rate = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    assert lines["training"] == [[1, 9], [2, 8]]
    assert lines["held out loss"] == [[2, 8.5]]
    assert lines["unigram guesser"] == [[0, 7], [1, 7]]  # a horizontal line, in shares of the width
    assert [line.get_label() for line in accuracy.lines] == ["training", "held out accuracy", "unigram guesser"]
    assert [line.get_ydata()[-1] for line in accuracy.lines] == [0.02, 0.03, 0.04]
    assert rate.lines[0].get_ydata().tolist() == [1e-4, 2e-4]
    assert [axes.get_title() for axes in drawn[0].axes] == ["loss", "accuracy", "learning rate"]


def test_a_picture_of_one_step_is_not_empty() -> None:
    """A line of one point has no length: the point itself is drawn. Of many, none is."""
    many = [*RECORDS[:1], *(RECORDS[1] | {"step": i} for i in range(99))]
    for records, marked in ((RECORDS[:2], True), (many, False)):
        for axes in plots.draw_training(records).axes:
            assert (axes.lines[0].get_marker() not in ("", "None")) is marked
            assert axes.lines[0].get_markersize() > 0


def test_a_picture_of_a_run_names_the_run_and_its_data(here: Path, drawn: list[Any]) -> None:
    plots.plot_training(here)
    (here / "options.json").write_text('{"data": "my $x^2$ texts/"}')
    plots.plot_training(here)
    assert [seen(figure._suptitle) for figure in drawn] == [here.name, f"{here.name}\ntrained on my $x^2$ texts/"]


def test_the_majority_is_a_guesser_too() -> None:
    _, accuracy, _ = plots.draw_training([{"kind": "start", "majority_accuracy": 0.4, "steps": 3}, *RECORDS[1:]]).axes
    assert {line.get_label(): line.get_ydata()[0] for line in accuracy.lines}["majority guesser"] == 0.4


def test_of_two_losses_the_one_that_validation_has_is_drawn() -> None:
    records = [record | ({"cross_entropy": 1 / record["step"]} if "loss" in record else {}) for record in RECORDS]
    assert plots.draw_training(records).axes[0].lines[0].get_xydata().tolist() == [[1, 1], [2, 0.5]]


def answers(matrix: list[list[int]], probability: float = 0.8) -> tuple[Any, Any]:
    """True labels and probabilities of pairs that have a confusion matrix, all answered with one probability."""
    labels, predicted = np.argwhere(np.array(matrix) > -1).repeat(np.ravel(matrix), axis=0).T
    sure = np.eye(len(matrix))[predicted]
    return labels, probability * sure + (1 - probability) / (len(matrix) - 1) * (1 - sure)


def test_confusion_matrix(tmp_path: Path, drawn: list[Any]) -> None:
    given = answers([[8, 1, 1], [0, 1500, 1500], [0, 0, 0]])
    plots.plot_answers(str(tmp_path / "sub" / "matrix.png"), tmp_path, *given, ["model"])
    axes = drawn[0].axes[0]
    cells = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}  # by (column, row)
    rows = ["8\n80%", "1\n10%", "1\n10%"], ["0\n0%", "1,500\n50%", "1,500\n50%"], ["0\n0%"] * 3
    for row, expected in enumerate(rows):
        assert [cells[column, row][0] for column in range(3)] == expected
    assert [place for place, (_, colour) in cells.items() if colour == "white"] == [(0, 0)]  # the one dark cell
    shares = np.array([[0.8, 0.1, 0.1], [0, 0.5, 0.5], [0, 0, 0]])
    np.testing.assert_allclose(axes.images[0].get_array(), shares)
    assert axes.images[0].get_clim() == (0, 1)
    assert names(axes.get_yticklabels()) == names(axes.get_xticklabels()) == ["entailment", "neutral", "contradiction"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_a_confusion_matrix_of_many_labels_fits_a_page() -> None:
    matrix = np.ones((77, 77), dtype=int)
    figure = plots.draw_answers(*answers(matrix.tolist()), names=[f"label {i}" for i in range(77)])
    assert max(figure.get_size_inches()) <= 40
    size, cell = figure.axes[0].texts[0].get_fontsize(), 35.4 / 77 * 72  # points
    assert size <= cell / 8  # as with a few labels, where ten points stand in 1.3 inches


@pytest.mark.parametrize("labels", [["different", "$dup$licate"], ["a", "b", "c", "d", "_e"]])
def test_a_confusion_matrix_of_any_labels(labels: list[str]) -> None:
    matrix = np.arange(len(labels) ** 2).reshape(len(labels), -1)
    axes = plots.draw_answers(*answers(matrix.tolist()), names=labels).axes[0]
    assert [seen(label) for label in axes.get_yticklabels()] == labels
    assert [text.get_text().split()[0] for text in axes.texts] == [str(count) for count in matrix.flat]


def test_reliability() -> None:
    """Ten answers: four of 0.35, one of them right; four of 0.62, two right; two of 0.75, both right."""
    confidence = np.array([0.35] * 4 + [0.62] * 4 + [0.75] * 2)
    labels = np.array([0, 1, 1, 2, 0, 0, 1, 2, 0, 0])
    probabilities = np.stack([confidence, (1 - confidence) / 2, (1 - confidence) / 2], axis=1)
    _, right, many = plots.draw_answers(labels, probabilities).axes
    diagonal, points = (line.get_xydata() for line in right.lines)
    assert diagonal.tolist() == [[0, 0], [1, 1]]
    np.testing.assert_allclose(points, [[0.35, 0.25], [0.62, 0.5], [0.75, 1]])  # none for an empty bin
    bars = {round(bar.get_x() * 15): bar.get_height() for bar in many.patches if bar.get_height()}
    assert bars == {5: 4, 9: 4, 11: 2}  # of 15: 0.35 is in [5/15, 6/15]
    assert len(many.patches) == 15
    assert right.get_title() == "calibration error 0.138"  # (4 x 0.1 + 4 x 0.12 + 2 x 0.25) / 10
    assert right.get_ylabel() == "share of right answers"
    assert many.get_xlabel() == "probability of the answer given"


@pytest.mark.parametrize("label", [0, 1])
def test_reliability_where_all_is_right_or_nothing(label: int) -> None:
    _, right, _ = plots.draw_answers(np.array([label] * 3), np.array([[0.9, 0.1]] * 3), names=["a", "b"]).axes
    np.testing.assert_allclose(right.lines[1].get_xydata(), [[0.9, 1 - label]])


def test_attention_of_all_heads_is_a_row_for_each_layer() -> None:
    *panels, bar = plots.draw_attention(TOKENS, MAPS).axes
    assert [panel.get_title() for panel in panels] == [f"layer {i}, head {j}" for i in (1, 2) for j in range(1, 7)]
    for panel, expected in zip(panels, MAPS.reshape(12, 4, 4), strict=True):
        (image,) = panel.images
        np.testing.assert_array_equal(image.get_array(), expected)  # row 0 at the top, as imshow has it
        assert image.get_clim() == (0, MAPS.max())
        place = panel.get_subplotspec()
        assert f"layer {place.rowspan.start + 1}, head {place.colspan.start + 1}" == panel.get_title()
    assert names(panels[0].get_yticklabels()) == names(panels[-1].get_xticklabels()) == TOKENS
    assert bar.get_ylim() == (0, MAPS.max())


def test_attention_of_one_layer_and_of_one_head() -> None:
    panels = plots.draw_attention(TOKENS, MAPS, layers=[1]).axes[:-1]
    np.testing.assert_array_equal([panel.images[0].get_array() for panel in panels], MAPS[1])
    assert {panel.get_subplotspec().get_gridspec().get_geometry() for panel in panels} == {(2, 3)}
    panel, _ = plots.draw_attention(TOKENS, MAPS, layers=[0], heads=[5]).axes
    np.testing.assert_array_equal(panel.images[0].get_array(), MAPS[0, 5])
    assert panel.get_title() == "layer 1, head 6"


def test_a_long_text_does_not_grow_beyond_what_can_be_drawn() -> None:
    figure = plots.draw_attention(["token"] * 128, np.zeros((2, 12, 128, 128), dtype=np.float32))
    assert max(figure.get_size_inches()) <= 40


# Anybody's text in a picture.


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
@pytest.mark.parametrize("first", range(0, len(NAMES), 11))
def test_names_are_drawn_letter_for_letter(first: int, ending: str, tmp_path: Path) -> None:
    """As tokens on both axes, and as labels; a warning (of a glyph that there is not, say) would be an error."""
    texts, shown = list(NAMES)[first : first + 11], list(NAMES.values())[first : first + 11]
    attention = plots.draw_attention(texts, np.eye(len(texts), dtype=np.float32)[None, None])
    matrix = plots.draw_answers(np.arange(len(texts)), np.eye(len(texts)), names=texts)
    for number, figure in enumerate((attention, matrix)):
        plots.save(figure, tmp_path / f"{number}.{ending}")
        assert [seen(label) for label in figure.axes[0].get_xticklabels()] == shown
        assert [seen(label) for label in figure.axes[0].get_yticklabels()] == shown


def test_a_metrics_file_may_have_any_names(tmp_path: Path) -> None:
    records = [*RECORDS[:3], {"kind": "validation", "step": 2, "$x_loss": 8.5, "\x1b[1m中_accuracy": 0.1}]
    figure = plots.draw_training(records)
    plots.save(figure, tmp_path / "training.png")
    assert seen(figure.axes[0].get_legend().get_texts()[1]) == "$x loss"
    assert seen(figure.axes[1].get_legend().get_texts()[1]) == r"\x1b[1m\u4e2d accuracy"


@pytest.mark.parametrize("text", ["an exceedingly long label " * 40, "中" * 300, "$" * 200, "\x1b" * 500])
def test_a_long_name_is_cut_and_leaves_room_for_the_picture(text: str, tmp_path: Path) -> None:
    figure = plots.draw_answers(np.arange(4), np.eye(4), names=[text, text + "b", text + "c", "d"])
    plots.save(figure, tmp_path / "picture.png")
    shown = [seen(label) for label in figure.axes[0].get_xticklabels()]
    assert all(len(label) == 32 and "…" in label for label in shown[:3])
    assert len(set(shown)) == 4  # their ends differ
    assert [len(plots.legible("d" * length)) for length in (31, 32, 33)] == [31, 32, 32]
    assert figure.axes[0].get_position().width > 0.3


def test_a_font_that_has_a_character_draws_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the fonts that matplotlib brings, one alone has a script X."""
    letter = "\U0001d4b3"
    assert plots.legible(letter) == r"\U0001d4b3"
    monkeypatch.setattr(plots, "FONTS", ("no such font", "STIXGeneral"))
    plots.fonts.cache_clear()
    assert plots.legible(f"{letter} 中") == rf"{letter} \u4e2d"
    plots.save(plots.draw_attention([letter] * 4, MAPS), tmp_path / "picture.png")


def test_the_machines_matplotlibrc_decides_nothing_but_fonts(tmp_path: Path) -> None:
    """LaTeX is not on this machine, or would take names for commands; origin: lower turns pictures over."""
    plain = plots.draw_attention(TOKENS, MAPS)
    plots.save(plain, tmp_path / "plain.png")
    settings: Any = {
        "text.usetex": True, "text.parse_math": False, "savefig.bbox": "tight", "axes.grid": True,
        "image.origin": "lower", "axes.formatter.use_mathtext": True, "font.sans-serif": ["STIXGeneral"],
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        figure = plots.draw_attention(TOKENS, MAPS)
        plots.save(figure, tmp_path / "other.png")
        assert matplotlib.rcParams["text.usetex"]  # as it was
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    plots.fonts.cache_clear()
    with matplotlib.rc_context(settings):
        assert plots.fonts()[0] == ["STIXGeneral", "DejaVu Sans"]


def test_a_font_that_cannot_be_opened_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = font_manager.get_font

    def get_font(path: str) -> Any:
        if "STIX" in path:
            raise RuntimeError("bitmaps only")
        return real(path)

    monkeypatch.setattr(font_manager, "get_font", get_font)
    monkeypatch.setattr(plots, "FONTS", ("STIXGeneral",))
    assert "STIXGeneral" not in plots.fonts()[0]


# Each command draws what the model itself says.


def catching(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[Any, ...]]:
    """What a drawing function is given, in order; it draws all the same."""
    given: list[tuple[Any, ...]] = []
    draw: Callable[..., Any] = getattr(plots, name)

    def catch(*arguments: Any, **named: Any) -> Any:
        given.append((*arguments, *named.values()))
        return draw(*arguments, **named)

    monkeypatch.setattr(plots, name, catch)
    return given


def test_attention(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = catching(monkeypatch, "draw_attention")
    main(["attention", "--model", "model", "--text", "the cat sat"])
    main(["attention", "--model", "model", "--text", "the cat sat", "--layer", "2", "--output", "second.svg"])
    assert b"<svg" in (here / "second.svg").read_bytes()
    assert (here / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == "drawn       attention.png\ndrawn       second.svg\n"
    (_, _, every, title), (tokens, maps, layers, _) = given
    expected = minibert.from_pretrained("model").attention("the cat sat")
    assert tokens == expected[0]
    np.testing.assert_array_equal(maps, expected[1])
    assert (list(every), layers, title) == ([], [1], ["model"])


def test_what_the_picture_lacks_of_a_text_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["attention", "--model", "model", "--text", "the cat 🙂 " * 5, "--output", "a\x1b[31m.png"])
    assert capsys.readouterr().out.splitlines() == [
        "--text has more than the 10 tokens that are read; the rest is left out.",
        "[UNK] in --text stands for something that the vocabulary can't spell.",
        r"drawn       a\x1b[31m.png",
    ]


def test_evaluation_draws_what_the_classifier_answers(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = catching(monkeypatch, "draw_answers")
    arguments = ["--model", "model", "--data", "test.jsonl", "--max-pairs", "0", "--device", "cpu"]
    evaluate.main(arguments)
    evaluate.main([*arguments, "--figure", "figure.svg"])
    premises, hypotheses, labels = map(list, zip(*PAIRS, strict=True))
    expected = minibert.from_pretrained("model").predict(premises, hypotheses).probabilities
    for true, probabilities, title, names in given:
        assert names == ("entailment", "neutral", "contradiction")
        for label in range(3):  # in any order
            its, own = np.sort(probabilities[true == label], axis=0), np.sort(expected[np.equal(labels, label)], axis=0)
            np.testing.assert_allclose(its, own, rtol=1e-5)
        assert title == ["model", "test split of test.jsonl, 16 pairs"]
    assert (here / "model" / "confusion_matrix.png").is_file()
    assert b"<svg" in (here / "figure.svg").read_bytes()


@pytest.mark.parametrize("figure", ["figure.gif", "model"])
def test_a_figure_that_cannot_be_is_refused_before_any_work(here: Path, figure: str) -> None:
    with pytest.raises(UserError, match=r"a picture ends with|is a folder"):
        evaluate.main(["--model", "nowhere", "--figure", figure])


def test_training(here: Path) -> None:
    plots.plot_training(here)
    main(["training", "--run", ".", "--output", "pictures/run.png"])
    assert (here / "training.png").read_bytes() == (here / "pictures" / "run.png").read_bytes()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("training --run nowhere", "no nowhere/metrics.jsonl"),
        ("training --run model", "no model/metrics.jsonl"),
        ("training --run damaged", "damaged/metrics.jsonl is damaged"),
        ("training --run number", "number/metrics.jsonl is damaged"),
        ("training --run word", "word/metrics.jsonl is damaged"),
        ("training --run latin", "latin/metrics.jsonl is damaged"),
        ("attention --model model --text ' '", "--text is empty"),
        ("attention --model model --text '\u200b'", "--text is empty"),
        ("attention --model model --layer 3", "--layer 3: model has 2"),
        ("attention --model model --layer -1", "--layer -1: it has to be 0 or more"),
        ("attention --model notes.txt", "notes.txt"),
        ("attention --model model --output a.jpg", "a.jpg: a picture ends with .png, .svg or .pdf"),
        ("attention --model model --output model", "model is a folder"),
        ("attention --model model --output ''", "--output is empty"),
        ("attention --model model --output '\x1b[31m.gif'", r"\x1b[31m.gif"),
        ("training --run . --output run.gif", "run.gif: a picture ends with"),
    ],
)
def test_mistakes_are_one_line(command: str, words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    word = b'{"kind": "train", "step": "one", "loss": 1}\n'
    for name, content in {"damaged": word[:12], "number": b"5\n", "word": word, "latin": b"\xe9\n"}.items():
        (here / name).mkdir()
        (here / name / "metrics.jsonl").write_bytes(content)
    assert words in fails(lambda: main(shlex.split(command)), capsys)[1]
    assert {file.suffix for file in here.iterdir()} == {"", ".txt", ".jsonl"}


@pytest.mark.parametrize("arguments", [[], ["portrait"], ["attention", "--layers", "1"], ["training", "stray"]])
def test_pictures_and_flags_that_do_not_exist(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fails(lambda: main(arguments), capsys)


@pytest.mark.parametrize("broken", [False, True])
def test_without_matplotlib(
    here: Path, broken: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What asks for a picture fails before any work is done; what would draw one by the way says that there is none."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **others: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError("numpy.core.multiarray failed to import") if broken else ModuleNotFoundError(name)
        return real(name, *rest, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    advice = f"a picture needs matplotlib: {install('plots')}"
    plots.plot_training(here)
    plots.plot_answers("", here, *answers([[1, 0, 0]] * 3))
    assert capsys.readouterr().out.splitlines() == [f"(no picture: {advice})"] * 2
    given = ["--model", "model", "--data", "test.jsonl", "--max-pairs", "0", "--device", "cpu"]
    evaluate.main(given)
    assert capsys.readouterr().out.splitlines()[-1] == f"(no picture: {advice})"
    for call, arguments in (
        (main, ["training", "--run", "nowhere"]),
        (main, ["attention", "--model", "nowhere"]),
        (evaluate.main, [*given, "--figure", "picture.png"]),
    ):
        assert fails(partial(call, arguments), capsys) == ("", f"error: {advice}\n")
    assert not list(here.rglob("*.png"))


@pytest.mark.parametrize("backend", ["", "module://matplotlib_inline.backend_inline", "junk"])
def test_a_program_that_a_notebook_starts(backend: str, here: Path) -> None:
    """It is told to draw into the notebook; the picture goes to its file, by way of pyplot, too."""
    where = {"PYTHONPATH": str(Path(minibert.__file__).parent.parent), "MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", BY_NOTEBOOK],
        cwd=here, env=os.environ | where, capture_output=True, text=True, check=True,
    )  # fmt: skip
    by_pyplot = "drawn       a.png\n" if backend else ""
    assert (done.stdout, done.stderr) == (f"{by_pyplot}drawn       training.png\n{backend}\n", "")


BY_NOTEBOOK = """
import os
from pathlib import Path
import numpy as np
from minibert import plots
if os.environ["MPLBACKEND"]:
    plots.plot_answers("a.png", Path(), np.array([0, 1]), np.eye(3)[:2])
plots.plot_training(Path())
print(os.environ["MPLBACKEND"])
"""


def test_every_character_is_drawn_or_escaped(tmp_path: Path) -> None:
    """No character crashes a picture or makes matplotlib warn: the alphabets, and one in a hundred of the others."""
    characters = [chr(code) for code in (*range(0x3000), *range(0x3000, 0x11_0000, 101))]
    shown = [plots.legible(character) for character in characters]
    for character, text in zip(characters, shown, strict=True):
        if text not in (character, r"\$", " "):
            assert text == ascii(character)[1:-1]
        elif text == " ":
            assert unicodedata.category(character) == "Zs"
    kept = "".join(text for character, text in zip(characters, shown, strict=True) if text == character)
    assert set(map(chr, range(0x20, 0x7F))) - {"$"} <= set(kept)
    figure = plots.new_figure(4, 4)
    for line in range(0, len(kept), 500):
        figure.text(0, 0, kept[line : line + 500])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        plots.save(figure, tmp_path / "all.png")
    assert [str(warning.message) for warning in warned] == []
