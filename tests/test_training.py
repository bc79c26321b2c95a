"""The loop: it learns, and a run that was stopped, or killed, is the run that was not."""

import json
import math
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType, LoggerType
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset

from imagen_diffusers.models.lora import add_lora, lora_layers
from imagen_diffusers.sampling.network import adapt
from imagen_diffusers.text.encoding import encode
from imagen_diffusers.text.prompts import PLAIN_TEXT
from imagen_diffusers.training import loop
from imagen_diffusers.training.batch_text import TextReader
from imagen_diffusers.training.checkpoints import find_checkpoint, list_checkpoints, load_by_own_names, named_averages
from imagen_diffusers.training.exact_stream import ImageStream
from imagen_diffusers.training.examples import IMAGES, Example, VisitedDataset, collate, on_device
from imagen_diffusers.training.left_out import LeftOut
from imagen_diffusers.training.loaders import in_steps
from imagen_diffusers.training.loop import train_stage
from imagen_diffusers.training.losses import LossSettings, draw, stage_loss
from imagen_diffusers.training.reports import start_tracking
from imagen_diffusers.training.run_settings import TrainSettings
from imagen_diffusers.training.same_run import frozen_weights

from .conftest import TEXT_DIM, make_base, make_sr, make_text_encoder, make_tokenizer
from .forking import start
from .test_losses import CPU, TABLE

LOSS = LossSettings(prediction_type="sample", weighting="truncated_v")


class Squares(Dataset):
    """Four plain images with prompts."""

    def __init__(self, low_res: bool = False):
        self.low_res = low_res

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Example:
        side = 32 if self.low_res else 16
        color = torch.tensor([255, 60 * index, 0], dtype=torch.uint8)[:, None, None]
        example = Example(pixel_values=color.expand(3, side, side).clone(), prompt="a red cube" if index % 2 else "a blue sphere")
        if self.low_res:
            example["low_res"] = color.expand(3, 8, 8).clone()
        return example


def settings(path: Path, steps: int, **changes) -> TrainSettings:
    plain = {"train_batch_size": 4, "learning_rate": 3e-3, "lr_scheduler": "cosine", "checkpointing_steps": 3, "report_to": "none"}
    plain |= {"max_sequence_length": 12, "resume_from_checkpoint": "latest", "ema_decay": 0.9}
    return TrainSettings(**{"output_dir": path, "max_train_steps": steps, **plain, **changes})


def fit(path: Path, steps: int, low_res: bool = False, unet=None, dataset=None, loss=LOSS, measure=None, **changes):
    unet = unet or (make_sr() if low_res else make_base())
    text = {"tokenizer": make_tokenizer(), "text_encoder": make_text_encoder()}
    return train_stage(unet, dataset or Squares(low_res), TABLE, settings(path, steps, **changes), loss, measure=measure, **text).unet


def stop_at(path: Path, step: int) -> None:
    """Leave the run in `path` as if it had been killed just after this checkpoint."""
    for checkpoint in list_checkpoints(path):
        if int(checkpoint.name.split("-")[1]) > step:
            shutil.rmtree(checkpoint)


def assert_resumes(folder: Path, steps: int, run: Callable[[], Any]) -> None:
    """A run of so many steps into `folder`, gone on with after its checkpoint at step 3, ends as the uninterrupted one, bit for bit."""
    run()
    last = folder / f"checkpoint-{steps}"
    shutil.copytree(last, folder / "whole")
    stop_at(folder, 3)
    run()
    assert_same_state(folder / "whole", last)


def scalars(folder: Path, tag: str) -> list[float]:
    """What the runs in `folder` told the tracker."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "logs" / "imagen"))
    events.Reload()
    return [event.value for event in events.Scalars(tag)]


def same(a, b) -> bool:
    """Bit for bit, in whatever tensors are held."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def assert_same_state(one: Path, two: Path) -> None:
    """Weights, averages, optimizer and schedule of two checkpoints, bit for bit."""
    for name in ("model.safetensors", "unet_ema/diffusion_pytorch_model.safetensors"):
        a, b = load_file(one / name), load_file(two / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a), name
    for name in ("optimizer.bin", *sorted(path.name for path in one.glob("custom_checkpoint_*.pkl"))):
        a, b = (torch.load(path / name, weights_only=True) for path in (one, two))
        assert same(a, b), name
    assert (one / "progress.json").read_text() == (two / "progress.json").read_text()


RUNNING = LossSettings(prediction_type="sample", weighting="running", time_sampling="log_snr_normal")


@pytest.mark.parametrize(
    ("low_res", "changes"), [(False, {}), (True, {}), (False, {"loss": RUNNING, "optimizer": "muon"})], ids=["base", "sr", "muon"]
)
def test_resume_equals_no_interruption(tmp_path, low_res, changes) -> None:
    assert_resumes(tmp_path, 6, lambda: fit(tmp_path, 6, low_res, **changes))


