"""Networks of imagen-pytorch's architecture say what that package's own say, with its own weights."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import EDMEulerScheduler

from benchmarks.imagen_pytorch_package import float64_throughout, load, noises, told_noise
from imagen_diffusers import ImagenCascadePipeline, LucidrainsScheduler
from imagen_diffusers.interop.imagen_pytorch.conversion import load_components
from imagen_diffusers.interop.imagen_pytorch.scheduling_lucidrains import curve_log_snr
from imagen_diffusers.interop.imagen_pytorch.unet_lucidrains import LucidrainsUNet2DConditionModel
from imagen_diffusers.sampling.seeds import stage_generators

from .conftest import seeded

PLAIN = {
    "dim": 16,
    "dim_mults": (1, 2),
    "text_embed_dim": 24,
    "attn_dim_head": 8,
    "attn_heads": 2,
    "max_text_len": 12,
    "attn_pool_num_latents": 6,
}
CASES = {
    "plain": {},
    "three levels": {"dim_mults": (1, 2, 3), "num_resnet_blocks": (1, 2, 1), "layer_attns": (False, False, True)},
    "no cross-attention": {"layer_cross_attns": (False, True), "layer_attns": False},
    "linear attention": {"layer_attns": (False, True), "use_linear_attn": True},
    "linear cross-attention": {"use_linear_cross_attn": (True, False), "layer_cross_attns": (False, True)},
    "deep attention": {"layer_attns_depth": 2, "layer_mid_attns_depth": 2, "ff_mult": 3.0},
    "no middle attention": {"attend_at_middle": False},
    "no perceiver": {"attn_pool_text": False},
    "no global context": {"use_global_context_attn": False},
    "one first convolution": {"init_cross_embed": False, "init_conv_kernel_size": 5},
    "nearest upsampling": {"pixel_shuffle_upsample": False},
    "memory efficient": {"memory_efficient": True},
    "super-resolution": {"memory_efficient": True, "lowres_cond": True, "init_conv_to_final_conv_residual": True},
    "self-conditioning": {"self_cond": True},
    "conditioning images": {"cond_images_channels": 2},
    "combined maps": {"combine_upsample_fmaps": True, "final_resnet_block": False},
    "wide conditioning": {"cond_dim": 20, "num_time_tokens": 3, "learned_sinu_pos_emb_dim": 8, "scale_skip_connection": False},
    "unconditional": {"cond_on_text": False},
    "learned variance": {"channels_out": 6, "final_conv_kernel_size": 1},
}


@pytest.fixture(scope="module")
def package():
    try:
        return load()
    except ImportError as error:
        pytest.skip(str(error))


def their_network(package, spread: float = 0.1, **changes):
    """One of theirs, every weight random."""
    torch.manual_seed(0)
    theirs = package.Unet(**{**PLAIN, **changes}).eval()
    with torch.no_grad():
        for value in theirs.parameters():
            value.add_(spread * torch.randn_like(value))
    return theirs


def pair(package, spread: float = 0.1, **changes):
    """Theirs, and ours with its weights."""
    theirs = their_network(package, spread, **changes)
    ours = LucidrainsUNet2DConditionModel(**{**PLAIN, **changes}).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_outputs_agree(package, case, drop) -> None:
    theirs, ours = pair(package, **CASES[case])
    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    x, log_snr, text = noise(2, 3, 16, 16), torch.tensor([-3.0, 2.0]), noise(2, 7, 24)
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    more, mine = {}, {}
    if CASES[case].get("lowres_cond"):
        low = noise(2, 3, 16, 16)
        more = {"lowres_cond_img": low, "lowres_noise_times": log_snr + 1}
        mine = {"low_res": low, "low_res_log_snr": log_snr + 1}
    if CASES[case].get("cond_images_channels"):
        more["cond_images"] = mine["cond_images"] = noise(2, 2, 16, 16)
    if CASES[case].get("self_cond"):
        more["self_cond"] = mine["self_cond"] = noise(2, 3, 16, 16)
    with torch.no_grad():
        expected = theirs(x, log_snr, text_embeds=text, text_mask=mask, cond_drop_prob=drop, **more)
        said = ours(x, log_snr, text, mask, drop_text=torch.full((2,), bool(drop)), **mine).sample
    assert (said - expected).norm() < 1e-5 * expected.norm()  # float32, sums in another order


@pytest.mark.parametrize(("name", "size"), [("BaseUnet64", 1627e6), ("SRUnet256", 732e6), ("SRUnet1024", 722e6)])
def test_the_predefined_networks_have_their_sizes(package, name, size) -> None:
    """On the meta device, by that package's own configurations."""
    with torch.device("meta"):
        theirs = getattr(package, name)(text_embed_dim=4096, lowres_cond=name != "BaseUnet64")
        known = LucidrainsUNet2DConditionModel().config
        ours = LucidrainsUNet2DConditionModel(**{k: v for k, v in theirs._locals.items() if k in known})
    assert ours.num_parameters() == sum(p.numel() for p in theirs.parameters()) == pytest.approx(size, rel=0.01)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize("noise_schedule", ["cosine", "linear"])
