"""Train a network that cleans scanned pages: stains, folds, shadows, dark paper, faint ink.

    dirty page                 (192, 192, 1)      any height and width divisible by 32
      with page / background   (192, 192, 2)      as a second channel, see build_unet
      Conv 32 4x4, stride 2    (96, 96, 32)
      Conv 32 3x3              (96, 96, 32) --------------------------------------.
      MaxPool, 2 x Conv 48     (48, 48, 48) ------------------------------.       |
      MaxPool, 2 x Conv 64     (24, 24, 64) ----------------------.       |       |
      MaxPool, 2 x Conv 96     (12, 12, 96) --------------.       |       |       |
      MaxPool, 3 x Conv 96     (6, 6, 96)                 |       |       |       |
      UpSampling, 2 x Conv 96  (12, 12, 96)  <------------'       |       |       |
      UpSampling, 2 x Conv 64  (24, 24, 64)  <--------------------'       |       |
      UpSampling, 2 x Conv 48  (48, 48, 48)  <----------------------------'       |
      UpSampling, 2 x Conv 32  (96, 96, 32)  <------------------------------------'
      Conv2DTranspose 1 4x4    (192, 192, 1)
    clean page = page / background + network output, clipped to [0, 1]

At the arrows, after a 1x1 convolution and upsampling, skip connections are added. This is
`--architecture unet`, 817,873 parameters; the article's `autoencoder` has 38,145.

Examples:
  python clean_documents.py --input samples/scan.jpg samples/letter.pdf
                                                  clean your own scans, no training needed
  python clean_documents.py                       train on NoisyOffice and synthetic pages
  python clean_documents.py --recipe shipped      train like the model in models/
  python clean_documents.py --architecture autoencoder --recipe published

The autoencoder and the recipe `published` are those of a blog article on Kaggle's "Denoising Dirty
Documents". U-Net: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597
"""

import dataclasses
from typing import Literal

import keras
import numpy as np
from keras import layers, ops
from PIL import Image

import evaluation.clean_documents
from common import cli, noisy_office, training
from common.cli import UserError
from synthetic import old_pages, pages
from tools.scans import batch, document

NAMES = {"unet": "clean_documents", "autoencoder": "clean_documents_autoencoder"}  # of the models
# What --recipe sets; a flag on the command line takes precedence. Without steps_per_epoch, an epoch
# is one pass over the training data.
RECIPES = {
    "unet": {  # `published`: the article's recipe on our network
        "fast": {"epochs": 15, "batch_size": 8, "learning_rate": 0.003, "steps_per_epoch": 200},
        "shipped": {"epochs": 65, "batch_size": 8, "learning_rate": 0.002, "steps_per_epoch": 200},
        "published": {"epochs": 200, "batch_size": 16, "learning_rate": 0.001},
    },
    "autoencoder": {
        "fast": {"epochs": 10, "batch_size": 8, "learning_rate": 0.005, "steps_per_epoch": 100},
        "published": {"epochs": 200, "batch_size": 16, "learning_rate": 0.001},
    },
}
PATCH_SIDE = {"unet": 192, "autoencoder": 128}  # pixels
PATCHES_PER_PAGE = 32  # in one pass over the training pages
# Shares of the training patches; the rest are from NoisyOffice.
SYNTHETIC_SHARE = {"unet": 0.1, "autoencoder": 0.25}  # other typefaces, new stains
OLD_SHARE = {"unet": 0.45, "autoencoder": 0.0}  # synthetic old pages
SYNTHETIC_PAGES = 120  # made for each run
OLD_SHEETS = 500  # pieces of text and of paper made for each run, combined anew in each patch
# The error on old pages stays about twenty times as large as on all other patches and would
# dominate, so the others count ten times.
OTHER_WEIGHT = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Train):
    recipe: Literal["fast", "shipped", "published"] = "fast"
    """published is the article's recipe, fast our tuned one, shipped that of models/'s U-Net"""
    architecture: Literal["unet", "autoencoder"] = "unet"
    """U-Net, or the article's autoencoder"""


