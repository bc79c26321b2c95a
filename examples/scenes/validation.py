"""What a stage makes of scenes it is not trained on: the error by noise level, around objects, and how much the words are heard.

Around objects, since floors are most of an image and soon learned. A caption with wrong words should make the error larger: by how much
says which attribute is read, and at which noise level. A network that ignores a word loses nothing by its being wrong.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from imagen_diffusers.models.conditioned_unet import ConditionedUNet
from imagen_diffusers.schedulers.noise import resize
from imagen_diffusers.training.examples import Example
from imagen_diffusers.training.losses import LossSettings
from imagen_diffusers.training.validation import HeldOut, level_name

from .captions import caption
from .data import SAMPLES, TEST_SEEDS, SceneDataset, object_windows
from .raytrace import render
from .scene import COLORS, FINE_TEXTURES, SHAPES, SIZES, Scene, sample_scene

WORD_LOG_SNRS = (-4.0, -2.0, 0.0)  # where words can matter: above, the image itself says what is in it
COUNT, WORD_COUNT = 256, 128
UNSEEN_SEEDS = TEST_SEEDS + 900_000


def next_word(words: tuple[str, ...]) -> Callable[[str], str]:
    """Every word of an object's attribute becomes the one after it, under the article that it takes: a wrong one would be an error, too.

    What a complete caption says of the floor, last, stays.
    """
    following = dict(zip(words, (*words[1:], words[0]), strict=True))
    pattern = re.compile("|".join(rf"\b{w}\b" for w in words))

    def change(text: str) -> str:
        objects, on, floor = text.rpartition(" on a ") if text.endswith(" floor") else (text, "", "")
        told = pattern.sub(lambda found: following[found[0]], objects)
        return re.sub(r"\ban? (?=(.))", lambda found: "an " if found[1] in "aeiou" else "a ", told) + on + floor

    return change


def places_exchanged(scene: Scene) -> Scene:
    """Two objects at each other's places, so that a caption names the opposite relation; other scenes as they are."""
    if len(scene.objects) != 2:
        return scene
    first, second = scene.objects
    return replace(scene, objects=(replace(first, x=second.x, z=second.z), replace(second, x=first.x, z=first.z)))


def fine_textures_exchanged(scene: Scene) -> Scene:
    """Each fine texture becomes the next of them: the condition of a super-resolution stage is the same for all three."""
    following = dict(zip(FINE_TEXTURES, (*FINE_TEXTURES[1:], FINE_TEXTURES[0]), strict=True))
    return replace(scene, objects=tuple(replace(o, texture=following.get(o.texture, o.texture)) for o in scene.objects))


