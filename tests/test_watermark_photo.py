"""watermark_photo.py: the networks, the message, and what becomes of files."""

import hashlib
import json
import math
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
import watermark_attacks
from conftest import ROOT, contents, python
from PIL import Image, ImageCms
from watermark_attacks import as_image, attacked, load

import watermark_photo as script
from applications import grids, message_bits, messages
from common import UserError, image_files, metrics

SHIPPED = ROOT / "models" / "watermark_photo.keras"
PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


KEY, OTHER = message_bits.derive_key("test"), message_bits.derive_key("other")
TEXT = "sixteen bytes ok"


@pytest.fixture(scope="module")
def shipped():
    return keras.saving.load_model(SHIPPED, compile=False)


@pytest.fixture(scope="module")
def pilots(shipped):
    return messages.known_pilots(shipped)


@pytest.fixture(scope="module")
def small():
    """A picture of 360x352 pixels with smooth ground and texture."""
    return load("coffee")[:352, 120:480]


@pytest.fixture(scope="module")
def marked(shipped, small):
    return messages.mark(shipped, small, message_bits.embed(TEXT, 44, 45, KEY))


def test_residual_changes_no_pixel_by_more_than_its_strength():
    model = script.build_photo_watermark(strength=0.03)
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(2, 40, 64, 1)).astype("float32")
    bits = rng.integers(0, 2, (2, 5, 8, 1)).astype("float32")
    outputs = model({"image": image, "watermark": bits}, training=False)
    assert np.abs(outputs["marked"] - image).max() <= 0.03 + 1e-6
    assert outputs["recovered"].shape == outputs["recovered_blurred"].shape == (2, 5, 8, 1)
    assert metrics.psnr(image, np.asarray(outputs["marked"])) >= -20 * math.log10(0.03)


def test_attacks_do_what_they_say():
    point = np.zeros((41, 41, 3), "float32")
    point[20, 20] = 1
    spread = watermark_attacks.ATTACKS["blur, σ in pixels"][0](point, 1.5, None)[..., 0]
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    distance = np.arange(41) - 20
    assert np.sqrt((spread.sum(0) * distance**2).sum()) == pytest.approx(1.5, rel=0.02)
    photo = load("portrait")
    fine, coarse = (
        metrics.psnr(photo[None], attacked(photo, "JPEG, quality", quality, 0)[None])
        for quality in (95, 20)
    )
    assert fine > 38 > coarse > 25
    assert attacked(photo, "crop to", 0.5, 0).size == pytest.approx(photo.size / 2, rel=0.01)
    assert attacked(photo, "resize to", 0.5, 0).shape == (300, 256, 3)
    assert attacked(photo, "mirror", 0, 0)[:, ::-1].tolist() == photo.tolist()
    assert attacked(photo, "quarter turn", 0, 0).shape == (512, 600, 3)
    assert attacked(photo, "brightness", 0.8, 0).mean() == pytest.approx(
        0.8 * photo.mean(), rel=0.01
    )
    assert attacked(photo, "contrast", 0.8, 0).std() == pytest.approx(0.8 * photo.std(), rel=0.01)
    changed = attacked(photo, "salt and pepper", 0.05, 0) != photo
    assert changed.any(axis=-1).mean() == pytest.approx(0.05, abs=0.01)


def test_twenty_named_pictures_are_large_enough():
    sizes = [load(name).shape for name in watermark_attacks.PICTURES]
    assert len(sizes) == 20
    assert all(min(h, w) >= 400 and max(h, w) >= 512 for h, w, _ in sizes)


