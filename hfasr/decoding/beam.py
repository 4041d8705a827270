"""Logits -> the n best texts, by a beam search over prefixes with language model, lexicon and hotwords.

The search is flashlight-text's (Kahn et al. 2022, arXiv 2201.12465), as torchaudio's `ctc_decoder` sets it up.

Shapes: B utterances, T frames, V vocabulary.
"""

import logging
import math
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Wav2Vec2PhonemeCTCTokenizer

from hfasr.decoding.confidence import Confidence, as_confidence, frame_confidences, join
from hfasr.decoding.greedy import check_shape, collapse, labels_to_text
from hfasr.decoding.hotwords import HOTWORD_WEIGHT, Hotwords, load_hotwords, spell_hotwords
from hfasr.decoding.hypothesis import Hypothesis, Token, TokenSpan
from hfasr.decoding.language_model import (
    IMPOSSIBLE,
    LN10,
    NGrams,
    SymbolModel,
    WordModel,
    build_vocabulary,
    check_symbols,
    is_of_symbols,
    lm_words,
    symbol_names,
)
from hfasr.decoding.words import boundaries
from hfasr.extras import require

logger = logging.getLogger(__name__)

# a frame behind another one of so sure a blank changes no text
_SURE_BLANK = math.log(1 - 1e-4)


