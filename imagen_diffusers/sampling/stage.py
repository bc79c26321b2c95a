"""One stage of the cascade, and the one denoising loop of the package.

A stage is data: a network, its scheduler, its sampling settings. The loop inside a step is: scale the noisy image, then
attach the low-resolution condition, network, guidance, the clean image (thresholded), `scheduler.step` from it. It knows no prompts
and no files.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from imagen_diffusers.schedulers.driving import (
    accepts,
    as_output,
    check_drivable,
    check_one_step,
    check_steps,
    check_variance,
    clean_image,
    leave_out_times_before_the_first,
    preconditions,
    prepare_for_x0,
    reads_variance,
)
from imagen_diffusers.schedulers.precision import standard_normal
from imagen_diffusers.schedulers.protocol import Scheduler
from imagen_diffusers.text.encoding import TextEmbedding, pad_together

from .guidance import EVERYWHERE, guide, is_guided
from .guiders import Guider, GuiderAtWork
from .network import StageNetwork
from .own_times import check_times
from .path import Path
from .tiles import Pieces


@dataclass
class StepState:
    """Where the loop stands after a step. Replace `latents` or `guidance_scale` to steer what follows; 1 or less ends guidance."""

    index: int
    timestep: Tensor
    latents: Tensor
    low_res: Tensor | None
    guidance_scale: float


@dataclass(frozen=True)
class Stage:
    """A network with its scheduler and settings.

    Args:
        name: the pipeline's slot, "unet", "unet_2" or "unet_3".
        network: through the adapter of its kind.
        scheduler: any variance-preserving diffusers scheduler, or an EDM one for a network trained under EDM's
            preconditioning; it is copied, never changed.
        num_inference_steps: steps the scheduler is asked for.
        guidance_scale: w of equation 2; 1 turns guidance off. With a guider, what `guiders.scale_of` says, for callbacks to read.
        noise_level: augmentation of the low-resolution condition, in [0, 1000); unused by a base stage.
        guidance_interval: the steps that are guided, as fractions of them all, from noise to image.
        guidance_parallel: as in `guidance.guide`.
        pieces: how much the network is given at once.
        times: in place of `num_inference_steps`: ("timesteps", values) or ("sigmas", values), for schedulers that take them.
        guider: guides in place of equation 2; it is copied, never changed.
    """

    name: str
    network: StageNetwork
    scheduler: Scheduler
    num_inference_steps: int
    guidance_scale: float
    noise_level: float
    guidance_interval: tuple[float, float] = EVERYWHERE
    guidance_parallel: float = 1.0
    pieces: Pieces = Pieces()
    times: tuple[str, list[float]] | None = None
    guider: Guider | None = None

    @property
    def sample_size(self) -> int:
        return self.network.sample_size

    @property
    def dtype(self) -> torch.dtype:
        """Of its images: float32 at least."""
        return torch.promote_types(self.network.dtype, torch.float32)

    def prepared_scheduler(self, device: torch.device) -> Scheduler:
        """A copy of the scheduler with its timesteps set, whose `step` is given the clean image.

        Raises:
            ValueError: for a scheduler that cannot drive this network, or any.
        """
        check_drivable(self.scheduler)
        check_variance(self.scheduler, self.name, self.network.learns_variance)
        if preconditions(self.scheduler) != self.network.preconditioned:
            needed = "needs an EDM scheduler" if self.network.preconditioned else "cannot be driven by an EDM scheduler"
            raise ValueError(f"{self.name} {needed}, as it was trained; its scheduler is {type(self.scheduler).__name__}")
        scheduler = copy.deepcopy(self.scheduler)
        if self.times is None:
            check_steps(scheduler, self.num_inference_steps)
            scheduler.set_timesteps(self.num_inference_steps, device=device)
            check_one_step(scheduler, self.name)
        else:
            kind, values = self.times
            if not accepts(scheduler.set_timesteps, kind):
                raise ValueError(f"{type(scheduler).__name__} of {self.name} takes no {kind}; leave them out, or use another scheduler")
            check_times(scheduler, kind, values, self.name)
            scheduler.set_timesteps(device=device, **{kind: values})
        leave_out_times_before_the_first(scheduler)
        prepare_for_x0(scheduler)
        return scheduler

    def denoise(
        self,
        path: Path,
        size: tuple[int, int],
        generators: list[torch.Generator],
        *,
        text: TextEmbedding | None,
        null_text: TextEmbedding | None,
        low_res: Tensor | None = None,
        cond_images: Tensor | None = None,
        noise: Tensor | None = None,
        on_step_begin: Callable[[Tensor], None] = lambda timestep: None,
    ) -> Iterator[StepState]:
        """Noise to image, one state a step; the last one's `latents` are the image (B, C, height, width) in [-1, 1].

        Args:
            path: through the steps of a `prepared_scheduler`, where a task may start late or go back.
            size: (height, width), multiples of the network's stride.
            generators: one for each image; all the randomness there is.
            text, null_text: B embeddings each; `null_text` is read only under guidance.
            low_res: from the previous stage (B, C, h, w), for a super-resolution stage.
            cond_images: (B, c, h, w) in [0, 1], for a network conditioned on images.
            noise: to start from (B, C, height, width), standard normal; sampled from the generators by default.
            on_step_begin: called with a step's timestep before the network runs.
        """
        device = path.prepared.timesteps.device  # not the network's: offloaded, it is elsewhere until it runs
        sampled = standard_normal((len(generators), self.network.channels, *size), generators, device, self.dtype)
        if low_res is not None:
            own = standard_normal((*low_res.shape[:2], *size), generators, low_res.device, low_res.dtype)
            low_res = self.network.condition(low_res, own, self._level(low_res))
        latents = path.begin(sampled if noise is None else noise.to(device, self.dtype), generators)
        if cond_images is not None:
            cond_images = self.network.sized(cond_images, *size) if self.network.cond_channels else None
        conditions = self._conditions(text, null_text, low_res, cond_images)
        scale, guidable = self.guidance_scale, text is not None and self.network.text_dim is not None
        guider, first = self._guider_at_work(path), path.steps[0] if path.steps else 0
        guess = torch.zeros_like(latents) if self.network.self_conditioned else None
        extra = {"generator": generators} if accepts(path.prepared.step, "generator") else {}

        for index in path.steps:
            latents = path.enter(index, latents, generators)
            scheduler, timestep = path.scheduler, path.prepared.timesteps[index]
            on_step_begin(timestep)
            predict = partial(self._predict, scheduler.scale_model_input(latents, timestep), timestep, conditions, guess)
            if guider is not None:
                output, variance = guider.output(predict, index - first, timestep)
            elif guidable and scale != 1 and is_guided(index, path.count, self.guidance_interval):
                output, variance = predict(True, False)
                output = guide(*output.chunk(2), scale, self.guidance_parallel)
                variance = variance.chunk(2)[0]  # is not guided
            else:
                output, variance = predict(True)
            x0 = clean_image(scheduler, output, timestep, latents, self.scheduler.config)
            guess = None if guess is None else x0
            output = as_output(scheduler, x0, timestep, latents)
            if reads_variance(scheduler) and self.network.learns_variance:
                output = torch.cat((output, variance), dim=1)
            latents = path.leave(scheduler.step(output, timestep, latents, return_dict=False, **extra)[0], x0)
            state = StepState(index, timestep, latents, low_res, scale)
            yield state
            latents = state.latents
            if state.guidance_scale != scale:
                scale = max(state.guidance_scale, 1.0)
                if guider is not None:
                    guider.follow(scale)

    def _guider_at_work(self, path: Path) -> GuiderAtWork | None:
        if self.guider is None:
            return None
        return GuiderAtWork(copy.deepcopy(self.guider), self.network, self.name, len(set(path.steps)))

    def _predict(
        self, scaled: Tensor, timestep: Tensor, conditions: Callable[..., dict[str, Any]], guess: Tensor | None, *with_text: bool
    ) -> tuple[Tensor, Tensor]:
        """What the network predicts, and the variance it learned, for each of `with_text` in turn: the images' rows with text or without.

        Args:
            scaled: noisy images (B, C, H, W), as the network takes them.
            conditions: from `_conditions`.
            guess: x0 of the step before, for a network that takes it.
        """
        copies = len(with_text)
        given = conditions(*with_text) | ({} if guess is None else {"self_cond": guess.repeat(copies, 1, 1, 1)})
        output = self.pieces.predict(self.network, scaled.repeat(copies, 1, 1, 1), timestep, given)
        return output[:, : self.network.channels], output[:, self.network.channels :]

    def _conditions(
        self, text: TextEmbedding | None, null_text: TextEmbedding | None, low_res: Tensor | None, cond_images: Tensor | None
    ) -> Callable[..., dict[str, Any]]:
        """What the network is given besides the noisy images, by whether their rows are with text, without, or both in turn.

        Each is made once a stage.
        """

        @cache
        def made(*with_text: bool) -> dict[str, Any]:
            told = self._text([text if with_it else null_text for with_it in with_text])
            copies = len(with_text)
            enlarged = None if low_res is None else low_res.repeat(copies, 1, 1, 1)
            arguments = self.network.arguments(told, enlarged, None if enlarged is None else self._level(enlarged))
            if cond_images is not None:
                arguments["cond_images"] = cond_images.repeat(copies, 1, 1, 1)
            return arguments

        return made

    def _level(self, low_res: Tensor) -> Tensor:
        """The noise level, once for each row (B,)."""
        return torch.full((len(low_res),), float(self.noise_level), device=low_res.device)

    def _text(self, texts: list[TextEmbedding | None]) -> TextEmbedding | None:
        """The rows of each text in turn; None for a network, or a call, without text."""
        given = [text for text in texts if text is not None]
        if self.network.text_dim is None or not given:
            return None
        if len(given) < len(texts):
            raise ValueError(f"{self.name} begins to be guided, and no text to steer away from was encoded: give negative_prompt_embeds")
        if len(given) == 1:
            return given[0]
        padded = pad_together(*given)
        return TextEmbedding(torch.cat([text.embeds for text in padded]), torch.cat([text.mask for text in padded]))
