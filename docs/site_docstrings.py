"""What the reference has to know of this package's docstrings: an extension of griffe, which mkdocs.yml names.

A section follows upon the last one without a blank line, and sources are a section of their own. A script's option has
its help where others have a docstring, and a field of the model's shape the comment behind it.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from typing import Any

import griffe

OPTIONS = ("option", "count", "limit", "rate", "sequence_length", "seed")  # of minibert.options
SECTION = re.compile(r"\n+(?=(Args|Returns|Raises|Attributes|Examples?|Source):)")


class House(griffe.Extension):
    """Docstrings as griffe reads them."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Part the sections of a docstring."""
        if obj.docstring:
            text = SECTION.sub("\n\n", obj.docstring.value)
            text = re.sub(r"^Example:", "Examples:", text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"^Source:", "**Source:**", text, flags=re.MULTILINE)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Give a script's option its default and its help; let a comment behind a field speak for it."""
        call, owner = attr.value, attr.parent
        if isinstance(call, griffe.ExprCall) and str(call.function) in OPTIONS and owner is not None:
            kind = getattr(importlib.import_module(owner.module.path), owner.name)
            field = next(field for field in dataclasses.fields(kind) if field.name == attr.name)
            attr.value, attr.docstring = repr(field.default), griffe.Docstring(field.metadata["help"], parent=attr)
        elif not attr.docstring and attr.lines and "  # " in attr.lines[-1]:
            attr.docstring = griffe.Docstring(attr.lines[-1].split("  # ", 1)[1], parent=attr)
