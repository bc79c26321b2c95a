"""Captioned images from wherever Hugging Face `datasets` reads them: a folder with `metadata.jsonl` or with .txt files, Parquet files or
tar shards in WebDataset's layout, here or at URLs, or a Hub id; in whole or as a stream.
"""

import glob
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from .damaged import Told, is_damage, is_of_types, of_other_types, on_one_line, stream_of, unreadable
from .data_settings import CAPTION_COLUMNS, IMAGE_COLUMNS, DataSettings
from .image_folders import LISTS, check_folder, images_in, read_in_whole, shards_of, trained_on
from .library import library
from .lists import check_lists
from .reading import Columns, captions_in
from .shards import KINDS, digest_of, reading_of
from .tar_rows import TarRows
from .texts_beside import TEXTS, has_texts, rows_with_texts

AS_WRITTEN = (*IMAGE_COLUMNS, "JPG", "JPEG", "PNG", "WEBP")  # columns of tar shards are endings, which cameras write so


def load_rows(settings: DataSettings, *, captions: bool = True, cond_channels: int = 0) -> tuple[Any, Columns]:
    """The rows, images still encoded, as `datasets` gives them, and which columns to read.

    Args:
        settings: where they are.
        captions: whether they are wanted.
        cond_channels: of the conditioning images that the column of `settings` holds; 0 for a network that takes none.

    Raises:
        ValueError: for a place without images, or images without captions, and for conditioning images that the network does not take.
    """
    datasets = library()
    _check_conditioning(settings.conditioning_image_column, cond_channels)
    columns_of = partial(_columns, settings, captions, cond_channels)
    told = Told()
    rows, there, files = _rows(settings, lambda features: columns_of(list(features), features).read, told)
    columns = replace(columns_of(there, rows.features or {}), files=files, told=told)
    rows = rows.select_columns(columns.read)  # what others hold may be anything
    for column in columns.images:
        rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows, columns


def load_captions(settings: DataSettings) -> tuple[Iterator[str], int | None]:
    """Every caption, images unread, and of how many rows; None where a row may have several, and of a stream.

    Raises:
        ValueError: as `load_rows`.
    """
    rows, there, _ = _rows(settings, lambda features: [_caption_column(settings, list(features))], Told())
    column = _caption_column(settings, there)
    captions = rows.select_columns([column])
    single = not settings.streaming and isinstance(captions.features[column], library().Value)
    return (caption for row in captions for caption in captions_in(row[column])), len(rows) if single else None


def _check_conditioning(column: str | None, channels: int) -> None:
    if column is not None and not channels:
        raise ValueError(
            f"conditioning_image_column is {column}, and this network takes no conditioning images: leave it out, or make one that takes "
            "them with models/conditioning_images.py: with_cond_channels"
        )
    if column is not None and channels not in (1, 3):
        raise ValueError(
            f"conditioning_image_column is {column}, and this network takes conditioning images of {channels} channels; image files have "
            "1 (gray) or 3 (RGB): make the others by training/examples.py: Conditioned"
        )


def _columns(settings: DataSettings, captions: bool, cond_channels: int, there: list[str], features: Mapping[str, Any]) -> Columns:
    """Which of the columns that are there to read."""
    image, caption, cond = _column("image", settings.image_column, AS_WRITTEN, there), None, None
    if captions:
        caption = _caption_column(settings, there)
    if settings.conditioning_image_column is not None:
        cond = _column("conditioning_image", settings.conditioning_image_column, (), there)
    others = () if settings.image_column is not None else _other_images(features, {image, cond})
    return Columns(image, caption, cond, cond_channels, others)


def _column(kind: str, wanted: str | None, usual: tuple[str, ...], there: list[str]) -> str:
    if wanted is not None and wanted not in there:
        raise ValueError(f'{kind}_column is "{wanted}"; the columns are {", ".join(there)}')
    found = [wanted] if wanted is not None else [c for c in usual if c in there]
    if not found:
        raise ValueError(f"no {kind} column among {', '.join(there)}; name it with {kind}_column")
    return found[0]


def _caption_column(settings: DataSettings, there: list[str]) -> str:
    """As `_column`; of a folder of images the error says where captions belong."""
    try:
        return _column("caption", settings.caption_column, CAPTION_COLUMNS, there)
    except ValueError:
        folder = None if settings.train_data_dir is None else read_in_whole(settings.train_data_dir)
        if folder is None or any(folder.rglob(LISTS)) or has_texts(images_in(folder)):
            raise
        needed = "metadata.jsonl beside them, with file_name and text in each line, or 0.txt beside 0.png"
        raise ValueError(f"the images in {folder} have no captions; put {needed}") from None


