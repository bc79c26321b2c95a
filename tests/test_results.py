"""Speeds in the docs are those of benchmarks/RESULTS.md."""

import re
from pathlib import Path

import pytest

from benchmarks.__main__ import PARTS, RESULTS, read

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"`python -m benchmarks\.(\w+)[^`]*`")
DECIMAL = re.compile(r"\d+\.\d+(?:e[-+]\d+)?")
SHARE = re.compile(r"(\d+) %")


def tables_of(text: str) -> list[tuple[str, str]]:
    """Sections in which a table follows the paragraph that names one benchmark of the file: its name, and the section."""
    found = []
    for section in re.split(r"\n## ", text):
        paragraphs = section.split("\n\n")
        for paragraph, after in zip(paragraphs, paragraphs[1:], strict=False):
            named = set(COMMAND.findall(paragraph)) & PARTS.keys()
            if len(named) == 1 and after.startswith("|"):
                found.append((named.pop(), section))
    return found


QUOTED = [(page.name, *quoted) for page in PAGES for quoted in tables_of(page.read_text("utf-8"))]


@pytest.mark.parametrize(("page", "part", "section"), QUOTED, ids=[f"{page}-{part}" for page, part, _ in QUOTED])
def test_a_section_has_no_number_that_its_benchmark_did_not_write(page, part, section) -> None:
    written = set(DECIMAL.findall(read(RESULTS)[part]))
    other = [number for number in DECIMAL.findall(section) if number not in written]
    assert not other, f"docs/{page} says {', '.join(other)}; make bench ONLY={part} wrote no such number into benchmarks/RESULTS.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_paragraph_has_no_share_that_the_benchmarks_it_names_did_not_write(page) -> None:
    for paragraph in page.read_text("utf-8").split("\n\n"):
        parts = set(COMMAND.findall(paragraph)) & {"layers", "operations", "stages"}
        written = {share for part in parts for share in SHARE.findall(read(RESULTS)[part])}
        other = [share for share in SHARE.findall(paragraph) if parts and share not in written]
        assert not other, (
            f"docs/{page.name} says {', '.join(other)} %; {' and '.join(parts)} wrote no such share into benchmarks/RESULTS.md"
        )


def test_pages_that_quote_speeds_are_found_and_all_parts_are_written() -> None:
    assert {part for _, part, _ in QUOTED} >= {"generate", "side_by_side", "tiles"}
    assert read(RESULTS).keys() == PARTS.keys()
    shown = re.findall(r"!\[.*?\]\((.*?)\)", RESULTS.read_text("utf-8"))
    assert len(shown) == 3 and all((RESULTS.parent / image).exists() for image in shown)


def test_a_number_of_another_machine_is_noticed() -> None:
    seconds = "## Seconds\n\nIn turns, by `python -m benchmarks.generate --runs 3`:\n\n| a |\n|---|\n| 1.25 |\n\nAnd 3.1e-05.\n\n"
    ((part, section),) = tables_of(seconds + "## Other\n\n4.5\n")
    assert part == "generate" and DECIMAL.findall(section) == ["1.25", "3.1e-05"]