@pytest.mark.thorough
def test_accumulated_batches_equal_one_batch(tmp_path) -> None:
    whole = fit(tmp_path / "one", 3)
    parts = fit(tmp_path / "two", 3, train_batch_size=2, gradient_accumulation_steps=2)
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        # Sums are taken in another order, and Adam makes steps of 3e-3 of the smallest gradients, which may then have another sign.
        far = (one - two).abs()
        assert (far > 1e-4 + 1e-3 * two.abs()).float().mean() < 1e-3 and far.max() < 3 * 3e-3


class Unseen(Squares):
    """Images none of whose pixels count."""

    def __getitem__(self, index: int) -> Example:
        return Example(**super().__getitem__(index), pixel_weight=torch.zeros(16, 16))


def test_pixels_without_weight_teach_nothing(tmp_path) -> None:
    unet = fit(tmp_path, 2, dataset=Unseen(), adam_weight_decay=0.0, use_ema=False)
    assert all(torch.equal(one, two) for one, two in zip(unet.parameters(), make_base().parameters(), strict=True))


@pytest.mark.thorough
def test_gradient_checkpointing_changes_nothing(tmp_path) -> None:
    plain, spared = fit(tmp_path / "one", 2), fit(tmp_path / "two", 2, gradient_checkpointing=True)
    for one, two in zip(plain.parameters(), spared.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_the_end_of_a_run_is_a_stage_folder(tmp_path) -> None:
    unet = fit(tmp_path, 3)
    loaded = type(unet).from_pretrained(tmp_path, subfolder="unet")
    averaged = type(unet).from_pretrained(tmp_path / "checkpoint-3", subfolder="unet_ema")
    for one, two, three in zip(unet.parameters(), loaded.parameters(), averaged.parameters(), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_a_process_that_measures_nothing_stores_no_weights(monkeypatch) -> None:
    monkeypatch.setattr(loop, "in_shards", lambda accelerator: False)
    unet, stored = make_base(), []
    ema = SimpleNamespace(store=stored.append, copy_to=lambda own: None, restore=lambda own: None)
    settings = SimpleNamespace(torch_compile=False)
    run = SimpleNamespace(accelerator=SimpleNamespace(is_main_process=False), unet=unet, ema=ema, settings=settings)
    loop._Fit.validate(cast(Any, run), pytest.fail, None, 1)
    assert not stored
    loop._Fit.validate(cast(Any, run), pytest.fail, lambda unet: {}, 1)
    assert len(stored) == 1


def test_averages_are_gathered_where_they_are_written_alone(monkeypatch) -> None:
    unet, gathered = make_base(), []
    ema = EMAModel(unet.parameters())
    monkeypatch.setattr("imagen_diffusers.training.checkpoints.whole", lambda value: gathered.append(1) or value)
    assert named_averages(unet, ema, keep=False) == {} and len(gathered) == len(ema.shadow_params)  # which all processes do together
    assert named_averages(unet, ema).keys() == dict(unet.named_parameters()).keys()


def test_without_averaging_the_last_weights_are_given_out(tmp_path) -> None:
    unet = fit(tmp_path, 3, use_ema=False)
    last = load_file(tmp_path / "checkpoint-3" / "model.safetensors")
    assert all(torch.equal(value, last[name]) for name, value in unet.state_dict().items())


def test_learns_four_images(tmp_path) -> None:
    def loss(unet) -> float:
        batch = on_device(collate([Squares()[i] for i in range(4)]), CPU)
        chosen = LossSettings(prediction_type="sample", weighting="truncated_v", text_dropout=0.0)
        draws = draw((3, 16, 16), range(4), range(4), chosen, seed=99, device=torch.device("cpu"))
        text = encode(batch["prompt"], make_tokenizer(), make_text_encoder(), 12)
        with torch.no_grad():
            given = {"draws": draws, "log_snr_table": TABLE, "settings": chosen, "text": text}
            return stage_loss(adapt(unet), batch["pixel_values"], **given)[0].mean().item()

    before = loss(make_base())
    assert loss(fit(tmp_path, 20, learning_rate=1e-2, ema_decay=0.5, checkpointing_steps=20)) < 0.2 * before


@pytest.mark.thorough
def test_weights_that_get_no_gradient_are_said(tmp_path, caplog) -> None:
    small = {"block_out_channels": (16,), "attention_levels": (True,)}
    fit(tmp_path / "whole", 20, unet=make_base(**small))
    assert "no gradient" not in caplog.text
    unet = make_base(**small)
    unet.head.conv.register_forward_pre_hook(lambda _, given: given[0].detach())  # what a faulty compiler did
    fit(tmp_path / "cut", 20, unet=unet)
    assert "weights have had no gradient so far" in caplog.text


@pytest.mark.thorough
def test_a_compiled_run_compiles_once(tmp_path, monkeypatch) -> None:
    """A checkpoint writes into the configuration, which graphs depend on, and what is measured has other sizes and no gradients."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: setattr(self, "_compiled_call_impl", torch.compile(self._call_impl, backend=backend))
    )

    def measure(unet) -> dict[str, float]:
        text = torch.zeros(1, 3, TEXT_DIM)
        return {"x": unet(torch.zeros(1, 3, 16, 16), torch.zeros(1), text).sample.mean().item()}

    small = {"block_out_channels": (16,), "attention_levels": (True,)}  # of one level: tracing takes seconds
    fit(tmp_path, 4, unet=make_base(**small), torch_compile=True, checkpointing_steps=2, measure=measure, validation_steps=2)
    one_pass = len(graphs)
    fit(tmp_path, 6, unet=make_base(**small), torch_compile=True, measure=measure, validation_steps=1)
    assert one_pass == 1 and len(graphs) <= 2


@pytest.mark.thorough
def test_an_adapter_alone_is_trained_kept_and_resumed(tmp_path) -> None:
    def adapted():
        unet = make_base()
        torch.manual_seed(4)  # of the adapter's first weights
        add_lora(unet, rank=2, alpha=4)
        return unet

    unet = fit(tmp_path, 6, unet=adapted())
    assert all("lora" in name for name in load_file(tmp_path / "checkpoint-6" / "model.safetensors"))
    shutil.copytree(tmp_path / "checkpoint-6", tmp_path / "whole")
    stop_at(tmp_path, 3)
    fit(tmp_path, 6, unet=adapted())
    assert_same_state(tmp_path / "whole", tmp_path / "checkpoint-6")
    fresh = dict(make_base().named_parameters())
    for name, value in unet.named_parameters():
        if "lora" not in name:
            assert torch.equal(value, fresh[name.replace(".base_layer", "")])
    saved = load_file(tmp_path / "unet" / "pytorch_lora_weights.safetensors")
    assert all(name.startswith("unet.") for name in saved)
    kept = load_file(tmp_path / "checkpoint-6" / "pytorch_lora_weights.safetensors")
    assert kept.keys() == saved.keys() and all(torch.equal(kept[name], saved[name]) for name in saved)
    fit(tmp_path / "plain", 1, unet=adapted(), use_ema=False)
    weights = load_file(tmp_path / "plain" / "checkpoint-1" / "model.safetensors")
    kept = load_file(tmp_path / "plain" / "checkpoint-1" / "pytorch_lora_weights.safetensors")
    assert all(torch.equal(kept[f"unet.{name.replace('.default', '')}"], value) for name, value in weights.items())


def test_a_checkpoint_of_several_processes_is_loaded_by_one(tmp_path) -> None:
    """Whose wrapper puts "module." before the names; of a frozen network nothing was said where none of them fits."""
    one, two = make_base(), make_base()
    for seed, unet in enumerate((one, two)):
        add_lora(unet, rank=2, seed=seed)
    trained = {name: weight.detach() + 1 for name, weight in one.named_parameters() if weight.requires_grad}
    save_file({f"module.{name}": weight for name, weight in trained.items()}, tmp_path / "model.safetensors")
    models: list[torch.nn.Module] = [two]
    load_by_own_names(models, tmp_path)
    weights = dict(two.named_parameters())
    assert not models and all(torch.equal(weights[name], weight) for name, weight in trained.items())
    more, least = "conv.lora_A.other.weight", min(trained)
    for others, told in (({**trained, more: torch.ones(1)}, more), ({n: w for n, w in trained.items() if n != least}, least)):
        save_file(others, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=rf"checkpoint of another run, of which {re.escape(told)} is trained there or here alone"):
            load_by_own_names([two], tmp_path)


@pytest.mark.thorough
def test_only_the_latest_checkpoints_are_kept(tmp_path) -> None:
    fit(tmp_path, 7, checkpointing_steps=2, checkpoints_total_limit=2)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["checkpoint-6", "checkpoint-7"]
    assert not list(tmp_path.glob("*.deleted"))


def test_an_earlier_run_is_not_written_over(tmp_path) -> None:
    fit(tmp_path, 3)
    with pytest.raises(ValueError, match="checkpoint-3 of an earlier run; go on from it with --resume_from_checkpoint latest"):
        fit(tmp_path, 3, resume_from_checkpoint=None)
    with pytest.raises(ValueError, match="holds: checkpoint-3"):
        fit(tmp_path, 3, resume_from_checkpoint="checkpoint-9")


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path) -> None:
    fit(tmp_path, 3)
    with pytest.raises(ValueError, match="another architecture: layers_per_block=1 there and 2 here"):
        fit(tmp_path, 6, unet=make_base(layers_per_block=2))
    shutil.rmtree(tmp_path / "checkpoint-3" / "unet_ema")
    with pytest.raises(ValueError, match="checkpoint-3 lacks unet_ema, which checkpoints of networks have; copy it in whole, or choose"):
        fit(tmp_path, 6)


def groups_of(checkpoint: Path) -> list[dict]:
    return torch.load(checkpoint / "optimizer.bin", weights_only=True)["param_groups"]


@pytest.mark.thorough
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_goes_on_at_the_rates_that_it_is_given_now(tmp_path, optimizer) -> None:
    given = {"optimizer": optimizer, "lr_scheduler": "linear"}
    fit(tmp_path, 6, **given)
    before = groups_of(tmp_path / "checkpoint-6")
    stop_at(tmp_path, 3)
    fit(tmp_path, 6, **given, learning_rate=6e-3, muon_learning_rate=2e-3, adam_beta2=0.9, adam_weight_decay=0.5, max_grad_norm=2.0)
    after = groups_of(tmp_path / "checkpoint-6")
    assert [group["params"] for group in before] == [group["params"] for group in after]
    for old, new in zip(before, after, strict=True):
        assert new["weight_decay"] == 0.5
        assert new["lr"] == pytest.approx(2 * old["lr"]) and old["lr"] >= 0
        if "betas" in new:
            assert new["betas"] == (0.9, 0.9)
    schedule = torch.load(tmp_path / "checkpoint-6" / "custom_checkpoint_0.pkl", weights_only=True)
    assert schedule["base_lrs"] == ([2e-3, 6e-3] if optimizer == "muon" else [6e-3])


RANK_2 = {"rank": 2}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("adapter", "changes", "told"),
    [
        (None, {"optimizer": "muon"}, "optimizer=adamw there and muon here"),
        (None, {"loss": RUNNING}, "weighting=another than running there and running here"),
        (None, {"loss": replace(LOSS, prediction_type="v_prediction")}, "prediction_type=sample there and v_prediction here"),
        (None, {"train_batch_size": 2}, "train_batch_size x gradient_accumulation_steps x processes=4 there and 2 here"),
        (None, {"seed": 1}, "seed=0 there and 1 here"),
        ({"rank": 3}, {}, "rank=2 there and 3 here"),
        ({"rank": 2, "alpha": 8}, {}, "lora_alpha=2 there and 8 here"),
        (None, {}, "rank=2 there and None here"),
    ],
)
def test_a_checkpoint_of_another_kind_of_run_is_refused(tmp_path, adapter, changes, told) -> None:
    def network(adapter):
        unet = make_base()
        if adapter is not None:
            add_lora(unet, **adapter)
        return unet

    fit(tmp_path, 3, unet=network(None if changes else RANK_2))
    before = (tmp_path / "checkpoint-3" / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=rf"checkpoint-3 is a checkpoint of another run: .*{told}.*; go on with what is there, or choose"):
        fit(tmp_path, 6, unet=network(adapter), **changes)
    assert (tmp_path / "checkpoint-3" / "model.safetensors").read_bytes() == before
    (tmp_path / "checkpoint-3" / "kind.json").unlink()  # as earlier ones lack it
    fit(tmp_path, 4, unet=network(None if changes else RANK_2))


def test_a_checkpoint_of_other_weights_is_refused(tmp_path) -> None:
    def adapted(name):
        unet = make_base()
        add_lora(unet, rank=2, name=name)
        return unet

    fit(tmp_path, 1, unet=adapted("a"), use_ema=False)
    with pytest.raises(ValueError, match="adapter=a there and b here"):
        fit(tmp_path, 2, unet=adapted("b"), use_ema=False)

    def frozen_but_for(part):
        unet = make_base().requires_grad_(False)
        getattr(unet, part).requires_grad_(True)
        return unet

    fit(tmp_path / "parts", 1, unet=frozen_but_for("head"))
    with pytest.raises(ValueError, match="trained=4 weights of head there and 2 weights of stem here"):
        fit(tmp_path / "parts", 2, unet=frozen_but_for("stem"))
    fit(tmp_path / "parts", 2, unet=frozen_but_for("head"))
    told = r"run: the frozen weights of pretrained_model_name_or_path, its revision and variant=\w{8} there and \w{8} here; go on"
    for change in (lambda weight: 1.5 * weight, lambda weight: weight.half()):
        other = frozen_but_for("head")
        weight = next(other.stem.parameters())
        weight.copy_(change(weight))
        with pytest.raises(ValueError, match=told):
            fit(tmp_path / "parts", 3, unet=other)


class Packed(torch.Tensor):
    """A quantizer's tensor, which has no view of the values that it stands for, as torchao's."""

    def flatten(self, *_: int) -> Any:
        raise NotImplementedError("aten.view")

    def dequantize(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def test_frozen_weights_may_be_quantized() -> None:
    unet = make_base().requires_grad_(False)
    plain, weight = frozen_weights(unet), unet.head.conv.weight
    unet.head.conv.weight = torch.nn.Parameter(weight.detach().as_subclass(Packed), requires_grad=False)
    assert frozen_weights(unet) == plain
    unet.head.conv.weight = torch.nn.Parameter((2 * weight.detach()).as_subclass(Packed), requires_grad=False)
    assert frozen_weights(unet) != plain


@pytest.mark.thorough
def test_the_adapter_that_is_trained_is_what_is_written_whatever_its_name(tmp_path) -> None:
    unet = make_base()
    add_lora(unet, rank=2, name="before")
    add_lora(unet, rank=3, name="my-style")
    trained = fit(tmp_path, 3, unet=unet)
    saved = load_file(tmp_path / "unet" / "pytorch_lora_weights.safetensors")
    own = lora_layers(trained, "my-style")
    assert {name.removeprefix("unet."): value for name, value in saved.items()}.keys() == own.keys()
    assert all(torch.equal(saved[f"unet.{name}"], value) for name, value in own.items())
    assert any(value.shape[0] == 3 for value in saved.values())


def test_weights_beside_an_adapter_are_not_trained_in_vain(tmp_path) -> None:
    unet = make_base()
    add_lora(unet, rank=2)
    unet.head.requires_grad_(True)
    with pytest.raises(ValueError, match=r'head\S* is trained beside the adapter "default", whose file holds no weights of the network'):
        fit(tmp_path, 3, unet=unet)
    unet.requires_grad_(True)
    add_lora(unet, rank=2, name="b")
    for name, weight in unet.named_parameters():
        weight.requires_grad_("lora" in name)
    with pytest.raises(ValueError, match="the adapters b, default are trained at once"):
        fit(tmp_path, 3, unet=unet)
    assert not list_checkpoints(tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize(("low_res", "make"), [(False, make_base), (True, make_sr)])
def test_a_checkpoint_that_is_older_than_a_setting_is_of_that_settings_default(tmp_path, low_res, make) -> None:
    fit(tmp_path, 3, low_res)
    path = tmp_path / "checkpoint-3" / "unet_ema" / "config.json"
    config = json.loads(path.read_text())
    for name in ("noisy_skip", "detail_channels"):
        del config[name]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="another architecture: detail_channels=0 there and 4 here"):
        fit(tmp_path, 4, low_res, unet=make(detail_channels=4))
    fit(tmp_path, 4, low_res)


class Poison(VisitedDataset):
    """Squares in floats, the first of which is NaN in some passes, 0 the first."""

    def __init__(self, *passes: int):
        self.passes = passes

    def __len__(self) -> int:
        return 4

    def visit(self, index: int, number: int) -> Example:
        example = Squares()[index]
        image = example["pixel_values"] / 127.5 - 1
        return Example(**{**example, "pixel_values": image * torch.nan if index == 0 and number in self.passes else image})


@pytest.mark.thorough
def test_a_step_whose_gradients_are_not_finite_is_left_out(tmp_path, caplog) -> None:
    def run() -> None:
        in_parts = {"train_batch_size": 2, "gradient_accumulation_steps": 2}
        fit(tmp_path, 3, dataset=Poison(1), checkpointing_steps=1, report_to="tensorboard", logging_steps=1, **in_parts)

    run()
    assert "step 2 is left out: the norm of its gradients is nan, and 1 of its 4 losses are not finite" in caplog.text
    assert caplog.text.count("left out") == 1
    assert scalars(tmp_path, "skipped_steps") == [0, 1, 1]
    assert [len(scalars(tmp_path, tag)) for tag in ("loss", "grad_norm")] == [3, 2]
    assert all(map(math.isfinite, scalars(tmp_path, "loss") + scalars(tmp_path, "grad_norm")))
    before, after, last = (tmp_path / f"checkpoint-{n}" for n in (1, 2, 3))
    shutil.copytree(last, tmp_path / "whole")
    stop_at(tmp_path, 2)
    run()
    assert_same_state(tmp_path / "whole", last)  # what a step holds does not depend on what was left out
    assert scalars(tmp_path, "skipped_steps")[-1] == 1
    assert json.loads((after / "progress.json").read_text()) == {"step": 2, "ema_step": 1, "left_out_in_a_row": 1}
    shutil.copy(before / "progress.json", after / "progress.json")
    assert_same_state(before, after)


@pytest.mark.thorough
def test_too_many_such_steps_in_a_row_end_the_run_and_keep_the_checkpoint(tmp_path, monkeypatch) -> None:
    with pytest.raises(FloatingPointError, match="the last 2 steps, up to step 2, were left out"):
        fit(tmp_path / "short", 2, dataset=Poison(0, 1))  # not one was taken
    fit(tmp_path / "slices", 2, dataset=Poison(1))
    with pytest.raises(FloatingPointError, match="the last 3 steps, up to step 4, were left out"):
        fit(tmp_path / "slices", 4, dataset=Poison(1, 2, 3))  # nor after the checkpoint, by which the one before it counts
    monkeypatch.setattr("imagen_diffusers.training.left_out.MOST_IN_A_ROW", 2)
    with pytest.raises(FloatingPointError, match="the last 2 steps, up to step 5, .* not finite: lower the learning rate.*resume"):
        fit(tmp_path, 8, dataset=Poison(1, 3, 4))
    assert [p.name for p in list_checkpoints(tmp_path)] == ["checkpoint-3"]
    with pytest.raises(FloatingPointError, match="the last 3 steps, up to step 4, were left out"):
        fit(tmp_path / "slices", 9, dataset=Poison(3))  # from its checkpoint at step 3, after two of them
    assert all(value.isfinite().all() for value in load_file(tmp_path / "checkpoint-3" / "model.safetensors").values())
    assert not (tmp_path / "unet").exists()


def test_an_engine_that_takes_steps_on_its_own_is_not_left_to_take_one_that_is_none(tmp_path) -> None:
    engine = SimpleNamespace(mixed_precision="bf16", distributed_type=DistributedType.DEEPSPEED, scaler=None, is_main_process=True)
    left_out, losses = LeftOut(engine, tmp_path, 10), torch.ones(2)
    engine.optimizer_step_was_skipped = True
    assert left_out.note(0, 1.0, losses)  # by the engine
    engine.optimizer_step_was_skipped = False
    assert not left_out.note(1, 1.0, losses)
    with pytest.raises(FloatingPointError, match="the norm of the gradients at step 3 is inf: lower the learning rate"):
        left_out.note(2, math.inf, losses)
    with pytest.raises(FloatingPointError, match="a loss at step 3 is not finite: lower"):
        left_out.check_before(2, losses * torch.nan)


def test_a_step_that_fp16_leaves_out_moves_neither_schedule_nor_averages(tmp_path, monkeypatch) -> None:
    step = AcceleratedOptimizer.step

    def leave_out_the_second(self, closure=None) -> None:
        self.asked = getattr(self, "asked", 0) + 1
        self._is_overflow = self.asked == 2
        if not self._is_overflow:
            step(self, closure)

    monkeypatch.setattr(AcceleratedOptimizer, "step", leave_out_the_second)
    fit(tmp_path, 3, report_to="tensorboard", logging_steps=3)
    assert json.loads((tmp_path / "checkpoint-3" / "progress.json").read_text()) == {"step": 3, "ema_step": 2, "left_out_in_a_row": 0}
    schedule = torch.load(tmp_path / "checkpoint-3" / "custom_checkpoint_0.pkl", weights_only=True)
    assert schedule["last_epoch"] == 2
    assert scalars(tmp_path, "skipped_steps") == [1]


class Scaled(Accelerator):
    """On the CPU with the scaler of fp16, which accelerate makes on GPUs alone."""

    def __init__(self, **given: Any):
        super().__init__(**given)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def unscale_gradients(self, optimizer=None) -> None:
        for each in self._optimizers:
            self.scaler.unscale_(each.optimizer)


def test_a_step_that_fp16_leaves_out_inside_a_fused_optimizer_is_known(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "Accelerator", Scaled)
    fit(tmp_path, 2, dataset=Poison(1))
    assert json.loads((tmp_path / "checkpoint-2" / "progress.json").read_text()) == {"step": 2, "ema_step": 1, "left_out_in_a_row": 1}
    assert torch.load(tmp_path / "checkpoint-2" / "scaler.pt")["scale"] == 2.0
    fit(tmp_path, 3)
    assert torch.load(tmp_path / "checkpoint-3" / "scaler.pt")["scale"] == 2.0
    (tmp_path / "checkpoint-3" / "scaler.pt").unlink()  # as of a run in another precision
    fit(tmp_path, 4)
    assert torch.load(tmp_path / "checkpoint-4" / "scaler.pt")["scale"] == 4.0


@pytest.mark.thorough
def test_a_resumed_run_may_accumulate_other_numbers_of_batches(tmp_path, monkeypatch) -> None:
    fit(tmp_path, 3, gradient_accumulation_steps=2, train_batch_size=2)
    seen, backward = [], Accelerator.backward
    monkeypatch.setattr(Accelerator, "backward", lambda self, loss: seen.append(self.sync_gradients) or backward(self, loss))
    fit(tmp_path, 5, gradient_accumulation_steps=4, train_batch_size=1)
    assert seen == [False, False, False, True] * 2


@pytest.mark.thorough
def test_dropout_depends_on_the_seed_and_the_step_alone(tmp_path) -> None:
    def adapter(folder: str, state: int, seed: int = 0) -> dict[str, torch.Tensor]:
        unet, text = make_base(), {"tokenizer": make_tokenizer(), "text_encoder": make_text_encoder()}
        add_lora(unet, rank=2, dropout=0.5, seed=0)
        torch.manual_seed(state)
        return lora_layers(train_stage(unet, Squares(), TABLE, settings(tmp_path / folder, 4, seed=seed), LOSS, **text).unet)

    def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(one[name], two[name]) for name in one)

    whole = adapter("one", 1)
    shutil.copytree(tmp_path / "one" / "checkpoint-4", tmp_path / "whole")
    stop_at(tmp_path / "one", 3)
    assert same(whole, adapter("one", 2))
    assert_same_state(tmp_path / "whole", tmp_path / "one" / "checkpoint-4")
    assert same(whole, adapter("two", 3))
    assert not same(whole, adapter("three", 1, seed=1))


class Embedded(Squares):
    """Squares whose captions are embedded already, in 12 tokens."""

    def __getitem__(self, index: int) -> Example:
        return Example(pixel_values=super().__getitem__(index)["pixel_values"], prompt_embeds=torch.randn(12, TEXT_DIM))


def test_embeddings_of_too_many_tokens_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="embeddings of 12 tokens, and max_sequence_length is 5.*raise max_sequence_length"):
        fit(tmp_path, 1, dataset=Embedded(), max_sequence_length=5)
    fit(tmp_path, 1, dataset=Embedded(), max_sequence_length=12)


def test_captions_without_an_encoder_are_refused() -> None:
    reader = TextReader(None, None, PLAIN_TEXT, None, torch.device("cpu"))
    with pytest.raises(ValueError, match="this network takes text: give captions with a text encoder, or examples with prompt_embeds"):
        reader.read(collate([Squares()[0]]))
    assert reader.read(collate([Embedded()[0]])).embeds.shape == (1, 12, TEXT_DIM)


def test_of_captions_that_are_cut_the_first_alone_is_told_of(caplog) -> None:
    rules = PLAIN_TEXT._replace(max_sequence_length=2)
    reader = TextReader(make_tokenizer(), make_text_encoder(), rules, None, torch.device("cpu"))
    for index in (0, 1, 0):
        assert reader.read(collate([Squares()[index]])).embeds.shape[1] == 2
    assert caplog.text.count("dropped") == 1 and 'dropped: "' in caplog.text and "Others may be cut as well" in caplog.text


@pytest.mark.thorough
def test_a_full_disk_is_said_and_keeps_the_checkpoint(tmp_path, monkeypatch) -> None:
    fit(tmp_path, 3)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("imagen_diffusers.training.checkpoints.save_file", full)
    with pytest.raises(OSError, match="checkpoint-3 is complete and untouched; make room and resume"):
        fit(tmp_path, 6)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]


def test_what_a_killed_run_left_half_written_is_never_found(tmp_path) -> None:
    (tmp_path / "checkpoint-8.part").mkdir()
    (tmp_path / "checkpoint-9.deleted").mkdir()
    assert find_checkpoint(tmp_path, "latest") is None
    with pytest.raises(ValueError, match="no complete checkpoint"):
        find_checkpoint(tmp_path, "checkpoint-8.part")


def train_and_write_every_step(folder: Path) -> None:
    fit(folder, 12, checkpointing_steps=1)


@pytest.mark.thorough
def test_kill_at_random_moments_and_go_on(tmp_path) -> None:
    """Killed again and again, most of the time while it writes (every step writes), a run still ends where the other does."""
    train_and_write_every_step(tmp_path / "whole")
    killed, codes = tmp_path / "killed", []
    for reached in (4, 8):
        process = start(train_and_write_every_step, killed)
        while process.is_alive() and not list(killed.glob(f"checkpoint-{reached}*")):
            time.sleep(0.001)
        process.kill()
        process.join()
        codes.append(process.exitcode)
        for checkpoint in list_checkpoints(killed):
            json.loads((checkpoint / "progress.json").read_text())
            load_file(checkpoint / "model.safetensors")
    assert -signal.SIGKILL in codes and set(codes) <= {-signal.SIGKILL, 0}  # where it was quicker
    train_and_write_every_step(killed)
    assert_same_state(tmp_path / "whole" / "checkpoint-12", killed / "checkpoint-12")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_batch_size": 0}, "train_batch_size is 0"),
        ({"learning_rate": 0.0}, "positive"),
        ({"checkpoints_total_limit": 0}, "at least 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"validation_steps": -5}, "validation_steps is -5; it must be at least 0"),
        ({"output_dir": "here"}, "output_dir is 'here'; give a pathlib.Path"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0; it must be positive, inf to leave gradients as they are"),
        ({"max_grad_norm": -1.0}, "max_grad_norm is -1.0"),
        ({"max_sequence_length": 0}, "max_sequence_length is 0; it must be at least 1"),
        ({"ema_decay": 5.0}, "ema_decay is 5.0; it must be at least 0, and below 1"),
        ({"muon_momentum": -0.1}, "muon_momentum is -0.1"),
        ({"time_limit": float("nan")}, "time_limit is nan"),
        ({"max_train_steps": None}, "say how long the run is: give max_train_steps, or num_train_epochs"),
        ({"max_train_steps": None, "num_train_epochs": 0}, "num_train_epochs is 0; it must be at least 1"),
    ],
)
def test_bad_settings_are_refused_in_words(tmp_path, changes, words) -> None:
    with pytest.raises(ValueError, match=words):
        settings(tmp_path, 3, **changes)


def test_weights_of_16_bits_are_not_trained(tmp_path) -> None:
    unet = make_base().to(torch.bfloat16)
    with pytest.raises(ValueError, match="is in torch.bfloat16; weights are trained in float32"):
        fit(tmp_path, 1, unet=unet)


def test_another_precision_than_that_of_the_program_is_refused(tmp_path) -> None:
    there = Accelerator().mixed_precision
    other = "no" if there == "bf16" else "bf16"
    with pytest.raises(ValueError, match=f'mixed_precision is "{other}", and an Accelerator .* has "{there}": .* start another program'):
        fit(tmp_path, 1, mixed_precision=other)


def test_examples_of_a_batch_have_the_same_fields() -> None:
    plain = Example(pixel_values=torch.zeros(3, 4, 4), prompt="a red cube")
    weighted = Example(**plain, pixel_weight=torch.ones(4, 4))
    for batch in ([plain, weighted], [weighted, plain]):
        with pytest.raises(ValueError, match="1 of 2 examples of a batch have pixel_weight; give it with all, or with none"):
            collate(batch)
    with pytest.raises(ValueError, match="1 of 2 examples of a batch have low_res"):
        collate([plain, Example(**plain, low_res=torch.zeros(3, 1, 1))])
    assert collate([weighted, weighted])["pixel_weight"].shape == (2, 4, 4)


def test_images_travel_in_bytes_and_become_floats_on_the_device() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    batch = collate([Example(pixel_values=levels, low_res=levels, cond_images=levels)] * 2)
    assert {batch[name].dtype for name in IMAGES} == {torch.uint8}
    placed = on_device(batch, CPU)
    for name in ("pixel_values", "low_res"):
        assert torch.equal(placed[name], (levels.float() / 127.5 - 1).expand(2, 1, 16, 16))
    assert torch.equal(placed["cond_images"], (levels.float() / 255).expand(2, 1, 16, 16))
    assert all(torch.equal(placed[name], value) for name, value in on_device(placed, CPU).items() if name != "skipped")  # floats stay


def test_a_run_may_be_counted_in_epochs(tmp_path) -> None:
    fit(tmp_path, None, num_train_epochs=2, train_batch_size=3)  # of four images
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]
    epochs = settings(tmp_path, None, num_train_epochs=5, train_batch_size=3)
    assert in_steps(epochs, Squares(), 2).max_train_steps == 4

    class Shapes(VisitedDataset):
        def __len__(self) -> int:
            return 4

        def buckets(self) -> list[int]:
            return [0, 0, 0, 1]

    assert in_steps(epochs, Shapes(), 1).max_train_steps == 10  # a pass is a step of each shape
    stream = ImageStream.__new__(ImageStream)
    with pytest.raises(ValueError, match="num_train_epochs is 5, and how many images a stream holds is known at its end: give max_train"):
        in_steps(epochs, stream, 1)


def test_losses_are_reported_by_noise_level(tmp_path, capfd) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    matmul = torch.backends.cuda.matmul
    assert not matmul.allow_tf32
    fit(tmp_path, 7, report_to="tensorboard", logging_steps=3, allow_tf32=True)
    allowed, matmul.allow_tf32 = matmul.allow_tf32, False
    assert allowed
    events = EventAccumulator(str(tmp_path / "logs" / "imagen"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss", "lr", "grad_norm", "examples_per_second", "skipped_images"} <= tags
    assert len([t for t in tags if t.startswith("loss_by_log_snr")]) == 4
    assert [e.step for e in events.Scalars("loss")] == [3, 6, 7]  # the last step's as well
    assert f"loss={events.Scalars('loss')[-1].value:.3g}]" in capfd.readouterr().err.splitlines()[-1]


def test_a_run_that_goes_on_is_the_same_run_on_wandb(tmp_path) -> None:
    """Which is not installed: what it would be told is looked at."""
    told = []
    init = lambda project, config, init_kwargs: told.append(init_kwargs["wandb"])  # noqa: E731
    run = SimpleNamespace(is_main_process=True, log_with=[LoggerType.WANDB], init_trackers=init)
    for goes_on in (True, True, False):
        start_tracking(run, "imagen", "unet_2", {}, tmp_path, goes_on)
    assert told[0] == told[1] == {"name": "unet_2", "id": told[0]["id"], "resume": "allow"} and told[2]["id"] != told[0]["id"]
    start_tracking(SimpleNamespace(**{**vars(run), "log_with": [LoggerType.TENSORBOARD]}), "imagen", "unet", {}, tmp_path / "plain", False)
    assert told[-1] == {"name": "unet"} and not (tmp_path / "plain").exists()
