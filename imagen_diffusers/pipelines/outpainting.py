"""An image extended to a larger canvas: painted around, window by window, each beginning in what is there already."""

from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from imagen_diffusers.sampling.tiles import spans

from .image_inputs import images_to_tensor
from .pipeline_imagen_cascade_inpaint import ImagenCascadeInpaintPipeline


def outpaint(
    pipe: ImagenCascadeInpaintPipeline,
    prompt: str | None,
    image: Image.Image,
    width: int,
    height: int,
    *,
    left: int | None = None,
    top: int | None = None,
    overlap: float = 0.5,
    **call: Any,
) -> Image.Image:
    """The image with more around it; what it held stays pixel for pixel.

    Every window is as large as the images of the last stage that runs, or as the canvas where that is smaller, and is painted by one call.

    Args:
        prompt: what the extended image shows; without it the image alone is followed.
        image: what is known, of any mode; it is turned upright.
        width, height: of the result, at least the image's.
        left, top: where on the canvas the image stands; in its middle by default.
        overlap: share of a window that its neighbour has painted already, in (0, 1).
        call: other arguments of the pipeline's call, for example `generator` and `jump_n_sample`; `seamless` is True by default.

    Raises:
        ValueError: for a canvas smaller than the image, an image that does not stand on it, and sizes no stage can have.
    """
    image = ImageOps.exif_transpose(image)  # before its sides are read
    if width < image.width or height < image.height:
        raise ValueError(f"the image is {image.width}x{image.height} and the canvas {width}x{height}; give a canvas at least as large")
    if not 0 < overlap < 1:
        raise ValueError(f"overlap is {overlap}; give a share of a window greater than 0 and less than 1")
    left = (width - image.width) // 2 if left is None else left
    top = (height - image.height) // 2 if top is None else top
    if not (0 <= left <= width - image.width and 0 <= top <= height - image.height):
        raise ValueError(
            f"left={left}, top={top} would let the image stand out of the canvas; left is at most {width - image.width} and top at most "
            f"{height - image.height}"
        )
    # What is not known yet repeats the image's edge: resized, it fades into what is known.
    known = (images_to_tensor("image", image)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    rows = (np.arange(height) - top).clip(0, image.height - 1)
    columns = (np.arange(width) - left).clip(0, image.width - 1)
    canvas = known[rows][:, columns].copy()
    unknown = np.ones((height, width), bool)
    unknown[top : top + image.height, left : left + image.width] = False

    last: int = call.get("stop_at") or pipe.stage_numbers[-1]
    size = next((network.sample_size for n, network in pipe.networks.items() if n == last), height)  # the call says if it is not there
    middle = (top + image.height / 2, left + image.width / 2)
    windows = [(y, x) for y in spans(height, size, int(size * overlap)) for x in spans(width, size, int(size * overlap))]
    windows.sort(key=lambda w: max(abs((span.start + span.stop) / 2 - at) for span, at in zip(w, middle, strict=True)))
    painter = pipe if pipe.watermarker is None else type(pipe).from_pipe(pipe, watermarker=None)  # the whole is marked, not each window
    for window in tqdm([w for w in windows if unknown[w].any()], desc="outpainting"):
        shape = {"height": window[0].stop - window[0].start, "width": window[1].stop - window[1].start}
        given = {"seamless": True, **call, **shape, "output_type": "pil", "return_dict": True}
        painted: Any = painter(prompt, Image.fromarray(canvas[window]), unknown[window], **given)
        canvas[window] = np.asarray(painted.images[0])
        unknown[window] = False
    extended = Image.fromarray(canvas)
    return extended if pipe.watermarker is None else pipe.watermarker.apply_watermark([extended], extended.height)[0]
