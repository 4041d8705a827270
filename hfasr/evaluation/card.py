"""README.md: the model card of a run, made from its recipe.json and results.json."""

import json
import os
import re
from pathlib import Path

from hfasr.evaluation.metrics import RATE_NAMES, main_split
from hfasr.files import write_text

BEGIN = "<!-- hfasr:begin, written by hfasr; text outside these marks is kept -->"
END = "<!-- hfasr:end -->"
RATE_TITLES = {
    "per": "Phoneme error rate",
    "pfer": "Phonetic feature error rate",
    "wer": "Word error rate",
    "cer": "Character error rate",
}
_GENERATED_PART = re.compile(r"<!-- hfasr:begin.*?<!-- hfasr:end -->\n?", re.DOTALL)
_FRONT_MATTER = re.compile(r"\A---\s*\n.*?\n---\s*\n?", re.DOTALL)
_GENERATED_FIELDS = (
    "language",
    "license",
    "library_name",
    "pipeline_tag",
    "tags",
    "base_model",
    "datasets",
    "metrics",
    "model-index",
    "model_name",
    "eval_results",
)
# Chosen by name: the rest are paths, names of services and settings that do not change the model.
_HYPER_PARAMETERS = (
    "split_lists",
    "train_parts",
    "validated_rest",
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "tri_stage",
    "tri_stage_final_scale",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "max_batch_seconds",
    "gradient_accumulation_steps",
    "update_seconds",
    "batch_shapes",
    "novograd",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
    "freeze_feature_encoder",
    "freeze_encoder_updates",
    "freeze_layers",
    "layer_decay",
    "lora_rank",
    "lora_alpha",
    "adapter_language",
    "consistency",
    "label_smoothing_factor",
    "ema_decay",
    "average_checkpoints",
    "min_seconds",
    "max_seconds",
    "word_bars",
    "bf16",
    "fp16",
    "seed",
)
_MOST_SYMBOLS = 60


def write_card(run_folder: str | os.PathLike, *, repo_id: str | None = None, license: str | None = None) -> Path:
    """Write or rewrite the model card of a run.

    Text that a person added outside the generated part is kept, and so are front matter fields that are not generated.

    Args:
        run_folder: holds recipe.json, results.json and the checkpoint, whose config.json tells where the rows of its head began and
            whether its code travels with it.
        repo_id: `owner/name` on the Hub, which the usage snippet then loads; else it loads the folder by its name.
        license: of the weights, as the Hub abbreviates it; None keeps the card's, or takes apache-2.0 in a new one. What the base
            model and the corpus permit is for the caller to know.

    Returns:
        The path of README.md.

    Raises:
        FileNotFoundError: no recipe.json or results.json in the folder.
        ValueError: one of them is not JSON or lacks what a card needs.
    """
    import yaml
    from huggingface_hub import ModelCard

    folder = Path(run_folder)
    recipe, results = read_json(folder / "recipe.json"), read_json(folder / "results.json")
    missing = [key for key in ("unit", "language", "corpus", "base_model", "model_type") if key not in recipe]
    if missing:
        raise ValueError(f"{folder / 'recipe.json'} has no {', '.join(missing)}, found {', '.join(recipe)}. Was it written by a recipe?")
    splits = {name: values for name, values in results.items() if isinstance(values, dict) and any(rate in values for rate in RATE_TITLES)}
    if not splits:
        raise ValueError(f"{folder / 'results.json'} holds no split with a rate, found {', '.join(results)}; evaluate the model first")
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    path = folder / "README.md"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    try:
        kept = ModelCard(old, ignore_metadata_errors=True).data.to_dict() if _FRONT_MATTER.match(old) else {}
    except yaml.YAMLError as error:
        raise ValueError(f"the front matter of {path} is not YAML, mend or remove it: {error}") from error
    name = repo_id.rpartition("/")[2] if repo_id else folder.resolve().name
    data = _front_matter(recipe, splits, name, license or kept.get("license") or "apache-2.0")
    for key, value in kept.items():
        if key not in _GENERATED_FIELDS:
            data[key] = value

    parts = [
        f"# {name}",
        _introduction(recipe, splits, config),
        _usage(repo_id or folder.resolve().name, remote_code="auto_map" in config),
        _result_table(splits),
        _training(recipe, results, config),
        _limits(recipe),
    ]
    generated = f"{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}\n"
    prose = _FRONT_MATTER.sub("", old, count=1)
    if _GENERATED_PART.search(prose):
        body = _GENERATED_PART.sub(lambda match: generated, prose, count=1)
    else:
        body = generated + (f"\n{prose.lstrip()}" if prose.strip() else "")
    write_text(path, f"---\n{data.to_yaml()}\n---\n\n{body.lstrip()}")
    return path


