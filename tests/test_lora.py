"""Adapters over all stages: alpha and rank are kept, they come off without a trace, and files that would lose something are refused."""

import logging
from functools import partial

import pytest
import torch
from diffusers import IFPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from imagen_diffusers import ImagenCascadePipeline
from imagen_diffusers.models.adapters import has_lora
from imagen_diffusers.models.lora import add_lora, lora_layers, lora_metadata

from .conftest import make_base, make_pipeline, seeded
from .test_cascade import make_shallow
from .test_deepfloyd import base_network, schedule

CALL = {"output_type": "pt"}


def draw(pipe) -> torch.Tensor:
    return pipe("a red cube", generator=seeded(), **CALL).images


def wake(unet, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in unet.named_parameters():
            if "lora_" in name:
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A cascade with adapters of rank 4 and alpha 2 in its first two stages, saved; and what it draws."""
    folder = tmp_path_factory.mktemp("saved")
    pipe = make_pipeline()
    for n, slot in enumerate(("unet", "unet_2")):
        add_lora(getattr(pipe, slot), rank=4, alpha=2)
        wake(getattr(pipe, slot), n)
    layers = {f"{s}_lora_layers": lora_layers(getattr(pipe, s)) for s in ("unet", "unet_2")}
    told = {f"{s}_lora_adapter_metadata": lora_metadata(getattr(pipe, s)) for s in ("unet", "unet_2")}
    pipe.save_lora_weights(folder, **layers, **told)
    return folder, draw(pipe)


@pytest.mark.thorough
def test_save_and_load_keep_alpha_rank_and_every_bit(saved) -> None:
    folder, expected = saved
    pipe = make_pipeline()
    pipe.load_lora_weights(folder)
    for unet in (pipe.unet, pipe.unet_2):
        config = unet.peft_config["default_0"]
        assert (config.r, config.lora_alpha) == (4, 2)
    assert not has_lora(pipe.unet_3)
    assert torch.equal(draw(pipe), expected)


@pytest.mark.thorough
def test_an_adapter_comes_off_without_a_trace(saved) -> None:
    pipe = make_pipeline()
    before = draw(pipe)
    pipe.load_lora_weights(saved[0])
    assert not torch.equal(draw(pipe), before)
    pipe.unload_lora_weights()
    assert torch.equal(draw(pipe), before)


@pytest.mark.thorough
def test_fused_weights_draw_the_same_images(saved) -> None:
    pipe = make_pipeline()
    pipe.load_lora_weights(saved[0])
    pipe.fuse_lora()
    fused = draw(pipe)
    torch.testing.assert_close(fused, saved[1], rtol=0, atol=1e-3)  # one product in place of two sums, over seven steps
    pipe.unload_lora_weights()
    assert not has_lora(pipe.unet)
    assert torch.equal(draw(pipe), fused)
    with pytest.raises(ValueError, match=r"default_0 is fused into the weights, .* load the pipeline again"):
        pipe.unfuse_lora()


@pytest.mark.thorough
def test_unfused_weights_are_as_before(saved) -> None:
    pipe = make_pipeline()
    before = draw(pipe)
    pipe.load_lora_weights(saved[0])
    pipe.fuse_lora()
    with pytest.raises(ValueError, match=r"default_0 is fused into the weights; call unfuse_lora\(\) first"):
        pipe.delete_adapters("default_0")
    for change in (pipe.set_adapters, pipe.delete_adapters, lambda names: pipe.fuse_lora(adapter_names=names)):
        with pytest.raises(ValueError, match="adapter_names holds default_0 more than once"):
            change(["default_0", "default_0"])
    with pytest.raises(ValueError, match=r"no adapter is called default_0; loaded are: none"):
        pipe.fuse_lora(["unet_3"], adapter_names=["default_0"])
    assert type(pipe).from_pipe(pipe).fused_loras == pipe.fused_loras == {"default_0"}
    pipe.unfuse_lora()
    torch.testing.assert_close(draw(pipe), saved[1], rtol=0, atol=1e-3)
    pipe.unload_lora_weights()
    torch.testing.assert_close(draw(pipe), before, rtol=0, atol=1e-4)  # weights to which an update was added and subtracted


@pytest.mark.thorough
def test_weights_of_adapters_scale_and_switch_them(saved) -> None:
    pipe = make_pipeline()
    before = draw(pipe)
    pipe.load_lora_weights(saved[0], adapter_name="look")
    with pytest.raises(ValueError, match="adapter_weights names unett; the stages of a cascade are unet, unet_2, unet_3"):
        pipe.set_adapters("look", {"unett": 0.0})
    pipe.set_adapters("look", 0.0)
    torch.testing.assert_close(draw(pipe), before, rtol=0, atol=1e-5)
    pipe.set_adapters(["look"], [{"unet": 1.0, "unet_2": 0.0}])
    half = draw(pipe)
    assert not torch.allclose(half, before, atol=1e-3)
    assert not torch.allclose(half, saved[1], atol=1e-3)
    pipe.set_adapters("look")
    assert torch.equal(draw(pipe), saved[1])
    pipe.disable_lora()
    assert torch.equal(draw(pipe), before)


@pytest.mark.thorough
def test_two_adapters_of_different_stages_act_together(saved, tmp_path) -> None:
    third = make_pipeline()
    add_lora(third.unet_3, rank=2)
    wake(third.unet_3, 9)
    third.save_lora_weights(
        tmp_path / "b", unet_3_lora_layers=lora_layers(third.unet_3), unet_3_lora_adapter_metadata=lora_metadata(third.unet_3)
    )
    pipe = make_pipeline()
    pipe.load_lora_weights(saved[0], adapter_name="a")
    pipe.load_lora_weights(tmp_path / "b", adapter_name="b")
    pipe.set_adapters(["a", "b"])
    both = draw(pipe)
    pipe.set_adapters("a")
    assert torch.equal(draw(pipe), saved[1])
    pipe.set_adapters(["a", "b"])
    assert torch.equal(draw(pipe), both)
    assert not torch.equal(both, saved[1])


def adapter_of(slot: str, folder, seed: int = 9) -> None:
    """Save an adapter of rank 2 of one stage."""
    pipe = make_pipeline()
    unet = getattr(pipe, slot)
    add_lora(unet, rank=2)
    wake(unet, seed)
    pipe.save_lora_weights(folder, **{f"{slot}_lora_layers": lora_layers(unet), f"{slot}_lora_adapter_metadata": lora_metadata(unet)})


@pytest.mark.thorough
def test_an_adapter_loaded_after_others_were_chosen_acts(saved, tmp_path) -> None:
    """Choosing "b" switches the adapters of the second stage off; "c", loaded for it later, must not stay off with them."""
    adapter_of("unet", tmp_path / "b")
    adapter_of("unet_2", tmp_path / "c", seed=11)
    pipe = make_pipeline()
    pipe.load_lora_weights(saved[0], adapter_name="a")
    pipe.load_lora_weights(tmp_path / "b", adapter_name="b")
    pipe.set_adapters("b")
    chosen = draw(pipe)
    pipe.load_lora_weights(tmp_path / "c", adapter_name="c")
    assert not torch.allclose(draw(pipe), chosen, atol=1e-3)
    together = make_pipeline()
    together.load_lora_weights(tmp_path / "b", adapter_name="b")
    together.load_lora_weights(tmp_path / "c", adapter_name="c")
    assert torch.equal(draw(pipe), draw(together))


@pytest.mark.thorough
def test_a_choice_of_adapters_outlives_switching_them_off_and_on(saved, tmp_path) -> None:
    adapter_of("unet_3", tmp_path / "b")
    pipe = make_pipeline()
    pipe.load_lora_weights(saved[0], adapter_name="a")
    pipe.load_lora_weights(tmp_path / "b", adapter_name="b")
    assert pipe.get_active_adapters() == ["a", "b"]
    pipe.set_adapters("a", 0.5)
    assert pipe.get_active_adapters() == ["a"]
    chosen = draw(pipe)
    pipe.disable_lora()
    assert torch.equal(draw(pipe), draw(make_pipeline()))
    pipe.enable_lora()
    assert torch.equal(draw(pipe), chosen)
    pipe.set_adapters("b")
    assert pipe.get_active_adapters() == ["b"]


@pytest.mark.thorough
def test_what_is_fused_is_known_to_all_pipelines_of_the_network(saved) -> None:
    pipe = make_pipeline()
    pipe.load_lora_weights(saved[0], adapter_name="look")
    pipe.fuse_lora(["unet"], 0.5)
    other = ImagenCascadePipeline.from_pipe(pipe)
    assert other.fused_loras == {"look"}
    other.unfuse_lora()
    other.unload_lora_weights()
    assert not pipe.fused_loras and pipe.num_fused_loras == 0
    with pytest.raises(ValueError, match="no adapter is loaded"):
        pipe.unfuse_lora()
    other.load_lora_weights(saved[0], adapter_name="look")
    other.fuse_lora()
    other.unload_lora_weights()
    for again in (lambda: add_lora(other.unet, rank=2, name="look"), lambda: other.load_lora_weights(saved[0], adapter_name="look")):
        with pytest.raises(ValueError, match='"look" was fused into the network and its layers taken off.*give another name'):
            again()
    with pytest.raises(ValueError, match="look is fused into the weights, and unload_lora_weights.. took off its layers"):
        pipe.unfuse_lora()


def test_fusing_leaves_no_scale_behind(saved, caplog) -> None:
    """peft takes an adapter out by the scale that it has by then, and diffusers leaves the scale of fusing on all active ones."""
    pipe = make_pipeline(unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None)
    layers = pipe.lora_state_dict(saved[0], return_lora_metadata=True)
    state, told = ({key: value for key, value in given.items() if key.startswith("unet.")} for given in layers)
    for name in ("a", "b"):
        pipe.load_lora_weights(dict(state), adapter_name=name, metadata=told)
    pipe.set_adapters(["a", "b"], [0.75, 0.5])
    scales = {name: dict(layer.scaling) for name, layer in pipe.unet.named_modules() if hasattr(layer, "merged_adapters")}
    weights = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    pipe.fuse_lora(lora_scale=0.5, adapter_names=["a"])
    assert "b of unet does not act while a is fused into its weights" in caplog.text
    pipe.fuse_lora(lora_scale=0.25, adapter_names=["b"])  # which is of b alone
    for change in (lambda: pipe.set_adapters("a", 0.3), lambda: pipe.set_adapters("b")):  # peft would take out 0.3 of a
        with pytest.raises(ValueError, match=r"a, b is fused into the weights; call unfuse_lora\(\) first"):
            change()
    pipe.unfuse_lora()
    torch.testing.assert_close(dict(pipe.unet.state_dict()), weights, rtol=0, atol=1e-6)
    assert scales == {name: dict(layer.scaling) for name, layer in pipe.unet.named_modules() if name in scales}


@pytest.mark.thorough
def test_adapters_move_to_a_device_by_their_names(saved) -> None:
    pipe = make_pipeline()
    for name in ("look", "other"):
        pipe.load_lora_weights(saved[0], adapter_name=name)
    pipe.set_lora_device("look", "meta")  # as in diffusers its weights, not those beside it
    where = {name: {w.device.type for key, w in pipe.unet.named_parameters() if f".{name}." in key} for name in ("look", "other")}
    assert where == {"look": {"meta"}, "other": {"cpu"}}
    with pytest.raises(ValueError, match="no adapter is called loook"):
        pipe.set_lora_device(["loook"], "cpu")


@pytest.mark.thorough
def test_default_names_are_free_ones(saved) -> None:
    pipe = make_pipeline()
    pipe.load_lora_weights(saved[0])
    pipe.load_lora_weights(saved[0])
    pipe.delete_adapters("default_0")
    for _ in range(2):
        pipe.load_lora_weights(saved[0])
    assert sorted(pipe.get_list_adapters()["unet"]) == ["default_0", "default_1", "default_2"]


@pytest.mark.thorough
def test_the_last_adapter_that_is_deleted_leaves_no_trace(saved, tmp_path) -> None:
    adapter_of("unet", tmp_path / "b")
    pipe = make_pipeline()
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    pipe.load_lora_weights(saved[0], adapter_name="a")
    pipe.load_lora_weights(tmp_path / "b", adapter_name="b")
    pipe.delete_adapters("a")
    assert pipe.get_list_adapters() == {"unet": ["b"]}
    pipe.delete_adapters("b")
    after = pipe.unet.state_dict()
    assert not pipe.get_list_adapters() and list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    pipe.unet.save_pretrained(tmp_path / "again")


def test_weights_of_one_network_go_into_the_stage_that_is_named(tmp_path) -> None:
    """As diffusers' scripts call every network "unet"; with metadata, and with alpha beside the weights."""
    pipe, loaded = make_pipeline(), make_pipeline()
    add_lora(pipe.unet_2, rank=2, alpha=4)
    wake(pipe.unet_2, 9)
    layers, told = lora_layers(pipe.unet_2), lora_metadata(pipe.unet_2)
    pipe.save_lora_weights(tmp_path, unet_lora_layers=layers, unet_lora_adapter_metadata=told, safe_serialization=True)
    loaded.load_lora_weights(tmp_path, stage=2)
    assert loaded.get_list_adapters() == {"unet_2": ["default_0"]}
    found = lora_layers(loaded.unet_2, "default_0")
    assert found.keys() == layers.keys() and all(torch.equal(found[name], value) for name, value in layers.items())
    assert loaded.unet_2.peft_config["default_0"].lora_alpha == 4
    loaded.unload_lora_weights()
    state = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    alphas = {f"{name.split('.lora_')[0]}.alpha": torch.tensor(4.0) for name in state}
    loaded.load_lora_weights({**state, **alphas}, stage=2)
    layer = loaded.unet_2.get_submodule(next(iter(layers)).split(".lora_")[0])
    assert layer.scaling == {"default_0": 2.0}
    with pytest.raises(ValueError, match="for unet_2, which this pipeline does not hold"):
        make_pipeline(unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None).load_lora_weights(tmp_path, stage=2)


@pytest.mark.thorough
@pytest.mark.parametrize("more", [{}, {"adapter_name": "a"}])
def test_an_adapter_is_loaded_into_all_its_stages_or_none(saved, tmp_path, more) -> None:
    adapter_of("unet_2", tmp_path / "a")
    state = load_file(saved[0] / "pytorch_lora_weights.safetensors")
    bad = {key: value[:, :1] if key.startswith("unet_2") and "lora_A" in key else value for key, value in state.items()}
    pipe = make_pipeline()
    names, before = list(pipe.unet.state_dict()), draw(pipe)
    with pytest.raises((RuntimeError, ValueError)):
        pipe.load_lora_weights(bad)
    assert not pipe.get_list_adapters()
    assert list(pipe.unet.state_dict()) == names
    assert torch.equal(draw(pipe), before)
    pipe.load_lora_weights(tmp_path / "a", adapter_name="a")
    pipe.load_lora_weights(tmp_path / "a", adapter_name="c")
    pipe.set_adapters("a", 0.5)
    before = draw(pipe)
    with pytest.raises((RuntimeError, ValueError)):  # "a" is in use in the second stage, and not in the first
        pipe.load_lora_weights(saved[0] if more else bad, **more)
    assert pipe.get_list_adapters() == {"unet_2": ["a", "c"]}
    assert torch.equal(draw(pipe), before)


@pytest.mark.thorough
def test_alpha_beside_the_weights_is_read_and_its_absence_said(saved, caplog) -> None:
    state = load_file(saved[0] / "pytorch_lora_weights.safetensors")
    modules = {key.split(".lora_")[0] for key in state}
    pipe = make_pipeline()
    pipe.load_lora_weights({**state, **{f"{name}.alpha": torch.tensor(2.0) for name in modules}})
    assert not caplog.records
    torch.testing.assert_close(draw(pipe), saved[1], atol=1e-5, rtol=0)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(state)
    assert "alpha is taken to be their rank" in caplog.text
    assert not torch.allclose(draw(pipe), saved[1], atol=1e-3)  # 4 / 4, where it was trained with 2 / 4


def test_a_lora_of_deepfloyd_if_loads_as_in_ifs_own_pipeline(tmp_path) -> None:
    """A file as diffusers' DreamBooth script writes it: attention alone, no metadata."""
    own = IFPipeline(None, None, base_network(), schedule(1.5), None, None, None, requires_safety_checker=False)
    trained = base_network()
    trained.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    wake(trained, 3)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(trained))
    own.save_lora_weights(tmp_path, unet_lora_layers=layers)
    own.load_lora_weights(tmp_path)
    pipe = make_pipeline(unet=base_network())
    pipe.load_lora_weights(tmp_path)
    text, x = torch.randn(1, 3, 32, generator=seeded()), torch.randn(1, 3, 16, 16, generator=seeded(1))
    with torch.no_grad():
        ours, theirs, plain = (unet(x, 500, text).sample for unet in (pipe.unet, own.unet, base_network()))
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, plain, atol=1e-3)


