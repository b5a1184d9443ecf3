"""common/noisy_office.py: both layouts, the download, the user's own pages."""

import io
import itertools
import zipfile

import numpy as np
import pytest
from conftest import contents
from PIL import Image
from scipy import ndimage
from skimage.feature import match_template
from skimage.transform import rescale

from common import cli, noisy_office
from common.cli import UserError


def load(data_dir=None, **settings):
    return noisy_office.load_noisy_office(cli.Train(data_dir=data_dir, **settings))


def write_kaggle(folder, numbers):
    """Write pages in Kaggle's layout and sizes, each row of a page in one gray value."""
    for number in numbers:
        height = 258 if number <= 72 else 420
        for part, shift in (("train", 0), ("train_cleaned", 100)):
            path = folder / part / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = (np.arange(height) + shift) % 256
            Image.fromarray(np.repeat(rows[:, None], 40, axis=1).astype(np.uint8)).save(path)


def write_uci(folder):
    """Write pages in UCI's layout: three families, two fonts, four kinds of dirt."""
    fonts, families = ("Fontfre", "FontLtm"), ("TR", "VA", "TE")
    kinds = ("Clean", "Noisec", "Noisef", "Noisep", "Noisew")
    for font, kind, family in itertools.product(fonts, kinds, families):
        name = f"{font}_{kind}_{family}.png"
        part = "clean_images" if kind == "Clean" else "simulated_noisy_images"
        path = folder / "SimulatedNoisyOffice" / f"{part}_grayscale" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(name.encode()))
        Image.fromarray(rng.integers(0, 256, (64, 72), dtype=np.uint8)).save(path)
    return folder


def test_kaggles_pages_are_split_by_family_and_by_rows(tmp_path):
    write_kaggle(tmp_path / "noisy-office", [n for n in range(1, 217) if n % 3 != 1])
    office = load(tmp_path)
    assert office.summary() == {
        "name": "NoisyOffice", "source": "local", "train": 72, "val": 16, "test": 72,
    }  # fmt: skip
    assert str(office) == "NoisyOffice (local), 72 training and 72 test pages"
    assert {int(page.name) % 3 for page in office.train + office.validation} == {2}
    assert {int(page.name) % 3 for page in office.test} == {0}
    assert {page.dirty.shape for page in office.test} == {(258, 40, 1), (420, 40, 1)}
    kinds = ["coffee", "folds", "footprints", "wrinkles"]
    for part in (office.train, office.validation, office.test):
        assert [page.kind for page in part[:4]] == kinds
        assert all(page.dirty.dtype == np.uint8 for page in part)
    # The gray value of a row tells its place on the page.
    rows = {"train": set(), "validation": set()}
    for part, places in rows.items():
        for page in getattr(office, part):
            first = int(page.dirty[0, 0, 0]) + (256 if part == "validation" else 0)
            places.update(range(first, first + len(page.dirty)))
    assert rows["train"] == set(range(336))
    assert rows["validation"] == set(range(364, 420))
    assert {int(page.name) for page in office.validation} <= set(range(145, 193))
    few = load(tmp_path, limit=10)
    assert (len(few.train), len(few.test)) == (10, 10)
    assert len({page.kind for page in few.train}) > 2
    assert len(few.validation) >= 1


def test_a_few_pages_are_split_by_rows_too(tmp_path):
    write_kaggle(tmp_path, [2, 5, 8, 3])
    office = load(tmp_path)
    train = max(int(page.dirty[-1, 0, 0]) for page in office.train)
    validation = min(int(page.dirty[0, 0, 0]) for page in office.validation)
    assert train + 10 < validation


def dirt(page):
    """Return what is under the letters, float32 (h, w)."""
    return ndimage.median_filter(page.astype("float32"), 15)