def build_unet(height=None, width=None, channels=1):
    """Return the U-Net, which maps dirty pages to clean pages of the same shape.

    Pages have the shape (n, height, width, channels) and values in [0, 1]. Height and width must be
    multiples of 32, or None to accept any such size.
    """
    if (height or 0) % 32 or (width or 0) % 32:
        raise ValueError(f"height and width must be multiples of 32, not {height} and {width}")
    conv_args = {"activation": "relu", "padding": "same", "kernel_initializer": "he_normal"}
    pool_args = {"strides": 1, "padding": "same"}
    dirty = keras.Input((height, width, channels), name="dirty")

    # Ink on dark paper and a wide stain on white paper can have the same gray value; after division
    # by the background they differ. A morphological closing, a classical way to estimate the
    # background, fills in everything dark that is narrower than 52 pixels. It is computed at
    # a quarter of the resolution, which is enough.
    background = layers.AveragePooling2D(4)(dirty)
    background = layers.MaxPooling2D(13, **pool_args)(background)  # maximum filter
    background = -layers.MaxPooling2D(13, **pool_args)(-background)  # minimum filter
    background = layers.AveragePooling2D(9, **pool_args)(background)
    for _ in range(2):  # back to full resolution, smoothly
        background = layers.UpSampling2D(2)(background)
        background = layers.AveragePooling2D(3, **pool_args)(background)
    normalized = ops.minimum(dirty / ops.maximum(background, 0.05), 1)

    # To tell a stain from a letter, or ink from show-through, the network has to see more than one
    # letter: five halvings give a receptive field of about 460 pixels. The network works at half
    # resolution, which makes each step four times cheaper while letters stay legible.
    x = layers.Concatenate()([dirty, normalized])
    x = layers.Conv2D(32, 4, strides=2, **conv_args)(x)
    x = layers.Conv2D(32, 3, **conv_args)(x)
    skips = []
    for filters in (48, 64, 96, 96):
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
        x = layers.Conv2D(filters, 3, **conv_args)(x)
        x = layers.Conv2D(filters, 3, **conv_args)(x)
    x = layers.Conv2D(96, 3, **conv_args)(x)
    for filters in (96, 64, 48, 32):
        x = layers.Conv2D(filters, 1, **conv_args)(x)  # as many channels as the skip has
        x = layers.UpSampling2D(2)(x) + skips.pop()  # cheaper than concatenating them
        x = layers.Conv2D(filters, 3, **conv_args)(x)
        x = layers.Conv2D(filters, 3, **conv_args)(x)

    # Initialized to zero, so that training starts from the normalized page.
    change = layers.Conv2DTranspose(
        channels, 4, strides=2, padding="same", kernel_initializer="zeros", name="change"
    )
    clean = normalized + change(x)
    # Clipped in the forward pass only (a straight-through estimator). A plain clip has no gradient
    # outside [0, 1], so a pixel there would teach the network nothing.
    clean = clean + ops.stop_gradient(ops.clip(clean, 0, 1) - clean)
    return keras.Model(dirty, clean, name="clean_documents")


def build_autoencoder(height=None, width=None, channels=1):
    """Return the article's autoencoder, which maps dirty pages to clean pages of the same shape.

    Pages have the shape (n, height, width, channels) and values in [0, 1]. Height and width must be
    even, or None to accept any such size. The receptive field is 10 x 10 pixels. There is no
    bottleneck: 64 channels at half the resolution are 16 numbers for each pixel. It needs none,
    because the target is the clean page and a copy of the dirty one has a high loss.
    """
    if (height or 0) % 2 or (width or 0) % 2:
        raise ValueError(f"height and width must be even, not {height} and {width}")
    dirty = keras.Input((height, width, channels), name="dirty")
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(dirty)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(64, 3, activation="relu", padding="same")(x)
    x = layers.UpSampling2D(2)(x)
    clean = layers.Conv2D(channels, 3, activation="sigmoid", padding="same", name="clean")(x)
    return keras.Model(dirty, clean, name="clean_documents_autoencoder")


