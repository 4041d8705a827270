"""NVIDIA NeMo's `.nemo` checkpoints of QuartzNet and Citrinet CTC models as Transformers models.

The blank, NeMo's last output, becomes output 0 and label k output k + 1; but for this order the log-probabilities are NeMo's.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from transformers import PreTrainedTokenizerBase, Wav2Vec2Processor

from hfasr.files import temporary_beside

from .citrinet import CitrinetConfig, CitrinetForCTC
from .mel import FRAMINGS, MelFeatureExtractor
from .nemo_archive import NemoArchive, open_archive, shown
from .nemo_config import Plan, Section, check_target, framing_of, read_front_end, read_plan
from .nemo_vocabulary import SPECIAL_TOKENS, character_tokenizer, sentencepiece_tokenizer, wordpiece_tokenizer
from .quartznet import QuartzNetConfig, QuartzNetForCTC

_IGNORED = ("preprocessor.", "loss.", "spec_augmentation.", "decoding.")
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_MOST_NAMED = 3
_MOST_TOKENIZER_BYTES = 16 << 20


@dataclass(frozen=True)
class NemoCheckpoint:
    """What a `.nemo` archive holds.

    Attributes:
        config: of the model, a QuartzNetConfig or CitrinetConfig.
        weights: the model's state dict, float32.
        tokenizer: labels, pieces or tokens behind the blank, id 0.
        feature_extractor: NeMo's front end; its `framing` is the convention of the version, see `framing_reason`.
        labels: NeMo's labels in their order, without the blank; they may hold any character.
        target: NeMo's class, as the archive has it.
        framing_reason: why this framing.
        remarks: what a user should know, a sentence each.
    """

    config: QuartzNetConfig | CitrinetConfig
    weights: dict[str, torch.Tensor]
    tokenizer: PreTrainedTokenizerBase
    feature_extractor: MelFeatureExtractor
    labels: tuple[str, ...]
    target: str
    framing_reason: str
    remarks: tuple[str, ...]


def read_nemo(path: str | Path, *, framing: str | None = None) -> NemoCheckpoint:
    """Read a `.nemo` archive, which is not trusted.

    Args:
        path: the archive, tar or tar.gz.
        framing: "current" (NeMo 2.5 and newer) or "nemo24" (older); None follows the archive's `nemo_version`. A model trained with an
            older NeMo and saved again with a newer one names the newer: give "nemo24" then.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such archive, a class or option that is not supported, weights that do not fit or hold more than tensors.
    """
    if framing not in (None, *FRAMINGS):
        raise ValueError(f"framing is {framing!r}, expected one of {', '.join(FRAMINGS)}")
    with _opened(path) as archive:
        return _read(archive, framing)


def read_nemo_config(path: str | Path) -> QuartzNetConfig | CitrinetConfig:
    """Read the configuration of the model alone, without its weights.

    Raises:
        FileNotFoundError, ValueError: see `read_nemo`.
    """
    with _opened(path) as archive:
        config = Section(archive.config(), "")
        check_target(config)
        return read_plan(config, read_front_end(config, FRAMINGS[0]).hop_length).config


@contextmanager
def _opened(path: str | Path) -> Iterator[NemoArchive]:
    """Open an archive; its errors begin with its path."""
    path = Path(path).expanduser()
    try:
        with open_archive(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def build_nemo(checkpoint: NemoCheckpoint) -> tuple[QuartzNetForCTC | CitrinetForCTC, Wav2Vec2Processor]:
    """Build the model, in evaluation mode, which takes over the checkpoint's tensors, and its processor."""
    model = _empty_model(checkpoint.config)
    model.load_state_dict(checkpoint.weights, assign=True)
    return model.eval(), Wav2Vec2Processor(feature_extractor=checkpoint.feature_extractor, tokenizer=checkpoint.tokenizer)


