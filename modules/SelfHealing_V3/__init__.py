"""SelfHealing V3, in quarantine: a read-only view, as the baseline of comparisons."""
