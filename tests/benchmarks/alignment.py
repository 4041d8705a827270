"""Errors of aligned boundaries, and what a long alignment costs.

    python tests/benchmarks/alignment.py --model runs/ky_phoneme --language ky        # phonemes and words
    python tests/benchmarks/alignment.py --model runs/kk --language kk                # characters: words only
    python tests/benchmarks/alignment.py --model runs/ky_phoneme --language ky --hours 3

espeak-ng speaks the test sentences of an embedded corpus in the voices of its test split, neither of which a model trained on the
corpus has heard, in rooms with noise as the corpus has; its events tell when words and phonemes begin and end. A phoneme's event comes
after the closure of a stop and after the glide from a liquid or nasal into a vowel, so some 10 ms of these errors are its own. Printed
for begins and ends of phonemes and of words, by the rule that places boundaries: bias and median of the error in ms, and the shares
within 20 and 50 ms. The rules:

- frames: a symbol holds the frames in which the path says it
- next: and those up to the next symbol
- middle: neighbours share the blanks between them
- sound: hfasr.inference.boundaries without the lag of the model
- sound, lag: what `hfasr.align` does

With --hours the sentences are said one after the other for so long, and aligned with all their text: seconds, memory, and the errors.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import soundfile

from hfasr import espeak
from hfasr.corpora.synthetic.plan import LANGUAGES, Utterance, make_plan
from hfasr.corpora.synthetic.room import in_room
from hfasr.decoding.alignment import align_labels
from hfasr.inference import aligner as module
from hfasr.inference import boundaries
from hfasr.inference.aligner import Aligner
from hfasr.inference.transcript import Unit

RATE = 16_000


def recorded(engine: espeak.Engine, utterance: Utterance) -> tuple[np.ndarray, list[Unit], list[Unit]]:
    """Return a waveform at 16 kHz, and its words and phonemes with their seconds."""
    said = {"rate": utterance.rate, "pitch": utterance.pitch, "pitch_range": utterance.pitch_range, "volume": 60}
    speech, words, phonemes = engine.speak_timed(utterance.sentence, utterance.voice, **said)
    # in_room draws the pause before the speech first
    pause = int(np.random.default_rng(utterance.seed).uniform([0.15, 0.2], [0.4, 0.5])[0] * engine.sampling_rate)
    rate = engine.sampling_rate
    seconds = lambda sounds: [Unit(sound.text, (sound.start + pause) / rate, (sound.end + pause) / rate) for sound in sounds]
    waveform = in_room(speech, rate, RATE, np.random.default_rng(utterance.seed))
    return waveform, seconds(words), seconds(phonemes)


def by_frames(firsts: np.ndarray, lasts: np.ndarray, frame: float, share: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Place boundaries by frames alone: `share` of the blanks between two symbols belong to the first, all to neither when None."""
    starts, ends = firsts - frame / 2, lasts + frame / 2
    if share is not None:
        cuts = ends[:-1] + share * (starts[1:] - ends[:-1])
        starts, ends = np.append(starts[:1], cuts), np.append(cuts, ends[-1:])
    return np.maximum(starts, 0), np.maximum(ends, 0)


def errors_of(found: tuple[Unit, ...], true: list[Unit]) -> np.ndarray:
    """Return errors in ms of begins and ends `(2, N)`; nothing where another number of units was found."""
    if len(found) != len(true):
        return np.zeros((2, 0))
    return 1000 * np.array([[unit.start - sound.start, unit.end - sound.end] for unit, sound in zip(found, true, strict=True)]).T


def show(name: str, errors: dict[str, list[np.ndarray]]) -> None:
    for tier, parts in errors.items():
        for end, values in zip(("begin", "end"), np.concatenate(parts, axis=1), strict=True):
            if len(values):
                size = np.abs(values)
                shares = f"{np.mean(size <= 20):6.1%} within 20 ms {np.mean(size <= 50):6.1%} within 50 ms"
                print(
                    f"{name:12} {tier:8} {end:5}  bias {np.median(values):6.1f} median {np.median(size):5.1f} ms  {shares}  ({len(values)})"
                )


