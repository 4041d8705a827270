"""The configuration of a `.nemo` checkpoint as those of our model and feature extractor; what they cannot do is refused by name.

Follows nemo/collections/asr/modules/{conv_asr,audio_preprocessing}.py, parts/submodules/jasper.py and parts/preprocessing/features.py.
"""

import math
import re
import reprlib
from dataclasses import dataclass

from .citrinet import CitrinetConfig, scaled_kernel
from .encoder import BLOCK_DEFAULTS
from .mel import MelFeatureExtractor
from .nemo_archive import shown
from .quartznet import QuartzNetConfig

MODELS = ("EncDecCTCModel", "EncDecCTCModelBPE")
_SUPPORTED = f"{' and '.join(MODELS)} with ConvASREncoder and ConvASRDecoder, which are QuartzNet and Citrinet"
# far above any published model; they keep a made-up configuration from asking for any amount of memory
_MOST_CONVOLUTIONS, _MOST_CHANNELS, _MOST_LABELS = 1000, 1 << 14, 200_000
# the first version that frames the waveform in the current way (NeMo pull request 13827)
_CURRENT_FRAMING = (2, 5)
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 1, 4, 4, 60, 60


@dataclass(frozen=True)
class Section:
    """A part of the configuration: options by name, and where they stand, for messages."""

    options: dict
    where: str

    def section(self, name: str) -> "Section":
        """Return a part of this one, empty if it is missing; `cls` and `params` of NeMo 1.0's betas are `_target_` and options."""
        found = self.options.get(name)
        if found is None:
            found = {}
        if not isinstance(found, dict):
            raise self.wrong(name, "a mapping of options")
        if isinstance(found.get("params"), dict):
            found = {"_target_": found.get("cls"), **found["params"]}
        return Section(found, f"{self.where}.{name}".lstrip("."))

    def class_name(self, name: str = "_target_") -> str:
        """Return the last part of a class that is named with its modules, "" where none is named."""
        found = self.options.get(name)
        return found.rpartition(".")[2] if isinstance(found, str) else ""

    def whole(self, name: str, default: int | None, low: int = 1, high: int = _MOST_CHANNELS) -> int:
        """Return a whole number; a list of one, as NeMo writes sizes of convolutions, counts as that one."""
        found = self.options.get(name, default)
        if isinstance(found, list) and len(found) == 1:
            found = found[0]
        if isinstance(found, bool) or not isinstance(found, int) or not low <= found <= high:
            raise self.wrong(name, f"a whole number from {low} to {high}")
        return found

    def number(self, name: str, default: float, low: float = 0.0, high: float = 1e6) -> float:
        """Return a number."""
        found = self.options.get(name, default)
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not low <= found <= high:
            raise self.wrong(name, f"a number from {low:g} to {high:g}")
        return float(found)

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false; null is false."""
        found = self.options.get(name, default)
        if found not in (True, False, None):
            raise self.wrong(name, "true or false")
        return bool(found)

    def only(self, name: str, *supported: object) -> None:
        """Refuse an option that is there with a value that is not supported; the first one is NeMo's default."""
        found = self.options.get(name, supported[0])
        if not any(found == value and isinstance(found, bool) == isinstance(value, bool) for value in supported):
            known = " or ".join(dict.fromkeys("null" if value is None else str(value).lower() for value in supported))
            raise self.wrong(name, f"{known}, as nothing else is supported")

    def wrong(self, name: str, expected: str) -> ValueError:
        """Return the error that says what an option is, and what was expected."""
        found = _SHORT.repr(self.options[name]) if name in self.options else "missing"
        return ValueError(f"{self.where}.{name}".lstrip(".") + f" is {found}, expected {expected}")


@dataclass(frozen=True)
class Plan:
    """What a configuration says of the encoder and decoder.

    Attributes:
        config: ours; its `vocab_size` is that of the head, with the blank.
        masked: whether NeMo's convolutions zero frames past the end.
        labels: of the decoder; None if it names none.
    """

    config: QuartzNetConfig | CitrinetConfig
    masked: bool
    labels: list | None


def check_target(config: Section) -> str:
    """Return the class of the model, and refuse any that is no QuartzNet or Citrinet CTC model."""
    target = config.options.get("target")
    if config.class_name("target") not in MODELS:
        raise ValueError(f"the checkpoint's target class is {_SHORT.repr(target)}, supported are {_SUPPORTED}")
    for name, supported in (("encoder", "ConvASREncoder"), ("decoder", "ConvASRDecoder")):
        found = config.section(name).class_name()
        if found != supported:
            found = shown(found) or "class without a name"
            raise ValueError(f"the {name} of this {config.class_name('target')} is a {found}, supported are {_SUPPORTED}")
    return target


