"""The page without gradio: what may be asked, what is told meanwhile, and the gate before it."""

import asyncio
import json
import time
from contextlib import aclosing
from dataclasses import replace

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from imagen_diffusers import ImagenCascadeUpscalePipeline
from imagen_diffusers.cli import app
from imagen_diffusers.images import read_settings
from imagen_diffusers.models.lora import add_lora, lora_layers, lora_metadata
from imagen_diffusers.web.answers import Answers, Refused
from imagen_diffusers.web.gallery import Gallery
from imagen_diffusers.web.gate import API, BODY_BYTES, Gate
from imagen_diffusers.web.limits import Limits, read_choice, read_number, read_text, read_whole
from imagen_diffusers.web.models import Models
from imagen_diffusers.web.reading import read_asked
from imagen_diffusers.web.sampling import Sampler
from imagen_diffusers.web.worker import Worker

from .conftest import make_base, make_pipeline
from .test_lora import wake

LIMITS = Limits()
TOLD = {"version": "0", "scheduler": None, "dtype": "float32", "tile": None}


@pytest.fixture(scope="module")
def models() -> Models:
    """Two cascades of different bases, in memory as the commands have them: in another layout sums are rounded otherwise."""
    bases = {"first": {}, "second": {"block_out_channels": (8, 16)}}

    def load(place: str):
        pipe = make_pipeline(unet=make_base(**bases[place]))
        for unet in (pipe.unet, pipe.unet_2, pipe.unet_3):
            unet.to(memory_format=torch.channels_last)
        return pipe

    return Models(load, {"tiny": "first", "other": "second"}, {})


@pytest.fixture
def gallery(tmp_path) -> Gallery:
    (tmp_path / "page").mkdir()
    return Gallery(tmp_path / "page", LIMITS)


@pytest.fixture
def answers(models, gallery):
    worker = Worker()
    yield Answers(worker, Sampler(models, gallery, LIMITS, TOLD))
    worker.close()


def sent(gallery: Gallery, image: Image.Image, name: str = "image.png") -> dict[str, str]:
    """An image that a browser has sent, as it names it from then on."""
    path = gallery.folder / "sent" / name
    path.parent.mkdir(exist_ok=True)
    image.save(path)
    return {"path": str(path)}


def seen(answers: Answers, task: str = "generate", **values) -> list:
    async def collect() -> list:
        return [one async for one in answers.images(task, values)]

    return asyncio.run(collect())


# What may be asked.


@pytest.mark.parametrize("value", [True, "7", None, [], {}, float("nan"), float("inf"), -1, 1.5, 10**400])
def test_whole_numbers_are_whole_and_in_their_range(value) -> None:
    with pytest.raises(ValueError, match="^n is .*; give a whole number from 0 to 9$"):
        read_whole("n", value, 0, 9)
    assert read_whole("n", 7.0, 0, 9) == 7


@pytest.mark.parametrize("value", [False, "0.5", None, {}, float("nan"), float("inf"), -0.1, 1.1])
def test_numbers_are_in_their_range(value) -> None:
    with pytest.raises(ValueError, match="^n is .*; give a number from 0 to 1$"):
        read_number("n", value, 0, 1)


@pytest.mark.parametrize("value", [{}, 7, "x" * 11, "a\0b", "a\ud800b", "a\u202eb"])
def test_texts_are_short_and_can_be_shown(value) -> None:
    with pytest.raises(ValueError, match="^t "):
        read_text("t", value, 10)
    assert read_text("t", "\ta b \n", 10) == "a b"
    for whole in ("\u0645\u06cc\u200c\u062e\u0648", "\U0001f469\u200d\U0001f680", "\U0001f3f4\U000e0067\U000e007f"):  # joined, or of parts
        assert read_text("t", whole, 10) == whole


