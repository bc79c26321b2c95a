"""Train one stage, on accelerate: step, log, save, resume. Knows networks, noise and text; no pipeline.

Everything random about an example comes from the run's seed and the example's position in the run, and so does which example it
is. So a resumed run continues as if it had never stopped, and several processes do what one would have done.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, ProjectConfiguration
from diffusers.models.modeling_utils import ModelMixin
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from imagen_diffusers.sampling.network import StageNetwork
from imagen_diffusers.text.encoding import TextEmbedding, pad_to
from imagen_diffusers.text.prompts import PLAIN_TEXT, TextRules

from .batch_text import TextReader
from .checkpoints import Checkpoints, find_checkpoint, leave_out_frozen, load_by_own_names, remove_unfinished, trainable, whole
from .distillation import begin_distillation
from .droplets import Droplets
from .examples import Batch, on_device
from .final_weights import export_weights, in_shards, zero_stage
from .folders import one_run_in
from .learning_rate import LearningRate
from .left_out import LeftOut
from .loaders import Batches, TrainingSet, in_steps
from .losses import LossSettings, StageLoss, draw, stage_loss
from .network import network_to_train
from .optimizers import make_optimizer
from .order import Share
from .processes import StopFlag, check_precision, process_group, tell_deepspeed
from .reports import Meter, Skipped, say_validated, show_images, start_tracking, warn_of_idle_weights
from .run_settings import TrainSettings
from .same_run import kind_of_run
from .seeds import global_state_from, seed_of
from .validation import write_figures
from .weighting import RunningError

DROPOUT = 3  # what is random in an example besides its `losses.draw`
SETTLED = 20  # steps after which every weight has had a gradient: those behind layers that start at zero wait for these first


class Trained(NamedTuple):
    """What a run leaves: its network, and whether its last step was reached, by this call or before it; otherwise time was up."""

    unet: ModelMixin
    finished: bool


def train_stage(
    unet: ModelMixin,
    dataset: TrainingSet,
    log_snr_table: Tensor,
    settings: TrainSettings,
    loss: LossSettings,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    text_encoder: PreTrainedModel | None = None,
    text_rules: TextRules = PLAIN_TEXT,
    null_text: TextEmbedding | None = None,
    validate: Callable[[ModelMixin], Image.Image] | None = None,
    measure: Callable[[ModelMixin], dict[str, float]] | None = None,
    stage: str = "unet",
) -> Trained:
    """Fit `unet` to `dataset` and return it with its averaged (EMA) weights, which are also written to `output_dir/stage`.

    Weights that do not require a gradient stay as they are: freeze the network and add a LoRA adapter, and only that is trained.

    After SIGINT, SIGTERM or SIGHUP to any process all of them end the step, write a checkpoint and the weights, and leave the program; at
    the time limit the same is written and the call returns. Several calls in a program of several processes stand in one
    `processes.process_group()`.

    Returns:
        `unet` itself, and whether the last step was reached, on all processes alike. Where it was trained in shards (FSDP, ZeRO stage
        3), the main process gets a whole network of its own in its place, and on the others `unet` stays in shards.

    Args:
        unet: a network that can be a stage, in float32; `imagen_diffusers.interop` brings the kinds that come from elsewhere.
        dataset: yields `Example`s, by index or as an `ImageStream`, or batches of them, as a `ShardedStream`.
        log_snr_table: the noise curve the stage will be sampled with.
        settings: the run.
        loss: what the network predicts and how its errors count.
        tokenizer, text_encoder: to encode captions; frozen. Not needed where examples bring `prompt_embeds`.
        text_rules: how the checkpoint reads captions, but for their length, which `settings.max_sequence_length` says.
        null_text: one row, what stands for no text in the checkpoint; None for zeros.
        validate: generates an image, with the averaged weights, for people to look at.
        measure: figures of the averaged weights by name, for example `validation.HeldOut`; all processes call it together, and the main
            one's are logged, and written to `validation.jsonl`.
        stage: its name in a pipeline, "unet", "unet_2" or "unet_3".

    Raises:
        ValueError: for a network that cannot be trained, checkpoints that do not fit, a folder that another run is writing into, and data
            without a usable image, or, for epochs, without a length.
        FloatingPointError: when gradients are no numbers any more, see `left_out.py`; checkpoints stay as they are.
        OSError: when a checkpoint cannot be written; earlier ones stay as they are.
        SystemExit: on all processes, after SIGINT, SIGTERM or SIGHUP.
    """
    network = network_to_train(unet)
    begin_distillation(network, loss.distilled_guidance)
    _check_dtype(unet)
    check_precision(settings.mixed_precision)
    with process_group(), one_run_in(settings.output_dir):
        remove_unfinished(settings.output_dir)
        checkpoint = find_checkpoint(settings.output_dir, settings.resume_from_checkpoint)
        accelerator = Accelerator(
            mixed_precision=settings.mixed_precision,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            log_with=None if settings.report_to == "none" else settings.report_to,
            project_config=ProjectConfiguration(str(settings.output_dir), str(settings.output_dir / settings.logging_dir)),
        )
        settings = in_steps(settings, dataset, accelerator.num_processes)
        if settings.allow_tf32:
            torch.backends.cuda.matmul.allow_tf32 = True
        rules = text_rules._replace(max_sequence_length=settings.max_sequence_length)
        text_reader = TextReader(tokenizer, text_encoder, rules, null_text, accelerator.device)
        fit = _Fit(accelerator, network, dataset, log_snr_table, settings, loss, text_reader, stage)
        start = step = 0 if checkpoint is None else fit.checkpoints.load(checkpoint)
        told = {**asdict(settings), **asdict(loss)}
        start_tracking(accelerator, settings.tracker_project_name, stage, told, settings.output_dir, checkpoint is not None)

        with fit.droplets or nullcontext(), StopFlag(accelerator, settings.time_limit) as stop:
            for step in _shown(fit, f"{stage} {network.sample_size}px", start):
                last = stop.raised() or step == settings.steps
                if step % settings.checkpointing_steps == 0 or last:
                    fit.checkpoints.save(step, fit.model)
                if settings.validation_steps and (step % settings.validation_steps == 0 or last) and not stop.signal:
                    fit.validate(validate, measure, step)
                if last:
                    break
            trained = export_weights(fit.model, unet, fit.ema, settings.output_dir, stage, accelerator)
            stop.raised()  # in the last validation, or just now
            for tracker in accelerator.trackers:
                tracker.finish()
        # Gone before its process group is: a reducer that is the last to hold the group waits for the group's threads with the
        # interpreter's lock, and a thread that still has a gathered tensor to give back waits for that lock.
        fit.model, fit.optimizer = accelerator.free_memory(fit.model, fit.optimizer)
        stop.leave_if_signalled(f"{settings.output_dir} holds a checkpoint to go on from with --resume_from_checkpoint latest")
    return Trained(trained, step >= settings.steps)


def _check_dtype(unet: ModelMixin) -> None:
    """Steps are smaller than what a 16-bit weight can tell: most of its weights would not move."""
    for name, weight in unet.named_parameters():
        if weight.requires_grad and weight.dtype != torch.float32:
            raise ValueError(
                f"{name} is in {weight.dtype}; weights are trained in float32: load the network so (dtype=torch.float32), "
                "and let mixed_precision say what it computes in"
            )


class _Fit:
    """The parts of a run, prepared by accelerate, and one pass through its steps."""

    def __init__(
        self,
        accelerator: Accelerator,
        network: StageNetwork,
        dataset: TrainingSet,
        log_snr_table: Tensor,
        settings: TrainSettings,
        loss: LossSettings,
        text_reader: TextReader,
        stage: str,
    ):
        self.unet = unet = network.module
        self.accelerator, self.network, self.settings, self.loss = accelerator, network, settings, loss
        self.text_reader, self.table = text_reader, log_snr_table.to(accelerator.device)
        self.share = Share(
            settings.train_batch_size, accelerator.num_processes, accelerator.process_index, settings.gradient_accumulation_steps
        )
        sharded = accelerator.distributed_type == DistributedType.FSDP
        unet.train()
        if settings.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        if settings.channels_last and not sharded:  # only plain layouts can be sharded
            unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.droplets = Droplets(unet, compiled=settings.torch_compile) if loss.droplet_weight else None
        optimizer = make_optimizer(unet, settings, self.share.examples_per_step if settings.scale_lr else 1.0)
        self.learning_rate = LearningRate(optimizer, settings, accelerator.device)
        tell_deepspeed(accelerator, settings)
        kind = kind_of_run(unet, settings, loss)  # while its weights are whole
        self.model, self.optimizer = accelerator.prepare(unet, optimizer)
        if settings.torch_compile:
            unet.to_json_string()  # writes into the configuration, as a checkpoint does, on which graphs depend
            self.model.compile()
        accelerator.register_for_checkpointing(self.learning_rate)
        accelerator.register_save_state_pre_hook(leave_out_frozen)
        accelerator.register_load_state_pre_hook(load_by_own_names)
        self.ema = None
        if settings.use_ema:
            if zero_stage(accelerator) == 3:
                raise ValueError("ZeRO stage 3 leaves no process with weights to average: set use_ema=False, or use stage 2 or FSDP2")
            own = [p for _, p in trainable(unet)]
            self.ema = EMAModel(own, decay=settings.ema_decay, use_ema_warmup=True, power=0.75, foreach=not sharded)
            self.ema.to(dtype=torch.float32)  # DeepSpeed casts the network, and in bfloat16 1e-4 of a step would be rounded away
        self.running = RunningError() if loss.weighting == "running" else None
        if self.running is not None:
            accelerator.register_for_checkpointing(self.running)
        self.batches = Batches(dataset, self.share, settings, pinned=accelerator.device.type == "cuda")
        self.left_out = LeftOut(accelerator, settings.output_dir, settings.steps)
        kept_beside = (self.optimizer, self.ema, self.batches, self.left_out)
        self.checkpoints = Checkpoints(settings.output_dir, accelerator, unet, stage, *kept_beside, kind, settings.checkpoints_total_limit)
        self.skipped, self.meter = Skipped(settings.output_dir), Meter()

    def steps(self, start: int) -> Iterator[int]:
        """Take one optimizer step after another; yields the number of steps done after each."""
        self.learning_rate.begin()
        batches = self.batches.from_step(start)
        norm = None
        for step in range(start, self.settings.steps):
            told: list[StageLoss] = []
            for micro in range(self.settings.gradient_accumulation_steps):
                with self.accelerator.accumulate(self.model):
                    loss = self._losses(next(batches), step, micro)
                    told.append(StageLoss(*self.accelerator.gather(tuple(part.detach() for part in loss))))
                    self.left_out.check_before(step, told[-1].losses)
                    self.accelerator.backward(loss.losses.mean())
                    norm = self._move()
            losses, log_snr, errors = (torch.cat(parts) for parts in zip(*told, strict=True))
            self.meter.add(losses, log_snr)
            if self.running is not None:
                self.running.update(log_snr, errors)
            if not self.left_out.note(step, norm, losses):
                self.learning_rate.step()
                if self.ema is not None:
                    self.ema.step(p for _, p in trainable(self.unet))
            if step + 1 - start == SETTLED and self.accelerator.is_main_process:
                warn_of_idle_weights(trainable(self.unet), self.optimizer.optimizer)
            if (step + 1) % self.settings.logging_steps == 0 or step + 1 == self.settings.steps:
                report = {**self.meter.report(), "lr": self.learning_rate.highest}
                report |= {} if norm is None or not math.isfinite(norm) else {"grad_norm": norm}  # some engines clip on their own
                report |= {"skipped_images": self.skipped.counts()[0], "skipped_steps": step + 1 - self.learning_rate.steps}
                self.accelerator.log(report, step=step + 1)
            yield step + 1

    def _move(self) -> float | None:
        """Clip the gradients and take the step, if it may be taken; the norm, on all processes alike, None before a step's last batch."""
        norm = None
        if self.accelerator.sync_gradients:
            given = self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
            norm = None if given is None else float(whole(given))
        if self.left_out.may_take(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def validate(
        self,
        image: Callable[[ModelMixin], Image.Image] | None,
        measure: Callable[[ModelMixin], dict[str, float]] | None,
        step: int,
    ) -> None:
        """Figures of the averaged weights, and an image, by the main process, or by all where each holds only shards of the network."""
        main = self.accelerator.is_main_process
        shows = image is not None and (main or in_shards(self.accelerator))
        if not shows and measure is None:
            return  # and holds no second copy of the weights meanwhile
        own = [p for _, p in trainable(self.unet)]
        if self.ema is not None:
            self.ema.store(own)
            self.ema.copy_to(own)
        self.unet.eval()
        # Without the network's graphs: other sizes without gradients would take minutes to compile.
        with torch.compiler.set_stance("force_eager") if self.settings.torch_compile else nullcontext():
            shown = image(self.unet) if image is not None and shows else None
            figures = None if measure is None else measure(self.unet)
        self.unet.train()
        for module in self.unet.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # without a backward pass gathered weights would stay, and be averages in the next step
        if self.ema is not None:
            self.ema.restore(own)
        images = None
        if main and shown is not None:
            images = show_images(self.accelerator, self.settings.output_dir / "validation", shown, step)
        if main and figures is not None:
            self.accelerator.log({f"validation/{name}": value for name, value in figures.items()}, step=step)
            write_figures(self.settings.output_dir, step, figures)
        if main:
            say_validated(step, figures, images)

    def _losses(self, batch: Batch, step: int, micro: int) -> StageLoss:
        device, settings = self.accelerator.device, self.settings
        self.skipped.add(batch["skipped"])
        batch = on_device(batch, device)
        images, positions = batch["pixel_values"], self.share.positions(step, micro)
        draws = draw(
            images.shape[1:],
            positions,
            self.share.whole(step),
            self.loss,
            seed=settings.seed,
            device=device,
            log_snr_table=self.table,
        )
        given = {k: batch[k] for k in ("low_res", "cond_images", "pixel_weight") if k in batch}  # pyright: ignore[reportTypedDictNotRequiredAccess]
        text = self._text(batch)
        if self.droplets is not None:
            self.droplets.begin()
        with global_state_from(seed_of(settings.seed, positions.start, DROPOUT), device):
            losses, log_snr, errors = stage_loss(
                self.network.through(self.model),  # not kept: `model` alone holds what was prepared, and lets go of it at the end
                images,
                draws=draws,
                log_snr_table=self.table,
                settings=self.loss,
                text=text,
                null_text=self.text_reader.null_text,
                running=self.running,
                **given,
            )
        if self.droplets is not None:
            losses = losses + self.loss.droplet_weight * self.droplets.penalty()
        return StageLoss(losses * batch["weight"], log_snr, errors)

    def _text(self, batch: Batch) -> TextEmbedding | None:
        if self.network.text_dim is None:
            return None
        text = self.text_reader.read(batch)
        return pad_to(text, self.settings.max_sequence_length) if self.settings.torch_compile else text  # one shape, compiled once


def _shown(fit: _Fit, name: str, start: int) -> Iterator[int]:
    """The steps as they are done, which a bar shows with their loss, the last one, too, after which nobody asks for another."""
    hidden = not fit.accelerator.is_main_process
    with tqdm(total=fit.settings.steps, initial=start, desc=f"training {name}", mininterval=5, disable=hidden) as bar:
        for step in fit.steps(start):
            if fit.meter.loss is not None:
                bar.set_postfix(loss=f"{fit.meter.loss:.3g}", refresh=False)
            bar.update(step - bar.n)
            yield step