def test_curves_agree(package, noise_schedule) -> None:
    theirs = package.imagen_pytorch.GaussianDiffusionContinuousTimes(noise_schedule=noise_schedule)
    times = torch.linspace(0, 1, 101)
    assert torch.equal(curve_log_snr(noise_schedule, times), theirs.log_snr(times))


SIZES = (16, 32)
OBJECTIVES = {"noise": "epsilon", "x_start": "sample", "v": "v_prediction"}


VARIANTS = {
    "plain": {},
    "self-conditioning": {"self_cond": True},
    "conditioning images": {"cond_images_channels": 2},
    "no parallel guidance": {},
}


def two_stages(package, objective: str, kind: type | None = None, *, steps: int, **changes) -> tuple[Any, ImagenCascadePipeline]:
    """That package's `Imagen`, or a class made of it, and the pipeline with the same two networks."""
    theirs, ours = zip(*(pair(package, lowres_cond=n > 0, memory_efficient=n > 0, **changes) for n in (0, 1)), strict=True)
    plain = {"image_sizes": SIZES, "timesteps": steps, "text_embed_dim": 24, "noise_schedules": ("cosine", "linear")}
    imagen = (kind or package.Imagen)(theirs, pred_objectives=objective, **plain)
    imagen.load_state_dict({f"unets.{n}.{k}": v for n, unet in enumerate(theirs) for k, v in unet.state_dict().items()})
    ours[1].register_to_config(noise_schedule="linear")
    for unet, size in zip(ours, SIZES, strict=True):
        unet.register_to_config(sample_size=size)
    pipe = ImagenCascadePipeline(
        unet=ours[0],
        scheduler=LucidrainsScheduler("cosine", prediction_type=OBJECTIVES[objective]),
        unet_2=ours[1],
        scheduler_2=LucidrainsScheduler("linear", prediction_type=OBJECTIVES[objective]),
        null_text="learned",
        num_inference_steps=(steps, steps, 1),
        noise_level=(0.0, 200.0, 0.0),
    )
    pipe.set_progress_bar_config(disable=True)
    return imagen, pipe


