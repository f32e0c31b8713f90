"""Client libraries side by side: what a call and an event cost."""