def read_plan(config: Section, hop_length: int) -> Plan:
    """Read encoder, decoder and augmentation.

    Raises:
        ValueError: an option is missing, out of range, or one that is not supported.
    """
    encoder, decoder = config.section("encoder"), config.section("decoder")
    encoder.only("activation", "relu")
    encoder.only("normalization_mode", "batch")
    encoder.only("frame_splicing", 1)
    encoder.only("quantize", False, None)
    blocks = _blocks(encoder)
    labels = decoder.options.get("vocabulary")
    if labels is not None and not isinstance(labels, list):
        raise ValueError("decoder.vocabulary is no list of labels")
    classes = decoder.whole("num_classes", -1, low=-1, high=_MOST_LABELS)
    if classes < 1:
        classes = len(labels or ())
    if labels is not None and classes != len(labels):
        raise ValueError(f"decoder.num_classes is {classes}, but decoder.vocabulary has {len(labels)} labels")
    if not 1 <= classes <= _MOST_LABELS:
        raise ValueError("decoder.num_classes and decoder.vocabulary name no labels")
    family = CitrinetConfig if any(block.get("squeeze_excite") for block in blocks) else QuartzNetConfig
    ours = family(
        blocks=blocks,
        vocab_size=classes + 1,
        num_mel_bins=encoder.whole("feat_in", None),
        hop_length=hop_length,
        ctc_zero_infinity=True,
        **_augmentation(config.section("spec_augment")),
    )
    return Plan(ours, encoder.flag("conv_mask", True), labels)


def read_front_end(config: Section, framing: str) -> MelFeatureExtractor:
    """Read the preprocessor.

    Args:
        config: of the checkpoint.
        framing: "current" or "nemo24".

    Raises:
        ValueError: an option is missing, out of range, or one that is not supported.
    """
    options = config.section("preprocessor")
    if options.class_name() not in ("AudioToMelSpectrogramPreprocessor", ""):
        raise ValueError(f"the preprocessor is a {shown(options.class_name())}, supported is AudioToMelSpectrogramPreprocessor")
    options.only("frame_splicing", 1)
    options.only("log", True)
    options.only("log_zero_guard_type", "add")
    options.only("exact_pad", False, None)
    options.only("use_grads", False, None)
    options.only("mag_power", 2.0, 1.0)
    options.only("mel_norm", "slaney", None)
    options.only("window", "hann", "hamming", "blackman", "bartlett", "none", "ones", None)
    options.only("normalize", "per_feature", "all_features", "NA", "none", None, False)
    rate = options.whole("sample_rate", 16_000, high=400_000)
    window = _samples(options, "window_size", "n_window_size", 0.02, rate)
    n_fft = options.options.get("n_fft") and options.whole("n_fft", None, low=2)
    normalize = options.options.get("normalize", "per_feature")
    shape = options.options.get("window", "hann")
    return MelFeatureExtractor(
        feature_size=options.whole("features", 64, high=1024),
        sampling_rate=rate,
        window_length=window,
        hop_length=_samples(options, "window_stride", "n_window_stride", 0.01, rate),
        n_fft=n_fft or 2 ** math.ceil(math.log2(window)),
        preemphasis=0.0 if options.options.get("preemph", 0.97) is None else options.number("preemph", 0.97, high=1.0),
        framing=framing,
        window="ones" if shape in ("none", None) else shape,
        normalize=normalize if normalize in ("per_feature", "all_features") else "none",
        low_hz=options.number("lowfreq", 0.0),
        high_hz=options.number("highfreq", 0.0) if options.options.get("highfreq") else None,
        mel_norm=options.options.get("mel_norm", "slaney"),
        log_guard=_log_guard(options),
        power=float(options.options.get("mag_power", 2.0)),
    )


def framing_of(config: Section) -> tuple[str, str]:
    """Return the framing that the checkpoint was most likely trained with, and why.

    `nemo_version` tells who saved the archive: a model trained with NeMo 1.x and saved again with 2.5 or newer names the newer one.
    """
    found = config.options.get("nemo_version")
    if not isinstance(found, (str, float)):
        return "nemo24", "the archive names no nemo_version, so it is taken for an old one"
    found = shown(str(found))
    version = re.match(r"(\d{1,4})\.(\d{1,4})", found)
    if version is None:
        return "nemo24", f"its nemo_version '{found}' cannot be read, so it is taken for an old one"
    if (int(version[1]), int(version[2])) >= _CURRENT_FRAMING:
        return "current", f"saved by NeMo {found}, 2.5 or newer"
    return "nemo24", f"saved by NeMo {found}, older than 2.5"


