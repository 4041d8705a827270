"""A tokenizer's record -> what made its targets, and what is refused because symbols would mean something else."""

import pytest
from transformers import Wav2Vec2CTCTokenizer

from hfasr.text.normalize import Normalizer
from hfasr.text.phonemize import Phonemizer
from hfasr.text.targets import is_recorded, target_maker
from hfasr.text.vocabulary import build_tokenizer, target_record

TEXTS = ["Ал — 5 китеп!", "Чоң-ата (күлкү) келди."]


def _tokenizer(maker, unit: str, tmp_path):
    """Save and load, as a checkpoint does."""
    targets = maker(TEXTS)
    tokenizer = build_tokenizer(
        targets, unit, vocab_size=17 if unit == "sentencepiece" else None, record=target_record(targets, **maker.record)
    )
    tokenizer.save_pretrained(tmp_path)
    return type(tokenizer).from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("unit", "maker"),
    [
        ("phoneme", Phonemizer("ky")),
        ("phoneme", Phonemizer("ky", word_bars=False)),
        ("phoneme", Phonemizer("ky", normalizer=Normalizer("ky", numbers="keep"))),
        ("character", Normalizer("ky")),
        ("character", Normalizer("ky", numbers="drop")),
        ("character", Normalizer("kk", numbers="keep")),
        ("sentencepiece", Normalizer("ky")),
    ],
)
def test_makes_the_same_targets_again(unit, maker, tmp_path):
    tokenizer = _tokenizer(maker, unit, tmp_path)
    assert is_recorded(tokenizer)
    again = target_maker(tokenizer)
    assert again(TEXTS) == maker(TEXTS)
    assert again.record == maker.record
    with pytest.raises(ValueError, match="but the model was trained on"):
        target_maker(tokenizer, unit="character" if unit == "phoneme" else "phoneme")


def test_a_lexicon_must_be_the_same(tmp_path):
    for name, line in (("one.tsv", "ал\tɑ ll\n"), ("other.tsv", "ал\tɑ l\n")):
        (tmp_path / name).write_text(line, encoding="utf-8")
    maker = Phonemizer("ky", lexicon=tmp_path / "one.tsv")
    tokenizer = _tokenizer(maker, "phoneme", tmp_path / "model")
    assert target_maker(tokenizer, lexicon=tmp_path / "one.tsv")(TEXTS) == maker(TEXTS)
    with pytest.raises(ValueError, match="with a lexicon; give the same file"):
        target_maker(tokenizer)
    with pytest.raises(ValueError, match="made with another lexicon"):
        target_maker(tokenizer, lexicon=tmp_path / "other.tsv")
    plain = _tokenizer(Phonemizer("ky"), "phoneme", tmp_path / "plain")
    with pytest.raises(ValueError, match="made without a lexicon"):
        target_maker(plain, lexicon=tmp_path / "one.tsv")


def test_another_voice_or_version_is_refused(tmp_path):
    tokenizer = _tokenizer(Phonemizer("ky"), "phoneme", tmp_path)
    with pytest.raises(ValueError, match="voice 'ky', these have 'kk'"):
        target_maker(tokenizer, language="kk")
    tokenizer.init_kwargs["hfasr"]["espeak_version"] = "1.50"
    with pytest.raises(ValueError, match="espeak_version '1.50'"):
        target_maker(tokenizer)


def test_of_another_toolkits_model_the_language_must_be_told(tmp_path):
    (tmp_path / "vocab.json").write_text('{"<pad>": 0, "<unk>": 1, "|": 2, "A": 3}')
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    assert not is_recorded(tokenizer)
    with pytest.raises(ValueError, match="does not say how its targets were made; give the language of its text"):
        target_maker(tokenizer)
    with pytest.raises(ValueError, match="give the espeak-ng voice"):
        target_maker(tokenizer, unit="phoneme")
    assert target_maker(tokenizer, language="ky")("Ал — келди!") == "ал келди"
    assert target_maker(tokenizer, unit="phoneme", language="ky")("Ал келди.") == "ɑ l | k e l d[ i"
    assert target_maker(build_tokenizer(["a b"], "phoneme"), language="ky")("Ал келди.") == "ɑ l k e l d[ i"
    with pytest.raises(ValueError, match="unit 'letters' is not known"):
        target_maker(tokenizer, unit="letters", language="ky")