def compare(aligner: Aligner, utterances: list[Utterance], limit: int) -> None:
    own_lag, own_place, frame = boundaries.lag_seconds, boundaries.place_boundaries, aligner.engine.grid.frame_seconds
    rules: dict[str, tuple[Callable, Callable]] = {
        "frames": (lambda *_: 0.0, lambda _, *frames: by_frames(*frames, frame, None)),
        "next": (lambda *_: 0.0, lambda _, *frames: by_frames(*frames, frame, 1.0)),
        "middle": (lambda *_: 0.0, lambda _, *frames: by_frames(*frames, frame, 0.5)),
        "sound": (lambda *_: 0.0, own_place),
        "sound, lag": (own_lag, own_place),
    }
    with espeak.private_engine() as engine:
        recordings = [(one.sentence, *recorded(engine, one)) for one in utterances[:limit]]
    seconds = sum(len(waveform) for _, waveform, *_ in recordings) / RATE
    print(f"{len(recordings)} sentences, {seconds:.0f} s, {len({one.voice for one in utterances[:limit]})} voices")
    for name, (module.lag_seconds, module.place_boundaries) in rules.items():
        errors = {"phonemes": [np.zeros((2, 0))], "words": [np.zeros((2, 0))]}
        for text, waveform, words, phonemes in recordings:
            found = aligner(waveform, text)
            errors["words"].append(errors_of(found.words, words))
            if [unit.text for unit in found.symbols] == [sound.text for sound in phonemes]:
                errors["phonemes"].append(errors_of(found.symbols, phonemes))
        show(name, errors)
    module.lag_seconds, module.place_boundaries = own_lag, own_place


def long_recording(aligner: Aligner, utterances: list[Utterance], hours: float) -> None:
    with tempfile.TemporaryDirectory() as folder, espeak.private_engine() as engine:
        path, texts, true, samples = Path(folder, "long.flac"), [], [], 0
        made = [(one.sentence, *recorded(engine, one)[:2]) for one in utterances]
        with soundfile.SoundFile(path, "w", RATE, 1) as file:
            for text, waveform, words in cycle(made):
                if samples > hours * 3600 * RATE:
                    break
                file.write(waveform)
                texts.append(text)
                true += [Unit(word.text, word.start + samples / RATE, word.end + samples / RATE) for word in words]
                samples += len(waveform)
        print(f"{samples / RATE / 3600:.2f} h, {len(texts)} sentences, {len(true)} words")
        before, timed = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, []

        def measured(*given, **named):
            begin = time.monotonic()
            found = align_labels(*given, **named)
            timed.append((time.monotonic() - begin, len(given[0]), len(given[1])))
            return found

        module.align_labels, begin = measured, time.monotonic()
        found = aligner(path, "\n".join(texts))
        whole, (aligning, frames, labels) = time.monotonic() - begin, timed[0]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{whole:.0f} s in all, of them {aligning:.0f} s for the path of {labels:,} labels over {frames:,} frames")
        print(f"peak memory {peak:.2f} GiB, {before:.2f} before")
        show("sound, lag", {"words": [errors_of(found.words, true)]})
        print(f"words off by more than 0.5 s: {np.mean(np.abs(errors_of(found.words, true)[0]) > 500):.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--language", required=True, choices=LANGUAGES, help="of the embedded corpus")
    parser.add_argument("--limit", type=int, default=1000, help="sentences at most")
    parser.add_argument("--hours", type=float, help="measure one recording of this length instead")
    arguments = parser.parse_args()
    plan = make_plan(arguments.language, 0, LANGUAGES[arguments.language].utterances)
    utterances = [one for one in plan if one.split == "test"]
    aligner = Aligner(arguments.model)
    if arguments.hours:
        long_recording(aligner, utterances, arguments.hours)
    else:
        compare(aligner, utterances, arguments.limit)


if __name__ == "__main__":
    main()
