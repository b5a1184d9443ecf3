import csv
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import contents
from PIL import Image

import vae_fashion
from common import data, images, plotting, training
from tools import latents


@pytest.fixture(scope="module")
def clothes():
    return data.load_fashion_mnist(vae_fashion.Train(synthetic=True, limit=10)).x_test


def gray_decoder(z):
    """Return images in the gray of the first latent number."""
    return np.broadcast_to(np.asarray(z)[:, :1, None, None], (len(z), 28, 28, 1))


# ---------------------------------------------------------------- images of codes


def test_the_plane_has_z_1_from_left_to_right_and_z_2_from_bottom_to_top():
    centers = np.array([-1.5, -0.5, 0.5, 1.5])  # of four images between -2 and 2
    codes = latents.plane_codes(2, 4)
    plane = plotting.mosaic(gray_decoder(codes), 4)
    assert plane.shape == (112, 112)
    np.testing.assert_allclose(plane[0, ::28], centers)
    upward = plotting.mosaic(gray_decoder(codes[:, ::-1]), 4)
    np.testing.assert_allclose(upward[::28, 0], centers[::-1])


def test_variations_differ_by_default():
    rng = np.random.default_rng(0)
    varied = latents.vary_widely(gray_decoder, np.zeros(2, "float32"), 8, rng)
    levels = np.sort([0, *(image[0, 0, 0] for image in varied)])
    assert np.diff(levels).min() > 0.02
    assert 0.3 < max(abs(levels)) < 1.2


def test_variations_spread_as_far_as_they_are_told():
    model = training.load_model(None, "vae_fashion")
    images.write_image(Path("a.png"), np.full((28, 28, 1), 0.5))
    codes = []

    def decode(z):
        codes.append(np.asarray(z))
        return gray_decoder(z)

    recorder = types.SimpleNamespace(encoder=model.encoder, decoder=decode)
    for spread in (0, 2.0):
        settings = vae_fashion.Apply(
            input=[Path("a.png")], vary=400, spread=spread, output_dir=Path(f"out_{spread}")
        )
        latents.encode(recorder, "", settings)
    image = images.read_gray("a.png")[np.newaxis]
    z_mean, z_log_var, _ = (np.asarray(part)[0] for part in model.encoder(image))
    np.testing.assert_allclose(codes[1], np.tile(z_mean, (400, 1)), atol=1e-5)
    np.testing.assert_allclose(codes[3].std(0), 2 * np.exp(z_log_var / 2), rtol=0.15)


def test_non_utf8_file_names():
    images.write_image(Path("a\udcff.png"), np.full((28, 28, 1), 0.5))
    vae_fashion.main(["--input", "a\udcff.png", "--vary", "1", "--output-dir", "out"])
    names, _ = latents.read_codes(Path("out/latent.csv"), 2)
    assert names == [r"a\udcff"]


def test_generate_prints_its_seed_and_takes_a_new_one_each_time(capsys):
    for _ in range(2):
        vae_fashion.main(["--generate", "2"])
    one, two = (
        Path("runs", name, "latent.csv").read_text()
        for name in ("vae_fashion_generated", "vae_fashion_generated_2")
    )
    assert one != two
    seeds = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "Seed" in line]
    vae_fashion.main(["--generate", "2", "--seed", seeds[0], "--output-dir", "again"])
    assert Path("again/latent.csv").read_text() == one
    names = {path.name for path in Path("again").iterdir()}
    assert names == {"new_001.png", "new_002.png", "sheet.png", "latent.csv"}
    assert Image.open("again/new_002.png").size == (28, 28)


# ---------------------------------------------------------------- the user's pictures


