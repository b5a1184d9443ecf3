"""Does a message survive what people do to pictures? Count it, and the same for other packages.

Sixteen random bytes, with a key of their own, are hidden in each of twenty named pictures. Each
attack is done to each marked picture, which is then read: exactly, or not at all. Then messages are
looked for where none are: in unmarked pictures, and with wrong keys.

Beside it, where they are installed, and nothing else here needs them: dwtDct and dwtDctSvd of
invisible-watermark, and blind-watermark, with the same pictures and 16 random bytes as 128 bits.
These look for no scale, angle or offset.
  pip install torch==2.13.0 invisible-watermark blind-watermark

Run it:
  python benchmarks/watermark_attacks.py             counts go to results.json, figures to docs/;
                                                     what is there already is not measured again
  python benchmarks/watermark_attacks.py --anew      it is; with --methods those alone
  python benchmarks/watermark_attacks.py --figures   the figures alone, from results.json
"""

import argparse
import contextlib
import importlib.util
import io
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, command_line, image_files  # noqa: E402
from common import metrics, noise, plotting, trained_models  # noqa: E402
from applications import message_bits, messages  # noqa: E402

import time_to_quality  # noqa: E402

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from scipy import ndimage  # noqa: E402

OURS = "watermark_photo"
SKIMAGE, MATPLOTLIB, IMGAUG = "skimage/data", "matplotlib/mpl-data/sample_data", "imgaug"
# {name: (folder of a package, file, box to cut out)}
PICTURES = {
    **{
        name: (SKIMAGE, f"{name}.png", None)
        for name in (
            *("astronaut", "brick", "camera", "cell", "coffee", "grass", "gravel", "ihc", "moon"),
            *("motorcycle_left", "motorcycle_right"),
        )
    },
    "rocket": (SKIMAGE, "rocket.jpg", None),
    "hubble, above": (SKIMAGE, "hubble_deep_field.jpg", (0, 0, 1000, 436)),
    "hubble, below": (SKIMAGE, "hubble_deep_field.jpg", (0, 436, 1000, 872)),
    "retina, top left": (SKIMAGE, "retina.jpg", (105, 205, 705, 705)),
    "retina, top right": (SKIMAGE, "retina.jpg", (705, 205, 1305, 705)),
    "retina, bottom left": (SKIMAGE, "retina.jpg", (105, 705, 705, 1205)),
    "retina, bottom right": (SKIMAGE, "retina.jpg", (705, 705, 1305, 1205)),
    "portrait": (MATPLOTLIB, "grace_hopper.jpg", None),
    "quokka": (IMGAUG, "quokka.jpg", None),
}


def load(name):
    """Return one of PICTURES, float32 of shape (height, width, 3)."""
    folder, file, box = PICTURES[name]
    package, *inside = folder.split("/")
    place = Path(importlib.util.find_spec(package).submodule_search_locations[0], *inside)
    left, top, right, bottom = box or (0, 0, None, None)
    return image_files.read_colour(place / file)[top:bottom, left:right]


def as_image(picture):
    """Return float values in [0, 1], shape (height, width, 3), as a Pillow image."""
    return Image.fromarray(np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8))


def by_pillow(change):
    """Return an attack on float32 pictures from one on Pillow images."""

    def attack(picture, strength, rng):
        changed = change(as_image(picture), strength, rng)
        return np.asarray(changed.convert("RGB"), "float32") / 255

    return attack


def jpeg(image, quality, rng=None):
    """Return an image as it comes out of a JPEG file of Pillow's quality, 1 to 95."""
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality)
    return Image.open(file, formats=["JPEG"])


def crop(image, share, rng):
    """Return a part with this share of the area and the same shape, anywhere."""
    size = [round(side * share**0.5) for side in image.size]
    left, top = (
        int(rng.integers(whole - part + 1)) for whole, part in zip(image.size, size, strict=True)
    )
    return image.crop((left, top, left + size[0], top + size[1]))


def resize(image, factor, rng=None):
    """Return an image larger or smaller by a factor."""
    return image.resize([round(side * factor) for side in image.size], Image.Resampling.BICUBIC)


