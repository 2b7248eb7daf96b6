"""Proves that pictures show the numbers they are given, by reading them back, and that a run can do without them."""

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minibert import plots
from minibert.plots import canvas

RECORDS: list[dict[str, Any]] = [
    {"kind": "start", "unigram_loss": 7.0, "unigram_accuracy": 0.04},
    {"kind": "train", "step": 1, "loss": 9.0, "accuracy": 0.01, "learning_rate": 1e-4},
    {"kind": "train", "step": 2, "loss": 8.0, "accuracy": 0.02, "learning_rate": 2e-4},
    {"kind": "validation", "step": 2, "held_out_loss": 8.5, "held_out_accuracy": 0.03},
    {"kind": "end", "step": 2},
]
TOKENS = ["[CLS]", "a", "cat", "[SEP]"]
MAPS = np.random.default_rng(0).dirichlet(np.ones(4), size=(2, 6, 4)).astype(np.float32)  # (L, H, T, T)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures, caught on their way to a file."""
    figures: list[Any] = []
    save = canvas.save

    def catch(figure: Any, path: Path) -> None:
        figures.append(figure)
        save(figure, path)
        assert path.read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(canvas, "save", catch)
    return figures


def names(labels: list[Any]) -> list[str]:
    return [label.get_text() for label in labels]


def test_training_curves(tmp_path: Path, drawn: list[Any]) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    plots.plot_training(tmp_path)
    plots.plot_training(tmp_path, tmp_path / "other.png")
    assert (tmp_path / "training.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    loss, accuracy, rate = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    assert lines["training"] == [[1, 9], [2, 8]]
    assert lines["held out loss"] == [[2, 8.5]]
    assert lines["unigram guesser"] == [[0, 7], [1, 7]]  # a horizontal line, in shares of the width
    assert [line.get_label() for line in accuracy.lines] == ["training", "held out accuracy", "unigram guesser"]
    assert rate.lines[0].get_ydata().tolist() == [1e-4, 2e-4]


def test_of_two_losses_the_one_that_validation_has_is_drawn(tmp_path: Path, drawn: list[Any]) -> None:
    records = [record | ({"cross_entropy": 1 / record["step"]} if "loss" in record else {}) for record in RECORDS]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    plots.plot_training(tmp_path)
    assert drawn[0].axes[0].lines[0].get_xydata().tolist() == [[1, 1], [2, 0.5]]


def test_confusion_matrix(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_confusion([[8, 1, 1], [0, 5, 5], [0, 0, 0]], tmp_path / "sub" / "matrix.png")
    (axes,) = drawn[0].axes
    assert names(axes.texts)[:6] == ["8\n80%", "1\n10%", "1\n10%", "0\n0%", "5\n50%", "5\n50%"]
    assert names(axes.get_yticklabels()) == ["entailment", "neutral", "contradiction"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_reliability(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_reliability(np.array([0, 4, 4, 2]), np.array([0, 0.25, 0.5, 1]), 0.1204, tmp_path / "reliability.png")
    right, many = drawn[0].axes
    assert [bar.get_height() for bar in right.patches] == [0, 0.25, 0.5, 1]
    assert [bar.get_height() for bar in many.patches] == [0, 4, 4, 2]
    for axes in (right, many):
        assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(i / 4, 1 / 4) for i in range(4)]
    assert right.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]
    assert right.get_title() == "calibration error 0.120"


def test_attention_of_all_heads_is_a_row_for_each_layer(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_attention(TOKENS, MAPS, tmp_path / "attention.png")
    *panels, bar = drawn[0].axes
    assert [panel.get_title() for panel in panels] == [f"layer {i}, head {j}" for i in (1, 2) for j in range(1, 7)]
    for panel, expected in zip(panels, MAPS.reshape(12, 4, 4), strict=True):
        (image,) = panel.images
        np.testing.assert_array_equal(image.get_array(), expected)  # row 0 at the top, as imshow has it
        assert image.get_clim() == (0, MAPS.max())
        place = panel.get_subplotspec()
        assert f"layer {place.rowspan.start + 1}, head {place.colspan.start + 1}" == panel.get_title()
    assert names(panels[0].get_yticklabels()) == names(panels[-1].get_xticklabels()) == TOKENS
    assert bar.get_ylim() == (0, MAPS.max())


def test_attention_of_one_layer_and_of_one_head(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_attention(TOKENS, MAPS, tmp_path / "attention.png", layers=[1])
    panels = drawn[0].axes[:-1]
    np.testing.assert_array_equal([panel.images[0].get_array() for panel in panels], MAPS[1])
    assert {panel.get_subplotspec().get_gridspec().get_geometry() for panel in panels} == {(2, 3)}
    panel, _ = plots.draw_attention(TOKENS, MAPS, layers=[0], heads=[5]).axes
    np.testing.assert_array_equal(panel.images[0].get_array(), MAPS[0, 5])
    assert panel.get_title() == "layer 1, head 6"


def test_a_long_text_does_not_grow_beyond_what_can_be_drawn() -> None:
    figure = plots.draw_attention(["token"] * 128, np.zeros((2, 12, 128, 128), dtype=np.float32))
    assert max(figure.get_size_inches()) <= 40


def test_embeddings_are_the_principal_components_by_topic(tmp_path: Path, drawn: list[Any]) -> None:
    """Points on an ellipse in 5 dimensions, turned: the picture has the ellipse back, but for its axes' signs."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    flat = np.stack([5 * np.cos(angles), 2 * np.sin(angles)], axis=1)  # (40, 2)
    turned = flat @ np.linalg.qr(np.random.default_rng(0).normal(size=(5, 2)))[0].T + 3
    topics = ["even", "odd"] * 20
    for _ in range(2):
        plots.plot_embeddings(turned.astype(np.float32), topics, tmp_path / "embeddings.png")
    first, second = ([np.array(dots.get_offsets()) for dots in figure.axes[0].collections] for figure in drawn)
    for topic, dots, again in zip((0, 1), first, second, strict=True):
        np.testing.assert_array_equal(dots, again)
        np.testing.assert_allclose(abs(dots), abs(flat[topic::2]), atol=1e-5)
    axes = drawn[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("86% of the variance", "14% of the variance")  # 25 and 4 of 29
    assert names(drawn[0].legends[0].get_texts()) == ["even", "odd"]
    even, odd = axes.collections
    assert even.get_facecolor().tolist() != odd.get_facecolor().tolist()
    assert even.get_paths()[0].vertices.shape != odd.get_paths()[0].vertices.shape


def test_topics_differ_in_colour_or_shape() -> None:
    looks = {(i % len(canvas.COLOURS), i % len(canvas.SHAPES)) for i in range(50)}
    assert len(looks) == 50
    assert len(set(canvas.COLOURS)) == len(canvas.COLOURS)


def test_without_matplotlib_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError
        return real(name, *rest)

    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    monkeypatch.setattr(builtins, "__import__", without)
    plots.plot_training(tmp_path)
    plots.plot_confusion([[1, 0, 0]] * 3, tmp_path / "picture.png")
    plots.plot_reliability(np.array([1]), np.array([1.0]), 0.5, tmp_path / "picture.png")
    plots.plot_attention(TOKENS, MAPS, tmp_path / "picture.png")
    plots.plot_embeddings(np.eye(3, dtype=np.float32), ["a", "b", "c"], tmp_path / "picture.png")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all('-e ".[plots]"' in line for line in lines)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]
