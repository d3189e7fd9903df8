"""A student and a teacher that answer together.

`_cascade_classifier` is the estimator, `_deferral` the mathematics of thresholds and temperatures,
`_members` what is done with both classifiers, `_splits` which rows are held out, and `_html` the
diagram.
"""
