import pickle
import re
import warnings
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from safetensors.torch import save_file

from dlink.nets.checkpoint import read_checkpoint, write_checkpoint
from dlink.nets.keys import outline
from dlink.nets.zoo import ARCHS, build
from dlink.runtime.errors import BadInput, BadModel
from tests.support.models import shared

WIDTH = 0.125


@pytest.fixture
def net():
    torch.manual_seed(0)
    return build("dlinknet34", WIDTH).eval()


def same(a, b):
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("width", [0.125, 0.25])
def test_network_and_width_are_read_from_keys_and_shapes(tmp_path, arch, width):
    path = tmp_path / "net.th"
    write_checkpoint(build(arch, width), path)
    found = read_checkpoint(path)
    alike = "pplinknet34-psp64" if arch.startswith("pplinknet34") else arch  # the same keys and shapes
    assert (found.arch, found.width) == (alike, width)
    assert read_checkpoint(path, arch).arch == arch


def authors(state):
    return {f"module.{k}": v for k, v in state.items()}


@pytest.mark.parametrize(
    "form",
    [
        lambda s: s,
        authors,
        lambda s: {"state_dict": authors(s), "epoch": 7, "lr": 2e-4},
        lambda s: {"model_state_dict": s, "optimizer": {"a": 1}},
        lambda s: {k: v for k, v in authors(s).items() if "num_batches" not in k},
    ],
    ids=["plain", "authors", "nested", "other-nest", "without-counters"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_forms_of_state_dict(tmp_path, net, form, legacy):
    path = tmp_path / "net.pth"
    torch.save(form(net.state_dict()), path, _use_new_zipfile_serialization=not legacy)
    assert same(read_checkpoint(path).net, net)


def test_safetensors(tmp_path, net):
    path = tmp_path / "net.safetensors"
    save_file(net.state_dict(), path)
    assert same(read_checkpoint(path).net, net)


def test_float16_is_read_as_float32(tmp_path, net):
    path = tmp_path / "net.pt"
    write_checkpoint(net, path, half=True)
    read = read_checkpoint(path).net
    assert read.firstconv.weight.dtype == torch.float32
    torch.testing.assert_close(read.firstconv.weight, net.firstconv.weight.half().float())


def test_the_network_is_in_evaluation_mode(tmp_path, net):
    write_checkpoint(net, tmp_path / "net.th")
    assert not read_checkpoint(tmp_path / "net.th").net.training


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize("content", [{"a": Evil()}, Evil()])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys, content):
    path = tmp_path / "evil.th"
    torch.save(content, path)
    with pytest.raises(
        BadModel, match=r"evil.th: refused, its pickle holds more than tensors and could run code; save"
    ):
        read_checkpoint(path)
    assert "this ran" not in capsys.readouterr().out


def test_a_whole_pickled_module_is_refused(tmp_path, net):
    path = tmp_path / "module.th"
    torch.save(net, path)
    with pytest.raises(BadModel, match="could run code; save `net.state_dict"):
        read_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_one_line(tmp_path, net, legacy, share):
    path = tmp_path / "cut.th"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(BadModel, match="cut.th: not a checkpoint, or a damaged one") as e:
        read_checkpoint(path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["x.th", "x.safetensors", "x.pt"])
@pytest.mark.parametrize("content", [b"hello" * 100, b"PK\x03\x04" + b"\0" * 64, b"\x80\x02}."])
def test_a_foreign_file_is_one_line(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadModel, match=name) as e:
        read_checkpoint(path)
    assert "\n" not in str(e.value)


def test_a_plain_pickle_is_refused(tmp_path):
    path = tmp_path / "plain.th"
    path.write_bytes(pickle.dumps({"firstconv.weight": [1, 2]}, protocol=2))
    with pytest.raises(BadModel, match="plain.th"):
        read_checkpoint(path)


def change(tmp_path, net, edit):
    state = dict(net.state_dict())
    edit(state)
    torch.save(state, tmp_path / "net.th")
    return tmp_path / "net.th"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("encoder2.0.conv1.weight"), "1 missing: encoder2.0.conv1.weight; is it another network"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 unexpected: extra;"),
        (
            lambda s: s.update({"finalconv3.weight": torch.zeros(2, 4, 3, 3)}),
            r"1 misshapen: finalconv3.weight \(2, 4, 3, 3\) for \(1, 4, 3, 3\)",
        ),
        (lambda s: s.update({"firstbn.bias": torch.full((8,), torch.nan)}), "not finite: firstbn.bias; the training"),
        (lambda s: s.pop("firstconv.weight"), "no network that dlink knows: `firstconv.weight` is missing"),
        (lambda s: s.update(note="hello"), "not a state_dict: note is not a tensor"),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("decoder")],
            "missing: decoder4.conv1.weight, .* and 68 more",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_names_the_keys(tmp_path, net, edit, message):
    with pytest.raises(BadModel, match=message) as e:
        read_checkpoint(change(tmp_path, net, edit))
    assert "\n" not in str(e.value)


