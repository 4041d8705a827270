import io
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
from datasets import Audio, Dataset, DatasetDict, IterableDataset, Value, load_dataset
from filelock import FileLock
from ray_cluster import two_nodes, wait_for
from together import free_port

from hfasr.audio import load_audio, write_audio
from hfasr.corpora.preparation.prepare import prepare
from hfasr.corpora.preparation.shards import Shard, digest_rows, make_shard, read_footer, write_rows
from hfasr.corpora.preparation.workers import run_in_processes
from hfasr.corpora.rows import build_rows, decoded, plain, with_column
from hfasr.paths import archive_path, segment_path

BAD = {"text.mp3": "not audio", "cut.wav": "cut short", "silent.wav": "silent", "missing.wav": "no such audio file"}


def rows(paths, durations=None, prefix="u"):
    records = [
        {
            "id": f"{prefix}{n}", "audio": {"path": None, "bytes": path} if isinstance(path, bytes) else {"path": str(path), "bytes": None},
            "text": f"сүйлөм {n}", "duration": durations[n] if durations else float("nan"),
            "speaker": "s", "gender": None, "accent": None, "source": "toy",
        }
        for n, path in enumerate(paths)
    ]  # fmt: skip
    return build_rows(records)


def speech(seconds, rate, seed, channels=1):
    """Noise under a slow envelope, `(samples, channels)`."""
    rng = np.random.default_rng(seed)
    times = np.arange(int(seconds * rate)) / rate
    return 0.3 * np.abs(np.sin(3 * times))[:, None] * rng.uniform(-1, 1, (len(times), channels))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> tuple[list, list]:
    """Return every kind of audio a row may name, and damaged ones."""
    folder = tmp_path_factory.mktemp("clips")
    write_audio(folder / "a.wav", speech(1.5, 8_000, 0), 8_000)
    write_audio(folder / "b.wav", speech(2.0, 44_100, 1, channels=2), 44_100)
    write_audio(folder / "c.mp3", speech(1.0, 44_100, 2), 44_100)
    write_audio(folder / "d.flac", speech(1.25, 16_000, 3), 16_000)
    write_audio(folder / "e.opus", speech(1.0, 48_000, 4), 48_000)
    with tarfile.open(folder / "f.tar", "w") as archive:
        archive.add(folder / "c.mp3", "clips/c.mp3")
        archive.add(folder / "a.wav", "clips/a.wav")
    with tarfile.open(folder / "f.tar") as archive:
        inside = [archive_path(folder / "f.tar", item.name, item.offset_data, item.size) for item in archive]
    (folder / "text.mp3").write_text("Бул үн эмес. " * 99)
    (folder / "cut.wav").write_bytes((folder / "b.wav").read_bytes()[:90_000])
    write_audio(folder / "silent.wav", np.zeros(16_000), 16_000)
    good = [folder / name for name in ("a.wav", "b.wav", "c.mp3", "d.flac", "e.opus")]
    good += [*inside, segment_path(folder / "b.wav", 0.5, 1.25), (folder / "d.flac").read_bytes()]
    return good, [folder / name for name in BAD]


@pytest.fixture(scope="module")
def mixed(clips) -> DatasetDict:
    """Return a corpus of all kinds of clips, with further columns."""
    good, bad = clips
    train = with_column(rows(good + bad), "target", [f"t {n}" for n in range(len(good + bad))], Value("string"))
    train = with_column(train, "code_switched", [n % 2 == 0 for n in range(len(train))], Value("bool"))
    return decoded(DatasetDict(train=train, test_ios=rows(good[:3], prefix="v/")))


@pytest.fixture(scope="module")
def slow(mixed, tmp_path_factory) -> DatasetDict:
    """Return a corpus that one worker needs seconds for: at `shard_seconds=100` 12 shards of 5 long clips, and one of all kinds."""
    folder = tmp_path_factory.mktemp("slow")
    paths = [folder / f"{n}.flac" for n in range(4)]
    for n, path in enumerate(paths):
        write_audio(path, speech(20, 44_100, n, channels=2), 44_100)
    return DatasetDict(train=rows([paths[n % 4] for n in range(60)], durations=[20.0] * 60), kinds=plain(mixed["train"]))


def shards(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).glob("[!.]*/*.parquet"))}


def states(folder) -> dict[str, tuple[int, int]]:
    """Return digest -> (inode, time of change) of the finished shards, in place or not yet."""
    return {path.stem[-16:]: (path.stat().st_ino, path.stat().st_mtime_ns) for path in Path(folder).rglob("*.parquet")}