@pytest.mark.parametrize("value", [None, [], {}, "/etc/passwd", "A" * 9999])
def test_choices_are_those_of_the_page_and_long_values_are_not_repeated(value) -> None:
    with pytest.raises(ValueError, match="choose a or b") as error:
        read_choice("c", value, ("a", "b"))
    assert len(str(error.value)) < 100


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("generate", {}, "the prompt is empty"),
        ("generate", {"prompt": "x" * 501}, "has 501 characters; give at most 500"),
        ("generate", {"prompt": "a", "seed": "-1"}, 'the seed is "-1"'),
        ("generate", {"prompt": "a", "seed": "9" * 5000}, "the seed is"),
        ("generate", {"prompt": "a", "seed": 2**32}, "the seed is 4294967296"),
        ("generate", {"prompt": "a", "seed": 2**32 - 1, "count": 2}, "the seed is 4294967295; give a whole number from 0 to 4294967294"),
        ("generate", {"prompt": "a", "count": 9}, "give a whole number from 1 to 8"),
        ("generate", {"prompt": "a", "preset": "../fast"}, "choose the checkpoint's own or quality"),
        ("generate", {"prompt": "a", "model": "/etc"}, "choose tiny or other"),
        ("generate", {"prompt": "a", "guidance": "NaN"}, "the guidance is"),
        ("edit", {"prompt": "a"}, "the image is missing"),
        ("edit", {"prompt": "a", "image": {"path": "/etc/passwd"}}, "not one that was sent to this page"),
        ("edit", {"prompt": "a", "image": {"path": "sent/../../secret.png"}}, "not one that was sent to this page"),
        ("edit", {"prompt": "a", "image": {"path": "a\0b"}}, "not one that was sent to this page"),
        ("enlarge", {"prompt": "a", "image": "image.png"}, "not one that was sent to this page"),
    ],
)
def test_what_is_not_within_limits_is_refused_in_a_sentence(models, gallery, task, values, message) -> None:
    (gallery.folder.parent / "secret.png").write_bytes(b"secret")
    with pytest.raises(ValueError, match=message):
        read_asked(task, values, models, gallery, LIMITS)


def test_an_image_that_went_while_its_request_waited_is_asked_for_again(answers, gallery) -> None:
    asked = read_asked("edit", {"image": sent(gallery, Image.new("RGB", (8, 8)))}, answers.sampler.models, gallery, LIMITS)
    asked.image.unlink()
    with pytest.raises(ValueError, match="^the image is no longer kept; drop it in again$"):
        gallery.read("the image", asked.image)


def test_links_lead_out_of_the_folder_nowhere(gallery) -> None:
    (gallery.folder.parent / "secret.png").write_bytes(b"secret")
    (gallery.folder / "link.png").symlink_to(gallery.folder.parent / "secret.png")
    assert not gallery.holds(gallery.folder / "link.png")
    assert not gallery.holds(gallery.folder)


def test_images_with_many_pixels_are_not_decoded(gallery, monkeypatch) -> None:
    path = gallery.uploaded("the image", sent(gallery, Image.new("1", (5000, 4000))))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="^the image cannot be read as an image: it is 5000x4000, and at most 16777216 pixels are read"):
        gallery.read("the image", path)
    with pytest.raises(ValueError, match="^the image cannot be read as an image: it is 5000x4000"):
        gallery.look("the image", path)


def test_what_is_dropped_in_is_looked_at_without_being_decoded(gallery, monkeypatch) -> None:
    sent(gallery, Image.new("RGB", (8, 8)))
    (gallery.folder / "sent" / "text.png").write_text("no image")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *_: pytest.fail("it was decoded"))
    gallery.look("the image", gallery.folder / "sent" / "image.png")
    with pytest.raises(ValueError, match="^the mask is not an image that can be read; give a file of one of these kinds"):
        gallery.look("the mask", gallery.folder / "sent" / "text.png")
    with pytest.raises(ValueError, match="^the mask is no longer kept; drop it in again$"):
        gallery.look("the mask", gallery.folder.parent)


@pytest.mark.parametrize("kind", ["TIFF", "EPS", "GIF"])
def test_images_of_other_kinds_are_not_read_whatever_they_are_called(gallery, kind) -> None:
    path = gallery.folder / "image.png"
    Image.new("RGB", (8, 8)).save(path, format=kind)
    with pytest.raises(
        ValueError, match="^the image is not an image that can be read; give a file of one of these kinds: PNG, JPEG, WEBP$"
    ):
        gallery.read("the image", path)


def test_the_oldest_files_go_when_there_are_too_many(gallery) -> None:
    small = Gallery(gallery.folder, replace(LIMITS, stored_bytes=3000, stored_files=3))
    paths = []
    for seed in range(4):
        paths.append(gallery.keep(Image.effect_noise((32, 32), 50), {"seed": seed}))
        time.sleep(0.01)  # that file times differ
    assert gallery.remembered([gallery.name(path) for path in paths]) == paths
    small.make_room()
    left = small.remembered([small.name(path) for path in paths])
    assert left == paths[-len(left) :]
    assert 0 < sum(path.stat().st_size for path in left) <= 3000
    (gallery.folder / "half an upload").write_bytes(bytes(4000))
    small.make_room()
    assert not list(gallery.folder.iterdir())


