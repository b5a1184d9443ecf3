"""Train a convolutional autoencoder to take Gaussian noise off handwritten digits.

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
  python denoise_mnist.py                                train in about a minute, evaluate, draw
  python denoise_mnist.py --recipe tutorial              train as the tutorial did
  python denoise_mnist.py --data-dir DIR                 MNIST from a folder of yours
  python denoise_mnist.py --noise 0.7 --output-dir much  more noise
  python denoise_mnist.py --input photo.png              denoise a picture of yours: white strokes
                                                         on black, about 20 pixels tall, as in
                                                         MNIST; a photo comes out wrong

The noise. x_noisy = clip(x + 0.5·n, 0, 1) with n from N(0, 1), drawn anew for each pixel.

The loss. Binary cross-entropy between the clean pixel x and the output y, mean over pixels:

    L(x, y) = -x·log(y) - (1 - x)·log(1 - y)

It is made for x in {0, 1}, but for any x in [0, 1] its derivative, (y - x) / (y·(1 - y)), is zero
just at y = x, so grey pixels are learned right too; only the least value is then the entropy of x
and not zero. Its gradient does not vanish where the sigmoid is sure and wrong, as that of the mean
squared error does. Choose MSE where targets leave [0, 1], or where PSNR is all that counts.

Why it denoises. Not by compression: the latent holds 7·7·32 = 1,568 numbers, twice the 784 pixels.
Noise is independent from pixel to pixel and from image to image, so it can't be predicted from the
neighbours, and the strokes can. What lowers the loss is the mean of all clean digits that fit what
is seen, and that is what the network, which sees a window some 24 pixels wide, learns to give.

Where it comes from. Francois Chollet, "Building Autoencoders in Keras", 2016,
https://blog.keras.io/building-autoencoders-in-keras.html, whose recipe is `--recipe tutorial`: Adam
at its default rate, batches of 128, 100 epochs, the noise drawn once. What `fast` does differently:
- Noise is drawn afresh for each batch. The network never sees the same noisy image twice, so it
  can't learn the noise by heart, and a high learning rate does no harm.
- Batches of 32: four times as many steps for the same number of images.
- The output's bias starts at the mean grey value: some 0.001 less at the end, with three seeds.
- The learning rate rises to 0.01 over a fifth of the steps and falls to zero along a cosine.
- Adam forgets old squared gradients after 20 steps (beta_2 = 0.95), not 1,000.
- A fixed number of steps, so that 60,000 images take no longer than 10,000.
What did not help: he_normal initialisation, batches of 64, a learning rate of 0.02, squared
gradients forgotten after 10 steps, a warm-up of a twentieth.
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import data, metrics, noise, plotting, training

import keras
from keras import layers

RECIPES = {
    "fast": {"epochs": 12, "batch_size": 32, "learning_rate": 0.01, "longest_epoch": 140},
    "tutorial": {"epochs": 100, "batch_size": 128, "learning_rate": 0.001, "longest_epoch": None},
}


def build_denoiser(height=28, width=28):
    """Return the autoencoder: (n, height, width, 1) to the same shape, values in [0, 1].

    Height and width are multiples of 4; None leaves them open.
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
    denoised = layers.Conv2D(1, 3, activation="sigmoid", padding="same", name="denoised")(x)
    return keras.Model(noisy, denoised, name="denoise_mnist")


def main(argv=None):
    parser = training.argument_parser(__file__, __doc__)
    parser.add_argument(
        "--noise",
        type=training.number(at_least=0, at_most=10),
        default=0.5,
        help="standard deviation of the noise; pixels lie in [0, 1] (default: 0.5)",
    )
    args = training.parse(parser, {"tutorial": RECIPES}, argv)
    plotting.set_up(args.show)
    if args.input:
        return training.denoise_files(args, "tutorial", {"tutorial": build_denoiser}, multiple=4)

    def corrupt(clean, seed):
        return noise.gaussian(clean, args.noise, seed)

    # The digits, and noisy validation and test images that are the same in every run.
    digits = data.load_mnist(args.data_dir, args.synthetic, args.limit, args.seed)
    noisy_validation = corrupt(digits.x_validation, seed=1)
    noisy_test = corrupt(digits.x_test, seed=2)
    model = training.given_model(args)
    run = training.Run(args, digits)

    if model is None:
        batches = training.denoising_batches(args, digits.x_train, corrupt)
        keras.utils.set_random_seed(args.seed)
        model = build_denoiser()
        model.summary()
        if args.recipe == "fast":
            training.start_at_mean(model, digits.x_train)
            steps = args.epochs * batches.steps_per_epoch
            schedule = training.warm_up_and_cosine(args.learning_rate, steps)
            optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
        else:
            optimizer = keras.optimizers.Adam(args.learning_rate)
        model.compile(optimizer, loss="binary_crossentropy")
        model.fit(
            batches.from_epoch(run.first_epoch),
            steps_per_epoch=batches.steps_per_epoch,
            epochs=args.epochs,
            initial_epoch=run.first_epoch,
            validation_data=(noisy_validation, digits.x_validation),
            callbacks=run.callbacks(model),
            shuffle=False,  # the batches come shuffled
            verbose=run.verbose,
        )
        model = run.best_model()

    # The test set, once.
    print(f"Evaluating on {len(noisy_test):,} test images ...", flush=True)
    denoised = model.predict(noisy_test, batch_size=500, verbose=0)
    candidates = {
        "noisy_input": noisy_test,
        "median_3x3": metrics.median_3x3(noisy_test),
        "model": denoised,
    }
    measures = [metrics.binary_crossentropy, metrics.mse, metrics.psnr, metrics.ssim]
    results = metrics.compare(digits.x_test, candidates, measures)

    draw(run, model, digits, candidates, results)
    run.draw_history("binary cross-entropy (nats per pixel)")
    run.finish(model, results)
    plotting.wait_for_windows(args.show)


def draw(run, model, digits, candidates, results):
    """Write two figures: ten digits, and the latent feature maps of three."""
    args, footer = run.args, f"Data: {digits}."
    few = digits.first_of_each_class()
    rows = {"clean": digits.x_test[few]}
    titles = {"noisy_input": "noisy", "median_3x3": "median 3x3", "model": "denoised"}
    for name, title in titles.items():
        rows[f"{title}\n{results[name]['psnr']:.2f} dB"] = candidates[name][few]
    plotting.image_rows(
        rows,
        run.folder / "digits.png",
        f"Ten digits of the test set, Gaussian noise {args.noise:g}",
        "The median filter looks at nine pixels and can't tell a stroke from a streak of noise; "
        "the network has seen what digits look like. Where the noise hides a stroke it guesses, "
        f"which shows as grey. PSNR is the mean over {len(digits.x_test):,} test images.\n{footer}",
        args.show,
    )
    encoder = keras.Model(model.input, model.get_layer("latent").output)
    plotting.feature_maps(
        candidates["noisy_input"][few[2:5]],
        encoder.predict(candidates["noisy_input"][few[2:5]], verbose=0),
        run.folder / "latent.png",
        "What the encoder sees: the 32 latent feature maps of three noisy digits",
        "Each map is 7x7, the brighter the stronger. Some answer to the black ground, others "
        "to parts of strokes; some have learned where the border is. A map that is dark for every "
        "digit is a dead filter: a relu that never fires, the price of a high learning rate. "
        f"Together they hold 1,568 numbers, more than the 784 pixels.\n{footer}",
        args.show,
    )


if __name__ == "__main__":
    training.start(main)
