import json
import logging
import os
import shutil
import tarfile

import numpy as np
import pytest
from layouts import build_ksc2, build_manifest, clip, pack, write, write_lines

from hfasr import corpora
from hfasr.corpora.check import check_audio
from hfasr.corpora.manifest_writer import write_manifest
from hfasr.corpora.reading.source import load_corpus
from hfasr.corpora.reading.table import problems_of
from hfasr.corpora.rows import plain


def facts(rows) -> list[tuple]:
    return [(row["id"], row["text"], row["duration"]) for row in plain(rows)]


def listed(rows) -> list[tuple[str, str]]:
    return [(problem["problem"], problem["name"]) for problem in problems_of(rows)]


def test_folder_file_and_archive(tmp_path):
    folder = build_manifest(tmp_path)
    corpus = load_corpus(folder)
    assert list(corpus) == ["train", "validation", "test"]
    assert facts(corpus["train"]) == [("s1", "бир", 0.25), ("talk-500-1250", "эки", 0.75), ("talk-1250-1750", "үч", 0.5)]
    assert facts(corpus["validation"]) == [("s2", "төрт", 0.5)]
    assert facts(corpus["test"]) == [("s3", "беш", 0.75)]  # from the header
    first, second, _ = plain(corpus["train"])
    assert (first["speaker"], first["gender"], first["source"], second["gender"]) == ("a", None, "ky", "female")
    whole = np.random.default_rng(8).standard_normal(32_000) * 0.1
    np.testing.assert_allclose(corpus["train"][1]["audio"]["array"], whole[8_000:20_000], atol=2 / 32768)
    assert facts(load_corpus(folder / "dev_manifest.json")["validation"]) == facts(corpus["validation"])
    for archive in (pack(folder, "a.tar"), pack(folder, "b.tar.gz"), pack(folder, "c.zip")):
        packed = load_corpus(archive)
        for split, rows in corpus.items():
            assert facts(packed[split]) == facts(rows)
            np.testing.assert_array_equal(packed[split][0]["audio"]["array"], rows[0]["audio"]["array"])


def test_several_manifests(tmp_path):
    folder = build_manifest(tmp_path)
    train, dev, test = (folder / f"{name}_manifest.json" for name in ("train", "dev", "test"))
    expected = facts(corpora.manifest(folder)["train"]) + facts(corpora.manifest(folder)["validation"])
    for path in ({"train": [train, dev], "test": test}, {"train": f"{train},{dev}", "test": str(test)}, {"train": f"[[{train}],[{dev}]]"}):
        assert facts(corpora.manifest(path)["train"]) == expected
    corpus = corpora.manifest([train, test])
    assert list(corpus) == ["train", "test"]
    for number, path in enumerate((train, dev)):
        shutil.copy(path, folder / f"shard_{number}.json")
    assert facts(corpora.manifest(f"{folder}/shard__OP_0..1_CL_.json")["train"]) == expected
    assert facts(corpora.manifest(f"{folder}/shard_{{0..1}}.json")["train"]) == expected
    with pytest.raises(FileNotFoundError, match=r"shard_2\.json: no such file"):
        corpora.manifest(f"{folder}/shard_{{0..2}}.json")
    with pytest.raises(ValueError, match="is given twice"):
        corpora.manifest({"train": train, "test": train})
    with pytest.raises(ValueError, match="has no split 'dev', found train, validation, test"):
        corpora.manifest(folder, splits=["dev"])
    assert list(corpora.manifest(folder, splits=["test"])) == ["test"]


def test_names_of_splits(tmp_path):
    folder = build_manifest(tmp_path)
    for name in ("train", "dev", "test"):
        (folder / f"{name}_manifest.json").rename(folder / f"{name}.x")
    for name in ("an4_train.json", "test_ios.jsonl", "tarred_audio_manifest_dev.json", "data.json", "notes.json"):
        shutil.copy(folder / "dev.x", folder / name)
    write(folder / "notes.json", '{"author": "me"}\n')
    assert list(load_corpus(folder)) == ["train", "validation", "data", "test_ios"]
    assert list(corpora.manifest(folder / "data.json")) == ["train"]
    assert list(corpora.manifest(folder / "dev.x")) == ["validation"]  # a manifest by any name