def test_no_dirt_of_the_validation_pages_is_in_training(real_data):
    """By correlation at all places. As a control, the dirt is found in what was cut away."""
    office = load(real_data)
    for page in office.validation[4:8]:  # one of each kind of dirt
        strip = dirt(page.dirty[..., 0])[8:-8, 8:-8]
        others = [other for other in office.train if other.kind == page.kind][::6]
        highest = max(match_template(dirt(other.dirty[..., 0]), strip).max() for other in others)
        path = real_data / "noisy-office" / "train" / f"{int(page.name) - 12}.png"
        cut_away = np.asarray(Image.open(path, formats=["PNG"]).convert("L"))[360:]
        assert highest < 0.7 < 0.8 < match_template(dirt(cut_away), strip).max()


def test_no_text_of_the_validation_pages_is_in_training(real_data):
    """By correlation with the same typeface in the small size; a line from above is the control."""
    office = load(real_data)
    train = {page.name: page.clean[..., 0].astype("float32") for page in office.train}
    held_out = {page.name: page.clean[..., 0].astype("float32") for page in office.validation}

    def correlation(line, page):
        sizes = [rescale(line, zoom, anti_aliasing=True) for zoom in np.arange(0.76, 0.9, 0.01)]
        return max(match_template(page, each).max() for each in sizes)

    for normal, small in (("158", "14"), ("146", "2"), ("182", "38"), ("170", "26")):
        assert correlation(held_out[normal][28:56, 20:180], train[small]) < 0.7
        assert correlation(train[normal][140:168, 20:180], train[small]) > 0.75


def test_ucis_pages_are_split_by_their_names(tmp_path):
    office = load(write_uci(tmp_path))
    for part, family in (("train", "TR"), ("validation", "VA"), ("test", "TE")):
        pages = getattr(office, part)
        assert len(pages) == 8
        assert {page.name[-2:] for page in pages} == {family}
    assert [page.kind for page in office.train[:4]] == ["coffee", "folds", "footprints", "wrinkles"]


def test_ucis_pages_without_those_for_validation_are_split_by_rows(tmp_path):
    for path in write_uci(tmp_path).rglob("*_VA.png"):
        path.unlink()
    office = load(tmp_path)
    assert [page.dirty.shape[0] for page in office.train] == [51] * 8
    assert [page.dirty.shape[0] for page in office.validation] == [10] * 8