class BeamDecoder:
    """Decode by beam search.

    A text's score is the natural logarithm of the sum over its paths, plus alpha x that of its probability in the language model,
    plus beta for each of the language model's units, plus the bonus of its hotwords.

    The language model is an n-gram model of words or of the model's symbols, which is found out from its words. Words are looked up
    in a lexicon, with which a model of phonemes gives words.

    Args:
        tokenizer: Of the model.
        blank: Id of the CTC blank, `model.config.pad_token_id`.
        lm: ARPA file, as `hfasr lm` writes it, or KenLM binary.
        lexicon: What can be said: a file `word<TAB>phonemes` or a dict for a model of phonemes, a file of words, one a line, for any
            other one. None takes the words of a language model of words.
        open_vocabulary: Whether other words can be said too, with the probability of the language model's `<unk>` and of their symbols
            drawn evenly. None takes no with a lexicon and for a model of phonemes, which could not spell them, else yes.
        alpha: Weight of the language model.
        beta: Bonus of each word, or of each symbol where the language model is of symbols. None takes 1 with a language model, else 0.
        beam_size: Texts that are kept at each frame.
        beam_threshold: How far below the best, as a natural logarithm, a text is given up.
        beam_tokens: Most probable labels of a frame that are tried; None tries all.
        token_threshold: How far below the best of its frame, as a natural logarithm, a label is not tried.
        n_best: Texts to return.
        hotwords: File of lines `word` or `word<TAB>weight`, or the words, or a dict from word to weight.
        hotword_weight: Bonus of each symbol of a hotword, as a natural logarithm, where it has no weight of its own.
        confidence: As `GreedyDecoder` has it, times the probability of the symbol over that of the best one in its frame.

    Raises:
        FileNotFoundError: A file is not there.
        ModuleNotFoundError: flashlight-text is not installed; the message says how to.
        ValueError: A number is out of range, a file cannot be read, language model or hotwords are of symbols that the model lacks.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        blank: int,
        *,
        lm: str | os.PathLike | None = None,
        lexicon: str | os.PathLike | Mapping[str, str] | None = None,
        open_vocabulary: bool | None = None,
        alpha: float = 0.5,
        beta: float | None = None,
        beam_size: int = 50,
        beam_threshold: float = 20.0,
        beam_tokens: int | None = 10,
        token_threshold: float = 5.0,
        n_best: int = 1,
        hotwords: str | os.PathLike | Mapping[str, float] | Sequence[str] | None = None,
        hotword_weight: float = HOTWORD_WEIGHT,
        confidence: str | Confidence | None = "tsallis",
    ):
        for name, value in (("beam_size", beam_size), ("n_best", n_best), ("beam_tokens", beam_tokens)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected 1 or more")
        if n_best > beam_size:
            raise ValueError(f"n_best is {n_best}, but the beam_size of {beam_size} keeps fewer texts; raise beam_size")
        for name, value in (("beam_threshold", beam_threshold), ("token_threshold", token_threshold)):
            if not value > 0:
                raise ValueError(f"{name} is {value:g}, expected a difference of logarithms above 0, such as 10")
        require("flashlight", extra="lm")
        self.tokenizer, self.blank, self.n_best, self.confidence = tokenizer, blank, n_best, as_confidence(confidence)
        self._limits = {"beam_size": beam_size, "beam_threshold": beam_threshold, "beam_size_token": beam_tokens}
        self._token_threshold = token_threshold
        self._lock, self._warned = threading.Lock(), False
        self._size = max(blank, *tokenizer.get_vocab().values()) + 1
        self._spoken = isinstance(tokenizer, Wav2Vec2PhonemeCTCTokenizer)
        if open_vocabulary and self._spoken:
            raise ValueError("open_vocabulary is set, but a model of phonemes cannot spell words that the lexicon lacks; leave it out")
        self._open_vocabulary = lexicon is None and not self._spoken if open_vocabulary is None else open_vocabulary
        self._hotwords = hotwords
        self._ngrams = self._vocabulary = None
        words = [] if lm is None else lm_words(lm)
        self._symbols = lm is not None and is_of_symbols(words, tokenizer)
        if self._symbols:
            if lexicon is not None:
                raise ValueError(f"the language model {lm} is of the model's symbols, a lexicon needs one of words; leave one of them out")
            self._ngrams = NGrams(lm, symbol_names(tokenizer, self._size), words)
            check_symbols(self._ngrams, tokenizer)
        elif lm is not None:
            self._ngrams = NGrams(lm, words, words)
        if lexicon is not None or (lm is not None and not self._symbols):
            further = {} if hotwords is None else {part: 0.0 for word in load_hotwords(hotwords, hotword_weight) for part in word.split()}
            self._vocabulary = build_vocabulary(self._ngrams, lexicon, tokenizer, spell_hotwords(further, tokenizer))
        self.alpha, self.hotword_weight = alpha, hotword_weight
        self.beta = (0.0 if lm is None else 1.0) if beta is None else beta
        self.set_weights()

    def set_weights(self, *, alpha: float | None = None, beta: float | None = None, hotword_weight: float | None = None) -> None:
        """Change the weights that are given, without reading the language model again.

        Raises:
            ValueError: A weight is no number, or is one of something that is not there.
        """
        alpha, beta = self.alpha if alpha is None else alpha, self.beta if beta is None else beta
        hotword_weight = self.hotword_weight if hotword_weight is None else hotword_weight
        for name, value in (("alpha", alpha), ("beta", beta), ("hotword_weight", hotword_weight)):
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}, expected a number")
        if beta and self._ngrams is None and self._vocabulary is None:
            raise ValueError(f"beta is {beta:g}, which is for the units of a language model; give one, or leave beta out")
        self.alpha, self.beta, self.hotword_weight = alpha, beta, hotword_weight
        parts: list[Any] = []
        self._words = None
        if self._vocabulary is not None:
            self._words = WordModel(self._vocabulary, self._ngrams, self.tokenizer, alpha, beta, self._open_vocabulary)
            parts.append(self._words)
        elif self._ngrams is not None:
            parts.append(SymbolModel(self._ngrams, self.tokenizer, alpha, beta))
        if self._hotwords is not None:
            weights = load_hotwords(self._hotwords, hotword_weight)
            spelled = spell_hotwords(weights, self.tokenizer)
            parts.append(Hotwords({labels: weights[word] for word, labels in spelled.items()}, boundaries(self.tokenizer)))
        from torchaudio.models.decoder import ctc_decoder

        # what KenLM can do alone is several times as fast there
        alone = len(parts) == 1 and isinstance(parts[0], SymbolModel) and parts[0].is_plain
        self._scores = None if alone or not parts else _sum_of(parts)
        names = [str(label) for label in range(self._size)]
        self._decoder = ctc_decoder(
            lexicon=None,
            tokens=names,
            lm=parts[0].ngrams.model if alone else self._scores,
            lm_weight=alpha * LN10 if alone else 1.0,
            nbest=self.n_best,
            log_add=True,
            # as silence the blank alone leaves the sums over paths right
            blank_token=names[self.blank],
            sil_token=names[self.blank],
            **self._limits,
        )

    def decode(self, log_probs: torch.Tensor, lengths: Sequence[int] | torch.Tensor) -> list[list[Hypothesis]]:
        """Search the n best texts of every utterance.

        Args:
            log_probs: `(B, T, V)`.
            lengths: Valid frames `(B,)`.

        Returns:
            The hypotheses of each utterance, best first, at least one: the empty one where a lexicon allows no other.

        Raises:
            ValueError: `log_probs` is not three-dimensional, or V is not that of the tokenizer.
        """
        check_shape(log_probs, self.blank)
        if log_probs.shape[-1] < self._size:
            raise ValueError(f"expected log_probs (B, T, V) with V of {self._size} or more, found {tuple(log_probs.shape)}")
        log_probs = log_probs.float().cpu()
        with self._lock:  # the search keeps its texts in this object
            return [self._search(row[: int(length), : self._size]) for row, length in zip(log_probs, lengths, strict=True)]

    def _search(self, log_probs: torch.Tensor) -> list[Hypothesis]:
        """Search one utterance `(T, V)`."""
        if not len(log_probs):
            return [self._nothing(0.0)]
        sure = log_probs[:, self.blank] > _SURE_BLANK
        kept = (~sure | ~sure.roll(1)).index_fill(0, torch.tensor([0]), True)
        passed = float(log_probs[~kept, self.blank].sum())
        possible = self._possible(log_probs[kept].contiguous(), self._token_threshold)
        if not possible:  # a closed lexicon, none of whose texts is likely enough
            possible = self._possible(log_probs[kept].contiguous(), math.inf)
        if not possible:
            if not self._warned:
                logger.warning("no sequence of the lexicon's words fits an utterance, which comes out empty; the next ones are not told")
            self._warned = True
            return [self._nothing(float(log_probs[:, self.blank].sum()))]
        frames = kept.nonzero()[:, 0].numpy()
        sureness = None if self.confidence is None else frame_confidences(log_probs, self.confidence)
        return [self._hypothesis(result, passed, frames, log_probs, sureness) for result in possible[: self.n_best]]

    def _possible(self, searched: torch.Tensor, token_threshold: float) -> list[Any]:
        """Return what flashlight finds in frames `(T, V)`, which are changed, best first."""
        tried = searched >= searched.amax(-1, keepdim=True) - token_threshold
        tried[:, self.blank] = True
        searched.masked_fill_(~tried, IMPOSSIBLE)
        # the decoder under torchaudio's tells the whole path, from which the frames of a symbol follow
        search = self._decoder.decoder
        if self._scores is None:
            found = search.decode(searched.data_ptr(), *searched.shape)
        else:
            search.decode_begin()
            for row, labels in zip(searched, tried, strict=True):
                self._scores.tried = frozenset(labels.nonzero()[:, 0].tolist())
                search.decode_step(row.data_ptr(), 1, len(row))
            search.decode_end()
            found = search.get_all_final_hypothesis()
        return [result for result in found if result.score > IMPOSSIBLE / 2]

    def _hypothesis(
        self, result: Any, passed: float, frames: np.ndarray, log_probs: torch.Tensor, sureness: torch.Tensor | None
    ) -> Hypothesis:
        # the path has a blank before the first frame and one behind the last
        path = collapse(result.tokens[1:-1], self.blank)
        tokens = tuple(Token(token.id, int(frames[token.start_frame]), int(frames[token.end_frame - 1]) + 1) for token in path)
        confidences = () if sureness is None else self._confidences(tokens, log_probs, sureness)
        if self._words is None:
            return Hypothesis(tokens, result.score + passed, confidences)
        words = self._spans([token.id for token in tokens])
        return Hypothesis(
            tokens, result.score + passed, confidences, words, " ".join(word.text for word in words) if self._spoken else None
        )

    def _nothing(self, score: float) -> Hypothesis:
        return Hypothesis((), score, (), None if self._words is None else (), None if self._words is None or not self._spoken else "")

    def _confidences(self, tokens: tuple[Token, ...], log_probs: torch.Tensor, sureness: torch.Tensor) -> tuple[float, ...]:
        values = torch.zeros_like(sureness)
        for token in tokens:
            held = slice(token.start_frame, token.end_frame)
            values[held] = sureness[held] * (log_probs[held, token.id] - log_probs[held].amax(-1)).exp()
        starts, ends = [token.start_frame for token in tokens], [token.end_frame for token in tokens]
        return tuple(join(values.numpy(), starts, ends))

    def _spans(self, labels: list[int]) -> tuple[TokenSpan, ...]:
        def text(number: int | None, first: int, last: int) -> str:
            return labels_to_text(labels[first:last], self.tokenizer).strip() if number is None else self._vocabulary.texts[number]

        return tuple(TokenSpan(text(*word), *word[1:]) for word in self._words.read(labels))


def _sum_of(parts: list[Any]) -> Any:
    """Join what scores a text symbol by symbol to what flashlight calls a language model."""
    from torchaudio.models.decoder import CTCDecoderLM, CTCDecoderLMState

    class Place(CTCDecoderLMState):
        """A text: the states of the parts behind it, and the texts that are one symbol longer."""

        def __init__(self, states: list):
            super().__init__()
            self.states, self.longer = states, {}

    class Sum(CTCDecoderLM):
        def __init__(self):
            super().__init__()
            self.first = None
            self.tried: frozenset[int] = frozenset()
            self.refused = Place([]), IMPOSSIBLE

        def start(self, start_with_nothing: bool) -> Place:
            # flashlight keeps no Python object alive: all texts hang from this one
            self.first = Place([part.start for part in parts])
            return self.first

        def score(self, state: Place, label: int) -> tuple[Place, float]:
            if label not in self.tried:  # flashlight asks for all, and what follows takes time
                return self.refused
            found = state.longer.get(label)
            if found is None:
                steps = [part.step(before, label) for part, before in zip(parts, state.states, strict=True)]
                found = state.longer[label] = Place([after for after, _ in steps]), sum(gain for _, gain in steps)
            return found

        def finish(self, state: Place) -> tuple[Place, float]:
            return state, sum(part.finish(before) for part, before in zip(parts, state.states, strict=True))

    return Sum()
