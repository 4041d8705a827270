import shutil
import tarfile

import numpy as np
import pytest
import soundfile
from layouts import build_aishell2_eval, build_aishell2_train, clip, pack, write

from hfasr.corpora import aishell2
from hfasr.corpora.reading.table import NO_AUDIO, NO_TEXT, TWICE, problems_of
from hfasr.corpora.rows import plain

TRAIN = [
    ("IC0001W0001", "厨房用具", 0.25, "C0001", "iOS"),
    ("IC0001W0002", "电蒸锅", 0.5, "C0001", "iOS"),
    ("ID0114W0368", "我感觉就是在不断'拉抽屉'", 0.75, "D0114", "iOS"),
]


def evaluation(channel: str, letter: str):
    return {
        f"dev_{channel.lower()}": [(f"{letter}D0012W0013", "当客户风险承受能力评估依据发生变化时", 1.0, "D0012", channel)],
        f"test_{channel.lower()}": [
            (f"{letter}T0011W0001", "换一首歌", 1.25, "T0011", channel),
            (f"{letter}T0012W0002", "打开ＡＴＭ", 1.5, "T0012", channel),
        ],
    }


EVALUATION = evaluation("iOS", "I") | evaluation("Android", "A") | evaluation("Mic", "M")


def rows_of(corpus):
    columns = ("id", "text", "duration", "speaker", "source")
    return {split: [tuple(row[column] for column in columns) for row in plain(rows)] for split, rows in corpus.items()}


def listed(rows):
    return sorted((problem["problem"], problem["name"]) for problem in problems_of(rows))


def test_training_set_evaluation_set_or_both(tmp_path):
    train, evaluated = build_aishell2_train(tmp_path), build_aishell2_eval(tmp_path)
    expected, _ = soundfile.read(evaluated / "Mic" / "test" / "wav" / "T0011" / "MT0011W0001.wav", dtype="float32")
    for place in (train, train / "iOS", pack(train, "train.tar.gz"), pack(train / "iOS", "iOS.zip")):
        assert rows_of(aishell2(place)) == {"train": TRAIN}
    for place in (evaluated, pack(evaluated, "eval.tar"), pack(evaluated, "TEST&DEV DATA.zip")):
        found = aishell2(place)
        assert rows_of(found) == EVALUATION
        assert listed(found["dev_ios"]) == []
        audio = found["test_mic"][0]["audio"]
        assert audio["sampling_rate"] == 16_000
        np.testing.assert_array_equal(audio["array"], expected)
    (train / "iOS.zip").unlink()
    both = aishell2(tmp_path)
    assert rows_of(both) == {"train": TRAIN} | EVALUATION
    assert list(both) == ["train", "dev_ios", "test_ios", "dev_android", "test_android", "dev_mic", "test_mic"]
    shutil.move(evaluated, train)  # as ESPnet has it
    assert rows_of(aishell2(train)) == {"train": TRAIN} | EVALUATION
    assert list(aishell2(train, splits=["test_mic", "dev_ios"])) == ["test_mic", "dev_ios"]
    with pytest.raises(ValueError, match=r"no split 'test', found train, dev_ios, test_ios, dev_android"):
        aishell2(train, splits=["test"])


def test_dev_and_test_beside_training_and_further_channels(tmp_path):
    train, evaluated = build_aishell2_train(tmp_path), build_aishell2_eval(tmp_path)
    for part in ("dev", "test"):  # as Kaldi has it
        shutil.move(evaluated / "iOS" / part, train / "iOS" / part)
    shutil.copytree(train / "iOS" / "data", train / "Android" / "data")
    shutil.rmtree(evaluated)
    found = aishell2(train)
    assert list(found) == ["train", "dev_ios", "test_ios", "train_android"]
    assert rows_of(found)["test_ios"] == EVALUATION["test_ios"]


def pack_away(folder, name, inside):
    with tarfile.open(f"{folder}.tar.gz" if not name else folder.parent / name, "w:gz") as archive:
        archive.add(folder, arcname=inside)
    shutil.rmtree(folder)


