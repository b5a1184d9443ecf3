"""Train a network that cleans scanned pages: stains, folds, shadows, dark paper, faint ink.

    dirty page                 (192, 192, 1)      any sides that are multiples of 32
      divided by its paper     (192, 192, 2)      beside the page itself
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
    clean page = divided page + that, clipped to [0, 1]

This is `--architecture unet`, 817,873 parameters; the article's `autoencoder` has 38,145.

Examples:
  python clean_documents.py --input scans/*.jpg   clean your own scans, no training needed
  python clean_documents.py                       train on NoisyOffice and on synthetic pages
  python clean_documents.py --recipe shipped      as the network in models/ was trained
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
from common.noisy_office import Page
from synthetic import old_pages, pages
from tools.scans import batch, document

NAMES = {"unet": "clean_documents", "autoencoder": "clean_documents_autoencoder"}
PUBLISHED = {"epochs": 200, "batch_size": 16, "learning_rate": 0.001}
FAST = {"epochs": 10, "batch_size": 8, "learning_rate": 0.005, "steps_per_epoch": 100}
FAST_UNET = {"epochs": 15, "batch_size": 8, "learning_rate": 0.003, "steps_per_epoch": 200}
SHIPPED_UNET = {"epochs": 65, "batch_size": 8, "learning_rate": 0.002, "steps_per_epoch": 200}
RECIPES = {
    "unet": {"fast": FAST_UNET, "shipped": SHIPPED_UNET, "published": PUBLISHED},
    "autoencoder": {"fast": FAST, "published": PUBLISHED},
}
PATCH_SIDE = {"unet": 192, "autoencoder": 128}  # pixels
PATCHES_PER_PAGE = 32  # in a pass over the training pages
# Shares of the patches from synthetic pages that resemble NoisyOffice, with more fonts and more
# dirt, and from synthetic old pages.
SYNTHETIC_PAGES, SYNTHETIC_SHARE = 120, {"unet": 0.1, "autoencoder": 0.25}
OLD_SHEETS, OLD_SHARE = 500, {"unet": 0.45, "autoencoder": 0.0}
OFFICE_WEIGHT = 10.0  # in the loss: the error that remains on old pages is twenty times as large


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Train):
    recipe: Literal["fast", "shipped", "published"] = "fast"
    """`published` trains as the source article did, `shipped` as the U-Net in models/ was"""
    architecture: Literal["unet", "autoencoder"] = "unet"
    """`autoencoder` is the article's network"""

    def __post_init__(self):
        super().__post_init__()
        if self.recipe not in RECIPES[self.architecture]:
            raise ValueError(f"--recipe {self.recipe} is not for --architecture autoencoder")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apply(cli.Apply):
    format: Literal["same", "pdf", "tiff", "png", "jpeg"] = "same"
    """of the cleaned files"""
    bilevel: bool = False
    """black and white, in 1 bit"""
    gray: bool = False
    """colored ink turns gray"""
    force: bool = False
    """replace what was cleaned into --output-dir before"""
    dask: str | None = None
    """clean with dask's workers: `local`, a process for each core, or those of tcp://HOST:PORT"""

    def __post_init__(self):
        if self.bilevel and (self.gray or self.format == "jpeg"):
            raise ValueError("--bilevel excludes --gray and --format jpeg")
        if self.force and not self.output_dir:
            raise ValueError("--force needs --output-dir, the folder that was cleaned into")
        if self.dask and self.dask != "local" and "://" not in self.dask:
            raise ValueError("--dask must be local or an address such as tcp://HOST:8786")


