import json
import math
import random
from collections import Counter

import numpy as np
import pytest
import soundfile
from datasets import DatasetDict

from hfasr.audio import write_audio
from hfasr.corpora.inspection.summary import describe, inspect
from hfasr.corpora.inspection.symbols import mixed_words, script_of
from hfasr.corpora.inspection.text import shown, table
from hfasr.corpora.rows import build_rows, decoded
from hfasr.corpora.synthetic import ky
from hfasr.paths import segment_path


def record(name: str, text: str | None, seconds: float | None, speaker: str | None = "s", path: str | None = None, **more) -> dict:
    row = {
        "id": name,
        "audio": {"path": path or f"/nowhere/{name}.wav", "bytes": None},
        "text": text,
        "duration": math.nan if seconds is None else seconds,
    }
    return row | {"speaker": speaker, "gender": None, "accent": None, "source": "toy"} | more


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    rng = random.Random(5)
    return list(dict.fromkeys(ky.sentence(rng) for _ in range(600)))[:400]


@pytest.fixture(scope="module")
def corpus(sentences) -> DatasetDict:
    """400 usual rows, spoken at 12 to 14 characters per second, and one row for each thing that can be wrong."""
    usual = [record(f"ok{n}", text, len(text) / (12 + n % 3), speaker=f"s{n % 4}") for n, text in enumerate(sentences)]
    planted = [
        record("fast", "бул абдан узун сүйлөм болчу, бирок үзүлүп калган", 0.9),
        record("slow", "кыска сөз", 25.0),
        record("answer", "ооба", 1.6),
        record("empty", "—", 2.0),
        record("missing", None, 2.0),
        record("latin", "сeн келдиң", 0.8),
        record("kazakh", "мен қайттым", 0.9),
        record("again", "ал келди келди келди", 1.6),
        record("letters", "жооок дедиии дедим", 1.4),
        record("longletters", "жоооок деди", 0.9),
        record("digits", "ал 25 китеп алды", 1.2),
        record("remark", "ал [күлкү] келди", 1.2),
        record("wrong", "ал кел\ufffdи дейт", 1.1),
        record("hidden", "ал кел\u200bди дейт", 1.1),
        record("unknown", "ал эртең келет", None),
        record("long", " ".join(["сөз сүйлөм китеп дептер"] * 20), 35.0),
        record("short", "ал", 0.15),
    ]
    return DatasetDict(train=build_rows(usual + planted), test=build_rows([record("t0", "эң акыркы сүйлөм ушул", 1.6)]))


@pytest.fixture(scope="module")
def found(corpus):
    return inspect(corpus, language="ky", worst=1000)


def marks(inspection) -> dict[str, set[str]]:
    """Return row id -> why it is suspicious."""
    return {row["id"]: set(row["reasons"]) for row in inspection.suspicious}


def test_describe_adds_up(corpus):
    described = describe(corpus)
    seconds = [row["duration"] for row in corpus["train"].remove_columns("audio") if row["duration"] == row["duration"]]
    assert described["train"]["hours"] == pytest.approx(sum(seconds) / 3600, abs=1e-4)
    assert described["train"]["speakers"] == 5
    assert describe(corpus)["test"] == {"utterances": 1, "hours": round(1.6 / 3600, 4), "speakers": 1}
    assert describe(DatasetDict(train=corpus["train"].select([3, 7]).remove_columns("speaker")))["train"]["speakers"] is None


def test_planted_rows_are_found_and_no_usual_one(found):
    reasons = marks(found)
    assert not [name for name in reasons if name.startswith(("ok", "t0"))]
    assert set(reasons) == {
        "fast", "slow", "empty", "missing", "latin", "kazakh", "again", "longletters", "digits", "remark", "wrong", "hidden", "unknown",
        "long", "short",
    }  # fmt: skip
    assert reasons["empty"] == reasons["missing"] == {"no words"}
    assert reasons["latin"] == {"outside the alphabet: e (latin small letter e, looks like е)", "two scripts in сeн"}
    assert reasons["kazakh"] == {"outside the alphabet: қ (cyrillic small letter ka with descender)"}
    assert reasons["again"] == {"repeated: келди 3 times"}
    assert reasons["longletters"] == {"repeated: оооо"}
    assert reasons["digits"] == {"digits: 25"}
    assert reasons["remark"] == {"brackets: [күлкү]"}
    assert reasons["wrong"] == {"broken characters"}
    assert reasons["unknown"] == {"duration unknown"}
    assert any(reason.startswith("53.3 characters per second, usual are ") for reason in reasons["fast"])
    assert any(reason.startswith("0.4 characters per second, usual are ") for reason in reasons["slow"])


