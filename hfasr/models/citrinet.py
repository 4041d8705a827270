"""Citrinet (Majumdar et al., 2021, arXiv:2104.01721) as a Transformers model.

A deep QuartzNet with squeeze-and-excitation over the whole utterance and 80 ms output frames, made for subwords and for scripts
with thousands of characters. Block lists are those of NeMo's examples/asr/conf/citrinet/citrinet_{384,512,1024}.yaml.
"""

from .encoder import ConvEncoder, ConvEncoderConfig, ConvEncoderForCTC

# kernels of the three groups of blocks; the first block of each halves the frames (table 1 of the paper)
PAPER_KERNELS = (
    (11, 13, 15, 17, 19, 21),
    (13, 15, 17, 19, 21, 23, 25),
    (25, 27, 29, 31, 33, 35, 37, 39),
)
PROLOGUE_KERNEL, EPILOGUE_KERNEL = 5, 41
# name -> filters of the body, and of the last block
PAPER_WIDTHS = {"256": (256, 640), "384": (384, 640), "512": (512, 640), "1024": (1024, 1024)}
DROPOUT = 0.1


def scaled_kernel(kernel: int, factor: float) -> int:
    """Kernel in frames after Citrinet's gamma: rounded down, then up to an odd number (NeMo's compute_new_kernel_size)."""
    scaled = max(int(kernel * factor), 1)
    return scaled + 1 - scaled % 2


def _blocks(
    groups: tuple[tuple[int, ...], ...], filters: int, last_filters: int, repeat: int, last_kernel: int, dropout: float
) -> list[dict]:
    body = [
        {
            "filters": filters, "kernel": kernel, "repeat": repeat, "residual": True, "squeeze_excite": True, "dropout": dropout,
            **({"stride": 2, "stride_last": True} if place == 0 else {}),
        }
        for group in groups
        for place, kernel in enumerate(group)
    ]  # fmt: skip
    first = {"filters": filters, "kernel": PROLOGUE_KERNEL, "squeeze_excite": True}
    return [first, *body, {"filters": last_filters, "kernel": last_kernel, "squeeze_excite": True}]


def _paper_blocks(name: str, factor: float) -> list[dict]:
    groups = tuple(tuple(scaled_kernel(kernel, factor) for kernel in group) for group in PAPER_KERNELS)
    return _blocks(groups, *PAPER_WIDTHS[name], repeat=5, last_kernel=scaled_kernel(EPILOGUE_KERNEL, factor), dropout=DROPOUT)


def _small_blocks() -> list[dict]:
    """0.64 M parameters and the head, to train from scratch on a laptop: narrow, shallow, and with 40 ms frames."""
    return _blocks(((11, 15, 19), (13, 17, 21)), 160, 320, repeat=2, last_kernel=25, dropout=0.0)


class CitrinetConfig(ConvEncoderConfig):
    __doc__ = ConvEncoderConfig.__doc__.replace("a convolutional CTC model", "a Citrinet, by default Citrinet-1024 with gamma 0.25")

    model_type = "citrinet"

    def __init__(self, blocks: list[dict] | None = None, num_mel_bins: int = 80, **kwargs):
        super().__init__(blocks=_paper_blocks("1024", 0.25) if blocks is None else blocks, num_mel_bins=num_mel_bins, **kwargs)

    @classmethod
    def from_name(cls, name: str, kernel_size_factor: float | None = None, **options) -> "CitrinetConfig":
        """Build a named configuration.

        Args:
            name: "256", "384", "512" or "1024", with a gamma behind it if wanted ("1024-gamma-0.25"), or "small" to train from
                scratch on a CPU.
            kernel_size_factor: gamma, the factor on the kernels of all blocks but the first; 1 when None.
            options: fields of the configuration.

        Raises:
            ValueError: no such name, a gamma that is no positive number, or two gammas.
        """
        width, marked, gamma = str(name).partition("-gamma-")
        if (name != "small" and width not in PAPER_WIDTHS) or (name == "small" and kernel_size_factor is not None):
            known = f"small, {', '.join(PAPER_WIDTHS)}, and such as 1024-gamma-0.25"
            raise ValueError(f"no Citrinet is named {name!r} with kernel_size_factor {kernel_size_factor}; the names are {known}")
        if name == "small":
            return cls(blocks=_small_blocks(), **options)
        if marked and kernel_size_factor is not None:
            raise ValueError(f"{name} names its gamma, so kernel_size_factor {kernel_size_factor} must be left out")
        try:
            factor = float(gamma) if marked else 1.0 if kernel_size_factor is None else float(kernel_size_factor)
        except ValueError:
            factor = 0.0
        if not 0 < factor <= 10:
            raise ValueError(f"gamma is {gamma or kernel_size_factor!r}, expected a factor above 0 and up to 10, such as 0.25")
        return cls(blocks=_paper_blocks(width, factor), **options)


class CitrinetModel(ConvEncoder):
    """The encoder: log-mel -> hidden states."""

    config_class = CitrinetConfig
    base_model_prefix = "citrinet"


class CitrinetForCTC(ConvEncoderForCTC):
    """Citrinet with a CTC head."""

    config_class = CitrinetConfig
    base_model_prefix = "citrinet"
    encoder_class = CitrinetModel
