"""common/noisy_office.py: both layouts, the download, and what is refused."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from common import UserError, noisy_office


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


def test_kaggles_pages_are_split_by_family_and_by_clean_page(tmp_path):
    family = [n for n in range(1, 73) if n % 3 != 1]
    kaggle(tmp_path / "noisy-office", family)
    office = noisy_office.load_noisy_office(tmp_path)
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
    few = noisy_office.load_noisy_office(tmp_path, limit=10)
    assert len(few.train) + len(few.validation) == 10
    assert len(few.test) == 10


def test_ucis_pages_are_split_by_their_names(tmp_path):
    office = noisy_office.load_noisy_office(uci(tmp_path))
    for part, family in (("train", "TR"), ("validation", "VA"), ("test", "TE")):
        pages = getattr(office, part)
        assert len(pages) == 8
        assert {page.name[-2:] for page in pages} == {family}
    assert [page.kind for page in office.train[:4]] == ["coffee", "folds", "footprints", "wrinkles"]


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
    assert "(270, 280), but its twin (8, 9)" in error(tmp_path / "a")
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
