"""A run beside other runs, and a run that ends before its last step."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from imagen_diffusers.training import loop
from imagen_diffusers.training.checkpoints import find_checkpoint, list_checkpoints
from imagen_diffusers.training.examples import Example
from imagen_diffusers.training.folders import one_run_in, put_in_place
from imagen_diffusers.training.processes import main_decides, tell_deepspeed

from .conftest import TEXT_DIM, make_base
from .forking import CONTEXT, result, start
from .test_training import Squares, assert_same_state, fit, settings

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps what it was first asked for; for tests that ask for something else."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


class Calls(Squares):
    """Squares that do something when the example at a position of the run is asked for."""

    def __init__(self, position: int, act):
        super().__init__()
        self.position, self.act, self.asked = position, act, 0

    def __getitem__(self, index: int) -> Example:
        if self.asked == self.position:
            self.act()
        self.asked += 1
        return super().__getitem__(index)


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def obeyed(request) -> Iterator[signal.Signals]:
    """One that is not ignored, as hangups are where the tests themselves run under nohup."""
    before = signal.signal(request.param, signal.SIG_DFL)
    yield request.param
    signal.signal(request.param, before)


@pytest.mark.thorough
def test_a_signal_ends_the_step_with_a_checkpoint(tmp_path, obeyed) -> None:
    before = signal.getsignal(obeyed)
    with pytest.raises(SystemExit) as leaving:
        fit(tmp_path, 6, checkpointing_steps=100, dataset=Calls(4, lambda: os.kill(os.getpid(), obeyed)))  # in the second step
    assert leaving.value.code == 128 + obeyed
    assert signal.getsignal(obeyed) == before
    assert [p.name for p in list_checkpoints(tmp_path)] == ["checkpoint-2"]
    assert (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").exists()
    fit(tmp_path, 6)
    fit(tmp_path / "whole", 6)
    assert_same_state(tmp_path / "whole" / "checkpoint-6", tmp_path / "checkpoint-6")


@pytest.mark.parametrize("where", ["validation", "export"])
def test_a_signal_after_the_last_step_ends_the_program_too(tmp_path, monkeypatch, where) -> None:
    def signalled(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return args

    if where == "export":
        export = loop.export_weights
        monkeypatch.setattr(loop, "export_weights", lambda *args: export(*signalled(*args)))
    measure = (lambda unet: signalled() or {"x": 1.0}) if where == "validation" else None
    with pytest.raises(SystemExit) as leaving:
        fit(tmp_path, 2, measure=measure, validation_steps=5)
    assert leaving.value.code == 128 + signal.SIGTERM
    assert [p.name for p in list_checkpoints(tmp_path)] == ["checkpoint-2"]
    assert (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").exists()


def test_a_second_interrupt_does_not_wait(tmp_path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, 6, dataset=Calls(4, twice))
    assert not list_checkpoints(tmp_path)


def test_a_run_that_no_hangup_is_to_end_goes_on(tmp_path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as of nohup
    try:
        fit(tmp_path, 2, dataset=Calls(1, lambda: os.kill(os.getpid(), signal.SIGHUP)))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["checkpoint-2"]


def test_the_time_limit_ends_with_a_checkpoint_and_returns(tmp_path) -> None:
    fit(tmp_path, 6, checkpointing_steps=100, time_limit=0.0)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["checkpoint-1"]
    assert (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").exists()


GROUP = """
import os, sys, time
from pathlib import Path
from tests.test_training import Squares, fit


class Told(Squares):
    def __getitem__(self, index):
        (Path(sys.argv[1]) / f"worker-{os.getpid()}").touch()
        time.sleep(0.02)
        return super().__getitem__(index)


fit(Path(sys.argv[1]), 10_000, dataset=Told(), dataloader_num_workers=2, checkpointing_steps=2, checkpoints_total_limit=2)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_all_processes_leaves_workers_until_the_run_has_ended(tmp_path, number) -> None:
    command = [sys.executable, "-c", GROUP, str(tmp_path)]
    process = subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "checkpoint-2").exists():
        time.sleep(0.05)
    workers = [int(path.name.split("-")[1]) for path in tmp_path.glob("worker-*")]
    assert len(workers) == 2
    os.killpg(process.pid, number)
    if number != signal.SIGKILL:
        for worker in workers:  # which are in groups of their own
            os.kill(worker, number)
    _, error = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number, error[-2000:]
        assert f"stopped by {number.name}" in error
        assert (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").exists()
    end = time.monotonic() + 20  # torch's workers look for their parent every five seconds
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, workers))


