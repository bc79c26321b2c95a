"""Inpainting: RePaint as in imagen-pytorch, what is known kept to the last bit, masks of every form."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.imagen_pytorch_package import float64_throughout, told_noise
from imagen_diffusers import ImagenCascadeInpaintPipeline, ImagenDDIMScheduler
from imagen_diffusers.pipelines import image_inputs, masks
from imagen_diffusers.pipelines.image_inputs import from_pil
from imagen_diffusers.pipelines.masks import feathered, mask_to_tensor, resize_mask
from imagen_diffusers.sampling.inpainting import Inpainting
from imagen_diffusers.sampling.membrane import membrane
from imagen_diffusers.sampling.seeds import stage_generators
from imagen_diffusers.schedulers.noise import resize
from imagen_diffusers.text.encoding import NULL_TEXTS

from .conftest import forbid_networks, make_pipeline, seeded
from .test_cascade import PROMPT, ROUNDING
from .test_imagen_pytorch import SIZES, package, two_stages  # noqa: F401 (a fixture)
from .test_img2img import a_picture, held_upright, quiet


def painting(**changes) -> ImagenCascadeInpaintPipeline:
    return quiet(ImagenCascadeInpaintPipeline.from_pipe(make_pipeline(**changes)))


@pytest.fixture(scope="module")
def shared() -> ImagenCascadeInpaintPipeline:
    """For tests that change nothing in it."""
    return painting()


def a_mask(height: int = 64, width: int = 64) -> Tensor:
    """(1, 1, height, width): an odd rectangle is painted, whose edges lie between the pixels of the first stages."""
    mask = torch.zeros(1, 1, height, width, dtype=torch.bool)
    mask[..., height // 4 + 1 : height // 2 + 3, width // 3 : width // 2 + 9] = True
    return mask


def draw(pipe, prompt=PROMPT, seed: int = 0, **arguments):
    return pipe(prompt, **{"image": a_picture(), "mask_image": a_mask(), "output_type": "pt", "generator": seeded(seed), **arguments})


def repainting(package) -> type:  # noqa: F811
    """That package's `Imagen`, with its way back mended in two places.

    It goes back by noise of the spread sigma_to - sigma alpha_to / alpha, where q(z_to | z) has the root of the difference of their
    squares; and it repeats the last step without going back, on an image that is clean where the network is told of noise.
    """

    class Repainting(package.Imagen):
        last: Tensor | None = None
        known: Tensor

        def p_sample(self, unet, x, t, *, noise_scheduler, t_next=None, **given):
            if (t_next == 0).all() and self.last is not None and torch.equal(self.last, t):
                painted = F.interpolate((~self.known)[:, None].float(), x.shape[-2:]).bool()
                x = torch.where(painted, noise_scheduler.q_sample(x, t)[0], x)
            self.last = t
            return super().p_sample(unet, x, t, noise_scheduler=noise_scheduler, t_next=t_next, **given)

    return Repainting


def q_sample_from_to(self, x_from: Tensor, from_t: Tensor, to_t: Tensor) -> Tensor:
    (alpha, sigma), (alpha_to, sigma_to) = ((s.sigmoid().sqrt(), (-s).sigmoid().sqrt()) for s in (self.log_snr(t) for t in (from_t, to_t)))
    kept = alpha_to / alpha
    return kept * x_from + (sigma_to**2 - (kept * sigma) ** 2).sqrt() * torch.randn_like(x_from)


def noises_of_painting(generator: torch.Generator, size: int, steps: int, samples: int, *, low_res: bool) -> list[Tensor]:
    """A stage's noise in the order that package asks for it; the last step adds none, and is repeated as `repainting` says."""

    def more() -> Tensor:
        return torch.randn(1, 3, size, size, generator=generator)

    start, nothing = more(), torch.zeros(1, 3, size, size)
    queue = [more(), start] if low_res else [start]
    for step in range(steps):
        for sample in range(samples):
            last = step == steps - 1
            back = [more()] if sample else []
            known = more()
            queue += [known, *back, nothing] if last else [*back, known, more()]
    return queue


