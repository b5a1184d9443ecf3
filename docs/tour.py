# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour of the collection
#
# Build an autoencoder, train it for about a minute, look at what it does, and use a trained model
# on a file. Start Jupyter in the folder of this notebook. This file is generated from `tour.py`:
# `jupytext --to ipynb --execute docs/tour.py`.

# %%
# %%capture
# %cd -q ..
# %matplotlib inline
# %env TF_CPP_MIN_LOG_LEVEL=3
import keras
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import clean_documents
import denoise_mnist
from common import data, metrics, noise, plotting, training


def show(*rows):
    """Show rows of gray images in [0, 1], each of shape (n, height, width, 1)."""
    picture = plotting.mosaic(np.concatenate(rows), columns=len(rows[0]))
    plt.figure(figsize=(8, 0.8 * len(rows)))
    plt.imshow(picture, cmap="gray", vmin=0, vmax=1)
    plt.axis("off")
    plt.show()


# %% [markdown]
# ## The data
#
# Handwritten digits, clean and with Gaussian noise. Without a network, synthetic digits take the
# place of MNIST.

# %%
settings = denoise_mnist.Train(seed=0)
digits = data.load_mnist(settings)
noisy = noise.gaussian(digits.x_test, 0.5, seed=0)
print(digits)
show(digits.x_test[:10], noisy[:10])

# %% [markdown]
# ## The network
#
# The encoder halves the size twice, the decoder doubles it twice. Copy `build_denoiser` into a
# project of your own: it needs nothing but Keras.

# %%
model = denoise_mnist.build_denoiser()
model.summary()

# %% [markdown]
# ## Training
#
# Each batch gets fresh noise, so that the network cannot memorize it. The learning rate warms up,
# then falls along a cosine.

# %%
steps, batch_size = 12 * 140, 32


def batches():
    rng = np.random.default_rng(0)
    while True:
        clean = digits.x_train[rng.integers(len(digits.x_train), size=batch_size)]
        yield noise.gaussian(clean, 0.5, rng), clean


keras.utils.set_random_seed(0)
training.init_output_bias(model, digits.x_train)
rate = training.warmup_cosine(0.01, steps)
model.compile(keras.optimizers.Adam(rate, beta_2=0.95), loss="binary_crossentropy")
history = model.fit(batches(), epochs=12, steps_per_epoch=steps // 12, shuffle=False, verbose=0)
plt.figure(figsize=(5, 2.5))
plt.plot(history.history["loss"], marker=".")
plt.xlabel("epoch")
plt.ylabel("cross-entropy")
plt.show()

# %% [markdown]
# ## What it does
#
# Clean, noisy, after a median filter, and after the network. The network knows what strokes look
# like; the filter knows only that neighbors are alike.

# %%
denoised = model.predict(noisy, batch_size=500, verbose=0)
median = metrics.median_3x3(noisy)
for name, images in {"noisy": noisy, "median filter": median, "network": denoised}.items():
    print(f"{name}: {metrics.psnr(digits.x_test, images):.1f} dB")
show(digits.x_test[:10], noisy[:10], median[:10], denoised[:10])

# %% [markdown]
# ## A trained model on a file
#
# Every script applies its trained model to your own files by `--input`. Here the same in Python.

# %%
clean_documents.main(["--input", "samples/scan.jpg", "--output-dir", "runs/tour", "--force"])

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 5))
for axis, path in zip(axes, ("samples/scan.jpg", "runs/tour/scan.jpg"), strict=True):
    axis.imshow(Image.open(path, formats=["JPEG"]), cmap="gray")
    axis.set_title(path)
    axis.axis("off")
plt.show()

# %% [markdown]
# Next: `python latent_spaces.py` shows what a bottleneck does, and `vae_fashion.py` trains a latent
# space that new clothes can be sampled from. The README lists all seven scripts.
