"""What training asks of a network: what sampling asks, by the same adapters (`sampling/network.py`), and that it needs no more.

So any kind of network that can be a stage can be trained: the adapter says how the condition is enlarged and noised, which arguments
there are besides the noisy images, how time is told, and which channels of the output are the prediction. Of a learned variance, as
DeepFloyd IF has it, the loss sees nothing: its channels get no gradient of their own, as in diffusers' scripts.
"""

from typing import Any

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
        (network.cond_channels, "on conditioning images (cond_images_channels), which training sets here do not hold"),
    ):
        if needs:
            raise ValueError(f"this {type(module).__name__} was trained {what}; it can be sampled here, and not trained further")
    return network