def test_files_may_go_while_room_is_made(gallery) -> None:
    (gallery.folder / "half an upload").symlink_to("moved")
    (gallery.folder / "sent").mkdir()
    (gallery.folder / "sent" / "image.png").symlink_to("moved")
    gallery.make_room()
    assert pass_gate(gallery, "POST", f"{API}upload", b"anything") == (200, "ok")


@pytest.mark.parametrize("names", [None, "abc", [7, None, {}], ["..", "/etc", "*", "0" * 32, "0" * 31 + "/"], {"a": 1}])
def test_a_browser_remembers_no_files_but_its_images(gallery, names) -> None:
    gallery.keep(Image.new("RGB", (2, 2)), {"seed": 1})
    assert gallery.remembered(names) == []


# What is told meanwhile.


def test_stages_are_seen_as_they_finish(answers) -> None:
    told = seen(answers, prompt="a red dragon, <b>", seed=7)
    widths = [[width for _, width in one.stages] for one in told if one.stages is not None]
    assert widths == [[], [16], [16, 32], [16, 32, 64]]
    bars = [one.status for one in told if "progress" in one.status]
    assert len(bars) == 7 and 'value="3" max="7"' in bars[2] and "16px, step 3 of 7" in bars[2]
    assert "never saw: dragon, &lt;b&gt;" in told[-1].status
    (finished,) = (one.finished for one in told if one.finished is not None)
    assert Image.open(finished).size == (64, 64)


def test_each_image_has_the_next_seed(answers) -> None:
    alone = [one.finished for one in seen(answers, prompt="a red cube", seed=8) if one.finished]
    both = [one.finished for one in seen(answers, prompt="a red cube", seed=7, count=2) if one.finished]
    assert [read_settings(path)["seed"] for path in both] == [7, 8]
    assert Image.open(both[1]).tobytes() == Image.open(alone[0]).tobytes()


@pytest.mark.thorough
def test_downloads_are_generated_again_by_the_command(answers, tmp_path) -> None:
    make_pipeline().save_pretrained(tmp_path / "tiny")
    told = seen(answers, prompt="a red cube", seed=7, preset="fast", guidance=2.5)
    for number, (path, _) in enumerate(told[-2].stages, start=1):
        again = tmp_path / f"{number}.png"
        words = ["generate", "--from", path, "--model", tmp_path / "tiny", "--output", again]
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        assert Image.open(again).tobytes() == Image.open(path).tobytes()
        assert read_settings(again)["preset"] == "fast"


def test_edits_and_enlargements_are_those_of_their_pipelines(answers, gallery) -> None:
    image = Image.effect_noise((64, 64), 60).convert("RGB")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (8, 8, 40, 40))
    given = {"prompt": "a red cube", "seed": 1, "image": sent(gallery, image)}
    same = seen(answers, "edit", **given, strength=0)[-2].finished
    assert Image.open(same).tobytes() == image.tobytes()
    painted = seen(answers, "edit", **given, mask=sent(gallery, mask, "mask.png"))[-2].finished
    assert Image.open(painted).crop((41, 0, 64, 64)).tobytes() == image.crop((41, 0, 64, 64)).tobytes()
    assert Image.open(painted).tobytes() != image.tobytes()
    varied = seen(answers, "edit", **{**given, "prompt": ""}, strength=0.9)[-2].finished
    assert read_settings(varied)["prompt"] is None
    larger = seen(answers, "enlarge", **{**given, "image": sent(gallery, image.resize((16, 24)))}, scale=2)[-2].finished
    assert Image.open(larger).size == (32, 48)
    assert read_settings(larger)["task"] == "ImagenCascadeUpscalePipeline"


