"""Networks that are elsewhere while they are idle: where ids, masks and noise go then, without a GPU.

`accelerate.cpu_offload` keeps idle weights on "meta", where nothing can be computed: whatever follows them there fails, as it would
between a processor and a GPU.
"""

import pytest
import torch
from accelerate import cpu_offload
from diffusers.hooks import apply_group_offloading
from transformers import T5EncoderModel

from imagen_diffusers import ImagenCascadePipeline, LucidrainsScheduler
from imagen_diffusers.interop.imagen_pytorch.unet_lucidrains import LucidrainsUNet2DConditionModel

from .conftest import TEXT_DIM, awake, make_pipeline, make_text_encoder, make_tokenizer, seeded
from .test_deepfloyd import base_network, schedule, sr_network

CPU, PROMPTS = torch.device("cpu"), ["a red cube left of the sphere", "a sphere"]


def deepfloyd() -> ImagenCascadePipeline:
    text = {"tokenizer": make_tokenizer(), "text_encoder": make_text_encoder(), "null_text": "empty", "max_sequence_length": 12}
    stages = {"unet": base_network(), "scheduler": schedule(1.5), "unet_2": sr_network(), "scheduler_2": schedule(1.0)}
    return ImagenCascadePipeline(**text, **stages, text_padding="max_length", num_inference_steps=(2, 2, 2))


def imagen_pytorch() -> ImagenCascadePipeline:
    torch.manual_seed(0)
    sizes = {"dim": 16, "text_embed_dim": TEXT_DIM, "dim_mults": (1, 2), "num_resnet_blocks": 1, "layer_attns": (False, True)}
    unet = awake(LucidrainsUNet2DConditionModel(**sizes, layer_cross_attns=(False, True), attn_heads=2, attn_dim_head=8, sample_size=16))
    text = {"tokenizer": make_tokenizer(), "text_encoder": make_text_encoder(), "null_text": "learned", "max_sequence_length": 12}
    return ImagenCascadePipeline(**text, unet=unet, scheduler=LucidrainsScheduler(), num_inference_steps=(2, 2, 2))


FAMILIES = {"ours": make_pipeline, "deepfloyd": deepfloyd, "imagen_pytorch": imagen_pytorch}


@pytest.fixture(params=FAMILIES)
def pipe(request) -> ImagenCascadePipeline:
    made = FAMILIES[request.param]()
    made.set_progress_bar_config(disable=True)
    return made


def sample(pipe: ImagenCascadePipeline) -> torch.Tensor:
    return pipe(PROMPTS, generator=seeded(), output_type="pt").images


def networks(pipe: ImagenCascadePipeline) -> list[torch.nn.Module]:
    return [component for component in pipe.components.values() if isinstance(component, torch.nn.Module)]


def test_sequential_offload(pipe) -> None:
    expected = sample(pipe)
    for network in networks(pipe):
        cpu_offload(network, CPU, offload_buffers=True)
    assert pipe.text_encoder.device.type == "meta"
    assert torch.equal(sample(pipe), expected)


def test_model_offload_hands_the_encoder_what_is_on_its_device(pipe) -> None:
    """Accelerate moves inputs to the network; what was made beside it and meets its output must be there by itself."""
    expected = sample(pipe)
    pipe.enable_model_cpu_offload(device="cpu")
    seen = []

    def look(_, args, given):
        seen.extend(value.device for value in (*args, *given.values()) if isinstance(value, torch.Tensor))

    pipe.text_encoder.register_forward_pre_hook(look, with_kwargs=True)
    pipe.text_encoder.__class__ = type("Elsewhere", (T5EncoderModel,), {"device": property(lambda _: torch.device("meta"))})
    assert torch.equal(sample(pipe), expected)
    assert set(seen) == {CPU}


def test_group_offload(pipe) -> None:
    expected = sample(pipe)
    for network in networks(pipe):
        apply_group_offloading(network, onload_device=CPU, offload_device=CPU, offload_type="leaf_level")
    assert torch.equal(sample(pipe), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["model", "sequential", "group"])
def test_offload_on_a_gpu(pipe, kind) -> None:
    expected = sample(pipe.to("cuda"))
    pipe.to("cpu")
    if kind == "group":
        for network in networks(pipe):
            apply_group_offloading(network, onload_device=torch.device("cuda"), offload_device=CPU, offload_type="leaf_level")
    else:
        getattr(pipe, f"enable_{kind}_cpu_offload")()
    torch.testing.assert_close(sample(pipe), expected, atol=1e-4, rtol=1e-4)
