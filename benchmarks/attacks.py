"""Count how many messages in photos survive what usually happens to pictures.

A message of sixteen random bytes is embedded in each of twenty pictures, with a key of its own.
Each marked picture goes through each attack and is then read: exactly, or not at all.

invisible-watermark (dwtDct and dwtDctSvd) is measured on the same pictures if it is installed. It
does not search for a scale, an angle or an offset.
  pip install torch==2.13.0 invisible-watermark

What is already in benchmarks/results.json is not measured again.

Examples:
  python -m benchmarks.attacks     measure, and draw two figures of docs/results.md
  python -m benchmarks.tables      write the tables of docs/results.md
"""

import contextlib
import importlib.util
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.trainings import IMAGES, RESULTS, read_results, store
from common import cli, images, metrics, noise, plotting, training
from tools.messages import code, damage, photo
from tools.messages.damage import from_image, to_image

OURS = "watermark_photo"
SKIMAGE, MATPLOTLIB = "skimage/data", "matplotlib/mpl-data/sample_data"
SKIMAGE_PICTURES = (
    "astronaut.png brick.png camera.png cell.png coffee.png grass.png gravel.png ihc.png moon.png"
    " motorcycle_left.png motorcycle_right.png rocket.jpg"
).split()
# {name: (folder of a package, file, box to cut out)}
PICTURES = {name.split(".")[0]: (SKIMAGE, name, None) for name in SKIMAGE_PICTURES} | {
    "hubble, above": (SKIMAGE, "hubble_deep_field.jpg", (0, 0, 1000, 436)),
    "hubble, below": (SKIMAGE, "hubble_deep_field.jpg", (0, 436, 1000, 872)),
    "retina, top left": (SKIMAGE, "retina.jpg", (105, 205, 705, 705)),
    "retina, top right": (SKIMAGE, "retina.jpg", (705, 205, 1305, 705)),
    "retina, bottom left": (SKIMAGE, "retina.jpg", (105, 705, 705, 1205)),
    "retina, bottom right": (SKIMAGE, "retina.jpg", (705, 705, 1305, 1205)),
    "portrait": (MATPLOTLIB, "grace_hopper.jpg", None),
    "quokka": ("imgaug", "quokka.jpg", None),
}


def load(name):
    """Return one of PICTURES, float32 of shape (height, width, 3)."""
    folder, file, box = PICTURES[name]
    package, *inside = folder.split("/")
    path = Path(importlib.util.find_spec(package).submodule_search_locations[0], *inside, file)
    left, top, right, bottom = box or (0, 0, None, None)
    return images.read_color(path)[top:bottom, left:right]


def rotate(picture, degrees):
    """Return a picture rotated, on a larger black background."""
    return from_image(to_image(picture).rotate(degrees, Image.Resampling.BICUBIC, expand=True))


def screenshot(picture, factor, rng):
    """Return a picture resized, at a random place in a window with a title bar."""
    image = to_image(damage.resize(picture, factor))
    left, right, top, bottom = (int(n) for n in rng.integers(20, 120, 4))
    size = image.width + left + right, image.height + top + bottom + 40
    window = Image.new("RGB", size, "#eee")
    window.paste("#456", (0, 0, window.width, 40))
    window.paste(image, (left, top + 40))
    return from_image(window)


def salt_and_pepper(picture, share, rng):
    """Return a picture with this share of its pixels replaced."""
    return noise.salt_and_pepper(picture[np.newaxis], share, int(rng.integers(2**31)))[0]


def contrast(picture, factor):
    """Return a picture with more or less contrast and the same mean."""
    return (picture - picture.mean()) * factor + picture.mean()


