"""Several trials trained together on one resident backbone, in one forward and one backward pass: a pack of members."""
