"""Rows of tar shards in WebDataset's layout, decoded field by field: a text that cannot be is missing in its row, and no more."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .damaged import on_one_line, warn_once


class TarRows:
    """What the builder of `datasets` reads rows by: of its features alone, where they are known.

    Its own way ends at the first field that cannot be decoded, such as metadata beside an image that nobody reads.
    """

    def __init__(self, builder: Any):
        self.builder = builder

    def __call__(self, shard: str, files: Any) -> Iterator[dict[str, Any]]:
        wanted, told = self.builder.info.features, list[str]()
        for row in undecoded(shard, files):
            yield {
                name: decoded(value, lambda error, field=f"{row['__key__']}.{name}": told.append(f"{field}: {on_one_line(error)}"))
                for name, value in row.items()
                if wanted is None or name in wanted or name.startswith("__")
            }
            if told:
                warn_once(f"{shard}: a text in it cannot be decoded ({told[0]}); such count as missing")


def undecoded(shard: str, files: Any) -> Iterator[dict[str, Any]]:
    """Rows whose fields are for `decoded`."""
    from datasets.packaged_modules.webdataset import webdataset

    later = {ending: partial(partial, decode) for ending, decode in webdataset.WebDataset.DECODERS.items()}
    return type("Undecoded", (webdataset.WebDataset,), {"DECODERS": later})._get_pipeline_from_tar(shard, files)


def decoded(value: Any, tell: Callable[[Exception], None] = lambda error: None) -> Any:
    """A field's value; None where it cannot be decoded."""
    if not isinstance(value, partial):
        return value
    try:
        return value()
    except Exception as error:  # of UTF-8, JSON, numbers, pickles, ...
        tell(error)
        return None
