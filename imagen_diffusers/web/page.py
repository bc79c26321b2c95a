"""The layout of the page, and which function answers which click."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from . import asked
from .answers import Answers, Refused, Shown
from .facts import Facts
from .gallery import MOST

TITLE = "Imagen on diffusers"
# A word that is clicked goes to the end of the prompt, in the browser alone.
ADD_WORD = "(prompt, word) => [word ? [prompt.trim(), word].filter(Boolean).join(' ') : prompt, null]"
STAGE_BUTTONS: Any = ["download", "fullscreen"]  # and not gradio's own, which sends the image away
CSS = """
#status progress { width: 100% }
#words input { display: none }
#words label { padding: 1px 6px; font-size: 13px }
#words label span { margin-left: 0 }
"""


@dataclass(frozen=True)
class Inputs:
    """The components that a request is read from.

    Args:
        values: by the names of `asked.Asked`.
        weights: of adapters, by their names.
    """

    values: Mapping[str, Component]
    weights: Mapping[str, Component]

    def listed(self) -> list[Component]:
        return [*self.values.values(), *self.weights.values()]

    def read(self, listed: Sequence[Any]) -> dict[str, Any]:
        """What a browser sent for the components, in the order of `listed`."""
        sent = dict(zip(self.values, listed, strict=False))
        return {**sent, "weights": dict(zip(self.weights, listed[len(self.values) :], strict=True))}


@dataclass(frozen=True)
class Page:
    """The components that answers change."""

    status: gr.HTML
    stages: gr.Gallery
    images: gr.Gallery
    names: gr.BrowserState  # of the images, for the gallery after a reload
    settings: gr.JSON
    download: gr.DownloadButton


def build(answers: Answers, facts: Facts, preset: str = asked.OWN_PRESET) -> gr.Blocks:
    """The page.

    Args:
        answers: to its clicks.
        facts: of the model it begins with.
        preset: that it begins with.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {TITLE}")
        with gr.Row():
            with gr.Column(scale=2):
                prompt, words = _prompt(answers, facts)
                tasks = _tasks(answers)
                cancel = gr.Button("Cancel", variant="stop", elem_id="cancel")
                settings = _settings(answers, facts, preset)
            with gr.Column(scale=3):
                page = _results()
        shared = Inputs({"prompt": prompt, **settings.values}, settings.weights)
        _connect(answers, page, shared, tasks, cancel)
        model: Any = settings.values["model"]
        facts_shown = [words, settings.values["guidance"]]
        model.change(_choose(answers), [model], facts_shown, **_in_line("model"), preprocess=False, api_visibility="private")
        _connect_gallery(answers, page, blocks)
    return blocks


def _prompt(answers: Answers, facts: Facts) -> tuple[gr.Textbox, gr.Radio]:
    """The prompt, and the words to click."""
    longest = answers.sampler.limits.prompt_characters
    prompt = gr.Textbox(label="Prompt", lines=2, max_length=longest, elem_id="prompt")
    words = gr.Radio(facts.words, label="Words it knows", visible=bool(facts.words), elem_id="words")
    words.input(None, [prompt, words], [prompt, words], js=ADD_WORD, api_visibility="private")
    return prompt, words


def _settings(answers: Answers, facts: Facts, preset: str) -> Inputs:
    """What all tasks ask for besides the prompt."""
    models, limits = answers.sampler.models, answers.sampler.limits
    with gr.Row():
        seed = gr.Textbox(label="Seed", placeholder="any", max_lines=1, max_length=10, elem_id="seed")
        count = gr.Slider(1, limits.images, value=1, step=1, label="Images", elem_id="count")
    with gr.Row():
        chosen = gr.Dropdown(list(asked.PRESETS), value=preset, label="Preset", elem_id="preset")
        guidance = gr.Slider(0, asked.MAX_GUIDANCE, value=facts.guidance, step=0.5, label="Guidance, first stage", elem_id="guidance")
    model = gr.Dropdown(list(models.names), value=models.names[0], label="Model", visible=len(models.names) > 1, elem_id="model")
    bound = asked.MAX_WEIGHT
    weights = {name: gr.Slider(-bound, bound, weight, step=0.05, label=f"LoRA: {name}") for name, weight in models.adapters.items()}
    return Inputs({"seed": seed, "count": count, "preset": chosen, "guidance": guidance, "model": model}, weights)


