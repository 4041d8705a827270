"""QuartzNet (Kriman et al., 2019, arXiv:1910.10261) as a Transformers model: time-channel separable convolutions in residual blocks."""

from .encoder import ConvEncoder, ConvEncoderConfig, ConvEncoderForCTC

# name -> how often each of the five body blocks comes, and its number of convolutions (table 1 of the paper)
PAPER_DEPTHS = {"5x1": (1, 1), "5x3": (1, 3), "10x5": (2, 5), "15x5": (3, 5)}
PAPER_BODY = ((256, 33), (256, 39), (512, 51), (512, 63), (512, 75))


def _paper_blocks(copies: int, repeat: int) -> list[dict]:
    body = [
        {"filters": filters, "kernel": kernel, "repeat": repeat, "residual": True} for filters, kernel in PAPER_BODY for _ in range(copies)
    ]
    first = {"filters": 256, "kernel": 33, "stride": 2}
    last = [{"filters": 512, "kernel": 87, "dilation": 2}, {"filters": 1024, "kernel": 1, "separable": False}]
    return [first, *body, *last]


def _small_blocks() -> list[dict]:
    """About 0.7 M parameters that train from scratch on a laptop: narrow, and with shorter kernels than the paper's."""
    body = [{"filters": 192, "kernel": kernel, "repeat": 2, "residual": True} for kernel in (13, 17, 21, 25)]
    first = {"filters": 192, "kernel": 11, "stride": 2}
    last = [{"filters": 256, "kernel": 29}, {"filters": 512, "kernel": 1, "separable": False}]
    return [first, *body, *last]


class QuartzNetConfig(ConvEncoderConfig):
    __doc__ = ConvEncoderConfig.__doc__.replace("a convolutional CTC model", "a QuartzNet, by default QuartzNet15x5")

    model_type = "quartznet"

    def __init__(self, blocks: list[dict] | None = None, **kwargs):
        super().__init__(blocks=_paper_blocks(*PAPER_DEPTHS["15x5"]) if blocks is None else blocks, **kwargs)

    @classmethod
    def from_name(cls, name: str, **options) -> "QuartzNetConfig":
        """Build a named configuration: "5x1", "5x3", "10x5" or "15x5" as in the paper, or "small" to train from scratch on a CPU."""
        if name != "small" and name not in PAPER_DEPTHS:
            raise ValueError(f"no QuartzNet is named {name!r}; the names are small, {', '.join(PAPER_DEPTHS)}")
        blocks = _small_blocks() if name == "small" else _paper_blocks(*PAPER_DEPTHS[name])
        return cls(blocks=blocks, **options)


class QuartzNetModel(ConvEncoder):
    """The encoder: log-mel -> hidden states."""

    config_class = QuartzNetConfig
    base_model_prefix = "quartznet"


class QuartzNetForCTC(ConvEncoderForCTC):
    """QuartzNet with a CTC head."""

    config_class = QuartzNetConfig
    base_model_prefix = "quartznet"
    encoder_class = QuartzNetModel
