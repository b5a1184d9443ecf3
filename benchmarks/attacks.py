"""Count how many messages in photos survive what people do to pictures.

Sixteen random bytes, with a key of their own, are embedded in each of twenty pictures. Each marked
picture goes through each attack and is then read: exactly, or not at all. Messages are also looked
for where there are none: in unmarked pictures, and with wrong keys.

If they are installed, invisible-watermark (dwtDct and dwtDctSvd) and blind-watermark are measured
on the same pictures. They do not look for a scale, an angle or an offset.
  pip install torch==2.13.0 invisible-watermark blind-watermark

What is in the results file already is not measured again.

Examples:
  python -m benchmarks.attacks     measure, and draw two figures of docs/results.md
  python -m benchmarks.tables      results to README.md and docs/
"""

import contextlib
import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.trainings import RESULTS, ROOT, read_results, store
from common import cli, images, metrics, noise, plotting, training
from tools.messages import code, damage, photo
from tools.messages.damage import from_image, to_image

OURS = "watermark_photo"
SKIMAGE, MATPLOTLIB = "skimage/data", "matplotlib/mpl-data/sample_data"
# {name: (folder of a package, file, box to cut out)}
PICTURES = {
    "astronaut": (SKIMAGE, "astronaut.png", None),
    "brick": (SKIMAGE, "brick.png", None),
    "camera": (SKIMAGE, "camera.png", None),
    "cell": (SKIMAGE, "cell.png", None),
    "coffee": (SKIMAGE, "coffee.png", None),
    "grass": (SKIMAGE, "grass.png", None),
    "gravel": (SKIMAGE, "gravel.png", None),
    "ihc": (SKIMAGE, "ihc.png", None),
    "moon": (SKIMAGE, "moon.png", None),
    "motorcycle_left": (SKIMAGE, "motorcycle_left.png", None),
    "motorcycle_right": (SKIMAGE, "motorcycle_right.png", None),
    "rocket": (SKIMAGE, "rocket.jpg", None),
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
    """Return a picture rotated, in a larger black one."""
    return from_image(to_image(picture).rotate(degrees, Image.Resampling.BICUBIC, expand=True))


def screenshot(picture, factor, rng):
    """Return a picture resized, somewhere in a window with a bar at its top."""
    image = to_image(damage.resize(picture, factor))
    left, right, top, bottom = (int(n) for n in rng.integers(20, 120, 4))
    size = image.width + left + right, image.height + top + bottom + 40
    window = Image.new("RGB", size, "#eee")
    window.paste("#456", (0, 0, window.width, 40))
    window.paste(image, (left, top + 40))
    return from_image(window)


def contrast(picture, factor):
    """Return a picture with more or less contrast and the same mean."""
    return (picture - picture.mean()) * factor + picture.mean()


def salt_and_pepper(picture, share, rng):
    """Return a picture with this share of its pixels replaced."""
    return noise.salt_and_pepper(picture[np.newaxis], share, int(rng.integers(2**31)))[0]


# {name: (function of picture, strength and rng, strengths in the table, more in the figure)}
ATTACKS = {
    "none": (lambda picture, _, rng: picture, [0], []),
    "JPEG, quality": (lambda picture, q, rng: damage.jpeg(picture, q), [90, 75, 50, 30], [20, 10]),
    "noise, σ": (noise.gaussian, [0.02, 0.05, 0.1], [0.15, 0.2]),
    "blur, σ in pixels": (
        lambda picture, sigma, rng: damage.blur(picture, sigma),
        [0.7, 1.5],
        [2, 2.5],
    ),
    "crop to": (damage.crop, [0.75, 0.5, 0.33], [0.25, 0.15]),
    "resize to": (
        lambda picture, factor, rng: damage.resize(picture, factor),
        [0.5, 0.75, 0.9, 1.25, 2],
        [],
    ),
    "turn, degrees": (lambda picture, angle, rng: rotate(picture, angle), [1, 3, 5], [-2.3, -4.4]),
    "mirror": (lambda picture, _, rng: picture[:, ::-1], [0], []),
    "quarter turn": (lambda picture, _, rng: np.rot90(picture), [0], []),
    "brightness": (lambda picture, factor, rng: picture * factor, [0.8, 1.2], []),
    "contrast": (lambda picture, factor, rng: contrast(picture, factor), [0.8, 1.2], []),
    "salt and pepper": (salt_and_pepper, [0.05], [0.1, 0.2]),
    "screenshot at": (screenshot, [1.1], []),
    "resize to 0.9, then JPEG": (
        lambda picture, q, rng: damage.jpeg(damage.resize(picture, 0.9), q),
        [75],
        [],
    ),
}


def attack(picture, name, strength, number):
    """Return a picture after an attack, in 8-bit levels; `number` is that of the picture."""
    rng = np.random.default_rng([number, list(ATTACKS).index(name), round(abs(strength) * 1000)])
    return from_image(to_image(ATTACKS[name][0](picture, strength, rng)))


def our_method(watermark):
    """Return a function of a picture and its number: the marked picture, and whether one is read.

    The latter is a function of an attacked picture.
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
    """Return a method of invisible-watermark, as `our_method` does; it may be missing."""
    import imwatermark

    def embed(picture, number):
        content = np.random.default_rng(number).bytes(16)
        encoder = imwatermark.WatermarkEncoder()
        encoder.set_watermark("bytes", content)
        levels = np.asarray(to_image(picture))[..., ::-1].copy()  # OpenCV's order of colors
        marked = encoder.encode(levels, method)[..., ::-1].astype("float32") / 255

        def is_read(attacked):
            levels = np.asarray(to_image(attacked))[..., ::-1].copy()
            with contextlib.suppress(Exception):  # raised for pictures smaller than it expects
                decoder = imwatermark.WatermarkDecoder("bytes", 128)
                return decoder.decode(levels, method) == content
            return False

        return marked, is_read

    return embed


def blind_watermark():
    """Return the method of blind-watermark, as `our_method` does; it may be missing."""
    import blind_watermark

    def levels_of(picture):
        return np.asarray(to_image(picture))[..., ::-1].copy()  # OpenCV's order of colors

    def embed(picture, number):
        bits = np.random.default_rng(number).integers(0, 2, 128).astype(bool)
        encoder = blind_watermark.WaterMark()
        encoder.read_img(img=levels_of(picture))
        encoder.read_wm(bits, mode="bit")
        marked = from_image(to_image(encoder.embed()[..., ::-1] / 255))

        def is_read(attacked):
            with contextlib.suppress(Exception):  # raised for pictures smaller than it expects
                decoder, levels = blind_watermark.WaterMark(), levels_of(attacked)
                recovered = decoder.extract(embed_img=levels, wm_shape=bits.size, mode="bit")
                return bool((recovered == bits).all())
            return False

        return marked, is_read

    return embed


def count_survivors(name, embed, counts, save):
    """Count what a method's marked pictures survive, one picture after the other.

    Args:
        name: of the method. OURS is also tried at the strengths that only the figure shows.
        embed: the method.
        counts: of the pictures so far, {} at first. It becomes {"qualities": {picture: dB},
            "psnr": their mean, "psnr_min": …, "read": {attack: {strength: pictures read}}}.
        save: called after each picture.
    """
    qualities, read = counts.setdefault("qualities", {}), counts.setdefault("read", {})
    for number, picture_name in enumerate(PICTURES):
        if picture_name in qualities:
            continue
        picture = load(picture_name)
        marked, is_read = embed(picture, number)
        for attack_name, (_, strengths, more) in ATTACKS.items():
            row = read.setdefault(attack_name, {})
            for strength in strengths + (more if name == OURS else []):
                survived = bool(is_read(attack(marked, attack_name, strength, number)))
                row[f"{strength:g}"] = row.get(f"{strength:g}", 0) + survived
                if not survived and name == OURS and strength in strengths:
                    print(f"  {picture_name}: not read after {attack_name} {strength:g}")
        qualities[picture_name] = metrics.psnr(picture[np.newaxis], marked[np.newaxis])
        counts["psnr"] = float(np.mean(list(qualities.values())))
        counts["psnr_min"] = min(qualities.values())
        save()


def measure_smooth_places(watermark):
    """Return by how much smooth places change, as a share of the change at uniform strength.

    They are the quarter of the blocks of 16x16 pixels with the least contrast. The result is
    {"median": …, "max": …} over the pictures.
    """

    def blocks_of(gray, side=16):
        rows, columns = (length // side for length in gray.shape)
        gray = gray[: rows * side, : columns * side].reshape(rows, side, columns, side)
        return gray.swapaxes(1, 2).reshape(rows * columns, -1)

    ratios, key = [], code.derive_key("")
    for name in PICTURES:
        picture = load(name)
        height, width = picture.shape[:2]
        bits = code.encode("sixteen bytes ok", height // photo.CELL, width // photo.CELL, key)
        contrasts = blocks_of(photo.luminance(picture)).std(axis=1)
        smooth = contrasts <= np.quantile(contrasts, 0.25)
        changes = [
            np.abs(blocks_of(photo.luminance(watermark.mark(picture, bits, uniform) - picture)))
            for uniform in (False, True)
        ]
        ratios.append(changes[0][smooth].mean() / changes[1][smooth].mean())
    return {"median": float(np.median(ratios)), "max": float(max(ratios))}


def count_false_messages(watermark, tries=1000):
    """Return how many messages are found where there are none, and how often cells were decoded.

    Half of the tries are unmarked pictures, the others marked ones with a wrong key.
    """
    found, decoded, embed = 0, 0, our_method(watermark)
    keys = [code.derive_key(f"wrong {n}") for n in range(tries // (2 * len(PICTURES)))]
    for number, name in enumerate(PICTURES):
        picture = load(name)
        for unreadable in (picture, embed(picture, number)[0]):
            readings = list(watermark.readings(photo.luminance(unreadable)))
            for key in keys:
                texts = [code.decode(log_odds, key, origin) for log_odds, origin in readings]
                found += sum(text is not None for text in texts)
                decoded += len(texts)
    return {"tries": len(keys) * 2 * len(PICTURES), "found": found, "decoded": decoded}


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
    text, key = "© 2026 me @home", code.derive_key("secret")
    picture = load("coffee")
    height, width = picture.shape[:2]
    bits = code.encode(text, height // photo.CELL, width // photo.CELL, key)
    marked, uniform = (watermark.mark(picture, bits, uniform) for uniform in (False, True))
    difference = photo.luminance(marked - picture)[..., np.newaxis].repeat(3, -1)
    gain = 0.5 / np.quantile(np.abs(difference), 0.99)
    rows, columns = slice(90, 170), slice(250, 370)  # inside the cup
    panels = {
        "original": picture,
        f"marked, {metrics.psnr(picture[np.newaxis], marked[np.newaxis]):.1f} dB": marked,
        f"difference, x {gain:.0f}": np.clip(0.5 + gain * difference, 0, 1),
        "original at 3x": picture[rows, columns],
        "marked at 3x": marked[rows, columns],
        "at 3x if all places changed alike": uniform[rows, columns],
    }
    for name, strength, title in [
        ("crop to", 0.33, "cropped to a third"),
        ("turn, degrees", 3, "rotated by 3°"),
        ("resize to 0.9, then JPEG", 75, "at 90%, then JPEG 75"),
    ]:
        attacked = attack(marked, name, strength, 0)
        message = watermark.extract(photo.luminance(attacked), key)
        panels[f"{title}: {message or 'nothing read'}"] = attacked
    figure = Figure(figsize=(9, 7), layout="constrained")
    for axis, (title, pixels) in zip(figure.subplots(3, 3).flat, panels.items(), strict=True):
        axis.imshow(pixels, interpolation="nearest" if "3x" in title else "auto")
        axis.set_title(title, fontsize=9)
        axis.set_anchor("N")
        axis.axis("off")
    plotting.save(
        figure,
        path,
        f'A cup of coffee with 16 bytes in it, "{text}". Smooth places change least: the mark '
        "shows in the wood, if anywhere. Below: three attacks, and what was read after each.",
    )


def plot_shares(methods, path):
    """Plot the share of pictures that are read over the strength of each attack."""
    names = [name for name in ATTACKS if len(methods[OURS]["read"][name]) > 3]
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots(2, 3, sharey=True)
    for axis, name in zip(axes.flat, names, strict=True):
        for (method, counts), marker in zip(methods.items(), "osvD", strict=False):
            points = sorted((abs(float(s)), n) for s, n in counts["read"][name].items())
            strengths, read = zip(*points, strict=True)
            shares = [100 * n / len(counts["qualities"]) for n in read]
            axis.plot(strengths, shares, marker=marker, markersize=4, label=method)
        axis.set(xlabel=name, ylim=(-4, 104))  # room for markers at 0 and 100
        axis.grid(alpha=0.3)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("pictures read, %")
    qualities = ", ".join(f"{name} {counts['psnr']:.1f} dB" for name, counts in methods.items())
    plotting.save(
        figure,
        path,
        "Share of pictures from which 16 bytes are read exactly, over the strength of each attack,"
        f" of {len(methods[OURS]['qualities'])} pictures. Their mean quality: {qualities}.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    model: Path | None = None
    """a model of watermark_photo.py; by default the one in models/"""
    results: Path = RESULTS
    """the results file"""
    images: Path = ROOT / "docs" / "images"
    """folder that the figures go to"""


def main(argv=None):
    settings = tyro.cli(Settings, args=argv, description=__doc__)
    watermark = photo.Watermark(training.load_model(settings.model, "watermark_photo"))
    measured = {"pictures": list(PICTURES), "methods": {}}
    measured |= read_results(settings.results).get("attacks", {})
    parts = {
        "smooth": measure_smooth_places,
        "capacity": measure_capacities,
        "false": count_false_messages,
    }
    for name, measure in parts.items():
        if name not in measured:
            measured[name] = measure(watermark)
            store(settings.results, "attacks", measured)
    methods = {
        "dwtDct": lambda: invisible_watermark("dwtDct"),
        "dwtDctSvd": lambda: invisible_watermark("dwtDctSvd"),
        "blind-watermark": blind_watermark,
        OURS: lambda: our_method(watermark),
    }
    for name, make_method in methods.items():
        counts = measured["methods"].get(name, {})
        if len(counts.get("qualities", {})) == len(PICTURES):
            continue
        try:
            embed = make_method()
        except ImportError as error:
            print(f"{name}: left out ({error})")
            continue
        measured["methods"][name] = counts
        print(name, flush=True)
        count_survivors(
            name, embed, counts, save=lambda: store(settings.results, "attacks", measured)
        )
    for name, plot, content in [
        ("watermark_photo.jpg", plot_example, watermark),
        ("watermark_photo_attacks.png", plot_shares, measured["methods"]),
    ]:
        path = settings.images / name
        path.unlink(missing_ok=True)  # an earlier version of this figure
        plot(content, path)


if __name__ == "__main__":
    cli.run(main)