@pytest.mark.thorough
def test_an_adapter_is_swapped_in_place(saved, tmp_path) -> None:
    adapter_of("unet", tmp_path / "one", seed=1)
    adapter_of("unet", tmp_path / "two", seed=2)
    pipe, other = make_pipeline(), make_pipeline()
    pipe.load_lora_weights(tmp_path / "one", adapter_name="a", low_cpu_mem_usage=True)
    before = draw(pipe)
    weight = next(p for name, p in pipe.unet.named_parameters() if "lora_A.a" in name)
    pipe.load_lora_weights(tmp_path / "two", adapter_name="a", hotswap=True)
    assert any(p is weight for p in pipe.unet.parameters())
    other.load_lora_weights(tmp_path / "two")
    assert torch.equal(draw(pipe), draw(other))
    assert not torch.allclose(draw(pipe), before, atol=1e-3)


@pytest.mark.thorough
def test_an_adapter_is_swapped_whole_or_not_at_all(saved, tmp_path) -> None:
    """Of other stages, layers, shapes or settings it is refused, and no weight of the loaded one changes, nor does it go."""
    adapter_of("unet", tmp_path / "one")
    state = load_file(saved[0] / "pytorch_lora_weights.safetensors")
    pipe = make_pipeline()
    pipe.load_lora_weights(saved[0], adapter_name="a")
    held = {slot: lora_layers(getattr(pipe, slot), "a") for slot in ("unet", "unet_2")}
    swap = partial(pipe.load_lora_weights, adapter_name="a", hotswap=True)
    with pytest.raises(ValueError, match='weights are for unet, and the adapter "a" is in unet, unet_2: .* without hotswap'):
        swap(tmp_path / "one")
    with pytest.raises(ValueError, match=r"adapter_name is 'b'; give the name of one of these: \{'unet': \['a'\]"):
        swap(saved[0], adapter_name="b")
    last = [key for key in state if key.startswith("unet_2")][-1]  # once the first stage is swapped
    more = {last.replace("unet_2.", "unet_2.more."): state[last]}
    for bad, said in (({**state, **more}, "no weights of that name"), ({**state, last: state[last][:1]}, "whose rank alone may differ")):
        with pytest.raises(ValueError, match=f"unet_2.*{said}"):
            swap(bad)
    with pytest.raises(ValueError, match="these LoRA weights of unet_2 cannot take the place of .*lora_dropout, 0.0 != 0.5"):
        swap(
            state,
            metadata={f"{s}.{key}": v for s in held for key, v in lora_metadata(getattr(pipe, s), "a").items()}
            | {"unet_2.lora_dropout": 0.5},
        )
    for slot, weights in held.items():
        now = lora_layers(getattr(pipe, slot), "a")
        assert now.keys() == weights.keys() and all(torch.equal(now[name], value) for name, value in weights.items())
    pipe.fuse_lora(components=["unet_2"])
    with pytest.raises(ValueError, match=r"a is fused into the weights; call unfuse_lora\(\) first"):
        swap(saved[0])


