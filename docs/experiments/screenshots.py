"""Pictures of a run's report.html as a browser shows it: light, dark, on a phone, on paper.

    python docs/experiments/screenshots.py docs/images [--run results/latest] [--whole]

Writes report-light.png, report-dark.png, report-phone.png and report-print.png. Without --run the run is that of the
tests (tests/fakes/html_run.py), whose figures are made up. Needs playwright and a chromium or google-chrome on PATH.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from bench.analysis.table import load
from bench.report.html import page

# Name, options of the browser's window, medium.
VIEWS: dict[str, tuple[dict[str, Any], str]] = {
    "light": ({"viewport": {"width": 1280, "height": 1500}, "color_scheme": "light"}, "screen"),
    "dark": ({"viewport": {"width": 1280, "height": 1500}, "color_scheme": "dark"}, "screen"),
    "phone": (
        {
            "viewport": {"width": 375, "height": 812},
            "color_scheme": "light",
            "device_scale_factor": 2,
            "is_mobile": True,
            "has_touch": True,
        },
        "screen",
    ),
    # A4 at 96 px to the inch.
    "print": ({"viewport": {"width": 794, "height": 1123}, "color_scheme": "light"}, "print"),
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def example(folder: Path) -> Path:
    """The run of the tests, from inside the folder: the page shows where the images are."""
    os.chdir(folder)
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "fakes"))
    import html_run

    return html_run.make(Path("run"), Path("data")).path


def take(page_file: Path, out: Path, whole: bool) -> None:
    """Writes the pictures into a folder; ``whole`` ones show the page from top to bottom."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is on PATH")
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        for name, (options, medium) in VIEWS.items():
            tab = browser.new_page(reduced_motion="reduce", **options)
            tab.emulate_media(media=medium)
            tab.goto(page_file.as_uri())
            for plot in tab.locator(".plot").all():
                plot.scroll_into_view_if_needed()
            for plot in tab.locator(".plot").all():
                plot.locator("svg").wait_for()
            if medium == "print":  # the margins of the style sheet's @page
                tab.evaluate("document.body.style.padding = '14mm 12mm'")
            # On a phone the results begin below the first screen.
            tab.evaluate("scrollTo(0, 0)")
            if name == "phone" and not whole:
                tab.evaluate("document.getElementById('results').scrollIntoView()")
            path = out / f"report-{name}.png"
            tab.screenshot(path=path, full_page=whole)
            print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
            tab.close()
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--whole", action="store_true")
    wanted = parser.parse_args()
    out = wanted.out.resolve()
    with tempfile.TemporaryDirectory() as folder:
        run = wanted.run or example(Path(folder))
        page_file = Path(folder) / "report.html"
        source = page.page(load(run))
        page_file.write_text(source, encoding="utf-8")
        take(page_file.resolve(), out, wanted.whole)


if __name__ == "__main__":
    main()
