"""Where a wheel has the packages: see scarlet_bench.py. All else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class Inside(build_py):
    """Puts every package into the folder scarlet_bench, save in an editable install."""

    def run(self):
        if not self.editable_mode:
            self.build_lib = str(Path(self.build_lib) / "scarlet_bench")
        super().run()
        if not self.editable_mode:
            home = Path(self.build_lib)
            (home / "scarlet_bench.py").replace(home / "__init__.py")


setup(cmdclass={"build_py": Inside})
