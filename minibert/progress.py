"""What a run says while it runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from tqdm import tqdm

from minibert.errors import RESULT, WARNING, painted, printable

BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix} [{remaining} left]"


class Progress:
    """Shows a run's metrics, continuing from `step`. A bar asks for `loss`, the mean over the last steps, about once a
    second.
    """

    def __init__(self, total_steps: int, step: int = 0, loss: Callable[[], float] | None = None) -> None:
        self.total_steps = total_steps
        self.step = self.first_step = step
        self.loss = loss
        self.started, self.shown = time.monotonic(), 0.0
        self.bar = tqdm(
            desc="training", total=total_steps, initial=step, bar_format=BAR, dynamic_ncols=True, smoothing=0.05,
            leave=False, disable=None,  # on a terminal only
        )  # fmt: skip

    def advance(self) -> None:
        """Count a step."""
        self.step += 1
        if self.loss and not self.bar.disable and time.monotonic() > self.shown + 1:
            self._show(self.loss())
        self.bar.update()

    def train(self, metrics: Mapping[str, Any]) -> None:
        """Show the means over the last steps."""
        self._show(metrics["loss"])
        if self.bar.disable:
            place = f"epoch {metrics['epoch']}  step {self.step:,}/{self.total_steps:,}"
            shown = f"loss {metrics['loss']:.4f}  lr {metrics['learning_rate']:.2e}"
            rate = (time.monotonic() - self.started) / max(1, self.step - self.first_step)
            left = duration(rate * (self.total_steps - self.step))
            self.say(f"{place}  {shown}  {metrics['tokens_per_second']:,.0f} tokens/s  {left} left")

    def doing(self, what: str) -> None:
        """Have the bar say what the run does now."""
        self.bar.set_description_str(what)

    def validation(self, metrics: Mapping[str, Any]) -> None:
        """Show the metrics of an epoch's end."""
        shown = "  ".join(
            f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items() if isinstance(value, float)
        )
        place = f"epoch {metrics['epoch']}, validated after {metrics['step']:,} steps"
        self.say(f"{place}  |  {painted(shown, RESULT, sys.stdout)}")

    def say(self, line: str) -> None:
        """Print a line without tearing the bar."""
        self.bar.write(line)
        sys.stdout.flush()

    def close(self) -> None:
        """Leave the terminal tidy."""
        self.bar.close()

    def _show(self, loss: float) -> None:
        self.shown = time.monotonic()
        self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)


def heading(name: str, text: str) -> None:
    """Print a line of the summary that a run begins with."""
    print(f"{name:<11} {printable(text)}", flush=True)


def warning(text: str, stream: TextIO | None = None) -> str:
    """A line that warns, for a stream, which is standard output by default."""
    return f"{painted('warning:', WARNING, stream or sys.stdout)} {printable(text)}"


def duration(seconds: float) -> str:
    """Seconds as a person writes them: 42s, 3m 05s, 1h 12m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
