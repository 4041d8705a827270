"""fit_head: the CTC head of one alphabet becomes the start for another.

Shapes: V vocabulary, C features of the encoder's output.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

HEADS = ("lm_head", "ctc_head")
BOUNDARY = "|"
# names of the word boundary in characters, NeMo's labels and sentencepiece
_BOUNDARIES = {BOUNDARY, " ", "▁"}
# of the spread of the old rows, around the row of a pair and around the mean; see `fit_head`
PAIR_NOISE, MEAN_NOISE = 0.1, 0.3
_MOST_NAMED = 60


def fit_head(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    old_tokenizer: PreTrainedTokenizerBase | None,
    symbol_pairs: Mapping[str, str | Sequence[str]] | None = None,
) -> list[str]:
    """Rebuild the head for a tokenizer, in place, and set vocabulary size, blank, bos and eos of the configuration.

    The blank and the symbols that both tokenizers hold keep their rows. A symbol of `symbol_pairs` starts from the row of the old
    symbol it is paired with, the others from the mean of the old rows, as Hewitt (2021, "Initializing New Word Embeddings for
    Pretrained Language Models") does with embeddings; special tokens are left out. Half of the mean is the blank's row, half that of
    the symbols: a trained blank scores far above the average symbol, and a new symbol that starts down there gets gradients late. Where
    more rows are new than there were symbols, their biases are lower by the logarithm of that ratio, which leaves the probability of
    all of them together where it was.

    Noise keeps equal starts apart: a Gaussian whose standard deviation is a share of that over the old rows, for each feature and for
    the bias: a tenth around the row of a pair, where more costs (Kyrgyz QuartzNet, loss at the start: 0.2 % for a tenth, 11 % for all
    of it), three tenths around the mean, where more still helps. On that model with an alphabet of new letters alone the loss starts
    at 4.1 and the CER after 40 updates is 0.35; rows as the family initialises them give 6.4 and 0.38, the symbols' mean 8.7 and 0.60.

    The word boundary is one symbol whatever its name (`|`, a space, `▁`, the tokenizer's `word_delimiter_token`). An alphabet that
    is written in capitals alone is read in lower case, since a recogniser writes in capitals what another writes small; of two that
    have lower case both, equal symbols alone are shared, for the phonemes S and s are two.

    Args:
        model: CTC model whose blank is `config.pad_token_id`.
        tokenizer: the new one.
        old_tokenizer: the one the head was trained with; None if the head is untrained or its symbols are unknown: then all rows are
            new and start as the family initialises its head.
        symbol_pairs: new symbol -> old symbol, such as `{"қ": "к"}`, or a list of old symbols, of which the first is taken that the
            checkpoint has. May hold symbols that the new tokenizer lacks or shares with the old one, which are left out; with an old
            symbol that the checkpoint lacks the new one starts from the mean. The log says so.

    Returns:
        The kept symbols, in the order of their new ids, the blank not among them. `config.kept_symbols` lists them too,
        `config.paired_symbols` is new -> old symbol, and `config.mean_symbols` counts those that started from the mean.

    Raises:
        ValueError: the tokenizer has no pad token, the old blank is none of the head's outputs, the family ties its head to other
            weights, or a pair is not of strings.
    """
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no pad token, which is the CTC blank. Give it a pad_token that is in its vocabulary.")
    head_name, head = _head(model)
    if any(key.startswith(head_name) for key in model.all_tied_weights_keys):
        raise ValueError(f"{type(model).__name__} ties its head to other weights, so it cannot be rebuilt for another vocabulary")
    blank = model.config.pad_token_id
    if old_tokenizer is not None and not (isinstance(blank, int) and 0 <= blank < len(head.weight)):
        raise ValueError(f"the checkpoint's blank, config.pad_token_id, is {blank}, expected an id below {len(head.weight)}")
    pairs = _checked_pairs(symbol_pairs)
    config, size = model.config, len(tokenizer)
    kept, paired, symbols = {}, {}, []
    if old_tokenizer is not None:
        old_ids = _ids(old_tokenizer, config.pad_token_id, len(head.weight))
        kept = {tokenizer.pad_token_id: config.pad_token_id, **_shared_rows(old_ids, tokenizer)}
        special = set(old_tokenizer.convert_tokens_to_ids(sorted(_special(old_tokenizer))))
        spoken = {name: index for name, index in old_ids.items() if index not in special}
        paired = _paired_rows(pairs, spoken, _reader(old_tokenizer), tokenizer, kept)
        symbols = sorted(spoken.values())
    _resize_head(model, head, size, kept, paired, symbols, config.pad_token_id)

    config.vocab_size = size
    config.pad_token_id, config.bos_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id
    config.kept_symbols = tokenizer.convert_ids_to_tokens(sorted(kept.keys() - {tokenizer.pad_token_id}))
    config.paired_symbols = {
        tokenizer.convert_ids_to_tokens(new): old_tokenizer.convert_ids_to_tokens(old) for new, old in sorted(paired.items())
    }
    new_ids = [index for index in range(size) if index not in kept and index not in paired]
    config.mean_symbols = len(new_ids) if symbols else 0
    if kept:
        logger.info("head: kept the blank and %d of %d symbols: %s", len(config.kept_symbols), size - 1, _named(config.kept_symbols))
    else:
        logger.info("head: %d outputs, all new%s", size, "; symbol_pairs has no use, no old row is known" if pairs else "")
    if paired:
        logger.info("head: paired: %s", _named([f"{new} from {old}" for new, old in config.paired_symbols.items()], ", "))
    if config.mean_symbols:
        logger.info("head: %d start from the mean of the old rows: %s", len(new_ids), _named(tokenizer.convert_ids_to_tokens(new_ids)))
    return config.kept_symbols


def _head(model: PreTrainedModel) -> tuple[str, nn.Linear | nn.Conv1d]:
    for name in HEADS:
        if hasattr(model, name):
            return name, getattr(model, name)
    raise ValueError(f"{type(model).__name__} has no head named {' or '.join(HEADS)}")


def _checked_pairs(pairs: Mapping[str, str | Sequence[str]] | None) -> dict[str, list[str]]:
    """New symbol -> old symbols, the most wanted first."""
    if not isinstance(pairs, Mapping | None):
        raise ValueError(f"symbol_pairs is {pairs!r}, expected new symbol -> old symbol, such as {{'қ': 'к'}}")
    checked = {}
    for new, old in (pairs or {}).items():
        checked[new] = list(old) if isinstance(old, list | tuple) else [old]
        if not all(isinstance(symbol, str) for symbol in (new, *checked[new])):
            raise ValueError(f"symbol_pairs has {new!r}: {old!r}, expected a symbol and a symbol, such as 'қ': 'к'")
    return checked


def _shared_rows(old_ids: dict[str, int], new: PreTrainedTokenizerBase) -> dict[int, int]:
    """New id -> old id of the symbols that both tokenizers hold."""
    return {index: old_ids[name] for index, name in _names(new).items() if name in old_ids and index != new.pad_token_id}


def _paired_rows(
    pairs: dict[str, list[str]], old_ids: dict[str, int], read_old: Callable[[str], str], new: PreTrainedTokenizerBase, kept: dict[int, int]
) -> dict[int, int]:
    """New id -> old id of the pairs that can be followed; the log names the others."""
    new_ids, read_new = {name: index for index, name in _names(new).items()}, _reader(new)
    rows, unknown, own, missing = {}, [], [], []
    for symbol, sources in pairs.items():
        index = new_ids.get(read_new(symbol))
        row = next((old_ids[name] for name in map(read_old, sources) if name in old_ids), None)
        if index is None:
            unknown.append(symbol)
        elif index in kept:
            own.append(symbol)
        elif row is None:
            missing.append(f"{symbol} from {' or '.join(sources)}")
        else:
            rows[index] = row
    if unknown:
        logger.info("symbol_pairs: the tokenizer lacks %s", _named(unknown))
    if own:
        logger.info("symbol_pairs: the checkpoint has rows of its own for %s", _named(own))
    if missing:
        logger.warning("symbol_pairs: the checkpoint lacks the second symbol of %s; the mean is taken", _named(missing, ", "))
    return rows


def _resize_head(
    model: PreTrainedModel,
    head: nn.Linear | nn.Conv1d,
    size: int,
    kept: dict[int, int],
    paired: dict[int, int],
    symbols: list[int],
    blank: int | None,
) -> None:
    """Give the head `size` outputs.

    Args:
        kept, paired: new id -> old id of rows to copy, the paired ones with noise.
        symbols: old ids over which mean and spread of the other rows are taken; with none these stay as the family initialises them.
        blank: its old id.
    """
    old_weight, old_bias = head.weight.data, head.bias.data
    head.weight = nn.Parameter(old_weight.new_empty(size, *old_weight.shape[1:]))
    head.bias = nn.Parameter(old_bias.new_empty(size))
    setattr(head, "out_features" if isinstance(head, nn.Linear) else "out_channels", size)
    model._init_weights(head)
    new_ids = [index for index in range(size) if index not in kept]
    for new, old in ((head.weight.data, old_weight), (head.bias.data, old_bias)):
        new[list(kept)] = old[list(kept.values())]
        if symbols:
            spread = old[symbols].std(0, correction=0)
            mean = (old[symbols].mean(0) + old[blank]) / 2
            for index in new_ids:
                centre, noise = (old[paired[index]], PAIR_NOISE) if index in paired else (mean, MEAN_NOISE)
                new[index] = centre + noise * spread * torch.randn_like(centre)
    unpaired = [index for index in new_ids if index not in paired]
    if symbols and len(unpaired) > len(symbols):
        head.bias.data[unpaired] -= math.log(len(unpaired) / len(symbols))


def _names(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Id -> the name under which a symbol is looked for in another tokenizer."""
    read = _reader(tokenizer)
    return {index: read(symbol) for symbol, index in tokenizer.get_vocab().items()}


def _ids(tokenizer: PreTrainedTokenizerBase, blank: int, size: int) -> dict[str, int]:
    """Name -> id of the symbols that the head has, the blank not among them."""
    return {name: index for index, name in _names(tokenizer).items() if index < size and index != blank}


def _reader(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """Symbol -> name."""
    boundaries = _boundaries(tokenizer)
    special = _special(tokenizer)
    # symbols without case are their own upper case, and their own lower case below
    capitals = all(symbol == symbol.upper() for symbol in tokenizer.get_vocab() if symbol not in special)

    def read(symbol: str) -> str:
        if symbol in boundaries:
            return BOUNDARY
        return symbol.lower() if capitals and symbol not in special else symbol

    return read


def _special(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    # some tokenizers count the word boundary, which speech has, among the special tokens
    return set(tokenizer.all_special_tokens) - _boundaries(tokenizer)


def _boundaries(tokenizer: PreTrainedTokenizerBase) -> set[str | None]:
    return _BOUNDARIES | {getattr(tokenizer, "word_delimiter_token", None)}


def _named(symbols: list[str], joint: str = " ") -> str:
    if not symbols:
        return "none"
    more = len(symbols) - _MOST_NAMED
    return joint.join(symbols[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