@pytest.mark.thorough
@pytest.mark.numeric
@pytest.mark.parametrize(("objective", "samples", "dtype"), [("v", 3, torch.float64), ("noise", 2, torch.float32)])
def test_parts_are_painted_as_by_imagen_pytorch(package, monkeypatch, objective, samples, dtype) -> None:  # noqa: F811
    """With its mask, True where the image is known, and `inpaint_resample_times`; it would take every other pixel of the image."""
    steps, image, text = 4, a_picture(1, 32, 32), torch.randn(1, 5, 24, generator=seeded(5)).to(dtype)
    known = torch.ones(1, 32, 32, dtype=torch.bool)
    known[:, 8:22, 12:28] = False
    image = torch.where(known, image, membrane(image, known[None]))  # as it is done here before an image is made smaller
    imagen, pipe = two_stages(package, objective, repainting(package), steps=steps)
    monkeypatch.setattr(package.imagen_pytorch.GaussianDiffusionContinuousTimes, "q_sample_from_to", q_sample_from_to)
    own = imagen.resize_to

    def resize_to(images: Tensor, size: int) -> Tensor:
        color, smaller = images.shape[1] == 3, images.shape[-1] > size
        return resize(images.float(), (size, size)).to(images) if color and smaller else own(images, size)

    imagen.resize_to, imagen.known = resize_to, known
    generators = stage_generators(seeded(3), 1, 2)
    queue = [noises_of_painting(generators[n][0], SIZES[n], steps, samples, low_res=n > 0) for n in range(2)]
    given = {"text_embeds": text, "inpaint_images": image.to(dtype), "inpaint_masks": known, "inpaint_resample_times": samples}
    kept = {"cond_scale": 2.0, "cfg_remove_parallel_component": False, "use_tqdm": False, "return_all_unet_outputs": True}
    with float64_throughout(imagen) if dtype == torch.float64 else nullcontext(), told_noise([n.to(dtype) for n in sum(queue, [])]):
        expected = imagen.sample(**given, **kept)

    painted = quiet(ImagenCascadeInpaintPipeline.from_pipe(pipe)).to(dtype)
    call = {"image": image, "mask_image": ~known, "jump_n_sample": samples, "guidance_scale": 2.0}
    made = painted(prompt_embeds=text, generator=seeded(3), output_type="pt", **call).stage_images
    for mine, them in zip(made, expected, strict=True):
        assert mine.dtype == dtype
        # Hidden pixels are filled in float32, of images in [0, 1] there and in [-1, 1] here: 1.2e-7 by rounding.
        assert (mine - them).abs().max() < (5e-7 if dtype == torch.float64 else 2e-3)


