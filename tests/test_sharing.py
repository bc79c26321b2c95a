"""What would be uploaded, without a Hub."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import diffusers.utils.hub_utils
import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import EntryNotFoundError

import imagen_diffusers.pipelines.folders
from imagen_diffusers import ImagenCascadePipeline, bundled
from imagen_diffusers.finetuning.textual_inversion import WordSettings
from imagen_diffusers.hub.card_data import base_models, inherited_license
from imagen_diffusers.hub.training_card import write_card
from imagen_diffusers.hub.upload import LEFT_HERE, HubSettings, push_folder
from imagen_diffusers.training.run_settings import TrainSettings

from .conftest import make_base, make_pipeline
from .test_deepfloyd import base_network, sr_network


class Hub:
    """Remembers calls."""

    calls: dict = {}
    there: list[str] = []

    def __init__(self, token):
        self.calls["token"] = token

    def file_exists(self, repo_id, name):
        return name in self.there

    def create_repo(self, name, exist_ok):
        return SimpleNamespace(repo_id=f"me/{name}")

    def upload_folder(self, **told):
        self.calls.update(told)
        return f"https://huggingface.co/{told['repo_id']}"


@pytest.mark.parametrize("there", [True, False])
def test_a_trained_cascade_is_loaded_by_diffusers_alone(tmp_path, monkeypatch, there) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(Hub, "there", ["pipeline.py"] * there)
    push_folder(tmp_path, HubSettings(push_to_hub=True))
    assert not (tmp_path / "pipeline.py").exists()  # of a stage or an adapter
    (tmp_path / "model_index.json").write_text("{}")
    push_folder(tmp_path, HubSettings(push_to_hub=True))
    assert (tmp_path / "pipeline.py").exists() != there
    if not there:
        assert "from imagen_diffusers import ImagenCascadePipeline" in (tmp_path / "pipeline.py").read_text()
        (tmp_path / "pipeline.py").write_text("# by hand")
        push_folder(tmp_path, HubSettings(push_to_hub=True))
        assert (tmp_path / "pipeline.py").read_text() == "# by hand"


def test_checkpoints_and_logs_stay_here(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    folder = tmp_path / "my-style"
    assert push_folder(folder, HubSettings(push_to_hub=True, hub_token="t")) == "https://huggingface.co/me/my-style"
    assert Hub.calls["token"] == "t"
    names = ["unet/config.json", "README.md", "pytorch_lora_weights.safetensors", "checkpoint-3/model.safetensors", "logs/unet/events"]
    kept = list(huggingface_hub.utils.filter_repo_objects(names, ignore_patterns=Hub.calls["ignore_patterns"]))
    assert Hub.calls["ignore_patterns"] == [*LEFT_HERE, "logs/**"]
    assert kept == names[:3]
    push_folder(folder, HubSettings(push_to_hub=True), "./tensorboard/")
    assert list(huggingface_hub.utils.filter_repo_objects(["tensorboard/events"], ignore_patterns=Hub.calls["ignore_patterns"])) == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [("adapter", "load_lora_weights"), ("stage", 'subfolder="unet"'), ("cascade", 'from_pretrained("me/new", dtype=torch.float32)')],
)
def test_a_card_says_what_it_is_and_never_the_token(tmp_path, kind, words) -> None:
    word = WordSettings(tmp_path, "<my-vase>", "vase", templates=["a {}|b"])
    settings = [HubSettings(hub_token="secret"), TrainSettings(output_dir=tmp_path, num_train_epochs=3), word]
    write_card(tmp_path, kind, base="a/b", slots=["unet"], network="Net", settings=settings, repo="me/new", image="p.png")
    card = (tmp_path / "README.md").read_text()
    assert words in card
    assert "base_model: a/b" in card
    assert "![Images](p.png)" in card
    assert "secret" not in card
    assert "| `placeholder_token` | &lt;my-vase> |" in card and "| `templates` | a {}\\|b |" in card  # no HTML, and no third cell
    assert "| `num_train_epochs` | 3 |" in card and "max_train_steps" not in card


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("ImagenUNet2DConditionModel", "from imagen_diffusers import ImagenUNet2DConditionModel, ImagenCascadePipeline"),
        ("UNet2DConditionModel", "from diffusers import UNet2DConditionModel\nfrom imagen_diffusers import ImagenCascadePipeline"),
        ("Denoiser", "# Import your own Denoiser here.\nfrom imagen_diffusers import ImagenCascadePipeline"),
    ],
)
def test_a_card_says_where_its_network_is_imported_from(tmp_path, network, said) -> None:
    write_card(tmp_path, "stage", base="a/b", slots=["unet"], network=network, settings=[], repo="me/new")
    assert f"```python\nimport torch\n{said}\n" in (tmp_path / "README.md").read_text()


def header(folder: Path) -> dict:
    return ModelCard.load(folder / "README.md").data.to_dict()


def run_usage(folder: Path) -> dict:
    """The card's own code, run."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    found: dict = {}
    exec(code.split('pipe("a prompt")')[0], found)
    return found