def test_stages_of_an_enlargement_say_how_they_are_made_again(answers, gallery) -> None:
    image = Image.effect_noise((24, 16), 60).convert("RGB")
    first, last = seen(answers, "enlarge", prompt="a red cube", seed=1, image=sent(gallery, image), scale=3)[-2].stages
    pipe = ImagenCascadeUpscalePipeline.from_pipe(answers.sampler.models.get("tiny"))
    for path, _ in (first, last):
        told = read_settings(path)
        given = {"scale": told["scale"], "stop_at": told.get("stop_at"), "generator": torch.Generator().manual_seed(told["seed"])}
        assert pipe("a red cube", image=image, **given).images[0].tobytes() == Image.open(path).tobytes()


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("generate", {"prompt": ""}, "the prompt is empty"),
        ("enlarge", {"prompt": "a", "scale": 8}, "the image would become 4800x1600"),
        ("enlarge", {"prompt": "a", "scale": 4}, "would become 2400x800, and results have at most 2048 pixels a side"),
        ("edit", {"prompt": "a", "mask": (8, 8)}, "mask"),
    ],
)
def test_refusals_are_sentences(answers, gallery, task, values, message) -> None:
    given = {**values, "image": sent(gallery, Image.new("RGB", (600, 200)))}
    if "mask" in values:
        given["mask"] = sent(gallery, Image.new("L", values["mask"]), "mask.png")
    with pytest.raises(Refused, match=message) as refused:
        seen(answers, task, **given)
    assert str(gallery.folder) not in str(refused.value)


def test_what_was_not_foreseen_is_in_the_log_alone(answers, monkeypatch, caplog) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("/home/somebody/secret")

    monkeypatch.setattr(answers.sampler.models, "get", fail)
    with pytest.raises(Refused, match="^this failed on the server, whose log says why") as refused:
        seen(answers, prompt="a red cube")
    assert "secret" not in str(refused.value)
    assert "/home/somebody/secret" in caplog.text


def test_a_model_that_cannot_be_loaded_is_said_without_its_place(gallery, caplog) -> None:
    def load(place: str) -> None:
        raise OSError(f"{place} is damaged")

    answers = Answers(Worker(), Sampler(Models(load, {"mine": "/home/somebody/mine"}, {}), gallery, LIMITS))
    with pytest.raises(Refused, match='^"mine" could not be loaded; the server\'s log says why$'):
        seen(answers, prompt="a red cube")
    assert "/home/somebody/mine is damaged" in caplog.text


def test_nobody_listening_stops_the_work(answers) -> None:
    """Closed after its first step, a request makes no more than the step it is at, and the next one begins."""

    async def leave() -> None:
        async with aclosing(answers.images("generate", {"prompt": "a red cube", "count": 8})) as told:
            async for one in told:
                if "progress" in one.status:
                    break

    asyncio.run(leave())
    told = seen(answers, prompt="a red cube")
    assert told[-1].status.startswith("done")
    made = [path for path, _ in told[-2].stages]  # by the only thread, after what it was left with
    assert sorted(answers.sampler.gallery.folder.glob("*/imagen-*.png")) == sorted(made)


def test_an_end_of_the_worker_is_told_to_those_at_work_in_line_and_too_late(answers) -> None:
    told = []

    async def ask() -> None:
        async for one in answers.images("generate", {"prompt": "a red cube", "count": 8}):
            told.append(one)
            if sum("progress" in one.status for one in told) == 3:
                answers._worker.close()

    async def all_three() -> list:
        return [*await asyncio.gather(ask(), ask(), return_exceptions=True), *await asyncio.gather(ask(), return_exceptions=True)]

    ended = asyncio.run(asyncio.wait_for(all_three(), 60))
    assert [str(one) for one in ended] == 3 * ["this page has ended; ask again when it is open"]
    made = len(list(answers.sampler.gallery.folder.iterdir()))
    time.sleep(0.2)
    assert made <= 1 and len(list(answers.sampler.gallery.folder.iterdir())) == made


def test_one_request_is_at_work_at_a_time_and_one_that_is_left_stops_no_other(answers) -> None:
    order = []

    async def ask(name: str, leave_after: int | None) -> None:
        async with aclosing(answers.images("generate", {"prompt": "a red cube", "seed": 1})) as told:
            async for one in told:
                order.append((name, one))
                if leave_after is not None and sum(who == name for who, _ in order) > leave_after:
                    return

    async def all_three() -> None:
        await asyncio.gather(ask("first", None), ask("left", 2), ask("last", None))

    asyncio.run(all_three())
    bars = [name for name, one in order if "progress" in one.status]
    assert bars == sorted(bars, key=["first", "left", "last"].index)
    assert [name for name, one in order if one.status.startswith("done")] == ["first", "last"]


def save_adapter(folder, seed: int) -> str:
    """Where an adapter of tiny cascades is."""
    trained = make_pipeline()
    add_lora(trained.unet, rank=2)
    wake(trained.unet, seed)
    layers = {"unet_lora_layers": lora_layers(trained.unet), "unet_lora_adapter_metadata": lora_metadata(trained.unet)}
    trained.save_lora_weights(folder, **layers)
    return str(folder)


