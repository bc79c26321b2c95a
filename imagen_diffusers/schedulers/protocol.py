"""What the cascade asks of a scheduler: diffusers' contract, as a type."""

from typing import Any, Protocol

from torch import Tensor


class Scheduler(Protocol):
    """Any variance-preserving diffusers scheduler, or an EDM one (which has no betas); `driving.check_drivable` refuses the others."""

    config: Any
    timesteps: Tensor
    betas: Tensor
    alphas_cumprod: Tensor
    init_noise_sigma: Any
    step: Any  # (model_output, timestep, sample, [generator,] return_dict); solvers differ in what else they take

    precondition_outputs: Any  # of EDM ones alone

    def set_timesteps(self, num_inference_steps: Any = None, device: Any = None) -> None: ...

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor: ...

    def register_to_config(self, **kwargs: Any) -> None: ...

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Any) -> Tensor: ...
