"""The networks: sizes, text, conditions, and diffusers' features on them."""

import shutil

import pytest
import torch
from peft import LoraConfig

from imagen_diffusers import ImagenEfficientUNet2DConditionModel, ImagenUNet2DConditionModel
from imagen_diffusers.models import configurations
from imagen_diffusers.models.blocks import Upsample

from .conftest import TEXT_DIM, TINY_SR_2, make_base, make_sr


def inputs(unet, size=None, batch: int = 2, tokens: int = 5) -> dict:
    generator = torch.Generator().manual_seed(0)
    height, width = size or (unet.config.sample_size,) * 2
    given = {"sample": torch.randn(batch, 3, height, width, generator=generator), "timestep": torch.tensor([10.5, 800.0])[:batch]}
    if unet.text_dim is not None:
        given["encoder_hidden_states"] = torch.randn(batch, tokens, unet.text_dim, generator=generator)
        given["encoder_attention_mask"] = torch.ones(batch, tokens, dtype=torch.bool)
    if unet.has_low_res:
        given |= {"low_res": torch.randn(batch, 3, height, width, generator=generator), "noise_level": torch.full((batch,), 100.0)}
    return given


MAKERS = {
    "base": make_base,
    "base_patch": lambda: make_base(patch_size=2),
    "base_as_sr": lambda: make_base(low_res_channels=3),
    "sr_self_text": make_sr,
    "sr_cross_text": lambda: make_sr(**TINY_SR_2),
    "sr_linear_skip": lambda: make_sr(**TINY_SR_2, linear_skip=True),
    "base_noisy_skip": lambda: make_base(patch_size=2, noisy_skip=True),
    "base_detail": lambda: make_base(patch_size=2, detail_channels=4),
    "sr_detail": lambda: make_sr(patch_size=2, linear_skip=True, noisy_skip=True, detail_channels=4),
    "base_detail_as_sr": lambda: make_base(low_res_channels=3, noisy_skip=True, detail_channels=4),
    "unconditional": lambda: make_base(encoder_hid_dim=None),
    "unconditional_sr": lambda: make_sr(encoder_hid_dim=None, attention_kind="self"),
}


@pytest.fixture(params=MAKERS)
def unet(request):
    return MAKERS[request.param]()


@pytest.mark.parametrize(
    ("network", "preset", "low", "high"),
    [
        (ImagenUNet2DConditionModel, configurations.PAPER_BASE, 2.30e9, 2.45e9),
        (ImagenEfficientUNet2DConditionModel, configurations.PAPER_SR256, 0.55e9, 0.57e9),
        (ImagenEfficientUNet2DConditionModel, configurations.PAPER_SR1024, 0.54e9, 0.56e9),
    ],
)
def test_paper_presets_have_the_papers_size(network, preset, low, high) -> None:
    with torch.device("meta"):
        unet = network(**preset)
    assert low < unet.num_parameters() < high


def test_output_has_the_shape_of_the_image(unet) -> None:
    for size in (None, (unet.stride, 3 * unet.stride)):
        given = inputs(unet, size)
        assert unet(**given).sample.shape == given["sample"].shape
        assert torch.equal(unet(**given, return_dict=False)[0], unet(**given).sample)


@pytest.mark.thorough
def test_a_fresh_network_predicts_zero() -> None:
    small = {"sample_size": 16, "block_out_channels": (32, 32), "layers_per_block": 1, "attention_levels": (True, True)}
    for more in ({}, {"noisy_skip": True, "detail_channels": 8, "patch_size": 4}):
        unet = ImagenUNet2DConditionModel(**small, **more)
        assert not unet(**inputs(unet)).sample.any()


def test_the_noisy_path_carries_the_image_in_closed_form() -> None:
    """With the gate open and all else shut, the output is the noisy image itself, and no norm has touched its brightness."""
    unet = make_base(patch_size=2, noisy_skip=True)
    with torch.no_grad():
        for p in (*unet.head.parameters(), unet.noisy_path.scale.weight, unet.noisy_path.conv.bias):
            p.zero_()
        unet.noisy_path.scale.bias.fill_(1)
    given = inputs(unet)
    given["sample"] = 40 * given["sample"] + 7
    torch.testing.assert_close(unet(**given).sample, given["sample"])


def test_detail_is_made_between_the_patches() -> None:
    """Features that are one value a patch, and nothing of the noisy image, still give an output that differs inside the patches."""
    unet = make_base(patch_size=4, detail_channels=4, block_out_channels=(16,), attention_levels=(False,))
    with torch.no_grad():
        for p in (*unet.head.parameters(), *unet.detail.from_image.parameters()):
            p.zero_()
    patches = torch.nn.functional.unfold(unet(**inputs(unet)).sample, 4, stride=4)
    assert patches.view(2, 3, 16, -1).std(2).min() > 1e-4


