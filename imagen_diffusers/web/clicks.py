"""Which function answers which click."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from copy import copy
from html import escape
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from .answers import Answers, Refused, Shown
from .gallery import MOST
from .parts import Inputs, Page

AT_ONCE: dict[str, Any] = {"preprocess": False, "queue": False, "api_visibility": "private"}  # without waiting in line
# The names of a browser's images are in its own storage. A tab adds its new image to what is there by then, which other tabs may have
# added to, and gradio's own state of a browser, which writes a tab's whole list, would lose theirs.
STORED = """
    const place = "imagen-diffusers-images";
    let stored = [];
    try { stored = JSON.parse(localStorage.getItem(place)) } catch {}
    if (!Array.isArray(stored)) stored = [];
"""
RECALL = f"() => {{ {STORED} return [stored] }}"
REMEMBER = f"""(names) => {{ {STORED}
    if (names?.length && !stored.includes(names[0])) {{
        try {{ localStorage.setItem(place, JSON.stringify([names[0], ...stored].slice(0, {MOST}))) }} catch {{}}
    }}
}}"""


def connect_tasks(answers: Answers, page: Page, shared: Inputs, tasks: dict[str, Any], cancel: gr.Button) -> None:
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
            yield {page.status: escape(str(refused))}
            raise _error(refused) from None
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


def connect_gallery(answers: Answers, page: Page, blocks: gr.Blocks) -> None:
    """Let the images of this browser be there after a reload, and each be looked at."""

    def load(kept: Any) -> dict[Component, Any]:
        paths = answers.sampler.gallery.remembered(kept)
        names = [answers.sampler.gallery.name(path) for path in paths]
        return {page.names: names, page.images: _captioned(answers, paths), **(_large(answers, page, paths[0]) if paths else {})}

    def select(kept: Any, event: gr.SelectData) -> dict[Component, Any]:
        paths = answers.sampler.gallery.remembered(kept)
        if event.index not in range(len(paths)):
            raise gr.Error("this image is no longer kept", print_exception=False)
        return _large(answers, page, paths[event.index])

    outputs = [page.stages, page.images, page.settings, page.download]
    blocks.load(load, [page.names], [page.names, *outputs], js=RECALL, **AT_ONCE)
    page.names.change(None, [page.names], None, js=REMEMBER, api_visibility="private")
    page.images.select(select, [page.names], outputs, **AT_ONCE)


def connect_dropped(answers: Answers, page: Page, name: str, image: gr.Image) -> None:
    """Let what is dropped in and is no image that can be read go again, with a sentence, before a request is made of it."""

    def look(payload: Any) -> tuple[Any, Any]:
        gallery = answers.sampler.gallery
        try:
            gallery.look(name, gallery.uploaded(name, payload))
        except ValueError as error:
            return escape(str(error)), None
        return gr.skip(), gr.skip()

    image.upload(look, [image], [page.status, image], **AT_ONCE)


def connect_choice(answers: Answers, model: Any, words: Component, guidance: Component, weights: Mapping[str, Component]) -> None:
    """Let a model that is chosen be loaded, and what there is to choose from then be its own.

    Args:
        words, guidance: what begins anew with it.
        weights: of adapters by name, of which those are shown that are for it; the others are 0.
    """

    async def choose(name: Any) -> dict[Component, Any]:
        try:
            facts = await answers.facts(name)
        except Refused as refused:
            raise _error(refused) from None
        offered = {weights[name]: gr.update(visible=name in facts.adapters, value=facts.adapters.get(name, 0.0)) for name in weights}
        return {words: gr.update(choices=facts.words, visible=bool(facts.words), value=None), guidance: facts.guidance, **offered}

    model.change(choose, [model], [words, guidance, *weights.values()], **_in_line("model"), preprocess=False, api_visibility="private")


def _in_line(name: str) -> dict[str, Any]:
    """What all events that the worker answers have: they wait in one line, for everybody, one at work at a time."""
    return {"concurrency_id": "worker", "concurrency_limit": 1, "api_name": name}


def _error(refused: Refused) -> gr.Error:
    """To be read for as long as it takes; gradio shows it as HTML."""
    return gr.Error(escape(str(refused), quote=False), duration=None, print_exception=False)
