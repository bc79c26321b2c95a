"""In which type a processor draws fastest."""

import platform
from functools import cache

import torch
from diffusers.utils import logging

logger = logging.get_logger(__name__)
SHORT = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}  # types, and who knows of instructions


def fastest_dtype(device: str) -> torch.dtype:
    """The type of networks on this device: bfloat16, or float32 on a CPU that multiplies in it more quickly.

    It decides an image's last digits, so it depends on what the processor is and not on a timing. Against float32, Intel's processors
    with AMX are about nine times as fast in bfloat16, AMD's with avx512_bf16 twice, and Intel's with avx512_bf16 and no AMX half as fast
    (`python -m benchmarks.ceilings` measures it). Where a processor has no instruction for it, bfloat16 is emulated.
    """
    return torch.bfloat16 if device != "cpu" or _multiplies_bfloat16() else torch.float32


@cache  # said once
def warn_if_emulated(dtype: torch.dtype, device: str) -> None:
    """Say so where a processor has no instructions for the type: networks then took thirty times as long as in float32, without a word."""
    if device != "cpu" or dtype not in SHORT or not torch.backends.mkldnn.is_available():
        return
    if not getattr(torch.ops.mkldnn, SHORT[dtype])():
        name = str(dtype).removeprefix("torch.")
        logger.warning(
            f"this processor has no instructions for {name}, in which networks take tens of times as long here as in float32: load the "
            "pipeline with dtype=torch.float32, or call pipe.to(torch.float32)"
        )


def _multiplies_bfloat16() -> bool:
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    if not hasattr(torch.cpu, "get_capabilities"):  # in older releases of torch
        return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())
    has = torch.cpu.get_capabilities()
    return bool(has.get("amx_bf16") or (has.get("avx512_bf16") and not has["cpu_name"].startswith("Intel")))