def main(argv=None):
    # An Apply if --input is given, otherwise a Train.
    settings = cli.parse(__doc__, argv, Train, Apply)
    if isinstance(settings, Apply):
        return clean_files(settings)
    if settings.model:  # evaluate this one; loaded before the data, to fail early if it is damaged
        model = training.load_model(settings.model, *NAMES.values())
        architecture = "unet" if model.name == NAMES["unet"] else "autoencoder"
        settings = dataclasses.replace(settings, architecture=architecture)
    if settings.recipe not in RECIPES[settings.architecture]:
        raise UserError(f"--recipe {settings.recipe} needs --architecture unet")
    # A flag that was not given takes the recipe's value.
    settings = cli.with_recipe(settings, RECIPES[settings.architecture][settings.recipe])
    # NoisyOffice's pages come in three families; all pages of a family have the same text and the
    # same dirt. The article splits by file, so it trains on the text and dirt of its test pages,
    # and its test error comes out too low. Here the test pages are a family of their own.
    office = noisy_office.load_noisy_office(settings)  # its splits are lists of `Page`
    # The folder of --output-dir or --resume, or a new one in runs/; report() adds its figures.
    folder = training.run_folder(settings, NAMES[settings.architecture])
    if not settings.model:
        model = train(settings, office, folder)
    evaluation.clean_documents.report(folder, settings, model, office)


def train(settings, office, folder):
    """Return the model with the lowest validation loss."""
    keras.utils.set_random_seed(settings.seed)
    model = build_unet() if settings.architecture == "unet" else build_autoencoder()
    count = len(office.train) * (1 if settings.recipe == "published" else PATCHES_PER_PAGE)
    steps_per_epoch = training.steps_per_epoch(settings, count)
    if settings.recipe == "published":
        # The article trains on full pages; mirroring pads them to one size.
        dirty_pages, clean_pages = noisy_office.pad_and_stack(office.train)

        def make_batch(indices, seed):  # the seed is unused: nothing here is random
            return dirty_pages[indices], clean_pages[indices]

        optimizer = keras.optimizers.Adam(settings.learning_rate)
        patience = 5  # early stopping: after five epochs without a lower validation loss
    else:
        # A batch of 8 patches costs about as much as one or two pages, so the same time allows many
        # more steps than batches of 16 pages.
        make_batch = patch_maker(settings, office.train)
        # warms up to the learning rate, then decays to zero on a cosine
        schedule = training.warmup_cosine(settings.learning_rate, settings.epochs * steps_per_epoch)
        # beta_2=0.95 averages squared gradients over about 20 steps. The default, 0.999, averages
        # over about 1,000.
        optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
        patience = None
    model.compile(optimizer, loss="mse")
    model.summary()
    # An endless tf.data.Dataset that calls make_batch(indices, seed) for each step, with shuffled
    # indices and a new seed. A resumed run starts after the last epoch in folder/history.csv.
    batches = training.batches(make_batch, count, settings, folder)
    model.fit(
        batches,
        epochs=settings.epochs,
        steps_per_epoch=steps_per_epoch,
        shuffle=False,  # already shuffled; with True, Keras only warns
        validation_data=noisy_office.pad_and_stack(office.validation),
        validation_batch_size=4,
        # save history.csv, the best model and a backup for --resume after each epoch
        callbacks=training.callbacks(folder, settings, patience),
        verbose=2,  # one line per epoch
    )
    return training.best_model(folder, NAMES[settings.architecture])


