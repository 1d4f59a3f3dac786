"""Judge models at every width: one encoding a text, baselines beside, who beats whom."""
