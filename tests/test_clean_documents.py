"""clean_documents.py: the data, the networks, what is computed, and the script as a whole."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT, predict_elsewhere, python, stop_after_one_epoch
from PIL import Image, ImageOps

import clean_documents as script
from common import UserError, data, documents, images, metrics, synthetic

SHIPPED = ROOT / "models" / "clean_documents.keras"


@pytest.fixture
def small(monkeypatch):
    """Make a training run of seconds."""
    monkeypatch.setattr(script, "DRAWN", 4)
    monkeypatch.setattr(script, "PATCH", 32)
    monkeypatch.setattr(script, "PATCHES_PER_PAGE", 4)


@pytest.fixture(scope="module")
def shipped():
    return keras.saving.load_model(SHIPPED, compile=False)


@pytest.fixture(scope="module")
def page():
    """A drawn page of odd size, (dirty, clean), each uint8 (h, w, 1)."""
    return synthetic.pages(1, seed=5, height=333, width=441, scale=1)[0][:2]


def kaggle(folder, numbers, text=lambda number: (number - 1) // 12):
    """Write pages in Kaggle's layout: those with the same `text` share a clean page."""
    for number in numbers:
        for part, seed in (
            ("train", number),
            ("train_cleaned", 1_000 + 3 * text(number) + number % 3),
        ):
            path = folder / part / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(seed).integers(0, 256, (270, 280), dtype=np.uint8)
            Image.fromarray(pixels).save(path)


