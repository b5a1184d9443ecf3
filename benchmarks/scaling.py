"""How do time and memory grow: with the images of a training, the pixels of a page, the pages?

Each point is measured in a process of its own: seconds, without imports and the loading of the
model, and the peak of its memory. Pages and pictures of any size are made of one by mirroring it.
`pages` cleans small ones, as a folder of images and as one PDF. `cluster` cleans pages of A4 at
300 dpi by one process and by `--dask local`; what one more page takes is told from two numbers of
pages, so that no start counts. It also times empty calls, which shows what one scheduler can do.

It takes some 15 minutes on 2 cores. What is measured stands in results.json, so an interrupted run
goes on where it stopped. Let nothing else run meanwhile.

Run it:
  python benchmarks/scaling.py                          what is missing, and the figure
  python benchmarks/scaling.py training pixels pages messages cluster
  python benchmarks/scaling.py pixels --again           measure it anew
"""

import argparse
import concurrent.futures
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# common comes first: it keeps TensorFlow's start-up messages off the console.
from common import UserError, command_line, files, image_files  # noqa: E402
from common import plotting, run_folder, trained_models  # noqa: E402
from applications import messages, message_bits, page_cleaning  # noqa: E402
from synthetic import digits, pages  # noqa: E402

import time_to_quality  # noqa: E402

import numpy as np  # noqa: E402
import skimage.data  # noqa: E402
from PIL import Image  # noqa: E402

FIGURE = ROOT / "docs" / "images" / "scaling.png"
MEGAPIXELS = [0.25, 1, 4, 9, 20, 35]
COUNTS = [1, 10, 50, 200]
# {part: {series: (what is counted, sizes)}}
PARTS = {
    "training": {"training": ("images", [1_000, 5_000, 20_000, 60_000])},
    "pixels": {"page": ("megapixels", MEGAPIXELS)},
    "pages": {"folder": ("pages", COUNTS), "pdf": ("pages", COUNTS)},
    "messages": {"embedding": ("megapixels", MEGAPIXELS), "reading": ("megapixels", MEGAPIXELS)},
    "cluster": {"one_process": ("pages", [2, 10]), "dask_local": ("pages", [2, 10])},
}
LABELS = {
    "training": "one epoch of denoise_mnist.py",
    "page": "cleaning a page",
    "folder": "cleaning a folder",
    "pdf": "cleaning a PDF",
    "embedding": "hiding a message",
    "reading": "reading a message",
    "one_process": "A4 pages, one process",
    "dask_local": "A4 pages, --dask local",
}
A4 = (3508, 2480)  # pixels at 300 dpi
SMALL = (595, 420)
MESSAGE = "16 bytes of text"
EMPTY_CALLS = 1_000


def page(shape):
    """Return a dirty page of text of this (height, width), uint8."""
    [(dirty, *_)] = pages.pages(1, seed=0, height=842, width=595, scale=1)
    return mirrored(dirty[..., 0], shape)


def mirrored(picture, shape):
    """Return a picture cut, or continued as in mirrors, to (height, width)."""
    more = [max(0, side - known) for side, known in zip(shape, picture.shape, strict=False)]
    rest = [(0, 0)] * (picture.ndim - 2)
    picture = np.pad(picture, [(0, more[0]), (0, more[1]), *rest], mode="symmetric")
    return picture[: shape[0], : shape[1]]


def sides(megapixels, ratio):
    """Return (height, width) of so many million pixels, height to width as `ratio`."""
    width = math.sqrt(megapixels * 1e6 / ratio)
    return round(width * ratio), round(width)


# ---------------------------------------------------------------- in a process of its own


def shipped(script):
    """Return the model that --input takes."""
    return trained_models.load_model(ROOT / "models" / f"{script}.keras", {"": script})[0]


def measured(function, *words):
    """Return {"seconds", "memory_mb"} of a call, and of this process."""
    started = time.perf_counter()
    function(*words)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "memory_mb": run_folder.peak_memory_mb()}


def clean_a_page(source, target):
    clean = page_cleaning.cleaner(shipped("clean_documents"))
    clean(np.ones((64, 64, 1), "float32"))  # traced once
    return measured(page_cleaning.clean_file, clean, source, target, page_cleaning.Options())


def clean_pages(source, folder):
    words = [source], folder, page_cleaning.Options()
    return measured(page_cleaning.clean_files, shipped("clean_documents"), *words)


