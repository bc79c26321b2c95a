"""Times of the caller's own: schedulers take what lies outside their curve, or cut fractions off, in silence."""

from collections.abc import Sequence

from imagen_diffusers.schedulers.driving import has_whole_times
from imagen_diffusers.schedulers.noise import NUM_TRAIN_TIMESTEPS
from imagen_diffusers.schedulers.protocol import Scheduler


def check_times(scheduler: Scheduler, kind: str, values: Sequence[float], name: str) -> None:
    """See that a scheduler has these times.

    Args:
        scheduler: of the stage.
        kind: "timesteps" or "sigmas".
        values: falling numbers.
        name: of the stage.

    Raises:
        ValueError: for sigmas that do not end in 0, timesteps outside the curve, and fractions for a scheduler of whole timesteps.
    """
    if kind == "sigmas":
        if len(values) < 2 or values[-1] != 0:  # the last one is where a stage ends, and no step
            raise ValueError(f"sigmas of {name} are {values}; give the sigma of each step and after them 0, where no noise is left")
        return
    which = type(scheduler).__name__
    last = scheduler.config.get("num_train_timesteps", NUM_TRAIN_TIMESTEPS) - 1
    if values[0] > last or values[-1] < 0:
        raise ValueError(f"timesteps of {name} are {values}; {which} has times from {last} to 0")
    if any(value % 1 for value in values) and has_whole_times(scheduler):
        raise ValueError(
            f"timesteps of {name} are {values}, and {which} has whole ones alone; give these, or use ImagenDDPMScheduler, whose time is "
            "continuous"
        )