def uci(folder):
    """Write pages in UCI's layout: three families, two fonts, four kinds of dirt."""
    for font in ("Fontfre", "FontLtm"):
        for family in ("TR", "VA", "TE"):
            names = [("clean_images_grayscale", f"{font}_Clean_{family}.png")]
            names += [
                ("simulated_noisy_images_grayscale", f"{font}_Noise{kind}_{family}.png")
                for kind in "cfpw"
            ]
            for part, name in names:
                path = folder / "SimulatedNoisyOffice" / part / name
                path.parent.mkdir(parents=True, exist_ok=True)
                seed = list(name.encode())
                pixels = np.random.default_rng(seed).integers(0, 256, (64, 72), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
    return folder


# ---------------------------------------------------------------- data


def test_kaggles_pages_are_split_by_family_and_by_clean_page(tmp_path):
    family = [n for n in range(1, 73) if n % 3 != 1]
    kaggle(tmp_path / "noisy-office", family)
    office = data.load_documents(tmp_path)
    train, validation, test = office.train, office.validation, office.test
    assert {int(page.name) % 3 for page in train + validation} == {2}
    assert {int(page.name) % 3 for page in test} == {0}
    assert (len(train), len(validation), len(test)) == (20, 4, 24)
    texts = [{page.clean.tobytes() for page in part} for part in (train, validation, test)]
    assert not texts[0] & texts[1]
    assert not (texts[0] | texts[1]) & texts[2]
    assert [page.kind for page in train[:4]] == ["coffee", "folds", "footprints", "wrinkles"]
    assert [page.kind for page in test[:4]] == ["coffee", "folds", "footprints", "wrinkles"]
    assert train[0].dirty.shape == (270, 280, 1)
    assert train[0].dirty.dtype == np.uint8
    assert office.summary() == {
        "name": "NoisyOffice", "source": "local", "train": 20, "validation": 4, "test": 24,
    }  # fmt: skip
    few = data.load_documents(tmp_path, limit=10)
    assert len(few.train) + len(few.validation) == 10
    assert len(few.test) == 10


def test_ucis_pages_are_split_by_their_names(tmp_path):
    office = data.load_documents(uci(tmp_path))
    for part, family in (("train", "TR"), ("validation", "VA"), ("test", "TE")):
        pages = getattr(office, part)
        assert len(pages) == 8
        assert {page.name[-2:] for page in pages} == {family}
    assert [page.kind for page in office.train[:4]] == ["coffee", "folds", "footprints", "wrinkles"]


def test_broken_page_folders_are_named(tmp_path):
    def error(folder):
        with pytest.raises(UserError) as info:
            data.load_documents(folder)
        return str(info.value)

    assert "no such folder" in error(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "SimulatedNoisyOffice" in error(tmp_path / "empty")
    kaggle(tmp_path / "a", [2, 3, 5, 6])
    (tmp_path / "a" / "train_cleaned" / "5.png").unlink()
    assert "5.png is missing" in error(tmp_path / "a")
    Image.new("L", (9, 8)).save(tmp_path / "a" / "train_cleaned" / "5.png")
    assert "280x270 and 9x8" in error(tmp_path / "a")
    (tmp_path / "a" / "train_cleaned" / "5.png").write_text("no image")
    assert "5.png: not an image" in error(tmp_path / "a")
    kaggle(tmp_path / "b", [2, 5])
    assert "2 training and 0 test pages" in error(tmp_path / "b")
    kaggle(tmp_path / "c", [2, 3])
    (tmp_path / "c" / "train" / "2.png").rename(tmp_path / "c" / "train" / "page.png")
    assert "neither Kaggle's name" in error(tmp_path / "c")


def zipped(folder, path, within=None, extra=()):
    """Zip UCI's folder; `within` puts that zip into another."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(uci(folder).rglob("*.png")):
            archive.write(file, file.relative_to(folder))
        for name in extra:
            archive.writestr(name, b"bad")
    if within:
        with zipfile.ZipFile(within, "w") as outer:
            outer.write(path, "NoisyOffice.zip")
    return (within or path).read_bytes()


def test_pages_are_downloaded_once_and_unpacked(tmp_path, server, monkeypatch):
    content = zipped(tmp_path / "uci", tmp_path / "inner.zip", tmp_path / "outer.zip")
    server.files["noisyoffice.zip"] = content
    monkeypatch.setattr(data, "UCI_URL", server.url + "files/noisyoffice.zip")
    office = data.load_documents()
    assert office.summary()["source"] == "download"
    assert len(office.test) == 8
    server.files.clear()
    assert data.load_documents().summary()["source"] == "cache"


def test_nothing_of_an_archive_leaves_its_folder(tmp_path):
    escaping = "../../SimulatedNoisyOffice/clean_images_grayscale/Fontxxx_Clean_TE.png"
    zipped(tmp_path / "uci", tmp_path / "a.zip", extra=[escaping, "../evil.png", "/tmp/evil.txt"])
    target = tmp_path / "deep" / "down" / "pages"
    data.unpack_pages(tmp_path / "a.zip", target)
    assert {path.name for path in (tmp_path / "deep").rglob("*") if path.is_file()} >= {
        "Fontxxx_Clean_TE.png"
    }
    assert [path for path in (tmp_path / "deep").rglob("*.*") if target not in path.parents] == []
    assert not list(tmp_path.rglob("evil*"))


def test_without_a_usable_archive_pages_are_drawn_and_nothing_is_left(
    tmp_path, server, monkeypatch, capsys
):
    content = zipped(tmp_path / "uci", tmp_path / "a.zip")
    server.files["noisyoffice.zip"] = content[: len(content) // 2]
    monkeypatch.setattr(data, "UCI_URL", server.url + "files/noisyoffice.zip")
    office = data.load_documents(limit=10)
    assert office.summary()["source"] == "synthetic"
    assert office.name == "synthetic pages"
    assert "*** NOT NoisyOffice" in capsys.readouterr().out
    assert [path for path in (tmp_path / "keras_home").rglob("*") if path.is_file()] == []
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(UserError, match="no pages"):
        data.unpack_pages(tmp_path / "other.zip", tmp_path / "x")


def test_drawn_pages_repeat_by_seed_and_look_like_the_real_ones_in_numbers():
    drawn = synthetic.pages(24, seed=3)
    again = synthetic.pages(2, seed=3)
    for one, two in zip(drawn, again, strict=False):
        np.testing.assert_array_equal(one[0], two[0])
        assert one[3] == two[3]
    assert len({page[0].tobytes() for page in drawn}) == 24
    assert {page[2] for page in drawn} == set(synthetic.KINDS)
    dirty, clean = (np.stack([page[part] for page in drawn]) / 255 for part in (0, 1))
    # NoisyOffice: RMSE of the dirty pages 0.158, clean pages 0.92 on average, 70% pure white.
    assert 0.1 < metrics.rmse(clean, dirty) < 0.35
    assert 0.82 < clean.mean() < 0.96
    assert 0.55 < (clean == 1).mean() < 0.9
    assert all(len(page[3]) >= 2 for page in drawn)
    assert any(any(c.isdigit() for c in " ".join(page[3])) for page in drawn)


def test_each_kind_of_dirt_changes_paper_and_keeps_letters():
    clean = synthetic.pages(1, seed=1, scale=1)[0][1]
    for kind in synthetic.KINDS:
        dirty = synthetic.soil(clean, seed=4, kind=kind)
        assert dirty.shape == clean.shape
        assert dirty.std() > 5
        letters, paper = dirty[clean < 50].mean(), dirty[clean == 255].mean()
        assert letters < 0.6 * paper
        np.testing.assert_array_equal(dirty, synthetic.soil(clean, seed=4, kind=kind))


# ---------------------------------------------------------------- networks


def test_parameters_and_shapes():
    tutorial, unet = script.build_tutorial(), script.build_unet()
    assert tutorial.count_params() == 38_145
    assert unet.count_params() == 274_201
    for network in (tutorial, unet):
        assert network(np.zeros((1, 40, 72, 1))).shape == (1, 40, 72, 1)
    narrow = [layer.output.shape[-1] for layer in unet.layers if "max_pool" in layer.name]
    assert narrow == [12, 24, 48]


def test_unet_starts_from_the_dirty_page():
    """With a last layer of zeros the network is the identity, clipped."""
    unet = script.build_unet()
    last = unet.get_layer("change")
    last.set_weights([np.zeros_like(weight) for weight in last.get_weights()])
    page = np.random.default_rng(0).uniform(-0.2, 1.2, (1, 16, 24, 1)).astype("float32")
    np.testing.assert_allclose(unet(page), np.clip(page, 0, 1), atol=1e-6)


def test_tiles_leave_no_seam(shipped, page, monkeypatch):
    dirty = page[0].astype("float32") / 255
    height, width = dirty.shape[:2]
    padded = images.pad_to_multiple(dirty, 8)[None]
    whole = (shipped(padded) + shipped(padded[:, ::-1, ::-1])[:, ::-1, ::-1]) / 2
    whole = np.asarray(whole)[0, :height, :width]
    for tile in (64, 128):
        monkeypatch.setattr(documents, "TILE", tile)
        tiled = documents.cleaner(shipped)(dirty)
        assert tiled.shape == dirty.shape
        assert np.abs(tiled - whole).max() < 1 / 255
    # The margin is what makes it so.
    monkeypatch.setattr(documents, "MARGIN", 0)
    assert np.abs(documents.cleaner(shipped)(dirty) - whole).max() > 1 / 255


def test_tiles_are_put_where_they_belong():
    image = np.random.default_rng(0).uniform(size=(37, 53, 1)).astype("float32")
    seen = []

    def function(piece):
        seen.append(piece.shape)
        return 2 * piece

    np.testing.assert_array_equal(images.in_tiles(function, image, 16, 8), 2 * image)
    assert max(shape[0] for shape in seen) == 29
    assert len(seen) == 12


# ---------------------------------------------------------------- what is computed


def test_evaluate_pools_over_pixels():
    def flat(height, error, kind):
        clean = np.full((height, 10, 1), 255, np.uint8)
        return data.Page("", kind, clean - np.uint8(error), clean)

    pages = [flat(10, 51, "coffee"), flat(30, 0, "folds"), flat(20, 102, "coffee")]
    found = documents.evaluate(lambda page: page, pages)
    assert found["rmse"] == pytest.approx(np.sqrt((10 * 0.04 + 20 * 0.16) / 60), rel=1e-5)
    assert found["rmse_coffee"] == pytest.approx(np.sqrt((10 * 0.04 + 20 * 0.16) / 30), rel=1e-5)
    assert found["rmse_folds"] == 0
    assert found["psnr"] == np.inf


def test_background_median_flattens_light_and_keeps_letters():
    ground = np.linspace(0.5, 1, 100)[:, None, None] * np.ones((100, 100, 1))
    letters = np.ones((100, 100, 1))
    letters[40:60, 50:53] = 0.2
    restored = metrics.background_median((ground * letters).astype("float32"))
    np.testing.assert_allclose(restored[20:80, 20:80], letters[20:80, 20:80], atol=0.03)


def test_windows_and_patches_keep_dirty_and_clean_together(page):
    both = data.Page("", "", page[1], page[1])
    dirty, clean = documents.windows([both], 128, 200)
    assert dirty.shape == (4, 128, 200, 1)
    np.testing.assert_array_equal(dirty, clean)
    np.testing.assert_array_equal(dirty[3], page[1][128:256, 200:400] / np.float32(255))
    with pytest.raises(UserError, match="smaller than"):
        documents.windows([both], 1_000, 10)
    rng = np.random.default_rng(0)
    for _ in range(20):
        dirty, clean = script.draw_patch(both, False, rng)
        assert dirty.shape == (128, 128)
        np.testing.assert_array_equal(dirty, clean)
    changed = [script.draw_patch(both, True, rng) for _ in range(40)]
    shares = np.mean([not np.array_equal(dirty, clean) for dirty, clean in changed])
    assert 0.25 < shares < 0.75
    assert all(part.min() >= 0 and part.max() <= 1 for pair in changed for part in pair)
    assert all(part.dtype == np.float32 for pair in changed for part in pair)


# ---------------------------------------------------------------- the script as a whole

SMALL = ["--synthetic", "--limit", "12", "--epochs", "1", "--batch-size", "4"]


def test_smoke_run_writes_all_it_says(small, capsys):
    script.main(SMALL)
    folder = Path("runs/clean_documents")
    report = json.loads((folder / "metrics.json").read_text())
    assert report["parameters"] == 274_201
    assert report["architecture"] == "unet"
    assert report["dataset"]["source"] == "synthetic"
    rows = [report["test"], *report["baselines"].values()]
    assert set(report["baselines"]) == {"noisy_input", "background_median"}
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert {"rmse", "psnr", "rmse_300dpi", "rmse_coffee"} <= rows[0].keys()
    for name in ("pages.png", "page_300dpi.png", "loss.png", "history.csv", "model.keras"):
        assert (folder / name).stat().st_size > 1_000 or name == "history.csv"
    assert "synthetic pages (synthetic)" in capsys.readouterr().out

    # The saved model gives the same in another process.
    x = np.random.default_rng(0).uniform(size=(1, 32, 40, 1)).astype("float32")
    here = keras.saving.load_model(folder / "model.keras").predict(x, verbose=0)
    there = predict_elsewhere((folder / "model.keras").resolve(), x, folder.resolve())
    np.testing.assert_allclose(here, there, atol=1e-6)

    # The tutorial's network and recipe, in a folder of its own, with the other in its table.
    script.main([*SMALL, "--architecture", "tutorial", "--recipe", "tutorial"])
    other = json.loads(Path("runs/clean_documents_tutorial/metrics.json").read_text())
    assert other["parameters"] == 38_145
    assert other["baselines"] == report["baselines"]
    assert "\nunet " in capsys.readouterr().out


def test_seed_repeats_and_resume_goes_on(small):
    words = ["--synthetic", "--limit", "12", "--epochs", "2", "--batch-size", "4"]
    script.main([*words, "--output-dir", "one"])
    stop_after_one_epoch(script.main, [*words, "--output-dir", "two"])
    script.main([*words, "--output-dir", "two", "--resume"])
    one, two = (
        json.loads(Path(name, "metrics.json").read_text())["test"] for name in ("one", "two")
    )
    assert one == pytest.approx(two, rel=1e-4)


def test_shipped_model_cleans_a_drawn_page(shipped, page):
    dirty, clean = (part.astype("float32") / 255 for part in page)
    cleaned = documents.cleaner(shipped)(dirty)
    before, after = metrics.rmse(clean, dirty), metrics.rmse(clean, cleaned)
    assert after < min(before / 4, metrics.rmse(clean, metrics.background_median(dirty)))
    assert SHIPPED.stat().st_size < 2e6


def test_input_files_keep_names_and_sizes(page, tmp_path):
    (tmp_path / "in").mkdir()
    grey = Image.fromarray(page[0][..., 0])
    grey.save("in/a.png")
    Image.merge("RGB", [grey, ImageOps.invert(grey), grey]).save("in/b.JPG", quality=95)
    Image.fromarray(page[0][..., 0].astype(np.uint16) * 257).save("in/c.tiff")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    grey.save("in/d.jpg", exif=exif)
    grey.crop((0, 0, 7, 3)).save("in/e.png")
    done = python(ROOT / "clean_documents.py", "--input", *sorted((tmp_path / "in").iterdir()))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = tmp_path / "runs" / "clean_documents" / "cleaned"
    assert sorted(path.name for path in out.iterdir()) == [
        "a.png", "b.JPG", "c.tiff", "d.jpg", "e.png",
    ]  # fmt: skip
    sizes = {path.name: Image.open(path).size for path in out.iterdir()}
    assert sizes["a.png"] == sizes["b.JPG"] == sizes["c.tiff"] == grey.size
    assert sizes["d.jpg"] == grey.size[::-1]
    assert sizes["e.png"] == (7, 3)
    eight, sixteen = (
        np.asarray(Image.open(out / name)).astype(int) for name in ("a.png", "c.tiff")
    )
    assert np.abs(eight - sixteen).max() <= 1
    assert metrics.rmse(page[1][..., 0] / 255, eight / 255) < 0.1


def test_one_bad_file_does_not_stop_the_others(page, capsys, error_of, tmp_path):
    Image.fromarray(page[0][..., 0]).save("good.png")
    Path("bad.png").write_text("text")
    assert script.main(["--input", "bad.png", "good.png", "--output-dir", "out"]) == 1
    streams = capsys.readouterr()
    assert "clean_documents.py: error: bad.png: not an image" in streams.err
    assert streams.err.count("error") == 1
    assert "Wrote 1 to out" in streams.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]
    assert "bad.png: not an image" in error_of(script.main, "--input", "bad.png")


def test_input_is_never_overwritten(page, error_of, tmp_path):
    Image.fromarray(page[0][..., 0]).save("good.png")
    before = (tmp_path / "good.png").read_bytes()
    assert "would be overwritten" in error_of(
        script.main, "--input", "good.png", "--output-dir", "."
    )
    assert (tmp_path / "good.png").read_bytes() == before
    first = Image.fromarray(page[0][..., 0])
    first.save("many.tif", save_all=True, append_images=[first])
    assert "holds 2 pages" in error_of(script.main, "--input", "many.tif")


def test_real_pages_come_out_as_readme_says(real_data, shipped):
    office = data.load_documents(real_data)
    assert (len(office.train), len(office.validation), len(office.test)) == (60, 12, 36)
    dirty = documents.evaluate(lambda page: page, office.test)
    assert dirty["rmse"] == pytest.approx(0.1536, abs=0.0001)
    cleaned = documents.evaluate(documents.cleaner(shipped), office.test)
    assert cleaned["rmse"] == pytest.approx(0.0174, abs=0.0001)
