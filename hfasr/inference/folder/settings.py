"""Settings: which model transcribes, and how; what a folder of transcripts remembers of it."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Of a checkpoint's folder, what decides a transcript; reports and the state of a training may change.
_MODEL_FILES = (
    "config.json", "vocab.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "processor_config.json", "preprocessor_config.json",
)  # fmt: skip
# code too: that of models that bring their own (trust_remote_code)
_MODEL_ENDINGS = (".safetensors", ".model", ".index.json", ".py")
_FILE_OPTIONS = {"lm": "language model", "lexicon": "lexicon", "hotwords": "file of hotwords"}


@dataclass(frozen=True)
class Settings:
    """All that decides what a transcript says. It can be sent to another machine, where a Transcriber is built of it."""

    model: str
    """Checkpoint folder, Hub name or .nemo file."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `Transcriber`: window_seconds, split; confidence of the best path."""
    decoding: Mapping[str, Any] = field(default_factory=dict)
    """Of `BeamDecoder`; empty for the best path."""

    def build(self, **machine: Any):
        """Build the Transcriber.

        Args:
            machine: What a transcript does not depend on: device, batch_seconds, num_workers, compile.
        """
        from hfasr.inference.transcriber import Transcriber

        return Transcriber(self.model, decoder=self._decoder if self.decoding else None, **self.options, **machine)

    def absolute(self) -> "Settings":
        """Return the same with absolute paths, for a process in another folder."""
        decoding = {name: os.path.abspath(value) if name in _FILE_OPTIONS else value for name, value in self.decoding.items()}
        return replace(self, model=os.path.abspath(self.model) if os.path.exists(self.model) else self.model, decoding=decoding)

    def record(self) -> dict:
        """Return what a folder of transcripts remembers; files stand in it by what they hold, wherever they are.

        Raises:
            FileNotFoundError: The model, or a file of the decoder, does not exist.
            OSError: The Hub does not have the model.
        """
        for name, value in self.decoding.items():
            if name in _FILE_OPTIONS and not os.path.isfile(value):
                raise FileNotFoundError(f"{value}: no such {_FILE_OPTIONS[name]}")
        decoding = {name: digest_file(value) if name in _FILE_OPTIONS else value for name, value in sorted(self.decoding.items())}
        versions = {name: version(name) for name in ("hfasr", "torch", "transformers")}
        files = {name: str(value) for name, value in self.decoding.items() if name in _FILE_OPTIONS}
        return {"model": self.model, "weights": digest_model(self.model), **self.options, **decoding, "files": files, "versions": versions}

    def _decoder(self, engine):
        from hfasr.decoding.beam import BeamDecoder

        return BeamDecoder(engine.tokenizer, engine.blank, **self.decoding)


def digest_model(model: str) -> str:
    """Digest the weights, configuration, vocabulary and code of a checkpoint.

    Args:
        model: As for `load_model`.

    Raises:
        FileNotFoundError: The folder is not there, or holds no checkpoint.
        OSError: The Hub does not have it.
    """
    path = Path(model)
    if path.is_file():
        return digest_file(path)
    if not path.is_dir():
        from transformers.utils import cached_file

        # the folder of a revision, named by its commit
        return f"{model}@{Path(cached_file(model, 'config.json')).parent.name}"
    files = sorted(file for file in path.iterdir() if file.name in _MODEL_FILES or file.name.endswith(_MODEL_ENDINGS))
    files += sorted(path.glob("pytorch_model*.bin"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {digest_file(file)} ".encode())
    return digest.hexdigest()[:32]


def digest_file(path: str | os.PathLike) -> str:
    """Digest a file's content.

    Raises:
        FileNotFoundError: There is no such file.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
