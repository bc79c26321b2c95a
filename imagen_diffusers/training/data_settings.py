"""What a run is told of its data. Field names are the flags of diffusers' training scripts."""

from dataclasses import dataclass, field
from pathlib import Path

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp")
CAPTION_COLUMNS = ("text", "caption", "txt", "prompt")


@dataclass(frozen=True)
class DataSettings:
    """Where captioned images are. Field names are the flags of diffusers' training scripts."""

    train_data_dir: Path | None = field(
        default=None, metadata={"help": "Folder of images with metadata.jsonl, of Parquet, or of tar shards."}
    )
    dataset_name: str | None = field(default=None, metadata={"help": "Hub id, in place of train_data_dir."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Which configuration of the Hub dataset."})
    data_files: list[str] | None = field(
        default=None,
        metadata={
            "help": "Parquet files or tar shards, in place of train_data_dir: paths, globs, URLs (https://, s3://, hf://); of dataset_name "
            "its files that are read."
        },
    )
    image_column: str | None = field(default=None, metadata={"help": f"By default the first there of: {', '.join(IMAGE_COLUMNS)}."})
    caption_column: str | None = field(default=None, metadata={"help": f"By default the first there of: {', '.join(CAPTION_COLUMNS)}."})
    conditioning_image_column: str | None = field(
        default=None, metadata={"help": "For a network conditioned on images (cond_channels 1 or 3): their column."}
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={
            "help": "Use the first so many. Those of a stream without exact_stream are divided among processes and workers, each of which "
            "takes the first of its own files."
        },
    )
    streaming: bool = field(default=False, metadata={"help": "Read as a stream, in its own order, without unpacking it first."})
    shuffle_buffer: int = field(default=1000, metadata={"help": "Of a stream: rows shuffled among each other; 0 keeps their order."})
    exact_stream: bool = field(
        default=False,
        metadata={
            "help": "Of a stream: steps are the same on any number of processes, each of which then reads everything, by one worker."
        },
    )
    text_cache: Path | None = field(default=None, metadata={"help": "Folder written by `imagen-diffusers encode-text`."})
    cache_dir: Path | None = field(default=None, metadata={"help": "Where `datasets` keeps what it unpacks."})

    def __post_init__(self) -> None:
        if (self.train_data_dir is None) == (self.dataset_name is None and self.data_files is None):
            raise ValueError("give exactly one of train_data_dir, dataset_name and data_files, which may also be files of dataset_name")
        if self.data_files is not None and (isinstance(self.data_files, str) or not self.data_files):
            raise ValueError(f"data_files is {self.data_files!r}; give a list of paths, globs or URLs")
        if self.max_train_samples is not None and self.max_train_samples < 1:
            raise ValueError(f"max_train_samples is {self.max_train_samples}; it must be at least 1, or None to use all")
        if self.shuffle_buffer < 0:
            raise ValueError(f"shuffle_buffer is {self.shuffle_buffer}; it must be at least 0")
