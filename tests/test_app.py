"""The page of app.py, driven in a browser as a person would."""

import contextlib
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
from conftest import ROOT, python
from PIL import Image
from skimage import data as skimage_data

import vae_fashion  # noqa: F401  registers the layers of its model
from common import metrics, noise, training
from synthetic import clothes, digits, pages
from tools.scans.files import read_first_page

WITHOUT_GRADIO = """
import runpy, sys
sys.modules["gradio"] = None
runpy.run_path("app.py", run_name="__main__")
"""


def test_without_gradio_one_line_says_what_to_install():
    done = python("-c", WITHOUT_GRADIO, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install -r requirements-app.txt" in done.stderr


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


@contextlib.contextmanager
def running(folder):
    """Give the process and the address of app.py."""
    pytest.importorskip("gradio", reason="no Gradio here: pip install -r requirements-app.txt")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start(folder, "--port", str(port))
    try:
        line = process.stdout.readline()
        assert line == f"Open http://127.0.0.1:{port}/ in a browser. Ctrl-C ends it.\n", line
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def app(browser, tmp_path_factory):
    """The running app: its process, its address, its temporary folder."""
    folder = tmp_path_factory.mktemp("temporary")
    with running(folder) as (process, url):
        yield process, url, folder


@pytest.fixture
def visit(app, browser, requests_of):
    """Give a function that opens a tab of the page, each time as another visitor."""
    _, url, _ = app
    contexts, requests = [], []

    def open_tab(name):
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 1400}))
        page = contexts[-1].new_page()
        page.set_default_timeout(600_000)  # a slow machine is no failure
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


def picture_of(page, label):
    source = block_of(page, label).locator("img").get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(page.request.get(source).body())).convert("L"))


def enlarged(image):
    """Return an image, shape (28, 28, 1), as the page shows it: 280x280 pixels."""
    return np.round(np.kron(image[..., 0], np.ones((10, 10))) * 255)


def value_when(page, label, pattern):
    """Wait until the content of a text field matches, and return it."""
    field = page.get_by_label(label, exact=True)
    page.wait_for_function(
        "([field, pattern]) => new RegExp(pattern).test(field.value)",
        arg=[field.element_handle(), pattern],
    )
    return field.input_value()


def error_on(page):
    """Return the message that pops up, and close it."""
    toast = page.locator(".toast-body")
    toast.wait_for()
    text = toast.inner_text()
    page.locator(".toast-close").click()
    return text


def test_a_page_of_a_pdf_is_cleaned_and_keeps_its_resolution(visit, tmp_path):
    [(dirty, clean, *_)] = pages.pages(1, seed=7, height=600, width=420, scale=1)
    first, second = (Image.fromarray(pixels[..., 0]) for pixels in (dirty, clean))
    first.save(
        tmp_path / "two pages.pdf",
        save_all=True,
        append_images=[second],
        resolution=150,
        quality=95,
    )
    page = visit("Clean a scan")
    upload(page, tmp_path / "two pages.pdf")
    assert "420x600 pixels, 150 dpi" in value_when(page, "The cleaned file", "dpi")
    assert block_of(page, "Before and after").locator("img").count() == 2
    with page.expect_download() as download:
        page.get_by_role("button", name="Download at full size").click()
    assert download.value.suggested_filename == "two pages.pdf"
    download.value.save_as(tmp_path / "cleaned.pdf")
    with pypdfium2.PdfDocument(tmp_path / "cleaned.pdf") as pdf:
        assert len(pdf) == 1
    cleaned = read_first_page(tmp_path / "cleaned.pdf")
    assert cleaned.dpi == pytest.approx((150, 150))
    error = np.square(cleaned.pixels[..., :1] - clean.astype(float)).mean()
    assert error < np.square(dirty - clean.astype(float)).mean() / 4


def test_noise_and_what_removes_it(visit, tmp_path):
    image = skimage_data.camera()[::4, ::4]
    Image.fromarray(image).save(tmp_path / "camera.png")
    page = visit("Remove noise")
    upload(page, tmp_path / "camera.png")
    clean = image[np.newaxis, ..., np.newaxis] / np.float32(255)
    for amount in (0.1, 0.3):
        slider = page.get_by_label("number input for Amount", exact=False)
        slider.fill(str(amount))
        slider.blur()
        noisy = noise.salt_and_pepper(clean, amount, training.seed_for("app"))
        filtered = metrics.median_3x3(noisy)
        for name, result in {"noisy": noisy, "median filter, 3x3": filtered}.items():
            label = f"{name}: {metrics.psnr(clean, result):.1f} dB"
            shown = picture_of(page, re.escape(label))
            factor = shown.shape[0] // image.shape[0]
            expected = np.round(result[0, ..., 0] * 255)
            np.testing.assert_array_equal(shown[::factor, ::factor], expected)
    block_of(page, r"network: \d")


