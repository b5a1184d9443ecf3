"""Train a variational autoencoder on pictures of clothes, and draw new ones with it.

    garment (28, 28, 1)                          z (2)
      Conv 32 3x3 relu            (28, 28, 32)     Dense 12,544 relu, reshaped   (14, 14, 64)
      Conv 64 3x3 relu, stride 2  (14, 14, 64)     Conv2DTranspose 32, stride 2  (28, 28, 32)
      Conv 64 3x3 relu            (14, 14, 64)     Conv 1 3x3 sigmoid            (28, 28, 1)
      Conv 64 3x3 relu            (14, 14, 64)   reconstruction
      Flatten, Dense 32 relu      (32)
      z_mean (2), z_log_var (2)                  encoder 494,244 + decoder 56,385 parameters
      z = z_mean + exp(z_log_var / 2)·ε, with ε from N(0, 1)

Run it:
  python vae_fashion.py                                two latent dimensions, in four minutes
  python vae_fashion.py --latent-dim 16 --output-dir runs/latent_16
  python vae_fashion.py --architecture dense --dataset mnist
  python vae_fashion.py --generate 25                  new garments as PNG files, and a sheet
  python vae_fashion.py --input shoe.png --vary 8      its latent vector, and 8 variations
  python vae_fashion.py --decode latent.csv            latent vectors back into images

The loss, in nats per image, is an upper bound on -log p(x), the negative ELBO:

    L(x) = sum over pixels of -x·log(y) - (1 - x)·log(1 - y)                  reconstruction
         + ½·sum over latent dimensions of (μ² + exp(s) - 1 - s)              KL divergence

with y the decoded z, μ = z_mean and s = z_log_var. `--beta` weighs the second term. Pixels are
grey, and cross-entropy on a grey value x is the expected code length of a pixel that is drawn
white with probability x: the bound is on that, and can't be compared with a density of grey values.

Where does z go? The encoder has three outputs, z_mean, z_log_var and a sampled z; the third is the
decoder's input, decoder(encoder(x)[2]). Each of the two is a model of its own: they are saved as
encoder.keras and decoder.keras beside model.keras. The decoder alone draws new garments.

Where it comes from. The convolutional network and its recipe `tutorial` (RMSprop, batches of 16, 20
epochs) are those of a blog tutorial on generating clothes. What it publishes is no bound: it
averages the cross-entropy over pixels, weighs the KL term with 5e-4 and averages that too where it
should be summed, samples with exp(s) as the standard deviation and has it as the variance in the
KL. Here it trains on the true loss. The dense one (Adam, batches of 128, 50 epochs) is from Keras's
old example on MNIST. VAE: Kingma and Welling 2013, https://arxiv.org/abs/1312.6114. What `fast`
does differently: Adam, with squared gradients forgotten after 20 steps (beta_2 = 0.95); a learning
rate that rises to five times the default and falls to zero; weights drawn for relu (he_normal); a
decoder whose first layer starts out with bends all over the latent space (`spread_first_layer`) and
whose output starts at the mean grey value (0.8 nats better after 6,500 steps); a fixed number of
steps. What did not help, on validation images: a KL weight that rises from 0.2 to 1 (0.7 nats worse
than the same steps without), Muon on the encoder's dense layer (0.3 worse), batches of 32 (learning
rate 0.01: 260.8 where 16 gave 260.6 in the same 290 s) or 64, Muon on the convolutions' kernels (no
better in the same time), bfloat16 (no faster), a learning rate of 0.007 (0.2 worse), an output that
starts with weights a tenth as large (0.5 worse), codes that start with unit variance (1.8 worse).
Four samples of z for each image gain 0.7 nats and cost as much in time as they gain. What limits it
is the encoder: z_mean and z_log_var fitted to each image by gradient descent, with the decoder as
it is, lower the bound by 3 nats.
"""

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import data, latent, plotting, training

import keras
import numpy as np
from keras import layers, ops

RECIPES = {
    "conv": {
        "fast": {"epochs": 12, "batch_size": 16, "learning_rate": 0.005, "longest_epoch": 875},
        "tutorial": {"epochs": 20, "batch_size": 16, "learning_rate": 1e-3, "longest_epoch": None},
    },
    "dense": {
        "fast": {"epochs": 10, "batch_size": 64, "learning_rate": 0.004, "longest_epoch": 300},
        "tutorial": {
            "epochs": 50,
            "batch_size": 128,
            "learning_rate": 0.001,
            "longest_epoch": None,
        },
    },
}


