"""The beam search against the sum over all paths, with language models that a dozen lines of Python score."""

import gzip
import itertools
import math
import random
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import ParakeetTokenizer

from hfasr.decoding.beam import BeamDecoder
from hfasr.decoding.greedy import collapse, labels_to_text
from hfasr.decoding.language_model import lm_words
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer, target_record

pytest.importorskip("flashlight.lib.text", reason="needs flashlight-text: pip install 'hfasr[lm]'")

LN10 = math.log(10)
EXACT = {"beam_size": 5000, "beam_threshold": 1e9, "beam_tokens": None, "token_threshold": 1e9, "n_best": 10}


def sums_of_paths(log_probs: np.ndarray, blank: int) -> dict[tuple[int, ...], float]:
    """Sum over all V ** T paths of one utterance `(T, V)`, by text."""
    sums = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        labels = tuple(token.id for token in collapse(path, blank))
        score = log_probs[np.arange(len(path)), path].sum()
        sums[labels] = np.logaddexp(sums.get(labels, -np.inf), score)
    return sums


def write_arpa(path, words: list[str], seed: int = 0) -> dict[tuple[str, ...], tuple[float, float]]:
    """Write a bigram model with random scores; return probability and backoff of its n-grams, base 10."""
    draw = random.Random(seed)
    grams = {(word,): (-draw.uniform(0.3, 2), -draw.uniform(0, 0.5)) for word in ["<unk>", "</s>", *words]} | {("<s>",): (-99.0, -0.2)}
    pairs = [pair for pair in itertools.product(["<s>", *words], [*words, "</s>"]) if draw.random() < 0.6]
    grams |= {pair: (-draw.uniform(0.1, 1.5), 0.0) for pair in pairs}
    unigrams = [f"{score:.6f}\t{gram[0]}\t{backoff:.6f}" for gram, (score, backoff) in grams.items() if len(gram) == 1]
    bigrams = [f"{score:.6f}\t{' '.join(gram)}" for gram, (score, _) in grams.items() if len(gram) == 2]
    sections = [
        f"\\data\\\nngram 1={len(unigrams)}\nngram 2={len(bigrams)}\n",
        "\\1-grams:",
        *unigrams,
        "",
        "\\2-grams:",
        *bigrams,
        "",
        "\\end\\",
        "",
    ]
    path.write_text("\n".join(sections), encoding="utf-8")
    return grams


def sentence_score(grams: dict, words: list[str]) -> float:
    """Natural logarithm of a sentence's probability in a bigram model with backoff."""
    words, total = ["<s>", *(word if (word,) in grams else "<unk>" for word in words), "</s>"], 0.0
    for pair in itertools.pairwise(words):
        total += grams[pair][0] if pair in grams else grams[pair[:1]][1] + grams[pair[1:]][0]
    return total * LN10


def random_log_probs(frames: int, size: int, seed: int) -> torch.Tensor:
    return (torch.randn(1, frames, size, generator=torch.Generator().manual_seed(seed)) * 2).log_softmax(-1)


def expect_ranked(decoder, log_probs: torch.Tensor, blank: int, score, *, tolerance: float = 2e-3) -> None:
    """Hold the n best texts to those that `score(labels)` and the sum over all paths rank first."""
    sums = {labels: total + score(labels) for labels, total in sums_of_paths(log_probs[0].numpy(), blank).items()}
    ranked = sorted((total, labels) for labels, total in sums.items() if total > -np.inf)[::-1]
    found = decoder.decode(log_probs, [log_probs.shape[1]])[0]
    assert len(found) == min(10, len(ranked))
    for hypothesis, (total, _) in zip(found, ranked, strict=False):
        labels = tuple(token.id for token in hypothesis.tokens)
        assert hypothesis.score == pytest.approx(total, abs=tolerance)
        assert sums[labels] == pytest.approx(total, abs=tolerance)
    assert len({tuple(token.id for token in hypothesis.tokens) for hypothesis in found}) == len(found)


@pytest.fixture(scope="module")
def characters():
    return build_tokenizer(["аб а"], "character")


@pytest.mark.parametrize("blank", [0, 3])
def test_without_anything_the_sums_over_all_paths_are_ranked(characters, blank):
    decoder = BeamDecoder(characters, blank, **EXACT)
    for seed in range(5):
        expect_ranked(decoder, random_log_probs(5, len(characters), seed), blank, lambda labels: 0.0)