def test_pictures_for_training_and_test_are_not_the_same():
    """Pieces of a picture are found in it again, and in no other."""
    from synthetic import textures

    pieces = script.load_pictures(limit=60)
    assert pieces.x_train.shape == pieces.x_test.shape == (60, 64, 64, 1)
    found = textures.pictures(script.PICTURES)
    names = list(found)
    assert len(names) > 8

    def sources(images):
        """Return the names of the pictures that these pieces were cut from."""
        said = set()
        for piece in np.round(images[..., 0] * 255).astype(np.uint8):
            for name in names:
                said.update([name] if piece[31].tobytes() in found[name].tobytes() else [])
        return said

    parts = [sources(x) for x in (pieces.x_train, pieces.x_validation, pieces.x_test)]
    assert parts[0] <= set(script.PICTURES[:-3])
    assert parts[1] <= {script.PICTURES[-3]}
    assert parts[2] <= set(script.PICTURES[-2:])
    assert all(parts)
    flat = [x.reshape(len(x), -1) for x in (pieces.x_train, pieces.x_validation, pieces.x_test)]
    together = np.concatenate(flat)
    assert len(np.unique(together, axis=0)) == len(together)  # textures differ, too
    assert script.load_pictures(synthetic=True, limit=10).summary()["source"] == "synthetic"


# ---------------------------------------------------------------- the message


@pytest.mark.parametrize(
    "text", ["x", "© 2026 me", "日本語, 24 bytes", "y" * 40, "z" * 160, "w" * 640]
)
def test_message_comes_back_from_its_bits(text):
    bits = message_bits.embed(text, 144, 160, KEY)
    assert bits.shape == (144, 160)
    assert 0.4 < bits.mean() < 0.6
    log_odds = 2.0 * bits - 1
    assert message_bits.extract(log_odds, KEY) == text
    assert message_bits.extract(log_odds, OTHER) is None
    # A part of it, from anywhere, and a twentieth of the cells lie.
    part = log_odds[11:, 13:]
    lies = np.random.default_rng(0).random(part.shape) < 0.05
    assert message_bits.extract(np.where(lies, -part, part), KEY, (11, 13)) == text
    # Where the pilots' period begins is known, the tile's beginning is not.
    assert message_bits.extract(part[21:, 3:], KEY, (0, 0)) == text


def test_a_tile_of_sixteen_bytes_is_read_where_a_seventh_of_its_cells_lie():
    rng = np.random.default_rng(1)
    log_odds = 2.0 * message_bits.embed(TEXT, 32, 32, KEY) - 1
    read = [
        message_bits.extract(np.where(rng.random((32, 32)) < 0.15, -log_odds, log_odds), KEY)
        for _ in range(10)
    ]
    assert read == [TEXT] * 10


def test_format_is_the_same_for_ever():
    """What derives the bits is part of the format: no library may change it."""
    bits = message_bits.embed("© 2026 me", 64, 64, message_bits.derive_key("secret"))
    assert hashlib.sha256(np.packbits(bits).tobytes()).hexdigest()[:16] == "45040faec89727cd"
    tile = message_bits.pilots()
    assert np.count_nonzero(tile) == tile.size // 4


def test_a_marked_file_of_this_format_is_still_read(shipped, pilots):
    grey = messages.luminance(image_files.read_colour(Path(__file__).with_name("marked_2.jpg")))
    key = message_bits.derive_key("for ever")
    assert messages.read(shipped, pilots, grey, key, anywhere=False) == "read me"


def test_message_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="641 bytes, too long for any image: 640 bytes fit"):
        message_bits.embed("a" * 641, 400, 600, KEY)
    with pytest.raises(UserError, match="empty"):
        message_bits.embed("", 400, 600, KEY)
    with pytest.raises(UserError, match="zero byte"):
        message_bits.embed("a\0b", 400, 600, KEY)


def test_no_message_in_chance_or_in_all_the_same():
    rng = np.random.default_rng(0)
    planes = [rng.standard_normal((40, 50)) for _ in range(100)]
    planes += [np.full((40, 50), value) for value in (-1.0, 0.0, 1.0)]
    assert [message_bits.extract(plane, KEY) for plane in planes] == [None] * 103
    assert message_bits.extract(np.zeros((3, 3)), KEY) is None


