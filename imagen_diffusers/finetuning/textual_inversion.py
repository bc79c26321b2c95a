"""A word for what 3 to 20 images show: vectors of the text encoder's input table are learned, and no network changes (textual inversion,
Gal et al., 2022).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from diffusers.loaders.textual_inversion import TEXT_INVERSION_NAME_SAFE
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from imagen_diffusers.pipelines.pipeline_imagen_cascade import ImagenCascadePipeline
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.text.learned_words import input_table
from imagen_diffusers.text.prompts import TextRules
from imagen_diffusers.training.checkpoints import KIND, PROGRESS, find_checkpoint, remove_unfinished
from imagen_diffusers.training.examples import Batch, on_device
from imagen_diffusers.training.fingerprints import fingerprint
from imagen_diffusers.training.folders import in_one_rename, one_run_in, put_in_place
from imagen_diffusers.training.learning_rate import LearningRate
from imagen_diffusers.training.loaders import Batches, TrainingSet
from imagen_diffusers.training.losses import LossSettings, draw, stage_loss
from imagen_diffusers.training.order import Share
from imagen_diffusers.training.processes import StopFlag, check_precision, process_group
from imagen_diffusers.training.reports import Skipped
from imagen_diffusers.training.run_settings import LearningRates, TrainSettings
from imagen_diffusers.training.same_run import FROZEN, STEP, check_same_kind, frozen_weights
from imagen_diffusers.training.seeds import seed_of
from imagen_diffusers.training.word_vectors import WordVectors

from .image_sets import network_of
from .one_stage import loss_of, noise_curve
from .text_encoding import null_text

FILE, STATE = TEXT_INVERSION_NAME_SAFE, "optimizer.safetensors"
READER = "the digest of text_encoder"
CAPTION = 4  # what is random in a run besides its `losses.draw`: which caption an image has
TEMPLATES = {
    "object": ("a {}", "a photo of a {}", "a photo of the {}", "a close-up photo of a {}", "a rendering of a {}", "an image of one {}"),
    "style": (
        "an image in the style of {}",
        "a photo in the style of {}",
        "a rendering in the style of {}",
        "a painting in the style of {}",
    ),
}


@dataclass(frozen=True)
class WordSettings:
    """The word, and what it is to say. Most names are the flags of diffusers' script."""

    train_data_dir: Path = field(metadata={"help": "Images of one thing, or in one style."})
    placeholder_token: str = field(metadata={"help": "The word that prompts will say, for example <my-vase>."})
    initializer_token: str = field(metadata={"help": "A word for something like it, where learning begins, for example vase."})
    num_vectors: int | None = field(default=None, metadata={"help": "Of the word; as many as the initializer has tokens by default."})
    learnable_property: Literal["object", "style"] = field(default="object", metadata={"help": "Which captions the images get."})
    templates: list[str] = field(
        default_factory=list, metadata={"help": 'Captions in place of these, with {} for the word, for example "a 3d emoji of a {}".'}
    )

    def __post_init__(self) -> None:
        if self.num_vectors is not None and self.num_vectors < 1:
            raise ValueError(f"num_vectors is {self.num_vectors}; it must be at least 1")
        without = [caption for caption in self.templates if caption.count("{}") != 1]
        if without:
            raise ValueError(f'templates: "{without[0]}" must have {{}} once, in the place of the word')

    def caption(self, number: int) -> str:
        """One of the captions, by any number."""
        captions: Sequence[str] = self.templates or TEMPLATES[self.learnable_property]
        return captions[number % len(captions)].replace("{}", self.placeholder_token)


