"""What would be uploaded, without a Hub."""

from types import SimpleNamespace

import huggingface_hub
import pytest

from imagen_diffusers.sharing import LEFT_HERE, HubSettings, push_folder, write_card


class Hub:
    """Remembers calls."""

    calls: dict = {}

    def __init__(self, token):
        self.calls["token"] = token

    def create_repo(self, name, exist_ok):
        return SimpleNamespace(repo_id=f"me/{name}")

    def upload_folder(self, **told):
        self.calls.update(told)
        return f"https://huggingface.co/{told['repo_id']}"


def test_checkpoints_and_logs_stay_here(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    folder = tmp_path / "my-style"
    assert push_folder(folder, HubSettings(push_to_hub=True, hub_token="t")) == "https://huggingface.co/me/my-style"
    assert Hub.calls["token"] == "t"
    names = ["unet/config.json", "README.md", "pytorch_lora_weights.safetensors", "checkpoint-3/model.safetensors", "logs/unet/events"]
    kept = list(huggingface_hub.utils.filter_repo_objects(names, ignore_patterns=Hub.calls["ignore_patterns"]))
    assert Hub.calls["ignore_patterns"] == LEFT_HERE
    assert kept == names[:3]


@pytest.mark.parametrize(
    ("kind", "words"), [("adapter", "load_lora_weights"), ("stage", 'subfolder="unet"'), ("cascade", 'from_pretrained("me/new")')]
)
def test_a_card_says_what_it_is_and_never_the_token(tmp_path, kind, words) -> None:
    settings = [HubSettings(hub_token="secret")]
    write_card(tmp_path, kind, base="a/b", slots=["unet"], network="Net", settings=settings, repo="me/new", picture="p.png")
    card = (tmp_path / "README.md").read_text()
    assert words in card
    assert "base_model: a/b" in card
    assert "![Pictures](p.png)" in card
    assert "secret" not in card
