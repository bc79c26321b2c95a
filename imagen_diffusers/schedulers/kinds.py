"""What the schedulers of diffusers do each in their own way, as far as the denoising loop must know of it.

Kinds go by the names of classes, a scheduler's own and those that it inherits from, so that a subclass keeps to the rules of what it
subclasses, and none needs to be imported: some ask for packages of their own.
"""

from typing import Any

# `step` takes no x0; they are given the noise that it implies instead.
TAKES_NO_X0 = frozenset(
    {
        "EulerAncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "PNDMScheduler",
        "DPMSolverSDEScheduler",
    }
)
# Their last step ends at the curve's first noise level instead of at none, which can be seen on the curve of a large image.
ENDS_IN_NOISE = frozenset({"DEISMultistepScheduler", "PNDMScheduler", "SASolverScheduler", "TCDScheduler"})
# What their first steps are is laid out from step 0 on; begun later, they go wrong even where the network knows the answer.
BEGINS_AT_THE_FIRST = frozenset({"PNDMScheduler", "LMSDiscreteScheduler"})
# It averages the noise that outputs imply over several steps: where the first outputs are far off, no later step mends them.
AVERAGES_NOISE = frozenset({"PNDMScheduler"})
# They go from an image to noise.
INVERTS = frozenset({"DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"})


def is_of(scheduler: Any, kind: frozenset[str]) -> bool:
    """Whether a scheduler, or what it is a subclass of, is of a kind above."""
    return any(cls.__name__ in kind for cls in type(scheduler).__mro__)