def test_an_adapter_agrees_with_pefts_own(tmp_path) -> None:
    """The same adapter put on by peft alone, with its alpha over rank."""
    unet = make_base()
    add_lora(unet, rank=4, alpha=2)
    wake(unet, 0)
    layer = unet.down_blocks[0].resnet.conv1
    weights = {name: p for name, p in layer.named_parameters()}
    x = torch.randn(2, 16, 8, 8, generator=seeded())
    update = torch.nn.functional.conv2d(x, weights["lora_A.default.weight"], padding=1)
    expected = layer.base_layer(x) + 2 / 4 * torch.nn.functional.conv2d(update, weights["lora_B.default.weight"])
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert isinstance(unet.peft_config["default"], LoraConfig)


def test_an_adapter_of_another_network_is_refused_in_one_sentence_alone(caplog, recwarn, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    weights = {f"unet.mid_block.0.attention.to_q.lora_{half}.weight": torch.ones(shape) for half, shape in (("A", (2, 77)), ("B", (32, 2)))}
    with pytest.raises(ValueError, match="size mismatch"):
        make_pipeline().load_lora_weights(weights, metadata={"unet.r": 2, "unet.lora_alpha": 2, "unet.target_modules": ["to_q", "to_k"]})
    assert not [record for record in caplog.records if record.name.startswith("diffusers")]
    assert not [warning for warning in recwarn if "PEFT" in str(warning.message)]


def test_files_that_would_lose_something_are_refused(saved, tmp_path) -> None:
    state = load_file(saved[0] / "pytorch_lora_weights.safetensors")
    pipe = make_pipeline()
    with pytest.raises(ValueError, match="for transformer; a cascade has unet"):
        pipe.load_lora_weights({"transformer.a.lora_A.weight": torch.zeros(1, 1)})
    with pytest.raises(ValueError, match="there are no LoRA weights in what was given"):
        pipe.load_lora_weights({})
    layer = "unet.mid_block.0.attention.to_q"
    for names, width, why in (([layer, layer.replace("q", "v")], 77, "size mismatch"), ([f"{layer}.more"], 32, "lacks their layers")):
        weights = {f"{name}.lora_A.weight": torch.ones(2, width) for name in names}
        weights |= {f"{name}.lora_B.weight": torch.ones(32, 2) for name in names}
        with pytest.raises(ValueError, match="these LoRA weights of unet were made for another network than this pipeline's") as refused:
            pipe.load_lora_weights(weights)
        assert str(refused.value).count(why) == 1 and str(refused.value).endswith("it is --model")
    base_alone = make_pipeline(unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None)
    with pytest.raises(ValueError, match="unet_2, which this pipeline does not hold"):
        base_alone.load_lora_weights(saved[0])
    for adapters in (pipe.set_adapters, pipe.delete_adapters):
        with pytest.raises(ValueError, match="no adapter is called look"):
            adapters("look")
    with pytest.raises(ValueError, match="unet_lora_adapter_metadata"):
        pipe.save_lora_weights(tmp_path / "x", unet_lora_layers=state)
    with pytest.raises(ValueError, match="at least one stage"):
        pipe.save_lora_weights(tmp_path / "x")
    for adapters in (pipe.fuse_lora, pipe.unfuse_lora):
        with pytest.raises(ValueError, match="no adapter is loaded, and .* load one by load_lora_weights first"):
            adapters()
    with pytest.raises(ValueError, match="stage is 2, and these LoRA weights are for unet, unet_2: .* leave it out"):
        pipe.load_lora_weights(saved[0], stage=2)
    with pytest.raises(ValueError, match="stage is 0; a cascade has the stages 1 to 3"):
        pipe.load_lora_weights(saved[0], stage=0)
    with pytest.raises(ValueError, match="rank is 0"):
        add_lora(make_base(), rank=0)
    (tmp_path / "run" / "stage-1" / "checkpoint-5").mkdir(parents=True)
    with pytest.raises(OSError, match=r"stage-1 holds no adapter: there is no .safetensors file in it$"):
        pipe.load_lora_weights(tmp_path / "run" / "stage-1")
    for place in (tmp_path / "run", tmp_path / "run" / "stage-1" / "checkpoint-5"):
        save_file(state, place / "pytorch_lora_weights.safetensors")
    with pytest.raises(OSError, match=r"stage-1 holds no adapter: .* give .*run or .*stage-1.checkpoint-5, where one is$"):
        pipe.load_lora_weights(tmp_path / "run", subfolder="stage-1")
    assert not has_lora(pipe.unet)


@pytest.mark.thorough
def test_a_cascade_with_an_adapter_is_not_saved(saved, tmp_path, monkeypatch) -> None:
    """Its weights have names that nothing loads; fused and taken off they have their own again."""
    pipe = make_pipeline()
    pipe.load_lora_weights(saved[0])
    refused = pytest.raises(ValueError, match=r"^unet, unet_2 of this pipeline hold .* fuse_lora\(\) and unload_lora_weights\(\)")
    for prepare in (lambda: None, pipe.fuse_lora, lambda: setattr(pipe, "unet", torch.compile(pipe.unet))):
        prepare()
        with refused:
            pipe.save_pretrained(tmp_path / "new")
        with refused:
            pipe.push_to_hub("me/new")
    assert not (tmp_path / "new").exists()
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "new")
    loaded = type(pipe).from_pretrained(tmp_path / "new")
    loaded.set_progress_bar_config(disable=True)
    torch.testing.assert_close(draw(loaded), saved[1], rtol=0, atol=1e-3)


