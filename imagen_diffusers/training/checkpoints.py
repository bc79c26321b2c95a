"""Checkpoints that are there in whole or not at all.

A checkpoint is written beside its place and moved there in one rename; so `checkpoint-N` is complete whenever it exists, and
`checkpoint-N.part` is what a killed run left behind. Inside are accelerate's state, the averaged weights as a diffusers folder,
a LoRA adapter, where one is trained, as `load_lora_weights` reads it, and how far the run was.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import SAFE_WEIGHTS_NAME, SCALER_NAME, gather_object
from diffusers.loaders.textual_inversion import TEXT_INVERSION_NAME_SAFE
from diffusers.models.modeling_utils import ModelMixin
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from imagen_diffusers.models.adapters import has_lora

from .adapter_files import write_adapter
from .folders import OLD, PART, discard, put_in_place
from .left_out import LeftOut
from .loaders import Batches
from .same_run import check_same_architecture, check_same_kind

NAME = re.compile(r"checkpoint-(\d+)")
AVERAGES, WEIGHTS = "unet_ema", "diffusion_pytorch_model.safetensors"
LATEST = "latest"
GO_ON = "run the same command with --resume_from_checkpoint latest for the rest"
PROGRESS, STREAM, KIND = "progress.json", "stream.json", "kind.json"


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete ones, first to last."""
    found = [(int(match[1]), path) for path in folder.glob("checkpoint-*") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def steps_done(folder: Path) -> int:
    """Of the last complete checkpoint in `folder`; 0 without one."""
    return max((int(path.name.split("-")[1]) for path in list_checkpoints(folder)), default=0)


def find_checkpoint(folder: Path, wanted: str | None) -> Path | None:
    """What `resume_from_checkpoint` names.

    Raises:
        ValueError: for a name that is not there, and for a run that would write among another's checkpoints: a run goes on from the
            last one of its folder, or begins in a folder without any.
    """
    there = list_checkpoints(folder)
    if wanted is None:
        if there:
            raise ValueError(
                f"{folder} holds {there[-1].name} of an earlier run; go on from it with --resume_from_checkpoint latest, "
                "or choose another output_dir"
            )
        return None
    if wanted == LATEST:
        return there[-1] if there else None
    path = Path(wanted) if Path(wanted).is_dir() else folder / wanted
    if not (path / PROGRESS).exists():
        names = ", ".join(p.name for p in there) or "none"
        raise ValueError(f"resume_from_checkpoint={wanted} is no complete checkpoint; {folder} holds: {names}")
    if there and path.resolve() != there[-1].resolve():
        raise ValueError(
            f"resume_from_checkpoint={wanted} is not the last checkpoint of {folder}, which holds {there[-1].name}: new ones would mix "
            f"with those of the other run. Go on from {path} in another output_dir, or from the last one with "
            "--resume_from_checkpoint latest"
        )
    return path


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs left of checkpoints half written or half removed."""
    for path in folder.glob("checkpoint-*"):
        if path.suffix in (PART, OLD):
            shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class Checkpoints:
    """Writes and reads a run's checkpoints.

    Args:
        folder: the run's.
        accelerator: holds whatever was registered with it.
        unet: the network itself, whatever accelerate wrapped it in.
        optimizer: prepared by accelerate.
        stage: the network's name in a pipeline.
        ema: averages of its trainable weights; None without.
        batches: of the run, whose place in a stream is kept, too.
        left_out: of the run, whose count is kept.
        kind: of the run, see `same_run.kind_of_run`.
        total_limit: how many are kept.
    """

    folder: Path
    accelerator: Accelerator
    unet: ModelMixin
    stage: str
    optimizer: Optimizer
    ema: EMAModel | None
    batches: Batches
    left_out: LeftOut
    kind: dict[str, Any]
    total_limit: int | None = None

    def save(self, step: int, model: Module) -> Path:
        """Write `checkpoint-{step}`; then delete those beyond the limit.

        Args:
            step: how many are done.
            model: the network as accelerate prepared it, which knows how to gather its shards.

        Raises:
            OSError: when it could not be written; earlier ones are untouched.
        """
        path = self.folder / f"checkpoint-{step}"
        part = path.with_name(path.name + PART)
        try:
            if self.accelerator.is_main_process:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            self._write(part, step, model)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                put_in_place(part, path)
        except (OSError, RuntimeError, SafetensorError) as error:  # a full disk has many names: torch's is "iostream error"
            shutil.rmtree(part, ignore_errors=True)
            kept = list_checkpoints(self.folder)
            last = f"{kept[-1].name} is complete and untouched" if kept else "there is none before it"
            raise OSError(f"checkpoint-{step} could not be written to {self.folder} ({error}); {last}; make room and resume") from error
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process and self.total_limit is not None:
            for old in list_checkpoints(self.folder)[: -self.total_limit]:
                discard(old)
        return path

    def load(self, path: Path) -> int:
        """Put everything back as it was; returns the number of steps done.

        What the settings say of the optimizer (betas, weight decay, momentum) is as they say now.

        Raises:
            ValueError: for the checkpoint of another architecture or kind of run, or of one that read its data otherwise.
        """
        if (path / TEXT_INVERSION_NAME_SAFE).exists():
            raise ValueError(f"{path} is of a run that trained no network, but a word; choose another output_dir")
        if not (path / AVERAGES).is_dir():
            raise ValueError(f"{path} lacks {AVERAGES}, which checkpoints of networks have; copy it in whole, or choose another output_dir")
        progress = json.loads((path / PROGRESS).read_text())
        check_same_architecture(self.unet, path / AVERAGES, path)
        if (path / KIND).exists():
            check_same_kind(json.loads((path / KIND).read_text()), self.kind, path)
        self.batches.load_state_dict(json.loads((path / STREAM).read_text()) if (path / STREAM).exists() else None)
        frozen = any(not p.requires_grad for p in self.unet.parameters())
        with _as_set(self.optimizer), _scale_of(self.accelerator, path):
            self.accelerator.load_state(str(path), strict=not frozen)
        self.accelerator.step = 0  # batches of the step begun: each of ours begins anew, however many batches a step had before
        if self.ema is not None:
            if not (path / AVERAGES / WEIGHTS).exists():
                raise ValueError(f"{path} holds no averaged weights; resume it with use_ema=False")
            saved = load_file(path / AVERAGES / WEIGHTS)
            self.ema.shadow_params = [_sharded_like(saved[name].float(), p) for name, p in trainable(self.unet)]
            self.ema.optimization_step = progress["ema_step"]
        self.left_out.go_on(progress["step"], progress.get("left_out_in_a_row", 0))
        return progress["step"]

    def _write(self, part: Path, step: int, model: Module) -> None:
        self.accelerator.save_state(str(part))
        averages = {} if self.ema is None else named_averages(self.unet, self.ema, self.accelerator.is_main_process)
        adapted = has_lora(self.unet) and self.ema is None
        state: Any = self.accelerator.get_state_dict(model) if adapted else averages
        place = self.batches.state_dict()
        places = None if place is None else gather_object([place])  # one of each process
        if not self.accelerator.is_main_process:
            return
        if places is not None:
            (part / STREAM).write_text(json.dumps(places))
        self.unet.save_config(part / AVERAGES)
        if self.ema is not None:
            save_file(averages, part / AVERAGES / WEIGHTS, metadata={"format": "pt"})
        write_adapter(part, self.unet, self.stage, state)
        ema_step = self.ema.optimization_step if self.ema is not None else 0
        progress = {"step": step, "ema_step": ema_step, "left_out_in_a_row": self.left_out.in_a_row}
        (part / KIND).write_text(json.dumps(self.kind))
        (part / PROGRESS).write_text(json.dumps(progress))


@contextmanager
def _as_set(optimizer: Optimizer) -> Iterator[None]:
    """Loaded inside, the optimizer gets its state back and keeps what it was made with; its rates are the schedule's to say."""
    made_with = [{name: value for name, value in group.items() if name not in ("params", "lr")} for group in optimizer.param_groups]
    yield
    for group, own in zip(optimizer.param_groups, made_with, strict=True):
        group.update(own)


@contextmanager
def _scale_of(accelerator: Accelerator, path: Path) -> Iterator[None]:
    """Loaded inside, fp16's scaler goes on from the checkpoint, or begins anew where that is of a run in another precision."""
    own = accelerator.scaler
    accelerator.scaler = own if (path / SCALER_NAME).exists() else None
    yield
    accelerator.scaler = own


def trainable(unet: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, p) for name, p in unet.named_parameters() if p.requires_grad]


