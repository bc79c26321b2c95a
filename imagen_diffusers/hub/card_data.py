"""What all cards say of where weights come from."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache

from .places import is_hub_id

DEEPFLOYD_NETWORK, DEEPFLOYD_LICENSE = "UNet2DConditionModel", "deepfloyd-if-license"
UNKNOWN = "unknown"  # one of the Hub's own words for licences


def card_data(license: dict[str, str], bases: list[str], tags: list[str]) -> ModelCardData:
    """The header of a card: what the Hub sorts and filters by; its licence as of `inherited_license`."""
    return ModelCardData(
        **license,  # pyright: ignore[reportArgumentType]
        base_model=bases[0] if len(bases) == 1 else bases or None,
        library_name="imagen_diffusers",
        pipeline_tag="text-to-image",
        tags=["imagen", "text-to-image", "diffusers", *tags],
    )


def base_models(names: list[str | None]) -> list[str]:
    """Those names that are Hub ids, each once: what a card may call a base model."""
    return list(dict.fromkeys(name for name in names if name and is_hub_id(name) and not Path(name).exists()))


def inherited_license(base: str | None, networks: list[str], *, ask: bool = False, token: str | None = None) -> dict[str, str]:
    """The licence that weights made from others have: DeepFloyd IF's for its networks, else what the base's card says.

    As fields of a card's header: one that the Hub has no word for, "other", with its name and where it is to be read.

    Args:
        base, ask, token: as in `card_of`.
        networks: class names of the stages' networks.
    """
    if DEEPFLOYD_NETWORK in networks:
        return {"license": DEEPFLOYD_LICENSE}
    card = card_of(base, ask=ask, token=token)
    told = {} if card is None else card.data.to_dict()
    found = {name: told[name] for name in ("license", "license_name", "license_link") if told.get(name)}
    link = found.get("license_link")
    if link is not None and "://" not in link and base_models([base]):  # a file there
        found["license_link"] = f"https://huggingface.co/{base}/blob/main/{link}"
    return {"license": UNKNOWN, **found}


def card_of(base: str | None, *, ask: bool = False, token: str | None = None) -> ModelCard | None:
    """The card of a saved model; None where there is none, or none that can be read.

    Args:
        base: a folder or a Hub id; None for none.
        ask: whether to read a card on the Hub that is not in the cache.
        token: for that.
    """
    if base is None:
        return None
    path = Path(base) / "README.md"
    if not path.exists() and is_hub_id(base):
        cached = try_to_load_from_cache(base, "README.md")
        path = Path(cached) if isinstance(cached, str) else path
    if not path.exists() and not (ask and is_hub_id(base)):
        return None
    try:
        return ModelCard.load(path if path.exists() else base, token=token)
    except Exception:  # not ours to see, or no valid header, of which YAML tells in errors of its own
        return None
