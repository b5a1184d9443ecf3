"""explorer.html: what it holds, and in a browser what a reader does with it."""

import base64
import io
import json
import re
import time

import numpy as np
import pytest
from browser import PROBLEMS
from conftest import ROOT
from PIL import Image

import vae_fashion
from common import data, training
from tools import explorer

CLASS_NAMES = ["</script><script>alert(1)</script>", "page-data", "“é” & <b>"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of the model in models/, for synthetic clothes: (path, content, decoder)."""
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    model = training.load_model(None, "vae_fashion")
    clothes = data.load_fashion_mnist(vae_fashion.Train(synthetic=True, limit=300))
    explorer.write(path, model.encoder, model.decoder, clothes)
    return path, content_of(path.read_text(encoding="utf-8")), model.decoder


def content_of(page):
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def noise_page(latent_dim=2, names=("one", "two")):
    """Return the page of an untrained network for images of noise, and their codes."""
    rng = np.random.default_rng(0)
    x = rng.random((40, 28, 28, 1), dtype="float32")
    y = rng.integers(0, len(names), 40)
    dataset = data.Images("noise", "local", list(names), x, y, x, y, x, y)
    model = vae_fashion.build_vae("dense", latent_dim)
    return explorer.fill(model.encoder, model.decoder, dataset), np.asarray(model.encoder(x)[0])


def tile(content, name, index):
    """Return an image of one of the two mosaics, gray levels of shape (28, 28)."""
    columns = {"grid": content["side"], "pictures": content["columns"]}[name]
    picture = Image.open(io.BytesIO(base64.b64decode(content[name].split(",")[1]))).convert("L")
    top, left = np.array(divmod(index, columns)) * 28
    return np.asarray(picture, float)[top : top + 28, left : left + 28]


def decoded_at(decoder, x, y):
    return np.asarray(decoder(np.array([[x, y]], "float32")))[0, ..., 0] * 255


# ---------------------------------------------------------------- without a browser


def test_the_grid_holds_what_the_decoder_makes_of_each_place(written):
    _, content, decoder = written
    side, limit = content["side"], content["limit"]
    for row, column in [(0, 0), (10, 31), (47, 5)]:
        x, y = limit * ((2 * column + 1) / side - 1), limit * (1 - (2 * row + 1) / side)
        error = tile(content, "grid", row * side + column) - decoded_at(decoder, x, y)
        assert np.abs(error).mean() < 5  # of 255: WebP is lossy


def test_codes_and_pictures_are_those_of_the_test_images(written):
    _, content, _ = written
    clothes = data.load_fashion_mnist(vae_fashion.Train(synthetic=True, limit=300))
    model = training.load_model(None, "vae_fashion")
    z_mean = model.encoder.predict(clothes.x_test, verbose=0)[0]
    np.testing.assert_allclose(content["codes"], z_mean, atol=1e-3)
    assert content["labels"] == clothes.y_test.tolist()
    for index in (0, 77, len(clothes.x_test) - 1):
        error = tile(content, "pictures", index) - 255 * clothes.x_test[index, ..., 0]
        assert np.abs(error).mean() < 8


def test_of_many_dimensions_the_two_most_active_are_shown():
    page, codes = noise_page(5)
    content = content_of(page)
    first, second = sorted(np.argsort(-codes.var(0))[:2])
    assert content["axes"] == [first + 1, second + 1]
    np.testing.assert_allclose(content["codes"], codes[:, [first, second]], atol=1e-3)


def test_names_of_classes_cannot_end_the_script():
    page, _ = noise_page(names=CLASS_NAMES)
    assert content_of(page)["classes"] == CLASS_NAMES
    assert page.count("</script>") == explorer.TEMPLATE.read_text().count("</script>")


def test_the_page_in_docs_is_that_of_the_model_in_models(written):
    page = (ROOT / "docs/explorer.html").read_text(encoding="utf-8")
    content, decoder = content_of(page), written[2]
    assert len(page.encode()) < 1_500_000
    assert content["dataset"].startswith("Fashion-MNIST (local), 55,000 training and 10,000 test")
    assert len(content["labels"]) == 2_000
    row, column, limit = 20, 25, content["limit"]
    x, y = limit * (51 / 48 - 1), limit * (1 - 41 / 48)
    error = tile(content, "grid", row * 48 + column) - decoded_at(decoder, x, y)
    assert np.abs(error).mean() < 5
    start, end = explorer.TEMPLATE.read_text(encoding="utf-8").split("page-data")
    assert page.startswith(start), "made from an older template: make it again"
    assert page.endswith(end), "made from an older template: make it again"


# ---------------------------------------------------------------- in a browser


@pytest.fixture
def visit(browser, requests_of):
    """Open a page; at the end it must not have raised an error, nor asked for any other."""
    contexts = []

    def go(path, **options):
        options = {"viewport": {"width": 1200, "height": 800}} | options
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(error))
        page.asked = requests_of(page)
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield go
    for context in contexts:
        for page in context.pages:
            assert not page.errors
            assert all(url.startswith((page.url, "data:")) for url in page.asked)
        context.close()


def code_of(page):
    text = page.locator("#code").text_content().replace("−", "-")
    return np.array([float(value) for value in text.split(",")])


def pixels(page, selector):
    """Return the gray levels of a canvas of 28x28 pixels."""
    values = page.evaluate(
        "(selector) => [...document.querySelector(selector)"
        ".getContext('2d').getImageData(0, 0, 28, 28).data]",
        selector,
    )
    rgba = np.array(values, float).reshape(28, 28, 4)
    assert (rgba[..., 3] == 255).all()
    return rgba[..., 0]


def place_of(page, x, y):
    """Return the place in the window of a place in the plane, from 0 to 1."""
    box = page.locator("#cloud").bounding_box()
    return float(box["x"] + x * box["width"]), float(box["y"] + y * box["height"])


def assert_shows_its_code(page, content, decoder):
    """Assert that the images are the decoded one, nearly, and the nearest test image's."""
    code = code_of(page)
    error = pixels(page, "#decoded") - decoded_at(decoder, *code)
    assert np.abs(error).mean() < 8  # blended, and WebP is lossy
    nearest = np.argmin(np.square(np.array(content["codes"]) - code).sum(1))
    assert np.abs(pixels(page, "#nearest") - tile(content, "pictures", nearest)).max() <= 2
    name = content["classes"][content["labels"][nearest]]
    assert page.locator("#class").text_content() == name


def test_the_image_follows_the_dragged_point(visit, written):
    path, content, decoder = written
    page = visit(path)
    page.mouse.move(*place_of(page, 0.5, 0.5))
    page.mouse.down()
    for x, y in [(0.4, 0.35), (0.61, 0.42), (0.52, 0.7)]:
        page.mouse.move(*place_of(page, x, y), steps=4)
        expected = np.array([2 * x - 1, 1 - 2 * y]) * content["limit"]
        np.testing.assert_allclose(code_of(page), expected, atol=0.02)
        assert_shows_its_code(page, content, decoder)
    page.mouse.up()
    page.mouse.move(*place_of(page, 0.2, 0.2))
    np.testing.assert_allclose(code_of(page), expected, atol=0.02)  # it was let go


def test_blending_halfway_between_two_images_of_the_grid_gives_their_mean(visit, written):
    path, content, _ = written
    page, side = visit(path), content["side"]
    x, y = content["limit"] * (52 / side - 1), content["limit"] * (1 - 41 / side)
    page.evaluate("([x, y]) => move(x, y)", [x, y])
    pair = [tile(content, "grid", 20 * side + column) for column in (25, 26)]
    np.testing.assert_allclose(pixels(page, "#decoded"), np.mean(pair, axis=0), atol=3)


def test_keys_move_the_point(visit, written):
    path, content, decoder = written
    page = visit(path)
    page.get_by_role("application", name="Latent plane").focus()
    step = content["limit"] / 50
    for key, change in {
        "ArrowRight": (1, 0),
        "ArrowUp": (0, 1),
        "ArrowLeft": (-1, 0),
        "ArrowDown": (0, -1),
        "Shift+ArrowLeft": (-5, 0),
    }.items():
        before = code_of(page)
        page.keyboard.press(key)
        np.testing.assert_allclose(code_of(page) - before, np.array(change) * step, atol=0.011)
    for _ in range(30):
        page.keyboard.press("Shift+ArrowRight")
    assert code_of(page)[0] == pytest.approx(content["limit"], abs=0.01)  # and no farther
    page.keyboard.press("Home")
    assert code_of(page).tolist() == [0, 0]
    assert_shows_its_code(page, content, decoder)


def dot_of(content):
    """Return a dot that no other overlaps: its index and its place in the plane, from 0 to 1."""
    codes = np.array(content["codes"])
    distances = np.linalg.norm(codes[:, None] - codes[None], axis=-1) + 9 * np.eye(len(codes))
    index = int(distances.min(1).argmax())
    x, y = codes[index] / content["limit"] / 2
    return index, 0.5 + x, 0.5 - y


def test_a_dot_shows_its_image_under_the_mouse(visit, written):
    path, content, _ = written
    page, (index, x, y) = visit(path), dot_of(content)
    tip = page.locator("#tip")
    page.mouse.move(*place_of(page, x, y))
    assert tip.text_content() == content["classes"][content["labels"][index]]
    shown = pixels(page, "#tip canvas")
    assert np.abs(shown - tile(content, "pictures", index)).max() <= 2
    page.mouse.move(*place_of(page, -0.02, -0.02))
    assert tip.is_hidden()
    page.get_by_label("show the test images").uncheck()
    page.mouse.move(*place_of(page, x, y))
    assert tip.is_hidden()


def test_a_finger_moves_the_point_and_not_the_page_and_a_touch_shows_a_dot(visit, written):
    path, content, decoder = written
    page = visit(path, viewport={"width": 390, "height": 740}, has_touch=True, is_mobile=True)
    index, x, y = dot_of(content)
    page.touchscreen.tap(*place_of(page, x, y))
    assert page.locator("#tip").text_content() == content["classes"][content["labels"][index]]
    np.testing.assert_allclose(code_of(page), content["codes"][index], atol=0.1)
    touch = page.context.new_cdp_session(page)

    def send(kind, *places):
        points = [{"x": x, "y": y} for x, y in places]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", place_of(page, 0.5, 0.8))
    for y in np.linspace(0.8, 0.4, 10):
        send("touchMove", place_of(page, 0.3, y))
    send("touchEnd")
    expected = np.array([-0.4, 0.2]) * content["limit"]
    end = time.monotonic() + 60
    while np.abs(code_of(page) - expected).max() > 0.1 and time.monotonic() < end:
        time.sleep(0.05)
    np.testing.assert_allclose(code_of(page), expected, atol=0.1)
    assert_shows_its_code(page, content, decoder)
    assert page.locator("#tip").is_hidden()
    assert page.evaluate("scrollY") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1200, 800), (390, 780), (360, 740)])
def test_all_can_be_read_and_is_above_the_fold(visit, written, size, scheme):
    width, height = size
    page = visit(written[0], viewport={"width": width, "height": height}, color_scheme=scheme)
    assert page.evaluate(PROBLEMS) == []
    for selector in ("#plane", "#classes", "#decoded", "#nearest"):
        box = page.locator(selector).bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= height, selector
    assert page.locator("#plane").bounding_box()["width"] > 300
    assert page.locator("#tasks li").count() == 3
    assert "Find a bag that turns into a shoe." in page.locator("#tasks").text_content()
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(color[4:].split(",")[0]) > 127) == (scheme == "light")


def test_names_of_classes_are_shown_as_they_are(visit, tmp_path):
    (tmp_path / "names.html").write_text(noise_page(names=CLASS_NAMES)[0], encoding="utf-8")
    page = visit(tmp_path / "names.html")
    assert page.locator("#classes li").all_text_contents() == CLASS_NAMES


def test_the_page_cannot_reach_the_network(visit, written, server):
    page = visit(written[0])
    server.content = b"something"
    fetched = page.evaluate(
        "(url) => fetch(url).then(() => 'fetched', () => 'refused')", server.url + "good"
    )
    assert fetched == "refused"
    page.asked.clear()