# {name: (function of picture and strength, strengths in the table, more in the figure)}
ATTACKS = {
    "none": (lambda picture, _: picture, [0], []),
    "JPEG, quality": (damage.jpeg, [90, 75, 50, 30], [20, 10]),
    "noise, σ": (noise.gaussian, [0.02, 0.05, 0.1], [0.15, 0.2]),
    "blur, σ in pixels": (damage.blur, [0.7, 1.5], [2, 2.5]),
    "crop to": (damage.crop, [0.75, 0.5, 0.33], [0.25, 0.15]),
    "resize to": (damage.resize, [0.5, 0.75, 0.9, 1.25, 2], []),
    "turn, degrees": (rotate, [1, 3, 5], [-2.3, -4.4]),
    "mirror": (lambda picture, _: picture[:, ::-1], [0], []),
    "quarter turn": (lambda picture, _: np.rot90(picture), [0], []),
    "brightness": (np.multiply, [0.8, 1.2], []),
    "contrast": (contrast, [0.8, 1.2], []),
    "salt and pepper": (salt_and_pepper, [0.05], [0.1, 0.2]),
    "screenshot at": (screenshot, [1.1], []),
    "resize to 0.9, then JPEG": (
        lambda picture, q: damage.jpeg(damage.resize(picture, 0.9), q),
        [75],
        [],
    ),
}
RANDOM = (noise.gaussian, damage.crop, salt_and_pepper, screenshot)  # these also take an rng


def attack(picture, name, strength, number):
    """Return a picture after an attack, in 8-bit levels; `number` is that of the picture."""
    rng = np.random.default_rng([number, list(ATTACKS).index(name), round(abs(strength) * 1000)])
    function = ATTACKS[name][0]
    if function in RANDOM:
        attacked = function(picture, strength, rng)
    else:
        attacked = function(picture, strength)
    return from_image(to_image(attacked))


def our_method(watermark):
    """Return a function that embeds a message in a picture, given the picture's number.

    It returns the marked picture, and a function that says whether an attacked one is read.
    """

    def embed(picture, number):
        letters = list("abcdefghijklmnopqrstuvwxyz 0123456789")
        text = "".join(np.random.default_rng(number).choice(letters, 16))
        key = code.derive_key(str(number))
        content, _ = watermark.embed(picture, text, key)
        marked = photo.from_file(content, "png")
        return marked, lambda attacked: watermark.extract(photo.luminance(attacked), key) == text

    return embed


def invisible_watermark(method):
    """Return a method of invisible-watermark, like `our_method`. Raises ImportError without it."""
    import imwatermark

    def levels_of(picture):
        return np.asarray(to_image(picture))[..., ::-1].copy()  # OpenCV's order of colors

    def embed(picture, number):
        content = np.random.default_rng(number).bytes(16)
        encoder = imwatermark.WatermarkEncoder()
        encoder.set_watermark("bytes", content)
        marked = encoder.encode(levels_of(picture), method)[..., ::-1].astype("float32") / 255

        def is_read(attacked):
            with contextlib.suppress(Exception):  # it fails on pictures that are too small
                decoder = imwatermark.WatermarkDecoder("bytes", 128)
                return decoder.decode(levels_of(attacked), method) == content
            return False

        return marked, is_read

    return embed


def count_survivors(name, embed):
    """Return how many of a method's marked pictures are read after each attack.

    OURS is also tried at the strengths that only the figure shows. The result is {"qualities":
    {picture: dB}, "psnr": mean, "psnr_min": minimum, "read": {attack: {strength: count}}}.
    """
    qualities, read = {}, {attack_name: {} for attack_name in ATTACKS}
    for number, picture_name in enumerate(PICTURES):
        print(f"{name}: {picture_name}", flush=True)
        picture = load(picture_name)
        marked, is_read = embed(picture, number)
        qualities[picture_name] = metrics.psnr(picture[np.newaxis], marked[np.newaxis])
        for attack_name, (_, strengths, more) in ATTACKS.items():
            for strength in strengths + (more if name == OURS else []):
                survived = bool(is_read(attack(marked, attack_name, strength, number)))
                count = read[attack_name].get(f"{strength:g}", 0)
                read[attack_name][f"{strength:g}"] = count + survived
    psnrs = list(qualities.values())
    mean = float(np.mean(psnrs))
    return {"qualities": qualities, "psnr": mean, "psnr_min": min(psnrs), "read": read}


def measure_capacities(watermark):
    """Return {"width x height": bytes read after JPEG 75} for parts of two pictures."""
    capacities = {}
    sizes = [("coffee", side, side) for side in (128, 192, 256, 300, 400)]
    for name, width, height in [*sizes, ("coffee", 600, 400), ("quokka", 960, 643)]:
        picture = load(name)
        top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
        picture = picture[top : top + height, left : left + width]
        capacities[f"{width}x{height}"] = watermark.capacity(picture)
    return capacities


