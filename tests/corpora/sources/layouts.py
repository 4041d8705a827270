"""Small corpora with the layouts as published: real audio in the right format and rate, few clips, one function each.

Each function builds a corpus below a folder and returns the folder that a user would give. Clip n lasts n/4 seconds.
"""

import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from datasets import Audio, ClassLabel, Dataset, Features, Value

from hfasr.audio import write_audio

CV_HEADER = "client_id\tpath\tsentence_id\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\n"
CV_SPLITS = {"train": (1, 2, 3), "dev": (4,), "test": (5, 6), "validated": (1, 2, 3, 4, 5, 6, 7), "invalidated": (8,), "other": (9,)}

KSC2_CLIPS = {
    "Train/crowdsourced/5f1a": (1, "Бір сөз."), "Train/radio/radio_1_10": (2, "Екі [музыка] сөз"), "Train/tv_news/news_7": (3, "Үшінші"),
    "Dev/talkshow/show_2": (4, "Төртінші сөз"), "Test/podcasts/pod_1": (5, "Бесінші"), "Test/crowdsourced/5f1b": (6, "Алтыншы"),
}  # fmt: skip

KSC_HEADER = "uttID deviceID Gender Age Region Device_Type Headphones"
KSC_CLIPS = {
    "train": {"5f318346ebd7f": (1, "бірінші сөйлем", "12793"), "5f591bb5a80c8": (2, "екінші сөйлем", "12794")},
    "dev": {"5f1ba9feb3124": (3, "үшінші сөйлем", "20176 F 18 South computer yes")},
    "test": {
        "5f5af8479c85c": (4, "төртінші сөйлем", "15872 F 63 North phone no"),
        "5efc5e726df42": (5, "бесінші", "20185 M 21 South computer no"),
    },
}  # fmt: skip

AISHELL_CLIPS = {
    "train/S0002/BAC009S0002W0122": (1, "而 对 楼市 成交 抑制 作用 最 大 的 限 购"),
    "train/S0002/BAC009S0002W0123": (2, "也 成为 地方 政府 的 眼中 钉"),
    "train/S0003/BAC009S0003W0121": (3, "各地 政府 便 纷纷 跟进"), "dev/S0724/BAC009S0724W0121": (4, "广州 市 房地产"),
    "test/S0764/BAC009S0764W0121": (5, "甚至 出现 交易 几乎 停滞 的 情况"),
}  # fmt: skip
AISHELL_GENDERS = {"S0002": "F", "S0003": "F", "S0724": "M", "S0764": "F"}

AISHELL2_TRAIN = {
    "C0001/IC0001W0001": (1, "厨房用具"),
    "C0001/IC0001W0002": (2, "电蒸锅"),
    "D0114/ID0114W0368": (3, "我感觉就是在不断'拉抽屉'"),
}
AISHELL2_DEV = {"D0012/{}D0012W0013": (4, "当客户风险承受能力评估依据发生变化时")}
AISHELL2_TEST = {"T0011/{}T0011W0001": (5, "换一首歌"), "T0012/{}T0012W0002": (6, "打开ＡＴＭ")}
AISHELL2_CHANNELS = {"iOS": "I", "Android": "A", "Mic": "M"}

LIBRISPEECH_CLIPS = {
    "train-clean-100": {
        "103-1240-0000": (1, "CHAPTER ONE"), "103-1240-0001": (2, "THAT HAD ITS SOURCE"),
        "60-121082-0000": (3, "I'LL TELL YOU"),
    },
    "train-other-500": {"20-205-0000": (4, "THE ART OF WAR")},
    "dev-clean": {"84-121123-0000": (5, "GO DO YOU HEAR")},
    "test-other": {"367-130732-0000": (6, "LOBSTERS AND LOBSTERS")},
}  # fmt: skip
LIBRISPEECH_SPEAKERS = """\
; Some pipe(|) separated metadata about all LibriVox readers, whose work was used
;ID  |SEX| SUBSET           |MINUTES| NAME
20   | F | train-other-500  | 30.07 | Gesine
60   | M | train-clean-100  | 20.18 | |CBW|Simon
84   | F | dev-clean        |  8.02 | Christie Nowak
103  | F | train-clean-100  | 25.19 | Karen Savage
367  | F | test-other       |  8.05 | Kathy
"""

