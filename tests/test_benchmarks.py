"""What benchmarks and examples ask of the machine, on every torch that the package installs on."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from benchmarks import ceilings, counting, gpu, operations, scale, solvers, stages, tiles, timing
from examples.scenes.device import device_type
from imagen_diffusers import ImagenEfficientUNet2DConditionModel, ImagenUNet2DConditionModel


@pytest.fixture(params=["cuda", "mps"])
def accelerator(request, monkeypatch) -> str:
    """A machine with one of this kind, under torch 2.7: without what later releases have."""
    kind = request.param
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.delattr(torch.accelerator, "max_memory_allocated", raising=False)
    monkeypatch.delattr(torch.mps, "get_device_name", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**29)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2**29)
    monkeypatch.setenv(timing.DEVICE, kind)
    return kind


def test_an_accelerator_is_found_named_and_measured(accelerator, capsys) -> None:
    assert device_type() == accelerator and ceilings.device() == torch.device(accelerator)
    assert ceilings.machine().startswith({"cuda": "H100, torch", "mps": "Apple GPU of"}[accelerator])
    timing.print_peak_memory()
    assert json.loads(capsys.readouterr().out) == {"peak": {"cuda": 1.5, "mps": 0.5}[accelerator]}


def test_without_one_the_processor_is(monkeypatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))  # as built for, and not there
    assert device_type() == "cpu"


def test_the_processor_is_measured_unless_another_device_is_named(monkeypatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.delenv(timing.DEVICE, raising=False)
    assert ceilings.device() == torch.device("cpu") and re.match(r"\d+ threads? of ", ceilings.machine())


@torch.no_grad()
def test_operations_are_counted_by_what_they_compute_and_move() -> None:
    image, weight = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 3, 3)
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, 4, 7, 8)
    with operations.Watch() as watch:
        out = F.conv2d(image, weight, padding=1)
        out * 2 * 2
        F.scaled_dot_product_attention(query, key, key)
    convolution, product = watch.spent[torch.ops.aten.convolution], watch.spent[torch.ops.aten.mul]
    attention = watch.spent[torch.ops.aten._scaled_dot_product_flash_attention_for_cpu]
    assert (convolution.calls, convolution.flop) == (1, 2 * out.numel() * 27)  # 3 channels x 3x3
    assert (product.calls, product.flop, product.moved) == (2, 0, 2 * 2 * 4 * out.numel())  # each reads and writes 4 bytes a number
    assert attention.flop == 2 * 2 * (2 * 4 * 6 * 7 * 8)  # two products
    whole = counting.flop(lambda: (F.conv2d(image, weight, padding=1), F.scaled_dot_product_attention(query, key, key)))
    assert whole == convolution.flop + attention.flop


def test_what_is_expanded_is_read_once() -> None:
    assert operations.moved(torch.zeros(4, 1, 3).expand(4, 5, 3)) == 4 * 12
    assert (
        operations.moved(torch.zeros(4, 5, 3)) == 4 * 60
        and operations.moved(torch.zeros(0, 3)) == 0
        and operations.moved(torch.tensor(1.0)) == 4
    )


def test_attention_of_a_large_training_keeps_no_matrix_of_weights() -> None:
    with torch.device("meta"):
        query, key = torch.empty(2, 4, 6, 8, requires_grad=True), torch.empty(2, 4, 7, 8, requires_grad=True)
        out = scale.Fused.apply(query, key, key)
    kept = [tuple(x.shape) for x in out.grad_fn.saved_tensors]
    assert out.shape == query.shape and kept == [(2, 4, 6, 8), (2, 4, 7, 8), (2, 4, 7, 8), (2, 4, 6, 8)]


def test_an_operation_is_held_to_the_rate_it_is_nearer_to(monkeypatch) -> None:
    monkeypatch.setattr(operations, "copy_rate", lambda: 10e9)
    monkeypatch.setattr(operations, "convolution_rate", lambda dtype: 400e9)
    convolution, few = operations.Spent(1, 2.0, flop=600_000_000_000, moved=10**9), operations.Spent(1, 2.0, flop=10**9, moved=10**10)
    assert operations.rate(torch.ops.aten.convolution, convolution, torch.float32) == ("300 GFLOP/s", 0.75)
    assert operations.rate(torch.ops.aten.convolution, few, torch.float32) == ("5.0 GB/s", 0.5)


def test_ways_of_sampling_are_compared_prompt_by_prompt() -> None:
    first = solvers.Measured("quality", [32, 16], 96, 3.0, torch.tensor([1.0, 1.0, 0.0, 1.0] * 50), 90.0)
    alike = first._replace(name="balanced")
    worse = first._replace(name="fast", right=torch.tensor([1.0, 0.0, 0.0, 1.0] * 50))
    rows = [line.split(" | ") for line in solvers.report([first, alike, worse], 200).splitlines()[-3:]]
    assert [row[4] for row in rows] == ["75%", "75%", "50%"]
    assert solvers.report([first], 200).startswith("200 prompts of one object, 64px then 256px, in batches of 8.")
    assert solvers.report([first], 200, 2).startswith("200 prompts of two objects, ")
    assert rows[0][5] == "" and rows[1][5] == "+0.0 (-1.4 to +1.4)"  # 200 that are alike do not say that all are
    # 25 points of 200 differences with the variance of a share of a quarter: 1.96 sqrt(0.25 * 0.75 / 200) = 6.0 to both sides
    difference, low, high = (float(x) for x in rows[2][5].replace("(", "").replace(")", "").replace(" to", "").split())
    assert difference == -25 and abs(low + 31.0) < 1 and abs(high + 19.0) < 1


def test_a_preset_of_ones_own_is_a_way_too() -> None:
    (own, sample_so), (solver, _), _ = solvers.ways(["my-preset", "ImagenDDPMScheduler"])
    given: list[str] = []
    sample_so(SimpleNamespace(use_preset=given.append))  # pyright: ignore[reportArgumentType]
    assert given == [own] == ["my-preset"] and solver == "ImagenDDPMScheduler"


def test_an_image_is_cut_into_tiles_that_are_smaller(monkeypatch, capsys) -> None:
    """A tile of its side has no edges to find."""
    monkeypatch.setattr(tiles, "given", lambda side: (torch.zeros(1, 3, side, side), ""))
    monkeypatch.setattr(tiles, "enlarge", lambda small, *_: small)
    monkeypatch.setattr(tiles, "peak_memory", lambda *_: 0.0)
    told = tiles.report(512)
    assert "tiles of 256" in told and "tiles of 512" not in told and "nan" not in told
    monkeypatch.setattr(sys, "argv", ["tiles", "--side", "256"])
    with pytest.raises(SystemExit):
        tiles.main()
    assert "--side is 256, of which one tile would be the whole image; give more than 256" in capsys.readouterr().err


def test_a_way_that_is_none_is_refused_at_once(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["solvers", "--way", "quality", "--way", "qualty"])
    with pytest.raises(SystemExit):
        solvers.main()
    assert "--way qualty is neither one of quality, balanced, fast, " in capsys.readouterr().err


@pytest.fixture
def small_networks(monkeypatch) -> None:
    """In place of the bundled ones, and nothing is compiled."""
    layout = {"block_out_channels": (32, 64), "layers_per_block": 1, "encoder_hid_dim": 32, "time_embed_dim": 64}
    base = {**layout, "sample_size": 8, "attention_levels": (False, True), "attention_head_dim": 32}
    efficient = {**layout, "layers_per_block": (1, 1), "attention_kind": "cross_text", "num_attention_heads": 2}

    def network(slot: str, *, paper: bool) -> torch.nn.Module:
        if slot == "unet":
            return ImagenUNet2DConditionModel(**base).eval()
        return ImagenEfficientUNet2DConditionModel(**efficient, sample_size={"unet_2": 16, "unet_3": 32}[slot]).eval()

    monkeypatch.setattr(stages, "network", network)
    monkeypatch.setattr(gpu, "WINDOWS", {"unet": 16, "unet_2": 32, "unet_3": 32})
    monkeypatch.setattr(gpu, "STEPS", (3, 2, 1))
    monkeypatch.setattr(gpu, "TOKENS", 8)
    monkeypatch.setattr(gpu, "matrix_rate", lambda dtype: 1e12)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: None)


def rows_of(report: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith("| ")][2:]


@pytest.mark.usefixtures("small_networks")
def test_what_a_gpu_is_measured_by_runs_everywhere(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)  # as if it were not there
    plan = gpu.Plan(evaluated=(1, 2), drawn=(1, 2), runs=1)
    told = list(gpu.evaluations(plan))
    assert [one.partition(":")[0] for one in told] == [f"{slot}, batch of {n}" for slot in gpu.NETWORKS for n in (1, 2)]
    for one in told:
        rows = rows_of(one)
        assert [row[0] for row in rows] == ["eager", "channels_last", "compiled"]
        assert all(float(row[-1]) < 0.02 for row in rows)  # every way gives the same image but for bfloat16's rounding
        assert "Left out: CUDA graphs" in one and "Left out: float8" in one and "torchao" in one

    (drawn,) = gpu.images(plan)
    assert "9 evaluations of an image" in drawn  # 3, 2 and 1 steps; 2 of 3 and 1 of 2 guided; the last stage is not
    assert [row[0] for row in rows_of(drawn)] == ["1", "2"]
    monkeypatch.setattr(gpu, "cascade", lambda plan: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")))
    assert list(gpu.images(plan)) == ["Left out: cascade (OutOfMemoryError: CUDA out of memory)"]


@pytest.mark.slow  # compiles a graph for each network and number of examples
@pytest.mark.usefixtures("small_networks")
def test_a_training_step_grows_until_the_memory_is_full(monkeypatch) -> None:
    taken = gpu.step

    def within_memory(unet, examples, side):
        take, steps = taken(unet, examples, side), []

        def take_few():
            steps.append(take())
            if examples > 4 and len(steps) > 1:  # beside the optimizer's state, which the first one makes
                raise torch.OutOfMemoryError("CUDA out of memory")

        return take_few

    monkeypatch.setattr(gpu, "step", within_memory)
    told = list(gpu.training(gpu.Plan(runs=1)))
    sizes = [f"{slot} at {side}px, 4 examples a step (OutOfMemoryError: CUDA out of memory)" for slot, side in gpu.WINDOWS.items()]
    assert [one.partition(":\n")[0] for one in told] == sizes and all(
        [row[0] for row in rows_of(one)] == ["eager", "compiled"] for one in told
    )
    assert next(gpu.training(gpu.Plan(runs=1, most=2))).startswith("unet at 16px, 2 examples a step (no more than 2 were tried)")
    monkeypatch.setattr(gpu, "step", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")))
    assert next(gpu.training(gpu.Plan(runs=1))) == "unet at 16px: no step of one example (OutOfMemoryError: CUDA out of memory)"


@pytest.mark.usefixtures("small_networks")
def test_a_step_of_the_benchmark_trains_every_weight() -> None:
    unet, seen = gpu.network("unet_2", gpu.Plan()), set()
    for name, p in unet.named_parameters():
        p.register_post_accumulate_grad_hook(lambda p, name=name: seen.add(name) if p.grad.abs().sum() > 0 else None)
    gpu.step(unet, 2, 32)()
    assert seen == {name for name, _ in unet.named_parameters()}
    assert all(p.grad is None for p in unet.parameters())