def test_the_most_suspicious_come_first(found):
    scores = [row["score"] for row in found.suspicious]
    assert scores == sorted(scores, reverse=True)
    assert {row["id"] for row in found.suspicious[:3]} == {"empty", "missing", "fast"}
    assert found.reasons["slow"]["rows"] == 1
    assert found.reasons["slow"]["examples"][0]["id"] == "slow"


def test_alphabet_is_counted_as_by_hand(corpus, found, sentences):
    texts = [text or "" for split in ("train", "test") for text in corpus[split]["text"]]
    counts = Counter("".join(texts))
    assert {each["symbol"]: each["count"] for each in found.alphabet} == dict(counts)
    assert {each["symbol"]: each["rows"] for each in found.alphabet} == {symbol: sum(symbol in text for text in texts) for symbol in counts}
    by_symbol = {each["symbol"]: each for each in found.alphabet}
    assert by_symbol["e"]["mark"] == "outside, looks like е"
    assert by_symbol["e"]["example"] == "latin"
    assert by_symbol["қ"]["mark"] == "outside"
    assert by_symbol["ө"] | {"count": 0, "rows": 0, "example": ""} == {
        "symbol": "ө", "name": "cyrillic small letter barred o", "script": "Cyrillic", "kind": "letter", "count": 0, "rows": 0, "mark": "",
        "example": "",
    }  # fmt: skip
    assert set(found.unused) == {letter for letter in "абвгдеёжзийклмнопрстуфхцчшщъыьэюяңөү" if letter not in "".join(texts).lower()}


def test_quantiles_and_splits(corpus, found):
    durations = np.array(list(corpus["train"]["duration"]))
    train = found.splits["train"]
    assert train["unknown_durations"] == 1
    assert train["duration"]["median"] == pytest.approx(np.nanmedian(durations), abs=1e-3)
    assert train["duration"]["max"] == 35.0
    assert 12 <= train["characters_per_second"]["median"] <= 14
    assert found.splits["test"]["suspicious"] == 0
    assert found.speakers["count"] == 5


def test_without_a_language_what_is_rare_stands_out(corpus, sentences):
    many = [record(f"m{n}", text, len(text) / 13) for n, text in enumerate(sentences * 8)]
    texts = {"latin": "ал Zoom менен", "rare": "ал ѳзү келди"}
    rows = many + [record(name, text, len(text) / 13) for name, text in texts.items()]
    inspection = inspect(DatasetDict(train=build_rows(rows)), worst=5000)
    assert {row["id"]: row["reasons"] for row in inspection.suspicious if row["id"] in texts} == {
        "latin": ["outside the alphabet: Z (latin capital letter z), o (latin small letter o), m (latin small letter m)"],
        "rare": ["rare: ѳ"],
    }
    assert inspection.language is None