TALKS = [("TRAIN", "anna/one", ".wav"), ("TRAIN", "anna", ".flac"), ("TRAIN", "bek", ".mp3"), ("Valid", "", ".ogg"), ("test", "", ".opus")]
TABLE_TEXT = 'ал, "келди" {}'


def clip(path: Path, number: int, sampling_rate: int = 16_000) -> None:
    """Write noise of number/4 seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, 0.1 * np.random.default_rng(number).standard_normal(sampling_rate * number // 4), sampling_rate)


def write(path: Path, text: str | bytes) -> None:
    """Write a file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def pack(folder: Path, name: str, inside: str = "") -> Path:
    """Pack a folder into an archive beside it, by the archive's ending; a .stored.zip is not compressed."""
    path = folder.parent / name
    inside = inside or folder.name
    if name.endswith(".zip"):
        method = zipfile.ZIP_STORED if ".stored" in name else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, f"{inside}/{file.relative_to(folder)}")
        return path
    mode = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz", "tar": "w"}[name.rpartition(".")[2]]
    with tarfile.open(path, mode) as archive:
        archive.add(folder, arcname=inside)
    return path


def build_common_voice(folder: Path) -> Path:
    """Build `cv-corpus-25.0-2026-09-01/ky`."""
    top = folder / "cv-corpus-25.0-2026-09-01" / "ky"
    for split, numbers in CV_SPLITS.items():
        rows = [f"s{n % 2}\tcommon_voice_ky_{n}.mp3\tid{n}\tАл келди {n}\t2\t0\t\tfemale_feminine\tЧүй\tky\n" for n in numbers]
        write(top / f"{split}.tsv", CV_HEADER + "".join(rows))
    for n in range(1, 10):
        clip(top / "clips" / f"common_voice_ky_{n}.mp3", n, 48_000)
    write(top / "clip_durations.tsv", "clip\tduration[ms]\n" + "".join(f"common_voice_ky_{n}.mp3\t{250 * n}\n" for n in range(1, 9)))
    return top


def build_ksc2(folder: Path) -> Path:
    """Build `ISSAI_KSC2`; a clip of tv_news has doubled endings, as some have in the release."""
    top = folder / "ISSAI_KSC2"
    for name, (number, text) in KSC2_CLIPS.items():
        flac, txt = (".flac.flac", ".txt.txt") if "tv_news" in name else (".flac", ".txt")
        clip(top / (name + flac), number)
        write(top / (name + txt), text + "\n")
    return top


def build_ksc(folder: Path, audio: str = "Audios_flac", ending: str = ".flac") -> Path:
    """Build `ISSAI_KSC_335RS_v1.1_flac`; train.csv has ids only."""
    top = folder / "ISSAI_KSC_335RS_v1.1_flac"
    for split, clips in KSC_CLIPS.items():
        header = "uttID deviceID" if split == "train" else KSC_HEADER
        write(
            top / "Meta" / f"{split}.csv",
            "".join(f"{line}\n" for line in (header, *(f"{id} {meta}" for id, (_, _, meta) in clips.items()))),
        )
        for id, (number, text, _) in clips.items():
            clip(top / audio / f"{id}{ending}", number)
            write(top / "Transcriptions" / f"{id}.txt", text)
    return top


