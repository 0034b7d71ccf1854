"""`python -m tests.faults > docs/reliability.md`."""

import sys

from tests.faults.report import as_markdown

sys.stdout.write(as_markdown())