@pytest.fixture
def uploads(monkeypatch) -> list[dict]:
    """What the Hub would get: the card and the other arguments of each upload, onto a Hub without a card."""
    seen: list[dict] = []

    def upload_folder(*, folder_path, **told):
        paths = sorted(str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*") if path.is_file())
        card = Path(folder_path, "README.md")
        seen.append({"files": paths, "card": card.read_text() if card.exists() else None, **told})
        return "https://huggingface.co/me/new/commit/1"

    def no_card(repo_id, **_):
        if Path(repo_id).exists():
            return load(repo_id)
        raise EntryNotFoundError("no card")

    load = ModelCard.load
    for module in (imagen_diffusers.pipelines.folders, diffusers.utils.hub_utils, diffusers.pipelines.pipeline_utils):
        monkeypatch.setattr(module, "create_repo", lambda repo_id, **_: SimpleNamespace(repo_id=f"me/{repo_id.split('/')[-1]}"))
    monkeypatch.setattr(imagen_diffusers.pipelines.folders, "file_exists", lambda *_, **__: False)
    monkeypatch.setattr(diffusers.utils.hub_utils, "upload_folder", upload_folder)
    monkeypatch.setattr(ModelCard, "load", staticmethod(no_card))
    return seen


def test_push_to_hub_uploads_the_cascades_own_card(uploads) -> None:
    assert make_pipeline().push_to_hub("me/new", commit_message="first", create_pr=True).startswith("https://")
    (told,) = uploads
    assert 'ImagenCascadePipeline.from_pretrained("me/new", dtype=torch.float32)' in told["card"]
    assert "library_name: imagen_diffusers" in told["card"]
    assert (told["repo_id"], told["commit_message"], told["create_pr"]) == ("me/new", "first", True)
    assert "unet_3/diffusion_pytorch_model.safetensors" in told["files"]


def test_a_cascade_that_the_hub_does_not_take_is_told_of_in_a_sentence(uploads, monkeypatch) -> None:
    def create_repo(*_, **__):
        raise type("ConnectError", (Exception,), {})("no such host\nand more")

    monkeypatch.setattr(imagen_diffusers.pipelines.folders, "create_repo", create_repo)
    with pytest.raises(ValueError, match=r'"me/new" cannot be made or written \(no such host\); go online, log in .*another repo_id'):
        make_pipeline().push_to_hub("me/new")
    assert not uploads


def test_save_pretrained_can_push_and_leaves_the_same_card(uploads, tmp_path) -> None:
    make_pipeline().save_pretrained(tmp_path / "new", push_to_hub=True, token="t", variant="fp16")
    (told,) = uploads
    assert told["card"] == (tmp_path / "new" / "README.md").read_text()
    assert 'from_pretrained("me/new", dtype=torch.float32)' in told["card"]
    assert told["token"] == "t"
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in told["files"]


def test_a_card_that_is_on_the_hub_stays(uploads, monkeypatch) -> None:
    monkeypatch.setattr(ModelCard, "load", staticmethod(lambda repo_id, **_: ModelCard("---\nlicense: mit\n---\nby hand")))
    make_pipeline().push_to_hub("me/new")
    assert "by hand" in uploads[0]["card"]


def test_a_card_that_is_in_the_folder_stays(uploads, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(ModelCard, "load", staticmethod(lambda repo_id, **_: ModelCard("---\nlicense: mit\n---\nolder")))
    (tmp_path / "README.md").write_text("by hand")
    make_pipeline().save_pretrained(tmp_path, push_to_hub=True)
    assert (tmp_path / "README.md").read_text() == uploads[0]["card"] == "by hand"


def test_a_pipeline_file_that_is_in_the_folder_stays(uploads, tmp_path) -> None:
    (tmp_path / "pipeline.py").write_text("# by hand")
    make_pipeline().save_pretrained(tmp_path, push_to_hub=True, repo_id="me/new")
    assert (tmp_path / "pipeline.py").read_text() == "# by hand"
    assert "pipeline.py" in uploads[0]["files"]


def test_a_pipeline_file_that_is_on_the_hub_stays(uploads, monkeypatch) -> None:
    there = ("me/new", "pipeline.py")
    monkeypatch.setattr(imagen_diffusers.pipelines.folders, "file_exists", lambda *where, **_: where == there)
    make_pipeline().push_to_hub("me/new")
    assert "pipeline.py" not in uploads[0]["files"]


def told_of_origins(folder: Path) -> dict[str, str]:
    """What the configurations of a folder say of where they were loaded from."""
    found = {path.relative_to(folder): json.loads(path.read_text()).get("_name_or_path") for path in folder.rglob("*.json")}
    return {str(path): name for path, name in found.items() if name is not None}


def test_no_path_of_this_machine_is_saved_or_uploaded(uploads, tmp_path, monkeypatch) -> None:
    pipe = make_pipeline(unet=base_network())
    pipe.save_pretrained(tmp_path / "mine")
    pipe = ImagenCascadePipeline.from_pretrained(tmp_path / "mine")
    pipe.unet_3.register_to_config(_name_or_path="me/theirs")
    pipe.save_pretrained(tmp_path / "new")
    assert told_of_origins(tmp_path / "new") == {"unet_3/config.json": "me/theirs"}
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "new").rglob("*.json"))
    assert pipe.config["_name_or_path"] == str(tmp_path / "mine")  # for the card
    pipe.unet_2.save_pretrained(tmp_path / "alone")
    assert told_of_origins(tmp_path / "alone") == {}
    assert pipe.unet_2.config["_name_or_path"] == str(tmp_path / "mine" / "unet_2")
    monkeypatch.setattr(
        diffusers.utils.hub_utils, "upload_folder", lambda *, folder_path, **_: uploads.append(told_of_origins(Path(folder_path)))
    )
    pipe.push_to_hub("me/new")
    assert uploads[-1] == {"unet_3/config.json": "me/theirs"}


