"""Proves the tests: takes out one guard after the other and looks which test notices.

The guards, and the test that goes red without each, are listed in ``guards.toml``.
"""
