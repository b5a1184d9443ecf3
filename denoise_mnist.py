"""Train a convolutional autoencoder to remove Gaussian noise from handwritten digits.

    noisy digit (28, 28, 1)
      Conv 32 3x3 relu  (28, 28, 32)
      MaxPool 2         (14, 14, 32)
      Conv 32 3x3 relu  (14, 14, 32)
      MaxPool 2         (7, 7, 32)     latent
      Conv 32 3x3 relu  (7, 7, 32)
      UpSampling 2      (14, 14, 32)
      Conv 32 3x3 relu  (14, 14, 32)
      UpSampling 2      (28, 28, 32)
      Conv 1 3x3 sigmoid
    clean digit (28, 28, 1)            28,353 parameters

Run it:
  python denoise_mnist.py                      train in about a minute, evaluate, plot
  python denoise_mnist.py --recipe published   train as the source article did
  python denoise_mnist.py --data-dir DIR       MNIST, or pictures of yours, from a folder
  python denoise_mnist.py --noise 0.7          more noise
  python denoise_mnist.py --input digit.png    a digit of yours, made as MNIST's are: 20 pixels
                                               tall, white on black; --tile for a sheet of such

Network and recipe `published` (Adam at its default rate, batches of 128, 100 epochs, the noise
added once) are from F. Chollet, "Building Autoencoders in Keras", 2016,
https://blog.keras.io/building-autoencoders-in-keras.html. The recipe `fast` ends with a lower loss
in less than a tenth of the time. What was tried for it stands in docs/experiments.md.
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import batches, command_line, data, devices, metrics, noise, plotting
from common import run_folder, trained_models
from common.command_line import flag, number
from applications import denoising, inputs, small_images

import dataclasses

import keras
import numpy as np
from keras import layers

RECIPES = {
    "fast": {"epochs": 12, "batch_size": 32, "learning_rate": 0.01, "max_steps_per_epoch": 140},
    "published": {"epochs": 100, "batch_size": 128, "learning_rate": 0.001},
}
FIGURES = ["digits.png", "latent.png"]
TITLES = {
    "noisy_input": "noisy",
    "median_3x3": "median 3x3",
    "linear_filter": "linear filter",
    "model": "denoised",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command_line.Settings):
    """The flags of this script alone."""

    script = "denoise_mnist"
    names = {"autoencoder": "denoise_mnist"}
    build_like = staticmethod(lambda architecture, model: build_denoiser())
    noise: float = flag(
        "standard deviation, of pixels in [0, 1] (default: 0.5)", 0.5, number(0, 10)
    )
    tile: bool = flag(
        "denoise the whole picture at its size, many digits of 20 pixels",
        *(False, bool, ("input",), False),
    )
    no_invert: bool = flag(
        "take dark on light as it is, where the training images are light on dark",
        *(False, bool, ("input",), False),
    )


def build_denoiser(height=28, width=28):
    """Return the autoencoder: (n, height, width, 1) to the same shape, values in [0, 1].

    Height and width are multiples of 4; None leaves them open.

    It does not denoise by compression: the latent holds 7·7·32 = 1,568 numbers, twice the 784
    pixels. Noise is independent from pixel to pixel, so it can't be predicted from the neighbours,
    and strokes can. What lowers the loss is the mean of all clean digits that fit what is seen in a
    window some 24 pixels wide, and that is what the network learns to give.
    """
    noisy = keras.Input((height, width, 1), name="noisy")
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(noisy)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(x)
    latent = layers.MaxPooling2D(2, name="latent")(x)

    x = layers.Conv2D(32, 3, activation="relu", padding="same")(latent)
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(x)
    x = layers.UpSampling2D(2)(x)
    sigmoid = {"activation": "sigmoid", "dtype": "float32"}
    denoised = layers.Conv2D(1, 3, padding="same", name="denoised", **sigmoid)(x)
    return keras.Model(noisy, denoised, name="denoise_mnist")


def main(argv=None):
    settings = command_line.parse(Settings, __doc__, {"autoencoder": RECIPES}, argv)
    plotting.set_up(settings.show)
    if settings.input:
        return denoise_files(settings)

    def add_noise(clean, seed):
        return noise.gaussian(clean, settings.noise, seed)  # clip(x + 0.5·ε, 0, 1)

    model, settings = trained_models.model_to_evaluate(settings)
    digits = data.load_mnist(settings.data_dir, settings.synthetic, settings.limit, settings.seed)
    noisy_validation = add_noise(digits.x_validation, batches.seed_for("validation"))
    noisy_test = add_noise(digits.x_test, batches.seed_for("test"))

    with run_folder.RunFolder(settings, digits, FIGURES) as run:
        if model is None:
            stream = batches.denoising_batches(settings, digits.x_train, add_noise, few=True)
            keras.utils.set_random_seed(settings.seed)
            keras.config.set_dtype_policy(settings.precision)
            with devices.scope(settings):
                model = build_and_compile(settings, stream, digits)
            model.summary()
            model.fit(
                stream.dataset(run.first_epoch),
                steps_per_epoch=stream.steps_per_epoch,
                epochs=settings.epochs,
                initial_epoch=run.first_epoch,
                **devices.validation(settings, noisy_validation, digits.x_validation, 32),
                callbacks=run.callbacks(model),
                shuffle=False,  # the batches come shuffled
                verbose=run.verbose,
            )
            model = run.best_model()

        # The test set, once.
        print(f"Evaluating on {len(noisy_test):,} test images ...", flush=True)
        linear_filter = fit_linear_filter(digits, noisy_validation, add_noise)
        candidates = {
            "noisy_input": noisy_test,
            "median_3x3": metrics.median_3x3(noisy_test),
            "linear_filter": linear_filter(noisy_test),
            "model": model.predict(noisy_test, batch_size=500, verbose=0),
        }
        measures = [metrics.binary_crossentropy, metrics.mse, metrics.psnr, metrics.ssim]
        results = metrics.compare(digits.x_test, candidates, measures)
        plot(run, model, digits, candidates, results)
        run.plot_history("binary cross-entropy (nats per pixel)")
        run.finish(model, results, typical=typical(model, digits, candidates))


def denoise_files(settings):
    """Write denoised copies of the --input files."""
    trained, _ = inputs.model_to_apply(settings, ("mse", "noisy_input"))
    known = {"known": inputs.known_of(settings), "invert": not settings.no_invert}
    if not settings.tile:
        return denoising.denoise_small(trained, settings.input, settings.output_dir, **known)
    model = build_denoiser(None, None)  # the same weights fit a picture of any size
    model.set_weights(trained.get_weights())
    return denoising.denoise_files(model, settings.input, settings.output_dir, 4, **known)


def build_and_compile(settings, stream, digits):
    """Return the model of a recipe, ready for `fit`."""
    model = build_denoiser()
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    if settings.recipe == "fast":
        # A high rate does no harm where no noisy image is ever seen twice. beta_2 = 0.95 forgets
        # squared gradients after 20 steps, not 1,000.
        batches.init_output_bias(model, digits.x_train)
        steps = settings.epochs * stream.steps_per_epoch
        schedule = batches.warm_up_and_cosine(settings.learning_rate, steps)
        optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
    # -x·log(y) - (1 - x)·log(1 - y), x the clean pixel and y the output, mean over all pixels: the
    # least at y = x, for grey pixels, too. Choose the squared error where PSNR is all that counts.
    model.compile(optimizer, loss="binary_crossentropy")
    return model


def typical(model, digits, candidates):
    """Return what is kept of the test images, clean and noisy, for --input."""
    some = slice(2_000)
    noisy, denoised = (candidates[name][some] for name in ("noisy_input", "model"))
    rebuilt = trained_models.predict(model, digits.x_test[some])
    return small_images.typical(digits.x_test[some], rebuilt, noisy, denoised)


def fit_linear_filter(digits, noisy_validation, add_noise):
    """Return the best linear map from 784 noisy pixels to 784 clean ones: a Wiener filter.

    It is fitted to training images, as ridge regression; validation images choose the ridge.
    """
    x = digits.x_train.reshape(len(digits.x_train), -1)
    noisy = add_noise(digits.x_train, batches.seed_for("linear filter")).reshape(x.shape)
    centre, mean = noisy.mean(0), x.mean(0)
    scatter, cross = (noisy - centre).T @ (noisy - centre), (noisy - centre).T @ (x - mean)

    def filter_with(ridge):
        weights = np.linalg.solve(scatter + ridge * np.eye(len(scatter)), cross)
        offset = (mean - centre @ weights).astype("float32")
        weights = weights.astype("float32")
        return lambda images: np.clip(
            images.reshape(len(images), -1) @ weights + offset, 0, 1
        ).reshape(images.shape)

    filters = [filter_with(ridge) for ridge in (1, 10, 100, 1_000)]
    return max(filters, key=lambda f: metrics.psnr(digits.x_validation, f(noisy_validation)))


def plot(run, model, digits, candidates, results):
    """Write two figures: ten digits, and the latent feature maps of three."""
    titles = digits.examples()
    examples = list(titles.values())
    rows = {"clean": digits.x_test[examples]}
    for name, title in TITLES.items():
        rows[f"{title}\n{results[name]['psnr']:.2f} dB"] = candidates[name][examples]
    run.plot(
        *(plotting.image_rows, rows, "digits.png"),
        f"Test images, Gaussian noise {run.settings.noise:g}",
        "The median filter looks at nine pixels and can't tell an edge from a streak of noise. The "
        "best linear filter knows which pixels go together, but does the same to every image. "
        "The network has seen what such images look like. Where the noise hides too much it "
        "guesses, which shows as blur. PSNR is the mean over all test images.",
        column_titles=titles,
    )
    encoder = keras.Model(model.input, model.get_layer("latent").output)
    noisy = candidates["noisy_input"][examples[2:5]]
    maps = np.moveaxis(encoder.predict(noisy, verbose=0), -1, 1)[..., np.newaxis]
    maps = maps / np.maximum(maps.max((2, 3), keepdims=True), 1e-6)
    run.plot(
        plotting.image_rows,
        dict(zip(list(titles)[2:5], maps, strict=True)),
        "latent.png",
        "What the encoder sees: the 32 latent feature maps of three noisy images",
        "Each map is 7x7, the brighter the stronger, scaled to its own range. Some answer to the "
        "ground, others to what stands out from it; some have learned where the border is. A map "
        "that is dark for every image is a dead filter: a relu that never fires, the price of a "
        "high learning rate. Together they hold 1,568 numbers, more than the 784 pixels.",
        cell=0.32,
    )


if __name__ == "__main__":
    command_line.start(main)
