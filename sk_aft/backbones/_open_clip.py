"""Models of open_clip, which read images or texts."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sk_aft._data._rows import Rows
from sk_aft._optional import import_optional
from sk_aft._runtime._threads import one_at_a_time
from sk_aft.backbones._base import Backbone, LayeredModel, LoadedOnDemand
from sk_aft.backbones._fingerprint import directory_digest
from sk_aft.backbones._hidden_states import mean_over_tokens
from sk_aft.backbones._hub import load_from_hub
from sk_aft.backbones._hugging_face import load_config
from sk_aft.backbones._hugging_face_families import NEEDS_CODE
from sk_aft.backbones._hugging_face_rows import model_class
from sk_aft.backbones._image import ImageBackbone, pil_image
from sk_aft.backbones._licences import licence_of_files
from sk_aft.backbones._network import Network
from sk_aft.backbones._tokens import truncation_note

# Which tokens of some texts are averaged.
_Mask = Callable[[Tensor], Tensor]

_HUB, _DIRECTORY = "hf-hub:", "local-dir:"
_CONFIGURATION = "open_clip_config.json"
_FORCE_TENSORS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORCE_ANYTHING = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
# Those of open_clip's tokenizers. It passes others to transformers, which may run code for them.
_TOKENIZER_SETTINGS = (
    "additional_special_tokens",
    "clean",
    "language",
    "reduction_mask",
    "strip_sep_token",
)
# The export of ViT-B-32 takes 7 to 10 seconds and halves the time of a row (200 ms on a busy core).
_ROWS_WORTH_EXPORT = 300
_TEXTS_PER_CORE = 8


class OpenClipBackbone(LoadedOnDemand):
    """A model of open_clip, which reads images with one tower and texts with the other.

    The kind of the rows decides which tower runs. It is the extra ``open_clip``.

    Parameters
    ----------
    name : str
        - "NAME/PRETRAINED": a model that open_clip knows, such as "ViT-B-32", then the tag of
          weights, such as "laion2b_s34b_b79k", or the path of a checkpoint. NAME ends at the first
          slash, so an absolute path follows two slashes.
        - "hf-hub:OWNER/NAME": a repository of the Hugging Face hub.
        - "local-dir:PATH": a directory with ``open_clip_config.json`` and the weights.
    projected : bool, default=True
        Whether features are in the space that images and texts share. False gives the tower's own
        pooled features, before the projection.

    Notes
    -----
    Images are read by open_clip's own evaluation transform, and texts by the model's tokenizer.
    Features are not normalised. Checkpoints are read as safetensors, or with
    ``torch.load(..., weights_only=True)``, and code of a repository is never run. With the extra
    ``onnx``, many rows run in ONNX Runtime on a CPU. The features agree to 1e-3.

    If a tower is a transformer of open_clip, its layer 0 are the embeddings, and k is the output
    of its k-th block: the mean over the tokens.

    Examples
    --------
    >>> from sk_aft.backbones import OpenClipBackbone
    >>> OpenClipBackbone("ViT-B-32/laion2b_s34b_b79k")
    <OpenClipBackbone 'ViT-B-32'>
    """

    batch_size = 32

    def __init__(self, name: str, *, projected: bool = True) -> None:
        self.model_name, self.pretrained = _parsed(name)
        self.projected = projected
        self.name = Path(self.model_name.partition(":")[2] or self.model_name).name

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the weights, and the configuration and the preprocessing."""
        return {
            "type": "open_clip",
            "model": self.configuration,
            "preprocessing": self._preprocessing(),
            "projected": self.projected,
            "dtype": "float32",
            **self._weights(),
        }

    @property
    def licence(self) -> str | None:
        """What the model card says that was downloaded or is in the directory."""
        if self.model_name.startswith(_DIRECTORY):
            return licence_of_files(self.model_name.removeprefix(_DIRECTORY))
        repository = self._repository()
        return None if repository is None else licence_of_files(repository)

    @property
    def n_features_out(self) -> int | None:
        """Width of the shared space; unknown without the projection."""
        return self.configuration["embed_dim"] if self.projected else None

    @cached_property  # the hub may be slow to answer
    def configuration(self) -> dict[str, Any]:
        """The architecture as open_clip describes it; checks name and tag.

        Raises
        ------
        ImportError
            If the extra ``open_clip`` is not installed.
        ValueError
            If open_clip knows no such model or tag, and there are no such files, or if the
            configuration asks for code of a repository.
        """
        configuration = self._read_configuration()
        _check_tokenizer_settings(self.model_name, configuration)
        return configuration

    def _read_configuration(self) -> dict[str, Any]:
        package = _open_clip()
        if self.model_name.startswith(_HUB):
            repository = self.model_name.removeprefix(_HUB)
            return load_from_hub(repository, partial(_configuration_on_hub, repository))
        if self.model_name.startswith(_DIRECTORY):
            file = Path(self.model_name.removeprefix(_DIRECTORY), _CONFIGURATION)
            if not file.is_file():
                raise ValueError(f"There is no {str(file)!r}, which {_DIRECTORY!r} has to contain.")
        elif self.model_name not in package.list_models():
            near = _closest(self.model_name, package.list_models())
            raise ValueError(f"open_clip has no model {self.model_name!r}.{near}")
        elif not self._tag() and not os.path.isfile(self.pretrained):
            tags = package.list_pretrained_tags_by_model(self.model_name)
            raise ValueError(
                f"{self.pretrained!r} is neither a file nor a tag of {self.model_name!r} in "
                f"open_clip.{_closest(self.pretrained, tags)} Its tags are {', '.join(tags)}."
                if tags
                else f"{self.pretrained!r} is not a file, and open_clip has no weights of "
                f"{self.model_name!r}: give the path of a checkpoint after the first slash."
            )
        return package.get_model_config(self.model_name)

    def of_kind(self, kind: str) -> Backbone:
        """Return the tower that reads images or texts, with its layers."""
        if kind not in _TOWERS:
            raise ValueError(f"{self.name} reads images or texts, but the rows are of kind {kind}.")
        return _TOWERS[kind](self)

    def check_rows(self, rows: Rows, names: Any) -> None:
        """Raise if rows are neither pictures nor texts, or if there is no such model."""
        self.of_kind(rows.kind).check_rows(rows, names)

    def load(self, device: torch.device) -> _Loaded:
        """Load both towers, the transform and the tokenizer."""
        self._weights()  # an error of the hub that says what to do
        package = _open_clip()
        tokenizer = self._tokenizer()  # before the weights: it may need code
        # Weights are random before they are loaded.
        with _only_tensors(), torch.random.fork_rng(devices=[]):
            model, transform = package.create_model_from_pretrained(
                self.model_name,
                self.pretrained or None,
                device=device,
                precision="fp32",
                weights_only=True,
            )
        if not self.projected:
            _remove_projections(model)
        mask = _mask_of_texts(self.configuration["text_cfg"], tokenizer)
        return _Loaded(
            _network(self.of_kind("image"), _ImageTower.module(model), None, device),
            _network(self.of_kind("text"), _TextTower.module(model), mask, device),
            transform,
            tokenizer,
        )

    def embed(self, rows: Rows, *, batch_size: int, device: torch.device) -> np.ndarray:
        """Return the features of the tower for such rows."""
        return self.of_kind(rows.kind).embed(rows, batch_size=batch_size, device=device)

    def note(self, rows: Rows) -> str | None:
        """Say how many texts were truncated."""
        return self.of_kind(rows.kind).note(rows)

    def _tokenizer(self) -> Any:
        """Return the tokenizer; raise if it or the model of texts needs code of a repository."""
        settings = self.configuration["text_cfg"]
        trust = {"trust_remote_code": False} if settings.get("hf_tokenizer_name") else {}
        try:
            if settings.get("hf_model_name"):
                model_class(load_config(settings["hf_model_name"]))  # open_clip would ask the user
            return _open_clip().get_tokenizer(self.model_name, **trust)
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ValueError(
                f"Cannot use the foundation model {self.model_name!r}: {NEEDS_CODE}"
            ) from error

    def _tag(self) -> dict[str, Any]:
        """Return what open_clip knows of the tag, nothing if it is none."""
        return _open_clip().get_pretrained_cfg(self.model_name, self.pretrained)

    def _repository(self) -> str | None:
        """Return the repository of the hub that the weights come from."""
        if self.model_name.startswith(_HUB):
            return self.model_name.removeprefix(_HUB)
        return os.path.dirname(self._tag().get("hf_hub", "")) or None

    def _weights(self) -> dict[str, Any]:
        """Return what identifies the weights; raise if they are known not to be there."""
        _ = self.configuration  # checks the name
        if self.model_name.startswith(_DIRECTORY):
            return {"files": directory_digest(self.model_name.removeprefix(_DIRECTORY))}
        repository = self._repository()
        if repository is not None:
            revision = load_from_hub(repository, partial(_revision, repository))
            return {"name": repository, "tag": self.pretrained, "revision": revision}
        url = self._tag().get("url")
        return {"url": url} if url else {"files": directory_digest(self.pretrained)}

    def _preprocessing(self) -> dict[str, Any] | None:
        """Return the settings of a tag; those of a repository or directory are in its files."""
        if not self.pretrained:
            return None
        transform = import_module("open_clip.transform")
        settings = transform.merge_preprocess_dict(transform.PreprocessCfg(), self._tag())
        del settings["size"]  # the model's configuration has it
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in settings.items()
        }


