//! `docs/configuration.md`, made from the types.
