"""The loss against brute force and closed forms; consistency and smoothing through CTCTrainer."""

import itertools
import math

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, SMALL, STILL, inputs_of, tiny
from torch import nn
from torch.distributions import Categorical, kl_divergence

from hfasr.corpora import common_voice
from hfasr.corpora.rows import plain
from hfasr.corpora.targets import add_target
from hfasr.decoding.greedy import collapse
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.loss import check_views, ctc_loss_sum, draws_by_row, two_views
from hfasr.training.trainer import CTCTrainer

# of three utterances the second has no labels
LABELS = torch.tensor([[1, 2, -100], [-100, -100, -100], [4, 3, 3]])
FRAMES = torch.tensor([6, 7, 7])


def draw_logits(rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 7, 5, dtype=torch.float64, generator=generator).mul(2).requires_grad_()


def test_ctc_equals_the_sum_over_all_paths():
    logits = torch.randn(1, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    probabilities = logits[0].softmax(-1)
    for labels in ([0], [0, 2], [2, 2], [0, 0]):
        paths = (path for path in itertools.product(range(3), repeat=4) if [token.id for token in collapse(path, blank=1)] == labels)
        total = sum(math.prod(float(probabilities[frame, label]) for frame, label in enumerate(path)) for path in paths)
        for counts in (None, torch.tensor([len(labels)])):
            found = ctc_loss_sum(logits, torch.tensor([labels]), torch.tensor([4]), 1, zero_infinity=False, label_lengths=counts)
            assert float(found) == pytest.approx(-math.log(total), rel=1e-12)


def test_rows_that_cannot_count_count_nothing():
    logits = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([[1, 2, -100], [-100, -100, -100], [3, 3, 3], [4, -100, -100]])
    frames = torch.tensor([6, 6, 4, 3])  # the third needs 5
    loss = ctc_loss_sum(logits, labels, frames, 0, zero_infinity=True)
    alone = sum(ctc_loss_sum(logits[row : row + 1], labels[row : row + 1], frames[row : row + 1], 0, zero_infinity=True) for row in (0, 3))
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[1:3].any()
    assert not logits.grad[3, 3:].any()  # past its end


@pytest.mark.parametrize("base", ["unispeech-tiny", "quartznet-small"])
def test_ctc_equals_that_of_the_models_own_head(base):
    tokenizer = build_tokenizer(["a b c d"])
    model, processor = load_model(base, tokenizer, config_overrides={"ctc_loss_reduction": "sum"})
    waveforms = [np.random.default_rng(n).standard_normal(16_000 + 5_000 * n).astype(np.float32) for n in range(3)]
    batch = processor(waveforms, sampling_rate=16_000, padding=True, return_tensors="pt")
    labels = torch.tensor([[2, 3, 4], [2, -100, -100], [5, 5, -100]])
    output = model(**batch, labels=labels)
    frames = model._get_feat_extract_output_lengths(batch["attention_mask"].sum(-1))
    torch.testing.assert_close(ctc_loss_sum(output.logits, labels, frames, 0, zero_infinity=False), output.loss)


def test_smoothing_is_the_divergence_of_the_uniform_distribution_from_each_frame():
    logits = draw_logits(3)
    ctc = ctc_loss_sum(logits, LABELS, FRAMES, 0, zero_infinity=True)
    found = ctc_loss_sum(logits, LABELS, FRAMES, 0, zero_infinity=True, smoothing=0.3)
    uniform = Categorical(probs=torch.full((5,), 0.2, dtype=torch.float64))
    frames = [logits[row, frame] for row in (0, 2) for frame in range(FRAMES[row])]
    expected = 0.7 * ctc + 0.3 * sum(kl_divergence(uniform, Categorical(logits=frame)) for frame in frames)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, logits)
    assert not gradient[1].any()
    assert not gradient[0, 6:].any()


def test_consistency_is_the_mean_of_two_losses_and_of_two_divergences():
    first, second = draw_logits(3, 1), draw_logits(3, 2)
    batch = two_views({"labels": LABELS, "frames": FRAMES.numpy()})
    assert batch["frames"].tolist() == [6, 7, 7, 6, 7, 7]
    logits = torch.cat([first, second])
    found = ctc_loss_sum(logits, batch["labels"], torch.from_numpy(batch["frames"]), 0, zero_infinity=True, consistency=0.2, smoothing=0.1)
    plain = [ctc_loss_sum(view, LABELS, FRAMES, 0, zero_infinity=True, smoothing=0.1) for view in (first, second)]
    pairs = [
        (Categorical(logits=first[row, frame]), Categorical(logits=second[row, frame])) for row in (0, 2) for frame in range(FRAMES[row])
    ]
    divergence = 0.5 * sum(kl_divergence(p, q) + kl_divergence(q, p) for p, q in pairs)
    torch.testing.assert_close(found, sum(plain) / 2 + 0.2 * divergence)

    # d KL(q || p) / d logits of p is p - q; a gradient through q would add more
    gradients = torch.autograd.grad(found - sum(plain) / 2, [first, second])
    difference = 0.5 * 0.2 * (first.softmax(-1) - second.softmax(-1))
    difference[1], difference[0, 6:] = 0.0, 0.0  # no labels; past the end
    torch.testing.assert_close(gradients[0], difference)
    torch.testing.assert_close(gradients[1], -difference)


