"""Fine-tune a Kyrgyz recogniser that writes letters: corpus, model and numbers of ky_phoneme.py, other targets.

accelerate launch recipes/ky_char.py
accelerate launch recipes/ky_char.py --corpus cv-corpus-25.0/ky
"""

from dataclasses import dataclass, field

from ky_phoneme import LANGUAGE, Kyrgyz, presets, train

from hfasr import Normalizer
from hfasr.training.run import run_recipe


@dataclass
class KyChar(Kyrgyz):
    numbers: str | None = field(default=None, metadata={"help": "Digits in transcripts: words, keep, drop the row, or error."})
    output_dir: str = field(default="runs/ky_char", metadata={"help": "Run folder."})


def main(recipe: KyChar):
    """Fine-tune a Kyrgyz recogniser that writes letters."""
    train(recipe, "ky_char", "character", Normalizer(LANGUAGE, numbers=recipe.numbers))


if __name__ == "__main__":
    run_recipe(main, KyChar, lambda recipe: presets(recipe, metric="cer"))