def sampled(
    package, variant: str, objective: str, cond_scale: float, steps: int, dtype: torch.dtype
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Both stages' images, in [0, 1], by that package and by the pipeline, from the same weights and the same noise."""
    changes = VARIANTS[variant]
    imagen, pipe = two_stages(package, objective, steps=steps, **changes)
    text = torch.nn.functional.pad(torch.randn(1, 5, 24, generator=seeded(5)), (0, 0, 0, 2)).to(dtype)  # padded as `t5_encode_text` does
    conditioned = "cond_images_channels" in changes
    shown = {"cond_images": torch.rand(1, 2, 32, 32, generator=seeded(6)).to(dtype)} if conditioned else {}

    first, second, _ = stage_generators(seeded(3), 1, 3)
    queue = [*noises(first[0], SIZES[0], steps, low_res=False), *noises(second[0], SIZES[1], steps, low_res=True)]
    parallel = variant == "no parallel guidance"
    kept = {"cfg_remove_parallel_component": parallel, "use_tqdm": False, "return_all_unet_outputs": True}
    precision = float64_throughout(imagen) if dtype == torch.float64 else nullcontext()
    with told_noise([noise.to(dtype) for noise in queue]), precision:
        expected = imagen.sample(text_embeds=text, cond_scale=cond_scale, **shown, **kept)

    pipe.to(dtype)
    guided = {"guidance_scale": cond_scale, "guidance_parallel": 0.0 if parallel else 1.0}
    made = pipe(prompt_embeds=text, generator=seeded(3), output_type="pt", **guided, **shown).stage_images
    assert all(images.dtype == dtype for images in made)
    return expected, made


@pytest.mark.thorough
@pytest.mark.numeric
@pytest.mark.parametrize(
    ("variant", "objective", "cond_scale", "steps"),
    [
        pytest.param("plain", "noise", 3.0, 20, marks=pytest.mark.slow),  # of which the next is a short one
        ("plain", "noise", 3.0, 4),
        ("plain", "x_start", 3.0, 4),
        ("plain", "v", 1.0, 4),
        ("conditioning images", "v", 2.0, 4),
        ("no parallel guidance", "v", 2.0, 4),
        ("self-conditioning", "noise", 1.0, 4),
    ],
)
def test_a_two_stage_cascade_generates_the_same_images(package, variant, objective, cond_scale, steps) -> None:
    """In float64 the two agree, which is the proof; in float32 they differ by no more than rounding makes of that package alone.

    How much 20 steps of a random network make of a rounding of 6e-8 depends on the case, from 4e-6 to 7e-4, and on the order in which a
    processor adds. It is measured here, as that package's own difference between the two precisions.
    """
    exact, made = sampled(package, variant, objective, cond_scale, steps, torch.float64)
    rounded, made_rounded = sampled(package, variant, objective, cond_scale, steps, torch.float32)
    for mine, them, mine_rounded, them_rounded in zip(made, exact, made_rounded, rounded, strict=True):
        rounding = (them_rounded - them).abs().max().item()
        assert 1e-7 < rounding < 2e-3
        # 1e-8 (measured: 8e-10) but for guided networks that say x0, which make of a rounding a hundred times as much (1e-8).
        assert (mine - them).abs().max() < max(1e-8, 1e-4 * rounding)
        # Two float32 results lie on two sides of the exact one; measured: up to 1.5 times.
        assert (mine_rounded - them_rounded).abs().max() < 5 * rounding


def test_conditioning_images_are_asked_for(package) -> None:
    pipe = ImagenCascadePipeline(unet=pair(package, cond_images_channels=2)[1], scheduler=LucidrainsScheduler(), null_text="learned")
    given = {"prompt_embeds": torch.ones(1, 5, 24)}
    with pytest.raises(ValueError, match="prompt_embeds hold a prompt of zeros alone, which are padding"):
        pipe(prompt_embeds=torch.zeros(1, 5, 24), cond_images=torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match="unet was trained with conditioning images; give cond_images"):
        pipe(**given)
    with pytest.raises(ValueError, match="cond_images has 3 channels; give 2"):
        pipe(**given, cond_images=torch.zeros(1, 3, 8, 8))


def elucidated_pair(package, tmp_path, **changes):
    """Their cascade without churn, and ours converted from its weights; small ones, since noise of 160 makes much of rounding."""
    theirs = [pair(package, spread=0.02, lowres_cond=n > 0, memory_efficient=n > 0)[0] for n in (0, 1)]
    settings = {"image_sizes": SIZES, "num_sample_steps": (5, 4), "sigma_max": (80, 160), "lowres_sample_noise_level": 0.3, **changes}
    imagen = package.ElucidatedImagen(theirs, text_embed_dim=24, S_churn=0, **settings)
    state = {f"unets.{n}.{k}": v for n, unet in enumerate(theirs) for k, v in unet.state_dict().items()}
    imagen.load_state_dict(state)
    torch.save(state, tmp_path / "elucidated.pt")
    parts, _, assumed = load_components(tmp_path / "elucidated.pt", settings={"imagen_type": "elucidated", **settings})
    pipe = ImagenCascadePipeline(**parts)
    assert "assumed sigma_min=0.002" in assumed
    pipe.set_progress_bar_config(disable=True)
    return imagen, pipe


def dpm_solver_2m(denoise, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Lu et al. 2022, algorithm 2, in sigma space: first order in the first step and in the last, which goes to 0."""
    before, h_before = None, None
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        said = denoise(x, sigma)
        h = torch.log(sigma / following)
        slope = said if before is None or following == 0 else said + 0.5 * h / h_before * (said - before)
        x = following / sigma * x - torch.expm1(-h) * slope
        before, h_before = said, h
    return x


def elucidated(imagen, pipe, cond_scale: float, dynamic: bool, dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Both stages' images, in [-1, 1]: of that package's networks by a closed form of the solver, and by the pipeline."""
    text = torch.randn(1, 5, 24, generator=seeded(5)).to(dtype)
    expected = []
    generators = stage_generators(seeded(3), 1, 3)
    for n, size in enumerate(SIZES):
        p = imagen.hparams[n]
        sigmas = imagen.sample_schedule(p.num_sample_steps, p.rho, p.sigma_min, p.sigma_max).to(dtype)
        start = torch.randn(1, 3, size, size, generator=generators[n][0]).to(dtype) * (p.sigma_max**2 + 1) ** 0.5
        more = {"text_embeds": text, "text_mask": torch.ones(1, 5, dtype=torch.bool), "cond_scale": cond_scale}
        if expected:
            level = imagen.lowres_noise_schedule.get_times(1, 0.3, device="cpu")
            noise = torch.randn(1, 3, size, size, generator=generators[n][0]).to(dtype)
            enlarged = torch.nn.functional.interpolate(expected[-1], (size, size), mode="nearest")
            noised = imagen.lowres_noise_schedule.q_sample(enlarged, level, noise)[0]
            more |= {"lowres_cond_img": noised, "lowres_noise_times": imagen.lowres_noise_schedule.get_condition(level)}

        def denoise(x, sigma, n=n, p=p, more=more):
            settings = {"sigma_data": p.sigma_data, "clamp": True, "dynamic_threshold": dynamic}
            forward = partial(imagen.unets[n].forward_with_cond_scale, remove_parallel_component=False)
            return imagen.preconditioned_network_forward(forward, x, sigma.expand(1), **settings, **more)

        with torch.no_grad():
            expected.append(dpm_solver_2m(denoise, start, sigmas).clamp(-1, 1))
    pipe.to(dtype)
    made = pipe(prompt_embeds=text, guidance_scale=cond_scale, generator=seeded(3), output_type="pt").stage_images
    return expected, [images * 2 - 1 for images in made]


@pytest.mark.thorough
@pytest.mark.numeric
@pytest.mark.parametrize(("cond_scale", "dynamic"), [(1.5, True), (1.0, False)])
def test_an_elucidated_cascade_denoises_as_there(package, tmp_path, cond_scale, dynamic) -> None:
    """Preconditioning, guidance, thresholding and noise levels are theirs, the solver is a closed form."""
    imagen, pipe = elucidated_pair(package, tmp_path, dynamic_thresholding=dynamic)
    rounded, made_rounded = elucidated(imagen, pipe, cond_scale, dynamic, torch.float32)
    with float64_throughout(imagen):
        exact, made = elucidated(imagen, pipe, cond_scale, dynamic, torch.float64)
    for mine, them, mine_rounded, them_rounded in zip(made, exact, made_rounded, rounded, strict=True):
        rounding = (them_rounded - them).abs().max().item()
        assert 1e-7 < rounding < 1e-3  # measured: 4e-6 to 1.3e-5
        # Stock's sigmas are float32 and so are the factors it makes of them, in a float64 pipeline, too; measured: up to 0.4 of it.
        assert (mine - them).abs().max() < rounding
        assert (mine_rounded - them_rounded).abs().max() < 5 * rounding  # as above; measured: up to 2.3 times


def test_an_elucidated_network_takes_its_own_schedulers_alone(package, tmp_path) -> None:
    _, pipe = elucidated_pair(package, tmp_path)
    text = torch.randn(1, 5, 24, generator=seeded(5))
    pipe.scheduler = EDMEulerScheduler.from_config(pipe.scheduler.config)
    assert pipe(prompt_embeds=text, output_type="pt").images.isfinite().all()
    pipe.scheduler_2 = LucidrainsScheduler("linear")
    with pytest.raises(ValueError, match="unet_2 needs an EDM scheduler, as it was trained; its scheduler is LucidrainsScheduler"):
        pipe(prompt_embeds=text)


def test_stock_solvers_keep_the_curve() -> None:
    from diffusers import DPMSolverMultistepScheduler

    ours = LucidrainsScheduler("linear")
    stock = DPMSolverMultistepScheduler.from_config(ours.config)
    middle = slice(10, 900)
    expected = curve_log_snr("linear", (torch.arange(1000) + 1) / 1000).sigmoid()
    torch.testing.assert_close(stock.alphas_cumprod[middle], expected[middle], rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="imagen-pytorch has cosine, linear"):
        LucidrainsScheduler("sigmoid")
    with pytest.raises(ValueError, match="at least 1"):
        ours.set_timesteps(0)


@pytest.mark.parametrize("case", ["plain", "three levels", "linear cross-attention", "memory efficient"])
def test_diffusers_features_on_converted_networks(case) -> None:
    """Needs no package: attention backends, fused projections (there is nothing to fuse) and gradient checkpointing."""
    torch.manual_seed(0)
    unet = LucidrainsUNet2DConditionModel(**{**PLAIN, **CASES[case]})
    with torch.no_grad():
        for value in unet.parameters():
            value.add_(0.1 * torch.randn_like(value))
    given = {"sample": torch.randn(2, 3, 16, 16), "log_snr": torch.tensor([1.0, -3.0]), "encoder_hidden_states": torch.randn(2, 5, 24)}
    plain = unet(**given).sample
    assert unet.attn_processors
    unet.set_attention_backend("_native_math")
    torch.testing.assert_close(unet(**given).sample, plain, atol=5e-5, rtol=1e-5)  # sums in another order; values reach 9
    unet.set_attention_backend("native")  # diffusers keeps the last choice for everyone
    unet.reset_attention_backend()
    unet.fuse_qkv_projections()
    assert torch.equal(unet(**given).sample, plain)

    gradients = []
    for on in (False, True):
        if on:
            unet.enable_gradient_checkpointing()
        unet.zero_grad()
        unet(**given).sample.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-5)