def named_averages(unet: torch.nn.Module, ema: EMAModel, keep: bool = True) -> dict[str, Tensor]:
    """The averaged weights by name, whole and on the CPU, where they are to be kept; all processes must call it together."""
    named = {}
    for (name, _), value in zip(trainable(unet), ema.shadow_params, strict=True):
        gathered = whole(value)
        if keep:
            named[name] = gathered.detach().cpu().contiguous()
    return named


def whole(value: Tensor) -> Tensor:
    """A sharded tensor gathered; any other as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _sharded_like(value: Tensor, parameter: Tensor) -> Tensor:
    if isinstance(parameter, DTensor):
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value.to(parameter.device)


def leave_out_frozen(models: list[torch.nn.Module], weights: list[dict[str, Tensor]], folder: str | Path) -> None:
    """A hook before accelerate's `save_state`: of a network trained by an adapter a checkpoint holds the adapter alone."""
    for model, state in zip(models, weights, strict=False):
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                state.pop(name, None)


def load_by_own_names(models: list[torch.nn.Module], folder: str | Path) -> None:
    """A hook before accelerate's `load_state`, in place of what it does with models: several processes save the names of their wrapper, and
    another number of them may go on.

    Raises:
        ValueError: where what was trained is not what is.
    """
    while models:
        model = models.pop()
        weights = load_file(Path(folder, SAFE_WEIGHTS_NAME))
        unet = model.module if isinstance(model, DistributedDataParallel) else model
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
        others = unet.load_state_dict(weights, strict=False).unexpected_keys
        loaded = {id(p) for name, p in unet.named_parameters(remove_duplicate=False) if name in weights}  # tied ones are saved once
        others += [name for name, p in unet.named_parameters() if p.requires_grad and id(p) not in loaded]
        if others:
            raise ValueError(
                f"{folder} is a checkpoint of another run, of which {others[0]} is trained there or here alone; train what is there, or "
                "choose another output_dir"
            )
