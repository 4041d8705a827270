"""Text -> units of a language model, and `hfasr lm` as a user runs it."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from hfasr.decoding.lm_text import iter_text, iter_units
from hfasr.text.normalize import Normalizer
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer, target_record

LINES = ["Ал келди.", "", "Ал — барды!", "бала келди", "ал бала"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return the folders of two tokenizers that say how their targets were made: of Kyrgyz characters and phonemes."""
    folder = tmp_path_factory.mktemp("models")
    for unit, maker in (("character", Normalizer("ky")), ("phoneme", Phonemizer("ky", normalizer=Normalizer("ky")))):
        targets = maker(LINES)
        build_tokenizer(targets, unit, record=target_record(targets, **maker.record)).save_pretrained(folder / unit)
    return folder


def unigrams(path: Path) -> set[str]:
    section = path.read_text(encoding="utf-8").partition("\\1-grams:\n")[2].partition("\n\n")[0]
    return {line.split("\t")[1] for line in section.split("\n")} - {"<unk>", "<s>", "</s>"}


@pytest.fixture
def run(verb):
    """Run `hfasr lm`; return what it printed, or where it is to fail what it said."""

    def run(*words: object, status: int = 0) -> str:
        found, printed, told = verb("lm", *words)
        assert found == status, told
        return told if status else printed

    return run


def test_units_of_plain_text(caplog):
    assert list(iter_units(["ал  бала", " ", "a"])) == ["ал бала", "a"]
    assert list(iter_units(["ал  бала"], "character")) == ["а л | б а л а"]
    assert list(iter_units(["ɑ l | k e"], "phoneme")) == ["ɑ l | k e"]
    assert list(iter_units(["Ал — келди!"], make_target=Normalizer("ky"))) == ["ал келди"]
    assert list(iter_units(["Ал келди."], "phoneme", make_target=Phonemizer("ky"))) == ["ɑ l | k e l d[ i"]
    with pytest.raises(ValueError, match="no unit 'letter'; give one of word, character, phoneme"):
        list(iter_units([], "letter"))


def test_units_are_the_symbols_of_the_tokenizer(caplog):
    texts = ["ал бала келди", "бала барды", "ал"] * 20
    characters = build_tokenizer(texts, "character")
    assert list(iter_units(["бал рыба"], "character", tokenizer=characters)) == ["б а л | р ы б а"]
    pieces = build_tokenizer(texts, "sentencepiece", vocab_size=15)
    (line,) = iter_units(["бала барды"], "character", tokenizer=pieces)
    assert set(line.split()) <= set(pieces.get_vocab())
    assert "".join(line.split()).replace("▁", " ") == " бала барды"
    unbroken = build_tokenizer(["ɑ l k e"], "phoneme")
    assert list(iter_units(["ɑ l k", "k e"], "phoneme", tokenizer=unbroken)) == ["ɑ l k", "k e"]


def test_lines_that_the_model_cannot_spell_are_left_out_and_said(caplog):
    tokenizer = build_tokenizer(["ал бала"], "character")
    assert list(iter_units(["ал", "ал wow", "бал"], "character", tokenizer=tokenizer)) == ["а л", "б а л"]
    assert "1 lines hold symbols that the model lacks: w o; they are left out" in caplog.text
    with pytest.raises(ValueError, match="all 2 lines hold symbols that the model lacks: o w; is it text of its language"):
        list(iter_units(["wo", "o"], "character", tokenizer=tokenizer))


def test_files_are_read_line_by_line(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes("\ufeffал\r\nб\u2028в\n".encode())
    (tmp_path / "b").write_bytes(b"c")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"d\n")))
    assert list(iter_text([str(tmp_path / "a"), str(tmp_path / "b"), "-"])) == ["ал", "б\u2028в", "c", "d"]
    (tmp_path / "c").write_bytes(b"good\nb\xffd\n")
    with pytest.raises(ValueError, match=r"c, line 2: byte 0xff is not UTF-8"):
        list(iter_text([str(tmp_path / "c")]))
    with pytest.raises(FileNotFoundError, match="no such text: .*nothing"):
        list(iter_text([str(tmp_path / "nothing")]))
    with pytest.raises(ValueError, match="is a folder"):
        list(iter_text([str(tmp_path)]))


def test_verb_for_words(tmp_path, run):
    text, arpa = tmp_path / "text", tmp_path / "x.arpa"
    text.write_text("\n".join(LINES), encoding="utf-8")
    shown = run(text, "-o", arpa, "--order", 2)
    assert shown.splitlines()[-1] == f"written: {arpa}"
    assert shown.split()[:2] == ["1-grams", "10"]
    assert "Ал" in unigrams(arpa)
    run(text, "-o", arpa, "--language", "ky", "--prune", "0 1")
    assert unigrams(arpa) == {"ал", "келди", "барды", "бала"}


def test_verb_for_the_symbols_of_a_model(checkpoint, tmp_path, run):
    text, arpa = tmp_path / "text", tmp_path / "x.arpa"
    text.write_text("\n".join(LINES), encoding="utf-8")
    run(text, "-o", arpa, "--model", checkpoint / "character", "--order", 4)
    assert unigrams(arpa) == {*"алкедибры|"}
    run(text, "-o", arpa, "--model", checkpoint / "phoneme")
    assert unigrams(arpa) == {*Phonemizer("ky")(" ".join(LINES)).split()}
    run(text, "-o", arpa, "--model", checkpoint / "phoneme", "--unit", "word")
    assert unigrams(arpa) == {"ал", "келди", "барды", "бала"}
    message = run(text, "-o", arpa, "--model", checkpoint / "character", "--unit", "phoneme", status=2)
    assert "the model was trained on characters" in message


def test_verb_does_not_write_over_its_text(tmp_path, run):
    text = tmp_path / "text"
    text.write_text("a b\n", encoding="utf-8")
    assert "is the text that is read; give another name" in run(text, "-o", text, status=2)
    assert text.read_text("utf-8") == "a b\n"


def test_verb_from_a_pipe(tmp_path):
    hfasr = Path(sys.executable).with_name("hfasr")
    words = [hfasr, "lm", "-", "-o", tmp_path / "x.arpa", "--unit", "character", "--order", "2"]
    subprocess.run(words, input="ал бала\n".encode(), capture_output=True, check=True)
    assert unigrams(tmp_path / "x.arpa") == {*"алб|"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--order", 7], "--order is 7; KenLM's packages, by which recognition reads the file, take 2 to 6"),
        (["--order", 1], "--order is 1"),
        (["--prune", "0 x"], "--prune is '0 x'; give counts such as '0 0 1'"),
        (["--prune", "1 0"], "prune is 1 0"),
        (["--unit", "letter"], "there is no unit 'letter'"),
        (["--lexicon", "words.tsv"], "--lexicon has the pronunciations of phonemes"),
        (["-o", "/nowhere/at/x.arpa"], "cannot write /nowhere/at/x.arpa: its folder does not exist"),
    ],
)
def test_verb_refuses(options, message, tmp_path, run):
    text = tmp_path / "text"
    text.write_text("a b\n", encoding="utf-8")
    found = run(text, "-o", tmp_path / "x.arpa", *options, status=2)
    assert message in found
    assert not (tmp_path / "x.arpa").exists()