@pytest.mark.parametrize("beta", [0.0, 0.7])
@pytest.mark.parametrize("symbols", ["аб|", "аб", "а|"])
def test_a_model_of_symbols(characters, tmp_path, symbols, beta):
    grams = write_arpa(tmp_path / "lm.arpa", list(symbols))
    decoder = BeamDecoder(characters, 0, lm=tmp_path / "lm.arpa", alpha=0.6, beta=beta, **EXACT)
    names = {index: symbol for symbol, index in characters.get_vocab().items()}

    def score(labels):
        units = [names[label] for label in labels if names[label] in symbols or names[label] != "|"]
        return 0.6 * sentence_score(grams, units) + beta * len(units)

    for seed in range(4):
        expect_ranked(decoder, random_log_probs(5, len(characters), seed), 0, score)


@pytest.mark.parametrize("open_vocabulary", [False, True])
@pytest.mark.parametrize("beta", [0.0, 1.5])
def test_a_model_of_words(characters, tmp_path, beta, open_vocabulary):
    vocabulary = ["а", "ба", "бб", "абб"]
    grams = write_arpa(tmp_path / "lm.arpa", vocabulary)
    decoder = BeamDecoder(characters, 0, lm=tmp_path / "lm.arpa", alpha=0.6, beta=beta, open_vocabulary=open_vocabulary, **EXACT)

    def score(labels):
        words = labels_to_text(labels, characters).split()
        if not open_vocabulary and not set(words) <= set(vocabulary):
            return -np.inf
        drawn = -math.log(len(characters)) * sum(len(word.replace("<unk>", "?")) for word in words if word not in vocabulary)
        return 0.6 * (sentence_score(grams, words) + drawn) + beta * len(words)

    for seed in range(4):
        expect_ranked(decoder, random_log_probs(5, len(characters), seed), 0, score)


def test_a_model_of_words_without_boundaries_takes_the_best_way_to_cut_and_to_read(tmp_path):
    tokenizer = build_tokenizer(["a b c"], "phoneme")
    lexicon = {"one": "a", "won": "a", "two": "a b", "three": "b c", "four": "c", "five": "b"}
    grams = write_arpa(tmp_path / "lm.arpa", list(lexicon))
    decoder = BeamDecoder(tokenizer, 0, lm=tmp_path / "lm.arpa", lexicon=lexicon, alpha=0.8, beta=0.5, **EXACT)

    def readings(phonemes):
        if not phonemes:
            return [[]]
        found = [(word, spelled.split()) for word, spelled in lexicon.items()]
        return [
            [word, *rest] for word, spelled in found if phonemes[: len(spelled)] == spelled for rest in readings(phonemes[len(spelled) :])
        ]

    def scored(labels):
        ways = readings(labels_to_text(labels, tokenizer).split())
        return max(((0.8 * sentence_score(grams, way) + 0.5 * len(way), way) for way in ways), default=(-np.inf, None))

    for seed in range(4):
        log_probs = random_log_probs(5, len(tokenizer), seed)
        expect_ranked(decoder, log_probs, 0, lambda labels: scored(labels)[0])
        for hypothesis in decoder.decode(log_probs, [5])[0]:
            labels = [token.id for token in hypothesis.tokens]
            assert hypothesis.text == " ".join(word.text for word in hypothesis.words) == " ".join(scored(labels)[1])
            spelled = [lexicon[word.text] for word in hypothesis.words]
            assert spelled == [labels_to_text(labels[word.first : word.last], tokenizer) for word in hypothesis.words]


def test_hotwords_with_and_without_a_language_model(characters, tmp_path):
    grams = write_arpa(tmp_path / "lm.arpa", ["а", "ба", "аб"])
    hotwords = {"аб": 1.5, "б а": 0.5}

    def bonus(labels):
        text = labels_to_text(labels, characters)
        found = re.findall(r"(?<![^ ])(?:б а|аб)(?![^ ])", text)
        return sum(hotwords[word] * len(word) for word in found)

    alone = BeamDecoder(characters, 0, hotwords=hotwords, **EXACT)
    closed = BeamDecoder(characters, 0, hotwords=hotwords, lm=tmp_path / "lm.arpa", open_vocabulary=False, alpha=0.4, beta=0.0, **EXACT)

    def score(labels):
        words = labels_to_text(labels, characters).split()
        # a hotword can be said, though the language model lacks it
        return 0.4 * sentence_score(grams, words) + bonus(labels) if set(words) <= {"а", "ба", "аб", "б"} else -np.inf

    for seed in range(4):
        log_probs = random_log_probs(5, len(characters), seed)
        expect_ranked(alone, log_probs, 0, bonus)
        expect_ranked(closed, log_probs, 0, score)