def test_encode_vary_and_decode(clothes):
    images.write_image(Path("a.png"), clothes[0])
    enlarged = Image.fromarray(np.round(clothes[0, ..., 0] * 255).astype(np.uint8))
    enlarged.resize((90, 140)).save("b.jpg")
    vae_fashion.main(["--input", "a.png", "b.jpg", "--vary", "3", "--output-dir", "out"])
    expected = {"a.png", "b.jpg", "latent.csv"}
    for stem in ("a", "b"):
        expected |= {f"{stem}_sheet.png", f"{stem}_variations.png"}
        expected |= {f"{stem}_variation_{number:03}.png" for number in (1, 2, 3)}
    assert {path.name for path in Path("out").iterdir()} == expected
    with Path("out/latent.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a", "b"]
    assert list(rows[0]) == ["name", "z_1", "z_2"]
    vae_fashion.main(["--decode", "out/latent.csv", "--output-dir", "back"])
    assert Path("back/a.png").read_bytes() == Path("out/a.png").read_bytes()


def test_dark_on_light_is_inverted_unless_that_is_forbidden(clothes):
    model = training.load_model(None, "vae_fashion")
    images.write_image(Path("a.png"), 1 - clothes[0])
    for flags, expected in (([], clothes[0]), (["--no-invert"], 1 - clothes[0])):
        folder = Path("out", *flags)
        vae_fashion.main(["--input", "a.png", *flags, "--output-dir", folder])
        z_mean = np.asarray(model.encoder(expected[np.newaxis])[0])
        codes = latents.read_codes(folder / "latent.csv", 2)[1]
        np.testing.assert_allclose(codes, z_mean, atol=0.05)


@pytest.mark.filterwarnings("error:Glyph")
@pytest.mark.parametrize("name", ["$\\frac{$ a^_.png", "a\n\x1b[31mb.png", "漢字 😀.png"])
def test_names_of_any_characters(name, clothes):
    images.write_image(Path(name), clothes[0])
    vae_fashion.main(["--input", name, "--output-dir", "out"])
    assert (Path("out") / f"{Path(name).stem}_sheet.png").is_file()


def test_nothing_is_replaced(error_of):
    """Nor the file that is read."""
    main, out = vae_fashion.main, ["--output-dir", "out"]
    main(["--generate", "3", *out])
    before = contents("out")
    for arguments in (
        ["--generate", "2"],
        ["--input", "out/new_001.png"],
        ["--decode", "out/latent.csv"],
    ):
        assert "exists; use another --output-dir" in error_of(main, *arguments, *out)
    assert contents("out") == before


# ---------------------------------------------------------------- latent.csv


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"name,z_1,z_2\na,1\n", "line 2: not a name and 2 numbers"),
        (b"name,z_1,z_2\na,1,2\nb,1,x\n", "line 3: not a name and 2 numbers"),
        (b"name,z_1,z_2\na,1,nan\n", "line 2: not a name and 2 numbers"),
        (b"name,z_1,z_2\na,1,1e300\n", "line 2: not a name and 2 numbers"),
        (b"name,z_1,z_2\n../a,1,2\n", "line 2: the name is no file name"),
        (b"name,z_1,z_2\na,1,2\na,3,4\n", "line 3: the name is no file name, or not unique"),
        (b"name,z_1,z_2\n,3,4\n", "line 2: the name is no file name"),
        (b"name,z_1,z_2\na\0b,1,2\n", "line 2: the name is no file name"),
        (b"name,z_1,z_2\n\xff,1,2\n", "cannot be read"),
        (b"name,z_1,z_2\n", "holds no codes"),
        (b"a,1,2\n", "line 1: not name, z_1, z_2"),
        (b"", "line 1: not name, z_1, z_2"),
    ],
)
def test_bad_latent_files_end_in_one_line(error_of, content, text):
    Path("latent.csv").write_bytes(content)
    assert text in error_of(vae_fashion.main, "--decode", "latent.csv", "--output-dir", "out")
    assert not Path("out").exists()


def test_latent_files_of_spreadsheets_are_read():
    """With a byte-order mark, CRLF and a blank last line."""
    Path("latent.csv").write_bytes(b"\xef\xbb\xbfname,z_1,z_2\r\na,1,2\r\n\r\n")
    names, codes = latents.read_codes(Path("latent.csv"), 2)
    assert names == ["a"]
    assert codes.tolist() == [[1, 2]]
