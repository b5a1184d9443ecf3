"""Train an autoencoder, or a U-Net, to remove salt-and-pepper noise from pictures of clothes.

    noisy image        (28, 28, 1)
      Conv 64 3x3      (28, 28, 64) ------------------------------------.
      MaxPool 2        (14, 14, 64)                                     |
      Conv 32 3x3      (14, 14, 32) ------------------------------.     |
      MaxPool 2        (7, 7, 32)                                 |     |
      Conv 16 3x3      (7, 7, 16) --------------------------.     |     |
      MaxPool 2        (4, 4, 16)   latent: 256 numbers     |     |     |
      Conv 16 3x3      (4, 4, 16)                           |     |     |
      UpSampling 2     (8, 8, 16)   cut to (7, 7)  <--------'     |     |
      Conv 32 3x3      (8, 8, 32)                                 |     |
      UpSampling 2     (16, 16, 32)            <------------------'     |
      Conv 64 3x3      (14, 14, 64) without padding                     |
      UpSampling 2     (28, 28, 64)            <------------------------'
                                               Conv 16 3x3
      Conv 1 3x3       (28, 28, 1)
    clean image        (28, 28, 1)

The left column is `--architecture autoencoder`, 49,761 parameters; the lines at the right are what
`--architecture unet` adds, 90,817 parameters.

Run it:
  python denoise_fashion.py                       the article's network, in two minutes
  python denoise_fashion.py --architecture unet   the network that beats the median filter
  python denoise_fashion.py --recipe published    train as the source article did
  python denoise_fashion.py --noise 0.3 --architecture unet
  python denoise_fashion.py --input photo.png     denoise a picture of yours, of any size
  python denoise_fashion.py --architecture unet --data-dir DIR --patches
                                                  train on photos of yours, at their full size

Network and recipe `published` are those of a blog article that denoises Fashion-MNIST with imgaug.
U-Net: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, batches, command_line, data, devices, metrics, noise, plotting
from common import run_folder, trained_models
from common.command_line import flag, number
from applications import denoising, inputs

import dataclasses

import keras
import numpy as np
from keras import layers, ops

PUBLISHED = {"epochs": 20, "batch_size": 2048, "learning_rate": 0.001, "patience": 10}
FAST = {"epochs": 10, "batch_size": 64, "learning_rate": 0.004, "max_steps_per_epoch": 150}
FAST_UNET = {"epochs": 20, "batch_size": 32, "learning_rate": 0.005, "max_steps_per_epoch": 250}
RECIPES = {
    "autoencoder": {"fast": FAST, "published": PUBLISHED},
    "unet": {"fast": FAST_UNET, "published": PUBLISHED},
}
FIGURES = ["clothes.png", "noise.png"]
TITLES = {
    "noisy_input": "noisy",
    "median_3x3": "median 3x3",
    "outlier_median": "outliers only",
    "autoencoder": "autoencoder",
    "unet": "U-Net",
}
SHARES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command_line.Settings):
    """The flags of this script alone."""

    script = "denoise_fashion"
    names = {"autoencoder": "denoise_fashion", "unet": "denoise_fashion_unet"}
    applied = "unet"
    build_like = staticmethod(lambda architecture, model: BUILDERS[architecture]())
    architecture: str = flag(
        "with unet's skip connections, or without", choices=list(names), only=()
    )
    noise: float = flag("share of replaced pixels (default: 0.1)", 0.1, number(0, 1))
    patches: bool = flag(
        "train on patches of --data-dir's pictures at full size (unet)", False, bool, resume=False
    )


def build_autoencoder(height=28, width=28, initializer="glorot_uniform"):
    """Return the article's autoencoder: (n, height, width, 1) to the same shape, in [0, 1].

    Height and width are 4 more than a multiple of 8, or the output is smaller; None leaves them
    open. All it knows of an image must pass through 256 numbers, and it has to make all 784 pixels
    anew, also the nine in ten that nothing was wrong with.
    """
    relu = {"activation": "relu", "kernel_initializer": initializer}
    noisy = keras.Input((height, width, 1), name="noisy")
    x = layers.Conv2D(64, 3, padding="same", **relu)(noisy)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2D(32, 3, padding="same", **relu)(x)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2D(16, 3, padding="same", **relu)(x)
    latent = layers.MaxPooling2D(2, padding="same", name="latent")(x)

    x = layers.Conv2D(16, 3, padding="same", **relu)(latent)
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(32, 3, padding="same", **relu)(x)
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(64, 3, padding="valid", **relu)(x)  # 16 becomes 14
    x = layers.UpSampling2D(2)(x)
    sigmoid = {"activation": "sigmoid", "dtype": "float32"}
    denoised = layers.Conv2D(1, 3, padding="same", name="denoised", **sigmoid)(x)
    return keras.Model(noisy, denoised, name="denoise_fashion")


def build_unet(height=28, width=28):
    """Return the U-Net: (n, height, width, 1) to the same shape, values in [0, 1].

    Height and width are 4 more than a multiple of 8; None leaves them open. The skip connections
    show its last layers the pixels themselves, beside what the bottleneck has understood of them.
    """
    noisy = keras.Input((height, width, 1), name="noisy")
    skip_1 = layers.Conv2D(64, 3, activation="relu", padding="same")(noisy)
    x = layers.MaxPooling2D(2)(skip_1)
    skip_2 = layers.Conv2D(32, 3, activation="relu", padding="same")(x)
    x = layers.MaxPooling2D(2)(skip_2)
    skip_3 = layers.Conv2D(16, 3, activation="relu", padding="same")(x)
    latent = layers.MaxPooling2D(2, padding="same", name="latent")(skip_3)

    x = layers.Conv2D(16, 3, activation="relu", padding="same")(latent)
    x = layers.UpSampling2D(2)(x)
    x = layers.Cropping2D(((0, 1), (0, 1)))(x)  # 8 to the 7 of skip_3
    x = layers.Concatenate()([x, skip_3])
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(x)
    x = layers.UpSampling2D(2)(x)
    x = layers.Concatenate()([x, skip_2])
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(x)
    x = layers.UpSampling2D(2)(x)
    x = layers.Concatenate()([x, skip_1])
    x = layers.Conv2D(16, 3, activation="relu", padding="same")(x)
    # It learns what to change: zero for nine pixels in ten. Zhang et al. 2017,
    # https://arxiv.org/abs/1608.03981
    zeros = {"kernel_initializer": "zeros", "dtype": "float32"}
    change = layers.Conv2D(1, 3, padding="same", name="change", **zeros)(x)
    denoised = noisy + change
    # Clipped in the forward pass only: outside [0, 1] clip has no gradient, and a pixel there could
    # never be corrected.
    denoised = denoised + ops.stop_gradient(ops.clip(denoised, 0, 1) - denoised)
    return keras.Model(noisy, denoised, name="denoise_fashion_unet")


BUILDERS = {"autoencoder": build_autoencoder, "unet": build_unet}


def main(argv=None):
    settings = command_line.parse(Settings, __doc__, RECIPES, argv)
    plotting.set_up(settings.show)
    if settings.input:
        return denoise_files(settings)

    def add_noise(clean, seed):
        return noise.salt_and_pepper(clean, settings.noise, seed)

    model, settings = trained_models.model_to_evaluate(settings)
    clothes = load(settings)
    noisy_validation = add_noise(clothes.x_validation, batches.seed_for("validation"))
    noisy_test = add_noise(clothes.x_test, batches.seed_for("test"))

    with run_folder.RunFolder(settings, clothes, FIGURES) as run:
        if model is None:
            stream = batches.denoising_batches(
                settings, clothes.x_train, add_noise, few=clothes.own
            )
            keras.utils.set_random_seed(settings.seed)
            keras.config.set_dtype_policy(settings.precision)
            with devices.scope(settings):
                model = build_and_compile(settings, stream, clothes)
            model.summary()
            model.fit(
                stream.dataset(run.first_epoch),
                steps_per_epoch=stream.steps_per_epoch,
                epochs=settings.epochs,
                initial_epoch=run.first_epoch,
                **devices.validation(settings, noisy_validation, clothes.x_validation),
                callbacks=run.callbacks(model),
                shuffle=False,  # the batches come shuffled
                verbose=run.verbose,
            )
            model = run.best_model()

        # The test set, once; the other network, as shipped, is shown beside this one.
        print(f"Evaluating on {len(noisy_test):,} test images ...", flush=True)
        networks = {settings.architecture: model}
        if settings.noise == Settings.noise:
            networks |= trained_models.shipped_beside(settings, clothes)
        restorers = {
            "noisy_input": lambda noisy: noisy,
            "median_3x3": metrics.median_3x3,
            "outlier_median": outlier_median(noisy_validation[:500], clothes.x_validation[:500]),
            **{name: predictor(networks[name]) for name in RECIPES if name in networks},
        }
        restored = {name: restore(noisy_test) for name, restore in restorers.items()}
        measures = [metrics.mse, metrics.psnr, metrics.ssim]
        results = metrics.compare(clothes.x_test, restored, measures)
        plot(run, clothes, restorers, restored, results)
        run.plot_history("mean squared error")
        run.finish(model, results, settings.architecture, others=networks)


def load(settings):
    """Return Fashion-MNIST, or pictures of one's own, whole or in patches."""
    if not settings.patches:
        words = settings.data_dir, settings.synthetic, settings.limit, settings.seed
        return data.load_fashion_mnist(*words)
    if settings.data_dir is None or settings.architecture != "unet":
        raise UserError("--patches is for --architecture unet and a --data-dir of pictures")
    return data.load_pictures(settings.data_dir, settings.limit, patches=True)


