"""Checkpoints as training scripts, wrappers and frameworks write them."""

import os
import pickle
import sys
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import ModuleType, SimpleNamespace
from uuid import UUID

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dlink.nets.checkpoint import read_checkpoint
from dlink.nets.content import Ignored, load
from dlink.nets.zoo import build
from dlink.runtime.errors import BadInput, BadModel


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build("dlinknet34", 0.125).eval()


@pytest.fixture
def saved(tmp_path, net):
    """Saves what a function makes of the network's state_dict."""

    def save(make):
        torch.save(make(dict(net.state_dict())), tmp_path / "net.pth")
        return tmp_path / "net.pth"

    return save


def same(a, b):
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items())


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def moved(state):
    """Another network of the same shapes."""
    return {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}


PREFIXES = ["_orig_mod.", "model.", "net.", "module.module.", "module._orig_mod.", "my.own.wrapper_3."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_that_all_keys_share_is_taken_off_and_named(saved, net, prefix):
    path = saved(lambda s: under(prefix, s))
    read = read_checkpoint(path)
    assert same(read.net, net)
    assert read.notes == (f"{path}: the prefix {prefix} is taken off",)


@pytest.mark.parametrize("arch", ["dlinknet50", "unet", "dunet", "pplinknet34-psp64-hdc"])
def test_prefixes_of_other_networks(tmp_path, arch):
    other = build(arch, 0.125).eval()
    torch.save({"state_dict": under("model.", other.state_dict())}, tmp_path / "net.pth")
    assert same(read_checkpoint(tmp_path / "net.pth", arch).net, other)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_plain_checkpoint_draws_no_note(saved, prefix):
    assert read_checkpoint(saved(lambda s: under(prefix, s))).notes == ()


def test_a_published_hybrid_network_is_found_under_a_prefix(tmp_path):
    """It names its pyramid psp, and has a dilated centre that it never uses."""
    hybrid = build("pplinknet34-psp64-hdc", 0.125).eval()
    state = {
        k.replace("dblock.", "psp.", 1) if k.startswith("dblock.") else k: v for k, v in hybrid.state_dict().items()
    }
    torch.save({"net": under("model.", state | {"dblock.dilate1.weight": torch.zeros(1)})}, tmp_path / "net.pth")
    read = read_checkpoint(tmp_path / "net.pth")
    assert read.arch == "pplinknet34-psp64-hdc"
    assert same(read.net, hybrid)


def test_what_lies_beside_the_network_is_left_out_and_named(saved, net):
    beside = {"val_iou.confmat": torch.zeros(2, 2), "criterion.pos_weight": torch.ones(1)}
    path = saved(lambda s: {"epoch": 3, "state_dict": under("net.", s) | beside})
    read = read_checkpoint(path)
    assert same(read.net, net)
    assert read.notes == (
        f"{path}: read from state_dict; the prefix net. is taken off; left out: val_iou.confmat, criterion.pos_weight",
    )


def test_tensors_beside_a_network_without_a_prefix_are_refused(saved):
    with pytest.raises(BadModel, match="1 unexpected: criterion.pos_weight"):
        read_checkpoint(saved(lambda s: s | {"criterion.pos_weight": torch.ones(1)}))


def test_a_network_under_a_prefix_that_lacks_a_key_is_refused_by_name(saved):
    with pytest.raises(BadModel, match="1 missing: firstbn.bias; is it another network"):
        read_checkpoint(saved(lambda s: under("model.", {k: v for k, v in s.items() if k != "firstbn.bias"})))


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_a_profilers_counters_are_left_out(saved, net, prefix):
    counts = {"total_ops": torch.zeros(1), "firstconv.total_ops": torch.zeros(1), "firstbn.total_params": torch.ones(1)}
    read = read_checkpoint(saved(lambda s: under(prefix, s | counts)))
    assert same(read.net, net)
    assert f"left out: {', '.join(under(prefix, counts))}" in read.notes[0]


@pytest.mark.parametrize("key", ["net", "weight", "weights", "network", "model_dict", "generator", "G_ab", "a.b"])
def test_a_nested_network_is_found_and_its_key_is_named(saved, net, key):
    path = saved(lambda s: {"epoch": 1, "optimizer": {"state": {0: {"exp_avg": s["firstconv.weight"]}}}, key: s})
    read = read_checkpoint(path)
    assert same(read.net, net)
    assert read.notes == (f"{path}: read from {key}",)


def test_a_network_is_found_three_dictionaries_deep(saved, net):
    read = read_checkpoint(saved(lambda s: {"run": {"nets": {"roads": under("module.", s)}}}))
    assert same(read.net, net)
    assert "read from run.nets.roads" in read.notes[0]


TWO = {
    "nested": lambda s: {"ema": moved(s), "model": s},
    "nested-parallel": lambda s: {"ema": under("module.", moved(s)), "model": under("module.", s)},
    "prefixed": lambda s: under("ema.", moved(s)) | under("model.", s),
    "lightning": lambda s: {"state_dict": under("ema.", moved(s)) | under("model.", s)},
}


@pytest.mark.parametrize("form", TWO)
def test_of_two_networks_the_first_in_order_is_taken_and_the_other_is_named(saved, net, form):
    path = saved(TWO[form])
    read = read_checkpoint(path)
    outer = "state_dict." if form == "lightning" else ""
    assert same(read.net, net)
    (note,) = read.notes
    assert "model" in note
    assert note.endswith(f"; {outer}ema fits too: --key {outer}ema takes it")


@pytest.mark.parametrize("form", TWO)
def test_the_key_takes_the_other(saved, net, form):
    read = read_checkpoint(saved(TWO[form]), key="ema")
    assert torch.equal(read.net.firstconv.weight, net.firstconv.weight + 1)
    assert not any("fits too" in note for note in read.notes)


def test_the_key_that_a_note_names_is_taken(saved, net):
    path = saved(TWO["lightning"])
    read = read_checkpoint(path, key="state_dict.ema")
    assert torch.equal(read.net.firstconv.weight, net.firstconv.weight + 1)


def test_a_whole_network_is_preferred_to_one_that_lacks_keys(saved, net):
    damaged = lambda s: {k: v for k, v in s.items() if not k.startswith("firstbn")}  # noqa: E731
    assert same(read_checkpoint(saved(lambda s: {"model": damaged(s), "ema": s})).net, net)


def test_a_key_that_is_not_there_is_refused_with_the_keys_that_are(saved):
    path = saved(TWO["nested"])
    with pytest.raises(BadInput, match="net.pth: --key best: the checkpoint has no such key; there are model, ema$"):
        read_checkpoint(path, key="best")
    path = saved(lambda s: s)
    with pytest.raises(BadInput, match="no such key; its network is under no key, leave --key out$"):
        read_checkpoint(path, key="ema")


def test_a_key_that_holds_no_network_is_refused(saved):
    path = saved(lambda s: {"model": s, "optimizer": {"lr": torch.ones(1)}})
    with pytest.raises(BadModel, match="no network that dlink knows: .* among 1 keys"):
        read_checkpoint(path, key="optimizer")


def test_a_prefix_in_safetensors(tmp_path, net):
    save_file(under("model.", net.state_dict()), tmp_path / "net.safetensors")
    assert same(read_checkpoint(tmp_path / "net.safetensors").net, net)


def test_a_dictionary_that_holds_itself_ends(saved):
    def make(state):
        loop = {"a": torch.zeros(1)}
        loop["loop"] = loop
        return loop

    with pytest.raises(BadModel, match="net.pth: not a state_dict: loop is not a tensor"):
        read_checkpoint(saved(make))


def test_keys_in_notes_are_one_line(saved):
    read = read_checkpoint(saved(lambda s: {"run\n" * 100: s}))
    assert "\n" not in read.notes[0].removeprefix(str(saved))
    assert len(read.notes[0]) < 400


def head_of(arch):
    return "conv_last.0" if arch in ("unet", "dunet") else "finalconv3"


def with_softmax(state, arch, road):
    """Two logits whose softmax is the sigmoid of the network's one."""
    logits = {}
    for k in (f"{head_of(arch)}.weight", f"{head_of(arch)}.bias"):
        pair = [-state[k] / 4, state[k] * 3 / 4]
        logits[k] = torch.cat(pair if road else pair[::-1])
    return state | logits


@pytest.mark.parametrize("arch", ["dlinknet34", "linknet34", "unet", "dunet", "pplinknet34-psp64"])
@pytest.mark.parametrize("road", [0, 1])
def test_a_softmax_over_two_classes_is_one_logit(tmp_path, arch, road):
    torch.manual_seed(0)
    own = build(arch, 0.125).eval()
    torch.save(with_softmax(own.state_dict(), arch, road), tmp_path / "net.pth")
    read = read_checkpoint(tmp_path / "net.pth", arch, road=road)
    x = torch.randn(1, 3, own.multiple * 2, own.multiple * 2)
    with torch.inference_mode():
        torch.testing.assert_close(read.net(x), own(x), atol=1e-5, rtol=0)
    assert f"class {road} of two is taken for road" in read.notes[-1]
    assert read.notes[-1].endswith(f"; --class {1 - road} takes the other")


def test_the_last_class_is_road_by_default(saved, net):
    read = read_checkpoint(saved(lambda s: with_softmax(s, "dlinknet34", 1)))
    torch.testing.assert_close(read.net.finalconv3.weight, net.finalconv3.weight)
    other = read_checkpoint(saved(lambda s: with_softmax(s, "dlinknet34", 1)), road=0)
    torch.testing.assert_close(other.net.finalconv3.weight, -net.finalconv3.weight)


def test_a_class_that_is_not_there_is_refused(saved):
    with pytest.raises(BadInput, match="net.pth: --class 2: the network's two classes are 0 and 1$"):
        read_checkpoint(saved(lambda s: with_softmax(s, "dlinknet34", 1)), road=2)
    with pytest.raises(BadInput, match="net.pth: --class 1: the network's last layer has one class; leave --class out"):
        read_checkpoint(saved(lambda s: s), road=1)


def test_more_classes_are_refused_by_name(saved):
    three = lambda s: s | {f"finalconv3.{k}": s[f"finalconv3.{k}"].repeat_interleave(3, 0) for k in ("weight", "bias")}  # noqa: E731
    with pytest.raises(BadModel, match=r"2 misshapen: finalconv3.weight \(3, 4, 3, 3\) for \(1, 4, 3, 3\)"):
        read_checkpoint(saved(three))


class AttributeDict(dict):
    """As Lightning's, by its name there."""


AttributeDict.__module__ = "lightning.fabric.utilities.data"


class HistoryBuffer:
    """As MMEngine's, which holds arrays, and functions of its own by getattr."""

    def __init__(self):
        self.history, self.mean = np.zeros(3), HistoryBuffer.average

    def average(self):
        pass


HistoryBuffer.__module__ = HistoryBuffer.average.__module__ = "mmengine.logging.history_buffer"


@pytest.fixture
def frameworks(monkeypatch):
    """Modules of frameworks that are not installed, for the pickler."""
    for kind in (AttributeDict, HistoryBuffer):
        names = kind.__module__.split(".")
        for n in range(1, len(names) + 1):
            monkeypatch.setitem(sys.modules, ".".join(names[:n]), ModuleType(names[n - 1]))
        setattr(sys.modules[kind.__module__], kind.__name__, kind)
    yield
    monkeypatch.undo()


BESIDE = {
    "float64": np.float64(0.63),
    "float32": np.float32(0.63),
    "int64": np.int64(7),
    "bool": np.bool_(True),
    "array": np.arange(6.0).reshape(2, 3),
    "array-of-strings": np.array(["a", "b"]),
    "array-of-objects": np.array([1, "a", None], dtype=object),
    "random-state": np.random.default_rng(0).bit_generator.state,
    "args": Namespace(lr=1e-3, betas=(0.9, 0.99), nested=Namespace(best=np.float64(1))),
    "path": Path("runs/1"),
    "pure-path": PurePosixPath("data"),
    "windows-path": PureWindowsPath("C:/data"),
    "when": datetime(2026, 1, 2, tzinfo=timezone.utc),
    "took": timedelta(seconds=3),
    "day": date(2026, 1, 2),
    "ordered": OrderedDict(a=1),
    "counter": Counter("aab"),
    "default": defaultdict(list, {"loss": [1.0, 2.0]}),
    "deque": deque([1, 2], maxlen=4),
    "set": {1, 2},
    "frozen": frozenset((1, 2)),
    "types": {"f": float, "of": int},
    "simple": SimpleNamespace(a=1),
    "size": torch.Size([1, 2]),
    "device": torch.device("cpu"),
    "dtype": torch.float16,
    "version": torch.__version__,
    "uuid": UUID(int=7),
    "decimal": Decimal("0.1"),
    "lightning": AttributeDict(lr=1e-3),
    "mmengine": HistoryBuffer(),
    "many": {"best": np.array([0.6]), "path": Path("a"), "log": defaultdict(dict, {"a": {"b": Path("c")}})},
}
PLAIN = ("ordered", "counter", "default", "deque", "set", "types", "size", "device", "dtype", "many", "lightning")


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("legacy", [False, True])
def test_what_training_scripts_store_beside_the_weights_is_read_past(tmp_path, net, name, legacy, frameworks):
    path = tmp_path / "net.pth"
    content = {"beside": BESIDE[name], "state_dict": net.state_dict()}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert same(read_checkpoint(path).net, net)
    assert isinstance(load(path)["beside"], Ignored) or name in (*PLAIN, "random-state")


@pytest.mark.parametrize("holder", [defaultdict(dict), OrderedDict(), AttributeDict()], ids=lambda h: type(h).__name__)
def test_other_dictionaries_are_searched(saved, net, holder, frameworks):
    holder["roads"] = dict(net.state_dict())
    assert same(read_checkpoint(saved(lambda s: {"nets": holder})).net, net)


class Named:
    """Pickled as NumPy 1 pickles a scalar."""

    def __reduce__(self):
        return scalar, (np.dtype("f8"), bytes(8))


def scalar(*args):
    raise AssertionError("must not run")


scalar.__module__ = "numpy.core.multiarray"


def test_scalars_of_numpy_1_are_read_past(tmp_path, net, monkeypatch):
    module = ModuleType("numpy.core.multiarray")
    module.scalar = scalar
    monkeypatch.setitem(sys.modules, "numpy.core.multiarray", module)
    torch.save({"best": Named(), "model": net.state_dict()}, tmp_path / "net.pth")
    monkeypatch.undo()
    assert same(read_checkpoint(tmp_path / "net.pth").net, net)


class Strange:
    """A class of somebody's own."""


class Call:
    """A pickle of it calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call

    def __call__(self):
        raise AssertionError("must not run")


@pytest.mark.parametrize(
    "beside",
    [
        Call(os.system, "touch ran"),
        Call(eval, "open('ran', 'w')"),
        Namespace(best=Call(os.system, "touch ran")),
        np.array([Call(os.system, "touch ran")], dtype=object),
        Call(Namespace.__init__, Call(os.system, "touch ran")),
        {"a": Path("b"), "c": Call(os.system, "touch ran")},
        Call(getattr, Call(os.system, "touch ran"), "x"),
        Call(partial, os.system, "touch ran"),
        Call(Strange),
        Strange(),
    ],
    ids=[
        "system",
        "eval",
        "in-arguments",
        "array-of-objects",
        "method",
        "beside-a-path",
        "getattr",
        "partial",
        "class",
        "unknown",
    ],
)
def test_nothing_else_is_let_in(tmp_path, net, monkeypatch, beside):
    monkeypatch.chdir(tmp_path)
    torch.save({"beside": beside, "state_dict": net.state_dict()}, "net.pth")
    with pytest.raises(BadModel, match="net.pth: refused, its pickle holds more than tensors and could run code; save"):
        read_checkpoint(tmp_path / "net.pth")
    assert not (tmp_path / "ran").exists()


def test_stand_ins_call_nothing(tmp_path, net, monkeypatch):
    """getattr, partial and a path's class are names to the reader: what a pickle calls them with is dropped."""
    monkeypatch.chdir(tmp_path)
    touch = [Call(getattr, Path("ran"), "touch"), Call(Path, "ran"), Call(partial, getattr, Path("ran"), "touch")]
    torch.save({"beside": touch, "state_dict": net.state_dict()}, "net.pth")
    assert all(isinstance(value, Ignored) for value in load(tmp_path / "net.pth")["beside"])
    torch.save({"beside": Call(Call(getattr, Path("ran"), "touch")), "state_dict": net.state_dict()}, "net.pth")
    with pytest.raises(BadModel, match="could run code"):
        read_checkpoint(tmp_path / "net.pth")
    assert not (tmp_path / "ran").exists()


def test_the_refusal_names_what_the_pickle_names(saved):
    with pytest.raises(
        BadModel, match=r"as safetensors; or torch.onnx.export the net \(it names tests.nets.test_search.Strange\)$"
    ):
        read_checkpoint(saved(lambda s: {"config": Strange(), "state_dict": s}))


@pytest.mark.parametrize("beside", [np.float64(1), Strange()], ids=["read", "refused"])
def test_what_is_let_in_is_let_in_for_one_file_alone(tmp_path, net, beside):
    torch.save({"best": beside, "args": Namespace(lr=1), "state_dict": net.state_dict()}, tmp_path / "net.pth")
    before = set(torch.serialization.get_safe_globals())
    try:
        read_checkpoint(tmp_path / "net.pth")
    except BadModel:
        assert isinstance(beside, Strange)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "net.pth", weights_only=True)
