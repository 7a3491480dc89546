"""Features of videos from frozen models, cached on disk."""
