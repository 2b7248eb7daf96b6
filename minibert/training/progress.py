"""What a run says while it runs: a bar on a terminal, plain lines elsewhere, and metrics.jsonl for good.

Each line of metrics.jsonl is an object with a `kind`: "start" (sizes and baselines), "train" (means over the steps
since the line before, never across two epochs), "validation" (at each epoch's end), "warning" and "end".
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm


class Progress:
    """Shows and records a run's figures.

    Args:
        metrics: the file that records are appended to.
        total_steps: of the whole run.
        step: how many of them were taken before (a resumed run).
    """

    def __init__(self, metrics: Path, total_steps: int, step: int = 0) -> None:
        self.metrics = metrics
        self.total_steps = total_steps
        self.step = self.first_step = step
        self.started = time.monotonic()
        self.bar: tqdm | None = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=total_steps, initial=step, unit="step", dynamic_ncols=True, smoothing=0.05)

    def record(self, kind: str, values: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **values}) + "\n")

    def advance(self) -> None:
        """One step has been taken."""
        self.step += 1
        if self.bar is not None:
            self.bar.update()

    def train(self, values: Mapping[str, Any]) -> None:
        """Show and record the means over the last steps."""
        self.record("train", values)
        figures = (
            f"loss {values['loss']:.4f}  lr {values['learning_rate']:.2e}  {values['tokens_per_second']:,.0f} tokens/s"
        )
        if self.bar is not None:
            self.bar.set_postfix_str(figures)
        else:
            self.say(
                f"epoch {values['epoch']}  step {self.step:,}/{self.total_steps:,}  {figures}  {self._left()} left"
            )

    def validation(self, values: Mapping[str, Any]) -> None:
        """Show and record the figures of an epoch's end."""
        self.record("validation", values)
        figures = "  ".join(
            f"{name.replace('_', ' ')} {value:.4f}" for name, value in values.items() if isinstance(value, float)
        )
        self.say(f"epoch {values['epoch']} finished after {values['step']:,} steps  |  {figures}")

    def warn(self, step: int, sentence: str) -> None:
        """Show and record that something has gone wrong; the run goes on."""
        self.record("warning", {"step": step, "text": sentence})
        self.say(f"warning: {sentence}")

    def say(self, line: str) -> None:
        """Print a line without tearing the bar."""
        if self.bar is not None:
            self.bar.write(line)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """Leave the terminal tidy."""
        if self.bar is not None:
            self.bar.close()

    def _left(self) -> str:
        rate = (time.monotonic() - self.started) / max(1, self.step - self.first_step)
        return duration(rate * (self.total_steps - self.step))


def heading(name: str, text: str) -> None:
    """Print a line of the summary that a run begins with."""
    print(f"{name:<11} {text}", flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person writes them: 42s, 3m 05s, 1h 12m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
