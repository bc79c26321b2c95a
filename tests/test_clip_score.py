"""The CLIP score of a tiny CLIP against its own logits, its own processor and torchmetrics."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, ViTConfig, ViTModel

from imagen_diffusers.evaluation.clip import load_clip

from .conftest import WORDS, make_tokenizer, seeded

BLOCKS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {**BLOCKS, "vocab_size": 3 + len(WORDS), "max_position_embeddings": 8, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
PROMPTS = ["the blue sphere on the left", "a red cube", "green"]  # of the first and the last the cosine is negative


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("clip")
    vision = {**BLOCKS, "image_size": 32, "patch_size": 8}
    model, generator = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=12)), seeded(3)
    for name, weight in sorted(model.named_parameters()):  # what a new model draws differs among releases of transformers
        if "norm" not in name and name != "logit_scale":
            weight.data.normal_(0, 0.2, generator=generator)
    model.save_pretrained(place)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(processor, make_tokenizer()).save_pretrained(place)
    return place


def images(count: int = 3, side: int = 32) -> Tensor:
    return torch.randint(256, (count, 3, side, side), generator=seeded(2)) / 255


def cosines(folder: Path, given: Tensor, prompts: list[str]) -> Tensor:
    """By transformers alone: all images and all prompts, (B, P)."""
    processor, model = CLIPProcessor.from_pretrained(folder), CLIPModel.from_pretrained(folder).eval()
    opened = [Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()) for image in given]
    with torch.no_grad():
        told = model(**processor(text=prompts, images=opened, return_tensors="pt", padding=True))
    return told.logits_per_image / model.logit_scale.exp()


def test_the_score_is_the_networks_own_logits(folder) -> None:
    scores, wanted = load_clip(str(folder)).scores(images(), PROMPTS), cosines(folder, images(), PROMPTS).diagonal()
    assert (wanted < 0).tolist() == [True, False, True]
    torch.testing.assert_close(scores, 100 * wanted.clamp(min=0), rtol=0, atol=1e-4)


class Embedding(CLIPModel):
    """With embeddings as transformers 4 gave them, which torchmetrics 1.9 asks for."""

    def get_image_features(self, *args, **kwargs):
        return super().get_image_features(*args, **kwargs).pooler_output

    def get_text_features(self, *args, **kwargs):
        return super().get_text_features(*args, **kwargs).pooler_output


@pytest.mark.thorough
def test_the_score_is_that_of_torchmetrics(folder) -> None:
    """Its means become zero where they are negative, and here each image's score does, so they are compared one by one."""
    from torchmetrics.functional.multimodal import clip_score

    def theirs() -> tuple:
        return Embedding.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)

    scorer = load_clip(str(folder))
    for prompt in PROMPTS:
        scores = scorer.scores(images(), [prompt] * 3)
        for image, score in zip(images(), scores, strict=True):
            told = clip_score((image * 255).round().byte(), prompt, theirs)
            assert score.item() == pytest.approx(told.item(), abs=1e-4)


def test_an_image_is_scored_with_its_own_prompt_whatever_is_beside_it(folder) -> None:
    scorer = load_clip(str(folder))
    together = scorer.scores(images(), PROMPTS)
    alone = torch.cat([scorer.scores(image[None], [prompt]) for image, prompt in zip(images(), PROMPTS, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    assert scorer(images(), [{"prompt": prompt} for prompt in PROMPTS]) == {"CLIP score": together.tolist()}


def test_a_long_prompt_is_cut_with_a_warning(folder, caplog) -> None:
    scorer, prompt = load_clip(str(folder)), "a red cube left of the blue sphere on the green cube"
    score = scorer.scores(images(1), [prompt])
    assert caplog.messages == [f'{folder} reads 8 tokens of a prompt; this part was dropped: "sphere on the green cube"']
    assert torch.equal(score, scorer.scores(images(1), ["a red cube left of the blue"]))
    assert len(caplog.messages) == 1


def test_the_fingerprint_and_what_is_refused(folder, tmp_path) -> None:
    scorer = load_clip(str(folder))
    assert scorer.fingerprint == load_clip(str(folder)).fingerprint
    assert {"class": "CLIPModel", "resize": "antialiased bicubic"}.items() <= scorer.fingerprint.items()
    with pytest.raises(ValueError, match="3 images and 2 prompts"):
        scorer.scores(images(), PROMPTS[:2])
    ViTModel(ViTConfig(**BLOCKS, image_size=32, patch_size=8)).save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="is a vit; the CLIP score needs a CLIP"):
        load_clip(str(tmp_path / "vit"))
    with pytest.raises(ValueError, match='none" is not there'):
        load_clip(str(tmp_path / "none"))