@pytest.mark.gpu
def test_the_gpu_finds_the_same_loss_and_gradient():
    logits = torch.cat([draw_logits(3, 1), draw_logits(3, 2)]).detach()
    batch = two_views({"labels": LABELS, "frames": FRAMES, "counts": (LABELS >= 0).sum(-1)})
    found = []
    for device in ("cpu", "cuda"):
        mine = logits.to(device).requires_grad_()
        loss = ctc_loss_sum(
            mine, batch["labels"].to(device), batch["frames"], 0, zero_infinity=True, label_lengths=batch["counts"],
            consistency=0.2, smoothing=0.1,
        )  # fmt: skip
        loss.backward()
        found.append((loss.detach().cpu(), mine.grad.cpu()))
    torch.testing.assert_close(found[1], found[0])


@pytest.fixture(scope="module")
def corpus(toy_release):
    return add_target(common_voice(toy_release, splits=["train", "test"]), Phonemizer("ky", word_bars=False))


def build(corpus, tmp_path, settings=STILL, base="unispeech-tiny", **changes) -> CTCTrainer:
    torch.manual_seed(0)
    small = SMALL if "tiny" in base else {}
    model, processor = load_model(base, build_tokenizer(corpus["train"]["target"]), config_overrides=small | settings)
    arguments = {"max_batch_seconds": 40, "max_steps": 2, "report_to": "none", "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
    args = CTCTrainingArguments(output_dir=str(tmp_path), **(arguments | changes))
    return CTCTrainer(model, args, processor, corpus["train"], corpus["test"])


def gradient(trainer: CTCTrainer, rows: list[dict], pieces: list[slice]) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss of an update, and its gradient, with the rows in so many batches."""
    batches = [trainer.data_collator(rows[piece]) for piece in pieces]
    count = torch.tensor(sum(len(row["labels"]) for row in rows))
    trainer.model.zero_grad()
    loss = sum(float(trainer.training_step(trainer.model, batch, count)) for batch in batches)
    return loss, {name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters() if parameter.grad is not None}


def assert_equal(first: dict, second: dict):
    assert first.keys() == second.keys()
    distance, size = (
        sum(float(value.norm()) ** 2 for value in values) for values in ([first[n] - second[n] for n in first], first.values())
    )
    assert distance <= 1e-20 * size


def test_an_update_is_the_same_however_its_utterances_are_split(corpus, tmp_path):
    trainer = build(corpus, tmp_path, STILL | {"hidden_dropout": 0.5}, consistency=100.0, label_smoothing_factor=0.1)
    for module in trainer.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0

    def change_second_view(model, arguments, inputs):  # in a way that depends on the row alone
        waveforms = inputs["input_values"].double()
        waveforms[len(waveforms) // 2 :, ::2] *= -1
        return arguments, {**inputs, "input_values": waveforms}

    trainer.model.double().register_forward_pre_hook(change_second_view, with_kwargs=True)
    rows = [plain(trainer.train_dataset)[place] for place in range(5)]
    loss, whole = gradient(trainer, rows, [slice(0, 5)])
    split_loss, split = gradient(trainer, rows, [slice(0, 1), slice(1, 4), slice(4, 5)])
    assert split_loss == pytest.approx(loss, rel=1e-10)
    assert_equal(whole, split)
    trainer.args.consistency = 1e-6
    assert gradient(trainer, rows, [slice(0, 5)])[0] < 0.99 * loss  # the views did differ


def test_equal_views_add_nothing(corpus, tmp_path):
    trainer = build(corpus, tmp_path)
    trainer.model.double().register_forward_pre_hook(
        lambda model, arguments, inputs: (arguments, {**inputs, "input_values": inputs["input_values"].double()}), with_kwargs=True
    )
    rows = [plain(trainer.train_dataset)[place] for place in range(3)]
    loss, alone = gradient(trainer, rows, [slice(0, 3)])
    trainer.args.consistency = 0.2
    with_views, both = gradient(trainer, rows, [slice(0, 3)])
    assert with_views == pytest.approx(loss, rel=1e-12)
    assert_equal(alone, both)


def test_evaluation_counts_ctc_alone(corpus, tmp_path):
    plainly, regularised = (
        build(corpus, tmp_path, {"mask_time_prob": 0.2}, **changes) for changes in ({}, {"consistency": 0.2, "label_smoothing_factor": 0.1})
    )
    assert regularised.evaluate()["eval_loss"] == plainly.evaluate()["eval_loss"]


def test_both_views_count_in_the_budget_and_training_learns(corpus, tmp_path):
    trainer = build(
        corpus, tmp_path, {"time_masks": 2}, base="quartznet-small", consistency=0.2, max_batch_seconds=16, max_steps=6, logging_steps=1,
        learning_rate=5e-3,
    )  # fmt: skip
    seen = []
    trainer.model.register_forward_pre_hook(
        lambda model, arguments, inputs: seen.append(inputs["input_features"].shape[:2]) if model.training else None, with_kwargs=True
    )
    trainer.train()
    assert all(rows % 2 == 0 and rows * frames / 100 < 16.2 for rows, frames in seen)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]


def test_equal_views_are_refused(corpus, tmp_path):
    for base, settings in (("unispeech-tiny", STILL | {"layerdrop": 0.5}), ("quartznet-small", {"dropout": 0.0})):
        with pytest.raises(ValueError, match="neither masks nor dropout"):
            build(corpus, tmp_path, settings, base=base, consistency=0.2)


@pytest.mark.parametrize(
    ("base", "settings"),
    [
        ("unispeech-tiny", STILL),
        ("unispeech-tiny", STILL | {"hidden_dropout": 0.1}),
        ("unispeech-tiny", STILL | {"attention_dropout": 0.1}),
        ("unispeech-tiny", STILL | {"final_dropout": 0.1}),
        ("unispeech-tiny", STILL | {"mask_time_prob": 0.3}),
        ("unispeech-tiny", STILL | {"mask_time_prob": 0.3, "apply_spec_augment": False}),
        ("unispeech-tiny", STILL | {"mask_feature_prob": 0.5}),
        ("quartznet-small", {"dropout": 0.0}),
        ("quartznet-small", {"dropout": 0.1}),
        ("quartznet-small", {"dropout": 0.0, "freq_masks": 2}),
        ("citrinet-small", {"dropout": 0.0}),
    ],
)
def test_what_draws_by_row_gives_equal_rows_other_logits(base, settings):
    torch.manual_seed(0)
    model, processor = load_model(base, build_tokenizer(["a b"]), config_overrides=(SMALL if "tiny" in base else {}) | settings)
    waveform = np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    batch = processor([waveform] * 4, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        logits = model.train()(**batch).logits
    assert draws_by_row(model) == (not torch.allclose(logits, logits[:1].expand_as(logits), atol=1e-5))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_familys_dropout_is_known(family):
    config = tiny(family).config
    numbers = getattr(config, "encoder_config", config).to_dict()
    off = {name: 0.0 for name in numbers if "drop" in name or name in ("mask_time_prob", "mask_feature_prob")}
    assert not draws_by_row(tiny(family, **off))
    for name in ("attention_dropout", "activation_dropout"):
        assert draws_by_row(tiny(family, **off | {name: 0.4})), name
    with pytest.raises(ValueError, match="neither masks nor dropout"):
        check_views(tiny(family, **off | {"layerdrop": 0.5}), 0.2)


@pytest.mark.parametrize(
    ("family", "name"), [("sew-d", "attention_dropout"), ("parakeet_ctc", "activation_dropout"), ("wavlm", "layerdrop")]
)
def test_what_counts_as_dropout_does_drop_by_row(family, name):
    model = tiny(family, **STILL | {"dropout": 0.0, "dropout_positions": 0.0, name: 0.4}).train()
    with torch.no_grad():
        logits = model(**{key: value.expand(4, *value.shape[1:]) for key, value in inputs_of(model, rows=1).items()}).logits
    assert draws_by_row(model) == (not torch.allclose(logits, logits[:1].expand_as(logits), atol=1e-5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"consistency": -0.1}, "consistency is -0.1"),
        ({"consistency": math.inf}, "consistency is inf"),
        ({"label_smoothing_factor": 1.0}, "label_smoothing_factor is 1.0"),
        ({"label_smoothing_factor": -0.1}, "label_smoothing_factor is -0.1"),
    ],
)
def test_wrong_arguments(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CTCTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **values)
