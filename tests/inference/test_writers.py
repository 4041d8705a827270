import html
import itertools
import json
import random
import re

import pytest

from hfasr.inference.transcript import Reading, Transcript, Unit
from hfasr.inference.writers import FORMATS, as_record, check_formats, from_record, render, write_transcript

SAID = Transcript(
    'ал "келди" <b> & ү',
    "corpus/a.b.wav",
    5.0,
    words=(
        Unit("ал", 0.1, 0.3, 0.987654321),
        Unit('"келди"', 0.3, 0.9, 0.5),
        Unit("<b>", 0.95, 1.0, None),
        Unit("&", 1.0, 1.0, 0.25),
        Unit("ү", 4.9, 5.1, 1.0),
    ),
    symbols=(Unit("ɑ", 0.1, 0.2, 0.9), Unit("l", 0.2, 0.3, 0.9)),
    readings=(Reading("ал келди", -1.25), Reading("ал кел", -3.5)),
)


def spoken(seed: int, number: int, letters: int = 12) -> Transcript:
    """Return words of random length with pauses, some long."""
    draw, time, words = random.Random(seed), 0.0, []
    for _ in range(number):
        time += draw.choice([0.0, 0.02, 0.1, 0.4]) if draw.random() < 0.95 else draw.uniform(0.8, 5)
        end = time + draw.uniform(0.05, 0.6)
        words.append(Unit("".join(draw.choices("abcdefgh", k=draw.randint(1, letters))), time, end))
        time = end
    return Transcript(" ".join(word.text for word in words), None, time + 1, words=tuple(words))


def cues(text: str, point: str) -> list[tuple[float, float, list[str]]]:
    """Read cues by their format's rules: blocks split by empty lines, `hh:mm:ss.mmm --> hh:mm:ss.mmm`, lines of text."""
    clock = rf"(\d\d+):([0-5]\d):([0-5]\d)\{point}(\d\d\d)"
    found = []
    for number, block in enumerate(filter(None, text.split("\n\n")), 1):
        lines = block.strip("\n").split("\n")
        if point == ",":
            assert lines.pop(0) == str(number)
        times = re.fullmatch(f"{clock} --> {clock}", lines.pop(0)).groups()
        begin, end = (int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000 for h, m, s, ms in (times[:4], times[4:]))
        found.append((begin, end, lines))
    return found


def srt(transcript: Transcript) -> list[tuple[float, float, list[str]]]:
    return cues(render(transcript, "srt"), ",")


def test_formats_are_named_and_others_refused():
    assert check_formats("txt, SRT,txt,") == ("txt", "srt")
    assert check_formats(",".join(FORMATS)) == FORMATS
    for text, name in (("txt,docx", "'docx'"), ("", "''"), (",", "','")):
        with pytest.raises(ValueError, match=f"no format {name}; give some of txt,jsonl,srt,vtt,textgrid,ctm"):
            check_formats(text)
    with pytest.raises(ValueError, match="no format 'text'"):
        render(SAID, "text")


def test_a_record_is_read_back():
    line = render(SAID, "jsonl")
    assert line.count("\n") == 1
    assert json.loads(line) == as_record(SAID)
    found = from_record(json.loads(line))
    assert as_record(found) == as_record(SAID)
    assert (found.text, found.path, found.readings, len(found.words)) == (SAID.text, SAID.path, SAID.readings, 5)
    assert found.words[0].confidence == pytest.approx(SAID.words[0].confidence, abs=1e-6)
    assert found.words[2].confidence is None
    unread = Transcript("", "x.wav", 0.0, "x.wav is empty")
    assert from_record(json.loads(render(unread, "jsonl"))) == unread


def test_praat_reads_the_textgrid(tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid", reason="praatio is not installed (extra dev)")
    longer = spoken(1, 200)
    for name, transcript in (("a.b", SAID), ("long", longer), ("silent", Transcript("", None, 2.5))):
        (file,) = write_transcript(tmp_path / "made" / name, transcript, ["textgrid"], symbols="phonemes")
        assert file.name == f"{name}.TextGrid"
        grid = textgrid.openTextgrid(str(file), includeEmptyIntervals=True, reportingMode="error")
        assert grid.tierNames == ("words", "phonemes")
        assert (grid.minTimestamp, grid.maxTimestamp) == (0, pytest.approx(transcript.duration))
        for tier, units in (("words", transcript.words), ("phonemes", transcript.symbols)):
            entries = grid.getTier(tier).entries
            assert entries[0].start == 0
            assert entries[-1].end == pytest.approx(transcript.duration)
            for before, after in itertools.pairwise(entries):
                assert before.end == after.start
                assert before.start < before.end
                assert before.label or after.label
            filled = [entry for entry in entries if entry.label]
            # praatio leaves doubled quotes as they stand in the file
            assert [entry.label.replace('""', '"') for entry in filled] == [unit.text for unit in units]
            for entry, unit in zip(filled, units, strict=True):
                assert entry.start == pytest.approx(unit.start, abs=2e-6)
                assert entry.end == pytest.approx(min(max(unit.end, unit.start + 0.001), transcript.duration), abs=2e-6)


def test_subtitles_keep_to_their_limits_and_hold_every_word_while_it_is_said():
    for seed in range(20):
        transcript = spoken(seed, 150)
        found = srt(transcript)
        assert " ".join(" ".join(lines) for _, _, lines in found) == transcript.text
        words = iter(transcript.words)
        for (begin, end, lines), following in zip(found, [*found[1:], None], strict=True):
            assert len(lines) <= 2
            assert all(0 < len(line) <= 42 for line in lines)
            assert 0 < end - begin <= 7.0005
            assert following is None or end <= following[0]
            assert end - begin >= 0.9995 or following is None or end == following[0]
            shown = [next(words) for _ in " ".join(lines).split()]
            assert begin == pytest.approx(shown[0].start, abs=0.002)
            assert shown[-1].end <= end + 0.002
            # a pause is not within a cue
            assert all(after.start - before.end < 0.702 for before, after in itertools.pairwise(shown))


def test_a_full_cue_ends_at_the_longest_pause_of_its_second_half():
    starts = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.3, 3.8, 4.3, 4.8]
    words = tuple(Unit("nineteen", start, start + 0.45) for start in starts)
    found = srt(Transcript(" ".join(["nineteen"] * 10), None, 6.0, words=words))
    assert [(begin, len(" ".join(lines).split())) for begin, _, lines in found] == [(0.0, 6), (3.3, 4)]


