"""`hfasr align` as a user runs it, with a tiny model of random weights."""

import json

import numpy as np
import pytest

from hfasr.audio import write_audio
from hfasr.inference.aligner import Aligner
from hfasr.inference.transcript import Transcript, Unit


@pytest.fixture
def run(verb, checkpoint):
    return lambda *words, model=checkpoint: verb("align", "--model", model, "--language", "ky", *words)


@pytest.fixture
def folder(tmp_path):
    """Two recordings with texts beside, one of them further below; one without, one with too long a text, one that is no audio."""
    rng = np.random.default_rng(0)
    (tmp_path / "in" / "below").mkdir(parents=True)
    for name, seconds, text in (("a.wav", 2, "Ал келди."), ("below/b.flac", 1, "ал"), ("c.wav", 1, None), ("d.wav", 0.2, "ал келди " * 9)):
        write_audio(tmp_path / "in" / name, (0.1 * rng.standard_normal(int(seconds * 16_000))).astype(np.float32))
        if text is not None:
            (tmp_path / "in" / name).with_suffix(".txt").write_text(text, encoding="utf-8")
    (tmp_path / "in" / "e.mp3").write_bytes(b"no audio")
    (tmp_path / "in" / "e.txt").write_text("ал")
    return tmp_path / "in"


def test_words_are_printed(folder, run):
    for words in (["a.wav"], ["a.wav", folder / "a.txt"], ["a.wav", "Ал келди."]):
        status, shown, _ = run(folder / words[0], *words[1:])
        assert status == 0
        lines = [line.split("\t") for line in shown.splitlines()]
        assert [line[3] for line in lines] == ["Ал", "келди."]
        assert all(0 <= float(start) < float(end) <= 2 and 0 < float(confidence) < 1 for start, end, confidence, _ in lines)


@pytest.mark.parametrize("name", ["x.TextGrid", "x.ctm", "x.srt", "x.vtt", "x.jsonl", "x.json", "x.txt"])
def test_the_ending_tells_the_format(folder, run, tmp_path, name):
    status, shown, _ = run(folder / "a.wav", "Ал келди.", "-o", tmp_path / name)
    assert (status, shown) == (0, f"2 words, 7 characters: {tmp_path / name}\n")
    text = (tmp_path / name).read_text("utf-8")
    begins = {"TextGrid": "File type", "ctm": "x 1 ", "srt": "1\n", "vtt": "WEBVTT", "txt": "Ал келди."}
    assert text.startswith(begins.get(name.partition(".")[2], '{"path"'))
    if "json" in name:
        assert [word["text"] for word in json.loads(text)["words"]] == ["Ал", "келди."]
    if name.endswith("TextGrid"):
        assert 'name = "characters"' in text


def test_a_folder_is_aligned_and_what_cannot_be_is_listed(folder, run, tmp_path):
    status, shown, told = run(folder, "--output", tmp_path / "out", "--format", "textgrid,ctm")
    assert status == 1
    assert shown == f"2 recordings aligned: {tmp_path / 'out'}\n"
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert made == ["a.TextGrid", "a.ctm", "below/b.TextGrid", "below/b.ctm"]
    assert "3 of 5 recordings could not be aligned" in told
    assert "c.wav: there is no c.txt beside it" in told
    assert "d.wav, 0.20 s: the text is too long for the audio: its 80 symbols need 80 frames, there are" in told
    assert "e.mp3: not audio" in told


def test_one_that_cannot_be_spelled_is_listed_by_its_name(folder, run, tmp_path):
    (folder / "a.txt").write_text("цирк", encoding="utf-8")
    status, _, told = run(folder, "--output", tmp_path / "out")
    assert status == 1
    assert f"{folder / 'a.wav'}: the model cannot spell цирк: it has" in told
    assert "Loading weights" not in told


def test_a_text_of_another_recording_is_doubted(folder, run, tmp_path, monkeypatch):
    words = lambda text: tuple(Unit(word, i, i + 0.5, 0.9 if word == "Ал" else 0.1) for i, word in enumerate(text.split()))
    monkeypatch.setattr(Aligner, "__call__", lambda self, path, text: Transcript(text, path, 2.0, words=words(text)))
    assert run(folder / "a.wav", "Ал Ал келди")[2] == ""  # 0.63
    doubt = "the text may not be what is said: the mean confidence of its words is 0.37, that of right texts above 0.4"
    assert doubt in run(folder / "a.wav", "Ал келди келди")[2]
    (folder / "a.txt").write_text("Ал Ал келди", encoding="utf-8")
    told = run(folder, "--output", tmp_path / "out")[2]
    assert "3 texts may not be what is said" in told
    assert f"  0.10 {folder / 'below' / 'b.flac'}\n" in told
    assert f"0.63 {folder / 'a.wav'}" not in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{in}/nowhere.wav", "ал"], "nowhere.wav: no such file"),
        (["{in}/a.wav", "{in}/nowhere.txt"], "nowhere.txt: no such text file"),
        (["{in}/c.wav"], "there is no c.txt beside it"),
        (["{in}/a.wav", "ал", "-o", "{in}/x.doc"], "no ending that tells a format; expected one of .txt"),
        (["{in}/a.wav", "ал", "-o", "{in}/x.srt", "--format", "srt,ctm"], "--format names 2 formats for one file"),
        (["{in}/a.wav", "ал", "-o", "{in}/x", "--format", "praat"], "there is no format 'praat'; give some of txt"),
        (["{in}/a.wav", "ал", "-o", "{in}/x", "--format", ""], "there is no format ''"),
        (["{in}/a.wav", "ал", "-o", "{in}/missing/x.srt"], "its folder does not exist"),
        (["{in}/a.wav", "{in}/a.txt", "-o", "{in}/a.txt"], "is what is to be aligned; give another name"),
        (["{in}", "ал"], "holds 5 recordings; leave the text out"),
        (["{in}"], "holds 5 recordings; give --output"),
        (["{in}", "-o", "/proc/foo"], "error: /proc/foo cannot be written (No such file or directory)"),
        (["{in}", "-o", "{in}", "--format", "txt"], "--format names txt, but the texts are there already"),
        (["{in}/a.wav", "цирк"], "the model cannot spell цирк: it has no output for ц"),
        (["{in}/a.wav", "*"], "no word that can be said"),
    ],
)
def test_a_wrong_value_ends_with_one_sentence(folder, run, words, message):
    status, _, told = run(*[word.replace("{in}", str(folder)) for word in words])
    assert status == 2
    assert message in told
    assert (folder / "a.txt").read_text("utf-8") == "Ал келди."
