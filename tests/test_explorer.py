"""explorer.html: what it holds, and in a browser what a reader does with it."""

import base64
import io
import itertools
import json
import re
import time

import keras
import numpy as np
import pytest
from conftest import ROOT, without_figures
from keras import layers
from PIL import Image

import vae_fashion
from applications import explorer
from common import UserError, data, trained_models

STEP = 1 / 255  # of grey
# {name: words of a short training}
RUNS = {"conv": "", "dense": "--architecture dense --latent-dim 5"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Train a network shortly, once for all tests, and return its folder."""
    done = {}

    def run(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name) / "run"
            words = "--synthetic --limit 300 --epochs 3 --output-dir".split()
            with without_figures():
                vae_fashion.main([*RUNS[name].split(), *words, str(folder)])
            done[name] = folder
        return done[name]

    return run


def content_of(page):
    """Return what a page holds, its numbers as arrays."""
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    content = json.loads(text)
    for name in ("weights", "codes"):
        content[name] = np.frombuffer(base64.b64decode(content[name]), "<f2").astype("float32")
    content["codes"] = content["codes"].reshape(-1, len(content["dimensions"]))
    content["limit"] = 1.05 * max(2.5, np.abs(content["codes"]).max())
    return content


def picture(content, index):
    """Return the pixels of a test image, 0 to 255, from the sheet of them."""
    sheet = Image.open(io.BytesIO(base64.b64decode(content["pictures"].split(",")[1])))
    top, left = np.array(divmod(index, content["columns"])) * 28
    return np.asarray(sheet)[top : top + 28, left : left + 28]


def convolve(x, kernel, bias, layer):
    """Return a convolution of images, (n, height, width, channels), or a transposed one."""
    transposed = layer["type"] == "Conv2DTranspose"
    strides, before = layer["strides"], layer["before"]
    y = np.zeros((len(x), *layer["output"]))
    few = x.shape[1:3] if transposed else y.shape[1:3]
    for place in np.ndindex(*few, *kernel.shape[:2]):
        row, column = (
            place[axis] * strides[axis] + place[axis + 2] - before[axis] for axis in (0, 1)
        )
        there, here = (row, column), place[:2]
        source, target = (here, there) if transposed else (there, here)
        inside = all(0 <= s < n for s, n in zip(source, x.shape[1:3], strict=True))
        if inside and all(0 <= t < n for t, n in zip(target, y.shape[1:3], strict=True)):
            y[:, *target] += x[:, *source] @ kernel[place[2:]]
    return y + bias


def decode(content, z):
    """Return the images of codes, computed from the page's layers with NumPy."""
    x, weights = z, content["weights"].astype("float64")
    for layer in content["layers"]:
        x = x.reshape(len(x), *layer["input"])
        if layer["type"] == "Reshape":
            continue
        shape = *layer.get("kernel", ()), layer["input"][-1], layer["output"][-1]
        kernel, weights = weights[: np.prod(shape)].reshape(shape), weights[np.prod(shape) :]
        bias, weights = weights[: shape[-1]], weights[shape[-1] :]
        dense = layer["type"] == "Dense"
        x = x @ kernel + bias if dense else convolve(x, kernel, bias, layer)
        if layer["activation"] == "sigmoid":
            x = 1 / (1 + np.exp(-x))
        else:
            x = np.where(x < 0, layer["slope"] * x, x)
    assert not len(weights)
    return x.reshape(len(z), *content["layers"][-1]["output"])


def codes_in(count, dimensions, reach=3):
    return np.random.default_rng(0).uniform(-reach, reach, (count, dimensions)).astype("float32")


def chain(*parts, latent_dim=3):
    """Return a decoder of some layers, each bias of which does something."""
    decoder = keras.Sequential([keras.Input((latent_dim,)), *parts])
    rng = np.random.default_rng(1)
    decoder.set_weights([rng.normal(0, 0.4, weight.shape) for weight in decoder.get_weights()])
    return decoder


def other_decoders():
    """Return decoders with all that the page can compute and ours do not have."""
    transposed, plain = layers.Conv2DTranspose, layers.Conv2D
    start = [layers.Dense(4 * 3 * 5, "leaky_relu"), layers.Reshape((4, 3, 5))]
    return {
        "strides of 3 and 2": [transposed(6, (2, 5), strides=(3, 2), activation="relu")],
        "padded": [transposed(3, 4, strides=2, padding="same", activation="linear")],
        "larger strides than kernel": [transposed(2, 2, strides=3, padding="same")],
        "valid": [plain(7, 2, activation="leaky_relu"), plain(5, (1, 2), use_bias=False)],
        "a convolution with strides": [plain(4, 3, strides=2, padding="same", activation="relu")],
        "flat": [layers.Flatten(), layers.Dense(20, use_bias=False), layers.Reshape((4, 5, 1))],
    }, start


def build_other(name):
    others, start = other_decoders()
    end = layers.Conv2D(1, 3, padding="same", activation="sigmoid")
    return chain(*start, *others[name], end)


each_other = pytest.mark.parametrize("name", other_decoders()[0])


def images_of(count=40, latent_dim=3, names=("one", "two"), shape=(28, 28, 1), seed=0):
    """Return a dataset of noise, and codes for its test images."""
    rng = np.random.default_rng(seed)
    x = (rng.integers(0, 256, (count, *shape)) / 255).astype("float32")
    y = rng.integers(0, len(names), count)
    codes = rng.standard_normal((count, latent_dim)).astype("float32")
    return data.Images("noise", "local", list(names), *([x, y] * 3)), codes


# ---------------------------------------------------------------- without a browser


@pytest.mark.parametrize("name", RUNS)
def test_what_the_page_holds_decodes_as_keras_does(name, finished):
    folder = finished(name)
    page = (folder / "explorer.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 3_000_000
    content, decoder = content_of(page), keras.saving.load_model(folder / "decoder.keras")
    z = codes_in(40, decoder.input_shape[1])
    expected = decoder.predict(z, verbose=0)
    assert expected.std() > 0.1
    assert np.abs(decode(content, z) - expected).max() < STEP
    clothes = data.load_fashion_mnist(synthetic=True, limit=300)
    for index in (0, 77, len(clothes.x_test) - 1):
        image = np.round(clothes.x_test[index, ..., 0] * 255)
        np.testing.assert_array_equal(picture(content, index), image)
    assert content["labels"] == clothes.y_test.tolist()
    model = trained_models.load_model(folder / "model.keras", vae_fashion.Settings.names)[0]
    z_mean = model.encoder.predict(clothes.x_test, verbose=0)[0]
    np.testing.assert_allclose(content["codes"], z_mean, rtol=1e-3, atol=1e-3)


@each_other
def test_other_layers_are_described_so_that_they_decode_the_same(name):
    decoder = build_other(name)
    content = content_of(explorer.fill(decoder, *images_of(shape=decoder.output_shape[1:])))
    z = codes_in(20, 3)
    assert np.abs(decode(content, z) - decoder.predict(z, verbose=0)).max() < STEP


UNKNOWN = {
    "a UpSampling2D": [layers.Reshape((3, 3, 1)), layers.UpSampling2D()],
    "the activation tanh": [layers.Reshape((3, 3, 1)), layers.Conv2D(1, 2, activation="tanh")],
    "the activation <LeakyReLU": [
        layers.Reshape((3, 3, 1)),
        layers.Conv2D(1, 2, activation=layers.LeakyReLU()),
    ],
    "is dilated": [layers.Reshape((3, 3, 1)), layers.Conv2D(1, 2, dilation_rate=2)],
    "groups": [
        layers.Reshape((3, 3, 1)),
        layers.Conv2DTranspose(1, 2, output_padding=0, strides=2),
    ],
    "more than a list": [layers.Reshape((3, 3, 1)), layers.Dense(1)],
    "not grey images": [layers.Reshape((9,))],
}


@pytest.mark.parametrize("words", UNKNOWN)
def test_what_the_page_cannot_compute_is_named_and_ends_nothing(words, tmp_path, capsys):
    decoder = chain(layers.Dense(9), *UNKNOWN[words])
    with pytest.raises(explorer.UnknownLayerError, match=words):
        explorer.describe(decoder)
    explorer.write(tmp_path / "explorer.html", decoder, *images_of())
    assert words in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_decoder_with_branches_or_weights_beyond_half_precision_is_refused():
    z = keras.Input((3,))
    a, b = layers.Dense(4)(z), layers.Dense(4)(z)
    branches = keras.Model(z, layers.Reshape((2, 2, 1))(layers.Add()([a, b])))
    with pytest.raises(explorer.UnknownLayerError, match="not a chain"):
        explorer.describe(branches)
    large = chain(layers.Dense(4), layers.Reshape((2, 2, 1)))
    large.set_weights([1e6 * weight for weight in large.get_weights()])
    with pytest.raises(explorer.UnknownLayerError, match="too large for half precision"):
        explorer.describe(large)


def test_of_many_dimensions_the_most_active_are_there():
    decoder = vae_fashion.build_vae("conv", 40).decoder
    clothes, codes = images_of(60, 40)
    codes[:, 3:11] *= 0.001
    codes[:, [20, 7]] *= 3
    content = content_of(explorer.fill(decoder, clothes, codes))
    shown = [i for i in range(40) if not 3 <= i < 11]
    assert content["dimensions"] == [i + 1 for i in shown]
    assert 20 in [shown[i] for i in content["axes"]]
    np.testing.assert_allclose(content["codes"], codes[:, shown], rtol=1e-3, atol=1e-6)
    z = np.zeros((10, 40), "float32")
    z[:, shown] = codes_in(10, 32)
    assert np.abs(decode(content, z[:, shown]) - decoder.predict(z, verbose=0)).max() < STEP


def test_a_page_stays_small_with_fewer_pictures(monkeypatch):
    monkeypatch.setattr(explorer, "MOST_BYTES", 300_000)
    clothes, codes = images_of(500)  # of noise, which nothing makes smaller
    small = chain(layers.Dense(784, "sigmoid"), layers.Reshape((28, 28, 1)))
    page = explorer.fill(small, clothes, codes)
    content = content_of(page)
    assert len(page.encode()) < 300_000
    assert 100 < len(content["labels"]) < 300
    assert len(content["codes"]) == len(content["labels"])
    last = len(content["labels"]) - 1
    expected = np.round(clothes.x_test[last, ..., 0] * 255)
    np.testing.assert_array_equal(picture(content, last), expected)
    large = chain(layers.Dense(784, "relu"), layers.Dense(784), layers.Reshape((28, 28, 1)))
    with pytest.raises(explorer.UnknownLayerError, match="too large for a page"):
        explorer.fill(large, clothes, codes)


NAMES = ["</script><script>alert(1)</script>", "page-data script-hash", "“é” & <b>"]


def test_names_of_classes_stay_data():
    decoder = chain(layers.Dense(784, "sigmoid"), layers.Reshape((28, 28, 1)))
    page = explorer.fill(decoder, *images_of(names=NAMES))
    assert content_of(page)["classes"] == NAMES
    assert page.count("</script>") == explorer.TEMPLATE.read_text().count("</script>")


def test_a_page_is_never_replaced(tmp_path):
    path = tmp_path / "explorer.html"
    path.write_text("mine")
    decoder = chain(layers.Dense(784, "sigmoid"), layers.Reshape((28, 28, 1)))
    with pytest.raises(UserError, match="exists"):
        explorer.write(path, decoder, *images_of())
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


def test_the_page_in_docs_is_that_of_the_shipped_model():
    page = (ROOT / "docs/explorer.html").read_text(encoding="utf-8")
    names = vae_fashion.Settings.names
    model, _ = trained_models.load_model(ROOT / "models/vae_fashion.keras", names)
    described, weights = explorer.describe(model.decoder)
    content = content_of(page)
    assert content["layers"] == described
    np.testing.assert_array_equal(
        content["weights"], np.concatenate([weight.ravel() for weight in weights])
    )
    assert len(content["labels"]) == 2_000
    assert content["dataset"].startswith("Fashion-MNIST (local), 10,000 test images")
    assert len(page.encode()) < 3_000_000
    template = explorer.TEMPLATE.read_text(encoding="utf-8")
    for part in ("style", "script"):
        of_page, of_template = (
            re.findall(f"<{part}>.*?</{part}>", t, re.S) for t in (page, template)
        )
        assert of_page == of_template, "made from an older template: make it again"


# ---------------------------------------------------------------- in a browser


@pytest.fixture
def visit(browser, requests_of):
    """Open a page from its file; at the end it must not have raised, nor asked for any other."""
    contexts = []

    def go(path, **options):
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(600_000)  # a slow machine is no fault
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(error))
        # Chromium also advises on how fast a test reads the canvas.
        page.on("console", lambda said: said.type == "error" and page.errors.append(said.text))
        page.asked = requests_of(page)
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield go
    for context in contexts:
        for page in context.pages:
            assert not page.errors
            own = [page.url, "data:"]
            assert [url for url in page.asked if not url.startswith(tuple(own))] == []
        context.close()


@pytest.fixture
def opened(visit, finished):
    """Open the page of a run: (page, content, decoder)."""

    def go(name, **options):
        folder = finished(name)
        content = content_of((folder / "explorer.html").read_text(encoding="utf-8"))
        decoder = keras.saving.load_model(folder / "decoder.keras")
        return visit(folder / "explorer.html", **options), content, decoder

    return go


def wait_until(page, expression):
    """Wait until an expression is true. Playwright's own way needs an eval, which is forbidden."""
    while not page.evaluate(expression):
        time.sleep(0.05)


def code_of(page):
    """Return the point's code, as the sliders have it."""
    sliders = page.get_by_role("slider")
    return np.array([float(slider.input_value()) for slider in sliders.all()])


def pixels(page, name, *box):
    """Return the grey values of a part of a canvas, 0 to 255."""
    left, top, width, height = box or (0, 0, 28, 28)
    values = page.evaluate(
        "([name, ...box]) => [...document.querySelector(name)"
        ".getContext('2d').getImageData(...box).data]",
        [name, left, top, width, height],
    )
    rgba = np.array(values).reshape(height, width, 4)
    assert (rgba[..., :3] == rgba[..., :1]).all()
    assert (rgba[..., 3] == 255).all()
    return rgba[..., 0]


def assert_decoded(page, decoder):
    """See that the image is that of the sliders' code."""
    expected = decoder.predict(code_of(page)[np.newaxis].astype("float32"), verbose=0)[0, ..., 0]
    assert np.abs(pixels(page, "#decoded") / 255 - expected).max() <= STEP


def place_of(page, x, y):
    """Return the place in the window of a place in the plane, from 0 to 1."""
    box = page.locator("#cloud").bounding_box()
    return float(box["x"] + x * box["width"]), float(box["y"] + y * box["height"])


@pytest.mark.parametrize("name", RUNS)
def test_the_image_follows_the_dragged_point(name, opened):
    page, content, decoder = opened(name)
    shown, others = content["axes"], [i for i in range(decoder.input_shape[1])]
    others = [i for i in others if i not in shown]
    before, images = code_of(page), []
    page.mouse.move(*place_of(page, 0.5, 0.5))
    page.mouse.down()
    for x, y in [(0.2, 0.3), (0.6, 0.25), (0.9, 0.8), (0.31, 0.77)]:
        page.mouse.move(*place_of(page, x, y), steps=4)
        expected = np.array([2 * x - 1, 1 - 2 * y]) * content["limit"]
        np.testing.assert_allclose(code_of(page)[shown], expected, atol=content["limit"] / 200)
        assert_decoded(page, decoder)
        images.append(pixels(page, "#decoded"))
    page.mouse.up()
    page.mouse.move(*place_of(page, 0.9, 0.2))
    assert_decoded(page, decoder)
    np.testing.assert_array_equal(pixels(page, "#decoded"), images[-1])  # it was let go
    assert all(np.abs(a - b).max() > 10 for a, b in itertools.pairwise(images))
    np.testing.assert_array_equal(code_of(page)[others], before[others])


def test_arrow_keys_move_the_point(opened):
    page, content, decoder = opened("conv")
    page.get_by_role("application", name="Latent plane").focus()
    step = content["limit"] / 50
    for key, change in {
        "ArrowRight": (1, 0),
        "ArrowUp": (0, 1),
        "ArrowLeft": (-1, 0),
        "ArrowDown": (0, -1),
        "Shift+ArrowLeft": (-5, 0),
        "Shift+ArrowUp": (0, 5),
    }.items():
        before = code_of(page)
        page.keyboard.press(key)
        moved = (code_of(page) - before)[content["axes"]]
        np.testing.assert_allclose(moved, np.array(change) * step, atol=1e-5)
        assert_decoded(page, decoder)
    for _ in range(20):
        page.keyboard.press("Shift+ArrowRight")
    assert code_of(page)[content["axes"][0]] == pytest.approx(content["limit"])  # and no further
    page.keyboard.press("Home")
    assert not code_of(page).any()
    assert_decoded(page, decoder)


def test_a_finger_moves_the_point_and_not_the_page(opened):
    window = {"width": 360, "height": 640}
    page, content, decoder = opened("conv", viewport=window, has_touch=True, is_mobile=True)
    page.locator("#plane").scroll_into_view_if_needed()
    scrolled = page.evaluate("scrollY")
    touch = page.context.new_cdp_session(page)

    def send(kind, *place):
        points = [{"x": x, "y": y} for x, y in [place] if place]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", *place_of(page, 0.5, 0.8))
    for y in np.linspace(0.8, 0.2, 10):
        send("touchMove", *place_of(page, 0.3, y))
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expected = np.array([-0.4, 0.6]) * content["limit"]
    wait_until(page, f"Math.abs(z[up] - {expected[1]}) < {content['limit'] / 50}")
    np.testing.assert_allclose(code_of(page)[content["axes"]], expected, atol=content["limit"] / 50)
    assert_decoded(page, decoder)
    assert page.evaluate("scrollY") == scrolled


def test_each_dimension_has_a_slider_and_any_two_can_be_shown(opened):
    page, content, decoder = opened("dense")
    assert page.get_by_role("slider").count() == 5
    other = next(i for i in range(5) if i not in content["axes"])
    slider = page.get_by_role("slider", name=f"latent dimension {other + 1}")
    slider.focus()
    before, image = code_of(page), pixels(page, "#decoded")
    for _ in range(15):
        page.keyboard.press("ArrowRight")
    assert code_of(page)[other] > before[other] + 0.2
    np.testing.assert_array_equal(np.delete(code_of(page) - before, other), np.zeros(4))
    assert_decoded(page, decoder)
    assert (pixels(page, "#decoded") != image).any()
    page.get_by_label("across").select_option(f"z {other + 1}")
    page.mouse.click(*place_of(page, 0.25, 0.5))
    assert code_of(page)[other] == pytest.approx(-content["limit"] / 2, abs=content["limit"] / 100)
    assert_decoded(page, decoder)
    page.get_by_label("up").select_option(f"z {other + 1}")  # the two change places
    page.mouse.click(*place_of(page, 0.5, 0.25))
    assert code_of(page)[other] == pytest.approx(content["limit"] / 2, abs=content["limit"] / 100)


def test_two_dimensions_have_no_choice_of_planes(opened):
    page, _, _ = opened("conv")
    assert page.get_by_role("combobox").count() == 0
    assert page.get_by_role("slider").count() == 2


@pytest.mark.parametrize("name", RUNS)
def test_the_manifold_is_what_the_decoder_makes_of_each_place(name, opened):
    page, content, decoder = opened(name)
    last = len(content["dimensions"]) - 1
    page.get_by_role("slider").nth(last).focus()
    page.keyboard.press("End")  # the plane through the point, not through the origin
    page.wait_for_selector("#manifold[data-drawn]", state="attached")
    for column, row in [(0, 0), (19, 3), (7, 12), (12, 19)]:
        z = code_of(page).astype("float32")
        middle = np.array([2 * column + 1 - 20, 20 - 2 * row - 1]) / 20 * content["limit"]
        z[content["axes"]] = middle
        expected = decoder.predict(z[np.newaxis], verbose=0)[0, ..., 0]
        tile = pixels(page, "#manifold", 28 * column, 28 * row, 28, 28)
        assert np.abs(tile / 255 - expected).max() <= STEP


@pytest.mark.parametrize("name", RUNS)
def test_the_nearest_test_image_and_the_class_of_ten(name, opened):
    page, content, _ = opened(name)
    seen = set()
    for x, y in [(0.5, 0.5), (0.35, 0.4), (0.6, 0.62), (0.52, 0.3), (0.05, 0.95)]:
        page.mouse.click(*place_of(page, x, y))
        distance = np.square(content["codes"] - code_of(page)).sum(1)
        order = np.argsort(distance, kind="stable")
        assert (pixels(page, "#nearest") == picture(content, order[0])).all()
        labels = np.array(content["labels"])[order[:10]]
        counts = {label: (labels == label).sum() for label in labels}
        text = page.locator("#class").text_content()
        most = max(counts.values())
        said = [content["classes"][label] for label, n in counts.items() if n == most]
        assert text in [f"{label}: {most} of the 10 nearest test images" for label in said]
        seen.add(text)
    assert len(seen) > 1
    page.get_by_role("button", name="To nearest").click()
    np.testing.assert_allclose(code_of(page), content["codes"][order[0]], atol=1e-6)


def test_a_dot_shows_its_picture(opened):
    page, content, _ = opened("conv")
    tip = page.locator("#tip")
    assert tip.is_hidden()
    for index in (3, 50, 111):
        x, y = content["codes"][index][content["axes"]] / content["limit"] / 2
        page.mouse.move(*place_of(page, 0.5 + x, 0.5 - y))
        apart = np.abs(content["codes"] - content["codes"][index]).max(1)
        [found] = [i for i in np.flatnonzero(apart < 0.02) if tip_shows(page, content, i)][:1]
        assert tip.text_content() == content["classes"][content["labels"][found]]
    page.mouse.move(*place_of(page, -0.02, -0.02))
    assert tip.is_hidden()
    place = place_of(page, 0.5 + x, 0.5 - y)
    page.get_by_label("test images").uncheck()
    page.mouse.move(*place)
    assert tip.is_hidden()
    assert page.locator("#cloud").is_hidden()


def tip_shows(page, content, index):
    return (pixels(page, "#tip canvas") == picture(content, index)).all()


def test_a_sample_of_the_prior_and_the_origin(opened):
    page, _, decoder = opened("dense")
    samples = []
    for _ in range(40):
        page.get_by_role("button", name="Sample the prior").click()
        samples.append(code_of(page))
    assert_decoded(page, decoder)
    assert 0.75 < np.std(samples) < 1.25
    assert abs(np.mean(samples)) < 0.3
    page.get_by_role("button", name="Origin").click()
    assert not code_of(page).any()


@each_other
def test_other_layers_in_the_browser(name, visit, tmp_path):
    decoder = build_other(name)
    height, width, _ = decoder.output_shape[1:]
    dataset, codes = images_of(shape=(height, width, 1))
    explorer.write(tmp_path / "other.html", decoder, dataset, codes)
    page = visit(tmp_path / "other.html")
    z = codes_in(10, 3)
    made = page.evaluate("(all) => all.map((z) => [...decode(Float32Array.from(z))])", z.tolist())
    expected = decoder.predict(z, verbose=0).reshape(10, -1)
    assert expected.std() > 0.05
    assert np.abs(np.array(made) - expected).max() < STEP


def test_the_policy_keeps_the_page_from_the_network_and_from_other_scripts(opened, server):
    page, _, _ = opened("conv")
    server.content = b"something"
    tried = """async (url) => {
        const refused = [];
        document.addEventListener("securitypolicyviolation", (event) =>
            refused.push(event.effectiveDirective));
        const fetched = await fetch(url).then(() => "fetched", () => "refused");
        const image = new Image();
        await new Promise((over) => { image.onload = image.onerror = over; image.src = url; });
        const added = { script: "window.ran = true", style: "body {opacity: 0}" };
        for (const [kind, text] of Object.entries(added)) {
            const element = document.createElement(kind);
            element.textContent = text;
            document.body.append(element);
        }
        const button = document.createElement("button");
        button.setAttribute("onclick", "window.ran = true");
        button.click();
        await new Promise((over) => setTimeout(over, 100));
        return [fetched, window.ran ?? false, getComputedStyle(document.body).opacity, refused];
    }"""
    fetched, ran, opacity, refused = page.evaluate(tried, server.url + "good")
    assert (fetched, ran, opacity) == ("refused", False, "1")
    wanted = {"connect-src", "img-src", "script-src-elem", "style-src-elem", "script-src-attr"}
    assert wanted <= set(refused)
    page.errors.clear()  # the browser names each of them in its console
    page.asked[:] = [url for url in page.asked if not url.startswith(server.url)]


def test_names_of_classes_are_shown_as_they_are(visit, tmp_path):
    decoder = chain(layers.Dense(784, "sigmoid"), layers.Reshape((28, 28, 1)))
    explorer.write(tmp_path / "names.html", decoder, *images_of(names=NAMES))
    page = visit(tmp_path / "names.html")
    assert page.get_by_role("listitem").all_text_contents() == NAMES


def luminance(page, name, element):
    """Return the relative luminance of a colour, as WCAG defines it."""
    text = page.locator(element).first.evaluate("(e, name) => getComputedStyle(e)[name]", name)
    rgb = np.array([int(value) for value in re.findall(r"\d+", text)[:3]]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [
        *(0.2126, 0.7152, 0.0722)
    ]


def test_light_and_dark_can_be_read(opened):
    """Contrast of at least 4.5, as WCAG 2 asks for."""
    grounds = {}
    for scheme in ("light", "dark"):
        page, _, _ = opened("conv", color_scheme=scheme)
        for element, ground in [("h1", "body"), (".quiet", "body"), ("button", "button")]:
            pair = luminance(page, "color", element), luminance(page, "backgroundColor", ground)
            assert (max(pair) + 0.05) / (min(pair) + 0.05) >= 4.5, (scheme, element)
        grounds[scheme] = luminance(page, "backgroundColor", "body")
    assert grounds["dark"] < 0.05 < 0.8 < grounds["light"]


@pytest.mark.parametrize("name", RUNS)
def test_a_narrow_window_holds_everything(name, opened):
    page, _, _ = opened(name, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    visible = "#plane, canvas, button, input, select, p, li"
    for element in page.locator(visible).locator("visible=true").all():
        box = element.bounding_box()
        assert box["x"] >= 0, element
        assert box["x"] + box["width"] <= 360, element
    plane, image = (page.locator(name).bounding_box() for name in ("#plane", "#decoded"))
    assert plane["width"] > 300
    # Both can be seen at once.
    top = min(plane["y"], image["y"])
    assert max(plane["y"] + plane["height"], image["y"] + image["height"]) - top < 740
