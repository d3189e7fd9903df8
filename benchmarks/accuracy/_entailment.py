"""Visual entailment: pictures of clothes, and sentences that they entail, contradict or leave open.

As in SNLI-VE (Xie et al., arXiv 1901.06706), but with the class of the picture instead of human
judgement. Sentences are made from templates; test rows have other templates than training rows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

ENTAILED, CONTRADICTED, NEUTRAL = 0, 1, 2
_N_TRAIN, _N_TEST = 10_000, 3_000

# Nouns of each class of Fashion-MNIST.
NOUNS = (
    ("T-shirt", "tee", "T-shirt with short sleeves"),
    ("pair of trousers", "pair of pants", "pair of slacks"),
    ("pullover", "sweater", "jumper"),
    ("dress", "frock", "gown"),
    ("coat", "overcoat", "jacket"),
    ("sandal", "open shoe", "shoe with straps"),
    ("shirt", "button-up shirt", "blouse"),
    ("sneaker", "trainer", "running shoe"),
    ("bag", "handbag", "purse"),
    ("ankle boot", "boot", "high shoe"),
)
# What a picture can show.
_SEEN = {
    "train": (
        "There is a {} in the picture.",
        "The photo shows a {}.",
        "This is a {}.",
        "One can see a {} here.",
        "What has been photographed is a {}.",
        "A {} lies in front of the camera.",
        "Somebody took a picture of a {}.",
        "It is a {}, seen from the front.",
    ),
    "test": (
        "The image depicts a {}.",
        "A {} is visible.",
        "We are looking at a {}.",
        "The object in the image is a {}.",
    ),
}
# What it cannot.
_UNSEEN = {
    "train": (
        "The {} was bought last summer.",
        "The {} belongs to my sister.",
        "The {} costs forty dollars.",
        "The {} was made in Portugal.",
        "Nobody has worn the {} yet.",
        "The {} will be given away as a present.",
        "The {} is washed once a week.",
        "A friend of mine designed the {}.",
    ),
    "test": (
        "The {} is owned by a teacher.",
        "The {} was sold yesterday.",
        "The {} comes from Italy.",
        "The price of the {} went down.",
    ),
}


def make_entailment(
    images: np.ndarray, labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray
) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame, np.ndarray]:
    """Return pairs of picture and sentence, and whether the one entails the other.

    A third of the sentences are true of their picture, a third are not, and a third say what no
    picture shows. Half of the untrue ones say of a piece that is not there what no picture shows,
    so that words alone tell two of three labels, and not all.

    Parameters
    ----------
    images, test_images : ndarray of shape (n, 28, 28)
        Fashion-MNIST.
    labels, test_labels : ndarray of shape (n,)
        Their classes.
    """
    random = np.random.RandomState(0)
    return (
        *_pairs(images, labels, _N_TRAIN, "train", random),
        *_pairs(test_images, test_labels, _N_TEST, "test", random),
    )


def _pairs(
    images: np.ndarray, labels: np.ndarray, n_rows: int, part: str, random: np.random.RandomState
) -> tuple[pd.DataFrame, np.ndarray]:
    rows = random.permutation(len(images))[:n_rows]
    answers = random.randint(3, size=len(rows))
    sentences = []
    for row, answer in zip(rows, answers, strict=True):
        noun_of = labels[row]
        if answer == CONTRADICTED:
            noun_of = (noun_of + random.randint(1, len(NOUNS))) % len(NOUNS)
        is_seen = answer == ENTAILED or (answer == CONTRADICTED and random.randint(2))
        templates = (_SEEN if is_seen else _UNSEEN)[part]
        nouns = NOUNS[noun_of]
        template, noun = templates[random.randint(len(templates))], nouns[random.randint(3)]
        sentences.append(_with_article(template, noun))
    frame = pd.DataFrame({"image": list(images[rows]), "text": sentences})
    return frame, answers


def _with_article(template: str, noun: str) -> str:
    if noun[0] in "aeiou":
        template = template.replace("a {}", "an {}").replace("A {}", "An {}")
    return template.format(noun)
