import platform

import pytest
import torch

from imagen_diffusers.models.fastest_dtype import SHORT, fastest_dtype, warn_if_emulated

INTEL, AMD = {"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, {"cpu_name": "AMD EPYC", "avx512_bf16": True}


@pytest.mark.parametrize(
    "has, bfloat16",
    [(INTEL, False), (INTEL | {"amx_bf16": True}, True), (AMD, True), (AMD | {"avx512_bf16": False}, False)],
)
def test_a_cpu_draws_in_what_it_multiplies_fastest(has, bfloat16, monkeypatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert fastest_dtype("cpu") == (torch.bfloat16 if bfloat16 else torch.float32)
    assert fastest_dtype("cuda") == torch.bfloat16


def test_without_bfloat16_kernels_a_cpu_draws_in_float32(monkeypatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert fastest_dtype("cpu") == torch.float32


def test_older_torch_tells_amx_alone(monkeypatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    for amx, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False)
        assert fastest_dtype("cpu") == dtype


def test_a_type_that_a_cpu_only_emulates_is_warned_of_once(monkeypatch, caplog) -> None:
    here = {torch.bfloat16: True, torch.float16: False}
    for dtype, name in SHORT.items():
        monkeypatch.setattr(torch.ops.mkldnn, name, lambda dtype=dtype: here[dtype])
    warn_if_emulated.cache_clear()
    for _ in range(2):
        for dtype in (torch.float32, *SHORT):
            for device in ("cpu", "cuda"):
                warn_if_emulated(dtype, device)
    warn_if_emulated.cache_clear()
    assert len(caplog.records) == 1 and "no instructions for float16" in caplog.text and "dtype=torch.float32" in caplog.text