def patch_maker(settings, office_pages):
    """Return make_batch(indices, seed), which cuts patches from three sources.

    They are NoisyOffice's training pages, synthetic pages (including NoisyOffice's with synthetic
    stains), and, for the U-Net, synthetic old pages.
    """
    print("Making synthetic pages ...", flush=True)
    # --limit is for a quick try, so a few synthetic pages will do
    page_count = 12 if settings.limit else SYNTHETIC_PAGES
    sheet_count = min(20, OLD_SHEETS) if settings.limit else OLD_SHEETS
    seed = training.seed_for(settings.seed, "pages")
    synthetic = [(dirty, clean) for dirty, clean, _, _ in pages.make_pages(page_count, seed=seed)]
    for number, page in enumerate(office_pages[::2]):  # half of them
        dirty = pages.add_stains(page.clean, training.seed_for(settings.seed, "stains", number))
        synthetic.append((dirty, page.clean))
    side = PATCH_SIDE[settings.architecture]
    old_share = OLD_SHARE[settings.architecture]
    synthetic_share = SYNTHETIC_SHARE[settings.architecture]
    if old_share:
        sheets = old_pages.Sheets(sheet_count, training.seed_for(settings.seed, "old pages"))

    def make_batch(indices, seed):  # indices choose pages of NoisyOffice only
        rng = np.random.default_rng(seed)
        patches, weights = [], []
        for index in indices:
            draw = rng.random()
            if draw < old_share:
                patch = sheets.patch(rng, side)
            elif draw < old_share + synthetic_share:
                dirty, clean = synthetic[rng.integers(len(synthetic))]
                patch = cut_patch(dirty, clean, side, rng, vary=True)
            else:
                # patch i is from page i // PATCHES_PER_PAGE
                page = office_pages[index // PATCHES_PER_PAGE]
                patch = cut_patch(page.dirty, page.clean, side, rng)
            patches.append(patch)
            weights.append(1.0 if draw < old_share else OTHER_WEIGHT)
        dirty = np.stack([dirty for dirty, _ in patches])[..., np.newaxis]
        clean = np.stack([clean for _, clean in patches])[..., np.newaxis]
        if not old_share:
            return dirty, clean
        # Keras multiplies the loss of each pixel by the third array; axes of length 1 broadcast.
        return dirty, clean, np.array(weights, "float32")[:, np.newaxis, np.newaxis]

    return make_batch


def cut_patch(dirty, clean, side, rng, vary=False):
    """Return (dirty, clean), each float32 (side, side) in [0, 1], from a random place in a page.

    Patches are flipped at random. Patches of old pages are never mirrored, because there mirrored
    letters are a sign of print that shows through. With `vary`, scale, brightness and contrast
    vary, too. `dirty` and `clean` are the page, uint8, shape (height, width, 1); `side` is in
    pixels.
    """
    zoom = rng.uniform(0.7, 2.5) if vary and rng.random() < 0.3 else 1
    height, width = dirty.shape[:2]
    cut_side = min(round(side / zoom), height, width)
    top, left = rng.integers(height - cut_side + 1), rng.integers(width - cut_side + 1)
    vertical, horizontal = rng.choice([-1, 1]), rng.choice([-1, 1])
    patches = []
    for image in (dirty, clean):
        patch = image[top : top + cut_side, left : left + cut_side, 0]
        patch = patch[::vertical, ::horizontal]
        if cut_side != side:
            patch = Image.fromarray(patch).resize((side, side), Image.Resampling.BICUBIC)
        patches.append(np.asarray(patch, "float32") / 255)
    dirty, clean = patches
    if vary and rng.random() < 0.5:
        dirty = np.clip(dirty * rng.uniform(0.85, 1.1) + rng.uniform(-0.04, 0.04), 0, 1)
        dirty = dirty ** np.float32(rng.uniform(0.8, 1.25))
    return dirty, clean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apply(cli.Apply):
    format: Literal["same", "pdf", "tiff", "png", "jpeg"] = "same"
    """file format of the cleaned files"""
    bilevel: bool = False
    """write 1-bit black and white"""
    gray: bool = False
    """write gray instead of color"""
    force: bool = False
    """overwrite the results of an earlier run in --output-dir"""
    dask: str | None = None
    """clean in parallel with dask: on all cores (`local`) or on the workers of tcp://HOST:PORT"""

    def __post_init__(self):
        if self.bilevel and (self.gray or self.format == "jpeg"):
            raise ValueError("--bilevel cannot be combined with --gray or --format jpeg")
        if self.force and not self.output_dir:
            raise ValueError("--force needs --output-dir, the folder whose files it overwrites")
        if self.dask and self.dask != "local" and "://" not in self.dask:
            raise ValueError("--dask must be local or an address such as tcp://HOST:8786")


def clean_files(settings):
    """Clean what --input names, as files, folders or patterns; return the exit code."""
    model = training.load_model(settings.model, *NAMES.values())
    options = document.Options(settings.format, settings.bilevel, settings.gray)
    return batch.clean_files(
        model, settings.input, settings.output_dir, options, settings.force, settings.dask
    )


if __name__ == "__main__":
    cli.run(main)
