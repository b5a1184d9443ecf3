"""Does a message survive what happens to photos? Count it, on the photo that Matplotlib ships.

Each of 20 runs hides 16 random bytes with a key of its own, attacks the marked photo, and reads
it back. Then messages are looked for where none are: in unmarked photos, with a thousand keys.

Run it:
  python benchmarks/watermark_attacks.py    counts go to results.json
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# common comes first: it keeps TensorFlow's start-up messages off the console.
from applications import messages  # noqa: E402
from common import command_line, image_files, metrics, noise, trained_models  # noqa: E402

import time_to_quality  # noqa: E402

import io  # noqa: E402

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import skimage  # noqa: E402
from PIL import Image  # noqa: E402
from scipy import ndimage  # noqa: E402


def blur(images, sigma):
    """Return images under a Gaussian blur of `sigma` pixels; shape (n, height, width, 1)."""
    return ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")


def jpeg(images, quality):
    """Return images as they come out of a JPEG file.

    Args:
        images: float32 in [0, 1], shape (n, height, width, 1).
        quality: Pillow's, 1 to 95.
    """
    seen = []
    for image in images:
        file = io.BytesIO()
        levels = np.round(np.clip(image[..., 0], 0, 1) * 255).astype(np.uint8)
        Image.fromarray(levels).save(file, "jpeg", quality=quality)
        seen.append(
            np.asarray(Image.open(file, formats=["JPEG"]), "float32")[..., np.newaxis] / 255
        )
    return np.stack(seen)


ATTACKS = {
    "none": lambda image, seed: image,
    "gaussian_0.1": lambda image, seed: noise.gaussian(image, 0.1, seed),
    "jpeg_75": lambda image, seed: jpeg(image, 75),
    "salt_and_pepper_0.05": lambda image, seed: noise.salt_and_pepper(image, 0.05, seed),
    "blur_0.7": lambda image, seed: blur(image, 0.7),
}


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shipped = ROOT / "models" / "watermark_photo.keras"
    parser.add_argument("--model", default=shipped, help="of watermark_photo.py")
    parser.add_argument("--runs", type=command_line.whole(1), default=20)
    parser.add_argument("--tries", type=command_line.whole(1), default=1000)
    parser.add_argument("--results", type=Path, default=time_to_quality.RESULTS)
    args = parser.parse_args(argv)
    model = trained_models.load_model(args.model, {"residual": "watermark_photo"})[0]
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    photo = image_files.read_grey(path)

    qualities, right = [], dict.fromkeys(ATTACKS, 0)
    for seed in range(args.runs):
        rng = np.random.default_rng(seed)
        text = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz 0123456789"), 16))
        bits = messages.embed(text, *photo.shape[:2], key=str(seed))
        marked = messages.mark(model, photo, bits)
        qualities.append(metrics.psnr(photo[None], marked[None]))
        for name, attack in ATTACKS.items():
            seen = attack(marked[None], seed)[0]
            right[name] += messages.extract(messages.read(model, seen), str(seed)) == text
    print(f"Marked photo: {min(qualities):.2f} dB or better in {args.runs} runs")
    for name, count in right.items():
        print(f"{name:20}  read back {count} of {args.runs}")

    names = ["astronaut.png", "camera.png", "chelsea.png", "coffee.png"]
    folder = Path(skimage.__file__).parent / "data"
    photos = [photo, *(image_files.read_grey(folder / name) for name in names)]
    log_odds = [messages.read(model, photo) for photo in photos]
    found = [messages.extract(log_odds[n % len(photos)], str(n)) for n in range(args.tries)]
    wrong = sum(text is not None for text in found)
    print(f"Unmarked photos: {wrong} messages in {args.tries} tries")
    time_to_quality.store(
        *(args.results, "attacks"),
        {"runs": args.runs, "psnr": min(qualities), "read": right, "found_in_unmarked": wrong},
    )


if __name__ == "__main__":
    command_line.start(main)
