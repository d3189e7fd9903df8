"""From rows to foundation features: what each model reads, looking it up, computing it."""