def eight_bits(images, output_type: str) -> np.ndarray:
    """(N, H, W, 3), as they are saved."""
    if output_type == "pil":
        return np.stack([np.asarray(image) for image in images])
    array = images.permute(0, 2, 3, 1).numpy() if output_type == "pt" else images
    return (array * 255).round().astype(np.uint8)


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
@pytest.mark.parametrize(("feather", "seamless"), [(0.0, False), (4.0, False), (0.0, True)])
@pytest.mark.parametrize("size", [(64, 64), (80, 100)])
def test_what_is_known_is_kept_to_the_last_bit_at_every_stage(shared, output_type, feather, seamless, size) -> None:
    """The last stage's is the caller's own, where it has that size; the others' are it, with what is hidden filled in, resized."""
    given = (a_picture(2, *size) * 255).round().byte()
    prompts, generators = [PROMPT, "a blue cube"], [seeded(1), seeded(2)]
    arguments = {
        "mask_image": a_mask(*size),
        "mask_feather": feather,
        "seamless": seamless,
        "output_type": output_type,
        "generator": generators,
    }
    stages = draw(shared, prompts, image=given, **arguments).stage_images
    wanted = (64, 64) if size == (64, 64) else (48, 64)  # four-fold, in strides of 8
    finished = resize(given.float() / 255 * 2 - 1, wanted)
    mask = resize_mask(a_mask(*size), wanted)
    filled = torch.where(mask, membrane(finished, ~mask.expand(2, -1, -1, -1)), finished)
    for scale, images in zip((4, 2, 1), stages, strict=True):
        height, width = wanted[0] // scale, wanted[1] // scale
        painted = resize_mask(mask, (height, width))
        reach = int(np.ceil(feather / scale))
        far = ~(F.max_pool2d(painted.float(), 2 * reach + 1, 1, reach) > 0)[0, 0]
        expected = eight_bits(resize(filled, (height, width)) / 2 + 0.5, "pt")
        made = eight_bits(images, output_type)
        assert far.float().mean() > 0.3
        assert np.array_equal(made[:, far], expected[:, far])
        if scale == 1:
            assert np.array_equal(made[:, far], eight_bits(finished / 2 + 0.5, "pt")[:, far])
        assert (made[:, painted[0, 0]] != expected[:, painted[0, 0]]).mean() > 0.9
    if size == (64, 64):
        assert np.array_equal(expected[:, ~mask[0, 0]], given.permute(0, 2, 3, 1).numpy()[:, ~mask[0, 0]])


@pytest.mark.parametrize("feather", [1e-3, 5e-324])
def test_a_feather_of_almost_nothing_is_a_hard_edge(feather) -> None:
    assert torch.equal(feathered(a_mask(), feather), a_mask().float())


def test_a_feather_fades_the_painting_into_what_is_known(shared) -> None:
    hard, soft = (draw(shared, mask_feather=feather, stop_at=1).images for feather in (0, 3))
    mask = resize_mask(a_mask(), (16, 16)).expand(-1, 3, -1, -1)
    known = resize(a_picture() * 2 - 1, (16, 16)) / 2 + 0.5
    assert torch.equal(hard[mask], soft[mask])
    assert torch.equal(hard[~mask], known[~mask])
    share = feathered(resize_mask(a_mask(), (16, 16)), 3.0)
    assert share.unique().numel() > 3
    assert torch.equal(share == 1, resize_mask(a_mask(), (16, 16)))
    assert (share >= 0).all()
    assert not torch.equal(soft, hard)
    inside, outside = share.expand_as(soft) > 0, share.expand_as(soft) == 0
    assert torch.equal(soft[outside], known[outside])
    assert not torch.equal(soft[inside & ~mask], known[inside & ~mask])


def test_each_run_of_steps_is_made_so_many_times() -> None:
    nothing = torch.zeros(1, 1, 1, 1)

    def steps(length: int, samples: int, first: int = 0, count: int = 5) -> list[int]:
        return Inpainting(nothing, nothing.bool(), length, samples).steps(first, count)

    assert steps(1, 1) == [0, 1, 2, 3, 4]
    assert steps(3, 1, first=2) == [2, 3, 4]
    assert steps(1, 2, first=3) == [3, 3, 4, 4]
    assert steps(2, 3) == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 4, 4, 4]
    assert steps(9, 2) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert steps(1, 4, first=5) == []


def test_a_callback_counts_every_step_also_those_made_again(shared) -> None:
    seen = []

    def watch(pipe, step, timestep, tensors):
        seen.append((step, float(timestep), pipe.num_timesteps))

    given = {"num_inference_steps": [4, 2, 2], "jump_length": 2, "jump_n_sample": [2, 1, 3], "strength": [1.0, 0.5, 1.0]}
    draw(shared, **given, callback_on_step_end=watch)
    assert [step for step, *_ in seen] == list(range(8 + 1 + 6))
    assert {count for *_, count in seen} == {15}
    times = [time for _, time, _ in seen]
    assert times[:2] == times[2:4] and times[4:6] == times[6:8] and times[0] > times[1] > times[4] > times[5]
    assert times[9:11] == times[11:13] == times[13:15]


