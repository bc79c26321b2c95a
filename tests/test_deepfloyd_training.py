"""DeepFloyd IF's networks train by the same path as others: by the loss of diffusers' scripts, to adapters that its pipelines load."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

import imagen_diffusers.interop  # noqa: F401 (its networks can be trained)
from examples import dreambooth, finetune_domain, finetune_style, train_stage
from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.models.lora import add_lora, lora_layers, lora_metadata
from imagen_diffusers.sampling.network import adapt
from imagen_diffusers.sampling.seeds import stage_generators
from imagen_diffusers.schedulers.noise import log_snr_table
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.text.prompts import TextRules, read_prompts
from imagen_diffusers.training.examples import collate, on_device
from imagen_diffusers.training.loop import train_stage as fit_stage
from imagen_diffusers.training.losses import Draws, LossSettings, draw, stage_loss
from imagen_diffusers.training.validation import HeldOut

from .conftest import make_text_encoder, make_tokenizer, seeded
from .test_deepfloyd import CALL, base_network, home, ours, quiet, schedule, sr_network  # noqa: F401 (a fixture)
from .test_examples import flags, images, measured  # noqa: F401 (a fixture)
from .test_losses import CPU
from .test_training import Squares, assert_resumes, settings

LOSS = LossSettings(prediction_type="epsilon")
RULES = TextRules(null_text="empty", max_sequence_length=77, text_padding="max_length", clean_caption=True)
TEXT = {"tokenizer": make_tokenizer(), "text_encoder": make_text_encoder()}
TABLE = log_snr_table(schedule(1.0).betas)
NETWORKS = {False: base_network, True: sr_network}


@pytest.fixture(scope="module")
def folder(home, tmp_path_factory) -> str:  # noqa: F811
    """Both stages as one folder, as the command writes it, and with few steps by default."""
    path = tmp_path_factory.mktemp("if")
    pipe = ours(home)
    pipe.register_to_config(num_inference_steps=[2, 2, 1])
    pipe.save_pretrained(path)
    return str(path)


def fit(path: Path, steps: int, low_res: bool = False, unet=None, **changes) -> UNet2DConditionModel:
    given = {"text_rules": RULES, "null_text": read_prompts([""], **TEXT, rules=RULES), **TEXT}
    told = settings(path, steps, max_sequence_length=77, **changes)
    return fit_stage(unet or NETWORKS[low_res]().train(), Squares(low_res), TABLE, told, LOSS, **given).unet


def as_diffusers_scripts(unet, image, noise, timesteps, text, low_res=None, low_res_noise=None, levels=None) -> torch.Tensor:
    """A step of diffusers' train_dreambooth.py for IF, (B,); the condition is made as in IFSuperResolutionPipeline."""
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range")
    noisy, more = scheduler.add_noise(image, noise, timesteps), {}
    if low_res is not None:
        enlarged = F.interpolate(low_res, image.shape[-2:], mode="bilinear", align_corners=True)
        noisy = torch.cat((noisy, scheduler.add_noise(enlarged, low_res_noise, levels)), dim=1)
        more = {"class_labels": levels}
    predicted, _ = unet(noisy, timesteps, text, return_dict=False, **more)[0].chunk(2, dim=1)
    return F.mse_loss(predicted, noise, reduction="none").mean((1, 2, 3))


@pytest.mark.parametrize("low_res", [False, True])
def test_the_loss_is_that_of_diffusers_scripts(low_res) -> None:
    unet, side = NETWORKS[low_res](), 32 if low_res else 16
    image, noise, other = (torch.randn(6, 3, side, side, generator=seeded(n)) for n in range(3))
    small, text = torch.randn(6, 3, 16, 16, generator=seeded(3)), torch.randn(6, 77, 32, generator=seeded(4))
    timesteps, levels = torch.tensor([0, 1, 250, 500, 998, 999]), torch.tensor([0, 30, 250, 500, 700, 998])
    more = {"low_res": small, "low_res_noise": other, "levels": levels} if low_res else {}
    draws = Draws(timesteps / 999, noise, torch.ones(6), (levels + 0.5) / 999, other)
    given = {"text": TextEmbedding(text, torch.ones(6, 77, dtype=torch.bool)), **({"low_res": small} if low_res else {})}
    losses = stage_loss(adapt(unet), image, draws=draws, log_snr_table=TABLE, settings=LOSS, **given).losses
    expected = as_diffusers_scripts(unet, image, noise, timesteps, text, **more)
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-6)
    grads = []
    for loss in (losses, expected):
        unet.zero_grad()
        loss.mean().backward()
        grads.append({name: p.grad.clone() for name, p in unet.named_parameters()})
    for name, value in grads[0].items():
        torch.testing.assert_close(value, grads[1][name], rtol=1e-4, atol=1e-6)
    assert grads[0]["conv_out.weight"][:3].any() and not grads[0]["conv_out.weight"][3:].any()  # the variance's


