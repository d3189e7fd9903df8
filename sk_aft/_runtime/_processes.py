"""Processes that train a student together, each on its part of every batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from sk_aft._optional import import_optional
from sk_aft._runtime._device import resolve_device
from sk_aft._runtime._seeds import seeded_torch

# Other types split the network itself, or run the steps in their own way.
_TYPES = ("NO", "MULTI_CPU", "MULTI_GPU")


class StoppedElsewhere(KeyboardInterrupt):
    """Ends the training because it was stopped in another process."""


class Processes:
    """The processes of an accelerator, as one of them sees them.

    Every method but the constructor is called by all processes, in the same order. In a single
    process the methods return what they get.

    Parameters
    ----------
    accelerator : accelerate.Accelerator, optional
        Connects the processes; by default there is only this one.
    """

    def __init__(self, accelerator: Any = None) -> None:
        self._accelerator = accelerator
        self.count: int = 1 if accelerator is None else accelerator.num_processes
        self.index: int = 0 if accelerator is None else accelerator.process_index
        # Of a block of `ending_steps_together`.
        self._parameters: Callable[[], list[Tensor]] | None = None
        self._is_sending = False
        self._has_ended = False

    def device(self, device: Any) -> torch.device:
        """Return where this process trains; ``device`` is the estimator's parameter."""
        if self._accelerator is None:
            return resolve_device(device)
        own = self._accelerator.device
        own = torch.device("cpu") if own.type == "cpu" else own
        if device != "auto" and resolve_device(device) != own:
            raise ValueError(
                f"device={str(device)!r}, but the accelerator gives this process {str(own)!r}: "
                "leave device='auto'."
            )
        return own

    def check_batches(self, batch_size: int, n_rows: int) -> None:
        """Raise ValueError unless each process gets at least two rows of the first batch."""
        if self.count == 1:
            return
        least = 2 * self.count
        if batch_size % self.count or batch_size < least:
            nearest = max(least, round(batch_size / self.count) * self.count)
            raise ValueError(
                f"batch_size={batch_size} cannot be split into equal parts of at least two rows "
                f"for {self.count} processes: use batch_size={nearest}."
            )
        if n_rows < least:
            raise ValueError(
                f"{n_rows} rows cannot be split between {self.count} processes, which need two "
                "rows each: train in one process."
            )

    def check_same(self, facts: Mapping[str, Any]) -> None:
        """Raise ValueError in all processes if a fact differs between them."""
        if self.count == 1:
            return
        of_all = _operations().gather_object([dict(facts)])
        for index, others in enumerate(of_all):
            names = {*of_all[0], *others}
            differing = sorted(n for n in names if of_all[0].get(n) != others.get(n))
            if differing:
                raise ValueError(
                    f"The processes do not train the same student: {', '.join(differing)} of "
                    f"process {index} and of process 0 differ. Give all processes the same rows "
                    "in the same order, and the same parameters. Whatever shuffles or splits rows "
                    "needs a random_state."
                )

    def of_main(self, value: Any) -> Any:
        """Return the value that the main process has."""
        if self.count == 1:
            return value
        return _operations().broadcast_object_list([value])[0]

    def mean_of(self, numbers: Mapping[str, float]) -> Mapping[str, float]:
        """Return the means of some numbers; they are exactly the same in all processes."""
        if self.count == 1:
            return numbers
        values = torch.tensor(list(numbers.values()), dtype=torch.float64)
        values = values.to(self._accelerator.device)
        self.agree_to_go_on()
        means = self._mean(values)
        return dict(zip(numbers, means.tolist(), strict=True))

    def average_gradients(self, parameters: Iterable[Tensor], loss: Tensor) -> Tensor:
        """Replace each gradient by its mean; return the mean of the loss.

        A part of the network that got no gradient here may have got one elsewhere.
        """
        if self.count == 1:
            return loss
        parameters = list(parameters)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        if any(gradient.is_sparse for gradient in gradients):
            raise ValueError(
                "Sparse gradients cannot be averaged over processes: build the network with "
                "sparse=False."
            )
        # One message: a hundred small ones would take longer than a step.
        message = _message(parameters)
        message[1] = loss.detach()
        torch.cat([g.reshape(-1).to(message.dtype) for g in gradients], out=message[2:])
        self._exchange(message)
        means = message[2:].split([g.numel() for g in gradients])
        for parameter, gradient in zip(parameters, means, strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype)
        return message[1]

    def agree_to_go_on(self) -> None:
        """Find out whether another process has failed in a block of `ending_steps_together`."""
        if self._parameters is not None:
            self._exchange(_message(self._parameters()))

    @torch.no_grad()
    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of the main process."""
        if self.count == 1:
            return
        for tensor in tensors:
            tensor.copy_(_operations().broadcast(tensor.detach().contiguous()))

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """If the block fails in one process, raise an error in all; the others would wait for it.

        They raise StoppedElsewhere after a KeyboardInterrupt, by which callbacks of skorch stop a
        training, and else RuntimeError. The methods of processes must not be called in the block.
        """
        if self.count == 1:
            yield
            return
        try:
            yield
        except BaseException as error:
            self.tell(error)
            raise
        self.tell(None)

    @contextmanager
    def ending_steps_together(self, parameters: Callable[[], list[Tensor]]) -> Iterator[None]:
        """As `ending_together`, for a block whose steps average gradients and numbers.

        The others wait in a method of this object, and the process that fails does not know in
        which one. So all of them begin with messages of one size, which say whether their sender
        has failed.

        Parameters
        ----------
        parameters : callable
            Returns the parameters whose gradients are averaged.
        """
        if self.count == 1:
            yield
            return
        self._parameters, self._is_sending, self._has_ended = parameters, False, False
        failure = _message(parameters())  # made now, because memory may run out
        try:
            yield
        except BaseException as error:
            if not (self._has_ended or self._is_sending):
                message = _message(parameters(), kept=failure)
                message[0] = 1
                self._exchange(message, error)
            raise
        finally:
            self._parameters = None

    def tell(self, error: BaseException | None) -> None:
        """Tell the others whether this process failed; raise an error if only others did."""
        if self.count == 1:
            return
        is_stopped = isinstance(error, KeyboardInterrupt)
        of_all = _operations().gather_object([(error is not None, is_stopped, repr(error))])
        if error is not None:
            return
        for index, (has_failed, is_stopped, text) in enumerate(of_all):
            if is_stopped:
                raise StoppedElsewhere
            if has_failed:
                raise RuntimeError(f"The training ended, because process {index} raised {text}.")

    def own_random_numbers(self, seed: int, device: torch.device) -> AbstractContextManager[Any]:
        """Return a block in which dropout differs from that of the other processes."""
        return seeded_torch(seed + self.index, device) if self.index else nullcontext()

    def _exchange(self, message: Tensor, error: BaseException | None = None) -> None:
        """Replace a message by its mean; raise if another process has failed."""
        self._is_sending = True
        self._mean(message)
        self._is_sending = False
        if message[0] > 0:
            self._has_ended = True
            self.tell(error)

    def _mean(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its mean, without a copy: memory may have run out."""
        torch.distributed.all_reduce(tensor)
        return tensor.div_(self.count)


