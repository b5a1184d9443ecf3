"""Train three small networks that hide bits in an image and read them back through noise.

    image (28, 28, 1)              W (28, 28, 1), zeros and ones
      encoder, 593 parameters        |
        Conv 8 5x5, Conv 4 3x3,      |
        Conv 2 3x3, Conv 1 3x3       |
    encoded (28, 28, 1) - - - - - - -'
      decoder, 547 parameters      both laid side by side, (28, 28, 2)
        Conv 2 5x5, Conv 4 3x3, Conv 8 3x3, Conv 1 3x3 sigmoid
    marked image (28, 28, 1)       what one publishes: it should look like the image
      GaussianNoise                what happens to it on its way, in training only
      extractor, 537 parameters
        Conv 8 5x5, Conv 4 3x3, Conv 1 3x3 sigmoid
    recovered W (28, 28, 1)        the probability of a one

Models are layers: `encoder(image)`, `decoder([encoded, W])` and `extractor(marked)` are called like
layers to build the whole of 1,677 parameters, train with it, and are saved on their own, too. The
extractor's last activation is what W asks for: linear for values of any sign, sigmoid for [0, 1],
tanh for [-1, 1], relu for positive values.

Run it:
  python watermark_ae.py                        the tutorial's networks, on MNIST
  python watermark_ae.py --noise 0.12 --epochs 80    bits that stand noise
  python watermark_ae.py --architecture residual    networks for photos of any size
  python watermark_ae.py --input photo.png --message "© 2026 me" --key secret
  python watermark_ae.py --input marked/photo.png --extract --key secret

The loss is the cross-entropy of the bits, plus a term that is zero as long as the image is as good
as wanted:

    L = -mean(W·log(p) + (1 - W)·log(1 - p)) + 2·max(0, log(MSE / MSE wanted))

The lesson. As published (mean squared error on both outputs) it can't work: the image is the easier
half, the bits' gradient vanishes before the narrow layers learn to carry them, and they come back
by chance. Three things free it. The wanted MSE starts at 6 dB, where bits cost nothing, and falls
to `--psnr` while the bits hold on. The gradient of the logarithm does not fade as the MSE falls.
Relu is leaky here (slope 0.2): with a plain one the bits came too, but the image stuck at 11 dB.

The limit. On a black ground a bit can only add light: a for a one, nothing for a zero. The mean
square change is r² = a²/2, so the two levels lie a = r·√2 apart. Under noise σ a detector that
looks at this pixel alone cuts half-way, a/2 from either, and is right with probability Φ(a / 2σ) =
Φ(r / (σ√2)): 0.76 for r = σ = 0.1, that is 20 dB, and 0.56 for the tutorial's σ = 0.5. A grey pixel
can go both ways and do better. What one pixel can't carry, many together can: `--architecture
residual` gives each bit of a message dozens of cells of 8x8 pixels.

`--architecture residual`: the decoder draws a pattern for each cell's bit and adds it to the
image. No pixel changes by more than `--strength`, so no picture ends below -20·log10(strength) dB.
It trains through noise and blur, on drawn textures and on pictures that scikit-image brings.

Where it comes from. The three networks and the recipe `tutorial` (Adadelta at Keras 2's default
rate of 1.0, batches of 64, 5 epochs, noise 0.5) are those of a blog tutorial on watermarking with
autoencoders. Noise between the two halves: Zhu et al. 2018, https://arxiv.org/abs/1807.09937.
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import data, message, metrics, plotting, training, watermarks

import keras
import numpy as np
from keras import layers, ops

TUTORIAL = {"epochs": 5, "batch_size": 64, "learning_rate": 1.0, "longest_epoch": None}
RECIPES = {
    "tutorial": {
        "fast": {"epochs": 40, "batch_size": 64, "learning_rate": 0.005, "longest_epoch": 150},
        "tutorial": TUTORIAL,
    },
    "residual": {
        "fast": {"epochs": 10, "batch_size": 16, "learning_rate": 0.003, "longest_epoch": 200},
        "tutorial": TUTORIAL,
    },
}
CELLS = {"tutorial": 1, "residual": message.CELL}  # pixels, the side of what holds one bit
EASY_PSNR = 6  # dB, where training starts
RECIPES["tutorial"]["fast"]["noise"] = 0.0  # standard deviations, in training
RECIPES["residual"]["fast"]["noise"], TUTORIAL["noise"] = 0.1, 0.5


def build_encoder(slope=0.2):
    """Return the encoder: (n, 28, 28, 1) to the same shape. With slope 0 it is the tutorial's."""
    image = keras.Input((28, 28, 1), name="image")
    x = image
    for filters, size in ((8, 5), (4, 3), (2, 3), (1, 3)):
        x = layers.Conv2D(filters, size, padding="same")(x)
        x = ops.maximum(x, slope * x)  # leaky relu
    return keras.Model(image, x, name="encoder")


