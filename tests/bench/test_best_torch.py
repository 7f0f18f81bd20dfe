"""PyTorch as good as a user can make it, beside ours and the authors' procedure."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from dlink.bench import best_torch as module
from dlink.bench.beside_torch import beside_best, network_of
from dlink.bench.best_torch import Way, best_torch, call_of, torch_threads
from dlink.bench.opened import threads_beside
from dlink.bench.turns import in_turn
from dlink.nets.zoo import build, spec_of
from dlink.runtime import BadInput, HostBackend, Segmenter, Spec, open_model
from tests.support.models import write_pointwise, write_scout

SPEC = Spec(tile=32)
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


class Sloped(torch.nn.Module):
    """Of the third channel and of the place, so that a view that is not undone shows."""

    def forward(self, x):
        slope = torch.linspace(-1, 1, x.shape[-1]) + 2 * torch.linspace(-1, 1, x.shape[-2])[:, None]
        return torch.sigmoid(2 * x[:, 2:3] * (1 + 0.2 * slope))


class Known(torch.nn.Module):
    """Of the third channel. It notes what it got."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append((tuple(x.shape), x.is_contiguous(memory_format=torch.channels_last), torch.is_inference(x)))
        self.half = torch.is_autocast_enabled("cpu")
        return torch.sigmoid(2 * x[:, 2:3])


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("views", [1, 4, 8])
@pytest.mark.parametrize("spec", [SPEC, spec_of("pplinknet34-psp64", tile=32, channels="RGB")])
def test_a_way_prepares_turns_and_cuts_as_the_spec_says(spec, views, batched):
    def numpy_net(x):
        with torch.inference_mode():
            return Sloped()(torch.from_numpy(x))[:, 0].numpy()

    host = Segmenter(HostBackend(numpy_net, spec))
    prob = host.probabilities(IMAGE, views)
    clear = np.abs(prob - spec.threshold) > 1e-4
    found = call_of(Sloped(), spec, views, Way(half=False, compiled=False, batched=batched))(IMAGE)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[clear] > 0, prob[clear] > spec.threshold)
    assert 0.2 < (found > 0).mean() < 0.8


def test_a_network_of_four_bands_gets_them_in_its_order():
    spec = Spec(tile=32, bands=("red", "green", "blue", "nir"), scale=(1 / 255,) * 4, shift=(0.0,) * 4)
    seen = []

    class Noted(torch.nn.Module):
        def forward(self, x):
            seen.append(x.numpy().copy())
            return torch.sigmoid(x[:, :1])

    image = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    call_of(Noted(), spec, 1, Way(half=False, compiled=False, batched=False))(image)
    np.testing.assert_allclose(seen[0], spec.prepare(image[None]), atol=1e-6)


def test_the_network_runs_channels_last_in_inference_mode_with_the_views_as_the_way_says():
    for batched, shapes in ((False, [(1, 3, 32, 32)] * 8), (True, [(8, 3, 32, 32)])):
        net = Known()
        call_of(net, SPEC, 8, Way(half=True, compiled=False, batched=batched))(IMAGE)
        assert net.seen == [(shape, True, True) for shape in shapes]
        assert net.half
        assert not net.training


def compiles(monkeypatch, compile):
    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(module, "freezing", nullcontext)  # importing inductor takes seconds


def seconds(monkeypatch, of):
    """Each way takes the seconds that `of` says."""
    made = {}
    real = module.call_of

    def call(net, spec, views, way):
        found = real(net, spec, views, way)
        made[found] = way
        return found

    def timed(call, image):
        call(image)
        return of(made[call])

    monkeypatch.setattr(module, "call_of", call)
    monkeypatch.setattr(module, "seconds_of", timed)


def test_the_fastest_way_is_taken_and_all_are_told(monkeypatch):
    compiles(monkeypatch, lambda net, **options: net)
    monkeypatch.setattr(module, "has_bfloat16", lambda: True)
    seconds(monkeypatch, lambda way: 9 - 2 * way.half - 3 * way.compiled + way.batched)
    said = []
    found = best_torch(Known(), SPEC, 8, IMAGE, said.append)
    assert found.way == Way(half=True, compiled=True, batched=False)
    assert said == list(found.tried)
    assert list(found.tried.values()) == [9, 7, 6, 4, 5]
    assert found.left_out == ()


def test_a_batch_of_the_views_is_taken_where_it_is_faster_and_not_tried_for_one_view(monkeypatch):
    compiles(monkeypatch, lambda net, **options: net)
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    seconds(monkeypatch, lambda way: 9 - 3 * way.compiled - way.batched)
    found = best_torch(Known(), SPEC, 8, IMAGE, lambda words: None)
    assert found.way == Way(half=False, compiled=True, batched=True)
    assert len(best_torch(Known(), SPEC, 1, IMAGE, lambda words: None).tried) == 2


def test_norms_are_folded_before_anything_is_compiled_and_the_authors_network_stays_as_it_is(monkeypatch):
    torch.manual_seed(0)
    net, compiled = build("linknet34", 0.125).eval(), []
    for module_ in net.modules():
        if isinstance(module_, torch.nn.BatchNorm2d):
            module_.running_var.uniform_(0.5, 2)
            module_.running_mean.uniform_(-1, 1)
    before = {name: (value.clone(), value.stride()) for name, value in net.state_dict().items()}
    compiles(monkeypatch, lambda given, **options: compiled.append(given) or given)
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    best_torch(net, SPEC, 1, IMAGE, lambda words: None)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in compiled[0].modules())
    x = torch.from_numpy(SPEC.prepare(IMAGE[None]))
    with torch.inference_mode():
        torch.testing.assert_close(compiled[0](x), net(x), atol=1e-5, rtol=0)
    assert all(torch.equal(value, before[name][0]) for name, value in net.state_dict().items())
    assert all(value.stride() == before[name][1] for name, value in net.state_dict().items())