@keras.saving.register_keras_serializable("vae_fashion")
class Sampling(layers.Layer):
    """Draws z = z_mean + exp(z_log_var / 2)·ε, which gradients can pass through."""

    def __init__(self, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs):
        """Return z, shape (n, latent_dim), for a list of z_mean and z_log_var of that shape."""
        z_mean, z_log_var = inputs
        epsilon = keras.random.normal(ops.shape(z_mean), seed=self.seed_generator)
        return z_mean + ops.exp(z_log_var / 2) * epsilon

    def get_config(self):
        """Return what `from_config` needs."""
        return {**super().get_config(), "seed": self.seed}


def build_conv_encoder(latent_dim=2, initializer="glorot_uniform"):
    """Return the encoder: (n, 28, 28, 1) to [z_mean, z_log_var, z], each (n, latent_dim)."""
    relu = {"activation": "relu", "kernel_initializer": initializer}
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(32, 3, padding="same", **relu)(image)
    x = layers.Conv2D(64, 3, strides=2, padding="same", **relu)(x)
    x = layers.Conv2D(64, 3, padding="same", **relu)(x)
    x = layers.Conv2D(64, 3, padding="same", **relu)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(32, **relu)(x)
    z_mean = layers.Dense(latent_dim, name="z_mean")(x)
    z_log_var = layers.Dense(latent_dim, name="z_log_var")(x)
    z = Sampling(name="z")([z_mean, z_log_var])
    return keras.Model(image, [z_mean, z_log_var, z], name="encoder")


def build_conv_decoder(latent_dim=2, initializer="glorot_uniform"):
    """Return the decoder: (n, latent_dim) to (n, 28, 28, 1), values in [0, 1]."""
    relu = {"activation": "relu", "kernel_initializer": initializer}
    z = keras.Input((latent_dim,), name="z")
    x = layers.Dense(14 * 14 * 64, **relu)(z)
    x = layers.Reshape((14, 14, 64))(x)
    x = layers.Conv2DTranspose(32, 3, strides=2, padding="same", **relu)(x)
    image = layers.Conv2D(1, 3, activation="sigmoid", padding="same", name="image")(x)
    return keras.Model(z, image, name="decoder")


def build_dense_encoder(latent_dim=2, initializer="glorot_uniform"):
    """Return the encoder: (n, 28, 28, 1) to [z_mean, z_log_var, z], each (n, latent_dim)."""
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Flatten()(image)
    x = layers.Dense(512, activation="relu", kernel_initializer=initializer)(x)
    z_mean = layers.Dense(latent_dim, name="z_mean")(x)
    z_log_var = layers.Dense(latent_dim, name="z_log_var")(x)
    z = Sampling(name="z")([z_mean, z_log_var])
    return keras.Model(image, [z_mean, z_log_var, z], name="encoder")


def build_dense_decoder(latent_dim=2, initializer="glorot_uniform"):
    """Return the decoder: (n, latent_dim) to (n, 28, 28, 1), values in [0, 1]."""
    z = keras.Input((latent_dim,), name="z")
    x = layers.Dense(512, activation="relu", kernel_initializer=initializer)(z)
    x = layers.Dense(28 * 28, activation="sigmoid")(x)
    image = layers.Reshape((28, 28, 1), name="image")(x)
    return keras.Model(z, image, name="decoder")


BUILDERS = {
    "conv": (build_conv_encoder, build_conv_decoder),
    "dense": (build_dense_encoder, build_dense_decoder),
}


def reconstruction(image, decoded):
    """Return the cross-entropy summed over the pixels, in nats, shape (n,)."""
    return ops.sum(keras.losses.binary_crossentropy(image, decoded), axis=(1, 2))


def kl_divergence(z_mean, z_log_var):
    """Return KL(N(z_mean, exp(z_log_var)) ‖ N(0, 1)) in nats, shape (n,)."""
    return 0.5 * ops.sum(ops.square(z_mean) + ops.exp(z_log_var) - 1 - z_log_var, axis=-1)


