import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from common import plotting
from common.cli import UserError


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def images(count, value=0.5):
    return np.full((count, 28, 28, 1), value, "float32")


def test_a_figure_is_written_whole_and_never_replaces(tmp_path):
    rows = {"clean": images(3), "noisy\n9.38 dB": images(3, 0.1)}
    path = tmp_path / "grid.png"
    plotting.image_grid(rows, path, title="T", caption="C " * 200, column_titles=["a", "b", "$c"])
    assert pixels(path).std() > 5
    with pytest.raises(UserError, match=r"grid.png exists"):
        plotting.image_grid(rows, path, title="T", caption="C")
    assert [entry.name for entry in tmp_path.iterdir()] == ["grid.png"]


def test_a_long_caption_makes_the_figure_taller_not_wider(tmp_path):
    for name, caption in (("short", "One line."), ("long", "Some words. " * 80)):
        figure = Figure(figsize=(6, 3), layout="constrained")
        figure.subplots().plot([1, 2])
        plotting.save(figure, tmp_path / f"{name}.png", caption)
    short, long = (pixels(tmp_path / f"{name}.png").shape for name in ("short", "long"))
    assert long[0] > short[0] + 50
    assert abs(long[1] - short[1]) < 30


def test_a_grid_may_have_empty_places_and_color(tmp_path):
    color = np.ones((28, 28, 3), "float32") * [1, 0, 0]
    plotting.image_grid({"a": [None, color]}, tmp_path / "a.png", title="T", caption="C")
    with Image.open(tmp_path / "a.png") as image:
        red = np.asarray(image.convert("RGB")).astype(int)
    assert ((red[..., 0] - red[..., 1]) > 200).any()


def test_the_history_is_plotted_where_there_is_one(tmp_path):
    plotting.plot_history(tmp_path, ylabel="loss", caption="C")
    assert not (tmp_path / "loss.png").exists()
    rows = [f"{n},{1 / (n + 1)},{'nan' if n == 2 else 2 / (n + 1)}" for n in range(8)]
    (tmp_path / "history.csv").write_text("\n".join(["epoch,loss,val_loss", *rows]))
    plotting.plot_history(tmp_path, ylabel="loss", caption="C")
    assert pixels(tmp_path / "loss.png").std() > 5


def test_a_sheet_with_and_without_labels(tmp_path):
    for name, labels in (("plain", ()), ("labels", ["a long name of a picture.png"] * 7)):
        path = tmp_path / f"{name}.png"
        plotting.image_sheet(images(7), path, title="T", caption="C", columns=3, labels=labels)
        assert pixels(path).std() > 5


def test_a_mosaic_by_hand():
    picture = plotting.mosaic(np.arange(3).reshape(3, 1, 1, 1) / 10, columns=2)
    np.testing.assert_allclose(picture, [[0, 0.1], [0.2, 1]])
    assert plotting.mosaic(images(3), 3, gap=2).shape == (32, 92)


def test_a_legend_of_many_classes_names_the_largest():
    labels = np.concatenate([np.repeat(np.arange(25), np.arange(1, 26))])
    axis = Figure().subplots()
    points = np.random.default_rng(0).normal(size=(len(labels), 2))
    plotting.scatter_classes(axis, points, labels, [f"class {n}" for n in range(25)])
    entries = axis.get_legend_handles_labels()[1]
    assert entries[0] == "5 others"
    assert entries[1:] == [f"class {n}" for n in range(5, 25)]


def test_the_prior_has_two_circles():
    axis = Figure().subplots()
    plotting.draw_prior(axis)
    assert [circle.get_radius() for circle in axis.patches] == [1, 2]


def test_long_names_lose_their_middle():
    assert plotting.shorten("short", 10) == "short"
    assert plotting.shorten("a_very_long_name.png", 10) == "a_ve…e.png"