def test_bad_lines_are_left_out_and_listed(tmp_path, caplog):
    folder = build_manifest(tmp_path)
    write(folder / "wavs" / "s2.txt", "\ufeffтөрт\r\n")
    good = '{"audio_filepath": "wavs/s1.wav", "duration": 0.25, "text": "бир"}'
    lines = [
        "\ufeff" + good, "", '{"audio_filepath": "wavs/s2.wav", "duration": 0.5, "text": "broken', "[1]", '{"duration": 1, "text": "x"}',
        '{"audio_filepath": ["a.wav", "b.wav"], "duration": 1, "text": "x"}',
        '{"audio_filepath": "wavs/s2.wav", "duration": 0.5, "text": null}',
        '{"audio_filepath": "wavs/s2.wav", "duration": NaN, "text_filepath": "wavs/s2.txt"}',
        '{"audio_filepath": "wavs/s3.wav", "duration": -1, "text": ""}',
        '{"audio_filepath": "wavs/gone.wav", "duration": 1.5, "text": "жок"}',
        '{"audio_filepath": "wavs/talk.flac", "offset": -2, "duration": 1, "text": "x"}',
        '{"audio_filepath": "wavs/talk.flac", "offset": 1.5, "text": "аягы"}',
    ]  # fmt: skip
    write(folder / "train_manifest.json", "\r\n".join(lines))
    rows = corpora.manifest(folder / "train_manifest.json")["train"]
    expected = [("s1", "бир", 0.25), ("s2", "төрт", 0.5), ("s3", "", 0.75), ("gone", "жок", None), ("talk-1500-", "аягы", 0.5)]
    found = [(row, text, None if np.isnan(seconds) else seconds) for row, text, seconds in facts(rows)]
    assert found == expected
    assert sorted(listed(rows)) == sorted([
        ("line that is not a JSON object", "train_manifest.json, line 3"),
        ("line that is not a JSON object", "train_manifest.json, line 4"),
        ("line without audio_filepath", "train_manifest.json, line 5"),
        ("line without audio_filepath", "train_manifest.json, line 6"),
        ("audio without transcript", "train_manifest.json, line 7"),
        ("duration that is not possible", "train_manifest.json, line 8"),
        ("duration that is not possible", "train_manifest.json, line 9"),
        ("transcript without audio", "gone"),
        ("offset that is not possible", "train_manifest.json, line 11"),
    ])  # fmt: skip
    assert "2 x line that is not a JSON object" in caplog.text


def test_wrong_input(tmp_path):
    cases = {
        '[\n{"audio_filepath": "a.wav"}\n]': "not JSON lines: one JSON value spans many lines",
        '[{"audio_filepath": "a.wav"}]\n': "one JSON list, not JSON lines",
        '{"wav": "a.wav", "text": "x"}\n': "has no audio_filepath, found wav, text",
        "path\ttext\n": "not JSON lines: it begins 'path",
        "": "is empty",
    }
    for text, message in cases.items():
        write(tmp_path / "m.json", text)
        with pytest.raises(ValueError, match=f"is not a NeMo manifest: m.json (is )?{message}"):
            corpora.manifest(tmp_path / "m.json")
    write(
        tmp_path / "m.json",
        '{"audio_filepath": "a.wav", "text": "ок"}\n'.encode() + '{"audio_filepath": "b.wav", "text": "ой"}\n'.encode("cp1251"),
    )
    with pytest.raises(ValueError, match=r"m\.json, line 2: not UTF-8"):
        corpora.manifest(tmp_path / "m.json")
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such corpus"):
        corpora.manifest(tmp_path / "none.json")
    with pytest.raises(ValueError, match="is not a NeMo manifest: .* It looks like KSC2: use corpora.ksc2"):
        corpora.manifest(build_ksc2(tmp_path / "k"))


def absolute(path, prefix: str) -> None:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    write_lines(path, [record | {"audio_filepath": f"{prefix}/{record['audio_filepath']}"} for record in records])


