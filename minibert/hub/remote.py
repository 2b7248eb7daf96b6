"""A name on the Hugging Face Hub, as a folder of its files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from minibert.errors import UserError, hub_reason

# USER/MODEL, or one of the old models that have no user.
NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)

# Where our own scripts write: who has that name on the Hub must not answer for a folder that is not there yet.
OUTPUTS = "models"


def fetched(name: str, files: Sequence[str], what: str, advice: str) -> Path:
    """A folder with some of the files that the Hub has under a name.

    Args:
        name: of a model; one that looks like a path, or lies in a folder that is here, is not asked for.
        files: their names, or patterns of them.
        what: is looked for.
        advice: what to do if there is none.
    Raises:
        UserError: the name is a path's, or the Hub has nothing of that name, or can't be reached.
    """
    parent = Path(name).parent
    if not NAME.fullmatch(name) or parent.name == OUTPUTS or (parent.name and parent.is_dir()):
        raise UserError(f"no {what} {name}: {advice}")
    from huggingface_hub import snapshot_download  # a folder does not need it

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # no network, no such name, or no name at all: each is an error of another family
        raise UserError(
            f"no {what} {name}, and the Hugging Face Hub gave no model of that name ({hub_reason(error)}): {advice}"
        ) from error
