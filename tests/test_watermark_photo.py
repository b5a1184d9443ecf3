import math

import keras
import numpy as np
import pytest
from PIL import Image

import watermark_photo
from common import metrics, training
from synthetic import textures
from tools.messages import files as message_files


def test_parameters_and_shapes():
    model = watermark_photo.build_photo_watermark()
    assert (model.name, model.count_params()) == ("watermark_photo", 116_954)
    counts = [model.get_layer(n).count_params() for n in ("encoder", "decoder", "extractor")]
    assert counts == [2_736, 5_793, 108_425]
    fixed = watermark_photo.build_photo_watermark(40, 64, 3)
    assert fixed.output["marked"].shape == (None, 40, 64, 3)
    assert fixed.output["recovered"].shape == (None, 5, 8, 1)
    with pytest.raises(ValueError, match="must be multiples of 8, not 40 and 60"):
        watermark_photo.build_photo_watermark(40, 60)


def test_the_model_in_models_is_this_network():
    shipped = training.load_model(None, "watermark_photo")
    built = watermark_photo.build_photo_watermark()
    assert [w.shape for w in shipped.weights] == [w.shape for w in built.weights]


def test_no_pixel_changes_by_more_than_the_strength():
    model = watermark_photo.build_photo_watermark(strength=0.03)
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(2, 40, 64, 1)).astype("float32")
    bits = rng.integers(0, 2, (2, 5, 8, 1)).astype("float32")
    outputs = model({"image": image, "watermark": bits}, training=False)
    assert np.abs(outputs["marked"] - image).max() <= 0.03 + 1e-6
    assert outputs["recovered"].shape == outputs["recovered_blurred"].shape == (2, 5, 8, 1)
    assert metrics.psnr(image, np.asarray(outputs["marked"])) >= -20 * math.log10(0.03)


def test_marked_images_are_clipped():
    """With a change of up to 1, some pixels of white or black images would leave [0, 1]."""
    keras.utils.set_random_seed(0)
    model = watermark_photo.build_photo_watermark(strength=1.0)
    images = np.stack([np.ones((64, 64, 1)), np.zeros((64, 64, 1))])
    inputs = {"image": images, "watermark": np.ones((2, 8, 8, 1))}
    marked = np.asarray(model(inputs, training=False)["marked"])
    assert 0 <= marked.min() <= marked.max() <= 1
    assert ((marked == 0) | (marked == 1)).any()


def test_pictures_for_training_validation_and_test_differ():
    """Patches of a picture are found in it again, and in no other."""
    patches = watermark_photo.load_patches(watermark_photo.Train(limit=60))
    assert patches.x_train.shape == patches.x_test.shape == (60, 64, 64, 1)
    names = [
        watermark_photo.TRAINING_PICTURES,
        watermark_photo.VALIDATION_PICTURES,
        watermark_photo.TEST_PICTURES,
    ]
    pictures = textures.pictures([name for part in names for name in part])
    assert len(pictures) > 8

    def sources(images):
        """Return the names of the pictures that these patches were cut from."""
        rows = [patch[31].tobytes() for patch in np.round(images[..., 0] * 255).astype(np.uint8)]
        return {n for n, picture in pictures.items() for row in rows if row in picture.tobytes()}

    splits = patches.x_train, patches.x_val, patches.x_test
    for images, allowed in zip(splits, names, strict=True):
        assert sources(images)
        assert sources(images) <= set(allowed)
    together = np.concatenate([x.reshape(len(x), -1) for x in splits])
    assert len(np.unique(together, axis=0)) == len(together)  # textures differ, too
    synthetic = watermark_photo.load_patches(watermark_photo.Train(synthetic=True, limit=10))
    assert synthetic.summary()["source"] == "synthetic"


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--message x", "--message"),  # without --input
        ("--input a.png", "needs exactly one of --message TEXT and --extract"),
        ("--input a.png --extract --message x", "exactly one of --message TEXT"),
        ("--input a.png --extract --format jpeg", "--format has no effect with --extract"),
        ("--input a.png --extract --output-dir out", "--output-dir has no effect with --extract"),
        ("--input a.png --message x --strength 0.1", "--strength"),
        ("--input a.png --message x --capacity a.png", "--capacity"),
        ("--capacity a.png --key x", "--key"),
        ("--capacity a.png --output-dir out", "--output-dir"),
        ("--data-dir x", "--data-dir"),
        ("--strength 2", "--strength must be between 0.0001 and 1"),
        ("--noise 2", "--noise must be between 0 and 1"),
        ("--input a.png --message \udcff", "--message and --key must be text in UTF-8"),
        ("--input a.png --extract --key \udcff", "--message and --key must be text in UTF-8"),
    ],
)
def test_flags_that_contradict_each_other_are_named(arguments, text, usage_error, tmp_path):
    Image.new("L", (64, 64), 90).save("a.png")
    assert text in usage_error(watermark_photo.main, *arguments.split())
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("a" * 641, "the message has 641 bytes; no image holds more than 640"),
        ("", "the message is empty"),
        ("a\0b", "zero byte"),
    ],
)
def test_messages_that_no_photo_holds_are_refused(message, text, error_of, tmp_path):
    Image.new("L", (64, 64), 90).save("a.png")
    assert text in error_of(watermark_photo.main, "--input", "a.png", "--message", message)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--input", "t.png", "--extract"], "t.png: not an image"),
        (["--input", "none.png", "--extract"], "none.png: no such file"),
        (["--input", "photo.png", "none.png", "--extract"], "none.png: no such file"),
        (["--input", "photo.png", "none.png", "--message", "x"], "none.png: no such file"),
        (["--capacity", "none.png"], "none.png: no such file"),
    ],
)
def test_files_that_cannot_be_read_are_named_before_a_model_is_loaded(
    arguments, text, tmp_path, error_of, monkeypatch
):
    (tmp_path / "t.png").write_text("text")
    Image.new("L", (64, 64), 90).save("photo.png")
    monkeypatch.setattr(training, "load_model", lambda *_: pytest.fail("a model was loaded"))
    assert text in error_of(watermark_photo.main, *arguments)


def test_a_progress_bar_is_not_shown_without_a_terminal(capsys):
    with message_files.progress_bar("a.png") as progress:
        progress(0.5)
    assert capsys.readouterr() == ("", "")
