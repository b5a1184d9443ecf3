"""Train an autoencoder, or a U-Net, to take salt-and-pepper noise off pictures of clothes.

    noisy garment      (28, 28, 1)
      Conv 64 3x3      (28, 28, 64) - - - - - - - - - - - - - - - - - - .
      MaxPool 2        (14, 14, 64)                                     '
      Conv 32 3x3      (14, 14, 32) - - - - - - - - - - - - - - - .     '
      MaxPool 2        (7, 7, 32)                                 '     '
      Conv 16 3x3      (7, 7, 16) - - - - - - - - - - - - - .     '     '
      MaxPool 2        (4, 4, 16)   latent: 256 numbers     '     '     '
      Conv 16 3x3      (4, 4, 16)                           '     '     '
      UpSampling 2     (8, 8, 16)   cut to (7, 7)  <- - - - '     '     '
      Conv 32 3x3      (8, 8, 32)                                 '     '
      UpSampling 2     (16, 16, 32)            <- - - - - - - - - '     '
      Conv 64 3x3      (14, 14, 64) without padding                     '
      UpSampling 2     (28, 28, 64)            <- - - - - - - - - - - - '
                                               Conv 16 3x3
      Conv 1 3x3       (28, 28, 1)
    clean garment      (28, 28, 1)

The left column is `--architecture tutorial`, 49,761 parameters, with a sigmoid at its end. The
dashed lines are what `--architecture unet` adds, 90,817 parameters: it lays the encoder's maps
beside the decoder's of the same size, and adds its last layer's output to the noisy image.

Run it:
  python denoise_fashion.py                       the tutorial's network, in two minutes
  python denoise_fashion.py --architecture unet   the network that beats the median filter
  python denoise_fashion.py --recipe tutorial     train as the tutorial did
  python denoise_fashion.py --noise 0.3 --architecture unet --output-dir runs/noise_0.3
  python denoise_fashion.py --input photo.png     take the noise off a picture of yours, any size

The noise. imgaug's SaltAndPepper(0.1) replaces a tenth of the pixels, each by 255·b with b from
Beta(0.5, 0.5). That distribution has its mass at both ends, but not much of it: 5.6% of the
replaced pixels are pure black or white, and more than half lie between 37 and 218. A filter that
looks for pure black and white misses nearly all of them, and takes the black ground for noise.

The loss. Mean squared error over all pixels, the one that PSNR = 10·log10(1 / MSE) is made from.

The lesson. The tutorial's network, as published, loses to a median filter that needs no training:
18.24 dB against 20.30 dB. It is hardly trained: at batches of 2,048 its 20 epochs are 540 steps,
and its loss still falls. The same network gets to 19.95 dB in 1,500 small steps (`fast`) and past
the filter, to 22.04 dB, in 9,000. But all it knows of an image must pass through 256 numbers (as
many principal components of clean images carry 26.4 dB), and it has to draw all 784 pixels anew,
also the nine in ten that nothing was wrong with. The U-Net needs only copy these: it starts from
the noisy image and learns what to add, zero nearly everywhere, and the skip connections show its
last layers the pixels themselves beside what the bottleneck has understood of the garment. It gets
to 29.08 dB, 8.8 dB above the best filter.

Where it comes from. Network and recipe `tutorial` are those of a blog tutorial that denoises
Fashion-MNIST with imgaug: Adam at its default rate, batches of 2,048, 20 epochs, noise drawn once.
U-Net: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597; adding to the input: Zhang et al.
2017, https://arxiv.org/abs/1608.03981. What `fast` does differently: small batches, so more steps
for the same number of images; a learning rate that rises over a fifth of the steps and falls to
zero along a cosine; Adam forgets old squared gradients after 20 steps (beta_2 = 0.95); noise drawn
afresh for each batch; a fixed number of steps. What did not help the U-Net, on validation images
after 600 to 1,200 steps: a sigmoid at its end (24.9 dB where adding to the input gave 27.4), a
learned mask that blends input and output (21.7 dB), leaving out its last Conv 16 (26.3 dB).
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import data, metrics, noise, plotting, training

import keras
import numpy as np
from keras import layers

TUTORIAL = {"epochs": 20, "batch_size": 2048, "learning_rate": 0.001, "longest_epoch": None}
TUTORIAL["patience"] = 10  # epochs without a better validation loss
RECIPES = {
    "tutorial": {
        "fast": {"epochs": 10, "batch_size": 64, "learning_rate": 0.004, "longest_epoch": 150},
        "tutorial": TUTORIAL,
    },
    "unet": {
        "fast": {"epochs": 20, "batch_size": 32, "learning_rate": 0.005, "longest_epoch": 250},
        "tutorial": TUTORIAL,
    },
}
TITLES = {
    "noisy_input": "noisy",
    "median_3x3": "median 3x3",
    "switching_median": "switching median",
    "tutorial": "autoencoder",
    "unet": "U-Net",
}
SHARES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5]


def build_tutorial(height=28, width=28):
    """Return the tutorial's autoencoder: (n, height, width, 1) to the same shape, in [0, 1].

    Height and width are 4 more than a multiple of 8, or the output is smaller; None leaves them
    open.
    """
    noisy = keras.Input((height, width, 1), name="noisy")
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(noisy)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(x)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2D(16, 3, activation="relu", padding="same")(x)
    latent = layers.MaxPooling2D(2, padding="same", name="latent")(x)

    x = layers.Conv2D(16, 3, activation="relu", padding="same")(latent)
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(x)
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(64, 3, activation="relu", padding="valid")(x)  # 16 becomes 14
    x = layers.UpSampling2D(2)(x)
    denoised = layers.Conv2D(1, 3, activation="sigmoid", padding="same", name="denoised")(x)
    return keras.Model(noisy, denoised, name="denoise_fashion")


def build_unet(height=28, width=28):
    """Return the U-Net: (n, height, width, 1) to the same shape, values in [0, 1].

    Height and width are 4 more than a multiple of 8; None leaves them open.
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
    change = layers.Conv2D(1, 3, padding="same", name="change")(x)
    denoised = layers.Add()([noisy, change])
    denoised = layers.ReLU(max_value=1, name="denoised")(denoised)  # clips to [0, 1]
    return keras.Model(noisy, denoised, name="denoise_fashion_unet")


