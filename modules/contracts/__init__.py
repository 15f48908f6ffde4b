"""What every module promises: results, enums, errors, protocols, clock and events. Standard library only."""
