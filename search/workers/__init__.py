"""What runs in Ray workers: trials, preparation and final sittings, and how the inputs get there."""
