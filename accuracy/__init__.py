"""Whether two models draw the same roads, and how good the roads are. Needs what dlink.trt_runtime needs."""
