"""Where djpyfs reaches its speed goals: ``python -m tests.bench``.

Everything is measured side by side in one run: two sides take turns in short pieces, and the result
is the median of the ratios of the turns. Other load on the machine hits both halves of most turns
alike, and the median drops the turns in which it hit only one.
"""