def test_binaries_are_read_as_the_arpa_they_were_made_of(characters, tmp_path):
    grams = write_arpa(tmp_path / "lm.arpa", list("аб|"))
    with gzip.open(tmp_path / "lm.arpa.gz", "wb") as packed:
        packed.write((tmp_path / "lm.arpa").read_bytes())
    assert set(lm_words(tmp_path / "lm.arpa")) == set(lm_words(tmp_path / "lm.arpa.gz")) == set("аб|")
    # the end of a file of KenLM's build_binary
    names = [gram[0] for gram in grams if len(gram) == 1]
    content = b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(range(256)) + "\0".join([*names, ""]).encode()
    (tmp_path / "lm.bin").write_bytes(content)
    assert set(lm_words(tmp_path / "lm.bin")) == set("аб|")


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("targets", [["ал ээр"], ["界界好"]])
def test_every_option_takes_utterances_of_any_length(targets, blank, tmp_path):
    tokenizer = build_tokenizer(targets, "character")
    words = targets[0].split()
    write_arpa(tmp_path / "words.arpa", words)
    write_arpa(tmp_path / "symbols.arpa", sorted(set(targets[0].replace(" ", "|"))))
    log_probs = random_log_probs(9, len(tokenizer), 1).expand(4, -1, -1)
    options = [{}, {"lm": tmp_path / "words.arpa"}, {"lm": tmp_path / "symbols.arpa", "beta": 1.0}, {"hotwords": words}]
    for option in [*options, {"lm": tmp_path / "words.arpa", "open_vocabulary": False}]:
        found = BeamDecoder(tokenizer, blank, n_best=2, **option).decode(log_probs, torch.tensor([0, 1, 9, 4]))
        assert (found[0][0].tokens, found[0][0].confidences) == ((), ())
        for row, length in zip(found, (0, 1, 9, 4), strict=True):
            for hypothesis in row:
                assert len(hypothesis.confidences) == len(hypothesis.tokens)
                frames = [frame for token in hypothesis.tokens for frame in (token.start_frame, token.end_frame)]
                assert [*frames, length] == sorted([*frames, length])
                assert all(token.end_frame > token.start_frame for token in hypothesis.tokens)


def test_words_of_pieces(tmp_path):
    tokenizer = build_tokenizer(["ал ээр келди ал келди"], "sentencepiece", vocab_size=11)
    write_arpa(tmp_path / "lm.arpa", ["ал", "келди"])
    labels = tokenizer("ал келди").input_ids
    log_probs = torch.full((1, 2 * len(labels), len(tokenizer)), -5.0)
    for place, label in enumerate(labels):
        log_probs[0, 2 * place, label] = log_probs[0, 2 * place + 1, 0] = 0.0
    (hypothesis,) = BeamDecoder(tokenizer, 0, lm=tmp_path / "lm.arpa").decode(log_probs.log_softmax(-1), [2 * len(labels)])[0]
    assert [word.text for word in hypothesis.words] == ["ал", "келди"]
    assert [token.start_frame for token in hypothesis.tokens] == list(range(0, 2 * len(labels), 2))


def test_a_sure_blank_is_passed_over_and_leaves_frames_and_scores(characters):
    short = random_log_probs(4, len(characters), 4)
    blank = torch.full((1, 3, len(characters)), -30.0)
    blank[..., 0] = 0
    long = torch.cat([blank, short[:, :2], blank, short[:, 2:], blank], dim=1).log_softmax(-1)
    decoder = BeamDecoder(characters, 0, hotwords=["аб"], **EXACT)
    found = decoder.decode(long, [13])[0][0]
    sums = sums_of_paths(torch.cat([short[:, :2], blank[:, :1], short[:, 2:]], dim=1)[0].numpy(), 0)
    labels = tuple(token.id for token in found.tokens)
    bonus = 2 * len(re.findall(r"(?<![^ ])аб(?![^ ])", labels_to_text(labels, characters)))
    assert found.score == pytest.approx(sums[labels] + bonus, abs=1e-3)
    assert all({3, 4, 8, 9}.issuperset(range(token.start_frame, token.end_frame)) for token in found.tokens)