@pytest.mark.thorough
def test_adapters_have_their_weights_and_leave_nothing_behind(tmp_path, gallery, caplog) -> None:
    adapters = {"look": (save_adapter(tmp_path / "look", 1), 0.5), "broken": (str(tmp_path), 0.0)}
    answers = Answers(Worker(), Sampler(Models(lambda _: make_pipeline(), {"tiny": ""}, adapters), gallery, LIMITS))
    made = [seen(answers, prompt="a red cube", seed=1, weights={"look": w})[-2].finished for w in (0.0, 1.0, 0.5, 0.0)]
    plain, on, half, off = (Image.open(path).tobytes() for path in made)
    assert plain == off and len({plain, on, half}) == 3
    assert [read_settings(path)["lora"] for path in made] == [None, ["look:1"], ["look:0.5"], None]
    with pytest.raises(Refused, match='^"broken" could not be loaded, or is not for "tiny"'):
        seen(answers, prompt="a red cube", seed=1, weights={"broken": 1.0})
    facts = asyncio.run(answers.facts("tiny"))
    assert facts.adapters == {"look": 0.5}  # and not what cannot be loaded
    assert 'does not offer "broken" for "tiny": ' in caplog.text
    assert Image.open(seen(answers, prompt="a red cube", seed=1)[-2].finished).tobytes() == plain


@pytest.mark.thorough
def test_the_page_offers_the_adapters_of_the_model_that_is_chosen(tmp_path, gallery) -> None:
    page = pytest.importorskip("imagen_diffusers.web.page", reason='the page needs gradio: pip install -c constraints.txt -e ".[web]"')
    load = {"one": make_pipeline, "other": lambda: make_pipeline(unet=make_base(block_out_channels=(16, 64)))}
    models = Models(lambda place: load[place](), {name: name for name in load}, {"look": (save_adapter(tmp_path, 1), 0.5)})
    blocks = page.build(Answers(Worker(), Sampler(models, gallery, LIMITS)), models.facts("other"))
    (slider,) = (one for one in blocks.blocks.values() if getattr(one, "label", None) == "LoRA: look")
    assert (slider.visible, slider.value) == (False, 0.0)
    (choose,) = (event.fn for event in blocks.fns.values() if event.api_name == "model")
    for name, offered in (("one", {"visible": True, "value": 0.5}), ("other", {"visible": False, "value": 0.0})):
        assert asyncio.run(choose(name))[slider].items() >= offered.items()


@pytest.mark.thorough
def test_adapters_act_the_same_whichever_were_asked_for_before(tmp_path) -> None:
    adapters = {name: (save_adapter(tmp_path / name, seed), 0.0) for seed, name in enumerate("abc")}
    fresh, used = (Models(lambda _: make_pipeline(), {"tiny": ""}, adapters) for _ in range(2))
    for name in "cb":
        used.get("tiny", {name: 1.0})
    pipes = [models.get("tiny", {"c": -0.9, "b": 0.6, "a": 0.7}) for models in (fresh, used)]
    made = [pipe("a red cube", generator=torch.Generator().manual_seed(1), output_type="pt", stop_at=1).images for pipe in pipes]
    assert torch.equal(*made)


def test_offload_keeps_one_network_on_the_device(gallery, residents) -> None:
    pipe = make_pipeline()
    pipe.enable_model_cpu_offload(device="cpu")
    answers = Answers(Worker(), Sampler(Models(lambda _: pipe, {"tiny": ""}, {}), gallery, LIMITS))
    seen(answers, prompt="a red cube", count=2)
    assert residents.history == 2 * [{type(pipe.text_encoder)}, {type(pipe.unet)}, {type(pipe.unet_2)}, {type(pipe.unet_3)}]
    assert not residents.now


def test_a_request_that_fails_leaves_no_network_on_the_device(gallery, residents, monkeypatch) -> None:
    pipe = make_pipeline()
    pipe.enable_model_cpu_offload(device="cpu")
    monkeypatch.delattr("imagen_diffusers.web.gallery.Gallery.keep")
    answers = Answers(Worker(), Sampler(Models(lambda _: pipe, {"tiny": ""}, {}), gallery, LIMITS))
    with pytest.raises(Refused, match="failed on the server"):
        seen(answers, prompt="a red cube")
    assert residents.history and not residents.now


