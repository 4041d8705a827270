"""load_model: a CTC model whose head fits the tokenizer, with its processor, from a Hub name, a folder, a .nemo file or a configuration.

Shapes: B utterances, S samples, F mel frames, T output frames, V vocabulary.
"""

import copy
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForCTC,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    SeamlessM4TFeatureExtractor,
    SequenceFeatureExtractor,
    UniSpeechConfig,
    Wav2Vec2BertProcessor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING

from hfasr.text.vocabulary import check_target_record, stored_record

from .citrinet import CitrinetConfig
from .encoder import ConvEncoderConfig
from .head import HEADS, fit_head
from .mel import MelFeatureExtractor
from .quartznet import QuartzNetConfig

logger = logging.getLogger(__name__)

# what follows from the weights, the vocabulary and the front end of a .nemo archive
_SETTLED = ("model_type", "blocks", "vocab_size", "pad_token_id", "num_mel_bins", "hop_length")

# under 1 M parameters: 4 layers of width 128 behind the usual 20 ms feature encoder, here 64 channels wide
TINY_TRANSFORMER = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "conv_dim": (64,) * 7,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 16,
    "ctc_loss_reduction": "mean",
}

# name -> configuration of a model to train from scratch
BUILT_IN: dict[str, Callable[[], PreTrainedConfig]] = {
    "quartznet-small": lambda: QuartzNetConfig.from_name("small"),
    "quartznet-5x1": lambda: QuartzNetConfig.from_name("5x1"),
    "quartznet-5x3": lambda: QuartzNetConfig.from_name("5x3"),
    "quartznet-10x5": lambda: QuartzNetConfig.from_name("10x5"),
    "quartznet-15x5": lambda: QuartzNetConfig.from_name("15x5"),
    "citrinet-small": lambda: CitrinetConfig.from_name("small"),
    "citrinet-256": lambda: CitrinetConfig.from_name("256"),
    "citrinet-384": lambda: CitrinetConfig.from_name("384"),
    "citrinet-512": lambda: CitrinetConfig.from_name("512"),
    "citrinet-1024": lambda: CitrinetConfig.from_name("1024-gamma-0.25"),
    "unispeech-tiny": lambda: UniSpeechConfig(**TINY_TRANSFORMER, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True),
    "wav2vec2-tiny": lambda: Wav2Vec2Config(**TINY_TRANSFORMER, feat_extract_norm="group"),
}