BROKEN = """
import sys
from pathlib import Path
from imagen_diffusers.finetuning.flags import run_script
from tests.test_training import Squares, fit


class Broken(Squares):
    def __getitem__(self, index):
        raise OSError("image file is truncated")


run_script(lambda: fit(Path(sys.argv[1]), 10, dataset=Broken(), dataloader_num_workers=2))
"""


@pytest.mark.thorough
def test_an_error_in_a_worker_ends_the_program(tmp_path) -> None:
    """Its workers pass over one SIGTERM, and at a program's end multiprocessing sends no other."""
    ended = subprocess.run([sys.executable, "-c", BROKEN, str(tmp_path)], env=ENVIRONMENT, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith("Error: image file is truncated")


def hold(folder: Path, held) -> None:
    with one_run_in(folder):
        held.set()
        time.sleep(100)


def test_two_runs_into_one_folder_are_refused_until_the_first_is_killed(tmp_path) -> None:
    held = CONTEXT.Event()
    process = start(hold, tmp_path, held)
    assert held.wait(60)
    with pytest.raises(ValueError, match=r"another run is writing into .*; wait until it has ended, or choose another folder"):
        fit(tmp_path, 1)
    process.kill()
    process.join()
    fit(tmp_path, 1)
    with one_run_in(tmp_path), one_run_in(tmp_path / "stage-1"):  # folders inside are other folders
        pass


@pytest.mark.thorough
def test_a_run_goes_on_from_the_last_checkpoint_of_its_folder_alone(tmp_path) -> None:
    fit(tmp_path / "one", 9)
    with pytest.raises(ValueError, match=r"checkpoint-3 is not the last checkpoint of .*, which holds checkpoint-9.*another output_dir"):
        fit(tmp_path / "one", 12, resume_from_checkpoint="checkpoint-3")
    with pytest.raises(ValueError, match="is not the last"):
        find_checkpoint(tmp_path / "one", str(tmp_path / "one" / "checkpoint-6"))
    early = str(tmp_path / "one" / "checkpoint-3")
    fit(tmp_path / "two", 9, resume_from_checkpoint=early, checkpoints_total_limit=1)
    assert_same_state(tmp_path / "one" / "checkpoint-9", tmp_path / "two" / "checkpoint-9")
    assert [p.name for p in list_checkpoints(tmp_path / "two")] == ["checkpoint-9"]
    with pytest.raises(ValueError, match="is not the last"):  # run again, the same command would begin anew among its own
        fit(tmp_path / "two", 12, resume_from_checkpoint=early)
    assert find_checkpoint(tmp_path / "one", "checkpoint-9") == tmp_path / "one" / "checkpoint-9"


def test_what_killed_runs_left_is_removed(tmp_path) -> None:
    for name in ("checkpoint-8.part", "checkpoint-9.deleted"):
        (tmp_path / name).mkdir()
    fit(tmp_path, 1)
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-1"]


def test_a_result_is_replaced_whole(tmp_path, monkeypatch) -> None:
    """At each moment of the exchange the old or the new folder is there in whole, and all but one have it at its place."""
    place, part = tmp_path / "unet", tmp_path / "unet.part"
    seen = []
    rename = os.replace

    def look() -> None:
        found = {p.name: (p / "weights").read_text() for p in tmp_path.iterdir() if (p / "weights").exists()}
        seen.append(found.get("unet", "missing"))
        assert found.get("unet.part") == "new" or found.get("unet") == "new"

    def watched(*args) -> None:
        look()
        rename(*args)
        look()

    for folder, text in ((place, "old"), (part, "new")):
        folder.mkdir()
        (folder / "weights").write_text(text)
    monkeypatch.setattr("imagen_diffusers.training.folders.os.replace", watched)
    put_in_place(part, place)
    assert seen == ["old", "missing", "missing", "new"]
    assert [p.name for p in tmp_path.iterdir()] == ["unet"]


def fit_on_a_small_disk(folder: Path, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    fit(folder, 6)


@pytest.mark.thorough
@pytest.mark.parametrize("share", [pytest.param(0.3, marks=pytest.mark.slow), 0.999], ids=["weights", "optimizer"])
def test_a_disk_that_fills_up_in_a_checkpoint_keeps_the_last_one(tmp_path, share) -> None:
    """Files may not grow beyond a limit, which for the writer is a full disk, wherever it writes from."""
    fit(tmp_path, 6)
    (tmp_path / "checkpoint-6").rename(tmp_path / "whole")
    sizes = sorted(p.stat().st_size for p in (tmp_path / "checkpoint-3").rglob("*") if p.stat().st_size > 50_000)
    limit = int(share * sizes[0]) if share < 0.5 else int(share * sizes[-1])
    with pytest.raises(OSError, match=r"^checkpoint-6 could not be written.*checkpoint-3 is complete and untouched; make room and resume"):
        result(fit_on_a_small_disk, tmp_path, limit)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    fit(tmp_path, 6)
    assert_same_state(tmp_path / "whole", tmp_path / "checkpoint-6")


def outputs(unet, low_res: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    side = 32 if low_res else 16
    noisy, text = torch.randn(2, 3, side, side, generator=generator), torch.randn(2, 5, TEXT_DIM, generator=generator)
    given = {"low_res": noisy, "noise_level": 10.0} if low_res else {}
    with torch.no_grad():
        return unet.eval()(noisy, 500.0, text, return_dict=False, **given)[0]


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize("low_res", [False, True])
def test_what_is_returned_computes_as_what_is_saved_does(tmp_path, low_res) -> None:
    unet = fit(tmp_path, 2, low_res, mixed_precision="bf16")
    assert "forward" not in vars(unet)
    saved = type(unet).from_pretrained(tmp_path, subfolder="unet")
    # Float32, not the 8 bits of bfloat16; what was trained lies in another memory layout, so that sums are taken in another order.
    torch.testing.assert_close(outputs(unet, low_res), outputs(saved, low_res), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("fresh_accelerate")
def test_the_precision_is_that_of_accelerates_configuration(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # as `accelerate launch --config_file` sets it
    seen = []
    unet = make_base()
    unet.head.register_forward_pre_hook(lambda _, given: seen.append(torch.is_autocast_enabled("cpu")))
    fit(tmp_path, 1, unet=unet)
    assert seen == [True]


@pytest.mark.usefixtures("fresh_accelerate")
def test_the_flag_comes_before_accelerates_configuration(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    plain = fit(tmp_path / "one", 1, mixed_precision="no")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    AcceleratorState._reset_state(True)
    again = fit(tmp_path / "two", 1)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), again.parameters(), strict=True))


def test_deepspeed_is_told_what_the_settings_say(tmp_path) -> None:
    """Its plugin alone is looked at; DeepSpeed itself is not there. Without numbers accelerate would look for them in loaders."""
    plugin = SimpleNamespace(deepspeed_config={"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto"})
    accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin), gradient_accumulation_steps=1)
    tell_deepspeed(accelerator, settings(tmp_path, 3, train_batch_size=6, gradient_accumulation_steps=4, max_grad_norm=0.5))
    told = {"train_micro_batch_size_per_gpu": 6, "gradient_accumulation_steps": 4, "gradient_clipping": 0.5}
    assert plugin.deepspeed_config == {"zero_optimization": {"stage": 2}, **told}
    assert accelerator.gradient_accumulation_steps == 4
    tell_deepspeed(SimpleNamespace(state=SimpleNamespace()), settings(tmp_path, 3))


@pytest.mark.thorough
@pytest.mark.usefixtures("fresh_accelerate")
def test_a_network_that_is_cast_to_bfloat16_is_averaged_and_given_out_in_float32(tmp_path, monkeypatch) -> None:
    prepare = Accelerator.prepare
    monkeypatch.setattr(
        Accelerator, "prepare", lambda self, unet, *more: prepare(self, unet.to(torch.bfloat16), *more)
    )  # as DeepSpeed does

    for steps in (2, 3):  # and gone on with
        unet = fit(tmp_path, steps, mixed_precision="bf16")
        averages = load_file(tmp_path / f"checkpoint-{steps}" / "unet_ema" / "diffusion_pytorch_model.safetensors")
        assert any((value != value.bfloat16()).any() for value in averages.values())  # finer than what the network holds
        for given_out in (load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors"), unet.state_dict()):
            assert all(given_out[name].dtype == torch.float32 and torch.equal(given_out[name], value) for name, value in averages.items())


def test_the_main_process_decides_for_all(monkeypatch) -> None:
    def refuse() -> None:
        raise ValueError("no")

    assert main_decides(lambda: 3) == 3
    with pytest.raises(ValueError, match="^no$"):
        main_decides(refuse)
    monkeypatch.setattr("imagen_diffusers.training.processes.this_process", lambda: SimpleNamespace(is_main_process=False))
    monkeypatch.setattr("imagen_diffusers.training.processes.as_main_says", lambda _: (None, (OSError, "no")))
    with pytest.raises(OSError, match="^no$"):
        main_decides(lambda: pytest.fail("another process than the main one decided"))
