"""How log lines look; log_config.json names this formatter."""

import logging
import time


class UtcFormatter(logging.Formatter):
    """Log lines with UTC times, as CloudWatch shows them, whatever the container's time zone."""

    converter = time.gmtime  # type: ignore[assignment]
