"""Writes docs/commands.md, the tables of all commands and their options, from the commands themselves.

python -m docs.hooks.commands
"""

from pathlib import Path
from typing import Any

from typer.main import get_command

from imagen_diffusers.cli import app

PAGE = Path(__file__).resolve().parents[1] / "commands.md"
SHARED = "Options of several commands"
OPENING = """# Commands

What `imagen-diffusers --help` and the help of each command say, in one place; `make docs` writes this page anew. Former spellings of
options, and underscores in place of hyphens, are read as well. `python -m imagen_diffusers` is the same command, where none is on the path.
"""


def page() -> str:
    """The whole page."""
    commands: dict[str, Any] = dict(get_command(app).commands)  # type: ignore[attr-defined]
    rows = {name: [row(parameter) for parameter in command.params if not parameter.hidden] for name, command in commands.items()}
    takers: dict[str, list[str]] = {}
    for name, own in rows.items():
        for told in own:
            takers.setdefault(told, []).append(name)
    shared = {told: names for told, names in takers.items() if len(names) > 1}
    first = [f"| [`{name}`](#{name}) | {line(command.help)} |" for name, command in commands.items()]
    parts = [OPENING, table(["command", "what it does"], first)]
    for name, command in commands.items():
        parts += [f"## {name}\n", *body(name, command, [told for told in rows[name] if told not in shared], rows[name])]
    last = [f"{told} {', '.join(names)} |" for told, names in shared.items()]
    parts += [f"## {SHARED}\n", table(["option", "default", "meaning", "of"], last)]
    return "\n".join(parts)


def body(name: str, command: Any, own: list[str], told: list[str]) -> list[str]:
    """What a command does, how it is called, and what it alone takes."""
    names = [(argument.name.upper(), argument.required) for argument in filter(is_argument, command.params)]
    call = [name, *(argument if required else f"[{argument}]" for argument, required in names), "[OPTIONS]"]
    parts = [f"{command.help.strip()}\n", f"```text\nimagen-diffusers {' '.join(call)}\n```\n"]
    if own:
        parts.append(table(["option", "default", "meaning"], own))
    if len(own) < len(told):
        parts.append(f"Beside these, [{SHARED.lower()}](#{SHARED.lower().replace(' ', '-')}).\n")
    return parts


def row(parameter: Any) -> str:
    """An argument or an option, what it is by default, and its help."""
    names = parameter.name.upper() if is_argument(parameter) else ", ".join((*parameter.opts, *parameter.secondary_opts))
    default = "required" if parameter.required else "" if parameter.default in (None, False, "") else f"`{parameter.default}`"
    return f"| `{names}` | {default} | {line(parameter.help)} |"


def is_argument(parameter: Any) -> bool:
    return parameter.param_type_name == "argument"


def table(heads: list[str], rows: list[str]) -> str:
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *rows]) + "\n"


def line(text: str | None) -> str:
    """Text in a cell."""
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
