"""Hosts that this process cannot see: behind ssh, or in a job; and the relay that stands in for them here."""
