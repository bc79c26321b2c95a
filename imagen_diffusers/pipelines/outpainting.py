"""An image extended to a larger canvas: painted around, window by window, each beginning in what is there already."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from imagen_diffusers.sampling.tiles import spans

from .image_inputs import images_to_tensor
from .pipeline_imagen_cascade_inpaint import ImagenCascadeInpaintPipeline
from .sizes import finest_step
from .stage_numbers import channels_of_images


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
    A canvas that is smaller, and of sides that stages cannot have, is painted a little larger and cut.

    Args:
        prompt: what the extended image shows; without it the image alone is followed.
        image: what is known, of any mode; it is turned upright.
        width, height: of the result, at least the image's.
        left, top: where on the canvas the image stands; in its middle by default.
        overlap: share of a window that its neighbour has painted already, in (0, 1).
        call: other arguments of the pipeline's call, for example `generator` and `jump_n_sample`; `seamless` is True by default.

    Returns:
        One PIL image. A safety checker and a watermarker are given the whole, not each window. Where a callback interrupts the pipeline,
        what is not painted yet repeats the image's edge.

    Raises:
        ValueError: for another task's pipeline, what is no PIL image, a canvas smaller than the image, an image that does not stand on it,
            sizes no stage can have, and a call for more than one PIL image.
    """
    _check(pipe, prompt, image, overlap, call)
    image = ImageOps.exif_transpose(image)  # before its sides are read
    left, top = place(image.size, width, height, left, top)
    last = call.get("stop_at") if call.get("stop_at") in pipe.stage_numbers else None  # the call says what is wrong with another one
    numbers = [n for n in pipe.stage_numbers if last is None or n <= last]
    stages, channels = pipe.stages(numbers), channels_of_images(pipe.networks, numbers)
    # What is not known yet repeats the image's edge: resized, it fades into what is known.
    known = (images_to_tensor("image", image, channels)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    known = known[..., 0] if channels == 1 else known  # as PIL has gray
    size, every = stages[-1].sample_size, finest_step([stage.network for stage in stages])
    painted_height, painted_width = (side if side >= size else -(-side // every) * every for side in (height, width))
    rows = (np.arange(painted_height) - top).clip(0, image.height - 1)
    columns = (np.arange(painted_width) - left).clip(0, image.width - 1)
    canvas = known[rows][:, columns].copy()
    unknown = np.ones(canvas.shape[:2], bool)
    unknown[top : top + image.height, left : left + image.width] = False

    shared = int(size * overlap)
    middle = (top + image.height / 2, left + image.width / 2)
    windows = [(y, x) for y in spans(painted_height, size, shared) for x in spans(painted_width, size, shared)]
    windows.sort(key=lambda w: max(abs((span.start + span.stop) / 2 - at) for span, at in zip(w, middle, strict=True)))
    for window in tqdm([w for w in windows if unknown[w].any()], desc="outpainting"):
        shape = {"height": window[0].stop - window[0].start, "width": window[1].stop - window[1].start}
        given = {"seamless": True, **call, **shape, "output_type": "pil", "return_dict": True}
        with pipe.unseen():
            painted: Any = pipe(prompt, Image.fromarray(canvas[window]), unknown[window], **given)
        if pipe.interrupt:  # what it returns is noisy yet, or small
            break
        canvas[window] = np.asarray(painted.images[0])
        unknown[window] = False
    extended: Any
    extended, _ = pipe.hand_out(images_to_tensor("image", Image.fromarray(canvas[:height, :width]), channels), "pil")
    return extended[0]


def _check(pipe: Any, prompt: Any, image: Any, overlap: float, call: dict[str, Any]) -> None:
    if not isinstance(pipe, ImagenCascadeInpaintPipeline):
        raise ValueError(f"pipe is of {type(pipe).__name__}, which paints no part; give ImagenCascadeInpaintPipeline.from_pipe(pipe)")
    if not isinstance(image, Image.Image):
        raise ValueError(f"image is a {type(image).__name__}; one call extends one image: give a PIL image")
    if not isinstance(overlap, Real) or not 0 < overlap < 1:
        raise ValueError(f"overlap is {overlap!r}; give a share of a window greater than 0 and less than 1")
    if not isinstance(prompt, str | None):
        raise ValueError(f"prompt is a {type(prompt).__name__}; one call extends one image: give a string, or None")
    for name, only in (("num_images_per_prompt", 1), ("output_type", "pil")):
        if call.get(name, only) != only:
            raise ValueError(f"{name} is {call[name]!r}; one call extends one image and returns it as a PIL image: leave {name} out")
    for name in ("start_at", "low_res", "padding_mask_crop"):
        if call.get(name) is not None:
            raise ValueError(f"{name} is of one painting, and an image is extended by several; leave it out")


def place(size: tuple[int, int], width: int, height: int, left: int | None = None, top: int | None = None) -> tuple[int, int]:
    """Where on a canvas an image stands, (left, top): in its middle, unless it is said.

    Args:
        size: (width, height) of the image.

    Raises:
        ValueError: for sides and places that are no whole numbers, a canvas smaller than the image, and an image that does not stand on it.
    """
    for name, number in (("width", width), ("height", height), ("left", left), ("top", top)):
        if number is None and name in ("left", "top"):
            continue
        if not isinstance(number, Integral) or isinstance(number, bool):
            raise ValueError(f"{name} is {number!r}; give a whole number of pixels")
    right, bottom = width - size[0], height - size[1]
    if right < 0 or bottom < 0:
        raise ValueError(f"the image is {size[0]}x{size[1]} and the canvas {width}x{height}; give a canvas at least as large")
    left, top = right // 2 if left is None else left, bottom // 2 if top is None else top
    if not (0 <= left <= right and 0 <= top <= bottom):
        raise ValueError(
            f"left={left}, top={top} would let the image stand out of the canvas; left is at most {right} and top at most {bottom}"
        )
    return left, top
