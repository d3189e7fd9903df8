"""The quickstart: what a student gains from a foundation model, on data that ships along.

Read `_tasks` first: it holds the pipelines, the way anybody would write them.
"""

from sk_aft._quickstart._command import main

__all__ = ["main"]
