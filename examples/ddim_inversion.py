"""DDIM inversion: the noise from which deterministic sampling generates a given image, and that image under other words.

    python examples/ddim_inversion.py small.png "a large red cube" "a large blue cube" --output inverted.png

Equation 5 of the paper goes from z_t to z_s = alpha_s x0 + sigma_s eps, with what the network makes of z_t. Here it is solved for z_t, by
a few fixed-point iterations a step. The base stage alone, whose images are small; enlarge them afterwards.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from imagen_diffusers import ImagenCascadePipeline, ImagenDDPMScheduler, bundled
from imagen_diffusers.finetuning.flags import run_script
from imagen_diffusers.images import labelled_grid, read_image
from imagen_diffusers.pipelines.image_inputs import Images, images_to_tensor
from imagen_diffusers.schedulers.driving import clean_image
from imagen_diffusers.schedulers.noise import resize
from imagen_diffusers.text.encoding import TextEmbedding


def make_deterministic(pipe: ImagenCascadePipeline) -> None:
    """Sample the base by equation 5: the same noise is then the same image, and the way back is defined."""
    pipe.scheduler = ImagenDDPMScheduler.from_config(pipe.scheduler.config, variance_interpolation=None, thresholding=False)


@torch.no_grad()
def invert(pipe: ImagenCascadePipeline, prompt: str, image: Images, num_inference_steps: int = 50, iterations: int = 3) -> Tensor:
    """The noise (N, C, H, W) of which a call with `latents=noise, guidance_scale=1, stop_at=1` and as many steps makes this image.

    Args:
        pipe: after `make_deterministic`.
        prompt: what the image shows.
        image: to invert; resized to the base's size.
        iterations: of the fixed point, a step.
    """
    stage = pipe.stages([1], num_inference_steps, guidance_scale=1.0)[0]
    size = stage.sample_size
    z = resize(images_to_tensor("image", image) * 2 - 1, (size, size)).to(pipe.device)
    embeds, _, mask, _ = pipe.encode_prompt([prompt] * len(z), do_classifier_free_guidance=False)
    arguments = stage.network.arguments(TextEmbedding(embeds, mask), None, None)
    scheduler = stage.prepared_scheduler(z.device)
    alpha, sigma = torch.ones(()), torch.zeros(())
    for t in scheduler.timesteps.flip(0):
        alpha_t, sigma_t = (x.to(z) for x in scheduler.signal_and_noise(t))
        z_t = z
        for _ in range(iterations):
            output = stage.network.predict(z_t, t, arguments)[:, : stage.network.channels]
            x0 = clean_image(scheduler, output, t, z_t, stage.scheduler.config)
            eps = (z_t - alpha_t * x0) / sigma_t
            z_t = z_t + z - (alpha * x0 + sigma * eps)  # what the step from z_t misses
        z, alpha, sigma = z_t, alpha_t, sigma_t
    return z


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("prompt", help="what the image shows")
    parser.add_argument("other_prompt", help="what it is to show")
    parser.add_argument("--model", default=bundled("imagen-scenes"), help="a folder or Hub id")
    parser.add_argument("--num_inference_steps", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("inverted.png"))
    args = parser.parse_args()
    pipe = ImagenCascadePipeline.from_pretrained(args.model)
    make_deterministic(pipe)
    image = read_image(args.image)
    noise = invert(pipe, args.prompt, image, args.num_inference_steps)
    call = {"latents": noise, "num_inference_steps": args.num_inference_steps, "guidance_scale": 1.0, "stop_at": 1}
    shown = [pipe(prompt, **call).images[0] for prompt in (args.prompt, args.other_prompt)]
    (given,) = pipe.image_processor.numpy_to_pil(images_to_tensor("image", image).permute(0, 2, 3, 1).numpy())  # on white, as inverted
    labelled_grid([given.resize(shown[0].size), *shown], ["image", "again", "other words"], 3).save(args.output)


if __name__ == "__main__":
    run_script(main)