def test_a_network_with_an_adapter_is_not_saved(tmp_path) -> None:
    unet = make_base()
    add_lora(unet, rank=2)
    wake(unet, 0)
    for prepare in (lambda: None, unet.fuse_lora):
        prepare()
        with pytest.raises(ValueError, match=r"this network holds a LoRA adapter, .* fuse_lora\(\) and unload_lora\(\)"):
            unet.save_pretrained(tmp_path / "unet")
    assert not (tmp_path / "unet").exists()
    fused = {name: value.clone() for name, value in unet.state_dict().items() if name.endswith("base_layer.weight")}
    unet.unload_lora()
    unet.save_pretrained(tmp_path / "unet")
    saved = type(unet).from_pretrained(tmp_path / "unet").state_dict()
    assert fused and all(torch.equal(saved[name.replace(".base_layer", "")], value) for name, value in fused.items())


@pytest.mark.thorough
@pytest.mark.parametrize("wrapped_first", [True, False])
@torch.compiler.set_stance("force_eager")  # compiling anew after each change takes long; once is enough, below
def test_adapters_of_wrapped_networks_are_as_of_others(saved, wrapped_first) -> None:
    """`torch.compile(unet)` wraps a network, and no module of diffusers is what it returns."""

    def wrap(pipe) -> None:
        pipe.unet = torch.compile(pipe.unet, backend="eager")

    pipe, plain = make_pipeline(), make_pipeline()
    before = draw(pipe)
    if wrapped_first:
        wrap(pipe)
    for one in (pipe, plain):
        one.load_lora_weights(saved[0], adapter_name="look")
    if not wrapped_first:
        wrap(pipe)
    assert pipe.get_list_adapters() == {"unet": ["look"], "unet_2": ["look"]}
    assert pipe.get_active_adapters() == ["look"]
    for change in (
        lambda p: p.set_adapters("look", 0.5),
        lambda p: p.disable_lora(),
        lambda p: p.enable_lora(),
        lambda p: p.fuse_lora(),
        lambda p: p.unfuse_lora(),
    ):
        change(pipe)
        change(plain)
        torch.testing.assert_close(draw(pipe), draw(plain), rtol=0, atol=1e-4)  # where one may be compiled, text is padded
        assert pipe.fused_loras == plain.fused_loras
    pipe.delete_adapters("look")
    assert not any(pipe.get_list_adapters().values())
    pipe.load_lora_weights(saved[0], adapter_name="look")
    pipe.unload_lora_weights()
    torch.testing.assert_close(draw(pipe), before, rtol=0, atol=1e-4)  # an update was added and subtracted
    assert not has_lora(pipe.unet)