def test_half_a_word_of_a_closed_lexicon_is_none(characters, tmp_path, caplog):
    (tmp_path / "words.txt").write_text("аб\n", encoding="utf-8")
    log_probs = torch.full((1, 3, len(characters)), -40.0)
    log_probs[..., characters.get_vocab()["а"]] = 0
    (hypothesis,) = BeamDecoder(characters, 0, lexicon=tmp_path / "words.txt", beam_size=2).decode(log_probs.log_softmax(-1), [3])[0]
    assert (hypothesis.tokens, hypothesis.words) == ((), ())
    assert hypothesis.score == pytest.approx(-120)
    assert "no sequence of the lexicon's words fits" in caplog.text


def test_ten_thousand_symbols_are_not_too_many(characters):
    frames = torch.zeros(20_000, dtype=torch.int64)
    frames[::2] = torch.tensor([2, 3, 4, 3]).repeat(2500)
    log_probs = torch.nn.functional.one_hot(frames, len(characters)).float().mul(20).log_softmax(-1)[None]
    decoder = BeamDecoder(characters, 0, hotwords=["аба"], beam_size=3)
    (hypothesis,) = decoder.decode(log_probs, [20_000])[0]
    assert len(hypothesis.tokens) == 10_000
    assert decoder.decode(log_probs[:, :2], [2])[0][0].tokens[0].id == 2


def test_threads_may_share_it(characters):
    decoder, log_probs = BeamDecoder(characters, characters.pad_token_id, hotwords=["а"]), []
    for seed in range(4):
        scores = torch.randn(1, 30, len(characters), generator=torch.Generator().manual_seed(seed))
        log_probs.append((3 * scores).log_softmax(-1))
    expected = [decoder.decode(each, [30]) for each in log_probs]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda each: decoder.decode(each, [30]), log_probs * 4)) == expected * 4


def test_weights_can_be_changed_without_reading_the_model_again(characters, tmp_path):
    write_arpa(tmp_path / "lm.arpa", list("аб|"))
    decoder = BeamDecoder(characters, 0, lm=tmp_path / "lm.arpa", alpha=0.1, beta=2.0)
    log_probs = random_log_probs(8, len(characters), 5)
    before = decoder.decode(log_probs, [8])
    decoder.set_weights(beta=-1.0)
    decoder.set_weights(alpha=0.9)
    fresh = BeamDecoder(characters, 0, lm=tmp_path / "lm.arpa", alpha=0.9, beta=-1.0)
    assert decoder.decode(log_probs, [8]) == fresh.decode(log_probs, [8]) != before


def test_a_lexicon_alone_holds_the_text_to_its_words(characters, tmp_path):
    (tmp_path / "words.txt").write_text("аба\nб\n", encoding="utf-8")
    decoder = BeamDecoder(characters, 0, lexicon=tmp_path / "words.txt", **EXACT)
    allowed = {"аба", "б"}
    for seed in range(4):
        expect_ranked(
            decoder,
            random_log_probs(5, len(characters), seed),
            0,
            lambda labels: 0.0 if set(labels_to_text(labels, characters).split()) <= allowed else -np.inf,
        )


def test_words_of_a_lexicon_are_written_as_the_targets_are(tmp_path):
    tokenizer = build_tokenizer(["нур ай беш"], "character", record={"normalizer": "ky"})
    (tmp_path / "words.txt").write_text("Нур\nАЙ!\n5\n", encoding="utf-8")
    decoder = BeamDecoder(tokenizer, 0, lexicon=tmp_path / "words.txt")
    scores = torch.full((1, 10, len(tokenizer)), -4.0)
    for frame, symbol in enumerate("нур|беш|ай"):
        scores[0, frame, tokenizer.get_vocab()[symbol]] = 4.0
    (hypothesis,) = decoder.decode(scores.log_softmax(-1), [10])[0]
    assert [word.text for word in hypothesis.words] == ["нур", "беш", "ай"]


def test_a_model_of_phonemes_spells_the_words_of_the_language_model_by_its_voice(tmp_path):
    phonemizer = Phonemizer("ky")
    tokenizer = build_tokenizer([phonemizer("ал келди үй")], "phoneme", record=target_record([], **phonemizer.record))
    write_arpa(tmp_path / "lm.arpa", ["ал", "келди", "үй"])
    labels = tokenizer(phonemizer("үй келди")).input_ids
    log_probs = torch.nn.functional.one_hot(torch.tensor([labels]), len(tokenizer)).float().mul(8).log_softmax(-1)
    (hypothesis,) = BeamDecoder(tokenizer, 0, lm=tmp_path / "lm.arpa").decode(log_probs, [len(labels)])[0]
    assert hypothesis.text == "үй келди"


