"""The quickstart: what a student gains from a foundation model, on data in the package.

Read `_tasks` first: it has the pipelines, written as a user would write them.
"""

from sk_aft._quickstart._command import main

__all__ = ["main"]