@pytest.mark.thorough
def test_compiled_networks_heed_their_adapters() -> None:
    torch.compiler.reset()
    pipe, plain = make_shallow(), make_shallow()
    for one in (pipe, plain):
        add_lora(one.unet, rank=2, name="look")
        wake(one.unet, 0)
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    images = []
    for change in (lambda p: p.set_adapters("look", 0.5), lambda p: p.disable_lora()):
        for one in (pipe, plain):
            change(one)
            images.append(one("a red cube", stop_at=1, generator=seeded(), output_type="pt").images)
        torch.testing.assert_close(*images[-2:], rtol=0, atol=1e-4)  # compiled, text is padded
    assert not torch.allclose(images[0], images[2], atol=1e-3)


def test_a_network_takes_a_second_adapter() -> None:
    unet, alone = make_base(), make_base()
    plain = sorted(add_lora(alone, rank=2, name="b") or lora_layers(alone, "b"))
    add_lora(unet, rank=4, name="a")
    wake(unet, 0)
    first = lora_layers(unet, "a")
    add_lora(unet, rank=2, name="b")
    assert sorted(lora_layers(unet, "b")) == plain
    assert all(torch.equal(value, first[name]) for name, value in lora_layers(unet, "a").items())
    with pytest.raises(ValueError, match='has an adapter "b" already; give another name'):
        add_lora(unet, rank=2, name="b")
    wake(unet, 1)
    x, text = torch.randn(1, 3, 16, 16, generator=seeded()), torch.randn(1, 3, 32, generator=seeded(1))
    with torch.no_grad():
        unet.set_adapters("a")
        one = unet(x, 500, text).sample
        unet.set_adapters("b")
        assert not torch.allclose(unet(x, 500, text).sample, one, atol=1e-3)


