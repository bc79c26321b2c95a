"""The tiny cascade every test shares: real classes, random weights, 16 -> 32 -> 64 pixels."""

import gc
from collections.abc import Iterator

import pytest
import torch
from accelerate.hooks import CpuOffload
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from imagen_diffusers import (
    ImagenCascadePipeline,
    ImagenDDPMScheduler,
    ImagenEfficientUNet2DConditionModel,
    ImagenUNet2DConditionModel,
)
from imagen_diffusers.text.prompts import TextRules

TEXT_DIM = 32
SHORT = TextRules(max_sequence_length=12)  # how the tiny cascade reads text
WORDS = ["a", "red", "blue", "green", "cube", "sphere", "left", "right", "of", "on", "the"]
TINY_BASE = {
    "sample_size": 16,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "attention_levels": (False, True),
    "attention_head_dim": 8,
    "encoder_hid_dim": TEXT_DIM,
    "norm_num_groups": 8,
}
TINY_SR = {
    "sample_size": 32,
    "block_out_channels": (16, 32),
    "layers_per_block": (1, 1),
    "attention_kind": "self_text",
    "num_attention_heads": 4,
    "encoder_hid_dim": TEXT_DIM,
    "norm_num_groups": 8,
    "low_res_channels": 3,
}
TINY_SR_2 = {**TINY_SR, "sample_size": 64, "attention_kind": "cross_text", "patch_size": 2}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skips = {"slow": not config.getoption("--run-slow"), "gpu": not torch.cuda.is_available()}
    for item in items:
        for mark, skip in skips.items():
            if skip and mark in item.keywords:
                item.add_marker(pytest.mark.skip(reason=f"marked {mark}"))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what is there from now on: half a million objects, which each run of `train_stage` looks at."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """The same for what a module's tests have imported: it is there for good."""
    yield
    pytest_collection_finish()


def awake(module: torch.nn.Module) -> torch.nn.Module:
    """Give the layers that start at zero small weights, so that a fresh network does not just return zeros."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def make_base(**changes) -> ImagenUNet2DConditionModel:
    torch.manual_seed(1)
    return awake(ImagenUNet2DConditionModel(**{**TINY_BASE, **changes}))


def make_sr(**changes) -> ImagenEfficientUNet2DConditionModel:
    torch.manual_seed(2)
    return awake(ImagenEfficientUNet2DConditionModel(**{**TINY_SR, **changes}))


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=12)


def make_text_encoder() -> T5EncoderModel:
    torch.manual_seed(3)
    config = T5Config(vocab_size=16, d_model=TEXT_DIM, d_kv=8, num_heads=4, d_ff=32, num_layers=1, dropout_rate=0.0)
    return T5EncoderModel(config).eval()


def make_pipeline(**changes) -> ImagenCascadePipeline:
    components = {
        "tokenizer": make_tokenizer(),
        "text_encoder": make_text_encoder(),
        "unet": make_base(),
        "scheduler": ImagenDDPMScheduler(prediction_type="sample"),
        "unet_2": make_sr(),
        "scheduler_2": ImagenDDPMScheduler(prediction_type="sample", log_snr_shift=-1.0),
        "unet_3": make_sr(**TINY_SR_2),
        "scheduler_3": ImagenDDPMScheduler(prediction_type="v_prediction"),
    }
    settings = {"num_inference_steps": (3, 2, 2), "guidance_scale": (3.0, 2.0, 1.0), "max_sequence_length": SHORT.max_sequence_length}
    pipe = ImagenCascadePipeline(**{**components, **settings, **changes})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def shared_pipe() -> ImagenCascadePipeline:
    """For tests that change nothing in it."""
    return make_pipeline()


@pytest.fixture
def pipe() -> ImagenCascadePipeline:
    return make_pipeline()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Residents:
    """Which networks model offload has put on the device, told by accelerate's hooks, so that no device is needed.

    `history` has the kinds of networks that were there together, one entry a change of guard.
    """

    def __init__(self) -> None:
        self.now: list[torch.nn.Module] = []
        self.history: list[set[type]] = []

    def arrive(self, module: torch.nn.Module) -> None:
        if not any(m is module for m in self.now):
            self.now.append(module)
            self.history.append({type(m) for m in self.now})

    def leave(self, module: torch.nn.Module) -> None:
        self.now = [m for m in self.now if m is not module]


@pytest.fixture
def residents(monkeypatch) -> Residents:
    found = Residents()
    arrive, leave = CpuOffload.pre_forward, CpuOffload.init_hook

    def pre_forward(self, module, *args, **kwargs):
        if self.prev_module_hook is not None:
            self.prev_module_hook.offload()  # as accelerate does, were the device not the CPU itself
        found.arrive(module)
        return arrive(self, module, *args, **kwargs)

    def init_hook(self, module):
        found.leave(module)
        return leave(self, module)

    monkeypatch.setattr(CpuOffload, "pre_forward", pre_forward)
    monkeypatch.setattr(CpuOffload, "init_hook", init_hook)
    return found


def forbid_networks(monkeypatch: pytest.MonkeyPatch, pipe: ImagenCascadePipeline) -> None:
    """Let a test fail as soon as a network of the pipeline runs."""
    for unet in ("unet", "unet_2", "unet_3"):
        monkeypatch.setattr(getattr(pipe, unet), "forward", lambda *_, **__: pytest.fail("a network ran"))
