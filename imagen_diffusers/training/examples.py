"""What a training set yields, and how examples become a batch."""

from collections.abc import Callable
from functools import cache
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from imagen_diffusers.text.encoding import TextEmbedding

IMAGES = ("pixel_values", "low_res", "cond_images")
CONDITION = 1  # apart from what else is random in a visit: a mask does not follow from the window


class Example(TypedDict, total=False):
    """One image.

    `pixel_values` (C, H, W) in [-1, 1] or uint8; `low_res` (C, h, w) likewise, for super-resolution. For a network conditioned on
    images `cond_images` (c, h, w), in [0, 1], as sampling has it, or uint8. For a network with text either `prompt` or its unpadded
    `prompt_embeds` (L, D). `weight` is how much its loss counts, 1 where it is left out. `pixel_weight` (H, W) is how much each
    pixel's does, 1 on average. `skipped` tells of images that could not be used in its place.
    """

    pixel_values: Tensor
    low_res: Tensor
    cond_images: Tensor
    prompt: str
    prompt_embeds: Tensor
    weight: float
    pixel_weight: Tensor
    skipped: list[str]


class VisitedDataset(Dataset):
    """A set whose examples differ from visit to visit, by windows or mirrorings: implement `visit` and `__len__`."""

    def __len__(self) -> int:
        raise NotImplementedError

    def visit(self, index: int, number: int) -> Example:
        """The example at `index` as it is seen in the `number`-th pass over the set."""
        raise NotImplementedError

    def buckets(self) -> list[int] | None:
        """Which shape each example has, any numbers; None where all have the same."""
        return None

    def __getitem__(self, index: int) -> Example:
        return self.visit(index, 0)


class Visits(Dataset):
    """Any dataset of examples, asked for by (index, pass) as the samplers name them."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, visit: tuple[int, int]) -> Example:
        return self.dataset.visit(*visit) if isinstance(self.dataset, VisitedDataset) else self.dataset[visit[0]]


class Mixed(VisitedDataset):
    """Two sets in equal parts, the smaller one met more often; losses of the second count `weight` (DreamBooth's prior preservation).

    Args:
        first, second: sets of images of one size, or of the same buckets.
        weight: of the second.
    """

    def __init__(self, first: VisitedDataset, second: VisitedDataset, weight: float):
        self.parts, self.weight = (first, second), weight

    def __len__(self) -> int:
        return 2 * max(map(len, self.parts))

    def buckets(self) -> list[int] | None:
        of_parts = [part.buckets() for part in self.parts]
        if any(buckets is None for buckets in of_parts):
            return None
        places = [divmod(index, 2) for index in range(len(self))]
        return [of_parts[part][place % len(self.parts[part])] for place, part in places]  # pyright: ignore[reportOptionalSubscript]

    def visit(self, index: int, number: int) -> Example:
        place, part = divmod(index, 2)
        rounds, inside = divmod(place, len(self.parts[part]))
        passes = -(-len(self) // 2 // len(self.parts[part]))
        example = self.parts[part].visit(inside, number * passes + rounds)
        return example if part == 0 else Example(**{**example, "weight": self.weight})


class Conditioned(VisitedDataset):
    """A set with conditioning images made of its images: a mask and what it leaves, edges, a sketch.

    Args:
        dataset: of images.
        make: an image as the set has it (C, H, W), with a generator for what is random in its condition, to `Example.cond_images`.
        seed: of these generators; each example has another one in each pass.
    """

    def __init__(self, dataset: VisitedDataset, make: Callable[[Tensor, np.random.Generator], Tensor], *, seed: int = 0):
        self.dataset, self.make, self.seed = dataset, make, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def buckets(self) -> list[int] | None:
        return self.dataset.buckets()

    def visit(self, index: int, number: int) -> Example:
        example = self.dataset.visit(index, number)
        image = example["pixel_values"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
        cond_images = self.make(image, np.random.default_rng((self.seed, index, number, CONDITION)))
        return Example(**{**example, "cond_images": cond_images})


class Batch(TypedDict):
    """Examples put together, embeddings padded.

    Images in uint8 stay so until `on_device` makes them floats in [-1, 1], those of `cond_images` in [0, 1], and embeddings in bfloat16
    until `TextReader` reads them: a quarter and half of the bytes that go from workers to the run, and from there to a GPU.
    """

    pixel_values: Tensor
    low_res: NotRequired[Tensor]
    cond_images: NotRequired[Tensor]
    prompt: NotRequired[list[str]]
    text: NotRequired[TextEmbedding]
    weight: Tensor
    pixel_weight: NotRequired[Tensor]
    skipped: list[str]


def collate(examples: list[Example]) -> Batch:
    given: list[dict[str, Any]] = [dict(e) for e in examples]
    if len(shapes := {tuple(e["pixel_values"].shape) for e in given}) > 1:
        raise ValueError(
            f"images of one batch have the shapes {', '.join(map(str, sorted(shapes)))}: with aspect_buckets each shape that two sets have "
            "needs an image in both that can be used; mend or leave out those that skipped.txt lists, or leave aspect_buckets out"
        )
    batch = Batch(
        pixel_values=torch.stack([e["pixel_values"] for e in given]),
        weight=torch.tensor([e.get("weight", 1.0) for e in given]),
        skipped=[told for e in given for told in e.get("skipped", [])],
    )
    if low_res := _of_all(given, "low_res"):
        batch["low_res"] = torch.stack(low_res)
    if cond_images := _of_all(given, "cond_images"):
        batch["cond_images"] = _checked(torch.stack(cond_images))
    if pixel_weight := _of_all(given, "pixel_weight"):
        batch["pixel_weight"] = torch.stack(pixel_weight)
    if tokens := _of_all(given, "prompt_embeds"):
        mask = pad_sequence([torch.ones(len(t), dtype=torch.bool) for t in tokens], batch_first=True)
        batch["text"] = TextEmbedding(pad_sequence(tokens, batch_first=True), mask)
    elif prompts := _of_all(given, "prompt"):
        batch["prompt"] = prompts
    return batch


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its images as floats, and all but its text on the device, whatever the device with the same bits."""
    placed: Any = dict(batch)
    for name in (*IMAGES, "weight", "pixel_weight"):
        if name in placed:
            # From the pinned memory of a run on a GPU a copy need not be waited for.
            value = placed[name].to(device, non_blocking=device.type == "cuda")
            is_image = name in IMAGES and value.dtype == torch.uint8
            placed[name] = _floats(name, device)[value.int()] if is_image else value
    return placed


def _of_all(examples: list[dict[str, Any]], name: str) -> list[Any]:
    """What each example has by this name; empty where none has it, and a `ValueError` where some have."""
    there = [e[name] for e in examples if name in e]
    if there and len(there) < len(examples):
        raise ValueError(f"{len(there)} of {len(examples)} examples of a batch have {name}; give it with all, or with none")
    return there


def _checked(cond_images: Tensor) -> Tensor:
    """Refuse floats that are not in [0, 1], by a `ValueError`."""
    if cond_images.dtype == torch.uint8:
        return cond_images
    low, high = cond_images.min().item(), cond_images.max().item()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"cond_images have values from {low:g} to {high:g}; give floats in [0, 1], as sampling has them, or uint8")
    return cond_images.float()


@cache
def _floats(name: str, device: torch.device) -> Tensor:
    """What each of the 256 values of images by this name is as a float, worked out on the CPU: torch on a GPU divides otherwise."""
    values = torch.arange(256).float()
    return (values / 255 if name == "cond_images" else values / 127.5 - 1).to(device)
