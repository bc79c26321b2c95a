"""What training asks of a network: what sampling asks, by the same adapters (`sampling/network.py`), and that it needs no more.

So any kind of network that can be a stage can be trained: the adapter says how the condition is enlarged and noised, which arguments
there are besides the noisy images, how time is told, and which channels of the output are the prediction. Of a learned variance, as
DeepFloyd IF has it, images say nothing: its channels get no gradient of their own from them, as in diffusers' scripts.
"""

from typing import Any

from torch import Tensor

from imagen_diffusers.sampling.network import StageNetwork, adapt


def network_to_train(module: Any) -> StageNetwork:
    """A network by its adapter.

    Raises:
        ValueError: for a kind no stage can be, and for networks whose training needs more than noisy images, text and a condition.
    """
    network = adapt(module)
    for needs, what in (
        (network.preconditioned, "under EDM's preconditioning (imagen-pytorch's ElucidatedImagen)"),
        (network.self_conditioned, "on its own guesses (self_cond)"),
    ):
        if needs:
            raise ValueError(f"this {type(module).__name__} was trained {what}; it can be sampled here, and not trained further")
    return network


def with_cond_images(network: StageNetwork, arguments: dict[str, Any], cond_images: Tensor | None, images: Tensor) -> dict[str, Any]:
    """The arguments of a network, with conditioning images (B, c, h, w) in [0, 1] where it takes them, as large as `images`.

    Raises:
        ValueError: where they are missing, or not taken, or have other channels.
    """
    wanted, name = network.cond_channels, type(network.module).__name__
    if cond_images is None:
        if wanted:
            raise ValueError(
                f"this {name} takes conditioning images of {wanted} channels, and the examples have none: give them as cond_images, "
                "by conditioning_image_column, or by training/examples.py: Conditioned"
            )
        return arguments
    if not wanted:
        raise ValueError(
            f"the examples have cond_images, and this {name} takes none: leave them out, or make a network that takes them "
            "with models/conditioning_images.py: with_cond_channels"
        )
    if cond_images.shape[1] != wanted:
        raise ValueError(f"cond_images have {cond_images.shape[1]} channels, and this {name} takes {wanted}; give as many")
    return {**arguments, "cond_images": network.sized(cond_images, images.shape[-2], images.shape[-1])}