def test_adapters_and_fused_projections_are_not_mixed(saved) -> None:
    """An adapter on projections that are not computed by does not act."""
    pipe = make_pipeline()
    pipe.unet_2.fuse_qkv_projections()
    with pytest.raises(ValueError, match=r"would not act on the fused projections of unet_2; call unfuse_qkv_projections\(\)"):
        pipe.load_lora_weights(saved[0])
    with pytest.raises(ValueError, match=r"not act on this network's fused projections; call unfuse_qkv_projections\(\)"):
        add_lora(pipe.unet_2, rank=2)
    assert not has_lora(pipe.unet) and not has_lora(pipe.unet_2)
    pipe.unet_2.unfuse_qkv_projections()
    pipe.load_lora_weights(saved[0])
    with pytest.raises(ValueError, match=r"holds a LoRA adapter, .* call fuse_lora\(\) and unload_lora\(\)"):
        pipe.unet_2.fuse_qkv_projections()
    pipe.unload_lora_weights()
    pipe.unet_2.fuse_qkv_projections()


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan")])
def test_an_alpha_that_would_switch_an_adapter_off_is_refused(alpha) -> None:
    unet = make_base()
    with pytest.raises(ValueError, match=f"alpha is {alpha}; it must be above 0"):
        add_lora(unet, rank=2, alpha=alpha)
    assert not has_lora(unet)
    assert all(p.requires_grad for p in unet.parameters())


