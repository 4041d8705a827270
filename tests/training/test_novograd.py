"""NovoGrad against a loop over numbers, its state saved and loaded, and within CTCTrainer on a small Citrinet."""

import copy
import io
import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import HfArgumentParser

from hfasr.corpora import common_voice
from hfasr.corpora.targets import add_target
from hfasr.models.citrinet import CitrinetConfig
from hfasr.models.load import load_model
from hfasr.text.phonemize import Phonemizer
from hfasr.text.vocabulary import build_tokenizer
from hfasr.training.arguments import CTCTrainingArguments
from hfasr.training.novograd import NovoGrad
from hfasr.training.trainer import CTCTrainer

SHAPES = [(5, 3), (4,), (2, 3, 1, 7), (), (1, 1)]


def by_the_book(weights, gradients, *, lr, beta1, beta2, eps, decay):
    """All updates of one tensor: lists of numbers, as the paper's algorithm 1 has them with NeMo's two conventions."""
    momentum, second = [0.0] * len(weights), 0.0
    for gradient in gradients:
        square = sum(value * value for value in gradient)
        second = square if second == 0.0 else beta2 * second + (1 - beta2) * square
        for place, value in enumerate(gradient):
            momentum[place] = beta1 * momentum[place] + value / (math.sqrt(second) + eps) + decay * weights[place]
        weights = [weight - lr * value for weight, value in zip(weights, momentum, strict=True)]
    return weights, momentum, second


@pytest.fixture
def problem():
    """Parameters of every kind of shape, and their gradients over ten updates; those of the third are zero for four."""
    random = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=random)) for shape in SHAPES]
    gradients = [
        [3.0**place * torch.randn(shape, dtype=torch.float64, generator=random) for _ in range(10)] for place, shape in enumerate(SHAPES)
    ]
    for update in range(4):
        gradients[2][update].zero_()
    return parameters, gradients


def follow(optimizer, parameters, gradients, updates):
    for update in updates:
        for parameter, steps in zip(parameters, gradients, strict=True):
            parameter.grad = None if steps[update] is None else steps[update].to(parameter.dtype)
        optimizer.step()


@pytest.mark.parametrize(("betas", "decay", "eps"), [((0.8, 0.5), 1e-3, 1e-8), ((0.95, 0.98), 0.0, 1e-8), ((0.0, 0.25), 0.3, 0.1)])
def test_equals_a_loop_over_numbers(problem, betas, decay, eps):
    parameters, gradients = problem
    expected = [
        by_the_book(
            parameter.detach().flatten().tolist(), [step.flatten().tolist() for step in steps],
            lr=0.05, beta1=betas[0], beta2=betas[1], eps=eps, decay=decay,
        )
        for parameter, steps in zip(parameters, gradients, strict=True)
    ]  # fmt: skip
    optimizer = NovoGrad(parameters, lr=0.05, betas=betas, eps=eps, weight_decay=decay)
    follow(optimizer, parameters, gradients, range(10))
    for parameter, (weights, momentum, second) in zip(parameters, expected, strict=True):
        state = optimizer.state[parameter]
        assert parameter.detach().flatten().tolist() == pytest.approx(weights, rel=1e-12, abs=1e-14)
        assert state["exp_avg"].flatten().tolist() == pytest.approx(momentum, rel=1e-12, abs=1e-14)
        assert float(state["exp_avg_sq"]) == pytest.approx(second, rel=1e-12)


