"""Open a page to try a model on: compare two sentences, fill a [MASK].

Example:
    python -m minibert.demo --model models/sbert_nli_small --mlm models/bert_mlm_small
"""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minibert.cli import parse_options, run
from minibert.config import option
from minibert.errors import UserError, reason

HOST = "127.0.0.1"  # this machine, and no other


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Options of the page."""

    model: str = option("models/sbert_nli_small", "folder or zip written by train_nli.py")
    mlm: str = option("models/bert_mlm_small", "folder written by train_mlm.py, which fills masks")
    port: int = option(7860, "where on this machine the page is: http://127.0.0.1:PORT")

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65_535:
            raise UserError(f"--port {self.port}: it has to be from 1 to 65535")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, load the models, serve the page until Ctrl-C.

    Raises:
        UserError: gradio or matplotlib is not installed, the port is taken, or a model can't be read or lacks its head.
    """
    options = parse_options(DemoOptions, arguments, str(__doc__), "python -m minibert.demo")
    for needed in ("gradio", "matplotlib"):
        if importlib.util.find_spec(needed) is None:
            raise UserError(f'the page needs {needed}: pip install -e ".[demo]"')
    check_free(options.port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported: it would tell its makers
    os.environ["no_proxy"] = f"{os.environ.get('no_proxy', os.environ.get('NO_PROXY', ''))},{HOST}"
    from minibert.pretrained import from_pretrained, load_classifier

    model = load_classifier(options.model)
    filler = from_pretrained(options.mlm) if Path(options.mlm).exists() else None
    if filler and filler.masked_lm is None:
        raise UserError(f"{options.mlm} has no MLM head: write one with train_mlm.py")
    from minibert.demo.page import LAUNCH, build

    advice = f"There is no {options.mlm}. To make it: python train_mlm.py --output {options.mlm}"
    page = build(model, Path(options.model).name, filler, advice)
    page.launch(server_name=HOST, server_port=options.port, quiet=True, prevent_thread_lock=True, **LAUNCH)
    print(f"open http://{HOST}:{options.port} in a browser; Ctrl-C ends it", flush=True)
    page.block_thread()


def check_free(port: int) -> None:
    """Raises UserError if the port is taken, or may not be."""
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
        except OSError as error:
            raise UserError(f"port {port}: {reason(error)}; choose another with --port") from error


if __name__ == "__main__":
    run(main)
