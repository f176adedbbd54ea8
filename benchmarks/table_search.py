"""Wall seconds of the command for a search of 2,000 children on NAS-Bench-Macro, stored, in one process.

AUTOML_DATA=… python benchmarks/table_search.py [--children 2000]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--children", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("automl")), "search", "table", "--workers", "0"]
        command += ["--task", "table:nas-bench-macro", "--data-dir", os.environ["AUTOML_DATA"]]
        command += ["--children", str(arguments.children), "--store", f"{folder}/table.db"]
        began = time.perf_counter()
        subprocess.run(command, check=True)
        took = time.perf_counter() - began
    print(f"seconds={took:.1f} milliseconds_per_child={1000 * took / arguments.children:.1f}")


if __name__ == "__main__":
    main()
