"""Folders of graphs, whatever runs them: what tells them apart, how they are written, copied and refused. No runtime is needed here.

A stand-in takes a runtime's place: it reads any file, and answers with zeros.
"""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard
from transformers import RobertaConfig, RobertaModel

import imagen_diffusers.export.cascade as exporting
from imagen_diffusers import ExportedNetwork, ExportedTextEncoder, ImagenCascadePipeline
from imagen_diffusers.evaluation.asked import cascade_digest
from imagen_diffusers.export.cascade import export_cascade
from imagen_diffusers.export.checks import check_installed
from imagen_diffusers.export.runtimes import RUNTIMES
from imagen_diffusers.hub import pipeline_card
from imagen_diffusers.hub.pipeline_card import ANEW
from imagen_diffusers.text.encoders import readable
from imagen_diffusers.training.fingerprints import fingerprint
from imagen_diffusers.training.folders import one_run_in

from .conftest import SHORT, TEXT_DIM, make_base, make_pipeline, make_text_encoder, seeded
from .encoders import SIZES
from .test_cli import call
from .test_sharing import uploads  # noqa: F401 (a fixture)

MEANT = b"a graph"
STAGES_AFTER_THE_FIRST = dict.fromkeys(("unet_2", "scheduler_2", "unet_3", "scheduler_3"))
OF_TEXT = {"input_ids": torch.int64, "attention_mask": torch.int64}
OF_A_BASE = {
    "sample": torch.float32,
    "timestep": torch.float32,
    "encoder_hidden_states": torch.float32,
    "encoder_attention_mask": torch.bool,
}

SIDES = {
    **dict.fromkeys(OF_TEXT, (None, None)),
    "sample": (None, 3, None, None),
    "timestep": (None,),
    "encoder_hidden_states": (None, None, TEXT_DIM),
    "encoder_attention_mask": (None, None),
}


class StandIn:
    def __init__(self, path: Path, dtype: torch.dtype):
        if path.read_bytes() == b"damaged":
            raise RuntimeError("protobuf parsing failed")
        self.path, self.computes_in = path, {torch.bfloat16: "bf16"}.get(dtype, "f32")
        self.inputs = OF_TEXT if path.parent.name == "text_encoder" else OF_A_BASE
        self.sides = SIDES

    def __call__(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        if "sample" in given:
            return torch.zeros_like(given["sample"])
        return torch.zeros(*given["input_ids"].shape, TEXT_DIM)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch) -> None:
    for name, (file, _) in list(RUNTIMES.items()):
        monkeypatch.setitem(RUNTIMES, name, (file, StandIn))


def network_folder(folder: Path, graph: bytes = MEANT) -> Path:
    make_base().save_config(folder)
    (folder / "model.onnx").write_bytes(graph)
    return folder


def text_encoder_folder(folder: Path, graph: bytes = MEANT) -> Path:
    make_text_encoder().config.save_pretrained(folder)
    (folder / "model.onnx").write_bytes(graph)
    return folder


def cascade_of_graphs(folder: Path, unet: bytes = MEANT, text_encoder: bytes = MEANT) -> ImagenCascadePipeline:
    """A base alone."""
    network = ExportedNetwork.from_pretrained(network_folder(folder / "unet", unet))
    encoder = ExportedTextEncoder.from_pretrained(text_encoder_folder(folder / "text_encoder", text_encoder))
    return make_pipeline(unet=network, text_encoder=encoder, **STAGES_AFTER_THE_FIRST)


def test_another_graph_is_another_cascade_and_another_text_encoder(tmp_path) -> None:
    digests, prints = [], []
    for place, graphs in {"one": {}, "same": {}, "unet": {"unet": b"other"}, "text": {"text_encoder": b"other"}}.items():
        pipe = cascade_of_graphs(tmp_path / place, **graphs)
        digests.append(cascade_digest(pipe))
        prints.append(fingerprint(pipe.tokenizer, pipe.text_encoder, SHORT))
    assert digests[0] == digests[1]
    assert prints[0] == prints[1] == prints[2] != prints[3]
    assert len(set(digests)) == 3
    pipe = cascade_of_graphs(tmp_path / "one")
    (tmp_path / "one" / "unet" / "model.onnx.data").write_bytes(b"weights beside it")
    assert cascade_digest(pipe) not in digests