def build_aishell(folder: Path, packed: tuple[str, ...] = ()) -> Path:
    """Build `data_aishell` and `resource_aishell` beside it; the audio of packed speakers stays in `wav/<speaker>.tar.gz`."""
    top = folder / "data_aishell"
    for name, (number, _) in AISHELL_CLIPS.items():
        clip(top / "wav" / f"{name}.wav", number)
    lines = [f"{name.rpartition('/')[2]} {text}\n" for name, (_, text) in AISHELL_CLIPS.items()]
    write(top / "transcript" / "aishell_transcript_v0.8.txt", "".join(lines))
    write(folder / "resource_aishell" / "speaker.info", "".join(f"{id[1:]} {gender}\n" for id, gender in AISHELL_GENDERS.items()))
    write(folder / "resource_aishell" / "lexicon.txt", "啊 aa a1\n")
    for name in {name.rpartition("/")[0] for name in AISHELL_CLIPS if name.split("/")[1] in packed}:
        _pack_away(top / "wav", name, top / "wav" / f"{name.partition('/')[2]}.tar.gz")
    return top


def build_aishell2_train(folder: Path) -> Path:
    """Build `AISHELL-2/iOS/data`."""
    _aishell2_part(folder / "AISHELL-2" / "iOS" / "data", AISHELL2_TRAIN, "I")
    return folder / "AISHELL-2"


def build_aishell2_eval(folder: Path) -> Path:
    """Build `AISHELL-DEV-TEST-SET` with its three channels."""
    for channel, letter in AISHELL2_CHANNELS.items():
        _aishell2_part(folder / "AISHELL-DEV-TEST-SET" / channel / "dev", AISHELL2_DEV, letter)
        _aishell2_part(folder / "AISHELL-DEV-TEST-SET" / channel / "test", AISHELL2_TEST, letter)
    return folder / "AISHELL-DEV-TEST-SET"


def build_librispeech(folder: Path) -> Path:
    """Build `LibriSpeech` with some of its parts."""
    top = folder / "LibriSpeech"
    for part, clips in LIBRISPEECH_CLIPS.items():
        for id, (number, text) in clips.items():
            speaker, chapter, _ = id.split("-")
            clip(top / part / speaker / chapter / f"{id}.flac", number)
            with open(top / part / speaker / chapter / f"{speaker}-{chapter}.trans.txt", "a", encoding="utf-8") as file:
                file.write(f"{id} {text}\n")
    write(top / "SPEAKERS.TXT", LIBRISPEECH_SPEAKERS)
    for name in ("README.TXT", "LICENSE.TXT", "CHAPTERS.TXT", "BOOKS.TXT"):
        write(top / name, name)
    return top


def build_manifest(folder: Path) -> Path:
    """Build `nemo` with a manifest for each split, audio beside them, two segments of one recording."""
    top = folder / "nemo"
    for n in (1, 2, 3):
        clip(top / "wavs" / f"s{n}.wav", n)
    clip(top / "wavs" / "talk.flac", 8)
    write_lines(top / "train_manifest.json", [
        {"audio_filepath": "wavs/s1.wav", "duration": 0.25, "text": "бир", "speaker": "a", "lang": "ky"},
        {"audio_filepath": "wavs/talk.flac", "offset": 0.5, "duration": 0.75, "text": "эки", "gender": "female"},
        {"audio_filepath": "wavs/talk.flac", "offset": 1.25, "duration": 0.5, "text": "үч"},
    ])  # fmt: skip
    write_lines(top / "dev_manifest.json", [{"audio_filepath": "wavs/s2.wav", "duration": 0.5, "text": "төрт"}])
    write_lines(top / "test_manifest.json", [{"audio_filepath": "wavs/s3.wav", "text": "беш"}])
    return top


def build_folder(folder: Path) -> Path:
    """Build `talks`, with audio of every kind and a text beside each."""
    top = folder / "talks"
    for n, (split, place, ending) in enumerate(TALKS, start=1):
        clip(top / split / place / f"{n}{ending}", n)
        write(top / split / place / f"{n}.txt", f"сөз {n}\n")
    write(top / "README.txt", "Talks")
    return top


