"""The system's Chromium, driven by Playwright, where both are there."""

import shutil

import pytest

# Returns what is wrong with a page for the eye and for a screen reader: text that is cut off or
# beyond the page, a contrast below 4.5, controls without a name. Disabled ones may be faint.
PROBLEMS = """() => {
  const parse = color => (color.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const backgroundOf = element => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(e).backgroundColor);
      if (a > 0.5) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const problems = [];
  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) problems.push(`the page is ${width} pixels wide`);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.textContent.trim() || element.closest("script, style, :disabled")) continue;
    if (!element.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    const style = getComputedStyle(element);
    const range = document.createRange();
    range.selectNodeContents(node);
    const name = node.textContent.trim().slice(0, 30);
    for (const box of range.getClientRects()) {
      if (!box.width) continue;
      for (let e = element; e; e = e.parentElement) {
        if (getComputedStyle(e).overflow === "visible" || e === document.body) continue;
        const outer = e.getBoundingClientRect();
        if (box.top < outer.top - 2 || box.bottom > outer.bottom + 2
            || box.left < outer.left - 2 || box.right > outer.right + 2)
          problems.push(`${name}: cut off by ${e.className}`);
      }
    }
    const levels = [parse(style.color), backgroundOf(element)].map(luminance);
    const contrast = (Math.max(...levels) + 0.05) / (Math.min(...levels) + 0.05);
    if (contrast < 4.5) problems.push(`${name}: contrast ${contrast.toFixed(2)}`);
  }
  for (const e of document.querySelectorAll("button, input, textarea, a, [role=slider]")) {
    const name = e.ariaLabel || e.textContent.trim() || e.title || e.labels?.length;
    if (e.checkVisibility() && !name) problems.push(`no name: ${e.outerHTML.slice(0, 120)}`);
  }
  return [...new Set(problems)];
}"""
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    """A Playwright browser; `browser.new_context().new_page()` gives a page of its own."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright here: pip install playwright"
    )
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("no Chromium on this machine; on Debian and Ubuntu: apt install chromium")
    with playwright.sync_playwright() as driver:
        # Without a sandbox, for root in a container has none; it opens the project's pages alone.
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def requests_of():
    """Give a function that watches a page, and returns a list of the URLs it asks for."""

    def watch(page):
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        return asked

    return watch
