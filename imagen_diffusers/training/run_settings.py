"""What a run is made of besides its loss and its data. Field names are the flags of diffusers' training scripts."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

LearningRates = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
LR_SCHEDULERS = get_args(LearningRates)


def _flag(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainSettings:
    """One run of one stage."""

    output_dir: Path = field(metadata={"help": "Where checkpoints, logs and the final weights are written."})
    max_train_steps: int | None = _flag(None, "Optimizer steps in all, those before a resume included; this, or num_train_epochs.")
    num_train_epochs: int | None = _flag(
        None, "In place of max_train_steps: how often the images are gone through; with prior preservation the larger set. Not of a stream."
    )
    train_batch_size: int = _flag(16, "Examples a process and batch.")
    gradient_accumulation_steps: int = _flag(1, "Batches a step.")
    learning_rate: float = _flag(1e-4, "Highest learning rate.")
    scale_lr: bool = _flag(False, "Multiply the learning rate by the examples of a step.")
    lr_scheduler: LearningRates = _flag("constant", "How the learning rate goes on.")
    lr_warmup_steps: int = _flag(0, "Steps over which the learning rate rises.")
    lr_num_cycles: int = _flag(1, "Restarts, for cosine_with_restarts.")
    lr_power: float = _flag(1.0, "For polynomial.")
    lr_by_time: bool = _flag(False, "The learning rate goes on by the clock, over time_limit, and not over max_train_steps.")
    optimizer: Literal["adamw", "muon"] = _flag("adamw", "adamw, or muon for the matrices of the body and adamw for the rest.")
    muon_learning_rate: float = _flag(1e-3, "Highest learning rate of the matrices, for muon.")
    muon_momentum: float = _flag(0.95, "For muon.")
    use_8bit_adam: bool = _flag(False, "AdamW with 8-bit state; needs bitsandbytes.")
    adam_beta1: float = _flag(0.9, "AdamW.")
    adam_beta2: float = _flag(0.999, "AdamW.")
    adam_weight_decay: float = _flag(0.01, "Of all weights, muon's, too.")
    adam_epsilon: float = _flag(1e-8, "AdamW.")
    max_grad_norm: float = _flag(1.0, "Gradients are scaled down to this norm.")
    use_ema: bool = _flag(True, "Average the weights over steps, and give out the average.")
    ema_decay: float = _flag(0.9999, "Of the average; reached gradually.")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = _flag(
        None, "Precision of the network's arithmetic; weights stay in float32. By default what accelerate's configuration says."
    )
    gradient_checkpointing: bool = _flag(False, "Less memory for about a third more time.")
    allow_tf32: bool = _flag(
        False, "On NVIDIA GPUs from Ampere on, multiply float32 matrices in TF32, faster and less exact, from then on in this program."
    )
    channels_last: bool = _flag(True, "Memory layout in which convolutions are fastest.")
    torch_compile: bool = _flag(False, "Compile the network; text is then padded to max_sequence_length.")
    dataloader_num_workers: int = _flag(0, "Processes that prepare images.")
    max_sequence_length: int = _flag(128, "Tokens of a caption that are read.")
    checkpointing_steps: int = _flag(500, "Write a checkpoint every so many steps, and after the last.")
    checkpoints_total_limit: int | None = _flag(None, "Keep the latest so many checkpoints.")
    resume_from_checkpoint: str | None = _flag(None, '"latest" of output_dir, if there is one, or the folder of a checkpoint.')
    validation_steps: int = _flag(0, "Validate every so many steps, and after the last; 0 for never. Of one stage alone.")
    logging_steps: int = _flag(50, "Report means over so many steps.")
    report_to: str = _flag("tensorboard", 'Tracker: tensorboard, wandb, ... or "none".')
    tracker_project_name: str = _flag("imagen", "Of the tracker's project, which the runs of all stages are in.")
    logging_dir: str = _flag("logs", "For the tracker, inside output_dir.")
    seed: int = _flag(0, "Of everything random in the run.")
    time_limit: float = _flag(
        math.inf, "End after so many seconds, of all stages together, as SIGINT and SIGTERM do: with a checkpoint and the weights."
    )

    def __post_init__(self) -> None:
        if not isinstance(self.output_dir, Path):
            raise ValueError(f"output_dir is {self.output_dir!r}; give a pathlib.Path")
        self._check_length()
        self._check_numbers()
        if self.checkpoints_total_limit is not None and self.checkpoints_total_limit < 1:
            raise ValueError(f"checkpoints_total_limit is {self.checkpoints_total_limit}; it must be at least 1, or None to keep all")
        self._check_learning_rate()
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f'optimizer="{self.optimizer}" is unknown; use adamw or muon')
        if self.optimizer == "muon" and self.use_8bit_adam:
            raise ValueError("use_8bit_adam goes with optimizer=adamw; Muon keeps its state in the precision of the weights")

    @property
    def steps(self) -> int:
        """Of the whole run; where it is counted in epochs, they are known after `loaders.in_steps`."""
        assert self.max_train_steps is not None
        return self.max_train_steps

    def _check_length(self) -> None:
        if self.max_train_steps is None and self.num_train_epochs is None:
            raise ValueError("say how long the run is: give max_train_steps, or num_train_epochs")
        if self.max_train_steps is not None and self.num_train_epochs is not None:
            raise ValueError(
                f"max_train_steps is {self.max_train_steps} and num_train_epochs {self.num_train_epochs}, and each says how long the run "
                "is: leave one out (diffusers' scripts heed max_train_steps)"
            )

    def _check_numbers(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        for name in ("learning_rate", "muon_learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                more = ", inf to leave gradients as they are" if name == "max_grad_norm" else ""
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive{more}")
        for name in ("ema_decay", "muon_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0, and below 1")

    def _check_learning_rate(self) -> None:
        if self.lr_scheduler not in LR_SCHEDULERS:
            raise ValueError(f'lr_scheduler="{self.lr_scheduler}" is unknown; use one of {", ".join(LR_SCHEDULERS)}')
        if self.lr_by_time and self.time_limit == math.inf:
            raise ValueError("lr_by_time needs the time that the run has: give time_limit its seconds")
        if self.lr_by_time and self.lr_scheduler.startswith("constant"):
            raise ValueError(f'lr_by_time moves a rate that falls, and lr_scheduler is "{self.lr_scheduler}": give "cosine", or "linear"')


_LEAST = dict.fromkeys(("max_train_steps", "train_batch_size", "gradient_accumulation_steps", "checkpointing_steps", "logging_steps"), 1)
_LEAST |= {"max_sequence_length": 1, "num_train_epochs": 1}
_LEAST |= dict.fromkeys(("seed", "validation_steps", "lr_warmup_steps", "dataloader_num_workers", "time_limit"), 0)