def read_json(path: Path) -> dict:
    """The object in a JSON file of a run folder.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON object.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing. Is {path.parent} a run folder with a finished evaluation?")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected an object")
    return content


def public_name(value: str) -> str:
    """`value`, or its last part if it is a path on this machine: what lies above may name a person.

    >>> public_name("/home/ann/data/cv-corpus-25.0/ky"), public_name("runs/ky"), public_name("microsoft/unispeech-large")
    ('cv-corpus-25.0/ky', 'runs/ky', 'microsoft/unispeech-large')
    """
    if not re.match(r"^(/|~|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\|file:)", value):
        return value
    parts = [part for part in re.split(r"[/\\]+", value) if part]
    release = next((place for place, part in enumerate(parts) if part.startswith("cv-corpus")), len(parts) - 1)
    return "/".join(parts[release:])


def _is_hub_name(name: str) -> bool:
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and not name.startswith(".") and not Path(name).exists()


def _corpus_name(recipe: dict) -> str:
    language = recipe.get("language", "")
    if recipe.get("synthetic"):
        return f"hfasr embedded corpus ({language})"
    name = public_name(str(recipe.get("corpus", {}).get("name", ""))) or "unnamed corpus"
    release = re.match(r"cv-corpus-([\d.]+\d)", name)
    return f"Common Voice {release[1]} ({language})" if release else name


def _slug(name: str) -> str:
    return re.sub(r"[^\w/.-]+", "_", name.lower()).strip("_")


def _front_matter(recipe: dict, splits: dict[str, dict], name: str, license: str):
    from huggingface_hub import EvalResult, ModelCardData

    corpus = _corpus_name(recipe)
    base_model = str(recipe.get("base_model", ""))
    rates = [rate for rate in RATE_TITLES if any(rate in values for values in splits.values())]
    tags = ["automatic-speech-recognition", "ctc", "hfasr", recipe.get("model_type"), f"{recipe['unit']}-recognition"]
    tags += ["synthetic-speech"] if recipe.get("synthetic") else []
    evaluations = [
        EvalResult(
            task_type="automatic-speech-recognition",
            task_name="Automatic Speech Recognition",
            dataset_type=_slug(corpus),
            dataset_name=corpus,
            dataset_config=recipe.get("language"),
            dataset_split=split,
            metric_type=rate,
            metric_value=round(100 * values[rate], 2),
            metric_name=f"{RATE_TITLES[rate]} (%)",
            metric_args={"ci95": [round(100 * end, 2) for end in values[f"{rate}_ci95"]]} if f"{rate}_ci95" in values else None,
        )
        for split, values in splits.items()
        for rate in rates
        if rate in values
    ]
    return ModelCardData(
        language=recipe.get("language"),
        license=license,
        library_name="transformers",
        pipeline_tag="automatic-speech-recognition",
        tags=[tag for tag in tags if tag],
        base_model=base_model if _is_hub_name(base_model) else None,
        datasets=[_slug(corpus)],
        metrics=rates,
        model_name=name,
        eval_results=evaluations,
    )


def _introduction(recipe: dict, splits: dict[str, dict], config: dict) -> str:
    split = main_split(splits)
    rate = RATE_NAMES[recipe["unit"]]
    rate = rate if rate in splits[split] else next(name for name in RATE_TITLES if name in splits[split])
    base_model = str(recipe["base_model"])
    start = "fine-tuned" if _is_hub_name(base_model) or _head_start(base_model, config) else "trained"
    text = (
        f"Recognises {recipe['unit']}s of speech in `{recipe['language']}`. A CTC model of type `{recipe['model_type']}`, "
        f"{start} from `{public_name(base_model)}` on {_corpus_name(recipe)} with hfasr.\n\n"
        f"**{RATE_TITLES[rate]} on {split}: {100 * splits[split][rate]:.2f} %**"
    )
    if recipe.get("synthetic"):
        text += (
            "\n\nTraining and test speech are **synthetic**, spoken by espeak-ng. The model shows that the pipeline works; "
            "it was not trained for human voices."
        )
    return text


def _usage(checkpoint: str, remote_code: bool) -> str:
    option = ", trust_remote_code=True" if remote_code else ""
    why = "\nThe model's code travels with the checkpoint, hence `trust_remote_code=True`.\n" if remote_code else ""
    return f"""## Usage

