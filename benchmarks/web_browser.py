"""How soon after a click the stages' images are seen in a browser, the machine's own Chromium; and a screenshot for the docs.

    python -m benchmarks.web_browser --screenshot docs/web.jpg

Of the bundled cascade as it is, loaded already. Needs `pip install -c constraints.txt -e ".[browser]"` and Chromium.
"""

import argparse
import os
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .ceilings import machine
from .timing import table
from .web import PROMPT, served

NAMES = ("chromium", "chromium-browser", "google-chrome")  # as distributions call it
PATIENCE = 600_000  # milliseconds
# Notes when an image of each width is first seen, in milliseconds since the last click on Generate.
WATCH = """
window.seen = {};
const images = () => [...document.querySelectorAll('#stages img')];
document.addEventListener('click', event => {
    if (!event.target.closest('#generate')) return;
    window.seen = {};
    window.former = new Set(images().map(image => image.src));
    window.clicked = performance.now();
}, true);
setInterval(() => images().filter(image => window.former && !window.former.has(image.src)).forEach(image => {
    if (image.complete && image.naturalWidth) window.seen[image.naturalWidth] ??= performance.now() - window.clicked;
}), 20);
"""


def chromium() -> str | None:
    """Where the machine's Chromium is, if it has one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def opened(address: str) -> Iterator[Any]:
    """A browser's page, of playwright, at this address."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
        page.set_default_timeout(PATIENCE)
        page.add_init_script(WATCH)
        page.goto(address)
        page.wait_for_selector("#generate")
        yield page
        browser.close()


def seen(page: Any, stages: int = 3) -> dict[int, float]:
    """Seconds from the click to each stage's image, by its width, in their order; waits until all are there."""
    page.wait_for_function(f"Object.keys(window.seen).length >= {stages}")
    told = {int(width): ms / 1000 for width, ms in page.evaluate("window.seen").items()}
    return dict(sorted(told.items(), key=lambda item: item[1]))


def ask(page: Any, prompt: str, seed: int) -> None:
    """Fill in the page, and click."""
    page.fill("#prompt textarea", prompt)
    page.fill("#seed input", str(seed))
    page.click("#generate")


def processor_seconds(pid: int) -> float:
    """That the process has used, on all cores together."""
    used = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")


def run(page: Any, pid: int, seed: int) -> dict[int, tuple[float, float]]:
    """Seconds from the click to each stage's image, by its width, and those of a processor that the server used until it was seen."""
    start = processor_seconds(pid)
    ask(page, PROMPT, seed)
    used = []
    for stage in (1, 2, 3):
        seen(page, stage)
        used.append(processor_seconds(pid) - start)
    page.wait_for_function(f"document.querySelector('#status').innerText.includes('done; seed {seed}')")
    return {width: (seconds, cpu) for (width, seconds), cpu in zip(seen(page).items(), used, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--screenshot", type=Path, help="Where to write one, after the last run.")
    args = parser.parse_args()
    with served() as (address, pid), opened(address) as page:
        runs = [run(page, pid, seed) for seed in range(7, 8 + args.runs)][1:]  # the first is a warm-up
        if args.screenshot is not None:
            page.screenshot(path=args.screenshot, type="jpeg", quality=80, full_page=True)
    rows = [[f"{width}px", *(f"{statistics.median(run[width][i] for run in runs):.2f}" for i in (0, 1))] for width in runs[0]]
    head = ["image", "seconds after the click", "of a processor"]
    print(f"{machine()}, median of {args.runs}\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
