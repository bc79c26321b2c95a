"""Two processes with half the batch each do what one does with the whole: data parallel, and sharded."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from imagen_diffusers import ImagenUNet2DConditionModel
from imagen_diffusers.training.checkpoints import list_checkpoints
from imagen_diffusers.training.validation import read_figures

from .forking import run_ranks
from .test_evaluating_kill import alone, files
from .test_training import Poison, fit, scalars, stop_at
from .test_validation import held_out

ROOT = Path(__file__).parent.parent
STEPS = 4
SHARDED = """
# accelerate offers sharding on accelerators alone; told that it may, its code runs on the CPU too.
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

Accelerator(cpu=True)
AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin(
    fsdp_version=2,
    auto_wrap_policy="transformer_based_wrap",
    transformer_cls_names_to_wrap=["ResnetBlock", "ImagenAttention"],
    state_dict_type="FULL_STATE_DICT",
    cpu_ram_efficient_loading=False,
)
for state in (AcceleratorState, PartialState):
    state._shared_state["distributed_type"] = DistributedType.FSDP
"""
RUN = """
import gc
import sys
from pathlib import Path
import torch
from torch.nn.parallel import DistributedDataParallel
from tests.test_training import Poison, fit
from tests.test_validation import held_out

begin, end = torch.distributed.init_process_group, torch.distributed.destroy_process_group

def begin_with_patience(**given):
    # Others wait while one validates and uploads; NCCL's own patience are 10 minutes.
    assert given["timeout"].total_seconds() >= 3600, given
    begin(**given)

def end_without_reducers(*arguments):
    # One that outlives the group may never let the program end: it destroys the group's threads with the interpreter's lock in its hands.
    assert not any(isinstance(thing, DistributedDataParallel) for thing in gc.get_objects())
    end(*arguments)

torch.distributed.init_process_group = begin_with_patience
torch.distributed.destroy_process_group = end_without_reducers
given = {"report_to": "tensorboard", "logging_steps": 1, "checkpointing_steps": 2, "optimizer": sys.argv[4]}
given |= {"validation_steps": 4, "measure": held_out(batch_size=3)}  # one batch each, of three and of one
fit(Path(sys.argv[1]), int(sys.argv[3]), train_batch_size=2, dataset=Poison(1), **given)
"""


def run_two(folder: Path, kind: str, steps: int, optimizer: str = "adamw", launched: bool = False) -> None:
    """In two processes, which torch's own command launches or which are there sooner."""
    script = folder.with_suffix(".py")
    script.write_text((SHARDED if kind == "fsdp2" else "") + RUN)
    if not launched:
        run_ranks(2, script, folder, kind, steps, optimizer)
        return
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launch, str(script), str(folder), kind, str(steps), optimizer], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    given = {"report_to": "tensorboard", "logging_steps": 1, "validation_steps": STEPS, "measure": held_out(batch_size=3)}
    fit(folder, STEPS, train_batch_size=4, dataset=Poison(1), **given)
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "launched"), [("ddp", False), ("fsdp2", False), pytest.param("ddp", True, marks=pytest.mark.slow)], ids=str
)
def test_two_processes_do_what_one_does(one, tmp_path, kind, launched) -> None:
    folder = tmp_path / kind
    run_two(folder, kind, STEPS, launched=launched)
    # Float32 sums in another order, and Adam, which makes whole steps of gradients that are all but zero: 1.5e-5 of the loss at step 4.
    for tag, tolerance in {"loss": (5e-5, 1e-6), "grad_norm": (1e-4, 1e-5), "skipped_steps": (0, 0)}.items():
        np.testing.assert_allclose(scalars(folder, tag), scalars(one, tag), *tolerance)
    (figures,), (expected,) = read_figures(folder), read_figures(one)
    assert figures == pytest.approx(expected, rel=1e-3)  # of weights that differ as little
    assert scalars(one, "skipped_steps") == [0, 1, 1, 1]  # one process alone meets the image of NaN, and both leave its step out
    alone = ImagenUNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    expected = load_file(one / "unet" / "diffusion_pytorch_model.safetensors")
    # Adam makes whole steps of gradients that are all but zero, so single weights may differ; together they do not.
    difference = sum((value - expected[name]).square().sum() for name, value in alone.state_dict().items())
    assert difference.sqrt() < 1e-3 * sum(value.square().sum() for value in expected.values()).sqrt()

    # Stopped and resumed, the two processes end where they ended.
    kept = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    stop_at(folder, 2)
    assert [p.name for p in list_checkpoints(folder)] == ["checkpoint-2"]
    run_two(folder, kind, STEPS)
    again = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(kept[name], again[name]) for name in kept)


@pytest.mark.slow
def test_muon_on_shards_does_what_it_does_on_one_process(tmp_path) -> None:
    fit(tmp_path / "one", 2, train_batch_size=4, dataset=Poison(1), optimizer="muon")
    run_two(tmp_path / "two", "fsdp2", 2, optimizer="muon")
    one, two = (load_file(tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors") for name in ("one", "two"))
    difference = sum((two[name] - value).square().sum() for name, value in one.items())
    assert difference.sqrt() < 1e-3 * sum(value.square().sum() for value in one.values()).sqrt()


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "accelerate").glob("*.yaml")), ids=lambda p: p.stem)
def test_configurations_are_accelerates_own(path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import FullyShardedDataParallelPlugin

    config = load_config_from_file(str(path))  # refuses keys it does not know
    if config.distributed_type == "FSDP":
        names = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
        assert sorted(names) == sorted(ImagenUNet2DConditionModel._no_split_modules)
        given = {k.removeprefix("fsdp_") for k in config.fsdp_config} - {"transformer_layer_cls_to_wrap", "offload_params", "version"}
        assert given <= set(FullyShardedDataParallelPlugin.__dataclass_fields__)


EVALUATE = """
import sys
from pathlib import Path
from tests.test_evaluating_kill import run

run(Path(sys.argv[1]))
"""


@pytest.mark.thorough
def test_two_processes_evaluate_to_the_bits_of_one(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(EVALUATE)
    run_ranks(2, script, tmp_path / "two")
    assert files(tmp_path / "two") == alone(tmp_path / "one")
