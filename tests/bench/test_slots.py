import json

from click.testing import CliRunner

from dlink.bench.slots import SLOTS, main
from dlink.runtime import Spec
from tests.support.models import write_pointwise


def test_one_slot_and_two_are_measured_alone_and_beside_a_process(tmp_path):
    model, rows = write_pointwise(tmp_path / "red.onnx", Spec(tile=64)), tmp_path / "rows.jsonl"
    done = CliRunner().invoke(main, [str(model), "--seconds", "0.05", "--rounds", "2", "--append", str(rows)])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["beside"] for row in lines] == ["nothing", "a process that spins"]
    for row in lines:
        assert row["best"] == {str(slots): max(row["rounds"][str(slots)]) for slots in SLOTS}
        assert all(rate > 0 for each in row["rounds"].values() for rate in each)
    assert len(done.output.splitlines()) == 4
