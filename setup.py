"""Hooks the native build (build_tools/) into setuptools; everything else is in pyproject.toml.

A wheel is a release build. An editable install and `build_ext --inplace` are development builds, which differ in one
thing: the CUDA targets taken where ROBOCACHE_CUDA_ARCHS is not set.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from build_tools import native  # noqa: E402
from build_tools.compile import BuildError  # noqa: E402


class NativeBuild(build_ext):
    """Builds the three libraries into the package: in the source tree for development, else in build_lib."""

    def _settings(self) -> native.Settings:
        in_place = bool(self.inplace) or getattr(self, "editable_mode", False)
        base = ROOT if in_place else Path(self.build_lib).resolve()
        return native.Settings(package=base / "robocache", release=not in_place)

    def run(self) -> None:
        try:
            self.built = native.build(self._settings())
        except BuildError as error:
            raise SystemExit(f"robocache: error: {error}") from None

    def get_outputs(self) -> list[str]:
        settings = self._settings()
        files = (settings.core_library, settings.torch_library, settings.python_extension, settings.header)
        return [str(path) for path in files]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(ROOT)) for path in sorted(native.CSRC.rglob("*")) if path.is_file()]


# The extension's name marks the wheel as one for this platform and Python; its commands are in build_tools/native.py.
setup(ext_modules=[Extension("robocache._native", sources=[])], cmdclass={"build_ext": NativeBuild})