def _tasks(answers: Answers) -> dict[str, tuple[gr.Button, dict[str, Component]]]:
    """The button of each task, and what it asks for besides."""
    limits = answers.sampler.limits
    dropped = {"type": "filepath", "image_mode": None, "sources": ["upload", "clipboard"], "height": 220}
    note = f"PNG, JPEG or WebP, up to {limits.file_bytes // 2**20} MB"
    with gr.Tabs():
        with gr.Tab("Generate"):
            generate = gr.Button("Generate", variant="primary", elem_id="generate")
        with gr.Tab("Edit"):
            edit_image = gr.Image(label=f"Image to change ({note})", elem_id="edit-image", **dropped)
            mask = gr.Image(label="Mask, as large: white where it is painted anew (optional)", elem_id="mask", **dropped)
            strength = gr.Slider(0, 1, value=0.7, step=0.05, label="How much is changed, without a mask")
            edit = gr.Button("Edit", variant="primary", elem_id="edit")
        with gr.Tab("Enlarge"):
            enlarge_image = gr.Image(label=f"Image to enlarge ({note})", elem_id="enlarge-image", **dropped)
            scale = gr.Slider(1, asked.MAX_SCALE, value=4, step=0.5, label="How many times larger", elem_id="scale")
            enlarge = gr.Button("Enlarge", variant="primary", elem_id="enlarge")
    return {
        "generate": (generate, {}),
        "edit": (edit, {"image": edit_image, "mask": mask, "strength": strength}),
        "enlarge": (enlarge, {"image": enlarge_image, "scale": scale}),
    }


def _results() -> Page:
    return Page(
        status=gr.HTML(label="Status", elem_id="status", min_height=40),
        stages=gr.Gallery(label="Stages", elem_id="stages", preview=True, object_fit="contain", height=560, buttons=STAGE_BUTTONS),
        images=gr.Gallery(label="Images", elem_id="images", columns=6, fit_columns=False, height=150, allow_preview=False, buttons=[]),
        names=gr.BrowserState([], storage_key="imagen-diffusers", secret="imagen-diffusers"),
        settings=gr.JSON(label="Settings of the image", max_height=240, elem_id="settings"),
        download=gr.DownloadButton("Download the PNG, which holds its settings", interactive=False, elem_id="download"),
    )


def _in_line(name: str) -> dict[str, Any]:
    """What all events that the worker answers have: they wait in one line, for everybody, one at work at a time."""
    return {"concurrency_id": "worker", "concurrency_limit": 1, "api_name": name}


def _connect(answers: Answers, page: Page, shared: Inputs, tasks: dict[str, Any], cancel: gr.Button) -> None:
    """Let each button ask for its task, and one cancel them."""
    running = []
    outputs = [page.status, page.stages, page.images, page.names, page.settings, page.download]
    how = {"preprocess": False, "show_progress_on": [page.status], "outputs": outputs}
    for task, (button, own) in tasks.items():
        inputs = Inputs({**shared.values, **own}, shared.weights)
        running.append(button.click(_images(answers, page, task, inputs), [*inputs.listed(), page.names], **how, **_in_line(task)))
    ended = cancel.click(None, cancels=running, queue=False, api_visibility="private")
    ended.then(lambda: "cancelled", None, page.status, queue=False, api_visibility="private")