def build_table(folder: Path, ending: str = ".csv") -> Path:
    """Build `table` with train and test tables and `clips` beside them; the texts hold the separator and quotes."""
    top = folder / "table"
    for n in (1, 2, 3):
        clip(top / "clips" / f"c{n}.mp3", n, 48_000)
    for name, numbers in (("train", (1, 2)), ("test", (3,))):
        rows = [{"path": f"c{n}.mp3", "sentence": TABLE_TEXT.format(n), "client_id": f"s{n}", "gender": "male"} for n in numbers]
        if ending == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), top / f"{name}.parquet")
            continue
        with open(top / f"{name}{ending}", "w", encoding="utf-8", newline="") as file:
            quoting = csv.QUOTE_NONE if ending == ".tsv" else csv.QUOTE_MINIMAL
            table = csv.DictWriter(
                file, rows[0], delimiter="\t" if ending == ".tsv" else ",", quoting=quoting, quotechar=None if ending == ".tsv" else '"'
            )
            table.writeheader()
            table.writerows(rows)
    return top


def build_hub(folder: Path) -> Path:
    """Build `fleurs`: Parquet shards with a card that names them, and the columns of FLEURS."""
    top = folder / "fleurs"
    features = Features({
        "id": Value("int32"), "num_samples": Value("int32"), "path": Value("string"), "audio": Audio(sampling_rate=16_000),
        "transcription": Value("string"), "raw_transcription": Value("string"), "gender": ClassLabel(names=["male", "female", "other"]),
        "lang_id": ClassLabel(names=["ky_kg", "kk_kz"]), "language": Value("string"), "lang_group_id": Value("int64"),
    })  # fmt: skip
    for split, numbers in (("train", (1, 2, 3)), ("validation", (4,)), ("test", (5,))):
        rows = []
        for n in numbers:
            file = io.BytesIO()
            write_audio(file, 0.1 * np.random.default_rng(n).standard_normal(4000 * n), 16_000, format="WAV")
            rows.append({
                "id": 7, "num_samples": 4000 * n, "path": f"/home/x/{n}.wav", "audio": {"bytes": file.getvalue(), "path": f"{n}.wav"},
                "transcription": f"сөз {n}", "raw_transcription": f"Сөз {n}.", "gender": n % 2,
                "lang_id": 0, "language": "Kyrgyz", "lang_group_id": 1,
            })  # fmt: skip
        stored = Features({**features, "audio": {"bytes": Value("binary"), "path": Value("string")}})
        (top / "ky_kg").mkdir(parents=True, exist_ok=True)
        # cast last: `datasets` encodes through torchcodec, which stored audio does not need
        Dataset.from_list(rows, features=stored).cast(features).to_parquet(top / "ky_kg" / f"{split}-00000-of-00001.parquet")
    files = "".join(f"  - split: {split}\n    path: ky_kg/{split}-*\n" for split in ("train", "validation", "test"))
    write(top / "README.md", f"---\nconfigs:\n- config_name: ky_kg\n  data_files:\n{files}---\n")
    return top


def write_lines(path: Path, records: list[dict]) -> Path:
    """Write JSON lines."""
    write(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path


def _aishell2_part(folder: Path, clips: dict[str, tuple[int, str]], letter: str) -> None:
    clips = {name.format(letter): value for name, value in clips.items()}
    for name, (number, _) in clips.items():
        clip(folder / "wav" / f"{name}.wav", number)
    write(folder / "wav.scp", "".join(f"{name.partition('/')[2]}\twav/{name}.wav\n" for name in clips))
    write(folder / "trans.txt", "".join(f"{name.partition('/')[2]}\t{text}\n" for name, (_, text) in clips.items()))


def _pack_away(folder: Path, name: str, archive: Path) -> None:
    """Move a folder's files into an archive, under their name relative to `folder`."""
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder / name, arcname=name)
    for file in (folder / name).iterdir():
        file.unlink()
    (folder / name).rmdir()
    if not any((folder / name).parent.iterdir()):
        (folder / name).parent.rmdir()
