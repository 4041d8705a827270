"""The verb that makes a language model: lm."""

from pathlib import Path
from typing import Annotated

import typer

from hfasr.cli.app import app
from hfasr.cli.shared import check_writable


@app.command()
def lm(
    texts: Annotated[
        list[str], typer.Argument(metavar="TEXTS", help="UTF-8 files of one sentence a line; - for standard input.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="ARPA file to write; gzipped if it ends in .gz.", show_default=False)],
    order: Annotated[int, typer.Option(help="Units in the longest n-grams.")] = 3,
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="word|character|phoneme", help="What it is a model of; words, or that of --model, when left out.", show_default=False
        ),
    ] = None,
    prune: Annotated[
        str, typer.Option(metavar="COUNTS", help="'0 0 1' leaves out n-grams of 3 and more units that were seen once.", show_default=False)
    ] = "",
    model: Annotated[
        str | None, typer.Option(help="Make targets of the text as those of this model, in its symbols.", show_default=False)
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(help="Code such as kk, to normalize the text; for phonemes, its espeak-ng voice.", show_default=False),
    ] = None,
    lexicon: Annotated[Path | None, typer.Option(help="Pronunciations, for phonemes.", show_default=False)] = None,
) -> None:
    """Estimate an n-gram language model with modified Kneser-Ney smoothing, as KenLM's lmplz does."""
    check_writable(output)
    if any(output.exists() and Path(text).exists() and output.samefile(text) for text in texts):
        raise ValueError(f"--output {output} is the text that is read; give another name")
    counts = prune.replace(",", " ").split()
    if not all(count.isdecimal() for count in counts):
        raise ValueError(f"--prune is {prune!r}; give counts such as '0 0 1'")
    if model is None and unit != "phoneme" and lexicon is not None:
        raise ValueError("--lexicon has the pronunciations of phonemes; give --unit phoneme with it, or leave it out")

    from hfasr.decoding.lm_text import iter_text, iter_units
    from hfasr.decoding.ngram import KENLM_ORDERS, estimate_ngram, write_arpa

    if order not in KENLM_ORDERS:
        raise ValueError(
            f"--order is {order}; KenLM's packages, by which recognition reads the file, take {KENLM_ORDERS[0]} to {KENLM_ORDERS[-1]}"
        )
    unit, make_target, tokenizer = _as_model(model, unit, language, lexicon) if model else _by_language(unit or "word", language, lexicon)
    lines = iter_units(iter_text(texts), unit, make_target=make_target, tokenizer=tokenizer)
    ngram = estimate_ngram(lines, order, prune=[int(count) for count in counts])
    write_arpa(output, ngram)
    for level, (grams, discounts) in enumerate(zip(ngram.grams, ngram.discounts, strict=True), 1):
        print(f"{level}-grams {len(grams):>12,}   discounts {' '.join(f'{discount:.4f}' for discount in discounts)}")
    print(f"written: {output}")


def _as_model(model: str, unit: str | None, language: str | None, lexicon: Path | None):
    """Return unit, what makes the targets, and the tokenizer whose symbols are counted, as a model has them."""
    from transformers import AutoTokenizer

    from hfasr.models.load import load_model
    from hfasr.text.targets import target_maker

    tokenizer = load_model(model)[1].tokenizer if model.endswith(".nemo") else AutoTokenizer.from_pretrained(model)
    made = target_maker(tokenizer, unit=None if unit == "word" else unit, language=language, lexicon=lexicon)
    phonemes = hasattr(made, "phonemize")
    if unit == "word":
        return unit, made.normalizer if phonemes else made, None
    return "phoneme" if phonemes else "character", made, tokenizer


def _by_language(unit: str, language: str | None, lexicon: Path | None):
    """Return unit, what makes the targets, None for a text that is one already, and no tokenizer."""
    from hfasr.text.normalize import Normalizer
    from hfasr.text.phonemize import Phonemizer

    if unit == "phoneme":
        return unit, None if language is None and lexicon is None else Phonemizer(language, lexicon=lexicon), None
    return unit, None if language is None else Normalizer(language), None
