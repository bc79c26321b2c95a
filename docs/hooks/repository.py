"""What the site shows of the repository outside docs/: README is its first page, and each file that a page links to is a page.

Links in the pages are those that GitHub follows: relative to the file they stand in. On the site they lead to the same file's page, so that
it needs neither the repository's address nor a network. mkdocs calls `on_files` and `on_page_markdown`.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import dirname, normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
FIRST = "README.md"
OUTSIDE = "repository/"  # on the site, the folder of what is not in docs/
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README, and the pages of all files that are linked to, from whichever page."""
    waiting = [FIRST, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    met = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            level = InclusionLevel.INCLUDED if path.endswith(".md") else InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, place_of(path), content=page_of(path), inclusion=level))
        new = [link for link in links_of(path) if link not in met and not link.startswith("docs/")]
        met.update(new)
        waiting += new
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let the links of a page lead to places on the site; one that leads nowhere stays, and mkdocs says so."""
    here = page.file.src_uri
    path = path_of(here)
    if not path.endswith(".md"):
        return markdown

    def led(match: re.Match[str]) -> str:
        target = normpath(f"{dirname(path)}/{match[1]}").lstrip("/")
        return relpath(place_of(target), dirname(here) or ".") if (ROOT / target).exists() else match[1]

    return LINK.sub(led, markdown)


def place_of(path: str) -> str:
    """Of a file or a folder of the repository, by its path there: the source file that mkdocs takes it to be."""
    if path == FIRST:
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"{OUTSIDE}{path}/files.md"
    return f"{OUTSIDE}{path}" if path.endswith(".md") else f"{OUTSIDE}{path}.md"


def path_of(place: str) -> str:
    """The way back; `files.md` of a folder stands for it."""
    if place == "index.md":
        return FIRST
    if not place.startswith(OUTSIDE):
        return f"docs/{place}"
    path = place.removeprefix(OUTSIDE)
    return path.removesuffix(".md") if (ROOT / path.removesuffix(".md")).is_file() else path


def page_of(path: str) -> str:
    """The text of a page: of a folder its files, of a page itself, of any other file its lines."""
    place = ROOT / path
    if place.is_dir():
        return f"# {path}\n\n" + "\n".join(f"- [{name}]({name})" for name in names_in(place)) + "\n"
    text = place.read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    return f"{UNSEARCHED}# {path}\n\n~~~~~~{place.suffix.lstrip('.') or 'text'}\n{text}\n~~~~~~\n"


def links_of(path: str) -> list[str]:
    """Paths of what a page links to; of a folder, its files."""
    place = ROOT / path
    if place.is_dir():
        return [f"{path}/{name}" for name in names_in(place)]
    if place.suffix != ".md":
        return []
    linked = {normpath(PurePosixPath(dirname(path), link).as_posix()) for link in LINK.findall(place.read_text(encoding="utf-8"))}
    return sorted(link for link in linked if (ROOT / link).exists())


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())