def write_own(folder, clean_count):
    """Write dirty/ and clean/ with two versions of each clean page."""
    for part in ("dirty", "clean"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(clean_count):
        clean = rng.integers(0, 256, (40, 50), dtype=np.uint8)
        for version in range(2):
            dirty = rng.integers(0, 256, (40, 50), dtype=np.uint8)
            Image.fromarray(dirty).save(folder / "dirty" / f"{number}_{version}.png")
            Image.fromarray(clean).save(folder / "clean" / f"{number}_{version}.bmp")
    return folder


def test_own_pages_are_split_by_clean_page_and_copies_count_once(tmp_path):
    folder = write_own(tmp_path / "own", 20)
    for part, suffix in (("dirty", "png"), ("clean", "bmp")):
        content = (folder / part / f"0_0.{suffix}").read_bytes()
        (folder / part / f"copy.{suffix}").write_bytes(content)
    office = load(folder)
    assert office.name == "own pictures: own"
    parts = [office.train, office.validation, office.test]
    assert [len(part) for part in parts] == [30, 4, 6]
    numbers = [{page.name.split("_")[0] for page in part} for part in parts]
    assert [len(part) for part in numbers] == [15, 2, 3]
    assert len(set.union(*numbers)) == 20
    other = load(folder, seed=1)
    assert {page.name for page in other.test} != {page.name for page in office.test}
    assert len(load(folder, limit=10).train) == 10


def test_own_pages_that_cannot_be_used(tmp_path):
    folder = write_own(tmp_path / "own", 4)
    with pytest.raises(UserError, match="4 different clean pages; 5 are needed"):
        load(folder)
    (folder / "clean" / "1_0.bmp").unlink()
    with pytest.raises(UserError, match=r"1_0.png: the clean page is missing"):
        load(folder)


def test_broken_page_folders_are_named(tmp_path):
    def error(folder):
        with pytest.raises(UserError) as info:
            load(folder)
        return str(info.value)

    (tmp_path / "empty").mkdir()
    assert "neither Kaggle's train/ nor UCI's simulated" in error(tmp_path / "empty")
    write_kaggle(tmp_path / "a", [2, 3, 5, 6])
    (tmp_path / "a" / "train_cleaned" / "5.png").unlink()
    assert "5.png is missing" in error(tmp_path / "a")
    Image.new("L", (9, 8)).save(tmp_path / "a" / "train_cleaned" / "5.png")
    assert "5.png: different sizes" in error(tmp_path / "a")
    (tmp_path / "a" / "train_cleaned" / "5.png").write_text("no image")
    assert "5.png: not an image" in error(tmp_path / "a")
    write_kaggle(tmp_path / "b", [2, 5])
    assert "2 training and 0 test pages" in error(tmp_path / "b")
    write_kaggle(tmp_path / "c", [2, 3])
    (tmp_path / "c" / "train" / "2.png").rename(tmp_path / "c" / "train" / "page.png")
    assert "neither Kaggle's name" in error(tmp_path / "c")


# ---------------------------------------------------------------- download


def zipped(files):
    """Return a zip of {path: content} as bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(str(name), content)
    return file.getvalue()


@pytest.mark.parametrize("is_nested", [False, True])
def test_an_archive_is_downloaded_once_and_never_unpacked_to_the_disk(
    is_nested, tmp_path, server, monkeypatch
):
    folder = write_uci(tmp_path / "uci")
    files = {path.relative_to(folder): content for path, content in contents(folder).items()}
    escaping = ["../../SimulatedNoisyOffice/x/Fontxxx_Clean_TE.png", "../evil.png", "/tmp/evil.txt"]
    archive = zipped(files | dict.fromkeys(escaping, b"bad"))
    server.files["noisyoffice.zip"] = zipped({"NoisyOffice.zip": archive}) if is_nested else archive
    monkeypatch.setattr(noisy_office, "UCI_URL", server.url + "files/noisyoffice.zip")
    before = contents(tmp_path)
    office = load()
    assert (len(office.train), len(office.test), office.source) == (8, 8, "download")
    new = contents(tmp_path).keys() - before.keys()
    assert new == {tmp_path / "keras_home/datasets/noisyoffice.zip"}
    server.files.clear()
    assert load().source == "cache"


NESTED = zipped({"a.zip": zipped({"b.zip": zipped({"c.zip": b"x"})})})
BOMB = zipped({"a/train/2.png": bytes(noisy_office.MAX_BYTES + 1)})


@pytest.mark.parametrize(
    ("content", "message"),
    [(NESTED, "a zip within zips"), (BOMB, "too large"), (b"no zip", "damaged")],
    ids=["nested", "bomb", "no zip"],
)
def test_a_bad_archive_is_named(tmp_path, content, message):
    archive = tmp_path / "keras_home/datasets/noisyoffice.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(content)
    with pytest.raises(UserError, match=rf"noisyoffice.zip: .*{message}.*; delete it"):
        load()
    assert archive.read_bytes() == content


def test_without_a_download_pages_are_synthetic(server, monkeypatch, capsys):
    monkeypatch.setattr(noisy_office, "UCI_URL", server.url + "files/noisyoffice.zip")
    office = load(limit=10)
    assert (office.name, office.source) == ("synthetic pages", "synthetic")
    assert "*** NOT NoisyOffice" in capsys.readouterr().out
    assert contents("keras_home") == {}


def test_stacked_pages_show_every_pixel_of_every_page():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (h, w, 1), dtype=np.uint8) for h, w in ((30, 50), (44, 33))]
    pages = [noisy_office.Page("", "", picture, 255 - picture) for picture in pictures]
    dirty, clean = noisy_office.pad_and_stack(pages)
    assert dirty.shape == clean.shape == (2, 64, 64, 1)
    for picture, padded in zip(pictures, dirty, strict=True):
        height, width, _ = picture.shape
        np.testing.assert_allclose(padded[:height, :width], picture / 255, atol=1e-6)
    np.testing.assert_allclose(clean, 1 - dirty, atol=1e-6)
    assert dirty.dtype == np.float32
