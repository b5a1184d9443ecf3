import numpy as np
import pytest

import denoise_fashion
import denoise_mnist
from common import images, training
from tools import tiles


@pytest.mark.parametrize("size", [(1, 1), (4, 8), (27, 30), (3, 5)])
def test_padding_mirrors_up_to_the_multiple(size):
    image = np.random.default_rng(0).random((*size, 1))
    padded = tiles.pad_to_multiple(image, 4)
    assert padded.shape == (-(-size[0] // 4) * 4, -(-size[1] // 4) * 4, 1)
    np.testing.assert_array_equal(padded[: size[0], : size[1]], image)
    if size == (27, 30):
        np.testing.assert_array_equal(padded[27, :30], image[26])


def test_padding_to_four_more_than_a_multiple_of_eight():
    for side, padded in [(1, 4), (4, 4), (5, 12), (28, 28), (29, 36)]:
        assert tiles.pad_to_multiple(np.ones((side, 4, 1)), 8, plus=4).shape == (padded, 4, 1)


@pytest.mark.parametrize("plus", [0, 4])
def test_tiles_are_put_where_they_belong(plus):
    image = np.random.default_rng(0).uniform(size=(40 + plus, 56 + plus, 1)).astype("float32")
    sides = []

    def function(piece):
        sides.append(piece.shape[0])
        return 2 * piece

    np.testing.assert_array_equal(tiles.in_tiles(function, image, 16, 8, plus), 2 * image)
    assert len(sides) == 12
    assert max(sides) == 32 + plus
    assert {side % 8 for side in sides} == {plus}


@pytest.mark.parametrize(
    ("build", "multiple", "plus"),
    [
        (denoise_mnist.build_denoiser, 4, 0),
        (denoise_fashion.build_autoencoder, 8, 4),
        (denoise_fashion.build_unet, 8, 0),
    ],
)
def test_a_large_picture_shows_no_seam(build, multiple, plus, monkeypatch):
    network = build(None, None)
    network.set_weights(training.load_model(None, network.name).get_weights())
    image = np.random.default_rng(0).uniform(size=(151, 205, 1)).astype("float32")
    framed = np.pad(image, [(48, 48), (48, 48), (0, 0)], mode="symmetric")
    padded = tiles.pad_to_multiple(framed, multiple, plus)
    in_one_piece = np.asarray(network(padded[np.newaxis]))[0, 48:199, 48:253]
    monkeypatch.setattr(tiles, "TILE", 64)
    tiled = tiles.denoise(network, image, multiple, plus)
    assert tiled.shape == image.shape
    assert np.abs(tiled - in_one_piece).max() < 1 / 255
    monkeypatch.setattr(tiles, "MARGIN", 0)
    seams = tiles.denoise(network, image, multiple, plus) - in_one_piece
    assert np.abs(seams).max() > 1 / 255


def test_a_picture_gets_no_frame():
    """With a network that darkens the edge of its input, as zero padding does."""

    def network(piece):
        padded = np.pad(piece, [(0, 0), (1, 1), (1, 1), (0, 0)])
        return np.minimum(piece, padded[:, :-2, 1:-1])

    image = np.ones((40, 56, 1), "float32")
    np.testing.assert_array_equal(tiles.denoise(network, image, 4), image)


def test_files_are_inverted_and_back_only_where_that_is_asked_for(tmp_path):
    page = np.ones((40, 30, 1), "float32")
    page[10:20, 10:20] = 0
    images.write_image("page.png", page)
    given = []

    def network(piece):
        given.append(piece[0, 48, 48, 0])
        return piece * 0.5

    for number, invert in enumerate((False, True)):
        target = tmp_path / f"{number}.png"
        tiles.denoise_files(network, [("page.png", target)], multiple=4, invert=invert)
    assert given == [1, 0]
    plain, inverted = (images.read_gray(tmp_path / f"{number}.png") for number in (0, 1))
    np.testing.assert_allclose(plain, page * 0.5, atol=0.01)
    np.testing.assert_allclose(inverted, 1 - (1 - page) * 0.5, atol=0.01)