KEY = "encoder1.0.conv1.weight"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda w: w.to(torch.float8_e4m3fn),
            "float8_e4m3fn in KEY; weights are float32, .* that the network was trained",
        ),
        (
            lambda w: w.to(torch.float8_e5m2),
            "float8_e5m2 in KEY; weights are float32, float16, bfloat16 or float64: save",
        ),
        (lambda w: w.to(torch.complex64), "complex64 in KEY; weights are float32"),
        (lambda w: w.to(torch.int8), "int8 in KEY; weights are float32"),
        (lambda w: w.to(torch.int64), "int64 in KEY; weights are float32"),
        (lambda w: w.to(torch.bool), "bool in KEY; weights are float32"),
        (lambda w: w.double() * 1e300, "too large for float32: KEY; the training diverged, take an earlier checkpoint"),
        (
            lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
            r"KEY is quantised \(qint8\); save the network of",
        ),
        (lambda w: w.to_sparse(), r"KEY is sparse \(sparse_coo\); save {k: v.to_dense\(\)}"),
        (lambda w: w.flatten(1).to_sparse_csr(), r"KEY is sparse \(sparse_csr\); save {k: v.to_dense\(\)}"),
        (lambda w: w.flatten(1).to_sparse_bsr((2, 2)), r"KEY is sparse \(sparse_bsr\); save"),
        (lambda w: w.to("meta"), r"KEY has no values \(it is on the device meta\); save the network once its weights"),
        (lambda w: torch.nested.nested_tensor([w[0], w[1, :2]]), "KEY is a nested tensor; save `net.state_dict"),
        (
            lambda w: torch.zeros(1).expand(10**6, 10**6),
            r"its tensors claim 4\d{12} bytes of a file of \d+, KEY \(1000000, 1000000\) the most; .* save {k: v.clone",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")  # PyTorch calls most of these a prototype, in beta or deprecated
def test_tensors_of_other_kinds_are_refused_by_name(tmp_path, net, make, message):
    path = change(tmp_path, net, lambda s: s.update({KEY: make(s[KEY])}))
    with pytest.raises(BadModel, match=r"net.th: .*" + message.replace("KEY", KEY)) as e:
        read_checkpoint(path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int8", "bool", "complex64"])
def test_safetensors_of_other_kinds_are_refused_by_name(tmp_path, net, dtype):
    path = tmp_path / "net.safetensors"
    save_file({**net.state_dict(), KEY: net.state_dict()[KEY].to(getattr(torch, dtype))}, path)
    with pytest.raises(BadModel, match=f"net.safetensors: as dlinknet34 of width 0.125: {dtype} in {KEY}; weights are"):
        read_checkpoint(path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["net.th", "net.safetensors"])
def test_other_floats_are_read_as_float32(tmp_path, net, name, dtype):
    state = {k: v.to(dtype) for k, v in net.state_dict().items() if v.is_floating_point()}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    read = read_checkpoint(tmp_path / name).net
    assert read.firstconv.weight.dtype == torch.float32
    assert torch.equal(read.firstconv.weight, net.firstconv.weight.to(dtype).float())


@pytest.mark.parametrize("key", [3, ("a", 1)])
def test_keys_that_are_no_names_are_refused(tmp_path, net, key):
    path = change(tmp_path, net, lambda s: s.update({key: torch.zeros(1)}))
    with pytest.raises(
        BadModel, match=rf"net.th: not a state_dict: {re.escape(repr(key))} is not a name; save `net.state_dict\(\)`"
    ):
        read_checkpoint(path)


@pytest.mark.parametrize("channels", [1280, 1024, 10])
def test_a_width_that_the_file_does_not_hold_takes_no_memory(tmp_path, net, channels):
    first = torch.zeros(channels, 3, 7, 7, dtype=torch.float16)
    path = change(tmp_path, net, lambda s: s.update({"firstconv.weight": first}))
    words = f"firstbn.weight has 8 and firstconv.weight {channels}, where both have the same; take the file that"
    with pytest.raises(BadModel, match=f"net.th: as dlinknet34: its channels don't fit together: {words}"):
        read_checkpoint(path)


def test_a_whole_network_of_views_of_one_number_takes_no_memory(tmp_path):
    claims = {k: torch.zeros(()).expand(v.shape) for k, v in outline("dlinknet34", 16).state_dict().items()}
    torch.save(claims, tmp_path / "net.th")
    with pytest.raises(BadModel, match="its tensors claim 318.* bytes of a file of .*they are views of one another"):
        read_checkpoint(tmp_path / "net.th")


def test_a_compressed_zip_is_refused_before_it_is_unpacked(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "plain.th")
    with ZipFile(tmp_path / "plain.th") as plain, ZipFile(tmp_path / "net.th", "w", ZIP_DEFLATED) as packed:
        for record in plain.infolist():
            packed.writestr(record.filename, plain.read(record))
    with pytest.raises(BadModel, match=r"net.th: a compressed zip of \d+ bytes; load it and save"):
        read_checkpoint(tmp_path / "net.th")


def test_encoders_of_no_known_network_are_refused(tmp_path, net):
    path = change(tmp_path, net, lambda s: [s.pop(k) for k in list(s) if k.startswith("encoder4")])
    other = change(tmp_path, net, lambda s: [s.pop(k) for k in list(s) if k.startswith("encoder1.2")])
    with pytest.raises(BadModel, match="net.th"):
        read_checkpoint(path)
    with pytest.raises(BadModel, match=r"10 missing: encoder1.2.conv1.weight, .* and 6 more; is it another network"):
        read_checkpoint(other)


def test_arch_overrides_the_keys(tmp_path, net):
    write_checkpoint(net, tmp_path / "net.th")
    with pytest.raises(BadModel, match="as linknet34 of width 0.125: .*unexpected: dblock.dilate1.weight"):
        read_checkpoint(tmp_path / "net.th", "linknet34")
    with pytest.raises(BadInput, match="--arch resnet: not a network of dlink; there are dlinknet34, "):
        read_checkpoint(tmp_path / "net.th", "resnet")


def test_half_files_keep_variances_that_float16_could_not(tmp_path, net):
    net.firstbn.running_var.fill_(1e6)
    write_checkpoint(net, tmp_path / "net.th", half=True)
    assert read_checkpoint(tmp_path / "net.th").net.firstbn.running_var.eq(1e6).all()


def test_weights_too_large_for_float16_are_not_written_as_such(tmp_path, net):
    with torch.no_grad():
        net.firstconv.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(BadInput, match="too large for float16 in module.firstconv.weight; write float32"):
        write_checkpoint(net, tmp_path / "net.th", half=True)


def test_an_infinite_variance_is_taken_as_pytorch_takes_it(tmp_path, net, caplog):
    path = change(tmp_path, net, lambda s: s["firstbn.running_var"].fill_(torch.inf))
    read = read_checkpoint(path).net
    assert "infinite variance in firstbn.running_var" in caplog.text
    assert torch.isfinite(read(torch.zeros(1, 3, 32, 32))).all()


def test_the_authors_format_is_read():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = read_checkpoint(shared("checkpoints/dinknet34.th"))
    assert (found.arch, found.width) == ("dlinknet34", 1.0)
    assert found.sha256.startswith("aa35193d")
