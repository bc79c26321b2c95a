"""What a graph is given: what the denoising loop gives the network it is of, under the names of the network's own arguments.

Letters in shapes: B batch, C channels, H height, W width, L tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.text.encoding import TextEmbedding

Inputs = dict[str, Tensor]

IMAGE, TEXT, MASK = 4, 3, 2  # dimensions of what has a height and a width, of what has a width of text, and of what says which tokens count
TOKENS = 5
MOST_ROWS = 63  # diffusers' own U-Net asks whether there are 64 rows, in which case it copies; what it computes is the same


def example(network: StageNetwork, rows: int, patches: tuple[int, int], tokens: int, seed: int = 0) -> Inputs:
    """Random inputs of a network, as the loop would give them.

    Args:
        network: through the adapter of its kind.
        rows: B.
        patches: H and W, in units of the network's stride.
        tokens: L; the last one of the last row is padding, where there are several.
        seed: of the values.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = (n * network.stride for n in patches)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    text = level = low_res = None
    if network.text_dim is not None:
        mask = torch.ones(rows, tokens, dtype=torch.bool)
        mask[-1, -1] = tokens == 1
        text = TextEmbedding(noise(rows, tokens, network.text_dim) * mask[..., None], mask)
    if network.has_low_res:
        level = torch.full((rows,), 200.0)
        small = noise(rows, network.low_res_channels, max(height // 2, 1), max(width // 2, 1))
        low_res = network.condition(small, noise(rows, network.low_res_channels, height, width), level)
    arguments = network.arguments(text, low_res, level)
    if network.cond_channels:
        arguments["cond_images"] = noise(rows, network.cond_channels, height, width).sigmoid()
    if network.self_conditioned:
        arguments["self_cond"] = noise(rows, network.channels, height, width)
    return given_to(network, noise(rows, network.channels, height, width), torch.full((rows,), 500.0), arguments)


def given_to(network: StageNetwork, sample: Tensor, timestep: Tensor, arguments: dict[str, Any]) -> Inputs:
    """What `network.predict` of the same arguments calls the network with, by name: the noisy images and the time come first."""
    caught: Inputs = {}

    def catch(sample: Tensor, timestep: Tensor, *, return_dict: bool, **others: Any) -> tuple[Tensor]:
        caught.update(sample=sample, timestep=timestep, **{name: value for name, value in others.items() if value is not None})
        return (sample,)

    network.through(catch).predict(sample, timestep, arguments)
    return caught


def dynamic(inputs: Inputs, stride: int = 1, most_tokens: int | None = None) -> dict[str, dict[int, Any]]:
    """Which sides of the inputs are free: the batch, height and width in steps of the network's stride, and the number of tokens."""
    batch, tokens = Dim("batch", max=MOST_ROWS), Dim("tokens", max=most_tokens)
    height, width = stride * Dim("rows"), stride * Dim("columns")
    sides: dict[int, dict[int, Any]] = {IMAGE: {2: height, 3: width}, TEXT: {1: tokens}, MASK: {1: tokens}}
    return {name: {0: batch, **sides.get(value.ndim, {})} for name, value in inputs.items()}


def names_of_sides(dimensions: int) -> dict[int, str]:
    """The free sides of an input or output of so many dimensions, by what ONNX and OpenVINO users read."""
    sides = {IMAGE: {2: "height", 3: "width"}, TEXT: {1: "tokens"}, MASK: {1: "tokens"}}
    return {0: "batch", **sides.get(dimensions, {})}


def check_shapes(given: Inputs, sides: Mapping[str, tuple[int | None, ...]]) -> None:
    """See that inputs have the shapes that a graph takes. Not every runtime does: OpenVINO answers with an old output.

    Args:
        given: by name.
        sides: of each; None is free, but sides of one name, of `names_of_sides`, are equal.

    Raises:
        ValueError: naming the input.
    """
    free = dict(zip(["batch"], next(iter(given.values())).shape, strict=False))
    for name, value in given.items():
        names = names_of_sides(len(sides[name]))
        wanted = [free.get(names.get(i, "")) if side is None else side for i, side in enumerate(sides[name])]
        if value.ndim != len(wanted) or any(side not in (None, size) for side, size in zip(wanted, value.shape, strict=True)):
            told = ", ".join("any" if side is None else str(side) for side in wanted)
            raise ValueError(f"{name} has the shape {tuple(value.shape)}, where the graph takes ({told}) beside its other inputs")
        free |= {names[i]: value.shape[i] for i, side in enumerate(sides[name]) if side is None and i in names}
