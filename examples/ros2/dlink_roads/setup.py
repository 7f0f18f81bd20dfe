from setuptools import setup  # type: ignore[import-untyped]

setup(
    name="dlink_roads",
    version="0.1.0",
    packages=["dlink_roads"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/dlink_roads"]),
        ("share/dlink_roads", ["package.xml"]),
    ],
    install_requires=["setuptools"],  # and dlink, from its own checkout: pip install '.[cpu]'
    entry_points={"console_scripts": ["roads = dlink_roads.roads:main"]},
)
