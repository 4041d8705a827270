"""The beam search on an embedded corpus: error rates with language models of the training text, hotwords of planted names, confidence.

    python tests/benchmarks/beam.py MODEL --language kk [--beam-size 50] [--utterances 160] [--names 40]

MODEL is a model of characters that was trained on the embedded corpus of the language, as recipes/kazakh_char.py makes it. The tables
are of the test split; alpha and beta are those that are best on the validation split. Language models are estimated by
`hfasr.decoding.ngram`, as `hfasr lm` does.

Hotwords: invented names are put in the middle of sentences of the test split, spoken by espeak-ng in the test voices and a room.
Recall is the share of the names that come out as written. A false alarm is a hotword in a text that does not hold it: one of the other
names in a sentence with a name, plus any in the test split.
"""

import argparse
import tempfile
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from hfasr.audio import SAMPLING_RATE, load_audio
from hfasr.corpora import load_embedded
from hfasr.corpora.synthetic.plan import LANGUAGES
from hfasr.corpora.synthetic.room import in_room
from hfasr.corpora.synthetic.voices import draw_speakers
from hfasr.decoding.beam import BeamDecoder
from hfasr.decoding.confidence import Confidence, word_confidences
from hfasr.decoding.greedy import GreedyDecoder, labels_to_text
from hfasr.decoding.ngram import estimate_ngram, write_arpa
from hfasr.decoding.words import split_words
from hfasr.espeak import private_engine
from hfasr.evaluation.metrics import score
from hfasr.inference.engine import TorchEngine
from hfasr.text.targets import target_maker

GRID = {"characters": [(0.5, 1.0), (1.0, 1.0), (1.0, 2.0), (1.5, 2.0)], "words": [(0.3, 0.0), (0.5, 0.0), (0.5, 2.0), (0.8, 2.0)]}


def network(engine, waveforms: list[np.ndarray]) -> list[torch.Tensor]:
    """Log-probabilities `(T, V)` of each waveform."""
    rows = []
    for waveform in waveforms:
        log_probs, lengths = engine.log_probs([waveform])
        rows.append(log_probs[0, : lengths[0]].clone())
    return rows


def decoded(decoder, rows: list[torch.Tensor], tokenizer) -> list[str]:
    best = [decoder.decode(row[None], [len(row)])[0][0] for row in rows]
    return [labels_to_text([token.id for token in hypothesis.tokens], tokenizer) for hypothesis in best]


def print_row(name: str, decoder, rows, targets, engine) -> None:
    began = time.process_time()
    texts = decoded(decoder, rows, engine.tokenizer)
    used = time.process_time() - began
    rates = [100 * score(targets, texts, unit=unit).rate for unit in ("character", "word")]
    seconds = sum(map(len, rows)) * engine.grid.frame_seconds
    print(f"{name:42}  CER {rates[0]:5.1f} %  WER {rates[1]:5.1f} %  {seconds / used:7.0f} times real time", flush=True)


def best_weights(decoder, grid, rows, targets, tokenizer) -> tuple[float, float]:
    rates = {}
    for alpha, beta in grid:
        decoder.set_weights(alpha=alpha, beta=beta)
        rates[alpha, beta] = score(targets, decoded(decoder, rows, tokenizer), unit="character").rate
    return min(rates, key=rates.get)


def language_models(engine, texts, rows, targets, beam_size: int, folder: Path) -> None:
    """Print error rates by language model."""
    validation, test = ((rows[split], targets[split]) for split in ("validation", "test"))
    print_row("greedy", GreedyDecoder(engine.blank), *test, engine)
    print_row("beam, nothing else", BeamDecoder(engine.tokenizer, engine.blank, beam_size=beam_size), *test, engine)
    spelled = [" ".join(text.replace(" ", "|")) for text in texts]
    for unit, lines, orders in (("characters", spelled, (4, 6)), ("words", texts, (3,))):
        for order in orders:
            path = folder / f"{unit}{order}.arpa"
            write_arpa(path, estimate_ngram(lines, order))
            for further in ({},) if unit == "characters" else ({}, {"open_vocabulary": False}):
                decoder = BeamDecoder(engine.tokenizer, engine.blank, lm=path, beam_size=beam_size, **further)
                alpha, beta = best_weights(decoder, GRID[unit], validation[0][:40], validation[1][:40], engine.tokenizer)
                decoder.set_weights(alpha=alpha, beta=beta)
                name = f"{order}-gram of {unit}{', closed' if further else ''}, alpha {alpha:g}, beta {beta:g}"
                print_row(name, decoder, *test, engine)


