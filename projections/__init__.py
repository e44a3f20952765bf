"""All that is computed from events, first of all the instance."""
