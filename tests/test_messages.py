"""tools/messages: the code, the grid, a message in a photo, and what becomes of files."""

import hashlib
import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import tifffile
from conftest import ROOT, contents, python
from PIL import ExifTags, Image, ImageCms, ImageDraw
from scipy import ndimage

import watermark_photo
from benchmarks import attacks
from common import images, metrics, training
from tools.messages import code, damage, files, grid, photo
from tools.messages.damage import from_image, to_image

PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
KEY, OTHER_KEY = code.derive_key("test"), code.derive_key("other")
TEXT = "sixteen bytes ok"
COPYRIGHT = "© 2026 me".encode("latin-1")


@pytest.fixture(scope="module")
def watermark():
    return photo.Watermark(training.load_model(None, "watermark_photo"))


@pytest.fixture(scope="module")
def small():
    """A picture of 360x352 pixels with smooth places and texture."""
    return attacks.load("coffee")[:352, 120:480]


@pytest.fixture(scope="module")
def marked(watermark, small):
    return watermark.mark(small, code.encode(TEXT, 44, 45, KEY))


def text_in(watermark, picture, search=True):
    return watermark.extract(photo.luminance(picture), KEY, search)


# ---------------------------------------------------------------- the code


@pytest.mark.parametrize(
    "text", ["x", "© 2026 me", "日本語, 24 bytes", "y" * 40, "z" * 160, "w" * 640]
)
def test_a_message_comes_back_from_its_bits(text):
    bits = code.encode(text, 144, 160, KEY)
    assert bits.shape == (144, 160)
    assert 0.4 < bits.mean() < 0.6
    log_odds = 2.0 * bits - 1
    assert code.decode(log_odds, KEY) == text
    assert code.decode(log_odds, OTHER_KEY) is None
    # A crop from anywhere, with a twentieth of the cells wrong.
    part = log_odds[11:, 13:]
    wrong = np.random.default_rng(0).random(part.shape) < 0.05
    assert code.decode(np.where(wrong, -part, part), KEY, (11, 13)) == text
    # Where the pilots' period begins is known, where the tile begins is not.
    assert code.decode(part[21:, 3:], KEY, (0, 0)) == text


def test_a_seventh_of_the_cells_of_a_tile_may_be_wrong():
    rng = np.random.default_rng(1)
    log_odds = 2.0 * code.encode(TEXT, 32, 32, KEY) - 1
    texts = [
        code.decode(np.where(rng.random((32, 32)) < 0.15, -log_odds, log_odds), KEY)
        for _ in range(10)
    ]
    assert texts == [TEXT] * 10


def test_the_format_never_changes():
    """What derives the bits is part of the format: no library may change it."""
    bits = code.encode("© 2026 me", 64, 64, code.derive_key("secret"))
    assert hashlib.sha256(np.packbits(bits).tobytes()).hexdigest()[:16] == "45040faec89727cd"
    pilots = code.pilots()
    assert np.count_nonzero(pilots) == pilots.size // 4


def test_a_marked_file_of_this_format_is_still_read(watermark):
    gray = photo.luminance(images.read_color(Path(__file__).with_name("marked_2.jpg")))
    assert watermark.extract(gray, code.derive_key("for ever"), search=False) == "read me"


def test_there_is_no_message_in_noise_in_constants_or_with_a_wrong_checksum():
    rng = np.random.default_rng(0)
    planes = [rng.standard_normal((40, 50)) for _ in range(100)]
    planes += [np.full((40, 50), value) for value in (-1.0, 0.0, 1.0)] + [np.zeros((3, 3))]
    assert {code.decode(plane, KEY) for plane in planes} == {None}
    log_odds = 2.0 * code.encode(TEXT, 32, 32, KEY) - 1
    assert code.decode(log_odds, code.Key(KEY.layout, OTHER_KEY.checksum)) is None


# ---------------------------------------------------------------- the grid


def test_a_mirrored_scaled_and_rotated_picture_is_read(watermark, marked, monkeypatch):
    monkeypatch.setattr(grid, "SCALES", [1.29])
    monkeypatch.setattr(grid, "ANGLES", np.radians([1.75, -1.75]))
    changed = damage.resize(marked[:, ::-1], 1.3)
    rotated = to_image(changed).rotate(2, Image.Resampling.BICUBIC, expand=True)
    assert text_in(watermark, from_image(rotated)) == TEXT


