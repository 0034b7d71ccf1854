"""Tests of what watches the platform."""
