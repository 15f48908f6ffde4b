"""SelfHealing V1, the experiment: health checks and repair with the least overhead."""
