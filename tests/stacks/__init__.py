"""The CDK runs on Node: on the one of this repository's environment, whatever the shell's PATH holds."""

import os
from pathlib import Path

os.environ["PATH"] = f"{Path(__file__).parents[2] / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