def test_a_screenshot_of_grass_is_read(watermark, monkeypatch):
    """Blocks of grass seem to have any offset, if all are allowed."""
    number = list(attacks.PICTURES).index("grass")
    marked, is_read = attacks.our_method(watermark)(attacks.load("grass"), number)
    monkeypatch.setattr(grid, "SCALES", [2 ** (7 / 48)])  # half a percent too large
    monkeypatch.setattr(grid, "ANGLES", [0.0])
    assert is_read(attacks.attack(marked, "screenshot at", 1.1, number))


@pytest.mark.parametrize("stretch", [(0.9, 1), (1, 0.92), (1, 1.1), (0.7, 0.76)])
def test_a_stretched_picture_is_read(stretch, watermark, marked, monkeypatch):
    size = [round(side * factor) for side, factor in zip((360, 352), stretch, strict=True)]
    stretched = from_image(to_image(marked).resize(size, Image.Resampling.BICUBIC))
    monkeypatch.setattr(grid, "SCALES", [1.0])
    assert text_in(watermark, stretched) == TEXT


# ---------------------------------------------------------------- extracting


def test_nothing_is_found_in_an_unmarked_picture(watermark, small):
    assert list(watermark.readings(photo.luminance(small))) == []


SURVIVED = {
    name: strengths[len(strengths) // 2] for name, (_, strengths, _) in attacks.ATTACKS.items()
}
SURVIVED |= {"JPEG, quality": 50, "noise, σ": 0.05, "turn, degrees": 3}
SURVIVED |= {"resize to": 0.75, "crop to": 0.5}


@pytest.mark.parametrize("name", SURVIVED)
def test_a_message_survives_each_attack(name, watermark, marked):
    assert text_in(watermark, attacks.attack(marked, name, SURVIVED[name], 1)) == TEXT


# ---------------------------------------------------------------- embedding


def test_marked_pictures_have_the_quality_that_is_promised(watermark, small, marked):
    assert metrics.psnr(small[None], marked[None]) == pytest.approx(photo.PSNR, abs=0.1)
    np.testing.assert_allclose(marked * 255, np.round(marked * 255), atol=1e-4)  # 8-bit levels
    # Smooth places change at most half as much as if all changed alike.
    uniform = watermark.mark(small, code.encode(TEXT, 44, 45, KEY), uniform=True)

    def blocks_of(picture):
        return photo.luminance(picture)[:, :352].reshape(22, 16, 22, 16)

    contrasts = blocks_of(small).std((1, 3))
    smooth = contrasts <= np.quantile(contrasts, 0.25)
    change, uniform_change = (
        np.abs(blocks_of(picture - small)).mean((1, 3))[smooth].mean()
        for picture in (marked, uniform)
    )
    assert change <= uniform_change / 2


@pytest.mark.parametrize("brightness", [0.08, 0.12, 0.2])
def test_a_dark_picture_changes_by_a_share_of_its_brightness(brightness, watermark, small):
    dark = from_image(to_image(brightness * small))
    marked = watermark.mark(dark, code.encode(TEXT, 44, 45, KEY))
    change = np.abs(photo.luminance(marked - dark))
    local_brightness = ndimage.gaussian_filter(photo.luminance(dark), 8)
    assert np.median(change / (local_brightness + 1e-3)) < 0.08
    assert text_in(watermark, damage.jpeg(marked, 75), search=False) == TEXT


def test_a_logo_gets_no_rim(watermark):
    logo = Image.new("RGB", (320, 320), "white")
    ImageDraw.Draw(logo).ellipse((40, 40, 220, 220), fill=(200, 30, 40))
    ImageDraw.Draw(logo).rectangle((180, 180, 300, 280), fill=(20, 60, 160))
    picture = from_image(logo)
    marked = watermark.mark(picture, code.encode(TEXT, 40, 40, KEY))
    change = 255 * np.abs(photo.luminance(marked - picture))
    edges = ndimage.gaussian_gradient_magnitude(photo.luminance(picture), 1) > 0.05
    beside_edges = ndimage.binary_dilation(edges, iterations=4)
    assert change.max() < 7
    assert change[beside_edges].mean() < 4.5
    assert text_in(watermark, damage.jpeg(marked, 40), search=False) == TEXT


def test_bands_leave_no_seam(watermark, small, marked, monkeypatch):
    picture = Image.fromarray(photo.luminance(small))
    unchanged = grid.Placement(np.eye(2), np.zeros(2), np.zeros(2))
    log_odds, _ = watermark.read_cells(picture, unchanged, 1000)
    monkeypatch.setattr(photo, "CELLS_PER_BAND", 3 * 45)
    in_bands = watermark.mark(small, code.encode(TEXT, 44, 45, KEY))
    np.testing.assert_array_equal(in_bands, marked)
    np.testing.assert_allclose(
        watermark.read_cells(picture, unchanged, 1000)[0], log_odds, atol=1e-3
    )


def test_a_message_that_jpeg_would_destroy_is_refused(watermark, small, monkeypatch):
    """It is read from the file as it is, and from JPEG 75."""
    seen = []

    def extract(gray, key, search):
        seen.append(gray)
        return TEXT if len(seen) == 1 else None

    monkeypatch.setattr(watermark, "mark", lambda picture, bits: picture)
    monkeypatch.setattr(watermark, "extract", extract)
    assert watermark.embed(small, TEXT, KEY) is None
    compressed = damage.jpeg(small, 75)
    for gray, picture in zip(seen, (small, compressed), strict=True):
        np.testing.assert_array_equal(gray, photo.luminance(picture))
    assert 20 < metrics.psnr(small[None], compressed[None]) < 45


@pytest.mark.parametrize("name", ["coffee", "portrait"])
def test_256x256_pixels_hold_8_bytes(name, watermark):
    assert watermark.embed(attacks.load(name)[:256, :256], "x" * 8, KEY) is not None


# ---------------------------------------------------------------- files


def test_embed_and_extract_from_the_command_line(tmp_path):
    Image.open(PHOTO).crop((0, 0, 501, 403)).save(tmp_path / "photo.png")
    script = ROOT / "watermark_photo.py"
    arguments = "--input", "photo.png", "--message", "© 2026 me", "--key", "secret"
    result = python(script, *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    path = Path("runs/watermark_photo_marked/photo.png")
    assert f"Wrote {path}" in result.stdout
    before, after = (np.asarray(Image.open(p), int) for p in (tmp_path / "photo.png", path))
    assert before.shape == after.shape == (403, 501, 3)
    assert 0 < np.abs(before - after).max() <= 8
    result = python(script, "--input", path, "--extract", "--key", "secret", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, f"{path}: © 2026 me\n")


def test_extracting_goes_on_after_a_file_without_a_message(tmp_path, marked, capsys):
    to_image(marked).save("marked.png")
    to_image(marked[:, ::-1]).save("mirrored.png")
    Image.new("L", (64, 64), 128).save("gray.png")
    (tmp_path / "t.png").write_text("text")
    inputs = ["--input", "gray.png", "t.png", "marked.png", "mirrored.png"]
    assert watermark_photo.main([*inputs, "--extract", "--key", "test"]) == 1
    output = capsys.readouterr()
    assert output.out == f"marked.png: {TEXT}\nmirrored.png: {TEXT}\n"
    assert "gray.png: no message with this key; or the photo was scaled below half" in output.err
    assert "t.png: not an image" in output.err
    assert watermark_photo.main(["--input", "gray.png", "--extract"]) == 1


def test_a_message_cannot_control_the_terminal(watermark, monkeypatch, capsys):
    monkeypatch.setattr(watermark, "extract", lambda *_, **__: "a\x1b[31m\nb")
    Image.new("L", (64, 64), 128).save("gray.png")
    assert files.extract_from_files(watermark, ["gray.png"], "") == 0
    assert capsys.readouterr().out == "gray.png: a\\x1b[31m\\nb\n"


@pytest.mark.parametrize("file_format", ["png", "jpeg"])
@pytest.mark.parametrize("source", ["photo.jpg", "photo.tif"])
def test_a_marked_copy_keeps_its_metadata_and_says_upright(source, file_format, watermark, small):
    """Which parts of it are kept is tested in test_scans_files.py."""
    exif = Image.Exif()
    exif.update({ExifTags.Base.Copyright: COPYRIGHT, ExifTags.Base.Orientation: 6})
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2026:01:01 10:00:00"
    options = {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    options |= {"exif": exif, "xmp": b'<x tiff:Orientation="6"/>', "dpi": (300, 300)}
    to_image(small).rotate(90, expand=True).save(source, **options)
    files.embed_in_file(watermark, Path(source), TEXT, KEY, Path("out"), file_format)
    with Image.open("out") as image:
        assert (image.format, image.size) == (file_format.upper(), (360, 352))  # upright
        assert image.info["icc_profile"] == options["icc_profile"]
        kept = image.getexif()
        assert ExifTags.Base.Orientation not in kept
        assert ExifTags.Base.StripOffsets not in kept
        if source == "photo.jpg":  # Pillow writes neither into a TIFF
            assert image.info["xmp"] == b"<x />"
            date = kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal]
            assert date == "2026:01:01 10:00:00"
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert COPYRIGHT in Path("out").read_bytes()
    assert text_in(watermark, images.read_color("out"), search=False) == TEXT


def test_a_gray_profile_stays_with_gray_and_one_of_colors_with_color():
    gray, rgb = (bytes(16) + space + bytes(120) for space in (b"GRAY", b"RGB "))
    colored = np.zeros((8, 8, 3), "float32")
    colored[0, 0, 0] = 1
    for picture, profile, mode, kept in (
        (np.zeros((8, 8, 3), "float32"), gray, "L", gray),
        (np.zeros((8, 8, 3), "float32"), rgb, "RGB", rgb),
        (np.zeros((8, 8, 3), "float32"), b"", "L", None),
        (colored, gray, "RGB", None),
    ):
        content = photo.to_file(picture, "png", icc_profile=profile)
        with Image.open(io.BytesIO(content)) as image:
            assert (image.mode, image.info.get("icc_profile")) == (mode, kept)


def test_what_was_reduced_is_said():
    deep = np.zeros((9, 9, 3), np.uint16)
    tifffile.imwrite("deep.tif", deep, photometric="rgb")
    Image.fromarray(deep[..., 0]).save("gray.png")
    Image.new("CMYK", (9, 9)).save("cmyk.jpg")
    Image.new("RGB", (9, 9)).save("plain.jpg")
    assert files.reductions("deep.tif") == files.reductions("gray.png") == "; 16 bits became 8"
    assert files.reductions("cmyk.jpg") == "; CMYK became RGB"
    assert files.reductions("plain.jpg") == ""


def test_transparent_parts_are_refused(small, error_of):
    image = to_image(small).convert("RGBA")
    image.save("opaque.png")
    image.putpixel((0, 0), (0, 0, 0, 254))
    image.save("photo.png")
    arguments = "--message", TEXT, "--output-dir", "out"
    line = error_of(watermark_photo.main, "--input", "photo.png", *arguments)
    assert "photo.png: has transparent parts, which a copy would lose" in line
    assert contents("out") == {}
    assert not watermark_photo.main(["--input", "opaque.png", *arguments])


@pytest.mark.parametrize(("name", "size"), [("small", 16), ("flat", 600), ("photo", 300)])
def test_nothing_is_written_that_cannot_be_read_back(name, size, small, error_of):
    pictures = {
        "small": np.random.default_rng(0).uniform(0.4, 0.6, (72, 80, 3)),
        "flat": np.zeros((400, 400, 3)),
        "photo": small,
    }
    to_image(pictures[name]).save(f"{name}.png")
    arguments = "--input", f"{name}.png", "--message", "x" * size, "--output-dir", "out"
    line = error_of(watermark_photo.main, *arguments)
    assert f"{name}.png: not written, because {size} bytes could not be read back" in line
    assert "and holds" in line
    assert contents("out") == {}


def test_capacity_is_what_can_be_embedded(tmp_path, small, capsys, error_of):
    to_image(small).save("photo.png")
    (tmp_path / "t.png").write_text("text")
    Image.new("L", (64, 64), 128).save("gray.png")
    assert watermark_photo.main(["--capacity", "t.png", "gray.png", "photo.png"]) == 1
    output = capsys.readouterr()
    assert "t.png: not an image" in output.err
    assert output.out.startswith("gray.png: 0 bytes\nphoto.png: ")
    size = int(output.out.split()[-2])
    assert size >= 16
    arguments = ["--input", "photo.png", "--output-dir", "out", "--message"]
    line = error_of(watermark_photo.main, *arguments, "x" * (size + 1))
    assert f"holds {size} bytes" in line
    assert not watermark_photo.main([*arguments, "x" * size])
