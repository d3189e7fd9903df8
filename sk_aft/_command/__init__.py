"""The command line: ``python -m sk_aft [compare | fit | predict | images]``.

Read `_run` first. `_predict` and what it imports need the packages of `sk_aft.serving` only.
"""

from sk_aft._command._run import main

__all__ = ["main"]
