"""A student behind HTTP, which predicts the rows of simultaneous requests together.

SK_AFT_STUDENT=student uvicorn service:create_app --factory
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from sk_aft.serving import load

_MOST_ROWS_OF_A_REQUEST = 1000


class Batcher:
    """Collects requests for a moment and predicts their rows in one call.

    Parameters
    ----------
    predict : callable
        From a list of rows to a list of answers, of equal length.
    wait : float
        Seconds to wait for more requests after the first one.
    most_rows : int
        Number of rows at which a batch takes no further request.

    Attributes
    ----------
    n_rows, n_batches : int
        What was predicted so far.
    """

    def __init__(self, predict: Callable[[list], list], wait: float, most_rows: int) -> None:
        self._predict, self._wait, self._most_rows = predict, wait, most_rows
        self._waiting: asyncio.Queue = asyncio.Queue()
        self.n_rows = self.n_batches = 0

    async def __call__(self, rows: list) -> list:
        """Return the answers of some rows, which may be predicted together with others."""
        answers = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((rows, answers))
        return await answers

    async def run(self) -> None:
        """Answer requests until it is cancelled."""
        while True:
            batch = [await self._waiting.get()]
            await asyncio.sleep(self._wait)
            while not self._waiting.empty() and _n_rows(batch) < self._most_rows:
                batch.append(self._waiting.get_nowait())
            await self._answer(batch)

    async def _answer(self, batch: list) -> None:
        try:
            rows = [row for some, _ in batch for row in some]
            found = await asyncio.to_thread(self._predict, rows)  # meanwhile, others may queue
        except Exception as error:
            await self._answer_error(batch, error)
            return
        self.n_rows += len(rows)
        self.n_batches += 1
        for some, answers in batch:
            its_own, found = found[: len(some)], found[len(some) :]
            if not answers.done():  # else the client has gone
                answers.set_result(its_own)

    async def _answer_error(self, batch: list, error: Exception) -> None:
        if len(batch) > 1:  # only those whose rows are wrong shall have an error
            for request in batch:
                await self._answer([request])
        elif not batch[0][1].done():
            batch[0][1].set_exception(error)


def _n_rows(batch: list) -> int:
    return sum(len(rows) for rows, _ in batch)


class Rows(BaseModel):
    """Texts, lists of numbers, or dicts of columns, as the student was trained on."""

    rows: Annotated[list[Any], Field(min_length=1, max_length=_MOST_ROWS_OF_A_REQUEST)]


def create_app(folder: str | None = None, wait: float = 0.003, most_rows: int = 256) -> FastAPI:
    """Return the application.

    Parameters
    ----------
    folder : str, optional
        Folder of the student; default: the environment variable SK_AFT_STUDENT, or "student".
    wait : float, default=0.003
        Seconds that the first request of a batch waits for others. It adds to every answer.
    most_rows : int, default=256
        Number of rows at which a batch is full.

    Returns
    -------
    app : FastAPI
        With ``POST /predict`` and ``GET /health``.
    """
    student = load(folder or os.environ.get("SK_AFT_STUDENT", "student"))
    batcher = Batcher(lambda rows: _answers(student, rows), wait, most_rows)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(batcher.run())
        yield
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    app = FastAPI(title="A student of sk-aft", lifespan=lifespan)

    @app.post("/predict")
    async def predict(request: Rows) -> dict[str, list]:
        try:
            return {"predictions": await batcher(request.rows)}
        except (ValueError, TypeError) as error:
            raise HTTPException(status_code=422, detail=str(error)) from error

    @app.get("/health")
    async def health() -> dict[str, int]:
        return {"rows": batcher.n_rows, "batches": batcher.n_batches}

    return app


def _answers(student: Any, rows: list) -> list:
    """Return a label and its probability for each row; of a regressor, what it predicts."""
    if not hasattr(student, "predict_proba"):
        return student.predict(rows).tolist()
    probabilities = student.predict_proba(rows)
    labels = student.classes_[probabilities.argmax(axis=1)].tolist()
    largest = probabilities.max(axis=1).tolist()
    return [
        {"label": label, "probability": probability}
        for label, probability in zip(labels, largest, strict=True)
    ]
