"""An image, the noise it is generated from, and the image again."""

import torch
from PIL import Image

from examples.ddim_inversion import invert, main, make_deterministic
from imagen_diffusers.images import LABEL_HEIGHT
from imagen_diffusers.schedulers.noise import alpha_sigma, log_snr_at, log_snr_table

from .conftest import make_pipeline, seeded

PROMPT = "a red cube"
SPREAD = 0.3  # standard deviation of the images


def test_images_of_a_gaussian_are_generated_again_from_their_noise(monkeypatch) -> None:
    """Where pixels are independent and normal, what a perfect network predicts is known."""
    pipe = make_pipeline()
    make_deterministic(pipe)
    table = log_snr_table(pipe.scheduler.betas)

    def forward(sample, timestep, *args, **kwargs):
        alpha, sigma = alpha_sigma(log_snr_at(table, torch.as_tensor(timestep, dtype=torch.float32)))
        return (alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2) * sample,)

    monkeypatch.setattr(pipe.unet, "forward", forward)
    call = {"num_inference_steps": 20, "guidance_scale": 1.0, "stop_at": 1, "output_type": "pt"}
    noise = torch.randn(2, 3, 16, 16, generator=seeded(1))
    images = pipe([PROMPT] * 2, latents=noise, **call).images
    found = invert(pipe, PROMPT, images, 20, iterations=30)
    # Images are clipped at [0, 1]; 0.2 % of these pixels are.
    inside = (images > 0) & (images < 1)
    torch.testing.assert_close(found[inside], noise[inside], atol=1e-3, rtol=0)
    again = pipe([PROMPT] * 2, latents=found, **call).images
    torch.testing.assert_close(again, images, atol=1e-4, rtol=0)


def test_an_image_is_shown_as_it_was_inverted(tmp_path, monkeypatch) -> None:
    make_pipeline().save_pretrained(tmp_path / "cascade")
    Image.new("RGBA", (16, 16)).save(tmp_path / "clear.png")
    flags = ["--model", tmp_path / "cascade", "--num_inference_steps", 2, "--output", tmp_path / "grid.png"]
    monkeypatch.setattr("sys.argv", [str(word) for word in ("", tmp_path / "clear.png", PROMPT, "a blue cube", *flags)])
    main()
    assert Image.open(tmp_path / "grid.png").getpixel((8, LABEL_HEIGHT + 8)) == (255, 255, 255)