def test_levels_have_as_many_blocks_as_they_are_given() -> None:
    def widths(layers) -> list[int]:
        unet = make_base(block_out_channels=(32, 64), attention_levels=(False, True), layers_per_block=layers)
        return [layer.resnet.conv2.out_channels for layer in (*unet.down_blocks, *unet.up_blocks)]

    # One more block a level going up than down, and a block that resamples between levels, as wide as the level it leaves.
    assert widths((3, 1)) == [32, 32, 32, 32, 64] + [64, 64, 64, 32, 32, 32, 32]
    assert widths(2) == widths((2, 2))


def test_a_fresh_network_with_a_linear_skip_predicts_its_condition() -> None:
    fresh = ImagenEfficientUNet2DConditionModel(**{**TINY_SR_2, "linear_skip": True})
    given = inputs(fresh)
    assert torch.equal(fresh(**given).sample, given["low_res"])


def test_every_condition_is_heard(unet) -> None:
    given = inputs(unet)
    plain = unet(**given).sample
    for name in set(given) - {"sample", "encoder_attention_mask"}:
        assert (unet(**{**given, name: given[name] * torch.linspace(0.3, 0.9, given[name].shape[-1])}).sample - plain).abs().max() > 1e-5, (
            name
        )


def test_fractions_of_a_timestep_are_heard(unet) -> None:
    given = inputs(unet)
    assert not torch.equal(unet(**{**given, "timestep": 500.0}).sample, unet(**{**given, "timestep": 500.4}).sample)


class Quantized(torch.nn.Linear):
    """A linear layer that keeps its weight as bytes, as quantizers do."""

    def __init__(self, plain: torch.nn.Linear):
        super().__init__(plain.in_features, plain.out_features)
        self.scale = plain.weight.abs().max() / 127
        codes = (plain.weight / self.scale).round().add(128).to(torch.uint8)
        self.weight, self.bias = torch.nn.Parameter(codes, requires_grad=False), plain.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, (self.weight.to(x) - 128) * self.scale, self.bias)


def test_quantized_layers_are_given_the_samples_dtype(unet) -> None:
    given = inputs(unet)
    plain = unet(**given).sample
    embeddings = [unet.embedding.time] + ([unet.embedding.noise_level] if unet.has_low_res else [])
    for embedding in embeddings:
        embedding.linear_1 = Quantized(embedding.linear_1)
    quantized = unet(**given).sample
    assert not torch.equal(quantized, plain)
    assert (quantized - plain).std() < 0.1 * plain.std()  # codes of 8 bits


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16])
def test_weights_may_be_stored_in_fewer_bits(unet, dtype) -> None:
    given = inputs(unet)
    plain = unet(**given).sample
    unet.enable_layerwise_casting(storage_dtype=dtype, compute_dtype=torch.float32)
    assert any(p.dtype == dtype for p in unet.parameters())
    stored = unet(**given).sample
    assert stored.dtype == torch.float32
    assert not torch.equal(stored, plain)
    assert (stored - plain).std() < 0.5 * plain.std()  # 3 bits of mantissa


@pytest.mark.parametrize("name", ["base", "sr_self_text", "sr_cross_text"])
def test_padding_is_masked_everywhere(name) -> None:
    unet = MAKERS[name]()
    given = inputs(unet)
    short = unet(**given).sample
    text, mask = given["encoder_hidden_states"], given["encoder_attention_mask"]
    given["encoder_hidden_states"] = torch.cat((text, 100 * torch.ones(2, 3, TEXT_DIM)), 1)
    given["encoder_attention_mask"] = torch.cat((mask, torch.zeros(2, 3, dtype=torch.bool)), 1)
    # The same sums in another order: a few units in the last place of float32.
    torch.testing.assert_close(unet(**given).sample, short, atol=1e-4, rtol=1e-4)


def test_examples_of_a_batch_do_not_meet(unet) -> None:
    given = inputs(unet)
    alone = {k: v[:1] for k, v in given.items()}
    torch.testing.assert_close(unet(**given).sample[:1], unet(**alone).sample, atol=1e-4, rtol=1e-4)


