"""Proves what a run says: plain lines without a terminal, a bar with one."""

import re
import sys

import pytest

from minibert.progress import Progress, duration, heading

VALUES = {"step": 1, "epoch": 1, "loss": 2.5, "learning_rate": 1e-4, "tokens_per_second": 1234.0}


def test_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(10)
    progress.advance()
    progress.train(VALUES)
    progress.validation({"step": 10, "epoch": 1, "held_out_loss": 3.25})
    out, err = capsys.readouterr()
    assert "epoch 1  step 1/10  loss 2.5000  lr 1.00e-04  1,234 tokens/s" in out
    assert "epoch 1, validated after 10 steps  |  held out loss 3.2500" in out
    assert err == ""


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress(10, step=4, loss=lambda: 3.75)
    progress.advance()
    progress.bar.refresh()
    assert re.search(r"\rtraining  50%.* 5/10, loss 3.7500 \[", capsys.readouterr().err)  # from the first step on
    progress.train(VALUES)
    progress.doing("validating")
    assert re.search(r"\rvalidating  50%.* 5/10, loss 2.5000 \[", capsys.readouterr().err)
    progress.validation({"step": 10, "epoch": 1, "held_out_loss": 3.25})
    assert "epoch 1, validated after 10 steps  |  held out loss 3.2500\n" in capsys.readouterr().out
    progress.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.rsplit("\r", 2)[-2].isspace()  # nothing of it stays


def test_what_is_painted_is_the_result(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    Progress(10).validation({"step": 10, "epoch": 1, "held_out_loss": 3.25})
    assert capsys.readouterr().out == "epoch 1, validated after 10 steps  |  \x1b[1mheld out loss 3.2500\x1b[0m\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.6, "1m 00s"), (185, "3m 05s"), (3599.7, "1h 00m"), (7320, "2h 02m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_strangers_words_in_the_summary_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    heading("encoder", "folder; not used of it: \x1b[2J\x07weight, \u202eevil")
    said = capsys.readouterr().out
    assert said == "encoder     folder; not used of it: \\x1b[2J\\x07weight, \\u202eevil\n"