def test_another_model_takes_the_place_of_the_first(models, answers) -> None:
    one, two = (seen(answers, prompt="a red cube", seed=1, model=name)[-2].finished for name in ("tiny", "other"))
    assert Image.open(one).tobytes() != Image.open(two).tobytes()
    facts = asyncio.run(answers.facts("tiny"))
    assert (facts.sizes, facts.guidance) == ([16, 32, 64], 3.0)
    assert "sphere" in facts.words and "<pad>" not in facts.words
    with pytest.raises(Refused, match="no such model"):
        asyncio.run(answers.facts(["/etc"]))


# The gate.


def pass_gate(gallery: Gallery, method: str, path: str, body: bytes = b"", hosts=None, **headers: str) -> tuple[int, str]:
    """Status and body of what stands behind a gate with nothing but "ok" behind it."""
    replies = []

    async def behind(scope, receive, send) -> None:
        assert (await receive())["body"] == body
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def receive() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict) -> None:
        replies.append(message)

    told = {
        "host": "localhost:7860",
        "content-length": str(len(body)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in told.items()],
    }
    asyncio.run(Gate(behind, gallery, LIMITS, hosts)(scope, receive, send))
    return replies[0]["status"], replies[1]["body"].decode()


def test_the_gate_lets_the_page_through(gallery) -> None:
    path = gallery.keep(Image.new("RGB", (2, 2)), {"seed": 1})
    for known in ("/", "/config", "/assets/index.js", f"{API}queue/data", f"{API}heartbeat/abc", f"{API}file={path}"):
        assert pass_gate(gallery, "GET", known) == (200, "ok"), known
    assert pass_gate(gallery, "POST", f"{API}queue/join", json.dumps({"data": ["a", 7]}).encode()) == (200, "ok")
    assert pass_gate(gallery, "POST", f"{API}upload", b"anything") == (200, "ok")


@pytest.mark.parametrize(
    "path",
    [
        f"{API}file=/etc/passwd",
        f"{API}file=../../etc/passwd",
        f"{API}file=FOLDER/../secret.png",
        f"{API}file=FOLDER",
        f"{API}file=http://169.254.169.254/",
        f"{API}proxy=http://localhost/",
        f"{API}file/etc/passwd",
        f"{API}file=a\0b",
        "/monitoring/summary",
        "/gradio_api/run-history/records",
    ],
)
def test_no_file_but_the_pages_own_is_reachable(gallery, path) -> None:
    (gallery.folder.parent / "secret.png").write_bytes(b"secret")
    status, said = pass_gate(gallery, "GET", path.replace("FOLDER", str(gallery.folder)))
    assert status in (403, 404)
    assert "secret" not in said


def test_bodies_are_short_and_name_no_addresses(gallery) -> None:
    join = f"{API}queue/join"
    assert pass_gate(gallery, "POST", join, bytes(BODY_BYTES + 1))[0] == 413
    assert pass_gate(gallery, "POST", join, b"{}", content_length="")[0] == 411
    for path in (join, f"{API}upload"):  # chunks have any length, whatever is said of it
        assert pass_gate(gallery, "POST", path, b"{}", transfer_encoding="chunked")[0] == 411
    assert pass_gate(gallery, "POST", join, b"[" * 60_000)[0] == 400
    assert pass_gate(gallery, "POST", f"{API}upload", content_length=str(LIMITS.file_bytes + BODY_BYTES + 1))[0] == 413
    payload = {"data": [{"path": "http://169.254.169.254/", "meta": {"_type": "gradio.FileData"}}]}
    status, said = pass_gate(gallery, "POST", join, json.dumps(payload).encode())
    assert status == 400 and "files are sent to the page" in said
    assert pass_gate(gallery, "PUT", "/")[0] == 405


def test_a_name_that_was_made_to_lead_here_is_refused(gallery) -> None:
    assert pass_gate(gallery, "GET", "/", hosts=("localhost", "127.0.0.1")) == (200, "ok")
    assert pass_gate(gallery, "GET", "/", hosts=("localhost",), host="evil.example:7860")[0] == 403


def test_other_pages_in_the_same_browser_may_not_ask(gallery) -> None:
    ask = {"method": "POST", "path": f"{API}queue/join", "body": b"{}", "hosts": ("localhost",)}
    assert pass_gate(gallery, **ask, origin="http://localhost:7860") == (200, "ok")
    for other in ("https://evil.example", "http://localhost:3000", "null"):
        assert pass_gate(gallery, **ask, origin=other)[0] == 403