def test_a_cascade_with_settings_for_fewer_stages_is_saved_with_its_card(tmp_path) -> None:
    make_pipeline(num_inference_steps=(1500,), guidance_scale=(), noise_level=(0.0, 200.0)).save_pretrained(tmp_path)
    rows = [line.split(" | ")[-3:] for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| `unet")]
    assert rows == [["1500", "–", "0 |"], ["–", "–", "200 |"], ["–", "–", "– |"]]


@pytest.mark.parametrize("alone", [False, True])
def test_a_folder_is_no_base_model_wherever_one_stands(tmp_path, monkeypatch, alone) -> None:
    """A relative path may have the form of a Hub id."""
    make_pipeline(unet_2=None, scheduler_2=None, unet_3=None, scheduler_3=None).save_pretrained(tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    if alone:
        unet = type(make_base()).from_pretrained("runs/mine", subfolder="unet")
        pipe = ImagenCascadePipeline(unet=unet, scheduler=make_pipeline().scheduler)
    else:
        pipe = ImagenCascadePipeline.from_pretrained("runs/mine")
        assert pipe.config["_name_or_path"] == str(tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path / "runs")
    pipe.save_pretrained("new")
    assert "base_model" not in header(tmp_path / "runs" / "new")


def test_a_saved_card_says_how_its_folder_is_loaded(tmp_path) -> None:
    make_pipeline().save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "THIS_REPOSITORY" not in card
    assert isinstance(run_usage(tmp_path)["pipe"], ImagenCascadePipeline)
    assert header(tmp_path)["license"] == "unknown"  # it was made from nothing that has one
    (tmp_path / "README.md").write_text("by hand")
    make_pipeline().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "by hand"


def test_a_pipeline_without_a_scheduler_is_saved_with_its_card(tmp_path) -> None:
    ImagenCascadePipeline(unet=make_base()).save_pretrained(tmp_path)
    assert "| 16px | none |" in (tmp_path / "README.md").read_text()
    assert ImagenCascadePipeline.from_pretrained(tmp_path).scheduler is None
    ImagenCascadePipeline().save_pretrained(tmp_path / "empty")


def test_licences_and_bases_are_those_of_what_weights_were_made_from(tmp_path) -> None:
    from diffusers import DDPMScheduler

    scenes = ImagenCascadePipeline.from_pretrained(bundled("imagen-scenes"), text_encoder=None, tokenizer=None)
    scenes.save_pretrained(tmp_path / "scenes")
    assert header(tmp_path / "scenes")["license"] == "apache-2.0"
    unets = base_network(), sr_network()
    for unet, name in zip(unets, ("DeepFloyd/IF-I-XL-v1.0", "DeepFloyd/IF-II-L-v1.0"), strict=True):
        unet.register_to_config(_name_or_path=name)
    floyd = ImagenCascadePipeline(unet=unets[0], scheduler=DDPMScheduler(), unet_2=unets[1], scheduler_2=DDPMScheduler())
    floyd.save_pretrained(tmp_path / "floyd")
    told = header(tmp_path / "floyd")
    assert told["license"] == "deepfloyd-if-license"
    assert told["base_model"] == ["DeepFloyd/IF-I-XL-v1.0", "DeepFloyd/IF-II-L-v1.0"]
    assert base_models(["me/new", None, "me/new", str(tmp_path), "imagen-scenes"]) == ["me/new"]
    assert inherited_license("me/nowhere", ["Net"]) == {"license": "unknown"}


@pytest.mark.parametrize(("link", "there"), [("LICENSE.md", "https://huggingface.co/me/base/blob/main/LICENSE.md"), ("https://a.b/c",) * 2])
def test_a_licence_that_the_hub_has_no_word_for_keeps_its_name_and_place(tmp_path, monkeypatch, link, there) -> None:
    card = f"---\nlicense: other\nlicense_name: of-my-own\nlicense_link: {link}\n---\nby hand"
    monkeypatch.setattr(ModelCard, "load", staticmethod(lambda repo_id, **_: ModelCard(card)))
    settings = [HubSettings(push_to_hub=True)]  # so that the base's card is asked for
    write_card(tmp_path, "adapter", base="me/base", slots=["unet"], network="Net", settings=settings, repo="me/new")
    monkeypatch.undo()
    told = header(tmp_path)
    assert (told["license"], told["license_name"], told["license_link"]) == ("other", "of-my-own", there)


@pytest.mark.parametrize(
    ("base", "network", "license", "more"),
    [
        ("DeepFloyd/IF-I-XL-v1.0", "UNet2DConditionModel", "deepfloyd-if-license", {}),
        ("imagen-scenes", "ImagenUNet2DConditionModel", "apache-2.0", {}),
        ("a/b", "ImagenUNet2DConditionModel", "mit", {"license": "mit"}),
    ],
)
def test_cards_of_trained_weights_carry_a_licence(tmp_path, base, network, license, more) -> None:
    write_card(tmp_path, "adapter", base=base, slots=["unet"], network=network, settings=[HubSettings(**more)], repo="me/new")
    told = header(tmp_path)
    assert told["license"] == license
    assert told.get("base_model") == (base if "/" in base else None)


def test_the_card_of_a_stage_of_the_bundled_cascade_loads(tmp_path) -> None:
    pipe = ImagenCascadePipeline.from_pretrained(bundled("imagen-scenes"))
    pipe.unet.save_pretrained(tmp_path / "unet")
    pipe.scheduler.save_pretrained(tmp_path / "scheduler")
    network = type(pipe.unet).__name__
    write_card(tmp_path, "stage", base="imagen-scenes", slots=["unet"], network=network, settings=[], repo=str(tmp_path))
    assert run_usage(tmp_path)["pipe"].stage_numbers == [1, 2, 3]