def test_gradient_checkpointing_changes_no_gradient(unet) -> None:
    gradients = []
    for checkpointing in (False, True):
        (unet.enable_gradient_checkpointing if checkpointing else unet.disable_gradient_checkpointing)()
        unet.train().zero_grad()
        unet(**inputs(unet)).sample.square().mean().backward()
        gradients.append([p.grad.clone() for p in unet.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(unet.parameters()))
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["base_detail_as_sr", "sr_detail", "sr_cross_text", "unconditional", "unconditional_sr"])
def test_compiles_without_a_break(name) -> None:
    """Networks that have every part of all of them: compiling one takes seconds."""
    torch.compiler.reset()  # counts how often a function was compiled, over all tests
    unet = MAKERS[name]()
    given = inputs(unet)
    compiled = torch.compile(unet, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**given).sample, unet(**given).sample, atol=1e-5, rtol=1e-5)


@pytest.mark.thorough
@torch._dynamo.config.patch(recompile_limit=1)
def test_compiled_blocks_have_graphs_of_their_own() -> None:
    """diffusers compiles each by itself, and those of one class differ in widths."""
    torch.compiler.reset()
    unet, plain = (make_base(block_out_channels=(16,), attention_levels=(False,)) for _ in range(2))
    unet.compile_repeated_blocks(fullgraph=True, backend="eager")
    torch.testing.assert_close(unet(**inputs(unet)).sample, plain(**inputs(unet)).sample, atol=1e-5, rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("name", [pytest.param("base_detail_as_sr", marks=pytest.mark.slow), "sr_detail"])
def test_one_graph_without_a_break_serves_all_sizes(name) -> None:
    torch.compiler.reset()
    unet = MAKERS[name]()
    compiled = torch.compile(unet, fullgraph=True, dynamic=True, backend="eager")
    for side in (16, 32, 48):
        given = inputs(unet, (side, side))
        with torch.compiler.set_stance("default" if side == 16 else "fail_on_recompile"):
            torch.testing.assert_close(compiled(**given).sample, unet(**given).sample, atol=1e-5, rtol=1e-5)


def test_upsampling_is_compiled_without_interpolate() -> None:
    """Which loses gradients then, as the next test shows."""
    layer, graphs, x = Upsample(4, 4), [], torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(layer, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    torch.testing.assert_close(compiled(x), layer(x))
    (graph,) = graphs
    assert torch.nn.functional.interpolate not in {node.target for node in graph.graph.nodes}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a processor needs a C++ compiler")
def test_gradients_pass_upsampling_when_compiled_in_bf16() -> None:
    """128 channels, since only wide layers lose theirs when `F.interpolate` is compiled (torch 2.13): all zero, without a word."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(128, 128, 1), Upsample(128, 128))
    gradients = []
    for run in (layers, torch.compile(layers)):
        layers.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            drawn = run(torch.randn(2, 128, 8, 8, generator=torch.Generator().manual_seed(1)))
        drawn.float().sub(1).square().mean().backward()
        gradients.append(layers[0].weight.grad.clone())
    # Sums of 512 products of bfloat16 numbers in another order: its 8 bits, 0.4 %, on the largest gradient.
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0.004 * gradients[0].abs().max().item())


def test_channels_last_and_bf16(unet) -> None:
    given = inputs(unet)
    plain = unet(**given).sample
    unet.to(memory_format=torch.channels_last)
    torch.testing.assert_close(unet(**given).sample, plain, atol=1e-4, rtol=1e-4)
    half = {k: v.bfloat16() if v.is_floating_point() and k not in ("timestep", "noise_level") else v for k, v in given.items()}
    out = unet.to(torch.bfloat16)(**half).sample
    assert out.dtype == torch.bfloat16
    assert (out.float() - plain).abs().mean() < 0.05 * plain.abs().mean() + 0.01  # bf16 keeps 8 bits


def test_attention_backend_processors_and_fusion(unet) -> None:
    given = inputs(unet)
    plain = unet(**given).sample
    unet.set_attention_backend("native")
    assert unet.attn_processors
    unet.set_attn_processor(next(iter(unet.attn_processors.values())))
    unet.fuse_qkv_projections()
    torch.testing.assert_close(unet(**given).sample, plain, atol=1e-5, rtol=1e-5)
    unet.unfuse_qkv_projections()
    torch.testing.assert_close(unet(**given).sample, plain, atol=1e-5, rtol=1e-5)


def test_lora_on_linear_and_convolution_layers(unet, tmp_path) -> None:
    given = inputs(unet)
    plain = unet(**given).sample
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "conv1"], init_lora_weights=False))
    changed = unet(**given).sample
    assert (changed - plain).abs().max() > 1e-4
    unet.save_lora_adapter(tmp_path)
    unet.delete_adapters(["default"])
    torch.testing.assert_close(unet(**given).sample, plain)
    unet.load_lora_adapter(str(tmp_path), prefix=None, use_safetensors=True)
    torch.testing.assert_close(unet(**given).sample, changed, atol=1e-5, rtol=1e-5)


def test_saves_and_loads_bit_equal(unet, tmp_path) -> None:
    unet.save_pretrained(tmp_path)
    loaded = type(unet).from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs(unet)).sample, unet(**inputs(unet)).sample)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("base", {"sample": torch.zeros(2, 3, 15, 16)}, "multiples of 2"),
        ("base", {"low_res": torch.zeros(2, 3, 16, 16)}, "takes neither"),
        ("sr_self_text", {"low_res": None}, "needs both low_res and noise_level"),
        ("sr_self_text", {"low_res": torch.zeros(2, 3, 16, 16)}, "resize low_res"),
        ("base", {"encoder_hidden_states": torch.zeros(2, 5, 7)}, "7 wide"),
        ("base", {"encoder_hidden_states": None}, "needs 32-wide"),
        ("base", {"sample": torch.zeros(2, 4, 16, 16)}, "sample has 4 channels; .* was built for 3"),
        ("sr_self_text", {"low_res": torch.zeros(2, 1, 32, 32)}, "low_res has 1 channels; .* was built for 3"),
        ("sr_self_text", {"low_res": torch.zeros(1, 3, 32, 32)}, "there are 1 low_res images for 2 samples; give one for each"),
        ("base", {"encoder_hidden_states": torch.zeros(1, 5, 32)}, "of 1 texts, and there are 2 images; give one text for each"),
        ("base", {"encoder_attention_mask": torch.ones(2, 4)}, r"encoder_attention_mask is \(2, 4\); it must be \(2, 5\)"),
        ("unconditional", {"encoder_hidden_states": torch.zeros(2, 5, 32)}, "unconditional"),
    ],
)
def test_bad_inputs_are_refused_in_words(name, change, message) -> None:
    unet = MAKERS[name]()
    with pytest.raises(ValueError, match=message):
        unet(**{**inputs(unet), **change})


def test_one_number_of_blocks_is_that_of_every_level() -> None:
    one, each = make_sr(layers_per_block=2), make_sr(layers_per_block=(2,) * len(make_sr().config["block_out_channels"]))
    assert [name for name, _ in one.named_parameters()] == [name for name, _ in each.named_parameters()]


def test_bad_configurations_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="one per level"):
        make_base(attention_levels=(True,))
    with pytest.raises(ValueError, match='attention_kind="cross" is unknown; use one of self, self_text, cross_text'):
        make_sr(attention_kind="cross")
    with pytest.raises(ValueError, match="num_attention_heads=7 does not divide 64"):
        make_sr(num_attention_heads=7)
    with pytest.raises(ValueError, match="attention_head_dim=24 makes heads of 24 channels, which do not divide 32"):
        make_base(attention_head_dim=24)
    with pytest.raises(ValueError, match="one number, or one per level"):
        make_base(layers_per_block=(1,))
    with pytest.raises(ValueError, match="one per level"):
        make_sr(layers_per_block=(1,))
    with pytest.raises(ValueError, match="needs text"):
        make_sr(encoder_hid_dim=None)
    with pytest.raises(ValueError, match="out_channels=6; they must be equal"):
        make_sr(linear_skip=True, out_channels=6)


@pytest.mark.parametrize(("saved", "asked"), [(make_base, ImagenEfficientUNet2DConditionModel), (make_sr, ImagenUNet2DConditionModel)])
def test_a_network_is_not_loaded_by_the_class_of_another(tmp_path, saved, asked) -> None:
    network = saved()
    network.save_pretrained(tmp_path)
    name = type(network).__name__
    with pytest.raises(ValueError, match=f"is of {name}, not of {asked.__name__}; load it by {name}.from_pretrained"):
        asked.from_pretrained(tmp_path)


@pytest.mark.parametrize("width", [48, 96, 312])
def test_text_of_any_width_is_pooled(width) -> None:
    """TinyBERT's is 312, of which 64 is no divisor."""
    unet = make_base(encoder_hid_dim=width)
    text = torch.randn(2, 5, width)
    out = unet(torch.randn(2, 3, 16, 16), torch.tensor(0.5), text, encoder_attention_mask=torch.ones(2, 5, dtype=torch.bool)).sample
    assert out.isfinite().all()


def test_a_linear_path_needs_as_many_channels_out_as_in() -> None:
    with pytest.raises(ValueError, match="noisy_skip leads from in_channels=3 to out_channels=6; they must be equal"):
        make_base(noisy_skip=True, out_channels=6)