def rotate(image, degrees, rng=None):
    """Return an image turned, in a larger black one."""
    return image.rotate(degrees, Image.Resampling.BICUBIC, expand=True)


def screenshot(image, factor, rng):
    """Return an image larger by a factor, somewhere in a window with a bar at its top."""
    image = resize(image, factor)
    left, right, top, bottom = (int(n) for n in rng.integers(20, 120, 4))
    window = Image.new(
        "RGB", (image.width + left + right, image.height + top + bottom + 40), "#eee"
    )
    window.paste("#456", (0, 0, window.width, 40))
    window.paste(image, (left, top + 40))
    return window


# {name: (attack, strengths in the table, further ones in the figure)}
ATTACKS = {
    "none": (lambda picture, _, rng: picture, (0,), ()),
    "JPEG, quality": (by_pillow(jpeg), (90, 75, 50, 30), (20, 10)),
    "noise, σ": (
        lambda picture, sigma, rng: np.clip(
            picture + sigma * rng.standard_normal(picture.shape, "float32"), 0, 1
        ),
        *((0.02, 0.05, 0.1), (0.15, 0.2)),
    ),
    "blur, σ in pixels": (
        lambda picture, sigma, rng: ndimage.gaussian_filter(picture, (sigma, sigma, 0)),
        *((0.7, 1.5), (2, 2.5)),
    ),
    "crop to": (by_pillow(crop), (0.75, 0.5, 0.33), (0.25, 0.15)),
    "resize to": (by_pillow(resize), (0.5, 0.75, 0.9, 1.25, 2), ()),
    "turn, degrees": (by_pillow(rotate), (1, 3, 5), (-2.3, -4.4)),
    "mirror": (by_pillow(lambda image, *_: image.transpose(0)), (0,), ()),
    "quarter turn": (by_pillow(lambda image, *_: image.transpose(2)), (0,), ()),
    "brightness": (lambda picture, by, rng: np.clip(picture * by, 0, 1), (0.8, 1.2), ()),
    "contrast": (
        lambda picture, by, rng: np.clip((picture - picture.mean()) * by + picture.mean(), 0, 1),
        *((0.8, 1.2), ()),
    ),
    "salt and pepper": (
        lambda picture, share, rng: noise.salt_and_pepper(
            picture[np.newaxis], share, int(rng.integers(2**31))
        )[0],
        *((0.05,), (0.1, 0.2)),
    ),
    "screenshot at": (by_pillow(screenshot), (1.1,), ()),
    "resize to 0.9, then JPEG": (
        by_pillow(lambda image, quality, rng: jpeg(resize(image, 0.9), quality)),
        *((75,), ()),
    ),
}


def attacked(picture, name, strength, number):
    """Return a picture after an attack, in 8-bit levels; the same for every method."""
    rng = np.random.default_rng([number, list(ATTACKS).index(name), round(abs(strength) * 1000)])
    return np.asarray(as_image(ATTACKS[name][0](picture, strength, rng)), "float32") / 255


def ours(model):
    """Return the method of watermark_photo.py: picture and number to (marked, reader)."""
    pilots = messages.known_pilots(model)

    def hide(picture, number):
        letters = list("abcdefghijklmnopqrstuvwxyz 0123456789")
        text = "".join(np.random.default_rng(number).choice(letters, 16))
        key = message_bits.derive_key(str(number))
        content, _ = messages.marked_file(model, pilots, picture, text, key)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            marked = np.asarray(image.convert("RGB"), "float32") / 255
        return (
            marked,
            lambda seen: messages.read(model, pilots, messages.luminance(seen), key) == text,
        )

    return hide


def invisible_watermark(method):
    """Return a method of invisible-watermark, as `ours` does; ImportError where it is missing."""
    import imwatermark

    def hide(picture, number):
        content = np.random.default_rng(number).bytes(16)
        encoder = imwatermark.WatermarkEncoder()
        encoder.set_watermark("bytes", content)
        levels = np.asarray(as_image(picture))[..., ::-1]  # it wants OpenCV's order of colours
        marked = encoder.encode(levels.copy(), method)[..., ::-1].astype("float32") / 255

        def read(seen):
            decoder = imwatermark.WatermarkDecoder("bytes", 128)
            with contextlib.suppress(Exception):  # of pictures smaller than it expects
                return (
                    decoder.decode(np.asarray(as_image(seen))[..., ::-1].copy(), method) == content
                )
            return False

        return marked, read

    return hide