def test_language_models_that_do_not_fit_are_refused_by_name(characters, tmp_path, caplog):
    write_arpa(tmp_path / "latin.arpa", list("abc"))
    with pytest.raises(ValueError, match=r"latin\.arpa is of other symbols than the model: it lacks а б, and has a b c"):
        BeamDecoder(characters, 0, lm=tmp_path / "latin.arpa")
    write_arpa(tmp_path / "words.arpa", ["cab", "back", "аб"])
    with pytest.raises(ValueError, match=r"most words of .*words\.arpa have symbols that the model lacks: .*a"):
        BeamDecoder(characters, 0, lm=tmp_path / "words.arpa")
    write_arpa(tmp_path / "more.arpa", ["а", "б", "|", "в"])
    BeamDecoder(characters, 0, lm=tmp_path / "more.arpa")
    assert "more.arpa has symbols that the model lacks: в" in caplog.text
    write_arpa(tmp_path / "phonemes.arpa", ["word", "other"])
    with pytest.raises(ValueError, match=r"no phonemes for them: .* Give a lexicon"):
        BeamDecoder(build_tokenizer(["a b"], "phoneme"), 0, lm=tmp_path / "phonemes.arpa")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.arpa is not there"):
        BeamDecoder(characters, 0, lm=tmp_path / "nowhere.arpa")
    (tmp_path / "text.arpa").write_text("hello\n")
    with pytest.raises(ValueError, match=r"text\.arpa is not a language model"):
        BeamDecoder(characters, 0, lm=tmp_path / "text.arpa")
    (tmp_path / "cut.arpa").write_text((tmp_path / "more.arpa").read_text(encoding="utf-8")[:120], encoding="utf-8")
    with pytest.raises(ValueError, match=r"cut\.arpa cannot be read as a language model"):
        BeamDecoder(characters, 0, lm=tmp_path / "cut.arpa")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size is 0"),
        ({"n_best": 60}, "n_best is 60, but the beam_size of 50"),
        ({"beam_threshold": 0}, "beam_threshold is 0"),
        ({"token_threshold": -1}, "token_threshold is -1"),
        ({"beta": 1.0}, "beta is 1, which is for the units of a language model"),
        ({"alpha": math.nan}, "alpha is nan"),
    ],
)
def test_numbers_out_of_range_are_refused(characters, options, message):
    with pytest.raises(ValueError, match=message):
        BeamDecoder(characters, 0, **options)


def test_log_probs_of_another_vocabulary_are_refused(characters):
    decoder = BeamDecoder(characters, 0)
    with pytest.raises(ValueError, match=r"expected log_probs \(B, T, V\) with V of 5 or more"):
        decoder.decode(torch.zeros(1, 3, 4), [3])
    with pytest.raises(ValueError, match="expected logits"):
        decoder.decode(torch.zeros(3, 5), [3])


@pytest.mark.parametrize("blank", [0, 7])
def test_a_tokenizer_of_an_imported_nemo_model(tmp_path, blank):
    # its space is a symbol of its own, and it joins repeats itself
    alphabet = [" ", *"'aehlo"]
    alphabet.insert(blank, "<pad>")
    backend = Tokenizer(models.BPE(vocab={symbol: place for place, symbol in enumerate(alphabet)}, merges=[]))
    backend.decoder = decoders.Fuse()
    tokenizer = ParakeetTokenizer(tokenizer_object=backend, pad_token="<pad>", unk_token=None)
    write_arpa(tmp_path / "words.arpa", ["hello", "hall", "ohé"])
    write_arpa(tmp_path / "symbols.arpa", ["|", *"'aehlo"])
    path = "hhe_l_lo _hal_l__"
    frames = torch.tensor([[alphabet.index("<pad>" if symbol == "_" else symbol) for symbol in path]])
    log_probs = torch.nn.functional.one_hot(frames, len(alphabet)).float().mul(9).log_softmax(-1)
    for options in ({}, {"lm": tmp_path / "words.arpa"}, {"lm": tmp_path / "symbols.arpa"}, {"hotwords": ["hello hall"]}):
        (hypothesis,) = BeamDecoder(tokenizer, blank, **options).decode(log_probs, [len(path)])[0]
        assert labels_to_text([token.id for token in hypothesis.tokens], tokenizer) == "hello hall"
        assert hypothesis.words is None or [word.text for word in hypothesis.words] == ["hello", "hall"]
    with pytest.raises(ValueError, match=r"zoë \(z ë\)"):
        BeamDecoder(tokenizer, blank, hotwords=["hello", "zoë"])