class _Loaded(NamedTuple):
    """A loaded model."""

    image: Network
    text: Network
    transform: Callable[[Any], Tensor]
    tokenizer: Any


class _Tower(LayeredModel):
    """One tower of a model, which is loaded once for both."""

    kind: str

    def __init__(self, model: OpenClipBackbone) -> None:
        self.model = model
        self.name = model.name

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the configuration says of the tower, with its number of layers and their width.

        Without layers, these two are left out.
        """

    def fingerprint(self) -> dict[str, Any]:
        return {**self.model.fingerprint(), "tower": self.kind}

    @property
    def licence(self) -> str | None:
        return self.model.licence

    @property
    def n_features_out(self) -> int | None:
        return self.model.n_features_out

    @property
    def n_layers(self) -> int | None:
        return self.settings.get("layers")

    def layer_width(self, layer: int) -> int:
        del layer  # all layers have the same
        return self.settings["width"]

    def prepare(self, device: torch.device) -> None:
        self.model.prepare(device)

    def unload(self) -> None:
        self.model.unload()


class _ImageTower(_Tower, ImageBackbone):
    kind = "image"

    @property
    def settings(self) -> dict[str, Any]:
        settings = {"layers": 12, "width": 768, **self.model.configuration["vision_cfg"]}
        has_layers = "timm_model_name" not in settings and isinstance(settings["layers"], int)
        return settings if has_layers else _without_layers(settings)

    def check_rows(self, rows: Rows, names: Any) -> None:
        super().check_rows(rows, names)
        settings = self.model.configuration["vision_cfg"]
        is_resnet = isinstance(settings.get("layers"), list)
        pools = settings.get("timm_pool") in ("abs_attn", "rot_attn")
        is_inseparable = is_resnet or (pools and not settings.get("timm_proj", "linear"))
        if is_inseparable and not self.model.projected:
            raise ValueError(
                f"{self.name} pools and projects images in one layer, so there are no features "
                "before the projection: use projected=True."
            )

    def load(self, device: torch.device) -> Network:
        return self.model.loaded(device).image

    loaded = load

    @staticmethod
    def module(model: nn.Module) -> nn.Module:
        return _Encoder(model, "encode_image", getattr(model.visual, "transformer", None))

    def to_tensor(self, rows: Rows, indices: Sequence[int]) -> Tensor:
        transform = self.model._loaded[1].transform
        for row in indices:
            self.check_array(rows, row)
        return torch.stack([transform(pil_image(rows, row)) for row in indices])


class _TextTower(_Tower):
    kind = "text"
    batch_size = 128

    @property
    def settings(self) -> dict[str, Any]:
        settings = {"layers": 12, "width": 512, **self.model.configuration["text_cfg"]}
        return _without_layers(settings) if "hf_model_name" in settings else settings

    def check_rows(self, rows: Rows, names: Any) -> None:
        _ = self.model.configuration  # checks the name

    @staticmethod
    def module(model: nn.Module) -> nn.Module:
        transformer = getattr(getattr(model, "text", model), "transformer", None)
        return _Encoder(model, "encode_text", transformer)

    def run(
        self, rows: Rows, layers: Sequence[int], batch_size: int, device: torch.device
    ) -> np.ndarray:
        """Run the tower on the texts, batch by batch."""
        loaded = self.model.loaded(device)
        network, tokenize = loaded.text.of_layers(layers), loaded.tokenizer
        texts = list(rows.values)
        network.export(len(texts), lambda: (tokenize(texts[:4]),))
        step = batch_size if network.session is None else min(batch_size, _TEXTS_PER_CORE)
        batches: Iterator[tuple[Tensor]] = (
            (tokenize(texts[start : start + step]),) for start in range(0, len(texts), step)
        )
        return np.concatenate(list(network.run(batches)))

    def note(self, rows: Rows) -> str | None:
        if self.model._loaded is None:
            return None
        tokenizer = self.model._loaded[1].tokenizer
        # open_clip's own tokenizer, or one that holds one of transformers.
        whole = getattr(tokenizer, "tokenizer", None) or _WholeTexts(tokenizer)
        remedy = "use a model with a larger context_length"
        return truncation_note(rows.values, whole, tokenizer.context_length, remedy)


_TOWERS: dict[str, Callable[[OpenClipBackbone], _Tower]] = {
    "image": _ImageTower,
    "text": _TextTower,
}


class _WholeTexts:
    """open_clip's own tokenizer without truncation, called as those of transformers are."""

    model_input_names = ("input_ids",)

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        start, end = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        return {"input_ids": [[start, *self.tokenizer.encode(text), end] for text in texts]}


