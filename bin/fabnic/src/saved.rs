//! Commands about saved state.
//!
//! Bytes go from daemon to file and back as they are: what they mean is the daemon's to say. Only `export --json` reads
//! them here, for people.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use fabnic_api::{MAX_PORT_STATE, StateRestored, StateSaved, StateStatus};
use fabnic_saved::{Item, Reader};
use hyper::Method;

use crate::{
    args::State,
    client::{Content, Failure, escape},
    commands::Out,
    show::{count, seconds},
};

pub(crate) async fn state(out: &Out, command: State) -> Result<(), Failure> {
    match command {
        State::Show => out.get("/v1/state", status).await,
        State::Save => {
            let answer = out.client.text(Method::POST, "/v1/state/save", Content::Nothing).await?;
            out.say(&answer, saved)
        }
        State::Export { port, file } => {
            if file.is_none() && !out.json && std::io::stdout().is_terminal() {
                return Err(Failure::Usage("this is no text: say a FILE, or --json to read it".into()));
            }
            let bytes = out.client.text(Method::GET, &path(&port), Content::Nothing).await?;
            let bytes = if out.json { readable(&bytes)? } else { bytes.to_vec() };
            write(file.as_deref(), &bytes)
        }
        State::Import { port, file } => {
            let bytes = read(file.as_deref())?;
            let answer = out.client.text(Method::PUT, &path(&port), Content::Bytes(bytes)).await?;
            out.say(&answer, restored)
        }
    }
}

fn path(port: &str) -> String {
    format!("/v1/ports/{}/state", escape(port))
}

/// One object of JSON a line for each section.
fn readable(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut reader = Reader::new(bytes)?;
    let mut text = Vec::new();
    loop {
        match reader.next_item()? {
            Item::Section(section) => {
                serde_json::to_writer(&mut text, &section)?;
                text.push(b'\n');
            }
            Item::Unknown(unknown) => {
                eprintln!(
                    "fabnic: a section of kind {}, version {} is not known",
                    unknown.kind, unknown.version
                );
            }
            Item::End => return Ok(text),
        }
    }
}

fn write(file: Option<&Path>, bytes: &[u8]) -> Result<(), Failure> {
    let done = match file {
        Some(file) => {
            use std::os::unix::fs::OpenOptionsExt as _;
            let open =
                std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(file);
            open.and_then(|mut to| to.write_all(bytes))
                .with_context(|| format!("cannot write {}", file.display()))
        }
        None => std::io::stdout().write_all(bytes).context("cannot write"),
    };
    done.map_err(Failure::Other)
}

fn read(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let most = MAX_PORT_STATE as u64 + 1;
    let mut bytes = Vec::new();
    let done = match file {
        Some(file) => std::fs::File::open(file)
            .and_then(|from| from.take(most).read_to_end(&mut bytes))
            .with_context(|| format!("cannot read {}", file.display())),
        None => std::io::stdin().take(most).read_to_end(&mut bytes).context("cannot read"),
    };
    done.map_err(Failure::Other)?;
    Ok(bytes)
}

/// `2 fdb, 7 connections`.
fn records<'a>(records: impl IntoIterator<Item = (&'a String, &'a u64)>) -> String {
    let parts: Vec<_> = records.into_iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    if parts.is_empty() { "nothing".into() } else { parts.join(", ") }
}

/// `4 s ago`, by this host's clock.
fn ago(at: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{} ago", seconds(now.as_secs().saturating_sub(at)))
}

fn saved(what: &StateSaved) -> String {
    format!("saved in {} ms, {} bytes: {}\n", what.milliseconds, what.bytes, records(&what.records))
}

fn restored(what: &StateRestored) -> String {
    if let Some(problem) = &what.problem {
        return format!("not restored: {problem}\n");
    }
    let mut text = format!(
        "from {}, {} old: {}\n",
        what.written_by,
        seconds(what.passed_seconds),
        records(&what.restored)
    );
    for (kind, reasons) in &what.lost {
        let reasons: Vec<_> = reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "  not restored: {kind}: {}", reasons.join(", "));
    }
    for unknown in &what.unknown {
        let _ = writeln!(text, "  not known here: {unknown}");
    }
    text
}

fn status(status: &StateStatus) -> String {
    let mut text = match &status.file {
        None => "state is not saved: it ends with the daemon\n".to_owned(),
        Some(file) if status.interval_seconds == 0 => format!("{file}, written when the daemon ends\n"),
        Some(file) => format!("{file}, written every {}\n", seconds(status.interval_seconds.into())),
    };
    if let Some(what) = &status.saved {
        let _ = writeln!(text, "{}, the last {}", count(status.saves, "save"), ago(what.at));
        text.push_str(&saved(what));
    }
    if let Some(problem) = &status.problem {
        let _ = writeln!(text, "{}, the last: {problem}", count(status.failures, "failure"));
    }
    if let Some(what) = &status.restored {
        text.push_str("at the start ");
        text.push_str(&restored(what));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_said() {
        let mut what = StateRestored {
            written_by: "fabnicd 0.1.0".into(),
            passed_seconds: 61,
            restored: [("fdb".to_owned(), 3)].into(),
            lost: [("fdb".to_owned(), [("limit".to_owned(), 2), ("taken".to_owned(), 1)].into())].into(),
            unknown: vec!["kind 900".into()],
            ..StateRestored::default()
        };
        let status_of = |what: &StateRestored| {
            status(&StateStatus { restored: Some(what.clone()), ..StateStatus::default() })
        };
        assert_eq!(
            status_of(&what),
            "state is not saved: it ends with the daemon\nat the start from fabnicd 0.1.0, 1m01s old: 3 fdb\n  \
             not restored: fdb: 2 limit, 1 taken\n  not known here: kind 900\n"
        );
        what.problem = Some("broken".into());
        assert!(status_of(&what).ends_with("at the start not restored: broken\n"));
    }
}
