"""Where examples compute: on an accelerator where there is one."""

import torch


def device_type() -> str:
    """The kind of accelerator, "cuda" for example, or "cpu"."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if accelerator is None else accelerator.type