@pytest.mark.parametrize("of_bfloat16", ["unet", "text_encoder"])
def test_a_graph_in_another_precision_is_another_cascade(of_bfloat16, tmp_path) -> None:
    pipe = cascade_of_graphs(tmp_path)
    digest, read_by = cascade_digest(pipe), fingerprint(pipe.tokenizer, pipe.text_encoder, SHORT)
    kind = type(getattr(pipe, of_bfloat16))
    setattr(pipe, of_bfloat16, kind.from_pretrained(tmp_path, subfolder=of_bfloat16, torch_dtype=torch.bfloat16))
    assert cascade_digest(pipe) != digest
    assert fingerprint(pipe.tokenizer, pipe.text_encoder, SHORT) == read_by  # as of an encoder of weights
    setattr(pipe, of_bfloat16, kind.from_pretrained(tmp_path, subfolder=of_bfloat16))
    assert cascade_digest(pipe) == digest


def test_a_graph_is_saved_in_place_of_another_kind(tmp_path) -> None:
    exported, place = ExportedNetwork.from_pretrained(network_folder(tmp_path / "one")), tmp_path / "other"
    network_folder(place).joinpath("model.onnx").rename(place / "openvino_model.xml")
    for name in ("openvino_model.bin", "model.onnx.data", "notes.txt"):
        (place / name).write_bytes(b"former")
    exported.save_pretrained(place)
    assert {path.name for path in place.iterdir()} == {"config.json", "model.onnx", "notes.txt"}
    assert ExportedNetwork.from_pretrained(place).graph.path == place / "model.onnx"
    exported.save_pretrained(exported.folder)
    assert (exported.folder / "model.onnx").read_bytes() == MEANT


def test_a_graph_is_pushed(uploads, tmp_path) -> None:  # noqa: F811
    exported = ExportedNetwork.from_pretrained(network_folder(tmp_path / "one"))
    exported.save_pretrained(tmp_path / "new", push_to_hub=True, commit_message="first", token="t")
    (told,) = uploads
    assert (told["repo_id"], told["commit_message"], told["token"]) == ("me/new", "first", "t")
    assert {"config.json", "model.onnx"} <= set(told["files"])


def test_offloading_leaves_graphs_where_they_are(tmp_path) -> None:
    pipe = cascade_of_graphs(tmp_path)
    pipe.text_encoder = make_text_encoder()  # which has weights to move
    plain = pipe("a cube", generator=seeded(), output_type="pt").images
    pipe.enable_model_cpu_offload(device="cpu")
    offloaded = pipe("a cube", generator=seeded(), output_type="pt").images
    assert torch.equal(plain, offloaded)
    assert hasattr(pipe.text_encoder, "_hf_hook")
    assert not hasattr(pipe.unet, "_hf_hook")
    graphs = cascade_of_graphs(tmp_path)
    graphs.enable_model_cpu_offload(device="cpu")
    assert len(graphs("a cube").images) == 1
    mixed = make_pipeline(text_encoder=graphs.text_encoder)
    mixed.enable_model_cpu_offload(device="cpu")
    mixed.unet._hf_hook.execution_device = "meta"  # stands for a GPU, which is not where the graph is
    assert ImagenCascadePipeline.from_pipe(mixed)._execution_device == mixed._execution_device == torch.device("meta")


def test_what_a_graph_is_not_given(tmp_path) -> None:
    exported = ExportedNetwork.from_pretrained(network_folder(tmp_path / "one"))
    assert exported.to("cpu", torch.bfloat16) is exported.to(memory_format=torch.channels_last) is exported
    with pytest.raises(ValueError, match='"cuda:99" is no device of this machine'):
        exported.to("cuda:99")
    with pytest.raises(ValueError, match="got an image of 8x7; both sides must be multiples of 2"):
        exported(torch.zeros(1, 3, 7, 8), 1.0, encoder_hidden_states=torch.zeros(1, 2, TEXT_DIM))
    with pytest.raises(OSError, match="model.onnx is damaged, or lacks the weights beside it; export it again .RuntimeError: protobuf"):
        ExportedNetwork.from_pretrained(network_folder(tmp_path / "two", b"damaged"))