def test_paths_of_another_machine(tmp_path):
    folder = build_manifest(tmp_path)
    expected = facts(corpora.manifest(folder)["train"])
    path = folder / "train_manifest.json"
    absolute(path, "/data/speech/nemo")
    with pytest.raises(ValueError) as caught:
        corpora.manifest(path)
    assert str(caught.value) == (
        f"{path}: none of its audio is here; the first is /data/speech/nemo/wavs/s1.wav, all below /data/speech/nemo/wavs. "
        "If it is from another machine, say where the audio is by audio_root=, or --audio_root DIR"
    )
    for root in (folder, tmp_path, folder / "wavs"):
        corpus = corpora.manifest(path, audio_root=root)
        assert facts(corpus["train"]) == expected
        assert plain(corpus["train"])[0]["audio"]["path"] == str(folder / "wavs" / "s1.wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"none of its audio is below audio_root .*; for /data/speech/nemo/wavs/s1.wav tried .*/empty/data/.*"
    ):
        corpora.manifest(path, audio_root=tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="audio_root .*: no such folder"):
        corpora.manifest(path, audio_root=tmp_path / "gone")
    write_lines(path, [{"audio_filepath": "C:\\speech\\wavs\\s1.wav", "duration": 0.25, "text": "бир"}])
    assert facts(corpora.manifest(path, audio_root=folder)["train"]) == [("s1", "бир", 0.25)]
    write_lines(path, [{"audio_filepath": "elsewhere/s1.wav", "duration": 0.25, "text": "бир"}])
    with pytest.raises(ValueError, match=rf"the first is elsewhere/s1.wav, looked for at {folder}/elsewhere/s1.wav"):
        corpora.manifest(path)
    assert facts(corpora.manifest(path, audio_root=folder / "wavs")["train"]) == [("s1", "бир", 0.25)]


def test_a_root_takes_as_little_of_a_path_as_it_can(tmp_path):
    for name in ("a/x.wav", "b/x.wav", "x.wav"):
        clip(tmp_path / "root" / name, 1 if name == "x.wav" else 2)
    path = write_lines(tmp_path / "m.json", [{"audio_filepath": f"/old/{name}/x.wav", "text": name} for name in "ab"])
    rows = plain(corpora.manifest(path, audio_root=tmp_path / "root")["train"])
    assert [row["audio"]["path"] for row in rows] == [str(tmp_path / "root" / name / "x.wav") for name in "ab"]
    assert [row["id"] for row in rows] == ["a/x", "b/x"]  # two files of one name: the path tells them apart


def test_a_changed_manifest_is_seen(tmp_path):
    path = build_manifest(tmp_path) / "train_manifest.json"
    assert len(corpora.manifest(path)["train"]) == 3
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"audio_filepath": "wavs/s3.wav", "duration": 0.75, "text": "алты"}\n')
    assert facts(corpora.manifest(path)["train"])[-1] == ("s3", "алты", 0.75)


def test_language(tmp_path):
    path = build_manifest(tmp_path) / "train_manifest.json"
    assert facts(corpora.manifest(path, language="ky")["train"]) == [("s1", "бир", 0.25)]
    with pytest.raises(ValueError, match="has no rows"):
        corpora.manifest(path, language="kk")


def test_packed_by_nemo(tmp_path):
    folder = build_manifest(tmp_path)
    shards = {0: ["s1.wav", "talk.flac"], 1: ["s2.wav"]}
    lines = [
        {"audio_filepath": "s1.wav", "duration": 0.25, "text": "бир", "shard_id": 0},
        {"audio_filepath": "talk.flac", "offset": 0.5, "duration": 0.75, "text": "эки", "shard_id": 0},
        {"audio_filepath": "talk-sub1.flac", "offset": 1.25, "duration": 0.5, "text": "үч", "shard_id": 0},
        {"audio_filepath": "s2.wav", "duration": 0.5, "text": "төрт", "shard_id": 1},
        {"audio_filepath": "s9.wav", "duration": 0.5, "text": "жок", "shard_id": 1},
    ]
    (tmp_path / "packed").mkdir()
    for shard, names in shards.items():
        with tarfile.open(tmp_path / "packed" / f"audio_{shard}.tar", "w") as archive:
            for name in names:
                archive.add(folder / "wavs" / name, arcname=name)
        write_lines(
            tmp_path / "packed" / "sharded_manifests" / f"manifest_{shard}.json", [line for line in lines if line["shard_id"] == shard]
        )
    write_lines(tmp_path / "packed" / "tarred_audio_manifest.json", lines)
    expected = facts(corpora.manifest(folder)["train"])
    for path in (tmp_path / "packed" / "tarred_audio_manifest.json", f"{tmp_path}/packed/sharded_manifests/manifest__OP_0..1_CL_.json"):
        corpus = corpora.manifest(path)
        assert [fact[1:] for fact in facts(corpus["train"])] == [fact[1:] for fact in expected] + [("төрт", 0.5)]
        assert len(corpus["train"][2]["audio"]["array"]) == 8_000
        assert len(problems_of(corpus["train"])) == 1
    os.remove(tmp_path / "packed" / "audio_1.tar")
    with pytest.raises(FileNotFoundError, match=r"no audio_1\.tar beside it"):
        corpora.manifest(tmp_path / "packed" / "tarred_audio_manifest.json")


