import hashlib
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

from vae_lab.data.frey_face import FILE_SHA256, FreyFace


def frey_face(root: Any, common: dict[str, Any], split: str = "random", validation_size: int = 0) -> FreyFace:
    return FreyFace(root=str(root), split=split, validation_size=validation_size, **common)


def write(root: Path, **variables: np.ndarray) -> Path:
    path = root / "FreyFace" / "frey_rawface.mat"
    path.parent.mkdir(parents=True)
    scipy.io.savemat(path, variables)
    return path


def test_the_download_checksum_is_that_of_the_real_file(real_root):
    content = (Path(real_root) / "FreyFace" / "frey_rawface.mat").read_bytes()
    assert hashlib.sha256(content).hexdigest() == FILE_SHA256


@pytest.mark.parametrize("split", ["random", "blocked"])
@pytest.mark.parametrize("validation_size", [0, 200])
def test_frey_face_keeps_the_contract(real_root, common, check_contract, split, validation_size):
    sizes = {"train": 1600 - validation_size, "val": validation_size, "test": 365}
    sizes = {name: size for name, size in sizes.items() if size}
    check_contract(lambda: frey_face(real_root, common, split, validation_size), sizes, labelled=set())


def test_a_column_is_a_frame_over_256(real_root, common):
    data = frey_face(real_root, common)
    columns = scipy.io.loadmat(Path(real_root) / "FreyFace" / "frey_rawface.mat")["ff"]
    train = data.splits["train"]
    frame = columns[:, int(train.indices[3])].reshape(28, 20)
    assert torch.equal(train.images[3, 0] * 256, torch.from_numpy(frame).float())
    assert data.scale == "x/256"
    # neighbouring pixels resemble each other only if rows and columns are not mixed up
    assert train.images.diff(dim=2).abs().mean() < 0.1 and train.images.diff(dim=3).abs().mean() < 0.1


def test_validation_is_carved_out_of_train_alone(real_root, common):
    whole, carved = (frey_face(real_root, common, validation_size=size).splits for size in (0, 200))
    assert torch.equal(torch.cat([carved["train"].indices, carved["val"].indices]), whole["train"].indices)
    assert torch.equal(carved["test"].indices, whole["test"].indices)


def test_blocked_splits_by_time(real_root, common):
    data = frey_face(real_root, common, split="blocked")
    assert torch.equal(data.splits["test"].indices, torch.arange(1600, 1965))
    assert data.split_hash != frey_face(real_root, common).split_hash


def gaussian_bound(data: FreyFace) -> float:
    train, test = (data.splits[name].images.double().flatten(1) for name in ("train", "test"))
    return float(torch.distributions.Normal(train.mean(0), train.std(0)).log_prob(test).sum(1).mean())


def test_a_constant_gaussian_scores_what_is_known_of_the_two_splits(real_root, common):
    assert abs(gaussian_bound(frey_face(real_root, common, split="blocked")) - 552) < 1
    assert abs(gaussian_bound(frey_face(real_root, common)) - 576) < 10


def test_offline_and_missing_says_what_to_do(common, tmp_path, monkeypatch):
    monkeypatch.setattr("vae_lab.data.frey_face.URL", "file:///nowhere/frey_rawface.mat")
    with pytest.raises(FileNotFoundError) as caught:
        _ = frey_face(tmp_path, common).splits
    for needed in (str(tmp_path / "FreyFace/frey_rawface.mat"), "file:///nowhere", f"sha256 {FILE_SHA256}"):
        assert needed in str(caught.value)


def test_a_missing_file_is_downloaded(real_root, common, tmp_path, monkeypatch):
    source = Path(real_root).resolve() / "FreyFace" / "frey_rawface.mat"
    monkeypatch.setattr("vae_lab.data.frey_face.URL", source.as_uri())
    assert len(frey_face(tmp_path, common).splits["train"]) == 1600
    assert (tmp_path / "FreyFace" / "frey_rawface.mat").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("keep", [0, 1, 100, 200, 5_000, 900_000])
def test_a_truncated_file_is_named(real_root, common, tmp_path, keep):
    content = (Path(real_root) / "FreyFace" / "frey_rawface.mat").read_bytes()
    path = write(tmp_path, ff=np.zeros(1))
    path.write_bytes(content[:keep])
    with pytest.raises(ValueError, match=r"frey_rawface\.mat is truncated, corrupt"):
        _ = frey_face(tmp_path, common).splits


@pytest.mark.parametrize("position", [126, 130, 140, 5_000, 500_000])
def test_a_corrupt_file_is_named(real_root, common, tmp_path, position):
    content = bytearray((Path(real_root) / "FreyFace" / "frey_rawface.mat").read_bytes())
    content[position] ^= 0xFF
    path = write(tmp_path, ff=np.zeros(1))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"frey_rawface\.mat is truncated, corrupt"):
        _ = frey_face(tmp_path, common).splits


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ff": np.zeros((560, 1964), np.uint8)}, r"ff is \(560, 1964\) uint8, expected \(560, 1965\) uint8"),
        ({"ff": np.zeros((560, 1965))}, r"ff is \(560, 1965\) float64"),
        ({"ff": np.zeros((560, 1965), np.uint8)}, "SHA-256"),
        ({"faces": np.zeros((560, 1965), np.uint8)}, "holds no variable ff"),
    ],
)
def test_another_file_is_named_with_what_is_wrong(common, tmp_path, variables, message):
    write(tmp_path, **variables)
    with pytest.raises(ValueError, match=rf"frey_rawface\.mat is .*{message}"):
        _ = frey_face(tmp_path, common).splits


def test_impossible_keys_are_refused_before_loading(common):
    with pytest.raises(ValueError, match=r"data\.split must be one of random, blocked, got 'block'.*blocked\?"):
        frey_face("nowhere", common, split="block")
    with pytest.raises(ValueError, match=r"data\.validation_size must be an integer in 0 \.\.\. 1599"):
        frey_face("nowhere", common, validation_size=1600)
    with pytest.raises(ValueError, match=r"data\.train_size must be <= 1400, got 1500"):
        frey_face("nowhere", common | {"train_size": 1500}, validation_size=200)


@pytest.mark.parametrize("ratio", [2**26, 2**24])
def test_a_file_that_unpacks_to_more_than_faces_is_refused(tmp_path, common, ratio):
    path = write(tmp_path, ff=np.zeros((560, 1965), np.uint8))
    packed = zlib.compress(bytes(ratio))
    path.write_bytes(path.read_bytes()[:128] + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(ValueError, match=r"frey_rawface\.mat is truncated.*it has more than 16,777,216 bytes"):
        _ = frey_face(tmp_path, common).splits
