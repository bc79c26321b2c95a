"""The command `imagen-diffusers`: generate, change, extend and enlarge images, by hand or on a page, say how good a cascade is, encode
captions, put stages together, convert and export checkpoints.

Nothing imports this folder. One file per command, or two that differ in little; `options` says what several of them take. torch and
diffusers are imported inside the commands, so that --help and a mistyped option answer at once.
"""

import inspect
from typing import Annotated

import typer

from imagen_diffusers.hub.versions import version_of

from .assemble import assemble
from .convert import convert
from .edit import edit, vary
from .encode_text import encode_text
from .errors import WholeWordsCommand, in_a_sentence
from .evaluate import evaluate
from .evaluate_stats import evaluate_stats
from .export import export
from .extend import extend
from .generate import generate
from .options import spelling, ungrouped
from .upscale import upscale
from .web import web

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich's tables cut long options' names short on narrow terminals
    help="Imagen: text to a 1024px image by a cascade of pixel diffusion models.",
    context_settings={"token_normalize_func": spelling},
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"imagen-diffusers {version_of('imagen_diffusers')}")
        raise typer.Exit()


@app.callback()
def _about(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Show the version and exit.")] = False,
) -> None:
    pass


for command in (generate, edit, vary, extend, upscale, web, evaluate, evaluate_stats, encode_text, assemble, convert, export):
    summary = inspect.cleandoc(command.__doc__ or "").split("\n\n")[0].replace("\n", " ")  # whole: click ends it at the line's end
    app.command(short_help=summary, cls=WholeWordsCommand)(in_a_sentence(ungrouped(command)))
