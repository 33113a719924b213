"""The checks that protect the promises, and the test that notices when one is gone.

Each room has a list: a directory, such as ``lua.toml``, or a module of djpyfs, such as
``sweeper.toml``. An entry has

- ``guard``: what it is
- ``file``: where it is
- ``out``: the text that is taken out there; it must be found exactly once
- ``in``: what is put in its place
- ``killer``: the test that goes red then

``make guards`` takes out one after the other, and prints which test went red.
"""
