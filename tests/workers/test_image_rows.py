"""Images from files to logits: the processor's own numbers, and a trial that learns."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from autopeft.adapters.models import load_image_processor, model_spec
from autopeft.errors import TaskError
from autopeft.tasks import Split
from workers.backbones import load_resident
from workers.evaluate import evaluate
from workers.images import encode_images

CPU = torch.device("cpu")
MEAN, SPREAD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """Folder of a tiny random ViT with its processor."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=8, initializer_range=0.2)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}, image_mean=MEAN, image_std=SPREAD).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Noisy images, red or blue, a folder each."""
    folder, generator = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (folder / name).mkdir()
        for number in range(20):
            pixels = generator.integers(0, 120, (20, 24, 3), dtype=np.uint8)
            pixels[..., channel] += 130
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_pixels_are_those_of_the_checkpoints_processor(vision, pictures):
    processor = load_image_processor(model_spec(str(vision), "stock"))
    files = sorted(map(str, (pictures / "red").iterdir()))[:3]
    rows = encode_images(processor, Split(tuple(files), None, (0, 1, 0), images=tuple(files)))
    inputs, labels = rows.batch(np.array([2, 0]), CPU)
    whole = processor([Image.open(files[2]), Image.open(files[0])], return_tensors="pt")["pixel_values"]
    assert (inputs["pixel_values"] - whole).abs().max() <= 1e-5
    assert labels.tolist() == [0, 0]
    assert rows.pixels.dtype == torch.uint8
    assert len(rows.take(np.array([1]))) == 1


def test_grey_images_and_bytes_are_read_too(vision, tmp_path):
    Image.new("L", (5, 5), 7).save(tmp_path / "grey.png")
    content = (tmp_path / "grey.png").read_bytes()
    processor = load_image_processor(model_spec(str(vision), "stock"))
    assert encode_images(processor, Split(("row 1",), None, (0,), images=(content,))).pixels.shape == (1, 3, 16, 16)
    with pytest.raises(TaskError, match="image row 1 cannot be read"):
        encode_images(processor, Split(("row 1",), None, (0,), images=(content[:20],)))


def test_a_vision_transformer_learns_two_colours(vision, pictures, make_study, make_order, tmp_path):
    study = make_study(vision, "stock", task=pictures)
    measurement = evaluate(make_order(study), load_resident(study, CPU), tmp_path)
    assert measurement.values["accuracy"] == 1.0
    assert len(measurement.correct) == 4
