"""A search over strengths through the pipeline, compared with the work that any search needs.

    python -m benchmarks.speed.grid_search

Searches 6 strengths in 5 folds and refits the best (31 trainings) on Banking77 (10 labels per
class) with MiniLM, from an empty store. The floor embeds the texts once and runs 31 hand-written
training loops over existing tokens. A second floor also tokenizes the texts of each fold and
predicts the held-out ones, which a search by hand would have to do, too. The floors start from
random embeddings, so the search also pays for the start from MiniLM.

A second search of 10 strengths in 3 folds, on the same labels and 2,000 other texts, is compared
with as many fits whose seeds differ, so that none finds teachers of an earlier fit in memory.
Takes about fifteen minutes on two cores.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from benchmarks.speed._timing import medians, one_thread, options, ratio, report
from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft.datasets import load_banking77
from sk_aft.model_selection import LabeledFold
from sk_aft.modules import StaticText
from sk_aft.optim import RowwiseAdamW
from sk_aft.preprocessing import SubwordTokenizer
from sk_aft.store import FeatureStore
from sk_aft.transfer import make_transfer

BETAS = [0, 1, 3, 10, 30, 100]
BATCH, EPOCHS = 128, 50
FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)
# As MiniLM, and as labels are encoded.
WIDTH, N_CLASSES = 384, 77
MORE_BETAS = [0.03, 0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10]
N_UNLABELED = 2000


def main() -> None:
    """Measure and print everything."""
    options(__doc__)
    texts, labels = load_banking77(labels_per_class=10, return_X_y=True)
    _, y = np.unique(labels, return_inverse=True)
    every = np.arange(len(texts))
    parts = [*FOLDS.split(texts, labels), (every, every[:0])]
    tokenized = [tokenize(texts, *part) for part in parts]

    def by_hand(*, from_texts: bool) -> None:
        features = torch.from_numpy(embed_once(texts).copy())
        for number, (train, test) in enumerate(parts):
            # The last part is the refit, with one of the strengths.
            tokens, n_tokens = tokenized[number]
            if from_texts:
                tokens, n_tokens = tokenize(texts, train, test)
            for beta in BETAS if len(test) else BETAS[-1:]:
                of_train = torch.from_numpy(y[train]), features[train]
                network = loop(tokens[: len(train)], *of_train, beta, n_tokens)
                if from_texts and len(test):
                    with torch.inference_mode():
                        network(**padded(tokens[len(train) :]))

    embedded = {}

    def search(n_jobs: int | None = None) -> None:
        with tempfile.TemporaryDirectory() as directory:
            store = FeatureStore(directory)
            pipe = make_pipeline(
                FoundationFeatureExtractor("minilm", cache=store, device="cpu"),
                AFTClassifier(max_epochs=EPOCHS, device="cpu", random_state=0),
            )
            grid = {"aftclassifier__beta": BETAS}
            GridSearchCV(pipe, grid, cv=FOLDS, n_jobs=n_jobs).fit(texts, labels)
            embedded["rows"] = store.stats()["rows"]

    floors = {
        "one embedding pass, 31 bare loops": lambda: by_hand(from_texts=False),
        "the same, texts tokenized, folds predicted": lambda: by_hand(from_texts=True),
    }
    seconds = medians({**floors, "ours": search, "n_jobs": lambda: search(2)}, rounds=3)
    what = f"search of 6 strengths in 5 folds, {len(texts)} texts"
    rows = {
        "what": f"{what}: rows run through MiniLM",
        "floor": f"{len(set(texts))} (texts that differ)",
        "ours": f"{embedded['rows']}",
    }
    together = {
        "what": f"{what}: n_jobs=2",
        "floor": f"{seconds['ours']:.2f} s (n_jobs=1)",
        "ours": f"{seconds['n_jobs']:.2f} s = {seconds['n_jobs'] / seconds['ours']:.2f}x",
    }
    figures = [ratio(what, seconds, floor, "1.15x") for floor in floors]
    report("grid_search", [*figures, together, rows, of_teachers()])


def of_teachers() -> dict[str, Any]:
    """Measure 30 fits of a static text student, whose teachers are the same in a fold."""
    labeled, labels = load_banking77(labels_per_class=10, return_X_y=True)
    others = sorted({*load_banking77().data} - {*labeled})
    others = np.random.RandomState(0).permutation(others)[:N_UNLABELED].tolist()
    with tempfile.TemporaryDirectory() as directory:
        extractor = FoundationFeatureExtractor("minilm", cache=directory, device="cpu")
        X = extractor.fit_transform([*labeled, *others])
        y = np.concatenate([np.unique(labels, return_inverse=True)[1], np.full(len(others), -1)])
        folds = LabeledFold(3, missing_label=-1)
        seeds = itertools.count()

        def student(**parameters: Any) -> AFTClassifier:
            settings = {"missing_label": -1, "random_state": next(seeds), "device": "cpu"}
            return AFTClassifier(**settings, **parameters)

        def one_by_one() -> None:
            for beta, (train, test) in itertools.product(MORE_BETAS, folds.split(X, y)):
                student(beta=beta).fit(X[train], y[train]).score(X[test], y[test])
            student(beta=1).fit(X, y)

        def search() -> None:
            GridSearchCV(student(), {"beta": MORE_BETAS}, cv=folds).fit(X, y)

        with one_thread():
            seconds = medians({"31 fits with other seeds": one_by_one, "ours": search}, rounds=1)
    what = f"30 fits of a static text student and the refit, {len(y)} texts"
    return ratio(what, seconds, "31 fits with other seeds")


def embed_once(texts: list[str]) -> np.ndarray:
    """Compute the features again and return them."""
    extractor = FoundationFeatureExtractor("minilm", cache=None, device="cpu")
    return extractor.fit_transform(texts).features


def tokenize(texts: list[str], train: np.ndarray, test: np.ndarray) -> tuple[list[Tensor], int]:
    """Return the tokens of texts to learn from and then of others, and how many tokens exist."""
    tokenizer = SubwordTokenizer().fit([texts[row] for row in train])
    some = [texts[row] for row in (*train, *test)]
    return [torch.from_numpy(tokens) for tokens in tokenizer.transform(some)], tokenizer.n_tokens_


def padded(tokens: list[Tensor]) -> dict[str, Tensor]:
    """Return the arguments of the network."""
    lengths = torch.tensor([len(of_text) for of_text in tokens])
    return {"tokens": pad_sequence(tokens, batch_first=True), "lengths": lengths}


def batches(
    tokens: list[Tensor], y: Tensor, features: Tensor
) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
    """Yield the batches of one epoch."""
    for rows in torch.randperm(len(y)).split(BATCH):
        yield padded([tokens[row] for row in rows]), y[rows], features[rows]


def loop(tokens: list[Tensor], y: Tensor, features: Tensor, beta: float, n_tokens: int) -> Any:
    """Train as one would by hand."""
    torch.manual_seed(0)
    network = StaticText(n_tokens, N_CLASSES, sparse=True).train()
    groups: list[dict] = [{"params": list(network.parameters())}]
    if beta > 0:
        transfer = make_transfer("aft", WIDTH, n_student_features=128, n_outputs=N_CLASSES)
        groups.append({"params": list(transfer.parameters()), "lr": 1e-2, "weight_decay": 0.0})
    optimizer = RowwiseAdamW(groups, fused=True)
    n_steps = EPOCHS * -(-len(y) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    with one_thread():
        for _ in range(EPOCHS):
            for inputs, targets, foundation in batches(tokens, y, features):
                logits, of_student = network(**inputs)
                loss = F.cross_entropy(logits, targets)
                if beta > 0:
                    loss = loss + beta * transfer(of_student, foundation)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return network.eval()


if __name__ == "__main__":
    main()