def _message(parameters: list[Tensor], kept: Tensor | None = None) -> Tensor:
    """Return zeros: whether the sender has failed, its loss, and its gradients."""
    size = 2 + sum(parameter.numel() for parameter in parameters)
    if kept is not None and len(kept) == size:
        return kept
    dtype = reduce(torch.promote_types, (p.dtype for p in parameters), torch.float32)
    return torch.zeros(size, dtype=dtype, device=parameters[0].device)


_current: ContextVar[Processes | None] = ContextVar("processes", default=None)


def current_processes() -> Processes:
    """Return the processes of the innermost `fit_together`, or this process alone."""
    return _current.get() or Processes()


@contextmanager
def fit_together(accelerator: Any) -> Iterator[None]:
    """Train each student that is fitted in the block in all processes of an accelerator.

    Every process runs the same script on the same rows, and ends with the same student. Each trains
    on its part of every batch, on its own device, and the gradients are averaged before each step.
    It takes as many steps as a training in one process: ``batch_size`` counts the rows of all
    parts. Scores on held-out rows are the same in all processes, so that ``early_stopping`` ends
    the training in all of them.

    Parameters
    ----------
    accelerator : accelerate.Accelerator
        Connects the processes, which ``accelerate launch`` or ``torchrun`` has started. Its types
        without processes, several CPUs and several GPUs are supported. It changes neither
        precision nor steps: use ``precision`` and ``batch_size`` of the student.

    Yields
    ------
    None
        Fit students, pipelines or searches in the block, in the same order in all processes.

    Raises
    ------
    TypeError
        If it is not an accelerator.
    ValueError
        If the accelerator does not connect the processes that were started, or has options that
        have no effect here. A `fit` in the block raises it in all processes if rows, targets or
        parameters differ between them, or if ``batch_size`` is not a multiple of their number.
    RuntimeError
        Raised by a `fit` in the block if it fails in another process, after the same step.

    Notes
    -----
    A transfer method and batch normalisation see the rows of a process's own part. Predictions,
    preprocessing, the rows held out and what is fitted before the first step are computed in every
    process. Searches train together with ``n_jobs=None``: workers are other processes, and train
    alone. Set their ``error_score="raise"``: if a process fails outside `fit`, where others do not
    notice, it must not go on to the next student.

    Examples
    --------
    >>> from accelerate import Accelerator  # doctest: +SKIP
    >>> from sklearn.datasets import load_iris
    >>> from sk_aft import AFTClassifier, fit_together
    >>> X, y = load_iris(return_X_y=True)
    >>> accelerator = Accelerator()  # doctest: +SKIP
    >>> student = AFTClassifier(beta=0, random_state=0)
    >>> with fit_together(accelerator):  # doctest: +SKIP
    ...     student = student.fit(X, y)
    >>> if accelerator.is_main_process:  # doctest: +SKIP
    ...     print(student.score(X, y) > 0.9)
    True
    >>> accelerator.end_training()  # doctest: +SKIP
    """
    _check_accelerator(accelerator)
    token = _current.set(Processes(accelerator))
    try:
        yield
    finally:
        _current.reset(token)