def test_going_back_changes_what_is_painted(shared) -> None:
    once, again = (draw(shared, jump_n_sample=n, num_inference_steps=4, stop_at=1).images for n in (1, 3))
    mask = resize_mask(a_mask(), (16, 16)).expand_as(once)
    assert not torch.allclose(once[mask], again[mask], atol=1e-3)
    assert torch.equal(once[~mask], again[~mask])


def test_a_mask_of_everything_paints_what_the_prompt_alone_gives() -> None:
    """Bit for bit where steps add no noise; others differ, because an image's one generator has drawn the known part's noise between."""
    everything = torch.ones(64, 64, dtype=torch.bool)
    for deterministic in (True, False):
        schedulers = {f"scheduler{n}": ImagenDDIMScheduler(prediction_type="sample") for n in ("", "_2", "_3")} if deterministic else {}
        plain = make_pipeline(**schedulers)
        expected = plain(PROMPT, generator=seeded(), output_type="pt").images
        made = draw(quiet(ImagenCascadeInpaintPipeline.from_pipe(plain)), mask_image=everything).images
        assert torch.equal(made, expected) == deterministic


def test_strength_below_1_starts_from_what_lies_under_the_mask(shared) -> None:
    stages = draw(shared, strength=0.0).stage_images
    for size, images in zip((16, 32, 64), stages, strict=True):
        assert torch.equal(images, resize(a_picture() * 2 - 1, (size, size)) / 2 + 0.5)
    other = a_picture(seed=8)
    pasted = torch.where(a_mask(), other, a_picture())
    with_strength, without = (
        [draw(shared, image=image, strength=strength, num_inference_steps=4).stage_images for image in (a_picture(), pasted)]
        for strength in (0.5, 1.0)
    )
    mask = resize_mask(a_mask(), (16, 16)).expand_as(without[0][0])
    assert not torch.allclose(with_strength[0][0][mask], with_strength[1][0][mask], atol=1e-3)
    # Nothing of what is hidden is left, in smaller images beside the mask neither.
    assert all(torch.equal(one, other) for one, other in zip(*without, strict=True))


@pytest.mark.parametrize("null_text", NULL_TEXTS)
def test_without_a_prompt_the_image_alone_is_followed(null_text) -> None:
    made = draw(painting(null_text=null_text), None, num_images_per_prompt=2, jump_n_sample=2).images
    keep = ~a_mask().expand_as(made)
    assert torch.equal(made[keep], a_picture().expand_as(made)[keep])
    assert not torch.allclose(made[0], made[1], atol=1e-3)


@pytest.mark.thorough
@pytest.mark.numeric
@pytest.mark.parametrize(("dtype", "tolerance"), ROUNDING.items())
def test_one_seed_one_image_in_any_batch(dtype, tolerance) -> None:
    pipe, images = painting().to(dtype), a_picture(3)
    masks = torch.cat([a_mask(), a_mask().mT, ~a_mask()])
    given = {"jump_n_sample": [2, 1, 2], "strength": [1.0, 0.5, 1.0], "mask_feather": 2.0}
    alone = [draw(pipe, image=images[n : n + 1], mask_image=masks[n : n + 1], seed=n, **given).images for n in range(3)]
    together = draw(pipe, [PROMPT] * 3, image=images, mask_image=masks, generator=[seeded(n) for n in range(3)], **given).images
    assert together.dtype == dtype
    torch.testing.assert_close(torch.cat(alone), together, atol=tolerance, rtol=0)


@pytest.mark.thorough
@pytest.mark.numeric
def test_in_slices_and_in_tiles() -> None:
    pipe = painting()
    whole = draw(pipe, num_images_per_prompt=2, jump_n_sample=2).images
    pipe.enable_slicing()
    sliced = draw(pipe, num_images_per_prompt=2, jump_n_sample=2).images
    torch.testing.assert_close(sliced, whole, atol=ROUNDING[torch.float32], rtol=0)
    pipe.enable_tiling(16)
    tiled = draw(pipe, num_images_per_prompt=2, jump_n_sample=2).images
    keep = ~a_mask().expand_as(whole)
    assert torch.equal(tiled[keep], whole[keep])
    assert not torch.equal(tiled, whole)


