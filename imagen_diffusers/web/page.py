"""The layout of the page."""

from typing import Any

import gradio as gr
from gradio.components import Component

from . import asked
from .answers import Answers
from .clicks import connect_choice, connect_dropped, connect_gallery, connect_tasks
from .facts import Facts
from .parts import Inputs, Page

TITLE = "Imagen on diffusers"
# A word that is clicked goes to the end of the prompt, in the browser alone.
ADD_WORD = "(prompt, word) => [word ? [prompt.trim(), word].filter(Boolean).join(' ') : prompt, null]"
STAGE_BUTTONS: Any = ["download", "fullscreen"]  # and not gradio's own, which sends the image away
CSS = """
#status progress { width: 100% }
#words input { display: none }
#words label { padding: 1px 6px; font-size: 13px }
#words label span { margin-left: 0 }
#status .wrap:has(> .error) { display: none }
"""


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
        connect_tasks(answers, page, shared, tasks, cancel)
        connect_choice(answers, settings.values["model"], words, settings.values["guidance"], settings.weights)
        for name, image in [(name, one) for _, own in tasks.values() for name, one in own.items() if isinstance(one, gr.Image)]:
            connect_dropped(answers, page, f"the {name}", image)
        connect_gallery(answers, page, blocks)
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
    weights = {
        name: gr.Slider(-bound, bound, facts.adapters.get(name, 0.0), step=0.05, label=f"LoRA: {name}", visible=name in facts.adapters)
        for name in models.adapters
    }
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
            scale = gr.Slider(1.5, asked.MAX_SCALE, value=4, step=0.5, label="How many times larger", elem_id="scale")
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
        names=gr.JSON([], visible=False),
        settings=gr.JSON(label="Settings of the image", max_height=240, elem_id="settings"),
        download=gr.DownloadButton("Download the PNG, which holds its settings", interactive=False, elem_id="download"),
    )
