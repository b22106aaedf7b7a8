//! The one configuration file.