def gray(mask: Tensor) -> Image.Image:
    return Image.fromarray(mask[0, 0].numpy().astype(np.uint8) * 255)


def blank(height: int = 64, width: int = 64) -> Tensor:
    return torch.zeros(1, 3, height, width)


def photo(mode: str = "RGB") -> Image.Image:
    """`a_picture`, gray or with colours, behind which `a_mask` is transparent."""
    image = Image.fromarray((a_picture()[0] * 255).byte().permute(1, 2, 0).numpy()).convert(mode)
    if mode == "RGBA":
        image.putalpha(gray(~a_mask()))
    return image


FORMS = {
    "bool tensor (H, W)": lambda m: m[0, 0],
    "bool tensor (1, H, W)": lambda m: m[0],
    "bool tensor (N, 1, H, W)": lambda m: m,
    "float tensor": lambda m: m.float(),
    "uint8 tensor (H, W)": lambda m: m[0, 0].byte() * 255,
    "bool array (H, W)": lambda m: m[0, 0].numpy(),
    "bool array (1, H, W)": lambda m: m[0].numpy(),
    "bool array (H, W, 1)": lambda m: m[0, 0, ..., None].numpy(),
    "float array (N, H, W, 1)": lambda m: m[:, 0, ..., None].numpy().astype(np.float32),
    "PIL L": gray,
    "PIL 1": lambda m: gray(m).convert("1"),
    "PIL RGB": lambda m: gray(m).convert("RGB"),
    "PIL RGBA": lambda m: gray(m).convert("RGBA"),
    "PIL P": lambda m: gray(m).convert("P"),
    "list": lambda m: [gray(m)],
    "held another way": lambda m: held_upright(gray(m), 6),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_is_the_same_in_every_form(form, monkeypatch) -> None:
    mask, converted = a_mask(16, 24), []
    for module in (masks, image_inputs):
        monkeypatch.setattr(module, "from_pil", lambda *given: converted.append(given) or from_pil(*given))
    read = mask_to_tensor(FORMS[form](mask), blank(16, 24))
    assert read.dtype == torch.bool
    assert torch.equal(read, mask)
    assert len(converted) <= 1  # a mask of a large image takes its time


def test_transparent_parts_of_a_mask_stay() -> None:
    expected = mask_to_tensor(gray(a_mask()), blank())
    strokes = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    strokes.paste((255, 255, 255, 255), mask=gray(a_mask()))
    erased = Image.new("L", (64, 64), 255)
    erased.putalpha(gray(a_mask()))
    for drawn in (strokes, erased):
        assert torch.equal(mask_to_tensor(drawn, blank()), expected)


def test_soft_masks_slight_colours_and_drawings_that_are_their_own_masks_are_read() -> None:
    expected = a_mask()
    tinted = gray(expected).convert("RGB")
    tinted.paste((245, 250, 225), mask=gray(expected))
    hidden = Image.new("RGBA", (64, 64), (255, 0, 0, 0))  # red that nobody sees
    hidden.paste((255, 255, 255, 255), mask=gray(expected))
    for drawn in (tinted, hidden, expected * 0.6):
        assert torch.equal(mask_to_tensor(drawn, blank()), expected)
    assert torch.equal(mask_to_tensor(gray(expected), expected.float().expand(1, 3, 64, 64)), expected)


@pytest.mark.gpu
def test_a_soft_mask_is_of_an_image_on_a_gpu() -> None:
    image = a_picture().cuda()  # as another call hands it out
    assert torch.equal(mask_to_tensor(a_mask() * 0.6, image), a_mask().cuda())


def test_several_masks_are_read_in_order() -> None:
    masks = torch.cat([a_mask(16, 24), ~a_mask(16, 24)])
    for given in (masks, masks[:, 0], masks[:, 0].numpy(), list(masks), [gray(masks[:1]), gray(masks[1:])]):
        assert torch.equal(mask_to_tensor(given, blank(16, 24)), masks)


def test_one_mask_for_several_images_and_one_image_for_several_masks(shared) -> None:
    masks, prompts = torch.cat([a_mask(), ~a_mask()]), [PROMPT, "a blue cube"]
    given = {"generator": [seeded(1), seeded(2)]}
    twice = draw(shared, prompts, image=a_picture().repeat(2, 1, 1, 1), mask_image=masks, **given).images
    assert torch.equal(draw(shared, prompts, mask_image=masks, **{"generator": [seeded(1), seeded(2)]}).images, twice)
    unprompted = draw(shared, None, mask_image=masks, generator=[seeded(1), seeded(2)]).images
    assert unprompted.shape[0] == 2
    assert draw(shared, None, image=a_picture(2), generator=[seeded(1), seeded(2)]).images.shape[0] == 2


def test_a_thin_mask_is_painted_at_every_stage() -> None:
    thin = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    thin[..., 33, :] = True
    for size in (32, 16, 5):
        assert resize_mask(thin, (size, size)).sum() == size
    assert resize_mask(thin[..., :4], (64, 8)).any()


@pytest.mark.parametrize(("height", "width", "expected"), [(48, 100, (32, 64)), (5, 3, (64, 40)), (1, 1, (64, 64))])
def test_images_of_any_shape(shared, height, width, expected) -> None:
    mask = torch.ones(1, 1, height, width, dtype=torch.bool)
    assert draw(shared, image=a_picture(1, height, width), mask_image=mask).images.shape[-2:] == expected


def test_a_mask_comes_to_another_shape_as_its_image_does(shared) -> None:
    """Cropped, an image is painted as one that was cropped before; filled, what repeats a painted edge is painted, too."""
    image, mask = a_picture(1, 96, 64), a_mask(96, 64)
    cropped = draw(shared, image=image[..., 16:80, :], mask_image=mask[..., 16:80, :]).images
    assert torch.equal(draw(shared, image=image, mask_image=mask, height=64, width=64, resize_mode="crop").images, cropped)
    edge = torch.zeros(1, 1, 96, 64)
    edge[..., :1] = 1
    filled = {"height": 64, "width": 64, "resize_mode": "fill", "image": image, "mask_image": edge}
    before, after = (draw(shared, **filled, seed=seed).images for seed in (0, 1))
    assert (before != after).any(1)[0].any(0).nonzero().max() == 11  # of 42 columns in the middle, the first
    top = torch.zeros(1, 1, 96, 64)
    top[..., :1, :] = 1
    with pytest.raises(ValueError, match='mask_image marks no pixel of what resize_mode "crop" leaves of the image'):
        draw(shared, **{**filled, "mask_image": top, "resize_mode": "crop"})


BAD: list[tuple[dict, str]] = [
    ({"image": None}, "image is missing; give the image to start from"),
    ({"mask_image": None}, "mask_image is missing; give a mask, white where"),
    ({"mask_image": a_mask(32, 64)}, "mask_image is 64x32 and image 64x64; give a mask of the image's own size"),
    ({"mask_image": torch.zeros(64, 64)}, "mask_image marks no pixel; make white what is to be painted anew"),
    ({"mask_image": np.eye(64, dtype=np.uint8)}, "mask_image marks no pixel, since none is brighter than 1 of 255; make white"),
    ({"mask_image": torch.cat([a_mask(), torch.zeros(1, 1, 64, 64).bool()]), "prompt": ["a", "a"]}, "mask_image 1 of 2 marks no pixel"),
    ({"mask_image": a_mask().repeat(3, 1, 1, 1)}, "mask_image holds 3 images for 1 prompts; give one, or one per prompt"),
    (
        {"mask_image": photo()},
        r"mask_image is coloured, as photos are: its channels differ by up to 2\d\d levels of 255; give a gray image",
    ),
    ({"mask_image": photo("RGBA")}, r'where transparency marks it, give ImageOps.invert\(mask_image.getchannel\("A"\)\)$'),
    ({"mask_image": photo("L"), "image": photo("L")}, "mask_image is the image itself, with its grays; give a gray image, white where"),
    ({"mask_image": "mask.png"}, "mask_image is a str; give PIL images"),
    ({"mask_image": []}, "mask_image is an empty list"),
    ({"mask_image": a_mask().long()}, "mask_image is of torch.int64; give uint8 from 0 to 255"),
    ({"mask_image": a_mask().repeat(1, 3, 1, 1)}, "mask_image has 3 channels; give 1"),
    ({"mask_image": torch.full((64, 64), 7.0)}, "mask_image has floats from 7 to 7"),
    ({"mask_image": [gray(a_mask()), gray(a_mask(8, 8))], "prompt": ["a", "a"]}, "mask_image holds images of 8x8, 64x64"),
    ({"jump_n_sample": 0}, "jump_n_sample is 0; it must be a number of at least 1"),
    ({"jump_n_sample": 1.5}, "jump_n_sample is 1.5; it must be a whole number"),
    ({"jump_n_sample": "two"}, "jump_n_sample is 'two'"),
    ({"jump_n_sample": [2, 2]}, "jump_n_sample has 2 values for 3 stages"),
    ({"jump_length": 0}, "jump_length is 0; it must be a whole number of at least 1"),
    ({"jump_length": 2.0}, "jump_length is 2.0; it must be a whole number"),
    ({"mask_feather": -1.0}, "mask_feather is -1.0; give a number of pixels, 0 for a hard edge"),
    ({"mask_feather": float("nan")}, "mask_feather is nan; give a number of pixels"),
    ({"mask_feather": float("inf")}, "mask_feather is inf; give a number of pixels"),
    ({"mask_feather": 65}, "mask_feather is 65 and the image 64x64; give at most its smaller side"),
    ({"mask_feather": "4"}, "mask_feather is '4'; give a number of pixels"),
    ({"mask_feather": None}, "mask_feather is None; give a number of pixels"),
    ({"seamless": "yes"}, "seamless is 'yes'; give True or False"),
    ({"seamless": True, "mask_feather": 2}, "mask_feather fades an edge that a seamless painting does not have; give one of them"),
    ({"padding_mask_crop": -1}, "padding_mask_crop is -1; give a whole number of pixels around what the mask marks, or None"),
    ({"padding_mask_crop": 1.5}, "padding_mask_crop is 1.5; give a whole number"),
    ({"padding_mask_crop": True}, "padding_mask_crop is True; give a whole number"),
    ({"padding_mask_crop": 2, "mask_feather": 3}, "mask_feather is 3 and padding_mask_crop 2, but a painting fades inside its window"),
    ({"padding_mask_crop": 2, "resize_mode": "fill"}, 'resize_mode is "fill", which is of whole images'),
    ({"padding_mask_crop": 99, "mask_feather": 65}, "mask_feather is 65 and the image 64x64; give at most its smaller side"),
    ({"padding_mask_crop": 9, "mask_image": torch.zeros(64, 64)}, "mask_image marks no pixel; make white"),
    ({"strength": 2}, "strength is 2; give a number from 0"),
    ({"strength": [0.5]}, "strength has 1 values for 3 stages"),
]


@pytest.mark.parametrize(("given", "said"), BAD, ids=lambda x: ", ".join(x) if isinstance(x, dict) else "")
def test_a_call_says_what_is_wrong_before_any_network_runs(shared, monkeypatch, given, said) -> None:
    forbid_networks(monkeypatch, shared)
    with pytest.raises(ValueError, match=said):
        draw(shared, given.get("prompt", PROMPT), **{name: value for name, value in given.items() if name != "prompt"})


def test_a_pipeline_without_a_base_says_what_the_task_needs() -> None:
    with pytest.raises(ValueError, match="ImagenCascadeInpaintPipeline begins at a base stage"):
        draw(painting(unet=None, scheduler=None))
