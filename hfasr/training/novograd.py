"""NovoGrad, the optimiser that QuartzNet and Citrinet were trained with."""

from collections.abc import Callable, Iterable

import torch


class NovoGrad(torch.optim.Optimizer):
    """Normalise the gradient of each tensor by its own norm (Ginsburg et al. 2019, arXiv 1905.11286), as NeMo's `Novograd` does.

    One second moment per tensor, a number, instead of one per weight; w is a tensor, g its gradient, t its updates so far:

        v_1 = |g_1|²,  v_t = β₂ v_{t-1} + (1 - β₂) |g_t|²
        m_t = β₁ m_{t-1} + g_t / (√v_t + ε) + d w_{t-1},  m_0 = 0
        w_t = w_{t-1} - lr m_t

    NeMo's convention in three places (nemo/core/optim/novograd.py): weight decay d joins the normalised gradient, so that it too
    goes through the momentum; the new term of m is not scaled by 1 - β₁, so that the step grows to 1 / (1 - β₁) times the learning
    rate and a rate that was tuned for NeMo can be taken over; v starts from the first norm above 0.

    Nothing is read back from the device, and but for the norms' division all is done for many tensors at once. A tensor must be
    whole: the norm of a shard (FSDP, DeepSpeed) would be another.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        betas: Of the momentum and of the second moment.
        eps: Added to the norm.
        weight_decay: d.

    Raises:
        ValueError: A number is outside its range.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.95, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"{name} is {value}, expected a number from 0 up")
        check_betas(betas)
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """Update every parameter that has a gradient.

        Args:
            closure: Computes the loss and the gradients anew.

        Returns:
            What the closure returned.

        Raises:
            RuntimeError: A gradient is sparse, or a parameter float16.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_kind: dict[tuple, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_kind.setdefault((parameter.device, parameter.dtype), []).append(parameter)
            for parameters in by_kind.values():
                self._update(parameters, group)
        return loss

    def load_state_dict(self, state_dict: dict) -> None:
        """Load what `state_dict` gave; the second moments keep their precision, which torch would lower to that of the parameters.

        Raises:
            ValueError: It is the state of another optimiser.
        """
        for kept in state_dict["state"].values():
            if kept.keys() != {"exp_avg", "exp_avg_sq"} or kept["exp_avg_sq"].dim():
                raise ValueError(f"this is no state of NovoGrad: it has {', '.join(kept)}, expected exp_avg and a number exp_avg_sq")
        super().load_state_dict(state_dict)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for place, kept in state_dict["state"].items():
            moment = kept["exp_avg_sq"].detach().clone()
            self.state[parameters[place]]["exp_avg_sq"] = moment.to(parameters[place].device)

    def _update(self, parameters: list[torch.Tensor], group: dict) -> None:
        beta1, beta2 = group["betas"]
        gradients = [parameter.grad for parameter in parameters]
        if any(gradient.is_sparse for gradient in gradients):
            raise RuntimeError("NovoGrad takes no sparse gradients; make the embedding with sparse=False")
        if gradients[0].dtype == torch.float16:
            raise RuntimeError("NovoGrad takes no float16 parameters, in which its epsilon is 0; fp16 training keeps them in float32")
        # eight bits of mantissa would lose what is added to a moving average
        precision = torch.promote_types(gradients[0].dtype, torch.float32)
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
                self.state[parameter]["exp_avg_sq"] = torch.zeros((), dtype=precision, device=parameter.device)
        momenta = [self.state[parameter]["exp_avg"] for parameter in parameters]
        moments = [self.state[parameter]["exp_avg_sq"] for parameter in parameters]

        squares = torch.stack(torch._foreach_norm(gradients, 2, precision)).square()
        before = torch.stack(moments)
        now = torch.where(before == 0, squares, beta2 * before + (1 - beta2) * squares)
        torch._foreach_copy_(moments, list(now.unbind()))

        torch._foreach_mul_(momenta, beta1)
        torch._foreach_addcdiv_(momenta, gradients, list((now.sqrt() + group["eps"]).to(gradients[0].dtype).unbind()))
        if group["weight_decay"]:
            torch._foreach_add_(momenta, parameters, alpha=group["weight_decay"])
        torch._foreach_add_(parameters, momenta, alpha=-group["lr"])


def check_betas(betas: Iterable[float]) -> None:
    """Refuse what cannot be NovoGrad's betas.

    Raises:
        ValueError: They are not two numbers from 0 to below 1.
    """
    betas = list(betas)
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"NovoGrad's betas are {betas}, expected two numbers from 0 to below 1, such as 0.8 0.5")