def test_archives_of_speakers_and_parts_are_read_in_place(tmp_path):
    train, evaluated = build_aishell2_train(tmp_path), build_aishell2_eval(tmp_path)
    pack_away(train / "iOS" / "data" / "wav" / "C0001", "", "C0001")
    pack_away(evaluated / "iOS" / "test", "", "test")
    pack_away(evaluated / "Mic" / "dev", "", "dev")
    before = sorted(tmp_path.rglob("*"))
    found = aishell2(tmp_path)
    assert rows_of(found) == {"train": TRAIN} | EVALUATION
    assert len(found["test_ios"][0]["audio"]["array"]) == 20_000
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ValueError, match=r"holds .*iOS/test\.tar\.gz, an archive in an archive, .*\(unzip '.*DATA\.zip'\)"):
        aishell2(pack(evaluated, "TEST&DEV DATA.zip"), splits=["test_ios"])


def test_separators_bom_line_ends_and_changes(tmp_path):
    train = build_aishell2_train(tmp_path)
    data = train / "iOS" / "data"
    write(data / "trans.txt", "\ufeffIC0001W0001 厨房用具\r\nIC0001W0002\t电蒸锅\r\n\r\nID0114W0368   我感觉就是在不断'拉抽屉'\r\n")
    write(data / "wav.scp", (data / "wav.scp").read_bytes().replace(b"\t", b" ").replace(b"\n", b"\r\n"))
    assert rows_of(aishell2(train)) == {"train": TRAIN}
    write(data / "trans.txt", "IC0001W0001\tHere is 厨房\n")
    assert [row[:2] for row in rows_of(aishell2(train))["train"]] == [("IC0001W0001", "Here is 厨房")]
    write(data / "trans.txt", "IC0001W0001\t厨房\nIC0001W0002\t电蒸锅\n".encode("gb18030"))
    with pytest.raises(ValueError, match=r"iOS/data/trans\.txt, line 1: not UTF-8"):
        aishell2(train)


def test_what_is_missing_is_listed_both_ways(tmp_path, caplog):
    train = build_aishell2_train(tmp_path)
    data = train / "iOS" / "data"
    (data / "wav" / "C0001" / "IC0001W0002.wav").unlink()
    clip(data / "wav" / "C0001" / "IC0001W0009.wav", 1)
    lines = "IC0001W0001\t厨房\nIC0001W0001\t厨房用具\nIC0001W0002\t电蒸锅\nIC0003W0001\t没有\n"
    write(data / "trans.txt", lines)
    with open(data / "wav.scp", "a", encoding="utf-8") as file:
        file.write("IC0004W0001\twav/C0004/IC0004W0001.wav\nIC0004W0002\t../../../secret.wav\n")
    found = aishell2(train)
    assert [row[:2] for row in rows_of(found)["train"]] == [tuple(line.split("\t")) for line in lines.splitlines()]
    assert listed(found["train"]) == sorted([
        (TWICE, "IC0001W0001"), (NO_AUDIO, "IC0001W0002"), (NO_AUDIO, "IC0003W0001"), (NO_TEXT, "IC0001W0009"),
        (NO_TEXT, "IC0004W0001"), (NO_TEXT, "ID0114W0368"),
    ])  # fmt: skip
    assert "3 x audio without transcript" in caplog.text


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("trans.txt", r"iOS/data has no trans\.txt, found wav/, wav\.scp; was its archive extracted to its end\?"),
        ("wav", r"iOS/data/wav holds no \.wav and no \.tar\.gz, found nothing; was it extracted to its end\?"),
    ],
)
def test_a_half_extracted_part_is_named(tmp_path, lost, message):
    train = build_aishell2_train(tmp_path)
    path = train / "iOS" / "data" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ValueError, match=message):
        aishell2(train)


def test_one_part_without_its_channel(tmp_path):
    train = build_aishell2_train(tmp_path)
    with pytest.raises(ValueError, match=r"is not AISHELL-2: one part without its channel; give the folder above iOS/data, expected"):
        aishell2(train / "iOS" / "data")