def _images(answers: Answers, page: Page, task: str, inputs: Inputs) -> Callable[..., Any]:
    """What answers a button."""

    async def images(*values: Any) -> AsyncGenerator[dict[Component, Any], None]:
        *given, kept = values
        changed: dict[Component, Any] = {}
        try:
            async with aclosing(answers.images(task, inputs.read(given))) as shown:
                async for one in shown:
                    if one.finished is not None:
                        kept = _with(answers, kept, one)
                    changes = _changes(answers, page, one, kept)
                    changed |= {component: copy(change) for component, change in changes.items()}  # gradio takes updates apart
                    yield changes
        except Refused as refused:
            raise gr.Error(str(refused), duration=None, print_exception=False) from None  # to be read for as long as it takes
        yield changed  # all of it, for programs that wait for the end

    names = [*inputs.values, *(f"weight_{i + 1}" for i in range(len(inputs.weights))), "kept"]
    images.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names])  # pyright: ignore
    return images


def _with(answers: Answers, kept: Any, shown: Shown) -> list[str]:
    gallery = answers.sampler.gallery
    assert shown.finished is not None
    return [gallery.name(shown.finished), *map(gallery.name, gallery.remembered(kept))][:MOST]


def _changes(answers: Answers, page: Page, shown: Shown, kept: Any) -> dict[Component, Any]:
    """What a step changes on the page, by component."""
    changes: dict[Component, Any] = {page.status: shown.status}
    if shown.stages is not None:
        captioned = [(str(path), f"{width}px") for path, width in shown.stages]
        changes[page.stages] = gr.update(value=captioned, selected_index=len(captioned) - 1 if captioned else None)
    if shown.finished is not None:
        images = _captioned(answers, answers.sampler.gallery.remembered(kept))
        changes |= {page.names: kept, page.images: images, **_chosen(answers, page, shown.finished)}
    return changes


def _captioned(answers: Answers, paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Images of the gallery, each with its seed and prompt."""
    told = {path: answers.sampler.gallery.settings(path) for path in paths}
    return [(str(path), f"{settings['seed']}: {settings['prompt'] or 'no prompt'}") for path, settings in told.items()]


def _chosen(answers: Answers, page: Page, path: Path) -> dict[Component, Any]:
    """The settings of one image of the gallery, and its file."""
    told = answers.sampler.gallery.settings(path)
    shown = {name: value for name, value in {"prompt": told["prompt"], "seed": told["seed"], **told}.items() if value is not None}
    return {page.settings: shown, page.download: gr.update(value=str(path), interactive=True)}


def _large(answers: Answers, page: Page, path: Path) -> dict[Component, Any]:
    """One image of the gallery in the place of the stages, with its settings and its file."""
    return {page.stages: gr.update(value=_captioned(answers, [path]), selected_index=0), **_chosen(answers, page, path)}


def _connect_gallery(answers: Answers, page: Page, blocks: gr.Blocks) -> None:
    """Let the images of this browser be there after a reload, and each be looked at."""

    def load(kept: Any) -> dict[Component, Any]:
        paths = answers.sampler.gallery.remembered(kept)
        return {page.images: _captioned(answers, paths), **(_large(answers, page, paths[0]) if paths else {})}

    def select(kept: Any, event: gr.SelectData) -> dict[Component, Any]:
        paths = answers.sampler.gallery.remembered(kept)
        if event.index not in range(len(paths)):
            raise gr.Error("this image is no longer kept", print_exception=False)
        return _large(answers, page, paths[event.index])

    outputs = [page.stages, page.images, page.settings, page.download]
    how = {"preprocess": False, "queue": False, "api_visibility": "private"}
    blocks.load(load, [page.names], outputs, **how)
    page.images.select(select, [page.names], outputs, **how)


def _choose(answers: Answers) -> Callable[..., Any]:
    async def choose(name: Any) -> tuple[Any, float]:
        try:
            facts = await answers.facts(name)
        except Refused as refused:
            raise gr.Error(str(refused), duration=None, print_exception=False) from None
        return gr.update(choices=facts.words, visible=bool(facts.words), value=None), facts.guidance

    return choose
