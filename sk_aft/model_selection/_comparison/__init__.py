"""What `compare_transfer` is made of.

In the order of the work: `_data` (rows, labels and folds), `_rivals` and `_candidates` (what is
compared), `_time` (how long it takes), `_race` and `_scores` (fits on the folds),
`_deployment_cost`, `_result`, `_summary` and `_html`.
"""
