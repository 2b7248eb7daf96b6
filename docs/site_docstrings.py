"""What the reference has to know of this package's docstrings: an extension of griffe, which mkdocs.yml names.

A section follows upon the last one without a blank line, and sources are a section of their own. A script's option has
its help where others have a docstring, `option(default, help)`, and a field of the model's shape the comment behind it.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

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
        """Take a script's option apart; let a comment behind a field speak for it."""
        call = attr.value
        if isinstance(call, griffe.ExprCall) and str(call.function) == "option" and len(call.arguments) > 1:
            default, text, *_rest = call.arguments
            attr.value, attr.docstring = default, griffe.Docstring(ast.literal_eval(str(text)), parent=attr)
        elif not attr.docstring and attr.lines and "  # " in attr.lines[-1]:
            attr.docstring = griffe.Docstring(attr.lines[-1].split("  # ", 1)[1], parent=attr)
