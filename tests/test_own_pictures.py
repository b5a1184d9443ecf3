"""Folders of the reader's own pictures, and what a picture must be for a model of 28x28 pixels."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from conftest import contents, report_of, small_mnist
from PIL import Image, ImageDraw

import denoise_fashion
import denoise_mnist
import latent_spaces
import vae_fashion
import watermark_ae
from applications import denoising, inputs, latent_walks, small_images
from common import UserError, batches, data, noisy_office, own_pictures, plotting

LIMITS = {"missed_995": 0.3, "missed_995_noisy": 0, "thickest": 9}
KNOWN = {"dataset": "MNIST", "ground": "dark", **LIMITS}


def picture(number, size=(60, 40)):
    """Return a picture like no other: a light thing on a dark ground."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", size, (number % 40, 20, 20))
    corners = [*rng.integers(6, 16, 2), *rng.integers(24, 34, 2)]
    ImageDraw.Draw(image).rectangle([int(c) for c in corners], fill=(200, 200, number % 256))
    return image


def pictures(folder, count=40, classes=("cats", "dogs")):
    """Write pictures, the classes by turns, and return the folder."""
    for number in range(count):
        path = folder / classes[number % len(classes)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return folder


def parts_of(images):
    return {
        part: {x.tobytes() for x in getattr(images, f"x_{part}")}
        for part in ("train", "validation", "test")
    }


# ---------------------------------------------------------------- the folder


def test_subfolders_are_classes_and_every_picture_is_in_one_part(tmp_path, capsys):
    pictures(tmp_path / "mine", 60)
    picture(99).save(tmp_path / "mine" / "beside.png")
    (tmp_path / "mine/cats/.hidden.png").write_bytes(b"")
    (tmp_path / "mine/notes").mkdir()
    (tmp_path / "mine/notes/text.txt").write_text("none")
    images = data.load_mnist(tmp_path / "mine")
    assert images.class_names == ["cats", "dogs"]
    assert (images.name, images.source) == ("own pictures: mine", "local")
    counts = list(images.summary().values())[2:]
    assert sum(counts) == 60
    assert min(counts) >= 3
    assert images.x_train.shape[1:] == (28, 28, 1)
    assert images.x_train.dtype == np.float32
    assert set(images.y_train) == {0, 1}
    parts = list(parts_of(images).values())
    assert len(set.union(*parts)) == sum(map(len, parts)) == 60
    assert f"{counts[0]:,} to train on, {counts[1]:,} for validation" in capsys.readouterr().out


def test_no_subfolders_are_one_class(tmp_path):
    pictures(tmp_path / "all", 30, ["."])
    images = data.load_fashion_mnist(tmp_path / "all")
    assert images.class_names == ["all"]
    examples = images.examples()
    assert list(examples)[:2] == ["all", "all (2)"]
    assert len(set(examples.values())) == len(examples)


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8")
def test_names_of_classes_are_shown_in_characters_that_can_be(tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"\xe9")
    pictures(folder, 40, [os.fsdecode(b"caf\xe9"), "a\nb", "\x1b[2J"])
    (folder / "a\nb/\x1b[2J.png").write_text("text")
    images = data.load_mnist(folder)
    assert sorted(images.class_names) == [r"\x1b[2J", r"a\nb", r"caf\udce9"]
    assert images.name == r"own pictures: \udce9"
    assert "\x1b" not in capsys.readouterr().out
    rows = {name: images.x_test[:2] for name in images.class_names}
    plotting.image_rows(rows, tmp_path / "a.png", images.name, images.name)


def test_copies_stay_together_under_any_name_class_and_lossless_format(tmp_path):
    pictures(tmp_path / "mine", 60)
    for number in range(60):
        path = tmp_path / "mine" / ("dogs", "cats")[number % 2] / f"copy{number}.bmp"
        picture(number).save(path)
    parts = list(parts_of(data.load_mnist(tmp_path / "mine")).values())
    assert len(set.union(*parts)) == sum(map(len, parts)) == 60


def test_a_further_picture_moves_few_others(tmp_path):
    before = parts_of(data.load_mnist(pictures(tmp_path / "mine", 80)))
    after = parts_of(data.load_mnist(pictures(tmp_path / "mine", 90)))
    assert all(before[part] <= after[part] for part in before)


def test_limit_counts_validation_in(tmp_path):
    images = data.load_mnist(pictures(tmp_path / "mine", 60), limit=10)
    assert list(images.summary().values())[2:] == [9, 1, min(10, len(images.x_test))]


def test_a_dataset_in_the_folder_wins(tmp_path):
    pictures(tmp_path, 40)
    np.savez(tmp_path / "mnist.npz", **small_mnist())
    assert data.load_mnist(tmp_path).name == "MNIST"


def test_what_cannot_be_read_is_named_and_left_out(tmp_path, capsys):
    pictures(tmp_path / "mine", 40)
    (tmp_path / "mine/cats/broken.jpg").write_bytes(b"nothing")
    content = (tmp_path / "mine/cats/0.png").read_bytes()
    (tmp_path / "mine/dogs/cut.png").write_bytes(content[: len(content) // 2])
    images = data.load_mnist(tmp_path / "mine")
    assert sum(list(images.summary().values())[2:]) == 40
    said = capsys.readouterr().out
    assert "2 left out" in said
    assert "broken.jpg: not an image" in said
    assert "cut.png: cannot be read" in said
    picture(77).save(tmp_path / "mine/beside.png")
    picture(78).save(tmp_path / "mine/.hidden.png")
    data.load_mnist(tmp_path / "mine")
    assert "3 left out" in (said := capsys.readouterr().out)
    assert "beside.png: beside the subfolders" in said


def test_too_few_pictures_are_refused(tmp_path, error_of):
    for number in range(40):
        path = tmp_path / f"{number}.png"
        picture(number % 29).save(path)
    line = error_of(denoise_mnist.main, "--data-dir", tmp_path)
    assert "29 pictures that differ and can be read; at least 30 are needed" in line
    assert not Path("runs").exists()
    (tmp_path / "empty").mkdir()
    assert "no MNIST in" in error_of(denoise_mnist.main, "--data-dir", tmp_path / "empty")


def test_pictures_are_fitted_with_the_median_of_their_border():
    image = np.full((10, 40, 1), 0.25, "float32")
    image[3:7, 10:30] = 1
    fitted = own_pictures.fit_square(image, 28)
    assert fitted.shape == (28, 28, 1)
    assert (fitted[:10] == 0.25).all()
    assert fitted[14, 14] == 1
    square = np.random.default_rng(0).random((28, 28, 1), dtype="float32")
    np.testing.assert_array_equal(own_pictures.fit_square(square, 28), square)
    assert own_pictures.fit_square(np.ones((1, 900, 1), "float32"), 28).shape == (28, 28, 1)


def test_dark_ink_on_a_transparent_ground_is_seen():
    ink = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    ImageDraw.Draw(ink).rectangle([10, 10, 30, 30], fill=(0, 0, 0, 255))
    ink.save("ink.png")
    assert np.ptp(own_pictures.read_on_any_ground("ink.png")) == 1


# ---------------------------------------------------------------- patches


def test_patches_are_pieces_of_their_picture_and_stay_in_one_part(tmp_path, monkeypatch):
    monkeypatch.setattr(own_pictures, "PATCHES", 200)
    for number in range(40):  # the grey level says which picture a patch is of
        Image.new("L", (90, 70), 5 * number + 5).save(tmp_path / f"{number}.png")
    Image.new("L", (90, 20), 255).save(tmp_path / "small.png")
    images = data.load_pictures(tmp_path, patches=True)
    levels = [set(getattr(images, f"x_{p}")[:, 0, 0, 0]) for p in ("train", "validation", "test")]
    assert len(set.union(*levels)) == sum(map(len, levels)) == 40
    assert len(images.x_train) == 5 * len(levels[0])  # 200 // 41 + 1
    assert (images.x_train == images.x_train[:, :1, :1]).all()


def test_patches_are_for_the_unet_and_for_pictures(error_of, tmp_path):
    line = error_of(denoise_fashion.main, "--patches", "--data-dir", tmp_path)
    assert "--patches is for --architecture unet" in line
    words = ["--patches", "--architecture", "unet"]
    assert "--patches is for" in error_of(denoise_fashion.main, *words)
    assert "0 pictures that differ" in error_of(
        denoise_fashion.main, *words, "--data-dir", tmp_path
    )


def test_a_denoiser_of_patches_is_applied_to_a_photo(
    tmp_path, monkeypatch, figures_left_out, capsys
):
    monkeypatch.setattr(own_pictures, "PATCHES", 400)
    pictures(tmp_path / "photos", 30)
    words = "--architecture unet --patches --limit 60 --epochs 1 --output-dir run".split()
    denoise_fashion.main([*words, "--data-dir", str(tmp_path / "photos")])
    assert report_of("run")["dataset"]["name"] == "own pictures: patches of photos"
    picture(50, (90, 61)).save("photo.png")
    words = ["--model", "run/model.keras", "--output-dir", "out"]
    capsys.readouterr()
    denoise_fashion.main(["--input", "photo.png", *words])
    with Image.open("out/photo.png") as image:
        assert image.size == (90, 61)
    assert "28x28" not in capsys.readouterr().out
    report = Path("run/metrics.json")
    report.write_text(report.read_text().replace("patches of photos", "photos"))
    denoise_fashion.main(["--input", "photo.png", *words[:2], "--output-dir", "out_2"])
    assert "scaled to 28x28 pixels. For larger ones train with --patches" in capsys.readouterr().out


# ---------------------------------------------------------------- pairs of pages


def pairs(folder, count=20, distinct=10):
    """Write pairs of pages; several dirty ones have the same clean one."""
    for number in range(count):
        rng = np.random.default_rng(number % distinct)
        clean = np.where(rng.random((40, 50)) < 0.1, 0, 255).astype(np.uint8)
        dirty = (clean * 0.8 + number % 7).astype(np.uint8)
        for part, pixels, ending in (("dirty", dirty, "jpg"), ("clean", clean, "png")):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / part / f"{number}.{ending}")
    return folder


def test_pairs_are_split_by_their_clean_page(tmp_path):
    documents = noisy_office.load_noisy_office(pairs(tmp_path / "scans"))
    parts = [documents.train, documents.validation, documents.test]
    assert sum(map(len, parts)) == 20
    clean = [{page.clean.tobytes() for page in part} for part in parts]
    assert len(set.union(*clean)) == sum(map(len, clean)) == 10
    assert all(page.dirty.shape == page.clean.shape == (40, 50, 1) for page in documents.train)
    assert documents.name == "own pictures: scans"


def test_pairs_that_do_not_fit_are_named(tmp_path):
    pairs(tmp_path)
    (tmp_path / "clean/3.png").unlink()
    with pytest.raises(UserError, match=r"3\.jpg: its clean twin is missing"):
        noisy_office.load_noisy_office(tmp_path)
    Image.new("L", (30, 40)).save(tmp_path / "clean/3.png")
    with pytest.raises(UserError, match=r"3\.jpg: 50x40 pixels, but .*3\.png has 30x40"):
        noisy_office.load_noisy_office(tmp_path)
    with pytest.raises(UserError, match="4 clean pages that differ"):
        noisy_office.load_noisy_office(pairs(tmp_path / "few", distinct=4))
    for part, ending in (("dirty", "png"), ("clean", "jpg")):
        folder = pairs(tmp_path / f"double_{part}")
        Image.new("L", (50, 40)).save(folder / part / f"3.{ending}")
        with pytest.raises(UserError, match=rf"{part}/3\.jpg and .*/3\.png are pages of one name"):
            noisy_office.load_noisy_office(folder)


# ---------------------------------------------------------------- pictures for a model


def digit(size=(300, 200), ink=0, paper=255):
    """Return a seven as a picture, thick strokes off the middle."""
    image = Image.new("L", size, paper)
    strokes = [(40, 30), (120, 30), (70, 170)]
    ImageDraw.Draw(image).line(strokes, fill=ink, width=16)
    return image


def as_floats(image):
    return np.asarray(image, "float32")[..., None] / 255


@pytest.mark.parametrize(
    ("ink", "paper", "expected"), [(0, 255, "light"), (255, 0, "dark"), (60, 170, "light")]
)
def test_the_ground_is_found(ink, paper, expected):
    image = as_floats(digit(ink=ink, paper=paper))
    assert small_images.ground(image) == expected
    noise = np.random.default_rng(0).normal(0, 0.3, image.shape)
    assert small_images.ground(np.clip(image + noise, 0, 1).astype("float32")) == expected


def test_where_there_is_no_ground_none_is_found():
    assert small_images.ground(np.full((50, 50, 1), 0.5, "float32")) is None
    rng = np.random.default_rng(0)
    assert small_images.ground(rng.random((200, 200, 1), dtype="float32")) is None


def test_a_digit_becomes_as_mnists_are(capsys):
    digit().save("seven.png")
    black, inverted = small_images.read_small("seven.png", KNOWN)
    assert inverted
    assert "dark on light" in capsys.readouterr().out
    digit(ink=255, paper=0).save("white.png")
    white, inverted = small_images.read_small("white.png", KNOWN)
    assert not inverted
    np.testing.assert_allclose(black, white, atol=0.01)
    rows, columns = np.nonzero(white[..., 0] > 0.1)
    assert np.ptp(rows) + 1 == 20
    assert np.ptp(columns) + 1 < 20
    weights = white[..., 0] / white.sum()
    places = np.arange(28)
    for axis in (0, 1):
        assert abs((weights.sum(1 - axis) * places).sum() - 13.5) <= 0.6
    assert white.max() > 0.95
    # Grey paper and a speck of dust change nothing.
    grey = digit(ink=50, paper=180)
    grey.putpixel((290, 190), 0)
    grey.save("grey.png")
    found, _ = small_images.read_small("grey.png", KNOWN)
    np.testing.assert_allclose(found, white, atol=0.05)


def test_a_picture_of_28x28_pixels_is_taken_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(image).save("a.png")
    found, _ = small_images.read_small("a.png", KNOWN)
    np.testing.assert_array_equal(found, as_floats(image))


def test_clothes_fill_the_square_and_other_pictures_stay_whole():
    digit().save("shirt.png")
    filled, _ = small_images.read_small("shirt.png", {**KNOWN, "dataset": "Fashion-MNIST"})
    rows = np.flatnonzero(filled[..., 0].max(1) > 0.5)
    assert (rows[0], rows[-1]) == (0, 27)
    whole, _ = small_images.read_small("shirt.png", {**KNOWN, "dataset": "own pictures: x"})
    assert np.ptp(np.flatnonzero(whole[..., 0].max(1) > 0.5)) < 20


def test_what_is_inverted_depends_on_the_training_images(capsys):
    light = as_floats(digit())
    turned = small_images.turned
    assert turned(light, "a", {"ground": "dark"})[1]
    assert not turned(light, "a", {"ground": "light"})[1]
    assert not turned(light, "a", {"ground": None})[1]
    capsys.readouterr()
    image, inverted = turned(light, "a", {"ground": "dark"}, invert=False)
    assert not inverted
    assert image is light
    assert "kept" in capsys.readouterr().out


def test_typical_images_by_hand():
    images = np.zeros((200, 28, 28, 1), "float32")
    images[:, 8:20, 8:20] = np.linspace(0.5, 1, 200)[:, None, None, None]
    kept = small_images.typical(images, images * 0.9)
    expected = 0.01 * (images**2).mean((1, 2, 3)) / images.var((1, 2, 3))
    limit = pytest.approx(np.quantile(expected, 0.995), 1e-4)
    assert kept == {"ground": "dark", "missed_995": limit, "thickest": 12}
    assert small_images.typical(1 - images, images)["ground"] == "light"
    mixed = np.concatenate([images[:100], 1 - images[100:]])
    assert small_images.typical(mixed, mixed)["ground"] is None


def test_a_picture_unlike_the_training_images_is_said_to_be_so(capsys):
    image = np.zeros((28, 28, 1), "float32")
    image[8:20, 10:14] = 1
    warn = small_images.warn_if_unlike
    warn("a.png", image, [image * 0.9], [KNOWN])
    assert capsys.readouterr().out == ""
    warn("a.png", image, [image * 0], [KNOWN])
    assert "*** a.png: unlike the images" in capsys.readouterr().out
    noise = np.random.default_rng(0).normal(0, 0.5, image.shape)
    noisy = np.clip(image + noise, 0, 1).astype("float32")
    warn("a.png", noisy, [image], [{**KNOWN, "missed_995_noisy": 5.0}])
    warn("a.png", image, [image / 2], [{**KNOWN, "missed_995": np.nan}])
    warn("a.png", image, [image * 0, image], [{**KNOWN, "missed_995": 5.0}] * 2)
    assert capsys.readouterr().out == ""
    # What comes out is even, whatever the limit: tiny things may be lost in the test images, too.
    warn("a.png", image, [image * 0], [{**KNOWN, "missed_995": 5.0}])
    assert "no nearer to it than an even grey" in capsys.readouterr().out
    image[4:24, 4:24] = 1
    warn("a.png", image, [image], [KNOWN])
    assert "a.png: unlike the images" in capsys.readouterr().out
    # Strokes at the border are no noise there.
    image = np.zeros((28, 28, 1), "float32")
    image[10:14] = 1
    warn("a.png", image, [image * 0], [{**KNOWN, "missed_995_noisy": 5.0}])
    assert "a.png: unlike the images" in capsys.readouterr().out


def test_shipped_models_know_photos_from_digits_and_clothes(capsys):
    digit().save("seven.png")
    Image.fromarray(skimage.data.chelsea()).save("photo.png")
    Image.fromarray(skimage.data.cell()).save("cell.png")  # becomes one thick stroke
    for main in (denoise_mnist.main, latent_spaces.main, vae_fashion.main):
        files = [] if main is vae_fashion.main else ["cell.png", "seven.png"]
        main(["--input", "photo.png", *files])
        said = capsys.readouterr().out
        assert "*** photo.png: unlike" in said
        assert ("*** cell.png: unlike" in said) == bool(files)
        assert "*** seven.png" not in said
    [path] = Path("runs").glob("denoise*/seven.png")
    with Image.open(path) as image:  # inverted back
        pixels = np.asarray(image)
    assert pixels.shape == (28, 28)
    assert np.median(pixels) > 200
    assert {p.name for p in Path("runs/latent_spaces_encoded").glob("*.png")} == set(
        ("photo.png", "cell.png", "seven.png")
    )


def test_known_of_a_model_without_a_report_or_with_a_strange_one():
    class Settings:
        model, name = "run/model.keras", "x"

    assert inputs.known_of(Settings)["ground"] == "dark"
    Path("run").mkdir()
    for content in ([], {"dataset": 3}, {"models": []}, {"typical": "x"}, {"typical": {}}):
        Path("run/metrics.json").write_text(json.dumps(content))
        assert inputs.known_of(Settings)["dataset"] == ""
    report = {"dataset": {"name": "a"}, "models": {"b": {"typical": {"ground": "light"}}}}
    Path("run/metrics.json").write_text(json.dumps(report))
    assert inputs.known_of(Settings, "b")["ground"] == "light"
    assert inputs.known_of(Settings, "c")["ground"] == "dark"


def test_a_tiled_picture_has_no_frame():
    """A network that darkens what is next to the edge of its input, as zeros around it make it."""

    def network(piece, training):
        padded = np.pad(piece, [(0, 0), (1, 1), (1, 1), (0, 0)])
        return np.minimum(piece, padded[:, :-2, 1:-1])

    image = np.ones((40, 56, 1), "float32")
    np.testing.assert_array_equal(denoising.denoise(network, image, 4), image)


def test_variations_differ_by_default():
    class Decoder:
        def __call__(self, z):
            return np.broadcast_to(z[:, :1, None, None], (len(z), 28, 28, 1))

    rng = np.random.default_rng(0)
    found = latent_walks.vary_widely(Decoder(), np.zeros(2, "float32"), 8, rng)
    levels = np.sort([0, *(image[0, 0, 0] for image in found)])
    assert np.diff(levels).min() > 0.02
    assert 0.3 < max(abs(levels)) < 1.2


# ---------------------------------------------------------------- whole runs


@pytest.mark.parametrize("classes", [1, 2, 60])
def test_runs_on_pictures_end_in_figures(tmp_path, classes, monkeypatch):
    monkeypatch.setattr(batches, "MOST_PASSES", 1)
    captions, save = [], plotting.save

    def keep_caption(figure, path, caption, show=False):
        captions.append(caption)
        save(figure, path, caption, show)

    monkeypatch.setattr(plotting, "save", keep_caption)
    names = [f"class ${number} with a long name" for number in range(classes)]
    words = ["--data-dir", str(pictures(tmp_path / "mine", 120, names)), "--epochs", "1"]
    vae_fashion.main([*words, "--architecture", "dense", "--output-dir", "vae"])
    assert report_of("vae")["dataset"]["name"] == "own pictures: mine"
    assert (Path("vae/latent.png").stat().st_size) > 10_000
    if classes == 1:
        denoise_mnist.main([*words, "--output-dir", "mnist"])
        assert report_of("mnist")["typical"]["ground"] == "dark"
        watermark_ae.main([*words, "--output-dir", "watermark"])
        denoise_fashion.main([*words, "--output-dir", "fashion"])
    assert all("own pictures: mine (local), " in caption for caption in captions)
    # What only digits or clothes have is said of no other pictures.
    known = re.compile("digit|MNIST|cloth|black ground,|stroke|stripe|print|strap", re.IGNORECASE)
    assert [caption for caption in captions if known.search(caption)] == []


def test_few_pictures_make_an_epoch_of_many_passes():
    class Settings:
        max_steps_per_epoch, batch_size, seed, devices = 140, 32, 0, 1

    def steps(count, few):
        return batches.Batches(Settings, count, None, few).steps_per_epoch

    assert (steps(81, False), steps(81, True), steps(1_000, True)) == (3, 60, 140)
    Settings.max_steps_per_epoch = None
    assert steps(81, True) == 3


def test_legend_of_many_classes_names_those_with_most_points():
    import matplotlib.pyplot as plt

    labels = np.repeat(np.arange(60), np.arange(60) + 1)
    points = np.random.default_rng(0).normal(size=(len(labels), 2))
    axis = plt.figure().gca()
    plotting.mark_classes(axis, points, labels, [f"class {n}" for n in range(60)])
    shown = axis.get_legend_handles_labels()[1]
    assert shown == ["40 others", *(f"class {n}" for n in range(40, 60))]
    styles = {(c.get_facecolor().tobytes(), len(c.get_paths()[0])) for c in axis.collections[1:]}
    assert len(styles) > 12
    plt.close()


def test_show_without_a_display_says_so(error_of, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    try:
        for backend in ("agg", "svg", "tkagg", "module://os"):
            monkeypatch.setitem(plotting.matplotlib.rcParams, "backend", backend)
            line = error_of(denoise_mnist.main, "--show", "--data-dir", "nowhere")
            assert "--show needs a display, and there is none" in line
    finally:
        plotting.set_up(show=False)


def test_two_outputs_of_one_name_are_refused(error_of):
    for name in ("a.png", "a_sheet.png"):
        digit().save(name)
    before = contents(".")
    line = error_of(vae_fashion.main, "--input", "a.png", "a_sheet.png", "--output-dir", "out")
    assert "a_sheet.png: two outputs would be called that" in line
    shutil.rmtree("out", ignore_errors=True)
    assert contents(".") == before


def test_pictures_without_anything_lighter_than_their_border():
    blank = np.full((600, 500), 255, np.uint8)
    blank[np.random.default_rng(0).random(blank.shape) < 0.3] = 250
    Image.fromarray(blank).save("a.png")
    blank[200:400, 200:300] = 0
    Image.fromarray(blank).save("b.png")
    for name in ("a.png", "b.png"):
        image, inverted = small_images.read_small(name, KNOWN, invert=False)
        assert image.shape == (28, 28, 1)
        assert np.isfinite(image).all()
        assert not inverted
