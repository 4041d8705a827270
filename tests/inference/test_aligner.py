"""Alignments of espeak-ng's speech, whose true times its events tell, with a model that is made to know them; and of texts of all kinds."""

import json
from itertools import groupby, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2CTCTokenizer

import hfasr
from hfasr import Phonemizer, espeak
from hfasr.audio import resample, write_audio
from hfasr.decoding import alignment
from hfasr.decoding.alignment import STAR
from hfasr.decoding.greedy import labels_to_text
from hfasr.inference.aligner import Aligner, align
from hfasr.inference.writers import render
from hfasr.models.frames import FrameGrid
from hfasr.text.normalize import Normalizer
from hfasr.text.vocabulary import build_tokenizer, target_record

TEXT = "Балдар бүгүн мектепке барышты, 25 ата келди — Ал үйдө."
PHONEMES = Phonemizer("ky")
GRID = FrameGrid(320, 0.0)


class Knowing:
    """An engine whose log-probabilities are those of a model that knows what is said when in one recording.

    It says each phoneme in a frame or two around its middle, `lag` seconds later, and is less sure of every fifth. Of a part of the
    recording it knows where it is from.
    """

    blank, grid, device, equal_lengths = 0, GRID, torch.device("cpu"), False

    def __init__(self, tokenizer, waveform: np.ndarray, said: list[tuple[str, float]], lag: float = 0.0):
        self.tokenizer, self._whole, self._lag = tokenizer, waveform.tobytes(), lag
        self._said = [(tokenizer.get_vocab()[symbol], seconds) for symbol, seconds in said]

    def log_probs(self, waveforms):
        lengths = torch.tensor([len(waveform) // GRID.stride + 1 for waveform in waveforms])
        logits = torch.randn(len(waveforms), int(lengths.max()), len(self.tokenizer), generator=torch.Generator().manual_seed(0))
        logits[:, :, self.blank] += 7
        for row, waveform in zip(logits, waveforms, strict=True):
            first = self._whole.index(waveform.tobytes()) / 4 / 16_000
            for place, (label, seconds) in enumerate(self._said):
                if 0 <= (heard := seconds + self._lag - first) < len(waveform) / 16_000:
                    frame = max(0, round((heard * 16_000 - GRID.centre) / GRID.stride))
                    row[frame : frame + 1 + place % 2, label] += 9 if place % 5 == 0 else 14
        return logits.log_softmax(-1), lengths


def knowing(tokenizer, waveform: np.ndarray, timed: espeak.Timed, lag: float = 0.0) -> Knowing:
    return Knowing(tokenizer, waveform, [(sound.text, (sound.start + sound.end) / 2 / 22050) for sound in timed.phonemes], lag)


@pytest.fixture(scope="module")
def spoken():
    with espeak.private_engine() as engine:
        timed = engine.speak_timed(TEXT, "ky+f3")
    return resample(timed.waveform, 22050), timed


@pytest.fixture(scope="module")
def phoneme_tokenizer():
    targets = PHONEMES([TEXT, "Чоң-Алай жөнүндө фильм"])
    return build_tokenizer([target.replace(" | ", " ") for target in targets], record=target_record([], **PHONEMES.record))


@pytest.mark.parametrize("lag", [0.0, 0.15, -0.1])
def test_times_are_those_of_espeak(spoken, phoneme_tokenizer, lag):
    waveform, timed = spoken
    found = Aligner(knowing(phoneme_tokenizer, waveform, timed, lag))(waveform, TEXT)
    assert [symbol.text for symbol in found.symbols] == [sound.text for sound in timed.phonemes]
    errors = [abs(symbol.start - sound.start / 22050) for symbol, sound in zip(found.symbols, timed.phonemes, strict=True)]
    assert np.median(errors) < 0.01
    assert np.mean(np.array(errors) < 0.05) > 0.9
    words = found.words
    assert [word.text for word in words] == ["Балдар", "бүгүн", "мектепке", "барышты,", "25", "ата", "келди", "Ал", "үйдө."]
    for word, sound in zip(words, timed.words, strict=True):
        assert word.start == pytest.approx(sound.start / 22050, abs=0.04)
        assert word.end == pytest.approx(sound.end / 22050, abs=0.06)
    for tier in (found.words, found.symbols):
        assert all(0 <= unit.start < unit.end <= found.duration and 0 < unit.confidence <= 1 for unit in tier)
        assert all(one.end <= other.start for one, other in pairwise(tier))
    assert found.text == TEXT
    assert found.duration == len(waveform) / 16_000
    assert (found.path, found.error) == (None, None)


def test_confidence_is_the_mean_of_a_words_symbols(spoken, phoneme_tokenizer):
    waveform, timed = spoken
    found = Aligner(knowing(phoneme_tokenizer, waveform, timed))(waveform, TEXT)
    sure = [symbol.confidence for symbol in found.symbols]
    assert max(sure[::5]) < min(sure[1:5])
    for word in found.words:
        inside = [symbol.confidence for symbol in found.symbols if word.start <= symbol.start and symbol.end <= word.end]
        assert word.confidence == pytest.approx(np.mean(inside))


def test_a_star_stands_for_what_the_text_leaves_out(spoken, phoneme_tokenizer):
    waveform, timed = spoken
    aligner = Aligner(knowing(phoneme_tokenizer, waveform, timed))
    whole = {word.text: word for word in aligner(waveform, TEXT).words}
    found = aligner(waveform, "* Балдар бүгүн * 25 ата *\nкелди * * Ал үйдө. *")
    assert [word.text for word in found.words] == ["Балдар", "бүгүн", "*", "25", "ата", "келди", "Ал", "үйдө."]
    star = found.words[2]
    assert star.confidence is None
    assert whole["мектепке"].start - 0.05 < star.start < whole["мектепке"].end
    assert whole["барышты,"].start < star.end < whole["25"].start + 0.05
    for word in found.words[:2] + found.words[3:]:
        assert word.start == pytest.approx(whole[word.text].start, abs=0.011)
    assert not {unit.text for unit in found.symbols} - set(phoneme_tokenizer.get_vocab())


def units_of(aligner: Aligner, text: str) -> list[tuple[str, str]]:
    """Return the words of a text, each with what the labels that are counted as its own decode to."""
    spelling = aligner._spell(text)
    pairs = [pair for pair in zip(spelling.owners, spelling.labels, strict=True) if pair[0] is not None]
    assert [owner for owner, _ in pairs] == sorted(owner for owner, _ in pairs)
    groups = {owner: [label for _, label in some] for owner, some in groupby(pairs, lambda pair: pair[0])}
    decode = lambda labels: "*" if labels == [STAR] else labels_to_text(labels, aligner.engine.tokenizer).strip()
    return [(spelling.words[owner], decode(labels)) for owner, labels in groups.items()]


def speller(tokenizer, **options) -> Aligner:
    return Aligner(SimpleNamespace(log_probs=None, tokenizer=tokenizer, blank=0), **options)


def test_words_own_the_phonemes_that_they_have_in_the_sentence(phoneme_tokenizer):
    found = dict(units_of(speller(phoneme_tokenizer), TEXT))
    assert found == {text: PHONEMES(text).replace(" | ", " ") for text in (*TEXT.replace("—", "").replace("келди", "").split(),)} | {
        "келди": "k e l d[ i"
    }
    # a hyphen makes one word of the text two of espeak's, or one
    assert units_of(speller(phoneme_tokenizer), "Чоң-Алай * ата") == [
        ("Чоң-Алай", PHONEMES("Чоң-Алай").replace(" | ", " ")),
        ("*", "*"),
        ("ата", "ɑ t[ ɑ"),
    ]


def test_words_of_english_that_change_among_others_keep_their_places():
    text = "I have to go to the end of an apple, and that is it."
    phonemes = Phonemizer("en-us")
    target = phonemes(text)
    tokenizer = build_tokenizer([target.replace(" | ", " ")], record=target_record([], **phonemes.record))
    found = units_of(speller(tokenizer), text)
    assert " ".join(symbols for _, symbols in found) == target.replace(" | ", " ")
    assert [word for word, _ in found] == [word for word in text.split() if word in dict(found)]
    assert dict(found)["apple,"] == phonemes("apple")


def test_characters_pieces_and_chinese():
    normalizer = Normalizer("kk")
    text = "Мен 25-ші мектепте — Алматыда оқимын!"
    target = normalizer(text)
    tokenizer = build_tokenizer([target], "character", record=target_record([], **normalizer.record))
    expected = [("Мен", "мен"), ("25-ші", normalizer("25-ші")), ("мектепте", "мектепте"), ("Алматыда", "алматыда"), ("оқимын!", "оқимын")]
    assert units_of(speller(tokenizer), text) == expected
    spelling = speller(tokenizer)._spell(f"{text}\n* мен * мен *")
    assert labels_to_text([label for label in spelling.labels if label != STAR], tokenizer) == f"{target} мен мен"
    pieces = build_tokenizer([target] * 3, "sentencepiece", vocab_size=25, record=target_record([], **normalizer.record))
    assert units_of(speller(pieces), text) == expected
    chinese = Normalizer("zh")
    characters = build_tokenizer([chinese("你好，我们走吧。")], "character", record=target_record([], **chinese.record))
    assert units_of(speller(characters), "你好，我们 * 走吧。") == [(char, char) for char in "你好我们*走吧"]


def test_a_model_with_capitals_and_no_record(tmp_path):
    vocabulary = {"<pad>": 0, "<unk>": 1, "|": 2, **{letter: place for place, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ'", 3)}}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    found = units_of(speller(tokenizer, language="en"), "Don't go, Ann.")
    assert [(word, symbols.upper()) for word, symbols in found] == [("Don't", "DON'T"), ("go,", "GO"), ("Ann.", "ANN")]
    with pytest.raises(ValueError, match="give the language"):
        speller(tokenizer)


def test_long_lines_are_read_in_parts(phoneme_tokenizer):
    text = " ".join(["Балдар бүгүн 25 ата"] * 80)
    units = units_of(speller(phoneme_tokenizer), text)
    assert [word for word, _ in units] == text.split()
    assert units[:4] * 80 == units


def test_a_recording_of_several_windows(spoken, phoneme_tokenizer, monkeypatch):
    waveform, timed = spoken
    noise = 1e-3 * np.random.default_rng(0).standard_normal(12 * (len(waveform) + 8000)).astype(np.float32)
    whole, starts, said = noise, range(4000, len(noise), len(waveform) + 8000), []
    for start in starts:
        whole[start : start + len(waveform)] += waveform
        said += [(sound.text, start / 16_000 + (sound.start + sound.end) / 2 / 22050) for sound in timed.phonemes]
    aligner = Aligner(Knowing(phoneme_tokenizer, whole, said, 0.06))
    found = aligner(whole, "\n".join([TEXT] * 12))
    assert found.duration > 50
    assert len(found.words) == 12 * len(timed.words)
    true = [start / 16_000 + word.start / 22050 for start in starts for word in timed.words]
    np.testing.assert_allclose([word.start for word in found.words], true, atol=0.06)
    # memory that does not grow with frames times labels gives the same
    monkeypatch.setattr(alignment, "_WHOLE", 0)
    assert aligner(whole, "\n".join([TEXT] * 12)).words == found.words


def test_the_text_grid_is_read_back(spoken, phoneme_tokenizer, tmp_path):
    praatio = pytest.importorskip("praatio.textgrid", reason="praatio (extra dev) is not installed")
    waveform, timed = spoken
    found = Aligner(knowing(phoneme_tokenizer, waveform, timed))(waveform, TEXT)
    path = tmp_path / "speech.TextGrid"
    path.write_text(render(found, "textgrid", symbols="phonemes"), encoding="utf-8")
    read = praatio.openTextgrid(str(path), includeEmptyIntervals=True)
    assert read.tierNames == ("words", "phonemes")
    assert read.maxTimestamp == pytest.approx(found.duration, abs=1e-6)
    for tier, units in (("words", found.words), ("phonemes", found.symbols)):
        entries = read.getTier(tier).entries
        assert all(one.end == other.start for one, other in pairwise(entries))
        said = [(entry.label, entry.start, entry.end) for entry in entries if entry.label]
        assert said == [(unit.text, pytest.approx(unit.start, abs=1e-6), pytest.approx(unit.end, abs=1e-6)) for unit in units]


def test_what_cannot_be_aligned_is_said(spoken, phoneme_tokenizer, tmp_path):
    waveform, timed = spoken
    aligner = Aligner(knowing(phoneme_tokenizer, waveform, timed))
    for text in ("", " \n", "— !", "* *"):
        with pytest.raises(ValueError, match="no word that can be said"):
            aligner(waveform, text)
    with pytest.raises(ValueError, match=r"cannot spell цирк: it has no output for ts; write those words"):
        aligner(waveform, "Ал «цирк», ал.")
    path = tmp_path / "short.wav"
    write_audio(path, waveform[:8000])
    short = Aligner(knowing(phoneme_tokenizer, hfasr.load_audio(path), timed))
    with pytest.raises(ValueError, match=r"short.wav, 0.50 s: the text is too long for the audio: its \d+ symbols need"):
        short(path, TEXT)
    with pytest.raises(FileNotFoundError, match="nowhere.wav"):
        aligner("nowhere.wav", TEXT)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="short.wav: the file is empty"):
        aligner(path, TEXT)
    with pytest.raises(TypeError, match="expected the text as a string, found list"):
        aligner(waveform, [TEXT])


def test_a_real_model_through_the_public_name(checkpoint, recordings):
    found = hfasr.align(recordings / "z.wav", "Ал келди", checkpoint, language="ky")
    assert hfasr.align is align
    assert found.path == str(recordings / "z.wav")
    assert [word.text for word in found.words] == ["Ал", "келди"]
    assert [symbol.text for symbol in found.symbols] == [*"алкелди"]
    assert found.duration == 1.0