def _other_images(features: Mapping[str, Any], taken: set[str | None]) -> tuple[str, ...]:
    """Where tar shards have the images of rows that have none in the first image column."""
    return tuple(c for c in AS_WRITTEN if c not in taken and isinstance(features.get(c), library().Image))


def _rows(settings: DataSettings, choose: Callable[[Mapping[str, Any]], list[str]], told: Told) -> tuple[Any, list[str], str | None]:
    """The rows as `datasets` gives them, the names of their columns, and a digest of the shards that they are of.

    Of a stream of Parquet files these are the columns that `choose` names, and no others are read. Rows that are read in whole are kept
    in `cache_dir`, for whatever is asked of them later. `told` gets what is wrong with shards as they are read.
    """
    datasets = library()
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    kind, arguments = _builder(settings)
    if kind == TEXTS:
        rows = rows_with_texts(**arguments, streaming=settings.streaming)
        return _first(rows, settings), rows.column_names, None
    arguments |= {"cache_dir": None if settings.cache_dir is None else str(settings.cache_dir)}
    place = settings.train_data_dir or settings.dataset_name or "data_files"
    try:
        builder = datasets.load_dataset_builder(kind, **arguments)
        if isinstance(builder, datasets.packaged_modules.webdataset.WebDataset):
            builder._get_pipeline_from_tar = TarRows(builder, told)
        if settings.streaming:
            if isinstance(builder, datasets.packaged_modules.parquet.Parquet):
                builder.config.columns = choose(builder.as_streaming_dataset(split="train").features)
            rows = stream_of(builder, told)
        else:
            builder.download_and_prepare()
            rows = builder.as_dataset(split="train")
    except (DatasetNotFoundError, DataFilesNotFoundError, FileNotFoundError) as error:
        raise ValueError(f"no images found at {place}: {error}") from None
    except Exception as error:
        _refuse_damage(error, f"the first file of {place}", f"{place}")
        raise
    rows = _first(rows, settings)
    files = arguments["data_files"]["train"] if kind in KINDS.values() and "data_files" in arguments else None
    return rows, rows.column_names or list(next(iter(rows))), None if files is None else digest_of(files)


def _first(rows: Any, settings: DataSettings) -> Any:
    """As many as are asked for."""
    return rows if settings.max_train_samples is None else rows.take(settings.max_train_samples)


def _refuse_damage(error: Exception, first: str, place: str) -> None:
    """Say of files that are damaged what to do; of the first one, whose columns are those of all, at once."""
    if is_damage(error):
        raise unreadable(first, error) from None
    if is_of_types(error.__cause__):
        told = of_other_types(f"a file of {place}", error.__cause__)
        raise ValueError(f"{told}, or set streaming, which reads the columns alone that are needed") from None
    if is_damage(error.__cause__):
        raise ValueError(
            f"files of {place} cannot be read to their end ({on_one_line(error.__cause__)}); with streaming they are named, and "
            "the rest of them is passed over"
        ) from None


def _builder(settings: DataSettings) -> tuple[str, dict[str, Any]]:
    """The arguments of `datasets.load_dataset` for files, a Hub id or a folder, or of `rows_with_texts`."""
    files = None if settings.data_files is None else [str(name) for name in settings.data_files]
    if files is not None and settings.dataset_name in (None, *KINDS.values()):
        return reading_of(files, AS_WRITTEN, settings.dataset_name)
    if settings.dataset_name is not None:
        of_files = {} if files is None else {"data_files": {"train": files}}
        return settings.dataset_name, {"name": settings.dataset_config_name, **of_files}
    folder = settings.train_data_dir
    assert folder is not None
    check_folder(folder)
    shards = shards_of(folder)
    if shards:
        return reading_of(list(map(str, shards)), AS_WRITTEN)
    # All files by name: left to itself, `datasets` takes "train", "test" or "val" in the name of a file or folder for that of a split.
    images = images_in(folder)
    place = trained_on(folder, images)
    trained = [image for image in images if place in image.parents]
    if has_texts(trained) and not any(place.rglob(LISTS)):
        return TEXTS, {"images": trained}
    check_lists(place)
    return "imagefolder", {"data_files": {"train": [f"{glob.escape(str(place.absolute()))}/**"]}}
