"""What a call asks for, whatever its task: the arguments that all tasks share, as the caller gave them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from .edits import Edit
from .text_inputs import TextInputs

SETTINGS = (
    "num_inference_steps",
    "guidance_scale",
    "noise_level",
    "guidance_interval",
    "guidance_parallel",
    "guider",
    "timesteps",
    "sigmas",
)


@dataclass(frozen=True)
class Request:
    """One call of a cascade; the arguments are explained in `ImagenCascadePipeline.__call__`.

    Args:
        text: prompts or embeddings.
        settings: of the stages, by the names that `StagesMixin.stages` takes.
        low_res: images that the first stage enlarges.
        scale: how many times larger their enlargements are.
        edit: an image to start from, and what of it is painted anew.
    """

    text: TextInputs
    settings: dict[str, Any]
    height: int | None = None
    width: int | None = None
    num_images_per_prompt: int = 1
    generator: torch.Generator | list[torch.Generator] | None = None
    latents: Tensor | Sequence[Tensor | None] | None = None
    low_res: Any = None
    scale: float | None = None
    start_at: int | None = None
    stop_at: int | None = None
    cond_images: Any = None
    edit: Edit | None = None
    output_type: str = "pil"
    return_dict: bool = True
    callback_on_step_end: Callable[..., dict[str, Tensor]] | None = None
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)
    callback_on_stage_end: Callable[..., None] | None = None

    @property
    def unprompted(self) -> bool:
        """Whether an image alone is followed."""
        return self.edit is not None and self.text == TextInputs()

    @property
    def name_of_low_res(self) -> str:
        """The call's argument: where images are to be enlarged and nothing else is theirs it is `image`."""
        return "image" if self.edit is None else "low_res"

    @classmethod
    def of(cls, arguments: dict[str, Any], **more: Any) -> Self:
        """The request of a call with these arguments.

        Args:
            arguments: of a task's `__call__`, by their names, as `locals()` has them at its start; the task's own are passed over.
            more: `low_res` or `edit`, which the task makes of its own.
        """
        names = {field.name for field in fields(cls)} - {"text", "settings", "low_res", "edit"}
        text = TextInputs(**{name: arguments[name] for name in TextInputs._fields})
        settings = {name: arguments[name] for name in SETTINGS}
        return cls(text, settings, **{name: arguments[name] for name in names & arguments.keys()}, **more)
