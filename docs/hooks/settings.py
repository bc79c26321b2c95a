"""Settings on the site: what a field of a settings class says of itself to its flag's help is its description, too.

The help stands in the field's metadata, `field(metadata={"help": "..."})` or in short `_flag(default, "...")`, where mkdocstrings does not
look. This is an extension of griffe, which reads the sources for it.
"""

import ast
from typing import Any

import griffe


class FieldHelp(griffe.Extension):
    """Gives each such field the docstring, and the default, that it would have as a plain one."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        told = help_of(node.value) if isinstance(node, ast.AnnAssign) else None
        if told is None or not isinstance(attr.value, griffe.ExprCall):
            return
        attr.docstring = griffe.Docstring(told, parent=attr, lineno=node.lineno)
        words = {word.name: word.value for word in attr.value.arguments if isinstance(word, griffe.ExprKeyword)}
        attr.value = words.get("default") if words else attr.value.arguments[0]


def help_of(value: ast.expr | None) -> str | None:
    """The help that a field's value brings; None for any other value."""
    match value:
        case ast.Call(func=ast.Name(id="_flag"), args=[_, told]):
            return as_text(told)
        case ast.Call(func=ast.Name(id="field"), keywords=words):
            metadata = next((word.value for word in words if word.arg == "metadata"), None)
            if isinstance(metadata, ast.Dict):
                pairs = zip(metadata.keys, metadata.values, strict=True)
                return next((as_text(told) for key, told in pairs if isinstance(key, ast.Constant) and key.value == "help"), None)
    return None


def as_text(told: ast.expr) -> str:
    """A string, or an f-string with its values as code."""
    if not isinstance(told, ast.JoinedStr):
        return ast.literal_eval(told)
    code = (f"`{ast.unparse(part.value)}`" if isinstance(part, ast.FormattedValue) else ast.literal_eval(part) for part in told.values)
    return "".join(code)