def build_and_compile(settings, stream, clothes):
    """Return the model of a recipe, ready for `fit`."""
    model = BUILDERS[settings.architecture]()
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    if settings.recipe == "fast":
        if settings.architecture == "autoencoder":
            model = build_autoencoder(initializer="he_normal")
            batches.init_output_bias(model, clothes.x_train)
        steps = settings.epochs * stream.steps_per_epoch
        schedule = batches.warm_up_and_cosine(settings.learning_rate, steps)
        optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
    model.compile(optimizer, loss="mse")  # PSNR is 10·log10(1 / MSE)
    return model


def denoise_files(settings):
    """Write denoised copies of the --input files."""
    trained, architecture = inputs.model_to_apply(settings, ("mse", "noisy_input"))
    model = BUILDERS[architecture](None, None)  # the same weights fit a picture of any size
    model.set_weights(trained.get_weights())
    trained_on = inputs.known_of(settings)["dataset"]
    if trained_on.startswith(data.OWN) and not trained_on.startswith(data.OWN_PATCHES):
        print("It knows pictures scaled to 28x28 pixels. For larger ones train with --patches.")
    denoising.denoise_files(model, settings.input, settings.output_dir, multiple=8, plus=4)


def outlier_median(noisy, clean):
    """Return the median filter that touches outliers only, its threshold chosen on these images.

    A pixel is an outlier if it differs much even from the four of its neighbours that are most like
    it: the rank-ordered absolute difference of Garnett et al. 2005,
    https://doi.org/10.1109/TIP.2005.857261. A filter that looks for pure black and white instead
    would miss nearly all of imgaug's noise, whose values come from Beta(0.5, 0.5), 5.6% of them
    pure, and take the black ground of a picture for noise.
    """

    def difference(images):
        padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        neighbours = np.delete(windows.reshape(*images.shape, 9), 4, axis=-1)
        return np.sort(abs(neighbours - images[..., np.newaxis]), axis=-1)[..., :4].sum(-1)

    unlike, median = difference(noisy), metrics.median_3x3(noisy)
    threshold = max(
        np.arange(0.3, 2.5, 0.1),
        key=lambda least: metrics.psnr(clean, np.where(unlike > least, median, noisy)),
    )
    return lambda images: np.where(
        difference(images) > threshold, metrics.median_3x3(images), images
    )