def build_decoder(slope=0.2):
    """Return the decoder: encoded image and W, both (n, 28, 28, 1), to the marked image."""
    encoded = keras.Input((28, 28, 1), name="encoded")
    watermark = keras.Input((28, 28, 1), name="watermark")
    x = layers.Concatenate()([encoded, watermark])
    for filters, size in ((2, 5), (4, 3), (8, 3)):
        x = layers.Conv2D(filters, size, padding="same")(x)
        x = ops.maximum(x, slope * x)  # leaky relu
    marked = layers.Conv2D(1, 3, activation="sigmoid", padding="same")(x)
    return keras.Model([encoded, watermark], marked, name="decoder")


def build_extractor(slope=0.2):
    """Return the extractor: (n, 28, 28, 1) to the probability of a one, the same shape."""
    marked = keras.Input((28, 28, 1), name="marked")
    x = marked
    for filters, size in ((8, 5), (4, 3)):
        x = layers.Conv2D(filters, size, padding="same")(x)
        x = ops.maximum(x, slope * x)  # leaky relu
    recovered = layers.Conv2D(1, 3, activation="sigmoid", padding="same")(x)
    return keras.Model(marked, recovered, name="extractor")


def build_tutorial(noise=0.0, slope=0.2):
    """Return the three networks put together: {image, watermark} to {marked, recovered}."""
    encoder, decoder, extractor = build_encoder(slope), build_decoder(slope), build_extractor(slope)
    image = keras.Input((28, 28, 1), name="image")
    watermark = keras.Input((28, 28, 1), name="watermark")
    marked = decoder([encoder(image), watermark])
    recovered = extractor(layers.GaussianNoise(noise)(marked))
    inputs = {"image": image, "watermark": watermark}
    return keras.Model(inputs, {"marked": marked, "recovered": recovered}, name="watermark_ae")


def build_residual(noise=0.1, strength=0.0175):
    """Return networks for images of any size whose sides are multiples of 8.

    The watermark has a bit for each cell of 8x8 pixels: (n, height / 8, width / 8, 1).
    """
    conv = {"padding": "same", "kernel_initializer": "he_normal"}
    image = keras.Input((None, None, 1), name="image")
    x = layers.Conv2D(16, 5, activation="relu", **conv)(image)
    encoder = keras.Model(image, layers.Conv2D(16, 3, **conv)(x), name="encoder")

    encoded = keras.Input((None, None, 16), name="encoded")
    watermark = keras.Input((None, None, 1), name="watermark")
    sign = layers.Rescaling(2, -1)(watermark)
    pattern = layers.Conv2DTranspose(16, 8, strides=8, use_bias=False)(sign)
    x = layers.Concatenate()([encoded, pattern])
    x = layers.Conv2D(16, 3, activation="relu", **conv)(x)
    x = layers.Conv2D(1, 3, activation="tanh", padding="same")(x)
    decoder = keras.Model([encoded, watermark], layers.Rescaling(strength)(x), name="decoder")

    marked = keras.Input((None, None, 1), name="marked")
    x = layers.Conv2D(24, 5, activation="relu", **conv)(marked)
    x = layers.Conv2D(24, 3, activation="relu", **conv)(x)
    x = layers.Conv2D(64, 8, strides=8, activation="relu", **conv)(x)
    x = layers.Conv2D(64, 1, activation="relu", **conv)(x)
    recovered = layers.Conv2D(1, 1, activation="sigmoid")(x)
    extractor = keras.Model(marked, recovered, name="extractor")

    image = keras.Input((None, None, 1), name="image")
    watermark = keras.Input((None, None, 1), name="watermark")
    change = decoder([encoder(image), watermark])
    marked = layers.ReLU(max_value=1)(layers.Add()([image, change]))
    blurred = layers.AveragePooling2D(3, strides=1, padding="same")(marked)
    outputs = {
        "marked": marked,
        "recovered": extractor(layers.GaussianNoise(noise)(marked)),
        "recovered_blurred": extractor(layers.GaussianNoise(noise / 3)(blurred)),
    }
    inputs = {"image": image, "watermark": watermark}
    return keras.Model(inputs, outputs, name="watermark_ae_residual")