def test_times_and_levels_are_whole_steps() -> None:
    """As its networks were trained, wherever training and measuring ask for fractions."""
    seen = []
    unet = sr_network()
    unet.register_forward_pre_hook(lambda _, given, named: seen.append((given[1], named["class_labels"])), with_kwargs=True)
    batch = on_device(collate([Squares(True)[i] for i in range(4)]), CPU)
    draws = draw((3, 32, 32), range(4), range(4), LOSS, seed=0, device=torch.device("cpu"))
    text = read_prompts(batch["prompt"], **TEXT, rules=RULES)
    with torch.no_grad():
        given = {"draws": draws, "log_snr_table": TABLE, "settings": LOSS, "text": text}
        stage_loss(adapt(unet), batch["pixel_values"], low_res=batch["low_res"], **given)
    HeldOut([Squares(True)[0]], TABLE, LOSS, **TEXT, text_rules=RULES, max_sequence_length=77)(unet)
    assert len(seen) == 9
    for times, levels in seen:
        assert torch.equal(times, times.round()) and levels.dtype == torch.long


@pytest.mark.parametrize("low_res", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_learns_four_images(tmp_path, low_res) -> None:
    def loss(unet) -> float:
        batch = on_device(collate([Squares(low_res)[i] for i in range(4)]), CPU)
        clean = batch["pixel_values"].repeat(8, 1, 1, 1)
        text = read_prompts(batch["prompt"] * 8, **TEXT, rules=RULES)
        draws = draw(clean.shape[1:], range(32), range(32), LOSS, seed=99, device=torch.device("cpu"))
        more = {"low_res": batch["low_res"].repeat(8, 1, 1, 1)} if low_res else {}
        with torch.no_grad():
            given = {"draws": draws, "log_snr_table": TABLE, "settings": LOSS, "text": text}
            return stage_loss(adapt(unet), clean, **given, **more).losses.mean().item()

    before = loss(NETWORKS[low_res]())
    after = loss(fit(tmp_path, 16, low_res, learning_rate=1e-2, ema_decay=0.5, checkpointing_steps=16))
    assert after < 0.2 * before


@pytest.mark.thorough
@pytest.mark.parametrize(("low_res", "rank"), [(False, None), (True, 2)])
def test_resume_equals_no_interruption(tmp_path, low_res, rank) -> None:
    def network():
        unet = NETWORKS[low_res]().train()
        if rank is not None:
            add_lora(unet, rank=rank)
        return unet

    assert_resumes(tmp_path, 4, lambda: fit(tmp_path, 4, low_res, network(), gradient_checkpointing=True))
    if rank is None:
        final = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")
        saved = load_file(tmp_path / "checkpoint-4" / "unet_ema" / "diffusion_pytorch_model.safetensors")
        assert all(torch.equal(value, saved[name]) for name, value in final.state_dict().items())


def test_gradient_checkpointing_changes_nothing(tmp_path) -> None:
    plain, spared = fit(tmp_path / "one", 2), fit(tmp_path / "two", 2, gradient_checkpointing=True)
    for one, two in zip(plain.parameters(), spared.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_muon_is_refused_in_words(tmp_path) -> None:
    with pytest.raises(ValueError, match="UNet2DConditionModel does not say them; use adamw"):
        fit(tmp_path, 1, optimizer="muon")


def test_adapters_go_where_diffusers_scripts_put_them() -> None:
    """By peft's own reading of the script's list, in each block that attends."""
    from peft import LoraConfig

    mine, theirs = sr_network(), sr_network()
    add_lora(mine, rank=2)
    theirs.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_v_proj"]))
    assert lora_layers(mine).keys() == lora_layers(theirs).keys()


def wake(folder: Path) -> None:
    """Make an adapter of few steps loud, so that a tiny network shows it."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = folder / "pytorch_lora_weights.safetensors"
    with safe_open(path, "pt") as file:
        told = file.metadata()
    state = {name: 0.2 * torch.randn(value.shape, generator=seeded(n)) for n, (name, value) in enumerate(load_file(path).items())}
    save_file(state, path, metadata=told)


@pytest.mark.thorough
def test_an_adapter_trained_here_acts_alike_in_diffusers_own_pipelines(home, folder, images, tmp_path) -> None:  # noqa: F811
    given = ["--train_data_dir", images, "--rank", 2, "--lora_alpha", 3, "--sr_crop_size", 32, "--stages", 1, 2]
    finetune_style.main(flags(folder, 1, tmp_path, *given))
    wake(tmp_path)
    pipe = ours(home)
    plain = pipe("a red cube", generator=seeded(3), **CALL).stage_images
    pipe.load_lora_weights(tmp_path)
    made = pipe("a red cube", generator=seeded(3), **CALL).stage_images
    assert all((one - two).abs().max() > 1e-3 for one, two in zip(made, plain, strict=True))

    first, second, _ = stage_generators(seeded(3), 1, 3)
    base = quiet(IFPipeline.from_pretrained(home["one"]))
    base.load_lora_weights(tmp_path)
    expected = base("a red cube", generator=first, guidance_scale=7.0, **CALL).images
    assert torch.equal(made[0], (expected / 2 + 0.5).clamp(0, 1))

    # The second stage's weights are those of a `unet` there.
    pipe.save_lora_weights(
        tmp_path / "second",
        unet_lora_layers=lora_layers(pipe.unet_2, "default_0"),
        unet_lora_adapter_metadata=lora_metadata(pipe.unet_2, "default_0"),
    )
    larger = quiet(IFSuperResolutionPipeline.from_pretrained(home["two"]))
    larger.load_lora_weights(tmp_path / "second")
    expected = larger("a red cube", image=expected, generator=second, guidance_scale=4.0, noise_level=250, **CALL).images
    assert torch.equal(made[1], (expected / 2 + 0.5).clamp(0, 1))


def test_dreambooth(folder, images, tmp_path) -> None:  # noqa: F811
    more = ["--instance_data_dir", images, "--instance_prompt", "a red cube", "--with_prior_preservation", "--class_prompt", "a cube"]
    more += ["--class_data_dir", tmp_path / "class", "--num_class_images", 2, "--rank", 2, "--stages", 1, 2]
    dreambooth.main(flags(folder, 2, tmp_path / "out", *more))
    pipe = ImagenCascadePipeline.from_pretrained(folder)
    pipe.load_lora_weights(tmp_path / "out")
    assert set(pipe.get_list_adapters()) == {"unet", "unet_2"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `weighting` | by_prediction |" in card and "deepfloyd" in card.lower()


@pytest.mark.thorough
def test_finetune_domain(folder, images, tmp_path) -> None:  # noqa: F811
    finetune_domain.main(flags(folder, 2, tmp_path, "--train_data_dir", images, "--stages", 1, 2))
    pipe, before = (quiet(ImagenCascadePipeline.from_pretrained(place)) for place in (tmp_path, folder))
    for slot in ("unet", "unet_2"):
        one, two = (getattr(p, slot).conv_out.weight for p in (pipe, before))
        assert not torch.equal(one[:3], two[:3])
    assert pipe.config["text_padding"] == "max_length" and pipe.scheduler.config["variance_type"] == "learned_range"
    assert torch.isfinite(pipe("a red cube", generator=seeded(), output_type="pt").images).all()


@pytest.mark.parametrize(("stage", "more"), [(1, ["--from_scratch"]), (2, []), (2, ["--rank", 2])])
def test_train_stage(folder, images, tmp_path, stage, more) -> None:  # noqa: F811
    given = [*measured(images, tmp_path), "--stage", stage, *more]
    train_stage.main(flags(folder, 2, tmp_path, *given))
    lines = (tmp_path / "validation.jsonl").read_text().splitlines()
    assert all(value > 0 for value in json.loads(lines[-1]).values())
    card = (tmp_path / "README.md").read_text()
    if "--rank" not in more:
        slot = ImagenCascadePipeline.slots(stage)[0]
        UNet2DConditionModel.from_pretrained(tmp_path, subfolder=slot)
        assert "_name_or_path" not in json.loads((tmp_path / slot / "config.json").read_text())  # a folder of this machine
        assert "from diffusers import UNet2DConditionModel\nfrom imagen_diffusers import ImagenCascadePipeline" in card
