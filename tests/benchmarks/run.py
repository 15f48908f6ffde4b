"""Runs each ``bench_*.py`` beside this file and prints figure, measured value, goal or peer, and ratio."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    """Run the benchmarks whose file names contain one of ``names``; all without names."""
    files = sorted(HERE.glob("bench_*.py"))
    chosen = [file for file in files if not names or any(name in file.stem for name in names)]
    if not chosen:
        known = ", ".join(file.stem.removeprefix("bench_") for file in files)
        print(f"no benchmark is named {' or '.join(names)}; there are: {known}", file=sys.stderr)
        return 2
    sys.path[:0] = [str(HERE.parent.parent), str(HERE)]
    row = "{:<58} {:>16}  {:<34} {:>8}"
    print(row.format("figure", "measured", "goal or peer", "ratio"))
    for file in chosen:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        if spec is None or spec.loader is None:
            raise ImportError(file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
        for figures in module.main():
            print(row.format(*figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