def blind_watermark():
    """Return the method of blind-watermark, as `ours` does; ImportError where it is missing."""
    import blind_watermark as package

    package.bw_notes.close()

    def hide(picture, number):
        bits = np.random.default_rng(number).integers(0, 2, 128)
        passwords = {"password_img": number, "password_wm": number}
        mark = package.WaterMark(**passwords)
        mark.read_img(img=np.asarray(as_image(picture))[..., ::-1].astype("float32"))
        mark.read_wm(bits.astype(bool), mode="bit")
        marked = np.round(np.clip(mark.embed()[..., ::-1], 0, 255)).astype("float32") / 255

        def read(seen):
            levels = np.asarray(as_image(seen))[..., ::-1]
            with contextlib.suppress(Exception):  # of pictures smaller than it expects
                found = package.WaterMark(**passwords).extract(
                    embed_img=levels, wm_shape=128, mode="bit"
                )
                return bool(((found > 0.5) == bits).all())
            return False

        return marked, read

    return hide


# {name: its method, from the model of watermark_photo.py}
METHODS = {
    OURS: ours,
    "dwtDct": lambda model: invisible_watermark("dwtDct"),
    "dwtDctSvd": lambda model: invisible_watermark("dwtDctSvd"),
    "blind-watermark": lambda model: blind_watermark(),
}


def installed_methods(model, wanted=None):
    """Return {name: method} of what is wanted, or else of all that is installed.

    Raises:
        UserError: what is wanted is not installed.
    """
    found = {}
    for name in wanted or METHODS:
        try:
            found[name] = METHODS[name](model)
        except ImportError as error:
            if wanted:
                raise UserError(f"{name}: not installed ({error}); see --help") from None
            print(f"{name}: left out ({error})")
    return found


def survivors(hide, with_further, found, keep):
    """Count what one method's marked pictures survive, one picture after the other.

    Args:
        hide: from `installed_methods`.
        with_further: whether to try the strengths that only the figure shows.
        found: what was counted so far, with which it goes on; {} at first. It becomes
            {"qualities": {picture: dB}, "psnr": their mean, "psnr_least": …,
            "read": {attack: {strength: pictures read exactly}}}.
        keep: called without arguments after each picture.
    """
    qualities, read = found.setdefault("qualities", {}), found.setdefault("read", {})
    for number, name in enumerate(PICTURES):
        if name in qualities:
            continue
        picture = load(name)
        marked, reads = hide(picture, number)
        for attack, (_, strengths, further) in ATTACKS.items():
            counts = read.setdefault(attack, {})
            for strength in (*strengths, *(further if with_further else ())):
                right = reads(attacked(marked, attack, strength, number))
                counts[f"{strength:g}"] = counts.get(f"{strength:g}", 0) + bool(right)
                if not right and with_further and strength in strengths:
                    print(f"  {name}: not read after {attack} {strength:g}", flush=True)
        qualities[name] = metrics.psnr(picture[np.newaxis], marked[np.newaxis])
        found["psnr"] = float(np.mean(list(qualities.values())))
        found["psnr_least"] = min(qualities.values())
        keep()


