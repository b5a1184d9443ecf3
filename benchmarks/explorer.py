"""How long does a step of explorer.html take, in headless Chromium? Median and 99th percentile.

A step is what happens when the point moves: decode, show the image, find the nearest test images.
Needs `pip install playwright` and `apt install chromium`.

Run it:
  python benchmarks/explorer.py                                the page in docs/
  python benchmarks/explorer.py runs/vae_fashion/explorer.html --steps 5000
"""

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, command_line, metrics  # noqa: E402

import time_to_quality  # noqa: E402

import numpy as np  # noqa: E402

# Milliseconds of each step on a path that winds over the whole plane, with a frame between them.
STEPS = """async (steps) => {
    const milliseconds = { decode: [], step: [] };
    const timed = (name, call) => {
        const before = performance.now();
        call();
        milliseconds[name].push(performance.now() - before);
    };
    for (let i = 0; i < steps; i++) {
        const code = { [across]: limit * Math.sin(0.05 * i), [up]: limit * Math.sin(0.0371 * i) };
        timed("step", () => move(code));
        timed("decode", () => decode(z));
        await new Promise(requestAnimationFrame);
    }
    return milliseconds;
}"""


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("page", nargs="?", type=Path, default=ROOT / "docs/explorer.html")
    parser.add_argument("--steps", type=command_line.whole(100), default=1_000)
    parser.add_argument("--results", type=Path, default=time_to_quality.RESULTS)
    args = parser.parse_args(argv)
    chromium = shutil.which("chromium")
    if not chromium or not importlib.util.find_spec("playwright"):
        raise UserError("needs two more: pip install playwright, and Debian's apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        options = {"executable_path": chromium, "args": ["--no-sandbox"]}
        browser = driver.chromium.launch(**options)
        page = browser.new_page()
        page.goto(args.page.resolve().as_uri())
        page.wait_for_selector("#manifold[data-drawn]", state="attached")
        milliseconds = page.evaluate(STEPS, args.steps)
        version = browser.version
        browser.close()
    rows = {
        name: {"median_ms": float(np.median(taken)), "p99_ms": float(np.quantile(taken, 0.99))}
        for name, taken in milliseconds.items()
    }
    metrics.print_table(rows)
    measured = {"steps": args.steps, "chromium": version, **rows}
    time_to_quality.store(args.results, "explorer", measured)


if __name__ == "__main__":
    command_line.start(main)