def build_unet(height=None, width=None, channels=1):
    """Return the U-Net: (n, height, width, channels) to the same shape, values in [0, 1].

    Height and width are multiples of 32; None leaves them open.
    """
    if (height or 0) % 32 or (width or 0) % 32:
        raise ValueError(f"height and width must be multiples of 32, not {height} and {width}")
    conv = {"activation": "relu", "padding": "same", "kernel_initializer": "he_normal"}
    pool = {"strides": 1, "padding": "same"}
    dirty = keras.Input((height, width, channels), name="dirty")

    # Ink on dark paper and dirt on white paper have the same gray, but not once the page is divided
    # by its paper. Paper is what remains when everything narrower than 52 pixels is filled in: a
    # maximum over each neighborhood, then a minimum. A quarter of the resolution is enough.
    paper = layers.AveragePooling2D(4)(dirty)
    paper = layers.MaxPooling2D(13, **pool)(paper)
    paper = -layers.MaxPooling2D(13, **pool)(-paper)
    paper = layers.AveragePooling2D(9, **pool)(paper)
    for _ in range(2):
        paper = layers.AveragePooling2D(3, **pool)(layers.UpSampling2D(2)(paper))
    divided = ops.minimum(dirty / ops.maximum(paper, 0.05), 1)

    # To distinguish a stain from a letter, or this side's ink from the other side's, a network must
    # see more than a letter: five halvings let this one see about 350 pixels. It works at half the
    # resolution, where a step takes a quarter of the time and letters are still legible.
    x = layers.Concatenate()([dirty, divided])
    x = layers.Conv2D(32, 4, strides=2, **conv)(x)
    x = layers.Conv2D(32, 3, **conv)(x)
    skips = [x]
    for filters in (48, 64, 96, 96):
        x = layers.MaxPooling2D(2)(x)
        x = layers.Conv2D(filters, 3, **conv)(x)
        x = layers.Conv2D(filters, 3, **conv)(x)
        skips.append(x)
    x = layers.Conv2D(96, 3, **conv)(skips.pop())
    for filters in (96, 64, 48, 32):
        x = layers.Conv2D(filters, 1, **conv)(x)
        x = layers.UpSampling2D(2)(x) + skips.pop()
        x = layers.Conv2D(filters, 3, **conv)(x)
        x = layers.Conv2D(filters, 3, **conv)(x)

    # Untrained it returns the divided page: it learns what to add to that.
    change = layers.Conv2DTranspose(
        channels, 4, strides=2, padding="same", kernel_initializer="zeros", name="change"
    )
    clean = divided + change(x)
    # Clipped in the forward pass only: clip has no gradient outside [0, 1], and a pixel there could
    # never be corrected.
    clean = clean + ops.stop_gradient(ops.clip(clean, 0, 1) - clean)
    return keras.Model(dirty, clean, name="clean_documents")


