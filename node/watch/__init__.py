"""A run as it is seen: the story of who learns what, live from the peers' statuses or out of a record, and its page."""