def test_the_plane_shows_what_the_decoder_makes_of_a_click_and_a_drag(visit):
    page = visit("Walk the latent plane")
    plane = block_of(page, "The latent plane").locator("img")
    box = plane.bounding_box()
    decoder = training.load_model(None, "vae_fashion").decoder
    numbers = [page.get_by_label(f"number input for {name}") for name in ("z_1", "z_2")]

    def assert_code_at(x, y):
        expected = [2.3 * (2 * x / box["width"] - 1), 2.3 * (1 - 2 * y / box["height"])]
        for number, value in zip(numbers, expected, strict=True):
            page.wait_for_function(
                "([field, expected]) => Math.abs(field.value - expected) < 0.03",
                arg=[number.element_handle(), value],
            )
        assert_decoded()

    def assert_decoded():
        for _ in range(600):
            z = np.array([[float(number.input_value()) for number in numbers]])
            expected = enlarged(np.asarray(decoder(z))[0])
            difference = np.abs(picture_of(page, "Decoded") - expected).max()
            if difference <= 1:
                return
            page.wait_for_timeout(100)
        pytest.fail(f"differs from the decoded image by {difference} levels")

    plane.click(position={"x": 60, "y": 100})
    assert_code_at(60, 100)
    page.mouse.move(box["x"] + 60, box["y"] + 100)
    page.mouse.down()
    for step in range(1, 6):
        page.mouse.move(box["x"] + 60 + 50 * step, box["y"] + 100 + 30 * step)
        page.wait_for_timeout(100)
    assert_code_at(310, 250)
    page.mouse.up()
    numbers[0].fill("1.5")
    numbers[0].blur()
    assert_decoded()


def test_a_visitors_clothes_are_placed_on_the_plane(visit):
    page = visit("Walk the latent plane")
    page.get_by_role("button", name="New clothes").click()
    new = picture_of(page, "New clothes")
    click_sample(page, 0)
    status = value_when(page, "The code of yours", r"z = \(")
    z = [page.get_by_label(f"number input for {name}").input_value() for name in ("z_1", "z_2")]
    assert status == f"z = ({float(z[0]):.2f}, {float(z[1]):.2f})."
    assert all(re.fullmatch(r"-?\d(\.\d\d?)?", number) for number in z), z
    assert new.shape == (4 * 28 * 2, 8 * 28 * 2)
    sheet = picture_of(page, "New clothes")
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
    page.get_by_role("button", name="Damage it and read").click()
    assert value_when(page, "Message that was read", ".") == "håll ut ☂"
    page.get_by_label("Key", exact=False).fill("another")
    page.get_by_role("button", name="Damage it and read").click()
    value_when(page, "Message that was read", "No message found")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the marked photo").click()
    download.value.save_as(tmp_path / "marked.png")
    marked = np.asarray(Image.open(tmp_path / "marked.png"))
    change = marked.astype(float) - skimage_data.coffee()
    assert 0 < np.square(change).mean() < 255**2 * 10 ** (-36 / 10)


def test_two_visitors_at_once_each_get_their_own_digit(visit, tmp_path):
    images, _ = digits.digits(2, seed=5)
    visitors = []
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        visitors.append(visit("Five autoencoders"))
    for number, page in enumerate(visitors):  # the second before the first has an answer
        upload(page, tmp_path / f"{number}.png")
    for page, image in zip(visitors, images, strict=True):
        rebuilt = picture_of(page, r"linear, .* MSE")
        factor = rebuilt.shape[0] // 28
        np.testing.assert_array_equal(picture_of(page, "picture")[::factor, ::factor], image)
        error = metrics.mse(image / 255, rebuilt[::factor, ::factor] / 255)
        text = block_of(page, r"linear, .* MSE").inner_text()
        assert float(text.split("MSE")[1]) == pytest.approx(error, abs=2e-4)
        assert error < 0.05


@pytest.mark.parametrize(
    ("tab", "name", "content", "message"),
    [
        ("Clean a scan", "broken.pdf", b"%PDF-1.7 nothing", "broken.pdf: damaged, or a PDF"),
        ("Remove noise", "broken.png", b"no picture", "broken.png: not an image"),
        ("Hide a message", "photo.heic", b"\0\0\0\x18ftypheic", "HEIC photo; convert it"),
        ("Five autoencoders", "a cut.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0", "a cut.jpg: "),
    ],
)
def test_a_broken_file_is_named(visit, tmp_path, app, tab, name, content, message):
    (tmp_path / name).write_bytes(content)
    page = visit(tab)
    upload(page, tmp_path / name)
    text = error_on(page)
    assert message in text
    assert str(app[2]) not in text


def test_large_files_are_refused(visit, tmp_path):
    Image.new("1", (7000, 6000)).save(tmp_path / "wide.png")
    page = visit("Hide a message")
    upload(page, tmp_path / "wide.png")
    assert "wide.png: has more than 40 megapixels" in error_on(page)
    (tmp_path / "heavy.png").write_bytes(bytes(50 * 2**20 + 1))
    page = visit("Clean a scan")
    upload(page, tmp_path / "heavy.png")
    text = error_on(page)
    assert "maximum" in text
    assert "50.0 M" in text
    assert "heavy.png" in text


def test_a_scan_of_20_megapixels_does_not_block_the_plane(visit, tmp_path):
    rng = np.random.default_rng(0)
    scan = np.full((5000, 4000), 230, np.uint8)
    scan[::50] = rng.integers(0, 200, (100, 1), np.uint8)
    Image.fromarray(scan).save(tmp_path / "scan.png", dpi=(400, 400))
    scanning, walking = visit("Clean a scan"), visit("Walk the latent plane")
    plane = block_of(walking, "The latent plane").locator("img")
    upload(scanning, tmp_path / "scan.png")
    scanning.wait_for_timeout(3_000)  # until the network is at work
    plane.click(position={"x": 100, "y": 100})
    number = walking.get_by_label("number input for z_1").element_handle()
    walking.wait_for_function("number => Math.abs(number.value) > 0.5", arg=number)
    assert scanning.get_by_label("The cleaned file").input_value() == ""
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
