//! The configuration that packages install is one, as it is and with its examples uncommented.

#[test]
fn packaged_configuration_is_correct() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/fabnic.toml");
    let text = std::fs::read_to_string(path).expect("packaging/fabnic.toml");
    assert_eq!(fabnic_model::parse(&text).expect("as it is"), fabnic_model::Config::default());

    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(code) if code.starts_with("[[") || code.contains(" = ") => format!("{code}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = fabnic_model::parse(&uncommented).expect("uncommented");
    assert_eq!((config.port.len(), config.daemon.workers.len()), (2, 2));
}