def embed(source, target):
    """Hide a message in a picture, as watermark_photo.py does, and write the marked one."""
    model = shipped("watermark_photo")
    pilots, key = messages.known_pilots(model), message_bits.derive_key("")

    def hide():
        picture = image_files.read_colour(source)
        target.write_bytes(messages.marked_file(model, pilots, picture, MESSAGE, key)[0])

    return measured(hide)


def reveal(source):
    """Read the message of a marked picture."""
    model = shipped("watermark_photo")
    pilots, key = messages.known_pilots(model), message_bits.derive_key("")

    def read():
        grey = messages.luminance(image_files.read_colour(source))
        if messages.read(model, pilots, grey, key) != MESSAGE:
            raise UserError(f"{source}: its message could not be read")

    return measured(read)


def clean_by_script(source, folder, *words):
    """Clean as a user does, start and all; memory is that of the largest process."""
    command = [sys.executable, ROOT / "clean_documents.py", "--input", source]
    started = time.perf_counter()
    subprocess.run([*command, "--output-dir", folder, *words], check=True, capture_output=True)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": seconds, "memory_mb": peak * 1024 / 1e6}


def empty_calls():
    """Return how many calls that do nothing are handed out in a second, as files are."""
    import distributed

    from applications import cluster

    with (
        distributed.LocalCluster(
            n_workers=os.cpu_count(), threads_per_worker=1, memory_limit=0, dashboard_address=None
        ) as workers,
        distributed.Client(workers) as client,
    ):
        for count in (20, EMPTY_CALLS):  # the first are to warm up
            started = time.perf_counter()
            done = list(cluster.one_each(client, ((n, (abs, n)) for n in range(count))))
            seconds = time.perf_counter() - started
    return len(done) / seconds


