//! The log: standard error, in the form that its reader wants.
//!
//! Under systemd, standard error is the journal, which has its own clock and understands a priority in front of each
//! line (sd-daemon(3)); before a person it is a terminal, with time and, if it can, color. What is logged follows
//! `[daemon] log`, and can be changed while the daemon runs; `RUST_LOG` wins if set.

use std::fmt;
use std::io::IsTerminal as _;

use anyhow::{Context as _, Result};
use fabnic_agent::LogLimit;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Compact, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

/// The log while it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    filter: reload::Handle<EnvFilter, Registry>,
    limit: LogLimit,
}

/// What is logged: `RUST_LOG`, or the configuration.
fn filter(configured: &str) -> Result<EnvFilter> {
    let text = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let text = text.as_deref().unwrap_or(configured);
    EnvFilter::try_new(text).with_context(|| format!("`{text}` says nothing about logging"))
}

impl Journal {
    /// Begins to log, and to log panics instead of printing them.
    pub(crate) fn open(configured: &str) -> Result<Journal> {
        let (filter, handle) = reload::Layer::new(filter(configured)?);
        let limit = LogLimit::new();
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = if std::env::var_os("JOURNAL_STREAM").is_some() {
            let format = tracing_subscriber::fmt::format().without_time().with_level(false).compact();
            lines.with_ansi(false).event_format(Prioritized(format)).boxed()
        } else {
            lines.with_ansi(std::io::stderr().is_terminal()).compact().boxed()
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(limit.clone())
            .with(lines)
            .try_init()
            .context("cannot begin to log")?;
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            let thread = thread.name().unwrap_or("unnamed");
            let message = panic.payload_as_str().unwrap_or("no message");
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let trace = std::backtrace::Backtrace::capture();
            match trace.status() {
                std::backtrace::BacktraceStatus::Captured => {
                    tracing::error!(thread, place, "panic: {message}\n{trace}");
                }
                _ => tracing::error!(thread, place, "panic: {message}"),
            }
        }));
        Ok(Journal { filter: handle, limit })
    }

    /// Logs by another filter from now on.
    pub(crate) fn set_filter(&self, configured: &str) -> Result<()> {
        self.filter.reload(filter(configured)?).context("cannot change what is logged")
    }

    /// Says what was held back.
    pub(crate) fn report(&self) {
        self.limit.report();
    }
}

/// Lines with the priority that journald takes off again.
struct Prioritized(Format<Compact, ()>);

impl<S, N> FormatEvent<S, N> for Prioritized
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(to, "<{priority}>")?;
        self.0.format_event(ctx, to, event)
    }
}
