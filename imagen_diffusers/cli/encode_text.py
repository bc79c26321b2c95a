"""`imagen-diffusers encode-text`."""

from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from imagen_diffusers.hub.places import find

from . import options as o
from .loading import load, pick_device, text_components


def encode_text(
    data: Annotated[
        list[str], typer.Argument(help="Folders of captioned images, the Hub id of a data set, or shards: paths, globs or URLs.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the cache; run again, it goes on.")],
    model: o.Model = o.DEFAULT_MODEL,
    text_encoder: Annotated[str | None, typer.Option(help="Folder or Hub id of a text encoder, in place of the model's.")] = None,
    variant: o.Variant = None,
    revision: o.Revision = None,
    caption_column: Annotated[str | None, typer.Option(help="Where the captions are.")] = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="Read a Hub id without unpacking it first, as a folder is.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Captions encoded at once.")] = 64,
    dtype: Annotated[
        str,
        typer.Option(
            help="What the encoder computes in: auto, float32 or bfloat16. auto: float32 on a CPU, bfloat16 on GPUs that have it."
        ),
    ] = "auto",
    device: o.Device = "auto",
) -> None:
    """Encode the captions of DATA once, for training without a text encoder: --text_cache OUTPUT."""
    from tqdm import tqdm

    from imagen_diffusers.pipelines.slots import UNETS
    from imagen_diffusers.text.encoders import encoding_dtype
    from imagen_diffusers.text.prompts import TextRules
    from imagen_diffusers.training.data_settings import DataSettings
    from imagen_diffusers.training.rows import load_captions
    from imagen_diffusers.training.text_cache import write_text_cache

    o.check_writable(output)
    find(model, ("pipelines",))  # and the next two before `datasets` is asked for, which may not be installed
    where = pick_device(device)
    computes_in = encoding_dtype(dtype, where)
    parts = [load_captions(DataSettings(**place, caption_column=caption_column)) for place in _places(data, streaming)]
    counts = [count for _, count in parts if count is not None]
    captions, count = chain.from_iterable(part for part, _ in parts), sum(counts) if len(counts) == len(parts) else None
    own = {} if text_encoder is None else text_components(text_encoder, dtype=computes_in)
    pipe = load(model, str(computes_in).removeprefix("torch."), where, variant, revision, **dict.fromkeys(UNETS), **own).to(where)
    if pipe.tokenizer is None or pipe.text_encoder is None:
        raise ValueError(f'"{model}" has no text encoder and tokenizer to encode with; give another --model, or a --text-encoder')
    rules = TextRules.of(pipe.config)
    if rules.null_text == "empty":
        captions = chain(captions, [""])
    encoded = write_text_cache(output, captions, pipe.tokenizer, pipe.text_encoder, rules=rules, batch_size=batch_size)
    with tqdm(total=count, desc="encoding") as progress:
        for done in encoded:
            progress.update(done - progress.n)
    size = sum(path.stat().st_size for path in output.iterdir())
    typer.echo(f"{output}: {done} captions, {size / 1e6:.1f} MB")


def _places(data: list[str], streaming: bool) -> list[dict[str, Any]]:
    """Fields of `DataSettings` for each folder, or for shards or a Hub id; all but a Hub id are streams, of which `datasets` keeps no copy.

    Raises:
        ValueError: for several that are neither all folders nor all shards.
    """
    from imagen_diffusers.training.shards import names_shards

    folders = [name for name in data if Path(name).is_dir()]
    others = [name for name in data if name not in folders]
    if folders and not others:
        return [{"train_data_dir": Path(folder), "streaming": True} for folder in folders]
    if not folders and all(map(names_shards, data)):
        return [{"data_files": data, "streaming": True}]
    if len(data) > 1:
        neither = next((name for name in others if not names_shards(name)), others[0])
        raise ValueError(f"{neither} is no folder: give several folders, or several shards (.tar, .parquet), or one Hub id")
    if Path(find(data[0], ())).exists():
        return [{"train_data_dir": Path(data[0]), "streaming": True}]  # a file, which is refused as one
    return [{"dataset_name": data[0], "streaming": streaming}]
