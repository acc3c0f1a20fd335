//! Desired state: the TOML file, its types, its checks, its difference to what runs.
