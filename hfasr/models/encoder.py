"""What QuartzNet and Citrinet share: a configuration of blocks, the encoder and the CTC head.

Numerically NeMo's ConvASREncoder and ConvASRDecoder (nemo/collections/asr/modules/conv_asr.py, NeMo 3.0.0). NeMo's weights map to
the names here by one rule, P the model's name: `encoder.encoder.{b}.mconv.{5 r + 0, 1, 2}` are `P.blocks.{b}.layers.{r}.` `depthwise`,
`pointwise`, `norm` (`{4 r + 0, 1}` are `conv`, `norm` in a block that is not separable), the `fc.{0, 2}` behind them are
`P.blocks.{b}.squeeze_excite.` `down`, `up`, `encoder.encoder.{b}.res.0.{0, 1}` are `P.blocks.{b}.residual.` `conv`, `norm`, and
`decoder.decoder_layers.0` is `lm_head` with a weight less its last axis.

Shapes: B utterances, F mel frames, M mel bins, T output frames, C channels, V vocabulary, L labels.
"""

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput
from transformers.utils import can_return_tuple

from .blocks import Block, MaskedConv, ctc_loss, match_norm_momentum, spec_augment

BLOCK_DEFAULTS = {
    "repeat": 1, "stride": 1, "stride_last": False, "dilation": 1, "residual": False, "separable": True, "dropout": 0.0,
    "squeeze_excite": False, "se_reduction": 8, "se_context": -1,
}  # fmt: skip


