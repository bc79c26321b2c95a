"""Graphs of the networks compute what the networks do, and a cascade of graphs is a cascade like any other.

A graph is compared with the network of PyTorch that it was traced from. Tracing takes seconds a network, so all but the smallest is slow.
"""

import json
import shutil
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.guiders import SkipLayerGuidance
from diffusers.hooks.layer_skip import LayerSkipConfig
from transformers import GPT2Config, GPT2Model, RobertaConfig, RobertaModel

from imagen_diffusers import (
    ExportedNetwork,
    ExportedTextEncoder,
    ImagenCascadeImg2ImgPipeline,
    ImagenCascadePipeline,
    ImagenDDIMScheduler,
)
from imagen_diffusers.evaluation.asked import cascade_digest
from imagen_diffusers.export.cascade import export_cascade, export_network, quantize_cascade
from imagen_diffusers.export.inputs import example
from imagen_diffusers.export.openvino_files import ROUNDED, Recording, to_openvino
from imagen_diffusers.export.tensorflow_files import save_for_tensorflow
from imagen_diffusers.interop.imagen_pytorch.unet_lucidrains import LucidrainsUNet2DConditionModel
from imagen_diffusers.models.lora import add_lora, lora_layers, lora_metadata
from imagen_diffusers.sampling.network import adapt
from imagen_diffusers.text.encoders import readable
from imagen_diffusers.text.encoding import encode

from .conftest import TEXT_DIM, TINY_SR_2, make_base, make_pipeline, make_sr, make_text_encoder, make_tokenizer, seeded
from .encoders import MAKERS, SIZES, make_encoder
from .test_cli import call
from .test_deepfloyd import base_network, sr_network
from .test_imagen_pytorch import CASES, PLAIN

pytest.importorskip("onnxscript", reason="graphs are written by onnxscript: pip install -c constraints.txt -e '.[onnx]'")
pytest.importorskip("onnxruntime", reason="graphs are run by onnxruntime: pip install -c constraints.txt -e '.[onnx]'")

# Rows, sides in units of the stride, and tokens: none of them those that are traced.
SHAPES = [(1, (4, 4), 2), (1, (8, 6), 3), (2, (4, 6), 12), (5, (6, 4), 7)]
NO_NETWORKS = {f"{part}{n}": None for part in ("unet", "scheduler") for n in ("", "_2", "_3")}
SMALLEST = {"block_out_channels": (8,), "attention_levels": (False,), "norm_num_groups": 4}


def lucidrains(case: str) -> LucidrainsUNet2DConditionModel:
    torch.manual_seed(0)
    network = LucidrainsUNet2DConditionModel(**{**PLAIN, **CASES[case]}).eval()
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return network


NETWORKS = {
    "base": make_base,
    "base with everything": lambda: make_base(cond_channels=4, noisy_skip=True, detail_channels=8, patch_size=2),
    "super-resolution, text joined": make_sr,
    "super-resolution, text attended to": lambda: make_sr(**TINY_SR_2, linear_skip=True),
    "DeepFloyd IF, base": base_network,
    "DeepFloyd IF, super-resolution": sr_network,
    **{f"imagen-pytorch, {case}": lambda case=case: lucidrains(case) for case in CASES},
}


def largest_difference(network, exported: ExportedNetwork, shapes=SHAPES) -> float:
    """Over shapes, and over one more example whose first row has no token."""
    found = []
    for seed, (rows, patches, tokens) in enumerate([*shapes, shapes[-1]], start=1):
        given = example(adapt(network), rows, patches, tokens, seed)
        for value in given.values():
            if seed > len(shapes) and value.dtype == torch.bool:
                value[0] = False
        answer = exported(**given).sample
        with torch.no_grad():
            expected = network(given.pop("sample"), given.pop("timestep"), **given, return_dict=False)[0]
        found.append((answer - expected).abs().max())
    return float(max(found))


