"""Tables and figures of what was run."""