class ConvEncoderConfig(PreTrainedConfig):
    """Configuration of a convolutional CTC model.

    Args:
        blocks: one dict per block: `filters` and odd `kernel`, and optionally `repeat` (1), `stride` (1), `stride_last` (False: every
            convolution of the block strides), `dilation` (1), `residual` (False), `separable` (True), `dropout` (`dropout` below),
            `squeeze_excite` (False), `se_reduction` (8) and `se_context` (frames of the mean in training; -1, all).
        vocab_size: V, the blank included.
        pad_token_id: id of the CTC blank.
        num_mel_bins: M.
        hop_length: samples between mel frames.
        dropout: probability in blocks that name none.
        freq_masks, freq_width: SpecAugment bands in training: how many per utterance, and the largest width in mel bins.
        time_masks, time_width: spans of frames: how many, and the largest width, in frames if int, as a fraction of the utterance
            if float. The names are those of NeMo's `spec_augment` section.
        rect_masks, rect_freq, rect_time: SpecCutout rectangles: how many, the largest height in bins and width in frames.
        ctc_loss_reduction: "mean" or "sum".
        ctc_zero_infinity: whether utterances whose labels do not fit count as zero loss.

    Raises:
        ValueError: a block or an option is out of range.
    """

    def __init__(
        self,
        blocks: list[dict],
        vocab_size: int = 29,
        pad_token_id: int | None = 0,
        bos_token_id: int | None = None,
        eos_token_id: int | None = None,
        num_mel_bins: int = 64,
        hop_length: int = 160,
        dropout: float = 0.0,
        freq_masks: int = 0,
        freq_width: int = 27,
        time_masks: int = 0,
        time_width: int | float = 0.05,
        rect_masks: int = 0,
        rect_freq: int = 50,
        rect_time: int = 120,
        ctc_loss_reduction: str = "mean",
        ctc_zero_infinity: bool = False,
        **kwargs,
    ):
        if ctc_loss_reduction not in ("mean", "sum"):
            raise ValueError(f"ctc_loss_reduction is {ctc_loss_reduction!r}, expected 'mean' or 'sum'")
        if not blocks:
            raise ValueError("blocks is empty, expected a list of at least one block")
        shares = {"dropout": dropout}
        counts = {"freq_masks": freq_masks, "freq_width": freq_width, "time_masks": time_masks, "rect_masks": rect_masks}
        counts |= {"rect_freq": rect_freq, "rect_time": rect_time}
        (shares if isinstance(time_width, float) else counts)["time_width"] = time_width
        for name, share in shares.items():
            if not (isinstance(share, int | float) and 0 <= share <= 1):
                raise ValueError(f"{name} is {share!r}, expected a share from 0 to 1")
        for name, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ValueError(f"{name} is {count!r}, expected a whole number from 0 up")
        self.blocks = [_checked_block(index, block) for index, block in enumerate(blocks)]
        self.vocab_size = vocab_size
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.num_mel_bins = num_mel_bins
        self.hop_length = hop_length
        self.dropout = dropout
        self.freq_masks = freq_masks
        self.freq_width = freq_width
        self.time_masks = time_masks
        self.time_width = time_width
        self.rect_masks = rect_masks
        self.rect_freq = rect_freq
        self.rect_time = rect_time
        self.ctc_loss_reduction = ctc_loss_reduction
        self.ctc_zero_infinity = ctc_zero_infinity
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Channels C of the encoder's output."""
        return self.blocks[-1]["filters"]

    @property
    def num_hidden_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples per output frame."""
        ratio = self.hop_length
        for stride in self.strides:
            ratio *= stride
        return ratio

    @property
    def strides(self) -> list[int]:
        """Frames per output frame of every convolution that strides, in order."""
        return [
            stride
            for block in self.blocks
            if (stride := block.get("stride", 1)) > 1
            for _ in range(1 if block.get("stride_last") else block.get("repeat", 1))
        ]


def _checked_block(index: int, block: dict) -> dict:
    """Return the block unchanged if it can be built."""
    unknown = set(block) - {"filters", "kernel", *BLOCK_DEFAULTS}
    if unknown or not {"filters", "kernel"} <= set(block):
        raise ValueError(f"block {index} has {', '.join(block)}; it needs filters and kernel and may have {', '.join(BLOCK_DEFAULTS)}")
    for name in ("filters", "kernel", "repeat", "stride", "dilation", "se_reduction"):
        value = block.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"block {index} has {name} {value!r}, expected a whole number from 1 up")
    if block["kernel"] % 2 == 0:
        raise ValueError(f"block {index} has an even kernel of {block['kernel']} frames, expected an odd one")
    if block.get("residual") and block.get("stride", 1) > 1 and block.get("repeat", 1) > 1 and not block.get("stride_last"):
        raise ValueError(
            f"block {index} strides {block['repeat']} times by {block['stride']}, but its residual branch strides once: give stride_last"
        )
    if block.get("squeeze_excite") and block["filters"] < block.get("se_reduction", BLOCK_DEFAULTS["se_reduction"]):
        raise ValueError(f"block {index} has {block['filters']} filters, fewer than its se_reduction")
    if block.get("se_context", -1) == 0:
        raise ValueError(f"block {index} has se_context 0, expected a number of frames, or -1 for the whole utterance")
    return dict(block)


class ConvEncoderPreTrainedModel(PreTrainedModel):
    """Weight initialisation and lengths, shared by the encoder and the CTC model."""

    main_input_name = "input_features"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (MaskedConv, nn.Linear)):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            super()._init_weights(module)

    def _set_gradient_checkpointing(self, *args, **kwargs) -> None:
        super()._set_gradient_checkpointing(*args, **kwargs)
        match_norm_momentum(self)

    def _get_feat_extract_output_lengths(self, input_lengths: torch.Tensor) -> torch.Tensor:
        """Output frames (B,) of utterances with `input_lengths` (B,) mel frames."""
        for stride in self.config.strides:
            input_lengths = torch.div(input_lengths - 1, stride, rounding_mode="floor") + 1
        return input_lengths


class ConvEncoder(ConvEncoderPreTrainedModel):
    """The encoder: log-mel -> hidden states."""

    def __init__(self, config: ConvEncoderConfig):
        super().__init__(config)
        defaults = {**BLOCK_DEFAULTS, "dropout": config.dropout}
        widths = [config.num_mel_bins] + [block["filters"] for block in config.blocks]
        self.blocks = nn.ModuleList(Block(width, **{**defaults, **block}) for width, block in zip(widths, config.blocks, strict=False))
        self.post_init()

    @can_return_tuple
    def forward(
        self, input_features: torch.Tensor, attention_mask: torch.Tensor | None = None, output_hidden_states: bool | None = None
    ) -> BaseModelOutput:
        """Encode.

        Args:
            input_features: (B, F, M), from MelFeatureExtractor.
            attention_mask: (B, F), 1 on valid frames; None when no row is padded.
            output_hidden_states: whether to return the input and the output of every block.

        Returns:
            last_hidden_state (B, T, C), and hidden_states, each (B, T', C'). Frames past the end hold no meaning.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if self.training:
            input_features = self._augmented(input_features, attention_mask)
        mask = None
        if attention_mask is not None:
            # filled, not multiplied: whatever lies in the padding, even a NaN, is gone
            input_features = input_features.masked_fill(attention_mask[:, :, None] == 0, 0.0)
            mask = attention_mask[:, None, None, :].to(input_features.dtype)
        hidden = input_features.transpose(1, 2).unsqueeze(2)
        states = [hidden]
        for block in self.blocks:
            hidden, mask = block(hidden, mask)
            if output_hidden_states:
                states.append(hidden)
        return BaseModelOutput(
            last_hidden_state=_frames_first(hidden),
            hidden_states=tuple(_frames_first(state) for state in states) if output_hidden_states else None,
        )

    def _augmented(self, features: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        config = self.config
        if not (config.freq_masks or config.time_masks or config.rect_masks):
            return features
        if attention_mask is None:
            lengths = torch.full((features.shape[0],), features.shape[1], device=features.device)
        else:
            lengths = attention_mask.sum(dim=-1)
        return spec_augment(
            features,
            lengths,
            freq_masks=config.freq_masks,
            freq_width=config.freq_width,
            time_masks=config.time_masks,
            time_width=config.time_width,
            rect_masks=config.rect_masks,
            rect_freq=config.rect_freq,
            rect_time=config.rect_time,
        )


class ConvEncoderForCTC(ConvEncoderPreTrainedModel):
    """The encoder with a CTC head.

    Attributes:
        encoder_class: of the family; its encoder is the attribute that `base_model_prefix` names.
    """

    encoder_class: type[ConvEncoder]

    def __init__(self, config: ConvEncoderConfig):
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.encoder_class(config))
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> CausalLMOutput:
        """Score every symbol in every frame.

        Args:
            input_features: (B, F, M), from MelFeatureExtractor.
            attention_mask: (B, F), 1 on valid frames; None when no row is padded.
            labels: (B, L), padded on the right with -100. CTCTrainer gives none: the loss of PyTorch breaks a compiled graph.
            output_hidden_states: whether to return the input and the output of every block.

        Returns:
            logits (B, T, V), loss (scalar) if labels were given, hidden_states. Frames past the end hold no meaning, but for the logits in
            evaluation, where they say blank: `pipeline()` decodes every frame.

        Raises:
            ValueError: a label is not below V.
        """
        outputs = self.base_model(input_features, attention_mask, output_hidden_states=output_hidden_states, return_dict=True)
        logits = self.lm_head(outputs.last_hidden_state)
        lengths = None
        if attention_mask is not None:
            lengths = self._get_feat_extract_output_lengths(attention_mask.sum(dim=-1))
        if lengths is not None and not self.training:
            logits = self._blank_past_end(logits, lengths)
        loss = None
        if labels is not None:
            config = self.config
            if (labels >= config.vocab_size).any():
                raise ValueError(f"labels go up to {labels.max()}, expected ids below vocab_size {config.vocab_size}")
            if lengths is None:
                lengths = torch.full(logits.shape[:1], logits.shape[1], device=logits.device)
            loss = ctc_loss(logits, labels, lengths, config.pad_token_id, config.ctc_loss_reduction, config.ctc_zero_infinity)
        return CausalLMOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)

    def _blank_past_end(self, logits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) that say blank in frames from `lengths` (B,) on."""
        if self.config.pad_token_id is None:
            return logits
        past_end = torch.arange(logits.shape[1], device=logits.device) >= lengths[:, None]
        no_blank = torch.arange(logits.shape[2], device=logits.device) != self.config.pad_token_id
        return logits.masked_fill(past_end[:, :, None] & no_blank, torch.finfo(logits.dtype).min)


def _frames_first(hidden: torch.Tensor) -> torch.Tensor:
    """(B, C, 1, T) -> (B, T, C)."""
    return hidden.squeeze(2).transpose(1, 2)