def test_headers_are_read_wherever_the_audio_is(tmp_path):
    waveform = np.zeros(16_000, np.float32)
    write_audio(tmp_path / "a.flac", waveform)
    soundfile.write(tmp_path / "b.wav", np.zeros((44_100, 2)), 44_100)
    (tmp_path / "c.wav").write_bytes(b"no audio at all")
    flac = (tmp_path / "a.flac").read_bytes()
    rows = [
        record("flac", "а", 1.0, path=str(tmp_path / "a.flac")),
        record("stereo", "б", 3.0, path=str(tmp_path / "b.wav")),
        record("segment", "в", 0.5, path=segment_path(tmp_path / "b.wav", 0.2, 0.7)),
        record("bytes", "г", 1.0) | {"audio": {"path": "a.flac", "bytes": flac}},
        record("bad", "д", None, path=str(tmp_path / "c.wav")),
        record("gone", "е", None, path=str(tmp_path / "d.wav")),
    ]
    corpus = decoded(DatasetDict(train=build_rows(rows)))
    files = inspect(corpus).files
    assert files["formats"] == {"FLAC PCM_16": 2, "WAV PCM_16": 2}
    assert files["sampling_rates"] == {16_000: 2, 44_100: 2}
    assert files["channels"] == {1: 2, 2: 2}
    assert files["other_durations"] == 1
    assert files["unreadable"] == 2
    assert {each["id"] for each in files["examples"]} == {"bad", "gone"}
    assert inspect(corpus, headers=2).files["sampled"] == 2
    assert inspect(DatasetDict(train=corpus["train"].select([1, 0]))).files["unreadable"] == 0


def test_problems_of_the_loader_are_counted_and_their_rows_marked(corpus):
    problems = [
        {"problem": "audio without transcript", "name": "x/1.wav", "reason": ""},
        {"problem": "audio without transcript", "name": "x/2.wav", "reason": ""},
        {"problem": "audio cannot be read", "split": "train", "name": "ok3", "reason": "ok3.wav: the file is empty (0 bytes)"},
        {"split": "train", "id": "ok4", "path": "/a.wav", "reason": "silent, every sample is zero"},
    ]
    inspection = inspect(corpus, problems=problems, worst=1000)
    assert inspection.problems["audio without transcript"]["count"] == 2
    found = marks(inspection)
    elsewhere = inspect(DatasetDict(test=corpus["train"]), problems=problems)  # the same ids in another split
    assert "bad" not in {name for name, count in elsewhere.suspicion.counts().items() if count}
    assert found["ok3"] == {"ok3.wav: the file is empty (0 bytes)"}
    assert found["ok4"] == {"silent, every sample is zero"}
    report = str(inspection)
    assert "2 x audio without transcript" in report
    assert "x/1.wav" in report


def test_doubles_and_leaks_are_marked_with_what_they_repeat():
    train = [
        record("a", "Ал келди.", 1.0),
        record("b", "ал, келди", 1.1),
        record("c", "Биз китепканадан кызыктуу китеп алдык", 3.0),
        record("d", "Биз китепканадан кызыктуу китеп алдым", 3.0, speaker="t"),
        record("a", "Мен кеттим", 1.0, path="/nowhere/c.wav", speaker="u"),
        record("f", "ал келди", 1.0, speaker="v"),
    ]
    test = [record("g", "АЛ КEЛДИ!", 1.0, speaker="w"), record("h", "Жаңы сүйлөм", 1.0, speaker="u")]
    corpus = DatasetDict(test=build_rows(test), train=build_rows(train))
    inspection = inspect(corpus, language="ky", near=True)
    found = {(row["split"], row["id"], row["text"]): row["reasons"] for row in inspection.suspicious}
    assert found == {
        ("train", "b", "ал, келди"): ["the same speaker said this sentence in an earlier row"],
        ("train", "d", "Биз китепканадан кызыктуу китеп алдым"): ["nearly the sentence of another row"],
        ("train", "a", "Мен кеттим"): ["the id of an earlier row, the recording of an earlier row"],
        ("test", "g", "АЛ КEЛДИ!"): [
            "the same sentence as a of train", "outside the alphabet: E (latin capital letter e, looks like Е)", "two scripts in КEЛДИ",
        ],
    }  # fmt: skip
    data = inspection.as_dict()
    assert data["leaks"]["test"]["sentence_rows"] == 1
    assert data["leaks"]["test"]["speakers"] == 1
    assert data["duplicates"]["train"]["ids"]["rows"] == 1
    assert "Leaks: what train shares" in str(inspection)
    assert "Leaks: train shares no sentence" in str(inspect(DatasetDict(train=corpus["train"], test=corpus["test"].select([]))))


def test_what_the_normalizer_would_change(found):
    rules = found.as_dict()["normalized"]["rules"]
    assert rules["look-alikes"]["kinds"] == {"e → е": 1}
    assert rules["look-alikes"]["examples"] == [("сeн келдиң", "сен келдиң")]
    report = str(found)
    assert "Normalizer('ky') would change" in report
    assert "      ал 25 китеп алды\n    = ал жыйырма беш китеп алды\n" in report