def test_rows_to_manifest_and_back(tmp_path):
    corpus = corpora.manifest(build_manifest(tmp_path))
    for relative in (True, False):
        target = tmp_path / f"out{relative}"
        written = write_manifest(corpus, target, relative=relative)
        assert [path.name for path in written] == ["train.json", "validation.json", "test.json"]
        again = corpora.manifest(target)
        assert {split: plain(rows).to_dict() for split, rows in again.items()} == {
            split: plain(rows).to_dict() for split, rows in corpus.items()
        }
        assert [path.name for path in target.iterdir() if path.suffix != ".json"] == []
    first = json.loads(written[0].read_text(encoding="utf-8").splitlines()[0])
    assert first["audio_filepath"] == str(tmp_path / "nemo" / "wavs" / "s1.wav")
    record = json.loads((tmp_path / "outTrue" / "train.json").read_text(encoding="utf-8").splitlines()[1])
    assert record == {
        "audio_filepath": "../nemo/wavs/talk.flac",
        "offset": 0.5,
        "duration": 0.75,
        "text": "эки",
        "id": "talk-500-1250",
        "gender": "female",
    }
    (one,) = write_manifest(corpus["train"], tmp_path / "one.jsonl")
    assert facts(corpora.manifest(one)["train"]) == facts(corpus["train"])


def test_rows_that_are_no_files(tmp_path, caplog):
    folder = build_manifest(tmp_path)
    packed = corpora.manifest(pack(folder, "a.tar"))
    write(tmp_path / "old" / "train.json", "old")
    with pytest.raises(
        ValueError, match=r"the audio of s1 is in an archive .*; give audio_folder= .* or keep the corpus as Parquet with `hfasr prepare`"
    ):
        write_manifest(packed, tmp_path / "old")
    assert (tmp_path / "old" / "train.json").read_text() == "old"
    write_manifest(packed, tmp_path / "old", audio_folder=tmp_path / "flac")
    again = corpora.manifest(tmp_path / "old")
    assert [fact[:2] for fact in facts(again["train"])] == [fact[:2] for fact in facts(packed["train"])]
    for row, other in zip(again["train"], packed["train"], strict=True):
        np.testing.assert_allclose(row["audio"]["array"], other["audio"]["array"], atol=2 / 32768)
    rows = plain(packed["train"]).map(lambda row: {"audio": {"bytes": b"no audio", "path": None}, "id": "../../escape"})
    with pytest.raises(ValueError, match=r"the audio of \.\./\.\./escape is bytes in the row"):
        write_manifest(rows, tmp_path / "b.json")
    with caplog.at_level(logging.WARNING):
        write_manifest(rows, tmp_path / "b.json", audio_folder=tmp_path / "flac")
    assert "3 rows without usable audio are left out" in caplog.text
    assert not list(tmp_path.parent.glob("escape*"))


def test_wrong_targets(tmp_path):
    corpus = corpora.manifest(build_manifest(tmp_path))
    with pytest.raises(ValueError, match=r"a corpus with splits train, validation, test needs a folder.*corpus\['train'\]"):
        write_manifest(corpus, tmp_path / "all.json")
    with pytest.raises(ValueError, match=r"ends in \.json or \.jsonl"):
        write_manifest(corpus["train"], tmp_path / "folder")
    with pytest.raises(TypeError, match="found list"):
        write_manifest([1], tmp_path / "a.json")


def test_a_missing_file_is_set_aside(tmp_path):
    folder = build_manifest(tmp_path)
    (folder / "wavs" / "s1.wav").unlink()
    corpus = corpora.manifest(folder)
    assert listed(corpus["train"]) == [("transcript without audio", "s1")]
    checked = check_audio(corpus)
    checked = checked[0] if isinstance(checked, tuple) else checked
    assert [row for row, _, _ in facts(checked["train"])] == ["talk-500-1250", "talk-1250-1750"]
    clip(folder / "wavs" / "s1.wav", 1)  # put back: it is seen though no manifest has changed
    assert listed(corpora.manifest(folder)["train"]) == []