def test_vtt_is_escaped_and_else_as_srt():
    text = render(SAID, "vtt")
    assert text.startswith("WEBVTT\n\n")
    found = cues(text.removeprefix("WEBVTT\n\n"), ".")
    assert [(begin, end) for begin, end, _ in found] == [(begin, end) for begin, end, _ in srt(SAID)]
    assert "&lt;b&gt; &amp;" in text
    assert html.unescape(" ".join(line for _, _, lines in found for line in lines)) == SAID.text
    assert render(Transcript("", None, 1.0), "vtt") == "WEBVTT\n"
    assert render(Transcript("", None, 1.0), "srt") == ""


def test_subtitles_of_text_as_the_model_writes_it():
    # what stands between words in the text stays: bars between phonemes, nothing between Chinese characters, which are wide
    phonemes = (Unit("ɑ l", 0, 0.2), Unit("k e", 0.2, 0.4))
    assert srt(Transcript("ɑ l | k e", None, 2.0, words=phonemes)) == [(0.0, 1.0, ["ɑ l | k e"])]
    characters = tuple(Unit("你", place / 10, place / 10 + 0.1) for place in range(60))
    lines = [line for _, _, lines in srt(Transcript("你" * 60, None, 6.0, words=characters)) for line in lines]
    assert "".join(lines) == "你" * 60
    assert max(map(len, lines)) == 21
    # words that the text does not hold
    assert srt(Transcript("changed", None, 2.0, words=phonemes))[0][2] == ["ɑ l k e"]


def test_subtitles_without_times_of_words_are_spread_over_the_recording():
    for text in ("nineteen " * 40, "你" * 300):
        found = srt(Transcript(text.strip(), None, 60.0))
        assert "".join("".join(lines) for _, _, lines in found).replace(" ", "") == text.replace(" ", "")
        assert found[0][0] == 0
        assert all(len(lines) <= 2 and 0 < end - begin <= 7.0005 for begin, end, lines in found)
        assert all(after[0] >= before[1] for before, after in itertools.pairwise(found))


def test_line_breaks_within_the_text_end_no_cue():
    words = (Unit("a\n\nb", 0, 1), Unit("c\x85d", 1, 2))
    assert srt(Transcript("a\n\nb c\x85d", None, 3.0, words=words)) == [(0.0, 2.0, ["a b c d"])]


def test_hours():
    found = render(Transcript("late", None, 400_000.0, words=(Unit("late", 363_661.5, 363_663.25),)), "srt")
    assert "101:01:01,500 --> 101:01:03,250" in found


def test_ctm_has_fields_without_spaces(tmp_path):
    said = Transcript("ɑ l k e", "my talk.wav", 2.0, words=(Unit("ɑ l", 0.1, 0.3, 0.5), Unit("k e", 0.3004, 1.0, None)))
    assert render(said, "ctm") == "my_talk 1 0.100 0.200 ɑ_l 0.5000\nmy_talk 1 0.300 0.700 k_e\n"
    (file,) = write_transcript(tmp_path / "talk 1.5", said, ["ctm"])
    assert file.name == "talk 1.5.ctm"
    assert {line.split()[0] for line in file.read_text().splitlines()} == {"talk_1.5"}
    end = 0.0
    for line in render(spoken(3, 300), "ctm", name="x").splitlines():
        name, channel, start, duration, _ = line.split()
        assert (name, channel) == ("x", "1")
        assert float(start) >= end - 1e-9
        end = float(start) + float(duration)


def test_files_are_whole_and_of_every_format(tmp_path):
    files = write_transcript(tmp_path / "in" / "a.b", SAID, FORMATS)
    assert [file.name for file in files] == ["a.b.txt", "a.b.jsonl", "a.b.srt", "a.b.vtt", "a.b.TextGrid", "a.b.ctm"]
    assert sorted(files) == sorted((tmp_path / "in").iterdir())
    assert files[0].read_text(encoding="utf-8") == SAID.text + "\n"
