"""Converted networks of imagen-pytorch train by the same path as others, by that package's own loss."""

from pathlib import Path

import pytest
import torch

from examples import dreambooth, finetune_domain, finetune_style, train_stage
from imagen_diffusers import ImagenCascadePipeline, LucidrainsScheduler
from imagen_diffusers.interop.imagen_pytorch.unet_lucidrains import EDM, LucidrainsUNet2DConditionModel
from imagen_diffusers.models.lora import add_lora
from imagen_diffusers.sampling.network import adapt
from imagen_diffusers.schedulers.noise import log_snr_table
from imagen_diffusers.text.encoding import TextEmbedding
from imagen_diffusers.text.prompts import TextRules, no_text_row, read_prompts
from imagen_diffusers.training.examples import collate, on_device
from imagen_diffusers.training.loop import train_stage as fit_stage
from imagen_diffusers.training.losses import Draws, LossSettings, draw, stage_loss
from imagen_diffusers.training.network import network_to_train
from imagen_diffusers.training.validation import HeldOut

from .conftest import TEXT_DIM, awake, make_text_encoder, make_tokenizer, seeded
from .test_examples import flags, images, measured  # noqa: F401 (a fixture)
from .test_imagen_pytorch import OBJECTIVES, PLAIN, package, pair, told_noise  # noqa: F401 (a fixture)
from .test_losses import CPU
from .test_training import Squares, assert_resumes, settings

LOSS = LossSettings(prediction_type="epsilon", weighting="min_snr")
RULES = TextRules(null_text="learned", max_sequence_length=12)
TEXT = {"tokenizer": make_tokenizer(), "text_encoder": make_text_encoder()}
TABLE = log_snr_table(LucidrainsScheduler("cosine").betas)
FEW = {"layer_attns": (False, True), "layer_cross_attns": (False, True), "attend_at_middle": False, "init_cross_embed_kernel_sizes": (3, 7)}


def fresh(low_res: bool = False, **changes) -> LucidrainsUNet2DConditionModel:
    torch.manual_seed(0)
    own = {"text_embed_dim": TEXT_DIM, "lowres_cond": low_res, "memory_efficient": low_res, "sample_size": 32 if low_res else 16}
    return LucidrainsUNet2DConditionModel(**{**PLAIN, **FEW, **own, **changes})


