//! The effective configuration: built-in defaults, `cfg.yaml`, flags.