@keras.saving.register_keras_serializable("vae_fashion")
class VAE(keras.Model):
    """Encoder and decoder trained together; its output is the decoded z."""

    def __init__(self, encoder, decoder, beta=1.0, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder, self.beta = encoder, decoder, beta
        self.kl = keras.metrics.Mean("kl")

    def call(self, image):
        """Return the reconstruction; the KL term joins the loss on the way."""
        z_mean, z_log_var, z = self.encoder(image)
        kl = kl_divergence(z_mean, z_log_var)
        self.add_loss(self.beta * ops.mean(kl))
        self.kl.update_state(kl)
        return self.decoder(z)

    def get_config(self):
        """Return what `from_config` needs."""
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        parts = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return {**super().get_config(), **parts, "beta": self.beta}

    @classmethod
    def from_config(cls, config):
        """Build the model that `get_config` describes."""
        for name in ("encoder", "decoder"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


def build_vae(architecture="conv", latent_dim=2, beta=1.0, initializer="glorot_uniform"):
    """Return encoder and decoder put together, built for images of (28, 28, 1)."""
    encoder, decoder = (build(latent_dim, initializer) for build in BUILDERS[architecture])
    name = "vae_fashion" if architecture == "conv" else f"vae_fashion_{architecture}"
    model = VAE(encoder, decoder, beta, name=name)
    model(np.zeros((1, 28, 28, 1), "float32"))
    return model


def spread_first_layer(decoder, seed):
    """Draw the decoder's first layer anew, so that its units differ all over the latent space.

    A relu unit bends where w·z + b = 0. Keras draws w tiny and sets b to 0, so that all of them
    bend at the origin only and have to be carried outwards step by step.
    """
    dense = next(layer for layer in decoder.layers if isinstance(layer, layers.Dense))
    rng, (kernel, bias) = np.random.default_rng(seed), dense.get_weights()
    scale = np.sqrt(2 / len(kernel))  # He et al. 2015, https://arxiv.org/abs/1502.01852
    dense.set_weights([rng.normal(0, scale, kernel.shape), rng.uniform(-2, 2, bias.shape)])


def main(argv=None):
    args = training.parse(parser(), RECIPES, argv)
    plotting.set_up(args.show)
    if args.generate or args.input or args.decode:
        return latent.use(args, training.find_model(args, "conv"))

    load = data.load_mnist if args.dataset == "mnist" else data.load_fashion_mnist
    garments = load(args.data_dir, args.synthetic, args.limit, args.seed)
    model = training.given_model(args)
    run = training.Run(args, garments)

    if model is None:

        def make_batch(chosen, seed):
            return garments.x_train[chosen], garments.x_train[chosen]

        batches = training.Batches(
            len(garments.x_train), make_batch, args.batch_size, args.longest_epoch, args.seed
        )
        steps = args.epochs * batches.steps_per_epoch

        keras.utils.set_random_seed(args.seed)
        initializer = "he_normal" if args.recipe == "fast" else "glorot_uniform"
        model = build_vae(args.architecture, args.latent_dim, args.beta, initializer)
        model.encoder.summary()
        model.decoder.summary()
        if args.recipe == "fast":
            spread_first_layer(model.decoder, args.seed)
            training.start_at_mean(model.decoder, garments.x_train)
            schedule = training.warm_up_and_cosine(args.learning_rate, steps, warm_up=0.05)
            optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
        elif args.architecture == "conv":
            optimizer = keras.optimizers.RMSprop(args.learning_rate)
        else:
            optimizer = keras.optimizers.Adam(args.learning_rate)
        model.compile(optimizer, loss=reconstruction, metrics=[reconstruction])
        model.fit(
            batches.from_epoch(run.first_epoch),
            steps_per_epoch=batches.steps_per_epoch,
            epochs=args.epochs,
            initial_epoch=run.first_epoch,
            validation_data=(garments.x_validation, garments.x_validation),
            validation_batch_size=500,
            callbacks=run.callbacks(model),
            shuffle=False,  # the batches come shuffled
            verbose=run.verbose,
        )
        model = run.best_model()
    for part in (model.encoder, model.decoder):
        training.save_model(part, run.folder / f"{part.name}.keras")
        plotting.diagram(part, run.folder / f"{part.name}.png")

    # The test set, once.
    print(f"Evaluating on {len(garments.x_test):,} test images ...", flush=True)
    encoder, decoder = model.encoder, model.decoder
    z_mean, z_log_var, _ = encoder.predict(garments.x_test, batch_size=500, verbose=0)
    results = latent.evaluate(encoder, decoder, garments, z_mean, z_log_var, kl_divergence)
    latent.draw(run, decoder, garments, z_mean)
    run.finish(model, results)
    plotting.wait_for_windows(args.show)


def parser():
    """Return the command line's parser."""
    parser = training.argument_parser(__file__, __doc__)
    add, count, size = parser.add_argument, training.whole_number, training.number(at_least=0)
    add("--architecture", choices=list(RECIPES), help="of encoder and decoder (default: conv)")
    add("--dataset", choices=["fashion", "mnist"], default="fashion", help="(default: fashion)")
    add("--latent-dim", type=count(2), default=2, help="numbers in a latent vector (default: 2)")
    add("--beta", type=size, default=1.0, help="weight of the KL divergence (default: 1)")
    add("--generate", type=count(1), metavar="N", help="draw N new images")
    add("--vary", type=count(1), metavar="N", help="N variations of each --input")
    text = "how far they stray, in the encoder's own standard deviations (default: 1)"
    add("--spread", type=size, default=1.0, help=text)
    add("--decode", metavar="CSV", help="turn the latent vectors of a latent.csv into images")
    return parser


if __name__ == "__main__":
    training.start(main)
