"""Rows of tar shards in WebDataset's layout, decoded field by field: a text that cannot be is missing in its row, and no more."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .damaged import Told, on_one_line


class TarRows:
    """What the builder of `datasets` reads rows by: of its features alone, where they are known.

    Its own way ends at the first field that cannot be decoded, such as metadata beside an image that nobody reads.
    """

    def __init__(self, builder: Any, told: Told):
        self.builder, self.told = builder, told

    def __call__(self, shard: str, files: Any) -> Iterator[dict[str, Any]]:
        wanted = self.builder.info.features

        def tell(field: str, error: Exception) -> None:
            self.told.log_once(
                f"a text in {shard}", f"{shard}: a text in it cannot be decoded ({field}: {on_one_line(error)}); such count as missing"
            )

        for row in undecoded(shard, files):
            yield {
                name: decoded(partial(_as, wanted and wanted.get(name), value), partial(tell, f"{row['__key__']}.{name}"))
                for name, value in row.items()
                if wanted is None or name in wanted or name.startswith("__")
            }


def _as(feature: Any, value: Any) -> Any:
    """A field's value as its column has it, which may hold lists of texts where this row has one; raises what decoding raises."""
    import datasets

    value = value() if isinstance(value, partial) else value
    if isinstance(feature, datasets.List) and isinstance(value, str):
        return [value]
    if isinstance(feature, datasets.Value) and isinstance(value, list | dict):
        raise ValueError(f"it is a {type(value).__name__}, and the first rows of the first shard have texts")
    return value


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
