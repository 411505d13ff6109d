import hashlib
from pathlib import Path

import pytest

from vae_lab.data.files import download, require_published, root_folder

CONTENT = b"published"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def url(tmp_path: Path) -> str:
    source = tmp_path / "server" / "file"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    return source.as_uri()


def test_a_download_is_verified_and_complete(tmp_path, url):
    path = tmp_path / "root" / "Set" / "file"
    assert download(path, urls=["file:///nowhere", url], algorithm="sha256", checksum=SHA256) == path
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_other_bytes_are_not_stored(tmp_path, url):
    path = tmp_path / "root" / "Set" / "file"
    with pytest.raises(FileNotFoundError, match=f"delivered other bytes, md5 {hashlib.md5(CONTENT).hexdigest()}"):
        download(path, urls=[url], algorithm="md5", checksum="0" * 32)
    assert not path.parent.exists()


def test_offline_names_file_place_source_checksum_and_remedy(tmp_path):
    path = tmp_path / "Set" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        download(path, urls=["file:///nowhere/a", "file:///nowhere/b"], algorithm="md5", checksum="0f1e")
    for needed in (
        str(path),
        "file:///nowhere/a",
        "file:///nowhere/b",
        "md5 0f1e",
        "data.root",
        "VAE_LAB_DATA",
    ):
        assert needed in str(caught.value)


def test_a_crash_while_writing_leaves_nothing(tmp_path, url, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    path = tmp_path / "Set" / "file"
    with pytest.raises(FileNotFoundError, match="cannot be stored: disk full"):
        download(path, urls=[url], algorithm="sha256", checksum=SHA256)
    assert list(path.parent.iterdir()) == []


def test_require_published_compares_the_content(tmp_path):
    require_published(tmp_path / "file", CONTENT, SHA256)
    with pytest.raises(ValueError, match=r"file is truncated, corrupt or of the wrong kind .*SHA-256"):
        require_published(tmp_path / "file", b"other", SHA256)


def test_the_root_is_a_folder_with_the_users_home_expanded():
    assert root_folder("~/data") == Path.home() / "data"
    with pytest.raises(ValueError, match=r"data\.root must name a folder"):
        root_folder("")
