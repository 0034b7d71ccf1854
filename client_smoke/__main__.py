"""`python -m client_smoke`."""

from client_smoke.cli import main

raise SystemExit(main())
