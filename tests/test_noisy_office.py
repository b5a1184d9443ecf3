"""common/noisy_office.py: both layouts, the download, and what is refused."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.feature import match_template
from skimage.transform import rescale

from common import UserError, noisy_office


def kaggle(folder, numbers):
    """Write pages in Kaggle's layout and sizes, each row of a page of one grey level."""
    for number in numbers:
        height = 258 if number <= 72 else 420
        for part, shift in (("train", 0), ("train_cleaned", 100)):
            path = folder / part / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = (np.arange(height) + shift) % 256
            Image.fromarray(np.repeat(rows[:, None], 40, axis=1).astype(np.uint8)).save(path)


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


def test_kaggles_pages_are_split_by_family_and_by_place(tmp_path):
    kaggle(tmp_path / "noisy-office", [n for n in range(1, 217) if n % 3 != 1])
    office = noisy_office.load_noisy_office(tmp_path)
    assert office.summary() == {
        "name": "NoisyOffice", "source": "local", "train": 72, "validation": 16, "test": 72,
    }  # fmt: skip
    assert {int(page.name) % 3 for page in office.train + office.validation} == {2}
    assert {int(page.name) % 3 for page in office.test} == {0}
    assert {page.dirty.shape for page in office.test} == {(258, 40, 1), (420, 40, 1)}
    kinds = ["coffee", "folds", "footprints", "wrinkles"]
    for part in (office.train, office.validation, office.test):
        assert [page.kind for page in part[:4]] == kinds
        assert all(page.dirty.dtype == np.uint8 for page in part)
    # The grey level of a row says which one it was.
    rows = {name: set() for name in ("train", "validation")}
    for name, found in rows.items():
        for page in getattr(office, name):
            first = int(page.dirty[0, 0, 0]) + (256 if name == "validation" else 0)
            found.update(range(first, first + len(page.dirty)))
    assert rows["train"] == set(range(336))
    assert rows["validation"] == set(range(364, 420))
    assert {int(page.name) for page in office.validation} <= set(range(145, 193))
    few = noisy_office.load_noisy_office(tmp_path, limit=10)
    assert (len(few.train), len(few.test)) == (10, 10)
    assert len({page.kind for page in few.train}) > 2
    assert len(few.validation) >= 1


def test_a_few_pages_are_split_by_place_too(tmp_path):
    kaggle(tmp_path, [2, 5, 8, 3])
    office = noisy_office.load_noisy_office(tmp_path)
    train = max(int(page.dirty[-1, 0, 0]) for page in office.train)
    validation = min(int(page.dirty[0, 0, 0]) for page in office.validation)
    assert train + 10 < validation


def dirt(page):
    """Return what lies under the letters, float32 (h, w)."""
    return ndimage.median_filter(page.astype("float32"), 15)


def grey(folder, number):
    path = Path(folder, "noisy-office", "train", f"{number}.png")
    return np.asarray(Image.open(path, formats=["PNG"]).convert("L"))


def test_no_dirt_of_the_validation_pages_is_in_training(real_data):
    """By correlation at all places. What was cut away is the control: there it is found."""
    office = noisy_office.load_noisy_office(real_data)
    for page in office.validation[4:8]:  # one of each kind of dirt
        strip = dirt(page.dirty[..., 0])[8:-8, 8:-8]
        others = [other for other in office.train if other.kind == page.kind][::6]
        found = [match_template(dirt(other.dirty[..., 0]), strip).max() for other in others]
        cut_away = dirt(grey(real_data, int(page.name) - 12)[360:])
        assert max(found) < 0.7 < 0.8 < match_template(cut_away, strip).max()


def test_no_text_of_the_validation_pages_is_in_training(real_data):
    """By correlation with the same typeface in the small size. A line from above is the control."""
    office = noisy_office.load_noisy_office(real_data)
    train = {page.name: page.clean[..., 0].astype("float32") for page in office.train}
    held_out = {page.name: page.clean[..., 0].astype("float32") for page in office.validation}

    def likeness(line, page):
        sizes = [rescale(line, zoom, anti_aliasing=True) for zoom in np.arange(0.76, 0.9, 0.01)]
        return max(match_template(page, each).max() for each in sizes)

    for normal, small in (("158", "14"), ("146", "2"), ("182", "38"), ("170", "26")):
        assert likeness(held_out[normal][28:56, 20:180], train[small]) < 0.7
        assert likeness(train[normal][140:168, 20:180], train[small]) > 0.75