BUILDERS = {"tutorial": build_tutorial, "unet": build_unet}


def main(argv=None):
    parser = training.argument_parser(__file__, __doc__)
    parser.add_argument(
        "--architecture",
        choices=list(RECIPES),
        help="the tutorial's network (default), or one with skip connections",
    )
    parser.add_argument(
        "--noise",
        type=training.number(at_least=0, at_most=1),
        default=0.1,
        help="share of the pixels that are replaced (default: 0.1)",
    )
    args = training.parse(parser, RECIPES, argv)
    plotting.set_up(args.show)
    if args.input:
        return training.denoise_files(args, "unet", BUILDERS, multiple=8, plus=4)

    def corrupt(clean, seed):
        return noise.salt_and_pepper(clean, args.noise, seed)

    # The garments, and noisy validation and test images that are the same in every run.
    garments = data.load_fashion_mnist(args.data_dir, args.synthetic, args.limit, args.seed)
    noisy_validation = corrupt(garments.x_validation, seed=1)
    noisy_test = corrupt(garments.x_test, seed=2)
    model = training.given_model(args)
    run = training.Run(args, garments)

    if model is None:
        batches = training.denoising_batches(args, garments.x_train, corrupt)
        keras.utils.set_random_seed(args.seed)
        model = BUILDERS[args.architecture]()
        model.summary()
        if args.recipe == "fast":
            steps = args.epochs * batches.steps_per_epoch
            schedule = training.warm_up_and_cosine(args.learning_rate, steps)
            optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
        else:
            optimizer = keras.optimizers.Adam(args.learning_rate)
        model.compile(optimizer, loss="mse")
        model.fit(
            batches.from_epoch(run.first_epoch),
            steps_per_epoch=batches.steps_per_epoch,
            epochs=args.epochs,
            initial_epoch=run.first_epoch,
            validation_data=(noisy_validation, garments.x_validation),
            validation_batch_size=500,
            callbacks=run.callbacks(model),
            shuffle=False,  # the batches come shuffled
            verbose=run.verbose,
        )
        model = run.best_model()

    # The test set, once. The other network is shown too if it has been trained on the same.
    print(f"Evaluating on {len(noisy_test):,} test images ...", flush=True)
    networks = {args.architecture: model, **run.other_models("noise")}
    restorers = {
        "noisy_input": lambda noisy: noisy,
        "median_3x3": metrics.median_3x3,
        "switching_median": metrics.switching_median,
        **{name: predictor(networks[name]) for name in RECIPES if name in networks},
    }
    restored = {name: restore(noisy_test) for name, restore in restorers.items()}
    measures = [metrics.mse, metrics.psnr, metrics.ssim]
    results = metrics.compare(garments.x_test, restored, measures)

    draw(run, garments, restorers, restored, results)
    run.draw_history("mean squared error")
    run.finish(model, results, args.architecture, others=networks.keys() - {args.architecture})
    plotting.wait_for_windows(args.show)


def predictor(network):
    """Return a function from noisy images to what a network makes of them."""
    return lambda noisy: network.predict(noisy, batch_size=500, verbose=0)


def draw(run, garments, restorers, restored, results):
    """Write two figures: ten garments, and PSNR over the share of noise."""
    args, footer = run.args, f"Data: {garments}."
    remarks = {
        "tutorial": "The autoencoder draws the whole garment anew from 256 numbers. ",
        "unet": "The U-Net copies what was not hit. ",
    }
    remarks = "".join(text for name, text in remarks.items() if name in restorers)
    few = garments.first_of_each_class()
    rows = {"clean": garments.x_test[few]}
    for name, pictures in restored.items():
        rows[f"{TITLES[name]}\n{results[name]['psnr']:.2f} dB"] = pictures[few]
    plotting.image_rows(
        rows,
        run.folder / "garments.png",
        f"Ten garments of the test set, {args.noise:.0%} salt-and-pepper noise",
        "The median filter smears stripes and prints. The switching median replaces only pure "
        f"black and white, which little of this noise is. {remarks}PSNR is the mean "
        f"over {len(garments.x_test):,} test images.\n{footer}",
        args.show,
        heads=garments.class_names,
    )

    print("Measuring at other shares of noise ...", flush=True)
    some = garments.x_test[:1_000]
    lines = {TITLES[name]: [] for name in restorers}
    for share in SHARES:
        noisy = noise.salt_and_pepper(some, share, seed=3)
        for name, restore in restorers.items():
            lines[TITLES[name]].append(metrics.psnr(some, restore(noisy)))
    plotting.curves(
        100 * np.array(SHARES),
        lines,
        run.folder / "noise.png",
        "Where each one breaks",
        f"Each network was trained at one share of noise only. {remarks}PSNR is the mean over "
        f"{len(some):,} test images.\n{footer}",
        "replaced pixels (%)",
        "PSNR (dB)",
        mark=(100 * args.noise, "trained here") if args.noise else None,
        show=args.show,
    )


if __name__ == "__main__":
    training.start(main)
