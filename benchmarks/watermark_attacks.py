"""Does a message survive what happens to photos? Count it, on the photo that Matplotlib ships.

Each of 20 runs hides 16 bytes of chance with a key of its own, attacks the marked photo, and reads
it back. Then messages are looked for where none are: in unmarked photos, with a thousand keys.

Run it:
  python benchmarks/watermark_attacks.py
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import images, message, metrics, noise, training  # noqa: E402

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import skimage  # noqa: E402

ATTACKS = {
    "none": lambda image, seed: image,
    "Gaussian noise 0.1": lambda image, seed: noise.gaussian(image, 0.1, seed),
    "JPEG, quality 75": lambda image, seed: noise.jpeg(image, 75),
    "salt and pepper 5%": lambda image, seed: noise.salt_and_pepper(image, 0.05, seed),
    "blur 0.7": lambda image, seed: noise.blur(image, 0.7),
}


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shipped = ROOT / "models" / "watermark_ae_residual.keras"
    parser.add_argument("--model", default=shipped, help="of watermark_ae.py, residual")
    parser.add_argument("--runs", type=training.whole_number(1), default=20)
    parser.add_argument("--tries", type=training.whole_number(1), default=1000)
    args = parser.parse_args(argv)
    model = training.load_model(args.model, ["watermark_ae_residual"])
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    photo = images.read_grey(path)

    qualities, right = [], dict.fromkeys(ATTACKS, 0)
    for seed in range(args.runs):
        rng = np.random.default_rng(seed)
        text = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz 0123456789"), 16))
        bits = message.embed(text, *photo.shape[:2], key=str(seed))
        marked = message.mark(model, photo, bits)
        qualities.append(metrics.psnr(photo[None], marked[None]))
        for name, attack in ATTACKS.items():
            seen = attack(marked[None], seed)[0]
            right[name] += message.extract(message.read(model, seen), str(seed)) == text
    print(f"Marked photo: {min(qualities):.2f} dB or better in {args.runs} runs")
    for name, count in right.items():
        print(f"{name:20}  read back {count} of {args.runs}")

    names = ["astronaut.png", "camera.png", "chelsea.png", "coffee.png"]
    folder = Path(skimage.__file__).parent / "data"
    photos = [photo, *(images.read_grey(folder / name) for name in names)]
    log_odds = [message.read(model, photo) for photo in photos]
    found = [message.extract(log_odds[n % len(photos)], str(n)) for n in range(args.tries)]
    wrong = sum(text is not None for text in found)
    print(f"Unmarked photos: {wrong} messages in {args.tries} tries")


if __name__ == "__main__":
    training.start(main)