def import_nemo(path: str | Path, folder: str | Path, *, framing: str | None = None) -> NemoCheckpoint:
    """Write a `.nemo` archive as a Transformers checkpoint, whole or not at all.

    Args:
        path, framing: see `read_nemo`.
        folder: to make; an empty one may be there.

    Returns:
        What was in the archive.

    Raises:
        FileNotFoundError, ValueError: see `read_nemo`; or the folder is there and not empty.
    """
    folder = Path(folder).expanduser().absolute()
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise ValueError(f"{folder} is there already, expected a new or an empty folder, and no link")
    checkpoint = read_nemo(path, framing=framing)
    model, processor = build_nemo(checkpoint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(folder)
    try:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return checkpoint


def nemo_names(config: QuartzNetConfig | CitrinetConfig, masked: bool = True) -> dict[str, str]:
    """Map NeMo's names of all weights to ours.

    Args:
        config: of the model.
        masked: whether NeMo's convolutions are masked ones, whose names have a part more.
    """
    conv = "conv.weight" if masked else "weight"
    prefix = "citrinet" if isinstance(config, CitrinetConfig) else "quartznet"
    names = {}
    for index, block in enumerate(config.blocks):
        theirs, ours = f"encoder.encoder.{index}", f"{prefix}.blocks.{index}"
        convs = ("depthwise", "pointwise") if block.get("separable", True) else ("conv",)
        # activation and dropout take a place each, but hold no weight
        step, repeat = len(convs) + 3, block.get("repeat", 1)
        for layer in range(repeat):
            for place, name in enumerate(convs, start=layer * step):
                names[f"{theirs}.mconv.{place}.{conv}"] = f"{ours}.layers.{layer}.{name}.weight"
            names |= {f"{theirs}.mconv.{layer * step + len(convs)}.{part}": f"{ours}.layers.{layer}.norm.{part}" for part in _NORM}
        if block.get("squeeze_excite"):
            place = (repeat - 1) * step + len(convs) + 1
            names[f"{theirs}.mconv.{place}.fc.0.weight"] = f"{ours}.squeeze_excite.down.weight"
            names[f"{theirs}.mconv.{place}.fc.2.weight"] = f"{ours}.squeeze_excite.up.weight"
        if block.get("residual"):
            names[f"{theirs}.res.0.0.{conv}"] = f"{ours}.residual.conv.weight"
            names |= {f"{theirs}.res.0.1.{part}": f"{ours}.residual.norm.{part}" for part in _NORM}
    return names | {f"decoder.decoder_layers.0.{part}": f"lm_head.{part}" for part in ("weight", "bias")}


def _read(archive: NemoArchive, framing: str | None) -> NemoCheckpoint:
    config = Section(archive.config(), "")
    target = check_target(config)
    guessed, reason = framing_of(config)
    extractor = read_front_end(config, framing or guessed)
    plan = read_plan(config, extractor.hop_length)
    if plan.config.num_mel_bins != extractor.feature_size:
        raise ValueError(f"encoder.feat_in is {plan.config.num_mel_bins}, but the preprocessor gives {extractor.feature_size} features")
    tokenizer, labels = _vocabulary(archive, config, plan)
    with archive.weights() as stored:
        rounded = _check_front_end(stored, extractor)
        weights = _our_weights(stored, plan)
    return NemoCheckpoint(
        config=plan.config,
        weights=weights,
        tokenizer=tokenizer,
        feature_extractor=extractor,
        labels=tuple(labels),
        target=target,
        framing_reason=reason if framing is None else "as asked for",
        remarks=(*_remarks(config, plan), *rounded),
    )


def _remarks(config: Section, plan: Plan) -> list[str]:
    remarks = []
    if not plan.masked:
        remarks.append(
            "conv_mask is false, so NeMo let padding leak into every frame; here it is masked, and the log-probabilities differ from NeMo's"
        )
    if any(config.section("preprocessor").options.get(name) for name in ("stft_conv", "stft_exact_pad")):
        remarks.append("stft_conv or stft_exact_pad is set, which NeMo 1.1 and newer ignores, and so does this import")
    augmentation = config.section("spec_augment").class_name()
    if augmentation not in ("SpectrogramAugmentation", ""):
        remarks.append(f"spec_augment is a {shown(augmentation)}, which is not taken over: training goes without augmentation")
    return remarks


def _vocabulary(archive: NemoArchive, config: Section, plan: Plan) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """Tokenizer and labels; those of the decoder, as the top-level `labels` stay behind when NeMo's change_vocabulary is called."""
    if config.class_name("target") == "EncDecCTCModel":
        if plan.labels is None:
            raise ValueError("decoder.vocabulary is missing, so the labels are unknown")
        return character_tokenizer(plan.labels), plan.labels
    options = config.section("tokenizer")
    kind = options.options.get("type")
    if kind not in ("bpe", "wpe"):
        raise options.wrong("type", "bpe (sentencepiece) or wpe (wordpiece)")
    if kind == "bpe":
        content = archive.read(_member(archive, options, "model_path", "tokenizer.model"), _MOST_TOKENIZER_BYTES)
        tokenizer, labels = sentencepiece_tokenizer(content)
    else:
        content = archive.read(_member(archive, options, "vocab_path", "vocab.txt"), _MOST_TOKENIZER_BYTES)
        named = options.section("hf_kwargs").options
        special = {name: named[name] for name in SPECIAL_TOKENS if isinstance(named.get(name), str) and named[name]}
        tokenizer, labels = wordpiece_tokenizer(content, special, plan.labels)
    if len(labels) != plan.config.vocab_size - 1:
        raise ValueError(f"the tokenizer has {len(labels)} pieces, but the decoder {plan.config.vocab_size - 1} classes")
    return tokenizer, labels


def _member(archive: NemoArchive, options: Section, option: str, usual: str) -> str:
    """Member that an option of the tokenizer names as `nemo:NAME`; old archives hold a path of the machine that saved them."""
    named = options.options.get(option)
    if isinstance(named, str) and named:
        return named.removeprefix("nemo:") if named.startswith("nemo:") else PurePosixPath(named).name
    return next((name for name in archive.names if name.endswith(usual)), usual)


def _check_front_end(stored: dict[str, torch.Tensor], extractor: MelFeatureExtractor) -> list[str]:
    """Compare window and mel filters with the archive's copies, which NeMo would use; return what is worth a remark."""
    computed = {"window": extractor.window_samples(), "fb": extractor.mel_filters().T[None]}
    rounded = []
    for name, ours in computed.items():
        theirs = stored.get(f"preprocessor.featurizer.{name}")
        if theirs is None:
            continue
        if theirs.shape != ours.shape or not theirs.is_floating_point():
            raise ValueError(f"preprocessor.featurizer.{name} has shape {_shape(theirs)}, the config gives {_shape(ours)}")
        difference = (theirs.to(ours.dtype) - ours).abs().max() / ours.abs().max()
        if not difference <= torch.finfo(torch.bfloat16).eps:
            raise ValueError(
                f"preprocessor.featurizer.{name} of the archive is not the one that the config describes, and NeMo would use it"
            )
        if difference > 1e-6:
            rounded.append(name)
    if not rounded:
        return []
    return [f"{' and '.join(rounded)} of the archive were rounded to half precision, which NeMo would use; here they are exact"]


def _our_weights(stored: dict[str, torch.Tensor], plan: Plan) -> dict[str, torch.Tensor]:
    """NeMo's weights under our names, float32, the blank first."""
    names = nemo_names(plan.config, plan.masked)
    expected = {name: tensor.shape for name, tensor in _empty_model(plan.config).state_dict().items()}
    # the head is a convolution over one frame
    expected["lm_head.weight"] = torch.Size([*expected["lm_head.weight"], 1])
    found = {name: tensor for name, tensor in stored.items() if not name.startswith(_IGNORED)}
    differences = [f"missing {name}" for name in names if name not in found]
    differences += [f"unexpected {shown(name)}" for name in found if name not in names]
    differences += [
        f"{name} has shape {_shape(found[name])} instead of {tuple(expected[ours])}"
        for name, ours in names.items()
        if name in found and found[name].shape != expected[ours]
    ]
    if differences:
        more = f" and {len(differences) - _MOST_NAMED} more" if len(differences) > _MOST_NAMED else ""
        raise ValueError(f"the weights do not fit the config: {', '.join(_first_of_each(differences))}{more}")
    weights = {}
    for name, ours in names.items():
        weights[ours] = _copied(name, found[name])
    order = [plan.config.vocab_size - 1, *range(plan.config.vocab_size - 1)]
    weights["lm_head.weight"] = weights["lm_head.weight"].squeeze(-1)[order]
    weights["lm_head.bias"] = weights["lm_head.bias"][order]
    return weights


def _first_of_each(differences: list[str]) -> list[str]:
    """The first few differences, of each kind one before a second of any."""
    seen: dict[str, int] = {}
    ranked = []
    for place, difference in enumerate(differences):
        kind = difference.split(" ")[0] if difference.startswith(("missing ", "unexpected ")) else "shape"
        seen[kind] = seen.get(kind, 0) + 1
        ranked.append((seen[kind], place, difference))
    return [difference for _, _, difference in sorted(ranked)[:_MOST_NAMED]]


def _copied(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Copy a weight into memory; counts stay whole numbers."""
    if name.endswith("num_batches_tracked"):
        return tensor.detach().to(torch.int64, copy=True)
    if not tensor.is_floating_point():
        raise ValueError(f"{name} holds {str(tensor.dtype).removeprefix('torch.')}, expected floating point")
    weight = tensor.detach().to(torch.float32, copy=True).contiguous()
    if not weight.isfinite().all():
        raise ValueError(f"{name} holds values that are infinite or not a number")
    return weight


def _empty_model(config: QuartzNetConfig | CitrinetConfig) -> QuartzNetForCTC | CitrinetForCTC:
    """Model whose weights have shapes, but take no memory."""
    with torch.device("meta"):
        return (CitrinetForCTC if isinstance(config, CitrinetConfig) else QuartzNetForCTC)(config)


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[:6])
