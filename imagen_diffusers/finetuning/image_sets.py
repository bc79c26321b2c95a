"""What a stage of a cascade is trained on: images at its sizes, from wherever they are."""

from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.pipelines.sizes import reference_size
from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.training.data_settings import DataSettings
from imagen_diffusers.training.exact_stream import ImageStream
from imagen_diffusers.training.image_datasets import ImageDataset
from imagen_diffusers.training.network import network_to_train
from imagen_diffusers.training.pyramid import ImageSettings, WindowSettings
from imagen_diffusers.training.rows import load_rows
from imagen_diffusers.training.sharded_stream import ShardedStream
from imagen_diffusers.training.text_cache import TextCache


def network_of(pipe: ImagenCascadePipeline, stage: int) -> StageNetwork:
    """Of a stage counted from 1; a `ValueError` where the cascade has no such stage, or one that cannot be trained here."""
    if stage not in pipe.stage_numbers:
        raise ValueError(f"stage {stage} is not there; this cascade holds the stages {pipe.stage_numbers}: name one of these")
    return network_to_train(pipe.unet_of(stage))


def image_settings(pipe: ImagenCascadePipeline, stage: int, crop: WindowSettings) -> ImageSettings:
    """What images are made into for this stage."""
    network = network_of(pipe, stage)
    resolution, scale = network.sample_size if crop.resolution is None else crop.resolution, None
    if network.has_low_res:
        small = reference_size(pipe.networks, stage)
        scale, rest = divmod(network.sample_size, small)
        if rest:
            raise ValueError(
                f"stage {stage} makes {network.sample_size}px of {small}px; a stage is trained here where its size is a multiple of "
                "the one's before: change sample_size of one of them"
            )
    kept = crop.crop_size, crop.center_crop, crop.random_flip, crop.aspect_buckets
    return ImageSettings(resolution, scale, *kept, stride=max(network.stride, scale or 1), channels=network.channels)


def image_set(
    pipe: ImagenCascadePipeline,
    stage: int,
    data: DataSettings,
    crop: WindowSettings,
    *,
    seed: int = 0,
    prompt: str | None = None,
    cache: TextCache | None = None,
) -> ImageDataset | ImageStream | ShardedStream:
    """Captioned images for this stage, or, with `prompt`, images that all have this caption; embedded where there is a `cache`."""
    network = network_of(pipe, stage)
    captioned = prompt is None and network.text_dim is not None
    rows, columns = load_rows(data, captions=captioned, cond_channels=network.cond_channels)
    embed = cache if captioned else None
    settings = image_settings(pipe, stage, crop)
    if data.streaming:
        kind = ImageStream if data.exact_stream else ShardedStream
        return kind(rows, columns, settings, embed=embed, seed=seed, shuffle_buffer=data.shuffle_buffer)
    return ImageDataset(rows, columns, settings, embed=embed, prompt=prompt, seed=seed)