def test_parameters_without_gradients_wait(problem):
    parameters, gradients = problem
    first = parameters[0].detach().clone()
    late = [[None] * 4 + gradients[0][4:], *gradients[1:]]
    optimizer = NovoGrad(parameters, lr=0.05, betas=(0.8, 0.5), weight_decay=0.1)
    follow(optimizer, parameters, late, range(4))
    assert torch.equal(parameters[0], first)
    assert parameters[0] not in optimizer.state
    follow(optimizer, parameters, late, range(4, 10))
    alone = torch.nn.Parameter(first)
    follow(NovoGrad([alone], lr=0.05, betas=(0.8, 0.5), weight_decay=0.1), [alone], [gradients[0]], range(4, 10))
    assert torch.equal(parameters[0], alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_state_saved_and_loaded_goes_on_bitwise(problem, dtype):
    parameters, gradients = [torch.nn.Parameter(parameter.detach().to(dtype)) for parameter in problem[0]], problem[1]
    gradients = [[None] * 6 + gradients[0][6:], *gradients[1:]]
    groups = [{"params": parameters[:2], "weight_decay": 0.1}, {"params": parameters[2:], "weight_decay": 0.0}]
    optimizer = NovoGrad(groups, lr=0.05, betas=(0.8, 0.25))
    follow(optimizer, parameters, gradients, range(5))
    stored = io.BytesIO()
    torch.save(optimizer.state_dict(), stored)
    copies = copy.deepcopy(parameters)
    follow(optimizer, parameters, gradients, range(5, 10))

    resumed = NovoGrad([{"params": copies[:2]}, {"params": copies[2:]}], lr=1.0)
    stored.seek(0)
    resumed.load_state_dict(torch.load(stored, weights_only=True))
    follow(resumed, copies, gradients, range(5, 10))
    for parameter, other in zip(parameters, copies, strict=True):
        assert torch.equal(parameter, other)
        for name, value in optimizer.state[parameter].items():
            assert torch.equal(value, resumed.state[other][name])
            assert value.dtype == resumed.state[other][name].dtype


def test_the_state_of_another_optimiser_is_refused(problem):
    parameters, gradients = problem
    for other in (torch.optim.AdamW(parameters), torch.optim.SGD(parameters, momentum=0.9)):
        follow(other, parameters, gradients, range(1))
        with pytest.raises(ValueError, match="no state of NovoGrad: it has .*expected exp_avg"):
            NovoGrad(parameters).load_state_dict(other.state_dict())
    theirs = NovoGrad(parameters)
    follow(theirs, parameters, gradients, range(1))
    state = theirs.state_dict()
    state["state"][0]["exp_avg_sq"] = torch.ones(SHAPES[0])  # a moment per weight
    with pytest.raises(ValueError, match="a number exp_avg_sq"):
        NovoGrad(parameters).load_state_dict(state)


def test_second_moment_of_bfloat16_is_float32():
    parameter = torch.nn.Parameter(torch.zeros(4096, dtype=torch.bfloat16))
    parameter.grad = torch.full_like(parameter, 2.0**40)
    optimizer = NovoGrad([parameter], lr=1.0)
    optimizer.step()
    assert optimizer.state[parameter]["exp_avg_sq"].dtype == torch.float32
    assert torch.equal(parameter, torch.full_like(parameter, -1 / 64))  # one step of norm 1


def test_nothing_is_read_back_from_the_device():
    # tensors without values refuse to become numbers
    with FakeTensorMode():
        parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
        optimizer = NovoGrad(parameters, weight_decay=0.1)
        for _ in range(2):
            for parameter in parameters:
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        with pytest.raises(Exception, match="local_scalar"):
            optimizer.state[parameters[0]]["exp_avg_sq"].item()


def test_finds_the_least_of_a_quadratic_with_a_closure():
    target = torch.tensor([1.0, -2.0, 3.0])
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = NovoGrad([parameter], lr=0.05, betas=(0.8, 0.5))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=300)

    def closure():
        optimizer.zero_grad()
        loss = (torch.tensor([1.0, 10.0, 0.5]) * (parameter - target) ** 2).sum()
        loss.backward()
        return loss

    losses = []
    for _ in range(300):
        losses.append(optimizer.step(closure).item())
        schedule.step()
    assert losses[0] == pytest.approx(45.5)
    assert torch.allclose(parameter, target, atol=1e-2)


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"eps": -1e-8}, {"weight_decay": math.nan}, {"betas": (0.8, 1.0)}, {"betas": (0.8,)}])
def test_numbers_out_of_range(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.* expected"):
        NovoGrad([torch.nn.Parameter(torch.zeros(1))], **wrong)


def test_sparse_gradients_are_refused():
    embedding = torch.nn.Embedding(3, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="no sparse gradients"):
        NovoGrad(embedding.parameters()).step()


BLOCKS = [{"filters": 16, "kernel": 5, "stride": 2}, {"filters": 16, "kernel": 7, "residual": True}]


@pytest.fixture(scope="module")
def corpus(toy_release):
    return add_target(common_voice(toy_release, splits=["train"]), Phonemizer("ky", word_bars=False))


def build(corpus, folder, **changes):
    torch.manual_seed(0)
    config = CitrinetConfig(blocks=[{**block, "squeeze_excite": True, "dropout": 0.2} for block in BLOCKS])
    model, processor = load_model(config, build_tokenizer(corpus["train"]["target"]))
    arguments = {
        "novograd": [0.8, 0.25], "learning_rate": 0.01, "weight_decay": 1e-3, "max_batch_seconds": 20, "max_steps": 6, "save_steps": 3,
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "freeze_encoder_updates": 2,
        "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5},
    }  # fmt: skip
    return CTCTrainer(model, CTCTrainingArguments(output_dir=str(folder), **(arguments | changes)), processor, corpus["train"])


def test_trainer_takes_it_and_resumes_bitwise(corpus, tmp_path):
    whole = build(corpus, tmp_path)
    optimizer = whole.create_optimizer()
    assert type(optimizer) is NovoGrad
    decayed, others = optimizer.param_groups
    assert (decayed["lr"], decayed["betas"], decayed["weight_decay"], others["weight_decay"]) == (0.01, (0.8, 0.25), 1e-3, 0.0)
    assert {id(parameter) for parameter in others["params"]} == {
        id(parameter) for name, parameter in whole.model.named_parameters() if name.endswith("bias") or ".norm." in name
    }
    before = {name: value.clone() for name, value in whole.model.state_dict().items()}
    whole.train()
    assert whole.optimizer.param_groups[0]["lr"] == pytest.approx(1e-5)
    assert all(not torch.equal(value, before[name]) for name, value in whole.model.named_parameters())

    resumed = build(corpus, tmp_path)
    resumed.train(str(tmp_path / "checkpoint-3"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_run_of_adam_is_not_resumed_with_it(corpus, tmp_path):
    build(corpus, tmp_path, novograd=None, learning_rate=1e-4, max_steps=3).train()
    with pytest.raises(ValueError, match="no state of NovoGrad"):
        build(corpus, tmp_path).train(str(tmp_path / "checkpoint-3"))


def test_a_frozen_start_trains_the_head_alone(corpus, tmp_path):
    trainer = build(corpus, tmp_path, max_steps=2, save_strategy="no")
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"lm_head.weight", "lm_head.bias"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"novograd": [0.8]}, r"NovoGrad's betas are \[0\.8\], expected two"),
        ({"novograd": [0.8, 1.0]}, "expected two numbers from 0 to below 1"),
        ({"lr_scheduler_kwargs": "min_lr=1"}, "lr_scheduler_kwargs is 'min_lr=1'; give a JSON object"),
    ],
)
def test_arguments_out_of_range(wrong, message):
    with pytest.raises(ValueError, match=message):
        CTCTrainingArguments(output_dir="unused", report_to="none", use_cpu=True, **wrong)


def test_flags_and_presets_of_a_recipe():
    flags = ["--output_dir", "unused", "--report_to", "none", "--use_cpu"]
    parser = HfArgumentParser(CTCTrainingArguments, allow_abbrev=False)
    given = ["--novograd", "0.8", "0.5", "--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", '{"min_lr": 1e-5}']
    (named,) = parser.parse_args_into_dataclasses([*flags, *given], look_for_args_file=False)
    parser.set_defaults(novograd=[0.8, 0.5], lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr": 1e-5})
    (preset,) = parser.parse_args_into_dataclasses(flags, look_for_args_file=False)
    for arguments in (named, preset):
        assert arguments.novograd == [0.8, 0.5]
        assert (arguments.lr_scheduler_type.value, arguments.lr_scheduler_kwargs) == ("cosine_with_min_lr", {"min_lr": 1e-5})