@pytest.fixture
def writing(monkeypatch) -> list[bytes]:
    """What the next graphs hold, in place of traced ones."""
    graph = [MEANT]

    def write(program, inputs, output, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(graph[0])

    monkeypatch.setattr(exporting, "write_onnx", write)
    monkeypatch.setattr("imagen_diffusers.export.checks.find_spec", lambda name: name)
    for name in ("trace_network", "trace_text_encoder"):
        monkeypatch.setattr(exporting, name, lambda *_: (None, {}))
    return graph


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_that_is_broken_off_leaves_the_former_one(writing, tmp_path, monkeypatch) -> None:
    assert list(export_cascade(make_pipeline(), tmp_path)) == ["unet", "unet_2", "unet_3", "text_encoder"]
    (tmp_path / "README.md").write_text("a card of one's own")
    before = contents(tmp_path)
    writing[0] = b"another graph"
    export = export_cascade(make_pipeline(), tmp_path)
    assert next(export) == "unet"
    export.close()
    assert contents(tmp_path) == before
    list(export_cascade(make_pipeline(), tmp_path))
    after = contents(tmp_path)
    assert after["README.md"] == b"a card of one's own"
    assert after.keys() == before.keys()
    assert {data for name, data in after.items() if name.endswith(".onnx")} == {b"another graph"}


def test_of_two_exports_none_is_mixed_and_loaded(writing, tmp_path, monkeypatch) -> None:
    list(export_cascade(make_pipeline(), tmp_path))
    placed, put = [], exporting.move_in

    def killed_at_the_second(part: Path, place: Path) -> None:
        placed.append(place)
        if len(placed) == 2:
            raise KeyboardInterrupt
        put(part, place)

    monkeypatch.setattr(exporting, "move_in", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        list(export_cascade(make_pipeline(), tmp_path))
    with pytest.raises(OSError, match="model_index.json"):
        ImagenCascadePipeline.from_pretrained(tmp_path)


def folders(place: Path) -> set[str]:
    return {path.name for path in place.iterdir() if path.is_dir()}


@pytest.mark.thorough
def test_an_export_of_fewer_stages_leaves_no_others(writing, tmp_path) -> None:
    list(export_cascade(make_pipeline(), tmp_path))
    (tmp_path / "notes").mkdir()
    before = folders(tmp_path)
    base = make_pipeline(**STAGES_AFTER_THE_FIRST)
    list(export_cascade(base, tmp_path))
    assert before - folders(tmp_path) == set(STAGES_AFTER_THE_FIRST)
    assert ImagenCascadePipeline.from_pretrained(tmp_path).stage_numbers == [1]
    list(export_cascade(make_pipeline(tokenizer=None, text_encoder=None, **STAGES_AFTER_THE_FIRST), tmp_path))
    assert folders(tmp_path) == {"unet", "scheduler", "notes"}
    list(export_cascade(make_pipeline(), tmp_path))
    assert folders(tmp_path) == before


def test_what_is_no_graph_is_not_removed(writing, tmp_path) -> None:
    """Folders of these names that no export has written."""
    for name in ("unet_2", "scheduler_2", "text_encoder", "tokenizer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text(name)
    list(export_cascade(make_pipeline(tokenizer=None, text_encoder=None, **STAGES_AFTER_THE_FIRST), tmp_path))
    assert all((tmp_path / name / "notes.txt").exists() for name in ("unet_2", "scheduler_2", "text_encoder", "tokenizer"))


def test_graphs_that_another_program_wrote_are_not_removed(writing, tmp_path) -> None:
    for name, file in (("text_encoder", "model.onnx"), ("tokenizer", "tokenizer.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(b"of optimum")
    list(export_cascade(make_pipeline(tokenizer=None, text_encoder=None, **STAGES_AFTER_THE_FIRST), tmp_path))
    assert (tmp_path / "text_encoder" / "model.onnx").exists() and (tmp_path / "tokenizer" / "tokenizer.json").exists()


def test_links_and_what_a_killed_removal_left_are_no_hindrance(writing, tmp_path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for place in (one, other):
        list(export_cascade(make_pipeline(), place))
    shutil.rmtree(one / "text_encoder")
    (one / "text_encoder").symlink_to(other / "text_encoder")
    (one / "unet_2.deleted").mkdir()
    (one / "unet_2.deleted" / "half").touch()
    list(export_cascade(make_pipeline(tokenizer=None, text_encoder=None, **STAGES_AFTER_THE_FIRST), one))
    assert folders(one) == {"unet", "scheduler"} and (other / "text_encoder" / "model.onnx").exists()


def test_files_of_ones_own_stay(writing, tmp_path) -> None:
    list(export_cascade(make_pipeline(), tmp_path))
    parts = ("unet", "unet_2", "scheduler", "scheduler_2", "text_encoder", "tokenizer")
    for part in parts:
        (tmp_path / part / "notes.txt").write_text(part)
        (tmp_path / part / "plots").mkdir()
        (tmp_path / part / "plots" / "one.png").write_text(part)
    writing[0] = b"another graph"
    list(export_cascade(make_pipeline(), tmp_path))
    list(export_cascade(make_pipeline(tokenizer=None, text_encoder=None, **STAGES_AFTER_THE_FIRST), tmp_path))
    assert {(tmp_path / part / name).read_text() for part in parts for name in ("notes.txt", "plots/one.png")} == set(parts)
    assert (tmp_path / "unet" / "model.onnx").read_bytes() == b"another graph"
    for part in ("unet_2", "scheduler_2", "text_encoder", "tokenizer"):
        assert {path.name for path in (tmp_path / part).iterdir()} == {"notes.txt", "plots"}, part
    assert not (tmp_path / "unet_3").exists() and not (tmp_path / "scheduler_3").exists()


@pytest.mark.thorough
def test_files_of_ones_own_stay_whatever_they_are_called(writing, tmp_path) -> None:
    list(export_cascade(make_pipeline(), tmp_path))
    own = {"unet/vocab.txt", "unet_2/model.onnx.old", "unet_2/words.model", "scheduler_2/tokenizer.json", "tokenizer/tokenizer-notes.json"}
    for name in own:
        (tmp_path / name).write_text("one's own")
    (tmp_path / "unet" / "notes").symlink_to("gone")
    list(export_cascade(make_pipeline(), tmp_path))
    list(export_cascade(make_pipeline(tokenizer=None, text_encoder=None, **STAGES_AFTER_THE_FIRST), tmp_path))
    assert all((tmp_path / name).read_text() == "one's own" for name in own)
    assert (tmp_path / "unet" / "notes").is_symlink()


@pytest.mark.parametrize("index", ["[]", "null", "{"])
def test_what_an_export_cannot_be_put_beside_is_said_before_it_begins(writing, tmp_path, index) -> None:
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(ValueError, match=r"model_index.json is damaged or of something else"):
        next(export_cascade(make_pipeline(), tmp_path))
    (tmp_path / "model_index.json").unlink()
    (tmp_path / "unet_2").symlink_to("gone")
    with pytest.raises(ValueError, match="unet_2 is no folder, and one is to be written there"):
        next(export_cascade(make_pipeline(), tmp_path))


def test_two_exports_at_once_into_one_folder(writing, tmp_path) -> None:
    first = export_cascade(make_pipeline(), tmp_path)
    assert next(first) == "unet"
    with pytest.raises(ValueError, match=f"another run is writing into {tmp_path}; wait until it has ended, or choose another folder"):
        list(export_cascade(make_pipeline(), tmp_path))
    list(first)
    assert ImagenCascadePipeline.from_pretrained(tmp_path).stage_numbers == [1, 2, 3]
    with one_run_in(tmp_path):  # which is free again
        pass


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"encoder_attention_mask": (2, 3)}, r"encoder_attention_mask has the shape \(2, 3\), where the graph takes \(2, 5\)"),
        ({"encoder_attention_mask": (1, 5)}, r"encoder_attention_mask has the shape \(1, 5\), where the graph takes \(2, 5\)"),
        ({"encoder_hidden_states": (1, 5, TEXT_DIM)}, rf"encoder_hidden_states has .*takes \(2, (5|any), {TEXT_DIM}\)"),
        ({"encoder_hidden_states": (2, 5, TEXT_DIM + 1)}, rf"encoder_hidden_states has .*takes \(2, (5|any), {TEXT_DIM}\)"),
        ({"encoder_hidden_states": (2, TEXT_DIM)}, rf"encoder_hidden_states has .*takes \(2, (5|any), {TEXT_DIM}\)"),
        ({"sample": (2, 4, 16, 16)}, r"sample has the shape \(2, 4, 16, 16\), where the graph takes \(2, 3, any, any\)"),
    ],
)
def test_inputs_that_do_not_go_together_are_refused(tmp_path, changed, said) -> None:
    """OpenVINO does not refuse them: it answers with an older output."""
    network = ExportedNetwork.from_pretrained(network_folder(tmp_path))
    shapes = {"sample": (2, 3, 16, 16), "encoder_hidden_states": (2, 5, TEXT_DIM), "encoder_attention_mask": (2, 5)}
    given = {name: torch.zeros(shape) for name, shape in (shapes | changed).items()}
    with pytest.raises(ValueError, match=said):
        network(given.pop("sample"), 0.5, **given)
    right = {name: torch.zeros(shape) for name, shape in shapes.items()}
    assert network(right.pop("sample"), 0.5, **right).sample.shape == (2, 3, 16, 16)
    encoder = ExportedTextEncoder.from_pretrained(text_encoder_folder(tmp_path / "text_encoder"))
    with pytest.raises(ValueError, match=r"attention_mask has the shape \(1, 3\), where the graph takes \(1, 6\)"):
        encoder(torch.zeros(1, 6), torch.zeros(1, 3))


def test_a_runtime_that_reads_other_files(tmp_path) -> None:
    exported = ExportedNetwork.from_pretrained(network_folder(tmp_path))
    with pytest.raises(
        ValueError, match=r"for onnxruntime or jax, and openvino reads openvino_model.xml; export the cascade --to openvino"
    ):
        exported.run_by("openvino")
    assert exported.run_by("jax").graph.path == tmp_path / "model.onnx"
    (tmp_path / "model.onnx").rename(tmp_path / "openvino_model.xml")
    for runtime in ("onnxruntime", "jax"):
        with pytest.raises(ValueError, match=f"for openvino, and {runtime} reads model.onnx; export the cascade without --to openvino"):
            exported.run_by(runtime)


def card(folder: Path) -> str:
    return (folder / "README.md").read_text()


def test_the_card_says_what_the_graphs_are_and_how_they_are_loaded(writing, tmp_path, monkeypatch) -> None:
    made_from, place = tmp_path / "weights", tmp_path / "graphs"
    make_pipeline().save_pretrained(made_from)
    list(export_cascade(ImagenCascadePipeline.from_pretrained(made_from), place))
    assert "graphs of ONNX" in card(place) and ".[onnx]" in card(place) and "- onnx" in card(place)
    assert str(tmp_path) not in "".join(data.decode() for name, data in contents(place).items() if name.endswith((".md", ".json")))
    monkeypatch.chdir(tmp_path)  # where the folder's name is enough
    code = card(place).split(ANEW)[1].split("```python\n")[1].split('pipe("a prompt")')[0]
    found: dict = {}
    exec(code, found)
    assert found["pipe"].stage_numbers == [1, 2, 3]
    assert 'ExportedNetwork.from_pretrained("graphs", subfolder="unet")' in card(place)
    rows = [[line for line in card(one).splitlines() if line.startswith("| `unet")] for one in (made_from, place)]
    assert len(rows[0]) == 3 and rows[0] == rows[1]


def test_the_card_of_another_export_is_written_anew(writing, tmp_path, monkeypatch) -> None:
    list(export_cascade(make_pipeline(), tmp_path))
    assert "`unet_3`" in card(tmp_path)
    monkeypatch.setattr(exporting, "to_openvino", lambda folder: (folder / "model.onnx").rename(folder / "openvino_model.xml"))
    list(export_cascade(make_pipeline(**STAGES_AFTER_THE_FIRST), tmp_path, openvino=True))
    assert "graphs of OpenVINO" in card(tmp_path) and ".[openvino]" in card(tmp_path) and "ONNX" not in card(tmp_path)
    assert "`unet_3`" not in card(tmp_path)
    kept = card(tmp_path).replace(ANEW, "")
    (tmp_path / "README.md").write_text(kept)
    list(export_cascade(make_pipeline(), tmp_path))
    assert card(tmp_path) == kept


CARD_BY_HAND = """---
license: cc-by-4.0
datasets: [me/photographs]
tags: [birds]
---

# Birds

Trained on photographs of birds by `examples/birds`. It generates no other animals. In a shell: `--model {folder}`.
"""


def test_the_card_of_the_weights_goes_with_their_graphs(writing, tmp_path) -> None:
    weights, place = tmp_path / "birds", tmp_path / "graphs"
    weights.mkdir()
    (weights / "README.md").write_text(CARD_BY_HAND.format(folder=weights))
    (weights / "NOTICE").write_text("photographs by somebody")
    make_pipeline().save_pretrained(weights)
    list(export_cascade(ImagenCascadePipeline.from_pretrained(weights), place))
    told, text = ModelCard.load(place / "README.md").data.to_dict(), card(place)
    assert (told["license"], told["datasets"], told["library_name"]) == ("cc-by-4.0", ["me/photographs"], "imagen_diffusers")
    assert told["tags"][0] == "birds" and {"onnx", "cascade"} < set(told["tags"])
    assert text.index("It generates no other animals.") < text.index("## Graphs") < text.index('.from_pretrained("graphs", dtype')
    assert "`--model birds`" in text and str(tmp_path) not in text
    assert (place / "NOTICE").read_text() == "photographs by somebody"
    DiffusionPipeline.from_pretrained(place).save_pretrained(tmp_path / "again")  # which have a section on graphs already
    assert card(tmp_path / "again") == text.replace('"graphs"', '"again"').replace("`graphs`", "`again`").replace(
        "--model graphs", "--model again"
    )
    list(export_cascade(ImagenCascadePipeline.from_pretrained(weights, unet_3=None, scheduler_3=None), place))
    assert "`unet_2`" in card(place) and "`unet_3`" not in card(place)


@pytest.mark.thorough
def test_licences_are_those_of_the_card(writing, tmp_path) -> None:
    for name in ("one", "other"):
        make_pipeline().save_pretrained(tmp_path / name)
        (tmp_path / name / "LICENSE").write_text(name)
        (tmp_path / name / "LICENSES").mkdir()
        list(export_cascade(ImagenCascadePipeline.from_pretrained(tmp_path / name), tmp_path / "graphs"))
        assert (tmp_path / "graphs" / "LICENSE").read_text() == name
    (tmp_path / "graphs" / "README.md").write_text("a card of one's own")
    list(export_cascade(ImagenCascadePipeline.from_pretrained(tmp_path / "one"), tmp_path / "graphs"))
    assert (tmp_path / "graphs" / "LICENSE").read_text() == "other"


@pytest.mark.parametrize("header", ["title: Birds: a cascade", "license: [mit"])
def test_a_card_without_a_valid_header_is_not_carried_over(writing, tmp_path, header) -> None:
    make_pipeline().save_pretrained(tmp_path / "weights")
    (tmp_path / "weights" / "README.md").write_text(f"---\n{header}\n---\n# Birds\n")
    list(export_cascade(ImagenCascadePipeline.from_pretrained(tmp_path / "weights"), tmp_path / "graphs"))
    assert "# An Imagen cascade" in card(tmp_path / "graphs")


def test_a_card_that_is_to_be_kept_has_one_section_on_graphs(writing, tmp_path) -> None:
    list(export_cascade(make_pipeline(), tmp_path / "my graphs"))
    assert "--model 'my graphs'`" in card(tmp_path / "my graphs")
    kept = card(tmp_path / "my graphs").replace(ANEW, "Kept by hand.")
    (tmp_path / "my graphs" / "README.md").write_text(kept)
    ImagenCascadePipeline.from_pretrained(tmp_path / "my graphs").save_pretrained(tmp_path / "again")
    assert card(tmp_path / "again").count("## Graphs") == 1 and "Kept by hand." in card(tmp_path / "again")


def test_only_whole_paths_are_taken_out_of_a_card() -> None:
    text = "at https://x.org/model/1, of `/model`, of weights/model.safetensors and /model/unet, not of /models"
    told = "at https://x.org/model/1, of `model`, of weights/model.safetensors and model/unet, not of /models"
    assert pipeline_card._without_graphs(text, "/model") == told


def test_the_command_exports_the_first_stages(writing, tmp_path) -> None:
    make_pipeline().save_pretrained(tmp_path / "weights")
    told = call("export", tmp_path / "weights", tmp_path / "base", "--stop-at", 1)
    assert told.exit_code == 0, told.output
    assert told.output.split("written to")[0].split() == ["unet", "text_encoder"]
    assert folders(tmp_path / "base") == {"unet", "scheduler", "text_encoder", "tokenizer"}
    assert ImagenCascadePipeline.from_pretrained(tmp_path / "base").stage_numbers == [1]
    refused = call("export", tmp_path / "weights", tmp_path / "more", "--stop-at", 4)
    assert "--stop-at is 4;" in refused.output and "has no such stage to end with" in " ".join(refused.output.split())
    assert not (tmp_path / "more").exists()


def test_the_command_names_what_it_begins(writing, tmp_path, monkeypatch) -> None:
    make_pipeline(**STAGES_AFTER_THE_FIRST).save_pretrained(tmp_path / "weights")
    write = exporting.write_onnx

    def killed_at_the_text_encoder(program, inputs, output, path: Path) -> None:
        if path.parent.name == "text_encoder":
            raise KeyboardInterrupt
        write(program, inputs, output, path)

    monkeypatch.setattr(exporting, "write_onnx", killed_at_the_text_encoder)
    assert call("export", tmp_path / "weights", tmp_path / "graphs").output.split()[:2] == ["unet", "text_encoder"]


def test_the_card_on_the_hub_says_how_to_fetch_graphs(uploads, tmp_path) -> None:  # noqa: F811
    cascade_of_graphs(tmp_path / "one").push_to_hub("me/new")
    (told,) = uploads
    assert "`hf download me/new --local-dir new`" in told["card"]
    assert 'ImagenCascadePipeline.from_pretrained("new", dtype=torch.float32)' in told["card"]


def test_weights_are_not_written_over(writing, tmp_path, monkeypatch) -> None:
    make_pipeline().save_pretrained(tmp_path / "model")
    before = contents(tmp_path / "model")
    with pytest.raises(ValueError, match="model holds weights, which would be lost"):
        list(export_cascade(make_pipeline(), tmp_path / "model"))
    monkeypatch.chdir(tmp_path)
    said = " ".join(call("export", "imagen-scenes", tmp_path / "model").output.split())
    assert "holds weights, which would be lost" in said and contents(tmp_path / "model") == before


def test_half_a_graph_is_no_part_of_one(tmp_path) -> None:
    network = ExportedNetwork.from_pretrained(network_folder(tmp_path))
    digest = network.state_dict()
    (tmp_path / "model.onnx.part").write_bytes(b"half")
    (tmp_path / "model.safetensors").write_bytes(b"of another program")
    assert str(network.state_dict()) == str(digest)


def test_a_graph_reads_as_many_tokens_as_its_encoder(writing, tmp_path) -> None:
    """RoBERTa's counts its 18 places from behind the padding token's number."""
    encoder = RobertaModel(RobertaConfig(vocab_size=16, max_position_embeddings=18, pad_token_id=1, **SIZES))
    list(export_cascade(make_pipeline(text_encoder=encoder), tmp_path))
    exported = ExportedTextEncoder.from_pretrained(tmp_path / "text_encoder")
    assert readable(128, exported) == readable(128, encoder) == 16
    assert encoder.config.max_position_embeddings == 18


def test_what_is_not_installed_is_said_at_once(tmp_path, monkeypatch) -> None:
    missing = ("onnxscript", "openvino", "nncf")
    monkeypatch.setattr("imagen_diffusers.export.checks.find_spec", lambda name: None if name in missing else name)
    with pytest.raises(ImportError, match=r'need onnxscript: pip install "imagen_diffusers\[onnx\]"'):
        check_installed(openvino=False)
    with pytest.raises(ImportError, match=r"need onnxscript, openvino: .*\[openvino\]"):
        list(export_cascade(make_pipeline(), tmp_path / "new", openvino=True))
    assert not (tmp_path / "new").exists()
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cube")
    told = call("export", "imagen-scenes", tmp_path / "new", "--to", "openvino", "--quant-mode", "int8", "--prompts", prompts)
    assert "need onnxscript, openvino, nncf" in told.output
    assert '"nowhere" is not there' in call("export", "nowhere", tmp_path / "new").output


def test_a_file_without_a_prompt_is_said_to_be_empty(tmp_path) -> None:
    (tmp_path / "prompts.txt").write_text("\n \n")
    told = ("export", "imagen-scenes", tmp_path / "new", "--quant-mode", "int8", "--prompts", tmp_path / "prompts.txt")
    assert "prompts.txt holds no prompt" in " ".join(call(*told, "--to", "openvino").output.split())
    assert "go together" in call(*told).output
    with pytest.raises(ValueError, match="eight bits, which prompts are for, are OpenVINO's"):
        list(export_cascade(make_pipeline(), tmp_path / "new", prompts=["a cube"]))
