"""Other files that are given in place of a checkpoint: each error is one line that says what the file is."""

import gzip
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from dlink.nets.checkpoint import read_checkpoint
from dlink.nets.zoo import build
from dlink.runtime import BadModel, Spec
from tests.support.models import write_pointwise

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 124446016\n"


def zipped(path, names):
    with ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 10)


def scripted(path):
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 1, 1), torch.zeros(1, 3, 4, 4)), path)


def exported(path):
    torch.export.save(torch.export.export(torch.nn.Conv2d(3, 1, 1), (torch.zeros(1, 3, 4, 4),)), path)


KINDS = {
    "empty": (lambda p: p.write_bytes(b""), "it is empty: copy or download it again"),
    "lfs": (lambda p: p.write_bytes(LFS), "a Git LFS pointer, not the file itself; `git lfs pull` fetches it"),
    "html": (
        lambda p: p.write_text("\n<!DOCTYPE html><html>Sign in"),
        "a web page, not a checkpoint; the download failed",
    ),
    "text": (
        lambda p: p.write_text("epoch 1 loss 0.5\n" * 200),
        "a text file, not a checkpoint; it begins with 'epoch 1",
    ),
    "short": (lambda p: p.write_text("Straße: 7\n"), "a text file, not a checkpoint; it begins with 'Straße: 7': name"),
    "keras": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90)), "an HDF5 file, as Keras writes them"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"x" * 99)), "compressed by gzip; unpack it first"),
    "onnx": (lambda p: write_pointwise(p, Spec(tile=32)), "an ONNX file, not a checkpoint; give it the name .onnx"),
    "zip": (lambda p: zipped(p, ["a/net.th", "a/log.txt"]), r"a zip of other files \(a/net.th, a/log.txt\); unpack it"),
    "nothing": (lambda p: zipped(p, ["x"] * 1), r"a zip of other files \(x\); unpack it, and name the checkpoint"),
    "jit": (scripted, "a TorchScript archive, not a checkpoint; net = torch.jit.load"),
    "pt2": (exported, r"an exported program \(.pt2\), not a checkpoint; net = torch.export.load"),
    "png": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50)), "a PNG picture, not a checkpoint"),
}


FILES = [(kind, "net.pth") for kind in KINDS] + [(kind, "net.safetensors") for kind in ("empty", "lfs", "html", "zip")]


@pytest.mark.parametrize(("kind", "name"), FILES)
@pytest.mark.filterwarnings("ignore")
def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path, kind, name):
    write, message = KINDS[kind]
    write(tmp_path / name)
    with pytest.raises(BadModel, match=f"{name}: .*{message}") as e:
        read_checkpoint(tmp_path / name)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_save_writes_is_no_other_kind(tmp_path, legacy):
    net = build("unet", 0.125)
    torch.save(net.state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    assert read_checkpoint(tmp_path / "net.pth").arch == "unet"


def test_random_bytes_are_no_checkpoint(tmp_path):
    for seed in range(50):
        (tmp_path / "net.pth").write_bytes(np.random.default_rng(seed).bytes(2000))
        with pytest.raises(BadModel, match="net.pth") as e:
            read_checkpoint(tmp_path / "net.pth")
        assert "\n" not in str(e.value)