def spoken_names(engine, language: str, number: int, texts: list[str], training: list[str]) -> tuple[list, list, list[str]]:
    """Names, and sentences that hold one each: their log-probabilities and their texts."""
    random, words = Random("names"), sorted({word for text in training for word in text.split() if len(word) > 5})
    known, names = {word for text in [*training, *texts] for word in text.split()}, []
    while len(names) < number:  # the beginning of a word and the end of another: sounds of the language, and no word of it
        first, second = random.sample(words, 2)
        name = first[: random.choice((3, 4))] + second[-3:]
        names += [name] if name not in known and name not in names else []
    speakers = draw_speakers("test", LANGUAGES[language].voice, random)
    waveforms, sentences = [], []
    with private_engine() as espeak:
        for place, name in enumerate(names):
            spoken, speaker = texts[place % len(texts)].split(), speakers[place % len(speakers)]
            spoken.insert(len(spoken) // 2, name)
            sentences.append(" ".join(spoken))
            speech = espeak.speak(sentences[-1], speaker.voice, rate=speaker.rate, pitch=speaker.pitch, volume=60)
            waveforms.append(in_room(speech, espeak.sampling_rate, SAMPLING_RATE, np.random.default_rng(place)))
    print(f"{len(names)} names such as {', '.join(names[:4])}; {sum(map(len, waveforms)) / SAMPLING_RATE:.0f} s")
    return names, network(engine, waveforms), sentences


def hotwords(engine, language: str, number: int, training, rows, targets, beam_size: int, folder: Path) -> None:
    """Print recall and false alarms of planted names by weight."""
    names, spoken, sentences = spoken_names(engine, language, number, targets, training)
    models = {"no language model": {}, "6-gram of characters": {"lm": folder / "characters6.arpa", "alpha": 1.0, "beta": 2.0}}
    for model, options in models.items():
        for weight in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0):
            further = {"hotwords": names, "hotword_weight": weight} if weight else {}
            decoder = BeamDecoder(engine.tokenizer, engine.blank, beam_size=beam_size, **options, **further)
            found, quiet = decoded(decoder, spoken, engine.tokenizer), decoded(decoder, rows, engine.tokenizer)
            recall = np.mean([name in text.split() for name, text in zip(names, found, strict=True)])
            alarms = sum(other in text.split() for name, text in zip(names, found, strict=True) for other in names if other != name)
            elsewhere = sum(word in names for text in quiet for word in text.split())
            words = sum(len(text.split()) for text in [*targets, *sentences])
            rates = [100 * score(truth, text, unit="character").rate for truth, text in ((sentences, found), (targets, quiet))]
            print(
                f"{model}, weight {weight:g}: recall {100 * recall:5.1f} %, false alarms {alarms} + {elsewhere} in {words} words, "
                f"CER {rates[0]:.1f} % with names, {rates[1]:.1f} % of the test split",
                flush=True,
            )


def confidences(engine, rows, targets) -> None:
    """Print how well each measure tells right symbols and words from wrong ones: the area under the ROC curve."""
    for confidence in (Confidence("max"), Confidence(), Confidence(alpha=1 / 3), Confidence("gibbs"), Confidence(scale="exponential")):
        decoder, symbols, words = GreedyDecoder(engine.blank, confidence), [], {"mean": [], "min": [], "product": []}
        for row, target in zip(rows, targets, strict=True):
            hypothesis = decoder.decode(row[None], [len(row)])[0][0]
            ids = [token.id for token in hypothesis.tokens]
            symbols += zip(hypothesis.confidences, right(ids, engine.tokenizer(target).input_ids), strict=True)
            spans = split_words(hypothesis.tokens, engine.tokenizer)
            for aggregate, pairs in words.items():
                truth = right([span.text for span in spans], target.split())
                pairs += zip(word_confidences(hypothesis, spans, aggregate), truth, strict=True)
        shares = "  ".join(f"{aggregate} {area(pairs):.3f}" for aggregate, pairs in words.items())
        print(f"{confidence.measure} {confidence.alpha:.2f} {confidence.scale}: symbols {area(symbols):.3f}, words by {shares}", flush=True)


def right(hypothesis: list, reference: list) -> list[bool]:
    """Tell which units of a hypothesis are right."""
    marks = [False] * len(hypothesis)
    for block in Levenshtein.opcodes(hypothesis, reference):
        if block.tag == "equal":
            marks[block.src_start : block.src_end] = [True] * (block.src_end - block.src_start)
    return marks


def area(pairs: list[tuple[float, bool]]) -> float:
    """Chance that a right unit has the higher confidence than a wrong one, ties half."""
    good, bad = (np.array([value for value, truth in pairs if truth is wanted]) for wanted in (True, False))
    bad.sort()
    below, upto = np.searchsorted(bad, good, "left"), np.searchsorted(bad, good, "right")
    return float((below + upto).sum() / 2 / len(good) / len(bad))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--language", default="kk", choices=sorted(LANGUAGES))
    parser.add_argument("--beam-size", type=int, default=50)
    parser.add_argument("--utterances", type=int, default=160)
    parser.add_argument("--names", type=int, default=40)
    arguments = parser.parse_args()
    engine = TorchEngine(arguments.model)
    corpus, to_target = load_embedded(arguments.language), target_maker(engine.tokenizer)
    targets = {split: to_target(list(corpus[split]["text"]))[: arguments.utterances] for split in ("validation", "test")}
    training = to_target(list(corpus["train"]["text"]))
    rows = {
        split: network(engine, [load_audio(row["audio"]) for row in corpus[split].select(range(len(targets[split])))]) for split in targets
    }
    print("== confidence")
    confidences(engine, rows["test"], targets["test"])
    with tempfile.TemporaryDirectory() as name:
        write_arpa(Path(name) / "characters6.arpa", estimate_ngram([" ".join(text.replace(" ", "|")) for text in training], 6))
        print("== hotwords")
        hotwords(engine, arguments.language, arguments.names, training, rows["test"], targets["test"], arguments.beam_size, Path(name))
        print("== language models of the training text")
        language_models(engine, training, rows, targets, arguments.beam_size, Path(name))


if __name__ == "__main__":
    main()
