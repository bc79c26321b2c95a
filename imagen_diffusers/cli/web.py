"""`imagen-diffusers web`."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from imagen_diffusers.extras import install
from imagen_diffusers.hub.places import find
from imagen_diffusers.hub.versions import version_of

from . import options as o
from .loading import device_of, find_adapter, named_adapter, prepare

Models = Annotated[list[str] | None, typer.Option("--model", help="Folder, bundled name, or Hub id. Given again, there is a choice.")]
Share = Annotated[bool, typer.Option("--share", help="A public address as well, by a tunnel of gradio's: whoever has it can use the page.")]


def web(
    model: Models = None,
    lora: o.Lora = None,
    preset: Annotated[str | None, typer.Option(help="That the page begins with: quality, balanced or fast.")] = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    offload: o.Offload = "none",
    tile: o.Tile = None,
    host: Annotated[str, typer.Option(help="Address to listen on. By default only this machine can open the page.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="By default the first free one from 7860.")] = None,
    share: Share = False,
    waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait in line; more are refused.")] = 20,
) -> None:
    """Open a page where a prompt becomes an image, stage after stage."""
    from imagen_diffusers.web.addresses import check_address
    from imagen_diffusers.web.asked import MAX_WEIGHT, OWN_PRESET, PRESETS
    from imagen_diffusers.web.limits import Limits, read_choice, read_number

    begins = OWN_PRESET if preset is None else read_choice("--preset", preset, PRESETS[1:])
    options = o.PipelineOptions(dtype=dtype, device=device, offload=offload, tile=tile)
    places = named("--model", [(given, find(given, ("pipelines",))) for given in model or [o.DEFAULT_MODEL]])
    adapters = named("--lora", [(named_adapter(given)[0], find_adapter(given)) for given in lora or []])
    for name, (_, weight) in adapters.items():
        read_number(f"the weight of --lora {name}", weight, -MAX_WEIGHT, MAX_WEIGHT)  # as the page asks for it
    check_address(host, port)
    device_of(options)
    try:  # what takes seconds to import, or is not there, comes after what is seen at once to be wrong
        from imagen_diffusers.web import serving
        from imagen_diffusers.web.models import Models, NotLoaded
    except ImportError as error:
        raise ValueError(f"the page needs gradio ({error}): {install('web')}") from None
    models = Models(lambda place: prepare(replace(options, model=place)), places, adapters)
    told = {"version": version_of("imagen_diffusers"), **asdict(options)}
    with serving.own_folder() as folder:
        try:
            server = serving.Server(models, folder, replace(Limits(), waiting=waiting), told, begins)
        except NotLoaded as failed:
            raise failed.__cause__ or failed from None
        try:
            _announce(*server.start(host, port, share), host, share)
            serving.wait()
        finally:
            server.close()


def named(option: str, given: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Each value by what its source is called on the page: of a folder or a file its name, which tells nothing of where it is.

    Raises:
        ValueError: for two of one name.
    """
    found: dict[str, Any] = {}
    for source, value in given:
        name = Path(source).resolve().name if Path(source).exists() else source
        if name in found:
            raise ValueError(f'{option} names "{name}" twice; the page shows names alone, so give folders of different names')
        found[name] = value
    return found


def _announce(address: str, public: str | None, host: str, share: bool) -> None:
    from imagen_diffusers.web.addresses import LOOPBACK

    typer.echo(f"The page is at {address} and ends with Ctrl+C.")
    if host not in LOOPBACK:
        typer.secho(f"It listens on {host}: whoever reaches this machine can use it.", fg="yellow")
    if public is not None:
        typer.secho(f"It is shared at {public}: whoever has this address can use it.", fg="yellow")
    elif share:
        typer.secho("It is not shared: the tunnel could not be made.", fg="yellow", err=True)
