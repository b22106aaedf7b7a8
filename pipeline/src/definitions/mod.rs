//! Definitions from a folder, until the management API is their source.
