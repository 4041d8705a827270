"""Fine-tune a Kyrgyz recogniser that writes letters: corpus, model and numbers of ky_phoneme.py, other targets.

    accelerate launch recipes/ky_char.py
    accelerate launch recipes/ky_char.py --corpus cv-corpus-25.0/ky

The first ends near CER 7.5 % and WER 40 % on the embedded test split: its synthetic speech has no pauses between words.
"""

from dataclasses import dataclass, field

import ky_phoneme
from ky_phoneme import LANGUAGE, Kyrgyz, starting_point, train

from hfasr import Normalizer
from hfasr.training.families import is_pretrained
from hfasr.training.run import run_recipe

# From scratch, at the phonemes' 5e-3 the model never gets past guessing vowels and spaces (CER 65 %): spaces cannot be heard.
FROM_SCRATCH = {"learning_rate": 2e-3}


@dataclass
class KyChar(Kyrgyz):
    numbers: str | None = field(default=None, metadata={"help": "Digits in transcripts: words, keep, drop the row, or error."})
    output_dir: str = field(default="runs/ky_char", metadata={"help": "Run folder."})


def presets(recipe: KyChar) -> dict:
    """Choose the numbers of ky_phoneme.py, the best checkpoint by CER."""
    return ky_phoneme.presets(recipe, metric="cer") | ({} if is_pretrained(starting_point(recipe)) else FROM_SCRATCH)


def main(recipe: KyChar):
    """Fine-tune a Kyrgyz recogniser that writes letters."""
    train(recipe, "ky_char", "character", Normalizer(LANGUAGE, numbers=recipe.numbers))


if __name__ == "__main__":
    run_recipe(main, KyChar, presets)
