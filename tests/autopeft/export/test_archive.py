"""An export as an archive: the folder's files, the same bytes every time, whole or not at all."""

import io
import zipfile

import pytest

from autopeft.errors import ConfigurationError, ExportError
from autopeft.export.archive import names_in, publish_archive, zip_bytes
from autopeft.export.folder import MARKER, publish


def build(folder):
    (folder / "README.md").write_text("card")
    (folder / "deep").mkdir()
    (folder / "deep" / "adapter.bin").write_bytes(bytes(range(256)))
    (folder / MARKER).write_text("{}")


def test_the_same_files_make_the_same_bytes(tmp_path):
    first = publish_archive(build, tmp_path / "a" / "seven.zip", overwrite=False)
    second = publish_archive(build, tmp_path / "b" / "seven.zip", overwrite=False)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in first.parent.iterdir()) == ["seven.zip"]


def test_it_holds_what_a_folder_would(tmp_path):
    build(tmp_path)
    with zipfile.ZipFile(io.BytesIO(zip_bytes(tmp_path, "seven"))) as opened:
        held = {name: opened.read(name) for name in opened.namelist()}
    assert held == {
        f"seven/{path.relative_to(tmp_path)}": path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }


def test_names_are_told_without_the_folder(tmp_path):
    assert names_in(publish_archive(build, tmp_path / "x.zip", overwrite=False)) == [
        "README.md",
        "deep/adapter.bin",
        MARKER,
    ]


def test_an_earlier_export_is_replaced_only_when_asked(tmp_path):
    output = publish_archive(build, tmp_path / "x.zip", overwrite=False)
    with pytest.raises(ConfigurationError, match="--overwrite"):
        publish_archive(build, output, overwrite=False)
    publish_archive(build, output, overwrite=True)


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_a_place_that_cannot_be_written_is_bad_input(tmp_path, name):
    (tmp_path / "file").write_text("no folder")
    put = publish_archive if name.endswith(".zip") else publish
    with pytest.raises(ConfigurationError, match=f"file/{name}: cannot be written: "):
        put(lambda _folder: None, tmp_path / "file" / name, overwrite=False)


def test_what_is_no_export_is_never_replaced(tmp_path):
    (tmp_path / "x.zip").write_text("mine")
    with pytest.raises(ConfigurationError, match="no earlier export"):
        publish_archive(build, tmp_path / "x.zip", overwrite=True)
    (tmp_path / "y.zip").symlink_to(tmp_path / "x.zip")
    with pytest.raises(ConfigurationError, match="no earlier export"):
        publish_archive(build, tmp_path / "y.zip", overwrite=True)
    assert (tmp_path / "x.zip").read_text() == "mine"


def test_a_builder_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        build(folder)
        raise ExportError("verification failed")

    with pytest.raises(ExportError, match="verification failed"):
        publish_archive(fail, tmp_path / "x.zip", overwrite=False)
    assert list(tmp_path.iterdir()) == []
