"""The suites: experiments that answer a question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from benchmarks.accuracy._experiments import Experiment
from benchmarks.accuracy._methods import METHODS, WITHOUT_TEACHER

# Those that the paper compares, the student alone first, and what came after it.
COMPARED = (
    "student alone",
    "default",
    "aft",
    "kd",
    "rkd",
    "ft",
    "kkd",
    "b-tuning",
    "probe-kd",
    "aft and probe-kd",
)
NOT_TUNED = ("default, not tuned", "student alone, not tuned")
IN_MEANS = (*COMPARED, *NOT_TUNED, "probe")

_WITH_MIXTURES = ("aft + mixtures", "probe-kd + mixtures", "aft and probe-kd + mixtures")

# About where the student alone is best on held-out rows, see `steps`; more steps overtrain it.
TEXT_STEPS = 300
_MORE_TEXT_STEPS = {"banking77": 1500, "sst2": 1000, "trec": 1000, "sst5": 1000}
_TRANSFORMER_STEPS = 600
_STEPS_OF_MANY = 500
BAG, TRANSFORMER = "bag of n-grams", "transformer"

# Data set, number of labels and steps of the images.
_IMAGES = (
    ("cifar10", "1000", 400),
    ("fashion_mnist", "5000", 400),
    ("chest_xray", "all", 250),
    ("cifar10", "5000", 800),
)
_VARIED_IMAGES = _IMAGES[:2]
_MANY_IMAGES = ("cifar10", "20000", 1000)
_LITE0, _LITE2, BOTH_LITE = "effnet-lite0", "effnet-lite2", "effnet-lite0 + effnet-lite2"
BOTH_TEXT = "minilm + wordllama"
SMALL, LARGE = "ResNet 78k", "ResNet 309k"

_FEW_TEXTS = ("banking77", "trec")  # where there are many experiments
_CLASSIFIED = ("banking77", "trec", "sst2")


def _each(
    methods: Iterable[str], data: str, student: str, teacher: str, labels: str, steps: int
) -> Iterator[Experiment]:
    """Yield the experiment of each method, without what it does not need."""
    for method in methods:
        is_student = METHODS[method].is_student
        yield Experiment(
            data,
            method,
            student if is_student else "",
            "" if method in WITHOUT_TEACHER else teacher,
            labels,
            steps if is_student else 0,
        )


def language() -> Iterator[Experiment]:
    """Texts: four data sets, one and two teachers, few and many steps, two students."""
    for data, many in _MORE_TEXT_STEPS.items():
        for steps in (TEXT_STEPS, many):
            methods = (*COMPARED, *NOT_TUNED, "probe", "TF-IDF + linear")
            yield from _each(methods, data, BAG, "minilm", "all", steps)
        for teacher in ("wordllama", BOTH_TEXT):
            methods = ("default", "aft", "probe-kd", "probe")
            yield from _each(methods, data, BAG, teacher, "all", TEXT_STEPS)
        yield from _each(methods, data, BAG, BOTH_TEXT, "all", many)
    for data in ("banking77", "sst2"):
        methods = ("student alone", "default", "aft", "kd", "probe-kd")
        yield from _each(methods, data, TRANSFORMER, "minilm", "all", _TRANSFORMER_STEPS)


def vision() -> Iterator[Experiment]:
    """Images: all methods with two teachers, then one thing changed at a time."""
    for data, labels, steps in _IMAGES:
        methods = (*COMPARED, *NOT_TUNED, *_WITH_MIXTURES, "probe", "HOG + SVM")
        yield from _each(methods, data, SMALL, BOTH_LITE, labels, steps)
        yield from _each(("probe",), data, "", _LITE0, labels, 0)
    data, labels, steps = _IMAGES[0]
    yield from _each(("aft, from 1",), data, SMALL, BOTH_LITE, labels, steps)
    for teacher in (_LITE0, _LITE2):
        for data, labels, steps in _VARIED_IMAGES:
            methods = ("default", "aft", "probe-kd", "probe")
            yield from _each(methods, data, SMALL, teacher, labels, steps)
    few = ("student alone", "default", "aft", "probe-kd")
    for data, labels, steps in _VARIED_IMAGES:
        for student in (f"{SMALL}, not augmented", LARGE):
            yield from _each(few, data, student, BOTH_LITE, labels, steps)
    data, labels, steps = _MANY_IMAGES
    methods = ("student alone", "aft", "probe-kd", "probe")  # a default would take hours
    yield from _each(methods, data, SMALL, BOTH_LITE, labels, steps)


def multimodal() -> Iterator[Experiment]:
    """Pictures with sentences: the product kernel, features side by side, one modality."""
    both, steps = "image: effnet-lite0, text: minilm", 600
    for student in ("image and text, bilinear", "image and text, concatenated"):
        methods = ("student alone", "default", "aft", "kd", "probe-kd", "probe")
        yield from _each(methods, "entailment", student, both, "all", steps)
    bilinear = "image and text, bilinear"
    yield from _each(("aft-product",), "entailment", bilinear, both, "all", steps)
    for column, teacher in (("image", _LITE0), ("text", "minilm")):
        yield from _each(("student alone", "aft"), "entailment", column, teacher, "all", steps)


def methods() -> Iterator[Experiment]:
    """Every method, on all that is compared with one teacher of texts and two of images."""
    for data in _MORE_TEXT_STEPS:
        yield from _each(IN_MEANS, data, BAG, "minilm", "all", TEXT_STEPS)
    for data, labels, steps in _IMAGES:
        yield from _each(IN_MEANS, data, SMALL, BOTH_LITE, labels, steps)


TEACHERS = (
    "minilm, layer 0",
    "minilm, layer 2",
    "minilm, layer 4",
    "minilm, 32 of 384",
    "minilm, 128 of 384",
    "wordllama, 64 of 256",
    "wordllama",
    "minilm",
    BOTH_TEXT,
)


LABELS = ("10 a class", "50 a class", "200 a class", "1000 a class", "all")
# Data sets with more rows than this many labels per class.
_LABELS_OF = {"banking77": LABELS[:2], "trec": LABELS[:3], "sst2": LABELS[:4]}
_WITHOUT_UNLABELED = ("student alone", "default", "aft", "probe-kd")
_WITH_UNLABELED = ("aft + unlabelled", "probe-kd + unlabelled")
_LINEAR = ("TF-IDF + linear", "probe")


# Whose students are held against the probes of their teachers.
OF_TEACHERS = ("aft", "kd", *_WITH_UNLABELED)


def teachers() -> Iterator[Experiment]:
    """Teachers of all qualities, to see whether a better one makes a better student."""
    for data in _FEW_TEXTS:
        for teacher in TEACHERS:
            methods = ("student alone", "aft", "kd", "probe")
            yield from _each(methods, data, BAG, teacher, "all", _STEPS_OF_MANY)
    for teacher in TEACHERS:
        methods = ("student alone", *_WITH_UNLABELED, "probe")
        yield from _each(methods, "banking77", BAG, teacher, LABELS[0], _STEPS_OF_MANY)


def labels() -> Iterator[Experiment]:
    """Few labels and many; the other training rows without."""
    few = ("student alone", "aft", "probe-kd")
    for data, numbers in _LABELS_OF.items():
        for number in (*numbers, "all"):
            unlabeled = () if number == "all" else _WITH_UNLABELED
            methods = (*_WITHOUT_UNLABELED, *unlabeled, *_LINEAR)
            yield from _each(methods, data, BAG, "minilm", number, _MORE_TEXT_STEPS[data])
    methods = (*few, *_WITH_UNLABELED, "probe")
    yield from _each(methods, "cifar10", SMALL, BOTH_LITE, LABELS[0], 200)
    for data, number, steps in (_IMAGES[0], _IMAGES[3]):
        yield from _each((*_WITHOUT_UNLABELED, "probe"), data, SMALL, BOTH_LITE, number, steps)
    data, number, steps = _MANY_IMAGES
    yield from _each((*few, "probe"), data, SMALL, BOTH_LITE, number, steps)
    for data in _CLASSIFIED:  # with more labels it takes hours on a CPU
        methods = ("SetFit", "probe-kd by SetFit + unlabelled, not tuned")
        yield from _each(methods, data, BAG, "", LABELS[0], _MORE_TEXT_STEPS[data])


_VARIANTS = (
    "student alone",
    "aft",
    "aft, published",
    "aft-fixed",
    "aft-dense",
    "aft-rbf",
    "feature-regression",
    "kkd",
)


def ablation() -> Iterator[Experiment]:
    """Parts of the method, and uninformative features added to the teacher's."""
    for data in _FEW_TEXTS:
        yield from _each(_VARIANTS, data, BAG, "minilm", "all", _STEPS_OF_MANY)
        for noise in ("384 noise", "1536 noise"):
            methods = ("aft", "aft, published", "aft-fixed", "kkd")
            yield from _each(methods, data, BAG, f"minilm + {noise}", "all", _STEPS_OF_MANY)