def test_an_adapter_that_is_not_there_is_said_at_once(shared_pipe) -> None:
    with pytest.raises(ValueError, match='"nowhere" is not there: it is no path, and no Hub id'):
        shared_pipe.load_lora_weights("nowhere")


def test_adapters_are_safetensors_whatever_is_asked_for(tmp_path) -> None:
    pipe = make_pipeline()
    add_lora(pipe.unet, rank=2)
    pipe.save_lora_weights(tmp_path, unet_lora_layers=lora_layers(pipe.unet), unet_lora_adapter_metadata=lora_metadata(pipe.unet))
    other = make_pipeline()
    other.load_lora_weights(tmp_path, use_safetensors=True)
    assert other.get_list_adapters()["unet"] == ["default_0"]
    with pytest.raises(ValueError, match="use_safetensors is False; adapters are read from safetensors alone"):
        other.load_lora_weights(tmp_path, use_safetensors=False)
    given = {"unet_lora_layers": lora_layers(pipe.unet), "unet_lora_adapter_metadata": lora_metadata(pipe.unet)}
    with pytest.raises(ValueError, match="safe_serialization is False; adapters are written as safetensors alone"):
        pipe.save_lora_weights(tmp_path / "pickle", **given, safe_serialization=False)
    written = {}
    pipe.save_lora_weights(tmp_path, **given, save_function=lambda weights, path: written.update({path: weights.keys()}))
    assert written == {f"{tmp_path}/pytorch_lora_weights.safetensors": load_file(tmp_path / "pytorch_lora_weights.safetensors").keys()}