def plot_example(watermark, path):
    """Plot a photo before and after, a smooth place enlarged, and what is read after attacks."""
    text = "© 2026 me @home"
    key = code.derive_key("secret")
    picture = load("coffee")
    height, width = picture.shape[:2]
    bits = code.encode(text, height // photo.CELL, width // photo.CELL, key)
    marked, uniform = (watermark.mark(picture, bits, uniform) for uniform in (False, True))
    difference = photo.luminance(marked - picture)
    gain = 0.5 / np.quantile(np.abs(difference), 0.99)
    cup = slice(90, 170), slice(250, 370)  # a smooth place: rows, columns
    panels = {
        "original": picture,
        f"marked, {metrics.psnr(picture[np.newaxis], marked[np.newaxis]):.1f} dB": marked,
        f"difference, x {gain:.0f}": 0.5 + gain * difference,
        "original at 3x": picture[cup],
        "marked at 3x": marked[cup],
        "at 3x if all places changed alike": uniform[cup],
    }
    for title, name, strength in [
        ("a third of its area", "crop to", 0.33),
        ("rotated by 3°", "turn, degrees", 3),
        ("at 90%, then JPEG 75", "resize to 0.9, then JPEG", 75),
    ]:
        attacked = attack(marked, name, strength, 0)
        message = watermark.extract(photo.luminance(attacked), key)
        panels[f"{title}: {message or 'nothing read'}"] = attacked
    figure = Figure(figsize=(9, 7), layout="constrained")
    for axis, (title, pixels) in zip(figure.subplots(3, 3).flat, panels.items(), strict=True):
        interpolation = "nearest" if "3x" in title else "auto"
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation=interpolation)
        axis.set_title(title, fontsize=9)
        axis.set_anchor("N")
        axis.axis("off")
    plotting.save(
        figure,
        path,
        f'A cup of coffee with 16 bytes in it, "{text}". Smooth places change least; on bright '
        "ones, such as the rim, the mark still shows when enlarged. Below: three attacks, and what "
        "was read after each.",
    )


def plot_shares(methods, path):
    """Plot the share of pictures that are read over the strength of each attack."""
    names = [name for name, (_, strengths, more) in ATTACKS.items() if len(strengths + more) > 3]
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots(2, 3, sharey=True)
    for axis, name in zip(axes.flat, names, strict=True):
        for (method, counts), marker in zip(methods.items(), "osv", strict=False):
            points = sorted((abs(float(s)), n) for s, n in counts["read"][name].items())
            strengths, read = np.transpose(points)
            axis.plot(strengths, 100 * read / len(PICTURES), f"{marker}-", ms=4, label=method)
        axis.set(xlabel=name, ylim=(-4, 104))  # room for markers at 0 and 100
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("pictures read, %")
    axes[0, 0].legend(fontsize=8)
    qualities = ", ".join(f"{name} {counts['psnr']:.1f} dB" for name, counts in methods.items())
    plotting.save(
        figure,
        path,
        "Share of pictures from which 16 bytes are read exactly, over the strength of each attack,"
        f" of {len(PICTURES)} pictures. Their mean quality: {qualities}.",
    )


def main():
    watermark = photo.Watermark(training.load_model(None, OURS))
    measured = {"pictures": list(PICTURES), "methods": {}}
    measured |= read_results(RESULTS).get("attacks", {})
    if "capacity" not in measured:
        measured["capacity"] = measure_capacities(watermark)
        store(RESULTS, "attacks", measured)
    for name in ("dwtDct", "dwtDctSvd", OURS):
        if name in measured["methods"]:
            continue
        try:
            embed = our_method(watermark) if name == OURS else invisible_watermark(name)
        except ImportError as error:
            print(f"{name}: left out ({error})")
            continue
        measured["methods"][name] = count_survivors(name, embed)
        store(RESULTS, "attacks", measured)
    for name, plot, content in [
        ("watermark_photo.jpg", plot_example, watermark),
        ("watermark_photo_attacks.png", plot_shares, measured["methods"]),
    ]:
        path = IMAGES / name
        path.unlink(missing_ok=True)
        plot(content, path)


if __name__ == "__main__":
    cli.run(lambda: tyro.cli(main, description=__doc__))
