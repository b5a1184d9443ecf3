import argparse
import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, wait_for

import clean_documents
import denoise_fashion
import denoise_mnist
import vae_fashion
import watermark_ae
from common import UserError, command_line

LONG = "--synthetic --limit 60 --batch-size 8 --recipe published --epochs 100000".split()


def parse(script, *words):
    recipes = script.RECIPES
    if "fast" in recipes:
        recipes = {next(iter(script.Settings.names)): recipes}
    return command_line.parse(script.Settings, script.__doc__, recipes, words)


def test_settings_are_frozen_and_filled_in_from_the_recipe():
    settings = parse(denoise_mnist)
    assert (settings.epochs, settings.batch_size, settings.learning_rate) == (12, 32, 0.01)
    assert (settings.max_steps_per_epoch, settings.patience, settings.seed) == (140, None, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.epochs = 3
    settings = parse(denoise_fashion, "--recipe", "published", "--epochs", "3")
    assert (settings.epochs, settings.batch_size, settings.patience) == (3, 2048, 10)
    assert settings.max_steps_per_epoch is None
    settings = parse(denoise_fashion, "--architecture", "unet")
    assert (settings.name, settings.batch_size) == ("denoise_fashion_unet", 32)


def test_the_action_is_what_was_asked_for():
    assert parse(denoise_mnist).action == "train"
    assert parse(denoise_mnist, "--model", "a").action == "model"
    assert parse(denoise_mnist, "--model", "a", "--input", "b").action == "input"
    assert parse(vae_fashion, "--generate", "3").action == "generate"
    assert parse(vae_fashion, "--decode", "a.csv").action == "decode"


def test_an_application_takes_another_architecture_where_the_script_says_so():
    assert parse(denoise_fashion, "--input", "a.png").architecture == "unet"
    words = "--input", "a.png", "--architecture", "autoencoder"
    assert parse(denoise_fashion, *words).architecture == "autoencoder"
    assert parse(denoise_fashion).architecture == "autoencoder"


def test_what_a_resumed_training_must_share_is_named_field_by_field():
    assert set(parse(denoise_mnist).to_resume()) == {
        *("script", "architecture", "recipe", "epochs", "batch_size", "learning_rate", "limit"),
        *("seed", "synthetic", "noise", "precision", "max_steps_per_epoch", "patience"),
        "devices",
    }
    assert {"beta", "latent_dim", "dataset"} < set(parse(vae_fashion).to_resume())
    assert not {"generate", "vary", "output_dir", "show"} & set(parse(vae_fashion).to_resume())


@pytest.mark.parametrize(
    ("script", "words", "line"),
    [
        (denoise_mnist, "--epochs 2 --input a.png", "--epochs has no effect here"),
        (denoise_mnist, "--noise 0.3 --input a.png", "--noise has no effect here"),
        (denoise_mnist, "--seed 3 --input a.png", "--seed has no effect here"),
        (denoise_mnist, "--model a --resume", "--resume has no effect here; it is for training"),
        (denoise_mnist, "--synthetic --data-dir a", "--synthetic and --data-dir exclude"),
        (denoise_fashion, "--model a --architecture unet", "--architecture and --model exclude"),
        (vae_fashion, "--vary 3", "--vary has no effect here; it is for --input"),
        (vae_fashion, "--generate 3 --decode a.csv", "--generate and --decode exclude"),
        (vae_fashion, "--generate 3 --beta 2", "--beta has no effect here"),
        (watermark_ae, "--psnr 30 --recipe published", "--psnr has no effect with --recipe pub"),
        (watermark_ae, "--input a.png --message x", "--message has moved to watermark_photo.py"),
        (denoise_fashion, "--architecture tutorial", "is now --architecture autoencoder"),
        (denoise_mnist, "--tensorboard", "pip install tensorboard"),
    ],
)
def test_what_has_no_effect_is_refused(script, words, line, monkeypatch):
    monkeypatch.setattr(command_line.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=line):
        parse(script, *words.split())


def test_bfloat16_is_refused_where_it_does_not_pay(monkeypatch):
    known = Path("/proc/cpuinfo")
    if not known.is_file():
        pytest.skip("no /proc/cpuinfo")
    with pytest.raises(UserError, match="ends worse with mixed_bfloat16"):
        parse(clean_documents, "--precision", "mixed_bfloat16")
    real = Path.read_text
    for flags, refused in (("flags: avx2 avx512f", True), ("flags: avx512_bf16", False)):
        monkeypatch.setattr(
            Path, "read_text", lambda path, f=flags: f if path == known else real(path)
        )
        if refused:
            with pytest.raises(UserError, match="no bfloat16 instructions"):
                parse(denoise_mnist, "--precision", "mixed_bfloat16")
        else:
            assert parse(denoise_mnist, "--precision", "mixed_bfloat16").precision
    assert parse(denoise_mnist).precision == "float32"


@pytest.mark.parametrize("text", ["0", "-3", "2.5", "many", "", "9" * 5_000, "nan"])
def test_whole_refuses(text):
    with pytest.raises(argparse.ArgumentTypeError, match="not a whole number from 1 to 1e"):
        command_line.whole(1)(text)


def test_number_keeps_its_bounds():
    assert command_line.number(0, 10)("0.5") == 0.5
    for text in ("-1", "nan", "inf", "x", "11"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a number from 0 to 10"):
            command_line.number(0, 10)(text)


def test_an_error_is_one_line_of_at_most_300_characters(capsys):
    def main(argv):
        raise UserError("two\n  lines " + "x" * 9_000)

    with pytest.raises(SystemExit):
        command_line.start(main, [])
    line = capsys.readouterr().err
    assert line.startswith("test_command_line.py: error: two lines xxx")
    assert line.count("\n") == 1
    assert len(line) < 340


def test_ctrl_c_says_what_the_run_noted(capsys):
    def main(argv):
        error = KeyboardInterrupt()
        error.add_note("Three of four are done.")
        raise error

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as info:
        command_line.start(main, [])
    signal.signal(signal.SIGINT, before)
    assert info.value.code == 130
    assert capsys.readouterr().err == "\nInterrupted. Three of four are done.\n"


def heed_ctrl_c():
    """A shell's background jobs ignore it, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="no signals to one process")


@needs_signals
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_best_model_and_says_how_to_go_on(tmp_path, sent):
    process = subprocess.Popen(
        [sys.executable, ROOT / "denoise_mnist.py", *LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    state = tmp_path / "runs/denoise_mnist/checkpoint/state.npz"
    wait_for(state.exists, process)
    process.send_signal(sent)
    _, error = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "The best model so far is runs/denoise_mnist/model.keras" in error
    words = " ".join(LONG)
    assert f"python denoise_mnist.py {words} --output-dir runs/denoise_mnist --resume" in error


@needs_signals
def test_a_reader_that_hangs_up_does_not_end_a_training(tmp_path):
    """And the first output is the script's own: TensorFlow's messages are kept off the console."""
    words = f"{sys.executable} {ROOT / 'denoise_mnist.py'} --synthetic --limit 40 --epochs 1"
    shell = ["bash", "-o", "pipefail", "-c", f"{words} | head -1"]
    done = subprocess.run(shell, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Results go to runs/denoise_mnist/\n"
    assert done.stderr == ""
    assert (tmp_path / "runs/denoise_mnist/metrics.json").is_file()


@needs_signals
def test_closed_streams_do_not_end_a_training(tmp_path):
    words = f"{sys.executable} {ROOT / 'denoise_mnist.py'} --synthetic --limit 40 --epochs 1"
    done = subprocess.run(f"{words} >&- 2>&- <&-", shell=True)
    assert done.returncode == 0
    assert (tmp_path / "runs/denoise_mnist/metrics.json").is_file()