def test_a_graph_takes_any_batch_size_and_number_of_tokens(tmp_path) -> None:
    network = make_base(**SMALLEST)
    exported = export_network(network, tmp_path)
    assert largest_difference(network, exported) < 1e-4
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "ImagenUNet2DConditionModel"
    seen, own = adapt(exported), adapt(network)
    for told in ("sample_size", "stride", "text_dim", "has_low_res", "learns_variance", "channels", "dtype", "cond_channels"):
        assert getattr(seen, told) == getattr(own, told), told
    with pytest.raises(ValueError, match="timestep, encoder_hidden_states, encoder_attention_mask, by name; it was given sample"):
        exported(torch.zeros(1, 3, 8, 8), torch.zeros(1))
    with pytest.raises(ValueError, match="exported"):
        exported.compile()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_agree(name, tmp_path) -> None:
    network = NETWORKS[name]()
    assert largest_difference(network, export_network(network, tmp_path)) < 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("exported")
    assert list(export_cascade(make_pipeline(), place)) == ["unet", "unet_2", "unet_3", "text_encoder"]
    return place


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.slow
def test_a_cascade_of_graphs_generates_what_the_cascade_does(folder, pipe, tmp_path) -> None:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.onnx*")}
    assert files == {f"{part}/model.onnx" for part in ("unet", "unet_2", "unet_3", "text_encoder")}
    exported = quiet(DiffusionPipeline.from_pretrained(folder))
    assert type(exported) is ImagenCascadePipeline
    assert not list(exported.unet.parameters())
    pair = pipe, exported
    for told in (
        {"prompt": "a red cube", "negative_prompt": "blue"},
        {"prompt": ["a blue sphere on the left of a green cube", "a cube"], "height": 96, "width": 64},
        {"prompt": "a red cube", "num_images_per_prompt": 2, "guidance_scale": 1.0, "stop_at": 2},
    ):
        one, other = (p(**told, generator=seeded(), output_type="pt").images for p in pair)
        assert (one - other).abs().max() < 1e-4
    for p in pair:
        p.scheduler = ImagenDDIMScheduler.from_config(p.scheduler.config)
        p.enable_tiling(32)
        p.enable_slicing()
    start = pipe("a cube", generator=seeded(1)).images[0]
    given = {"image": start, "strength": 0.7, "output_type": "pt"}
    one, other = (ImagenCascadeImg2ImgPipeline.from_pipe(p)("a red cube", generator=seeded(), **given).images for p in pair)
    assert (one - other).abs().max() < 1e-4
    exported.save_pretrained(tmp_path)
    assert "ExportedNetwork.from_pretrained" in (tmp_path / "README.md").read_text()
    again = quiet(ImagenCascadePipeline.from_pretrained(tmp_path))
    one, other = (p("a red cube", generator=seeded(), output_type="pt", stop_at=1).images for p in (exported, again))
    assert torch.equal(one, other)


@pytest.mark.slow
def test_the_text_encoder(folder) -> None:
    tokenizer, encoder = make_tokenizer(), make_text_encoder()
    exported = ImagenCascadePipeline.from_pretrained(folder, unet=None, unet_2=None, unet_3=None).text_encoder
    for prompts in (["a"], ["a red cube", "a blue sphere on the left of the green cube"]):
        one, other = (encode(prompts, tokenizer, e, 12) for e in (encoder, exported))
        assert torch.equal(one.mask, other.mask)
        assert (one.embeds - other.embeds).abs().max() < 1e-5
    assert encoder.config._attn_implementation == make_text_encoder().config._attn_implementation


def roberta() -> RobertaModel:
    return RobertaModel(RobertaConfig(vocab_size=16, max_position_embeddings=18, pad_token_id=1, **SIZES)).eval()


def gpt2() -> GPT2Model:
    ends = {"bos_token_id": 2, "eos_token_id": 1}
    return GPT2Model(GPT2Config(vocab_size=16, n_positions=20, n_embd=TEXT_DIM, n_layer=2, n_head=4, **ends)).eval()