class SceneFigures:
    """Named figures of a network for `train_stage(measure=...)`, all in squared errors of the clean image.

    "log_snr_-2" over whole images, "objects/log_snr_-2" in windows around objects; and, for a base network, "shape/log_snr_-2": what
    the error in these windows gains when every shape word of the captions is another one; "color" and "size" likewise, "relation"
    of images of two objects, and "unseen_shape" where the images show pairs of colour and shape that no training image holds. For a
    super-resolution network "bicubic" and "objects/bicubic" are the errors of its enlarged condition, which it is to beat, and
    "texture/log_snr_-2" is what the error around objects with fine textures gains when their words are another one's.
    """

    def __init__(self, stage: str, folder: Path, table: Tensor, loss: LossSettings, *, compile: bool = True, **text):
        data = SceneDataset(stage, COUNT, folder, first_seed=TEST_SEEDS, compile=compile)
        examples = [data.shown(i) for i in range(COUNT)]
        windows = torch.stack([data.shown_windows(i) for i in range(COUNT)])
        self.all = Windowed(HeldOut(examples, table, loss, **text), windows)
        self.words: dict[str, tuple[Windowed, list[str]]] = {}
        self.bicubic: dict[str, float] = {}
        if data.low_res is not None:
            errors = torch.stack([enlarging_error(example) for example in examples])[None]
            self.bicubic = {"bicubic": errors.mean().item(), "objects/bicubic": self.all.around(errors).item()}
            fine = [i for i, scene in enumerate(data.scenes) if any(o.texture in FINE_TEXTURES for o in scene.objects)][:WORD_COUNT]
            textured = HeldOut([examples[i] for i in fine], table, loss, log_snrs=WORD_LOG_SNRS, **text)
            told = [data.complete_caption(i, fine_textures_exchanged(data.scenes[i])) for i in fine]
            self.words["texture"] = Windowed(textured, windows[fine]), told
        else:
            few = Windowed(HeldOut(examples[:WORD_COUNT], table, loss, log_snrs=WORD_LOG_SNRS, **text), windows[:WORD_COUNT])
            for name, words in (("shape", SHAPES), ("color", COLORS), ("size", SIZES)):
                self.words[name] = few, few.prompts(next_word(words))
            pairs = [i for i, scene in enumerate(data.scenes) if len(scene.objects) == 2][:WORD_COUNT]
            two = HeldOut([examples[i] for i in pairs], table, loss, log_snrs=WORD_LOG_SNRS, **text)
            told = [data.complete_caption(i, places_exchanged(data.scenes[i])) for i in pairs]
            self.words["relation"] = Windowed(two, windows[pairs]), told
            unseen = Windowed(*unseen_pairs(data.view.size, table, loss, text))
            self.words["unseen_shape"] = unseen, unseen.prompts(next_word(SHAPES))

    def __call__(self, unet: ConditionedUNet) -> dict[str, float]:
        errors = self.all.data.errors(unet)
        figures = self.all.named("", errors.mean((1, 2, 3))) | self.all.named("objects/", self.all.around(errors))
        right: dict[int, Tensor] = {}
        for name, (windowed, wrong) in self.words.items():
            if id(windowed) not in right:
                right[id(windowed)] = windowed.around(windowed.data.errors(unet))
            lost = windowed.around(windowed.data.errors(unet, wrong)) - right[id(windowed)]
            figures |= windowed.named(f"{name}/", lost)
        return figures | self.bicubic


def enlarging_error(example: Example) -> Tensor:
    """The squared error of the small image, enlarged: (H, W)."""
    image, small = (example[name][None].float() / 127.5 - 1 for name in ("pixel_values", "low_res"))
    return (resize(small, (image.shape[-2], image.shape[-1])) - image).square().mean((0, 1))


class Windowed(NamedTuple):
    """Held-out examples, and where their objects are: (N, H, W), one in windows around them and zero elsewhere."""

    data: HeldOut
    windows: Tensor

    def around(self, errors: Tensor) -> Tensor:
        """Errors (levels, N, H, W) averaged in the windows: (levels,)."""
        return (errors * self.windows).sum((1, 2, 3)) / self.windows.sum()

    def prompts(self, change: Callable[[str], str]) -> list[str]:
        return [change(example["prompt"]) for example in self.data.examples]

    def named(self, prefix: str, values: Tensor) -> dict[str, float]:
        return {prefix + level_name(level): value.item() for level, value in zip(self.data.log_snrs, values, strict=True)}


def unseen_pairs(size: int, table: Tensor, loss: LossSettings, text: dict[str, Any]) -> tuple[HeldOut, Tensor]:
    """Scenes of one object whose pair of colour and shape no training image holds, and the windows around it."""
    seeds = range(UNSEEN_SEEDS, UNSEEN_SEEDS + WORD_COUNT)
    scenes = [sample_scene(seed, num_objects=1, held_out=True) for seed in seeds]
    images = torch.cat([render(scenes[i : i + 16], size, samples=SAMPLES) for i in range(0, len(scenes), 16)])
    prompts = [caption(scene, np.random.default_rng(seed), complete=True) for scene, seed in zip(scenes, seeds, strict=True)]
    examples = [Example(pixel_values=image, prompt=prompt) for image, prompt in zip(images, prompts, strict=True)]
    windows = torch.stack([torch.from_numpy(object_windows(scene, size, (0, 0), size)) for scene in scenes])
    return HeldOut(examples, table, loss, log_snrs=WORD_LOG_SNRS, **text), windows