def network(low_res: bool = False, **changes) -> LucidrainsUNet2DConditionModel:
    return awake(fresh(low_res, **changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A file of that package's layout, converted: 16px, then 32px."""
    path = tmp_path_factory.mktemp("converted")
    state = {f"unets.{n}.{name}": value for n in (0, 1) for name, value in network(n > 0).state_dict().items()}
    torch.save(state, path / "imagen.pt")
    known = {"image_sizes": (16, 32), "noise_schedules": ("cosine", "cosine"), "pred_objectives": "noise", "timesteps": 3}
    pipe = ImagenCascadePipeline.from_imagen_pytorch(path / "imagen.pt", settings=known, **TEXT)
    pipe.register_to_config(max_sequence_length=12)
    pipe.save_pretrained(path / "folder")
    return str(path / "folder")


@pytest.mark.parametrize(
    ("objective", "weighting", "loss_type"),
    [("noise", "uniform", "l2"), ("noise", "min_snr", "l1"), *((objective, "min_snr", "l2") for objective in OBJECTIVES)],
)
@pytest.mark.parametrize("low_res", [False, True])
@pytest.mark.parametrize("dropped", [False, True])
def test_the_loss_is_that_packages_own(package, low_res, objective, weighting, loss_type, dropped) -> None:  # noqa: F811
    """At the same times and levels, for the same noise, one example at a time; min_snr is that package's default."""
    theirs, ours = pair(package, lowres_cond=low_res, memory_efficient=low_res)
    first = package.NullUnet() if low_res else theirs
    unets, sizes = ((first, theirs), (8, 16)) if low_res else ((theirs,), (16,))
    given = {"image_sizes": sizes, "text_embed_dim": 24, "cond_drop_prob": float(dropped), "loss_type": loss_type}
    imagen = package.Imagen(unets, pred_objectives=objective, **given)
    clean, noise, other = torch.rand(1, 3, 16, 16, generator=seeded(1)), *torch.randn(2, 1, 3, 16, 16, generator=seeded(2))
    small, text = torch.rand(1, 3, 8, 8, generator=seeded(3)), torch.randn(1, 7, 24, generator=seeded(4))
    mask = torch.tensor([[True] * 4 + [False] * 3])
    loss = LossSettings(prediction_type=OBJECTIVES[objective], weighting=weighting, loss_type=loss_type)
    network = network_to_train(ours)
    for time, level in ((0.001, 0.1), (0.3, 0.9), (0.7, 0.5), (0.97, 0.0)):
        at, augmented = torch.tensor([time]), torch.tensor([level])
        given = {"noise_scheduler": imagen.noise_schedulers[-1], "text_embeds": text, "text_mask": mask, "pred_objective": objective}
        given |= {"min_snr_gamma": 5 if weighting == "min_snr" else None, "noise": noise}
        if low_res:
            enlarged = torch.nn.functional.interpolate(small, (16, 16), mode="nearest")
            given |= {"lowres_cond_img": enlarged, "lowres_aug_times": augmented}
        with torch.no_grad(), told_noise([other] if low_res else []):
            theirs_say = imagen.p_losses(imagen.unets[-1], clean, at, **given)
        draws = Draws((at.double() * 1000 - 1) / 999, noise, torch.full((1,), 0.05 if dropped else 0.5), augmented.double() / 0.999, other)
        with torch.no_grad():
            null = no_text_row(24, RULES, lambda _: pytest.fail("learned, not encoded"))
            told = {"text": TextEmbedding(text, mask), "null_text": null, "low_res": small * 2 - 1 if low_res else None}
            mine = stage_loss(network, clean * 2 - 1, draws=draws, log_snr_table=TABLE, settings=loss, **told).losses.mean()
        torch.testing.assert_close(mine, theirs_say, rtol=2e-5, atol=1e-6)  # outputs agree to 1e-5, in float32


def fit(path: Path, steps: int, low_res: bool = False, unet=None, loss=LOSS, **changes) -> LucidrainsUNet2DConditionModel:
    given = {"text_rules": RULES, "null_text": no_text_row(TEXT_DIM, RULES, lambda _: pytest.fail("learned")), **TEXT}
    return fit_stage(unet or network(low_res), Squares(low_res), TABLE, settings(path, steps, **changes), loss, **given).unet


@pytest.mark.thorough
@pytest.mark.parametrize(("low_res", "kind", "steps"), [(False, "epsilon", 40), (True, "sample", 8)])
def test_learns_four_images(tmp_path, low_res, kind, steps) -> None:
    """From fresh weights, which say zero."""

    def loss(unet) -> float:
        batch = on_device(collate([Squares(low_res)[i] for i in range(4)]), CPU)
        clean = batch["pixel_values"].repeat(8, 1, 1, 1)
        text = read_prompts(batch["prompt"] * 8, **TEXT, rules=RULES)
        kept = LossSettings(prediction_type=kind, text_dropout=0.0)
        draws = draw(clean.shape[1:], range(32), range(32), kept, seed=99, device=torch.device("cpu"))
        more = {"low_res": batch["low_res"].repeat(8, 1, 1, 1)} if low_res else {}
        with torch.no_grad():
            given = {"draws": draws, "log_snr_table": TABLE, "settings": kept, "text": text}
            return stage_loss(adapt(unet), clean, **given, **more).losses.mean().item()

    before = loss(fresh(low_res))
    trained = LossSettings(prediction_type=kind, weighting="min_snr")
    after = loss(fit(tmp_path, steps, low_res, fresh(low_res), trained, learning_rate=1e-2, ema_decay=0.5, checkpointing_steps=steps))
    assert after < 0.5 * before


@pytest.mark.thorough
@pytest.mark.parametrize(("low_res", "rank"), [(False, None), (True, 2)])
def test_resume_equals_no_interruption(tmp_path, low_res, rank) -> None:
    def adapted():
        unet = network(low_res)
        if rank is not None:
            add_lora(unet, rank=rank)
        return unet

    assert_resumes(tmp_path, 4, lambda: fit(tmp_path, 4, low_res, adapted(), gradient_checkpointing=True))


def test_held_out_errors_are_at_the_levels_they_are_called() -> None:
    """The network is told the very log-SNR that its image has, to the steps of the table that times are looked up in."""
    told, unet = [], network()
    unet.register_forward_pre_hook(lambda _, given: told.append(given[1]))
    data = HeldOut([Squares()[0]], TABLE, LOSS, **TEXT, text_rules=RULES, max_sequence_length=12)
    data(unet)
    torch.testing.assert_close(torch.cat(told), torch.tensor(data.log_snrs), rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noise_schedule": EDM}, "under EDM's preconditioning"),
        ({"self_cond": True}, "on its own guesses"),
    ],
)
def test_networks_that_need_more_are_refused_in_words(tmp_path, changes, words) -> None:
    with pytest.raises(ValueError, match=f"LucidrainsUNet2DConditionModel was trained {words}"):
        fit(tmp_path, 1, unet=network(**changes))
    assert not list(tmp_path.iterdir())


def images_of(folder: str, adapter: Path | None = None) -> list[torch.Tensor]:
    pipe = ImagenCascadePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    if adapter is not None:
        pipe.load_lora_weights(adapter)
    return pipe("a red cube", generator=seeded(), num_inference_steps=3, output_type="pt").stage_images


@pytest.mark.thorough
def test_finetune_style(folder, images, tmp_path) -> None:  # noqa: F811
    given = ["--train_data_dir", images, "--rank", 2, "--sr_crop_size", 32, "--stages", 1, 2]
    finetune_style.main(flags(folder, 2, tmp_path, *given))
    before, after = images_of(folder), images_of(folder, tmp_path)
    assert not any(torch.equal(one, two) for one, two in zip(before, after, strict=True))


@pytest.mark.thorough
def test_dreambooth(folder, images, tmp_path) -> None:  # noqa: F811
    more = ["--instance_data_dir", images, "--instance_prompt", "a red cube", "--with_prior_preservation", "--class_prompt", "a cube"]
    more += ["--class_data_dir", tmp_path / "class", "--num_class_images", 2, "--rank", 2, "--stages", 1]
    dreambooth.main(flags(folder, 2, tmp_path / "out", *more))
    assert not torch.equal(images_of(folder)[0], images_of(folder, tmp_path / "out")[0])


@pytest.mark.thorough
def test_finetune_domain(folder, images, tmp_path) -> None:  # noqa: F811
    finetune_domain.main(flags(folder, 2, tmp_path, "--train_data_dir", images, "--stages", 1, 2))
    pipe, before = (ImagenCascadePipeline.from_pretrained(place) for place in (str(tmp_path), folder))
    for slot in ("unet", "unet_2"):
        one, two = (getattr(p, slot) for p in (pipe, before))
        assert isinstance(one, LucidrainsUNet2DConditionModel) and not torch.equal(one.final_conv.weight, two.final_conv.weight)
        assert not torch.equal(one.null_text_embed, two.null_text_embed)  # what stands for padding, and for no text
    assert isinstance(pipe.scheduler, LucidrainsScheduler)
    assert torch.isfinite(images_of(str(tmp_path))[-1]).all()


@pytest.mark.thorough
@pytest.mark.parametrize(("stage", "more"), [(1, ["--from_scratch"]), (2, ["--rank", 2])])
def test_train_stage(folder, images, tmp_path, stage, more) -> None:  # noqa: F811
    given = [*measured(images, tmp_path), "--stage", stage, *more]
    train_stage.main(flags(folder, 2, tmp_path, *given))
    assert (tmp_path / "validation.jsonl").exists()
    if stage == 1:
        LucidrainsUNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")
