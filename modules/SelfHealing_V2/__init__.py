"""SelfHealing V2, production: health checks with objectives, repair, and recovery by error budget."""
