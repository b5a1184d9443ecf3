import dataclasses
from pathlib import Path

import pytest

from common import cli


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(cli.Train):
    noise: float = 0.5
    """standard deviation"""
    batch_size: cli.Hidden[int | None] = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apply(cli.Apply):
    no_invert: bool = False
    """keep dark on light"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate:
    generate: int
    """how many"""


def parse(*argv):
    return cli.parse("Trains a network.", argv, Train, Apply, Generate)


def test_the_flag_that_a_command_requires_chooses_it():
    assert isinstance(parse(), Train)
    assert parse("--epochs", "3", "--noise", "0.1").noise == 0.1
    assert parse("--synthetic").synthetic
    assert parse("--input", "a.png", "b.png") == Apply(input=[Path("a.png"), Path("b.png")])
    assert parse("--input=a.png", "--no-invert") == Apply(input=[Path("a.png")], no_invert=True)
    assert parse("--generate", "7") == Generate(generate=7)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--input", "a.png", "--epochs", "3"], "--epochs"),
        (["--learning-rate", "nan"], "--learning-rate must be positive"),
        (["--limit", "9"], "--limit must be at least 10"),
        (["--seed", "-1"], "--seed must be between"),
        (["--synthetic", "--data-dir", "a"], "exclude each other"),
        (["--recipe", "slow"], "--recipe"),
        (["--batch-size", "4"], "--batch-size"),
        (["--no-synthetic"], "--no-synthetic"),
    ],
)
def test_a_wrong_flag_is_named_and_ends_with_code_2(argv, text, usage_error):
    assert text in usage_error(lambda argv: parse(*argv), *argv)


def test_help_shows_the_fields_docstrings_and_the_other_commands(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    for expected in ("Trains a network.", "--noise", "standard deviation", "--input, --generate"):
        assert expected in text
    assert "--batch-size" not in text
    with pytest.raises(SystemExit):
        parse("--input", "--help")
    assert "--no-invert" in capsys.readouterr().out


def test_resume_takes_the_flags_of_the_run_folder(tmp_path):
    (tmp_path / "arguments.json").write_text('["--epochs", "3", "--noise", "0.25"]')
    settings = parse("--resume", str(tmp_path))
    assert (settings.epochs, settings.noise, settings.resume) == (3, 0.25, tmp_path)
    assert settings.arguments == ("--epochs", "3", "--noise", "0.25")
    assert parse(f"--resume={tmp_path}") == settings
    for flags in (
        ["--resume", str(tmp_path), "--epochs", "5"],
        [f"--resume={tmp_path}", "--epochs=5"],
        ["--synthetic", f"--resume={tmp_path}"],
    ):
        message = "reuses the flags of that training; give no others"
        with pytest.raises(cli.UserError, match=message):
            parse(*flags)


@pytest.mark.parametrize("content", ["no json", "3", '{"--epochs": 3}', "[" * 100_000])
def test_resume_with_damaged_arguments_is_refused(tmp_path, content):
    (tmp_path / "arguments.json").write_text(content)
    with pytest.raises(cli.UserError, match="holds no interrupted training"):
        parse("--resume", str(tmp_path))


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (cli.UserError("a\nb\x1b: no"), 2, "error: a b : no"),
        (FileNotFoundError(2, "No such file", "x.png"), 2, "error: x.png: No such file"),
        (MemoryError(), 2, "error: not enough memory; use smaller pictures"),
        (
            KeyboardInterrupt(),
            130,
            "Interrupted. If a --resume line was printed above, it continues the training.",
        ),
    ],
)
def test_errors_end_in_one_line(error, code, line, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as exit_info:
        cli.run(main)
    assert exit_info.value.code == code
    text = capsys.readouterr().err
    assert text.strip().startswith(line)
    assert text.strip().count("\n") == 0


def test_a_programming_error_stays_a_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: 1 / 0)


@pytest.mark.parametrize("code", [None, 1])
def test_the_exit_code_is_mains(code):
    with pytest.raises(SystemExit) as exit_info:
        cli.run(lambda: code)
    assert exit_info.value.code == code