def _blocks(encoder: Section) -> list[dict]:
    """Block list of our configuration, without the keys whose value is the default."""
    listed = encoder.options.get("jasper")
    if not isinstance(listed, list) or not 1 <= len(listed) <= _MOST_CONVOLUTIONS or not all(isinstance(block, dict) for block in listed):
        raise ValueError("encoder.jasper is no list of blocks")
    blocks = []
    # NeMo hands the mode of one block on to the next ones that name none
    residual_mode = encoder.options.get("residual_mode", "add")
    for index, options in enumerate(listed):
        residual_mode = options.get("residual_mode", residual_mode)
        block = _block(Section(options, f"encoder.jasper[{index}]"), residual_mode)
        blocks.append({name: value for name, value in block.items() if value != BLOCK_DEFAULTS.get(name)})
    if sum(block.get("repeat", 1) for block in blocks) > _MOST_CONVOLUTIONS:
        raise ValueError(f"encoder.jasper has more than {_MOST_CONVOLUTIONS} convolutions")
    return blocks


def _block(options: Section, residual_mode: str) -> dict:
    options.only("residual_dense", False, None)
    options.only("groups", 1)
    options.only("heads", -1)
    options.only("future_context", -1)
    stride, dilation = options.whole("stride", 1, high=64), options.whole("dilation", 1, high=1024)
    residual, repeat = options.flag("residual", False), options.whole("repeat", None, high=_MOST_CONVOLUTIONS)
    if stride > 1 and dilation > 1:
        raise ValueError(f"{options.where} strides by {stride} and dilates by {dilation}, which NeMo refuses as well")
    if residual and residual_mode not in ("add", "stride_add"):
        raise ValueError(f"{options.where}.residual_mode is {_SHORT.repr(residual_mode)}, only add and stride_add are supported")
    if residual and stride > 1 and residual_mode == "add":
        raise ValueError(
            f"{options.where} strides by {stride}, but its residual branch does not (residual_mode add), so they cannot be added"
        )
    return {
        "filters": options.whole("filters", None),
        "kernel": scaled_kernel(options.whole("kernel", None), options.number("kernel_size_factor", 1.0, low=1e-3, high=100.0)),
        "repeat": repeat,
        "stride": stride,
        # with one convolution it says nothing
        "stride_last": options.flag("stride_last", False) and stride > 1 and repeat > 1,
        "dilation": dilation,
        "residual": residual,
        "separable": options.flag("separable", False),
        "dropout": options.number("dropout", 0.0, high=1.0),
        **(_squeeze_excite(options) if options.flag("se", False) else {}),
    }


def _squeeze_excite(options: Section) -> dict:
    # se_context_window is its name in NeMo 1.0
    name = "se_context_size" if "se_context_size" in options.options else "se_context_window"
    return {
        "squeeze_excite": True,
        "se_reduction": options.whole("se_reduction_ratio", 8),
        # in evaluation, and with no frame at all, the whole utterance
        "se_context": window if (window := options.whole(name, -1, low=-1_000_000, high=1_000_000)) > 0 else -1,
    }


def _augmentation(options: Section) -> dict:
    """SpecAugment and SpecCutout, with NeMo's defaults; a section of another class has none that we could take over."""
    if options.class_name() not in ("SpectrogramAugmentation", "") or not options.options:
        return {}
    found = {
        name: options.whole(name, default, low=0, high=100_000)
        for name, default in (
            ("freq_masks", 0),
            ("freq_width", 10),
            ("time_masks", 0),
            ("rect_masks", 0),
            ("rect_freq", 20),
            ("rect_time", 5),
        )
    }
    fraction = isinstance(options.options.get("time_width"), float)
    width = options.number("time_width", 10, high=1.0) if fraction else options.whole("time_width", 10, low=0, high=100_000)
    return {**found, "time_width": width}


def _samples(options: Section, seconds_name: str, samples_name: str, default_seconds: float, rate: int) -> int:
    """Samples of a length that is given in seconds or in samples."""
    if options.options.get(samples_name):
        return options.whole(samples_name, None)
    # cut off as NeMo does, whose 0.01 s of 22,050 Hz are 220 samples
    samples = int(options.number(seconds_name, default_seconds, high=1.0) * rate)
    if not 1 <= samples <= _MOST_CHANNELS:
        raise ValueError(f"{options.where}.{seconds_name} gives {samples} samples, expected 1 to {_MOST_CHANNELS}")
    return samples


def _log_guard(options: Section) -> float:
    """What is added before the logarithm; NeMo also takes names of limits of float32."""
    named = {"tiny": 2.0**-126, "eps": 2.0**-23}
    found = options.options.get("log_zero_guard_value", 2.0**-24)
    return named[found] if isinstance(found, str) and found in named else options.number("log_zero_guard_value", 2.0**-24, high=1.0)
