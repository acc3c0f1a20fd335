//! `fabnic capture`: the daemon's pcapng, as it comes.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    args::{Capture, Direction},
    client::{Client, Content, Failure, query},
};

/// Writes what the daemon sends until the count is reached, Ctrl-C, or the reader of standard output goes.
pub(crate) async fn run(client: &Client, wanted: Capture) -> Result<(), Failure> {
    let to_stdout = wanted.write.as_os_str() == "-";
    if to_stdout && io::stdout().is_terminal() {
        let advice = "a capture is no text: pipe it, as in `fabnic capture PORT -w - | tcpdump -r -`";
        return Err(Failure::Usage(advice.into()));
    }
    let direction = match wanted.direction {
        Direction::Rx => "rx",
        Direction::Tx => "tx",
        Direction::Both => "both",
    };
    let query = query([
        ("port", Some(wanted.port)),
        ("snaplen", Some(wanted.snaplen.to_string())),
        ("direction", Some(direction.into())),
        ("count", wanted.count.map(|c| c.to_string())),
    ]);
    let response = client.send(Method::GET, &format!("/v1/capture{query}"), Content::Nothing).await?;

    // The file is made only now, so that a refused capture leaves an older one alone.
    let mut sink: Box<dyn Write> = if to_stdout {
        Box::new(io::stdout())
    } else {
        let file = File::create(&wanted.write).with_context(|| wanted.write.display().to_string());
        Box::new(file.map_err(Failure::Other)?)
    };
    let progress = if io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
    progress.set_style(ProgressStyle::with_template("{spinner} {binary_bytes} captured, Ctrl-C ends")?);
    progress.enable_steady_tick(Duration::from_millis(200));

    let mut body = response.into_body();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = &mut interrupted => break,
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame?.into_data() else { continue };
        match sink.write_all(&data).and_then(|()| sink.flush()) {
            Ok(()) => progress.inc(data.len() as u64),
            // The reader has seen enough: `tcpdump -c 10`.
            Err(e) if to_stdout && e.kind() == io::ErrorKind::BrokenPipe => break,
            Err(e) => return Err(Failure::Other(anyhow::Error::new(e).context("writing the capture"))),
        }
    }
    progress.finish_and_clear();
    if !to_stdout && io::stderr().is_terminal() {
        eprintln!("{} bytes captured to {}", progress.position(), wanted.write.display());
    }
    Ok(())
}