class RaisePsnr(keras.callbacks.Callback):
    """Lets the wanted MSE fall from EASY_PSNR to `psnr` between 10% and 70% of the steps."""

    def __init__(self, wanted, psnr, epochs, steps_per_epoch):
        super().__init__()
        self.wanted, self.psnr, self.steps = wanted, psnr, steps_per_epoch
        self.all_steps = epochs * steps_per_epoch

    def on_epoch_begin(self, epoch, logs=None):
        """Remember the epoch; a resumed training does not start with the first."""
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Ask for a little more."""
        done = (self.epoch * self.steps + batch) / self.all_steps
        psnr = np.interp(done, [0.1, 0.7], [EASY_PSNR, self.psnr])
        self.wanted.assign(10 ** (-psnr / 10))

    def on_test_begin(self, logs=None):
        """Validate by the final measure."""
        self.wanted.assign(10 ** (-self.psnr / 10))


def main(argv=None):
    args = training.parse(parser(), RECIPES, argv)
    plotting.set_up(args.show)
    if args.input or args.message or args.extract:
        return message.use(args, "residual")

    residual = args.architecture == "residual"
    load = data.load_pictures if residual else data.load_mnist
    pictures = load(args.data_dir, args.synthetic, args.limit, args.seed)
    model = training.given_model(args)
    residual, cell = args.architecture == "residual", CELLS[args.architecture]
    run = training.Run(args, pictures)

    def with_bits(images, seed):
        """Return inputs and targets: images, and fresh bits that are zero or one by chance."""
        shape = (len(images), images.shape[1] // cell, images.shape[2] // cell, 1)
        bits = np.random.default_rng(seed).integers(0, 2, shape).astype("float32")
        targets = {"marked": images, "recovered": bits}
        if residual:
            targets["recovered_blurred"] = bits
        return {"image": images, "watermark": bits}, targets

    if model is None:
        batches = training.Batches(
            len(pictures.x_train),
            lambda chosen, seed: with_bits(pictures.x_train[chosen], seed),
            args.batch_size,
            args.longest_epoch,
            args.seed,
        )
        steps = args.epochs * batches.steps_per_epoch
        wanted = keras.Variable(10 ** (-args.psnr / 10), trainable=False)  # mean squared error

        def not_good_enough(image, marked):
            return 2 * ops.relu(ops.log(ops.mean(ops.square(marked - image)) / wanted))

        callbacks, outputs = [], ["marked", "recovered"] + residual * ["recovered_blurred"]
        keras.utils.set_random_seed(args.seed)
        if residual:
            model = build_residual(args.noise, args.strength)
        else:
            model = build_tutorial(args.noise, slope=0.0 if args.recipe == "tutorial" else 0.2)
        for name in ("encoder", "decoder", "extractor"):
            model.get_layer(name).summary()
        if args.recipe == "tutorial":
            optimizer = keras.optimizers.Adadelta(args.learning_rate)
            loss = dict.fromkeys(outputs, "mse")
        else:
            schedule = training.warm_up_and_cosine(args.learning_rate, steps)
            optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
            loss = dict.fromkeys(outputs, "binary_crossentropy")
            loss["marked"] = None if residual else not_good_enough
            callbacks = [RaisePsnr(wanted, args.psnr, args.epochs, batches.steps_per_epoch)]
        model.compile(
            optimizer, loss=loss, metrics={"marked": [psnr], "recovered": ["binary_accuracy"]}
        )
        model.fit(
            batches.from_epoch(run.first_epoch),
            steps_per_epoch=batches.steps_per_epoch,
            epochs=args.epochs,
            initial_epoch=run.first_epoch,
            validation_data=with_bits(pictures.x_validation, seed=1),
            validation_batch_size=500,
            callbacks=[*callbacks, *run.callbacks(model)],
            shuffle=False,  # the batches come shuffled
            verbose=run.verbose,
        )
        model = run.best_model()
    for name in ("encoder", "decoder", "extractor"):
        training.save_model(model.get_layer(name), run.folder / f"{name}.keras")

    # The test set, once.
    print(f"Evaluating on {len(pictures.x_test):,} test images ...", flush=True)
    inputs, _ = with_bits(pictures.x_test, seed=2)
    image, bits = inputs["image"], inputs["watermark"]
    marked = model.predict(inputs, batch_size=500, verbose=0)["marked"]
    extractor = model.get_layer("extractor")
    ways = {
        "least_significant_bit": (
            metrics.hide_in_last_bit(image, bits),
            lambda images: metrics.read_last_bit(images, cell),
        ),
        "model": (marked, lambda x: extractor.predict(x, batch_size=500, verbose=0)),
    }
    results = {name: watermarks.evaluate(image, bits, *way) for name, way in ways.items()}

    watermarks.draw(run, pictures, image, bits, *ways["model"], results["model"])
    run.draw_history("loss, see the script")
    run.finish(model, results)
    plotting.wait_for_windows(args.show)


def psnr(image, marked):
    """Return the peak signal-to-noise ratio of each image in dB, shape (n,)."""
    return -10 * ops.log10(ops.mean(ops.square(marked - image), axis=(1, 2, 3)))


def parser():
    """Return the command line's parser."""
    parser = training.argument_parser(__file__, __doc__)
    add, size = parser.add_argument, training.number(at_least=0)
    add("--architecture", choices=list(RECIPES), help="tutorial (default), or residual, for photos")
    add("--noise", type=size, help="standard deviation of the noise in training")
    add("--psnr", type=size, default=20.2, help="dB the marked image shall have (default: 20.2)")
    bound = training.number(above=0, at_most=1)
    add("--strength", type=bound, default=0.0175, help="most a pixel may change (default: 0.0175)")
    add("--message", help="hide this text in the --input images (architecture residual)")
    add("--extract", action="store_true", help="read the message of the --input images")
    add("--key", default="", help="scatters the message; reading it takes the same key")
    return parser


if __name__ == "__main__":
    training.start(main)