def load_model(
    name: str | Path | PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    symbol_pairs: Mapping[str, str | Sequence[str]] | None = None,
    config_overrides: dict | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load a CTC model and its processor, with a head for the given tokenizer.

    A checkpoint's head is rebuilt when a tokenizer is given: the rows of the blank and of the symbols that both vocabularies hold are
    kept, paired symbols start from the row of the other, the rest from the mean of the old rows (see `fit_head`). The configuration
    says which: `kept_symbols`, `paired_symbols`, `mean_symbols`.

    Args:
        name: Hub name, folder of a saved checkpoint, .nemo file, built-in name (see `BUILT_IN`) or configuration. The last two give
            random weights.
        tokenizer: its pad token is the CTC blank. None takes the checkpoint's own tokenizer and head.
        symbol_pairs: new symbol -> the checkpoint's symbol that sounds most like it, such as `{"қ": "к"}`, or a list of such; needs a
            tokenizer.
        config_overrides: configuration fields to change, such as `{"mask_time_prob": 0.75, "ctc_zero_infinity": True}`.
        trust_remote_code: whether code that lies in the checkpoint may run.

    Returns:
        The model, in evaluation mode and float32, and a processor of its feature extractor and tokenizer.

    Raises:
        FileNotFoundError: a folder that is not there or holds no checkpoint.
        OSError: a Hub name that the Hub does not give.
        ValueError: no CTC family, a configuration field that is unknown, out of range or settled by the .nemo file, a tokenizer that is
            missing or does not fit, or whose phonemes another version of espeak-ng made, pairs that are not of symbols or come without a
            tokenizer.
    """
    if symbol_pairs and tokenizer is None:
        raise ValueError("symbol_pairs pairs the checkpoint's symbols with those of a tokenizer: load_model(name, tokenizer, ...)")
    if is_nemo(name):
        model, extractor, own = _read_nemo(name, config_overrides or {})
    else:
        config = _overridden(model_config(name, trust_remote_code=trust_remote_code), config_overrides or {})
        if tokenizer is not None and config.vocab_size is None:
            config.vocab_size = len(tokenizer)  # of a model without a head, such as w2v-BERT
        if isinstance(name, PreTrainedConfig) or str(name) in BUILT_IN:
            return _new_model(config, tokenizer, symbol_pairs, trust_remote_code)
        model, extractor, own = _read_checkpoint(str(name), config, tokenizer is None, trust_remote_code)
    if tokenizer is None:
        tokenizer = own
    else:
        if own is not None:
            _check_targets(own, tokenizer)
        fit_head(model, tokenizer, own, symbol_pairs)
    return model.eval(), _build_processor(model.config, extractor, tokenizer)


def model_config(name: str | Path | PreTrainedConfig, *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Return the configuration of what `load_model` would load, without the weights.

    Raises:
        FileNotFoundError, OSError, ValueError: As `load_model`.
    """
    if isinstance(name, PreTrainedConfig):
        return copy.deepcopy(name)
    if is_nemo(name):
        from .nemo import read_nemo_config

        return read_nemo_config(name)
    return BUILT_IN[str(name)]() if str(name) in BUILT_IN else _load_config(str(name), trust_remote_code)


def is_nemo(name: str | Path | PreTrainedConfig) -> bool:
    """Tell whether a file is there that is named .nemo, or is a tar or gzip archive as those are."""
    if isinstance(name, PreTrainedConfig) or not (path := Path(name).expanduser()).is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(512)
    return path.suffix == ".nemo" or start[257:262] == b"ustar" or start[:2] == b"\x1f\x8b"


def output_lengths(model: PreTrainedModel, input_lengths: torch.Tensor) -> torch.Tensor:
    """Frames of the logits.

    Args:
        model: CTC model of any family.
        input_lengths: (B,), what the attention mask counts: samples for models of `input_values`, frames for models of
            `input_features`.

    Returns:
        int64 (B,), 0 for inputs too short for one frame.

    Raises:
        ValueError: the family does not say how its lengths shrink.
    """
    # raw-waveform families, w2v-BERT and QuartzNet have the first, the Conformers with convolutional subsampling the second
    for rule in ("_get_feat_extract_output_lengths", "_get_subsampling_output_length"):
        if hasattr(model, rule):
            return getattr(model, rule)(input_lengths).long().clamp(min=0)
    raise ValueError(f"{type(model).__name__} does not say how many frames its logits have")


def freeze_feature_encoder(model: PreTrainedModel) -> list[str]:
    """Stop training of the convolutions over the raw waveform.

    Returns:
        The names of the parameters; empty for families without such an encoder.
    """
    if not hasattr(model, "freeze_feature_encoder"):
        return []
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.freeze_feature_encoder()
    return [name for name, parameter in model.named_parameters() if name in trained and not parameter.requires_grad]


def encoder_of(model: PreTrainedModel) -> nn.Module:
    """Everything below the CTC head."""
    return model.base_model if model.base_model is not model else model.encoder


def _new_model(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    symbol_pairs: Mapping[str, str | Sequence[str]] | None,
    trust_remote_code: bool,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    if tokenizer is None:
        raise ValueError(f"a {config.model_type} with random weights needs a tokenizer: load_model(name, tokenizer)")
    _check_family(config)
    model = AutoModelForCTC.from_config(config, trust_remote_code=trust_remote_code)
    fit_head(model, tokenizer, None, symbol_pairs)
    return model.eval(), _build_processor(config, _default_feature_extractor(config), tokenizer)


def _read_checkpoint(
    name: str, config: PreTrainedConfig, own_head: bool, trust_remote_code: bool
) -> tuple[PreTrainedModel, SequenceFeatureExtractor, PreTrainedTokenizerBase | None]:
    """Read a Transformers checkpoint; its tokenizer is None if the head is untrained or its symbols are unknown.

    Args:
        own_head: whether the checkpoint's own head and tokenizer are wanted, and must be there and fit.
    """
    # float32 whatever the file holds: mixed precision needs full-precision weights to update
    try:
        model, report = AutoModelForCTC.from_pretrained(
            name, config=config, dtype=torch.float32, trust_remote_code=trust_remote_code, output_loading_info=True
        )
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(f"{name}: its weights have other shapes than its config.json says; take both from one checkpoint") from error
    except (SafetensorError, OSError) as error:
        if isinstance(error, OSError) and error.errno is None:  # of Transformers, in words
            raise
        raise ValueError(f"{name}: its weights are no whole file ({error}); copy or download them again") from error
    has_head = not any(key.startswith(HEADS) for key in report["missing_keys"])
    if own_head:
        tokenizer = _own_tokenizer(name, model.config, has_head, trust_remote_code)
    else:
        tokenizer = _old_tokenizer(name, trust_remote_code) if has_head else None
        if has_head and tokenizer is None:
            logger.warning("%s has a CTC head but no tokenizer that names its symbols: no row of the head is kept", name)
    return model, _load_feature_extractor(name, model.config, trust_remote_code), tokenizer


def _read_nemo(name: str | Path, config_overrides: dict) -> tuple[PreTrainedModel, SequenceFeatureExtractor, PreTrainedTokenizerBase]:
    from .nemo import build_nemo, read_nemo

    checkpoint = read_nemo(name)
    logger.info("%s: front end %r, %s", name, checkpoint.feature_extractor.framing, checkpoint.framing_reason)
    for remark in checkpoint.remarks:
        logger.warning("%s: %s", name, remark)
    settled = [field for field in _SETTLED if field in config_overrides and config_overrides[field] != getattr(checkpoint.config, field)]
    if settled:
        raise ValueError(f"config_overrides changes {', '.join(settled)}, which {name} settles; other fields may change")
    model, processor = build_nemo(dataclasses.replace(checkpoint, config=_overridden(checkpoint.config, config_overrides)))
    return model, processor.feature_extractor, processor.tokenizer


def _load_config(name: str, trust_remote_code: bool) -> PreTrainedConfig:
    path = Path(name).expanduser()
    if path.is_file():
        raise ValueError(f"{name} is no .nemo file, expected one, the folder of a checkpoint, a Hub name or one of {', '.join(BUILT_IN)}")
    if path.is_dir() and not (path / "config.json").is_file():
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(f"{name} has no config.json, found {found}. Expected a folder that save_pretrained wrote.")
    if not path.exists() and (name.startswith((".", "/", "~")) or name.endswith(".nemo") or name.count("/") != 1):
        raise FileNotFoundError(f"{name!r} is no folder or .nemo file here, no Hub name (owner/model) and none of {', '.join(BUILT_IN)}")
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except OSError as error:
        reason = str(error).splitlines()[0]
        if path.is_dir():
            raise OSError(f"{name}/config.json cannot be read: {reason}") from error
        raise OSError(f"{name!r} is no folder here and could not be had from the Hugging Face Hub: {reason}") from error
    _check_family(config)
    return config


def _check_family(config: PreTrainedConfig) -> None:
    if type(config) not in MODEL_FOR_CTC_MAPPING and "AutoModelForCTC" not in getattr(config, "auto_map", {}):
        raise ValueError(f"{config.model_type} models have no CTC head. Take a family of AutoModelForCTC, such as wav2vec2 or unispeech.")


def _overridden(config: PreTrainedConfig, overrides: dict) -> PreTrainedConfig:
    """Return the configuration, which may be changed in place, with other values."""
    known = config.to_dict()
    unknown = [field for field in overrides if field not in known]
    if unknown:
        raise ValueError(f"config_overrides has {', '.join(unknown)}, which a {config.model_type} configuration does not know")
    if isinstance(config, ConvEncoderConfig):
        # its constructor checks them
        return type(config).from_dict({**known, **overrides})
    # Transformers' own check what is set; made anew, they would lose their attention implementation
    for field, value in overrides.items():
        setattr(config, field, value)
    return config


def _old_tokenizer(name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase | None:
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    # a checkpoint without vocabulary files: Transformers opens None (TypeError) or finds no class (ValueError, OSError)
    except (OSError, TypeError, ValueError) as error:
        logger.debug("%s has no tokenizer: %s", name, error)
        return None


def _check_targets(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> None:
    """Refuse equal symbols that mean something else: those of one voice in two versions of espeak-ng."""
    stored, record = map(stored_record, (old, new))
    if stored.get("voice") is not None and stored["voice"] == record.get("voice"):
        check_target_record(stored, record, same_rows=False)


def _own_tokenizer(name: str, config: PreTrainedConfig, has_head: bool, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Load the checkpoint's own tokenizer and check that the head fits it."""
    if not has_head:
        raise ValueError(f"{name} has no CTC head yet. Give a tokenizer: load_model(name, tokenizer)")
    tokenizer = _old_tokenizer(name, trust_remote_code)
    if tokenizer is None:
        raise ValueError(
            f"{name} holds no tokenizer, so that nobody knows what its outputs mean. Copy the files of its tokenizer into it"
            " (vocab.json, tokenizer_config.json), or give one: load_model(name, tokenizer)"
        )
    # Wav2Vec2CTCTokenizer appends bos and eos behind the vocabulary; many published heads have no rows for them
    boundaries = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    symbols = 1 + max(index for index in tokenizer.get_vocab().values() if index not in boundaries)
    if config.vocab_size not in (len(tokenizer), symbols):
        raise ValueError(f"{name}: the head has {config.vocab_size} outputs, its tokenizer {len(tokenizer)} symbols")
    if config.pad_token_id is None or config.pad_token_id != tokenizer.pad_token_id or config.pad_token_id >= config.vocab_size:
        raise ValueError(
            f"{name}: the blank is {config.pad_token_id} in the configuration and {tokenizer.pad_token_id} in the tokenizer,"
            f" expected the same id below {config.vocab_size}"
        )
    return tokenizer


def _load_feature_extractor(name: str, config: PreTrainedConfig, trust_remote_code: bool) -> SequenceFeatureExtractor:
    try:
        extractor = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=trust_remote_code)
    except OSError:
        logger.info("%s has no feature extractor, taking the usual one of its family", name)
        return _default_feature_extractor(config)
    if getattr(config, "feat_extract_norm", None) == "layer":
        # without a mask padding changes half of what these models say; group-norm models stay as published
        extractor.return_attention_mask = True
    return extractor


def _default_feature_extractor(config: PreTrainedConfig) -> SequenceFeatureExtractor:
    if isinstance(config, ConvEncoderConfig):
        window_length = 400 if isinstance(config, CitrinetConfig) else 320  # as their authors trained them
        return MelFeatureExtractor(feature_size=config.num_mel_bins, hop_length=config.hop_length, window_length=window_length)
    if config.model_type == "wav2vec2-bert":
        return SeamlessM4TFeatureExtractor(num_mel_bins=config.feature_projection_input_dim // 2, padding_value=1.0)
    if hasattr(config, "conv_stride"):
        layer_norm = getattr(config, "feat_extract_norm", "layer") == "layer"
        return Wav2Vec2FeatureExtractor(return_attention_mask=layer_norm)
    raise ValueError(f"no feature extractor is known for a {config.model_type} without a preprocessor_config.json")


def _build_processor(config: PreTrainedConfig, extractor: SequenceFeatureExtractor, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin:
    processor_class = Wav2Vec2BertProcessor if config.model_type == "wav2vec2-bert" else Wav2Vec2Processor
    return processor_class(feature_extractor=extractor, tokenizer=tokenizer)


def input_lengths(processor: ProcessorMixin, samples: torch.Tensor) -> torch.Tensor:
    """Return what the attention mask will count for utterances of `samples` (B,): samples, or frames of the feature extractor."""
    extractor = processor.feature_extractor
    if isinstance(extractor, MelFeatureExtractor):
        return extractor.frame_count(samples)
    if isinstance(extractor, SeamlessM4TFeatureExtractor):
        # Kaldi's frames of 25 ms every 10 ms, stacked in pairs
        return ((samples - 400) // 160 + 1).clamp(min=0) // extractor.stride
    # by name, for they need not be in every version of Transformers
    kind = type(extractor).__name__
    if kind == "ParakeetFeatureExtractor":
        return samples // extractor.hop_length
    if kind == "LasrFeatureExtractor":
        return ((samples - extractor.win_length) // extractor.hop_length + 1).clamp(min=0)
    if kind == "GraniteSpeech5FeatureExtractor":
        return -(-(samples // extractor.hop_length) // extractor.frame_stacking)
    return samples
