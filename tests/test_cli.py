"""`hfasr <verb>` as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HFASR = Path(sys.executable).with_name("hfasr")


@pytest.fixture
def run(verb):
    """Run a command; return what it printed."""

    def run(*words: object) -> str:
        status, printed, told = verb(*words)
        assert status == 0, told
        return printed

    return run


def test_the_command_is_installed(toy_release):
    found = subprocess.run([HFASR, "inspect", toy_release, "--language", "ky"], capture_output=True, text=True, check=True)
    assert "utterances" in found.stdout.splitlines()[0]
    assert "Common Voice" in found.stderr
    help_text = subprocess.run([HFASR, "--help"], capture_output=True, text=True, check=True).stdout
    assert "inspect" in help_text
    assert "prepare" in help_text


def test_inspect_writes_page_and_figures(toy_release, tmp_path, run):
    files = ["--html", tmp_path / "out.html", "--json", tmp_path / "out.json"]
    shown = run("inspect", toy_release, "--splits", "train,test", "--language=ky", "--decode", "--show_normalized", *files)
    figures = json.loads((tmp_path / "out.json").read_text())
    assert {split: found["utterances"] for split, found in figures["splits"].items()} == {"train": 24, "test": 6}
    assert "30 texts normalized (ky)" in shown
    assert (tmp_path / "out.html").read_text().startswith("<!doctype html>")


def test_prepare_then_inspect(toy_release, tmp_path, run):
    options = '{"splits": ["train", "test"]}'
    shown = run("prepare", toy_release, tmp_path / "out", "--options", options, "--workers", 1)
    assert shown.split()[:3] == ["train", "24", "utterances"]
    assert "30 utterances" in run("inspect", tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "/nowhere/at/all"], "no such corpus"),
        (["inspect", "{release}", "--source", "ksc3"], "there is no source 'ksc3'; use one of aishell"),
        (["inspect", "{release}", "--source", "ksc2"], "It looks like Common Voice"),
        (["inspect", "{release}", "--splits", "dev"], "no rows for split 'dev', found train"),
        (["inspect", "{release}", "--options", "validated_rest"], "give a JSON object"),
        (["inspect", "{release}", "--audio-root", "/data"], "common_voice has no option 'audio_root'"),
        (["inspect", "{release}", "--show-normalized"], "needs --language"),
    ],
)
def test_a_wrong_value_ends_with_one_sentence(toy_release, words, message, verb):
    status, _, told = verb(*[word.format(release=toy_release) for word in words])
    assert status == 2
    assert message in told
