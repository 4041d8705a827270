import itertools
import json

import numpy as np
import pytest
import torch

from hfasr.audio import load_audio, write_audio
from hfasr.models.load import load_model
from hfasr.text.vocabulary import build_tokenizer, encode_targets
from hfasr.training.batches.collator import CTCCollator
from hfasr.training.batches.fitting import misfits
from hfasr.training.batches.sampler import DurationBatchSampler, cut_batches


@pytest.fixture(scope="module")
def kyrgyz_durations(shared):
    return np.array([float(line) for line in (shared / "bench" / "ky_durations.txt").read_text().split()])


@pytest.mark.parametrize("budget", [80, 320, 800])
def test_real_durations_on_eight_processes(kyrgyz_durations, budget):
    samplers = [DurationBatchSampler(kyrgyz_durations, budget, num_processes=8, process_index=rank, seed=3) for rank in range(8)]
    assert len({len(sampler) for sampler in samplers}) == 1
    orders = []
    for epoch in (0, 1, 7):
        per_process = []
        for sampler in samplers:
            sampler.set_epoch(epoch)
            per_process.append(list(sampler))
            assert len(per_process[-1]) == len(sampler)
        batches = [batch for process in per_process for batch in process if batch]
        assert sorted(row for batch in batches for row in batch) == list(range(len(kyrgyz_durations)))
        padded = np.array([len(batch) * kyrgyz_durations[batch].max() for batch in batches])
        assert padded.max() <= budget + 1e-9
        assert 1 - kyrgyz_durations.sum() / padded.sum() <= 0.03
        orders.append([tuple(batch) for batch in batches])
    assert len({*map(frozenset, orders)}) == 3  # other batches, not only another order of them


def test_processes_share_a_step_of_like_lengths(kyrgyz_durations):
    for step in DurationBatchSampler(kyrgyz_durations, 320, num_processes=8).plan(0):
        longest = [kyrgyz_durations[batch].max() for batch in step if batch]
        assert max(longest) <= 1.35 * min(longest) or max(longest) > 9  # the few longest rows differ more


def test_batches_are_cut_as_row_by_row():
    draw = np.random.default_rng(0)
    for _ in range(200):
        durations = np.round(draw.uniform(0.5, 9, draw.integers(1, 60)), 1)
        order = np.argsort(durations + draw.uniform(0, 1, len(durations)))
        expected, rows = [], []
        for row in order.tolist():
            if rows and max(durations[[*rows, row]]) * (len(rows) + 1) > 20:
                expected.append(rows)
                rows = []
            rows.append(row)
        assert cut_batches(order, durations, 20.0) == [*expected, rows]


def test_misfits_are_found_as_label_by_label():
    draw = np.random.default_rng(0)
    targets = [" ".join(draw.choice(["a", "b"], draw.integers(0, 40))) for _ in range(300)]
    durations = draw.uniform(0.1, 1.2, len(targets))
    tokenizer = build_tokenizer(["a b"])
    model, processor = load_model("wav2vec2-tiny", tokenizer)
    found = misfits(encode_targets(tokenizer, targets), durations, model, processor)
    assert 50 < len(found) < 250
    for place, (target, seconds) in enumerate(zip(targets, durations, strict=True)):
        labels = tokenizer(target).input_ids if target else []
        frames = int(model._get_feat_extract_output_lengths(torch.tensor(round(seconds * 16_000))))
        needed = len(labels) + sum(a == b for a, b in itertools.pairwise(labels))
        reason = f"{len(labels)} labels need {needed} frames, the audio has {frames}" if labels else "the target is empty"
        assert found.get(place) == (reason if not labels or needed > frames else None)


def test_a_target_with_a_character_outside_the_alphabet_cannot_be_trained_on():
    tokenizer = build_tokenizer(["cafe"], "character", alphabet="abcdef")
    model, processor = load_model("wav2vec2-tiny", tokenizer)
    found = misfits(encode_targets(tokenizer, ["cafe", "café", "", "éaé"]), np.ones(4), model, processor)
    unknown = "the target holds characters without a symbol"
    assert found == {1: f"{unknown} (1)", 2: "the target is empty", 3: f"{unknown} (2)"}


def test_the_order_depends_on_seed_and_epoch_alone():
    durations = np.random.default_rng(0).uniform(1, 9, 200)
    plans = [DurationBatchSampler(durations, 60, seed=seed).plan(epoch) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]
    assert plans[0] != plans[3]


@pytest.mark.parametrize(("rows", "processes"), [(1, 1), (1, 4), (3, 2), (5, 2), (9, 4)])
def test_few_rows_leave_empty_batches(rows, processes):
    durations = np.full(rows, 4.0)
    sampler = DurationBatchSampler(durations, 4.0, num_processes=processes)
    for epoch in range(3):
        batches = [batch for step in sampler.plan(epoch) for batch in step]
        assert len(batches) == len(sampler) * processes
        assert sorted(row for batch in batches for row in batch) == list(range(rows))


def test_every_epoch_has_as_many_batches_for_any_durations():
    for seed in range(40):
        draw = np.random.default_rng(seed)
        durations = draw.gamma(2, 3, draw.integers(1, 300)) + 0.1
        sampler = DurationBatchSampler(durations, durations.max() * draw.uniform(1, 12), num_processes=int(draw.integers(1, 5)), seed=seed)
        for epoch in range(12):
            plan = sampler.plan(epoch)
            assert len(plan) == len(sampler)
            assert sorted(row for step in plan for batch in step for row in batch) == list(range(len(durations)))


def test_wrong_durations():
    with pytest.raises(ValueError, match=r"max_batch_seconds is 10 but the longest row lasts 12\.0 s"):
        DurationBatchSampler([3.0, 12.0], 10)
    with pytest.raises(ValueError, match="row 1 has no known duration"):
        DurationBatchSampler([3.0, float("nan")], 10)
    with pytest.raises(ValueError, match="no rows"):
        DurationBatchSampler([], 10)


@pytest.mark.parametrize("base", ["quartznet-small", "unispeech-tiny", "wav2vec2-tiny"])
def test_collator(base, tmp_path):
    tokenizer = build_tokenizer(["a b c"])
    _, processor = load_model(base, tokenizer)
    waveforms = [0.1 * np.random.default_rng(n).standard_normal(16_000 + 4_000 * n).astype(np.float32) for n in range(3)]
    rows = []
    for n, waveform in enumerate(waveforms):
        write_audio(tmp_path / f"{n}.wav", waveform)
        rows.append({"id": str(n), "audio": {"path": str(tmp_path / f"{n}.wav"), "bytes": None}, "labels": [2, 3, 4][: n + 1]})
    (tmp_path / "1.wav").write_bytes(b"broken")
    collator = CTCCollator(processor, tmp_path / "quarantine.jsonl")
    for _ in range(2):
        batch = collator(rows)
    assert batch["labels"].tolist() == [[2, -100, -100], [-100] * 3, [2, 3, 4]]
    assert batch["input_lengths"].dtype == torch.int64
    alone = processor.feature_extractor(load_audio(tmp_path / "2.wav"), sampling_rate=16_000, return_tensors="pt")
    name = processor.feature_extractor.model_input_names[0]
    torch.testing.assert_close(batch[name][2], alone[name][0], atol=1e-4, rtol=0)
    (line,) = (tmp_path / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "1"
    assert (collator([])["labels"] == -100).all()
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    with pytest.raises(OSError, match="none of the 6 clips"):
        collator(rows * 2)
