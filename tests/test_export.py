"""The code of docs/export.md, where the packages it needs are installed."""

import keras
import numpy as np
import pytest
from conftest import ROOT, code_in


@pytest.fixture
def onnxruntime():
    pytest.importorskip("tf2onnx")
    return pytest.importorskip("onnxruntime")


def run(title, names):
    """Run the code below a title of docs/export.md; return its variables and those it was given."""
    names = dict(names)
    exec(code_in("docs/export.md", title).replace("models/", f"{ROOT}/models/"), names)
    return names


def onnx_outputs(onnxruntime, model, images):
    model.predict(images, verbose=0)
    model.export("model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession("model.onnx")
    return session.run(None, {session.get_inputs()[0].name: images})


@pytest.mark.usefixtures("onnxruntime")
def test_onnx():
    names = run("onnx", run("model", {}))
    assert names["denoised"] == pytest.approx(names["model"].predict(names["noisy"]), abs=1e-5)


def test_litert():
    pytest.importorskip("ai_edge_litert")
    names = run("litert", run("model", {}))
    assert names["denoised"] == pytest.approx(names["model"].predict(names["noisy"]), abs=1e-5)


@pytest.mark.parametrize(
    ("file", "shape"),
    [
        ("clean_documents", (2, 96, 64, 1)),
        ("clean_documents_autoencoder", (2, 96, 64, 1)),
        ("denoise_fashion", (2, 28, 28, 1)),
        ("denoise_fashion_unet", (2, 28, 28, 1)),
        ("latent_spaces_sparse", (2, 28, 28, 1)),
    ],
)
def test_other_networks_in_onnx(onnxruntime, file, shape):
    import latent_spaces  # noqa: F401  (registers its layers)

    model = keras.saving.load_model(ROOT / f"models/{file}.keras", compile=False)
    images = np.random.default_rng(0).random(shape, dtype="float32")
    (output,) = onnx_outputs(onnxruntime, model, images)
    assert output == pytest.approx(model.predict(images, verbose=0), abs=1e-5)


def test_parts_of_larger_models_in_onnx(onnxruntime):
    names = run("watermark", run("vae", {}))
    rng = np.random.default_rng(0)
    photo = rng.random((2, 64, 64, 1), dtype="float32")
    parts = [
        (names["encoder"], photo[:, :28, :28]),
        (names["decoder"], photo[:, 0, :2, 0]),
        (names["extractor"], photo),
    ]
    for part, inputs in parts:
        wanted = keras.tree.flatten(part.predict(inputs, verbose=0))
        for output, expected in zip(onnx_outputs(onnxruntime, part, inputs), wanted, strict=True):
            assert output == pytest.approx(expected, abs=1e-5)
