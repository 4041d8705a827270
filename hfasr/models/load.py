"""load_model: a CTC model whose head fits the tokenizer, with its processor, from a Hub name, a folder or a configuration.

Shapes: B utterances, S samples, F mel frames, T output frames, V vocabulary.
"""

import copy
import logging
from collections.abc import Callable
from pathlib import Path

import torch
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

from hfasr.text.vocabulary import check_target_record

from .mel import MelFeatureExtractor
from .quartznet import QuartzNetConfig

logger = logging.getLogger(__name__)

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
    "unispeech-tiny": lambda: UniSpeechConfig(**TINY_TRANSFORMER, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True),
    "wav2vec2-tiny": lambda: Wav2Vec2Config(**TINY_TRANSFORMER, feat_extract_norm="group"),
}

HEADS = ("lm_head", "ctc_head")


def load_model(
    name: str | Path | PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    config_overrides: dict | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load a CTC model and its processor, with a head for the given tokenizer.

    A checkpoint's head is rebuilt when a tokenizer is given: the rows of the blank and of the symbols that both vocabularies hold are
    kept, the others initialised as the family initialises its head. `model.config.kept_symbols` lists the kept symbols.

    Args:
        name: Hub name, folder of a saved checkpoint, built-in name (see `BUILT_IN`) or configuration. The last two give random weights.
        tokenizer: its pad token is the CTC blank. None takes the checkpoint's own tokenizer and head.
        config_overrides: configuration fields to change, such as `{"mask_time_prob": 0.75, "ctc_zero_infinity": True}`.
        trust_remote_code: whether code that lies in the checkpoint may run.

    Returns:
        The model, in evaluation mode and float32, and a processor of its feature extractor and tokenizer.

    Raises:
        FileNotFoundError: a folder that is not there or holds no checkpoint.
        OSError: a Hub name that the Hub does not give.
        ValueError: no CTC family, an unknown configuration field, a tokenizer that is missing or does not fit, or whose phonemes
            another version of espeak-ng made.
    """
    config = model_config(name, trust_remote_code=trust_remote_code)
    _override(config, config_overrides or {})
    if isinstance(name, PreTrainedConfig) or str(name) in BUILT_IN:
        return _new_model(config, tokenizer, trust_remote_code)
    name = str(name)
    if tokenizer is not None and config.vocab_size is None:
        config.vocab_size = len(tokenizer)  # pre-trained without a head, such as w2v-BERT
    # float32 whatever the file holds: mixed precision needs full-precision weights to update
    model, report = AutoModelForCTC.from_pretrained(
        name, config=config, dtype=torch.float32, trust_remote_code=trust_remote_code, output_loading_info=True
    )
    has_head = not any(key.startswith(HEADS) for key in report["missing_keys"])
    if tokenizer is None:
        tokenizer = _own_tokenizer(name, model.config, has_head, trust_remote_code)
    else:
        old_tokenizer = _old_tokenizer(name, trust_remote_code) if has_head else None
        if old_tokenizer is not None:
            _check_targets(old_tokenizer, tokenizer)
        fit_head(model, tokenizer, old_tokenizer)
    extractor = _load_feature_extractor(name, model.config, trust_remote_code)
    return model.eval(), _build_processor(model.config, extractor, tokenizer)


def model_config(name: str | Path | PreTrainedConfig, *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Return the configuration of what `load_model` would load, without the weights.

    Raises:
        FileNotFoundError, OSError, ValueError: As `load_model`.
    """
    if isinstance(name, PreTrainedConfig):
        return copy.deepcopy(name)
    return BUILT_IN[str(name)]() if str(name) in BUILT_IN else _load_config(str(name), trust_remote_code)


def fit_head(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, old_tokenizer: PreTrainedTokenizerBase | None) -> list[str]:
    """Rebuild the head for a tokenizer, in place, and set vocabulary size, blank, bos and eos of the configuration.

    Args:
        model: CTC model whose blank is `config.pad_token_id`.
        tokenizer: the new one.
        old_tokenizer: the one the head was trained with; None if the head is untrained or its symbols are unknown: no row is kept.

    Returns:
        The kept symbols, in the order of their new ids, the blank not among them.

    Raises:
        ValueError: the tokenizer has no pad token, or the family ties its head to other weights.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no pad token, which is the CTC blank. Give it a pad_token that is in its vocabulary.")
    head_name, head = _head(model)
    if any(key.startswith(head_name) for key in model.all_tied_weights_keys):
        raise ValueError(f"{type(model).__name__} ties its head to other weights, so it cannot be rebuilt for another vocabulary")
    rows = {} if old_tokenizer is None else _shared_rows(old_tokenizer, tokenizer, model.config.pad_token_id, len(head.weight))
    _resize_head(model, head, len(tokenizer), rows)
    symbols = tokenizer.convert_ids_to_tokens(sorted(rows.keys() - {tokenizer.pad_token_id}))
    config = model.config
    config.vocab_size = len(tokenizer)
    config.pad_token_id, config.bos_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id
    config.kept_symbols = symbols
    if rows:
        logger.info("head: kept the blank and %d of %d symbols: %s", len(symbols), len(tokenizer) - 1, " ".join(symbols))
    else:
        logger.info("head: %d outputs, all new", len(tokenizer))
    return symbols


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
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase | None, trust_remote_code: bool
) -> tuple[PreTrainedModel, ProcessorMixin]:
    if tokenizer is None:
        raise ValueError(f"a {config.model_type} with random weights needs a tokenizer: load_model(name, tokenizer)")
    _check_family(config)
    model = AutoModelForCTC.from_config(config, trust_remote_code=trust_remote_code)
    fit_head(model, tokenizer, None)
    return model.eval(), _build_processor(config, _default_feature_extractor(config), tokenizer)


def _load_config(name: str, trust_remote_code: bool) -> PreTrainedConfig:
    path = Path(name).expanduser()
    if path.is_file():
        raise ValueError(f"{name} is a file, expected the folder of a checkpoint, a Hub name or one of {', '.join(BUILT_IN)}")
    if path.is_dir() and not (path / "config.json").is_file():
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(f"{name} has no config.json, found {found}. Expected a folder that save_pretrained wrote.")
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise FileNotFoundError(f"{name!r} is no folder here, no Hub name (owner/model) and none of {', '.join(BUILT_IN)}")
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"{name!r} is no folder here and could not be had from the Hugging Face Hub: {reason}") from error
    _check_family(config)
    return config


def _check_family(config: PreTrainedConfig) -> None:
    if type(config) not in MODEL_FOR_CTC_MAPPING and "AutoModelForCTC" not in getattr(config, "auto_map", {}):
        raise ValueError(f"{config.model_type} models have no CTC head. Take a family of AutoModelForCTC, such as wav2vec2 or unispeech.")


def _override(config: PreTrainedConfig, overrides: dict) -> None:
    known = config.to_dict()
    unknown = [field for field in overrides if field not in known]
    if unknown:
        raise ValueError(f"config_overrides has {', '.join(unknown)}, which a {config.model_type} configuration does not know")
    for field, value in overrides.items():
        setattr(config, field, value)


def _head(model: PreTrainedModel) -> tuple[str, nn.Linear | nn.Conv1d]:
    for name in HEADS:
        if hasattr(model, name):
            return name, getattr(model, name)
    raise ValueError(f"{type(model).__name__} has no head named {' or '.join(HEADS)}")


def _resize_head(model: PreTrainedModel, head: nn.Linear | nn.Conv1d, size: int, rows: dict[int, int]) -> None:
    """Give the head `size` outputs; `rows` is new id -> old id of the rows to keep, the rest is new."""
    old_weight, old_bias = head.weight.data, head.bias.data
    head.weight = nn.Parameter(old_weight.new_empty(size, *old_weight.shape[1:]))
    head.bias = nn.Parameter(old_bias.new_empty(size))
    setattr(head, "out_features" if isinstance(head, nn.Linear) else "out_channels", size)
    model._init_weights(head)
    new_ids, old_ids = list(rows), list(rows.values())
    head.weight.data[new_ids] = old_weight[old_ids]
    head.bias.data[new_ids] = old_bias[old_ids]


def _shared_rows(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase, old_blank: int, old_size: int) -> dict[int, int]:
    """New id -> old id of the blank and the symbols that both tokenizers hold, for old ids that the head has."""
    old_ids = {symbol: index for symbol, index in _symbol_ids(old).items() if index < old_size and index != old_blank}
    shared = {index: old_ids[symbol] for symbol, index in _symbol_ids(new).items() if symbol in old_ids and index != new.pad_token_id}
    return {new.pad_token_id: old_blank, **shared}


def _symbol_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Symbol -> id, with one name for the word boundary, which some tokenizers write as a space."""
    boundaries = {" ", getattr(tokenizer, "word_delimiter_token", None)}
    return {"|" if symbol in boundaries else symbol: index for symbol, index in tokenizer.get_vocab().items()}


def _old_tokenizer(name: str, trust_remote_code: bool) -> PreTrainedTokenizerBase | None:
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    # a checkpoint without vocabulary files: Transformers opens None (TypeError) or finds no class (ValueError, OSError)
    except (OSError, TypeError, ValueError) as error:
        logger.warning("%s has a CTC head but no tokenizer that names its symbols (%s): no row of the head is kept", name, error)
        return None


def _check_targets(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> None:
    """Refuse equal symbols that mean something else: those of one voice in two versions of espeak-ng."""
    stored, record = (tokenizer.init_kwargs.get("hfasr") or {} for tokenizer in (old, new))
    if stored.get("voice") is not None and stored["voice"] == record.get("voice"):
        check_target_record(stored, record, same_rows=False)


def _own_tokenizer(name: str, config: PreTrainedConfig, has_head: bool, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Load the checkpoint's own tokenizer and check that the head fits it."""
    if not has_head:
        raise ValueError(f"{name} has no CTC head yet. Give a tokenizer: load_model(name, tokenizer)")
    tokenizer = _old_tokenizer(name, trust_remote_code)
    if tokenizer is None:
        raise ValueError(f"{name} holds no tokenizer. Give one: load_model(name, tokenizer)")
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
    if isinstance(config, QuartzNetConfig):
        return MelFeatureExtractor(feature_size=config.num_mel_bins, hop_length=config.hop_length)
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
    return samples