class _Encoder(nn.Module):
    """A tower's own features."""

    def __init__(self, model: nn.Module, method: str, transformer: nn.Module | None) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.transformer = transformer

    def forward(self, inputs: Tensor) -> Tensor:
        return getattr(self.model, self.method)(inputs, normalize=False)


class _EncoderLayers(nn.Module):
    """The mean over the tokens of several layers; the last is the tower's own features."""

    def __init__(
        self, encoder: Any, mask: _Mask | None, n_layers: int | None, layers: Sequence[int]
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.mask = mask
        self.n_layers = n_layers
        self.layers = layers

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        transformer = self.encoder.transformer
        mask = None if self.mask is None else self.mask(inputs)
        means: dict[int, Tensor] = {}

        def keep(layer: int, _: nn.Module, read: tuple[Tensor, ...]) -> None:
            hidden = read[0] if transformer.batch_first else read[0].transpose(0, 1)
            if mask is None:
                means[layer] = hidden.mean(dim=1)
            else:  # CoCa appends a token of its own
                means[layer] = mean_over_tokens(hidden[:, : mask.shape[1]], mask)

        with one_at_a_time(transformer):
            # A layer's output is what the next block reads.
            hooks = [
                transformer.resblocks[layer].register_forward_pre_hook(partial(keep, layer))
                for layer in self.layers
                if layer != self.n_layers
            ]
            try:
                last = self.encoder(inputs)
            finally:
                for hook in hooks:
                    hook.remove()
        return tuple(last if layer == self.n_layers else means[layer] for layer in self.layers)


def _network(
    tower: Backbone, encoder: nn.Module, mask: _Mask | None, device: torch.device
) -> Network:
    return Network(
        encoder,
        device,
        n_rows_worth_export=_ROWS_WORTH_EXPORT,
        select=partial(_EncoderLayers, encoder, mask, tower.n_layers),
        n_layers=tower.n_layers,
    )


def _mask_of_texts(settings: dict[str, Any], tokenizer: Any) -> _Mask:
    """Return a function from token ids (n, n_tokens) to those that belong to the texts."""
    if settings.get("pool_type", "argmax") == "argmax":
        return _until_the_end
    of_transformers = getattr(tokenizer, "tokenizer", None)
    padding = getattr(of_transformers, "pad_token_id", None) or settings.get("pad_id", 0)
    return lambda tokens: tokens != padding


def _until_the_end(tokens: Tensor) -> Tensor:
    # The token of the end has the largest number. 0, the padding, is also a token.
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    return positions <= tokens.argmax(dim=1, keepdim=True)


def _remove_projections(model: Any) -> None:
    """Let both towers return what they would project; those of `check_rows` are left."""
    visual, text = model.visual, getattr(model, "text", model)
    if hasattr(visual, "trunk"):  # a model of timm
        if len(visual.head):
            for name in {"proj", "mlp"} & set(visual.head._modules):
                setattr(visual.head, name, nn.Identity())
        else:  # its classifier projects
            visual.trunk.reset_classifier(0)
    elif hasattr(visual, "proj"):
        visual.proj = None
    if hasattr(text, "text_projection"):
        text.text_projection = None
    else:  # a model of transformers
        text.proj = nn.Identity()


def _without_layers(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in ("layers", "width")}


def _parsed(name: str) -> tuple[str, str]:
    """Return the name of a model, and its tag or checkpoint."""
    if name.startswith((_HUB, _DIRECTORY)):
        return name, ""
    model, _, pretrained = name.partition("/")
    if not (model and pretrained):
        raise ValueError(
            f"open_clip:{name}: expected open_clip:NAME/PRETRAINED, such as "
            "'open_clip:ViT-B-32/laion2b_s34b_b79k', where PRETRAINED is a tag of open_clip or "
            f"the path of a checkpoint; or 'open_clip:{_HUB}OWNER/NAME', or "
            f"'open_clip:{_DIRECTORY}PATH'."
        )
    return model, pretrained


def _closest(name: str, known: Sequence[str]) -> str:
    lower = {candidate.lower(): candidate for candidate in known}
    near = [lower[match] for match in get_close_matches(name.lower(), lower, n=5)]
    return f" Did you mean {', '.join(map(repr, near))}?" if near else ""


def _open_clip() -> Any:
    return import_optional("open_clip", extra="open-clip", purpose="models of open_clip")


@contextmanager
def _only_tensors() -> Iterator[None]:
    """Let `torch.load` read nothing but tensors, whatever the default of this version is.

    After a TypeError, which a file can cause, open_clip loads it again without ``weights_only``.
    """
    settings = {_FORCE_TENSORS: "1", _FORCE_ANYTHING: None}
    with one_at_a_time(os.environ):
        before = {name: os.environ.get(name) for name in settings}
        _set_environment(settings)
        try:
            yield
        finally:
            _set_environment(before)


def _set_environment(settings: dict[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _check_tokenizer_settings(name: str, configuration: dict[str, Any]) -> None:
    settings = configuration.get("text_cfg", {}).get("tokenizer_kwargs") or {}
    fault = f"Cannot use the foundation model {name!r}: text_cfg.tokenizer_kwargs has"
    if settings.get("trust_remote_code"):
        raise ValueError(f"{fault} 'trust_remote_code': {NEEDS_CODE}")
    unknown = [key for key in settings if key not in _TOKENIZER_SETTINGS]
    if unknown:
        raise ValueError(
            f"{fault} {unknown[0]!r}, which may make transformers run code of a repository: "
            f"expected some of {list(_TOKENIZER_SETTINGS)}. Code of a repository is never run. "
            "Load the model yourself and give a function from a batch of rows to an (n, d) array "
            "as the model."
        )


def _configuration_on_hub(repository: str, *, local_files_only: bool) -> dict[str, Any]:
    del local_files_only  # open_clip looks into the cache if there is no connection
    return _open_clip().get_model_config(f"{_HUB}{repository}")


def _revision(repository: str, *, local_files_only: bool) -> str:
    """Return the commit of a repository on the hub, or of its files in the cache."""
    hub = import_module("huggingface_hub")
    snapshot = hub.snapshot_download(
        repository, allow_patterns=["*.json", "*.md"], local_files_only=local_files_only
    )
    return Path(snapshot).name
