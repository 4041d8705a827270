import itertools
import math
import re

import numpy as np
import pytest
import torch

from hfasr.audio import SAMPLING_RATE
from hfasr.models.load import load_model
from hfasr.text.vocabulary import build_tokenizer, encode_targets
from hfasr.training.batches.fitting import misfits
from hfasr.training.batches.sampler import DurationBatchSampler, check_budget, cut_batches
from hfasr.training.batches.shapes import Shapes, choose_shapes


@pytest.fixture(scope="module")
def kyrgyz_durations(shared):
    return np.array([float(line) for line in (shared / "bench" / "ky_durations.txt").read_text().split()])


@pytest.mark.parametrize("budget", [80, 800])
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
        assert 1 - kyrgyz_durations.sum() / padded.sum() <= 0.032
        orders.append([tuple(batch) for batch in batches])
    assert len({*map(frozenset, orders)}) == 3  # other batches, not only another order of them


@pytest.mark.parametrize(("budget", "shares"), [(80, (0, 0.013, 0.02, 0.028)), (320, (0, 0.005, 0.006, 0.01))])
def test_processes_wait_little_for_each_other(kyrgyz_durations, budget, shares):
    plan = DurationBatchSampler(kyrgyz_durations, budget, batches_per_update=24).plan(0)
    padded = np.array([[len(batch) * kyrgyz_durations[batch].max() for batch in update] for update in plan])
    for processes, share in zip((1, 2, 3, 8), shares, strict=True):
        steps = padded.reshape(-1, processes)
        assert 1 - steps.sum() / (processes * steps.max(axis=1).sum()) <= share


def test_an_update_holds_short_and_long_rows(kyrgyz_durations):
    for update in DurationBatchSampler(kyrgyz_durations, 80, num_processes=8).plan(0):
        longest = [kyrgyz_durations[batch].max() for batch in update]
        assert all(earlier > 0.95 * later for earlier, later in itertools.pairwise(longest))
        assert longest[0] > 1.15 * longest[-1]


@pytest.mark.parametrize("shapes", [0, 5])
def test_the_plan_does_not_depend_on_the_processes(shapes):
    draw = np.random.default_rng(1)
    for count in range(1, 13):
        durations = draw.gamma(4, 1.2, int(draw.integers(1, 90))) + 0.2
        budget = float(durations.max() * draw.uniform(1, 4))
        plan = DurationBatchSampler(durations, budget, batches_per_update=count, seed=5, batch_shapes=shapes).plan(2)
        assert sorted(row for update in plan for batch in update for row in batch) == list(range(len(durations)))
        assert all(len(update) == count and any(update) for update in plan)
        for processes in range(1, 9):
            sampler = DurationBatchSampler(
                durations, budget, batches_per_update=count, num_processes=processes, seed=5, batch_shapes=shapes
            )
            sampler.set_epoch(2)
            steps = []
            for sampler.process_index in range(processes):
                steps.append(list(sampler))
                assert len(steps[-1]) == len(sampler) == len(plan) * math.ceil(count / processes)
            each = sampler.accumulation_steps
            for number, update in enumerate(plan):
                taken = [steps[process][number * each + step] for step in range(each) for process in range(processes)]
                assert taken[:count] == update
                assert not any(taken[count:])


def test_updates_are_cut_evenly():
    durations = np.linspace(2, 4, 240)
    sampler = DurationBatchSampler(durations, 60, batches_per_update=16)  # 13 batches hold all rows
    (update,) = sampler.plan(0)
    padded = [len(batch) * durations[batch].max() for batch in update]
    assert min(padded) > 0.75 * max(padded)
    assert re.fullmatch(r"1 updates of 16 batches, each of up to 4\d\.\d padded seconds", sampler.summary())


@pytest.mark.parametrize("budget", [80, 320])
def test_twelve_shapes_pad_about_a_twentieth(kyrgyz_durations, budget):
    sampler = DurationBatchSampler(kyrgyz_durations, budget, batches_per_update=8, batch_shapes=12)
    shapes = sampler.shapes
    assert len(shapes.rows) == 12
    np.testing.assert_allclose((np.array(shapes.lengths_seconds) * SAMPLING_RATE - 400) % (8 * 320), 7 * 320)  # frames in eights
    orders = []
    for epoch in (0, 1):
        plan = sampler.plan(epoch)
        batches = [batch for update in plan for batch in update]
        assert sorted(row for batch in batches for row in batch) == list(range(len(kyrgyz_durations)))
        filled = [shapes.shape_of(kyrgyz_durations[batch].max(), len(batch)) for batch in batches]
        assert set(filled) <= set(zip(shapes.rows, shapes.lengths_seconds, strict=True))
        assert max(rows * seconds for rows, seconds in filled) <= budget
        assert 1 - kyrgyz_durations.sum() / sum(rows * seconds for rows, seconds in filled) <= 0.06
        orders.append({frozenset(batch) for batch in batches})
    assert len(orders[0] & orders[1]) < len(orders[0]) / 20


def test_shapes_pad_least():
    draw = np.random.default_rng(0)
    for count in (1, 2, 3, 4):
        durations = draw.uniform(0.1, 2.2, 25)
        steps = np.unique(np.ceil((durations + 0.01 - 0.005) / 0.16))
        lengths = 0.16 * np.maximum(steps, 1) + 0.005
        least = min(
            sum(min(length for length in (*some, lengths[-1]) if length >= seconds + 0.01) for seconds in durations)
            for few in range(count)
            for some in itertools.combinations(lengths[:-1], few)
        )
        chosen = np.array(choose_shapes(durations, 20, count).lengths_seconds)
        assert chosen[np.searchsorted(chosen, durations + 0.01)].sum() == pytest.approx(least)


def test_shape_of_a_batch():
    shapes = Shapes((2.085, 4.005), (9, 4))
    assert shapes.shape_of(2.0, 9) == (9, 2.085)
    assert shapes.shape_of(1.0, 1) == (9, 2.085)  # of halved batches, and of the last
    assert shapes.shape_of(2.1, 4) == (4, 4.005)
    assert shapes.shape_of(2.1, 5) == (5, 2.245)  # decoded longer than its header told
    assert shapes.shape_of(6.0, 1) == (1, 6.085)
    assert choose_shapes([10.0], 10, 3) == Shapes((10.085,), (1,))  # rounded up beyond the budget, but never left out
    long = choose_shapes(np.linspace(1, 3600, 5000), 7200, 8)
    assert 3600 <= long.lengths_seconds[-1] <= 3602


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
    with pytest.raises(ValueError, match=r"max_batch_seconds is 20 but the longest row lasts 12\.0 s, 2 times over with consistency;"):
        check_budget([12.0, 3.0], 20.0, views=2)
    with pytest.raises(ValueError, match=r"max_batch_seconds is 10 but the longest row lasts 12\.0 s"):
        DurationBatchSampler([3.0, 12.0], 10)
    with pytest.raises(ValueError, match="row 1 has no known duration"):
        DurationBatchSampler([3.0, float("nan")], 10)
    with pytest.raises(ValueError, match="no rows"):
        DurationBatchSampler([], 10)