def test_ucis_pages_are_split_by_their_names(tmp_path):
    office = noisy_office.load_noisy_office(uci(tmp_path))
    for part, family in (("train", "TR"), ("validation", "VA"), ("test", "TE")):
        pages = getattr(office, part)
        assert len(pages) == 8
        assert {page.name[-2:] for page in pages} == {family}
    assert [page.kind for page in office.train[:4]] == ["coffee", "folds", "footprints", "wrinkles"]


def test_ucis_pages_without_those_for_validation_are_split_by_place(tmp_path):
    for path in uci(tmp_path).rglob("*_VA.png"):
        path.unlink()
    office = noisy_office.load_noisy_office(tmp_path)
    assert [page.dirty.shape[0] for page in office.train] == [51] * 8
    assert [page.dirty.shape[0] for page in office.validation] == [10] * 8


def test_broken_page_folders_are_named(tmp_path):
    def error(folder):
        with pytest.raises(UserError) as info:
            noisy_office.load_noisy_office(folder)
        return str(info.value)

    assert "no such folder" in error(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "neither Kaggle's train/ nor UCI's simulated" in error(tmp_path / "empty")
    kaggle(tmp_path / "a", [2, 3, 5, 6])
    (tmp_path / "a" / "train_cleaned" / "5.png").unlink()
    assert "5.png is missing" in error(tmp_path / "a")
    Image.new("L", (9, 8)).save(tmp_path / "a" / "train_cleaned" / "5.png")
    assert "40x258 pixels, but" in error(tmp_path / "a")
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
    monkeypatch.setattr(noisy_office, "UCI_URL", server.url + "files/noisyoffice.zip")
    office = noisy_office.load_noisy_office()
    assert office.summary()["source"] == "download"
    assert len(office.test) == 8
    server.files.clear()
    assert noisy_office.load_noisy_office().summary()["source"] == "cache"


def test_an_archive_is_never_unpacked_to_the_disk(tmp_path, server, monkeypatch):
    escaping = ["../../SimulatedNoisyOffice/x/Fontxxx_Clean_TE.png", "../evil.png", "/tmp/evil.txt"]
    content = zipped(tmp_path / "uci", tmp_path / "a.zip", extra=escaping)
    server.files["noisyoffice.zip"] = content
    monkeypatch.setattr(noisy_office, "UCI_URL", server.url + "files/noisyoffice.zip")
    before = {path for path in tmp_path.rglob("*")}
    assert len(noisy_office.load_noisy_office().train) == 8
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert new == {tmp_path / "keras_home/datasets/noisyoffice.zip"}


def nested(depth):
    content = b"x"
    for number in range(depth):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(f"{number}.zip", content)
        content = file.getvalue()
    return content


def bomb():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/train/2.png", bytes(noisy_office.MOST_BYTES + 1))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (nested(1_200), "a zip within zips"),
        (bomb(), "too large"),
        (b"no zip", "damaged"),
        (nested(0), "damaged"),
    ],
)
def test_a_bad_archive_is_named_with_the_way_out(tmp_path, content, words):
    archive = tmp_path / "keras_home/datasets/noisyoffice.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(content)
    with pytest.raises(UserError, match=words):
        noisy_office.load_noisy_office()
    assert archive.read_bytes() == content


def test_without_a_download_pages_are_synthetic_and_nothing_is_left(
    tmp_path, server, monkeypatch, capsys
):
    monkeypatch.setattr(noisy_office, "UCI_URL", server.url + "files/noisyoffice.zip")
    office = noisy_office.load_noisy_office(limit=10)
    assert office.summary()["source"] == "synthetic"
    assert office.name == "synthetic pages"
    assert "*** NOT NoisyOffice" in capsys.readouterr().out
    assert [path for path in (tmp_path / "keras_home").rglob("*") if path.is_file()] == []
