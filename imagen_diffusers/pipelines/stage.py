"""One stage of the cascade, and the one denoising loop of the package.

A stage is data: a network, its scheduler, its sampling settings. The loop inside a step is: scale the noisy picture, then
attach the low-resolution condition, network, guidance, threshold, `scheduler.step`. It knows no prompts and no files.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from imagen_diffusers.schedulers.driving import (
    accepts,
    check_drivable,
    learns_variance,
    signal_and_noise,
    threshold_output,
    thresholds_itself,
)
from imagen_diffusers.schedulers.prediction import from_x0
from imagen_diffusers.schedulers.protocol import Scheduler
from imagen_diffusers.text.t5 import TextEmbedding, pad_together

from .networks import StageNetwork

# Stock schedulers that cannot be told x0; they are told the noise it implies instead.
TAKES_NO_X0 = frozenset(
    {
        "EulerAncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "PNDMScheduler",
        "DPMSolverSDEScheduler",
    }
)


@dataclass
class StepState:
    """Where the loop stands after a step. Replace `latents` to steer what follows."""

    index: int
    timestep: Tensor
    latents: Tensor
    low_res: Tensor | None


@dataclass(frozen=True)
class Stage:
    """A network with its scheduler and settings.

    Args:
        name: the pipeline's slot, "unet", "unet_2" or "unet_3".
        network: through the adapter of its kind.
        scheduler: any variance-preserving diffusers scheduler; it is copied, never changed.
        num_inference_steps: steps the scheduler is asked for.
        guidance_scale: w of equation 2; 1 turns guidance off.
        noise_level: augmentation of the low-resolution condition, in [0, 1000); unused by a base stage.
    """

    name: str
    network: StageNetwork
    scheduler: Scheduler
    num_inference_steps: int
    guidance_scale: float
    noise_level: float

    @property
    def sample_size(self) -> int:
        return self.network.sample_size

    def prepared_scheduler(self, device: torch.device) -> Scheduler:
        """A copy of the scheduler with its timesteps set, that understands what the network predicts."""
        check_drivable(self.scheduler)
        scheduler = copy.deepcopy(self.scheduler)
        if self._says_noise:
            scheduler.register_to_config(prediction_type="epsilon")
        scheduler.set_timesteps(self.num_inference_steps, device=device)
        return scheduler

    @property
    def _says_noise(self) -> bool:
        return self.scheduler.config.get("prediction_type") == "sample" and type(self.scheduler).__name__ in TAKES_NO_X0

    def denoise(
        self,
        scheduler: Scheduler,
        size: tuple[int, int],
        generators: list[torch.Generator],
        *,
        text: TextEmbedding | None,
        null_text: TextEmbedding | None,
        low_res: Tensor | None = None,
    ) -> Iterator[StepState]:
        """Noise to picture, one state a step; the last one's `latents` are the picture (B, C, height, width) in [-1, 1].

        Args:
            scheduler: from `prepared_scheduler`.
            size: (height, width), multiples of the network's stride.
            generators: one for each picture; all the randomness there is.
            text, null_text: B embeddings each; `null_text` is read only under guidance.
            low_res: from the previous stage (B, C, h, w), for a super-resolution stage.
        """
        device = scheduler.timesteps.device  # not the network's: offloaded, it is elsewhere until it runs
        shape = (len(generators), self.network.channels, *size)
        latents = randn_tensor(shape, generator=generators, device=device, dtype=torch.float32) * scheduler.init_noise_sigma
        guided = self.guidance_scale != 1 and text is not None and self.network.text_dim is not None
        copies = 2 if guided else 1
        text = self._text(text, null_text if guided else None)
        if low_res is not None:
            low_res = self.network.condition(low_res, size, self.noise_level, generators)
        arguments = self.network.arguments(text, None if low_res is None else low_res.repeat(copies, 1, 1, 1), self.noise_level)
        extra = {"generator": generators} if accepts(scheduler.step, "generator") else {}
        by_hand = scheduler.config.get("thresholding") and not thresholds_itself(scheduler)

        for index, timestep in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(latents, timestep)
            output = self.network.predict(scaled.repeat(copies, 1, 1, 1), timestep, arguments)
            output, variance = output[:, : self.network.channels], output[:, self.network.channels :]
            if guided:
                with_text, without = output.chunk(2)
                output = without + self.guidance_scale * (with_text - without)  # equation 2
                variance = variance.chunk(2)[0]  # is not guided
            if self._says_noise:
                output = from_x0(output, scaled, *signal_and_noise(scheduler, timestep, latents), "epsilon")
            if by_hand:
                output = threshold_output(scheduler, output, timestep, latents)
            if learns_variance(scheduler) and self.network.learns_variance:
                output = torch.cat((output, variance), dim=1)
            latents = scheduler.step(output, timestep, latents, return_dict=False, **extra)[0]
            state = StepState(index, timestep, latents, low_res)
            yield state
            latents = state.latents

    def _text(self, text: TextEmbedding | None, null_text: TextEmbedding | None) -> TextEmbedding | None:
        """The text's rows, then those of no text under guidance."""
        if text is None or self.network.text_dim is None or null_text is None:
            return None if self.network.text_dim is None else text
        text, null_text = pad_together(text, null_text)
        return TextEmbedding(torch.cat((text.embeds, null_text.embeds)), torch.cat((text.mask, null_text.mask)))
