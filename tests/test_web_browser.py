"""The page as people see it, in the machine's own Chromium, with the bundled cascade."""

import pytest
from PIL import Image

from benchmarks import web_browser
from imagen_diffusers.images import read_settings

pytestmark = pytest.mark.slow
PROMPT = "a large red metal"


@pytest.fixture(scope="module")
def page():
    pytest.importorskip("gradio", reason='the page needs gradio: pip install -c constraints.txt -e ".[web]"')
    pytest.importorskip("playwright", reason='no browser is driven without playwright: pip install -c constraints.txt -e ".[browser]"')
    if web_browser.chromium() is None:
        pytest.skip(f"there is no Chromium on this machine, by none of the names {', '.join(web_browser.NAMES)}")
    with web_browser.served() as (address, _), web_browser.opened(address) as page:
        yield page


def generate_one(page, seed: int) -> None:
    web_browser.ask(page, f"{PROMPT} sphere", seed)
    wait_for_status(page, f"done; seed {seed}")


def status(page) -> str:
    return page.inner_text("#status")


def wait_for_status(page, text: str) -> None:
    page.wait_for_function(f"document.querySelector('#status').innerText.includes({text!r})")


def images(page) -> int:
    """How many the gallery shows."""
    return page.eval_on_selector_all("#images img", "found => found.length")


def download(page, path) -> dict:
    with page.expect_download() as started:
        page.click("#download")
    started.value.save_as(path)
    return read_settings(path)


def test_a_prompt_becomes_an_image_stage_after_stage(page, tmp_path) -> None:
    page.fill("#prompt textarea", PROMPT)
    page.click("#words label:has-text('sphere')")
    page.wait_for_function(f"document.querySelector('#prompt textarea').value == '{PROMPT} sphere'")
    page.fill("#seed input", "7")
    page.click("#generate")
    assert list(web_browser.seen(page)) == [64, 256, 1024]
    wait_for_status(page, "done; seed 7")
    assert images(page) == 1
    told = download(page, tmp_path / "image.png")
    assert Image.open(tmp_path / "image.png").size == (1024, 1024)
    assert (told["prompt"], told["seed"], told["model"]) == (f"{PROMPT} sphere", 7, "imagen-scenes")


def test_a_request_is_cancelled_and_makes_no_more_images(page) -> None:
    before = images(page)
    page.fill("#count input[type=number]", "8")  # a browser that shares its core with the server may be slow to click
    page.press("#count input[type=number]", "Tab")
    page.click("#generate")
    page.wait_for_selector("#status progress")
    page.click("#cancel")
    wait_for_status(page, "cancelled")
    made = images(page)
    assert made < before + 8
    page.wait_for_timeout(5000)
    assert status(page) == "cancelled"
    assert images(page) == made
    page.fill("#count input[type=number]", "1")
    page.press("#count input[type=number]", "Tab")


def test_the_images_are_there_after_a_reload(page, tmp_path) -> None:
    before = images(page)
    assert before >= 1
    page.reload()
    page.wait_for_selector("#images img")
    assert images(page) == before
    assert download(page, tmp_path / "again.png")["prompt"] == f"{PROMPT} sphere"


def test_what_is_wrong_is_said_in_a_sentence(page) -> None:
    page.fill("#prompt textarea", "")
    page.click("#generate")
    page.wait_for_selector(".toast-body >> text=the prompt is empty; say what to generate")
    assert status(page) == "the prompt is empty; say what to generate"


def test_a_file_that_is_no_image_is_refused_when_it_is_dropped_in(page, tmp_path) -> None:
    (tmp_path / "text.png").write_text("no image")
    page.click("role=tab[name='Enlarge']")
    page.set_input_files("#enlarge-image input[type=file]", tmp_path / "text.png")
    wait_for_status(page, "the image is not an image that can be read; give a file of one of these kinds: PNG, JPEG, WEBP")
    page.wait_for_selector("#enlarge-image >> text=Drop Image Here")


def test_an_image_is_dropped_in_and_enlarged(page, tmp_path) -> None:
    Image.effect_noise((256, 192), 60).convert("RGB").save(tmp_path / "small.png")
    page.fill("#prompt textarea", "a gray floor")
    page.click("role=tab[name='Enlarge']")
    page.set_input_files("#enlarge-image input[type=file]", tmp_path / "small.png")
    page.wait_for_selector("#enlarge-image img")
    before = images(page)
    page.fill("#scale input[type=number]", "2")
    page.press("#scale input[type=number]", "Tab")
    page.click("#enlarge")
    wait_for_status(page, "done")
    assert images(page) == before + 1
    assert download(page, tmp_path / "large.png")["task"] == "ImagenCascadeUpscalePipeline"
    assert Image.open(tmp_path / "large.png").size == (512, 384)


def test_two_tabs_keep_the_images_of_each_other(page) -> None:
    before = images(page)
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("#generate")
    page.click("role=tab[name='Generate']")
    for tab, seed in ((page, 11), (other, 12), (page, 13)):
        generate_one(tab, seed)
    other.reload()
    other.wait_for_function(f"document.querySelectorAll('#images img').length == {before + 3}")
    assert [f"{seed}: {PROMPT} sphere" for seed in (13, 12, 11)] == other.inner_text("#images").splitlines()[1:4]
    other.close()
