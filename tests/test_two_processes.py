"""Every script on two processes: stages one after the other, copies or shards, images and files by one process, and early ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from imagen_diffusers import ImagenCascadePipeline, ImagenUNet2DConditionModel
from imagen_diffusers.training.checkpoints import list_checkpoints

from .conftest import seeded
from .test_distributed import ROOT, SHARDED
from .test_examples import cascade, flags, images, measured  # noqa: F401 (fixtures)

pytestmark = pytest.mark.slow

SCRIPT = """
import os, sys
from importlib import import_module
from pathlib import Path

from imagen_diffusers import ImagenCascadePipeline

generate = ImagenCascadePipeline.__call__


def counted(self, prompt, *args, **kwargs):
    with open(Path(sys.argv[1]) / f"generated-{os.environ['RANK']}", "a") as file:
        file.writelines(f"{one}\\n" for one in ([prompt] if isinstance(prompt, str) else prompt))
    return generate(self, prompt, *args, **kwargs)


ImagenCascadePipeline.__call__ = counted
import_module("examples." + sys.argv[3]).main(sys.argv[4:])
"""
RUN = """
import os, signal, sys, time
from pathlib import Path
from tests.test_training import Squares, fit


class Acting(Squares):
    asked = 0

    def __getitem__(self, index):
        Acting.asked += 1
        if sys.argv[3] == "signal" and os.environ["RANK"] == "1" and Acting.asked == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        if sys.argv[3] == "limit" and os.environ["RANK"] == "1":
            time.sleep(0.2)
        return super().__getitem__(index)


more = {"time_limit": 1.0 if os.environ["RANK"] == "1" else 1000.0} if sys.argv[3] == "limit" else {}
fit(Path(sys.argv[1]), 30, train_batch_size=2, checkpointing_steps=100, dataset=Acting(), **more)
"""


def start(script: str, kind: str, folder: Path, *args: object) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "script.py"
    path.write_text((SHARDED if kind == "fsdp2" else "") + script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(path), str(folder), kind, *map(str, args)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(kind: str, folder: Path, script: str, args: list[str]) -> dict[int, list[str]]:
    """Run an example; which prompts each process generated."""
    process = start(SCRIPT, kind, folder, script, *args)
    _, error = process.communicate(timeout=280)
    assert process.returncode == 0, error[-3000:]
    there = {rank: folder / f"generated-{rank}" for rank in (0, 1)}
    return {rank: path.read_text().splitlines() if path.exists() else [] for rank, path in there.items()}


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_one_stage_with_validation(cascade, images, tmp_path, kind) -> None:  # noqa: F811
    more = [*measured(images, tmp_path, 1), "--validation_prompts", "a red cube"]
    generated = run(kind, tmp_path / "job", "train_stage", flags(cascade, 2, tmp_path / "out", *more))
    # In shards a network computes on all processes together.
    assert generated == {0: ["a red cube"] * 2, 1: ["a red cube"] * (2 if kind == "fsdp2" else 0)}
    assert ImagenUNet2DConditionModel.from_pretrained(tmp_path / "out", subfolder="unet").config["sample_size"] == 16
    assert (tmp_path / "out" / "scheduler" / "scheduler_config.json").exists()
    assert (tmp_path / "out" / "README.md").exists()
    assert len((tmp_path / "out" / "validation.jsonl").read_text().splitlines()) == 2
    run(kind, tmp_path / "plain", "train_stage", flags(cascade, 2, tmp_path / "unseen", "--train_data_dir", images))
    one, two = (load_file(tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors") for name in ("out", "unseen"))
    assert all(torch.equal(one[name], two[name]) for name in one)  # looking at averages changes nothing


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
@pytest.mark.parametrize("script", ["finetune_style", "finetune_domain"])
def test_stages_one_after_the_other(cascade, images, tmp_path, kind, script) -> None:  # noqa: F811
    more = ["--train_data_dir", images, "--stages", 1, 2, "--sr_crop_size", 32, "--validation_prompts", "a red cube"]
    more += ["--rank", 2] if script == "finetune_style" else []
    generated = run(kind, tmp_path / "job", script, flags(cascade, 2, tmp_path / "out", *more))
    assert generated == {0: ["a red cube"] * 2, 1: []}
    pipe = ImagenCascadePipeline.from_pretrained(cascade if script == "finetune_style" else tmp_path / "out")
    before = ImagenCascadePipeline.from_pretrained(cascade)
    if script == "finetune_style":
        pipe.load_lora_weights(tmp_path / "out")
        assert set(pipe.get_list_adapters()) == {"unet", "unet_2"}
    else:
        assert not torch.equal(pipe.unet_2.head.conv.weight, before.unet_2.head.conv.weight)
    one, two = (p("a red cube", output_type="pt", generator=seeded()).images for p in (pipe, before))
    assert not torch.equal(one, two)
    assert (tmp_path / "out" / "before_and_after.png").exists()
    assert (tmp_path / "out" / "README.md").exists()


def test_dreambooth_shares_the_class_among_processes(cascade, images, tmp_path) -> None:  # noqa: F811
    more = ["--instance_data_dir", images, "--instance_prompt", "a red cube", "--with_prior_preservation", "--class_prompt", "a cube"]
    more += ["--class_data_dir", tmp_path / "class", "--num_class_images", 3, "--rank", 2, "--stages", 1, 3]
    generated = run("ddp", tmp_path / "job", "dreambooth", flags(cascade, 2, tmp_path / "out", *more))
    assert generated == {0: ["a cube"] * 2, 1: ["a cube"]}
    assert sorted(p.name for p in (tmp_path / "class").iterdir()) == ["0000.png", "0001.png", "0002.png"]
    pipe = ImagenCascadePipeline.from_pretrained(cascade)
    pipe.load_lora_weights(tmp_path / "out")
    assert set(pipe.get_list_adapters()) == {"unet", "unet_3"}


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_a_signal_to_one_process_ends_both_with_a_checkpoint(tmp_path, kind) -> None:
    process = start(RUN, kind, tmp_path / "job", "signal")
    _, error = process.communicate(timeout=120)
    assert "stopped by SIGTERM" in error, error[-3000:]
    assert "exitcode  : 143" in error
    assert error.count("exitcode  : 143") == 2 or "exitcode  : -" not in error  # none was killed
    assert [p.name for p in list_checkpoints(tmp_path / "job")] == ["checkpoint-3"]  # two examples per step: the fifth is in the third


def test_the_time_limit_of_one_process_ends_both(tmp_path) -> None:
    process = start(RUN, "ddp", tmp_path / "job", "limit")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error[-3000:]
    (last,) = list_checkpoints(tmp_path / "job")
    assert 0 < int(last.name.split("-")[1]) < 30
    assert (tmp_path / "job" / "unet" / "diffusion_pytorch_model.safetensors").exists()


def test_a_signal_to_the_launcher_reaches_all(tmp_path) -> None:
    process = start(RUN, "ddp", tmp_path / "job", "slow")
    end = time.monotonic() + 60
    while not (tmp_path / "job" / ".lock").exists() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    (last,) = list_checkpoints(tmp_path / "job")
    assert (last / "progress.json").exists()