def predictor(network):
    """Return a function from noisy images to what a network makes of them."""
    return lambda noisy: network.predict(noisy, batch_size=500, verbose=0)


def plot(run, clothes, restorers, restored, results):
    """Write two figures: an image of each class by all methods, and PSNR over the noise."""
    said = {
        "autoencoder": "The autoencoder makes the whole image anew from 256 numbers. ",
        "unet": "The U-Net copies what was not hit. ",
    }
    remarks = "".join(text for name, text in said.items() if name in restorers)
    examples = clothes.examples()
    rows = {"clean": clothes.x_test[list(examples.values())]}
    for name, pictures in restored.items():
        label = f"{TITLES[name]}\n{results[name]['psnr']:.2f} dB"
        rows[label] = pictures[list(examples.values())]
    run.plot(
        *(plotting.image_rows, rows, "clothes.png"),
        f"Test images, {run.settings.noise:.0%} salt-and-pepper noise",
        "The median filter smears fine detail, less so where it replaces outliers only. "
        f"{remarks}PSNR is the mean over all test images.",
        column_titles=examples,
    )
    print("Measuring at other shares of noise ...", flush=True)
    clean = clothes.x_test[:1_000]
    noisy = [
        noise.salt_and_pepper(clean, share, batches.seed_for("test", share)) for share in SHARES
    ]
    percent = 100 * np.array(SHARES)
    run.plot(
        plotting.curves,
        {
            TITLES[name]: (percent, [metrics.psnr(clean, restore(each)) for each in noisy])
            for name, restore in restorers.items()
        },
        "noise.png",
        "Where each one breaks",
        f"Each network was trained at one share of noise only. {remarks}PSNR is the mean over "
        f"{len(clean):,} test images.",
        ("replaced pixels (%)", "PSNR (dB)"),
        mark=(100 * run.settings.noise, "trained here") if run.settings.noise else None,
        ticks=percent,
    )


if __name__ == "__main__":
    command_line.start(main)
