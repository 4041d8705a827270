"""Mutated `.nemo` archives: each is read, or refused in one sentence; none ends the process, hangs, or writes a file.

    python tests/benchmarks/fuzz_nemo.py 1000 [seed]

Prints a line of JSON: how many were read and refused, the kinds of refusals, the longest time and the growth of the memory.
"""

import collections
import gzip
import io
import json
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from nemo_files import front_end_buffers, nemo_config, nemo_weights, saved, write_archive

from hfasr.models.citrinet import CitrinetConfig
from hfasr.models.nemo import build_nemo, read_nemo
from hfasr.models.quartznet import QuartzNetConfig

SECONDS_ALLOWED = 20
NASTY = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    10**15,
    0.5,
    -1e300,
    float("nan"),
    float("inf"),
    "",
    "x" * 5000,
    "a\n\x1b[2J",
    "\ud800",
    "../../etc/passwd",
    [],
    {},
    [[1]],
]


def main(count: int, seed: int) -> dict:
    """Read `count` mutated archives; return the figures."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        sandbox, path = Path(folder, "sandbox"), Path(folder, "fuzz.nemo")
        sandbox.mkdir()
        os.chdir(sandbox)
        tempfile.tempdir = os.fspath(sandbox)
        archives = [_characters(), _pieces()]
        for members in archives:
            build_nemo(read_nemo(write_archive(path, members)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        figures = collections.Counter()
        slowest, longest = 0.0, 0
        for _ in range(count):
            mutate = chance.choice(MUTATIONS)
            path.write_bytes(mutate(chance, chance.choice(archives), path))
            signal.alarm(SECONDS_ALLOWED)
            start = time.perf_counter()
            try:
                checkpoint = read_nemo(path)
                build_nemo(checkpoint)
                figures["read"] += 1
                if not "".join((checkpoint.framing_reason, *checkpoint.remarks)).isprintable():
                    raise AssertionError(f"not printable: {checkpoint.framing_reason!r}, {checkpoint.remarks}")
            except (ValueError, FileNotFoundError, OSError) as error:
                message = str(error).removeprefix(f"{path}: ")
                figures["refused"] += 1
                figures[f"refused: {re.sub(r'[0-9]+', '#', message)[:40]}"] += 1
                longest = max(longest, len(message))
                if not message.isprintable() or re.search(r"\. [A-Z]", message):
                    raise AssertionError(f"no single printable sentence: {message!r}") from error
            signal.alarm(0)
            slowest = max(slowest, time.perf_counter() - start)
            if found := [file.name for file in sandbox.iterdir()]:
                raise AssertionError(f"left behind: {found}")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        return {"count": count, "slowest_seconds": round(slowest, 2), "grown_mb": round(grown), "longest_message": longest, **figures}


def _characters() -> dict[str, bytes]:
    blocks = [
        {"filters": 4, "kernel": 3, "stride": 2, "squeeze_excite": True, "se_reduction": 2},
        {"filters": 4, "kernel": 1, "residual": True, "separable": False},
    ]
    return _members(CitrinetConfig(blocks=blocks, num_mel_bins=8), [" ", "a", "'"], {})


def _pieces() -> dict[str, bytes]:
    import sentencepiece

    model, words = io.BytesIO(), ["one two three", "two, three and four", "it's one or two"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_writer=model, vocab_size=20, model_type="unigram", minloglevel=2
    )
    config = QuartzNetConfig(blocks=[{"filters": 4, "kernel": 3, "stride": 2}, {"filters": 4, "kernel": 3}], num_mel_bins=8)
    options = {
        "target": "nemo.collections.asr.models.EncDecCTCModelBPE",
        "tokenizer": {"type": "bpe", "model_path": "nemo:a_tokenizer.model"},
    }
    return _members(config, [str(piece) for piece in range(20)], options) | {"a_tokenizer.model": model.getvalue()}


def _members(config, labels: list[str], options: dict) -> dict[str, bytes]:
    made = nemo_config(config, labels, n_fft=64, window_size=0.002, window_stride=0.001) | options
    weights = nemo_weights(config, len(labels)) | front_end_buffers(made["preprocessor"])
    return {"model_config.yaml": yaml.dump(made).encode(), "model_weights.ckpt": saved(weights)}


def _mutated(chance: random.Random, content: bytes) -> bytes:
    """Flip, cut, insert, double or overwrite some bytes."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8, 64])):
        place = chance.randrange(len(data)) if data else 0
        match chance.randrange(6):
            case 0 | 1:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 2:
                data[place : place + chance.randrange(1, 64)] = b""
            case 3:
                data[place:place] = chance.randbytes(chance.randrange(1, 64))
            case 4:
                data[place : place + 8] = struct.pack(chance.choice("<>") + "Q", chance.choice([0, 2**31, 2**40, 2**63, 2**64 - 1]))
            case 5:
                del data[place + 1 + chance.randrange(len(data) + 1) :]
    return bytes(data)


