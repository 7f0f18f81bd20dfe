from dlink.onnx_graph.stretches import ENDS, Kind, Step, stretches


def test_a_stretch_reaches_from_convolution_to_convolution():
    found = stretches(
        [
            Step("image", (), Kind.FIXED),
            Step("a", ["image"], Kind.BEGINS),
            Step("relu", ["a"], Kind.KEEPS),
            Step("b", ["relu"], Kind.BEGINS),
            Step("sum", ["relu", "b"], Kind.KEEPS),
            Step("c", ["sum"], Kind.BEGINS),
            Step("road", ["c"], Kind.FIXED),
        ]
    )
    assert found["a"] == found["relu"] == found["b"] == found["sum"] != ENDS
    assert found["image"] == found["c"] == found["road"] == ENDS


def test_what_is_fixed_later_fixes_all_that_it_is_joined_with():
    apart = [Step("a", (), Kind.BEGINS), Step("b", (), Kind.BEGINS)]
    assert stretches(apart) == {"a": "a", "b": "b"}
    fixed = [*apart, Step("sum", ["a", "b"], Kind.KEEPS), Step("road", ["b"], Kind.FIXED)]
    assert set(stretches(fixed).values()) == {ENDS}