ENCODERS = {**{name: lambda name=name: make_encoder(name)[1] for name in MAKERS}, "RoBERTa": roberta, "GPT-2": gpt2}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS)
def test_every_kind_of_text_encoder(kind, tmp_path) -> None:
    torch.manual_seed(0)
    encoder = ENCODERS[kind]()
    cached = getattr(encoder.config, "use_cache", None)
    list(export_cascade(make_pipeline(text_encoder=encoder, **NO_NETWORKS), tmp_path))
    exported = ExportedTextEncoder.from_pretrained(tmp_path / "text_encoder")
    for rows, tokens in ((1, 2), (3, 7), (2, min(readable(30, encoder), 30))):
        ids = torch.randint(3, 11, (rows, tokens))
        attention = torch.ones_like(ids)
        attention[-1, -1] = 0
        with torch.no_grad():
            expected = encoder(input_ids=ids, attention_mask=attention).last_hidden_state
        assert ((exported(ids, attention).last_hidden_state - expected) * attention[..., None]).abs().max() < 1e-5
    assert readable(128, exported) == readable(128, encoder)
    assert getattr(encoder.config, "use_cache", None) == cached


@pytest.mark.slow
def test_what_a_graph_cannot_do_is_said(folder, tmp_path) -> None:
    exported = quiet(ImagenCascadePipeline.from_pretrained(folder))
    adapted = make_pipeline()
    add_lora(adapted.unet, rank=2)
    adapted.save_lora_weights(tmp_path, lora_layers(adapted.unet), unet_lora_adapter_metadata=lora_metadata(adapted.unet))
    with pytest.raises(ValueError, match="unet of this pipeline is exported"):
        exported.load_lora_weights(tmp_path)
    guider = SkipLayerGuidance(skip_layer_config=LayerSkipConfig([0], fqn="mid_block", skip_ff=False))
    with pytest.raises(ValueError, match="compiled or exported"):
        exported("a red cube", guider=[guider, None, None])
    with pytest.raises(ValueError, match="is exported"):
        exported.compile()
    with pytest.raises(ValueError, match="unet is a graph already"):
        list(export_cascade(exported, tmp_path / "again"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="model.onnx is missing"):
        ExportedNetwork.from_pretrained(tmp_path / "empty")


def test_what_cannot_be_a_graph_is_said_before_anything_is_written(tmp_path) -> None:
    place = tmp_path / "exported"

    def refused(pipe) -> str:
        with pytest.raises(ValueError) as error:
            list(export_cascade(pipe, place))
        assert not place.exists()
        return str(error.value)

    adapted = make_pipeline()
    add_lora(adapted.unet_2, rank=2)
    assert "unet_2 holds a LoRA adapter" in refused(adapted)
    offloaded = make_pipeline()
    offloaded.enable_model_cpu_offload(device="cpu")
    assert "unet has hooks" in refused(offloaded)
    stored = make_pipeline()
    stored.unet_3.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert "unet_3." in (said := refused(stored)) and "has hooks" in said
    assert "is in bfloat16" in refused(make_pipeline().to(torch.bfloat16))


@pytest.fixture
def of_openvino(folder, tmp_path) -> Path:
    """The same cascade as graphs of OpenVINO."""
    pytest.importorskip("openvino", reason="graphs of OpenVINO need it: pip install -c constraints.txt -e '.[openvino]'")
    place = shutil.copytree(folder, tmp_path / "openvino")
    for part in ("unet", "unet_2", "unet_3", "text_encoder"):
        to_openvino(place / part)
        assert {path.name for path in (place / part).iterdir()} == {"config.json", "openvino_model.xml", "openvino_model.bin"}
    return place


@pytest.mark.slow
def test_openvino(of_openvino, pipe) -> None:
    def images(p) -> torch.Tensor:
        return quiet(p)("a blue sphere on the left of a cube", generator=seeded(), output_type="pt").images

    plain = images(pipe)
    in_full = ImagenCascadePipeline.from_pretrained(of_openvino)
    assert in_full.unet.computes_in == "f32"
    exact = images(in_full)
    assert (exact - plain).abs().max() < 1e-4
    in_half = ImagenCascadePipeline.from_pretrained(of_openvino, dtype=torch.bfloat16)
    half = images(in_half)
    assert half.dtype == torch.float32
    if in_half.unet.computes_in != "bf16":
        pytest.skip("OpenVINO does not multiply in bfloat16 on this processor")
    assert cascade_digest(in_half) != cascade_digest(in_full)  # an evaluation of one does not go on as one of the other
    # bfloat16 keeps 8 bits; rounding in float32 alone moves the mean by less than 1e-6.
    assert 2**-12 < (half - plain).abs().mean() < 0.05


@pytest.mark.slow
def test_eight_bits(of_openvino, pipe) -> None:
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("nncf", reason="eight bits are fitted by nncf: pip install -c constraints.txt -e '.[openvino]'")
    before = (of_openvino / "unet" / "openvino_model.bin").stat().st_size
    with pytest.raises(ValueError, match="there are 0 prompts"):
        list(quantize_cascade(quiet(ImagenCascadePipeline.from_pretrained(of_openvino)), []))
    with pytest.raises(ValueError, match="are none"):
        list(quantize_cascade(pipe, ["a cube"]))
    prompts = ["a red cube", "a blue sphere"]
    networks = ["unet", "unet_2", "unet_3"]
    told = list(quantize_cascade(quiet(ImagenCascadePipeline.from_pretrained(of_openvino)), prompts))
    assert told == ["images of 2 prompts, to measure on", *(f"{name} in eight bits" for name in networks)]
    assert (of_openvino / "unet" / "openvino_model.bin").stat().st_size < 0.5 * before
    graph = openvino.Core().read_model(of_openvino / "unet" / "openvino_model.xml")
    rounded = [one for op in graph.get_ops() if op.get_type_name() == "FakeQuantize" for one in op.output(0).get_target_inputs()]
    assert rounded and {one.get_node().get_type_name() for one in rounded} <= set(ROUNDED)
    pair = pipe, quiet(ImagenCascadePipeline.from_pretrained(of_openvino))
    one, other = (p("a red cube", generator=seeded(), output_type="pt").images for p in pair)
    assert 0 < (one - other).abs().mean() < 0.1


def test_a_recording_keeps_every_step_once() -> None:
    class Counting:
        inputs: ClassVar = {}

        def __call__(self, given):
            return given["step"]

    recording = Recording(Counting(), images=2)
    for _ in range(2):
        for step in range(5):
            assert recording({"step": torch.tensor(step)}) == step
        recording.next_image()
    assert sorted(int(one["step"]) for one in recording.samples) == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def smallest(tmp_path_factory) -> ExportedNetwork:
    """A graph of few operators: JAX compiles one by one, for each shape anew."""
    return export_network(make_base(**SMALLEST), tmp_path_factory.mktemp("smallest"))


@pytest.mark.slow
def test_jax(smallest) -> None:
    pytest.importorskip("jaxonnxruntime", reason="JAX runs graphs by it: pip install -c constraints.txt -e '.[jax]'")
    from imagen_diffusers.export.jax_operators import OPERATORS

    exported = ExportedNetwork.from_pretrained(smallest.folder).run_by("jax")
    assert OPERATORS.keys() <= {node.op_type for node in exported.graph.model.graph.node}
    assert largest_difference(make_base(**SMALLEST), exported, SHAPES[:2]) < 1e-4
    with pytest.raises(ValueError, match="is unknown; use one of openvino, onnxruntime, jax"):
        exported.run_by("tensorrt")


@pytest.mark.slow
def test_a_program_of_jax_calls_the_function(smallest) -> None:
    """As it is, and from what it compiles itself; where whole numbers were of 32 bits, JAX would warn of each that it cuts."""
    pytest.importorskip("jaxonnxruntime", reason="JAX runs graphs by it: pip install -c constraints.txt -e '.[jax]'")
    import jax

    given = example(adapt(make_base(**SMALLEST)), *SHAPES[0])
    function, weights = ExportedNetwork.from_pretrained(smallest.folder).run_by("jax").graph.function(given)
    sample, *others = (value.numpy() for value in given.values())
    expected = smallest(**given).sample
    before = jax.config.jax_enable_x64
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        plain = function(weights, [sample, *others])[0]
        compiled = jax.jit(lambda weights, x: function(weights, [x, *others])[0])(weights, sample)
    for answer in (plain, compiled):
        assert (torch.from_numpy(np.array(answer)) - expected).abs().max() < 1e-4
    assert jax.config.jax_enable_x64 == before


@pytest.mark.slow
def test_jax_refuses_text_encoders(folder, tmp_path) -> None:
    pytest.importorskip("jaxonnxruntime", reason="JAX runs graphs by it: pip install -c constraints.txt -e '.[jax]'")
    encoder = ExportedTextEncoder.from_pretrained(folder, subfolder="text_encoder")
    graph = encoder.graph
    with pytest.raises(ValueError, match="jaxonnxruntime lacks its operators .*GreaterOrEqual.* this package's networks alone"):
        encoder.run_by("jax")
    assert encoder.graph is graph


@pytest.mark.slow
def test_tensorflow(smallest, tmp_path) -> None:
    tensorflow = pytest.importorskip("tensorflow", reason="it writes a SavedModel: pip install -c constraints.txt -e '.[tensorflow]'")
    pytest.importorskip("jaxonnxruntime", reason="and by JAX: pip install -c constraints.txt -e '.[jax]'")
    given = example(adapt(make_base(**SMALLEST)), *SHAPES[0])
    save_for_tensorflow(smallest, given, tmp_path)
    run = tensorflow.saved_model.load(str(tmp_path)).run
    answer = torch.from_numpy(run({name: value.numpy() for name, value in given.items()}).numpy())
    assert (answer - smallest(**given).sample).abs().max() < 1e-4


@pytest.mark.slow
def test_the_commands(folder, tmp_path) -> None:
    place, made = tmp_path / "exported", tmp_path / "image.png"
    make_pipeline(unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None).save_pretrained(tmp_path / "plain")
    assert "use one of onnx, openvino" in call("export", tmp_path / "plain", place, "--to", "tflite").output
    assert "go together" in call("export", tmp_path / "plain", place, "--to", "openvino", "--quant-mode", "int8").output
    done = call("export", tmp_path / "plain", place)
    assert done.exit_code == 0, done.output
    damaged = shutil.copytree(place, tmp_path / "damaged")
    (damaged / "unet" / "model.onnx").write_bytes(b"no graph")
    assert "is damaged" in call("generate", "a red cube", "--model", damaged, "--output", made).output
    for model in (place, folder):
        done = call("generate", "a red cube", "--model", model, "--output", made, "--scheduler", "dpm++", "--seed", 1)
        assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_the_bundled_cascade(tmp_path) -> None:
    """Within 1 level of 255 in the mean."""
    pipe = quiet(ImagenCascadePipeline.from_pretrained("imagen-scenes", dtype=torch.float32))
    list(export_cascade(pipe, tmp_path))
    exported = quiet(ImagenCascadePipeline.from_pretrained(tmp_path))
    given = {"prompt": "a large red cube left of a small blue sphere", "output_type": "pt", "return_dict": False}
    first, second = (p(**given, generator=seeded())[1] for p in (pipe, exported))
    for one, other in zip(first, second, strict=True):
        assert 255 * (one - other).abs().mean() < 1


def test_a_model_is_not_exported_onto_itself(tmp_path) -> None:
    make_pipeline().save_pretrained(tmp_path)
    before = (tmp_path / "model_index.json").read_bytes()
    assert "holds weights, which would be lost" in call("export", tmp_path, tmp_path).output
    assert (tmp_path / "model_index.json").read_bytes() == before
