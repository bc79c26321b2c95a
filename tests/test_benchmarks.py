"""What benchmarks and examples ask of the machine, on every torch that the package installs on."""

import json

import pytest
import torch

from benchmarks import ceilings, timing
from examples.scenes.device import device_type


@pytest.fixture(params=["cuda", "mps"])
def accelerator(request, monkeypatch) -> str:
    """A machine with one of this kind, under torch 2.6: without what later releases have."""
    kind = request.param
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.delattr(torch.accelerator, "max_memory_allocated", raising=False)
    monkeypatch.delattr(torch.mps, "get_device_name", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**29)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2**29)
    return kind


def test_an_accelerator_is_found_named_and_measured(accelerator, capsys) -> None:
    assert device_type() == accelerator and ceilings.device() == torch.device(accelerator)
    assert ceilings.machine().startswith({"cuda": "H100, torch", "mps": "Apple GPU of"}[accelerator])
    timing.print_peak_memory()
    assert json.loads(capsys.readouterr().out) == {"peak": {"cuda": 1.5, "mps": 0.5}[accelerator]}


def test_without_one_the_processor_is(monkeypatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))  # as built for, and not there
    assert device_type() == "cpu" and ceilings.device() == torch.device("cpu")
    assert "threads of" in ceilings.machine()