def test_a_right_frame_with_a_wrong_check_or_version_is_no_message(monkeypatch):
    bits = 2.0 * message_bits.embed(TEXT, 32, 32, KEY) - 1
    forged = message_bits.Key(KEY.layout, OTHER.check)
    assert message_bits.extract(bits, forged) is None
    # A later version's frame, were its layout the same.
    layout = {name: getattr(message_bits, name) for name in ("pilots", "_layout")}
    for name, function in layout.items():

        def as_now(*words, function=function):
            with monkeypatch.context() as now:
                now.setattr(message_bits, "VERSION", 2)
                return function(*words)

        monkeypatch.setattr(message_bits, name, as_now)
    monkeypatch.setattr(message_bits, "VERSION", 3)
    later = 2.0 * message_bits.embed(TEXT, 32, 32, KEY) - 1
    assert message_bits.extract(later, KEY) == TEXT
    monkeypatch.setattr(message_bits, "VERSION", 2)
    assert message_bits.extract(later, KEY) is None
    assert message_bits.extract(bits, KEY) == TEXT


# ---------------------------------------------------------------- where the grid is


def test_a_grid_is_found_where_it_was_put(shipped, pilots, marked):
    """Scaled, turned and mirrored by hand; the placement says by how much."""
    picture = Image.fromarray(messages.luminance(marked))
    angle, scale = np.radians(2), 1.3
    matrix = scale * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array(picture.size) / 2
    shift = np.array([280, 260]) - matrix @ centre  # of the grid, in the changed picture
    back = grids.Placement(np.linalg.inv(matrix), -np.linalg.inv(matrix) @ shift, centre)
    changed = Image.fromarray(back.pixels(picture, (0, 0), (560, 520)))
    found = [
        placement
        for placements in grids.search(changed, pilots, [1.29], np.radians([1.75, -1.75]))
        for placement in placements
    ]
    best = max(found, key=lambda placement: placement.score)
    seen, placed = grids.made_exact(changed, pilots, best)
    stretch = np.diag(np.array(changed.size) / seen.size)
    np.testing.assert_allclose(stretch @ placed.matrix, matrix, atol=0.004)
    # Where cells of the original are now, up to whole tiles.
    for point in ([40, 40], [180, 176], [300, 300]):
        on_grid = np.linalg.solve(
            stretch @ placed.matrix, matrix @ point + shift - stretch @ placed.shift
        )
        off = (on_grid - point + grids.TILE / 2) % grids.TILE - grids.TILE / 2
        assert np.abs(off).max() < 1


def test_a_screenshot_of_rough_ground_is_read(shipped, monkeypatch):
    """Blocks of grass seem to be off by anything, where they are let."""
    number = list(watermark_attacks.PICTURES).index("grass")
    marked, is_read = watermark_attacks.ours(shipped)(load("grass"), number)
    monkeypatch.setattr(grids, "SCALES", [2 ** (7 / 48)])  # half a percent more than it is
    monkeypatch.setattr(grids, "ANGLES", [0.0])
    assert is_read(attacked(marked, "screenshot at", 1.1, number))


def test_nothing_is_found_in_an_unmarked_picture(shipped, pilots, small):
    assert list(messages.readings(shipped, pilots, messages.luminance(small))) == []


