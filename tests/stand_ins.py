"""What stands for the names in the commands of README and docs, and what runs these commands."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch

from hfasr.audio import load_audio, write_audio
from hfasr.corpora import common_voice
from hfasr.corpora.rows import plain
from hfasr.models.load import load_model
from hfasr.models.quartznet import QuartzNetConfig
from hfasr.text.normalize import Normalizer
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer, target_record

_RECORDINGS = ("talk.wav", "speech.wav", "lecture_3h.mp3", "recordings/a.wav", "recordings/day/b.flac", "archive/c.wav")


def fenced(text: str, language: str) -> list[str]:
    """Return the code blocks of a language in a Markdown text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def lay_out(folder: Path, release: Path) -> None:
    """Put recordings, texts, corpora and tiny models of random weights into a folder, under the names that README and docs give them."""
    corpus = plain(common_voice(release, splits=["train", "validation", "test"]))
    sentences = [row["text"] for row in corpus["train"]]
    for name, row in zip(_RECORDINGS, corpus["test"], strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_audio(folder / name, load_audio(row["audio"]), format=name.rpartition(".")[2].upper())
        (folder / name).with_suffix(".txt").write_text(row["text"], encoding="utf-8")
    (folder / "sentences.txt").write_text("\n".join(sentences), encoding="utf-8")
    subprocess.run(["gzip", "-c", "sentences.txt"], stdout=(folder / "big.txt.gz").open("wb"), cwd=folder, check=True)
    (folder / "names.txt").write_text("Абай\nАлма\t2\n", encoding="utf-8")
    for name in ("cv-corpus-25.0/ky", "ISSAI_KSC2", "trained_on"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(release)
    for name, unit, maker in (("ky_phoneme", "phoneme", Phonemizer("ky")), ("kk_char", "character", Normalizer("kk"))):
        targets = maker(sentences)
        torch.manual_seed(0)
        blocks = [{"filters": 24, "kernel": 5, "stride": 2}, {"filters": 24, "kernel": 7}]
        model, processor = load_model(
            QuartzNetConfig(blocks=blocks), build_tokenizer(targets, unit, record=target_record(targets, **maker.record))
        )
        torch.nn.init.normal_(model.lm_head.weight, std=8.0)  # sure of a symbol in every frame, so that a beam search has little to do
        for part in (model, processor):
            part.save_pretrained(folder / "runs" / name)
    arguments = {"validation_split": "validation", "test_splits": ["test"]}
    (folder / "runs" / "ky_phoneme" / "recipe.json").write_text(json.dumps({"corpus": {"name": "trained_on"}, "arguments": arguments}))


def run_lines(block: str, verb: Callable, monkeypatch) -> list[list[str]]:
    """Run the commands of `hfasr` in a block; what would record sound is a recording, and a beam search is tuned on one clip.

    Returns:
        The words of the other commands, unless they only make what comes from a pipe.
    """
    others = []
    for line in block.splitlines():
        if not (words := shlex.split(line, comments=True)):
            continue
        if words[0] != "hfasr" and "|" not in words:
            others.append(words)
            continue
        if "|" in words:
            at = words.index("|")
            given, words = _output_of(words[:at]), words[at + 1 :]
            Path("stdin").write_bytes(given)
            monkeypatch.setattr("sys.stdin", open("stdin"))  # noqa: SIM115 (closed with the test)
        quick = ["--tune-seconds", "1", "--beam-size", "4"] if "--tune" in words else []
        status, _, told = verb(*words[1:], *quick)
        assert status == 0, f"{line}: {told}"
    return others


def _output_of(words: list[str]) -> bytes:
    if words[0] not in ("arecord", "ffmpeg"):
        return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
    wav = Path("talk.wav").read_bytes()
    return wav[44:] if "raw" in words else wav