def _check_accelerator(accelerator: Any) -> None:
    needed = ("num_processes", "process_index", "device", "distributed_type", "reduce")
    if not all(hasattr(accelerator, name) for name in needed):
        raise TypeError(f"fit_together takes an accelerate.Accelerator, got {accelerator!r}.")
    n_started = int(os.environ.get("WORLD_SIZE", "1"))
    if n_started > accelerator.num_processes:
        raise ValueError(
            f"{n_started} processes were started, but the accelerator connects "
            f"{accelerator.num_processes}: each would train alone. Without GPUs, set the variable "
            "ACCELERATE_USE_CPU=1, or give Accelerator(cpu=True)."
        )
    kind = accelerator.distributed_type.value
    if kind not in _TYPES:
        raise ValueError(
            f"fit_together trains on several GPUs or CPUs, each with the whole network, but the "
            f"accelerator's distributed_type is {kind}: choose another type in accelerate's "
            "configuration."
        )
    if accelerator.mixed_precision != "no":
        raise ValueError(
            f"The accelerator's mixed_precision={accelerator.mixed_precision!r} has no effect "
            "here: use 'no', and precision='bf16-mixed' or '16-mixed' of the student."
        )
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError(
            f"gradient_accumulation_steps={accelerator.gradient_accumulation_steps} of the "
            "accelerator has no effect here: use 1, and batch_size of the student."
        )


def _operations() -> Any:
    return import_optional("accelerate.utils", extra="clusters", purpose="fit_together")
