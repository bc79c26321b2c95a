"""Settings on the site: what a field of a settings class says of itself to its flag's help is its description, too.

The help stands in the field's metadata, `field(metadata={"help": "..."})`, where mkdocstrings does not look.
"""

import ast
from typing import Any

import griffe


class FieldHelp(griffe.Extension):
    """Gives each such field the docstring and the default that it would have as a plain one."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        if isinstance(node, ast.AnnAssign) and (told := help_of(node.value)) is not None:
            attr.docstring = griffe.Docstring(told, parent=attr, lineno=node.lineno)
            words = {word.name: word.value for word in attr.value.arguments if isinstance(word, griffe.ExprKeyword)}  # type: ignore[union-attr]
            attr.value = words.get("default")


def help_of(value: ast.expr | None) -> str | None:
    """The help in `field(metadata={"help": ...})`; None for any other value."""
    if not isinstance(value, ast.Call):
        return None
    metadata = next((word.value for word in value.keywords if word.arg == "metadata"), None)
    if not isinstance(metadata, ast.Dict):
        return None
    told = {key.value: text for key, text in zip(metadata.keys, metadata.values, strict=True) if isinstance(key, ast.Constant)}
    help_text = told.get("help")
    if isinstance(help_text, ast.JoinedStr):
        return "".join(f"`{ast.unparse(part.value)}`" if isinstance(part, ast.FormattedValue) else part.value for part in help_text.values)
    return help_text.value if isinstance(help_text, ast.Constant) else None
