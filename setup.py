"""The packages, which pyproject.toml can only list: each folder with a py.typed is one, and `package/` is dlink."""

from pathlib import Path

from setuptools import setup

folders = sorted(mark.parent.as_posix() for pattern in ("*/py.typed", "*/*/py.typed") for mark in Path().glob(pattern))
package_of = {folder: "dlink" if folder == "package" else f"dlink.{folder.replace('/', '.')}" for folder in folders}
setup(packages=sorted(package_of.values()), package_dir={name: folder for folder, name in package_of.items()})