@dataclass(frozen=True)
class WordRun:
    """The run. Names are those of `TrainSettings`."""

    output_dir: Path = field(metadata={"help": "Where checkpoints and the word are written."})
    max_train_steps: int = field(default=500, metadata={"help": "Optimizer steps in all, those before a resume included."})
    train_batch_size: int = field(default=4, metadata={"help": "Images a process and step."})
    learning_rate: float = field(default=1e-2, metadata={"help": "In units of the root mean square of the encoder's input embeddings."})
    lr_scheduler: LearningRates = field(default="cosine", metadata={"help": "How the learning rate goes on."})
    lr_warmup_steps: int = field(default=0, metadata={"help": "Steps over which the learning rate rises."})
    mixed_precision: Literal["no", "fp16", "bf16"] | None = field(default=None, metadata={"help": "Precision of the network's arithmetic."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Less memory for about a third more time."})
    dataloader_num_workers: int = field(default=0, metadata={"help": "Processes that prepare images."})
    checkpointing_steps: int = field(default=250, metadata={"help": "Write a checkpoint every so many steps, and after the last."})
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": '"latest" of output_dir, if there is one, or the folder of a checkpoint.'}
    )
    seed: int = field(default=0, metadata={"help": "Of everything random in the run."})
    time_limit: float = field(default=math.inf, metadata={"help": "End after so many seconds, with a checkpoint."})

    def __post_init__(self) -> None:
        self.as_of_a_stage()  # refuses what a run cannot be

    def as_of_a_stage(self) -> TrainSettings:
        """For what knows the runs of stages."""
        return TrainSettings(**asdict(self))


def beginning(pipe: ImagenCascadePipeline, word: WordSettings) -> Tensor:
    """Where learning begins, the initializer's vectors (n, D); fewer than asked for are repeated, of more the first are taken.

    Raises:
        ValueError: for a cascade without a text encoder, and an initializer that this knows no token of.
    """
    if pipe.tokenizer is None or pipe.text_encoder is None:
        raise ValueError("a word is learned by a text encoder, and this cascade has none; give one by text_encoder")
    tokens = pipe.tokenizer(word.initializer_token, add_special_tokens=False)["input_ids"]
    if not tokens or pipe.tokenizer.unk_token_id in tokens:
        raise ValueError(f'initializer_token is "{word.initializer_token}", which the tokenizer does not know; give a word that it does')
    count = len(tokens) if word.num_vectors is None else word.num_vectors
    return input_table(pipe.text_encoder).weight.detach()[[tokens[i % len(tokens)] for i in range(count)]].clone()


def learn_word(pipe: ImagenCascadePipeline, stage: int, dataset: TrainingSet, word: WordSettings, run: WordRun, loss: LossSettings) -> bool:
    """Teach `pipe`'s text encoder the word, by one of its stages, and write `output_dir/learned_embeds.safetensors`.

    All processes call this together.

    Args:
        dataset: of the stage, its captions passed over.

    Returns:
        Whether the last step was reached; otherwise the time limit came first, and there is a checkpoint to go on from, which can be
        loaded as a word, too.

    Raises:
        ValueError: for a stage without text, a word that cannot be learned, and a folder with another run.
        FloatingPointError: where the loss is no number any more; checkpoints stay.
        SystemExit: on all processes, after SIGINT, SIGTERM or SIGHUP, with a checkpoint.
    """
    check_precision(run.mixed_precision)
    with process_group(), one_run_in(run.output_dir):
        remove_unfinished(run.output_dir)
        checkpoint = find_checkpoint(run.output_dir, run.resume_from_checkpoint)
        learning = _Learning(pipe, stage, dataset, word, run, loss)
        step = start = 0 if checkpoint is None else learning.load(checkpoint)
        with StopFlag(learning.accelerator, run.time_limit) as stop:
            batches, main = learning.batches.from_step(start), learning.accelerator.is_main_process
            steps = range(start, run.max_train_steps)
            for done in tqdm(steps, f"learning {word.placeholder_token}", initial=start, total=run.max_train_steps, disable=not main):
                learning.take(next(batches), done)
                step = done + 1
                stopped = stop.raised()
                if main and (stopped or step == run.max_train_steps or step % run.checkpointing_steps == 0):
                    learning.save(step)
                if stopped:
                    break
        learning.vectors.write()
        stop.leave_if_signalled(f"{run.output_dir} holds a checkpoint to go on from with --resume_from_checkpoint latest")
        finished = step >= run.max_train_steps
        if main and finished:
            with in_one_rename(run.output_dir / FILE) as part:
                save_file(learning.file(), part)
        learning.accelerator.wait_for_everyone()
    return finished


class _Learning:
    """The parts of a run, prepared by accelerate."""

    def __init__(self, pipe: ImagenCascadePipeline, stage: int, dataset: TrainingSet, word: WordSettings, run: WordRun, loss: LossSettings):
        self.word, self.run, self.network = word, run, network_of(pipe, stage)
        if self.network.text_dim is None:
            raise ValueError(f"stage {stage} takes no text, by which a word could be learned; name another stage")
        self.loss, scheduler = loss_of(pipe, stage, loss)
        begun = beginning(pipe, word)
        self.accelerator = Accelerator(mixed_precision=run.mixed_precision)
        device = self.accelerator.device
        self.table = noise_curve(scheduler).to(device)
        unet: Any = self.network.module
        unet.to(device).eval().requires_grad_(False)
        if run.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        pipe.text_encoder.to(device)
        none = null_text(pipe)
        self.null_text = None if none is None else TextEmbedding(none.embeds.to(device), none.mask.to(device))
        rules = TextRules.of(pipe.config)
        reader = fingerprint(pipe.tokenizer, pipe.text_encoder, rules)  # as it is without the word
        pipe.load_textual_inversion({word.placeholder_token: begun})
        self.vectors = WordVectors(word.placeholder_token, pipe.tokenizer, pipe.text_encoder, rules)
        own = torch.optim.AdamW(self.vectors.parameters(), lr=run.learning_rate, weight_decay=0.0)
        self.rate = LearningRate(own, run.as_of_a_stage(), device)
        self.reader, self.optimizer = self.accelerator.prepare(self.vectors, own)
        self.share = Share(run.train_batch_size, self.accelerator.num_processes, self.accelerator.process_index)
        self.batches = Batches(dataset, self.share, run.as_of_a_stage(), pinned=device.type == "cuda")
        self.skipped = Skipped(run.output_dir)
        # What a run cannot change when it goes on, by the names of the flags.
        self.kind: dict[str, Any] = {"placeholder_token": word.placeholder_token, "num_vectors": len(self.vectors.vectors)}
        self.kind |= {STEP: run.train_batch_size * self.share.processes, "seed": run.seed, FROZEN: frozen_weights(unet), READER: reader}

    def take(self, batch: Batch, number: int) -> None:
        """One step, the `number`-th from 0, by this process's batch."""
        device, seed, positions = self.accelerator.device, self.run.seed, self.share.positions(number, 0)
        self.skipped.add(batch["skipped"])
        batch = on_device(batch, device)
        images = batch["pixel_values"]
        given = {k: batch[k] for k in ("low_res", "cond_images") if k in batch}  # pyright: ignore[reportTypedDictNotRequiredAccess]
        where: dict[str, Any] = {"seed": seed, "device": device, "log_snr_table": self.table}
        draws = draw(images.shape[1:], positions, self.share.whole(number), self.loss, **where)
        text = self.reader([self.word.caption(seed_of(seed, position, CAPTION)) for position in positions])
        told: dict[str, Any] = {"draws": draws, "log_snr_table": self.table, "settings": self.loss, "null_text": self.null_text, **given}
        with self.accelerator.autocast():
            losses = stage_loss(self.network, images, text=text, **told).losses
        if not torch.isfinite(self.accelerator.gather(losses.detach())).all():  # pyright: ignore[reportArgumentType, reportCallIssue]
            raise FloatingPointError(f"the loss of step {number} is no number; lower learning_rate, or leave mixed_precision out")
        self.accelerator.backward(losses.mean())
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.rate.step()

    def file(self) -> dict[str, Tensor]:
        """The word, as `load_textual_inversion` reads it, here and in diffusers."""
        return {self.word.placeholder_token: self.vectors.learned().cpu().contiguous()}

    def save(self, step: int) -> None:
        """A folder that `load` reads; the word in it can be used."""
        place = self.run.output_dir / f"checkpoint-{step}"
        part = place.with_name(f"{place.name}.part")
        part.mkdir(parents=True, exist_ok=True)
        save_file(self.file(), part / FILE)
        moments = self.optimizer.state_dict()["state"].get(0, {})  # none where every step so far was left out
        save_file({"vectors": self.vectors.vectors.detach().cpu(), **moments}, part / STATE)
        (part / KIND).write_text(json.dumps(self.kind))
        scaler = self.accelerator.scaler  # of fp16
        (part / PROGRESS).write_text(json.dumps({"step": step, "scaler": None if scaler is None else scaler.state_dict()}))
        put_in_place(part, place)

    def load(self, checkpoint: Path) -> int:
        """Go on from a checkpoint; the steps done.

        Raises:
            ValueError: for one of another word, of another run of it, and of none.
        """
        if not (checkpoint / FILE).exists():
            raise ValueError(f"{checkpoint} is of a run that learned no word; choose another output_dir")
        check_same_kind(json.loads((checkpoint / KIND).read_text()), self.kind, checkpoint)
        state, progress = load_file(checkpoint / STATE), json.loads((checkpoint / PROGRESS).read_text())
        with torch.no_grad():
            self.vectors.vectors.copy_(state.pop("vectors"))
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": {0: state}})
        self.rate.load_state_dict({**self.rate.state_dict(), "last_epoch": progress["step"]})
        if self.accelerator.scaler is not None and progress.get("scaler"):
            self.accelerator.scaler.load_state_dict(progress["scaler"])
        return progress["step"]
