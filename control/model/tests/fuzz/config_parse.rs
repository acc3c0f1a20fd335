//! Any bytes as a configuration, as TOML and as JSON, and as a change of a port: read or refused with a reason, and
//! what was read can be used, written, compared and changed.

use fabnic_model::{Config, EditError, Refused, apply, config_from_json, diff, parse, port_from_json};

pub(crate) fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        match parse(text) {
            Ok(config) => usable(&config),
            Err(refused) => {
                told(&refused);
                let lines = text.lines().count() + 1;
                assert!(
                    refused.0.iter().all(|r| r.line.is_none_or(|line| (1..=lines).contains(&line))),
                    "{refused}"
                );
            }
        }
    }
    match config_from_json(data) {
        Ok(config) => usable(&config),
        Err(refused) => told(&refused),
    }
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) {
        if let Err(refused) = port_from_json(value.clone()) {
            told(&refused);
        }
        let mut config =
            parse("[[port]]\nname = \"a\"\nuplink = \"loopback\"\n").expect("a correct configuration");
        let before = config.clone();
        match config.set_port("a", value) {
            Ok(()) => {
                assert_eq!(config.port.len(), 1);
                assert_eq!(config.port[0].name, "a");
                let _ = config.check();
                assert_eq!(apply(&before, &diff(&before, &config)), config);
            }
            Err(EditError::Refused(refused)) => {
                told(&refused);
                assert_eq!(config, before, "a refused change changes nothing");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// What passed the checks has no surprises left.
fn usable(config: &Config) {
    for port in &config.port {
        port.kind().expect("a checked port is of some kind");
    }
    let toml = config.to_toml().expect("numbers that came from TOML or were checked can be written");
    assert_eq!(&parse(&toml).expect("what we write we read"), config, "{toml}");
    let json = serde_json::to_vec(config).expect("our own types");
    assert_eq!(&config_from_json(&json).expect("what we write we read"), config);
    let empty = Config::default();
    let there = apply(&empty, &diff(&empty, config));
    assert_eq!(&there, config);
    assert!(diff(&there, config).is_empty());
    assert_eq!(apply(config, &diff(config, &empty)), empty);
}

/// Whoever reads the refusal learns something, and their terminal stays as it is.
fn told(refused: &Refused) {
    assert!(!refused.0.is_empty());
    for refusal in &refused.0 {
        assert!(!refusal.problem.is_empty());
    }
    assert!(refused.to_string().chars().all(|c| c == '\n' || !c.is_control()), "{refused:?}");
}