# Families of teachers: a transformer, static embeddings and convolutions.
FAMILIES = (
    ("banking77", "all", BAG, "minilm", (200, 600, 1800)),
    ("banking77", "all", BAG, "wordllama", (200, 600, 1800)),
    ("cifar10", "5000", SMALL, BOTH_LITE, (100, 300)),
)


def steps() -> Iterator[Experiment]:
    """Texts: how long to train the student alone."""
    for data, many in _MORE_TEXT_STEPS.items():
        for number in (100, TEXT_STEPS, 2 * TEXT_STEPS, many):
            yield from _each(("student alone",), data, BAG, "", "all", number)


def sensitivity() -> Iterator[Experiment]:
    """Strength, learning rate and steps, for three families of teachers."""
    for data, number, student, teacher, numbers_of_steps in FAMILIES:
        for steps in numbers_of_steps:
            yield from _each(("aft, grid",), data, student, teacher, number, steps)


def pareto() -> Iterator[Experiment]:
    """Everything that could be deployed; `benchmarks.accuracy.pareto` measures what it costs."""
    for data in _CLASSIFIED:
        methods = ("student alone", "default", "TF-IDF + linear", "probe")
        yield from _each(methods, data, BAG, "minilm", "all", TEXT_STEPS)
        yield from _each(("probe",), data, "", "wordllama", "all", 0)
    for data, number, steps in _IMAGES:
        methods = ("student alone", "default", "HOG + SVM", "probe")
        yield from _each(methods, data, SMALL, BOTH_LITE, number, steps)
        yield from _each(("probe",), data, "", _LITE0, number, 0)


def quick(experiment: Experiment) -> Experiment:
    """Return an experiment with a tenth of the steps."""
    return replace(experiment, steps=experiment.steps // 10)


SUITES = {
    suite.__name__: suite
    for suite in (
        language,
        vision,
        multimodal,
        methods,
        teachers,
        labels,
        ablation,
        steps,
        sensitivity,
        pareto,
    )
}