def test_without_a_compiler_the_best_of_the_rest_is_taken_and_it_says_so(monkeypatch):
    def compile(net, **options):
        def failing(x):
            raise RuntimeError("\nInvalidCxxCompiler: No working C++ compiler found\nSet TORCH_LOGS for more")

        return failing

    compiles(monkeypatch, compile)
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    found = best_torch(Known(), SPEC, 8, IMAGE, lambda words: None)
    assert not found.way.compiled
    assert found.left_out == (
        "float32, torch.compile with freezing, one view at a time: InvalidCxxCompiler: No working C++ compiler found",
    )


def test_pytorch_has_the_threads_that_it_is_given_and_its_own_afterwards():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), torch_threads(before + 2):
        assert torch.get_num_threads() == before + 2
        _ = 1 / 0
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("engine", "asked", "threads"),
    [
        ("OpenVINO 2026.4.1, bf16, 3 threads", None, 5),
        ("OpenVINO 2026.4.1, bf16, 3 threads, 2 slots", 3, 3),
        ("OpenVINO 2026.4.1, 3 threads; scout: OpenVINO 2026.4.1, 1 threads", 3, 3),
        ("TensorRT 10.3", 3, 5),
    ],
)
def test_pytorch_gets_the_models_threads_or_all_usable_cores(monkeypatch, engine, asked, threads):
    monkeypatch.setattr("dlink.bench.opened.usable_cores", lambda: frozenset(range(5)))
    model = Segmenter(HostBackend(lambda x: x[:, 0], SPEC, engine=engine))
    assert threads_beside(model, asked) == threads


def test_a_way_is_the_median_of_calls_after_a_warm_up():
    calls = []
    module.seconds_of(lambda image: calls.append(image), IMAGE)
    assert len(calls) == 2 + module.TRIED


def test_in_turn_each_goes_first_and_ratios_are_of_one_round():
    order = []
    clock = [0.0]
    costs = {"ours": [1, 1, 2], "eager": [4, 8, 6], "best": [2, 2, 2]}

    def procedure(name):
        def run():
            order.append(name)
            clock[0] += costs[name][sum(n == name for n in order) - 1]

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlink.bench.latency.time.perf_counter", lambda: clock[0])
        found = in_turn({name: procedure(name) for name in costs}, 8, 3)
    assert order == ["ours", "eager", "best", "eager", "best", "ours", "best", "ours", "eager"]
    assert [(b.other, b.median, b.least, b.most, b.other_s) for b in found.beside] == [
        ("eager", 4, 3, 8, 6),
        ("best", 2, 1, 2, 2),
    ]
    assert found.ours_s == 1


def test_ours_the_best_and_the_authors_run_beside_each_other(monkeypatch):
    compiles(monkeypatch, lambda net, **options: net)
    model = Segmenter(HostBackend(lambda x: 1 / (1 + np.exp(-2 * x[:, 2])), SPEC))
    rows = beside_best(model, Known(), IMAGE, [1, 4, 8, "adaptive"], 2, lambda words: None)
    assert [(row["views"], len(row["beside"])) for row in rows] == [(1, 2), (4, 1), (8, 2)]
    best, authors = (b["other"] for b in rows[2]["beside"])
    assert best.startswith("best of PyTorch 2")
    assert authors.startswith("authors' procedure by PyTorch 2")
    assert rows[0]["conditions"]["seconds"] > 0


def test_a_comparison_on_a_busy_machine_says_so(monkeypatch):
    compiles(monkeypatch, lambda net, **options: net)
    monkeypatch.setattr("dlink.bench.watch.watch.others_share", lambda first, last: 0.5)
    monkeypatch.setattr("dlink.bench.watch.watch.stolen_share", lambda first, last: 0.0)
    model = Segmenter(HostBackend(lambda x: 1 / (1 + np.exp(-2 * x[:, 2])), SPEC))
    [row] = beside_best(model, Known(), IMAGE, [1], 1, lambda words: None)
    assert row["no_headline"] == ["beside PyTorch, other processes took 50.0% of the processors' time, more than 5%"]


def test_a_plan_has_its_own_comparison():
    model = Segmenter(HostBackend(lambda x: x[:, 0], SPEC))
    vars(model.backend)["manifest"] = object()
    with pytest.raises(BadInput, match="best-torch: is for models on a processor; python -m dlink.bench.runtime"):
        beside_best(model, Known(), IMAGE, [1], 1, lambda words: None)


def test_a_plan_behind_a_scout_is_a_plan(tmp_path):
    path = write_pointwise(tmp_path / "roads.onnx", SPEC)
    with open_model(path, scout=write_scout(tmp_path / "scout.onnx", path)) as model:
        vars(model.backend.large)["manifest"] = object()
        with pytest.raises(BadInput, match="best-torch: is for models on a processor"):
            beside_best(model, Known(), IMAGE, [1], 1, lambda words: None)


def test_a_network_that_is_not_dlinks_has_none_beside_it(tmp_path):
    with pytest.raises(
        BadInput, match="--baseline best-torch: needs a network of dlink's list, and .*net.onnx is adopted"
    ):
        network_of(tmp_path / "net.onnx", Spec(tile=32, arch="adopted net"), "best-torch")
