"""The page of app.py, driven in a browser as a person would."""

import io
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import numpy as np
import pypdfium2
import pytest
from browser import PROBLEMS
from conftest import ROOT, python
from PIL import Image
from skimage import data as skimage_data

from common import metrics, noise, training
from evaluation.denoise_fashion import fit_outlier_median
from synthetic import clothes, digits, pages
from tools.scans.files import read_first_page

pytest.importorskip("gradio", reason="no Gradio here: pip install -r requirements-app.txt")

TABS = ["Clean a scan", "Remove noise", "Latent plane", "Hide a message", "Five autoencoders"]
PROGRESS = re.compile(r"^\s*[1-9]\d?\.\d%")
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
JFIF = b"\xff\xd8\xff\xe0\0\x10JFIF"  # the beginning of a JPEG
WITHOUT_PACKAGE = """
import runpy, sys
sys.modules["{}"] = None
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.mark.parametrize("package", ["gradio", "matplotlib"])
def test_without_a_package_one_line_says_what_to_install(package):
    done = python("-c", WITHOUT_PACKAGE.format(package), cwd=ROOT)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "pip install -r requirements-app.txt" in done.stderr.splitlines()[-1]


def start(folder, *arguments, stderr=subprocess.DEVNULL):
    """Start app.py with a folder for everything temporary, and return the process."""
    return subprocess.Popen(
        [sys.executable, "app.py", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


@pytest.fixture(scope="module")
def app(browser, tmp_path_factory):
    """The running app: its process, its address, its temporary folder."""
    folder = tmp_path_factory.mktemp("temporary")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start(folder, "--port", str(port))
    try:
        line = process.stdout.readline()
        assert line == f"Open http://127.0.0.1:{port}/ in a browser. Ctrl-C ends it.\n", line
        yield process, f"http://127.0.0.1:{port}", folder
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def visit(app, browser, requests_of):
    """Give a function that opens a tab of the page, each time as another visitor."""
    _, url, _ = app
    contexts, requests = [], []

    def open_tab(name, size=(1280, 1400)):
        viewport = {"width": size[0], "height": size[1]}
        contexts.append(browser.new_context(viewport=viewport))
        page = contexts[-1].new_page()
        page.set_default_timeout(180_000)  # a slow machine is no failure
        requests.append(requests_of(page))
        page.goto(url)
        page.get_by_role("tab", name=name).click()
        page.locator("input[type=file]:visible, button:visible").first.wait_for()
        return page

    yield open_tab
    for context in contexts:
        context.close()
    hosts = {urlsplit(each).netloc for each in itertools.chain(*requests) if each[:4] == "http"}
    assert hosts == {urlsplit(url).netloc}


def upload(page, path):
    page.locator("[role=tabpanel]:visible input[type=file]").first.set_input_files(path)


def click_sample(page, number):
    page.locator("button.gallery-item:visible").nth(number).click()


def block_of(page, label):
    """Return the block of the picture whose label matches, once the picture is there."""
    block = page.locator(".block:visible", has=page.get_by_text(re.compile(label)))
    block.locator("img").first.wait_for()
    return block


def pictures_of(page, label):
    """Return the pictures of a block, gray levels of shape (height, width)."""
    pictures = block_of(page, label).locator("img")
    urls = pictures.evaluate_all("pictures => pictures.map(picture => picture.src)")
    files = [io.BytesIO(page.request.get(url).body()) for url in urls]
    return [np.asarray(Image.open(file).convert("L")) for file in files]


def value_when(page, label, pattern):
    """Wait until the content of a text field matches, and return it."""
    field = page.get_by_label(label, exact=True)
    page.wait_for_function(
        "([field, pattern]) => new RegExp(pattern).test(field.value)",
        arg=[field.element_handle(), pattern],
    )
    return field.input_value()


def wait_for_progress(page):
    """Wait until some of the work, but not all, is done."""
    page.get_by_text(PROGRESS).wait_for()


def remove(page):
    """Remove the uploaded file."""
    page.get_by_label("Clear").first.click()


def assert_empty(page):
    """Check that nothing of a previous file is shown or can be downloaded."""
    assert page.locator("[role=tabpanel]:visible .image-container img").count() == 0
    for button in page.get_by_role("button", name="Download").all():
        assert button.is_disabled()


def scan(path, copies=1):
    """Write a dirty page of 420x600 pixels as an image file, repeated in both directions."""
    [(dirty, *_)] = pages.make_pages(1, seed=7, height=600, width=420, scale=1)
    Image.fromarray(np.tile(dirty[..., 0], (copies, copies))).save(path)


def test_a_page_of_a_pdf_is_cleaned_and_keeps_its_resolution(visit, tmp_path):
    [(dirty, clean, *_)] = pages.make_pages(1, seed=7, height=600, width=420, scale=1)
    first, second = (Image.fromarray(pixels[..., 0]) for pixels in (dirty, clean))
    options = {"save_all": True, "append_images": [second], "resolution": 150, "quality": 95}
    first.save(tmp_path / "two pages.pdf", **options)
    page = visit("Clean a scan")
    upload(page, tmp_path / "two pages.pdf")
    assert "420x600 pixels, 150 dpi" in value_when(page, "The cleaned file", "dpi")
    assert block_of(page, "Before and after").locator("img").count() == 2
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "two pages.pdf"
    download.value.save_as(tmp_path / "cleaned.pdf")
    with pypdfium2.PdfDocument(tmp_path / "cleaned.pdf") as pdf:
        assert len(pdf) == 1
    cleaned = read_first_page(tmp_path / "cleaned.pdf")
    assert cleaned.dpi == pytest.approx((150, 150))
    error = np.square(cleaned.pixels[..., :1] - clean.astype(float)).mean()
    assert error < np.square(dirty - clean.astype(float)).mean() / 4


def test_noise_is_removed_from_the_middle_of_a_photo(visit, tmp_path):
    image = skimage_data.camera()
    Image.fromarray(image).save(tmp_path / "camera.png")
    page = visit("Remove noise")
    upload(page, tmp_path / "camera.png")
    clean = image[np.newaxis, 56:456, 56:456, np.newaxis] / np.float32(255)
    drawn = clothes.clothes(200, seed=1)[0][..., np.newaxis] / np.float32(255)
    outlier_median = fit_outlier_median(noise.salt_and_pepper(drawn, 0.1, seed=1), drawn)
    for amount in (0.1, 0.3):
        slider = page.get_by_label("number input for Amount", exact=False)
        slider.fill(str(amount))
        slider.blur()
        noisy = noise.salt_and_pepper(clean, amount, training.seed_for("app"))
        for name, result in {"noisy": noisy, "outlier median": outlier_median(noisy)}.items():
            label = f"{name}: {metrics.psnr(clean, result):.1f} dB"
            shown = pictures_of(page, re.escape(label))[0]
            np.testing.assert_array_equal(shown, np.round(result[0, ..., 0] * 255))
    block_of(page, r"network: \d")
    assert value_when(page, "What is shown", ".") == "The middle 400x400 pixels"


@pytest.mark.parametrize("size", SIZES)
def test_a_drag_over_the_plane_needs_no_answer_from_the_server(visit, requests_of, size):
    page = visit("Latent plane", SIZES[size])
    frame = page.frame_locator("iframe")
    frame.locator("html[data-ready]").wait_for(state="attached")
    assert frame.locator("html").evaluate("html => html.scrollWidth <= innerWidth")
    assert frame.locator("html").evaluate("html => html.scrollHeight <= innerHeight")
    plane = frame.locator("#plane")
    plane.scroll_into_view_if_needed()
    box, asked = plane.bounding_box(), requests_of(page)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    before = frame.locator("#code").inner_text()
    for step in range(1, 6):
        page.mouse.move(box["x"] + box["width"] / 2 + 10 * step, box["y"] + box["height"] / 2)
    page.mouse.up()
    assert np.abs([float(z.replace("−", "-")) for z in before.split(",")]).max() < 0.05
    assert float(frame.locator("#code").inner_text().split(",")[0]) > 0.3
    assert not [url for url in asked if url.startswith("http")]


def test_a_visitors_clothes_are_encoded_and_varied(visit):
    page = visit("Latent plane")
    click_sample(page, 0)
    assert re.match(r"z = \(-?\d\.\d\d, ", value_when(page, "The code of yours", r"z = \("))
    sheet = pictures_of(page, "Yours, and variations")[0]
    factor = sheet.shape[0] // (3 * 28)
    images, labels = clothes.clothes(60, seed=1)
    original = images[labels == 0][0]
    np.testing.assert_array_equal(sheet[::factor, ::factor][:28, :28], original)


def test_a_message_survives_damage_for_those_who_have_the_key(visit, tmp_path):
    Image.fromarray(skimage_data.coffee()).save(tmp_path / "coffee.png")
    page = visit("Hide a message")
    page.get_by_label("Message", exact=True).fill("håll ut ☂")
    page.get_by_label("Key", exact=False).fill("secret")
    upload(page, tmp_path / "coffee.png")
    value_when(page, "The marked photo", "dB")
    for name, value in (("JPEG quality", "70"), ("Crop", "60")):
        slider = page.get_by_label(f"number input for {name}", exact=False)
        slider.fill(value)
        slider.blur()
    page.get_by_role("button", name="Damage and read").click()
    assert value_when(page, "Message that was read", "håll") == "håll ut ☂"
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    download.value.save_as(tmp_path / "marked.png")
    page.get_by_label("Key", exact=False).fill("another")
    page.get_by_role("button", name="Damage and read").click()
    value_when(page, "Message that was read", "No message found")
    marked = np.asarray(Image.open(tmp_path / "marked.png"))
    change = marked.astype(float) - skimage_data.coffee()
    assert 0 < np.square(change).mean() < 255**2 * 10 ** (-36 / 10)
    other = visit("Hide a message")
    other.get_by_label("Key", exact=False).fill("secret")
    other.locator("[role=tabpanel]:visible input[type=file]").nth(1).set_input_files(
        tmp_path / "marked.png"
    )
    assert value_when(other, "Message that was read", "håll") == "håll ut ☂"
    assert other.get_by_label("The marked photo").input_value() == ""


def test_two_visitors_at_once_each_get_their_own_digit(visit, tmp_path):
    images, _ = digits.digits(2, seed=5)
    visitors = []
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        visitors.append(visit("Five autoencoders"))
    for number, page in enumerate(visitors):  # the second before the first has an answer
        upload(page, tmp_path / f"{number}.png")
    for page, image in zip(visitors, images, strict=True):
        rebuilt = pictures_of(page, r"linear, .* MSE")[0]
        factor = rebuilt.shape[0] // 28
        np.testing.assert_array_equal(pictures_of(page, "picture")[0][::factor, ::factor], image)
        error = metrics.mse(image / 255, rebuilt[::factor, ::factor] / 255)
        text = block_of(page, r"linear, .* MSE").inner_text()
        assert float(text.split("MSE")[1]) == pytest.approx(error, abs=2e-4)
        assert error < 0.05


@pytest.mark.parametrize(
    ("tab", "status", "name", "content", "message"),
    [
        ("Clean a scan", "The cleaned file", "a.pdf", b"%PDF-1.7 nothing", "a.pdf: damaged, or"),
        ("Remove noise", "What is shown", "a.png", b"no picture", "a.png: not an image"),
        ("Latent plane", "The code of yours", "a.gif", b"GIF89a", "a.gif: "),
        ("Hide a message", "The marked photo", "a b.jpg", JFIF, "a b.jpg: "),
        ("Five autoencoders", "Note", "a.jpg", JFIF + b"\0", "a.jpg: "),
    ],
)
def test_after_a_failure_nothing_is_left_of_the_file_before(
    visit, tmp_path, app, tab, status, name, content, message
):
    (tmp_path / name).write_bytes(content)
    page = visit(tab, SIZES["phone"])
    click_sample(page, 1)
    page.locator("[role=tabpanel]:visible .image-container img").first.wait_for()
    remove(page)
    value_when(page, status, "^$")
    assert_empty(page)
    upload(page, tmp_path / name)
    text = value_when(page, status, ":")
    assert message in text
    assert str(app[2]) not in text
    assert_empty(page)
    page.wait_for_timeout(1_000)
    assert page.get_by_label(status, exact=True).input_value() == text
    remove(page)
    click_sample(page, 0)
    page.locator("[role=tabpanel]:visible .image-container img").first.wait_for()
    assert message not in page.get_by_label(status, exact=True).input_value()
    assert page.locator(".toast-body").count() == 0


def test_work_on_a_removed_page_ends_and_never_shows_up(visit, tmp_path):
    scan(tmp_path / "large.png", 5)
    scan(tmp_path / "small.png")
    page = visit("Clean a scan")
    upload(page, tmp_path / "large.png")
    wait_for_progress(page)
    remove(page)
    value_when(page, "The cleaned file", "^$")
    upload(page, tmp_path / "small.png")
    assert value_when(page, "The cleaned file", "pixels").startswith("small.png: 420x600 pixels")
    assert pictures_of(page, "Before and after")[0].shape == (600, 420)


def test_work_can_be_stopped(visit, tmp_path):
    scan(tmp_path / "large.png", 5)
    page = visit("Clean a scan")
    upload(page, tmp_path / "large.png")
    stop = page.get_by_role("button", name="Stop")
    wait_for_progress(page)
    stop.click()
    value_when(page, "The cleaned file", "^Stopped$")
    assert stop.is_disabled()
    page.get_by_text("gray", exact=True).click()
    wait_for_progress(page)
    stop.click()
    value_when(page, "The cleaned file", "^Stopped$")


def test_the_preview_of_a_black_and_white_page_is_its_file(visit, tmp_path):
    scan(tmp_path / "page.png")
    page = visit("Clean a scan")
    page.get_by_text("black and white").click()
    upload(page, tmp_path / "page.png")
    value_when(page, "The cleaned file", "pixels")
    shown = pictures_of(page, "Before and after")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    download.value.save_as(tmp_path / "cleaned.png")
    with Image.open(tmp_path / "cleaned.png") as image:
        assert image.mode == "1"
        cleaned = np.asarray(image.convert("L"))
    assert any(np.array_equal(each, cleaned) for each in shown)


@pytest.mark.parametrize("size", SIZES)
def test_text_is_neither_cut_off_nor_faint_and_controls_have_names(visit, size):
    page, left = visit(TABS[0], SIZES[size]), set()
    for tab in TABS:
        button = page.get_by_role("tab", name=tab)
        button.click()
        page.locator("[role=tabpanel]:visible button.gallery-item").first.wait_for()
        page.wait_for_timeout(500)
        assert page.evaluate(PROBLEMS) == [], tab
        left.add(page.get_by_role("heading", name="Autoencoders").bounding_box()["x"])
        status = page.locator("[role=tabpanel]:visible textarea:disabled").first
        if tab in (TABS[0], TABS[4]):
            assert status.bounding_box()["y"] < SIZES[size][1]  # what happens is seen at once
    assert len(left) == 1  # no tab moves the page to a side
    names = page.locator("button.gallery-item:visible").evaluate_all(
        "buttons => buttons.map(button => button.ariaLabel)"
    )
    assert names[0] == "Sample digits_0.png"


def test_the_keyboard_is_enough(visit):
    page = visit(TABS[0])
    page.get_by_role("tab", name=TABS[4]).focus()
    page.keyboard.press("Enter")
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.ariaLabel === 'Sample digits_0.png'"):
            break
    page.keyboard.press("Enter")
    value_when(page, "Note", "light on dark")
    block_of(page, r"linear, .* MSE")


def test_large_files_are_refused(visit, tmp_path):
    Image.new("1", (7000, 6000)).save(tmp_path / "wide.png")
    page = visit("Hide a message")
    upload(page, tmp_path / "wide.png")
    value_when(page, "The marked photo", "wide.png: has more than 40 megapixels")
    (tmp_path / "heavy.png").write_bytes(bytes(50 * 2**20 + 1))
    page = visit("Clean a scan")
    upload(page, tmp_path / "heavy.png")
    page.locator(".toast-body").wait_for()
    text = page.locator(".toast-body").inner_text()
    assert "50.0 M" in text
    assert "heavy.png" in text


def test_a_scan_of_20_megapixels_does_not_block_light_work(visit, tmp_path):
    rng = np.random.default_rng(0)
    scan = np.full((5000, 4000), 230, np.uint8)
    scan[::50] = rng.integers(0, 200, (100, 1), np.uint8)
    Image.fromarray(scan).save(tmp_path / "scan.png", dpi=(400, 400))
    scanning, walking = visit("Clean a scan"), visit("Latent plane")
    upload(scanning, tmp_path / "scan.png")
    wait_for_progress(scanning)
    click_sample(walking, 0)
    value_when(walking, "The code of yours", "z = ")
    assert scanning.get_by_text(PROGRESS).count() == 1
    text = value_when(scanning, "The cleaned file", "dpi")
    assert "4000x5000 pixels, 400 dpi" in text


def test_a_taken_port_is_named_and_an_open_host_warned_of(app, tmp_path):
    port = app[1].split(":")[-1]
    process = start(tmp_path, "--host", "0.0.0.0", "--port", port, stderr=subprocess.PIPE)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "warning: --host 0.0.0.0" in errors
    assert f"port {port}" in errors.splitlines()[-1]
    assert not list(tmp_path.glob("autoencoders_*"))


def test_nothing_is_left_behind(app):
    process, _, folder = app
    assert list(folder.iterdir())
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert not list(folder.iterdir())