def build_autoencoder(height=None, width=None, channels=1):
    """Return the article's autoencoder: (n, height, width, channels) to the same, in [0, 1].

    Height and width are even; None leaves them open. It sees 10 pixels.
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
    settings = cli.parse(__doc__, argv, Train, Apply)
    if isinstance(settings, Apply):
        return clean_files(settings)
    model = None
    if settings.model:
        model = training.load_model(settings.model, *NAMES.values())
        architecture = "unet" if model.name == NAMES["unet"] else "autoencoder"
        settings = dataclasses.replace(settings, architecture=architecture)
    settings = cli.with_recipe(settings, RECIPES[settings.architecture][settings.recipe])
    # Four dirty pages share each clean page, and pages of one family their text and their dirt. The
    # article splits by file, so it tests on what it trained on. Here the test is another family.
    office = noisy_office.load_noisy_office(settings)
    folder = training.run_folder(settings, NAMES[settings.architecture])
    keras.utils.set_random_seed(settings.seed)
    if model is None:
        model = train(settings, office, folder)
    evaluation.clean_documents.report(folder, settings, model, office)


def train(settings, office, folder):
    """Return the model with the lowest validation loss."""
    published = settings.recipe == "published"
    if published:
        dirty_pages, clean_pages = noisy_office.stack(office.train)

        def make_batch(indices, seed):
            return dirty_pages[indices], clean_pages[indices]

        batches = training.Batches(make_batch, len(office.train), settings)
    else:
        make_batch = patch_maker(settings, office.train)
        batches = training.Batches(make_batch, PATCHES_PER_PAGE * len(office.train), settings)
    model = build_unet() if settings.architecture == "unet" else build_autoencoder()
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    if not published:
        schedule = training.warmup_cosine(settings.learning_rate, settings.epochs * len(batches))
        # beta_2 = 0.95 forgets old squared gradients after about 20 steps instead of 1,000.
        optimizer = keras.optimizers.Adam(schedule, beta_2=0.95)
    model.compile(optimizer, loss="mse")
    model.summary()
    model.fit(
        batches.dataset(),
        epochs=settings.epochs,
        shuffle=False,  # Batches shuffles
        validation_data=noisy_office.stack(office.validation),
        validation_batch_size=4,
        callbacks=training.callbacks(folder, settings, batches, patience=5 if published else None),
        verbose=2,
    )
    return training.best_model(folder, NAMES[settings.architecture])


def patch_maker(settings, office_pages):
    """Return a function from (indices, seed) to a batch of patches at the pages' own resolution.

    They come from the training pages, from synthetic pages, from the training pages' text under
    synthetic dirt, and for the U-Net from synthetic old pages.
    """
    print("Making synthetic pages ...", flush=True)
    synthetic = [
        Page("", kind, dirty, clean)
        for dirty, clean, kind, _ in pages.pages(
            12 if settings.limit else SYNTHETIC_PAGES,
            seed=training.seed_for(settings.seed, "pages"),
        )
    ]
    for number, page in enumerate(office_pages[::2]):
        dirty = pages.add_stains(page.clean, training.seed_for(settings.seed, "stains", number))
        synthetic.append(Page(page.name, "", dirty, page.clean))
    side = PATCH_SIDE[settings.architecture]
    old_share = OLD_SHARE[settings.architecture]
    synthetic_share = SYNTHETIC_SHARE[settings.architecture]
    if old_share:
        count = min(20, OLD_SHEETS) if settings.limit else OLD_SHEETS
        sheets = old_pages.Sheets(count, training.seed_for(settings.seed, "old pages"))

    def make_batch(indices, seed):
        rng = np.random.default_rng(seed)
        pairs, weights = [], []
        for index in indices:
            chance = rng.random()
            weights.append(1.0 if chance < old_share else OFFICE_WEIGHT)
            if chance < old_share:
                pairs.append(sheets.patch(rng, side))
            elif chance < old_share + synthetic_share:
                page = synthetic[rng.integers(len(synthetic))]
                pairs.append(cut_patch(page, side, rng, vary=True))
            else:
                page = office_pages[index // PATCHES_PER_PAGE]
                pairs.append(cut_patch(page, side, rng))
        dirty, clean = (np.stack(images)[..., np.newaxis] for images in zip(*pairs, strict=True))
        if not old_share:
            return dirty, clean
        return dirty, clean, np.array(weights, "float32")[:, np.newaxis, np.newaxis]

    return make_batch


def cut_patch(page, side, rng, vary=False):
    """Return (dirty, clean), each float32 (side, side) in [0, 1], from a random place in a page.

    It may be mirrored. With `vary` its size, brightness and contrast may change too, as they do
    from scanner to scanner.
    """
    zoom = rng.uniform(0.7, 2.5) if vary and rng.random() < 0.3 else 1
    height, width = page.dirty.shape[:2]
    cut_side = min(round(side / zoom), height, width)
    top, left = rng.integers(height - cut_side + 1), rng.integers(width - cut_side + 1)
    mirror = slice(None, None, rng.choice([-1, 1])), slice(None, None, rng.choice([-1, 1]))
    patches = []
    for image in (page.dirty, page.clean):
        patch = image[top : top + cut_side, left : left + cut_side, 0][mirror]
        if cut_side != side:
            patch = Image.fromarray(patch).resize((side, side), Image.Resampling.BICUBIC)
        patches.append(np.asarray(patch, "float32") / 255)
    dirty, clean = patches
    if vary and rng.random() < 0.5:
        dirty = np.clip(dirty * rng.uniform(0.85, 1.1) + rng.uniform(-0.04, 0.04), 0, 1)
        dirty = dirty ** np.float32(rng.uniform(0.8, 1.25))
    return dirty, clean


def clean_files(settings):
    """Clean the --input files, folders and patterns; return the exit code."""
    model = training.load_model(settings.model, *NAMES.values())
    options = document.Options(settings.format, settings.bilevel, settings.gray)
    return batch.clean_files(
        model, settings.input, settings.output_dir, options, settings.force, settings.dask
    )


if __name__ == "__main__":
    cli.run(main)