def _archive(members: dict[str, bytes], path: Path) -> bytes:
    return write_archive(path, members).read_bytes()


def _anywhere(chance: random.Random, members: dict[str, bytes], path: Path) -> bytes:
    return _mutated(chance, _archive(members, path))


def _header(chance: random.Random, members: dict[str, bytes], path: Path) -> bytes:
    """Change a header of the tar, with a checksum that fits more often than not."""
    data = bytearray(_archive(members, path))
    headers = [place for place in range(0, len(data), 512) if data[place + 257 : place + 262] == b"ustar"]
    place = chance.choice(headers)
    header = bytearray(data[place : place + 512])
    for _ in range(chance.randrange(1, 4)):
        start, end = chance.choice([(0, 100), (100, 124), (124, 136), (124, 136), (156, 157), (157, 257), (345, 500)])
        fields = [
            b"../../escape",
            b"/tmp/escape",
            b"77777777777",
            b"\x80" + b"\0" * 10 + b"\x7f",
            b"\xff" * 12,
            b"-0000000001",
            b"0",
            b"1",
            b"2",
            b"L",
            b"K",
            b"S",
            b"x",
            b"g",
        ]
        value = chance.choice([*fields, chance.randbytes(end - start)])[: end - start]
        header[start:end] = value.ljust(end - start, b"\0")
    if chance.random() < 0.8:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    data[place : place + 512] = header
    return bytes(data)


def _one_member(chance: random.Random, members: dict[str, bytes], path: Path) -> bytes:
    name = chance.choice(list(members))
    return _archive({**members, name: _mutated(chance, members[name])}, path)


def _pickle(chance: random.Random, members: dict[str, bytes], path: Path) -> bytes:
    """Change a record inside the weights, in a zip file that is whole."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(members["model_weights.ckpt"])) as source, zipfile.ZipFile(made, "w") as target:
        records = source.namelist()
        chosen = chance.choice([name for name in records if name.endswith("data.pkl")] * 20 + records)
        for name in records:
            content = source.read(name)
            target.writestr(name, _mutated(chance, content) if name == chosen else content)
    return _archive({**members, "model_weights.ckpt": made.getvalue()}, path)


def _option(chance: random.Random, members: dict[str, bytes], path: Path) -> bytes:
    """Put something else in the place of an option."""
    config = yaml.safe_load(members["model_config.yaml"])
    part = config
    while True:
        keys = list(part) if isinstance(part, dict) else range(len(part))
        key = chance.choice(list(keys))
        if isinstance(part[key], (dict, list)) and part[key] and chance.random() < 0.8:
            part = part[key]
            continue
        if chance.random() < 0.1 and isinstance(part, dict):
            del part[key]
        else:
            part[key] = chance.choice(NASTY)
        return _archive({**members, "model_config.yaml": yaml.dump(config).encode("utf-8", "surrogatepass")}, path)


def _packed(chance: random.Random, members: dict[str, bytes], path: Path) -> bytes:
    packed = gzip.compress(_archive(members, path), 1)
    return _mutated(chance, packed) if chance.random() < 0.5 else gzip.compress(_anywhere(chance, members, path), 1)


MUTATIONS = [_anywhere, _header, _one_member, _pickle, _option, _packed]

if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0), ensure_ascii=False))
