"""The server of the page, by gradio's own client and by what a browser never sends."""

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from imagen_diffusers.cli import app
from imagen_diffusers.images import read_settings
from imagen_diffusers.web.addresses import check_address
from imagen_diffusers.web.answers import Refused
from imagen_diffusers.web.limits import Limits
from imagen_diffusers.web.models import Models

from .conftest import make_pipeline

LIMITS = replace(Limits(), waiting=2, file_bytes=50_000)


def test_what_is_refused_is_shown_as_it_was_typed() -> None:
    """gradio makes HTML of an error: of a "<vase>" nothing would be seen."""
    from imagen_diffusers.web.clicks import _error  # imports gradio

    assert _error(Refused('the seed is "<vase> & 7"')).message == 'the seed is "&lt;vase&gt; &amp; 7"'


class Held:
    """Networks that wait until they are let go, so that requests stay at work as long as a test needs them to, and that are counted."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.steps = 0
        self.pipe = make_pipeline()
        forward = self.pipe.unet.forward

        def wait(*args, **kwargs):
            self.go.wait(60)
            self.steps += 1
            return forward(*args, **kwargs)

        self.pipe.unet.forward = wait


@pytest.fixture(scope="module")
def held() -> Held:
    return Held()


@pytest.fixture(scope="module")
def address(held) -> Iterator[str]:
    pytest.importorskip("gradio", reason='the page needs gradio: pip install -c constraints.txt -e ".[web]"')
    from imagen_diffusers.web import serving

    with serving.own_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_SHARE", "True")
        patch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
        patch.setattr("gradio.networking.setup_tunnel", lambda *_, **__: pytest.fail("a tunnel was made"))
        server = serving.Server(Models(lambda _: held.pipe, {"tiny": ""}, {}), folder, LIMITS, {})
        address, public = server.start("127.0.0.1")
        assert public is None
        yield address
        server.close()


@pytest.fixture
def client(address):
    return connect(address)


def connect(address: str):
    from gradio_client import Client

    return Client(address, download_files=False, verbose=False)


def ask(client, *own, prompt: str = "a red cube", count: int = 1, task: str = "/generate"):
    """A request of the server, with what its task asks for besides."""
    return client.submit(prompt, "7", count, "fast", 3.0, "tiny", *own, [], api_name=task)


def wait_for(job, *states: str) -> None:
    end = time.monotonic() + 60
    while job.status().code.name not in states:
        assert time.monotonic() < end, job.status()
        time.sleep(0.02)


@pytest.mark.thorough
def test_the_server_answers_with_images_that_hold_their_settings(client, tmp_path) -> None:
    import httpx

    status, stages, images, names, settings, download = ask(client).result(60)
    assert status == "done; seed 7"
    assert [one["caption"] for one in stages["value"]] == ["16px", "32px", "64px"]
    assert len(images) == len(names) == 1
    got = httpx.get(download["value"]["url"])
    (tmp_path / "image.png").write_bytes(got.content)
    assert {name: value for name, value in read_settings(tmp_path / "image.png").items() if value is not None} == settings
    assert settings["prompt"] == "a red cube"


@pytest.mark.thorough
def test_an_image_is_sent_and_enlarged(client, tmp_path) -> None:
    from gradio_client import handle_file

    Image.effect_noise((16, 16), 60).convert("RGB").save(tmp_path / "small.png")
    stages = ask(client, handle_file(tmp_path / "small.png"), 2, task="/enlarge").result(60)[1]
    assert [one["caption"] for one in stages["value"]] == ["32px"]  # twice is one stage's


@pytest.mark.thorough
def test_the_lines_for_programs_run_and_the_plain_route_is_closed(address, monkeypatch, tmp_path) -> None:
    import httpx

    page = (Path(__file__).parent.parent / "docs" / "web.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("http://127.0.0.1:7860", address), {})
    assert [Image.open(name).size for name in ("cube.png", "larger.png")] == [(64, 64), (64, 64)]
    assert read_settings(Path("cube.png"))["prompt"] == "a large cyan cube"
    assert httpx.post(f"{address}gradio_api/call/generate", json={"data": ["a red cube", "7"]}).status_code == 404


@pytest.mark.thorough
def test_requests_wait_in_line_more_are_refused_and_one_that_is_cancelled_stops_no_other(address, held) -> None:
    held.go.clear()
    clients = [connect(address) for _ in range(4)]
    first = ask(clients[0])
    wait_for(first, "PROCESSING", "ITERATING")
    second = ask(clients[1])
    wait_for(second, "IN_QUEUE")
    third = ask(clients[2])
    wait_for(third, "IN_QUEUE")
    with pytest.raises(Exception, match="Queue is full"):
        ask(clients[3]).result(60)
    second.cancel()
    refused = ask(clients[3], prompt="")
    wait_for(refused, "IN_QUEUE")
    held.go.set()
    assert first.result(60)[0] == third.result(60)[0] == "done; seed 7"
    with pytest.raises(Exception, match="the prompt is empty; say what to generate"):
        refused.result(60)
    assert refused.outputs()[-1][0] == "the prompt is empty; say what to generate"  # on the page, where a bare "Error" would stand


def steps_until_the_next(address: str, held: Held, before: int) -> int:
    """How many steps more than `before` are made until one more image is."""
    assert ask(connect(address)).result(60)[0] == "done; seed 7"
    return held.steps - before


@pytest.mark.thorough
def test_cancelling_ends_the_request_at_work_and_lets_the_next_begin(address, held) -> None:
    alone = steps_until_the_next(address, held, held.steps)
    held.go.clear()
    before = held.steps
    first = ask(connect(address), count=8)
    wait_for(first, "PROCESSING", "ITERATING")
    first.cancel()
    held.go.set()
    assert steps_until_the_next(address, held, before) < 4 * alone


@pytest.mark.thorough
def test_a_page_that_is_closed_ends_its_request(address, held) -> None:
    import httpx

    alone = steps_until_the_next(address, held, held.steps)
    held.go.clear()
    before = held.steps
    functions = httpx.get(f"{address}config").json()["dependencies"]
    generate = next(function["id"] for function in functions if function["api_name"] == "generate")
    body = {"data": ["a red cube", "7", 8, "fast", 3.0, "tiny", []], "fn_index": generate, "session_hash": "closed"}
    assert httpx.post(f"{address}gradio_api/queue/join", json=body).status_code == 200
    with httpx.stream("GET", f"{address}gradio_api/queue/data", params={"session_hash": "closed"}) as told:
        assert any("process_generating" in line for line in told.iter_lines())
    held.go.set()
    assert steps_until_the_next(address, held, before) < 4 * alone


def test_all_that_one_overtakes_are_counted() -> None:
    pytest.importorskip("httpx")
    from benchmarks.web import Answer, overtaken

    ends = {0: 3.0, 1: 4.0, 2: 5.0, 3: 2.0, 4: 6.0}  # by when they joined
    assert overtaken([Answer(0, joined, end) for joined, end in ends.items()]) == 3
    assert overtaken([Answer(0, joined, joined) for joined in ends]) == 0


@pytest.mark.parametrize(
    "path", ["/gradio_api/file=/etc/passwd", "/gradio_api/file=%2e%2e/%2e%2e/etc/passwd", "/assets/..%2f..%2f__init__.py"]
)
def test_no_file_of_the_server_is_reachable(address, path) -> None:
    import httpx

    got = httpx.get(address.rstrip("/") + path)
    assert got.status_code in (403, 404)
    assert "root:" not in got.text and "import" not in got.text


@pytest.mark.parametrize("size", [50_001, 200_000])
def test_files_that_are_too_large_are_refused_while_they_are_sent(address, size) -> None:
    import httpx

    got = httpx.post(f"{address}gradio_api/upload", files={"files": ("image.png", bytes(size), "image/png")})
    assert got.status_code == 413
    assert "at most" in got.text or "maximum allowed size of 50000 bytes" in got.text


def test_what_waits_in_line_is_not_run_past_it(address) -> None:
    import httpx

    config = httpx.get(f"{address}config").json()
    for function in config["dependencies"]:
        if function["queue"]:
            body = {"data": [], "fn_index": function["id"], "session_hash": "a"}
            assert httpx.post(f"{address}gradio_api/run/predict", json=body).status_code == 404


def test_an_image_of_the_gallery_that_is_no_longer_kept_is_said(address) -> None:
    import httpx

    functions = httpx.get(f"{address}config").json()["dependencies"]
    select = next(function["id"] for function in functions if function["targets"][0][1] == "select")
    body = {"data": [["0" * 32]], "fn_index": select, "session_hash": "a", "event_data": {"index": 0, "value": None}}
    got = httpx.post(f"{address}gradio_api/run/predict", json=body)
    assert (got.status_code, got.json()["error"]) == (500, "this image is no longer kept")


def test_what_is_dropped_in_and_no_image_goes_again(address) -> None:
    import httpx

    functions = httpx.get(f"{address}config").json()["dependencies"]
    looks = [function["id"] for function in functions if function["targets"][0][1] == "upload"]
    said = []
    for look in looks:
        paths = httpx.post(f"{address}gradio_api/upload", files={"files": ("image.png", b"no image", "image/png")}).json()
        body = {"data": [{"path": paths[0], "meta": {"_type": "gradio.FileData"}}], "fn_index": look, "session_hash": "a"}
        said.append(httpx.post(f"{address}gradio_api/run/predict", json=body).json()["data"])
    kinds = "is not an image that can be read; give a file of one of these kinds: PNG, JPEG, WEBP"
    assert said == [[f"the {name} {kinds}", None] for name in ("image", "mask", "image")]


@pytest.mark.thorough
def test_the_command_starts_the_page_and_leaves_nothing_behind(tmp_path, monkeypatch) -> None:
    pytest.importorskip("gradio")
    import httpx

    from imagen_diffusers.web import serving

    folders = []

    def visit() -> None:
        folders.append(Path(os.environ["GRADIO_TEMP_DIR"]))
        address = next(word for word in said() if word.startswith("http"))
        assert "a red cube" not in httpx.get(address).text
        assert folders[0].stat().st_mode & 0o077 == 0  # for its owner alone

    def said() -> list[str]:
        return " ".join(lines).split()

    lines: list[str] = []
    monkeypatch.setattr("typer.echo", lines.append)
    monkeypatch.setattr(serving, "wait", visit)
    make_pipeline().save_pretrained(tmp_path / "mine")
    result = CliRunner().invoke(app, ["web", "--model", str(tmp_path / "mine"), "--waiting", "3", "--preset", "fast"])
    assert result.exit_code == 0, result.output
    assert folders and not folders[0].exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nowhere"], '"nowhere" is not there'),
        (["--lora", "nowhere"], '"nowhere" is not there'),
        (["--preset", "slow"], '--preset is "slow"; choose quality or balanced or fast'),
        (["--model", "imagen-scenes", "--model", "imagen-scenes"], '--model names "imagen-scenes" twice'),
        (["--dtype", "int8"], '--dtype "int8" is unknown'),
        (["--offload", "disk"], '--offload "disk" is unknown'),
        (["--offload", "model", "--device", "cpu"], "--offload model keeps networks off a GPU"),
        (["--device", "warp"], '--device "warp" is not on this machine'),
        (["--host", "192.0.2.1"], "--host is 192.0.2.1, which is no address of this machine"),
    ],
)
def test_what_the_command_is_told_wrong_is_said_before_anything_is_served_or_missed(monkeypatch, words, message) -> None:
    leave_out_gradio(monkeypatch)
    result = CliRunner().invoke(app, ["web", *words])
    assert result.exit_code == 1
    assert message in result.output and "Traceback" not in result.output


def test_an_adapters_weight_is_one_that_the_page_asks_for(tmp_path) -> None:
    """Beyond its slider's end each click was refused until that was moved."""
    save_file({"unet.x": torch.zeros(1)}, tmp_path / "pytorch_lora_weights.safetensors")
    result = CliRunner().invoke(app, ["web", "--lora", f"{tmp_path}:3"])
    assert result.exit_code == 1
    assert f"the weight of --lora {tmp_path.name} is 3.0; give a number from -2 to 2" in result.output


def leave_out_gradio(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    for module in ("serving", "page"):
        monkeypatch.delitem(sys.modules, f"imagen_diffusers.web.{module}", raising=False)
        monkeypatch.delattr(f"imagen_diffusers.web.{module}", raising=False)


def test_without_gradio_the_command_says_what_to_install(monkeypatch) -> None:
    leave_out_gradio(monkeypatch)
    result = CliRunner().invoke(app, ["web"])
    assert result.exit_code == 1
    assert 'pip install "imagen_diffusers[web]" (in a clone: pip install -c constraints.txt -e ".[web]")' in result.output


def test_an_address_that_cannot_be_listened_on_is_said_before_anything_is_loaded(monkeypatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"--port {port} is taken by another program; give another one"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", None)
    check_address("0.0.0.0", None)
    with pytest.raises(OSError, match="--host is 192.0.2.1, which is no address of this machine"):  # of documentation's own network
        check_address("192.0.2.1", None)

    def unknown(*_, **__) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(OSError, match="--host is nowhere, which is no address"):
        check_address("nowhere", None)
