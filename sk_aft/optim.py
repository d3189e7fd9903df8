"""The optimizer of networks with large embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["RowwiseAdamW"]


class RowwiseAdamW(torch.optim.AdamW):
    """AdamW with one step size for a whole embedding, which changes only the rows of a batch.

    Parameters with dense gradients are updated exactly as by `torch.optim.AdamW`. Parameters with
    sparse gradients, such as those of ``torch.nn.Embedding(..., sparse=True)``, differ:

    - Only the rows in the gradient change, so the cost of a step depends on the batch and not on
      the vocabulary.
    - The second moment is one number for the whole parameter, the mean square of its gradients.
      Adam takes steps of the same size for a token in one text as for a token in a thousand
      texts, and so memorises rare tokens. Here, rare tokens take smaller steps.
    - There is no momentum, which would apply the gradient of a rare row in later steps that do
      not use it.

    Parameters
    ----------
    params : iterable
        Parameters or groups of parameters, as for `torch.optim.AdamW`.
    **kwargs
        Arguments of `torch.optim.AdamW`. ``amsgrad``, ``maximize`` and ``capturable`` are not
        supported for sparse gradients.

    Attributes
    ----------
    supports_sparse : bool
        True: the package's networks then use sparse gradients for their embeddings.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.

    Zhang et al., "Adam-mini: Use Fewer Learning Rates To Gain More", arXiv 2406.16793. It uses one
    second moment for each block of a network, including dense ones.

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
            Recomputes the loss and the gradients.

        Returns
        -------
        loss : Tensor or None
            The value returned by ``closure``.
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
            state["exp_avg_sq"] = torch.zeros((), dtype=parameter.dtype, device=parameter.device)
        state["step"] += 1
        beta2 = group["betas"][1]
        mean_square = values.square().sum() / parameter.numel()
        state["exp_avg_sq"].lerp_(mean_square, 1 - beta2)
        correction = 1 - beta2 ** state["step"].item()
        scale = (state["exp_avg_sq"] / correction).sqrt_().add_(group["eps"])
        weights = parameter.index_select(0, rows).mul_(1 - group["lr"] * group["weight_decay"])
        parameter.index_copy_(0, rows, weights.sub_(values.mul(group["lr"] / scale)))