def smoothness(model):
    """Return the change of each picture's smoothest quarter, as a share of that at even strength.

    That quarter: the blocks of 16x16 pixels whose levels have the smallest standard deviation.

    Returns:
        {"median": …, "most": …} over the pictures.
    """

    def in_blocks(values, side=16):
        rows, columns = (length // side for length in values.shape)
        values = values[: rows * side, : columns * side]
        return values.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, -1)

    ratios, key = [], message_bits.derive_key("")
    for name in PICTURES:
        picture = load(name)
        bits = message_bits.embed("sixteen bytes ok", *(n // 8 for n in picture.shape[:2]), key)
        blocks = in_blocks(messages.luminance(picture)).std(axis=1)
        smooth = blocks <= np.quantile(blocks, 0.25)
        uneven, even = (
            np.abs(
                in_blocks(messages.luminance(messages.mark(model, picture, bits, way) - picture))
            )
            for way in (False, True)
        )
        ratios.append(uneven[smooth].mean() / even[smooth].mean())
    return {"median": float(np.median(ratios)), "most": float(max(ratios))}


def false_messages(model, tries=1000):
    """Return how many messages are found where none are, and how often cells were decoded.

    Half of the tries are unmarked pictures, the others marked ones with a wrong key.
    """
    pilots, found, decoded = messages.known_pilots(model), 0, 0
    hide = ours(model)
    wrong = [message_bits.derive_key(f"wrong {n}") for n in range(tries // (2 * len(PICTURES)))]
    for number, name in enumerate(PICTURES):
        picture = load(name)
        for seen in (picture, hide(picture, number)[0]):
            readings = list(messages.readings(model, pilots, messages.luminance(seen)))
            for key in wrong:
                texts = [message_bits.extract(cells, key, origin) for cells, origin in readings]
                found += sum(text is not None for text in texts)
                decoded += len(texts)
    return {"tries": len(wrong) * 2 * len(PICTURES), "found": found, "decoded": decoded}


def capacities(model):
    """Return {"width x height": bytes read after JPEG 75} for parts of two pictures."""
    pilots, key, rooms = messages.known_pilots(model), message_bits.derive_key(""), {}
    for name, width, height in [
        *(("coffee", side, side) for side in (128, 192, 256, 300, 400)),
        *(("coffee", 600, 400), ("quokka", 960, 643)),
    ]:
        picture = load(name)
        top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
        picture = picture[top : top + height, left : left + width]
        rooms[f"{width}x{height}"] = messages.capacity(model, pilots, picture, key)
    return rooms


def plot_example(model, path):
    """Write a figure: before and after, a smooth place at 3x, and what is read after attacks."""
    import matplotlib.pyplot as plt

    text, key = "© 2026 me @home", message_bits.derive_key("secret")
    picture, pilots = load("coffee"), messages.known_pilots(model)
    bits = message_bits.embed(text, *(side // 8 for side in picture.shape[:2]), key)
    marked, even = (messages.mark(model, picture, bits, way) for way in (False, True))
    difference = messages.luminance(marked - picture)
    gain = 0.5 / np.quantile(np.abs(difference), 0.99)
    rows, columns = slice(90, 170), slice(250, 370)  # inside the cup

    def enlarged(shown):
        return np.kron(shown[rows, columns], np.ones((3, 3, 1)))

    panels = {
        "original": picture,
        f"marked, {metrics.psnr(picture[None], marked[None]):.1f} dB": marked,
        f"difference, x {gain:.0f}": np.clip(0.5 + gain * difference, 0, 1)[..., np.newaxis].repeat(
            3, -1
        ),
        "original at 3x": enlarged(picture),
        "marked at 3x": enlarged(marked),
        "at 3x if all places changed alike": enlarged(even),
    }
    for name, strength, said in [
        ("crop to", 0.33, "cropped to a third"),
        ("turn, degrees", 3, "turned by 3°"),
        ("resize to 0.9, then JPEG", 75, "at 90%, then JPEG 75"),
    ]:
        seen = attacked(marked, name, strength, 0)
        found = messages.read(model, pilots, messages.luminance(seen), key)
        panels[f"{said}: {found or 'nothing read'}"] = seen
    figure, axes = plt.subplots(3, 3, figsize=(9, 7), layout="constrained")
    for axis, (title, shown) in zip(axes.flat, panels.items(), strict=True):
        axis.imshow(shown)  # smoothed where it is made smaller, so that no new pattern appears
        axis.set_title(title, fontsize=9)
        axis.set_anchor("N")
        axis.axis("off")
    plotting.save(
        *(figure, path),
        f'A cup of coffee with 16 bytes in it, "{text}". Smooth ground changes least: the mark '
        "shows in the wood, if anywhere. Below: what was done to it, and what was read from that.",
    )


def plot_shares(counts, path):
    """Write a figure of the share of pictures read over the strength of each attack."""
    import matplotlib.pyplot as plt

    shown = [name for name in ATTACKS if len(counts[OURS]["read"][name]) > 3]
    figure, axes = plt.subplots(2, 3, figsize=(9, 5), layout="constrained", sharey=True)
    for axis, attack in zip(axes.flat, shown, strict=True):
        for (method, found), mark in zip(counts.items(), "osv^", strict=False):
            points = sorted((abs(float(s)), n) for s, n in found["read"][attack].items())
            strengths, read = zip(*points, strict=True)
            shares = [100 * n / len(found["qualities"]) for n in read]
            axis.plot(strengths, shares, marker=mark, markersize=4, label=method)
        axis.set(xlabel=attack, ylim=(-4, 104))  # room for what lies on 0 and on 100
        axis.grid(alpha=0.3)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=4, fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("pictures read, %")
    quality = ", ".join(
        f"{name} {len(found['qualities'])}, {found['psnr']:.1f} dB"
        for name, found in counts.items()
    )
    plotting.save(
        *(figure, path),
        "Share of pictures from which 16 bytes are read exactly, over the strength of each "
        f"attack. How many pictures, and their mean quality: {quality}.",
    )


def measure(model, path, wanted, anew):
    """Put what is not in the results yet into them.

    Args:
        model: of watermark_photo.py.
        path: of the results.
        wanted: names of METHODS; None: all that are installed.
        anew: whether to measure what is wanted once more; what others did is kept.
    """
    methods = installed_methods(model, wanted)
    stored = time_to_quality.read_results(path).get("attacks", {})
    measured = {"pictures": list(PICTURES), "methods": {}, **stored}
    parts = {"smooth": smoothness, "capacity": capacities, "false": false_messages}
    parts = parts if OURS in methods else {}
    for name in methods if anew else ():
        measured["methods"].pop(name, None)
    for name in parts if anew else ():
        measured.pop(name, None)

    def keep():
        time_to_quality.store(path, "attacks", measured)

    for name, function in parts.items():
        if name not in measured:
            measured[name] = function(model)
            keep()
    for name, hide in methods.items():
        print(name, flush=True)
        survivors(hide, name == OURS, measured["methods"].setdefault(name, {}), keep)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shipped, images = trained_models.SHIPPED / "watermark_photo.keras", ROOT / "docs" / "images"
    parser.add_argument("--model", default=shipped, help="of watermark_photo.py")
    parser.add_argument("--results", type=Path, default=time_to_quality.RESULTS)
    parser.add_argument("--images", type=Path, default=images, help="folder of the figures")
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help=f"measure these alone, of {', '.join(METHODS)}; keep what others did",
    )
    parser.add_argument("--anew", action="store_true")
    parser.add_argument("--figures", action="store_true")
    args = parser.parse_args(argv)
    for name in set(args.methods or ()) - {*METHODS}:
        raise UserError(f"--methods {name}: there is none; take some of {', '.join(METHODS)}")
    if args.figures and (args.methods or args.anew):
        raise UserError(
            "--methods and --anew have no effect with --figures, which measures nothing"
        )
    plotting.set_up(show=False)
    model = trained_models.load_model(args.model, {"residual": "watermark_photo"})[0]
    if not args.figures:
        measure(model, args.results, args.methods, args.anew)
    counts = time_to_quality.read_results(args.results).get("attacks", {}).get("methods", {})
    if OURS not in counts:
        raise UserError(f"{args.results}: no counts of {OURS}, so no figures; measure it first")
    for name in ("watermark_photo.jpg", "watermark_photo_attacks.png"):
        (args.images / name).unlink(missing_ok=True)  # this benchmark's own
    plot_example(model, args.images / "watermark_photo.jpg")
    plot_shares(counts, args.images / "watermark_photo_attacks.png")


if __name__ == "__main__":
    command_line.start(main)
