"""What is said when a command fails, or is not understood: one sentence, and the stack only behind --debug."""

import inspect
import platform
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from imagen_diffusers.hub.versions import versions

Debug = Annotated[bool, typer.Option("--debug", help="Show the stack of an error.")]
OF_THE_USER = (ValueError, OSError, ImportError)  # what this package and the libraries below it raise for what they are given


class WholeWordsCommand(TyperCommand):
    """Says how words that are left over are kept together: without quotes, a prompt comes as one argument a word."""

    allow_extra_args = True

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        left = super().parse_args(ctx, args)
        if left and not ctx.resilient_parsing:
            said = " ".join(left)
            ctx.fail(f'"{said}" is left over; put a prompt in quotes, "a red cube", and commas between the values of an option, 16,12,2')
        return left


def in_a_sentence(command: Callable[..., None]) -> Callable[..., None]:
    """The command with --debug, and with an exit code of 1 and one sentence in place of a stack."""

    @wraps(command)
    def run(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.BadParameter):
            raise
        except Exception as error:
            if debug:
                traceback.print_exc()
            typer.secho(f"Error: {sentence(error)}", fg="red", err=True)
            raise typer.Exit(1) from None

    # typer reads the options off the signature.
    signature = inspect.signature(command)
    option = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, "debug": Debug}
    return run


def sentence(error: Exception) -> str:
    """What to say of an error, on one line: its own message, or, of an unforeseen one, what to report."""
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in said:
        return "the memory does not suffice; try --offload model, --tile, --dtype bfloat16, or a smaller image or batch"
    if isinstance(error, OF_THE_USER) and said:
        return said
    kind = type(error).__name__
    told = ", ".join(f"{name} {version}" for name, version in versions().items())
    where = f"{told}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return (
        f"this was not foreseen: {kind}{f': {said}' if said else ''}. "
        f"Please report it, with the command, what --debug adds to it, and: {where}"
    )
