"""Where things are that have a name: folders that come with the package, folders of one's own, and repositories on the Hub."""

from pathlib import Path
from typing import Any

# The kinds of bundled folders: where they stand, and the file that makes a folder one of them.
BUNDLED_KINDS = {
    "pipelines": ("pipelines", "model_index.json"),
    "presets": ("schedulers", "sampling_preset.json"),
    "schedulers": ("schedulers", "scheduler_config.json"),
}
NOT_IN_WHEELS = {"imagen-emoji"}


def bundled(name: str) -> Path:
    """The Hub-layout folder of this name: `ImagenCascadePipeline.from_pretrained(bundled("imagen-scenes"))`.

    In an installed wheel the folders lie inside the package, in a clone or an editable install beside it. diffusers' own `AutoModel` takes
    no `Path`, and `str` of this one.

    Raises:
        ValueError: for a name that is not bundled; the message lists those that are.
    """
    there = _bundled_folders(tuple(BUNDLED_KINDS))
    if name not in there:
        _refuse_left_out(name)
        names = "; ".join(f"{kind} {', '.join(sorted(_bundled_folders((kind,))))}" for kind in BUNDLED_KINDS)
        raise ValueError(f'"{name}" is not bundled; these are: {names}')
    return there[name]


def find(name: str, kinds: tuple[str, ...] = tuple(BUNDLED_KINDS)) -> str:
    """What a user calls a model, an adapter or a preset, as the folder, file or Hub id that it stands for. Asks no network.

    A path that is there goes before the name of a bundled folder.

    Args:
        name: as given.
        kinds: of bundled folders that will do, of `BUNDLED_KINDS`; none for what is never bundled.

    Raises:
        ValueError: for a name that can be none of them.
    """
    if name and Path(name).exists():
        return name
    there = _bundled_folders(kinds)
    if name in there:
        return str(there[name])
    if is_hub_id(name):
        return name
    if "pipelines" in kinds:
        _refuse_left_out(name)
    known = f"not bundled ({', '.join(sorted(there))}), " if there else ""
    raise ValueError(f'"{name}" is not there: it is no path, {known}and no Hub id, which has the form "user/name"')


def find_and_fetch(name: str, files: list[str], kinds: tuple[str, ...] = (), **hub: Any) -> tuple[str, Path]:
    """What `find` finds, seen to be there before anything large is loaded, and where it is on this machine.

    Args:
        name, kinds: as of `find`.
        files: of a Hub id, those to fetch; patterns, of files at the repository's root, of which one match is wanted, or paths of others.
        hub: of a Hub id, `revision`, a branch, a tag or a commit, and whatever else `snapshot_download` takes.

    Returns:
        The path or Hub id, which any `from_pretrained` takes; and the same path, or the repository's folder in the cache.

    Raises:
        ValueError: as `find`; for a repository that is not there or not to be seen, and one without such files; where the Hub cannot be
            reached, for one that is not in the cache.
    """
    place = find(name, kinds)
    return place, Path(place) if Path(place).exists() else _fetched(place, files, **hub)


def _fetched(hub_id: str, files: list[str], revision: str | None = None, **hub: Any) -> Path:
    """The folder of a repository in the cache, with those of its files that match; the Hub is asked once, and not again and again."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        ignored = None if any("/" in file for file in files) else ["*/*"]
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=files, ignore_patterns=ignored, **hub))
    except GatedRepoError:
        raise ValueError(f'"{hub_id}" on the Hub asks for an agreement: accept it on its page, and log in with hf auth login') from None
    except RepositoryNotFoundError:
        raise ValueError(f'"{hub_id}" is no path here and not on the Hub, or private; see to its name, or hf auth login') from None
    except RevisionNotFoundError:
        raise ValueError(f'"{hub_id}" on the Hub has no revision "{revision}"') from None
    except LocalEntryNotFoundError:
        raise ValueError(f'"{hub_id}" is no path here, and not in the cache; the Hub, where it might be, cannot be reached') from None
    if not any(path for pattern in files for path in folder.glob(pattern)):
        raise ValueError(f'"{hub_id}" on the Hub, or what the cache has of it, holds no {" or ".join(files)}')
    return folder


def is_hub_id(name: str) -> bool:
    """Whether a name has the form "user/name"."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def _refuse_left_out(name: str) -> None:
    if name in NOT_IN_WHEELS:
        raise ValueError(f'"{name}" is left out of installed packages for its size: clone the repository, and give its pipelines/{name}')


def _bundled_folders(kinds: tuple[str, ...]) -> dict[str, Path]:
    package = Path(__file__).resolve().parent.parent
    found: dict[str, Path] = {}
    for root in (package.parent, package / "hub_data"):  # the second one, in a wheel, goes first
        for place, file in (BUNDLED_KINDS[kind] for kind in kinds):
            found |= {path.parent.name: path.parent for path in (root / place).glob(f"*/{file}")}
    return found