@pytest.fixture(scope="module")
def prepared(mixed, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "corpus"
    prepare(mixed, folder, num_workers=1, shard_seconds=10)
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_what_was_written(mixed, clips, prepared, streaming):
    corpus = load_dataset(str(prepared), streaming=streaming)
    assert set(corpus) == {"train", "test_ios"}
    assert corpus["train"].features["audio"] == Audio(sampling_rate=16_000)
    found = list(corpus["train"].cast_column("audio", Audio(decode=False)))
    good = clips[0]
    expected = list(plain(mixed["train"]).remove_columns("audio"))[: len(good)]
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    for row, wanted, source in zip(found, expected, good, strict=True):
        for name in ("text", "speaker", "gender", "accent", "source", "target", "code_switched"):
            assert row[name] == wanted[name]
        assert row["audio"]["path"] == f"{row['id']}.flac"
        info = soundfile.info(io.BytesIO(row["audio"]["bytes"]))
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", 16_000, 1)
        waveform, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        np.testing.assert_allclose(waveform, load_audio(source), atol=1.01 / 65536)
        assert row["duration"] == len(waveform) / 16_000
    assert [round(row["duration"], 2) for row in found[:4]] == [1.5, 2.0, 1.0, 1.25]
    assert found[7]["duration"] == 0.75  # the segment
    first = next(iter(corpus["test_ios"].cast_column("audio", Audio(decode=False))))
    assert (first["audio"]["path"], first["target"]) == ("v_0.flac", None)


def test_our_own_rows_come_out(prepared):
    corpus = decoded(load_dataset(str(prepared)))
    assert corpus["train"][0]["audio"]["array"].shape == (24_000,)


def test_bad_clips_are_listed_without_the_users_folders(prepared, clips):
    problems = [json.loads(line) for line in (prepared / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(item["split"], item["path"]) for item in problems] == [("train", name) for name in BAD]
    for item in problems:
        assert BAD[item["path"]] in item["reason"]
    home = str(clips[0][0].parent)
    assert not any(home.encode() in data for data in shards(prepared).values())
    assert home not in (prepared / "quarantine.jsonl").read_text() + (prepared / "README.md").read_text()
    assert sorted(os.listdir(prepared)) == ["README.md", "quarantine.jsonl", "test_ios", "train"]


def test_the_card_tells_hours_and_splits(prepared):
    card = (prepared / "README.md").read_text(encoding="utf-8")
    assert "- split: train\n    path: train/*.parquet" in card
    assert "| test_ios | 3 | 0.00 | 2 |" in card


def test_the_number_of_workers_does_not_change_a_byte(mixed, prepared, tmp_path):
    result = prepare(mixed, tmp_path / "two", num_workers=2, shard_seconds=10)
    assert shards(tmp_path / "two") == shards(prepared)
    assert (result.utterances, result.quarantined) == ({"train": 9, "test_ios": 3}, 4)
    assert result.made == len(shards(prepared)) >= 4
    assert result.hours["test_ios"] * 3600 == pytest.approx(4.5)


def test_a_second_run_makes_nothing(slow, tmp_path):
    corpus = DatasetDict(train=slow["train"].select(range(12)))
    prepare(corpus, tmp_path, num_workers=2, shard_seconds=60)
    before = states(tmp_path), (tmp_path / "README.md").stat().st_mtime_ns
    result = prepare(corpus, tmp_path, num_workers=2, shard_seconds=60)
    assert (result.made, result.kept) == (0, 4)
    assert (states(tmp_path), (tmp_path / "README.md").stat().st_mtime_ns) == before

    texts = list(corpus["train"]["text"])
    texts[4] = "башка"
    changed = DatasetDict(train=with_column(corpus["train"], "text", texts, Value("string")).select_columns(corpus["train"].column_names))
    result = prepare(changed, tmp_path, num_workers=2, shard_seconds=60)
    assert (result.made, result.kept) == (1, 3)
    after = states(tmp_path)
    assert len(before[0].keys() & after.keys()) == 3
    assert all(after[digest] == before[0][digest] for digest in before[0].keys() & after.keys())
    assert load_dataset(str(tmp_path))["train"]["text"][4] == "башка"

    fewer = prepare(DatasetDict(train=changed["train"].select(range(6))), tmp_path, shard_seconds=60)
    assert (fewer.made, fewer.kept) == (0, 2)
    assert [name[:26] for name in shards(tmp_path)] == ["train/train-00000-of-00002", "train/train-00001-of-00002"]


def test_a_changed_or_mended_file_is_seen(tmp_path):
    for n in range(3):
        write_audio(tmp_path / f"{n}.wav", speech(1, 16_000, n))
    corpus = DatasetDict(train=rows([tmp_path / f"{n}.wav" for n in (0, 1, 2, 3)]))
    assert prepare(corpus, tmp_path / "out", num_workers=1, shard_seconds=5).quarantined == 1
    write_audio(tmp_path / "3.wav", speech(2, 16_000, 9))
    result = prepare(corpus, tmp_path / "out", num_workers=1, shard_seconds=5)
    assert (result.made, result.quarantined, result.utterances) == (1, 0, {"train": 4})
    assert not (tmp_path / "out" / "quarantine.jsonl").exists()


def test_the_corpus_may_move(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    for n in range(2):
        write_audio(here / f"{n}.wav", speech(1, 16_000, n))
    prepare(DatasetDict(train=rows([here / "0.wav", here / "1.wav"])), tmp_path / "out", num_workers=1)
    here.rename(there)
    result = prepare(DatasetDict(train=rows([there / "0.wav", there / "1.wav"])), tmp_path / "out", num_workers=1)
    assert result.made == 0


def test_repeated_rows_keep_their_shards(clips, tmp_path):
    same = rows([clips[0][0]], durations=[1.5]).select([0, 0, 0])
    result = prepare(DatasetDict(train=same), tmp_path, num_workers=1, shard_seconds=1.5)
    assert (result.made, result.utterances) == (3, {"train": 3})


def test_another_corpus_is_refused(clips, prepared, tmp_path):
    one, other = (DatasetDict(train=rows([clips[0][n]])) for n in (0, 1))
    prepare(one, tmp_path, num_workers=1)
    before = shards(tmp_path)
    with pytest.raises(ValueError, match="holds 1 shards of which this corpus shares none"):
        prepare(other, tmp_path, num_workers=1)
    assert shards(tmp_path) == before
    (tmp_path / "README.md").write_text("my own card", encoding="utf-8")
    assert prepare(other, tmp_path, num_workers=1, replace=True).hours["train"] * 3600 == 2
    assert len(shards(tmp_path)) == 1
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "my own card"
    assert prepare(DatasetDict(test=rows([clips[0][2]])), tmp_path, num_workers=1).utterances == {"test": 1, "train": 1}
    marked = with_column(rows([clips[0][2]]), "target", ["t"], Value("string"))
    with pytest.raises(ValueError, match="split 'train', which is in the folder already, has the columns id"):
        prepare(DatasetDict(test=marked), tmp_path, num_workers=1, replace=True)
    with pytest.raises(ValueError, match="column 'text' of split 'test' holds .*int64.* another split .*string"):
        prepare(DatasetDict(train=one["train"], test=one["train"].map(lambda row: {"text": 1})), tmp_path, num_workers=1)


def test_wrong_calls_are_refused(clips, mixed, tmp_path):
    one = rows([clips[0][0]])
    (tmp_path / "file").touch()
    for corpus, options, message in (
        (DatasetDict({"dev-clean": one}), {}, "'dev-clean' cannot be a split's name"),
        (DatasetDict(train=one.remove_columns("text")), {}, "no column 'text', found id, audio"),
        (DatasetDict(train=one.select([])), {}, "the corpus has no rows"),
        (DatasetDict(train=one), {"shard_seconds": 0}, "shard_seconds=0 is not possible"),
        (DatasetDict(train=one), {"num_workers": 0}, "num_workers=0 is not possible"),
        (DatasetDict(train=one), {"num_workers": 1, "ray_address": "auto"}, "exclude each other"),
        (DatasetDict(train=rows([clips[1][0]])), {}, "none of the 1 clips of split 'train' can be used, for example .*not audio"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(corpus, tmp_path / "out", **options)
    with pytest.raises(ValueError, match="is a file; give a folder"):
        prepare(mixed, tmp_path / "file")
    with pytest.raises(TypeError, match="takes a DatasetDict of splits"):
        prepare(one, tmp_path / "out")
    with pytest.raises(TypeError, match="'train' is a IterableDataset"):
        prepare({"train": IterableDataset.from_generator(lambda: iter([]))}, tmp_path / "out")


def test_a_second_run_at_the_same_time_is_refused(mixed, tmp_path):
    (tmp_path / ".prepare").mkdir()
    with FileLock(tmp_path / ".prepare" / "lock"), pytest.raises(ValueError, match=f"another run is writing to {tmp_path}"):
        prepare(mixed, tmp_path)


RUN = """
import dataclasses, json, resource, sys
from pathlib import Path
from datasets import Dataset, DatasetDict
from pyarrow.parquet import read_table
from hfasr.corpora.preparation.prepare import prepare
if __name__ == "__main__":
    rows, folder, options, limit = sys.argv[1:]
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    corpus = DatasetDict({path.stem: Dataset(read_table(path)) for path in sorted(Path(rows).iterdir())})
    print(json.dumps(dataclasses.asdict(prepare(corpus, folder, **json.loads(options))), default=str))
"""


def start_command(tmp_path, corpus, limit=0, environment=None, **options) -> subprocess.Popen:
    """Prepare into `tmp_path / "out"` in a process of its own, which prints the result as JSON."""
    (tmp_path / "rows").mkdir(exist_ok=True)
    for split, rows in plain(corpus).items():
        pyarrow.parquet.write_table(rows.with_format("arrow")[:], tmp_path / "rows" / f"{split}.parquet")
    (tmp_path / "run.py").write_text(RUN)
    command = [sys.executable, tmp_path / "run.py", tmp_path / "rows", tmp_path / "out", json.dumps(options), str(limit)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, env=environment)


def at_work(folder) -> list[int]:
    """Return the process ids of the workers that are writing a shard, from their temporary files' names."""
    return [int(path.name.split(".")[-2]) for path in (Path(folder) / ".prepare").glob("*.tmp")]


@pytest.fixture(scope="module")
def undisturbed(slow, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    prepare(slow, folder, num_workers=2, shard_seconds=100)
    return shards(folder)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_goes_on_where_it_was(slow, undisturbed, tmp_path, how):
    out = tmp_path / "out"
    process = start_command(tmp_path, slow, num_workers=1, shard_seconds=100)
    wait_for(lambda: len(list((out / ".prepare").glob("*.parquet"))) >= 3 and at_work(out))
    workers = at_work(out)
    os.kill(process.pid, how)
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    before = states(out)
    assert 3 <= len(before) < 13
    assert not shards(out)
    result = prepare(slow, out, num_workers=2, shard_seconds=100)
    after = states(out)
    assert (result.kept, result.made) == (len(before), 13 - len(before))
    assert {digest: after[digest] for digest in before} == before
    assert shards(out) == undisturbed
    assert not (out / ".prepare").exists()


def test_a_full_disk_ends_with_the_reason(slow, tmp_path):
    _, errors = start_command(tmp_path, slow, limit=200_000, num_workers=2, shard_seconds=100).communicate()
    assert "OSError: [Errno 27] File too large: '" in errors
    assert not shards(tmp_path / "out")
    assert not (tmp_path / "out" / ".prepare").exists()


@dataclass(frozen=True)
class Job:
    name: str
    folder: str
    kills: int


def die_or_write(job, advance):
    """Kill the own process the first `kills` times."""
    advance(1)
    marks = [Path(job.folder, f"{job.name}{n}") for n in range(job.kills)]
    if left := [mark for mark in marks if not mark.exists()]:
        left[0].touch()
        os.kill(os.getpid(), signal.SIGKILL)
    Path(job.folder, f"{job.name}-done").touch()


def fail(job, advance):
    raise OSError(28, "No space left on device", job)


def test_a_dead_worker_is_tried_once_more(tmp_path, caplog):
    done = []
    jobs = [Job("a", str(tmp_path), 0), Job("b", str(tmp_path), 1), Job("c", str(tmp_path), 0)]
    run_in_processes(die_or_write, iter(jobs), 2, done.append)
    assert sum(done) == 3
    assert sorted(path.name for path in tmp_path.glob("*-done")) == ["a-done", "b-done", "c-done"]
    assert "was killed by SIGKILL at Job(name='b'" in caplog.text
    assert "Trying once more" in caplog.text


def test_a_job_that_kills_twice_is_told_of_when_the_others_are_done(tmp_path):
    jobs = [Job("a", str(tmp_path), 2), *(Job(f"b{n}", str(tmp_path), 0) for n in range(5))]
    with pytest.raises(ValueError, match=r"was killed by SIGKILL at Job\(name='a'.*second try.*fewer workers"):
        run_in_processes(die_or_write, iter(jobs), 2, lambda count: None)
    assert len(list(tmp_path.glob("b*-done"))) == 5


def test_what_a_job_raises_is_raised():
    with pytest.raises(OSError, match="No space left on device: 'here'"):
        run_in_processes(fail, iter(["here"] * 9), 2, lambda count: None)


def test_a_file_that_changes_meanwhile_is_not_written_under_the_old_name(slow, tmp_path):
    table = slow["train"].with_format("arrow")[:2]
    write_rows(table, tmp_path / "rows.arrow")
    order = Shard("train", 2, digest_rows(table, "train"), str(tmp_path / "rows.arrow"), str(tmp_path / "made.parquet"))
    with pytest.raises(ValueError, match="clips of split 'train' near row u0 are not those found at the start"):
        make_shard(replace(order, digest="0" * 16), lambda count: None)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.arrow"]
    done = []
    make_shard(order, done.append)
    assert [path.name for path in tmp_path.iterdir()] == ["made.parquet"]
    found = read_footer(tmp_path / "made.parquet")
    assert (sum(done), found) == (2, {"clips": 2, "seconds": 40.0, "problems": [], "lasting": True})


def test_a_shard_with_a_passing_failure_is_made_again(clips, tmp_path):
    corpus = DatasetDict(train=rows(clips[0][:2]))
    prepare(corpus, tmp_path, num_workers=1)
    (path,) = tmp_path.glob("train/*.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"lasting": true', b'"lasting":false'))
    assert read_footer(path)["lasting"] is False
    assert prepare(corpus, tmp_path, num_workers=1).made == 1
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-100])
    assert prepare(corpus, tmp_path, num_workers=1).made == 1
    assert path.read_bytes() == whole


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as (address, environment, _):
        yield address, environment


def finish(command) -> dict:
    output, errors = command.communicate(timeout=120)
    assert command.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def test_ray_makes_the_same_shards_though_a_worker_dies(cluster, slow, undisturbed, tmp_path):
    address, environment = cluster
    options = {"environment": environment, "ray_address": address, "shard_seconds": 100}
    command = start_command(tmp_path, slow, **options)
    victim = wait_for(lambda: at_work(tmp_path / "out"))[0]
    assert victim != command.pid
    os.kill(victim, signal.SIGKILL)
    result = finish(command)
    assert shards(tmp_path / "out") == undisturbed
    assert (result["made"], result["utterances"], result["quarantined"]) == (13, {"kinds": 9, "train": 60}, 4)
    assert len(result["nodes"]) == 2
    assert sum(result["nodes"].values()) == 13
    before = states(tmp_path / "out")
    assert finish(start_command(tmp_path, slow, **options))["kept"] == 13
    assert states(tmp_path / "out") == before


@pytest.mark.slow
def test_a_killed_ray_command_goes_on_where_it_was(cluster, slow, undisturbed, tmp_path):
    address, environment = cluster
    out, options = tmp_path / "out", {"environment": environment, "ray_address": address, "shard_seconds": 100}
    command = start_command(tmp_path, slow, **options)
    wait_for(lambda: len(list((out / ".prepare").glob("*.parquet"))) >= 2)
    command.kill()
    command.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in at_work(out)))
    before = states(out)
    assert 2 <= len(before) < 13
    result = finish(start_command(tmp_path, slow, **options))
    assert result["kept"] == len(before)
    assert {digest: state for digest, state in states(out).items() if digest in before} == before
    assert shards(out) == undisturbed


def test_a_cluster_that_is_not_there_is_told(cluster, mixed, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    _, errors = start_command(tmp_path, mixed, environment=cluster[1], ray_address=address).communicate(timeout=60)
    assert f"ValueError: cannot reach a Ray cluster at '{address}'" in errors
    assert not (tmp_path / "out" / ".prepare").exists()


def test_shards_have_small_row_groups(tmp_path):
    write_audio(tmp_path / "a.wav", speech(0.05, 16_000, 0))
    prepare(DatasetDict(train=rows([tmp_path / "a.wav"] * 250)), tmp_path / "out", num_workers=1)
    (path,) = (tmp_path / "out").glob("train/*.parquet")
    found = pyarrow.parquet.ParquetFile(path)
    assert [found.metadata.row_group(n).num_rows for n in range(found.num_row_groups)] == [100, 100, 50]


def test_unused_names_are_quiet(mixed, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="hfasr"):
        prepare(DatasetDict(train=mixed["train"].select([0]), other=Dataset.from_dict({"id": [], "audio": [], "text": []})), tmp_path)
    assert "split other has no rows and is left out" in caplog.text
    assert "1 utterances, 0.00 hours; 1 shards made, 0 were there already" in caplog.text
