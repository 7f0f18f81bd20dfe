from dlink.onnx_graph.stretches import ENDS, Kind, ScaleStep, stretches


def test_a_stretch_reaches_from_convolution_to_convolution():
    found = stretches(
        [
            ScaleStep("image", (), Kind.FIXED),
            ScaleStep("a", ["image"], Kind.BEGINS),
            ScaleStep("relu", ["a"], Kind.KEEPS),
            ScaleStep("b", ["relu"], Kind.BEGINS),
            ScaleStep("sum", ["relu", "b"], Kind.KEEPS),
            ScaleStep("c", ["sum"], Kind.BEGINS),
            ScaleStep("road", ["c"], Kind.FIXED),
        ]
    )
    assert found["a"] == found["relu"] == found["b"] == found["sum"] != ENDS
    assert found["image"] == found["c"] == found["road"] == ENDS


def test_what_is_fixed_later_fixes_all_that_it_is_joined_with():
    apart = [ScaleStep("a", (), Kind.BEGINS), ScaleStep("b", (), Kind.BEGINS)]
    assert stretches(apart) == {"a": "a", "b": "b"}
    fixed = [*apart, ScaleStep("sum", ["a", "b"], Kind.KEEPS), ScaleStep("road", ["b"], Kind.FIXED)]
    assert set(stretches(fixed).values()) == {ENDS}
