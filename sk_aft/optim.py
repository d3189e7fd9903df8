"""The optimizer of networks with large embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class RowwiseAdamW(torch.optim.AdamW):
    """AdamW that leaves the rows of an embedding alone which a batch does not use.

    Dense gradients are `torch.optim.AdamW`'s business, to the bit. Of a parameter with a sparse
    gradient, such as ``torch.nn.Embedding(..., sparse=True)`` has, only the rows in it change: a
    step costs what the batch holds, not what the vocabulary holds. They have no momentum, which
    in AdamW carries the gradient of a rare row on over steps that do not use it; without, the row
    goes as far in the one step.

    Parameters
    ----------
    params : iterable
        Parameters or groups of parameters, as of `torch.optim.AdamW`.
    **kwargs
        Arguments of `torch.optim.AdamW`. ``amsgrad``, ``maximize`` and ``capturable`` are not
        supported for sparse gradients.

    Attributes
    ----------
    supports_sparse : bool
        True: networks that can choose have their embeddings give sparse gradients.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.

    Examples
    --------
    >>> import torch
    >>> from sk_aft.optim import RowwiseAdamW
    >>> embedding = torch.nn.Embedding(1000, 4, sparse=True)
    >>> before = embedding.weight.detach().clone()
    >>> optimizer = RowwiseAdamW(embedding.parameters(), lr=0.1)
    >>> embedding(torch.tensor([3, 7])).sum().backward()
    >>> optimizer.step()
    >>> (embedding.weight != before).any(dim=1).nonzero().flatten()
    tensor([3, 7])
    """

    supports_sparse = True

    def step(self, closure: Callable | None = None) -> Any:
        """Do one step.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients anew.

        Returns
        -------
        loss : Tensor or None
            What ``closure`` returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sparse = [
            (parameter, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter.grad.is_sparse
        ]
        gradients = [parameter.grad.coalesce() for parameter, _ in sparse]
        for parameter, _ in sparse:
            parameter.grad = None
        super().step()
        for (parameter, group), gradient in zip(sparse, gradients, strict=True):
            self._step_of_rows(parameter, gradient, group)
            parameter.grad = gradient
        return loss

    @torch.no_grad()
    def _step_of_rows(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        unsupported = [name for name in ("amsgrad", "maximize", "capturable") if group[name]]
        if unsupported:
            raise ValueError(f"{unsupported[0]} is not supported for sparse gradients.")
        rows, values = gradient.indices()[0], gradient.values()
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        step, beta2 = state["step"].item(), group["betas"][1]
        square = state["exp_avg_sq"].index_select(0, rows)
        square.mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        scale = square.div_(1 - beta2**step).sqrt_().add_(group["eps"])
        weights = parameter.index_select(0, rows).mul_(1 - group["lr"] * group["weight_decay"])
        weights.addcdiv_(values, scale, value=-group["lr"])
        parameter.index_copy_(0, rows, weights)