```python
import soundfile
import torch
from transformers import AutoModelForCTC, AutoProcessor

checkpoint = {json.dumps(checkpoint)}  # Hub name or folder
processor = AutoProcessor.from_pretrained(checkpoint{option})
model = AutoModelForCTC.from_pretrained(checkpoint{option}).eval()

waveform, sampling_rate = soundfile.read("speech.wav", dtype="float32")  # mono, 16 kHz
inputs = processor(waveform, sampling_rate=sampling_rate, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
print(processor.batch_decode(logits.argmax(dim=-1))[0])
```
{why}""".rstrip()


def _result_table(splits: dict[str, dict]) -> str:
    rates = [rate for rate in RATE_TITLES if any(rate in values for values in splits.values())]
    columns = ["Split", *(f"{rate.upper()} % (95 % interval)" for rate in rates), "Hits", "Substitutions", "Deletions", "Insertions"]
    columns += ["Utterances", "Minutes"]
    rows = []
    for split, values in splits.items():
        cells = [split]
        for rate in rates:
            low, high = values.get(f"{rate}_ci95", (None, None))
            interval = f" ({100 * low:.2f} to {100 * high:.2f})" if low is not None else ""
            cells.append(f"{100 * values[rate]:.2f}{interval}" if rate in values else "")
        cells += [str(values.get(count, "")) for count in ("hits", "substitutions", "deletions", "insertions", "utterances")]
        cells.append(f"{values['seconds'] / 60:.1f}" if "seconds" in values else "")
        rows.append(cells)
    names = "; ".join(f"{rate.upper()}: {RATE_TITLES[rate].lower()}" for rate in rates)
    return (
        f"## Results\n\n{_table(columns, rows)}\n\n{names}. Intervals are bootstrapped over utterances. See `report.html` for the errors."
    )


def _training(recipe: dict, results: dict, config: dict) -> str:
    splits = recipe.get("corpus", {}).get("splits", {})
    sections = ["## Training", f"Corpus: {_corpus_name(recipe)}."]
    if splits:
        rows = [[split, str(values.get("utterances", "")), _number(values.get("hours"))] for split, values in splits.items()]
        sections.append(_table(["Split", "Utterances", "Hours"], rows))
    espeak = results.get("espeak_version") or recipe.get("targets", {}).get("espeak_version")
    sections.append(f"Targets: {_targets(recipe, espeak)}.")
    if head := _head_start(str(recipe["base_model"]), config):
        sections.append(head)
    arguments = recipe.get("arguments", {})
    # what three stages and NovoGrad replace means nothing beside them
    replaced = ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps") if arguments.get("tri_stage") else ()
    replaced += ("optim", "adam_beta1", "adam_beta2", "adam_epsilon") if arguments.get("novograd") else ()
    replaced += ("layer_decay",) if arguments.get("layer_decay") == 1 else ()
    arguments = {name: value for name, value in arguments.items() if name not in replaced}
    if few := _few_weights(arguments):
        sections.append(few)
    settings = [(name, arguments[name]) for name in _HYPER_PARAMETERS if arguments.get(name) not in (None, "", False, [], {})]
    if settings:
        sections.append(_table(["Setting", "Value"], [[f"`{name}`", public_name(str(value))] for name, value in settings]))
    facts = {
        "Training time": f"{results['train_seconds'] / 60:.1f} minutes" if "train_seconds" in results else None,
        "Parameters": _parameters(recipe),
        "Hardware": recipe.get("hardware"),
        "Recipe": recipe.get("recipe"),
        "Commit": recipe.get("git_commit"),
        "Versions": ", ".join(f"{name} {number}" for name, number in recipe.get("versions", {}).items()) or None,
    }
    rows = [[name, public_name(str(value))] for name, value in facts.items() if value]
    return "\n\n".join([*sections, _table(["", ""], rows)])


def _few_weights(arguments: dict) -> str:
    """Say what was trained where most of the model stayed as it was."""
    if rank := arguments.get("lora_rank"):
        return f"Trained by LoRA of rank {rank}: the weights here have it merged, `lora/` holds it alone, as peft loads it."
    if language := arguments.get("adapter_language"):
        return f"Only the language adapter and the head were trained; `adapter.{language}.safetensors` holds them alone."
    return ""


def _parameters(recipe: dict) -> str | None:
    if not recipe.get("parameters"):
        return None
    trained = recipe.get("trained_parameters")
    part = f", {trained / 1e6:.2f} M trained" if trained is not None and trained != recipe["parameters"] else ""
    return f"{recipe['parameters'] / 1e6:.2f} M{part}"


def _head_start(base_model: str, config: dict) -> str:
    """Where the rows of the CTC head began, as `fit_head` recorded it; empty for a head that was all new."""
    kept, paired, mean = config.get("kept_symbols") or [], config.get("paired_symbols") or {}, config.get("mean_symbols") or 0
    if not (kept or paired or mean):
        return ""
    text = f"{len(kept):,} of {config['vocab_size'] - 1:,} symbols kept the head's rows of `{public_name(base_model)}`"
    text += f": {_symbols(kept, ' ')}" if kept else ""
    text += f"; paired: {_symbols([f'{new} from {old}' for new, old in paired.items()], ', ')}" if paired else ""
    others = "the others start" if mean > 1 else "the other starts"
    return text + (f"; {others} from the mean of the old rows." if mean else ".")


def _symbols(symbols: list[str], joint: str) -> str:
    """A code span, because Markdown would read some symbols as its own; a long list is cut."""
    more = len(symbols) - _MOST_SYMBOLS
    text = joint.join(symbols[:_MOST_SYMBOLS])
    fence = "``" if "`" in text else "`"
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}" + (f" and {more:,} more" if more > 0 else "")


def _targets(recipe: dict, espeak: str | None) -> str:
    """What the model learned to emit; the tokenizer's unit can be finer than the one the rates count."""
    targets = recipe.get("targets", {})
    if recipe["unit"] != "phoneme":
        pieces = targets.get("unit") == "sentencepiece"
        return f"{'sentencepieces' if pieces else 'characters'} of the normalised transcripts"
    source = f"espeak-ng {espeak}" if espeak else "espeak-ng"
    if "lexicon_sha256" not in targets:
        return f"phonemes that {source} reads from the transcripts, in its own notation"
    return "phonemes of a pronunciation lexicon" + (f", and of {source} for words it lacks" if targets.get("voice") else "")


def _limits(recipe: dict) -> str:
    limits = []
    if recipe["unit"] == "phoneme":
        targets = recipe.get("targets", {})
        makers = ["a lexicon"] if "lexicon_sha256" in targets else []
        makers += ["espeak-ng"] if targets.get("voice") or not makers else []
        limits.append(
            f"The phonemes are what {' or '.join(makers)} derives from the spelling, not what a phonetician heard: reductions, dialects "
            "and slips of the tongue are not in the targets, and the error rate is measured against the same kind of target."
        )
        if "espeak-ng" in makers:
            limits.append("Another version of espeak-ng can give other phonemes for the same words; compare rates only within a version.")
    if recipe.get("synthetic"):
        limits.append("It was trained and tested on a speech synthesiser. Its rates say nothing about human speech.")
    limits.append("Speech unlike the corpus (other microphones, noise, accents, children, spontaneous talk) was not tested.")
    limits.append("The intervals take utterances as independent; with few speakers the uncertainty is larger.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def _number(value) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else ""
