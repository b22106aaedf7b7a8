//! The demonstration: an organization tree, device templates, and a simulated fleet.