def apart(function, *words):
    """Return what a function returns in a new process."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *words).result()


# ---------------------------------------------------------------- the points


def training(size, folder):
    data = folder / "digits" / "mnist.npz"
    if not data.is_file():
        parts = {"train": PARTS["training"]["training"][1][-1], "test": 1_000}
        arrays = {}
        for seed, (part, count) in enumerate(parts.items()):
            arrays[f"x_{part}"], arrays[f"y_{part}"] = digits.digits(count, seed)
        data.parent.mkdir(parents=True, exist_ok=True)
        with files.write_whole(data) as temporary:
            np.savez(temporary, **arrays)
    words = ["--recipe", "published", "--epochs", "1", "--limit", str(size)]
    words += ["--data-dir", str(data.parent)]
    run = time_to_quality.train("denoise_mnist", words, folder / f"training_{size}", "val_loss")
    return {"seconds": run["seconds_training"], "memory_mb": run["peak_memory_mb"]}


def written(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with files.write_whole(path) as temporary:
            Image.fromarray(picture).save(temporary, compress_level=1, dpi=(300, 300))
    return path


def point(series, size, folder):
    """Measure one point and return {"seconds", "memory_mb"}; what it makes may stay in `folder`."""
    if series == "training":
        return training(size, folder)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        scratch = Path(scratch)
        if series == "page":
            source = written(scratch / "page.png", page(sides(size, math.sqrt(2))))
            return apart(clean_a_page, source, scratch / "cleaned.png")
        if series in PARTS["messages"]:
            marked = folder / f"marked_{size}.png"
            found = None
            if series == "embedding" or not marked.is_file():
                photo = mirrored(skimage.data.astronaut(), sides(size, 3 / 4))
                found = apart(embed, written(scratch / "photo.png", photo), marked)
            return found if series == "embedding" else apart(reveal, marked)
        return point_of_pages(series, size, scratch)


def point_of_pages(series, size, scratch):
    """Measure the cleaning of several pages: small ones, or A4."""
    picture = page(SMALL if series in PARTS["pages"] else A4)
    if series == "pdf":
        sheets = [Image.fromarray(picture)] * size
        sheets[0].save(scratch / "pages.pdf", save_all=True, append_images=sheets[1:])
        return apart(clean_pages, scratch / "pages.pdf", scratch / "cleaned")
    for number in range(size):
        written(scratch / "pages" / f"{number:04}.png", picture)
    if series == "folder":
        return apart(clean_pages, scratch / "pages", scratch / "cleaned")
    words = ["--dask", "local"] if series == "dask_local" else []
    found = apart(clean_by_script, scratch / "pages", scratch / "cleaned", *words)
    both = [file.stat().st_size for file in scratch.rglob("0000.png")]
    return {**found, "page_mb": sum(both) / 1e6}


def per_unit(points):
    """Return what one more unit takes: the seconds between the least and the greatest size."""
    least, *_, greatest = sorted(points, key=float)
    seconds = points[greatest]["seconds"] - points[least]["seconds"]
    return seconds / (float(greatest) - float(least))


def on_paper(measured):
    """Return what follows for an archive from the points of the part `cluster`."""
    cores = os.cpu_count()
    seconds = per_unit(measured["dask_local"])
    first = measured["dask_local"][min(measured["dask_local"], key=float)]
    return {
        "seconds_per_page": {name: per_unit(measured[name]) for name in PARTS["cluster"]},
        "pages_per_hour_and_core": 3600 / seconds / cores,
        "core_hours_per_million": 1e6 * seconds * cores / 3600,
        "seconds_to_start": first["seconds"] - 2 * seconds,
        "page_mb": first["page_mb"],
        "worker_mb": max(found["memory_mb"] for found in measured["dask_local"].values()),
        "empty_calls_per_second": measured["empty_calls_per_second"],
        "cores_one_scheduler_feeds": measured["empty_calls_per_second"] * seconds * cores,
    }


# ---------------------------------------------------------------- the figure


def plot(scaling, path):
    """Plot seconds, and below them memory, over what is counted: a column for each part."""
    import matplotlib.pyplot as plt

    parts = [part for part in PARTS if part != "cluster" and scaling.get(part)]
    if not parts:
        return
    figure, axes = plt.subplots(
        2,
        len(parts),
        figsize=(3 * len(parts), 5),
        layout="constrained",
        squeeze=False,
        sharex="col",
    )
    for part, (above, below) in zip(parts, axes.T, strict=True):
        for series, (counted, _) in PARTS[part].items():
            points = scaling[part].get(series, {})
            sizes = sorted(points, key=float)
            for axis, key, unit in ((above, "seconds", 1), (below, "memory_mb", 1000)):
                values = [points[size][key] / unit for size in sizes]
                axis.plot([float(size) for size in sizes], values, ".-", label=LABELS[series])
            below.set_xlabel(counted)
        for axis in (above, below):
            axis.set_ylim(0, 1.08 * axis.dataLim.y1)
            axis.set_xlim(left=0)
            axis.xaxis.set_major_formatter("{x:,g}")
            axis.grid(alpha=0.3)
        above.legend(fontsize=8)
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("memory, GB")
    machines = ", ".join(dict.fromkeys(scaling[part]["machine"] for part in parts))
    caption = (
        "Each point is a process of its own: seconds without its start, and the peak of its "
        f"memory, with TensorFlow and all. {machines}."
    )
    path.unlink(missing_ok=True)
    plotting.save(figure, path, caption)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    add("--again", action="store_true", help="measure anew what was measured")
    add("--most", type=float, default=math.inf, metavar="SIZE", help="for a quick try")
    add("--results", type=Path, default=time_to_quality.RESULTS)
    add("--figure", type=Path, default=FIGURE)
    add("--work-dir", type=Path, default=Path("runs", "scaling"), help="for what is made")
    args = parser.parse_args(argv)
    plotting.set_up(show=False)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    scaling = time_to_quality.read_results(args.results).get("scaling", {})
    for name in args.parts:
        if name not in PARTS:
            raise UserError(f"{name}: no such part; there are {', '.join(PARTS)}")
    for part in args.parts or PARTS:
        if part == "cluster":
            page_cleaning.dask_address("local")  # says what is missing
        found = scaling[part] = {} if args.again else scaling.get(part, {})
        for series, (counted, sizes) in PARTS[part].items():
            for size in sizes:
                if size > args.most or str(size) in found.get(series, {}):
                    continue
                print(f"{LABELS[series]}: {size:,} {counted} ...", flush=True)
                made = point(series, size, args.work_dir)
                print(f"    {made['seconds']:,.1f} s, {made['memory_mb']:,.0f} MB", flush=True)
                found.setdefault(series, {})[str(size)] = made
                store(args.results, scaling, part)
        if part == "cluster" and "empty_calls_per_second" not in found:
            found["empty_calls_per_second"] = apart(empty_calls)
            store(args.results, scaling, part)
        enough = all(len(found.get(name, {})) > 1 for name in PARTS[part])
        if part == "cluster" and enough and "on_paper" not in found:
            found["on_paper"] = on_paper(found)
            store(args.results, scaling, part)
    plot(scaling, args.figure)


def store(path, scaling, part):
    """Write what is measured so far, with the date and commit of the part."""
    scaling[part] |= time_to_quality.about()
    results = time_to_quality.read_results(path)
    files.write_json(path, {**results, "scaling": scaling}, replace=True)


if __name__ == "__main__":
    command_line.start(main)
