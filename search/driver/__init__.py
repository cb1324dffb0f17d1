"""The driver of a search: what runs next, Ray Tune, start, resume and end."""