def test_plain_data_and_a_report_that_fits_the_terminal(found):
    data = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert data["leaks"]["test"]["rows"] == 1
    assert data["splits"]["train"]["utterances"] == len(found.suspicion.marks) - 1
    assert "suspicion" not in data
    report = str(found)
    for wanted in ("Too much text: 1 row", "outside, looks like е", "⟨U+200B⟩", "characters per second, usual are", "No words: 2 rows"):
        assert wanted in report
    assert max(map(len, report.splitlines())) <= 100
    assert len(report.splitlines()) <= 90


def test_selections_and_odd_corpora(corpus):
    rows = corpus["train"].select(range(399, 417))
    inspection = inspect(DatasetDict(train=rows, empty=corpus["train"].select([])), language="ky")
    assert inspection.splits["empty"]["utterances"] == 0
    assert {row["id"] for row in inspection.suspicious} > {"latin", "hidden", "short"}
    assert str(inspection)
    nothing = [record(str(n), "", None, speaker=None) for n in range(3)]
    assert "3 rows" in str(inspect(DatasetDict(train=build_rows(nothing))))
    with pytest.raises(ValueError, match="no rows"):
        inspect(DatasetDict(train=corpus["train"].select([])))
    with pytest.raises(TypeError, match="DatasetDict"):
        inspect(corpus["train"])


def test_chinese_has_no_letter_that_is_rare():
    han = [chr(0x4E00 + n) for n in range(3000)]
    rows = [record(str(n), "".join(han[n : n + 12]), 3.0) for n in range(2900)] + [record("latin", "我用ChatGPT写字的时候好", 3.0)]
    inspection = inspect(DatasetDict(train=build_rows(rows)), language="zh")
    assert [row["id"] for row in inspection.suspicious] == ["latin"]
    assert inspection.suspicious[0]["reasons"][0].startswith("outside the alphabet: C (latin capital letter c), h (latin small letter h)")
    assert max(map(len, str(inspection).splitlines())) <= 100


def test_turkish_capitals_and_apostrophes():
    texts = ["İstanbulʼda IŞIK", "çok güzel"] * 30
    inspection = inspect(DatasetDict(train=build_rows([record(str(n), text, 1.0 + n / 60) for n, text in enumerate(texts)])), language="tr")
    assert not {"foreign", "rare", "mixed"} & set(inspection.reasons)
    assert {"i", "ı", "ş", "k"}.isdisjoint(inspection.unused)
    assert {"ö", "ğ", "h"} <= set(inspection.unused)


def test_scripts_and_words():
    assert script_of("ө") == "Cyrillic"
    assert script_of("Ａ") == "Latin"
    assert script_of("字") == "Han"
    assert script_of("ʼ") == script_of("7") == script_of("\u0301") == ""
    assert mixed_words("Ал кeлди, API-кызмат") == ["кeлди"]
    assert mixed_words("日本語のテキスト") == []
    assert shown("a\u200bb\tc\u0301") == "a⟨U+200B⟩b c\u0301"
    assert table([("я", 1), ("字字", 22)], indent="") == "я      1\n字字  22"


def test_every_kind_of_repetition_agrees_with_a_slow_count():
    rng = random.Random(2)
    texts = ["".join(rng.choices("аб в", k=rng.randrange(0, 14))) for _ in range(3000)]
    inspection = inspect(DatasetDict(train=build_rows([record(str(n), text, 1.0) for n, text in enumerate(texts)])), worst=3000)
    found = {row["id"] for row in inspection.suspicious if any(reason.startswith("repeated: ") for reason in row["reasons"])}

    def repeats(text: str) -> bool:
        words = text.split()
        thrice = any(len(words[n]) > 1 and words[n] == words[n + 1] == words[n + 2] for n in range(len(words) - 2))
        return thrice or any(letter * 4 in text for letter in "абв")

    assert found == {str(n) for n, text in enumerate(texts) if repeats(text)}
    assert found
