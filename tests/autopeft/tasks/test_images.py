"""Image tasks: a folder for each class, paths in a column, and bytes through ``datasets``."""

import io

import pytest
from PIL import Image

from autopeft.errors import TaskError
from autopeft.tasks import TaskKind, TaskSpec, load_task


def picture(shade):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, 0, 255 - shade)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Ten images of two classes, a folder each."""
    for name, shade in (("dark", 10), ("light", 200)):
        (tmp_path / name).mkdir()
        for number in range(5):
            (tmp_path / name / f"{number}.png").write_bytes(picture(shade + number))
    return tmp_path


def test_a_folder_for_each_class_is_an_image_task(folder):
    task = load_task(TaskSpec(str(folder)))
    assert (task.kind, task.metric, task.label_names) == (TaskKind.IMAGE_CLASSIFICATION, "accuracy", ("dark", "light"))
    assert task.train.images == task.train.texts
    assert all(
        ("light" in path) == bool(label) for path, label in zip(task.train.images, task.train.labels, strict=True)
    )


def test_splits_are_folders_of_classes_too(folder):
    for split in ("train", "validation", "test"):
        for name in ("dark", "light"):
            (folder / split / name).mkdir(parents=True)
            for number in range(2):
                (folder / split / name / f"{number}.png").write_bytes(picture(number))
    task = load_task(TaskSpec(str(folder)))
    assert (len(task.train), len(task.validation), len(task.read_test())) == (4, 4, 4)


def test_paths_in_a_column_start_beside_the_data(folder, write):
    rows = [{"image": f"{name}/{number}.png", "label": name} for name in ("dark", "light") for number in range(5)]
    write(folder / "train.jsonl", rows)
    task = load_task(TaskSpec(str(folder)))
    assert task.kind is TaskKind.IMAGE_CLASSIFICATION
    assert all(path.startswith(str(folder)) for path in task.train.images)
    rows[3]["image"] = "dark/gone.png"
    write(folder / "train.jsonl", rows)
    with pytest.raises(TaskError, match=r"row 4 of train.jsonl: image is 'dark/gone.png'; expected the path"):
        load_task(TaskSpec(str(folder)))


def test_a_saved_data_set_brings_the_bytes(tmp_path):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "light"])})
    rows = {"image": [{"bytes": picture(n), "path": None} for n in range(20)], "label": [n % 2 for n in range(20)]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    task = load_task(TaskSpec(str(tmp_path / "saved")))
    assert task.kind is TaskKind.IMAGE_CLASSIFICATION
    assert task.label_names == ("dark", "light")
    assert isinstance(task.train.images[0], bytes)


def test_the_data_hash_follows_the_pixels_and_not_the_place(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / folder.name
    folder.rename(elsewhere)
    first = load_task(TaskSpec(str(elsewhere))).data_sha256
    elsewhere.rename(folder)
    assert load_task(TaskSpec(str(folder))).data_sha256 == first
    (folder / "dark" / "0.png").write_bytes(picture(99))
    assert load_task(TaskSpec(str(folder))).data_sha256 != first