SMALL_ATTACKS = {
    **{
        name: strengths[len(strengths) // 2]
        for name, (_, strengths, _) in watermark_attacks.ATTACKS.items()
    },
    **{
        "JPEG, quality": 50,
        "noise, σ": 0.05,
        "turn, degrees": 3,
        "resize to": 0.75,
        "crop to": 0.5,
    },
}


@pytest.mark.parametrize("name", SMALL_ATTACKS)
def test_each_attack_is_survived_once(name, shipped, pilots, marked):
    seen = messages.luminance(attacked(marked, name, SMALL_ATTACKS[name], 1))
    assert messages.read(shipped, pilots, seen, KEY) == TEXT


def test_wrong_keys_read_nothing(shipped, pilots, marked):
    cells = list(messages.readings(shipped, pilots, messages.luminance(marked)))
    assert message_bits.extract(*cells[0][:1], KEY, cells[0][1]) == TEXT
    for number in range(20):
        key = message_bits.derive_key(str(number))
        assert all(message_bits.extract(odds, key, origin) is None for odds, origin in cells)


# ---------------------------------------------------------------- marking


def test_marked_pictures_have_the_quality_that_is_said(small, marked):
    assert metrics.psnr(small[None], marked[None]) == pytest.approx(messages.PSNR, abs=0.1)
    np.testing.assert_allclose(marked * 255, np.round(marked * 255), atol=1e-4)  # 8-bit levels


def test_smooth_ground_changes_at_most_half_as_much(shipped, small, marked):
    bits = message_bits.embed(TEXT, 44, 45, KEY)
    even = messages.mark(shipped, small, bits, even=True)
    blocks = messages.luminance(small)[:, :352].reshape(22, 16, 22, 16)
    smooth = blocks.std((1, 3)) <= np.quantile(blocks.std((1, 3)), 0.25)
    uneven, even = (
        np.abs(messages.luminance(seen - small))[:, :352].reshape(22, 16, 22, 16).mean((1, 3))
        for seen in (marked, even)
    )
    assert uneven[smooth].mean() <= even[smooth].mean() / 2


def test_bands_leave_no_seam(shipped, small, monkeypatch):
    bits = message_bits.embed(TEXT, 44, 45, KEY)
    picture = Image.fromarray(messages.luminance(small))
    at_rest = grids.Placement(np.eye(2), np.zeros(2), np.zeros(2))

    def both():
        odds, _ = messages.log_odds_of_cells(shipped, picture, at_rest, 1000)
        return messages.mark(shipped, small, bits), odds

    whole, real = both(), messages._bands
    monkeypatch.setattr(messages, "_bands", lambda down, across: real(down, across, 3 * across))
    banded = both()
    np.testing.assert_array_equal(whole[0], banded[0])
    np.testing.assert_allclose(whole[1], banded[1], atol=1e-3)


def test_a_message_that_jpeg_would_kill_is_refused(small, monkeypatch):
    """It is read from the file as it is, and from JPEG 75."""
    seen = []

    def read(model, pilots, grey, key, anywhere):
        seen.append(grey)
        return TEXT if len(seen) == 1 else None

    monkeypatch.setattr(messages, "mark", lambda model, picture, bits: picture)
    monkeypatch.setattr(messages, "read", read)
    assert messages.marked_file(None, None, small, TEXT, KEY) is None
    after = messages.decode(messages.encode(small, "jpeg", 75), "jpeg")
    for grey, picture in zip(seen, (small, after), strict=True):
        np.testing.assert_array_equal(grey, messages.luminance(picture))
    assert 20 < metrics.psnr(small[None], after[None]) < 45


def test_least_capacities(shipped, pilots):
    """Eight bytes in 256x256 pixels, sixteen in 400x400."""
    for name, side, least in [("coffee", 256, 8), ("portrait", 256, 8), ("coffee", 400, 16)]:
        picture = load(name)[:side, :side]
        assert messages.marked_file(shipped, pilots, picture, "x" * least, KEY) is not None


# ---------------------------------------------------------------- files


def test_embed_and_extract_from_the_command_line(tmp_path):
    Image.open(PHOTO).crop((0, 0, 501, 403)).save(tmp_path / "photo.png")
    words = "--input", "photo.png", "--message", "© 2026 me", "--key", "secret"
    done = python(ROOT / "watermark_photo.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    marked = Path("runs/watermark_photo_marked/photo.png")
    assert f"Wrote {marked}" in done.stdout
    before, after = (np.asarray(Image.open(p), int) for p in (tmp_path / "photo.png", marked))
    assert before.shape == after.shape == (403, 501, 3)
    assert 0 < np.abs(before - after).max() <= 8
    done = python(
        ROOT / "watermark_photo.py", "--input", marked, "--extract", "--key", "secret", cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, f"{marked}: © 2026 me\n")
    assert done.stderr.startswith("Using ")
    assert "searching" not in done.stderr  # nobody is looking at a terminal


def test_goes_on_after_a_file_without_a_message(tmp_path, marked, capsys):
    as_image(marked).save("marked.png")
    as_image(marked[:, ::-1]).save("mirrored.png")
    as_image(np.full((64, 64, 3), 0.5)).save("grey.png")
    words = ["--input", "grey.png", "marked.png", "mirrored.png", "--extract", "--key", "test"]
    assert script.main(words) == 1
    said = capsys.readouterr()
    assert said.out == f"marked.png: {TEXT}\nmirrored.png: {TEXT}\n"
    assert "grey.png: no message with this key (those of the first version" in said.err


def test_a_message_does_not_command_the_terminal(shipped, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(messages, "read", lambda *_, **__: "a\x1b[31m\nb")
    as_image(np.full((64, 64, 3), 0.5)).save("grey.png")
    assert messages.reveal(shipped, ["grey.png"], "") == 0
    assert capsys.readouterr().out == "grey.png: a\\x1b[31m\\nb\n"


def test_progress_is_shown_to_a_terminal(monkeypatch, capsys):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with messages._progress_bar("a.png") as progress:
        progress(0.5)
    assert "a.png: searching [###############               ]" in capsys.readouterr().err


def test_marked_copy_as_jpeg(tmp_path, small, capsys):
    as_image(small).save("photo.png")
    words = ["--input", "photo.png", "--message", TEXT, "--format", "jpeg", "--output-dir", "out"]
    assert not script.main(words)
    with Image.open("out/photo.jpg") as image:
        assert image.format == "JPEG"
    assert script.main(["--input", "out/photo.jpg", "--extract"]) == 0
    assert f"out/photo.jpg: {TEXT}" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_a_marked_copy_keeps_its_colour_profile(small, form):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    as_image(small).save("photo.png", icc_profile=profile)
    words = ["--input", "photo.png", "--message", TEXT, "--format", form, "--output-dir", "out"]
    assert not script.main(words)
    with Image.open(next(Path("out").iterdir())) as image:
        assert image.info["icc_profile"] == profile


def test_transparent_parts_are_refused(small, error_of):
    image = as_image(small).convert("RGBA")
    image.save("opaque.png")
    image.putpixel((0, 0), (0, 0, 0, 254))
    image.save("photo.png")
    words = "--message", TEXT, "--output-dir", "out"
    line = error_of(script.main, "--input", "photo.png", *words)
    assert "photo.png: has transparent parts, which a copy would lose" in line
    assert contents("out") == {}
    assert not script.main(["--input", "opaque.png", *words])


def test_nothing_is_written_that_could_not_be_read(tmp_path, small, error_of, monkeypatch):
    rng = np.random.default_rng(0)
    as_image(rng.uniform(0.4, 0.6, (72, 80, 3))).save("small.png")
    as_image(np.zeros((400, 400, 3))).save("flat.png")
    as_image(small).save("photo.png")
    for name, text in [("small", "sixteen bytes ok"), ("flat", "x" * 600), ("photo", "x" * 300)]:
        words = "--input", f"{name}.png", "--message", text, "--output-dir", "out"
        line = error_of(script.main, *words)
        assert f"{name}.png: not written, because {len(text)} bytes could not be read back" in line
        assert "and holds" in line
        assert contents("out") == {}


def test_capacity_is_what_can_be_hidden(tmp_path, small, capsys, error_of):
    as_image(small).save("photo.png")
    assert not script.main(["--capacity", "photo.png"])
    said = capsys.readouterr().out
    assert said.startswith("photo.png: ")
    room = int(said.split()[1])
    assert room >= 16
    assert not script.main(["--input", "photo.png", "--message", "x" * room, "--output-dir", "out"])
    more = "--input", "photo.png", "--message", "x" * (room + 1), "--output-dir", "more"
    assert f"holds {room} bytes" in error_of(script.main, *more)


def test_contradicting_flags_are_named(error_of, tmp_path):
    assert "--message has no effect here; it is for --input" in error_of(
        script.main, "--message", "x"
    )
    as_image(np.full((64, 64, 3), 0.5)).save("a.png")
    assert "wants either" in error_of(script.main, "--input", "a.png")
    both = "--input", "a.png", "--extract", "--message", "x"
    assert "wants either" in error_of(script.main, *both)
    marking = "--input", "a.png", "--message", "x"
    assert "--strength has no effect here; it is for training" in error_of(
        script.main, *marking, "--strength", "0.1"
    )
    reading = "--input", "a.png", "--extract"
    for words in (["--format", "jpeg"], ["--output-dir", "out"]):
        assert f"{words[0]} has no effect with --extract" in error_of(script.main, *reading, *words)
    assert "--capacity exclude each other" in error_of(script.main, *marking, "--capacity", "a.png")
    assert "--key has no effect here" in error_of(script.main, "--capacity", "a.png", "--key", "x")
    assert "--output-dir has no effect with --capacity" in error_of(
        script.main, "--capacity", "a.png", "--output-dir", "out"
    )
    assert "too long for any image: 640 bytes fit" in error_of(
        script.main, "--input", "a.png", "--message", "x" * 5_000
    )
    assert "--message is empty" in error_of(script.main, "--input", "a.png", "--message", "")
    assert not list((tmp_path / "runs").rglob("*.png"))


def test_files_that_cannot_be_read_are_named(tmp_path, small, error_of):
    """Before a model is loaded: `error_of` sees that this line is the only one."""
    (tmp_path / "t.png").write_text("text")
    as_image(small).save("photo.png")
    for words, said in [
        (["--input", "t.png", "--extract"], "t.png: not an image"),
        (["--input", "none.png", "--extract"], "none.png: no such file"),
        (["--input", "photo.png", "none.png", "--extract"], "none.png: no such file"),
        (["--input", "photo.png", "none.png", "--message", "x"], "none.png: no such file"),
        (["--capacity", "none.png"], "none.png: no such file"),
    ]:
        assert said in error_of(script.main, *words)


def test_goes_on_after_a_file_that_is_no_image(tmp_path, marked, capsys):
    (tmp_path / "t.png").write_text("text")
    as_image(marked).save("marked.png")
    files = "t.png", "marked.png"
    assert script.main(["--input", *files, "--extract", "--key", "test"]) == 1
    said = capsys.readouterr()
    assert said.out == f"marked.png: {TEXT}\n"
    assert "t.png: not an image" in said.err
    as_image(np.full((64, 64, 3), 0.5)).save("grey.png")
    assert script.main(["--capacity", "t.png", "grey.png"]) == 1
    said = capsys.readouterr()
    assert said.out == "grey.png: 0 bytes\n"
    assert "t.png: not an image" in said.err


def test_goes_on_after_a_picture_that_holds_too_little(tmp_path, small, capsys):
    as_image(np.zeros((72, 80, 3))).save("flat.png")
    as_image(small).save("photo.png")
    words = ["--input", "flat.png", "photo.png", "--message", TEXT, "--output-dir", "out"]
    assert script.main(words) == 1
    assert [path.name for path in contents("out")] == ["photo.png"]
    assert "flat.png: not written" in capsys.readouterr().err


# ---------------------------------------------------------------- counting what survives


def test_counts_of_other_methods_are_kept(monkeypatch, tmp_path, error_of):
    """Measured anew, one method leaves what others did, and what was counted is not counted."""
    calls = []

    def hide_in(picture, number):
        calls.append(number)
        return picture, lambda seen: seen.shape == picture.shape

    few = dict(list(watermark_attacks.PICTURES.items())[:2])
    monkeypatch.setattr(watermark_attacks, "PICTURES", few)
    monkeypatch.setattr(watermark_attacks, "METHODS", {"a": lambda _: hide_in, "b": None})
    path, before = tmp_path / "results.json", {"qualities": {"x": 40.0}, "read": {}}
    results = {"attacks": {"methods": {"b": before}, "false": {"found": 0}}}
    path.write_text(json.dumps({"trainings": {}, "speed": {}, **results}))
    for anew in (False, True, False):
        watermark_attacks.measure(None, path, ["a"], anew)
        stored = json.loads(path.read_text())["attacks"]
        assert stored["methods"]["b"] == before
        assert stored["false"] == {"found": 0}
        counts = stored["methods"]["a"]["read"]
        assert counts["mirror"] == {"0": 2}  # of two pictures
        assert counts["crop to"] == {"0.75": 0, "0.5": 0, "0.33": 0}
    assert calls == [0, 1, 0, 1]
    line = error_of(watermark_attacks.main, "--methods", "c", "--results", path)
    assert "--methods c: there is none; take some of a, b" in line
    line = error_of(watermark_attacks.main, "--figures", "--anew", "--results", path)
    assert "--anew have no effect with --figures" in line
