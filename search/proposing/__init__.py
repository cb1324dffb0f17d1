"""What a search tries next: samplers, allocator's plans, moves around the front, and a model that ranks them."""
