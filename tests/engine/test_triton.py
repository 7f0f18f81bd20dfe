"""A model repository, read by Triton's own definition of it."""

import onnx
import pytest
from click.testing import CliRunner
from google.protobuf import text_format

from dlink.cli.main import dlink
from dlink.engine.triton import write_repository
from dlink.runtime import BadInput, Spec
from dlink.trt_runtime.manifest import Ends
from tests.support.models import write_pointwise
from tests.support.plans import PLAN, write

config_of = pytest.importorskip(
    "tritonclient.grpc.model_config_pb2", reason="needs tritonclient: pip install 'dlink[test]' on Linux"
)


def parsed(path):
    return text_format.Parse(path.read_text(), config_of.ModelConfig())


@pytest.mark.parametrize(
    ("suffix", "backend", "file"), [(".plan", "tensorrt", "model.plan"), (".onnx", "onnxruntime", "model.onnx")]
)
def test_a_repository_is_as_triton_defines_it(suffix, backend, file, tmp_path):
    model = (tmp_path / "roads").with_suffix(suffix)
    model.write_bytes(b"model")
    config = write_repository(tmp_path / "models", model, Spec(tile=1024), 16)
    assert config == tmp_path / "models" / "roads" / "config.pbtxt"
    assert (tmp_path / "models" / "roads" / "1" / file).read_bytes() == b"model"
    found = parsed(config)
    assert (found.name, found.backend, found.max_batch_size) == ("roads", backend, 16)
    ends = [(end.name, end.data_type, list(end.dims)) for end in (*found.input, *found.output)]
    float32 = config_of.TYPE_FP32
    assert ends == [("image", float32, [3, 1024, 1024]), ("road", float32, [1, 1024, 1024])]
    assert found.HasField("dynamic_batching")


def test_a_plan_that_reads_half_is_fed_with_half(tmp_path):
    model = tmp_path / "roads.plan"
    model.write_bytes(b"plan")
    found = parsed(
        write_repository(tmp_path / "models", model, Spec(tile=64), 8, Ends(reads="float16", gives="float32"))
    )
    types = [end.data_type for end in (*found.input, *found.output)]
    assert types == [config_of.TYPE_FP16, config_of.TYPE_FP32]
    plan = write(tmp_path, ends=Ends(reads="float16", gives="float16"))
    result = CliRunner().invoke(dlink, ["inspect", str(plan), "--triton", str(tmp_path / "other")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "other" / "roads" / "config.pbtxt").read_text().count("TYPE_FP16") == 2


def test_names_types_and_sizes_are_those_of_our_files(tmp_path):
    path = write_pointwise(tmp_path / "roads.onnx", Spec(tile=64))
    found = parsed(write_repository(tmp_path / "models", path, Spec(tile=64), 8))
    for end, ours in ((found.input, onnx.load(path).graph.input), (found.output, onnx.load(path).graph.output)):
        dims = [d.dim_value for d in ours[0].type.tensor_type.shape.dim][1:]
        assert (end[0].name, list(end[0].dims)) == (ours[0].name, dims)


def test_other_bands_are_so_many_planes(tmp_path):
    four = Spec(tile=64, bands=("red", "green", "blue", "nir"), scale=(1,) * 4, shift=(0,) * 4)
    path = write_pointwise(tmp_path / "roads.onnx", four)
    assert list(parsed(write_repository(tmp_path / "models", path, four, 8)).input[0].dims) == [4, 64, 64]


def test_a_plan_and_an_onnx_file_do_not_share_a_model(tmp_path):
    for name in ("roads.onnx", "roads.plan"):
        (tmp_path / name).write_bytes(b"model")
    write_repository(tmp_path / "models", tmp_path / "roads.onnx", Spec(tile=64), 8)
    with pytest.raises(BadInput, match=r"model.onnx: is already there and of another kind"):
        write_repository(tmp_path / "models", tmp_path / "roads.plan", Spec(tile=64), 8)


def test_dlink_inspect_lays_out_an_onnx_file_or_a_plan(tmp_path):
    path = write_pointwise(tmp_path / "red.onnx", Spec(tile=64))
    plan = write(tmp_path)
    for source, batch in ((path, 8), (plan, 16)):
        result = CliRunner().invoke(dlink, ["inspect", str(source), "--triton", str(tmp_path / "models")])
        assert result.exit_code == 0, result.output
        assert f"tritonserver --model-repository={tmp_path}/models" in result.stdout
        assert parsed(tmp_path / "models" / source.stem / "config.pbtxt").max_batch_size == batch
    assert (tmp_path / "models" / "roads" / "1" / "model.plan").read_bytes() == PLAN
